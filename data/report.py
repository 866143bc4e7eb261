"""Names of runs; finished runs -> tables, verdicts and curves, from what they wrote: summary.json, log.jsonl.

  SYSTEMS    what --reproduce runs for each paper
  CLAIMS     the papers' claims as differences of measured numbers, with the rule that judges them
  default_out, plan    where a run writes, and what it is about to do
  show, compare, verdicts, conclude, curves, scatter
"""
import html
import itertools
import json
from pathlib import Path

import numpy as np

PUBLISHED = "--method prealign --keep_aligned 0 --align_weight 0.5 --code_switch 0.05"
SYSTEMS = {
    "prealign": {
        # for joint, the coverage only says which words count as unseen
        "joint": "--method baseline --dictionary_coverage 0.75",
        "prealign": "--method prealign",
        "published": PUBLISHED,
        "init only": PUBLISHED + " --code_switch 0 --transfer_steps 0",
        "switching only": PUBLISHED + " --align_steps 0 --transfer_steps 0",
        "vanilla": PUBLISHED + " --vanilla --transfer_steps 0",
        "shuffled": "--method prealign --dictionary shuffled --transfer_steps 0",
        "dictionary 75 %": "--method prealign --dictionary_coverage 0.75 --transfer_steps 0",
        # and with as much clone text as English text, which --reproduce adds
        "skyline": "--method baseline --transfer_steps 0",
    },
}

# What a table shows: heading, path into summary.json, digits.
COLUMNS = [
    ("ppl en", "perplexity.en", 3), ("ppl clone", "perplexity.clone", 3),
    ("knowledge en", "knowledge.en", 2), ("knowledge clone", "knowledge.clone", 2),
    ("asked clone, answered en", "knowledge_mixed.clone-en", 2),
    ("tasks en", "tasks_average.en", 2), ("tasks clone", "tasks_average.clone", 2),
    ("transfer nli en", "transfer.nli.en", 2), ("transfer nli clone", "transfer.nli.clone", 2),
    ("word P@1", "word_retrieval", 2), ("unseen P@1", "unseen_word_retrieval", 2),
    ("sentence P@1", "sentence_retrieval", 2),
    ("clone mass", "foreign_mass_in_english", 5),
]

# claim: paper's words in short, systems compared, number, sign of the claimed direction, smallest difference
# that counts
CLAIMS = {
    "prealign": [
        ("P1", "clone perplexity lower than joint (log ratio)",
         "prealign", "joint", "log perplexity.clone", -1, 0.05),
        ("P1", "clone perplexity lower than joint (log ratio)",
         "published", "joint", "log perplexity.clone", -1, 0.05),
        ("P1", "English perplexity not worse (log ratio)",
         "prealign", "joint", "log perplexity.en", 0, 0.02),
        ("P1", "English perplexity not worse (log ratio)",
         "published", "joint", "log perplexity.en", 0, 0.02),
        ("P2", "zero-shot transfer of nli, clone",
         "prealign", "joint", "transfer.nli.clone", 1, 0.05),
        ("P2", "zero-shot transfer of nli, clone",
         "published", "joint", "transfer.nli.clone", 1, 0.05),
        ("P3", "knowledge told in English, asked in the clone",
         "prealign", "joint", "knowledge.clone", 1, 0.05),
        ("P3", "knowledge told in English, asked in the clone",
         "published", "joint", "knowledge.clone", 1, 0.05),
        ("P4", "both parts better than one (log clone perplexity)",
         "published", "init only", "log perplexity.clone", -1, 0.0),
        ("P4", "both parts better than one (log clone perplexity)",
         "published", "switching only", "log perplexity.clone", -1, 0.0),
        ("P4", "both parts better than one (knowledge)",
         "published", "init only", "knowledge.clone", 1, 0.0),
        ("P4", "both parts better than one (knowledge)",
         "published", "switching only", "knowledge.clone", 1, 0.0),
        ("P5", "input-only switching writes less clone in English",
         "published", "vanilla", "log foreign_mass_in_english", -1, 0.0),
        ("P5", "input-only >= vanilla (log clone perplexity)",
         "published", "vanilla", "log perplexity.clone", -1, 0.0),
        ("P5", "input-only >= vanilla (knowledge)",
         "published", "vanilla", "knowledge.clone", 1, 0.0),
        ("P6", "cosine of pairs above joint (middle level)",
         "published", "joint", "word_cosine.middle", 1, 0.05),
        ("P6", "without switching the cosine decays further",
         "init only", "published", "word_cosine.middle", -1, 0.05),
        ("P7", "words left out are better aligned than under joint",
         "dictionary 75 %", "joint", "unseen_word_retrieval", 1, 0.05),
        ("P8", "a shuffled dictionary does not help (log clone perplexity)",
         "shuffled", "joint", "log perplexity.clone", 1, 0.0),
        ("P8", "a shuffled dictionary does not help (knowledge)",
         "shuffled", "joint", "knowledge.clone", -1, 0.0),
    ],
}


def data_name(cfg):
    return Path(cfg.text).stem if cfg.text else "synthetic"


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
            f"tokens: {counts}; {corpus.base_vocab:,} per vocabulary; dictionary: {len(dictionary):,} words\n"
            f"{aligning}{cfg.pretrain_steps} pretraining steps of {cfg.batch_size} x {cfg.context_len} "
            f"tokens ({summary['tokens']:,} in all){sentences}; writes {out}/")


def value(summary, path):
    """A number by its path, None where the run did not measure it.

    `log ` takes the logarithm, `middle` the middle level.
    """
    if path.startswith("log "):
        found = value(summary, path[4:])
        return None if found is None else float(np.log(found))
    found = summary
    for key in path.split("."):
        if isinstance(found, list):
            found = found[len(found) // 2 if key == "middle" else int(key)]
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


def show(summary):
    """The results of one run for the terminal."""
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
            asked = summary.get("instructed", {}).get(key, {}).values()
            if asked:
                rows.append(line(f'the same after "Answer in" {words}', {
                    name: float(np.mean([scores[name][k] for scores in asked])) for name in languages}))
    for task, scores in summary.get("transfer", {}).items():
        rows.append(line(f"{task}, fine-tuned on English", scores, summary["chance"][task]))
    text = table(["measure", *languages, "chance"], rows)
    if "answer_language" in summary:
        text += "\n\n" + written(summary)
    for name, found in summary.get("adapt", {}).items():
        steps = list(found["perplexity"])
        shown = [steps[round(i * (len(steps) - 1) / 5)] for i in range(6)]
        text += f"\n\nperplexity of {name} while adapting: " + ", ".join(
            f"{found['perplexity'][s]:.2f} (step {s})" for s in dict.fromkeys(shown))
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
    runs = [(folder.name, *read_run(folder)) for folder in folders]
    rows = [[name, *(number(value(s, path), digits) for _, path, digits in COLUMNS)] for name, s, _ in runs]
    text = table(["run", *(head for head, _, _ in COLUMNS)], rows)
    out.mkdir(exist_ok=True)
    (out / "report.svg").write_text(curves([(name, log) for name, _, log in runs]), encoding="utf-8")
    (out / "report.md").write_text(text + "\n", encoding="utf-8")
    return text + f"\n\nwritten to {out}/report.md, curves to {out}/report.svg"


def number(found, digits):
    return "" if found is None else f"{found:.{digits}f}"


def spread(summaries, path, digits):
    """Mean ± sample standard deviation over seeds."""
    found = [value(s, path) for s in summaries]
    if None in found:
        return ""
    return f"{np.mean(found):.{digits}f}" + (
        f" ± {np.std(found, ddof=1):.{digits}f}" if len(found) > 1 else "")


def judge(differences, sign, least):
    """The rule, fixed before any run: seeds are paired, d = (method - other) * sign of the claim.

    reproduced      every seed has d > 0 and the mean is at least `least`
    same direction  the mean is above one standard error, but not the above
    no difference   |mean| within one standard error or below a quarter of `least`
    opposite        the mean is below minus one standard error
    sign 0 claims "not worse": reproduced if the mean difference is below `least`, else opposite
    """
    d = np.array(differences) * (sign or 1)
    if sign == 0:
        return "reproduced" if d.mean() < least else "opposite"
    error = d.std(ddof=1) / np.sqrt(len(d)) if len(d) > 1 else 0.0
    if (d > 0).all() and d.mean() >= least:
        return "reproduced"
    if abs(d.mean()) <= max(error, least / 4):
        return "no difference"
    return "same direction" if d.mean() > 0 else "opposite"


def verdicts(paper, summaries):
    """The report of a paper: a row per system and a row per claim."""
    n = min(map(len, summaries.values()))
    rows = [[name, *(spread(s, path, digits) for _, path, digits in COLUMNS)]
            for name, s in summaries.items()]
    text = (f"Mean ± sd over {n} seeds.\n\n"
            + table(["system", *(head for head, _, _ in COLUMNS)], rows) + "\n\n")
    claims = []
    for claim, words, method, other, path, sign, least in CLAIMS[paper]:
        pairs = [(value(a, path), value(b, path)) for a, b in zip(summaries[method], summaries[other])]
        if any(None in pair for pair in pairs):
            continue
        d = [a - b for a, b in pairs]
        sd = f" ± {np.std(d, ddof=1):.3f}" if len(d) > 1 else ""
        claims.append([f"{claim} {words}", method, other, f"{np.mean(d):+.3f}{sd}", judge(d, sign, least)])
    if {"skyline", "prealign", "joint"} <= summaries.keys():
        closed = [(value(j, p) - value(a, p)) / (value(j, p) - value(s, p)) for p in ["log perplexity.clone"]
                  for j, a, s in zip(summaries["joint"], summaries["prealign"], summaries["skyline"])]
        text += ("Share of the gap in clone loss between joint and skyline that prealign closes: "
                 f"{np.mean(closed):.2f}\n\n")
    return text + table(["claim", "system", "against", "difference", "verdict"], claims) + "\n"


def conclude(paper, summaries, folder):
    """The report of a paper, written to folder/report-<paper>.md; returns the text to print."""
    text, path = verdicts(paper, summaries), folder / f"report-{paper}.md"
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(summaries), encoding="utf-8")
    return f"\n{text}\nwritten to {path}; every number behind it to {path.with_suffix('.json')}"


COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e"]


def validation_losses(row):
    """Of a row of the log: loss per language, {} where the row has none."""
    return row.get("val", {})


def middle_cosine(row):
    """Of a row of the log: cosine of word pairs at the middle level, {} outside pretraining."""
    if "word_cosine" not in row or row["stage"] != "pretrain":
        return {}
    return {"cosine": value(row, "word_cosine.middle")}


def series(log, pick):
    """Rows of one run -> one list of points (step, y) for each key of pick(row)."""
    points = {}
    for row in log:
        for key, y in pick(row).items():
            points.setdefault(key, []).append((row["step"], y))
    return list(points.values())


def chart(runs, title, pick, left, from_zero):
    """One chart as pieces of SVG: title, grid, and a line for each run and key of pick(row)."""
    top, width, height = 40, 400, 260
    lines = [(COLOURS[i % len(COLOURS)], j, points)
             for i, (_, log) in enumerate(runs) for j, points in enumerate(series(log, pick))]
    everything = [xy for *_, points in lines for xy in points] or [(0, 0), (1, 1)]
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
    for colour, j, points in lines:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 3"' if j else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
    return parts


def curves(runs):
    """Two charts as one SVG: validation loss per language, and cosine of word pairs at the middle level, over
    pretraining."""
    parts = chart(runs, "validation loss, nats per token (dashed: clone)", validation_losses, 60, False)
    parts += chart(runs, "cosine of word pairs, middle level", middle_cosine, 540, True)
    for i, (name, _) in enumerate(runs):
        x, y = 60 + i % 3 * 300, 350 + i // 3 * 18
        parts.append(f'<rect x="{x}" y="{y - 9}" width="14" height="4" fill="{COLOURS[i % len(COLOURS)]}"/>'
                     f'<text x="{x + 20}" y="{y - 3}">{html.escape(name)}</text>')
    height = 360 + (len(runs) + 2) // 3 * 18
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}" '
            'font-family="sans-serif" font-size="12">'
            f'<rect width="960" height="{height}" fill="white"/>' + "".join(parts) + "</svg>\n")


def principal_plane(states):
    """Coordinates along the two directions of largest variance: (N, D) -> (N, 2)."""
    centred = states - states.mean(axis=0)                                       # (N, D)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T                                                  # (N, 2)


def scatter(states, title):
    """Sentences on their principal plane as SVG, a colour per language: {language: (N, D)}; row i of every
    language is the same sentence, and thin lines join it to the first language's."""
    size, top = 400, 40
    points = principal_plane(np.concatenate(list(states.values())))              # (languages * N, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    points = 10 + (points - low) / np.maximum(high - low, 1e-9) * (size - 20)
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
            f'<text x="10" y="25" font-weight="bold">{html.escape(title)}</text>' + "".join(parts)
            + "</svg>\n")
