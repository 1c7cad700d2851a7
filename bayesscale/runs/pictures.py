"""The pictures of a run about repeated samples: some of its models, those with the gravest findings first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from bayesscale.attempts import Attempts
from bayesscale.finding import InputError
from bayesscale.plots.coverage import attempt_grid, plot_coverage
from bayesscale.plots.rates import plot_counts, plot_rates
from bayesscale.resampling.fitting import RateFit
from bayesscale.resampling.passk import Coverage, empirical_coverage
from bayesscale.runs.coverage import Settings, labelled_forecast, questions
from bayesscale.runs.folder import slug
from bayesscale.runs.gallery import keep
from bayesscale.runs.job import Report
from bayesscale.runs.results import Labelled, models_to_draw

type Job = tuple[Path, Callable[[], Axes]]


def draw_jobs(jobs: Sequence[Job], folder: Path, report: Report) -> None:
    """Make the folder, then draw and write each picture."""
    folder.mkdir()
    for done, (path, draw) in enumerate(jobs):
        keep(draw(), path)
        report("plots", done + 1, len(jobs))


def draw_coverage(
    attempts: Attempts, fits: Sequence[Labelled[RateFit]], settings: Settings, folder: Path, *, report: Report
) -> None:
    """Draw coverage under all laws, the population of rates and the counts of up to so many models."""
    jobs: list[Job] = []
    for group in models_to_draw([each for each in fits if usable(each.fit)], settings.plots):
        fit, stem = group[0].fit, f"{group[0].index + 1:02d}-{slug(group[0].fit.name)}"
        jobs.append((folder / f"{stem}-coverage.png", lambda group=group: coverage_picture(attempts, group, settings)))
        jobs.append((folder / f"{stem}-rates.png", lambda fit=fit: plot_rates(fit, seed=settings.seed)))
        if attempts.stopping != "capped":
            jobs.append((folder / f"{stem}-counts.png", lambda fit=fit: plot_counts(fit, seed=settings.seed)))
    draw_jobs(jobs, folder, report)


def usable(fit: RateFit) -> bool:
    """Whether all draws are finite, infinite tail indices aside."""
    return all(np.isfinite(fit.draws.values[p.name]).all() for p in fit.law.parameters)


def coverage_picture(attempts: Attempts, group: Sequence[Labelled[RateFit]], settings: Settings) -> Axes:
    """One model's coverage under every law up to the largest k asked for."""
    k = attempt_grid(float(questions(attempts, settings).max()))
    target = settings.targets[0]
    if attempts.stopping == "capped" and target == "solved":
        k = np.unique(np.maximum(k, attempts.n.max()))
    forecasts = [labelled_forecast(each, k, target, settings.seed) for each in group]
    own = group[0].fit.attempts
    waiting = own.n[own.n_correct == 0]
    open_from = float(waiting.min()) if waiting.size else None
    return plot_coverage(forecasts, empirical=empirical_points(own, k), open_from=open_from)


def empirical_points(attempts: Attempts, k: np.ndarray) -> Coverage | None:
    """The estimate without a law at the k that one model's samples reach; None where the design allows none."""
    reach = attempts.n.min() if attempts.stopping == "fixed" else attempts.n.max()
    inside = k[k <= reach]
    try:
        return empirical_coverage(attempts, inside) if len(inside) else None
    except InputError:
        return None  # said in the table of findings
