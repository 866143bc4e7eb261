"""Statistics of paired differences, one per seed, and the rule for verdicts of data/results/plan.md."""
import math

import numpy as np

# Points and weights of Gauss-Legendre integration on [-1, 1].
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(64)
LEVEL = 0.05                                                   # of every test
ONE_ITEM = 0.02                                                # of 50, see standard_error
OPPOSITE = {"higher": "lower", "lower": "higher"}


def tail(t, df):
    """P(T > t) for Student's t distribution with df degrees of freedom.

    The substitution t = sqrt(df) tan(angle) turns the density into c cos(angle)^(df - 1), which is smooth on
    a finite interval: the integral from the angle of t to pi / 2.
    """
    c = math.gamma((df + 1) / 2) / (math.gamma(df / 2) * math.sqrt(math.pi))
    start = math.atan(t / math.sqrt(df))
    half = (math.pi / 2 - start) / 2
    angles = start + half * (POINTS + 1)
    return float(c * half * np.sum(WEIGHTS * np.cos(angles) ** (df - 1)))


def quantile(p, df):
    """The t with P(T > t) = p, by bisection on its angle."""
    low, high = -math.pi / 2, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if tail(math.sqrt(df) * math.tan(middle), df) > p:
            low = middle
        else:
            high = middle
    return math.sqrt(df) * math.tan(low)


def standard_error(d):
    """Standard error of the mean of d, (seeds,).

    A share is a multiple of 1 / n, so it may be the same in every seed by chance.  Equal numbers count as if
    their standard deviation was one item of 50 (data/results/plan.md).
    """
    deviation = float(np.std(d, ddof=1))
    return (deviation if deviation > 1e-9 else ONE_ITEM) / math.sqrt(len(d))


def p_greater(d, bound):
    """p of the one-sided t-test that the mean of the differences d, (seeds,), is above a bound."""
    return tail((float(np.mean(d)) - bound) / standard_error(d), len(d) - 1)


def interval(d):
    """95 % t-interval of the mean of d, (seeds,): -> (low, high)."""
    half = quantile(0.025, len(d) - 1) * standard_error(d)
    return float(np.mean(d)) - half, float(np.mean(d)) + half


def holm(p_values):
    """Holm's correction: the smallest of n p-values times n, the next times n - 1, ..., never decreasing."""
    order, n = np.argsort(p_values), len(p_values)
    adjusted = np.ones(n)
    adjusted[order] = np.maximum.accumulate(np.arange(n, 0, -1) * np.array(p_values)[order])
    return np.minimum(adjusted, 1.0).tolist()


def p_value(d, direction, margin):
    """p of the test that decides a claim; d: differences, (seeds,).

    A direction needs a one-sided t-test against zero.  "Not higher", "not lower" and "no difference" need a
    test for equivalence: is the mean below the margin, above its negative, or both?
    """
    not_higher, not_lower = p_greater(-d, -margin), p_greater(d, -margin)
    return {"higher": p_greater(d, 0), "lower": p_greater(-d, 0), "not higher": not_higher,
            "not lower": not_lower, "no difference": max(not_higher, not_lower)}[direction]


def judge(claims, differences, limits):
    """The verdicts on the claims of a study, by the rule in data/results/plan.md.

    differences: of each claim, system minus the other, (seeds,); seeds are paired
    limits: of each claim, "chance" or "ceiling" if all its systems are there, else ""
    -> of each claim, (p, verdict): p after Holm's correction if it applies, nan if there is no test
    """
    tested = [len(d) > 1 and np.isfinite(d).all() and not claim.exploratory
              for claim, d in zip(claims, differences)]
    directed = [i for i, claim in enumerate(claims) if tested[i] and claim.direction in OPPOSITE]
    claimed = [p_value(differences[i], claims[i].direction, 0) for i in directed]
    opposite = [p_value(differences[i], OPPOSITE[claims[i].direction], 0) for i in directed]
    p_claimed, p_opposite = dict(zip(directed, holm(claimed))), dict(zip(directed, holm(opposite)))

    verdicts = []
    for i, (claim, d) in enumerate(zip(claims, differences)):
        p, verdict = np.nan, "not shown"
        if i in p_claimed:
            p = p_claimed[i]
            effect = d.mean() if claim.direction == "higher" else -d.mean()
            if p < LEVEL and effect >= claim.margin - 1e-9:           # as floats, 0.35 - 0.30 < 0.05
                verdict = "reproduced"
            elif p_opposite[i] < LEVEL:
                p, verdict = p_opposite[i], "opposite"
        elif tested[i]:
            p = p_value(d, claim.direction, claim.margin)
            verdict = "reproduced" if p < LEVEL else "not shown"
        elif not np.isfinite(d).all():
            verdict = "not measured"
        elif claim.exploratory:
            verdict = "exploratory"
        if verdict == "not shown" and tested[i] and limits[i]:
            verdict = f"not testable: {limits[i]}"
        verdicts.append((p, verdict))
    return verdicts
