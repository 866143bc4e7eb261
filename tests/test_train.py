"""The loop and its promises: resume, options at zero, evaluation that changes nothing, one clear line for
mistakes."""
import json
import math
import warnings
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import train
from data.files import UserError
from data.lab import tables
from data.lab.options import Config, data_name, flags_of, parse_args
from data.lab.run import Run
from data.lab.runs import load_checkpoint, reading
from model import lr_multiplier
from train import recipe

SMALL = dict(words=20_000, vocab_size=400, n_layer=2, n_head=2, d_model=32, context_len=32, batch_size=4,
             steps=14, prealign_steps=6, prealign_words=16, prealign_rows=2, log_every=4, eval_items=6,
             transfer_steps=0, dtype="float32", device="cpu")


def run_recipe(cache, out, stop_after=None, **changes):
    """Train without evaluation and return the run; stop_after interrupts after that many log rows, as Ctrl-C
    would."""
    run = Run(Config(**(SMALL | dict(method="prealign") | changes)), out, cache, quiet=True)
    run.enter()
    if stop_after:
        run.log = lambda row, log=run.log: (
            log(row),
            setattr(run, "stop", row["step"] >= stop_after[1] and row["stage"] == stop_after[0]))
        with pytest.raises(train.Interrupted):
            recipe(run)
    else:
        recipe(run)
    return run


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in
               zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True))


def log_without_speed(run):
    rows = [json.loads(line) for line in (run.out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k != "tok_s"} for row in rows]


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """A run without a stop that others are compared with."""
    return run_recipe(cache, tmp_path_factory.mktemp("runs") / "whole")


# --- options at zero ------------------------------------------------------------------------------------------

def test_prealign_without_its_two_parts_is_the_baseline_bit_for_bit(cache, tmp_path):
    off = run_recipe(cache, tmp_path / "off", prealign_steps=0, code_switch=0.0)
    baseline = run_recipe(cache, tmp_path / "baseline", method="baseline")
    assert same_weights(off, baseline)
    assert not same_weights(off, run_recipe(cache, tmp_path / "switched", prealign_steps=0, code_switch=0.5))


def test_aligning_words_still_sees_the_same_number_of_text_tokens(whole):
    assert whole.cfg.pretrain_steps == 14 - 6 * 2 // 4
    assert Config(**(SMALL | dict(method="baseline"))).pretrain_steps == 14


# --- resume -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stop_after", [
    ("align words", 4), ("align words", 6), ("pretrain", 4), ("pretrain", 8)])
def test_a_run_stopped_and_resumed_equals_one_without_a_stop(cache, tmp_path, whole, stop_after):
    run_recipe(cache, tmp_path / "parts", stop_after=stop_after)
    parts = run_recipe(cache, tmp_path / "parts")
    assert same_weights(whole, parts)
    assert log_without_speed(whole) == log_without_speed(parts)


def test_compiled_training_resumes_exactly_and_is_close_to_uncompiled_in_every_stage(
        cache, tmp_path, monkeypatch):
    """Graphs are captured and differentiated as always, but run by torch: the C++ compiler takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    short = dict(steps=6, prealign_steps=2, log_every=2, dtype="bfloat16")
    whole = run_recipe(cache, tmp_path / "whole", compile=True, **short)
    run_recipe(cache, tmp_path / "parts", stop_after=("pretrain", 2), compile=True, **short)
    parts = run_recipe(cache, tmp_path / "parts", compile=True, **short)
    plain = run_recipe(cache, tmp_path / "plain", **short)
    assert same_weights(whole, parts)
    assert list(whole.model.state_dict()) == list(plain.model.state_dict())
    for a, b in zip(log_without_speed(whole), log_without_speed(plain), strict=True):
        assert a["lm"] == pytest.approx(b["lm"], abs=0.02)     # bf16 rounds at other places


def test_stopping_between_log_rows_loses_no_part_of_the_next_row(cache, tmp_path):
    whole = run_recipe(cache, tmp_path / "whole", prealign_steps=0)
    run = Run(Config(**(SMALL | dict(method="prealign", prealign_steps=0))), tmp_path / "parts", cache,
              quiet=True)
    run.enter()
    text_rows = train.text_rows

    def stop_at_step_six(run, stream, step, n):
        run.stop = step == 5
        return text_rows(run, stream, step, n)

    train.text_rows = stop_at_step_six
    try:
        with pytest.raises(train.Interrupted):
            recipe(run)
    finally:
        train.text_rows = text_rows
    parts = run_recipe(cache, tmp_path / "parts", prealign_steps=0)
    assert same_weights(whole, parts) and log_without_speed(whole) == log_without_speed(parts)


def flags(cache, out, **changes):
    wanted = SMALL | dict(method="prealign", out=out, cache=cache) | changes
    return [part for k, v in wanted.items() for part in (f"--{k}", str(v))]


# --- evaluation is invisible --------------------------------------------------------------------------------

def test_how_often_we_look_does_not_change_what_is_learned(cache, tmp_path, whole):
    assert same_weights(whole, run_recipe(cache, tmp_path / "often", log_every=2, log_items=3))
    rows = [json.loads(line) for line in (tmp_path / "often" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("copying" in row for row in rows)


def test_evaluation_leaves_the_model_and_the_global_generator_alone(cache, tmp_path):
    run = run_recipe(cache, tmp_path / "a", transfer_steps=2)
    weights, state = {k: v.clone() for k, v in run.model.state_dict().items()}, torch.get_rng_state()
    first = train.evaluate(run)
    assert all(torch.equal(v, weights[k]) for k, v in run.model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert first == train.evaluate(run)


# --- the loop -----------------------------------------------------------------------------------------------

def test_parts_of_a_batch_add_up_to_the_whole_batch(cache, tmp_path, whole):
    parts = run_recipe(cache, tmp_path / "parts", accumulate=2)
    for x, y in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        # sums in another order round differently
        assert torch.allclose(x, y, atol=1e-4)


def test_learning_rate_rises_to_one_and_falls_to_a_tenth():
    rates = [lr_multiplier(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1, abs=1e-3) and all(a > b for a, b in zip(rates[10:], rates[11:]))
    # numpy's would make a checkpoint unreadable
    assert all(type(r) is float for r in rates)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_state(cache, tmp_path):
    run_recipe(cache, tmp_path / "a", prealign_steps=0, stop_after=("pretrain", 4))
    before = (tmp_path / "a" / "last.pt").read_bytes()
    run = Run(Config(**(SMALL | dict(method="prealign", prealign_steps=0))), tmp_path / "a", cache, quiet=True)
    run.enter()
    run.checkpoint["model"]["final_norm.weight"].fill_(math.nan)
    with pytest.raises(UserError, match="pretrain.*not finite by step 8"):
        recipe(run)
    assert (tmp_path / "a" / "last.pt").read_bytes() == before


def test_overfitting_one_batch_works(cache, tmp_path, capsys):
    assert train.main(["--overfit", *flags(cache, tmp_path / "o", method="baseline", lr=0.01)]) == 0
    assert "learned" in capsys.readouterr().out


def test_more_languages_with_changed_word_order_train_and_evaluate(cache, tmp_path):
    cfg = Config(**(SMALL | dict(method="prealign", languages="en,clone,reversed,shuffled-4", clone_share=0.5,
                                 steps=8, prealign_steps=2)))
    summary = train.train(cfg, tmp_path / "a", cache, quiet=True)
    assert set(summary["perplexity"]) == {"en", "clone", "reversed", "shuffled-4"}


# --- what a run writes --------------------------------------------------------------------------------------

def numbers(tree):
    if isinstance(tree, dict):
        return [n for v in tree.values() for n in numbers(v)]
    if isinstance(tree, list):
        return [n for v in tree for n in numbers(v)]
    return [tree] if isinstance(tree, (int, float)) else []


def test_summary_holds_what_the_readme_lists_and_nothing_is_null(cache, tmp_path):
    cfg = Config(**(SMALL | dict(method="prealign", transfer_steps=2, dictionary_coverage=0.7, shots="0,2")))
    train.train(cfg, tmp_path / "a", cache, quiet=True)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text(encoding="utf-8"))
    assert {
        "method", "preset", "data", "seed", "device", "dtype", "minutes", "peak_memory_gb", "tokens", "parameters",
        "languages",
        "perplexity", "bits_per_byte", "knowledge", "knowledge_n", "knowledge_told_in_clone",
        "knowledge_told_in_both", "knowledge_mixed", "transfer", "tasks", "tasks_average", "families_average",
        "chance", "word_cosine",
        "word_retrieval", "held_out_word_retrieval", "held_out_word_cosine", "word_n", "held_out_word_n",
        "sentences", "sentences_embedding",
        "perplexity_per_word", "perplexity_n", "self_similarity", "foreign_mass_in_english",
        "perplexity_of_rare", "self_similarity_adjusted",
        "perplexity_in_other_order", "afp_states"} == set(summary)
    assert len(summary["word_cosine"]) == cfg.n_layer + 2
    assert set(summary["tasks"]["nli"]["lexical"]["clone"]) == {"0", "2"}
    assert summary["tasks"]["nli"]["lexical"]["clone"]["0"]["n"] == cfg.eval_items
    assert "null" not in json.dumps(summary) and all(math.isfinite(n) for n in numbers(summary))
    assert not list((tmp_path / "a").glob("*.tmp"))


def test_what_a_model_writes_is_measured_when_asked_for(cache, tmp_path):
    cfg = Config(**(SMALL | dict(method="baseline", generate_items=4, context_len=128, steps=4)))
    summary = train.train(cfg, tmp_path / "a", cache, quiet=True)
    assert set(summary["translation"]["clone-en"]) == {"0", "1"}
    assert set(summary["answer_language"]) == set(summary["answer_right"]) == {"en-clone", "clone-en"}
    assert 0 <= summary["summary_rouge1"]["en-clone"] <= 1
    assert "BLEU into English" in tables.show(summary)


def test_a_baseline_with_a_whole_dictionary_has_no_held_out_words(cache, tmp_path):
    summary = train.train(Config(**(SMALL | dict(method="baseline"))), tmp_path / "a", cache, quiet=True)
    assert not {"held_out_word_retrieval", "transfer"} & set(summary)


def test_the_same_command_shows_a_finished_run_and_another_configuration_is_refused(cache, tmp_path, capsys):
    command = flags(cache, tmp_path / "a", steps=6, prealign_steps=2)
    assert train.main(command) == 0
    written = {name: (tmp_path / "a" / name).read_bytes() for name in train.FILES}
    capsys.readouterr()
    assert train.main(command) == 0
    assert "perplexity" in capsys.readouterr().out
    assert written == {name: (tmp_path / "a" / name).read_bytes() for name in train.FILES}
    assert train.main([*command, "--lr", "0.1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "lr 0.003 there, 0.1 here" in error and "--fresh" in error
    assert train.main([*command, "--sample", "Anna was"]) == 0
    assert "clone: ⟨" in capsys.readouterr().out
    assert train.main([*command, "--eval_only"]) == 0
    assert train.main([*command, "--lr", "0.1", "--fresh"]) == 0
    assert json.loads((tmp_path / "a" / "config.json").read_text(encoding="utf-8"))["lr"] == 0.1
    capsys.readouterr()
    assert train.main(["--report", str(tmp_path / "a")]) == 0
    assert " a |" in capsys.readouterr().out.splitlines()[0]


def test_the_printed_flags_give_the_same_configuration(tmp_path):
    cfg = Config(**(SMALL | dict(method="prealign", languages="en,clone,reversed")))
    again, modes = parse_args(flags_of(cfg, tmp_path).split())
    assert again == cfg and modes.out == str(tmp_path)


# --- mistakes -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong, part", [
    (["--metod", "prealign"], "did you mean --method?"),
    (["--meth", "prealign"], "unknown argument --meth"),
    (["--method", "PreAlign"], "did you mean prealign?"),
    (["prealign"], "use --method prealign"),
    (["--method", "magic"], "invalid choice: 'magic'"),
    (["--code_switch", "1.5"], "--code_switch 1.5 is out of range: 0 to 1"),
    (["--lr", "0"], "--lr 0.0 is out of range"),
    (["--steps", "ten"], "invalid int value: 'ten'"),
    (["--lr", "nan"], "--lr nan is out of range"),
    (["--languages", "en,klingon"], "language 'klingon' is unknown"),
    (["--languages", "en"], "at least one other"),
    (["--languages", "en,shuffled-1"], "language 'shuffled-1' is unknown"),
    (["--n_head", "3"], "n_head"),
    (["--method", "prealign", "--steps", "10"], "leaves nothing to pretrain on"),
    (["--text", "no/such/file.txt"], "no/such/file.txt cannot be read"),
    (["--report", "no/such/run"], "summary.json is missing"),
    (["--shots", "a"], "numbers separated by commas"),
    (["--context_len", "8", "--vocab_size", "257", "--steps", "1"], "--context_len 8: the dictionary has a word"),
])
def test_a_mistake_costs_one_line_and_exit_code_two(cache, tmp_path, capsys, wrong, part):
    try:
        code = train.main([*wrong, "--cache", str(cache), "--out", str(tmp_path / "run"), "--words", "20000"])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and part in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_sampling_before_training_names_the_command_that_trains(cache, tmp_path, capsys):
    assert train.main([*flags(cache, tmp_path / "none"), "--sample", "x"]) == 2
    assert "train first with python train.py --method prealign" in capsys.readouterr().err


def test_the_text_of_a_user_becomes_english(cache, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text("".join(f"The {a} fox number {b} jumps.\n" for a in ("red", "blue") for b in range(100)),
                    encoding="utf-8")
    cfg = replace(Config(**SMALL), text=str(text), steps=4)
    assert data_name(cfg) == "mine"
    summary = train.train(cfg, tmp_path / "run", cache, quiet=True)
    assert summary["data"] == "mine" and "knowledge" in summary


# --- what a checkpoint and a folder keep --------------------------------------------------------------------

def test_seconds_of_training_add_up_over_rows_and_stops(cache, tmp_path):
    run_recipe(cache, tmp_path / "a", stop_after=("pretrain", 4))
    stopped = load_checkpoint(tmp_path / "a" / "last.pt")["seconds"]
    run = Run(Config(**(SMALL | dict(method="prealign"))), tmp_path / "a", cache, quiet=True)
    run.enter()
    assert run.seconds == stopped > 0
    recipe(run)
    last, before = (load_checkpoint(tmp_path / "a" / name)["seconds"] for name in ("last.pt", "previous.pt"))
    assert last == run.seconds > before > stopped


def test_a_run_keeps_the_number_type_of_its_folder_unless_it_is_fresh(cache, tmp_path):
    cfg = Config(**(SMALL | dict(dtype="auto")))
    best = Run(cfg, tmp_path / "none", cache, quiet=True).dtype
    other = "float32" if best == "bfloat16" else "bfloat16"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(json.dumps(dict(dtype_used=other)), encoding="utf-8")
    assert Run(cfg, tmp_path / "a", cache, quiet=True).dtype == other
    assert Run(cfg, tmp_path / "a", cache, quiet=True, fresh=True).dtype == best


def test_fresh_removes_every_file_of_a_run_and_nothing_else(cache, tmp_path):
    run = run_recipe(cache, tmp_path / "a", method="baseline", steps=8)
    for name in ("samples.txt", "sentences.svg", "sentences-before.svg", "summary.json", "mine.txt"):
        (run.out / name).write_text("x", encoding="utf-8")
    run.clear()
    assert [path.name for path in run.out.iterdir() if path.is_file() and path.name != "lock"] == ["mine.txt"]


def test_the_log_of_a_run_without_a_checkpoint_starts_empty(cache, tmp_path):
    run = Run(Config(**(SMALL | dict(method="baseline"))), tmp_path / "a", cache, quiet=True)
    run.out.mkdir()
    (run.out / "log.jsonl").write_text('{"stage": "pretrain", "step": 4}\n', encoding="utf-8")
    run.enter()
    assert run.rows() == []


def test_a_report_on_results_without_numbers_is_a_mistake_of_the_user():
    with pytest.raises(UserError, match="mine: damaged results"), reading("mine"):
        warnings.warn("Mean of empty slice", RuntimeWarning)


def test_a_checkpoint_is_measured_in_the_dtype_of_training_and_fine_tuned_outside_of_it(monkeypatch):
    """Autocast keeps its copies of the weights until it ends, so training inside of it would not see updates."""
    seen, cfg = {}, SimpleNamespace(pretrained="x", transfer_steps=1, eval_items=2)

    def spy(name, result):
        def call(*arguments):
            seen[name] = torch.is_autocast_enabled("cpu")
            return result
        return call

    monkeypatch.setattr(train.measures, "evaluate_all", spy("measures", {}))
    monkeypatch.setattr(train.measures, "of_training", spy("training", {}))
    monkeypatch.setattr(train, "reset_schedule", lambda cfg: None)
    monkeypatch.setattr(train, "fine_tuned", spy("fine-tuning", None))
    monkeypatch.setattr(train.likelihood, "classify", spy("classification", {}))
    run = SimpleNamespace(cfg=cfg, model=torch.nn.Identity(), corpus=SimpleNamespace(transfer=["scene"]),
                          dictionary=None, held_out=None, quiet=True, dtype="bfloat16", device=torch.device("cpu"))
    run.autocast = lambda: Run.autocast(run)
    run.evaluating = lambda: Run.evaluating(run)
    assert train.evaluate(run) == {"transfer": {"scene": {}}}
    assert seen == {"measures": True, "training": False, "fine-tuning": False, "classification": False}
    cfg.pretrained = ""
    train.evaluate(run)
    assert seen["measures"] is False
