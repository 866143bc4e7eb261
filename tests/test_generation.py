"""What a model writes: scores worked out by hand, and writers that answer as they are told."""
import math

import numpy as np
import pytest

from data import generation, tasks
from data.generation import bleu, rouge_1, share_in, words
from data.synthetic import Item


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
    with pytest.raises(ValueError, match="2 hypotheses for 1 references"):
        bleu(split("a", "b"), split("a"))


def test_rouge_1_of_hand_worked_cases():
    assert rouge_1(split("a b c"), split("a b c")) == 1.0
    assert rouge_1(split("a a b"), split("a c")) == pytest.approx(2 * 1 / (3 + 2))
    assert rouge_1(split("a b", "x"), split("b a", "y")) == pytest.approx(0.5)
    assert rouge_1([[]], split("a")) == 0.0


def test_words_are_token_tuples_so_another_language_has_none_in_common(corpus):
    english, clone = (corpus.encode("Anna saw a strawberry.", name, opening=False)
                      for name in ("en", "clone"))
    assert [w for word in words(corpus, english) for w in word] == english.tolist()
    assert len(words(corpus, english)) == len(words(corpus, clone)) == 5   # the full stop is one
    assert not set(words(corpus, english)) & set(words(corpus, clone))
    assert words(corpus, []) == []


def test_the_share_of_a_language_counts_tokens(corpus):
    V = corpus.base_vocab
    assert share_in(corpus, [[1, V + 1, V + 2], [V - 1]], "clone") == 0.5
    assert share_in(corpus, [[1, V + 1, V + 2], [V - 1]], "en") == 0.5
    assert share_in(corpus, [[], []], "clone") == 0.0


# --- prompts ------------------------------------------------------------------------------------------------

ITEM = Item("question", "lexical", "Who was it? The", ("dog.", "cat."), 1)


def test_an_exchange_is_a_question_with_its_phrase_and_an_answer_with_its_newline(corpus):
    question, answer = tasks.exchange(corpus, ITEM, "en", "clone")
    assert corpus.decode(question) == "Who was it? The Answer in clone:"
    assert corpus.decode(answer) == "⟨cat.\n⟩" and (answer >= corpus.base_vocab).all()
    question, answer = tasks.exchange(corpus, ITEM, "reversed", "en", tasks.TRANSLATE)
    assert corpus.decode(question) == "⟨it was Who? The English into Translate:⟩"
    assert corpus.decode(answer) == "cat.\n"
    assert corpus.decode(tasks.exchange(corpus, ITEM, "en", "en", tasks.EQUALS)[0]) == "Who was it? The ="


def test_a_prompt_is_one_document_of_solved_items_and_a_question(corpus):
    solved = Item("question", "lexical", "Who?", ("Anna.", "Ben."), 0)
    tokens = tasks.prompt(corpus, ITEM, "clone", "en", [solved])
    assert tokens[0] == corpus.base_vocab and (tokens % corpus.base_vocab == 0).sum() == 1
    # the separator is not shown
    assert corpus.decode(tokens) == ("⟨Who? Answer in English:⟩ Anna.\n "
                                     "⟨Who was it? The Answer in English:⟩")


@pytest.mark.parametrize("keys", [[("translate", "contextual")], [("summary", "contextual")],
                                  generation.ONE_ANSWER])
def test_solved_examples_never_contain_the_item_itself(corpus, keys):
    test, dev = generation.splits(corpus, 30, *keys)
    assert len(test) == 30 and not {item.prompt for item in test} & {item.prompt for item in dev}
    for i, item in enumerate(test):
        solved = tasks.demonstrations(dev, 5, i, 0)
        assert len(set(solved)) == 5 and item.prompt not in {d.prompt for d in solved}


# --- what goes into summary.json ----------------------------------------------------------------------------

class Writer:
    """Writes the right answer after every prompt, changed by `change`; remembers what it was asked for."""

    def __init__(self, corpus, change=lambda answer: answer):
        self.corpus, self.change, self.answers, self.asked = corpus, change, {}, []
        for keys in ([("translate", "contextual")], [("summary", "contextual")], generation.ONE_ANSWER):
            test, _ = generation.splits(corpus, 12, *keys)
            form = tasks.TRANSLATE if keys[0][0] == "translate" else tasks.ANSWER
            for asked, told in generation.directions(corpus):
                for item in test:
                    question, answer = tasks.exchange(corpus, item, asked, told, form)
                    self.answers[tuple(question.tolist())] = answer.tolist()

    def __call__(self, prompts, max_new_tokens, stop):
        self.asked.append((len(prompts), max_new_tokens, max(map(len, prompts))))
        found = []
        for prompt in prompts:
            [right] = [a for q, a in self.answers.items() if tuple(prompt[-len(q):]) == q]
            answer = self.change(right)
            found.append(answer[:next(i for i, token in enumerate(answer) if token in stop)][:max_new_tokens])
        return found


def test_a_perfect_writer_is_perfect_in_every_language(corpus):
    writer = Writer(corpus)
    found = generation.measured(writer, corpus, 12, 0, 256)
    pairs = {f"{a}-{b}" for a, b in generation.directions(corpus)}
    assert len(pairs) == 6 and "en-reversed" in pairs and "clone-reversed" not in pairs
    assert all(set(by_pair) == pairs for by_pair in found.values())
    assert set(found) == {"translation", "summary_rouge1", "answer_language", "answer_right"}
    for pair in pairs:
        assert found["translation"][pair]["0"] == pytest.approx(100)
        assert found["summary_rouge1"][pair] == 1.0
        assert found["answer_language"][pair] == found["answer_right"][pair] == {"0": 1.0, "1": 1.0}
    assert all(n <= 128 and longest + new <= 256 for n, new, longest in writer.asked)


def test_the_right_words_in_the_wrong_language_count_for_nothing(corpus):
    V = corpus.base_vocab
    writer = Writer(corpus, lambda answer: [t % V if t >= V else t + V for t in answer])
    found = generation.measured(writer, corpus, 12, 0, 256)
    assert found["translation"]["en-clone"]["0"] == found["summary_rouge1"]["en-clone"] == 0.0
    assert found["answer_language"]["clone-en"] == found["answer_right"]["clone-en"] == {"0": 0.0, "1": 0.0}


def test_what_does_not_fit_into_the_context_is_not_measured(corpus):
    many, few, none = (generation.measured(Writer(corpus), corpus, 12, 0, n) for n in (1000, 100, 10))
    assert list(many["translation"]["en-clone"]) == ["0", "1", "5", "10"]
    assert list(few["translation"]["en-clone"]) == ["0"] and none == {}


def test_what_comes_after_the_first_sentence_is_not_scored(corpus):
    more = corpus.encode("and so on, without an end.", "en", opening=False).tolist()
    writer = Writer(corpus, lambda answer: answer + more)
    found = generation.measured(writer, corpus, 12, 0, 256)
    assert found["answer_right"]["clone-en"] == {"0": 1.0, "1": 1.0}
    assert np.isclose(found["translation"]["en-clone"]["0"], 100)
