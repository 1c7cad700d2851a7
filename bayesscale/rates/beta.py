"""Beta laws: the population itself, the same with impossible problems, and independent Jeffreys priors."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike

from bayesscale.logarithms import log_sigmoid, logaddexp
from bayesscale.parameter import Parameter
from bayesscale.rate_law import DERIVED_MEANING, RateLaw, count_cells
from bayesscale.special import beta_log_moment
from bayesscale.types import Columns, Theta

_MEAN = Parameter("logit_mean", "μ", "logit of the mean success probability", dist.Normal(-5.0, 2.5), spread=1.0)
_TAIL = Parameter("log_tail_index", "ln a", "log of the tail index", dist.Normal(float(np.log(0.3)), 0.6))
_ZERO = Parameter("logit_zero_mass", "logit π₀", "logit of the share of impossible problems", dist.Normal(-3.0, 1.2))


def shapes(logit_mean: ArrayLike, log_a: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return the shapes (a, b) of the Beta law with this logit mean μ and log first shape: b = a exp(-μ)."""
    return jnp.exp(log_a), jnp.exp(log_a - jnp.asarray(logit_mean))


def sample_beta(key: jax.Array, a: ArrayLike, b: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Beta(a, b) draws made from log-gamma draws, so that those of a tail index of .01 keep their digits near 0."""
    key_a, key_b = jax.random.split(key)
    return jax.nn.sigmoid(jax.random.loggamma(key_a, a, shape) - jax.random.loggamma(key_b, b, shape))


def _log_moment(columns: Columns, theta: Theta) -> jax.Array:
    return beta_log_moment(columns["c"], columns["f"], *shapes(theta["logit_mean"], theta["log_tail_index"]))


def _derived(logit_mean: jax.Array, log_tail_index: jax.Array) -> Mapping[str, jax.Array]:
    mean = jax.nn.sigmoid(logit_mean)
    return {"mean": mean, "tail_index": jnp.exp(log_tail_index), "zero_mass": jnp.zeros_like(mean)}


def _sample(key: jax.Array, theta: Theta, shape: tuple[int, ...]) -> jax.Array:
    return sample_beta(key, *shapes(theta["logit_mean"], theta["log_tail_index"]), shape)


BETA = RateLaw(
    name="beta",
    equation="p ~ Beta(a, b), b = a (1 - mean) / mean",
    reference="beta-binomial; survival B(a, b + k) / B(a, b) ~ k^-a (Levi 2024, arXiv 2410.16377)",
    parameters=(_MEAN, _TAIL),
    log_moment=_log_moment,
    derived=_derived,
    derived_meaning=DERIVED_MEANING,
    cells=count_cells,
    sample=_sample,
)


def _zero_inflated_log_moment(columns: Columns, theta: Theta) -> jax.Array:
    possible = log_sigmoid(-theta["logit_zero_mass"]) + _log_moment(columns, theta)
    unsolved = logaddexp(log_sigmoid(theta["logit_zero_mass"]), possible)
    return jnp.where(columns["c"] == 0, unsolved, possible)


def _zero_inflated_derived(logit_zero_mass: jax.Array, **beta: jax.Array) -> Mapping[str, jax.Array]:
    zero, of_beta = jax.nn.sigmoid(logit_zero_mass), _derived(**beta)
    return {"mean": (1 - zero) * of_beta["mean"], "tail_index": of_beta["tail_index"], "zero_mass": zero}


def _zero_inflated_sample(key: jax.Array, theta: Theta, shape: tuple[int, ...]) -> jax.Array:
    key_zero, key_beta = jax.random.split(key)
    impossible = jax.random.bernoulli(key_zero, jax.nn.sigmoid(theta["logit_zero_mass"]), shape)
    return jnp.where(impossible, 0.0, _sample(key_beta, theta, shape))


ZERO_INFLATED_BETA = RateLaw(
    name="zero_inflated_beta",
    equation="p = 0 with probability pi0, else p ~ Beta(a, b), b = a (1 - mean) / mean",
    reference="zero-inflated beta-binomial",
    parameters=(_MEAN, _TAIL, _ZERO),
    log_moment=_zero_inflated_log_moment,
    derived=_zero_inflated_derived,
    derived_meaning=DERIVED_MEANING | {"tail_index": "tail index of the problems that are not impossible"},
    cells=count_cells,
    sample=_zero_inflated_sample,
)

JEFFREYS = RateLaw(
    name="jeffreys",
    equation="p ~ Beta(1/2, 1/2), each problem by itself",
    reference="Jeffreys prior of a binomial probability; nothing is learned across problems",
    parameters=(),
    log_moment=lambda columns, theta: beta_log_moment(columns["c"], columns["f"], 0.5, 0.5),
    derived=lambda: {"mean": jnp.asarray(0.5), "tail_index": jnp.asarray(0.5), "zero_mass": jnp.asarray(0.0)},
    derived_meaning=DERIVED_MEANING,
    cells=count_cells,
    sample=lambda key, theta, shape: sample_beta(key, 0.5, 0.5, shape),
)
