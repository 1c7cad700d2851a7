"""Several laws fitted to one curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from bayesscale.finding import InputError
from bayesscale.plots.curves import curve_shots, curve_title, finish_curve_axes
from bayesscale.plots.points import HeldOut, average_runs, draw_points, observed_points
from bayesscale.plots.style import DASHES, NOTE, new_axes, verbatim, write_legend, write_title
from bayesscale.prediction import Kind
from bayesscale.result import Fit


def plot_laws(
    fits: Sequence[Fit],
    *,
    kind: Kind = "mean",
    ax: Axes | None = None,
    held_out: HeldOut | None = None,
    horizon: float | None = None,
    task: int = 0,
) -> Axes:
    """Draw what several laws, fitted to the same rows of one curve, say about it.

    Each law's line is the posterior median of the estimand; the two thin lines of the same colour and dashes bound its
    pointwise 90% equal-tailed interval. Points are as in `plot_curve`. The legend marks fits that failed their checks.

    Parameters
    ----------
    fits : one per law, in the order of the legend.
    kind : the estimand, as in `Fit.predict`.
    ax : axes to draw on; by default a new figure.
    held_out : (shots, values) that were not fitted.
    horizon : end of the axis as a multiple of the largest fitted shots; by default the last held-out point, or 4.
    task : which curve of a joint fit.
    """
    check_same_curve(fits)
    ax = new_axes(ax, (5.2, 4.2))
    points = observed_points(fits[0], task)
    unseen = None if held_out is None else average_runs(*held_out)
    shots = curve_shots(fits[0], points, unseen, horizon)
    for i, fit in enumerate(fits):
        colour, dashes, marker = DASHES[i % len(DASHES)]
        prediction = fit.predict(shots, kind, task=task)
        median, bounds = np.median(prediction.draws, axis=0), prediction.interval(0.9)
        label = verbatim(fit.law.name) + (" (failed)" if fit.status == "fail" else "")
        style = {"color": colour, "ls": dashes}
        sparse = slice(3 + 2 * i, None, 18)  # staggered, so that markers of laws that agree do not hide one another
        ax.plot(shots, median, **style, lw=1.7, marker=marker, ms=4, markevery=sparse, zorder=3, label=label)
        for bound in bounds:
            ax.plot(shots, bound, **style, lw=0.7, alpha=0.6, zorder=2)
    ax.plot([], [], color=NOTE, lw=0.8, label="90% interval")
    draw_points(ax, points)
    if unseen is not None:
        draw_points(ax, unseen, held_out=True)
    finish_curve_axes(ax, fits[0], kind, shots, [points, *([] if unseen is None else [unseen])])
    write_title(ax, curve_title(fits[0], task, law=False), above=1)
    write_legend(ax)
    return ax


def check_same_curve(fits: Sequence[Fit]) -> None:
    """Refuse fits of different curves or of different kinds of observation, which share no axes."""
    names = sorted({fit.name for fit in fits if not fit.law.joint})
    kinds = {fit.model.likelihood.kind for fit in fits}
    if not fits or len(names) > 1 or len(kinds) > 1:
        what = f"laws are drawn together for one curve, and these fits are of {', '.join(names) or 'nothing'}"
        raise InputError("PLOT-CURVES", what, fix="pass fits of one curve, one per law")
