"""Word alignment and code-switching: rows of a dozen tokens whose outcome can be read off."""
import math

import numpy as np
import pytest
import torch

import prealign
from model import GPT, IGNORE, ModelConfig, contrastive_loss
from prealign import code_switch, pack, word_alignment_loss, word_states

FOREIGN = 100   # ids below are English


def switch(rows, starts, table, ratio=1.0, seed=0, switchable=None, vanilla=False):
    """code_switch on plain lists -> lists; starts is a string of 1 and 0 per row."""
    rows = np.array(rows)
    starts = np.array([[mark == "1" for mark in row] for row in starts])
    switchable = np.ones(len(rows), bool) if switchable is None else np.array(switchable)
    inputs, targets = code_switch(rows, starts, switchable, table, ratio,
                                  np.random.default_rng(seed), vanilla)
    return inputs.tolist(), targets.tolist()


def pairs(n=50):
    """Word i and its translation 100 + i, one token each."""
    return {(i,): [(FOREIGN + i,)] for i in range(n)}


def random_rows(n_rows=20, width=40, seed=3):
    """Words of one or more tokens; token i starts a word if i < 50."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 60, (n_rows, width))
    return rows, rows < 50


def rich_table():
    """Words of one and two tokens, with one or two translations of one to three tokens."""
    one = {(i,): [(100 + i,), (200 + i, 201 + i)] for i in range(0, 50, 2)}
    two = {(i, 50 + i % 10): [(300 + i, 301 + i, 302 + i)] for i in range(0, 50, 3)}
    return one | two


# --- code_switch --------------------------------------------------------------------------------------------

def test_the_example_of_the_docstring():
    # x1 x2 = 1 2, y1 y2 y3 = 101 102 103; word 7 before, word 8 next; the last word touches the edge and
    # stays
    inputs, targets = switch([[7, 1, 2, 8, 9, 10]], ["110111"], {(1, 2): [(101, 102, 103)]})
    assert inputs == [[7, 101, 102, 103, 8]]
    assert targets == [[1, IGNORE, IGNORE, 8, 9]]


def test_the_last_token_of_a_switched_word_predicts_the_first_of_the_next_original_word():
    inputs, targets = switch([[7, 1, 2, 3, 4, 8]], ["110101"],
                             {(1, 2): [(101, 102)], (3, 4): [(103, 104)]})
    assert inputs == [[7, 101, 102, 103, 104]]
    assert targets == [[1, IGNORE, 3, IGNORE, 8]]


def test_a_shorter_translation_pads_the_row_with_ignored_targets():
    inputs, targets = switch([[7, 1, 2, 3, 8, 9]], ["110011"], {(1, 2, 3): [(101,)]})
    assert inputs == [[7, 101, 8, 9, 0]]
    assert targets == [[1, 8, 9, IGNORE, IGNORE]]


def test_a_longer_translation_pushes_the_end_of_the_row_out():
    inputs, targets = switch([[7, 1, 8, 9, 10, 11]], ["111111"], {(1,): [(101, 102, 103)]})
    assert inputs == [[7, 101, 102, 103, 8]]
    assert targets == [[1, IGNORE, IGNORE, 8, 9]]


def test_a_translation_may_itself_run_over_the_edge():
    inputs, targets = switch([[7, 8, 1, 9]], ["1111"], {(1,): [(101, 102, 103, 104)]})
    assert inputs == [[7, 8, 101]]
    assert targets == [[8, 1, IGNORE]]


def test_vanilla_switching_asks_for_the_foreign_word():
    inputs, targets = switch([[7, 1, 2, 8, 9, 10]], ["110111"], {(1, 2): [(101, 102, 103)]}, vanilla=True)
    assert inputs == [[7, 101, 102, 103, 8]]
    assert targets == [[101, 102, 103, 8, 9]]


@pytest.mark.parametrize("seed", range(5))
def test_no_foreign_token_is_ever_a_target(seed):
    rows, starts = random_rows()
    arguments = (rows, starts, np.ones(20, bool), rich_table(), 0.5)
    inputs, targets = code_switch(*arguments, np.random.default_rng(seed))
    assert inputs.max() >= FOREIGN > targets.max()
    vanilla_inputs, vanilla_targets = code_switch(*arguments, np.random.default_rng(seed), vanilla=True)
    assert np.array_equal(vanilla_inputs, inputs) and vanilla_targets.max() >= FOREIGN


@pytest.mark.parametrize("seed", range(5))
def test_with_words_of_one_token_every_target_is_the_original_text(seed):
    rows = np.random.default_rng(seed).integers(0, 50, (20, 40))
    inputs, targets = code_switch(rows, np.ones_like(rows, bool), np.ones(20, bool), pairs(), 0.5,
                                  np.random.default_rng(seed))
    assert np.array_equal(targets, rows[:, 1:])
    assert np.array_equal(inputs % FOREIGN, rows[:, :-1]) and inputs.max() >= FOREIGN


@pytest.mark.parametrize("vanilla", [False, True])
def test_ratio_zero_is_ordinary_training_bit_for_bit(vanilla):
    rows, starts = random_rows()
    inputs, targets = code_switch(rows, starts, np.ones(20, bool), rich_table(), 0.0,
                                  np.random.default_rng(0), vanilla)
    assert np.array_equal(inputs, rows[:, :-1]) and np.array_equal(targets, rows[:, 1:])
    assert inputs.dtype == targets.dtype == np.int64


def test_ratio_one_switches_every_complete_word_of_the_dictionary_and_no_other():
    rows = np.random.default_rng(0).integers(0, 99, (20, 40))
    inputs, _ = code_switch(rows, np.ones_like(rows, bool), np.ones(20, bool), pairs(), 1.0,
                            np.random.default_rng(0))
    assert np.array_equal(inputs, np.where(rows < 50, rows + FOREIGN, rows)[:, :-1])


def test_rows_that_may_not_be_switched_stay_as_they_are():
    row = [7, 1, 8, 1, 9]
    inputs, targets = switch([row, row], ["11111"] * 2, pairs(2), switchable=[False, True])
    assert inputs == [[7, 1, 8, 1], [7, 101, 8, 101]]
    assert targets == [[1, 8, 1, 9], [1, 8, 1, 9]]


def test_a_word_cut_by_the_edge_of_its_row_stays_as_it_is():
    # row 0 begins inside a word and ends with a word that may continue; row 1 begins with the second token of
    # a word; the last word of row 2 may continue, too
    table = {(1,): [(101,)], (1, 2): [(102,)], (2,): [(103,)]}
    inputs, targets = switch([[1, 8, 9, 7, 1], [2, 8, 9, 7, 7], [7, 8, 9, 1, 2]],
                             ["01111", "01111", "11110"], table)
    assert inputs == [[1, 8, 9, 7], [2, 8, 9, 7], [7, 8, 9, 1]]
    assert targets == [[8, 9, 7, 1], [8, 9, 7, 7], [8, 9, 1, 2]]


def test_a_word_is_not_switched_for_its_beginning():
    # the text holds 1 2 and 1 3; only 1 and 1 2 are words of the dictionary
    inputs, _ = switch([[1, 2, 1, 3, 1, 9]], ["101011"], {(1,): [(101,)], (1, 2): [(102,)]})
    assert inputs == [[102, 1, 3, 101, 9]]


def test_rows_of_a_batch_do_not_disturb_each_other():
    rows, starts = random_rows()
    table = {word: many[:1] for word, many in rich_table().items()}
    together = code_switch(rows, starts, np.ones(20, bool), table, 1.0, np.random.default_rng(0))
    for i in range(20):
        alone = code_switch(rows[i:i + 1], starts[i:i + 1], np.ones(1, bool), table, 1.0,
                            np.random.default_rng(0))
        assert np.array_equal(alone[0][0], together[0][i]) and np.array_equal(alone[1][0], together[1][i])


def test_code_switching_is_a_pure_function_of_its_generator_and_leaves_its_arguments_alone():
    rows, starts = random_rows()
    before = rows.copy(), starts.copy()
    one, same, other = (code_switch(rows, starts, np.ones(20, bool), rich_table(), 0.5,
                                    np.random.default_rng(seed))
                        for seed in (0, 0, 1))
    assert (np.array_equal(one[0], same[0]) and np.array_equal(one[1], same[1])
            and not np.array_equal(one[0], other[0]))
    assert np.array_equal(rows, before[0]) and np.array_equal(starts, before[1])


def test_several_translations_are_drawn_equally_often():
    rows = np.ones((100, 41), np.int64)                                # 4,000 complete words and 100 cut ones
    table = {(0,): [(900,)], (1,): [(101,), (102,), (103,), (104,)]}
    inputs, _ = code_switch(rows, np.ones_like(rows, bool), np.ones(100, bool), table, 1.0,
                            np.random.default_rng(0))
    counts = [(inputs == token).sum() for token in (101, 102, 103, 104)]
    assert sum(counts) == 4000
    assert all(abs(count - 1000) < 110 for count in counts)                 # 4 standard deviations of 27.4


def test_the_share_of_switched_words_is_the_ratio():
    rows = np.ones((100, 101), np.int64)                                    # 10,000 complete words
    inputs, _ = code_switch(rows, np.ones_like(rows, bool), np.ones(100, bool), pairs(2), 0.15,
                            np.random.default_rng(0))
    assert abs((inputs >= FOREIGN).mean() - 0.15) < 0.0145                  # 4 standard deviations


def test_the_draws_decide_which_words_are_switched_and_what_for():
    """One draw for every word of the batch, then a second one for the choice of its translation."""
    table = {(i,): [(100 + i,), (200 + i,), (300 + i,)] for i in range(0, 50, 2)}    # every second word
    rows = np.random.default_rng(7).integers(0, 50, (20, 40))
    switchable = np.arange(20) % 3 > 0
    rng = np.random.default_rng(5)
    draw, choice = rng.random((20, 40)), rng.random((20, 40))      # all words have one token
    after = rng.random()
    expected, edge = rows.copy(), 39                               # the last word of a row may continue
    for r in range(20):
        for t in range(edge):
            if switchable[r] and draw[r, t] < 0.3 and rows[r, t] % 2 == 0:
                expected[r, t] = rows[r, t] + 100 * (1 + math.floor(3 * choice[r, t]))
    rng = np.random.default_rng(5)
    inputs, targets = code_switch(rows, np.ones_like(rows, bool), switchable, table, 0.3, rng)
    assert np.array_equal(inputs, expected[:, :-1]) and (inputs >= 100).sum() > 50
    assert np.array_equal(targets, rows[:, 1:]) and rng.random() == after


@pytest.mark.parametrize("n, row, columns, complete", [
    (0, 0, [0], False), (1, 0, [1, 2], True), (2, 0, [3, 4], True),              # 9 | 1 2 | 1 3 | 9
    (4, 1, [0, 1, 2], True), (5, 1, [3], True), (6, 1, [4], True)])              # 1 9 9 | 1 | 1 | 9
def test_a_part_of_a_word_at_the_start_of_a_row_has_a_draw_but_is_never_switched(n, row, columns, complete):
    rows = np.array([[9, 1, 2, 1, 3, 9], [1, 9, 9, 1, 1, 9]])
    starts = np.array([[0, 1, 0, 1, 0, 1], [1, 0, 0, 1, 1, 1]], bool)
    draw = np.random.default_rng(0).random(8)[n]
    table = {tuple(rows[row, columns].tolist()): [(100,) * len(columns)]}
    for ratio, switched in ((draw - 1e-9, False), (draw + 1e-9, complete)):
        inputs, _ = code_switch(rows, starts, np.ones(2, bool), table, ratio, np.random.default_rng(0))
        assert (inputs[row, columns] == 100).all() == (inputs[row, columns] == 100).any() == switched


def test_translations_are_chosen_by_the_second_draw_of_a_word_whatever_its_length():
    rows, starts = random_rows()
    rng = np.random.default_rng(9)
    words = starts.copy()
    words[:, 0] = True                                             # also a part of a word
    _, choice = rng.random(words.sum()), rng.random(words.sum())
    number = np.cumsum(words).reshape(words.shape) - 1             # of the word that a token belongs to
    table = {(i,): [(100 + k,) for k in range(7)] for i in range(50)}
    inputs, _ = code_switch(rows, starts, np.ones(20, bool), table, 1.0, np.random.default_rng(9))
    switched = inputs >= 100
    assert switched.sum() > 100
    assert np.array_equal(inputs[switched], 100 + np.floor(7 * choice[number[:, :-1]][switched]))


def test_translations_of_every_length_keep_the_words_around_them():
    text, starts = [7, 1, 2, 3, 8, 1, 2, 3, 9, 9, 9], "11001100111"
    for length in range(1, 6):
        foreign = tuple(range(100, 100 + length))
        inputs, targets = switch([text], [starts], {(1, 2, 3): [foreign]})
        expected = [7, *foreign, 8, *foreign, 9, 9, 9]
        labels = [7, 1, *[IGNORE] * (length - 1), 8, 1, *[IGNORE] * (length - 1), 9, 9, 9]
        assert inputs == [(expected + [0] * 9)[:10]] and targets == [(labels + [IGNORE] * 9)[1:11]]


# --- word alignment -----------------------------------------------------------------------------------------

def small_model():
    return GPT(ModelConfig(vocab_size=60, n_layer=2, n_head=4, d_model=32, context_len=16)).initialise(0)


WORDS = torch.tensor([[5, 6, 7], [8, 0, 0], [9, 10, 0]])                    # 3, 1 and 2 tokens, padded
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)


def test_a_padded_word_has_the_states_of_the_word_alone():
    model = small_model()
    together = word_states(model, WORDS, MASK)
    for i, length in enumerate((3, 1, 2)):
        alone = word_states(model, WORDS[i:i + 1, :length], MASK[i:i + 1, :length])
        assert torch.allclose(together[:, i], alone[:, 0], atol=1e-6)


def test_a_word_is_the_mean_of_its_tokens_at_every_level_and_the_last_level_is_the_head():
    model = small_model()
    states = word_states(model, WORDS, MASK)
    assert states.shape == (2 + 2, 3, 32)                                   # K = L + 2
    for level, hidden in enumerate(model.hidden(WORDS[:1])):
        assert torch.allclose(states[level, 0], hidden[0].mean(dim=0), atol=1e-6)
    assert torch.allclose(states[-1, 0], model.head.weight[[5, 6, 7]].mean(dim=0), atol=1e-6)
    assert torch.allclose(states[0, 2], model.embed.weight[[9, 10]].mean(dim=0), atol=1e-6)


def test_words_keep_their_order_and_each_is_read_alone():
    model = small_model()
    words = torch.tensor([[5, 6], [8, 0], [9, 10], [11, 0], [5, 6]])
    mask = words > 0
    states = word_states(model, words, mask)
    for i, tokens in enumerate(([5, 6], [8], [9, 10], [11], [5, 6])):
        levels = model.hidden(torch.tensor([tokens]))
        for k, level in enumerate(levels):
            assert torch.allclose(states[k, i], level[0].mean(dim=0), atol=1e-6)
    assert states.dtype == torch.float32


def test_a_long_context_does_not_make_the_rows_of_words_long(monkeypatch):
    model, widths = GPT(ModelConfig(60, 1, 4, 32, context_len=1000)).initialise(0), []

    def spy(words, mask, width):
        widths.append(width)
        return pack(words, mask, width)

    monkeypatch.setattr("prealign.pack", spy)
    states = word_states(model, WORDS, MASK)
    long = torch.ones(1, 300, dtype=torch.long)
    word_states(model, long, long > 0)
    assert widths == [256, 300]
    assert torch.allclose(states[1, 1], model.hidden(WORDS[1:2, :1])[1][0, 0], atol=1e-6)


def test_under_autocast_the_mean_over_tokens_is_taken_in_float32():
    model = small_model()
    tokens, owner, _ = pack(WORDS[:1], MASK[:1], model.config.context_len)
    with torch.autocast("cpu", torch.bfloat16):
        states, levels = word_states(model, WORDS[:1], MASK[:1]), model.hidden(tokens, segment=owner)
    assert states.dtype == torch.float32 and levels[1].dtype == torch.bfloat16
    for k, level in enumerate(levels):
        exact = level[0, :len(WORDS[0])].float().mean(dim=0)
        assert torch.allclose(states[k, 0], exact, rtol=1e-5, atol=1e-7)          # bfloat16 has 3 digits


def test_words_are_laid_end_to_end_and_none_is_cut():
    rng = np.random.default_rng(0)
    for n in (1, 7, 60):
        lengths = torch.from_numpy(rng.integers(1, 6, n))
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        words = torch.from_numpy(rng.integers(1, 90, mask.shape)) * mask
        tokens, owner, place = pack(words, mask, 8)
        assert tokens.shape == owner.shape and tokens.shape[1] == 8
        assert len(tokens) <= 2 * math.ceil(lengths.sum() / 8)
        for i, length in enumerate(lengths.tolist()):
            first = place[i, 0].item()
            assert place[i, :length].tolist() == [first + j for j in range(length)]
            assert first // 8 == (first + length - 1) // 8                        # in one row
            assert tokens.flatten()[first:first + length].tolist() == words[i, :length].tolist()
            assert (owner == i).nonzero().tolist() == [[first // 8, first % 8 + j] for j in range(length)]
        assert (owner == -1).sum() == owner.numel() - lengths.sum()
        assert place.max() < tokens.numel() and place.flatten().bincount().max() <= 2 * mask.shape[1]


def test_a_word_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="a word of 9 tokens does not fit into a row of 8"):
        pack(torch.ones(1, 9, dtype=torch.long), torch.ones(1, 9, dtype=torch.bool), 8)


def test_the_states_of_a_word_are_those_of_the_word_alone():
    model, rng = small_model(), np.random.default_rng(0)
    lengths = torch.from_numpy(rng.integers(1, 4, 40))                            # several rows of tokens
    mask = torch.arange(3) < lengths[:, None]
    words = torch.from_numpy(rng.integers(1, model.config.vocab_size, (40, 3))) * mask
    states = word_states(model, words, mask)
    for i, length in enumerate(lengths.tolist()):
        levels = [*model.hidden(words[i:i + 1, :length]), model.head.weight[words[i:i + 1, :length]]]
        alone = torch.stack([level[0].mean(dim=0) for level in levels])           # (K, D)
        assert torch.allclose(states[:, i], alone, atol=1e-6)


def test_word_alignment_is_the_contrastive_loss_of_the_states_of_words():
    states, concept = word_states(small_model(), WORDS, MASK), torch.tensor([0, 1, 0])
    for arguments, tau in (((), 0.1), ((0.1,), 0.1), ((0.5,), 0.5)):
        assert torch.equal(word_alignment_loss(states, concept, *arguments), contrastive_loss(states, concept, tau))
    alike = word_alignment_loss(torch.ones(2, 3, 4), concept)
    assert alike.item() == pytest.approx(math.log(2), abs=1e-5)    # each word has two candidates


def test_twenty_steps_of_word_alignment_halve_its_loss_and_move_embedding_body_and_head():
    model = small_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    words, mask = torch.arange(40)[:, None], torch.ones(40, 1, dtype=torch.bool)
    concept = torch.arange(20).repeat(2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        losses.append(word_alignment_loss(word_states(model, words, mask), concept))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < losses[0].item() / 2
    after = dict(model.named_parameters())
    assert all(not torch.equal(before[name], after[name])
               for name in ("embed.weight", "body.0.feed_in.weight", "head.weight"))


def test_the_demonstration_runs_and_finds_the_translations(capsys):
    prealign.main()
    first, *_, last, text, read, target, end = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("step  0") and "100%" not in first
    assert last.startswith("step 60") and last.endswith("100%")
    assert text.split() == ["text", "Anna", "gave", "Ben", "the", "apple"]
    assert read.split() == ["input", "Anna", "⟨gave⟩", "⟨Ben⟩", "⟨the⟩"]
    assert target.split() == ["target", "gave", "Ben", "the", "apple"]
    assert end.endswith("python train.py --method prealign")
