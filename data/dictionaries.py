"""Word dictionaries: three file formats, one that is learned from sentence pairs, and what of them is used.

  read            MUSE ("dog hund"), TSV ("dog<TAB>hund"), PreAlign's JSON lines ({"words": "dog $ hund"})
  learn           IBM model 1 from sentence pairs (Brown et al. 1993), where no dictionary is given
  Words           how often, and how written, the words of a language are in its text
  choose, divide  the pairs whose words the text knows, as it writes them; some held out to test on

A dictionary is {English word: [translation, ...]}, the words in lower case until `choose` writes them as the
text does.
"""
import itertools
import json
import re
import zlib
from collections import Counter

import numpy as np

from data.text import DataError, lines_of

WORD = re.compile(r"\w+")
SENTENCE_START = re.compile(r"(?:^|[.!?:]\s+)\W*(\w+)")
HELD_OUT = 5                         # one English word in five is left out, to test on
FREQUENT = 10, 5                     # a test word is that frequent in English text, and its translation


# --- files --------------------------------------------------------------------------------------------------

def read(path):
    """A dictionary file of any of the three formats, plain or .gz: -> {English: [translation, ...]}.

    An identical pair goes where the word has another translation: lists that were made by machine give most
    words themselves as a translation.  Phrases need tabs or JSON: in MUSE's format a space parts the words.
    Raises DataError naming the line that is not UTF-8 or has no two sides.
    """
    entries = {}
    for number, line in lines_of(path):
        if not line:
            continue
        sides = _sides(line)
        if len(sides) < 2 or not all(sides):
            raise DataError(f"{path} line {number}: {line[:40]!r} is no pair of words: write "
                            "'word translation', 'word<TAB>translation' or "
                            '{"words": "word $ translation"}')
        source, *translations = sides
        many = entries.setdefault(source, [])
        many += [t for t in translations if t not in many]
    if not entries:
        raise DataError(f"{path} is empty: a dictionary has one pair of words on a line")
    return {word: [t for t in many if t != word] or many for word, many in entries.items()}


def _sides(line):
    """One line -> [English, translation, ...] in lower case, [] if it is none of the formats."""
    if line.startswith("{"):
        try:
            found = json.loads(line)["words"].split("$")
        except (ValueError, KeyError, AttributeError):
            return []
    elif "\t" in line:
        found = line.split("\t")[:2]                           # further columns say where the pair is from
    else:
        found = line.split(" ")
        found = found if len(found) == 2 else []
    return [side.strip().lower() for side in found]


# --- IBM model 1 --------------------------------------------------------------------------------------------

def _numbered(sentences):
    """Sentences as words -> sorted list of words, list of arrays of their numbers, from 1; 0 is no word."""
    words = sorted({word for sentence in sentences for word in sentence})
    number = {word: i for i, word in enumerate(words, 1)}
    return words, [np.array([number[w] for w in sentence], np.int64) for sentence in sentences]


def translation_probabilities(source, target, iterations=5):
    """IBM model 1, the probability of each target word given a source word, by EM from uniform.

    source, target: lists of arrays of word numbers from 1, one per sentence; every source sentence also holds
                    the empty word 0, which takes the blame for words that nothing explains
    returns: (links, p): links (K,) int64, source * 2^32 + target, sorted; p (K,) float64

    Two sentence pairs, "a b" / "x y" and "a" / "x", say that b is y:
    >>> both = [np.array([1, 2]), np.array([1])]
    >>> links, p = translation_probabilities(both, both)
    >>> dict(zip(links.tolist(), p.round(2).tolist()))[2 << 32 | 2] > .8
    True
    """
    keys, place, n = [], [], 0
    for s, t in zip(source, target):
        s = np.append(0, s)
        keys.append((s[:, None] << 32 | t).ravel())            # (|s| + 1, |t|): every word with every word
        place.append(np.tile(np.arange(n, n + len(t)), len(s)))
        n += len(t)
    links, link = np.unique(np.concatenate(keys), return_inverse=True)
    place, given = np.concatenate(place), links >> 32
    p = np.ones(len(links))
    for _ in range(iterations):
        share = p[link]
        share /= np.bincount(place, share)[place]              # which word this target word is from
        count = np.bincount(link, share)                       # (K,)
        p = count / np.bincount(given, count)[given]
    return links, p


def learn(pairs, min_count=5, threshold=0.1, most=3, limit=10_000_000):
    """A dictionary from sentence pairs: words that are each other's likely translation in both directions.

    pairs: (English, other) sentences; limit: of pairs of words in them, of some 100 bytes each: sentences
           beyond are not read
    -> {English: [translation, ...]}, at most `most` each, by the product of the two probabilities, for words
       seen min_count times and probabilities of at least threshold
    """
    read, size = [], 0
    for pair in pairs:
        read.append([WORD.findall(side.lower()) for side in pair])
        size += len(read[-1][0]) * len(read[-1][1])
        if size > limit:
            break
    if not size:
        return {}
    (english, source), (other, target) = map(_numbered, zip(*read))
    links, forward = translation_probabilities(source, target)
    back_links, backward = translation_probabilities(target, source)
    swapped = (back_links & 0xFFFFFFFF) << 32 | back_links >> 32
    order = np.argsort(swapped)
    swapped, backward = swapped[order], backward[order]
    both, here, there = np.intersect1d(links, swapped, assume_unique=True, return_indices=True)
    forward, backward = forward[here], backward[there]
    count = np.bincount(np.concatenate(source), minlength=len(english) + 1)      # (words + 1,)
    kept = (forward >= threshold) & (backward >= threshold) & (count[both >> 32] >= min_count)
    entries, product = {}, forward * backward
    for k in np.lexsort((both, -product)):
        if kept[k]:
            many = entries.setdefault(english[(both[k] >> 32) - 1], [])
            if len(many) < most:
                many.append(other[(both[k] & 0xFFFFFFFF) - 1])
    return entries


# --- what the text knows ------------------------------------------------------------------------------------

class Words:
    """How often each word is in a text, whatever its case, and how it is written inside of sentences."""

    def __init__(self, documents):
        self.count, forms, openings = Counter(), Counter(), Counter()
        for document in documents:
            forms.update(WORD.findall(document))
            openings.update(SENTENCE_START.findall(document))
        self.written = {}
        for form, n in forms.items():
            self.count[form.lower()] += n
        # a capital at the start of a sentence says nothing: that counts for words that are never inside only
        inside = forms - openings
        for form in sorted(forms, key=lambda form: (inside[form], forms[form], form)):
            self.written[form.lower()] = form                  # the most frequent form is the last to be set

    def write(self, phrase):
        """A word or phrase as the text writes it, None if it never does."""
        parts = [part for part in re.split(r"(\w+)", phrase)]
        if not all(part.lower() in self.written for part in parts[1::2]):
            return None
        return "".join(self.written[part.lower()] if i % 2 else part for i, part in enumerate(parts))


def choose(entries, english, other):
    """The pairs whose words occur, written as the text writes them.

    english: Words of English; other: Words of the other language, None if it is written without spaces, where
             a word cannot be looked for: then every translation stays
    -> {English: [translation, ...]}, the most frequent English word first; number of pairs that were dropped
    """
    chosen, dropped = {}, 0
    for word in sorted(entries, key=lambda w: (-english.count[w], w)):
        source = english.write(word) if WORD.fullmatch(word) else None           # text is switched by word
        found = [other.write(t) if other else t for t in entries[word]]
        good = list(dict.fromkeys(t for t in found if t)) if source else []
        dropped += len(found) - len(good)
        if good:
            chosen[source] = good
    return chosen, dropped


def held_out(word, seed):
    """Whether an English word is kept for testing: by the word alone, so the same one in every language."""
    return zlib.crc32(f"{seed} {word.lower()}".encode()) % HELD_OUT == 0


def divide(chosen, english, other, seed, limit=None):
    """What is taught, and the held-out pairs that are frequent enough to ask for: -> two dictionaries.

    limit: most words taught, the most frequent first
    """
    taught = {word: many for word, many in chosen.items() if not held_out(word, seed)}
    asked = {}
    for word, many in chosen.items():
        if held_out(word, seed) and english.count[word.lower()] >= FREQUENT[0]:
            many = [t for t in many if not other or other.count[t.lower()] >= FREQUENT[1]]
            if many:
                asked[word] = many
    return dict(itertools.islice(taught.items(), limit)), asked


def coverage(entries, english):
    """Share of the running English words that have an entry."""
    known = {word.lower() for word in entries}
    return sum(n for word, n in english.count.items() if word in known) / max(sum(english.count.values()), 1)
