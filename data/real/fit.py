"""Do dictionary and sentence pairs fit the texts?  Swapped, foreign and identical files are refused."""
import numpy as np

from data.files import refuse
from data.real.dictionaries import coverage, fold

PAIRS = 1000                         # sentence pairs looked at
SOME, MANY = 0.2, 100                # smaller shares get a warning; pairs of which the lengths tell something


def known(sentences, counts):
    """The share of the words of sentences that occur in a text (WordCounts)."""
    words = [word for sentence in sentences for word in counts.split(fold(sentence))]
    return sum(word in counts.count for word in words) / max(len(words), 1)


def of_dictionary(name, entries, english, other):
    """The shares of running words that a dictionary covers, and of its translations that occur in the text.

    -> {"english", "other", "occur"}.  Arguments as in dictionaries.select
    """
    translations = {t for many in entries.values() for t in many}
    found, turned = dict(english=coverage(entries, english)), coverage(translations, english)
    refuse(turned > max(SOME, 2 * found["english"]),
           f"--dictionary {name}: its first words are {found['english']:.0%} of the English text, its second "
           f"words {turned:.0%}: it seems to be reversed, put English first")
    asked = [t for word, many in entries.items() if english.spell(word) for t in many]
    n = sum(bool(other.spell(t)) for t in asked)
    refuse(not n, f"--dictionary {name}: it has {len(asked)} translations of words of the English text, and "
           f"none of them occurs in the text of {name}")
    return found | dict(other=coverage(translations, other), occur=n / len(asked))


def of_pairs(name, pairs, english, other):
    """Raise UserError for pairs, list of (English, other), that are swapped, foreign, shifted or too few."""
    refuse(len(pairs) < 2, f"pairs of {name}: {len(pairs)} for training, at least two are needed")
    same = sum(one == two for one, two in pairs)
    refuse(2 * same > len(pairs),
           f"pairs of {name}: both sides are the same in {same} of the first {len(pairs)} pairs")
    one, two = zip(*pairs)
    here, there = known(one, english), known(two, english)     # shares of words that English text has
    swapped, mine = known(one, other), known(two, other)       # and that of the other language
    refuse(there + swapped > here + mine,
           f"pairs of {name}: {here:.0%} of the words of the English side occur in the English text, "
           f"{there:.0%} of the other side: the two files look swapped")
    refuse(min(here, mine) < SOME / 2,
           f"pairs of {name}: {here:.0%} of the English words occur in the English text, {mine:.0%} of the "
           f"others in the text of {name}: are these other languages?")
    lengths = np.array([[len(side) for side in pair] for pair in pairs]).T       # (2, N)
    if len(pairs) >= MANY and lengths.std(axis=1).all():
        aligned, *shifted = (np.corrcoef(lengths[0], np.roll(lengths[1], k))[0, 1] for k in (0, 1, 2, -1, -2))
        refuse(max(shifted) > aligned + SOME + 4 / len(pairs) ** 0.5,            # more than chance explains
               f"pairs of {name}: the lengths of sentences fit those some lines away better (correlation "
               f"{max(shifted):.2f}, not {aligned:.2f}): is a file shifted?")
