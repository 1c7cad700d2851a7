"""Scores of probabilistic forecasts. Arrays are (draw, point) for draws and (point,) for what was observed.

Log score and CRPS are averages of proper scoring rules: log score in nats on the value scale (higher is better), CRPS in
units of the value (lower is better). Coverage is that of equal-tailed intervals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def log_mean_exp(values: NDArray) -> NDArray:
    """log of the mean of exp(values) over the first axis."""
    top = values.max(axis=0)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return safe + np.log(np.mean(np.exp(values - safe), axis=0))


def crps(draws: NDArray, observed: NDArray) -> NDArray:
    """Continuous ranked probability score, E|X - y| - E|X - X'| / 2, by the sorted-draws identity (point,)."""
    draws = np.sort(draws, axis=0)
    n = len(draws)
    weight = (2.0 * np.arange(1, n + 1) - n - 1.0) / (n * n)
    return np.abs(draws - observed).mean(axis=0) - np.tensordot(weight, draws, axes=(0, 0))


def covered(draws: NDArray, observed: NDArray, mass: float) -> NDArray:
    """Whether the equal-tailed interval of this mass holds what was observed (point,)."""
    lower, upper = np.quantile(draws, [(1 - mass) / 2, (1 + mass) / 2], axis=0)
    return (lower <= observed) & (observed <= upper)


def width(draws: NDArray, mass: float) -> NDArray:
    """Width of the equal-tailed interval of this mass (point,)."""
    lower, upper = np.quantile(draws, [(1 - mass) / 2, (1 + mass) / 2], axis=0)
    return upper - lower


def nrmse(predicted: NDArray, observed: NDArray) -> float:
    """Root mean squared error over the mean of what was observed; comparable with published tables, ruled by the level."""
    return float(np.sqrt(np.mean((predicted - observed) ** 2)) / np.mean(observed))


def pit(draws: NDArray, observed: NDArray, *, seed: int = 0) -> NDArray:
    """Probability integral transform of each observation, randomised where draws tie with it (point,)."""
    below, equal = (draws < observed).mean(axis=0), (draws == observed).mean(axis=0)
    return below + np.random.default_rng(seed).uniform(size=below.shape) * equal
