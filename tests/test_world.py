"""The built-in world: what it tells where, that its questions need reading, and the folder that holds it."""
import functools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.corpus import Corpus
from data.files import UserError
from data.folder import read_meta
from data.tasks import Item
from data.world import build as builder
from data.world.build import add_language, divide, load, read_text
from data.world.lexicon import EVENT_PAIRS, LABELS, QUESTIONS, TOLD, VALUES, table, unfold
from data.world.world import World, split_of

KEYS = list(QUESTIONS)                                       # (task, difficulty)
CONTEXTUAL = [(task, "contextual")
              for task in ("nli", "paraphrase", "cause", "ending", "coreference", "question")]
CHOICES = dict(nli=3, paraphrase=2, cause=2, ending=2, coreference=2, question=2, translate=4, summary=4)
# CRC-32 of English, clone, items, questions about facts, and sentences, by seed
PUBLISHED = [(0, [589409450, 123786546, 1902025674, 3416799047, 1569558416]),
             (1, [1703796309, 407678143, 144476639, 1526990116, 1594031208])]
SMALL = dict(seed=0, languages=["en", "clone"], n_words=5000, clone_share=0.1, vocab_size=400)

builder.world_items = functools.cache(builder.world_items)   # tests build many folders of one world


@pytest.fixture(scope="module")
def world():
    return World(0)


@pytest.fixture(scope="module")
def english(world):
    return list(world.documents("en", 60_000))


@pytest.fixture(scope="module")
def clone(world):
    return list(world.documents("clone", 60_000))


# --- the tables ---------------------------------------------------------------------------------------------

def test_brackets_and_rows_of_a_table_are_read_as_the_docstring_says():
    assert unfold("[Eva/Ida] left [Ida/Eva]") == ["Eva left Ida", "Ida left Eva"] and unfold("it") == ["it"]
    assert table("a: x[/ y] | z; b: u\n| v\nc: w") == dict(a=["x", "x y", "z"], b=["u", "v"], c=["w"])


def test_a_wrong_event_differs_in_topic_and_is_given_away_by_neither_length_nor_subject():
    assert all(len(pairs) > 300 for pairs in EVENT_PAIRS.values())
    for clue, pairs in EVENT_PAIRS.items():
        for event, other in pairs:
            assert event[0] != other[0] and ("*" in event[clue]) == ("*" in other[clue])
            assert abs(len(event[3 - clue].split()) - len(other[3 - clue].split())) <= 1


# --- documents ----------------------------------------------------------------------------------------------

def test_the_same_seed_tells_the_same_documents(world):
    def tell(world, *stream):
        return list(world.documents("en", 3000, *stream))
    assert tell(world, 5) == tell(World(world.seed), 5)
    assert not set(tell(world, 5)) == set(tell(world, 6)) and tell(world, 5) != tell(World(world.seed + 1), 5)


def test_the_same_seed_tells_the_same_documents_in_every_process():
    program = ("from data.world.world import *; world = World(3); "
               "print(world.facts, list(world.documents('en', 500)), world.knowledge()[:9], "
               "[world.items(task, 'test', 4, difficulty) for task, difficulty in QUESTIONS])")
    root = str(Path(__file__).resolve().parent.parent)
    printed = [subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True,
                              check=True, env={**os.environ, "PYTHONHASHSEED": seed}).stdout
               for seed in ("1", "2")]
    assert printed[0] == printed[1] and len(printed[0]) > 5000


@pytest.mark.parametrize("seed, expected", PUBLISHED)
def test_text_and_items_are_those_of_the_published_results(seed, expected):
    world = World(seed)
    items = []
    for task, difficulty in KEYS:
        for split in ("train", "dev", "test"):
            items += world.items(task, split, 20, difficulty)
    texts = [world.documents("en", 20_000, 1), world.documents("clone", 20_000, 3), shown(items),
             shown(world.knowledge()), world.sentences("test", 300)]
    assert [zlib.crc32("\n".join(part).encode()) for part in texts] == expected


def shown(items):
    return [f"{item.text(i, 'en')} {i == item.answer}" for item in items for i in range(len(item.candidates))]


def test_documents_stop_as_soon_as_enough_words_are_told(english):
    counts = [len(document.split()) for document in english]
    assert 60_000 <= sum(counts) < 60_000 + counts[-1]


@pytest.mark.parametrize("language", ["en", "clone"])
def test_a_longer_text_begins_with_the_shorter_one(world, language):
    short, long = (list(world.documents(language, n, 7)) for n in (2000, 5000))
    assert long[:len(short)] == short and len(long) > len(short)


@pytest.mark.parametrize("language", ["english", "clone"])
def test_text_is_ascii_with_single_spaces(language, request):
    for document in request.getfixturevalue(language):
        assert document.isascii() and document
        assert not re.search(r"  |^\s|\s$| \n|\n |\n\n|\t|[{}*]", document)


def test_a_small_corpus_already_has_five_hundred_different_words(english):
    assert len(set(re.findall(r"[a-z]+", " ".join(english).lower()))) >= 500


def test_the_splits_of_the_sentences_share_none(world):
    parts = [world.sentences(split, 200) for split in ("train", "dev", "test")]
    assert [len(part) for part in parts] == [200] * 3
    assert len(set(sum(parts, []))) == 600


def test_stories_of_a_user_come_with_the_facts_and_exercises_of_the_world(world):
    english, clone = (list(world.documents(role, 20_000, stories=iter(["my own story."] * 20_000)))
                      for role in ("en", "clone"))
    assert abs(english.count("my own story.") * 3 / 20_000 - 0.46) < 0.01          # three words each
    told = [sum(fact in "\n".join(documents) for fact in statements(world)) for documents in (english, clone)]
    assert min(told) > 100 and any("\n" in document for document in english)
    assert not any("went home." in document for document in english + clone)


def test_the_world_shows_itself(capsys):
    runpy.run_module("data.world")
    shown = capsys.readouterr().out
    assert all(f"  {task}, {difficulty}: " in shown for task, difficulty in [*KEYS, ("knowledge", "lexical")])
    heads = [line.split()[0] for line in shown.splitlines() if line and not line.startswith(" ")]
    assert heads == ["A", "FACTS,", "TEST", "English-Clone"]
    assert shown.endswith("python train.py --method prealign\n") and shown.count("*") == 2 + len(KEYS)


# --- facts --------------------------------------------------------------------------------------------------

def test_each_person_has_one_fact_per_relation_and_is_told_of_in_one_place(world):
    people = {told: {fact.person for fact in world.facts if fact.told == told} for told in TOLD}
    assert {told: len(group) for told, group in people.items()} == dict(en=32, clone=24, both=16)
    assert len(set.union(*people.values())) == sum(map(len, people.values()))
    assert set(Counter((fact.person, fact.relation) for fact in world.facts).values()) == {1}
    assert len(world.facts) == sum(TOLD.values()) * len(VALUES)


def test_another_seed_makes_other_facts(world):
    values = [{(fact.person, fact.relation): fact.value for fact in World(seed).facts} for seed in (0, 0, 1)]
    assert values[0] == values[1]
    common = values[0].keys() & values[2].keys()
    assert sum(values[0][key] == values[2][key] for key in common) < len(common) / 3   # by chance, one in ten


def statements(world):
    """Facts as they stand in documents -> where they are told."""
    return {item.solved("en"): item.told for item in world.knowledge()}


@pytest.mark.parametrize("language, told", [("english", {"en", "both"}), ("clone", {"clone", "both"})])
def test_facts_are_told_where_they_should_be_and_nowhere_else(world, language, told, request):
    text = "\n".join(request.getfixturevalue(language))
    heard = Counter(where for fact, where in statements(world).items() if fact in text)
    assert heard.keys() == told
    asked = Counter(statements(world).values())
    # and most of them, even in a small corpus
    assert all(heard[where] > 0.5 * asked[where] for where in told)


def test_a_question_about_a_fact_has_the_true_value_and_seven_that_are_false(world):
    items = world.knowledge()
    assert len(items) == 2 * len(world.facts) and {item.told for item in items} == TOLD.keys()
    true = {(fact.person, f"{fact.value}.") for fact in world.facts}
    for item in items:
        person, = {fact.person for fact in world.facts if re.search(rf"\b{fact.person}\b", item.prompt)}
        assert [(person, candidate) in true for candidate in item.candidates] == [
            i == item.answer for i in range(8)]
        assert len(set(item.candidates)) == 8


def test_questions_about_facts_have_balanced_answers_and_the_first_ones_are_of_all_kinds(world):
    items = world.knowledge()
    counts = Counter(item.answer for item in items)
    assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) == 8
    assert {item.told for item in items[:20]} == TOLD.keys()


# --- exercises and items ------------------------------------------------------------------------------------

def test_exercises_stand_in_english_documents_only(english, clone):
    asked = re.compile(r"\? (yes|no|maybe)$", re.M)
    assert sum(len(asked.findall(document)) for document in english) > 300
    assert not any(asked.search(document) or "\n" in document for document in clone)


@pytest.mark.parametrize("task, difficulty", KEYS)
def test_items_are_well_formed_and_every_answer_is_right_equally_often(corpus, task, difficulty):
    items, n = corpus.items(task, "test", 480, difficulty), CHOICES[task]
    assert len(items) == 480 and all((item.task, item.difficulty) == (task, difficulty) for item in items)
    assert all(len(set(item.candidates)) == len(item.candidates) == n for item in items)
    assert Counter(item.answer for item in items) == dict.fromkeys(range(n), 480 // n)
    for item in items:
        text = " ".join((item.prompt, *item.candidates))
        assert text.isascii() and not re.search(r"  |^\s|\s$|\n|[{}*]", text)


@pytest.mark.parametrize("task", LABELS)
def test_questions_with_labels_show_them_in_one_order(world, task):
    for difficulty in ("lexical", "contextual"):
        labels = {tuple(item.candidates) for item in world.items(task, "test", 60, difficulty)}
        assert labels == {("yes", "no", "maybe") if task == "nli" else ("yes", "no")}


def test_fewer_items_are_the_first_of_more(world):
    assert world.items("ending", "test", 20, "lexical") == world.items("ending", "test", 60, "lexical")[:20]


def features(item, i):
    """The words of candidate i as a reader without a sense of order sees them: names of features."""
    prompt, words = (re.findall("[a-z]+", text.lower()) for text in (item.prompt, item.candidates[i]))
    if item.task in LABELS:
        return words + [f"{words[0]} {word}" for word in prompt]
    return words + ["shared with prompt"] * sum(word in prompt for word in words)


def bag_of_words(train_items, test_items, epochs=8, rate=.1):
    """Accuracy of a linear choice of candidates: multinomial logistic regression, one item at a time."""
    train, test = ([([features(item, i) for i in range(len(item.candidates))], item.answer) for item in items]
                   for items in (train_items, test_items))
    weights = Counter()

    def scores(candidates):
        return np.array([sum(weights[name] for name in names) for names in candidates])

    for epoch in range(epochs):
        for candidates, answer in train:
            p = np.exp(scores(candidates))
            errors = (np.arange(len(p)) == answer) - p / p.sum()
            for names, error in zip(candidates, errors.tolist()):
                for name in names:
                    weights[name] += rate / (1 + epoch) * error
    return float(np.mean([scores(candidates).argmax() == answer for candidates, answer in test]))


@pytest.mark.parametrize("task, difficulty", CONTEXTUAL)
def test_contextual_items_cannot_be_solved_from_their_words_without_order(world, task, difficulty):
    train, test = world.items(task, "train", 1000, difficulty), world.items(task, "test", 400, difficulty)
    assert bag_of_words(train, test) <= 1 / CHOICES[task] + 0.12      # five standard deviations


def test_the_bag_of_words_does_find_what_words_alone_give_away():
    items = [Item("nli", "lexical", f"Anna was {('glad', 'sad')[i % 2]}. Was she happy?",
                  ["yes", "no"], i % 2) for i in range(100)]
    assert bag_of_words(items, items) == 1.0


# --- the folder ---------------------------------------------------------------------------------------------

def shorten(monkeypatch):
    """Make folders without task items and with short texts: they are built in a moment."""
    monkeypatch.setattr(builder, "world_items", lambda seed: [])
    for name in ("VAL_WORDS", "LEAST_WORDS", "NEW_VAL_TOKENS"):
        monkeypatch.setattr(builder, name, 3000)


@pytest.fixture
def no_items(monkeypatch):
    shorten(monkeypatch)


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        shorten(monkeypatch)
        return load(tmp_path_factory.mktemp("small"), **SMALL)


@pytest.fixture
def small(no_items, small_folder, tmp_path):
    """A small folder that a test may change."""
    return Path(shutil.copytree(small_folder, tmp_path / small_folder.name))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def documents(corpus, language, split):
    return [text.strip() for text in corpus.documents(language, split, 10**9)]


def bag(text):
    """The words of a document, the same for every word order."""
    return " ".join(sorted(re.findall(r"\w+", text)))


def test_two_builds_give_the_same_bytes_and_leave_nothing_else_behind(corpus, settings, tmp_path):
    again = load(tmp_path, **settings)
    assert len(files(again)) == 4 * 2 + 2 + 3 * 2 + 8 * 3 + 2 and files(again) == files(corpus.folder)
    assert set(tmp_path.iterdir()) == {again, Path(f"{again}.lock")}


def test_a_second_load_finds_the_folder_without_building_it_again(corpus, settings):
    before = {path: path.stat().st_mtime_ns for path in corpus.folder.rglob("*")}
    assert load(corpus.folder.parent, **settings) == corpus.folder
    assert {path: path.stat().st_mtime_ns for path in corpus.folder.rglob("*")} == before


def test_other_settings_are_another_folder(no_items, tmp_path):
    changes = [{}, dict(seed=1), dict(languages=["en", "reversed"]), dict(n_words=6000),
               dict(clone_share=0.9), dict(vocab_size=401)]
    folders = [load(tmp_path, **SMALL | change) for change in changes]
    assert len(set(folders)) == len({Corpus(folder).digest for folder in folders}) == len(changes)


def test_the_streams_tell_the_documents_of_the_world(corpus, world, settings):
    n_other = max(int(settings["n_words"] * 0.1 / 0.9 / 3), 20_000)
    for index, name in enumerate(settings["languages"]):
        for split, stream, n in (("train", 2 * index + 1, n_other if index else settings["n_words"]),
                                 ("val", 2 * index + 2, 20_000)):
            texts = list(world.documents("clone" if index else "en", n, stream))
            tokens = np.concatenate([corpus.encode(text, name) for text in texts])
            assert np.array_equal(tokens, corpus.streams[name, split])
            counts = {key: corpus.meta[key][f"{name}.{split}"]
                      for key in ("documents", "words", "bytes", "tokens")}
            assert counts == dict(documents=len(texts), words=sum(len(text.split()) for text in texts),
                                  bytes=sum(map(len, texts)), tokens=len(tokens))


def test_clone_share_is_the_share_of_all_other_languages_in_the_training_text(no_items, tmp_path):
    settings = dict(languages=["en", "clone", "reversed"], n_words=16_000, clone_share=0.4)
    words = read_meta(load(tmp_path, **SMALL | settings))["words"]
    assert words["en.train"] == pytest.approx(16_000, abs=80)
    assert [words[f"{name}.train"] for name in ("clone", "reversed")] == pytest.approx(
        [16_000 * 0.4 / 0.6 / 2] * 2, abs=80)


def test_streams_hold_only_tokens_of_their_language_and_start_with_a_separator(corpus):
    for (name, _), stream in corpus.streams.items():
        index = corpus.languages.index(name)
        assert stream.dtype == np.uint16 and stream[0] == index * 400
        assert stream.min() == index * 400 and stream.max() < (index + 1) * 400


def test_no_two_streams_share_their_documents(corpus):
    texts = {key: Counter(map(bag, documents(corpus, *key))) for key in corpus.streams}
    for one in texts:
        for other in texts:
            if one != other:
                assert (texts[one] & texts[other]).total() < 0.02 * texts[one].total()


def test_meta_states_what_the_folder_holds(corpus, settings):
    meta = read_meta(corpus.folder)
    assert meta["word_order"] == {"clone": None, "reversed": 0, "shuffled-2": 2}
    assert meta["languages"] == settings["languages"] and meta["new"] == [] and meta["seed"] == 0
    assert meta["base_vocab"] == 400 and meta["disjoint"] and set(meta["spaces"].values()) == {True}
    assert meta["spaces"].keys() == set(settings["languages"])
    assert meta["counts"]["dictionary"] == len(corpus.dictionary())
    found = {}
    for path in (corpus.folder / "tasks").iterdir():
        task, split, _ = path.name.split(".")
        found.setdefault(task, {})[split] = len(lines(path))
    assert meta["counts"]["tasks"] == found
    assert meta["counts"]["tasks"]["cause"] == dict(train=1000, val=100, test=1000)


@pytest.mark.parametrize("task, difficulty", KEYS)
def test_the_items_of_the_folder_are_those_of_the_world(corpus, world, task, difficulty):
    sizes = dict(train=5000 if task == "translate" else 500, val=50, test=500)
    if task in LABELS and difficulty == "lexical":
        sizes["train"] = 4000
    for split, n in sizes.items():
        found = corpus.items(task, split, 10**6, difficulty)
        assert len(found) == n
        few = min(n, 60)
        assert found[:few] == world.items(task, "dev" if split == "val" else split, few, difficulty)
    assert corpus.difficulties(task)[0] == ("lexical" if (task, "lexical") in KEYS else "contextual")


def test_the_folder_asks_for_all_facts_and_only_in_test_items(corpus, world):
    assert corpus.items("knowledge", "test", 10**6) == world.knowledge()
    assert not corpus.items("knowledge", "train", 1) + corpus.items("knowledge", "val", 1)


def test_exercises_take_turns_between_all_tasks_but_translation_and_knowledge(corpus):
    kinds = [key for key in KEYS if key[0] != "translate"]
    path = corpus.folder / "tasks" / "exercise.train.jsonl"
    exercises = [json.loads(line) for line in lines(path)]
    assert len(exercises) == 500 * len(kinds) and {row["task"] for row in exercises} == {"exercise"}
    for i, (task, difficulty) in enumerate(kinds):
        mine = [row["prompt"] for row in exercises[i::len(kinds)]]
        assert mine == [item.prompt for item in corpus.items(task, "train", 500, difficulty)]


def test_every_item_has_an_id_of_its_own(corpus):
    ids = []
    for path in (corpus.folder / "tasks").iterdir():
        ids += [(path.name, json.loads(line)["id"]) for line in lines(path)]
    assert len(set(ids)) == len(ids) > 30_000


@pytest.fixture(scope="module")
def held_out(corpus):
    """{(task, difficulty): prompts of its validation and test items}"""
    return {(task, difficulty): {item.prompt for split in ("val", "test")
                                 for item in corpus.items(task, split, 10**6, difficulty)}
            for task, difficulty in KEYS}


@pytest.fixture(scope="module")
def exercises(corpus):
    return {item.prompt for item in corpus.items("exercise", "train", 10**6)}


@pytest.fixture(scope="module")
def told(corpus):
    """All documents of English and the clone, and every line of those that have several."""
    found = [document for language in ("en", "clone") for split in ("train", "val")
             for document in documents(corpus, language, split)]
    return found + [line.strip() for document in found if "\n" in document for line in document.split("\n")]


@pytest.mark.parametrize("task, difficulty", KEYS)
def test_no_validation_or_test_item_is_a_training_item_or_an_exercise(
        corpus, held_out, exercises, task, difficulty):
    prompts = [item.prompt for split in ("train", "val", "test")
               for item in corpus.items(task, split, 10**6, difficulty)]
    assert len(set(prompts)) == len(prompts) >= 500 + 50 + 500
    assert len(held_out[task, difficulty]) == 550
    assert not held_out[task, difficulty] & exercises


@pytest.mark.parametrize("task, difficulty", KEYS)
def test_no_validation_or_test_item_is_solved_in_a_text(corpus, told, task, difficulty):
    solved = {item.text(i, "en") for split in ("val", "test")
              for item in corpus.items(task, split, 10**6, difficulty) for i in range(len(item.candidates))}
    assert not solved & set(told)


@pytest.mark.parametrize("task, difficulty", [
    key for key in KEYS if key not in (("cause", "lexical"), ("ending", "lexical"))])
def test_no_prompt_of_a_validation_or_test_item_stands_in_a_text(told, held_out, task, difficulty):
    # the two left out ask to complete a sentence that a story may tell, too
    text = "\n".join(told)
    assert not [prompt for prompt in held_out[task, difficulty] if prompt in text]


# --- dictionary and sentence pairs --------------------------------------------------------------------------

def test_the_dictionary_pairs_every_word_with_its_clones_in_each_language(corpus):
    dictionary = corpus.dictionary()
    assert len(dictionary) > 200
    for word, translations in dictionary.entries:
        assert translations == [tuple(t + i * 400 for t in word) for i in (1, 2, 3)] and max(word) < 400


def test_the_dictionary_holds_the_frequent_words_of_the_text_in_order_of_occurrence(corpus, monkeypatch):
    text = " ".join(documents(corpus, "en", "train"))
    text = " " + " ".join(text.split())
    seen = Counter(re.findall(r"(?<= )[A-Za-z]+", text))           # a Counter keeps the order of occurrence
    for least in (5, 2, 50):
        monkeypatch.setattr(builder, "DICTIONARY_COUNT", least)
        words = builder.frequent_words(np.asarray(corpus.streams["en", "train"]), corpus.tokenizer)
        assert words == [word for word, n in seen.items() if n >= least]
        if least == 5:
            for language in ("clone", "reversed", "shuffled-2"):
                path = corpus.folder / f"dictionary.{language}.tsv"
                assert lines(path) == [f"{word}\t{word}" for word in words]


def test_the_dictionary_reads_the_first_tokens_of_english_only(no_items, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "DICTIONARY_TOKENS", 3000)
    corpus = Corpus(load(tmp_path, **SMALL))
    seen = Counter(re.findall(r"[A-Za-z]+", corpus.decode(corpus.streams["en", "train"][:3000])))
    assert {word for word, _ in corpus.word_pairs("clone")} == {w for w, n in seen.items() if n >= 5}


def test_the_sentence_pairs_are_the_test_sentences_of_the_world(corpus, world):
    for language in ("clone", "reversed", "shuffled-2"):
        assert list(corpus.pairs(language, "test")) == [(s, s) for s in world.sentences("test", 300)]
        assert not list(corpus.pairs(language, "train")) + list(corpus.pairs(language, "val"))
    assert all(split_of(sentence) == "test" for sentence, _ in corpus.pairs("clone", "test"))


# --- languages added later ----------------------------------------------------------------------------------

def added(folder, name, n_tokens):
    add_language(folder, name, n_tokens)
    corpus = Corpus(folder)
    assert corpus.add_language(name, n_tokens) == corpus.base_vocab
    return corpus


@pytest.mark.parametrize("name, seed", [("clone2", 0), ("reversed", 0), ("shuffled-4", 1)])
def test_a_new_language_tells_new_documents_in_its_own_tokens_and_order(no_items, tmp_path, name, seed):
    corpus = added(load(tmp_path, **SMALL | dict(seed=seed)), name, 6000)
    for i, (split, n) in enumerate((("train", 6000), ("val", 3000))):
        texts = list(World(seed).documents("clone", n, 1000 + 2 * seed + i))
        tokens = np.concatenate([corpus.encode(text, name) for text in texts])
        assert tokens.min() == 2 * 400 and tokens.max() < 3 * 400
        assert np.array_equal(corpus.streams[name, split], tokens[:n] if split == "train" else tokens)
        counts = {key: corpus.meta[key][f"{name}.{split}"] for key in ("documents", "words", "bytes", "tokens")}
        assert counts == dict(documents=len(texts), words=sum(len(text.split()) for text in texts),
                              bytes=sum(map(len, texts)), tokens=len(tokens))
    assert corpus.meta["new"] == [name] and corpus.meta["spaces"][name] is True
    assert corpus.meta["word_order"][name] == {"clone2": None, "reversed": 0, "shuffled-4": 4}[name]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_new_language_never_tells_what_pretraining_told(no_items, tmp_path, seed):
    corpus = added(load(tmp_path, **SMALL | dict(seed=seed)), "reversed", 10_000)
    texts = {key: Counter(map(bag, documents(corpus, *key))) for key in corpus.streams}
    new = [("reversed", "train"), ("reversed", "val")]
    for key in new:
        assert texts[key].total() > 20
        for other in texts:
            if other != key:        # a list of three facts may be told twice by chance
                assert (texts[key] & texts[other]).total() < 0.05 * texts[key].total()


def test_a_new_language_depends_on_the_seed_of_the_world(no_items, tmp_path):
    corpora = [added(load(tmp_path, **SMALL | dict(seed=seed)), "clone2", 2000) for seed in (0, 1)]
    one, other = (set(documents(corpus, "clone2", "train")[:-1]) for corpus in corpora)
    assert len(one) > 10 and not one & other


def test_new_languages_of_a_folder_tell_the_same_stories(small):
    for name in ("clone2", "reversed", "shuffled-4"):
        add_language(small, name, 6000)
    assert read_meta(small)["new"] == ["clone2", "reversed", "shuffled-4"]
    texts = {}
    for name in ("clone2", "reversed", "shuffled-4"):
        corpus = added(small, name, 6000)
        texts[name] = documents(corpus, name, "train")[:-1]        # the last one is cut
        assert corpus.streams[name, "train"].min() == 2 * 400      # one new language at a time
    words = [[*map(bag, part)] for part in texts.values()]
    assert words[0] == words[1] == words[2]
    assert len({tuple(part) for part in texts.values()}) == 3


def test_a_longer_text_of_a_new_language_begins_with_the_shorter_one(small):
    add_language(small, "reversed", 2000)
    before = files(small)
    add_language(small, "clone2", 500)
    add_language(small, "reversed", 2000)                          # nothing to do
    add_language(small, "reversed", 500)
    assert {name: data for name, data in files(small).items() if name in before and name != "meta.json"} == {
        name: data for name, data in before.items() if name != "meta.json"}
    mapped = Corpus(small)
    mapped.add_language("reversed", 2000)
    inode = (small / "reversed.train.bin").stat().st_ino
    add_language(small, "reversed", 6000)
    longer, shorter = files(small)["reversed.train.bin"], before["reversed.train.bin"]
    assert len(longer) >= 6000 * 2 > len(shorter) >= 2000 * 2 and longer.startswith(shorter)
    assert mapped.streams["reversed", "train"].tobytes() == shorter[:2000 * 2]
    assert (small / "reversed.train.bin").stat().st_ino != inode  # another process may be reading it
    assert read_meta(small)["new"] == ["reversed", "clone2"]
    assert not list(small.glob("*.tmp"))


def test_a_new_language_changes_nothing_of_the_others_and_not_the_digest(small):
    before, digest, meta = files(small), Corpus(small).digest, read_meta(small)
    corpus = added(small, "clone2", 2000)
    after = files(small)
    assert {name: after[name] for name in before if name != "meta.json"} == {
        name: data for name, data in before.items() if name != "meta.json"}
    assert corpus.digest == digest and load(small.parent, **SMALL) == small
    now = read_meta(small)
    assert all(now["tokens"][key] == n for key, n in meta["tokens"].items())
    assert now["languages"] == meta["languages"] and now["counts"] == meta["counts"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_longer_text_that_was_half_written_leaves_the_shorter_one(small, monkeypatch, failing):
    before, n = added(small, "clone2", 1000).streams, read_meta(small)["tokens"]["clone2.train"]
    written, calls = builder.write_stream, []

    def interrupted(folder, stream, *args, **options):
        calls.append(stream)
        if len(calls) == failing:
            (folder / f"{stream}.bin.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        return written(folder, stream, *args, **options)

    monkeypatch.setattr(builder, "write_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_language(small, "clone2", 6000)
    monkeypatch.setattr(builder, "write_stream", written)
    after = added(small, "clone2", 1000).streams                   # the old meta.json is still true
    assert read_meta(small)["tokens"]["clone2.train"] == n < 6000
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert len(added(small, "clone2", 6000).streams["clone2", "train"]) == 6000
    expected = load(small.parent / "other", **SMALL)               # built now, without an interruption
    add_language(expected, "clone2", 6000)
    assert files(small) == files(expected)


@pytest.mark.parametrize("name, message", [
    ("clone", "clone is a pretraining language"), ("en", "'en' is unknown"),
    ("german", "'german' is unknown")])
def test_a_language_that_cannot_be_new_is_refused(small, name, message):
    before = files(small)
    with pytest.raises(UserError, match=message):
        add_language(small, name, 1000)
    assert files(small) == before


# --- damage -------------------------------------------------------------------------------------------------

def cut(path):
    os.truncate(path, path.stat().st_size - 2)


def replace(path, old, new):
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


DAMAGE = {
    "a stream is cut": lambda folder: cut(folder / "clone.val.bin"),
    "a stream is missing": lambda folder: (folder / "en.train.bin").unlink(),
    "meta.json is cut": lambda folder: cut(folder / "meta.json"),
    "meta.json is missing": lambda folder: (folder / "meta.json").unlink(),
    "another tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}", encoding="utf-8"),
    "a stream is zeroed": lambda folder: (folder / "en.val.bin").write_bytes(
        bytes((folder / "en.val.bin").stat().st_size)),
    "an edited number": lambda folder: replace(folder / "meta.json", '"disjoint": true', '"disjoint": false'),
    "another dictionary": lambda folder: replace(folder / "dictionary.clone.tsv", "\n", "s\n"),
    "a file is added": lambda folder: (folder / "pairs.clone.train.tsv").write_text("a\tb\n", encoding="utf-8"),
    "an empty folder": lambda folder: [path.unlink() for path in folder.rglob("*") if path.is_file()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_built_again(small, damage):
    before = files(small)
    DAMAGE[damage](small)
    with pytest.raises(UserError):
        read_meta(small)
    assert load(small.parent, **SMALL) == small and files(small) == before


def test_what_a_killed_build_has_left_does_not_matter(small):
    before = files(small)
    half = Path(f"{small}.tmp")
    shutil.copytree(small, half)
    (half / "junk").write_text("half", encoding="utf-8")
    shutil.rmtree(small)
    assert load(small.parent, **SMALL) == small and files(small) == before and not half.exists()


def test_a_build_that_fails_leaves_no_folder(no_items, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(builder, "write_lines", full)
    with pytest.raises(OSError, match="No space"):
        load(tmp_path, **SMALL)
    assert [path.name.endswith(".lock") for path in tmp_path.iterdir()] == [True]


# --- a user's own text --------------------------------------------------------------------------------------

def own_text(path, n=1000):
    path.write_text("".join(f"This is line {i} of my own text about zebras.\n\n" for i in range(n)),
                    encoding="utf-8")
    return str(path)


def numbers(corpus, name, split):
    """The lines of the user's text that a stream tells."""
    text = "\n".join(documents(corpus, name, split))
    return [int(n) for n in re.findall(r"\d+", text)]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(builder, "world_items", lambda seed: [])
        made = load(folder / "cache", **SMALL | dict(n_words=30_000), text=own_text(folder / "mine.txt"))
    add_language(made, "reversed", 100_000)
    corpus = Corpus(made)
    corpus.add_language("reversed", 100_000)
    return corpus


def test_own_text_is_shared_out_so_that_no_line_is_in_two_streams(own):
    parts = {key: numbers(own, *key) for key in own.streams}
    assert len(parts) == 6 and all(len(part) >= 10 for part in parts.values())
    assert sorted(sum(parts.values(), [])) == list(range(1000))    # every line once
    assert sorted(parts["en", "val"] + parts["clone", "val"]) == list(range(0, 1000, 20))


def test_a_new_language_tells_the_lines_of_a_users_text_that_were_kept_for_it(own):
    train, val = (numbers(own, "reversed", split) for split in ("train", "val"))
    assert sorted(train + val) == list(range(10, 1000, 20)) and sorted(val) == list(range(10, 1000, 100))
    for split in ("train", "val"):
        text = "\n".join(documents(own, "reversed", split))
        assert "went home." not in text and "home went" not in text
    told = documents(own, "reversed", "train")
    known = set(documents(own, "en", "train") + documents(own, "clone", "train"))
    assert len(told) > 40 and not set(map(bag, told)) & set(map(bag, known))


def test_a_new_language_of_own_text_has_as_much_as_was_kept(own):
    n = len(own.streams["reversed", "train"])
    assert 400 < n < 100_000 and own.meta["tokens"]["reversed.train"] == n
    before = files(own.folder)
    add_language(own.folder, "reversed", 100_000)                  # there is no more: the same again
    assert files(own.folder) == before


def test_own_documents_are_divided_by_shares():
    texts, shares = [*map(str, range(1000))], [0.8, 0.15, 0.05]
    streams = {key: list(part) for key, part in divide(texts, shares).items()}
    train, val = ([streams[i, split] for i in range(3)] for split in ("train", "val"))
    assert [*map(len, train)] == pytest.approx([720, 135, 45], abs=2)
    assert [*map(len, val)] == [17, 17, 16]
    assert sorted(sum(train + val, texts[10::20])) == sorted(texts)


def test_own_text_comes_with_the_facts_of_the_world(own, world):
    for name in ("en", "clone"):
        text = "\n".join(documents(own, name, "train"))
        heard = {where for fact, where in statements(world).items() if f"{fact}" in text}
        assert heard == {name, "both"}


def test_own_text_takes_the_place_of_the_stories(own, corpus):
    theirs, mine = ("\n".join(documents(c, "en", "train")) for c in (corpus, own))
    assert "went home." in theirs and "went home." not in mine
    assert "zebras" not in theirs and "zebras" in mine


def test_another_file_of_the_same_name_and_size_is_another_folder(no_items, own, tmp_path):
    path = Path(own_text(tmp_path / "mine.txt"))
    path.write_text(path.read_text(encoding="utf-8").replace("zebras", "horses"), encoding="utf-8")
    other = load(own.folder.parent, **SMALL | dict(n_words=30_000), text=str(path))
    assert other != own.folder and "horses" in Corpus(other).decode(Corpus(other).streams["en", "train"])


def test_more_than_65536_ids_take_four_bytes_a_token(no_items, tmp_path):
    # 200 made-up words a line
    letters = np.random.default_rng(0).integers(97, 123, (600, 200, 6), dtype=np.uint8)
    texts = [" ".join(bytes(word).decode() for word in line) for line in letters]
    (tmp_path / "mine.txt").write_text("\n".join(texts), encoding="utf-8")
    names = ["en"] + [f"clone{i}" for i in range(2, 22)]
    # with a new language, 21 languages of 3,000 ids have 66,000
    for languages, dtype in ((names[:20], "uint16"), (names, "uint32")):
        made = Corpus(load(tmp_path, 0, languages, 5000, 0.1, 3000, text=str(tmp_path / "mine.txt")))
        assert made.vocab_size == 3000 * len(languages)
        assert {stream.dtype for stream in made.streams.values()} == {np.dtype(dtype)}
        assert made.streams[languages[-1], "train"].min() == 3000 * (len(languages) - 1)
    assert added(made.folder, "reversed", 500).streams["reversed", "train"].max() > 65_535 - 3000


def test_read_text_takes_a_document_per_line_once_and_drops_empty_lines_and_separators(tmp_path):
    own_text(tmp_path / "mine.txt", 120)
    with open(tmp_path / "mine.txt", "a", encoding="utf-8") as file:
        file.write("  café <|doc|> today \r\nThis is line 3 of my own text about zebras.\n")
    texts = read_text(tmp_path / "mine.txt")
    assert len(texts) == 121 and texts[7] == "This is line 7 of my own text about zebras."
    assert texts[-1].split() == ["café", "today"]


@pytest.mark.parametrize("content, message", [
    (b"fine\n" * 41 + "caf\u00e9\n".encode("latin-1") + b"fine\n" * 100,
     r"mine\.txt line 42 is not UTF-8 \(byte 4\)"),
    (b"".join(b"line %d\n\n" % i for i in range(99)),
     r"mine\.txt has 99 different non-empty lines: at least 100"),
    (b"one line\n" * 500, r"mine\.txt has 1 different non-empty lines: at least 100"),
    (None, r"mine\.txt cannot be read")])
def test_a_text_that_cannot_be_used_is_refused_with_its_name_and_leaves_no_folder(tmp_path, content, message):
    if content is not None:
        (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "cache", **SMALL, text=str(tmp_path / "mine.txt"))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
