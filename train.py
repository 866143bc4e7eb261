"""One model's life: align words, pretrain, evaluate.  `recipe` is the experiment, the rest is plumbing.

  python train.py --method prealign        trains, evaluates and writes runs/prealign-tiny-synthetic-s0/
  python train.py --method baseline        joint training on the same mixture of languages
  python train.py --reproduce prealign     baseline, method, ablations and controls over seeds, with verdicts
  python train.py --report runs/*          the comparison table and the curves of finished runs

The same command again goes on where it stopped, or shows the finished run.
"""
import argparse
import copy
import difflib
import json
import math
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from data import corpus as corpora
from data import measure, report, tasks
from model import GPT, IGNORE, PRESETS, Shape, choose_dtype, generate, learning_rate
from prealign import code_switch, word_alignment_loss, word_states

METHODS = ("baseline", "prealign")
CHECKPOINT_VERSION = 1
FILES = ("config.json", "log.jsonl", "last.pt", "samples.txt", "summary.json")
# Streams of random numbers: every draw of a run comes from default_rng((seed, stream, step)).
ALIGN_TEXT, ALIGN_WORDS, TEXT, SWITCH, TRANSFER = range(1, 6)

# What a preset sets beside the model's shape; explicit flags win.
PAPER = dict(batch_size=256, lr=3e-4, embed_lr=1.0, head_lr=1.0, code_switch=0.05, keep_aligned=0, align_weight=0.5,
             align_steps=5000, align_words=256, align_rows=64, align_lr=5e-4)
TRAINING = {
    "tiny": dict(),
    "small": dict(words=20_000_000, steps=5000, batch_size=64, lr=1e-3, align_steps=600, align_words=512, align_rows=16),
    "150m": PAPER | dict(words=200_000_000, steps=20_000),
    "400m": PAPER | dict(words=400_000_000, steps=40_000),
    "1.3b": PAPER | dict(words=800_000_000, steps=80_000),
}


# --- configuration: this dataclass is the command line and config.json ----------------------------------------

def option(default, help, low=None, high=None, choices=None):
    return field(default=default, metadata=dict(help=help, low=low, high=high, choices=choices))


@dataclass(frozen=True)
class Config:
    """Every knob of a run.  `--align_steps 0 --code_switch 0` makes prealign the baseline, bit for bit."""
    method: str = option("baseline", "what to train", choices=METHODS)
    preset: str = option("tiny", "size of model and training; the flags below win over it", choices=tuple(PRESETS))
    seed: int = option(0, "of the world, the initial weights and the batches", 0, 2**31)
    # data
    text: str = option("", "your own English, one document per line, in place of the world's stories")
    languages: str = option("en,clone", "English first, then clone, clone2 ..., reversed or shuffled-K")
    words: int = option(1_500_000, "English words of training text to generate", 1000, 2**50)
    clone_share: float = option(0.1, "share of the other languages in all text and in every batch", 0.001, 0.95)
    vocab_size: int = option(1280, "byte-level BPE tokens per language", 300, 2**20)
    # model
    n_layer: int = option(4, "transformer blocks", 1, 999)
    n_head: int = option(4, "attention heads", 1, 999)
    d_model: int = option(128, "width", 2, 2**16)
    context_len: int = option(128, "tokens per sequence", 8, 2**20)
    tied: bool = option(False, "one matrix for embedding and head")
    # training
    steps: int = option(2000, "steps of text; what aligning words reads is taken off pretraining", 1, 2**40)
    batch_size: int = option(8, "sequences per step", 1, 2**20)
    accumulate: int = option(1, "parts of an LM batch, to save memory; the batch of words is never split", 1, 2**20)
    lr: float = option(3e-3, "peak learning rate of the matrices; cosine down to a tenth", 1e-9, 1e3)
    embed_lr: float = option(3.0, "learning rate of the embedding, as a multiple of lr", 1e-6, 1e6)
    head_lr: float = option(3.0, "learning rate of the output head, as a multiple of lr", 1e-6, 1e6)
    weight_decay: float = option(0.1, "of the matrices; embedding, head and norms have none", 0, 1e3)
    warmup: float = option(0.05, "share of the steps with rising learning rate", 0, 1)
    clip: float = option(1.0, "the gradient norm is cut to this", 1e-9, 1e9)
    # PreAlign
    align_steps: int = option(300, "steps of word alignment before pretraining; 0: no alignment at all", 0, 2**40)
    align_words: int = option(128, "dictionary entries per alignment step: the pool of negatives", 2, 2**24)
    align_rows: int = option(4, "sequences of text per alignment step, for the LM loss beside it", 0, 2**20)
    align_weight: float = option(1.0, "weight of the alignment loss beside the LM loss (alpha)", 0, 1e6)
    align_lr: float = option(2e-3, "peak learning rate while aligning", 1e-9, 1e3)
    tau: float = option(0.1, "temperature of the contrastive loss", 1e-3, 1e3)
    keep_aligned: int = option(5, "pretraining steps between further alignment steps; 0: none, as published", 0, 2**40)
    code_switch: float = option(0.05, "probability that a dictionary word of the input is switched; 0: off", 0, 1)
    vanilla: bool = option(False, "ablation: switched words are targets, too")
    dictionary: str = option("gold", "shuffled gives every word a wrong translation", choices=("gold", "shuffled"))
    dictionary_coverage: float = option(1.0, "share of the words listed; the rest are the unseen words", 0.05, 1)
    # evaluation and machine
    log_every: int = option(100, "steps between log rows and checkpoints", 1, 2**40)
    eval_items: int = option(200, "test items per task and rung", 1, 10**6)
    shots: str = option("0", "numbers of solved examples in task prompts, as in 0,5")
    transfer_steps: int = option(300, "fine-tuning steps on English tasks for zero-shot transfer; 0: off", 0, 2**30)
    device: str = option("auto", "where to run", choices=("auto", "cpu", "cuda"))
    dtype: str = option("auto", "of matrix products in training", choices=("auto", "float32", "bfloat16"))
    compile: bool = option(False, "torch.compile the model's forward pass in pretraining")

    def __post_init__(self):
        for f in fields(self):
            low, high, found = f.metadata["low"], f.metadata["high"], getattr(self, f.name)
            if low is not None and not low <= found <= high:
                raise ValueError(f"--{f.name} {found} is out of range: {low} to {high}")
        names = self.languages.split(",")
        if names[0] != "en" or len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"--languages {self.languages}: en first, then at least one other, as in en,clone")
        for name in names[1:]:
            corpora.language_order(name)
        if not all(part.isdigit() for part in self.shots.split(",")):
            raise ValueError(f"--shots {self.shots}: numbers separated by commas, as in 0,5")
        if self.accumulate > self.batch_size:
            raise ValueError(f"--accumulate {self.accumulate} is more parts than --batch_size {self.batch_size} has rows")
        Shape(1, self.n_layer, self.n_head, self.d_model, self.context_len)
        if self.pretrain_steps < 1:
            raise ValueError(f"--steps {self.steps} leaves nothing to pretrain on after {self.align_steps} alignment steps "
                             f"of {self.align_rows} rows: raise --steps, or lower --align_steps or --align_rows")

    @property
    def pretrain_steps(self):
        """Steps left after the text read while aligning: every system sees the same number of tokens."""
        aligning = self.align_steps * self.align_rows if self.method == "prealign" else 0
        return self.steps - aligning // self.batch_size


def parse_args(argv):
    """Command line -> (Config, modes): a Config is what a run is, the modes are what to do with it."""
    class Parser(argparse.ArgumentParser):
        def error(self, message):                              # one line, and the nearest flag for a misspelt one
            for word in (w.split("=")[0] for w in argv if w.startswith("--")):
                near = difflib.get_close_matches(word, self._option_string_actions, 1)
                if word not in self._option_string_actions and near:
                    message = f"unknown flag {word}; did you mean {near[0]}?"
            self.exit(2, f"train.py: {message} (--help lists all flags)\n")

    p = Parser(prog="train.py", description=__doc__, allow_abbrev=False,
               formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = p.add_argument_group("modes and places")
    modes.add_argument("--out", default="", metavar="DIR", help="run folder [runs/<method>-<preset>-<data>-s<seed>]")
    modes.add_argument("--cache", default="data/cache", metavar="DIR", help="where generated corpora are kept")
    modes.add_argument("--fresh", action="store_true", help="delete the run's files and train anew")
    modes.add_argument("--eval_only", action="store_true", help="evaluate the last checkpoint again")
    modes.add_argument("--sample", metavar="TEXT", help="continue TEXT with the trained model, in every language")
    modes.add_argument("--overfit", action="store_true", help="check: one batch until its loss is below 0.1")
    modes.add_argument("--report", nargs="+", metavar="RUN", help="compare finished runs: table and curves")
    modes.add_argument("--reproduce", choices=tuple(report.SYSTEMS), help="a paper's systems over seeds, judged")
    modes.add_argument("--seeds", type=int, default=3, help="with --reproduce: number of seeds [3]")
    names = [a.dest for a in modes._group_actions]
    knobs = p.add_argument_group("knobs of a run [value in the preset tiny]")
    for f in fields(Config):
        kind = dict(action=argparse.BooleanOptionalAction) if f.type is bool else dict(type=f.type)
        if f.metadata["choices"]:
            kind["choices"] = f.metadata["choices"]
        knobs.add_argument(f"--{f.name}", default=argparse.SUPPRESS, help=f"{f.metadata['help']} [{f.default}]", **kind)
    given = vars(p.parse_args(argv))
    modes = argparse.Namespace(**{name: given.pop(name) for name in names}, given=given)
    return preset_config(given), modes


def preset_config(given):
    """Explicit flags over the preset's values over the defaults; without --preset, small on a GPU and tiny elsewhere."""
    preset = given.get("preset", "small" if torch.cuda.is_available() else "tiny")
    return Config(**(dict(preset=preset) | PRESETS[preset] | TRAINING[preset] | given))


# --- a run and its files --------------------------------------------------------------------------------------

class Run:
    """A configuration with its data, its model and its folder."""

    def __init__(self, cfg, out, cache="data/cache", quiet=False):
        self.cfg, self.out, self.quiet = cfg, Path(out), quiet
        self.languages, self.seconds, self.stop, self.checkpoint = cfg.languages.split(","), 0.0, False, None
        if cfg.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: this torch sees no CUDA device; use --device cpu or auto")
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device)
        known = self.read("config.json") or {}
        self.dtype = known.get("dtype_used") or (choose_dtype(self.device) if cfg.dtype == "auto" else cfg.dtype)
        self.corpus = corpora.load(cache, cfg.seed, self.languages, cfg.words, cfg.clone_share, cfg.vocab_size, cfg.text)
        self.dictionary, self.unseen = self.corpus.gold_dictionary().split(cfg.dictionary_coverage, cfg.seed)
        self.taught = self.dictionary.shuffled(cfg.seed) if cfg.dictionary == "shuffled" else self.dictionary
        shape = Shape(self.corpus.vocab_size, cfg.n_layer, cfg.n_head, cfg.d_model, cfg.context_len, cfg.tied)
        self.model = GPT(shape).initialise(cfg.seed).to(self.device)

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def tensor(self, array):
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)

    def read(self, name):
        path = self.out / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write(self, name, content):
        """Write a text file whole or not at all."""
        temporary = self.out / (name + ".tmp")
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, self.out / name)

    def open(self):
        """Make the folder, or go on in it; a folder of another configuration is refused with the way out."""
        self.out.mkdir(parents=True, exist_ok=True)
        known, wanted = self.read("config.json"), asdict(self.cfg)
        other = [f"{k} {known.get(k)} there, {v} here" for k, v in wanted.items() if known.get(k) != v] if known else []
        if other:
            raise ValueError(f"{self.out} holds a run of another configuration ({'; '.join(other)}): "
                             "choose another --out, or --fresh to train anew")
        self.write("config.json", json.dumps(wanted | dict(dtype_used=self.dtype), indent=1))
        if (self.out / "last.pt").exists():
            self.checkpoint = load_checkpoint(self.out / "last.pt", self.device)
            self.model.load_state_dict(self.checkpoint["model"])
            self.seconds = self.checkpoint["seconds"]
        with open(self.out / "log.jsonl", "ab") as log:        # later rows are of steps that will be done again
            log.truncate(self.checkpoint["log_size"] if self.checkpoint else 0)

    def save(self, stage, step, optimizer, sums):
        """The state after `step` steps of `stage`, written beside the old checkpoint and moved over it."""
        temporary = self.out / "last.pt.tmp"
        torch.save(dict(version=CHECKPOINT_VERSION, stage=stage, step=step, model=self.model.state_dict(),
                        optimizer=optimizer.state_dict(), sums=sums, seconds=self.seconds,
                        log_size=(self.out / "log.jsonl").stat().st_size), temporary)
        os.replace(temporary, self.out / "last.pt")

    def log(self, row):
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")


def load_checkpoint(path, device):
    """Raises ValueError with the way out for anything but a checkpoint of this version."""
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)   # tensors and plain data: runs no code
        if checkpoint["version"] == CHECKPOINT_VERSION:
            return checkpoint
        why = f"is of version {checkpoint['version']}, this program writes {CHECKPOINT_VERSION}"
    except Exception as error:                                 # a damaged file raises one of many kinds
        why = f"cannot be loaded ({type(error).__name__})"
    raise ValueError(f"{path} {why}: train anew with --fresh")


# --- the loop -------------------------------------------------------------------------------------------------

class Interrupted(Exception):
    """Ctrl-C arrived, the step was finished and the checkpoint is on disk."""


def fit(run, model, stage, losses, steps, lr, keep=True, probe=None):
    """One stage of training.

    losses: function step -> iterable of (loss, {name: value}, tokens), the parts of one step; each is backpropagated
            at once and they add up.  A pure function of the step: the step number is the whole state of the loader.
    keep:   write log rows and checkpoints (off for the copies that evaluation fine-tunes)
    probe:  function -> dict, measured at every log row with the clock stopped
    """
    cfg, start, sums = run.cfg, 0, {}
    optimizer = torch.optim.AdamW(model.groups(lr, lr * cfg.embed_lr, lr * cfg.head_lr, cfg.weight_decay),
                                  betas=(0.9, 0.95), fused=True)
    if keep and run.checkpoint:
        if run.checkpoint["stage"] != stage:
            return                                             # the checkpoint is of a later stage: this one is done
        start, sums = run.checkpoint["step"], run.checkpoint["sums"]
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        run.checkpoint = None
    bar = tqdm(range(start, steps), initial=start, total=steps, desc=stage, disable=run.quiet or None, mininterval=0.5)
    tokens, clock = 0, time.perf_counter()
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * learning_rate(step, steps, cfg.warmup)
        optimizer.zero_grad(set_to_none=True)
        measured = {}
        for loss, values, n_tokens in losses(step):
            loss.backward()
            measured |= {name: measured.get(name, 0) + v.detach() for name, v in values.items()}
            tokens += n_tokens
        measured["grad_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
        optimizer.step()
        for name, found in measured.items():                  # sums stay on the device: .item() would wait for it
            total, n = sums.get(name, (0, 0))
            sums[name] = (total + found, n + 1)
        due = (step + 1) % cfg.log_every == 0 or step + 1 == steps
        if not keep or not (due or run.stop):
            continue
        means = {name: total.item() / n for name, (total, n) in sums.items()}
        seconds = time.perf_counter() - clock
        run.seconds += seconds
        if not all(map(math.isfinite, means.values())):
            raise ValueError(f"{stage}: {means} is not finite by step {step + 1}; the last good state is in "
                             f"{run.out}/last.pt: lower --lr and train with another --out")
        if due:
            row = dict(stage=stage, step=step + 1, lr=optimizer.param_groups[0]["lr"], tok_s=round(tokens / seconds))
            run.log(row | means | (probe() if probe else {}))
            bar.set_postfix({k: f"{means[k]:.3f}" for k in ("lm", "align") if k in means}, tok_s=row["tok_s"])
            sums = {}
        run.save(stage, step + 1, optimizer, sums)
        if run.stop:
            raise Interrupted
        tokens, clock = 0, time.perf_counter()                 # neither probing nor saving counts as training time


def lm_parts(run, forward, inputs, targets, accumulate=1):
    """LM loss of a batch in parts; each part's sum is divided by the number of targets of the *whole* batch."""
    count = max(int((targets != IGNORE).sum()), 1)
    for rows in np.array_split(np.arange(len(inputs)), accumulate):
        with run.autocast():
            logits = forward(run.tensor(inputs[rows]))                           # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), run.tensor(targets[rows]).flatten(), ignore_index=IGNORE,
                               reduction="sum") / count
        yield loss, {"lm": loss}, inputs[rows].size


# --- the recipe -----------------------------------------------------------------------------------------------

def recipe(run):
    """The life of a model, with its interventions."""
    cfg, model, align, words = run.cfg, run.model, None, None
    if cfg.method == "prealign":                               # before and during: PreAlign, Li et al. 2024
        align, words = word_alignment(run) if cfg.align_steps else None, run.taught
        fit(run, model, "align words", lambda step: align_beside_text(run, align, step), cfg.align_steps, cfg.align_lr,
            probe=lambda: cosine_probe(run))
    fit(run, model, "pretrain", pretraining(run, words, align), cfg.pretrain_steps, cfg.lr,
        probe=lambda: cosine_probe(run) | loss_probe(run))


def text_rows(run, stream, step, n):
    """n rows of text, one token longer than the context, and the language of each: (n, T + 1), (n,)."""
    cfg, others = run.cfg, len(run.languages) - 1
    shares = [1 - cfg.clone_share] + [cfg.clone_share / others] * others
    languages = run.corpus.languages_of_rows(step * n, n, shares)
    rng = np.random.default_rng((cfg.seed, stream, step))
    return run.corpus.rows(rng, n, cfg.context_len + 1, languages), languages


def word_alignment(run):
    """alpha * L_align of a batch of dictionary words, as a function of the step."""
    cfg = run.cfg

    def loss(step):
        rng = np.random.default_rng((cfg.seed, ALIGN_WORDS, step))
        entries = rng.permutation(len(run.taught))[:cfg.align_words]
        words, mask, concept = map(run.tensor, run.taught.batch(entries))
        with run.autocast():
            align = word_alignment_loss(run.model, words, mask, concept, cfg.tau)
        return cfg.align_weight * align, {"align": align}, 0

    return loss


def align_beside_text(run, align, step):
    """PreAlign's first stage, L = L_LM + alpha * L_align [PreAlign: total loss]: two parts that add up."""
    yield align(step)
    if run.cfg.align_rows:
        rows, _ = text_rows(run, ALIGN_TEXT, step, run.cfg.align_rows)
        yield from lm_parts(run, run.model.logits, rows[:, :-1], rows[:, 1:])


def pretraining(run, dictionary, align):
    """Next-token prediction on the mixture; PreAlign switches words of the English input.

    differs from the paper: every `keep_aligned` steps the alignment loss joins in, because the rows of the output
    embedding drift apart within a hundred steps otherwise, and a fact then cannot be named in the other language.
    """
    cfg = run.cfg
    forward = torch.compile(run.model.logits) if cfg.compile else run.model.logits

    def losses(step):
        rows, languages = text_rows(run, TEXT, step, cfg.batch_size)
        inputs, targets = rows[:, :-1], rows[:, 1:]
        if dictionary and cfg.code_switch:
            rng = np.random.default_rng((cfg.seed, SWITCH, step))
            inputs, targets = code_switch(rows, run.corpus.starts_word(rows), languages == 0, dictionary,
                                          cfg.code_switch, rng, cfg.vanilla)
        yield from lm_parts(run, forward, inputs, targets, cfg.accumulate)
        if align and cfg.keep_aligned and step % cfg.keep_aligned == 0:
            yield align(cfg.align_steps + step)

    return losses


# --- evaluation: looks at the model, never changes it ---------------------------------------------------------

def cosine_probe(run):
    """Mean cosine of translations per level: the curve of PreAlign's figure."""
    source, target = measure.dictionary_states(run.model, word_states, run.dictionary, 256)
    return dict(word_cosine=[round(c, 4) for c in F.cosine_similarity(source, target, dim=-1).mean(dim=1).tolist()])


def loss_probe(run):
    """Loss on 16 validation rows per language, nats per token."""
    return dict(val={name: round(float(measure.losses_per_token(run.model, run.corpus, name, 16).mean()), 4)
                     for name in run.languages})


def fine_tuned(run, task):
    """For ZS-CLT: a copy of the model, fine-tuned on English items of a task with loss on the answer."""
    model, cfg = copy.deepcopy(run.model), run.cfg
    items = run.corpus.world.items(task, "train", 4000, "lexical")

    def losses(step):
        chosen = np.random.default_rng((cfg.seed, TRANSFER, step)).integers(0, len(items), 32)
        yield from lm_parts(run, model.logits, *tasks.answer_rows(run.corpus, [items[i] for i in chosen], "en"))

    fit(run, model, f"transfer {task}", losses, cfg.transfer_steps, cfg.lr / 3, keep=False)
    return model


def evaluate(run):
    """What summary.json holds beside the run's own data (README: glossary).  A key that is not measured is absent."""
    cfg, model, corpus, middle = run.cfg, run.model.eval(), run.corpus, run.cfg.n_layer // 2
    result = measure.language_model(model, corpus) | measure.knowledge(model, corpus)
    result |= measure.in_context(model, corpus, cfg.eval_items, [int(k) for k in cfg.shots.split(",")], cfg.seed)
    result |= measure.words(model, word_states, run.dictionary, run.unseen, middle)
    result |= measure.sentences(model, corpus, corpus.world.sentences("test", 300), middle)
    if cfg.transfer_steps:
        result["transfer"] = {task: measure.classify(fine_tuned(run, task), corpus, task, cfg.eval_items)
                              for task in ("nli", "paraphrase")}
    return result


@torch.no_grad()
def sample(run, prompt, n_tokens=60):
    """The prompt continued in every language, as text for people."""
    run.model.eval()
    prompts = [run.corpus.encode(prompt, name).tolist() for name in run.languages]
    generator = torch.Generator(run.device).manual_seed(run.cfg.seed)
    new = generate(run.model, prompts, n_tokens, temperature=0.8, top_k=50, generator=generator)
    return "\n".join(f"{name}: {run.corpus.decode(p + c)}" for name, p, c in zip(run.languages, prompts, new))


# --- commands -------------------------------------------------------------------------------------------------

def train(cfg, out, cache="data/cache", quiet=False, eval_only=False):
    """Run one configuration, or go on with it, or show it if it is finished; returns its summary."""
    run = Run(cfg, out, cache, quiet)
    run.open()
    summary = run.read("summary.json")
    if eval_only and not run.checkpoint:
        raise ValueError(f"{out} holds no checkpoint: train first, without --eval_only")
    if summary is None or eval_only:
        if not quiet:
            print(describe(run))
        if not eval_only:
            main_thread = threading.current_thread() is threading.main_thread()
            before = main_thread and signal.signal(signal.SIGINT, lambda *_: setattr(run, "stop", True))
            try:
                recipe(run)
            finally:
                if main_thread:
                    signal.signal(signal.SIGINT, before)
        clock, result = time.perf_counter(), evaluate(run)
        summary = dict(method=cfg.method, preset=cfg.preset, data=data_name(cfg), seed=cfg.seed, device=str(run.device),
                       dtype=run.dtype, minutes=round((run.seconds + time.perf_counter() - clock) / 60, 2),
                       tokens=cfg.steps * cfg.batch_size * cfg.context_len, languages=run.languages,
                       parameters=sum(p.numel() for p in run.model.parameters())) | result
        run.write("samples.txt", sample(run, "") + "\n")
        run.write("summary.json", json.dumps(summary, indent=1))
    if not quiet:
        print(report.show(summary))
        print(f"{out}/ holds {', '.join(FILES)}.  Try:\n  python train.py {flags_of(cfg, out)} --sample \"Anna was thirsty.\"")
    return summary


def data_name(cfg):
    return Path(cfg.text).stem if cfg.text else "synthetic"


def default_out(cfg):
    return Path(f"runs/{cfg.method}-{cfg.preset}-{data_name(cfg)}-s{cfg.seed}")


def flags_of(cfg, out):
    """The flags that give this run again."""
    standard = preset_config(dict(preset=cfg.preset))
    flags = [f"--{'no-' if v is False else ''}{k}" + ("" if isinstance(v, bool) else f" {v}")
             for k, v in asdict(cfg).items() if v != getattr(standard, k) or k in ("method", "preset")]
    return " ".join(flags + ([f"--out {out}"] if Path(out) != default_out(cfg) else []))


def describe(run):
    """What is about to happen, in three lines."""
    cfg, corpus = run.cfg, run.corpus
    why = "" if cfg.dtype != "auto" else ", by a timed product" if run.device.type == "cpu" else ", supported here"
    counts = ", ".join(f"{name} {len(corpus.streams[name, 'train']):,}" for name in run.languages)
    aligning = f"{cfg.align_steps} alignment steps, " if cfg.method == "prealign" else ""
    return (f"{cfg.method}, preset {cfg.preset}: {sum(p.numel() for p in run.model.parameters()):,} parameters; "
            f"{run.device}, {torch.get_num_threads()} threads, {run.dtype}{why}\n"
            f"tokens: {counts}; {corpus.base_vocab:,} per vocabulary; dictionary: {len(run.dictionary):,} words\n"
            f"{aligning}{cfg.pretrain_steps} pretraining steps of {cfg.batch_size} x {cfg.context_len} tokens "
            f"({cfg.steps * cfg.batch_size * cfg.context_len:,} in all); writes {run.out}/")


def reproduce(cfg, modes):
    """Every system of a paper over seeds, going on where it was interrupted; prints and writes the report."""
    summaries = {}
    for seed in range(modes.seeds):
        for name, flags in report.SYSTEMS[modes.reproduce].items():
            given = parse_args(flags.split())[1].given
            system = replace(cfg, **(given | dict(seed=seed)))
            if name == "skyline":                              # as much clone text as English, beside the same English
                system = replace(system, clone_share=0.5, steps=round(cfg.steps * (1 - cfg.clone_share) / 0.5))
            out = Path("runs") / f"{modes.reproduce}-{cfg.preset}-s{seed}" / name.replace(" ", "-").replace("%", "")
            print(f"{name}, seed {seed}: {out}", flush=True)
            summaries.setdefault(name, []).append(train(system, out, modes.cache, quiet=True))
    text = report.verdicts(modes.reproduce, summaries)
    path = Path("runs") / f"report-{modes.reproduce}.md"
    path.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {path}")


def main(argv=None):
    """Returns the exit code: 0, 1 if --overfit fails, 2 for a user's mistake, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        cfg, modes = parse_args(argv)
        out = Path(modes.out or default_out(cfg))
        if modes.report:
            print(report.compare([Path(r) for r in modes.report], Path("runs")))
        elif modes.reproduce:
            reproduce(cfg, modes)
        elif modes.overfit:
            run = Run(cfg, out, modes.cache)
            rows, _ = text_rows(run, TEXT, 0, 4)
            fit(run, run.model, "overfit", lambda step: lm_parts(run, run.model.logits, rows[:, :-1], rows[:, 1:]), 300,
                cfg.lr, keep=False)
            loss = float(-measure.log_probs(run.model, rows).mean())
            print(f"loss on one batch of 4 rows after 300 steps: {loss:.4f} ({'learned' if loss < 0.1 else 'NOT learned'})")
            return int(loss >= 0.1)
        elif modes.sample is not None:
            if not (out / "last.pt").exists():
                raise ValueError(f"{out}/last.pt is missing: train first with  python train.py {flags_of(cfg, out)}")
            run = Run(cfg, out, modes.cache)
            run.model.load_state_dict(load_checkpoint(out / "last.pt", run.device)["model"])
            print(sample(run, modes.sample))
        else:
            for name in FILES if modes.fresh else ():
                (out / name).unlink(missing_ok=True)
            train(cfg, out, modes.cache, eval_only=modes.eval_only)
        return 0
    except ValueError as error:                                # DataError, too: a user's mistake gets one line
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"train.py: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except Interrupted:
        print(f"\nstopped; the step was finished and saved.  Go on with:\n  python train.py {' '.join(argv)}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
