"""Coordinates several laws share: the two levels of a curve and the shot where it is half way.

The level coordinates are logits, so that a law can be evaluated in log space without ever forming 1 - 1.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid

from bayesscale.logarithms import log, log1mexp, log1p, log_sigmoid
from bayesscale.parameter import Parameter
from bayesscale.types import Columns, LogMean

CEILING = Parameter(
    "logit_ceiling", "logit γ", "level reached with many shots, on the logit axis", dist.Normal(1.0, 1.5), spread=0.5
)
N50 = Parameter(
    "log_n50", "log n₅₀", "log shots at half of the rise", dist.Normal(math.log(30.0), 1.5), "log shots", spread=0.5
)


def level_below(name: str, symbol: str, meaning: str) -> Parameter:
    """Return a level below the ceiling as the logit of its ratio to the ceiling, with no knowledge of chance."""
    return Parameter(name, symbol, meaning, dist.Normal(-1.0, 1.5))


def chance_floor(facts: Columns) -> dist.Normal:
    """Prior of logit(floor/ceiling): centred on the chance level where it is known, wide where it is not.

    The floor of a Bayesian law is its no-evidence limit, so guessing is the natural centre. A curve whose first shot
    is far above chance speaks against that reading; there the prior is wider.
    """
    chance, first = facts["chance"], facts["first_value"]
    known = jnp.isfinite(chance)
    safe = jnp.where(known, jnp.clip(chance, 1e-4, 0.9), 0.5)
    centre = log(safe) - log1p(-safe)
    far = log(first) - log1p(-first) - centre > FAR_ABOVE_CHANCE
    return dist.Normal(jnp.where(known, centre, -1.0), jnp.where(known, jnp.where(far, 1.0, 0.5), 1.5))


FAR_ABOVE_CHANCE = 4.0
"""Logits of the first observed value above chance beyond which chance is doubted as the floor."""


def log_between(logit_ceiling: jax.Array, logit_ratio: jax.Array, z: jax.Array) -> LogMean:
    """(log p, log(1-p)) for p = floor + (ceiling - floor) sigmoid(z), floor = ceiling * sigmoid(logit_ratio).

    With a the odds of the ceiling and r = floor/ceiling: p = a (e^z + r) / ((1+a)(1+e^z)) and
    1 - p = (1 + e^z + a (1-r)) / ((1+a)(1+e^z)), every term positive. One exponential serves both signs of z.
    """
    risen = z > 0
    t = jnp.exp(jnp.where(risen, -z, z))
    per_total = 1.0 / (1.0 + t)
    ratio, missing = sigmoid(logit_ratio), jnp.exp(jnp.minimum(logit_ceiling, 300.0)) * sigmoid(-logit_ratio)
    log_p = log_sigmoid(logit_ceiling) + log(jnp.where(risen, 1.0 + ratio * t, t + ratio) * per_total)
    log_q = log_sigmoid(-logit_ceiling) + log(1.0 + missing * jnp.where(risen, t, 1.0) * per_total)
    return log_p, log_q


def from_log(log_p: jax.Array) -> LogMean:
    """(log p, log(1-p)) from log p < 0."""
    return log_p, log1mexp(jnp.maximum(-log_p, 1e-300))


def log_half_rise(log_n: jax.Array, log_n50: jax.Array, log_slope: jax.Array) -> jax.Array:
    """log-odds that a Hill curve has risen: slope * log(n / n50)."""
    return jnp.exp(log_slope) * (log_n - log_n50)


def safe_log_shots(n: jax.Array) -> jax.Array:
    """log n, with a finite stand-in at n = 0 far below any shot count, so that gradients stay finite."""
    return log(jnp.where(n > 0, n, 1e-30))


def on_curve_slope(log_n50: jax.Array, log_kappa: jax.Array, lam: jax.Array) -> jax.Array:
    """Slope b of the log-odds per unit of g, from the steepness per unit of log n at n50: b = kappa / (dg/dlog n)."""
    n50 = jnp.exp(log_n50)
    return jnp.exp(log_kappa - log_n50 + (1.0 - lam) * log1p(n50))


STRETCH = 3.2
"""Twice the logits per unit of v about zero: there a uniform share is nearly a standard normal v."""


def stretched(v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The logit of a share of which data may only say that it is near 0 or 1, c = STRETCH sinh(v / 2), and log dc/dv.

    On the logit axis such a share has an exponential tail of tens to hundreds of units, through which chains crawl; v grows as
    its log.
    """
    return STRETCH * jnp.sinh(0.5 * v), log(0.5 * STRETCH * jnp.cosh(0.5 * v))


def unstretched(c: jax.Array) -> jax.Array:
    """v of the logit c."""
    return 2.0 * jnp.arcsinh(c / STRETCH)
