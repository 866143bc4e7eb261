"""Print a story, some facts and an item of every task of the built-in world.  Run: python -m data.world"""
from data.world.lexicon import QUESTIONS, STATEMENTS
from data.world.world import World, generator

world = World()
items = world.knowledge()[:1]
for task, difficulty in QUESTIONS:
    items += world.items(task, "test", 1, difficulty)
print("A STORY, as in the text for training:", world.story(generator("a sample")), sep="\n  ")
facts = [f"{f.told:6}{STATEMENTS[f.relation][0].format(p=f.person, v=f.value)}" for f in world.facts[::41]]
print("\nFACTS, which the text states in English (en), in the clone, or in both:", *facts, sep="\n  ")
print("\nTEST ITEMS.  The model chooses the most likely text; * is right, chance is 1 / number of choices:")
for item in items:
    choices = [f"*{text}" if i == item.answer else text for i, text in enumerate(item.candidates)]
    print(f"  {item.task}, {item.difficulty}: {item.prompt} {' | '.join(choices)}")
print("\nEnglish-Clone has a token of its own for every token here.  Next: python train.py --method prealign")
