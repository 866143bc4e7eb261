"""Active forgetting in whole runs: resets, a new language, exercises, runs that start from another run."""
import json
import math
import shutil

import numpy as np
import pytest
import torch

import train
from data.lab import measures
from data.lab.options import Config, flags_of, parse_args
from data.lab.run import Run
from data.lab.runs import load_checkpoint
from forget import assemble
from model import GPT, ModelConfig, lr_multiplier
from test_train import SMALL, flags, log_without_speed, run_recipe, same_weights

SHORT = dict(method="forget", steps=12, reset_every=4, reset_until=1.0, adapt_steps=8, adapt_tokens=5000,
             adapt_replay=0, instruct_steps=0, log_every=2)  # resets before steps 4 and 8


# --- in a run -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """Resets, then a new language."""
    return run_recipe(cache, tmp_path_factory.mktemp("runs") / "whole", **SHORT)


@pytest.fixture(scope="module")
def baseline(cache, tmp_path_factory):
    """Pretraining without resets and without a new language."""
    return run_recipe(cache, tmp_path_factory.mktemp("runs") / "baseline",
                      **SHORT | dict(method="baseline", adapt_to="none"))


@pytest.mark.parametrize("never", [dict(reset_every=0), dict(reset_until=0.2)])
def test_forgetting_without_resets_is_the_baseline_bit_for_bit(cache, tmp_path, baseline, never):
    off = run_recipe(cache, tmp_path / "off", **SHORT | dict(adapt_to="none") | never)
    assert same_weights(off, baseline) and log_without_speed(off) == log_without_speed(baseline)


def test_resets_change_what_is_learned_and_only_the_embedding_has_a_clock_of_its_own(
        cache, tmp_path, baseline):
    run = run_recipe(cache, tmp_path / "forget", **SHORT | dict(adapt_to="none"))
    assert not same_weights(run, baseline)
    first, second = (log_without_speed(r) for r in (run, baseline))
    # before the first reset only the embedding's rate and the clipping differ
    assert first[0]["lr"] == second[0]["lr"] and first[2]["lm"] > second[2]["lm"]
    lr = {g["name"]: g["lr"] / g["peak_lr"] for g in load_checkpoint(
        run.out / "last.pt")["optimizer"]["param_groups"]}
    assert lr["embed"] == pytest.approx(lr_multiplier(3, 4, train.WARMUP))         # step 11 of 8 ... 12
    assert lr["body"] == lr["norms"] == lr["head"] == pytest.approx(lr_multiplier(11, 12, train.WARMUP))


@pytest.mark.parametrize("stop_after", [
    ("pretrain", 4), ("pretrain", 6), ("pretrain", 12), ("adapt", 3)])
def test_a_run_stopped_around_a_reset_or_while_adapting_resumes_exactly(
        cache, tmp_path, whole, stop_after):
    run_recipe(cache, tmp_path / "parts", stop_after=stop_after, **SHORT)
    parts = run_recipe(cache, tmp_path / "parts", **SHORT)
    assert same_weights(whole, parts)
    assert log_without_speed(whole) == log_without_speed(parts)


def test_a_finished_run_is_loaded_as_it_was(cache, tmp_path, whole):
    shutil.copytree(whole.out, tmp_path / "a")
    again = run_recipe(cache, tmp_path / "a", **SHORT)
    assert same_weights(whole, again) and log_without_speed(whole) == log_without_speed(again)


def test_resets_half_of_the_way_are_resumed_exactly_too(cache, tmp_path):
    odd = SHORT | dict(reset_blend=0.5, adapt_to="none")
    run_recipe(cache, tmp_path / "parts", stop_after=("pretrain", 6), **odd)
    parts = run_recipe(cache, tmp_path / "parts", **odd)
    assert same_weights(run_recipe(cache, tmp_path / "whole", **odd), parts)


def test_adapting_leaves_all_but_the_new_rows_as_they_were(cache, tmp_path, whole):
    run_recipe(cache, tmp_path / "a", stop_after=("pretrain", 12), **SHORT)
    before = load_checkpoint(tmp_path / "a" / "last.pt")["model"]
    after = whole.model.state_dict()
    assert before.keys() == after.keys()
    for name, was in before.items():
        assert torch.equal(was, after[name][:len(was)])
        expanded = 3 / 2 if name in ("embed.weight", "head.weight") else 1
        assert len(after[name]) == expanded * len(was)
    rows = [row for row in log_without_speed(whole) if row["stage"] == "adapt"]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert rows[-1]["val"]["clone2"] < rows[0]["val"]["clone2"]


def test_exercises_at_the_end_train_the_body_alone_and_are_resumed_exactly(cache, tmp_path, baseline):
    long = SHORT | dict(method="baseline", adapt_to="none", from_run=str(baseline.out), instruct_steps=4)
    taught = run_recipe(cache, tmp_path / "whole", **long)
    for name, was in baseline.model.state_dict().items():
        same = torch.equal(was, taught.model.state_dict()[name])
        assert same == (name in ("embed.weight", "head.weight"))
    run_recipe(cache, tmp_path / "parts", stop_after=("instruct", 2), **long)
    parts = run_recipe(cache, tmp_path / "parts", **long)
    assert same_weights(taught, parts) and log_without_speed(taught) == log_without_speed(parts)


@pytest.mark.parametrize("body, stop_after", [("adapters", ("adapt", 3)), ("whole", ("instruct", 1))])
def test_a_body_that_learns_with_the_new_rows_is_resumed_exactly(cache, tmp_path, baseline, body, stop_after):
    odd = SHORT | dict(method="baseline", from_run=str(baseline.out), adapt_to="clone2", adapt_body=body)
    weights, before = (run.model.state_dict() for run in (run_recipe(cache, tmp_path / "alone", **odd), baseline))
    assert weights.keys() == before.keys()                     # adapters are merged
    assert not torch.equal(weights["body.0.feed_in.weight"], before["body.0.feed_in.weight"])
    assert torch.equal(weights["embed.weight"][:len(before["embed.weight"])], before["embed.weight"])
    odd |= dict(instruct_steps=2)
    learned = run_recipe(cache, tmp_path / "whole", **odd)
    run_recipe(cache, tmp_path / "parts", stop_after=stop_after, **odd)
    parts = run_recipe(cache, tmp_path / "parts", **odd)
    assert same_weights(learned, parts) and log_without_speed(learned) == log_without_speed(parts)


def test_text_of_old_languages_has_its_share_of_every_batch(cache, tmp_path):
    run = Run(Config(**(SMALL | SHORT | dict(method="baseline", adapt_to="clone2", batch_size=4,
                                             adapt_replay=0.25))), tmp_path / "a", cache, quiet=True)
    base = run.corpus.base_vocab
    run.corpus.add_language("clone2", 3000)
    seen = []
    train.lm_parts, keep = (lambda run, model, inputs, targets: seen.append(inputs)), train.lm_parts
    try:
        train.adapt(run, 0)
        train.adapt(run, 1)
    finally:
        train.lm_parts = keep
    for rows in seen:
        assert rows.shape[0] == 8 and (rows[:6] // base == 2).all() and (rows[6:] // base < 2).all()
    assert not np.array_equal(*seen)


def test_replay_keeps_the_share_that_old_text_gives_to_new_tokens_small(cache, tmp_path, baseline):
    def loss_on_english(replay):
        run = run_recipe(cache, tmp_path / str(replay), **SHORT | dict(
            method="baseline", adapt_to="clone2", from_run=str(baseline.out), adapt_steps=20,
            adapt_replay=replay))
        return log_without_speed(run)[-1]["val"]["en"]
    assert loss_on_english(0.5) < loss_on_english(0.0)


def test_a_tuned_body_is_put_under_the_embeddings_of_a_new_language(cache, tmp_path, baseline, capsys):
    """The protocol of Chen et al., in two runs."""
    start = SHORT | dict(method="baseline", from_run=str(baseline.out))
    tuned = run_recipe(cache, tmp_path / "tuned", **start | dict(adapt_to="none", instruct_steps=4))
    learned = run_recipe(cache, tmp_path / "learned", **start | dict(adapt_to="clone2", adapt_rows="all"))
    both = run_recipe(cache, tmp_path / "both", **start | dict(
        adapt_to="clone2", adapt_rows="all", body_from=str(tuned.out)))
    for name, found in both.model.state_dict().items():
        source = learned if name.startswith(("embed", "head")) else tuned
        assert torch.equal(found, source.model.state_dict()[name]), name
    assert train.main(["--from_run", str(baseline.out), "--adapt_to", "clone2", "--body_from",
                       str(baseline.out), "--cache", str(cache), "--out", str(tmp_path / "no")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "of pretrain; give a finished run with --instruct_steps" in error
    with pytest.raises(ValueError, match="differs in shape"):
        assemble(tuned.model.state_dict(), GPT(ModelConfig(400, 1, 2, 32, 16)))


# --- the saw-tooth ------------------------------------------------------------------------------------------

def test_a_forgetting_run_reports_its_recovery(cache, tmp_path, whole):
    resets = train.reset_schedule(whole.cfg)
    found = measures.of_training(whole, resets)
    assert [r["step"] for r in found["recovery"]] == resets.at == [4, 8]
    assert set(found["adapt"]["clone2"]["perplexity"]) == {"2", "4", "6", "8"}


# --- from a pretrained run ----------------------------------------------------------------------------------

def test_adapting_a_finished_run_gives_the_same_weights_as_one_run_that_does_both(cache, tmp_path, baseline):
    both = run_recipe(cache, tmp_path / "both", **SHORT | dict(method="baseline", adapt_to="clone2"))
    later = SHORT | dict(method="baseline", adapt_to="clone2", from_run=str(baseline.out))
    run_recipe(cache, tmp_path / "later", stop_after=("adapt", 5), **later)
    after = run_recipe(cache, tmp_path / "later", **later)
    assert same_weights(both, after)
    assert [r for r in log_without_speed(both) if r["stage"] == "adapt"] == log_without_speed(after)
    assert load_checkpoint(baseline.out / "last.pt")["stage"] == "pretrain"


def test_a_run_from_another_takes_over_its_configuration(baseline):
    cfg, _ = parse_args(["--from_run", str(baseline.out), "--adapt_to", "reversed", "--adapt_steps", "9"])
    changed = dict(from_run=str(baseline.out), adapt_to="reversed", adapt_steps=9)
    assert cfg == Config(**(SMALL | SHORT | dict(method="baseline") | changed))


def test_the_printed_flags_of_a_run_from_another_give_the_same_configuration(tmp_path, baseline):
    cfg, _ = parse_args(["--from_run", str(baseline.out), "--adapt_to", "clone2", "--log_every", "100"])
    assert parse_args(flags_of(cfg, tmp_path).split())[0] == cfg


@pytest.mark.parametrize("state", ["no folder", "stopped", "adapted", "no checkpoint"])
def test_only_a_finished_pretraining_can_be_started_from(cache, tmp_path, whole, capsys, state):
    folder = whole.out if state == "adapted" else tmp_path / "first"
    part = "step 8 of adapt" if state == "adapted" else "config.json is missing"
    if state == "stopped":
        run_recipe(cache, folder, stop_after=("pretrain", 8), **SHORT)
        part = "step 8 of pretrain"
    elif state == "no checkpoint":
        Run(Config(**(SMALL | SHORT)), folder, cache).enter()
        part = "last.pt"
    capsys.readouterr()
    assert train.main(["--from_run", str(folder), "--adapt_to", "reversed", "--cache", str(cache),
                       "--out", str(tmp_path / "later")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(folder) in error and part in error


# --- commands -----------------------------------------------------------------------------------------------

def test_an_adapted_run_is_evaluated_and_sampled_in_its_new_language(cache, tmp_path, whole, capsys):
    out = shutil.copytree(whole.out, tmp_path / "a")
    command, weights = flags(cache, out, **SHORT), (out / "last.pt").read_bytes()
    assert train.main([*command, "--eval_only"]) == 0
    assert "clone2" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["perplexity"]) == {"en", "clone", "clone2"}
    for name, loss in log_without_speed(whole)[-1]["val"].items():
        assert math.log(summary["perplexity"][name]) == pytest.approx(loss, abs=0.01)
    assert "null" not in json.dumps(summary)
    assert "clone2: " in (out / "samples.txt").read_text(encoding="utf-8")
    assert train.main([*command, "--sample", "Anna"]) == 0
    assert any(line.startswith("clone2: ⟨Anna") for line in capsys.readouterr().out.splitlines())
    assert (out / "last.pt").read_bytes() == weights
