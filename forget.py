"""Active forgetting: a body that has met many embeddings welcomes those of a new language.

Papers: Aggarwal, Sathe, Sitaram, arXiv 2410.16168 (decoders, vocabulary expansion), after
Chen et al., NeurIPS 2023, arXiv 2307.01163 (where the reset comes from).  In the order of a model's life:

  1. in pretraining, the token embeddings are reset every k steps, and with them what the optimizer knows of
     them and the clock of their learning rate
       Forgetting       when and how
  2. later, a new language gets rows of its own in embedding and head, and only these learn
       expand_vocabulary, merge, assemble

`python forget.py` shows both on made-up data in a few seconds;
`python train.py --method forget` is the experiment.
"""
import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from model import GPT, Shape, learning_rate, lm_loss


class Forgetting:
    """When and how embeddings are reset: a pure function of the step, so a resumed run forgets the same.

    steps:       of pretraining
    every:       steps of a cycle (k); 0: never.  No reset comes so late that no whole cycle follows
    start, until: shares of the steps between which resets happen
    fraction:    share of the rows drawn for each reset; 1: all, as published
    blend:       how far a row moves towards fresh noise, (1 - blend) * row + blend * noise; 1: all the way
    weights, moments, clock: what a reset resets [Chen et al., official code: all three].  The moments of a
                 row are Adam's two averages; its step counter is one for the whole matrix and goes back to
                 zero when all rows are reset
    head:        an untied head is reset, too; a tied one always is: it is the same matrix
    """

    def __init__(self, steps, every, start=0.0, until=1.0, fraction=1.0, blend=1.0, weights=True,
                 moments=True, clock=True, head=False, seed=0):
        last = min(until * steps, steps - every)
        self.at = [s for s in range(every, steps, every) if start * steps <= s <= last] if every else []
        self.fraction, self.blend, self.head, self.seed = fraction, blend, head, seed
        self.weights, self.moments = weights, moments
        # the parts of the model whose learning rate follows the cycles
        self.parts = {"embed", "head"} if clock and head else {"embed"} if clock else set()

    def rate(self, step, steps, warmup):
        """Share of the embedding's peak rate: warm-up and decay begin anew with each cycle."""
        begin = max((s for s in self.at if s <= step), default=0)
        end = min((s for s in self.at if s > step), default=steps)
        return learning_rate(step - begin, end - begin, warmup)                  # [forgetting: clock]

    @torch.no_grad()
    def before(self, step, model, optimizer):
        """Reset what is due before this step; returns whether anything was."""
        if step not in self.at:
            return False
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        matrices = [model.embed.weight]
        if self.head and model.head.weight is not model.embed.weight:
            matrices.append(model.head.weight)
        for matrix in matrices:                                                  # (V, D)
            rows = torch.rand(len(matrix), generator=generator) < self.fraction  # (V,)
            # drawn on the CPU, as in GPT.initialise: the same on every device
            noise = 0.02 * torch.randn(matrix.shape, generator=generator)        # (V, D)
            rows, noise = rows.to(matrix.device), noise.to(matrix.device)
            if self.weights:
                matrix[rows] = matrix[rows].lerp(noise[rows], self.blend)        # [forgetting: weights]
            state = optimizer.state.get(matrix)
            if self.moments and state:
                state["exp_avg"][rows] = 0                                       # [forgetting: moments]
                state["exp_avg_sq"][rows] = 0
                if rows.all():
                    state["step"].zero_()
        return True


class GrownEmbedding(nn.Module):
    """Rows 0 ... V - 1 from `old`, V ... V + n - 1 from `new`: two parameters, so that one can be frozen."""

    def __init__(self, old, new):
        super().__init__()
        self.old, self.new = nn.Parameter(old), nn.Parameter(new)

    @property
    def weight(self):
        return torch.cat((self.old, self.new))                                   # (V + n, D)

    def forward(self, tokens):                                                   # (B, T) -> (B, T, D)
        V, is_new = len(self.old), tokens >= len(self.old)
        old = F.embedding(tokens.clamp(max=V - 1), self.old)                     # (B, T, D)
        new = F.embedding((tokens - V).clamp(min=0), self.new)                   # (B, T, D)
        return torch.where(is_new[..., None], new, old)


class GrownHead(GrownEmbedding):
    """The same for the output embedding: scores of the old tokens beside those of the new ones."""

    def forward(self, states):                                                   # (..., D) -> (..., V + n)
        return torch.cat((F.linear(states, self.old), F.linear(states, self.new)), dim=-1)


def first_rows(old, n, how, generator, pieces=None):
    """n new rows beside old (V, D): -> (n, D).

    how: noise, N(0, 0.02²); mean, the old rows' mean plus that noise; or pieces, where pieces lists for each
         new token the old tokens that its text splits into, and their rows are averaged
    """
    if how == "pieces":
        return torch.stack([old[torch.tensor(ids)].mean(dim=0) for ids in pieces])
    noise = 0.02 * torch.randn(n, old.shape[1], generator=generator).to(old.device)
    return noise if how == "noise" else old.mean(dim=0) + noise


@torch.no_grad()
def expand_vocabulary(model, n, how="noise", protocol="rows", seed=0, pieces=None):
    """Give the model n more tokens, in place, and freeze what the protocol does not train.

    how:      "noise", "mean" or "pieces", see first_rows
    protocol: rows  the new rows of embedding and head learn
              head  the new rows of the embedding and the whole head learn [Aggarwal et al.]
              all   every row is drawn anew and learns [Chen et al.]; the old languages are lost until their
                    embeddings are put back (assemble)
    Old logits stay what they were, except under "all".  A tied model gets a tied pair of new rows.
    """
    # not the seed of GPT.initialise: the new rows would begin with the numbers that the old ones began with
    generator = torch.Generator().manual_seed(-1 - seed)
    old_embed, old_head = model.embed.weight.detach(), model.head.weight.detach()
    if protocol == "all":
        old_embed, old_head = (first_rows(m, len(m), "noise", generator) for m in (old_embed, old_head))
    model.requires_grad_(False)
    model.embed = GrownEmbedding(old_embed, first_rows(old_embed, n, how, generator, pieces))
    model.head = GrownHead(old_head, first_rows(old_head, n, how, generator, pieces))
    if model.shape.tied:
        model.head.old, model.head.new = model.embed.old, model.embed.new
    model.embed.old.requires_grad_(protocol == "all")
    model.head.old.requires_grad_(protocol != "rows")
    return model


def new_rows(model, lr):
    """Parameter groups of what learns in an expanded model; rows do not decay (see GPT.groups)."""
    parts = dict(embed=model.embed.parameters(), head=() if model.shape.tied else model.head.parameters())
    return [dict(part=part, params=learning, lr=lr, peak_lr=lr, weight_decay=0.0)
            for part, parameters in parts.items() if (learning := [p for p in parameters if p.requires_grad])]


@torch.no_grad()
def merge(model):
    """Turn an expanded model, in place, into an ordinary GPT of more tokens; everything can learn again."""
    embed, head = model.embed.weight, model.head.weight                          # (V + n, D) each
    model.shape = replace(model.shape, vocab_size=len(embed))
    model.embed, model.head = nn.Embedding.from_pretrained(embed), nn.Linear(*head.T.shape, bias=False)
    model.head.weight = model.embed.weight if model.shape.tied else nn.Parameter(head)
    return model.requires_grad_(True)


def assemble(body, model):
    """Put a body that was tuned on an English task under embeddings and head that learned a new language.

    [Chen et al.]  body: the tuned model's state_dict; model keeps its own embedding and head.  In place.
    Raises ValueError for a body of another shape.
    """
    own = model.state_dict()
    shared = {name: value for name, value in body.items() if name.startswith(("body.", "final_norm."))}
    if [(name, p.shape) for name, p in shared.items()] != [(n, p.shape) for n, p in own.items() if n in shared]:
        raise ValueError("the tuned body has another shape than the model that learned the new language")
    model.load_state_dict(own | shared)
    return model


def recovery(losses, resets, delay=50):
    """How far each reset throws the training loss back, and how much of that is left later.

    [Chen et al.: the saw-tooth]  losses: {step: mean loss of the steps since the last entry};
    resets: the steps before which rows were reset
    -> for each reset dict(step, before: loss of the last entry before it, rise: what the first entry after it
       has more, excess: what the first entry at least `delay` steps later has more), in nats; excess is absent
       if the cycle is shorter.  A reset without an entry before it, or before the next reset, is left out
    """
    found, steps = [], sorted(losses)
    for reset, end in zip(resets, [*resets[1:], math.inf]):
        past = [s for s in steps if s <= reset]
        cycle = [s for s in steps if reset < s <= end]
        later = [s for s in cycle if s >= reset + delay]
        if past and cycle:
            before = losses[past[-1]]
            found.append(dict(step=reset, before=before, rise=losses[cycle[0]] - before)
                         | (dict(excess=losses[later[0]] - before) if later else {}))
    return found


def main():
    """Resets on made-up text: the loss jumps and recovers.  Then 20 new tokens join."""
    torch.manual_seed(0)
    model = GPT(Shape(vocab_size=40, n_layer=2, n_head=2, d_model=32, context_len=16)).initialise(0)
    steps = 240
    follower = torch.randperm(40)                                                # of each token
    optimizer = torch.optim.AdamW(model.groups(3e-3, 1e-2, 1e-2, 0.1))
    forgetting = Forgetting(steps, every=60)

    def chain(n_tokens, offset=0):
        rows = [torch.randint(n_tokens, (16,))]
        for _ in range(16):
            rows.append(follower[rows[-1]] % n_tokens)
        return torch.stack(rows, dim=1) + offset                                 # (16, 17)

    for step in range(steps):
        if forgetting.before(step, model, optimizer):
            print(f"step {step:3d}  embeddings are reset")
        rows = chain(40)
        loss = lm_loss(model.logits(rows[:, :-1]), rows[:, 1:])
        if step % 60 in (0, 10, 59):
            print(f"step {step:3d}  loss {loss.item():.2f}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rows, body = chain(40)[:, :-1], [p.clone() for p in model.body.parameters()]
    before = model.logits(rows)
    expand_vocabulary(model, 20)
    print("old logits unchanged by 20 new tokens:", torch.equal(model.logits(rows)[..., :40], before))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(61):
        rows = chain(20, offset=40)
        loss = lm_loss(model.logits(rows[:, :-1]), rows[:, 1:])
        if step % 30 == 0:
            print(f"new language, step {step:2d}  loss {loss.item():.2f} (log 60 = {math.log(60):.2f})")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("body unchanged:", all(map(torch.equal, body, model.body.parameters())))


if __name__ == "__main__":
    main()
