"""Active forgetting: reset the input embedding during pretraining, so that a new language is easy to attach.

Papers: Aggarwal, Sathe, Sitaram, arXiv 2410.16168 (decoders and vocabulary expansion), after Chen et al.,
NeurIPS 2023, arXiv 2307.01163 (the reset, for an encoder).  In the order of training:

  1. In pretraining, the input embedding (not the head) is reset every k steps, together with its optimizer
     state and the schedule of its learning rate.  The body learns to work with fresh embeddings.
       Forgetting       decides when and does the reset
  2. Later, a new language gets its own rows in embedding and head.  The body is frozen, as published.
       expand_vocabulary, new_row_groups, merge_vocabulary, assemble

differs from the papers: by default, only the new rows of the head learn; Aggarwal et al. train the whole head
(protocol "head").  In Chen et al. the head is tied to the embedding, so it is reset, too.

`python forget.py` shows both on made-up data in a few seconds.
`python train.py --method forget` is the experiment.
"""
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from model import GPT, ModelConfig, add_adapters, lm_loss, lr_multiplier

# peak learning rate of the body or its adapters in adaptation, relative to that of the new rows; chosen on a
# seed of its own (data/results/plan.md)
BODY_RATES = {"frozen": 0.0, "adapters": 1.0, "whole": 0.03}


class Forgetting:
    """Resets of the embedding.  They are a pure function of seed and step, so a resumed run repeats them.

    steps:           number of pretraining steps
    every:           steps between resets (k); 0: never.  The last reset leaves at least k steps
    start, until:    resets happen between these shares of the steps
    blend:           a row becomes (1 - blend) * row + blend * noise; 1, as published: only noise
    reset_optimizer: also reset AdamW's two moments of the embedding, its step counter and the schedule of its
                     learning rate, as published

    at: list of the steps before which a reset happens
    """

    def __init__(self, steps, every, start=0.0, until=1.0, blend=1.0, reset_optimizer=True, seed=0):
        self.steps, self.blend, self.reset_optimizer, self.seed = steps, blend, reset_optimizer, seed
        self.at = []
        if every and blend:
            last = min(until * steps, steps - every)
            self.at = [s for s in range(every, steps, every) if start * steps <= s <= last]

    def lr_factor(self, group, step, warmup):
        """Factor of a group's peak rate.  Warm-up and decay of the embedding start again with each reset."""
        begin, end = 0, self.steps
        if group == "embed" and self.reset_optimizer:
            begin = max((s for s in self.at if s <= step), default=0)
            end = min((s for s in self.at if s > step), default=self.steps)
        return lr_multiplier(step - begin, end - begin, warmup)                  # [forgetting: clock]

    @torch.no_grad()
    def reset_if_due(self, step, model, optimizer):
        """Do the reset that is due before this step, if any: -> whether there was one."""
        if step not in self.at:
            return False
        weight = model.embed.weight                                              # (V, D)
        # drawn on the CPU, so that every device gets the same numbers
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        noise = 0.02 * torch.randn(weight.shape, generator=generator)            # (V, D)
        weight.lerp_(noise.to(weight.device, non_blocking=True), self.blend)     # [forgetting: weights]
        state = optimizer.state.get(weight)
        if self.reset_optimizer and state:                     # before its first step AdamW has no state
            for value in state.values():                       # two moments (V, D) and the step counter
                value.zero_()                                                    # [forgetting: moments]
        return True


class ExpandedEmbedding(nn.Module):
    """An embedding of V old and n new rows.  They are two parameters, because one of them may be frozen."""

    def __init__(self, old, new):
        super().__init__()
        self.old, self.new = nn.Parameter(old), nn.Parameter(new)

    @property
    def weight(self):
        return torch.cat((self.old, self.new))                                   # (V + n, D)

    def forward(self, tokens):
        """tokens (B, T) -> (B, T, D)."""
        V = len(self.old)
        old = F.embedding(tokens.clamp(max=V - 1), self.old)                     # (B, T, D)
        new = F.embedding((tokens - V).clamp(min=0), self.new)                   # (B, T, D)
        return torch.where((tokens >= V)[..., None], new, old)


class ExpandedHead(ExpandedEmbedding):
    """An output embedding of V old and n new rows."""

    def forward(self, states):
        """states (..., D) -> scores (..., V + n)."""
        return torch.cat((F.linear(states, self.old), F.linear(states, self.new)), dim=-1)


def init_new_rows(old, n, how, generator, subwords=None):
    """First values of n new rows, given the old ones (V, D): -> (n, D).

    how: "noise"     N(0, 0.02²)
         "scaled"    noise with the standard deviation of the old rows
         "mean"      the mean of the old rows plus "noise"
         "subwords"  the mean of the old rows of the tokens that a new token's text splits into; subwords has
                     a list of these for each new token
    """
    if how == "subwords":
        return torch.stack([old[torch.tensor(ids)].mean(dim=0) for ids in subwords])
    scale = old.std().item() if how == "scaled" else 0.02
    noise = scale * torch.randn(n, old.shape[1], generator=generator).to(old.device)
    return old.mean(dim=0) + noise if how == "mean" else noise


@torch.no_grad()
def expand_vocabulary(model, n, how="noise", protocol="rows", seed=0, subwords=None, body="frozen"):
    """Give the model n more tokens, in place, and freeze everything that does not learn.

    how:      first values of the new rows: "noise", "scaled", "mean" or "subwords", see init_new_rows
    protocol: "rows"  only the new rows of embedding and head learn
              "head"  the new rows of the embedding and the whole head learn [Aggarwal et al.]
              "all"   all rows are drawn again and learn [Chen et al.].  The model forgets the old languages
    body:     "frozen", as published; "adapters" of rank 16 learn, see merge_adapters; or "whole", all blocks
    returns:  the model.  Except under "all", the logits of the old tokens are unchanged
    """
    # with the seed of GPT.initialise the new rows would start with the same numbers as the old ones
    generator = torch.Generator().manual_seed(-1 - seed)
    embed, head = model.embed.weight.detach(), model.head.weight.detach()        # (V, D) each
    if model.config.tied:                                      # each learns for itself from here on
        model.config, head = replace(model.config, tied=False), head.clone()
    if protocol == "all":
        embed = init_new_rows(embed, len(embed), "noise", generator)
        head = init_new_rows(head, len(head), "noise", generator)
    model.requires_grad_(False)
    if body == "adapters":
        add_adapters(model, 16, seed + 1_000_003)              # not the numbers of the new rows
    elif body == "whole":
        model.body.requires_grad_(True)
    model.embed = ExpandedEmbedding(embed, init_new_rows(embed, n, how, generator, subwords))
    model.head = ExpandedHead(head, init_new_rows(head, n, how, generator, subwords))
    model.embed.old.requires_grad_(protocol == "all")
    model.head.old.requires_grad_(protocol != "rows")
    return model


def new_row_groups(model, lr, body_lr=0.0):
    """Parameter groups for AdamW of everything that learns in an expanded model, without weight decay.

    lr, body_lr: peak learning rates of the rows, and of the body or its adapters
    """
    rates = (("embed", model.embed, lr), ("head", model.head, lr), ("body", model.body, body_lr))
    groups = [dict(name=name, params=[p for p in part.parameters() if p.requires_grad],
                   lr=rate, peak_lr=rate, weight_decay=0.0) for name, part, rate in rates]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def merge_vocabulary(model):
    """Turn an expanded model, in place, into an ordinary GPT of V + n tokens.  Everything can learn again."""
    embed, head = model.embed.weight, model.head.weight                          # (V + n, D) each
    model.config = replace(model.config, vocab_size=len(embed))
    model.embed = nn.Embedding.from_pretrained(embed)
    model.head = nn.Linear(head.shape[1], head.shape[0], bias=False)
    model.head.weight = nn.Parameter(head)
    return model.requires_grad_(True)


def assemble(body, model):
    """Replace the body of a model, in place, and keep its embedding and head [Chen et al.].

    body:  state_dict of a model that was tuned on an English task
    model: one that learned a new language, with the same sizes
    Raises ValueError if the sizes differ.
    """
    def sizes(state):
        return {name: p.shape for name, p in state.items() if name.startswith(("body.", "final_norm."))}
    own = model.state_dict()
    if sizes(body) != sizes(own):
        raise ValueError("the tuned body differs in shape from the model that learned the new language")
    model.load_state_dict(own | {name: body[name] for name in sizes(own)})
    return model


def main():
    """Reset embeddings on made-up text: the loss jumps and recovers.  Then attach 20 new tokens."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=40, n_layer=2, n_head=2, d_model=32, context_len=16)).initialise(0)
    steps = 240
    follower = torch.randperm(40)                                                # of each token
    optimizer = torch.optim.AdamW(model.param_groups(3e-3, 1e-2, 0.1))
    forgetting = Forgetting(steps, every=60)

    def chains(n_tokens, offset=0):
        rows = [torch.randint(n_tokens, (16,))]
        for _ in range(16):
            rows.append(follower[rows[-1]] % n_tokens)
        return torch.stack(rows, dim=1) + offset                                 # (16, 17)

    def learn(rows):
        loss = lm_loss(model.logits(rows[:, :-1]), rows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    for step in range(steps):
        if forgetting.reset_if_due(step, model, optimizer):
            print(f"step {step:3d}  embeddings are reset")
        loss = learn(chains(40))
        if step % 60 in (0, 10, 59):
            print(f"step {step:3d}  loss {loss:.2f}")
    rows, body = chains(40)[:, :-1], [p.clone() for p in model.body.parameters()]
    before = model.logits(rows)
    expand_vocabulary(model, 20)
    print("old logits unchanged by 20 new tokens:", torch.equal(model.logits(rows)[..., :40], before))
    optimizer = torch.optim.AdamW(new_row_groups(model, 1e-2))
    for step in range(61):
        loss = learn(chains(20, offset=40))
        if step % 30 == 0:
            print(f"new language, step {step:2d}  loss {loss:.2f} (log 60 = {math.log(60):.2f})")
    unchanged = all(map(torch.equal, body, model.body.parameters()))
    print(f"body unchanged: {unchanged}.  Next: python train.py --method forget")


if __name__ == "__main__":
    main()
