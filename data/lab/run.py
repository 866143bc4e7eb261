"""A run that is set up for training: its options with folder, data, model and device."""
import copy
import json
from contextlib import nullcontext
from dataclasses import asdict

import numpy as np
import torch

from data.corpus import Corpus
from data.files import UserError
from data.lab.options import NEUTRAL, flags_of, load_config
from data.lab.processes import init_distributed
from data.lab.runs import RunFolder, device_of, load_checkpoint
from data.world import build
from model import GPT, ModelConfig, choose_dtype, lm_loss


class Run(RunFolder):
    """A set-up run.  enter() opens its folder, then each stage resumes from `checkpoint` or starts.

    corpus, model:    the data and the model; a new language changes both
    dictionary:       words that training may use, None if the data has no dictionary; held_out: the others
    train_dictionary: the words that PreAlign learns; in the control they have wrong translations
    tuned_body:       weights of the body that --body_from names, or None
    checkpoint:       what enter() found, None for a new run; it never changes
    seconds, stop:    training time so far; the number of a signal that asked to stop, or 0
    load_only:        the run is sampled or evaluated, not trained
    """

    def __init__(self, cfg, out, cache="data/cache", quiet=False, fresh=False):
        """fresh: ignore what the folder holds."""
        self.device = device_of(cfg.device)
        self.processes = init_distributed(self.device)
        super().__init__(out, writer=self.processes.rank == 0)
        self.cfg, self.quiet, self.languages = cfg, quiet or not self.writer, cfg.languages.split(",")
        self.checkpoint, self.seconds, self.stop, self.load_only = None, 0.0, 0, False
        self.dtype = self._dtype(fresh)
        self.corpus = open_corpus(cfg, cache)
        self.corpus.check(cfg.context_len + 1)
        self.digest = self.corpus.digest
        self.dictionary, self.held_out, self.train_dictionary = dictionaries(self.corpus, cfg)
        config = ModelConfig(self.corpus.vocab_size, cfg.n_layer, cfg.n_head, cfg.d_model, cfg.context_len)
        self.model = GPT(config).initialise(cfg.seed).to(self.device)
        if cfg.from_run and (fresh or not self.has_checkpoint()):
            self.model.load_state_dict(weights_of("--from_run", cfg.from_run, "pretrain", self.model,
                                                  self.digest, cfg.pretrain_steps))
        self.tuned_body = None
        if cfg.body_from:
            self.tuned_body = weights_of("--body_from", cfg.body_from, "instruct", self.model, self.digest,
                                         names=("body.", "final_norm."))
        self.lm_loss = torch.compile(lm_loss) if cfg.compile else lm_loss
        for block in self.model.body if cfg.compile else ():   # one compilation serves all blocks and stages
            block.compile()

    def _dtype(self, fresh):
        """The number type: the option, else that of the run in the folder or of from_run, else the best."""
        folders = [] if fresh else [self]
        if self.cfg.from_run:
            folders.append(RunFolder(self.cfg.from_run))
        used = [(folder.read("config.json") or {}).get("dtype_used") for folder in folders]
        if self.cfg.dtype != "auto":
            return self.cfg.dtype
        return next(filter(None, used), None) or choose_dtype(self.device)

    # --- the folder -----------------------------------------------------------------------------------------

    def check_config(self):
        """Raise UserError, naming the differences, if the folder holds a run of another configuration."""
        found = self.read("config.json")
        if found is None:
            return
        there = asdict(load_config(self.out)) | dict(data_used=found.get("data_used"))
        here = asdict(self.cfg) | dict(data_used=self.digest)
        different = [f"{name} {there[name]} there, {value} here" for name, value in here.items()
                     if name not in NEUTRAL and there[name] != value]
        if different:
            raise UserError(f"{self.out} holds a run of another configuration ({'; '.join(different)}): "
                            "choose another --out, or train again with --fresh")

    def save_config(self):
        self.write("config.json", json.dumps(
            asdict(self.cfg) | dict(data_used=self.digest, dtype_used=self.dtype), indent=1))

    def enter(self, load_only=False):
        """Create the run in the folder, or load its last checkpoint.

        load_only: change nothing in the folder.  Raises UserError for another configuration, for damaged
        checkpoints, and with load_only if there is no checkpoint
        """
        self.load_only = load_only
        if load_only and not self.has_checkpoint():
            raise UserError(f"{self.out} holds no checkpoint: train first with python train.py "
                            f"{flags_of(self.cfg, self.out)}")
        self.check_config()
        if not load_only:
            self.out.mkdir(parents=True, exist_ok=True)
            self.save_config()
        self.processes.barrier()
        self.checkpoint = self.last()
        if self.checkpoint and self.checkpoint["stage"] not in self.cfg.stages:
            raise UserError(f"the checkpoint in {self.out} is of the stage {self.checkpoint['stage']:.60}, "
                            "which this run does not have: train again with --fresh")
        if not load_only:
            self.cut_log(self.checkpoint)
        if self.checkpoint:
            self.seconds = self.checkpoint["seconds"]

    # --- resuming -------------------------------------------------------------------------------------------

    def _stages_after(self, stage):
        """How many stages after this one the checkpoint is; negative if it is before, or if there is none."""
        stages = list(self.cfg.stages)
        return stages.index(self.checkpoint["stage"]) - stages.index(stage) if self.checkpoint else -1

    def is_done(self, stage):
        """Whether the checkpoint is of a later stage."""
        return self._stages_after(stage) > 0

    def has_started(self, stage):
        """Whether the checkpoint is of this stage or of a later one."""
        return self._stages_after(stage) >= 0

    def restore(self, stage, model, optimizer):
        """Load weights and optimizer state if the checkpoint is of this stage.

        -> (step to continue with, sums of the values since the last log row), (0, {}) for a new stage
        Raises UserError if the checkpoint is of another model.
        """
        checkpoint = self.checkpoint
        if not checkpoint or checkpoint["stage"] != stage:
            return 0, {}
        try:
            model.load_state_dict(checkpoint["model"])
            # the optimizer would keep the tensors, and change them
            optimizer.load_state_dict(copy.deepcopy(checkpoint["optimizer"]))
            fits = all(value.shape in ((), p.shape)
                       for p, state in optimizer.state.items() for value in state.values())
        except Exception:                                      # of many kinds, most with many lines
            fits = False
        if not fits:
            raise UserError(f"the checkpoint in {self.out} is of another model than its config.json: train "
                            "again with --fresh")
        return checkpoint["step"], {name: (total.to(self.device), n)
                                    for name, (total, n) in checkpoint["sums"].items()}

    def check_finished(self):
        """Raise UserError if the checkpoint is not of the last step of the last stage."""
        stage, steps = list(self.cfg.stages.items())[-1]
        if (self.checkpoint["stage"], self.checkpoint["step"]) != (stage, steps):
            raise UserError(f"{self.out} is not finished: resume with python train.py "
                            f"{flags_of(self.cfg, self.out)}")

    # --- AFP ------------------------------------------------------------------------------------------------

    def aligned_languages(self):
        """Indices of the languages that AFP aligns with English."""
        left_out = self.cfg.afp_leave_out.split(",")
        return [i for i, name in enumerate(self.corpus.languages) if i and name not in left_out]

    def training_samples(self):
        """The samples that AFP learns from.  Raises UserError if the folder has too few."""
        languages = [self.corpus.languages[i] for i in self.aligned_languages()]
        return self.corpus.training_samples(self.cfg.afp_samples, self.cfg.afp_translations, languages)

    # --- computing ------------------------------------------------------------------------------------------

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def eager(self):
        """A context without compilation: evaluation has many shapes, each of which would be compiled."""
        return torch.compiler.set_stance("force_eager") if self.cfg.compile else nullcontext()

    def tensor(self, array):
        """A numpy array as a tensor on the device."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()                       # the copy need not be waited for
        return tensor.to(self.device, non_blocking=True)


def open_corpus(cfg, cache):
    """The data of a run: -> Corpus.  The built-in world is generated below `cache` if it is not there."""
    languages = cfg.languages.split(",")
    if cfg.data:
        return Corpus(cfg.data, languages)
    folder = build.load(cache, cfg.seed, languages, cfg.words, cfg.clone_share, cfg.vocab_size, cfg.text)
    if cfg.new_language:
        build.add_language(folder, cfg.new_language, cfg.adapt_tokens)
    return Corpus(folder)


def dictionaries(corpus, cfg):
    """-> (Dictionary to train with, Dictionary held out or None, Dictionary of PreAlign).

    All are None if the data has no dictionary.  Raises UserError if the method needs one.
    """
    whole = corpus.dictionary()
    if whole is None:
        late = cfg.aligns_sentences and cfg.afp_word_weight
        if late or "prealign" in cfg.methods:
            flags = f"--method {cfg.method}" + (f" --afp_word_weight {cfg.afp_word_weight}" if late else "")
            raise UserError(f"{flags}: {corpus.folder} has no dictionary; prepare it with --dictionary or "
                            "--pairs")
        return None, None, None
    train, held_out = whole.split(cfg.dictionary_coverage, cfg.seed)
    return train, held_out, train.shuffled(cfg.seed) if cfg.dictionary == "shuffled" else train


def weights_of(flag, folder, stage, model, digest, steps=None, names=""):
    """The weights of another run whose last stage is finished.  Raises UserError, which names the flag.

    steps:  the number of steps of that stage, if it is known
    model:  the model that they must fit, in the parameters whose names begin with `names`
    digest: of the data that the run must have been trained on
    """
    run = RunFolder(folder)
    try:
        state = load_checkpoint(run.out / "last.pt", next(model.parameters()).device)
    except UserError as error:
        raise UserError(f"{flag}: {error}; give the folder of a finished run") from None
    if state["stage"] != stage or state["step"] != (steps or state["step"]):
        wanted = dict(pretrain="without align and with --adapt_to none", instruct="with --instruct_steps")
        raise UserError(f"{flag} {folder}: its last checkpoint is step {state['step']} of "
                        f"{state['stage']:.60}; give a finished run {wanted[stage]}")
    if (run.read("config.json") or {}).get("data_used", digest) != digest:
        raise UserError(f"{flag} {folder}: it was trained on other data than there is now; train it again")

    def shapes(weights):
        return {name: p.shape for name, p in weights.items() if name.startswith(names)}

    if shapes(state["model"]) != shapes(model.state_dict()):
        raise UserError(f"{flag} {folder}: its model has another shape; give this run the same data, "
                        "--n_layer, --d_model and so on")
    return state["model"]
