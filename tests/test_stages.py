"""What every stage draws: spies on text, batches, dictionaries, gradient clips and weights of a small run."""
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import train
from data.corpus import Dictionary, languages_of_rows
from data.lab import generation
from data.lab.options import Config
from data.lab.run import Run
from data.world import build
from forget import expand_vocabulary
from model import GPT
from test_train import SMALL, run_recipe, same_weights


@pytest.fixture
def make(cache, tmp_path, monkeypatch):
    """A run that is set up and not trained, by its options.

    The questions of its world are those of seed 0, because those of another seed take seconds.
    """
    of_seed = build.world_items
    monkeypatch.setattr(build, "world_items", lambda seed: of_seed(0))

    def made(**options):
        name = f"run{len(list(tmp_path.iterdir()))}"
        run = Run(Config(**(SMALL | dict(method="prealign") | options)), tmp_path / name, cache, quiet=True)
        run.enter()
        return run
    return made


def parts_of(losses):
    """The names of the values of all parts of one step."""
    return [name for _, values, _ in losses for name in values]


# --- streams of random numbers ------------------------------------------------------------------------------

@pytest.fixture
def generators(monkeypatch):
    """The seeds of all generators that are made."""
    seeds, make_generator = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: (seeds.append(seed), make_generator(seed))[1])
    return seeds


def test_every_stage_draws_from_streams_of_its_own(make, generators):
    run = make(method="prealign+align", afp_samples=40, afp_word_weight=1.0, afp_rows=2, afp_batch=4,
               context_len=64, code_switch=0.5)
    exercises, samples = run.corpus.exercises(), run.training_samples()
    steps = dict(words=lambda: train.align_words(run, 3), text=lambda: train.pretrain(run, 3),
                 sentences=lambda: train.align_sentences(run, samples, 3),
                 instruct=lambda: train.answer_items(run, run.model, exercises, train.INSTRUCT, 3))
    used = {}
    for name, step in steps.items():
        generators.clear()
        list(step())
        used[name] = {seed[1:] for seed in generators if seed[0] == 0 and len(seed) == 3}
    found = [stream for streams in used.values() for stream, _ in streams if stream != train.ALIGN_WORDS]
    assert len(found) == len(set(found)) and all(used.values())
    assert all(step == 3 for streams in used.values() for stream, step in streams if stream != train.ALIGN_WORDS)
    # batches of words come from one stream, at another place of it in every stage
    places = [step for streams in used.values() for stream, step in streams if stream == train.ALIGN_WORDS]
    assert len(places) == len(set(places)) == 2


def test_the_recipe_gives_every_stage_streams_and_seeds_of_its_own(make, generators, monkeypatch):
    drawn = {}
    def fit(run, model, stage, losses, *_, **__):
        generators.clear()
        list(losses(1))
        drawn[stage] = {seed for seed in generators if len(seed) == 3}
    monkeypatch.setattr(train, "fit", fit)
    run = make(seed=1, adapt_to="clone2", adapt_steps=2, adapt_tokens=3000, instruct_steps=2, context_len=64)
    train.recipe(run)
    train.fine_tuned(run, "nli")
    streams = {"align words": (train.ALIGN_WORDS, train.ALIGN_TEXT), "pretrain": (train.TEXT, train.SWITCH),
               "adapt": (train.ADAPT, train.REPLAY), "instruct": (train.INSTRUCT,),
               "transfer nli": (train.TRANSFER,)}
    assert drawn == {stage: {(1, stream, 1) for stream in found} for stage, found in streams.items()}
    # the rows of the new language, too, depend on the seed of the run
    old = GPT(replace(run.model.config, vocab_size=2 * run.corpus.base_vocab)).initialise(1)
    for part in ("embed", "head"):
        expected = [getattr(expand_vocabulary(copy.deepcopy(old), run.corpus.base_vocab, seed=seed), part).new
                    for seed in (1, 0)]
        new = getattr(run.model, part).weight[2 * run.corpus.base_vocab:]
        assert torch.equal(new, expected[0]) and not torch.equal(new, expected[1])


def test_words_that_are_aligned_in_later_stages_are_drawn_anew(make, generators):
    run = make(method="prealign+align", prealign_every=1, prealign_steps=6, afp_samples=40, afp_word_weight=1.0,
               afp_rows=0, afp_batch=4, context_len=64)
    samples, places = run.training_samples(), []
    for steps, losses in ((run.cfg.prealign_steps, lambda step: train.align_words(run, step)),
                          (run.cfg.pretrain_steps, lambda step: train.pretrain(run, step)),
                          (3, lambda step: train.align_sentences(run, samples, step))):
        for step in range(steps):
            generators.clear()
            list(losses(step))
            places += [seed for seed in generators if seed[1] == train.ALIGN_WORDS]
    assert places == [(0, train.ALIGN_WORDS, place) for place in range(len(places))]
    assert len(places) == 6 + run.cfg.pretrain_steps + 3


def test_every_step_and_every_seed_has_another_batch(make):
    run = make(method="baseline")
    batches = [train.text_rows(run, train.TEXT, step, 4)[0] for step in range(5)]
    batches += [train.text_rows(run, train.ALIGN_TEXT, 0, 4)[0], train.text_rows(make(
        method="baseline", seed=1), train.TEXT, 0, 4)[0]]
    assert len({batch.tobytes() for batch in batches}) == len(batches)
    assert np.array_equal(batches[2], train.text_rows(run, train.TEXT, 2, 4)[0])


# --- dictionaries -------------------------------------------------------------------------------------------

def test_the_shuffled_dictionary_serves_alignment_and_switching_and_the_right_one_serves_measures(
        make, monkeypatch):
    run, seen = make(dictionary="shuffled"), []
    right = {word: translations for word, translations in run.dictionary.entries}
    assert all(translations != right[word] for word, translations in run.train_dictionary.entries)
    monkeypatch.setattr(train, "code_switch", lambda *a: (seen.append(a[3]), (a[0][:, :-1], a[0][:, 1:]))[1])
    list(train.pretrain(run, 1))
    assert seen == [run.train_dictionary.table] == [run.switch_table]
    real_states = train.word_states
    monkeypatch.setattr(train, "word_states", lambda *given: (seen.append(given[1:3]), real_states(*given))[1])
    monkeypatch.setattr(train, "word_alignment_loss", lambda states, concept: (
        seen.append(concept), torch.zeros(()))[1])
    list(train.align_words(run, 0))
    (words, mask), concept = seen[-2:]
    pairs = {}
    for row, real, number in zip(words, mask, concept.tolist()):
        pairs.setdefault(number, []).append(tuple(row[real].tolist()))
    for word, *translations in pairs.values():
        assert translations == run.train_dictionary.table[word] != right[word]


def test_the_gold_dictionary_is_the_one_that_is_measured(make):
    run = make()
    assert run.train_dictionary is run.dictionary and run.held_out is None


def test_words_that_answer_questions_may_be_left_as_they_are(make):
    run = make(code_switch_values=False)
    whole, left = run.train_dictionary.table, run.switch_table
    assert left.items() < whole.items()
    items = run.corpus.items("knowledge", "test", 1000)
    answers = {candidate.rstrip(".") for item in items for candidate in item.candidates_in("en")}
    assert {run.corpus.decode(word).strip() for word in whole.keys() - left.keys()} == answers
    assert make().switch_table == whole                        # they are switched by default


def test_words_that_answer_questions_stay_in_the_text_that_is_read(make, monkeypatch):
    run, seen = make(code_switch_values=False), []
    monkeypatch.setattr(train, "code_switch", lambda *a: (seen.append(a[3]), (a[0][:, :-1], a[0][:, 1:]))[1])
    list(train.pretrain(run, 0))
    assert seen == [run.switch_table] != [run.train_dictionary.table]


def test_held_out_words_and_wrong_pairs_are_drawn_with_the_seed_of_the_run(make):
    run = make(seed=1, dictionary="shuffled", dictionary_coverage=0.5)
    whole = run.corpus.dictionary()
    assert run.dictionary.entries == whole.split(0.5, 1)[0].entries != whole.split(0.5, 0)[0].entries
    assert run.train_dictionary.entries == run.dictionary.shuffled(1).entries != run.dictionary.shuffled(0).entries
    assert run.switch_table == run.train_dictionary.table


def test_words_held_out_are_neither_switched_nor_aligned(make):
    run = make(dictionary_coverage=0.5)
    held_out = {word for word, _ in run.held_out.entries}
    assert held_out and not held_out & run.train_dictionary.table.keys()
    assert len(held_out) + len(run.train_dictionary) == len(run.corpus.dictionary())


def test_without_prealign_nothing_is_switched(make, monkeypatch):
    monkeypatch.setattr(train, "code_switch", lambda *a: pytest.fail("switched"))
    for method in ("baseline", "forget", "align"):
        assert parts_of(train.pretrain(make(method=method), 0)) == ["lm"]


# --- code-switching and the alignment kept up ---------------------------------------------------------------

def test_only_english_rows_are_switched_with_the_asked_probability(make, monkeypatch):
    run, seen = make(code_switch=0.3, clone_share=0.5), []
    monkeypatch.setattr(train, "code_switch", lambda rows, starts, switchable, table, ratio, rng, vanilla: (
        seen.append((rows, starts, switchable, ratio, vanilla)), (rows[:, :-1], rows[:, 1:]))[1])
    for step in range(3):
        list(train.pretrain(run, step))
    for rows, starts, switchable, ratio, vanilla in seen:
        assert np.array_equal(switchable, rows[:, 0] < run.corpus.base_vocab) and not switchable.all()
        assert np.array_equal(starts, run.corpus.starts[rows]) and (ratio, vanilla) == (0.3, False)


def test_alignment_is_kept_up_at_its_interval_and_with_its_weight(make):
    run = make(prealign_every=3, prealign_weight=0.25)
    has = [parts_of(train.pretrain(run, step)) for step in range(7)]
    assert [("prealign" in parts) for parts in has] == [True, False, False, True, False, False, True]
    (loss, values, tokens), = [part for part in train.pretrain(run, 0) if "prealign" in part[1]]
    assert loss.item() == pytest.approx(0.25 * values["prealign"].item()) and tokens == 0
    assert not any("prealign" in parts_of(train.pretrain(make(prealign_every=0), step)) for step in range(6))


def test_alignment_in_pretraining_is_limited_to_its_span(make):
    run = make(prealign_steps=0, steps=20, prealign_every=2, prealign_from=0.25, prealign_until=0.5)
    aligned = [step for step in range(20) if "prealign" in parts_of(train.pretrain(run, step))]
    assert aligned == [6, 8]                                   # from step 5, before step 10
    # of 40 steps 8 are for words: 4 rows of text in each of 8 steps are the text of 8 steps
    run = make(prealign_steps=8, prealign_rows=4, steps=40, prealign_every=4, prealign_from=0.5, prealign_until=0.75)
    assert run.cfg.pretrain_steps == 32
    aligned = [step for step in range(32) if "prealign" in parts_of(train.pretrain(run, step))]
    assert aligned == [16, 20]                                 # shares of the 32 steps, not of the 40


def test_the_first_stage_adds_its_two_losses_with_alpha(make):
    run = make(prealign_weight=0.25, prealign_rows=2)
    words, text = train.align_words(run, 0)
    assert words[0].item() == pytest.approx(0.25 * words[1]["prealign"].item())
    assert text[0].item() == text[1]["lm"].item() and text[2] == 2 * run.cfg.context_len
    assert parts_of(train.align_words(make(prealign_rows=0), 0)) == ["prealign"]


# --- gradient clip, rates, groups ---------------------------------------------------------------------------

def test_the_gradient_is_clipped_at_reset_clip_in_pretraining_with_resets_only(cache, tmp_path, monkeypatch):
    clips, clip = [], torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, c: (clips.append(c), clip(p, c))[1])
    options = dict(method="forget", adapt_to="none", clip=0.9, reset_clip=0.4, reset_every=4)
    run_recipe(cache, tmp_path / "a", **options)
    assert set(clips) == {0.4}
    clips.clear()
    run_recipe(cache, tmp_path / "b", **(options | dict(reset_every=0)))
    assert set(clips) == {0.9}
    clips.clear()
    run_recipe(cache, tmp_path / "c", **(options | dict(adapt_to="clone2", adapt_steps=2, instruct_steps=0)))
    assert clips[-2:] == [0.9, 0.9] and clips[0] == 0.4


def test_every_stage_learns_with_adamw_and_its_averages_over_ten_and_twenty_steps(make, monkeypatch):
    made, adamw = [], torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **options: (
        made.append(adamw(groups, **options)), made[-1])[1])
    run = make(method="prealign+align", steps=5, prealign_steps=2, afp_steps=1, afp_samples=40, afp_batch=4,
               instruct_steps=1, context_len=64)
    train.recipe(run)
    assert len(made) == 4
    assert {(g["betas"], g["eps"]) for optimizer in made for g in optimizer.param_groups} == {((0.9, 0.95), 1e-8)}


def test_rates_and_decay_of_the_groups(make):
    run = make(embed_lr=2.0, weight_decay=0.3)
    groups = {g["name"]: (g["peak_lr"], g["weight_decay"]) for g in train.param_groups(run, 0.1)}
    assert groups == dict(body=(0.1, 0.3), norms=(0.1, 0.0), embed=(0.2, 0.0), head=(0.2, 0.0))
    groups = {g["name"]: g["weight_decay"] for g in train.param_groups(make(embed_decay=True), 0.1)}
    assert groups == dict(body=0.1, norms=0.0, embed=0.1, head=0.1)


def test_the_rate_of_a_stage_rises_for_a_twentieth_of_its_steps_and_falls_to_a_tenth(cache, tmp_path):
    run = run_recipe(cache, tmp_path / "a", method="baseline", steps=40, log_every=1, lr=0.01)
    rates = [row["lr"] for row in run.rows()]
    assert rates[0] == pytest.approx(0.005) and rates[1] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.001, abs=2e-5) and sorted(rates[1:], reverse=True) == rates[1:]


# --- AFP ----------------------------------------------------------------------------------------------------

def test_plain_text_has_the_asked_share_of_other_languages(make):
    run = make(method="align", afp_samples=40)
    for share in (0.0, 0.25, 1.0):
        languages = np.concatenate([train.text_rows(run, train.SENTENCE_TEXT, step, 8, share)[1]
                                    for step in range(25)])
        assert languages.mean() == pytest.approx(share, abs=0.01)
    seen = []
    def text_rows(run, stream, step, n, clone_share=None, real=train.text_rows):
        seen.append((stream, n, clone_share))
        return real(run, stream, step, n, clone_share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "text_rows", text_rows)
        run = make(method="align", afp_samples=40, afp_rows=3, afp_clone_share=0.7)
        list(train.align_sentences(run, run.training_samples(), 0))
    assert seen == [(train.SENTENCE_TEXT, 3, 0.7)]


def test_rows_of_the_languages_follow_one_sequence_over_all_steps_and_share_alike(make):
    run = make(method="baseline", languages="en,clone,reversed", clone_share=0.5)
    steps = [train.text_rows(run, train.TEXT, step, 4) for step in range(10)]
    languages = np.concatenate([found for _, found in steps])
    assert np.array_equal(languages, languages_of_rows(0, 40, [0.5, 0.25, 0.25]))
    assert np.abs(np.bincount(languages) - [20, 10, 10]).max() <= 1
    for rows, found in steps:                                  # and the rows are text of these languages
        assert np.array_equal(rows // run.corpus.base_vocab, np.tile(found[:, None], rows.shape[1]))


def test_losses_of_afp_have_their_weights(make):
    run = make(method="align", afp_samples=40, afp_batch=6, afp_mcl_weight=0.5, afp_cit_weight=2.5, afp_rows=2,
               context_len=64)
    parts = list(train.align_sentences(run, run.training_samples(), 0))
    weights = {name: (loss / value).item() for loss, values, _ in parts for name, value in values.items()}
    assert weights == pytest.approx(dict(afp_mcl=0.5, afp_cit=2.5, lm=1.0))


def test_half_of_the_sentences_to_translate_have_the_format_that_only_hints(make, monkeypatch):
    run = make(method="align", afp_samples=40, afp_batch=100, afp_mcl_weight=0.0, afp_rows=0, context_len=64)
    examples, hints = train.tasks.instruction_examples, []
    monkeypatch.setattr(train.tasks, "instruction_examples", lambda corpus, items, partner, asked, answered, equals: (
        hints.extend(equals), examples(corpus, items, partner, asked, answered, equals))[1])
    for step in range(4):
        next(train.align_sentences(run, run.training_samples(), step))
    assert len(hints) == 400 and 0.4 < np.mean(hints) < 0.6


# --- no test data in training -------------------------------------------------------------------------------

def test_no_stage_reads_items_of_the_test_or_validation_split(cache, tmp_path, monkeypatch):
    from data.corpus import Corpus
    asked, items = [], Corpus.items
    monkeypatch.setattr(Corpus, "items", lambda self, task, split, *a, **k: (
        asked.append((task, split)), items(self, task, split, *a, **k))[1])
    run = run_recipe(cache, tmp_path / "a", method="prealign+forget+align", adapt_steps=2, adapt_tokens=3000,
                     afp_steps=2, afp_samples=40, instruct_steps=2, reset_every=4, transfer_steps=2)
    # the picture of sentences before the stage shows test sentences and trains nothing
    assert {split for task, split in asked if task != "translate"} == {"train"}
    asked.clear()
    train.fine_tuned(run, "nli")
    assert asked == [("nli", "train")]


def test_transfer_and_instruction_tuning_learn_at_a_third_of_the_rate(make, monkeypatch):
    run, rates = make(method="baseline", lr=6e-3, embed_lr=2.0), []
    monkeypatch.setattr(train, "fit", lambda run, model, stage, losses, groups, *a, **k: rates.extend(
        (group["name"], group["peak_lr"]) for group in groups))
    train.fine_tuned(run, "nli")
    assert rates == [("body", pytest.approx(2e-3)), ("norms", pytest.approx(2e-3)),
                     ("head", pytest.approx(4e-3)), ("embed", pytest.approx(4e-3))]


def test_the_dictionary_of_the_control_is_another_permutation_for_another_seed():
    whole = Dictionary([((i,), [(100 + i,)]) for i in range(50)])
    assert whole.shuffled(0).entries != whole.shuffled(1).entries


def test_a_part_of_a_sparse_loss_is_divided_by_the_targets_of_the_whole_batch(make):
    run = make(method="baseline", accumulate=2)
    inputs = np.arange(24).reshape(4, 6) % 20
    targets = np.full((4, 6), -100)
    targets[0, 1], targets[3, 2:5] = 7, [8, 9, 10]
    for sparse in (False, True):
        losses = [loss.item() for loss, _, _ in train.lm_parts(run, run.model, inputs, targets, sparse)]
        assert len(losses) == 2
        logits = run.model.logits(torch.from_numpy(inputs)).log_softmax(dim=-1)
        chosen = [-logits[0, 1, 7], *(-logits[3, 2 + i, 8 + i] for i in range(3))]
        assert losses[0] == pytest.approx(chosen[0].item() / 4, rel=1e-5)
        assert losses[1] == pytest.approx(sum(c.item() for c in chosen[1:]) / 4, rel=1e-5)


def test_transfer_is_learned_from_english_items_with_loss_on_the_answer(make):
    run = make(method="baseline", context_len=64)
    item, seen = run.corpus.items("nli", "train", 1)[0], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "lm_parts", lambda run, model, *rows, sparse: seen.append((model, *rows)))
        train.answer_items(run, "a copy", [item], train.TRANSFER, 0)
    (model, inputs, targets), = seen
    assert model == "a copy" and len(inputs) == 32 and inputs.max() < run.corpus.base_vocab
    for target in targets:
        assert run.corpus.decode(target[target != -100]) == item.candidates[item.answer]


def test_options_of_one_method_do_not_touch_another(cache, tmp_path):
    plain = run_recipe(cache, tmp_path / "plain", method="baseline")
    other = run_recipe(cache, tmp_path / "other", method="baseline", code_switch=0.9, prealign_every=1,
                       reset_every=4, afp_steps=3)
    assert same_weights(plain, other)


# --- rates, rows of the log and clips of whole recipes ------------------------------------------------------

def test_a_new_language_and_its_replay_draw_from_streams_of_their_own(make, generators):
    run = make(method="baseline", adapt_to="clone2", adapt_replay=0.5)
    run.corpus.add_language("clone2", 5000)
    generators.clear()
    train.adapt(run, 3)                                        # the rows are drawn before the model reads them
    assert sorted(generators) == sorted([(0, train.ADAPT, 3), (0, train.REPLAY, 3)])


def test_every_stage_has_its_own_peak_rates(make, monkeypatch):
    seen = {}
    monkeypatch.setattr(train, "fit", lambda run, model, stage, losses, groups, *_, **__: seen.update(
        {stage: {g["name"]: g["peak_lr"] for g in groups}}))
    run = make(method="prealign+forget+align", adapt_steps=2, adapt_tokens=3000, afp_samples=40, instruct_steps=2,
               lr=0.3, embed_lr=2.0, prealign_lr=0.05, adapt_lr=0.07, afp_lr=0.09)
    train.recipe(run)
    def rates(lr):
        return pytest.approx(dict(body=lr, norms=lr, embed=2 * lr, head=2 * lr))
    assert seen == {"align words": rates(0.05), "pretrain": rates(0.3), "adapt": dict(embed=0.07, head=0.07),
                    "align sentences": rates(0.09), "instruct": pytest.approx(dict(body=0.1, norms=0.1))}


def test_the_log_measures_the_right_dictionary_in_the_control(cache, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train.measures, "probe", lambda model, corpus, dictionary, *_: (
        seen.append(dictionary), {})[1])
    run = run_recipe(cache, tmp_path / "a", dictionary="shuffled")
    assert len(seen) == 5 and all(dictionary is run.dictionary for dictionary in seen)


def test_a_new_language_is_logged_every_ten_steps_at_least(cache, tmp_path):
    run = run_recipe(cache, tmp_path / "a", method="baseline", steps=4, adapt_to="clone2", adapt_steps=25,
                     adapt_tokens=3000, instruct_steps=0, log_every=50)
    assert [(row["stage"], row["step"]) for row in run.rows()] == [
        ("pretrain", 4), ("adapt", 10), ("adapt", 20), ("adapt", 25)]


def test_the_clipped_gradient_is_that_of_the_parameters_that_learn(cache, tmp_path, monkeypatch):
    sizes, clip = [], torch.nn.utils.clip_grad_norm_
    def clipped(parameters, limit):
        parameters = list(parameters)
        sizes.append(sum(p.numel() for p in parameters))
        return clip(parameters, limit)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clipped)
    run = run_recipe(cache, tmp_path / "a", method="baseline", steps=2, adapt_to="none", instruct_steps=2)
    whole = sum(p.numel() for p in run.model.parameters())
    tables = run.model.embed.weight.numel() + run.model.head.weight.numel()
    assert sizes == [whole, whole, whole - tables, whole - tables]


def test_transfer_trains_a_copy_and_the_copy_learns(make):
    run = make(method="baseline", context_len=64, transfer_steps=2)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    tuned = train.fine_tuned(run, "nli").state_dict()
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name]) and not torch.equal(value, tuned[name]), name


def test_the_control_learns_no_held_out_word_and_no_held_out_translation(make):
    run = make(dictionary="shuffled", dictionary_coverage=0.5)
    for side in (0, 1):
        assert (sorted(entry[side] for entry in run.train_dictionary.entries)
                == sorted(entry[side] for entry in run.dictionary.entries))


def test_every_step_is_preceded_by_its_own_number_in_the_schedule_of_resets(make, monkeypatch):
    run, seen = make(method="forget", adapt_to="none", steps=6, reset_every=2, reset_until=1.0), []
    monkeypatch.setattr(train.Forgetting, "reset_if_due", lambda self, step, model, optimizer: seen.append(
        ("before", step, model is run.model)))
    monkeypatch.setattr(train, "pretrain", lambda run, step, real=train.pretrain: (
        seen.append(("rows", step, True)), real(run, step))[1])
    train.recipe(run)
    assert seen == [(what, step, True) for step in range(6) for what in ("before", "rows")]


def test_samples_are_drawn_with_the_seed_of_the_run(make, monkeypatch):
    seen = []
    monkeypatch.setattr(generation, "generate", lambda model, prompts, n, generator, **options: (
        seen.append((generator.initial_seed(), len(prompts))), prompts)[1])
    run = make(method="baseline", seed=1)
    generation.samples(run.model, run.corpus, "Anna", run.cfg.seed)
    assert seen == [(1, 2)]
    for name in ("recipe", "draw_sentences"):
        monkeypatch.setattr(train, name, lambda *_, **__: None)
    monkeypatch.setattr(train, "evaluate", lambda run: {})
    monkeypatch.setattr(generation, "samples", lambda model, corpus, prompt, seed: seen.append((prompt, seed)) or "")
    run.out.mkdir(parents=True, exist_ok=True)
    train.train_and_evaluate(run)
    assert seen[1:] == [("", 1)]


# --- options reach what they are named after ------------------------------------------------------------------

def test_every_option_of_resets_reaches_their_schedule():
    cfg = Config(method="forget", steps=200, reset_every=10, reset_from=0.25, reset_until=0.75, reset_blend=0.3,
                 reset_optimizer=False, seed=7)
    expected = train.Forgetting(200, 10, 0.25, 0.75, 0.3, False, 7)
    assert vars(train.reset_schedule(cfg)) == vars(expected) and expected.at == list(range(50, 151, 10))
    assert train.reset_schedule(replace(cfg, method="baseline")).at == []


def test_options_of_a_new_language_and_of_adapters_reach_model_and_rows(make, monkeypatch):
    seen = {}
    def spy(name, real):
        monkeypatch.setattr(train, name, lambda model, *given: (seen.update({name: given}), real(model, *given))[1])
    spy("expand_vocabulary", train.expand_vocabulary)
    spy("add_adapters", train.add_adapters)
    monkeypatch.setattr(train, "fit", lambda *_, **__: None)
    monkeypatch.setattr(train, "draw_sentences", lambda *_, **__: None)
    run = make(method="align", seed=1, adapt_to="clone2", adapt_init="mean", adapt_rows="head", adapt_body="whole",
               adapt_tokens=3000, afp_lora=3, afp_samples=40, instruct_steps=0)
    train.recipe(run)
    assert seen == dict(expand_vocabulary=(run.corpus.base_vocab, "mean", "head", 1, None, "whole"),
                        add_adapters=(3, 1))


@pytest.mark.parametrize("body, rate", [("frozen", {}), ("adapters", dict(body=0.02)), ("whole", dict(body=0.0006))])
def test_the_body_learns_a_new_language_at_a_rate_of_its_own_or_not_at_all(make, monkeypatch, body, rate):
    seen = {}
    monkeypatch.setattr(train, "fit", lambda run, model, stage, losses, groups, **_: seen.update({stage: groups}))
    run = make(method="baseline", adapt_to="clone2", adapt_body=body, adapt_lr=0.02, adapt_tokens=3000,
               instruct_steps=0)
    train.recipe(run)
    rates = {group["name"]: group["peak_lr"] for group in seen["adapt"]}
    assert rates == pytest.approx(dict(embed=0.02, head=0.02) | rate)
    assert not any("down" in name for name, _ in run.model.named_parameters())         # adapters are merged


def test_a_sentence_that_is_drawn_twice_is_no_negative_of_itself(make, monkeypatch):
    run, seen = make(method="align", afp_samples=40, afp_batch=8, afp_rows=0, context_len=64), []
    monkeypatch.setattr(train, "multilingual_contrast", lambda states, concept, symmetric: (
        seen.append((states, concept)), states.sum())[1])
    for step in range(3):
        list(train.align_sentences(run, run.training_samples()[:3], step))
    for states, concept in seen:
        assert len(states) == len(concept) == 16 and torch.equal(concept[:8], concept[8:])
        same = torch.cdist(states[:8].double(), states[:8].double()) < 1e-6      # the English side
        assert torch.equal(same, concept[:8, None] == concept[:8]) and same.sum() > 8


def test_transfer_is_asked_as_many_items_as_the_option_says(make, monkeypatch):
    asked = []
    monkeypatch.setattr(train.measures, "evaluate_all", lambda *_: {})
    monkeypatch.setattr(train, "fine_tuned", lambda run, task: f"tuned on {task}")
    monkeypatch.setattr(train.likelihood, "classify", lambda model, corpus, task, n: asked.append((model, task, n)))
    run = make(method="baseline", transfer_steps=2, eval_items=5)
    train.evaluate(run)
    assert asked == [(f"tuned on {task}", task, 5) for task in run.corpus.transfer] and asked
