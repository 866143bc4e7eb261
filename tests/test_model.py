"""The decoder, its two losses and its sampling, against values worked out on paper."""
import math

import pytest
import torch
import torch.nn.functional as F

from data.config import PRESETS
from model import (GPT, IGNORE, Shape, attend, contrastive_loss, generate, learning_rate, lm_loss,
                   rotary_table, rotate)

SMALL = Shape(vocab_size=50, n_layer=2, n_head=4, d_model=32, context_len=16)


def loud_model(shape=SMALL):
    """Matrices ten times as large as usual: attention is sharp and the next token depends on the whole
    context."""
    model = GPT(shape).initialise(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(10)
    return model


def random_tokens(*size):
    return torch.randint(0, SMALL.vocab_size, size, generator=torch.Generator().manual_seed(1))


def random_normal(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(2))


# --- contrastive_loss ---------------------------------------------------------------------------------------

def test_contrastive_loss_is_log_of_the_number_of_candidates_when_all_words_look_alike():
    loss = contrastive_loss(torch.ones(2, 6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert loss.item() == pytest.approx(math.log(6 - 1), abs=5e-6)          # 6 words, minus the word itself


def test_contrastive_loss_of_perfectly_aligned_orthogonal_pairs():
    states = torch.eye(3).repeat(2, 1)[None]                                # (1, 6, 3)
    loss = contrastive_loss(states, torch.tensor([0, 1, 2, 0, 1, 2]), tau=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 4 * math.exp(-2)), abs=1e-6)


def test_contrastive_loss_of_a_lone_pair_is_zero_because_it_is_its_own_only_candidate():
    assert contrastive_loss(random_normal(3, 2, 4), torch.tensor([7, 7])).item() == pytest.approx(
        0.0, abs=1e-6)


def test_contrastive_loss_of_two_concepts_in_two_languages_worked_by_hand():
    # cosines: a a' 0.6, a b 0, a b' -1, a' b 0.8, a' b' -0.6, b b' 0; the lengths 5 and 2 must not matter
    a, a2, b, b2 = [5.0, 0.0], [0.6, 0.8], [0.0, 2.0], [-1.0, 0.0]
    e = math.exp
    by_hand = -(math.log(e(0.6) / (e(0.6) + e(0) + e(-1)))                  # anchor a
                + math.log(e(0) / (e(0) + e(0.8) + e(0)))                   # anchor b
                + math.log(e(0.6) / (e(0.6) + e(0.8) + e(-0.6)))            # anchor a'
                + math.log(e(0) / (e(-1) + e(-0.6) + e(0)))) / 4            # anchor b'
    loss = contrastive_loss(torch.tensor([[a, b, a2, b2]]), torch.tensor([0, 1, 0, 1]), tau=1.0)
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)


def test_contrastive_loss_averages_over_ordered_pairs_when_a_concept_has_three_words():
    states = torch.eye(2)[[0, 0, 0, 1, 1]][None]                     # (1, 5, 2): three words alike, two alike
    three = -math.log(math.exp(2) / (2 * math.exp(2) + 2))                  # 6 ordered pairs
    two = -math.log(math.exp(2) / (math.exp(2) + 3))                        # 2 ordered pairs
    loss = contrastive_loss(states, torch.tensor([4, 4, 4, 9, 9]), tau=0.5)
    assert loss.item() == pytest.approx((6 * three + 2 * two) / 8, abs=1e-6)


def test_a_word_without_a_partner_is_a_candidate_but_no_anchor():
    states = torch.eye(2)[[0, 0, 1]][None]                                  # (1, 3, 2)
    loss = contrastive_loss(states, torch.tensor([0, 0, 1]), tau=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_contrastive_loss_of_several_levels_is_the_mean_of_the_levels():
    states, concept = random_normal(3, 6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    alone = [contrastive_loss(level[None], concept).item() for level in states]
    assert max(alone) - min(alone) > 0.1
    assert contrastive_loss(states, concept).item() == pytest.approx(sum(alone) / 3, abs=1e-5)


def test_contrastive_loss_refuses_a_batch_without_any_pair():
    with pytest.raises(ValueError, match="share a concept"):
        contrastive_loss(torch.ones(1, 3, 4), torch.tensor([0, 1, 2]))


def test_contrastive_loss_is_computed_in_float32_under_autocast():
    states, concept = random_normal(2, 6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrastive_loss(states, concept)
    assert inside.dtype == torch.float32 and torch.equal(inside, contrastive_loss(states, concept))


def test_contrastive_loss_of_bfloat16_states_is_that_of_the_same_numbers_in_float32():
    states, concept = random_normal(2, 6, 4).bfloat16(), torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.equal(contrastive_loss(states, concept), contrastive_loss(states.float(), concept))


def test_gradient_of_the_contrastive_loss_agrees_with_finite_differences():
    states, concept = random_normal(1, 4, 3).requires_grad_(), torch.tensor([0, 1, 0, 1])
    contrastive_loss(states, concept, tau=1.0).backward()
    step = 1e-2
    for i in range(12):
        nudge = F.one_hot(torch.tensor(i), 12).view(1, 4, 3) * step
        with torch.no_grad():
            slope = (contrastive_loss(states + nudge, concept, 1.0)
                     - contrastive_loss(states - nudge, concept, 1.0)) / (2 * step)
        assert states.grad.flatten()[i].item() == pytest.approx(slope.item(), abs=1e-3)


# --- lm_loss ------------------------------------------------------------------------------------------------

def test_lm_loss_of_equal_scores_is_log_of_the_vocabulary():
    assert lm_loss(torch.zeros(2, 3, 50), torch.zeros(2, 3, dtype=torch.long)).item() == pytest.approx(
        math.log(50), abs=1e-5)


def test_an_ignored_target_carries_no_loss_and_no_gradient():
    logits = random_normal(1, 3, 5).requires_grad_()
    loss = lm_loss(logits, torch.tensor([[2, IGNORE, 4]]))
    loss.backward()
    assert loss.item() == pytest.approx(
        F.cross_entropy(logits[0, [0, 2]], torch.tensor([2, 4])).item(), abs=1e-6)
    assert logits.grad[0, 1].abs().sum() == 0 and logits.grad[0, [0, 2]].abs().sum() > 0


def test_lm_loss_is_a_mean_over_targets_and_not_over_rows():
    logits = torch.zeros(2, 3, 5)
    logits[1, 0, 3] = 1e4                                                 # row 1: one target, certain: loss 0
    targets = torch.tensor([[1, 2, 3], [3, IGNORE, IGNORE]])              # row 0: three targets at log 5 each
    assert lm_loss(logits, targets).item() == pytest.approx(3 / 4 * math.log(5), abs=1e-6)


def test_lm_loss_of_a_batch_without_targets_is_zero():
    logits = random_normal(2, 3, 5).requires_grad_()
    loss = lm_loss(logits, torch.full((2, 3), IGNORE))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0


# --- attention and positions --------------------------------------------------------------------------------

def attend_in_loops(q, k, v):
    """Softmax over the past, one query at a time."""
    out = torch.zeros_like(v)
    B, H, T, width = q.shape
    for b in range(B):
        for h in range(H):
            for t in range(T):
                scores = [math.exp(q[b, h, t].dot(k[b, h, s]).item() / math.sqrt(width))
                          for s in range(t + 1)]
                for s, score in enumerate(scores):
                    out[b, h, t] += score / sum(scores) * v[b, h, s]
    return out


def test_attention_is_a_softmax_over_the_past():
    q, k, v = random_normal(3, 2, 2, 7, 4)                                  # three tensors (B=2, H=2, T=7, 4)
    assert torch.allclose(attend(q, k, v), attend_in_loops(q, k, v), atol=1e-5)


def test_the_written_out_bfloat16_attention_equals_the_built_in_one_and_the_loops():
    q, k, v = random_normal(3, 2, 2, 7, 4).bfloat16()
    ours = attend(q, k, v)
    assert ours.dtype == torch.bfloat16
    # outputs are below 4 in size; bfloat16 has 8 bits, so a rounding or two is below 0.04
    assert torch.allclose(ours, F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=0.04)
    assert torch.allclose(ours.float(), attend_in_loops(q.float(), k.float(), v.float()), atol=0.04)


def test_scores_of_rotated_vectors_depend_only_on_their_distance():
    q, k = random_normal(2, 8)
    cos, sin = rotary_table(12, 8)
    # (T, 8): the same vector at every position
    q, k = (rotate(x.expand(1, 1, 12, 8), cos, sin)[0, 0] for x in (q, k))
    scores = q @ k.T                                                        # (T, T)
    for distance in range(-11, 12):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-5)
    assert scores[0].std() > 0.1                                            # and they do depend on it


def test_rotation_leaves_the_first_position_and_all_lengths_alone():
    x = random_normal(2, 3, 12, 8)
    turned = rotate(x, *rotary_table(12, 8))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)


@pytest.mark.parametrize("t", [0, 5, 11])
def test_changing_a_token_leaves_all_earlier_predictions_alone(t):
    model, tokens = loud_model(), random_tokens(2, 12)
    changed = tokens.clone()
    changed[:, t] = (changed[:, t] + 1) % SMALL.vocab_size
    before, after = model.logits(tokens), model.logits(changed)
    assert torch.equal(before[:, :t], after[:, :t])
    # every later one reads it
    assert all(not torch.allclose(before[:, s], after[:, s]) for s in range(t, 12))


def test_one_block_sees_the_order_of_earlier_words_by_their_positions_alone():
    model = loud_model(Shape(vocab_size=50, n_layer=1, n_head=4, d_model=32))
    one, other = (model.logits(torch.tensor([tokens]))[0, -1] for tokens in ([1, 2, 3, 4], [2, 1, 3, 4]))
    assert not torch.allclose(one, other, atol=1e-2)


# --- the model and its parts --------------------------------------------------------------------------------

def test_hidden_returns_one_level_more_than_there_are_blocks_and_norms_only_the_last():
    model, tokens = loud_model(), random_tokens(2, 12)
    levels = model.hidden(tokens)
    assert [tuple(level.shape) for level in levels] == [(2, 12, 32)] * (2 + 1)
    assert torch.equal(levels[0], model.embed(tokens))
    assert torch.equal(levels[2], model.final_norm(model.body[1](levels[1], model.cos, model.sin)))
    assert torch.equal(model.logits(tokens), levels[2] @ model.head.weight.T)


def test_levels_and_scores_may_be_asked_for_in_part():
    model, tokens = loud_model(), torch.arange(12).reshape(2, 6)
    for top in range(3):
        part = model.hidden(tokens, top)
        assert len(part) == top + 1
        assert all(torch.equal(a, b) for a, b in zip(part, model.hidden(tokens)))
    where = torch.tensor([[False] * 5 + [True], [True] + [False] * 5])
    assert torch.allclose(model.logits(tokens, where), model.logits(tokens)[where], atol=1e-6)


def test_the_loss_of_a_model_whose_head_is_zero_is_log_of_the_vocabulary():
    model = loud_model()
    torch.nn.init.zeros_(model.head.weight)
    assert lm_loss(model.logits(random_tokens(2, 12)), random_tokens(2, 12)).item() == pytest.approx(
        math.log(50), abs=1e-5)


def test_under_autocast_every_level_is_bfloat16_and_without_it_float32():
    model, tokens = loud_model(), random_tokens(2, 12)
    with torch.autocast("cpu", torch.bfloat16):
        assert {level.dtype for level in model.hidden(tokens)} == {torch.bfloat16}
    assert {level.dtype for level in model.hidden(tokens)} == {torch.float32}


def test_initialise_depends_on_the_seed_and_on_nothing_else():
    torch.manual_seed(5)
    one = GPT(SMALL).initialise(0).state_dict()
    torch.manual_seed(6)
    same, other = GPT(SMALL).initialise(0).state_dict(), GPT(SMALL).initialise(1).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one if "norm" not in name)


def test_initial_weights_have_the_deviations_of_gpt2():
    model = GPT(SMALL).initialise(0)
    residual = 0.02 / math.sqrt(2 * SMALL.n_layer)
    for name, p in model.named_parameters():
        if "norm" in name:
            assert torch.equal(p, torch.ones_like(p))
        else:
            expected = residual if name.split(".")[-2] in ("attention_out", "feed_out") else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.1), name


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_in_exactly_one_group(tied):
    model = GPT(Shape(vocab_size=50, n_layer=2, n_head=4, d_model=32, tied=tied))
    groups = model.groups(lr=1.0, embed_lr=3.0, head_lr=2.0, weight_decay=0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) and set(grouped) == {id(p) for p in model.parameters()}
    settings = {id(p): (g["lr"], g["peak_lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert settings[id(model.embed.weight)] == (3, 3, 0)
    assert settings[id(model.head.weight)] == ((3, 3, 0) if tied else (2, 2, 0))
    for p in [*model.body.parameters(), model.final_norm.weight]:
        assert settings[id(p)] == ((1, 1, 0.1) if p.ndim == 2 else (1, 1, 0))


def test_a_tied_model_has_one_matrix_for_embedding_and_head():
    tied, untied = (GPT(Shape(vocab_size=50, n_layer=2, n_head=4, d_model=32, tied=t)) for t in (True, False))
    assert tied.head.weight is tied.embed.weight and untied.head.weight is not untied.embed.weight
    count = [sum(p.numel() for p in model.parameters()) for model in (tied, untied)]
    assert count[1] - count[0] == 50 * 32


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_number_of_parameters_of_the_formula(name):
    preset = PRESETS[name]
    L, D, V = preset["n_layer"], preset["d_model"], 2 * preset["vocab_size"]    # two languages
    with torch.device("meta"):                                             # shapes only: 1.3b fits any laptop
        model = GPT(Shape(V, L, preset["n_head"], D, preset["context_len"]))
    # per block: 3 D² query, key, value + D² out + 8 D² feed-forward, and two norms;
    # then a norm, embedding and head
    assert sum(p.numel() for p in model.parameters()) == 12 * L * D * D + (2 * L + 1) * D + 2 * V * D


def test_the_presets_are_as_large_as_their_names_say_without_the_rows_of_the_vocabulary():
    body = {name: 12 * p["n_layer"] * p["d_model"] ** 2 for name, p in PRESETS.items()}
    assert body == {"tiny": 786_432, "small": 25_165_824, "150m": 150_994_944, "400m": 301_989_888,
                    "1.3b": 1_207_959_552}


@pytest.mark.parametrize("n_head", [5, 32])                          # 32/5 is no number, 32/32 = 1 is no pair
def test_a_head_count_that_does_not_divide_the_width_into_pairs_is_refused(n_head):
    with pytest.raises(ValueError, match=f"n_head {n_head}"):
        Shape(vocab_size=50, d_model=32, n_head=n_head)


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine_to_a_tenth():
    rates = [learning_rate(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1.0) and rates[55] == pytest.approx(0.55)   # half way: 0.1 + 0.45
    assert rates[100] == pytest.approx(0.1)
    assert all(a > b for a, b in zip(rates[10:], rates[11:]))
    assert type(learning_rate(0, 1, 0.0)) is float and learning_rate(0, 1, 0.0) == 1.0


# --- generate -----------------------------------------------------------------------------------------------

PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]


def argmax_one_by_one(model, prompt, n):
    """Greedy decoding without batch, padding or sampling."""
    text = list(prompt)
    for _ in range(n):
        window = torch.tensor([text[-model.shape.context_len:]])
        text.append(model.logits(window)[0, -1].argmax().item())
    return text[len(prompt):]


def test_temperature_zero_takes_the_likeliest_token_and_padding_is_never_seen():
    model = loud_model()
    expected = [argmax_one_by_one(model, p, 8) for p in PROMPTS]
    assert len({tuple(e) for e in expected}) == 3
    assert generate(model, PROMPTS, 8, temperature=0) == expected
    assert [generate(model, [p], 8, temperature=0)[0] for p in PROMPTS] == expected


def test_text_beyond_the_context_slides_out_on_the_left():
    model, long = loud_model(), random_tokens(1, 20)[0].tolist()             # the context holds 16
    expected = [argmax_one_by_one(model, p, 20) for p in (long, [9])]
    assert generate(model, [long, [9]], 20, temperature=0) == expected


def test_sampling_among_the_single_best_token_is_greedy():
    model = loud_model()
    assert generate(model, PROMPTS, 8, top_k=1) == generate(model, PROMPTS, 8, temperature=0)


def test_sampling_follows_the_model_and_the_generator():
    model = GPT(SMALL).initialise(0)                                        # nearly uniform over 50 tokens
    torch.nn.init.zeros_(model.head.weight)                                 # and now exactly
    draw = lambda seed, **kw: generate(                                     # noqa: E731
        model, PROMPTS, 200, generator=torch.Generator().manual_seed(seed), **kw)
    assert draw(0) == draw(0) != draw(1)
    assert len({token for text in draw(0) for token in text}) == 50  # none missing in 600: (49/50)^600 < 1e-5
    with torch.no_grad():
        model.head.weight.copy_(GPT(SMALL).initialise(0).head.weight)       # no ties
    for text, prompt in zip(draw(0, top_k=3), PROMPTS):
        for n in range(20):
            window = torch.tensor([(prompt + text[:n])[-16:]])
            assert text[n] in model.logits(window)[0, -1].topk(3).indices.tolist()


def test_a_stop_token_ends_its_own_continuation_and_is_not_returned():
    model = loud_model()
    free = generate(model, PROMPTS, 8, temperature=0)
    stop = free[0][3]
    cut = [text[:text.index(stop)] if stop in text else text for text in free]
    assert generate(model, PROMPTS, 8, temperature=0, stop={stop}) == cut != free


def test_a_continuation_that_has_stopped_stays_stopped_and_others_go_on():
    model = loud_model()
    torch.nn.init.zeros_(model.head.weight)                     # what is drawn depends on the generator alone

    def draw(prompts, stop):
        return generate(model, prompts, 200, generator=torch.Generator().manual_seed(0), stop=stop)
    for prompt in PROMPTS:
        [free], [cut] = draw([prompt], ()), draw([prompt], {7, 8})
        assert cut == free[:next(i for i, token in enumerate(free) if token in (7, 8))]
    together = draw(PROMPTS, {7})
    assert not any(7 in text for text in together) and len(set(map(len, together))) > 1
