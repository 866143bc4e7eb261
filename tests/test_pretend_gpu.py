"""Whole runs on a pretended GPU, and the checks of a GPU themselves."""
from types import SimpleNamespace

import pytest
import torch

import gpu
import train
from data.lab.runs import load_checkpoint
from data.pretrained import load_pretrained
from data.real.build import write
from faults import command, written
from pretend_gpu import OnGPU, pretend_gpu
from test_pretrained_runs import byte_level, checkpoint
from test_pretrained_runs import command as aligned
from test_real import source


@pytest.fixture
def device(monkeypatch):
    with pretend_gpu(monkeypatch) as found:
        yield found


# --- the pretended GPU --------------------------------------------------------------------------------------

def test_its_tensors_have_the_numbers_of_the_cpu(device):
    x = torch.randn(3, 4)
    model = torch.nn.Linear(4, 2)
    wanted = model(x)
    found = model.to(device)(x.to(device))
    assert isinstance(found, OnGPU) and found.device == device and torch.equal(found.cpu(), wanted)
    found.sum().backward()
    assert model.weight.grad.device == device and torch.equal(model.weight.grad.cpu(), x.sum(0).expand(2, 4))


@pytest.mark.parametrize("mix", [
    lambda x: x + torch.ones(3), lambda x: torch.ones(3) + x, lambda x: torch.ones(3).add_(x),
    lambda x: x.numpy(), lambda x: torch.cat((x, torch.ones(3))), lambda x: torch.ones(3)[x.long()],
    lambda x: x @ torch.ones(3), lambda x: torch.nn.Linear(3, 2)(x), lambda x: torch.zeros(()).add_(x.sum())])
def test_its_tensors_do_not_mix_with_those_of_the_cpu(device, mix):
    with pytest.raises((RuntimeError, TypeError)):
        mix(torch.zeros(3, device=device))


# --- runs ---------------------------------------------------------------------------------------------------

def results(run):
    """The log and the summary of a run, without times and its device."""
    found = written(run)
    # bli: rounding decides between words of the same pieces
    summary = {key: value for key, value in found["summary"].items() if key not in ("device", "bli")}
    return dict(rows=found["rows"], summary=summary)


def assert_close(found, wanted, where=""):
    """Numbers in nested lists and dictionaries are equal but for rounding."""
    assert type(found) is type(wanted), where
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
    if isinstance(wanted, (dict, list)):
        assert len(found) == len(wanted), where
        for key in wanted if isinstance(wanted, dict) else range(len(wanted)):
            assert_close(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=2e-3, abs=2e-3), where
    else:
        assert found == wanted, where


def assert_equal_runs(folder, names=("cpu", "gpu")):
    assert_close(*(results(folder / name) for name in names))
    wanted, found = (load_checkpoint(folder / name / "last.pt")["model"] for name in names)
    for name, weights in wanted.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-3, atol=1e-3)


def test_a_whole_run_is_that_of_the_cpu(monkeypatch, cache, tmp_path):
    options = dict(adapt_to="clone2", code_switch=0.3, afp_word_weight=1.0, generate_items=2, log_every=100,
                   eval_items=2, n_layer=1, steps=10, reset_every=2)
    assert train.main(command(tmp_path / "cpu", cache, **options)) == 0
    with pretend_gpu(monkeypatch):
        assert train.main(command(tmp_path / "gpu", cache, device="cuda", **options)) == 0
        assert train.main(["--sample", "Anna was", "--out", str(tmp_path / "gpu"), "--device", "cuda"]) == 0
    assert_equal_runs(tmp_path)


def test_a_public_checkpoint_is_aligned_and_exported_as_on_the_cpu(monkeypatch, tmp_path):
    base, folder = checkpoint(tmp_path / "base", byte_level()), tmp_path / "prepared"
    write(folder, source(), new_subwords=40, checkpoint=base)

    def align(name, *flags):
        short = ("--afp_mcl_pool", "mean", "--afp_lora", "2", "--log_every", "100", *flags)
        assert train.main(aligned(base, folder, tmp_path / name, "--method", "align", *short)) == 0
        run, exported = str(tmp_path / name), str(tmp_path / f"{name}-export")
        assert train.main(["--export", exported, "--out", run, *flags]) == 0
    align("cpu", "--device", "cpu")
    with pretend_gpu(monkeypatch):
        align("gpu", "--device", "cuda")
    assert_equal_runs(tmp_path)
    exported = [load_pretrained(tmp_path / f"{name}-export")[0].state_dict() for name in ("cpu", "gpu")]
    torch.testing.assert_close(*exported, rtol=1e-3, atol=1e-3)


# --- the checks of a GPU ------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["losses", "model", "fused loss", "checkpoints", "small"])
def test_the_checks_of_a_gpu_run(device, tmp_path, monkeypatch, name):
    here = SimpleNamespace(device=device, quick=True, folder=tmp_path, checkpoint="", data="")
    for measure in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, measure, lambda: None)
    for measure in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, measure, lambda device=None: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**40, 2**40))
    rows = list(gpu.rows_of(name, here))
    assert rows and all(row["result"] == "ok" for row in rows), rows
