"""The prepared folder of a few made-up languages, one without spaces and one written from right to left.

The tests check its content, that it appears completely or not at all, and that every mistake gets one line.
"""
import doctest
import gzip
import itertools
import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer

from data import folder as folders, prepare, text
from data.corpus import Corpus
from data.files import UserError
from data.lab.options import Config, parse_args
from data.prepare import main, next_command
from data.real import build, fit, parallel
from data.real.vocabulary import extend

ROOT = Path(__file__).resolve().parent.parent
SIZE = 60                            # words of each language
WORDS = {"en": [f"{a}{b}" for a in ("dog", "red", "house", "walk", "tree", "old") for b in "abcdefghij"],
         "de": [f"{a}ü{b}" for a in ("Hund", "rot", "Haus", "geh", "Baum", "alt") for b in "klmnopqrst"],
         "zh": [chr(0x4e00 + 7 * i) + chr(0x5e00 + 3 * i) for i in range(SIZE)],
         "he": [chr(0x5d0 + i % 22) + chr(0x5d0 + i // 22) + "ם" for i in range(SIZE)],
         "cs": [f"{a}ř{b}" for a in ("pes", "dům", "jít", "strom", "star", "červ") for b in "abcdefghij"]}


def sentences(language, n=600, seed=0):
    """The same sentences in every language, word for word; frequent words are frequent."""
    rows = (SIZE * np.random.default_rng(seed).random((n, 7)) ** 2).astype(int)
    return [("" if language == "zh" else " ").join(WORDS[language][w] for w in row) + "." for row in rows]


def put(path, lines):
    with (gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else
          open(path, "w", encoding="utf-8")) as file:
        file.write("".join(line + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Text of all languages (no two say the same), German pairs, two dictionaries, and a task."""
    here = tmp_path_factory.mktemp("files")
    for seed, name in enumerate(WORDS, 1):
        put(here / f"{name}.txt", sentences(name, seed=seed))
    put(here / "de.txt.gz", sentences("de", seed=2))
    for name in ("en", "de"):
        put(here / f"pairs.{name}", sentences(name, seed=9))
    put(here / "zh.tsv", [f"{a}\t{b}" for a, b in zip(WORDS["en"], WORDS["zh"])])
    put(here / "muse.txt", [f"{a.lower()} {b.lower()}" for a, b in zip(WORDS["en"], WORDS["de"])]
        + ["unicorn einhorn"])
    (here / "pawsx/en").mkdir(parents=True)
    put(here / "pawsx/en/test_2k.tsv", ["id\tsentence1\tsentence2\tlabel", "1\tA b.\tB a.\t0", "2\tA\tNS\t1"])
    return here


def flags(files, text="en=en.txt de=de.txt", vocab_size=400, **others):
    """The command line, file names below the folder."""
    here = {key: value for key, value in dict(text=text, **others).items() if value}
    found = ["--vocab_size", str(vocab_size)]
    for key, value in here.items():
        found.append(f"--{key}")
        for part in str(value).split():
            name, equals, paths = part.partition("=")
            paths = [f"{files}/{p}" for p in paths.split(",")]
            found.append(name + equals + ",".join(paths) if equals else part)
    return found


@pytest.fixture(scope="module")
def prepared(files, tmp_path_factory):
    """Everything at once: -> the folder, its meta.json."""
    out = tmp_path_factory.mktemp("prepared") / "all"
    wanted = flags(files, "en=en.txt de=de.txt.gz zh=zh.txt he=he.txt cs=cs.txt", new="cs", new_subwords=120,
                   dictionary="zh=zh.tsv", pairs="de=pairs.en,pairs.de", tasks="pawsx=pawsx", out=out)
    assert main(wanted) == 0
    return out, folders.read_meta(out)


def decoded(folder, meta, name, split):
    """The documents of one stream."""
    tokenizer = Tokenizer.from_file(str(folder / (
        f"tokenizer.{name}.json" if name in meta["new"] else "tokenizer.json")))
    tokens = np.fromfile(folder / f"{name}.{split}.bin", meta["dtype"]).astype(np.int64)
    if meta["disjoint"]:
        tokens -= meta["languages"].index(name) * meta["base_vocab"]
    assert tokens[0] == 0
    return [tokenizer.decode(part[1:].tolist())[1:]
            for part in np.split(tokens, np.flatnonzero(tokens == 0))[1:]]


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


# --- what is in the folder ----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", WORDS)
def test_every_document_is_in_one_stream_as_it_was_written(prepared, files, name):
    written = sentences(name, seed=1 + list(WORDS).index(name))
    found = {split: decoded(*prepared, name, split) for split in ("train", "val", "test")}
    assert sorted(sum(found.values(), [])) == sorted(written)
    assert all(15 < len(found[split]) < 60 for split in ("val", "test"))                      # of 600
    assert found["train"] != [d for d in written if d in found["train"]]                      # shuffled


def test_no_test_sentence_is_in_the_training_text_even_if_it_occurs_twice(files, tmp_path):
    """Text and pairs come from the same two files, one with an empty line, every line twice."""
    for name in ("en", "de"):
        put(tmp_path / f"{name}.txt", sentences(name, seed=9) * 2)
    put(tmp_path / "gap.txt", [""] + sentences("de", seed=9) * 2)
    wanted = flags(tmp_path, "en=en.txt de=gap.txt", pairs="de=en.txt,de.txt", out=tmp_path / "out")
    assert main(wanted) == 0
    meta, tested = folders.read_meta(tmp_path / "out"), set()
    for split in ("val", "test"):
        for line in lines(tmp_path / f"out/pairs.de.{split}.tsv"):
            tested.update(line.split("\t"))
        for name in ("en", "de"):
            tested |= set(decoded(tmp_path / "out", meta, name, split))
    assert len(tested) > 40
    for name in ("en", "de"):
        training = decoded(tmp_path / "out", meta, name, "train")
        assert len(training) > 500 and not tested & set(training)


def test_the_numbers_in_meta_are_those_of_the_text(prepared):
    folder, meta = prepared
    assert meta["format"] == 4 and meta["word_order"] == {} and meta["disjoint"] is False
    assert meta["languages"] == ["en", "de", "zh", "he"] and meta["new"] == ["cs"]
    assert meta["spaces"] == dict(en=True, de=True, zh=False, he=True, cs=True)
    for name in WORDS:
        documents = decoded(folder, meta, name, "val")
        assert 10 < meta["documents"][f"{name}.val"] == len(documents)
        assert meta["bytes"][f"{name}.val"] == sum(len(d.encode("utf-8")) for d in documents)
        # a language without spaces counts characters: two a word and the full stop
        assert meta["words"][f"{name}.val"] == len(documents) * (15 if name == "zh" else 7)
        assert meta["tokens"][f"{name}.val"] * 2 == (folder / f"{name}.val.bin").stat().st_size


def test_a_learned_dictionary_is_that_of_the_pairs_and_holds_out_words(prepared):
    folder, meta = prepared
    gold = dict(zip(WORDS["en"], WORDS["de"]))
    train, held_out = (dict(line.split("\t") for line in lines(folder / f"{kind}.de.tsv"))
                       for kind in ("dictionary", "lexicon"))
    assert len(train) > 30 and len(held_out) > 3 and not set(train) & set(held_out)
    assert all(gold[word] == t for word, t in (train | held_out).items())     # also its capitals
    counts = meta["counts"]["languages"]["de"]
    assert counts["learned"] and counts["dictionary"] == len(train)
    assert counts["lexicon_words"] == counts["lexicon"] == len(held_out)
    running = " ".join(decoded(folder, meta, "en", "train")).replace(".", "").split()
    assert counts["coverage"] == pytest.approx(sum(word in train for word in running) / len(running))
    both = list(map("\t".join, zip(sentences("en", seed=9), sentences("de", seed=9))))
    splits = [lines(folder / f"pairs.de.{split}.tsv") for split in ("train", "val", "test")]
    assert sorted(sum(splits, [])) == sorted(both) and all(15 < len(found) < 60 for found in splits[1:])
    assert [counts[f"pairs_{split}"] for split in ("train", "val", "test")] == list(map(len, splits))
    baseline = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))["retrieval"]["de"]
    assert baseline["learned"]["to_english"] > 0.9 > 0.1 > baseline["words"]["to_english"]
    assert baseline["n"] == len(splits[2])


def test_no_training_pair_has_a_sentence_of_the_validation_or_test_text(files, tmp_path):
    """The pairs are those of the texts: the side of another language is in another split than the pair."""
    for name in ("en", "de"):
        put(tmp_path / f"both.{name}", dict.fromkeys(sentences(name, 900, seed=9)))
    assert main(flags(tmp_path, "en=both.en de=both.de", pairs="de=both.en,both.de", out=tmp_path / "out")) == 0
    trained = {side for line in lines(tmp_path / "out/pairs.de.train.tsv") for side in line.split("\t")}
    meta = folders.read_meta(tmp_path / "out")
    for name in ("en", "de"):
        for split in ("val", "test"):
            held_out = decoded(tmp_path / "out", meta, name, split)
            assert len(held_out) > 15 and trained.isdisjoint(held_out)
    assert len(trained) > 1000


def test_a_new_language_without_new_subwords_is_refused(files, tmp_path, capsys):
    put(files / "sc.txt", sentences("en", 400, seed=5))
    assert main(flags(files, "en=en.txt de=de.txt sc=sc.txt", new="sc", vocab_size=2000, out=tmp_path / "out")) == 2
    assert "too little text for new subwords" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_dictionary_of_a_language_without_spaces_keeps_its_translations(prepared):
    gold = dict(zip(WORDS["en"], WORDS["zh"]))
    train = dict(line.split("\t") for line in lines(prepared[0] / "dictionary.zh.tsv"))
    assert len(train) > 30 and all(gold[word] == t for word, t in train.items())


def test_items_are_one_per_line_and_rows_without_a_sentence_are_counted(prepared):
    [item] = map(json.loads, lines(prepared[0] / "tasks/pawsx.test.jsonl"))
    assert item == dict(id="test-1", task="pawsx", prompt={"en": "A b, right?"},
                        candidates={"en": ["Yes, B a.", "No, B a."]}, answer=1)
    assert prepared[1]["counts"]["skipped"] == dict(pawsx=1)


def test_a_new_language_keeps_the_old_subwords_and_takes_fewer_tokens(prepared):
    folder, meta = prepared
    old, new = (Tokenizer.from_file(str(folder / name)) for name in ("tokenizer.json", "tokenizer.cs.json"))
    assert meta["base_vocab"] == 400 < meta["new_vocab"]["cs"] == new.get_vocab_size() <= 520
    assert all(new.get_vocab()[subword] == i for subword, i in old.get_vocab().items())
    merges, more = (json.loads(tokenizer.to_str())["model"]["merges"] for tokenizer in (old, new))
    assert more[:len(merges)] == merges and len(more) > len(merges)
    documents = decoded(folder, meta, "cs", "val")
    before = sum(len(old.encode(f" {d}")) for d in documents)
    assert meta["tokens"]["cs.val"] - len(documents) < 0.7 * before
    per_word = (meta["tokens"]["cs.train"] - meta["documents"]["cs.train"]) / meta["words"]["cs.train"]
    assert (f"\n    {per_word:.2f} tokens per word with {meta['new_vocab']['cs'] - 400} new subwords\n"
            in build.summary(folder, meta))
    for name in WORDS:
        for document in sentences(name, 20):
            assert new.decode(new.encode(document).ids) == document
            assert len(new.encode(document)) <= len(old.encode(document))


def test_more_new_subwords_give_fewer_tokens(prepared):
    old, documents = Tokenizer.from_file(str(prepared[0] / "tokenizer.json")), sentences("cs")
    longer, rows = zip(*(extend(old, documents, n, 400) for n in (10, 40, 160)))
    assert [t.get_vocab_size() for t in longer] == list(rows) and rows[:2] == (410, 440)
    lengths = [sum(map(len, t.encode_batch(documents))) for t in longer]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == 3


def test_a_subword_needs_five_examples(prepared):
    old = Tokenizer.from_file(str(prepared[0] / "tokenizer.json"))
    assert extend(old, ["jvx"] * 4, 100, 400)[1] == 400
    assert extend(old, ["jvx"] * 5, 100, 400)[0].encode(" jvx").tokens == ["Ġjvx"]


def test_documents_are_shuffled_by_seed_language_and_split(prepared):
    documents = [d for i, d in enumerate(sentences("de", seed=2)) if text.split_of(d, i) == "val"]
    order = np.random.default_rng((0, 404, 1, 1)).permutation(len(documents))
    assert decoded(*prepared, "de", "val") == [documents[i] for i in order]


def test_a_small_language_gets_its_share_of_the_subwords(files, tmp_path):
    assert main(flags(files, captions=60, vocab_size=340, out=tmp_path / "out")) == 0
    subwords = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).get_vocab()
    assert sum("Ã" in s for s in subwords if len(s) > 1) > 20                 # the first byte of ü


def test_the_tokenizer_never_sees_what_is_held_out(files, tmp_path):
    written = []
    for i, line in enumerate(sentences("en")):
        secret = line + " xqzxqzxqz" * 9
        written.append(line if text.split_of(secret, i) == "train" else secret)
    assert 30 < sum("xqz" in line for line in written) < 90
    put(files / "secret.txt", written)
    assert main(flags(files, "en=secret.txt de=de.txt", vocab_size=700, out=tmp_path / "out")) == 0
    subwords = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).get_vocab()
    # whichever pair of the secret's letters would be merged first
    assert not {"xq", "qz", "zx", "Ġx"} & set(subwords) and "Ġdog" in subwords


def test_a_new_language_leaves_the_tokenizer_as_it_is_without_it(files, tmp_path):
    for name, more in dict(a=dict(), b=dict(text="en=en.txt de=de.txt cs=cs.txt", new="cs")).items():
        assert main(flags(files, vocab_size=450, out=tmp_path / name, **more)) == 0
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in "ab")
    assert first == second


def test_what_is_learned_from_pairs_is_only_a_baseline_next_to_a_given_dictionary(tmp_path):
    """The given one is wrong, so that its words can be told from those of the pairs."""
    wrong = dict(zip(WORDS["en"], WORDS["de"][1:] + WORDS["de"][:1]))
    source = build.Source(
        ["en", "de"], [], lambda name, split: sentences(name, seed=len(split)),
        lambda name, split: zip(*(sentences(side, seed=9 + len(split)) for side in ("en", name))),
        paired=["de"], given=dict(de={word: [t.lower()] for word, t in wrong.items()}),
        about=dict(licence=[]))
    build.write(tmp_path / "out", source, vocab_size=400)
    train, held_out = (dict(line.split("\t") for line in lines(tmp_path / f"out/{kind}.de.tsv"))
                       for kind in ("dictionary", "lexicon"))
    assert len(train) > 30 and len(held_out) > 3
    assert all(wrong[word] == t for word, t in (train | held_out).items())
    baseline = json.loads((tmp_path / "out/baselines.json").read_text(encoding="utf-8"))["retrieval"]["de"]
    assert baseline["learned"]["to_english"] > 0.9 > 0.1 > baseline["dictionary"]["to_english"]
    assert not folders.read_meta(tmp_path / "out")["counts"]["languages"]["de"]["learned"]


def test_few_pairs_teach_no_word_and_the_next_command_needs_none(files, tmp_path, capsys):
    for name in ("en", "de"):
        put(tmp_path / f"few.{name}", sentences(name, 3, seed=9))
    pairs = f"de={tmp_path}/few.en,{tmp_path}/few.de"
    assert main([*flags(files), "--pairs", pairs, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "learned dictionary: 0 pairs of 0 words, 0% of English text" in shown
    assert "next: python train.py --method baseline" in shown


def test_disjoint_languages_share_no_token_and_read_the_same(files, tmp_path):
    assert main(flags(files, disjoint=" ", out=tmp_path / "out")) == 0
    meta = folders.read_meta(tmp_path / "out")
    for i, name in enumerate(("en", "de")):
        tokens = np.fromfile(tmp_path / f"out/{name}.train.bin", meta["dtype"])
        assert tokens.min() == i * 400 and tokens.max() < (i + 1) * 400
        assert len(decoded(tmp_path / "out", meta, name, "train")) > 350


def test_limits_take_the_first_documents_pairs_and_words(files, tmp_path):
    assert main(flags(files, pairs="de=pairs.en,pairs.de", dictionary="de=muse.txt", captions=50, pairs_n=30,
                      dictionary_words=10, out=tmp_path / "out")) == 0
    meta = folders.read_meta(tmp_path / "out")
    assert meta["documents"]["en.train"] > 350 and meta["documents"]["de.train"] == 50
    counts = meta["counts"]["languages"]["de"]
    assert (counts["pairs_train"], counts["pairs_test"], counts["dictionary_words"]) == (30, 29, 10)


def test_a_limit_of_training_documents_leaves_validation_and_test_text_alone(files, tmp_path):
    assert main(flags(files, captions=16, out=tmp_path / "out")) == 0
    documents = folders.read_meta(tmp_path / "out")["documents"]
    splits = [text.split_of(d, i) for i, d in enumerate(sentences("de", seed=2))]
    assert documents["de.train"] == 16 < min(splits.count("val"), splits.count("test"))
    assert [documents[f"de.{split}"] for split in ("val", "test")] == [splits.count("val"), splits.count("test")]


def test_a_word_of_the_dictionary_that_never_occurs_is_counted(files, tmp_path, capsys):
    assert main(flags(files, dictionary="de=muse.txt", out=tmp_path / "out")) == 0
    shown = capsys.readouterr().out
    assert "dropped: 1 pairs (a word never occurs, or a phrase)" in shown and "pawsx" not in shown
    counts = folders.read_meta(tmp_path / "out")["counts"]["languages"]["de"]
    assert counts["never_occur"] == 1 and not counts["learned"]
    assert f"{counts['lexicon_words']} words held out" in shown
    assert "unicorn" not in (tmp_path / "out/dictionary.de.tsv").read_text(encoding="utf-8")


def test_the_fit_of_a_dictionary_is_shown_in_numbers_with_a_warning(files, tmp_path, capsys):
    rows = [f"{a} {b}".lower() for a, b in zip(WORDS["en"], WORDS["de"][:6] + WORDS["cs"][6:])]
    put(tmp_path / "bad.txt", rows)
    wanted = [*flags(files), "--dictionary", f"de={tmp_path}/bad.txt", "--out", str(tmp_path / "out")]
    assert main(wanted) == 0
    shown = capsys.readouterr().out
    found = folders.read_meta(tmp_path / "out")["counts"]["languages"]["de"]["fit"]
    assert found["english"] == 1 and found["occur"] == 0.1 and 0.1 < found["other"] < 0.5
    assert "of the words of de; 10.0% of the translations occur in its text\n    warning: below 20%" in shown
    assert main([*flags(files, dictionary="de=muse.txt"), "--out", str(tmp_path / "good")]) == 0
    assert "warning" not in capsys.readouterr().out


def test_a_parallel_corpus_is_divided_so_that_no_text_holds_a_translation_of_another(files, tmp_path):
    """Sentences repeat with other translations: what hangs together stays in one part."""
    english, german, hebrew = (sentences(name, 1500, seed=4) for name in ("en", "de", "he"))
    for i in range(0, 1500, 5):
        english[i] = english[i - 1]                             # one English sentence, two German ones
        hebrew[i - 2] = hebrew[i]                               # and one Hebrew sentence, two English ones
    for name, lines_ in dict(en=english, de=german, he=hebrew).items():
        put(tmp_path / name, lines_)
    wanted = flags(tmp_path, text="", parallel="de=en,de he=en,he", new="he", divide=0.7)
    assert main([*wanted, "--out", str(tmp_path / "out")]) == 0
    meta = folders.read_meta(tmp_path / "out")
    found = {(name, split): list(decoded(tmp_path / "out", meta, name, split))
             for name in ("en", "de", "he") for split in folders.SPLITS}
    assert all(len(documents) == len(set(documents)) for documents in found.values())
    found = {stream: set(documents) for stream, documents in found.items()}
    all_pairs = dict(de=set(zip(english, german)), he=set(zip(english, hebrew)))
    for name, some in all_pairs.items():
        for one, other in some:                                 # a pair is in one split, and never on both sides of train
            splits = {split for split in folders.SPLITS if one in found["en", split] or other in found[name, split]}
            assert len(splits) == 1
            assert splits != {"train"} or (one in found["en", "train"]) != (other in found[name, "train"])
        for split in folders.SPLITS:
            pairs = {tuple(line.split("\t")) for line in lines(tmp_path / f"out/pairs.{name}.{split}.tsv")}
            assert pairs and pairs <= some and {other for _, other in pairs} <= found[name, split]
            if split == "train":
                assert {other for _, other in pairs} == found[name, split]
            else:                                               # each sentence once, also where it had two translations
                assert all(len(set(side)) == len(pairs) < len(some) for side in zip(*pairs))
            assert ({one for one, _ in pairs} <= found["en", split]) == (split != "train")
    n = {key: len(documents) for key, documents in found.items()}
    assert 0.6 < n["en", "train"] / (n["en", "train"] + n["de", "train"]) < 0.8
    assert all(20 < n["en", split] < 160 for split in ("val", "test"))
    assert meta["counts"]["languages"]["de"]["dictionary_words"] > 20


def test_the_example_of_groups_is_true():
    assert doctest.testmod(parallel).attempted == 1 and not doctest.testmod(parallel).failed


def test_a_test_sentence_occurs_once_and_in_no_training_pair(files, tmp_path):
    """Every German sentence has three English ones, and every tenth English one has two German ones."""
    english, german = sentences("en", 1200, seed=9), sentences("de", 1200, seed=9)
    german = [german[i // 3] for i in range(1200)]
    english = [english[max(i - 5, 0)] if i % 10 == 9 else one for i, one in enumerate(english)]
    put(tmp_path / "a.en", english), put(tmp_path / "a.de", german)
    wanted = [*flags(files), "--pairs", f"de={tmp_path}/a.en,{tmp_path}/a.de", "--out", str(tmp_path / "out")]
    assert main(wanted) == 0
    pairs = {split: [tuple(line.split("\t")) for line in lines(tmp_path / f"out/pairs.de.{split}.tsv")]
             for split in folders.SPLITS}
    tested = set()
    for split in ("val", "test"):
        assert len(pairs[split]) > 30 and all(len(set(side)) == len(pairs[split]) for side in zip(*pairs[split]))
        tested.update(itertools.chain(*pairs[split]))
    assert len(pairs["train"]) > 500 and not any(tested & set(pair) for pair in pairs["train"])
    assert set(itertools.chain(*pairs.values())) <= set(zip(english, german))
    meta = folders.read_meta(tmp_path / "out")
    assert meta["counts"]["languages"]["de"]["pairs_train"] == len(pairs["train"])
    baseline = json.loads((tmp_path / "out/baselines.json").read_text(encoding="utf-8"))["retrieval"]["de"]
    assert baseline["n"] == len(pairs["test"])


def test_pairs_of_unequal_lengths_are_taken_as_they_are(files, tmp_path):
    put(files / "a.en", [" ".join([x] * (1 + i * i % 7)) for i, x in enumerate(sentences("en", seed=9))])
    put(files / "a.de", [" ".join([x] * (1 + i * i % 7)) for i, x in enumerate(sentences("de", seed=9))])
    assert main(flags(files, pairs="de=a.en,a.de", out=tmp_path / "out")) == 0


def test_a_flag_that_is_repeated_adds_up(files):
    once, twice = (prepare.parse_args(wanted) for wanted in (
        ["--text", "en=a", "hu=b", "cs=c", "--new", "cs", "hu"],
        ["--text", "en=a", "--text", "hu=b", "cs=c", "--new", "cs", "--new", "hu"]))
    assert once == twice and once.text == ["en=a", "hu=b", "cs=c"]


def test_the_same_input_and_seed_give_the_same_bytes(files, prepared, tmp_path):
    def content(seed):
        out = tmp_path / f"out{seed}"
        assert main(flags(files, "en=en.txt de=de.txt cs=cs.txt", new="cs", pairs="de=pairs.en,pairs.de",
                          seed=seed[0], out=out)) == 0
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    first, again, other = content("0a"), content("0b"), content("1")
    assert first == again and len(first) > 12
    assert first["en.train.bin"] != other["en.train.bin"]
    assert first["tokenizer.json"] == other["tokenizer.json"]


def test_both_ways_to_call_it_work(files, tmp_path):
    wanted, content = flags(files, pairs="de=pairs.en,pairs.de"), []
    for i, call in enumerate((["data/prepare.py"], ["-m", "data.prepare"])):
        out = tmp_path / str(i)
        done = subprocess.run([sys.executable, *call, *wanted, "--out", str(out)], cwd=ROOT, text=True,
                              capture_output=True, env=os.environ | {"PYTHONHASHSEED": str(i)})
        assert done.returncode == 0 and "tokens per word" in done.stdout and not done.stderr
        content.append({str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert content[0] == content[1]                                           # whatever the order of sets


# --- mistakes -----------------------------------------------------------------------------------------------

def complaint(wanted, capsys, out):
    """Run a wrong command: -> its one line on stderr.  The exit code is 2 and nothing is left behind."""
    try:
        assert main([*wanted, "--out", str(out)]) == 2
    except SystemExit as stop:
        assert stop.code == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("prepare.py: ") and not said.out
    assert not out.exists() and not list(out.parent.glob(f"{out.name}*"))
    return said.err


@pytest.mark.parametrize("change, message", [
    (dict(text="en=en.txt de=gone.txt"), "--text de={files}/gone.txt: {files}/gone.txt does not exist"),
    (dict(text="en=gone.txt"), "gone.txt does not exist"),            # before the languages are complained of
    (dict(text="en=en.txt de=folder"), "folder cannot be read: Is a directory"),
    (dict(text="en=en.txt de=empty.txt"), "empty.txt: no training text, it needs one document per line"),
    (dict(text="en=en.txt de=latin.txt"), "latin.txt line 150 is not UTF-8 (byte 3)"),
    (dict(text="en=en.txt de=cut.txt.gz"), "cut.txt.gz is damaged after line"),
    (dict(text="de=de.txt he=he.txt"), "en and at least one other"),
    (dict(text="en=en.txt"), "en and at least one other"),
    (dict(text="en=en.txt de"), "--text de: write NAME=FILE"),
    (dict(text="en=en.txt de=de.txt de=he.txt"), "de is given twice"),
    (dict(new="de"), "languages of pretraining: en; en and at least one other"),
    (dict(new="xx"), "--new xx: not one of en, de"),
    (dict(dictionary="de=bad.txt"), "bad.txt line 2: 'katze' is not a pair of words"),
    (dict(dictionary="he=muse.txt"), "--dictionary he: not one of de"),
    (dict(dictionary="en=muse.txt"), "--dictionary en: not one of de"),
    (dict(dictionary="de=gone.txt"), "gone.txt does not exist"),
    (dict(pairs="de=pairs.en,short.de"), "short.de differ in length"),
    (dict(pairs="de=pairs.en"), "two files, English first"),
    (dict(pairs="de=pairs.de,pairs.en"), "pairs of de: 0% of the words of the English side occur in the English text, 100%"),
    (dict(pairs="de=pairs.de,pairs.de"), "pairs of de: both sides are the same in 530 of the first 530 pairs"),
    (dict(text="en=en.txt zh=zh.txt", pairs="zh=zh.txt,en.txt"), "the two files look swapped"),
    (dict(pairs="de=en.txt,cs.txt"), "0% of the others in the text of de: are these other languages?"),
    (dict(pairs="de=shifted.en,shifted.de"), "the lengths of sentences fit those some lines away better (correlation"),
    (dict(pairs="de=shifted.en,back.de"), "is a file shifted?"),
    (dict(text="en=en.txt de=en.txt"), "en.txt: the same text as that of en"),
    (dict(pairs="de=one.txt,one.txt"), "for training, at least two"),
    (dict(pairs="de=empty.txt,empty.txt"), "pairs of de: 0 for training, at least two"),
    (dict(dictionary="de=turned.txt"), "its first words are 0% of the English text, its second words 100%: it seems to be reversed"),
    (dict(dictionary="de=foreign.txt"), "it has 60 translations of words of the English text, and none of them occurs"),
    (dict(dictionary="de=numbers.txt"), "it has 0 translations of words of the English text, and none of them occurs"),
    (dict(text="en=en.txt zh=zh.txt", dictionary="zh=muse.txt"), "none of them occurs in the text of zh"),
    (dict(text="en=en.txt de=repeated.txt"), "its val part has 0 tokens, context length 128 needs 130"),
    (dict(text="en=en.txt de=nul.txt"), "nul.txt line 1 has a NUL byte: save the file as text in UTF-8"),
    (dict(text="", parallel="en=en.txt,de.txt"), "languages of pretraining: en; en and at least one other"),
    (dict(text="", parallel="de=en.txt,short.de"), "differ in length"),
    (dict(text="", parallel="de=few.en,few.de"), "1 for training, at least two"),
    (dict(parallel="de=en.txt,de.txt"), "give either --download multi30k or --text"),
    (dict(divide=0.5), "--divide goes with --parallel"),
    (dict(text="", parallel="de=en.txt,de.txt", divide=1.5), "--divide 1.5 is out of range: 0.05 to 0.95"),
    (dict(text="", parallel="de=en.txt,de.txt", divide="nan"), "--divide nan is out of range"),
    (dict(languages="en,de"), "--languages goes with --download"),
    (dict(**{"from-dir": "gone"}), "--from-dir goes with --download"),
    (dict(cache="gone"), "--cache goes with --download"),
    (dict(new_subwords=9), "--new_subwords goes with --new"),
    (dict(pairs_n=9), "--pairs_n goes with --pairs"),
    (dict(dictionary_words=9), "--dictionary_words goes with --dictionary or --pairs"),
    (dict(pairs="de=pairs.en,gone.de"), "gone.de does not exist"),
    (dict(pairs="he=pairs.en,pairs.de"), "--pairs he: not one of de"),
    (dict(tasks="pawsx=badtask"), "test_2k.tsv line 2 has no field 'label'"),
    (dict(tasks="pawsx=gone"), "gone does not exist"),
    (dict(tasks="pawsx=folder"), "no test item found in {files}/folder, expected {files}/folder/en/dev_2k.tsv"),
    (dict(tasks="glue=pawsx"), "--tasks glue: not one of pawsx, xnli, xcopa, xstorycloze"),
    (dict(disjoint=" ", new="de"), "--disjoint goes without --new"),
    (dict(vocab_size=100), "--vocab_size 100 is out of range: 300 to 1048576"),
    (dict(vocab_size=10**12), "--vocab_size 1000000000000 is out of range: 300 to 1048576"),
    (dict(captions=10**30), "is out of range: 1 to"),
    (dict(text="en=en.txt de=unbroken.txt"), "unbroken.txt line 101 has a word of more than 10,000 characters"),
    (dict(captions=1), "its train part has"),
    (dict(text=""), "give either --download multi30k or --text"),
    (dict(new_subword=5), "unknown flag --new_subword; did you mean --new_subwords?"),
    (dict(dictionry="de=muse.txt"), "unknown flag --dictionry; did you mean --dictionary?"),
    (dict(zzz=1), "unknown flag --zzz; did you mean --"),
    (dict(download="multi30k", text="", pairs="de=pairs.en,pairs.de"), "--pairs goes with --text"),
    (dict(download="multi30k", text="", **{"from-dir": "gone"}), "--from-dir gone: no such folder"),
    (dict(download="multi30k", text="", **{"from-dir": "x" * 300}), "File name too long"),
])
def test_a_mistake_gets_one_line_and_leaves_nothing(files, tmp_path, capsys, change, message):
    put(files / "empty.txt", [])
    (files / "latin.txt").write_bytes(b"fine\n" * 149 + "caf\u00e9\n".encode("latin-1")[1:])
    (files / "cut.txt.gz").write_bytes((files / "de.txt.gz").read_bytes()[:-2000])
    put(files / "bad.txt", ["dog hund", "katze"])
    for name, n in dict(turned=("de", "en"), foreign=("en", "cs")).items():
        put(files / f"{name}.txt", [f"{a.lower()} {b.lower()}" for a, b in zip(*map(WORDS.get, n))])
    put(files / "numbers.txt", ["17 18", "19 20"])
    put(files / "one.txt", ["One line."])
    for name in ("en", "de"):
        put(files / f"few.{name}", sentences(name, 3, seed=9))
    long = [" ".join([line] * (1 + i * i % 7)) for i, line in enumerate(sentences("en", seed=9))]
    put(files / "shifted.en", long)
    long = [" ".join([line] * (1 + i * i % 7)) for i, line in enumerate(sentences("de", seed=9))]
    put(files / "shifted.de", long[1:] + long[:1])
    put(files / "back.de", long[-1:] + long[:-1])
    put(files / "repeated.txt", ["The same line again."] * 2000)
    put(files / "nul.txt", ["\0\0"] * 2000)
    put(files / "unbroken.txt", ["fine words"] * 100 + ["ab" * 50_000])
    put(files / "short.de", sentences("de", seed=9)[:-1])
    (files / "badtask/en").mkdir(parents=True, exist_ok=True)
    (files / "folder").mkdir(exist_ok=True)
    put(files / "badtask/en/test_2k.tsv", ["id\tsentence1\tsentence2\tlabel", "1\tA\tB"])
    said = complaint(flags(files, **change), capsys, tmp_path / "out")
    assert message.replace("{files}", str(files)) in said


def test_a_newline_in_the_name_of_a_language_is_one_line(files, tmp_path, capsys):
    said = complaint([*flags(files)[:3], f"en={files}/en.txt", f"d\ne={files}/de.txt"], capsys, tmp_path / "out")
    assert "--text d e=" in said and "write NAME=FILE" in said


def test_a_text_too_short_for_training_is_refused_with_what_it_needs(files, tmp_path, capsys):
    put(tmp_path / "short.txt", sentences("de", 150))
    said = complaint(flags(files)[:2] + ["--text", f"en={files}/en.txt", f"de={tmp_path}/short.txt"], capsys,
                     tmp_path / "out")
    assert re.search(r"short\.txt: its val part has \d+ tokens, context length 128 needs 130: use more", said)


def test_a_text_is_enough_from_the_tokens_on_that_one_row_needs(files, tmp_path, capsys, monkeypatch):
    assert main([*flags(files), "--out", str(tmp_path / "a")]) == 0
    longest = int(capsys.readouterr().out.splitlines()[-3].split()[-1])
    monkeypatch.setattr(build, "CONTEXT_LEN", longest)
    assert main([*flags(files), "--out", str(tmp_path / "b")]) == 0 and capsys.readouterr()
    monkeypatch.setattr(build, "CONTEXT_LEN", longest + 1)
    assert f"context length {longest + 1} needs" in complaint(flags(files), capsys, tmp_path / "c")


def test_the_summary_ends_with_a_context_length_that_fits_and_the_next_command(files, tmp_path, capsys):
    out = tmp_path / "my folder"
    assert main([*flags(files, dictionary="de=muse.txt"), "--out", str(out)]) == 0
    *_, about_context, expected, command = capsys.readouterr().out.splitlines()
    assert expected.startswith("fewer than 200,000 tokens of de: PreAlign finds translations there")
    longest = int(about_context.split()[-1])
    corpus = Corpus(out)
    corpus.check(longest + 1)                                                 # a row and its last target
    with pytest.raises(UserError, match="but a row needs"):
        corpus.check(longest + 2)
    assert longest >= build.CONTEXT_LEN == Config().context_len
    assert command == f"next: python train.py --method prealign --data '{out}'"
    assert parse_args(shlex.split(command)[3:])[0].languages == "en,de"
    meta = folders.read_meta(out)
    meta["counts"]["languages"]["de"]["dictionary_words"] = 1
    assert "--method baseline" in next_command(out, meta)                     # one word cannot be aligned
    meta["tokens"]["de.train"] = build.LITTLE
    assert "fewer than" not in build.summary(out, meta)                       # whatever English has
    del meta["counts"]["languages"]["de"]["dictionary_words"]
    assert "--method baseline" in next_command(out, meta)


def test_wrong_checksums_and_unknown_languages_of_a_download_leave_nothing(tmp_path, capsys):
    (tmp_path / "local/multi30k/task1").mkdir(parents=True)
    put(tmp_path / "local/multi30k/task1/test_2016_flickr.de.gz", ["A dog."])
    wanted = ["--download", "multi30k", "--from-dir", str(tmp_path / "local")]
    assert "test_2016_flickr.de.gz: wrong checksum" in complaint(wanted, capsys, tmp_path / "out")
    assert "--languages xx: not one of en, de, fr, cs" in complaint(
        [*wanted, "--languages", "en,xx"], capsys, tmp_path / "out")


def test_a_full_disk_gets_one_line_and_leaves_nothing(files, tmp_path):
    done = subprocess.run(
        [sys.executable, "data/prepare.py", *flags(files, out=tmp_path / "out")], cwd=ROOT, text=True,
        capture_output=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)),
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 2 and done.stderr == f"prepare.py: {tmp_path}/out: File too large\n"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_refused_before_anything_is_downloaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("data.prepare.source_of", lambda args: pytest.fail("read before the folder was refused"))
    (tmp_path / "out").mkdir()
    assert main(["--download", "multi30k", "--out", str(tmp_path / "out")]) == 2
    assert "out exists" in capsys.readouterr().err


def test_a_folder_that_exists_is_not_touched(files, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("precious", encoding="utf-8")
    assert main(flags(files, out=tmp_path / "out")) == 2
    assert "out exists: delete it, or choose another folder" in capsys.readouterr().err
    assert lines(tmp_path / "out/mine") == ["precious"] and len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_another_tokenizer_is_refused(files, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="out is not a prepared folder"):
        folders.read_meta(out)
    assert main(flags(files, out=out)) == 0
    meta, tokenizer = ((out / name).read_text(encoding="utf-8") for name in ("meta.json", "tokenizer.json"))
    for name, content, message in (
            ("tokenizer.json", tokenizer + " ", r"tokenizer\.json was changed after the folder was prepared"),
            ("meta.json", meta[:-3], "meta.json is damaged"),
            ("meta.json", meta.replace('"format": 4', '"format": 9'), "9, this program reads format 4"),
            ("meta.json", meta.replace('"en": true', '"en": false'), r"meta\.json was changed after it was written"),
            ("meta.json", '{"format": 4}', r"meta\.json was changed"),
            ("baselines.json", "{}", r"baselines\.json was changed"),
            ("lexicon.de.tsv", "a\tb\n", r"lexicon\.de\.tsv is no file of this folder"),
            ("de.val.bin", "short", r"de\.val\.bin was changed")):
        before = (out / name).read_bytes() if (out / name).exists() else None
        (out / name).write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            folders.read_meta(out)
        (out / name).write_bytes(before) if before else (out / name).unlink()
    assert folders.read_meta(out)["base_vocab"] == 400


# --- text ---------------------------------------------------------------------------------------------------

def test_text_is_composed_spaced_by_plain_spaces_and_free_of_our_separator(tmp_path):
    put(tmp_path / "a.txt", ["\ufeffcafe\u0301\u00a0 noir", "", " <|doc|> x\u3000y\tz ", "\t \t", "\ta\t\tb\t"])
    assert list(text.documents_of(tmp_path / "a.txt")) == ["café noir", "x y z", "a b"]


def test_pairs_stay_aligned_over_empty_lines(tmp_path):
    first, second = put(tmp_path / "a", ["1", "\t", "\t3\t\t4"]), put(tmp_path / "b", ["eins", "zwei", "drei vier\t"])
    assert list(text.pairs_of(first, second)) == [("1", "eins"), ("3 4", "drei vier")]
    with pytest.raises(UserError, match=r"a and .*b differ in length, .*b ends after line 3"):
        list(text.pairs_of(put(first, ["1", "2", "3", "4"]), second))


def test_a_sample_is_bounded_evenly_spaced_and_whole_where_it_fits():
    documents = [f"{i:04}" for i in range(1000)]
    assert text.sample(iter(documents), 4000) == documents
    assert text.sample(iter(documents), 600) == documents[::8]
    assert text.sample(["x" * 50], 10) == ["x" * 50]


def test_at_most_the_first_200_000_documents_are_held_out():
    found = [text.split_of(str(i), i) for i in range(199_000, 201_000)]
    for split in ("val", "test"):
        assert 30 < found[:1000].count(split) < 70 and split not in found[1000:]


def test_a_later_copy_of_what_is_held_out_is_no_training_text(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "HELD_OUT_OF", 600)
    written = {name: list(dict.fromkeys(sentences(name, 600, seed=7))) for name in ("en", "de")}
    for name, first in written.items():
        put(tmp_path / f"twice.{name}", first + first)
    assert main(flags(tmp_path, "en=twice.en de=twice.de", out=tmp_path / "out")) == 0
    meta = folders.read_meta(tmp_path / "out")
    for name, first in written.items():
        train, val, test = (decoded(tmp_path / "out", meta, name, split) for split in folders.SPLITS)
        assert all((train, val, test)) and not set(train) & {*val, *test}
        assert len(train) // 2 + len(val) + len(test) == len(first)


def test_a_small_language_is_repeated_but_not_for_ever():
    counts = [sum(d == name for d in build.balanced(dict(a=["a"] * 100, b=["b"] * 25, c=["c"])))
              for name in "abc"]
    assert counts == [100, 100, 10]


@pytest.mark.parametrize("weight, n, refused", [(0.3, 400, False), (1.0, 400, True), (1.0, 99, False)])
def test_files_are_called_shifted_only_if_lengths_fit_elsewhere_by_more_than_a_fifth(weight, n, refused):
    rng = np.random.default_rng(1)
    one, noise = rng.integers(5, 60, n), rng.integers(5, 60, n)
    other = np.round(weight * np.roll(one, -1) + noise).astype(int)          # like the next line of English
    here, away = (np.corrcoef(one, np.roll(other, by))[0, 1] for by in (0, 1))
    # 4 / sqrt(n) is what chance explains: more than that is not yet enough, and less than 100 pairs tell nothing
    assert away - here > 4 / n ** 0.5 and (away - here > 0.2 + 4 / n ** 0.5) == (weight == 1.0)
    pairs = [("a " * a, "b " * b) for a, b in zip(one, other)]
    counts = [SimpleNamespace(count={letter: 1}, split=str.split) for letter in "ab"]
    if refused:
        with pytest.raises(UserError, match="is a file shifted"):
            fit.of_pairs("de", pairs, *counts)
    else:
        fit.of_pairs("de", pairs, *counts)


def test_a_parallel_corpus_is_divided_as_asked(files, monkeypatch):
    seen = []
    monkeypatch.setattr(prepare.parallel, "source", lambda old, new, corpora, share, rest: seen.append(share))
    for more in ((), ("--divide", "0.3"), ("--divide", "0.05")):
        pair = f"de={files / 'pairs.en'},{files / 'pairs.de'}"
        prepare.source_of(prepare.parse_args(["--parallel", pair, *more]))
    assert seen == [0.75, 0.3, 0.05]
