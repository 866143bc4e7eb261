"""The embedded world: what it tells where, and that its questions cannot be answered without reading."""
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data.synthetic import CHANCE, RUNGS, TASKS, Item, World, bag_of_words

EVERY = [(task, rung) for task in TASKS for rung in RUNGS[task]]
MADE = [(task, rung) for task, rung in EVERY if task != "knowledge"]  # knowledge: one set of items, the facts
CONTEXTUAL = [(task, "contextual")
              for task in ("nli", "paraphrase", "cause", "ending", "coreference", "question")]


@pytest.fixture(scope="module")
def english(world):
    return list(world.documents("en", 60_000))


@pytest.fixture(scope="module")
def clone(world):
    return list(world.documents("clone", 60_000))


# --- documents ----------------------------------------------------------------------------------------------

def test_the_same_seed_tells_the_same_documents(world):
    tell = lambda world, *seed: list(world.documents("en", 3000, *seed))    # noqa: E731
    assert tell(world, 5) == tell(World(world.seed), 5)
    assert not set(tell(world, 5)) == set(tell(world, 6)) and tell(world, 5) != tell(World(world.seed + 1), 5)


def test_the_same_seed_tells_the_same_documents_in_every_process():
    program = ("from data.synthetic import *; world = World(3); "
               "print(world.facts, list(world.documents('en', 500)), "
               "[world.items(task, 'test', 4) for task in TASKS])")
    root = str(Path(__file__).resolve().parent.parent)
    printed = [subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True,
                              check=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
               for seed in ("1", "2")]
    assert printed[0] == printed[1] and len(printed[0]) > 5000


def test_documents_stop_as_soon_as_enough_words_are_told(english):
    counts = [len(document.split()) for document in english]
    assert 60_000 <= sum(counts) < 60_000 + counts[-1]


@pytest.mark.parametrize("language", ["english", "clone"])
def test_text_is_ascii_with_single_spaces(language, request):
    for document in request.getfixturevalue(language):
        assert document.isascii() and document and not re.search(r"  |^\s|\s$| \n|\n |\n\n|\t|[{}]", document)


def test_a_small_corpus_already_has_five_hundred_different_words(english):
    assert len(set(re.findall(r"[a-z]+", " ".join(english).lower()))) >= 500


def test_the_splits_of_the_sentences_share_none(world):
    parts = [world.sentences(split, 200) for split in ("train", "dev", "test")]
    assert [len(part) for part in parts] == [200] * 3
    assert len(set(sum(parts, []))) == 600


# --- facts --------------------------------------------------------------------------------------------------

def test_each_person_has_one_fact_per_relation_and_is_told_of_in_one_place(world):
    people = {told: {fact.person for fact in world.facts if fact.told == told}
              for told in ("en", "clone", "both")}
    assert all(people.values()) and len(set.union(*people.values())) == sum(map(len, people.values()))
    assert set(Counter((fact.person, fact.relation) for fact in world.facts).values()) == {1}
    assert {fact.told for fact in world.facts} == people.keys()


def test_another_seed_makes_other_facts(world):
    values = [{(fact.person, fact.relation): fact.value for fact in World(seed).facts} for seed in (0, 0, 1)]
    assert values[0] == values[1]
    common = values[0].keys() & values[2].keys()
    assert sum(values[0][key] == values[2][key] for key in common) < len(common) / 3   # by chance, one in ten


def statements(world):
    """Facts as they stand in documents -> where they are told."""
    return {f"{item.prompt} {item.candidates[item.answer]}": item.told
            for item in world.items("knowledge", "test", 10**6)}


@pytest.mark.parametrize("language, told", [("english", {"en", "both"}), ("clone", {"clone", "both"})])
def test_facts_are_told_where_they_should_be_and_nowhere_else(world, language, told, request):
    text = "\n".join(request.getfixturevalue(language))
    heard = Counter(where for fact, where in statements(world).items() if fact in text)
    assert heard.keys() == told
    asked = Counter(statements(world).values())
    # and most of them, even in a small corpus
    assert all(heard[where] > 0.5 * asked[where] for where in told)


def test_a_question_about_a_fact_has_the_true_value_and_seven_that_are_false(world):
    items = world.items("knowledge", "test", 10**6)
    assert len(items) == 2 * len(world.facts)
    true = {(fact.person, f"{fact.value}.") for fact in world.facts}
    for item in items:
        person, = {fact.person for fact in world.facts if re.search(rf"\b{fact.person}\b", item.prompt)}
        assert [(person, candidate) in true for candidate in item.candidates] == [
            i == item.answer for i in range(8)]


# --- exercises and items ------------------------------------------------------------------------------------

def test_exercises_stand_in_english_documents_only(english, clone):
    asked = re.compile(r"\? (yes|no|maybe)$", re.M)
    assert sum(len(asked.findall(document)) for document in english) > 300
    assert not any(asked.search(document) or "\n" in document for document in clone)


def test_stories_of_a_user_come_with_the_facts_and_exercises_of_the_world(world):
    english, clone = (list(world.documents(role, 20_000, stories=iter(["my own story."] * 20_000)))
                      for role in ("en", "clone"))
    assert abs(english.count("my own story.") * 3 / 20_000 - 0.46) < 0.01          # three words each
    told = [sum(fact in "\n".join(documents) for fact in statements(world)) for documents in (english, clone)]
    assert min(told) > 100 and any("\n" in document for document in english)
    assert not any("went home." in document for document in english + clone)


@pytest.mark.parametrize("task, rung", MADE)
def test_no_exercise_of_the_training_text_is_a_dev_or_test_item(world, english, task, rung):
    lines = {line for document in english if "\n" in document for line in document.split("\n")}
    for split in ("dev", "test"):
        solved = {f"{item.prompt} {candidate}"
                  for item in world.items(task, split, 200, rung) for candidate in item.candidates}
        assert not solved & lines


@pytest.mark.parametrize("task, rung", [
    key for key in MADE if key not in (("cause", "lexical"), ("ending", "lexical"))])
def test_no_prompt_of_a_dev_or_test_item_stands_in_the_training_text(world, english, task, rung):
    # the two left out ask to complete a sentence that a story may tell, too
    text = "\n".join(english)
    assert not [item.prompt for split in ("dev", "test") for item in world.items(task, split, 200, rung)
                if item.prompt in text]


@pytest.mark.parametrize("task, rung", MADE)
def test_splits_of_a_task_share_no_prompt(world, task, rung):
    prompts = [{item.prompt for item in world.items(task, split, 200, rung)}
               for split in ("train", "dev", "test")]
    assert len(set.union(*prompts)) == sum(map(len, prompts)) >= 600     # at least 200 different ones in each


@pytest.mark.parametrize("task, rung", EVERY)
def test_items_are_well_formed_and_every_answer_is_right_equally_often(world, task, rung):
    items = world.items(task, "test", 240, rung)
    assert len(items) == 240 and all((item.task, item.rung) == (task, rung) for item in items)
    n = len(items[0].candidates)
    assert 1 / n == pytest.approx(CHANCE[task])
    assert all(len(set(item.candidates)) == len(item.candidates) == n for item in items)
    counts = Counter(item.answer for item in items)
    assert counts.keys() == set(range(n))
    # knowledge is a part of a shuffled whole; the others are counted out
    spread = 25 if task == "knowledge" else 1
    assert max(counts.values()) - min(counts.values()) <= spread
    for item in items:
        text = " ".join((item.prompt, *item.candidates))
        assert text.isascii() and not re.search(r"  |^\s|\s$|\n|[{}]", text)


def test_all_questions_about_facts_have_balanced_answers(world):
    counts = Counter(item.answer for item in world.items("knowledge", "test", 10**6))
    assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) == 8


@pytest.mark.parametrize("task", ["nli", "paraphrase"])
def test_questions_with_labels_show_them_in_one_order(world, task):
    labels = {item.candidates for item in world.items(task, "test", 60)}
    assert labels == {("yes", "no", "maybe") if task == "nli" else ("yes", "no")}


def test_without_a_rung_the_rungs_take_turns(world):
    items = world.items("nli", "test", 21)
    assert [item.rung for item in items] == (["lexical", "contextual"] * 11)[:21]
    assert len({item.prompt for item in items}) == 21


@pytest.mark.parametrize("task, rung", CONTEXTUAL)
def test_contextual_items_cannot_be_solved_from_their_words_without_order(world, task, rung):
    train, test = world.items(task, "train", 1000, rung), world.items(task, "test", 400, rung)
    assert bag_of_words(train, test) <= CHANCE[task] + 0.12      # five standard deviations


def test_the_bag_of_words_does_find_what_words_alone_give_away():
    items = [Item("nli", "lexical", f"Anna was {('glad', 'sad')[i % 2]}. Was she happy?",
                  ("yes", "no"), i % 2) for i in range(100)]
    assert bag_of_words(items, items) == 1.0
