"""Votes: the accuracy of the most frequent answer against the number of samples that vote."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bayesscale.plots.style import (
    DATA,
    HALF,
    MEDIAN,
    MOST,
    NOTE,
    TAIL,
    log_shots_axis,
    mark_boundary,
    new_axes,
    quiet_frame,
    write_legend,
    write_title,
)
from bayesscale.plots.verifier import draw_ceiling, name_limit
from bayesscale.resampling.vote_forecast import VoteForecast
from bayesscale.votes import Votes

TARGET_LABEL = {
    "these": "expected accuracy on these problems",
    "realised": "accuracy on these problems",
    "continued": "accuracy on these problems,\nvotes continued",
    "new": "expected accuracy on new problems",
}


def plot_votes(forecast: VoteForecast, *, observed: Votes | None = None, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of a plurality vote over the number of votes, on a log axis.

    The line is the posterior median, dashed beyond the votes observed; the bands are pointwise 50% and 90% equal-tailed
    intervals, the bar at the right those of the limit with ever more votes. The dashed horizontal line is the posterior
    median of a single sample's accuracy: where the vote lies above it, voting pays. Filled points are observed: the mean of
    single samples, and the votes as cast, with one standard error over problems.

    Parameters
    ----------
    forecast : what `VoteFit.majority` returned.
    observed : the votes of that model.
    ax : axes to draw on; by default a new figure.
    """
    ax = new_axes(ax, (5.4, 3.7))
    order = np.argsort(forecast.at)
    n, draws = forecast.at[order], forecast.majority[:, order]
    most = int(observed.n.max()) if observed is not None else int(n[-1])
    end = float(max(n[-1], most))
    log_shots_axis(ax, min(0.9, n[0] / 1.1), end * 1.9, "votes n")
    draw_vote(ax, n, draws, most)
    draw_ceiling(ax, forecast.limit, end * 1.45, MEDIAN, "o")
    name_limit(ax, end * 1.45)
    single = float(np.median(forecast.single))
    ax.axhline(single, color=NOTE, lw=1.2, ls=(0, (4, 2)), zorder=2, label="single sample, median", gid="single")
    if observed is not None:
        draw_observed(ax, observed)
        mark_boundary(ax, most, "up to", "votes observed")
    ax.set_ylabel(TARGET_LABEL[forecast.target], fontsize=9)
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(bottom, 0.0), min(top, 1.02))
    quiet_frame(ax)
    write_title(ax, f"{forecast.model}: {gain_words(forecast)}", above=int(observed is not None))
    write_legend(ax, columns=2)
    return ax


def draw_vote(ax: Axes, n: NDArray, draws: NDArray, most: int) -> None:
    """Draw the bands and the median, dashed beyond the votes observed."""
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        lower, upper = np.quantile(draws, TAIL[mass], axis=0)
        ax.fill_between(n, lower, upper, color=colour, lw=0, zorder=1, label=f"{mass:.0%} interval")
    median = np.median(draws, axis=0)
    last = max(int((n <= most).sum()) - 1, 0)
    ax.plot(n[: last + 1], median[: last + 1], color=MEDIAN, lw=1.8, zorder=3, label="vote, median")
    ax.plot(n[last:], median[last:], color=MEDIAN, lw=1.8, ls=(0, (3, 1.5)), zorder=3)


def draw_observed(ax: Axes, observed: Votes) -> None:
    """Draw the observed accuracy of single samples and of the votes cast, with standard errors over problems."""
    groups = ((1.0, observed.n_correct / observed.n), (float(np.median(observed.n)), observed.majority))
    for place, (n, score) in enumerate(groups):
        se = score.std(ddof=1) / np.sqrt(score.size) if score.size > 1 else 0.0
        label = "observed, ± se over problems" if place else None
        ax.errorbar(n, score.mean(), yerr=se, fmt="o", ms=4.5, color=DATA, elinewidth=0.8, zorder=4, label=label)


def gain_words(forecast: VoteForecast) -> str:
    """Say what a vote without end adds to a single sample, in points of accuracy, with its 90% interval."""
    low, middle, high = 100 * np.quantile(forecast.limit - forecast.single, [0.05, 0.5, 0.95])
    return f"limit of voting {middle:+.1f} points ({low:+.1f} to {high:+.1f})"
