"""Divide sentence pairs among texts so that no sentence of the English text is translated in another one."""
import zlib

from data.real.build import Source
from data.text import pairs_of, split_of


def groups(pairs):
    """Pairs with an equal sentence on a side are one group: -> its first English sentence for each pair.

    >>> groups([("Hi.", "Ahoj."), ("Go!", "Jdi!"), ("Hello.", "Ahoj."), ("Hello.", "Nazdar.")])
    ['Hi.', 'Go!', 'Hi.', 'Hi.']
    """
    above, first = {}, {}                                      # above: a tree of sentences for each group

    def top(sentence):
        while above.setdefault(sentence, sentence) != sentence:
            above[sentence] = above[above[sentence]]           # half the way next time
            sentence = above[sentence]
        return sentence

    for one, other in pairs:
        above[top((1, other))] = top((0, one))
    return [first.setdefault(top((0, one)), one) for one, _ in pairs]


def source(languages, new, files, share, rest):
    """Make a Source of parallel files, {language: (English, other)}; rest: the other fields, a dict.

    Of the groups, a twentieth is for validation and a twentieth for test, of all languages.  Of the others, a
    share gives the English text; the rest gives the text of the other languages and the pairs.
    """
    pairs = [(name, pair) for name, two in files.items() for pair in dict.fromkeys(pairs_of(*two))]
    parts = {}
    for (name, pair), group in zip(pairs, groups([(one, (name, other)) for name, (one, other) in pairs])):
        split = split_of(group, 0)
        if split == "train" and zlib.crc32(group.encode("utf-8")) // 20 % 1000 < share * 1000:
            split = "english"
        parts.setdefault((name, split), []).append(pair)

    def found(name, split):
        return iter(parts.get((name, split), ()))

    def text(name, split):
        if name != "en":
            return iter(dict.fromkeys(other for _, other in found(name, split)))
        split = "english" if split == "train" else split
        return iter(dict.fromkeys(one for name in files for one, _ in found(name, split)))

    return Source(languages, new, text, found, [*files], about=dict(source=files, licence=[]), **rest)
