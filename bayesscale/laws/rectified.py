"""The rectified scaling law: a power law whose clock started before the first demonstration.

    NLL(n) = (B / (D_l + n^s) + E)^alpha        (Lin et al. 2024, "Selecting Large Language Model to Fine-tune via
                                                 Rectified Scaling Law", arXiv 2402.02314)

D_l is the amount of data already learned. With alpha = 1 this is the logistic baseline. Coordinates are on the curve: the
ceiling gives E^alpha, the value at zero shots (B / D_l + E)^alpha, and D_l = n50^s.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid

from bayesscale.law import Coordinates, Law
from bayesscale.laws.coordinates import CEILING, N50, from_log
from bayesscale.laws.logistic import LOGISTIC_LEVEL, SLOPE, START, rise
from bayesscale.laws.nll_ends import levels_of, parameters_of
from bayesscale.logarithms import log, log1mexp, log_sigmoid, logaddexp
from bayesscale.parameter import Parameter

OUTER = Parameter("log_alpha", "log α", "log of the outer exponent", dist.Normal(0.0, 0.5), spread=0.2)


def roots(logit_ceiling, logit_zero_ratio, log_alpha):
    """alpha-th roots of the NLL at infinitely many and at zero shots."""
    log_ceiling = log_sigmoid(logit_ceiling)
    inverse = jnp.exp(-log_alpha)
    return jnp.exp(inverse * log(-log_ceiling)), jnp.exp(inverse * log(-log_ceiling - log_sigmoid(logit_zero_ratio)))


def log_mean(n, *, logit_ceiling, logit_zero_ratio, log_n50, log_slope, log_alpha):
    last, first = roots(logit_ceiling, logit_zero_ratio, log_alpha)
    risen = rise(n, log_n50, log_slope)
    return from_log(-jnp.exp(jnp.exp(log_alpha) * log(last * sigmoid(risen) + first * sigmoid(-risen))))


def derived(*, logit_ceiling, logit_zero_ratio, log_n50, log_slope, log_alpha):
    last, first = roots(logit_ceiling, logit_zero_ratio, log_alpha)
    s = jnp.exp(log_slope)
    log_pre_learned = s * log_n50
    return {
        "E": last,
        "log_B": log(first - last) + log_pre_learned,
        "log_D_l": log_pre_learned,
        "s": s,
        "alpha": jnp.exp(log_alpha),
        "gamma": sigmoid(logit_ceiling),
    }


def from_level(w, facts):
    """Parameters from the level coordinates of a logistic law for the alpha-th root of the NLL, and log alpha.

    The level is the NLL's. With e and x the levels of the root and f = e + x: E = e^alpha, and the reducible NLL at no shots
    is Z = f^alpha - e^alpha, so |d(log E, log Z) / d(log e, log x)| = alpha^2 f^(alpha - 1) x / Z.
    """
    log_alpha, alpha = w[4], jnp.exp(w[4])
    (log_e, log_x, shape), inner = LOGISTIC_LEVEL.to_levels(jnp.concatenate([w[:1] / alpha, w[1:4]]), facts)
    log_first = logaddexp(log_e, log_x)
    log_zero = alpha * log_first + log1mexp(alpha * (log_first - log_e))
    theta, outer = parameters_of((alpha * log_e, log_zero, jnp.stack([*shape, log_alpha])))
    # The level's own factor 1 / alpha cancels one of the two of alpha.
    return theta, inner + outer + log_alpha + (alpha - 1.0) * log_first + log_x - log_zero


def to_level(theta, facts):
    log_e, log_zero, shape = levels_of(theta)
    alpha = jnp.exp(theta[4])
    ratio = logaddexp(0.0, log_zero - log_e) / alpha  # log(f / e)
    log_e = log_e / alpha
    w = LOGISTIC_LEVEL.from_levels((log_e, log_e + log(jnp.expm1(jnp.minimum(ratio, 690.0))), shape[:2]), facts)
    return jnp.concatenate([w[:1] * alpha, w[1:], theta[4:5]])


RECTIFIED = Law(
    name="rectified",
    equation="NLL = (B / (D_l + n^s) + E)^alpha",
    reference="Lin et al. 2024, arXiv:2402.02314",
    parameters=(CEILING, START, N50, SLOPE, OUTER),
    log_mean=log_mean,
    derived=derived,
    derived_meaning={
        "E": "alpha-th root of the irreducible NLL",
        "log_B": "log of the reducible scale",
        "log_D_l": "log of the pre-learned amount, in shots^s",
        "s": "inner exponent",
        "alpha": "outer exponent",
        "gamma": "level reached with unboundedly many shots",
    },
    family="baseline",
    level=Coordinates(from_level, to_level, follows=True),
)
