"""Persistence: the forecast that the last observed value stays.

The baseline every law has to beat; on curves that are saturated at the end of the training data none does. On the link
scale (logit p, or log NLL) the expected value is a random walk in log(1 + n) that starts at the last training cell:

    y(n) ~ Normal(y_last, v_last + s^2 (log(1+n) - log(1+n_last)))

y_last and v_last are the last cell's value and squared standard error, s^2 is the mean squared increment of the
training cells per unit of log(1 + n). Increments are taken over at least half an e-fold of 1 + n, so that a dense
curve's noise is not taken for movement, and one typical increment is added, so that a short flat curve is not called
certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.units import cells

SHORTEST_STEP = 0.5
"""Increments span at least this much of log(1 + n)."""
TYPICAL_RATE = 0.3**2
"""Squared movement per unit of log(1 + n) that s^2 is shrunk to, with the weight of one increment."""


@dataclass(frozen=True, eq=False)
class Persistence:
    """The last value of one curve, carried forward.

    Attributes
    ----------
    name : the curve.
    shots : (point,).
    point : (point,), the last training cell's value at every point: a probability, or an NLL in nats.
    draws : (draw, point), paths of the expected value, on the same scale.
    """

    name: str
    shots: NDArray[np.float64]
    point: NDArray[np.float64]
    draws: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinkCells:
    """Cells of one curve: shots, mean value, and its link with the squared standard error there; all (cell,)."""

    shots: NDArray[np.float64]
    value: NDArray[np.float64]
    y: NDArray[np.float64]
    variance: NDArray[np.float64]


def persist(train: Curves, at: ArrayLike, *, draws: int = 1000, seed: int = 0) -> list[Persistence]:
    """Forecast every curve of `train` at shot counts `at` by its last value.

    The draws are of the expected value, jointly over points; a new measurement adds its own noise. A curve's draws
    depend on its own data and the seed, not on the curves beside it.

    Raises
    ------
    InputError : a point lies before a curve's last training shots, where there is nothing to carry forward.
    """
    shots = np.atleast_1d(np.asarray(at, float))
    return [_persist_one(train, i, shots, draws, seed) for i in range(len(train))]


def _persist_one(train: Curves, i: int, shots: NDArray[np.float64], draws: int, seed: int) -> Persistence:
    data = link_cells(train, i)
    if not (np.isfinite(shots).all() and (shots >= data.shots[-1]).all()):
        raise InputError(
            "PERSIST-SHOTS",
            f"persistence starts at the last training shots, {data.shots[-1]:g}; got {shots.min():g}",
            where=train.curve_name(i),
        )
    rng = np.random.default_rng([seed, int(train.digest(i)[:16], 16)])
    path = link_paths(data, shots, draws, rng)
    values = np.exp(path) if train.kind == "nll_mean" else expit(path)
    return Persistence(train.curve_name(i), shots, np.full(shots.size, data.value[-1]), values)


def link_paths(
    data: LinkCells, shots: NDArray[np.float64], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the random walk on the link scale at these shots, (draw, point)."""
    order = np.argsort(shots, kind="stable")
    elapsed = np.diff(np.log1p(shots[order]), prepend=math.log1p(data.shots[-1]))
    steps = rng.standard_normal((draws, shots.size)) * np.sqrt(movement_rate(data) * elapsed)
    start = data.y[-1] + math.sqrt(data.variance[-1]) * rng.standard_normal((draws, 1))
    path = np.empty((draws, shots.size))
    path[:, order] = start + steps.cumsum(axis=1)
    return path


def movement_rate(data: LinkCells) -> float:
    """s^2 = (s0^2 + sum of (dy)^2 / dt) / (1 + m) over m increments dy across dt = d log(1+n) >= `SHORTEST_STEP`.

    The increments are counted back from the last cell; a curve of one cell gets s0^2, `TYPICAL_RATE`.
    """
    time = np.log1p(data.shots)
    kept = [len(time) - 1]
    for i in range(len(time) - 2, -1, -1):
        if time[kept[-1]] - time[i] >= SHORTEST_STEP:
            kept.append(i)
    squares = np.diff(data.y[kept]) ** 2 / -np.diff(time[kept])
    return float((TYPICAL_RATE + squares.sum()) / (1 + len(squares)))


def link_cells(curves: Curves, i: int) -> LinkCells:
    """Average the runs of a curve at each shot count and move to the link scale.

    The squared standard error is the larger of two: run variance over runs, and what the measurement itself implies.
    For N trials that is 1 / (N p (1-p)) on the logit axis, however many runs there are, because runs share their items;
    for means it is the average of the given se^2 over runs. What is unknown counts as zero.
    """
    if curves.kind == "counts":
        data = cells(curves, i)
        p = expit(data["y"])
        between = np.where(data["run_df"] > 0, data["run_variance"] / data["runs"], 0.0)
        within = 1.0 / (data["trials"] * p * (1.0 - p))
        return LinkCells(data["shots"], data["value"], data["y"], np.maximum(between, within))
    rows = np.flatnonzero(curves.curve == i)
    shots, start = np.unique(curves.shots[rows], return_index=True)
    values = np.split(curves.column("value")[rows], start[1:])
    known = np.split(np.nan_to_num(curves.column("se")[rows]), start[1:])
    mean = np.array([v.mean() for v in values])
    between = np.array([v.var(ddof=1) / len(v) if len(v) > 1 else 0.0 for v in values])
    within = np.array([np.mean(se**2) / len(se) for se in known])
    variance = np.maximum(between, within)
    if curves.kind == "nll_mean":
        inside = np.maximum(mean, 1e-12)
        return LinkCells(shots, mean, np.log(inside), variance / inside**2)
    inside = np.clip(mean, 1e-6, 1.0 - 1e-6)
    y = np.log(inside) - np.log1p(-inside)
    return LinkCells(shots, mean, y, variance / (inside * (1.0 - inside)) ** 2)
