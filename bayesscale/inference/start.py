"""Where sampling starts: modes found from several places, and the curvature there.

Damped Newton on the flat log density, all curves and starts of a batch in lanes, with a fixed number of iterations. The
Hessian at the mode, its eigenvalues floored, gives the linear map that whitens the posterior before NUTS sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from bayesscale.columns import taken
from bayesscale.model import Target
from bayesscale.programs import Program, storable
from bayesscale.types import Columns, CoordArray, Scalar

ITERATIONS = 30
QUICKLY = {"xla_backend_optimization_level": 0}
"""Compiler options for what runs once per posterior: half the compilation, for a fifth of a millisecond each."""
SCREENED = 4
"""Prior draws looked at per start."""
DIFFERENCE = 1e-5
"""Distance between the gradients that a second derivative is taken from; coordinates are of unit scale."""
SETTLED = 0.05
"""Nats a Newton step may still promise at a maximum."""
LARGEST_BATCH = 256
"""Starts climbed together."""
LONGEST_STEP = 3.0
SMALLEST_CURVATURE = 1e-3
"""Floor on Hessian eigenvalues: priors of unit scale keep real curvature above it."""


class Mode(NamedTuple):
    """A local maximum: where, how high, and the whitening map W with (W W^T)^-1 the floored Hessian (or W's diagonal)."""

    u: NDArray
    log_density: NDArray
    whiten: NDArray


def floored_spectrum(curvature: NDArray) -> tuple[NDArray, NDArray]:
    """Eigenvalues of matrices (..., coord, coord), made positive and at least the floor, with their vectors."""
    finite = np.isfinite(curvature).all(axis=(-2, -1), keepdims=True)
    values, vectors = np.linalg.eigh(np.where(finite, curvature, np.eye(curvature.shape[-1])))
    return np.maximum(np.abs(values), SMALLEST_CURVATURE), vectors


def solve_floored(a: jax.Array, b: jax.Array) -> jax.Array:
    """Solve A x = b for symmetric A (coord, coord, lane) by L D L^T with pivots made positive and floored.

    Where A is not positive definite, x is the solution for a nearby matrix that is: a direction along which one climbs.
    Written column by column for all lanes at once; lane by lane, LAPACK would take most of the search. The columns are a loop,
    since written out they took most of the compilation.
    """
    size, rows = len(b), jnp.arange(len(b))[:, None]

    def eliminate(j: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        a, lower, pivots, x = state
        column = jax.lax.dynamic_index_in_dim(a, j, axis=1, keepdims=False)
        pivot = jnp.maximum(jnp.abs(column[j]), SMALLEST_CURVATURE)
        below = jnp.where(rows > j, column / pivot, 0.0)
        a = a - below[:, None] * (below * pivot)[None]
        return a, lower.at[j].set(below), pivots.at[j].set(pivot), x - below * x[j]

    def substitute(i: jax.Array, x: jax.Array) -> jax.Array:
        j = size - 1 - i
        return x.at[j].add(-jnp.sum(lower[j] * x, axis=0))

    _, lower, pivots, x = jax.lax.fori_loop(0, size, eliminate, (a, jnp.zeros_like(a), jnp.zeros_like(b), b))
    return jax.lax.fori_loop(0, size, substitute, x / pivots)


def lane_density(target: Target) -> Callable[[jax.Array, Columns], jax.Array]:
    """Log density (lane,) of u (coord, lane) and columns (..., lane)."""
    return target.density if target.broadcasts else jax.vmap(target.density, in_axes=-1)


def repeated(columns: Columns, times: int) -> dict[str, jax.Array]:
    """Columns (unit, ...) as (..., lane), so many lanes per unit."""
    return {name: jnp.repeat(jnp.moveaxis(column, 0, -1), times, axis=-1) for name, column in columns.items()}


@storable
class Climbed(NamedTuple):
    """Where climbs ended, each (..., lane): position (coord, lane), density, curvature (coord, coord, lane), arrival."""

    u: jax.Array
    log_density: jax.Array
    curvature: jax.Array
    settled: jax.Array


STIFFNESS = 1e6
"""Curvature that holds a pinned coordinate."""


def climb(target: Target, start: jax.Array, columns: Columns, pinned: jax.Array) -> Climbed:
    """Climb from starts (coord, lane) by damped Newton steps; a step that does not climb is taken back and shortened.

    Where `pinned` (lane,), the target's pivot stays where it starts. The curvature is the negative Hessian; a climb arrived
    when another step would gain less than `SETTLED` nats.
    """
    own, size = lane_density(target), len(start)
    identity = jnp.broadcast_to(jnp.eye(size)[:, :, None], (size, *start.shape))
    offsets = DIFFERENCE * jnp.concatenate([jnp.zeros((1, size)), jnp.eye(size)])[:, :, None]

    def density(u: jax.Array) -> jax.Array:
        if target.pivot is None:
            return own(u, columns)
        return own(u, columns) - jnp.where(pinned, 0.5 * STIFFNESS, 0.0) * (u[target.pivot] - start[target.pivot]) ** 2

    def value_and_gradient(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, pull = jax.vjp(density, u)
        return value, pull(jnp.ones_like(value))[0]

    def measured(u: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # Differences of gradients: closer than whitening needs, where a second derivative took most of the compilation.
        values, gradients = jax.vmap(value_and_gradient)(u + offsets)
        curvature = (gradients[0] - gradients[1:]) / DIFFERENCE
        return values[0], gradients[0], 0.5 * (curvature + jnp.swapaxes(curvature, 0, 1))

    # The density is evaluated at one place only, at the proposal, because each place is compiled anew.
    def step(state, _):  # noqa: ANN001, ANN202
        proposal, kept, damping = state
        new = (proposal, *measured(proposal))
        better = jnp.isfinite(new[1]) & (new[1] >= kept[1]) & jnp.all(jnp.isfinite(new[2]), axis=0)
        better &= jnp.all(jnp.isfinite(new[3]), axis=(0, 1))
        kept = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, kept)
        damping = jnp.clip(jnp.where(better, damping * 0.2, damping * 8.0 + 1e-2), 1e-8, 1e8)
        move = solve_floored(kept[3] + damping * jnp.eye(size)[:, :, None], kept[2])
        move *= jnp.minimum(1.0, LONGEST_STEP / (jnp.sqrt(jnp.sum(move**2, axis=0)) + 1e-12))
        return (kept[0] + move, kept, damping), None

    lanes = start.shape[1]
    nowhere = (start, jnp.full(lanes, -jnp.inf), jnp.zeros_like(start), identity)
    begin = (start, nowhere, jnp.full(lanes, 1e-2))
    (_, (u, value, gradient, curvature), _), _ = jax.lax.scan(step, begin, None, length=ITERATIONS)
    gain = 0.5 * jnp.sum(gradient * solve_floored(curvature, gradient), axis=0)
    return Climbed(u, value, curvature, gain < SETTLED)


@lru_cache(maxsize=128)
def climber(target: Target) -> Callable[[jax.Array, Columns, jax.Array], Climbed]:
    """Compile `climb` of a target, for starts (unit, start, coord), columns (unit, ...) and pinned (unit, start)."""

    def climb_all(start: jax.Array, columns: Columns, pinned: jax.Array) -> Climbed:
        units, starts, size = start.shape
        found = climb(target, start.reshape(units * starts, size).T, repeated(columns, starts), pinned.ravel())
        return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0).reshape(units, starts, *a.shape[:-1]), found)

    return Program(climb_all)


@lru_cache(maxsize=128)
def screener(target: Target, starts: int) -> Callable[[jax.Array, Columns], jax.Array]:
    """Compile the choice of starts: keys (unit, 2) and columns (unit, ...) to places (unit, start, coord)."""
    density = lane_density(target)

    def screen(keys: jax.Array, columns: Columns) -> jax.Array:
        def draw(words: jax.Array, facts: Columns) -> jax.Array:
            split = jax.random.split(jax.random.wrap_key_data(words), SCREENED * starts)
            return jax.vmap(target.prior_draw, in_axes=(0, None))(split, facts)

        draws = jax.vmap(draw)(keys, columns)
        # Half of the starts are pulled towards the prior's middle, where most posteriors are reached in a few steps.
        pull = jnp.where(jnp.arange(SCREENED * starts) % 2 == 0, 0.3, 1.0)[:, None]
        centre = jnp.mean(draws, axis=1, keepdims=True)
        draws = centre + pull * (draws - centre)
        # The better half of the starts comes from the best draws, the rest from draws as they come: other modes.
        units, looked, size = draws.shape
        value = density(draws.reshape(-1, size).T, repeated(columns, looked)).reshape(units, looked)
        value = jnp.where(jnp.isfinite(value), value, -jnp.inf).at[:, : starts // 2].set(jnp.inf)
        chosen = jnp.argsort(-value, axis=1, stable=True)[:, :starts]
        return jnp.take_along_axis(draws, chosen[..., None], axis=1)

    return Program(screen, options=QUICKLY)


def in_batches(target: Target, starts: int, compute: Callable[..., Any], *arrays: Any) -> Any:
    """Apply `compute` to (unit, ...) arrays in batches of one fixed size, the last filled up."""
    units = len(jax.tree.leaves(arrays)[0])
    size, parts = max(1, min(LARGEST_BATCH // starts, 2048 // (starts * target.dimension))), []
    for begin in range(0, units, size):
        index = np.minimum(np.arange(begin, begin + size), units - 1)
        found = compute(*jax.tree.map(lambda a: a[index], arrays))  # noqa: B023
        parts.append(jax.tree.map(lambda a: np.asarray(a)[: units - begin], found))  # noqa: B023
    return jax.tree.map(lambda *pieces: np.concatenate(pieces), *parts)


def find_modes(target: Target, keys: NDArray, columns: Mapping[str, NDArray], starts: int) -> Mode:
    """Search every unit's modes; with no starts, climb once from the origin (large posteriors)."""
    if starts == 0:
        origin = np.zeros(target.dimension)
        units = [taken(columns, i) for i in range(len(keys))]
        found = [find_large_mode(target.density, origin, unit) for unit in units]
        return jax.tree.map(lambda *arrays: np.stack([np.asarray(a) for a in arrays]), *found)
    begin = in_batches(target, starts, screener(target, starts), keys, columns)
    free = np.zeros((len(keys), starts), bool)
    found = in_batches(target, starts, climber(target), begin, columns, free)
    # A climb still under way is no maximum; where none arrived, the highest has to do.
    counts = found.settled | ~found.settled.any(axis=1, keepdims=True)
    values, vectors = floored_spectrum(found.curvature)
    return Mode(found.u, np.where(counts, found.log_density, -np.inf), vectors / np.sqrt(values)[..., None, :])


def climb_pinned(target: Target, columns: Mapping[str, NDArray], places: NDArray, values: NDArray) -> Climbed:
    """Maxima (unit, value) of every unit with the pivot held at each of the values, climbed to from places (unit, coord)."""
    begin = np.repeat(places[:, None], len(values), axis=1)
    begin[..., target.pivot] = values
    return in_batches(target, len(values), climber(target), begin, columns, np.ones(begin.shape[:2], bool))


def find_large_mode(density: Callable[[CoordArray, Columns], Scalar], start: np.ndarray, columns: Columns) -> Mode:
    """Climb by L-BFGS and whiten each coordinate by its own curvature: for posteriors of hundreds of coordinates.

    Coordinates of a non-centred hierarchy have prior curvature of about one, which floors the diagonal.
    """
    # Of jax: derivatives of one's own, mapped over tasks, take no arrays of numpy that are closed over.
    columns = jax.tree.map(jnp.asarray, columns)
    value_and_gradient = jax.jit(jax.value_and_grad(lambda u: -density(u, columns)))

    def loss(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_gradient(u)
        safe = np.isfinite(value) and np.isfinite(gradient).all()
        return (float(value), np.asarray(gradient)) if safe else (1e12, np.zeros_like(u))

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    gradient = jax.grad(lambda u: -density(u, columns))
    basis = jnp.eye(len(start))
    curvature = jax.jit(lambda u: jax.lax.map(lambda e: e @ jax.jvp(gradient, (u,), (e,))[1], basis))(found.x)
    scale = 1.0 / np.sqrt(np.maximum(np.nan_to_num(np.asarray(curvature)), 0.5))
    return Mode(found.x[None], np.asarray([-found.fun]), scale[None])  # pyright: ignore[reportArgumentType]
