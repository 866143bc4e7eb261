"""Active forgetting: what a reset changes and what it does not, and how a new language is attached."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import forget
from forget import (ExpandedEmbedding, ExpandedHead, Forgetting, assemble, expand_vocabulary, init_new_rows,
                    merge_vocabulary, new_row_groups)
from model import GPT, ModelConfig, lm_loss, lr_multiplier

V, N, D = 400, 100, 32                                             # old tokens, new tokens, width


def small_model(seed=0, vocab_size=V, n_layer=2):
    return GPT(ModelConfig(vocab_size, n_layer=n_layer, n_head=2, d_model=D, context_len=16)).initialise(seed)


def random_tokens(*size, below=V, seed=1):
    return torch.randint(below, size, generator=torch.Generator().manual_seed(seed))


def random_normal(*size, seed=2):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def learn(model, optimizer, steps, tokens):
    """Do some steps on rows of tokens (B, T + 1)."""
    for _ in range(steps):
        optimizer.zero_grad()
        lm_loss(model.logits(tokens[:, :-1]), tokens[:, 1:]).backward()
        optimizer.step()


def trained():
    """A model after three steps, in which every token occurred, and its optimizer."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.param_groups(1e-2, 1e-2, 0.1), betas=(0.9, 0.95), fused=True)
    learn(model, optimizer, 3, (torch.arange(50 * 17) % V).view(50, 17))
    return model, optimizer


def picture(model, optimizer):
    """Name -> weight, both moments and step counter of every parameter, copied."""
    return {name: dict(weight=p.detach().clone(), **{k: v.clone() for k, v in optimizer.state[p].items()})
            for name, p in model.named_parameters()}


def changes(before, after):
    """Name -> the tensors that differ between two pictures; unchanged parameters are left out."""
    assert before.keys() == after.keys()
    found = {name: {k for k in was if not torch.equal(was[k], after[name][k])}
             for name, was in before.items()}
    return {name: parts for name, parts in found.items() if parts}


def reset(**options):
    """Pictures of a trained model before and after one reset."""
    model, optimizer = trained()
    before = picture(model, optimizer)
    assert Forgetting(100, 10, **options).reset_if_due(20, model, optimizer) is True
    return before, picture(model, optimizer)


EVERYTHING = {"weight", "exp_avg", "exp_avg_sq", "step"}


# --- when ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("steps, every, start, until, at", [
    (100, 20, 0.0, 1.0, [20, 40, 60, 80]),                         # never before the first step nor after all
    (100, 30, 0.0, 1.0, [30, 60]),                                 # a reset at 90 would leave 10 steps
    (100, 20, 0.0, 0.5, [20, 40]),
    (100, 20, 0.0, 0.4, [20, 40]),
    (100, 20, 0.5, 1.0, [60, 80]),
    (100, 20, 0.4, 0.7, [40, 60]),
    (100, 50, 0.0, 1.0, [50]),
    (5, 1, 0.0, 1.0, [1, 2, 3, 4]),
    (100, 51, 0.0, 1.0, []),
    (100, 100, 0.0, 1.0, []),
    (100, 20, 0.0, 0.0, []),
    (100, 0, 0.0, 1.0, []),
])
def test_resets_come_every_k_steps_between_two_shares_and_leave_a_whole_cycle(steps, every, start, until, at):
    assert Forgetting(steps, every, start, until).at == at


def test_a_blend_of_zero_is_no_reset():
    assert Forgetting(100, 20, blend=0.0).at == []


def test_no_setting_resets_at_step_zero_or_too_late():
    for steps in range(1, 30):
        for every in range(steps + 2):
            assert all(every <= s <= steps - every for s in Forgetting(steps, every).at)


def test_between_resets_nothing_changes():
    model, optimizer = trained()
    before, forgetting = picture(model, optimizer), Forgetting(100, 10)
    assert {forgetting.reset_if_due(step, model, optimizer) for step in (0, 1, 9, 11, 19, 95, 99)} == {False}
    assert not changes(before, picture(model, optimizer))


# --- what ---------------------------------------------------------------------------------------------------

def test_a_reset_replaces_the_embedding_clears_its_optimizer_state_and_touches_nothing_else():
    before, after = reset()
    assert changes(before, after) == {"embed.weight": EVERYTHING}
    embed = after["embed.weight"]
    assert (embed["weight"] != before["embed.weight"]["weight"]).any(dim=1).all()
    assert embed["weight"].mean().item() == pytest.approx(0, abs=1e-3)
    assert embed["weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert not embed["exp_avg"].any() and not embed["exp_avg_sq"].any() and embed["step"] == 0
    assert before["head.weight"]["step"] == after["head.weight"]["step"] == 3


def test_the_new_rows_are_the_noise_of_a_generator_of_seed_and_step():
    _, after = reset(seed=3)
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 20)
    assert torch.equal(after["embed.weight"]["weight"], 0.02 * torch.randn(V, D, generator=generator))


def test_the_optimizer_state_may_be_kept():
    before, after = reset(reset_optimizer=False)
    assert changes(before, after) == {"embed.weight": {"weight"}}
    assert after["embed.weight"]["step"] == 3
    assert torch.equal(after["embed.weight"]["weight"], reset()[1]["embed.weight"]["weight"])


def test_the_first_step_after_a_reset_is_the_first_step_of_a_new_optimizer():
    model, optimizer = trained()
    Forgetting(100, 10).reset_if_due(20, model, optimizer)
    again = copy.deepcopy(model)
    tokens = (torch.arange(50 * 17) % V).view(50, 17)
    learn(model, optimizer, 1, tokens)
    fresh = torch.optim.AdamW(again.param_groups(1e-2, 1e-2, 0.1), betas=(0.9, 0.95), fused=True)
    learn(again, fresh, 1, tokens)
    assert torch.equal(model.embed.weight, again.embed.weight)
    assert not torch.equal(model.head.weight, again.head.weight)   # the head's optimizer state was kept


def test_blend_moves_rows_a_part_of_the_way_to_what_a_whole_reset_gives():
    (before, quarter), (_, whole) = (reset(blend=b) for b in (0.25, 1.0))
    old, quarter, whole = (p["embed.weight"]["weight"] for p in (before, quarter, whole))
    assert torch.equal(quarter, old.lerp(whole, 0.25)) and torch.allclose(quarter, 0.75 * old + 0.25 * whole)
    assert whole.std().item() == pytest.approx(0.02, rel=0.05)


def test_noise_depends_on_seed_and_step_alone():
    def rows(step, **options):
        model = small_model(seed=5)
        Forgetting(100, 10, **options).reset_if_due(step, model, torch.optim.AdamW(model.parameters()))
        return model.embed.weight.detach()
    assert torch.equal(rows(20, seed=1), rows(20, seed=1))
    assert torch.equal(rows(20, seed=1), rows(20, seed=1, start=0.1, until=0.5, reset_optimizer=False))
    drawn = [small_model(seed=1).embed.weight.detach(), *(rows(20, seed=s) for s in (0, 1, 2)), rows(30)]
    assert all((a != b).float().mean() > 0.99 for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_reset_before_anything_was_learned_has_no_moments_to_forget():
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    assert Forgetting(100, 10).reset_if_due(10, model, optimizer) and not optimizer.state


# --- the clock ----------------------------------------------------------------------------------------------

def test_the_rate_starts_again_with_each_cycle_and_the_last_one_lasts_to_the_end():
    forgetting = Forgetting(300, 80, until=0.6)
    assert forgetting.at == [80, 160]
    for begin, end in ((0, 80), (80, 160), (160, 300)):
        rates = [forgetting.lr_factor("embed", step, 0.1) for step in range(begin, end)]
        assert rates == [lr_multiplier(i, end - begin, 0.1) for i in range(end - begin)]
        assert rates[0] <= 0.13 and max(rates) == 1.0 and rates[-1] == pytest.approx(0.1, abs=2e-3)
    # absolute values: 8 steps of warm-up, then a cosine over 72 steps
    assert forgetting.lr_factor("embed", 80, 0.1) == pytest.approx(1 / 8)
    assert forgetting.lr_factor("embed", 87, 0.1) == 1.0
    assert forgetting.lr_factor("embed", 80 + 8 + 36, 0.1) == pytest.approx(0.55)


def test_without_resets_the_rate_is_that_of_the_whole_training():
    for step in range(50):
        assert Forgetting(50, 0).lr_factor("embed", step, 0.2) == lr_multiplier(step, 50, 0.2)


def test_only_the_embedding_follows_the_cycles_and_only_if_the_optimizer_is_reset():
    groups = [group["name"] for group in small_model().param_groups(1, 1, 0)]
    for reset_optimizer, clocked in ((True, {"embed"}), (False, set())):
        forgetting = Forgetting(100, 10, reset_optimizer=reset_optimizer)
        whole, cycle = lr_multiplier(37, 100, 0.05), lr_multiplier(7, 10, 0.05)
        factors = {name: forgetting.lr_factor(name, 37, 0.05) for name in groups}
        assert factors == {name: cycle if name in clocked else whole for name in groups} and cycle != whole


# --- expansion ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["noise", "mean"])
@pytest.mark.parametrize("protocol", ["rows", "head"])
def test_new_tokens_leave_the_scores_of_the_old_ones_as_they_were(how, protocol):
    model, tokens = trained()[0], random_tokens(3, 16)
    before = model.logits(tokens)
    assert expand_vocabulary(model, N, how, protocol) is model
    after = model.logits(tokens)
    assert after.shape == (3, 16, V + N) and torch.equal(after[..., :V], before)


def test_under_all_the_old_rows_are_drawn_again():
    model = trained()[0]
    before = copy.deepcopy(model)
    expand_vocabulary(model, N, protocol="all")
    for part in ("embed", "head"):
        was, old = getattr(before, part).weight, getattr(model, part).old
        assert (was != old).any(dim=1).all() and old.std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(model.embed.old, model.head.old)
    assert all(map(torch.equal, before.body.parameters(), model.body.parameters()))


@pytest.mark.parametrize("protocol, learning", [
    ("rows", {"embed.new", "head.new"}), ("head", {"embed.new", "head.new", "head.old"}),
    ("all", {"embed.new", "head.new", "head.old", "embed.old"})])
def test_only_what_the_protocol_names_learns_even_with_weight_decay(protocol, learning):
    model = expand_vocabulary(trained()[0], N, protocol=protocol)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = new_row_groups(model, 0.05)
    assert all(g["lr"] == g["peak_lr"] == 0.05 and g["weight_decay"] == 0 for g in groups)
    assert [g["name"] for g in groups] == ["embed", "head"]
    given = [id(p) for g in groups for p in g["params"]]
    assert len(given) == len(set(given))
    assert set(given) == {id(p) for p in model.parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([g | dict(weight_decay=0.1) for g in groups])
    learn(model, optimizer, 100, random_tokens(4, 17, below=V + N))
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == learning


@pytest.mark.parametrize("body, learning", [
    ("adapters", lambda name: name.endswith((".up", ".down"))),
    ("whole", lambda name: name.startswith("body."))])
def test_the_body_or_its_adapters_can_learn_with_the_new_rows(body, learning):
    model, tokens = trained()[0], random_tokens(3, 16)
    before = model.logits(tokens)
    expand_vocabulary(model, N, body=body)
    assert torch.equal(model.logits(tokens)[..., :V], before)                          # before the first step
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = new_row_groups(model, 0.05, 0.01)
    assert {g["name"]: g["peak_lr"] for g in groups} == dict(embed=0.05, head=0.05, body=0.01)
    learn(model, torch.optim.AdamW(groups), 100, random_tokens(4, 17, below=V + N))
    expected = {name for name in start if learning(name)} | {"embed.new", "head.new"}
    assert {name for name, p in model.named_parameters() if not torch.equal(p, start[name])} == expected


@pytest.mark.parametrize("seed", [0, 5])
def test_adapters_do_not_begin_with_the_numbers_of_the_new_rows(seed):
    model = expand_vocabulary(small_model(), N, seed=seed, body="adapters")
    down, new = model.body[0].query_key_value.down, torch.cat((model.embed.new, model.head.new))
    assert F.cosine_similarity(down[:, None], new, dim=-1).abs().max() < 0.9


def test_scaled_rows_have_the_standard_deviation_of_the_old_ones():
    model = small_model(seed=4)
    with torch.no_grad():
        model.embed.weight *= 5
    old = model.embed.weight.clone()
    expand_vocabulary(model, N, "scaled", seed=6)
    noise = torch.randn(N, D, generator=torch.Generator().manual_seed(-7))
    assert torch.equal(model.embed.new, old.std().item() * noise)


def test_the_new_language_is_learned_while_the_old_one_stays():
    model, old = trained()[0], random_tokens(2, 16)
    before = model.logits(old)
    expand_vocabulary(model, N)
    new = V + random_tokens(4, 17, below=20)
    loss = lm_loss(model.logits(new[:, :-1]), new[:, 1:]).item()
    learn(model, torch.optim.AdamW(new_row_groups(model, 0.02)), 60, new)
    assert lm_loss(model.logits(new[:, :-1]), new[:, 1:]).item() < loss - 2
    assert torch.equal(model.logits(old)[..., :V], before)


def test_a_expanded_embedding_looks_up_rows_of_its_weight():
    embed = ExpandedEmbedding(random_normal(7, 5), random_normal(3, 5))
    tokens = random_tokens(4, 50, below=10)
    assert embed.weight.shape == (10, 5) and set(tokens.flatten().tolist()) == set(range(10))
    assert torch.equal(embed(tokens), embed.weight[tokens])


def test_a_expanded_head_is_the_product_with_its_weight():
    head, states = ExpandedHead(random_normal(7, 5), random_normal(3, 5)), random_normal(2, 4, 5)
    assert head(states).shape == (2, 4, 10)
    assert torch.allclose(head(states), F.linear(states, head.weight), atol=1e-6)


def test_new_rows_get_the_gradient_that_they_would_have_in_an_ordinary_model_of_more_tokens():
    model, tokens = expand_vocabulary(trained()[0], N), random_tokens(8, 17, below=V + N)
    ordinary = merge_vocabulary(copy.deepcopy(model))
    for m in (model, ordinary):
        lm_loss(m.logits(tokens[:, :-1]), tokens[:, 1:]).backward()
    for part in ("embed", "head"):
        found, wanted = getattr(model, part).new.grad, getattr(ordinary, part).weight.grad[V:]
        assert wanted.any() and torch.allclose(found, wanted, atol=1e-7)
        assert getattr(model, part).old.grad is None
    rows = ExpandedEmbedding(random_normal(V, D), random_normal(N, D))
    usual = nn.Embedding.from_pretrained(rows.weight.detach(), freeze=False)
    slope = random_normal(8, 17, D)
    for layer in (rows, usual):
        (layer(tokens) * slope).sum().backward()
    assert torch.allclose(torch.cat((rows.old.grad, rows.new.grad)), usual.weight.grad, atol=1e-5)


def test_merging_gives_an_ordinary_model_with_the_same_scores():
    model, tokens = expand_vocabulary(trained()[0], N), random_tokens(3, 16, below=V + N)
    learn(model, torch.optim.AdamW(new_row_groups(model, 0.02)), 3, V + random_tokens(4, 17, below=N))
    before = model.logits(tokens)
    assert merge_vocabulary(model) is model
    assert torch.allclose(model.logits(tokens), before, atol=1e-6)
    fresh = small_model(vocab_size=V + N)
    assert model.config == fresh.config
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in fresh.state_dict().items()}
    assert [type(m) for m in model.modules()] == [type(m) for m in fresh.modules()]
    assert all(p.requires_grad for p in model.parameters())
    groups = model.param_groups(1e-2, 1e-2, 0.1)                    # everything can learn again
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    was = picture(model, optimizer := torch.optim.AdamW(groups))
    learn(model, optimizer, 1, tokens)
    assert all(not torch.equal(was[name]["weight"], p) for name, p in model.named_parameters())


def test_a_merged_model_can_be_expanded_again():
    model, tokens = trained()[0], random_tokens(3, 16)
    before = model.logits(tokens)
    merge_vocabulary(expand_vocabulary(merge_vocabulary(expand_vocabulary(model, N)), N))
    assert model.config.vocab_size == V + 2 * N
    assert torch.allclose(model.logits(tokens)[..., :V], before, atol=1e-6)


def test_first_values_are_noise_or_the_mean_of_the_old_rows_plus_that_noise():
    old = 1 + random_normal(50, D)
    noise, mean = (
        init_new_rows(old, 1000, how, torch.Generator().manual_seed(3)) for how in ("noise", "mean"))
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    assert noise.std().item() == pytest.approx(0.02, rel=0.02)
    assert torch.equal(mean, old.mean(dim=0) + noise)


def test_first_values_can_be_the_average_of_the_subwords_of_a_token():
    model = small_model()
    embed, head = model.embed.weight.detach().clone(), model.head.weight.detach().clone()
    expand_vocabulary(model, 2, how="subwords", subwords=[[3], [4, 7, 7]])
    for part, old in ((model.embed, embed), (model.head, head)):
        assert torch.equal(part.new[0], old[3])
        torch.testing.assert_close(part.new[1], (old[4] + 2 * old[7]) / 3)


@pytest.mark.parametrize("how", ["noise", "mean"])
@pytest.mark.parametrize("protocol", ["rows", "head", "all"])
def test_first_values_are_those_of_one_generator_embedding_before_head(how, protocol):
    first = small_model(seed=4)
    model = expand_vocabulary(copy.deepcopy(first), N, how, protocol, seed=6)
    generator = torch.Generator().manual_seed(-7)
    noise = lambda n: 0.02 * torch.randn(n, D, generator=generator)                          # noqa: E731
    old = [first.embed.weight, first.head.weight]
    if protocol == "all":
        old = [noise(V), noise(V)]
    for part, rows in zip((model.embed, model.head), old):
        expected = noise(N) if how == "noise" else rows.mean(dim=0) + noise(N)
        assert torch.equal(part.old, rows) and torch.equal(part.new, expected)


def test_first_values_depend_on_the_seed_and_differ_between_embedding_and_head():
    def rows(seed):
        model = expand_vocabulary(small_model(), N, seed=seed)
        return model.embed.new.detach(), model.head.new.detach()
    assert all(map(torch.equal, rows(0), rows(0)))
    assert not torch.equal(*rows(0)) and not torch.equal(rows(0)[0], rows(1)[0])


@pytest.mark.parametrize("protocol", ["rows", "head", "all"])
def test_a_new_row_does_not_begin_with_the_noise_that_an_old_row_began_with(protocol):
    """Token t of the new language translates English token t, so their first rows must not be related."""
    first = small_model(seed=3)
    model = expand_vocabulary(copy.deepcopy(first), N, protocol=protocol, seed=3)
    old = torch.cat((first.embed.weight, first.head.weight))
    new = torch.cat((model.embed.new, model.head.new))
    assert F.cosine_similarity(new[:, None], old, dim=-1).abs().max() < 0.9


def test_an_expanded_model_with_a_tied_head_has_two_matrices_from_there_on():
    model = GPT(ModelConfig(V, 2, 2, D, 16, tied=True)).initialise(0)
    rows, tokens = model.embed.weight.detach().clone(), random_tokens(2, 16, below=V)
    before = model.logits(tokens)
    expand_vocabulary(model, N, protocol="head")
    assert torch.equal(model.logits(tokens)[..., :V], before)
    with torch.no_grad():
        model.head.old.add_(1.0)
    assert torch.equal(model.embed.old, rows) and not merge_vocabulary(model).config.tied


@pytest.mark.parametrize("expanded", [False, True])
def test_assembling_takes_the_body_of_one_model_and_the_rows_of_the_other(expanded):
    english, other = small_model(seed=1), expand_vocabulary(small_model(seed=2), N, protocol="all")
    with torch.no_grad():
        english.final_norm.weight.add_(random_normal(D))
        english.body[1].feed_norm.weight.add_(random_normal(D))
    other = other if expanded else merge_vocabulary(other)
    parts = {name: p.detach().clone() for name, p in other.named_parameters()}
    was = {name: p.detach().clone() for name, p in english.named_parameters()}
    assert assemble(english.state_dict(), other) is other
    for name, p in other.named_parameters():
        wanted = parts[name] if name.startswith(("embed", "head")) else was[name]
        assert torch.equal(p, wanted), name
    with torch.no_grad():                                          # a copy: the first model stays its own
        other.final_norm.weight.zero_()
    assert all(torch.equal(p, was[name]) for name, p in english.named_parameters())


@pytest.mark.parametrize("n_layer", [1, 3])
def test_a_body_of_other_sizes_is_refused(n_layer):
    for sizes in ((n_layer, 2), (2, n_layer)):
        tuned, model = (small_model(n_layer=n) for n in sizes)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match="differs in shape"):
            assemble(tuned.state_dict(), model)
        assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_tokens_at_the_border_of_old_and_new_rows_are_looked_up_in_their_own():
    embed = ExpandedEmbedding(torch.zeros(4, 2), torch.ones(3, 2))
    assert embed(torch.arange(7)[None])[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    head = ExpandedHead(torch.zeros(4, 2), torch.ones(3, 2))
    assert head(torch.ones(1, 2))[0].tolist() == [0, 0, 0, 0, 2, 2, 2]


def test_the_demonstration_shows_resets_and_a_body_that_stays(capsys):
    forget.main()
    shown = capsys.readouterr().out
    assert "step  60  embeddings are reset" in shown
    assert "old logits unchanged by 20 new tokens: True" in shown and "body unchanged: True" in shown
    assert shown.endswith("python train.py --method forget\n")
