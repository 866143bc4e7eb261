"""The options of a run.  One dataclass is the command line, config.json and the table of data/README.md."""
import argparse
import difflib
import json
import re
import sys
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from pathlib import Path
from shlex import quote

from data.files import UserError, read_json, refuse
from data.folder import language_order, read_meta
from data.pretrained import read_config
from data.tasks import MOST_SHOTS, WORLD_TASKS

ORDER = ("prealign", "forget", "align")              # the methods, in the order in which a run applies them
METHODS = ("baseline", *("+".join(some) for n in (1, 2, 3) for some in combinations(ORDER, n)))
SEEDS = 5                                            # of a study, see data/results/plan.md
MANY = 2**40                                         # steps: practically no limit
TRAIN_AGAIN = "train again with --fresh"


def read_tsv(name):
    """The lines of a table in this folder, as lists of texts; the first is its head."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


STUDIES = tuple(dict.fromkeys(line[0] for line in read_tsv("systems.tsv")[1:]))      # in the file's order
# mini has ten times the text of tiny; 150m, 400m and 1.3b are as large as PreAlign's models
[_, *names], *columns = zip(*read_tsv("presets.tsv"))          # a column per preset
PRESETS = {preset: {name: json.loads(text) for name, text in zip(names, values) if text}
           for preset, *values in columns}
# The values that a public checkpoint sets (rates of fine-tuning, AFP without other text, as published), and
# those that a prepared folder sets.
PRETRAINED, REAL = PRESETS.pop("checkpoint"), PRESETS.pop("folder")
EPOCHS, LEAST_STEPS, MOST_STEPS = 5, 1000, dict(tiny=4000)   # most: for other presets, their own steps
UNTRIED = ("small", "150m", "400m", "1.3b")                  # presets with untested settings


def option(default, help, low=None, high=None, choices=None, group=None):
    """Describe one option.  group: the title of the group of --help that begins here."""
    return field(default=default, metadata=dict(help=help, low=low, high=high, choices=choices, group=group))


@dataclass(frozen=True)
class Config:
    """All options of a run.  With prealign_steps and code_switch 0, prealign is the baseline, bit for bit."""
    method: str = option("baseline", "what to train: baseline, or prealign, forget, align, joined by +",
                         choices=METHODS, group="experiment")
    preset: str = option("tiny", "size of model and training; flags override it", choices=tuple(PRESETS))
    seed: int = option(0, "seed of the world, the initial weights and the batches", 0, 2**31)
    from_run: str = option("", "folder of a pretrained run to start from, with its options")
    pretrained: str = option("", "folder of a public checkpoint to start from: config.json and weights")

    data: str = option("", "folder made by data/prepare.py, instead of the built-in world", group="data")
    text: str = option("", "your own English, one document per line, instead of the world's stories")
    languages: str = option("en,clone", "English, then clone, clone2, reversed, shuffled-K or the folder's")
    words: int = option(1_500_000, "English words of training text to generate", 1000, 2**50)
    clone_share: float = option(0.1, "share of all languages but English in text and batches", 0.001, 0.95)
    vocab_size: int = option(1280, "byte-level BPE tokens per language", 257, 2**20)

    n_layer: int = option(4, "transformer blocks", 1, 999, group="model")
    n_head: int = option(4, "attention heads per block", 1, 999)
    d_model: int = option(128, "width", 2, 2**16)
    context_len: int = option(128, "tokens per sequence", 8, 2**20)

    steps: int = option(2000, "steps of text, word alignment included", 0, MANY, group="training")
    batch_size: int = option(8, "sequences per step, twice as many in adaptation", 1, 2**20)
    lr: float = option(3e-3, "peak learning rate of the matrices; cosine decay to a tenth", 1e-9, 1e3)
    embed_lr: float = option(3.0, "learning rate of embedding and head, as a multiple of lr", 1e-6, 1e6)
    weight_decay: float = option(0.1, "weight decay of the matrices", 0, 1e3)
    embed_decay: bool = option(False, "decay embedding and head, too, as in PreAlign's official code")
    clip: float = option(1.0, "maximum norm of the gradient", 1e-9, 1e9)

    prealign_steps: int = option(300, "steps of word alignment; 0: no alignment", 0, MANY, group="PreAlign")
    prealign_words: int = option(128, "dictionary entries per batch; their words are negatives", 2, 2**24)
    prealign_rows: int = option(4, "sequences of text per alignment step, for the LM loss", 0, 2**20)
    prealign_weight: float = option(0.5, "weight of the alignment loss (alpha); the LM loss has 1", 0, 1e6)
    prealign_lr: float = option(2e-3, "peak learning rate of word alignment", 1e-9, 1e3)
    prealign_every: int = option(0, "pretraining steps between alignment batches (ours); 0: none", 0, MANY)
    prealign_from: float = option(0.0, "share of pretraining before the first of these batches", 0, 1)
    prealign_until: float = option(1.0, "share of pretraining after which none follows", 0, 1)
    code_switch: float = option(0.05, "probability that an English dictionary word is translated", 0, 1)
    code_switch_vanilla: bool = option(False, "ablation: replaced words are prediction targets, too")
    code_switch_values: bool = option(True, "translate also words that answer knowledge questions")
    dictionary: str = option("gold", "shuffled: a control, all wrong", choices=("gold", "shuffled"))
    dictionary_coverage: float = option(1.0, "share of the dictionary; the rest is held out", 0.05, 1)

    reset_every: int = option(200, "steps between resets (k); 0: none", 0, MANY, group="active forgetting")
    reset_from: float = option(0.0, "share of pretraining before the first reset", 0, 1)
    reset_until: float = option(0.5, "share of pretraining after which no reset happens", 0, 1)
    reset_blend: float = option(1.0, "how far a row moves towards fresh noise; 1: all the way", 0, 1)
    reset_optimizer: bool = option(True, "also reset the optimizer state and the learning rate of the rows")
    reset_clip: float = option(0.5, "maximum norm of the gradient in pretraining with resets", 1e-9, 1e9)

    adapt_to: str = option("", "language to add, or none; default with forget: clone2", group="new language")
    adapt_tokens: int = option(10_000, "tokens of its training text", 1000, MANY)
    adapt_steps: int = option(100, "steps of training its rows", 1, MANY)
    adapt_replay: float = option(0.25, "share of the old languages in each batch", 0, 0.7)
    adapt_lr: float = option(1e-2, "peak learning rate of its rows", 1e-9, 1e3)
    adapt_rows: str = option("rows", "new rows; head: + its old rows; all", choices=("rows", "head", "all"))
    adapt_init: str = option("noise", "start of new rows", choices=("noise", "scaled", "mean", "subwords"))
    adapt_body: str = option("frozen", "training of the body", choices=("frozen", "adapters", "whole"))
    body_from: str = option("", "folder of a run with --instruct_steps whose body replaces this one")
    instruct_steps: int = option(-1, "steps of exercises; -1: 100 after a language of the world", -1, MANY)

    afp_steps: int = option(500, "steps of sentence alignment after pretraining", 1, MANY, group="AFP")
    afp_lr: float = option(2e-3, "peak learning rate of sentence alignment", 1e-9, 1e3)
    afp_samples: int = option(5000, "number of translated training samples", 2, 10**6)
    afp_batch: int = option(32, "samples per step, each other's negatives in MCL", 2, 2**20)
    afp_rows: int = option(8, "sequences of plain text per step (ours); 0: none, as published", 0, 2**20)
    afp_clone_share: float = option(0.2, "share of all languages but English in that text", 0, 1)
    afp_mcl_weight: float = option(1.0, "weight of multilingual contrastive learning (MCL)", 0, 1e6)
    afp_mcl_layer: int = option(1, "level of the states in MCL; 0: embeddings, 1: the first block", 0, 999)
    afp_mcl_pool: str = option("last", "states that are pooled in MCL", choices=("last", "mean"))
    afp_mcl_symmetric: bool = option(True, "translations are anchors in MCL, too")
    afp_cit_weight: float = option(1.5, "weight of cross-lingual instruction tuning (CIT)", 0, 1e6)
    afp_cross: float = option(0.5, "probability that question and answer differ in language; 0: MIT", 0, 1)
    afp_translations: float = option(0.5, "share of sentences to translate among the samples", 0, 1)
    afp_answer_only: bool = option(True, "only answers carry loss; otherwise questions do, too (FT)")
    afp_word_weight: float = option(0.0, "weight of PreAlign's word alignment in this stage (ours)", 0, 1e6)
    afp_leave_out: str = option("", "languages and task families that this stage leaves out")
    afp_lora: int = option(0, "rank of the adapters that this stage trains; 0: all weights", 0, 2**12)

    eval_items: int = option(200, "test items per task and difficulty", 1, 10**6, group="evaluation")
    shots: str = option("0", "numbers of demonstrations in task prompts, such as 0,5")
    generate_items: int = option(-1, "items of generated text; -1: 50 with align or pretrained", -1, 10**4)
    transfer_steps: int = option(300, "fine-tuning steps for zero-shot transfer; 0: not measured", 0, MANY)

    log_every: int = option(100, "steps between log rows and checkpoints", 1, MANY, group="machine")
    log_items: int = option(0, "test items per task, asked about ten times in pretraining", 0, 10**6)
    accumulate: int = option(1, "parts of an LM batch, to save memory", 1, 2**20)
    device: str = option("auto", "where to run", choices=("auto", "cpu", "cuda"))
    dtype: str = option("auto", "number type in training", choices=("auto", "float32", "bfloat16"))
    compile: bool = option(False, "torch.compile the blocks and the LM loss in training")

    def __post_init__(self):
        for f in fields(self):
            check_value(f, getattr(self, f.name))
        names, new = self.languages.split(","), self.new_language
        others = {*names[1:], new} - {""}
        families = () if self.data else WORLD_TASKS            # folders have no exercises of these
        left_out = set(self.afp_leave_out.split(",")) - {"", *families}
        shots_ok = re.fullmatch(r"[0-9]{1,2}(,[0-9]{1,2})*", self.shots)
        refuse(names[0] != "en" or len(names) < 2 or len(set(names) - {""}) < len(names),
               f"--languages {self.languages}: en first, then at least one other, each once")
        refuse(new in names, f"--adapt_to {new}: a language of pretraining (--languages)")
        refuse(self.adapt_init == "subwords" and not self.data, "--adapt_init subwords needs --data")
        refuse(not shots_ok or max(map(int, self.shots.split(","))) > MOST_SHOTS,
               f"--shots {self.shots}: numbers separated by commas, up to {MOST_SHOTS}, as in 0,5")
        refuse(not left_out < others,
               f"--afp_leave_out {self.afp_leave_out}: leave out some of {', '.join(sorted(others))}, not all"
               + (f"; or tasks: {', '.join(families)}" if families else ""))
        refuse(self.afp_mcl_layer > self.n_layer,
               f"--afp_mcl_layer {self.afp_mcl_layer}: the model has --n_layer {self.n_layer} blocks")
        refuse(self.aligns_sentences and self.afp_lora and self.afp_mcl_weight and not self.afp_mcl_layer,
               "--afp_mcl_layer 0: with --afp_lora the embedding does not learn; choose a block")
        refuse(self.body_from and not new, "--body_from needs a new language: add --adapt_to")
        refuse(self.body_from and self.adapt_body != "frozen", "--body_from does not go with --adapt_body")
        refuse(self.prealign_every and self.prealign_from >= self.prealign_until,
               f"--prealign_from {self.prealign_from} is not below --prealign_until {self.prealign_until}")
        refuse(self.d_model % (2 * self.n_head), f"--d_model: no even multiple of --n_head {self.n_head}")
        refuse(self.pretrain_steps < (not self.pretrained),
               f"--steps {self.steps} leaves nothing to pretrain on: raise it, or lower --prealign_steps")
        refuse(self.pretrained and not self.data,
               "--pretrained needs --data: a folder prepared with python data/prepare.py --tokenizer DIR")
        refuse(self.pretrained and "forget" in self.methods, f"--method {self.method}: forgetting resets the "
               "embeddings in pretraining, which is over in --pretrained")
        if not self.data:
            for name in [*names[1:], new] if new else names[1:]:
                language_order(name)                           # raises UserError for an unknown name

    @property
    def methods(self):
        return set(self.method.split("+"))

    @property
    def model_name(self):
        """The name of the checkpoint that the run starts from, or of the preset."""
        return Path(self.pretrained).resolve().name if self.pretrained else self.preset

    @property
    def new_language(self):
        """The language added after pretraining, or ""."""
        default = "clone2" if "forget" in self.methods and not self.data else ""
        return "" if self.adapt_to == "none" else self.adapt_to or default

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
    def stages(self):
        """The stages of this run in order, and their steps: -> {stage: steps}, without stages of no steps."""
        before = not self.from_run                             # that run has been through the first two
        exercises = 100 if self.new_language and not self.data else 0
        stages = {
            "align words": self.prealign_steps if before and "prealign" in self.methods else 0,
            "pretrain": self.pretrain_steps if before else 0,
            "adapt": self.adapt_steps if self.new_language else 0,
            "align sentences": self.afp_steps if self.aligns_sentences else 0,
            "instruct": exercises if self.instruct_steps < 0 else self.instruct_steps,
        }
        return {stage: steps for stage, steps in stages.items() if steps}

    @property
    def written_items(self):
        """The number of items per measure of generated text, with the default resolved."""
        default = 50 if "align" in self.methods or self.pretrained else 0
        return default if self.generate_items < 0 else self.generate_items


GROUPS, group = {}, ""                                         # {title of a group: names of its options}
for f in fields(Config):
    group = f.metadata["group"] or group
    GROUPS.setdefault(group, []).append(f.name)
# options that do not change what is learned: a run may resume, or be evaluated, with other values
EVALUATION = GROUPS["evaluation"]
NEUTRAL = {*EVALUATION, *GROUPS["machine"]} - {"dtype"}
# options that --from_run takes from the run, because its pretraining is over
PRETRAINING = ("preset", "seed", "pretrained", "steps", *GROUPS["data"], *GROUPS["model"],
               *GROUPS["PreAlign"], *GROUPS["active forgetting"])
# but these serve a late alignment of words, too
WORDS = ("prealign_words", "dictionary", "dictionary_coverage")


def check_value(f, value):
    """Raise UserError if a value does not suit a field of Config."""
    low, high, choices = (f.metadata[key] for key in ("low", "high", "choices"))
    refuse(type(value) not in ((int, float) if f.type is float else (f.type,)),  # JSON may hold 1 for 1.0
           f"--{f.name} {value!r:.60} is not of type {f.type.__name__}")
    if choices and value not in choices:
        hint = f"; did you mean {value.lower()}?" if value.lower() in choices else ""
        raise UserError(f"--{f.name}: invalid choice: {value!r:.60} (choose from {', '.join(choices)}){hint}")
    refuse(low is not None and not low <= value <= high,
           f"--{f.name} {value} is out of range: {low} to {high}")


# --- the command line ---------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (--help lists the options)")


# --help shows these options, and --help all shows every one
COMMON = ("method", "preset", "seed", "from_run", "pretrained", "data", "text", "languages", "steps", "lr",
          "device")
METAVARS = dict(method="METHOD", from_run="RUN", pretrained="DIR", body_from="RUN", data="DIR", text="FILE",
                adapt_to="NAME", languages="NAME,...", afp_leave_out="NAME,...", shots="K,...")


def make_parser(description, every=True):
    """every: show all options in the help, not only COMMON."""
    p = Parser(prog="train.py", usage="python train.py --method METHOD [options]", description=description,
               allow_abbrev=False, add_help=False, formatter_class=argparse.RawDescriptionHelpFormatter,
               epilog="" if every else "--help all shows the other options.")
    add = p.add_argument_group("commands and places").add_argument
    add("-h", "--help", nargs="?", const="common", choices=("common", "all"), metavar="all",
        help="show this help, or all options")
    add("--out", default="", metavar="DIR", help="run folder [runs/<method>-<preset>-<data>-s<seed>]")
    add("--cache", default="data/cache", metavar="DIR", help="where generated text is kept [data/cache]")
    add("--fresh", action="store_true", help="delete the files of the run and train again")
    add("--eval_only", action="store_true", help="evaluate a finished run again")
    add("--sample", metavar="TEXT", help="continue TEXT with the trained model, in every language")
    add("--export", metavar="DIR", help="write the trained model as a public checkpoint, see --pretrained")
    add("--overfit", action="store_true", help="check: train on one batch until its loss is below 0.1")
    add("--report", nargs="+", metavar="RUN", help="compare finished runs: table and curves")
    add("--reproduce", choices=STUDIES, help="run the systems of a study over seeds and judge its claims")
    add("--seeds", type=int, metavar="N", help=f"with --reproduce: number of seeds, from --seed on [{SEEDS}]")
    for f in fields(Config):
        if f.metadata["group"]:
            add = p.add_argument_group(f.metadata["group"]).add_argument
        choices = "{" + ",".join(f.metadata["choices"] or ()) + "}"              # Config checks them
        metavar = METAVARS.get(f.name, choices if f.type is str else {int: "N", float: "X"}.get(f.type))
        kind = dict(type=f.type, metavar=metavar)
        if f.type is bool:
            kind = dict(action=argparse.BooleanOptionalAction)
        text = f"{f.metadata['help']} [{f.default}]" if f.default != "" else f.metadata["help"]
        shown = every or f.name in COMMON
        add(f"--{f.name}", default=argparse.SUPPRESS, help=text if shown else argparse.SUPPRESS, **kind)
    return p


def parse_args(argv, description=""):
    """Command line -> (Config, modes).  modes holds the other flags; modes.given: {option: value} as given.

    --sample, --export and --eval_only take the options of the run in --out, or in the default folder.
    """
    for word in argv:
        refuse(re.search("[\0\ud800-\udfff]", word), f"{word!r:.60} is not UTF-8 text")
    parser = make_parser(description)
    modes, unknown = parser.parse_known_args(argv)
    if unknown:
        word = unknown[0].split("=")[0]
        near = difflib.get_close_matches(word, parser._option_string_actions, 1, cutoff=0.88)
        hint = f": did you mean {near[0]}?" if near else ""
        if word.lower() in METHODS:
            hint = f": use --method {word.lower()}"
        parser.error(f"unknown argument {word:.60}{hint}")
    if modes.help:
        print(make_parser(description, modes.help == "all").format_help())
        sys.exit()
    check_commands(modes)
    given = modes.given = {}
    for f in fields(Config):
        if f.name in modes:
            given[f.name] = vars(modes).pop(f.name)
            check_value(f, given[f.name])
    paths = [name for name in ("data", "text", "from_run", "pretrained", "body_from") if given.get(name)]
    given |= {name: str(Path(given[name])) for name in paths}  # folder/ is the same as folder
    if modes.sample is None and modes.export is None and not modes.eval_only:
        return resolve(given), modes
    out = Path(modes.out) if modes.out else default_out(resolve(given))
    if not (out / "config.json").exists():
        raise UserError(f"{out} holds no run: train first with python train.py "
                        f"{flags_of(resolve(given), out)}")
    return Config(**(asdict(load_config(out)) | given)), modes   # Run.check_config compares what is given


def check_commands(modes):
    """Raise UserError for commands that do not go together.  Makes --seeds the range of seeds of a study."""
    commands = ["fresh", "eval_only", "sample", "export", "overfit", "report", "reproduce"]
    some = [f"--{name}" for name in commands if getattr(modes, name) not in (None, False)]
    refuse(len(some) > 1, f"{' and '.join(some)} do not go together: give one of them")
    seeds_given = modes.seeds is not None
    refuse(seeds_given and not modes.reproduce, "--seeds goes with --reproduce; a single run has --seed")
    refuse(modes.reproduce and modes.out, "--reproduce trains into runs/: give no --out")
    refuse(seeds_given and modes.seeds < 1, f"--seeds {modes.seeds} is out of range: at least 1")
    first, default = (modes.seed, 1) if "seed" in modes else (0, SEEDS)
    modes.seeds = range(first, first + (modes.seeds or default))


def resolve(given):
    """The Config of the given options: they override the run to start from, or the preset and the folder."""
    if not given.get("from_run"):
        known = asdict(Config()) | PRESETS[given.get("preset", "tiny")] | given
        if known["data"]:
            known |= options_of_folder(known, given)
        if known["pretrained"]:
            known |= options_of_checkpoint(known, given)
        return Config(**(known | given))
    folder, known = given["from_run"], asdict(load_config(given["from_run"]))
    before, wanted = (set(name.split("+")) - {"baseline", "align"}
                      for name in (known["method"], given.get("method", known["method"])))
    if before != wanted:
        raise UserError(f"--from_run {folder} was trained with --method {known['method']}: only +align can "
                        f"be added, not --method {given['method']}")
    free = () if "prealign" in before else WORDS
    for name in PRETRAINING:
        if name not in free and given.get(name, known[name]) != known[name]:
            there = known[name] if known[name] != "" else "(none)"
            raise UserError(f"--{name} {given[name]}: --from_run takes data, model and pretraining from "
                            f"{folder}, which has --{name} {there}")
    return Config(**(known | given))


def options_of_checkpoint(options, given):
    """The options that a public checkpoint sets: -> {option: value}.  Arguments as in options_of_folder.

    Only PreAlign reads text; other methods begin after pretraining.  For them, --steps continues it.
    """
    folder = options["pretrained"]
    for name in ("preset", "n_layer", "n_head", "d_model"):
        refuse(name in given, f"--{name} does not go with --pretrained: {folder}/config.json sets the model")
    sizes, _ = read_config(folder, options["context_len"])
    refuse(sizes.context_len < given.get("context_len", 0),
           f"--context_len {options['context_len']}: {folder} reads {sizes.context_len} tokens")
    return PRETRAINED | dict(n_layer=sizes.n_layer, n_head=sizes.n_head, d_model=sizes.d_model,
                             context_len=sizes.context_len,
                             eval_items=min(PRETRAINED["eval_items"], options["eval_items"]),
                             steps=300 if "prealign" in options["method"] else 0)


def options_of_folder(options, given):
    """The options that a prepared folder sets, of which all text is read EPOCHS times: -> {option: value}.

    options: all options as they are without the folder; given: those of the command line
    """
    folder = options["data"]
    for name in ("text", "words", "vocab_size"):
        refuse(name in given,
               f"--{name} does not go with --data: the text and tokenizer of {folder} are fixed")
    meta = read_meta(folder)
    languages = given.get("languages", ",".join(meta["languages"])).split(",")
    refuse(not set(languages) <= set(meta["languages"]),
           f"--languages {','.join(languages)}: {folder} has {','.join(meta['languages'])}")
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

def load_config(folder):
    """The Config of the run in a folder; options that are newer than the run have their defaults."""
    path = Path(folder) / "config.json"
    content = read_json(path, TRAIN_AGAIN)
    refuse(content is None, f"{path} is missing: give the folder of a run")
    options = {name: value for name, value in content.items() if name not in ("data_used", "dtype_used")}
    try:
        return Config(**options)
    except (UserError, TypeError) as error:                    # TypeError: an option that is not known here
        raise UserError(f"{path} cannot be used: {error!s:.200}; {TRAIN_AGAIN}") from None


def data_name(cfg):
    """The name of a run's data in the name of its folder."""
    if cfg.data:
        return Path(cfg.data).resolve().name
    return Path(cfg.text).stem if cfg.text else "synthetic"


def default_out(cfg):
    """The run folder without --out: -> Path."""
    adapted = f"-to-{cfg.adapt_to}" if cfg.adapt_to else ""
    return Path(f"runs/{cfg.method}{adapted}-{cfg.model_name}-{data_name(cfg)}-s{cfg.seed}")


def flags_of(cfg, out):
    """The flags that give this Config and this run folder again: -> str."""
    model = "pretrained" if cfg.pretrained else "preset"
    start = {name: getattr(cfg, name) for name in ("method", model, "from_run", "data")}
    standard, flags = resolve(start), []
    for name, value in asdict(cfg).items():
        if value != getattr(standard, name) or start.get(name):
            if isinstance(value, bool):
                flags.append(f"--{name}" if value else f"--no-{name}")
            else:
                flags.append(f"--{name} {quote(str(value))}")
    if Path(out) != default_out(cfg):
        flags.append(f"--out {quote(str(out))}")
    return " ".join(flags)
