"""Draw the figures of the documents, from the numbers of data/results and from the code.

  python tests/figures.py      writes data/results/*.svg

A test compares each file with what this program draws.
"""
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.lab.claims import RESULTS, committed, measured
from data.lab.plots import COLOURS, HEIGHT, chart, line, picture, text
from data.lab.statistics import interval
from data.lab.tables import value
from model import IGNORE
from prealign import code_switch

BLUE, YELLOW, RED, GREEN = COLOURS[:4]
GREY = "#8b949e"


# --- forms --------------------------------------------------------------------------------------------------

def box(x, y, width, height, fill, more=""):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{fill}"{more}/>'


def bars(title, systems, chance=None, colours=COLOURS):
    """Draw a share per system with its interval: systems {label: (mean, low, high)} -> SVG."""
    left, width, step = 220, 380, 44
    bottom = 50 + step * len(systems)

    def x(share):
        return left + width * min(max(share, 0), 1)

    parts = []
    for i, (label, (mean, low, high)) in enumerate(systems.items()):
        y = 50 + step * i
        parts += [text(left - 10, y + 18, label, "end"), box(left, y, x(mean) - left, 26, colours[i]),
                  line(x(low), y + 13, x(high), y + 13, ' stroke-width="2"'),
                  text(x(high) + 8, y + 18, f"{mean:.2f}")]
    marks = [(0.5, "0.5"), (1, "1")]
    if chance is not None:
        parts.append(line(x(chance), 40, x(chance), bottom, ' stroke-dasharray="4 3"'))
        marks = [(chance, f"chance {chance:.3f}"), *marks]
    parts += [text(x(share), bottom + 16, words, "middle") for share, words in marks]
    return picture(title, 660, bottom + 26, parts)


def boxes(title, rows, unit, notes=()):
    """Draw rows of boxes with words: {label: [(words, first column, columns, colour or "")]} -> SVG.

    unit: width of a column;  notes: lines of text below
    """
    left, parts = 150, []
    for i, (label, some) in enumerate(rows.items()):
        y = 44 + 42 * i
        parts.append(text(left - 12, y + 20, label, "end"))
        for words, start, columns, colour in some:
            x, width = left + unit * start, unit * columns - 6
            parts += [box(x, y, width, 30, colour or "none", ' rx="4" stroke="#8b949e"'),
                      text(x + width / 2, y + 20, words, "middle", ' class="on"' if colour else "")]
    bottom = 44 + 42 * len(rows)
    parts += [text(left, bottom + 16 + 20 * i, note) for i, note in enumerate(notes)]
    columns = max(start + columns for some in rows.values() for _, start, columns, _ in some)
    return picture(title, left + unit * columns + 10, bottom + 6 + 20 * len(notes), parts)


# --- figures ------------------------------------------------------------------------------------------------

def facts_in_the_clone(labels):
    """Accuracy on facts that are told in English only, {label: (study, system)}: -> {label: mean and interval}."""
    studies = committed()
    found = {label: measured(studies[study], name, "knowledge.clone")
             for label, (study, name) in labels.items()}
    return {label: (numbers.mean(), *interval(numbers)) for label, numbers in found.items()}


def facts():
    """Facts that are told in English, asked in the clone."""
    return bars("Facts told in English, asked in the clone: accuracy, 95 % intervals", facts_in_the_clone({
        "joint training": ("prealign", "joint"), "PreAlign, as published": ("prealign", "published"),
        "PreAlign, kept aligned (ours)": ("prealign", "kept"),
        "joint, ten times the text": ("mini", "joint"),
        "PreAlign, ten times the text": ("mini", "published")}), 0.125, [BLUE, YELLOW, RED, BLUE, YELLOW])


def timing():
    """The same facts, by when the words were aligned."""
    systems = {"never (switching only)": "none", "before (as published)": "before", "from a quarter on": "at 25 %",
               "from the middle on": "at 50 %", "after pretraining": "after", "evenly": "evenly"}
    return bars("Facts told in English, asked in the clone, by when words were aligned", facts_in_the_clone(
        {label: ("timing", name) for label, name in systems.items()}), 0.125)


def switching():
    """The words that the model reads and predicts where PreAlign replaces one."""
    english = ["Anna", "was", "thirst", "y", ".", "She", "drank", "water"]
    words = dict(enumerate(english)) | {IGNORE: "–"}
    words |= {i + 8: f"⟨{word}⟩" for i, word in enumerate(english)}
    rows, starts = np.arange(8)[None], np.array([[1, 1, 1, 0, 1, 1, 1, 1]], bool)
    # ⟨thirst⟩ ⟨y⟩ for the word that begins at place 2
    inputs, targets = code_switch(rows, starts, np.array([True]), {(2, 3): [(10, 11)]}, 1,
                                  np.random.default_rng(0))
    shown = {"text": rows[0, :-1], "input, switched": inputs[0], "target, English": targets[0]}
    cells = {label: [(words[token], i, 1, YELLOW if 8 <= token else "") for i, token in enumerate(row)]
             for label, row in shown.items()}
    return boxes("PreAlign switches words of the input only", cells, 84, [
        "Each position reads the input above and predicts the target below.",
        "The position before a switched word predicts the first token of the English word.",
        "⟨ ⟩: English-Clone. –: no loss."])


def timeline():
    """When in a model's life each method acts."""
    when = {"": [("before pretraining", 0, 2, ""), ("pretraining", 2, 4, ""), ("after pretraining", 6, 4, "")],
            "PreAlign": [("align words", 0, 2, YELLOW), ("read code-switched input", 2, 4, YELLOW)],
            "kept (ours)": [("align words", 0, 2, YELLOW), ("code-switched input, words aligned", 2, 4, YELLOW)],
            "active forgetting": [("reset embeddings", 2, 2, RED), ("attach a new language", 6, 4, RED)],
            "AFP": [("align sentences, answer across languages", 6, 4, GREEN)]}
    return boxes("When each method acts (resets: the first half of pretraining)", when, 76)


def over_seeds(name, colour, points):
    """A named line of means, with a bar of ± one standard deviation: {x: (seeds,)} -> lines of chart."""
    ends = {x: (ys.mean() - ys.std(ddof=1), ys.mean() + ys.std(ddof=1)) for x, ys in points.items()}
    bars_of_x = [("", colour, False, [(x, low), (x, high)]) for x, (low, high) in ends.items()]
    return [*bars_of_x, (name, colour, False, [(x, ys.mean()) for x, ys in points.items()])]


def gain():
    """How much forgetting helps a new language, against the amount of its text."""
    found, points = committed()["forget"], {}
    for tokens in (3_000, 10_000, 100_000, 1_000_000):
        condition = "" if tokens == 10_000 else f", {tokens:,} tokens"           # 10,000 is the default
        points[tokens] = measured(found, f"BA{condition} - AFA{condition}", "log perplexity.new")
    lines = over_seeds("mean (bars: ± sd)", YELLOW, points)
    lines.append(("no difference", GREY, False, [(3_000, 0), (1_000_000, 0)]))
    parts = chart("loss after standard pretraining (BA) minus loss after forgetting (AFA), nats per token ↑",
                  "tokens of the new language", lines, log_x=True)
    return picture("Gain from forgetting in a new language, by the amount of its text", 640, 370, parts)


def amount():
    """How much PreAlign lowers the loss on real text, against the number of German captions."""
    found, lines = committed()["amount"], []
    for language, words, colour in (("de", "German", YELLOW), ("en", "English", BLUE)):
        lines += over_seeds(words, colour, {
            n: measured(found, f"joint, {n:,} captions - published, {n:,} captions",
                        f"log perplexity_per_word.{language}") for n in (500, 2_000, 12_000)})
    lines.append(("no difference", GREY, False, [(500, 0), (12_000, 0)]))
    parts = chart("loss of joint training less loss of PreAlign as published, nats per word ↑",
                  "German captions (English: 85,000)", lines, log_x=True)
    return picture("Gain from PreAlign on captions, by the amount of German text (bars: ± sd)", 640, 370, parts)


def sizes():
    """Facts known in the clone, by the part of the dictionary and by the number of times they were told."""
    studies, lines = committed(), []
    found = studies["sizes"]
    some = {0.25: "dictionary 25 %", 0.5: "dictionary 50 %", 0.75: "dictionary 75 %", 1: "published"}
    of_parts = found | {some[0.75]: studies["prealign"][some[0.75]]}
    coverage = over_seeds("PreAlign (bars: ± sd)", YELLOW, {
        part: measured(of_parts, name, "knowledge.clone") for part, name in some.items()})
    coverage.append(("chance", GREY, False, [(0, 0.125), (1, 0.125)]))
    parts = chart("facts told in English, asked in the clone: accuracy ↑", "part of the dictionary", coverage)
    for language, words, colour in (("en", "asked in English", BLUE), ("clone", "asked in the clone", YELLOW)):
        runs = [run["progress"] for run in found["published, again"]]
        # a step has 1,024 tokens, word alignment had as much text as 150 steps, and a million tokens state a
        # fact 130 times
        lines += over_seeds(words, colour, {(150 + int(step)) * 1024 * 130e-6: np.array([
            run[step]["knowledge"][language] for run in runs]) for step in runs[0]})
    lines.append(("chance", GREY, False, [(0, 0.125), (270, 0.125)]))
    parts += chart("PreAlign, in pretraining (50 facts): accuracy ↑", "times that a fact was told", lines,
                   top=60 + HEIGHT + 80)
    return picture("How many words and how many repetitions PreAlign needs", 680, 2 * (HEIGHT + 80) + 30, parts)


def answers():
    """The language of AFP's answers, against the share of training samples that ask across languages."""
    found, names = committed()["align"], {x: f"AFP, cross {x:g}" for x in (0, 0.25, 0.5, 0.75, 1)}
    names[0.5] = "AFP"                                                           # the default
    lines = []
    for path, words, colour in (("answer_language", "in the clone", BLUE), ("answer_right", "right", YELLOW)):
        lines += over_seeds(words, colour, {
            x: measured(found, name, f"{path}.en-clone.0") for x, name in names.items()})
    parts = chart("share of the answers ↑", "share of AFP's samples that ask across languages", lines)
    return picture("English questions, to be answered in the clone (bars: ± sd)", 640, 370, parts)


def checkpoint():
    """A public checkpoint before and after AFP; nothing of the checkpoint itself depends on the seed."""
    found, shown = committed()["pretrained"], {}
    names = {"before": "base", "AFP": "AFP", "middle level": "AFP, middle level"}
    for words, path in (("in German", "answer_language.en-de.0"),
                        ("found", "sentences.de.centred_to_english")):
        for when, name in names.items():
            shares = measured(found, name, path)
            mean, sd = shares.mean(), shares.std(ddof=1)
            shown[f"{words}: {when}"] = mean, mean - sd, mean + sd
    return bars("SmolLM2-135M: answers in German when asked for, translations found (bars: ± sd)", shown,
                colours=[BLUE, YELLOW, RED] * 2)


def progress():
    """When tasks are learned in English by joint training, and when in the clone with code-switching."""
    tasks = {"facts": "knowledge.{}", "a pronoun, by the passage": "tasks.coreference.contextual.{}.0.accuracy",
             "summary": "tasks.summary.contextual.{}.0.accuracy", "nli": "tasks.nli.lexical.{}.0.accuracy",
             "paraphrase": "tasks.paraphrase.lexical.{}.0.accuracy"}
    parts, found = [], committed()["mini"]
    for i, (system, language, title) in enumerate((
            ("joint", "en", "joint training, asked in English: accuracy ↑"),
            ("switching only", "clone", "code-switching alone, asked in the clone: accuracy ↑"))):
        runs, lines = [s["progress"] for s in found[system] if "progress" in s], []
        for (words, path), colour in zip(tasks.items(), COLOURS):
            points = [(int(step) * 1024 / 1e6, np.mean([value(run[step], path.format(language)) for run in runs]))
                      for step in runs[0]]                                       # 1,024 tokens per step
            lines.append((words, colour, False, points))
        parts += chart(title, "million tokens", lines, top=60 + i * (HEIGHT + 80))
    return picture("When tasks are learned, with ten times the text (50 items each)", 680, 2 * (HEIGHT + 80) + 30, parts)


FIGURES = dict(facts=facts, timing=timing, switching=switching, timeline=timeline, gain=gain, amount=amount,
               sizes=sizes, answers=answers, checkpoint=checkpoint, progress=progress)

if __name__ == "__main__":
    for name, figure in FIGURES.items():
        (RESULTS / f"{name}.svg").write_text(figure(), encoding="utf-8")
        print(f"written to {RESULTS}/{name}.svg")
