"""Tokenizer, languages, streams and dictionary: made-up tables where a result is computed, a small corpus
elsewhere."""
import doctest
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import corpus as corpora
from data.corpus import (Corpus, Dictionary, language_order, own_stories, permute_words, read_text,
                         split_words, text_lines)
from data.text import DataError

STORY = "Anna went to the park.\nThere she met Tom. Who had the ball? Tom had it."


# --- word order ---------------------------------------------------------------------------------------------

def permute(tokens, order):
    """Tokens below 10 open a word, 10 to 19 continue one, 20 ends a sentence."""
    return permute_words(np.array(tokens), np.array([True] * 10 + [False] * 10 + [True]),
                         np.arange(21) == 20, order).tolist()


def test_the_examples_in_the_docstrings_are_true():
    result = doctest.testmod(corpora, extraglobs=dict(np=np))
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
        moved = permute_words(tokens, corpus.starts, corpus.ends, order)
        assert not np.array_equal(moved, tokens)
        assert np.array_equal(corpus.ends[moved], corpus.ends[tokens])  # sentence ends stand where they stood
        pieces = [np.split(x, np.flatnonzero(corpus.ends[x])) for x in (tokens, moved)]
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
    once = permute_words(tokens, corpus.starts, corpus.ends, order)
    assert not np.array_equal(once, tokens)
    assert np.array_equal(permute_words(once, corpus.starts, corpus.ends, order), tokens)


def test_names_of_languages_say_their_word_order():
    names = ("clone", "clone2", "reversed", "shuffled-2", "shuffled-10")
    assert [language_order(name) for name in names] == [None, None, 0, 2, 10]


@pytest.mark.parametrize("name", [
    "german", "shuffled", "shuffled-1", "shuffled-0", "shuffled-x", "Clone", "reversed-2", ""])
def test_an_unknown_language_is_refused_with_the_names_that_exist(name):
    with pytest.raises(DataError, match=f"'{name}'.*clone.*reversed.*shuffled-K"):
        language_order(name)


# --- the dictionary -----------------------------------------------------------------------------------------

def look_up(dictionary, words):
    tokens = np.array([t for word in words for t in word])
    length = np.array([len(word) for word in words])
    return dictionary.find(tokens, np.cumsum(length) - length, length).tolist()


def numbered(n):
    """Word (i, i + 1) and its translation (1000 + i,)."""
    return Dictionary([((i, i + 1), [(1000 + i,)]) for i in range(n)])


def test_find_tells_words_from_their_beginnings_and_from_unknown_words():
    dictionary = Dictionary([((7,), [(70,)]), ((1, 2), [(71,)]), ((1,), [(72,)]), ((1, 2, 3), [(73,)]),
                             ((0,), [(74,)])])
    words = [(1, 2), (1,), (2,), (2, 1), (1, 2, 3), (7,), (1, 2, 3, 4), (0,), (0, 0), (1, 0)]
    assert look_up(dictionary, words) == [1, 2, -1, -1, 3, 0, -1, 4, -1, -1]


def test_find_finds_every_entry_of_a_large_dictionary_and_nothing_else():
    dictionary = numbered(1000)
    assert look_up(dictionary, [word for word, _ in dictionary.entries]) == list(range(1000))
    assert set(look_up(dictionary, [(i + 1, i) for i in range(1000)] + [(i,) for i in range(1000)])) == {-1}


def test_words_begin_where_the_marks_stand():
    start, length = split_words(np.array([5, 6, 7, 8]), np.array([True, False, True, True]))
    assert start.tolist() == [0, 2, 3] and length.tolist() == [2, 1, 1]


def test_a_split_is_disjoint_complete_of_the_asked_size_and_fixed_by_its_seed():
    whole = numbered(100)
    seen, unseen = whole.split(0.75, seed=0)
    assert (len(seen), len(unseen)) == (75, 25)
    assert sorted(seen.entries + unseen.entries) == sorted(whole.entries)
    assert seen.entries == whole.split(0.75, seed=0)[0].entries != whole.split(0.75, seed=1)[0].entries


def test_full_coverage_leaves_no_unseen_words():
    seen, unseen = numbered(100).split(1.0, seed=0)
    assert sorted(seen.entries) == sorted(numbered(100).entries) and unseen is None


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


def test_an_empty_dictionary_and_a_word_listed_twice_are_refused():
    with pytest.raises(DataError, match="no entry"):
        Dictionary([])
    with pytest.raises(DataError, match="twice"):
        Dictionary([((1, 2), [(70,)]), ((3,), [(71,)]), ((1, 2), [(72,)])])


# --- tokens and languages -----------------------------------------------------------------------------------

def test_every_line_opens_with_a_space():
    assert text_lines("  one two \n three\n") == " one two\n three"


def test_text_survives_encoding_and_decoding(corpus):
    text = "Anna saw a robin.\nNaïve café – 3.14 \t“quoted”, 漢字!\nIt was a bird? yes"
    assert text_lines(corpus.decode(corpus.encode(text))) == text_lines(text)
    assert (corpus.encode(text)[0] == 0
            and len(corpus.encode(text)) == len(corpus.encode(text, opening=False)) + 1)


def test_the_clone_is_english_with_every_token_moved_by_the_size_of_the_vocabulary(corpus):
    assert corpus.base_vocab == 400 and corpus.vocab_size == 4 * 400
    assert np.array_equal(corpus.encode(STORY, "clone"), corpus.encode(STORY) + 400)


def test_permuted_languages_have_their_own_rows_and_their_own_order(corpus):
    english = corpus.encode(STORY)
    for index, order in ((2, 0), (3, 2)):
        expected = permute_words(english, corpus.starts, corpus.ends, order) + index * 400
        assert np.array_equal(corpus.encode(STORY, corpus.languages[index]), expected)
    assert corpus.decode(corpus.encode("Anna had the ball.", "reversed")) == "⟨ball the had Anna.⟩"
    assert corpus.decode(corpus.encode("Anna had the ball.", "shuffled-2")) == "⟨had Anna ball the.⟩"


def test_text_takes_the_order_of_another_language_and_keeps_its_own_rows(corpus):
    rows = corpus.validation_rows("clone", 3, 100)
    english = rows.reshape(-1) - 400
    expected = permute_words(english, corpus.starts, corpus.ends, 4) + 400
    assert np.array_equal(corpus.in_order(rows, "shuffled-4").reshape(-1), expected)
    assert np.array_equal(corpus.in_order(rows, "clone2"), rows)


def test_decode_puts_brackets_around_what_is_not_english(corpus):
    mixed = np.concatenate((corpus.encode("Anna had", opening=False),
                            corpus.encode("the ball", "clone", opening=False),
                            corpus.encode("today", opening=False)))
    assert corpus.decode(mixed) == "Anna had ⟨the ball⟩ today"
    assert corpus.decode([]) == ""


def test_a_word_starts_at_a_space_or_at_a_mark_in_every_language(corpus):
    for language in ("en", "clone"):
        tokens = corpus.encode("Quetzalcoatl met Tom, quickly.", language, opening=False)
        starts = corpus.starts_word(tokens)
        words = [corpus.tokenizer.decode((piece % 400).tolist())
                 for piece in np.split(tokens, np.flatnonzero(starts)[1:])]
        assert words == [" Quetzalcoatl", " met", " Tom", ",", " quickly", "."]


@pytest.mark.parametrize("word", ["café", "naïve", "größer"])
def test_a_word_with_an_accented_letter_is_one_word(corpus, word):
    starts = corpus.starts_word(corpus.encode(word, opening=False))
    assert starts.tolist() == [True] + [False] * (len(starts) - 1)


def test_sentences_end_at_their_marks_at_line_ends_and_at_documents(corpus):
    marks = {token for token, i in corpus.tokenizer.get_vocab().items() if corpus.ends[i]}
    assert {".", "?", "!", ":", ";", "Ċ", "<|doc|>"} <= marks
    assert all(token == "<|doc|>" or token[0] in ".?!:;Ċ" for token in marks)


# --- rows ---------------------------------------------------------------------------------------------------

def by_hand(corpus, folder, dtype, train, val):
    """A folder of two languages with the given English streams; the clone's are the same, moved."""
    folder.mkdir()
    shutil.copy(corpus.folder / "tokenizer.json", folder)
    (folder / "meta.json").write_text(json.dumps(dict(
        languages=["en", "clone"], base_vocab=400, dtype=dtype, bytes={},
        tokens={f"{name}.{split}": len(tokens) for name in ("en", "clone")
                for split, tokens in (("train", train), ("val", val))})), encoding="utf-8")
    for split, tokens in (("train", train), ("val", val)):
        for i, name in enumerate(("en", "clone")):
            (np.array(tokens) + i * 400).astype(dtype).tofile(folder / f"{name}.{split}.bin")
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


def test_streams_of_four_bytes_keep_ids_beyond_65535(corpus, tmp_path):
    wide = by_hand(corpus, tmp_path / "c", "uint32", 70_000 + np.arange(300), 70_000 + np.arange(50))
    rows = wide.rows(np.random.default_rng(0), 4, 12, np.zeros(4, np.int64))
    assert rows.min() >= 70_000 and np.array_equal(np.diff(rows, axis=1), np.ones((4, 11)))


def test_a_stream_shorter_than_a_row_is_refused_with_its_name_and_a_way_out(corpus, tmp_path):
    short = by_hand(corpus, tmp_path / "c", "uint16", np.arange(300), np.arange(12))
    with pytest.raises(DataError, match=r"en\.val\.bin holds 12 tokens.*--context_len"):
        short.rows(np.random.default_rng(0), 1, 12, np.zeros(1, np.int64), split="val")
    assert short.rows(np.random.default_rng(0), 1, 11, np.zeros(1, np.int64), split="val").shape == (1, 11)


@pytest.mark.parametrize("first_row", [0, 16, 12_345, 1_000_000])
@pytest.mark.parametrize("shares, slack", [((0.9, 0.1), 1), ((0.5, 0.5), 1), ((0.7, 0.1, 0.1, 0.1), 2)])
def test_languages_keep_their_shares_in_every_thousand_rows(corpus, shares, slack, first_row):
    counts = np.bincount(corpus.languages_of_rows(first_row, 1000, np.array(shares)), minlength=len(shares))
    assert np.abs(counts - 1000 * np.array(shares)).max() <= slack + 1e-9


def test_every_batch_of_ten_rows_has_its_tenth(corpus):
    batches = corpus.languages_of_rows(0, 1000, np.array([0.9, 0.1])).reshape(100, 10)
    assert set(batches.sum(axis=1)) <= {0, 1, 2}            # drawn at random, 7 % would have three and more


def test_the_languages_of_rows_do_not_depend_on_how_they_are_cut_into_batches(corpus):
    shares = np.array([0.9, 0.1])
    assert np.array_equal(corpus.languages_of_rows(8, 8, shares), corpus.languages_of_rows(0, 16, shares)[8:])


# --- the gold dictionary ------------------------------------------------------------------------------------

def test_the_gold_dictionary_pairs_every_word_with_its_twin_in_each_language(corpus):
    dictionary = corpus.gold_dictionary()
    assert len(dictionary) > 200
    for word, many in dictionary.entries:
        assert many == [tuple(t + i * 400 for t in word) for i in (1, 2, 3)] and max(word) < 400


def test_the_gold_dictionary_holds_the_words_of_the_text_and_no_punctuation(corpus):
    text = corpus.tokenizer.decode(corpus.streams["en", "train"].tolist())
    counts = {word: text.count(f" {word} ") for word in ("the", "was", "in")}
    found = {corpus.tokenizer.decode(list(word)) for word, _ in corpus.gold_dictionary().entries}
    assert min(counts.values()) > 100 and {" the", " was", " in"} <= found
    assert all(re.fullmatch(r" [A-Za-z]+", word) for word in found)


def test_a_rare_word_is_left_out_of_the_gold_dictionary(corpus):
    tokens = np.asarray(corpus.streams["en", "train"]).astype(np.int64)
    starts = np.append(np.flatnonzero(corpus.starts[tokens]), len(tokens))
    seen = {}
    for a, b in zip(starts, starts[1:]):
        word = tuple(tokens[a:b].tolist())
        seen[word] = seen.get(word, 0) + 1
    for least in (2, 50):
        words = {word for word, _ in corpus.gold_dictionary(min_count=least).entries}
        assert min(seen[word] for word in words) >= least
        spelled = {w for w, n in seen.items()
                   if n >= least and re.fullmatch(r" [a-zA-Z]+", corpus.tokenizer.decode(list(w)))}
        assert words == spelled


# --- building -----------------------------------------------------------------------------------------------

def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_two_builds_give_the_same_bytes_and_leave_nothing_else_behind(corpus, settings, tmp_path):
    again = corpora.load(tmp_path, **settings)
    assert len(files(again.folder)) == 4 * 2 + 2 and files(again.folder) == files(corpus.folder)
    assert set(tmp_path.iterdir()) == {again.folder, Path(f"{again.folder}.lock")}


def test_a_second_load_opens_the_folder_without_building_it_again(corpus, settings):
    before = {path.name: path.stat().st_mtime_ns for path in corpus.folder.iterdir()}
    again = corpora.load(corpus.folder.parent, **settings)
    assert again.folder == corpus.folder and again.world.facts == corpus.world.facts
    assert {path.name: path.stat().st_mtime_ns for path in corpus.folder.iterdir()} == before


def test_streams_hold_only_tokens_of_their_language_and_open_with_a_document(corpus):
    for (name, _), stream in corpus.streams.items():
        index = corpus.languages.index(name)
        assert stream.dtype == np.uint16 and stream[0] == index * 400
        assert stream.min() == index * 400 and stream.max() < (index + 1) * 400


def test_languages_and_splits_are_of_the_asked_size_and_share_no_text(corpus):
    words = {key: int(corpus.starts_word(np.asarray(stream)).sum()) for key, stream in corpus.streams.items()}
    assert 30_000 <= words["en", "train"] < 45_000                    # words, with separators and punctuation
    assert all(20_000 <= n < 30_000 for key, n in words.items() if key != ("en", "train"))
    openings = {key: tuple((np.asarray(stream[:100]) % 400).tolist())
                for key, stream in corpus.streams.items()}
    assert len(set(openings.values())) == 4 * 2


def test_the_bytes_of_a_stream_are_those_of_its_text(corpus):
    stream = corpus.streams["clone", "val"]
    text = corpus.tokenizer.decode((stream[stream != 400].astype(np.int64) - 400).tolist())
    lines = 1 + text.count("\n") + int((stream[1:] == 400).sum())      # every line has one leading space more
    assert corpus.bytes["clone.val"] == len(text.encode("utf-8")) - lines


# --- a user's own text --------------------------------------------------------------------------------------

def own_text(path, n=1000):
    path.write_text("".join(f"This is line {i} of my own text about zebras.\n\n" for i in range(n)),
                    encoding="utf-8")
    return path


def decoded(corpus, name, split):
    tokens = np.asarray(corpus.streams[name, split]).astype(np.int64) % corpus.base_vocab
    return corpus.tokenizer.decode(tokens.tolist())


def numbers(corpus, name, split):
    return set(map(int, re.findall(r"This is line (\d+) of my own text", decoded(corpus, name, split))))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    return corpora.load(folder / "cache", 0, ["en", "clone"], 5000, 0.1, 400,
                        text=str(own_text(folder / "mine.txt")))


def test_own_text_is_shared_out_so_that_no_line_is_in_two_streams(own):
    parts = {key: numbers(own, *key) for key in own.streams}
    assert all(len(part) >= 20 for part in parts.values())
    assert len(set.union(*parts.values())) == sum(map(len, parts.values()))
    assert parts["en", "val"] | parts["clone", "val"] == set(range(0, 1000, 20))


def test_own_documents_are_shared_out_as_the_text_is():
    lines, shares = [*map(str, range(1000))], [0.8, 0.15, 0.05]
    train, val = ([*map(list, (own_stories(lines, split, i, shares) for i in range(3)))]
                  for split in ("train", "val"))
    assert [*map(len, train)] == pytest.approx([760, 142, 48], abs=2)
    assert [*map(len, val)] == [17, 17, 16] and sorted(sum(train + val, [])) == sorted(lines)


def test_own_text_comes_with_the_facts_of_the_world(own):
    told = {f"{item.prompt} {item.candidates[item.answer]}": item.told
            for item in own.world.items("knowledge", "test", 10**6)}
    for name in ("en", "clone"):
        text = decoded(own, name, "train")
        heard = {where for fact, where in told.items() if f" {fact}" in text}
        assert heard == {name, "both"}


def test_own_text_takes_the_place_of_the_stories(own, corpus):
    assert "went home." in decoded(corpus, "en", "train") and "went home." not in decoded(own, "en", "train")
    assert "zebras" not in decoded(corpus, "en", "train") and "zebras" in decoded(own, "en", "train")


def test_another_file_of_the_same_name_and_size_is_another_corpus(own, tmp_path):
    path = own_text(tmp_path / "mine.txt")
    path.write_text(path.read_text(encoding="utf-8").replace("zebras", "horses"), encoding="utf-8")
    other = corpora.load(own.folder.parent, 0, ["en", "clone"], 5000, 0.1, 400, text=str(path))
    assert "horses" in decoded(other, "en", "train")


def test_a_vocabulary_of_more_than_65536_rows_takes_four_bytes_a_token(tmp_path):
    # 200 made-up words a line
    letters = np.random.default_rng(0).integers(97, 123, (600, 200, 6), dtype=np.uint8)
    lines = [" ".join(bytes(word).decode() for word in line) for line in letters]
    (tmp_path / "mine.txt").write_text("\n".join(lines), encoding="utf-8")
    names = ["en"] + [f"clone{i}" for i in range(2, 24)]
    # 23 languages of 3,000 rows are 69,000
    for languages, dtype in ((names[:2], "uint16"), (names, "uint32")):
        made = corpora.load(tmp_path, 0, languages, 5000, 0.1, 3000, text=str(tmp_path / "mine.txt"))
        assert made.vocab_size == 3000 * len(languages)
        assert {stream.dtype for stream in made.streams.values()} == {np.dtype(dtype)}
        assert made.streams[languages[-1], "train"].min() == 3000 * (len(languages) - 1)


def test_read_text_takes_a_document_per_line_and_drops_empty_lines_and_separators(tmp_path):
    own_text(tmp_path / "mine.txt", 120)
    with open(tmp_path / "mine.txt", "a", encoding="utf-8") as file:
        file.write("  café <|doc|> today \r\n")
    documents = read_text(tmp_path / "mine.txt")
    assert len(documents) == 121 and documents[7] == "This is line 7 of my own text about zebras."
    assert documents[-1].split() == ["café", "today"]


def test_read_text_names_the_line_that_is_not_utf8(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"fine\n" * 41 + "caf\u00e9\n".encode("latin-1") + b"fine\n" * 100)
    with pytest.raises(DataError, match=r"latin\.txt line 42 is not UTF-8 \(byte 4\)"):
        read_text(tmp_path / "latin.txt")


def test_read_text_says_what_is_wrong_with_a_missing_and_with_a_short_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt cannot be read"):
        read_text(tmp_path / "nowhere.txt")
    (tmp_path / "short.txt").write_text("one line\n\n" * 99, encoding="utf-8")
    with pytest.raises(DataError, match=r"short\.txt has 99 non-empty lines: at least 100"):
        read_text(tmp_path / "short.txt")
