"""The built-in world: facts, documents and questions that follow from one seed."""
import re
import zlib
from collections import namedtuple
from itertools import chain
from random import Random

from data.tasks import Item
from data.world.lexicon import (ASIDES, CLASSES, CONTRASTS, ENDINGS, EVENT_PAIRS, EXERCISES, FEMALE, FITTING,
                                JOBS, LABELS, MALE, MIX, PLOTS, POOLS, PRONOUN, PROPERTIES, QUESTIONS,
                                REASONS, STATEMENTS, STORY, TOLD, UNCOUNTABLE, VALUES)

ARTICLE = re.compile(r"\b([Aa]) (?:((?:%s)\b)|(?=[aeiou]))" % "|".join(UNCOUNTABLE))
FIRST_LETTER = re.compile(r"(?:^|[.?] )[a-z]")


def generator(*name):
    """Return a random generator that its name determines.  (hash() would differ from process to process.)"""
    return Random(zlib.crc32("/".join(map(str, name)).encode()))


def pick(r, pool):
    """Draw a member of a pool.  (r.choice is three times slower, and this is the inner loop.)"""
    return pool[int(r.random() * len(pool))]


def zipf(pool, r):
    """Make a pool in which the k-th of n words, in a random order, stands about n / k times."""
    ranked = enumerate(r.sample(pool, len(pool)), 1)
    return [word for k, word in ranked for _ in range(max(1, round(len(pool) / k)))]


def polish(text):
    """Correct articles and capitals: "a owl saw a milk." becomes "An owl saw milk."."""
    text = ARTICLE.sub(lambda match: match[2] or match[1] + "n ", text)
    return FIRST_LETTER.sub(lambda match: match[0].upper(), text)


class Scene(dict):
    """The words in the slots of templates: each is drawn when first named, and stays in a whole story."""

    def __init__(self, pools, r, known=()):
        super().__init__(known)
        self.pools, self.r = pools, r

    def __missing__(self, slot):
        group, source = GROUP_OF[slot]
        words = source(self) if callable(source) else self.different(self.pools[source], len(group))
        self.update(zip(group, words))
        return self[slot]

    def different(self, pool, n=2):
        """Draw n different members of a pool."""
        while True:         # after a tie all are drawn again: otherwise rare words would more often be second
            drawn = [pick(self.r, pool) for _ in range(n)]
            if len(set(drawn)) == n:
                return drawn

    def related(self, pairs):
        """Draw a word, its synonym, its opposite and an unrelated word."""
        pair, other = self.different(pairs)
        same, opposite = self.r.sample(pair, 2)
        return *self.r.sample(same, 2), pick(self.r, opposite), pick(self.r, pick(self.r, other))

    def event(self, clue):
        """Draw half an event (1 cause, 2 effect), its other half, and the other half of another event."""
        name, (event, other) = self["Anna"], pick(self.r, EVENT_PAIRS[clue])
        pronoun = PRONOUN[name] if "*" in event[clue] else name
        return event[clue].replace("*", name), *(e[3 - clue].replace("*", pronoun) for e in (event, other))


# Slots that are drawn together, as different words of a pool or by a function.  Classes and jobs are equally
# frequent: they have few prompts and an item occurs once, so a frequent one would more often be wrong.
SLOTS = {
    "Anna Ben Mia Tom": "people", "hat kite axe": "portable", "red blue": "colours", "box bag": "container",
    "hall park": "places", "sang left cried": "deeds", "slowly": "manners", "helped": "social",
    "Paris": "cities", "opener": "openers",
    "she": lambda s: [PRONOUN[s["Anna"]]],
    # two people of one gender: otherwise the pronoun would tell who is meant
    "eva": lambda s: [pick(s.r, ("she", "he"))],
    "Eva Ida": lambda s: s.different(s.pools[s["eva"]]),
    "thanked got_help gave_help": lambda s: pick(s.r, REASONS),
    "baker bakery pilot airport": lambda s: chain(*s.different(list(JOBS.items()))),
    "bird fish": lambda s: s.different(list(CLASSES)),
    "robin": lambda s: [pick(s.r, s.pools[s["bird"]])],
    "ate drove": lambda s: pick(s.r, CONTRASTS),
    "pear van": lambda s: [pick(s.r, s.pools[s[verb]]) for verb in ("ate", "drove")],
    "big large small old": lambda s: s.related(s.pools["thing"]),
    "happy glad sad rich": lambda s: s.related(s.pools["person"]),
    "found discovered lost raised": lambda s: s.related(s.pools["verb"]),
    "wet dry long short": lambda s: chain(*(s.r.sample(kind, 2) for kind in s.r.sample(PROPERTIES, 2))),
    "plum ripe dog hungry": lambda s: chain(*((pick(s.r, s.pools[kind]), pick(s.r, FITTING[kind]))
                                              for kind in s.different(list(FITTING)))),
    "cause so so2": lambda s: s.event(1),
    "effect because because2": lambda s: s.event(2)}
# {slot: (all slots drawn with it, how)}
GROUP_OF = {slot: (group.split(), source) for group, source in SLOTS.items() for slot in group.split()}


Fact = namedtuple("Fact", "person relation value told")       # told: "en", "clone" or "both", who tells it


def split_of(text):
    """"train", "dev" or "test": the text alone decides, so the same text can never be in two splits."""
    return {0: "dev", 1: "test"}.get(zlib.crc32(text.encode()) % 10, "train")


class World:
    """All text that follows from one seed, which draws the facts and decides which words are frequent."""

    def __init__(self, seed=0):
        self.seed, self.facts, r = seed, [], generator(seed, "world")
        people = iter(r.sample(FEMALE + MALE, len(PRONOUN)))
        for told, count in TOLD.items():
            group = [next(people) for _ in range(count)]
            for relation, values in VALUES.items():
                times = -(-count // len(values))                # rounded up: no value is much likelier
                drawn = r.sample(values * times, count)
                self.facts += [Fact(person, relation, value, told) for person, value in zip(group, drawn)]
        self.pools = {name: zipf(pool, r) for name, pool in POOLS.items()}

    def documents(self, language, n_words, stream=0, stories=None):
        """Yield documents until they have n_words words.

        language: "en", or "clone": other facts, and no exercises
        stream:   number of the text; different streams tell the same facts in different documents
        stories:  iterator over a user's documents, told instead of the stories; the text ends when they end
        """
        r, told = generator(self.seed, "documents", language, stream), dict.fromkeys(MIX[language], 0)
        facts = [fact for fact in self.facts if fact.told in (language, "both")]
        while sum(told.values()) < n_words:
            kind = min(told, key=lambda k: told[k] / MIX[language][k])  # the kind furthest behind its share
            if kind == "exercises":
                text = self.exercises(r)
            elif kind == "facts":
                text = self.statements(r, facts)
            else:
                text = self.story(r) if stories is None else next(stories, None)
            if text is None:
                return
            told[kind] += len(text.split())
            yield text

    def story(self, r):
        """Tell of two people and a thing.  Who has it in the end, or where it is, depends on all events."""
        s, sentences = Scene(self.pools, r), []
        s["holder"], s["other"] = s["Anna"], s["Ben"]
        cast = [(slot, s[slot]) for slot in "Anna Ben Mia Tom hat kite axe".split()]
        plot = f"{pick(r, PLOTS)} {pick(r, ENDINGS)}" if r.random() < .6 else "aside " * r.randint(2, 4)
        for part in f"open join aside {plot}".split():
            if part == "aside":                                 # the state must be remembered meanwhile
                form = pick(r, STORY[pick(r, ASIDES)])
                sentences.append(form.format_map(Scene(self.pools, r, cast)))
            else:
                sentences.append(pick(r, STORY[part.rstrip("*")]).format_map(s))
            if part.endswith("*"):
                s["holder"], s["other"] = s["other"], s["holder"]
            if part == "move":
                s["box"] = s["bag"]
        return polish(" ".join(sentences))

    def statements(self, r, facts):
        """State three to eight facts of one person or of several."""
        if r.random() < .3:
            person = pick(r, facts).person
            facts = [fact for fact in facts if fact.person == person]
        sentences = []
        for fact in r.sample(facts, min(len(facts), r.randint(3, 8))):
            # The last statement is rare: most statements end with the value, as the question does.
            form = pick(r, STATEMENTS[fact.relation][:3 if r.random() < .9 else 4])
            sentences.append(form.format(p=fact.person, v=fact.value))
        return polish(" ".join(sentences))

    def exercises(self, r):
        """Write three to six solved questions of one task, one per line."""
        task, difficulty = pick(r, EXERCISES)
        solved = [self.question(r, task, difficulty, "train")[:2] for _ in range(r.randint(3, 6))]
        return "\n".join(f"{prompt} {right}" for prompt, right in solved)

    def sentences(self, split, n):
        """Draw n different sentences of stories.  The splits share none."""
        r, found = generator(self.seed, "sentences", split), {}
        while len(found) < n:
            for sentence in re.split(r"(?<=[.?]) ", self.story(r)):
                if 4 <= len(sentence.split()) <= 14 and split_of(sentence) == split:
                    found[sentence] = None
        return list(found)[:n]

    def question(self, r, task, difficulty, split):
        """Draw a question of one split: -> prompt, right candidate, the others (but labels)."""
        while True:
            form, *candidate_forms = pick(r, QUESTIONS[task, difficulty])
            s = Scene(self.pools, r)
            prompt = polish(form.format_map(s))
            candidates = [part.format_map(s) for part in candidate_forms]
            # "On Monday" does not make another question: with and without it, a prompt is in the same split.
            if split_of(prompt.lower().removeprefix(s.get("opener", "").lower())) == split:
                break
        if task == "translate":
            candidates = self.translations(r, form, s)
        return prompt, candidates[0], candidates[1:]

    def translations(self, r, form, s):
        """Write a sentence, and three others that differ from it in one word."""
        found = [polish(form.format_map(s))]
        while len(found) < 4:
            slot, other = pick(r, re.findall(r"{(\w+)}", form)), Scene(self.pools, r)
            text = polish(form.format_map({**s, slot: other[slot]}))
            if other[slot] not in s.values() and text not in found:
                found.append(text)
        return found

    def items(self, task, split, n, difficulty):
        """Return the first n items of a split.  Every answer is right equally often."""
        r, found = generator(self.seed, task, split, difficulty), {}
        for _ in range(100 * n + 1000):                         # a small split may hold fewer
            if len(found) == n:
                break
            prompt, right, wrong = self.question(r, task, difficulty, split)
            answer = len(found) % len(LABELS.get(task, [right, *wrong]))
            candidates = LABELS.get(task, [*wrong[:answer], right, *wrong[answer:]])
            if prompt not in found and candidates[answer] == right:
                found[prompt] = Item(task, difficulty, prompt, candidates, answer)
        return list(found.values())

    def knowledge(self):
        """Ask for every fact in two items, statements whose value is one of eight.  All are test items."""
        r, items = generator(self.seed, "knowledge"), []
        for fact in self.facts:
            for form in STATEMENTS[fact.relation][:2]:
                answer = len(items) % 8
                values = r.sample([value for value in VALUES[fact.relation] if value != fact.value], 7)
                values.insert(answer, fact.value)
                prompt = form.removesuffix(" {v}.").format(p=fact.person)
                items.append(Item("knowledge", "lexical", prompt, [f"{value}." for value in values], answer,
                                  fact.told))
        return r.sample(items, len(items))                      # shuffled: the first n are of all kinds
