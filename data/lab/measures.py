"""Measures of a trained model: predictions on text and tasks, and the states of words and sentences.

A folder decides what is measured: a measure whose data it lacks is absent from the result.  Nothing here
draws a random number or changes the model, so measuring never changes training.

To add a measure, write a function that returns {summary key: numbers}, call it in evaluate_all, and give it a
row in tables.tsv.
"""
import json
import math
from functools import partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F

from align import sentence_states
from data.lab import generation
from data.lab.geometry import (alignment, centred, logistic_regression, nearest, recall, retrieval,
                               self_similarity, uniformity)
from data.tasks import (FAMILIES, WITHIN_REACH, count_tokens, languages_of, pad, parallel_sentences, predict,
                        score)
from prealign import word_states

ROWS = 150                           # rows of text that perplexity is measured on
PAIRS = 1000                         # sentence pairs per language; all sentences are candidates in retrieval
WORDS = 2000                         # words of a dictionary
AT_ONCE = 64                         # sentences whose states are computed together
UNBALANCED = ("scene", "who")        # tasks with classes of different sizes, learned from English captions
LONG = ("pawsx", "xnli", "xcopa", "xstorycloze")     # public tasks with long texts: a fifth of the items
# Not asked in context: facts have a measure of their own, and joint pretraining never has two languages in
# one document, which a translation would need.
NOT_IN_CONTEXT = ("knowledge", "translate", *UNBALANCED)


def to_device(model, array):
    """A numpy array as a tensor on the device of the model."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(next(model.parameters()).device)


# --- text ---------------------------------------------------------------------------------------------------

@torch.no_grad()
def log_probs(model, tokens, wanted=None):
    """Log-probability of each next token in float32: tokens (B, W) -> (B, W - 1), numpy.

    wanted: (B, W - 1) bool; elsewhere the result is 0, and the head, a third of the work, is not computed
    """
    if wanted is None:
        wanted = np.ones_like(tokens[:, 1:], bool)
    tokens, where = to_device(model, tokens), to_device(model, np.flatnonzero(wanted))       # (B, W), (n,)
    logits = model.logits(tokens[:, :-1], where).float()                         # (n, V)
    result = np.zeros(wanted.shape, np.float32)
    result[wanted] = -F.cross_entropy(logits, tokens[:, 1:].flatten()[where], reduction="none").cpu().numpy()
    return result                                                                # (B, W - 1)


def losses_per_token(model, corpus, language, n_rows, split="val", order=None):
    """Loss of every token of the first rows of a validation or test stream: -> (rows, T) in nats.

    order: name of a made-up language whose word order the rows get
    """
    rows = corpus.validation_rows(language, n_rows, model.config.context_len + 1, split)
    if order:
        rows = corpus.reorder(rows, order)
    return np.concatenate([-log_probs(model, rows[i:i + 32]) for i in range(0, len(rows), 32)])


@torch.no_grad()
def foreign_probability(model, corpus, n_rows):
    """Probability that a token of another language follows in English text, mean over all positions."""
    rows = to_device(model, corpus.validation_rows("en", n_rows, model.config.context_len))  # (B, T)
    foreign = [model.logits(part).float().softmax(dim=-1)[..., corpus.base_vocab:].sum(dim=-1)
               for part in rows.split(16)]                                       # (16, T) each
    return torch.cat(foreign).mean().item()


def language_model(model, corpus):
    """Measures of held-out text: -> {measure: {language: number}}.

    perplexity is per token; perplexity_per_word, exp(nats / words), can be compared between vocabularies.
    Document separators are predicted, too: they add nats, but no words.  perplexity_n counts tokens.
    foreign_mass_in_english, see foreign_probability, needs languages without common tokens.
    perplexity_in_other_order is that of English words in an order that no text has, in a world of clones.
    """
    split, result = corpus.test_split, {}
    for name in corpus.languages:
        losses = losses_per_token(model, corpus, name, ROWS, split)              # (rows, T)
        loss = float(losses.mean())
        tokens, words, n_bytes = (corpus.meta[key][f"{name}.{split}"] for key in ("tokens", "words", "bytes"))
        found = dict(perplexity=math.exp(loss), perplexity_per_word=math.exp(loss * tokens / words),
                     bits_per_byte=loss / math.log(2) * (tokens / n_bytes), perplexity_n=losses.size)
        states, types = context_states(model, corpus, name, 64)
        if len(types.unique()) < len(types):                                     # a type occurs twice
            found["self_similarity"] = self_similarity(states, types)
        for key, number in found.items():
            result.setdefault(key, {})[name] = number
    if corpus.disjoint:
        result["foreign_mass_in_english"] = foreign_probability(model, corpus, 64)
    if corpus.word_order:
        losses = losses_per_token(model, corpus, "en", ROWS, split, "shuffled-4")
        result["perplexity_in_other_order"] = dict(en=float(np.exp(losses.mean())))
    return result


@torch.no_grad()
def context_states(model, corpus, language, n_rows):
    """Final states of the tokens in validation text that are a whole word: -> (N, D), types (N,)."""
    rows = corpus.validation_rows(language, n_rows, model.config.context_len)                # (B, T)
    starts = corpus.starts_word(rows)
    # a token is a whole word if the next token starts a word, too
    whole = starts & np.pad(starts[:, 1:], ((0, 0), (0, 1)))                                 # (B, T)
    states = model.hidden(to_device(model, rows))[-1].float().cpu()                          # (B, T, D)
    return states[torch.from_numpy(whole)], torch.from_numpy(rows[whole])


# --- words and sentences ------------------------------------------------------------------------------------

@torch.no_grad()
def states_of_words(model, words, levels=slice(None)):
    """States of words that are read alone: tuples of token ids -> (K, N, D) on the CPU."""
    parts = [word_states(model, *map(torch.from_numpy, pad(words[i:i + WORDS])))[levels].cpu()
             for i in range(0, len(words), WORDS)]
    return torch.cat(parts, dim=1)


def translation_states(model, entries):
    """States of the words of dictionary entries and of their first translations: -> (K, E, D), (K, E, D)."""
    return (states_of_words(model, [word for word, _ in entries]),
            states_of_words(model, [translations[0] for _, translations in entries]))


def words(model, dictionary, held_out, level):
    """Cosine of translations per level, and P@1 at one level, of trained and of held-out dictionary words.

    dictionary, held_out: Dictionary or None.  Each word is searched among the translations of both.
    """
    entries = {key: d.entries[:WORDS] for key, d in (("word", dictionary), ("held_out_word", held_out)) if d}
    if not entries:
        return {}
    result, sides = {}, ([], [])
    for key, some in entries.items():
        source, target = translation_states(model, some)                         # (K, E, D) each
        result[f"{key}_cosine"] = F.cosine_similarity(source, target, dim=-1).mean(dim=1).tolist()
        sides[0].append(source[level])
        sides[1].append(target[level])
    found = nearest(*map(torch.cat, sides)).tolist()
    # words with the same translation are all right where it is found
    wanted = [translations[0] for _, translations in sum(entries.values(), [])]
    right = [wanted[index] == word for index, word in zip(found, wanted)]
    for key, some in entries.items():
        result[f"{key}_retrieval"] = float(np.mean(right[:len(some)]))
        right = right[len(some):]
    return result


def lexicon(model, corpus, middle):
    """Induction of a dictionary: the translations of the folder's held-out words by cosine.

    p1, p5: share of the words with a right translation nearest, or among the five nearest, of all words of
    that language in dictionary and lexicon;  chance: p1 of a random choice
    -> {"bli" (input embedding), "bli_middle" (middle level): {language: {p1, p5, n, chance}}}
    """
    def states(texts, language):
        tokens = [corpus.word(text, language) for text in texts]
        return F.normalize(states_of_words(model, tokens, [0, middle]), dim=-1)

    result = {}
    for name in corpus.languages[1:]:
        entries = corpus.lexicon(name)
        if not entries:
            continue
        candidates = sorted({other for _, other in corpus.word_pairs(name)}.union(*entries.values()))
        right = torch.zeros(len(entries), len(candidates), dtype=torch.bool)                 # (E, C)
        for row, translations in zip(right, entries.values()):
            row[[candidates.index(t) for t in translations]] = True
        english, other = states(entries, "en"), states(candidates, name)         # (2, E, D), (2, C, D)
        for key, source, target in zip(("bli", "bli_middle"), english, other):
            five = (source @ target.T).topk(min(5, len(candidates)), dim=1).indices          # (E, 5)
            hits = right.gather(1, five).float()                                 # (E, 5)
            result.setdefault(key, {})[name] = dict(
                p1=hits[:, 0].mean().item(), p5=hits.amax(dim=1).mean().item(),
                n=len(entries), chance=right.float().mean().item())
    return result


@torch.no_grad()
def mean_states(model, corpus, language, texts, level):
    """Mean over the tokens of each text of the states of one level: -> (N, D) on the CPU."""
    parts = []
    for i in range(0, len(texts), AT_ONCE):
        rows = [corpus.encode(text, language, separator=False)[:model.config.context_len]
                for text in texts[i:i + AT_ONCE]]
        tokens, mask = (to_device(model, table) for table in pad(rows))          # (n, W) each
        parts.append(sentence_states(model, tokens, mask, level, "mean").cpu())
    return torch.cat(parts)


def sentences(model, corpus, key, level):
    """Retrieval, alignment and uniformity of test sentence pairs by their mean states at one level.

    -> {key: {language: {to_english, from_english, the same centred, alignment, uniformity, n, chance}}}
    """
    result = {}
    for name in corpus.languages[1:]:
        pairs = list(corpus.pairs(name, "test", PAIRS))
        if len(pairs) < 2:
            continue
        english = mean_states(model, corpus, "en", [pair[0] for pair in pairs], level)       # (N, D)
        other = mean_states(model, corpus, name, [pair[1] for pair in pairs], level)         # (N, D)
        result[name] = dict(
            to_english=retrieval(other, english), from_english=retrieval(english, other),
            centred_to_english=retrieval(centred(other), centred(english)),
            centred_from_english=retrieval(centred(english), centred(other)),
            alignment=alignment(english, other), uniformity=uniformity(torch.cat((english, other))),
            n=len(pairs), chance=1 / len(pairs))
    return {key: result}


@torch.no_grad()
def parallel_states(model, corpus, n, cfg):
    """The states that MCL compares, of n test sentences: -> {language: (N, D) on the CPU}.

    Row i is the same sentence in every language.  Languages that lack one of the sentences are left out.
    """
    items, result = corpus.items("translate", "test", n), {}
    for index in languages_of(corpus, items):
        tables = parallel_sentences(corpus, items, [index] * len(items), model.config.context_len)
        tokens, mask = (to_device(model, table[len(items):]) for table in tables)            # (N, W) each
        states = sentence_states(model, tokens, mask, cfg.afp_mcl_layer, cfg.afp_mcl_pool)
        result[corpus.languages[index]] = states.cpu()
    return result


def afp_states(model, corpus, cfg):
    """Geometry of the states that MCL compares: -> {language: {retrieval (from English), alignment, ...}}."""
    states = parallel_states(model, corpus, 300, cfg)
    english = states.pop("en", None)
    return dict(afp_states={name: dict(
        retrieval=retrieval(english, other), alignment=alignment(english, other),
        uniformity=uniformity(torch.cat((english, other)))) for name, other in states.items()})


# --- tasks --------------------------------------------------------------------------------------------------

def multiple_choice(model, corpus, items, language, **options):
    """Accuracy in prompts that fit the context, see tasks.score: -> dict(accuracy, per_token, n[, cut])."""
    limit = model.config.context_len + 1
    return score(corpus, items, language, partial(log_probs, model), limit=limit, **options)


def ask(model, corpus, task, difficulty, language, n_items, ks, seed, **options):
    """Accuracy on a task in one language after k demonstrations: -> {k: see multiple_choice}.

    Demonstrations come from 50 validation items.  Numbers that exceed those of the folder are left out.
    """
    items = corpus.items(task, "test", n_items, difficulty, language)
    dev = corpus.items(task, "val", 50, difficulty, language)
    return {str(k): multiple_choice(model, corpus, items, language, k=k, dev_items=dev, seed=seed, **options)
            for k in ks if items and k <= len(dev)}


def items_by_language(corpus, task, n_items, difficulty=None):
    """Test items in each language that has any: -> {language: [item, ...]}."""
    found = {name: corpus.items(task, "test", n_items, difficulty, name) for name in corpus.languages}
    return {name: items for name, items in found.items() if items}


def knowledge(model, corpus, n_items):
    """Accuracy on facts by the language of the text that states them: English only, the clone only, or both.

    Facts seen only in English are the test, the others are controls.  knowledge_mixed asks the former in one
    language and offers answers in the other, as in `en-clone`.  A fact that was transferred but cannot be
    named in the clone is right in `clone-en` only.
    """
    def accuracy(items, asked, answered=None):
        return multiple_choice(model, corpus, items, asked, answer_language=answered)["accuracy"]

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


def in_context(model, corpus, n_items, ks, seed, level):
    """Accuracy on every task and difficulty: after ks[0] demonstrations, on lexical items after all of ks.

    -> tasks {task: {difficulty or "text": {language: {k: see multiple_choice}}}}, families_average over AFP's
    families {language: {k: accuracy}}, tasks_average over the tasks within reach {language: accuracy}
    """
    result = {}
    for task in corpus.task_names():
        n = math.ceil(n_items / 5) if task in LONG else n_items
        for difficulty in corpus.difficulties(task) if task not in NOT_IN_CONTEXT else ():
            if task == "same":
                found = same_picture(model, corpus, n, level)
            else:
                numbers = ks if difficulty == "lexical" else ks[:1]
                found = {name: ask(model, corpus, task, difficulty, name, n, numbers, seed)
                         for name in corpus.languages}
            if any(found.values()):
                found = {name: by_k for name, by_k in found.items() if by_k}
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
    """Mean accuracy over tasks, each {language: {k: see multiple_choice}}."""
    return float(np.mean([task[language][str(k)]["accuracy"] for task in tasks]))


def instructed(model, corpus, n_items, ks, seed):
    """Accuracy on the lexical items of AFP's families with "Answer in ...:" before each answer.

    The phrase is English ("en", as in the paper's prompts) or in the language of the item ("own").
    -> instructed {"en" or "own": {task: {language: {k: accuracy}}}}, instructed_average without the tasks
    """
    def accuracies(task, name, instruction):
        found = ask(model, corpus, task, "lexical", name, n_items, ks, seed, instruction=instruction)
        return {k: numbers["accuracy"] for k, numbers in found.items()}

    result, means = dict(en={}, own={}), dict(en={}, own={})
    if not set(FAMILIES) <= set(corpus.task_names()):
        return {}
    for task in FAMILIES:
        result["own"][task] = {name: accuracies(task, name, name) for name in corpus.languages}
        result["en"][task] = {"en": result["own"][task]["en"]} | {
            name: accuracies(task, name, "en") for name in corpus.languages[1:]}
    for key, name in product(result, corpus.languages):
        by_task = [result[key][task][name] for task in FAMILIES]
        means[key][name] = {k: float(np.mean([by_k[k] for by_k in by_task])) for k in by_task[0]}
    return dict(instructed=result, instructed_average=means)


def chance(corpus):
    """Accuracy of a random choice, 1 / number of candidates: -> {task: number}."""
    result = {}
    for task in corpus.task_names():
        for name, items in items_by_language(corpus, task, 1).items():
            result[task] = 1 / len(items[0].candidates_in(name))
    return dict(chance=result)


def classify(model, corpus, task, n_items):
    """Zero-shot transfer of a model that was fine-tuned on English items: -> {language: number}.

    The number is macro recall where classes are unbalanced, else accuracy.  Answers stay English in every
    language, as the classes of a classifier would.
    """
    result, difficulty = {}, "lexical" if "lexical" in corpus.difficulties(task) else None
    for name, items in items_by_language(corpus, task, n_items, difficulty).items():
        predicted, _, _ = predict(corpus, items, name, partial(log_probs, model), answer_language="en",
                                  limit=model.config.context_len + 1)
        answers = np.array([item.answer for item in items])
        if task in UNBALANCED:
            result[name] = recall(predicted, answers)
        else:
            result[name] = float((predicted == answers).mean())
    return result


def prompt_states(model, corpus, items, language, level):
    """Centred mean states of the prompts of items: -> (N, D) on the CPU."""
    return centred(mean_states(model, corpus, language, [item.prompt_in(language) for item in items], level))


def linear_probes(model, corpus, n_items, level):
    """Macro recall of linear classifiers of frozen states that learn from English captions.

    -> probe {task: {language: recall}}, transfer_n {task: {language: number of items}}
    """
    result = dict(probe={}, transfer_n={})
    for task in UNBALANCED:
        train, test = corpus.items(task, "train", 4000), items_by_language(corpus, task, n_items)
        if train and test:
            classifier = logistic_regression(prompt_states(model, corpus, train, "en", level),
                                             torch.tensor([item.answer for item in train]))
            found = {name: classifier(prompt_states(model, corpus, items, name, level)).numpy()
                     for name, items in test.items()}
            result["probe"][task] = {name: recall(found[name], np.array([item.answer for item in items]))
                                     for name, items in test.items()}
            result["transfer_n"][task] = {name: len(items) for name, items in test.items()}
    return result


def same_picture(model, corpus, n_items, level):
    """Which of two captions describes the picture of an English one?  The nearer centred state is chosen.

    -> {language of the two: {"0": {accuracy, n}}}
    """
    result = {}
    for name, items in items_by_language(corpus, "same", n_items).items():
        english = prompt_states(model, corpus, items, "en", level)                           # (N, D)
        texts = sum((list(item.candidates_in(name)) for item in items), [])
        offered = centred(mean_states(model, corpus, name, texts, level))                    # (2N, D)
        offered = offered.view(len(items), -1, offered.shape[1])                             # (N, 2, D)
        predicted = F.cosine_similarity(english[:, None], offered, dim=-1).argmax(dim=1)     # (N,)
        right = predicted == torch.tensor([item.answer for item in items])
        result[name] = {"0": dict(accuracy=right.float().mean().item(), n=len(items))}
    return result


# --- training -----------------------------------------------------------------------------------------------

def recovery(losses, resets, delay=50):
    """How far each reset raises the training loss, and how much of the rise is left later [Chen et al. 2023].

    losses:  {step: mean loss of the steps since the last entry}
    resets:  steps before which rows were reset
    returns: for each reset a dict in nats: step; before, the last entry up to it; rise, the first entry after
             it less `before`; excess, the first entry at least `delay` steps later less `before`, absent if
             the cycle is shorter.  A reset without an entry before it or in its cycle is left out.
    """
    found, steps = [], sorted(losses)
    for reset, end in zip(resets, [*resets[1:], math.inf]):
        past = [s for s in steps if s <= reset]
        cycle = [s for s in steps if reset < s <= end]
        later = [s for s in cycle if s >= reset + delay]
        if past and cycle:
            before = losses[past[-1]]
            found.append(dict(step=reset, before=before, rise=losses[cycle[0]] - before))
            if later:
                found[-1]["excess"] = losses[later[0]] - before
    return found


def probe(model, corpus, dictionary, stage, last):
    """Measures for a row of the log.

    word_cosine: mean cosine of 256 translations per level, the curve of PreAlign's figure
    val:         {language: nats per token on 16 validation rows, 150 in the last row of a stage}
    """
    found = {}
    if dictionary:
        cosines = F.cosine_similarity(*translation_states(model, dictionary.entries[:256]), dim=-1)  # (K, E)
        found["word_cosine"] = [round(c, 4) for c in cosines.mean(dim=1).tolist()]
    if stage != "align words":
        n_rows = ROWS if last else 16
        losses = {name: losses_per_token(model, corpus, name, n_rows).mean() for name in corpus.languages}
        found["val"] = {name: round(float(loss), 4) for name, loss in losses.items()}
    return found


def of_training(run, resets):
    """Measures of how a run was trained: -> dict with recovery, afp and adapt, of the stages that it has.

    run: data/lab/run.py;  resets: the schedule of embedding resets, or None
    """
    cfg, result = run.cfg, {}
    if resets and resets.at and "pretrain" in cfg.stages:
        result["recovery"] = recovery(run.curve("pretrain", "lm"), resets.at)
    if "align sentences" in cfg.stages:
        samples, languages = run.training_samples(), [0, *run.aligned_languages()]
        n_tokens = count_tokens(run.corpus, samples, [run.corpus.languages[i] for i in languages])
        result["afp"] = dict(samples=len(samples), tokens=n_tokens, share=n_tokens / cfg.text_tokens)
    if "adapt" in cfg.stages:                                  # perplexity by the number of updates
        losses = run.curve("adapt", "val")
        result["adapt"] = {cfg.new_language: dict(perplexity={
            str(step): math.exp(loss[cfg.new_language]) for step, loss in losses.items()})}
    return {key: found for key, found in result.items() if found}


# --- summary.json -------------------------------------------------------------------------------------------

def references(corpus):
    """Tokens per word and the baselines that need no model, of the languages of the run."""
    def of_run(by_language):
        return {name: found for name, found in by_language.items() if name in corpus.languages}

    result = {key: of_run(corpus.meta.get(key, {})) for key in ("tokens_per_word", "tokens_per_word_before")}
    path = corpus.folder / "baselines.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        result["baselines"] = dict(tasks={task: of_run(lines) for task, lines in found["tasks"].items()},
                                   retrieval=of_run(found["retrieval"]))
    return result


def evaluate_all(model, corpus, dictionary, held_out, cfg):
    """All measures that need neither training nor a log: -> dict for summary.json, see data/README.md.

    dictionary, held_out: the words that the run may train on and the others, or None
    """
    n, ks, middle = cfg.eval_items, sorted(map(int, cfg.shots.split(","))), cfg.n_layer // 2
    measures = [
        language_model(model, corpus),
        words(model, dictionary, held_out, middle),
        lexicon(model, corpus, middle),
        sentences(model, corpus, "sentences", middle),
        sentences(model, corpus, "sentences_embedding", 0),
        afp_states(model, corpus, cfg),
        knowledge(model, corpus, n),
        in_context(model, corpus, n, ks, cfg.seed, middle),
        linear_probes(model, corpus, n, middle),
        chance(corpus),
        references(corpus),
    ]
    if cfg.written_items:
        measures += [generation.evaluate_generation(model, corpus, cfg.written_items, cfg.seed),
                     instructed(model, corpus, n, ks, cfg.seed)]
    result = {}
    for found in measures:
        result |= {key: numbers for key, numbers in found.items() if numbers != {}}
    return result
