"""Leave-one-out: the smoothed estimate against what can be known exactly, and refits where it fails."""

import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp

import bayesscale.leave_one_out
from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.fitting import fit_many
from bayesscale.inference.settings import Sampler
from bayesscale.laws import LAWS
from bayesscale.leave_one_out import exact_scores, good_k, importance_elpd, loo
from bayesscale.likelihood import QUASI_BINOMIAL
from bayesscale.model import compose
from bayesscale.result import Fit
from bayesscale.units import units_of

SHOTS = np.array([0.0, 1, 4, 16, 64, 256])


def curves_of(count=1, runs=3):
    rng = np.random.default_rng(2)
    n, run = np.tile(SHOTS, runs * count), np.tile(np.repeat(np.arange(runs), len(SHOTS)), count)
    p = 0.25 + 0.5 * n / (n + 8)
    columns = {"successes": rng.binomial(100, p), "trials": np.full(n.size, 100)}
    keys = tuple((f"c{i}",) for i in range(count))
    curve = np.repeat(np.arange(count), runs * len(SHOTS))
    return Curves("counts", ("curve",), keys, curve, run, n, columns, np.full(count, np.nan))


def made_fit(log_likelihood):
    """A fit of which leave-one-out sees the log densities (draw, row) only."""
    unit = units_of(curves_of(), QUASI_BINOMIAL)
    padded = np.zeros((2, len(log_likelihood) // 2, unit.rows))
    padded[..., : len(SHOTS)] = log_likelihood.reshape(2, -1, len(SHOTS))
    return Fit(compose(LAWS["hill"], QUASI_BINOMIAL), unit, {}, {}, {}, {}, padded)


@pytest.mark.parametrize(("draws", "want"), [(100, 0.5), (1000, 2 / 3), (4000, 0.7), (10**6, 0.7)])
def test_good_k(draws, want):
    assert good_k(draws) == pytest.approx(want, abs=0.03 if draws == 4000 else 1e-12)


def test_smoothed_estimate_is_the_exact_one_of_a_normal_mean():
    """y_i ~ Normal(mu, 1) under a flat prior: y_i given the others is Normal(their mean, 1 + 1/(n-1))."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=12)
    mu = rng.normal(y.mean(), 1 / np.sqrt(12), size=8000)
    pointwise, k_hat = importance_elpd(scipy.stats.norm.logpdf(y, mu[:, None], 1.0))
    others = (y.sum() - y) / 11
    np.testing.assert_allclose(pointwise, scipy.stats.norm.logpdf(y, others, np.sqrt(12 / 11)), atol=0.02)
    assert (k_hat < good_k(8000)).all()


@pytest.fixture
def heavy():
    """Log densities of six rows; the third depends so much on the draw that importance sampling fails."""
    rng = np.random.default_rng(1)
    rows = -1.0 + 0.1 * rng.normal(size=(400, len(SHOTS)))
    rows[:, 2] = -np.exp(1.2 * rng.normal(size=400))
    return rows


@pytest.mark.parametrize("refit", [True, False])
def test_rows_with_a_bad_shape_are_refitted(heavy, refit, monkeypatch):
    asked = []

    def stub(fits, bad, sampler, progress):
        asked.extend(bad)
        return [-7.5] * len(bad)

    monkeypatch.setattr(bayesscale.leave_one_out, "exact_scores", stub)
    (plain,) = loo([made_fit(heavy)], refit=False)
    (found,) = loo([made_fit(heavy)], refit=refit)
    assert found.k_hat[2] > good_k(400) and (np.delete(found.k_hat, 2) < good_k(400)).all()
    assert asked == ([(0, 2, 2)] if refit else [])
    want = np.where(np.arange(6) == 2, -7.5, plain.pointwise) if refit else plain.pointwise
    np.testing.assert_array_equal(found.pointwise, want)
    np.testing.assert_array_equal(found.refitted, (np.arange(6) == 2) & refit)
    assert found.elpd == pytest.approx(want.sum()) and found.se == pytest.approx(np.sqrt(6) * want.std())


def test_a_refit_that_failed_changes_nothing(heavy, monkeypatch):
    monkeypatch.setattr(bayesscale.leave_one_out, "exact_scores", lambda fits, bad, *_: [np.nan] * len(bad))
    (plain,), (found,) = loo([made_fit(heavy)], refit=False), loo([made_fit(heavy)])
    np.testing.assert_array_equal(found.pointwise, plain.pointwise)
    assert not found.refitted.any()


@pytest.mark.slow
def test_smoothed_estimate_is_the_refitted_one():
    """Every row of two curves left out in earnest; rows share a discrepancy."""
    sampler = Sampler(chains=4, draws=800, warmup=(100, 200), lanes=64, keep=800)
    fits = fit_many(curves_of(2), "hill", sampler=sampler)
    assert not any(fit.status == "fail" for fit in fits)
    bad = [(place, row, row) for place in range(2) for row in range(len(SHOTS))]
    exact = np.reshape(exact_scores(fits, bad, sampler, lambda done, total: None), (2, -1))
    assert np.isfinite(exact).all()
    for fit, want, found in zip(fits, exact, loo(fits, refit=False), strict=True):
        good = found.k_hat < good_k(3200)
        assert good.sum() >= 4
        # Monte Carlo error of a log mean of weights, from their effective number; the refit's own is about as large.
        rows = fit.log_likelihood.reshape(-1, fit.unit.rows)[:, : len(SHOTS)]
        weights = np.exp(-rows - logsumexp(-rows, axis=0))
        density = np.exp(rows)
        mean = (weights * density).sum(axis=0)
        ess = fit.diagnostics["n50"]["ess_bulk"] / 3200
        error = np.sqrt((weights**2 * (density - mean) ** 2).sum(axis=0) / ess) / mean
        assert (np.abs(found.pointwise - want)[good] < 4 * np.sqrt(2) * error[good] + 0.01).all()
        refitted = loo([fit], refit=True, sampler=sampler)[0]
        np.testing.assert_array_equal(refitted.refitted, ~(found.k_hat <= good_k(3200)))
        np.testing.assert_allclose(refitted.pointwise[refitted.refitted], want[refitted.refitted], atol=0.1)


def test_too_few_draws_are_refused_and_a_settled_row_is_its_own_score():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(size=200), np.full(200, -1.5)], axis=1)
    value, k_hat = importance_elpd(rows)
    assert value[1] == -1.5 and k_hat[1] == -np.inf
    np.testing.assert_allclose(value[0], importance_elpd(rows[:, :1])[0][0])
    with pytest.raises(InputError, match=r"^LOO-DRAWS .* there are 24"):
        importance_elpd(rows[:24])
