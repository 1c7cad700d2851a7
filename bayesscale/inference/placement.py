"""Where chains start and how their posterior is whitened: u = centre + W x, W a matrix or, for large posteriors, a diagonal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayesscale.inference.settings import Sampler
from bayesscale.inference.start import Mode

SEPARATE, NEGLIGIBLE = 3.0, 5.0
"""Maxima are distinct beyond this many whitened units, and count within this many nats of the best one's Laplace mass."""
SHRINKAGE = 10.0
"""Draws that the identity counts for when the metric is updated."""


def spread_out(whiten: NDArray, x: NDArray) -> NDArray:
    """W x for x (unit, chain, ..., coord), W (unit, coord, coord) or its diagonal (unit, coord)."""
    if whiten.ndim == 2:
        return x * whiten.reshape(len(whiten), *(1,) * (x.ndim - 2), -1)
    return np.einsum("uij,u...j->u...i", whiten, x)


def pull_back(whiten: NDArray, offset: NDArray) -> NDArray:
    """Solve W x = offset for offset (unit, chain, coord)."""
    if whiten.ndim == 2:
        return offset / whiten[:, None]
    return np.swapaxes(np.linalg.solve(whiten, np.swapaxes(offset, 1, 2)), 1, 2)


def first_log_step(size: int) -> float:
    """A step size that suits a standard normal of this many coordinates."""
    return float(np.log(0.8 * size**-0.25))


def separate_modes(modes: Mode) -> tuple[NDArray, NDArray]:
    """Which starts reached distinct maxima with mass: (unit, start) order of the starts, best first, and whether each counts.

    A maximum counts when it lies more than `SEPARATE` whitened units from the better ones that count and its Laplace mass is
    within a factor exp(-`NEGLIGIBLE`) of the best one's.
    """
    values, places, maps = (np.asarray(array) for array in (modes.log_density, modes.u, modes.whiten))
    units, starts = values.shape
    order = np.argsort(np.where(np.isfinite(values), -values, np.inf), axis=1, kind="stable")
    counts = np.zeros((units, starts), bool)
    counts[:, 0] = True
    if starts == 1:
        return order, counts
    rows = np.arange(units)[:, None]
    value, place, whiten = values[rows, order], places[rows, order], maps[rows, order]
    mass = value + np.linalg.slogdet(whiten)[1]
    for j in range(1, starts):
        near = np.zeros(units, bool)
        for c in range(j):
            distance = np.linalg.norm(pull_back(whiten[:, c], (place[:, j] - place[:, c])[:, None])[:, 0], axis=1)
            near |= counts[:, c] & ~(distance > SEPARATE)
        counts[:, j] = ~near & np.isfinite(value[:, j]) & (mass[:, j] >= mass[:, 0] - NEGLIGIBLE)
    return order, counts


class Start(NamedTuple):
    """Where units begin: u = centre + W x, positions x (unit, chain, coord), log step sizes (unit,)."""

    centre: NDArray
    whiten: NDArray
    x: NDArray
    log_step: NDArray


def start_around(modes: Mode, keys: NDArray, sampler: Sampler) -> tuple[Start, NDArray]:
    """Place every unit's chains over-dispersed around all its modes; also the number of modes (unit,)."""
    order, counts = separate_modes(modes)
    units, index = np.arange(len(order)), order[:, 0]
    places = np.asarray(modes.u)
    centre, whiten = places[units, index], np.asarray(modes.whiten)[units, index].copy()
    number = counts.sum(axis=1)
    # Chain c starts at the c-th mode that counts, in turn.
    ranked = np.argsort(~counts, axis=1, kind="stable")
    turn = np.arange(sampler.chains)[None] % number[:, None]
    start = np.take_along_axis(order, np.take_along_axis(ranked, turn, axis=1), axis=1)
    offset = pull_back(whiten, places[units[:, None], start] - centre[:, None])
    shape = (sampler.chains, centre.shape[1])
    noise = np.stack([np.random.default_rng(key.astype(np.uint32)).standard_t(4, size=shape) for key in keys])
    x = offset + np.clip(sampler.spread * noise, -4.0, 4.0)
    return Start(centre, whiten, x, np.full(len(x), first_log_step(x.shape[-1]))), number


def updated_metric(whiten: NDArray, recent: NDArray) -> tuple[NDArray, NDArray]:
    """Whiten once more by the covariance of recent draws (unit, draw, coord), shrunk to the identity; the maps and the change."""
    n, p = recent.shape[1:]
    if whiten.ndim == 2:
        root = np.sqrt((n * recent.var(axis=1) + SHRINKAGE) / (n + SHRINKAGE))
        return whiten * root, root
    centred = recent - recent.mean(axis=1, keepdims=True)
    covariance = np.swapaxes(centred, 1, 2) @ centred / (n - 1)
    covariance[~np.isfinite(covariance).all(axis=(1, 2))] = np.eye(p)
    # By eigenvalues, floored: a posterior gone astray has a covariance that rounding leaves without a Cholesky factor.
    values, vectors = np.linalg.eigh((n * covariance + SHRINKAGE * np.eye(p)) / (n + SHRINKAGE))
    root = vectors * np.sqrt(np.maximum(values, 1e-12 * values[:, -1:]))[:, None, :]
    return whiten @ root, root
