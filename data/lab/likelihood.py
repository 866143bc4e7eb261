"""Measures by likelihood: perplexity, tasks, knowledge and zero-shot transfer."""
import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from data.folder import CAPTIONS, FRACTION, permute_words
from data.lab.geometry import recall
from data.lab.states import to_device
from data.tasks import FAMILIES, MOST_SHOTS, WITHIN_REACH, predict, score

ROWS = 150                           # rows of text that perplexity is measured on
SCORES = 2**26                       # scores of tokens that are computed at once: 256 MB
# Not asked in context: facts have a measure of their own, and joint pretraining never has two languages in
# one document, which a translation would need.
NOT_IN_CONTEXT = ("knowledge", "translate", *CAPTIONS)


@torch.no_grad()
def log_probs(model, tokens, wanted=None):
    """Log-probability of each next token in float32: tokens (B, W) -> (B, W - 1), numpy.

    wanted: (B, W - 1) bool; elsewhere the result is 0, and the head, a third of the work, is not computed
    The head is computed for some positions at a time, because a checkpoint has many scores per position.
    """
    if wanted is None:
        wanted = np.ones_like(tokens[:, 1:], bool)
    tokens, where = to_device(model, tokens), to_device(model, np.flatnonzero(wanted))       # (B, W), (n,)
    states = model.hidden(tokens[:, :-1])[-1].flatten(0, 1).index_select(0, where)           # (n, D)
    targets, at_once = tokens[:, 1:].flatten()[where], max(SCORES // model.config.vocab_size, 1)
    losses = [F.cross_entropy(model.head(some).float(), following, reduction="none")
              for some, following in zip(states.split(at_once), targets.split(at_once))]
    result = np.zeros(wanted.shape, np.float32)
    result[wanted] = -torch.cat(losses).cpu().numpy()
    return result                                                                # (B, W - 1)


def losses_per_token(model, corpus, language, n_rows, split="val", order=None):
    """Loss of every token of the first rows of a validation or test stream: -> (rows, T) in nats.

    order: of the words of English, see permute_words
    """
    rows = corpus.validation_rows(language, n_rows, model.config.context_len + 1, split)
    if order:
        rows = permute_words(rows.flatten(), *corpus.classes, order).reshape(rows.shape)
    n = min(max(SCORES // (rows.shape[1] * model.config.vocab_size), 1), 32)     # rows at once
    return np.concatenate([-log_probs(model, rows[i:i + n]) for i in range(0, len(rows), n)])


def copying(model, corpus, n_rows=16):
    """Loss of a random sequence after another one, minus its loss after a copy of itself, nats per token.

    -> {language: nats}, near 0 if the model cannot copy.  The tokens are those of validation text, shuffled.
    """
    result, half, rng = {}, model.config.context_len // 2, np.random.default_rng(0)
    for name in corpus.languages:
        rows = corpus.validation_rows(name, n_rows, half)                        # (rows, half)
        one, other = (rng.permuted(rows, axis=1) for _ in range(2))
        again, control = (-log_probs(model, np.concatenate((before, one), axis=1))[:, half:]
                          for before in (one, other))                            # (rows, half - 1) each
        result[name] = float(control.mean() - again.mean())
    return result


def rare_tokens(corpus, language, share=0.1):
    """The rarest tokens of a language, at most this share of its training text together: -> (V,) bool."""
    stream, V = corpus.streams[language, "train"], corpus.vocab_size
    counts = sum(np.bincount(stream[i:i + SCORES], minlength=V) for i in range(0, len(stream), SCORES))
    order, rare = np.argsort(counts, kind="stable"), np.zeros(len(counts), bool)
    rare[order[np.cumsum(counts[order]) <= share * counts.sum()]] = True
    return rare


@torch.no_grad()
def language_model(model, corpus):
    """Measures of held-out text: -> {measure: {language: number}}.

    perplexity_per_word is exp(nats / words).  Document separators are predicted, too: they add nats, but no
    words.  foreign_mass_in_english needs languages without common tokens, and perplexity_in_other_order a
    world of clones.  data/glossary.md explains each measure.
    """
    split, result = corpus.test_split, {}
    for name in corpus.languages:
        losses = losses_per_token(model, corpus, name, ROWS, split)              # (rows, T)
        loss = float(losses.mean())
        tokens, words, n_bytes = (corpus.meta[key][f"{name}.{split}"] for key in ("tokens", "words", "bytes"))
        found = dict(perplexity=float(np.exp(loss)), perplexity_per_word=float(np.exp(loss * tokens / words)),
                     bits_per_byte=loss / math.log(2) * (tokens / n_bytes), perplexity_n=losses.size)
        rows = corpus.validation_rows(name, ROWS, model.config.context_len + 1, split)       # (rows, T + 1)
        rare = losses[rare_tokens(corpus, name)[rows[:, 1:]]]
        if len(rare):
            found["perplexity_of_rare"] = float(np.exp(float(rare.mean())))
        for key, number in found.items():
            result.setdefault(key, {})[name] = number
    if corpus.disjoint:
        rows = to_device(model, corpus.validation_rows("en", 64, model.config.context_len))  # (B, T)
        foreign = [model.logits(part).float().softmax(dim=-1)[..., corpus.base_vocab:].sum(dim=-1)
                   for part in rows.split(16)]                                   # (16, T) each
        result["foreign_mass_in_english"] = torch.cat(foreign).mean().item()
    if corpus.word_order:
        losses = losses_per_token(model, corpus, "en", ROWS, split, order=4)
        result["perplexity_in_other_order"] = dict(en=float(np.exp(losses.mean())))
    return result


def ask(model, corpus, task, difficulty, language, n_items, ks, seed, instruction=None):
    """Accuracy on a task after k validation items, for each k that there are: -> {k: see tasks.score}."""
    items = corpus.items(task, "test", n_items, difficulty, language)
    dev = corpus.items(task, "val", MOST_SHOTS, difficulty, language)
    return {str(k): score(corpus, items, language, partial(log_probs, model), k=k, dev_items=dev, seed=seed,
                          limit=model.config.context_len + 1, instruction=instruction)
            for k in ks if items and k <= len(dev)}


def knowledge(model, corpus, n_items):
    """Accuracy on facts by the language of the text that states them: English only, the clone only, or both.

    Facts seen only in English are the test, the others are controls.  knowledge_mixed asks the former in one
    language and offers answers in the other, as in `en-clone`.  A fact that was transferred but cannot be
    named in the clone is right in `clone-en` only.
    """
    def accuracy(items, asked, answered=None):
        return score(corpus, items, asked, partial(log_probs, model), answer_language=answered,
                     limit=model.config.context_len + 1)["accuracy"]

    result, facts, (english, other) = {}, corpus.items("knowledge", "test", 10**6), corpus.languages[:2]
    keys = dict(en="knowledge", clone="knowledge_told_in_clone", both="knowledge_told_in_both")
    for told, key in keys.items():
        items = [item for item in facts if item.told == told][:n_items]
        if not items:
            continue
        result[key] = {name: accuracy(items, name) for name in corpus.languages}
        result.setdefault("knowledge_n", {})[told] = len(items)
        if told == "en":
            result["knowledge_mixed"] = {f"{english}-{other}": accuracy(items, english, other),
                                         f"{other}-{english}": accuracy(items, other, english)}
    return result


def in_context(model, corpus, n_items, ks, seed):
    """Accuracy on every task and difficulty: after ks[0] demonstrations, on lexical items after all of ks.

    -> tasks {task: {difficulty or "text": {language: {k: see tasks.score}}}}, families_average over AFP's
    families {language: {k: accuracy}}, tasks_average over the tasks within reach {language: accuracy}
    """
    result = {}
    for task in corpus.task_names():
        n = math.ceil(n_items / FRACTION.get(task, 1))
        for difficulty in corpus.difficulties(task) if task not in NOT_IN_CONTEXT else ():
            numbers = ks if difficulty == "lexical" else ks[:1]
            found = {name: ask(model, corpus, task, difficulty, name, n, numbers, seed)
                     for name in corpus.languages}
            if found := {name: by_k for name, by_k in found.items() if by_k}:
                result.setdefault(task, {})[difficulty or "text"] = found
    found = dict(tasks=result, tasks_average={}, families_average={})
    if {*FAMILIES, *dict(WITHIN_REACH)} <= set(result):
        within_reach = [result[task][difficulty] for task, difficulty in WITHIN_REACH]
        families = [result[task]["lexical"] for task in FAMILIES]
        for name in corpus.languages:
            found["tasks_average"][name] = average(within_reach, name, ks[0])
            found["families_average"][name] = {str(k): average(families, name, k) for k in ks}
    return found


def average(tasks, language, k):
    """Mean accuracy over tasks, each {language: {k: see tasks.score}}."""
    return float(np.mean([task[language][str(k)]["accuracy"] for task in tasks]))


def instructed(model, corpus, n_items, ks, seed):
    """Accuracy on the lexical items of AFP's families with "Answer in ...:" before each answer, on average.

    The phrase is English ("en", as in the paper's prompts) or in the language of the item ("own").
    -> instructed_average {"en" or "own": {language: {k: accuracy}}}
    """
    def average_of(name, phrase):
        found = [ask(model, corpus, task, "lexical", name, n_items, ks, seed, phrase) for task in FAMILIES]
        return {k: float(np.mean([by_k[k]["accuracy"] for by_k in found])) for k in found[0]}

    if not set(FAMILIES) <= set(corpus.task_names()):
        return {}
    own = {name: average_of(name, name) for name in corpus.languages}
    english = {name: average_of(name, "en") for name in corpus.languages[1:]}
    return dict(instructed_average=dict(own=own, en={"en": own["en"]} | english))


def chance(corpus):
    """Accuracy of a random choice, 1 / number of candidates: -> {task: number}."""
    result = {}
    for task in corpus.task_names():
        for name, items in corpus.test_items(task, 1).items():
            result[task] = 1 / len(items[0].candidates_in(name))
    return dict(chance=result)


def classify(model, corpus, task, n_items):
    """Zero-shot transfer of a model that was fine-tuned on English items: -> {language: number}.

    The number is macro recall where classes are unbalanced, else accuracy.  Answers are always English.
    """
    result, difficulty = {}, "lexical" if "lexical" in corpus.difficulties(task) else None
    for name, items in corpus.test_items(task, n_items, difficulty).items():
        predicted, _, _ = predict(corpus, items, name, partial(log_probs, model), answer_language="en",
                                  limit=model.config.context_len + 1)
        answers = np.array([item.answer for item in items])
        accuracy = float((predicted == answers).mean())
        result[name] = recall(predicted, answers) if task in CAPTIONS else accuracy
    return result
