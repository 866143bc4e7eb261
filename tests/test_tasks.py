"""Multiple choice and the samples of AFP, with handmade scores."""
from types import SimpleNamespace

import numpy as np
import pytest

from align import instruction_rows
from data import tasks
from data.tasks import Item, candidate_rows, question_and_answer, score
from model import IGNORE

LANGUAGES = ["en", "clone", "reversed", "shuffled-2"]
TASKS = [("nli", "lexical"), ("ending", "lexical"), ("cause", "contextual"), ("question", "contextual"),
         ("summary", "contextual")]


@pytest.fixture(scope="module")
def items(world):
    return [item for task, difficulty in TASKS for item in world.items(task, "test", 20, difficulty)]


# --- multiple choice ----------------------------------------------------------------------------------------

def test_the_text_of_an_item_is_its_prompt_and_a_candidate():
    item = Item("nli", "lexical", "It was wet?", ("yes", "no"), 0)
    assert (item.text(1, "en"), item.solved("en")) == ("It was wet? no", "It was wet? yes")


@pytest.mark.parametrize("space", [" ", ""])
def test_a_candidate_is_joined_to_its_prompt_as_the_language_joins_words(space):
    texts = []
    corpus = SimpleNamespace(space=dict(xx=space),
                             encode=lambda text, language: (texts.append(text), np.arange(len(text)))[1])
    item = Item("nli", "lexical", "Wet?", ("yes", "no"), 0)
    candidate_rows(corpus, item, "xx", [item])
    assert texts == [f"Wet?{space}yes\nWet?{space}{word}" for word in ("yes", "no")]


def test_demonstrations_stand_before_the_item_one_per_line(corpus):
    item = Item("nli", "lexical", "It was wet?", ("yes", "no"), 0)
    solved = Item("nli", "lexical", "It was dry?", ("yes", "no"), 1)
    rows, _ = candidate_rows(corpus, item, "en", (solved, item))
    assert np.array_equal(rows[1], corpus.encode("It was dry? no\nIt was wet? yes\nIt was wet? no"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_not_scored_is_all_that_the_candidates_share_at_the_start_and_nothing_else(
        corpus, items, language):
    for item in items:
        rows, start = candidate_rows(corpus, item, language)
        assert len(rows) == len(item.candidates) and start >= 1
        assert len({tuple(row[:start]) for row in rows}) == 1
        assert len({row[start] for row in rows}) > 1


def test_a_candidate_that_begins_another_one_still_has_a_token_to_score(corpus):
    rows, start = candidate_rows(corpus, Item("ending", "lexical", "Anna had the", ("ball", "ball ball"), 0), "en")
    assert start == len(rows[0]) - 1 and len({tuple(row[:start]) for row in rows}) == 1


def preferring(corpus, items, liked, language="en", k=0, dev_items=()):
    """A log_probs that gives every token -1, and -0.01 in the text of candidate liked[i] of item i."""
    texts = []
    for i, (item, candidate) in enumerate(zip(items, liked)):
        solved = [d.solved(language) for d in tasks.demonstrations(dev_items, k, i, seed=0)]
        texts.append("\n".join([*solved, item.text(candidate, language)]))
    rows = {tuple(corpus.encode(text, language)) for text in texts}

    def log_probs(tokens, wanted):
        known = np.array([tuple(np.trim_zeros(row, "b")) in rows for row in tokens])
        return np.where(known, -0.01, -1.0)[:, None] * np.ones((1, tokens.shape[1] - 1))
    return log_probs


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("right_on, expected", [(1, 1.0), (4, 0.25), (1000, 0.0)])
def test_accuracy_is_the_share_of_items_whose_right_candidate_is_preferred(
        corpus, world, language, right_on, expected):
    items = world.items("question", "test", 40, "contextual")
    liked = [item.answer if i % right_on == right_on - 1 else 1 - item.answer for i, item in enumerate(items)]
    found = score(corpus, items, language, preferring(corpus, items, liked, language), batch_size=7)
    assert found == dict(accuracy=expected, per_token=expected, n=40)


def test_accuracy_with_demonstrations_scores_the_last_item_of_the_text(corpus, world):
    items, shots = (world.items("nli", "test", 20, "lexical"),
                    dict(k=2, dev_items=world.items("nli", "dev", 20, "lexical")))
    for change, expected in ((0, 1.0), (1, 0.0)):
        liked = [(item.answer + change) % 3 for item in items]
        assert score(corpus, items, "en", preferring(corpus, items, liked, **shots),
                        **shots)["accuracy"] == expected


def test_an_answer_may_be_written_in_another_language_than_its_prompt(corpus, world):
    for item in world.items("nli", "test", 6, "lexical"):
        rows, start = candidate_rows(corpus, item, "reversed", answer_language="en")
        prompt = corpus.encode(item.prompt, "reversed")
        for row, candidate in zip(rows, item.candidates):
            assert np.array_equal(row[:len(prompt)], prompt)
            assert np.array_equal(row[len(prompt):], corpus.encode(candidate, separator=False))
        assert start == len(prompt)


def test_the_plain_sum_prefers_short_candidates_and_the_mean_per_token_may_not(corpus):
    # token n has log-probability -1/n: every further token lowers the sum and raises the mean
    log_probs = lambda tokens, wanted: np.tile(-1 / np.arange(1, tokens.shape[1]), (len(tokens), 1))   # noqa: E731
    item = Item("ending", "lexical", "Anna was in the", ("garden with the big red ball.", "park."), 0)
    short_right = Item("ending", "lexical", "Anna was in the", item.candidates, 1)
    assert score(corpus, [item, item, short_right], "en", log_probs) == dict(
        accuracy=pytest.approx(1 / 3), per_token=pytest.approx(2 / 3), n=3)


def test_demonstrations_come_from_the_given_items_without_repeats_and_by_seed(world):
    dev = world.items("nli", "dev", 30, "lexical")
    drawn = [tasks.demonstrations(dev, 5, index, seed=0) for index in range(10)]
    assert all(len(set(map(str, five))) == 5 and set(map(str, five)) <= set(map(str, dev)) for five in drawn)
    assert drawn == [tasks.demonstrations(dev, 5, index, seed=0) for index in range(10)]
    assert len({str(five) for five in drawn}) == 10                         # every item gets its own
    assert drawn[0] != tasks.demonstrations(dev, 5, 0, seed=1)


def test_training_rows_have_loss_on_the_answer_and_nowhere_else(corpus, world):
    items = world.items("nli", "train", 20, "lexical")
    inputs, targets = instruction_rows(*question_and_answer(corpus, items, "en"), 200)
    assert inputs.shape == targets.shape
    for item, line, target in zip(items, inputs, targets):
        row = corpus.encode(item.solved("en"))
        assert np.array_equal(line[:len(row)], row[:inputs.shape[1]]) and not line[len(row):].any()
        assert corpus.decode(target[target != IGNORE]) == item.candidates[item.answer]
        places = np.flatnonzero(target != IGNORE)
        # shifted by one, to the end
        assert np.array_equal(target[places], row[places + 1]) and places[-1] == len(row) - 2


def test_a_text_beyond_the_limit_loses_its_start_and_all_candidates_lose_the_same(corpus):
    item = Item("ending", "lexical", "Anna was in the garden with the big red ball and", ("Tom.", "a dog."), 0)
    whole, start = candidate_rows(corpus, item, "en")
    longest = max(map(len, whole))
    rows, cut_start, cut = tasks.fit_rows(whole, start, longest - 3)
    assert all(np.array_equal(row, full[3:]) for row, full in zip(rows, whole))
    assert (cut_start, cut) == (start - 3, True)
    exact, same_start, cut = tasks.fit_rows(whole, start, longest)
    assert all(map(np.array_equal, exact, whole)) and (same_start, cut) == (start, False)
    none, same_start, cut = tasks.fit_rows(whole, start, None)
    assert all(map(np.array_equal, none, whole)) and (same_start, cut) == (start, False)


def test_prompts_that_lose_demonstrations_are_counted_and_a_prompt_of_exactly_the_limit_is_not(corpus, world):
    items, dev = (world.items("nli", split, n, "lexical") for split, n in (("test", 1), ("dev", 5)))
    solved = tasks.demonstrations(dev, 2, 0, seed=0)
    longest = max(map(len, candidate_rows(corpus, items[0], "en", solved)[0]))
    def uniform(tokens, wanted):
        return np.zeros((len(tokens), tokens.shape[1] - 1))
    options = dict(k=2, dev_items=dev, seed=0)
    assert "cut" not in score(corpus, items, "en", uniform, limit=longest, **options)
    assert score(corpus, items, "en", uniform, limit=longest - 1, **options)["cut"] == 1


def test_an_instruction_stands_between_question_and_answer(corpus):
    item = Item("nli", "lexical", "It was wet?", ("yes", "no"), 0)
    for language, phrase_in in (("clone", "en"), ("clone", "clone")):
        rows, start = candidate_rows(corpus, item, language, instruction=phrase_in)
        parts = [corpus.encode("", language), corpus.encode("It was wet?", language, separator=False),
                 corpus.encode(f"Answer in {language}:", phrase_in, separator=False)]
        expected = np.concatenate(parts)
        assert np.array_equal(rows[0][:start], expected)
        assert np.array_equal(rows[1][start:], corpus.encode("no", language, separator=False))


def test_shorter_rows_are_padded_on_the_right():
    tokens, mask = tasks.pad([np.array([1, 2, 3]), np.array([4])])
    assert tokens.tolist() == [[1, 2, 3], [4, 0, 0]] and tokens.dtype == np.int64
    assert mask.tolist() == [[True] * 3, [True, False, False]]




# --- the samples of AFP -------------------------------------------------------------------------------------

def test_examples_are_asked_in_one_language_and_answered_in_another(corpus):
    item = Item("question", "lexical", "What is a robin?", ("a bird.", "a fish."), 0)
    question, answer = tasks.format_example(corpus, item, "clone", "en")
    asked = corpus.encode("What is a robin?", "clone", separator=False)
    phrase = corpus.encode("Answer in English:", "clone", separator=False)
    assert np.array_equal(question, np.concatenate((asked, phrase)))
    assert corpus.decode(answer).strip() == "a bird." and answer[-1] == corpus.newline("en")[0]


def test_sentences_to_translate_always_change_the_language(corpus, world):
    items = world.items("translate", "train", 4, "contextual")
    one, other = np.ones(4, np.int64), np.array([0, 0, 1, 1])
    # asked and answered in the same language: the answer changes to the partner all the same
    questions, answers = tasks.instruction_examples(corpus, items, one, other, other, np.array([0, 1, 0, 1]))
    for question, answer, asked in zip(questions, answers, other):
        assert question[0] // 400 == asked and set(answer // 400) == {1 - asked}
    formats = [corpus.decode(question) for question in questions]
    assert "Translate into" in formats[0] and "=" in formats[1] and "Translate into" not in formats[1]


def test_a_partner_that_an_item_lacks_is_replaced_everywhere(corpus):
    there = Item("x", "", dict(en="a", reversed="b"), dict(en=["c"], reversed=["d"]), 0)
    found = tasks.target_languages(corpus, [there, there], np.array([1, 2]), np.array([1, 0]), np.array([0, 2]))
    assert [list(part) for part in found] == [[2, 2], [2, 0], [0, 2]]


def test_pairs_of_sentences_are_english_first_and_lose_their_start_when_too_long(corpus, world):
    items = world.items("translate", "train", 3, "contextual")
    tokens, mask = tasks.parallel_sentences(corpus, items, [1, 2, 3], 6)
    assert tokens.shape[0] == 6 and mask.sum(axis=1).max() <= 6
    for i, (item, name) in enumerate(zip([*items, *items], ["en"] * 3 + ["clone", "reversed", "shuffled-2"])):
        whole = corpus.encode(item.prompt, name, separator=False)
        assert np.array_equal(tokens[i][mask[i]], whole[-6:])


# --- long texts, wanted positions, demonstrations with a phrase ---------------------------------------------

def test_a_text_whose_candidates_alone_are_too_long_keeps_one_shared_token_and_loses_its_end():
    rows, shared, cut = tasks.fit_rows([np.arange(7), np.array([0, 1, 9, 8, 7, 6, 5, 4])], 2, 4)
    assert [row.tolist() for row in rows] == [[1, 2, 3, 4], [1, 9, 8, 7]] and (shared, cut) == (1, True)


def test_a_cut_prompt_without_demonstrations_has_lost_none(corpus, world):
    items = world.items("nli", "test", 3, "lexical")
    found = score(corpus, items, "en", lambda tokens, wanted: np.zeros(wanted.shape), limit=5)
    assert set(found) == {"accuracy", "per_token", "n"}


def test_exactly_the_tokens_behind_the_shared_ones_are_wanted(corpus, world):
    item, = world.items("ending", "test", 1, "lexical")
    rows, start = candidate_rows(corpus, item, "en")
    found = {}
    def log_probs(tokens, wanted):
        for row, where in zip(tokens, wanted):
            found[tuple(row[1:][where])] = np.flatnonzero(where)[0]
        return np.zeros(wanted.shape)
    score(corpus, [item], "en", log_probs)
    assert found == {tuple(row[start:]): start - 1 for row in rows}


@pytest.mark.parametrize("form", [tasks.ANSWER, tasks.TRANSLATE, tasks.EQUALS])
def test_demonstrations_have_the_form_of_the_question(corpus, form):
    item, solved = (Item("nli", "lexical", text, ("yes", "no"), 1) for text in ("It was wet?", "It was dry?"))
    asked, _ = tasks.format_example(corpus, item, "en", "clone", form)
    parts = [corpus.encode("", "en"), *tasks.format_example(corpus, solved, "en", "clone", form), asked]
    found = tasks.format_prompt(corpus, item, "en", "clone", (solved,), form)
    assert np.array_equal(found, np.concatenate(parts))


def test_demonstrations_stand_before_an_item_with_an_instruction_too(corpus):
    item, solved = (Item("nli", "lexical", text, ("yes", "no"), 1) for text in ("It was wet?", "It was dry?"))
    rows, start = candidate_rows(corpus, item, "clone", (solved,), instruction="en")
    expected = tasks.format_prompt(corpus, item, "clone", "clone", (solved,), instruction="en")
    assert np.array_equal(rows[0][:start], expected)
    assert [corpus.decode(rows[0]).count(word) for word in ("dry?", "wet?", "Answer in")] == [1, 1, 2]


def test_the_answer_of_an_example_is_its_right_candidate_in_the_language_of_the_answer(corpus):
    item = Item("x", "", dict(en="a", clone="b"), dict(en=["c", "d"], clone=["e", "f"]), 1)
    for language, wanted in (("en", "d"), ("clone", "f")):
        _, answer = tasks.format_example(corpus, item, "en", language)
        assert np.array_equal(answer[:-1], corpus.encode(wanted, language, separator=False))


@pytest.mark.parametrize("space", [" ", ""])
def test_a_sentence_that_goes_on_is_compared_whole(space):
    seen = []
    corpus = SimpleNamespace(languages=["en", "xx"], space=dict(en=" ", xx=space), prefix=None, n_prefix=0,
                             encode=lambda text, name, separator: (seen.append(text), np.array([1]))[1])
    whole = Item("translate", "", dict(en="A dog.", xx="Ein Hund."), dict(en=[""], xx=[""]), 0)
    goes_on = Item(tasks.CONTINUATION, "", dict(en="The cat", xx="Die Katze"), dict(en=["sat."], xx=["saß."]), 0)
    tasks.parallel_sentences(corpus, [whole, goes_on], [1, 1], 64)
    assert seen == ["A dog.", "The cat sat.", "Ein Hund.", "Die Katze saß." if space else "Die Katzesaß."]
