"""A run's folder: configuration, log, checkpoint and results, each written whole or not at all.

The checkpoint is last.pt, the one before it previous.pt.  Both bear a checksum, so that the run goes on from
the older one should the newer be damaged; rows of the log that were written later are cut off.
"""
import json
import os
import re
import shlex
import signal
import sys
import threading
import warnings
import zipfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from data.files import locked, named, replaced, seal, seal_of

CHECKPOINT_VERSION = 2
FILES = ("config.json", "log.jsonl", "last.pt", "samples.txt", "sentences.svg", "summary.json")
MORE_FILES = ("previous.pt", "sentences-before.svg")           # which not every run has
CONTENT = dict(stage=str, step=int, model=dict, optimizer=dict, sums=dict, seconds=float, log_size=int)


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop, its number; what was trained is on the disk."""


@contextmanager
def on_signals(act):
    """Ctrl-C and SIGTERM, which schedulers send, call act(number)."""
    if threading.current_thread() is not threading.main_thread():      # only that one may decide on signals
        yield
        return
    before = {s: signal.signal(s, lambda number, _: act(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def exit_code(command, argv):
    """Of a command: its own, 2 and one line for a user's mistake, 128 and the number of a signal."""
    def stop(number):
        raise Interrupted(number)
    try:
        with on_signals(stop):
            return command(argv)
    except Interrupted as e:
        print("\nstopped; what was trained is saved.  Go on with:\n"
              f"  python train.py {shlex.join(map(str, argv))}", file=sys.stderr)
        return 128 + e.args[0]
    except (ValueError, OSError) as e:
        about = f"{e.filename or 'file'}: {e.strerror or e}" if isinstance(e, OSError) else str(e)
    except (MemoryError, RuntimeError) as e:
        short = re.search("out of memory|not enough memory|allocate memory", str(e))
        if isinstance(e, RuntimeError) and not short:
            raise
        about = ("this needs more memory than there is: lower --batch_size, raise --accumulate, or take a "
                 "smaller --preset")
    print("train.py:", " ".join(about.split()), file=sys.stderr)       # names of files may hold newlines
    return 2


def device_of(name):
    """auto, cpu or cuda -> torch.device.  Raises ValueError for a GPU that is not there."""
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise ValueError("--device cuda: this torch sees no CUDA device; use --device cpu or auto")
    return torch.device(name if name != "auto" else "cuda" if cuda else "cpu")


class Folder:
    """The files of one run; `out` is its path."""

    def __init__(self, out, writer=True):
        self.out, self.writer = Path(out), writer              # of many processes, one writes

    def read(self, name):
        """The content of a JSON file, None if it is not there.  Raises ValueError for a damaged one."""
        path = self.out / name
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (ValueError, RecursionError):
            content = "damaged"
        if content is None or isinstance(content, dict):
            return content
        raise ValueError(f"{path} is damaged (no JSON object): train anew with --fresh")

    def write(self, name, content):
        if self.writer:
            with replaced(self.out / name) as temporary:
                temporary.write_text(content, encoding="utf-8")

    def claim(self, wanted, but=()):
        """Raises ValueError with the way out if the folder's run is another one than wanted, by name.

        but: names that may differ
        """
        known = self.read("config.json") or wanted
        known.setdefault("data_used", wanted.get("data_used"))     # which older runs do not have
        other = [f"{k} {known.get(k)} there, {v} here" for k, v in wanted.items()
                 if known.get(k) != v and k not in but]
        if other:
            raise ValueError(f"{self.out} holds a run of another configuration ({'; '.join(other)}): "
                             "choose another --out, or --fresh to train anew")

    @contextmanager
    def alone(self):
        """Make the folder, and keep other processes out of it."""
        with locked(self.out / "lock") if self.writer else nullcontext():
            yield

    def clear(self):
        for name in (*FILES, *MORE_FILES) if self.writer else ():
            (self.out / name).unlink(missing_ok=True)

    def last(self, device):
        """The newest good checkpoint, None if there is none at all.  Raises ValueError if all are damaged."""
        wrong = None
        for path in (self.out / "last.pt", self.out / "previous.pt"):
            try:
                checkpoint = load_checkpoint(path, device) if path.exists() else None
                if checkpoint and checkpoint["log_size"] > self.log_size():
                    raise ValueError(f"{self.out}/log.jsonl is shorter than when {path.name} was written")
            except ValueError as error:
                wrong = wrong or error
                continue
            if checkpoint and wrong:
                print(f"{wrong}: going on from {path.name}, step {checkpoint['step']} of "
                      f"{checkpoint['stage']}", file=sys.stderr)
            if checkpoint:
                return checkpoint
        if wrong:
            raise ValueError(f"{wrong}: train anew with --fresh")

    def log_size(self):
        log = self.out / "log.jsonl"
        return log.stat().st_size if log.exists() else 0

    def cut_log(self, checkpoint):
        """Rows after the checkpoint are of steps that will be done again."""
        if self.writer:
            with open(self.out / "log.jsonl", "ab") as log:
                log.truncate(checkpoint["log_size"] if checkpoint else 0)

    def save(self, **state):
        if not self.writer:
            return
        with replaced(self.out / "last.pt", before=self.out / "previous.pt") as temporary:
            with open(temporary, "wb") as file:
                torch.save(dict(version=CHECKPOINT_VERSION, log_size=self.log_size()) | state, file)
            seal(temporary)

    def rows(self):
        """The rows of the log.  Raises ValueError for a damaged one."""
        try:
            log = (self.out / "log.jsonl").read_text(encoding="utf-8")
            return [json.loads(line) for line in log.splitlines()]
        except (ValueError, RecursionError):
            raise ValueError(f"{self.out}/log.jsonl is damaged: train anew with --fresh") from None

    def curve(self, stage, key):
        """What the log says of one quantity in one stage: {step: value}."""
        return {row["step"]: row[key] for row in self.rows() if row["stage"] == stage}

    def log(self, row):
        if not self.writer:
            return
        with named(self.out / "log.jsonl"), open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
            log.flush()
            os.fsync(log.fileno())                             # a checkpoint is never ahead of its log


@contextmanager
def reading(results):
    """Results that another program or a person changed may fail anywhere in a report: one line for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)     # numpy's, of numbers that are none
            yield
    except OSError:
        raise
    except Exception as error:
        why = error if type(error) is ValueError else "what it holds is damaged; --eval_only writes it anew"
        raise ValueError(f"{results}: {why}") from None


def load_checkpoint(path, device):
    """Raises ValueError for anything but a whole checkpoint of this program."""
    why = "is damaged, or is no checkpoint of a run"
    try:
        sound = seal_of(path)
        # what torch saves is a zip file; anything else it would take for a pickle of its early days
        if sound is not False and zipfile.is_zipfile(path):
            checkpoint = torch.load(path, map_location=device, weights_only=True)   # plain data: runs no code
            version = checkpoint["version"]
            if version not in (1, CHECKPOINT_VERSION):
                why = f"is of version {version:d}, this program writes {CHECKPOINT_VERSION}"
            # version 1 bears no checksum and is the same otherwise
            elif (sound or version == 1) and all(isinstance(checkpoint[k], t) for k, t in CONTENT.items()):
                return checkpoint
    except FileNotFoundError:
        why = "is missing"
    except Exception:                                          # a foreign file raises one of many kinds
        pass
    raise ValueError(f"{path} {why}")


def restore(checkpoint, model, optimizer, out):
    """Weights and moments as they were saved.  Raises ValueError if they are another model's."""
    try:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        same = all(v.shape in ((), p.shape) for p, state in optimizer.state.items() for v in state.values())
    except Exception:                                          # of many kinds, most of many lines
        same = False
    if not same:
        raise ValueError(f"the checkpoint in {out} is of another model than its config.json: "
                         "train anew with --fresh")


def finished(flag, folder, stage, model, digest, steps=None, parts=""):
    """Weights of a run whose last stage, of that many steps, is done.  Raises ValueError that names the flag.

    model:  which they must fit, at least in the parameters whose names begin with `parts`
    digest: of the data
    """
    try:
        state = load_checkpoint(Path(folder) / "last.pt", next(model.parameters()).device)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}; give the folder of a finished run") from None
    if state["stage"] != stage or state["step"] != (steps or state["step"]):
        wanted = dict(pretrain="without align and with --adapt_to none",
                      instruct="with --instruct_steps")[stage]
        raise ValueError(f"{flag} {folder}: its last checkpoint is step {state['step']} of {state['stage']}; "
                         f"give a finished run {wanted}")
    if (Folder(folder).read("config.json") or {}).get("data_used", digest) != digest:
        raise ValueError(f"{flag} {folder}: it was trained on other data than there is now; train it anew")
    theirs, ours = ({name: p.shape for name, p in weights.items() if name.startswith(parts)}
                    for weights in (state["model"], model.state_dict()))
    if theirs != ours:
        raise ValueError(f"{flag} {folder}: its model has another shape; give this run the same data, "
                         "--n_layer, --d_model and so on")
    return state["model"]
