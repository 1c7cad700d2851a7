"""Imperfect verifiers: against exact fractions, 200-digit sums, simulation, and published optima."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy.stats import binom

from bayesscale.finding import InputError
from bayesscale.resampling.exponential_sums import sign_pattern
from bayesscale.resampling.verifier import (
    Stakes,
    accept_within,
    accuracy,
    accuracy_given_answer,
    best_samples,
    ceiling,
    ceiling_given_answer,
    dirichlet_accuracy,
    expected_samples,
    false_positive_share,
    false_positive_share_within,
    increment,
    roc_limit,
    two_type,
    utility,
    utility_limit,
)

ACCEPTANCE = [Fraction(1, 2), Fraction(1, 8), Fraction(3, 4), Fraction(0), Fraction(1), Fraction(1, 64)]
SHARE = [Fraction(7, 8), Fraction(1, 4), Fraction(15, 16), Fraction(1, 2), Fraction(3, 4), Fraction(1, 8)]
A, S = np.array(ACCEPTANCE, float), np.array(SHARE, float)
BUDGETS = [0, 1, 2, 3, 5, 8, 20]
STAKES = Stakes(benefit=1.0, false_positive=2.0, sample=0.03125)


def by_enumeration(K, stakes=STAKES):
    """What happens within K samples, attempt by attempt: answers, right answers, utility; in exact fractions."""
    benefit, cost, price = (Fraction(x) for x in (stakes.benefit, stakes.false_positive, stakes.sample))
    answered = right = worth = Fraction(0)
    for a, s in zip(ACCEPTANCE, SHARE, strict=True):
        still_open = Fraction(1)
        for _ in range(K):
            accepted = still_open * a
            worth += accepted * (benefit * s - cost * (1 - s)) - still_open * price
            answered, right, still_open = answered + accepted, right + accepted * s, still_open - accepted
    return answered, right, worth / len(ACCEPTANCE)


@pytest.mark.parametrize("K", BUDGETS)
def test_formulas_equal_the_process_attempt_by_attempt(K):
    answered, right, worth = (float(x) for x in by_enumeration(K))
    np.testing.assert_allclose(accept_within(A, K).sum(), answered, rtol=1e-14)
    np.testing.assert_allclose(accuracy(A, S, K), right / 6, rtol=1e-14)
    np.testing.assert_allclose(utility(A, S, K, STAKES), worth, rtol=1e-13, atol=1e-16)
    if K:
        np.testing.assert_allclose(accuracy_given_answer(A, S, K), right / answered, rtol=1e-14)
        np.testing.assert_allclose(false_positive_share_within(A, S, K), 1 - right / answered, rtol=1e-12)
        before = [float(x) for x in by_enumeration(K - 1)]
        newly, rightly = answered - before[0], right - before[1]
        np.testing.assert_allclose(false_positive_share(A, S, K), 1 - rightly / newly, rtol=1e-11)


def test_increments_are_the_differences_of_the_utility():
    K = np.arange(30)
    np.testing.assert_allclose(increment(A, S, K, STAKES), np.diff(utility(A, S, np.arange(31), STAKES)), atol=1e-15)


def test_accuracy_grows_to_its_ceiling_and_utility_to_its_limit():
    rng = np.random.default_rng(0)
    a, s = rng.beta(0.5, 1, (3, 40)), rng.beta(3, 1, (3, 40))
    K = np.unique(np.geomspace(1, 1e13, 60).round())
    assert (np.diff(accuracy(a, s, K), axis=-1) >= 0).all()
    np.testing.assert_allclose(accuracy(a, s, 10**13), ceiling(a, s), rtol=1e-6)
    np.testing.assert_allclose(accuracy_given_answer(a, s, 10**13), ceiling_given_answer(a, s), rtol=1e-6)
    np.testing.assert_allclose(utility(a, s, 10**13, Stakes()), utility_limit(a, s, Stakes()), rtol=1e-6)
    assert ceiling([0.0, 0.5], [1.0, 0.8]) == 0.4
    assert ceiling_given_answer([0.0, 0.5], [1.0, 0.8]) == 0.8
    assert np.isnan(accuracy_given_answer([0.0], [1.0], 3))
    assert utility_limit([0.0, 0.5], [1.0, 0.8], Stakes(sample=0.1)) == -np.inf


def test_accuracy_given_an_answer_ends_lower_exactly_when_easy_problems_are_answered_better():
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(300):
        a, s, w = rng.uniform(0.01, 1, 5), rng.uniform(0, 1, 5), rng.dirichlet(np.ones(5))
        covariance = np.sum(w * a * s) - np.sum(w * a) * np.sum(w * s)
        falls = ceiling_given_answer(a, s, w) < accuracy_given_answer(a, s, 1, w)
        assert falls == (covariance > 0)
        seen.add(bool(falls))
    assert seen == {True, False}


def test_a_weight_is_a_repetition():
    twice = np.array([0, 0, 1, 2, 2, 2])
    a, s, w = A[[0, 1, 5]], S[[0, 1, 5]], np.array([2.0, 1.0, 3.0])
    K = np.array([1, 4, 9])
    for function in (accuracy, accuracy_given_answer, false_positive_share):
        np.testing.assert_allclose(function(a, s, K, w), function(a[twice], s[twice], K), rtol=1e-14)
    np.testing.assert_allclose(utility(a, s, K, STAKES, w), utility(a[twice], s[twice], K, STAKES), rtol=1e-13)


def test_nothing_is_lost_for_rare_acceptance_or_late_attempts():
    with mpmath.workdps(50):
        exact = mpmath.mpf(-1) * mpmath.expm1(1000 * mpmath.log1p(-mpmath.mpf(1e-18)))
        np.testing.assert_allclose(accept_within(1e-18, 1000), float(exact), rtol=1e-14)
    np.testing.assert_allclose(expected_samples([0.0, 1e-18], 1000), 1000, rtol=1e-12)
    # at attempt 100,000 both survival probabilities are below the smallest double, their ratio is not
    np.testing.assert_allclose(false_positive_share([0.5, 0.6], [0.9, 0.3], 100_000), 0.1, rtol=1e-12)


# The best number of samples -------------------------------------------------------------------------------------------


def exact_optimum(a, s, w, stakes, cap):
    """argmax over 0..cap of the utility, and whether the increment at the cap is positive, in exact fractions."""
    benefit, cost, price = (Fraction(x) for x in (stakes.benefit, stakes.false_positive, stakes.sample))
    terms = [Fraction(v) * (x * (benefit * y - cost * (1 - y)) - price) for x, y, v in zip(a, s, w, strict=True)]
    decay = [1 - x for x in a]
    total, best, at, step = Fraction(0), Fraction(0), 0, Fraction(0)
    for K in range(1, cap + 1):
        step = sum(terms)
        total += step
        if total > best:
            best, at = total, K
        terms = [c * r for c, r in zip(terms, decay, strict=True)]
    return at, best / sum(Fraction(v) for v in w), sum(terms)


def test_best_samples_equals_exact_brute_force_under_a_cap():
    rng = np.random.default_rng(2)
    cap, found = 60, []
    for _ in range(200):
        size = int(rng.integers(1, 6))
        a = [Fraction(int(x), 64) for x in rng.integers(0, 65, size)]
        s = [Fraction(int(x), 16) for x in rng.integers(0, 17, size)]
        w = [int(x) for x in rng.integers(1, 5, size)]
        stakes = Stakes(1.0, float(rng.integers(0, 17)) / 8, float(rng.choice([0, 1 / 128, 1 / 16])))
        at, worth, _ = exact_optimum(a, s, w, stakes, cap)
        best = best_samples(np.array(a, float), np.array(s, float), stakes, w, cap=cap)
        assert best.samples == at
        np.testing.assert_allclose(best.utility, float(worth), rtol=1e-12, atol=1e-15)
        found.append(at)
    assert len(set(found)) > 10 and {0, 1, cap} < set(found)


def test_best_samples_of_many_problems_equals_the_summed_increments():
    rng = np.random.default_rng(6)
    interior = 0
    for _ in range(30):
        z = rng.normal(size=(2, 60))
        a, s = 1 / (1 + np.exp(1 - 2 * z[0])), 1 / (1 + np.exp(-1.5 - 0.7 * z[0] - z[1]))
        stakes = Stakes(1.0, rng.uniform(1, 4), 0.0)
        value = a * (s - stakes.false_positive * (1 - s))
        survival = np.cumprod(np.vstack([np.ones(60), np.tile(1 - a, (2999, 1))]), axis=0)
        summed = np.append(0.0, np.cumsum(survival @ value)) / 60
        best = best_samples(a, s, stakes, cap=3000)
        assert best.samples == np.argmax(summed)
        np.testing.assert_allclose(best.utility, summed.max(), rtol=1e-11, atol=1e-14)
        interior += 0 < best.samples < 3000
    assert interior >= 10


def test_sums_that_change_sign_often_have_every_change_found():
    # the signs of (K - r1)(K - r2)(K - r3) in the variable z = 2^-K, made into a sum of exponentials by expansion
    roots = [Fraction(1, 2**3), Fraction(1, 2**9), Fraction(1, 2**11)]
    shifted = [r * Fraction(3, 2) for r in roots]  # half way between whole K, on the log axis
    poly = [Fraction(1)]
    for r in shifted:
        poly = [b - r * a for a, b in zip([*poly, Fraction(0)], [Fraction(0), *poly], strict=True)]
    c, h = np.array([[float(x) for x in poly]]), np.log(2.0) * np.arange(4)[None, :]
    _, start, sign = sign_pattern(c, h)
    got = [int(sign[np.flatnonzero(start <= K)[-1]]) for K in range(40)]
    want = [int(np.sign(math.prod(Fraction(1, 2**K) - r for r in shifted))) for K in range(40)]
    assert got == want
    assert want.count(0) == 0 and np.count_nonzero(np.diff(want)) == 3


def test_a_double_root_between_whole_numbers_is_no_change():
    z = 2.0**-6.5
    c, h = np.array([[z * z, -2 * z, 1.0]]), np.log(2.0) * np.arange(3)[None, :]
    assert (sign_pattern(c, h)[2] == 1).all()


def test_the_optimum_may_lie_far_out():
    """One rare kind that pays and a rarer one that costs: K* near 1e9, against 60-digit arithmetic."""
    a, s, stakes = [2e-9, 1e-9], [0.9, 0.2], Stakes()
    with mpmath.workdps(60):
        v = [mpmath.mpf(x) * (2 * mpmath.mpf(y) - 1) for x, y in zip(a, s, strict=True)]
        decay = [mpmath.log1p(-mpmath.mpf(x)) for x in a]
        exact = mpmath.ceil(mpmath.log(v[0] / -v[1]) / (decay[1] - decay[0]))
    best = float(best_samples(a, s, stakes).samples)
    assert 1e8 < best < 1e10
    assert best == float(exact)


def test_a_plateau_of_rounding_is_not_an_optimum():
    """beta2 = 0.648: the summed utility stops changing in floating point near K = 83, yet every increment is positive."""
    r = np.array([0.9, 0.19])
    a = r + 0.2 * (1 - r)
    np.testing.assert_allclose(1 - a[1], 0.648)
    stakes, w = Stakes(1.0, 1.0), [0.5, 0.5]
    computed = utility(a, r / a, np.arange(400), stakes, w)
    plateau = int(np.argmax(computed))
    assert 60 < plateau < 100 and computed[plateau] == computed[-1]
    assert best_samples(a, r / a, stakes, w).samples == np.inf
    assert two_type(0.5, 0.9, 0.19, 0.8, 1.0, 1.0) == np.inf


@pytest.mark.parametrize(
    ("a", "s", "stakes", "want"),
    [
        ([0.5], [0.4], Stakes(), 0),  # never worth it
        ([0.5], [0.6], Stakes(), np.inf),  # always
        ([0.5], [0.5], Stakes(), 0),  # worth nothing
        ([1.0], [0.6], Stakes(), 1),  # decided by the first sample
        ([0.0], [0.6], Stakes(), 0),  # no sample is ever accepted, for nothing
        ([0.0, 0.5], [0.6, 0.9], Stakes(), np.inf),
        ([0.0, 0.5], [0.6, 0.9], Stakes(sample=1e-6), 19),  # 0.4 / 2^K on the other half falls to 1e-6
        ([0.3, 0.3], [0.7, 0.3], Stakes(), 0),  # equal and opposite
        ([0.3, 0.3, 0.9], [0.7, 0.3, 1.0], Stakes(), np.inf),  # the slowest cancel, the rest decides
    ],
)
def test_edges_of_the_best_number(a, s, stakes, want):
    assert best_samples(a, s, stakes).samples == want


def test_best_samples_keeps_leading_axes():
    rng = np.random.default_rng(3)
    a, s = rng.uniform(0, 1, (2, 3, 7)), rng.uniform(0, 1, (2, 3, 7))
    best = best_samples(a, s, Stakes(1, 1.5, 0.001))
    assert best.samples.shape == best.utility.shape == (2, 3)
    one = best_samples(a[1, 2], s[1, 2], Stakes(1, 1.5, 0.001))
    assert (best.samples[1, 2], best.utility[1, 2]) == (one.samples, one.utility)


# Two kinds of problem -------------------------------------------------------------------------------------------------


def test_published_two_type_optima():
    """Llama 3.1 8B as in the authors' model: prior .58 of easy, .87 and .13 right, soundness .75 (arXiv:2411.17501)."""
    costs = [0.7, 0.8, 0.9, 1, 2, 4]
    assert [two_type(0.58, 0.87, 0.13, 0.75, 1.0, cost) for cost in costs] == [3, 2, 2, 2, 1, 1]
    r = np.array([0.87, 0.13])
    a = r + 0.25 * (1 - r)
    assert [best_samples(a, r / a, Stakes(1, cost), [0.58, 0.42]).samples for cost in costs] == [3, 2, 2, 2, 1, 1]


def two_type_brute(w1, r1, r2, soundness, cost):
    r = [r1, r2]
    a = [x + (1 - soundness) * (1 - x) for x in r]
    s = [x / y if y else Fraction(0) for x, y in zip(r, a, strict=True)]
    at, _, last = exact_optimum(a, s, [w1, 1 - w1], Stakes(1.0, float(cost)), 80)
    return at, last


def test_two_type_equals_exact_brute_force():
    rng, seen = np.random.default_rng(4), set()
    for _ in range(150):
        w1, soundness = (Fraction(int(x), 8) for x in rng.integers(0, 9, 2))
        r2, r1 = (Fraction(int(x), 16) for x in np.sort(rng.integers(0, 17, 2)))
        cost = Fraction(int(rng.integers(0, 25)), 8)
        at, last = two_type_brute(w1, r1, r2, soundness, cost)
        found = two_type(float(w1), float(r1), float(r2), float(soundness), 1.0, float(cost))
        seen.add("inf" if math.isinf(found) else min(found, 2))
        if math.isinf(found):
            assert at == 80 and last > 0
        else:
            assert found == at and last <= 0
    assert seen == {0, 1, 2, "inf"}


# Other closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [1, 10, 1000])
def test_dirichlet_accuracy_equals_simulation(K):
    alpha = (0.6, 0.2, 1.5)
    draws = np.random.default_rng(5).dirichlet(alpha, 200_000)
    per_problem = draws[:, 0] / draws[:, :2].sum(1) * -np.expm1(K * np.log1p(-draws[:, :2].sum(1).clip(max=1 - 1e-16)))
    error = per_problem.std() / np.sqrt(len(per_problem))
    assert abs(dirichlet_accuracy(*alpha, K) - per_problem.mean()) < 4 * error


def test_dirichlet_accuracy_keeps_its_digits():
    with mpmath.workdps(60):
        c, f, r, K = (mpmath.mpf(x) for x in ("0.05", "0.02", "40", "1000000"))
        exact = c / (c + f) * (1 - mpmath.beta(c + f, r + K) / mpmath.beta(c + f, r))
    np.testing.assert_allclose(dirichlet_accuracy(0.05, 0.02, 40, 10**6), float(exact), rtol=1e-8)


def test_roc_limit_is_that_of_strict_rejection_and_of_best_of_many():
    """Scores uniform for wrong answers and of density 2 - x' for right ones: T(x) = 2x - x^2/2 has slope 2 at 0."""
    p, x = 0.3, 1e-9
    strict = p * (2 * x - x * x / 2) / (p * (2 * x - x * x / 2) + (1 - p) * x)
    np.testing.assert_allclose(roc_limit(p, 2.0), strict, rtol=1e-8)
    # best of 2,000: the winner's rank x among wrong answers has density n f(x) (1 - F(x))^(n-1)
    grid = (np.arange(2_000_000) + 0.5) / 2_000_000
    accepted = p * (2 * grid - grid**2 / 2) / 1.5 + (1 - p) * grid  # right answers' density normalised to one
    density = p * (2 - grid) / 1.5 + (1 - p)
    winner = 2000 * density * (1 - accepted) ** 1999
    right = np.mean(winner * p * (2 - grid) / 1.5 / density)
    np.testing.assert_allclose(roc_limit(p, 2 / 1.5), right, rtol=1e-3)
    np.testing.assert_array_equal(roc_limit([0.0, 0.4, 0.4, 1.0], [1.0, 0.0, np.inf, 1.0]), [0.0, 0.0, 1.0, 1.0])
    assert np.isnan(roc_limit([0.0, 1.0], [np.inf, 0.0])).all()


def test_accept_within_is_the_probability_of_at_least_one():
    np.testing.assert_allclose(
        accept_within([0.1, 0.7], [1, 5, 30]), binom.sf(0, [[1, 5, 30]], [[0.1], [0.7]]), rtol=1e-13
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Stakes(benefit=-1.0),
        lambda: Stakes(sample=math.nan),
        lambda: accuracy([0.5, 1.2], [0.5, 0.5], 3),
        lambda: accuracy([0.5, math.nan], [0.5, 0.5], 3),
        lambda: accuracy([0.5], [-0.1], 3),
        lambda: accuracy([0.5], [0.5], 2.5),
        lambda: accuracy([0.5], [0.5], -1),
        lambda: accuracy([0.5], [0.5], []),
        lambda: accuracy(0.5, 0.5, 1),
        lambda: accuracy([0.5, 0.5], [0.5, 0.5], 3, [1.0]),
        lambda: accuracy([0.5, 0.5], [0.5, 0.5], 3, [0.0, 0.0]),
        lambda: accuracy_given_answer([0.5], [0.5], 0),
        lambda: false_positive_share([0.5], [0.5], 0),
        lambda: best_samples([0.5], [0.5], Stakes(), cap=1.5),
        lambda: two_type(0.5, 0.2, 0.6, 0.7, 1, 1),
        lambda: two_type(1.5, 0.6, 0.2, 0.7, 1, 1),
        lambda: dirichlet_accuracy(0.0, 1.0, 1.0, 5),
        lambda: roc_limit(0.5, -1.0),
    ],
)
def test_bad_input_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
