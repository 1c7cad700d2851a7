"""The scaled Beta law: no problem is solved more often than a ceiling s."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

from bayesscale.logarithms import log, log1mexp, log1pexp, log_sigmoid
from bayesscale.parameter import Parameter
from bayesscale.rate_law import DERIVED_MEANING, RateLaw, count_cells
from bayesscale.rates.beta import sample_beta
from bayesscale.special import log_beta
from bayesscale.types import Columns, Theta

_NODES = 192
_GRID = np.linspace(0.0, 1.0, _NODES)
_PARAMETERS = (
    Parameter("log_tail_index", "ln a", "log of the tail index", dist.Normal(-1.0, 1.0)),
    Parameter("log_upper_shape", "ln b", "log second shape, of the fall towards the ceiling", dist.Normal(0.0, 1.0)),
    Parameter(
        "logit_ceiling", "logit s", "logit of the largest success probability", dist.Normal(-3.0, 2.0), spread=1.0
    ),
)


def _log_moment(columns: Columns, theta: Theta) -> jax.Array:
    """s^c B(a + c, b) / B(a, b) 2F1(-f, a + c; a + b + c; s), by trapezoids in t = logit(p / s).

    The integrand is exp[(a + c) log y + b log(1 - y) + f log(1 - s y)], y = p / s: one peak, exponential on both sides.
    Nodes follow the peak, t = peak + scale sinh(u); they move with the parameters, which moves no exact integral, so no
    derivative is taken of them.
    """
    c, f = jnp.asarray(columns["c"])[..., None], jnp.asarray(columns["f"])[..., None]
    a, b, logit_s = jnp.exp(theta["log_tail_index"]), jnp.exp(theta["log_upper_shape"]), theta["logit_ceiling"]
    t, log_step = jax.lax.stop_gradient(_nodes(c, f, a, b, logit_s))
    log_y, log_rest = -log1pexp(-t), -log1pexp(t)
    log_s = log_sigmoid(logit_s)
    terms = (a + c) * log_y + b * log_rest + f * log1mexp(-log_y - log_s) + log_step
    value = logsumexp(terms, axis=-1) + columns["c"] * log_s - log_beta(a, b)
    return jnp.where((c + f == 0)[..., 0], 0.0, value)


def _nodes(c: jax.Array, f: jax.Array, a: jax.Array, b: jax.Array, logit_s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(pattern, node) nodes t and the log of the steps between them: far enough out for e^-40 on either side."""
    peak, width = _peak(c, f, a, b, logit_s)
    scale = jnp.minimum(4 * width, 6.0)
    low = -jnp.arcsinh((10 * width + 40 / (a + c)) / scale)
    high = jnp.arcsinh((10 * width + 40 / b) / scale)
    u = low + (high - low) * _GRID
    return peak + scale * jnp.sinh(u), log(scale * (high - low) / (_NODES - 1) * jnp.cosh(u))


def _peak(c: jax.Array, f: jax.Array, a: jax.Array, b: jax.Array, logit_s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the integrand peaks in t, and its standard deviation there.

    Its slope [(a + c)(1 - y) - b y](1 - s y) - f s y (1 - y) = 0 is quadratic in y and in z = 1 - y, with one root in
    (0, 1); each is solved in the form that does not cancel.
    """
    s, rest = jax.nn.sigmoid(logit_s), jax.nn.sigmoid(-logit_s)
    n = a + b + c + f
    q = (a + b + c) + s * (a + c + f)
    y = 2 * (a + c) / (q + jnp.sqrt(jnp.maximum(q**2 - 4 * s * n * (a + c), 0.0)))
    q = (a + b + c) * rest - s * (b + f)
    root = jnp.sqrt(q**2 + 4 * s * n * b * rest)
    z = jnp.where(q > 0, 2 * b * rest / (jnp.abs(q) + root), (root - q) / (2 * s * n))
    failure = rest + s * z
    curvature = y * z * (a + b + c + f * s * (1 - 2 * y + s * y**2) / failure**2)
    return log(y) - log(z), 1 / jnp.sqrt(jnp.maximum(curvature, 1e-3 * y * z * (a + b + c)))


def _derived(
    log_tail_index: jax.Array, log_upper_shape: jax.Array, logit_ceiling: jax.Array
) -> Mapping[str, jax.Array]:
    ceiling = jax.nn.sigmoid(logit_ceiling)
    mean = ceiling * jax.nn.sigmoid(log_tail_index - log_upper_shape)
    return {"mean": mean, "tail_index": jnp.exp(log_tail_index), "zero_mass": jnp.zeros_like(mean), "ceiling": ceiling}


def _sample(key: jax.Array, theta: Theta, shape: tuple[int, ...]) -> jax.Array:
    share = sample_beta(key, jnp.exp(theta["log_tail_index"]), jnp.exp(theta["log_upper_shape"]), shape)
    return jax.nn.sigmoid(theta["logit_ceiling"]) * share


SCALED_BETA = RateLaw(
    name="scaled_beta",
    equation="p = s y, y ~ Beta(a, b)",
    reference="scaled beta-binomial: C(n,c) s^c B(c+a,b)/B(a,b) 2F1(c-n, c+a; c+a+b; s) (Schaeffer et al. 2025)",
    parameters=_PARAMETERS,
    log_moment=_log_moment,
    derived=_derived,
    derived_meaning=DERIVED_MEANING | {"ceiling": "largest success probability of any problem"},
    cells=count_cells,
    sample=_sample,
)
