"""Multiple choice, measures of a model, and the report: handmade scores, handmade vectors, handmade runs."""
import json
import math
import random
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from data import claims, measure, report, studies, tasks
from data.config import parse_args
from data.corpus import Dictionary
from data.synthetic import Item
from data.tasks import IGNORE, accuracy, answer_rows, choices
from model import GPT, Shape
from prealign import word_states

LANGUAGES = ["en", "clone", "reversed", "shuffled-2"]
TASKS = [("nli", "lexical"), ("ending", "lexical"), ("cause", "contextual"), ("question", "contextual"),
         ("summary", "contextual")]


@pytest.fixture(scope="module")
def items(world):
    return [item for task, rung in TASKS for item in world.items(task, "test", 20, rung)]


# --- multiple choice ----------------------------------------------------------------------------------------

def test_the_text_of_an_item_is_its_prompt_and_candidate_after_the_solved_ones():
    item = Item("nli", "lexical", "It was wet?", ("yes", "no"), 0)
    solved = Item("nli", "lexical", "It was dry?", ("yes", "no"), 1)
    assert tasks.text(item, 0) == "It was wet? yes"
    assert tasks.text(item, 1, (solved, item)) == "It was dry? no\nIt was wet? yes\nIt was wet? no"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_not_scored_is_all_that_the_candidates_share_at_the_start_and_nothing_else(
        corpus, items, language):
    for item in items:
        rows, start = choices(corpus, item, language)
        assert len(rows) == len(item.candidates) and start >= 1
        assert len({tuple(row[:start]) for row in rows}) == 1
        assert len({row[start] for row in rows}) > 1


def test_a_candidate_that_begins_another_one_still_has_a_token_to_score(corpus):
    rows, start = choices(corpus, Item("ending", "lexical", "Anna had the", ("ball", "ball ball"), 0), "en")
    assert start == len(rows[0]) - 1 and len({tuple(row[:start]) for row in rows}) == 1


def preferring(corpus, items, liked, language="en", shots=0, dev_items=()):
    """A log_probs that gives every token -1, and -0.01 in the text of candidate liked[i] of item i."""
    texts = [tasks.text(item, c, tasks.demonstrations(dev_items, shots, i, seed=0))
             for i, (item, c) in enumerate(zip(items, liked))]
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
    found = accuracy(corpus, items, language, preferring(corpus, items, liked, language), batch_size=7)
    assert found == dict(accuracy=expected, per_token=expected, n=40)


def test_accuracy_with_demonstrations_scores_the_last_item_of_the_text(corpus, world):
    items, shots = (world.items("nli", "test", 20, "lexical"),
                    dict(shots=2, dev_items=world.items("nli", "dev", 20, "lexical")))
    for change, expected in ((0, 1.0), (1, 0.0)):
        liked = [(item.answer + change) % 3 for item in items]
        assert accuracy(corpus, items, "en", preferring(corpus, items, liked, **shots),
                        **shots)["accuracy"] == expected


def test_an_answer_may_be_written_in_another_language_than_its_prompt(corpus, world):
    for item in world.items("nli", "test", 6, "lexical"):
        rows, start = choices(corpus, item, "reversed", answer_language="en")
        prompt = corpus.encode(item.prompt, "reversed")
        for row, candidate in zip(rows, item.candidates):
            assert np.array_equal(row[:len(prompt)], prompt)
            assert np.array_equal(row[len(prompt):], corpus.encode(candidate, opening=False))
        assert start == len(prompt)


def test_the_plain_sum_prefers_short_candidates_and_the_mean_per_token_may_not(corpus):
    # token n has log-probability -1/n: every further token lowers the sum and raises the mean
    log_probs = lambda tokens, wanted: np.tile(-1 / np.arange(1, tokens.shape[1]), (len(tokens), 1))   # noqa: E731
    item = Item("ending", "lexical", "Anna was in the", ("garden with the big red ball.", "park."), 0)
    short_right = Item("ending", "lexical", "Anna was in the", item.candidates, 1)
    assert accuracy(corpus, [item, item, short_right], "en", log_probs) == dict(
        accuracy=pytest.approx(1 / 3), per_token=pytest.approx(2 / 3), n=3)


def test_demonstrations_come_from_the_given_items_without_repeats_and_by_seed(world):
    dev = world.items("nli", "dev", 30, "lexical")
    drawn = [tasks.demonstrations(dev, 5, index, seed=0) for index in range(10)]
    assert all(len(set(map(str, five))) == 5 and set(map(str, five)) <= set(map(str, dev)) for five in drawn)
    assert drawn == [tasks.demonstrations(dev, 5, index, seed=0) for index in range(10)]
    assert len({str(five) for five in drawn}) == 10                         # every item gets its own
    assert drawn[0] != tasks.demonstrations(dev, 5, 0, seed=1)


def test_answer_rows_have_loss_on_the_answer_and_nowhere_else(corpus, world):
    items = world.items("nli", "train", 20, "lexical")
    inputs, targets = answer_rows(corpus, items, "en")
    assert inputs.shape == targets.shape
    for item, line, target in zip(items, inputs, targets):
        row = corpus.encode(f"{item.prompt} {item.candidates[item.answer]}")
        assert np.array_equal(line[:len(row)], row[:inputs.shape[1]]) and not line[len(row):].any()
        assert corpus.decode(target[target != IGNORE]) == item.candidates[item.answer]
        places = np.flatnonzero(target != IGNORE)
        # shifted by one, to the end
        assert np.array_equal(target[places], row[places + 1]) and places[-1] == len(row) - 2


def test_shorter_rows_are_padded_on_the_right():
    tokens, mask = tasks.pad([np.array([1, 2, 3]), np.array([4])])
    assert tokens.tolist() == [[1, 2, 3], [4, 0, 0]] and tokens.dtype == np.int64
    assert mask.tolist() == [[True] * 3, [True, False, False]]


# --- geometry -----------------------------------------------------------------------------------------------

ROWS = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]])               # orthogonal, of different lengths


def test_retrieval_is_one_for_the_right_order_zero_for_a_cycle_and_a_share_otherwise():
    assert measure.retrieval(ROWS, 5 * ROWS) == 1.0
    assert measure.retrieval(ROWS, ROWS.roll(1, dims=0)) == 0.0
    assert measure.retrieval(ROWS, ROWS[[0, 2, 1]]) == pytest.approx(1 / 3)


def test_alignment_is_the_squared_distance_on_the_sphere():
    assert measure.alignment(ROWS, 5 * ROWS) == pytest.approx(0.0, abs=1e-6)
    assert measure.alignment(ROWS, -ROWS) == pytest.approx(4.0)
    assert measure.alignment(ROWS, ROWS.roll(1, dims=0)) == pytest.approx(2.0)


def test_uniformity_of_equal_opposite_and_orthogonal_rows():
    assert measure.uniformity(ROWS[[0, 0, 0]]) == pytest.approx(0.0, abs=1e-6)
    assert measure.uniformity(torch.stack((ROWS[0], -7 * ROWS[0]))) == pytest.approx(-2 * 4)
    assert measure.uniformity(ROWS) == pytest.approx(-2 * 2)
    assert measure.uniformity(ROWS[[0, 0, 1]]) == pytest.approx(math.log((1 + 2 * math.exp(-4)) / 3))


def test_self_similarity_of_equal_opposite_and_orthogonal_occurrences():
    kind = torch.tensor([5, 5])
    assert measure.self_similarity(torch.stack((ROWS[1], 4 * ROWS[1])), kind) == pytest.approx(1.0)
    assert measure.self_similarity(torch.stack((ROWS[1], -4 * ROWS[1])), kind) == pytest.approx(-1.0)
    assert measure.self_similarity(ROWS[:2], kind) == pytest.approx(0.0, abs=1e-6)


def test_self_similarity_counts_every_type_once_and_leaves_out_what_occurs_once():
    # type 5: three equal; type 6: orthogonal; type 7: alone
    states = ROWS[[0, 0, 0, 0, 1, 2]]
    assert measure.self_similarity(states, torch.tensor([5, 5, 5, 6, 6, 7])) == pytest.approx(
        (1 + 0) / 2, abs=1e-6)


# --- predictions and states ---------------------------------------------------------------------------------

@pytest.fixture
def model(corpus):
    return GPT(Shape(corpus.vocab_size, n_layer=2, n_head=4, d_model=32, context_len=32)).initialise(0)


def test_log_probs_are_the_log_softmax_of_the_next_token(model):
    tokens = np.random.default_rng(0).integers(0, 1600, (3, 9))
    found = measure.log_probs(model, tokens)
    wanted = np.random.default_rng(1).random(found.shape) < 0.3
    assert np.allclose(measure.log_probs(model, tokens, wanted), np.where(wanted, found, 0), atol=1e-5)
    assert found.shape == (3, 8) and found.dtype == np.float32
    for b in range(3):
        for t in range(8):
            scores = model.logits(torch.tensor(tokens[b:b + 1, :t + 1]))[0, -1].tolist()
            by_hand = scores[tokens[b, t + 1]] - math.log(sum(map(math.exp, scores)))
            assert found[b, t] == pytest.approx(by_hand, abs=1e-4)


def test_the_loss_per_token_is_that_of_the_first_validation_rows(model, corpus):
    found = measure.losses_per_token(model, corpus, "clone", 40)
    assert found.shape == (40, 32)
    assert np.allclose(found[35:36],
                       -measure.log_probs(model, corpus.validation_rows("clone", 40, 33)[35:36]), atol=1e-5)


def test_a_model_without_preferences_writes_three_of_four_tokens_in_the_other_three_languages(model, corpus):
    torch.nn.init.zeros_(model.head.weight)
    assert measure.foreign_mass(model, corpus, 20) == pytest.approx(3 / 4, abs=1e-5)


def test_a_model_without_preferences_has_the_perplexity_of_the_vocabulary(model, corpus):
    torch.nn.init.zeros_(model.head.weight)
    found = measure.language_model(model, corpus)
    assert found["foreign_mass_in_english"] == pytest.approx(3 / 4, abs=1e-5)
    for name in LANGUAGES:
        assert found["perplexity"][name] == pytest.approx(1600, rel=1e-4)
        # log2 V per token, over all tokens and bytes
        bits = math.log2(1600) * len(corpus.streams[name, "val"])
        assert found["bits_per_byte"][name] == pytest.approx(bits / corpus.bytes[f"{name}.val"], rel=1e-4)


def states_from(*levels):
    """In the place of prealign.word_states: row t of each level is the state of the word of token t."""
    return lambda model, words, mask: torch.stack([level[words[:, 0]] for level in levels])


def pairs(*words):
    """A dictionary in which token i + 4 translates token i."""
    return Dictionary([((i,), [(i + 4,)]) for i in words])


def test_words_are_compared_at_every_level_and_searched_among_listed_and_unlisted_ones(model):
    own, opposite = torch.eye(4).repeat(2, 1), torch.cat((torch.eye(4), -torch.eye(4)))     # (8, 4) each
    swapped = own[[0, 1, 2, 3, 4, 5, 7, 6]]                           # translations of 2 and 3 are exchanged
    found = measure.words(model, states_from(swapped, opposite), pairs(0, 1), pairs(2, 3), level=0)
    assert found["word_cosine"] == pytest.approx([1, -1])
    assert found["unseen_word_cosine"] == pytest.approx([0, -1])
    assert (found["word_retrieval"], found["unseen_word_retrieval"]) == (1, 0)
    stolen = own[[0, 2, 2, 3, 4, 5, 6, 7]]                            # word 1 looks like the unlisted word 2
    found = measure.words(model, states_from(own, stolen), pairs(0, 1), pairs(2, 3), level=1)
    assert (found["word_retrieval"], found["unseen_word_retrieval"]) == (0.5, 1)
    found = measure.words(model, states_from(own), pairs(0, 1), None, level=0)
    assert set(found) == {"word_cosine", "word_retrieval"}


def test_sentences_of_a_model_that_tells_no_words_apart_lie_in_one_point(model, corpus):
    torch.nn.init.ones_(model.embed.weight)
    found = measure.sentences(model, corpus, ["Anna had the ball.", "Tom was there."], level=1)
    assert found["alignment"] == pytest.approx(0.0, abs=1e-5)
    assert found["uniformity"] == pytest.approx(0.0, abs=1e-5)


def test_sentences_are_those_of_the_first_two_languages(model, corpus):
    with torch.no_grad():                                            # rows of the clone are those of English
        model.embed.weight[400:800] = model.embed.weight[:400]
    found = measure.sentences(model, corpus, ["Anna had the ball.", "Tom was there."], level=1)
    assert found["sentence_retrieval"] == 1 and found["alignment"] == pytest.approx(0, abs=1e-5)
    assert found["uniformity"] < -0.1


def test_knowledge_is_asked_apart_by_where_it_was_told(model, corpus, world):
    torch.nn.init.zeros_(model.head.weight)          # all tokens alike: the candidate of fewest tokens wins
    found = measure.knowledge(model, corpus, 20)
    items = world.items("knowledge", "test", 10**6)
    assert found["knowledge_n"] == dict(en=20, clone=20, both=20)
    keys = dict(en="knowledge", clone="knowledge_told_in_clone", both="knowledge_told_in_both")
    for told, key in keys.items():
        chosen = [item for item in items if item.told == told][:20]
        right = 0
        for item in chosen:
            lengths = [len(row) for row in choices(corpus, item, "clone")[0]]
            right += int(np.argmin(lengths)) == item.answer
        assert found[key]["clone"] == pytest.approx(right / len(chosen))


def test_a_sentence_is_the_mean_of_its_own_tokens(model, corpus):
    sentences = ["Anna had the ball.", "Tom was there.",
                 "Anna and Tom went to the park with the big red ball."]
    together = measure.sentence_states(model, corpus, "clone", sentences, level=1)
    for row, sentence in zip(together, sentences):
        tokens = torch.from_numpy(corpus.encode(sentence, "clone", opening=False))[None]
        assert torch.allclose(row, model.hidden(tokens)[1][0].mean(dim=0), atol=1e-5)


def test_context_states_belong_to_tokens_that_are_whole_words(model, corpus):
    states, types = measure.context_states(model, corpus, "clone", 10)
    rows = corpus.validation_rows("clone", 10, 32)
    tokens = rows.tolist()
    whole = [(b, t) for b in range(10) for t in range(31)
             if corpus.starts_word(rows[b, t]) and corpus.starts_word(rows[b, t + 1])]
    assert 20 < len(whole) < 320
    assert types.tolist() == [tokens[b][t] for b, t in whole]
    last = model.hidden(torch.from_numpy(rows))[-1]
    assert torch.allclose(states, torch.stack([last[b, t] for b, t in whole]), atol=1e-5)


def test_measuring_changes_neither_the_model_nor_the_random_numbers(model, corpus, world):
    before = {name: p.clone() for name, p in model.state_dict().items()}
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    items = world.items("ending", "test", 6, "lexical")
    accuracy(corpus, items, "en", lambda tokens, wanted: measure.log_probs(model, tokens, wanted))
    measure.language_model(model, corpus)
    z = measure.sentence_states(model, corpus, "en", [item.prompt for item in items], 1)
    measure.words(model, word_states, corpus.gold_dictionary(), None, 1)
    measure.sentences(model, corpus, [item.prompt for item in items], 1)
    measure.retrieval(z, z), measure.alignment(z, z), measure.uniformity(z)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not z.requires_grad
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[2]
    assert np.array_equal(np.random.get_state()[1], state[1])


# --- the report ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("differences, sign, least, verdict", [
    ([0.1, 0.2, 0.3], 1, 0.05, "reproduced"),
    ([-0.1, -0.2, -0.3], -1, 0.05, "reproduced"),
    ([0.03, 0.04, 0.05], 1, 0.1, "same direction"),       # every seed, but less than `least`
    ([0.3, 0.3, -0.01], 1, 0.05, "same direction"),       # mean 0.197, standard error 0.103, one seed against
    ([0.1, -0.1, 0.03], 1, 0.05, "no difference"),        # mean 0.01, standard error 0.058
    ([0.01, 0.01, 0.01], 1, 0.1, "no difference"),        # no spread, but below a quarter of `least`
    ([0.0, 0.0, 0.0], 1, 0.0, "no difference"),
    ([-0.1, -0.2, -0.3], 1, 0.05, "opposite"),
    ([0.1, 0.2, 0.3], -1, 0.05, "opposite"),
    ([0.01, 0.02, 0.0], 0, 0.02, "reproduced"),                             # sign 0: not worse by 0.02
    ([-0.5, -0.5, -0.5], 0, 0.02, "reproduced"),
    ([0.03, 0.02, 0.04], 0, 0.02, "opposite"),
    ([0.2], 1, 0.05, "reproduced"),                                         # one seed has no spread
    ([-0.2], 1, 0.05, "opposite"),
])
def test_the_verdict_follows_the_rule(differences, sign, least, verdict):
    assert claims.judge(differences, sign, least) == verdict


def test_a_number_is_found_by_its_path_and_is_none_where_it_was_not_measured():
    summary = {"perplexity": {"en": 20.0}, "word_cosine": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "minutes": 3}
    paths = ("minutes", "perplexity.en", "word_cosine.0", "word_cosine.middle", "perplexity.clone",
             "transfer.nli.en", "log nothing")
    assert [report.value(summary, path) for path in paths] == [3, 20.0, 0.1, 0.3, None, None, None]   # 4 blocks
    assert report.value(summary, "log perplexity.en") == pytest.approx(math.log(20))


def test_a_table_is_markdown_whose_columns_stand_under_each_other():
    lines = report.table(["run", "loss"], [["a long name", 1], ["b", "2.345"]]).splitlines()
    assert len(lines) == 4 and len(set(map(len, lines))) == 1
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["run", "loss"] and cells[2:] == [["a long name", "1"], ["b", "2.345"]]
    assert (set(lines[1]) == set("|-:") and lines[1].endswith(":|")
            and [i for i, c in enumerate(lines[0]) if c == "|"] == [
                i for i, c in enumerate(lines[1]) if c == "|"])


def test_mean_and_sample_deviation_over_seeds():
    summaries = [{"x": 1.0}, {"x": 2.0}, {"x": 3.0}]
    assert report.spread(summaries, "x", 2) == "2.00 ± 1.00"
    assert report.spread(summaries[:1], "x", 1) == "1.0" and report.spread(summaries, "y", 2) == ""


def run(clone_perplexity, knowledge=0.5):
    return {"perplexity": {"en": 5.0, "clone": clone_perplexity},
            "knowledge": {"en": 0.9, "clone": knowledge}}


def test_verdicts_compare_seed_by_seed_and_leave_out_what_was_not_measured():
    summaries = {name: [run(math.e ** 3), run(math.e ** 4)] for name in studies.SYSTEMS["prealign"]}
    # one nat lower in each seed, knowledge the same
    summaries["prealign"] = [run(math.e ** 2, 0.5), run(math.e ** 3, 0.5)]
    summaries["skyline"] = [run(math.e ** 1), run(math.e ** 2)]             # two nats lower
    text = claims.verdicts("prealign", summaries)
    rows = {tuple(cell.strip() for cell in line.strip("|").split("|"))
            for line in text.splitlines() if line.startswith("| P")}
    assert ("P1 clone perplexity lower than joint (log ratio)",
            "prealign", "joint", "-1.000 ± 0.000", "reproduced") in rows
    assert ("P1 English perplexity not worse (log ratio)",
            "prealign", "joint", "+0.000 ± 0.000", "reproduced") in rows
    assert ("P3 knowledge told in English, asked in the clone",
            "prealign", "joint", "+0.000 ± 0.000", "no difference") in rows
    # no transfer, no cosine, no unseen words above
    assert not any(row[0].startswith(("P2", "P6", "P7")) for row in rows)
    assert "that prealign closes: 0.50" in text and text.startswith("Mean ± sd over 2 seeds.")


def test_every_claim_compares_systems_that_the_reproduction_runs():
    for paper, listed in claims.CLAIMS.items():
        for _, _, method, other, _, sign, least in listed:
            named = set(method.split(" - ")) | set(other.split(" - ")) - {""}
            assert named <= studies.SYSTEMS[paper].keys() and sign in (-1, 0, 1) and least >= 0


def test_a_claim_may_compare_differences_of_systems_and_of_numbers():
    summaries = {"a": [run(8.0, 0.7), run(9.0)], "b": [run(3.0, 0.4), run(5.0)]}
    assert claims.measured(summaries, "a - b", "perplexity.clone").tolist() == [5, 4]
    assert claims.measured(summaries, "a", "perplexity.clone - perplexity.en").tolist() == [3, 4]
    assert np.isnan(claims.measured(summaries, "a", "perplexity.nowhere")).all()


def test_the_report_of_a_study_is_written_with_the_numbers_behind_it(tmp_path):
    summaries = {name: [run(math.e ** 3 + 1 / 3) | {"seed": seed, "tasks": {}} for seed in (0, 1)]
                 for name in studies.SYSTEMS["prealign"]}
    summaries["skyline"] = [run(2.0), run(2.0)]
    shown = claims.conclude("prealign", summaries, tmp_path)
    report_text = (tmp_path / "report-prealign.md").read_text(encoding="utf-8")
    kept = json.loads((tmp_path / "report-prealign.json").read_text(encoding="utf-8"))
    assert report_text in shown and report_text == claims.verdicts("prealign", kept)
    assert kept["joint"][1] == {"perplexity": {"en": 5.0, "clone": 20.419}, "seed": 1,
                                "knowledge": {"en": 0.9, "clone": 0.5}}


def test_of_a_summary_that_is_kept_which_the_tables_show():
    tree = {"a": {"x": 1, "y": 2}, "b": {"u": {"new": [1, 2], "old": 3}}, "c": 4}
    found = claims.along(tree, [["a", "x"], ["b", "u", "new", "0"]])
    assert found == {"a": {"x": 1}, "b": {"u": {"new": [1, 2]}}}
    # a key that is not there: all of that part
    assert claims.along(tree, [["a", "z"], ["a", "x"], ["c"]]) == {"a": {"x": 1, "y": 2}, "c": 4}


def test_systems_under_the_same_condition_stand_side_by_side():
    summaries = {"BA": [run(8.0), run(2.0)], "BA, far": [run(9.0)], "BA only": [run(1.0)],
                 "AFA": [run(4.0), run(1.0)], "AFA, far": [run(3.0)]}
    text, shown = claims.side_by_side(summaries, "BA", "AFA", [("ppl", "perplexity.clone", 1)])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert rows[0] == ["adapted with", "ppl: BA", "AFA", "ratio"]
    assert rows[2:] == [["default", "5.0 ± 4.2", "2.5 ± 2.1", "0.50"], ["far", "9.0", "3.0", "0.33"]]
    assert shown == ["BA", "AFA", "BA, far", "AFA, far"]


def test_updates_needed_are_a_share_of_those_of_the_other_run():
    def adapted(*perplexities):
        found = {str(10 * i + 10): p for i, p in enumerate(perplexities)}
        return {"adapt": {"clone2": {"perplexity": found}}}
    # the last of each is of other rows
    assert claims.updates_needed(adapted(9, 5, 4, 3, 0), adapted(20, 10, 7, 5, 9)) == 0.5
    assert claims.updates_needed(adapted(9, 8, 7, 6, 0), adapted(20, 10, 7, 5, 9)) == math.inf


def test_every_system_of_a_study_is_a_configuration_and_comes_after_the_run_it_starts_from():
    for paper, systems in studies.SYSTEMS.items():
        seen = ["data"] * (paper == "real")                    # a folder; its flags are tried in test_real
        for name, flags in systems.items():
            needed = re.findall(r"{(.+?)}", flags)
            assert set(needed) <= set(seen), name
            if not needed:
                parse_args(flags.split())
            seen.append(name)


def test_new_is_the_language_attached_after_pretraining():
    summary = {"perplexity": {"en": 2.0, "clone2": 7.0}, "adapt": {"clone2": {"perplexity": {"50": 9.0}}}}
    assert report.value(summary, "perplexity.new") == 7.0
    assert report.value(summary, "adapt.new.perplexity.50") == 9.0
    assert report.value({"perplexity": {"en": 2.0}}, "perplexity.new") is None


LOG = [{"stage": "align", "step": 10, "word_cosine": [0.9, 0.9, 0.9]},
       {"stage": "pretrain", "step": 100, "val": {"en": 3.0, "clone": 5.0}, "word_cosine": [0.5, 0.1, 0.2]},
       {"stage": "pretrain", "step": 200, "val": {"en": 2.0, "clone": 4.0}, "word_cosine": [0.7, 0.1, 0.2]}]


def lines_of(svg):
    """Every curve: (dashed, list of points)."""
    space = "{http://www.w3.org/2000/svg}"
    return [("stroke-dasharray" in line.attrib,
             [tuple(map(float, xy.split(","))) for xy in line.get("points").split()])
            for line in ElementTree.fromstring(svg).iter(f"{space}polyline")]


def test_curves_are_an_svg_with_english_clone_and_cosine_of_every_run():
    lines = lines_of(report.curves([("one", LOG), ("two", LOG)]))
    assert [dashed for dashed, _ in lines] == [False, True, False, True, False, False]
    # two rows of pretraining; the align row is left out
    assert all(len(points) == 2 for _, points in lines)
    english, clone, *_, cosine = (points for _, points in lines)
    assert english[0][1] < english[1][1] and clone[0][1] < clone[1][1]      # losses fall: y counts from above
    assert cosine[0][1] > cosine[1][1] and english[0][1] > clone[0][1]
    # lowest loss of all at the bottom, highest at the top
    assert english[1] == (460.0, 300.0) and clone[0][1] == 40.0


def test_resets_and_a_new_language_have_charts_of_their_own():
    log = [row | {"lm": 2.0 + i} for i, row in enumerate(LOG)]
    log += [{"stage": "adapt", "step": s, "lm": 9.0, "val": {"en": 9.0, "clone": 9.0, "clone2": 5.0 - s / 10}}
            for s in (10, 20, 30)]
    lines = lines_of(report.curves([("one", log)]))
    assert [len(points) for _, points in lines] == [2, 2, 2, 2, 3]          # en, clone, cosine, training, new
    *_, training, new = (points for _, points in lines)
    assert training[0][1] > training[1][1] and new[0][1] < new[-1][1]
    assert min(y for _, y in training) > 340                                # in the second row of charts


def test_curves_of_a_run_without_rows_are_still_an_svg():
    assert lines_of(report.curves([("empty", [])])) == []


def test_curves_of_a_run_whose_name_holds_markup_are_still_an_svg():
    assert len(lines_of(report.curves([("a&b <c>", LOG)]))) == 3


def test_the_comparison_of_runs_is_written_as_text_and_picture(tmp_path):
    for name, loss in (("one", 7.0), ("two", 8.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(run(loss)), encoding="utf-8")
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LOG),
                                                   encoding="utf-8")
    text = report.compare([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    head, _, *rows = [[cell.strip() for cell in line.split("|")]
                      for line in text.splitlines() if line.startswith("|")]
    assert [row[head.index("ppl clone")] for row in rows] == ["7.000", "8.000"]
    assert "ppl new" not in head and "word P@1" not in head                 # columns that no run fills
    assert len(lines_of((tmp_path / "out" / "report.svg").read_text(encoding="utf-8"))) == 6
    assert (tmp_path / "out" / "report.md").read_text(encoding="utf-8").strip() == text.split("\n\n")[0]


def test_a_folder_without_results_is_refused_with_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"summary\.json is missing"):
        report.read_run(tmp_path)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for seed, perplexity in (("s0", 3.0), ("s1", 4.0)):
        (tmp_path / seed / "joint").mkdir(parents=True)
        (tmp_path / seed / "joint" / "summary.json").write_text(json.dumps(run(perplexity)), encoding="utf-8")
        (tmp_path / seed / "joint" / "log.jsonl").write_text("", encoding="utf-8")
    log = tmp_path / "s0" / "joint" / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, LOG)), encoding="utf-8")
    shown = report.compare([tmp_path / "s0" / "joint", tmp_path / "s1" / "joint"], tmp_path / "out")
    rows = [line for line in shown.splitlines() if "joint" in line]
    assert len(rows) == 2 and "s0/joint" in rows[0] and "s1/joint" in rows[1]


def test_an_empty_prompt_is_the_separator_alone(corpus):
    assert corpus.encode("", "en").tolist() == [0]


def test_words_that_share_a_translation_are_found_by_it():
    """Four English words in the four directions of a plane, two of them with the same translation."""
    def word_states(model, words, mask):
        angle = torch.tensor([0.0, 1.5, 3.0, 0.1, 1.4])[words[:, 0]]
        return torch.stack((angle.cos(), angle.sin()), dim=-1)[None]             # (1, N, 2)

    dictionary = Dictionary([((0,), [(3,)]), ((1,), [(4,)]), ((2,), [(4,)])])
    assert measure.words(None, word_states, dictionary, None, 0)["word_retrieval"] == 1.0


def test_the_tokens_of_samples_are_counted_once_a_language(corpus):
    items = corpus.items("translate", "test", 3)
    n = sum(len(corpus.encode(item.prompt["en"] if isinstance(item.prompt, dict) else item.prompt))
            for item in items)
    assert tasks.count_tokens(corpus, items, ["en", "clone"]) == 2 * n
