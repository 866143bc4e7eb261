"""The decoder, the language-model loss of every stage, and the contrastive loss of PreAlign and AFP.

Letters for shapes, used with these meanings in the whole repository:
  B  sequences in a batch      T  tokens in a sequence      D  model width      H  attention heads
  G  heads of keys and values, each shared by H / G heads of queries
  L  transformer blocks        V  rows of the vocabulary    N  words or sentences in a contrastive batch
  K  levels whose states are compared.  Level 0 is the input embedding, levels 1 ... L are the block outputs
     (level L after the final norm), level L + 1 holds the rows of the output embedding: K = L + 2 in PreAlign
  M  tokens in a word          W  columns of a padded table        S  places in a cache of keys and values
"""
import math
from dataclasses import dataclass
from itertools import combinations_with_replacement, product

import torch
import torch.nn.functional as F
from torch import nn

LOG2 = math.log(2)
IGNORE = -100   # a target that carries no loss: the default ignore_index of F.cross_entropy


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a GPT.  vocab_size counts the rows of all languages together.

    The fields from n_kv_head on exist for public checkpoints, see data/pretrained.py.
    Raises ValueError if d_model does not split into n_head heads of an even width, or n_head into n_kv_head.
    """
    vocab_size: int
    n_layer: int = 4
    n_head: int = 4
    d_model: int = 128
    context_len: int = 128
    n_kv_head: int = 0                   # heads of keys and values, 0 for n_head
    d_ff: int = 0                        # width of the feed-forward network, 0 for 4 * d_model
    gated: bool = False                  # SwiGLU in place of GELU [Shazeer 2020]
    attention_bias: bool = False         # queries, keys and values have one
    tied: bool = False                   # the head is the embedding
    rope_base: float = 10_000.0
    rope_scaling: tuple = ()             # that of Llama 3, see rotary_table
    norm_eps: float = 1e-5

    def __post_init__(self):
        if self.d_model % (2 * self.n_head):
            raise ValueError(f"d_model {self.d_model} must be an even multiple of n_head {self.n_head}: "
                             "rotary positions rotate pairs of channels")
        if self.n_head % (self.n_kv_head or 1):
            raise ValueError(f"n_head {self.n_head} must be a multiple of n_kv_head {self.n_kv_head}")


def rotary_table(context_len, head_dim, base=10_000.0, scaling=()):
    """Cosine and signed sine for each position and channel, (T, head_dim) each [Su et al. 2021].

    Channels i and i + head_dim / 2 are a pair with one angle.  The sine of the first of them is negative.
    scaling: (factor, low, high, original) of Llama 3, which was trained on texts of `original` tokens first.
    Pairs that turn fewer than `low` times in such a text become slower by the factor, those that turn more
    than `high` times stay as they are, and those in between are interpolated.
    """
    frequency = base ** (-torch.arange(0, head_dim, 2).float() / head_dim)       # (head_dim / 2,)
    if scaling:
        factor, low, high, original = scaling
        turns = frequency * original / (2 * math.pi)                             # (head_dim / 2,)
        kept = ((turns - low) / (high - low)).clamp(0, 1)                        # (head_dim / 2,)
        frequency = frequency * (kept + (1 - kept) / factor)
    angle = torch.arange(context_len).float()[:, None] * frequency               # (T, head_dim / 2)
    return torch.cat((angle.cos(), angle.cos()), dim=-1), torch.cat((-angle.sin(), angle.sin()), dim=-1)


def rotate(x, cos, sin):
    """Rotate each pair of channels by the angle of its position: x (B, H, T, head_dim) -> the same shape.

    cos and sin: the tables of rotary_table in the dtype of x, of at least T rows, or T rows per sequence,
                 (B, 1, T, head_dim)
    """
    T, head_dim = x.shape[-2:]
    other = x.roll(head_dim // 2, dims=-1)                     # for each channel, the other one of its pair
    return x * cos[..., :T, :] + other * sin[..., :T, :]       # (B, H, T, head_dim)


def attend(q, k, v, mask=None):
    """Causal attention: q (B, H, T, D/H), k, v (B, G, T, D/H) -> (B, H, T, D/H).

    mask: None, or (B, 1, T, T), added to the scores: 0 where a token is seen, else -inf.  Where a text is
          continued, T = 1 for q, k and v have S places, and the mask is (B, 1, 1, S)
    """
    T, shared = q.shape[2], q.shape[1] // k.shape[1]           # heads of queries for one of keys and values
    if shared > 1:                                             # fast kernels with a mask want as many keys
        k, v = (t.repeat_interleave(shared, dim=1) for t in (k, v))              # (B, H, T, D/H)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and T <= 256:
        # F.scaled_dot_product_attention is several times slower on short bfloat16 rows on a CPU.  The mask is
        # added rather than filled in, because an addition costs nothing in the backward pass.
        if mask is None:
            mask = torch.full((T, T), float("-inf"), dtype=q.dtype).triu(1)      # (T, T) -inf on later tokens
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)              # (B, H, T, T)
        return scores.add_(mask).softmax(dim=-1) @ v                             # (B, H, T, D/H)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)             # (B, H, T, D/H)


class RMSNorm(nn.RMSNorm):
    """Scale vectors to a root mean square of one, then by a learned weight [Zhang & Sennrich 2019]."""

    def forward(self, x):
        """x (..., D) -> the same shape and dtype."""
        with torch.autocast(x.device.type, enabled=False):     # on CUDA it would turn bfloat16 into float32
            return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Block(nn.Module):
    """Attention, then a feed-forward network.  Each reads normed states and adds to the residual stream."""

    def __init__(self, config):
        super().__init__()
        D, d_ff = config.d_model, config.d_ff or 4 * config.d_model
        H, G = config.n_head, config.n_kv_head or config.n_head
        self.heads, self.gated = (H, G, G), config.gated
        self.attention_norm, self.feed_norm = RMSNorm(D, config.norm_eps), RMSNorm(D, config.norm_eps)
        self.query_key_value = nn.Linear(D, (H + 2 * G) * (D // H), bias=config.attention_bias)
        self.attention_out = nn.Linear(D, D, bias=False)
        self.feed_in = nn.Linear(D, 2 * d_ff if config.gated else d_ff, bias=False)
        self.feed_out = nn.Linear(d_ff, D, bias=False)

    def forward(self, x, cos, sin, mask=None, past=None, position=None):
        """x (B, T, D), tables of rotary_table, mask of attend -> (B, T, D).  past, position: see GPT."""
        B, T, D = x.shape
        qkv = self.query_key_value(self.attention_norm(x)).view(B, T, sum(self.heads), -1)
        q, k, v = qkv.transpose(1, 2).split(self.heads, dim=1)                   # (B, H or G, T, D/H) each
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if position is not None:
            for cache, new in zip(past, (k, v)):
                cache[torch.arange(B, device=x.device), :, position] = new[:, :, 0]
            k, v = past                                                          # (B, G, S, D/H) each
        elif past is not None:
            past.extend((k, v))                                # fills the list of the caller
        x = x + self.attention_out(attend(q, k, v, mask).transpose(1, 2).reshape(B, T, D))  # (B, T, D)
        wide = self.feed_in(self.feed_norm(x))                                   # (B, T, d_ff or 2 d_ff)
        if self.gated:
            gate, wide = wide.chunk(2, dim=-1)                                   # (B, T, d_ff) each
            return x + self.feed_out(F.silu(gate) * wide)                        # (B, T, D)
        return x + self.feed_out(F.gelu(wide))                                   # (B, T, D)


class GPT(nn.Module):
    """Decoder-only language model with the parts that the methods name: `embed`, `body` (blocks), `head`."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.body = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embed.weight
        cos, sin = rotary_table(config.context_len, config.d_model // config.n_head, config.rope_base,
                                config.rope_scaling)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @torch.no_grad()
    def initialise(self, seed):
        """Draw the weights as GPT-2 does, in place; returns the model.

        Matrices come from N(0, 0.02²).  Matrices that write to the residual stream are divided by sqrt(2L).
        """
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim < 2:
                p.fill_(0.0 if name.endswith("bias") else 1.0)                   # norm weights start at one
                continue
            residual = name.endswith(("attention_out.weight", "feed_out.weight"))
            std = 0.02 / math.sqrt(2 * self.config.n_layer) if residual else 0.02
            # drawn on the CPU, so that every device starts from the same weights
            p.copy_(torch.randn(p.shape, generator=generator) * std)
        return self

    def hidden(self, tokens, max_level=None, segment=None, past=None, position=None):
        """States of levels 0 ... L: tokens (B, T) -> list of L + 1 tensors (B, T, D).

        max_level: the highest level to compute
        segment:   (B, T) for rows that hold several texts: a token sees only tokens of the same segment.
                   Rotary positions act by differences, so they need not restart
        past:      a cache of keys and values, one list per block.  Empty lists are filled with those of the
                   tokens, (B, G, T, D/H) each.  Full ones, of S places, continue each text by a token, T = 1
        position:  (B,) the places of these tokens in a full cache, below S
        """
        x = self.embed(tokens)                                                   # (B, T, D)
        if torch.is_autocast_enabled(x.device.type):
            # otherwise the residual stream would stay in float32
            x = x.to(torch.get_autocast_dtype(x.device.type))
        cos, sin, levels = self.cos.to(x.dtype), self.sin.to(x.dtype), [x]
        seen = mask = None                                     # without a mask, tokens see all before them
        if segment is not None:
            seen = (segment[:, :, None] == segment[:, None, :]).tril()[:, None]
        if position is not None:
            cos, sin = cos[position, None, None], sin[position, None, None]      # (B, 1, 1, D/H) each
            seen = torch.arange(past[0][0].shape[2], device=x.device) <= position[:, None, None, None]
        if seen is not None:                                   # (B, 1, T, T), or (B, 1, 1, S) with a cache
            mask = torch.zeros(seen.shape, dtype=x.dtype, device=x.device).masked_fill_(~seen, float("-inf"))
        for i, block in enumerate(self.body[:max_level]):
            x = block(x, cos, sin, mask, past[i] if past else None, position)    # (B, T, D)
            levels.append(x)
        if len(levels) > len(self.body):
            levels[-1] = self.final_norm(x)
        return levels

    def logits(self, tokens, scored=None):
        """Scores of the next token: tokens (B, T) -> (B, T, V).

        scored: (n,) indices in the flattened batch, to compute the scores of these tokens only: -> (n, V).
                A boolean mask would force a GPU sync to count them
        """
        states = self.hidden(tokens)[-1]                                         # (B, T, D)
        if scored is not None:
            states = states.flatten(0, 1).index_select(0, scored)                # (n, D)
        return self.head(states)

    def param_groups(self, lr, embed_lr, weight_decay, embed_decay=0.0):
        """Parameter groups for AdamW, each with its name and peak rate; every parameter is in exactly one.

        embed_decay is 0 by default: a row has (nearly) no gradient in most steps, and decay would shrink the
        rows of rare words towards zero.  Biases are in "norms", and a tied head is in "embed".
        """
        body = [p for name, p in self.named_parameters() if not name.startswith(("embed.", "head."))]
        groups = [
            ("body", [p for p in body if p.ndim == 2], lr, weight_decay),
            ("norms", [p for p in body if p.ndim < 2], lr, 0.0),
            ("head", [] if self.config.tied else [self.head.weight], embed_lr, embed_decay),
            ("embed", [self.embed.weight], embed_lr, embed_decay),
        ]
        return [dict(name=name, params=params, lr=rate, peak_lr=rate, weight_decay=decay)
                for name, params, rate, decay in groups]


def lm_loss(logits, targets, count=None):
    """Next-token cross-entropy in nats, in float32: logits (..., V), targets (...) -> ().

    Targets equal to IGNORE carry no loss.  The sum over the others is divided once by their number, so that
    rows with few targets do not weigh more.  Without any target the loss is 0, not NaN.
    count: the divisor for a part of a batch, which is the number of targets in the whole batch
    """
    total = F.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum")   # ()
    return total / ((targets != IGNORE).sum().clamp(min=1) if count is None else count)


def lr_multiplier(step, steps, warmup):
    """Factor of the peak learning rate: a linear warm-up (a share of the steps), a cosine decay to 0.1."""
    rise = max(round(warmup * steps), 1)                                         # steps of the warm-up
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def plain_contrastive_loss(states, concept, tau=0.1, anchors=None, symmetric=True):
    """InfoNCE with several positives: the mean over levels k and pairs (w, v) of an anchor and a positive of

        -log  exp(s_k(w,v)) / sum_u exp(s_k(w,u))    with s_k = cos / tau and u over the candidates of w

    states:    (K, N, D) one vector per level and word
    concept:   (N,)      words with the same id are translations.  A word without any is only a candidate
    tau:       temperature
    anchors:   None: one set, as in PreAlign.  Every word is an anchor, and its candidates are all others.
               A number: two sides, as in AFP.  The first `anchors` rows are one side, the others the second.
               Candidates and positives of a word are on the other side
    symmetric: with two sides, words of the second side are anchors, too
    returns:   () in nats: log(number of candidates) if all words look alike, near 0 if only positives do, and
               NaN without any positive

    This is the definition.  It needs O(K N²) memory, so training uses contrastive_loss, which is equal.
    """
    concept, row = concept.to(states.device), torch.arange(len(concept), device=states.device)
    if anchors is None:
        candidate = row[:, None] != row                                          # (N, N) not the word itself
    else:
        candidate = (row[:, None] >= anchors) != (row >= anchors)                # (N, N) on the other side
    positive = candidate & (concept[:, None] == concept)                         # (N, N)
    if anchors is not None and not symmetric:
        positive[anchors:] = False
    with torch.autocast(states.device.type, enabled=False):    # bfloat16 would be too coarse for cos / tau
        z = F.normalize(states.to(torch.promote_types(states.dtype, torch.float32)), dim=-1)     # (K, N, D)
        scores = z @ z.transpose(1, 2) / tau                                                     # (K, N, N)
        # -inf and not 0: a score of 0 would still be part of the softmax
        log_share = scores.masked_fill(~candidate, float("-inf")).log_softmax(dim=-1)            # (K, N, N)
    return -log_share[:, positive].mean()                                        # [InfoNCE]


@torch.no_grad()
def generate(model, prompts, max_new_tokens, temperature=1.0, top_k=None, generator=None, stop=()):
    """Continue each prompt: list of lists of token ids -> list of lists with only the new ids.

    temperature: divides the logits; 0 takes the most likely token
    top_k:       sample among the k most likely tokens
    stop:        tokens that end a continuation; they are not returned
    Prompts, none of them empty, are padded on the right.  Attention is causal, so padding is never seen.
    Each token is read once: `past` has the keys and values of the earlier ones.  Beyond context_len tokens
    the model reads only the last ones; their positions slide, so all are read again for each new token.
    """
    device, context_len = model.embed.weight.device, model.config.context_len
    texts, active, past = [list(prompt) for prompt in prompts], list(range(len(prompts))), None
    for step in range(max_new_tokens):
        windows = [texts[i][-context_len:] for i in active]
        longest = max(len(texts[i]) for i in active)
        last = torch.tensor([len(w) - 1 for w in windows], device=device)                            # (B,)
        if past and longest <= context_len:
            tokens = torch.tensor([w[-1:] for w in windows], device=device)                          # (B, 1)
            states = model.hidden(tokens, past=past, position=last)[-1][:, 0]                        # (B, D)
        else:
            past = [[] for _ in model.body] if longest < context_len else None
            width = min(longest, context_len)
            tokens = torch.tensor([w + [0] * (width - len(w)) for w in windows], device=device)      # (B, T)
            states = model.hidden(tokens, past=past)[-1][torch.arange(len(active), device=device), last]
            room = min(max_new_tokens - step, context_len - width)                                   # S - T
            if past:
                past = [[F.pad(t, (0, 0, 0, room)) for t in cache] for cache in past]
        scores = model.head(states).float()                                                          # (B, V)
        if temperature == 0:
            drawn = scores.argmax(dim=-1)                                                            # (B,)
        else:
            if top_k is not None:
                weakest = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]                   # (B, 1)
                scores = scores.masked_fill(scores < weakest, float("-inf"))
            drawn = torch.multinomial(
                (scores / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]                # (B,)
        drawn = drawn.tolist()
        going = [n for n, token in enumerate(drawn) if token not in stop]
        for n in going:
            texts[active[n]].append(drawn[n])
        if past and len(going) < len(active):                  # finished texts are not computed any further
            past = [[t[going] for t in cache] for cache in past]
        active = [active[n] for n in going]
        if not active:
            break
    return [text[len(prompt):] for text, prompt in zip(texts, prompts)]


# --- adapters, and the contrastive loss in little memory: skip these on a first reading ---------------------

class LowRank(nn.Module):
    """A linear map that is frozen, plus a product of two thin matrices that learn, LoRA [Hu et al. 2022]."""

    def __init__(self, linear, rank, generator):
        super().__init__()
        self.linear = linear
        n, device = linear.in_features, linear.weight.device
        down = torch.randn(rank, n, generator=generator) / math.sqrt(n)                      # (rank, D_in)
        self.down = nn.Parameter(down.to(device))
        # no change before the first step
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))        # (D_out, rank)

    def forward(self, x):
        """x (..., D_in) -> (..., D_out)."""
        return self.linear(x) + F.linear(F.linear(x, self.down), self.up)


def add_adapters(model, rank, seed=0):
    """Freeze a GPT and give every linear map of its blocks an adapter, in place: -> the model."""
    generator = torch.Generator().manual_seed(-1 - seed)       # not the numbers of the initial embedding
    model.requires_grad_(False)
    for block in model.body:
        for name, part in list(block.named_children()):
            if isinstance(part, nn.Linear):
                setattr(block, name, LowRank(part, rank, generator))
    return model


@torch.no_grad()
def merge_adapters(model):
    """Add the adapters to their linear maps, in place: -> an ordinary GPT that can learn everything again."""
    for block in model.body:
        for name, part in list(block.named_children()):
            if isinstance(part, LowRank):
                part.linear.weight += part.up @ part.down
                setattr(block, name, part.linear)
    return model.requires_grad_(True)


def contrastive_loss(states, concept, tau=0.1, anchors=None, symmetric=True):
    """The value of plain_contrastive_loss for the same arguments, in O(K N D) memory: -> ().

    Keep concept on the CPU: its values decide which tiles to compute, and reading a GPU forces a sync.
    Raises ValueError if no two words share a concept, or if tau is below 0.005.
    """
    if tau < 0.005:
        raise ValueError(f"contrastive_loss: tau {tau} is below 0.005")
    N, device, one_set = states.shape[1], states.device, anchors is None
    concept = concept.cpu().unique(return_inverse=True)[1]                       # (N,) ids 0, 1, ...
    if one_set:                                                # positives: the other words of the concept
        group = partner = concept                                                # (N,)
        n_positives = group.bincount()[partner] - 1                              # (N,)
    else:                                                      # positives: its words on the other side
        second = (torch.arange(N) >= anchors).long()                             # (N,) 1 on the second side
        group, partner = 2 * concept + second, 2 * concept + 1 - second          # (N,) each
        n_positives = group.bincount(minlength=2 * N)[partner]                   # (N,)
        if not symmetric:
            n_positives[anchors:] = 0                          # the second side has no anchors
    n_pairs, ways = int(n_positives.sum()), 2 if one_set or symmetric else 1
    if n_pairs == 0:
        raise ValueError("contrastive_loss: no two entries of this batch share a concept")
    tiles = [(I, J, bool(torch.isin(group[I], partner[J]).any()))                # does it hold positives?
             for I, J in pairs_of_tiles(N, anchors, 256 if device.type == "cpu" else 4096)]
    group, partner, n_positives = (t.to(device, non_blocking=True) for t in (group, partner, n_positives))
    total = FusedContrastiveLoss.apply(states, group, partner, n_positives, one_set, ways, tau, tiles)
    return total / (n_pairs * len(states))


def pairs_of_tiles(N, anchors, size):
    """Slices (I, J) that cover every unordered pair of N rows once, or only the pairs between two sides."""
    def slices(start, stop):
        return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]
    if anchors is None:
        return list(combinations_with_replacement(slices(0, N), 2))
    return list(product(slices(0, anchors), slices(anchors, N)))


class FusedContrastiveLoss(torch.autograd.Function):
    """contrastive_loss before the division.  Similarities exist for one tile at a time.

    z_i   unit rows; s_ij = z_i z_j / tau and E_ij = exp(s_ij)
    R_i   sum of E_ij over the candidates j of i
    w_i   number of positives of i, 0 if i is no anchor
    P_i   sum of z_j over the positives j of i, from sums over groups in O(N D)
    ways  2 if both words of a pair are anchors, else 1

        loss             =  sum_i w_i log R_i  -  ways / 2  sum_i z_i P_i / tau
        gradient of z_i  =  sum_j (E_ij (w_i / R_i + w_j / R_j)  -  ways [j is a positive of i]) z_j / tau

    for each level.  Both passes compute E and discard it.  E is symmetric, so a tile serves its rows and its
    columns.  As |s| <= 1 / tau, no running maximum is needed: exp(s) and its sums fit into float32 down to
    tau = 1/72, and float64 is used below.  The code has y = z / sqrt(tau log 2), so that E = 2^(y y^T), as
    exp2 is faster than exp.
    """
    @staticmethod
    def forward(ctx, states, group, partner, n_positives, one_set, ways, tau, tiles):
        real = torch.float64 if tau < 1 / 72 or states.dtype == torch.float64 else torch.float32
        _, N, D = states.shape
        loss, R = 0, torch.zeros(states.shape[:2], dtype=real, device=states.device)   # (), (K, N)
        for x, r in zip(states, R):
            y, _ = scaled_rows(x, tau, real)                                     # (N, D)
            P = y.new_zeros(2 * N, D).index_add_(0, group, y).index_select(0, partner)   # (N, D)
            if one_set:
                P -= y                                         # a word is in its own group, but no positive
            for I, J, _ in tiles:
                E = exponentials(y, I, J)                                        # (|I|, |J|)
                r[I] += E.sum(1)
                if I != J:
                    r[J] += E.sum(0)
            loss += (n_positives * r.log()).sum() - ways / 2 * LOG2 * (y * P).sum()
        ctx.save_for_backward(states, n_positives / R, group, partner)
        ctx.ways, ctx.tau, ctx.real, ctx.tiles = ways, tau, real, tiles
        return loss.to(torch.promote_types(states.dtype, torch.float32))

    @staticmethod
    def backward(ctx, scale):
        if torch.is_grad_enabled():                                              # create_graph=True
            raise RuntimeError("contrastive_loss can be differentiated only once: E is not kept")
        states, shares, group, partner = ctx.saved_tensors                       # (K, N, D), (K, N), 2 x (N,)
        gradient = torch.empty_like(states)
        for k, a in enumerate(shares):
            y, norm = scaled_rows(states[k], ctx.tau, ctx.real)
            g = torch.zeros_like(y)                                              # (N, D)
            for I, J, has_positives in ctx.tiles:
                E = exponentials(y, I, J).mul_(a[I, None] + a[J])                # (|I|, |J|)
                if has_positives:
                    # subtracted here and not as P: near convergence the two terms nearly cancel
                    E.add_(group[I, None] == partner[J], alpha=-ctx.ways)
                    if I == J:
                        E.fill_diagonal_(0)
                g[I].addmm_(E, y[J])
                if I != J:
                    g[J].addmm_(E.T, y[I])
            # the derivative of the normalisation removes the component along z
            g.addcmul_(y, (y * g).sum(1, keepdim=True), value=-ctx.tau * LOG2)
            gradient[k] = g.mul_(scale * LOG2 / norm)
        return gradient, *[None] * 7


def scaled_rows(x, tau, dtype):
    """Rows scaled to length 1 / sqrt(tau log 2): x (N, D) -> rows (N, D), their divisors (N, 1)."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=dtype).clamp(min=1e-12)
    norm *= math.sqrt(tau * LOG2)
    return x / norm, norm


def exponentials(y, I, J):
    """2^(y_I y_J^T): (|I|, |J|), with zeros where a row meets itself, because it is not its own candidate."""
    rows, columns = y[I], y[J]
    # autocast does not change an in-place product; bfloat16 would be too coarse for cos / tau
    E = y.new_empty(len(rows), len(columns)).addmm_(rows, columns.T, beta=0).exp2_()
    return E.fill_diagonal_(0) if I == J else E
