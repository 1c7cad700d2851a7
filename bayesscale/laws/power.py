"""Power laws of the negative log-likelihood in the number of shots.

    power:          NLL(n) = e^C n^(-alpha) + E
    bounded power:  NLL(n) = e^C (1 + n / n_c)^(-alpha) + E

(Arora et al. 2024, arXiv 2410.16531, baselines.) Coordinates are on the curve: the ceiling gives E = -log gamma, the value
at the first shot (power) or at zero shots (bounded) gives e^C, and n_c follows from the shot n50 where the excess NLL has
halved: n_c = n50 / (2^(1/alpha) - 1). The pure power law is infinite at zero shots.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid

from bayesscale.law import Coordinates, Law
from bayesscale.laws.coordinates import CEILING, N50, from_log, level_below, safe_log_shots
from bayesscale.laws.level import nll_level_of
from bayesscale.laws.nll_ends import NllCoordinates, ends_from, ends_of, log_nll_of, logit_of_nll
from bayesscale.logarithms import log, log1mexp, log1p, log_sigmoid, logaddexp
from bayesscale.parameter import Parameter

REFERENCE = "Arora et al. 2024, arXiv:2410.16531, baselines"
MEANING = {
    "E": "irreducible NLL, nats",
    "C": "log of the reducible NLL at the first shot (bounded: at zero shots)",
    "alpha": "exponent",
    "gamma": "level reached with unboundedly many shots",
}


def alpha(centre: float, scale: float) -> Parameter:
    """Return the log exponent with its prior."""
    return Parameter("log_alpha", "log α", "log of the exponent", dist.Normal(centre, scale), spread=0.3)


def power_log_mean(n, *, logit_ceiling, logit_first_ratio, log_alpha):
    decay = jnp.exp(-jnp.exp(log_alpha) * safe_log_shots(n))
    return from_log(log_sigmoid(logit_ceiling) + log_sigmoid(logit_first_ratio) * decay)


def power_derived(*, logit_ceiling, logit_first_ratio, log_alpha):
    return {
        "E": -log_sigmoid(logit_ceiling),
        "C": log_nll_of(logit_first_ratio),
        "alpha": jnp.exp(log_alpha),
        "gamma": sigmoid(logit_ceiling),
    }


def log_onset(log_n50, log_alpha):
    """log n_c = log n50 - log(2^(1/alpha) - 1), safe for small alpha where 2^(1/alpha) overflows."""
    doubling = math.log(2.0) * jnp.exp(-log_alpha)
    return log_n50 - (doubling + log(-jnp.expm1(-doubling)))


def bounded_log_mean(n, *, logit_ceiling, logit_zero_ratio, log_n50, log_alpha):
    decay = jnp.exp(-log_decay(n, log_n50, log_alpha))
    return from_log(log_sigmoid(logit_ceiling) + log_sigmoid(logit_zero_ratio) * decay)


def log_decay(n, log_n50, log_alpha):
    """alpha log(1 + n / n_c): minus the log of what is left of the reducible NLL."""
    return jnp.exp(log_alpha) * logaddexp(0.0, safe_log_shots(n) - log_onset(log_n50, log_alpha))


def bounded_rise(n, log_n50, log_alpha):
    """Log-odds that the rise is done."""
    fallen = jnp.maximum(log_decay(n, log_n50, log_alpha), 1e-300)
    return fallen + log1mexp(fallen)


def bounded_derived(*, logit_ceiling, logit_zero_ratio, log_n50, log_alpha):
    return {
        "E": -log_sigmoid(logit_ceiling),
        "C": log_nll_of(logit_zero_ratio),
        "alpha": jnp.exp(log_alpha),
        "gamma": sigmoid(logit_ceiling),
        "n_c": jnp.exp(log_onset(log_n50, log_alpha)),
    }


def log_spread(facts):
    """log of last over first shot."""
    return log(facts["last_shots"]) - log(facts["first_shots"])


def power_from_ends(w, facts):
    """Parameters from the three coordinates of `nll_ends`, the fall taken since the first shot.

    With L the NLL at the last shot, L e^f its fall since the first, E = L s and D = log(n_last / n_first),
    alpha = log(1 + e^f / (1 - s)) / D and e^C = L (1 - s) n_last^alpha; |d(log E, C, log alpha) / dw| = (d alpha / df) / alpha.
    """
    at = ends_of(*w)
    alpha = at.log_ratio / log_spread(facts)
    logit_ceiling, ceiling_slope = logit_of_nll(at.log_e)
    logit_first, first_slope = logit_of_nll(at.log_rest + alpha * log(facts["last_shots"]))
    determinant = at.determinant - log(at.log_ratio)
    return jnp.stack([logit_ceiling, logit_first, log(alpha)]), ceiling_slope + first_slope + determinant


def power_to_ends(theta, facts):
    log_e, log_c = log_nll_of(theta[0]), log_nll_of(theta[1])
    alpha = jnp.exp(theta[2])
    return jnp.stack(ends_from(log_e, log_c - alpha * log(facts["last_shots"]), alpha * log_spread(facts)))


def log_bend(log_n_c, facts):
    """log D, with D = log((n_c + n_last) / (n_c + n_first)), which the bounded law falls along at the rate alpha."""
    first, last = facts["first_shots"], facts["last_shots"]
    return log(log1p((last - first) / (jnp.exp(log_n_c) + first)))


def bounded_from_ends(w, facts):
    """Levels from the three coordinates of `nll_ends`, the fall taken since the first shot, and log n_c.

    With R = 1 + e^f / (1 - s) the ratio of the reducible NLLs at the first and at the last shot, alpha = log R / D, D as in
    `log_bend`, and |d(log E, C, log n50, log alpha) / dw| = (d log R / df) / log R. n_c is left to say how the fall bends between
    the ends. A fall taken since no shots would not do: where the data begin at one, it trades against n_c.
    """
    at, log_n_c = ends_of(*w[:3]), w[3]
    log_alpha = log(at.log_ratio) - log_bend(log_n_c, facts)
    log_zero = at.log_rest + jnp.exp(log_alpha) * logaddexp(0.0, log(facts["last_shots"]) - log_n_c)
    log_n50 = log_n_c - log_onset(0.0, log_alpha)
    return (at.log_e, log_zero, jnp.stack([log_n50, log_alpha])), at.determinant - log(at.log_ratio)


def bounded_to_ends(levels, facts):
    log_e, log_zero, (log_n50, log_alpha) = levels
    alpha, log_n_c = jnp.exp(log_alpha), log_onset(log_n50, log_alpha)
    log_rest = log_zero - alpha * logaddexp(0.0, log(facts["last_shots"]) - log_n_c)
    ends = ends_from(log_e, log_rest, alpha * jnp.exp(log_bend(log_n_c, facts)))
    return jnp.stack([*ends, log_n_c])


POWER = Law(
    name="power",
    equation="NLL = e^C n^(-alpha) + E",
    reference=REFERENCE,
    parameters=(
        CEILING,
        level_below("logit_first_ratio", "logit p₁/γ", "value at one shot over ceiling"),
        alpha(math.log(0.4), 0.8),
    ),
    log_mean=power_log_mean,
    derived=power_derived,
    derived_meaning=MEANING,
    family="baseline",
    singular_at_zero=True,
    rising=Coordinates(power_from_ends, power_to_ends),
)
BOUNDED_POWER = Law(
    name="bounded_power",
    equation="NLL = e^C (1 + n/n_c)^(-alpha) + E",
    reference=REFERENCE,
    parameters=(
        CEILING,
        level_below("logit_zero_ratio", "logit p₀/γ", "value at zero shots over ceiling"),
        N50,
        alpha(0.0, 1.0),
    ),
    log_mean=bounded_log_mean,
    derived=bounded_derived,
    derived_meaning=MEANING | {"n_c": "shots where the power law sets in"},
    family="baseline",
    rising=NllCoordinates(bounded_from_ends, bounded_to_ends).of_parameters(),
    level=nll_level_of(bounded_rise).of_parameters(),
)
