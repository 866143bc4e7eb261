"""AFP: states of sentences, the contrastive loss, languages and masked answers, worked out by hand."""
import itertools
import math

import numpy as np
import pytest
import torch

import align
from align import draw_languages, instruction_rows, multilingual_contrast, sentence_states
from model import GPT, IGNORE, ModelConfig, lm_loss


def small_model():
    return GPT(ModelConfig(vocab_size=60, n_layer=2, n_head=4, d_model=32, context_len=16)).initialise(0)


# --- sentences to states ------------------------------------------------------------------------------------

TOKENS = torch.tensor([[5, 6, 7], [8, 0, 0], [9, 10, 0]])                   # 3, 1 and 2 tokens, padded
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize("pool", align.POOLS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_sentence_is_pooled_over_its_own_tokens_only(pool, level):
    model = small_model()
    together = sentence_states(model, TOKENS, MASK, level, pool)
    for i, n in enumerate((3, 1, 2)):
        states = model.hidden(TOKENS[i:i + 1, :n])[level][0]                # (n, D)
        alone = dict(last=states[-1], mean=states.mean(dim=0))[pool]
        assert torch.allclose(together[i], alone, atol=1e-6)


def test_each_pool_of_states_that_can_be_read_off():
    """Level 0 holds rows of the embedding: token t has the state (t, -t, ...)."""
    model = small_model()
    with torch.no_grad():
        t = torch.arange(60.0)
        model.embed.weight.copy_(torch.stack((t, -t), dim=1).repeat(1, 16))
    expected = dict(last=[[7, -7], [8, -8], [10, -10]], mean=[[6, -6], [8, -8], [9.5, -9.5]])
    for pool, rows in expected.items():
        assert sentence_states(model, TOKENS, MASK, 0, pool)[:, :2].tolist() == rows


def test_by_default_the_last_token_after_the_first_block_is_taken_in_float32():
    model = small_model()
    expected = model.hidden(TOKENS)[1][torch.arange(3), torch.tensor([2, 0, 1])]
    assert torch.equal(sentence_states(model, TOKENS, MASK), expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = {sentence_states(model, TOKENS, MASK, 1, pool).dtype for pool in align.POOLS}
    assert found == {torch.float32}


def test_states_of_padding_do_not_matter_even_if_they_are_infinite():
    model = small_model()
    with torch.no_grad():
        model.embed.weight[0] = float("inf")                                # token 0 is the padding
    for pool in align.POOLS:
        assert sentence_states(model, TOKENS, MASK, 0, pool).isfinite().all()


def test_an_attention_sink_is_left_out_of_the_mean():
    model = small_model()
    with torch.no_grad():
        model.embed.weight.copy_(torch.eye(60, 32))                         # each state is of length one
        model.embed.weight[5] *= 10.1                                       # a sink, if it is among others
        model.embed.weight[9] *= 9.9                                        # long, but no sink
    found = sentence_states(model, TOKENS, MASK, 0, "mean")                 # (3, D)
    rows = model.embed.weight
    assert torch.equal(found[0], (rows[6] + rows[7]) / 2)
    assert torch.equal(found[2], (rows[9] + rows[10]) / 2)
    with torch.no_grad():
        model.embed.weight[10] = float("nan")
    assert sentence_states(model, TOKENS, MASK, 0, "mean")[2].isnan().all()            # NaN is no sink
    alone = sentence_states(model, torch.tensor([[5]]), torch.tensor([[True]]), 0, "mean")
    assert torch.equal(alone[0], rows[5])                                   # a single token is its own median


def test_an_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="pool sum is unknown"):
        sentence_states(small_model(), TOKENS, MASK, 1, "sum")


# --- MCL ----------------------------------------------------------------------------------------------------

PAIRS = torch.arange(8).repeat(2)


@pytest.mark.parametrize("symmetric", [True, False])
def test_mcl_at_chance_is_the_log_of_the_number_of_candidates(symmetric):
    loss = multilingual_contrast(torch.ones(16, 4), PAIRS, symmetric=symmetric)
    assert loss.item() == pytest.approx(math.log(8), abs=1e-5)


def test_mcl_of_perfect_orthogonal_pairs():
    perfect = torch.eye(8).repeat(2, 1)                                     # positives: cos 1, all others 0
    for tau in (0.05, 0.5):
        expected = math.log(1 + 7 * math.exp(-1 / tau))
        assert multilingual_contrast(perfect, PAIRS, tau).item() == pytest.approx(expected, abs=1e-6)


def test_the_default_temperature_of_mcl_is_a_twentieth_and_both_sides_are_anchors():
    states = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    default = multilingual_contrast(states, PAIRS)
    assert torch.equal(default, multilingual_contrast(states, PAIRS, 0.05, True))
    assert not torch.isclose(default, multilingual_contrast(states, PAIRS, 0.05, False))


def test_sentences_of_the_own_side_are_no_candidates():
    # all English sentences are alike and so are all translations, at right angles: every candidate has cos 0
    states = torch.eye(2).repeat_interleave(8, dim=0)
    assert multilingual_contrast(states, PAIRS).item() == pytest.approx(math.log(8), abs=1e-5)


# English e1 = (1, 0), e2 = (0, 1); their translations f1 = (1, 0), f2 = (0.6, 0.8).
#   cos   f1   f2
#   e1    1    0.6
#   e2    0    0.8
HAND = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])


def minus_log_share(right, *others):
    return -math.log(math.exp(right) / (math.exp(right) + sum(map(math.exp, others))))


def test_mcl_of_a_hand_worked_two_by_two_in_one_and_two_directions():
    concept = torch.tensor([0, 1, 0, 1])
    rows = [minus_log_share(1, 0.6), minus_log_share(0.8, 0)]               # e1, e2 look for f1, f2
    columns = [minus_log_share(1, 0), minus_log_share(0.8, 0.6)]            # f1, f2 look for e1, e2
    one = multilingual_contrast(HAND, concept, tau=1.0, symmetric=False).item()
    assert one == pytest.approx(sum(rows) / 2, abs=1e-6)
    both = multilingual_contrast(HAND, concept, tau=1.0).item()
    assert both == pytest.approx(sum(rows + columns) / 4, abs=1e-6)


def test_mcl_brings_translations_together_in_the_compared_layer_and_leaves_later_ones_alone():
    model, tokens = small_model(), torch.randint(60, (16, 5), generator=torch.Generator().manual_seed(0))
    states = sentence_states(model, tokens, torch.ones(16, 5, dtype=torch.bool))
    multilingual_contrast(states, PAIRS).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert "embed.weight" in moved and "body.0.feed_in.weight" in moved
    assert not any(name.startswith(("body.1", "head", "final_norm")) for name in moved)


# --- CIT ----------------------------------------------------------------------------------------------------

def test_loss_is_on_the_answer_and_nothing_else():
    inputs, targets = instruction_rows([[1, 2, 3], [4]], [[7, 8], [9]], 9)
    _ = IGNORE
    assert inputs.tolist() == [[1, 2, 3, 7], [4, 9, 0, 0]]
    assert targets.tolist() == [[_, _, 7, 8], [9, _, _, _]]


def test_plain_fine_tuning_has_loss_on_the_question_too():
    inputs, targets = instruction_rows([[1, 2, 3], [4]], [[7, 8], [9]], 9, answer_only=False)
    assert inputs.tolist() == [[1, 2, 3, 7], [4, 9, 0, 0]]
    assert targets.tolist() == [[2, 3, 7, 8], [9, IGNORE, IGNORE, IGNORE]]


def test_a_long_sample_loses_its_start():
    inputs, targets = instruction_rows([[1, 2, 3]], [[7, 8]], 4)
    assert inputs.tolist() == [[2, 3, 7]] and targets.tolist() == [[IGNORE, 7, 8]]
    inputs, targets = instruction_rows([[1, 2]], [[7, 8, 9]], 2)
    assert inputs.tolist() == [[8]] and targets.tolist() == [[9]]
    inputs, targets = instruction_rows([[1, 2, 3]], [[7, 8]], 4, answer_only=False)
    assert inputs.tolist() == [[2, 3, 7]] and targets.tolist() == [[3, 7, 8]]


@pytest.mark.parametrize("answer_only", [True, False])
def test_an_answer_longer_than_the_width_carries_loss_on_all_that_is_left(answer_only):
    inputs, targets = instruction_rows([[1, 2], [5]], [[7, 8, 9, 10], [6]], 3, answer_only)
    assert inputs.tolist() == [[8, 9], [5, 6]] and targets.tolist() == [[9, 10], [6, IGNORE]]


def test_a_sample_of_exactly_the_width_is_whole():
    inputs, targets = instruction_rows([[1, 2, 3], [4]], [[7, 8], [9]], 5)
    assert inputs.tolist() == [[1, 2, 3, 7], [4, 9, 0, 0]]
    assert targets.tolist() == [[IGNORE, IGNORE, 7, 8], [9, IGNORE, IGNORE, IGNORE]]
    assert inputs.dtype == targets.dtype == np.int64


def test_an_answer_without_a_question_carries_loss_from_its_second_token_on():
    inputs, targets = instruction_rows([[]], [[7, 8, 9]], 9)
    assert inputs.tolist() == [[7, 8]] and targets.tolist() == [[8, 9]]


def test_questions_without_an_answer_are_refused():
    with pytest.raises(ValueError):
        instruction_rows([[1], [2]], [[3]], 9)


def test_samples_of_a_batch_share_no_attention_and_no_loss():
    model, questions, answers = small_model(), [[1, 2, 3, 4], [5], [6, 7]], [[8], [9, 10], [11, 12, 13]]
    inputs, targets = map(torch.from_numpy, instruction_rows(questions, answers, 16))
    total = lm_loss(model.logits(inputs), targets).item() * int((targets != IGNORE).sum())
    alone = 0.0
    for question, answer in zip(questions, answers):
        row = torch.tensor([question + answer])
        scores = model.logits(row[:, :-1]).log_softmax(dim=-1)[0]           # (T, V)
        alone -= sum(scores[len(question) - 1 + i, t].item() for i, t in enumerate(answer))
    assert total == pytest.approx(alone, rel=1e-5)


def test_drawn_languages_have_english_as_the_pivot_and_cross_as_often_as_told():
    n = 4000
    for cross, low, high in ((0.0, 0, 0), (0.25, .22, .28), (1.0, 1, 1)):
        partner, asked, told = draw_languages(np.random.default_rng(0), [2, 3], n, cross)
        assert low <= (asked != told).mean() <= high
        assert set(partner.tolist()) == {2, 3} and set(asked.tolist()) == {0, 2, 3}
        # both are English or the partner
        assert all(((side == partner) | (side == 0)).all() for side in (asked, told))
        assert 0.46 < (asked == 0).mean() < 0.54 and 0.46 < (partner == 2).mean() < 0.54


def test_the_three_draws_of_languages_are_independent():
    """Each of eight cases has its probability: partner 2 or 3, asked in English or not, crossed or not."""
    n, cross = 8000, 0.25
    partner, asked, answered = draw_languages(np.random.default_rng(1), [2, 3], n, cross)
    for which, english, crossed in itertools.product((2, 3), (True, False), (True, False)):
        share = 0.5 * 0.5 * (cross if crossed else 1 - cross)
        case = (partner == which) & ((asked == 0) == english) & ((answered != asked) == crossed)
        assert abs(case.mean() - share) < 4 * math.sqrt(share * (1 - share) / n)
    assert all(((side == partner) | (side == 0)).all() for side in (asked, answered))


def test_languages_are_drawn_in_the_order_partner_question_answer():
    rng = np.random.default_rng(4)
    partner = rng.choice(np.array([1, 3, 5]), 20)
    from_partner, crossed = rng.random(20) < 0.5, rng.random(20) < 0.3
    asked = [p if own else 0 for p, own in zip(partner, from_partner)]
    answered = [p - a if c else a for p, a, c in zip(partner, asked, crossed)]
    found = draw_languages(np.random.default_rng(4), [1, 3, 5], 20, 0.3)
    assert [x.tolist() for x in found] == [partner.tolist(), asked, answered]


def test_the_demonstration_finds_translations_and_answers_in_the_language_asked_for(capsys):
    align.main()
    first, *_, last, end = capsys.readouterr().out.strip().splitlines()
    assert end == "Next: python train.py --method align"
    assert first.startswith("step   0") and "100%" not in first
    assert last.startswith("step 100") and last.count("100%") == 2
