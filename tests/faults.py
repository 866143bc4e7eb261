"""kill -9 at random moments of a run with every stage: nothing may be lost.

`python tests/faults.py 50` kills a run fifty times and resumes it with the same command.  The result is
compared with that of an uninterrupted run: weights, rows of the log, summary, samples and pictures.
test_faults.py does the same at chosen moments.
"""
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
import torch._dynamo  # noqa: E402, F401   torch imports it at the first step: two seconds in every process

import train  # noqa: E402

# every stage: words, pretraining with resets, a new language, sentences, English exercises
ALL_STAGES = dict(
    method="prealign+forget+align", words=20_000, vocab_size=400, n_layer=2, n_head=2, d_model=32,
    context_len=32, batch_size=4, steps=16, prealign_steps=4, prealign_words=16, prealign_rows=2,
    reset_every=4, reset_until=1, adapt_steps=6, adapt_tokens=5000, afp_steps=4, afp_samples=40, afp_rows=2,
    afp_batch=6, instruct_steps=4, generate_items=0, log_every=2, eval_items=4, transfer_steps=2,
    dtype="float32", device="cpu")
OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def command(out, cache, **changes):
    wanted = ALL_STAGES | changes | dict(out=out, cache=cache)
    return [part for k, v in wanted.items() for part in (f"--{k}", str(v))]


def die_at(n, operation="", name=""):
    """Let this process kill itself before its n-th file operation of that kind on a file with that name."""
    left = [n]

    def hook(event, arguments):
        if event in OPERATIONS and operation in event and name in str(arguments[:2]):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)


def start(argv, prepare=None, seconds=None):
    """Run the command in a process of its own, killed after some seconds: -> its exit code, -9 if killed.

    A fork, not a new interpreter: importing torch would take longer than the whole run.
    """
    child = os.fork()
    if not child:
        code = 99
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            if prepare:
                prepare()
            code = train.main(argv)
        finally:
            os._exit(code)
    timer = threading.Timer(seconds or 0, os.kill, (child, signal.SIGKILL))
    if seconds:
        timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    return os.waitstatus_to_exitcode(status)


def written(out):
    """Everything that a run has written, without times."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    weights = torch.load(out / "last.pt", weights_only=True)
    return dict(
        rows=[{k: v for k, v in row.items() if k != "tok_s"} for row in rows],
        summary={k: v for k, v in summary.items() if k not in ("minutes", "peak_memory_gb")},
        files={name: (out / name).read_bytes()
               for name in ("samples.txt", "sentences.svg", "sentences-before.svg")},
        weights={name: p.numpy().tobytes() for name, p in weights["model"].items()})


def moment(out, cache):
    """Where a run was when it was killed, judged by its files: -> str."""
    if not list(cache.glob("*/meta.json")):
        return "building the corpus"
    if not (out / "log.jsonl").exists():
        return "before training"
    if (out / "last.pt.tmp").exists() or not (out / "last.pt").exists() and (out / "previous.pt").exists():
        return "saving"
    rows = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    if not rows:
        return "align words"
    try:
        last = json.loads(rows[-1])
    except ValueError:
        return "writing the log"
    done = (last["stage"], last["step"]) == ("instruct", ALL_STAGES["instruct_steps"])
    return "evaluation" if done else last["stage"]


def main(kills, seed=0):
    r, found, runs = Random(seed), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        folder, began = Path(folder), time.perf_counter()
        assert start(command(folder / "whole", folder / "cache")) == 0
        length, whole = time.perf_counter() - began, written(folder / "whole")
        while sum(found.values()) < kills:
            runs += 1
            out, cache = folder / f"run{runs}", folder / f"cache{runs}"
            while sum(found.values()) < kills:
                how = (dict(seconds=r.uniform(0.01, length)) if r.random() < 0.5 else
                       dict(prepare=partial(die_at, r.randint(1, 160), name=str(folder))))
                code = start(command(out, cache), **how)
                assert code in (0, -signal.SIGKILL), f"exit code {code}: {command(out, cache)}"
                if code == 0:
                    break
                found[moment(out, cache)] += 1
            assert start(command(out, cache)) == 0
            assert written(out) == whole, f"run {runs} is not what it would have been"
            assert not list(out.glob("*.tmp")) and not list(cache.glob("*.tmp"))
            print(f"{sum(found.values())} kills survived, {runs} runs identical: "
                  + ", ".join(f"{name} {n}" for name, n in found.most_common()), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:]))
