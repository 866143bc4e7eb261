"""Measures of vectors from any model: retrieval, alignment, uniformity, recall, a linear classifier."""
import numpy as np
import torch
import torch.nn.functional as F


@torch.autocast("cpu", enabled=False)
def cosines(source, target):
    """The cosine of each source row with each target row, in float32: (N, D), (M, D) -> (N, M)."""
    # the states of a checkpoint are so alike that cosines in bfloat16 would be tied
    return F.normalize(source.float(), dim=-1) @ F.normalize(target.float(), dim=-1).T


def retrieval(source, target):
    """Share of source rows whose nearest target row is their pair: (N, D), (N, D) -> P@1 in [0, 1]."""
    cosine = cosines(source, target)                                             # (N, N)
    # one of k rows that are equally near counts 1 / k, as in the model-free baselines
    first = cosine == cosine.amax(dim=1, keepdim=True)
    return (first.diagonal() / first.sum(dim=1)).mean().item()


def alignment(source, target):
    """Mean squared distance of pairs on the unit sphere, (N, D) each, 0 to 4 [Wang & Isola 2020]."""
    return (F.normalize(source, dim=-1) - F.normalize(target, dim=-1)).pow(2).sum(dim=-1).mean().item()


def uniformity(states):
    """log mean exp(-2 |x - y|²) over pairs of unit rows (N, D); lower is more spread [Wang & Isola 2020]."""
    return torch.pdist(F.normalize(states, dim=-1)).pow(2).mul(-2).exp().mean().log().item()


def self_similarity(states, types):
    """Mean cosine of states of one word type in several contexts; low is contextual [Ethayarajh 2019].

    states (N, D) of N occurrences, types (N,) ids.  Each type that occurs twice or more has the same weight.
    """
    z, means = F.normalize(states, dim=-1), []
    for kind in torch.unique(types):
        group = z[types == kind]                                                 # (n, D)
        n = len(group)
        if n > 1:                              # |sum|² = n + the sum over ordered pairs of different rows
            means.append((group.sum(dim=0).pow(2).sum() - n) / (n * (n - 1)))
    return torch.stack(means).mean().item()


def centred(states):
    """States minus their mean, which removes what all sentences of a language share: (N, D) -> (N, D)."""
    return states - states.mean(dim=0)


def recall(predicted, answers):
    """Macro recall: the mean over classes of the share of their items that are right."""
    return float(np.mean([(predicted[answers == c] == c).mean() for c in np.unique(answers)]))


def logistic_regression(features, answers):
    """Fit a linear classifier with a little weight decay to convergence: no seed, no learning rate.

    features (N, D), answers (N,) -> function (n, D) -> predicted classes (n,)
    """
    scale = features.std().clamp(min=1e-6)
    weight = torch.zeros(features.shape[1] + 1, int(answers.max()) + 1, requires_grad=True)  # (D + 1, C)

    @torch.autocast("cpu", enabled=False)
    def logits(features):
        return features / scale @ weight[:-1] + weight[-1]                       # (n, C)

    def closure():
        solver.zero_grad()
        loss = F.cross_entropy(logits(features), answers) + 1e-3 * weight[:-1].pow(2).sum()
        loss.backward()
        return loss

    solver = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")
    solver.step(closure)
    return lambda features: logits(features).argmax(dim=1)
