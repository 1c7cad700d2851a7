"""The spliced law: a Beta body above a threshold t, a power-law tail of its own below it.

The two pieces meet continuously. Their corner is rounded over about half a logit on either side, so that the density is
analytic and its moments are smooth in t; at the corner itself the density differs from the sharp one by 2^((a - b) / 4).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

from bayesscale.logarithms import log, log1pexp, logaddexp
from bayesscale.parameter import Parameter
from bayesscale.quadrature import HIGHEST, LOWEST, log_end_weights
from bayesscale.rates.density import Density, law_of_density
from bayesscale.types import Theta

_SHARPNESS = 4.0
_AXIS = np.linspace(LOWEST, HIGHEST, 361)
_LOG_STEPS = np.log(_AXIS[1] - _AXIS[0]) + log_end_weights(_AXIS.size)
_PARAMETERS = (
    Parameter("log_tail_index", "ln b", "log of the tail index", dist.Normal(-1.2, 0.6)),
    Parameter("log_shape", "ln a", "log first shape of the body", dist.Normal(-1.0, 1.0)),
    Parameter("log_upper_shape", "ln β", "log second shape of the body", dist.Normal(3.0, 2.0), spread=1.0),
    Parameter("log_threshold", "ln t", "log of the threshold", dist.Normal(-6.0, 2.0), spread=1.0),
)


def _density(theta: Theta) -> Density:
    b, a, upper = (jnp.exp(theta[name]) for name in ("log_tail_index", "log_shape", "log_upper_shape"))

    def log_density(x: jax.Array) -> jax.Array:
        log_p = -log1pexp(-x)
        tail = (a - b) / _SHARPNESS * log1pexp(_SHARPNESS * (theta["log_threshold"] - log_p))
        return a * log_p - upper * log1pexp(x) + tail

    below = log_density(jnp.asarray(LOWEST)) - theta["log_tail_index"]
    above = log_density(jnp.asarray(HIGHEST)) - theta["log_upper_shape"]
    on_axis = logsumexp(_LOG_STEPS + log_density(jnp.asarray(_AXIS)))
    return Density(log_density, (below, above), logaddexp(on_axis, logaddexp(below, above)))


def _sample(key: jax.Array, theta: Theta, shape: tuple[int, ...]) -> jax.Array:
    """Invert the distribution function, tabulated on the axis of logits; below the axis p is a power of a uniform."""
    at, b = _density(theta), jnp.exp(theta["log_tail_index"])
    axis = jnp.linspace(LOWEST, HIGHEST, 8192)
    density = jnp.exp(at.log_density(axis) - at.log_total)
    steps = 0.5 * (density[1:] + density[:-1]) * (axis[1] - axis[0])
    cumulative = jnp.exp(at.log_tails[0] - at.log_total) + jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])
    uniform = jax.random.uniform(key, shape)
    below = LOWEST + (log(uniform) - log(cumulative[0])) / b
    return jax.nn.sigmoid(jnp.where(uniform < cumulative[0], below, jnp.interp(uniform, cumulative, axis)))


SPLICED = law_of_density(
    _density,
    lambda theta: jnp.exp(theta["log_tail_index"]),
    name="spliced",
    equation="density of p: p^(a-1) (1-p)^(beta-1) [1 + (t/p)^4]^((a-b)/4): Beta(a, beta) above t, ~ p^(b-1) below",
    reference="Beta body with a power-law lower tail, joined continuously at t",
    parameters=_PARAMETERS,
    sample=_sample,
)
