"""The course: checkers accept the solutions and say what is wrong with stubs and with plausible mistakes.
Commands of the notebook parse, and numbers and verdicts of the pages are those of the study."""
import ast
import json
import re
import runpy
import shlex
import sys
from dataclasses import asdict

import numpy as np
import pytest

from course.check import HERE, check
from data.lab import claims
from data.lab.options import Config, parse_args
from model import IGNORE
from prealign import code_switch

SOLUTIONS, ROOT = HERE / "solutions", HERE.parent.parent
PAGE, EXERCISES, NOTEBOOK = ((ROOT / "data" / "course" / name).read_text(encoding="utf-8")
                             for name in ("README.md", "exercises.md", "first_hour.ipynb"))
NUMBERS = range(1, 7)
# --- the exercises ------------------------------------------------------------------------------------------

MISTAKES = [   # exercise, what its solution has, what a student might write instead, a part of the answer
    (1, "[word[0]] + [IGNORE] * (len(translation) - 1)", "translation", "[70, 71, 72, 7, 80]) instead of"),
    (1, "[word[0]] + [IGNORE] * (len(translation) - 1)", "word", "[5, 6, 7, 8, 9]) instead of"),
    (1, "targets += [word[0]] + [IGNORE] * (len(translation) - 1)", "targets += [IGNORE] * len(translation)",
     "[-100, -100, -100, 7, -100]) instead of"),
    (2, '.masked_fill(itself, float("-inf"))', "", "1.79176 instead of 1.60944"),
    (2, 'float("-inf")', "0.0", "instead of 1.60944: of 6 equal words"),      # the mask of the official code
    (2, "F.normalize(states, dim=-1)", "states", "three orthogonal pairs"),
    (2, "-scores.log_softmax(dim=-1)[positive].mean()",
     "-(scores.softmax(dim=-1) * positive).sum(dim=-1).log().mean()", "each pair has its own logarithm"),
    (2, "[positive].mean()", ".mul(positive).nansum(dim=-1).div(positive.sum(dim=-1)).nanmean()",
     "the mean over pairs and not over words"),
    (3, "mask.sum(dim=1) - 1", "-1", "the last token that is real"),
    (3, "states[torch.arange(len(states)), mask.sum(dim=1) - 1]",
     "states.masked_fill(~mask[..., None], 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)", "last tokens"),
    (3, "(F.cross_entropy(scores, translation) + F.cross_entropy(scores.T, translation)) / 2",
     "F.cross_entropy(scores, translation)", "all 2n rows are anchors"),
    (3, "return (F.cross_entropy(scores, translation) + F.cross_entropy(scores.T, translation)) / 2",
     "every, n = torch.cat((english, other)), len(english)\n"
     "    scores = (every @ every.T / tau).fill_diagonal_(float('-inf'))\n"
     "    return F.cross_entropy(scores, torch.arange(2 * n).roll(n))", "the 4 rows of the other side"),
    (3, "F.normalize(last, dim=-1)", "last", "cosines"),
    (4, "weight.copy_(0.02 *", "weight.copy_(", "standard deviation of the weight"),
    (4, "weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))",
     "weight = 0.02 * torch.randn(weight.shape, generator=generator)", "standard deviation of the weight"),
    (4, "optimizer.state[weight].values()", "()", "exp_avg of the weight is not reset|step of the weight"),
    (4, "number.zero_()", "number.zero_() if number.ndim else None", "step of the weight is not reset"),
    (4, "optimizer.state[weight].values()", "[n for s in optimizer.state.values() for n in s.values()]",
     "step counter of another parameter"),
    (5, ", requires_grad=False)", ")", "numbers that learn"),
    (5, "model.requires_grad_(False)", "", "numbers that learn"),
    (5, "    model.head = Head(model.head.weight, n, generator)\n", "", "numbers that learn"),
    (5, "return self.table()[tokens]", "return self.table()[tokens - 30]",
     "change of the old scores by training"),
    (6, "ddof=1", "ddof=0", "sample standard deviation"),
    (6, "d.std(ddof=1)", "np.hypot(np.std(system, ddof=1), np.std(other, ddof=1))",
     "sample standard deviation"),
]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_solution_is_accepted(number):
    solved, words = check(number, SOLUTIONS)
    assert solved and words.startswith("solved"), words


@pytest.mark.parametrize("number, right, other", [
    (4, "optimizer.state[weight].values()", "[optimizer.state.pop(weight)['step']]"),
    (4, "weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))",
     "weight.normal_(0, 0.02, generator=generator)"),
    (5, "states @ self.table().T", "torch.cat((states @ self.old.T, states @ self.new.T), dim=-1)")])
def test_another_right_answer_is_accepted(number, right, other, tmp_path):
    text = (SOLUTIONS / f"exercise_{number}.py").read_text(encoding="utf-8")
    assert right in text
    (tmp_path / f"exercise_{number}.py").write_text(text.replace(right, other), encoding="utf-8")
    assert check(number, tmp_path) == (True, "solved")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stub_is_not_written_yet(number):
    path = f"tests/course/exercise_{number}.py"
    assert check(number) == (False, f"not written yet: fill in the function in {path}")


@pytest.mark.parametrize("number, right, wrong, part", MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_gets_one_line_that_names_it(number, right, wrong, part, tmp_path):
    text = (SOLUTIONS / f"exercise_{number}.py").read_text(encoding="utf-8")
    assert right in text
    (tmp_path / f"exercise_{number}.py").write_text(text.replace(right, wrong), encoding="utf-8")
    solved, words = check(number, tmp_path)
    assert not solved
    assert words.startswith("not solved: ") and "\n" not in words
    assert any(p in words for p in part.split("|")), words


def test_the_result_asked_for_in_exercise_1_is_that_of_prealign():
    row, table = np.array([[5, 6, 7, 8, 9, 10]]), {(5, 6): [(70, 71, 72)], (8, 9): [(80,)]}
    begins = np.isin(row, (5, 7, 8, 10))
    inputs, targets = code_switch(row, begins, np.array([True]), table, 1.0, np.random.default_rng(0))
    assert (inputs[0].tolist(), targets[0].tolist()) == ([70, 71, 72, 7, 80], [IGNORE, IGNORE, 7, 8, 10])


@pytest.mark.parametrize("arguments, code, part", [
    (["1", str(SOLUTIONS)], 0, "exercise 1: solved"), (["1"], 1, "exercise 1: not written yet"), (["7"], 2, "")])
def test_the_checker_is_a_command(arguments, code, part, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(HERE / "check.py"), run_name="__main__")
    assert int(stop.value.code) == code
    assert part in capsys.readouterr().out


# --- the pages ----------------------------------------------------------------------------------------------

def test_every_exercise_is_described_and_its_function_is_in_the_stub_and_the_solution():
    row = r"^\| (\d) \| `(\w+)` in `(tests/course/exercise_\d\.py)`.*\| (?:easy|medium|hard) \| \d+ \|"
    rows = re.findall(row, EXERCISES, re.M)
    assert [int(number) for number, *_ in rows] == [*NUMBERS]
    for number, function, path in rows:
        assert path.endswith(f"exercise_{number}.py")
        assert f"check.py {number}`" in EXERCISES
        for file in (ROOT / path, SOLUTIONS / f"exercise_{number}.py"):
            assert f"def {function}(" in file.read_text(encoding="utf-8")


def test_the_numbers_of_the_pages_are_those_that_exercise_6_shows():
    shown = check(6, SOLUTIONS)[1].partition("\n")[2].strip()
    assert shown in EXERCISES
    prose = re.sub(r"```.*?```|`[^`]*`", "", PAGE + EXERCISES.replace(shown, ""), flags=re.S)
    assert set(re.findall(r"\d+\.\d+", prose)) <= set(re.findall(r"\d+\.\d+", shown))


def test_the_verdicts_of_the_course_are_those_of_the_studies():
    found = {(claim.claim, verdict) for study, summaries in claims.committed().items()
             for claim, _, _, verdict in claims.judged(study, summaries)}
    named = re.findall(r"\(([PFA]\d): ([a-z ]+)\)", PAGE)
    assert named and set(named) <= found


def test_the_plan_takes_two_hours_and_there_are_ten_questions():
    parts = re.findall(r"^\| (\d+) to (\d+) \|", PAGE, re.M)
    ends = [0, *(int(end) for _, end in parts)]
    assert [int(start) for start, _ in parts] == ends[:-1] and ends[-1] == 120
    assert re.findall(r"^(\d+)\. \*\*", PAGE, re.M) == [str(i) for i in range(1, 11)]


# --- the notebook -------------------------------------------------------------------------------------------

def test_the_notebook_shows_its_outputs_and_its_commands_parse(tmp_path, monkeypatch):
    notebook = json.loads(NOTEBOOK)
    assert (notebook["nbformat"], set(notebook)) == (4, {"cells", "metadata", "nbformat", "nbformat_minor"})
    folder = tmp_path / "runs" / "baseline-tiny-synthetic-s0"                    # left by an earlier cell
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(asdict(Config())), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    commands = []
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert {output["output_type"] for output in cell["outputs"]} <= {"stream", "display_data"}   # no errors
            assert cell["outputs"] or not commands
            lines = "".join(cell["source"]).splitlines()
            commands += [line for line in lines if line.startswith("!")]
            ast.parse("\n".join(line for line in lines if not line.startswith("!")))
    assert not re.search(r"it/s\]|Traceback|\\u001b|\"/\w+/\w+/", NOTEBOOK)        # no progress bars, no paths of a machine
    for command in commands:
        python, script, *arguments = shlex.split(command[1:])
        assert python == "python"
        if script == "-m":
            assert (ROOT / arguments[0].replace(".", "/") / "__main__.py").exists()
        else:
            assert (ROOT / script).exists()
        if script == "train.py" and "--sample" not in arguments:
            parse_args(arguments)
    assert len([c for c in commands if "train.py" in c]) >= 5
    written = [*(w for c in commands for w in re.findall(r"--out (\S+)", c))]
    shown = re.findall(r'SVG\(\\"(.*?)/[\w-]+\.svg\\"\)', NOTEBOOK)
    assert shown and set(shown) <= set(written)
