"""Measure speed and memory.  All sides run in one process and in turn (A B A B ...).

Reported are medians over rounds; ratios are taken within a round first, and given with their lowest and
highest value.  A ratio below 1 means that ours is slower.  --quick takes small sizes: a minute or two on a CPU.

  python tests/bench.py contrastive   the fused loss against the plain one and ready-made operators
  python tests/bench.py step          a step of language modelling and of word alignment against plain ones
  python tests/bench.py data          generating, tokenizing, batches and code-switching against a step
  python tests/bench.py switch --data DIR   a step on a prepared folder with and without code-switching
  python tests/bench.py start         from the command to the first step, with an empty and a full cache
  python tests/bench.py optimizer     PreAlign with AdamW and with Muon: loss, alignment, facts, CPU time

On a CPU one thread computes.  The last line of the output is JSON.
"""
import argparse
import copy
import ctypes
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")   # before torch: spinning threads disturb small operators
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import train  # noqa: E402
from data.lab import likelihood, measures  # noqa: E402
from data.lab.options import parse_args  # noqa: E402
from data.lab.processes import choose_dtype  # noqa: E402
from data.lab.run import Run  # noqa: E402
from data.lab.statistics import interval  # noqa: E402
from data.world.world import World  # noqa: E402
from model import (GPT, ModelConfig, contrastive_loss, lm_loss, lr_multiplier,  # noqa: E402
                   plain_contrastive_loss)
from prealign import code_switch, word_alignment_loss, word_states  # noqa: E402

MIB = 2**20


# --- measuring ----------------------------------------------------------------------------------------------

def seconds(work, device):
    """Seconds of one call, with a GPU synchronized before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(sides, device, rounds, warm=True):
    """Time all sides in turn: {name: function} -> {name: seconds of each round}.

    warm: call every side once before
    """
    for work in sides.values() if warm else ():
        work()
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            times[name].append(seconds(work, device))
    return times


def ratio(times, other, mine):
    """Median over rounds of other / mine: how many times faster mine is."""
    return statistics.median(a / b for a, b in zip(times[other], times[mine]))


def spread(times, other, mine):
    """The ratio with its extremes over rounds: -> "2.1 (1.9-2.4)"."""
    found = sorted(a / b for a, b in zip(times[other], times[mine]))
    return f"{statistics.median(found):.2f} ({found[0]:.2f}-{found[-1]:.2f})"


def resident(which):
    """Bytes of memory of this process: now (VmRSS) or at the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def extra_memory(work, device):
    """Peak bytes of `work` above those in use before; on a CPU in its own process (Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    reader, writer = os.pipe()
    if not os.fork():
        ctypes.CDLL(None).malloc_trim(0)                       # return memory that the parent has freed
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")      # the peak starts from here
        before = resident("VmRSS")
        work()
        os.write(writer, str(resident("VmHWM") - before).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read()
    os.wait()
    return int(found) if found else math.inf              # the child was killed: it did not fit


def matmul_peak(dtype, device):
    """Floating point operations per second of a large matrix product, the best of many."""
    n = 8192 if device.type == "cuda" else 1024
    a = torch.randn(n, n, device=device).to(dtype)        # of ones, a GPU makes products faster
    return 2 * n**3 / min(seconds(lambda: a @ a, device) for _ in range(20))


def machine(device):
    """One line that names the machine."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    facts = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
    has = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return (f"{facts.get('model name', platform.processor())} ({', '.join(has) or 'no avx512'}), "
            f"{torch.get_num_threads()} thread, torch {torch.__version__}")


def table(head, rows):
    """Print a table with numbers rounded and right-aligned."""
    rows = [head] + [[f"{c:.3g}" if isinstance(c, float) and c < 1000 else f"{c:.0f}"
                      if isinstance(c, float) else str(c) for c in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths)), flush=True)


# --- contrastive --------------------------------------------------------------------------------------------

def pairs(K, N, D, device):
    """Random states and concepts of N / 2 pairs, (K, N, D) and (N,)."""
    return torch.randn(K, N, D, device=device), torch.arange(N // 2).repeat(2)


def there_and_back(loss, states, *rest):
    """Forward and backward of a loss of states (K, N, D)."""
    def work():
        leaf = states.detach().requires_grad_()
        loss(leaf, *rest).backward()
    return work


def broadcast_cosine_loss(source, target, tau=0.1):
    """AFP's similarity taken literally: source, target (N, D), row i translates row i -> ().

    It allocates N x N x D numbers.  Each side picks its translation on the other side, and the two directions
    are averaged.
    """
    scores = F.cosine_similarity(source[:, None], target[None], dim=-1) / tau                # (N, N)
    translation = torch.arange(len(source), device=source.device)                            # (N,)
    return (F.cross_entropy(scores, translation) + F.cross_entropy(scores.T, translation)) / 2


def cross_entropy_loss(states, concept, tau=0.1):
    """F.cross_entropy on materialised logits; needs one positive per word, in the order of `pairs`."""
    z, n = F.normalize(states, dim=-1), states.shape[1]
    logits = (z @ z.transpose(1, 2) / tau).masked_fill(
        torch.eye(n, dtype=torch.bool, device=z.device), -math.inf)                          # (K, N, N)
    partner = torch.arange(n, device=z.device).roll(n // 2).repeat(len(z))                   # (K * N,)
    return F.cross_entropy(logits.flatten(0, 1), partner)


class LeanLoss(torch.autograd.Function):
    """The leanest loss with N x N matrices: one level at a time, no second pass, no maximum, one positive.

    The gradient is computed in the forward pass.  It needs one positive per word, in the order of `pairs`.
    """
    @staticmethod
    def forward(ctx, states, tau):
        (K, n, _), loss, gradient = states.shape, 0, torch.empty_like(states)
        for x, g in zip(states, gradient):
            norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)                          # (N, 1)
            z = x / norm                                                                     # (N, D)
            partner = z.roll(n // 2, dims=0)
            E = (z @ z.T).div_(tau).exp_().fill_diagonal_(0)                                 # (N, N)
            R = E.sum(1)                                                                     # (N,)
            loss += R.log().sum() - (z * partner).sum() / tau
            E.mul_((1 / R)[:, None] + 1 / R)                   # E is symmetric: one product serves both sides
            d = (E @ z).sub_(partner, alpha=2)                                               # (N, D)
            torch.div(d - (d * z).sum(1, keepdim=True) * z, norm * (tau * n * K), out=g)
        ctx.save_for_backward(gradient)
        return loss / (n * K)

    @staticmethod
    def backward(ctx, scale):
        return scale * ctx.saved_tensors[0], None


def lean_loss(states, concept, tau=0.1):
    return LeanLoss.apply(states, tau)


def linear_cross_entropy_loss(states, concept, tau=0.1, options=None):
    """The best ready-made operator, logits and loss in one.  It cannot exclude the word itself."""
    z, n = F.normalize(states, dim=-1), states.shape[1]
    partner = torch.arange(n, device=z.device).roll(n // 2)                                    # (N,)
    return sum(F.linear_cross_entropy(level, level / tau, partner, options=options) for level in z) / len(z)


def chunked_linear_cross_entropy_loss(states, concept, tau=0.1):
    return linear_cross_entropy_loss(states, concept, tau, nn.LinearCrossEntropyOptions())


def two_sided_losses(N):
    """Losses of N pairs of sentences from states (1, 2N, D): -> {name: function}.  Others, if installed."""
    concept = torch.arange(N).repeat(2)

    def open_clip():
        from open_clip.loss import ClipLoss
        clip = ClipLoss()
        return lambda s: clip(F.normalize(s[0, :N], dim=-1), F.normalize(s[0, N:], dim=-1), 20.0)

    def sentence_transformers():
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
        no_model = SentenceTransformer(modules=[nn.Identity()], device="cpu")
        cached = CachedMultipleNegativesRankingLoss(no_model)
        # it has the gradient of each batch of 32 sentences in hand, and only one side has anchors
        return lambda s: cached.calculate_loss([s[0, :N].split(32), s[0, N:].split(32)])

    found = dict(fused=lambda s: contrastive_loss(s, concept, 0.05, anchors=N))
    if N <= 512:                                               # more pairs do not fit into memory
        found["broadcast"] = lambda s: broadcast_cosine_loss(s[0, :N], s[0, N:], 0.05)
    for make in (open_clip, sentence_transformers):
        try:
            found[make.__name__] = make()
        except Exception:                                      # not installed, or another version
            pass
    return found


def gradient_error(states, concept, tau, autocast):
    """Relative error of the fused float32 gradient against the plain float64 one."""
    exact = states.double().requires_grad_()
    plain_contrastive_loss(exact, concept, tau).backward()
    mine = states.clone().requires_grad_()
    with torch.autocast(states.device.type, torch.bfloat16, enabled=autocast):
        contrastive_loss(mine, concept, tau).backward()
    return ((mine.grad - exact.grad).norm() / exact.grad.norm()).item()


def bench_contrastive(device, rounds, quick=False):
    losses = dict(fused=contrastive_loss, plain=plain_contrastive_loss, lean=lean_loss,
                  cross_entropy=cross_entropy_loss, linear_ce=linear_cross_entropy_loss,
                  linear_ce_chunked=chunked_linear_cross_entropy_loss)
    if not hasattr(F, "linear_cross_entropy"):                 # an older torch
        del losses["linear_ce"], losses["linear_ce_chunked"]
    result, rows = {}, []
    cuda = device.type == "cuda"
    shapes = [(6, n, 1024 if cuda else 256) for n in (512, 1024, 2048, 4096, 8192, 16384)]
    shapes += ([(6, 2**16, 1024), (6, 2**17, 1024), (14, 2**14, 1024)] if cuda
               else [(8, 2048, 256), (8, 4096, 256)])
    if quick:
        shapes = [(6, n, 1024) for n in (2**12, 2**14, 2**16)] if cuda else [(6, n, 256) for n in (512, 2048)]
    total = (torch.cuda.mem_get_info()[1] if cuda
             else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for K, N, D in shapes:
        states, concept = pairs(K, N, D, device)
        fits = 6 * K * N * N * 4 < 0.8 * total                 # the others hold about five K x N x N tensors
        long = N > 4096 and not cuda                           # minutes: the plain loss only, and only once
        sides = {name: there_and_back(loss, states, concept) for name, loss in losses.items()
                 if name == "fused" or fits and (name in ("plain", "lean") or not long)}
        times = in_turn(sides, device, 1 if long else rounds, warm=not long)
        memory = {name: extra_memory(work, device) / MIB for name, work in sides.items()
                  if name in ("fused", "plain", "lean")}
        mine = statistics.median(times["fused"])
        flops = 4 * K * N * N * D / mine
        found = dict(ms=mine * 1e3, gflops=flops / 1e9, mib=memory["fused"])
        found |= {f"{name}_x": ratio(times, name, "fused") for name in sides if name != "fused"}
        found |= {f"{name}_spread": spread(times, name, "fused") for name in sides if name != "fused"}
        found |= {f"{name}_mib": memory[name] for name in memory if name != "fused"}
        result[f"K={K} N={N} D={D}"] = found
        rows.append([K, N, D, found["ms"], *(found.get(f"{name}_spread", "-") for name in list(losses)[1:]),
                     *(round(memory[name]) if name in memory else "-" for name in ("fused", "plain", "lean")),
                     found["gflops"]])
    print("\nforward + backward, float32: the fused loss, how many times longer the others take, peak memory")
    table(["K", "N", "D", "fused ms", *(f"{name} x" for name in list(losses)[1:]),
           "fused MiB", "plain MiB", "lean MiB", "GFLOP/s"], rows)
    peak = matmul_peak(torch.float32, device)
    print(f"peak of a float32 matrix product in this run: {peak / 1e9:.0f} GFLOP/s")

    rows, names = [], []
    for N in (256,) if quick and not cuda else (512, 4096):
        states, _ = pairs(1, 2 * N, 1024 if cuda else 256, device)
        sides = {name: there_and_back(loss, states) for name, loss in two_sided_losses(N).items()}
        times = in_turn(sides, device, rounds)
        names = names or list(sides)[1:]
        result |= {f"{name}_x, {N} pairs": ratio(times, name, "fused") for name in list(sides)[1:]}
        rows.append([N, statistics.median(times["fused"]) * 1e3,
                     *(spread(times, name, "fused") if name in sides else "-" for name in names)])
    print("\nsentence pairs, how many times longer others take (broadcast: a cosine of N x N x D numbers)")
    table(["pairs", "fused ms", *(f"{name} x" for name in names)], rows)

    states, concept = pairs(6, 512, 256, device)
    close = states[:, :256] + 1e-2 * torch.randn(6, 256, 256, device=device)
    clustered = torch.cat((states[:, :256], close), dim=1)
    result["gradient_error"] = {
        f"{name}, {'autocast' if autocast else 'float32'}": gradient_error(s, concept, 0.1, autocast)
        for name, s in (("random", states), ("converged", clustered)) for autocast in (False, True)}
    print("relative gradient error against float64:", ", ".join(
        f"{name} {error:.1e}" for name, error in result["gradient_error"].items()))
    return result | dict(float32_peak_gflops=peak / 1e9)


# --- step ---------------------------------------------------------------------------------------------------

class PlainBlock(nn.Module):
    """A block as most people write it: LayerNorm, biases, GELU, F.scaled_dot_product_attention."""

    def __init__(self, D, H):
        super().__init__()
        self.n_head, self.norm1, self.norm2 = H, nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.feed_in, self.feed_out = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = (t.view(B, T, self.n_head, -1).transpose(1, 2)
                   for t in self.qkv(self.norm1(x)).split(D, dim=2))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)                          # (B, H, T, D/H)
        x = x + self.out(a.transpose(1, 2).reshape(B, T, D))
        return x + self.feed_out(F.gelu(self.feed_in(self.norm2(x))))


class PlainGPT(nn.Module):
    """A model like nanoGPT's: learned positions, float32, logits of the whole batch."""

    def __init__(self, config):
        super().__init__()
        D = config.d_model
        self.embed, self.place = nn.Embedding(config.vocab_size, D), nn.Embedding(config.context_len, D)
        self.body = nn.ModuleList(PlainBlock(D, config.n_head) for _ in range(config.n_layer))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, config.vocab_size, bias=False)

    def hidden(self, tokens):
        levels = [self.embed(tokens) + self.place.weight[:tokens.shape[1]]]
        for block in self.body:
            levels.append(block(levels[-1]))
        levels[-1] = self.norm(levels[-1])
        return levels

    def logits(self, tokens):
        return self.head(self.hidden(tokens)[-1])

    def loss(self, tokens, targets):
        return F.cross_entropy(self.logits(tokens).flatten(0, 1), targets.flatten())


def update(optimizer, loss):
    """One step of an optimizer on loss()."""
    optimizer.zero_grad()
    loss().backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()


def tiny_run(device, cache, *flags):
    """A run of preset tiny that has its data and its model, but is not trained and writes nothing."""
    cfg, _ = parse_args(["--preset", "tiny", "--device", device.type, *flags])
    with tempfile.TemporaryDirectory() as out:
        return Run(cfg, out, cache, quiet=True)


def published_alignment_loss(model, words, mask, concept, tau=0.1, width=30):
    """Word alignment as published: float32, every word padded to 30 tokens, one loss of N x N per level."""
    words, mask = (F.pad(t, (0, width - t.shape[1])) for t in (words, mask))
    levels = model.hidden(words) + [F.embedding(words, model.head.weight)]       # K x (N, 30, D)
    share = mask[..., None] / mask.sum(1)[:, None, None]                         # (N, 30, 1)
    return plain_contrastive_loss(torch.stack([(level * share).sum(1) for level in levels]), concept, tau)


def bench_step(device, rounds, cache, quick=False):
    cuda = device.type == "cuda"
    config = ModelConfig(32768, 12, 12, 768, 1024) if cuda else ModelConfig(4096, 6, 8, 256, 128)
    B, T = (16, 1024) if cuda else (8 if quick else 32, 128)
    torch.manual_seed(0)
    plain, ours = PlainGPT(config).to(device), GPT(config).initialise(0).to(device)
    compiled, nanogpt = GPT(config).initialise(0).to(device), PlainGPT(config).to(device)
    for block in (*compiled.body, *nanogpt.body):
        block.compile()
    compiled_loss, dtype = torch.compile(lm_loss), getattr(torch, choose_dtype(device))
    rows = torch.randint(config.vocab_size, (B, T + 1), device=device)
    tokens, targets = rows[:, :-1], rows[:, 1:]

    def lm(model, loss):
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model.logits(tokens)
        return loss(logits, targets, B * T)

    def optimizer(model):
        return torch.optim.AdamW(model.param_groups(1e-3, 1e-3, 0.1), fused=True)

    adam, fused, fused_too = torch.optim.AdamW(plain.parameters()), optimizer(ours), optimizer(compiled)
    nano_adam = torch.optim.AdamW(nanogpt.parameters(), fused=True)
    sides = dict(plain=lambda: update(adam, lambda: plain.loss(tokens, targets)),
                 # as nanoGPT trains on a GPU: compiled, and in the same number type as ours
                 nanogpt=lambda: update(nano_adam, lambda: lm(nanogpt, compiled_loss)),
                 ours=lambda: update(fused, lambda: lm(ours, lm_loss)),
                 compiled=lambda: update(fused_too, lambda: lm(compiled, compiled_loss)))
    compile_seconds = seconds(sides["compiled"], device)
    times = in_turn(sides, device, rounds)
    memory = {name: extra_memory(work, device) / MIB for name, work in sides.items()}
    matrices = sum(p.numel() for p in ours.parameters() if p.ndim == 2) - ours.embed.weight.numel()
    # forward and backward: 6 per weight and token, 12 L D T per token for the products of attention
    flops = B * T * (6 * matrices + 12 * config.n_layer * config.d_model * T)
    peak = dict(plain=matmul_peak(torch.float32, device), ours=matmul_peak(dtype, device))
    peak["compiled"] = peak["nanogpt"] = peak["ours"]
    result, lines = {}, []
    for name, found in times.items():
        middle = statistics.median(found)
        result[name] = dict(tok_s=B * T / middle, faster=ratio(times, "plain", name),
                            spread=spread(times, "plain", name), mib=memory[name],
                            faster_than_nanogpt=ratio(times, "nanogpt", name),
                            share_of_peak=flops / middle / peak[name])
        lines.append([name, middle * 1e3, round(B * T / middle), spread(times, "plain", name),
                      spread(times, "nanogpt", name), round(memory[name]), result[name]["share_of_peak"]])
    print(f"\nLM step, {config.n_layer} layers, D {config.d_model}, V {config.vocab_size}, B {B}, T {T}; "
          f"ours in {str(dtype)[6:]} (matmul peak {peak['ours'] / 1e9:.0f} GFLOP/s, float32 "
          f"{peak['plain'] / 1e9:.0f}); compilation {compile_seconds:.0f} s apart")
    table(["side", "ms", "tokens/s", "x plain", "x nanogpt", "MiB", "share of peak"], lines)

    run = tiny_run(device, cache, "--method", "prealign")
    entries = np.random.default_rng(0).permutation(len(run.train_dictionary))[:64 if quick else 512]
    words, mask, concept = map(torch.from_numpy, run.train_dictionary.batch(entries))
    config = ModelConfig(run.corpus.vocab_size, 6, 8, 256, 128)
    plain, ours = PlainGPT(config).to(device), GPT(config).initialise(0).to(device)
    adam, fused = torch.optim.AdamW(plain.parameters()), optimizer(ours)
    on_device = words.to(device), mask.to(device), concept.to(device)

    def align():
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return word_alignment_loss(word_states(ours, words, mask), concept)

    times = in_turn(dict(published=lambda: update(adam, lambda: published_alignment_loss(plain, *on_device)),
                         ours=lambda: update(fused, align)), device, rounds)
    result |= dict(alignment_x=ratio(times, "published", "ours"), compile_seconds=compile_seconds)
    print(f"word alignment step, {len(entries)} dictionary entries, 6 layers, D 256: "
          f"{statistics.median(times['ours']) * 1e3:.0f} ms, {spread(times, 'published', 'ours')} x faster than "
          "the published style (float32, padded to 30 tokens, plain loss)")
    return result


# --- data and start -----------------------------------------------------------------------------------------

def bench_data(device, rounds, cache):
    run = tiny_run(device, cache, "--method", "prealign")
    world, corpus, batch_size, step = World(0), run.corpus, run.cfg.batch_size, iter(range(10**9))
    documents = list(world.documents("en", 50_000, 1))
    n_tokens = len(corpus.encode("\n".join(documents), "en"))
    rows, languages = train.text_rows(run, train.TEXT, 0, batch_size)

    def switch():
        code_switch(rows, corpus.starts[rows], languages == 0, run.train_dictionary.table, 0.05,
                    np.random.default_rng(0))

    optimizer = torch.optim.AdamW(run.model.parameters(), fused=True)

    def lm():
        (loss, _, _), = train.lm_parts(run, run.model, rows[:, :-1], rows[:, 1:])
        return loss

    sides = dict(
        generate=(n_tokens, lambda: list(world.documents("en", 50_000, 1))),
        tokenize=(n_tokens, lambda: corpus.tokenizer.encode_batch(documents)),
        batches=(rows.size, lambda: train.text_rows(run, train.TEXT, next(step), batch_size)),
        code_switching=(rows.size, switch),
        step=(rows.size, lambda: update(optimizer, lm)))
    times = in_turn({name: work for name, (_, work) in sides.items()}, device, rounds)
    speed = {name: n / statistics.median(times[name]) for name, (n, _) in sides.items()}
    print("\ntokens per second; generating and tokenizing happen once and are kept in the cache")
    table(["part", "tokens/s", "x step"],
          [[name, round(found), round(found / speed["step"], 1)] for name, found in speed.items()])
    both = 1 / (1 / speed["batches"] + 1 / speed["code_switching"])
    print(f"batches and code-switching together: {both / speed['step']:.0f} x the step's tokens per second")
    return speed | dict(feed_x=both / speed["step"])


def bench_switch(device, rounds, data, steps=10):
    """A pretraining step with code-switching, several translations a word, against one without."""
    run = tiny_run(device, "data/cache", "--method", "prealign", "--prealign_every", "0", "--data", data)
    with_switching, without = run.cfg, replace(run.cfg, code_switch=0.0)
    optimizer, step = torch.optim.AdamW(run.model.parameters(), fused=True), iter(range(10**9))

    def learn(cfg):
        run.cfg = cfg
        for _ in range(steps):
            (loss, _, _), = train.pretrain(run, next(step))
            update(optimizer, lambda loss=loss: loss)

    sides = dict(switched=lambda: learn(with_switching), plain=lambda: learn(without))
    times = in_turn(sides, device, rounds)
    found = statistics.median(times["switched"]) / steps * 1000, ratio(times, "switched", "plain")
    translations = [len(found) for _, found in run.train_dictionary.entries]
    print(f"\n{len(translations):,} words, {statistics.mean(translations):.2f} translations each; a step "
          f"with code-switching takes {found[0]:.1f} ms, {found[1]:.3f} x one without")
    return dict(milliseconds=found[0], ratio=found[1])


FIRST_STEP = """
import train
cfg, _ = train.parse_args(["--preset", "tiny", "--method", "prealign"])
run = train.Run(cfg, {out!r}, {cache!r}, quiet=True)
for loss, _, _ in train.pretrain(run, 0):
    loss.backward()
"""


def bench_start(device, rounds, cache):
    times = {"empty cache": [], "full cache": [], "importing torch": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            code = FIRST_STEP.format(out=folder + "/run", cache=folder + "/cache")
            for name, program in zip(times, (code, code, "import torch")):
                times[name].append(seconds(lambda program=program: subprocess.run(
                    [sys.executable, "-c", program], cwd=ROOT, check=True), device))
    found = {name: statistics.median(t) for name, t in times.items()}
    print("\nseconds from the start of Python to the end of the first step, all cores")
    table(["", "median s", "worst s"], [[name, found[name], max(times[name])] for name in times])
    return found


# --- optimizer ----------------------------------------------------------------------------------------------

def adamw(run, lr):
    """AdamW for all parameters, as in training."""
    return [torch.optim.AdamW(train.param_groups(run, lr), betas=(0.9, 0.95), fused=True)]


def muon(run, lr):
    """torch.optim.Muon for the matrices of the body, AdamW at its own rates for the rest."""
    body = torch.optim.Muon(train.param_groups(run, lr)[0]["params"], lr=lr,
                            weight_decay=run.cfg.weight_decay, adjust_lr_fn="match_rms_adamw")
    rest = torch.optim.AdamW(train.param_groups(run, run.cfg.lr)[1:], betas=(0.9, 0.95), fused=True)
    body.param_groups[0]["peak_lr"] = lr
    return [body, rest]


def pretrain(run, optimizers, steps):
    """The loop of train.fit with several optimizers, and without resets, log and checkpoints."""
    for step in range(steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak_lr"] * lr_multiplier(step, steps, train.WARMUP)
        for loss, _, _ in train.pretrain(run, step):
            loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.cfg.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def bench_optimizer(device, cache, steps, seeds):
    """PreAlign with different optimizers in pretraining, each with a schedule of its own length.

    Of one seed, all sides start from the same aligned model.
    """
    sides = [("AdamW 0.003", adamw, 3e-3, steps)]
    sides += [("Muon 0.006", muon, 6e-3, round(share * steps)) for share in (0.8, 0.65, 0.5)]
    numbers = {(name, n): [] for name, _, _, n in sides}
    for seed in range(seeds):
        run = tiny_run(device, cache, "--method", "prealign", "--seed", str(seed))
        train.fit(run, run.model, "align words", partial(train.align_words, run),
                  train.param_groups(run, run.cfg.prealign_lr), temporary=True)
        aligned = copy.deepcopy(run.model.state_dict())
        for name, make, lr, n in sides:
            run.model.load_state_dict(aligned)
            optimizers, start = make(run, lr), time.process_time()
            pretrain(run, optimizers, n)
            spent = time.process_time() - start
            with run.evaluating():
                found = measures.probe(run.model, run.corpus, run.dictionary, "pretrain", last=True)
                facts = likelihood.knowledge(run.model, run.corpus, run.cfg.eval_items)["knowledge"]["clone"]
            middle = found["word_cosine"][run.cfg.n_layer // 2]
            numbers[name, n].append([*found["val"].values(), middle, facts, spent])
    show_optimizers(numbers)
    return {f"{name}, {n} steps": rows for (name, n), rows in numbers.items()}


def show_optimizers(numbers):
    """Print the mean of each side, and each side minus the first.  numbers: {(name, steps): rows of seeds}"""
    columns, lines = ["loss English", "loss clone", "cosine, middle", "facts, clone"], []
    for (name, n), rows in numbers.items():
        means, deviations = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
        shown = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in zip(means[:-1], deviations)]
        lines.append([name, n, *shown, means[-1]])
    sides = {key: np.array(rows) for key, rows in numbers.items()}               # (seeds, 5) each
    first = next(iter(sides.values()))
    print(f"\nPreAlign, preset tiny, mean ± sd over {len(first)} seeds; loss in nats per token of validation text")
    table(["optimizer", "steps", *columns, "CPU s"], lines)
    for name, n in list(sides)[1:]:
        other = sides[name, n]
        print(f"{name}, {n} steps, minus the first row, and the 95 % interval over seeds:")
        for column, d in zip(columns, (other - first).T):
            low, high = interval(d)
            print(f"  {column}: {d.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
        ratios = other[:, -1] / first[:, -1]
        print(f"  CPU time, ratio: {np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("contrastive", "step", "data", "switch", "start", "optimizer"))
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    p.add_argument("--rounds", type=int, default=5, help="how often each side is timed [5]")
    p.add_argument("--quick", action="store_true", help="contrastive, step: small sizes, about a minute")
    p.add_argument("--cache", default=str(ROOT / "data" / "cache"), help="folder of generated corpora")
    p.add_argument("--data", default="data/multi30k", help="switch: a prepared folder [data/multi30k]")
    p.add_argument("--steps", type=int, default=2000, help="optimizer: steps of pretraining [2000]")
    p.add_argument("--seeds", type=int, default=5, help="optimizer: runs of each side [5]")
    args = p.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        p.exit(2, "bench.py: --device cuda: this torch sees no CUDA device\n")
    torch.set_num_threads(1)
    torch.backends.cuda.enable_cudnn_sdp(False)                # as Run does
    device = torch.device(args.device)
    timed = "" if args.what == "optimizer" else f"; medians of {args.rounds} interleaved rounds"
    print(f"{args.what} on {machine(device)}{timed}")
    if args.what == "contrastive":
        result = bench_contrastive(device, args.rounds, args.quick)
    elif args.what == "step":
        result = bench_step(device, args.rounds, args.cache, args.quick)
    elif args.what == "switch":
        result = bench_switch(device, args.rounds, args.data)
    elif args.what == "optimizer":
        result = bench_optimizer(device, args.cache, args.steps, args.seeds)
    else:
        sides = dict(data=bench_data, start=bench_start)
        result = sides[args.what](device, args.rounds, args.cache)
    print(json.dumps(dict(bench=args.what, machine=machine(device), rounds=args.rounds) | result))


if __name__ == "__main__":
    main()
