"""Results that need no model, from counting alone: a model shows something only if it exceeds them.

Captions (scene, who) are classified by naive Bayes from English ones: applied to another language as it is,
with every word replaced by a dictionary, and trained in that language (an upper reference).  Translations are
found by shared words or trigrams.  Other tasks: see cooccurrence, and the most frequent answer.
All numbers are shares of items in [0, 1].  Recall is the mean over classes.  Words are those that a function
`split` finds, see dictionaries.WordCounts.
"""
import itertools
import math
from collections import Counter

import numpy as np

from data.folder import CAPTIONS, FRACTION
from data.real.dictionaries import WORD, fold

ITEMS = 1000                         # test items per task, those that a model is asked by default


def invert(entries, english, ranked=False):
    """Turn a dictionary around: each translation gets its most frequent English word.

    {English: [translation, ...]}, dictionaries.WordCounts -> {translation: English} folded
    ranked: the translations are ranked (learned dictionary): the English word that ranks it best is taken
    """
    inverse, best = {}, {}
    for word in sorted(entries, key=lambda w: (-english.count[fold(w)], w)):
        for rank, translation in enumerate(map(fold, entries[word])):
            if translation not in best or ranked and rank < best[translation]:
                inverse[translation], best[translation] = fold(word), rank
    return inverse


def words(text, inverse=None, split=WORD.findall):
    """The words of a text, folded, those in the dictionary `inverse` replaced."""
    found = split(fold(text))
    return [inverse.get(word, word) for word in found] if inverse else found


def trigrams(text):
    """Character trigrams of the words, with a space on either side of each word."""
    text = f" {' '.join(words(text))} "
    return [text[i:i + 3] for i in range(len(text) - 2)]


def naive_bayes(train, test, n_classes):
    """Macro recall of naive Bayes with equally likely classes; train, test: lists of ([feature], class)."""
    count = {}
    for features, answer in train:
        for feature in features:
            count.setdefault(feature, np.ones(n_classes))[answer] += 1           # ones: add-one smoothing
    total = sum(count.values())                                                  # (C,)
    score = {feature: np.log(n / total) for feature, n in count.items()}
    hits, seen = np.zeros(n_classes), np.zeros(n_classes)
    for features, answer in test:
        log_likelihood = sum((score[f] for f in features if f in score), np.zeros(n_classes))    # (C,)
        seen[answer] += 1
        hits[answer] += log_likelihood.argmax() == answer
    return float((hits[seen > 0] / seen[seen > 0]).mean())


def retrieval(english, other):
    """The share of sentences whose nearest neighbour (cosine of tf-idf) is their translation.

    Of k neighbours equally near, one is chosen at random: a sentence without any shared feature counts 1 / N.
    english, other: lists of N lists of features, translations at the same place
    -> {"to_english": share of the other sentences that find their English one, "from_english": the reverse}
    """
    sentences = [*english, *other]
    number = {f: i for i, f in enumerate(sorted(set(itertools.chain(*sentences))))}
    vectors = np.zeros((len(sentences), len(number)), np.float32)                # (2N, F)
    for row, sentence in zip(vectors, sentences):
        for feature, n in Counter(sentence).items():
            row[number[feature]] = 1 + np.log(n)
    vectors *= np.log(len(sentences) / (vectors > 0).sum(axis=0))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    cosine = (vectors[:len(english)] @ vectors[len(english):].T).round(5)        # (N, N) English, other

    def found(cosine):
        nearest = cosine == cosine.max(axis=1, keepdims=True)
        return float((nearest.diagonal() / nearest.sum(axis=1)).mean())
    return dict(to_english=found(cosine.T), from_english=found(cosine))


def cooccurrence(items, language, documents, split=WORD.findall, most=4000):
    """Choose endings by the mean pointwise mutual information of their words with the prompt's words.

    documents: training text of the language; its `most` frequent words are counted
    """
    bags = [sorted(set(words(d, None, split))) for d in documents]      # sorted: the order of a set is random
    ranked = Counter(itertools.chain.from_iterable(bags)).most_common(most)
    number = {word: i for i, (word, _) in enumerate(ranked)}
    together, alone = np.zeros((len(number),) * 2, np.float32), np.array([n for _, n in ranked], np.float32)
    for bag in bags:
        at = np.array([number[w] for w in bag if w in number], np.int64)
        together[at[:, None], at] += 1
    pmi = np.log((together + 0.5) * len(bags) / (np.outer(alone, alone) + 0.5))  # (W, W)
    hits = 0
    for item in items:
        asked = sorted({number[w] for w in words(item["prompt"][language], None, split) if w in number})
        scores = []
        for candidate in item["candidates"][language]:
            ending = {number[w] for w in words(candidate, None, split) if w in number}.difference(asked)
            scores.append(pmi[np.ix_(asked, sorted(ending))].mean() if asked and ending else -np.inf)
        hits += int(np.argmax(scores) == item["answer"])
    return hits / max(len(items), 1)


def of_task(task, train, test, language, inverses, documents, splitters):
    """The baselines of one task in one language, of at least one test item: -> {n, chance, ...}."""
    def bags(items, name, inverse=None):
        return [(words(item["prompt"][name], inverse, splitters[name]), item["answer"])
                for item in items if name in item["prompt"]]

    candidates, split = test[0]["candidates"], splitters[language]
    n_candidates = len(candidates[language] if isinstance(candidates, dict) else candidates)
    found = dict(n=len(test), chance=1 / n_candidates)
    if task in CAPTIONS:
        english, own = bags(train, "en"), bags(train, language)
        found["naive_bayes"] = naive_bayes(english, bags(test, language), n_candidates)
        for name, inverse in inverses.items():
            found[f"naive_bayes_{name}"] = naive_bayes(english, bags(test, language, inverse), n_candidates)
        if own:
            found["naive_bayes_own"] = naive_bayes(own, bags(test, language), n_candidates)
        return found
    found["majority"] = max(Counter(item["answer"] for item in test).values()) / len(test)
    if task == "completion":
        found["cooccurrence"] = cooccurrence(test, language, documents, split)
    return found


def of_tasks(items, languages, inverses, documents, splitters):
    """The baselines of all tasks on the test items that a model is asked: -> {task: {language: {n, ...}}}.

    items:     list of (split, item);  languages: English first
    inverses:  {language: {name: {word: English}}}, see invert
    documents, splitters: {language: training text}, {language: function of a text -> its words}
    """
    results, by_task = {}, {}
    for split, item in items:
        by_task.setdefault(item["task"], dict(train=[], val=[], test=[]))[split].append(item)
    for task, name in itertools.product(sorted(by_task), languages):
        test = [item for item in by_task[task]["test"] if name in item["prompt"]]
        if test:
            results.setdefault(task, {})[name] = of_task(
                task, by_task[task]["train"], test[:math.ceil(ITEMS / FRACTION.get(task, 1))], name,
                inverses.get(name, {}), documents[name], splitters)
    return results


def of_pairs(pairs, inverses, split=WORD.findall):
    """The baselines of translation retrieval: list of (English, other) -> {n, chance, words, ...}."""
    english, other = zip(*pairs)
    found = dict(n=len(pairs), chance=1 / len(pairs),
                 words=retrieval([*map(words, english)], [*map(words, other)]),
                 trigrams=retrieval([*map(trigrams, english)], [*map(trigrams, other)]))
    for name, inverse in inverses.items():
        found[name] = retrieval([*map(words, english)], [words(text, inverse, split) for text in other])
    return found
