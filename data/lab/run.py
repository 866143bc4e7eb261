"""A run that is set up for training: its options with folder, data, model and device."""
import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from data.corpus import Corpus
from data.files import UserError, refuse
from data.folder import checksum
from data.lab.options import EVALUATION, NEUTRAL, TRAIN_AGAIN, Config, flags_of, load_config
from data.lab.processes import choose_dtype, init_distributed
from data.lab.runs import RunFolder, device_of, load_checkpoint
from data.pretrained import load_pretrained
from data.world import build
from model import GPT, ModelConfig, lm_loss


def identity(cfg, data_used):
    """The options that define a run, all but NEUTRAL, and the digest of its data."""
    return {name: value for name, value in asdict(cfg).items() if name not in NEUTRAL} | dict(
        data_used=data_used)


def differences(there, here):
    """Two identities -> their differences as text.  Options that are newer than `there` had their default."""
    there = asdict(Config()) | there
    return "; ".join(f"{name} {there.get(name)!s:.60} there, {value} here" for name, value in here.items()
                     if there.get(name) != value)


class Run(RunFolder):
    """A set-up run.  enter() opens its folder, then each stage resumes from `checkpoint` or starts.

    corpus, model:    the data and the model; a new language changes both
    dictionary:       words that training may use, None if the data has no dictionary; held_out: the others
    train_dictionary: the words that PreAlign learns; in the control they have wrong translations
    switch_table:     {word: translations} of the words that code-switching may replace
    tuned_body:       weights of the body that --body_from names, or None
    checkpoint:       what enter() found, None for a new run; restore() keeps its stage and step only
    seconds, stop:    training time so far; the number of a signal that asked to stop, or 0
    load_only:        the run is sampled or evaluated, not trained
    """

    def __init__(self, cfg, out, cache="data/cache", quiet=False, fresh=False):
        """fresh: ignore what the folder holds."""
        self.device = device_of(cfg.device)
        torch.backends.cuda.enable_cudnn_sdp(False)            # it makes a plan for each shape of a batch
        self.processes = init_distributed(self.device)
        super().__init__(out, writer=self.processes.rank == 0)
        self.cfg, self.quiet, self.languages = cfg, quiet or not self.writer, cfg.languages.split(",")
        self.checkpoint, self.seconds, self.stop, self.load_only = None, 0.0, 0, False
        self.dtype = self._dtype(fresh)
        self.corpus = self._open_corpus(cache)
        self.corpus.check(cfg.context_len + 1)
        self.digest = self.corpus.digest
        self.dictionary = self.held_out = self.train_dictionary = self.switch_table = None
        if whole := self.corpus.dictionary():
            self.dictionary, self.held_out = whole.split(cfg.dictionary_coverage, cfg.seed)
            longest = max(len(word) for entry in whole.entries for word in (entry[0], *entry[1]))
            refuse(longest > cfg.context_len - self.corpus.n_prefix,
                   f"--context_len {cfg.context_len}: the dictionary has a word of {longest} tokens")
            wrong = cfg.dictionary == "shuffled"
            self.train_dictionary = self.dictionary.shuffled(cfg.seed) if wrong else self.dictionary
            values = set() if cfg.code_switch_values else self.corpus.values()
            self.switch_table = {word: translations for word, translations in self.train_dictionary.entries
                                 if word not in values}
        elif "prealign" in cfg.methods or cfg.aligns_sentences and cfg.afp_word_weight:
            flags = f"--method {cfg.method}" if "prealign" in cfg.methods else "--afp_word_weight"
            raise UserError(f"{flags}: {cfg.data} has no dictionary; prepare it with --dictionary or --pairs")
        self.model = self._first_model().to(self.device)
        if cfg.from_run and (fresh or not (self.has_checkpoint() or self.read("summary.json"))):
            self.model.load_state_dict(self._weights_of("from_run", "pretrain"))
        self.tuned_body = self._weights_of("body_from", "instruct") if cfg.body_from else None
        self.lm_loss = torch.compile(lm_loss) if cfg.compile else lm_loss
        for block in self.model.body if cfg.compile else ():   # one compilation serves all blocks and stages
            block.compile()

    def _open_corpus(self, cache):
        """The data: -> Corpus.  The built-in world is generated below `cache` if it is not there."""
        cfg, names = self.cfg, self.languages
        if cfg.data:
            return Corpus(cfg.data, names)
        folder = build.load(cache, cfg.seed, names, cfg.words, cfg.clone_share, cfg.vocab_size, cfg.text)
        if cfg.new_language:
            build.add_language(folder, cfg.new_language, cfg.adapt_tokens)
        return Corpus(folder)

    def _first_model(self):
        """A model with random weights, or the public checkpoint: -> GPT on the CPU."""
        cfg, corpus = self.cfg, self.corpus
        if not cfg.pretrained:
            config = ModelConfig(corpus.vocab_size, cfg.n_layer, cfg.n_head, cfg.d_model, cfg.context_len)
            return GPT(config).initialise(cfg.seed)
        tokenizer = Path(cfg.pretrained) / "tokenizer.json"
        refuse(not tokenizer.is_file() or checksum(tokenizer) != corpus.meta.get("checkpoint"),
               f"{cfg.data} was not prepared with the tokenizer of {cfg.pretrained}: prepare it with "
               f"--tokenizer {cfg.pretrained}")
        return load_pretrained(cfg.pretrained, cfg.context_len)[0]

    def _dtype(self, fresh):
        """The number type: the option, else that of the run in the folder or of from_run, else the best."""
        if self.cfg.dtype != "auto":
            return self.cfg.dtype
        folders = [RunFolder(self.cfg.from_run)] if self.cfg.from_run else []
        for folder in folders if fresh else [self, *folders]:
            if used := (folder.read("config.json") or {}).get("dtype_used"):
                return used
        return choose_dtype(self.device)

    def _weights_of(self, flag, stage):
        """The weights of the finished run that a flag names."""
        run = RunFolder(getattr(self.cfg, flag))
        where, state = f"--{flag} {run.out}", load_checkpoint(run.out / "last.pt")
        cfg, data_used = load_config(run.out), run.read("config.json").get("data_used", self.digest)
        different = differences(state["run"], identity(cfg, data_used))
        refuse(different, f"{where}: its last.pt is of another run ({different}): train it again")
        how = dict(from_run="without align and with --adapt_to none", body_from="with --instruct_steps")
        refuse(state["stage"] != stage or state["step"] != cfg.stages.get(stage),
               f"{where}: its last checkpoint is step {state['step']} of {state['stage']:.60}; "
               f"give a finished run {how[flag]}")
        refuse(data_used != self.digest,
               f"{where}: it was trained on other data than there is now; train it again")
        names = ("body.", "final_norm.") if flag == "body_from" else ""          # all names begin with ""
        shapes, needed = ({name: p.shape for name, p in weights.items() if name.startswith(names)}
                          for weights in (state["model"], self.model.state_dict()))
        refuse(shapes != needed, f"{where}: its model has another shape; give this run the same data, "
               "--n_layer, --d_model and so on")
        return state["model"]

    def check(self, fresh=False):
        """Raise UserError, before anything is deleted or trained, for options that cannot be carried out."""
        cfg, corpus = self.cfg, self.corpus
        for flag in ("from_run", "body_from"):
            source = getattr(cfg, flag)
            refuse(source and Path(source).resolve() == self.out.resolve(),
                   f"--{flag} {source} is the folder of this run: give another --out")
        if not fresh and self.read("summary.json") is not None:
            return                                             # there is nothing to train
        new, tokens = cfg.new_language, corpus.meta["tokens"]
        if "adapt" in cfg.stages:
            known = corpus.meta["new"]
            refuse(new not in known, f"--adapt_to {new}: {corpus.folder} has the new languages "
                   f"{', '.join(known) or '(none)'}: prepare it with --new")
            least = min(cfg.adapt_tokens, *(n for name, n in tokens.items() if name.split(".")[0] == new))
            refuse(least <= cfg.context_len + 1, f"--context_len {cfg.context_len}: {new} has {least} tokens "
                   "of text, fewer than one row; lower it, or prepare more text")
        if "align sentences" in cfg.stages and not cfg.new_language:
            self.training_samples()
        if "instruct" in cfg.stages:
            corpus.exercises()

    # --- the folder -----------------------------------------------------------------------------------------

    def check_config(self):
        """Raise UserError, naming the differences, if the folder holds a run of another configuration."""
        found = self.read("config.json")
        if found is None:
            return
        there = identity(load_config(self.out), found.get("data_used"))
        different = differences(there, identity(self.cfg, self.digest))
        refuse(different, f"{self.out} holds a run of another configuration ({different}): choose another "
               f"--out, or {TRAIN_AGAIN}")

    def hint(self):
        """A line for results that were measured with other options than these: -> text, perhaps empty."""
        there = self.read("config.json") or {}
        shown = [f"{name} {there[name]}" for name in EVALUATION
                 if name in there and there[name] != getattr(self.cfg, name)]
        return f"\nshown with {', '.join(shown)}: add --eval_only to measure again" if shown else ""

    def save(self, **state):
        super().save(run=identity(self.cfg, self.digest), **state)

    def save_config(self):
        self.write("config.json", json.dumps(
            asdict(self.cfg) | dict(data_used=self.digest, dtype_used=self.dtype), indent=1))

    def enter(self, load_only=False):
        """Create the run in the folder, or load its last checkpoint.  load_only: change no file."""
        self.load_only = load_only
        if load_only and self.cfg.stages and not self.has_checkpoint():
            raise UserError(f"{self.out} holds no checkpoint: train first with python train.py "
                            f"{flags_of(self.cfg, self.out)}")
        self.check_config()
        if not load_only:
            self.out.mkdir(parents=True, exist_ok=True)
            self.save_config()
        self.processes.barrier()
        self.checkpoint = found = self.last()
        if found:
            different = differences(found["run"], identity(self.cfg, self.digest))
            refuse(different, f"the checkpoint in {self.out} is of another run ({different}): put back its "
                   f"own, or {TRAIN_AGAIN}")
            refuse(found["stage"] not in self.cfg.stages, f"the checkpoint in {self.out} is of the stage "
                   f"{found['stage']:.60}, which this run does not have: {TRAIN_AGAIN}")
            self.seconds = found["seconds"]
        if not load_only and self.writer:                      # cut newer rows off: their steps follow again
            with open(self.log_path, "ab") as log:
                log.truncate(found["log_size"] if found else 0)

    # --- resuming -------------------------------------------------------------------------------------------

    def is_done(self, stage):
        """Whether the checkpoint is of a later stage."""
        return self.has_started(stage) and self.checkpoint["stage"] != stage

    def has_started(self, stage):
        """Whether the checkpoint is of this stage or of a later one."""
        stages = list(self.cfg.stages)
        return bool(self.checkpoint) and stages.index(self.checkpoint["stage"]) >= stages.index(stage)

    def restore(self, stage, model, optimizer):
        """Load a checkpoint of this stage, if any: -> step to continue with, sums since the last log row."""
        checkpoint = self.checkpoint
        if not checkpoint or checkpoint["stage"] != stage:
            return 0, {}
        try:
            model.load_state_dict(checkpoint["model"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            fits = all(value.shape in ((), p.shape)
                       for p, state in optimizer.state.items() for value in state.values())
        except Exception:                                      # of many kinds, most with many lines
            fits = False
        refuse(not fits, f"the checkpoint in {self.out} is of another model than its config.json: "
               f"{TRAIN_AGAIN}")
        self.checkpoint = {key: checkpoint[key] for key in ("stage", "step")}    # the rest is in use
        return checkpoint["step"], {name: (total.to(self.device), n)
                                    for name, (total, n) in checkpoint["sums"].items()}

    def check_finished(self):
        """Raise UserError if the checkpoint is not of the last step of the last stage."""
        stages = list(self.cfg.stages.items())
        if stages and (self.checkpoint["stage"], self.checkpoint["step"]) != stages[-1]:
            raise UserError(f"{self.out} is not finished: resume with python train.py "
                            f"{flags_of(self.cfg, self.out)}")

    def aligned_languages(self):
        """Indices of the languages that AFP aligns with English."""
        left_out = self.cfg.afp_leave_out.split(",")
        return [i for i, name in enumerate(self.corpus.languages) if i and name not in left_out]

    def training_samples(self):
        """The samples that AFP learns from."""
        cfg, corpus = self.cfg, self.corpus
        languages = [corpus.languages[i] for i in self.aligned_languages()]
        left_out = cfg.afp_leave_out.split(",")                # of these, languages are no tasks
        return corpus.training_samples(cfg.afp_samples, cfg.afp_translations, languages, left_out)

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def evaluating(self):
        """A context for measures: a public checkpoint, being large, is measured in the dtype of training."""
        return self.autocast() if self.cfg.pretrained else nullcontext()

    def eager(self):
        """A context without compilation: evaluation has many shapes, each of which would be compiled."""
        return torch.compiler.set_stance("force_eager") if self.cfg.compile else nullcontext()

    def tensor(self, array):
        """A numpy array as a tensor on the device."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()                       # makes the copy asynchronous
        return tensor.to(self.device, non_blocking=True)
