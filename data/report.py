"""Names of runs; finished runs -> tables and curves, from what they wrote: summary.json and log.jsonl.

  default_out, plan    where a run writes, and what it is about to do
  value, columns       a number of a summary by its path; the table of several runs
  show, compare, curves, scatter
"""
import html
import itertools
import json
from pathlib import Path

import numpy as np

# What the table of a paper shows: heading, path into summary.json, digits.
COLUMNS = {
    "prealign": [
        ("ppl en", "perplexity.en", 3), ("ppl clone", "perplexity.clone", 3),
        ("knowledge en", "knowledge.en", 2), ("knowledge clone", "knowledge.clone", 2),
        ("asked clone, answered en", "knowledge_mixed.clone-en", 2),
        ("tasks en", "tasks_average.en", 2), ("tasks clone", "tasks_average.clone", 2),
        ("transfer nli en", "transfer.nli.en", 2), ("transfer nli clone", "transfer.nli.clone", 2),
        ("word P@1", "word_retrieval", 2), ("unseen P@1", "unseen_word_retrieval", 2),
        ("sentence P@1", "sentence_retrieval", 2),
        ("clone mass", "foreign_mass_in_english", 5),
    ],
    "forget": [
        ("ppl en", "perplexity.en", 2), ("ppl clone", "perplexity.clone", 2),
        ("ppl new", "perplexity.new", 2), ("ppl new, 50 updates", "adapt.new.perplexity.50", 1),
        ("ppl other orders", "perplexity_in_other_order.en", 0),
        ("knowledge en", "knowledge.en", 2), ("knowledge new", "knowledge.new", 2),
        ("tasks en", "tasks_average.en", 2), ("tasks new", "tasks_average.new", 2),
        ("self-similarity en", "self_similarity.en", 3), ("self-similarity new", "self_similarity.new", 3),
    ],
    "align": [
        ("ppl en", "perplexity.en", 2), ("ppl clone", "perplexity.clone", 2),
        ("families en", "families_average.en.0", 2), ("clone", "families_average.clone.0", 2),
        ("clone, 5-shot", "families_average.clone.5", 2),
        ("instructed en", "instructed_average.own.en.0", 2), ("clone ", "instructed_average.own.clone.0", 2),
        ("clone, asked in English", "instructed_average.en.clone.0", 2),
        ("knowledge clone", "knowledge.clone", 2),
        ("in the language", "answer_language.en-clone.0", 2), ("right", "answer_right.en-clone.0", 2),
        ("BLEU en-clone", "translation.en-clone.0", 1), ("clone-en", "translation.clone-en.0", 1),
        ("en-clone, 1-shot", "translation.en-clone.1", 1), ("ROUGE-1", "summary_rouge1.en-clone", 2),
        ("sentence P@1", "sentence_retrieval", 2), ("alignment", "alignment", 2),
        ("uniformity", "uniformity", 2), ("P@1 as compared", "mcl.clone.retrieval", 2),
    ],
    "real": [
        ("ppl/word en", "perplexity_per_word.en", 1), ("de", "perplexity_per_word.de", 0),
        ("retrieval de-en", "retrieval.de.to_english", 3), ("en-de", "retrieval.de.from_english", 3),
        ("by embeddings de-en", "retrieval_embedding.de.to_english", 3),
        ("lexicon P@1", "bli.de.p1", 3),
        ("scene en", "transfer.scene.en", 2), ("scene de", "transfer.scene.de", 2),
        ("probed", "probe.scene.de", 2),
        ("who de", "transfer.who.de", 2), ("probed ", "probe.who.de", 2),
        ("same picture de", "tasks.same.text.de.0.accuracy", 2),
        ("completion de", "tasks.completion.text.de.0.per_token", 2),
        ("in German", "answer_language.en-de.0", 2), ("BLEU en-de", "translation.en-de.0", 1),
        ("de-en", "translation.de-en.0", 1),
    ],
}


# Further tables: of which systems (how their names begin), and their columns.
MORE_COLUMNS = {"align": [
    ("", [(f"{task} en", f"tasks.{task}.lexical.en.0.accuracy", 2)
          for task in ("nli", "paraphrase", "cause", "ending", "coreference", "question")]
     + [(f"{task} clone", f"tasks.{task}.lexical.clone.0.accuracy", 2)
        for task in ("nli", "paraphrase", "cause", "ending", "coreference", "question")]
     + [("within reach, clone", "tasks_average.clone", 2)]),
    ("five languages", [(f"{words} {name}", path.format(name), digits)
                        for words, path, digits in (("ppl", "perplexity.{}", 2),
                                                    ("families", "families_average.{}.0", 2),
                                                    ("P@1 as compared", "mcl.{}.retrieval", 2),
                                                    ("answers in", "answer_language.en-{}.0", 2))
                        for name in ("clone", "shuffled-4", "clone2", "reversed")]),
]}

# The same of a run on a prepared folder: measure, path with {} for a language, digits, where its n is.
REAL = [
    ("perplexity per word", "perplexity_per_word.{}", 1, "perplexity_n.{}"),
    ("bits per byte", "bits_per_byte.{}", 3, "perplexity_n.{}"),
    ("retrieval to English", "retrieval.{}.to_english", 3, "retrieval.{}.n"),
    ("retrieval from English", "retrieval.{}.from_english", 3, "retrieval.{}.n"),
    ("to English, embeddings", "retrieval_embedding.{}.to_english", 3, "retrieval_embedding.{}.n"),
    ("from English, embeddings", "retrieval_embedding.{}.from_english", 3, "retrieval_embedding.{}.n"),
    ("lexicon P@1", "bli.{}.p1", 3, "bli.{}.n"),
    ("lexicon P@5", "bli.{}.p5", 3, "bli.{}.n"),
    ("lexicon P@1, middle level", "bli_middle.{}.p1", 3, "bli_middle.{}.n"),
    ("scene", "transfer.scene.{}", 3, "transfer_n.scene.{}"),
    ("scene, probed", "probe.scene.{}", 3, "transfer_n.scene.{}"),
    ("who", "transfer.who.{}", 3, "transfer_n.who.{}"),
    ("who, probed", "probe.who.{}", 3, "transfer_n.who.{}"),
    ("same picture", "tasks.same.text.{}.0.accuracy", 3, "tasks.same.text.{}.0.n"),
    *((task, f"tasks.{task}.text.{{}}.0.per_token", 3, f"tasks.{task}.text.{{}}.0.n")
      for task in ("completion", "pawsx", "xnli", "xcopa", "xstorycloze")),
    ("BLEU from English", "translation.en-{}.0", 1, ""), ("BLEU to English", "translation.{}-en.0", 1, ""),
    ("written in the language", "answer_language.en-{}.0", 3, ""),
]
# What needs no model: by name, its lines in baselines.json.
MODEL_FREE = {
    "majority": ("majority",),
    "shared spelling": ("trigrams", "naive_bayes", "overlap"),
    "dictionary": ("dictionary", "naive_bayes_dictionary", "overlap_dictionary"),
    "learned dictionary": ("learned", "naive_bayes_learned", "overlap_learned"),
    "counts in the language": ("naive_bayes_own", "cooccurrence"),
}


def data_name(cfg):
    return Path(cfg.data).resolve().name if cfg.data else Path(cfg.text).stem if cfg.text else "synthetic"


def default_out(cfg):
    adapted = f"-to-{cfg.adapt_to}" if cfg.adapt_to else ""
    return Path(f"runs/{cfg.method}{adapted}-{cfg.preset}-{data_name(cfg)}-s{cfg.seed}")


def plan(cfg, summary, out, corpus, dictionary, threads):
    """What is about to happen, in three lines, from what the summary already holds."""
    why = "" if cfg.dtype != "auto" else ", supported here"
    if why and summary["device"] == "cpu":
        why = ", by a timed product"
    counts = ", ".join(f"{name} {len(corpus.streams[name, 'train']):,}" for name in summary["languages"])
    sentences = f", {cfg.afp_steps} steps on sentences" if "align" in cfg.methods else ""
    aligning = f"{cfg.align_steps} alignment steps, " if "prealign" in cfg.methods else ""
    return (f"{cfg.method}, preset {cfg.preset}: {summary['parameters']:,} parameters; "
            f"{summary['device']}, {threads} threads, {summary['dtype']}{why}\n"
            f"tokens: {counts}; {corpus.base_vocab:,} per vocabulary; "
            f"dictionary: {len(dictionary or ()):,} words\n"
            f"{aligning}{cfg.pretrain_steps} pretraining steps of {cfg.batch_size} x {cfg.context_len} "
            f"tokens ({summary['tokens']:,} in all){sentences}; writes {out}/")


def value(summary, path):
    """A number by its path, None where the run did not measure it.

    `log ` takes the logarithm, `middle` the middle level, `new` the language attached after pretraining.
    """
    if path.startswith("log "):
        found = value(summary, path[4:])
        return None if found is None else float(np.log(found))
    found = summary
    for key in path.split("."):
        if key == "new":
            key = next(iter(summary.get("adapt", {})), key)
        if isinstance(found, list):
            found = found[len(found) // 2 - 1 if key == "middle" else int(key)]   # embedding, blocks, head
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            return None
    return found


def table(head, rows):
    """Markdown, with columns padded so that it also reads well in a terminal."""
    cells = [list(map(str, row)) for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w)
                               for i, (c, w) in enumerate(zip(row, widths))) + " |"
             for row in cells]
    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def without_a_model(summary):
    """The lines of baselines.json in the form of a summary: -> {name: summary}, the first one chance."""
    chance, lines = summary.get("chance", {}), summary["baselines"]
    retrieval, words = summary.get("retrieval", {}), summary.get("bli", {})
    names, n_5 = summary["languages"], {name: min(5 * w["chance"], 1) for name, w in words.items()}
    bli = {name: dict(p1=w["chance"], p5=n_5[name]) for name, w in words.items()}

    def of_tasks(by_task):
        """{task: {language: share}} -> where shares of tasks are in a summary."""
        return dict(transfer=by_task, probe=by_task, tasks={task: {"text": {
            name: {"0": dict(accuracy=share, per_token=share)} for name, share in by_language.items()}}
            for task, by_language in by_task.items()})

    guessed = of_tasks({task: dict.fromkeys(names, share) for task, share in chance.items()})
    by_chance = {name: dict(to_english=r["chance"], from_english=r["chance"])
                 for name, r in retrieval.items()}
    found = {"chance": guessed | dict(bli=bli, bli_middle=bli, retrieval=by_chance,
                                      retrieval_embedding=by_chance)}
    for title, keys in MODEL_FREE.items():
        def first(line, keys=keys):
            return next((line[key] for key in keys if key in line), None)

        by_task = {task: {name: first(line) for name, line in by_language.items() if first(line) is not None}
                   for task, by_language in lines["tasks"].items()}
        pairs = {name: first(line) for name, line in lines["retrieval"].items() if first(line)}
        found[title] = of_tasks(by_task) | dict(retrieval=pairs, retrieval_embedding=pairs)
    return found


def real_table(runs):
    """Runs on a prepared folder, {name: summary}, beside what needs no model, by measure and language."""
    first = max(runs.values(), key=lambda summary: len(summary["languages"]))
    beside, rows = without_a_model(first), []
    shown = [*runs.values(), *beside.values()]
    for heading, path, digits, n in REAL:
        for name in first["languages"]:
            found = [value(summary, path.format(name)) for summary in shown]
            if any(mine is not None for mine in found[:len(runs)]):
                rows.append([heading, name, value(first, n.format(name)) or "",
                             *(number(mine, digits) for mine in found)])
    return table(["measure", "language", "n", *runs, *beside], rows)


def show(summary):
    """The results of one run for the terminal."""
    if "baselines" in summary:
        return real_table({"this run": summary}) + closing(summary)
    languages = summary["languages"]

    def line(name, numbers, chance=None):
        chance = "" if chance is None else f"{chance:.3f}"
        return [name, *(f"{numbers[lang]:.3f}" if lang in numbers else "" for lang in languages), chance]

    rows = [line("perplexity", summary["perplexity"]), line("bits per byte", summary["bits_per_byte"])]
    for key in ("knowledge", "knowledge_told_in_clone", "knowledge_told_in_both"):
        told = "told in English" if key == "knowledge" else key.removeprefix("knowledge_").replace("_", " ")
        rows.append(line(f"knowledge, {told}", summary[key], summary["chance"]["knowledge"]))
    for task, rungs in summary["tasks"].items():
        for rung, scores in rungs.items():
            for k in scores[languages[0]]:
                name = f"{task}, {rung}" + (f", {k} shots" if k != "0" else "")
                rows.append(line(name, {lang: s[k]["accuracy"] for lang, s in scores.items()},
                                 summary["chance"][task]))
    rows.append(line("tasks within reach, average", summary["tasks_average"]))
    for k in summary.get("families_average", {}).get("en", {}):
        rows.append(line(f"five families, lexical, {k} shots, average",
                         {name: by_shots[k] for name, by_shots in summary["families_average"].items()}))
        for key, words in (("en", "in English"), ("own", "in the language")):
            asked = summary.get("instructed_average", {}).get(key)
            if asked:
                rows.append(line(f'the same after "Answer in" {words}',
                                 {name: by_shots[k] for name, by_shots in asked.items()}))
    for task, scores in summary.get("transfer", {}).items():
        rows.append(line(f"{task}, fine-tuned on English", scores, summary["chance"][task]))
    text = table(["measure", *languages, "chance"], rows)
    if "answer_language" in summary:
        text += "\n\n" + written(summary)
    return text + closing(summary)


def closing(summary):
    """What stands below the table of a run."""
    text = ""
    for name, found in summary.get("adapt", {}).items():
        steps = list(found["perplexity"])
        shown = [steps[round(i * (len(steps) - 1) / 5)] for i in range(6)]
        text += f"\n\nperplexity of {name} while adapting: " + ", ".join(
            f"{found['perplexity'][s]:.2f} (step {s})" for s in dict.fromkeys(shown))
    if "word_cosine" in summary:
        cosines = " ".join(f"{c:.2f}" for c in summary["word_cosine"])
        text += f"\n\nword cosine, level 0 to {len(summary['word_cosine']) - 1}: {cosines}"
    for key in ("word_retrieval", "unseen_word_retrieval", "sentence_retrieval", "foreign_mass_in_english"):
        if key in summary:
            text += f"\n{key.replace('_', ' ')}: {summary[key]:.4f}"
    return text + f"\nminutes: {summary['minutes']}"


def written(summary):
    """Table of what the model wrote: a row per direction, a column per measure and number of examples."""
    columns = [(name, key, k) for name, key in (
        ("BLEU", "translation"), ("in the language", "answer_language"), ("right", "answer_right"))
        for k in next(iter(summary.get(key, {}).values()), {})]
    rows = [[pair, *(number(value(summary, f"{key}.{pair}.{k}"), 2) for _, key, k in columns),
             number(value(summary, f"summary_rouge1.{pair}"), 2)] for pair in summary["answer_language"]]
    return table(["asked-answered", *(f"{name}, {k} shots" for name, _, k in columns), "ROUGE-1"], rows)


def read_run(folder):
    """summary.json and the rows of log.jsonl.  Raises ValueError for a folder without results."""
    path = folder / "summary.json"
    if not path.exists():
        raise ValueError(f"{path} is missing: --report takes folders of finished runs, "
                         "such as runs/prealign-tiny-synthetic-s0")
    log = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(path.read_text(encoding="utf-8")), [json.loads(line) for line in log]


def compare(folders, out):
    """Table of runs, one row each, and a picture of their curves in out/report.svg."""
    names = [folder.name for folder in folders]
    names = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    runs = [(name, *read_run(folder)) for name, folder in zip(names, folders)]
    real = {name: summary for name, summary, _ in runs if "baselines" in summary}
    made_up, shown = {name: [summary] for name, summary, _ in runs if name not in real}, {}
    for column in sum(COLUMNS.values(), []):
        shown.setdefault(column[1], column)                    # a number of two papers stands once
    tables = [columns("run", made_up, [*shown.values()])] if made_up else []
    text = "\n\n".join(tables + ([real_table(real)] if real else []))
    out.mkdir(exist_ok=True)
    (out / "report.svg").write_text(curves([(name, log) for name, _, log in runs]), encoding="utf-8")
    (out / "report.md").write_text(text + "\n", encoding="utf-8")
    return text + f"\n\nwritten to {out}/report.md, curves to {out}/report.svg"


def columns(head, systems, shown):
    """A row per system (name: summaries of its seeds), and the columns of COLUMNS that hold anything."""
    rows = {name: [spread(summaries, path, digits) for _, path, digits in shown]
            for name, summaries in systems.items()}
    kept = [i for i, _ in enumerate(shown) if any(row[i] for row in rows.values())]
    heads = [heading for heading, _, _ in shown]
    return table([head, *(heads[i] for i in kept)],
                 [[name, *(row[i] for i in kept)] for name, row in rows.items()])


def number(found, digits):
    return "" if found is None else f"{found:.{digits}f}"


def spread(summaries, path, digits):
    """Mean ± sample standard deviation over seeds."""
    found = [value(s, path) for s in summaries]
    if None in found:
        return ""
    return f"{np.mean(found):.{digits}f}" + (
        f" ± {np.std(found, ddof=1):.{digits}f}" if len(found) > 1 else "")


COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e"]


def validation_losses(row):
    """Of a row of the log: loss per language, {} outside pretraining."""
    return row.get("val", {}) if row["stage"] == "pretrain" else {}


def middle_cosine(row):
    """Of a row of the log: cosine of word pairs at the middle level, {} outside pretraining."""
    if "word_cosine" not in row or row["stage"] != "pretrain":
        return {}
    return {"cosine": value(row, "word_cosine.middle")}


def training_loss(row):
    """Of a row of the log: loss on the text of the batches since the last row, {} outside pretraining."""
    return {"lm": row["lm"]} if "lm" in row and row["stage"] == "pretrain" else {}


def new_language_loss(row):
    """Of a row of the log: validation loss of the language being attached, {} outside adapting."""
    return {"new": [*row["val"].values()][-1]} if row["stage"] == "adapt" else {}


# title, what of a row, whether the scale begins at zero; a chart that no run fills is left out
CHARTS = [
    ("validation loss, nats per token (dashed: clone)", validation_losses, False),
    ("cosine of word pairs, middle level", middle_cosine, True),
    ("training loss, nats per token", training_loss, False),
    ("new language: validation loss over updates", new_language_loss, False),
]


def series(log, pick):
    """Rows of one run -> one list of points (step, y) for each key of pick(row)."""
    points = {}
    for row in log:
        for key, y in pick(row).items():
            points.setdefault(key, []).append((row["step"], y))
    return list(points.values())


def chart(title, lines, left, top, from_zero):
    """One chart as pieces of SVG: title, grid and lines (colour, whether dashed, points)."""
    width, height = 400, 260
    everything = [xy for *_, points in lines for xy in points]
    (_, y0), (x1, y1) = np.min(everything, axis=0), np.max(everything, axis=0)
    y0, y1 = min(y0, 0) if from_zero else y0, y1 + 1e-9

    def across(x):
        return left + x / max(x1, 1) * width

    def down(y):
        return top + (y1 - y) / (y1 - y0) * height

    parts = [f'<text x="{left}" y="{top - 15}" font-weight="bold">{title}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = y0 + share * (y1 - y0)
        parts.append(
            f'<line x1="{left}" x2="{left + width}" y1="{down(y):.1f}" y2="{down(y):.1f}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{down(y) + 4:.1f}" text-anchor="end">{y:.2f}</text>'
            f'<text x="{left + share * width}" y="{top + height + 18}" text-anchor="middle">'
            f'{share * x1:.0f}</text>')
    for colour, dashed, points in lines:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
    return parts


def curves(runs):
    """The CHARTS that hold anything as one SVG, two a row, and a legend: runs (name, log rows)."""
    colours = [COLOURS[i % len(COLOURS)] for i, _ in enumerate(runs)]
    parts, drawn = [], 0
    for title, pick, from_zero in CHARTS:
        lines = [(colour, dashed, points) for colour, (_, log) in zip(colours, runs)
                 for dashed, points in enumerate(series(log, pick))]
        if lines:
            parts += chart(title, lines, 60 + drawn % 2 * 480, 40 + drawn // 2 * 330, from_zero)
            drawn += 1
    bottom = 20 + (drawn + 1) // 2 * 330
    for i, (name, _) in enumerate(runs):
        x, y = 60 + i % 3 * 300, bottom + i // 3 * 18
        parts.append(f'<rect x="{x}" y="{y - 9}" width="14" height="4" fill="{colours[i]}"/>'
                     f'<text x="{x + 20}" y="{y - 3}">{html.escape(name)}</text>')
    height = bottom + 10 + (len(runs) + 2) // 3 * 18
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}" '
            'font-family="sans-serif" font-size="12">'
            f'<rect width="960" height="{height}" fill="white"/>' + "".join(parts) + "</svg>\n")


def principal_plane(states):
    """Coordinates along the two directions of largest variance, their share of it: (N, D) -> (N, 2), ()."""
    centred = states - states.mean(axis=0)                                       # (N, D)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T, (sizes[:2] ** 2).sum() / max((sizes ** 2).sum(), 1e-30)       # (N, 2), ()


def scatter(states, level, pool):
    """Sentences on their principal plane as SVG, a colour per language: {language: (N, D)}; row i of every
    language is the same sentence, and thin lines join it to the first language's.  level, pool: whose states
    they are."""
    size, top = 400, 40
    title = f"sentences in each language, level {level}, {pool} token" + "s" * (pool != "last")
    points, share = principal_plane(np.concatenate([*states.values()]))          # (languages * N, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    # both axes have one scale, or small differences along the second would look large
    points = size / 2 + (points - (low + high) / 2) / max((high - low).max(), 1e-9) * (size - 20)
    groups = dict(zip(states, np.split(points, len(states))))
    first, *others = groups.values()
    parts = [f'<line x1="{x:.1f}" y1="{y + top:.1f}" x2="{u:.1f}" y2="{v + top:.1f}" stroke="#ddd"/>'
             for group in others for (x, y), (u, v) in zip(first, group)]
    for colour, (name, group) in zip(itertools.cycle(COLOURS), groups.items()):
        parts += [f'<circle cx="{x:.1f}" cy="{y + top:.1f}" r="3" fill="{colour}" fill-opacity="0.7"/>'
                  for x, y in group]
        at = top + size + 20 + 18 * list(groups).index(name)
        parts.append(f'<circle cx="16" cy="{at - 4}" r="4" fill="{colour}"/>'
                     f'<text x="28" y="{at}">{html.escape(name)}</text>')
    height = top + size + 30 + 18 * len(groups)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {height}" '
            f'font-family="sans-serif" font-size="12"><rect width="{size}" height="{height}" fill="white"/>'
            f'<text x="10" y="18" font-weight="bold">{html.escape(title)}</text>'
            f'<text x="10" y="34">{share:.0%} of the variance</text>' + "".join(parts) + "</svg>\n")
