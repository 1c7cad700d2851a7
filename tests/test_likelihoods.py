"""The contract every likelihood keeps, and its densities against scipy.stats."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from scipy.special import expit, logit

from bayesscale import likelihood as lk
from bayesscale.curves import COLUMNS, Curves
from bayesscale.likelihood import LIKELIHOODS
from bayesscale.units import units_of

each_likelihood = pytest.mark.parametrize("name", LIKELIHOODS, scope="module")
VALUES = {"d0": 0.4, "d1": -0.3, "log_phi": 2.5, "log_phi_slope": 0.4, "log_tau": -2.2}
P = np.array([0.02, 0.3, 0.5, 0.9, 0.995, 0.71])
"""The law's value at each row."""
DELTA = np.array([0.3, -0.2, 0.0, 0.5, -1.0, 0.1])
"""Departure from the law at each row, so that eta and the law's mean are told apart."""
SHOTS = np.array([0.0, 1.0, 3.0, 20.0, 100.0, 500.0])
LINK_SCALE = ("quasi_binomial", "quasi_student", "log_normal", "student_t")
"""Likelihoods whose density is of y on the link scale; the others' is of the value, or of the count."""
COUNTS_OF_TRIALS = ("binomial", "beta_binomial", "beta_binomial_shots")


def curves_of(kind):
    rng = np.random.default_rng(5)
    runs = 3 if kind == "counts" else 1
    frame = pd.DataFrame({"task": "a", "shots": np.tile(SHOTS, runs), "run": np.repeat(np.arange(runs), len(SHOTS))})
    if kind == "counts":
        frame["trials"] = 40
        frame["successes"] = rng.binomial(40, np.tile(P, runs))
        frame.loc[frame.shots == 3.0, "successes"] = 21  # runs that are copies of one another
        frame.loc[frame.shots == 100.0, "successes"] = [38, 40, 39]
        return Curves.from_frame(frame, curve=["task"], successes="successes", trials="trials", run="run")
    frame["se"] = [0.004, 0.05, 0.02, 0.03, 0.001, np.nan]
    if kind == "prob_mean":
        frame["value"] = np.clip(P + 0.01 * rng.normal(size=len(P)), 0.01, 0.999)
        return Curves.from_frame(frame, curve=["task"], prob="value", se="se")
    frame["value"] = -np.log(P) * np.exp(0.1 * rng.normal(size=len(P)))
    return Curves.from_frame(frame, curve=["task"], nll="value", se="se")


def rows_of(name):
    """One curve's columns (row,), the law's (log p, log(1-p)) there, and eta."""
    likelihood = LIKELIHOODS[name]
    columns = {key: jnp.asarray(c[0]) for key, c in units_of(curves_of(likelihood.kind), likelihood).columns.items()}
    place = np.searchsorted(SHOTS, columns["shots"])
    mean = jnp.log(P[place]), jnp.log1p(-P[place])
    return columns, mean, lk.link(likelihood.kind, mean) + DELTA[place]


def theta_of(name):
    """Values of the likelihood's own parameters, and no others."""
    return {p.name: jnp.asarray(VALUES[p.name]) for p in LIKELIHOODS[name].parameters}


def test_the_table_names_its_likelihoods():
    assert all(name == likelihood.name for name, likelihood in LIKELIHOODS.items())
    for kind in COLUMNS:
        assert lk.default_likelihood(kind, replicated=True).kind == kind
        assert lk.default_likelihood(kind, replicated=False).kind == kind
    assert lk.default_likelihood("counts", replicated=True).rows == "cell"
    # One function of two settings, so the draws of one are tested for both.
    assert LIKELIHOODS["beta_binomial"].draw is LIKELIHOODS["beta_binomial_shots"].draw


@each_likelihood
def test_a_likelihood_says_what_it_is(name):
    likelihood = LIKELIHOODS[name]
    assert likelihood.kind in COLUMNS and likelihood.rows in ("cell", "run") and likelihood.meaning
    names = [p.name for p in likelihood.all_parameters]
    assert len(set(names)) == len(names)
    assert all(p.name.isidentifier() and p.symbol and p.meaning and not p.dims for p in likelihood.all_parameters)
    assert likelihood.discrepancy is None
    assert likelihood.on_link_scale == (name in LINK_SCALE)
    assert likelihood.df is None or not likelihood.gaussian
    with_one = lk.with_discrepancy(likelihood, 0.3)
    assert with_one.all_parameters[-1].name == "sigma_delta" and float(with_one.discrepancy.prior.scale) == 0.3
    assert lk.without_discrepancy(with_one).all_parameters == likelihood.parameters


@each_likelihood
def test_density_and_gradient_are_finite_far_from_the_data(name):
    likelihood, (columns, mean, _) = LIKELIHOODS[name], rows_of(name)

    def total(shift):
        # Far out on either side, law and departure together: where a sampler's first steps may land.
        logits = shift + jnp.zeros_like(mean[0])
        law = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        eta = lk.link(likelihood.kind, law)
        return jnp.sum(
            likelihood.log_prob(eta, law, columns, theta_of(name)) + likelihood.extra(law, columns, theta_of(name))
        )

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(total)))(jnp.linspace(-25.0, 25.0, 21))
    assert np.isfinite(values).all() and np.isfinite(slopes).all()


def reference(name, c, p, eta):
    """scipy's log density of each row; p is the law's value, eta includes the departure."""
    phi, tau = np.exp(VALUES["log_phi"]), np.exp(VALUES["log_tau"])
    ratio = np.log((c["shots"] + 1) / 21)
    q = expit(eta)
    if name.startswith("quasi"):
        v = np.exp(VALUES["d0"] + VALUES["d1"] * ratio) / (c["trials"] * p * (1 - p))
        shape = scipy.stats.norm if name == "quasi_binomial" else scipy.stats.t(4)
        return shape.logpdf((c["y"] - eta) / np.sqrt(v / c["runs"])) - 0.5 * np.log(v / c["runs"])
    if name == "binomial":
        return scipy.stats.binom.logpmf(c["successes"], c["trials"], q)
    if name.startswith("beta_binomial"):
        phi = phi * np.exp(VALUES["log_phi_slope"] * ratio) if name.endswith("shots") else phi
        return scipy.stats.betabinom.logpmf(c["successes"], c["trials"], phi * q, phi * (1 - q))
    if name == "beta":
        phi = q * (1 - q) / (c["se"] ** 2 + tau**2 * q * (1 - q)) - 1
        return scipy.stats.beta.logpdf(c["value"], phi * q, phi * (1 - q))
    if name == "normal":
        return scipy.stats.norm.logpdf(c["value"], q, np.hypot(c["se"], tau))
    if name == "normal_nll":
        return scipy.stats.norm.logpdf(c["value"], np.exp(eta), np.hypot(c["se"], tau))
    sd = np.hypot(c["se"] / c["value"], tau)
    if name == "student_t":
        return scipy.stats.t.logpdf(c["y"], 4, eta, sd)
    # scipy's lognormal is a density of the value: a factor 1 / value to the one of y = log value.
    return scipy.stats.lognorm.logpdf(c["value"], sd, scale=np.exp(eta)) + np.log(c["value"])


@each_likelihood
def test_log_prob_is_scipys(name):
    columns, mean, eta = rows_of(name)
    c = {key: np.asarray(value) for key, value in columns.items()}
    got = LIKELIHOODS[name].log_prob(eta, mean, columns, theta_of(name))
    # jax's betaln is good to about a millionth.
    np.testing.assert_allclose(
        got, reference(name, c, np.exp(mean[0]), np.asarray(eta)), rtol=1e-9, atol=3e-6 if name == "beta" else 1e-9
    )


@pytest.mark.parametrize("name", ["quasi_binomial", "quasi_student"])
def test_spread_between_runs(name):
    """`extra` is the log density of the run variance; cells whose runs are copies say nothing."""
    columns, mean, _ = rows_of(name)
    c = {key: np.asarray(value) for key, value in columns.items()}
    p = np.exp(mean[0])
    v = np.exp(VALUES["d0"] + VALUES["d1"] * np.log((c["shots"] + 1) / 21)) / (c["trials"] * p * (1 - p))
    df = np.where(c["run_df"] > 0, c["run_df"], 1.0)
    want = np.where(c["run_df"] > 0, scipy.stats.chi2.logpdf(df * c["run_variance"] / v, df) + np.log(df / v), 0.0)
    np.testing.assert_allclose(LIKELIHOODS[name].extra(mean, columns, theta_of(name)), want, rtol=1e-10, atol=1e-10)
    copied = (c["shots"] == 3.0) & (c["mask"] > 0)
    assert (c["run_df"][copied] == 0).all() and (c["runs"][copied] == 1).all()
    assert (c["run_df"][(c["mask"] > 0) & ~copied] == 2).all()


@pytest.mark.parametrize("name", [name for name, likelihood in LIKELIHOODS.items() if likelihood.gaussian])
def test_a_gaussian_site_is_the_row(name):
    columns, mean, eta = rows_of(name)
    y, v = LIKELIHOODS[name].site(mean, columns, theta_of(name))
    np.testing.assert_array_equal(
        lk.normal_log_prob(y, eta, v), LIKELIHOODS[name].log_prob(eta, mean, columns, theta_of(name))
    )


@pytest.mark.parametrize("name", [name for name, likelihood in LIKELIHOODS.items() if not likelihood.gaussian])
def test_a_site_stands_for_the_row(name):
    """The Gaussian stand-in is centred within a width of the density's peak and is about as wide."""
    likelihood, (columns, mean, _) = LIKELIHOODS[name], rows_of(name)
    eta, theta = lk.link(likelihood.kind, mean), theta_of(name)
    # With noise as wide as the distance to 0 or 1 the density is flat on one side, and no Gaussian stands for it.
    theta = {key: jnp.asarray(-4.0) if key == "log_tau" else value for key, value in theta.items()}
    y, v = likelihood.site(mean, columns, theta)
    spread = jnp.linspace(-6.0, 6.0, 601)[:, None] * jnp.sqrt(v)
    log_prob = jax.vmap(lambda e: likelihood.log_prob(e, mean, columns, theta))(y + spread)
    weight = np.exp(log_prob - log_prob.max(axis=0))
    centre = (weight * spread).sum(axis=0) / weight.sum(axis=0)
    width = np.sqrt((weight * (spread - centre) ** 2).sum(axis=0) / weight.sum(axis=0))
    inside = (np.asarray(columns["value"]) > 0.05) & (np.abs(np.asarray(y - eta)) < 2 * np.sqrt(v))
    if likelihood.kind != "nll_mean":
        inside &= np.asarray(columns["value"]) < 0.95
    assert inside.sum() >= 3
    sd = np.sqrt(v)
    assert (np.abs(centre / sd)[inside] < 1.0).all()
    assert ((width / sd)[inside] > 0.4).all() and ((width / sd)[inside] < 2.5).all()


# What is drawn follows the density that is stated ---------------------------------------------------------------------

DRAWS = 20_000


def drawn(name, row):
    """Draws of one row, on the value scale, and the arguments they were drawn at."""
    columns, mean, eta = rows_of(name)
    one = {key: value[row] for key, value in columns.items() if jnp.ndim(value)}
    law, centre = (mean[0][row], mean[1][row]), eta[row]
    scatter = LIKELIHOODS[name].scatter(centre, law, one, theta_of(name))
    repeated = [np.broadcast_to(part, DRAWS) for part in scatter]
    return LIKELIHOODS[name].draw(np.random.default_rng(row), one, *repeated), one, law, centre


@pytest.mark.parametrize("row", [1, 4])
@pytest.mark.parametrize("name", ["binomial", "beta_binomial_shots"])
def test_drawn_counts_follow_the_density(name, row):
    draws, one, law, eta = drawn(name, row)
    trials = int(one["trials"])
    k = np.arange(trials + 1)
    log_choose = np.log(scipy.special.comb(trials, k))
    table = {key: jnp.full(trials + 1, value) for key, value in one.items()} | {
        "successes": k,
        "log_choose": log_choose,
    }
    expected = DRAWS * np.exp(LIKELIHOODS[name].log_prob(jnp.full(trials + 1, eta), law, table, theta_of(name)))
    assert expected.sum() == pytest.approx(DRAWS, rel=1e-9)
    counts = np.bincount(np.rint(draws * trials).astype(int), minlength=trials + 1)
    # Neighbouring counts are joined until each cell expects twenty.
    cell = np.minimum((np.cumsum(expected) / 20).astype(int), int(DRAWS / 20) - 1)
    observed, hoped = np.bincount(cell, counts), np.bincount(cell, expected)
    observed, hoped = observed[hoped > 5], hoped[hoped > 5]
    statistic = ((observed - hoped) ** 2 / hoped).sum()
    assert scipy.stats.chi2.sf(statistic, max(len(hoped) - 1, 1)) > 1e-4


@pytest.mark.parametrize("row", [1, 3])
@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name not in COUNTS_OF_TRIALS])
def test_drawn_values_follow_the_density(name, row):
    """Kolmogorov-Smirnov against the integral of exp(log_prob) over the observation."""
    draws, one, law, eta = drawn(name, row)
    likelihood = LIKELIHOODS[name]
    if name in LINK_SCALE:
        draws = np.log(draws) if likelihood.kind == "nll_mean" else logit(draws)
    low, high = (1e-7, 1 - 1e-7) if name == "beta" else (draws.min() - 3.0, draws.max() + 3.0)
    grid = np.linspace(low, high, 40_001)
    seen = "y" if name in LINK_SCALE else "value"
    table = {key: jnp.full(grid.shape, value) for key, value in one.items()} | {seen: jnp.asarray(grid)}
    density = np.exp(likelihood.log_prob(jnp.full(grid.shape, eta), law, table, theta_of(name)))
    below = np.append(0.0, np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid)))
    assert below[-1] == pytest.approx(1.0, abs=2e-3)
    assert scipy.stats.kstest(np.interp(draws, grid, below), "uniform").pvalue > 1e-4


def test_link_and_its_jacobian():
    """inverse_link undoes link, and the Jacobian is the derivative of one of them."""
    for kind, value in (("counts", P), ("prob_mean", P), ("nll_mean", -np.log(P))):
        eta = lk.link(kind, (jnp.log(P), jnp.log1p(-P)))
        np.testing.assert_allclose(lk.inverse_link(kind, eta), value, rtol=1e-12)
        slope = jax.vmap(jax.grad(lambda e, kind=kind: lk.inverse_link(kind, e)))(eta)
        np.testing.assert_allclose(lk.log_link_jacobian(kind, jnp.asarray(value)), -np.log(slope), rtol=1e-10)
