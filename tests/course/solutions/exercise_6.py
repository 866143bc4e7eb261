"""A solution of exercise 6."""
import numpy as np


def interval(system, other):
    d = np.asarray(system) - np.asarray(other)                                   # (n,)
    half = {3: 4.303, 5: 2.776}[len(d)] * d.std(ddof=1) / np.sqrt(len(d))
    return d.mean() - half, d.mean() + half
