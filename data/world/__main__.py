"""Print a story, some facts and an item of every task of the built-in world.  Run: python -m data.world"""
from data.world.lexicon import QUESTIONS
from data.world.world import World, generator

world = World()
print(world.story(generator("a sample")), *world.facts[::41], sep="\n")
items = world.knowledge()[:1]
for task, difficulty in QUESTIONS:
    items += world.items(task, "test", 1, difficulty)
for item in items:
    print(f"{item.task} {item.difficulty}: {item.prompt} {item.candidates}, right: {item.answer + 1}")
