"""Multi30k as a corpus of four languages, its pictures kept apart, and the tasks that its captions allow.

  images    part A of the training pictures gives English text (five captions each), part B the text of
            the other languages and the sentence pairs: no English sentence has its translation in the text
  label     scene (7 classes) and who (4) of a picture, from the words of its five English captions
  items     scene, who, completion and same, see data/folder.py for their form

The labels are silver: made by a rule from words, not by people.
"""
import re

import numpy as np

from data.text import documents_of

SPLITS = dict(train="train", val="val", test="test_2016_flickr")
SHARE_A = 17 / 29                    # of the training pictures: 17,000 of 29,000
CAPTIONS = 5                         # English captions of a picture that were written independently
LETTER = re.compile(r"[^\W\d_]")

# A class and its words, each with its plural or its forms where captions use them.
SCENE = {name: frozenset(words.split()) for name, words in dict(
    sport="""baseball basketball football soccer tennis volleyball hockey rugby cricket golf lacrosse
        wrestling wrestlers boxing boxer boxers karate gymnast gymnastics athlete athletes player players
        team teams race racing racer racers runner runners marathon tournament match game bat pitcher batter
        referee uniform uniforms goalie skateboard skateboarder skateboarding skateboarders bmx
        motocross""",
    music="""guitar guitars guitarist band music musician musicians drum drums drummer piano violin violins
        saxophone trumpet accordion flute cello instrument instruments concert singer singers singing sings
        sing microphone stage orchestra choir dj""",
    water="""water ocean sea lake river beach pool swimming swimmer swimmers swim swims surf surfer surfers
        surfing surfboard wave waves boat boats canoe kayak kayaker raft rafting sailboat fishing dock
        splash splashing splashes shore waterfall swimsuit""",
    snow="""snow snowy ski skis skier skiers skiing snowboard snowboarder snowboarding sled sledding ice icy
        mountain mountains mountainside climber climbers climbing climbs rock cliff hiker hikers hiking
        peak""",
    food="""food cook cooking cooks chef chefs kitchen eat eating eats meal dinner lunch restaurant cake pizza
        fruit fruits vegetables vegetable meat bread sandwich grill grilling barbecue baking chopsticks
        drinking beer wine coffee dining""",
    street="""street streets sidewalk road car cars bus taxi truck traffic city crosswalk bicycle bicycles
        bike bikes cyclist cyclists motorcycle motorcycles train subway van intersection""",
    work="""work working works worker workers construction hard-hat ladder hammer welding welder machine
        machinery shovel tools tool repairing carpenter office computer laptop desk scaffolding factory
        laborers saw drill hardhat""").items()}
WHO = {name: frozenset(words.split()) for name, words in dict(
    man="man men man's guy guys gentleman gentlemen male males",
    woman="woman women woman's lady ladies female females",
    child="child children child's boy boys boy's girl girls girl's kid kids baby toddler toddlers",
    dog="dog dogs dog's puppy puppies").items()}
CLASSES = dict(scene=SCENE, who=WHO)


def words_of(caption):
    """The words of an English caption, in lower case, without their marks."""
    return re.findall(r"[\w'-]+", caption.lower())


def label(captions, classes):
    """The class whose words are in at least three of five captions while no other's are in more than one.

    -> its index, None if there is none

    >>> label(["a dog runs", "the dog", "two dogs", "an animal", "a man and a dog"], WHO)
    3
    """
    captions = [set(words_of(caption)) for caption in captions]
    hits = [sum(not words.isdisjoint(caption) for caption in captions) for words in classes.values()]
    best = max(range(len(hits)), key=hits.__getitem__)
    others = hits[:best] + hits[best + 1:]
    return best if hits[best] >= 3 and max(others) <= 1 else None


class Multi30k:
    """All captions, by picture.

    translated[language, split]: list of captions, line i of all languages describes the same picture
    described[split]:            list of lists of five English captions written from the picture alone; one of
                                 them is the English side of `translated`
    """

    def __init__(self, files, languages):
        """files: {name: path} of download.obtain, whose checksums say that they belong together."""
        self.languages, self.translated, self.described = languages, {}, {}
        for split, stem in SPLITS.items():
            for name in languages:
                self.translated[name, split] = list(documents_of(files[f"multi30k/task1/{stem}.{name}.gz"]))
            stem = stem.removesuffix("_flickr")
            by_length = [list(documents_of(files[f"multi30k/task2/{stem}.{k}.en.gz"]))
                         for k in range(1, CAPTIONS + 1)]
            self.described[split] = [list(captions) for captions in zip(*by_length)]

    def images(self, seed):
        """The training pictures in two parts, shuffled: -> A (English text), B (other text and pairs)."""
        n = len(self.described["train"])
        order = np.random.default_rng((seed, 401)).permutation(n)
        return order[:round(n * SHARE_A)], order[round(n * SHARE_A):]

    def text(self, language, split, seed):
        """Documents of one language: five captions of A in English, one of B else; the translations of val
        and test, so that all languages are measured on the same pictures.
        """
        if split != "train":
            found = self.translated[language, split]
        elif language == "en":
            found = [caption for i in self.images(seed)[0] for caption in self.described["train"][i]]
        else:
            found = [self.translated[language, "train"][i] for i in self.images(seed)[1]]
        return [caption for caption in found if LETTER.search(caption)]           # some lines are just "@@"

    def pairs(self, language, split, seed):
        """(English, translation) of part B, or of the pictures of val or test."""
        rows = self.images(seed)[1] if split == "train" else range(len(self.described[split]))
        found = [(self.translated["en", split][i], self.translated[language, split][i]) for i in rows]
        return [pair for pair in found if all(map(LETTER.search, pair))]

    def items(self, seed):
        """All items of all tasks: yields (split, item)."""
        for task, classes in CLASSES.items():
            yield from self.labelled(task, classes, seed)
        for split in ("val", "test"):
            yield from ((split, item) for item in self.same(split, seed))
            for name in self.languages:
                yield from ((split, item) for item in completions(self.translated[name, split], name, seed))

    def labelled(self, task, classes, seed):
        """Captions and the class of their picture.

        For training: A's pictures with their English caption, B's with those of the other languages (they
        train the ceiling, a classifier of that language), classes balanced by leaving out.  Else: all
        languages.
        """
        part_a, part_b = self.images(seed)
        others = [name for name in self.languages if name != "en"]
        for split, rows, names in (("train", part_a, ["en"]), ("train", part_b, others),
                                   ("val", range(len(self.described["val"])), self.languages),
                                   ("test", range(len(self.described["test"])), self.languages)):
            found = [(i, label(self.described[split][i], classes)) for i in rows]
            found = [(i, answer) for i, answer in found if answer is not None]
            if split == "train":
                found = balanced(found)
            for i, answer in found:
                yield split, dict(id=f"{split}-{i}", task=task,
                                  prompt={name: self.translated[name, split][i] for name in names},
                                  candidates=list(classes), answer=answer)

    def same(self, split, seed):
        """An English caption, and which of two other captions is of the same picture."""
        rng = np.random.default_rng((seed, 402))
        n = len(self.described[split])
        for i in range(n):
            translated = self.translated["en", split][i]
            # the translated caption is one of the five: it would be its own answer
            others = [c for c in self.described[split][i] if c != translated]
            asked, answer = others[rng.integers(len(others))], int(rng.integers(2))
            wrong = (i + rng.integers(1, n)) % n
            two = [wrong, i] if answer else [i, wrong]
            yield dict(id=f"{split}-{i}", task="same", prompt={"en": asked}, answer=answer, candidates={
                name: [self.translated[name, split][k] for k in two] for name in self.languages})


def balanced(found):
    """As many of each class as the smallest one has, the first ones: list of (anything, class)."""
    by_class = {}
    for pair in found:
        by_class.setdefault(pair[1], []).append(pair)
    n = min(map(len, by_class.values()), default=0)
    return [pair for turn in zip(*(by_class[c][:n] for c in sorted(by_class))) for pair in turn]


def completions(captions, language, seed):
    """Captions cut at a word of their middle third, with four endings: yields items.

    The three wrong endings begin with the same word as the right one: without that, the word at the cut
    gives the answer away to anything that counts pairs of words.
    """
    rng, endings = np.random.default_rng((seed, 403)), {}
    split = [caption.split(" ") for caption in captions]

    def middle(words):
        return range(max(len(words) // 3, 1), 2 * len(words) // 3 + 1) if len(words) >= 6 else ()

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
