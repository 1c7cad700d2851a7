"""Success rates over problems: the fitted population with its tail, and the counts it expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from scipy.special import logit

from bayesscale.finding import Finding, InputError
from bayesscale.plots.style import (
    BEYOND,
    DATA,
    HALF,
    MEDIAN,
    MOST,
    NOTE,
    TAIL,
    new_axes,
    quiet_frame,
    write_legend,
    write_shots,
    write_title,
)
from bayesscale.rates import RateLaw
from bayesscale.resampling.fitting import RateFit
from bayesscale.simulation.resampling import observe_attempts

POSTERIOR_DRAWS = 100
PROBLEMS = 8000
"""Simulated problems per draw: a bin that holds a twentieth of them is then good to a twentieth of itself."""
LOWEST_P = -9.0
"""Power of ten at which the axis of success rates ends; what lies below stands as a number."""


# The population -------------------------------------------------------------------------------------------------------


def plot_rates(fit: RateFit, *, seed: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the fitted population of success rates on a logit axis, with its tail, over the observed c / n.

    The line is the posterior median of the share of problems in each bin of half a decade of odds, the bands its pointwise
    50% and 90% equal-tailed intervals. Outlined bars are the observed shares c / n of problems solved at least once, the
    hatched bar at the left those never solved, whose rate is unknown: the law says where below one success in n they lie.
    c / n scatters around the rates, most where n is small, and is biased upwards where sampling stopped at a success.

    Parameters
    ----------
    fit : the posterior; one that failed its checks says so in the title.
    seed : of the simulated problems.
    ax : axes to draw on; by default a new figure.
    """
    ax = new_axes(ax, (5.4, 3.5))
    edges = logit(10.0**LOWEST_P) + np.arange(0.0, 2 * 22.5, 1.0) * np.log(10) / 2
    rates = population_draws(fit, PROBLEMS, seed)
    shares = np.stack([np.histogram(logit(np.clip(p, 1e-300, 1 - 1e-16)), edges)[0] / p.size for p in rates])
    used = np.flatnonzero((shares.mean(axis=0) > 1e-3) | (observed_shares(fit, edges)[0] > 0))
    edges, shares = edges[: used[-1] + 3], shares[:, : used[-1] + 2]
    draw_population(ax, edges, shares)
    solved, unsolved = observed_shares(fit, edges)
    ax.stairs(solved, edges, color=DATA, lw=1.1, zorder=3, label="observed c / n, c > 0")
    left = edges[0] - 3.2
    if unsolved:
        style = {"facecolor": "white", "edgecolor": DATA, "hatch": "////", "lw": 1.0, "zorder": 2}
        ax.bar(left + 1.2, unsolved, width=1.5, label="never solved, c = 0", **style)
    mark_floor(ax, fit, edges[0], edges[-1])
    below = np.mean(rates < 10.0**LOWEST_P, axis=1)
    label_rates(ax, left, edges, below)
    write_title(ax, rate_title(fit), above=1)
    write_legend(ax)
    return ax


@lru_cache(maxsize=64)
def sampler_of(law: RateLaw, problems: int) -> Any:
    """Compile the drawing of problems from a law at many parameter values."""
    return jax.jit(jax.vmap(lambda key, theta: law.sample(key, theta, (problems,))))


def population_draws(fit: RateFit, problems: int, seed: int, draws: int = POSTERIOR_DRAWS) -> NDArray:
    """Success rates of simulated problems under posterior draws, (draw, problem)."""
    chosen = np.linspace(0, fit.size - 1, min(draws, fit.size)).astype(int)
    theta = {p.name: fit.draws.flat(p.name)[chosen] for p in fit.law.parameters}
    keys = jax.random.split(jax.random.key(seed), len(chosen))
    return np.asarray(sampler_of(fit.law, problems)(keys, theta))


def observed_shares(fit: RateFit, edges: NDArray) -> tuple[NDArray, float]:
    """Shares of problems by bin of logit c / n, all-right ones in the last, and the share never solved."""
    n, c = fit.attempts.n, fit.attempts.n_correct
    solved = c > 0
    with np.errstate(divide="ignore"):
        found = np.clip(logit(c[solved] / n[solved]), edges[0], edges[-1] - 1e-9)
    return np.histogram(found, edges)[0] / n.size, float(1 - solved.mean())


def draw_population(ax: Axes, edges: NDArray, shares: NDArray) -> None:
    """Draw the bands and the median of the share of problems per bin."""
    middle = 0.5 * (edges[1:] + edges[:-1])
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        lower, upper = np.quantile(shares, TAIL[mass], axis=0)
        ax.fill_between(middle, lower, upper, color=colour, lw=0, zorder=1, label=f"{mass:.0%} interval")
    ax.plot(middle, np.median(shares, axis=0), color=MEDIAN, lw=1.8, zorder=2.5, label="posterior median")


def mark_floor(ax: Axes, fit: RateFit, low: float, high: float) -> None:
    """Mark the smallest rate that the samples can tell from 0, one success in the most samples of a problem."""
    n = int(fit.attempts.n.max())
    floor = float(np.clip(logit(1 / (n + 1)), low, high))
    ax.axvspan(low, floor, color=BEYOND, lw=0, zorder=0)
    ax.axvline(floor, color=NOTE, lw=1.0, ls=(0, (4, 2)), zorder=1.5, gid="boundary")
    style = {"fontsize": 8, "color": NOTE, "va": "bottom", "ha": "center", "gid": "boundary-label"}
    ax.text(floor, 1.01, f"1 success in {write_shots(n)}", transform=ax.get_xaxis_transform(), **style)


def label_rates(ax: Axes, left: float, edges: NDArray, below: NDArray) -> None:
    """Scale and label the axes of a population, and say how much of it lies below the axis."""
    powers = list(range(int(LOWEST_P), 0, 2))
    ticks = [10.0**p for p in powers] + [0.5, 0.9, 0.99, 0.9999]
    places = logit(np.array(ticks))
    shown = places <= edges[-1]
    names = [f"$10^{{{p}}}$" for p in powers] + ["0.5", "0.9", "0.99", "0.9999"]
    keep = [(x, name) for x, name, inside in zip(places, names, shown, strict=True) if inside]
    ax.set_xticks([left + 1.2, *(x for x, _ in keep)], ["0", *(name for _, name in keep)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(left, edges[-1])
    ax.set_ylim(0.0, ax.get_ylim()[1] * 1.02)
    low, middle, high = np.quantile(below, [0.05, 0.5, 0.95])
    if high >= 0.005:
        text = f"{middle:.1%} ({low:.1%} to {high:.1%})\nbelow $10^{{{int(LOWEST_P)}}}$"
        ax.annotate(text, (edges[0], ax.get_ylim()[1] * 0.97), (3, 0), textcoords="offset points", fontsize=8, va="top",
                    color=NOTE, gid="below")  # fmt: skip
    ax.set_xlabel("success rate p (logit axis)", fontsize=9)
    ax.set_ylabel("share of problems per bin", fontsize=9)
    quiet_frame(ax)


def rate_title(fit: RateFit) -> str:
    """Name the model and the law, and say when the fit failed its checks."""
    return f"{fit.name}, {fit.law.name}{failures(fit.findings)}"


def failures(findings: Sequence[Finding]) -> str:
    """Name the failed checks, for a title; empty where there is none."""
    failed = sorted({finding.code for finding in findings if finding.grade == "fail"})
    return f" (FAILED: {' '.join(failed)})" if failed else ""


# The counts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins of whole numbers: [first, last] of each, and what the numbers are."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    label: str

    def tally(self, values: NDArray) -> NDArray[np.int64]:
        """How many values fall into each bin, along the last axis; numbers beyond the last bin are in none."""
        place = np.searchsorted(self.first, values, side="right") - 1
        return np.stack([(place == i).sum(axis=-1) for i in range(len(self.first))], axis=-1)

    def until(self, bins: int) -> Bins:
        """The first so many bins."""
        return Bins(self.first[:bins], self.last[:bins], self.label)

    @property
    def names(self) -> list[str]:
        """A bin is called by its first number."""
        return [short(first) for first in self.first.tolist()]


def short(number: int) -> str:
    """Write a whole number in at most four characters or so: 12, 4.6k, 10k, 2.1M."""
    for size, sign in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.2g}{sign}" if number < 100 * size else f"{number / size:.0f}{sign}"
    return str(number)


def plot_counts(fit: RateFit, *, seed: int = 0, ax: Axes | None = None) -> Axes:
    """Draw how many problems had each number of successes, over what the posterior expects of problems like them.

    A rootogram: the axis of counts is square-root scaled, on which counts scatter alike at all heights. Light and dark bars
    are 90% and 50% equal-tailed posterior predictive intervals of as many new problems with the same numbers of samples,
    the line their median; points are observed, crosses where they leave the 90% interval. Where sampling stopped at a
    success, the attempts that it took are counted instead, with the problems never solved at the right.

    Parameters
    ----------
    fit : the posterior.
    seed : of the simulated problems.
    ax : axes to draw on; by default a new figure.

    Raises
    ------
    InputError : the design is ``capped``, whose rule is unknown and cannot be simulated.
    """
    if fit.attempts.stopping == "capped":
        what = "under stopping capped the rule that ended the sampling is unknown, so counts cannot be predicted"
        raise InputError("PLOT-DESIGN", what, where=fit.name)
    ax = new_axes(ax, (5.4, 3.5))
    observed, predicted = count_values(fit, seed)
    bins = count_bins(fit)
    seen, expected = bins.tally(observed), bins.tally(predicted)
    used = np.flatnonzero((seen > 0) | (np.quantile(expected, TAIL[0.9][1], axis=0) > 0))[-1] + 1
    bins, seen, expected = bins.until(used), seen[:used], expected[:, :used]
    place = np.arange(len(seen))
    for mass, colour, width in ((0.9, MOST, 0.8), (0.5, HALF, 0.8)):
        lower, upper = np.quantile(expected, TAIL[mass], axis=0)
        ax.bar(
            place, upper - lower, width, bottom=lower, color=colour, zorder=1, label=f"{mass:.0%} predictive interval"
        )
    middle = np.median(expected, axis=0)
    ax.hlines(middle, place - 0.4, place + 0.4, color=MEDIAN, lw=1.8, zorder=2, label="predictive median")
    lower, upper = np.quantile(expected, TAIL[0.9], axis=0)
    out = (seen < lower) | (seen > upper)
    ax.plot(place[~out], seen[~out], "o", ms=4.5, color=DATA, zorder=3, label="observed")
    ax.plot(
        place[out],
        seen[out],
        "X",
        ms=6.5,
        color=DATA,
        mec="white",
        zorder=3,
        label="observed, outside 90%" if out.any() else None,
    )
    never = None if fit.attempts.stopping == "fixed" else int(fit.attempts.cap or fit.attempts.n.max())
    label_counts(ax, bins, float(max(seen.max(), upper.max())), never)
    write_title(ax, rate_title(fit))
    write_legend(ax, columns=2)
    return ax


def count_values(fit: RateFit, seed: int) -> tuple[NDArray, NDArray]:
    """Observed (problem,) and predicted (draw, problem) numbers: successes, or attempts made under a stopped design.

    A problem never solved counts as one more attempt than any could get.
    """
    attempts, rng = fit.attempts, np.random.default_rng(seed)
    n, c = attempts.n, attempts.n_correct
    p = population_draws(fit, n.size, seed)
    if attempts.stopping == "fixed":
        return c, rng.binomial(n, p)
    limit = int(attempts.cap or n.max())
    drawn, found = (
        values.reshape(p.shape)
        for values in observe_attempts(rng, p.ravel(), limit, attempts.stopping, batch=attempts.batch)
    )
    return np.where(c > 0, n, limit + 1), np.where(found > 0, drawn, limit + 1)


def count_bins(fit: RateFit) -> Bins:
    """Bins that double in width; a bin of its own for none, for all, and for problems never solved."""
    attempts = fit.attempts
    if attempts.stopping == "fixed":
        most = int(attempts.n.max())
        first = np.unique([0, *doubling(1, most), *([most] if (attempts.n == most).all() else [])])
        return Bins(first, np.append(first[1:] - 1, most), "correct samples c")
    limit = int(attempts.cap or attempts.n.max())
    starts = np.unique([1, *(attempts.batch * (doubling(1, -(-limit // attempts.batch)) - 1) + 1)])
    first = np.append(starts, limit + 1)
    return Bins(first, np.append(first[1:] - 1, limit + 1), "attempts until solved")


def doubling(first: int, most: int) -> NDArray[np.int64]:
    """1, 2, 4, 8, ... up to `most`, thinned to steps of 4 where there would be more than 16."""
    exponents = np.arange(0, int(np.log2(max(most, 1))) + 1)
    step = 1 if len(exponents) <= 12 else 2
    return first * 2 ** exponents[::step]


def label_counts(ax: Axes, bins: Bins, top: float, never: int | None) -> None:
    """Scale and label the axes of a rootogram; the bin beyond `never` attempts is that of problems never solved."""
    names = bins.names
    if never is not None and bins.first[-1] > never:
        names[-1] = "never"
    ax.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0.0)), np.square))
    ax.set_ylim(0.0, top * 1.08 + 0.5)
    ticks = [t for t in (0, 1, 5, 10, 25, 50, 100, 200, 400, 800, 1600, 3200) if t <= top * 1.08 + 0.5]
    ax.set_yticks(ticks, [str(t) for t in ticks])
    ax.set_xticks(np.arange(len(names)), names)
    ax.set_xlabel(f"{bins.label}: first of each bin", fontsize=9)
    ax.set_ylabel("problems (square-root axis)", fontsize=9)
    quiet_frame(ax)
