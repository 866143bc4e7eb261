"""Judge the claims of a study by its runs.

  judge      the rule for verdicts
  verdicts   the report of a study: tables of its systems, and a row per claim
  conclude   write the report and the numbers that it shows
  headlines  the table of the README, from data/results; `python -m data.lab.claims` prints it
"""
import json
from pathlib import Path

import numpy as np

from data.lab.studies import CLAIMS, COLUMNS
from data.lab.tables import CAPTION, find, heading, spread, systems_table, table, value

# A report reads these in addition to its columns and claims.
ALWAYS = ("seed", "preset", "data", "languages", "chance", "baselines", "adapt", "recovery", "word_cosine")


# --- claims -------------------------------------------------------------------------------------------------

def judge(differences, direction, margin):
    """The verdict on a claim.  The rule was written before the runs.

    differences: system less the other, one per seed (seeds are paired);  d: the same in the claimed direction

    reproduced      d > 0 in every seed, and its mean is at least the margin
    same direction  the mean is positive and neither of the others holds
    no difference   |mean| is at most one standard error, or a quarter of the margin
    opposite        the mean is below that
    not measured    a seed has no number
    A claim of "not higher" is reproduced if the mean difference is below the margin, else opposite.
    """
    d = np.array(differences, float)
    if np.isnan(d).any():
        return "not measured"
    if direction == "not higher":
        return "reproduced" if d.mean() < margin else "opposite"
    if direction == "lower":
        d = -d
    error = d.std(ddof=1) / np.sqrt(len(d)) if len(d) > 1 else 0.0
    if (d > 0).all() and d.mean() >= margin:
        return "reproduced"
    if abs(d.mean()) <= max(error, margin / 4):
        return "no difference"
    return "same direction" if d.mean() > 0 else "opposite"


def measured(summaries, system, path):
    """A number of a system in every seed: -> (seeds,), nan where it was not measured.

    "A - B", of systems or of numbers, is their difference.
    """
    if " - " in system:
        return np.subtract(*(measured(summaries, name, path) for name in system.split(" - ")))
    if " - " in path:
        return np.subtract(*(measured(summaries, system, part) for part in path.split(" - ")))
    # an array of floats turns None into nan
    return np.array([value(s, path) for s in summaries.get(system, [{}])], float)


def differences(summaries, claim):
    """The number of the claim's system less that of the other, in every seed: -> (seeds,)."""
    found = measured(summaries, claim.system, claim.number)
    return found - measured(summaries, claim.against, claim.number) if claim.against else found


def claims_table(study, summaries):
    """A row per claim of the study: what is claimed, the mean difference ± sd over seeds, the verdict."""
    claimed = {"higher": "≥ {:g}", "lower": "≤ -{:g}", "not higher": "< {:g}"}
    rows = []
    for claim in CLAIMS:
        if claim.study == study:
            d = differences(summaries, claim)
            verdict = judge(d, claim.direction, claim.margin)
            text = "" if verdict == "not measured" else f"{d.mean():+.3f}"
            if text and len(d) > 1:
                text += f" ± {d.std(ddof=1):.3f}"
            rows.append([f"{claim.claim} {claim.words}", claim.system, claim.against,
                         claimed[claim.direction].format(claim.margin), text, verdict])
    return table(["claim", "system", "against", "claimed", "difference", "verdict"], rows)


def headlines(results):
    """The claims of the README with their numbers: {study: {system: summaries}} -> table."""
    arrow, rows = {"higher": "↑", "lower": "↓", "not higher": "not ↑"}, []
    for claim in CLAIMS:
        if claim.headline:
            found, path = results[claim.study], claim.number.removeprefix("log ")
            verdict = judge(differences(found, claim), claim.direction, claim.margin)
            row = [claim.claim, claim.words.removesuffix(" (log ratio)"), arrow[claim.direction]]
            for name in (claim.against, claim.system):
                row += [name, spread(found[name], path, int(claim.headline))]
            rows.append([*row, len(found[claim.system]), verdict])
    return table(["", "claim", "", "against", "measured", "system", "measured", "n", "verdict"], rows)


def committed(folder=Path(__file__).parent.parent / "results"):
    """The numbers behind the README: -> {study: {system: summaries}}."""
    return {study: json.loads((folder / f"{study}-tiny.json").read_text(encoding="utf-8"))
            for study in COLUMNS}


# --- the report of a study ----------------------------------------------------------------------------------

def side_by_side(summaries, a, b, columns):
    """Two systems under the same conditions, "A, condition" and "B, condition", a row for each.

    -> the table, and the names of its systems, [(A's, B's), ...].  The ratio, B to A, is of geometric means.
    """
    rows, pairs = [], []
    for name in summaries:
        condition = name.removeprefix(a)
        if not name.startswith(a) or condition[:2] not in ("", ", ") or b + condition not in summaries:
            continue
        pairs.append((name, b + condition))
        row = [condition.removeprefix(", ") or "default"]
        for path, digits in columns:
            mine, theirs = (measured(summaries, system, f"log {path}") for system in pairs[-1])
            ratio = np.exp(np.mean(theirs - mine))
            row += [*(spread(summaries[system], path, digits) for system in pairs[-1]),
                    "" if np.isnan(ratio) else f"{ratio:.2f}"]
        rows.append(row)
    heads = [head for path, _ in columns for head in (f"{heading(path)}: {a}", b, "ratio")]
    return table(["adapted with", *heads], rows), pairs


def updates_needed(summary, other):
    """Updates until the perplexity of the new language is as low as at the end of another run.

    -> share of that run's updates, inf if it never is, nan if a run has too few rows.  The last perplexity of
    a run is left out, because it is of more rows of text than those before it.
    """
    curves = []
    for s in (summary, other):
        perplexity = value(s, "adapt.new.perplexity") or {}
        curves.append(sorted((int(step), p) for step, p in perplexity.items())[:-1])
    if not all(curves):
        return np.nan
    last, target = curves[1][-1]
    return min((step for step, p in curves[0] if p <= target), default=np.inf) / last


def verdicts(study, summaries):
    """The report of a study, {system: summaries of its seeds}: tables of its systems and of its claims."""
    texts, paired, pairs = [f"Mean ± sd over {min(map(len, summaries.values()))} seeds.  {CAPTION}."], "", []
    tables = dict(COLUMNS[study])
    if "pairs" in tables:
        systems, columns = tables.pop("pairs")
        paired, pairs = side_by_side(summaries, *systems.split(", "), columns)
    shown = {name: found for name, found in summaries.items() if name not in sum(pairs, ())}
    for beginning, columns in tables.values():
        some = {name: found for name, found in shown.items() if name.startswith(beginning)}
        texts += [systems_table(some, columns)] if some else []
    if pairs:
        shares = []
        for a, b in pairs:
            found = [updates_needed(*seeds) for seeds in zip(summaries[b], summaries[a])]
            shares.append(f"{np.median(found):.2f} ({a})")
        a, b = pairs[0]
        texts += [paired, f"Updates until {b} is where {a} ends, as a share of its updates (median over "
                          f"seeds; inf: never; nan: not measured): {', '.join(shares)}"]
    if {"skyline", "prealign", "joint"} <= summaries.keys():
        skyline, prealign, joint = (
            measured(summaries, name, "log perplexity.clone") for name in ("skyline", "prealign", "joint"))
        texts.append("Share of the gap in clone loss between joint and skyline that prealign closes: "
                     f"{np.mean((joint - prealign) / (joint - skyline)):.2f}")
    return "\n\n".join([*texts, claims_table(study, summaries)]) + "\n"


def paths_of(study):
    """The paths of all numbers that the report of a study reads."""
    paths = [path for _, columns in COLUMNS[study].values() for path, _ in columns]
    for claim in CLAIMS:
        if claim.study == study:
            paths += [part.removeprefix("log ") for part in claim.number.split(" - ")]
    for path in list(paths):
        measure, language = find(path)
        paths += [other.format(language) for other in f"{measure.n} {measure.chance}".split()]
    return [*paths, *ALWAYS]


def kept(tree, paths, at=""):
    """The part of a summary that lies at, or below, some paths."""
    if not isinstance(tree, dict):
        return tree if at.startswith(paths) else None
    parts = {key: kept(part, paths, f"{at}{key}.") for key, part in tree.items()}
    return {key: part for key, part in parts.items() if part not in (None, {})}


def conclude(study, summaries, folder):
    """Write the report of a study, report-<study>-<preset>-<data>.md, and the numbers it shows, .json.

    The numbers are rounded to five digits, and the report is made of the rounded ones.
    summaries: {system: summaries of its seeds};  -> the text to print
    """
    numbers = {}
    for name, found in summaries.items():
        numbers[name] = []
        for summary in found:
            new = next(iter(summary.get("adapt", {})), "new")
            paths = tuple(path.replace(".new", f".{new}") + "." for path in paths_of(study))
            numbers[name].append(kept(summary, paths))
    text = json.dumps(numbers)
    numbers = json.loads(text, parse_float=lambda digits: float(f"{float(digits):.5g}"))
    first = next(iter(summaries.values()))[0]
    path = folder / f"report-{study}-{first['preset']}-{first['data']}.md"
    report = verdicts(study, numbers)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(report, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(numbers), encoding="utf-8")
    return f"\n{report}\nwritten to {path}; the numbers behind it to {path.with_suffix('.json')}"


if __name__ == "__main__":
    print(headlines(committed()))
