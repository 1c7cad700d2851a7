"""Where sampling starts: modes found from several places, and the curvature there.

Damped Newton on the flat log density, with a fixed number of iterations so that it maps over a batch. The Hessian at the
mode, its eigenvalues floored, gives the linear map that whitens the posterior before NUTS sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from bayesscale.types import Columns, CoordArray, Scalar

ITERATIONS = 40
LONGEST_STEP = 3.0
SMALLEST_CURVATURE = 1e-3
"""Floor on Hessian eigenvalues: priors of unit scale keep real curvature above it."""


class Mode(NamedTuple):
    """A local maximum: where, how high, and the whitening map W with (W W^T)^-1 the floored Hessian (or W's diagonal)."""

    u: CoordArray
    log_density: Scalar
    whiten: jax.Array


def floored_spectrum(hessian: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues made positive and at least the floor, with their vectors."""
    safe = jnp.where(jnp.isfinite(hessian), hessian, 0.0) + 0.0 * jnp.eye(hessian.shape[-1])
    values, vectors = jnp.linalg.eigh(0.5 * (safe + safe.T))
    return jnp.maximum(jnp.abs(values), SMALLEST_CURVATURE), vectors


def find_mode(density: Callable[[CoordArray, Columns], Scalar], start: CoordArray, columns: Columns) -> Mode:
    """Climb from `start` by damped Newton steps; a step that does not climb is taken back and shortened."""

    def value_gradient_hessian(u: CoordArray) -> tuple[Scalar, CoordArray, jax.Array]:
        def gradient_and_value(v):  # noqa: ANN001, ANN202
            value, gradient = jax.value_and_grad(density)(v, columns)
            return gradient, (value, gradient)

        hessian, (value, gradient) = jax.jacfwd(gradient_and_value, has_aux=True)(u)
        return value, gradient, hessian

    # The density is evaluated at one place only, at the proposal, because each place is compiled anew.
    def climb(state, _):  # noqa: ANN001, ANN202
        proposal, u, value, gradient, values, vectors, damping = state
        new_value, new_gradient, hessian = value_gradient_hessian(proposal)
        better = jnp.isfinite(new_value) & (new_value >= value) & jnp.all(jnp.isfinite(new_gradient))
        new_values, new_vectors = floored_spectrum(-hessian)
        damping = jnp.clip(jnp.where(better, damping * 0.2, damping * 8.0 + 1e-2), 1e-8, 1e8)
        new = (proposal, new_value, new_gradient, new_values, new_vectors)
        u, value, gradient, values, vectors = jax.tree.map(
            lambda a, b: jnp.where(better, a, b), new, (u, value, gradient, values, vectors)
        )
        step = vectors @ ((vectors.T @ gradient) / (values + damping))
        step *= jnp.minimum(1.0, LONGEST_STEP / (jnp.linalg.norm(step) + 1e-12))
        return (u + step, u, value, gradient, values, vectors, damping), None

    size = start.shape[0]
    nowhere = (jnp.asarray(-jnp.inf), jnp.zeros(size), jnp.ones(size), jnp.eye(size), jnp.asarray(1e-2))
    (_, u, value, _, values, vectors, _), _ = jax.lax.scan(climb, (start, start, *nowhere), None, length=ITERATIONS)
    return Mode(u, value, vectors / jnp.sqrt(values))


def find_large_mode(density: Callable[[CoordArray, Columns], Scalar], start: np.ndarray, columns: Columns) -> Mode:
    """Climb by L-BFGS and whiten each coordinate by its own curvature: for posteriors of hundreds of coordinates.

    Coordinates of a non-centred hierarchy have prior curvature of about one, which floors the diagonal.
    """
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
