"""A new model on old problems: its success rate on each, tried or not."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from bayesscale.plots.style import (
    DATA,
    HALF,
    MEDIAN,
    MOST,
    NOTE,
    TAIL,
    new_axes,
    quiet_frame,
    write_legend,
    write_title,
)
from bayesscale.resampling.crossed import CrossedForecast


def plot_new_model(forecast: CrossedForecast, *, ax: Axes | None = None) -> Axes:
    """Draw a new model's success rates over problems, hardest first.

    The line is the posterior mean, by which problems are ordered; the bands are pointwise 50% and 90% equal-tailed intervals.
    Filled points are the shares correct on problems it has tried.

    Parameters
    ----------
    forecast : what `CrossedFit.predict` returned.
    ax : axes to draw on; by default a new figure.
    """
    ax = new_axes(ax, (5.4, 3.7))
    mean = forecast.rates.mean(axis=0)
    order = np.argsort(mean)
    rank = np.arange(1, len(order) + 1)
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        lower, upper = np.quantile(forecast.rates[:, order], TAIL[mass], axis=0)
        ax.fill_between(rank, lower, upper, color=colour, lw=0, step="mid", zorder=1, label=f"{mass:.0%} interval")
    ax.step(rank, mean[order], where="mid", color=MEDIAN, lw=1.8, zorder=3, label="mean rate")
    tried = forecast.n[order] > 0
    share = forecast.n_correct[order][tried] / forecast.n[order][tried]
    ax.plot(rank[tried], share, "o", ms=4.5, color=DATA, zorder=4, clip_on=False, label="share correct where tried")
    low, high = forecast.interval()
    ax.axhline(forecast.accuracy.mean(), color=NOTE, lw=1.2, ls=(0, (4, 2)), zorder=2, label="mean over problems")
    ax.set_xlim(0.5, len(order) + 0.5)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("problems, hardest for it first", fontsize=9)
    ax.set_ylabel("success rate", fontsize=9)
    quiet_frame(ax)
    said = f"accuracy {forecast.accuracy.mean():.2f} ({low:.2f} to {high:.2f}, 90%)"
    write_title(ax, f"{forecast.name}: {said} from {tried.sum()} of {len(order)} problems")
    write_legend(ax, columns=3)
    return ax
