"""The documents are executed: commands parse, references point at their lines, numbers come from result files.
And the structure holds: who may import whom, and how many files one has to open."""
import ast
import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

import figures
import pages
import train
from data import prepare
from data.lab import claims, tables
from data.lab.options import Config, parse_args
from data.real.build import write
from pages import TAG
from test_real import source
from test_pretrained_runs import byte_level, checkpoint
from test_tables import KEYS

ROOT = Path(__file__).resolve().parent.parent
PAGES = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in pages.PATHS}
README, METHODS_PAGE, REFERENCE = PAGES["README.md"], PAGES["data/methods.md"], PAGES["data/README.md"]
GLOSSARY = PAGES["data/glossary.md"]
RESULTS = "\n".join(text for name, text in PAGES.items() if name.startswith("data/results/"))
DOCUMENTS = "\n".join(PAGES.values())
SOURCES = sorted(p for p in ROOT.rglob("*.py") if not set(p.relative_to(ROOT).parts) & {".venv", "runs"})
CODE = [p for p in SOURCES if "tests" not in p.relative_to(ROOT).parts]


# --- references ---------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def blocks():
    return pages.blocks()


@pytest.mark.parametrize("page", PAGES)
def test_each_page_is_what_the_code_and_the_results_say(page, blocks):
    assert pages.rewrite(PAGES[page], blocks) == PAGES[page], "run python tests/pages.py"


def test_every_table_has_one_place_and_every_formula_its_line(blocks):
    assert sorted(re.findall("<!-- (flags|first rows|headlines|tally|ablation|[a-z]+ results) -->", DOCUMENTS)) == sorted(blocks)
    rows = list(TAG.finditer(DOCUMENTS))
    assert len(rows) >= 15
    for row in rows:
        line = (ROOT / row["file"]).read_text(encoding="utf-8").splitlines()[int(row["line"]) - 1]
        assert f"[{row['tag']}]" in line, row.group(0)


def test_every_tag_in_the_code_stands_once_in_a_file_and_once_on_the_page_of_the_methods():
    rows = [row["tag"] for row in TAG.finditer(METHODS_PAGE)]
    listed = set(rows)
    assert len(rows) == len(listed)
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        tags = re.findall(r"\[((?:PreAlign|forgetting|AFP): [^\]]+|InfoNCE)\]", text)
        assert len(tags) == len(set(tags)), path
        assert set(tags) <= listed, path


def test_every_train_command_of_the_documents_parses(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "baseline-tiny-synthetic-s0"                # left by an earlier command
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(asdict(Config())), encoding="utf-8")
    write(tmp_path / "data" / "multi30k", source(), vocab_size=330, new_subwords=40)
    checkpoint(tmp_path / "smollm2", byte_level())
    write(tmp_path / "data" / "smollm2", source(), new_subwords=40, checkpoint=tmp_path / "smollm2")
    (tmp_path / "data" / "smollm2-fr").symlink_to(tmp_path / "data" / "smollm2")
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"python train\.py (--[^`\n|]*)", DOCUMENTS)
    found = [c for c in found if "--help" not in c and "..." not in c and not re.search("--(sample|export) ", c)]
    assert len(found) >= 40
    for command in found:
        parse_args(shlex.split(command))


def test_every_prepare_command_of_the_documents_parses():
    found = re.findall(r"python data/prepare\.py[^`\n|]*", DOCUMENTS)
    assert len(found) >= 5
    for command in found:
        prepare.parse_args(shlex.split(command)[2:])


def test_every_module_that_the_documents_start_exists():
    for name in re.findall(r"python -m (data[\w.]*)", DOCUMENTS):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_every_flag_that_a_document_names_exists(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help", "all"])
    assert stop.value.code in (0, None)
    known = set(re.findall(r"--(?:no-)?(\w+)", capsys.readouterr().out))
    assert {f.name for f in fields(Config)} <= known
    known |= {"new_subwords", "captions", "pairs_n", "dictionary_words", "disjoint", "download", "from", "new",
              "pairs", "parallel", "divide", "tasks", "quick", "dist", "standalone", "nproc_per_node",
              "help", "index", "checkpoint", "tokenizer"}
    for name, text in PAGES.items():
        spans = re.findall(r"`([^`\n]+)`", text)
        assert {flag for span in spans for flag in re.findall(r"--(?:no-)?(\w+)", span)} <= known, name


def test_every_module_has_its_place_in_the_map():
    table = re.search(r"## Where is what\n(.*?)\n## ", REFERENCE, re.S)[1]
    for path in [*ROOT.glob("*.py"), *(ROOT / "data").glob("*.py"), *(ROOT / "data" / "lab").glob("*.py")]:
        assert path.name in table or path.name == "__init__.py", path.name


def test_every_test_that_the_documents_name_exists():
    named = re.findall(r"(tests/\w+\.py)::(\w+)", DOCUMENTS)
    assert len(named) >= 3
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
            for head in re.findall(r"^#+ (.+)$", PAGES[page], re.M)}


def links(page):
    """The links of a page to files and headings: -> [(path from the root, anchor)]."""
    found, folder = [], (ROOT / page).parent
    for path, anchor in re.findall(r"\]\(([^()#\s]*)(?:#([^()\s]*))?\)", PAGES[page]):
        if not path.startswith("http"):
            target = (folder / path).resolve() if path else ROOT / page
            found.append((target.relative_to(ROOT).as_posix(), anchor))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target, anchor in links(page):
        assert (ROOT / target).exists(), target
        assert not anchor or anchor in anchors(target), f"{target}#{anchor}"


def test_every_file_that_a_document_names_exists():
    for path in re.findall(r"`((?:\w+/)*\w+\.(?:py|md|tsv))`", DOCUMENTS):
        assert any(p.as_posix().endswith(f"/{path}") for p in ROOT.rglob(Path(path).name)), path


def test_the_readme_is_short_and_links_every_page_once():
    lines = README.splitlines()
    assert len(lines) <= 200
    assert len(re.findall(r"\S*\w\S*", README)) <= 1800
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
    of_studies = {name for name in PAGES if name.startswith("data/results/")} - {"data/results/plan.md"}
    others = set(PAGES) - of_studies - {"README.md"} | {"data/results/README.md"}
    linked = [target for target, _ in links("README.md") if target in PAGES and target != "README.md"]
    assert sorted(linked) == sorted(others)
    assert of_studies - {"data/results/README.md"} <= {target for target, _ in links("data/results/README.md")}


def test_the_glossary_has_at_most_20_terms_and_every_key_of_summary_json():
    terms, log, keys = (re.search(rf"## {title}\n(.*?)(?:\n## |\Z)", GLOSSARY, re.S)[1]
                        for title in ("Terms", "Keys of log.jsonl", "Keys of summary.json"))
    assert 0 < len(re.findall(r"^\| ", terms, re.M)) - 1 <= 20                   # the first is the head
    first = " ".join(re.findall(r"^\| (`[^|]*) \|", keys, re.M))
    explained = re.findall(r"`(\w+)`", first)
    assert len(explained) == len(set(explained))
    assert KEYS <= set(explained)
    assert {"method", "seed", "parameters", "tokens", "held_out_word_cosine", "minutes"} <= set(explained)
    assert {"stage", "step", "lm", "prealign", "val", "lr"} <= set(re.findall(r"`(\w+)`", log))


# --- numbers ------------------------------------------------------------------------------------------------

def test_the_first_paragraphs_of_the_readme_have_the_numbers_of_the_results_files():
    found, text = claims.committed()["prealign"], " ".join(README.split("## Quick start")[0].split())
    joint, published, kept = (tables.spread(found[name], "knowledge.clone", 2).split()[0]
                              for name in ("joint", "published", "kept"))
    measure, _ = tables.find("knowledge.clone")
    more = tables.spread(claims.committed()["mini"]["published"], "knowledge.clone", 2).split()[0]
    assert re.findall(r"answers (\d\.\d+)", text) == [joint, published, kept]
    assert f"chance is {measure.chance}" in text and f"and {more} after ten times the text" in text
    assert len(re.findall(r"\b\d+\.\d+\b", re.sub(r"\(http.*?\)", "", text))) == 5   # and no others


# --- structure ----------------------------------------------------------------------------------------------

def imports_of(path):
    """Our modules that a file imports, as "data.lab.runs" or "model"."""
    ours = {p.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for p in CODE}
    packages = {name.rsplit(".", 1)[0] for name in ours if "." in name}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{a.name}" for a in node.names}
            names = [*(inner & ours)] if node.module in packages else [node.module]
        found |= ours & set(names)
    return found


def group(module):
    parts = module.split(".")
    return "/".join(parts[:2]) if len(parts) == 3 else module


LOWER = {"data.corpus", "data.tasks", "data.folder", "data.files", "data.text"}
METHODS = {"prealign", "forget", "align"}


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path):
    module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    allowed = {
        "model": set(), "prealign": {"model"}, "forget": {"model"}, "align": {"model"},
        "data.files": set(), "data.pretrained": {"data.files", "model"}, "data.text": {"data.files"},
        "data.folder": {"data.files", "data.text"},
        "data.tasks": set(), "data.corpus": LOWER, "data/world": LOWER | {"data/world"},
        "data/real": LOWER | {"data/real"}, "data.prepare": LOWER | {"data/real"},
        "data/lab": LOWER | METHODS | {"model", "data.pretrained", "data/lab", "data/world"},
        "train": LOWER | METHODS | {"model", "data.pretrained", "data/lab"}, "data.__init__": set()}
    assert {group(name) for name in imports_of(path)} <= allowed[group(module)]


def test_only_one_module_of_the_laboratory_builds_the_world():
    users = [p.name for p in CODE if p.parent.name == "lab" and any("world" in m for m in imports_of(p))]
    assert users == ["run.py"]


def test_a_default_run_loads_no_code_for_real_languages():
    code = "import sys, train; print([m for m in sys.modules if m.startswith('data.real')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_low_files_do_not_speak_for_the_command_line():
    for path in CODE:
        low = path.name in ("model.py", "prealign.py", "forget.py", "align.py") or path.parent.name in (
            "data", "world") and path.name not in ("prepare.py", "__main__.py")
        if not low:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) or getattr(getattr(node, "func", None), "id", "") == "refuse":
                text = ast.unparse(node)
                assert not re.search(r"--\w|train\.py", text), f"{path.name}:{node.lineno}"


def hops(start, goal):
    """Files on the shortest chain of imports from one file to another, both included."""
    chain, seen = [[start]], {start}
    while chain:
        path = chain.pop(0)
        if path[-1] == goal:
            return len(path)
        file = ROOT / (path[-1].replace(".", "/") + ".py")
        for name in sorted(imports_of(file) - seen):
            seen.add(name)
            chain.append([*path, name])
    return None


@pytest.mark.parametrize("start, goal, most", [
    ("train", "data.corpus", 2), ("train", "model", 2), ("train", "data.lab.options", 2),
    ("train", "data.lab.measures", 2), ("train", "data.world.lexicon", 5), ("data.lab.claims", "data.lab.tables", 2)])
def test_few_files_lie_between_a_question_and_its_answer(start, goal, most):
    assert hops(start, goal) <= most


def test_the_story_and_the_whole_stay_short():
    def lines(paths):
        return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
    story = [ROOT / name for name in ("model.py", "prealign.py", "forget.py", "align.py", "train.py",
                                      "data/corpus.py", "data/tasks.py")]
    assert lines([*story, *(ROOT / "data" / "world").glob("*.py")]) <= 2595
    assert lines(CODE) <= 7340


def test_every_text_file_is_opened_as_utf_8():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name, method = getattr(node.func, "id", ""), getattr(node.func, "attr", "")
            if method == "write_text" and getattr(node.func.value, "id", "") == "folders":
                continue                                       # data/folder.py's own function
            if name == "open" or method in ("read_text", "write_text"):
                binary = any(isinstance(a, ast.Constant) and a.value in ("rb", "wb", "ab") for a in node.args)
                assert binary or any(k.arg == "encoding" for k in node.keywords), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_figure_is_made_of_the_numbers_of_the_studies_and_is_shown(name):
    text = (claims.RESULTS / f"{name}.svg").read_text(encoding="utf-8")
    assert text == figures.FIGURES[name]()
    assert f"results/{name}.svg)" in README + METHODS_PAGE or f"]({name}.svg)" in RESULTS
    titles = [element.text for element in ElementTree.fromstring(text) if element.tag.endswith("title")]
    assert len(titles) == 1 and titles[0] and "prefers-color-scheme: dark" in text


def test_no_line_of_code_is_longer_than_110_characters():
    for path in CODE:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 110, f"{path.relative_to(ROOT)}:{number}"
