"""One model's life: align words, pretrain, evaluate.  `recipe` is the experiment, the rest is plumbing.

  python train.py --method prealign        trains, evaluates and writes runs/prealign-tiny-synthetic-s0/
  python train.py --method baseline        joint training on the same mixture of languages
  python train.py --reproduce prealign     baseline, method, ablations and controls over seeds, with verdicts
  python train.py --report RUN RUN ...     the comparison table and the curves of finished runs

The same command again goes on where it stopped, or shows the finished run.
"""
import argparse
import copy
import difflib
import json
import math
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

from data import corpus as corpora, measure, report, tasks
from data.report import data_name, default_out
from data.runs import FILES, Folder, load_checkpoint
from model import GPT, IGNORE, PRESETS, Shape, choose_dtype, generate, learning_rate, lm_loss
from prealign import code_switch, word_alignment_loss, word_states

ALIGN_TEXT, ALIGN_WORDS, TEXT, SWITCH, TRANSFER = range(1, 6)   # all draws: default_rng((seed, stream, step))
MANY = 2**40   # steps: as good as no limit
# What a preset sets beside the model's shape; explicit flags win.
PAPER = dict(batch_size=256, lr=3e-4, embed_lr=1.0, head_lr=1.0, code_switch=0.05, keep_aligned=0,
             align_weight=0.5, align_steps=5000, align_words=256, align_rows=64, align_lr=5e-4)
TRAINING = {
    "tiny": dict(),
    "small": dict(words=20_000_000, steps=5000, batch_size=64, lr=1e-3,
                  align_steps=600, align_words=512, align_rows=16),
    "150m": PAPER | dict(words=200_000_000, steps=20_000),
    "400m": PAPER | dict(words=400_000_000, steps=40_000),
    "1.3b": PAPER | dict(words=800_000_000, steps=80_000),
}

# --- configuration: this dataclass is the command line and config.json --------------------------------------
def option(default, help, low=None, high=None, choices=None):
    return field(default=default, metadata=dict(help=help, low=low, high=high, choices=choices))


@dataclass(frozen=True)
class Config:
    """Every knob of a run.  `--align_steps 0 --code_switch 0` makes prealign the baseline, bit for bit."""
    method: str = option("baseline", "what to train", choices=("baseline", "prealign"))
    preset: str = option("tiny", "size of model and training; other flags win", choices=tuple(PRESETS))
    seed: int = option(0, "of the world, the initial weights and the batches", 0, 2**31)
    # data
    text: str = option("", "your own English, one document per line, in place of the world's stories")
    languages: str = option("en,clone", "English first, then clone, clone2 ..., reversed or shuffled-K")
    words: int = option(1_500_000, "English words of training text to generate", 1000, 2**50)
    clone_share: float = option(0.1, "share of the other languages in the text and every batch", 0.001, 0.95)
    vocab_size: int = option(1280, "byte-level BPE tokens per language", 300, 2**20)
    # model
    n_layer: int = option(4, "transformer blocks", 1, 999)
    n_head: int = option(4, "attention heads", 1, 999)
    d_model: int = option(128, "width", 2, 2**16)
    context_len: int = option(128, "tokens per sequence", 8, 2**20)
    tied: bool = option(False, "one matrix for embedding and head")
    # training
    steps: int = option(2000, "steps of text; what aligning words reads is taken off pretraining", 1, MANY)
    batch_size: int = option(8, "sequences per step", 1, 2**20)
    accumulate: int = option(1, "parts of an LM batch, to save memory; the words are never split", 1, 2**20)
    lr: float = option(3e-3, "peak learning rate of the matrices; cosine down to a tenth", 1e-9, 1e3)
    embed_lr: float = option(3.0, "learning rate of the embedding, as a multiple of lr", 1e-6, 1e6)
    head_lr: float = option(3.0, "learning rate of the output head, as a multiple of lr", 1e-6, 1e6)
    weight_decay: float = option(0.1, "of the matrices; embedding, head and norms have none", 0, 1e3)
    warmup: float = option(0.05, "share of the steps with rising learning rate", 0, 1)
    clip: float = option(1.0, "the gradient norm is cut to this", 1e-9, 1e9)
    # PreAlign
    align_steps: int = option(300, "steps of word alignment before pretraining; 0: never any", 0, MANY)
    align_words: int = option(128, "dictionary entries per alignment step: the pool of negatives", 2, 2**24)
    align_rows: int = option(4, "sequences of text per alignment step, for the LM loss beside it", 0, 2**20)
    align_weight: float = option(1.0, "weight of the alignment loss beside the LM loss (alpha)", 0, 1e6)
    align_lr: float = option(2e-3, "peak learning rate while aligning", 1e-9, 1e3)
    tau: float = option(0.1, "temperature of the contrastive loss", 0.005, 1e3)
    keep_aligned: int = option(5, "pretraining steps between alignment steps; 0: none, as published", 0, MANY)
    code_switch: float = option(0.05, "probability that a dictionary word of the input is switched", 0, 1)
    vanilla: bool = option(False, "ablation: switched words are targets, too")
    dictionary: str = option("gold", "shuffled: every translation is wrong", choices=("gold", "shuffled"))
    dictionary_coverage: float = option(1.0, "share of the words listed; the rest are unseen words", 0.05, 1)
    # evaluation and machine
    log_every: int = option(100, "steps between log rows and checkpoints", 1, MANY)
    eval_items: int = option(200, "test items per task and rung", 1, 10**6)
    shots: str = option("0", "numbers of solved examples in task prompts, as in 0,5")
    transfer_steps: int = option(300, "fine-tuning steps on English for zero-shot transfer; 0: off", 0, MANY)
    device: str = option("auto", "where to run", choices=("auto", "cpu", "cuda"))
    dtype: str = option("auto", "of matrix products in training", choices=("auto", "float32", "bfloat16"))
    compile: bool = option(False, "torch.compile the blocks and the LM loss, in training")

    def __post_init__(self):
        for f in fields(self):
            low, high, found = f.metadata["low"], f.metadata["high"], getattr(self, f.name)
            if low is not None and not low <= found <= high:
                raise ValueError(f"--{f.name} {found} is out of range: {low} to {high}")
        names = self.languages.split(",")
        if names[0] != "en" or len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"--languages {self.languages}: en first, then at least one other, say en,clone")
        for name in names[1:]:
            corpora.language_order(name)
        if not all(part.isdigit() for part in self.shots.split(",")):
            raise ValueError(f"--shots {self.shots}: numbers separated by commas, as in 0,5")
        if self.accumulate > self.batch_size:
            raise ValueError(f"--accumulate {self.accumulate} is more parts than "
                             f"--batch_size {self.batch_size} has rows")
        Shape(1, self.n_layer, self.n_head, self.d_model, self.context_len)
        if self.pretrain_steps < 1:
            raise ValueError(f"--steps {self.steps} leaves nothing to pretrain on after {self.align_steps} "
                             f"alignment steps of {self.align_rows} rows: "
                             "raise --steps, or lower --align_steps or --align_rows")

    @property
    def pretrain_steps(self):
        """Steps left after the text read while aligning: every system sees the same number of tokens."""
        aligning = self.align_steps * self.align_rows if self.method == "prealign" else 0
        return self.steps - aligning // self.batch_size


def parse_args(argv):
    """Command line -> (Config, modes): what a run is, what to do with it; modes.given: the knobs given."""
    def complain(message):                                     # one line; the nearest flag to a misspelt one
        for word in (w.split("=")[0] for w in argv if w.startswith("--")):
            near = difflib.get_close_matches(word, p._option_string_actions, 1)
            if word not in p._option_string_actions and near:
                message = f"unknown flag {word}; did you mean {near[0]}?"
        p.exit(2, f"train.py: {' '.join(message.split())} (--help lists all flags)\n")
    p = argparse.ArgumentParser(prog="train.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.error = complain
    mode = p.add_argument_group("modes and places").add_argument
    mode("--out", default="", metavar="DIR", help="run folder [runs/<method>-<preset>-<data>-s<seed>]")
    mode("--cache", default="data/cache", metavar="DIR", help="where generated corpora are kept")
    mode("--fresh", action="store_true", help="delete the run's files and train anew")
    mode("--eval_only", action="store_true", help="evaluate the last checkpoint again")
    mode("--sample", metavar="TEXT", help="continue TEXT with the trained model, in every language")
    mode("--overfit", action="store_true", help="check: one batch until its loss is below 0.1")
    mode("--report", nargs="+", metavar="RUN", help="compare finished runs: table and curves")
    mode("--reproduce", choices=tuple(report.SYSTEMS), help="a paper's systems over seeds, judged")
    mode("--seeds", type=int, default=3, help="with --reproduce: number of seeds [3]")
    knob = p.add_argument_group("knobs of a run [value in the preset tiny]").add_argument
    for f in fields(Config):
        kind = dict(type=f.type, choices=f.metadata["choices"])
        kind = dict(action=argparse.BooleanOptionalAction) if f.type is bool else kind
        knob(f"--{f.name}", default=argparse.SUPPRESS, help=f"{f.metadata['help']} [{f.default}]", **kind)
    modes = p.parse_args(argv)
    if modes.seeds < 1:
        raise ValueError(f"--seeds {modes.seeds} is out of range: at least 1")
    modes.given = {f.name: vars(modes).pop(f.name) for f in fields(Config) if f.name in modes}
    # Flags win over the preset's values, these over the defaults; no preset: small on a GPU, else tiny.
    preset = modes.given.get("preset", "small" if torch.cuda.is_available() else "tiny")
    return Config(**(dict(preset=preset) | PRESETS[preset] | TRAINING[preset] | modes.given)), modes


# --- a run: its files and its loop --------------------------------------------------------------------------
class Interrupted(Exception):
    """Ctrl-C arrived, the step was finished and the checkpoint is on disk."""


class Run(Folder):
    """A configuration with its data, its model and its folder."""

    def __init__(self, cfg, out, cache="data/cache", quiet=False):
        super().__init__(out)
        self.cfg, self.quiet = cfg, quiet
        self.languages, self.seconds, self.stop, self.checkpoint = cfg.languages.split(","), 0.0, False, None
        cuda = torch.cuda.is_available()
        if cfg.device == "cuda" and not cuda:
            raise ValueError("--device cuda: this torch sees no CUDA device; use --device cpu or auto")
        self.device = torch.device(cfg.device if cfg.device != "auto" else "cuda" if cuda else "cpu")
        self.dtype = (self.read("config.json") or {}).get("dtype_used") or (
            cfg.dtype if cfg.dtype != "auto" else choose_dtype(self.device))
        self.corpus = corpora.load(cache, cfg.seed, self.languages, cfg.words, cfg.clone_share,
                                   cfg.vocab_size, cfg.text)
        self.dictionary, self.unseen = self.corpus.gold_dictionary().split(cfg.dictionary_coverage, cfg.seed)
        self.taught = self.dictionary.shuffled(cfg.seed) if cfg.dictionary == "shuffled" else self.dictionary
        shape = Shape(self.corpus.vocab_size, cfg.n_layer, cfg.n_head, cfg.d_model, cfg.context_len, cfg.tied)
        self.model = GPT(shape).initialise(cfg.seed).to(self.device)
        self.lm_loss = torch.compile(lm_loss) if cfg.compile else lm_loss
        for block in self.model.body if cfg.compile else ():   # one compilation serves all blocks and stages
            block.compile()

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def uncompiled(self):
        """For evaluation: each measure has shapes of its own, and compiling for them takes longer."""
        return torch.compiler.set_stance("force_eager") if self.cfg.compile else nullcontext()

    def tensor(self, array):
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":                         # pinned: the copy runs beside the computation
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def enter(self):
        """Make the folder, or go on in it."""
        self.open(asdict(self.cfg), dict(dtype_used=self.dtype))
        self.checkpoint = self.load(self.device)
        if self.checkpoint:
            self.model.load_state_dict(self.checkpoint["model"])
            self.seconds = self.checkpoint["seconds"]


def fit(run, model, stage, losses, steps, lr, keep=True):
    """One stage of training; keep=False (the copies that evaluation fine-tunes) writes no log or checkpoint.

    losses: step -> iterable of (loss, {name: value}, tokens), the parts of one step: each is backpropagated
            at once and they add up.  A pure function: the step number is the whole state of the loader.
    """
    cfg, start, sums = run.cfg, 0, {}
    optimizer = torch.optim.AdamW(model.groups(lr, lr * cfg.embed_lr, lr * cfg.head_lr, cfg.weight_decay),
                                  betas=(0.9, 0.95), fused=True)
    if keep and run.checkpoint:
        if run.checkpoint["stage"] != stage:                   # of a later stage: this one is done
            return
        start, sums = run.checkpoint["step"], run.checkpoint["sums"]
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        run.checkpoint = None
    bar = tqdm(range(start, steps), stage, steps, initial=start, disable=run.quiet or None, mininterval=0.5)
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
        for name, found in measured.items():                   # sums stay on the device: .item() waits for it
            total, n = sums.get(name, (0, 0))
            sums[name] = (total + found, n + 1)
        due = (step + 1) % cfg.log_every == 0 or step + 1 == steps
        if not keep or not (due or run.stop):
            continue
        means = {name: total.item() / n for name, (total, n) in sums.items()}
        seconds = time.perf_counter() - clock
        run.seconds += seconds
        if not all(map(math.isfinite, means.values())):
            raise ValueError(f"{stage}: {means} is not finite by step {step + 1}; the last good state is "
                             f"in {run.out}/last.pt: lower --lr and train with another --out")
        if due:
            row = dict(stage=stage, step=step + 1, lr=optimizer.param_groups[0]["lr"],
                       tok_s=round(tokens / seconds))
            with run.uncompiled():
                run.log(row | means | probe(run, stage))
            bar.set_postfix({k: f"{means[k]:.3f}" for k in ("lm", "align") if k in means}, tok_s=row["tok_s"])
            sums = {}
        run.save(stage=stage, step=step + 1, model=model.state_dict(), optimizer=optimizer.state_dict(),
                 sums=sums, seconds=run.seconds)
        if run.stop:
            raise Interrupted
        tokens, clock = 0, time.perf_counter()                 # probing and saving are not training time


def lm_parts(run, model, inputs, targets, accumulate=1):
    """LM loss of a batch in parts: each sum is divided by the number of targets of the *whole* batch."""
    count = max(int((targets != IGNORE).sum()), 1)
    for rows in np.array_split(np.arange(len(inputs)), accumulate):
        with run.autocast():
            logits = model.logits(run.tensor(inputs[rows]))                      # (B, T, V)
        loss = run.lm_loss(logits, run.tensor(targets[rows]), count)
        yield loss, {"lm": loss}, inputs[rows].size


# --- the recipe ---------------------------------------------------------------------------------------------
def recipe(run):
    """The life of a model, with its interventions."""
    cfg, dictionary = run.cfg, None
    if cfg.method == "prealign":                               # before and during: PreAlign, Li et al. 2024
        dictionary = run.taught
        fit(run, run.model, "align words", lambda step: align_beside_text(run, step),
            cfg.align_steps, cfg.align_lr)
    fit(run, run.model, "pretrain", lambda step: pretrain(run, dictionary, step), cfg.pretrain_steps, cfg.lr)


def text_rows(run, stream, step, n):
    """n rows of text, one token longer than the context, and the language of each: (n, T + 1), (n,)."""
    cfg, others = run.cfg, len(run.languages) - 1
    shares = [1 - cfg.clone_share] + [cfg.clone_share / others] * others
    languages = run.corpus.languages_of_rows(step * n, n, shares)
    rng = np.random.default_rng((cfg.seed, stream, step))
    return run.corpus.rows(rng, n, cfg.context_len + 1, languages), languages


def word_alignment(run, step):
    """alpha * L_align of a batch of dictionary words."""
    cfg = run.cfg
    rng = np.random.default_rng((cfg.seed, ALIGN_WORDS, step))
    entries = rng.permutation(len(run.taught))[:cfg.align_words]
    words, mask, concept = map(torch.from_numpy, run.taught.batch(entries))
    with run.autocast():
        align = word_alignment_loss(run.model, words, mask, concept, cfg.tau)
    return cfg.align_weight * align, {"align": align}, 0


def align_beside_text(run, step):
    """PreAlign's first stage, L = L_LM + alpha * L_align [PreAlign: total loss]: two parts that add up."""
    yield word_alignment(run, step)
    if run.cfg.align_rows:
        rows, _ = text_rows(run, ALIGN_TEXT, step, run.cfg.align_rows)
        yield from lm_parts(run, run.model, rows[:, :-1], rows[:, 1:])


def pretrain(run, dictionary, step):
    """Next-token prediction on the mixture; PreAlign switches words of the English input.

    differs from the paper: every `keep_aligned` steps the alignment loss joins in, because rows of the head
    drift apart within a hundred steps otherwise, and a fact then cannot be named in the other language.
    """
    cfg = run.cfg
    rows, languages = text_rows(run, TEXT, step, cfg.batch_size)
    inputs, targets = rows[:, :-1], rows[:, 1:]
    if dictionary and cfg.code_switch:
        rng = np.random.default_rng((cfg.seed, SWITCH, step))
        inputs, targets = code_switch(rows, run.corpus.starts_word(rows), languages == 0, dictionary,
                                      cfg.code_switch, rng, cfg.vanilla)
    yield from lm_parts(run, run.model, inputs, targets, cfg.accumulate)
    if dictionary and cfg.align_steps and cfg.keep_aligned and step % cfg.keep_aligned == 0:
        yield word_alignment(run, cfg.align_steps + step)


# --- evaluation: looks at the model, never changes it -------------------------------------------------------
def probe(run, stage):
    """For the log: mean cosine of translations per level, the curve of PreAlign's figure; and in pretraining,
    the loss on 16 validation rows per language, nats per token."""
    source, target = measure.dictionary_states(run.model, word_states, run.dictionary, 256)
    cosines = F.cosine_similarity(source, target, dim=-1).mean(dim=1)            # (levels,)
    found = dict(word_cosine=[round(c, 4) for c in cosines.tolist()])
    if stage == "pretrain":
        losses = {name: measure.losses_per_token(run.model, run.corpus, name, 16) for name in run.languages}
        found["val"] = {name: round(float(loss.mean()), 4) for name, loss in losses.items()}
    return found


def fine_tuned(run, task):
    """For ZS-CLT: a copy of the model, fine-tuned on English items of a task with loss on the answer."""
    model, cfg = copy.deepcopy(run.model), run.cfg
    items = run.corpus.world.items(task, "train", 4000, "lexical")
    def losses(step):
        chosen = np.random.default_rng((cfg.seed, TRANSFER, step)).integers(0, len(items), 32)
        rows = tasks.answer_rows(run.corpus, [items[i] for i in chosen], "en", cfg.context_len + 1)
        yield from lm_parts(run, model, *rows)
    fit(run, model, f"transfer {task}", losses, cfg.transfer_steps, cfg.lr / 3, keep=False)
    return model


def evaluate(run):
    """summary.json but for the run's own data (README: glossary).  A key that is not measured is absent."""
    cfg, model, corpus, middle = run.cfg, run.model.eval(), run.corpus, run.cfg.n_layer // 2
    result = measure.language_model(model, corpus) | measure.knowledge(model, corpus)
    result |= measure.in_context(model, corpus, cfg.eval_items, [*map(int, cfg.shots.split(","))], cfg.seed)
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


# --- commands -----------------------------------------------------------------------------------------------
def train(cfg, out, cache="data/cache", quiet=False, eval_only=False):
    """Run one configuration, or go on with it, or show it if it is finished; returns its summary."""
    run = Run(cfg, out, cache, quiet)
    run.enter()
    summary = run.read("summary.json")
    if eval_only and not run.checkpoint:
        raise ValueError(f"{out} holds no checkpoint: train first, without --eval_only")
    if summary is None or eval_only:
        summary = dict(method=cfg.method, preset=cfg.preset, data=data_name(cfg), seed=cfg.seed,
                       device=str(run.device), dtype=run.dtype, languages=run.languages,
                       tokens=cfg.steps * cfg.batch_size * cfg.context_len,
                       parameters=sum(p.numel() for p in run.model.parameters()))
        if not quiet:
            print(report.plan(cfg, summary, run.out, run.corpus, run.dictionary, torch.get_num_threads()))
        if not eval_only:
            main_thread = threading.current_thread() is threading.main_thread()
            before = main_thread and signal.signal(signal.SIGINT, lambda *_: setattr(run, "stop", True))
            try:
                recipe(run)
            finally:
                if main_thread:
                    signal.signal(signal.SIGINT, before)
        clock = time.perf_counter()
        with run.uncompiled():
            result = evaluate(run)
        summary |= result | dict(minutes=round((run.seconds + time.perf_counter() - clock) / 60, 2))
        run.write("samples.txt", sample(run, "") + "\n")
        run.write("summary.json", json.dumps(summary, indent=1))
    if not quiet:
        print(report.show(summary))
        print(f"{out}/ holds {', '.join(FILES)}.  Try:\n"
              f"  python train.py {flags_of(cfg, out)} --sample \"Anna was thirsty.\"")
    return summary


def flags_of(cfg, out):
    """The flags that give this run again."""
    standard, _ = parse_args(["--preset", cfg.preset])
    flags = [f"--{'no-' if v is False else ''}{k}" + ("" if isinstance(v, bool) else f" {v}")
             for k, v in asdict(cfg).items() if v != getattr(standard, k) or k in ("method", "preset")]
    return " ".join(flags + ([f"--out {out}"] if Path(out) != default_out(cfg) else []))


def reproduce(cfg, modes):
    """Every system of a paper over seeds, going on where it was interrupted; prints and writes the report."""
    summaries = {}
    for seed in range(modes.seeds):
        for name, flags in report.SYSTEMS[modes.reproduce].items():
            system = replace(cfg, **parse_args(flags.split())[1].given, seed=seed)
            if name == "skyline":                              # the same English, and as much clone text
                system = replace(system, clone_share=0.5, steps=round(cfg.steps * (1 - cfg.clone_share) * 2))
            folder = f"{modes.reproduce}-{cfg.preset}-s{seed}"
            out = Path("runs") / folder / name.replace(" ", "-").replace("%", "")
            print(f"{name}, seed {seed}: {out}", flush=True)
            summaries.setdefault(name, []).append(train(system, out, modes.cache, quiet=True))
    print(report.conclude(modes.reproduce, summaries, Path("runs")))


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
            batch = run, run.model, rows[:, :-1], rows[:, 1:]
            fit(run, run.model, "overfit", lambda step: lm_parts(*batch), 300, cfg.lr, keep=False)
            loss = float(-measure.log_probs(run.model, rows).mean())
            verdict = "learned" if loss < 0.1 else "NOT learned"
            print(f"loss on one batch of 4 rows after 300 steps: {loss:.4f} ({verdict})")
            return int(not loss < 0.1)                         # also for nan
        elif modes.sample is not None:
            if not (out / "last.pt").exists():
                raise ValueError(f"{out}/last.pt is missing: train first with  "
                                 f"python train.py {flags_of(cfg, out)}")
            run = Run(cfg, out, modes.cache)
            run.model.load_state_dict(load_checkpoint(out / "last.pt", run.device)["model"])
            print(sample(run, modes.sample))
        else:
            for name in FILES if modes.fresh else ():
                (out / name).unlink(missing_ok=True)
            train(cfg, out, modes.cache, eval_only=modes.eval_only)
        return 0
    except (ValueError, OSError) as e:                         # DataError, too: a mistake gets one line
        about = f"{e.filename or 'file'}: {e.strerror or e}" if isinstance(e, OSError) else e
        print(f"train.py: {about}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):                   # the latter: before or after training
        print("\nstopped; what was trained is saved.  Go on with:\n"
              f"  python train.py {' '.join(argv)}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
