"""Public test sets in their formats, captions of a few words, lines without a model: all hand-written."""
import json

import numpy as np
import pytest

from data import baselines, multi30k, realtasks
from data.dictionaries import Words
from data.multi30k import SCENE, WHO, Multi30k, balanced, completions, label
from data.text import DataError


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


PAWSX = "id\tsentence1\tsentence2\tlabel"


def test_pawsx_joins_languages_and_skips_rows_without_a_sentence(tmp_path):
    write(tmp_path / "en/test_2k.tsv", PAWSX, "1\tA dog .\tOne dog .\t1", "2\tA cat.\tA hat.\t0")
    write(tmp_path / "de/test_2k.tsv", PAWSX, "1\tEin Hund.\tNS\t1", "2\tEine Katze.\tEin Hut.\t0",
          "3\t\tx\t0")
    items, skipped = realtasks.read("pawsx", tmp_path, ["en", "de", "fr"])
    assert skipped == 2 and [item["id"] for _, item in items] == ["test-1", "test-2"]
    assert {split for split, _ in items} == {"test"}
    assert items[0][1]["prompt"] == {"en": "A dog, right?"}
    assert items[1][1] == dict(id="test-2", task="pawsx", answer=1, prompt=dict(
        en="A cat, right?", de="Eine Katze, right?"), candidates=dict(
        en=["Yes, A hat.", "No, A hat."], de=["Yes, Ein Hut.", "No, Ein Hut."]))


@pytest.mark.parametrize("row, message", [
    ("2\tA cat.\t0", "line 3 has no field 'label': it has id, sentence1, sentence2"),
    ("2\tA cat.\tA hat.\tno", "line 3: label is 'no', expected one of 1, 0"),
])
def test_a_row_that_lacks_a_field_is_named(tmp_path, row, message):
    path = write(tmp_path / "en/test_2k.tsv", PAWSX, "1\tA\tB\t1", row)
    with pytest.raises(DataError, match=f"{path} {message}"):
        realtasks.read("pawsx", tmp_path, ["en"])


def test_xnli_has_three_answers_and_all_languages_in_a_file(tmp_path):
    header = "language\tgold_label\tpairID\tsentence1\tsentence2"
    write(tmp_path / "xnli.dev.tsv", header, "en\tneutral\t7\tA man eats.\tHe is old.",
          "de\tneutral\t7\tEin Mann isst.\tEr ist alt.", "ar\tneutral\t7\tx\ty")
    [(split, item)], skipped = realtasks.read("xnli", tmp_path, ["en", "de"])
    assert (split, skipped, item["answer"]) == ("val", 0, 1) and set(item["prompt"]) == {"en", "de"}
    assert item["candidates"]["de"] == ["Yes, Er ist alt.", "Also, Er ist alt.", "No, Er ist alt."]


def test_xcopa_reads_json_lines_that_end_as_on_windows(tmp_path):
    row = dict(premise="他饿了。", choice1="他吃饭", choice2="他睡觉", question="effect", label=0, idx=3)
    write(tmp_path / "zh/test.zh.jsonl", json.dumps(row, ensure_ascii=False) + "\r")
    [(split, item)], _ = realtasks.read("xcopa", tmp_path, ["en", "zh"])
    assert split == "test" and item["prompt"] == {"zh": "他饿了 so"} and item["answer"] == 0
    write(tmp_path / "zh/val.zh.jsonl", "{broken")
    with pytest.raises(DataError, match=r"val\.zh\.jsonl line 1 is no JSON object"):
        realtasks.read("xcopa", tmp_path, ["zh"])


def test_xstorycloze_has_four_sentences_and_two_endings(tmp_path):
    header = "\t".join(["InputStoryid", *(f"InputSentence{k}" for k in (1, 2, 3, 4)),
                        *(f"RandomFifthSentenceQuiz{k}" for k in (1, 2)), "AnswerRightEnding"])
    write(tmp_path / "spring2016.val.ru.tsv.split_20_80_eval.tsv", header, "s\tA.\tB.\tC.\tD.\tbad\tgood\t2")
    [(split, item)], _ = realtasks.read("xstorycloze", tmp_path, ["en", "ru"])
    assert item == dict(id="test-s", task="xstorycloze", prompt={"ru": "A. B. C. D."},
                        candidates={"ru": ["bad", "good"]}, answer=1) and split == "test"


def test_a_folder_without_the_files_is_named_with_what_it_needs(tmp_path):
    with pytest.raises(DataError, match=r"--tasks xcopa=.*: no item found; it needs .*en/val\.en\.jsonl or"):
        realtasks.read("xcopa", tmp_path, ["en", "de"])


# --- captions -----------------------------------------------------------------------------------------------

def test_a_label_needs_three_captions_of_five_and_no_rival():
    assert label(["a dog"] * 3 + ["an animal"] * 2, WHO) == list(WHO).index("dog")
    assert label(["a dog"] * 2 + ["an animal"] * 3, WHO) is None
    assert label(["a dog and a man"] + ["a dog"] * 4, WHO) == list(WHO).index("dog")
    assert label(["a dog and a man"] * 2 + ["a dog"] * 3, WHO) is None
    assert label(["Snow!"] * 5, SCENE) == list(SCENE).index("snow")


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
def captions(tmp_path_factory):
    """290 pictures, whose number is in their captions; the first of the five is the translated one."""
    folder, files = tmp_path_factory.mktemp("captions"), {}

    def put(name, lines):
        files[f"multi30k/{name}"] = write(folder / name.removesuffix(".gz"), *lines)

    for stem, n in (("train", 290), ("val", 20), ("test_2016_flickr", 20)):
        what = ["man", "woman", "dog", "child"] * n
        put(f"task1/{stem}.en.gz", [f"a {what[i]} {stem}{i} k1" for i in range(n)])
        put(f"task1/{stem}.de.gz", [f"ein {what[i]} {stem}{i}" for i in range(n)])
        for k in range(1, 6):
            put(f"task2/{stem.removesuffix('_flickr')}.{k}.en.gz",
                [f"a {what[i]} {stem}{i} k{k}" for i in range(n)])
    made = Multi30k(files, ["en", "de"])
    made.translated["de", "train"][made.images(0)[1][0]] = "@@"               # as two of the real lines
    return made


def pictures(documents):
    return {d.split()[2] for d in documents}


def test_no_picture_of_the_english_text_is_in_the_other_text_or_in_the_pairs(captions):
    english, german = captions.text("en", "train", 0), captions.text("de", "train", 0)
    pairs = captions.pairs("de", "train", 0)
    assert len(pictures(english)) == 170 and len(english) == 850
    assert len(pictures(german)) == len(german) == 119
    assert not pictures(english) & pictures(german) and pictures(b for _, b in pairs) == pictures(german)
    assert all(a.split()[1:3] == b.split()[1:] for a, b in pairs)
    assert captions.text("en", "train", 1) != english == captions.text("en", "train", 0)


def test_labelled_captions_keep_the_pictures_apart_and_ask_every_language(captions):
    items = [(split, item) for split, item in captions.items(0) if item["task"] == "who"]
    train = [item for split, item in items if split == "train"]
    in_english, in_german = ({i["id"] for i in train if name in i["prompt"]} for name in ("en", "de"))
    assert in_english and in_german and not in_english & in_german
    assert len({sum(i["answer"] == c for i in train if "en" in i["prompt"]) for c in range(4)}) == 1
    test = [item for split, item in items if split == "test"]
    assert len(test) == 20 and all(set(item["prompt"]) == {"en", "de"} for item in test)
    assert all(item["prompt"]["en"].split()[1] == item["candidates"][item["answer"]] for item in test)


def test_the_caption_asked_is_never_its_own_answer(captions):
    for item in captions.same("test", 0):
        number = item["prompt"]["en"].split()[2]
        for two in item["candidates"].values():
            assert [c.split()[2] == number for c in two] == [item["answer"] == 0, item["answer"] == 1]
        assert item["prompt"]["en"] not in item["candidates"]["en"]


# --- lines without a model ----------------------------------------------------------------------------------

def test_naive_bayes_on_paper():
    train = [(["dog", "runs"], 0), (["dog"], 0), (["cat"], 1)]
    assert baselines.naive_bayes(train, [(["dog"], 0), (["cat"], 1)], 2) == 1
    # one class is all right, the other half: the mean over classes
    assert baselines.naive_bayes(train, [(["dog"], 0), (["dog"], 1), (["cat"], 1)], 2) == 0.75
    assert baselines.naive_bayes(train, [(["hund"], 0), (["katze"], 1)], 2) == 0.5          # knows neither


def test_retrieval_finds_shared_features_both_ways_and_counts_no_tie():
    sides = [["a", "b"], ["c"], ["d"]], [["a"], ["c"], ["x"]]
    assert baselines.retrieval(*sides) == dict(to_english=2 / 3, from_english=2 / 3)
    assert baselines.retrieval([["a"], ["a"]], [["a"], ["a"]]) == dict(to_english=0, from_english=0)
    assert baselines.trigrams("Dog") == [" do", "dog", "og "]


def test_a_dictionary_backwards_takes_the_frequent_word_or_the_better_rank():
    english = Words(["dog dog hound pets"])
    assert baselines.backwards(dict(hound=["Hund"], dog=["Hund"]), english) == dict(hund="dog")
    ranked = dict(dog=["tier", "hund"], hound=["hund"])
    assert baselines.by_rank(ranked, english) == dict(tier="dog", hund="hound")


def test_overlap_takes_the_candidate_with_more_shared_words():
    item = dict(prompt=dict(en="a dog runs"), answer=1, candidates=dict(
        en=["a cat", "dog runs"], de=["ein Hund", "eine Katze"]))
    assert baselines.overlap([item], "en") == 1 and baselines.overlap([item], "de") == 0.5
    assert baselines.overlap([item | dict(answer=0)], "de", dict(hund="dog")) == 1


def test_words_that_go_together_in_the_text_complete_a_caption():
    text = ["snow ski cold", "beach swim warm"] * 20
    item = dict(prompt=dict(en="cold snow"), candidates=dict(en=["swim warm", "ski"]), answer=1)
    assert baselines.cooccurrence([item], "en", text) == 1


def test_every_task_and_language_has_its_lines(captions):
    items = list(captions.items(0))
    found = baselines.of_tasks(items, ["en", "de"], {"de": {"dictionary": {"ein": "a"}}},
                               {name: captions.text(name, "train", 0) for name in ("en", "de")})
    # `who` is written the same in both made-up languages: all lines see it
    assert found["who"]["de"] == dict(n=20, chance=0.25, naive_bayes=1, naive_bayes_dictionary=1,
                                      naive_bayes_own=1)
    assert found["same"]["en"]["chance"] == 0.5 and found["same"]["de"]["overlap_dictionary"] > 0.9


def test_classes_of_the_tasks_share_no_word():
    for classes in multi30k.CLASSES.values():
        words = [word for group in classes.values() for word in group]
        assert len(words) == len(set(words))
