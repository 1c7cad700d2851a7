"""Calibration: whether forecasts' stated uncertainty matched what happened."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from bayesscale.finding import InputError
from bayesscale.plots.style import MEDIAN, MOST, NOTE, new_axes, quiet_frame, write_legend, write_title

GRID = 100
SIMULATIONS = 2000


def plot_pit(pit_values: ArrayLike, *, ax: Axes | None = None, mass: float = 0.95) -> Axes:
    """Draw the empirical distribution of PIT values minus the uniform one.

    A calibrated forecaster's line stays within the band as a whole with probability `mass`: the band is simultaneous,
    found by simulation for independent values (Säilynoja, Bürkner & Vehtari 2022, Statistics and Computing 32:32). PIT
    values of points on one curve are dependent, so pass one per curve, or read the band as too narrow. Above 0 at the
    left and below at the right: intervals were too narrow; the reverse: too wide; above throughout: forecasts too high.

    Parameters
    ----------
    pit_values : in [0, 1], one per forecast.
    ax : axes to draw on; by default a new figure.
    mass : simultaneous coverage of the band.
    """
    ax = new_axes(ax, (4.6, 3.2))
    values = np.asarray(pit_values, float).ravel()
    if not values.size or not ((values >= 0) & (values <= 1)).all():
        raise InputError("PLOT-PIT", "PIT values must lie in [0, 1] and there must be some")
    z, lower, upper = simultaneous_band(values.size, mass)
    label = f"{mass:.0%} simultaneous band if calibrated and independent"
    ax.fill_between(z, lower - z, upper - z, color=MOST, lw=0, label=label)
    ax.axhline(0.0, color=NOTE, lw=1.0, ls=(0, (4, 2)), zorder=1)
    fine = np.linspace(0.0, 1.0, 501)
    share = np.searchsorted(np.sort(values), fine, side="right") / values.size
    on_grid = np.searchsorted(np.sort(values), z, side="right") / values.size
    leaves = bool(((on_grid < lower) | (on_grid > upper))[1:-1].any())
    ax.plot(fine, share - fine, color=MEDIAN, lw=1.2, drawstyle="steps-post", label=f"{values.size:,} forecasts")
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("PIT value", fontsize=9)
    ax.set_ylabel("ECDF − uniform", fontsize=9)
    quiet_frame(ax)
    write_title(ax, f"Calibration: the line {'leaves' if leaves else 'stays within'} the band")
    write_legend(ax, columns=1)
    return ax


def simultaneous_band(count: int, mass: float, *, seed: int = 0) -> tuple[NDArray, NDArray, NDArray]:
    """Grid z with lower and upper bounds that an ECDF of `count` independent uniforms keeps to with this probability.

    Pointwise binomial intervals, all of the one level at which a simulated ECDF stays within all of them this often.
    """
    z = np.arange(1, GRID) / GRID
    steps = np.random.default_rng(seed).multinomial(count, np.full(GRID, 1.0 / GRID), size=SIMULATIONS)
    below = np.cumsum(steps, axis=1)[:, :-1]
    tail = np.minimum(binom.cdf(below, count, z), binom.sf(below - 1, count, z))
    level = np.quantile(np.min(2.0 * tail, axis=1), 1.0 - mass)
    lower, upper = binom.ppf(level / 2, count, z) / count, binom.ppf(1 - level / 2, count, z) / count
    z, lower, upper = (np.pad(values, 1, constant_values=(0, 1)) for values in (z, lower, upper))
    return z, lower, upper
