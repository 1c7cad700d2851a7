"""Bayesian laws for one curve.

Under row tying, a Bayesian learner choosing among tasks follows, exactly (Arora et al. 2024, arXiv 2410.16531, scoring law),

    p(n) = beta + (gamma - beta) * sigmoid(logit(rho) + K * log(gamma / beta) * g(n)),        g(n) = n.

`rho` is the prior probability of the true task, `gamma` and `beta` the probability an example has under the true and the
rival hypothesis, `K` how much evidence one shot carries. Tempering replaces g(n) = n by the Box-Cox transform
g_lambda(n) = ((1 + n)^lambda - 1) / lambda: lambda = 1 is the paper's law, lambda -> 0 counts shots on a log axis.

Two sets of coordinates. *On-curve* laws have a slope of their own and are parametrised by what can be seen on the curve:
ceiling, floor, half-saturation shot n50 and the steepness kappa there (per unit of log n); rho, K, gamma, beta are
derived. *Strict* laws are parametrised by logit(rho), log K, gamma, beta themselves, so that groups can share K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import sigmoid

from bayesscale.law import Coordinates, Law
from bayesscale.laws.coordinates import CEILING, N50, chance_floor, log_between, on_curve_slope
from bayesscale.laws.ends import ends_of
from bayesscale.laws.level import level_of
from bayesscale.logarithms import log1p, log_sigmoid
from bayesscale.parameter import LogitBeta, Parameter
from bayesscale.special import box_cox

REFERENCE = "Arora et al. 2024, arXiv:2410.16531, scoring law; row-tied identity"
FORMS: Mapping[str, float | None] = {"tempered": None, "log_shots": 0.0, "linear": 1.0}
"""Evidence transforms by name: the exponent lambda, or None where it is a parameter."""

FLOOR = Parameter("logit_floor_ratio", "logit β/γ", "no-evidence level over ceiling, on the logit axis", chance_floor)
KAPPA = Parameter("log_kappa", "log κ", "log steepness at n50, per unit of log n", dist.Normal(0.0, 0.7), spread=0.3)
LAMBDA = Parameter("logit_lambda", "logit λ", "logit of the evidence exponent", LogitBeta(2.0, 2.0), spread=0.5)
LOGIT_RHO = Parameter("logit_rho", "logit ρ", "prior log-odds of the true task", dist.Normal(-2.0, 2.0), spread=1.0)

MEANING = {
    "rho": "prior probability of the true task",
    "K": "learning efficiency: evidence per unit of g(n)",
    "gamma": "probability under the true task (ceiling)",
    "beta": "probability under the rival (floor)",
    "lambda": "evidence exponent: 1 linear in shots, 0 logarithmic",
    "n50": "shots at half of the rise",
    "p0": "value with no demonstrations",
}


def growth(form: str, n: jax.Array, lam: jax.Array) -> jax.Array:
    """g(n) of a form; the fixed ones need no general power."""
    fixed = FORMS[form]
    return box_cox(n, lam) if fixed is None else log1p(n) if fixed == 0.0 else jnp.asarray(n)


def exponent(form: str, logit_lambda: jax.Array | None) -> jax.Array:
    """Return lambda of a form: fixed, or the sigmoid of its coordinate."""
    fixed = FORMS[form]
    if fixed is not None:
        return jnp.asarray(fixed)
    assert logit_lambda is not None
    return sigmoid(logit_lambda)


def on_curve_law(form: str) -> Law:
    """Build the free-slope law of a form in on-curve coordinates."""

    def log_odds(n, log_n50, log_kappa, lam):
        return on_curve_slope(log_n50, log_kappa, lam) * (growth(form, n, lam) - growth(form, jnp.exp(log_n50), lam))

    def rise(n, log_n50, log_kappa, logit_lambda=None):
        return log_odds(n, log_n50, log_kappa, exponent(form, logit_lambda))

    def log_mean(n, *, logit_ceiling, logit_floor_ratio, log_n50, log_kappa, logit_lambda=None):
        return log_between(logit_ceiling, logit_floor_ratio, rise(n, log_n50, log_kappa, logit_lambda))

    def derived(*, logit_ceiling, logit_floor_ratio, log_n50, log_kappa, logit_lambda=None):
        lam = exponent(form, logit_lambda)
        a = log_odds(0.0, log_n50, log_kappa, lam)
        slope = on_curve_slope(log_n50, log_kappa, lam)
        k = slope / -log_sigmoid(logit_floor_ratio)
        return paper_quantities(a, k, logit_ceiling, logit_floor_ratio, lam, jnp.exp(log_n50))

    slope = "z(n) = kappa (g(n) - g(n50)) / (n50 (1+n50)^(lambda-1))"
    equation = f"p = beta + (gamma-beta) sigmoid(z(n)); {slope}"
    ends = ends_of(partial(growth, form), inverse_box_cox, partial(exponent, form))
    return _law(form, form, (CEILING, FLOOR, N50, KAPPA), equation, log_mean, derived, ends, level_of(rise))


def strict_law(form: str) -> Law:
    """Build the strict law of a form: the slope is K log(gamma/beta), in the paper's own parameters."""
    typical = {"tempered": 0.5, "log_shots": 1.0, "linear": 0.1}[form]
    log_k = Parameter("log_K", "log K", "log learning efficiency", dist.Normal(math.log(typical), 1.5), spread=0.5)

    def log_mean(n, *, logit_rho, log_K, logit_ceiling, logit_floor_ratio, logit_lambda=None):
        slope = jnp.exp(log_K) * -log_sigmoid(logit_floor_ratio)
        z = logit_rho + slope * growth(form, n, exponent(form, logit_lambda))
        return log_between(logit_ceiling, logit_floor_ratio, z)

    def derived(*, logit_rho, log_K, logit_ceiling, logit_floor_ratio, logit_lambda=None):
        lam, k = exponent(form, logit_lambda), jnp.exp(log_K)
        evidence = -logit_rho / (k * -log_sigmoid(logit_floor_ratio))
        return paper_quantities(logit_rho, k, logit_ceiling, logit_floor_ratio, lam, inverse_box_cox(evidence, lam))

    equation = "p = beta + (gamma-beta) sigmoid(logit(rho) + K log(gamma/beta) g(n))"
    return _law(f"{form}_strict", form, (LOGIT_RHO, log_k, CEILING, FLOOR), equation, log_mean, derived)


def _law(
    name: str,
    form: str,
    parameters: tuple[Parameter, ...],
    equation: str,
    log_mean: Callable,
    derived: Callable,
    rising: Coordinates | None = None,
    level: Coordinates | None = None,
) -> Law:
    fixed = FORMS[form]
    g = {None: "((1+n)^lambda - 1)/lambda", 0.0: "log(1+n)", 1.0: "n"}[fixed]
    return Law(
        name=name,
        equation=f"{equation}; g(n) = {g}",
        reference=REFERENCE,
        parameters=parameters + ((LAMBDA,) if fixed is None else ()),
        log_mean=log_mean,
        derived=derived,
        derived_meaning=MEANING,
        rising=rising,
        level=level,
    )


def paper_quantities(
    a: jax.Array, k: jax.Array, logit_ceiling: jax.Array, logit_ratio: jax.Array, lam: jax.Array, n50: jax.Array
) -> dict[str, jax.Array]:
    """Return what the paper reports, from the log prior odds a, K, the two levels and lambda."""
    gamma = sigmoid(logit_ceiling)
    return {
        "rho": sigmoid(a),
        "K": k,
        "gamma": gamma,
        "beta": gamma * sigmoid(logit_ratio),
        "lambda": jnp.broadcast_to(lam, jnp.shape(k)),
        "n50": n50,
        "p0": jnp.exp(log_between(logit_ceiling, logit_ratio, a)[0]),
    }


def inverse_box_cox(evidence: jax.Array, lam: jax.Array) -> jax.Array:
    """Shots n with g_lambda(n) = evidence; 0 where the half-way point lies before the first shot."""
    positive = jnp.maximum(evidence, 0.0)
    power = jnp.where(lam > 1e-8, log1p(lam * positive) / jnp.maximum(lam, 1e-8), positive)
    return jnp.expm1(jnp.minimum(power, 700.0))


ON_CURVE: tuple[Law, ...] = tuple(on_curve_law(form) for form in FORMS)
STRICT: tuple[Law, ...] = tuple(strict_law(form) for form in FORMS)
