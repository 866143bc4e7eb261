"""Dictionaries: three file formats, one learned from pairs of a known language, and the choice of words."""
import doctest
import itertools
import json

import numpy as np
import pytest

from data.files import UserError
from data.real import dictionaries
from data.real.dictionaries import (WORD, WordCounts, coverage, fold, is_held_out, learn, longest_match, read,
                                    select, split, translation_probabilities)


def write(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_the_example_in_the_docstring_is_true():
    result = doctest.testmod(dictionaries, extraglobs=dict(np=np))
    assert result.attempted >= 2 and result.failed == 0


@pytest.mark.parametrize("lines", [
    ("dog hund", "dog Dogge", "two zwei"),
    ("dog\thund\t0.9", "dog\tdogge\t0.1", "\t\t", "two\tzwei\t1"),
    ("dog hund\t", "dog Dogge", "two zwei\t\t"),
    ('{"words": "dog $ Hund $ Dogge"}', '{"words": "two $ zwei"}'),
])
def test_three_formats_say_the_same(tmp_path, lines):
    assert read(write(tmp_path / "d.txt", *lines)) == {"dog": ["hund", "dogge"], "two": ["zwei"]}


def test_an_identical_pair_goes_only_where_there_is_another(tmp_path):
    path = write(tmp_path / "d.txt", "dog dog", "dog hund", "taxi taxi", "hut hütte", "hut hut")
    assert read(path) == {"dog": ["hund"], "taxi": ["taxi"], "hut": ["hütte"]}


def test_phrases_are_read_from_tabs(tmp_path):
    assert read(write(tmp_path / "d.tsv", "bus stop\tarrêt de bus")) == {"bus stop": ["arrêt de bus"]}


@pytest.mark.parametrize("line", ["dog", "dog hund katze", "dog\t", '{"word": "dog $ hund"}', "{dog hund}",
                                  '{"words": "dog"}', '{"a":' * 1900, "\tkatze\t0.8"])
def test_a_line_without_two_sides_is_named(tmp_path, line):
    path = write(tmp_path / "d.txt", "cat katze", line)
    with pytest.raises(UserError, match=r"d\.txt line 2: .* is not a pair of words: write"):
        read(path)


def test_an_empty_dictionary_is_named(tmp_path):
    with pytest.raises(UserError, match=r"d\.txt is empty"):
        read(write(tmp_path / "d.txt", "", ""))


# --- IBM model 1 --------------------------------------------------------------------------------------------

def made_up(n=400, size=40):
    """Sentence pairs of a word-for-word language in reversed order, and frequent words frequent."""
    rng = np.random.default_rng(0)
    rows = (size * rng.random((n, 6)) ** 2).astype(int)
    return [(" ".join(f"e{w}" for w in row) + ".", " ".join(f"F{w}" for w in row[::-1]) + "!")
            for row in rows]


def test_the_words_of_a_word_for_word_language_are_found():
    found = learn(made_up())
    right = sum(many[0] == f"f{word[1:]}" for word, many in found.items())
    assert len(found) >= 38 and right == len(found)


def test_one_iteration_is_what_one_can_compute_by_hand():
    # "a b" / "x y": every target word comes from the empty word, a or b with 1/3 each, then p(x|a) = 1/2
    links, p = translation_probabilities([np.array([1, 2])], [np.array([1, 2])], iterations=1)
    assert links.tolist() == [s << 32 | t for s in (0, 1, 2) for t in (1, 2)] and np.allclose(p, 1 / 2)
    # and with "a" / "x": x comes from a with 1/3 + 1/2, y with 1/3
    both = [np.array([1, 2]), np.array([1])]
    links, p = translation_probabilities(both, both, iterations=1)
    x_of_a, y_of_a = 1 / 3 + 1 / 2, 1 / 3
    assert dict(zip(links.tolist(), p))[1 << 32 | 1] == pytest.approx(x_of_a / (x_of_a + y_of_a))


def test_probabilities_of_a_word_add_up_to_one():
    numbers = [np.array([int(w[1:]) + 1 for w in a[:-1].split()]) for a, _ in made_up(50)]
    links, p = translation_probabilities(numbers, numbers[::-1])
    assert np.allclose(np.bincount(links >> 32, p)[np.unique(links >> 32)], 1)


def test_rare_words_and_nothing_at_all_are_not_learned():
    assert learn([]) == {} and learn([("a b", "x y")] * 4) == {} and learn([("", "")]) == {}


def test_the_three_likeliest_translations_are_kept_best_first():
    counts = dict(x=6, y=8, z=5, w=10)
    assert learn([("a", word) for word, n in counts.items() for _ in range(n)]) == dict(a=["w", "y", "x"])


def test_both_directions_must_be_likely():
    many = [f"m{i}" for i in range(20)]
    assert learn([(word, "x") for word in many] * 5) == {}                    # p(word | x) is 1 / 20
    assert learn([("a", word) for word in many] * 5) == {}                    # p(word | a) is 1 / 20
    assert len(learn([(word, "x") for word in many[:5]] * 5)) == 5


def test_pairs_may_come_from_an_iterator():
    assert learn(iter(made_up())) == learn(made_up())


# --- the choice of words ------------------------------------------------------------------------------------

ENGLISH = WordCounts(["The dog sees two dogs.", "Two men see the dog", "He sees. The dog runs"])
GERMAN = WordCounts(["Der Hund sieht zwei Hunde.", "Zwei Männer sehen den Hund", "Rot Kreuz"])


def test_words_are_spelled_as_inside_sentences():
    assert [ENGLISH.spell(w) for w in ("the", "two", "he", "cat")] == ["the", "two", "He", None]
    assert GERMAN.spell("hund") == "Hund" and GERMAN.spell("rot kreuz") == "Rot Kreuz"
    assert GERMAN.spell("rot-blau") is None and ENGLISH.count["the"] == 3


def test_vowel_signs_are_part_of_a_word():
    hindi = WordCounts(["हिन्दी एक भाषा है।"] * 5)
    assert list(hindi.count) == ["हिन्दी", "एक", "भाषा", "है"] and hindi.spell("हिन्दी") and not hindi.spell("हिन्द")
    assert WORD.findall("ดีมาก (ที่นี่)") == ["ดีมาก", "ที่นี่"]
    thai = WordCounts(["แมวดำนอนที่นี่"], {"แมว", "ดำ", "ที่", "นี่"})
    assert [thai.count[word] for word in ("แมว", "ดำ", "ที่", "นี่")] == [1] * 4 and thai.spell("ที่") == "ที่"


def test_a_translation_without_any_word_is_not_of_the_text():
    assert [GERMAN.spell(phrase) for phrase in ("—", "...", "-")] == [None] * 3 and GERMAN.spell("hund!!") == "Hund!!"


def test_an_emoji_is_no_word():
    assert WORD.findall("I ❤️ you") == ["I", "you"]


def test_the_words_after_many_dots_with_spaces_are_counted():
    """A search that looked at all later dots from each dot would take minutes here."""
    dots = WordCounts(["a " + ". " * 50_000 + "Then a then"])
    assert dots.count == dict(a=2, then=2)


def test_a_pair_that_is_too_long_is_not_read(monkeypatch):
    monkeypatch.setattr(dictionaries, "MOST_LINKS", 100)
    short, long = [("dog", "hund")] * 9, ("dog " * 20, "katze " * 20)
    assert dictionaries.learn([*short, long]) == dict(dog=["hund"]) and dictionaries.learn([long, *short]) == {}


def test_pairs_whose_words_never_occur_are_dropped_and_counted():
    entries = dict(dog=["hund", "köter"], see=["sehen"], two=["zwei"], cat=["katze", "kater"], men=["herren"])
    selected, dropped = select(entries, ENGLISH, GERMAN)
    # an English phrase is not a word of the text
    assert select(entries | {"two dogs": ["hunde"]}, ENGLISH, GERMAN) == (selected, dropped + 1)
    assert selected == dict(dog=["Hund"], two=["zwei"], see=["sehen"]) and dropped == 4
    assert list(selected) == ["dog", "two", "see"]                            # frequent words first
    assert coverage(selected, ENGLISH) == pytest.approx(6 / 15)


def test_contractions_are_words_and_both_apostrophes_are_one(tmp_path):
    english = WordCounts(["Tom DON’T say that we don’t.", "We don’t see Don, don't we?", "It's the dog's."])
    assert english.count["don't"] == 4 and english.spell("don't") == "don’t" and english.count["don"] == 1
    assert english.count["it's"] == english.count["dog's"] == 1 and "s" not in english.count
    french = WordCounts(["Voici l'eau et L’EAU."])
    assert french.count["eau"] == french.count["l"] == 2                      # an article is a word of its own
    entries = read(write(tmp_path / "a.txt", "don't niet", "Don don", "It’s het", "DON’T geen"))
    assert entries == {"don't": ["niet", "geen"], "don": ["don"], "it's": ["het"]}
    selected, dropped = select(entries, english, WordCounts(["niet geen don het"]))
    assert selected == {"don’t": ["niet", "geen"], "Don": ["don"], "It's": ["het"]} and not dropped
    assert coverage(selected, english) == 6 / 15
    found = learn([("we don’t", "wij niet"), ("we", "wij"), ("don't", "niet")] * 5)
    assert found == {"don't": ["niet"], "we": ["wij"]}


# German with its spaces removed: the right words are known.
SENTENCES = ["Der Eisbär frisst das Eis.", "Ein Bär sieht den Hund", "Das Eis ist kalt, der Hund ist alt."]
KNOWN = {"eis", "bär", "eisbär", "hund", "alt", "kalt", "ist", "der", "sieht", "frisst", "den", "das"}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_text_without_spaces_splits_into_the_words_between_its_spaces(sentence):
    split = longest_match(KNOWN | {"ein"})
    assert split(sentence.replace(" ", "")) == WORD.findall(sentence) == split(sentence)


def test_the_longest_word_is_taken_and_unknown_text_is_read_by_character():
    split = longest_match(KNOWN)
    assert split("DerEisbär") == ["Der", "Eisbär"] and split("Eisbecher!") == ["Eis", *"becher"]
    assert split("kaltalt") == ["kalt", "alt"] and split("xaltx") == ["x", "alt", "x"]
    assert longest_match(set())("ab, c’") == ["a", "b", "c"] and longest_match({"don't"})("Don’t") == ["Don’t"]
    assert longest_match({"eis"})("İEisa") == ["i", "eis", "a"]               # lower case of İ is longer


def test_words_of_text_without_spaces_are_counted_spelled_and_selected_by_longest_match():
    text = WordCounts([sentence.replace(" ", "") for sentence in SENTENCES], KNOWN | {"becher"})
    spaced = WordCounts(SENTENCES)
    for word in KNOWN:
        assert text.count[word] == spaced.count[word] > 0
        assert fold(text.spell(word)) == word
    assert text.spell("eisbär") == "Eisbär" and text.spell("hund") == "Hund" and text.spell("becher") is None
    selected, dropped = select(dict(dog=["hund", "becher"], cat=["eis"]), ENGLISH, text)
    assert selected == dict(dog=["Hund"]) and dropped == 2
    # 10 of the 17 characters of the two sentences: "eis" within "eisbär" does not count
    text = WordCounts(["Eisbär, Eis!", "kaltEis?"], {"eisbär", "eis", "kalt"})
    assert coverage(["Eis", "kalt"], text) == 10 / 16


def test_a_word_that_occurs_only_inside_longer_ones_is_dropped():
    chinese = WordCounts(["大狗跑。", "猫跑。"], {"大狗", "狗", "猫", "鸟"})
    assert select(dict(dog=["狗", "大狗"], two=["鸟"]), ENGLISH, chinese) == (dict(dog=["大狗"]), 2)


def test_held_out_words_are_never_trained_on_in_any_language_and_with_any_limit():
    entries = {f"w{i}": [f"t{i}"] for i in range(500)}
    english = WordCounts([" ".join(entries)] * 10)
    other = WordCounts([" ".join(f"t{i}" for i in range(500))] * 5)
    train, held_out = split(entries, english, other, seed=0)
    assert not set(train) & set(held_out) and len(train) + len(held_out) == 500 and 60 < len(held_out) < 140
    assert all(is_held_out(word, 0) for word in held_out) and not any(is_held_out(word, 0) for word in train)
    for word, seed in itertools.product(("Two", "Paris", "Dog"), range(3)):
        assert is_held_out(word, seed) == is_held_out(word.lower(), seed)
    assert split(entries, english, other, seed=1)[1] != held_out
    assert split(entries, english, other, 0, limit=7) == (dict(list(train.items())[:7]), held_out)
    # too rare to ask for, in English or in the other language
    assert split(entries, WordCounts([" ".join(entries)] * 9), other, seed=0) == (train, {})
    rare = WordCounts([" ".join(f"t{i}" for i in range(500))] * 4)
    assert split(entries, english, rare, seed=0) == (train, {})
    joined = "".join(f"t{i}x" for i in range(500))             # and without spaces
    for n, expected in ((5, held_out), (4, {})):
        counts = WordCounts([joined] * n, {f"t{i}" for i in range(500)})
        assert split(entries, english, counts, seed=0) == (train, expected)


def test_a_json_line_of_three_languages_gives_two_translations(tmp_path):
    path = write(tmp_path / "d.jsonl", json.dumps({"words": "bank $ 银行 $ banque"}, ensure_ascii=False))
    assert read(path) == {"bank": ["银行", "banque"]}


def test_accents_of_escaped_json_are_composed(tmp_path):
    line = json.dumps({"words": "apple $ A\u0308pfel"})
    assert "u0308" in line and read(write(tmp_path / "d.jsonl", line)) == {"apple": ["äpfel"]}
