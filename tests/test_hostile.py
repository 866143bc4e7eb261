"""Hostile input: whatever the command line or a file holds, the answer is a result or one line.

The suite tries some hundred inputs; `python tests/test_hostile.py 10000` tries that many and counts.
"""
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest  # noqa: E402
import torch  # noqa: E402

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings, strategies as st  # noqa: E402

import numpy as np  # noqa: E402

import train  # noqa: E402
from data import prepare, text  # noqa: E402
from data.corpus import Corpus  # noqa: E402
from data.files import UserError  # noqa: E402
from data.lab.options import METHODS, Config, load_config  # noqa: E402
from data.lab.runs import CHECKPOINT_VERSION, CONTENT, RunFolder, load_checkpoint  # noqa: E402
from data.world import build  # noqa: E402
from test_prepare import WORDS, sentences  # noqa: E402

INPUTS = int(sys.argv[1]) if __name__ == "__main__" else 0
TRIED = Counter()

OPTIONS = [f.name for f in fields(Config)]
MODES = ["out", "cache", "fresh", "eval_only", "sample", "overfit", "report", "reproduce", "seeds", "help"]
NAMES = st.one_of(st.sampled_from(OPTIONS + MODES), st.sampled_from(OPTIONS).map(lambda k: "no-" + k),
                  st.sampled_from(OPTIONS).map(lambda k: k[:-1]), st.text(max_size=12))
LANGUAGES = st.lists(st.sampled_from(["en", "clone", "clone2", "reversed", "shuffled-2", "none", "",
                                      "klingon", "../x", "shuffled-" + "9" * 30]), max_size=5).map(",".join)
VALUES = st.one_of(
    st.sampled_from(["0", "-1", "1", "1.5", "nan", "inf", "-inf", "1e400", "9" * 5000, "0x10", "1_000",
                     "\u0663", "²", "", " ", "\0", "\udcff", "a\nb", "None", "True", "-", "--", "/dev/null",
                     "/proc", "."]),
    st.integers().map(str), st.floats().map(str), st.text(max_size=20), LANGUAGES, st.sampled_from(METHODS),
    st.sampled_from([c for f in fields(Config) for c in f.metadata["choices"] or ()]))
FLAGS = st.lists(st.one_of(st.tuples(NAMES.map(lambda n: f"--{n}"), VALUES),
                           st.tuples(st.builds("--{}={}".format, NAMES, VALUES)), st.tuples(VALUES)),
                 max_size=5).map(lambda parts: [word for part in parts for word in part])
JSON = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
                    max_leaves=12)
CONFIGS = st.dictionaries(st.sampled_from(OPTIONS), JSON, max_size=5).map(lambda odd: asdict(Config()) | odd)
BYTES = st.one_of(
    st.binary(max_size=300), st.just(b"\0" * 1000), st.just(b"[" * 100_000), st.just(b"{" * 100_000),
    st.just(b"a" * 2**21), st.just(b"1" * 5000), st.text().map(lambda t: t.encode("utf-8", "surrogatepass")),
    JSON.map(lambda j: json.dumps(j).encode()), CONFIGS.map(lambda c: json.dumps(c).encode()))
PIECES = st.sampled_from(["a b", "\0", "\ud800", "é" * 50, "<|doc|>", " ", "\u2028", "x" * 10_000])
TEXTS = st.builds(lambda words, end: end.join(words * 60).encode("utf-8", "surrogatepass"),
                  st.lists(PIECES, max_size=5), st.sampled_from(["\n", "\r", "\r\n", "\n\r"]))


def tries(**inputs):
    def decorate(function):
        function = given(**inputs)(function)
        return settings(max_examples=INPUTS // 10 if INPUTS else 25, derandomize=not INPUTS, deadline=None,
                        database=None, suppress_health_check=list(HealthCheck))(function)
    return decorate


def no_run(*_):
    """Stands for the set-up of a run, which takes seconds."""
    raise UserError("nothing is set up here")


def answer(argv, what):
    """Call train.main without training: -> its exit code, which is 0 or comes with one line."""
    TRIED[what] += 1
    error, before = io.StringIO(), (train.train, train.Run)
    train.train, train.Run = lambda *_, **__: None, no_run
    try:
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            code = train.main(argv)
    except SystemExit as stop:                                 # argparse: --help and mistakes
        code = stop.code
    finally:
        train.train, train.Run = before
    assert code == 0 or code == 2 and error.getvalue().count("\n") == 1, (argv, code, error.getvalue())
    return code


def refused(kind, reader, *how):
    """Let a reader read, or raise an error of one line."""
    TRIED[kind] += 1
    try:
        return reader(*how)
    except (UserError, OSError) as error:
        assert "\n" not in str(error) and str(error), error
    return None


@contextlib.contextmanager
def elsewhere():
    """Work in a temporary folder, so that nothing is written here by accident."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


@pytest.fixture(scope="module", autouse=True)
def place():
    with elsewhere():
        yield


@tries(argv=FLAGS)
def test_any_command_line(argv):
    if not any(word.startswith("--reproduce") for word in argv):                    # it trains
        answer(argv, "command lines")


@tries(name=st.sampled_from(OPTIONS), value=VALUES)
def test_any_value_of_any_flag(name, value):
    answer([f"--{name}", value], "values of flags")


@tries(content=BYTES, files=st.sampled_from(["--from_run=r", "--sample=x --out=r", "--report r"]))
def test_any_bytes_in_the_files_of_a_run(content, files):
    folder = Path("r")
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "summary.json", "log.jsonl", "last.pt"):
        (folder / name).write_bytes(content)
    answer(files.split(" "), "files of a run")
    for name in ("config.json", "summary.json"):
        refused("JSON files", RunFolder(folder).read, name)
    refused("configurations", load_config, folder)
    refused("logs", RunFolder(folder).rows)
    refused("checkpoints", load_checkpoint, folder / "last.pt")
    refused("last checkpoints", RunFolder(folder).last)
    refused("texts", build.read_text, folder / "log.jsonl")


@tries(config=CONFIGS)
def test_any_values_in_a_config_of_another_run(config):
    Path("c").mkdir(exist_ok=True)
    Path("c/config.json").write_text(json.dumps(config), encoding="utf-8")
    answer(["--from_run", "c"], "configurations")
    answer(["--eval_only", "--out", "c"], "configurations")


KEYS = st.sampled_from("method perplexity tasks languages adapt seed word_cosine knowledge transfer".split())
ROWS = st.dictionaries(st.sampled_from(["stage", "step", "lm", "val", "word_cosine"]), JSON)


@tries(summary=st.dictionaries(KEYS, JSON), rows=st.lists(ROWS))
def test_any_results(summary, rows):
    Path("s").mkdir(exist_ok=True)
    Path("s/summary.json").write_text(json.dumps(summary), encoding="utf-8")
    Path("s/log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    answer(["--report", "s"], "results")


@tries(content=TEXTS)
def test_any_text(content):
    Path("t.txt").write_bytes(content)
    refused("texts", build.read_text, Path("t.txt"))
    refused("lines", list, text.lines_of(Path("t.txt")))


@tries(state=st.dictionaries(st.sampled_from(["version", *CONTENT]), JSON))
def test_any_content_of_a_checkpoint(state):
    with contextlib.suppress(OverflowError):                   # torch saves no integer of more than 255 bytes
        torch.save(state | dict(version=CHECKPOINT_VERSION), "odd.pt")
        refused("checkpoints", load_checkpoint, Path("odd.pt"))
        torch.save(state, "odd.pt")
        refused("checkpoints", load_checkpoint, Path("odd.pt"))


@tries(name=st.sampled_from(["meta.json", "tokenizer.json", "en.train.bin", "clone.val.bin", "new.json",
                             "dictionary.clone.tsv", "pairs.clone.test.tsv", "tasks/nli.test.jsonl"]), content=BYTES)
def test_any_bytes_in_a_prepared_folder(name, content):
    folder = Path("corpus")
    if not folder.exists():
        build.build(folder, 0, ["en", "clone"], 1000, 0.1, 300)
    good = (folder / name).read_bytes() if (folder / name).exists() else None
    (folder / name).write_bytes(content)
    assert refused("prepared folders", Corpus, folder) is None or content == good
    (folder / name).write_bytes(good) if good else (folder / name).unlink()


# Files for preparing whose meaning is damaged: {role: {name: content}}.  The first of each role is right.
def meanings():
    def text(language, seed, n=600, most=4):
        lengths, drawn = np.random.default_rng(99).integers(1, most + 1, n), sentences(language, n, seed)
        return [" ".join(drawn[i:i + k]) for i, k in enumerate(lengths)]

    def entries(one, other):
        return [f"{a} {b}" for a, b in zip(WORDS[one], WORDS[other])]

    en, de, cs = text("en", 1), text("de", 2), text("cs", 3)
    pair_en, pair_de = text("en", 9), text("de", 9)
    same_for_all = dict(empty=[], nul=["a\0b"] * 600, latin=["caf\udce9"] * 600, one_word=["w" * 20_000] * 200)
    return dict(
        en=dict(right=en, repeated=en[:1] * 600, other=de, short=en[:20], **same_for_all),
        de=dict(right=de, repeated=de[:1] * 600, english=en, short=de[:20], **same_for_all),
        dictionary=dict(right=entries("en", "de"), turned=entries("de", "en"), foreign=entries("en", "cs"),
                        unknown=entries("cs", "cs"), half=[w for w in WORDS["en"]], **same_for_all),
        pairs_en=dict(right=pair_en, swapped=pair_de, foreign=cs, shorter=pair_en[:-1], shifted=pair_en[1:] + pair_en[:1],
                      few=pair_en[:1], **same_for_all),
        pairs_de=dict(right=pair_de, swapped=pair_en, foreign=cs, shorter=pair_de[1:], shifted=pair_de[-1:] + pair_de[:-1],
                      few=pair_de[:1], **same_for_all))


ROLES = meanings()


def prepared(spaces=True, **chosen):
    """Prepare from the chosen files, German with or without its spaces: -> the exit code of data/prepare.py."""
    shutil.rmtree("made", ignore_errors=True)
    for role, name in chosen.items():
        content = "\n".join(ROLES[role][name])
        if role in ("de", "pairs_de") and not spaces:
            content = content.replace(" ", "")
        Path(f"{role}.txt").write_text(content, encoding="utf-8", errors="surrogateescape")
    wanted = ("--text en=en.txt de=de.txt --dictionary de=dictionary.txt --pairs de=pairs_en.txt,pairs_de.txt "
              "--vocab_size 300 --out made").split()
    error = io.StringIO()
    TRIED["files for preparing"] += 1
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        code = prepare.main(wanted)
    assert code == 0 or code == 2 and error.getvalue().count("\n") == 1, (chosen, error.getvalue())
    assert Path("made").exists() == (code == 0)
    return code


@tries(chosen=st.fixed_dictionaries({role: st.sampled_from(["right"] * 9 + list(ROLES[role])) for role in ROLES}),
       spaces=st.booleans())
def test_any_meaning_of_the_files_for_preparing(chosen, spaces):
    """Whatever is wrong in meaning is refused, and only that."""
    right = set(chosen.values()) == {"right"}
    assert (prepared(spaces, **chosen) == 0) == right, (chosen, spaces)


@tries(data=st.data())
def test_any_change_of_a_file_of_a_prepared_folder(data):
    """A byte, a line, a copy of another file: a folder that does not hold what was written is refused."""
    if not Path("whole").exists():
        assert prepared(**dict.fromkeys(ROLES, "right")) == 0
        Path("made").rename("whole")
    names = sorted(str(path) for path in Path("whole").rglob("*") if path.is_file())
    path, other = (Path(data.draw(st.sampled_from(names))) for _ in range(2))
    good = path.read_bytes()
    at = data.draw(st.integers(0, max(len(good) - 1, 0)))
    bad = data.draw(st.sampled_from([
        good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1:] if good else b"x", good[:at], good + b"x",
        bytes(len(good)), good[::-1], other.read_bytes(), b"{}", good.replace(b"1", b"2")]))
    path.write_bytes(bad)
    found = refused("changed folders", Corpus, Path("whole"))
    path.write_bytes(good)
    if found is not None and bad != good:                      # white space of meta.json, or more than a stream needs
        assert path.name == "meta.json" and json.loads(bad) == json.loads(good) or (
            path.suffix == ".bin" and bad.startswith(good)), path


if __name__ == "__main__":
    torch.set_num_threads(1)
    with elsewhere():
        for test in [found for name, found in globals().items() if name.startswith("test_")]:
            test()                                             # a traceback ends it
    print(f"{sum(TRIED.values()):,} inputs tried, 0 tracebacks: "
          + ", ".join(f"{kind} {n:,}" for kind, n in TRIED.items()))
