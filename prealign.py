"""PreAlign: align words before pretraining, then keep them aligned by code-switched input.

Paper: Li, Huang, Ching, Dai, Chen, "PreAlign: Boosting Cross-Lingual Transfer by Early Establishment of
Multilingual Alignment", EMNLP 2024, arXiv 2407.16222.  Two ideas, in the order in which a model meets them:

  1. before pretraining, give translations of a word similar states at every level of a random model
       word_states          pooling: one vector per word and level
       word_alignment_loss  one contrastive loss per level over the words of a dictionary batch
  2. during pretraining, put foreign words into the input of English text, never into its targets
       code_switch          on a whole batch at once, for words and translations of any number of tokens

`python prealign.py` shows both on made-up data in a few seconds;
`python train.py --method prealign` is the experiment.
"""
import numpy as np
import torch
import torch.nn.functional as F

from model import GPT, IGNORE, Shape, contrastive_loss


def word_states(model, words, mask):
    """One vector per word and level: words (N, M), mask (N, M) bool -> (K, N, D), K = L + 2.

    words holds token ids, padded on the right to the longest word's M tokens; mask is true on real tokens.
    Both are best on the CPU: sorting them there waits for no GPU.  Each word is read alone.  Level 0 is the
    input embedding, 1 ... L the blocks, L + 1 the rows of the *output* embedding: with these included, the
    model also learns to *write* a word's translation where it could write the word.
    differs from the paper: positions are rotary, so level 0 carries none.
    """
    lengths, pooled, order = mask.sum(dim=1), [], []
    for m in lengths.unique().tolist():
        # the n words of m tokens share a batch: no padding is computed
        rows = (lengths == m).nonzero()[:, 0]                                # (n,)
        tokens = words[rows, :m].to(model.embed.weight.device, non_blocking=True)   # (n, m)
        levels = model.hidden(tokens) + [
            F.embedding(tokens, model.head.weight)]                          # K tensors (n, m, D)
        pooled.append(
            torch.stack([level.float().mean(dim=1) for level in levels]))    # (K, n, D) [PreAlign: pooling]
        order.append(rows)
    order = torch.cat(order).argsort().to(pooled[0].device, non_blocking=True)
    return torch.cat(pooled, dim=1)[:, order]                                # (K, N, D) in the order of words


def word_alignment_loss(model, words, mask, concept, tau=0.1, states=word_states):
    """Contrastive loss over the words of a dictionary batch, mean over levels.

    words (N, M), mask (N, M), concept (N,) -> ().  states: computes the states of words; where there are many
    processes, one that shares the words out among them.

    Candidates of a word are all other words of the batch, of both languages; the word itself is excluded.
    The batch is the pool of negatives, so accumulating gradients over batches would not be the same loss.
    """
    return contrastive_loss(states(model, words, mask), concept, tau)            # [PreAlign: alignment loss]


def code_switch(rows, starts, switchable, dictionary, ratio, rng, vanilla=False):
    """Swap words for translations in the input; the targets stay English.

    rows:       (B, W) token ids, W = T + 1
    starts:     (B, W) bool, true where a token starts a word
    switchable: (B,)   bool, rows that may be switched (the English ones)
    dictionary: has find(), first, count, translations, translation_len (data/corpus.py)
    ratio:      probability per dictionary word
    vanilla:    the ablation: foreign words are targets too
    returns:    inputs (B, T), targets (B, T), shifted by one; shorter rows end in 0 and IGNORE

    For the word x1 x2 swapped for y1 y2 y3:   input    ... y1 y2 y3 next
                               its own target  ... x1  -  -  next      (- carries no loss)
    The token before the word predicts x1, positions inside the swapped word predict nothing, y3 predicts the
    next word: the model reads foreign words but is never asked to write one in English context.
    """
    B, W = rows.shape
    tokens, starts = rows.ravel(), starts.copy()                                        # (B * W,), (B, W)
    # a row may begin inside a word and end inside one: such parts of words are not complete
    whole = starts[:, 0].copy()                                                         # (B,)
    starts[:, 0] = True
    word_start = np.flatnonzero(starts)                                                 # (n,) n words in all
    word_len = np.diff(np.append(word_start, B * W))                                    # (n,)
    row = word_start // W                                                               # (n,)
    complete = (word_start % W + word_len < W) & (whole[row] | (word_start % W > 0))    # (n,)

    entry = dictionary.find(tokens, word_start, word_len)                               # (n,) -1: not there
    switched = (
        (entry >= 0) & (rng.random(len(entry)) < ratio) & complete & switchable[row])   # (n,)
    choice = dictionary.first[entry] + (
        rng.random(len(entry)) * dictionary.count[entry]).astype(np.int64)              # (n,) uniform

    new_len = np.where(switched, dictionary.translation_len[choice], word_len)          # (n,)
    word = np.repeat(np.arange(len(entry)), new_len)                                    # (t,) t tokens in all
    place = np.arange(len(word)) - np.repeat(np.cumsum(new_len) - new_len, new_len)     # (t,) place in word
    swap = switched[word]                                                               # (t,)
    source = tokens[word_start[word] + np.minimum(place, word_len[word] - 1)]           # (t,) English token
    width = dictionary.translations.shape[1]
    foreign = dictionary.translations[choice[word], np.minimum(place, width - 1)]       # (t,)
    inputs = np.where(swap, foreign, source)                                            # (t,)
    targets = inputs if vanilla else np.where(
        swap, np.where(place == 0, source, IGNORE), source)   # (t,) [PreAlign: input-only code-switching]

    length = np.bincount(row, weights=new_len, minlength=B).astype(np.int64)            # (B,) new row lengths
    column = np.arange(len(word)) - np.repeat(np.cumsum(length) - length, length)       # (t,)
    kept = column < W                                                                   # (t,) end is cut off
    new_inputs, new_targets = np.zeros((B, W), np.int64), np.full((B, W), IGNORE, np.int64)
    new_inputs[row[word[kept]], column[kept]] = inputs[kept]
    new_targets[row[word[kept]], column[kept]] = targets[kept]
    return new_inputs[:, :-1], new_targets[:, 1:]                                       # (B, T) each


class TinyDictionary:
    """Entries i -> 100 + i of one token each: what the demonstration needs of data.corpus.Dictionary."""
    first, count = np.arange(50), np.ones(50, np.int64)
    translations, translation_len = np.arange(100, 150)[:, None], np.ones(50, np.int64)

    def find(self, tokens, word_start, word_len):
        return np.where(tokens[word_start] < 50, tokens[word_start], -1)


def main():
    """Align 50 made-up words with their twins in a random model, then code-switch one row."""
    model = GPT(Shape(vocab_size=150, n_layer=2, n_head=2, d_model=32, context_len=16)).initialise(0)
    words = torch.cat((torch.arange(50), torch.arange(100, 150)))[:, None]       # (100, 1)
    concept, mask = torch.arange(50).repeat(2), torch.ones(100, 1, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(61):
        loss = word_alignment_loss(model, words, mask, concept)
        if step % 30 == 0:
            z = F.normalize(word_states(model, words, mask).detach(), dim=-1)    # (K, 100, D)
            found = (z[1, :50] @ z[1, 50:].T).argmax(dim=1) == torch.arange(50)
            print(f"step {step:2d}  loss {loss.item():5.2f}  "
                  f"translation is the nearest word {found.float().mean():4.0%}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rows = np.array([[5, 6, 7, 8, 9]])
    inputs, targets = code_switch(
        rows, np.ones_like(rows, bool), np.array([True]), TinyDictionary(), 0.6, np.random.default_rng(0))
    print("text", rows[0].tolist(), " input", inputs[0].tolist(), " target", targets[0].tolist())


if __name__ == "__main__":
    main()
