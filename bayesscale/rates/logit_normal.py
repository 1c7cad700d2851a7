"""The logit-normal law, the usual hierarchical choice: its tail falls faster than any power."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr

from bayesscale.logarithms import log
from bayesscale.parameter import Parameter
from bayesscale.quadrature import HIGHEST, LOWEST
from bayesscale.rates.density import Density, law_of_density
from bayesscale.types import Theta

_PARAMETERS = (
    Parameter("location", "μ", "mean of the logits", dist.Normal(-6.0, 3.0), spread=1.0),
    Parameter("log_scale", "ln σ", "log standard deviation of the logits", dist.Normal(1.0, 0.7)),
)


def _density(theta: Theta) -> Density:
    location, scale = theta["location"], jnp.exp(theta["log_scale"])

    def log_density(x: jax.Array) -> jax.Array:
        return -0.5 * ((x - location) / scale) ** 2

    tails = log_ndtr((LOWEST - location) / scale), log_ndtr((location - HIGHEST) / scale)
    total = theta["log_scale"] + 0.5 * log(2 * jnp.pi)
    return Density(log_density, (tails[0] + total, tails[1] + total), total)


def _sample(key: jax.Array, theta: Theta, shape: tuple[int, ...]) -> jax.Array:
    return jax.nn.sigmoid(theta["location"] + jnp.exp(theta["log_scale"]) * jax.random.normal(key, shape))


LOGIT_NORMAL = law_of_density(
    _density,
    lambda theta: jnp.full_like(theta["location"], jnp.inf),
    name="logit_normal",
    equation="logit p ~ Normal(mu, sigma)",
    reference="survival near Phi((-ln k - mu) / sigma): the local exponent grows with ln k",
    parameters=_PARAMETERS,
    sample=_sample,
)
