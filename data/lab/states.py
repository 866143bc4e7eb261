"""Measures by states: of words, of sentences, and of captions that a linear classifier sorts."""
import numpy as np
import torch
import torch.nn.functional as F

from align import sentence_states
from data.folder import CAPTIONS
from data.lab.geometry import (alignment, centred, cosines, logistic_regression, recall, retrieval,
                               self_similarity, uniformity)
from data.tasks import pad, pad_after, parallel_sentences
from prealign import word_states

PAIRS = 1000                         # sentence pairs per language; all sentences are candidates in retrieval
WORDS = 2000                         # words of a dictionary
AT_ONCE, WORDS_AT_ONCE = 64, 256     # sentences, or words, whose states are computed together


def to_device(model, array):
    """A numpy array as a tensor on the device of the model."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(next(model.parameters()).device)


# --- words --------------------------------------------------------------------------------------------------

@torch.no_grad()
def states_of_words(model, words, levels=slice(None), prefix=None):
    """States of words, see word_states: tuples of token ids -> (K, N, D) on the CPU."""
    parts = [word_states(model, *map(torch.from_numpy, pad(words[i:i + WORDS_AT_ONCE])), prefix)[levels].cpu()
             for i in range(0, len(words), WORDS_AT_ONCE)]
    return torch.cat(parts, dim=1)


def translation_states(model, entries, prefix=None):
    """States of the words of dictionary entries and of their first translations: -> (K, E, D), (K, E, D)."""
    return (states_of_words(model, [word for word, _ in entries], prefix=prefix),
            states_of_words(model, [translations[0] for _, translations in entries], prefix=prefix))


def word_cosine(source, target):
    """Mean cosine of translations per level: (K, E, D), (K, E, D) -> K numbers."""
    return F.cosine_similarity(source, target, dim=-1).mean(dim=1).tolist()


def words(model, dictionary, held_out, level, prefix=None):
    """Cosine of translations per level, and P@1 at one level, of trained and of held-out dictionary words.

    dictionary, held_out: Dictionary or None.  Each word is searched among the translations of both.
    """
    result, lists = {}, {"word": dictionary, "held_out_word": held_out}
    lists = {key: some.entries[:WORDS] for key, some in lists.items() if some}
    entries = sum(lists.values(), [])
    if not entries:
        return {}
    source, target = translation_states(model, entries, prefix)                  # (K, E, D) each
    found = cosines(source[level], target[level]).argmax(dim=1).tolist()         # E indices
    # words with the same translation are all right where it is found
    right = [entries[index][1][0] == translations[0] for index, (_, translations) in zip(found, entries)]
    for key, some in lists.items():
        n = len(some)
        result |= {f"{key}_cosine": word_cosine(source[:, :n], target[:, :n]),
                   f"{key}_retrieval": float(np.mean(right[:n])), f"{key}_n": n}
        source, target, right = source[:, n:], target[:, n:], right[n:]
    return result


def lexicon(model, corpus):
    """Induction of a dictionary: the translations of the folder's held-out words, by cosine of embeddings.

    p1: share of the words with a right translation nearest, of all words of that language in dictionary and
    lexicon;  chance: p1 of a random choice  -> bli {language: {p1, n, chance}}
    """
    def states(texts, language):
        limit = model.config.context_len - corpus.n_prefix     # tokens of a word
        tokens = [corpus.word(text, language)[:limit] for text in texts]
        return states_of_words(model, tokens, [0], corpus.prefix)[0]             # (N, D)

    result = {}
    for name in corpus.languages[1:]:
        entries = corpus.lexicon(name)
        if not entries:
            continue
        candidates = sorted({other for _, other in corpus.word_pairs(name)}.union(*entries.values()))
        nearest = cosines(states(entries, "en"), states(candidates, name)).argmax(dim=1)     # (E,)
        right = [candidates[i] in words for i, words in zip(nearest.tolist(), entries.values())]
        n_right = np.mean([len(set(words)) for words in entries.values()])
        result[name] = dict(p1=float(np.mean(right)), n=len(right), chance=float(n_right / len(candidates)))
    return dict(bli=result)


@torch.no_grad()
def context_states(model, corpus, language, n_rows, levels):
    """States of validation tokens that are a whole word or a mark: -> (levels, N, D), types (N,)."""
    rows = corpus.validation_rows(language, n_rows, model.config.context_len)                # (B, T)
    starts = corpus.starts[rows]
    # a token is a whole word if the next token starts a word, too
    whole = starts & np.pad(starts[:, 1:], ((0, 0), (0, 1)))                                 # (B, T)
    found = model.hidden(to_device(model, rows))                                             # (B, T, D) each
    states = torch.stack([found[level].float().cpu()[torch.from_numpy(whole)] for level in levels])
    return states, torch.from_numpy(rows[whole])


def contextuality(model, corpus, middle):
    """Self-similarity of word types in text, at the last level: -> {"self_similarity": {language: number}}.

    self_similarity_adjusted {language: {"middle": number, "last": number}} is that at two levels, minus the
    mean cosine of any two states [Ethayarajh 2019]: all states of a level may point one way.
    """
    result, adjusted = {}, {}
    for name in corpus.languages:
        levels, types = context_states(model, corpus, name, 64, [middle, -1])    # (2, N, D), (N,)
        if len(types.unique()) < len(types):                                     # a type occurs twice
            similar = [self_similarity(states, types) for states in levels]
            of_any_two = [self_similarity(states, torch.zeros_like(types)) for states in levels]
            result[name] = similar[-1]
            adjusted[name] = dict(middle=similar[0] - of_any_two[0], last=similar[1] - of_any_two[1])
    return dict(self_similarity=result, self_similarity_adjusted=adjusted)


# --- sentences ----------------------------------------------------------------------------------------------

@torch.no_grad()
def mean_states(model, corpus, language, texts, level):
    """Mean over the tokens of each text of the states of one level, see sentence_states: -> (N, D), CPU."""
    parts, limit = [], model.config.context_len - corpus.n_prefix
    for i in range(0, len(texts), AT_ONCE):
        rows = [corpus.encode(text, language, separator=False)[:limit] for text in texts[i:i + AT_ONCE]]
        tokens, mask = (to_device(model, table) for table in pad_after(corpus.prefix, rows))     # (n, W) each
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
    for index, name in enumerate(corpus.languages):
        if not items or not all(item.available_in(name) for item in items):
            continue
        tables = parallel_sentences(corpus, items, [index] * len(items), model.config.context_len)
        tokens, mask = (to_device(model, table[len(items):]) for table in tables)            # (N, W) each
        result[name] = sentence_states(model, tokens, mask, cfg.afp_mcl_layer, cfg.afp_mcl_pool).cpu()
    return result


def afp_states(model, corpus, cfg):
    """Geometry of the states that MCL compares: -> {language: {retrieval (from English), alignment, ...}}."""
    states = parallel_states(model, corpus, 300, cfg)
    english = states.pop("en", None)
    return dict(afp_states={name: dict(
        retrieval=retrieval(english, other), alignment=alignment(english, other),
        uniformity=uniformity(torch.cat((english, other))), n=len(other)) for name, other in states.items()})


# --- captions -----------------------------------------------------------------------------------------------

def prompt_states(model, corpus, items, language, level):
    """Centred mean states of the prompts of items: -> (N, D) on the CPU."""
    return centred(mean_states(model, corpus, language, [item.prompt_in(language) for item in items], level))


def linear_probes(model, corpus, n_items, level):
    """Macro recall of linear classifiers of frozen states that learn from English captions.

    -> probe {task: {language: recall}}, transfer_n {task: {language: number of items}}
    """
    result = dict(probe={}, transfer_n={})
    for task in CAPTIONS:
        train, test = corpus.items(task, "train", 4000), corpus.test_items(task, n_items)
        if train and test:
            classifier = logistic_regression(prompt_states(model, corpus, train, "en", level),
                                             torch.tensor([item.answer for item in train]))
            for name, items in test.items():
                predicted = classifier(prompt_states(model, corpus, items, name, level)).numpy()
                share = recall(predicted, np.array([item.answer for item in items]))
                result["probe"].setdefault(task, {})[name] = share
                result["transfer_n"].setdefault(task, {})[name] = len(items)
    return result
