"""One decoder, two losses: everything the three methods share.

Shapes, used with these letters everywhere in the repository:
  B  sequences in a batch      T  tokens in a sequence      D  model width      H  attention heads
  L  transformer blocks        V  rows of the vocabulary    N  words or sentences in a contrastive batch
  K  levels whose states are compared: 0 is the input embedding, 1 ... L the block outputs (L after the
     final norm), L+1 the rows of the output embedding; K = L + 2 for PreAlign
  M  tokens in a word          W  columns of a padded table    E, R  words and translations of a dictionary
In InfoNCE, E and R are those of its formula.

GPT is the decoder, lm_loss and contrastive_loss are the losses, and generate samples from it.
"""
import math
import time
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

import torch
import torch.nn.functional as F
from torch import nn

LOG2 = math.log(2)
IGNORE = -100   # a target that carries no loss: the default ignore_index of F.cross_entropy


@dataclass(frozen=True)
class Shape:
    """What fixes the parameters of a GPT.  vocab_size counts the rows of *all* languages together."""
    vocab_size: int
    n_layer: int = 4
    n_head: int = 4
    d_model: int = 128
    context_len: int = 128
    tied: bool = False

    def __post_init__(self):
        if self.d_model % (2 * self.n_head):
            raise ValueError(f"d_model {self.d_model} must be an even multiple of n_head {self.n_head} "
                             "(RoPE turns pairs)")


def rotary_table(context_len, head_dim, base=10_000.0):
    """Cosine and sine of every position and pair of channels, (T, head_dim / 2) each [Su et al. 2021]."""
    frequency = base ** (-torch.arange(0, head_dim, 2).float() / head_dim)       # (head_dim / 2,)
    angle = torch.arange(context_len).float()[:, None] * frequency               # (T, head_dim / 2)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Turn each pair of channels by its position's angle: x (B, H, T, head_dim) -> the same shape.

    cos, sin (context_len, head_dim / 2) come from rotary_table; the first T rows are used.
    """
    T = x.shape[2]
    left, right = x.chunk(2, dim=-1)                                            # (B, H, T, head_dim / 2) each
    cos, sin = cos[:T].to(x.dtype), sin[:T].to(x.dtype)                         # (T, head_dim / 2) each
    return torch.cat(
        (left * cos - right * sin, right * cos + left * sin), dim=-1)           # (B, H, T, head_dim)


def attend(q, k, v):
    """Causal attention: q, k, v (B, H, T, D/H) -> (B, H, T, D/H)."""
    T = q.shape[2]
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and T <= 256:
        # written out: on short bf16 rows the CPU kernel behind F.scaled_dot_product_attention
        # takes several times as long.  Adding -inf, unlike filling it in, costs the backward pass nothing.
        later = torch.full((T, T), float("-inf"), dtype=q.dtype).triu(1)         # (T, T)
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)              # (B, H, T, T)
        return scores.add_(later).softmax(dim=-1) @ v                            # (B, H, T, D/H)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)               # (B, H, T, D/H)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis [Zhang & Sennrich 2019]; computed in the dtype of x."""

    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x):                                                        # (B, T, D) -> (B, T, D)
        with torch.autocast(x.device.type, enabled=False):     # on CUDA it would turn bfloat16 into float32
            return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), eps=1e-5)


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, shape):
        super().__init__()
        D = shape.d_model
        self.n_head = shape.n_head
        self.attention_norm, self.feed_norm = RMSNorm(D), RMSNorm(D)
        self.query_key_value = nn.Linear(D, 3 * D, bias=False)
        self.attention_out = nn.Linear(D, D, bias=False)
        self.feed_in = nn.Linear(D, 4 * D, bias=False)
        self.feed_out = nn.Linear(4 * D, D, bias=False)

    def forward(self, x, cos, sin):                                                        # (B, T, D)
        B, T, D = x.shape
        qkv = self.query_key_value(self.attention_norm(x))                                 # (B, T, 3D)
        q, k, v = qkv.view(B, T, 3, self.n_head, D // self.n_head).permute(2, 0, 3, 1, 4)  # (B, H, T, D/H)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        x = x + self.attention_out(attend(q, k, v).transpose(1, 2).reshape(B, T, D))       # (B, T, D)
        return x + self.feed_out(
            F.gelu(self.feed_in(self.feed_norm(x)), approximate="tanh"))                   # (B, T, D)


class GPT(nn.Module):
    """Decoder-only language model in the parts that the methods name: `embed`, `body` (blocks), `head`."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab_size, shape.d_model)
        self.body = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.final_norm = RMSNorm(shape.d_model)
        self.head = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        if shape.tied:
            self.head.weight = self.embed.weight
        cos, sin = rotary_table(shape.context_len, shape.d_model // shape.n_head)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @torch.no_grad()
    def initialise(self, seed):
        """GPT-2's scheme: matrices from N(0, 0.02²), those that write to the residual stream / sqrt(2L)."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim < 2:
                continue                                                         # norm weights start at one
            residual = name.endswith(("attention_out.weight", "feed_out.weight"))
            std = 0.02 / math.sqrt(2 * self.shape.n_layer) if residual else 0.02
            # drawn on the CPU: the same on every device
            p.copy_(torch.randn(p.shape, generator=generator) * std)
        return self

    def hidden(self, tokens, top=None):
        """States of levels 0 ... L, the last after the final norm: tokens (B, T) -> L + 1 of (B, T, D).

        top: the highest level that is wanted; the blocks above it are left out
        """
        x = self.embed(tokens)                                                   # (B, T, D)
        if torch.is_autocast_enabled(x.device.type):
            # else the residual stream would stay float32
            x = x.to(torch.get_autocast_dtype(x.device.type))
        levels = [x]
        for block in self.body[:top]:
            x = block(x, self.cos, self.sin)                                     # (B, T, D)
            levels.append(x)
        if len(levels) > len(self.body):
            levels[-1] = self.final_norm(x)
        return levels

    def logits(self, tokens, where=None):
        """Scores of the next token: tokens (B, T) -> (B, T, V); or only where (B, T) is true: -> (n, V)."""
        states = self.hidden(tokens)[-1]                                         # (B, T, D)
        return self.head(states if where is None else states[where])

    def groups(self, lr, embed_lr, head_lr, weight_decay, embed_decay=0.0):
        """AdamW parameter groups, each with its peak rate; every parameter is in exactly one.

        Matrices of the body decay by weight_decay.  Rows of embedding and head decay by embed_decay and have
        their own rates.  By default they do not decay: a row's gradient is (nearly) zero in most steps, and
        decay would shrink rare words (a clone word is rare) towards nothing.
        """
        # tied: one entry, with the embedding's rate
        outer = {id(p): (p, rate) for p, rate in ((self.head.weight, head_lr), (self.embed.weight, embed_lr))}
        body = [p for p in self.parameters() if id(p) not in outer]
        groups = [
            ("body", [p for p in body if p.ndim == 2], lr, weight_decay),
            ("norms", [p for p in body if p.ndim < 2], lr, 0.0),
        ]
        groups += [("embed" if p is self.embed.weight else "head", [p], rate, embed_decay)
                   for p, rate in outer.values()]
        return [
            dict(part=part, params=params, lr=rate, peak_lr=rate, weight_decay=decay)
            for part, params, rate, decay in groups
        ]


def learning_rate(step, steps, warmup):
    """Share of the peak rate, a plain float: linear warm-up, then cosine down to a tenth."""
    rise = max(round(warmup * steps), 1)
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def choose_dtype(device):
    """bfloat16 where it is faster; on a CPU a product is timed, once: config.json keeps the choice."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for dtype in 20 * list(best):                              # the minimum of many: the machine may be busy
        a, start = torch.ones(512, 512, dtype=dtype), time.perf_counter()
        a @ a
        best[dtype] = min(time.perf_counter() - start, best[dtype])
    return "bfloat16" if best[torch.bfloat16] < 0.7 * best[torch.float32] else "float32"


def lm_loss(logits, targets, count=None):
    """Next-token cross-entropy in float32: logits (B, T, V), targets (B, T) -> (); IGNORE carries no loss.

    The sum over targets is divided once by their number (not per row): rows with few targets must not
    weigh more.  A part of a batch gives the count of the whole batch.  Without any target it is 0, not NaN.
    """
    total = F.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum")   # ()
    return total / ((targets != IGNORE).sum().clamp(min=1) if count is None else count)


def contrastive_loss(states, concept, tau=0.1, anchors=None, same_side=False, both_ways=True):
    """InfoNCE with several positives: the mean over levels k and pairs (w, v) of an anchor and a positive of

        -log  exp(s_k(w,v)) / sum_{u != w} exp(s_k(w,u))    with s_k = cos / tau

    states:    (K, N, D) one vector per level and word
    concept:   (N,)      words with the same id translate each other; a word without a partner is only a
                         candidate.  Best kept on the CPU: then no GPU is waited for.
    tau:       temperature >= 0.005
    anchors:   None: one set, each word is an anchor and all others its candidates [PreAlign].  A number: the
               first `anchors` rows are one side, the rest the other, which holds an anchor's positives [AFP]
    same_side: of two sides, the other words of an anchor's own side are candidates, too
    both_ways: of two sides, the second side's words are anchors, too
    returns:   ()        in nats; log(N - 1) when all words look alike, near 0 when only positives coincide
    raises:    ValueError if no two words share a concept: nothing is pulled together; or if tau is smaller
    """
    N, one_set = states.shape[1], anchors is None
    second = torch.arange(N) >= (N if one_set else anchors)                      # (N,) on the second side?
    group = 2 * concept.cpu().unique(return_inverse=True)[1] + second            # (N,) concept and side
    partner = group ^ int(not one_set)                                           # (N,) group of the positives
    weight = group.bincount(minlength=2 * N)[partner] - int(one_set)             # (N,) number of positives
    weight *= ~second | both_ways
    if tau < 0.005 or not weight.any():
        why = f"tau {tau} is below 0.005" if tau < 0.005 else "no two entries of this batch share a concept"
        raise ValueError(f"contrastive_loss: {why}")
    pairs, ways = int(weight.sum()), 2 if one_set or both_ways else 1            # ways a pair is counted
    tiles = [(I, J, bool((group[I, None] == partner[J]).any()))                  # does it hold positives?
             for I, J in pairs_of_tiles(N, None if same_side else anchors,
                                        256 if states.device.type == "cpu" else 4096)]
    group, partner, weight = (t.to(states.device, non_blocking=True) for t in (group, partner, weight))
    return InfoNCE.apply(states, group, partner, weight, one_set, ways, tau, tiles) / (pairs * len(states))


def pairs_of_tiles(n, split, size):
    """Slices (I, J) that cover every unordered pair of n rows once; with a split, only pairs across it."""
    first, rest = ([slice(i, min(i + size, stop)) for i in range(start, stop, size)]
                   for start, stop in ((0, split or n), (split or n, n)))
    return list(product(first, rest) if split else combinations_with_replacement(first, 2))


class InfoNCE(torch.autograd.Function):
    """contrastive_loss before its mean is taken.  Similarities exist one tile at a time: O(K N D) memory.

    With unit rows z, s_ij = z_i z_j / tau, E = exp(s), R_i = sum of E_ij over the candidates j of i, and w_i
    the number and P_i the sum of i's positives (from sums of groups: O(N D)), a level has

        loss             =  sum_i w_i log R_i  -  ways / 2  sum_i z_i P_i / tau
        gradient of z_i  =  sum_j (E_ij (w_i / R_i + w_j / R_j)  -  ways [j is a positive of i]) z_j / tau

    E is computed in both passes and never kept.  As it is symmetric, a tile serves its rows and its columns.
    |s| <= 1 / tau makes a running maximum needless: exp(s) and its sums fit float32 down to tau = 1/72, and
    float64 is taken below.  The code has y = z / sqrt(tau log 2): then E = 2^(y y^T), the faster power.
    """
    @staticmethod
    def forward(ctx, states, group, partner, weight, one_set, ways, tau, tiles):
        real = torch.float64 if tau < 1 / 72 or states.dtype == torch.float64 else torch.float32

        def scaled(x):                                                           # (N, D)
            """y (N, D), and what x was divided by (N, 1)."""
            norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=real).clamp(min=1e-12)
            norm *= math.sqrt(tau * LOG2)
            return x / norm, norm

        _, N, D = states.shape
        loss, R = 0, torch.zeros(states.shape[:2], dtype=real, device=states.device)   # (), (K, N)
        for x, r in zip(states, R):
            y, _ = scaled(x)
            P = y.new_zeros(2 * N, D).index_add_(0, group, y).index_select(0, partner) - int(one_set) * y
            for I, J, _ in tiles:
                E = exponentials(y, I, J)
                r[I] += E.sum(1)
                if I is not J:
                    r[J] += E.sum(0)
            loss += (weight * r.log()).sum() - ways / 2 * LOG2 * (y * P).sum()   # [InfoNCE]
        ctx.save_for_backward(states, weight / R, group, partner)
        ctx.scaled, ctx.tiles, ctx.ways, ctx.tau = scaled, tiles, ways, tau
        return loss.to(torch.promote_types(states.dtype, torch.float32))

    @staticmethod
    def backward(ctx, scale):
        if torch.is_grad_enabled():                                              # create_graph=True
            raise RuntimeError("contrastive_loss can be differentiated once only: E is not kept")
        states, shares, group, partner = ctx.saved_tensors                       # (K, N, D), (K, N), 2 x (N,)
        gradient = torch.empty_like(states)
        for k, a in enumerate(shares):
            y, norm = ctx.scaled(states[k])
            g = torch.zeros_like(y)                                              # (N, D)
            for I, J, positives in ctx.tiles:
                E = exponentials(y, I, J).mul_(a[I, None] + a[J])                # (|I|, |J|)
                if positives:    # here, not as P: near convergence the two terms nearly cancel
                    E -= ctx.ways * (group[I, None] == partner[J])
                    E = E.fill_diagonal_(0) if I is J else E
                g[I].addmm_(E, y[J])
                if I is not J:
                    g[J].addmm_(E.T, y[I])
            # through the normalisation: what points along z is lost
            g.addcmul_(y, (y * g).sum(1, keepdim=True), value=-ctx.tau * LOG2)
            gradient[k] = g.mul_(scale * LOG2 / norm)
        return gradient, *[None] * 7


def exponentials(y, I, J):
    """2^(y_I y_J^T): (|I|, |J|), zero where a row meets itself: a word is not its own candidate."""
    rows, columns = y[I], y[J]
    # in place: autocast leaves such a product alone, and bf16 would be too coarse for cos / tau
    E = y.new_empty(len(rows), len(columns)).addmm_(rows, columns.T, beta=0).exp2_()
    return E.fill_diagonal_(0) if I is J else E


@torch.no_grad()
def generate(model, prompts, max_new_tokens, temperature=1.0, top_k=None, generator=None, stop=()):
    """Continue each prompt: list of lists of token ids -> list of lists with only the new ids.

    temperature 0 is greedy; top_k keeps the k best tokens; any token of stop ends a continuation when drawn
    (it is not returned).  Prompts of different lengths share a batch by padding on the right: attention is
    causal, so padding is never seen.  Text beyond context_len slides out on the left.
    """
    device = model.embed.weight.device
    texts, alive = [list(p) for p in prompts], list(range(len(prompts)))
    for _ in range(max_new_tokens):
        windows = [texts[i][-model.shape.context_len:] for i in alive]
        width = max(map(len, windows))
        tokens = torch.tensor([w + [0] * (width - len(w)) for w in windows], device=device)          # (B, T)
        last = torch.tensor([len(w) - 1 for w in windows], device=device)                            # (B,)
        states = model.hidden(tokens)[-1][torch.arange(len(alive), device=device), last]             # (B, D)
        scores = model.head(states).float()                                                          # (B, V)
        if temperature == 0:
            drawn = scores.argmax(dim=-1)                                                            # (B,)
        else:
            if top_k is not None:
                weakest = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]                   # (B, 1)
                scores = scores.masked_fill(scores < weakest, float("-inf"))
            drawn = torch.multinomial(
                (scores / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]                # (B,)
        going_on = [(i, token) for i, token in zip(alive, drawn.tolist()) if token not in stop]
        for i, token in going_on:
            texts[i].append(token)
        alive = [i for i, _ in going_on]                       # what has ended is not computed any further
        if not alive:
            break
    return [text[len(p):] for text, p in zip(texts, prompts)]
