"""A curve's smooth departure from its law, integrated out by a scalar Kalman filter.

On the link scale an observation sees eta_i = link(p(n_i)) + delta_i with delta a Brownian motion in t = log(1+n), zero at
n = 0 and with variance sigma^2 per unit of t:

    delta_i | delta_{i-1} ~ Normal(delta_{i-1}, sigma^2 (t_i - t_{i-1})).

For likelihoods that are Gaussian on the link scale the integral over delta is exact. For the others each row is moment
matched: its tilted distribution under the filter's prediction is integrated with Gauss-Hermite nodes placed on the product
of that prediction and the row's Gaussian stand-in (assumed-density filtering). A Student-t row is a mixture of normals of
different widths, so its tilted moments are those of a mixture of normals; nodes around the stand-in would miss what an
outlier leaves of the prediction.

Rows come sorted along the curve. ``step`` holds t_i - t_{i-1}, ``first`` marks the first row of each curve, so that several
curves can follow each other in one array, and ``mask`` is 0 on padding.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp

from bayesscale.likelihood import Likelihood, link, normal_log_prob
from bayesscale.types import Columns, LogMean, ObsArray, Scalar, Theta

NODES = 9
_X, _W = np.polynomial.hermite_e.hermegauss(NODES)
_LOG_W = np.log(_W / _W.sum())
WIDE = 1e12
"""Variance of a row that says nothing."""
_LOG_PRECISION = np.arange(-8.0, 2.51, 0.5)
"""Nodes of log w in t(df) = integral of Normal(0, 1/w) Gamma(w; df/2, df/2) dw. At four degrees of freedom the trapezoidal
rule on them gives log t to 1e-6 within 8 scales of the centre and to 1e-3 within 25."""


class Filtered(NamedTuple):
    """What the filter knows at each row, (obs,) each.

    log_evidence : log p(y_i | y_<i).
    mean, variance : of delta_i given rows up to and including i.
    site_y, site_v : the Gaussian that stands for the row, as an observation of delta_i.
    """

    log_evidence: ObsArray
    mean: ObsArray
    variance: ObsArray
    site_y: ObsArray
    site_v: ObsArray


def expected_log_prob(
    likelihood: Likelihood, law_mean: LogMean, columns: Columns, theta: Theta, mean: ObsArray, variance: ObsArray
) -> tuple[ObsArray, ObsArray, ObsArray]:
    """Integrate a row over delta ~ Normal(mean, variance).

    Returns log ∫ p(y | delta) Normal(delta; mean, variance) d delta and the mean and variance of the tilted distribution.
    """
    eta = link(likelihood.kind, law_mean)
    y, v = likelihood.site(law_mean, columns, theta)
    product_v = 1.0 / (1.0 / variance + 1.0 / v)
    product_m = product_v * (mean / variance + (y - eta) / v)
    if likelihood.gaussian:
        return normal_log_prob(y - eta, mean, variance + v), product_m, product_v
    if likelihood.df is not None:
        return student_moments(y - eta, v, likelihood.df, mean, variance)
    shape = (NODES,) + (1,) * jnp.ndim(eta)
    nodes = product_m + jnp.sqrt(product_v) * jnp.reshape(jnp.asarray(_X), shape)
    log_p, log_q = (jnp.broadcast_to(part, nodes.shape) for part in law_mean)
    log_weight = (
        jnp.reshape(jnp.asarray(_LOG_W), shape)
        + likelihood.log_prob(eta + nodes, (log_p, log_q), columns, theta)
        + normal_log_prob(nodes, mean, variance)
        - normal_log_prob(nodes, product_m, product_v)
    )
    log_z = logsumexp(log_weight, axis=0)
    weight = jnp.exp(log_weight - log_z)
    tilted_m = jnp.sum(weight * nodes, axis=0)
    return log_z, tilted_m, jnp.sum(weight * (nodes - tilted_m) ** 2, axis=0)


def student_moments(
    residual: ObsArray, v: ObsArray, df: float, mean: ObsArray, variance: ObsArray
) -> tuple[ObsArray, ObsArray, ObsArray]:
    """Integrate a Student-t row, residual ~ delta + sqrt(v) t(df), over delta ~ Normal(mean, variance)."""
    log_w = np.reshape(_LOG_PRECISION, (-1,) + (1,) * np.ndim(residual))
    log_gamma = 0.5 * df * (log_w - np.exp(log_w))  # the density of log w, up to a constant
    log_gamma -= np.log(np.exp(log_gamma).sum())
    noise = v * np.exp(-log_w)
    log_weight = log_gamma + normal_log_prob(residual, mean, variance + noise)
    log_z = logsumexp(log_weight, axis=0)
    weight, gain = jnp.exp(log_weight - log_z), variance / (variance + noise)
    tilted_m = mean + jnp.sum(weight * gain, axis=0) * (residual - mean)
    centres = mean + gain * (residual - mean)
    return log_z, tilted_m, jnp.sum(weight * (variance * (1.0 - gain) + (centres - tilted_m) ** 2), axis=0)


def filter_rows(likelihood: Likelihood, law_mean: LogMean, columns: Columns, theta: Theta, sigma: Scalar) -> Filtered:
    """Run the filter along the rows."""
    # The floor keeps predictions proper where sigma or the step vanishes; it is far below any noise.
    growth, keep = sigma**2 * columns["step"] + 1e-14, 1.0 - columns["first"]
    run = filter_gaussian if likelihood.gaussian else filter_matched
    return run(likelihood, law_mean, columns, theta, growth, keep)


def filter_gaussian(
    likelihood: Likelihood, law_mean: LogMean, columns: Columns, theta: Theta, growth: ObsArray, keep: ObsArray
) -> Filtered:
    """Filter rows that are Gaussian on the link scale. The loop carries the recursion only; the rest is done on arrays."""
    y, v = likelihood.site(law_mean, columns, theta)
    residual, mask = y - link(likelihood.kind, law_mean), columns["mask"]

    def advance(state, row):  # noqa: ANN001, ANN202
        (mean, variance), (residual, v, growth, keep, mask) = state, row
        mean, variance = mean * keep, variance * keep + growth
        gain = mask * variance / (variance + v)
        return (mean + gain * (residual - mean), variance * (1.0 - gain)), (mean, variance)

    rows = (residual, v, growth, keep, mask)
    nothing = jnp.zeros_like(residual[0] + growth[0])
    _, (mean, variance) = jax.lax.scan(advance, (nothing, nothing), rows)
    gain = mask * variance / (variance + v)
    return Filtered(
        log_evidence=mask * normal_log_prob(residual, mean, variance + v),
        mean=mean + gain * (residual - mean),
        variance=variance * (1.0 - gain),
        site_y=residual,
        site_v=jnp.where(mask > 0, v, WIDE),
    )


def filter_matched(
    likelihood: Likelihood, law_mean: LogMean, columns: Columns, theta: Theta, growth: ObsArray, keep: ObsArray
) -> Filtered:
    """Filter other rows by moment matching each of them."""

    def advance(state, row):  # noqa: ANN001, ANN202
        (mean, variance), (row_mean, row_columns, growth, keep) = state, row
        mean, variance = mean * keep, variance * keep + growth
        seen = row_columns["mask"] > 0
        log_z, tilted_m, tilted_v = expected_log_prob(likelihood, row_mean, row_columns, theta, mean, variance)
        precision = jnp.maximum(1.0 / tilted_v - 1.0 / variance, 1.0 / WIDE)
        site_y = (tilted_m / tilted_v - mean / variance) / precision
        after = (jnp.where(seen, tilted_m, mean), jnp.where(seen, tilted_v, variance))
        site = (jnp.where(seen, site_y, 0.0), jnp.where(seen, 1.0 / precision, WIDE))
        return after, (jnp.where(seen, log_z, 0.0), *after, *site)

    by_row = {name: column for name, column in columns.items() if jnp.ndim(column) == jnp.ndim(columns["mask"])}
    nothing = jnp.zeros_like(law_mean[0][0] + growth[0])
    _, outputs = jax.lax.scan(advance, (nothing, nothing), (law_mean, by_row, growth, keep))
    return Filtered(*outputs)


def smooth(filtered: Filtered, columns: Columns, sigma: Scalar) -> tuple[ObsArray, ObsArray]:
    """Mean and variance of delta_i given all rows (Rauch-Tung-Striebel)."""

    def retreat(state, row):  # noqa: ANN001, ANN202
        (next_m, next_v, next_step, next_first), (mean, variance, step, first) = state, row
        predicted = variance + sigma**2 * next_step + 1e-14
        gain = jnp.where(next_first > 0, 0.0, variance / predicted)
        smoothed_m = mean + gain * (next_m - mean)
        smoothed_v = variance + gain**2 * (next_v - predicted)
        return (smoothed_m, smoothed_v, step, first), (smoothed_m, smoothed_v)

    rows = (filtered.mean, filtered.variance, columns["step"], columns["first"])
    last = (jnp.zeros(()), jnp.ones(()), jnp.zeros(()), jnp.ones(()))
    _, smoothed = jax.lax.scan(retreat, last, rows, reverse=True)
    return smoothed


def left_out_log_prob(
    likelihood: Likelihood, law_mean: LogMean, columns: Columns, theta: Theta, sigma: Scalar
) -> ObsArray:
    """log p(y_i | theta, all other rows): what PSIS-LOO needs when rows share a path (Bürkner et al. 2021).

    A row the mask hides is predicted from all rows it does not hide, so this scores held-out rows as well.
    """
    filtered = filter_rows(likelihood, law_mean, columns, theta, sigma)
    mean, variance = smooth(filtered, columns, sigma)
    precision = jnp.maximum(1.0 / variance - 1.0 / filtered.site_v, 1e-8)
    cavity_m = (mean / variance - filtered.site_y / filtered.site_v) / precision
    return expected_log_prob(likelihood, law_mean, columns, theta, cavity_m, 1.0 / precision)[0]


def sample_path(key: jax.Array, filtered: Filtered, columns: Columns, sigma: Scalar) -> ObsArray:
    """Draw delta along all rows, given all rows (forward filtering, backward sampling)."""

    def retreat(state, row):  # noqa: ANN001, ANN202
        (next_delta, next_step, next_first), (mean, variance, step, first, z) = state, row
        predicted = variance + sigma**2 * next_step + 1e-14
        gain = jnp.where(next_first > 0, 0.0, variance / predicted)
        drawn = mean + gain * (next_delta - mean) + jnp.sqrt(jnp.maximum(variance * (1.0 - gain), 0.0)) * z
        return (drawn, step, first), drawn

    z = jax.random.normal(key, filtered.mean.shape)
    rows = (filtered.mean, filtered.variance, columns["step"], columns["first"], z)
    _, path = jax.lax.scan(retreat, (jnp.zeros(()), jnp.zeros(()), jnp.ones(())), rows, reverse=True)
    return path
