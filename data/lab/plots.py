"""Pictures as SVG text, to be read on light and dark: charts of lines, and sentences in the plane."""
import html
import math
import re
from functools import partial

import numpy as np

from data.lab.states import parallel_states

COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e"]
LEFT, WIDTH, HEIGHT = 60, 400, 260                             # of a chart
STYLE = ("<style>text, .on { fill: #1f2328 } line { stroke: #1f2328 } .grid { opacity: 0.2 } "
         "@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } line { stroke: #e6edf3 } }</style>")


def picture(title, width, height, parts):
    """SVG elements under a title, which takes the first 30 points."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="13">{STYLE}<title>{html.escape(title)}</title>'
            + "".join([text(10, 20, title, more=' font-weight="bold"'), *parts]) + "</svg>\n")


def text(x, y, words, anchor="start", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{html.escape(words)}</text>'


def line(x, y, u, v, more=""):
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}"{more}/>'


# Title, stage and key of the log's rows, function of what is there -> {curve: y}.
CHARTS = [
    ("validation loss, nats per token ↓", "pretrain", "val", dict),
    ("cosine of word pairs, middle level ↑", "pretrain", "word_cosine",
     lambda levels: {"": levels[len(levels) // 2 - 1]}),                         # embedding, blocks, head
    ("cosine of word pairs, output embedding ↑", "pretrain", "word_cosine", lambda levels: {"": levels[-1]}),
    ("training loss, nats per token ↓", "pretrain", "lm", lambda loss: {"": loss}),
    ("new language: validation loss over updates ↓", "adapt", "val", lambda loss: {"": [*loss.values()][-1]}),
]


def ticks(low, high):
    """Round numbers in a range, at most seven."""
    step = 10 ** math.floor(math.log10((high - low) / 6))
    step *= next(factor for factor in (1, 2, 5, 10) if high - low <= 6 * factor * step)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def chart(title, x_title, lines, top=60, log_x=False):
    """Draw axes and lines, each (name, colour, whether it is dashed, points): -> list of SVG elements.

    Each name stands at the end of its line.  log_x: the x axis is logarithmic; all others begin at 0
    """
    xs, ys = np.concatenate([points for *_, points in lines]).T
    y0, y1 = min(ys.min(), 0), ys.max() + 1e-9
    across = np.log10 if log_x else float
    x0, x1 = across(xs.min()) if log_x else 0, across(xs.max())

    def place(x, y):
        return LEFT + (across(x) - x0) / (x1 - x0) * WIDTH, top + (y1 - y) / (y1 - y0) * HEIGHT

    parts = [text(LEFT, top - 12, title), text(LEFT + WIDTH / 2, top + HEIGHT + 36, x_title, "middle")]
    for y in ticks(y0, y1):
        right, down = place(xs.max(), y)
        parts += [line(LEFT, down, right, down, ' class="grid"'),
                  text(LEFT - 6, down + 4, f"{y:,.8g}", "end")]
    for x in 10.0 ** np.arange(math.ceil(x0), x1 + 1e-9) if log_x else ticks(x0, x1):
        parts.append(text(place(x, y0)[0], top + HEIGHT + 18, f"{x:,.8g}", "middle"))
    free = top + HEIGHT + 12                                   # names that would overlap move up
    for name, colour, dashed, points in sorted(lines, key=lambda line: line[-1][-1][1]):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        if name:
            right, down = place(*points[-1])
            free = min(down + 4, free)
            parts += [line(right + 2, down, right + 16, free - 4, f' style="stroke: {colour}"'),
                      text(right + 20, free, name)]
            free -= 16
    return parts


def curves(runs):
    """Draw the CHARTS of several runs, each (name, rows of its log): -> SVG, "" without two rows of a log."""
    parts, top = [], 60
    for title, stage, key, pick in CHARTS:
        lines = []
        for i, (name, log) in enumerate(runs):
            rows = [(row["step"], pick(row[key])) for row in log if row["stage"] == stage and key in row]
            for curve in rows[0][1] if len(rows) > 1 else ():
                points = [(step, found[curve]) for step, found in rows]
                lines.append((f"{name} {curve}", COLOURS[i % len(COLOURS)], curve not in ("", "en"), points))
        if lines:
            parts += chart(title, "step", lines, top)
            top += HEIGHT + 80
    return picture("Curves of training", 760, top - 30, parts) if parts else ""


def principal_plane(states):
    """Coordinates along the directions of largest variance, their share of it: (N, D) -> (N, 2), ()."""
    centred = states - states.mean(axis=0)                                       # (N, D)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)                 # axes (min(N, D), D)
    return centred @ axes[:2].T, (sizes[:2] ** 2).sum() / max((sizes ** 2).sum(), 1e-30)     # (N, 2), ()


def two_panels(left, right):
    """Show two pictures of scatter in one, the second on the right: SVG, SVG -> SVG."""
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', left).groups())
    panels = [svg.replace("<svg ", f'<svg x="{x}" width="{width}" height="{height}" ', 1)
              for x, svg in ((0, left), (width + 20, right))]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width + 20} {height}">'
            + "".join(panels) + "</svg>\n")


def scatter(states, level, pool, title):
    """Draw sentences on their principal plane: {language: (N, D)} -> SVG.

    Row i is the same sentence in every language.  Lines join it to the first language.
    """
    size, top = 400, 40
    title += f": level {level}, {pool} token" + ("" if pool == "last" else "s")
    points, share = principal_plane(np.concatenate(list(states.values())))       # (languages * N, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    # both axes have one scale: small differences along the second must not look large
    points = size / 2 + (points - (low + high) / 2) / max((high - low).max(), 1e-9) * (size - 20)
    groups = np.split(points + [0, top], len(states))                            # (N, 2) each
    parts = [text(10, 36, f"{share:.0%} of the variance")]
    for group in groups[1:]:
        parts += [line(*here, *there, ' class="grid"') for here, there in zip(groups[0], group)]
    for i, (name, group) in enumerate(zip(states, groups)):
        colour, at = COLOURS[i % len(COLOURS)], top + size + 20 + 18 * i
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" fill-opacity="0.7"/>'
                  for x, y in group]
        parts += [f'<circle cx="16" cy="{at - 4}" r="4" fill="{colour}"/>', text(28, at, name)]
    return picture(title, size, top + size + 30 + 18 * len(groups), parts)


def draw_sentences(run, before=False):
    """Draw the states that MCL compares, of 100 test sentences in every language: sentences.svg in the run.

    before: a run that begins AFP draws them, too; the final picture shows them in its left panel
    """
    cfg, old = run.cfg, run.out / "sentences-before.svg"
    if before and (run.load_only or run.has_started("align sentences")):
        return
    with run.eager():
        found = parallel_states(run.model, run.corpus, 100, cfg)
    if not found:
        return
    draw = partial(scatter, found, cfg.afp_mcl_layer, cfg.afp_mcl_pool)
    if before:
        run.write(old.name, draw("before AFP"))
    elif old.exists():
        run.write("sentences.svg", two_panels(old.read_text(encoding="utf-8"), draw("after AFP")))
    else:
        run.write("sentences.svg", draw("sentences"))
