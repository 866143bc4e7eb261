"""The embedded world: simple real-word English from a seed, small enough to be learned on a laptop.

Only English is made here.  Other languages are made later, token by token: English is the gold translation.
  tables  the lexicon, and templates of stories, facts and questions: meant to be read
  Scene   the slots of a template, drawn from the lexicon when they are first named
  World   documents (stories, facts, exercises), test items and sentences, all from one seed
On the `lexical` rung of a task the meaning of words suffices; on the `contextual` one the passage decides, so
words alone must not: `python -m data.synthetic` shows samples of everything and asks a bag of words.
"""
import re
import time
import zlib
from dataclasses import dataclass
from random import Random

import numpy as np


def unfold(text):
    """All choices of a text with brackets: "[Eva/Ida] left [Ida/Eva]" is "Eva left Ida", "Ida left Eva"."""
    n_choices = (re.findall(r"\[(.*?)\]", text) or [""])[0].count("/") + 1
    return [re.sub(r"\[(.*?)\]", lambda m, i=i: m[1].split("/")[i], text) for i in range(n_choices)]


def table(text):
    """Rows "key: entry | entry" as {key: entries, unfolded}; ";" parts rows, "|" in front continues one."""
    rows = (row.split(": ", 1) for row in re.split(r"\n|; ", text.strip().replace("\n|", " |")))
    return {key: [choice for entry in row.split(" | ") for choice in unfold(entry)] for key, row in rows}


def listing(text):
    """Rows "key: word word ..." as {key: words}."""
    return {key: entry.split() for key, [entry] in table(text).items()}


# ---- the lexicon ----

FEMALE = """Anna Mia Emma Sara Lena Nora Clara Julia Maria Laura Eva Ella Lisa Hanna Sofia Alice Ida Marta
Olga Paula Irene Diana Helen Jane Kate Lucy Mary Nina Rita Tina Vera Zoe Amy Beth Carol Donna Ellen Fiona Gina
Heidi Ingrid Joan Karen Linda Megan Nancy Polly Rachel Susan Tracy Wendy Yvonne Sonia Greta""".split()
MALE = """Tom Ben Max Leo Paul Jim Sam Dan Tim Bob Adam Alex Carl David Eric Felix Fred George Henry Hugo Ian
Ivan Jacob John Karl Kevin Lars Louis Luke Martin Mike Neil Nick Noah Oscar Otto Peter Philip Ralph Robert
Roger Simon Steven Theo Victor Walter Aaron Brian Colin Dennis Edgar Gary Harry Igor""".split()
PRONOUN = {name: "she" for name in FEMALE} | {name: "he" for name in MALE}

CLASSES = listing("""bird: robin crow duck owl eagle swan sparrow parrot goose
fish: salmon trout shark cod tuna carp herring pike; toy: ball doll kite puppet balloon marble rattle
mammal: dog cat horse cow pig goat lion tiger bear wolf; tool: hammer shovel axe drill rake wrench spade
fruit: apple banana pear plum peach lemon mango melon grape; furniture: table chair bed sofa desk bench stool
vegetable: carrot onion potato cabbage turnip radish leek beet; vehicle: car bus truck van tractor taxi wagon
drink: water milk tea coffee juice lemonade soda cocoa; container: box bag basket bucket jar bottle crate
dish: soup pizza pasta rice stew salad curry pie porridge chili; flower: rose tulip daisy lily poppy orchid
garment: hat coat shirt dress scarf skirt jacket sweater glove apron
instrument: piano guitar drum flute violin trumpet harp cello banjo clarinet""")
FITTING = listing("""fruit: ripe unripe; vehicle: parked crowded; mammal: hungry asleep; dish: spicy salty
garment: torn woolen; flower: blooming wilted; instrument: musical melodic""")
MASS = CLASSES["dish"] + CLASSES["drink"] + ["furniture"]       # "milk", not "a milk"
PORTABLE = [w for kind in ("toy", "garment", "fruit", "tool", "vegetable") for w in CLASSES[kind]]
JOBS = dict(doctor="hospital", teacher="school", baker="bakery", farmer="barn", judge="court", clerk="bank",
            librarian="library", mechanic="garage", waiter="restaurant", pilot="airport", sailor="harbor",
            priest="church", singer="theater")
OTHER = listing("""colours: red blue green yellow white black brown pink purple grey
cities: Paris London Berlin Madrid Rome Vienna Oslo Lisbon Athens Dublin Prague Cairo
places: kitchen garden park hall bedroom attic cellar forest market station yard office tower
days: Monday Tuesday Wednesday Thursday Friday Saturday Sunday
manners: slowly quickly quietly happily carefully alone again early late often
social: helped followed praised called greeted hugged thanked visited invited trusted
deeds: sang danced left smiled cried laughed waved jumped shouted won lied slept""")
OPENERS = ["", "", "", "", "one day ", "today ", "yesterday "] + [f"on {day} " for day in OTHER["days"]]
# Two opposite sides; the words of one side are synonyms.
OPPOSITES = {key: [[side.split() for side in pair.split("/")] for pair in pairs] for key, pairs in table("""
thing: big large/small little | clean spotless/dirty filthy | cheap inexpensive/costly expensive
| pretty beautiful/ugly hideous | strange odd/normal ordinary | broken damaged/whole intact
| old ancient/new modern | strong sturdy/weak flimsy
person: happy glad/sad unhappy | fast quick/slow sluggish | brave bold/timid shy | rich wealthy/poor needy
| quiet silent/loud noisy | healthy well/sick ill | kind nice/mean cruel | smart clever/silly foolish
plain: wet/dry | heavy/light | hard/soft | rough/smooth | long/short | hot/cold
verb: found discovered/lost misplaced | fixed repaired/broke smashed | loved adored/hated disliked
| raised lifted/lowered dropped | hid concealed/showed revealed""").items()}

# verb: its objects, classes or words.  Two verbs are contrasted only when they share no object.
ACTIONS = {verb: [w for part in objects for w in CLASSES.get(part, [part])] for verb, objects in listing("""
ate: fruit vegetable dish fish bread cake; drank: drink; wore: garment sock; drove: vehicle; lit: candle lamp
planted: flower vegetable; tuned: instrument car; fed: mammal bird fish; sang: song tune hymn; hooked: fish
read: book letter poem newspaper postcard bill story joke riddle; swept: floor porch path house
opened: door gate window letter book parcel container; climbed: hill mountain ladder wall
cooked: dish vegetable fish; paid: bill fee tax; told: joke story secret riddle; built: house bridge wall
filled: container; milked: cow goat; rode: horse donkey bicycle vehicle; peeled: fruit vegetable
poured: drink soup; sharpened: axe knife pencil; mailed: letter parcel postcard bill; rowed: boat canoe
knitted: scarf sweater sock; parked: vehicle bicycle; wrote: book letter poem song story joke postcard
baked: bread cake pie potato; picked: fruit vegetable flower; solved: puzzle riddle""").items()}
CONTRASTS = [(v, w) for v in ACTIONS for w in ACTIONS if not set(ACTIONS[v]) & set(ACTIONS[w])]

# Cause > effect; * is a person.  Only events of different topics are contrasted: a wrong one is implausible.
EVENTS = [(topic, *event.replace("*", "{p}").split(" > ")) for topic, events in table("""
self: * stayed up all night > * was sleepy | * ran a long race > * was tired | * skipped lunch > * was hungry
| * had no dinner > * wanted some food | * ate salty nuts > * was thirsty | * studied hard > * passed the test
| * missed the bus > * came late | * drove over a nail > the tire was flat | * won the prize > * was proud
| * swallowed too much candy > * had a stomach ache | * got a nice gift > * was delighted
harm: * sat near the fire > * felt warm | * heard bad news > * was in tears | * saw a ghost > * was afraid
| * met a snake > * screamed | * fell off a roof > * broke a leg | * spent every coin > * could buy nothing
| * touched the stove > * had a burned finger | * left the toast on > the room was full of smoke
weather: * forgot the umbrella > * got wet | * went out without a coat > * caught a cold
| it rained all night > the street was wet | it snowed all day > the roads were white
| the wind was strong > a branch fell | the sun was hot > the ice melted | * watered the seed > a plant grew
| it was dry all summer > the river was low | the power failed > the lights went out
noise: * let go of the cup > there were sharp pieces | * hit the window > the glass cracked
| * slammed the door > the baby woke up | * robbed a shop > the police came
| * lost the key > * was locked out
humor: * made a funny face > the people laughed; phone: the battery was empty > the phone stopped
cage: * left the cage open > the bird flew off; sweet: * added sugar > the tea tasted sweet""").items()
          for event in events]
# Two events contrast fairly if they are about as long, and the clue of both or of neither is about a person.
EVENT_PAIRS = {clue: [(x, y) for x in EVENTS for y in EVENTS if x[0] != y[0]
                      and ("{p}" in x[clue]) == ("{p}" in y[clue])
                      and abs(len(x[3 - clue].split()) - len(y[3 - clue].split())) < 2] for clue in (1, 2)}
# Why somebody did it to somebody: because of the first person, or because of the second.
REASONS = [(verb, *why) for verb, why in table("""
thanked: got help | gave help; paid: owed money | did good work; asked: had a question | knew the answer
followed: was lost | knew the way; envied: was poor | was rich; carried: had strong arms | had a hurt foot
fed: had food | was hungry; feared: was timid | was cruel; taught: knew the song | had no idea""").items()]
PROPERTIES = [OTHER["colours"], [f"in the {place}" for place in OTHER["places"]],
              *([x, y] for [x], [y] in OPPOSITES["plain"])]

# ---- templates: a slot is named after a word that could stand in it; `polish` does articles, capitals ----
# Stories tell all that questions ask for, but in other sentences: no prompt of a test stands in a story.

STORY = table("""
open: {opener}{Anna} [was in/went to/came to] the {hall}. | {Anna} walked to the {hall} {slowly}.
join: {Ben} was [there too/in the {hall} as well]. | there {she} met {Ben}.
find: [{she} found/{Anna} picked up/in the {hall} {she} got] a {red} {hat}.
| there was a {red} {hat} and a {blue} {kite}. {Anna} took the {red} {hat}.
give: {holder} [gave/handed] the {hat} to {other}. | the {hat} was given to {other} by {holder}.
| {other} got the {red} {hat} from {holder}.
ask: {other} [asked {holder} for/wanted] the {hat}. | {holder} was asked for the {hat} by {other}.
yes: {holder} said yes[/ and gave it to {other}]. | {holder} did not say no, {holder} said yes.
no: {holder} said no[/ and kept it]. | {holder} said maybe, but then no.
lose: {holder} [lost the {hat} and was sad/misplaced the {hat}, so {holder} was unhappy].
refind: {other} found the {hat} in the {park}. | in the {park} {other} discovered the {red} {hat}.
put: {holder} [put/hid] the {hat} in the {box}. | the {hat} was put in the {box} by {holder}.
move: {holder} moved the {hat} [from the {box} to the {bag}/to the {bag} from the {box}].
| at first the {hat} was in the {box}, then {holder} put it in the {bag}.
had: [now/who had the {hat}?] {holder} had the {red} {hat}. | now the {red} {hat} was with {holder}.
| the {hat} was {red}. | what was {red}? the {hat} was {red}.
in: [the/now the {red}/what was in the {box}? the] {hat} was in the {box}.
end: it was a good day. | then they went home. | a train from {Paris} came to the station.
| {Anna} took the {axe} but not the {kite}. | {Anna} and {Ben} did the same thing.
| {Anna} wrote a note. Summary: it was a good day. | is it the same? {Anna} said maybe.
class: {Anna} saw a {robin}. the {bird} was {wet}. | {Anna} saw a {bird}. it was a {robin}.
| there was a {robin}, a kind of {bird}. | [a/what is a {robin}? a] {robin} is a kind of {bird}.
fits: the {plum} was next to the {dog}. [it/the {plum}] was {ripe}. | {Anna} saw a {ripe} {plum}.
| what was {ripe}? the {plum} was {ripe}.
thing: the {axe} was [not {small}, it was {big}/{big}, so it was not {small}/{big}. it was really {large}].
| {Anna} had a {big} {axe}. the {large} {axe} was useful. | the {axe} was {wet}, not {dry}.
person: {Anna} was not {sad}, {she} was {happy}. | {Ben} was {sad}, but {Anna} was {happy}.
| {Anna} was {happy}. everybody said that {she} was {glad}. | {Anna} was {happy} and really {glad}.
verb: {Anna} {found} the {axe}[. yes, {she} {discovered} it/, but later {she} {lost} it].
event: {opener}{cause}, and so {so}. | {opener}{effect}, because {because}. | {cause}. that is why {so}.
action: {opener}{Anna} {ate} a {pear}[/ {slowly}]. | {Ben} saw that {Anna} {ate} a {pear}.
job: {Anna} went to the {bakery}. [the/who works there? it is the] {baker}[ works there/].
| {opener}in the {bakery} {Anna} met the {baker}.
deed: {Anna} {helped} {Ben}. | {Ben} was {helped} by {Anna}. | {Anna} {sang} because {Ben} {left}.
| {Ben} {left}. so {Anna} {sang}. why? because {Ben} {left}.
why: {Anna} {thanked} {Ben} because [{Anna} {got_help}/{Ben} {gave_help}].""")
# What may happen to the thing, and where it ends up; after a * the other person holds it.
PLOTS = ("find", "find give*", "find ask yes*", "find ask no", "find lose refind*")
ENDINGS = ("aside had", "aside had end", "put aside in", "put move aside in")
ASIDES = "class class fits thing person verb event event action action job deed why".split()

VALUES = {"lives": OTHER["cities"], "works": list(JOBS)[:12], "plays": CLASSES["instrument"],
          "likes": CLASSES["dish"]}
# The value stands last, so that it can be asked for, except in the last statement of each relation.
STATEMENTS = table("""
lives: {p} lives in {v}. | {p} has a home in {v}. | the home of {p} is in {v}. | in {v} lives {p}.
works: {p} works as a {v}. | {p} makes money as a {v}. | {p} has the job of a {v}. | as a {v} works {p}.
plays: {p} plays the {v}. | {p} can play the {v}. | {p} takes lessons on the {v}. | on the {v} plays {p}.
likes: {p} likes {v}. | {p} is fond of {v}. | {p} is hungry for {v}. | {v} is liked by {p}.""")
TOLD = {"en": 32, "clone": 24, "both": 16}                  # people whose facts are told in which language
MIX = {"en": dict(story=.46, facts=.20, exercises=.34), "clone": dict(story=.72, facts=.28)}

# ---- tasks ----

CHANCE = dict(nli=1/3, paraphrase=1/2, cause=1/2, ending=1/2, coreference=1/2, question=1/2, knowledge=1/8,
              translate=1/4, summary=1/4)
TASKS = tuple(CHANCE)
LABELS = {"nli": ("yes", "no", "maybe"), "paraphrase": ("yes", "no")}
# Prompt > right > wrong ...  Every question has its mirror image, by a bracket or because slots could be
# exchanged: each word is right as often as it is wrong.
QUESTIONS = {tuple(key.split()): [choice.split(" > ") for choice in choices] for key, choices in table("""
nli lexical: {Anna} saw a [{robin}/{robin}/{bird}]. it was a [{bird}/{fish}/{robin}]? > [yes/no/maybe]
| {Anna} saw a [{robin}/{fish}/{bird}]. it was a [{bird}/{robin}/{robin}]? > [yes/no/maybe]
| {Anna} had a {big} {hat}. it was [{large}/{small}/{old}]? > [yes/no/maybe]
| {opener}{Anna} was {happy}. {she} was [{glad}/{sad}/{rich}]? > [yes/no/maybe]
nli contextual: \
{Anna} took the {hat} but not the {kite}. {Anna} took the [{hat}/{kite}/{axe}]? > [yes/no/maybe]
| {Anna} took the {hat} and {Ben} took the {kite}. {Anna} took the [{hat}/{kite}/{axe}]? > [yes/no/maybe]
| {Anna} took the {hat} and {Ben} took the {kite}. {Ben} took the [{kite}/{hat}/{axe}]? > [yes/no/maybe]
| the {hat} was {wet} and the {kite} was {long}. the {hat} was [{wet}/{dry}/{long}]? > [yes/no/maybe]
| the {hat} was {wet} and the {kite} was {long}. the {kite} was [{long}/{short}/{wet}]? > [yes/no/maybe]
paraphrase lexical: {Anna} had a {big} {hat}. {Anna} had a [{large}/{small}] {hat}. is it the same? > [yes/no]
| {Anna} {found} the {hat}. {Anna} [{discovered}/{lost}] the {hat}. is it the same? > [yes/no]
paraphrase contextual: \
[{Ben}/{Anna}] was {helped} by [{Anna}/{Ben}]. {Anna} {helped} {Ben}. is it the same? > [yes/no]
| {Anna} {helped} {Ben}. [{Ben}/{Anna}] was {helped} by [{Anna}/{Ben}]. is it the same? > [yes/no]
cause lexical: {opener}{cause}, so > {so}. > {so2}. | {opener}{effect} because > {because}. > {because2}.
cause contextual: {Anna} {sang} because {Mia} {left}. {Ben} {sang} because {Tom} {cried}. \
so [{Anna}/{Ben}] {sang} because > [{Mia} {left}/{Tom} {cried}]. > [{Tom} {cried}/{Mia} {left}].
ending lexical: {opener}{Anna} {ate} the > {pear}. > {van}. | {opener}{Anna} {ate} the > {pear}. > {van}.
| {opener}{Anna} met the {baker} in the > {bakery}. > {airport}.
ending contextual: {Anna} put the {hat} in the {box} and the {kite} in the {bag}. \
the [{hat}/{kite}] was in the > [{box}/{bag}]. > [{bag}/{box}].
| {Anna} moved the {hat} [from the {box} to the {bag}/to the {bag} from the {box}]. \
now it was in the > {bag}. > {box}.
| {Anna} moved the {hat} [from the {box} to the {bag}/to the {bag} from the {box}]. \
at first it was in the > {box}. > {bag}.
coreference lexical: the {plum} was next to the {dog}. it was [{ripe}/{hungry}]. what was [{ripe}/{hungry}]? \
the > [{plum}/{dog}]. > [{dog}/{plum}].
coreference contextual: {Eva} {thanked} {Ida} because {eva} [{got_help}/{gave_help}]. \
who [{got_help}/{gave_help}]? > [{Eva}/{Ida}]. > [{Ida}/{Eva}].
question lexical: {Anna} saw a {robin}. what is a {robin}? a kind of > {bird}. > {fish}.
| {opener}{Anna} saw a {robin}. what is a {robin}? a kind of > {bird}. > {fish}.
| {Anna} went to the {bakery}. who works there? the > {baker}. > {pilot}.
question contextual: {Anna} saw a {red} {hat} and a {blue} {kite}. what was [{red}/{blue}]? \
the [{red}/{blue}] > [{hat}/{kite}]. > [{kite}/{hat}].
| {Anna} took the {hat} and {Ben} took the {kite}. who took the [{hat}/{kite}]? \
> [{Anna}/{Ben}]. > [{Ben}/{Anna}].
summary contextual: \
[{Anna}/{Ben}] was with [{Ben}/{Anna}]. {Anna} {found} the {hat}, not the {kite}. Summary: > \
{Anna} {found} the {hat}. > {Ben} {found} the {hat}. > {Anna} {found} the {kite}. > {Ben} {found} the {kite}.
| [{Anna}/{Ben}] was with [{Ben}/{Anna}]. the {kite} was there, but {Anna} {found} the {hat}. Summary: > \
{Anna} {found} the {hat}. > {Ben} {found} the {hat}. > {Anna} {found} the {kite}. > {Ben} {found} the {kite}.
translate contextual: {Anna} put the {red} {hat} in the {box}. | {Anna} saw the {big} {hat} in the {hall}.
| the {old} {hat} was in the {park}. | {Anna} met the {baker} and {Ben} in the {park}.
| the {baker} gave the {blue} {hat} to {Ben}. | {Anna} and {Ben} had a {red} {kite}.""").items()}
RUNGS = {task: tuple(rung for key, rung in QUESTIONS if key == task) or ("lexical",) for task in TASKS}
# Lexical rungs come more often: a tiny model learns words long before it learns to look things up.
OFTEN = {"nli": 6, "paraphrase": 4, "cause": 3, "ending": 3, "coreference": 3, "question": 3}
EXERCISES = [key for key in QUESTIONS if key[0] != "translate"
             for _ in range(OFTEN[key[0]] if "lexical" in key else 1)]


# ---- drawing words ----

def stream(*parts):
    """A random generator named by its parts: crc32, because hash() differs from process to process."""
    return Random(zlib.crc32("/".join(map(str, parts)).encode()))


def pick(r, pool):
    """r.choice at a third of its cost: this is the inner loop of the corpus."""
    return pool[int(r.random() * len(pool))]


def zipf(pool, r):
    """A pool in which the k-th word (in an order drawn from r) stands about n/k times."""
    n = len(pool)
    return [x for k, x in enumerate(r.sample(pool, n), 1) for _ in range(max(1, round(n / k)))]


def polish(text):
    """Articles and capitals: "a owl saw a milk." becomes "An owl saw milk."."""
    return START.sub(lambda m: m[0].upper(), ARTICLE.sub(lambda m: m[2] or m[1] + "n ", text))


ARTICLE = re.compile(r"\b([Aa]) (?:((?:%s)\b)|(?=[aeiou]))" % "|".join(MASS))
START = re.compile(r"(?:^|[.?] )[a-z]")
POOLS = {**CLASSES, **ACTIONS, **OPPOSITES, **OTHER, "she": FEMALE, "he": MALE, "people": FEMALE + MALE,
         "portable": PORTABLE, "openers": OPENERS}


class Scene(dict):
    """The slots of templates.  A slot is drawn when it is first named, then stays: the state of a story."""

    def __init__(self, pools, r, known=()):
        super().__init__(known)
        self.pools, self.r = pools, r

    def __missing__(self, slot):
        group, draw = DRAW[slot]
        self.update(zip(group, draw(self) if callable(draw) else self.some(self.pools[draw], len(group))))
        return self[slot]

    def some(self, pool, n=2):
        """n different members; after a tie all are drawn anew, or rare words would more often come second."""
        while True:
            found = [pick(self.r, pool) for _ in range(n)]
            if all(x not in found[:i] for i, x in enumerate(found)):
                return found

    def related(self, pairs):
        """A word, its synonym, its opposite and an unrelated word."""
        pair, other = self.some(pairs)
        same, opposite = self.r.sample(pair, 2)
        return *self.r.sample(same, 2), pick(self.r, opposite), pick(self.r, pick(self.r, other))

    def event(self, clue):
        """An event as the clue, what goes with it (told second, so with a pronoun), and what does not."""
        name, (event, other) = self["Anna"], pick(self.r, EVENT_PAIRS[clue])
        again = PRONOUN[name] if "{p}" in event[clue] else name
        return event[clue].replace("{p}", name), *(e[3 - clue].replace("{p}", again) for e in (event, other))


# Slots drawn together: from which pool, all different, or how.  Classes and jobs are equally frequent: they
# have few prompts, each an item only once, so a frequent one would be wrong more often than right.
DRAW = {slot: (group.split(), draw) for group, draw in {
    "Anna Ben Mia Tom": "people", "hat kite axe": "portable", "red blue": "colours", "box bag": "container",
    "hall park": "places", "sang left cried": "deeds", "slowly": "manners", "helped": "social",
    "Paris": "cities", "opener": "openers",
    "she": lambda s: [PRONOUN[s["Anna"]]],
    # With different genders, the pronoun would tell who is meant.
    "eva": lambda s: [pick(s.r, ("she", "he"))],
    "Eva Ida": lambda s: s.some(s.pools[s["eva"]]),
    "thanked got_help gave_help": lambda s: pick(s.r, REASONS),
    "baker bakery pilot airport": lambda s: [w for job in s.some(list(JOBS)) for w in (job, JOBS[job])],
    "bird fish": lambda s: s.some(list(CLASSES)),
    "robin": lambda s: [pick(s.r, s.pools[s["bird"]])],
    "ate drove": lambda s: pick(s.r, CONTRASTS),
    "pear van": lambda s: [pick(s.r, s.pools[s["ate"]]), pick(s.r, s.pools[s["drove"]])],
    "big large small old": lambda s: s.related(s.pools["thing"]),
    "happy glad sad rich": lambda s: s.related(s.pools["person"]),
    "found discovered lost raised": lambda s: s.related(s.pools["verb"]),
    "wet dry long short": lambda s: [w for kind in s.r.sample(PROPERTIES, 2) for w in s.r.sample(kind, 2)],
    "plum ripe dog hungry": lambda s: [w for kind in s.some(list(FITTING))
                                       for w in (pick(s.r, s.pools[kind]), pick(s.r, FITTING[kind]))],
    "cause so so2": lambda s: s.event(1),
    "effect because because2": lambda s: s.event(2)}.items() for slot in group.split()}


@dataclass(frozen=True)
class Fact:
    """One thing that is true of one person, told in "en", in the "clone" or in "both"."""
    person: str
    relation: str
    value: str
    told: str


@dataclass(frozen=True)
class Item:
    """The text of candidate i is f"{prompt} {candidates[i]}"; the right one should be the likeliest."""
    task: str
    rung: str
    prompt: str
    candidates: tuple
    answer: int
    told: str = ""


def split_of(text):
    """train, dev or test, decided by the text alone: the same text can never be in two splits."""
    return {0: "dev", 1: "test"}.get(zlib.crc32(text.encode()) % 10, "train")


class World:
    """All text that follows from one seed, which draws the facts and which words are frequent."""

    def __init__(self, seed=0):
        self.seed, self.facts, r = seed, [], stream(seed, "world")
        people = iter(r.sample(FEMALE + MALE, len(PRONOUN)))
        for told, count in TOLD.items():
            group = [next(people) for _ in range(count)]
            for relation, values in VALUES.items():
                drawn = r.sample(values * -(-count // len(values)), count)      # no value is much likelier
                self.facts += [Fact(person, relation, value, told) for person, value in zip(group, drawn)]
        self.pools = {name: zipf(pool, r) for name, pool in POOLS.items()}

    def documents(self, language, n_words, seed=0, stories=None):
        """Yield documents of "en", or of a clone under any other name, until n_words were told.

        stories: a user's own documents, told in place of the world's stories; when they end, so does the text
        """
        role = "en" if language == "en" else "clone"
        r, told = stream(self.seed, "documents", language, seed), dict.fromkeys(MIX[role], 0)
        facts = [fact for fact in self.facts if fact.told in (role, "both")]
        while sum(told.values()) < n_words:
            kind = min(told, key=lambda k: told[k] / MIX[role][k])      # the kind furthest behind its share
            if kind == "exercises":
                key = pick(r, EXERCISES)
                lines = [self.question(r, *key, "train") for _ in range(r.randint(3, 6))]
                text = "\n".join(f"{prompt} {right}" for prompt, right, _ in lines)
            elif kind == "facts":
                text = self.statements(r, facts)
            else:
                text = self.story(r) if stories is None else next(stories, None)
                if text is None:
                    return
            told[kind] += len(text.split())
            yield text

    def story(self, r):
        """Two people and a thing: who has it or where it is in the end depends on all that happened."""
        s, lines = Scene(self.pools, r), []
        s["holder"], s["other"] = s["Anna"], s["Ben"]
        cast = [(slot, s[slot]) for slot in "Anna Ben Mia Tom hat kite axe".split()]
        plot = f"{pick(r, PLOTS)} {pick(r, ENDINGS)}" if r.random() < .6 else "aside " * r.randint(2, 4)
        for part in f"open join aside {plot}".split():
            aside = part == "aside"                             # between events: the state must be remembered
            form = pick(r, STORY[pick(r, ASIDES) if aside else part.rstrip("*")])
            lines.append(form.format_map(Scene(self.pools, r, cast) if aside else s))
            if part.endswith("*"):
                s["holder"], s["other"] = s["other"], s["holder"]
            if part == "move":
                s["box"] = s["bag"]
        return polish(" ".join(lines))

    def statements(self, r, facts):
        """Three to eight facts: of one person, or mixed."""
        if r.random() < .3:
            person = pick(r, facts).person
            facts = [fact for fact in facts if fact.person == person]
        chosen = r.sample(facts, min(len(facts), r.randint(3, 8)))
        # The turned statement is rare: most statements end with the value, as the question does.
        forms = [pick(r, STATEMENTS[fact.relation][:3 if r.random() < .9 else 4]) for fact in chosen]
        return polish(" ".join(form.format(p=fact.person, v=fact.value) for form, fact in zip(forms, chosen)))

    def sentences(self, split, n):
        """n different single sentences of stories; the splits share none."""
        r, found = stream(self.seed, "sentences", split), {}
        while len(found) < n:
            for line in re.split(r"(?<=[.?]) ", self.story(r)):
                if 4 <= len(line.split()) <= 14 and split_of(line) == split:
                    found[line] = None
        return list(found)[:n]

    def question(self, r, task, rung, split):
        """(prompt, right candidate, wrong candidates) of one split."""
        while True:
            form, s = pick(r, QUESTIONS[task, rung]), Scene(self.pools, r)
            prompt, *candidates = polish(form[0].format_map(s)), *(part.format_map(s) for part in form[1:])
            # "On Monday" makes no new question: with and without it, a prompt is in the same split.
            if split_of(prompt.lower().removeprefix(s.get("opener", "").lower())) == split:
                break
        if task in LABELS:
            candidates += [label for label in LABELS[task] if label not in candidates]
        candidates = candidates or [prompt]                     # translate: wrong ones have one other word
        while task == "translate" and len(candidates) < 4:
            slot, other = pick(r, re.findall(r"{(\w+)}", form[0])), Scene(self.pools, r)
            text = polish(form[0].format_map({**s, slot: other[slot]}))
            if other[slot] not in s.values() and text not in candidates:
                candidates.append(text)
        return prompt, candidates[0], candidates[1:]

    def items(self, task, split, n, rung=None):
        """n different items of a split, each answer equally often; without a rung, the rungs take turns."""
        if task == "knowledge":
            return self.knowledge()[:n]
        rungs, found = (rung,) if rung else RUNGS[task], {}
        r = stream(self.seed, task, split, *rungs)
        for _ in range(100 * n + 1000):
            if len(found) >= n:
                return list(found.values())
            turn, rung = len(found) // len(rungs), rungs[len(found) % len(rungs)]
            prompt, right, wrong = self.question(r, task, rung, split)
            answer = turn % (len(wrong) + 1)
            candidates = LABELS.get(task) or (*wrong[:answer], right, *wrong[answer:])
            if prompt not in found and candidates[answer] == right:
                found[prompt] = Item(task, rung, prompt, candidates, answer)
        raise ValueError(f"{task} has only {len(found)} different {split} items, not {n}. Ask for fewer.")

    def knowledge(self):
        """Every fact in two statements up to its value, one of eight; all are tests, in every split."""
        r, items = stream(self.seed, "knowledge"), []
        for fact, form in ((f, s) for f in self.facts for s in STATEMENTS[f.relation][:2]):
            answer = len(items) % 8
            values = r.sample([v for v in VALUES[fact.relation] if v != fact.value], 7)
            candidates = tuple(f"{v}." for v in (*values[:answer], fact.value, *values[answer:]))
            prompt = form.removesuffix(" {v}.").format(p=fact.person)
            items.append(Item("knowledge", "lexical", prompt, candidates, answer, fact.told))
        return r.sample(items, len(items))                      # shuffled: the first n are of all kinds


def features(item, i):
    """What a reader without a sense of order sees of candidate i: names of features that count one each."""
    prompt, words = (re.findall("[a-z]+", text.lower()) for text in (item.prompt, item.candidates[i]))
    if item.task in LABELS:
        return words + [f"{words[0]} {w}" for w in prompt]
    # The prompt of `translate` will be in another language: it shares no word with the candidates.
    return words + ["shared with prompt"] * sum(w in prompt for w in words if item.task != "translate")


def bag_of_words(train_items, test_items, epochs=8, rate=.1):
    """Accuracy of a linear choice of candidates: multinomial logistic regression, one item at a time."""
    index = {}
    train, test = ([([np.array([index.setdefault(f, len(index)) for f in features(item, i)], dtype=int)
                      for i in range(len(item.candidates))], item.answer) for item in items]
                   for items in (train_items, test_items))
    weights = np.zeros(len(index))
    for epoch in range(epochs):
        for candidates, answer in train:
            p = np.exp([weights[ids].sum() for ids in candidates])
            p /= p.sum()
            for i, ids in enumerate(candidates):
                np.add.at(weights, ids, rate / (1 + epoch) * ((i == answer) - p[i]))
    return float(np.mean([np.argmax([weights[ids].sum() for ids in candidates]) == answer
                          for candidates, answer in test]))


def main():
    """Show the world: samples, counts, speed, and how far a bag of words gets."""
    world, clone = World(), lambda text: " ".join(f"⟨{w}⟩" for w in text.split())
    story = world.story(stream("a sample"))
    print(f"a story\n    {story}\n    {clone(story)}\nfacts")
    for fact in world.facts[::41]:
        print(f"    {fact.person} {fact.relation} {fact.value}, told in {fact.told}")
    for language in ("en", "clone"):
        start = time.perf_counter()
        texts = list(world.documents(language, 300_000))
        seconds, words = time.perf_counter() - start, " ".join(texts).lower().split()
        print(f"{language}: {len(texts):,} documents, {len(words):,} words, {MIX[language]}, "
              f"{len({w.strip('.,?:') for w in words})} distinct, {len(words) / seconds:,.0f} words/s")
    for task, rung in ((t, r) for t in TASKS for r in RUNGS[t]):
        train, test = (world.items(task, split, n, rung) for split, n in (("train", 2000), ("test", 400)))
        balance = " ".join(f"{x:.2f}" for x in np.bincount([item.answer for item in test]) / len(test))
        print(f"{task:11} {rung:10} chance {CHANCE[task]:.2f}  bag of words {bag_of_words(train, test):.2f}  "
              f"answers {balance}\n    {test[0].prompt} [{' | '.join(test[0].candidates)}] "
              f"right: {test[0].candidates[test[0].answer]}\n    {clone(test[0].prompt)}")


if __name__ == "__main__":
    main()
