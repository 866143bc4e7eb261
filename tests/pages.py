"""Bring the pages up to date with the code and with data/results.

  python tests/pages.py        rewrites tables of results, the table of flags and the lines of formulas

A test compares each page with what this program writes.
"""
import re
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from course.check import check
from data.lab import claims, tables
from data.lab.options import STUDIES, Config

ROOT = Path(__file__).resolve().parent.parent
PATHS = [ROOT / "README.md", *sorted(ROOT.glob("data/**/*.md")), *sorted(ROOT.glob("tests/**/*.md"))]
TAG = re.compile(r"^\| (?P<tag>[^|]+?) \|.*`(?P<file>[\w/]+\.py):(?P<line>\d+)` \|$", re.M)


def first_rows(found):
    """The rows of a first run to look at, next to joint training: -> the table of the README."""
    rows = []
    for path in ("knowledge.clone", "perplexity.clone", "tasks_average.clone", "word_retrieval"):
        measure, language = tables.find(path)
        chance = tables.number(tables.chance(found["joint"], measure, [language]), 3)
        rows.append([tables.heading(path), chance,
                     *(tables.spread(found[name], path, 2) for name in ("joint", "published"))])
    return tables.table(["row", "chance", "joint", "published"], rows)


def tally(found):
    """How many claims of each paper have which verdict, over all studies: -> the table of the results page."""
    verdicts = ("reproduced", "not shown", "opposite", "not testable", "exploratory", "not measured")
    kinds, counts = {"P": "PreAlign", "F": "active forgetting", "A": "AFP"}, Counter()
    for study, summaries in found.items():
        for claim, _, _, verdict in claims.judged(study, summaries):
            verdict = "reproduced" if verdict == "shown" else verdict.partition(":")[0]
            counts[kinds.get(claim.claim[0], "ours"), verdict] += 1
    rows = [[kind, *(counts[kind, verdict] for verdict in verdicts)] for kind in (*kinds.values(), "ours")]
    return tables.table(["claims of", "reproduced, shown", *verdicts[1:]], rows)


def flags():
    """The table of flags, in the order of --help all."""
    rows = []
    for f in fields(Config):
        choices = "" if f.name == "method" else ", ".join(f.metadata["choices"] or ())
        meaning = f.metadata["help"] + (f" ({choices})" if choices else "")
        rows.append(f"| `--{f.name}` | {f.default} | {meaning} |")
    return "\n".join(["| flag | default (tiny) | meaning |", "|---|---|---|", *rows])


def blocks():
    """The tables that stand between two comments: -> {text of the first comment: table}."""
    found = claims.committed()
    shown = {f"{study} results": claims.verdicts(study, found[study]).strip() for study in STUDIES}
    _, solved = check(6, ROOT / "tests" / "course" / "solutions")
    return shown | {"flags": flags(), "first rows": first_rows(found["prealign"]), "tally": tally(found),
                    "headlines": claims.headlines(found), "ablation": solved.partition("\n")[2].strip()}


def with_line(row):
    """A row of a table of formulas, a match of TAG, with the line that carries its tag now."""
    lines = (ROOT / row["file"]).read_text(encoding="utf-8").splitlines()
    found = [i for i, line in enumerate(lines, 1) if f"[{row['tag']}]" in line]
    assert len(found) == 1, f"{row['file']}: {len(found)} lines have the tag [{row['tag']}]"
    [number] = found
    return row[0].replace(f"{row['file']}:{row['line']}", f"{row['file']}:{number}")


def rewrite(text, tables_of_pages):
    """A page, up to date."""
    for name, table in tables_of_pages.items():
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /)", lambda found: f"{found[1]}{table}\n{found[2]}", text,
                      flags=re.S)
    return TAG.sub(with_line, text)


if __name__ == "__main__":
    current = blocks()
    for path in PATHS:
        before = path.read_text(encoding="utf-8")
        after = rewrite(before, current)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"rewritten: {path.relative_to(ROOT)}")
