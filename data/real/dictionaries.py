"""Word dictionaries: three file formats, one learned from sentence pairs, and the choice of their words.

The formats are those of MUSE ("dog hund"), TSV ("dog<TAB>hund") and PreAlign ({"words": "dog $ hund"}).
A dictionary is learned from sentence pairs by IBM Model 1 (Brown et al. 1993).
A dictionary is {English word: [translation, ...]}.  Its words are folded until `select` spells them.
"""
import itertools
import json
import re
import zlib
from collections import Counter

import numpy as np

from data.files import UserError
from data.text import clean, lines_of, marks

# "don't" is a word, "l'eau" two
WORD = re.compile(rf"\w[\w{marks()}]*(?:['’](?:s|t|re|ve|m|ll|d)\b)?", re.I)
SENTENCE_START = re.compile(rf"(?:^|[.!?:]\s+)\W{{,9}}({WORD.pattern})", re.I)
HELD_OUT_OF = 5                      # one English word in five is held out from training
FREQUENT = 10, 5                     # smallest counts of a held-out word in the text and of its translation
# Of a learned dictionary: smallest count of an English word, smallest probability in both directions, most
# translations of a word, and most word pairs within sentences (100 bytes each; later ones are not read).
LEAST_COUNT, LEAST_P, MOST_LEARNED, MOST_LINKS = 5, 0.1, 3, 10_000_000


def fold(text):
    """The form in which words of text and dictionary are compared: "Don’t" is "don't"."""
    return text.lower().replace("’", "'")


# --- files --------------------------------------------------------------------------------------------------

def read(path):
    """Read a dictionary file of any of the three formats, plain or .gz: -> {English: [translation, ...]}.

    A word is dropped as its own translation if it has another one: machine-made lists give most words
    themselves as a translation.  Raises UserError naming the line that does not have two sides.
    """
    entries = {}
    for number, line in lines_of(path):
        if not line.strip():
            continue
        sides = _sides(line.rstrip())                          # a leading tab is an empty first field
        if len(sides) < 2 or not all(sides):
            raise UserError(f"{path} line {number}: {line[:40]!r} is not a pair of words: write "
                            "'word translation', 'word<TAB>translation' or "
                            '{"words": "word $ translation"}')
        source, *translations = sides
        known = entries.setdefault(source, [])
        known += [t for t in translations if t not in known]
    if not entries:
        raise UserError(f"{path} is empty: a dictionary has one pair of words per line")
    return {word: [t for t in translations if t != word] or translations
            for word, translations in entries.items()}


def _sides(line):
    """Split one line: -> [English, translation, ...] folded, [] for another format."""
    if line.startswith("{"):
        try:
            found = clean(json.loads(line)["words"]).split("$")
        except (ValueError, KeyError, TypeError, RecursionError):
            return []
    elif "\t" in line:
        found = line.split("\t")[:2]                           # further columns name the origin of the pair
    else:
        found = line.split(" ") if line.count(" ") == 1 else []
    return [fold(" ".join(side.split())) for side in found]


# --- IBM model 1 --------------------------------------------------------------------------------------------

def _numbered(sentences):
    """Number the words of sentences from 1: -> sorted list of words, list of (n,) arrays of numbers."""
    words = sorted({word for sentence in sentences for word in sentence})
    number = {word: i for i, word in enumerate(words, 1)}
    return words, [np.array([number[w] for w in sentence], np.int64) for sentence in sentences]


def translation_probabilities(source, target, iterations=5):
    """IBM model 1: the probability of each target word given a source word, by EM from uniform.

    source, target: lists of arrays of word numbers from 1, one per sentence.  Every source sentence also
                    holds the empty word 0, which explains target words that have no counterpart
    returns: (links, p): links (K,) int64, source * 2^32 + target, sorted; p (K,) float64

    Two sentence pairs, "a b" / "x y" and "a" / "x", show that b means y:
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
    links, link = np.unique(np.concatenate(keys), return_inverse=True)           # (K,), (all pairs,)
    place, given = np.concatenate(place), links >> 32
    p = np.ones(len(links))
    for _ in range(iterations):
        share = p[link]
        share /= np.bincount(place, share)[place]              # E step: the source words of each target word
        count = np.bincount(link, share)                       # (K,)
        p = count / np.bincount(given, count)[given]           # M step
    return links, p


def learn(pairs):
    """Learn a dictionary from sentence pairs: words that translate each other in both directions."""
    read, size = [], 0
    for pair in pairs:
        words = [WORD.findall(fold(side)) for side in pair]
        size += len(words[0]) * len(words[1])
        if size > MOST_LINKS:
            break
        read.append(words)
    if not any(map(all, read)):
        return {}
    (english, source), (other, target) = map(_numbered, zip(*read))
    links, forward = translation_probabilities(source, target)
    back_links, backward = translation_probabilities(target, source)
    swapped = (back_links & 0xFFFFFFFF) << 32 | back_links >> 32
    both, here, there = np.intersect1d(links, swapped, assume_unique=True, return_indices=True)
    forward, backward = forward[here], backward[there]
    count = np.bincount(np.concatenate(source), minlength=len(english) + 1)      # (words + 1,)
    kept = (np.minimum(forward, backward) >= LEAST_P) & (count[both >> 32] >= LEAST_COUNT)
    entries, product = {}, forward * backward
    for k in np.lexsort((both, -product)):
        if kept[k]:
            translations = entries.setdefault(english[(both[k] >> 32) - 1], [])
            if len(translations) < MOST_LEARNED:
                translations.append(other[(both[k] & 0xFFFFFFFF) - 1])
    return entries


# --- the words of the text ----------------------------------------------------------------------------------

def longest_match(vocabulary):
    """A function that splits text without spaces: at each place, the longest known word or else a character.

    vocabulary: set of folded words;  characters that are neither letter nor digit are left out

    >>> longest_match({"eis", "eisbär", "rot"})("Eisbär, rotes Eis")
    ['Eisbär', 'rot', 'e', 's', 'Eis']
    """
    lengths = {}                                               # of words, by their first character
    for word in sorted(vocabulary, key=len, reverse=True):
        lengths.setdefault(word[:1], {})[len(word)] = True

    def split(text):
        folded, found, i = fold(text), [], 0
        written = text if len(text) == len(folded) else folded
        while i < len(folded):
            n = next((n for n in lengths.get(folded[i], ()) if folded[i:i + n] in vocabulary), 1)
            if n > 1 or folded[i].isalnum():
                found.append(written[i:i + n])
            i += n
        return found
    return split


class WordCounts:
    """How often each word occurs in a text, in any case, and how it is spelled within sentences.

    vocabulary: None, or the words to look for where the text has no spaces between words
    count: {folded word: number};  spelling: {folded word: the word as written}
    split: function of a text -> its words
    """

    def __init__(self, documents, vocabulary=None):
        self.count, self.spelling, forms, openings = Counter(), {}, Counter(), Counter()
        self.spaces = vocabulary is None
        self.split = WORD.findall if self.spaces else longest_match(vocabulary)
        for document in documents:
            forms.update(self.split(document))
            openings.update(SENTENCE_START.findall(document))
        # a capital at the start of a sentence tells nothing: only words that never occur inside keep it
        inside = forms - openings
        for form in sorted(forms, key=lambda form: (inside[form], forms[form], form)):
            self.count[fold(form)] += forms[form]
            self.spelling[fold(form)] = form                 # the most frequent form is set last

    def spell(self, phrase):
        """A word or phrase in the spelling of the text; None if one of its words never occurs."""
        if not self.spaces:
            return self.spelling.get(fold(phrase))
        if not all(fold(word) in self.spelling for word in WORD.findall(phrase) or [phrase]):
            return None
        return WORD.sub(lambda word: self.spelling[fold(word[0])], phrase)


def select(entries, english, other):
    """Spell the entries whose words occur in both WordCounts: -> them, frequent first; number dropped."""
    selected, n_dropped = {}, 0
    for word in sorted(entries, key=lambda w: (-english.count[w], w)):
        source = english.spell(word) if WORD.fullmatch(word) else None           # code-switching is by word
        translations = [other.spell(t) for t in entries[word]]
        good = list(dict.fromkeys(t for t in translations if t)) if source else []
        n_dropped += len(translations) - len(good)
        if good:
            selected[source] = good
    return selected, n_dropped


def is_held_out(word, seed):
    """Whether an English word is held out, in every language: the word alone decides."""
    return zlib.crc32(f"{seed} {fold(word)}".encode()) % HELD_OUT_OF == 0


def split(selected, english, other, seed, limit=None):
    """Split a selected dictionary by English word: -> for training (at most `limit` words), held out."""
    train, held_out = {}, {}
    for word, translations in selected.items():
        if not is_held_out(word, seed):
            train[word] = translations
        elif english.count[fold(word)] >= FREQUENT[0]:         # words too rare to be asked are in neither
            frequent = [t for t in translations if other.count[fold(t)] >= FREQUENT[1]]
            if frequent:
                held_out[word] = frequent
    return dict(itertools.islice(train.items(), limit)), held_out


def coverage(entries, counts):
    """The share of the running words of a text that have an entry; of its characters if it has no spaces."""
    known = {fold(word) for word in entries}
    size = {word: n if counts.spaces else n * len(word) for word, n in counts.count.items()}
    return sum(n for word, n in size.items() if word in known) / max(sum(size.values()), 1)
