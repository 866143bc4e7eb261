"""Hostile input: whatever the command line or a file holds, the answer is a result or one line.

The suite tries some hundred inputs; `python tests/test_hostile.py 10000` tries that many and counts.
"""
import contextlib
import io
import json
import os
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

import train  # noqa: E402
from data import text  # noqa: E402
from data.corpus import Corpus  # noqa: E402
from data.files import UserError  # noqa: E402
from data.lab.options import METHODS, Config, load_config  # noqa: E402
from data.lab.runs import CHECKPOINT_VERSION, CONTENT, RunFolder, load_checkpoint  # noqa: E402
from data.world import build  # noqa: E402

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
WORDS = st.sampled_from(["a b", "\0", "\ud800", "é" * 50, "<|doc|>", " ", "\u2028", "x" * 10_000])
TEXTS = st.builds(lambda words, end: end.join(words * 60).encode("utf-8", "surrogatepass"),
                  st.lists(WORDS, max_size=5), st.sampled_from(["\n", "\r", "\r\n", "\n\r"]))


def tries(**inputs):
    def decorate(function):
        function = given(**inputs)(function)
        return settings(max_examples=INPUTS // 8 if INPUTS else 25, derandomize=not INPUTS, deadline=None,
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    with elsewhere():
        for test in [found for name, found in globals().items() if name.startswith("test_")]:
            test()                                             # a traceback ends it
    print(f"{sum(TRIED.values()):,} inputs tried, 0 tracebacks: "
          + ", ".join(f"{kind} {n:,}" for kind, n in TRIED.items()))
