"""A solution of exercise 3."""
import torch
import torch.nn.functional as F


def multilingual_contrast(states, mask, tau):
    last = states[torch.arange(len(states)), mask.sum(dim=1) - 1]                # (2n, D)
    english, other = F.normalize(last, dim=-1).chunk(2)                          # (n, D) each
    scores, translation = english @ other.T / tau, torch.arange(len(english))    # (n, n), (n,)
    return (F.cross_entropy(scores, translation) + F.cross_entropy(scores.T, translation)) / 2
