"""Slow and plain versions of the contrastive loss: autograd does the backward pass, every similarity exists.

Independent of model.py on purpose: tests and benchmarks compare the two.  Letters as in model.py.
"""
import torch
import torch.nn.functional as F


def contrastive_loss(states, concept, tau=0.1, anchors=None, same_side=False, both_ways=True):
    """What model.contrastive_loss computes, from K matrices N x N: states (K, N, D), concept (N,) -> ().

    In the dtype of the states, bf16 in float32.  Without any pair it is NaN.
    """
    N, one_set = states.shape[1], anchors is None
    concept, row = concept.to(states.device), torch.arange(N, device=states.device)
    others = row[:, None] != row                                                 # (N, N)
    second = row >= (N if one_set else anchors)                                  # (N,) on the second side?
    across = second[:, None] != second                                           # (N, N) on different sides?
    candidate = others if one_set or same_side else across                       # (N, N)
    positive = (others if one_set else across) & (concept[:, None] == concept)   # (N, N)
    if not both_ways:
        positive = positive & ~second[:, None]
    with torch.autocast(states.device.type, enabled=False):
        z = F.normalize(states.to(torch.promote_types(states.dtype, torch.float32)), dim=-1)     # (K, N, D)
        score = torch.einsum("kid,kjd->kij", z, z) / tau                                         # (K, N, N)
        log_sum = score.masked_fill(~candidate, float("-inf")).logsumexp(dim=-1, keepdim=True)   # (K, N, 1)
        return (log_sum - score)[:, positive].mean()


def broadcast_cosine_loss(source, target, tau=0.1):
    """AFP's similarity taken literally: source, target (N, D), row i translates row i -> ().

    All N x N pairs of vectors stand side by side, N x N x D numbers; each side picks its translation among
    the other side, and the two directions are averaged.
    """
    score = F.cosine_similarity(source[:, None], target[None], dim=-1) / tau     # (N, N)
    translation = torch.arange(len(source), device=source.device)                # (N,)
    return (F.cross_entropy(score, translation) + F.cross_entropy(score.T, translation)) / 2
