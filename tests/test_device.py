"""What a GPU would have to wait for, found without a GPU.

The meta device takes the place of the GPU: its tensors have shapes but no values, so the program cannot read
one.  NoWaiting also refuses what the meta device allows and what makes the program wait for a GPU.
"""
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data.lab.options import PRESETS, Config
from data.lab.processes import Processes, choose_dtype
from data.lab.run import Run
from data.lab.runs import RunFolder, load_checkpoint
from gpu import SMALL, some_steps, stage_of
from model import GPT, ModelConfig, contrastive_loss, lm_loss

META = torch.device("meta")
READING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "bincount", "is_nonzero"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
COPYING = {"_to_copy", "copy_"}


class Waited(Exception):
    """The program would wait for the GPU here."""


class NoWaiting(TorchDispatchMode):
    """Raise Waited where the program would wait, if the meta device were a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        devices = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        if name in READING and "meta" in devices:
            raise Waited(f"{name} reads values of a device tensor")
        if name in INDEXING and args[0].device == META:
            # a mask becomes indices on the host; indices on the host are copied, and the copy is waited for
            if any(i is not None and (i.dtype == torch.bool or i.device != META) for i in args[1]):
                raise Waited(f"{name} with a mask or with indices on the host")
        if name in COPYING:
            devices |= {str(kwargs.get("device") or "")} - {""}
            waits = not (kwargs.get("non_blocking") or True in args[2:]) and {"cpu", "meta"} <= devices
            if waits or name == "_to_copy" and args[0].device == META and "cpu" in devices:
                raise Waited(f"{name} between host and device")
        return function(*args, **kwargs)


@pytest.fixture
def make(cache, tmp_path, monkeypatch):
    """A run whose model is on the meta device: world_size -> Run."""
    # autocast does not know the meta device
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    # the fused optimizer does not know it, either
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, betas, fused: adamw(groups, betas=betas))

    class Sent:
        def wait(self):
            pass
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **kwargs: Sent())

    def made(world_size=1, **options):
        settings = SMALL | dict(steps=100, afp_steps=100) | options
        run = Run(Config(**settings), tmp_path / "run", cache, quiet=True)
        run.device, run.processes = META, Processes(0, world_size)
        run.model.to(META)
        return run
    return made


def watched(run, stage, change=lambda loss: loss, n=3):
    """n steps of a stage without waiting.  change: a function of each loss."""
    losses, groups, resets = stage_of(run, stage)

    def parts(step):
        return ((change(loss), values, n_tokens) for loss, values, n_tokens in losses(step))
    with NoWaiting():
        some_steps(run, stage, parts, groups, resets, n=n)


# --- training -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("stage", ["align words", "pretrain", "adapt", "align sentences", "instruct"])
def test_no_stage_waits_for_the_gpu(make, stage, world_size):
    run = make(world_size)
    assert stage in run.cfg.stages
    watched(run, stage)


def test_the_other_way_of_pooling_sentences_does_not_wait_for_the_gpu(make):
    run = make(afp_mcl_pool="mean", afp_answer_only=False)
    watched(run, "align sentences", n=2)


@pytest.mark.parametrize("wait", [
    lambda x: x.item(), lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x.detach().numpy(), bool, int,
    lambda x: x.reshape(1).nonzero(), lambda x: x.reshape(1)[x.reshape(1) > 0], lambda x: torch.equal(x, x),
    lambda x: x.reshape(1)[torch.zeros(1, dtype=torch.long)], lambda x: x.reshape(1).unique(),
    lambda x: torch.zeros(3).to(x.device), lambda x: torch.zeros(3, device=x.device).copy_(torch.ones(3)),
    lambda x: torch.zeros(3).copy_(x), lambda x: x + torch.ones(3)])
def test_every_kind_of_waiting_is_found(make, wait):
    run = make(method="baseline")
    change = lambda loss: (wait(loss), loss)[1]                                  # noqa: E731
    with pytest.raises((Waited, RuntimeError, TypeError)):     # the last two come from torch itself
        watched(run, "pretrain", change)


class LargestOnHost(TorchDispatchMode):
    """The number of elements of the largest result on the CPU."""
    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(result)
                                        if isinstance(t, torch.Tensor) and t.device.type == "cpu")])
        return result


@pytest.mark.parametrize("anchors", [None, 10_000])
def test_the_host_does_not_compare_all_pairs_of_words_for_the_contrastive_loss(anchors):
    states = torch.empty(2, 20_000, 8, device=META, requires_grad=True)
    with LargestOnHost() as largest:
        contrastive_loss(states, torch.arange(10_000).repeat(2), anchors=anchors).backward()
    assert 20_000 <= largest.numel <= 4 * 20_000


# --- models and checkpoints of every size -------------------------------------------------------------------

@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_step_and_a_checkpoint_without_memory_for_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    preset = PRESETS[name]
    V, T = 2 * preset["vocab_size"], preset["context_len"]
    config = ModelConfig(V, preset["n_layer"], preset["n_head"], preset["d_model"], T)
    with META:
        model, other = GPT(config), GPT(config)
        tokens = torch.zeros(2, T, dtype=torch.long)
        logits = model.logits(tokens)
        lm_loss(logits, tokens, count=2 * T).backward()
        optimizer = torch.optim.AdamW(model.param_groups(1e-3, 1e-3, 0.1))
        optimizer.step()
    assert logits.shape == (2, T, V) and all(p.grad.shape == p.shape for p in model.parameters())
    folder = RunFolder(tmp_path)
    folder.save(run={}, stage="pretrain", step=1, model=model.state_dict(), optimizer=optimizer.state_dict(), sums={},
                seconds=0.0)
    checkpoint = load_checkpoint(tmp_path / "last.pt", "meta")
    other.load_state_dict(checkpoint["model"], assign=True)
    assert {k: p.shape for k, p in other.state_dict().items()} == {
        k: p.shape for k, p in model.state_dict().items()}
    assert len(checkpoint["optimizer"]["state"]) == len(list(model.parameters()))


# --- choose_dtype -------------------------------------------------------------------------------------------

CPU = torch.device("cpu")


def test_the_dtype_is_that_of_the_cpu_and_always_the_same():
    found = {choose_dtype(CPU) for _ in range(5)}
    assert len(found) == 1 and found <= {"float32", "bfloat16"}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and hasattr(torch.cpu, "get_capabilities"):         # Linux
        flags = cpuinfo.read_text(encoding="utf-8").split()
        fast = ["amx_bf16", "bf16"]
        if "GenuineIntel" not in flags:
            fast.append("avx512_bf16")
        assert (found == {"bfloat16"}) == any(flag in flags for flag in fast)


@pytest.mark.parametrize("features, expected", [
    (dict(avx512_f=True, avx512_bf16=False, amx_bf16=False), "float32"),
    (dict(avx512_bf16=True, cpu_name="AMD EPYC 9B14"), "bfloat16"), (dict(avx512_bf16=True), "bfloat16"),
    (dict(avx512_bf16=True, cpu_name="Intel Xeon"), "float32"),
    (dict(avx512_bf16=True, amx_bf16=True, cpu_name="Intel Xeon"), "bfloat16"),
    (dict(amx_bf16=True), "bfloat16"),
    (dict(neon=True, bf16=True), "bfloat16"), (dict(neon=True, bf16=False), "float32"), ({}, "float32")])
def test_bfloat16_needs_instructions_of_the_cpu(monkeypatch, features, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert choose_dtype(CPU) == expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)    # torch without fast kernels
    assert choose_dtype(CPU) == "float32"


def test_an_older_torch_that_does_not_report_instructions_computes_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_dtype(CPU) == "float32"
