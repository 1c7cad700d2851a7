"""Coordinates of on-curve Bayesian laws at the ends of the observed range.

Data pin the values at no shots and at the last shot, and leave floor, ceiling, n50 and steepness to trade against each other.
With p0 and p_L those values, gamma and beta ceiling and floor, and sigmoid written s, the coordinates are

    w = (logit p0, log(logit p_L - logit p0), a, v):    gamma = p_L + (1 - p_L) s(c),    c = 3.2 sinh(v / 2),
    beta = lowest + (p0 - lowest) s(a),    lowest = max(0, 2 p0 - gamma),

each of them free on the whole axis: the floor stays above zero, and, since n50 > 0, above where p0 would be more than half way
up. Data may not tell the ceiling from p_L, hence v (see `stretched`). With z = logit((p - beta) / (gamma - beta)) at both ends
and L the last shot, the slope is b = (z_L - z_0) / g(L) and half the rise is reached where g(n50) = -z_0 / b.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesscale.law import Coordinates
from bayesscale.laws.coordinates import on_curve_slope, stretched, unstretched
from bayesscale.logarithms import log, log1mexp, log1p, log_sigmoid, logaddexp
from bayesscale.types import Columns

LARGEST_RISE = 300.0
"""Log of the largest rise in logits that does not overflow."""
TINY = 1e-12


class Levels(NamedTuple):
    """Logs of floor, ceiling and one minus it, and of distances between the levels floor < zero < last < ceiling."""

    floor: jax.Array
    ceiling: jax.Array
    ceiling_one: jax.Array
    floor_zero: jax.Array
    floor_last: jax.Array
    floor_ceiling: jax.Array
    zero_ceiling: jax.Array
    last_ceiling: jax.Array


def levels_of(w: jax.Array) -> tuple[Levels, jax.Array]:
    """Levels of the first four coordinates, and log |det d(p0, p_L, gamma, beta) / dw|."""
    at_zero, log_rise, share = w[:3]
    above, stretch = stretched(w[3])
    rise = jnp.exp(jnp.minimum(log_rise, LARGEST_RISE))
    at_last = at_zero + rise
    log_zero, log_last, log_missing = log_sigmoid(at_zero), log_sigmoid(at_last), log_sigmoid(-at_last)
    last_ceiling = log_missing + log_sigmoid(above)
    zero_last = log_last + log_sigmoid(-at_zero) + log1mexp(rise)
    zero_ceiling = logaddexp(last_ceiling, zero_last)
    free = log_zero < zero_ceiling  # the floor may come down to zero
    room = jnp.where(free, log_zero, zero_ceiling)
    lowest = log_zero + log1mexp(jnp.where(free, 1.0, jnp.maximum(log_zero - zero_ceiling, TINY)))
    lowest = jnp.where(free, -jnp.inf, lowest)
    beyond, floor_zero = room + log_sigmoid(share), room + log_sigmoid(-share)
    levels = Levels(
        floor=logaddexp(lowest, beyond),
        ceiling=logaddexp(log_last, last_ceiling),
        ceiling_one=log_missing + log_sigmoid(-above),
        floor_zero=floor_zero,
        floor_last=logaddexp(floor_zero, zero_last),
        floor_ceiling=logaddexp(floor_zero, zero_ceiling),
        zero_ceiling=zero_ceiling,
        last_ceiling=last_ceiling,
    )
    ends = log_zero + log_sigmoid(-at_zero) + log_last + log_missing + log(rise)
    return levels, ends + last_ceiling + log_sigmoid(-above) + stretch + beyond + log_sigmoid(-share)


def ends_of(growth: Callable, inverse_growth: Callable, exponent: Callable) -> Coordinates:
    """Build the coordinates for g(n, lambda), its inverse, and lambda as a function of its coordinate (None where fixed)."""

    def to_parameters(w: jax.Array, facts: Columns) -> tuple[jax.Array, jax.Array]:
        lam = exponent(w[4] if len(w) > 4 else None)
        at, levels = levels_of(w)
        climb = at.floor_last - at.floor_zero + at.zero_ceiling - at.last_ceiling
        log_slope = log(climb) - log(growth(facts["last_shots"], lam))
        n50 = inverse_growth((at.zero_ceiling - at.floor_zero) * jnp.exp(-log_slope), lam)
        log_n50 = log(n50)
        log_kappa = log_slope + log_n50 - (1.0 - lam) * log1p(n50)
        # d(logit gamma, logit(beta/gamma), log n50, log kappa) / d(gamma, beta, z_0, log b), and d(z_0, log b) / d(p0, p_L).
        own = -at.ceiling_one - at.floor - at.floor_ceiling - log_kappa
        slopes = 2.0 * at.floor_ceiling - at.floor_zero - at.zero_ceiling - at.floor_last - at.last_ceiling - log(climb)
        theta = (at.ceiling - at.ceiling_one, at.floor - at.floor_ceiling, log_n50, log_kappa)
        return jnp.stack([*theta, *w[4:]]), own + slopes + levels

    def from_parameters(theta: jax.Array, facts: Columns) -> jax.Array:
        logit_ceiling, logit_ratio, log_n50, log_kappa = theta[:4]
        lam = exponent(theta[4] if len(theta) > 4 else None)
        slope = on_curve_slope(log_n50, log_kappa, lam)
        z_zero = -slope * growth(jnp.exp(log_n50), lam)
        z_last = z_zero + slope * growth(facts["last_shots"], lam)
        log_ceiling, ceiling_one = log_sigmoid(logit_ceiling), log_sigmoid(-logit_ceiling)
        log_floor, span = log_ceiling + log_sigmoid(logit_ratio), log_ceiling + log_sigmoid(-logit_ratio)

        def logit_of(z: jax.Array) -> jax.Array:
            up, left = span + log_sigmoid(z), span + log_sigmoid(-z)
            return logaddexp(log_floor, up) - logaddexp(ceiling_one, left)

        at_zero = logit_of(z_zero)
        half_way = span + log(jnp.tanh(jnp.maximum(-0.5 * z_zero, TINY)))
        above_lowest = jnp.minimum(log_floor, half_way)
        share = above_lowest - span - log_sigmoid(z_zero)
        log_rise = log(jnp.maximum(logit_of(z_last) - at_zero, TINY))
        above = unstretched(span + log_sigmoid(-z_last) - ceiling_one)
        return jnp.stack([at_zero, log_rise, share, above, *theta[4:]])

    return Coordinates(to_parameters, from_parameters, follows=True)
