"""Tokenizer, languages, streams and dictionary: made-up tables where a result is computed, a small corpus
elsewhere."""
import doctest
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from data import folder as folders
from data.corpus import Corpus, Dictionary, languages_of_rows
from data.files import UserError
from data.folder import language_order, permute_words, text_lines
from data.tasks import Item
from prealign import code_switch

STORY = "Anna went to the park.\nThere she met Tom. Who had the ball? Tom had it."


# --- word order ---------------------------------------------------------------------------------------------

def permute(tokens, order):
    """Tokens below 10 open a word, 10 to 19 continue one, 20 ends a sentence."""
    return permute_words(np.array(tokens), np.array([True] * 10 + [False] * 10 + [True]),
                         np.arange(21) == 20, order).tolist()


def test_the_examples_in_the_docstrings_are_true():
    result = doctest.testmod(folders, extraglobs=dict(np=np))
    assert result.attempted >= 2 and result.failed == 0


def test_tokens_of_a_word_stay_together_and_the_full_stop_stays_last():
    assert permute([1, 11, 12, 2, 3, 13, 20, 4, 5, 15, 20], 0) == [3, 13, 2, 1, 11, 12, 20, 5, 15, 4, 20]
    assert permute([1, 11, 2, 3, 13, 4, 20], 2) == [2, 1, 11, 4, 3, 13, 20]


def test_a_shuffled_language_puts_the_second_half_of_each_window_first():
    assert permute([1, 2, 3, 4, 5, 6, 7, 8, 20], 4) == [3, 4, 1, 2, 7, 8, 5, 6, 20]
    # of three words, two count as the second half
    assert permute([1, 2, 3, 4, 5, 6, 20], 3) == [2, 3, 1, 5, 6, 4, 20]
    # the last window is short: 3 has nobody to swap with
    assert permute([1, 2, 3, 20], 2) == [2, 1, 3, 20]


def test_every_permutation_keeps_each_sentence_and_its_words(corpus):
    tokens = corpus.encode(STORY)
    for order in (0, 2, 3, 4):
        moved = permute_words(tokens, *corpus.classes, order)
        assert not np.array_equal(moved, tokens)
        assert np.array_equal(corpus.classes[1][moved], corpus.classes[1][tokens])  # sentence ends stand where they stood
        pieces = [np.split(x, np.flatnonzero(corpus.classes[1][x])) for x in (tokens, moved)]
        assert [sorted(p) for p in pieces[0]] == [sorted(p) for p in pieces[1]]


@pytest.mark.parametrize("order", [0, 2, 4, 6])
def test_reversing_twice_and_swapping_halves_of_full_windows_twice_changes_nothing(order):
    # 12 words: 2, 4 and 6 divide it
    words = [[i, 10 + i] if i % 2 else [i] for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3)]
    sentence = sum(words, []) + [20]
    once = permute(sentence * 2, order)
    assert once != sentence * 2 and permute(once, order) == sentence * 2


@pytest.mark.parametrize("language", ["reversed", "shuffled-2"])
def test_real_text_permuted_twice_is_itself(corpus, language):
    order, tokens = language_order(language), np.asarray(corpus.streams["en", "val"][:5000]).astype(np.int64)
    once = permute_words(tokens, *corpus.classes, order)
    assert not np.array_equal(once, tokens)
    assert np.array_equal(permute_words(once, *corpus.classes, order), tokens)


def test_names_of_languages_say_their_word_order():
    names = ("clone", "clone2", "reversed", "shuffled-2", "shuffled-10")
    assert [language_order(name) for name in names] == [None, None, 0, 2, 10]


@pytest.mark.parametrize("name", [
    "german", "shuffled", "shuffled-1", "shuffled-0", "shuffled-x", "Clone", "reversed-2", ""])
def test_an_unknown_language_is_refused_with_the_names_that_exist(name):
    with pytest.raises(UserError, match=f"'{name}'.*clone.*reversed.*shuffled-K"):
        language_order(name)


# --- the dictionary -----------------------------------------------------------------------------------------

def numbered(n):
    """Word (i, i + 1) and its translation (1000 + i,)."""
    return Dictionary([((i, i + 1), [(1000 + i,)]) for i in range(n)])


def test_the_table_of_a_dictionary_finds_whole_words_only():
    dictionary = Dictionary([((7,), [(70,)]), ((1, 2), [(71,), (75,)]), ((1,), [(72,)])])
    assert dictionary.table[1, 2] == [(71,), (75,)] and dictionary.table[1,] == [(72,)]
    assert (2,) not in dictionary.table and (2, 1) not in dictionary.table and len(dictionary) == 3


def test_a_split_is_disjoint_complete_of_the_asked_size_and_fixed_by_its_seed():
    whole = numbered(100)
    kept, held_out = whole.split(0.75, seed=0)
    assert (len(kept), len(held_out)) == (75, 25)
    assert sorted(kept.entries + held_out.entries) == sorted(whole.entries)
    assert kept.entries == whole.split(0.75, seed=0)[0].entries != whole.split(0.75, seed=1)[0].entries


def test_no_word_is_held_out_whose_translation_belongs_to_a_word_that_is_kept():
    # one translation of each word belongs to another word, too
    whole = Dictionary([((i,), [(1000 + i // 2,), (2000 + i,)]) for i in range(100)])
    kept, held_out = whole.split(0.5, seed=0)
    known = {t for _, translations in kept.entries for t in translations}
    rest = [entry for entry in whole.entries if entry not in kept.entries]
    assert len(kept) == 50 and 1 < len(held_out) < len(rest) == 50
    assert held_out.entries == [entry for entry in rest if entry[1][0] not in known]


def test_full_coverage_holds_no_word_out():
    kept, held_out = numbered(100).split(1.0, seed=0)
    assert sorted(kept.entries) == sorted(numbered(100).entries) and held_out is None


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffled_dictionary_gives_no_word_its_own_translation_and_loses_none(seed):
    whole = numbered(100)
    wrong = whole.shuffled(seed)
    assert [word for word, _ in wrong.entries] == [word for word, _ in whole.entries]
    assert all(mine[1] != own[1] for mine, own in zip(wrong.entries, whole.entries))
    assert sorted(many for _, many in wrong.entries) == sorted(many for _, many in whole.entries)


def test_a_batch_holds_the_words_then_all_their_translations():
    dictionary = Dictionary([((9, 9, 9), [(90,)]), ((1, 2), [(71,), (72, 73)]), ((3,), [(74,)])])
    tokens, mask, concept = dictionary.batch(np.array([2, 1]))
    # as wide as the longest word *here*
    assert tokens.tolist() == [[3, 0], [1, 2], [74, 0], [71, 0], [72, 73]]
    assert mask.tolist() == [[True, False], [True, True], [True, False], [True, False], [True, True]]
    assert concept.tolist() == [2, 1, 2, 1, 1]


def test_a_dictionary_has_an_entry_and_no_word_twice():
    for entries in ([], [((1,), [(2,)]), ((1,), [(3,)])]):
        with pytest.raises(AssertionError):
            Dictionary(entries)


# --- tokens and languages -----------------------------------------------------------------------------------

def test_every_line_opens_with_a_space():
    assert text_lines("  one two \n three\n") == " one two\n three"


def test_text_survives_encoding_and_decoding(corpus):
    text = "Anna saw a robin.\nNaïve café – 3.14 \t“quoted”, 漢字!\nIt was a bird? yes"
    assert text_lines(corpus.decode(corpus.encode(text))) == text_lines(text)
    assert (corpus.encode(text)[0] == 0
            and len(corpus.encode(text)) == len(corpus.encode(text, separator=False)) + 1)


def test_the_clone_is_english_with_every_token_moved_by_the_size_of_the_vocabulary(corpus):
    assert corpus.base_vocab == 400 and corpus.vocab_size == 4 * 400
    assert np.array_equal(corpus.encode(STORY, "clone"), corpus.encode(STORY) + 400)


def test_permuted_languages_have_their_own_rows_and_their_own_order(corpus):
    english = corpus.encode(STORY)
    for index, order in ((2, 0), (3, 2)):
        expected = permute_words(english, *corpus.classes, order) + index * 400
        assert np.array_equal(corpus.encode(STORY, corpus.languages[index]), expected)
    assert corpus.decode(corpus.encode("Anna had the ball.", "reversed")) == "⟨ball the had Anna.⟩"
    assert corpus.decode(corpus.encode("Anna had the ball.", "shuffled-2")) == "⟨had Anna ball the.⟩"


def test_decode_puts_brackets_around_what_is_not_english(corpus):
    mixed = np.concatenate((corpus.encode("Anna had", separator=False),
                            corpus.encode("the ball", "clone", separator=False),
                            corpus.encode("today", separator=False)))
    assert corpus.decode(mixed) == "Anna had ⟨the ball⟩ today"
    assert corpus.decode([]) == ""


def test_a_word_starts_at_a_space_or_at_a_mark_in_every_language(corpus):
    for language in ("en", "clone"):
        tokens = corpus.encode("Quetzalcoatl met Tom, quickly.", language, separator=False)
        starts = corpus.starts[tokens]
        words = [corpus.tokenizer.decode((piece % 400).tolist())
                 for piece in np.split(tokens, np.flatnonzero(starts)[1:])]
        assert words == [" Quetzalcoatl", " met", " Tom", ",", " quickly", "."]


@pytest.mark.parametrize("word", ["café", "naïve", "größer"])
def test_a_word_with_an_accented_letter_is_one_word(corpus, word):
    starts = corpus.starts[corpus.encode(word, separator=False)]
    assert starts.tolist() == [True] + [False] * (len(starts) - 1)


@pytest.mark.parametrize("text, words", [("don't", 1), ("don’t", 1), ("it's he'll", 2), ("o'clock", 1),
                                         ("say 'no", 2), ("DON'T", 1), ("a-b", 2)])
def test_a_contraction_is_one_word_and_never_switched_in_parts(corpus, text, words):
    tokens = corpus.encode(text, separator=False)
    assert corpus.starts[tokens].sum() == words
    row = np.append(tokens, [0, 0])[None]                                        # (1, T + 1)
    table = {corpus.word(part, "en"): [corpus.word("cat", "clone")] for part in ("don", "it", "he", "o", "say")}
    switched, _ = code_switch(row, corpus.starts[row], np.array([True]), table, 1.0, np.random.default_rng(0))
    assert (switched >= 400).any() == text.startswith("say")


def test_sentences_end_at_their_marks_at_line_ends_and_at_documents(corpus):
    marks = {token for token, i in corpus.tokenizer.get_vocab().items() if corpus.classes[1][i]}
    assert {".", "?", "!", ":", ";", "Ċ", "<|doc|>"} <= marks
    assert all(token == "<|doc|>" or token[0] in ".?!:;Ċ" for token in marks)


# --- rows ---------------------------------------------------------------------------------------------------

def by_hand(corpus, folder, dtype, train, val):
    """A folder of two languages with the given English streams; the clone's are the same, moved."""
    folder.mkdir()
    shutil.copy(corpus.folder / "tokenizer.json", folder)
    for split, tokens in (("train", train), ("val", val)):
        for i, name in enumerate(("en", "clone")):
            (np.array(tokens) + i * 400).astype(dtype).tofile(folder / f"{name}.{split}.bin")
    folders.write_meta(folder, dict(
        format=folders.FORMAT, languages=["en", "clone"], new=[], base_vocab=400, dtype=dtype, bytes={}, words={},
        disjoint=True, spaces=dict(en=True, clone=True), word_order=dict(clone=None),
        tokens={f"{name}.{split}": len(tokens) for name in ("en", "clone")
                for split, tokens in (("train", train), ("val", val))}))
    return Corpus(folder)


def test_rows_are_windows_of_the_stream_of_their_language(corpus, tmp_path):
    counting = by_hand(corpus, tmp_path / "c", "uint16", np.arange(300), np.arange(50))
    languages = np.array([0, 1, 1, 0] * 25)
    rows = counting.rows(np.random.default_rng(0), 100, 12, languages)
    assert rows.dtype == np.int64 and rows.shape == (100, 12)
    # the stream counts, so every window does
    assert np.array_equal(np.diff(rows, axis=1), np.ones((100, 11)))
    assert np.array_equal(rows[:, 0] // 400, languages)
    assert len(np.unique(rows[:, 0])) > 60                                  # not the same few windows


def test_rows_are_a_pure_function_of_their_generator(corpus):
    languages = np.arange(8) % 4
    one, same, other = (corpus.rows(np.random.default_rng((seed, 2, 5)), 8, 33, languages)
                        for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert np.array_equal(one // 400, np.repeat(languages[:, None], 33, axis=1))


def test_validation_rows_are_always_the_first_ones_end_to_end(corpus, tmp_path):
    counting = by_hand(corpus, tmp_path / "c", "uint16", np.arange(300), np.arange(50))
    assert np.array_equal(counting.validation_rows("clone", 2, 12), 400 + np.arange(24).reshape(2, 12))
    # all there is
    assert np.array_equal(counting.validation_rows("en", 99, 12), np.arange(48).reshape(4, 12))
    assert np.array_equal(corpus.validation_rows("clone", 9, 33), corpus.validation_rows("clone", 9, 33))


def test_an_empty_stream_is_refused_in_one_line(corpus, tmp_path):
    """A user's text of few lines leaves no validation text for the last of many languages."""
    with pytest.raises(UserError, match=r"en\.val\.bin holds 0 tokens, but a row needs 13"):
        by_hand(corpus, tmp_path / "c", "uint16", np.arange(300), []).check(12)


def test_streams_of_four_bytes_keep_ids_beyond_65535(corpus, tmp_path):
    wide = by_hand(corpus, tmp_path / "c", "uint32", 70_000 + np.arange(300), 70_000 + np.arange(50))
    rows = wide.rows(np.random.default_rng(0), 4, 12, np.zeros(4, np.int64))
    assert rows.min() >= 70_000 and np.array_equal(np.diff(rows, axis=1), np.ones((4, 11)))


def test_a_stream_shorter_than_a_row_is_refused_with_its_name_and_a_way_out(corpus, tmp_path):
    for streams, split in (((np.arange(300), np.arange(12)), "val"), ((np.arange(12), np.arange(300)), "train")):
        short = by_hand(corpus, tmp_path / split, "uint16", *streams)
        with pytest.raises(UserError, match=rf"en\.{split}\.bin holds 12 tokens.*context_len"):
            short.check(12)
        short.check(11)
    assert short.rows(np.random.default_rng(0), 1, 11, np.zeros(1, np.int64)).shape == (1, 11)


@pytest.mark.parametrize("first_row", [0, 16, 12_345, 1_000_000])
@pytest.mark.parametrize("shares, slack", [((0.9, 0.1), 1), ((0.5, 0.5), 1), ((0.7, 0.1, 0.1, 0.1), 2)])
def test_languages_keep_their_shares_in_every_thousand_rows(corpus, shares, slack, first_row):
    counts = np.bincount(languages_of_rows(first_row, 1000, np.array(shares)), minlength=len(shares))
    assert np.abs(counts - 1000 * np.array(shares)).max() <= slack + 1e-9


def test_every_batch_of_ten_rows_has_its_tenth(corpus):
    batches = languages_of_rows(0, 1000, np.array([0.9, 0.1])).reshape(100, 10)
    assert set(batches.sum(axis=1)) <= {0, 1, 2}            # drawn at random, 7 % would have three and more


def test_the_languages_of_rows_do_not_depend_on_how_they_are_cut_into_batches(corpus):
    shares = np.array([0.9, 0.1])
    assert np.array_equal(languages_of_rows(8, 8, shares), languages_of_rows(0, 16, shares)[8:])


# --- the dictionary and the items of a folder ---------------------------------------------------------------

def test_the_dictionary_pairs_every_word_with_its_translation_in_each_language(corpus):
    dictionary = corpus.dictionary()
    assert len(dictionary) > 200
    for word, translations in dictionary.entries:
        assert translations == [tuple(t + i * 400 for t in word) for i in (1, 2, 3)] and max(word) < 400


def test_the_dictionary_holds_the_words_of_the_text_and_no_punctuation(corpus):
    text = corpus.tokenizer.decode(corpus.streams["en", "train"].tolist())
    counts = {word: text.count(f" {word} ") for word in ("the", "was", "in")}
    found = {corpus.tokenizer.decode(list(word)) for word, _ in corpus.dictionary().entries}
    assert min(counts.values()) > 100 and {" the", " was", " in"} <= found
    assert all(re.fullmatch(r" [A-Za-z]+", word) for word in found)


def test_the_dictionary_holds_exactly_the_words_seen_five_times(corpus):
    tokens = np.asarray(corpus.streams["en", "train"]).astype(np.int64)
    starts = np.append(np.flatnonzero(corpus.starts[tokens]), len(tokens))
    seen = {}
    for a, b in zip(starts, starts[1:]):
        word = tuple(tokens[a:b].tolist())
        seen[word] = seen.get(word, 0) + 1
    wanted = {word for word, n in seen.items()
              if n >= 5 and re.fullmatch(r" [a-zA-Z]+", corpus.tokenizer.decode(list(word)))}
    assert {word for word, _ in corpus.dictionary().entries} == wanted


def test_a_dictionary_of_one_language_lists_its_words_as_text(corpus):
    lines = list(corpus.word_pairs("clone"))
    assert all(english == other for english, other in lines)
    assert [corpus.word(english, "en") for english, _ in lines] == [w for w, _ in corpus.dictionary().entries]


def test_items_are_filtered_by_difficulty_and_cut_at_n(corpus):
    assert corpus.difficulties("nli") == ["lexical", "contextual"]
    assert {item.difficulty for item in corpus.items("nli", "test", 50, "contextual")} == {"contextual"}
    assert len(corpus.items("nli", "test", 7)) == 7
    assert {item.difficulty for item in corpus.items("nli", "test", 7)} == {"lexical"}
    assert corpus.items("no such task", "test", 7) == []


def test_no_validation_or_test_item_is_a_training_item(corpus):
    for task in corpus.task_names():
        if task == "knowledge":
            continue
        prompts = {split: {item.prompt for item in corpus.items(task, split, 10**6)}
                   for split in ("train", "val", "test")}
        assert all(prompts.values())
        assert not prompts["train"] & (prompts["val"] | prompts["test"])
        assert not prompts["val"] & prompts["test"]
        practised = {item.prompt for item in corpus.exercises() if item.task == task}
        assert not practised & (prompts["val"] | prompts["test"])


def test_training_samples_hold_the_asked_share_of_sentences_to_translate(corpus):
    for share, n in ((0.5, 40), (1.0, 40), (0.0, 40), (0.25, 40)):
        found = corpus.training_samples(n, share, ["clone"])
        assert len(found) == n and sum(item.task == "translate" for item in found) == share * n
    with pytest.raises(UserError, match="only .* of 1000000"):
        corpus.training_samples(10**6, 0.5, ["clone"])


def test_a_broken_line_of_items_is_refused(corpus, tmp_path):
    shutil.copytree(corpus.folder, tmp_path / "copy")
    path = tmp_path / "copy" / "tasks" / "cause.test.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], '{"prompt": 1}', *lines[3:]]), encoding="utf-8")
    with pytest.raises(UserError, match=r"cause\.test\.jsonl was changed after the folder was prepared"):
        Corpus(tmp_path / "copy")


def test_the_prompt_of_an_item_may_differ_between_languages():
    item = Item("x", "", dict(en="a", de="b"), dict(en=["c", "d"], de=["e", "f"]), 1)
    assert item.solved("en") == "a d" and item.text(0, "de") == "b e"
    assert item.available_in("de") and not item.available_in("fr")
    assert Item("x", "", "a", ["b"], 0).available_in("fr")


def test_a_language_added_later_does_not_change_the_identity_of_the_data(corpus, settings, tmp_path):
    from data.world.build import add_language, load
    folder = load(tmp_path, **settings)
    before = Corpus(folder)
    digest, rows = before.digest, before.vocab_size
    add_language(folder, "shuffled-4", 2000)
    assert before.add_language("shuffled-4", 2000) == 400 and before.vocab_size == rows + 400
    assert before.digest == digest == Corpus(folder).digest
    assert len(before.streams["shuffled-4", "train"]) == 2000
    assert set(np.asarray(before.streams["shuffled-4", "val"]) // 400) == {4}
    english = before.encode(STORY)
    assert np.array_equal(before.encode(STORY, "shuffled-4"), permute_words(english, *before.classes, 4) + 1600)
    assert before.decode(before.encode("Anna had the ball.", "shuffled-4")) == "⟨the ball Anna had.⟩"


# --- numbers that are rounded, cut or counted ---------------------------------------------------------------

def test_the_share_of_a_split_is_rounded_to_the_nearest_word():
    assert [len(numbered(10).split(share, seed=0)[0]) for share in (0.79, 0.71, 0.05)] == [8, 7, 2]


@pytest.mark.parametrize("change", [dict(seed=7), dict(files={}), dict(disjoint=False),
                                    dict(languages=["en", "clone", "reversed"])])
def test_the_identity_of_the_data_depends_on_seed_files_and_languages(corpus, change):
    other = Corpus(corpus.folder)
    before = other.digest
    other.meta = other.meta | change
    other.disjoint = other.meta["disjoint"]
    assert other.digest != before == corpus.digest


def test_test_text_is_evaluated_where_there_is_any_and_validation_text_elsewhere(corpus, tmp_path):
    folder = tmp_path / "c"
    assert by_hand(corpus, folder, "uint16", np.arange(300), np.arange(50)).test_split == "val"
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    meta["tokens"]["en.test"] = 20
    np.arange(20).astype("uint16").tofile(folder / "en.test.bin")
    folders.write_meta(folder, meta)
    assert Corpus(folder).test_split == "test"


def test_documents_are_those_of_the_first_tokens(corpus):
    first, second = corpus.encode("Anna saw Tom."), corpus.encode("It was a ball.")
    copy = Corpus(corpus.folder)
    copy.streams["clone", "val"] = np.concatenate((first, second, first)) + 400
    texts = copy.documents("clone", "val", len(first) + len(second))
    assert [text.replace("<|doc|>", "").strip() for text in texts] == ["Anna saw Tom.", "It was a ball."]


@pytest.fixture
def pairs(corpus, tmp_path):
    """A folder of English and two languages, with sentence pairs and a dictionary by hand."""
    folder = shutil.copytree(corpus.folder, tmp_path / "pairs")
    (folder / "tasks" / "translate.test.jsonl").unlink(missing_ok=True)
    lines = dict(clone=["a\tone", "a\ttwo", "b\tthree", "c\tfour"], reversed=["d\tfive", "a\tsix", "e\tseven"])
    for name, some in lines.items():
        (folder / f"pairs.{name}.test.tsv").write_text("\n".join(some) + "\n", encoding="utf-8")
        (folder / f"dictionary.{name}.tsv").write_text("the\tthe\nwas\twas\nthe\tthe\n", encoding="utf-8")
    folders.write_meta(folder, corpus.meta)
    return Corpus(folder, ["en", "clone", "reversed"])


def test_parallel_sentences_take_turns_keep_the_first_translation_and_end_at_n(pairs):
    assert pairs.parallel(["clone", "reversed"], "test", 4) == [
        dict(en="a", clone="one", reversed="six"), dict(en="d", reversed="five"), dict(en="b", clone="three"),
        dict(en="e", reversed="seven")]
    assert pairs.parallel(["clone", "reversed"], "test", 1) == [dict(en="a", clone="one")]


def test_sentences_to_translate_into_a_language_are_its_own(pairs):
    assert [item.prompt for item in pairs.items("translate", "test", 9, language="reversed")] == [
        dict(en="d", reversed="five"), dict(en="a", reversed="six"), dict(en="e", reversed="seven")]
    assert len(pairs.items("translate", "test", 9)) == 5


def test_a_translation_that_is_listed_twice_is_held_once(pairs):
    entries = dict(pairs.dictionary().entries)
    assert len(entries) == 2
    for word, translations in entries.items():
        assert translations == [tuple(t + 400 for t in word), tuple(t + 800 for t in word)]


def test_the_first_half_of_a_sentence_has_the_word_in_the_middle(corpus):
    item = corpus._continuation(dict(en="Anna saw Tom.", clone="Anna had the ball."))
    assert (item.prompt, item.candidates) == (
        dict(en="Anna saw", clone="Anna had"), dict(en=["Tom."], clone=["the ball."]))


# --- what a folder is written from --------------------------------------------------------------------------

def test_wide_marks_end_a_sentence_and_a_wide_comma_does_not():
    marks = [pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(mark)[0][0] for mark in "。？！，"]
    table = SimpleNamespace(get_vocab_size=lambda: 4, get_vocab=lambda: {mark: i for i, mark in enumerate(marks)})
    assert folders.token_classes(table)[1].tolist() == [True, True, True, False]


def test_bytes_of_sentencepiece_are_the_characters_that_they_spell():
    tokens = ["▁a", "<0x0A>", "<0xC3>", "<0x2E>", "<0x41>"]
    starts, ends = folders.token_classes(SimpleNamespace(get_vocab=lambda: {t: i for i, t in enumerate(tokens)}))
    assert starts.tolist() == [True, True, False, True, False]           # id 0 is the separator
    assert ends.tolist() == [True, True, False, True, False]


def test_raw_lines_are_learned_and_packed_as_they_stand_inside_a_line(corpus):
    learned = folders.train_tokenizer(["xyz\nxyz\nxyz"] * 5, 264).get_vocab()
    assert "Ġxyz" in learned and "xyz" not in learned and learned["<|doc|>"] == 0
    packed = folders.pack(["Anna saw\nTom.", "Yes."], corpus.tokenizer)
    expected = [0, *corpus.tokenizer.encode(" Anna saw\n Tom.").ids, 0, *corpus.tokenizer.encode(" Yes.").ids]
    assert packed.tolist() == expected


@pytest.mark.parametrize("at_once", [2, 2**20])
def test_a_stream_is_counted_in_documents_words_bytes_and_tokens(corpus, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(folders, "ENCODED", at_once)           # however many documents are encoded together
    documents = ["é", "ab xy", "漢字"]
    meta = dict(dtype="uint16", word_order={}, spaces={"x": True}, disjoint=True, base_vocab=7,
                documents={}, words={}, bytes={}, tokens={})
    found = folders.write_stream(tmp_path, "x.train", documents, corpus.tokenizer, meta, index=1)
    packed = [7]
    for i, document in enumerate(documents):
        packed += [token + 7 for token in corpus.tokenizer.encode(f" {document}").ids] + [7] * (i < 2)
    assert found == dict(documents=3, words=4, bytes=13, tokens=len(packed))
    assert {key: meta[key]["x.train"] for key in found} == found
    assert np.fromfile(tmp_path / "x.train.bin", "uint16").tolist() == packed
