"""Student's t distribution against printed tables, Holm's correction, and the rule for verdicts."""
import math

import numpy as np
import pytest

from data.lab.statistics import holm, interval, judge, p_greater, p_value, quantile, tail
from data.lab.studies import CLAIMS


# --- Student's t --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("df, p, t", [                         # a printed table of upper quantiles
    (1, 0.05, 6.314), (1, 0.025, 12.706), (2, 0.05, 2.920), (2, 0.025, 4.303), (2, 0.005, 9.925),
    (4, 0.05, 2.132), (4, 0.025, 2.776), (4, 0.005, 4.604), (9, 0.025, 2.262), (30, 0.025, 2.042),
    (100, 0.05, 1.660)])
def test_quantiles_are_those_of_the_table(df, p, t):
    assert quantile(p, df) == pytest.approx(t, abs=6e-4)
    assert tail(t, df) == pytest.approx(p, rel=1e-3)


def test_the_tail_is_the_closed_form_where_there_is_one():
    for t in (-30.0, -1.0, 0.0, 0.5, 3.0, 200.0):
        assert tail(t, 1) == pytest.approx(0.5 - math.atan(t) / math.pi, abs=1e-14)
        assert tail(t, 2) == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)), abs=1e-14)
    assert tail(math.inf, 4) == pytest.approx(0, abs=1e-14)
    assert tail(-math.inf, 4) == pytest.approx(1, abs=1e-14)


def test_a_paired_test_and_its_interval_on_an_example_worked_by_hand():
    d = np.array([1.0, 2.0, 3.0])                              # mean 2, standard error 1 / sqrt(3), t = 2 sqrt(3)
    t = 2 * math.sqrt(3)
    assert p_greater(d, 0) == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)))         # 0.0371
    assert p_greater(d, 2) == pytest.approx(0.5) and p_greater(-d, 0) == pytest.approx(1 - p_greater(d, 0))
    assert interval(d) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


def test_the_same_difference_in_every_seed_counts_as_if_it_varied_by_an_item_of_50():
    d, error = np.full(3, 0.1), 0.02 / math.sqrt(3)
    t = 0.1 / error
    assert p_greater(d, 0) == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)))
    assert p_greater(d, 0.1) == pytest.approx(0.5) and p_greater(d, 0.2) > 0.99
    assert interval(d) == pytest.approx((0.1 - 4.3027 * error, 0.1 + 4.3027 * error), abs=1e-4)
    assert judge([claim("higher", 0)], [np.full(2, 0.06)], [""])[0][1] == "not shown"


def test_a_mean_that_equals_the_margin_but_for_rounding_is_enough():
    d = np.array([0.24, 0.24, 0.39, 0.39, 0.30]) - np.array([0.18, 0.17, 0.34, 0.35, 0.27])
    assert d.mean() < 0.05 and judge([claim("higher", 0.05)], [d], [""])[0][1] == "reproduced"


def test_holm_on_an_example():
    # 4 * .005, 3 * .01, 2 * .03, and .04 is raised to the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []


def test_equivalence_is_two_one_sided_tests():
    d = np.array([-0.01, 0.0, 0.01])                           # mean 0, standard error 0.01 / sqrt(3)
    t = 0.05 * math.sqrt(3) / 0.01
    expected = 0.5 - t / (2 * math.sqrt(2 + t * t))            # 0.0065
    for direction in ("not higher", "not lower", "no difference"):
        assert p_value(d, direction, 0.05) == pytest.approx(expected)
    assert p_value(d + 0.04, "no difference", 0.05) == p_value(d + 0.04, "not higher", 0.05) > 0.05
    assert p_value(d + 0.04, "not lower", 0.05) < 0.05


# --- verdicts -----------------------------------------------------------------------------------------------

def claim(direction="higher", margin=0.05, exploratory=""):
    return CLAIMS[0]._replace(direction=direction, margin=margin, exploratory=exploratory)


@pytest.mark.parametrize("differences, direction, margin, verdict", [
    ([0.10, 0.11, 0.12], "higher", 0.05, "reproduced"),
    ([-0.10, -0.11, -0.12], "lower", 0.05, "reproduced"),
    ([0.125, 0.125], "higher", 0.125, "reproduced"),           # the margin itself is enough
    ([0.03, 0.031, 0.032], "higher", 0.05, "not shown"),       # certain, but less than the margin
    ([0.1, 0.2, 0.6], "higher", 0.05, "not shown"),            # every seed, but p = 0.09
    ([-0.10, -0.11, -0.12], "higher", 0.05, "opposite"),
    ([0.10, 0.11, 0.12], "lower", 0.05, "opposite"),
    ([-0.01, -0.011, -0.012], "higher", 0.05, "opposite"),     # no margin is asked of the opposite
    ([0.0, 0.0, 0.0], "higher", 0.0, "not shown"),
    ([-0.1, 0.1, 0.0], "higher", 0.05, "not shown"),
    ([0.01, 0.011, 0.012], "not higher", 0.05, "reproduced"),
    ([-0.5, -0.51, -0.52], "not higher", 0.05, "reproduced"),  # lower is not higher
    ([0.01, 0.02, 0.06], "not higher", 0.05, "not shown"),     # the mean is below the margin, the interval not
    ([0.5, 0.51, 0.52], "not higher", 0.05, "not shown"),      # a test for equivalence has no opposite
    ([-0.01, -0.011, -0.012], "not lower", 0.05, "reproduced"),
    ([-0.5, -0.51, -0.52], "not lower", 0.05, "not shown"),
    ([0.01, 0.0, -0.01], "no difference", 0.05, "reproduced"),
    ([0.1, 0.11, 0.12], "no difference", 0.05, "not shown"),
    ([0.2], "higher", 0.05, "not shown"),                      # one seed
    ([0.0], "not higher", 0.05, "not shown"),
    ([0.1, math.nan], "higher", 0.05, "not measured"),
    ([-2.3, -math.inf, -1.6], "lower", 0.05, "not measured"),
    ([math.nan], "not higher", 0.05, "not measured"),
])
def test_the_verdict_on_a_single_claim(differences, direction, margin, verdict):
    (_, found), = judge([claim(direction, margin)], [np.array(differences)], [""])
    assert found == verdict


def test_claims_that_cannot_be_judged_have_words_of_their_own():
    sure, unknown, noise = np.array([0.10, 0.11, 0.12]), np.array([0.1, math.nan, 0.1]), np.array([0.1, -0.1, 0.1])
    found = judge([claim(), claim("not higher"), claim(exploratory="exploratory"), claim(exploratory="exploratory"),
                   claim()], [noise, noise, sure, unknown, sure], ["chance", "ceiling", "", "", "chance"])
    assert [verdict for _, verdict in found] == ["not testable: chance", "not testable: ceiling", "exploratory",
                                                 "not measured", "reproduced"]
    assert [math.isnan(p) for p, _ in found] == [False, False, True, True, False]


def test_the_p_value_is_that_of_the_verdict():
    (p, verdict), = judge([claim()], [np.array([-0.10, -0.11, -0.12])], [""])
    assert verdict == "opposite" and p == pytest.approx(p_greater(np.array([0.10, 0.11, 0.12]), 0))


def test_a_claim_among_many_needs_a_smaller_p():
    clear, noise = np.array([0.10, 0.12, 0.14]), np.array([-0.1, 0.1, 0.0])         # p = 0.0046 and 0.5
    def verdict_among(n, other):
        return judge([claim()] + [other] * n, [clear] + [noise] * n, [""] * (n + 1))[0]
    assert verdict_among(0, claim())[0] == pytest.approx(p_greater(clear, 0))
    assert verdict_among(20, claim()) == (pytest.approx(21 * p_greater(clear, 0)), "not shown")
    # neither equivalence nor exploratory claims count
    assert verdict_among(20, claim("not higher"))[1] == "reproduced"
    assert verdict_among(20, claim(exploratory="exploratory"))[1] == "reproduced"


def test_noise_is_seldom_called_an_effect():
    rng, studies = np.random.default_rng(0), 1000
    directions = [claim("higher", 0), claim("lower", 0)] * 5
    wrong = dict(reproduced=0, opposite=0)
    for _ in range(studies):
        found = {verdict for _, verdict in judge(directions, rng.normal(size=(10, 3)), [""] * 10)}
        for verdict in wrong:
            wrong[verdict] += verdict in found
    # any of ten claims: at most 5 % of the studies, and three standard errors of 1,000 draws
    assert all(0.02 * studies < count < 0.071 * studies for count in wrong.values()), wrong
