"""Straightening funnels: posteriors whose widths depend on one coordinate, the scale of a departure from the law.

The smaller the departure, the tighter the data hold the law: between a small and a large one, widths differ by factors of 5
to 20, and no step size suits both. With t the pivot coordinate and o the others, the sampler's own coordinates w are

    t = t0 + s w_t,    u_o = m + d g(w_t) + V diag(exp(b g(w_t))) w_o,    g(w) = c tanh(w / c),

where V and b diagonalise the curvature of the others at two values of t together, and m and d come from their maxima there. Both
values and s come from the marginal of t by Laplace's method at a row of knots. g saturates, since widths do.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import add
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesscale.inference.placement import pull_back
from bayesscale.inference.start import Climbed, Mode, floored_spectrum
from bayesscale.model import Target
from bayesscale.types import Columns, CoordArray, Scalar

KNOTS = (-2.2, 1.6)
"""First and last knot; the pivot's prior is standard normal, and only its upper end is ever cut off by the data."""
NARROWEST = 0.2
"""Smallest sd the pivot is given."""
REACH = 1.5
"""Sds of the pivot beyond which widths and means stop following it."""
STEEPEST = 1.5
"""Largest change of a log width per sd of the pivot."""


class Funnel(NamedTuple):
    """Per unit: u = centre + drift g(w_pivot) + basis (w exp(slope g(w_pivot))); drift and slope are zero at the pivot."""

    centre: NDArray  # (unit, coord)
    basis: NDArray  # (unit, coord, coord)
    slope: NDArray  # (unit, coord)
    drift: NDArray  # (unit, coord)


def knots_of(count: int) -> NDArray:
    """Values of the pivot at which the others are maximised."""
    return np.linspace(*KNOTS, count)


def bounded(w: NDArray) -> NDArray:
    """g(w): as w near zero, within REACH everywhere."""
    return REACH * np.tanh(w / REACH)


def positive(curvature: NDArray) -> NDArray:
    """Symmetric matrices (..., coord, coord) with their eigenvalues made positive and floored."""
    values, vectors = floored_spectrum(curvature)
    return (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def fit_funnel(pivot: int, knots: NDArray, found: Climbed) -> Funnel:
    """Fit to maxima (unit, knot) found with the pivot held at the knots."""
    u, value, curvature = (np.asarray(part) for part in found[:3])
    units, size = len(u), u.shape[-1]
    rest, each = np.delete(np.arange(size), pivot), np.arange(units)
    inner = positive(curvature[:, :, rest][..., rest])
    log_mass = np.where(np.isfinite(value), value, -np.inf) - 0.5 * np.linalg.slogdet(inner)[1]
    top = log_mass.max(axis=1, keepdims=True)
    mass = np.where(np.isfinite(top), np.exp(log_mass - np.where(np.isfinite(top), top, 0.0)), 1.0)
    mass /= mass.sum(axis=1, keepdims=True)
    t0 = (mass * knots).sum(axis=1)
    spread = np.maximum(np.sqrt((mass * (knots - t0[:, None]) ** 2).sum(axis=1)), NARROWEST)
    low = np.abs(knots - (t0 - spread)[:, None]).argmin(axis=1).clip(0, len(knots) - 2)
    high = np.maximum(np.abs(knots - (t0 + spread)[:, None]).argmin(axis=1), low + 1)
    g_low, g_high = (bounded((knots[at] - t0) / spread)[:, None] for at in (low, high))
    # V^T H V is the identity at the low knot and diagonal at the high one.
    root = np.linalg.inv(np.linalg.cholesky(inner[each, low]))
    ratio, turn = np.linalg.eigh(root @ inner[each, high] @ np.swapaxes(root, 1, 2))
    rate = -0.5 * np.log(np.maximum(ratio, 1e-12)) / (g_high - g_low)
    rate = np.clip(rate, -STEEPEST, STEEPEST)
    centre, basis, slope, drift = (np.zeros((units, size, *more)) for more in ((), (size,), (), ()))
    drift[:, rest] = (u[each, high] - u[each, low])[:, rest] / (g_high - g_low)
    centre[:, rest] = u[each, low][:, rest] - g_low * drift[:, rest]
    centre[:, pivot], basis[:, pivot, pivot] = t0, spread
    basis[np.ix_(each, rest, rest)] = (np.swapaxes(root, 1, 2) @ turn) * np.exp(-rate * g_low)[:, None, :]
    slope[:, rest] = rate
    return Funnel(centre, basis, slope, drift)


def straight(funnel: Funnel, pivot: int, u: NDArray) -> NDArray:
    """The sampler's coordinates of u (unit, place, coord)."""
    w_pivot = (u[..., pivot] - funnel.centre[:, None, pivot]) / funnel.basis[:, None, pivot, pivot]
    g = bounded(w_pivot)[..., None]
    offset = u - funnel.centre[:, None] - g * funnel.drift[:, None]
    return pull_back(funnel.basis, offset) * np.exp(-funnel.slope[:, None] * g)


def bent(funnel: Funnel, pivot: int, w: NDArray) -> NDArray:
    """The target's coordinates of w (unit, place, coord); the inverse of `straight`."""
    g = bounded(w[..., pivot, None])
    z = w * np.exp(funnel.slope[:, None] * g)
    return funnel.centre[:, None] + g * funnel.drift[:, None] + z @ np.swapaxes(funnel.basis, 1, 2)


def straight_modes(funnel: Funnel, pivot: int, modes: Mode) -> Mode:
    """Modes (unit, start) in the sampler's coordinates: places, heights and whitening maps to first order."""
    u, value, whiten = (np.asarray(part) for part in modes)
    w = straight(funnel, pivot, u)
    g = bounded(w[..., pivot, None])
    grown = np.exp(funnel.slope[:, None] * g)
    jacobian = funnel.basis[:, None] * grown[..., None, :]
    inner = ((w * grown * funnel.slope[:, None])[..., None, :] * funnel.basis[:, None]).sum(axis=-1)
    jacobian[..., pivot] += (1.0 - (g / REACH) ** 2) * (inner + funnel.drift[:, None])
    height = value + np.linalg.slogdet(jacobian)[1]
    return Mode(w, height, np.linalg.solve(jacobian, whiten))


PARTS = ("funnel.centre", "funnel.basis", "funnel.slope", "funnel.drift")


def as_columns(funnel: Funnel) -> dict[str, NDArray]:
    """The funnel as data of the straight target."""
    return dict(zip(PARTS, funnel, strict=True))


@lru_cache(maxsize=128)
def straight_target(target: Target) -> Target:
    """The target in the coordinates w; its columns carry each unit's funnel."""
    pivot = target.pivot
    assert pivot is not None and target.broadcasts

    def density(w: CoordArray, columns: Columns) -> Scalar:
        centre, basis, slope, drift = (columns[part] for part in PARTS)
        g = REACH * jnp.tanh(w[pivot] / REACH)
        z = w * jnp.exp(slope * g)
        u = jnp.asarray(reduce(add, (basis[:, j] * z[j] for j in range(len(z))), centre + drift * g))
        own = {name: column for name, column in columns.items() if name not in PARTS}
        return target.density(u, own) + jnp.sum(slope, axis=0) * g

    return Target(f"straight {target.name}", target.dimension, density, target.prior_draw, broadcasts=True)
