"""A run's folder: configuration, log, checkpoint and results, each written whole or not at all."""
import json
import os
from pathlib import Path

import torch

CHECKPOINT_VERSION = 1
FILES = ("config.json", "log.jsonl", "last.pt", "samples.txt", "sentences.svg", "summary.json")


class Folder:
    """The files of one run; `out` is its path."""

    def __init__(self, out):
        self.out = Path(out)

    def read(self, name):
        """The content of a JSON file, None if it is not there.  Raises ValueError for a damaged one."""
        path = self.out / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError:
            raise ValueError(f"{path} is damaged (not JSON): train anew with --fresh") from None

    def write(self, name, content):
        temporary = self.out / (name + ".tmp")
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, self.out / name)

    def claim(self, wanted, found):
        """Make the folder, or go on in it.  Raises ValueError with the way out if its run is another one.

        wanted: the configuration, by name;  found: what else config.json keeps
        """
        self.out.mkdir(parents=True, exist_ok=True)
        known = self.read("config.json") or wanted
        other = [f"{k} {known.get(k)} there, {v} here" for k, v in wanted.items() if known.get(k) != v]
        if other:
            raise ValueError(f"{self.out} holds a run of another configuration ({'; '.join(other)}): "
                             "choose another --out, or --fresh to train anew")
        self.write("config.json", json.dumps(wanted | found, indent=1))

    def load(self, device):
        """The last checkpoint, None if there is none; log rows written after it are cut off."""
        path, checkpoint = self.out / "last.pt", None
        if path.exists():
            checkpoint = load_checkpoint(path, device)
        with open(self.out / "log.jsonl", "ab") as log:        # later rows: of steps that will be done again
            log.truncate(checkpoint["log_size"] if checkpoint else 0)
        return checkpoint

    def save(self, **state):
        """Written beside the old checkpoint and moved over it."""
        temporary = self.out / "last.pt.tmp"
        torch.save(dict(version=CHECKPOINT_VERSION, log_size=(self.out / "log.jsonl").stat().st_size) | state,
                   temporary)
        os.replace(temporary, self.out / "last.pt")

    def rows(self):
        """The rows of the log."""
        log = (self.out / "log.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in log.splitlines()]

    def log(self, row):
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")


def load_checkpoint(path, device):
    """Raises ValueError with the way out for anything but a checkpoint of this version."""
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)   # plain data: runs no code
        if checkpoint["version"] == CHECKPOINT_VERSION:
            return checkpoint
        why = f"is of version {checkpoint['version']}, this program writes {CHECKPOINT_VERSION}"
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: give the folder of a run that was trained") from None
    except Exception as error:                                 # a damaged file raises one of many kinds
        why = f"cannot be loaded ({type(error).__name__})"
    raise ValueError(f"{path} {why}: train anew with --fresh")


def finished(flag, folder, stage, device, steps=None):
    """Weights of a run whose last stage, of that many steps, is done.  Raises ValueError that names the flag."""
    state = load_checkpoint(Path(folder) / "last.pt", device)
    if state["stage"] != stage or state["step"] != (steps or state["step"]):
        wanted = dict(pretrain="with --adapt_to none", instruct="with --instruct_steps")[stage]
        raise ValueError(f"{flag} {folder}: its last checkpoint is step {state['step']} of {state['stage']}; "
                         f"give a finished run {wanted}")
    return state["model"]
