"""The Kumaraswamy law: P(p <= x) = 1 - (1 - x^a)^b, close to a Beta law but with a tail that sets in slowly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayesscale.logarithms import log, log1mexp, log1p, log1pexp
from bayesscale.parameter import Parameter
from bayesscale.quadrature import HIGHEST, LOWEST
from bayesscale.rates.density import Density, law_of_density
from bayesscale.types import Theta

_PARAMETERS = (
    Parameter("log_tail_index", "ln a", "log of the tail index", dist.Normal(float(np.log(0.3)), 0.6)),
    Parameter(
        "log_scale", "ln p₀", "log of the upper end p0 of the bulk, b = p0^-a", dist.Normal(-4.0, 2.5), spread=1.0
    ),
)


def _shapes(theta: Theta) -> tuple[jax.Array, jax.Array]:
    a = jnp.exp(theta["log_tail_index"])
    return a, jnp.exp(-a * theta["log_scale"])


def _density(theta: Theta) -> Density:
    a, b = _shapes(theta)

    def log_density(x: jax.Array) -> jax.Array:
        log_p = -log1pexp(-x)
        return theta["log_tail_index"] + log(b) + a * log_p + (b - 1) * log1mexp(-a * log_p) - log1pexp(x)

    log_above_low = b * log1p(-jnp.exp(-a * log1pexp(-LOWEST)))
    log_above_high = b * log1mexp(a * log1pexp(-HIGHEST))
    return Density(log_density, (log1mexp(-log_above_low), log_above_high), jnp.zeros(()))


def _sample(key: jax.Array, theta: Theta, shape: tuple[int, ...]) -> jax.Array:
    a, b = _shapes(theta)
    log_v = -jax.random.exponential(key, shape) / b  # log(1 - p^a)
    return jnp.exp(log1mexp(-log_v) / a)


KUMARASWAMY = law_of_density(
    _density,
    lambda theta: jnp.exp(theta["log_tail_index"]),
    name="kumaraswamy",
    equation="P(p <= x) = 1 - (1 - x^a)^b, b = p0^-a",
    reference="Kumaraswamy 1980, J. Hydrology 46, 79-88, eq. 2; survival ~ b Gamma(1 + a) k^-a, slowly",
    parameters=_PARAMETERS,
    sample=_sample,
)
