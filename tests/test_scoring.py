"""Scores against closed forms, brute force and numpy."""

import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp

from bayesscale.scoring import covered, crps, log_mean_exp, nrmse, pit, width

RNG = np.random.default_rng(1)


@pytest.mark.parametrize(("centre", "sd"), [(0.0, 1.0), (0.4, 0.05), (-3.0, 10.0)])
def test_crps_of_a_normal_is_its_closed_form(centre, sd):
    observed = centre + sd * np.array([-4.0, -1.0, 0.0, 0.3, 2.5])
    levels = (np.arange(20_000) + 0.5) / 20_000
    draws = np.repeat(scipy.stats.norm.ppf(levels, centre, sd)[:, None], observed.size, axis=1)
    z, phi = (observed - centre) / sd, scipy.stats.norm
    want = sd * (z * (2 * phi.cdf(z) - 1) + 2 * phi.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(crps(RNG.permutation(draws), observed), want, atol=1e-4 * sd)


@pytest.mark.parametrize("draws", [1, 2, 7, 50])
def test_crps_is_the_pairwise_definition(draws):
    x, observed = RNG.gamma(1.0, size=(draws, 4)).round(1), np.array([0.0, 0.5, 1.0, 9.0])  # rounded: with ties
    want = np.abs(x - observed).mean(axis=0) - 0.5 * np.abs(x[:, None] - x).mean(axis=(0, 1))
    np.testing.assert_allclose(crps(x, observed), want, atol=1e-12)


def test_crps_of_a_certain_forecast_is_its_absolute_error():
    np.testing.assert_allclose(crps(np.full((9, 2), 0.5), np.array([0.2, 0.5])), [0.3, 0.0], atol=1e-15)


@pytest.mark.parametrize("shift", [0.0, -2000.0, 2000.0])
def test_log_mean_exp_neither_over_nor_underflows(shift):
    values = RNG.normal(size=(30, 5)) + shift
    np.testing.assert_allclose(log_mean_exp(values), logsumexp(values, axis=0) - np.log(30), rtol=1e-12)


def test_log_mean_exp_of_impossible_draws():
    values = np.array([[-np.inf, -np.inf], [-np.inf, 0.0]])
    np.testing.assert_array_equal(log_mean_exp(values), [-np.inf, np.log(0.5)])


@pytest.mark.parametrize("mass", [0.5, 0.9])
def test_intervals_are_numpys_quantiles(mass):
    draws, observed = RNG.normal(size=(400, 200)), RNG.normal(size=200)
    low, high = np.quantile(draws, (1 - mass) / 2, axis=0), np.quantile(draws, (1 + mass) / 2, axis=0)
    np.testing.assert_allclose(width(draws, mass), high - low)
    np.testing.assert_array_equal(covered(draws, observed, mass), (low <= observed) & (observed <= high))
    assert abs(covered(draws, observed, mass).mean() - mass) < 4 * np.sqrt(mass * (1 - mass) / 200)


def test_nrmse_is_relative_to_the_observed_mean():
    assert nrmse(np.array([1.0, 3.0]), np.array([1.0, 1.0])) == pytest.approx(np.sqrt(2))
    assert nrmse(np.array([2.0, 4.0]), np.array([2.0, 4.0])) == 0


@pytest.mark.parametrize("draw", [lambda size: RNG.normal(size=size), lambda size: RNG.binomial(4, 0.4, size)])
def test_pit_of_a_calibrated_forecast_is_uniform(draw):
    """Of continuous values, and of counts where most draws tie with what was observed."""
    values = pit(draw((500, 1500)), draw(1500))
    assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3


def test_pit_is_spread_over_ties_only():
    draws = np.array([[0.0], [1.0], [1.0], [2.0]]).repeat(1000, axis=1)
    values = pit(draws, np.ones(1000))
    assert 0.25 <= values.min() < 0.26 and 0.74 < values.max() <= 0.75
    np.testing.assert_array_equal(pit(draws, np.full(1000, 1.5)), 0.75)
    np.testing.assert_array_equal(values, pit(draws, np.ones(1000)))
    assert (values != pit(draws, np.ones(1000), seed=1)).any()


def test_pit_sees_a_biased_forecast():
    assert scipy.stats.kstest(pit(RNG.normal(size=(500, 400)) + 0.5, RNG.normal(size=400)), "uniform").pvalue < 1e-3
