"""A run on a prepared folder of three small languages: the same loop and recipe, and measures of its own."""
import json
import math
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from align import instruction_rows
from data import tasks
from data.corpus import Corpus, translation
from data.files import UserError
from data.lab import claims, measures, tables
from data.lab.options import Config, default_out, flags_of, parse_args
from data.lab.run import Run
from data.lab.studies import SYSTEMS, systems_of
from data.real import build
from data.real.build import Source, write
from data.tasks import Item
from prealign import code_switch
from test_train import SMALL, log_without_speed, numbers, run_recipe, same_weights

# One word in English, German and Czech a row; articles and endings are left as a beginner would.
WORDS = """small kleine malý;red rote červený;old alte starý;young junge mladý;tired müde unavený
dog Hund pes;cat Katze kočka;man Mann muž;woman Frau žena;child Kind dítě;bird Vogel pták;horse Pferd kůň
runs läuft běží;sleeps schläft spí;eats isst jí;waits wartet čeká;plays spielt hraje;sings singt zpívá
park Park park;street Straße ulice;water Wasser voda;kitchen Küche kuchyň"""
ADJECTIVES, NOUNS, VERBS, PLACES = ([row.split() for row in line.split(";")] for line in WORDS.split("\n"))
ORDER = ["en", "de", "cs"]
LIKE = dict(en="A {} {} {} in the {}.", de="Ein {} {} {} in der {}.", cs="Jeden {} {} {} tam, kde je {}.")


def sentences(language, first, n):
    """n sentences by a fixed shuffle of all combinations: the same line tells the same in every language."""
    rows = list(product(ADJECTIVES, NOUNS, VERBS, PLACES))
    order = np.random.default_rng(0).permutation(len(rows))[first:first + n]
    which = ORDER.index(language)
    return [LIKE[language].format(*(words[which] for words in rows[i])) for i in order]


FIRST = dict(train=0, val=600, test=660)
COUNT = dict(train=250, val=60, test=60)


def items():
    """Where it is, from English captions; the other language's are for a classifier of its own."""
    for split, names in (("train", ["en"]), ("train", ["de"]), ("val", ORDER), ("test", ORDER)):
        texts = {name: sentences(name, FIRST[split], 40) for name in names}
        for i in range(40):
            prompt = {name: text[i] for name, text in texts.items()}
            answer = next(a for a, place in enumerate(PLACES)
                          if prompt[names[0]].endswith(f" {place[ORDER.index(names[0])]}."))
            yield split, dict(id=f"{split}-{i}", task="scene", prompt=prompt, answer=answer,
                              candidates=[place[0] for place in PLACES])
            if split == "test":
                yield split, dict(
                    id=f"de-{i}", task="completion", prompt={"de": "Ein kleine Hund"}, answer=i % 2,
                    candidates={"de": ["läuft in der Küche.", "schläft in der Küche."]})


def source(new=("cs",), **changes):
    """German tells other sentences than English; its dictionary gives one word two translations."""
    start = dict(en=0, de=300, cs=300)
    given = {name: {row[0]: [row[ORDER.index(name)].lower()] for row in ADJECTIVES + NOUNS + VERBS + PLACES}
             for name in ("de", "cs")}
    given["de"]["dog"] = ["hund", "vogel"]
    known = dict(
        languages=["en", "de"] + ["cs"] * (not new), new=list(new),
        text=lambda name, split: iter(sentences(
            name, FIRST[split] + start[name] * (split == "train"), COUNT[split])),
        pairs=lambda name, split: zip(*(sentences(side, FIRST[split], COUNT[split])
                                        for side in ("en", name))),
        paired=["de", "cs"], given=given, items=list(items()), about=dict(licence=[]))
    return Source(**known | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "three"
    write(out, source(), vocab_size=330, new_subwords=40)
    return out


@pytest.fixture
def corpus(folder):
    return Corpus(folder, ["en", "de"])


def changes(folder, **others):
    return dict(data=str(folder), languages="en,de", clone_share=0.4) | others


# --- the folder as a corpus ---------------------------------------------------------------------------------

def test_text_becomes_tokens_and_text_again_in_old_and_new_languages(corpus):
    texts = {name: sentences(name, 0, 20) for name in ORDER}
    before = [corpus.encode(text, "de") for text in texts["de"]]
    n = corpus.add_language("cs", 400)
    assert n == corpus.vocab_size - corpus.base_vocab == len(corpus.subwords) == 40
    for name, lines in texts.items():
        for text in lines:
            tokens = corpus.encode(text, name)
            assert tokens[0] == 0 and corpus.decode(tokens) == text
            marks = text.count(".") + text.count(",")
            assert corpus.starts[tokens].sum() == 1 + len(text.split()) + marks
    assert all(np.array_equal(a, corpus.encode(t, "de")) for a, t in zip(before, texts["de"]))
    czech = np.concatenate([corpus.encode(text, "cs") for text in texts["cs"]])
    assert (czech >= corpus.base_vocab).any() and (czech < corpus.base_vocab).any()
    assert len(corpus.streams["cs", "train"]) == 400 < len(corpus.streams["de", "train"])


def test_the_old_pieces_of_a_new_one_spell_it(corpus):
    corpus.add_language("cs", 400)
    name = corpus.tokenizer.id_to_token
    for i, pieces in enumerate(corpus.subwords, corpus.base_vocab):
        assert "".join(map(name, pieces)) == name(i) and max(pieces) < corpus.base_vocab


def test_streams_are_the_documents_of_the_language(corpus):
    rows = corpus.validation_rows("de", 2, 30, "test")
    assert corpus.decode(rows[0]).startswith("Ein ") and rows[0, 0] == 0
    assert sorted(text.strip() for text in corpus.documents("de", "val", 10**6)) == sorted(
        sentences("de", FIRST["val"], 60))
    assert not any(isinstance(stream, np.ndarray) and not isinstance(stream, np.memmap)
                   for stream in corpus.streams.values())


def test_the_dictionary_has_all_languages_and_words_of_several_translations_and_tokens(tmp_path):
    write(tmp_path / "old", source(new=()), vocab_size=330)
    corpus = Corpus(tmp_path / "old", ["en", "de", "cs"])
    words = {corpus.decode(word): [corpus.decode(t) for t in many]
             for word, many in corpus.dictionary().entries}
    assert words["dog"] == ["Hund", "Vogel", "pes"] and words["red"] == ["rote", "červený"]
    assert max(len(t) for _, many in corpus.dictionary().entries for t in many) > 1
    # as in running text: with the space before it
    hund = corpus.word("Hund", "de")
    assert hund == tuple(corpus.encode("Ein Hund", "de")[-len(hund):])
    assert len(Corpus(tmp_path / "old", ["en", "cs"]).dictionary().entries) == len(words)


def test_languages_without_a_common_piece(tmp_path):
    write(tmp_path / "apart", source(new=()), vocab_size=330, disjoint=True)
    corpus = Corpus(tmp_path / "apart", ["en", "cs"])
    V = corpus.base_vocab
    assert corpus.vocab_size == 3 * V
    english, czech = (corpus.encode("A park.", name) for name in ("en", "cs"))
    assert np.array_equal(english + 2 * V, czech) and corpus.decode(czech) == "A park."
    assert set(np.asarray(corpus.streams["cs", "train"]) // V) == {2}
    assert corpus.newline("cs")[0] - 2 * V == corpus.newline("en")[0]
    assert corpus.encode("", "cs").tolist() == [2 * V]
    assert corpus.word("park", "cs")[0] >= 2 * V and corpus.starts[czech].tolist() == [True] * 4


# --- a language without spaces: German with its spaces removed, so that the right words are known -----------

@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """The same two languages, with and without the spaces of German: -> {"spaced" or "joined": folder}."""
    plain, folders = source(new=(), languages=["en", "de"], paired=["de"]), {}

    def without(text):
        return text.replace(" ", "")

    def items():
        for split, item in plain.items:
            item = item | {key: found | {"de": without(found["de"])} if key == "prompt" and "de" in found else found
                           for key, found in item.items()}
            if isinstance(item["candidates"], dict):
                offered = {name: [*map(without, texts)] for name, texts in item["candidates"].items()}
                item["candidates"] = item["candidates"] | dict(de=offered["de"])
            yield split, item

    dense = source(
        new=(), languages=["en", "de"], paired=["de"], items=list(items()),
        text=lambda name, split: (without(text) if name == "de" else text for text in plain.text(name, split)),
        pairs=lambda name, split: ((one, without(other)) for one, other in plain.pairs(name, split)))
    for name, made in dict(spaced=plain, joined=dense).items():
        folders[name] = tmp_path_factory.mktemp("joined") / name
        write(folders[name], made, vocab_size=330)
    return folders


def test_dictionary_and_held_out_words_are_found_without_spaces_as_with_them(joined):
    for file in ("dictionary.de.tsv", "lexicon.de.tsv"):
        spaced, dense = (sorted((folder / file).read_text(encoding="utf-8").splitlines()) for folder in joined.values())
        assert dense == spaced and len(dense) >= 5
    meta = {name: Corpus(folder).meta for name, folder in joined.items()}
    assert (meta["spaced"]["spaces"]["de"], meta["joined"]["spaces"]["de"]) == (True, False)
    fits = [found["counts"]["languages"]["de"]["fit"] for found in meta.values()]
    assert fits[0]["occur"] == fits[1]["occur"] == 1 and fits[1]["english"] == fits[0]["english"]
    assert fits[1]["other"] > 0.6 and "% of the characters of de;" in build.summary(joined["joined"], meta["joined"])


def test_model_free_results_by_dictionary_need_no_spaces(joined):
    spaced, dense = (json.loads((folder / "baselines.json").read_text(encoding="utf-8")) for folder in joined.values())
    assert dense["retrieval"]["de"]["dictionary"] == spaced["retrieval"]["de"]["dictionary"]
    assert dense["retrieval"]["de"]["dictionary"]["to_english"] > 0.9 > 0.3 > (
        dense["retrieval"]["de"]["words"]["to_english"])
    dense_scene, spaced_scene = (found["tasks"]["scene"]["de"] for found in (dense, spaced))
    assert dense_scene["naive_bayes_dictionary"] == spaced_scene["naive_bayes_dictionary"] > 0.9
    assert dense_scene["naive_bayes_own"] > 0.8 and spaced_scene["naive_bayes_own"] > 0.8
    assert "learned" not in dense["retrieval"]["de"]           # nothing is learned from unsplit text
    corpora = [Corpus(folder, ["en", "de"]) for folder in joined.values()]
    assert [measures.references(corpus)["in_characters"] for corpus in corpora] == [{}, {"de": True}]


def test_english_is_switched_into_words_that_stand_without_a_space(joined):
    """As in the text of that language; the English word behind one brings its own space."""
    for name, expected in dict(spaced="A müde Mann schläft in the Küche.", joined="AmüdeMannschläft in theKüche.").items():
        corpus = Corpus(joined[name], ["en", "de"])
        row = corpus.encode("A tired man sleeps in the kitchen. A long rest of the row.", "en")[None]
        inputs, _ = code_switch(row, corpus.starts[row], np.array([True]), corpus.dictionary().table, 1.0,
                                np.random.default_rng(0))
        assert corpus.decode(inputs[0]).startswith(expected)


# --- items that are told in every language ------------------------------------------------------------------

ITEM = Item("scene", "", dict(en="A dog.", de="Ein Hund."), ["park", "street"], 1)


def test_an_item_is_available_in_the_languages_that_it_has(corpus):
    assert ITEM.prompt_in("de") == "Ein Hund." and ITEM.candidates_in("de") == ["park", "street"]
    assert ITEM.available_in("de") and not ITEM.available_in("cs")
    rows, start = tasks.candidate_rows(corpus, ITEM, "de", answer_language="en")
    assert [corpus.decode(row) for row in rows] == ["Ein Hund. park", "Ein Hund. street"]
    assert all(corpus.decode(row[:start]).startswith("Ein Hund.") for row in rows)
    assert corpus.items("scene", "train", 99)[0].prompt.keys() == {"en"}
    assert {len(corpus.items(task, "test", 99, language="de")) for task in ("scene", "completion")} == {40}
    assert corpus.items("completion", "test", 99) == [] and len(corpus.items("translate", "val", 7)) == 7
    questions = tasks.question_and_answer(corpus, corpus.items("scene", "train", 8), "en")
    inputs, targets = instruction_rows(*questions, 99)
    assert inputs.shape == targets.shape and (targets >= 0).any(axis=1).all()


def test_questions_and_answers_across_languages_name_the_language_in_english(corpus):
    item = translation(dict(en="A dog.", de="Ein Hund."))
    question, answer = tasks.format_example(corpus, item, "en", "de", tasks.TRANSLATE)
    assert corpus.decode(question) == "A dog. Translate into German:"
    assert corpus.decode(answer) == "Ein Hund.\n"
    assert tasks.NAMES["cs"] == "Czech" and not {"clone", "xx"} & set(tasks.NAMES)   # named by their code


def test_training_samples_are_sentence_pairs_to_translate_or_to_continue(corpus):
    corpus.add_language("cs", 400)
    samples = corpus.training_samples(50, 0.5, ["de", "cs"])
    assert len(samples) == 50 and all(set(item.prompt) == set(ORDER) for item in samples)
    assert sum(item.task == "translate" for item in samples) == 25
    going = next(item for item in samples if item.task == tasks.CONTINUATION)
    whole = {name: going.solved(name) for name in ORDER}
    assert [whole["en"], whole["de"]] in [list(pair) for pair in corpus.pairs("de", "train")]
    assert len(going.prompt["en"].split()) == (len(whole["en"].split()) + 1) // 2
    tokens, mask = tasks.parallel_sentences(corpus, [going], [2], 99)
    assert corpus.decode(tokens[1][mask[1]]) == whole["cs"]
    assert {item.task for item in corpus.training_samples(9, 1.0, ["de"])} == {"translate"}
    assert {name for item in corpus.training_samples(9, 1.0, ["de"]) for name in item.prompt} == {"en", "de"}


def test_an_item_without_the_language_that_was_drawn_gets_one_that_it_has(corpus):
    corpus.languages = ["en", "de", "cs"]
    some = [translation({"en": "a", name: "b"}) for name in ("de", "cs", "cs")]
    drawn = np.array([2, 1, 2]), np.array([2, 0, 2]), np.array([0, 1, 0])
    partner, asked, told = tasks.target_languages(corpus, some, *drawn)
    assert partner.tolist() == [1, 2, 2] and asked.tolist() == [1, 0, 2] and told.tolist() == [0, 2, 0]


# --- what a folder sets -------------------------------------------------------------------------------------

def test_the_folder_sets_languages_shares_and_steps_and_flags_win(folder):
    cfg, _ = parse_args(["--preset", "tiny", "--data", str(folder)])
    tokens = Corpus(folder, ["en", "de"]).meta["tokens"]
    assert cfg.languages == "en,de" and cfg.steps == 1000 and cfg.new_language == ""
    assert cfg.clone_share == round(tokens["de.train"] / (tokens["en.train"] + tokens["de.train"]), 3)
    cfg, modes = parse_args(["--preset", "tiny", "--data", str(folder), "--method", "forget", "--steps", "7"])
    assert cfg.steps == 7 and cfg.new_language == "cs" and cfg.adapt_tokens == tokens["cs.train"]
    assert default_out(cfg).name == "forget-to-cs-tiny-three-s0"
    again, _ = parse_args(flags_of(cfg, "x").split())
    assert again == cfg and "--data" in flags_of(cfg, "x")


# --- training -----------------------------------------------------------------------------------------------

def test_prealign_without_its_two_parts_is_the_baseline_bit_for_bit(folder, tmp_path):
    off = run_recipe(tmp_path, tmp_path / "off", **changes(folder, prealign_steps=0, code_switch=0.0))
    baseline = run_recipe(tmp_path, tmp_path / "baseline", **changes(folder, method="baseline"))
    assert same_weights(off, baseline)
    switched = run_recipe(tmp_path, tmp_path / "on", **changes(folder, prealign_steps=0, code_switch=0.5))
    assert not same_weights(off, switched)


ALL = dict(method="prealign+forget+align", adapt_to="cs", reset_every=4, adapt_steps=4, adapt_tokens=2000, afp_steps=4, afp_samples=30, afp_batch=4, afp_rows=1, instruct_steps=2)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    here = tmp_path_factory.mktemp("whole")
    return run_recipe(here, here / "run", **changes(folder, **ALL))


@pytest.mark.parametrize("stop_after", [("align words", 4), ("pretrain", 8), ("adapt", 4),
                                        ("align sentences", 4)])
def test_a_run_stopped_and_resumed_equals_one_without_a_stop(folder, tmp_path, whole, stop_after):
    run_recipe(tmp_path, tmp_path / "parts", stop_after=stop_after, **changes(folder, **ALL))
    parts = run_recipe(tmp_path, tmp_path / "parts", **changes(folder, **ALL))
    assert same_weights(whole, parts) and log_without_speed(whole) == log_without_speed(parts)


@pytest.mark.parametrize("init", ["noise", "mean", "subwords"])
def test_a_new_language_learns_its_rows_and_the_old_ones_stay(folder, tmp_path, init):
    run = run_recipe(tmp_path, tmp_path / "a", **changes(
        folder, method="baseline", adapt_to="cs", adapt_steps=3, adapt_init=init))
    old = run_recipe(tmp_path, tmp_path / "b", **changes(folder, method="baseline"))
    V = run.corpus.base_vocab
    assert run.model.embed.weight.shape[0] == V + 40
    for mine, before in zip(run.model.parameters(), old.model.parameters()):
        assert torch.equal(mine[:len(before)], before)


# --- whole runs ---------------------------------------------------------------------------------------------

def command(folder, out, method, *others, **knobs):
    known = {k: v for k, v in SMALL.items() if k not in ("words", "vocab_size")} | knobs
    return ["--method", method, "--data", str(folder), "--out", str(out), *others,
            *(part for k, v in known.items() for part in (f"--{k}", str(v)))]


METHODS = dict(
    baseline=[], prealign=["--dictionary_coverage", "0.8"], forget="--adapt_to cs --adapt_steps 4".split(),
    align="--afp_steps 4 --afp_samples 30 --generate_items 4 --context_len 64".split())


def test_every_method_runs_on_a_folder_and_is_measured(folder, tmp_path, capsys):
    for method, flags in METHODS.items():
        out = tmp_path / method
        assert train.main([*command(folder, out, method, transfer_steps=2, dtype="float32"), *flags]) == 0
        shown = capsys.readouterr().out
        assert "perplexity per word" in shown and "shared spelling" in shown and "minutes" in shown
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        languages = ["en", "de"] + ["cs"] * (method == "forget")
        assert summary["languages"] == languages == list(summary["perplexity_per_word"])
        assert summary["data"] == "three" and set(summary["sentences"]) == set(languages[1:])
        assert set(summary["transfer"]["scene"]) == set(summary["probe"]["scene"]) == set(languages)
        assert summary["sentences"]["de"]["n"] == 60 and summary["chance"]["scene"] == 0.25
        assert set(summary["tasks"]["completion"]["text"]) == {"de"}
        assert set(summary["baselines"]["retrieval"]) == set(languages[1:])
        assert ("held_out_word_retrieval" in summary) == (method == "prealign")
        assert "null" not in json.dumps(summary) and all(map(math.isfinite, numbers(summary)))
        if method == "align":
            assert set(summary["translation"]) == set(summary["answer_language"]) == {"en-de", "de-en"}
        if method == "forget":
            assert summary["adapt"]["cs"]["perplexity"]
        assert "<svg" in (out / "sentences.svg").read_text(encoding="utf-8")
    assert train.main(["--report", str(tmp_path / "baseline"), str(tmp_path / "prealign")]) == 0
    table = capsys.readouterr().out
    again = ["--from_run", str(tmp_path / "baseline"), "--method", "align", "--data", str(tmp_path)]
    assert train.main(again) == 2 and "--from_run takes data, model and pretraining from" in capsys.readouterr().err
    assert "| baseline | prealign |" in table and "model-free: dictionary" in table
    known = command(folder, tmp_path / "baseline", "baseline", transfer_steps=2)
    assert train.main([*known, "--sample", "A"]) == 0
    assert "de: A" in capsys.readouterr().out


def test_a_folder_without_dictionary_pairs_and_tasks_still_trains(tmp_path):
    write(tmp_path / "bare", source(paired=[], given={}, items=[]), vocab_size=330)
    cfg = Config(**SMALL | changes(tmp_path / "bare", method="baseline", steps=4, transfer_steps=2))
    summary = train.train(cfg, tmp_path / "run", quiet=True)
    assert not {"word_cosine", "bli", "transfer", "tasks", "sentences"} & set(summary)
    assert tables.show(summary)


@pytest.mark.parametrize("wrong, part", [
    (["--text", "mine.txt"], "--text does not go with --data"),
    (["--vocab_size", "500"], "--vocab_size does not go with --data"),
    (["--languages", "en,es"], "languages en,es: "), (["--languages", "de,en"], "en first"),
    (["--languages", "en,cs"], "has en,de"),
    (["--adapt_to", "fr"], "--adapt_to fr: "),
    (["--adapt_to", "de"], "--adapt_to de: a language of pretraining"),
    (["--context_len", "99999"], "but a row needs 100001"),
])
def test_a_mistake_costs_one_line(folder, tmp_path, capsys, wrong, part):
    flags = dict(SMALL, method="baseline")
    for flag in ("words", "vocab_size", *(w[2:] for w in wrong if w.startswith("--"))):
        flags.pop(flag, None)
    known = [text for k, v in flags.items() for text in (f"--{k}", str(v))]
    assert train.main([*known, "--data", str(folder), "--out", str(tmp_path / "run"), *wrong]) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1


def test_a_new_language_with_too_little_text_is_refused_before_pretraining(folder, tmp_path):
    cfg = Config(**(SMALL | changes(folder, method="baseline", adapt_to="cs", context_len=64)))
    run = Run(cfg, tmp_path / "run", "unused", quiet=True)
    run.check()
    run.corpus.meta["tokens"]["cs.val"] = 65
    with pytest.raises(UserError, match="--context_len 64: cs has 65 tokens"):
        run.check()


def test_a_folder_that_is_none_or_lacks_what_a_method_needs(folder, tmp_path, capsys):
    def error(*flags):
        assert train.main([*flags, "--out", str(tmp_path / "run")]) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "is not a prepared folder" in error("--data", str(tmp_path / "none"))
    assert "--adapt_init subwords needs --data" in error("--adapt_init", "subwords")
    bare = tmp_path / "bare"
    write(bare, source(new=(), languages=["en", "de"], paired=[], given={}, items=[]), vocab_size=330)
    assert "has no dictionary" in error("--data", str(bare), "--method", "prealign")
    assert "--afp_word_weight: " in error("--data", str(bare), "--method", "align", "--afp_word_weight", "1")
    small = [part for k, v in SMALL.items() if k not in ("words", "vocab_size")
             for part in (f"--{k}", str(v))]
    assert "has no sentence pairs of de" in error("--data", str(bare), "--method", "align", *small)
    with pytest.raises(UserError, match="no English items"):
        Corpus(bare, ["en", "de"]).exercises()
    (bare / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes() + b" ")
    assert "tokenizer.json was changed after the folder was prepared" in error("--data", str(bare))


# --- the study ----------------------------------------------------------------------------------------------

def study(folder, monkeypatch, tmp_path, *given):
    monkeypatch.chdir(tmp_path)
    cfg, modes = parse_args(["--reproduce", "real", "--data", str(folder), *given])
    return systems_of("real", range(2), cfg, modes.given)


def test_the_study_reads_sizes_from_the_folder_and_flags_from_the_command(folder, monkeypatch, tmp_path):
    write(folder.parent / "three-disjoint", source(new=(), languages=["en", "de"], paired=["de"]), vocab_size=330,
          new_subwords=0, disjoint=True)
    found = {}
    for _, system, out in study(folder, monkeypatch, tmp_path, "--steps", "7", "--context_len", "64",
                                   "--prealign_rows", "0"):
        out.mkdir(parents=True)                                # as if it was trained
        (out / "config.json").write_text(json.dumps(asdict(system)), encoding="utf-8")
        found[out] = system
    assert len(found) == 2 * len(SYSTEMS["real"]) == len(set(found.values()))
    # flags of a system win over those of the command
    assert {(cfg.steps, Path(cfg.data).name) for cfg in found.values()} == {
        (7, "three"), (2000, "three-disjoint")}
    assert {(cfg.context_len, cfg.vocab_size, cfg.languages) for cfg in found.values()} == {
        (64, 330, "en,de")}
    assert {cfg.seed for cfg in found.values()} == {0, 1}
    assert {cfg.new_language for cfg in found.values()} == {"", "cs"}


def test_a_missing_folder_of_the_study_is_named_before_anything_is_trained(folder, monkeypatch, tmp_path):
    (tmp_path / "alone").symlink_to(folder)                    # there is no alone-disjoint
    for given, missing in (("none", "none"), ("alone", "alone-disjoint")):
        with pytest.raises(UserError, match=f"{missing} is not a prepared folder"):
            next(study(tmp_path / given, monkeypatch, tmp_path))


def test_the_report_of_the_study_has_rows_for_what_needs_no_model(folder, tmp_path):
    cfg = Config(**SMALL | changes(folder, method="baseline", steps=4))
    summary = train.train(cfg, tmp_path / "a", quiet=True)
    text = claims.conclude("real", {"joint": [summary, summary]}, tmp_path)
    cells = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    rows = {row[1]: row[2:] for row in cells if len(row) > 5}
    heads = rows["measure"]
    spelling = rows["sentences found to English, centred (de) ↑"][heads.index("model-free: shared spelling")]
    assert float(spelling) == pytest.approx(
        summary["baselines"]["retrieval"]["de"]["trigrams"]["to_english"], abs=0.001)
    assert {"joint", "chance", "model-free: dictionary"} <= set(heads)
