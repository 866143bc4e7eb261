"""The two contrastive losses: the plain one against loops and values on paper, the fused one against it."""
import math
import random
import weakref
from functools import partial
from itertools import combinations, product

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import model
from model import contrastive_loss, pairs_of_tiles, plain_contrastive_loss

ONE_SET = dict(anchors=None)
TWO_SIDES = [dict(symmetric=False), dict(symmetric=True)]
every_variant = pytest.mark.parametrize(
    "variant", [ONE_SET, *TWO_SIDES], ids=["one set", "one direction", "symmetric"])
both_losses = pytest.mark.parametrize(
    "loss_of", [plain_contrastive_loss, contrastive_loss], ids=["plain", "fused"])
PAIRS = torch.tensor([0, 1, 2, 0, 1, 2])                  # three words and their translations


def random_normal(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def random_concepts(N, seed=0):
    """Ids (N,) of groups of 1 to 5 words in random order; the first and the last word are a pair."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 6, (N,), generator=generator)
    concept = torch.arange(N).repeat_interleave(sizes)[:N][torch.randperm(N, generator=generator)]
    concept[0] = concept[-1]
    return concept


def sides(variant, N):
    """The arguments of a variant; two sides are of unequal size."""
    return variant if variant == ONE_SET else dict(variant, anchors=max(1, 2 * N // 5))


def loss_and_gradient(loss, states, *args, **kwargs):
    states = states.clone().requires_grad_()
    value = loss(states, *args, **kwargs)
    value.backward()
    return value.detach(), states.grad


def loss_in_loops(states, concept, tau, anchors=None, symmetric=True):
    """The formula word by word: states (K, N, D), concept (N,) -> float."""
    losses, N = [], len(concept)
    for level in states:
        for w in range(N):
            if anchors is None:
                candidates = [u for u in range(N) if u != w]
            else:
                candidates = [u for u in range(N) if (u < anchors) != (w < anchors)]
            if anchors is not None and not symmetric and w >= anchors:
                continue
            score = {u: torch.dot(level[w], level[u]).item() / math.dist(level[w], [0] * len(level[w]))
                     / math.dist(level[u], [0] * len(level[u])) / tau for u in candidates}
            total = sum(map(math.exp, score.values()))
            losses += [math.log(total) - score[v] for v in candidates if concept[v] == concept[w]]
    return sum(losses) / len(losses)


def assert_equals_the_plain_loss(states, concept, tau, **kwargs):
    """Float32 against the plain loss in float64.  Similarities are of size 1 / tau, as are their errors."""
    loss, gradient = loss_and_gradient(contrastive_loss, states, concept, tau, **kwargs)
    true_loss, true = loss_and_gradient(plain_contrastive_loss, states.double(), concept, tau, **kwargs)
    assert loss.dtype == gradient.dtype == torch.float32 and gradient.shape == states.shape
    assert loss.item() == pytest.approx(true_loss.item(), rel=1e-6, abs=1e-6 / tau)
    assert (gradient - true).norm() <= 1e-5 * true.norm() + 3e-7 / tau


def relative_error(gradient, true):
    return ((gradient - true).norm() / true.norm()).item()


@pytest.fixture
def tiles_of_three(monkeypatch):
    """Split a few rows into many tiles."""
    monkeypatch.setattr(model, "pairs_of_tiles", lambda N, anchors, size: pairs_of_tiles(N, anchors, 3))


# --- tiles --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 2, 3, 7, 256])
@pytest.mark.parametrize("n, anchors", [(2, None), (2, 1), (7, None), (7, 1), (7, 3), (9, None), (12, 6)])
def test_the_tiles_cover_every_unordered_pair_once_or_only_the_pairs_between_two_sides(n, anchors, size):
    seen = []
    for I, J in pairs_of_tiles(n, anchors, size):
        rows, columns = range(n)[I], range(n)[J]
        assert 0 < len(rows) <= size and 0 < len(columns) <= size
        # the rows of one slice meet each other, as in a tile of the diagonal
        seen += combinations(rows, 2) if I is J else [tuple(sorted(pair)) for pair in product(rows, columns)]
    expected = combinations(range(n), 2) if anchors is None else product(range(anchors), range(anchors, n))
    assert sorted(seen) == list(expected)


@pytest.mark.parametrize("n, anchors", [(7, None), (7, 3)])
def test_in_one_set_every_row_is_in_one_tile_of_the_diagonal_and_two_sides_have_no_such_tile(n, anchors):
    diagonal = [i for I, J in pairs_of_tiles(n, anchors, 3) if I is J for i in range(n)[I]]
    assert diagonal == (list(range(n)) if anchors is None else [])


# --- values on paper ----------------------------------------------------------------------------------------

@both_losses
@pytest.mark.parametrize("N", [2, 6, 300])
def test_the_loss_of_one_set_of_identical_rows_is_log_of_the_number_of_other_rows(loss_of, N):
    concept = torch.arange(N) % (N // 2)
    loss = loss_of(torch.ones(2, N, 4), concept)
    assert loss.item() == pytest.approx(math.log(N - 1), abs=1e-5)


@both_losses
@pytest.mark.parametrize("symmetric, expected", [
    (False, math.log(4)),                                 # 2 anchors with 4 candidates
    (True, (3 * math.log(4) + 3 * math.log(2)) / 6),      # 3 pairs, as seen from either side
])
def test_the_loss_of_two_sides_of_identical_rows_is_log_of_the_number_of_rows_on_the_other_side(
        loss_of, symmetric, expected):
    concept = torch.tensor([0, 1, 0, 0, 1, 9])
    loss = loss_of(torch.ones(2, 6, 4), concept, anchors=2, symmetric=symmetric)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@both_losses
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("variant, rivals", [
    (ONE_SET, 4), (dict(anchors=3), 2), (dict(anchors=3, symmetric=False), 2)])
def test_the_loss_of_orthogonal_words_whose_translations_are_parallel_or_opposite(
        loss_of, variant, rivals, sign):
    states = torch.cat((torch.eye(3), 5 * sign * torch.eye(3)))[None]                         # (1, 6, 3)
    loss = loss_of(states, PAIRS, tau=0.5, **variant)
    assert loss.item() == pytest.approx(math.log(1 + rivals * math.exp(-2 * sign)), abs=1e-6)


@both_losses
def test_the_default_temperature_is_a_tenth(loss_of):
    loss = loss_of(torch.eye(3).repeat(2, 1)[None], PAIRS)
    assert loss.item() == pytest.approx(math.log(1 + 4 * math.exp(-10)), rel=1e-2)


@both_losses
def test_the_loss_of_one_set_worked_by_hand(loss_of):
    # cosines: a a' 0.6, a b 0, a b' -1, a' b 0.8, a' b' -0.6, b b' 0; the lengths 5 and 2 must not matter
    a, a2, b, b2 = [5.0, 0.0], [0.6, 0.8], [0.0, 2.0], [-1.0, 0.0]
    e = math.exp
    by_hand = -(math.log(e(0.6) / (e(0.6) + e(0) + e(-1)))                  # anchor a
                + math.log(e(0) / (e(0) + e(0.8) + e(0)))                   # anchor b
                + math.log(e(0.6) / (e(0.6) + e(0.8) + e(-0.6)))            # anchor a'
                + math.log(e(0) / (e(-1) + e(-0.6) + e(0)))) / 4            # anchor b'
    loss = loss_of(torch.tensor([[a, b, a2, b2]]), torch.tensor([0, 1, 0, 1]), tau=1.0)
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)


@both_losses
def test_the_loss_of_two_sides_worked_by_hand(loss_of):
    # the four words of the test above; a and b are one side
    states = torch.tensor([[[5.0, 0.0], [0.0, 2.0], [0.6, 0.8], [-1.0, 0.0]]])                # a, b, a', b'
    e = math.exp
    there = [math.log(1 + e(-1) / e(0.6)), math.log(1 + e(0.8) / e(0))]                       # anchors a, b
    back = [math.log(1 + e(0.8) / e(0.6)), math.log(1 + e(-1) / e(0))]                        # anchors a', b'
    loss = lambda **kwargs: loss_of(                                                          # noqa: E731
        states, torch.tensor([0, 1, 0, 1]), tau=1.0, anchors=2, **kwargs).item()
    assert loss(symmetric=False) == pytest.approx(sum(there) / 2, abs=1e-6)
    assert loss() == loss(symmetric=True) == pytest.approx(sum(there + back) / 4, abs=1e-6)


@both_losses
def test_the_loss_is_a_mean_over_ordered_pairs_when_a_concept_has_three_words(loss_of):
    states = torch.eye(2)[[0, 0, 0, 1, 1]][None]                     # (1, 5, 2): three words alike, two alike
    three = -math.log(math.exp(2) / (2 * math.exp(2) + 2))           # 6 ordered pairs
    two = -math.log(math.exp(2) / (math.exp(2) + 3))                 # 2 ordered pairs
    loss = loss_of(states, torch.tensor([4, 4, 4, 9, 9]), tau=0.5)
    assert loss.item() == pytest.approx((6 * three + 2 * two) / 8, abs=1e-6)


@both_losses
def test_each_word_of_a_side_has_its_own_pair_when_two_of_them_share_a_concept(loss_of):
    states = torch.eye(2)[[0, 1, 0, 1]][None]             # two words | a translation of the first, another
    loss = lambda concept: loss_of(                                                           # noqa: E731
        states, torch.tensor(concept), tau=0.5, anchors=2, symmetric=False).item()
    first, second = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert loss([0, 9, 0, 8]) == pytest.approx(first, abs=1e-6)
    assert loss([0, 0, 0, 8]) == pytest.approx((first + second) / 2, abs=1e-6)


@both_losses
@every_variant
def test_a_word_that_has_no_partner_is_a_candidate_and_no_anchor(loss_of, variant):
    # the first word and its translation (last) are alike, the two others point elsewhere
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]])
    loss = loss_of(states, torch.tensor([0, 1, 2, 0]), tau=0.5, **sides(variant, 4))
    # two sides: one word and three; the translation has the first word as its only candidate
    one_way = math.log(1 + 2 * math.exp(-2))
    expected = one_way / 2 if variant == dict(symmetric=True) else one_way
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@both_losses
def test_the_loss_of_a_lone_pair_is_zero_because_it_is_its_own_only_candidate(loss_of):
    assert loss_of(random_normal(3, 2, 4), torch.tensor([7, 7])).item() == pytest.approx(0.0, abs=1e-6)


@both_losses
def test_the_loss_of_several_levels_is_the_mean_of_the_levels(loss_of):
    states = random_normal(3, 6, 4)
    alone = [loss_of(level[None], PAIRS).item() for level in states]
    assert max(alone) - min(alone) > 0.1
    assert loss_of(states, PAIRS).item() == pytest.approx(sum(alone) / 3, abs=1e-5)


@both_losses
@every_variant
def test_the_loss_is_the_formula_written_out_in_loops(loss_of, variant):
    for seed in range(5):
        states, concept = random_normal(2, 11, 3, seed=seed).double(), random_concepts(11, seed)
        expected = loss_in_loops(states, concept, 0.3, **sides(variant, 11))
        assert loss_of(states, concept, 0.3, **sides(variant, 11)).item() == pytest.approx(expected, abs=1e-9)


@both_losses
def test_bfloat16_states_and_autocast_are_computed_in_float32(loss_of):
    states = random_normal(2, 6, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss_of(states, PAIRS)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss_of(states, PAIRS)) and torch.equal(inside, loss_of(states.float(), PAIRS))


# --- against the plain version ------------------------------------------------------------------------------

@every_variant
@pytest.mark.parametrize("tau", [0.005, 0.01, 0.0139, 0.05, 0.1, 1])
def test_loss_and_gradient_equal_the_plain_ones_over_several_tiles(variant, tau):
    for N in (300, 520):
        assert_equals_the_plain_loss(random_normal(1, N, 8), random_concepts(N), tau, **sides(variant, N))


@every_variant
@pytest.mark.parametrize("tau", [0.005, 0.0139, 0.1, 1])
def test_loss_and_gradient_equal_the_plain_ones_on_random_shapes_and_sides(tiles_of_three, variant, tau):
    for seed in range(6):
        rng = random.Random(seed)
        K, N, D = rng.randint(1, 3), rng.randint(3, 19), rng.randint(2, 8)
        split = {} if variant == ONE_SET else dict(anchors=rng.randint(1, N - 1))
        assert_equals_the_plain_loss(
            random_normal(K, N, D, seed=seed), random_concepts(N, seed), tau, **variant | split)


@every_variant
@pytest.mark.parametrize("tau", [0.005, 0.01, 0.0139, 0.05, 0.1, 1])
@pytest.mark.parametrize("rows", ["a lone pair", "identical", "identical or opposite"])
def test_loss_and_gradient_equal_the_plain_ones_on_degenerate_rows(tiles_of_three, variant, tau, rows):
    N = 2 if rows == "a lone pair" else 10
    states = random_normal(2, N if rows == "a lone pair" else 1, 4).repeat(1, 1 if N == 2 else N, 1)
    if rows == "identical or opposite":
        states[:, ::3] *= -1
    assert_equals_the_plain_loss(states, torch.arange(N) % (N // 2), tau, **sides(variant, N))


@every_variant
@pytest.mark.parametrize("size", range(2, 6))
def test_loss_and_gradient_equal_the_plain_ones_for_groups_of_every_size(tiles_of_three, variant, size):
    concept = torch.arange(4).repeat(size)
    assert_equals_the_plain_loss(random_normal(2, 4 * size, 5), concept, 0.1, **sides(variant, 4 * size))


@pytest.mark.parametrize("tau", [0.005, 0.01, 0.1, 1])
def test_with_translations_in_the_same_order_it_is_the_loss_of_all_cosines_between_two_sides(tau):
    def cross_entropy(states):
        scores = F.cosine_similarity(states[0, :20, None], states[0, None, 20:], dim=-1) / tau    # (20, 20)
        right = torch.arange(20)
        return (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2

    states, concept = random_normal(1, 40, 8).double(), torch.arange(20).repeat(2)
    loss, gradient = loss_and_gradient(contrastive_loss, states, concept, tau, anchors=20)
    slow, slow_gradient = loss_and_gradient(cross_entropy, states)
    assert torch.allclose(loss, slow, rtol=1e-12)
    assert torch.allclose(gradient, slow_gradient, rtol=1e-9, atol=1e-12)


@every_variant
@pytest.mark.parametrize("tau", [0.01, 0.1])
def test_bfloat16_states_have_the_loss_of_the_same_numbers_and_a_bfloat16_gradient(variant, tau):
    states, concept = random_normal(2, 300, 8).bfloat16(), random_concepts(300)
    loss, gradient = loss_and_gradient(contrastive_loss, states, concept, tau, **sides(variant, 300))
    true_loss, true = loss_and_gradient(
        plain_contrastive_loss, states.double(), concept, tau, **sides(variant, 300))
    assert loss.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(true_loss.item(), rel=1e-6, abs=1e-6 / tau)
    assert relative_error(gradient, true) <= 2**-8        # bfloat16 has 8 bits: one rounding at the very end


@pytest.mark.parametrize("tau", [0.005, 0.01, 0.0139])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_low_temperature_is_exact_even_if_every_candidate_is_nearly_opposite(tau, symmetric):
    centre = random_normal(2, 1, 8)
    states = torch.cat((centre, -centre)).view(2, 2, 1, 8).transpose(0, 1)                    # (2, 2, 1, 8)
    states = (states + 1e-2 * random_normal(2, 2, 5, 8, seed=1)).reshape(2, 10, 8)
    assert torch.cosine_similarity(states[:, :5], states[:, 5:], dim=-1).max() < -0.99
    loss = contrastive_loss(states, torch.arange(5).repeat(2), tau, anchors=5, symmetric=symmetric)
    assert 0 < loss < math.inf
    assert_equals_the_plain_loss(states, torch.arange(5).repeat(2), tau, anchors=5, symmetric=symmetric)


# --- gradient -----------------------------------------------------------------------------------------------

@every_variant
def test_the_gradient_agrees_with_finite_differences_in_float64(tiles_of_three, variant):
    states = random_normal(2, 7, 3).double().requires_grad_()
    concept = torch.tensor([0, 1, 2, 0, 0, 1, 5])
    for anchors in [None] if variant == ONE_SET else [2, 4]:
        assert torch.autograd.gradcheck(
            partial(contrastive_loss, concept=concept, tau=0.5, **variant | dict(anchors=anchors)), states)


@every_variant
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("rows, tau, limit", [
    ("random", 0.0139, 1e-5), ("random", 0.05, 1e-5), ("random", 0.1, 1e-5), ("random", 1, 1e-5),
    (1e-2, 0.05, 1e-4), (1e-2, 0.1, 1e-4), (1e-3, 0.05, 1e-4), (1e-3, 0.1, 1e-4),
])
def test_the_float32_gradient_is_exact_at_random_and_near_convergence(variant, autocast, rows, tau, limit):
    states, concept = random_normal(1, 300, 16), torch.arange(150).repeat(2)
    if rows != "random":                                  # a pair is one vector, and noise of this size
        states = random_normal(1, 150, 16, seed=1).repeat(1, 2, 1) + rows * states
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        _, gradient = loss_and_gradient(contrastive_loss, states, concept, tau, **sides(variant, 300))
    _, true = loss_and_gradient(
        plain_contrastive_loss, states.double(), concept, tau, **sides(variant, 300))
    assert relative_error(gradient, true) <= limit


@every_variant
@pytest.mark.parametrize("tau", [0.01, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_neither_the_loss_nor_the_gradient(variant, tau, dtype):
    states, concept = random_normal(2, 300, 8).to(dtype), random_concepts(300)
    loss, gradient = loss_and_gradient(contrastive_loss, states, concept, tau, **sides(variant, 300))
    with torch.autocast("cpu", torch.bfloat16):           # the backward pass, too
        loss_inside, inside = loss_and_gradient(
            contrastive_loss, states, concept, tau, **sides(variant, 300))
    assert loss_inside.dtype == torch.float32
    assert torch.equal(loss_inside, loss) and torch.equal(inside, gradient)


@every_variant
def test_the_gradient_is_orthogonal_to_every_row_as_lengths_do_not_matter(variant):
    states, concept = random_normal(2, 300, 8), random_concepts(300)
    _, gradient = loss_and_gradient(contrastive_loss, states, concept, **sides(variant, 300))
    assert gradient.abs().max() > 1e-3
    assert (gradient * states).sum(dim=-1).abs().max() < 1e-7


def test_the_gradient_scales_with_the_incoming_gradient():
    states, concept = random_normal(2, 300, 8), random_concepts(300)
    _, once = loss_and_gradient(contrastive_loss, states, concept)
    _, thrice = loss_and_gradient(lambda *args: 3 * contrastive_loss(*args), states, concept)
    assert torch.allclose(thrice, 3 * once, rtol=1e-5, atol=1e-9) and once.abs().max() > 1e-3


def test_the_gradient_reaches_what_the_states_were_made_of_and_adds_to_what_is_there():
    states, concept = random_normal(8, 30, 2), random_concepts(30)
    leaf = states.clone().requires_grad_()
    loss = contrastive_loss(leaf.transpose(0, 2), concept) + leaf.sum()         # (2, 30, 8), not contiguous
    loss.backward()
    _, expected = loss_and_gradient(contrastive_loss, states.transpose(0, 2).contiguous(), concept)
    assert torch.allclose(leaf.grad, 1 + expected.transpose(0, 2), atol=1e-6)


@every_variant
def test_a_second_backward_pass_over_a_kept_graph_gives_the_same_gradient(variant):
    states, concept = random_normal(2, 300, 8).requires_grad_(), random_concepts(300)
    loss = contrastive_loss(states, concept, **sides(variant, 300))
    once, = torch.autograd.grad(loss, states, retain_graph=True)
    again, = torch.autograd.grad(loss, states)
    assert torch.equal(once, again) and once.abs().max() > 1e-3


def test_a_second_derivative_through_the_incoming_gradient_is_refused():
    states = random_normal(1, 6, 4).requires_grad_()
    with pytest.raises(RuntimeError, match="once"):
        loss = contrastive_loss(states, PAIRS).square()   # its derivative, 2 loss, has one, too
        gradient, = torch.autograd.grad(loss, states, create_graph=True)
        gradient.square().sum().backward()


def test_a_penalty_on_the_gradient_is_refused_rather_than_silently_left_out():
    states = random_normal(1, 6, 4).requires_grad_()
    with pytest.raises(RuntimeError, match="once"):
        loss = contrastive_loss(states, PAIRS)
        gradient, = torch.autograd.grad(loss, states, create_graph=True)
        (loss + gradient.square().sum()).backward()


@every_variant
def test_rows_of_zeros_have_finite_losses_and_gradients(variant):
    states = random_normal(2, 6, 4)
    states[:, [1, 5]] = 0
    for tau in (0.005, 0.1):
        loss, gradient = loss_and_gradient(contrastive_loss, states, PAIRS, tau, **sides(variant, 6))
        true, _ = loss_and_gradient(
            plain_contrastive_loss, states.double(), PAIRS, tau, **sides(variant, 6))
        assert loss.item() == pytest.approx(true.item(), rel=1e-5) and gradient.isfinite().all()
        loss, gradient = loss_and_gradient(
            contrastive_loss, torch.zeros(2, 6, 4), PAIRS, tau, **sides(variant, 6))
        assert loss.isfinite() and gradient.abs().max() == 0


@every_variant
def test_the_value_is_the_same_when_no_gradient_is_wanted(variant):
    states, concept = random_normal(2, 300, 8), random_concepts(300)
    wanted, _ = loss_and_gradient(contrastive_loss, states, concept, **sides(variant, 300))
    unwanted = contrastive_loss(states, concept, **sides(variant, 300))
    with torch.no_grad():
        off = contrastive_loss(states.requires_grad_(), concept, **sides(variant, 300))
    assert not unwanted.requires_grad and not off.requires_grad
    assert torch.equal(unwanted, wanted) and torch.equal(off, wanted)


# --- memory -------------------------------------------------------------------------------------------------

class Memory(TorchDispatchMode):
    """Of all tensors that operations return: how large the largest is, and how many bytes exist at a time."""

    def __init__(self):
        super().__init__()
        self.largest, self.peak, self.alive = 0, 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
                self.alive.append(weakref.ref(tensor))
        self.alive = [ref for ref in self.alive if ref() is not None]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for r in self.alive
                    if (t := r()) is not None}            # views share one
        self.peak = max(self.peak, sum(storages.values()))
        return result


def memory(loss, N, **kwargs):
    states, concept = random_normal(2, N, 16), torch.arange(N) % (N // 2)
    with Memory() as used:
        loss_and_gradient(loss, states, concept, **kwargs)
    return used


@every_variant
def test_no_matrix_of_all_similarities_is_ever_allocated_or_put_together_of_tiles(variant):
    N = 1024
    used = memory(contrastive_loss, N, **sides(variant, N))
    assert used.largest < N * N / 4
    assert used.peak < 4 * N * N / 2                      # bytes: half of one float32 matrix
    plain = memory(plain_contrastive_loss, N, **sides(variant, N))
    assert plain.largest >= 2 * N * N and plain.peak > 4 * 2 * N * N   # the meter sees those of both levels


def test_memory_grows_no_faster_than_the_number_of_rows():
    # above the two levels of states and their gradient there are tiles, of the same size
    assert memory(contrastive_loss, 2048).peak <= 2 * memory(contrastive_loss, 1024).peak


# --- concepts and order -------------------------------------------------------------------------------------

@every_variant
def test_the_ids_of_concepts_may_be_any_integers(variant):
    states, concept = random_normal(2, 30, 4), random_concepts(30)
    names = torch.tensor([-2**62, 2**62, -1, -7, 10**12, *range(1000, 60_000, 1001)])[concept]
    assert names.unique().numel() == concept.unique().numel()
    expected = loss_and_gradient(contrastive_loss, states, concept, **sides(variant, 30))
    for ids in (names, concept.int(), 29 - concept):
        loss, gradient = loss_and_gradient(contrastive_loss, states, ids, **sides(variant, 30))
        assert torch.allclose(loss, expected[0], rtol=1e-6)
        assert torch.allclose(gradient, expected[1], rtol=1e-4, atol=1e-7)


@every_variant
def test_the_order_of_the_rows_does_not_matter(tiles_of_three, variant):
    states, concept = random_normal(2, 30, 4), random_concepts(30)
    generator = torch.Generator().manual_seed(3)
    split = sides(variant, 30)["anchors"] or 30           # two sides stay what they are
    order = torch.cat((torch.randperm(split, generator=generator),
                       split + torch.randperm(30 - split, generator=generator)))
    loss, gradient = loss_and_gradient(contrastive_loss, states, concept, **sides(variant, 30))
    shuffled, of_shuffled = loss_and_gradient(
        contrastive_loss, states[:, order], concept[order], **sides(variant, 30))
    assert torch.allclose(shuffled, loss, rtol=1e-6)
    assert torch.allclose(of_shuffled, gradient[:, order], rtol=1e-4, atol=1e-7)


# --- refusals -----------------------------------------------------------------------------------------------

@every_variant
def test_a_batch_in_which_no_pair_shares_a_concept_is_refused(variant):
    with pytest.raises(ValueError, match="share a concept"):
        contrastive_loss(torch.ones(1, 6, 4), torch.arange(6), **sides(variant, 6))


@pytest.mark.parametrize("variant", TWO_SIDES)
@pytest.mark.parametrize("anchors", [0, 2, 4])
def test_two_sides_whose_only_pairs_are_on_the_same_side_are_refused(variant, anchors):
    concept = torch.tensor([0, 0, 1, 1] if anchors == 2 else [0, 1, 0, 1])   # 0, 4: one side is empty
    with pytest.raises(ValueError, match="share a concept"):
        contrastive_loss(torch.ones(1, 4, 4), concept, anchors=anchors, **variant)


@pytest.mark.parametrize("tau", [0.00499, 0, -0.1])
def test_a_temperature_below_0_005_is_refused(tau):
    with pytest.raises(ValueError, match=f"tau {tau}"):
        contrastive_loss(torch.ones(1, 6, 4), PAIRS, tau=tau)


def test_the_smallest_temperature_is_accepted():
    loss = contrastive_loss(torch.ones(1, 6, 4), PAIRS, tau=0.005)
    assert loss.item() == pytest.approx(math.log(5), abs=1e-5)
