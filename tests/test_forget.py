"""Active forgetting: what a reset changes and what it leaves; a new language that joins a finished model."""
import copy
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import forget
import train
from data import corpus as corpora
from data.config import Config, parse_args
from data.runs import load_checkpoint
from forget import (Forgetting, GrownEmbedding, GrownHead, assemble, expand_vocabulary, first_rows, merge,
                    new_rows, recovery)
from model import GPT, Shape, learning_rate, lm_loss
from test_train import SMALL, flags, log_without_speed, run_recipe, same_weights

V, N, D = 400, 100, 32                                             # old tokens, new tokens, width
SHORT = dict(method="forget", steps=12, reset_every=4, reset_until=1.0, adapt_steps=8, adapt_tokens=5000,
             adapt_batch=2, adapt_replay=0, instruct_steps=0, log_every=2)  # resets before steps 4 and 8


def small_model(tied=False, seed=0, vocab_size=V):
    return GPT(Shape(vocab_size, n_layer=2, n_head=2, d_model=D, context_len=16, tied=tied)).initialise(seed)


def random_tokens(*size, below=V, seed=1):
    return torch.randint(below, size, generator=torch.Generator().manual_seed(seed))


def random_normal(*size, seed=2):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def learn(model, optimizer, steps, tokens):
    """Some steps on rows of tokens (B, T + 1)."""
    for _ in range(steps):
        optimizer.zero_grad()
        lm_loss(model.logits(tokens[:, :-1]), tokens[:, 1:]).backward()
        optimizer.step()


def trained(tied=False):
    """A model after three steps, in which every token occurred, and its optimizer."""
    model = small_model(tied)
    optimizer = torch.optim.AdamW(model.groups(1e-2, 1e-2, 1e-2, 0.1), betas=(0.9, 0.95), fused=True)
    learn(model, optimizer, 3, (torch.arange(50 * 17) % V).view(50, 17))
    return model, optimizer


def picture(model, optimizer):
    """Name -> weight, both moments and step counter of every parameter, copied."""
    return {name: dict(weight=p.detach().clone(), **{k: v.clone() for k, v in optimizer.state[p].items()})
            for name, p in model.named_parameters()}


def changes(before, after):
    """Name -> what of a parameter differs between two pictures; parameters as they were are left out."""
    assert before.keys() == after.keys()
    found = {name: {k for k in was if not torch.equal(was[k], after[name][k])}
             for name, was in before.items()}
    return {name: parts for name, parts in found.items() if parts}


def reset(tied=False, **knobs):
    """What one reset does to a trained model: pictures before and after."""
    model, optimizer = trained(tied)
    before = picture(model, optimizer)
    assert Forgetting(100, 10, **knobs).before(20, model, optimizer)
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
    (100, 51, 0.0, 1.0, []),
    (100, 100, 0.0, 1.0, []),
    (100, 20, 0.0, 0.0, []),
    (100, 0, 0.0, 1.0, []),
])
def test_resets_come_every_k_steps_between_two_shares_and_leave_a_whole_cycle(steps, every, start, until, at):
    assert Forgetting(steps, every, start, until).at == at


def test_no_setting_resets_at_step_zero_or_too_late():
    for steps in range(1, 30):
        for every in range(steps + 2):
            assert all(every <= s <= steps - every for s in Forgetting(steps, every).at)


def test_between_resets_nothing_changes():
    model, optimizer = trained()
    before, forgetting = picture(model, optimizer), Forgetting(100, 10)
    assert not any(forgetting.before(step, model, optimizer) for step in (0, 1, 9, 11, 19, 95, 99))
    assert not changes(before, picture(model, optimizer))


# --- what ---------------------------------------------------------------------------------------------------

def test_a_reset_draws_the_embedding_anew_forgets_its_moments_and_touches_nothing_else():
    before, after = reset()
    assert changes(before, after) == {"embed.weight": EVERYTHING}
    embed = after["embed.weight"]
    assert (embed["weight"] != before["embed.weight"]["weight"]).any(dim=1).all()
    assert embed["weight"].mean().item() == pytest.approx(0, abs=1e-3)
    assert embed["weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert not embed["exp_avg"].any() and not embed["exp_avg_sq"].any() and embed["step"] == 0
    assert before["head.weight"]["step"] == after["head.weight"]["step"] == 3


def test_with_head_the_head_is_reset_too_to_other_noise():
    before, after = reset(head=True)
    assert changes(before, after) == {"embed.weight": EVERYTHING, "head.weight": EVERYTHING}
    assert after["head.weight"]["weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(after["head.weight"]["weight"], after["embed.weight"]["weight"])
    assert torch.equal(after["embed.weight"]["weight"], reset()[1]["embed.weight"]["weight"])


@pytest.mark.parametrize("head", [False, True])
def test_a_tied_model_has_one_matrix_to_reset_and_its_head_follows(head):
    model, optimizer = trained(tied=True)
    before = picture(model, optimizer)
    Forgetting(100, 10, head=head).before(20, model, optimizer)
    assert changes(before, picture(model, optimizer)) == {"embed.weight": EVERYTHING}
    assert model.head.weight is model.embed.weight
    states = random_normal(3, D)
    assert torch.equal(model.head(states), F.linear(states, model.embed.weight))


def test_each_part_of_a_reset_can_be_left_out():
    assert changes(*reset(weights=False)) == {"embed.weight": EVERYTHING - {"weight"}}
    assert changes(*reset(moments=False)) == {"embed.weight": {"weight"}}
    assert changes(*reset(weights=False, moments=False)) == {}
    assert changes(*reset(clock=False)) == {"embed.weight": EVERYTHING}


def test_a_fraction_resets_only_some_rows_with_their_moments_and_keeps_the_step_counter():
    before, after = reset(fraction=0.25)
    assert changes(before, after) == {"embed.weight": EVERYTHING - {"step"}}
    was, now = before["embed.weight"], after["embed.weight"]
    rows = (was["weight"] != now["weight"]).any(dim=1)
    assert rows.float().mean().item() == pytest.approx(0.25, abs=0.08)
    assert (was["weight"] != now["weight"])[rows].all()            # a row is drawn as a whole
    assert now["weight"][rows].std().item() == pytest.approx(0.02, rel=0.1)
    for moment in ("exp_avg", "exp_avg_sq"):
        assert was[moment].any(dim=1).all() and not now[moment][rows].any()
        assert torch.equal(was[moment][~rows], now[moment][~rows])


def test_blend_moves_rows_a_part_of_the_way_to_what_a_whole_reset_gives():
    (before, none), (_, quarter), (_, whole) = (reset(blend=b) for b in (0.0, 0.25, 1.0))
    old, none, quarter, whole = (p["embed.weight"]["weight"] for p in (before, none, quarter, whole))
    assert torch.equal(none, old)
    assert torch.equal(quarter, old.lerp(whole, 0.25)) and torch.allclose(quarter, 0.75 * old + 0.25 * whole)
    assert torch.equal(reset(blend=0.0, moments=False)[1]["embed.weight"]["weight"], old)
    assert whole.std().item() == pytest.approx(0.02, rel=0.05)


def test_noise_depends_on_seed_and_step_alone():
    def rows(step, **knobs):
        model = small_model(seed=5)
        Forgetting(100, 10, **knobs).before(step, model, torch.optim.AdamW(model.parameters()))
        return model.embed.weight.detach()
    assert torch.equal(rows(20, seed=1), rows(20, seed=1))
    assert torch.equal(rows(20, seed=1), rows(20, seed=1, start=0.1, until=0.5, clock=False))
    drawn = [small_model(seed=1).embed.weight.detach(), *(rows(20, seed=s) for s in (0, 1, 2)), rows(30)]
    assert all((a != b).float().mean() > 0.99 for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_reset_before_anything_was_learned_has_no_moments_to_forget():
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    assert Forgetting(100, 10).before(10, model, optimizer) and not optimizer.state


# --- the clock ----------------------------------------------------------------------------------------------

def test_the_rate_begins_anew_with_each_cycle_and_the_last_one_lasts_to_the_end():
    forgetting = Forgetting(300, 80, until=0.6)
    assert forgetting.at == [80, 160]
    for begin, end in ((0, 80), (80, 160), (160, 300)):
        rates = [forgetting.rate(step, 300, 0.1) for step in range(begin, end)]
        assert rates == [learning_rate(i, end - begin, 0.1) for i in range(end - begin)]
        assert rates[0] <= 0.13 and max(rates) == 1.0 and rates[-1] == pytest.approx(0.1, abs=2e-3)


def test_without_resets_the_rate_is_that_of_the_whole_training():
    assert all(Forgetting(50, 0).rate(step, 50, 0.2) == learning_rate(step, 50, 0.2) for step in range(50))


def test_the_clock_is_that_of_what_is_reset():
    assert Forgetting(100, 10).parts == {"embed"}
    assert Forgetting(100, 10, head=True).parts == {"embed", "head"}
    assert Forgetting(100, 10, clock=False).parts == set()
    assert Forgetting(100, 10, clock=False, head=True).parts == set()


# --- in a run -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """Resets, then a new language."""
    return run_recipe(cache, tmp_path_factory.mktemp("runs") / "whole", **SHORT)


@pytest.fixture(scope="module")
def baseline(cache, tmp_path_factory):
    """Pretraining without resets and without a new language."""
    return run_recipe(cache, tmp_path_factory.mktemp("runs") / "baseline",
                      **SHORT | dict(method="baseline", adapt_to="none"))


@pytest.mark.parametrize("never", [dict(reset_every=0), dict(reset_until=0.2)])
def test_forgetting_without_resets_is_the_baseline_bit_for_bit(cache, tmp_path, baseline, never):
    off = run_recipe(cache, tmp_path / "off", **SHORT | dict(adapt_to="none") | never)
    assert same_weights(off, baseline) and log_without_speed(off) == log_without_speed(baseline)


def test_resets_change_what_is_learned_and_only_the_embedding_has_a_clock_of_its_own(
        cache, tmp_path, baseline):
    run = run_recipe(cache, tmp_path / "forget", **SHORT | dict(adapt_to="none"))
    assert not same_weights(run, baseline)
    first, second = (log_without_speed(r) for r in (run, baseline))
    # before the first reset only the embedding's rate and the clipping differ
    assert first[0]["lr"] == second[0]["lr"] and first[2]["lm"] > second[2]["lm"]
    lr = {g["part"]: g["lr"] / g["peak_lr"] for g in load_checkpoint(
        run.out / "last.pt", "cpu")["optimizer"]["param_groups"]}
    assert lr["embed"] == pytest.approx(learning_rate(3, 4, run.cfg.warmup))         # step 11 of 8 ... 12
    assert lr["body"] == lr["norms"] == lr["head"] == pytest.approx(learning_rate(11, 12, run.cfg.warmup))


@pytest.mark.parametrize("stop_after", [
    ("pretrain", 4), ("pretrain", 6), ("pretrain", 12), ("adapt", 3)])
def test_a_run_stopped_around_a_reset_or_while_adapting_goes_on_as_if_it_had_not(
        cache, tmp_path, whole, stop_after):
    run_recipe(cache, tmp_path / "parts", stop_after=stop_after, **SHORT)
    parts = run_recipe(cache, tmp_path / "parts", **SHORT)
    assert same_weights(whole, parts)
    assert log_without_speed(whole) == log_without_speed(parts)


def test_a_finished_run_is_taken_up_again_as_it_was(cache, tmp_path, whole):
    shutil.copytree(whole.out, tmp_path / "a")
    again = run_recipe(cache, tmp_path / "a", **SHORT)
    assert same_weights(whole, again) and log_without_speed(whole) == log_without_speed(again)


def test_a_fraction_of_rows_with_their_heads_is_resumed_exactly_too(cache, tmp_path):
    odd = SHORT | dict(reset_fraction=0.5, reset_blend=0.5, reset_head=True, adapt_to="none")
    run_recipe(cache, tmp_path / "parts", stop_after=("pretrain", 6), **odd)
    parts = run_recipe(cache, tmp_path / "parts", **odd)
    assert same_weights(run_recipe(cache, tmp_path / "whole", **odd), parts)


def test_adapting_leaves_all_but_the_new_rows_as_they_were(cache, tmp_path, whole):
    run_recipe(cache, tmp_path / "a", stop_after=("pretrain", 12), **SHORT)
    before = load_checkpoint(tmp_path / "a" / "last.pt", "cpu")["model"]
    after = whole.model.state_dict()
    assert before.keys() == after.keys()
    for name, was in before.items():
        assert torch.equal(was, after[name][:len(was)])
        grown = 3 / 2 if name in ("embed.weight", "head.weight") else 1
        assert len(after[name]) == grown * len(was)
    rows = [row for row in log_without_speed(whole) if row["stage"] == "adapt"]
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert rows[-1]["val"]["clone2"] < rows[0]["val"]["clone2"]


def test_exercises_at_the_end_train_the_body_alone_and_are_resumed_exactly(cache, tmp_path, baseline):
    long = SHORT | dict(method="baseline", adapt_to="none", from_run=str(baseline.out), instruct_steps=4)
    taught = run_recipe(cache, tmp_path / "whole", **long)
    for name, was in baseline.model.state_dict().items():
        same = torch.equal(was, taught.model.state_dict()[name])
        assert same == (name in ("embed.weight", "head.weight"))
    run_recipe(cache, tmp_path / "parts", stop_after=("instruct", 2), **long)
    parts = run_recipe(cache, tmp_path / "parts", **long)
    assert same_weights(taught, parts) and log_without_speed(taught) == log_without_speed(parts)


def test_text_of_old_languages_stands_beside_the_new_one_in_its_share(cache, tmp_path):
    run = train.Run(Config(**(SMALL | SHORT | dict(method="baseline", adapt_to="clone2", adapt_batch=8,
                                                   adapt_replay=0.25))), tmp_path / "a", cache, quiet=True)
    base = run.corpus.base_vocab
    run.corpus.add_language("clone2", 3000, 0)
    seen = []
    train.lm_parts, keep = (lambda run, model, inputs, targets: seen.append(inputs)), train.lm_parts
    try:
        train.adapt(run, 0)
        train.adapt(run, 1)
    finally:
        train.lm_parts = keep
    for rows in seen:
        assert rows.shape[0] == 8 and (rows[:6] // base == 2).all() and (rows[6:] // base < 2).all()
    assert not np.array_equal(*seen)


def test_replay_keeps_the_share_that_old_text_gives_to_new_tokens_small(cache, tmp_path, baseline):
    def loss_on_english(replay):
        run = run_recipe(cache, tmp_path / str(replay), **SHORT | dict(
            method="baseline", adapt_to="clone2", from_run=str(baseline.out), adapt_steps=20,
            adapt_replay=replay))
        return log_without_speed(run)[-1]["val"]["en"]
    assert loss_on_english(0.5) < loss_on_english(0.0)


def test_a_tuned_body_goes_under_the_embeddings_of_a_new_language(cache, tmp_path, baseline, capsys):
    """The life of a model in Chen et al., in two runs."""
    start = SHORT | dict(method="baseline", from_run=str(baseline.out))
    tuned = run_recipe(cache, tmp_path / "tuned", **start | dict(adapt_to="none", instruct_steps=4))
    learned = run_recipe(cache, tmp_path / "learned", **start | dict(adapt_to="clone2", adapt_rows="all"))
    both = run_recipe(cache, tmp_path / "both", **start | dict(
        adapt_to="clone2", adapt_rows="all", body_from=str(tuned.out)))
    for name, found in both.model.state_dict().items():
        source = learned if name.startswith(("embed", "head")) else tuned
        assert torch.equal(found, source.model.state_dict()[name]), name
    assert train.main(["--from_run", str(baseline.out), "--adapt_to", "clone2", "--body_from",
                       str(baseline.out), "--cache", str(cache), "--out", str(tmp_path / "no")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "of pretrain; give a finished run with --instruct_steps" in error
    with pytest.raises(ValueError, match="another shape"):
        assemble(tuned.model.state_dict(), GPT(Shape(V, 1, 2, D, 16)))


# --- the saw-tooth ------------------------------------------------------------------------------------------

def test_recovery_reads_the_rise_and_what_is_left_of_it_off_the_loss():
    losses = {10: 5.0, 20: 4.0, 30: 6.0, 40: 4.5, 50: 4.25, 60: 3.0, 70: 5.0, 80: 4.0}
    first, second = recovery(losses, [20, 60], delay=30)
    assert first == dict(step=20, before=4.0, rise=2.0, excess=0.25)
    assert second == dict(step=60, before=3.0, rise=2.0)                    # ends before the delay is over
    assert recovery(losses, []) == []
    # entries every 10 steps, a reset before the first and a cycle without any
    assert [r["step"] for r in recovery(losses, [5, 22, 24, 60], delay=30)] == [24, 60]


def test_a_forgetting_run_reports_its_recovery(cache, tmp_path, whole):
    resets = whole.forgetting.at
    found = recovery(whole.curve("pretrain", "lm"), resets)
    assert [r["step"] for r in found] == resets


# --- expansion ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("how", ["noise", "mean"])
@pytest.mark.parametrize("protocol", ["rows", "head"])
def test_new_tokens_leave_the_scores_of_the_old_ones_as_they_were(tied, how, protocol):
    model, tokens = trained(tied)[0], random_tokens(3, 16)
    before = model.logits(tokens)
    assert expand_vocabulary(model, N, how, protocol) is model
    after = model.logits(tokens)
    assert after.shape == (3, 16, V + N) and torch.equal(after[..., :V], before)


def test_all_draws_the_old_rows_anew():
    model = trained()[0]
    before = copy.deepcopy(model)
    expand_vocabulary(model, N, protocol="all")
    for part in ("embed", "head"):
        was, old = getattr(before, part).weight, getattr(model, part).old
        assert (was != old).any(dim=1).all() and old.std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(model.embed.old, model.head.old)
    assert all(map(torch.equal, before.body.parameters(), model.body.parameters()))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("protocol, learning", [
    ("rows", {"embed.new", "head.new"}), ("head", {"embed.new", "head.new", "head.old"}),
    ("all", {"embed.new", "head.new", "head.old", "embed.old"})])
def test_only_what_the_protocol_names_learns_even_with_weight_decay(protocol, learning, tied):
    model = expand_vocabulary(trained(tied)[0], N, protocol=protocol)
    if tied:                                                       # the head's rows are the embedding's
        assert model.head.old is model.embed.old and model.head.new is model.embed.new
        learning = {name.replace("head", "embed") for name in learning}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = new_rows(model, 0.05)
    assert all(g["lr"] == g["peak_lr"] == 0.05 and g["weight_decay"] == 0 for g in groups)
    assert [g["part"] for g in groups] == (["embed"] if tied else ["embed", "head"])
    given = [id(p) for g in groups for p in g["params"]]
    assert len(given) == len(set(given))
    assert set(given) == {id(p) for p in model.parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([g | dict(weight_decay=0.1) for g in groups])
    learn(model, optimizer, 100, random_tokens(4, 17, below=V + N))
    assert {name for name, p in model.named_parameters() if not torch.equal(p, before[name])} == learning


def test_the_new_language_is_learned_while_the_old_one_stays():
    model, old = trained()[0], random_tokens(2, 16)
    before = model.logits(old)
    expand_vocabulary(model, N)
    new = V + random_tokens(4, 17, below=20)
    loss = lm_loss(model.logits(new[:, :-1]), new[:, 1:]).item()
    learn(model, torch.optim.AdamW(new_rows(model, 0.02)), 60, new)
    assert lm_loss(model.logits(new[:, :-1]), new[:, 1:]).item() < loss - 2
    assert torch.equal(model.logits(old)[..., :V], before)


def test_a_grown_embedding_looks_up_rows_of_its_weight():
    embed, tokens = GrownEmbedding(random_normal(7, 5), random_normal(3, 5)), random_tokens(4, 50, below=10)
    assert embed.weight.shape == (10, 5) and set(tokens.flatten().tolist()) == set(range(10))
    assert torch.equal(embed(tokens), embed.weight[tokens])


def test_a_grown_head_is_the_product_with_its_weight():
    head, states = GrownHead(random_normal(7, 5), random_normal(3, 5)), random_normal(2, 4, 5)
    assert head(states).shape == (2, 4, 10)
    assert torch.allclose(head(states), F.linear(states, head.weight), atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_get_the_gradient_that_they_would_have_in_an_ordinary_model_of_more_tokens(tied):
    model, tokens = expand_vocabulary(trained(tied)[0], N), random_tokens(8, 17, below=V + N)
    ordinary = merge(copy.deepcopy(model))
    for m in (model, ordinary):
        lm_loss(m.logits(tokens[:, :-1]), tokens[:, 1:]).backward()
    for part in ("embed", "head"):
        found, wanted = getattr(model, part).new.grad, getattr(ordinary, part).weight.grad[V:]
        assert wanted.any() and torch.allclose(found, wanted, atol=1e-7)
        assert getattr(model, part).old.grad is None
    rows = GrownEmbedding(random_normal(V, D), random_normal(N, D))
    usual = nn.Embedding.from_pretrained(rows.weight.detach(), freeze=False)
    slope = random_normal(8, 17, D)
    for layer in (rows, usual):
        (layer(tokens) * slope).sum().backward()
    assert torch.allclose(torch.cat((rows.old.grad, rows.new.grad)), usual.weight.grad, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_merging_gives_an_ordinary_model_with_the_same_scores(tied):
    model, tokens = expand_vocabulary(trained(tied)[0], N), random_tokens(3, 16, below=V + N)
    learn(model, torch.optim.AdamW(new_rows(model, 0.02)), 3, V + random_tokens(4, 17, below=N))
    before = model.logits(tokens)
    assert merge(model) is model
    assert torch.allclose(model.logits(tokens), before, atol=1e-6)
    fresh = small_model(tied, vocab_size=V + N)
    assert model.shape == fresh.shape and (model.head.weight is model.embed.weight) == tied
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in fresh.state_dict().items()}
    assert [type(m) for m in model.modules()] == [type(m) for m in fresh.modules()]
    assert all(p.requires_grad for p in model.parameters())
    groups = model.groups(1e-2, 1e-2, 1e-2, 0.1)                    # everything can learn again
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    was = picture(model, optimizer := torch.optim.AdamW(groups))
    learn(model, optimizer, 1, tokens)
    assert all(not torch.equal(was[name]["weight"], p) for name, p in model.named_parameters())


def test_a_merged_model_can_be_expanded_again():
    model, tokens = trained()[0], random_tokens(3, 16)
    before = model.logits(tokens)
    merge(expand_vocabulary(merge(expand_vocabulary(model, N)), N))
    assert model.shape.vocab_size == V + 2 * N
    assert torch.allclose(model.logits(tokens)[..., :V], before, atol=1e-6)


def test_first_values_are_noise_or_the_mean_of_the_old_rows_plus_that_noise():
    old = 1 + random_normal(50, D)
    noise, mean = (first_rows(old, 1000, how, torch.Generator().manual_seed(3)) for how in ("noise", "mean"))
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    assert noise.std().item() == pytest.approx(0.02, rel=0.02)
    assert torch.equal(mean, old.mean(dim=0) + noise)


def test_first_values_can_be_the_average_of_the_pieces_of_a_token():
    model = small_model()
    embed, head = model.embed.weight.detach().clone(), model.head.weight.detach().clone()
    expand_vocabulary(model, 2, how="pieces", pieces=[[3], [4, 7, 7]])
    for grown, old in ((model.embed, embed), (model.head, head)):
        assert torch.equal(grown.new[0], old[3])
        torch.testing.assert_close(grown.new[1], (old[4] + 2 * old[7]) / 3)


def test_first_values_depend_on_the_seed_and_differ_between_embedding_and_head():
    def rows(seed):
        model = expand_vocabulary(small_model(), N, seed=seed)
        return model.embed.new.detach(), model.head.new.detach()
    assert all(map(torch.equal, rows(0), rows(0)))
    assert not torch.equal(*rows(0)) and not torch.equal(rows(0)[0], rows(1)[0])


@pytest.mark.parametrize("protocol", ["rows", "head", "all"])
def test_a_new_row_does_not_begin_with_the_noise_that_an_old_row_began_with(protocol):
    """Token t of the new language is English token t: where it began must not tell which one it is."""
    first = small_model(seed=3)
    model = expand_vocabulary(copy.deepcopy(first), N, protocol=protocol, seed=3)
    old = torch.cat((first.embed.weight, first.head.weight))
    new = torch.cat((model.embed.new, model.head.new))
    assert F.cosine_similarity(new[:, None], old, dim=-1).abs().max() < 0.9


@pytest.mark.parametrize("grown", [False, True])
def test_assembling_takes_the_body_of_one_model_and_the_rows_of_the_other(grown):
    english, other = small_model(seed=1), expand_vocabulary(small_model(seed=2), N, protocol="all")
    with torch.no_grad():
        english.final_norm.weight.add_(random_normal(D))
        english.body[1].feed_norm.weight.add_(random_normal(D))
    other = other if grown else merge(other)
    parts = {name: p.detach().clone() for name, p in other.named_parameters()}
    was = {name: p.detach().clone() for name, p in english.named_parameters()}
    assert assemble(english.state_dict(), other) is other
    for name, p in other.named_parameters():
        wanted = parts[name] if name.startswith(("embed", "head")) else was[name]
        assert torch.equal(p, wanted), name
    with torch.no_grad():                                          # a copy: the first model stays its own
        other.final_norm.weight.zero_()
    assert all(torch.equal(p, was[name]) for name, p in english.named_parameters())


# --- the text of a new language -----------------------------------------------------------------------------

def english_and_clone(cache):
    return corpora.load(cache, 0, ["en", "clone"], SMALL["words"], 0.1, SMALL["vocab_size"])


def stories(corpus, language, split="train"):
    """Documents of a language in base ids, without the last, which is cut short."""
    tokens = np.asarray(corpus.streams[language, split], np.int64) % corpus.base_vocab
    return np.split(tokens, np.flatnonzero(tokens == 0))[1:-1]


def test_a_new_language_has_exactly_its_tokens_in_a_band_of_its_own(cache):
    corpus = english_and_clone(cache)
    base = corpus.base_vocab
    corpus.add_language("clone2", 5000, 0)
    corpus.add_language("shuffled-2", 3000, 0)
    assert corpus.languages == ["en", "clone", "clone2", "shuffled-2"] and corpus.vocab_size == 4 * base
    for index, (name, n) in enumerate({"clone2": 5000, "shuffled-2": 3000}.items(), start=2):
        for split, length in (("train", n), ("val", 25_000)):
            stream = corpus.streams[name, split]
            assert len(stream) == length and set(stream // base) == {index}
            density = corpus.bytes["clone.train"] / len(corpus.streams["clone", "train"])
            assert corpus.bytes[f"{name}.{split}"] / length == pytest.approx(density, rel=0.1)
            assert stream[0] == index * base                       # it opens with a document
        rows = corpus.rows(np.random.default_rng(0), 3, 33, np.full(3, index))
        assert rows.shape == (3, 33) and set((rows // base).flatten()) == {index}


def test_languages_added_to_the_same_corpus_tell_the_same_stories_in_another_order(cache):
    a, b = english_and_clone(cache), english_and_clone(cache)
    a.add_language("clone2", 5000, 0)
    b.add_language("reversed", 5000, 0)
    one, other = stories(a, "clone2"), stories(b, "reversed")
    assert len(one) == len(other) > 20
    assert all(sorted(x) == sorted(y) for x, y in zip(one, other))
    assert sum(x.tolist() != y.tolist() for x, y in zip(one, other)) > 0.9 * len(one)
    assert [len(x) for x in one] == [len(y) for y in other]


def test_its_text_is_none_of_pretraining_or_of_validation_and_depends_on_the_seed(cache):
    a, b, c = (english_and_clone(cache) for _ in range(3))
    for corpus, seed in ((a, 0), (b, 0), (c, 1)):
        corpus.add_language("clone2", 5000, seed)
    assert np.array_equal(a.streams["clone2", "train"], b.streams["clone2", "train"])
    told = {tuple(s) for language in ("en", "clone") for split in ("train", "val")
            for s in stories(a, language, split)}
    told |= {tuple(s) for s in stories(a, "clone2", "val") + stories(c, "clone2")}
    new = stories(a, "clone2")
    assert len(new) > 20 and sum(tuple(s) in told for s in new) < 0.05 * len(new)


def test_the_languages_of_pretraining_keep_their_streams_and_batches(cache):
    before, after = english_and_clone(cache), english_and_clone(cache)
    after.add_language("reversed", 5000, 0)
    languages = np.array([0, 1, 1, 0, 0])
    drawn = [c.rows(np.random.default_rng(4), 5, 33, languages) for c in (before, after)]
    assert np.array_equal(*drawn)
    assert all(np.array_equal(stream, after.streams[key]) for key, stream in before.streams.items())
    assert before.bytes.items() <= after.bytes.items()


def test_text_is_encoded_in_the_new_language_and_shown_in_brackets(cache):
    corpus, text = english_and_clone(cache), "Anna went to the park."
    corpus.add_language("clone2", 2000, 0)
    corpus.add_language("reversed", 2000, 0)
    english, base = corpus.encode(text), corpus.base_vocab
    assert np.array_equal(corpus.encode(text, "clone2"), english + 2 * base)
    reverse = corpus.encode(text, "reversed") - 3 * base
    assert sorted(reverse) == sorted(english) and not np.array_equal(reverse, english)
    assert corpus.decode(corpus.encode(text, "clone2", opening=False)) == f"⟨{text}⟩"


# --- from a pretrained run ----------------------------------------------------------------------------------

def test_adapting_a_finished_run_gives_the_same_weights_as_one_run_that_does_both(cache, tmp_path, baseline):
    both = run_recipe(cache, tmp_path / "both", **SHORT | dict(method="baseline", adapt_to="clone2"))
    later = SHORT | dict(method="baseline", adapt_to="clone2", from_run=str(baseline.out))
    run_recipe(cache, tmp_path / "later", stop_after=("adapt", 5), **later)
    after = run_recipe(cache, tmp_path / "later", **later)
    assert same_weights(both, after)
    assert [r for r in log_without_speed(both) if r["stage"] == "adapt"] == log_without_speed(after)
    assert load_checkpoint(baseline.out / "last.pt", "cpu")["stage"] == "pretrain"


def test_a_run_from_another_takes_over_its_configuration(baseline):
    cfg, _ = parse_args(["--from_run", str(baseline.out), "--adapt_to", "reversed", "--adapt_steps", "9"])
    changed = dict(from_run=str(baseline.out), adapt_to="reversed", adapt_steps=9)
    assert cfg == Config(**(SMALL | SHORT | dict(method="baseline") | changed))


def test_the_printed_flags_of_a_run_from_another_give_the_same_configuration(tmp_path, baseline):
    cfg, _ = parse_args(["--from_run", str(baseline.out), "--adapt_to", "clone2", "--log_every", "100"])
    assert parse_args(train.flags_of(cfg, tmp_path).split())[0] == cfg


@pytest.mark.parametrize("state", ["no folder", "stopped", "adapted", "no checkpoint"])
def test_only_a_finished_pretraining_can_be_gone_on_from(cache, tmp_path, whole, capsys, state):
    folder = whole.out if state == "adapted" else tmp_path / "first"
    part = "step 8 of adapt" if state == "adapted" else "no config.json"
    if state == "stopped":
        run_recipe(cache, folder, stop_after=("pretrain", 8), **SHORT)
        part = "step 8 of pretrain"
    elif state == "no checkpoint":
        train.Run(Config(**(SMALL | SHORT)), folder, cache).enter()
        part = "last.pt"
    capsys.readouterr()
    assert train.main(["--from_run", str(folder), "--adapt_to", "reversed", "--cache", str(cache),
                       "--out", str(tmp_path / "later")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(folder) in error and part in error


# --- commands -----------------------------------------------------------------------------------------------

def test_an_adapted_run_is_evaluated_and_sampled_in_its_new_language(cache, tmp_path, whole, capsys):
    out = shutil.copytree(whole.out, tmp_path / "a")
    command, weights = flags(cache, out, **SHORT), (out / "last.pt").read_bytes()
    assert train.main([*command, "--eval_only"]) == 0
    assert "clone2" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["perplexity"]) == {"en", "clone", "clone2"}
    for name, loss in log_without_speed(whole)[-1]["val"].items():
        assert math.log(summary["perplexity"][name]) == pytest.approx(loss, abs=0.01)
    assert "null" not in json.dumps(summary)
    assert "clone2: " in (out / "samples.txt").read_text(encoding="utf-8")
    assert train.main([*command, "--sample", "Anna"]) == 0
    assert any(line.startswith("clone2: ⟨Anna") for line in capsys.readouterr().out.splitlines())
    assert (out / "last.pt").read_bytes() == weights


def test_the_demonstration_shows_resets_and_a_body_that_stays(capsys):
    forget.main()
    shown = capsys.readouterr().out
    assert "step  60  embeddings are reset" in shown
    assert "old logits unchanged by 20 new tokens: True" in shown and "body unchanged: True" in shown
