"""The options of a run.  One dataclass is the command line, config.json and the table of data/README.md."""
import argparse
import difflib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from pathlib import Path
from shlex import quote

from data.files import UserError
from data.folder import language_order, read_meta

ORDER = ("prealign", "forget", "align")              # the methods, in the order in which a run applies them
METHODS = ("baseline", *("+".join(some) for n in (1, 2, 3) for some in combinations(ORDER, n)))
STUDIES = ("prealign", "forget", "align", "real")
MOST_SHOTS = 50                                      # items per task that are kept for demonstrations
NEW_VAL_TOKENS = 25_000                              # validation tokens of a new language of the world
MANY = 2**40                                         # steps: practically no limit
PAPER = dict(context_len=1024, vocab_size=32768, batch_size=256, accumulate=32, lr=3e-4, embed_lr=1.0,
             prealign_steps=5000, prealign_words=256, prealign_rows=64, prealign_weight=0.5, prealign_lr=5e-4,
             prealign_every=0, code_switch=0.05, afp_steps=5000, afp_lr=1e-5)
# The values that a preset sets; flags override them.  The last three have the shapes of the PreAlign configs.
PRESETS = {
    "tiny": dict(n_layer=4, n_head=4, d_model=128, context_len=128, vocab_size=1280),
    "small": dict(n_layer=8, n_head=8, d_model=512, context_len=256, vocab_size=4096, words=20_000_000,
                  steps=5000, batch_size=64, lr=1e-3, prealign_steps=600, prealign_words=512,
                  prealign_rows=16, reset_every=500, afp_lr=7e-4),
    "150m": PAPER | dict(n_layer=12, n_head=16, d_model=1024, words=200_000_000, steps=20_000,
                         reset_every=1300),
    "400m": PAPER | dict(n_layer=24, n_head=16, d_model=1024, words=400_000_000, steps=40_000,
                         reset_every=2700),
    "1.3b": PAPER | dict(n_layer=24, n_head=16, d_model=2048, words=800_000_000, steps=80_000,
                         reset_every=5300),
}
# The values that a prepared folder sets.  Real words have no exact counterpart in the other language: their
# alignment is never finished and keeps pulling, so it gets less weight.
REAL = dict(eval_items=1000, adapt_steps=300, prealign_weight=0.2)
EPOCHS, LEAST_STEPS, MOST_STEPS = 5, 1000, dict(tiny=4000)   # most: for other presets, their own steps
FIXED_BY_FOLDER = ("text", "words", "vocab_size")
FIXED_BY_RUN = ("data", "text", "languages", "words", "vocab_size", "seed")


def option(default, help, low=None, high=None, choices=None, group=None, neutral=False):
    """One option.  group: begins a group of --help;  neutral: does not change what is learned."""
    return field(default=default, metadata=dict(help=help, low=low, high=high, choices=choices, group=group,
                                                neutral=neutral))


@dataclass(frozen=True)
class Config:
    """All options of a run.  With prealign_steps and code_switch 0, prealign is the baseline, bit for bit."""
    method: str = option("baseline", "what to train", choices=METHODS, group="experiment")
    preset: str = option("tiny", "size of model and training; flags override it", choices=tuple(PRESETS))
    seed: int = option(0, "seed of the world, the initial weights and the batches", 0, 2**31)
    from_run: str = option("", "folder of a pretrained run to start from, with its options")

    data: str = option("", "folder made by data/prepare.py, instead of the built-in world", group="data")
    text: str = option("", "your own English, one document per line, instead of the world's stories")
    languages: str = option("en,clone", "English first, then clone, clone2 ..., reversed or shuffled-K; "
                            "with --data: languages of the folder, by default all")
    words: int = option(1_500_000, "English words of training text to generate", 1000, 2**50)
    clone_share: float = option(0.1, "share of all languages but English in text and batches", 0.001, 0.95)
    vocab_size: int = option(1280, "byte-level BPE tokens per language", 257, 2**20)

    n_layer: int = option(4, "transformer blocks", 1, 999, group="model")
    n_head: int = option(4, "attention heads per block", 1, 999)
    d_model: int = option(128, "width", 2, 2**16)
    context_len: int = option(128, "tokens per sequence", 8, 2**20)

    steps: int = option(2000, "steps of text; tokens used for word alignment are deducted", 1, MANY,
                        group="training")
    batch_size: int = option(8, "sequences per step", 1, 2**20)
    lr: float = option(3e-3, "peak learning rate of the matrices; cosine decay to a tenth", 1e-9, 1e3)
    embed_lr: float = option(3.0, "learning rate of embedding and head, as a multiple of lr", 1e-6, 1e6)
    weight_decay: float = option(0.1, "weight decay of the matrices", 0, 1e3)
    embed_decay: bool = option(False, "decay embedding and head, too, as in PreAlign's official code")
    clip: float = option(1.0, "maximum norm of the gradient", 1e-9, 1e9)

    prealign_steps: int = option(300, "steps of word alignment before pretraining; 0: no alignment at all", 0,
                                 MANY, group="PreAlign")
    prealign_words: int = option(128, "words per alignment batch, each other's negatives", 2, 2**24)
    prealign_rows: int = option(4, "sequences of text per alignment step, for the LM loss", 0, 2**20)
    prealign_weight: float = option(1.0, "weight of the alignment loss (alpha); that of the LM loss is 1", 0,
                                    1e6)
    prealign_lr: float = option(2e-3, "peak learning rate of word alignment", 1e-9, 1e3)
    prealign_every: int = option(5, "steps between alignment batches during pretraining (ours); 0: none, as "
                                 "published", 0, MANY)
    code_switch: float = option(0.05, "probability that an English dictionary word of the input is replaced "
                                "by a translation", 0, 1)
    code_switch_vanilla: bool = option(False, "ablation: replaced words are prediction targets, too")
    dictionary: str = option("gold", "shuffled: a control in which every translation is wrong",
                             choices=("gold", "shuffled"))
    dictionary_coverage: float = option(1.0, "share of the dictionary to train with; the rest is held out",
                                        0.05, 1)

    reset_every: int = option(200, "steps between resets of the token embeddings (k); 0: no resets", 0, MANY,
                              group="active forgetting")
    reset_from: float = option(0.0, "share of pretraining before the first reset", 0, 1)
    reset_until: float = option(0.5, "share of pretraining after which no reset happens", 0, 1)
    reset_fraction: float = option(1.0, "share of the rows, drawn at random, in each reset", 0, 1)
    reset_blend: float = option(1.0, "how far a row moves towards fresh noise; 1: all the way", 0, 1)
    reset_optimizer: bool = option(True, "a reset also clears the optimizer state of the rows and restarts "
                                   "their learning rate schedule")
    reset_clip: float = option(0.5, "maximum norm of the gradient in pretraining with resets", 1e-9, 1e9)

    adapt_to: str = option("", "language to add after pretraining, or none; by default clone2 with forget, "
                           "else none", group="new language")
    adapt_tokens: int = option(10_000, "tokens of its training text", 1000, MANY)
    adapt_steps: int = option(100, "steps of training its rows", 1, MANY)
    adapt_replay: float = option(0.25, "share of the old languages in each batch", 0, 0.9)
    adapt_lr: float = option(1e-2, "peak learning rate of its rows", 1e-9, 1e3)
    adapt_rows: str = option("rows", "what is trained: the new rows; these and the whole head; or all rows, "
                             "from a new random start", choices=("rows", "head", "all"))
    adapt_init: str = option("noise", "first values of the new rows: noise; mean of the old rows plus noise; "
                             "with --data, mean of the rows of their subwords",
                             choices=("noise", "mean", "subwords"))
    body_from: str = option("", "folder of a run with --instruct_steps whose body replaces this one")
    instruct_steps: int = option(-1, "steps of English exercises at the end, for the body; -1: 100 after a "
                                 "new language of the world, else 0", -1, MANY)

    afp_steps: int = option(500, "steps of sentence alignment after pretraining", 1, MANY, group="AFP")
    afp_lr: float = option(2e-3, "peak learning rate of sentence alignment", 1e-9, 1e3)
    afp_samples: int = option(5000, "number of translated training samples", 2, 10**6)
    afp_batch: int = option(32, "samples per step, each other's negatives in MCL", 2, 2**20)
    afp_rows: int = option(8, "sequences of plain text per step (ours); 0: none, as published", 0, 2**20)
    afp_clone_share: float = option(0.2, "share of all languages but English in that text", 0, 1)
    afp_mcl_weight: float = option(1.0, "weight of multilingual contrastive learning (MCL); with all three "
                                   "weights 0 there is no such stage", 0, 1e6)
    afp_mcl_layer: int = option(1, "level of the states in MCL; 0: embeddings, 1: the first block", 0, 999)
    afp_mcl_pool: str = option("last", "vector of a sentence in MCL: its last token, or mean or max of all",
                               choices=("last", "mean", "max"))
    afp_mcl_symmetric: bool = option(True, "translations are anchors in MCL, too")
    afp_cit_weight: float = option(1.5, "weight of cross-lingual instruction following (CIT)", 0, 1e6)
    afp_cross: float = option(0.5, "probability that question and answer differ in language; 0: MIT", 0, 1)
    afp_translations: float = option(0.5, "share of sentences to translate among the samples", 0, 1)
    afp_answer_only: bool = option(True, "only answers carry loss; otherwise questions do, too (FT)")
    afp_word_weight: float = option(0.0, "weight of PreAlign's word alignment in this stage (ours)", 0, 1e6)
    afp_leave_out: str = option("", "languages to leave out of this stage, separated by commas")

    eval_items: int = option(200, "test items per task and difficulty", 1, 10**6, group="evaluation",
                             neutral=True)
    shots: str = option("0", "numbers of demonstrations in task prompts, such as 0,5", neutral=True)
    generate_items: int = option(-1, "items per measure of generated text; -1: 50 with align, else 0", -1,
                                 10**4, neutral=True)
    transfer_steps: int = option(300, "fine-tuning steps for zero-shot transfer; 0: not measured", 0, MANY,
                                 neutral=True)

    log_every: int = option(100, "steps between log rows and checkpoints", 1, MANY, group="machine",
                            neutral=True)
    accumulate: int = option(1, "parts of an LM batch, to save memory; alignment batches are never split", 1,
                             2**20, neutral=True)
    device: str = option("auto", "where to run", choices=("auto", "cpu", "cuda"), neutral=True)
    dtype: str = option("auto", "number type of matrix products in training",
                        choices=("auto", "float32", "bfloat16"))
    compile: bool = option(False, "torch.compile the blocks and the LM loss in training", neutral=True)

    def __post_init__(self):
        for f in fields(self):
            check_value(f, getattr(self, f.name))
        names, new = self.languages.split(","), self.new_language
        if names[0] != "en" or len(names) < 2 or len(set(names)) < len(names):
            raise UserError(f"--languages {self.languages}: en first, then at least one other")
        if not self.data:
            for name in [*names[1:], new] if new else names[1:]:
                language_order(name)                           # raises UserError for an unknown name
        others, left_out = {*names[1:], new} - {""}, set(self.afp_leave_out.split(",")) - {""}
        shots_ok = re.fullmatch(r"[0-9]{1,2}(,[0-9]{1,2})*", self.shots)
        for wrong, message in (
            (new in names, f"--adapt_to {new}: a language of pretraining (--languages)"),
            (self.adapt_init == "subwords" and not self.data,
             "--adapt_init subwords: a made-up language shares no subword with English; take noise or mean"),
            (not shots_ok or max(map(int, self.shots.split(","))) > MOST_SHOTS,
             f"--shots {self.shots}: numbers separated by commas, up to {MOST_SHOTS}, as in 0,5"),
            (not left_out < others, f"--afp_leave_out {self.afp_leave_out}: some of the languages other than "
             f"English, not all of them ({', '.join(sorted(others))})"),
            (self.afp_mcl_layer > self.n_layer,
             f"--afp_mcl_layer {self.afp_mcl_layer}: the model has --n_layer {self.n_layer} blocks"),
            (new and self.context_len >= min(self.adapt_tokens, NEW_VAL_TOKENS) - 1,
             f"--adapt_tokens {self.adapt_tokens}: --context_len {self.context_len} needs more, and with a "
             f"new language it is at most {NEW_VAL_TOKENS - 2}"),
            (new and round(self.adapt_replay * self.adapt_batch) == self.adapt_batch,
             f"--adapt_replay {self.adapt_replay} leaves the new language none of the {self.adapt_batch} "
             "sequences of a batch, which are twice --batch_size"),
            (self.body_from and not new, "--body_from needs a new language: add --adapt_to"),
            (self.accumulate > self.batch_size,
             f"--accumulate {self.accumulate} is more parts than --batch_size {self.batch_size} has rows"),
            (self.d_model % (2 * self.n_head),
             f"--d_model {self.d_model} must be an even multiple of --n_head {self.n_head}"),
            (self.pretrain_steps < 1,
             f"--steps {self.steps} leaves nothing to pretrain on after {self.prealign_steps} alignment "
             f"steps of {self.prealign_rows} sequences: raise --steps or lower --prealign_steps"),
        ):
            if wrong:
                raise UserError(message)

    @property
    def methods(self):
        return set(self.method.split("+"))

    @property
    def new_language(self):
        """The language added after pretraining, or ""."""
        default = "clone2" if "forget" in self.methods and not self.data else "none"
        name = self.adapt_to or default
        return "" if name == "none" else name

    @property
    def adapt_batch(self):
        """Sequences per step of learning the new language."""
        return 2 * self.batch_size

    @property
    def aligns_sentences(self):
        """Whether the run has a stage of AFP."""
        weights = (self.afp_mcl_weight, self.afp_cit_weight, self.afp_word_weight)
        return "align" in self.methods and any(weights)

    @property
    def pretrain_steps(self):
        """Steps that remain after word alignment: all methods read the same number of tokens."""
        aligning = self.prealign_steps * self.prealign_rows if "prealign" in self.methods else 0
        return self.steps - aligning // self.batch_size

    @property
    def text_tokens(self):
        """Tokens of text that every method reads before AFP and new languages."""
        return self.steps * self.batch_size * self.context_len

    @property
    def stages(self):
        """The stages of this run in order, and their steps: -> {stage: steps}, without stages of no steps."""
        exercises = 100 if self.new_language and not self.data else 0
        stages = {
            "align words": self.prealign_steps if "prealign" in self.methods else 0,
            "pretrain": self.pretrain_steps,
            "adapt": self.adapt_steps if self.new_language else 0,
            "align sentences": self.afp_steps if self.aligns_sentences else 0,
            "instruct": exercises if self.instruct_steps < 0 else self.instruct_steps,
        }
        if self.from_run:                                      # that run has been through these
            del stages["align words"], stages["pretrain"]
        return {stage: steps for stage, steps in stages.items() if steps}

    @property
    def written_items(self):
        """The number of items per measure of generated text, with the default resolved."""
        default = 50 if "align" in self.methods else 0
        return default if self.generate_items < 0 else self.generate_items


# options that do not change what is learned: a run may resume, or be evaluated, with other values
NEUTRAL = tuple(f.name for f in fields(Config) if f.metadata["neutral"])


def check_value(f, value):
    """Raise UserError if a value does not suit a field of Config."""
    low, high, choices = (f.metadata[key] for key in ("low", "high", "choices"))
    # in config.json, 1 may stand for 1.0
    if type(value) is not f.type and not (f.type is float and type(value) is int):
        raise UserError(f"--{f.name} {value!r:.60} is not of type {f.type.__name__}")
    if choices and value not in choices:
        by_parts = {"+".join(sorted(choice.split("+"))): choice for choice in choices}   # a sum in any order
        near = difflib.get_close_matches("+".join(sorted(value.lower().split("+"))), by_parts, 1)
        hint = f"; did you mean {by_parts[near[0]]}?" if near else ""
        raise UserError(f"--{f.name}: invalid choice: {value!r:.60} (choose from {', '.join(choices)}){hint}")
    if low is not None and not low <= value <= high:
        raise UserError(f"--{f.name} {value} is out of range: {low} to {high}")


# --- the command line ---------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (--help lists all flags)")


def make_parser(description):
    p = Parser(prog="train.py", usage="python train.py [flags]", description=description, allow_abbrev=False,
               formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument_group("commands and places").add_argument
    add("--out", default="", metavar="DIR", help="run folder [runs/<method>-<preset>-<data>-s<seed>]")
    add("--cache", default="data/cache", metavar="DIR", help="where generated text is kept [data/cache]")
    add("--fresh", action="store_true", help="delete the files of the run and train again")
    add("--eval_only", action="store_true", help="evaluate a finished run again")
    add("--sample", metavar="TEXT", help="continue TEXT with the trained model, in every language")
    add("--overfit", action="store_true", help="check: train on one batch until its loss is below 0.1")
    add("--report", nargs="+", metavar="RUN", help="compare finished runs: table and curves")
    add("--reproduce", choices=STUDIES, help="run the systems of a study over seeds and judge its claims")
    add("--seeds", type=int, default=3, metavar="N", help="with --reproduce: number of seeds [3]")
    for f in fields(Config):
        if f.metadata["group"]:
            add = p.add_argument_group(f.metadata["group"]).add_argument
        kind = dict(type=f.type, metavar={int: "N", float: "X", str: "VALUE"}.get(f.type))
        if f.type is bool:
            kind = dict(action=argparse.BooleanOptionalAction)
        elif f.metadata["choices"]:                            # Config checks them, and suggests the nearest
            kind = dict(metavar="{" + ",".join(f.metadata["choices"]) + "}")
        add(f"--{f.name}", default=argparse.SUPPRESS, help=f"{f.metadata['help']} [{f.default}]", **kind)
    return p


def likeness(flag, other):
    """How similar two flags are, from 0 to 1: the similarity of their least similar words."""
    words, others = (re.split("[-_]", name.strip("-")) for name in (flag, other))
    if "".join(words) == "".join(others):
        return 1.0
    if len(words) != len(others):
        return 0.0
    return min(difflib.SequenceMatcher(None, a, b).ratio() for a, b in zip(words, others))


def explain(word, flags):
    """The message for a word of the command line that argparse does not know: -> str."""
    if not word.startswith("-"):
        method = word.lower()
        return f"{word}: use --method {method}" if method in METHODS else f"unexpected argument {word:.60}"
    flag = word.split("=")[0]
    nearest = max(flags, key=lambda other: likeness(flag, other))
    hint = f"; did you mean {nearest}?" if likeness(flag, nearest) >= 0.8 else ""
    return f"unknown flag {flag:.60}{hint}"


def parse_args(argv, description=""):
    """Command line -> (Config, modes).  modes holds the other flags; modes.given: {option: value} as given.

    --sample and --eval_only take the options of the run in --out, or in the default folder.
    Raises UserError for every mistake.
    """
    for word in argv:
        if re.search("[\0\ud800-\udfff]", word):
            raise UserError(f"{word!r:.60} is not UTF-8 text")
    parser = make_parser(description)
    modes, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(explain(unknown[0], parser._option_string_actions))
    if modes.seeds < 1:
        raise UserError(f"--seeds {modes.seeds} is out of range: at least 1")
    given = modes.given = {f.name: vars(modes).pop(f.name) for f in fields(Config) if f.name in modes}
    for f in fields(Config):
        if f.name in given:
            check_value(f, given[f.name])
    if modes.sample is None and not modes.eval_only:
        return resolve(given), modes
    out = Path(modes.out) if modes.out else default_out(resolve(given))
    if not (out / "config.json").exists():
        raise UserError(f"{out} holds no run: train first with python train.py "
                        f"{flags_of(resolve(given), out)}")
    return config_of_run(out, given), modes


def resolve(given):
    """The Config of the given options: they override the run to start from, or the preset and the folder."""
    if given.get("from_run"):
        return Config(**(options_of_base(given["from_run"], given) | given))
    preset = given.get("preset", "tiny")
    known = dict(preset=preset) | PRESETS[preset]
    if given.get("data"):
        known |= options_of_folder(given["data"], asdict(Config()) | known | given, given)
    return Config(**(known | given))


def config_of_run(folder, given):
    """The Config of the run in a folder, with the neutral options that are given."""
    known = asdict(load_config(folder))
    for name, value in given.items():
        if name not in NEUTRAL and value != known[name]:
            raise UserError(f"--{name} {value}: the run in {folder} has --{name} {known[name]}; leave "
                            "out the flag")
    return Config(**(known | given))


def options_of_base(folder, given):
    """The options of the run to start from.  Raises UserError if given ones would change its pretraining."""
    try:
        known = asdict(load_config(folder))
    except UserError as error:
        raise UserError(f"--from_run {folder}: {error}") from None
    before, wanted = (set(name.split("+")) - {"baseline", "align"}
                      for name in (known["method"], given.get("method", known["method"])))
    if before != wanted:
        raise UserError(f"--from_run {folder} was trained with --method {known['method']}: only +align can "
                        f"be added, not --method {given['method']}")
    for name in FIXED_BY_RUN:
        if given.get(name, known[name]) != known[name]:
            raise UserError(f"--{name} {given[name]}: --from_run uses the data of {folder}, which has "
                            f"--{name} {known[name] or '(none)'}")
    return known


def options_of_folder(folder, options, given):
    """The options that a prepared folder sets: -> {option: value}.

    Languages are the folder's, and batches mix them in the folder's shares.  All text is read EPOCHS times,
    within limits.  Active forgetting continues with the first new language.

    options: all options as they are without the folder; given: those of the command line
    """
    for name in FIXED_BY_FOLDER:
        if name in given:
            raise UserError(f"--{name} does not go with --data: the text and tokenizer of {folder} are fixed")
    meta = read_meta(folder)
    languages = given.get("languages", ",".join(meta["languages"])).split(",")
    if not set(languages) <= set(meta["languages"]) or languages[0] != "en" or len(languages) < 2:
        raise UserError(f"--languages {','.join(languages)}: {folder} has {','.join(meta['languages'])}; "
                        "take en and at least one other")
    tokens = [meta["tokens"][f"{name}.train"] for name in languages]
    steps = round(EPOCHS * sum(tokens) / (options["batch_size"] * options["context_len"]))
    most = MOST_STEPS.get(options["preset"], options["steps"])
    found = REAL | dict(languages=",".join(languages), vocab_size=meta["base_vocab"],
                        clone_share=round(min(max(1 - tokens[0] / sum(tokens), 0.001), 0.95), 3),
                        steps=min(max(steps, LEAST_STEPS), most))
    first = options["adapt_to"] if options["adapt_to"] in meta["new"] else (*meta["new"], "none")[0]
    if first != "none":
        found["adapt_tokens"] = max(meta["tokens"][f"{first}.train"], 1000)
    if "forget" in options["method"]:
        found["adapt_to"] = first
    return found


# --- runs and their names -----------------------------------------------------------------------------------

def read_json(path):
    """The object in a JSON file, None if there is no file.  Raises UserError for a damaged one."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (not a JSON object): train again with --fresh")
    return content


def load_config(folder):
    """The Config of the run in a folder; options that are newer than the run have their defaults.

    Raises UserError if config.json is missing or damaged, or holds options that are not known here.
    """
    path, names = Path(folder) / "config.json", [f.name for f in fields(Config)]
    content = read_json(path)
    if content is None:
        raise UserError(f"{path} is missing: give the folder of a run")
    if unknown := sorted(content.keys() - {*names, "data_used", "dtype_used"}):
        raise UserError(f"{path} has options that are not known here ({', '.join(unknown):.60}): it was "
                        "written by another version; train again with --fresh")
    try:
        return Config(**{name: content[name] for name in names if name in content})
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def data_name(cfg):
    """The name of a run's data in the name of its folder."""
    if cfg.data:
        return Path(cfg.data).resolve().name
    return Path(cfg.text).stem if cfg.text else "synthetic"


def default_out(cfg):
    """The run folder without --out: -> Path."""
    adapted = f"-to-{cfg.adapt_to}" if cfg.adapt_to else ""
    return Path(f"runs/{cfg.method}{adapted}-{cfg.preset}-{data_name(cfg)}-s{cfg.seed}")


def flags_of(cfg, out):
    """The flags that give this Config and this run folder again: -> str."""
    start = {name: getattr(cfg, name) for name in ("method", "preset", "from_run", "data")}
    standard, flags = resolve(start), []
    for name, value in asdict(cfg).items():
        if value != getattr(standard, name) or name in ("method", "preset") or start.get(name):
            if isinstance(value, bool):
                flags.append(f"--{name}" if value else f"--no-{name}")
            else:
                flags.append(f"--{name} {quote(str(value))}")
    if Path(out) != default_out(cfg):
        flags.append(f"--out {quote(str(out))}")
    return " ".join(flags)
