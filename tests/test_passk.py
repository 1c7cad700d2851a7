"""pass@k from the samples alone: exact against integers, and against brute force where sampling stops at a success."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import betaln
from scipy.stats import CensoredData, ecdf

from bayesscale.attempts import Attempts
from bayesscale.finding import InputError
from bayesscale.resampling.passk import (
    bootstrap_pass_at_k,
    empirical_coverage,
    kaplan_meier,
    log_beta_survival,
    pass_at_k,
    pass_hat_k,
    problem_weights,
)

mpmath = pytest.importorskip("mpmath")
JAILBREAKING = Path(__file__).parents[1] / "../shared/data/resampling/bon_jailbreaking_text_inverse_sampled.csv"
needs_jailbreaking = pytest.mark.skipif(
    not JAILBREAKING.exists(), reason="the shared resampling data are not beside this checkout"
)
COUNTS = [
    (n, c, k)
    for n in (1, 2, 7, 200, 10_000, 1_000_000)
    for c in sorted({0, 1, 3, n // 1000, n // 2, n - 1, n})
    for k in sorted({1, 2, 30, 1000, n // 2, n - 1, n})
    if 0 <= c <= n and 1 <= k <= n and min(c, k) <= 1000
]


def all_fail(n: int, c: int, k: int) -> Fraction:
    """C(n - c, k) / C(n, k) in whole numbers, over the shorter of its two products."""
    c, k = min(c, k), max(c, k)
    return (
        Fraction(math.prod(range(n - c - k + 1, n - k + 1)), math.prod(range(n - c + 1, n + 1)))
        if n >= c + k
        else Fraction(0)
    )


def test_every_digit_agrees_with_whole_numbers():
    for n, c, k in COUNTS:
        want = 1 - all_fail(n, c, k)
        assert abs(Fraction(float(pass_at_k(n, c, k))) - want) <= want * Fraction(2, 10**15), (n, c, k)


def test_all_succeed_is_the_mirror_image():
    for n, c, k in [(5, 3, 2), (200, 199, 100), (10_000, 9_000, 30), (1_000_000, 999_000, 1000), (7, 3, 4)]:
        assert float(pass_hat_k(n, c, k)) == pytest.approx(float(all_fail(n, n - c, k)), rel=1e-12, abs=0)


def test_the_estimator_is_the_share_of_subsets_that_hold_a_success():
    outcomes = [1, 0, 0, 1, 0, 0, 0]
    for k in range(1, 8):
        subsets = list(itertools.combinations(outcomes, k))
        assert float(pass_at_k(7, 2, k)) == pytest.approx(np.mean([max(s) for s in subsets]), rel=1e-14)
        assert float(pass_hat_k(7, 2, k)) == pytest.approx(np.mean([min(s) for s in subsets]), rel=1e-14, abs=0)


def test_every_problem_meets_every_k():
    table = pass_at_k([10, 20, 30], [0, 5, 30], [1, 5])
    assert table.shape == (3, 2)
    np.testing.assert_allclose(table[:, 0], [0, 0.25, 1])
    assert pass_at_k(10, 3, 2).shape == ()


def test_the_beta_survival_keeps_its_digits():
    rng = np.random.default_rng(1)
    with mpmath.workdps(50):
        for _ in range(300):
            a, b, k = (10 ** rng.uniform(low, high) for low, high in ((-4, 5), (-4, 6), (0, 12)))
            want = mpmath.loggamma(mpmath.mpf(a) + b) + mpmath.loggamma(mpmath.mpf(b) + k)
            want -= mpmath.loggamma(b) + mpmath.loggamma(mpmath.mpf(a) + b + k)
            assert abs((float(log_beta_survival(a, b, k)) - want) / want) < 2e-15, (a, b, k)
    assert float(log_beta_survival(0.3, 2.0, 5.0)) == pytest.approx(betaln(0.3, 7.0) - betaln(0.3, 2.0), rel=1e-13)


def refused(code: str, call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert caught.value.finding.code == code
    return str(caught.value)


@pytest.mark.parametrize("estimator", [pass_at_k, pass_hat_k])
def test_what_cannot_be_estimated_is_refused(estimator):
    assert "problem 1" in refused("PASSK-RANGE", estimator, [10, 4], [0, 4], [1, 5])
    assert "kaplan_meier" in refused("PASSK-STOPPING", estimator, 10, 1, 1, stopping="first_success")
    for n, c, k in [(10, 11, 1), (10, -1, 1), (10, 1, 0), (10, 1, 1.5), (10, 1, 2e12), (0, 0, 1), ("10", "1", "1")]:
        refused("PASSK-COUNTS", estimator, n, c, k)
    refused("PASSK-COUNTS", estimator, [10, 10], [1, math.nan], 1)
    refused("PASSK-COUNTS", estimator, [10, 10], [1], 1)


def test_kaplan_meier_agrees_with_scipy():
    rng = np.random.default_rng(2)
    first, limit = rng.geometric(rng.beta(0.4, 5, 300)), rng.integers(20, 60, 300)
    n, solved = np.minimum(first, limit), first <= limit
    at = np.arange(1, n.max())
    found = kaplan_meier(n, solved.astype(int), at)
    curve = ecdf(CensoredData.right_censored(n, ~solved)).sf
    np.testing.assert_allclose(1 - found.value, curve.evaluate(at), rtol=1e-12)
    # scipy reports log-log limits only as steps at its own points
    limits = curve.confidence_interval(0.9, method="log-log")
    inside = (found.value > 0) & (found.value < 1)
    np.testing.assert_allclose(1 - found.low[inside], limits.high.evaluate(at)[inside], rtol=1e-9)
    np.testing.assert_allclose(1 - found.high[inside], limits.low.evaluate(at)[inside], rtol=1e-9)
    assert (found.at_risk == [(n >= k).sum() for k in at]).all()


def test_without_censoring_it_is_the_share_solved():
    n = np.array([1, 3, 3, 8, 20])
    found = kaplan_meier(n, np.ones(5, int), [1, 2, 3, 8, 19, 20, 500])
    np.testing.assert_allclose(found.value, [0.2, 0.2, 0.6, 0.8, 0.8, 1.0, 1.0], atol=1e-15)
    np.testing.assert_allclose(found.se[:3], np.sqrt([0.2 * 0.8 / 5] * 2 + [0.6 * 0.4 / 5]))
    assert found.low[-1] == pytest.approx(0.05 ** (1 / 5)) and found.high[-1] == 1.0


def simulated_batches(rng: np.random.Generator, problems: int, batch: int, cap: int):
    """Attempts of each problem, those of its last batch counted, and the attempt of its first success."""
    outcome = rng.random((problems, cap)) < rng.beta(0.5, 6, problems)[:, None]
    first = np.where(outcome.any(1), outcome.argmax(1) + 1, cap + 1)
    n = np.minimum(np.ceil(first / batch) * batch, cap).astype(int)
    c = np.array([row[:stop].sum() for row, stop in zip(outcome, n, strict=True)])
    return n, c, first


def test_batches_give_back_the_curve_of_single_attempts():
    rng, at = np.random.default_rng(3), [1, 3, 10, 15, 20, 35, 60]
    gaps = []
    for _ in range(40):
        n, c, first = simulated_batches(rng, 100, batch=10, cap=60)
        gaps.append(kaplan_meier(n, c, at, batch=10).value - [(first <= k).mean() for k in at])
    gaps = np.array(gaps)
    assert gaps[:, [2, 4, 6]] == pytest.approx(0, abs=1e-12), "whole batches lose nothing"
    assert (np.abs(gaps.mean(0)) <= 3.5 * gaps.std(0) / np.sqrt(40) + 1e-12).all()
    assert gaps.std(0)[0] > 0


def test_stopping_biases_the_plain_formula_upwards():
    n, c, first = simulated_batches(np.random.default_rng(4), 2000, batch=1, cap=60)
    assert np.mean(c / n) > 1.5 * (first == 1).mean()
    assert kaplan_meier(n, c, 1).value[0] == pytest.approx((first == 1).mean())


def test_a_design_that_contradicts_itself_is_refused():
    assert "whole batches" in refused("PASSK-BATCH", kaplan_meier, [60, 70, 120], [1, 0, 0], 1, batch=60)
    assert "went on" in refused("PASSK-BATCH", kaplan_meier, [5, 9], [2, 0], 1)
    refused("PASSK-BATCH", kaplan_meier, [5, 9], [1, 0], 1, batch=0)
    assert "beyond" in refused("PASSK-RANGE", kaplan_meier, [5, 9], [1, 0], [3, 10])


@needs_jailbreaking
def test_the_jailbreaking_curve_meets_its_published_values():
    """Gemini 1.5 Flash: .006 .031 .113 .371 .654 at k = 1 ... 10,000, from the attempt of each first success.

    Those are 1, 5, 18, 59 and 104 of 159 prompts: whole numbers, from logs of every attempt. The table keeps whole
    batches of 60, so inside a batch only the expectation over the places of its successes can be had. Both agree at
    whole batches, and within the noise of those places elsewhere.
    """
    table = pd.read_csv(JAILBREAKING).query("model == 'Gemini 1.5 Flash'")
    n, c = table["n"].to_numpy(), table["n_success"].to_numpy()
    at, published = np.array([1, 10, 100, 1000, 10_000]), np.array([0.006, 0.031, 0.113, 0.371, 0.654])
    found = kaplan_meier(n, c, at, batch=60)
    assert found.value[-1] == pytest.approx(published[-1], abs=5e-4)
    begun, ended = (np.array([((c > 0) & (n - back < k)).mean() for k in at]) for back in (60, 1 - 1e-9))
    assert ((ended - 5e-4 <= published) & (published <= begun + 5e-4)).all()
    noise = np.sqrt(np.maximum(begun - ended, 0) / 159) / 2  # no place in a batch is worse than a fair coin
    assert (np.abs(found.value - published) <= 2 * noise + 5e-4).all()
    np.testing.assert_allclose(found.value, [0.0025, 0.0219, 0.1273, 0.3669, 0.6541], atol=5e-5)


@needs_jailbreaking
def test_every_jailbreaking_model_ends_at_the_share_it_solved():
    for _, table in pd.read_csv(JAILBREAKING).groupby("model"):
        n, c = table["n"].to_numpy(), table["n_success"].to_numpy()
        found = kaplan_meier(n, c, [60, n.max()], batch=60)
        np.testing.assert_allclose(found.value, [((c > 0) & (n == 60)).mean(), (c > 0).mean()], rtol=1e-12)


def one_model(n: Any, c: Any, stopping: Any, batch: int = 1, accepted: Any = None) -> Attempts:
    rows, more = (
        len(n),
        {} if accepted is None else {"n_accepted": np.array(accepted), "n_correct_accepted": np.array(c)},
    )
    return Attempts(
        key_names=("model",), keys=(("m",),), model=np.zeros(rows, int), problems=tuple(map(str, range(rows))),
        problem=np.arange(rows), n=np.array(n), n_correct=np.array(c), stopping=stopping,
        cap=None if stopping == "fixed" else int(max(n)), batch=batch, **more,
    )  # fmt: skip


def test_the_design_chooses_the_estimator():
    fixed = empirical_coverage(one_model([10, 20], [1, 10], "fixed"), [1, 10])
    assert fixed.method == "unbiased" and fixed.value[0] == pytest.approx(0.3)
    assert fixed.se[0] == pytest.approx(np.std([0.1, 0.5], ddof=1) / np.sqrt(2))
    stopped = empirical_coverage(one_model([60, 120], [3, 0], "batch", 60), [60, 120])
    assert stopped.method == "kaplan-meier" and stopped.value == pytest.approx([0.5, 0.5])
    assert "wrong answers" in refused(
        "PASSK-VERIFIER", empirical_coverage, one_model([3, 9], [0, 0], "first_success", accepted=[1, 0]), [1]
    )
    frame = stopped.table()
    assert {"k", "value", "se", "ci90_lower", "ci90_upper", "at_risk"} <= set(frame)
    assert ((frame["ci90_lower"] < frame["value"]) & (frame["value"] < frame["ci90_upper"])).all()


def test_the_interval_covers_the_population():
    rng, truth, hits = np.random.default_rng(5), 1 - np.exp(betaln(0.5, 4.0 + 10) - betaln(0.5, 4.0)), []
    for _ in range(400):
        c = rng.binomial(50, rng.beta(0.5, 4.0, 80))
        found = empirical_coverage(one_model(np.full(80, 50), c, "fixed"), [10])
        hits.append(found.low[0] <= truth <= found.high[0])
    assert 0.85 < np.mean(hits) < 0.95


@pytest.mark.parametrize("kind", ["bayesian", "ordinary"])
def test_the_bootstrap_has_the_analytic_covariance(kind):
    rng = np.random.default_rng(6)
    n, c = np.full(60, 40), rng.binomial(40, rng.beta(0.5, 3, 60))
    draws = bootstrap_pass_at_k(n, c, [1, 5], draws=20_000, seed=1, kind=kind)
    each = pass_at_k(n, c, [1, 5])
    np.testing.assert_allclose(draws.mean(0), each.mean(0), rtol=0.01)
    want = np.cov(each.T, bias=True) / (61 if kind == "bayesian" else 60)
    np.testing.assert_allclose(np.cov(draws.T), want, rtol=0.05)


def test_bootstrap_weights_sum_to_one_and_an_unknown_kind_is_refused():
    np.testing.assert_allclose(problem_weights(7, 5, 0).sum(1), 1)
    refused("PASSK-BOOTSTRAP", problem_weights, 7, 5, 0, "jackknife")
