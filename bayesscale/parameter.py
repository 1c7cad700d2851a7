"""Parameters: what a law or a likelihood asks the data about.

A `Parameter` carries its prior, and the prior's support is the constraint: a value is sampled on the unconstrained axis
and mapped back with numpyro's bijection of that support. Built-in laws use coordinates that are unconstrained already
(logits and logs), because a floor of 1e-12 and a ceiling of 1 - 1e-12 must stay apart in floating point.

Half-normal scales are sampled on the normal-score axis, where their prior is a standard normal: on the log axis a scale
that the data put near zero has a long flat tail that a sampler crosses badly.

A prior may depend on facts of the curve (its chance level, say): then it is a function of those facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import ndtr, ndtri
from jax.typing import ArrayLike
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.util import validate_sample

from bayesscale.logarithms import log_sigmoid
from bayesscale.types import Columns, Scalar

type Prior = dist.Distribution | Callable[[Columns], dist.Distribution]


@dataclass(frozen=True, eq=False)
class Parameter:
    """One unknown: its prior, what it means, and how much groups may differ in it.

    Attributes
    ----------
    name : identifier, also the posterior variable's name.
    symbol : how the papers write it.
    meaning : one phrase for a reader of the table.
    prior : a distribution, or a function of the curve's facts that returns one.
    unit : unit of the value, empty when it has none.
    spread : prior scale of between-group variation on the unconstrained axis.
    dims : names of its dimensions; empty for a scalar.
    """

    name: str
    symbol: str
    meaning: str
    prior: Prior
    unit: str = ""
    spread: float = 0.5
    dims: tuple[str, ...] = ()

    def prior_given(self, facts: Columns) -> dist.Distribution:
        """Return the prior for a curve with these facts."""
        return self.prior if isinstance(self.prior, dist.Distribution) else self.prior(facts)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the value's shape when the dimensions have these sizes."""
        return tuple(sizes[dim] for dim in self.dims)


def constrain(parameter: Parameter, u: jax.Array, facts: Columns) -> tuple[jax.Array, Scalar]:
    """Map the unconstrained `u` to the parameter's support.

    Returns the value and its log prior density on the unconstrained axis, log p(T(u)) + log|dT/du|, summed over the
    parameter's dimensions; axes of `u` beyond them, and of the facts, are a batch.
    """
    prior, own = parameter.prior_given(facts), tuple(range(len(parameter.dims)))
    if prior.support is constraints.real:
        return u, jnp.sum(prior.log_prob(u), axis=own)
    if isinstance(prior, dist.HalfNormal):
        # The quantile of Phi(u), written with the upper tail so that large scales keep their digits.
        scale: Any = prior.scale
        return -scale * ndtri(0.5 * ndtr(-u)), jnp.sum(dist.Normal().log_prob(u), axis=own)
    transform = biject_to(prior.support)
    value = transform(u)
    return value, jnp.sum(prior.log_prob(value) + transform.log_abs_det_jacobian(u, value), axis=own)


def unconstrain(parameter: Parameter, value: ArrayLike, facts: Columns) -> jax.Array:
    """Map a value of the parameter to the unconstrained axis; the inverse of `constrain`."""
    value = jnp.asarray(value)
    prior = parameter.prior_given(facts)
    if prior.support is constraints.real:
        return value
    if isinstance(prior, dist.HalfNormal):
        return -ndtri(2.0 * ndtr(-value / prior.scale))
    return biject_to(prior.support).inv(value)


def from_scores(parameter: Parameter, scores: jax.Array, facts: Columns) -> jax.Array | None:
    """Map standard normal scores to prior draws on the unconstrained axis, where that is simple; None where it is not."""
    prior = parameter.prior_given(facts)
    if isinstance(prior, dist.Normal):
        return jnp.asarray(prior.loc) + jnp.asarray(prior.scale) * scores
    return scores if isinstance(prior, dist.HalfNormal) else None


def whole(a: Any) -> bool:
    """Whether a shape parameter is a small whole number, so that Gamma(a, 1) is a sum of that many exponentials."""
    return isinstance(a, (int, float)) and float(a).is_integer() and 1 <= a <= 8


def log_gamma_draw(key: jax.Array, a: Any, shape: tuple[int, ...]) -> jax.Array:
    """Draw the log of a Gamma(a, 1) variable: for a small whole number a sum of exponentials, which compiles far faster."""
    if whole(a):
        return jnp.log(jnp.sum(jax.random.exponential(key, (int(a), *shape)), axis=0))
    return jax.random.loggamma(key, a, shape)


class LogitBeta(dist.Distribution):
    """The logit of a Beta(a, b) variable: log p(x) = a log sigmoid(x) + b log sigmoid(-x) - log B(a, b).

    Kept on the logit axis so that neither end of the unit interval is ever reached in floating point.
    """

    arg_constraints = {"a": constraints.positive, "b": constraints.positive}
    support = constraints.real  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    reparametrized_params = ["a", "b"]

    def __init__(self, a: float, b: float, *, validate_args: bool | None = None) -> None:
        self.a, self.b = a, b
        super().__init__(jnp.broadcast_shapes(jnp.shape(a), jnp.shape(b)), (), validate_args=validate_args)

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        assert key is not None
        shape = sample_shape + self.batch_shape
        if whole(self.a) and whole(self.b):
            times = jax.random.exponential(key, (int(self.a + self.b), *shape))
            return jnp.log(jnp.sum(times[: int(self.a)], axis=0)) - jnp.log(jnp.sum(times[int(self.a) :], axis=0))
        key_a, key_b = jax.random.split(key)
        return log_gamma_draw(key_a, self.a, shape) - log_gamma_draw(key_b, self.b, shape)

    @validate_sample
    def log_prob(self, value: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        log_beta = jax.scipy.special.betaln(self.a, self.b)
        return self.a * log_sigmoid(value) + self.b * log_sigmoid(-value) - log_beta
