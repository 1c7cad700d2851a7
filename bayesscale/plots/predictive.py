"""Predictive checks: what the prior expects, and how the data fall where the posterior expects them."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import ndtri

from bayesscale.curves import Kind
from bayesscale.law import Law
from bayesscale.likelihood import default_likelihood, inverse_link, link
from bayesscale.model import Model, compose, law_log_mean, prior_draw, theta_of
from bayesscale.plots.curves import curve_title
from bayesscale.plots.points import HeldOut, average_runs, task_rows
from bayesscale.plots.style import (
    DATA,
    HALF,
    MEDIAN,
    MOST,
    NOTE,
    PRIOR,
    TAIL,
    VALUE_LABEL,
    log_shots_axis,
    mark_boundary,
    new_axes,
    quiet_frame,
    shot_grid,
    write_legend,
    write_title,
)
from bayesscale.result import Fit
from bayesscale.types import ObsArray

CURVES_SHOWN = 25
LARGEST_SCORE = 4.0


def plot_prior_predictive(
    model_or_law: Model | Law,
    *,
    facts: Mapping[str, float] | None = None,
    kind: Kind = "counts",
    last_shots: float = 2000.0,
    draws: int = 400,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw curves a law expects before it sees data.

    Thin lines are curves at single draws from the prior, without noise or departure from the law; the bands are
    pointwise 50% and 90% equal-tailed intervals over all draws, the thick line the pointwise median.

    Parameters
    ----------
    model_or_law : a model, whose likelihood decides the scale, or a law.
    facts : what priors may look at, "chance" (NaN where unknown, the default) and "first_value".
    kind : scale, when a law was passed.
    last_shots : end of the axis.
    draws, seed : how many curves, and which.
    ax : axes to draw on; by default a new figure.
    """
    ax = new_axes(ax)
    model = model_or_law
    if isinstance(model, Law):
        model = compose(model, default_likelihood(kind, replicated=True))
    kind, singular = model.likelihood.kind, model.law.singular_at_zero
    shots = shot_grid(1.0 if singular else 0.0, last_shots, last_shots)
    curves = prior_curves(model, shots, {"chance": np.nan, "first_value": 0.5, **(facts or {})}, draws, seed)
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        lower, upper = np.quantile(curves, TAIL[mass], axis=0)
        ax.fill_between(shots, lower, upper, color=colour, lw=0, zorder=1, label=f"{mass:.0%} interval")
    ax.plot(shots, np.median(curves, axis=0), color=MEDIAN, lw=1.8, zorder=3, label="prior median")
    lines = ax.plot(shots, curves[:CURVES_SHOWN].T, color=PRIOR, lw=0.6, alpha=0.8, zorder=2)
    lines[0].set_label("draws from the prior")
    log_shots_axis(ax, float(shots[0]), last_shots)
    ax.set_ylabel(VALUE_LABEL[kind], fontsize=9)
    ax.set_ylim(0.0, float(np.quantile(curves, 0.98)) if kind == "nll_mean" else 1.0)
    quiet_frame(ax)
    write_title(ax, f"Prior predictive curves, {model.law.name}")
    write_legend(ax, columns=2)
    return ax


def prior_curves(model: Model, shots: NDArray, facts: Mapping[str, float], draws: int, seed: int) -> NDArray:
    """Curves of the law at draws from its prior, on the value scale, (draw, point); the first task's of a joint law."""
    columns = {name: np.asarray(value, float) for name, value in facts.items()}
    task = np.zeros(shots.shape, int)

    def curve(key: jax.Array) -> ObsArray:
        theta, _ = theta_of(model, prior_draw(model, key, columns), columns)
        mean = law_log_mean(model, theta, shots, task)
        return inverse_link(model.likelihood.kind, link(model.likelihood.kind, mean))

    keys = jax.random.split(jax.random.key(seed), draws)
    curves = np.asarray(jax.jit(jax.vmap(curve))(keys))
    return curves[np.isfinite(curves).all(axis=1)]


def plot_posterior_predictive(
    fit: Fit, *, held_out: HeldOut | None = None, ax: Axes | None = None, task: int = 0, seed: int = 0
) -> Axes:
    """Draw where each observed value falls among new observations the fit expects at the same shots.

    The height of a point is the standard normal score of its posterior predictive rank, so calibrated points scatter as
    a standard normal: half of them in the dark band (50%), nine in ten within the light one (90%, both equal-tailed).
    Scores beyond 4 are drawn at 4. Filled points were fitted and lie too close to 0 for it, the more so under a law
    with a discrepancy; hollow points were held out and are the fair test. Points outside the 90% band are crosses.

    Parameters
    ----------
    fit : the posterior.
    held_out : (shots, values) that were not fitted; runs are averaged if the fit saw averages over runs.
    ax : axes to draw on; by default a new figure.
    task : which curve of a joint fit.
    seed : of the predictive draws.
    """
    ax = new_axes(ax, (5.2, 3.2))
    rows = task_rows(fit, task)
    groups = {"fitted": (rows["shots"], rows["value"])}
    if held_out is not None:
        averaged = average_runs(*held_out)
        single = np.asarray(held_out[0], float), np.asarray(held_out[1], float)
        groups["held out"] = (averaged.shots, averaged.value) if fit.model.likelihood.rows == "cell" else single
    for mass, colour in ((0.9, MOST), (0.5, HALF)):
        low, high = ndtri(TAIL[mass])
        ax.axhspan(low, high, color=colour, lw=0, zorder=0.5, label=f"{mass:.0%} interval if calibrated")
    ax.axhline(0.0, color=NOTE, lw=0.8, zorder=1)
    for name, (shots, values) in groups.items():
        draw_scores(ax, name, shots, predictive_scores(fit, shots, values, task, seed))
    every = np.concatenate([shots for shots, _ in groups.values()])
    low, high = float(every.min()), float(every.max())
    log_shots_axis(ax, low / 1.2, max(high, 1.0) * 1.2)
    if held_out is not None:
        mark_boundary(ax, float(rows["shots"].max()))
    ax.set_ylim(-LARGEST_SCORE - 0.4, LARGEST_SCORE + 0.4)
    ax.set_ylabel("z score", fontsize=9)
    quiet_frame(ax)
    write_title(ax, f"{curve_title(fit, task)}: predictive check", above=int(held_out is not None))
    write_legend(ax, columns=2)
    return ax


def predictive_scores(fit: Fit, shots: NDArray, values: NDArray, task: int, seed: int) -> NDArray:
    """Standard normal scores of the values' ranks among draws of new observations at their shots."""
    at, place = np.unique(shots, return_inverse=True)
    draws = fit.predict(at, "new_observation", task=task, seed=seed).draws[:, place]
    rank = (draws < values).mean(axis=0) + 0.5 * (draws == values).mean(axis=0)
    # An observation beyond all draws is as far out as the number of draws can tell.
    edge = 0.5 / len(draws)
    return np.clip(ndtri(np.clip(rank, edge, 1 - edge)), -LARGEST_SCORE, LARGEST_SCORE)


def draw_scores(ax: Axes, name: str, shots: NDArray, scores: NDArray) -> None:
    """Draw one group of scores, crosses where they leave the 90% band."""
    out = np.abs(scores) > ndtri(TAIL[0.9][1])
    colour = "white" if name == "held out" else DATA
    label = f"{name}: {out.sum()} of {out.size} outside 90%"
    ax.plot(shots[~out], scores[~out], "o", ms=5, mfc=colour, mec=DATA, zorder=3, label=label)
    marker = "X" if name == "held out" else "x"
    ax.plot(shots[out], scores[out], marker, ms=7, mfc=colour, mec=DATA, zorder=4, ls="")
