"""Tables of a run, of several runs and of a study.  A line of tables.tsv shows a measure in all of them."""
import re
from collections import namedtuple
from itertools import product

import numpy as np

from data.files import refuse
from data.lab.options import UNTRIED, read_tsv
from data.lab.plots import curves
from data.lab.runs import RunFolder

CAPTION = ("↑ higher is better, ↓ lower is better; n: test items, sentence pairs, words or tokens "
           "(of an average: per task)")

# A row of tables.tsv.  group: table of `show`, see groups.tsv;  digits: how many there;  better: ↑ or ↓
# words: name in plain English; {task} and {k} are wildcards
# path: place in summary.json; {} is a language, "new" the language attached last
# n: alternative paths of the number of test items;  chance: path, or number, of a random choice's result
Measure = namedtuple("Measure", "group digits better words path n chance")
HOW_TO_READ = dict(read_tsv("groups.tsv")[1:])                 # {group: the line above its table}
IN_REACH = 0.8      # accuracy in English below which tasks say nothing about transfer, see data/tasks.py
MEASURES = [Measure(group, int(digits), *texts) for group, digits, *texts in read_tsv("tables.tsv")[1:]]
# Baselines that need no model: name, and its lines in baselines.json.
MODEL_FREE = {
    "majority": ("majority",),
    "shared spelling": ("trigrams", "naive_bayes"),
    "dictionary": ("dictionary", "naive_bayes_dictionary"),
    "learned dictionary": ("learned", "naive_bayes_learned"),
    "counts in the language": ("naive_bayes_own", "cooccurrence"),
}


# --- numbers by path ----------------------------------------------------------------------------------------

def value(summary, path):
    """The number at a path such as "perplexity.en"; None if the run did not measure it.

    "middle" and "output" are levels in a list over levels, "new" is the language attached last.
    """
    found = summary
    for key in path.split("."):
        if key == "new":
            key = next(iter(summary.get("adapt", {})), key)
        if isinstance(found, list) and found:                  # over levels: embedding, blocks, head
            levels = {str(i): level for i, level in enumerate(found)}
            found = levels | dict(middle=found[len(found) // 2 - 1], output=found[-1])
        found = found.get(key) if isinstance(found, dict) else None
    return found


def leaves(tree, path=()):
    """Yield the dotted path of every number of a summary that is not in a list."""
    for key, part in tree.items():
        if isinstance(part, dict):
            yield from leaves(part, (*path, key))
        else:
            yield ".".join((*path, key))


def match(measure, path):
    """Fill in a measure's wildcards (except {}) by a path: -> (Measure, language or ""), None for another."""
    pattern = re.escape(measure.path).replace(r"\{\}", "(?P<language>[^.]+)")
    found = re.fullmatch(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^.]+)", pattern), path)
    if not found:
        return None
    filled, wildcards = measure._asdict(), found.groupdict()
    language = wildcards.pop("language", "")
    for key, (name, text) in product(("words", "path", "n", "chance"), wildcards.items()):
        filled[key] = filled[key].replace("{" + name + "}", text)
    filled["words"] = filled["words"].replace(", 0 examples", "").replace(", 1 examples", ", 1 example")
    return Measure(**filled), language


def find(path):
    """The measure of a full path: -> (Measure, language) as in match, None if tables.tsv has none."""
    return next((found for measure in MEASURES if (found := match(measure, path))), None)


def measured(summaries):
    """The measures that some of the summaries may hold, with their wildcards filled in."""
    paths = [path for summary in summaries for path in leaves(summary)]
    for measure in MEASURES:
        if re.search(r"{\w", measure.path):
            filled = [found[0] for path in paths if (found := match(measure, path))]
            yield from dict.fromkeys(filled)
        else:
            yield measure


# --- cells --------------------------------------------------------------------------------------------------

def number(found, digits):
    form = ".1e" if found and abs(found) >= 1e6 else f".{digits}f"
    return "" if found is None else f"{found:{form}}"


def spread(summaries, path, digits):
    """Mean ± sample standard deviation over seeds as text, "" if a seed has no such number."""
    found = [value(s, path) for s in summaries]
    if None in found or not found:
        return ""
    text = number(np.mean(found), digits)
    return f"{text} ± {number(np.std(found, ddof=1), digits)}" if len(found) > 1 else text


def first(summaries, paths, languages):
    """The first number that some summary has at one of the paths, separated by spaces; else None."""
    places = [path.format(language) for path in paths.split() for language in languages]
    found = [value(summary, place) for place in places for summary in summaries]
    return next((number for number in found if number is not None), None)


def chance(summaries, measure, languages=("",)):
    """The result of a random choice, None if it is not known."""
    if re.fullmatch(r"[\d.]+", measure.chance):
        return float(measure.chance)
    return first(summaries, measure.chance, languages)


def items(summaries, measure, languages):
    """The number of test items as text, a range if languages, or the summaries with that measure, differ."""
    found = {first([summary], measure.n, [language]) for summary in summaries for language in languages
             if value(summary, measure.path.format(language)) is not None} - {None}
    return "–".join(f"{n:,}" for n in sorted({min(found), max(found)})) if found else ""


def cells(measure, summaries, languages):
    """The numbers of a measure in each summary and language, then its chance and n, all as text."""
    shown, random = summaries, number(chance(summaries, measure, languages), 3)
    if measure.path == "tasks_average.{}":                     # absent where English is not within reach
        shown = [s if (value(s, "tasks_average.en") or 0) >= IN_REACH else {} for s in summaries]
    numbers = [number(value(summary, measure.path.format(name)), measure.digits)
               for summary in shown for name in languages]
    return numbers, random, items(summaries, measure, languages)


def table(head, rows):
    """Markdown whose columns are padded, so that it also reads well in a terminal."""
    cells = [list(map(str, row)) for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for name, *others in cells:
        padded = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        lines.append("| " + " | ".join(padded) + " |")
    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])


# --- tables -------------------------------------------------------------------------------------------------

def show(summary, joint=()):
    """The results of one run as text.  joint: summaries of joint training, by seed, to compare them with."""
    tables, texts = {}, []
    if "baselines" in summary:
        texts.append(f"{HOW_TO_READ['prepared folder']}\n{by_language({'this run': summary})}")
    for measure in measured([summary]) if not texts else ():
        names = summary["languages"] if "{}" in measure.path else ["all languages"]
        numbers, random, n = cells(measure, [summary], names)
        if any(numbers):
            known = [spread(joint, measure.path.format(name), measure.digits) for name in names]
            heads = [measure.group, *names, *(f"joint: {name}" for name in names), "chance", "n"]
            tables.setdefault(measure.group, [heads]).append(
                [f"{measure.words} {measure.better}", *numbers, *known, random, n])
    for group, (heads, *rows) in tables.items():
        used = [i for i, column in enumerate(zip(*rows)) if any(column)]         # no empty columns
        head, *rows = [[row[i] for i in used] for row in (heads, *rows)]
        texts.append(f"{HOW_TO_READ[group]}\n{table(head, rows)}")
    texts.append(f"{CAPTION}; joint: joint training, mean ± sd over {len(joint)} seeds" if joint else CAPTION)
    for name, found in summary.get("adapt", {}).items():
        curve = list(found["perplexity"].items())
        shown = dict(curve[round(i * (len(curve) - 1) / 5)] for i in range(6))
        texts.append(f"perplexity of {name} while adapting: " + ", ".join(
            f"{perplexity:.2f} (step {step})" for step, perplexity in shown.items()))
    memory = f"; peak memory: {summary['peak_memory_gb']} GiB" if "peak_memory_gb" in summary else ""
    return "\n\n".join([*texts, f"minutes: {summary['minutes']}{memory}"])


def by_language(runs):
    """Table of runs, {name: summary}, and of baselines that need no model: a row per measure and language."""
    summaries = list(runs.values())
    languages = list(dict.fromkeys(name for summary in summaries for name in summary["languages"]))
    baselines = model_free(max(summaries, key=lambda s: ("baselines" in s, len(s["languages"]))))
    rows = []
    for measure in measured(summaries):
        for name in languages if "{}" in measure.path else [""]:
            numbers, random, n = cells(measure, [*summaries, *baselines.values()], [name])
            if any(numbers[:len(runs)]):
                unit = "character" if any(name in s.get("in_characters", ()) for s in summaries) else "word"
                words = measure.words.replace("per word", f"per {unit}")
                rows.append([f"{words} {measure.better}", name, n, random, *numbers])
    heads = [*runs, *(f"model-free: {name}" for name in baselines)]
    return table(["measure", "language", "n", "chance", *heads], rows)


def systems_table(systems, columns):
    """Table of a study, {system: summaries of its seeds}, with the numbers of columns, [(path, digits)]."""
    known = [summaries[0] for summaries in systems.values()]
    lines = systems | {f"model-free: {name}": [found] for name, found in model_free(known[0]).items()}
    few = len(systems) <= len(columns)                         # few are the table's columns, many its rows
    shown = [["measure" if few else "system", *lines, "chance", "n"]]            # columns
    for path, digits in columns:
        cells = [spread(summaries, path, digits) for summaries in lines.values()]
        if any(cells[:len(systems)]):
            measure, language = find(path)
            random = number(chance(known, measure, [language]), digits)
            shown.append([heading(path), *cells, random, items(known, measure, [language])])
    rows = [row for row in zip(*shown) if any(row[1:]) or row[0] in systems]
    head, *rows = zip(*rows) if few else rows
    return table(head, rows)


def heading(path):
    """The name of a number in tables, such as "perplexity (en) ↓"."""
    measure, language = find(path)
    words = f"{measure.words} ({language})" if language else measure.words
    return f"{words} {measure.better}"


def model_free(summary):
    """The baselines of a summary that need no model, in the form of summaries: -> {name: summary}."""
    def pick(lines, keys):
        """{language: {key: result}} -> the result of the first of the keys that each language has."""
        found = {name: [line[key] for key in keys if key in line] for name, line in lines.items()}
        return {name: results[0] for name, results in found.items() if results}

    result, baselines = {}, summary.get("baselines", {})
    for title, keys in MODEL_FREE.items() if baselines else ():
        transfer = {task: pick(lines, keys) for task, lines in baselines.get("tasks", {}).items()}
        tasks, pairs = {}, {}
        for task, shares in transfer.items():
            tasks[task] = {"text": {name: {"0": dict(accuracy=share, per_token=share)}
                                    for name, share in shares.items()}}
        for name, found in pick(baselines["retrieval"], keys).items():
            pairs[name] = found | {f"centred_{key}": share for key, share in found.items()}
        result[title] = dict(transfer=transfer, probe=transfer, tasks=tasks, sentences=pairs,
                             sentences_embedding=pairs)
    return result


def plan(cfg, summary, out, corpus, dictionary, threads):
    """What a run is about to do, in three lines.  summary holds what is known before training."""
    untried = " (its settings are untested)" if cfg.preset in UNTRIED else ""
    model = cfg.pretrained or f"preset {cfg.preset}"
    counts = ", ".join(f"{name} {len(corpus.streams[name, 'train']):,}" for name in summary["languages"])
    stages = ", ".join(f"{stage} {steps:,}" for stage, steps in cfg.stages.items()) or "none"
    faster = " (faster on this device)" if cfg.dtype == "auto" and summary["dtype"] == "bfloat16" else ""
    return (f"{cfg.method}, {model}{untried}: {summary['parameters']:,} parameters; "
            f"{summary['device']}, threads: {threads}, {summary['dtype']}{faster}\n"
            f"tokens of text: {counts}; vocabulary: {corpus.base_vocab:,} tokens per language; "
            f"dictionary: {len(dictionary or ()):,} words\n"
            f"steps: {stages}; {summary['tokens']:,} tokens of text in rows of "
            f"{cfg.batch_size} x {cfg.context_len}; writes {out}/")


def compare(folders, out):
    """Compare finished runs in a table, out/report.md, and curves, out/report.svg: -> the text to print."""
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    runs = [RunFolder(folder) for folder in folders]
    summaries = [run.read("summary.json") for run in runs]
    for folder, summary in zip(folders, summaries):
        refuse(summary is None, f"{folder}/summary.json is missing: give the folder of a finished run")
    text = f"{by_language(dict(zip(names, summaries)))}\n\n{CAPTION}"
    files = {out / "report.md": text + "\n",
             out / "report.svg": curves([(name, run.rows()) for name, run in zip(names, runs)])}
    out.mkdir(parents=True, exist_ok=True)
    written = [path for path, content in files.items() if content]               # curves need two rows
    for path in written:
        path.write_text(files[path], encoding="utf-8")
    return f"{text}\n\nwritten to {', '.join(map(str, written))}"
