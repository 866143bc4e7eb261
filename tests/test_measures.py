"""Measures of a model, on two handmade folders and with models that are tables, so that results are known.

`clones` is a small world: English, a clone and a clone with reversed sentences, without a test split.  `real`
has two languages that share one vocabulary, with a test split, a lexicon and captions.
"""
import json
import math
import re
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data import folder as folders, tasks
from data.corpus import Corpus, Dictionary
from data.folder import permute_words
from data.lab import geometry, likelihood, measures, states
from data.tasks import FAMILIES, WITHIN_REACH, Item
from model import GPT, ModelConfig

WORDS = {"Anna": "Änne", "Tom": "Thom", "saw": "sah", "dog": "Hund", "cat": "Katze", "ball": "Bällchen",
         "red": "rot", "old": "alt", "Oslo": "Osloh", "Rome": "Rom", "in": "im", "was": "war", "yes": "ja",
         "no": "nein", "maybe": "vielleicht", "park": "Park"}
SUBJECTS = ["Anna", "Tom", "dog", "cat"]
OBJECTS = ["ball", "park", "Oslo", "Rome", "red dog", "old cat", "red ball"]
SENTENCES = [f"{a} {verb} {b}." for verb in ("saw", "was in") for a in SUBJECTS for b in OBJECTS]      # 56


def german(text):
    """Word by word; a word keeps its full stop."""
    return re.sub(r"\w+", lambda found: WORDS.get(found[0], found[0]), text)


def item(task, prompt, candidates, answer, difficulty="lexical", **more):
    return dict(id="1", task=task, prompt=prompt, candidates=candidates, answer=answer, difficulty=difficulty,
                **more)


def world_items():
    """Yield (split, item): every task of the world, few items each; val and test have different prompts."""
    labels = dict(nli=["yes", "no", "maybe"], paraphrase=["yes", "no"])
    objects = ["ball.", "park.", "Oslo.", "Rome."]
    for split, n, first in (("val", 6, 0), ("test", 8, 20), ("train", 9, 40)):
        for task in ("nli", "paraphrase", "cause", "ending", "coreference", "question"):
            for difficulty, shift in (("lexical", 0), ("contextual", 1)):
                for i in range(n):
                    candidates = labels.get(task, objects[:2])
                    yield split, item(task, SENTENCES[(first + 2 * i + shift) % 56], candidates,
                                      (i * i + shift) % len(candidates), difficulty)
        for i in range(11 if split == "val" else n):
            passage = f"{SENTENCES[first + i]} {SENTENCES[i]}"
            yield split, item("summary", passage, SENTENCES[i:i + 4], 0, "contextual")
            yield split, item("translate", SENTENCES[first + i], [SENTENCES[first + i], *SENTENCES[30:33]], 0,
                              "contextual")
    for i, told in enumerate(("en", "en", "clone", "both", "en", "clone", "en")):
        yield "test", item("knowledge", f"{SUBJECTS[i % 4]} was in", objects, i % 4, told=told)


def build(path, languages, disjoint, splits, texts, word_order, items, vocab_size=400):
    """Write a folder.  texts: {language: function of a sentence}."""
    path.mkdir()
    everything = [text for name in languages for text in map(texts[name], SENTENCES)]
    tokenizer = folders.train_tokenizer(everything, vocab_size)
    folders.write_text(path / "tokenizer.json", tokenizer.to_str(pretty=True))
    base = tokenizer.get_vocab_size()
    meta = dict(format=folders.FORMAT, languages=languages, new=[], seed=0, base_vocab=base,
                disjoint=disjoint, dtype="uint16", new_vocab={},
                spaces=dict.fromkeys(languages, True), word_order=word_order,
                documents={}, words={}, bytes={}, tokens={})
    for i, name in enumerate(languages):
        for split in splits:
            rng = np.random.default_rng((i, len(split)))
            documents = [texts[name](" ".join(rng.choice(SENTENCES, 3))) for _ in range(40)]
            folders.write_stream(path, f"{name}.{split}", documents, tokenizer, meta, i)
    for name in languages[1:]:
        translate = WORDS.get if name == "de" else str
        words, some = list(WORDS)[:9], SENTENCES[:12]
        folders.write_lines(path / f"dictionary.{name}.tsv", [f"{w}\t{translate(w)}" for w in words])
        folders.write_lines(path / f"pairs.{name}.test.tsv", [f"{s}\t{texts[name](s)}" for s in some])
    folders.write_items(path, items)
    folders.write_meta(path, meta)
    return path


@pytest.fixture(scope="session")
def clones(tmp_path_factory):
    languages = ["en", "clone", "reversed"]
    return Corpus(build(tmp_path_factory.mktemp("measures") / "clones", languages, True, ("train", "val"),
                        dict.fromkeys(languages, str), dict(clone=None, reversed=0), list(world_items())))


def real_items():
    """Yield (split, item) in English and German: captions, and a public task."""
    def both(text):
        return dict(en=text, de=german(text))

    places = ["ball", "park", "Oslo", "Rome"]
    for split, n in (("train", 24), ("val", 4), ("test", 16)):
        for i in range(n):
            # three quarters of the test items are of one class
            answer = i % 4 if split == "train" or i % 4 == 0 else 1
            prompt = f"{SUBJECTS[i % 3]} was in {places[answer]}."
            if split == "train":
                yield split, item("scene", dict(en=prompt), places, answer, "")
            else:
                yield split, item("scene", both(prompt), places, answer, "")
    for i in range(16):
        yield "test", item("pawsx", both(f"{SENTENCES[i]} right?"), ["yes", "no"], i % 2, "")
        yield "test", item("completion", dict(de=german(SENTENCES[i])), dict(de=["ja", "nein", "rot"]), 0, "")


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    path = build(tmp_path_factory.mktemp("measures") / "real", ["en", "de", "xx"], False, folders.SPLITS,
                 dict(en=str, de=german, xx=str.upper), {}, list(real_items()),
                 vocab_size=290)
    folders.write_lines(path / "lexicon.de.tsv",
                        ["Rome\tRom", "in\tim", "was\twar", "was\tist", "park\tPark"])
    folders.write_json(path / "baselines.json", dict(
        tasks=dict(scene=dict(en=dict(n=16), de=dict(n=16), xx=dict(n=0))),
        retrieval=dict(de=dict(n=3), xx=dict(n=3))))
    folders.write_meta(path, json.loads((path / "meta.json").read_text(encoding="utf-8")))
    return Corpus(path, ["en", "de"])


class Table(torch.nn.Module):
    """A model whose state at each level and whose scores for the next token depend on the last token only.

    levels: tables (V, D), that of level 0 first;  scores (V,) the same after every token, or (V, V)
    `seen` keeps the rows that were scored.
    """

    def __init__(self, levels=None, scores=None, vocab_size=None, context_len=64):
        super().__init__()
        size = vocab_size or len(scores if levels is None else levels[0])
        levels = [torch.eye(size)] if levels is None else levels
        self.embed = torch.nn.Embedding.from_pretrained(levels[0])
        self.weight = levels[-1]
        self.levels, self.scores, self.seen = levels, torch.zeros(size) if scores is None else scores, []
        self.config = SimpleNamespace(context_len=context_len, n_layer=len(levels) - 1, vocab_size=size)

    @property
    def head(self):
        return self

    def hidden(self, tokens, max_level=None, segment=None):
        self.seen += tokens.tolist()
        return [level[tokens] for level in self.levels][:None if max_level is None else max_level + 1]

    def forward(self, states):
        """The head: the scores after the token that has these states at the last level."""
        if self.scores.ndim == 1:
            return self.scores.expand(*states.shape[:-1], -1)
        tokens = torch.cdist(states, self.weight).argmin(dim=-1)
        return self.scores[tokens]

    def logits(self, tokens, scored=None):
        states = self.hidden(tokens)[-1]
        return self(states if scored is None else states.flatten(0, 1)[scored])


def preferring(corpus, **texts):
    """Scores that prefer the tokens of a text in each language given: -> (V,)."""
    scores = torch.zeros(corpus.vocab_size)
    for language, text in texts.items():
        scores[torch.from_numpy(corpus.encode(text, language, separator=False))] = 20.0
    return scores


def share_of(items, answer):
    return float(np.mean([item.answer == answer for item in items]))


@pytest.fixture(autouse=True)
def rows_as_in_runs(monkeypatch):
    """conftest.py lets all other tests measure fewer rows."""
    for module in (likelihood, measures):
        monkeypatch.setattr(module, "ROWS", 150)


def config(**changes):
    return SimpleNamespace(**dict(eval_items=8, shots="0", seed=0, n_layer=2, context_len=64, afp_mcl_layer=1,
                                  afp_mcl_pool="last", written_items=0) | changes)


# --- geometry -----------------------------------------------------------------------------------------------

ROWS = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]])               # orthogonal, of different lengths


def angles(*degrees):
    """Rows of the plane at these angles: -> (n, 2)."""
    radians = torch.tensor(degrees).deg2rad()
    return torch.stack((radians.cos(), radians.sin()), dim=1)


def test_retrieval_is_one_for_the_right_order_zero_for_a_cycle_and_a_share_otherwise():
    assert geometry.retrieval(ROWS, 5 * ROWS) == 1.0
    assert geometry.retrieval(ROWS, ROWS.roll(1, dims=0)) == 0.0
    assert geometry.retrieval(ROWS, ROWS[[0, 2, 1]]) == pytest.approx(1 / 3)
    # a tie of k counts 1 / k, whichever row comes first
    assert geometry.retrieval(ROWS, ROWS[[0, 0, 0]]) == pytest.approx(1 / 3)
    assert geometry.retrieval(ROWS[[0, 0, 2]], ROWS[[0, 0, 2]]) == pytest.approx(2 / 3)
    lengths = torch.tensor([[1.0], [9.0]])
    assert geometry.retrieval(lengths.flip(0) * angles(10, 80), lengths * angles(0, 60)) == 1.0


def test_retrieval_depends_on_who_searches():
    # all of the first side are nearest to its own first row; the other way, each finds its pair
    first, second = angles(0, 40, 80), angles(35, 100, 170)
    assert geometry.retrieval(first, second) == pytest.approx(1 / 3)
    assert geometry.retrieval(second, first) == pytest.approx(1 / 3)
    first, second = angles(0, 10, 20), angles(0, 60, 90)
    assert geometry.retrieval(first, second) == pytest.approx(1 / 3)       # all are nearest to the first
    assert geometry.retrieval(second, first) == pytest.approx(2 / 3)       # two are nearest to the last


def test_alignment_is_the_squared_distance_on_the_sphere():
    assert geometry.alignment(ROWS, 5 * ROWS) == pytest.approx(0.0, abs=1e-6)
    assert geometry.alignment(ROWS, -ROWS) == pytest.approx(4.0)
    assert geometry.alignment(ROWS, ROWS.roll(1, dims=0)) == pytest.approx(2.0)
    assert geometry.alignment(angles(0, 0), angles(60, 90)) == pytest.approx((1 + 2) / 2)     # 2 - 2 cos


def test_uniformity_of_equal_opposite_and_orthogonal_rows():
    assert geometry.uniformity(ROWS[[0, 0, 0]]) == pytest.approx(0.0, abs=1e-6)
    assert geometry.uniformity(torch.stack((ROWS[0], -7 * ROWS[0]))) == pytest.approx(-2 * 4)
    assert geometry.uniformity(ROWS) == pytest.approx(-2 * 2)
    assert geometry.uniformity(ROWS[[0, 0, 1]]) == pytest.approx(math.log((1 + 2 * math.exp(-4)) / 3))


def test_self_similarity_of_equal_opposite_and_orthogonal_occurrences():
    kind = torch.tensor([5, 5])
    assert geometry.self_similarity(torch.stack((ROWS[1], 4 * ROWS[1])), kind) == pytest.approx(1.0)
    assert geometry.self_similarity(torch.stack((ROWS[1], -4 * ROWS[1])), kind) == pytest.approx(-1.0)
    assert geometry.self_similarity(ROWS[:2], kind) == pytest.approx(0.0, abs=1e-6)
    # cosines 0.5, 0.5 and -0.5
    assert geometry.self_similarity(angles(0, 60, 120), torch.zeros(3)) == pytest.approx(0.5 / 3)


def test_self_similarity_counts_every_type_once_and_leaves_out_those_that_occur_once():
    # type 5: three equal;  type 6: orthogonal;  type 7: alone
    vectors = ROWS[[0, 0, 0, 0, 1, 2]]
    assert geometry.self_similarity(vectors, torch.tensor([5, 5, 5, 6, 6, 7])) == pytest.approx(
        (1 + 0) / 2, abs=1e-6)


# --- text ---------------------------------------------------------------------------------------------------

def test_log_probs_are_the_log_softmax_of_the_next_token(monkeypatch):
    model = GPT(ModelConfig(50, n_layer=2, n_head=2, d_model=16, context_len=16)).initialise(0)
    tokens = np.random.default_rng(0).integers(0, 50, (3, 9))
    found = likelihood.log_probs(model, tokens)
    wanted = np.random.default_rng(1).random(found.shape) < 0.3
    assert np.allclose(likelihood.log_probs(model, tokens, wanted), np.where(wanted, found, 0), atol=1e-5)
    monkeypatch.setattr(likelihood, "SCORES", 7 * 50)                       # the head for seven positions at a time
    assert np.allclose(likelihood.log_probs(model, tokens), found, atol=1e-5)
    assert np.allclose(likelihood.log_probs(model, tokens, wanted), np.where(wanted, found, 0), atol=1e-5)
    assert found.shape == (3, 8) and found.dtype == np.float32
    for b in range(3):
        for t in range(8):
            scores = model.logits(torch.tensor(tokens[b:b + 1, :t + 1]))[0, -1].tolist()
            by_hand = scores[tokens[b, t + 1]] - math.log(sum(map(math.exp, scores)))
            assert found[b, t] == pytest.approx(by_hand, abs=1e-4)


def test_a_model_without_preferences_has_the_perplexity_of_the_vocabulary(clones, real):
    for corpus, split in ((clones, "val"), (real, "test")):
        V = corpus.vocab_size
        found = likelihood.language_model(Table(vocab_size=V, context_len=16), corpus)
        for name in corpus.languages:
            tokens = len(corpus.streams[name, split])
            texts = corpus.documents(name, split, tokens)
            n_words, n_bytes = (sum(len(text.split()) for text in texts),
                                sum(len(text.strip().encode("utf-8")) for text in texts))
            assert found["perplexity"][name] == pytest.approx(V, rel=1e-4)
            assert found["perplexity_n"][name] == tokens // 17 * 16
            if name != "reversed":                             # decoding leaves its spaces at other places
                assert found["perplexity_per_word"][name] == pytest.approx(V ** (tokens / n_words), rel=1e-3)
                bits = math.log2(V) * tokens
                assert found["bits_per_byte"][name] == pytest.approx(bits / n_bytes, rel=1e-4)


def test_a_diverged_model_has_an_infinite_perplexity(clones):
    with pytest.warns(RuntimeWarning, match="overflow"):
        found = likelihood.language_model(Table(scores=1e4 * unigram(clones), context_len=16), clones)
    assert found["perplexity"]["en"] == found["perplexity_per_word"]["en"] == math.inf


def unigram(corpus, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=corpus.vocab_size)).float()


@pytest.mark.parametrize("which, split", [("clones", "val"), ("real", "test")])
def test_perplexity_is_that_of_the_held_out_stream(request, which, split):
    corpus = request.getfixturevalue(which)
    scores = unigram(corpus)
    found = likelihood.language_model(Table(scores=scores, context_len=16), corpus)
    for name in corpus.languages:
        stream = np.asarray(corpus.streams[name, split])
        rows = stream[:len(stream) // 17 * 17].reshape(-1, 17)[:150, 1:].astype(np.int64)
        loss = -scores.log_softmax(dim=0)[torch.from_numpy(rows)].mean().item()
        assert found["perplexity"][name] == pytest.approx(math.exp(loss), rel=1e-4)


def test_at_most_150_rows_are_read_and_they_are_the_first(clones):
    losses = likelihood.losses_per_token(Table(scores=unigram(clones), context_len=3), clones, "clone", 150)
    assert losses.shape == (150, 3)
    rows = clones.validation_rows("clone", 150, 4)
    by_token = -unigram(clones).log_softmax(dim=0)
    assert np.allclose(losses[:, 0], by_token[torch.from_numpy(rows[:, 1])], atol=1e-5)
    found = likelihood.language_model(Table(scores=unigram(clones), context_len=3), clones)
    assert set(found["perplexity_n"].values()) == {450}


def test_rare_tokens_are_the_rarest_that_make_up_a_tenth_of_the_training_text(clones, monkeypatch):
    stream = np.repeat(np.array([4, 7, 2, 9], np.uint16), [8, 6, 82, 4])
    monkeypatch.setitem(clones.streams, ("en", "train"), stream)
    rare = likelihood.rare_tokens(clones, "en")
    assert rare.shape == (clones.vocab_size,)
    assert rare[[7, 9]].all() and not rare[[2, 4]].any() and rare[5]               # 5 never occurs


def test_the_perplexity_of_rare_tokens_is_of_these_alone(clones):
    rare = likelihood.rare_tokens(clones, "clone")
    scores = torch.where(torch.from_numpy(rare), 0.0, 2.0).repeat(clones.vocab_size, 1)
    found = likelihood.language_model(Table(scores=scores, context_len=16), clones)
    expected = (scores[0].exp().sum()).item()                  # exp(-log p) of a token with the score 0
    assert found["perplexity_of_rare"]["clone"] == pytest.approx(expected, rel=1e-4)
    assert found["perplexity_of_rare"]["clone"] > found["perplexity"]["clone"]


def test_the_perplexity_in_another_order_is_of_english_in_that_order(clones, real):
    # knows exactly which token follows which in English text
    follows = torch.zeros(clones.vocab_size, clones.vocab_size)
    stream = np.asarray(clones.streams["en", "val"]).astype(np.int64)
    follows[stream[:-1], stream[1:]] = 6.0
    model = Table(scores=follows, levels=[torch.eye(clones.vocab_size)], context_len=16)
    found = likelihood.language_model(model, clones)
    rows = clones.validation_rows("en", 150, 17)
    rows = torch.from_numpy(permute_words(rows.reshape(-1), *clones.classes, 4)).view(*rows.shape)
    losses = F.cross_entropy(follows[rows[:, :-1]].transpose(1, 2), rows[:, 1:])
    assert found["perplexity_in_other_order"] == dict(en=pytest.approx(math.exp(losses.item()), rel=1e-4))
    assert found["perplexity_in_other_order"]["en"] > 1.5 * found["perplexity"]["en"]
    found = likelihood.language_model(Table(vocab_size=real.vocab_size, context_len=16), real)
    assert not {"perplexity_in_other_order", "foreign_mass_in_english"} & set(found)


def test_the_probability_of_other_languages_in_english_text(clones):
    V = clones.base_vocab
    after = torch.zeros(3 * V, 3 * V)                          # unlike after a full stop
    [stop] = clones.encode(".", "en", separator=False)[-1:]
    after[stop, :V] = math.log(6)                                          # 6 V : 2 V
    found = likelihood.language_model(Table(levels=[torch.eye(3 * V)], scores=after, context_len=16), clones)
    share = (clones.validation_rows("en", 64, 16) == stop).mean()
    assert 0 < share < 1
    assert found["foreign_mass_in_english"] == pytest.approx(share * 2 / 8 + (1 - share) * 2 / 3, rel=1e-4)


def test_context_states_are_the_final_states_of_tokens_that_are_whole_words(real):
    last = random_table(real, 4)
    model = Table(levels=[last.flip(0), last], context_len=16)
    (middle, vectors), types = states.context_states(model, real, "de", 10, [0, -1])
    rows = real.validation_rows("de", 10, 16)
    whole = [(b, t) for b in range(10) for t in range(15)
             if real.starts[rows[b, t]] and real.starts[rows[b, t + 1]]]
    assert 20 < len(whole) < 100                               # most words have several tokens
    assert types.tolist() == [rows[b, t] for b, t in whole]
    assert torch.equal(vectors, last[types]) and torch.equal(middle, last.flip(0)[types])
    found = states.contextuality(model, real, 0)
    assert found["self_similarity"]["de"] == pytest.approx(1.0)           # these states ignore the context


def test_every_language_has_the_self_similarity_of_its_own_text(clones, monkeypatch):
    vectors, asked = dict(en=angles(0, 90), clone=angles(0, 60), reversed=angles(0, 0)), []

    def context_states(model, corpus, language, n_rows, levels):
        asked.append((n_rows, levels))
        last = vectors[language]
        return torch.stack((angles(0, 0), last)), torch.tensor([5, 6] if language == "reversed" else [5, 5])
    monkeypatch.setattr(states, "context_states", context_states)
    model = Table(vocab_size=clones.vocab_size, context_len=16)
    found = states.contextuality(model, clones, 3)["self_similarity"]
    # none if no type repeats
    assert found == dict(en=pytest.approx(0, abs=1e-6), clone=pytest.approx(0.5))
    assert asked == [(64, [3, -1])] * 3


def test_self_similarity_is_adjusted_by_the_cosine_of_any_two_words_of_the_level(clones, monkeypatch):
    levels = torch.stack((angles(0, 0, 90, 90), angles(0, 0, 0, 0)))           # (2, 4, D)
    monkeypatch.setattr(states, "context_states", lambda *_: (levels, torch.tensor([5, 5, 6, 6])))
    model = Table(vocab_size=clones.vocab_size, context_len=16)
    found = states.contextuality(model, clones, 1)["self_similarity_adjusted"]["clone"]
    # at the middle level, 2 of 6 pairs point one way; at the last one, all do
    assert found == dict(middle=pytest.approx(1 - 2 / 6), last=pytest.approx(0, abs=1e-6))


# --- words --------------------------------------------------------------------------------------------------

def pairs(*words):
    """A dictionary in which token i + 4 translates token i."""
    return Dictionary([((i,), [(i + 4,)]) for i in words])


def test_words_are_compared_at_every_level_and_searched_among_trained_and_held_out_ones():
    own, opposite = torch.eye(4).repeat(2, 1), torch.cat((torch.eye(4), -torch.eye(4)))     # (8, 4) each
    swapped = own[[0, 1, 2, 3, 4, 5, 7, 6]]                           # translations of 2 and 3 are exchanged
    found = states.words(Table([swapped, opposite]), pairs(0, 1), pairs(2, 3), level=0)
    # the third level is the head, here the last table again
    assert found["word_cosine"] == pytest.approx([1, -1, -1])
    assert found["held_out_word_cosine"] == pytest.approx([0, -1, -1])
    assert (found["word_retrieval"], found["held_out_word_retrieval"]) == (1, 0)
    assert found["word_n"] == found["held_out_word_n"] == 2
    stolen = own[[0, 2, 2, 3, 4, 5, 6, 7]]                            # word 1 looks like the held-out word 2
    found = states.words(Table([own, stolen]), pairs(0, 1), pairs(2, 3), level=1)
    assert (found["word_retrieval"], found["held_out_word_retrieval"]) == (0.5, 1)
    assert states.words(Table([own, stolen]), pairs(0, 1), pairs(2, 3), level=0)["word_retrieval"] == 1
    assert set(states.words(Table([own]), pairs(0, 1), None, level=0)) == {
        "word_cosine", "word_retrieval", "word_n"}
    assert states.words(Table([own]), None, None, level=0) == {}


def test_a_word_searches_its_first_translation():
    # token 0 means 4 (near) and 5 (opposite); retrieval looks from the word for the translation
    table = torch.cat((angles(0, 90), angles(10, 95), angles(20, 200)))
    dictionary = Dictionary([((0,), [(4,), (5,)]), ((1,), [(5,)])])
    found = states.words(Table([table]), dictionary, None, 0)
    cosines = [math.cos(math.radians(20)), math.cos(math.radians(110))]
    assert found["word_cosine"][0] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert found["word_retrieval"] == 0.5                             # 90 degrees is nearer to 20 than to 200


def test_words_that_share_a_translation_are_found_by_it():
    """Three English words in the directions of a plane, two of them with the same translation."""
    table = torch.stack([torch.tensor([math.cos(a), math.sin(a)]) for a in (0.0, 1.5, 3.0, 0.1, 1.4)])
    dictionary = Dictionary([((0,), [(3,)]), ((1,), [(4,)]), ((2,), [(4,)])])
    assert states.words(Table([table]), dictionary, None, 0)["word_retrieval"] == 1.0


def test_a_held_out_word_is_right_if_one_of_its_translations_is_nearest(real, monkeypatch):
    # states by word, so that subwords that words have in common do not matter
    others = sorted({g for _, g in real.word_pairs("de")}.union(*real.lexicon("de").values()))
    assert "Rom" in others and "Hund" in others               # those of dictionary and lexicon are candidates
    near = torch.eye(len(others))

    def state(word, is_right):
        """A vector that is nearest to the last translation of an English word, or to a wrong one."""
        right, wrong = real.lexicon("de")[word][-1], next(w for w in others if w not in real.lexicon("de")[word])
        return (9 if is_right else 7) * near[others.index(right)] + 8 * near[others.index(wrong)]

    english = {real.word(word, "en"): state(word, is_right)
               for word, is_right in zip(real.lexicon("de"), [True, False, False, True], strict=True)}
    german = {real.word(word, "de"): (i + 1) * near[i] for i, word in enumerate(others)}
    asked = []

    def word_states(model, tokens, mask, prefix):
        words = [tuple(row[m].tolist()) for row, m in zip(tokens, mask)]
        side = german if len(words) == len(others) else english
        asked.append(side)
        states = torch.stack([side[word] for word in words])
        return torch.stack([states, torch.zeros_like(states)])         # the input embedding, another level
    monkeypatch.setattr(states, "word_states", word_states)
    read, word = [], real.word
    monkeypatch.setattr(real, "word",
                        lambda text, language: read.append((text, language)) or word(text, language))
    found = states.lexicon(Table(vocab_size=9), real)
    chance = np.mean([1, 1, 2, 1]) / len(others)
    assert found["bli"] == dict(de=dict(p1=0.5, n=4, chance=pytest.approx(chance)))
    assert asked == [english, german]
    assert set(read) == {(text, "en") for text in real.lexicon("de")} | {(text, "de") for text in others}


def test_a_folder_without_a_lexicon_has_no_such_measure(clones):
    assert states.lexicon(Table(vocab_size=clones.vocab_size), clones) == dict(bli={})


# --- sentences ----------------------------------------------------------------------------------------------

def random_table(corpus, width=16, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(corpus.vocab_size, width))).float()


def test_a_sentence_is_the_mean_of_its_own_tokens_and_padding_may_be_infinite(clones):
    low, high = random_table(clones), random_table(clones, seed=1)
    high[0] = float("inf")                                     # the token that pads
    texts = [SENTENCES[0], "Anna.", " ".join(SENTENCES[:9])] * 30         # of several batches
    found = states.mean_states(Table([low, high], context_len=20), clones, "clone", texts, 1)
    for row, text in zip(found, texts):
        tokens = clones.encode(text, "clone", separator=False)
        assert torch.allclose(row, high[torch.from_numpy(tokens[:20])].mean(dim=0), atol=1e-5)
    assert len(clones.encode(texts[2], "clone")) > 21          # that one was cut at its end


def test_a_long_sentence_that_is_read_after_a_prefix_fills_the_context_with_it():
    model = GPT(ModelConfig(vocab_size=40, n_layer=1, n_head=2, d_model=16, context_len=8)).initialise(0)
    corpus = SimpleNamespace(prefix=3, n_prefix=1, encode=lambda text, language, separator: np.arange(10, 30)[:int(text)])
    found = states.mean_states(model, corpus, "en", ["20", "2", "7", "8"], 1)
    with torch.no_grad():
        for row, n in zip(found, (7, 2, 7, 7)):                # of 8 tokens the prefix is one
            level = model.hidden(torch.tensor([[3, *range(10, 10 + n)]]))[1]
            assert torch.allclose(row, level[0, 1:].mean(dim=0), atol=1e-5)


def test_sentence_pairs_are_searched_both_ways_in_every_language(real, monkeypatch):
    """Handmade states: English at 0, 10, 20 degrees, German at 0, 60, 90."""
    sides = dict(en=angles(0, 10, 20), de=angles(0, 60, 90))
    asked = []

    def vectors(model, corpus, language, texts, level):
        asked.append((language, level, texts))
        return sides[language]
    monkeypatch.setattr(states, "mean_states", vectors)
    monkeypatch.setattr(states, "PAIRS", 3)
    found = states.sentences(None, real, "sentences", 7)["sentences"]["de"]
    assert found["from_english"] == pytest.approx(1 / 3) and found["to_english"] == pytest.approx(2 / 3)
    distances = [2 - 2 * math.cos(math.radians(d)) for d in (0, 50, 70)]
    assert found["alignment"] == pytest.approx(np.mean(distances), abs=1e-5)
    everyone = [0, 10, 20, 0, 60, 90]
    spread = [math.exp(-2 * (2 - 2 * math.cos(math.radians(a - b))))
              for i, a in enumerate(everyone) for b in everyone[:i]]
    assert found["uniformity"] == pytest.approx(math.log(np.mean(spread)), abs=1e-4)
    assert (found["n"], found["chance"]) == (3, 1 / 3)
    assert asked == [("en", 7, SENTENCES[:3]), ("de", 7, [german(s) for s in SENTENCES[:3]])]


def test_centring_uncovers_pairs_that_an_offset_of_the_language_hides(real, monkeypatch):
    english, other = torch.eye(4), torch.eye(4)
    other[:, 0] += 50.0                                        # all German sentences point the same way,
    english[:, 1] += 50.0                                      # and all English ones another way
    monkeypatch.setattr(states, "mean_states", lambda model, corpus, language, texts, level:
                        english if language == "en" else other)
    monkeypatch.setattr(states, "PAIRS", 4)
    found = states.sentences(None, real, "x", 0)["x"]["de"]
    assert found["centred_from_english"] == found["centred_to_english"] == 1.0
    assert found["to_english"] == found["from_english"] == 0.25           # all find the same sentence
    # centred both ways with unlike results
    sides = dict(en=angles(0, 10, 20, 200), de=angles(0, 60, 90, 230))
    monkeypatch.setattr(states, "mean_states", lambda model, corpus, name, texts, level: sides[name])
    found = states.sentences(None, real, "x", 0)["x"]["de"]
    centred = {name: side - side.mean(dim=0) for name, side in sides.items()}
    both = [geometry.retrieval(centred["en"], centred["de"]),
            geometry.retrieval(centred["de"], centred["en"])]
    assert both[0] != both[1]
    assert [found["centred_from_english"], found["centred_to_english"]] == both


def test_languages_without_pairs_have_no_sentences(real):
    assert set(states.sentences(Table([random_table(real)]), real, "sentences", 0)["sentences"]) == {"de"}
    assert real.meta["languages"] == ["en", "de", "xx"]


def by_language(corpus):
    """A table of states in which the first channel tells the language and the second the token."""
    tokens = torch.arange(corpus.vocab_size)
    return torch.stack((tokens // corpus.base_vocab + 1.0, tokens % corpus.base_vocab / 100), dim=1)


def test_parallel_states_are_those_of_each_language_at_the_level_and_pooling_of_mcl(clones):
    low, high = by_language(clones), -by_language(clones)
    for level, pool, sign in ((0, "last", 1), (1, "last", -1), (1, "mean", -1)):
        cfg = config(afp_mcl_layer=level, afp_mcl_pool=pool)
        vectors = states.parallel_states(Table([low, high]), clones, 5, cfg)
        assert list(vectors) == clones.languages
        for index, (name, found) in enumerate(vectors.items()):
            for row, item in zip(found, clones.items("translate", "test", 5)):
                tokens = torch.from_numpy(clones.encode(item.prompt, name, separator=False))
                wanted = sign * low[tokens]
                assert torch.allclose(row, wanted[-1] if pool == "last" else wanted.mean(dim=0), atol=1e-5)
            assert len(found) == 5 and (found[:, 0] == sign * (index + 1)).all()
    # a long sentence loses its start
    model, cfg = Table([low, high], context_len=2), config(afp_mcl_pool="mean")
    short = states.parallel_states(model, clones, 5, cfg)
    tokens = clones.encode(clones.items("translate", "test", 1)[0].prompt, "clone", separator=False)[-2:]
    assert torch.allclose(short["clone"][0], high[torch.from_numpy(tokens)].mean(dim=0))


def test_states_are_compared_in_the_languages_in_which_all_items_are_available(clones, monkeypatch):
    model = Table([by_language(clones)] * 2)
    some = [Item("translate", "", {"en": "Anna saw Tom.", name: "Anna saw Tom."}, ["x"], 0)
            for name in ("clone", "reversed", "clone")]
    for items, names in ((some[:1], ["en", "clone"]), (some, ["en"]), ([], [])):
        monkeypatch.setattr(clones, "items", lambda *args, items=items: items)
        assert list(states.parallel_states(model, clones, 3, config())) == names


def test_geometry_of_the_states_that_mcl_compares(clones, monkeypatch):
    vectors = dict(en=angles(0, 10, 20), clone=angles(0, 60, 90), reversed=angles(0, 10, 20))
    asked = []
    monkeypatch.setattr(states, "parallel_states",
                        lambda model, corpus, n, cfg: asked.append(n) or dict(vectors))
    found = states.afp_states(None, clones, config())["afp_states"]
    assert asked == [300] and list(found) == ["clone", "reversed"]
    assert found["clone"]["retrieval"] == pytest.approx(1 / 3)            # English searches
    assert found["reversed"]["retrieval"] == 1.0
    assert found["reversed"]["alignment"] == pytest.approx(0, abs=1e-6) and found["clone"]["alignment"] > 0.5
    both = torch.cat((vectors["en"], vectors["clone"]))
    assert found["clone"]["uniformity"] == pytest.approx(geometry.uniformity(both))
    monkeypatch.setattr(states, "parallel_states", lambda *args: {})
    assert states.afp_states(None, clones, config()) == dict(afp_states={})


# --- tasks --------------------------------------------------------------------------------------------------

def test_facts_are_told_apart_by_the_language_that_states_them(clones):
    facts = clones.items("knowledge", "test", 99)
    model = Table(scores=preferring(clones, en="Oslo", clone="ball", reversed="park"))
    found = likelihood.knowledge(model, clones, 99)
    assert found["knowledge_n"] == dict(en=4, clone=2, both=1)
    keys = dict(en="knowledge", clone="knowledge_told_in_clone", both="knowledge_told_in_both")
    for told, key in keys.items():
        some = [item for item in facts if item.told == told]
        assert found[key]["en"] == share_of(some, 2) and found[key]["clone"] == share_of(some, 0)
    assert likelihood.knowledge(model, clones, 2)["knowledge_n"] == dict(en=2, clone=2, both=1)


def test_facts_are_right_by_the_whole_probability_and_not_per_token(clones, monkeypatch):
    monkeypatch.setattr(likelihood, "score",
                        lambda *args, **options: dict(accuracy=1.0, per_token=0.0))
    found = likelihood.knowledge(Table(vocab_size=clones.vocab_size), clones, 99)
    assert found["knowledge"]["en"] == found["knowledge_mixed"]["en-clone"] == 1.0


def test_mixed_questions_offer_answers_in_the_other_language(clones):
    facts = [item for item in clones.items("knowledge", "test", 99) if item.told == "en"]
    model = Table(scores=preferring(clones, en="Oslo", clone="ball"))
    found = likelihood.knowledge(model, clones, 99)["knowledge_mixed"]
    assert found == {"en-clone": share_of(facts, 0), "clone-en": share_of(facts, 2)}
    assert found["en-clone"] != found["clone-en"]
    asked = {tuple(row[:2]) for row in model.seen}
    V = clones.base_vocab                                      # prompts of both languages stand before both
    assert {0, V} <= {first for first, _ in asked}
    rows = [row for row in model.seen if row[0] == 0 and any(token >= V for token in row)]
    assert rows                                                # English questions with answers of the clone


def test_accuracy_of_every_task_and_difficulty_in_every_language(clones):
    model = Table(scores=preferring(clones, en="yes", clone="no", reversed="maybe"))
    found = likelihood.in_context(model, clones, 6, [0, 2], 0)
    assert set(found["tasks"]) == {"nli", "paraphrase", "cause", "ending", "coreference", "question",
                                   "summary"}
    assert set(found["tasks"]["nli"]) == {"lexical", "contextual"}
    assert set(found["tasks"]["summary"]) == {"contextual"}
    for difficulty, ks in (("lexical", {"0", "2"}), ("contextual", {"0"})):
        items = clones.items("nli", "test", 6, difficulty)
        for answer, name in enumerate(clones.languages):
            cell = found["tasks"]["nli"][difficulty][name]
            assert set(cell) == ks and all(scores["n"] == 6 for scores in cell.values())
            assert all(scores["accuracy"] == share_of(items, answer) for scores in cell.values())
    assert likelihood.ask(model, clones, "nli", "lexical", "en", 99, [0], 0)["0"]["n"] == 8


def test_a_text_may_have_one_token_more_than_the_context_because_the_last_is_only_predicted(clones):
    items, dev = (clones.items("nli", split, n, "lexical") for split, n in (("test", 3), ("val", 50)))
    longest = max(len(row) for i, found in enumerate(items) for row in tasks.candidate_rows(
        clones, found, "clone", tasks.demonstrations(dev, 2, i, 0))[0])
    def ask(context_len):
        model = Table(vocab_size=clones.vocab_size, context_len=context_len)
        found = likelihood.ask(model, clones, "nli", "lexical", "clone", 3, [2], seed=0)["2"]
        return found.get("cut", 0), max(map(len, model.seen))
    assert ask(longest - 1) == (0, longest - 1)
    cut, width = ask(longest - 2)
    assert cut > 0 and width == longest - 2
    # and so in transfer
    longest = max(len(row) for name, some in clones.test_items("nli", 5, "lexical").items() for found in some
                  for row in tasks.candidate_rows(clones, found, name, (), "en")[0])
    model = Table(vocab_size=clones.vocab_size, context_len=longest - 1)
    likelihood.classify(model, clones, "nli", 5)
    assert max(map(len, model.seen)) == longest - 1


def test_demonstrations_come_from_validation_items_of_the_task_and_difficulty(clones):
    model = Table(vocab_size=clones.vocab_size, context_len=200)
    likelihood.ask(model, clones, "ending", "lexical", "clone", 4, [2], seed=0)
    dev = {item.prompt: item for item in clones.items("ending", "val", 50, "lexical")}
    test = clones.items("ending", "test", 4, "lexical")
    assert not set(dev) & {item.prompt for item in test}
    texts = [clones.decode(row).replace("⟨", "").replace("⟩", "") for row in model.seen]
    orders = set()
    for text in texts:
        lines = text.split("\n")
        assert len(lines) == 3 and any(lines[2].strip().startswith(item.prompt) for item in test)
        solved = [next(item for prompt, item in dev.items() if line.strip().startswith(prompt))
                  for line in lines[:2]]
        assert all(line.strip().endswith(item.candidates[item.answer]) for line, item in zip(lines, solved))
        orders.add(tuple(item.prompt for item in solved))
    assert len(orders) > 1
    # as many demonstrations as there are validation items, and no more
    assert set(likelihood.ask(model, clones, "ending", "lexical", "en", 4, [0, 6, 7], 0)) == {"0", "6"}
    model.seen.clear()
    likelihood.ask(model, clones, "ending", "lexical", "clone", 4, [2], seed=1)
    assert {tuple(row) for row in model.seen} != {tuple(clones.encode(text, "clone")) for text in texts}


def test_averages_are_those_of_their_parts(clones, monkeypatch):
    """Every task, difficulty, language and k has an accuracy of its own."""
    names = clones.task_names()

    def accuracy(task, difficulty, language, k):
        row = names.index(task) * 2 + (difficulty == "contextual")
        return (row * 8 + clones.languages.index(language) * 2 + k) / 200

    def ask(model, corpus, task, difficulty, language, n_items, ks, seed):
        asked.append((task, difficulty, n_items, seed))
        return {str(k): dict(accuracy=accuracy(task, difficulty, language, k)) for k in ks}
    asked = []
    monkeypatch.setattr(likelihood, "ask", ask)
    found = likelihood.in_context(None, clones, 11, [0, 1], 5)
    assert {(n, seed) for _, _, n, seed in asked} == {(11, 5)}
    for name in clones.languages:
        assert found["tasks_average"][name] == pytest.approx(np.mean(
            [accuracy(task, difficulty, name, 0) for task, difficulty in WITHIN_REACH]))
        for k in (0, 1):
            assert found["families_average"][name][str(k)] == pytest.approx(np.mean(
                [accuracy(task, "lexical", name, k) for task in FAMILIES]))
    shifted = likelihood.in_context(None, clones, 11, [1, 2], 5)
    assert shifted["tasks_average"]["en"] == pytest.approx(found["tasks_average"]["en"] + 1 / 200)


def test_answers_are_requested_in_english_or_in_the_language_of_the_item(clones):
    """A phrase in the own language has no token of another one."""
    model, V = Table(scores=preferring(clones, en="yes", clone="no"), context_len=200), clones.base_vocab
    rows = {}
    for instruction in ("en", "clone"):
        model.seen.clear()
        likelihood.ask(model, clones, "nli", "lexical", "clone", 3, [1], 0, instruction=instruction)
        rows[instruction] = [{token // V for token in row if token} for row in model.seen]
    assert all(languages == {1} for languages in rows["clone"])
    assert all(languages == {0, 1} for languages in rows["en"])


def test_instructed_tells_the_two_phrases_apart_and_averages_the_families(clones, monkeypatch):
    def ask(model, corpus, task, difficulty, language, n_items, ks, seed, instruction):
        asked.append((task, difficulty, language, instruction, n_items, seed))
        number = (FAMILIES.index(task) + 10 * clones.languages.index(language)
                  + 100 * clones.languages.index(instruction))
        return {str(k): dict(accuracy=(number + k * 0.5) / 1000) for k in ks}
    asked = []
    monkeypatch.setattr(likelihood, "ask", ask)
    found = likelihood.instructed(None, clones, 7, [0, 1], 3)
    assert len(asked) == len(set(asked)) == 5 * (1 + 2 * 2)
    assert set(asked) == {(task, "lexical", name, phrase, 7, 3) for task in FAMILIES
                          for name in clones.languages for phrase in ("en", name)}
    # the mean of 0 ... 4 is 2
    assert found["instructed_average"]["own"]["reversed"] == {
        "0": pytest.approx(0.222), "1": pytest.approx(0.2225)}
    assert found["instructed_average"]["en"]["reversed"]["0"] == pytest.approx(0.022)
    assert found["instructed_average"]["en"]["en"] == found["instructed_average"]["own"]["en"] == {
        "0": pytest.approx(0.002), "1": pytest.approx(0.0025)}


def test_instructed_needs_all_families(real):
    assert likelihood.instructed(None, real, 7, [0], 0) == {}


def test_public_tasks_are_asked_a_fifth_of_the_items_and_captions_all(real):
    model = Table(scores=preferring(real, en="yes"))
    found = likelihood.in_context(model, real, 12, [0], 0)["tasks"]
    assert {name: found["pawsx"]["text"][name]["0"]["n"] for name in ("en", "de")} == dict(en=3, de=3)
    assert set(found) == {"pawsx", "completion"}               # scene is learned, not asked in context
    assert set(found["completion"]["text"]) == {"de"}          # it has no English items
    assert found["completion"]["text"]["de"]["0"]["n"] == 12
    assert found["pawsx"]["text"]["en"]["0"]["accuracy"] == pytest.approx(2 / 3)
    found = likelihood.in_context(model, real, 2, [0], 0)
    assert {key for key, numbers in found.items() if numbers} == {"tasks"}


def test_chance_is_one_over_the_number_of_candidates(clones, real):
    assert likelihood.chance(clones)["chance"] == dict(
            nli=1 / 3, paraphrase=1 / 2, cause=1 / 2, ending=1 / 2, coreference=1 / 2, question=1 / 2,
            knowledge=1 / 4,
        summary=1 / 4, translate=1 / 4)
    assert likelihood.chance(real)["chance"] == dict(scene=1 / 4, pawsx=1 / 2, completion=1 / 3)


# --- transfer -----------------------------------------------------------------------------------------------

def test_recall_is_the_mean_over_classes():
    assert geometry.recall(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])) == 0.75
    assert geometry.recall(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == 0.75
    assert geometry.recall(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == 0.5


def test_transfer_is_asked_in_every_language_with_english_labels_on_lexical_items(clones):
    model = Table(scores=preferring(clones, en="yes", clone="no", reversed="maybe"))
    found = likelihood.classify(model, clones, "nli", 99)
    items = clones.items("nli", "test", 99, "lexical")
    assert len(items) == 8 and share_of(items, 0) != share_of(clones.items("nli", "test", 99), 0)
    # all prefer "yes": the labels of the clones are never offered
    assert found == dict.fromkeys(clones.languages, share_of(items, 0))
    V = clones.base_vocab
    assert {row[0] // V for row in model.seen} == {0, 1, 2}    # prompts are in the language
    prompts = {clones.decode(row) for row in model.seen if row[0] == V}
    assert all(any(item.prompt in text for item in items) for text in prompts)


def test_transfer_of_unbalanced_classes_is_macro_recall(real):
    model = Table(scores=preferring(real, en="park", de="ball"))
    items = real.items("scene", "test", 99)
    answers = Counter(item.answer for item in items)
    assert answers[1] > 9 and len(answers) >= 2
    found = likelihood.classify(model, real, "scene", 99)
    right = {name: 1 / len(answers) for name in ("en", "de")}  # one class is right, all others are not
    assert found == pytest.approx(right) and share_of(items, 1) > 0.7


def test_transfer_goes_by_the_whole_probability_of_a_label_and_not_per_token(real, clones, monkeypatch):
    def predict(corpus, items, *args, **options):
        answers = np.array([item.answer for item in items])
        return answers, 1 - answers, 0.0
    monkeypatch.setattr(likelihood, "predict", predict)
    assert likelihood.classify(tiny(real), real, "scene", 99) == dict(en=1.0, de=1.0)
    assert set(likelihood.classify(tiny(clones), clones, "nli", 99).values()) == {1.0}


def test_logistic_regression_separates_classes_and_has_a_bias():
    features = torch.tensor([[1.0, 0.0], [2.0, 0.1], [3.0, 0.0], [9.0, 0.2], [8.0, -0.1]])
    for scale in (1.0, 1e-4):                                  # the decay does not depend on it
        classify = geometry.logistic_regression(scale * features, torch.tensor([2, 2, 2, 0, 0]))
        assert classify(scale * features).tolist() == [2, 2, 2, 0, 0]
        assert classify(scale * torch.tensor([[0.0, 0.0], [20.0, 5.0]])).tolist() == [2, 0]


@pytest.mark.parametrize("offset", [3.0, 10.0])
def test_an_offset_of_all_features_moves_the_border_of_logistic_regression_by_as_much(offset):
    features, answers = torch.tensor([0.0] * 7 + [1.0] * 5)[:, None], torch.tensor([0] * 6 + [1] + [0] * 2 + [1] * 3)
    grid = torch.linspace(-1, 2, 301)[:, None]
    here, there = (geometry.logistic_regression(features + by, answers)(grid + by) for by in (0, offset))
    assert 100 < here.sum() < 200 and abs(int(here.sum() - there.sum())) <= 2


def test_a_linear_probe_learns_from_english_captions_and_is_asked_in_every_language(real):
    table = random_table(real, 64)
    found = states.linear_probes(Table([torch.zeros_like(table), table]), real, 99, 1)
    assert found["probe"]["scene"]["en"] == 1.0 and set(found["probe"]) == {"scene"}
    assert set(found["probe"]["scene"]) == {"en", "de"}
    assert found["transfer_n"] == dict(scene=dict(en=16, de=16))
    assert found == states.linear_probes(Table([torch.zeros_like(table), table]), real, 99, 1)
    # the other level says nothing: all items get one class
    model = Table([torch.zeros_like(table) + 1, table])
    guessed = states.linear_probes(model, real, 99, 0)["probe"]["scene"]
    classes = {item.answer for item in real.items("scene", "test", 99)}
    assert guessed["en"] in (0.0, pytest.approx(1 / len(classes)))


def test_a_linear_probe_is_fitted_to_the_training_captions(real, monkeypatch):
    fitted = []

    def logistic_regression(features, answers):
        fitted.append((len(features), answers.tolist()))
        return lambda features: torch.ones(len(features))
    monkeypatch.setattr(states, "logistic_regression", logistic_regression)
    found = states.linear_probes(Table([random_table(real)]), real, 99, 0)["probe"]["scene"]
    assert fitted == [(24, [item.answer for item in real.items("scene", "train", 99)])]
    classes = {item.answer for item in real.items("scene", "test", 99)}
    assert found == dict.fromkeys(("en", "de"), 1 / len(classes))          # macro recall of one class for all


def test_a_linear_probe_is_not_disturbed_by_an_offset_of_the_language(real, monkeypatch):
    rng = np.random.default_rng(0)
    centre, asked = torch.from_numpy(rng.normal(size=(4, 8))).float(), []

    def vectors(model, corpus, language, texts, level):
        asked.append(language)
        answers = [["ball", "Bällchen"], ["park", "Park"], ["Oslo", "Osloh"], ["Rome", "Rom"]]
        which = [next(i for i, names in enumerate(answers) if any(f" {name}." in text for name in names))
                 for text in texts]
        return centre[which] + (40.0 if language == "de" else 0.0)
    monkeypatch.setattr(states, "mean_states", vectors)
    # only the train items are balanced, so the centres of the two differ a little; the classes stay apart
    found = states.linear_probes(None, real, 99, 0)["probe"]["scene"]
    assert found["de"] == found["en"] > 0.5 and asked == ["en", "en", "de"]
    assert states.linear_probes(None, real, 4, 0)["transfer_n"]["scene"] == dict(en=4, de=4)


def test_cosines_are_computed_in_float32_also_under_autocast():
    states = torch.ones(50, 32) + 0.05 * torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    noise = 0.01 * torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    wanted, fit = geometry.retrieval(states, states + noise), geometry.logistic_regression(states, torch.arange(50) % 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert geometry.retrieval(states, states + noise) == wanted > 0.9
        again = geometry.logistic_regression(states, torch.arange(50) % 2)
        assert torch.equal(again(states), fit(states))


# --- training and the log -----------------------------------------------------------------------------------

def test_recovery_reads_the_rise_and_the_excess_of_each_reset_off_the_loss():
    losses = {10: 5.0, 20: 4.0, 30: 6.0, 40: 4.5, 50: 4.25, 60: 3.0, 70: 5.0, 80: 4.0}
    first, second = measures.recovery(losses, [20, 60], delay=30)
    assert first == dict(step=20, before=4.0, rise=2.0, excess=0.25)
    assert second == dict(step=60, before=3.0, rise=2.0)                    # ends before the delay is over
    assert measures.recovery(losses, []) == []
    assert "excess" not in measures.recovery(losses, [20, 40], delay=30)[0]  # step 50 is of the next cycle
    assert measures.recovery({10: 1.0, 30: 3.0, 59: 4.0, 60: 2.0, 61: 9.0}, [10]) == [
        dict(step=10, before=1.0, rise=2.0, excess=1.0)]                    # by default after 50 steps


def test_recovery_has_no_numbers_without_an_entry_at_the_reset_or_for_means_of_too_many_steps():
    losses = {step: float(step) for step in range(10, 90, 10)}
    assert measures.recovery(losses, [5, 22, 80], delay=30) == [dict(step=5), dict(step=22), dict(step=80, before=80.0)]
    losses = {step: step / 100 for step in range(100, 1000, 100)}
    assert measures.recovery(losses, [200, 400]) == [dict(step=200, before=2.0), dict(step=400, before=4.0)]
    losses = {step: step / 50 for step in range(50, 1000, 50)}              # one mean for all 50 steps
    assert measures.recovery(losses, [200]) == [dict(step=200, before=4.0)]
    losses = {step: step / 20 for step in range(20, 1000, 20)}              # no entry after exactly 50 steps
    assert measures.recovery(losses, [200]) == [dict(step=200, before=10.0, rise=1.0)]


def test_measures_of_the_training_itself(real):
    curves = {("pretrain", "lm"): {10: 4.0, 20: 5.0, 50: 4.7, 60: 4.5},
              ("adapt", "val"): {10: dict(en=3.0, de=math.log(8)), 20: dict(en=3.0, de=math.log(4))}}
    stages = dict.fromkeys(["pretrain", "adapt", "align sentences"], 60)
    run = SimpleNamespace(corpus=real, curve=lambda *key: curves[key],
                          cfg=SimpleNamespace(stages=stages, new_language="de", log_items=0))
    found = measures.of_training(run, SimpleNamespace(at=[10]))
    assert found["recovery"] == [dict(step=10, before=4.0, rise=1.0, excess=0.5)]
    assert found["adapt"] == dict(de=dict(perplexity={"10": pytest.approx(8), "20": pytest.approx(4)}))
    run.cfg.stages = dict(pretrain=60)
    assert measures.of_training(run, SimpleNamespace(at=[])) == {}


def test_the_log_has_the_loss_of_validation_text_and_the_cosines_of_translations(real):
    table, scores = random_table(real), unigram(real)
    model, dictionary = Table([table, -table], scores, context_len=8), real.dictionary()
    row = measures.probe(model, real, dictionary, "pretrain", False)
    rows = {n: real.validation_rows("de", n, 9) for n in (16, 150)}
    losses = {n: -scores.log_softmax(dim=0)[torch.from_numpy(r[:, 1:])].mean().item()
              for n, r in rows.items()}
    assert row["val"]["de"] == round(row["val"]["de"], 4) == pytest.approx(losses[16], abs=1e-4)
    last = measures.probe(model, real, dictionary, "pretrain", True)
    assert last["val"]["de"] == pytest.approx(losses[150], abs=1e-4) and set(last["val"]) == {"en", "de"}
    wanted = states.words(model, dictionary, None, 0)["word_cosine"]
    assert row["word_cosine"] == [round(c, 4) for c in wanted] and len(wanted) == 3
    assert set(measures.probe(model, real, dictionary, "align words", False)) == {"word_cosine"}
    assert set(measures.probe(model, real, None, "pretrain", False)) == {"val"}


def test_a_model_that_copies_finds_a_repeated_sequence_cheaper(real, monkeypatch):
    model = SimpleNamespace(config=SimpleNamespace(context_len=8))
    def pairs_cost_less_when_seen(model, rows):
        found = np.full((len(rows), rows.shape[1] - 1), -3.0)
        for i, row in enumerate(rows):
            pairs = list(zip(row, row[1:]))
            found[i] = [-1.0 if pair in pairs[:j] else -3.0 for j, pair in enumerate(pairs)]
        return found
    monkeypatch.setattr(likelihood, "log_probs", pairs_cost_less_when_seen)
    found = likelihood.copying(model, real)
    assert set(found) == {"en", "de"} and all(1 < nats <= 2 for nats in found.values())
    monkeypatch.setattr(likelihood, "log_probs", lambda model, rows: -1.0 * rows[:, 1:])
    assert likelihood.copying(model, real) == dict(en=0, de=0)              # the context plays no role


def test_tasks_are_asked_ten_times_in_pretraining_and_the_answers_reach_the_summary(real):
    table = random_table(real)
    row = measures.probe(Table([table, -table], unigram(real), context_len=8), real, None, "pretrain", False, n_items=3)
    assert set(row) == {"val", "knowledge", "tasks", "copying"} and set(row["copying"]) == {"en", "de"}
    rows = [dict(stage="pretrain", step=10, val={}), dict(row, stage="pretrain", step=20)]
    run = SimpleNamespace(cfg=SimpleNamespace(stages=dict(pretrain=20), log_items=3, new_language=""), rows=lambda: rows)
    found = measures.of_training(run, SimpleNamespace(at=[]))
    assert found == dict(progress={"20": {key: row[key] for key in ("knowledge", "tasks", "copying")}})


def test_the_log_compares_256_words():
    table = torch.cat((torch.ones(300, 1), -torch.ones(300, 1)))
    table[300:556] = 1.0                                       # the first 256 translations agree
    dictionary = Dictionary([((i,), [(300 + i,)]) for i in range(300)])
    corpus = SimpleNamespace(languages=[], prefix=None)
    row = measures.probe(Table([table]), corpus, dictionary, "adapt", False)
    assert row == dict(word_cosine=[1.0, 1.0], val={})


# --- everything ---------------------------------------------------------------------------------------------

WORLD = {"perplexity", "perplexity_per_word", "perplexity_n", "bits_per_byte", "self_similarity",
         "perplexity_of_rare", "self_similarity_adjusted",
         "foreign_mass_in_english", "perplexity_in_other_order", "word_cosine", "word_retrieval", "word_n",
         "held_out_word_n", "held_out_word_cosine", "held_out_word_retrieval", "sentences", "sentences_embedding", "afp_states",
         "knowledge", "knowledge_told_in_clone", "knowledge_told_in_both", "knowledge_mixed", "knowledge_n",
         "tasks", "tasks_average", "families_average", "chance"}
WORLD_ONLY = {"foreign_mass_in_english", "perplexity_in_other_order", "knowledge", "knowledge_told_in_clone",
              "knowledge_told_in_both", "knowledge_mixed", "knowledge_n", "tasks_average", "families_average"}
REAL = WORLD - WORLD_ONLY | {"bli", "probe", "transfer_n", "baselines"}
GENERATED = {"translation", "answer_language", "answer_right"}


def tiny(corpus, context_len=64):
    return GPT(ModelConfig(corpus.vocab_size, 2, 2, 16, context_len)).initialise(0)


def test_all_measures_of_a_world(clones):
    listed, held_out = clones.dictionary().split(0.6, 0)
    cfg = config(written_items=4, shots="2,0")
    found = measures.evaluate_all(tiny(clones), clones, listed, held_out, cfg)
    assert set(found) == WORLD | GENERATED | {"summary_rouge1", "instructed_average"}
    assert "null" not in json.dumps(found) and "NaN" not in json.dumps(found)
    assert list(found["families_average"]["en"]) == ["0", "2"]
    assert list(found["instructed_average"]["own"]["en"]) == ["0", "2"]
    assert found["tasks_average"]["en"] == np.mean(
        [found["tasks"][task][difficulty]["en"]["0"]["accuracy"] for task, difficulty in WITHIN_REACH])
    assert found["sentences_embedding"] != found["sentences"]
    quiet = measures.evaluate_all(tiny(clones), clones, listed, None, config())
    assert set(quiet) == {key for key in WORLD if "held_out" not in key}


def test_evaluation_names_the_measure_under_way_on_a_terminal_unless_it_is_quiet(real, capsys, monkeypatch):
    measures.evaluate_all(tiny(real), real, None, None, config(), quiet=False)             # not a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    measures.evaluate_all(tiny(real), real, None, None, config())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    measures.evaluate_all(tiny(real), real, None, None, config(), quiet=False)
    shown = capsys.readouterr().err
    assert "evaluate language model" in shown and "evaluate linear probes" in shown


def test_all_measures_of_real_languages(real):
    listed, held_out = real.dictionary().split(0.6, 0)
    found = measures.evaluate_all(tiny(real), real, listed, held_out, config(written_items=4))
    assert set(found) == REAL | GENERATED
    assert found["baselines"] == dict(tasks=dict(scene=dict(en=dict(n=16), de=dict(n=16))),
                                      retrieval=dict(de=dict(n=3)))
    bare = measures.evaluate_all(tiny(real), real, None, None, config())
    assert set(bare) == {key for key in REAL if not re.search("word_[crn]", key)}


def test_levels_are_the_middle_one_and_the_embedding(real, monkeypatch):
    asked = []
    monkeypatch.setattr(measures, "sentences",
                        lambda model, corpus, key, level: asked.append((key, level)) or {})
    for name in ("words", "linear_probes"):
        monkeypatch.setattr(measures, name, lambda *args, name=name: asked.append((name, args[3 if name == "words" else -1])) or {})
    model = GPT(ModelConfig(real.vocab_size, 4, 2, 16, 64)).initialise(0)
    measures.evaluate_all(model, real, None, None, config(n_layer=4))
    assert dict(asked) == dict(words=2, linear_probes=2, sentences=2,
                               sentences_embedding=0)


def test_measuring_changes_neither_the_model_nor_the_random_numbers(real):
    model = tiny(real)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    measures.evaluate_all(model, real, real.dictionary(), None, config(written_items=2))
    measures.probe(model, real, real.dictionary(), "pretrain", True)
    likelihood.classify(model, real, "scene", 4)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state[0]) and np.array_equal(np.random.get_state()[1], state[1])


def test_a_model_of_a_disjoint_folder_of_real_languages_is_measured_by_what_the_folder_holds(tmp_path):
    path = build(tmp_path / "apart", ["en", "de"], True, folders.SPLITS, dict(en=str, de=german), {}, [])
    corpus = Corpus(path)
    found = measures.evaluate_all(tiny(corpus), corpus, None, None, config())
    assert set(found) == {"perplexity", "perplexity_per_word", "perplexity_n", "bits_per_byte",
                          "self_similarity", "self_similarity_adjusted", "perplexity_of_rare",
                          "foreign_mass_in_english", "sentences", "sentences_embedding",
                          "afp_states"}
    assert found["foreign_mass_in_english"] == pytest.approx(0.5, abs=0.05)
