"""Thresholds: how many shots until a curve crosses one."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from bayesscale.decisions.threshold import Crossing
from bayesscale.finding import InputError
from bayesscale.plots.style import (
    HALF,
    MEDIAN,
    NOTE,
    TAIL,
    log_shots_axis,
    mark_boundary,
    new_axes,
    quiet_frame,
    write_shots,
    write_title,
)

HORIZON = 10.0
BAR = -0.08
"""Where on the y axis the interval bar lies."""


def plot_threshold(
    crossing_draws: Crossing | ArrayLike,
    *,
    never: float = np.inf,
    ax: Axes | None = None,
    horizon: float | None = None,
    largest_shots: float | None = None,
    label: str = "the threshold",
) -> Axes:
    """Draw the posterior probability that a curve has crossed a threshold by a number of shots.

    The line is the posterior's cumulative distribution, dashed beyond the largest observed shots; what it lacks to 1 at
    the right is the probability of no crossing within the range, and stands there as a number. The bar beneath is the
    posterior median (where it lies in the range) with 50% and 90% equal-tailed intervals; an arrow where one goes on.

    Parameters
    ----------
    crossing_draws : what `crossing` returned, which also says where the data and the search end; or (draw,) shots at the
        crossing, inf where it never happens, 0 where the curve starts beyond it.
    never : draws at or above this count as not crossing, for example the end of the grid that was searched.
    ax : axes to draw on; by default a new figure.
    horizon : end of the axis as a multiple of `largest_shots`; by default `never` if finite, else 10, or, without
        `largest_shots`, the last finite draw.
    largest_shots : where the data end; nothing is marked without it.
    label : what is crossed, for the title.
    """
    if isinstance(crossing_draws, Crossing):
        found = crossing_draws
        where = {"largest_shots": found.observed_up_to, "label": f"{found.threshold:g} ({found.name}, {found.law})"}
        return plot_threshold(found.shots, never=found.horizon, horizon=horizon, ax=ax, **where)
    draws = np.asarray(crossing_draws, float).ravel()
    if not draws.size or np.isnan(draws).any() or (draws < 0).any():
        raise InputError("PLOT-THRESHOLD", "crossings must be shots from 0 to inf, without NaN, and there must be some")
    draws = np.where(draws >= never, np.inf, draws)
    ax = new_axes(ax, (5.2, 3.4))
    low, high = axis_range(draws, never, horizon, largest_shots)
    log_shots_axis(ax, low, high, "shots\nbar: median, 50% and 90% intervals")
    draw_distribution(ax, draws, low, high, largest_shots)
    draw_gap(ax, draws, high)
    draw_crossing_interval(ax, draws, low, high)
    if largest_shots is not None:
        mark_boundary(ax, largest_shots, "observed up to")
    ax.set_ylim(-0.14, 1.03)
    ax.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "0.25", "0.5", "0.75", "1"])
    ax.set_ylabel("probability crossed", fontsize=9)
    quiet_frame(ax)
    write_title(ax, f"Shots to cross {label}: {summary(draws, high)}", above=int(largest_shots is not None))
    return ax


def axis_range(draws: NDArray, never: float, horizon: float | None, largest: float | None) -> tuple[float, float]:
    """Choose the ends of the axis; the left end is 0 only if some crossing is there."""
    finite = draws[np.isfinite(draws)]
    furthest = float(finite.max()) if finite.size else 1.0
    if largest is not None and (horizon is not None or not np.isfinite(never)):
        high = (horizon or HORIZON) * max(largest, 1.0)
    else:
        high = never if np.isfinite(never) else furthest * 1.1
    inside = finite[(finite > 0) & (finite < high)]
    low = float(np.quantile(inside, 0.005)) / 1.5 if inside.size else high / 100
    low = low if largest is None or largest <= 0 else min(low, largest / 1.5)
    starts_beyond = bool((finite < 0.5).any())
    return (0.0 if starts_beyond else low), max(high, 1.0, low * 3)


def draw_distribution(ax: Axes, draws: NDArray, low: float, high: float, largest: float | None) -> None:
    """Draw the cumulative distribution, dashed beyond the data."""
    inside = np.unique(draws[draws <= high])
    x = np.unique(np.concatenate([[low], inside, [high], [] if largest is None else [np.clip(largest, low, high)]]))
    share = np.searchsorted(np.sort(draws), x, side="right") / draws.size
    end = high if largest is None else largest
    for part, dashes in ((x <= end, "-"), (x >= end, (0, (3, 1.5)))):
        if part.sum() > 1:
            ax.plot(x[part], share[part], color=MEDIAN, lw=1.8, ls=dashes, drawstyle="steps-post", zorder=3)
    ax.fill_between(x, share, step="post", color=HALF, alpha=0.35, lw=0, zorder=1)


def draw_gap(ax: Axes, draws: NDArray, high: float) -> None:
    """Bracket what the distribution lacks to 1 at the right end, and write it; above the line, or under it if small."""
    reached = float(np.mean(draws <= high))
    missing = 1.0 - reached
    ax.axhline(1.0, color=NOTE, lw=0.6, zorder=1)
    if missing > 0:
        bracket = {"lw": 4, "solid_capstyle": "butt", "clip_on": False}
        ax.plot([high, high], [reached, 1.0], color=NOTE, **bracket, zorder=4, gid="gap")
    share = "<1%" if 0 < missing < 0.005 else f"{missing:.0%}"
    text = f"{share} not by\n{write_shots(high)} shots"
    ground = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1.0}
    y, va = (0.5 * (1 + reached), "center") if missing >= 0.25 else (reached - 0.05, "top")
    style = {"ha": "right", "va": va, "fontsize": 8, "bbox": ground, "zorder": 5, "gid": "never"}
    ax.annotate(text, (high, y), (-7, 0), textcoords="offset points", **style)


def draw_crossing_interval(ax: Axes, draws: NDArray, low: float, high: float) -> None:
    """Draw the median with 50% and 90% intervals under the distribution; ends out of range become arrows."""
    for mass, width in ((0.9, 1.2), (0.5, 4.0)):
        first, last = np.clip(crossing_quantiles(draws, TAIL[mass]), low, None)
        if first < high:
            shown = [first, min(last, high)]
            ax.plot(shown, [BAR, BAR], color=MEDIAN, lw=width, solid_capstyle="butt", zorder=3, gid=f"interval-{mass}")
        if last > high:
            ax.plot(high, BAR, ">", color=MEDIAN, ms=6, clip_on=False, zorder=4)
    middle = crossing_quantiles(draws, (0.5,))[0]
    if middle <= high:
        ax.plot(max(middle, low), BAR, "o", ms=5, mfc="white", mec=MEDIAN, mew=1.3, zorder=4)


def crossing_quantiles(draws: NDArray, levels: tuple[float, ...]) -> NDArray:
    """Quantiles that never average a number with infinity."""
    return np.quantile(draws, levels, method="inverted_cdf")


def summary(draws: NDArray, high: float) -> str:
    """Write the median and the 90% interval, neither beyond the axis."""
    middle, first, last = crossing_quantiles(draws, (0.5, *TAIL[0.9]))
    if first > high:
        return f"beyond {write_shots(high)} with more than 95% probability"
    written = [write_quantile(shots, high) for shots in (middle, first, last)]
    return "median {}, 90% interval {} to {}".format(*written)


def write_quantile(shots: float, high: float) -> str:
    return write_shots(float(f"{shots:.3g}")) if shots <= high else f"beyond {write_shots(high)}"
