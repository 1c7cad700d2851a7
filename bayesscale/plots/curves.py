"""A curve: its posterior over shots, within the data and beyond."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bayesscale.plots.points import HeldOut, Points, average_runs, draw_points, observed_points
from bayesscale.plots.style import (
    HALF,
    MEDIAN,
    MOST,
    VALUE_LABEL,
    log_shots_axis,
    mark_boundary,
    new_axes,
    quiet_frame,
    shot_grid,
    write_legend,
    write_title,
)
from bayesscale.prediction import Kind, Prediction
from bayesscale.result import Fit

HORIZON = 4.0
"""How far beyond the fitted shots a curve is drawn unless something lies further out."""
ESTIMAND: dict[Kind, str] = {
    "law": "{}, law alone",
    "mean": "expected {}",
    "new_observation": "{}, new observation",
    "new_run": "{}, new run",
}


def plot_curve(
    fit: Fit,
    *,
    kind: Kind = "mean",
    at: Sequence[float] | NDArray | None = None,
    held_out: HeldOut | None = None,
    ax: Axes | None = None,
    horizon: float | None = None,
    task: int = 0,
) -> Axes:
    """Draw what a fit says about a curve over shots, on a log axis.

    The line is the posterior median of the estimand, dashed beyond the largest fitted shots; the dark and light bands
    are its pointwise 50% and 90% equal-tailed intervals. Where the expected value may leave the law, a dotted line is the
    law's own median: far from the points, it says that the law does not describe them. Filled points were fitted, hollow
    ones were held out; bars are one standard deviation between runs where there are several, else the standard error that
    came with the data.

    Parameters
    ----------
    fit : the posterior; one that failed its checks says so in the title.
    kind : the estimand, as in `Fit.predict`. Held-out points are to be judged by "new_observation".
    at : shot counts to draw at; by default evenly over the axis.
    held_out : (shots, values) that were not fitted, on the scale of the data.
    ax : axes to draw on; by default a new figure.
    horizon : end of the axis as a multiple of the largest fitted shots; by default the last held-out point, or 4.
    task : which curve of a joint fit.
    """
    ax = new_axes(ax)
    points = observed_points(fit, task)
    unseen = None if held_out is None else average_runs(*held_out)
    boundary = float(points.shots.max())
    shots = curve_shots(fit, points, unseen, horizon) if at is None else np.unique(np.asarray(at, float))
    draw_bands(ax, fit.predict(shots, kind, task=task), boundary)
    if kind == "mean" and fit.model.likelihood.discrepancy is not None:
        law = np.median(fit.predict(shots, "law", task=task).draws, axis=0)
        ax.plot(shots, law, color=MEDIAN, lw=1.1, ls=(0, (1, 1.5)), zorder=2.5, label="law alone")
    draw_points(ax, points)
    if unseen is not None:
        draw_points(ax, unseen, held_out=True)
    finish_curve_axes(ax, fit, kind, shots, [points, *([] if unseen is None else [unseen])])
    write_title(ax, curve_title(fit, task), above=1)
    write_legend(ax)
    return ax


def curve_shots(fit: Fit, points: Points, unseen: Points | None, horizon: float | None) -> NDArray:
    """Choose the shots a curve is drawn at: from the first point (0 only where it was seen) to the horizon."""
    first, last = float(points.shots.min()), float(points.shots.max())
    furthest = last if unseen is None else max(last, float(unseen.shots.max()))
    end = furthest * 1.15 if horizon is None and furthest > last else (horizon or HORIZON) * max(last, 1.0)
    return shot_grid(first, last, end)


def draw_bands(ax: Axes, prediction: Prediction, boundary: float) -> None:
    """Draw 90% and 50% bands and the median of a prediction, the median dashed beyond the boundary."""
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        lower, upper = prediction.interval(mass)
        ax.fill_between(prediction.shots, lower, upper, color=colour, lw=0, zorder=1, label=f"{mass:.0%} interval")
    median, shots = np.median(prediction.draws, axis=0), prediction.shots
    within, beyond = shots <= boundary * (1 + 1e-9), shots >= boundary * (1 - 1e-9)
    ax.plot(shots[within], median[within], color=MEDIAN, lw=1.8, zorder=3, label="posterior median")
    ax.plot(shots[beyond], median[beyond], color=MEDIAN, lw=1.8, ls=(0, (3, 1.5)), zorder=3)


def finish_curve_axes(ax: Axes, fit: Fit, kind: Kind, shots: NDArray, seen: Sequence[Points]) -> None:
    """Scale and label the axes of a curve, and mark where the first of the points, those fitted, end."""
    boundary = float(seen[0].shots.max())
    every = np.concatenate([shots, *(points.shots for points in seen)])
    low, high = float(every.min()), float(every.max())
    log_shots_axis(ax, low / 1.12, high * (1.0 if high > boundary else 1.12))
    mark_boundary(ax, boundary)
    ax.set_ylabel(ESTIMAND[kind].format(VALUE_LABEL[fit.model.likelihood.kind]), fontsize=9)
    bottom, top = ax.get_ylim()
    # A little room beyond 0 and 1, so that points there are drawn whole.
    ax.set_ylim(max(bottom, -0.03 * top), top if fit.model.likelihood.kind == "nll_mean" else min(top, 1.03))
    quiet_frame(ax)


def curve_title(fit: Fit, task: int = 0, *, law: bool = True) -> str:
    """Name the curve and the law, and say when the fit failed its checks."""
    parts = [fit.name, *([f"curve {task}"] if fit.model.tasks > 1 else []), *([fit.law.name] if law else [])]
    failed = sorted({finding.code for finding in fit.findings if finding.grade == "fail"})
    return ", ".join(parts) + (f" (FAILED: {' '.join(failed)})" if failed else "")
