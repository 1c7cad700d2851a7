"""Hill curves: logistic in the logarithm of the number of shots.

    logistic:  NLL(n) = e^L / (1 + (n / n50)^s) + E          (Arora et al. 2024, arXiv 2410.16531, baseline)
    hill:      p(n) = floor + (ceiling - floor) / (1 + (n / n50)^(-s))

The first bends the NLL, the second the probability. At zero shots both sit at their starting level, unlike the Bayesian
laws, whose floor is a limit without evidence: so chance is no natural centre for it and is not used.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid

from bayesscale.law import Law
from bayesscale.laws.coordinates import CEILING, N50, from_log, level_below, log_between, log_half_rise, safe_log_shots
from bayesscale.laws.level import level_of, nll_level_of
from bayesscale.laws.nll_ends import NllCoordinates, ends_from, ends_of, log_nll_of
from bayesscale.logarithms import log, log_sigmoid, logaddexp
from bayesscale.parameter import Parameter

SLOPE = Parameter("log_slope", "log s", "log of the Hill exponent", dist.Normal(0.0, 0.7), spread=0.3)
START = level_below("logit_zero_ratio", "logit p₀/γ", "value at zero shots over ceiling")


def rise(n, log_n50, log_slope):
    """Log-odds that the rise is done."""
    return log_half_rise(safe_log_shots(n), log_n50, log_slope)


def logistic_log_mean(n, *, logit_ceiling, logit_zero_ratio, log_n50, log_slope):
    remaining = sigmoid(-rise(n, log_n50, log_slope))
    return from_log(log_sigmoid(logit_ceiling) + log_sigmoid(logit_zero_ratio) * remaining)


def hill_log_mean(n, *, logit_ceiling, logit_zero_ratio, log_n50, log_slope):
    return log_between(logit_ceiling, logit_zero_ratio, rise(n, log_n50, log_slope))


def logistic_from_ends(w, facts):
    """Levels from the three coordinates of `nll_ends`, the fall taken since no shots, and log s.

    R = 1 + (N / n50)^s, so log n50 = log N - log(R - 1) / s; |d(log E, log e^L, log n50, log s) / dw| = 1 / s times the stretch.
    """
    at, log_slope = ends_of(*w[:3]), w[3]
    log_n50 = log(facts["last_shots"]) - at.log_rise * jnp.exp(-log_slope)
    return (at.log_e, at.log_rest + at.log_ratio, jnp.stack([log_n50, log_slope])), at.stretch - log_slope


def logistic_to_ends(levels, facts):
    log_e, log_zero, (log_n50, log_slope) = levels
    log_ratio = logaddexp(0.0, log_half_rise(log(facts["last_shots"]), log_n50, log_slope))
    return jnp.stack([*ends_from(log_e, log_zero - log_ratio, log_ratio), log_slope])


LOGISTIC_LEVEL, HILL_LEVEL = nll_level_of(rise), level_of(rise)


def logistic_derived(*, logit_ceiling, logit_zero_ratio, log_n50, log_slope):
    return {
        "E": -log_sigmoid(logit_ceiling),
        "L": log_nll_of(logit_zero_ratio),
        "n50": jnp.exp(log_n50),
        "s": jnp.exp(log_slope),
        "gamma": sigmoid(logit_ceiling),
    }


def hill_derived(*, logit_ceiling, logit_zero_ratio, log_n50, log_slope):
    gamma = sigmoid(logit_ceiling)
    return {
        "gamma": gamma,
        "floor": gamma * sigmoid(logit_zero_ratio),
        "n50": jnp.exp(log_n50),
        "s": jnp.exp(log_slope),
    }


LOGISTIC = Law(
    name="logistic",
    equation="NLL = e^L / (1 + (n/n50)^s) + E",
    reference="Arora et al. 2024, arXiv:2410.16531, baselines",
    parameters=(CEILING, START, N50, SLOPE),
    log_mean=logistic_log_mean,
    derived=logistic_derived,
    derived_meaning={
        "E": "irreducible NLL, nats",
        "L": "log of the reducible NLL at zero shots",
        "n50": "shots where the reducible NLL has halved",
        "s": "Hill exponent",
        "gamma": "level reached with unboundedly many shots",
    },
    family="baseline",
    rising=NllCoordinates(logistic_from_ends, logistic_to_ends).of_parameters(),
    level=LOGISTIC_LEVEL.of_parameters(),
)
HILL = Law(
    name="hill",
    equation="p = floor + (gamma-floor) / (1 + (n/n50)^(-s))",
    reference="Hill 1910; logistic in log shots, on the probability",
    parameters=(CEILING, START, N50, SLOPE),
    log_mean=hill_log_mean,
    derived=hill_derived,
    derived_meaning={
        "gamma": "level reached with unboundedly many shots",
        "floor": "level at zero shots",
        "n50": "shots at half of the rise",
        "s": "Hill exponent",
    },
    family="baseline",
    rising=HILL_LEVEL,
    level=HILL_LEVEL,
)
