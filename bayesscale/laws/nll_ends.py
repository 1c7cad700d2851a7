"""Coordinates of NLL baselines at the ends of the observed range.

Each of these laws is NLL(n) = E + (reducible NLL). With L the NLL at the last shot N, L e^f its fall over the range and E = L s,
the coordinates are (log L, f, v), where the logit of the share s is stretched: 3.2 sinh(v / 2). The reducible NLL is then
L (1 - s) at the last shot, and its ratio over the range R = 1 + e^f / (1 - s); what a law makes of R is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesscale.law import Coordinates
from bayesscale.laws.coordinates import stretched, unstretched
from bayesscale.logarithms import log, log1mexp, log_sigmoid, logaddexp
from bayesscale.types import Columns


class Ends(NamedTuple):
    """Logs of E, of the reducible NLL at the last shot, of R - 1 and R, and the log determinant of the stretch."""

    log_e: jax.Array
    log_rest: jax.Array
    log_rise: jax.Array
    log_ratio: jax.Array
    stretch: jax.Array

    @property
    def determinant(self) -> jax.Array:
        """log |d(log E, log R, log rest) / d(log L, f, v)|."""
        return self.stretch + self.log_rise - self.log_ratio


def ends_of(log_last: jax.Array, log_fall: jax.Array, v: jax.Array) -> Ends:
    """What the three coordinates say."""
    logit_share, stretch = stretched(v)
    log_left = log_sigmoid(-logit_share)
    log_rise = log_fall - log_left
    return Ends(
        log_e=log_last + log_sigmoid(logit_share),
        log_rest=log_last + log_left,
        log_rise=log_rise,
        log_ratio=logaddexp(0.0, log_rise),
        stretch=stretch,
    )


def ends_from(log_e: jax.Array, log_rest: jax.Array, log_ratio: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The inverse of `ends_of`."""
    log_last = logaddexp(log_e, log_rest)
    log_fall = log_rest + log(jnp.expm1(jnp.minimum(log_ratio, 690.0))) - log_last
    return log_last, log_fall, unstretched(log_e - log_rest)


type Levels = tuple[jax.Array, jax.Array, jax.Array]
"""log E, log of the reducible NLL at no shots, and the shape (coord, ...)."""


def parameters_of(levels: Levels) -> tuple[jax.Array, jax.Array]:
    """(logit e^-E, logit e^-x, shape) of E, x and the shape, and the log determinant."""
    ceiling, ceiling_slope = logit_of_nll(levels[0])
    ratio, ratio_slope = logit_of_nll(levels[1])
    return jnp.stack([ceiling, ratio, *levels[2]]), ceiling_slope + ratio_slope


def levels_of(theta: jax.Array) -> Levels:
    """The inverse of `parameters_of`."""
    return log_nll_of(theta[0]), log_nll_of(theta[1]), theta[2:]


class NllCoordinates(NamedTuple):
    """Coordinates of an NLL between two levels: to levels, with the log determinant, and back; both also take the facts."""

    to_levels: Callable[[jax.Array, Columns], tuple[Levels, jax.Array]]
    from_levels: Callable[[Levels, Columns], jax.Array]

    def of_parameters(self) -> Coordinates:
        """The same for a law whose parameters are (logit e^-E, logit e^-x, shape)."""

        def to_parameters(w: jax.Array, facts: Columns) -> tuple[jax.Array, jax.Array]:
            levels, inner = self.to_levels(w, facts)
            theta, outer = parameters_of(levels)
            return theta, inner + outer

        return Coordinates(to_parameters, lambda theta, facts: self.from_levels(levels_of(theta), facts), follows=True)


def log_nll_of(logit_p: jax.Array) -> jax.Array:
    """log(-log p) of a logit."""
    return log(-log_sigmoid(logit_p))


def logit_of_nll(log_nll: jax.Array) -> tuple[jax.Array, jax.Array]:
    """logit p for NLL = -log p, and log |d logit p / d log NLL| = log(NLL / (1 - p))."""
    nll = jnp.exp(jnp.clip(log_nll, -690.0, 690.0))
    log_missing = log1mexp(nll)
    return -nll - log_missing, log_nll - log_missing
