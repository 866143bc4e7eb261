"""The tables of the built-in world: words, relations between words, templates of stories and questions.

A slot of a template, such as {Anna} or {hat}, is named after a word that could stand in it.  world.py draws
the words (SLOTS says how), then corrects articles and capitals.

  key: entry | entry          a row of a table; ";" or a line break ends it
  [Eva/Ida] left [Ida/Eva]    two versions of one entry: "Eva left Ida", "Ida left Eva"

A task is lexical, where the meaning of words suffices, or contextual, where the passage decides, or both.
"""
import itertools
import re


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


# --- words --------------------------------------------------------------------------------------------------

FEMALE = """Anna Mia Emma Sara Lena Nora Clara Julia Maria Laura Eva Ella Lisa Hanna Sofia Alice Ida Marta
Olga Paula Irene Diana Helen Jane Kate Lucy Mary Nina Rita Tina Vera Zoe Amy Beth Carol Donna Ellen Fiona Gina
Heidi Ingrid Joan Karen Linda Megan Nancy Polly Rachel Susan Tracy Wendy Yvonne Sonia Greta""".split()
MALE = """Tom Ben Max Leo Paul Jim Sam Dan Tim Bob Adam Alex Carl David Eric Felix Fred George Henry Hugo Ian
Ivan Jacob John Karl Kevin Lars Louis Luke Martin Mike Neil Nick Noah Oscar Otto Peter Philip Ralph Robert
Roger Simon Steven Theo Victor Walter Aaron Brian Colin Dennis Edgar Gary Harry Igor""".split()
PRONOUN = {name: "she" for name in FEMALE} | {name: "he" for name in MALE}

CLASSES = word_lists("""bird: robin crow duck owl eagle swan sparrow parrot goose
fish: salmon trout shark cod tuna carp herring pike; toy: ball doll kite puppet balloon marble rattle
mammal: dog cat horse cow pig goat lion tiger bear wolf; tool: hammer shovel axe drill rake wrench spade
fruit: apple banana pear plum peach lemon mango melon grape; furniture: table chair bed sofa desk bench stool
vegetable: carrot onion potato cabbage turnip radish leek beet; vehicle: car bus truck van tractor taxi wagon
drink: water milk tea coffee juice lemonade soda cocoa; container: box bag basket bucket jar bottle crate
dish: soup pizza pasta rice stew salad curry pie porridge chili; flower: rose tulip daisy lily poppy orchid
garment: hat coat shirt dress scarf skirt jacket sweater glove apron
instrument: piano guitar drum flute violin trumpet harp cello banjo clarinet""")
# adjectives that fit one class only
FITTING = word_lists("""fruit: ripe unripe; vehicle: parked crowded; mammal: hungry asleep; dish: spicy salty
garment: torn woolen; flower: blooming wilted; instrument: musical melodic""")
UNCOUNTABLE = CLASSES["dish"] + CLASSES["drink"] + ["furniture"]       # "milk", not "a milk"
PORTABLE = members(["toy", "garment", "fruit", "tool", "vegetable"])
JOBS = dict(doctor="hospital", teacher="school", baker="bakery", farmer="barn", judge="court", clerk="bank",
            librarian="library", mechanic="garage", waiter="restaurant", pilot="airport", sailor="harbor",
            priest="church", singer="theater")
WORDS = word_lists("""colours: red blue green yellow white black brown pink purple grey
cities: Paris London Berlin Madrid Rome Vienna Oslo Lisbon Athens Dublin Prague Cairo
places: kitchen garden park hall bedroom attic cellar forest market station yard office tower
days: Monday Tuesday Wednesday Thursday Friday Saturday Sunday
manners: slowly quickly quietly happily carefully alone again early late often
social: helped followed praised called greeted hugged thanked visited invited trusted
deeds: sang danced left smiled cried laughed waved jumped shouted won lied slept""")
OPENERS = ["", "", "", "", "one day ", "today ", "yesterday "] + [f"on {day} " for day in WORDS["days"]]
# Pairs of opposite sides.  The words of one side are synonyms.
OPPOSITES = {kind: list(map(sides, pairs)) for kind, pairs in table("""
thing: big large/small little | clean spotless/dirty filthy | cheap inexpensive/costly expensive
| pretty beautiful/ugly hideous | strange odd/normal ordinary | broken damaged/whole intact
| old ancient/new modern | strong sturdy/weak flimsy
person: happy glad/sad unhappy | fast quick/slow sluggish | brave bold/timid shy | rich wealthy/poor needy
| quiet silent/loud noisy | healthy well/sick ill | kind nice/mean cruel | smart clever/silly foolish
plain: wet/dry | heavy/light | hard/soft | rough/smooth | long/short | hot/cold
verb: found discovered/lost misplaced | fixed repaired/broke smashed | loved adored/hated disliked
| raised lifted/lowered dropped | hid concealed/showed revealed""").items()}

# verb: its objects, classes or words
ACTIONS = {verb: members(objects) for verb, objects in word_lists("""
ate: fruit vegetable dish fish bread cake; drank: drink; wore: garment sock; drove: vehicle; lit: candle lamp
planted: flower vegetable; tuned: instrument car; fed: mammal bird fish; sang: song tune hymn; hooked: fish
read: book letter poem newspaper postcard bill story joke riddle; swept: floor porch path house
opened: door gate window letter book parcel container; climbed: hill mountain ladder wall
cooked: dish vegetable fish; paid: bill fee tax; told: joke story secret riddle; built: house bridge wall
filled: container; milked: cow goat; rode: horse donkey bicycle vehicle; peeled: fruit vegetable
poured: drink soup; sharpened: axe knife pencil; mailed: letter parcel postcard bill; rowed: boat canoe
knitted: scarf sweater sock; parked: vehicle bicycle; wrote: book letter poem song story joke postcard
baked: bread cake pie potato; picked: fruit vegetable flower; solved: puzzle riddle""").items()}
# Two verbs are contrasted only if they share no object.
CONTRASTS = [(verb, other) for verb, other in itertools.product(ACTIONS, repeat=2)
             if not set(ACTIONS[verb]) & set(ACTIONS[other])]

# topic: cause > effect.  * is a person.
EVENTS = []
for topic, events in table("""
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
cage: * left the cage open > the bird flew off; sweet: * added sugar > the tea tasted sweet""").items():
    EVENTS += [(topic, *event.split(" > ")) for event in events]


def fair(event, other, clue):
    """Decide whether only the meaning tells an event from another.  clue: 1 is the cause, 2 the effect."""
    same_subject = ("*" in event[clue]) == ("*" in other[clue])
    length, other_length = len(event[3 - clue].split()), len(other[3 - clue].split())
    return event[0] != other[0] and same_subject and abs(length - other_length) < 2


EVENT_PAIRS = {clue: [pair for pair in itertools.product(EVENTS, repeat=2) if fair(*pair, clue)]
               for clue in (1, 2)}
# verb: why somebody did it to somebody, because of the first person, or because of the second.
REASONS = [(verb, *why) for verb, why in table("""
thanked: got help | gave help; paid: owed money | did good work; asked: had a question | knew the answer
followed: was lost | knew the way; envied: was poor | was rich; carried: had strong arms | had a hurt foot
fed: had food | was hungry; feared: was timid | was cruel; taught: knew the song | had no idea""").items()]
# Properties of one list exclude each other.
PROPERTIES = [WORDS["colours"], [f"in the {place}" for place in WORDS["places"]],
              *([x, y] for [x], [y] in OPPOSITES["plain"])]

POOLS = {**CLASSES, **ACTIONS, **OPPOSITES, **WORDS, "she": FEMALE, "he": MALE, "people": FEMALE + MALE,
         "portable": PORTABLE, "openers": OPENERS}


# --- stories and facts --------------------------------------------------------------------------------------

# Stories tell all that questions ask for, but in other sentences: no prompt of a test item stands in a story.
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

VALUES = {"lives": WORDS["cities"], "works": list(JOBS)[:12], "plays": CLASSES["instrument"],
          "likes": CLASSES["dish"]}
# The value stands last, so that it can be asked for, except in the last statement of each relation.
STATEMENTS = table("""
lives: {p} lives in {v}. | {p} has a home in {v}. | the home of {p} is in {v}. | in {v} lives {p}.
works: {p} works as a {v}. | {p} makes money as a {v}. | {p} has the job of a {v}. | as a {v} works {p}.
plays: {p} plays the {v}. | {p} can play the {v}. | {p} takes lessons on the {v}. | on the {v} plays {p}.
likes: {p} likes {v}. | {p} is fond of {v}. | {p} is hungry for {v}. | {v} is liked by {p}.""")
TOLD = {"en": 32, "clone": 24, "both": 16}                  # number of people whose facts a language tells
# The shares of the words of a text.  Only English has exercises: solved questions.
MIX = {"en": dict(story=.46, facts=.20, exercises=.34), "clone": dict(story=.72, facts=.28)}


# --- tasks --------------------------------------------------------------------------------------------------

LABELS = {"nli": ["yes", "no", "maybe"], "paraphrase": ["yes", "no"]}
# task difficulty: prompt > right candidate > wrong candidate ...  Every question has its mirror image, by a
# bracket or because slots could be exchanged: each word is right as often as it is wrong.
QUESTIONS = {}
for key, forms in table("""
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
| the {baker} gave the {blue} {hat} to {Ben}. | {Anna} and {Ben} had a {red} {kite}.""").items():
    QUESTIONS[tuple(key.split())] = [form.split(" > ") for form in forms]
# Lexical questions come more often: a tiny model learns words long before it learns to look things up.
OFTEN = {"nli": 6, "paraphrase": 4, "cause": 3, "ending": 3, "coreference": 3, "question": 3}
EXERCISES = []
for task, difficulty in QUESTIONS:
    if task != "translate":
        EXERCISES += [(task, difficulty)] * (OFTEN[task] if difficulty == "lexical" else 1)
