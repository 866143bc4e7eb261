"""What goes wrong on a machine: damaged files, a full disk, signals, two processes on one folder, kill -9."""
import errno
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import pytest
import torch

import train
from data.corpus import Corpus
from data.files import UserError, replaced, whole_folder
from data.lab.options import Config, load_config
from data.lab.run import Run
from data.lab.runs import RunFolder, load_checkpoint
from data.world import build as world
from faults import command, die_at, start, written
from test_train import SMALL, flags, log_without_speed, run_recipe, same_weights

ROOT = Path(__file__).resolve().parent.parent
SHORT = dict(method="baseline", steps=12, log_every=4)         # three checkpoints


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    return run_recipe(cache, tmp_path_factory.mktemp("runs") / "whole", **SHORT)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the folder of a run that was trained and not evaluated."""
    out = tmp_path / "run"
    out.mkdir()
    for path in whole.out.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def one_line(capsys, code=2):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    return error


# --- checkpoints --------------------------------------------------------------------------------------------

def same(a, b):
    """Whether two contents of checkpoints are the same, bit for bit."""
    if torch.is_tensor(a):
        return torch.is_tensor(b) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def loads_the_same_or_nothing(path, content, good):
    """Whether a damaged file was refused; what is loaded in spite of damage must be what was saved."""
    path.write_bytes(content)
    try:
        assert same(load_checkpoint(path), good)
    except UserError as error:
        assert str(error).startswith(f"{path} is ")
        return True
    return False


def test_no_changed_bit_and_no_cut_changes_what_is_loaded(run):
    """Changes of bytes that hold no content, such as dates, may pass."""
    path, random = run / "last.pt", Random(0)
    content, good = path.read_bytes(), load_checkpoint(path)
    refused = 0
    for _ in range(150):
        bad, at = bytearray(content), random.randrange(len(content))
        bad[at] ^= 1 << random.randrange(8)
        refused += loads_the_same_or_nothing(path, bytes(bad), good)
    assert refused > 120
    for at in (*(random.randrange(len(content)) for _ in range(30)), *range(len(content) - 20, len(content))):
        assert loads_the_same_or_nothing(path, content[:at], good)
    for _ in range(30):                                        # a block of a disk
        at = random.randrange(len(content))
        loads_the_same_or_nothing(path, content[:at] + bytes(512) + content[at + 512:], good)


def test_no_changed_bit_in_the_directory_entry_of_a_tensor_changes_what_is_loaded(run):
    """torch.load leaves a tensor empty, without an error, if one bit of its entry is changed."""
    path, state = run / "last.pt", load_checkpoint(run / "last.pt")
    good = state | dict(optimizer={}, model={"a": torch.arange(40.0)}, sums={})
    torch.save(good, path)
    content, name = path.read_bytes(), b"/data/0"
    begin = content.rindex(b"PK\1\2", 0, content.rindex(name))
    for at in range(begin, content.rindex(name) + len(name)):
        for bit in range(8):
            bad = bytearray(content)
            bad[at] ^= 1 << bit
            loads_the_same_or_nothing(path, bytes(bad), good)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_and_nothing_else(
        cache, run, whole, capsys):
    (run / "last.pt").write_bytes((run / "last.pt").read_bytes()[:-1000])
    again = run_recipe(cache, run, **SHORT)
    error = one_line(capsys)
    assert "last.pt is damaged" in error and "resuming from previous.pt, step 8 of pretrain" in error
    assert same_weights(whole, again) and log_without_speed(whole) == log_without_speed(again)


def test_without_any_good_checkpoint_the_way_out_is_said_and_nothing_is_touched(cache, run, capsys):
    for name in ("last.pt", "previous.pt"):
        (run / name).write_bytes(b"PK")
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert train.main(flags(cache, run, **SHORT)) == 2
    error = one_line(capsys)
    assert "last.pt is damaged" in error and "--fresh" in error
    assert before == {path: path.read_bytes() for path in run.iterdir() if path.name != "lock"}


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused(cache, run, capsys, monkeypatch, tmp_path, how):
    monkeypatch.chdir(tmp_path)
    (run / "previous.pt").unlink()
    if how == "torch":
        torch.save(load_checkpoint(run / "last.pt") | dict(sums=Evil()), run / "last.pt")
    else:
        (run / "last.pt").write_bytes(pickle.dumps(Evil()))
    assert train.main(flags(cache, run, **SHORT)) == 2
    assert "last.pt is damaged, or is not a checkpoint" in one_line(capsys)
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("change, words", [
    (dict(version=5), "is of version 5, this program reads version 4"),
    (dict(version=2), "is of version 2, this program reads version 4"),
    (dict(run=dict(seed=1)), "is of another run (seed 1 there, 0 here"),
    (dict(step="8"), "is damaged, or is not a checkpoint"),
    (dict(stage="adapt"), "of the stage adapt, which this run does not have"),
    (dict(model={}), "of another model than its config.json"),
    (dict(log_size=10**6), "log.jsonl is shorter than when last.pt was written")])
def test_a_checkpoint_of_something_else_is_refused(cache, run, capsys, change, words):
    torch.save(load_checkpoint(run / "last.pt") | change, run / "last.pt")
    (run / "previous.pt").unlink()
    assert train.main(flags(cache, run, **SHORT)) == 2
    error = one_line(capsys)
    assert words in error and "--fresh" in error and str(run) in error


def test_the_checkpoint_of_another_run_is_neither_resumed_nor_started_from(cache, run, capsys, tmp_path):
    other = run_recipe(cache, tmp_path / "other", **SHORT | dict(words=10_000)).out
    before = (run / "log.jsonl").read_bytes()
    (run / "last.pt").write_bytes((other / "previous.pt").read_bytes())
    for argv in (flags(cache, run, **SHORT), ["--sample", "x", "--out", str(run), "--cache", str(cache)]):
        assert train.main(argv) == 2
        error = one_line(capsys)
        assert f"the checkpoint in {run} is of another run (words 10000 there, 20000 here; data_used " in error
    adapted = flags(cache, tmp_path / "b", **SHORT | dict(adapt_to="clone2", from_run=run))
    assert train.main(adapted) == 2 and not (tmp_path / "b").exists()
    assert f"--from_run {run}: its last.pt is of another run (words 10000 there, 20000 here" in one_line(capsys)
    assert (run / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("log", ["{", "3\n", "{}\n", '{"stage": "pretrain"}\n', "\x00"])
def test_a_damaged_log_is_named(run, log, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (run / "summary.json").write_text('{"languages": []}', encoding="utf-8")
    (run / "log.jsonl").write_text(log, encoding="utf-8")
    assert train.main(["--report", str(run)]) == 2
    assert f"{run}/log.jsonl is damaged: train again with --fresh" in one_line(capsys)
    with pytest.raises(UserError, match="log.jsonl is damaged"):
        RunFolder(run).curve("pretrain", "lm")


def test_moments_of_another_shape_are_refused(cache, run, capsys):
    state = load_checkpoint(run / "last.pt")
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)
    torch.save(state, run / "last.pt")
    assert train.main(flags(cache, run, **SHORT)) == 2
    assert "of another model than its config.json" in one_line(capsys)


def finished(run, stage, **changes):
    """Make the checkpoint of a run one of the last step of another stage."""
    config = json.loads((run / "config.json").read_text(encoding="utf-8")) | changes
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = load_checkpoint(run / "last.pt")
    state["run"] |= changes
    torch.save(state | dict(stage=stage, step=load_config(run).stages[stage]), run / "last.pt")


def test_a_body_of_another_shape_is_refused_before_anything_is_written(cache, run, capsys, tmp_path):
    finished(run, "instruct", instruct_steps=5)
    other = flags(cache, tmp_path / "new", **SHORT | dict(adapt_to="clone2", d_model=64, body_from=run))
    assert train.main(other) == 2
    assert f"--body_from {run}: its model has another shape" in one_line(capsys)
    assert not (tmp_path / "new").exists()


def test_an_unfinished_body_is_refused(cache, run, capsys, tmp_path):
    finished(run, "instruct", instruct_steps=5)
    torch.save(load_checkpoint(run / "last.pt") | dict(step=4), run / "last.pt")
    assert train.main(flags(cache, tmp_path / "new", **SHORT | dict(adapt_to="clone2", body_from=run))) == 2
    assert "its last checkpoint is step 4 of instruct; give a finished run" in one_line(capsys)


def test_what_the_pretrained_run_has_fixed_is_refused(cache, run, capsys, tmp_path):
    for change in (dict(d_model=64), dict(clone_share=0.5), dict(code_switch=0.9), dict(reset_every=3)):
        assert train.main(flags(cache, tmp_path / "new", from_run=run, method="align", **change)) == 2
        assert "--from_run takes data, model and pretraining from" in one_line(capsys)


def test_fresh_deletes_nothing_that_is_still_needed(cache, run, capsys, tmp_path):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    fresh = ["--fresh", "--out", str(run), "--cache", str(cache)]
    assert train.main(["--from_run", str(run), "--method", "align", *fresh]) == 2
    assert "is the folder of this run" in one_line(capsys)
    assert train.main(["--eval_only", *fresh]) == 2
    assert "do not go together" in one_line(capsys)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_is_not_resumed_or_shown_on_other_data(cache, tmp_path, capsys):
    text = tmp_path / "mine.txt"
    text.write_text("".join(f"The fox number {i} jumps.\n" for i in range(200)), encoding="utf-8")
    changes = SHORT | dict(text=text, steps=4)
    assert train.main(flags(cache, tmp_path / "a", **changes)) == 0
    (tmp_path / "a" / "summary.json").unlink()
    before = (tmp_path / "a" / "last.pt").read_bytes()
    text.write_text("".join(f"Here are {i} other words.\n" for i in range(200)), encoding="utf-8")
    capsys.readouterr()
    for argv in (flags(cache, tmp_path / "a", **changes),
                    ["--sample", "x", "--out", str(tmp_path / "a"), "--cache", str(cache)],
                    ["--eval_only", "--out", str(tmp_path / "a"), "--cache", str(cache)]):
        assert train.main(argv) == 2
        assert "data_used" in one_line(capsys) and before == (tmp_path / "a" / "last.pt").read_bytes()
    adapted = flags(cache, tmp_path / "b", **changes | dict(adapt_to="clone2", from_run=tmp_path / "a"))
    assert train.main(adapted) == 2
    assert "was trained on other data" in one_line(capsys) and not (tmp_path / "b").exists()


def test_fresh_trains_again_even_from_a_damaged_configuration_and_with_another_type(cache, run, capsys):
    (run / "config.json").write_text("{", encoding="utf-8")
    assert train.main(flags(cache, run, **SHORT)) == 2
    assert "--fresh" in one_line(capsys)
    assert train.main([*flags(cache, run, **SHORT | dict(dtype="bfloat16")), "--fresh"]) == 0
    assert RunFolder(run).read("config.json")["dtype_used"] == "bfloat16"
    assert train.main([*flags(cache, run, **SHORT), "--fresh"]) == 0
    assert RunFolder(run).read("config.json")["dtype_used"] == "float32"


def test_a_finished_run_is_shown_without_its_checkpoints_and_keeps_its_log(cache, run, capsys):
    assert train.main(flags(cache, run, **SHORT)) == 0
    log = (run / "log.jsonl").read_bytes()
    for name in ("last.pt", "previous.pt"):
        (run / name).unlink()
    assert train.main(flags(cache, run, **SHORT)) == 0
    assert "perplexity" in capsys.readouterr().out and log == (run / "log.jsonl").read_bytes()


def test_an_unfinished_run_is_not_evaluated_as_if_it_was_finished(cache, tmp_path, capsys):
    run_recipe(cache, tmp_path / "a", **SHORT, stop_after=("pretrain", 4))
    assert train.main([*flags(cache, tmp_path / "a", **SHORT), "--eval_only"]) == 2
    assert "is not finished: resume with python train.py" in one_line(capsys)
    assert not (tmp_path / "a" / "summary.json").exists()


def test_a_finished_run_is_evaluated_again_with_other_items(cache, run, capsys):
    assert train.main(flags(cache, run, **SHORT)) == 0
    assert train.main([*flags(cache, run, **SHORT | dict(eval_items=3)), "--eval_only"]) == 0
    assert RunFolder(run).read("summary.json")["tasks"]["nli"]["lexical"]["en"]["0"]["n"] == 3
    assert train.main([*flags(cache, run, **SHORT | dict(lr=0.1)), "--eval_only"]) == 2


def test_too_few_samples_to_learn_from_are_noticed_before_training(cache, tmp_path, capsys, monkeypatch):
    def training_samples(*_):
        raise UserError("too few: ask for fewer")
    monkeypatch.setattr(Corpus, "training_samples", training_samples)
    assert train.main(flags(cache, tmp_path / "a", **SHORT | dict(method="align"))) == 2
    assert "ask for fewer" in one_line(capsys) and not (tmp_path / "a" / "last.pt").exists()


# --- resuming -----------------------------------------------------------------------------------------------

def test_stages_before_the_checkpoint_are_done_and_later_ones_have_not_started(cache, tmp_path):
    run = Run(Config(**SMALL | dict(method="prealign+align")), tmp_path / "a", cache, quiet=True)
    stages = ["align words", "pretrain", "align sentences"]
    assert list(run.cfg.stages) == stages
    assert not any(run.is_done(stage) or run.has_started(stage) for stage in stages)
    run.checkpoint = dict(stage="pretrain", step=1)
    assert [run.is_done(stage) for stage in stages] == [True, False, False]
    assert [run.has_started(stage) for stage in stages] == [True, True, False]
    run.checkpoint = dict(stage="align sentences", step=500)
    run.check_finished()
    for checkpoint in (dict(stage="align sentences", step=499), dict(stage="pretrain", step=500)):
        run.checkpoint = checkpoint
        with pytest.raises(UserError, match="is not finished"):
            run.check_finished()


def test_a_resumed_run_restores_its_checkpoint_once_and_keeps_no_copy(cache, run, tmp_path):
    (run / "last.pt").unlink()                                 # so that there are steps left
    kept = load_checkpoint(run / "previous.pt")
    again = run_recipe(cache, run, **SHORT)
    assert again.checkpoint == dict(stage="pretrain", step=8)
    assert not same(again.model.state_dict(), kept["model"])
    again.checkpoint = load_checkpoint(run / "previous.pt")
    optimizer = torch.optim.AdamW(again.model.param_groups(1.0, 1.0, 0.1))
    assert again.restore("adapt", again.model, optimizer) == (0, {})
    step, sums = again.restore("pretrain", again.model, optimizer)
    assert step == 8 and sums.keys() == kept["sums"].keys()
    assert same(again.model.state_dict(), kept["model"])
    assert same(optimizer.state_dict()["state"], kept["optimizer"]["state"])


def test_a_run_needs_the_run_it_started_from_only_once(cache, run, tmp_path, capsys):
    place = ["--out", str(tmp_path / "b"), "--cache", str(cache)]
    assert train.main(["--from_run", str(run), "--method", "align", "--afp_steps", "4", "--afp_samples", "40",
                       "--generate_items", "0", *place]) == 0
    for path in run.iterdir():
        path.unlink()
    capsys.readouterr()
    assert train.main(["--sample", "Anna", *place]) == 0
    assert "Anna" in capsys.readouterr().out


def test_a_finished_run_is_shown_without_its_checkpoints_and_without_the_run_it_started_from(
        cache, run, tmp_path, capsys):
    again = ["--from_run", str(run), "--method", "align", "--afp_steps", "4", "--afp_samples", "40",
             "--generate_items", "0", "--out", str(tmp_path / "b"), "--cache", str(cache)]
    assert train.main(again) == 0
    for name in ("last.pt", "previous.pt"):
        (run / name).unlink(missing_ok=True)
        (tmp_path / "b" / name).unlink(missing_ok=True)
    capsys.readouterr()
    assert train.main(again) == 0 and "perplexity" in capsys.readouterr().out
    assert train.main([*again, "--eval_only"]) == 2 and "holds no checkpoint" in one_line(capsys)


def test_loading_only_changes_nothing_in_the_folder(cache, run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with open(run / "log.jsonl", "a", encoding="utf-8") as log:
        log.write("{}\n")                                      # a row after the last checkpoint
    loaded = Run(Config(**SMALL | SHORT | dict(log_every=7)), run, cache, quiet=True)
    loaded.enter(load_only=True)
    train.recipe(loaded)
    assert loaded.load_only and same(loaded.model.state_dict(), load_checkpoint(run / "last.pt")["model"])
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert after.pop("log.jsonl") == before.pop("log.jsonl") + b"{}\n" and after == before


# --- disks --------------------------------------------------------------------------------------------------

@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full device")
@pytest.mark.parametrize("name", ["last.pt", "summary.json", "samples.txt"])
def test_a_full_disk_leaves_what_was_saved_and_says_so(cache, run, whole, capsys, name):
    """Writes to /dev/full fail as on a full disk."""
    (run / "last.pt").unlink()                                 # so that there are steps left
    kept = (run / "previous.pt").read_bytes()
    (run / f"{name}.tmp").symlink_to("/dev/full")
    assert train.main(flags(cache, run, **SHORT)) == 2
    error = one_line(capsys)
    assert f"{name}: No space left on device" in error and "the same command resumes" in error
    assert name != "last.pt" or kept == (run / "previous.pt").read_bytes()
    again = run_recipe(cache, run, **SHORT)
    assert same_weights(whole, again) and log_without_speed(whole) == log_without_speed(again)


def test_a_row_of_the_log_is_on_the_disk_before_the_checkpoint_that_counts_it(tmp_path, monkeypatch):
    folder, synced = RunFolder(tmp_path), []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    folder.log(dict(stage="pretrain", step=1))
    assert synced == [folder.log_size()] != [0]                # after the row has left the buffer


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full device")
def test_a_row_that_cannot_be_logged_names_the_log(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as error:
        RunFolder(tmp_path).log(dict(step=1))
    assert error.value.filename == str(tmp_path / "log.jsonl")


def test_what_cannot_be_written_whole_is_not_written(tmp_path):
    (tmp_path / "a").write_text("old", encoding="utf-8")
    with pytest.raises(OSError), replaced(tmp_path / "a", before=tmp_path / "b") as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [(p.name, p.read_text(encoding="utf-8")) for p in tmp_path.iterdir()] == [("a", "old")]


def test_a_folder_that_cannot_be_written_costs_one_line(cache, capsys, tmp_path):
    closed = Path("/proc/run") if os.geteuid() == 0 else tmp_path / "closed" / "run"
    if os.geteuid():                                           # root may write anywhere but here
        closed.parent.mkdir(mode=0o500)
    assert train.main(flags(cache, closed, **SHORT)) == 2
    assert str(closed) in one_line(capsys)


def test_a_file_in_the_place_of_the_folder_costs_one_line(cache, capsys, tmp_path):
    (tmp_path / "run").write_text("", encoding="utf-8")
    assert train.main(flags(cache, tmp_path / "run", **SHORT)) == 2
    assert str(tmp_path / "run") in one_line(capsys)


# --- two processes ------------------------------------------------------------------------------------------

def test_a_second_process_is_kept_out_until_the_first_ends_however_it_ends(cache, run, capsys):
    script = ("import sys, time; from data.lab.runs import RunFolder\n"
              "with RunFolder(sys.argv[1]).lock(): print('in', flush=True); time.sleep(600)")
    first = subprocess.Popen([sys.executable, "-c", script, run], cwd=ROOT, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"in\n"
    before = {path: path.read_bytes() for path in run.iterdir()}
    for fresh in ([], ["--fresh"]):
        assert train.main([*flags(cache, run, **SHORT), *fresh]) == 2
        assert f"{run} is in use by another process" in one_line(capsys)
    assert before == {path: path.read_bytes() for path in run.iterdir()}
    first.kill()
    first.communicate()
    with RunFolder(run).lock():
        pass


def test_of_two_builds_of_a_corpus_one_waits_and_builds_nothing(settings, tmp_path, monkeypatch, corpus):
    built, gate = [], threading.Event()

    def slow(folder, *settings):
        gate.wait()
        built.append(folder)
        shutil.copytree(corpus.folder, folder)
    monkeypatch.setattr(world, "build", slow)
    two = [threading.Thread(target=world.load, args=(tmp_path,), kwargs=settings) for _ in range(2)]
    for thread in two:
        thread.start()
    gate.set()
    for thread in two:
        thread.join()
    assert len(built) == 1


def test_the_remains_of_a_folder_whose_writing_was_killed_are_removed(tmp_path):
    remains = tmp_path / "corpus.tmp"
    remains.mkdir()
    (remains / "en.train.bin").write_bytes(b"half")
    with whole_folder(tmp_path / "corpus") as folder:
        (folder / "meta.json").write_text("{}", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["corpus", "meta.json"]


# --- signals and clocks -------------------------------------------------------------------------------------

@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_finish_the_step_save_and_say_how_to_resume(
        cache, tmp_path, whole, capsys, monkeypatch, number, code):
    step = train.pretrain

    def signalled(run, at):
        if at == 5:
            os.kill(os.getpid(), number)
        return step(run, at)
    monkeypatch.setattr(train, "pretrain", signalled)
    assert train.main(flags(cache, tmp_path / "a", **SHORT)) == code
    error = capsys.readouterr().err
    assert "what was trained is saved.  Resume with:\n  python train.py --words 20000" in error
    assert load_checkpoint(tmp_path / "a" / "last.pt")["step"] == 6
    monkeypatch.setattr(train, "pretrain", step)
    again = run_recipe(cache, tmp_path / "a", **SHORT)
    assert same_weights(whole, again) and log_without_speed(whole) == log_without_speed(again)


def test_sigterm_outside_of_training_says_how_to_resume_too(capsys, monkeypatch):
    monkeypatch.setattr(train, "parse_args", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert train.main(["--seed", "1"]) == 143
    assert "python train.py --seed 1" in capsys.readouterr().err


@pytest.mark.parametrize("tick", [0.0, -1.0])
def test_a_clock_that_stands_still_or_goes_backwards_changes_only_the_speed(
        cache, tmp_path, whole, monkeypatch, tick):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now.append(now[-1] + tick) or now[-1])
    odd = run_recipe(cache, tmp_path / "a", **SHORT)
    assert same_weights(whole, odd) and log_without_speed(whole) == log_without_speed(odd)


# --- losses and gradients -----------------------------------------------------------------------------------

@pytest.mark.parametrize("what", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_training_and_evaluation(cache, run, capsys, monkeypatch, what):
    """The loss itself is finite."""
    clip = torch.nn.utils.clip_grad_norm_
    (run / "last.pt").unlink()
    kept = (run / "previous.pt").read_bytes()

    def poisoned(parameters, norm):
        parameters[0].grad[0, 0] = what
        return clip(parameters, norm)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    assert train.main(flags(cache, run, **SHORT)) == 2
    assert "not finite by step 12" in one_line(capsys)
    assert not (run / "last.pt").exists() and kept == (run / "previous.pt").read_bytes()


def test_fine_tuning_that_is_not_finite_is_no_result(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.nan))
    command = flags(cache, tmp_path / "a", **SHORT | dict(transfer_steps=2))
    monkeypatch.setattr(train, "recipe", lambda run: None)     # all but fine-tuning
    assert train.main(command) == 2
    assert "transfer nli" in one_line(capsys) and not (tmp_path / "a" / "summary.json").exists()


@pytest.mark.parametrize("error", [
    MemoryError("Unable to allocate 1. TiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    torch.OutOfMemoryError("CUDA out of memory.")])
def test_too_little_memory_costs_one_line(cache, tmp_path, capsys, monkeypatch, error):
    def full(*_):
        raise error
    monkeypatch.setattr(train, "pretrain", full)
    assert train.main(flags(cache, tmp_path / "a", **SHORT)) == 2
    assert "lower --batch_size" in one_line(capsys)


def test_an_error_that_only_mentions_memory_is_not_hidden(cache, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(train, "pretrain", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train.main(flags(cache, tmp_path / "a", **SHORT))


@pytest.mark.parametrize("error", [ValueError("too many values to unpack"), KeyError("x"), TypeError("y"),
                                   AssertionError("z")])
@pytest.mark.parametrize("where", ["pretrain", "evaluate"])
def test_an_error_in_the_code_of_a_stage_shows_its_traceback(
        cache, tmp_path, monkeypatch, capsys, where, error):
    """A student's own mistake is no mistake of a user."""
    def broken(*_):
        raise error
    monkeypatch.setattr(train, where, broken)
    monkeypatch.setattr(train, "recipe", train.recipe if where == "pretrain" else lambda run: None)
    with pytest.raises(type(error)) as raised:
        train.main(flags(cache, tmp_path / "a", **SHORT))
    assert raised.value is error and raised.traceback[-1].name == "broken"
    assert "train.py:" not in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{}", "[1]", "{", '{"languages": 3}', "\udc80"])
def test_results_that_are_damaged_are_named(cache, run, capsys, content):
    (run / "summary.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert train.main(flags(cache, run, **SHORT)) == 2
    assert f"{run}/summary.json" in one_line(capsys)


# --- kill -9 ------------------------------------------------------------------------------------------------

def test_killed_again_and_again_a_run_ends_as_if_nothing_had_happened(tmp_path):
    """In every stage, before and between the renames of a save, in building and in the last file."""
    whole, out, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    moments = [(1, "open", "clone.train.bin"), (1, "open", "clone2.val.bin"), (2, "open", "log.jsonl"),
               (1, "os.rename", "previous.pt"), (9, "open", "last.pt.tmp"), (7, "os.rename", "previous.pt"),
               (1, "os.rename", "sentences-before.svg"), (2, "os.rename", "last.pt"),
               (1, "os.rename", "summary.json")]
    short = dict(transfer_steps=0, eval_items=1)
    for at in moments:
        assert start(command(out, cache, **short), lambda at=at: die_at(*at)) == -signal.SIGKILL, at
    assert start(command(out, cache, **short)) == 0 and start(command(whole, cache, **short)) == 0
    assert written(out) == written(whole)
    assert len({row["stage"] for row in written(out)["rows"]}) == 5
    assert not list(out.glob("*.tmp")) and not list(cache.glob("**/*.tmp"))
