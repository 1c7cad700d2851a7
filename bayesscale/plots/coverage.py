"""Coverage: the share of problems solved against the number of attempts, within the samples and beyond."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bayesscale.finding import InputError
from bayesscale.plots.style import (
    DASHES,
    DATA,
    HALF,
    MEDIAN,
    MOST,
    log_shots_axis,
    mark_boundary,
    new_axes,
    quiet_frame,
    verbatim,
    write_legend,
    write_shots,
    write_title,
)
from bayesscale.resampling.forecast import CoverageForecast
from bayesscale.resampling.passk import Coverage

PARTLY = "#fafaf8"
"""The ground where some problems were still sampled and others no more."""
TARGET_LABEL = {
    "solved": "share of these problems solved\nwithin k attempts",
    "these": "mean chance of solving one of\nthese problems in k attempts",
    "population": "mean chance of solving a problem\nof the population in k attempts",
    "new": "share of as many new problems\nsolved within k attempts",
}


def attempt_grid(last: float, points: int = 60) -> NDArray[np.int64]:
    """Whole numbers of attempts about evenly spaced in log k from 1 to `last`: what to forecast a curve at."""
    return np.unique(np.round(np.geomspace(1.0, max(last, 2.0), points)).astype(np.int64))


def plot_coverage(
    forecasts: CoverageForecast | Sequence[CoverageForecast],
    *,
    empirical: Coverage | None = None,
    open_from: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw forecasts of coverage over the number of attempts, on a log axis.

    The line is the posterior median of the first forecast, dashed beyond the most samples any problem had; the dark and
    light bands are its pointwise 50% and 90% equal-tailed intervals. Other forecasts, of the same model under other laws,
    are their medians with thin lines at the ends of their 90% intervals beyond the samples. Points are the estimate without
    a law, pass@k or Kaplan-Meier, with its confidence intervals over problems: of new problems like these, so wider than
    the bands of a forecast that is about these problems alone.

    Parameters
    ----------
    forecasts : one model's, the answer first; best made at `attempt_grid`.
    empirical : what `empirical_coverage` returned.
    open_from : fewest samples of an unsolved problem, marked where it lies before the last: from there on the curve is
        a forecast for some problems.
    ax : axes to draw on; by default a new figure.

    Raises
    ------
    InputError : no forecast, or forecasts of several models or targets.
    """
    own, *others = checked_forecasts(forecasts)
    ax = new_axes(ax, (5.4, 3.7))
    boundary = float(own.k[0] / own.horizon[0])
    log_shots_axis(ax, max(0.9, float(own.k[0]) / 1.15), float(own.k[-1]), "attempts k")
    draw_forecast(ax, own, boundary)
    for place, other in enumerate(others):
        draw_other(ax, other, boundary, place + 1)
    if empirical is not None:
        draw_empirical(ax, empirical)
    word = "sampled up to"
    if open_from is not None and open_from < boundary:
        ax.axvspan(open_from, boundary, color=PARTLY, lw=0, zorder=0, gid="partly")
        word = f"unsolved ones sampled up to {write_shots(open_from)} at least,"
    mark_boundary(ax, boundary, word, "attempts")
    ax.set_ylim(-0.02, top_of(own, others, empirical))
    ax.set_ylabel(TARGET_LABEL[own.target], fontsize=9)
    quiet_frame(ax)
    write_title(ax, f"{own.name}: {own.solved} of {own.problems} solved so far", above=1)
    write_legend(ax)
    return ax


def checked_forecasts(forecasts: CoverageForecast | Sequence[CoverageForecast]) -> list[CoverageForecast]:
    """Return forecasts as a list, each by increasing k; all must be of one model and target."""
    found = [forecasts] if isinstance(forecasts, CoverageForecast) else list(forecasts)
    if len({(f.name, f.target) for f in found}) != 1:
        what = "there is no forecast" if not found else "the forecasts are of several models or targets"
        raise InputError("PLOT-FORECASTS", what, fix="pass one model's forecasts of one target")
    if any((np.diff(f.k) <= 0).any() for f in found):
        raise InputError("PLOT-FORECASTS", "the k of a forecast must increase", fix="forecast at attempt_grid(last)")
    return found


def draw_forecast(ax: Axes, own: CoverageForecast, boundary: float) -> None:
    """Draw the bands and the median of the forecast that is the answer."""
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        lower, upper = own.interval(mass)
        ax.fill_between(own.k, lower, upper, color=colour, lw=0, zorder=1, label=f"{mass:.0%} interval")
    median = np.median(own.draws, axis=0)
    inside, beyond = split_at(own.k, boundary)
    ax.plot(own.k[inside], median[inside], color=MEDIAN, lw=1.8, zorder=3, label=f"{verbatim(own.law)}, median")
    ax.plot(own.k[beyond], median[beyond], color=MEDIAN, lw=1.8, ls=(0, (3, 1.5)), zorder=3)


def split_at(k: NDArray, boundary: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Points up to a boundary, and those from the last of them on, so that two lines drawn there meet."""
    inside = k <= boundary * (1 + 1e-9)
    last = int(inside.sum()) - 1
    return inside, np.arange(len(k)) >= max(last, 0)


def draw_other(ax: Axes, other: CoverageForecast, boundary: float, place: int) -> None:
    """Draw the median under another law, and beyond the samples the ends of its 90% interval."""
    colour, dashes, marker = DASHES[place % len(DASHES)]
    every = max(1, len(other.k) // 8)
    style = {"color": colour, "ls": dashes, "marker": marker, "ms": 3.5, "markevery": (2 * place, every)}
    ax.plot(other.k, np.median(other.draws, axis=0), lw=1.3, zorder=3.5, label=verbatim(other.law), **style)
    _, beyond = split_at(other.k, boundary)
    for end in other.interval(0.9):
        ax.plot(other.k[beyond], end[beyond], color=colour, ls=dashes, lw=0.7, zorder=2.5)


def draw_empirical(ax: Axes, empirical: Coverage) -> None:
    """Draw an estimate without a law at a few k, with its confidence intervals."""
    k = empirical.at
    targets = np.geomspace(k[0], k[-1], 7)
    shown = np.unique(np.abs(np.log(k)[:, None] - np.log(targets)).argmin(axis=0))
    value = empirical.value[shown]
    ends = np.maximum([value - empirical.low[shown], empirical.high[shown] - value], 0.0)
    name = {"unbiased": "unbiased pass@k", "kaplan-meier": "Kaplan-Meier"}[empirical.method]
    label = f"{name}, {empirical.mass:.0%} CI"
    ax.errorbar(k[shown], value, yerr=ends, fmt="o", ms=4.2, color=DATA, elinewidth=0.8, zorder=4, label=label)


def top_of(own: CoverageForecast, others: Sequence[CoverageForecast], empirical: Coverage | None) -> float:
    """Choose the end of the axis of shares: 1, or less where all is small."""
    highest = max(float(f.interval(0.9)[1].max()) for f in (own, *others))
    if empirical is not None:
        highest = max(highest, float(empirical.high.max()))
    return 1.03 if highest > 0.5 else highest * 1.12 + 0.005
