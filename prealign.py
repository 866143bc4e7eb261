"""PreAlign: align words before pretraining, then keep them aligned with code-switched input.

Paper: Li, Huang, Ching, Dai, Chen, "PreAlign: Boosting Cross-Lingual Transfer by Early Establishment of
Multilingual Alignment", EMNLP 2024, arXiv 2407.16222.  Its two ideas, in the order of training:

  1. Before pretraining, a random model reads text and learns similar states for translations of a word.
       word_states          one vector per word and level
       word_alignment_loss  one contrastive loss per level over the words of a dictionary batch
  2. During pretraining, some words of English text are replaced by translations in the input only.
       code_switch          a batch of text -> inputs and targets

`python prealign.py` shows both on made-up data in a few seconds.
`python train.py --method prealign` is the experiment.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F

from model import GPT, IGNORE, ModelConfig, contrastive_loss

ROW = 256   # tokens in a row of words: longer rows would cost more attention


def word_states(model, words, mask, prefix=None):
    """One vector per word and level: words (N, M), mask (N, M) bool -> (K, N, D), K = L + 2.

    Each word is read alone, and its vector is the mean over its tokens.  Level 0 is the input embedding,
    levels 1 ... L are the blocks, level L + 1 holds the rows of the output embedding.  If these are alike, a
    word and its translation are similarly likely as outputs.
    words holds token ids, padded on the right to the M tokens of the longest word; mask is true on real
    tokens.  Keep both on the CPU, where pack runs.
    prefix: a token that is put before every word and left out of the mean.  In public checkpoints, the first
            token of a text is an attention sink, whose huge state would dominate the mean
    differs from the paper: level 0 has no positions, because rotary positions act inside attention.
    """
    share = mask / mask.sum(dim=1, keepdim=True)                                 # (N, M) weights of the mean
    if prefix is not None:                                                       # M grows by one
        words, mask = F.pad(words, (1, 0), value=prefix), F.pad(mask, (1, 0), value=True)
        share = F.pad(share, (1, 0))
    width = min(model.config.context_len, max(words.shape[1], ROW))
    tokens, segment, place = pack(words, mask, width)                            # (R, T), (R, T), (N, M)
    tokens, segment, place, share = (
        t.to(model.embed.weight.device, non_blocking=True) for t in (tokens, segment, place, share))
    levels = model.hidden(tokens, segment=segment)                               # L + 1 tensors (R, T, D)
    levels.append(F.embedding(tokens, model.head.weight))
    levels = torch.stack([level.float() for level in levels]).flatten(1, 2)      # (K, R T, D)
    return (levels[:, place] * share[..., None]).sum(dim=2)                      # [PreAlign: pooling]


def pack(words, mask, width):
    """Lay words end to end in rows of `width` tokens, so that little padding is computed.

    words (N, M), mask (N, M) -> tokens (R, width);
    segment (R, width): the index of the word that a token belongs to, -1 for padding;
    place (N, M): where the tokens of a word are in the flattened rows; any place for padding.
    Raises ValueError for a word that is longer than a row.
    """
    if words.shape[1] > width:
        raise ValueError(f"a word of {words.shape[1]} tokens does not fit into a row of {width}")
    lengths, starts, end = mask.sum(dim=1), [], 0
    for m in lengths.tolist():
        if end % width + m > width:                            # the word would be cut: it begins the next row
            end += width - end % width
        starts.append(end)
        end += m
    place = torch.tensor(starts)[:, None] + torch.arange(words.shape[1])         # (N, M)
    tokens = torch.zeros(math.ceil(end / width), width, dtype=torch.long)
    segment = torch.full_like(tokens, -1)
    tokens.view(-1)[place[mask]] = words[mask]
    segment.view(-1)[place[mask]] = torch.arange(len(words)).repeat_interleave(lengths)
    # one place for all padding would be slow: a GPU adds up the gradients of a place one after the other
    return tokens, segment, place.clamp(max=tokens.numel() - 1)


def word_alignment_loss(states, concept, tau=0.1):
    """Contrastive loss over the words of a dictionary batch, the mean over levels.

    states (K, N, D) from word_states, concept (N,) -> () in nats.  Words with the same concept are
    translations.  The candidates of a word are all other words of the batch, of every language.  The batch is
    the pool of negatives, so accumulating gradients over several batches would not give the same loss.
    """
    return contrastive_loss(states, concept, tau)                                # [PreAlign: alignment loss]


def code_switch(rows, starts, switchable, table, ratio, rng, vanilla=False):
    """Replace words of the input by translations.  The targets stay English.

    rows:       (B, W) token ids, W = T + 1
    starts:     (B, W) bool, true where a token starts a word
    switchable: (B,)   bool, rows whose words may be replaced (the English ones)
    table:      {word: [translation, ...]}, every word a tuple of token ids
    ratio:      probability with which a word that is in the table is replaced
    rng:        numpy generator.  The draws depend on the number of words in the batch only
    vanilla:    the ablation in which foreign words are targets as well
    returns:    inputs (B, T), targets (B, T), shifted by one.  Rows that became shorter end in 0 and IGNORE,
                rows that became longer are cut off

    A word x1 x2 that is replaced by y1 y2 y3 leaves, where - carries no loss:

        input   ...  before  y1  y2  y3    next
        target  ...  x1      -   -   next  ...

    So the model reads foreign words, but it is never asked to write one in English text.
    """
    W, begins = rows.shape[1], starts.copy()
    begins[:, 0] = True                                        # also where a row begins inside a word
    row, first = np.nonzero(begins)                                              # (n,) each, n words in all
    end = np.append(first[1:], 0)                              # (n,) the first token of the next word
    end[end == 0] = W                                          # the next word is in the next row
    complete = starts[row, first] & (end < W)                  # (n,) not cut by an edge of the row
    draw, choice = rng.random(len(row)), rng.random(len(row))
    drawn = np.flatnonzero((draw < ratio) & complete & switchable[row])          # words to look up
    inputs, targets = rows.tolist(), rows.tolist()
    for n in drawn[::-1]:                                      # from the end: earlier positions stay valid
        r, i, j = row[n], first[n], end[n]
        translations = table.get(tuple(inputs[r][i:j]))
        if translations:
            translation = translations[int(choice[n] * len(translations))]       # uniform
            english = [inputs[r][i]] + [IGNORE] * (len(translation) - 1)
            inputs[r][i:j] = translation
            targets[r][i:j] = translation if vanilla else english      # [PreAlign: input-only code-switching]
    inputs = np.array([(line + [0] * W)[:W - 1] for line in inputs], np.int64)   # (B, T)
    targets = np.array([(line + [IGNORE] * W)[1:W] for line in targets], np.int64)
    return inputs, targets


def main():
    """Align 50 made-up words with their translations in a random model, then code-switch one row."""
    model = GPT(ModelConfig(vocab_size=150, n_layer=2, n_head=2, d_model=32, context_len=16)).initialise(0)
    words = torch.cat((torch.arange(50), torch.arange(100, 150)))[:, None]       # (100, 1)
    concept, mask = torch.arange(50).repeat(2), torch.ones(100, 1, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(61):
        states = word_states(model, words, mask)                                 # (K, 100, D)
        loss = word_alignment_loss(states, concept)
        if step % 30 == 0:
            z = F.normalize(states.detach(), dim=-1)                             # (K, 100, D)
            found = (z[1, :50] @ z[1, 50:].T).argmax(dim=1) == torch.arange(50)
            print(f"step {step:2d}  loss {loss.item():5.2f}  "
                  f"translation is the nearest word {found.float().mean():4.0%}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    names = "Anna gave Ben the apple ⟨Anna⟩ ⟨gave⟩ ⟨Ben⟩ ⟨the⟩ ⟨apple⟩".split()      # 5 + i translates i
    rows, table = np.array([[0, 1, 2, 3, 4]]), {(i,): [(5 + i,)] for i in range(5)}
    inputs, targets = code_switch(rows, rows >= 0, np.array([True]), table, 0.6, np.random.default_rng(0))
    for title, tokens in (("text", rows[0]), ("input", inputs[0]), ("target", targets[0])):
        print(f"{title:8}" + " ".join(f"{names[token]:8}" for token in tokens))
    print("Targets are the next English words.  Next: python train.py --method prealign")


if __name__ == "__main__":
    main()
