"""AFP in whole runs: the stage of aligned sentences, its losses, languages and settings."""
import json

import pytest
import torch

import train
from align import instruction_rows
from data import tasks
from data.files import UserError
from data.lab.options import Config, parse_args
from data.lab.run import Run
from model import IGNORE
from test_train import SMALL, flags, log_without_speed, run_recipe, same_weights

SHORT = dict(method="align", steps=6, afp_steps=6, afp_samples=40, afp_rows=1, afp_batch=4, log_every=2)


def test_the_loss_on_answers_asks_the_head_for_these_alone_and_is_the_same(tmp_path, cache):
    run = Run(Config(**SMALL | SHORT), tmp_path / "run", cache, quiet=True)
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


# --- the stage in a run -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    return run_recipe(cache, tmp_path_factory.mktemp("align") / "whole", **SHORT)


@pytest.fixture(scope="module")
def baseline(cache, tmp_path_factory):
    return run_recipe(cache, tmp_path_factory.mktemp("align") / "baseline", **SHORT | dict(method="baseline"))


def test_without_its_two_losses_align_is_the_baseline_bit_for_bit(cache, tmp_path, whole, baseline):
    off = run_recipe(cache, tmp_path / "off", **SHORT, afp_mcl_weight=0.0, afp_cit_weight=0.0)
    assert same_weights(off, baseline) and not same_weights(whole, baseline)


@pytest.mark.parametrize("stop_after", [("pretrain", 6), ("align sentences", 2), ("align sentences", 6)])
def test_a_run_stopped_in_or_before_the_stage_and_resumed_equals_one_without_a_stop(
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
    later = Run(cfg, tmp_path / "later", cache, quiet=True)
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
        assert f"{' '.join(other)}: --from_run takes data, model and pretraining from" in capsys.readouterr().err


@pytest.mark.parametrize("changes, names", [
    (dict(afp_cit_weight=0.0), {"afp_mcl", "lm"}), (dict(afp_mcl_weight=0.0), {"afp_cit", "lm"}),
    (dict(afp_rows=0), {"afp_mcl", "afp_cit"}),
    (dict(afp_mcl_weight=0.0, afp_translations=1.0, afp_answer_only=False, afp_rows=0), {"afp_cit"}),
    (dict(afp_mcl_pool="mean", afp_mcl_layer=2, afp_mcl_symmetric=False), {"afp_mcl", "afp_cit", "lm"})])
def test_the_systems_that_the_paper_compares_are_settings(cache, tmp_path, baseline, whole, changes, names):
    run = run_recipe(cache, tmp_path / "a", **SHORT | changes, from_run=str(baseline.out))
    last = log_without_speed(run)[-1]
    assert {"afp_mcl", "afp_cit", "lm"} & set(last) == names and not same_weights(run, whole)


@pytest.fixture
def stage(cache, tmp_path):
    """options -> a run that is about to align sentences."""
    def made(**options):
        return Run(Config(**SMALL | SHORT | options), tmp_path / "stage", cache, quiet=True)
    return made


def first_losses(run):
    return {name: (loss.item(), v.item()) for loss, values, _ in train.align_sentences(run, run.training_samples(), 0)
            for name, v in values.items()}


def test_each_loss_has_its_own_weight(stage):
    parts = first_losses(stage(afp_mcl_weight=2.0, afp_cit_weight=0.5, afp_word_weight=3.0))
    assert {name: whole / part for name, (whole, part) in parts.items()} == pytest.approx(
        dict(afp_mcl=2, afp_cit=0.5, prealign=3, lm=1))
    assert {name: whole / part for name, (whole, part) in first_losses(stage()).items()} == pytest.approx(
        dict(afp_mcl=1, afp_cit=1.5, lm=1))


@pytest.mark.parametrize("cross, crossing", [(0.0, {0.0}), (0.5, {0.0, 1.0}), (1.0, {1.0})])
def test_cross_is_how_often_an_answer_changes_its_language(stage, monkeypatch, cross, crossing):
    seen, examples = [], tasks.instruction_examples
    monkeypatch.setattr(tasks, "instruction_examples", lambda *args: (seen.append(args), examples(*args))[1])
    run = stage(afp_cross=cross, afp_batch=40, afp_translations=0.0)
    list(train.align_sentences(run, run.training_samples(), 0))
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
    run = stage(afp_answer_only=answer_only, context_len=200)
    list(train.align_sentences(run, run.training_samples(), 0))
    questions, answers, targets = seen[0]
    scored = [len(a) + (0 if answer_only else len(q) - 1) for q, a in zip(questions, answers)]
    assert (targets != IGNORE).sum(axis=1).tolist() == scored


@pytest.mark.parametrize("changed", [
    dict(afp_mcl_pool="mean"), dict(afp_mcl_layer=2), dict(afp_mcl_symmetric=False)])
def test_every_option_of_the_contrast_changes_it(stage, changed):
    assert first_losses(stage(**changed))["afp_mcl"] != pytest.approx(first_losses(stage())["afp_mcl"], rel=1e-3)


def test_words_may_be_aligned_late_and_alone(cache, tmp_path, baseline):
    words_only = dict(afp_mcl_weight=0.0, afp_cit_weight=0.0, afp_word_weight=1.0)
    run = run_recipe(cache, tmp_path / "late", **SHORT | words_only)
    rows = [row for row in log_without_speed(run) if row["stage"] == "align sentences"]
    assert all({"afp_mcl", "afp_cit", "lm", "prealign"} & set(row) == {"lm", "prealign"} for row in rows)
    assert rows[-1]["prealign"] < rows[0]["prealign"] and not same_weights(run, baseline)


def test_languages_left_out_are_met_in_plain_text_alone(cache, tmp_path, monkeypatch):
    run = Run(Config(**(SMALL | SHORT | dict(languages="en,clone,reversed", afp_leave_out="reversed",
                                                   clone_share=0.5, afp_rows=0))),
                    tmp_path / "a", cache, quiet=True)
    V, seen = run.corpus.base_vocab, []
    hidden = run.model.hidden
    monkeypatch.setattr(
        run.model, "hidden", lambda tokens, **top: (seen.append(tokens), hidden(tokens, **top))[1])
    for step in range(5):
        list(train.align_sentences(run, run.training_samples(), step))
    assert run.aligned_languages() == [1] and {int(t) // V for tokens in seen for t in tokens.flatten()} == {0, 1}


def test_task_families_left_out_are_not_practised(cache, tmp_path):
    left_out = ",".join(tasks.FAMILIES)
    run = Run(Config(**SMALL | SHORT | dict(afp_leave_out=left_out, afp_samples=1000)), tmp_path / "a", cache, quiet=True)
    prompts = {name: {item.prompt for item in run.corpus.items(name, "train", 10**6)} for name in tasks.WORLD_TASKS}
    asked = [item.prompt for item in run.training_samples() if item.task != "translate"]
    counts = {name: sum(prompt in known for prompt in asked) for name, known in prompts.items()}
    assert counts == dict.fromkeys(tasks.FAMILIES, 0) | dict(question=334, summary=166)
    assert run.aligned_languages() == [1]
    too_many = Run(Config(**SMALL | SHORT | dict(afp_leave_out=left_out, afp_samples=4000)), tmp_path / "b", cache, quiet=True)
    with pytest.raises(UserError, match="has only 3500 of 4000 training samples"):
        too_many.training_samples()


@pytest.mark.parametrize("wrong, part", [
    (["--afp_leave_out", "klingon"], "--afp_leave_out klingon: leave out some of clone"),
    (["--afp_leave_out", "clone"], "leave out some of clone, not all"),
    (["--afp_leave_out", "en"], "--afp_leave_out en: leave out some of clone"),
    (["--afp_mcl_layer", "5"], "--afp_mcl_layer 5: the model has --n_layer 4"),
    (["--method", "align+forget"], "invalid choice"), (["--afp_cross", "1.1"], "--afp_cross 1.1 is out of range")])
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
    assert "BLEU from English" in capsys.readouterr().out
    summary = json.loads((tmp_path / "a" / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["instructed_average"]["own"]["clone"]) == {"0", "1"}
    assert set(summary["families_average"]["clone"]) == {"0", "1"}
    assert "translation" in summary and "answer_right" in summary
    before, both = [(tmp_path / "a" / name).read_text(encoding="utf-8") for name in ("sentences-before.svg", "sentences.svg")]
    assert both.count("before AFP:") == before.count("before AFP:") == 2        # the title, and the same as text
    assert both.count("after AFP:") == 2 and "after AFP:" not in before


