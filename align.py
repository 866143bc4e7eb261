"""AFP, align after pretraining: alike inside, and answers across languages.

Paper: Li, Wang, Zhang, Zong, "Improving In-context Learning of Multilingual Generative Language Models with
Cross-lingual Alignment", NAACL 2024, arXiv 2311.08089.  A pretrained model meets a few translated samples:

  1. multilingual contrastive learning (MCL): a sentence and its translation get similar states, early in the
     model, in contrast to the other sentences of the batch
       sentence_states, multilingual_contrast
  2. cross-lingual instruction tuning (CIT): a question in one language, "Answer in clone:", the answer in the
     language asked for; only the answer carries loss
       directions        who asks in which language, who answers in which
       instruction_rows  questions and answers -> inputs and targets

The total is L = 1 * L_MCL + 1.5 * L_CIT.  What the paper compares with are settings of the same functions:
MCL only and CIT only are weights of 0, MIT (every answer in the question's language) is cross = 0, and plain
fine-tuning on translations (FT) has loss on every token.

`python align.py` shows both on made-up data in a few seconds;
`python train.py --method align` is the experiment.
"""
import numpy as np
import torch
import torch.nn.functional as F

from model import GPT, IGNORE, Shape, contrastive_loss, lm_loss

POOLS = ("last", "mean", "max")


def sentence_states(model, tokens, mask, level=1, pool="last"):
    """One vector per sentence: tokens (N, W), mask (N, W) bool, true on tokens that count -> (N, D).

    tokens are padded on the right.  level: 0 is the input embedding, 1 the first block, as published.
    pool: the state of the last token, as published; or the mean or maximum over tokens, channel by channel.
    Raises ValueError for another pool.
    """
    states = model.hidden(tokens, top=level)[level].float()                      # (N, W, D)
    if pool == "last":
        return states[torch.arange(len(tokens)), mask.sum(dim=1) - 1]            # (N, D) [AFP: pooling]
    mask = mask[..., None]                                                       # (N, W, 1)
    if pool == "mean":
        # not states * mask: padding with an infinite state would become NaN
        return states.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1)         # (N, D)
    if pool == "max":
        return states.masked_fill(~mask, float("-inf")).amax(dim=1)              # (N, D)
    raise ValueError(f"pool {pool} is unknown: take one of {', '.join(POOLS)}")


def multilingual_contrast(states, concept, tau=0.05, both_ways=True, same_language=False):
    """L_MCL of n sentences and their n translations: states (2n, D), concept (2n,) -> () in nats.

        mean over i of  -log  exp(cos(h_i, h_i+) / tau) / sum_j exp(cos(h_i, h_j+) / tau)

    The first n rows are one side (English), the others the other side, in whatever languages; rows with the
    same concept translate each other.  concept is best on the CPU.
    both_ways:     the translations look for their sentences, too.  differs from the paper: its released code
                   scores one direction only; two use every similarity twice
    same_language: other rows of the own side are candidates, too, as the paper's figure shows and its code
                   does not; of side two these may be in several languages
    log(n) is chance (log(2n - 1) with same_language); near 0 when only translations coincide.
    """
    return contrastive_loss(states[None], concept, tau, anchors=len(states) // 2, same_side=same_language,
                            both_ways=both_ways)                                 # [AFP: MCL]


def directions(rng, others, n, cross):
    """Languages of n samples, as indices; English is 0: -> partner, asked, answered, (n,) each.

    others: the aligned languages beside English.  Each sample is about English and a partner drawn from
            them: English is the pivot, two other languages never meet
    asked:    English or the partner, equally often
    answered: with probability `cross` the other one of the two, else the same
    """
    partner = rng.choice(np.asarray(others), n)                                  # (n,) [AFP: pivot]
    asked = np.where(rng.random(n) < 0.5, partner, 0)                            # (n,)
    answered = np.where(rng.random(n) < cross, partner - asked, asked)               # (n,) English is 0
    return partner, asked, answered


def instruction_rows(questions, answers, width, answer_only=True):
    """Questions and answers, two lists of lists of token ids -> inputs (B, T), targets (B, T), T < width.

    answer_only: the question carries no loss.  False: plain language modelling of both (FT)
    Each sample has a row of its own, padded on the right: under causal attention none sees another, and
    padding is neither seen nor scored.  A sample longer than width loses its start.

    >>> [table.tolist() for table in instruction_rows([[1, 2, 3]], [[7, 8]], 9)]
    [[[1, 2, 3, 7]], [[-100, -100, 7, 8]]]
    """
    rows = [[*question, *answer][-width:] for question, answer in zip(questions, answers, strict=True)]
    shape = len(rows), max(map(len, rows))
    tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)          # (B, W) each
    for line, target, row, answer in zip(tokens, targets, rows, answers):
        n, first = len(row), len(row) - len(answer) if answer_only else 0
        line[:n], target[max(first, 0):n] = row, row[max(first, 0):]             # [AFP: CIT]
    return tokens[:, :-1], targets[:, 1:]                                        # (B, T) each


def main():
    """Align 32 made-up sentences with their clones and learn to answer in either language."""
    V, n, rng = 50, 32, np.random.default_rng(0)                       # token t's twin in the clone is V + t
    asks = [2 * V, 2 * V + 1]                                          # "answer in English:", "in clone:"
    model = GPT(Shape(vocab_size=2 * V + 2, n_layer=2, n_head=2, d_model=32, context_len=16)).initialise(0)
    english = rng.integers(1, V, (n, 6))
    tokens = torch.from_numpy(np.concatenate((english, english + V)))  # (2n, 6)
    mask, concept = torch.ones_like(tokens, dtype=torch.bool), torch.arange(n).repeat(2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(101):
        states = sentence_states(model, tokens, mask)                  # (2n, D)
        mcl = multilingual_contrast(states, concept)
        _, asked, answered = directions(rng, [1], n, cross=0.5)
        # the answer is the first word of the question, in the language asked for
        questions = [[*(row + V * q), asks[a]] for row, q, a in zip(english, asked, answered)]
        first_words = [[row[0] + V * a] for row, a in zip(english, answered)]
        inputs, targets = instruction_rows(questions, first_words, 16)
        logits, targets = model.logits(torch.from_numpy(inputs)), torch.from_numpy(targets)
        cit = lm_loss(logits, targets)
        if step % 50 == 0:
            z = F.normalize(states.detach(), dim=-1)
            found = (z[:n] @ z[n:].T).argmax(dim=1) == torch.arange(n)
            answers = logits[targets != IGNORE].argmax(dim=-1)                   # (n,)
            as_asked = (answers // V == torch.from_numpy(answered)).float().mean()
            print(f"step {step:3d}  MCL {mcl.item():5.2f}  CIT {cit.item():5.2f}  "
                  f"translation is the nearest sentence {found.float().mean():4.0%}  "
                  f"in the language asked for {as_asked:4.0%}")
        optimizer.zero_grad()
        (1.0 * mcl + 1.5 * cit).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
