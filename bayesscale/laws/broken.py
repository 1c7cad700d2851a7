"""A power law with one smooth break.

    NLL(n) = E + A n^(-c0) * (1 + (n / d)^(1/f))^(-(c1 - c0) f)        (Caballero et al. 2022, arXiv 2210.14891, one break)

The log-log slope is c0 well before the break at d shots and c1 well after it; f is the break's width in log n. Coordinates:
the ceiling gives E, the value at one shot gives A. Infinite at zero shots.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid

from bayesscale.law import Law
from bayesscale.laws.coordinates import CEILING, from_log, level_below, safe_log_shots
from bayesscale.logarithms import log, log1pexp, log_sigmoid
from bayesscale.parameter import Parameter

EARLY = Parameter("log_c0", "log c₀", "log exponent before the break", dist.Normal(math.log(0.2), 1.0), spread=0.3)
LATE = Parameter("log_c1", "log c₁", "log exponent after the break", dist.Normal(math.log(0.5), 1.0), spread=0.3)
BREAK = Parameter("log_d", "log d", "log shots at the break", dist.Normal(math.log(30.0), 1.5), "log shots", spread=0.5)
WIDTH = Parameter("log_f", "log f", "log width of the break in log n", dist.Normal(math.log(0.4), 0.5), spread=0.2)


def log_decay(log_n, log_c0, log_c1, log_d, log_f):
    """log of the reducible NLL up to a constant."""
    c0, c1, f = jnp.exp(log_c0), jnp.exp(log_c1), jnp.exp(log_f)
    return -c0 * log_n - (c1 - c0) * f * log1pexp((log_n - log_d) / f)


def log_mean(n, *, logit_ceiling, logit_first_ratio, log_c0, log_c1, log_d, log_f):
    shape = (log_c0, log_c1, log_d, log_f)
    decay = jnp.exp(log_decay(safe_log_shots(n), *shape) - log_decay(0.0, *shape))
    return from_log(log_sigmoid(logit_ceiling) + log_sigmoid(logit_first_ratio) * decay)


def derived(*, logit_ceiling, logit_first_ratio, log_c0, log_c1, log_d, log_f):
    log_first = log(-log_sigmoid(logit_first_ratio))
    return {
        "E": -log_sigmoid(logit_ceiling),
        "log_A": log_first - log_decay(0.0, log_c0, log_c1, log_d, log_f),
        "c0": jnp.exp(log_c0),
        "c1": jnp.exp(log_c1),
        "d": jnp.exp(log_d),
        "f": jnp.exp(log_f),
        "gamma": sigmoid(logit_ceiling),
    }


BROKEN_POWER = Law(
    name="broken_power",
    equation="NLL = E + A n^(-c0) (1 + (n/d)^(1/f))^(-(c1-c0) f)",
    reference="Caballero et al. 2022, arXiv:2210.14891, one break",
    parameters=(
        CEILING,
        level_below("logit_first_ratio", "logit p₁/γ", "value at one shot over ceiling"),
        EARLY,
        LATE,
        BREAK,
        WIDTH,
    ),
    log_mean=log_mean,
    derived=derived,
    derived_meaning={
        "E": "irreducible NLL, nats",
        "log_A": "log of the reducible scale",
        "c0": "exponent before the break",
        "c1": "exponent after the break",
        "d": "shots at the break",
        "f": "width of the break in log n",
        "gamma": "level reached with unboundedly many shots",
    },
    family="baseline",
    singular_at_zero=True,
)
