"""Check everything that a GPU does, in at most nine minutes, and print one table.

  .ci/gpu              on a GPU all of it, on a CPU what makes sense there, at small sizes
  .ci/gpu --quick      small sizes on a GPU, too
  .ci/gpu --only "losses" --only "model"

Each check has a process of its own and a time limit, because an error on a GPU leaves a process that can do
nothing more.  A check that fails or stops is one row of the table, and the others still run.  After each check,
the rows are written as JSON; what a check prints goes to stderr.  The exit code is 1 if a row says FAILED or
"no time".  bench.py defines the speeds that are compared.
"""
import argparse
import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
THREADS = os.environ.get("OMP_NUM_THREADS")                    # faults.py sets it for itself

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

import bench  # noqa: E402
import train  # noqa: E402
from data.lab.options import Config, parse_args  # noqa: E402
from data.lab.processes import Processes, init_distributed  # noqa: E402
from data.lab.run import Run  # noqa: E402
from data.lab.runs import Interrupted, load_checkpoint  # noqa: E402
from faults import ALL_STAGES  # noqa: E402
from forget import Forgetting, expand_vocabulary, merge_vocabulary, new_row_groups  # noqa: E402
from model import (GPT, IGNORE, ModelConfig, contrastive_loss, generate, lm_loss,  # noqa: E402
                   plain_contrastive_loss)

if THREADS is None:
    os.environ.pop("OMP_NUM_THREADS", None)                    # the commands below use all cores

# all stages of a small run; the first resets happen early
SMALL = ALL_STAGES | dict(adapt_to="clone2", reset_every=2, code_switch=0.3, afp_word_weight=1.0,
                          log_every=100)
FLAGS = [part for name, value in (ALL_STAGES | dict(steps=40, method="prealign")).items() if name != "device"
         for part in (f"--{name}", str(value))]


class NotRun(Exception):
    """A check that cannot be done here; the text says why."""


def row(what, measured, bar="", ok=True):
    return dict(what=what, measured=measured, bar=bar, result="ok" if ok else "FAILED")


def at_most(what, value, bar, form="{:.2g}"):
    """A row with a bar; None: no bar.  NaN fails."""
    return row(what, form.format(value), "" if bar is None else "<= " + form.format(bar),
               bar is None or value <= bar)


def at_least(what, value, bar, form="{:.2g}"):
    return row(what, form.format(value), "" if bar is None else ">= " + form.format(bar),
               bar is None or value >= bar)


def equal(what, ok):
    """A row that says whether two things are equal, bit for bit."""
    return row(what, "equal" if ok else "different", "equal", ok)


def error(mine, exact):
    """Relative error of a tensor against one on the CPU in float64."""
    return ((mine.detach().double().cpu() - exact).norm() / exact.norm()).item()


# --- values -------------------------------------------------------------------------------------------------

def losses(here):
    """Losses and gradients on the device, under autocast, against float64 on the CPU."""
    torch.manual_seed(0)
    N = 300 if here.quick else 5000                            # more than one tile
    states, concept = torch.randn(2, N, 64), torch.arange(N // 2).repeat(2)
    alike = torch.cat((states[:, :N // 2], states[:, :N // 2] + 0.01 * states[:, N // 2:]), dim=1)
    for name, value, tau, anchors in (("one set", states, 0.1, None),
                                      ("one set, tau 0.01", states, 0.01, None),
                                      ("one set, converged", alike, 0.1, None),
                                      ("two sides", states, 0.05, N // 2)):
        exact, mine = (value.to(**kind).requires_grad_() for kind in (
            dict(dtype=torch.float64), dict(device=here.device, copy=True)))
        wanted = plain_contrastive_loss(exact, concept, tau, anchors)
        wanted.backward()
        with torch.autocast(here.device.type, torch.bfloat16):
            loss = contrastive_loss(mine, concept, tau, anchors)
        loss.backward()
        yield at_most(f"contrastive loss, {name}, nats", abs(loss.item() - wanted.item()), 2e-5)
        yield at_most(f"contrastive loss, {name}, gradient, relative", error(mine.grad, exact.grad), 2e-5)
    scores, targets = torch.randn(4, 33, 500), torch.randint(500, (4, 33))
    targets[:, ::3] = IGNORE
    exact, mine = scores.double().requires_grad_(), scores.to(here.device, copy=True).requires_grad_()
    wanted = torch.nn.functional.cross_entropy(exact.flatten(0, 1), targets.flatten())
    wanted.backward()
    loss = lm_loss(mine, targets.to(here.device))
    loss.backward()
    yield at_most("language-model loss", error(loss, wanted), 1e-6)
    yield at_most("language-model loss, gradient", error(mine.grad, exact.grad), 1e-6)


def model_parts(here):
    """The decoder, generation, resets and expansion on the device against the CPU."""
    torch.manual_seed(0)
    config = ModelConfig(300, 2, 4, 64, 64)
    exact, mine = GPT(config).initialise(0).double(), GPT(config).initialise(0).to(here.device)
    tokens, targets = torch.randint(300, (4, 64)), torch.randint(300, (4, 64))
    on_device = tokens.to(here.device)
    wanted, found = exact.logits(tokens), mine.logits(on_device)
    lm_loss(wanted, targets).backward()
    lm_loss(found, targets.to(here.device)).backward()
    yield at_most("scores of the model, float32", error(found, wanted.detach()), 1e-5)
    worst = max(error(p.grad, q.grad.double()) for p, q in zip(mine.parameters(), exact.parameters()))
    yield at_most("its gradients (the exact loss is in float32)", worst, 1e-4)
    with torch.autocast(here.device.type, torch.bfloat16), torch.no_grad():
        low, later = mine.logits(on_device), mine.logits(on_device.clone().index_fill_(
            1, torch.tensor([63], device=here.device), 7))
    yield at_most("scores under bfloat16", error(low, wanted.detach()), 0.05)
    yield equal("earlier scores, whatever the later token", torch.equal(low[:, :63], later[:, :63]))
    for p, q in zip(mine.parameters(), exact.parameters()):    # loud scores, so that rounding decides nothing
        p.data.mul_(3), q.data.mul_(3)
    prompts = [[1, 2, 3], [4], list(range(60))]
    texts = [generate(m, prompts, 20, temperature=0) for m in (exact, mine)]
    yield equal("greedy generation", texts[0] == texts[1])
    draws = [generate(mine, prompts, 20, top_k=9, generator=torch.Generator(here.device).manual_seed(1))
             for _ in range(2)]
    yield equal("sampled generation, twice", draws[0] == draws[1])
    pair = [GPT(config).initialise(0), GPT(config).initialise(0).to(here.device)]
    for model in pair:
        device = model.embed.weight.device
        optimizer = torch.optim.AdamW(model.param_groups(1e-3, 1e-3, 0.1), fused=True)
        lm_loss(model.logits(tokens.to(device)), targets.to(device)).backward()
        optimizer.step()
        Forgetting(10, 2).reset_if_due(2, model, optimizer)
    reset = [model.embed.weight.cpu() for model in pair]
    yield equal("embedding after a reset", torch.equal(*reset))
    moment = optimizer.state[model.embed.weight]["exp_avg"].abs().max().item()
    yield row("largest moment after a reset", f"{moment:g}", "0", moment == 0)
    model = pair[1]
    before = model.logits(on_device).detach()
    expand_vocabulary(model, 40)
    yield equal("old scores after expansion", torch.equal(model.logits(on_device)[..., :300], before))
    optimizer, old = torch.optim.AdamW(new_row_groups(model, 1e-2), fused=True), model.embed.old.clone()
    lm_loss(model.logits(on_device + 40), on_device + 40).backward()
    optimizer.step()
    yield equal("old rows after a step of the new ones", torch.equal(model.embed.old, old))
    n_rows = len(merge_vocabulary(model).embed.weight)
    yield row("rows after merging", str(n_rows), "340", n_rows == 340)


def fused_loss(here):
    """The fused loss where a matrix of N x N would not fit: its closed form, time and memory."""
    for N in (600,) if here.quick else (2**12, 2**14, 2**16):
        states = torch.ones(1, N, 32 if here.quick else 1024, device=here.device)
        concept = torch.arange(N // 2).repeat(2)
        work = bench.there_and_back(contrastive_loss, states, concept)
        work()
        seconds = bench.seconds(work, here.device)
        mib = bench.extra_memory(work, here.device) / bench.MIB
        off = abs(contrastive_loss(states, concept).item() - math.log(N - 1))
        yield at_most(f"fused loss, N {N:,}, all words alike ({seconds * 1e3:.0f} ms, {mib:.0f} MiB): off "
                      "log(N - 1)", off, 1e-3)


# --- training -----------------------------------------------------------------------------------------------

class Enough(Exception):
    """The steps of a check are done."""


def small_run(here, name, device=None, **options):
    options = SMALL | dict(device=str(device or here.device.type)) | options
    return Run(Config(**options), here.folder / name, here.folder / "cache", quiet=True)


def stage_of(run, name):
    """What fit needs for a stage: -> losses, parameter groups, resets."""
    groups = train.param_groups(run, 1e-3)
    if name == "align words":
        return partial(train.align_words, run), groups, None
    if name == "pretrain":
        return partial(train.pretrain, run), groups, train.reset_schedule(run.cfg)
    if name == "adapt":
        n_rows = run.corpus.add_language(run.cfg.new_language, run.cfg.adapt_tokens)
        expand_vocabulary(run.model, n_rows)
        return partial(train.adapt, run), new_row_groups(run.model, 1e-2), None
    if name == "align sentences":
        return partial(train.align_sentences, run, run.training_samples()), groups, None
    items = run.corpus.exercises()
    return partial(train.answer_items, run, run.model, items, train.INSTRUCT), groups, None


def some_steps(run, stage, losses, groups, resets=None, before=lambda step: None, n=6):
    """n steps of the training loop, none of them the last one.  before: a function of the number of each."""
    def parts(step):
        before(step)
        if step == n:
            raise Enough
        yield from losses(step)
    try:
        train.fit(run, run.model, stage, parts, groups, 100, resets)
    except Enough:
        pass


def waiting(here):
    """CUDA itself raises where the program waits for the GPU in the inner steps of a stage."""
    if here.device.type != "cuda":
        raise NotRun("no GPU; tests/test_device.py looks for the same without one")
    for stage in Config(**SMALL).stages:
        run = small_run(here, "waiting", dtype="auto")
        needed, found = stage_of(run, stage), "none"
        try:                                                   # the first step sets things up
            some_steps(run, stage, *needed, before=lambda step: torch.cuda.set_sync_debug_mode(
                "error" if 0 < step < 6 else "default"))
        except RuntimeError as problem:
            found = str(problem).splitlines()[0]
        torch.cuda.set_sync_debug_mode("default")
        yield row(f"waiting for the GPU: {stage}", found, "none", found == "none")


def checkpoints(here):
    """Checkpoints written on one device and resumed on the other, through all stages."""
    kind = here.device.type
    for writer, reader in dict.fromkeys([(kind, "cpu"), ("cpu", kind)]):
        name = f"{writer}-{reader}"
        run = small_run(here, name, writer)
        run.enter()
        run.stop = signal.SIGINT                               # stops after one step and saves
        try:
            train.recipe(run)
        except Interrupted:
            pass
        resumed = small_run(here, name, reader)
        resumed.enter()
        resumed.model.load_state_dict(resumed.checkpoint["model"])
        same = all(torch.equal(p.cpu(), q.cpu()) for p, q in zip(
            run.model.state_dict().values(), resumed.model.state_dict().values()))
        train.recipe(resumed)
        last = load_checkpoint(resumed.out / "last.pt")
        finite = all(p.isfinite().all() for p in last["model"].values())
        yield row(f"checkpoint of {writer} read on {reader}", "equal weights" if same else "other weights",
                  "equal weights", same)
        yield row(f"resumed there to {last['stage']}, step {last['step']}",
                  "finite" if finite else "not finite", "finite", finite and last["stage"] == "instruct")


def preset(here, name, rows):
    """300 steps of a preset: the loss falls; speed and memory."""
    cuda, steps, warm = here.device.type == "cuda", 20 if here.quick else 300, 10   # CUDA starts in the first
    need_memory(here.device, 1 if here.quick else 40 if name == "150m" else 20)
    if here.quick and name != "small":
        raise NotRun("too large for --quick")
    flags = FLAGS if here.quick else ["--preset", name, "--batch_size", str(rows), "--accumulate", "1",
                                      "--words", "2000000"]
    cfg, _ = parse_args([*flags, "--method", "baseline", "--device", here.device.type])
    run, seen, start = Run(cfg, here.folder / name, here.folder / "cache", quiet=True), [], 0.0

    def parts(step):
        nonlocal start
        if step == warm:
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
        for loss, values, n_tokens in train.pretrain(run, step):
            seen.append(loss.detach())
            yield loss, values, n_tokens
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    train.fit(run, run.model, "pretrain", parts, train.param_groups(run, cfg.lr), steps, temporary=True)
    first, last = torch.stack(seen[:5]).mean().item(), torch.stack(seen[-5:]).mean().item()
    speed = (steps - warm) * cfg.batch_size * cfg.context_len / (time.perf_counter() - start)
    size = sum(p.numel() for p in run.model.parameters()) / 1e6
    what = "a tiny model" if here.quick else f"preset {name}"
    yield at_most(f"{what} ({size:.1f} M), {steps} steps of {cfg.batch_size} x {cfg.context_len} tokens in "
                  f"{run.dtype}: last loss (first {first:.2f})", last, first * (0.99 if here.quick else 0.8))
    yield row(f"{what}: tokens/s", f"{speed:,.0f}")
    if cuda:
        yield row(f"{what}: peak memory", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def command(here, *words, module=()):
    """Run train.py: -> seconds.  Raises RuntimeError, with its last error message, if it fails."""
    start = time.perf_counter()
    words = [*module, "train.py", *words, "--cache", here.folder / "cache", "--device", here.device.type]
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                          encoding="utf-8")
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-9000:], file=sys.stderr)
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        errors = [line for line in lines if re.search(r"(Error|Exception): \S", line)]    # hints follow
        raise RuntimeError((errors or lines)[-1])
    return time.perf_counter() - start


def pretrained(here):
    """AFP from a public checkpoint: 100 steps and the evaluation that follows."""
    if not here.checkpoint:
        raise NotRun("no --checkpoint DIR and --data FOLDER")
    out = here.folder / "aligned"
    seconds = command(here, "--method", "align", "--pretrained", here.checkpoint, "--data", here.data, "--afp_steps",
                      4 if here.quick else 100, "--eval_items", 10, "--generate_items", 10, "--log_every",
                      2 if here.quick else 20, "--out", out)
    log = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["afp_cit"] for line in log]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    yield at_most(f"AFP from {here.checkpoint}: last CIT loss (first {losses[0]:.2f})", losses[-1],
                  None if here.quick else losses[0], "{:.2f}")
    yield row("AFP from a checkpoint: with evaluation", f"{seconds:.0f} s")
    yield row("AFP from a checkpoint: peak memory", f"{summary['peak_memory_gb']:.1f} GiB")


def default_run(here):
    """The first command of the README, from an empty cache."""
    seconds = command(here, "--method", "prealign", *FLAGS[2:] * here.quick, "--out", here.folder / "default")
    summary = json.loads((here.folder / "default" / "summary.json").read_text(encoding="utf-8"))
    judged = here.device.type == "cuda" and not here.quick
    yield at_most("default run, seconds", seconds, 90 if judged else None, "{:.0f}")
    yield at_least("default run, word retrieval", summary["word_retrieval"], 0.4 if judged else None)


def lm_by_log(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return torch.tensor([r["lm"] for r in rows if "lm" in r])


def need_compiler(device):
    """Raise NotRun without what torch.compile needs."""
    if not (shutil.which("c++") or shutil.which("g++")):
        raise NotRun("no C++ compiler")
    if device.type == "cuda" and not importlib.util.find_spec("triton"):
        raise NotRun("no triton")
    if device.type == "cuda" and not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        raise NotRun("no Python.h, which triton needs")


def need_memory(device, gib):
    """Raise NotRun on a GPU with less memory."""
    if device.type == "cuda" and torch.cuda.mem_get_info()[1] < gib * 2**30:
        raise NotRun(f"needs {gib} GiB")


def compiled(here):
    """Training with --compile against training without."""
    need_compiler(here.device)
    for name, flags in (("eager", []), ("compiled", ["--compile"])):
        seconds = command(here, *FLAGS, *flags, "--out", here.folder / name)
    off = (lm_by_log(here.folder / "compiled") - lm_by_log(here.folder / "eager")).abs().max().item()
    yield at_most(f"--compile ({seconds:.0f} s): largest difference of a loss from the eager run", off, 0.01)


def processes(here):
    """torchrun with one process, and the collective operations of every stage."""
    seconds = command(here, *FLAGS, "--out", here.folder / "torchrun", module=(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"))
    yield row("torchrun with one process, seconds", f"{seconds:.0f}")
    # training joins a group of processes only if there are several: it is told of two, and finds itself alone
    os.environ |= dict(WORLD_SIZE="2", LOCAL_RANK="0")
    dist.init_process_group = partial(
        dist.init_process_group, init_method=f"file://{here.folder}/meeting", rank=0, world_size=1)
    init_distributed(here.device)
    backend = "nccl" if here.device.type == "cuda" else "gloo"
    for stage in Config(**SMALL).stages:                       # the first of two, in a group of one
        run = small_run(here, "processes")
        run.processes = Processes(0, 2)
        some_steps(run, stage, *stage_of(run, stage), n=2)
        finite = all(p.isfinite().all() for p in run.model.parameters())
        what = f"collective operations on {backend}: {stage}"
        yield row(what, "finite" if finite else "not finite", "finite", finite)


# --- speed --------------------------------------------------------------------------------------------------

def contrastive_speed(here):
    """bench.py contrastive."""
    judged = here.device.type == "cuda" and not here.quick
    need_memory(here.device, 46)                               # the plain loss at N 16,384
    found = bench.bench_contrastive(here.device, 2, quick=True)
    size = "K=6 N=16384 D=1024" if here.device.type == "cuda" else "K=6 N=512 D=256"
    at = found[size]
    yield at_least(f"fused loss, {size}: times faster than naive", at["plain_x"], 1.5 if judged else None)
    yield at_most("its memory as a share of naive", at["mib"] / at["plain_mib"], 1 / 20 if judged else None)
    yield at_least("its share of the float32 matmul peak", at["gflops"] / found["float32_peak_gflops"],
                   0.4 if judged else None)
    yield row("times faster than the leanest N x N loss", f"{at['lean_x']:.2g}")


def step_speed(here):
    """bench.py step."""
    need_compiler(here.device)
    need_memory(here.device, 24)
    found = bench.bench_step(here.device, 2 if here.quick else 5, here.folder / "cache", here.quick)
    judged = here.device.type == "cuda" and not here.quick
    yield at_least("LM step, compiled: share of the matmul peak", found["compiled"]["share_of_peak"],
                   0.4 if judged else None)
    yield row("LM step, compiled: tokens/s", f"{found['compiled']['tok_s']:,.0f}")
    faster = found["compiled"]["faster_than_nanogpt"]
    yield row("times faster than a compiled nanoGPT-style step", f"{faster:.2f}")
    yield row("alignment step, times faster than as published", f"{found['alignment_x']:.1f}")


# --- the report ---------------------------------------------------------------------------------------------

CHECKS = {   # name: (function, seconds after which it is stopped), the important ones first
    "losses": (losses, 60), "model": (model_parts, 60), "waiting": (waiting, 90),
    "fused loss": (fused_loss, 60), "checkpoints": (checkpoints, 120),
    "default run": (default_run, 180), "processes": (processes, 120), "compile": (compiled, 240),
    "contrastive speed": (contrastive_speed, 120), "step speed": (step_speed, 240),
    "small": (partial(preset, name="small", rows=64), 120),
    "150m": (partial(preset, name="150m", rows=16), 150), "pretrained": (pretrained, 240)}


def rows_of(name, here):
    """Do one check in this process: yields its rows.  An exception becomes a row."""
    try:
        yield from CHECKS[name][0](here)
    except NotRun as reason:
        yield row(name, str(reason)) | dict(result="not run")
    except Exception as problem:
        traceback.print_exc()
        text = (str(problem).strip() or "no message").splitlines()[0]
        yield row(name, f"{type(problem).__name__}: {text:.150}", "no error", ok=False)


def kill(pid):
    """End a process and all that come from it, those with a session of their own included (Linux)."""
    children = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):     # it has just ended by itself
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, listed.read_text(encoding="utf-8").split())
        os.kill(pid, signal.SIGKILL)
    for child in children:
        kill(child)


def rows_of_process(name, here, limit):
    """Do one check in its own process, which is killed after `limit` seconds: -> its rows.

    A check that the time for all checks cuts short has "no time"; it has not failed.
    """
    words = [sys.executable, __file__, "--check", name, "--device", here.device.type, "--folder", here.folder,
             "--checkpoint", here.checkpoint, "--data", here.data]
    child = subprocess.Popen([*map(str, words), *["--quick"] * here.quick], stdout=subprocess.PIPE, text=True,
                             encoding="utf-8")
    ending, cut = "", False
    try:
        text, _ = child.communicate(timeout=limit)
        if child.returncode:
            ending = f"ended with code {child.returncode}"
    except subprocess.TimeoutExpired:
        kill(child.pid)
        text, _ = child.communicate()
        ending, cut = f"stopped after {limit:.0f} s", limit < CHECKS[name][1]
    rows = [json.loads(line[4:]) for line in text.splitlines() if line.startswith("ROW ")]
    for line in text.splitlines():
        if not line.startswith("ROW "):
            print(line, file=sys.stderr)
    end = row(name, ending, "an end", ok=False) | (dict(result="no time") if cut else {})
    return [*rows, end] if ending else rows


def report(names, here, minutes=9.0, do=rows_of_process, keep=lambda rows: None):
    """Do the checks one after another: -> all rows.  keep: called with the rows so far after each check."""
    rows, start = [], time.perf_counter()
    for name in names:
        left, begin = 60 * minutes - (time.perf_counter() - start), time.perf_counter()
        if left < 10:
            found = [row(name, "not begun") | dict(result="no time")]
        else:
            found = list(do(name, here, min(left, CHECKS[name][1])))
        seconds = time.perf_counter() - begin
        print(f"{name}: {', '.join(sorted({r['result'] for r in found}))}, {seconds:.0f} s", file=sys.stderr)
        rows += [dict(check=name) | r for r in found]
        keep(rows)
    return rows


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--quick", action="store_true", help="small sizes; always on a CPU")
    p.add_argument("--out", default="runs/gpu-check.json", help="its JSON [runs/gpu-check.json]")
    p.add_argument("--minutes", type=float, default=9.0, help="time for all checks [9]")
    p.add_argument("--only", action="append", choices=tuple(CHECKS), help="only this check; may be repeated")
    p.add_argument("--check", choices=tuple(CHECKS), help=argparse.SUPPRESS)     # in a process of its own
    p.add_argument("--folder", help=argparse.SUPPRESS)
    p.add_argument("--checkpoint", default="", help="folder of a public checkpoint, for AFP")
    p.add_argument("--data", default="", help="folder that was prepared with its tokenizer")
    args = p.parse_args(argv)
    has_gpu = torch.cuda.is_available()
    if args.device == "cuda" and not has_gpu:
        p.exit(2, "gpu.py: --device cuda: this torch sees no CUDA device\n")
    device = torch.device("cuda" if has_gpu and args.device != "cpu" else "cpu")
    here = SimpleNamespace(device=device, quick=args.quick or device.type == "cpu", data=args.data,
                           checkpoint=args.checkpoint)
    torch.backends.cuda.enable_cudnn_sdp(False)                # as Run does
    if args.check:
        here.folder = Path(args.folder)
        torch.set_num_threads(1 if device.type == "cpu" else torch.get_num_threads())    # bench.py forks
        for found in rows_of(args.check, here):
            print("ROW " + json.dumps(found), flush=True)
        return 0
    out, machine, start = Path(args.out), bench.machine(device), time.perf_counter()
    out.parent.mkdir(parents=True, exist_ok=True)

    def keep(rows):
        out.write_text(json.dumps(dict(
            machine=machine, device=device.type, quick=here.quick, seconds=round(time.perf_counter() - start),
            rows=rows), indent=1), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        here.folder = Path(folder)
        rows = report(args.only or CHECKS, here, args.minutes, keep=keep)
    print(f"{machine}; {time.perf_counter() - start:.0f} s{'; small sizes' if here.quick else ''}\n")
    print("| what | measured | bar | result |\n|---|---|---|---|")
    for found in rows:
        print(f"| {found['what']} | {found['measured']} | {found['bar']} | {found['result']} |")
    return 1 if any(found["result"] in ("FAILED", "no time") for found in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
