"""Baselines forecast what they should where they can, and say so where they cannot."""

from __future__ import annotations

import pickle
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit, minimize
from scipy.special import betaln
from scipy.stats import betabinom, linregress

from bayesscale.finding import InputError
from bayesscale.resampling.baselines import COVERAGE_BASELINES, fit_grid
from bayesscale.resampling.baselines import curves as coverage_curves
from bayesscale.resampling.baselines import rates as coverage_rates
from bayesscale.resampling.baselines.fitted import Sample
from bayesscale.resampling.passk import pass_at_k, problem_weights

mpmath = pytest.importorskip("mpmath")
PYTHIA = Path(__file__).parents[1] / "../shared/data/resampling/pythia_checkpoints_gsm8k_math.csv"
CURVES = ("ols", "exp_power", "exp_power_gls", "log_linear", "saturating", "levi")
each_baseline = pytest.mark.parametrize("name", COVERAGE_BASELINES)


def counts(a: float, b: float, problems: int, n: int, seed: int = 0, scale: float = 1.0):
    rng = np.random.default_rng(seed)
    return np.full(problems, n), rng.binomial(n, scale * rng.beta(a, b, problems))


@cache
def fitted(name: str, problems: int = 300, seed: int = 0):
    return COVERAGE_BASELINES[name].fit(*counts(0.4, 4.0, problems, 60, seed), bootstraps=60)


def codes(fit) -> set[str]:
    return {finding.code for finding in fit.findings}


def exact_sample(curve, k) -> Sample:
    """Ten problems that all have exactly this pass@k, so that only the curve is left to be found."""
    each = np.tile(curve, (10, 1))
    counts = np.full(10, 100.0), np.full(10, 5.0)
    return Sample(*counts, np.asarray(k, float), each, problem_weights(10, 5, 0), 0)


def test_the_table_names_its_baselines():
    assert all(name == baseline.name for name, baseline in COVERAGE_BASELINES.items())
    assert all(baseline.equation and baseline.reference for baseline in COVERAGE_BASELINES.values())
    assert set(CURVES) < set(COVERAGE_BASELINES) and len(COVERAGE_BASELINES) == 10


@each_baseline
def test_a_forecast_is_a_probability_that_never_falls(name):
    fit, at = fitted(name), np.unique(np.logspace(0, 12, 40).round())
    value, draws = fit.predict(at), fit.draws(at)
    assert draws.shape == (60, len(at))
    for curve in (value, draws):
        assert (curve >= 0).all() and (curve <= 1).all()
        assert np.diff(curve, axis=-1).min() > -1e-12
    assert (pickle.loads(pickle.dumps(fit)).predict(at) == value).all()
    table = fit.table([10, 61])
    assert list(table["extrapolated"]) == [False, True]
    assert (table["eti90_lower"] < table["eti90_upper"]).all()


@each_baseline
def test_within_the_data_it_agrees_with_the_samples(name):
    fit, (n, c) = fitted(name), counts(0.4, 4.0, 300, 60)
    at = [2, 10, 40]
    # a straight line, a per-problem prior and the plug-in are off by design; none by more than this
    np.testing.assert_allclose(fit.predict(at), pass_at_k(n, c, at).mean(0), atol=0.06)


@each_baseline
def test_same_seed_same_draws(name):
    n, c = counts(0.4, 4.0, 40, 20)
    fits = [COVERAGE_BASELINES[name].fit(n, c, bootstraps=10, seed=seed).draws([5, 100]) for seed in (1, 1, 2)]
    assert (fits[0] == fits[1]).all() and (fits[0] != fits[2]).any()


@pytest.mark.parametrize("name", ["ols", "exp_power", "exp_power_gls", "beta_binomial_mle", "scaled_beta_mle"])
def test_the_bootstrap_spread_is_that_of_fresh_data(name):
    """Standard deviation of the forecast at k = 60 over new problems, against one bootstrap's."""
    forecasts = [
        COVERAGE_BASELINES[name].fit(*counts(0.4, 4.0, 100, 60, seed), bootstraps=2).predict(60)[0]
        for seed in range(30)
    ]
    draws = np.array([fitted(name, 100, seed).draws(60)[:, 0].std() for seed in range(3)])
    assert 0.65 < draws.mean() / np.std(forecasts, ddof=1) < 1.5


def test_at_k_1_the_bootstrap_has_the_standard_error_of_the_mean():
    n, c = counts(0.4, 4.0, 200, 60)
    draws = COVERAGE_BASELINES["plug_in"].fit(n, c, bootstraps=4000).draws(1)
    assert draws.std() == pytest.approx((c / n).std(ddof=1) / np.sqrt(200), rel=0.05)


def test_ols_is_the_textbook_line():
    n, c = counts(0.3, 3.0, 80, 50)
    fit, k = COVERAGE_BASELINES["ols"].fit(n, c, bootstraps=2), fit_grid(n)
    line = linregress(np.log(k), np.log(-np.log(pass_at_k(n, c, k).mean(0))))
    assert fit.parameters["A"] == pytest.approx(np.exp(line.intercept))
    assert fit.parameters["b"] == pytest.approx(-line.slope)
    assert fit.predict(10_000)[0] == pytest.approx(np.exp(-fit.parameters["A"] * 10_000 ** -fit.parameters["b"]))


def test_the_power_curve_is_scipys_with_and_without_covariance():
    n, c = counts(0.3, 3.0, 80, 50)
    k = fit_grid(n)
    each = pass_at_k(n, c, k)

    def curve(k, log_a, b):
        return np.exp(-np.exp(log_a) * k**-b)

    plain = COVERAGE_BASELINES["exp_power"].fit(n, c, bootstraps=2).parameters
    want, _ = curve_fit(curve, k, each.mean(0), p0=(1.0, 0.2), xtol=1e-12, ftol=1e-12)
    np.testing.assert_allclose([np.log(plain["A"]), plain["b"]], want, rtol=1e-4)
    aware = COVERAGE_BASELINES["exp_power_gls"].fit(n, c, bootstraps=2).parameters
    scale = each.std(0)
    size, axes = np.linalg.eigh(np.corrcoef(each.T))
    floored = axes * np.maximum(size, coverage_curves.GLS_FLOOR * size.max()) @ axes.T
    want, _ = curve_fit(curve, k, each.mean(0), p0=(1.0, 0.2), sigma=floored * np.outer(scale, scale))
    np.testing.assert_allclose([np.log(aware["A"]), aware["b"]], want, rtol=1e-3)
    assert aware["b"] != pytest.approx(plain["b"], rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "coordinates"),
    [
        (coverage_curves.EXP_POWER, (1.2, 0.35)),
        (coverage_curves.SATURATING, (1.0, 2.0, np.log(0.4))),
        (coverage_curves.LEVI, (1.5, np.log(8.0), np.log(0.7))),
    ],
    ids=["exp_power", "saturating", "levi"],
)
def test_a_curve_that_holds_exactly_is_recovered(shape, coordinates):
    k = np.unique(np.logspace(0, 4, 41).round())
    curve, truth = shape.curve(np.array(coordinates), k), np.array(coordinates)
    fit = coverage_curves.fit_curve(shape, "exact", exact_sample(curve, k))
    want = [to(u) for to, u in zip(shape.natural, truth, strict=True)]
    np.testing.assert_allclose(list(fit.parameters.values()), want, rtol=1e-4)
    np.testing.assert_allclose(fit.draws([1e6])[0], shape.curve(truth, np.array([1e6])), rtol=1e-4)


def test_the_curves_are_the_published_ones():
    k = np.array([1.0, 30.0, 1e4, 1e9])
    with mpmath.workdps(40):
        g = mpmath.gamma
        levi = [0.8 * (1 - g(mpmath.mpf(5.3)) * g(x + 5) / (g(5) * g(x + mpmath.mpf(5.3)))) for x in (1, 30, 10_000)]
    got = coverage_curves.levi(np.array([np.log(4.0), np.log(5.0), np.log(0.3)]), k)
    np.testing.assert_allclose(got[:3], np.array(levi, float), rtol=1e-12)
    got = coverage_curves.saturating(np.array([np.log(4.0), 0.0, np.log(0.5)]), k)
    np.testing.assert_allclose(got, 0.8 * (1 - 0.5 * k**-0.5), rtol=1e-12)
    got = coverage_rates.beta(np.log([0.3, 7.0]), k)
    np.testing.assert_allclose(got[:3], 1 - np.exp(betaln(0.3, 7 + k[:3]) - betaln(0.3, 7)), rtol=1e-10)


@pytest.mark.parametrize(("a", "b", "s"), [(0.05, 2.0, 0.4), (0.01, 100.0, 1.0), (3.0, 0.01, 0.9), (0.3, 5.0, 0.02)])
def test_the_scaled_curve_is_the_hypergeometric_function(a, b, s):
    k = np.array([1.0, 10.0, 1000.0, 20_000.0])
    got = coverage_rates.scaled_beta(s, np.log([a, b]), k)
    with mpmath.workdps(25):
        want = [mpmath.quad(lambda y, x=x: _beta_success(y, a, b, s, x), _SPLITS) for x in k]
    np.testing.assert_allclose(got, np.array(want, float), rtol=1e-6)


_SPLITS = [-200, -20, -8, -3, 0, 3, 8, 20, 100, 2000]


def _beta_success(y, a, b, s, k):
    """Integrand over y = logit u of 1 - (1 - s u)^k under u ~ Beta(a, b)."""
    u, rest = 1 / (1 + mpmath.exp(-y)), 1 / (1 + mpmath.exp(y))
    return u**a * rest**b / mpmath.beta(a, b) * (1 - ((1 - mpmath.mpf(s)) * u + rest) ** k)


def test_the_beta_binomial_is_maximised():
    rng = np.random.default_rng(3)
    n = rng.integers(30, 500, 200)
    c = rng.binomial(n, rng.beta(0.3, 6.0, 200))
    found = COVERAGE_BASELINES["beta_binomial_mle"].fit(n, c, bootstraps=2).parameters

    def loss(u):
        return -betabinom.logpmf(c, n, *np.exp(u)).sum()

    best = minimize(loss, np.log([1.0, 1.0]), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
    np.testing.assert_allclose([found["a"], found["b"]], np.exp(best.x), rtol=1e-4)


def test_the_likelihoods_and_their_slopes():
    n, c, u = np.array([10.0, 50.0, 200.0]), np.array([0.0, 7.0, 200.0]), np.log([[0.3, 4.0], [2.0, 0.5]])
    value, slope = coverage_rates._beta_binomial(n, c, u)
    np.testing.assert_allclose(value, betabinom.logpmf(c, n, *np.exp(u.T)[..., None]), rtol=1e-9)
    # at s = 1 the scaled Beta is the Beta, up to a factor per pattern
    scaled = coverage_rates._scaled_beta_binomial(n, c, 1.0)
    other, other_slope = scaled(u)
    np.testing.assert_allclose(other[0] - other[1], value[0] - value[1], rtol=1e-6)
    np.testing.assert_allclose(other_slope, slope, rtol=1e-5, atol=1e-7)
    for of in (partial(coverage_rates._beta_binomial, n, c), scaled):
        for i, step in enumerate(1e-5 * np.eye(2)):
            numeric = (of(u + step)[0] - of(u - step)[0]) / 2e-5
            np.testing.assert_allclose(of(u)[1][..., i], numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n", [200, 100_000])
def test_maximum_likelihood_recovers_the_population(n):
    samples = counts(0.3, 6.0, 3000 if n < 1000 else 800, n, seed=4)
    a, b = (COVERAGE_BASELINES["beta_binomial_mle"].fit(*samples, bootstraps=2).parameters[x] for x in "ab")
    assert a == pytest.approx(0.3, rel=0.12) and b == pytest.approx(6.0, rel=0.3)


def test_the_scaled_population_is_recovered():
    samples = counts(0.4, 2.0, 1500, 300, seed=5, scale=0.3)
    fit = COVERAGE_BASELINES["scaled_beta_mle"].fit(*samples, bootstraps=2)
    assert fit.parameters["s"] == max(samples[1] / samples[0])
    truth = coverage_rates.scaled_beta(0.3, np.log([0.4, 2.0]), np.array([1e4]))
    assert fit.parameters["a"] == pytest.approx(0.4, rel=0.12)
    assert fit.predict(10_000) == pytest.approx(truth, abs=0.02)


def test_stopping_at_a_success_leaves_only_the_likelihoods():
    rng = np.random.default_rng(8)
    p = rng.beta(0.5, 5.0, 3000)
    first = rng.geometric(p)
    n, c = np.minimum(first, 200), (first <= 200).astype(int)
    for name, baseline in COVERAGE_BASELINES.items():
        if not baseline.any_stopping:
            with pytest.raises(InputError, match="PASSK-STOPPING"):
                baseline.fit(n, c, stopping="first_success")
            assert name in (*CURVES, "plug_in", "scaled_beta_mle")
    fit = COVERAGE_BASELINES["beta_binomial_mle"].fit(n, c, bootstraps=2, stopping="first_success")
    assert fit.parameters["a"] == pytest.approx(0.5, rel=0.1) and fit.parameters["b"] == pytest.approx(5.0, rel=0.15)
    assert fit.largest_k == 200
    assert fit.predict(100)[0] == pytest.approx((first <= 100).mean(), abs=0.01)


def test_each_problem_by_itself():
    n, c = np.array([10, 20, 30]), np.array([0, 3, 30])
    k = np.array([1.0, 50.0, 5000.0])
    a, b = c[:, None] + 0.5, (n - c)[:, None] + 0.5
    want = (1 - np.exp(betaln(a, b + k) - betaln(a, b))).mean(0)
    fit = COVERAGE_BASELINES["per_problem_jeffreys"].fit(n, c, bootstraps=20_000)
    np.testing.assert_allclose(fit.predict(k), want, rtol=1e-9)
    np.testing.assert_allclose(fit.draws(k).mean(0), want, atol=0.01)
    plain = COVERAGE_BASELINES["plug_in"].fit(n, c).predict(k)
    np.testing.assert_allclose(plain, ((1 - (1 - 3 / 20) ** k) + 1) / 3)


@each_baseline
@pytest.mark.parametrize("value", [0, 1])
def test_nothing_or_everything_solved_is_said_not_fitted(name, value):
    n = np.full(12, 8)
    fit = COVERAGE_BASELINES[name].fit(n, value * n, bootstraps=10)
    if name == "per_problem_jeffreys":
        assert 0 < fit.predict(1)[0] < 1
    else:
        np.testing.assert_allclose(fit.predict([1, 1e6]), value, atol=1e-12)
        np.testing.assert_allclose(fit.draws([1, 1e6]), value, atol=1e-12)
    if name not in ("per_problem_jeffreys", "plug_in"):
        assert "COVERAGE-CONSTANT" in codes(fit)
    assert ("COVERAGE-FEW" in codes(fit)) == (value == 0)


@each_baseline
@pytest.mark.parametrize(
    ("n", "c"),
    [([1, 1, 1, 1], [0, 1, 0, 1]), ([9], [4]), ([4, 4, 4], [0, 4, 4]), ([5, 90, 3], [0, 1, 0]), ([7, 7, 7], [2, 2, 2])],
    ids=["one sample", "one problem", "all or nothing", "one success", "all alike"],
)
def test_scant_data_give_a_forecast_and_a_doubt(name, n, c):
    fit = COVERAGE_BASELINES[name].fit(n, c, bootstraps=10)
    for curve in (fit.predict([1, 100, 1e8]), fit.draws([1, 100, 1e8])):
        assert np.isfinite(curve).all() and (curve >= 0).all() and (curve <= 1).all()
    assert ("COVERAGE-PROBLEMS" in codes(fit)) == (len(n) == 1)
    assert ("COVERAGE-FEW" in codes(fit)) == (sum(c) < 5)


def test_what_makes_a_curve_doubtful_is_said():
    n, c = np.full(50, 20), np.array([1] * 8 + [0] * 42)
    found = {f.code: f for f in COVERAGE_BASELINES["ols"].fit(n, c, bootstraps=2).findings}
    assert "only 16.0%" in found["COVERAGE-HALF"].message
    fit = COVERAGE_BASELINES["ols"].fit(n, c, bootstraps=2).parameters
    first = (fit["A"] * fit["b"]) ** (1 / fit["b"])
    assert f"below k = {first:.3g}," in found["COVERAGE-FEASIBLE"].message
    line = COVERAGE_BASELINES["log_linear"].fit(n, c, bootstraps=2)
    crosses = np.exp((1 - line.parameters["c0"]) / line.parameters["c1"])
    assert "COVERAGE-CROSSES-ONE" in codes(line)
    assert list(line.clipped([crosses * 0.99, crosses * 1.01])) == [False, True]
    many = COVERAGE_BASELINES["ols"].fit([10, 10], [9, 8], bootstraps=2)
    assert "COVERAGE-POINTS" in codes(many) and "of 10 points" in str(many.findings[0])


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("PASSK-RANGE", {"n": [4, 9], "c": [1, 1], "ks": [1, 5]}),
        ("PASSK-COUNTS", {"n": [4, 9], "c": [5, 1]}),
        ("COVERAGE-BOOTSTRAPS", {"n": [4, 9], "c": [1, 1], "bootstraps": 1}),
    ],
)
def test_bad_input_is_refused(code, arguments):
    with pytest.raises(InputError, match=code):
        COVERAGE_BASELINES["ols"].fit(**arguments)
    with pytest.raises(InputError, match="COVERAGE-K"):
        fitted("ols").predict([0])


@pytest.mark.skipif(not PYTHIA.exists(), reason="the shared resampling data are not beside this checkout")
def test_ols_underestimates_real_checkpoints_and_the_likelihood_does_not():
    """100 of each problem's samples, forecast of the share solved within 10,000, on six Pythia checkpoints."""
    table = pd.read_csv(PYTHIA).query("n >= 10_000")
    groups = [g for _, g in table.groupby(["model", "benchmark"]) if len(g) >= 80 and g["n_correct"].mean() > 5]
    rng, bias = (
        np.random.default_rng(7),
        {"ols": [], "beta_binomial_mle": [], "plug_in": [], "per_problem_jeffreys": []},
    )
    for group in [groups[i] for i in np.linspace(0, len(groups) - 1, 6).astype(int)]:
        n, c = group["n"].to_numpy(), group["n_correct"].to_numpy()
        truth = pass_at_k(n, c, 10_000).mean()
        drawn = rng.hypergeometric(c, n - c, 100)
        for name, errors in bias.items():
            fit = COVERAGE_BASELINES[name].fit(np.full(len(n), 100), drawn, bootstraps=2)
            errors.append(fit.predict(10_000)[0] - truth)
    mean = {name: np.mean(errors) for name, errors in bias.items()}
    assert mean["ols"] < -0.1 and mean["plug_in"] < mean["ols"]
    assert abs(mean["beta_binomial_mle"]) < abs(mean["ols"])
    assert mean["per_problem_jeffreys"] > 0.1
