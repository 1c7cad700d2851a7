"""Bayesian laws fitted jointly to the curves of all tasks of one model.

A learner weighs H hypotheses by prior and evidence and predicts with their average. When task m generates the shots,

    p_m(n) = sum_j w_mj(n) P[m, j],        w_mj(n) ∝ rho_j * exp(K g(n) log P[m, j])

(Arora et al. 2024, arXiv 2410.16531, general form). `P[m, j]` is the probability hypothesis j gives to an example of task
m. The M observed tasks are hypotheses 0..M-1; hypothesis M is one lumped task nobody asked about.

* original: P free, the true task dominating its row, P[m, j] = gamma_m * sigmoid(.) for j != m.
* column-tied ("sampling"): P[m, j] = gamma_j on the diagonal, beta_j off it: the tie is by hypothesis.
* row-tied ("scoring"): P[m, j] = gamma_m on the diagonal, beta_m off it: the tie is by generating task. The curves then
  separate into logistic curves that share K and the simplex rho; `row_free` lets each slope leave K log(gamma/beta) by a
  factor exp(tau z_m), and tau near zero says the strict Bayesian form holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.nn import log_softmax, logsumexp, sigmoid

from bayesscale.law import Law
from bayesscale.laws.coordinates import log_between
from bayesscale.laws.single import FORMS, LAMBDA, exponent
from bayesscale.logarithms import log1mexp, log1p, log_sigmoid
from bayesscale.parameter import Parameter
from bayesscale.special import box_cox
from bayesscale.types import LogMean

REFERENCE = "Arora et al. 2024, arXiv:2410.16531, {} law"
TYPICAL_K = {"tempered": 0.5, "log_shots": 1.0, "linear": 0.1}
MEANING = {
    "rho": "prior over hypotheses; the last is the lumped unobserved task",
    "K": "learning efficiency: evidence per unit of g(n)",
    "gamma": "probability under the true task, by task",
    "beta": "probability under a rival, by task or by hypothesis",
    "P": "probability of an example, by generating task and hypothesis",
    "lambda": "evidence exponent: 1 linear in shots, 0 logarithmic",
    "tau": "how far slopes leave the strict Bayesian value (0: they do not)",
}

PRIOR_LOGITS = Parameter(
    "prior_logits", "log ρ_j/ρ_H", "prior log-odds against the lumped task", dist.Normal(0.0, 1.5), dims=("task",)
)
GAMMA = Parameter("logit_gamma", "logit γ", "level under the true task", dist.Normal(1.0, 1.5), dims=("task",))
ROW_RATIO = Parameter("logit_ratio", "logit β/γ", "rival level over true level", dist.Normal(-1.0, 1.5), dims=("task",))
COLUMN_RATIO = Parameter(
    "logit_ratio", "logit β/γ", "level as a rival over level as the truth", dist.Normal(-1.0, 1.5), dims=("hypothesis",)
)
FREE_RATIO = Parameter(
    "logit_ratio", "logit P/γ", "rival level over true level", dist.Normal(-1.0, 1.5), dims=("task", "rival")
)
LOG_TAU = Parameter("log_tau", "log τ", "log sd of the slopes' departure", dist.Normal(math.log(0.3), 1.0))
SLOPE_Z = Parameter("slope_z", "z", "standardised departure of a slope", dist.Normal(0.0, 1.0), dims=("task",))


def log_rho(prior_logits: jax.Array) -> jax.Array:
    """log rho over hypotheses, the lumped one having reference logit 0."""
    return log_softmax(jnp.append(prior_logits, 0.0))


def original_rows(task: jax.Array, *, logit_gamma: jax.Array, logit_ratio: jax.Array) -> jax.Array:
    """log P[task, :] with free rivals, (obs, hypothesis)."""
    tasks = logit_gamma.shape[0]
    rivals = jnp.arange(tasks)[None, :]
    # Column j of the (task, rival) table is hypothesis j below the diagonal and j + 1 beyond it.
    hypothesis = rivals + (rivals >= jnp.arange(tasks)[:, None])
    log_ratio = jnp.zeros((tasks, tasks + 1)).at[jnp.arange(tasks)[:, None], hypothesis].set(log_sigmoid(logit_ratio))
    return (log_sigmoid(logit_gamma)[:, None] + log_ratio)[task]


def column_rows(task: jax.Array, *, logit_gamma: jax.Array, logit_ratio: jax.Array) -> jax.Array:
    """log P[task, :] tied by hypothesis, (obs, hypothesis). The lumped hypothesis has no level as the truth."""
    log_gamma = jnp.append(log_sigmoid(logit_gamma), 0.0)
    hypothesis = jnp.arange(log_gamma.shape[0])
    true = task[..., None] == hypothesis
    return jnp.where(true, log_gamma, log_gamma + log_sigmoid(logit_ratio))


def mixture_log_mean(log_p: jax.Array, log_prior: jax.Array, evidence: jax.Array) -> LogMean:
    """Posterior-weighted mean of P, (obs,), from log P (obs, hypothesis)."""
    log_weight = log_softmax(log_prior + evidence[..., None] * log_p, axis=-1)
    log_q = log1mexp(jnp.maximum(-log_p, 1e-300))
    return logsumexp(log_weight + log_p, axis=-1), logsumexp(log_weight + log_q, axis=-1)


def mixture_law(name: str, paper_name: str, form: str, rows: Callable, ratio: Parameter, beta: Callable) -> Law:
    """Build a law whose rows of P are given by `rows` in the general form."""

    def log_mean(n, task, *, prior_logits, log_K, logit_lambda=None, **levels):
        evidence = jnp.exp(log_K) * box_cox(n, exponent(form, logit_lambda))
        return mixture_log_mean(rows(task, **levels), log_rho(prior_logits), evidence)

    def derived(*, prior_logits, log_K, logit_lambda=None, **levels):
        shared = shared_quantities(prior_logits, log_K, exponent(form, logit_lambda))
        return shared | {"gamma": sigmoid(levels["logit_gamma"])} | beta(**levels)

    equation = "p_m = sum_j w_j P[m,j], w_j ∝ rho_j exp(K g(n) log P[m,j])"
    parameters = (PRIOR_LOGITS, log_k(form), GAMMA, ratio)
    return _law(f"{name}_{form}", form, parameters, f"{equation}; P {name}", paper_name, log_mean, derived)


def row_law(form: str, *, free: bool) -> Law:
    """Build the row-tied law, strict or with slopes free to leave K log(gamma/beta)."""

    def log_mean(
        n, task, *, prior_logits, log_K, logit_gamma, logit_ratio, logit_lambda=None, log_tau=None, slope_z=None
    ):
        log_prior = log_rho(prior_logits)
        log_odds = log_prior - log1p(-jnp.exp(jnp.minimum(log_prior, -1e-12)))
        departure = jnp.exp(log_tau) * slope_z if free else jnp.zeros_like(logit_gamma)  # pyright: ignore[reportArgumentType, reportOperatorIssue]
        slope = jnp.exp(log_K + departure) * -log_sigmoid(logit_ratio)
        z = log_odds[task] + slope[task] * box_cox(n, exponent(form, logit_lambda))
        return log_between(logit_gamma[task], logit_ratio[task], z)

    def derived(*, prior_logits, log_K, logit_gamma, logit_ratio, logit_lambda=None, log_tau=None, slope_z=None):
        gamma = sigmoid(logit_gamma)
        levels = {"gamma": gamma, "beta": gamma * sigmoid(logit_ratio)}
        tau = {"tau": jnp.exp(log_tau)} if free else {}  # pyright: ignore[reportArgumentType]
        return shared_quantities(prior_logits, log_K, exponent(form, logit_lambda)) | levels | tau

    slope = "K log(gamma_m/beta_m)" + (" exp(tau z_m)" if free else "")
    equation = f"p_m = beta_m + (gamma_m-beta_m) sigmoid(logit(rho_m) + {slope} g(n))"
    parameters = (PRIOR_LOGITS, log_k(form), GAMMA, ROW_RATIO) + ((LOG_TAU, SLOPE_Z) if free else ())
    name = "row_free" if free else "row"
    return _law(f"{name}_{form}", form, parameters, equation, "scoring", log_mean, derived)


def log_k(form: str) -> Parameter:
    """Return log K with a prior at the scale of the form's evidence."""
    return Parameter("log_K", "log K", "log learning efficiency", dist.Normal(math.log(TYPICAL_K[form]), 1.5))


def shared_quantities(prior_logits: jax.Array, log_k_value: jax.Array, lam: jax.Array) -> dict[str, jax.Array]:
    """Return rho, K and lambda."""
    return {
        "rho": jnp.exp(log_rho(prior_logits)),
        "K": jnp.exp(log_k_value),
        "lambda": jnp.asarray(lam) + 0.0 * log_k_value,
    }


def original_beta(*, logit_gamma: jax.Array, logit_ratio: jax.Array) -> dict[str, jax.Array]:
    """Return the matrix P, (task, hypothesis)."""
    tasks = jnp.arange(logit_gamma.shape[0])
    return {"P": jnp.exp(original_rows(tasks, logit_gamma=logit_gamma, logit_ratio=logit_ratio))}


def column_beta(*, logit_gamma: jax.Array, logit_ratio: jax.Array) -> dict[str, jax.Array]:
    """Return the rival level of each hypothesis, (hypothesis,)."""
    return {"beta": jnp.append(sigmoid(logit_gamma), 1.0) * sigmoid(logit_ratio)}


def _law(
    name: str,
    form: str,
    parameters: tuple[Parameter, ...],
    equation: str,
    paper: str,
    log_mean: Callable,
    derived: Callable,
) -> Law:
    fixed = FORMS[form]
    g = {None: "((1+n)^lambda - 1)/lambda", 0.0: "log(1+n)", 1.0: "n"}[fixed]
    return Law(
        name=name,
        equation=f"{equation}; g(n) = {g}",
        reference=REFERENCE.format(paper),
        parameters=parameters + ((LAMBDA,) if fixed is None else ()),
        log_mean=log_mean,
        derived=derived,
        derived_meaning=MEANING,
        joint=True,
    )


JOINT: tuple[Law, ...] = tuple(
    law
    for form in FORMS
    for law in (
        mixture_law("original", "original", form, original_rows, FREE_RATIO, original_beta),
        mixture_law("column", "sampling", form, column_rows, COLUMN_RATIO, column_beta),
        row_law(form, free=False),
        row_law(form, free=True),
    )
)
