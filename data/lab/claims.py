"""Judge the claims of a study by its runs.  `python -m data.lab.claims` prints the table of the README."""
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from data.lab import tables
from data.lab.options import GROUPS, NEUTRAL, default_out, flags_of, resolve
from data.lab.statistics import interval, judge, standard_error
from data.lab.studies import CLAIMS, COLUMNS
from data.lab.tables import CAPTION, chance, find, heading, spread, systems_table, table, value

RESULTS = Path(__file__).parent.parent / "results"
# A report reads these in addition to its columns and claims.
ALWAYS = ("seed", "preset", "data", "languages", "chance", "baselines", "adapt", "recovery", "word_cosine",
          "progress")


# --- one run ------------------------------------------------------------------------------------------------

def joint_training(cfg):
    """Joint training with the data, model, budget and evaluation of a run: -> Config."""
    groups = ("data", "model", "training", "evaluation", "machine")
    kept = {name: getattr(cfg, name) for group in groups for name in GROUPS[group]} | dict(seed=cfg.seed)
    model = dict(pretrained=cfg.pretrained) if cfg.pretrained else dict(preset=cfg.preset)
    return replace(resolve(model | dict(data=cfg.data)), **kept)


def show(summary, cfg):
    """The results of a run next to joint training: its published numbers, or the command that trains it."""
    joint, published = joint_training(cfg), asdict(resolve(dict(preset=cfg.preset)))
    # the published numbers are those of the study's `joint`: no option that matters may differ from it
    path = RESULTS / f"prealign-{cfg.preset}.json"
    matter = {*published} - {*NEUTRAL, "seed", "dtype"} | {"eval_items", "shots"}
    if path.exists() and all(getattr(joint, name) == published[name] for name in matter):
        return tables.show(summary, json.loads(path.read_text(encoding="utf-8"))["joint"])
    if joint == cfg:
        return tables.show(summary)
    action = "measure the checkpoint itself" if cfg.pretrained else "train jointly"
    return (f"{tables.show(summary)}\nto {action}, to compare with:\n"
            f"  python train.py {flags_of(joint, default_out(joint))}")


# --- claims -------------------------------------------------------------------------------------------------

def terms(text):
    """The terms of a sum, "a - b + c": -> [(1, "a"), (-1, "b"), (1, "c")]."""
    first, *others = re.split(r" ([+-]) ", text)
    return [(1, first)] + [(1 if sign == "+" else -1, part) for sign, part in zip(others[::2], others[1::2])]


def on_common_seeds(summaries, systems):
    """The summaries of some systems (a sum of names) in the seeds that all of them have, in order."""
    found = {name: {s.get("seed", i): s for i, s in enumerate(summaries[name])}
             for _, name in terms(systems) if name in summaries}
    seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
    return {name: [by_seed[seed] for seed in seeds] for name, by_seed in found.items()}


def measured(summaries, system, path):
    """A number of a system in every seed: -> (seeds,), nan where it was not measured.

    Systems and numbers may be sums, "A - B", and "log x" is the logarithm of x.
    """
    total, summaries = 0.0, on_common_seeds(summaries, system)
    for system_sign, name in terms(system):
        for sign, part in terms(path):
            # an array of floats turns None into nan
            found = np.array([value(s, part.removeprefix("log ")) for s in summaries.get(name, [{}])], float)
            total = total + system_sign * sign * (np.log(found) if part.startswith("log ") else found)
    return total


def differences(summaries, claim):
    """The number of the claim's system minus that of the other, in every seed that both have: -> (seeds,)."""
    if not claim.against:
        return measured(summaries, claim.system, claim.number)
    some = on_common_seeds(summaries, f"{claim.system} - {claim.against}")
    found = measured(some, claim.system, claim.number) - measured(some, claim.against, claim.number)
    return found if len(found) else np.array([np.nan])         # no common seed


def limit(summaries, claim):
    """"chance" or "ceiling" if the mean of every system lies within two standard errors of it, else ""."""
    if not find(claim.number) or not claim.against:
        return ""
    measure, language = find(claim.number)
    found = [measured(summaries, name, claim.number)
             for _, name in terms(f"{claim.system} - {claim.against}")]
    best = None                                                # none if lower is better
    if measure.better == "↑":
        best = 100 if measure.words.startswith("BLEU") else 1
    random = chance(summaries.get(claim.against, []), measure, [language])
    for name, bound in (("chance", random), ("ceiling", best)):
        if bound is not None and all(len(d) > 1 and abs(d.mean() - bound) <= 2 * standard_error(d)
                                     for d in found):
            return name
    return ""


def judged(study, summaries):
    """The claims of a study with their verdicts: -> [(claim, differences (seeds,), p, verdict)]."""
    claims = [claim for claim in CLAIMS if claim.study == study]
    found = [differences(summaries, claim) for claim in claims]
    results, rows = judge(claims, found, [limit(summaries, claim) for claim in claims]), []
    for claim, d, (p, verdict) in zip(claims, found, results):
        if claim.claim in ("ours", "tasks"):                   # only a claim of a paper can be reproduced
            verdict = verdict.replace("reproduced", "shown")
        rows.append((claim, d, p, verdict))
    return rows


def cells(d, p):
    """The mean difference, its 95 % interval, the number of seeds and p, as texts."""
    if not np.isfinite(d).all():
        return ["", "", "", ""]
    if len(d) == 1:
        return [f"{d[0]:+.3f}", "", "1", ""]
    low, high = interval(d)
    shown = "<0.001" if p < 0.0005 else f"{p:.3f}"
    return [f"{d.mean():+.3f}", f"[{low:+.3f}, {high:+.3f}]", str(len(d)), "" if np.isnan(p) else shown]


def claims_table(study, summaries):
    """A row per claim of the study: what is claimed, the difference, its interval, n, p, the verdict."""
    rows = []
    for claim, d, p, verdict in judged(study, summaries):
        path = claim.number.removeprefix("log ")               # a sum of numbers has no name
        rows.append([f"{claim.claim} {claim.words}", heading(path) if find(path) else "", claim.system,
                     claim.against, f"{claim.direction}, {claim.margin:g}", *cells(d, p), verdict])
    return table(["claim", "measure", "system", "against", "claimed, margin", "difference", "95 % interval",
                  "n", "p", "verdict"], rows)


def headlines(results):
    """The claims of the README with their numbers, {study: {system: summaries}}: -> table, papers first."""
    rows = []
    for study, found in results.items():
        for claim, d, p, verdict in judged(study, found):
            if not claim.headline:
                continue
            digits, path = int(claim.headline), claim.number.removeprefix("log ")
            row = [claim.claim, f"{claim.words.removesuffix(' (log ratio)')} {find(path)[0].better}"]
            for name in (claim.against, claim.system):
                row += [name, spread(found.get(name, [{}]), path, digits)]
            difference, range_, n, _ = cells(d, p)
            unit = ", log ratio" if claim.number.startswith("log ") else ""
            rows.append([*row, f"{difference} {range_}{unit}", n, verdict])
    rows.sort(key=lambda row: row[0] == "ours")
    return table(["", "claim", "against", "measured", "system", "measured", "difference and 95 % interval",
                  "n", "verdict"], rows)


def committed():
    """The numbers behind the README: -> {study: {system: summaries}}."""
    files = {study: f"{study}-tiny" for study in COLUMNS}
    files |= dict(mini="prealign-mini", families="families-mini", pretrained="pretrained-smollm2-135m",
                  french="french-smollm2-135m")
    return {study: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
            for study, name in files.items()}


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
            ratio = np.exp(np.mean(measured(summaries, f"{b}{condition} - {name}", f"log {path}")))
            row += [*(spread(summaries[system], path, digits) for system in pairs[-1]),
                    "" if np.isnan(ratio) else f"{ratio:.2f}"]
        rows.append(row)
    heads = [head for path, _ in columns for head in (f"{heading(path)}: {a}", b, "ratio")]
    return table(["condition", *heads], rows), pairs


def verdicts(study, summaries):
    """The report of a study, {system: summaries of its seeds}: tables of its systems and of its claims."""
    counts = [len(found) for found in summaries.values()]
    n = str(max(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    seeds = "One seed" if n == "1" else f"Mean ± sd over {n} seeds"
    texts, pairs = [f"{seeds}.  {CAPTION}."], []
    layout = dict(COLUMNS[study])
    if "pairs" in layout:
        systems, columns = layout.pop("pairs")
        paired, pairs = side_by_side(summaries, *systems.split(", "), columns)
    shown = {name: found for name, found in summaries.items() if name not in sum(pairs, ())}
    for beginning, columns in layout.values():
        some = {name: found for name, found in shown.items() if name.startswith(beginning)}
        texts += [systems_table(some, columns)] if some else []
    texts += [paired] if pairs else []
    if {"skyline", "published", "kept", "joint"} <= summaries.keys():
        some = on_common_seeds(summaries, "joint - skyline - published - kept")
        gap, *closed = (measured(some, f"joint - {name}", "log perplexity.clone")
                        for name in ("skyline", "published", "kept"))
        published, kept = (np.mean(part / gap) for part in closed)
        texts.append("Share of the gap in clone loss between joint and skyline that is closed: "
                     f"published {published:.2f}, kept {kept:.2f}")
    return "\n\n".join([*texts, claims_table(study, summaries)]) + "\n"


def keys_of(study):
    """The keys of a summary that the report of a study reads: -> set."""
    paths = [path for _, columns in COLUMNS[study].values() for path, _ in columns]
    for claim in CLAIMS:
        if claim.study == study:
            paths += [part.removeprefix("log ") for _, part in terms(claim.number)]
    measures = [find(path)[0] for path in paths]
    paths += [path for measure in measures for path in f"{measure.n} {measure.chance}".split()]
    return {path.split(".")[0] for path in paths}.union(ALWAYS)


def conclude(study, summaries, folder):
    """Write the report of a study, report-<study>-<preset>-<data>.md, and the numbers that it reads, .json.

    The numbers are rounded to five digits, and the report is made of the rounded ones.
    summaries: {system: summaries of its seeds};  -> the text to print
    """
    keys = keys_of(study)
    text = json.dumps({name: [{key: summary[key] for key in summary if key in keys} for summary in found]
                       for name, found in summaries.items()})
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
