"""The checks of a GPU, at small sizes on the CPU: their rows, the table and what becomes of failing checks."""
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gpu
from data.real.build import write
from test_pretrained_runs import byte_level, checkpoint
from test_real import source


@pytest.fixture
def here(tmp_path):
    return SimpleNamespace(device=torch.device("cpu"), quick=True, folder=tmp_path, checkpoint="", data="")


@pytest.mark.parametrize("name", ["losses", "model", "fused loss", "checkpoints", "small"])
def test_the_checks_hold_on_the_cpu(here, name):
    rows = list(gpu.rows_of(name, here))
    assert rows and all(row["result"] == "ok" for row in rows), rows


def test_what_needs_a_gpu_is_not_run_here(here):
    for name in ("waiting", "150m", "pretrained"):
        [row] = gpu.rows_of(name, here)
        assert row["result"] == "not run" and row["measured"]


def test_a_checkpoint_is_aligned(here, tmp_path):
    here.checkpoint, here.data = checkpoint(tmp_path / "base", byte_level()), tmp_path / "prepared"
    write(here.data, source(), new_subwords=40, checkpoint=here.checkpoint)
    rows = list(gpu.rows_of("pretrained", here))
    assert len(rows) == 3 and all(row["result"] == "ok" for row in rows), rows


def test_a_check_that_raises_fails_and_keeps_its_rows_and_the_others_run(here, monkeypatch, capsys):
    def broken(here):
        yield gpu.row("half", "done")
        raise RuntimeError("CUDA error: an illegal memory access\nmore lines")
    monkeypatch.setitem(gpu.CHECKS, "model", (broken, 60))
    rows = gpu.report(["model", "fused loss"], here, do=lambda name, here, limit: gpu.rows_of(name, here))
    assert [row["result"] for row in rows] == ["ok", "FAILED", "ok"]
    assert rows[1]["measured"] == "RuntimeError: CUDA error: an illegal memory access"


def test_without_time_a_check_is_not_run(here, capsys):
    [row] = gpu.report(["losses"], here, minutes=0)
    assert (row["result"], row["measured"]) == ("no time", "not begun")


@pytest.mark.parametrize("own_limit, result", [(0.1, "FAILED"), (60, "no time")])
def test_a_check_that_does_not_end_is_stopped_and_fails_unless_the_time_for_all_is_over(
        here, monkeypatch, own_limit, result):
    monkeypatch.setitem(gpu.CHECKS, "losses", (gpu.losses, own_limit))
    [row] = gpu.rows_of_process("losses", here, limit=0.1)
    assert row["result"] == result and row["measured"].startswith("stopped after")


def test_a_process_that_dies_is_a_failed_row(here, monkeypatch):
    monkeypatch.setattr(gpu, "__file__", "missing.py")
    [row] = gpu.rows_of_process("losses", here, limit=60)
    assert row["result"] == "FAILED" and row["measured"].startswith("ended with code")


@pytest.mark.parametrize("loss, result, code", [(0.1, "ok", 0), (0.3, "FAILED", 1), (float("nan"), "FAILED", 1)])
def test_the_table_and_its_json_hold_every_row(tmp_path, monkeypatch, capsys, loss, result, code):
    def check(name, here, limit):
        return [gpu.at_most("a loss", loss, 0.2), gpu.at_least("a speed", 3.0, None)]
    monkeypatch.setattr(gpu.report, "__defaults__", (9.0, check, gpu.report.__defaults__[2]))
    out = tmp_path / "folder" / "table.json"
    assert gpu.main(["--device", "cpu", "--only", "losses", "--out", str(out)]) == code
    shown, written = capsys.readouterr().out, json.loads(out.read_text(encoding="utf-8"))
    assert f"| a loss | {loss:.2g} | <= 0.2 | {result} |" in shown and "| a speed | 3 |  | ok |" in shown
    assert [row["result"] for row in written["rows"]] == [result, "ok"] and written["quick"]
    assert written["rows"][0]["check"] == "losses" and written["device"] == "cpu" and written["machine"]


def test_the_rows_of_each_check_are_kept_at_once_and_a_lack_of_time_is_no_success(tmp_path, monkeypatch, capsys):
    def check(name, here, limit):
        if name == "model":
            written = json.loads(out.read_text(encoding="utf-8"))
            assert [row["what"] for row in written["rows"]] == ["losses"]
        return [gpu.row(name, "1") | dict(result="no time" if name == "model" else "ok")]
    monkeypatch.setattr(gpu.report, "__defaults__", (9.0, check, gpu.report.__defaults__[2]))
    out = tmp_path / "table.json"
    assert gpu.main(["--device", "cpu", "--only", "losses", "--only", "model", "--out", str(out)]) == 1


def test_a_command_that_fails_is_quoted_with_its_error_and_shown_whole(here, monkeypatch, capsys):
    error = "torch.AcceleratorError: CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA\n\n====="
    monkeypatch.setattr(gpu.subprocess, "run", lambda *a, **k: SimpleNamespace(
        returncode=1, stdout="a table", stderr=f"Traceback\n{error}"))
    with pytest.raises(RuntimeError, match="torch.AcceleratorError: CUDA error: out of memory$"):
        gpu.command(here, "--method", "prealign")
    assert error in (shown := capsys.readouterr().err) and "a table" in shown


def test_a_check_that_is_stopped_takes_its_processes_along(tmp_path):
    code = ("import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; "
            "time.sleep(600)'], start_new_session=True); print(child.pid, flush=True); time.sleep(600)")
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, encoding="utf-8")
    child = int(parent.stdout.readline())
    gpu.kill(parent.pid)
    parent.communicate()
    state = Path(f"/proc/{child}/stat")                        # it is gone, or a zombie that nobody has awaited
    for _ in range(3000):
        if not state.exists() or state.read_text(encoding="utf-8").split()[2] == "Z":
            return
        time.sleep(0.01)
    pytest.fail(f"process {child} still runs")


def test_the_command_starts_the_checks():
    command = Path(gpu.ROOT / ".ci" / "gpu")
    assert "python3 tests/gpu.py" in command.read_text(encoding="utf-8") and command.stat().st_mode & 0o100
