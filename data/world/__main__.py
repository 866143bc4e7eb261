"""Show the built-in world: a story, facts, sizes, and one item of every task.  Run: python -m data.world"""
import itertools

from data.world.lexicon import MIX, QUESTIONS
from data.world.world import World, generator


def clone(text):
    return " ".join(f"⟨{word}⟩" for word in text.split())


def main():
    world = World()
    story = world.story(generator("a sample"))
    print(f"a story\n    {story}\n    {clone(story)}\nfacts")
    for fact in world.facts[::41]:
        print(f"    {fact.person} {fact.relation} {fact.value}, told in {fact.told}")
    for language in MIX:
        documents = list(world.documents(language, 100_000))
        words = " ".join(documents).lower().split()
        print(f"{language}: {len(words):,} words in {len(documents):,} documents, "
              f"{len({word.strip('.,?:') for word in words})} different ones, shares {MIX[language]}")
    items = itertools.chain(world.knowledge()[:1], *(world.items(task, "test", 1, difficulty)
                                                     for task, difficulty in QUESTIONS))
    for item in items:
        print(f"{item.task} {item.difficulty}\n    {item.prompt} [{' | '.join(item.candidates)}] "
              f"right: {item.candidates[item.answer]}")


if __name__ == "__main__":
    main()
