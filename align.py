"""AFP, alignment after pretraining: similar states for translations, and answers across languages.

Paper: Li, Wang, Zhang, Zong, "Improving In-context Learning of Multilingual Generative Language Models with
Cross-lingual Alignment", NAACL 2024, arXiv 2311.08089.  A pretrained model learns from translated samples:

  1. Multilingual contrastive learning (MCL): a sentence and its translation get similar states early in the
     model, in contrast to the other sentences of the batch.
       sentence_states, multilingual_contrast
  2. Cross-lingual instruction tuning (CIT): a question in one language, "Answer in clone:", and the answer in
     that language.  Only the answer carries loss.
       draw_languages    languages of each question and of its answer
       instruction_rows  questions and answers -> inputs and targets

The total loss is 1 * L_MCL + 1.5 * L_CIT.  Ablations and baselines of the paper use the same functions:
"MCL only" and "CIT only" set the other weight to 0.  MIT has no MCL and no translations, and sets cross to 0:
every answer is in the language of its question.  Fine-tuning on translations (FT) has loss on every token.

`python align.py` shows both on made-up data in a few seconds.
`python train.py --method align` is the experiment.
"""
import numpy as np
import torch
import torch.nn.functional as F

from model import GPT, IGNORE, ModelConfig, contrastive_loss, lm_loss

POOLS = ("last", "mean")


def sentence_states(model, tokens, mask, level=1, pool="last"):
    """One vector per sentence: tokens (N, W), mask (N, W) bool, true on real tokens -> (N, D) in float32.

    tokens are padded on the right.
    level: 0 is the input embedding, 1, as published, the first block
    pool:  "last", as published: the state of the last token; "mean" over the tokens.  A token whose state is
           more than ten times as long as the median of its sentence is left out: such an attention sink says
           nothing about the sentence, but would swamp the mean [Sun et al. 2024, "Massive Activations"]
    Raises ValueError for another pool.
    """
    states = model.hidden(tokens, max_level=level)[level].float()                # (N, W, D)
    if pool == "last":
        row, column = (torch.arange(n, device=mask.device) for n in mask.shape)  # (N,), (W,)
        last = column.where(mask, -1).argmax(dim=1)                              # (N,) padding is never last
        return states[row, last]                                                 # (N, D) [AFP: pooling]
    if pool == "mean":
        length = states.norm(dim=-1).masked_fill(~mask, float("nan"))            # (N, W)
        sink = length > 10 * length.nanmedian(dim=1, keepdim=True).values        # (N, W) false for NaN
        mask = (mask & ~sink)[..., None]                                         # (N, W, 1)
        # filled and not multiplied: an infinite state of the padding times 0 would be NaN
        return states.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1)         # (N, D)
    raise ValueError(f"pool {pool} is unknown: take one of {', '.join(POOLS)}")


def multilingual_contrast(states, concept, tau=0.05, symmetric=True):
    """L_MCL of n sentences and their n translations: states (2n, D), concept (2n,) -> () in nats.

        mean over i of  -log  exp(cos(h_i, h_i+) / tau) / sum_j exp(cos(h_i, h_j+) / tau)

    The first n rows are English, the others their translations into any languages.  Rows with the same
    concept are translations of each other.  A sample that is drawn twice has two positives, and the mean is
    over pairs.  Keep concept on the CPU.
    symmetric: the translations are anchors, too.  differs from the paper: in its released code only one side
               has anchors.  The other direction reuses the similarities at almost no cost
    The loss is log(n) if all sentences are alike, and near 0 if only translations are.
    """
    return contrastive_loss(
        states[None], concept, tau, anchors=len(states) // 2, symmetric=symmetric)         # [AFP: MCL]


def draw_languages(rng, others, n, cross):
    """Draw the languages of n samples: -> partner, asked, answered, (n,) indices each; English is 0.

    others:   indices of the aligned languages other than English
    partner:  one of these.  Each sample is about English and its partner, so English is the pivot: two other
              languages never meet
    asked:    language of the question, English or the partner with equal probability
    answered: language of the answer.  With probability `cross` it is the other one of the two
    """
    partner = rng.choice(np.asarray(others), n)                                  # (n,) [AFP: pivot]
    asked = np.where(rng.random(n) < 0.5, partner, 0)                            # (n,)
    the_other = partner - asked                                                  # (n,) as English is 0
    answered = np.where(rng.random(n) < cross, the_other, asked)                 # (n,)
    return partner, asked, answered


def instruction_rows(questions, answers, width, answer_only=True):
    """Questions and answers, two lists of lists of token ids -> inputs (B, T), targets (B, T), T < width.

    answer_only: the question carries no loss.  False: both carry loss (FT)
    Each sample has its own row, padded on the right, so samples do not see each other.  A question and answer
    of more than `width` tokens lose their start.

    >>> [table.tolist() for table in instruction_rows([[1, 2, 3]], [[7, 8]], 9)]
    [[[1, 2, 3, 7]], [[-100, -100, 7, 8]]]
    """
    rows = [[*question, *answer][-width:] for question, answer in zip(questions, answers, strict=True)]
    shape = len(rows), max(map(len, rows))
    tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)          # (B, W) each
    for i, (row, answer) in enumerate(zip(rows, answers)):
        first = max(len(row) - len(answer), 0) if answer_only else 0   # the first token that carries loss
        tokens[i, :len(row)] = row
        targets[i, first:len(row)] = row[first:]                                 # [AFP: CIT]
    return tokens[:, :-1], targets[:, 1:]                                        # (B, T) each


def main():
    """Align 32 made-up sentences with their translations and learn to answer in either language."""
    V, n, rng = 50, 32, np.random.default_rng(0)                       # V + t is the translation of token t
    asks = [2 * V, 2 * V + 1]                                          # "answer in English:", "in clone:"
    config = ModelConfig(vocab_size=2 * V + 2, n_layer=2, n_head=2, d_model=32, context_len=16)
    model = GPT(config).initialise(0)
    english = rng.integers(1, V, (n, 6))
    tokens = torch.from_numpy(np.concatenate((english, english + V)))  # (2n, 6)
    mask, concept = torch.ones_like(tokens, dtype=torch.bool), torch.arange(n).repeat(2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(101):
        states = sentence_states(model, tokens, mask)                  # (2n, D)
        mcl = multilingual_contrast(states, concept)
        _, asked, answered = draw_languages(rng, [1], n, cross=0.5)
        # the answer is the first word of the question, in the language that is asked for
        questions = [[*(row + V * q), asks[a]] for row, q, a in zip(english, asked, answered)]
        first_words = [[row[0] + V * a] for row, a in zip(english, answered)]
        inputs, targets = map(torch.from_numpy, instruction_rows(questions, first_words, 16))
        logits = model.logits(inputs)                                  # (B, T, V)
        cit = lm_loss(logits, targets)
        if step % 50 == 0:
            z = F.normalize(states.detach(), dim=-1)
            found = (z[:n] @ z[n:].T).argmax(dim=1) == torch.arange(n)
            answers = logits[targets != IGNORE].argmax(dim=-1)         # (n,)
            as_asked = (answers // V == torch.from_numpy(answered)).float().mean()
            print(f"step {step:3d}  MCL {mcl.item():5.2f}  CIT {cit.item():5.2f}  "
                  f"translation is the nearest sentence {found.float().mean():4.0%}  "
                  f"in the language asked for {as_asked:4.0%}")
        optimizer.zero_grad()
        (1.0 * mcl + 1.5 * cit).backward()
        optimizer.step()
    print("Next: python train.py --method align")


if __name__ == "__main__":
    main()
