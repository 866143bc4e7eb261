"""One model's life: align words, pretrain, evaluate.  `recipe` is the experiment, the rest is plumbing.

  python train.py --method prealign        trains, evaluates and writes runs/prealign-tiny-synthetic-s0/
  python train.py --method forget          resets embeddings in pretraining, then attaches a new language
  python train.py --method baseline        joint training on the same mixture of languages
  python train.py --method align           afterwards aligns sentences, learns to answer across languages
  python train.py --reproduce prealign     baseline, method, ablations and controls over seeds, with verdicts
  python train.py --report RUN RUN ...     the comparison table and the curves of finished runs

The same command again goes on where it stopped, or shows the finished run.
"""
import copy
import json
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from align import directions, instruction_rows, multilingual_contrast, sentence_states
from data import claims, generation, measure, prepared, realmeasure, report, tasks
from data.config import EVALUATION, flags_of, parse_args, systems_of, trained
from data.processes import Processes, join
from data.runs import FILES, Folder, Interrupted, device_of, exit_code, finished, on_signals, reading, restore
from forget import Forgetting, assemble, expand_vocabulary, merge, new_rows, recovery
from model import GPT, IGNORE, Shape, choose_dtype, generate, learning_rate, lm_loss
from prealign import code_switch, word_alignment_loss, word_states

# the streams of random numbers: every draw is default_rng((seed, stream, step))
(ALIGN_TEXT, ALIGN_WORDS, TEXT, SWITCH, TRANSFER, ADAPT, INSTRUCT, REPLAY, SENTENCES,
 SENTENCE_TEXT) = range(1, 11)


# --- a run: its files and its loop --------------------------------------------------------------------------
class Run(Folder):
    """A configuration with its data, its model and its folder."""

    def __init__(self, cfg, out, cache="data/cache", quiet=False, fresh=False):
        self.device = device_of(cfg.device)
        self.processes = join(self.device)
        super().__init__(out, writer=self.processes.rank == 0)
        self.cfg, self.quiet = cfg, quiet or not self.writer
        self.languages, self.seconds, self.stop, self.checkpoint = cfg.languages.split(","), 0.0, 0, None
        self.only_load = self.unfinished = False               # of what was trained, see fit
        before = Folder(cfg.from_run).read("config.json") if cfg.from_run and cfg.dtype == "auto" else {}
        known = (not fresh and self.read("config.json") or before).get("dtype_used", cfg.dtype)
        self.dtype = choose_dtype(self.device) if known == "auto" else known
        self.corpus = prepared.opened(cfg, cache)
        self.corpus.check(cfg.context_len + 1)
        self.wanted = asdict(cfg) | dict(data_used=self.corpus.digest)          # what a run is
        self.dictionary, self.unseen, self.taught = prepared.dictionaries(self.corpus, cfg)
        shape = Shape(self.corpus.vocab_size, cfg.n_layer, cfg.n_head, cfg.d_model, cfg.context_len, cfg.tied)
        self.model = GPT(shape).initialise(cfg.seed).to(self.device)
        if cfg.from_run:
            self.model.load_state_dict(finished("--from_run", cfg.from_run, "pretrain", self.model,
                                                self.wanted["data_used"], cfg.pretrain_steps))
        self.body = cfg.body_from and finished("--body_from", cfg.body_from, "instruct", self.model,
                                               self.wanted["data_used"], parts=("body.", "final_norm."))
        self.lm_loss = torch.compile(lm_loss) if cfg.compile else lm_loss
        for block in self.model.body if cfg.compile else ():   # one compilation serves all blocks and stages
            block.compile()

    @cached_property
    def forgetting(self):
        """When and how pretraining resets the embeddings."""
        cfg = self.cfg
        return Forgetting(
            cfg.pretrain_steps, cfg.reset_every, cfg.reset_from, cfg.reset_until, cfg.reset_fraction,
            cfg.reset_blend, cfg.reset_weights, cfg.reset_moments, cfg.reset_clock, cfg.reset_head, cfg.seed)

    @cached_property
    def exercises(self):
        """Training items for English instruction tuning."""
        return self.corpus.exercises()

    @cached_property
    def lessons(self):
        """What AFP learns from."""
        languages = [self.corpus.languages[i] for i in self.aligned]
        return self.corpus.lessons(self.cfg.afp_samples, self.cfg.translations, languages)

    @property
    def aligned(self):
        """Indices of the languages that AFP aligns with English."""
        return [i for i, name in enumerate(self.corpus.languages)
                if i and name not in self.cfg.leave_out.split(",")]

    def groups(self, model, lr):
        cfg = self.cfg
        return model.groups(lr, lr * cfg.embed_lr, lr * cfg.head_lr, cfg.weight_decay,
                            cfg.weight_decay * cfg.embed_decay)

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def uncompiled(self):
        """For evaluation: each measure has shapes of its own, and compiling for them takes longer."""
        return torch.compiler.set_stance("force_eager") if self.cfg.compile else nullcontext()

    def note(self):
        self.write("config.json", json.dumps(self.wanted | dict(dtype_used=self.dtype), indent=1))

    def tensor(self, array):
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        tensor = tensor.pin_memory() if self.device.type == "cuda" else tensor     # nobody waits for the copy
        return tensor.to(self.device, non_blocking=True)

    def enter(self, but=()):
        """Make the folder's run, or go on with it.  but: knobs in which its config.json may differ."""
        self.claim(self.wanted, but)
        self.out.mkdir(parents=True, exist_ok=True)
        if not but:
            self.note()
        self.processes.wait()
        self.dtype = self.read("config.json")["dtype_used"]    # that of the first process, by its timing
        self.checkpoint = self.last(self.device)
        self.cut_log(self.checkpoint)
        self.seconds = self.checkpoint["seconds"] if self.checkpoint else 0.0


def fit(run, model, stage, losses, steps, groups, keep=True, forgetting=None, log_every=None):
    """One stage of training; keep=False (the copies that evaluation fine-tunes) writes no log or checkpoint.

    losses: step -> iterable of (loss, {name: value}, tokens), the parts of one step: each is backpropagated
            as it comes, they add up.  A pure function: the step number is the whole state of the loader.
    groups: parameter groups with peak_lr and part; forgetting: resets of the embeddings, if any
    """
    cfg, start, sums, log_every = run.cfg, 0, {}, log_every or run.cfg.log_every
    if keep and run.checkpoint and run.checkpoint["stage"] != stage:
        return                                                 # of a later stage: this one is done
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    if keep and run.checkpoint:
        start, sums = run.checkpoint["step"], run.checkpoint["sums"]
        restore(run.checkpoint, model, optimizer, run.out)
        run.checkpoint = None
    if keep and run.only_load:
        run.unfinished |= start < steps
        return
    clip = cfg.reset_clip if forgetting and forgetting.at else cfg.clip
    learning = {id(p) for group in groups for p in group["params"]}
    learning = [p for p in model.parameters() if id(p) in learning]
    bar = tqdm(range(start, steps), stage, steps, initial=start, disable=run.quiet or None, mininterval=0.5)
    tokens, clock = 0, time.perf_counter()
    for step in bar:
        for group in optimizer.param_groups:
            own_clock = forgetting and group["part"] in forgetting.parts
            group["lr"] = group["peak_lr"] * (forgetting.rate if own_clock else learning_rate)(
                step, steps, cfg.warmup)
        if forgetting:
            forgetting.before(step, model, optimizer)
        model.zero_grad(set_to_none=True)                      # also of what this stage has frozen
        measured = {}
        for loss, values, n_tokens in losses(step):
            loss.backward()
            measured |= {name: measured.get(name, 0) + v.detach() for name, v in values.items()}
            tokens += n_tokens * run.processes.count
        run.processes.add_up([*(p.grad for p in learning if p.grad is not None), *measured.values()])
        measured["grad_norm"] = torch.nn.utils.clip_grad_norm_(learning, clip)
        optimizer.step()
        for name, found in measured.items():                   # sums stay on the device: .item() waits for it
            total, n = sums.get(name, (0, 0))
            sums[name] = (total + found, n + 1)
        due = (step + 1) % log_every == 0 or step + 1 == steps
        # a signal meets processes in different steps
        if not due and not run.processes.largest(run.stop):
            continue
        means = {name: total.item() / n for name, (total, n) in sums.items()}
        seconds = time.perf_counter() - clock
        if not all(map(math.isfinite, means.values())):
            raise ValueError(f"{stage}: {means} is not finite by step {step + 1}; the last good state is "
                             f"in {run.out}/last.pt: lower --lr and train with another --out")
        if not keep:                                           # a copy, which is measured and forgotten
            continue
        run.seconds += seconds
        if due:
            row = dict(stage=stage, step=step + 1, lr=optimizer.param_groups[0]["lr"],
                       tok_s=round(tokens / max(seconds, 1e-6)))     # a clock may stand still
            with run.uncompiled():
                run.log(row | means | (probe(run, stage, step + 1 == steps) if run.writer else {}))
            bar.set_postfix({k: f"{means[k]:.3f}" for k in ("lm", "align", "mcl", "cit") if k in means},
                            tok_s=row["tok_s"])
            sums = {}
        run.save(stage=stage, step=step + 1, model=model.state_dict(), optimizer=optimizer.state_dict(),
                 sums=sums, seconds=run.seconds)
        if stop := run.processes.largest(run.stop):
            raise Interrupted(stop)
        tokens, clock = 0, time.perf_counter()                 # probing and saving are not training time


def lm_parts(run, model, inputs, targets, sparse=False):
    """LM loss of a batch in parts: each sum is divided by the number of targets of the *whole* batch.

    sparse: few targets carry loss, and the head is asked for these alone
    """
    count, n = max(int((targets != IGNORE).sum()), 1), len(inputs)
    for rows in run.processes.rows(n, min(run.cfg.accumulate, math.ceil(n / run.processes.count))):
        wanted, scored = targets[rows], None
        if not len(rows):                                      # more processes than rows: one without targets
            rows, wanted = [0], np.full_like(targets[:1], IGNORE)
        if sparse:
            scored = run.tensor(wanted != IGNORE)                                # (B, T)
            wanted = wanted[wanted != IGNORE]                                    # (n,)
        with run.autocast():
            logits = model.logits(run.tensor(inputs[rows]), scored)              # (B, T, V) or (n, V)
        loss = run.lm_loss(logits, run.tensor(wanted), count)
        yield loss, {"lm": loss}, inputs[rows].size


# --- the recipe ---------------------------------------------------------------------------------------------
def recipe(run):
    """The life of a model, with its interventions."""
    cfg, model, dictionary, forgetting = run.cfg, run.model, None, None
    if "prealign" in cfg.methods:                              # before and during: PreAlign, Li et al. 2024
        dictionary = run.taught
        if not cfg.from_run:
            fit(run, model, "align words", lambda step: align_beside_text(run, step),
                cfg.align_steps, run.groups(model, cfg.align_lr))
    if "forget" in cfg.methods:                                # during: active forgetting, Chen et al. 2023
        forgetting = run.forgetting
    if not cfg.from_run:
        fit(run, model, "pretrain", lambda step: pretrain(run, dictionary, step), cfg.pretrain_steps,
            run.groups(model, cfg.lr), forgetting=forgetting)
    if cfg.new_language:                                       # later: a new language, Aggarwal et al. 2025
        n = run.corpus.add_language(cfg.new_language, cfg.adapt_tokens, cfg.seed)
        run.corpus.check(cfg.context_len + 1)
        expand_vocabulary(model, n, cfg.adapt_init, cfg.adapt_rows, cfg.seed, run.corpus.pieces)
        fit(run, model, "adapt", lambda step: adapt(run, step), cfg.adapt_steps,
            new_rows(model, cfg.adapt_lr), log_every=min(cfg.log_every, 10))
        merge(model)
        if run.body:
            assemble(run.body, model)
    if cfg.aligns_sentences:                                   # after: AFP, Li et al. 2024
        if not run.checkpoint and not run.only_load:
            with run.uncompiled():
                draw_sentences(run, "sentences-before.svg")
        fit(run, model, "align sentences", lambda step: align_sentences(run, step), cfg.afp_steps,
            run.groups(model, cfg.afp_lr))
    if cfg.tuning_steps:                                       # at the end: English exercises, for the body
        body = [group for group in run.groups(model, cfg.lr / 3) if group["part"] in ("body", "norms")]
        fit(run, model, "instruct", lambda step: instruct(run, step), cfg.tuning_steps, body)
    if run.checkpoint:
        raise ValueError(f"the checkpoint in {run.out} is of a stage that this run does not have: "
                         "train anew with --fresh")


def text_rows(run, stream, step, n, clone_share=None):
    """n rows of text, one token longer than the context, and the language of each: (n, T + 1), (n,).

    clone_share: of all languages but English, None for pretraining's
    """
    cfg, others = run.cfg, len(run.languages) - 1
    share = cfg.clone_share if clone_share is None else clone_share
    shares = [1 - share] + [share / others] * others
    languages = run.corpus.languages_of_rows(step * n, n, shares)
    rng = np.random.default_rng((cfg.seed, stream, step))
    return run.corpus.rows(rng, n, cfg.context_len + 1, languages), languages


def word_alignment(run, step, weight):
    """weight * L_align of a batch of dictionary words."""
    cfg, rng = run.cfg, np.random.default_rng((run.cfg.seed, ALIGN_WORDS, step))
    entries = rng.permutation(len(run.taught))[:cfg.align_words]
    words, mask, concept = map(torch.from_numpy, run.taught.batch(entries))
    with run.autocast():
        align = word_alignment_loss(run.model, words, mask, concept, cfg.tau,
                                    run.processes.shared(word_states))
    return weight * align, {"align": align / run.processes.count}, 0             # [PreAlign: total loss]


def align_beside_text(run, step):
    """PreAlign's first stage, L = L_LM + alpha * L_align: two parts that add up."""
    yield word_alignment(run, step, run.cfg.align_weight)
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
    yield from lm_parts(run, run.model, inputs, targets)
    if dictionary and cfg.align_steps and cfg.keep_aligned and step % cfg.keep_aligned == 0:
        yield word_alignment(run, cfg.align_steps + step, cfg.align_weight)


def adapt(run, step):
    """Next-token prediction on the new language and, so that it does not take the place of the old ones in
    the softmax, on a share of old text."""
    cfg, rng = run.cfg, np.random.default_rng((run.cfg.seed, ADAPT, step))
    old, _ = text_rows(run, REPLAY, step, round(cfg.adapt_replay * cfg.adapt_batch))         # (n, T + 1)
    new = np.full(cfg.adapt_batch - len(old), len(run.corpus.languages) - 1)                 # (B - n,)
    rows = np.concatenate((run.corpus.rows(rng, len(new), cfg.context_len + 1, new), old))   # (B, T + 1)
    return lm_parts(run, run.model, rows[:, :-1], rows[:, 1:])


def align_sentences(run, step):
    """L = L_MCL + 1.5 L_CIT of a batch of samples, in parts that add up.

    differs from the paper: rows of plain text join in, a fifth of them not English, because a model of this
    size forgets its languages otherwise, and those with little text first.
    """
    cfg, rng = run.cfg, np.random.default_rng((run.cfg.seed, SENTENCES, step))
    chosen = rng.integers(0, len(run.lessons), cfg.sentence_batch)
    items = [run.lessons[i] for i in chosen]
    drawn = directions(rng, run.aligned, len(items), cfg.cross)
    partner, asked, answered = tasks.partners(run.corpus, items, *drawn)
    equals = rng.random(len(items)) < 0.5                      # which format, for sentences to translate
    if cfg.mcl_weight:
        tokens, mask = map(run.tensor, tasks.parallel(run.corpus, items, partner, cfg.context_len))
        with run.autocast():
            states = run.processes.shared(sentence_states)(
                run.model, tokens, mask, cfg.mcl_layer, cfg.mcl_pool)                            # (2n, D)
        mcl = multilingual_contrast(states, torch.from_numpy(chosen).repeat(2), cfg.mcl_tau,
                                    cfg.mcl_both_ways, cfg.mcl_same_language)
        yield cfg.mcl_weight * mcl, {"mcl": mcl / run.processes.count}, 0        # [AFP: total loss]
    if cfg.cit_weight:
        samples = tasks.dialogues(run.corpus, items, partner, asked, answered, equals)
        rows = instruction_rows(*samples, cfg.context_len + 1, cfg.answer_only)
        for cit, _, n in lm_parts(run, run.model, *rows, sparse=cfg.answer_only):
            yield cfg.cit_weight * cit, {"cit": cit}, n
    if cfg.word_weight:                                        # ours: what PreAlign does, late
        yield word_alignment(run, cfg.align_steps + cfg.pretrain_steps + step, cfg.word_weight)
    if cfg.afp_rows:
        rows, _ = text_rows(run, SENTENCE_TEXT, step, cfg.afp_rows, cfg.afp_clone_share)
        yield from lm_parts(run, run.model, rows[:, :-1], rows[:, 1:])


def instruct(run, step):
    """English exercises of every kind, with loss on the answers."""
    rng = np.random.default_rng((run.cfg.seed, INSTRUCT, step))
    items = [run.exercises[i] for i in rng.integers(0, len(run.exercises), 32)]
    rows = tasks.answer_rows(run.corpus, items, "en", run.cfg.context_len + 1)
    return lm_parts(run, run.model, *rows)


# --- evaluation: looks at the model, never changes it -------------------------------------------------------
def probe(run, stage, last):
    """For the log: mean cosine of translations per level, the curve of PreAlign's figure; and on text the
    loss on 16 validation rows per language (150 at the end of a stage), nats per token."""
    found = measure.word_cosines(run.model, word_states, run.dictionary, 256)
    if stage != "align words":
        losses = {name: measure.losses_per_token(run.model, run.corpus, name, 150 if last else 16)
                  for name in run.corpus.languages}
        found["val"] = {name: round(float(loss.mean()), 4) for name, loss in losses.items()}
    return found


def fine_tuned(run, task):
    """For ZS-CLT: a copy of the model, fine-tuned on English items of a task with loss on the answer."""
    model, cfg = copy.deepcopy(run.model), run.cfg
    items = run.corpus.items(task, "train", 4000)
    def losses(step):
        chosen = np.random.default_rng((cfg.seed, TRANSFER, step)).integers(0, len(items), 32)
        rows = tasks.answer_rows(run.corpus, [items[i] for i in chosen], "en", cfg.context_len + 1)
        yield from lm_parts(run, model, *rows)
    fit(run, model, f"transfer {task}", losses, cfg.transfer_steps, run.groups(model, cfg.lr / 3),
        keep=False)
    return model


def evaluate(run):
    """summary.json but for the run's own data (data/README.md).  A key that is not measured is absent."""
    cfg, model, corpus = run.cfg, run.model.eval(), run.corpus
    measures, write = realmeasure if cfg.data else measure, partial(generate, model, temperature=0)
    result = measures.everything(model, corpus, run.dictionary, run.unseen, word_states, write, cfg)
    if states := compared_states(run, 300):
        result["mcl"] = measure.pairs_of_languages(states)
    if "forget" in cfg.methods and not cfg.from_run and run.forgetting.at:
        if found := recovery(run.curve("pretrain", "lm"), run.forgetting.at):
            result["recovery"] = found
    if cfg.aligns_sentences:
        tokens = tasks.count_tokens(corpus, run.lessons, [corpus.languages[i] for i in (0, *run.aligned)])
        result["align"] = dict(samples=len(run.lessons), tokens=tokens, share=tokens / cfg.text_tokens)
    if cfg.new_language:                                       # how fast it was learned, on 16 rows of text
        learned = {str(i): math.exp(val[cfg.new_language]) for i, val in run.curve("adapt", "val").items()}
        result["adapt"] = {cfg.new_language: dict(perplexity=learned)}
    if cfg.transfer_steps and corpus.transfer:
        result["transfer"] = {task: measures.classify(fine_tuned(run, task), corpus, task, cfg.eval_items)
                              for task in corpus.transfer}
    return result


def sample(run, prompt):
    """The prompt continued in every language, as text for people."""
    generator = torch.Generator(run.device).manual_seed(run.cfg.seed)
    return generation.samples(run.corpus, prompt, lambda prompts: generate(
        run.model.eval(), prompts, 60, temperature=0.8, top_k=50, generator=generator))


def compared_states(run, n):
    """The states that MCL compares, of n test sentences in every language: see measure.parallel_states."""
    cfg = run.cfg
    return measure.parallel_states(run.corpus, n, cfg.context_len, lambda tokens, mask: sentence_states(
        run.model, run.tensor(tokens), run.tensor(mask), cfg.mcl_layer, cfg.mcl_pool))


def draw_sentences(run, name):
    """A picture of 100 test sentences in every language, by the states that MCL compares."""
    if states := compared_states(run, 100):
        run.write(name, report.scatter(states, run.cfg.mcl_layer, run.cfg.mcl_pool))


# --- commands -----------------------------------------------------------------------------------------------
def train(cfg, out, cache="data/cache", quiet=False, eval_only=False, fresh=False):
    """Run one configuration, or go on with it, or show it if it is finished; returns its summary."""
    if cfg.from_run and not (cfg.new_language or cfg.tuning_steps or "align" in cfg.methods):
        raise ValueError("--from_run leaves nothing to do: add --method align, --adapt_to, --instruct_steps")
    if eval_only:
        trained(cfg, out)
    run = Run(cfg, out, cache, quiet, fresh)
    with run.alone():
        if fresh:
            run.clear()
            run.processes.wait()
        summary = run.read("summary.json")
        if summary is None or eval_only:
            run.enter(EVALUATION if eval_only else ())
            summary = live(run, eval_only)
        run.claim(asdict(cfg))
        if not run.quiet:
            with reading(run.out / "summary.json"):
                print(report.show(summary))
            print(f"{out}/ holds {', '.join(FILES)}.  Try:\n"
                  f"  python train.py {flags_of(cfg, out)} --sample \"Anna was thirsty.\"")
    return summary


def live(run, eval_only):
    """Train, or only load, and evaluate: -> the summary."""
    cfg = run.cfg
    summary = dict(method=cfg.method, preset=cfg.preset, data=report.data_name(cfg), seed=cfg.seed,
                   device=str(run.device), dtype=run.dtype, languages=run.languages, tokens=cfg.text_tokens,
                   parameters=sum(p.numel() for p in run.model.parameters()))
    if not run.quiet:
        print(report.plan(cfg, summary, run.out, run.corpus, run.dictionary, torch.get_num_threads()))
    run.only_load = eval_only
    if "align" in cfg.methods and not cfg.new_language:
        _ = run.lessons                                        # raises before training if there are too few
    with on_signals(lambda number: setattr(run, "stop", number)):
        recipe(run)
    if run.unfinished:
        raise ValueError(f"{run.out} is not finished: go on with python train.py {flags_of(cfg, run.out)}")
    if not run.writer:
        return summary
    run.processes, clock = Processes(), time.perf_counter()    # one evaluates, the others are done
    with run.uncompiled():
        summary |= evaluate(run)
        run.write("samples.txt", sample(run, "") + "\n")
        draw_sentences(run, "sentences.svg")
    summary |= dict(languages=run.corpus.languages,
                             parameters=sum(p.numel() for p in run.model.parameters()),
                             minutes=round((run.seconds + time.perf_counter() - clock) / 60, 2))
    run.write("summary.json", json.dumps(summary, indent=1))
    run.note()                                                 # how it was evaluated
    return summary


def reproduce(cfg, modes):
    """Every system of a paper over seeds, going on where it was interrupted; prints and writes the report."""
    summaries, writer = {}, join(device_of(cfg.device)).rank == 0
    for name, system, out in systems_of(modes.reproduce, modes.seeds, cfg, modes.given):
        if writer:
            print(f"{name}, seed {system.seed}: {out}", flush=True)
        summaries.setdefault(name, []).append(train(system, out, modes.cache, quiet=True))
    if writer:                                                 # the others have measured nothing
        print(claims.conclude(modes.reproduce, summaries, Path("runs")))


def command(argv):
    """What the command line asks for: -> the exit code, 1 if --overfit fails."""
    cfg, modes = parse_args(argv, __doc__)
    out = Path(modes.out or report.default_out(cfg))
    if modes.report:
        with reading(f"--report {' '.join(modes.report)}"):
            print(report.compare([Path(r) for r in modes.report], Path("runs")))
    elif modes.reproduce:
        reproduce(cfg, modes)
    elif modes.overfit:
        run = Run(cfg, out, modes.cache)
        rows, _ = text_rows(run, TEXT, 0, 4)
        fit(run, run.model, "overfit", lambda step: lm_parts(run, run.model, rows[:, :-1], rows[:, 1:]), 300,
            run.groups(run.model, cfg.lr), keep=False)
        loss = float(-measure.log_probs(run.model, rows).mean())
        failed = not loss < 0.1                                # also for nan
        print(f"loss on one batch of 4 rows after 300 steps: {loss:.4f} ({'NOT ' * failed}learned)")
        return int(failed)
    elif modes.sample is not None:
        trained(cfg, out)
        run = Run(cfg, out, modes.cache)
        run.checkpoint, run.only_load = run.last(run.device), True
        recipe(run)
        with run.uncompiled():
            print(sample(run, modes.sample))
    else:
        train(cfg, out, modes.cache, eval_only=modes.eval_only, fresh=modes.fresh)
    return 0


def main(argv=None):
    """Returns the exit code: command's, 2 for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
    return exit_code(command, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
