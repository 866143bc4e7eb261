"""The README is executed: its commands parse, its line references point at their tags, its numbers come from
the results file."""
import ast
import json
import re
import shlex
from dataclasses import asdict, fields
from pathlib import Path

import pytest

import train
from data import claims, prepare
from data.config import Config
from data.folder import write
from test_real import source

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "data" / "results" / "README.md").read_text(encoding="utf-8")
SOURCES = sorted(p for p in ROOT.rglob("*.py") if not set(p.relative_to(ROOT).parts) & {".venv", "runs"})
TAG = re.compile(r"^\| (?P<tag>[^|]+?) \|.*`(?P<file>[\w/]+\.py):(?P<line>\d+)` \|$", re.M)


def test_every_equation_points_at_the_line_that_carries_its_tag():
    rows = list(TAG.finditer(README))
    assert len(rows) >= 5
    for row in rows:
        line = (ROOT / row["file"]).read_text(encoding="utf-8").splitlines()[int(row["line"]) - 1]
        assert f"[{row['tag']}]" in line, f"README: {row.group(0)}"


def test_every_tag_in_the_code_stands_once_in_a_file_and_in_the_readme():
    listed = {row["tag"] for row in TAG.finditer(README)}
    for path in SOURCES:
        if path.parent.name != "tests":
            text = path.read_text(encoding="utf-8")
            tags = re.findall(r"\[((?:PreAlign|forgetting|AFP): [^\]]+|InfoNCE)\]", text)
            assert len(tags) == len(set(tags)), path
            assert set(tags) <= listed, path


def commands():
    return re.findall(r"python (?:train|prealign|forget|align)\.py[^`\n|]*|python -m data\.\w+",
                      README + RESULTS)


def test_every_train_command_of_the_readme_parses(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "baseline-tiny-synthetic-s0"                # what an earlier command leaves
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(asdict(Config())), encoding="utf-8")
    write(tmp_path / "data" / "multi30k", source(), vocab_size=330, new_pieces=40)
    monkeypatch.chdir(tmp_path)
    found = [c for c in commands() if c.startswith("python train.py --") and "--help" not in c]
    assert len(found) >= 12
    for command in found:
        train.parse_args(shlex.split(command)[2:])


def test_every_prepare_command_of_the_readme_parses():
    found = re.findall(r"python data/prepare\.py[^`\n|]*", README)
    assert len(found) >= 5
    for command in found:
        prepare.parse_args(shlex.split(command)[2:])


def test_the_flag_table_is_the_dataclass():
    listed = re.findall(r"^\| `--(\w+)` \| (.*?) \| (.*?) \|$", REFERENCE, re.M)
    wanted = [(f.name, str(f.default) if f.default != "" else "", f.metadata["help"])
              for f in fields(Config)]
    assert listed == wanted


def test_every_module_has_its_place_in_the_map():
    table = re.search(r"## Where is what\n(.*?)\n## ", REFERENCE, re.S)[1]
    for path in [*ROOT.glob("*.py"), *(ROOT / "data").glob("*.py")]:
        assert path.name in table or path.name == "__init__.py", path.name


def test_every_test_that_the_readme_names_is_there():
    named = re.findall(r"(tests/\w+\.py)::(\w+)", README + RESULTS)
    assert len(named) >= 3
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("paper", ["prealign", "forget", "align", "real"])
def test_the_tables_of_results_are_those_of_the_results_files(paper):
    results = ROOT / "data" / "results" / f"{paper}-tiny.json"
    shown = re.search(rf"<!-- {paper} results -->\n(.*?)<!-- /results -->", RESULTS, re.S)[1].strip()
    assert shown == claims.verdicts(paper, json.loads(results.read_text(encoding="utf-8"))).strip()


def test_the_first_table_of_the_readme_is_that_of_the_results_files():
    shown = re.search(r"<!-- headlines -->\n(.*?)<!-- /headlines -->", README, re.S)[1].strip()
    assert shown == claims.headlines(claims.committed())


def test_every_text_file_is_opened_as_utf_8():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name, method = getattr(node.func, "id", ""), getattr(node.func, "attr", "")
            if name == "open" or method in ("read_text", "write_text"):
                binary = any(isinstance(a, ast.Constant) and a.value in ("rb", "wb", "ab") for a in node.args)
                assert binary or any(k.arg == "encoding" for k in node.keywords), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("name, allowed", [
    ("model.py", set()), ("prealign.py", {"model"}), ("forget.py", {"model"}), ("align.py", {"model"}),
    ("data/corpus.py", {"data"}), ("data/tasks.py", {"data"}), ("data/measure.py", {"data"}),
    ("data/generation.py", {"data"}),
    ("data/report.py", set()), ("data/synthetic.py", {"data"}), ("data/runs.py", {"data"}),
    ("data/files.py", set()), ("data/processes.py", set()), ("data/prepared.py", {"data"}),
    ("data/config.py", {"data"}), ("data/studies.py", set()), ("data/claims.py", {"data"}),
    ("data/realmeasure.py", {"data"}),
    ("data/prepare.py", {"data"}), ("data/folder.py", {"data"}), ("data/text.py", {"data"}),
    ("data/download.py", {"data"}), ("data/dictionaries.py", {"data"}), ("data/multi30k.py", {"data"}),
    ("data/realtasks.py", {"data"}), ("data/baselines.py", {"data"}), ("data/vocabulary.py", {"data"}),
])
def test_imports_point_downwards_only(name, allowed):
    ours = {p.stem for p in ROOT.glob("*.py")} | {"data"}
    found = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    assert found & ours <= allowed


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{f.name}" in text for f in fields(Config))
