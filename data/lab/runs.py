"""The folder of a run: configuration, log, checkpoints and results, each written completely or not at all.

The newest checkpoint is last.pt, the one before it previous.pt.  If the newest is damaged, the run resumes
from the older one, and rows of the log that were written after it are cut off.
"""
import json
import os
import re
import shlex
import signal
import sys
import warnings
import zipfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from data.files import UserError, locked, named, read_json, refuse, replaced
from data.lab.options import TRAIN_AGAIN

CHECKPOINT_VERSION = 4
CONTENT = dict(run=dict, stage=str, step=int, model=dict, optimizer=dict, sums=dict, seconds=float,
               log_size=int)
CHECKPOINTS = ("last.pt", "previous.pt")
FILES = ("config.json", "log.jsonl", "last.pt", "samples.txt", "sentences.svg", "summary.json")
MORE_FILES = ("previous.pt", "sentences-before.svg")           # only some runs have these


class RunFolder:
    """The files of one run.  writer: whether this process writes; of several processes, one does."""

    def __init__(self, out, writer=True):
        self.out, self.writer = Path(out), writer
        self.log_path = self.out / "log.jsonl"

    def read(self, name):
        """The object in a JSON file, None if there is no file.  Raises UserError for a damaged one."""
        return read_json(self.out / name, TRAIN_AGAIN)

    def write(self, name, content):
        if self.writer:
            with replaced(self.out / name) as temporary:
                temporary.write_text(content, encoding="utf-8")

    def lock(self):
        """Create the folder and keep other processes out of it.  Raises UserError if one is using it."""
        return locked(self.out / "lock") if self.writer else nullcontext()

    def clear(self):
        """Delete the files of the run."""
        for name in (*FILES, *MORE_FILES) if self.writer else ():
            (self.out / name).unlink(missing_ok=True)

    def has_checkpoint(self):
        return any((self.out / name).exists() for name in CHECKPOINTS)

    def last(self):
        """The newest intact checkpoint, None if there is no file.  Raises UserError if all are damaged."""
        problem = None
        for path in (self.out / name for name in CHECKPOINTS if (self.out / name).exists()):
            try:
                checkpoint = load_checkpoint(path)
                refuse(checkpoint["log_size"] > self.log_size(),
                       f"{self.log_path} is shorter than when {path.name} was written")
            except UserError as error:
                problem = problem or error
                continue
            if problem:
                print(f"{problem}: resuming from {path.name}, step {checkpoint['step']} of "
                      f"{checkpoint['stage']}", file=sys.stderr)
            return checkpoint
        refuse(problem, f"{problem}: {TRAIN_AGAIN}")
        return None

    def save(self, **state):
        """Write a checkpoint.  state: the keys of CONTENT except log_size."""
        if self.writer:
            last, previous = (self.out / name for name in CHECKPOINTS)
            with replaced(last, before=previous) as temporary, open(temporary, "wb") as file:
                torch.save(dict(version=CHECKPOINT_VERSION, log_size=self.log_size()) | state, file)

    def log_size(self):
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def log(self, row):
        """Append a row to the log."""
        if self.writer:
            with named(self.log_path), open(self.log_path, "a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
                log.flush()
                os.fsync(log.fileno())                         # a checkpoint is never newer than its log

    def rows(self):
        """The rows of the log.  Raises UserError for a damaged one."""
        try:
            rows = [json.loads(line) for line in self.log_path.read_text(encoding="utf-8").splitlines()]
            return [dict(row, stage=str(row["stage"]), step=int(row["step"])) for row in rows]
        except (ValueError, RecursionError, KeyError, TypeError, OverflowError):
            raise UserError(f"{self.log_path} is damaged: {TRAIN_AGAIN}") from None

    def curve(self, stage, key):
        """One quantity of the log in one stage: -> {step: value}."""
        return {row["step"]: row[key] for row in self.rows() if row["stage"] == stage}


def load_checkpoint(path, device="cpu"):
    """Read a checkpoint: -> dict.  Raises UserError for anything but an intact checkpoint of this version."""
    problem = "is damaged, or is not a checkpoint of a run"
    try:
        # torch.load compares no checksums, and takes a file that is no zip file for a pickle
        with zipfile.ZipFile(path) as file:
            # attributes have no checksum, and torch.load leaves a tensor empty that is marked as a folder
            intact = file.testzip() is None and not any(entry.external_attr for entry in file.infolist())
        if intact:
            checkpoint = torch.load(path, map_location=device, weights_only=True)     # this runs no code
            version = checkpoint["version"]
            if version != CHECKPOINT_VERSION:
                problem = f"is of version {version:d}, this program reads version {CHECKPOINT_VERSION}"
            elif all(isinstance(checkpoint[key], kind) for key, kind in CONTENT.items()):
                return checkpoint
    except FileNotFoundError:
        problem = "is missing"
    except Exception:                                          # a foreign file raises one of many kinds
        pass
    raise UserError(f"{path} {problem}")


# --- commands -----------------------------------------------------------------------------------------------

class Interrupted(KeyboardInterrupt):
    """A signal (its number is the argument) asked the program to stop; the last steps are saved."""


@contextmanager
def on_signals(act):
    """Call act(number) on Ctrl-C and on SIGTERM, which schedulers send."""
    before = {s: signal.signal(s, lambda number, _: act(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def exit_code(command, argv):
    """Run command(argv): -> its exit code, 2 for a user's mistake, 128 + number for a signal.

    Any other exception is a bug, and passes with its traceback.
    """
    def stop(number):
        raise Interrupted(number)
    try:
        with on_signals(stop):
            return command(argv)
    except Interrupted as interruption:
        again = shlex.join(str(word) for word in argv if word != "--fresh")      # this would delete the run
        print(f"\nstopped; what was trained is saved.  Resume with:\n  python train.py {again}",
              file=sys.stderr)
        return 128 + interruption.args[0]
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'file'}: {error.strerror or error}"
    except (MemoryError, RuntimeError) as error:
        out_of_memory = re.search("out of memory|not enough memory|allocate memory|ALLOC_FAILED", str(error))
        if isinstance(error, RuntimeError) and not out_of_memory:
            raise
        message = ("this needs more memory than there is: lower --batch_size, raise --accumulate, or take a "
                   "smaller --preset")
    print("train.py:", " ".join(message.split()), file=sys.stderr)     # names of files may hold newlines
    return 2


@contextmanager
def reading(results):
    """Report on result files: whatever fails becomes a UserError, because a person may have changed them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)     # numpy warns of means of nothing and of nan
            yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(f"{results}: damaged results ({type(error).__name__}: {error}); --eval_only writes "
                        "them again") from error


def device_of(name):
    """auto, cpu or cuda -> torch.device.  Raises UserError if there is no GPU."""
    has_gpu = torch.cuda.is_available()
    refuse(name == "cuda" and not has_gpu,
           "--device cuda: torch finds no CUDA device; use --device cpu or auto")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")
