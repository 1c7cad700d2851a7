"""Moments of a posterior of up to four coordinates by the trapezoidal rule on a grid, as an independent reference.

The grid is a box in coordinates v = R^-1 (u - m) that make the posterior round; m and R come from any draws of it and decide
only where the nodes lie. The rule converges exponentially for a smooth density that has vanished at the faces, so two checks
say whether to believe it: the mass on the faces, and how far the moments move when only every other node is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesscale.inference.many import restored
from bayesscale.model import Target

SLAB = 4096


class Moments(NamedTuple):
    """mean and sd (coord,), share of the mass on the faces, and the largest shift of mean or sd by coarsening, in sds."""

    mean: NDArray
    sd: NDArray
    on_faces: float
    coarsening: float


@lru_cache(maxsize=8)
def evaluator(target: Target) -> Callable:
    """Compile the log density at nodes (node, coord), in slabs so that memory stays flat."""
    return jax.jit(lambda nodes, columns: jax.lax.map(lambda u: target.density(u, columns), nodes, batch_size=SLAB))


def grid_moments(
    target: Target, columns: Mapping[str, NDArray], draws: NDArray, *, nodes: int = 29, reach: float = 7.0
) -> Moments:
    """Integrate over (nodes)^coord nodes up to `reach` standard deviations from the middle of `draws` (draw, coord).

    Draws are in the target's coordinates, the moments are of the model's own. `nodes` is odd, so that every other node makes a
    grid that has the same faces.
    """
    dimension = target.dimension
    centre, root = draws.mean(axis=0), np.linalg.cholesky(np.cov(draws.T).reshape(dimension, dimension))
    axis = np.linspace(-reach, reach, nodes)
    index = np.stack(np.meshgrid(*[np.arange(nodes)] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    u = centre + axis[index] @ root.T
    log_density = np.asarray(evaluator(target)(jnp.asarray(u), columns))
    log_density = np.where(np.isfinite(log_density), log_density, -np.inf)
    weight = np.exp(log_density - log_density.max())
    if target.restore is not None:
        u = restored(target, u[None, None], {name: column[None] for name, column in columns.items()})[0, 0]
    mean, sd = weighted_moments(u, weight)
    coarse = (index % 2 == 0).all(axis=1)
    coarse_mean, coarse_sd = weighted_moments(u[coarse], weight[coarse])
    on_faces = weight[((index == 0) | (index == nodes - 1)).any(axis=1)].sum() / weight.sum()
    shift = np.maximum(np.abs(coarse_mean - mean), np.abs(coarse_sd - sd)) / sd
    return Moments(mean, sd, float(on_faces), float(shift.max()))


def weighted_moments(u: NDArray, weight: NDArray) -> tuple[NDArray, NDArray]:
    share = weight / weight.sum()
    mean = share @ u
    return mean, np.sqrt(share @ (u - mean) ** 2)
