"""Read lexicon.txt: the words of the built-in world, their relations, templates of stories and questions."""
import itertools
import re
from pathlib import Path


def sections(path):
    """Read a file of sections, each a line "[name]" and a text; "#" begins a comment: -> {name: text}."""
    text = re.sub(r"^#.*\n|\\\n", "", path.read_text(encoding="utf-8"), flags=re.M)      # "\" joins two lines
    parts = re.split(r"^\[(\w+)\]\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def unfold(text):
    """Return all versions of a text with brackets: the i-th takes the i-th choice of every bracket."""
    brackets = re.findall(r"\[(.*?)\]", text)
    n_versions = brackets[0].count("/") + 1 if brackets else 1
    return [re.sub(r"\[(.*?)\]", lambda match, i=i: match[1].split("/")[i], text) for i in range(n_versions)]


def table(text):
    """Read a table: -> {key: all versions of its entries}.  A line that starts with "|" continues a row."""
    rows = {}
    for row in re.split(r"\n|; ", text.strip().replace("\n|", " |")):
        key, entries = row.split(": ", 1)
        rows[key] = sum(map(unfold, entries.split(" | ")), [])
    return rows


def word_lists(text):
    """Read a table whose entries are words between spaces: -> {key: list of words}."""
    return {key: entry.split() for key, [entry] in table(text).items()}


def sides(pair):
    """Split "big large/small little" into two sides, each a tuple of words."""
    return tuple(tuple(side.split()) for side in pair.split("/"))


def members(names):
    """Return all words of some classes.  A name that is not a class is a word itself."""
    return sum((CLASSES.get(name, [name]) for name in names), [])


TEXT = sections(Path(__file__).with_name("lexicon.txt"))


# --- words --------------------------------------------------------------------------------------------------

FEMALE, MALE = TEXT["female"].split(), TEXT["male"].split()
PRONOUN = {name: "she" for name in FEMALE} | {name: "he" for name in MALE}
CLASSES = word_lists(TEXT["classes"])
FITTING = word_lists(TEXT["fitting"])
UNCOUNTABLE = CLASSES["dish"] + CLASSES["drink"] + ["furniture"]       # "milk", not "a milk"
PORTABLE = members(["toy", "garment", "fruit", "tool", "vegetable"])
JOBS = {job: place for job, [place] in word_lists(TEXT["jobs"]).items()}
WORDS = word_lists(TEXT["words"])
OPENERS = ["", "", "", "", "one day ", "today ", "yesterday "] + [f"on {day} " for day in WORDS["days"]]
OPPOSITES = {kind: list(map(sides, pairs)) for kind, pairs in table(TEXT["opposites"]).items()}
ACTIONS = {verb: members(objects) for verb, objects in word_lists(TEXT["actions"]).items()}
# Two verbs are contrasted only if they share no object.
CONTRASTS = [(verb, other) for verb, other in itertools.product(ACTIONS, repeat=2)
             if not set(ACTIONS[verb]) & set(ACTIONS[other])]

EVENTS = [(topic, *event.split(" > ")) for topic, events in table(TEXT["events"]).items() for event in events]


def fair(event, other, clue):
    """Decide whether only the meaning tells an event from another.  clue: 1 is the cause, 2 the effect."""
    same_subject = ("*" in event[clue]) == ("*" in other[clue])
    length, other_length = len(event[3 - clue].split()), len(other[3 - clue].split())
    return event[0] != other[0] and same_subject and abs(length - other_length) < 2


EVENT_PAIRS = {clue: [pair for pair in itertools.product(EVENTS, repeat=2) if fair(*pair, clue)]
               for clue in (1, 2)}
REASONS = [(verb, *why) for verb, why in table(TEXT["reasons"]).items()]
# Properties of one list exclude each other.
PROPERTIES = [WORDS["colours"], [f"in the {place}" for place in WORDS["places"]],
              *([x, y] for [x], [y] in OPPOSITES["plain"])]

POOLS = {**CLASSES, **ACTIONS, **OPPOSITES, **WORDS, "she": FEMALE, "he": MALE, "people": FEMALE + MALE,
         "portable": PORTABLE, "openers": OPENERS}


# --- stories and facts --------------------------------------------------------------------------------------

STORY = table(TEXT["story"])
# What may happen to the thing, and where it ends up; after a * the other person holds it.
PLOTS = ("find", "find give*", "find ask yes*", "find ask no", "find lose refind*")
ENDINGS = ("aside had", "aside had end", "put aside in", "put move aside in")
ASIDES = "class class fits thing person verb event event action action job deed why".split()

VALUES = {"lives": WORDS["cities"], "works": list(JOBS)[:12], "plays": CLASSES["instrument"],
          "likes": CLASSES["dish"]}
STATEMENTS = table(TEXT["statements"])
TOLD = {"en": 32, "clone": 24, "both": 16}                  # number of people whose facts a language tells
# The shares of the words of a text.  Only English has exercises: solved questions.
MIX = {"en": dict(story=.46, facts=.20, exercises=.34), "clone": dict(story=.72, facts=.28)}


# --- tasks --------------------------------------------------------------------------------------------------

LABELS = {"nli": ["yes", "no", "maybe"], "paraphrase": ["yes", "no"]}
QUESTIONS = {tuple(key.split()): [form.split(" > ") for form in forms]
             for key, forms in table(TEXT["questions"]).items()}
# Lexical questions come more often: a tiny model learns words long before it learns to look things up.
OFTEN = {"nli": 6, "paraphrase": 4, "cause": 3, "ending": 3, "coreference": 3, "question": 3}
EXERCISES = [(task, difficulty) for task, difficulty in QUESTIONS if task != "translate"
             for _ in range(OFTEN[task] if difficulty == "lexical" else 1)]
