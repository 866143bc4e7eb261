"""What counting alone achieves on the tasks: a model shows something only above these lines.

  naive_bayes      scene, who: words of English captions; raw in another language, with every word replaced by
                   a dictionary, and trained in that language (the ceiling)
  retrieval        translations by shared words, shared character 3-grams, and words replaced by a dictionary
  overlap          same picture: the candidate that shares more words with the prompt
  cooccurrence     caption completion: the ending whose words go with those of the prompt in the training text
  majority         anything else: always the most frequent answer
All numbers are shares of items, in [0, 1]; recall is the mean over classes.
"""
from collections import Counter

import numpy as np

from data.dictionaries import WORD


def backwards(entries, english):
    """A dictionary from the other language into English: one word each, the most frequent in English text.

    entries: {English: [translation, ...]}; english: dictionaries.Words -> {translation: English}, lower case
    """
    back = {}
    for word in sorted(entries, key=lambda w: (english.count[w.lower()], w)):
        back |= {t.lower(): word.lower() for t in entries[word]}
    return back


def by_rank(entries, english):
    """The same for a learned dictionary, its translations sorted: the English word that ranks it best."""
    back, rank = {}, {}
    for word in sorted(entries, key=lambda w: (-english.count[w.lower()], w)):
        for place, t in enumerate(map(str.lower, entries[word])):
            if place < rank.get(t, place + 1):
                back[t], rank[t] = word.lower(), place
    return back


def words(text, back=None):
    """Words in lower case, each replaced where the dictionary `back` has it."""
    found = WORD.findall(text.lower())
    return [back.get(w, w) for w in found] if back else found


def trigrams(text):
    """Character 3-grams of the words, with a space on either side of each."""
    text = f" {' '.join(words(text))} "
    return [text[i:i + 3] for i in range(len(text) - 2)]


def naive_bayes(train, test, n_classes):
    """Macro recall of multinomial naive Bayes with add-one smoothing and equally likely classes.

    train, test: lists of (features, class), features a list of str
    """
    count = {}
    for features, answer in train:
        for f in features:
            count.setdefault(f, np.ones(n_classes))[answer] += 1                 # one each to begin with
    total = sum(count.values())                                                  # (C,)
    score = {f: np.log(n / total) for f, n in count.items()}
    hits, seen = np.zeros(n_classes), np.zeros(n_classes)
    for features, answer in test:
        guess = sum((score[f] for f in features if f in score), np.zeros(n_classes)).argmax()
        hits[answer] += guess == answer
        seen[answer] += 1
    return float((hits[seen > 0] / seen[seen > 0]).mean())


def retrieval(english, other):
    """Share of sentences whose nearest neighbour (cosine of tf-idf) is their translation, both ways.

    english, other: lists of N lists of features, translations at the same place
    -> {"to_english": share, "from_english": share}
    """
    number = {f: i for i, f in enumerate(sorted({f for s in english + other for f in s}))}
    vectors = np.zeros((2, len(english), len(number)), np.float32)
    for side, sentences in enumerate((english, other)):
        for row, sentence in zip(vectors[side], sentences):
            for f, n in Counter(sentence).items():
                row[number[f]] = 1 + np.log(n)
    seen = (vectors > 0).sum(axis=(0, 1))                                        # (F,) of both sides
    vectors *= np.log(2 * len(english) / seen)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-9)
    cosine = vectors[0] @ vectors[1].T                                           # (N, N)
    # a tie is no hit: sentences that share nothing with any other are not found
    right = cosine.diagonal()
    return dict(to_english=float(((cosine >= right).sum(axis=0) == 1).mean()),
                from_english=float(((cosine >= right[:, None]).sum(axis=1) == 1).mean()))


def overlap(items, language, back=None):
    """Two candidates: that with more of the prompt's words is taken, by Dice's measure; a tie is half."""
    score = 0.0
    for item in items:
        asked = set(words(item["prompt"]["en"]))
        found = []
        for candidate in item["candidates"][language]:
            have = set(words(candidate, back))
            found.append(2 * len(asked & have) / max(len(asked) + len(have), 1))
        score += 0.5 if found[0] == found[1] else found[item["answer"]] == max(found)
    return score / max(len(items), 1)


def cooccurrence(items, language, documents, most=4000):
    """Endings by pointwise mutual information of their words with the prompt's, as documents have them.

    documents: training text of the language; its `most` frequent words are counted
    """
    bags = [sorted(set(words(d))) for d in documents]     # sorted: a set has another order in each process
    ranked = Counter(w for bag in bags for w in bag).most_common(most)
    number = {w: i for i, (w, _) in enumerate(ranked)}
    together, alone = np.zeros((len(number),) * 2, np.float32), np.array([n for _, n in ranked], np.float32)
    for bag in bags:
        at = np.array([number[w] for w in bag if w in number], np.int64)
        together[at[:, None], at] += 1
    pmi = np.log((together + 0.5) * len(bags) / (np.outer(alone, alone) + 0.5))
    hits = 0
    for item in items:
        asked = [number[w] for w in sorted(set(words(item["prompt"][language]))) if w in number]
        found = []
        for candidate in item["candidates"][language]:
            ending = {number[w] for w in words(candidate) if w in number}.difference(asked)
            found.append(pmi[np.ix_(asked, sorted(ending))].mean() if asked and ending else -np.inf)
        hits += int(np.argmax(found)) == item["answer"]
    return hits / max(len(items), 1)


def majority(items):
    """Share of the most frequent answer, and chance."""
    answers = Counter(item["answer"] for item in items)
    first = items[0]["candidates"]
    n = len(first if isinstance(first, list) else next(iter(first.values())))
    return dict(n=len(items), chance=1 / n, majority=max(answers.values()) / len(items))


def classification(items, language, dictionaries, n_classes):
    """The lines of scene or who in one language: train on English captions, test in `language`."""
    def bags(split, name, back=None):
        return [(words(item["prompt"][name], back), item["answer"])
                for s, item in items if s == split and name in item["prompt"]]

    english, test = bags("train", "en"), bags("test", language)
    found = dict(n=len(test), chance=1 / n_classes, naive_bayes=naive_bayes(english, test, n_classes))
    for name, back in dictionaries.items():
        found[f"naive_bayes_{name}"] = naive_bayes(english, bags("test", language, back), n_classes)
    own = bags("train", language)
    return found | (dict(naive_bayes_own=naive_bayes(own, test, n_classes)) if own else {})


def of_tasks(items, languages, dictionaries, documents):
    """All lines of all tasks: -> {task: {language: {n, chance, ...}}}, on the test items.

    items:        list of (split, item);  languages: English first
    dictionaries: {language: {name: {word: English}}}, see backwards;  documents: {language: training text}
    """
    result = {}
    for task in sorted({item["task"] for _, item in items}):
        mine = [(split, item) for split, item in items if item["task"] == task]
        test = [item for split, item in mine if split == "test"]
        for name in languages:
            asked = [item for item in test if name in (
                item["candidates"] if isinstance(item["candidates"], dict) else item["prompt"])]
            if not asked:
                continue
            backs = dictionaries.get(name, {})
            if task in ("scene", "who"):
                found = classification(mine, name, backs, len(asked[0]["candidates"]))
            else:
                found = majority(asked)
            if task == "same":
                found |= {"overlap": overlap(asked, name)} | {
                    f"overlap_{kind}": overlap(asked, name, back) for kind, back in backs.items()}
            if task == "completion":
                found["cooccurrence"] = cooccurrence(asked, name, documents[name])
            result.setdefault(task, {})[name] = found
    return result


def of_pairs(pairs, backs):
    """The lines of translation retrieval: pairs, list of (English, other) -> {n, chance, words, ...}."""
    english, other = ([pair[side] for pair in pairs] for side in (0, 1))
    found = dict(n=len(pairs), chance=1 / len(pairs))
    for kind, features in dict(words=words, trigrams=trigrams).items():
        found[kind] = retrieval(*([features(t) for t in side] for side in (english, other)))
    return found | {kind: retrieval([words(t) for t in english], [words(t, back) for t in other])
                    for kind, back in backs.items()}
