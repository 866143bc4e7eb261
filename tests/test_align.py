"""AFP: the contrastive loss of sentences and the masked answers, worked out by hand; the stage in a run."""
import json
import math
import re

import numpy as np
import pytest
import torch

import align
import train
from align import directions, instruction_rows, multilingual_contrast, sentence_states
from data import generation, report, tasks
from data.config import Config, parse_args
from data.synthetic import RUNGS
from model import GPT, IGNORE, Shape, lm_loss
from test_train import SMALL, flags, log_without_speed, run_recipe, same_weights

SHORT = dict(method="align", steps=6, afp_steps=6, afp_samples=40, afp_rows=1, sentence_batch=4, log_every=2)


def small_model():
    return GPT(Shape(vocab_size=60, n_layer=2, n_head=4, d_model=32, context_len=16)).initialise(0)


# --- sentences to states ------------------------------------------------------------------------------------

TOKENS = torch.tensor([[5, 6, 7], [8, 0, 0], [9, 10, 0]])                   # 3, 1 and 2 tokens, padded
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)


def test_the_loss_on_answers_asks_the_head_for_these_alone_and_is_the_same(tmp_path, cache):
    run = train.Run(Config(**SMALL | SHORT), tmp_path / "run", cache, quiet=True)
    tokens, targets = torch.randint(1, 60, (2, 4, 9)).numpy()
    targets[:, :6] = IGNORE
    targets[0] = IGNORE
    losses = {}
    for sparse in (False, True):
        run.model.zero_grad()
        (loss, _, n), = train.lm_parts(run, run.model, tokens, targets, sparse=sparse)
        loss.backward()
        losses[sparse] = loss.detach(), run.model.head.weight.grad, run.model.embed.weight.grad
        assert n == 4 * 9
    for dense, few in zip(*losses.values()):
        assert torch.allclose(dense, few, atol=1e-6)


@pytest.mark.parametrize("pool", align.POOLS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_sentence_is_pooled_over_its_own_tokens_only(pool, level):
    model = small_model()
    together = sentence_states(model, TOKENS, MASK, level, pool)
    for i, n in enumerate((3, 1, 2)):
        states = model.hidden(TOKENS[i:i + 1, :n])[level][0]                # (n, D)
        alone = dict(last=states[-1], mean=states.mean(dim=0), max=states.amax(dim=0))[pool]
        assert torch.allclose(together[i], alone, atol=1e-6)


def test_an_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="pool sum is unknown"):
        sentence_states(small_model(), TOKENS, MASK, 1, "sum")


# --- MCL ----------------------------------------------------------------------------------------------------

PAIRS = torch.arange(8).repeat(2)


@pytest.mark.parametrize("both_ways", [True, False])
def test_mcl_at_chance_is_the_log_of_the_number_of_candidates(both_ways):
    alike = torch.ones(16, 4)
    narrow = multilingual_contrast(alike, PAIRS, both_ways=both_ways)
    assert narrow.item() == pytest.approx(math.log(8), abs=1e-5)
    wide = multilingual_contrast(alike, PAIRS, both_ways=both_ways, same_language=True)
    assert wide.item() == pytest.approx(math.log(8 + 7), abs=1e-5)


def test_mcl_of_perfect_orthogonal_pairs():
    perfect = torch.eye(8).repeat(2, 1)                                     # positives: cos 1, all others 0
    for tau in (0.05, 0.5):
        expected = math.log(1 + 7 * math.exp(-1 / tau))
        assert multilingual_contrast(perfect, PAIRS, tau).item() == pytest.approx(expected, abs=1e-6)
        wide = math.log(1 + 14 * math.exp(-1 / tau))
        found = multilingual_contrast(perfect, PAIRS, tau, same_language=True).item()
        assert found == pytest.approx(wide, abs=1e-6)


# English e1 = (1, 0), e2 = (0, 1); their translations f1 = (1, 0), f2 = (0.6, 0.8).
#   cos   f1   f2
#   e1    1    0.6
#   e2    0    0.8
HAND = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])


def minus_log_share(right, *others):
    return -math.log(math.exp(right) / (math.exp(right) + sum(map(math.exp, others))))


def test_mcl_of_a_hand_worked_two_by_two_in_one_and_two_directions():
    concept = torch.tensor([0, 1, 0, 1])
    rows = [minus_log_share(1, 0.6), minus_log_share(0.8, 0)]               # e1, e2 look for f1, f2
    columns = [minus_log_share(1, 0), minus_log_share(0.8, 0.6)]            # f1, f2 look for e1, e2
    one = multilingual_contrast(HAND, concept, tau=1.0, both_ways=False).item()
    assert one == pytest.approx(sum(rows) / 2, abs=1e-6)
    both = multilingual_contrast(HAND, concept, tau=1.0).item()
    assert both == pytest.approx(sum(rows + columns) / 4, abs=1e-6)
    # with candidates of the own side: e1 and e2 have cos 0, f1 and f2 have 0.6
    rows = [minus_log_share(1, 0.6, 0), minus_log_share(0.8, 0, 0)]
    wide = multilingual_contrast(HAND, concept, tau=1.0, both_ways=False, same_language=True).item()
    assert wide == pytest.approx(sum(rows) / 2, abs=1e-6)


def test_mcl_brings_translations_together_in_the_compared_layer_and_leaves_later_ones_alone():
    model, tokens = small_model(), torch.randint(60, (16, 5), generator=torch.Generator().manual_seed(0))
    states = sentence_states(model, tokens, torch.ones(16, 5, dtype=torch.bool))
    multilingual_contrast(states, PAIRS).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert "embed.weight" in moved and "body.0.feed_in.weight" in moved
    assert not any(name.startswith(("body.1", "head", "final_norm")) for name in moved)


# --- CIT ----------------------------------------------------------------------------------------------------

def test_loss_is_on_the_answer_and_nothing_else():
    inputs, targets = instruction_rows([[1, 2, 3], [4]], [[7, 8], [9]], 9)
    _ = IGNORE
    assert inputs.tolist() == [[1, 2, 3, 7], [4, 9, 0, 0]]
    assert targets.tolist() == [[_, _, 7, 8], [9, _, _, _]]


def test_plain_fine_tuning_has_loss_on_the_question_too():
    inputs, targets = instruction_rows([[1, 2, 3], [4]], [[7, 8], [9]], 9, answer_only=False)
    assert inputs.tolist() == [[1, 2, 3, 7], [4, 9, 0, 0]]
    assert targets.tolist() == [[2, 3, 7, 8], [9, IGNORE, IGNORE, IGNORE]]


def test_a_long_sample_loses_its_start():
    inputs, targets = instruction_rows([[1, 2, 3]], [[7, 8]], 4)
    assert inputs.tolist() == [[2, 3, 7]] and targets.tolist() == [[IGNORE, 7, 8]]
    inputs, targets = instruction_rows([[1, 2]], [[7, 8, 9]], 2)
    assert inputs.tolist() == [[8]] and targets.tolist() == [[9]]


def test_samples_of_a_batch_share_no_attention_and_no_loss():
    model, questions, answers = small_model(), [[1, 2, 3, 4], [5], [6, 7]], [[8], [9, 10], [11, 12, 13]]
    inputs, targets = map(torch.from_numpy, instruction_rows(questions, answers, 16))
    total = lm_loss(model.logits(inputs), targets).item() * int((targets != IGNORE).sum())
    alone = 0.0
    for question, answer in zip(questions, answers):
        row = torch.tensor([question + answer])
        scores = model.logits(row[:, :-1]).log_softmax(dim=-1)[0]           # (T, V)
        alone -= sum(scores[len(question) - 1 + i, t].item() for i, t in enumerate(answer))
    assert total == pytest.approx(alone, rel=1e-5)


def test_directions_keep_english_as_the_pivot_and_cross_as_often_as_told():
    n = 4000
    for cross, low, high in ((0.0, 0, 0), (0.25, .22, .28), (1.0, 1, 1)):
        partner, asked, told = directions(np.random.default_rng(0), [2, 3], n, cross)
        assert low <= (asked != told).mean() <= high
        assert set(partner.tolist()) == {2, 3} and set(asked.tolist()) == {0, 2, 3}
        # both are English or the partner
        assert all(((side == partner) | (side == 0)).all() for side in (asked, told))
        assert 0.46 < (asked == 0).mean() < 0.54 and 0.46 < (partner == 2).mean() < 0.54


# --- data ---------------------------------------------------------------------------------------------------

def test_lessons_are_training_items_of_all_tasks_but_knowledge_and_no_test_item(world):
    lessons = tasks.lessons(world, 400, 0.25)
    assert len(lessons) == 400 and sum(item.task == "translate" for item in lessons) == 100
    kinds = {(item.task, item.rung) for item in lessons}
    assert kinds == set(tasks.IN_CONTEXT) | {("translate", "contextual")}
    texts = {item.prompt for item in lessons}
    for task, rungs in RUNGS.items():
        for rung in rungs:
            for split in ("dev", "test"):
                n = 10**6 if task == "knowledge" else 100
                assert not texts & {item.prompt for item in world.items(task, split, n, rung)}
    assert len(tasks.lessons(world, 2, 0.0)) == 2


def test_the_two_sides_of_mcl_are_the_same_questions_in_english_and_their_partner_languages(corpus, world):
    items = tasks.lessons(world, 6, 0.0)
    tokens, mask = tasks.parallel(corpus, items, [1, 2, 3, 1, 2, 3], 99)
    for i, item in enumerate(items):
        for row, language in ((i, "en"), (i + 6, corpus.languages[1 + i % 3])):
            expected = corpus.encode(item.prompt, language, opening=False)
            assert tokens[row][mask[row]].tolist() == expected.tolist()


def test_dialogues_ask_and_answer_in_the_languages_drawn_and_translations_always_change(corpus, world):
    task, sentence = tasks.lessons(world, 2, 0.5)
    questions, answers = tasks.dialogues(
        corpus, [task, sentence, sentence], [1, 1, 1], [1, 0, 1], [1, 0, 0], [False, False, True])
    shown = [(corpus.decode(q), corpus.decode(a)) for q, a in zip(questions, answers)]
    right, text = task.candidates[task.answer], sentence.prompt
    assert shown == [(f"⟨{task.prompt} Answer in clone:⟩", f"⟨{right}\n⟩"),
                     (f"{text} Translate into clone:", f"⟨{text}\n⟩"), (f"⟨{text} =⟩", f"{text}\n")]


@pytest.mark.parametrize("instruction, part", [("en", "Answer in clone:"), ("clone", "⟨Answer in clone:")])
def test_choices_can_ask_as_in_training_in_english_or_in_the_items_language(corpus, world, instruction, part):
    [item], solved = (world.items("question", split, n, "lexical") for split, n in (("test", 1), ("dev", 2)))
    rows, start = tasks.choices(corpus, item, "clone", solved, instruction=instruction)
    shown = corpus.decode(rows[item.answer])
    assert shown.count("Answer in clone:") == 3 and len(rows) == 2
    assert rows[0][:start].tolist() == rows[1][:start].tolist()
    [english] = {bool((row[1:start] < corpus.base_vocab).any()) for row in rows}
    assert english == (instruction == "en")
    assert rows[item.answer].tolist() == [
        *tasks.prompt(corpus, item, "clone", "clone", solved, instruction=instruction),
        *corpus.encode(item.candidates[item.answer], "clone", opening=False)]


# --- the stage in a run -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    return run_recipe(cache, tmp_path_factory.mktemp("align") / "whole", **SHORT)


@pytest.fixture(scope="module")
def baseline(cache, tmp_path_factory):
    return run_recipe(cache, tmp_path_factory.mktemp("align") / "baseline", **SHORT | dict(method="baseline"))


def test_without_its_two_losses_align_is_the_baseline_bit_for_bit(cache, tmp_path, whole, baseline):
    off = run_recipe(cache, tmp_path / "off", **SHORT, mcl_weight=0.0, cit_weight=0.0)
    assert same_weights(off, baseline) and not same_weights(whole, baseline)


@pytest.mark.parametrize("stop_after", [("pretrain", 6), ("align sentences", 2), ("align sentences", 6)])
def test_a_run_stopped_in_or_before_the_stage_and_gone_on_with_equals_one_without_a_stop(
        cache, tmp_path, whole, stop_after):
    run_recipe(cache, tmp_path / "parts", stop_after=stop_after, **SHORT)
    parts = run_recipe(cache, tmp_path / "parts", **SHORT)
    assert same_weights(whole, parts) and log_without_speed(whole) == log_without_speed(parts)
    pictures = [run.out / "sentences-before.svg" for run in (whole, parts)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_aligning_a_finished_run_gives_the_same_weights_as_one_run_that_does_both(
        cache, tmp_path, whole, baseline):
    cfg, _ = parse_args(["--from_run", str(baseline.out), "--method", "align"])
    assert cfg == Config(**(SMALL | SHORT | dict(from_run=str(baseline.out))))
    later = train.Run(cfg, tmp_path / "later", cache, quiet=True)
    later.enter()
    train.recipe(later)
    assert same_weights(whole, later)
    assert [r["stage"] for r in log_without_speed(later)] == ["align sentences"] * 3


def test_from_a_run_only_align_can_be_added(baseline, cache, capsys):
    command = ["--from_run", str(baseline.out), "--cache", str(cache), "--method"]
    assert train.main([*command, "prealign+align"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "only +align can be added" in error
    assert train.main([*command, "baseline"]) == 2
    assert "leaves nothing to do" in capsys.readouterr().err
    # other tokens would mean other words
    for other in (["--seed", "5"], ["--languages", "en,reversed"], ["--words", "30000"]):
        assert train.main([*command, "align", *other]) == 2
        assert f"{' '.join(other)}: --from_run goes on with the data of" in capsys.readouterr().err


@pytest.mark.parametrize("changes, names", [
    (dict(cit_weight=0.0), {"mcl", "lm"}), (dict(mcl_weight=0.0), {"cit", "lm"}),
    (dict(afp_rows=0), {"mcl", "cit"}),
    (dict(mcl_weight=0.0, translations=1.0, answer_only=False, afp_rows=0), {"cit"}),
    (dict(mcl_pool="mean", mcl_layer=2, mcl_both_ways=False, mcl_same_language=True), {"mcl", "cit", "lm"})])
def test_the_systems_that_the_paper_compares_are_settings(cache, tmp_path, baseline, whole, changes, names):
    run = run_recipe(cache, tmp_path / "a", **SHORT | changes, from_run=str(baseline.out))
    last = log_without_speed(run)[-1]
    assert {"mcl", "cit", "lm"} & set(last) == names and not same_weights(run, whole)


@pytest.fixture
def stage(cache, tmp_path):
    """knobs -> a run that is about to align sentences."""
    def made(**knobs):
        return train.Run(Config(**SMALL | SHORT | knobs), tmp_path / "stage", cache, quiet=True)
    return made


def first_losses(run):
    return {name: (loss.item(), v.item()) for loss, values, _ in train.align_sentences(run, 0)
            for name, v in values.items()}


def test_each_loss_has_its_own_weight(stage):
    parts = first_losses(stage(mcl_weight=2.0, cit_weight=0.5, word_weight=3.0))
    assert {name: whole / part for name, (whole, part) in parts.items()} == pytest.approx(
        dict(mcl=2, cit=0.5, align=3, lm=1))
    assert {name: whole / part for name, (whole, part) in first_losses(stage()).items()} == pytest.approx(
        dict(mcl=1, cit=1.5, lm=1))


@pytest.mark.parametrize("cross, crossing", [(0.0, {0.0}), (0.5, {0.0, 1.0}), (1.0, {1.0})])
def test_cross_is_how_often_an_answer_changes_its_language(stage, monkeypatch, cross, crossing):
    seen, dialogues = [], tasks.dialogues
    monkeypatch.setattr(tasks, "dialogues", lambda *args: (seen.append(args), dialogues(*args))[1])
    run = stage(cross=cross, sentence_batch=40, translations=0.0)
    list(train.align_sentences(run, 0))
    _, _, _, asked, told, _ = seen[0]
    assert set((asked != told).astype(float)) == crossing


@pytest.mark.parametrize("answer_only", [True, False])
def test_the_question_is_scored_in_fine_tuning_alone(stage, monkeypatch, answer_only):
    seen = []
    def made(questions, answers, *how):
        rows = instruction_rows(questions, answers, *how)
        seen.append((questions, answers, rows[1]))
        return rows
    monkeypatch.setattr(train, "instruction_rows", made)
    list(train.align_sentences(stage(answer_only=answer_only, context_len=200), 0))
    questions, answers, targets = seen[0]
    scored = [len(a) + (0 if answer_only else len(q) - 1) for q, a in zip(questions, answers)]
    assert (targets != IGNORE).sum(axis=1).tolist() == scored


@pytest.mark.parametrize("knob", [
    dict(mcl_pool="mean"), dict(mcl_pool="max"), dict(mcl_layer=2), dict(mcl_tau=0.5), dict(mcl_both_ways=False),
    dict(mcl_same_language=True)])
def test_every_knob_of_the_contrast_changes_it(stage, knob):
    assert first_losses(stage(**knob))["mcl"] != pytest.approx(first_losses(stage())["mcl"], rel=1e-3)


def test_words_may_be_aligned_late_and_alone(cache, tmp_path, baseline):
    words_only = dict(mcl_weight=0.0, cit_weight=0.0, word_weight=1.0)
    run = run_recipe(cache, tmp_path / "late", **SHORT | words_only)
    rows = [row for row in log_without_speed(run) if row["stage"] == "align sentences"]
    assert all({"mcl", "cit", "lm", "align"} & set(row) == {"lm", "align"} for row in rows)
    assert rows[-1]["align"] < rows[0]["align"] and not same_weights(run, baseline)


def test_languages_left_out_are_met_in_plain_text_alone(cache, tmp_path, monkeypatch):
    run = train.Run(Config(**(SMALL | SHORT | dict(languages="en,clone,reversed", leave_out="reversed",
                                                   clone_share=0.5, afp_rows=0))),
                    tmp_path / "a", cache, quiet=True)
    V, seen = run.corpus.base_vocab, []
    hidden = run.model.hidden
    monkeypatch.setattr(
        run.model, "hidden", lambda tokens, **top: (seen.append(tokens), hidden(tokens, **top))[1])
    for step in range(5):
        list(train.align_sentences(run, step))
    assert run.aligned == [1] and {int(t) // V for tokens in seen for t in tokens.flatten()} == {0, 1}


@pytest.mark.parametrize("wrong, part", [
    (["--leave_out", "klingon"], "--leave_out klingon: languages of the run"),
    (["--leave_out", "clone"], "not all of them (clone)"), (["--leave_out", "en"], "beside English"),
    (["--mcl_layer", "5"], "--mcl_layer 5: the model has --n_layer 4"),
    (["--method", "align+forget"], "invalid choice"), (["--cross", "1.1"], "--cross 1.1 is out of range")])
def test_a_mistake_costs_one_line(capsys, wrong, part):
    try:
        assert train.main(wrong) == 2
    except SystemExit as stop:
        assert stop.code == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1


def test_an_aligned_run_is_evaluated_with_all_that_the_paper_measures(cache, tmp_path, capsys):
    changes = SHORT | dict(eval_items=4, generate_items=4, context_len=64, shots="0,1", steps=2, afp_steps=2)
    assert train.main(flags(cache, tmp_path / "a", **changes)) == 0
    assert "| en-clone" in capsys.readouterr().out
    summary = json.loads((tmp_path / "a" / "summary.json").read_text(encoding="utf-8"))
    assert summary["align"]["samples"] == 40
    assert 0 < summary["align"]["share"] == summary["align"]["tokens"] / summary["tokens"]
    assert set(summary["instructed"]) == {"en", "own"}
    assert set(summary["instructed"]["en"]) == set(tasks.FAMILIES)
    assert set(summary["instructed"]["own"]["nli"]["clone"]) == {"0", "1"}
    found = [scores["clone"]["1"] for scores in summary["instructed"]["own"].values()]
    assert summary["instructed_average"]["own"]["clone"]["1"] == pytest.approx(sum(found) / 5)
    assert set(summary["families_average"]["clone"]) == {"0", "1"}
    assert "translation" in summary and "answer_right" in summary
    for name in ("sentences.svg", "sentences-before.svg"):
        assert "<svg" in (tmp_path / "a" / name).read_text(encoding="utf-8")


def test_the_picture_shows_every_sentence_of_every_language_along_the_largest_variance():
    states = {"en": np.array([[0.0, 0, 3], [9, 0, 3]]), "a<b": np.array([[0.0, 1, 3], [9, 1, 3]])}
    plane, share = report.principal_plane(np.concatenate(list(states.values())))
    assert np.allclose(np.abs(plane), [[4.5, 0.5]] * 4) and share == pytest.approx(1)
    axes = np.eye(3) * [2, 1, 1]
    _, share = report.principal_plane(np.concatenate((axes, -axes)))
    assert share == pytest.approx(10 / 12)
    svg = report.scatter(states, 2, "mean")
    assert svg.count("<line") == 2 and svg.count('r="3"') == 4 and "a&lt;b" in svg
    assert "level 2, mean tokens<" in svg and ">100% of the variance<" in svg
    places = re.findall(r'cx="([0-9.]+)" cy="([0-9.]+)" r="3"', svg)
    (left, up), (right, down), *_ = [(float(x), float(y)) for x, y in places]
    assert abs(right - left) == pytest.approx(380, abs=0.2) and abs(up - down) < 1     # one scale for both


def test_examples_of_the_evaluation_are_from_dev_and_never_in_the_lessons(world):
    texts = {item.prompt for item in tasks.lessons(world, 1000, 0.2)}

    class Fake:
        pass
    corpus = Fake()
    corpus.world = world
    for keys in ([("translate", "contextual")], [("summary", "contextual")], generation.ONE_ANSWER):
        test, dev = generation.splits(corpus, 100, *keys)
        assert not texts & {item.prompt for item in test + dev}
        assert not {item.prompt for item in test} & {item.prompt for item in dev}


def test_examples_in_a_prompt_are_those_that_are_given_as_dev(corpus):
    test, dev = generation.splits(corpus, 20, ("translate", "contextual"))
    prompts = []
    def write(batch, most, stop):
        prompts.extend(batch)
        return [[] for _ in batch]
    assert generation.continuations(write, corpus, test, dev, "en", "clone", 1, 0, 1000, tasks.TRANSLATE)
    seen = "\n".join(corpus.decode(prompt) for prompt in prompts)
    assert all(seen.count(item.prompt) <= 1 for item in test)                # in its own prompt only
    assert sum(seen.count(item.prompt) for item in dev) >= 20


def test_the_demonstration_finds_translations_and_answers_in_the_language_asked_for(capsys):
    align.main()
    first, *_, last = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("step   0") and "100%" not in first
    assert last.startswith("step 100") and last.count("100%") == 2
