"""Multi30k as text of four languages: no picture is described in both English and another language.

Part A of the training pictures gives English text (five captions each), part B the text of the other
languages and the sentence pairs: no English sentence has its translation in the text.  The tasks are scene
(7 classes) and who (4 classes), by a rule from the words of five English captions, and completion.
"""
import itertools
import re
from pathlib import Path

import numpy as np

from data.real import download
from data.real.build import Source
from data.text import documents_of

STEMS = dict(train="train", val="val", test="test_2016_flickr")      # how the files name the splits
SHARE_A = 17 / 29                    # of the training pictures: 17,000 of 29,000
LETTER = re.compile(r"[^\W\d_]")
WORD = re.compile(r"[\w'-]+")

CLASSES = {}                         # {task: {class: set of words}}
for line in Path(__file__).with_name("multi30k_classes.tsv").read_text(encoding="utf-8").splitlines():
    task, name, words = line.split("\t")
    CLASSES.setdefault(task, {})[name] = set(words.split())


def source(languages, new, files, seed, rest):
    """Make a Source of the files of download.obtain; rest: the other fields, a dict."""
    names = [*languages, *new]
    captions = Multi30k(files, names, seed)
    rest = rest | dict(items=[*captions.items(), *rest["items"]])
    about = dict(source="multi30k", licence=download.LICENCES)
    return Source(languages, new, captions.text, captions.pairs, paired=names[1:], about=about, **rest)


def label(captions, classes):
    """The class with words in at least three of five captions, no other in more than one: -> index or None.

    >>> label(["a dog runs", "the dog", "two dogs", "an animal", "a man and a dog"], CLASSES["who"])
    3
    """
    captions = [set(WORD.findall(caption.lower())) for caption in captions]
    hits = [sum(not words.isdisjoint(caption) for caption in captions) for words in classes.values()]
    *_, second, most = sorted(hits)
    return hits.index(most) if most >= 3 and second <= 1 else None


class Multi30k:
    """All captions, by picture, from the files {name: path} of download.obtain.

    translated[language, split]: list of captions; line i describes the same picture in all languages
    described[split]:            tuples of five English captions of each picture; `translated` has one of them
    part_a, part_b:              training pictures for English text; for other text and the pairs
    """

    def __init__(self, files, languages, seed):
        self.languages, self.seed, self.translated, self.described = languages, seed, {}, {}
        for split, stem in STEMS.items():
            for name in languages:
                self.translated[name, split] = list(documents_of(files[f"multi30k/task1/{stem}.{name}.gz"]))
            stem = stem.removesuffix("_flickr")
            five = [documents_of(files[f"multi30k/task2/{stem}.{k}.en.gz"]) for k in (1, 2, 3, 4, 5)]
            self.described[split] = list(zip(*five))
        n = len(self.described["train"])
        order = np.random.default_rng((seed, 401)).permutation(n)
        self.part_a, self.part_b = np.split(order, [round(n * SHARE_A)])

    def text(self, language, split):
        """The documents of one language: -> list.  In val and test, all describe the same pictures."""
        if split != "train":
            found = self.translated[language, split]
        elif language == "en":
            found = itertools.chain.from_iterable(self.described["train"][i] for i in self.part_a)
        else:
            found = [self.translated[language, "train"][i] for i in self.part_b]
        return [caption for caption in found if LETTER.search(caption)]           # some are just "@@"

    def pairs(self, language, split):
        """The sentence pairs (English, translation) of part B, or of the pictures of val or test: -> list."""
        rows = self.part_b if split == "train" else range(len(self.described[split]))
        found = [(self.translated["en", split][i], self.translated[language, split][i]) for i in rows]
        return [pair for pair in found if all(map(LETTER.search, pair))]

    def items(self):
        """Yield (split, item) for all tasks."""
        for task, classes in CLASSES.items():
            yield from self.labelled(task, classes)
        for split in ("val", "test"):
            found = [completions(self.translated[name, split], name, self.seed) for name in self.languages]
            for item in itertools.chain(*found):
                yield split, item

    def labelled(self, task, classes):
        """Yield (split, item): captions to classify, of training with balanced classes.

        Training items have the English captions of A, or captions of B in the other languages, which train a
        classifier of that language, an upper reference.  Other items are in all languages.
        """
        parts = [("train", self.part_a, ["en"]), ("train", self.part_b, self.languages[1:])]
        parts += [(split, range(len(self.described[split])), self.languages) for split in ("val", "test")]
        for split, rows, names in parts:
            found = [(i, label(self.described[split][i], classes)) for i in rows]
            found = [(i, answer) for i, answer in found if answer is not None]
            for i, answer in balanced(found) if split == "train" else found:
                yield split, dict(id=f"{split}-{i}", task=task,
                                  prompt={name: self.translated[name, split][i] for name in names},
                                  candidates=list(classes), answer=answer)


def balanced(found):
    """Cut every class to the size of the smallest one: list of (anything, class) -> the same, in turn."""
    by_class = [[pair for pair in found if pair[1] == c] for c in sorted({c for _, c in found})]
    return list(itertools.chain.from_iterable(zip(*by_class)))


def completions(captions, language, seed):
    """Yield items: captions cut at a word of their middle third, with four endings.

    The three wrong endings begin with the same word as the right one.  Otherwise the word at the cut would
    reveal the answer to anything that counts pairs of words.
    """
    rng, endings = np.random.default_rng((seed, 403)), {}
    split = [caption.split(" ") for caption in captions]

    def middle(words):
        return range(len(words) // 3, 2 * len(words) // 3 + 1) if len(words) >= 6 else ()

    for i, words in enumerate(split):
        for at in middle(words):
            endings.setdefault(words[at], []).append((i, " ".join(words[at:])))
    for i, words in enumerate(split):
        for at in rng.permutation(middle(words)):
            true = " ".join(words[at:])
            others = sorted({text for j, text in endings[words[at]] if j != i and text != true})
            if len(others) >= 3:
                candidates = [others[k] for k in rng.permutation(len(others))[:3]]
                answer = int(rng.integers(4))
                candidates.insert(answer, true)
                yield dict(id=f"{language}-{i}", task="completion", prompt={language: " ".join(words[:at])},
                           candidates={language: candidates}, answer=answer)
                break
