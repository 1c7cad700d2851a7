"""The three-slope law: the odds of success are a scaled beta-prime variable, with an exponent of its own at each end."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayesscale.logarithms import log1pexp
from bayesscale.parameter import Parameter
from bayesscale.quadrature import HIGHEST, LOWEST
from bayesscale.rates.density import Density, law_of_density
from bayesscale.special import log_beta
from bayesscale.types import Theta

_PARAMETERS = (
    Parameter("log_tail_index", "ln b", "log of the tail index", dist.Normal(float(np.log(0.32)), 0.6)),
    Parameter("location", "μ", "m + ln b - ln d, near the log of the mean odds", dist.Normal(-5.0, 2.5), spread=1.0),
    Parameter("log_upper_slope", "ln d", "log of the exponent with which large odds fall off", dist.Normal(1.5, 1.0)),
)


def _centre(theta: Theta) -> jax.Array:
    return theta["location"] - theta["log_tail_index"] + theta["log_upper_slope"]


def _density(theta: Theta) -> Density:
    b, d, centre = jnp.exp(theta["log_tail_index"]), jnp.exp(theta["log_upper_slope"]), _centre(theta)

    def log_density(x: jax.Array) -> jax.Array:
        return b * (x - centre) - (b + d) * log1pexp(x - centre)

    # A tail exp(b u) holds 1/b times its density at the end of the axis.
    below = log_density(jnp.asarray(LOWEST)) - theta["log_tail_index"]
    above = log_density(jnp.asarray(HIGHEST)) - theta["log_upper_slope"]
    return Density(log_density, (below, above), log_beta(b, d))


def _sample(key: jax.Array, theta: Theta, shape: tuple[int, ...]) -> jax.Array:
    key_up, key_down = jax.random.split(key)
    up = jax.random.loggamma(key_up, jnp.exp(theta["log_tail_index"]), shape)
    down = jax.random.loggamma(key_down, jnp.exp(theta["log_upper_slope"]), shape)
    return jax.nn.sigmoid(_centre(theta) + up - down)


THREE_SLOPE = law_of_density(
    _density,
    lambda theta: jnp.exp(theta["log_tail_index"]),
    name="three_slope",
    equation="density of x = logit p: exp(b u) / (1 + e^u)^(b + d), u = x - m; m = mu - ln b + ln d",
    reference="odds p / (1 - p) = e^m times a beta-prime(b, d) variable; slopes b below m, -d above",
    parameters=_PARAMETERS,
    sample=_sample,
)
