"""The decoder, its training functions and its sampling, against loops and values worked out on paper."""
import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F

from data.lab.options import PRESETS
from model import (GPT, IGNORE, Block, ModelConfig, RMSNorm, attend, generate, lm_loss,
                   lr_multiplier, rotary_table, rotate)

SMALL = ModelConfig(vocab_size=50, n_layer=2, n_head=4, d_model=32, context_len=16)


def loud_model(config=SMALL):
    """A model with matrices ten times as large as usual.

    Attention is sharp, and the next token depends on the whole context.
    """
    model = GPT(config).initialise(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(10)
    return model


def random_tokens(*size):
    return torch.randint(0, SMALL.vocab_size, size, generator=torch.Generator().manual_seed(1))


def random_normal(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(2))


# --- lm_loss ------------------------------------------------------------------------------------------------

def test_lm_loss_of_equal_scores_is_log_of_the_vocabulary():
    assert lm_loss(torch.zeros(2, 3, 50), torch.zeros(2, 3, dtype=torch.long)).item() == pytest.approx(
        math.log(50), abs=1e-5)


def test_lm_loss_of_three_targets_worked_by_hand():
    # the targets' probabilities are 1/2, 1/4 and 1/10; the last target carries no loss
    logits = torch.tensor([[[math.log(2), math.log(2), 0.0, -1e9], [0.0, 0.0, 0.0, 0.0]],
                           [[math.log(7), 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 0.0]]])
    targets = torch.tensor([[0, 3], [2, IGNORE]])
    by_hand = [math.log(2.5), math.log(4), math.log(10)]
    assert lm_loss(logits, targets).item() == pytest.approx(sum(by_hand) / 3, abs=1e-6)
    assert lm_loss(logits, targets, 12).item() == pytest.approx(sum(by_hand) / 12, abs=1e-6)
    # the scores of three positions alone, as GPT.logits gives them for `scored`
    few, wanted = logits.flatten(0, 1)[:3], torch.tensor([0, 3, 2])
    assert lm_loss(few, wanted).item() == pytest.approx(sum(by_hand) / 3, abs=1e-6)


def test_parts_of_a_batch_that_divide_by_the_count_of_the_whole_add_up_to_its_loss():
    logits = random_normal(4, 3, 5)
    targets = torch.tensor([[1, 2, 3], [IGNORE] * 3, [4, IGNORE, 0], [1, 1, 1]])
    parts = [lm_loss(logits[i:i + 2], targets[i:i + 2], 8) for i in (0, 2)]
    assert sum(parts).item() == pytest.approx(lm_loss(logits, targets).item(), abs=1e-6)


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


def test_lm_loss_of_bfloat16_scores_is_computed_in_float32():
    logits, targets = random_normal(2, 3, 50).bfloat16(), torch.arange(6).view(2, 3)
    loss = lm_loss(logits, targets)
    assert loss.dtype == torch.float32 and torch.equal(loss, lm_loss(logits.float(), targets))


def test_the_exponential_of_the_loss_is_the_perplexity_of_the_whole_text():
    """The geometric mean of 1 / probability, over all tokens of texts of different length."""
    probability = [[0.5, 0.1, 0.2], [0.25]]
    logits, targets = torch.zeros(2, 3, 2), torch.tensor([[0, 0, 0], [0, IGNORE, IGNORE]])
    for i, row in enumerate(probability):
        for t, p in enumerate(row):
            logits[i, t, 0] = math.log(p / (1 - p))
    flat = list(itertools.chain(*probability))
    assert math.exp(lm_loss(logits, targets)) == pytest.approx(math.prod(flat) ** (-1 / 4), rel=1e-6)


# --- attention and positions --------------------------------------------------------------------------------

def attend_in_loops(q, k, v):
    """Softmax over the past, one query at a time."""
    out = torch.zeros_like(v)
    B, H, T, width = q.shape
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        scores = [math.exp(q[b, h, t].dot(k[b, h, s]).item() / math.sqrt(width)) for s in range(t + 1)]
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


@pytest.mark.parametrize("T", [1, 7, 256])
def test_short_bfloat16_rows_on_a_cpu_are_computed_by_the_written_out_formula(T):
    """To the bit: the two ways to compute attention round differently."""
    q, k, v = random_normal(3, 1, 2, T, 16).bfloat16()
    scores = (q / 4) @ k.transpose(-1, -2)                                  # (1, 2, T, T)
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    assert torch.equal(attend(q, k, v), scores.masked_fill(later, -math.inf).softmax(dim=-1) @ v)


def test_attention_of_rows_beyond_256_tokens_equals_that_of_shorter_ones_on_their_common_part():
    q, k, v = random_normal(3, 1, 2, 300, 8).bfloat16()
    short = attend(q[:, :, :200], k[:, :, :200], v[:, :, :200])
    assert torch.allclose(attend(q, k, v)[:, :, :200], short, atol=0.04)


def test_the_rotary_table_has_the_angles_of_position_and_frequency():
    cos, sin = rotary_table(5, 8)
    assert cos.shape == sin.shape == (5, 8)
    for t in range(5):
        for i in range(4):
            angle = t * 10_000 ** (-2 * i / 8)                              # 1, 0.1, 0.01, 0.001 per position
            assert cos[t, i].item() == cos[t, i + 4].item() == pytest.approx(math.cos(angle), abs=1e-6)
            assert -sin[t, i].item() == sin[t, i + 4].item() == pytest.approx(math.sin(angle), abs=1e-6)


def test_rotation_turns_channels_i_and_i_plus_half_counter_clockwise():
    cos, sin = rotary_table(6, 4)
    for position in (1, 5):
        for pair in (0, 1):
            angle = position * 0.01**pair
            x = torch.zeros(1, 1, 6, 4)
            x[..., pair] = 2.0                                              # on the first axis of its pair
            turned = rotate(x, cos, sin)[0, 0, position]
            expected = torch.zeros(4)
            expected[pair], expected[pair + 2] = 2 * math.cos(angle), 2 * math.sin(angle)
            assert torch.allclose(turned, expected, atol=1e-6)
            turned = rotate(x.roll(2, dims=-1), cos, sin)[0, 0, position]   # on the second axis
            expected[pair], expected[pair + 2] = -2 * math.sin(angle), 2 * math.cos(angle)
            assert torch.allclose(turned, expected, atol=1e-6)


def test_rotation_keeps_the_dtype_and_starts_at_the_first_row_of_the_table():
    x, table = random_normal(1, 1, 4, 8), rotary_table(6, 8)
    assert rotate(x.bfloat16(), *(t.bfloat16() for t in table)).dtype == torch.bfloat16
    assert torch.equal(rotate(x, *table), rotate(x, *rotary_table(4, 8)))


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
    model = loud_model(ModelConfig(vocab_size=50, n_layer=1, n_head=4, d_model=32))
    one, other = (model.logits(torch.tensor([tokens]))[0, -1] for tokens in ([1, 2, 3, 4], [2, 1, 3, 4]))
    assert not torch.allclose(one, other, atol=1e-2)


# --- blocks -------------------------------------------------------------------------------------------------

def norm_by_hand(x, weight):
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * weight


def rotate_by_hand(x):
    """One head, x (T, width), as complex numbers: channel i is real, channel i + width / 2 imaginary."""
    T, width = x.shape
    pairs = torch.complex(x[:, :width // 2], x[:, width // 2:])
    angle = torch.tensor([[t * 10_000 ** (-2 * i / width) for i in range(width // 2)] for t in range(T)])
    turned = pairs * torch.polar(torch.ones_like(angle), angle).to(pairs.dtype)
    return torch.cat((turned.real, turned.imag), dim=1)


def block_by_hand(p, x, n_head):
    """A block with parameters p, written out from the papers: x (T, D) -> (T, D)."""
    T, D = x.shape
    width, heads = D // n_head, []
    q, k, v = (norm_by_hand(x, p["attention_norm.weight"]) @ p["query_key_value.weight"].T).chunk(3, dim=1)
    for h in range(n_head):
        mine = slice(h * width, (h + 1) * width)
        scores = rotate_by_hand(q[:, mine]) @ rotate_by_hand(k[:, mine]).T / math.sqrt(width)        # (T, T)
        rows = [scores[t, :t + 1].softmax(dim=0) @ v[:t + 1, mine] for t in range(T)]    # v is not rotated
        heads.append(torch.stack(rows))
    x = x + torch.cat(heads, dim=1) @ p["attention_out.weight"].T
    inner = norm_by_hand(x, p["feed_norm.weight"]) @ p["feed_in.weight"].T                           # (T, 4D)
    gelu = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
    return x + gelu @ p["feed_out.weight"].T


def odd_parameters(module):
    """Random weights of a size that matters, also for the norms; a seed per name."""
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
            p.copy_(0.3 * noise + (1 if p.ndim == 1 else 0))
    return module.double()


def test_rms_norm_of_a_vector_worked_by_hand():
    norm = RMSNorm(4, 1e-5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, -1.0]))
    # squares 1, 1, 9, 25: their mean is 9
    found = norm(torch.tensor([[1.0, -1.0, 3.0, 5.0]]))
    assert torch.allclose(found, torch.tensor([[1.0, -2.0, 9.0, -5.0]]) / 3, atol=1e-5)
    tiny = norm(torch.full((1, 4), 1e-3))                                   # mean square 1e-6, epsilon 1e-5
    assert tiny[0, 0].item() == pytest.approx(1e-3 / math.sqrt(1.1e-5), rel=1e-4)


def test_a_block_equals_one_written_out_by_hand():
    config = ModelConfig(vocab_size=50, n_head=4, d_model=32)
    block, x = odd_parameters(Block(config)), random_normal(3, 9, 32).double()
    found = block(x, *rotary_table(16, 8))
    for row, expected in zip(found, x):
        assert torch.allclose(row, block_by_hand(dict(block.named_parameters()), expected, 4), atol=1e-5)


def test_the_model_equals_one_written_out_by_hand():
    model, tokens = odd_parameters(GPT(SMALL)), random_tokens(2, 9)
    p = model.state_dict()
    for row, scores in zip(tokens, model.logits(tokens)):
        x = p["embed.weight"][row]                                          # (T, D)
        for i in range(2):
            x = block_by_hand({name.removeprefix(f"body.{i}."): w for name, w in p.items()
                               if name.startswith(f"body.{i}.")}, x, 4)
        assert torch.allclose(scores, norm_by_hand(x, p["final_norm.weight"]) @ p["head.weight"].T, atol=1e-4)


# --- the model and its parts --------------------------------------------------------------------------------

def test_hidden_returns_one_level_more_than_there_are_blocks_and_norms_only_the_last():
    model, tokens = loud_model(), random_tokens(2, 12)
    levels = model.hidden(tokens)
    assert [tuple(level.shape) for level in levels] == [(2, 12, 32)] * (2 + 1)
    assert torch.equal(levels[0], model.embed(tokens))
    assert torch.equal(levels[1], model.body[0](levels[0], model.cos, model.sin))
    assert torch.equal(levels[2], model.final_norm(model.body[1](levels[1], model.cos, model.sin)))
    assert torch.equal(model.logits(tokens), levels[2] @ model.head.weight.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_that_share_a_row_do_not_see_each_other(dtype):
    model = loud_model()
    one, other = torch.tensor([[3, 1, 4, 1]]), torch.tensor([[5, 9]])
    row, alone = torch.cat((one, other, other), dim=1), torch.tensor([[7, 7, 7, 7, 2, 2, -1, -1]])
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        together, apart = model.hidden(row, segment=alone)[-1], [model.hidden(one)[-1], model.hidden(other)[-1]]
        unmasked = model.hidden(row)[-1]
    close = dict(atol=1e-5) if dtype == torch.float32 else dict(atol=0.1)
    assert torch.allclose(together[:, :4], apart[0], **close)
    assert torch.allclose(together[:, 4:6], apart[1], **close)
    assert torch.allclose(together[:, 6:], apart[1], **close)
    assert not torch.allclose(unmasked[:, 4:6], apart[1], **close)


def test_levels_and_scores_may_be_asked_for_in_part():
    model, tokens = loud_model(), torch.arange(12).reshape(2, 6)
    for top in range(3):
        part = model.hidden(tokens, top)
        assert len(part) == top + 1
        assert all(torch.equal(a, b) for a, b in zip(part, model.hidden(tokens)))
    where = torch.tensor([5, 6])                               # the end of the first row, the start of the second
    assert torch.allclose(model.logits(tokens, where), model.logits(tokens).flatten(0, 1)[where], atol=1e-6)


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


def test_initialise_draws_the_matrices_in_the_order_of_the_parameters_from_one_generator():
    generator = torch.Generator().manual_seed(3)
    for name, p in GPT(SMALL).initialise(3).named_parameters():
        if "norm" not in name:
            residual = name.endswith(("attention_out.weight", "feed_out.weight"))
            std = 0.02 / math.sqrt(4) if residual else 0.02                 # L = 2
            assert torch.equal(p, torch.randn(p.shape, generator=generator) * std), name


def test_initial_weights_have_the_deviations_of_gpt2():
    model = GPT(SMALL).initialise(0)
    residual = 0.02 / math.sqrt(2 * SMALL.n_layer)
    for name, p in model.named_parameters():
        if "norm" in name:
            assert torch.equal(p, torch.ones_like(p))
        else:
            expected = residual if name.split(".")[-2] in ("attention_out", "feed_out") else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.1), name


def test_every_parameter_is_in_exactly_one_group():
    model = GPT(ModelConfig(vocab_size=50, n_layer=2, n_head=4, d_model=32))
    groups = model.param_groups(lr=1.0, embed_lr=3.0, weight_decay=0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) and set(grouped) == {id(p) for p in model.parameters()}
    assert {g["name"] for g in groups} == {"body", "norms", "embed", "head"} and groups[0]["name"] == "body"
    settings = {id(p): (g["name"], g["lr"], g["peak_lr"], g["weight_decay"])
                for g in groups for p in g["params"]}
    assert settings[id(model.embed.weight)] == ("embed", 3, 3, 0)
    assert settings[id(model.head.weight)] == ("head", 3, 3, 0)
    for p in [*model.body.parameters(), model.final_norm.weight]:
        assert settings[id(p)] == (("body", 1, 1, 0.1) if p.ndim == 2 else ("norms", 1, 1, 0))


def test_rows_of_embedding_and_head_have_a_decay_of_their_own():
    groups = GPT(SMALL).param_groups(lr=1.0, embed_lr=3.0, weight_decay=0.1, embed_decay=0.2)
    decay = {g["name"]: g["weight_decay"] for g in groups}
    assert decay == dict(body=0.1, norms=0.0, embed=0.2, head=0.2)


def test_embedding_and_head_are_two_matrices():
    model = GPT(SMALL)
    assert model.head.weight is not model.embed.weight and model.head.weight.shape == model.embed.weight.shape
    # per block: 3 D² query, key, value + D² out + 8 D² feed-forward, and two norms
    assert sum(p.numel() for p in model.parameters()) == 12 * 2 * 32**2 + 5 * 32 + 2 * 50 * 32


# --- the options of public checkpoints ----------------------------------------------------------------------

PUBLIC = dict(n_kv_head=2, d_ff=80, gated=True, attention_bias=True, rope_base=1e5, norm_eps=1e-3)


def plain_public_block(p, x):
    """A block of 4 heads with the options PUBLIC, one query and one key at a time: x (T, 32) -> (T, 32)."""
    def norm(a, name):
        return a / (a.pow(2).mean(dim=1, keepdim=True) + 1e-3).sqrt() * p[name]

    def turn(a, t):
        """The vector of position t, rotated in the planes of channels i and i + 4."""
        angle = torch.tensor([t / 1e5 ** (i / 4) for i in range(4)], dtype=a.dtype)
        return torch.cat((a[:4] * angle.cos() - a[4:] * angle.sin(), a[4:] * angle.cos() + a[:4] * angle.sin()))
    q, k, v = (norm(x, "attention_norm.weight") @ p["query_key_value.weight"].T
               + p["query_key_value.bias"]).split((32, 16, 16), dim=1)           # (T, 32), (T, 16), (T, 16)
    rows = []
    for t in range(len(x)):
        heads = []
        for h in range(4):
            query, own, shared = turn(q[t, 8 * h:8 * h + 8], t), [], slice(8 * (h // 2), 8 * (h // 2) + 8)
            own = torch.stack([query @ turn(k[u, shared], u) / math.sqrt(8) for u in range(t + 1)])
            heads.append(own.softmax(dim=0) @ v[:t + 1, shared])
        rows.append(torch.cat(heads))
    x = x + torch.stack(rows) @ p["attention_out.weight"].T
    gate, up = (norm(x, "feed_norm.weight") @ p["feed_in.weight"].T).split(80, dim=1)
    return x + (gate / (1 + (-gate).exp()) * up) @ p["feed_out.weight"].T


def test_a_block_with_grouped_queries_biases_and_a_gate_equals_one_written_out():
    config = ModelConfig(50, 2, 4, 32, 16, **PUBLIC)
    block, x = odd_parameters(Block(config)), random_normal(2, 9, 32).double()
    found = block(x, *rotary_table(16, 8, 1e5))
    for row, expected in zip(found, x):
        assert torch.allclose(row, plain_public_block(dict(block.named_parameters()), expected), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_queries_are_heads_of_keys_and_values_repeated(dtype):
    q, k, v = (random_normal(2, heads, 7, 8).to(dtype) for heads in (4, 2, 2))
    repeated = [t.repeat_interleave(2, dim=1) for t in (k, v)]
    for mask in (None, random_normal(2, 1, 7, 7).to(dtype)):
        assert torch.allclose(attend(q, k, v, mask), attend(q, *repeated, mask), atol=1e-6)


def test_the_defaults_have_the_initial_weights_and_losses_that_they_always_had():
    model = GPT(SMALL).initialise(0)
    names = ["attention_norm.weight", "feed_norm.weight", "query_key_value.weight", "attention_out.weight",
             "feed_in.weight", "feed_out.weight"]
    assert list(model.state_dict()) == ["embed.weight", *(f"body.{i}.{n}" for i in range(2) for n in names),
                                        "final_norm.weight", "head.weight"]
    last = [p.detach().flatten()[-1].item() for p in (model.embed.weight, model.head.weight)]
    assert last == pytest.approx([float.fromhex(x) for x in ("0x1.aa06ep-6", "-0x1.d1f3eep-5")], rel=1e-6)
    optimizer = torch.optim.AdamW(model.param_groups(1e-2, 3e-2, 0.1), betas=(0.9, 0.95))
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(4):
        tokens = torch.randint(0, 50, (4, 17), generator=generator)
        loss = lm_loss(model.logits(tokens[:, :-1]), tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx([float.fromhex(x) for x in (
        "0x1.f572bap+1", "0x1.f2af44p+1", "0x1.f68ca2p+1", "0x1.04b6dap+2")], rel=1e-5)


def test_a_tied_head_is_the_embedding_is_drawn_once_and_learns_once():
    config = ModelConfig(50, 2, 4, 32, 16, tied=True, attention_bias=True)
    model, untied = GPT(config).initialise(0), GPT(SMALL).initialise(0)
    assert model.head.weight is model.embed.weight and torch.equal(model.embed.weight, untied.embed.weight)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))
    groups = model.param_groups(1e-2, 3e-2, 0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) and set(grouped) == {id(p) for p in model.parameters()}
    before, optimizer = model.embed.weight.clone(), torch.optim.AdamW(groups, fused=True)
    lm_loss(model.logits(random_tokens(2, 12)), random_tokens(2, 12)).backward()
    optimizer.step()
    assert model.head.weight is model.embed.weight and not torch.equal(model.embed.weight, before)


def test_heads_of_queries_that_heads_of_keys_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="n_kv_head 3"):
        ModelConfig(vocab_size=50, d_model=32, n_head=4, n_kv_head=3)


@pytest.mark.parametrize("n_head", [5, 32])                          # 32/5 is no integer, 32/32 is no pair
def test_a_head_count_that_does_not_divide_the_width_into_pairs_is_refused(n_head):
    with pytest.raises(ValueError, match=f"n_head {n_head}"):
        ModelConfig(vocab_size=50, d_model=32, n_head=n_head)


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine_to_a_tenth():
    rates = [lr_multiplier(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1.0) and rates[55] == pytest.approx(0.55)   # half way: 0.1 + 0.45
    assert rates[25] == pytest.approx(0.55 + 0.45 * math.cos(math.pi / 6))        # a sixth of the way
    assert rates[100] == pytest.approx(0.1)
    assert all(a > b for a, b in zip(rates[10:], rates[11:]))
    assert type(lr_multiplier(0, 1, 0.0)) is float and lr_multiplier(0, 1, 0.0) == 1.0
    assert [lr_multiplier(step, 10, 0.25) for step in range(3)] == pytest.approx([1 / 2, 1, 1])    # 2.5 -> 2


# --- generate -----------------------------------------------------------------------------------------------

PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]


def argmax_one_by_one(model, prompt, n):
    """Greedy decoding without batch, padding or sampling."""
    text = list(prompt)
    for _ in range(n):
        window = torch.tensor([text[-model.config.context_len:]])
        text.append(model.logits(window)[0, -1].argmax().item())
    return text[len(prompt):]


def draw_one_by_one(model, prompt, n, temperature, top_k, seed):
    """Sampling from the softmax of logits / temperature, over the top_k largest."""
    text, generator = list(prompt), torch.Generator().manual_seed(seed)
    for _ in range(n):
        scores = model.logits(torch.tensor([text[-model.config.context_len:]]))[0, -1]
        kept = set(scores.argsort(descending=True)[:top_k].tolist())
        share = torch.tensor([math.exp(s / temperature) if i in kept else 0.0
                              for i, s in enumerate((scores - scores.max()).tolist())])
        text.append(torch.multinomial(share / share.sum(), 1, generator=generator).item())
    return text[len(prompt):]


def test_temperature_zero_takes_the_likeliest_token_and_padding_is_never_seen():
    model = loud_model()
    expected = [argmax_one_by_one(model, p, 8) for p in PROMPTS]
    assert len({tuple(e) for e in expected}) == 3
    assert generate(model, PROMPTS, 8, temperature=0) == expected
    assert [generate(model, [p], 8, temperature=0)[0] for p in PROMPTS] == expected


def generate_without_past(model, prompts, n, temperature, generator=None, stop=()):
    """generate as it was before keys and values were kept: everything is read again for each new token."""
    texts, active = [list(p) for p in prompts], list(range(len(prompts)))
    for _ in range(n):
        windows = [texts[i][-model.config.context_len:] for i in active]
        tokens = torch.tensor([w + [0] * (max(map(len, windows)) - len(w)) for w in windows])
        scores = model.logits(tokens)[torch.arange(len(active)), [len(w) - 1 for w in windows]]
        drawn = scores.argmax(dim=-1) if temperature == 0 else torch.multinomial(
            (scores / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]
        for i, token in zip(active, drawn.tolist()):
            if token not in stop:
                texts[i].append(token)
        active = [i for i, token in zip(active, drawn.tolist()) if token not in stop]
        if not active:
            break
    return [text[len(p):] for text, p in zip(texts, prompts)]


@pytest.mark.parametrize("options", [{}, PUBLIC], ids=["ours", "public"])
@pytest.mark.parametrize("context_len", [12, 80])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_keeping_keys_and_values_changes_no_token(options, context_len, temperature):
    model = loud_model(ModelConfig(50, 2, 4, 32, context_len, **options))
    lengths = random.Random(0).choices(range(1, 20), k=12)
    prompts = [random_tokens(64)[at:at + n].tolist() for at, n in enumerate(lengths)]
    for stop in ((), {3, 7, 20}):
        arguments = [(model, prompts, 40, temperature, torch.Generator().manual_seed(1)) for _ in range(2)]
        found = generate(*arguments[0][:4], generator=arguments[0][4], stop=stop)
        assert found == generate_without_past(*arguments[1], stop)
        assert not stop or len({len(text) for text in found}) > 2


def test_a_token_is_read_once_until_the_window_slides(monkeypatch):
    model, widths = loud_model(), []                                        # the context holds 16
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda tokens, **kw: widths.append(tokens.shape[1]) or hidden(tokens, **kw))
    generate(model, [[1, 2, 3], [4]], 20, temperature=0)
    assert widths == [3] + 13 * [1] + 6 * [16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_of_continued_texts_are_those_of_whole_texts(dtype):
    model, tokens, past = loud_model(ModelConfig(50, 2, 4, 32, 16, **PUBLIC)), random_tokens(3, 9), [[], []]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        whole = model.hidden(tokens)
        model.hidden(tokens[:, :6], past=past)                              # padding behind 6, 4 and 2 tokens
        past = [[F.pad(t, (0, 0, 0, 3)) for t in read] for read in past]
        assert {t.shape for read in past for t in read} == {(3, 2, 9, 8)}
        for step in range(3):
            place = torch.tensor([6, 4, 2]) + step
            found = model.hidden(tokens[torch.arange(3), place][:, None], past=past, position=place)
            for level, expected in zip(found, whole):
                expected = expected[torch.arange(3), place][:, None]
                assert torch.allclose(level, expected, atol=1e-5 if dtype == torch.float32 else 0.1)


def test_text_beyond_the_context_slides_out_on_the_left():
    model, long = loud_model(), random_tokens(1, 20)[0].tolist()             # the context holds 16
    expected = [argmax_one_by_one(model, p, 20) for p in (long, [9])]
    assert generate(model, [long, [9]], 20, temperature=0) == expected


@pytest.mark.parametrize("temperature, top_k", [(1.0, 50), (0.5, 50), (2.0, 50), (0.7, 4)])
def test_sampling_is_from_the_softmax_of_the_scores_divided_by_the_temperature(temperature, top_k):
    model = loud_model()
    for seed in range(3):
        expected = draw_one_by_one(model, [3, 1, 4], 12, temperature, top_k, seed)
        generator = torch.Generator().manual_seed(seed)
        assert generate(model, [[3, 1, 4]], 12, temperature, top_k, generator) == [expected]


def test_a_high_temperature_spreads_and_a_low_one_concentrates():
    model = GPT(SMALL).initialise(0)
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():                                       # all states of the last level are 1
        for block in model.body:
            block.attention_out.weight.zero_()
            block.feed_out.weight.zero_()
        model.embed.weight.fill_(1.0)
        model.head.weight[7] = math.log(49) / 32                            # token 7 has probability 1/2
    for temperature, odds in ((1.0, 49.0), (2.0, 7.0), (0.5, 49.0**2)):
        drawn = generate(model, [[1]] * 4000, 1, temperature, generator=torch.Generator().manual_seed(0))
        share, n = odds / (odds + 49), 4000
        assert abs(sum(d == [7] for d in drawn) / n - share) < 4 * math.sqrt(share * (1 - share) / n) + 1e-4


def test_the_default_temperature_is_one_and_without_top_k_every_token_can_be_drawn():
    model = loud_model()
    given, default = (generate(model, PROMPTS, 8, generator=torch.Generator().manual_seed(1), **kw)
                      for kw in (dict(temperature=1.0, top_k=None), {}))
    assert given == default


def test_sampling_among_the_single_best_token_is_greedy():
    model = loud_model()
    assert generate(model, PROMPTS, 8, top_k=1) == generate(model, PROMPTS, 8, temperature=0)


def test_more_tokens_than_there_are_may_be_kept():
    generator = torch.Generator().manual_seed(0)
    assert len(generate(loud_model(), [[1]], 5, top_k=1000, generator=generator)[0]) == 5


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


def test_a_continuation_that_has_stopped_stays_stopped_and_others_are_continued():
    model = loud_model()
    torch.nn.init.zeros_(model.head.weight)                     # the draws depend on the generator alone

    def draw(prompts, stop):
        return generate(model, prompts, 200, generator=torch.Generator().manual_seed(0), stop=stop)
    for prompt in PROMPTS:
        [free], [cut] = draw([prompt], ()), draw([prompt], {7, 8})
        assert cut == free[:next(i for i, token in enumerate(free) if token in (7, 8))]
    together = draw(PROMPTS, {7})
    assert not any(7 in text for text in together) and len(set(map(len, together))) > 1


def test_generating_leaves_the_prompts_alone_and_keeps_no_graph():
    prompts, model = [[1, 2], [3]], loud_model()
    generate(model, prompts, 4, temperature=0)
    assert prompts == [[1, 2], [3]] and all(p.grad is None for p in model.parameters())


# --- presets ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_number_of_parameters_of_the_formula(name):
    preset = PRESETS[name]
    L, D, V = preset["n_layer"], preset["d_model"], 2 * preset["vocab_size"]    # two languages
    with torch.device("meta"):                                             # shapes only: 1.3b fits any laptop
        model = GPT(ModelConfig(V, L, preset["n_head"], D, preset["context_len"]))
    # per block: 3 D² query, key, value + D² out + 8 D² feed-forward, and two norms;
    # then a norm, embedding and head
    assert sum(p.numel() for p in model.parameters()) == 12 * L * D * D + (2 * L + 1) * D + 2 * V * D


def test_the_presets_are_as_large_as_their_names_say_without_the_rows_of_the_vocabulary():
    body = {name: 12 * p["n_layer"] * p["d_model"] ** 2 for name, p in PRESETS.items()}
    assert body == {"tiny": 786_432, "mini": 786_432, "small": 25_165_824, "150m": 150_994_944, "400m": 301_989_888,
                    "1.3b": 1_207_959_552}
