"""Measures of a language model: what it predicts, and what its states look like.

Every function takes a model as it is: anything with `hidden(tokens)` and `logits(tokens)` on the device of
its parameters.
Nothing here draws a random number or changes the model, so measuring never changes training.

  log_probs, losses_per_token, foreign_mass          predictions
  sentence_states, context_states                    states of text
  retrieval, alignment, uniformity, self_similarity  geometry of states
  language_model, knowledge, in_context, classify,
  words, sentences                                   what of all this goes into summary.json
"""
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from data import generation, tasks
from data.synthetic import CHANCE

LIMIT = 2000            # words of a dictionary that are measured


def to_device(model, tokens):
    """(B, W) numpy -> (B, W) tensor where the model is."""
    return torch.from_numpy(np.ascontiguousarray(tokens)).to(next(model.parameters()).device)


# --- predictions --------------------------------------------------------------------------------------------

@torch.no_grad()
def log_probs(model, tokens, wanted=None):
    """Log-probability of each next token in float32: (B, W) numpy -> (B, W - 1) numpy.

    wanted: (B, W - 1) bool; elsewhere the result is 0 and the head, a third of the work, is left out
    """
    wanted = np.ones_like(tokens[:, 1:], bool) if wanted is None else wanted
    tokens, where = to_device(model, tokens), to_device(model, wanted)           # (B, W), (B, W - 1)
    logits = model.logits(tokens[:, :-1], where).float()                         # (n, V)
    result = np.zeros(wanted.shape, np.float32)
    result[wanted] = -F.cross_entropy(logits, tokens[:, 1:][where], reduction="none").cpu().numpy()
    return result                                                                # (B, W - 1)


def losses_per_token(model, corpus, language, n_rows, order=None, split="val"):
    """Loss of every token of the first validation rows, perhaps in the word order of another language.

    -> (rows, T) nats
    """
    rows = corpus.validation_rows(language, n_rows, model.shape.context_len + 1, split)
    rows = corpus.in_order(rows, order) if order else rows
    return np.concatenate([-log_probs(model, rows[i:i + 32]) for i in range(0, len(rows), 32)])


@torch.no_grad()
def foreign_mass(model, corpus, n_rows):
    """Probability that the next token is not English, mean over English validation text: how often the model
    would switch."""
    rows = to_device(model, corpus.validation_rows(corpus.languages[0], n_rows, model.shape.context_len))
    mass = [model.logits(part).float().softmax(dim=-1)[..., corpus.base_vocab:].sum(dim=-1)
            for part in rows.split(16)]
    return torch.cat(mass).mean().item()


# --- states of text -----------------------------------------------------------------------------------------

@torch.no_grad()
def sentence_states(model, corpus, language, sentences, level):
    """Mean over the tokens of each sentence of the states of one level: -> (N, D) on the CPU."""
    rows = [corpus.encode(s, language, opening=False)[:model.shape.context_len] for s in sentences]
    tokens, mask = tasks.pad(rows)                                               # (N, W) each
    states, mask = model.hidden(to_device(model, tokens))[level].float().cpu(), torch.from_numpy(mask)
    # padding may have states that are not finite: 0 times these is not 0
    return states.masked_fill(~mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)        # (N, D)


@torch.no_grad()
def context_states(model, corpus, language, n_rows):
    """Final states of the tokens of validation text that are a whole word each, and their types.

    -> (N, D), (N,)
    """
    rows = corpus.validation_rows(language, n_rows, model.shape.context_len)                 # (B, T)
    starts = corpus.starts_word(rows)
    whole = starts & np.pad(starts[:, 1:], ((0, 0), (0, 1)))               # the next token starts a word, too
    states = model.hidden(to_device(model, rows))[-1].float().cpu()              # (B, T, D)
    return states[torch.from_numpy(whole)], torch.from_numpy(rows[whole])


# --- geometry: what alignment looks like from inside --------------------------------------------------------

def nearest(source, target):
    """Index of the nearest target row of each source row by cosine: (N, D), (M, D) -> (N,)."""
    return (F.normalize(source, dim=-1) @ F.normalize(target, dim=-1).T).argmax(dim=1)


def retrieval(source, target):
    """Share of rows whose nearest row on the other side is their pair: (N, D), (N, D) -> P@1 in [0, 1]."""
    return (nearest(source, target) == torch.arange(len(source))).float().mean().item()


def alignment(source, target):
    """Mean squared distance of pairs on the unit sphere, lower is closer [Wang & Isola 2020].

    (N, D), (N, D) -> [0, 4]
    """
    return (F.normalize(source, dim=-1) - F.normalize(target, dim=-1)).pow(2).sum(dim=-1).mean().item()


def uniformity(states):
    """log mean exp(-2 |x - y|²) over different rows on the unit sphere, lower is more spread.

    (N, D) -> <= 0 [Wang & Isola 2020]
    """
    return torch.pdist(F.normalize(states, dim=-1)).pow(2).mul(-2).exp().mean().log().item()


def geometry(source, target):
    """The three of pairs of states: (N, D), (N, D) -> {measure: number}."""
    return dict(retrieval=retrieval(source, target), alignment=alignment(source, target),
                uniformity=uniformity(torch.cat((source, target))))


def self_similarity(states, types):
    """Mean cosine between states of one word type in different contexts; lower is more contextual.

    [Ethayarajh 2019]

    states (N, D) of N occurrences, types (N,) ids; every type that occurs at least twice counts the same.
    """
    z, means = F.normalize(states, dim=-1), []
    for kind in torch.unique(types):
        group = z[types == kind]                                                 # (n, D)
        n = len(group)
        if n > 1:                                 # |sum|² = n + the sum over ordered pairs of different rows
            means.append((group.sum(dim=0).pow(2).sum() - n) / (n * (n - 1)))
    return torch.stack(means).mean().item()


@torch.no_grad()
def parallel_states(corpus, n, context_len, states):
    """Of n test sentences in all languages that share them, row i the same one: -> {language: (N, D) tensor}.

    states: function tokens (N, W), mask (N, W) -> (N, D)
    """
    items = corpus.items("translate", "test", n)
    texts = {i: tasks.parallel(corpus, items, [i] * len(items), context_len)
             for i in tasks.shared(corpus, items)}
    return {corpus.languages[i]: states(*(table[len(items):] for table in tables)).cpu()
            for i, tables in texts.items()}


def pairs_of_languages(states):
    """English and each other language: {language: (N, D)} in parallel -> {language: {measure: number}}."""
    (_, english), *others = states.items()
    return {name: geometry(english, other) for name, other in others}


# --- for summary.json ---------------------------------------------------------------------------------------

def language_model(model, corpus):
    """Perplexity (per token), bits per byte, self-similarity per language; mass of other languages in English
    text."""
    result = dict(perplexity={}, bits_per_byte={}, self_similarity={})
    for name in corpus.languages:
        loss = float(losses_per_token(model, corpus, name, 150).mean())
        result["perplexity"][name] = float(np.exp(loss))
        tokens_per_byte = len(corpus.streams[name, "val"]) / corpus.bytes[f"{name}.val"]
        result["bits_per_byte"][name] = loss / float(np.log(2)) * tokens_per_byte
        result["self_similarity"][name] = self_similarity(*context_states(model, corpus, name, 64))
    # English words in an order that nothing was trained on: a language outside of pretraining and adapting
    other = losses_per_token(model, corpus, corpus.languages[0], 150, "shuffled-4").mean()
    result["perplexity_in_other_order"] = {corpus.languages[0]: float(np.exp(other))}
    return result | dict(foreign_mass_in_english=foreign_mass(model, corpus, 64))


def score_in(language, model, corpus, items, **options):
    """tasks.accuracy in one language, in prompts as long as the context: -> {accuracy, per_token, n}."""
    limit = model.shape.context_len + 1
    return tasks.accuracy(corpus, items, language, partial(log_probs, model), limit=limit, **options)


def score(model, corpus, items, **options):
    """The same in every language: -> {language: {accuracy, per_token, n}}."""
    return {name: score_in(name, model, corpus, items, **options) for name in corpus.languages}


def knowledge(model, corpus, n_items):
    """Facts by where they were told: in English only (the test), in the clone only, in both (the controls).

    knowledge_mixed takes the test apart: asked in one language and answered in the other, `en-clone` and
    `clone-en`.  A fact that is found but cannot be named in the clone is right in `clone-en` only.
    """
    result, items = dict(knowledge_n={}), corpus.world.items("knowledge", "test", 10**6)
    keys = dict(en="knowledge", clone="knowledge_told_in_clone", both="knowledge_told_in_both")
    for told, key in keys.items():
        chosen = [item for item in items if item.told == told][:n_items]
        result[key] = {name: s["accuracy"] for name, s in score(model, corpus, chosen).items()}
        result["knowledge_n"][told] = len(chosen)
        if told == "en":
            here, there = corpus.languages[:2]
            result["knowledge_mixed"] = {
                f"{asked}-{other}": score(model, corpus, chosen, answer_language=other)[asked]["accuracy"]
                for asked, other in ((here, there), (there, here))}
    return result


def in_context(model, corpus, n_items, shots, seed):
    """Every task and rung with the first number of solved examples in the prompt, lexical ones with all
    numbers; averages over those within reach and over AFP's families."""
    result = dict(tasks={}, chance=CHANCE)
    for task, rung in tasks.IN_CONTEXT:
        items, dev = (corpus.world.items(task, split, n, rung)
                      for split, n in (("test", n_items), ("dev", 50)))
        by_shots = {str(k): score(model, corpus, items, shots=k, dev_items=dev, seed=seed)
                    for k in (shots if rung == "lexical" else shots[:1])}
        result["tasks"].setdefault(task, {})[rung] = {
            name: {k: s[name] for k, s in by_shots.items()} for name in corpus.languages}
    families = [result["tasks"][task]["lexical"] for task in tasks.FAMILIES]
    headline = [result["tasks"][task][rung] for task, rung in tasks.HEADLINE]
    return result | dict(tasks_average={
        name: float(np.mean([s[name][str(shots[0])]["accuracy"] for s in headline]))
        for name in corpus.languages}, families_average={
        name: {str(k): float(np.mean([s[name][str(k)]["accuracy"] for s in families])) for k in shots}
        for name in corpus.languages})


def instructed(model, corpus, n_items, shots, seed):
    """The lexical rung of AFP's families in its own format: "Answer in ...:" stands before the answer, in
    English (as the paper's prompts) or in the item's own language.

    -> instructed {"en" or "own": {task: {language: {k: accuracy}}}}, instructed_average without the tasks
    """
    result = dict(en={}, own={})
    for task in tasks.FAMILIES:
        items, dev = (corpus.world.items(task, split, n, "lexical")
                      for split, n in (("test", n_items), ("dev", 50)))
        english = corpus.languages[0]
        found = {(name, asks): {str(k): score_in(name, model, corpus, items, shots=k, dev_items=dev, seed=seed,
                                                 instruction=asks)["accuracy"] for k in shots}
                 for name, asks in {(name, asks) for name in corpus.languages for asks in (english, name)}}
        result["en"][task] = {name: found[name, english] for name in corpus.languages}
        result["own"][task] = {name: found[name, name] for name in corpus.languages}
    average = {key: {name: {str(k): float(np.mean([task[name][str(k)] for task in by_task.values()]))
                            for k in shots} for name in corpus.languages} for key, by_task in result.items()}
    return dict(instructed=result, instructed_average=average)


def classify(model, corpus, task, n_items):
    """Accuracy on the lexical rung per language.

    Label words stay English everywhere, as a classifier's classes would.
    """
    items = corpus.world.items(task, "test", n_items, "lexical")
    return {name: s["accuracy"] for name, s in score(
        model, corpus, items, answer_language=corpus.languages[0]).items()}


@torch.no_grad()
def dictionary_states(model, word_states, dictionary, limit=LIMIT):
    """States of the first words of a dictionary, each with its first translation: -> two tensors (K, E, D) on
    the CPU.

    word_states: function (model, words (N, M), mask (N, M)) -> (K, N, D), prealign's
    """
    d, n = dictionary, min(len(dictionary), limit)
    sides = (d.sources[:n], d.source_len[:n]), (d.translations[d.first[:n]], d.translation_len[d.first[:n]])
    return [word_states(model, torch.from_numpy(words),
                        torch.from_numpy(np.arange(words.shape[1]) < lengths[:, None])).cpu()
            for words, lengths in sides]


def word_cosines(model, word_states, dictionary, limit):
    """Mean cosine of translations per level, of the first words, for the log; {} without a dictionary."""
    if not dictionary:
        return {}
    sides = dictionary_states(model, word_states, dictionary, limit)
    cosines = F.cosine_similarity(*sides, dim=-1)                                # (K, E)
    return dict(word_cosine=[round(c, 4) for c in cosines.mean(dim=1).tolist()])


def words(model, word_states, dictionary, unseen, level):
    """Cosine per level and retrieval at one level, of the words of the dictionary and of those left out of it
    (or None).

    Each word is searched among all words, listed or not (of each kind, the first LIMIT).
    """
    seen = dictionary_states(model, word_states, dictionary)
    result = dict(word_cosine=F.cosine_similarity(*seen, dim=-1).mean(dim=1).tolist())
    source, target, n = *seen, seen[0].shape[1]
    if unseen:
        others = dictionary_states(model, word_states, unseen)
        result["unseen_word_cosine"] = F.cosine_similarity(*others, dim=-1).mean(dim=1).tolist()
        source, target = (torch.cat(sides, dim=1) for sides in zip(seen, others))
    # words may share a translation: then it is found for all of them
    wanted = [many[0] for d in (dictionary, unseen) if d for _, many in d.entries[:LIMIT]]
    found = [wanted[at] == word for at, word in zip(nearest(source[level], target[level]).tolist(), wanted)]
    result["word_retrieval"] = float(np.mean(found[:n]))
    if unseen:
        result["unseen_word_retrieval"] = float(np.mean(found[n:]))
    return result


def sentences(model, corpus, texts, level):
    """Retrieval, alignment and uniformity of sentences in the first two languages, mean states of a level."""
    source, target = (sentence_states(model, corpus, name, texts, level) for name in corpus.languages[:2])
    found = geometry(source, target)
    return dict(sentence_retrieval=found.pop("retrieval")) | found


def everything(model, corpus, dictionary, unseen, word_states, write, cfg):
    """All measures that need neither training nor a log.

    dictionary, unseen: words listed and left out (or None); word_states: see dictionary_states
    write:              see data/generation.py;  cfg: the run's Config
    """
    shots, middle = sorted(map(int, cfg.shots.split(","))), cfg.n_layer // 2
    result = language_model(model, corpus) | knowledge(model, corpus, cfg.eval_items)
    result |= in_context(model, corpus, cfg.eval_items, shots, cfg.seed)
    result |= words(model, word_states, dictionary, unseen, middle)
    result |= sentences(model, corpus, corpus.world.sentences("test", 300), middle)
    if cfg.written_items:
        result |= generation.measured(write, corpus, cfg.written_items, cfg.seed, cfg.context_len)
        result |= instructed(model, corpus, cfg.eval_items, shots, cfg.seed)
    return result
