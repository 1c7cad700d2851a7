"""Resampling until a verifier accepts: accuracy against the number of samples, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bayesscale.attempts import Attempts
from bayesscale.decisions.samples import SampleChoice, answer
from bayesscale.plots.rates import failures
from bayesscale.plots.style import (
    DASHES,
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
    write_shots,
    write_title,
)
from bayesscale.resampling.passk import pass_at_k
from bayesscale.resampling.verifier import accuracy, accuracy_given_answer, ceiling, ceiling_given_answer
from bayesscale.resampling.verifier_fit import Population, VerifierFit, populations

POPULATION_LABEL = {"these": "these problems", "new": "new problems"}
FURTHEST = 1000
PLAIN = "#9a9a94"
"""Bars of a distribution beside the curve it belongs to."""


# Accuracy -------------------------------------------------------------------------------------------------------------


def plot_verifier(
    fit: VerifierFit,
    *,
    population: Population = "these",
    stronger: Sequence[float] = (),
    last: int | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw the accuracy of resampling until acceptance over the number of samples K, on a log axis.

    The line is the posterior median of the probability that a right answer is returned within K samples, dashed beyond the
    most samples any problem had, with pointwise 50% and 90% equal-tailed intervals; at the right end the ceiling, its median
    and intervals. The second line is the accuracy given an answer: where easy problems are accepted first it falls. Points
    are what the log itself gives for these problems, where all accepted samples are labelled and n was set in advance.

    Parameters
    ----------
    fit : the posterior; one that failed its checks says so in the title.
    population : "these" problems given their counts, or "new" ones of the population.
    stronger : accuracies to mark, for example of one sample of a stronger model.
    last : largest K drawn; by default ten times the samples, 1000 at least.
    seed : of the population's draws.
    ax : axes to draw on; by default a new figure.
    """
    ax = new_axes(ax, (5.6, 3.9))
    a, s = populations(fit, population, seed=seed)
    most = int(fit.attempts.n.max())
    K = np.unique(np.round(np.geomspace(1, last or max(FURTHEST, 10 * most), 50)).astype(np.int64))
    end = float(K[-1])
    log_shots_axis(ax, 0.9, end * 2.2, "samples K at most, until one is accepted")
    draw_accuracy(ax, K, accuracy(a, s, K), most)
    draw_ceiling(ax, ceiling(a, s), end * 1.5, MEDIAN, "o")
    colour, dashes, _ = DASHES[1]
    given = np.nanmedian(accuracy_given_answer(a, s, K), axis=0)
    ax.plot(K, given, color=colour, ls=dashes, lw=1.5, zorder=3, label="given an answer, median")
    draw_ceiling(ax, ceiling_given_answer(a, s), end * 1.85, colour, "^")
    name_limit(ax, end * 1.67)
    observed = observed_accuracy(fit.attempts, K) if population == "these" else None
    if observed is not None:
        ax.plot(*observed, "o", ms=4.2, color=DATA, zorder=4, label="log, without a law")
    draw_stronger(ax, stronger)
    mark_boundary(ax, most, "sampled up to", "samples")
    ax.set_ylabel(f"accuracy over {POPULATION_LABEL[population]}", fontsize=9)
    ax.set_ylim(max(0.0, ax.get_ylim()[0]), min(1.02, max(ax.get_ylim()[1], *(x + 0.02 for x in (0.0, *stronger)))))
    quiet_frame(ax)
    write_title(ax, f"{fit.name}: resampling against a verifier{failures(fit.findings)}", above=1)
    write_legend(ax, columns=2)
    return ax


def draw_accuracy(ax: Axes, K: NDArray, draws: NDArray, most: int) -> None:
    """Draw the bands and the median, dashed beyond the samples."""
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        lower, upper = np.quantile(draws, TAIL[mass], axis=0)
        ax.fill_between(K, lower, upper, color=colour, lw=0, zorder=1, label=f"{mass:.0%} interval")
    median = np.median(draws, axis=0)
    last = max(int((most >= K).sum()) - 1, 0)
    ax.plot(K[: last + 1], median[: last + 1], color=MEDIAN, lw=1.8, zorder=3, label="right answer returned, median")
    ax.plot(K[last:], median[last:], color=MEDIAN, lw=1.8, ls=(0, (3, 1.5)), zorder=3)


def draw_ceiling(ax: Axes, draws: NDArray, place: float, colour: str, marker: str) -> None:
    """Draw a limit as a point with its 50% and 90% intervals, at the right of the axis."""
    draws = draws[np.isfinite(draws)]
    for mass, width in ((0.9, 1.2), (0.5, 4.0)):
        ax.plot([place, place], np.quantile(draws, TAIL[mass]), color=colour, lw=width, solid_capstyle="butt", zorder=3)
    ax.plot(place, np.median(draws), marker, ms=5, mfc="white", mec=colour, mew=1.3, zorder=4, gid="ceiling")


def name_limit(ax: Axes, place: float) -> None:
    """Say below a limit that it is one."""
    ax.annotate(
        "no\nend", (place, 0.02), xycoords=ax.get_xaxis_transform(), fontsize=7, color=NOTE, ha="center", va="bottom"
    )


def draw_stronger(ax: Axes, stronger: Sequence[float]) -> None:
    """Mark accuracies to reach by labelled lines."""
    for value in stronger:
        ax.axhline(value, color=NOTE, lw=1.0, ls=(0, (1, 1.5)), zorder=2, gid="stronger")
        style = {"fontsize": 8, "color": NOTE, "va": "bottom", "ha": "right", "transform": ax.get_yaxis_transform()}
        ax.text(0.86, value, f"stronger: {value:g}", gid="stronger-label", **style)


def observed_accuracy(attempts: Attempts, K: NDArray) -> tuple[NDArray, NDArray] | None:
    """Accuracy over these problems at a few K, from the samples in any order; None where they do not determine it.

    A problem with f accepted of n samples, g of them right, is answered rightly within K with probability
    g / f (1 - C(n - f, K) / C(n, K)).
    """
    n, accepted, labelled = attempts.n, attempts.n_accepted, attempts.n_labelled
    right = attempts.n_correct_accepted
    if accepted is None or right is None or attempts.stopping != "fixed" or (labelled != accepted).any():
        return None
    inside = K[n.min() >= K]
    shown = inside[np.unique(np.linspace(0, len(inside) - 1, 8).astype(int))]
    share = right / np.maximum(accepted, 1)
    return shown, (share[:, None] * pass_at_k(n, accepted, shown)).mean(axis=0)


# Utility --------------------------------------------------------------------------------------------------------------


def plot_utility(choice: SampleChoice, *, ax: Axes | None = None) -> Axes:
    """Draw the expected utility per problem over the number of samples, and where its maximum lies.

    The line is the posterior mean, the bands pointwise 50% and 90% equal-tailed intervals; 0 on the axis of samples is to
    abstain, which is worth nothing. The vertical line is the number to choose. Bars beneath are the posterior of the best
    number K* over the numbers of samples drawn, with abstaining at 0 and "every further sample helps" at the right.

    Parameters
    ----------
    choice : what `choose` returned.
    ax : axes to draw on; by default a new figure.
    """
    ax = new_axes(ax, (5.6, 3.9))
    at, end = choice.at, utility_end(choice)
    shown = at <= end
    log_shots_axis(ax, 0.0, end * 3.0, "samples K at most (0: abstain)")
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        lower, upper = np.quantile(choice.utility[:, shown], TAIL[mass], axis=0)
        ax.fill_between(at[shown], lower, upper, color=colour, lw=0, zorder=1, label=f"{mass:.0%} interval")
    ax.plot(at[shown], choice.utility[:, shown].mean(axis=0), color=MEDIAN, lw=1.8, zorder=3, label="posterior mean")
    ax.axhline(0.0, color=NOTE, lw=0.8, ls=(0, (1, 1.5)), zorder=2, label="abstain")
    draw_best(ax, choice, at[shown], end)
    if np.isfinite(choice.recommended) and choice.recommended <= end:
        ax.axvline(choice.recommended, color=DATA, lw=1.0, ls=(0, (4, 2)), zorder=2.5, gid="recommended")
    ax.set_ylabel("expected utility per problem", fontsize=9)
    quiet_frame(ax)
    stakes = choice.stakes
    said = f"{answer(choice.recommended)}, expected regret {choice.expected_regret:.2g}"
    write_title(ax, f"{choice.name}: {said}", above=1)
    note = f"right +{stakes.benefit:g}, wrong −{stakes.false_positive:g}, sample −{stakes.sample:g}"
    ax.text(0.0, 1.01, note, transform=ax.transAxes, fontsize=8, color=NOTE, va="bottom", gid="stakes")
    write_legend(ax, columns=2)
    return ax


def utility_end(choice: SampleChoice) -> float:
    """Choose the largest K drawn: a few times beyond where K* mostly lies, 100 at least."""
    finite = choice.best[np.isfinite(choice.best)]
    furthest = float(np.quantile(finite, 0.95)) if finite.size else 100.0
    wanted = max(100.0, 4 * furthest, 4 * choice.recommended if np.isfinite(choice.recommended) else 0.0)
    inside = choice.at[choice.at <= min(wanted, choice.cap)]
    return float(inside.max()) if inside.size else float(choice.at.max())


def draw_best(ax: Axes, choice: SampleChoice, at: NDArray, end: float) -> None:
    """Draw the posterior of K* in a strip under the curve: a bar per number of samples, infinity at the right."""
    low, high = ax.get_ylim()
    floor, room = low - 0.28 * (high - low), 0.22 * (high - low)
    edges = np.sqrt(np.maximum(at[1:], 1) * np.maximum(at[:-1], 1))
    place = np.searchsorted(edges, np.where(np.isinf(choice.best), 0.5, choice.best), side="right")
    place = np.where(choice.best == 0, 0, np.maximum(place, 1))
    beyond = np.isinf(choice.best) | (choice.best > end)
    shares = np.bincount(place[~beyond], minlength=len(at)) / len(choice.best)
    last = float(beyond.mean())
    scale = room / max(float(shares.max()), last, 1e-9)
    style = {"color": PLAIN, "edgecolor": DATA, "lw": 0.5, "zorder": 2, "gid": "best"}
    left, right = bar_sides(at)
    ax.bar(left, shares * scale, right - left, bottom=floor, align="edge", **style)
    ax.bar(end * 1.5, last * scale, end * 0.9, bottom=floor, align="edge", **style)
    ax.axhline(floor + 1.15 * room, color=NOTE, lw=0.5, zorder=1)
    texts = {"fontsize": 8, "color": NOTE, "va": "bottom", "ha": "right"}
    words = f"posterior of K*: abstain {choice.p_abstain:.0%}, finite {choice.p_finite:.0%}, without end {choice.p_infinite:.0%}"
    ground = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.6}
    across = ax.get_yaxis_transform()
    ax.text(0.99, floor + 1.2 * room, words, transform=across, bbox=ground, zorder=4, gid="best-label", **texts)
    if last:
        ax.text(end * 1.4, floor + 0.05 * room, f"beyond {write_shots(end)}:", zorder=4, **texts)
    ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= high])
    ax.set_ylim(floor, high)


def bar_sides(at: NDArray) -> tuple[NDArray, NDArray]:
    """Left and right ends of the bars at numbers of samples, which must start at 0."""
    inner = np.sqrt(at[2:] * at[1:-1])
    right = np.concatenate([[0.1], inner, [at[-1] * 1.2]])
    return np.concatenate([[-0.1], [0.75], inner]), right
