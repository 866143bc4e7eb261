"""Pictures as SVG text: curves of runs over training, and sentences of several languages in the plane."""
import html

import numpy as np

COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e"]
WIDTH, HEIGHT = 400, 260                                       # of one chart


# --- curves of training -------------------------------------------------------------------------------------

# Title, stage and key of the log's rows, function of what is there -> {curve: y}, whether y begins at zero.
# A chart without curves is left out.
CHARTS = [
    ("validation loss, nats per token ↓ (dashed: other languages)", "pretrain", "val", dict, False),
    ("cosine of word pairs, middle level ↑", "pretrain", "word_cosine",
     lambda levels: {"": levels[len(levels) // 2 - 1]}, True),                   # embedding, blocks, head
    ("training loss, nats per token ↓", "pretrain", "lm", lambda loss: {"": loss}, False),
    ("new language: validation loss over updates ↓", "adapt", "val",
     lambda losses: {"": list(losses.values())[-1]}, False),
]


def chart(title, lines, left, top, from_zero):
    """Draw title, grid and lines, each (colour, whether it is dashed, points): -> list of SVG elements."""
    points = [point for *_, some in lines for point in some]
    (_, y0), (x1, y1) = np.min(points, axis=0), np.max(points, axis=0)
    y0, y1 = min(y0, 0) if from_zero else y0, y1 + 1e-9

    def place(x, y):
        return left + x / max(x1, 1) * WIDTH, top + (y1 - y) / (y1 - y0) * HEIGHT

    parts = [f'<text x="{left}" y="{top - 15}" font-weight="bold">{title}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = share * x1, y0 + share * (y1 - y0)
        right, down = place(x, y)
        parts.append(
            f'<line x1="{left}" x2="{left + WIDTH}" y1="{down:.1f}" y2="{down:.1f}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{down + 4:.1f}" text-anchor="end">{y:.2f}</text>'
            f'<text x="{right:.1f}" y="{top + HEIGHT + 18}" text-anchor="middle">{x:.0f}</text>')
    for colour, dashed, some in lines:
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in some)
        dash = ' stroke-dasharray="5 3"' if dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
    return parts


def curves(runs):
    """Draw the CHARTS of several runs, each (name, rows of its log), two in a row with one legend: -> SVG."""
    colours = [COLOURS[i % len(COLOURS)] for i, _ in enumerate(runs)]
    parts, drawn = [], 0
    for title, stage, key, pick, from_zero in CHARTS:
        lines = []
        for colour, (_, log) in zip(colours, runs):
            points = {}                                                          # {curve: [(step, y), ...]}
            for row in log:
                if row["stage"] == stage and key in row:
                    for curve, y in pick(row[key]).items():
                        points.setdefault(curve, []).append((row["step"], y))
            lines += [(colour, i > 0, some) for i, some in enumerate(points.values())]
        if lines:
            parts += chart(title, lines, 60 + drawn % 2 * 480, 40 + drawn // 2 * 330, from_zero)
            drawn += 1
    bottom = 20 + (drawn + 1) // 2 * 330
    for i, (name, _) in enumerate(runs):
        x, y = 60 + i % 3 * 300, bottom + i // 3 * 18
        parts.append(f'<rect x="{x}" y="{y - 9}" width="14" height="4" fill="{colours[i]}"/>'
                     f'<text x="{x + 20}" y="{y - 3}">{html.escape(name)}</text>')
    return picture(960, bottom + 10 + (len(runs) + 2) // 3 * 18, parts)


def picture(width, height, parts):
    """SVG elements on a white ground."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="12"><rect width="{width}" height="{height}" fill="white"/>'
            + "".join(parts) + "</svg>\n")


# --- bars ---------------------------------------------------------------------------------------------------

def bars(title, systems, chance):
    """Draw a share per system with its interval: systems {label: (mean, low, high)} -> SVG.

    The ground is transparent and the text follows the reader's theme, so that it reads on light and dark.
    """
    left, width, step = 220, 380, 44
    bottom = 50 + step * len(systems)

    def x(share):
        return left + width * min(max(share, 0), 1)

    parts = ["<style>text { fill: #1f2328 } line { stroke: #59636e } @media (prefers-color-scheme: dark) "
             "{ text { fill: #e6edf3 } line { stroke: #9198a1 } }</style>",
             f"<title>{html.escape(title)}</title>",
             f'<text x="10" y="24" font-size="14" font-weight="bold">{html.escape(title)}</text>']
    for i, (label, (mean, low, high)) in enumerate(systems.items()):
        y = 50 + step * i
        parts.append(
            f'<text x="{left - 10}" y="{y + 18}" text-anchor="end">{html.escape(label)}</text>'
            f'<rect x="{left}" y="{y}" width="{x(mean) - left:.1f}" height="26" fill="{COLOURS[i]}"/>'
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + 13}" y2="{y + 13}" stroke-width="2"/>'
            f'<text x="{x(high) + 8:.1f}" y="{y + 18}">{mean:.2f}</text>')
    parts.append(f'<line x1="{x(chance):.1f}" x2="{x(chance):.1f}" y1="40" y2="{bottom}" '
                 'stroke-dasharray="4 3"/>')
    for share, words in ((chance, f"chance {chance:.3f}"), (0.5, "0.5"), (1, "1")):
        parts.append(f'<text x="{x(share):.1f}" y="{bottom + 16}" text-anchor="middle">{words}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 {bottom + 26}" '
            'font-family="sans-serif" font-size="13">' + "".join(parts) + "</svg>\n")


# --- sentences in the plane ---------------------------------------------------------------------------------

def principal_plane(states):
    """Coordinates along the directions of largest variance, their share of it: (N, D) -> (N, 2), ()."""
    centred = states - states.mean(axis=0)                                       # (N, D)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)                 # axes (min(N, D), D)
    return centred @ axes[:2].T, (sizes[:2] ** 2).sum() / max((sizes ** 2).sum(), 1e-30)     # (N, 2), ()


def scatter(states, level, pool):
    """Draw sentences on their principal plane: {language: (N, D)} -> SVG.

    Row i is the same sentence in every language.  Lines join it to the first language.
    level, pool: which states they are, for the title
    """
    size, top = 400, 40
    title = f"sentences in each language, level {level}, {pool} token" + ("" if pool == "last" else "s")
    points, share = principal_plane(np.concatenate(list(states.values())))       # (languages * N, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    # both axes have one scale: small differences along the second must not look large
    points = size / 2 + (points - (low + high) / 2) / max((high - low).max(), 1e-9) * (size - 20)
    groups = np.split(points + [0, top], len(states))                            # (N, 2) each
    parts = [f'<text x="10" y="18" font-weight="bold">{html.escape(title)}</text>'
             f'<text x="10" y="34">{share:.0%} of the variance</text>']
    for group in groups[1:]:
        parts += [f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke="#ddd"/>'
                  for (x, y), (u, v) in zip(groups[0], group)]
    for i, (name, group) in enumerate(zip(states, groups)):
        colour, at = COLOURS[i % len(COLOURS)], top + size + 20 + 18 * i
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" fill-opacity="0.7"/>'
                  for x, y in group]
        parts.append(f'<circle cx="16" cy="{at - 4}" r="4" fill="{colour}"/>'
                     f'<text x="28" y="{at}">{html.escape(name)}</text>')
    return picture(size, top + size + 30 + 18 * len(groups), parts)
