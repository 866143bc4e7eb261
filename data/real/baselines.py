"""Results that need no model, from counting alone: a model shows something only if it exceeds them.

  naive_bayes    scene, who: from the words of English captions.  Applied to another language as it is, with
                 every word replaced by a dictionary, and trained in that language (an upper reference)
  retrieval      translations by shared words, by shared character trigrams, by words replaced by a dictionary
  overlap        same picture: the candidate that shares more words with the prompt
  cooccurrence   caption completion: the ending whose words occur together with those of the prompt
  majority       other tasks: always the most frequent answer
All numbers are shares of items in [0, 1].  Recall is the mean over classes.
"""
import itertools
from collections import Counter

import numpy as np

from data.real.dictionaries import WORD, fold

CLASSIFIED = ("scene", "who")


def invert(entries, english):
    """Turn a dictionary around: each translation gets its most frequent English word.

    {English: [translation, ...]}, dictionaries.WordCounts -> {translation: English} folded
    """
    inverse = {}
    for word in sorted(entries, key=lambda w: (english.count[fold(w)], w)):
        inverse |= {fold(t): fold(word) for t in entries[word]}
    return inverse


def invert_ranked(entries, english):
    """The same for a learned dictionary with ranked translations: the English word that ranks it best."""
    inverse, best = {}, {}
    for word in sorted(entries, key=lambda w: (-english.count[fold(w)], w)):
        for rank, translation in enumerate(map(fold, entries[word])):
            if rank < best.get(translation, rank + 1):
                inverse[translation], best[translation] = fold(word), rank
    return inverse


def words(text, inverse=None):
    """The words of a text, folded, those in the dictionary `inverse` replaced."""
    found = WORD.findall(fold(text))
    return [inverse.get(word, word) for word in found] if inverse else found


def trigrams(text):
    """Character trigrams of the words, with a space on either side of each word."""
    text = f" {' '.join(words(text))} "
    return [text[i:i + 3] for i in range(len(text) - 2)]


def naive_bayes(train, test, n_classes):
    """Macro recall of multinomial naive Bayes with add-one smoothing and equally likely classes.

    train, test: lists of (features, class), features a list of str
    """
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

    english, other: lists of N lists of features, translations at the same place
    -> {"to_english": share of the other sentences that find their English one, "from_english": the reverse}
    """
    number = {f: i for i, f in enumerate(sorted(set(itertools.chain(*english, *other))))}
    vectors = np.zeros((2, len(english), len(number)), np.float32)
    for side, sentences in enumerate((english, other)):
        for row, sentence in zip(vectors[side], sentences):
            for feature, n in Counter(sentence).items():
                row[number[feature]] = 1 + np.log(n)
    seen = (vectors > 0).sum(axis=(0, 1))                                        # (F,) over both languages
    vectors *= np.log(2 * len(english) / seen)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-9)
    cosine = vectors[0] @ vectors[1].T                                           # (N, N) English, other
    # a tie is not a hit: a sentence without any shared feature is not found
    right = cosine.diagonal()
    return dict(to_english=float(((cosine >= right).sum(axis=0) == 1).mean()),
                from_english=float(((cosine >= right[:, None]).sum(axis=1) == 1).mean()))


def overlap(items, language, inverse=None):
    """Choose the one of two candidates that shares more words with the prompt (Dice); a tie is half right."""
    hits = 0.0
    for item in items:
        asked, dice = set(words(item["prompt"]["en"])), []
        for candidate in item["candidates"][language]:
            offered = set(words(candidate, inverse))
            dice.append(2 * len(asked & offered) / max(len(asked) + len(offered), 1))
        if dice[item["answer"]] == max(dice):
            hits += 1 / dice.count(max(dice))
    return hits / max(len(items), 1)


def cooccurrence(items, language, documents, most=4000):
    """Choose endings by the mean pointwise mutual information of their words with the prompt's words.

    documents: training text of the language; its `most` frequent words are counted
    """
    bags = [sorted(set(words(d))) for d in documents]     # sorted: the order of a set is random
    ranked = Counter(itertools.chain.from_iterable(bags)).most_common(most)
    number = {word: i for i, (word, _) in enumerate(ranked)}
    together, alone = np.zeros((len(number),) * 2, np.float32), np.array([n for _, n in ranked], np.float32)
    for bag in bags:
        at = np.array([number[w] for w in bag if w in number], np.int64)
        together[at[:, None], at] += 1
    pmi = np.log((together + 0.5) * len(bags) / (np.outer(alone, alone) + 0.5))  # (W, W)
    hits = 0
    for item in items:
        asked = [number[w] for w in sorted(set(words(item["prompt"][language]))) if w in number]
        scores = []
        for candidate in item["candidates"][language]:
            ending = {number[w] for w in words(candidate) if w in number}.difference(asked)
            scores.append(pmi[np.ix_(asked, sorted(ending))].mean() if asked and ending else -np.inf)
        hits += int(np.argmax(scores) == item["answer"])
    return hits / max(len(items), 1)


def of_task(task, train, test, language, inverses, documents):
    """The baselines of one task in one language, see of_tasks: -> {n, chance, ...}.

    train: items in any language;  test: items in this language, at least one
    """
    def bags(items, name, inverse=None):
        return [(words(item["prompt"][name], inverse), item["answer"])
                for item in items if name in item["prompt"]]

    candidates = test[0]["candidates"]
    n_candidates = len(candidates[language] if isinstance(candidates, dict) else candidates)
    found = dict(n=len(test), chance=1 / n_candidates)
    if task in CLASSIFIED:
        english, own, bag = bags(train, "en"), bags(train, language), bags(test, language)
        found["naive_bayes"] = naive_bayes(english, bag, n_candidates)
        for name, inverse in inverses.items():
            found[f"naive_bayes_{name}"] = naive_bayes(english, bags(test, language, inverse), n_candidates)
        if own:
            found["naive_bayes_own"] = naive_bayes(own, bag, n_candidates)
        return found
    found["majority"] = max(Counter(item["answer"] for item in test).values()) / len(test)
    if task == "same":
        found["overlap"] = overlap(test, language)
        for name, inverse in inverses.items():
            found[f"overlap_{name}"] = overlap(test, language, inverse)
    if task == "completion":
        found["cooccurrence"] = cooccurrence(test, language, documents)
    return found


def of_tasks(items, languages, inverses, documents):
    """The baselines of all tasks on their test items: -> {task: {language: {n, chance, ...}}}.

    items:     list of (split, item);  languages: English first
    inverses:  {language: {name: {word: English}}}, see invert
    documents: {language: training text}
    """
    results, by_task = {}, {}
    for split, item in items:
        by_task.setdefault(item["task"], dict(train=[], val=[], test=[]))[split].append(item)
    for task, name in itertools.product(sorted(by_task), languages):
        test = []
        for item in by_task[task]["test"]:
            shared = not isinstance(item["candidates"], dict)  # by all languages
            if name in item["prompt" if shared else "candidates"]:
                test.append(item)
        if test:
            results.setdefault(task, {})[name] = of_task(
                task, by_task[task]["train"], test, name, inverses.get(name, {}), documents[name])
    return results


def of_pairs(pairs, inverses):
    """The baselines of translation retrieval: list of (English, other) -> {n, chance, words, ...}."""
    english, other = zip(*pairs)
    found = dict(n=len(pairs), chance=1 / len(pairs),
                 words=retrieval([*map(words, english)], [*map(words, other)]),
                 trigrams=retrieval([*map(trigrams, english)], [*map(trigrams, other)]))
    for name, inverse in inverses.items():
        found[name] = retrieval([*map(words, english)], [words(text, inverse) for text in other])
    return found
