"""Train one model through all its stages.  `recipe` is the experiment; steps, loop and commands follow it.

  python train.py --method prealign        train, evaluate and write runs/prealign-tiny-synthetic-s0/
  python train.py --method forget          reset embeddings in pretraining, then attach a new language
  python train.py --method baseline        joint training on the same mixture of languages
  python train.py --method align           align sentences afterwards and learn to answer across languages
  python train.py --reproduce prealign     run baseline, method, ablations and controls, judge the claims
  python train.py --report RUN RUN ...     compare finished runs: table and curves
  python train.py --sample TEXT --out RUN  continue a text with a trained model
  python train.py --pretrained DIR --data FOLDER --method align      start from a public checkpoint
  python train.py --export DIR --out RUN   write such a model back as a public checkpoint

The same command resumes an interrupted run, or shows a finished one.
"""
import copy
import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path
from shlex import quote

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from align import draw_languages, instruction_rows, multilingual_contrast, sentence_states
from data import tasks
from data.corpus import languages_of_rows
from data.files import read_json, refuse
from data.lab import claims, generation, likelihood, measures, studies, tables
from data.lab.options import data_name, default_out, load_config, parse_args
from data.lab.plots import draw_sentences
from data.lab.processes import Processes, init_distributed, keep_freed_memory, peak_memory
from data.lab.run import Run
from data.lab.runs import FILES, Interrupted, device_of, exit_code, on_signals, reading
from data.pretrained import export_pretrained, read_config
from forget import BODY_RATES, Forgetting, assemble, expand_vocabulary, merge_vocabulary, new_row_groups
from model import IGNORE, add_adapters, merge_adapters
from prealign import code_switch, word_alignment_loss, word_states

WARMUP = 0.05   # share of a stage's steps with a rising learning rate
RATES = {"align words": "prealign_lr", "adapt": "adapt_lr", "align sentences": "afp_lr"}   # others: lr
TUNING_DIVISOR, TUNING_BATCH = 3, 32   # tuning on English tasks: lr is divided by 3; items per step

# every stage draws from its own stream of random numbers: default_rng((seed, stream, step))
(ALIGN_TEXT, ALIGN_WORDS, TEXT, SWITCH, TRANSFER, ADAPT, INSTRUCT, REPLAY, SENTENCES,
 SENTENCE_TEXT) = range(1, 11)


# --- the recipe ---------------------------------------------------------------------------------------------

def recipe(run):
    """Train one model.  cfg.stages holds the stages of this run and their numbers of steps, in order."""
    cfg, model, corpus, stages = run.cfg, run.model, run.corpus, run.cfg.stages
    if "align words" in stages:                                # before: PreAlign, Li et al. 2024
        fit(run, model, "align words", partial(align_words, run), param_groups(run, cfg.prealign_lr))
    if "pretrain" in stages:                                   # during: code-switching, active forgetting
        fit(run, model, "pretrain", partial(pretrain, run), param_groups(run, cfg.lr),
            resets=reset_schedule(cfg))
    if "adapt" in stages:                                      # later: a new language, Aggarwal et al. 2025
        n_rows = corpus.add_language(cfg.new_language, cfg.adapt_tokens)
        corpus.check(cfg.context_len + 1)
        expand_vocabulary(model, n_rows, cfg.adapt_init, cfg.adapt_rows, cfg.seed, corpus.subwords,
                          cfg.adapt_body)
        groups = new_row_groups(model, cfg.adapt_lr, cfg.adapt_lr * BODY_RATES[cfg.adapt_body])
        fit(run, model, "adapt", partial(adapt, run), groups)
        merge_adapters(merge_vocabulary(model))
        if run.tuned_body:
            assemble(run.tuned_body, model)
    if "align sentences" in stages:                            # after: AFP, Li et al. 2024
        samples = run.training_samples()
        draw_sentences(run, before=True)
        if cfg.afp_lora:
            add_adapters(model, cfg.afp_lora, cfg.seed)
        groups = param_groups(run, cfg.afp_lr)
        fit(run, model, "align sentences", partial(align_sentences, run, samples), groups)
        merge_adapters(model)
    if "instruct" in stages:                                   # last: English instruction tuning of the body
        body = [g for g in param_groups(run, cfg.lr / TUNING_DIVISOR) if g["name"] in ("body", "norms")]
        fit(run, model, "instruct", partial(answer_items, run, model, corpus.exercises(), INSTRUCT), body)


def reset_schedule(cfg):
    """Resets of the embedding in pretraining, none without active forgetting.

    differs from the papers: by default the last reset comes at half of the steps (--reset_until).
    """
    every = cfg.reset_every if "forget" in cfg.methods else 0
    return Forgetting(cfg.pretrain_steps, every, cfg.reset_from, cfg.reset_until, cfg.reset_blend,
                      cfg.reset_optimizer, cfg.seed)


def param_groups(run, lr, model=None):
    """GPT.param_groups with the options of the run; lr: peak learning rate of the matrices."""
    cfg = run.cfg
    decay = cfg.weight_decay if cfg.embed_decay else 0.0
    return (model or run.model).param_groups(lr, lr * cfg.embed_lr, cfg.weight_decay, decay)


# --- one step of each stage ---------------------------------------------------------------------------------
# Each yields the parts of its loss, (loss, {name: value}, number of text tokens).  fit backpropagates
# each part before the next one is computed, so only one part is in memory.

def align_words(run, step):
    """PreAlign's first stage, L = L_LM + alpha * L_align."""
    yield word_alignment(run, step, run.cfg.prealign_weight)                     # [PreAlign: total loss]
    if run.cfg.prealign_rows:
        rows, _ = text_rows(run, ALIGN_TEXT, step, run.cfg.prealign_rows)
        yield from lm_parts(run, run.model, rows[:, :-1], rows[:, 1:])


def word_alignment(run, step, weight):
    """weight * L_align of a batch of dictionary words."""
    cfg, rng = run.cfg, np.random.default_rng((run.cfg.seed, ALIGN_WORDS, step))
    entries = rng.permutation(len(run.train_dictionary))[:cfg.prealign_words]
    words, mask, concept = map(torch.from_numpy, run.train_dictionary.batch(entries))
    with run.autocast():
        states = run.processes.gather(word_states)(run.model, words, mask, run.corpus.prefix)    # (K, N, D)
        loss = word_alignment_loss(states, concept)
    return weight * loss, {"prealign": loss / run.processes.world_size}, 0


def pretrain(run, step):
    """Next-token prediction on the mixture of languages.  PreAlign code-switches the English input.

    Ours: every `prealign_every` steps the alignment loss is added, because the rows of the head drift apart
    within a hundred steps, and then the model cannot name a fact in the other language.
    """
    cfg, prealign = run.cfg, "prealign" in run.cfg.methods
    rows, languages = text_rows(run, TEXT, step, cfg.batch_size)                 # (B, T + 1), (B,)
    inputs, targets = rows[:, :-1], rows[:, 1:]                                  # (B, T) each
    if prealign and cfg.code_switch:
        rng = np.random.default_rng((cfg.seed, SWITCH, step))
        inputs, targets = code_switch(rows, run.corpus.starts[rows], languages == 0, run.switch_table,
                                      cfg.code_switch, rng, cfg.code_switch_vanilla)
    yield from lm_parts(run, run.model, inputs, targets)
    due = cfg.prealign_every and step % cfg.prealign_every == 0
    if prealign and due and cfg.prealign_from <= step / cfg.pretrain_steps < cfg.prealign_until:
        yield word_alignment(run, cfg.prealign_steps + step, cfg.prealign_weight)


def adapt(run, step):
    """Next-token prediction on the new language, and on a share of old text.

    With old text, the new rows of the head learn to be unlikely in the old languages.
    """
    cfg, rng, B = run.cfg, np.random.default_rng((run.cfg.seed, ADAPT, step)), 2 * run.cfg.batch_size
    old, _ = text_rows(run, REPLAY, step, round(cfg.adapt_replay * B))                       # (n, T + 1)
    language = np.full(B - len(old), len(run.corpus.languages) - 1)                          # (B - n,)
    new = run.corpus.rows(rng, len(language), cfg.context_len + 1, language)                 # (B - n, T + 1)
    rows = np.concatenate((new, old))                                                        # (B, T + 1)
    return lm_parts(run, run.model, rows[:, :-1], rows[:, 1:])


def align_sentences(run, samples, step):
    """AFP, L = L_MCL + 1.5 L_CIT of a batch of samples.

    differs from the paper: rows of plain text are added, because a model of this size otherwise forgets its
    languages, starting with those with little text.
    """
    cfg, corpus = run.cfg, run.corpus
    rng = np.random.default_rng((cfg.seed, SENTENCES, step))
    chosen = rng.integers(0, len(samples), cfg.afp_batch)                                    # (n,)
    items = [samples[i] for i in chosen]
    drawn = draw_languages(rng, run.aligned_languages(), len(items), cfg.afp_cross)
    partner, asked, answered = tasks.target_languages(corpus, items, *drawn)                 # (n,) each
    equals = rng.random(len(items)) < 0.5                      # the format of sentences to translate
    if cfg.afp_mcl_weight:
        tokens, mask = map(run.tensor, tasks.parallel_sentences(corpus, items, partner, cfg.context_len))
        with run.autocast():
            states = run.processes.gather(sentence_states)(
                run.model, tokens, mask, cfg.afp_mcl_layer, cfg.afp_mcl_pool)                # (2n, D)
        mcl = multilingual_contrast(states, torch.from_numpy(chosen).repeat(2),
                                    symmetric=cfg.afp_mcl_symmetric)
        shown = {"afp_mcl": mcl / run.processes.world_size}
        yield cfg.afp_mcl_weight * mcl, shown, 0                                 # [AFP: total loss]
    if cfg.afp_cit_weight:
        questions, answers = tasks.instruction_examples(corpus, items, partner, asked, answered, equals)
        rows = instruction_rows(questions, answers, cfg.context_len + 1, cfg.afp_answer_only)
        for cit, _, n_tokens in lm_parts(run, run.model, *rows, sparse=cfg.afp_answer_only):
            yield cfg.afp_cit_weight * cit, {"afp_cit": cit}, n_tokens
    if cfg.afp_word_weight:                                    # ours: align words as late as sentences
        yield word_alignment(run, cfg.prealign_steps + cfg.pretrain_steps + step, cfg.afp_word_weight)
    if cfg.afp_rows:
        rows, _ = text_rows(run, SENTENCE_TEXT, step, cfg.afp_rows, cfg.afp_clone_share)
        yield from lm_parts(run, run.model, rows[:, :-1], rows[:, 1:])


def answer_items(run, model, items, stream, step):
    """English items, with loss on their answers: instruction tuning and zero-shot transfer."""
    rng, width = np.random.default_rng((run.cfg.seed, stream, step)), run.cfg.context_len + 1
    chosen = [items[i] for i in rng.integers(0, len(items), TUNING_BATCH)]
    questions, answers = tasks.question_and_answer(run.corpus, chosen, "en", width)
    return lm_parts(run, model, *instruction_rows(questions, answers, width), sparse=True)


def text_rows(run, stream, step, n, clone_share=None):
    """n rows of text, one token longer than the context, and their languages: -> (n, T + 1), (n,).

    clone_share: share of all languages but English, by default that of pretraining
    """
    cfg, n_others = run.cfg, len(run.languages) - 1
    share = cfg.clone_share if clone_share is None else clone_share
    languages = languages_of_rows(step * n, n, [1 - share] + [share / n_others] * n_others)
    rng = np.random.default_rng((cfg.seed, stream, step))
    return run.corpus.rows(rng, n, cfg.context_len + 1, languages), languages


def lm_parts(run, model, inputs, targets, sparse=False):
    """The language-model loss in parts; each sum is divided by the number of targets of the *whole* batch.

    inputs, targets: (B, T)
    sparse: few positions carry loss, and the head is computed for these only
    """
    count, n = max(int((targets != IGNORE).sum()), 1), len(inputs)
    for rows in run.processes.rows(n, min(run.cfg.accumulate, math.ceil(n / run.processes.world_size))):
        wanted, scored = targets[rows], None
        if not len(rows):                                      # more processes than rows: one without targets
            rows, wanted = [0], np.full_like(targets[:1], IGNORE)
        if sparse:
            scored = run.tensor(np.flatnonzero(wanted != IGNORE))                # (n,)
            wanted = wanted[wanted != IGNORE]                                    # (n,)
        with run.autocast():                                   # logits (B, T, V) or (n, V): freed, not named
            loss = run.lm_loss(model.logits(run.tensor(inputs[rows]), scored), run.tensor(wanted), count)
        yield loss, {"lm": loss}, inputs[rows].size


# --- the training loop --------------------------------------------------------------------------------------

def fit(run, model, stage, losses, groups, steps=None, resets=None, temporary=False):
    """Train one stage, or resume it.

    losses: step -> iterable of (loss, {name: value}, tokens), the parts of one step.  Each part is
            backpropagated as it comes.  A pure function: the step number is the whole state of the loader
    groups: parameter groups with peak_lr and name
    steps:  by default those of the stage
    resets: schedule of embedding resets, by default without any
    temporary: the model is a copy for evaluation: nothing is logged or saved
    """
    cfg, sums, start = run.cfg, {}, 0
    if not temporary and run.is_done(stage):
        return
    steps = cfg.stages[stage] if steps is None else steps
    resets = resets or Forgetting(steps, every=0)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    if not temporary:
        start, sums = run.restore(stage, model, optimizer)
        if run.load_only:
            return
    clip = cfg.reset_clip if resets.at else cfg.clip           # so BA and AFA differ in the clip, too
    log_every = min(cfg.log_every, 10) if stage == "adapt" else cfg.log_every    # it has few steps
    in_groups = {id(p) for group in groups for p in group["params"]}
    parameters = [p for p in model.parameters() if id(p) in in_groups]
    bar = tqdm(range(start, steps), stage, steps, initial=start, disable=run.quiet or None, mininterval=0.5)
    tokens, clock = 0, time.perf_counter()
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * resets.lr_factor(group["name"], step, WARMUP)
        resets.reset_if_due(step, model, optimizer)
        model.zero_grad(set_to_none=True)                      # also the gradients of frozen parameters
        values = {}
        for loss, parts, n_tokens in losses(step):
            loss.backward()
            for name, value in parts.items():
                values[name] = values.get(name, 0) + value.detach()
            tokens += n_tokens * run.processes.world_size
        run.processes.all_reduce_sum([*(p.grad for p in parameters if p.grad is not None), *values.values()])
        values["grad_norm"] = torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        for name, value in values.items():                     # on the device: .item() would wait for it
            total, n = sums.get(name, (0, 0))
            sums[name] = (total + value, n + 1)
        due = (step + 1) % log_every == 0 or step + 1 == steps
        # a signal reaches the processes in different steps
        if not due and not run.processes.all_reduce_max(run.stop):
            continue
        means = {name: total.item() / n for name, (total, n) in sums.items()}
        seconds = time.perf_counter() - clock
        refuse(not all(map(math.isfinite, means.values())), f"{stage}: {means} is not finite by step "
               f"{step + 1}: lower --{RATES.get(stage, 'lr')} and use another --out")
        if temporary:
            continue
        run.seconds += seconds
        if due:
            row = dict(stage=stage, step=step + 1, lr=optimizer.param_groups[0]["lr"],
                       tok_s=round(tokens / max(seconds, 1e-6)), **means)  # a coarse clock may show no time
            if run.writer:
                # the first row of each tenth of pretraining has the answers to cfg.log_items, too
                tenth = stage == "pretrain" and (step + 1) % math.ceil(steps / 10) < log_every
                with run.eager(), run.evaluating():
                    row |= measures.probe(model, run.corpus, run.dictionary, stage, step + 1 == steps,
                                          cfg.log_items if tenth else 0)
            run.log(row)
            bar.set_postfix({k: f"{v:.3f}" for k, v in means.items() if k != "grad_norm"}, tok_s=row["tok_s"])
            sums = {}
        run.save(stage=stage, step=step + 1, model=model.state_dict(), optimizer=optimizer.state_dict(),
                 sums=sums, seconds=run.seconds)
        if stop := run.processes.all_reduce_max(run.stop):
            raise Interrupted(stop)
        tokens, clock = 0, time.perf_counter()                 # measuring and saving are not training time


# --- evaluation: reads the model, never changes it ----------------------------------------------------------

def evaluate(run):
    """All measures of a trained model: -> dict, see data/glossary.md.  One that is not taken is absent."""
    cfg, model, corpus = run.cfg, run.model, run.corpus
    with run.evaluating():
        result = measures.evaluate_all(model, corpus, run.dictionary, run.held_out, cfg, run.quiet)
    result |= measures.of_training(run, reset_schedule(cfg))
    if cfg.transfer_steps and corpus.transfer:
        result["transfer"] = {task: likelihood.classify(fine_tuned(run, task), corpus, task, cfg.eval_items)
                              for task in corpus.transfer}
    return result


def fine_tuned(run, task):
    """For zero-shot transfer: a copy of the model, fine-tuned on English items of a task."""
    model, cfg, items = copy.deepcopy(run.model), run.cfg, run.corpus.items(task, "train", 4000)
    fit(run, model, f"transfer {task}", partial(answer_items, run, model, items, TRANSFER),
        param_groups(run, cfg.lr / TUNING_DIVISOR, model), cfg.transfer_steps, temporary=True)
    return model


# --- commands -----------------------------------------------------------------------------------------------

def train(cfg, out, cache="data/cache", quiet=False, eval_only=False, fresh=False):
    """Run one configuration, resume it, or show it if it is finished: -> its summary."""
    refuse(cfg.from_run and not cfg.stages,
           "--from_run leaves nothing to do: add --method align, --adapt_to or --instruct_steps")
    run = Run(cfg, out, cache, quiet, fresh)
    run.check(fresh)
    with run.lock():
        if fresh:
            run.clear()
            run.processes.barrier()
        summary = run.read("summary.json")
        if summary is None or eval_only:
            run.enter(load_only=eval_only)
            summary = train_and_evaluate(run)
        run.check_config()
        if not run.quiet:
            with reading(run.out / "summary.json"):
                print(claims.show(summary, load_config(run.out)))
            beginning = "The" if cfg.data else "Anna was thirsty."
            print(f"{out}/ holds {', '.join(FILES)}.  Try:\n"
                  f"  python train.py --sample \"{beginning}\" --out {quote(str(out))}{run.hint()}")
    return summary


def train_and_evaluate(run):
    """Train (or only load the checkpoint), evaluate and write the results: -> the summary."""
    cfg = run.cfg
    summary = dict(method=cfg.method, preset=cfg.model_name, data=data_name(cfg), seed=cfg.seed,
                   device=str(run.device), dtype=run.dtype, languages=run.languages,
                   tokens=cfg.steps * cfg.batch_size * cfg.context_len,
                   parameters=sum(p.numel() for p in run.model.parameters()))
    if not run.quiet:
        print(tables.plan(cfg, summary, run.out, run.corpus, run.dictionary, torch.get_num_threads()))
    with on_signals(lambda number: setattr(run, "stop", number)):
        recipe(run)
    if run.load_only:
        run.check_finished()
    if not run.writer:
        return summary
    run.processes, clock = Processes(), time.perf_counter()    # one process evaluates, the others return
    with run.eager():
        summary |= evaluate(run)
        with run.evaluating():
            translations = generation.translated(run.model, run.corpus) if cfg.written_items else ""
            texts = generation.samples(run.model, run.corpus, "", cfg.seed)
        run.write("samples.txt", f"{texts}\n{translations}\n")
    draw_sentences(run)
    summary |= dict(languages=run.corpus.languages,
                    parameters=sum(p.numel() for p in run.model.parameters()),
                    minutes=round((run.seconds + time.perf_counter() - clock) / 60, 2),
                    peak_memory_gb=round(peak_memory(run.device), 2))
    run.write("summary.json", json.dumps(summary, indent=1))
    run.save_config()
    return summary


def reproduce(cfg, modes):
    """Run every system of a study over seeds, then print and write the report."""
    summaries, writer = {}, init_distributed(device_of(cfg.device)).rank == 0
    for name, system, out in studies.systems_of(modes.reproduce, modes.seeds, cfg, modes.given):
        if writer:
            print(f"{name}, seed {system.seed}: {out}", flush=True)
        summaries.setdefault(name, []).append(train(system, out, modes.cache, quiet=True))
    if writer:
        print(claims.conclude(modes.reproduce, summaries, Path("runs")))


def export(run, folder):
    """Write a trained model as a public checkpoint."""
    start, new, corpus = run.cfg.pretrained, run.cfg.new_language, run.corpus
    run.check_finished()
    tokenizer = read_json(Path(start) / "tokenizer.json", "download it again")
    if new:                                                    # of that file, only the vocabulary is exported
        tokenizer["model"] = read_json(corpus.folder / f"tokenizer.{new}.json", "prepare it again")["model"]
    export_pretrained(run.model, folder, tokenizer, read_config(start)[1])
    print(f"written to {folder}: config.json, tokenizer.json, model.safetensors")


def overfit(run):
    """Train on one batch: -> whether its loss falls below 0.1."""
    rows, _ = text_rows(run, TEXT, 0, 4)
    fit(run, run.model, "overfit", lambda step: lm_parts(run, run.model, rows[:, :-1], rows[:, 1:]),
        param_groups(run, run.cfg.lr), steps=300, temporary=True)
    loss = float(-likelihood.log_probs(run.model, rows).mean())
    learned = loss < 0.1                                       # false for nan, too
    verdict = "learned" if learned else "NOT learned"
    print(f"loss on one batch of 4 rows after 300 steps: {loss:.4f} ({verdict})")
    return learned


def command(argv):
    """Run the command of a command line: -> the exit code."""
    cfg, modes = parse_args(argv, __doc__)
    out = Path(modes.out or default_out(cfg))
    if modes.report:
        with reading(f"--report {' '.join(modes.report)}"):
            print(tables.compare([Path(r) for r in modes.report], Path(modes.out or "runs")))
    elif modes.reproduce:
        reproduce(cfg, modes)
    elif modes.overfit:
        return 0 if overfit(Run(cfg, out, modes.cache)) else 1
    elif modes.sample is not None or modes.export is not None:
        refuse(modes.export is not None and not cfg.pretrained,
               f"--export: {out} did not begin as a public checkpoint (--pretrained)")
        run = Run(cfg, out, modes.cache)
        run.enter(load_only=True)
        recipe(run)
        if modes.export is not None:
            export(run, modes.export)
        else:
            with run.eager(), run.evaluating():
                print(generation.samples(run.model, run.corpus, modes.sample, cfg.seed))
    else:
        train(cfg, out, modes.cache, eval_only=modes.eval_only, fresh=modes.fresh)
    return 0


def main(argv=None):
    """Run a command: -> its exit code, 2 for a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
    keep_freed_memory()
    code = exit_code(command, sys.argv[1:] if argv is None else argv)
    if code and dist.is_initialized():                         # the others may wait for this process
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
