"""The knobs of a run: one dataclass is the command line, config.json and a table of data/README.md."""
import argparse
import difflib
import re
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import combinations
from pathlib import Path
from shlex import quote

import torch

from data.corpus import language_order
from data.prepared import settings
from data.report import default_out
from data.runs import Folder
from data.studies import SYSTEMS

MOMENTS = ("prealign", "forget", "align")                      # of a model's life, in their order
METHODS = ("baseline", *("+".join(some) for n in (1, 2, 3) for some in combinations(MOMENTS, n)))
PREPARED = "data/multi30k"            # where data/prepare.py --download multi30k puts its folder
MOST_SHOTS = 50                       # there are so many solved examples
MANY = 2**40   # steps: as good as no limit
PAPER = dict(context_len=1024, vocab_size=32768, batch_size=256, accumulate=32, lr=3e-4, embed_lr=1.0,
             head_lr=1.0, code_switch=0.05, keep_aligned=0, align_weight=0.5, align_steps=5000,
             align_words=256, align_rows=64, align_lr=5e-4, afp_steps=5000, afp_lr=1e-5)
# What a preset sets; explicit flags win.  The shapes of the last three are those of the PreAlign configs.
PRESETS = {
    "tiny": dict(n_layer=4, n_head=4, d_model=128, context_len=128, vocab_size=1280),
    "small": dict(n_layer=8, n_head=8, d_model=512, context_len=256, vocab_size=4096, words=20_000_000,
                  steps=5000, batch_size=64, lr=1e-3, align_steps=600, align_words=512, align_rows=16,
                  reset_every=500, afp_lr=7e-4),
    "150m": PAPER | dict(n_layer=12, n_head=16, d_model=1024, words=200_000_000, steps=20_000,
                         reset_every=1300),
    "400m": PAPER | dict(n_layer=24, n_head=16, d_model=1024, words=400_000_000, steps=40_000,
                         reset_every=2700),
    "1.3b": PAPER | dict(n_layer=24, n_head=16, d_model=2048, words=800_000_000, steps=80_000,
                         reset_every=5300),
}

EVALUATION = ("eval_items", "shots", "generate_items", "transfer_steps")   # these do not change the weights
WORLD = ("data", "text", "languages", "words", "vocab_size", "seed")   # what the tokens of a run mean


def option(default, help, low=None, high=None, choices=None):
    return field(default=default, metadata=dict(help=help, low=low, high=high, choices=choices))


@dataclass(frozen=True)
class Config:
    """Every knob of a run.  `--align_steps 0 --code_switch 0` makes prealign the baseline, bit for bit."""
    method: str = option("baseline", "what to train", choices=METHODS)
    preset: str = option("tiny", "size of model and training; other flags win", choices=tuple(PRESETS))
    seed: int = option(0, "of the world, the initial weights and the batches", 0, 2**31)
    # data
    data: str = option("", "a folder made by data/prepare.py, in place of the embedded world")
    text: str = option("", "your own English, one document per line, in place of the world's stories")
    languages: str = option("en,clone", "English first, then clone, clone2 ..., reversed or shuffled-K; "
                            "with --data: of those of the folder [all]")
    words: int = option(1_500_000, "English words of training text to generate", 1000, 2**50)
    clone_share: float = option(0.1, "share of the other languages in the text and every batch", 0.001, 0.95)
    vocab_size: int = option(1280, "byte-level BPE tokens per language", 257, 2**20)
    # model
    n_layer: int = option(4, "transformer blocks", 1, 999)
    n_head: int = option(4, "attention heads", 1, 999)
    d_model: int = option(128, "width", 2, 2**16)
    context_len: int = option(128, "tokens per sequence", 8, 2**20)
    tied: bool = option(False, "one matrix for embedding and head")
    # training
    steps: int = option(2000, "steps of text; what aligning words reads is taken off pretraining", 1, MANY)
    batch_size: int = option(8, "sequences per step", 1, 2**20)
    accumulate: int = option(1, "parts of an LM batch, to save memory; words are never split", 1, 2**20)
    lr: float = option(3e-3, "peak learning rate of the matrices; cosine down to a tenth", 1e-9, 1e3)
    embed_lr: float = option(3.0, "learning rate of the embedding, as a multiple of lr", 1e-6, 1e6)
    head_lr: float = option(3.0, "learning rate of the output head, as a multiple of lr", 1e-6, 1e6)
    weight_decay: float = option(0.1, "of the matrices; norms have none", 0, 1e3)
    embed_decay: bool = option(False, "embedding and head decay, too, as in PreAlign's official code")
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
    # active forgetting
    reset_every: int = option(200, "steps between resets of the embeddings (k); 0: never any", 0, MANY)
    reset_from: float = option(0.0, "share of the steps before the first reset", 0, 1)
    reset_until: float = option(0.5, "share of the steps after which none is reset", 0, 1)
    reset_fraction: float = option(1.0, "share of the rows that each reset draws", 0, 1)
    reset_blend: float = option(1.0, "how far a row moves towards fresh noise", 0, 1)
    reset_weights: bool = option(True, "a reset draws the rows anew")
    reset_moments: bool = option(True, "a reset forgets the optimizer's moments of the rows")
    reset_clock: bool = option(True, "the embedding's learning rate has a warm-up and decay per cycle")
    reset_head: bool = option(False, "an untied head is reset, too")
    reset_clip: float = option(0.5, "the gradient norm is cut to this where there are resets", 1e-9, 1e9)
    from_run: str = option("", "folder of a pretrained run to go on from, with its configuration")
    adapt_to: str = option("", "language attached after pretraining, or none; clone2 with forget")
    adapt_tokens: int = option(10_000, "tokens of its training text", 1000, MANY)
    adapt_steps: int = option(100, "steps of learning its rows", 1, MANY)
    adapt_batch: int = option(16, "sequences per step of adapting", 1, 2**20)
    adapt_replay: float = option(0.25, "share of these sequences that is text of the old languages", 0, 0.9)
    adapt_lr: float = option(1e-2, "peak learning rate of the new rows", 1e-9, 1e3)
    adapt_rows: str = option("rows", "what learns: new rows; these and the whole head; all rows, drawn anew",
                             choices=("rows", "head", "all"))
    adapt_init: str = option("noise", "first values of new rows; pieces: means of old rows, with --data",
                             choices=("noise", "mean", "pieces"))
    body_from: str = option("", "folder of a run with --instruct_steps whose body takes this one's place")
    instruct_steps: int = option(-1, "steps of English exercises for the body, at the end; "
                                 "-1: 100 after a new language, else none", -1, MANY)
    # AFP
    afp_steps: int = option(500, "steps of aligning sentences after pretraining", 1, MANY)
    afp_lr: float = option(2e-3, "peak learning rate of these steps", 1e-9, 1e3)
    afp_samples: int = option(5000, "translated samples to learn from: training items of the tasks", 2, 10**6)
    afp_rows: int = option(8, "sequences of plain text per step beside; 0: as published", 0, 2**20)
    afp_clone_share: float = option(0.2, "share of the other languages in that text", 0, 1)
    sentence_batch: int = option(32, "samples per step; for MCL the pool of negatives", 2, 2**20)
    mcl_weight: float = option(1.0, "weight of the contrastive loss; all three weights 0: no stage", 0, 1e6)
    mcl_layer: int = option(1, "level of the states compared; 0: embeddings, 1: the first block", 0, 999)
    mcl_pool: str = option("last", "one vector per sentence: its last token, or over all tokens",
                           choices=("last", "mean", "max"))
    mcl_tau: float = option(0.05, "temperature of the contrastive loss of sentences", 0.005, 1e3)
    mcl_both_ways: bool = option(True, "the translations look for their sentences, too")
    mcl_same_language: bool = option(False, "sentences of the same language are negatives, too")
    cit_weight: float = option(1.5, "weight of the loss on answers", 0, 1e6)
    cross: float = option(0.5, "probability that the answer's language is not the question's; 0: MIT", 0, 1)
    translations: float = option(0.5, "share of the samples that are sentences to translate", 0, 1)
    answer_only: bool = option(True, "only answers carry loss; not: plain LM of questions, too (FT)")
    word_weight: float = option(0.0, "weight of word alignment beside, PreAlign's loss, late", 0, 1e6)
    leave_out: str = option("", "languages that sentence alignment never meets, separated by commas")
    # evaluation and machine
    log_every: int = option(100, "steps between log rows and checkpoints", 1, MANY)
    eval_items: int = option(200, "test items per task and rung", 1, 10**6)
    shots: str = option("0", "numbers of solved examples in task prompts, as in 0,5")
    generate_items: int = option(-1, "items per measure of written text; 0: off; -1: 50 with align, else 0",
                                 -1, 10**4)
    transfer_steps: int = option(300, "fine-tuning steps on English for zero-shot transfer; 0: off", 0, MANY)
    device: str = option("auto", "where to run", choices=("auto", "cpu", "cuda"))
    dtype: str = option("auto", "of matrix products in training", choices=("auto", "float32", "bfloat16"))
    compile: bool = option(False, "torch.compile the blocks and the LM loss, in training")

    def __post_init__(self):
        for f in fields(self):
            low, high, choices = (f.metadata[key] for key in ("low", "high", "choices"))
            found = getattr(self, f.name)
            # a config.json may hold anything; there, 1 may stand for 1.0
            if type(found) is not f.type and not (f.type is float and type(found) is int):
                raise ValueError(f"--{f.name} {found!r:.60} is not of type {f.type.__name__}")
            if choices and found not in choices:
                raise ValueError(f"--{f.name} {found:.60}: choose from {', '.join(choices)}")
            if low is not None and not low <= found <= high:
                raise ValueError(f"--{f.name} {found} is out of range: {low} to {high}")
        names = self.languages.split(",")
        if names[0] != "en" or len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"--languages {self.languages}: en first, then at least one other, say en,clone")
        for name in [] if self.data else names[1:] + [self.new_language] * bool(self.new_language):
            language_order(name)
        if self.new_language in names:
            raise ValueError(f"--adapt_to {self.new_language}: a language of pretraining (--languages)")
        if self.adapt_init == "pieces" and not self.data:
            raise ValueError("--adapt_init pieces: a made-up language has no piece of a word in common with "
                             "English; take noise or mean")
        if not re.fullmatch(r"[0-9]{1,2}(,[0-9]{1,2})*", self.shots) or max(
                map(int, self.shots.split(","))) > MOST_SHOTS:
            raise ValueError(f"--shots {self.shots}: numbers separated by commas, up to {MOST_SHOTS}, as in "
                             "0,5")
        left_out, others = set(self.leave_out.split(",")) - {""}, set(names[1:] + [self.new_language])
        if not left_out <= others or left_out >= others - {""}:
            raise ValueError(f"--leave_out {self.leave_out}: languages of the run beside English, not all of "
                             f"them ({', '.join(sorted(others - {''}))})")
        if self.mcl_layer > self.n_layer:
            raise ValueError(f"--mcl_layer {self.mcl_layer}: the model has --n_layer {self.n_layer} blocks")
        if self.new_language and self.context_len >= min(self.adapt_tokens, 25_000) - 1:
            raise ValueError(f"--adapt_tokens {self.adapt_tokens}: --context_len {self.context_len} needs "
                             "more, and is at most 24998 with a new language")
        if self.new_language and round(self.adapt_replay * self.adapt_batch) == self.adapt_batch:
            raise ValueError(f"--adapt_replay {self.adapt_replay} of --adapt_batch {self.adapt_batch} rows "
                             "leaves none for the new language")
        if self.body_from and not self.new_language:
            raise ValueError("--body_from needs a new language: add --adapt_to")
        if self.accumulate > self.batch_size:
            raise ValueError(f"--accumulate {self.accumulate} is more parts than "
                             f"--batch_size {self.batch_size} has rows")
        if self.d_model % (2 * self.n_head):
            raise ValueError(f"--d_model {self.d_model} must be an even multiple of --n_head {self.n_head}")
        if self.pretrain_steps < 1:
            raise ValueError(f"--steps {self.steps} leaves nothing to pretrain on after {self.align_steps} "
                             f"alignment steps of {self.align_rows} rows: "
                             "raise --steps, or lower --align_steps or --align_rows")

    @property
    def methods(self):
        return set(self.method.split("+"))

    @property
    def new_language(self):
        """The language attached after pretraining, or ""."""
        name = self.adapt_to or ("clone2" if "forget" in self.methods and not self.data else "none")
        return "" if name == "none" else name

    @property
    def tuning_steps(self):
        """Steps of English exercises at the end."""
        default = 100 if self.new_language and not self.data else 0
        return self.instruct_steps if self.instruct_steps >= 0 else default

    @property
    def written_items(self):
        """generate_items, resolved."""
        return self.generate_items if self.generate_items >= 0 else 50 * ("align" in self.methods)

    @property
    def text_tokens(self):
        """What every system reads before AFP and new languages."""
        return self.steps * self.batch_size * self.context_len

    @property
    def aligns_sentences(self):
        """Whether there is a stage of AFP."""
        return "align" in self.methods and bool(self.mcl_weight or self.cit_weight or self.word_weight)

    @property
    def pretrain_steps(self):
        """Steps left after the text read while aligning: every system sees the same number of tokens."""
        aligning = self.align_steps * self.align_rows if "prealign" in self.methods else 0
        return self.steps - aligning // self.batch_size


def parse_args(argv, description=""):
    """Command line -> (Config, modes): what a run is, what to do with it; modes.given: the knobs given."""
    def complain(message):                                     # one line; the nearest flag to a misspelt one
        for word in (w.split("=")[0] for w in argv if w.startswith("--")):
            near = difflib.get_close_matches(word, p._option_string_actions, 1)
            if word not in p._option_string_actions and near:
                message = f"unknown flag {word}; did you mean {near[0]}?"
        p.exit(2, f"train.py: {' '.join(message.split())} (--help lists all flags)\n")
    p = argparse.ArgumentParser(prog="train.py", description=description, allow_abbrev=False,
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
    mode("--reproduce", choices=tuple(SYSTEMS), help="a paper's systems over seeds, judged")
    mode("--seeds", type=int, default=3, help="with --reproduce: number of seeds [3]")
    knob = p.add_argument_group("knobs of a run [value in the preset tiny]").add_argument
    for f in fields(Config):
        kind = dict(type=f.type, choices=f.metadata["choices"])
        kind = dict(action=argparse.BooleanOptionalAction) if f.type is bool else kind
        knob(f"--{f.name}", default=argparse.SUPPRESS, help=f"{f.metadata['help']} [{f.default}]", **kind)
    odd = [word for word in argv if re.search("[\0\ud800-\udfff]", word)]
    if odd:
        complain(f"{odd[0]!r:.60} is not UTF-8 text")
    modes = p.parse_args(argv)
    if modes.seeds < 1:
        raise ValueError(f"--seeds {modes.seeds} is out of range: at least 1")
    modes.given = {f.name: vars(modes).pop(f.name) for f in fields(Config) if f.name in modes}
    # Flags win over the preset's values, these over the defaults; no preset: small on a GPU, else tiny
    gpu = torch.cuda.is_available() and modes.given.get("device") != "cpu"
    preset = modes.given.get("preset", "small" if gpu else "tiny")
    known = dict(preset=preset) | PRESETS[preset]
    if "from_run" in modes.given:                              # its configuration takes the place of a preset
        found = Folder(modes.given["from_run"]).read("config.json")
        if found is None:
            raise ValueError(f"--from_run {modes.given['from_run']} has no config.json: give a run's folder")
        try:
            known = asdict(Config(**{f.name: found[f.name] for f in fields(Config) if f.name in found}))
        except ValueError as error:
            raise ValueError(f"--from_run {modes.given['from_run']}/config.json is damaged: "
                             f"{error}") from None
        before, wanted = (set(name.split("+")) - {"baseline", "align"}
                          for name in (known["method"], modes.given.get("method", known["method"])))
        if before != wanted:                                   # what came before stays as it was
            raise ValueError(f"--from_run {modes.given['from_run']} was trained with --method "
                             f"{known['method']}: only +align can be added, not --method "
                             f"{modes.given['method']}")
        for name in WORLD:
            if modes.given.get(name, known[name]) != known[name]:
                raise ValueError(f"--{name} {modes.given[name]}: --from_run goes on with the data of "
                                 f"{modes.given['from_run']}, which has --{name} {known[name] or '(none)'}")
    elif modes.given.get("data"):                              # what the folder says, too
        knobs = {f.name: f.default for f in fields(Config)} | known | modes.given
        known |= settings(modes.given["data"], knobs, modes.given)
    return Config(**(known | modes.given)), modes


def flags_of(cfg, out):
    """The flags that give this run again."""
    data = ["--data", cfg.data] if cfg.data else []
    standard, _ = parse_args(["--from_run", cfg.from_run] if cfg.from_run else
                             ["--preset", cfg.preset, *data])
    flags = [f"--{'no-' if v is False else ''}{k}" + ("" if isinstance(v, bool) else f" {quote(str(v))}")
             for k, v in asdict(cfg).items()
             if v != getattr(standard, k) or k in ("method", "preset") or k in ("from_run", "data") and v]
    return " ".join(flags + ([f"--out {quote(str(out))}"] if Path(out) != default_out(cfg) else []))


def systems_of(paper, seeds, cfg, given):
    """The runs of a study: yields (name, Config, folder).

    cfg gives preset and size;  given: knobs of the command line, for runs on a prepared folder, which decides
    about sizes, too.  A run that starts from another reads its configuration: that one has to be trained
    before the next is asked for.  Raises DataError for a folder that was not prepared, before anything else.
    """
    if cfg.data and paper != "real":
        raise ValueError(f"--reproduce {paper} runs the embedded world: leave out --data")
    data = dict(data=cfg.data or PREPARED)
    named = f"-{Path(cfg.data).resolve().name}" if cfg.data and cfg.data != PREPARED else ""
    for flags in SYSTEMS[paper].values():
        if "{data}" in flags:
            parse_args(flags.format_map(data).split())
    for seed in range(seeds):
        folder = Path("runs") / f"{paper}-{cfg.preset}{named}-s{seed}"
        outs = {name: folder / name.replace(" ", "-").replace("%", "").replace(",", "")
                for name in SYSTEMS[paper]}
        for name, flags in SYSTEMS[paper].items():
            flags = flags.format_map(outs | data).split()
            known, chosen = parse_args([*flags, "--preset", cfg.preset] if "--data" in flags else flags)
            system = known
            if known.data and not known.from_run:
                system = replace(known, **(given | chosen.given), seed=seed)
            elif not known.from_run:
                system = replace(cfg, **chosen.given, seed=seed)
            if name == "skyline":                              # the same English, and as much clone text
                system = replace(system, clone_share=0.5, steps=round(cfg.steps * (1 - cfg.clone_share) * 2))
            yield name, system, outs[name]


def trained(cfg, out):
    """Raises ValueError with the way out if the folder holds no checkpoint of this configuration."""
    if not (out / "last.pt").exists() and not (out / "previous.pt").exists():
        raise ValueError(f"{out}/last.pt is missing: train first with python train.py {flags_of(cfg, out)}")
    Folder(out).claim(asdict(cfg), EVALUATION)
