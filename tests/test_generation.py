"""Generated text: scores worked out by hand, and models that answer as they are told."""
import math
from types import SimpleNamespace

import numpy as np
import pytest

from data import tasks
from data.corpus import Corpus
from data.folder import SPLITS
from data.lab import generation
from data.lab.generation import Identifier, bleu, rouge_1, split_words, token_share
from data.tasks import ANSWER, TRANSLATE
from test_measures import SENTENCES, build, clones, german, real, tiny  # noqa: F401 (two are fixtures)


def split(*texts):
    return [text.split() for text in texts]


# --- scores -------------------------------------------------------------------------------------------------

def test_bleu_of_the_reference_itself_is_100_and_without_a_common_word_0():
    texts = split("the cat sat on the mat", "a dog ran")
    assert bleu(texts, texts) == pytest.approx(100)
    assert bleu(split("x y z u v"), split("a b c d e")) == 0.0
    assert bleu([[]], split("a b c")) == 0.0


def test_bleu_of_a_hand_worked_case():
    # c = r = 6: 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples; from n = 2 on one is added
    found = bleu(split("the cat sat on a mat"), split("the cat sat on the mat"))
    assert found == pytest.approx(100 * (5 / 6 * (3 + 1) / (5 + 1) * (2 + 1) / (4 + 1) * (1 + 1) / (3 + 1))
                                  ** .25)


def test_bleu_counts_a_word_at_most_as_often_as_the_reference_has_it():
    # 2 of 7 words; no pair, triple or quadruple: 1 of 6 + 1, 5 + 1, 4 + 1
    found = bleu(split("the the the the the the the"), split("the cat is on the mat now"))
    assert found == pytest.approx(100 * (2 / 7 * 1 / 7 * 1 / 6 * 1 / 5) ** .25)


def test_bleu_punishes_what_is_too_short_but_not_what_is_too_long_twice():
    # every n-gram is right, c = 4, r = 8
    assert bleu(split("a b c d"), split("a b c d e f g h")) == pytest.approx(100 * math.exp(1 - 8 / 4))
    # c = 8 > r = 4: no penalty but precision: 4/8, (3 + 1)/(7 + 1), (2 + 1)/(6 + 1), (1 + 1)/(5 + 1)
    found = bleu(split("a b c d e f g h"), split("a b c d"))
    assert found == pytest.approx(100 * (4 / 8 * 4 / 8 * 3 / 7 * 2 / 6) ** .25)


def test_bleu_adds_counts_over_the_corpus_before_it_divides():
    # words 4 + 0 of 4 + 4; pairs 3 of 6, triples 2 of 4, quadruples 1 of 2, one added to each from pairs on
    found = bleu(split("a b c d", "x x x x"), split("a b c d", "e f g h"))
    assert found == pytest.approx(100 * (4 / 8 * 4 / 7 * 3 / 5 * 2 / 3) ** .25)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        bleu(split("a", "b"), split("a"))


def test_rouge_1_of_hand_worked_cases():
    assert rouge_1(split("a b c"), split("a b c")) == 1.0
    assert rouge_1(split("a a b"), split("a c")) == pytest.approx(2 * 1 / (3 + 2))
    assert rouge_1(split("a a a"), split("a a c d e")) == pytest.approx(2 * 2 / (3 + 5))
    assert rouge_1(split("a b", "x", "z"), split("b a", "y", "w x y z")) == pytest.approx((1 + 0 + 2 / 5) / 3)
    assert rouge_1([[]], split("a")) == 0.0 and rouge_1([[]], [[]]) == 0.0


def test_words_are_token_tuples_so_another_language_has_none_in_common(clones):
    english, clone = (clones.encode("Anna saw a strawberry.", name, separator=False)
                      for name in ("en", "clone"))
    [one, two] = split_words(clones, [english, english[:1]], "en")
    [other] = split_words(clones, [clone], "clone")
    assert [w for word in one for w in word] == english.tolist() and two == one[:1]
    assert len(one) == len(other) == 5                         # the full stop is one
    assert not set(one) & set(other)
    assert split_words(clones, [[], []], "clone") == [[], []]


def test_languages_without_spaces_are_compared_by_characters():
    corpus = SimpleNamespace(meta=dict(spaces=dict(zh=False)), decode=lambda tokens: "".join(tokens))
    assert split_words(corpus, [["狗在", " 公园"]], "zh") == [["狗", "在", "公", "园"]]


# --- the language of a text ---------------------------------------------------------------------------------

def corpus_of(texts, spaces=True):
    """A corpus whose documents are given and whose tokens are words."""
    return SimpleNamespace(
        languages=list(texts), meta=dict(spaces={name: name != "zh" for name in texts}), decode=" ".join,
        documents=lambda name, split, n: texts[name] if (split, n) == ("train", 200_000) else None)


def test_the_identifier_leaves_out_words_that_both_languages_have():
    identifier = Identifier(corpus_of(dict(en=["the dog in the park", "a dog"],
                                           de=["der Hund in der Park", "ein Hund"])))
    assert identifier.owner["dog"] == "en" and identifier.owner["der"] == "de"
    assert "in" not in identifier.owner and "park" not in identifier.owner
    texts = [["The", "dog", "in"], ["der", "park", "xyz"]]
    assert identifier.share(texts, "de") == pytest.approx(1 / 3)
    assert identifier.share(texts, "en") == pytest.approx(2 / 3)
    assert identifier.share([["in", "park"]], "de") == identifier.share([], "de") == 0.0


def test_a_word_belongs_to_a_language_that_has_it_three_times_as_often():
    # with half a word added to each count, and as many words in both: 3.5 / 1.5 < 3 <= 4.5 / 1.5
    texts = {name: [" ".join(["one"] * ones + ["two"] * twos + ["other"] * (9 - ones - twos))]
             for name, ones, twos in (("en", 3, 4), ("de", 1, 1))}
    owner = Identifier(corpus_of(texts)).owner
    assert "one" not in owner and owner["two"] == "en"
    # nine times as much text has a word nine times as often: it belongs to neither language
    texts = dict(en=["word other"], de=["word thing"] * 9)
    assert "word" not in Identifier(corpus_of(texts)).owner


def test_a_language_without_spaces_is_identified_by_characters():
    identifier = Identifier(corpus_of(dict(en=["the dog"] * 3, zh=["狗在公园"] * 3)))
    assert identifier.owner["狗"] == "zh" and identifier.owner["dog"] == "en"
    assert identifier.share([["公园在狗", "the"]], "zh") == pytest.approx(4 / 5)
    # the letters of an unknown word are no words of a language with spaces
    identifier = Identifier(corpus_of(dict(en=["the a dog"] * 3, zh=["狗在公园"] * 3)))
    assert identifier.owner["a"] == "en" and identifier.share([["公园", "banana"]], "zh") == 1.0


def test_the_identifier_knows_the_languages_of_the_folder(real):
    identifier = Identifier(real)
    for name, other, text in (("en", "de", str), ("de", "en", german)):
        texts = [real.encode(text(s), name, separator=False) for s in SENTENCES]
        assert identifier.share(texts, name) == 1.0 and identifier.share(texts, other) == 0.0


def test_the_share_of_a_clone_counts_tokens(clones):
    V = clones.base_vocab
    assert token_share(clones, [[1, V + 1, V + 2], [V - 1]], "clone") == 0.5
    assert token_share(clones, [[0, V, 2 * V - 1], [2 * V]], "clone") == 0.5
    assert token_share(clones, [[1, V + 1, V + 2], [V - 1], []], "en") == 0.5
    assert token_share(clones, [[], []], "clone") == token_share(clones, [], "en") == 0.0


# --- prompts and answers ------------------------------------------------------------------------------------

class Writer:
    """Takes the place of model.generate: writes the answer of a prompt's question, changed by `change`.

    `asked` keeps (number of prompts, most new tokens, longest prompt), `prompts` all prompts.
    """

    def __init__(self, corpus, change=lambda answer: answer):
        self.change, self.answers, self.asked, self.prompts = change, {}, [], []
        for task in ("translate", "summary", "coreference", "question"):
            for other in corpus.languages[1:]:
                for item in corpus.items(task, "test", 99, language=other):
                    for asked, answered in (("en", other), (other, "en")):
                        form = TRANSLATE if task == "translate" else ANSWER
                        question, answer = tasks.format_example(corpus, item, asked, answered, form)
                        self.answers[tuple(question.tolist())] = answer.tolist()

    def __call__(self, model, prompts, max_new_tokens, temperature, stop):
        assert temperature == 0
        self.asked.append((len(prompts), max_new_tokens, max(map(len, prompts))))
        self.prompts += prompts
        found = []
        for prompt in prompts:
            [right] = {tuple(a) for q, a in self.answers.items() if tuple(prompt[-len(q):]) == q}
            answer = self.change(list(right))
            end = next(i for i, token in enumerate(answer) if token in stop)
            found.append(answer[:end][:max_new_tokens])
        return found


@pytest.fixture
def write(monkeypatch):
    def install(writer):
        monkeypatch.setattr(generation, "generate", writer)
        return writer
    return install


def model(context_len):
    return SimpleNamespace(config=SimpleNamespace(context_len=context_len))


PAIRS = {"en-clone", "clone-en", "en-reversed", "reversed-en"}


def test_a_perfect_writer_is_perfect_in_every_direction(clones, write):
    writer = write(Writer(clones))
    found = generation.generated_text(model(400), clones, 6, 0)
    assert set(found) == {"translation", "summary_rouge1", "answer_language", "answer_right"}
    assert all(set(by_direction) == PAIRS for by_direction in found.values())
    for direction in PAIRS:
        assert found["translation"][direction] == {k: pytest.approx(100) for k in ("0", "1", "5", "10")}
        assert found["summary_rouge1"][direction] == 1.0
        assert found["answer_language"][direction] == found["answer_right"][direction] == {"0": 1.0, "1": 1.0}
    assert all(longest + new <= 400 for _, new, longest in writer.asked)
    assert {n for n, _, _ in writer.asked} == {6}
    passages = [item.prompt for item in clones.items("summary", "test", 6)]
    shown = [clones.decode(prompt) for prompt in writer.prompts]
    shown = [text for text in shown if text.endswith("Answer in clone:") and any(p in text for p in passages)]
    assert [text.count("Answer in clone:") for text in shown] == [2] * 6   # a demonstration and the question


def test_the_right_words_in_the_wrong_language_count_for_nothing(clones, write):
    V = clones.base_vocab
    write(Writer(clones, lambda answer: [token % V if token >= V else token + V for token in answer]))
    found = generation.generated_text(model(400), clones, 6, 0)
    assert found["translation"]["en-clone"]["0"] == found["summary_rouge1"]["en-clone"] == 0.0
    assert found["answer_language"]["clone-en"] == found["answer_right"]["clone-en"] == {"0": 0.0, "1": 0.0}


def test_an_answer_is_right_to_the_last_token_and_may_be_in_the_language_without_being_right(clones, write):
    write(Writer(clones, lambda answer: [answer[0]] + answer))             # the first token twice
    found = generation.generated_text(model(400), clones, 6, 0)
    assert found["answer_right"]["en-clone"] == {"0": 0.0, "1": 0.0}
    assert found["answer_language"]["en-clone"] == {"0": 1.0, "1": 1.0}
    assert 0 < found["summary_rouge1"]["en-clone"] < 1 and 0 < found["translation"]["en-clone"]["0"] < 100


def translations(corpus, context_len, ks, seed=0):
    """Three items in every direction: -> list of (direction, language, k, outputs, references)."""
    kinds = [("translate", None)]
    return list(generation.every_direction(model(context_len), corpus, kinds, ks, 3, seed, TRANSLATE))


def questions(corpus, split, n):
    items = [corpus.items(task, split, n, "lexical") for task in ("coreference", "question")]
    return items[0] + items[1]


def test_some_of_the_answers_are_right(clones, write):
    answers = [item.candidates[item.answer] for item in questions(clones, "test", 3)]
    wrong, right = (clones.encode(text, "en", separator=False).tolist() for text in ("Tom.", answers[0]))
    write(Writer(clones, lambda answer: answer if answer[:len(right)] == right else wrong))
    found = generation.generated_text(model(400), clones, 6, 0)["answer_right"]["clone-en"]["0"]
    assert found == answers.count(answers[0]) / 6 and 0 < found < 1


def test_prompts_ask_in_one_language_for_the_other_after_validation_examples(clones, write):
    writer = write(Writer(clones))
    dev, items = clones.items("translate", "val", 50), clones.items("translate", "test", 3)
    found = translations(clones, 400, (0, 2))
    assert [tuple(some[:3]) for some in found[:4]] == [
        ("en-clone", "clone", 0), ("en-clone", "clone", 2), ("clone-en", "en", 0), ("clone-en", "en", 2)]
    for _, _, _, outputs, references in found:
        assert outputs == references and len(outputs) == 3     # in the order of the items, not by length
    for item, reference in zip(items, found[0][4]):
        assert clones.decode(reference) == "⟨" + item.candidates[0].removesuffix(".") + "⟩"
    assert {prompt[0] for prompt in writer.prompts[:6]} == {0}             # the English separator
    shown = {clones.decode(prompt) for prompt in writer.prompts[3:6]}
    for text in shown:                                         # English questions, answers of the clone
        assert text.count("Translate into clone:") == 3 and text.count("⟨") == 2
        assert sum(item.prompt in text for item in dev) == 2
        assert sum(text.endswith(f"{item.prompt} Translate into clone:") for item in items) == 1
    assert len({text.rsplit("\n", 1)[0] for text in shown}) == 3          # each item has its own examples
    first = list(writer.prompts)
    writer.prompts.clear()
    translations(clones, 400, (0, 2), seed=1)
    assert writer.prompts != first


def test_items_and_examples_are_shared_evenly_by_the_kinds_of_questions(clones, write):
    writer = write(Writer(clones))
    found = next(generation.every_direction(model(400), clones, generation.ONE_ANSWER, (1,), 6, 0))
    answers = [item.candidates[item.answer].removesuffix(".") for item in questions(clones, "test", 3)]
    assert [clones.decode(tokens) for tokens in found[4]] == [f"⟨{answer}⟩" for answer in answers]
    everything = next(generation.every_direction(model(400), clones, generation.ONE_ANSWER, (0,), 60, 0))
    assert len(everything[3]) == len(questions(clones, "test", 99)) == 16  # lexical ones alone
    dev = {item.prompt for item in questions(clones, "val", 99)}
    for prompt in writer.prompts[:6]:
        assert sum(text in clones.decode(prompt) for text in dev) == 1


def test_prompts_that_do_not_fit_into_the_context_are_not_measured(clones, write):
    write(Writer(clones))
    many, few, none = (generation.generated_text(model(n), clones, 6, 0) for n in (400, 110, 10))
    assert list(many["translation"]["en-clone"]) == ["0", "1", "5", "10"]
    assert list(few["translation"]["en-clone"]) == ["0", "1"] and none == {}


def test_a_prompt_may_fill_the_context_to_the_last_token(clones, write):
    writer = write(Writer(clones))
    references = translations(clones, 400, (0,))[0][4]
    _, new, longest = writer.asked[0]
    assert new == max(map(len, references)) + 4
    assert translations(clones, longest + new, (0,))[0][0] == "en-clone"
    others = translations(clones, longest + new - 1, (0,))
    assert "en-clone" not in {direction for direction, *_ in others}


def test_text_after_the_first_sentence_is_not_scored(clones, write):
    more = clones.encode("and so on, without an end.", "en", separator=False).tolist()
    write(Writer(clones, lambda answer: answer + more))
    found = generation.generated_text(model(400), clones, 6, 0)
    assert found["answer_right"]["clone-en"] == {"0": 1.0, "1": 1.0}
    assert np.isclose(found["translation"]["en-clone"]["0"], 100)


def test_real_languages_are_measured_by_their_translations(real, write):
    writer = write(Writer(real))
    found = generation.generated_text(model(400), real, 7, 0)
    assert set(found) == {"translation", "answer_language", "answer_right"}
    for direction in ("en-de", "de-en"):
        # the folder has no validation pairs, so there is nothing to show
        assert found["translation"][direction] == {"0": pytest.approx(100)}
        assert found["answer_language"][direction] == found["answer_right"][direction] == {"0": 1.0}
    assert set(found["translation"]) == {"en-de", "de-en"} and {n for n, _, _ in writer.asked} == {7}
    # everything is answered in English
    english = real.encode("Anna saw the dog.", "en", separator=False).tolist()
    write(Writer(real, lambda answer: english))
    found = generation.generated_text(model(400), real, 7, 0)["answer_language"]
    assert found == {"en-de": {"0": 0.0}, "de-en": {"0": 1.0}}


def test_a_word_holds_its_vowel_signs():
    identifier = generation.Identifier(SimpleNamespace(languages=[]))
    assert identifier.word.findall("यह किताब है, Müller!") == ["यह", "किताब", "है", "Müller"]


def test_the_language_of_real_words_is_told_by_the_words_even_if_languages_share_no_token(tmp_path, write):
    path = build(tmp_path / "apart", ["en", "de"], True, SPLITS, dict(en=str, de=german), {}, [])
    corpus = Corpus(path)
    V = corpus.base_vocab
    write(Writer(corpus, lambda answer: [token % V for token in answer]))  # German words with English ids
    found = generation.generated_text(model(400), corpus, 5, 0)
    assert found["answer_language"] == {"en-de": {"0": 1.0}, "de-en": {"0": 1.0}}
    assert found["answer_right"] == {"en-de": {"0": 0.0}, "de-en": {"0": 1.0}}


def test_the_model_itself_writes_greedily_until_a_sentence_ends(clones):
    items = clones.items("question", "test", 3, "lexical")
    found, again = (generation.continuations(tiny(clones, 200), clones, items, [], "en", "clone", 0, 0,
                                             batch_size=size) for size in (128, 1))
    assert found == again and len(found[0]) == 3
    assert all(not clones.ends[output].any() for output in found[0])


def test_samples_continue_a_prompt_in_every_language(clones, monkeypatch):
    prompts, model = [], tiny(clones, 200)

    def write(writer, rows, n, **options):
        assert writer is model
        prompts.extend(rows)
        return [clones.encode("red dog.", name, separator=False).tolist() for name in clones.languages]
    monkeypatch.setattr(generation, "generate", write)
    shown = generation.samples(model, clones, "Anna saw the", 0)
    assert shown.splitlines() == ["en: Anna saw the red dog.", "clone: ⟨Anna saw the red dog.⟩",
                                  "reversed: ⟨the saw Anna dog red.⟩"]
    assert prompts == [clones.encode("Anna saw the", name).tolist() for name in clones.languages]
