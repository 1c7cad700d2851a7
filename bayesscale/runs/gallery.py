"""The pictures of a run: the comparison, calibration of each law, and some of the curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bayesscale.finding import InputError
from bayesscale.plots import plot_comparison, plot_curve, plot_laws, plot_parameters, plot_pit
from bayesscale.result import Fit
from bayesscale.runs.folder import slug
from bayesscale.runs.verdict import verdict

if TYPE_CHECKING:
    import pandas as pd

    from bayesscale.comparison import Comparison

DPI = 130
WORST_FIRST = ("fail", "warn", "ok")


def draw_plots(
    fits: Sequence[Fit],
    tables: Mapping[str, pd.DataFrame],
    key_names: Sequence[str],
    folder: Path,
    *,
    limit: int,
    report: Callable[[str, int, int], None],
) -> list[Path]:
    """Draw the comparison, each law's PIT, and up to `limit` curves, those with the gravest findings first."""
    folder.mkdir()
    try:
        found = verdict(tables["comparison"], tables["forecasts"], key_names)
    except InputError:
        found = None  # nothing was held out, so there is nothing to compare
    best = best_fitted(found, fits)
    jobs = comparison_jobs(found, tables["forecasts"], folder)
    groups = curves_to_draw(fits, limit)
    for i, group in enumerate(groups):
        jobs += curve_jobs(i + 1, group, best, folder)
    for done, (path, draw) in enumerate(jobs):
        keep(draw(), path)
        report("plots", done + 1, len(jobs))
    return [path for path, _ in jobs]


type Job = tuple[Path, Callable[[], Axes]]


def best_fitted(found: Comparison | None, fits: Sequence[Fit]) -> str:
    """The law to draw on its own: the best predictor that was fitted, else the first."""
    names = [fit.law.name for fit in fits]
    ranked = [] if found is None else [law for law in found.table["law"] if law in names]
    return (ranked or names or [""])[0]


def comparison_jobs(found: Comparison | None, forecasts: pd.DataFrame, folder: Path) -> list[Job]:
    """Differences between laws, and the PIT of each."""
    if found is None:
        return []
    jobs: list[Job] = []
    if len(found.table) > 1:
        jobs.append((folder / "comparison.png", lambda: plot_comparison(found)))
    rows = forecasts[forecasts["share"] == found.share]
    for law in found.table["law"]:
        values = rows.loc[rows["law"] == law, "pit"].to_numpy()
        if len(values):
            jobs.append(
                (folder / f"pit-{law.replace(' ', '-')}.png", lambda v=values, law=law: titled(plot_pit(v), law))
            )
    return jobs


def titled(ax: Axes, law: str) -> Axes:
    """Put the law's name into the title of a plot of one law."""
    title = ax.get_title(loc="left")
    ax.set_title(f"{law}, {title[:1].lower()}{title[1:]}", loc="left", fontsize=10)
    return ax


def curves_to_draw(fits: Sequence[Fit], limit: int) -> list[list[Fit]]:
    """Fits by unit, those that failed or fall first, then in the order given."""
    groups: dict[tuple[str, int], list[Fit]] = {}
    for fit in fits:
        groups.setdefault((fit.name, len(fit.unit.members[0])), []).append(fit)
    ranked = sorted(groups.values(), key=lambda group: min(WORST_FIRST.index(fit.status) for fit in group))
    return ranked[:limit]


def curve_jobs(number: int, group: Sequence[Fit], best: str, folder: Path) -> list[Job]:
    """One curve: its laws together, and its best law alone with the parameters."""
    stem = f"{number:02d}-{slug(group[0].name)}"
    finite = [fit for fit in group if all(np.isfinite(values).all() for values in fit.theta().values())]
    if not finite:
        return []
    fit = next((fit for fit in finite if fit.law.name == best), finite[0])
    jobs: list[Job] = [(folder / f"{stem}-{fit.law.name.replace(' ', '-')}.png", lambda: plot_curve(fit))]
    if len(finite) > 1:
        jobs.append((folder / f"{stem}-laws.png", lambda: plot_laws(finite)))
    jobs.append((folder / f"{stem}-parameters.png", lambda: plot_parameters(fit)[0]))
    return jobs


def keep(ax: Axes, path: Path) -> None:
    """Write an axes' figure and forget it."""
    figure = ax.get_figure()
    assert figure is not None
    figure.savefig(path, dpi=DPI)  # pyright: ignore[reportAttributeAccessIssue]
    plt.close(figure)  # pyright: ignore[reportArgumentType]
