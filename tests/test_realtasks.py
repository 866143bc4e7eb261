"""Public test sets in their formats, captions of a few words, results without a model: all hand-written."""
import doctest
import gzip
import hashlib
import json

import numpy as np
import pytest
import torch

from data.files import UserError
from data.folder import FRACTION, read_meta
from data.lab.options import REAL
from data.lab import geometry
from data.prepare import main
from data.real import baselines, download, multi30k, public_tasks
from data.real.dictionaries import WORD, WordCounts
from data.real.multi30k import CLASSES, Multi30k, balanced, completions, label


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(line + "\n" for line in lines).encode("utf-8")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


SPLIT = dict.fromkeys(("en", "de"), WORD.findall)
PAWSX = "id\tsentence1\tsentence2\tlabel"


def test_pawsx_joins_languages_and_skips_rows_without_a_sentence(tmp_path):
    write(tmp_path / "en/test_2k.tsv", PAWSX, "1\tA dog .\tOne dog .\t1", "2\tA cat.\tA hat.\t0")
    write(tmp_path / "de/test_2k.tsv", PAWSX, "1\tEin Hund.\tNS\t1", "2\tEine Katze.\tEin Hut.\t0",
          "3\t\tx\t0")
    items, skipped = public_tasks.read("pawsx", tmp_path, ["en", "de", "fr"])
    assert skipped == 2 and [item["id"] for _, item in items] == ["test-1", "test-2"]
    assert {split for split, _ in items} == {"test"}
    assert items[0][1]["prompt"] == {"en": "A dog, right?"}
    rows = [public_tasks.Row("", dict(id="1", pairID="1", sentence1=f"一只狗{stop}", sentence2="狗。", label="1",
                                      gold_label="neutral")) for stop in ("。", " 。", "．", "।", ".", "")]
    assert {reader(row)[1] for row in rows for reader in (public_tasks.pawsx, public_tasks.xnli)} == {"一只狗, right?"}
    assert items[1][1] == dict(id="test-2", task="pawsx", answer=1, prompt=dict(
        en="A cat, right?", de="Eine Katze, right?"), candidates=dict(
        en=["Yes, A hat.", "No, A hat."], de=["Yes, Ein Hut.", "No, Ein Hut."]))


@pytest.mark.parametrize("row, message", [
    ("2\tA cat.\t0", "line 3 has no field 'label': it has id, sentence1, sentence2"),
    ("2\tA cat.\tA hat.\tno", "line 3: label is 'no', expected one of 1, 0"),
])
def test_a_row_that_lacks_a_field_is_named(tmp_path, row, message):
    path = write(tmp_path / "en/test_2k.tsv", PAWSX, "1\tA\tB\t1", row)
    with pytest.raises(UserError, match=f"{path} {message}"):
        public_tasks.read("pawsx", tmp_path, ["en"])


def test_xnli_has_three_answers_and_all_languages_in_a_file(tmp_path):
    header = "language\tgold_label\tpairID\tsentence1\tsentence2"
    write(tmp_path / "xnli.dev.tsv", header, "en\tneutral\t7\tA man eats.\tHe is old.",
          "de\tneutral\t7\tEin Mann isst.\tEr ist alt.", "ar\tneutral\t7\tx\ty")
    write(tmp_path / "xnli.test.tsv", header, "en\tentailment\t7\tA.\tB.", "en\tcontradiction\t8\tA.\tB.")
    [(split, item), *test], skipped = public_tasks.read("xnli", tmp_path, ["en", "de"])
    assert [(split, item["id"], item["answer"]) for split, item in test] == [("test", "test-7", 0),
                                                                             ("test", "test-8", 2)]
    assert (split, skipped, item["answer"]) == ("val", 0, 1) and set(item["prompt"]) == {"en", "de"}
    assert item["candidates"]["de"] == ["Yes, Er ist alt.", "Also, Er ist alt.", "No, Er ist alt."]


def test_xcopa_reads_json_lines_that_end_as_on_windows(tmp_path):
    row = dict(premise="他饿了。", choice1="他吃饭", choice2="他睡觉", question="effect", label=0, idx=3)
    other = row | dict(question="cause", label=1, idx=4)
    write(tmp_path / "zh/test.zh.jsonl", *(json.dumps(r, ensure_ascii=False) + "\r" for r in (row, other)))
    [(split, item), (_, second)], _ = public_tasks.read("xcopa", tmp_path, ["en", "zh"])
    assert split == "test" and item["prompt"] == {"zh": "他饿了 so"} and item["answer"] == 0
    assert item["id"] == "test-3" and item["candidates"] == {"zh": ["他吃饭", "他睡觉"]}
    assert second["prompt"] == {"zh": "他饿了 because"} and second["answer"] == 1
    write(tmp_path / "zh/val.zh.jsonl", json.dumps(row | dict(premise=None)))
    with pytest.raises(UserError, match=r"val\.zh\.jsonl line 1 has no field 'premise'"):
        public_tasks.read("xcopa", tmp_path, ["zh"])
    for broken in ("{broken", "[" * 9000, '{"a":' * 1900, json.dumps(row | dict(premise="\ud83d"))):
        write(tmp_path / "zh/val.zh.jsonl", "\t", broken)
        with pytest.raises(UserError, match=r"val\.zh\.jsonl line 2 is not a JSON object"):
            public_tasks.read("xcopa", tmp_path, ["zh"])


def test_an_empty_field_at_either_end_of_a_row_moves_no_other_field(tmp_path):
    path = write(tmp_path / "a.tsv", "\tid\tlabel\t", "\t", "0\ta\tb\tc", "\ta\tb\t")
    assert [dict(row) for row in public_tasks.rows_of(path)] == [
        {"": "c", "id": "a", "label": "b"}, {"": "", "id": "a", "label": "b"}]


def test_escaped_fields_of_json_are_cleaned(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps(dict(premise="A\u0308\n b\t")))
    assert [row["premise"] for row in public_tasks.rows_of(path)] == ["Ä b"]


def test_a_test_set_without_test_items_is_refused(tmp_path):
    write(tmp_path / "en/dev_2k.tsv", "id\tsentence1\tsentence2\tlabel", "1\tA\tB\t1")
    with pytest.raises(UserError, match="pawsx: no test item found"):
        public_tasks.read("pawsx", tmp_path, ["en"])


def test_xstorycloze_has_four_sentences_and_two_endings(tmp_path):
    header = "\t".join(["InputStoryid", *(f"InputSentence{k}" for k in (1, 2, 3, 4)),
                        *(f"RandomFifthSentenceQuiz{k}" for k in (1, 2)), "AnswerRightEnding"])
    write(tmp_path / "spring2016.val.ru.tsv.split_20_80_eval.tsv", header, "s\tA.\tB.\tC.\tD.\tbad\tgood\t2")
    [(split, item)], _ = public_tasks.read("xstorycloze", tmp_path, ["en", "ru"])
    assert item == dict(id="test-s", task="xstorycloze", prompt={"ru": "A. B. C. D."},
                        candidates={"ru": ["bad", "good"]}, answer=1) and split == "test"


def test_a_folder_without_the_files_is_named_with_what_it_needs(tmp_path):
    with pytest.raises(UserError, match=r"xcopa: no test item found in .*, expected .*en/val\.en\.jsonl or "):
        public_tasks.read("xcopa", tmp_path, ["en", "de"])


# --- captions -----------------------------------------------------------------------------------------------

def test_the_example_in_the_docstring_is_true():
    result = doctest.testmod(multi30k)
    assert result.attempted >= 1 and result.failed == 0


def test_a_label_needs_three_captions_of_five_and_no_rival():
    who, scene = CLASSES["who"], CLASSES["scene"]
    assert label(["a dog"] * 3 + ["an animal"] * 2, who) == list(who).index("dog")
    assert label(["a dog"] * 2 + ["an animal"] * 3, who) is None
    assert label(["a dog and a man"] + ["a dog"] * 4, who) == list(who).index("dog")
    assert label(["a dog and a man"] * 2 + ["a dog"] * 3, who) is None
    assert label(["Snow!"] * 5, scene) == list(scene).index("snow")


def test_classes_are_balanced():
    assert balanced([(1, 0), (2, 0), (3, 1)]) == [(1, 0), (3, 1)] and balanced([]) == []


def test_all_endings_of_a_completion_begin_with_the_same_word():
    rng = np.random.default_rng(0)
    captions = [" ".join(f"w{w}" for w in row) for row in rng.integers(0, 4, (60, 9))] + ["too short"]
    items = list(completions(captions, "de", seed=0))
    assert len(items) > 50 and items == list(completions(captions, "de", seed=0))
    for item in items:
        [prompt], [candidates] = item["prompt"].values(), item["candidates"].values()
        assert len({c.split()[0] for c in candidates}) == 1 and len(set(candidates)) == 4
        assert f"{prompt} {candidates[item['answer']]}" == captions[int(item["id"].split("-")[1])]
        assert 3 <= len(prompt.split()) <= 6
    assert len({item["answer"] for item in items}) == 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """290 pictures, whose number is in their captions; the first of the five is the translated one."""
    folder, files = tmp_path_factory.mktemp("captions"), {}

    def put(name, lines):
        files[f"multi30k/{name}"] = write(folder / "multi30k" / name, *lines)

    for stem, n in (("train", 290), ("val", 20), ("test_2016_flickr", 20)):
        what = ["man", "woman", "dog", "child"] * n
        put(f"task1/{stem}.en.gz", [f"a {what[i]} {stem}{i} k1" for i in range(n)])
        put(f"task1/{stem}.de.gz", [f"ein {what[i]} {stem}{i}" for i in range(n)])
        for k in range(1, 6):
            put(f"task2/{stem.removesuffix('_flickr')}.{k}.en.gz",
                [f"a {what[i]} {stem}{i} k{k}" for i in range(n)])
    return files


@pytest.fixture(scope="module")
def captions(files):
    made = Multi30k(files, ["en", "de"], seed=0)
    made.translated["de", "train"][made.part_b[0]] = "@@"                # like two of the real lines
    return made


def pictures(documents):
    return {d.split()[2] for d in documents}


def test_no_picture_of_the_english_text_is_in_the_other_text_or_in_the_pairs(files, captions):
    english, german = captions.text("en", "train"), captions.text("de", "train")
    pairs = captions.pairs("de", "train")
    assert len(pictures(english)) == 170 and len(english) == 850
    assert len(pictures(german)) == len(german) == 119
    assert not pictures(english) & pictures(german) and pictures(b for _, b in pairs) == pictures(german)
    assert all(a.split()[1:3] == b.split()[1:] for a, b in pairs)
    assert captions.text("en", "train") == english != Multi30k(files, ["en"], seed=1).text("en", "train")
    for split in ("val", "test"):
        sides = captions.text("en", split), captions.text("de", split)
        assert captions.pairs("de", split) == list(zip(*sides)) and len(sides[0]) == 20


def test_labelled_captions_keep_the_pictures_separate_and_are_in_every_language(captions):
    items = [(split, item) for split, item in captions.items() if item["task"] == "who"]
    train = [item for split, item in items if split == "train"]
    in_english, in_german = ({i["id"] for i in train if name in i["prompt"]} for name in ("en", "de"))
    assert in_english and in_german and not in_english & in_german
    assert len({sum(i["answer"] == c for i in train if "en" in i["prompt"]) for c in range(4)}) == 1
    test = [item for split, item in items if split == "test"]
    assert len(test) == 20 and all(set(item["prompt"]) == {"en", "de"} for item in test)
    assert all(item["prompt"]["en"].split()[1] == item["candidates"][item["answer"]] for item in test)


# --- results without a model --------------------------------------------------------------------------------

def test_naive_bayes_on_paper():
    train = [(["dog", "runs"], 0), (["dog"], 0), (["cat"], 1)]
    assert baselines.naive_bayes(train, [(["dog"], 0), (["cat"], 1)], 2) == 1
    # p(dog) is 3/6 and 1/4, p(runs) 2/6 and 1/4, p(cat) 1/6 and 2/4: of three sentences of class 1, two are
    # recognised.  Without the totals 6 and 4, "runs cat" is a tie.  With priors, "dog cat" is of class 0
    test = [(["dog"], 0), (["runs"], 1), (["runs", "cat"], 1), (["dog", "cat"], 1)]
    assert baselines.naive_bayes(train, test, 2) == pytest.approx((1 + 2 / 3) / 2)
    # "dog dog cat" counts dog twice: 3/6 * 3/6 * 1/6 against 1/4 * 1/4 * 2/4
    assert baselines.naive_bayes(train, [(["dog", "dog", "cat"], 0)], 3) == 1
    # one class is all right, the other half: the mean over classes
    assert baselines.naive_bayes(train, [(["dog"], 0), (["dog"], 1), (["cat"], 1)], 2) == 0.75
    assert baselines.naive_bayes(train, [(["hund"], 0), (["katze"], 1)], 2) == 0.5          # knows neither
    assert baselines.naive_bayes([(["cat"], 0), (["dog", "runs"], 1)], [(["hund"], 0)], 2) == 1


def test_retrieval_finds_shared_features_and_counts_a_tie_in_parts():
    """"x" is unknown: it is as near to all three, as is "d" from the other side."""
    sides = [["a", "b"], ["c"], ["d"]], [["a"], ["c"], ["x"]]
    both = baselines.retrieval(*sides)
    assert both == dict(to_english=pytest.approx((1 + 1 + 1 / 3) / 3), from_english=both["to_english"])
    assert baselines.retrieval([["a"], ["a"]], [["a"], ["a"]]) == dict(to_english=0.5, from_english=0.5)
    # the rule of the models' retrieval: equal rows as states and as features
    rows = np.random.default_rng(0).integers(0, 6, 40)
    states, features = torch.eye(6)[rows], [[str(row)] for row in rows]
    assert baselines.retrieval(features, features) == pytest.approx(
        dict.fromkeys(("to_english", "from_english"), geometry.retrieval(states, states)))
    assert baselines.trigrams("Dog") == [" do", "dog", "og "]


def test_retrieval_tells_its_directions_apart():
    """The second foreign sentence is mostly about a, so it finds the first English one; b finds it alone."""
    sides = [["a"], ["b"], ["c"]], [["a"], ["a", "a", "a", "b"], ["c"]]
    assert baselines.retrieval(*sides) == dict(to_english=2 / 3, from_english=1)
    assert baselines.retrieval(*sides[::-1]) == dict(to_english=1, from_english=2 / 3)
    # "x a" shares one word with each English sentence; x is the rarer one
    sides = [["x", "p"], ["y", "a"]], [["x", "a"], ["y", "a"]]
    assert baselines.retrieval(*sides) == dict(to_english=1, from_english=1)
    # c, three times, weighs (1 + log 3) log(4 / 3) = .60, and the rarer a weighs log 2 = .69
    sides = [["a", "a"], ["c", "c"]], [["c", "c", "c", "a"], ["c", "c"]]
    assert baselines.retrieval(*sides) == dict(to_english=1, from_english=1)


def test_pairs_of_unlike_languages_are_found_by_their_dictionary_alone():
    pairs = [("a dog", "un chien"), ("a cat", "un chat"), ("a bird", "un oiseau")]
    inverse = dict(un="a", chien="dog", chat="cat", oiseau="bird")
    found = baselines.of_pairs(pairs, dict(dictionary=inverse, learned=inverse | dict(chat="dog")))
    both = dict(to_english=1, from_english=1)
    assert (found["n"], found["chance"], found["dictionary"]) == (3, 1 / 3, both)
    chance = pytest.approx(1 / 3)
    assert found["words"] == dict(to_english=chance, from_english=chance)
    # "chat" as "dog": two foreign sentences find the dog, and the dog finds the right one of the two in half
    # of the cases.  The cat shares "a" with all three
    assert found["learned"]["to_english"] == pytest.approx(2 / 3)
    assert found["learned"]["from_english"] == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert baselines.of_pairs([("ab", "ab."), ("cd", "cde")], {})["trigrams"]["to_english"] == 1


def test_an_inverse_dictionary_takes_the_frequent_word_or_the_better_rank():
    english = WordCounts(["dog dog hound pets"])
    assert baselines.invert(dict(hound=["Hund"], dog=["Hund"]), english) == dict(hund="dog")
    assert baselines.invert(dict(Dog=["Hund"], hound=["Hund"]), english) == dict(hund="dog")
    ranked = dict(dog=["tier", "hund"], hound=["hund"])
    assert baselines.invert(ranked, english, True) == dict(tier="dog", hund="hound")
    assert baselines.invert(ranked, english) == dict(tier="dog", hund="dog")     # ranks mean nothing here
    # at equal rank, the frequent word
    assert baselines.invert(dict(hound=["Hund"], dog=["Hund"]), english, True) == dict(hund="dog")


def test_words_that_go_together_in_the_text_complete_a_caption():
    text = ["snow ski cold", "beach swim warm"] * 20
    item = dict(prompt=dict(en="cold snow"), candidates=dict(en=["swim warm", "ski"]), answer=1)
    assert baselines.cooccurrence([item], "en", text) == 1
    assert baselines.cooccurrence([item | dict(answer=0)], "en", text) == 0
    # a frequent word goes with everything; relative to its frequency, "ski" goes with snow more
    text = ["snow ski"] * 2 + ["snow the"] * 3 + ["beach the"] * 20
    item = dict(prompt=dict(en="snow"), candidates=dict(en=["the", "ski"]), answer=1)
    assert baselines.cooccurrence([item], "en", text) == 1
    assert baselines.cooccurrence([item], "en", text, most=2) == 0            # ski is not among the two
    # a word of the prompt does not count, though it goes best with itself
    text = ["snow ski"] * 5 + ["snow"] * 5 + ["beach"] * 10 + ["beach ski"] * 5
    item = dict(prompt=dict(en="snow"), candidates=dict(en=["snow", "ski"]), answer=1)
    assert baselines.cooccurrence([item], "en", text) == 1


def test_classification_needs_its_dictionary_and_its_own_captions():
    def items(split, language, *labelled):
        return [(split, dict(prompt={language: text}, answer=answer, task="who", candidates=["dog", "cat"]))
                for text, answer in labelled]

    known = items("train", "en", ("Dog.", 0), ("cat", 1)) + items("val", "de", ("maus", 0))
    own = items("train", "de", ("hund", 0), ("katze", 1), ("maus", 1))
    test = items("test", "de", ("Hund", 0), ("hund", 0), ("katze", 1), ("maus", 1))
    inverse = dict(hund="dog", katze="cat")
    found = baselines.of_tasks(known + own + test, ["en", "de"], {"de": {"dictionary": inverse}},
                               dict(en=[], de=[]), SPLIT)
    # unknown words leave class 0; the dictionary lacks "maus"
    assert found == dict(who=dict(de=dict(n=4, chance=0.5, naive_bayes=0.5, naive_bayes_dictionary=0.75,
                                          naive_bayes_own=1)))
    found = baselines.of_tasks(known + test, ["en", "de"], {}, dict(en=[], de=[]), SPLIT)
    assert found == dict(who=dict(de=dict(n=4, chance=0.5, naive_bayes=0.5)))


def test_other_tasks_have_chance_and_the_most_frequent_answer():
    item = dict(task="xnli", prompt=dict(en="a"), candidates=dict(en=["x", "y", "z"]))
    items = [("test", item | dict(answer=a)) for a in (1, 1, 0, 1, 2)] + [("val", item | dict(answer=0))] * 9
    for task in ("other", "xnli"):
        found = baselines.of_tasks([(split, item | dict(task=task)) for split, item in items], ["en", "de"], {},
                                   dict(en=[], de=[]), SPLIT)
        assert found == {task: dict(en=dict(n=5, chance=1 / 3, majority=0.6))}


def test_model_free_results_are_of_the_items_that_a_model_is_asked():
    item = dict(task="xnli", prompt=dict(en="a"), candidates=dict(en=["x", "y"]))
    items = [("test", item | dict(answer=int(i >= 200))) for i in range(2000)]
    found = baselines.of_tasks(items, ["en"], {}, dict(en=[]), SPLIT)["xnli"]["en"]
    assert (found["n"], found["majority"]) == (200, 1.0) and baselines.ITEMS == REAL["eval_items"] == 1000
    assert set(FRACTION) == set(public_tasks.TASKS)


def test_every_task_and_language_has_its_results(captions):
    items = list(captions.items())
    found = baselines.of_tasks(items, ["en", "de"], {"de": {"dictionary": {"ein": "a"}}},
                               {name: captions.text(name, "train") for name in ("en", "de")}, SPLIT)
    # `who` is the same word in both made-up languages
    assert found["who"]["de"] == dict(n=20, chance=0.25, naive_bayes=1, naive_bayes_dictionary=1,
                                      naive_bayes_own=1)


def test_classes_of_the_tasks_share_no_word():
    for classes in CLASSES.values():
        words = [word for group in classes.values() for word in group]
        assert len(words) == len(set(words))


# --- the whole folder ---------------------------------------------------------------------------------------

def test_the_download_becomes_a_folder(files, tmp_path, monkeypatch, capsys):
    """The command on made-up files of the same names, whose checksums take the place of the real ones."""
    local = files["multi30k/task1/val.en.gz"].parents[2]
    sums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    for name, rows in {"dictionaries/muse/en-de.txt": ["a ein", "dog dog", "man man", "cat katze"],
                       "pawsx/en/dev_2k.tsv": [PAWSX, "1\tA dog.\tB.\t1"],
                       "pawsx/en/test_2k.tsv": [PAWSX, "1\tA dog.\tB.\t1", "2\tNS\tB.\t0"],
                       "pawsx/de/dev_2k.tsv": [PAWSX], "pawsx/de/test_2k.tsv": [PAWSX]}.items():
        sums[name] = hashlib.sha256(write(local / name, *rows).read_bytes()).hexdigest()
    monkeypatch.setattr(download, "SHA256", sums)
    wanted = ["--download", "multi30k", "--languages", "de,en", "--from-dir", str(local), "--vocab_size=300"]
    assert main([*wanted, "--out", str(tmp_path / "out")]) == 0
    assert "CC BY-NC 4.0" in capsys.readouterr().out
    meta = read_meta(tmp_path / "out")
    assert meta["languages"] == ["en", "de"] and meta["source"] == "multi30k" and len(meta["licence"]) == 3
    assert meta["documents"] == {"en.train": 850, "de.train": 120, "en.val": 20, "de.val": 20, "en.test": 20,
                                 "de.test": 20}
    assert set(meta["counts"]["tasks"]) == {"who", "pawsx"}
    assert meta["counts"]["tasks"]["pawsx"] == dict(test=1, val=1)
    assert meta["counts"]["skipped"] == dict(pawsx=1)
    counts = meta["counts"]["languages"]["de"]
    assert (counts["pairs_train"], counts["pairs_test"], counts["learned"]) == (120, 20, False)
    pairs = (tmp_path / "out/pairs.de.test.tsv").read_text(encoding="utf-8").splitlines()
    assert pairs[2] == "a dog test_2016_flickr2 k1\tein dog test_2016_flickr2"
    own = write(tmp_path / "own.txt", "child child", "woman woman")
    out = tmp_path / "own"
    assert main([*wanted, "--dictionary", f"de={own}", "--out", str(out), "--seed", "3"]) == 0
    found = {line.split("\t")[0] for name in ("dictionary", "lexicon")
             for line in (out / f"{name}.de.tsv").read_text(encoding="utf-8").splitlines()}
    assert {"child", "woman"} <= found and "dog" not in found
