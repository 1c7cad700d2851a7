"""Coordinates of curves between two levels where data show no rise.

Such a curve has risen before the first shot, or will rise after the last, or rises by next to nothing. Data pin one level, here
the value at the geometric middle m of the observed shots, and forbid what lies between those cases: in the coordinates of `ends`
that is a corner, and in a law's own a bent ridge. With s(n) the share of the rise done, and F and L the first and last shot, the
coordinates are

    probabilities:   p = beta + x s(n), x = gamma - beta:     (logit p_m, log Q + c, shape)
                     Q = x / (A - x) + x / (B - x),   A = p_m / s_m,   B = (1 - p_m) / (1 - s_m)
    NLLs:            NLL = E + x (1 - s(n)):                  (log NLL_m, log x + log NLL_m - log E + c, shape)

where x < A and x < B keep both levels possible, and c = log(s(L) - s(F) + .03) turns the size of the rise into the size of what
would be seen of it, down to a share that is not told from none. The shape (n50, steepness, exponent) is the law's own. The second
coordinate tends to the logits or logs that the prior is stated in, wherever the rise lies.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bayesscale.law import Coordinates
from bayesscale.laws.ends import LARGEST_RISE
from bayesscale.laws.nll_ends import Levels, NllCoordinates
from bayesscale.logarithms import log, log_sigmoid, logaddexp
from bayesscale.types import Columns

type Rise = Callable[..., jax.Array]
"""The log-odds that the rise is done, of (n, *shape)."""

UNSEEN = 0.03


def middle(facts: Columns) -> jax.Array:
    """Geometric middle of the observed shots, counted from -1 so that there may be none."""
    return jnp.sqrt((1.0 + facts["first_shots"]) * (1.0 + facts["last_shots"])) - 1.0


def log_seen(rise: Rise, shape: jax.Array, facts: Columns) -> jax.Array:
    """c: log of the share of the rise between the first and the last shot, and of what is not told from none."""
    first, last = (jax.nn.sigmoid(rise(facts[name], *shape)) for name in ("first_shots", "last_shots"))
    return log(last - first + UNSEEN)


def below_bounds(log_a: jax.Array, log_b: jax.Array, log_q: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logs of x, A - x and B - x for x / (A - x) + x / (B - x) = Q, 0 < x < A, B.

    x is the smaller root of (Q + 2) x^2 - (Q + 1)(A + B) x + Q A B = 0. With r < 1 the ratio of the bounds, x and what it leaves
    of the smaller bound are written as sums of positive terms, so that neither is lost by cancellation.
    """
    ratio = jnp.exp(-jnp.abs(log_a - log_b))
    log_q = jnp.minimum(log_q, LARGEST_RISE)
    more = 1.0 + jnp.exp(log_q)
    spread = more * (1.0 - ratio)
    root = jnp.sqrt(spread * spread + 4.0 * ratio)
    total = more * (1.0 + ratio) + root
    left = (2.0 + 4.0 * ratio / (root + spread)) / total
    near, far = log(left), log(1.0 - ratio + ratio * left)
    x = jnp.minimum(log_a, log_b) + log_q + log(2.0) - log(total)
    first = log_a < log_b
    return x, log_a + jnp.where(first, near, far), log_b + jnp.where(first, far, near)


def level_of(rise: Rise) -> Coordinates:
    """Build the coordinates of a probability between its levels; parameters are (logit gamma, logit(beta/gamma), shape)."""

    def to_parameters(w: jax.Array, facts: Columns) -> tuple[jax.Array, jax.Array]:
        shape, z = w[2:], rise(middle(facts), *w[2:])
        log_p, log_q = log_sigmoid(w[0]), log_sigmoid(-w[0])
        log_s, log_rest = log_sigmoid(z), log_sigmoid(-z)
        log_a, log_b = log_p - log_s, log_q - log_rest
        size = w[1] - log_seen(rise, shape, facts)
        x, below, above = below_bounds(log_a, log_b, size)
        floor, missing = log_s + below, log_rest + above  # beta = s (A - x), 1 - gamma = (1 - s)(B - x)
        # |d(gamma, beta) / d(p_m, Q)| = dx/dQ, and (1 - gamma) beta x per unit of the parameters.
        log_dx = -logaddexp(log_a - 2.0 * below, log_b - 2.0 * above)
        determinant = log_p + log_q + size + log_dx - missing - floor - x
        return jnp.stack([logaddexp(floor, x) - missing, floor - x, *shape]), determinant

    def from_parameters(theta: jax.Array, facts: Columns) -> jax.Array:
        shape, z = theta[2:], rise(middle(facts), *theta[2:])
        log_s, log_rest = log_sigmoid(z), log_sigmoid(-z)
        ceiling, missing = log_sigmoid(theta[0]), log_sigmoid(-theta[0])
        floor, x = ceiling + log_sigmoid(theta[1]), ceiling + log_sigmoid(-theta[1])
        level = logaddexp(floor, x + log_s) - logaddexp(missing, x + log_rest)
        size = x + logaddexp(log_s - floor, log_rest - missing)
        return jnp.stack([level, size + log_seen(rise, shape, facts), *shape])

    return Coordinates(to_parameters, from_parameters, follows=True)


def nll_level_of(rise: Rise) -> NllCoordinates:
    """Build the coordinates of an NLL above its floor."""

    def to_levels(w: jax.Array, facts: Columns) -> tuple[Levels, jax.Array]:
        shape, size = w[2:], w[1] - log_seen(rise, w[2:], facts)
        # E = NLL_m / (1 + y) and x = e^size / (1 + y) with y = e^size (1 - s_m) / NLL_m; the determinant is 1.
        shared = log_sigmoid(w[0] - size - log_sigmoid(-rise(middle(facts), *shape)))
        return (w[0] + shared, size + shared, shape), jnp.zeros_like(shared)

    def from_levels(levels: Levels, facts: Columns) -> jax.Array:
        log_e, log_x, shape = levels
        level = logaddexp(log_e, log_x + log_sigmoid(-rise(middle(facts), *shape)))
        return jnp.stack([level, log_x + level - log_e + log_seen(rise, shape, facts), *shape])

    return NllCoordinates(to_levels, from_levels)
