"""The discrepancy, integrated out: against a dense multivariate normal, or quadrature where rows are not Gaussian."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import gammaln

from bayesscale.discrepancy import filter_rows, left_out_log_prob, sample_path, smooth
from bayesscale.likelihood import BETA_BINOMIAL, BINOMIAL, LOG_NORMAL, QUASI_STUDENT, STUDENT_T, link

SIGMA = 0.4
THETA = {"log_tau": jnp.asarray(-2.0)}
SHOTS = (np.array([0.0, 1.0, 1.0, 4.0, 16.0, 100.0]), np.array([1.0, 1.0, 3.0, 30.0]))
"""Two curves in one unit, with repeated shot counts and a row at no shots."""
SEEN = np.array([1, 1, 1, 0, 1, 0, 1, 0, 1, 1], bool)
PADDING = 2
ROWS = len(SEEN)


def table(shots, padding=0, **fields):
    """Columns as a unit has them: curve after curve, the last row repeated as padding."""
    times = [np.log1p(part) for part in shots]
    columns = {
        "shots": np.concatenate(shots),
        "step": np.concatenate([np.diff(t, prepend=0.0) for t in times]),
        "first": np.concatenate([np.arange(len(t)) == 0 for t in times]).astype(float),
        "mask": np.ones(sum(map(len, shots))),
    } | fields
    padded = {name: np.append(c, np.repeat(c[-1], padding)) for name, c in columns.items()}
    padded["mask"][len(columns["mask"]) :] = 0.0
    return {name: jnp.asarray(c) for name, c in padded.items()}


def covariance(shots, sigma):
    """Cov(delta) = sigma^2 min(t_i, t_j) within a curve, none between curves."""
    t, curve = np.log1p(np.concatenate(shots)), np.repeat(np.arange(len(shots)), [len(part) for part in shots])
    return sigma**2 * np.minimum(t[:, None], t) * (curve[:, None] == curve)


@pytest.fixture(scope="module")
def gaussian():
    """Rows of the log-normal likelihood, with residual y - eta and noise variance v of each."""
    rng = np.random.default_rng(8)
    value = np.exp(rng.normal(-0.3, 0.4, ROWS))
    columns = table(SHOTS, PADDING, value=value, y=np.log(value), se=rng.uniform(0.02, 0.3, ROWS))
    columns["mask"] = columns["mask"].at[:ROWS].set(SEEN)
    log_p = -jnp.exp(jnp.asarray(rng.normal(-0.3, 0.3, ROWS + PADDING)))
    mean = log_p, jnp.log1p(-jnp.exp(log_p))
    y, v = LOG_NORMAL.site(mean, columns, THETA)
    return columns, mean, np.asarray(y - link("nll_mean", mean))[:ROWS], np.asarray(v)[:ROWS]


def conditional(prior, residual, v, given, at):
    """Mean and covariance of delta at rows `at` given the rows `given`, by dense algebra."""
    gain = np.linalg.solve(prior[np.ix_(given, given)] + np.diag(v[given]), prior[np.ix_(given, at)]).T
    return gain @ residual[given], prior[np.ix_(at, at)] - gain @ prior[np.ix_(given, at)]


def test_evidence_is_the_dense_normals(gaussian):
    columns, mean, residual, v = gaussian
    rows = np.asarray(filter_rows(LOG_NORMAL, mean, columns, THETA, SIGMA).log_evidence)
    total = covariance(SHOTS, SIGMA) + np.diag(v)
    assert (rows[ROWS:] == 0).all() and (rows[:ROWS][~SEEN] == 0).all()
    seen, so_far = np.flatnonzero(SEEN), 0.0
    for count, row in enumerate(seen, 1):  # every partial sum, so that rows are right one by one
        first = seen[:count]
        so_far += rows[row]
        want = scipy.stats.multivariate_normal.logpdf(residual[first], cov=total[np.ix_(first, first)])
        assert so_far == pytest.approx(want, abs=1e-9)


def test_smoothed_path_is_the_dense_conditional(gaussian):
    columns, mean, residual, v = gaussian
    mean_got, variance_got = smooth(filter_rows(LOG_NORMAL, mean, columns, THETA, SIGMA), columns, SIGMA)
    want, cov = conditional(covariance(SHOTS, SIGMA), residual, v, np.flatnonzero(SEEN), np.arange(ROWS))
    np.testing.assert_allclose(mean_got[:ROWS], want, atol=1e-9)
    np.testing.assert_allclose(variance_got[:ROWS], np.diag(cov), atol=1e-9)


def test_left_out_rows_are_the_dense_conditionals(gaussian):
    """A shown row is scored given the other shown rows, a hidden one given all shown rows."""
    columns, mean, residual, v = gaussian
    got = np.asarray(left_out_log_prob(LOG_NORMAL, mean, columns, THETA, SIGMA))
    prior = covariance(SHOTS, SIGMA)
    for row in range(ROWS):
        given = np.setdiff1d(np.flatnonzero(SEEN), [row])
        centre, spread = conditional(prior, residual, v, given, np.array([row]))
        want = scipy.stats.norm.logpdf(residual[row], centre[0], np.sqrt(spread[0, 0] + v[row]))
        assert got[row] == pytest.approx(want, abs=1e-7), row


def test_sampled_paths_have_the_dense_moments(gaussian):
    columns, mean, residual, v = gaussian
    filtered, draws = filter_rows(LOG_NORMAL, mean, columns, THETA, SIGMA), 20_000
    keys = jax.random.split(jax.random.key(2), draws)
    paths = np.asarray(jax.jit(jax.vmap(lambda key: sample_path(key, filtered, columns, SIGMA)))(keys))[:, :ROWS]
    want, cov = conditional(covariance(SHOTS, SIGMA), residual, v, np.flatnonzero(SEEN), np.arange(ROWS))
    sd = np.sqrt(np.diag(cov)) + 1e-6
    assert (np.abs(paths.mean(axis=0) - want) / sd * np.sqrt(draws) < 4.5).all()
    # The standard error of a sample covariance is sqrt((C_ii C_jj + C_ij^2) / draws).
    error = np.sqrt((np.outer(sd**2, sd**2) + cov**2) / draws)
    assert (np.abs(np.cov(paths.T) - cov) < 4.5 * error).all()


def test_the_order_of_curves_does_not_matter(gaussian):
    columns, mean, _, _ = gaussian
    cut = len(SHOTS[0])
    order = np.r_[np.arange(cut, ROWS), np.arange(cut)]
    swapped = {name: c[order] for name, c in columns.items()}
    one = filter_rows(LOG_NORMAL, mean, columns, THETA, SIGMA).log_evidence
    other = filter_rows(LOG_NORMAL, tuple(part[order] for part in mean), swapped, THETA, SIGMA).log_evidence
    np.testing.assert_allclose(np.asarray(one)[order], other, atol=1e-12)


# Rows that are not Gaussian -------------------------------------------------------------------------------------------

COUNTED = {"successes": np.array([12.0, 31.0, 44.0]), "trials": np.array([60.0, 50.0, 50.0])}
CURVE = np.array([0.0, 8.0, 60.0])
LAW = np.array([0.18, 0.45, 0.8])


def rows(likelihood, away=0.0):
    """Three rows of a likelihood, the law `away` from the data on the link scale, with parameters at usual values."""
    theta = {"log_phi": jnp.asarray(3.5), "log_tau": jnp.asarray(-2.0), "d0": jnp.asarray(0.4), "d1": jnp.asarray(-0.2)}
    if likelihood.kind == "counts":
        k, n = COUNTED["successes"], COUNTED["trials"]
        choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        fields = COUNTED | {
            "value": k / n,
            "y": np.log((k + 0.5) / (n - k + 0.5)),
            "log_choose": choose,
            "runs": np.full(3, 5.0),
        }
        logits = jnp.log(LAW / (1 - LAW)) + away
        mean = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    else:
        value = np.array([1.6, 0.95, 0.25])
        fields = {"value": value, "y": np.log(value), "se": 0.05 * value}
        log_p = jnp.log(LAW) * jnp.exp(away)
        mean = log_p, jnp.log1p(-jnp.exp(log_p))
    return table((CURVE,), **fields), mean, theta


def grid_evidence(likelihood, columns, mean, theta, sigma, points=1201):
    """log evidence of each row by propagating the density of delta on a grid."""
    half = 7.0 * sigma * np.sqrt(np.log1p(CURVE[-1]))
    delta = np.linspace(-half, half, points)
    eta = np.asarray(link(likelihood.kind, mean))
    by_node = jax.jit(jax.vmap(lambda d: likelihood.log_prob(eta + d, mean, columns, theta)))
    density_of_row = np.exp(by_node(jnp.asarray(delta)))
    belief, evidence = np.zeros(points), []
    belief[points // 2] = 1.0
    for row, step in enumerate(np.asarray(columns["step"])):
        if step > 0:
            kernel = np.exp(-0.5 * (delta[:, None] - delta) ** 2 / (sigma**2 * step))
            belief = (kernel / kernel.sum(axis=0)) @ belief
        joint = belief * density_of_row[:, row]
        evidence.append(np.log(joint.sum()))
        belief = joint / joint.sum()
    return np.array(evidence)


@pytest.mark.parametrize(("sigma", "away"), [(0.1, 0.0), (0.3, 0.4), (0.6, -0.8)])
@pytest.mark.parametrize(
    "likelihood", [BINOMIAL, BETA_BINOMIAL, QUASI_STUDENT, STUDENT_T], ids=lambda value: value.name
)
def test_matched_filter_is_near_the_integral(likelihood, sigma, away):
    columns, mean, theta = rows(likelihood, away)
    got = np.asarray(jax.jit(partial(filter_rows, likelihood))(mean, columns, theta, sigma).log_evidence)
    want = grid_evidence(likelihood, columns, mean, theta, sigma)
    # Errors found: 0.001 for the binomials, 0.006 for Student-t rows, whose tails a Gaussian follows least.
    assert got.sum() == pytest.approx(want.sum(), abs=0.02)


@pytest.mark.parametrize("likelihood", [QUASI_STUDENT, STUDENT_T], ids=lambda value: value.name)
def test_an_outlier_leaves_the_path_where_the_others_have_it(likelihood):
    """One row far from the law, in units of its noise: its own evidence is the integral's, and the path hardly follows."""
    columns, mean, theta = rows(likelihood)
    v = likelihood.site(mean, columns, theta)[1]
    columns["y"] = columns["y"].at[1].add(12.0 * jnp.sqrt(v[1]))
    got = filter_rows(likelihood, mean, columns, theta, 0.1)
    want = grid_evidence(likelihood, columns, mean, theta, 0.1)
    np.testing.assert_allclose(got.log_evidence[:2], want[:2], atol=0.02)
    assert abs(got.mean[1] - got.mean[0]) < 0.1


@pytest.mark.parametrize(
    "likelihood", [BINOMIAL, BETA_BINOMIAL, QUASI_STUDENT, STUDENT_T, LOG_NORMAL], ids=lambda value: value.name
)
def test_no_discrepancy_is_the_limit(likelihood):
    columns, mean, theta = rows(likelihood, 0.2)
    plain = likelihood.log_prob(link(likelihood.kind, mean), mean, columns, theta)
    rows_got = jax.jit(partial(filter_rows, likelihood))(mean, columns, theta, 1e-7).log_evidence
    np.testing.assert_allclose(rows_got, plain, atol=1e-5)


@pytest.mark.parametrize("likelihood", [BINOMIAL, QUASI_STUDENT, STUDENT_T], ids=lambda value: value.name)
def test_left_out_rows_are_near_the_integral(likelihood):
    """log p(y_i | y_-i) is the log evidence of all rows less that of the others."""
    columns, mean, theta = rows(likelihood, 0.2)
    got = np.asarray(jax.jit(partial(left_out_log_prob, likelihood))(mean, columns, theta, 0.3))
    everything = grid_evidence(likelihood, columns, mean, theta, 0.3).sum()
    for row in range(3):
        others = np.delete(np.arange(3), row)
        # Without row i the path's variance between its neighbours is the same: steps add up.
        rest = {name: c[others] for name, c in columns.items()}
        rest["step"] = jnp.asarray(np.diff(np.log1p(CURVE[others]), prepend=0.0))
        part = grid_evidence(likelihood, rest, tuple(m[others] for m in mean), theta, 0.3).sum()
        assert got[row] == pytest.approx(everything - part, abs=0.02)


@pytest.mark.parametrize("likelihood", [LOG_NORMAL, BINOMIAL, QUASI_STUDENT], ids=lambda value: value.name)
def test_gradients_are_finite_down_to_no_discrepancy(likelihood):
    columns, mean, theta = rows(likelihood)
    evidence = jax.jit(
        jax.vmap(jax.grad(lambda s: filter_rows(likelihood, mean, columns, theta, s).log_evidence.sum()))
    )
    assert np.isfinite(evidence(jnp.array([1e-12, 1e-6, 1e-3, 0.1, 1.0, 5.0]))).all()
