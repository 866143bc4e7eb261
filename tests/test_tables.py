"""Tables, pictures, claims and studies, on handmade summaries and logs."""
import json
import math
import re
import shlex
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

import train as driver
from data.files import UserError
from data.folder import FORMAT, write_meta
from data.lab import claims, plots, studies, tables
from data.lab.options import STUDIES, Config, parse_args, resolve

# Top-level keys of summary.json that hold results; data/glossary.md explains them.
KEYS = set("""
perplexity perplexity_n perplexity_per_word bits_per_byte perplexity_in_other_order self_similarity
perplexity_of_rare self_similarity_adjusted
foreign_mass_in_english knowledge knowledge_n knowledge_mixed knowledge_told_in_clone
knowledge_told_in_both tasks tasks_average families_average instructed_average chance transfer transfer_n
probe word_cosine word_retrieval word_n held_out_word_retrieval held_out_word_n sentences
sentences_embedding bli in_characters
afp_states adapt recovery translation summary_rouge1 answer_language answer_right
""".split())


def cells_of(text):
    """The rows of the tables in a text: -> list of lists of cells, without the rules below the heads."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if set("".join(row)) - set("-:")]


def run(clone_perplexity, knowledge=0.5):
    return {"preset": "tiny", "data": "synthetic", "languages": ["en", "clone"], "minutes": 1.5,
            "perplexity": {"en": 5.0, "clone": clone_perplexity},
            "knowledge": {"en": 0.9, "clone": knowledge}}


WORLD = run(4.0, 0.75) | {
    "perplexity_n": {"en": 19200, "clone": 19000},
    "knowledge_n": {"en": 256}, "chance": {"knowledge": 0.125, "nli": 1 / 3, "cause": 0.5},
    "knowledge_mixed": {"en-clone": 0.2, "clone-en": 0.8},
    "transfer": {"nli": {"en": 0.7, "clone": 0.6}},
    "tasks": {
        "nli": {"lexical": {"en": {"0": {"accuracy": 0.5, "n": 200}, "5": {"accuracy": 0.55, "n": 200}},
                            "clone": {"0": {"accuracy": 0.4, "n": 200}, "5": {"accuracy": 0.45, "n": 200}}}},
        "cause": {"contextual": {"en": {"0": {"accuracy": 0.6, "n": 100}},
                                 "clone": {"0": {"accuracy": 0.3, "n": 90}}}}},
    "translation": {"en-clone": {"0": 12.34, "1": 20.0}, "clone-en": {"0": 50.0}},
    "word_cosine": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "word_retrieval": 0.25,
    "sentences": {"clone": {"from_english": 0.9, "to_english": 0.8, "n": 300, "chance": 1 / 300}}}

REAL = {
    "preset": "tiny", "data": "three", "languages": ["en", "de"], "minutes": 2.0,
    "chance": {"scene": 0.25, "completion": 0.5},
    "perplexity_per_word": {"en": 60.0, "de": 500.0}, "transfer": {"scene": {"en": 0.9, "de": 0.5}},
    "transfer_n": {"scene": {"en": 1000, "de": 900}}, "probe": {"scene": {"en": 0.8, "de": 0.3}},
    "tasks": {"completion": {"text": {"de": {"0": {"per_token": 0.7, "n": 800}}}}},
    "sentences": {"de": {"from_english": 0.01, "to_english": 0.02, "centred_from_english": 0.3,
                         "centred_to_english": 0.4, "n": 1000, "chance": 0.001}},
    "bli": {"de": {"p1": 0.1, "n": 345, "chance": 0.0004}},
    "baselines": {
        "tasks": {"scene": {"de": {"naive_bayes": 0.28, "naive_bayes_dictionary": 0.77,
                                   "naive_bayes_own": 0.81}},
                  "completion": {"de": {"majority": 0.53, "cooccurrence": 0.57}}},
        "retrieval": {"de": {"trigrams": {"to_english": 0.329, "from_english": 0.326},
                             "dictionary": {"to_english": 0.721, "from_english": 0.708}, "n": 1000}}}}


# --- numbers by path ----------------------------------------------------------------------------------------

def test_a_number_is_found_by_its_path_and_is_none_where_it_was_not_measured():
    paths = ("minutes", "perplexity.en", "word_cosine.0", "word_cosine.middle",        # of 4 blocks
             "perplexity.de", "transfer.who.en", "minutes.en", "nothing")
    assert [tables.value(WORLD, path) for path in paths] == [1.5, 5.0, 0.1, 0.3, None, None, None, None]


def test_a_list_that_is_too_short_has_no_such_number():
    summary = {"recovery": [{"rise": 0.5}, {"rise": 0.6, "excess": 0.1}], "word_cosine": []}
    assert tables.value(summary, "recovery.1.rise") == 0.6
    assert tables.value(summary, "recovery.2.rise") is tables.value(summary, "recovery.3.rise") is None
    assert tables.value(summary, "recovery.0.excess") is tables.value(summary, "word_cosine.middle") is None
    assert tables.value(summary, "word_cosine.output") is None
    assert tables.value({"word_cosine": [0.1, 0.2, 0.3, 0.4]}, "word_cosine.output") == 0.4


def test_new_is_the_language_attached_after_pretraining():
    summary = {"perplexity": {"en": 2.0, "clone2": 7.0}, "adapt": {"clone2": {"perplexity": {"50": 9.0}}}}
    assert tables.value(summary, "perplexity.new") == 7.0
    assert tables.value(summary, "adapt.new.perplexity.50") == 9.0
    assert tables.value({"perplexity": {"en": 2.0}}, "perplexity.new") is None


@pytest.mark.parametrize("path, words", [
    ("perplexity.clone", "perplexity (clone) ↓"), ("word_retrieval", "word retrieval ↑"),
    ("knowledge.new", "facts seen only in English (new) ↑"),
    ("knowledge_mixed.clone-en", "facts seen only in English, answered in English (clone) ↑"),
    ("knowledge_mixed.en-clone", "facts seen only in English, asked in English (clone) ↑"),
    ("tasks.nli.lexical.shuffled-4.0.accuracy", "nli, lexical (shuffled-4) ↑"),
    ("tasks.nli.lexical.en.5.accuracy", "nli, lexical, 5 examples (en) ↑"),
    ("tasks.completion.text.de.0.per_token", "completion (de) ↑"),
    ("tasks.xnli.text.de.1.per_token", "xnli, 1 example (de) ↑"),
    ("translation.en-clone.0", "BLEU from English (clone) ↑"),
    ("translation.clone-en.0", "BLEU into English (clone) ↑"),
    ("sentences.de.alignment", "distance of translations (de) ↓"),
])
def test_every_number_has_a_name_with_its_language_and_direction(path, words):
    assert tables.heading(path) == words


def test_a_path_without_a_line_in_the_list_has_no_measure():
    for path in ("perplexity", "tasks.nli.lexical.en.0.n", "minutes", "perplexity.en.0"):
        assert tables.find(path) is None


def test_the_numbers_of_items_and_of_chance_are_those_of_the_same_task_and_language():
    measure, language = tables.find("tasks.nli.lexical.clone.5.accuracy")
    assert (measure.n, measure.chance, language) == ("tasks.nli.lexical.{}.5.n", "chance.nli", "clone")
    measure, _ = tables.find("transfer.nli.clone")
    assert tables.items([WORLD], measure, ["clone"]) == "200"              # those of the task itself
    measure, _ = tables.find("transfer.scene.de")
    assert tables.items([REAL], measure, ["de"]) == "900"
    assert tables.items([REAL], measure, ["en", "de"]) == "900–1,000"


def test_n_is_of_the_runs_that_have_the_number():
    measure, few = tables.find("knowledge.clone")[0], WORLD | {"knowledge_n": {"en": 25}}
    without = WORLD | {"knowledge": {"en": 0.9}}
    assert tables.items([WORLD, few], measure, ["clone"]) == "25–256"
    assert tables.items([without, few], measure, ["clone"]) == "25"


def test_the_list_of_measures_is_well_formed():
    paths = [measure.path for measure in tables.MEASURES]
    words = [(measure.words, measure.group) for measure in tables.MEASURES]
    assert len(set(paths)) == len(paths) and len(set(words)) == len(words)
    for measure in tables.MEASURES:
        assert measure.better in ("↑", "↓") and 0 <= measure.digits <= 5
        constant = re.fullmatch(r"0\.\d+", measure.chance)
        paths = [measure.path, *measure.n.split()] + ([] if constant else measure.chance.split())
        assert {path.split(".")[0] for path in paths} <= KEYS
        wildcards = re.findall(r"{(\w+)}", measure.path)
        assert set(wildcards) == set(re.findall(r"{(\w+)}", measure.words)) <= {"task", "k"}
        assert set(re.findall(r"{(\w+)}", f"{measure.n} {measure.chance}")) <= set(wildcards), measure


def test_every_table_of_a_run_has_a_line_that_says_how_to_read_it():
    groups = {measure.group for measure in tables.MEASURES}
    assert set(tables.HOW_TO_READ) == groups | {"prepared folder"}
    for group in groups:                                                   # one head suits all rows of a table
        assert len({"{}" in measure.path for measure in tables.MEASURES if measure.group == group}) == 1


# --- tables -------------------------------------------------------------------------------------------------

def test_a_table_is_markdown_whose_columns_stand_under_each_other():
    lines = tables.table(["run", "loss"], [["a long name", 1], ["b", "2.345"]]).splitlines()
    assert lines == ["| run         |  loss |",
                     "|-------------|------:|",
                     "| a long name |     1 |",
                     "| b           | 2.345 |"]


def test_mean_and_sample_deviation_over_seeds():
    summaries = [{"x": 1.0}, {"x": 2.0}, {"x": 3.0}]
    assert tables.spread(summaries, "x", 2) == "2.00 ± 1.00"
    assert tables.spread(summaries[:1], "x", 1) == "1.0" and tables.spread(summaries, "y", 2) == ""
    assert tables.spread([*summaries, {}], "x", 2) == ""                   # a seed lacks it


def test_the_table_of_a_run_has_measures_as_rows_and_languages_as_columns():
    text = tables.show(WORLD)
    rows = cells_of(text)
    assert rows[0] == ["measure", "en", "clone", "chance", "n"]
    assert ["perplexity ↓", "5.000", "4.000", "", "19,000–19,200"] in rows
    assert ["facts seen only in English ↑", "0.900", "0.750", "0.125", "256"] in rows
    assert ["facts seen only in English, answered in English ↑", "", "0.800", "0.125", "256"] in rows
    assert ["nli, fine-tuned on English ↑", "0.700", "0.600", "0.333", "200"] in rows
    assert ["sentences found from English ↑", "", "0.900", "0.003", "300"] in rows
    assert ["nli, lexical ↑", "0.500", "0.400", "0.333", "200"] in rows
    assert ["nli, lexical, 5 examples ↑", "0.550", "0.450", "0.333", "200"] in rows
    assert ["cause, contextual ↑", "0.600", "0.300", "0.500", "90–100"] in rows
    assert ["generated text", "clone"] in rows                             # columns without a number are left out
    assert ["BLEU from English ↑", "12.3"] in rows
    assert ["BLEU from English, 1 example ↑", "20.0"] in rows
    assert ["BLEU into English ↑", "50.0"] in rows
    assert ["cosine of word pairs, middle level ↑", "0.300"] in rows       # it has no language
    heads = [lines.splitlines()[1].split("|")[1].strip() for lines in text.split("\n\n")[:-2]]
    assert heads == ["measure", "tasks", "generated text", "words of all languages",
                     "states of words and sentences"]
    assert [lines.splitlines()[0] for lines in text.split("\n\n")[:-2]] == [
        tables.HOW_TO_READ[head] for head in heads]
    assert [row[0] for row in rows].index("tasks") < 12                    # the first table is short
    assert text.split("\n\n")[len(heads)].startswith("↑ higher is better")     # not a row of the table above
    assert text.endswith("(of an average: per task)\n\nminutes: 1.5")


def test_a_run_is_shown_next_to_joint_training():
    joint = [run(5.0, 0.1), run(6.0, 0.2)]
    rows = cells_of(tables.show(WORLD, joint))
    assert rows[0] == ["measure", "en", "clone", "joint: en", "joint: clone", "chance", "n"]
    assert ["facts seen only in English ↑", "0.900", "0.750", "0.900 ± 0.000", "0.150 ± 0.071", "0.125",
            "256"] in rows
    assert ["nli, fine-tuned on English ↑", "0.700", "0.600", "", "", "0.333", "200"] in rows
    assert ["tasks", "en", "clone", "chance", "n"] in rows                 # joint has no number in this table
    assert "joint: joint training, mean ± sd over 2 seeds" in tables.show(WORLD, joint)
    assert "joint" not in tables.show(WORLD)


def test_tasks_within_reach_are_shown_only_if_english_is_within_reach(tmp_path):
    far, near = (run(5.0) | {"tasks_average": {"en": en, "clone": 0.6}} for en in (0.5, 0.9))
    assert "tasks within reach ↑" not in tables.show(far)
    assert ["tasks within reach ↑", "0.900", "0.600", "0.500"] in [
        [cell for cell in row if cell] for row in cells_of(tables.show(near))]
    rows = cells_of(tables.by_language(dict(far=far, near=near)))
    assert ["tasks within reach ↑", "clone", "", "0.500", "", "0.600"] in rows


def test_published_configurations_are_shown_with_published_numbers_and_others_with_a_command(tmp_path):
    def shown(*argv):
        return claims.show(WORLD, parse_args(argv)[0])

    joint = claims.committed()["prealign"]["joint"]
    for options in ("--method baseline", "--method prealign", "--method prealign --prealign_every 5 --seed 3",
                    "--method forget --transfer_steps 0", "--method align --afp_steps 7 --log_every 5"):
        assert shown(*options.split()) == tables.show(WORLD, joint)
    for options, rest in (("--preset small", "--preset small"), ("--words 2000", "--preset tiny --words 2000"),
                          ("--languages en,reversed", "--preset tiny --languages en,reversed"),
                          ("--eval_items 50 --code_switch 0.2", "--preset tiny --eval_items 50")):
        assert shown("--method", "prealign", *options.split()) == (
            tables.show(WORLD) + "\nto train jointly, to compare with:\n"
            f"  python train.py --method baseline {rest}")
    assert shown("--words", "2000") == tables.show(WORLD)                  # the run itself is joint training


def test_the_options_that_joint_training_ignores_are_those_of_the_methods():
    groups, group = {}, ""
    for f in fields(Config):
        group = f.metadata["group"] or group
        groups[f.name] = group
    changed = {name for name, value in asdict(Config()).items() if groups[name] in (
        "PreAlign", "active forgetting", "new language", "AFP")}
    names = [f.name for f in fields(Config)]
    assert changed == set(names[names.index("prealign_steps"):names.index("eval_items")])
    cfg = Config(method="prealign", prealign_every=5, dictionary_coverage=0.5, adapt_to="clone2", lr=0.5)
    assert claims.joint_training(cfg) == Config(lr=0.5)


def test_tasks_are_shown_in_the_order_of_the_summary():
    names = ["question", "nli", "cause", "paraphrase", "ending", "coreference"]
    tasks = {name: {"lexical": {"en": {"0": {"accuracy": 0.5}}}} for name in names}
    rows = [row[0] for row in cells_of(tables.show(run(3.0) | {"tasks": tasks}))]
    assert [row.split(",")[0] for row in rows if "lexical" in row] == names


def test_a_run_shows_how_a_new_language_was_learned():
    perplexity = {str(step): 100.0 / step for step in range(10, 120, 10)}
    text = tables.show(WORLD | {"adapt": {"clone2": {"perplexity": perplexity}}})
    assert ("perplexity of clone2 while adapting: 10.00 (step 10), 3.33 (step 30), 2.00 (step 50), "
            "1.43 (step 70), 1.11 (step 90), 0.91 (step 110)") in text
    short = tables.show(WORLD | {"adapt": {"clone2": {"perplexity": {"10": 3.0}}}})
    assert "while adapting: 3.00 (step 10)\n" in short


def test_a_run_on_a_prepared_folder_is_shown_with_baselines_that_need_no_model():
    rows = cells_of(tables.show(REAL))
    assert rows[0][:5] == ["measure", "language", "n", "chance", "this run"]
    assert rows[0][5:] == [f"model-free: {name}" for name in tables.MODEL_FREE]
    assert ["perplexity per word ↓", "de", "", "", "500.0"] + [""] * 5 in rows
    german = {row[0]: row[2:] for row in rows if row[1] == "de"}
    scene = ["", "0.280", "0.770", "", "0.810"]
    assert german["scene, fine-tuned on English ↑"] == ["900", "0.250", "0.500", *scene]
    assert german["scene, linear probe trained on English ↑"] == ["900", "0.250", "0.300", *scene]
    assert german["completion ↑"] == ["800", "0.500", "0.700", "0.530", "", "", "", "0.570"]
    assert german["sentences found to English, centred ↑"] == [
        "1,000", "0.001", "0.400", "", "0.329", "0.721", "", ""]
    assert german["sentences found from English ↑"] == [
        "1,000", "0.001", "0.010", "", "0.326", "0.708", "", ""]
    assert not any(row[0].startswith("perplexity ↓") or row[1] == "clone" for row in rows)


def test_a_language_whose_words_are_counted_in_characters_has_rows_that_say_so():
    rows = cells_of(tables.by_language({"a": REAL, "b": REAL | {"in_characters": {"de": True}}}))
    assert [row[:2] for row in rows if row[0].startswith("perplexity")] == [
        ["perplexity per word ↓", "en"], ["perplexity per character ↓", "de"]]


def test_a_folder_without_tasks_and_pairs_has_a_table_too():
    bare = {key: REAL[key] for key in ("languages", "minutes", "perplexity_per_word")}
    assert "perplexity per word" in tables.show(bare) and "perplexity per word" in tables.show(
        bare | {"baselines": {"tasks": {}, "retrieval": {}}})


def test_the_table_of_a_study_has_few_systems_as_columns_and_many_as_rows():
    columns = [("perplexity_per_word.de", 0), ("perplexity_per_word.new", 0), ("transfer.scene.de", 2),
               ("sentences.de.centred_to_english", 3)]
    other = REAL | {"perplexity_per_word": {"en": 60.0, "de": 520.0}, "transfer": {}}
    rows = cells_of(tables.systems_table({"joint": [REAL, REAL | {"perplexity_per_word": {"de": 502.0}}],
                                          "prealign": [other]}, columns))
    wanted = [
        ["measure", "perplexity per word (de) ↓", "scene, fine-tuned on English (de) ↑",
         "sentences found to English, centred (de) ↑"],
        ["joint", "501 ± 1", "0.50 ± 0.00", "0.400 ± 0.000"], ["prealign", "520", "", "0.400"],
        ["model-free: shared spelling", "", "0.28", "0.329"], ["model-free: dictionary", "", "0.77", "0.721"],
        ["model-free: counts in the language", "", "0.81", ""], ["chance", "", "0.25", "0.001"],
        ["n", "", "900", "1,000"]]
    assert rows == [list(row) for row in zip(*wanted)]
    rows = cells_of(tables.systems_table({name: [other] for name in "abcde"}, columns))
    assert rows[0][:2] == ["system", "perplexity per word (de) ↓"]
    assert [row[0] for row in rows[1:6]] == list("abcde") and rows[1][1] == "520"


def test_a_plan_names_the_stages_the_tokens_and_where_it_writes():
    cfg = SimpleNamespace(method="prealign", preset="tiny", batch_size=8, context_len=128, dtype="auto", pretrained="",
                          stages={"align words": 300, "pretrain": 1850})
    streams = {("en", "train"): range(2000), ("clone", "train"): range(300)}
    corpus = SimpleNamespace(streams=streams, base_vocab=1280)
    summary = dict(parameters=1400000, device="cpu", dtype="float32", languages=["en", "clone"],
                   tokens=2048000)
    assert tables.plan(cfg, summary, "runs/x", corpus, None, 2) == (
        "prealign, preset tiny: 1,400,000 parameters; cpu, threads: 2, float32\n"
        "tokens of text: en 2,000, clone 300; vocabulary: 1,280 tokens per language; dictionary: 0 words\n"
        "steps: align words 300, pretrain 1,850; 2,048,000 tokens of text in rows of 8 x 128; writes runs/x/")
    assert "preset small (its settings are untested): " in tables.plan(
        SimpleNamespace(**vars(cfg) | dict(preset="small")), summary, "runs/x", corpus, None, 2)
    assert "dictionary: 3 words" in tables.plan(cfg, summary, "runs/x", corpus, "abc", 2)
    fast = summary | dict(dtype="bfloat16")
    assert "bfloat16 (faster on this device)\n" in tables.plan(cfg, fast, "runs/x", corpus, None, 2)


LOG = [{"stage": "align words", "step": 10, "word_cosine": [0.9, 0.9, 0.9]},
       {"stage": "pretrain", "step": 100, "val": {"en": 3.0, "clone": 5.0}, "word_cosine": [0.5, 0.1, 0.2]},
       {"stage": "pretrain", "step": 200, "val": {"en": 2.0, "clone": 4.0}, "word_cosine": [0.7, 0.1, 0.2]}]


def save(folder, summary, log=LOG):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
    return folder


def test_runs_are_compared_with_measures_as_rows_in_text_and_picture(tmp_path):
    folders = [save(tmp_path / "one", run(7.0)), save(tmp_path / "two", run(8.0) | {"word_retrieval": 0.5})]
    text = tables.compare(folders, tmp_path / "a" / "b")
    rows = cells_of(text)
    assert rows == [
        ["measure", "language", "n", "chance", "one", "two"],
        ["perplexity ↓", "en", "", "", "5.000", "5.000"],
        ["perplexity ↓", "clone", "", "", "7.000", "8.000"],
        ["facts seen only in English ↑", "en", "", "0.125", "0.900", "0.900"],
        ["facts seen only in English ↑", "clone", "", "0.125", "0.500", "0.500"],
        ["word retrieval ↑", "", "", "", "", "0.500"]]
    out = tmp_path / "a" / "b"
    written = (out / "report.md").read_text(encoding="utf-8")
    assert text == f"{written.strip()}\n\nwritten to {out}/report.md, {out}/report.svg"
    assert "\n\n↑ higher is better" in written
    assert len(lines_of((out / "report.svg").read_text(encoding="utf-8"))) == 8


def test_a_report_of_logs_with_one_row_has_no_picture(tmp_path):
    text = tables.compare([save(tmp_path / "one", run(7.0), LOG[:2])], tmp_path / "out")
    assert text.endswith(f"written to {tmp_path}/out/report.md")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.md"]


def test_runs_in_different_languages_share_one_table(tmp_path):
    text = tables.compare([save(tmp_path / "world", WORLD), save(tmp_path / "real", REAL)], tmp_path)
    rows = {tuple(row[:2]): row[2:] for row in cells_of(text)}
    assert rows["perplexity ↓", "clone"][:4] == ["19,000", "", "4.000", ""]
    assert rows["completion ↑", "de"] == ["800", "0.500", "", "0.700", "0.530", "", "", "", "0.570"]
    assert rows["facts seen only in English ↑", "clone"][:3] == ["256", "0.125", "0.750"]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    folders = [save(tmp_path / seed / "joint", run(3.0)) for seed in ("s0", "s1")]
    head = cells_of(tables.compare(folders, tmp_path))[0]
    assert head[4:] == [str(folder) for folder in folders]


def test_a_folder_without_results_is_refused_with_its_name(tmp_path):
    with pytest.raises(UserError, match=r"nothing/summary\.json is missing"):
        tables.compare([tmp_path / "nothing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- pictures -----------------------------------------------------------------------------------------------

def lines_of(svg):
    """Every curve: (dashed, list of points)."""
    space = "{http://www.w3.org/2000/svg}"
    return [("stroke-dasharray" in line.attrib,
             [tuple(map(float, xy.split(","))) for xy in line.get("points").split()])
            for line in ElementTree.fromstring(svg).iter(f"{space}polyline")]


def test_curves_show_english_clone_and_cosine_of_every_run():
    svg = plots.curves([("one", LOG), ("two", LOG)])
    lines = lines_of(svg)
    # validation loss, then the cosines at two levels, each from the lowest end
    assert [dashed for dashed, _ in lines] == [False, False, True, True] + [False] * 4
    # two rows of pretraining; that of the alignment stage is left out
    assert all(len(points) == 2 for _, points in lines)
    english, _, clone, _, cosine, _, output, _ = (points for _, points in lines)
    assert english[0][1] < english[1][1] and clone[0][1] < clone[1][1]      # losses fall: y counts from above
    assert cosine[0][1] > cosine[1][1] and english[0][1] > clone[0][1]
    # zero is at the bottom, the highest loss at the top
    assert english[1] == (460.0, 60 + 260 * (1 - 2 / 5)) and clone[0] == (260.0, 60.0)
    assert cosine[0][0] == 260 and cosine[0][1] == pytest.approx(400 + 260 * (1 - 0.5 / 0.7), abs=0.1)
    assert output[0] == (260.0, 740.0) and output[1][1] == 740              # the same in both rows
    assert svg.count(plots.COLOURS[0]) == svg.count(plots.COLOURS[1]) == 8  # four lines, each led to its name
    assert ">one en<" in svg and ">two clone<" in svg                       # names at the ends of the lines
    labels = [float(y) for y in re.findall(r'x="480.0" y="([0-9.]+)"', svg)]
    gaps = np.abs(np.subtract.outer(labels, labels)) + 99 * np.eye(len(labels))
    assert len(labels) == 8 and gaps.min() >= 15                            # and they do not overlap


@pytest.mark.parametrize("low, high, expected", [
    (0, 2000, [0, 500, 1000, 1500, 2000]), (-0.02, 0.49, [0, 0.1, 0.2, 0.3, 0.4]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    (0, 6, [0, 1, 2, 3, 4, 5, 6])])
def test_ticks_are_round_numbers(low, high, expected):
    assert plots.ticks(low, high) == pytest.approx(expected)


def test_the_cosines_are_those_of_the_middle_level_and_the_output_embedding():
    log = [{"stage": "pretrain", "step": step, "word_cosine": [0.0, 0.2, 1.0, 0.4, 0.6, 0.8]}     # 4 blocks
           for step in (1, 2)]
    log.append(log[-1] | {"step": 3, "word_cosine": [0.0, 0.2, 0.5, 0.4, 0.6, 0.4]})
    (_, middle), (_, output) = lines_of(plots.curves([("one", log)]))
    assert [y for _, y in middle] == [60, 60, 190] and [y for _, y in output] == [400, 400, 530]


def test_resets_and_a_new_language_have_charts_of_their_own():
    log = [row | {"lm": 2.0 + i} for i, row in enumerate(LOG)]
    log += [{"stage": "adapt", "step": s, "lm": 9.0, "val": {"en": 9.0, "clone": 9.0, "clone2": 5.0 - s / 10}}
            for s in (10, 20, 30)]
    lines = lines_of(plots.curves([("one", log)]))
    assert [len(points) for _, points in lines] == [2, 2, 2, 2, 2, 3]       # en, clone, cosines, training, new
    *_, training, new = (points for _, points in lines)
    assert training[0][1] > training[1][1] and new[0][1] < new[-1][1]
    assert min(y for _, y in training) > 1000                               # in the fourth chart


def test_a_picture_needs_two_rows_of_a_log():
    assert plots.curves([]) == plots.curves([("empty", [])]) == plots.curves([("one", LOG[:2])]) == ""


def test_curves_of_a_run_whose_name_holds_markup_are_still_an_svg():
    assert len(lines_of(plots.curves([("a&b <c>", LOG)]))) == 4


def test_the_picture_shows_every_sentence_of_every_language_along_the_largest_variance():
    states = {"en": np.array([[0.0, 0, 3], [9, 0, 3]]), "a<b": np.array([[0.0, 1, 3], [9, 1, 3]])}
    plane, share = plots.principal_plane(np.concatenate(list(states.values())))
    assert np.allclose(np.abs(plane), [[4.5, 0.5]] * 4) and share == pytest.approx(1)
    axes = np.eye(3) * [2, 1, 1]
    _, share = plots.principal_plane(np.concatenate((axes, -axes)))
    assert share == pytest.approx(10 / 12)                     # variances 8, 2 and 2
    svg = plots.scatter(states, 2, "mean", "sentences")
    ElementTree.fromstring(svg)
    assert svg.count("<line") == 2 and svg.count('r="3"') == 4 and "a&lt;b" in svg
    assert "level 2, mean tokens<" in svg and ">100% of the variance<" in svg
    other = plots.scatter(states, 1, "last", "after AFP")
    assert ">after AFP: level 1, last token<" in other
    width, height = re.search('viewBox="0 0 ([0-9]+) ([0-9]+)"', svg).groups()
    outer = ElementTree.fromstring(plots.two_panels(svg, other))
    panels = outer.findall("{http://www.w3.org/2000/svg}svg")
    assert [panel.get("x") for panel in panels] == ["0", str(int(width) + 20)]
    assert {(panel.get("width"), panel.get("height")) for panel in panels} == {(width, height)}
    assert outer.get("viewBox") == f"0 0 {2 * int(width) + 20} {height}"
    places = re.findall(r'cx="([0-9.]+)" cy="([0-9.]+)" r="3"', svg)
    (left, up), (right, down), *_ = [(float(x), float(y)) for x, y in places]
    assert abs(right - left) == pytest.approx(380, abs=0.2) and abs(up - down) < 1     # one scale for both
    lines = re.findall(r'<line x1="([0-9.]+)" y1="([0-9.]+)" x2="([0-9.]+)" y2="([0-9.]+)"', svg)
    assert [(*a, *b) for a, b in zip(places[:2], places[2:])] == lines      # a sentence and its translation


# --- claims -------------------------------------------------------------------------------------------------

def test_a_claim_may_compare_differences_of_systems_and_of_numbers():
    summaries = {"a": [run(8.0, 0.7), run(9.0)], "b": [run(3.0, 0.4), run(5.0)]}
    assert claims.measured(summaries, "a - b", "perplexity.clone").tolist() == [5, 4]
    assert claims.measured(summaries, "a", "perplexity.clone - perplexity.en").tolist() == [3, 4]
    assert np.isnan(claims.measured(summaries, "a", "perplexity.nowhere")).all()
    assert np.isnan(claims.measured(summaries, "no such system", "perplexity.en")).all()
    assert claims.measured(summaries, "a", "perplexity.clone + perplexity.en - knowledge.clone").tolist() == [
        8 + 5 - 0.7, 9 + 5 - 0.5]
    claim = studies.CLAIMS[0]._replace(system="a", against="b", number="perplexity.clone")
    assert claims.differences(summaries, claim).tolist() == [5, 4]
    assert claims.differences(summaries, claim._replace(against="")).tolist() == [8, 9]


def test_verdicts_compare_seed_by_seed_and_list_what_was_not_measured():
    summaries = {name: [run(math.e ** i) for i in (3, 4, 5)] for name in studies.SYSTEMS["prealign"]}
    # one nat lower in each seed, knowledge the same
    summaries["published"] = [run(math.e ** i) for i in (2, 3, 4)]
    summaries["skyline"] = [run(math.e ** i) for i in (1, 2, 3)]            # two nats lower
    text = claims.verdicts("prealign", summaries)
    rows = {row[0]: row[1:] for row in cells_of(text) if re.match(r"P\d|ours", row[0])}
    assert len(rows) == sum(claim.study == "prealign" for claim in studies.CLAIMS)
    assert rows["P1 perplexity of the clone is lower (log ratio)"] == [
        "perplexity (clone) ↓", "published", "joint", "lower, 0.05", "-1.000", "[-1.050, -0.950]", "3", "0.001",
        "reproduced"]
    assert rows["P1 English perplexity rises by less than 2 % (log ratio)"][-5:] == [
        "+0.000", "[-0.050, +0.050]", "3", "0.113", "not shown"]
    assert rows["P3 facts seen only in English are known in the clone"][-2:] == ["1.000", "not shown"]
    # a claim of ours: no paper's claim is reproduced
    summaries["kept"] = summaries["published"]
    rows = {row[0]: row[1:] for row in cells_of(claims.verdicts("prealign", summaries))}
    assert rows["ours kept aligned: perplexity of the clone is lower than under joint training (log ratio)"][-1] == "shown"
    of_tasks = [row[-1] for row in cells_of(claims.verdicts("amount", claims.committed()["amount"]))
                if row[0].startswith("tasks ")]
    assert "shown" in of_tasks and "reproduced" not in of_tasks
    # no transfer, no cosine, no held-out words above: these claims are listed without numbers
    assert rows["P2 zero-shot transfer of nli to the clone improves"][-5:] == ["", "", "", "", "not measured"]
    assert rows["P2 zero-shot transfer of paraphrase to the clone improves"][-1] == "not measured"
    assert "closed: published 0.50, kept 0.00" in text and text.startswith("Mean ± sd over 3 seeds.")
    # seeds are paired by their number, and those that only one system has are left out
    numbered = {name: [dict(s, seed=seed) for s, seed in zip(found, (0, 1, 2))]
                for name, found in summaries.items()}
    numbered["published"] = [dict(run(math.e ** i), seed=seed) for i, seed in ((9, 7), (4, 2), (2, 0))]
    rows = {row[0]: row[1:] for row in cells_of(claims.verdicts("prealign", numbered))}
    assert rows["P1 perplexity of the clone is lower (log ratio)"][4:7] == ["-1.000", "[-1.180, -0.820]", "2"]
    del summaries["vanilla"]                                                # a part of the study
    rows = {row[0]: row[1:] for row in cells_of(claims.verdicts("prealign", summaries))}
    assert rows["P5 input-only code-switching is better than vanilla: facts seen only in English"] == [
        "facts seen only in English (clone) ↑", "published", "vanilla", "higher, 0", "", "", "", "",
        "not measured"]


def test_systems_without_a_common_seed_are_not_compared():
    summaries = {name: [dict(run(3.0), seed=seed)] for seed, name in enumerate(("joint", "published"))}
    rows = {row[0]: row[1:] for row in cells_of(claims.claims_table("prealign", summaries))}
    assert rows["P1 perplexity of the clone is lower (log ratio)"][-5:] == ["", "", "", "", "not measured"]


@pytest.mark.parametrize("preset, study", [("tiny", "prealign"), ("mini", "mini")])
def test_a_preset_asks_as_many_items_as_the_published_numbers_beside_it(preset, study):
    joint = claims.committed()[study]["joint"][0]
    assert joint["knowledge_n"]["en"] == resolve(dict(preset=preset)).eval_items


def test_a_claim_that_is_added_without_numbers_is_listed(monkeypatch):
    new = studies.CLAIMS[0]._replace(words="something new", number="bits_per_byte.clone", exploratory="")
    monkeypatch.setattr(claims, "CLAIMS", [*studies.CLAIMS, new])
    rows = cells_of(claims.claims_table("prealign", claims.committed()["prealign"]))
    assert rows[-1][0] == "P1 something new"
    no_such_run = {"joint": [run(3.0)] * 3}
    assert cells_of(claims.claims_table("prealign", no_such_run))[-1][-5:] == ["", "", "", "", "not measured"]


def test_systems_that_are_all_at_chance_or_at_the_ceiling_say_nothing():
    claim = studies.CLAIMS[0]._replace(system="a", against="b", number="knowledge.clone", direction="higher")
    def found(a, b):
        return claims.limit({"a": [run(3.0, x) for x in a], "b": [run(3.0, x) for x in b]}, claim)
    assert found([0.12, 0.15, 0.13], [0.1, 0.13, 0.14]) == "chance"          # one of eight
    assert found([0.98, 1.0, 0.99], [1.0, 1.0, 1.0]) == "ceiling"
    assert found([0.3, 0.31, 0.32], [0.1, 0.13, 0.14]) == found([1.0, 1.0], [0.5, 0.6]) == ""
    assert found([0.12], [0.13]) == ""                                      # one seed has no standard error
    assert claims.limit({}, claim._replace(number="log perplexity.clone")) == ""
    # BLEU ends at 100 and not at 1, what is better when it is lower has no end, and BLEU has no chance
    def scores(number, *values):
        some = [dict(translation={"en-clone": {"0": x}}, sentences=dict(clone=dict(alignment=x))) for x in values]
        return claims.limit({"a": some, "b": some}, claim._replace(number=number))
    assert scores("translation.en-clone.0", 99.0, 100.0, 99.5) == "ceiling"
    assert scores("translation.en-clone.0", 0.9, 1.0, 1.1) == scores("translation.en-clone.0", 0.1, 0.0) == ""
    assert scores("sentences.clone.alignment", 0.9, 1.0, 1.1) == ""


def test_a_study_with_too_few_resets_still_has_a_report():
    summary = run(3.0) | {"recovery": [{"rise": 0.5, "excess": 0.1}] * 2}
    text = claims.verdicts("forget", {"forgetting": [summary], "standard": [run(3.0)]})
    rows = {row[0]: row for row in cells_of(text)}
    assert rows["F6 training loss rises at the last reset (nats)"][-1] == "not measured"
    assert rows["F3 English perplexity rises by less than 5 % in pretraining (log ratio)"][-5:] == [
        "+0.000", "", "1", "", "not shown"]                                 # one seed


def adapted(*perplexities, language="clone2"):
    found = {str(10 * i + 10): p for i, p in enumerate(perplexities)}
    return run(3.0) | {"adapt": {language: {"perplexity": found}}}


def test_systems_under_the_same_condition_stand_side_by_side():
    summaries = {"BA": [run(8.0), run(2.0)], "BA, far": [run(9.0)], "BAD": [run(1.0)], "BA, x": [run(1.0)],
                 "AFA": [run(4.0), run(1.0)], "AFA, far": [run(3.0)], "AFAD": [run(1.0)]}
    columns = [("perplexity.clone", 1), ("perplexity.new", 1)]
    text, pairs = claims.side_by_side(summaries, "BA", "AFA", columns)
    assert cells_of(text) == [
        ["condition", "perplexity (clone) ↓: BA", "AFA", "ratio",
         "perplexity (new) ↓: BA", "AFA", "ratio"],
        ["default", "5.0 ± 4.2", "2.5 ± 2.1", "0.50", "", "", ""], ["far", "9.0", "3.0", "0.33", "", "", ""]]
    assert pairs == [("BA", "AFA"), ("BA, far", "AFA, far")]


def test_pairs_of_systems_have_a_table_of_their_own():
    summaries = {"standard": [run(3.0)], "BA": [adapted(20, 10, 7, 5, 9)], "AFA": [adapted(9, 5, 4, 3, 2)],
                 "BA, reversed": [adapted(9, language="reversed")],
                 "AFA, reversed": [adapted(9, language="reversed")]}
    text = claims.verdicts("forget", summaries)
    names = [row[0] for row in cells_of(text)]
    assert names[:2] == ["measure", "perplexity (en) ↓"]
    pairs = names.index("condition")
    assert names[pairs + 1:pairs + 3] == ["default", "reversed"]


def test_the_report_of_a_study_is_written_with_the_numbers_behind_it(tmp_path):
    more = {"seed": 1, "tasks": {"nli": {"lexical": {"en": {"0": {"accuracy": 0.5}}}}}, "minutes": 3.0,
            "knowledge_n": {"en": 256}, "word_cosine": [0.123456, 0.2, 0.3], "parameters": 1234567}
    summaries = {name: [run(math.e ** 3 + 1 / 3) | more | {"seed": 0}, run(math.e ** 3 + 1 / 3) | more]
                 for name in studies.SYSTEMS["prealign"]}
    summaries["skyline"] = [run(2.0), run(2.0)]
    shown = claims.conclude("prealign", summaries, tmp_path / "runs")
    report_text = (tmp_path / "runs" / "report-prealign-tiny-synthetic.md").read_text(encoding="utf-8")
    kept = json.loads((tmp_path / "runs" / "report-prealign-tiny-synthetic.json").read_text(encoding="utf-8"))
    assert report_text in shown and report_text == claims.verdicts("prealign", kept)
    name = f"{tmp_path}/runs/report-prealign-tiny-synthetic"
    assert shown.endswith(f"written to {name}.md; the numbers behind it to {name}.json")
    # no minutes and parameters: the report does not read them
    assert kept["joint"][1] == {
        "tasks": {"nli": {"lexical": {"en": {"0": {"accuracy": 0.5}}}}},
        "preset": "tiny", "data": "synthetic", "languages": ["en", "clone"], "seed": 1,
        "perplexity": {"en": 5.0, "clone": 20.419}, "knowledge": {"en": 0.9, "clone": 0.5},
        "knowledge_n": {"en": 256}, "word_cosine": [0.12346, 0.2, 0.3]}


def test_the_numbers_behind_a_report_include_losses_around_resets_and_in_adaptation(tmp_path):
    summary = adapted(9, 5, 4) | {"perplexity": {"en": 5.0, "clone": 3.0, "clone2": 7.0, "reversed": 8.0},
                                  "recovery": [{"step": 3, "rise": 0.5}]}
    claims.conclude("forget", {"AFA": [summary], "BA": [summary], "standard": [run(3.0)]}, tmp_path)
    kept, = json.loads((tmp_path / "report-forget-tiny-synthetic.json").read_text(encoding="utf-8"))["AFA"]
    assert kept["perplexity"] == summary["perplexity"]
    assert kept["adapt"] == summary["adapt"] and kept["recovery"] == summary["recovery"]


def test_the_report_of_real_languages_has_rows_for_what_needs_no_model(tmp_path):
    text = claims.conclude("real", {"joint": [REAL, REAL]}, tmp_path)
    head, *rows = cells_of(text)
    row = next(row for row in rows if row[0] == "sentences found to English, centred (de) ↑")
    found = dict(zip(head, row))
    assert found["model-free: shared spelling"] == "0.329" and found["chance"] == "0.001"
    assert found["n"] == "1,000" and (tmp_path / "report-real-tiny-three.md").exists()


def test_the_headlines_are_judged_on_the_committed_numbers():
    rows = cells_of(claims.headlines(claims.committed()))[1:]
    assert len(rows) == sum(claim.headline != "" for claim in studies.CLAIMS) <= 10
    assert rows[0] == ["P1", "perplexity of the clone is lower ↓", "joint", "5.18 ± 0.16", "published",
                       "4.19 ± 0.21", "-0.213 [-0.257, -0.169], log ratio", "5", "reproduced"]
    ours = [row[0] == "ours" for row in rows]
    assert ours == sorted(ours)                                             # the papers' claims come first
    assert {row[-1] for row, own in zip(rows, ours) if own} == {"shown"}


# --- the lists of studies, systems and claims ---------------------------------------------------------------

@pytest.mark.parametrize("name", ["claims.tsv", "systems.tsv", "columns.tsv", "tables.tsv"])
def test_every_line_of_a_list_has_all_columns_and_none_is_there_twice(name):
    text = (Path(tables.__file__).parent / name).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert text.endswith("\n") and {line.count("\t") for line in lines} == {lines[0].count("\t")}
    assert len(set(lines)) == len(lines)
    assert all(cell == cell.strip() for cell in "\t".join(lines).split("\t"))


def test_every_claim_compares_systems_of_its_study_by_a_number_that_tables_know():
    assert {claim.study for claim in studies.CLAIMS} == set(STUDIES)
    for claim in studies.CLAIMS:
        named = {name for text in (claim.system, claim.against) for _, name in claims.terms(text)} - {""}
        assert named <= studies.SYSTEMS[claim.study].keys(), claim
        assert claim.direction in ("higher", "lower", "not higher", "not lower", "no difference")
        assert 0 <= claim.margin <= 1 and claim.exploratory in ("", "exploratory")
        for _, part in claims.terms(claim.number):
            assert tables.find(part.removeprefix("log ")), claim
        assert claim.headline in ("", "0", "1", "2", "3") and (claim.against or not claim.headline)
    compared = [claim[:2] + claim[3:6] for claim in studies.CLAIMS]
    assert len(set(compared)) == len(compared)


def test_every_column_of_a_study_is_a_number_that_tables_know():
    assert list(studies.COLUMNS) == list(studies.SYSTEMS) == list(STUDIES)
    for by_table in studies.COLUMNS.values():
        assert list(by_table)[0] == "main"
        for _, columns in by_table.values():
            assert all(tables.find(path) and digits >= 0 for path, digits in columns)


def test_every_system_comes_after_the_runs_that_it_starts_from_and_is_a_configuration():
    for study, systems in studies.SYSTEMS.items():
        of_a_checkpoint = study in ("pretrained", "french")
        seen = ["data"] * (of_a_checkpoint or study in ("real", "amount", "languages", "share"))
        seen += ["pretrained", "middle"] * of_a_checkpoint
        for name, options in systems.items():
            needed = re.findall(r"{(.+?)}", options)
            assert set(needed) <= set(seen), name
            if not needed:
                parse_args(studies.arguments(options, {}))
            seen.append(name)


def test_options_are_split_before_paths_are_filled_in():
    places = {"data": "my set", "tuned BA": "runs/a b"}
    assert studies.arguments('--data {data}-disjoint --body_from "{tuned BA}" --shots 0,5', places) == [
        "--data", "my set-disjoint", "--body_from", "runs/a b", "--shots", "0,5"]


def train(found):
    """Take the runs of a study one by one, each as if it was trained: -> {folder: (name, Config)}."""
    runs = {}
    for name, cfg, out in found:
        out.mkdir(parents=True)
        (out / "config.json").write_text(json.dumps(asdict(cfg)), encoding="utf-8")
        assert str(out) not in runs
        runs[str(out)] = name, cfg
    return runs


def test_the_systems_of_a_study_are_runs_of_the_given_size_with_their_own_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg, modes = parse_args(["--reproduce", "prealign", "--steps", "700"])
    runs = train(studies.systems_of("prealign", range(2), cfg, modes.given))
    assert len(runs) == 2 * len(studies.SYSTEMS["prealign"])
    assert {cfg.seed for _, cfg in runs.values()} == {0, 1}
    name, system = runs["runs/prealign-tiny-s1/dictionary-75-"]
    assert name == "dictionary 75 %" and (system.method, system.steps, system.seed) == ("prealign", 700, 1)
    assert system.dictionary_coverage == 0.75 and system.transfer_steps == 0
    _, skyline = runs["runs/prealign-tiny-s0/skyline"]
    assert skyline.clone_share == 0.5 and skyline.steps == 1260            # 700 * 0.9 English, twice
    for name, system in runs.values():
        assert name == "skyline" or (system.steps, system.clone_share) == (700, 0.1)


def test_one_seed_of_a_study_can_be_trained_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = []
    monkeypatch.setattr(driver, "train", lambda cfg, out, *_, **__: trained.append((cfg.seed, out)) or run(3.0))
    assert driver.main(["--reproduce", "mini", "--preset", "mini", "--seed", "3"]) == 0
    assert [seed for seed, _ in trained] == [3] * len(studies.SYSTEMS["mini"])
    assert {out.parts[1] for _, out in trained} == {"mini-mini-s3"}
    assert driver.main(["--reproduce", "mini", "--preset", "mini", "--seeds", "2"]) == 0
    assert [seed for seed, _ in trained[len(studies.SYSTEMS["mini"]):]] == sorted([0, 1] * len(studies.SYSTEMS["mini"]))
    assert len(list(tmp_path.glob("runs/report-mini-*"))) == 2


def test_a_system_that_starts_from_a_run_has_its_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg, modes = parse_args(["--reproduce", "resets", "--steps", "700"])
    runs = train(studies.systems_of("resets", range(1), cfg, modes.given))
    _, system = runs["runs/resets-tiny-s0/assembled-AFA"]
    assert system.from_run == "runs/resets-tiny-s0/forgetting"
    assert system.body_from == "runs/resets-tiny-s0/tuned-forgetting"
    assert (system.method, system.steps) == ("forget", 700)
    assert (system.adapt_to, system.adapt_rows) == ("clone2", "all")


def prepared(folder, disjoint=False):
    """The files of a prepared folder that options and studies read."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    tokens = {f"{name}.{split}": 5000 for name in ("en", "de", "cs") for split in ("train", "val", "test")}
    for name in tokens:
        (folder / f"{name}.bin").write_bytes(bytes(2 * 5000))
    write_meta(folder, dict(
        format=FORMAT, languages=["en", "de"], new=["cs"], base_vocab=330, disjoint=disjoint, dtype="uint16",
        spaces={}, words={}, bytes={}, tokens=tokens, word_order={}))


def test_a_run_on_a_prepared_folder_names_the_command_of_joint_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared(tmp_path / "my set")
    cfg, _ = parse_args(["--method", "prealign+forget", "--data", "my set", "--context_len", "64", "--seed", "2"])
    shown = claims.show(REAL, cfg)
    assert shown.startswith(tables.show(REAL))
    assert shown.endswith("\n  python train.py --method baseline --preset tiny --seed 2 --data 'my set' --context_len 64")
    again, _ = parse_args(shlex.split(shown.splitlines()[-1])[2:])
    assert again == claims.joint_training(cfg)


def test_the_study_of_real_languages_reads_a_folder_whose_name_holds_a_space(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared(tmp_path / "my set")
    cfg, modes = parse_args(["--reproduce", "real", "--data", "my set", "--steps", "7", "--context_len", "64",
                             "--prealign_rows", "0"])
    with pytest.raises(UserError, match="my set-disjoint is not a prepared folder"):
        next(studies.systems_of("real", range(1), cfg, modes.given))              # before anything is trained
    prepared(tmp_path / "my set-disjoint", disjoint=True)
    runs = train(studies.systems_of("real", range(2), cfg, modes.given))
    assert len(runs) == 2 * len(studies.SYSTEMS["real"])
    assert {(cfg.data, cfg.steps) for _, cfg in runs.values()} == {("my set", 7), ("my set-disjoint", 2000)}
    assert {(cfg.context_len, cfg.vocab_size) for _, cfg in runs.values()} == {(64, 330)}
    assert {cfg.languages for _, cfg in runs.values()} == {"en,de"}
    assert {cfg.seed for _, cfg in runs.values()} == {0, 1}
    assert {cfg.new_language for _, cfg in runs.values()} == {"", "cs"}
    assert "runs/real-tiny-my set-s1/AFA-1000-captions" in runs


def test_a_study_of_the_world_takes_no_prepared_folder():
    with pytest.raises(UserError, match="uses the built-in world"):
        next(studies.systems_of("forget", range(1), SimpleNamespace(data="x", pretrained=""), {}))
    for study, start in (("pretrained", ""), ("real", "x")):
        with pytest.raises(UserError, match="go together"):
            next(studies.systems_of(study, range(1), SimpleNamespace(data="x", pretrained=start), {}))
