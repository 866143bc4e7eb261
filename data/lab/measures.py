"""All measures of a trained model, and those of its training.

A folder decides what is measured: a measure whose data it lacks is absent from the result.  Nothing here
uses a shared random generator or changes the model, so measuring never changes training.

To add a measure, write a function that returns {summary key: numbers}, call it in evaluate_all, and give it
a row in tables.tsv.
"""
import numpy as np
from tqdm import tqdm

from data.files import read_json
from data.lab import generation
from data.lab.likelihood import (ROWS, chance, copying, in_context, instructed, knowledge, language_model,
                                 losses_per_token)
from data.lab.states import (afp_states, contextuality, lexicon, linear_probes, sentences,
                             translation_states, word_cosine, words)


def recovery(losses, resets, delay=50):
    """How far each reset raises the training loss, and how much of the rise is left later [Chen et al. 2023].

    losses:  {step: mean loss of the steps since the last entry}
    resets:  steps before which rows were reset
    returns: for each reset a dict in nats: step; before, the entry at the reset; rise, the next entry minus
             `before`, if it is at most delay / 2 steps later; excess, the entry `delay` steps after the reset
             minus `before`, if there is a rise, too
    """
    found = []
    for reset, end in zip(resets, [*resets[1:], np.inf]):
        found.append(dict(step=reset))
        if reset not in losses:
            continue
        found[-1]["before"] = losses[reset]
        rises = {step - reset: loss - losses[reset] for step, loss in losses.items() if reset < step <= end}
        if rises and min(rises) <= delay / 2:
            found[-1]["rise"] = rises[min(rises)]
            if delay in rises:
                found[-1]["excess"] = rises[delay]
    return found


def probe(model, corpus, dictionary, stage, last, n_items=0):
    """Measures for a row of the log.

    word_cosine: mean cosine of 256 translations per level, the curve of PreAlign's figure
    val:         {language: nats per token on 16 validation rows, 150 in the last row of a stage}
    With n_items, also knowledge and tasks on so many items, see likelihood.py, and copying.
    """
    found = {}
    if dictionary:
        source, target = translation_states(model, dictionary.entries[:256], corpus.prefix)  # (K, E, D) each
        found["word_cosine"] = [round(cosine, 4) for cosine in word_cosine(source, target)]
    if stage != "align words":
        n_rows = ROWS if last else 16
        found["val"] = {name: round(float(losses_per_token(model, corpus, name, n_rows).mean()), 4)
                        for name in corpus.languages}
    if n_items:
        found["knowledge"] = knowledge(model, corpus, n_items).get("knowledge", {})
        found["tasks"] = in_context(model, corpus, n_items, [0], 0)["tasks"]
        found["copying"] = copying(model, corpus)
    return found


def of_training(run, resets):
    """Measures of how a run was trained: -> dict with progress, recovery and adapt, if it has them."""
    cfg, result = run.cfg, {}
    if cfg.log_items and "pretrain" in cfg.stages:
        result["progress"] = {str(row["step"]): {key: row[key] for key in ("knowledge", "tasks", "copying")}
                              for row in run.rows() if row["stage"] == "pretrain" and "copying" in row}
    if resets.at and "pretrain" in cfg.stages:
        result["recovery"] = recovery(run.curve("pretrain", "lm"), resets.at)
    if "adapt" in cfg.stages:                                  # perplexity by the number of updates
        losses = run.curve("adapt", "val")
        result["adapt"] = {cfg.new_language: dict(perplexity={
            str(step): float(np.exp(loss[cfg.new_language])) for step, loss in losses.items()})}
    return {key: found for key, found in result.items() if found}


def references(corpus):
    """Model-free baselines of the run's languages, and languages measured in characters."""
    def of_run(by_language):
        return {name: found for name, found in by_language.items() if name in corpus.languages}

    without_spaces = {name: True for name, has in corpus.meta["spaces"].items() if not has}
    result = dict(in_characters=of_run(without_spaces))
    if found := read_json(corpus.folder / "baselines.json", "prepare the folder again"):
        result["baselines"] = dict(tasks={task: of_run(lines) for task, lines in found["tasks"].items()},
                                   retrieval=of_run(found["retrieval"]))
    return result


def evaluate_all(model, corpus, dictionary, held_out, cfg, quiet=True):
    """All measures that need neither training nor a log: -> dict for summary.json, see data/glossary.md."""
    n, ks, middle = cfg.eval_items, sorted(map(int, cfg.shots.split(","))), cfg.n_layer // 2
    parts = [                                                  # functions and their arguments
        (language_model, model, corpus),
        (contextuality, model, corpus, middle),
        (words, model, dictionary, held_out, middle, corpus.prefix),
        (lexicon, model, corpus),
        (sentences, model, corpus, "sentences", middle),
        (sentences, model, corpus, "sentences_embedding", 0),
        (afp_states, model, corpus, cfg),
        (knowledge, model, corpus, n),
        (in_context, model, corpus, n, ks, cfg.seed),
        (linear_probes, model, corpus, n, middle),
        (chance, corpus),
        (references, corpus),
    ]
    if cfg.written_items:
        parts += [(generation.generated_text, model, corpus, cfg.written_items, cfg.seed),
                  (instructed, model, corpus, n, ks, cfg.seed)]
    result, bar = {}, tqdm(parts, disable=quiet or None)       # None: no bar if stderr is no terminal
    for measure, *arguments in bar:
        bar.set_description("evaluate " + measure.__name__.replace("_", " "))
        result |= {key: numbers for key, numbers in measure(*arguments).items() if numbers != {}}
    return result
