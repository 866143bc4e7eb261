"""Studies: the systems that each compares, the columns of its tables, and the claims that it judges.

  systems.tsv   study, name of a system, its options, note.  In the options, {name} is the run folder of an
                earlier system, {data} the prepared folder, {pretrained} the checkpoint, {middle} its middle
  columns.tsv   study, table, its systems, path of a number, digits.  A table shows the systems whose names
                begin so; the table "pairs" compares two systems under many conditions
  claims.tsv    a line is a Claim: system and against differ in a number, in a direction, at least by a margin
    claim:           the number that we gave the paper's claim; "ours" and "tasks" are of no paper
    system, against: names of systems, or "A - B", the difference of two;  against may be empty, zero
    number:          path for tables.value, or a sum of paths such as "A - B"
    direction:       higher or lower, by at least the margin; not higher, not lower or no difference: the
                     difference is smaller than the margin
    headline:        digits in the README's table, empty if it is not there
    exploratory:     "exploratory" if the line was written after the numbers that it names had been seen
"""
import shlex
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

from data.files import refuse
from data.lab.options import parse_args, read_tsv, resolve

Claim = namedtuple("Claim", "study claim words system against number direction margin headline exploratory")
CLAIMS = [Claim(*texts, float(margin), headline, exploratory)
          for *texts, margin, headline, exploratory in read_tsv("claims.tsv")[1:]]
SYSTEMS = {}                                                   # {study: {system: options}}
for study, name, options, note in read_tsv("systems.tsv")[1:]:
    SYSTEMS.setdefault(study, {})[name] = options
COLUMNS = {}                                                   # {study: {table: (systems, [(path, digits)])}}
for study, name, systems, path, digits in read_tsv("columns.tsv")[1:]:
    _, columns = COLUMNS.setdefault(study, {}).setdefault(name, (systems, []))
    columns.append((path, int(digits)))
DATA = "data/multi30k"   # the prepared folder of the studies of real languages, unless another is given


def arguments(options, places):
    """The options of a system as a command line: each {name} becomes the path places[name]."""
    # split first: a path may hold spaces
    return [word.format_map(places) for word in shlex.split(options)]


def systems_of(study, seeds, cfg, given):
    """The runs of a study: yields (name, Config, run folder), for one of the seeds after the other.

    given: the options of the command line, and cfg their Config; the options of a system win.  The
    configuration of a system that starts from another run is read from that run's folder, so each system must
    be trained before the next is asked for.
    Raises UserError before the first run if a folder was not prepared.
    """
    texts = " ".join(SYSTEMS[study].values())
    refuse(cfg.data and "{data}" not in texts, f"study {study} uses the built-in world, not a folder")
    refuse(bool(cfg.pretrained) != ("{pretrained}" in texts),
           "--pretrained DIR --data FOLDER go together with --reproduce pretrained or french")
    data = cfg.data or DATA
    known = dict(data=data, pretrained=cfg.pretrained, middle=cfg.n_layer // 2)
    named = f"-{Path(data).resolve().name}" if data != DATA else ""
    for options in SYSTEMS[study].values():
        if "{data}" in options:
            parse_args(arguments(options, known))
    for seed in seeds:
        folder = Path("runs") / f"{study}-{cfg.model_name}{named}-s{seed}"
        outs = {name: folder / name.replace(" ", "-").replace("%", "").replace(",", "")
                for name in SYSTEMS[study]}
        for name, options in SYSTEMS[study].items():
            own = parse_args(arguments(options, outs | known))[1].given
            system = resolve(own if "from_run" in own else given | own | dict(seed=seed))
            if name == "skyline":                              # the same English, and as much clone text
                steps = round(cfg.steps * (1 - cfg.clone_share) * 2)
                system = replace(system, clone_share=0.5, steps=steps)
            yield name, system, outs[name]
