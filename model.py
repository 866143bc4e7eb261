"""One decoder, two losses: everything the three methods share.

Shapes, used with these letters everywhere in the repository:
  B  sequences in a batch      T  tokens in a sequence      D  model width      H  attention heads
  L  transformer blocks        V  rows of the vocabulary    N  words or sentences in a contrastive batch
  K  levels whose states are compared: 0 is the input embedding, 1 ... L the block outputs (L after the
     final norm), L+1 the rows of the output embedding; K = L + 2 for PreAlign

  GPT               decoder-only transformer: RoPE, RMSNorm, no biases, untied output head
  lm_loss           next-token cross-entropy, summed over targets and divided once by their number
  contrastive_loss  InfoNCE with several positives, the one loss of PreAlign (words) and AFP (sentences)
  generate          batched sampling for prompts of different lengths
  learning_rate, choose_dtype, GPT.groups   the small decisions of training
"""
import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

IGNORE = -100   # a target that carries no loss: the default ignore_index of F.cross_entropy

# name: layers, heads, width, context, byte-level BPE merges + bytes.
# The last three are the shapes of the PreAlign configs.
PRESETS = {
    "tiny": dict(n_layer=4, n_head=4, d_model=128, context_len=128, vocab_size=1280),
    "small": dict(n_layer=8, n_head=8, d_model=512, context_len=256, vocab_size=4096),
    "150m": dict(n_layer=12, n_head=16, d_model=1024, context_len=1024, vocab_size=32768),
    "400m": dict(n_layer=24, n_head=16, d_model=1024, context_len=1024, vocab_size=32768),
    "1.3b": dict(n_layer=24, n_head=16, d_model=2048, context_len=1024, vocab_size=32768),
}


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
    """Cosine and sine of every position and pair of channels [Su et al. 2021, RoPE].

    Two tensors (T, head_dim / 2), with T = context_len and head_dim = D/H.
    """
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
        # takes several times as long
        later = torch.ones(T, T, dtype=torch.bool).triu(1)                       # (T, T)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])                # (B, H, T, T)
        return scores.masked_fill(later, float("-inf")).softmax(dim=-1) @ v      # (B, H, T, D/H)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)               # (B, H, T, D/H)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis [Zhang & Sennrich 2019]; computed in the dtype of x."""

    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x):                                                        # (B, T, D) -> (B, T, D)
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
    """Decoder-only language model in three parts: `embed` (V, D), `body` (the blocks) and `head` (V, D).

    Active forgetting and vocabulary expansion speak of exactly these parts, hence the names.
    """

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
        """GPT-2's scheme: every matrix is drawn from N(0, 0.02²).

        The two of each block that write to the residual stream get 1/sqrt(2L) of that deviation.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim < 2:
                continue                                                         # norm weights start at one
            residual = name.endswith(("attention_out.weight", "feed_out.weight"))
            std = 0.02 / math.sqrt(2 * self.shape.n_layer) if residual else 0.02
            # drawn on the CPU: the same on every device
            p.copy_(torch.randn(p.shape, generator=generator) * std)
        return self

    def hidden(self, tokens):
        """States of levels 0 ... L: tokens (B, T) -> list of L + 1 tensors (B, T, D).

        The last one is taken after the final norm.
        """
        x = self.embed(tokens)                                                   # (B, T, D)
        if torch.is_autocast_enabled(x.device.type):
            # else the residual stream would stay float32
            x = x.to(torch.get_autocast_dtype(x.device.type))
        levels = [x]
        for block in self.body:
            x = block(x, self.cos, self.sin)                                     # (B, T, D)
            levels.append(x)
        levels[-1] = self.final_norm(x)
        return levels

    def logits(self, tokens):
        """Scores of the next token: tokens (B, T) -> (B, T, V)."""
        return self.head(self.hidden(tokens)[-1])

    def loss(self, tokens, targets):
        """Mean next-token loss in nats: tokens (B, T), targets (B, T), already shifted -> ()."""
        return lm_loss(self.logits(tokens), targets)

    def groups(self, lr, embed_lr, head_lr, weight_decay):
        """AdamW parameter groups, each with its peak rate; every parameter is in exactly one.

        Only matrices of the body decay.  Rows of embedding and head do not, and have their own rates:
        a row's gradient is (nearly) zero in most steps, and decay would shrink rare words (a clone word
        is rare) towards nothing.
        """
        # tied: one entry, with the embedding's rate
        outer = {id(p): (p, rate) for p, rate in ((self.head.weight, head_lr), (self.embed.weight, embed_lr))}
        body = [p for p in self.parameters() if id(p) not in outer]
        groups = [
            ([p for p in body if p.ndim == 2], lr, weight_decay),
            ([p for p in body if p.ndim < 2], lr, 0.0),
        ]
        groups += [([p], rate, 0.0) for p, rate in outer.values()]
        return [
            dict(params=params, lr=rate, peak_lr=rate, weight_decay=decay)
            for params, rate, decay in groups
        ]


def learning_rate(step, steps, warmup):
    """Share of the peak rate: linear warm-up, then cosine down to a tenth.

    A plain float: checkpoints refuse numpy's.
    """
    rise = max(round(warmup * steps), 1)
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def choose_dtype(device):
    """bfloat16 where it is faster.

    On a CPU a matrix product is timed, once per run: config.json keeps the choice.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
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


def contrastive_loss(states, concept, tau=0.1):
    """InfoNCE with several positives, averaged over levels and over ordered pairs of the same concept.

        mean over levels k and pairs (w, v) of   -log  exp(s_k(w,v)) / sum_{u != w} exp(s_k(w,u))
        with s_k = cos / tau

    states:  (K, N, D) one vector per level and word
    concept: (N,)      words with the same concept id translate each other;
                       a word without a partner is only a candidate
    tau:     temperature > 0
    returns: ()        in nats; log(N - 1) when all words look alike, near 0 when pairs coincide
                       and others are far
    raises:  ValueError if no two words share a concept: there is nothing to pull together
    source:  PreAlign's alignment loss; with one level and sentences for words,
             AFP's multilingual contrastive learning
    """
    n = states.shape[1]
    itself = torch.eye(n, dtype=torch.bool, device=states.device)                # (N, N)
    positive = (concept[:, None] == concept[None, :]) & ~itself                  # (N, N)
    if not positive.any():
        raise ValueError("contrastive_loss: no two entries of this batch share a concept")
    # bf16 is too coarse for cos / tau
    with torch.autocast(states.device.type, enabled=False):
        z = F.normalize(states.float(), dim=-1)                                  # (K, N, D)
        similarity = z @ z.transpose(1, 2) / tau                                 # (K, N, N)
        # -inf, not 0: a zero logit still joins the softmax
        similarity = similarity.masked_fill(itself, float("-inf"))
        return -similarity.log_softmax(dim=-1)[:, positive].mean()               # [InfoNCE]


@torch.no_grad()
def generate(model, prompts, max_new_tokens, temperature=1.0, top_k=None, generator=None, stop=None):
    """Continue each prompt: list of lists of token ids -> list of lists with only the new ids.

    temperature 0 is greedy; top_k keeps the k best tokens; stop ends a continuation when drawn (it is
    not returned).  Prompts of different lengths share a batch by padding on the right: attention is
    causal, so padding is never seen.  Text beyond context_len slides out on the left.
    """
    device = model.embed.weight.device
    texts, alive = [list(p) for p in prompts], [True] * len(prompts)
    for _ in range(max_new_tokens):
        windows = [text[-model.shape.context_len:] for text in texts]
        width = max(map(len, windows))
        tokens = torch.tensor([w + [0] * (width - len(w)) for w in windows], device=device)          # (B, T)
        last = torch.tensor([len(w) - 1 for w in windows], device=device)                            # (B,)
        states = model.hidden(tokens)[-1][torch.arange(len(texts), device=device), last]             # (B, D)
        scores = model.head(states).float()                                                          # (B, V)
        if temperature == 0:
            drawn = scores.argmax(dim=-1)                                                            # (B,)
        else:
            if top_k is not None:
                weakest = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]                   # (B, 1)
                scores = scores.masked_fill(scores < weakest, float("-inf"))
            drawn = torch.multinomial(
                (scores / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]                # (B,)
        for i, token in enumerate(drawn.tolist()):
            alive[i] = alive[i] and token != stop
            if alive[i]:
                texts[i].append(token)
        if not any(alive):
            break
    return [text[len(p):] for text, p in zip(texts, prompts)]
