"""Observed points: what was measured at each shot count, with the spread between runs."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from bayesscale.columns import taken
from bayesscale.finding import InputError
from bayesscale.likelihood import inverse_link
from bayesscale.plots.style import DATA
from bayesscale.result import Fit

type HeldOut = tuple[ArrayLike, ArrayLike]
"""(shots, values) that were not fitted; several values at one shot count are runs."""


@dataclass(frozen=True, eq=False)
class Points:
    """Values at shot counts, (point,), with the two ends of an error bar; where there is none all three are equal."""

    shots: NDArray
    value: NDArray
    lower: NDArray
    upper: NDArray
    bars: str

    @property
    def errors(self) -> NDArray:
        """Lengths of the bars below and above, (2, point)."""
        return np.maximum(np.stack([self.value - self.lower, self.upper - self.value]), 0.0)


def task_rows(fit: Fit, task: int = 0) -> dict[str, NDArray]:
    """Return the columns of one curve's observed rows; a joint fit has several, told apart by `task`."""
    columns = taken(fit.unit.columns, 0)
    seen = (columns["mask"] > 0) & (columns["task"] == task)
    if not seen.any():
        raise InputError(
            "PLOT-TASK", f"the fit holds {fit.model.tasks} curves and none is number {task}", where=fit.name
        )
    return {name: column[seen] for name, column in columns.items() if np.shape(column) == seen.shape}


def observed_points(fit: Fit, task: int = 0) -> Points:
    """Average what was fitted over runs; bars are one standard deviation between runs, else one standard error."""
    rows = task_rows(fit, task)
    if "run_variance" in rows:
        sd = np.where(rows["run_df"] > 0, np.sqrt(rows["run_variance"]), 0.0)
        ends = (
            np.asarray(inverse_link(fit.model.likelihood.kind, jnp.asarray(rows["y"] + sign * sd)))
            for sign in (-1.0, 1.0)
        )
        flat = sd == 0
        lower, upper = (np.where(flat, rows["value"], end) for end in ends)
        return Points(rows["shots"], rows["value"], lower, upper, "" if flat.all() else "± sd of runs")
    points = average_runs(rows["shots"], rows["value"])
    if points.bars or not rows.get("se", np.zeros(1)).any():
        return points
    return Points(rows["shots"], rows["value"], rows["value"] - rows["se"], rows["value"] + rows["se"], "± se")


def average_runs(shots: ArrayLike, values: ArrayLike) -> Points:
    """Average values that share a shot count; bars are one standard deviation between them.

    Raises
    ------
    InputError : the two are not equally long, finite and one-dimensional, or there are none.
    """
    x, y = np.asarray(shots, float), np.asarray(values, float)
    if x.ndim != 1 or x.shape != y.shape or not x.size or not (np.isfinite(x).all() and np.isfinite(y).all()):
        what = f"shots and values must be finite and equally long, got shapes {x.shape} and {y.shape}"
        raise InputError("PLOT-POINTS", what, fix="pass (shots, values)")
    at, place, count = np.unique(x, return_inverse=True, return_counts=True)
    mean = np.bincount(place, y) / count
    squares = np.bincount(place, (y - mean[place]) ** 2)
    sd = np.sqrt(squares / np.maximum(count - 1, 1))
    return Points(at, mean, mean - sd, mean + sd, "± sd of runs" if (count > 1).any() else "")


def draw_points(ax: Axes, points: Points, *, held_out: bool = False) -> None:
    """Draw points with their bars: filled where fitted, hollow where held out."""
    ax.errorbar(
        points.shots,
        points.value,
        yerr=points.errors if points.bars else None,
        fmt="o",
        ms=4.5,
        mfc="white" if held_out else DATA,
        mec=DATA,
        ecolor=DATA,
        elinewidth=0.8,
        zorder=4,
        label=f"{'held out' if held_out else 'fitted'} {points.bars}".strip(),
    )
