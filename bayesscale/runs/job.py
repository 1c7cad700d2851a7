"""The job behind `bayesscale fit`: curves in, a folder of results out.

    check the folder → evaluate → leave one out → tables → files → plots

A run that is stopped leaves nothing half written. What the folder holds is listed in the `README.txt` inside it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesscale.curves import Curves
from bayesscale.draws import provenance
from bayesscale.finding import InputError
from bayesscale.fitting import likelihood_for
from bayesscale.holdout import Evaluation, evaluate
from bayesscale.inference.settings import Sampler
from bayesscale.law import Law
from bayesscale.leave_one_out import Loo, loo
from bayesscale.result import Fit
from bayesscale.runs.folder import FORMAT, replacing, slug
from bayesscale.runs.tables import (
    FitFiles,
    comparison_table,
    count_statuses,
    findings_table,
    forecast_table,
    rows_where,
    skipped_shares,
    status_table,
    summary_table,
)
from bayesscale.runs.verdict import with_weights

if TYPE_CHECKING:
    import pandas as pd

TABLES = {
    "summary": "one row per curve, law and parameter: mean, sd, quantiles, convergence, contraction, findings",
    "comparison": "one row per curve, law and training share: status, scores of the held-out rows, leave-one-out",
    "forecasts": "one row per held-out row and law: what was observed, the forecast's quantiles, its scores",
    "findings": "one row per finding: what was odd about the data or a fit, how grave, what to try",
}
type Report = Callable[[str, int, int], None]
"""Called with (stage, finished, total)."""


@dataclass(frozen=True)
class Settings:
    """What is fitted, and how.

    Attributes
    ----------
    laws : the laws, each under a name of its own.
    shares : shares of the shots axis to train on; none for no hold-out.
    likelihood, discrepancy, task_key : as in `fit_many`.
    pool : whether the first law also forecasts from all curves together; None: where curves have siblings.
    leave_one_out, refit : whether to estimate leave-one-out, and whether to refit exactly where that estimate fails.
    plots : curves to draw at most; 0 for no plots.
    """

    laws: tuple[Law, ...]
    shares: tuple[float, ...] = (0.5,)
    likelihood: str | None = None
    discrepancy: bool = True
    task_key: str | None = None
    pool: bool | None = None
    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 0
    leave_one_out: bool = True
    refit: bool = True
    plots: int = 12

    def __post_init__(self) -> None:
        names = [law.name for law in self.laws]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            what = f"two laws are called {twice[0]}" if twice else "there is no law to fit"
            raise InputError("OPTIONS", what, fix="give each law a name of its own")
        for share in self.shares:
            if not 0 < share < 1:
                raise InputError("OPTIONS", f"a training share must lie between 0 and 1, got {share:g}")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run found, and where it is.

    `counts` are of curves × laws by status; `holdout_failed` counts forecasts that rest on a failed fit.
    """

    folder: Path
    evaluation: Evaluation
    tables: Mapping[str, pd.DataFrame]
    about: Mapping[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        return self.about["counts"]

    @property
    def holdout_failed(self) -> int:
        return self.about["holdout_failed"]


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def run(
    curves: Curves,
    settings: Settings,
    *,
    out: Path,
    overwrite: bool = False,
    inputs: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> Outcome:
    """Fit, score, and write everything to `out`.

    Parameters
    ----------
    overwrite : replace an earlier run at `out`.
    inputs : SHA-256 of the files the curves came from, by path.
    arguments : what the caller was asked for, to be kept with the results.

    Raises
    ------
    InputError : `out` is in use, or an option does not fit the data.
    """
    chosen = likelihood_for(curves, settings.likelihood, discrepancy=settings.discrepancy)
    if chosen.kind != curves.kind:
        what = f"likelihood {chosen.name} is for {chosen.kind}, and the data are {curves.kind}"
        raise InputError("LIKELIHOOD-KIND", what, fix="leave --likelihood out for the default")
    with replacing(out, overwrite=overwrite) as folder:
        clock = Clock()
        evaluation = evaluate(
            curves,
            settings.laws,
            shares=settings.shares,
            likelihood=settings.likelihood,
            discrepancy=settings.discrepancy,
            task_key=settings.task_key,
            sampler=settings.sampler,
            seed=settings.seed,
            progress=report,
            pool=settings.pool if settings.shares else False,
        )
        clock.lap("fit")
        loos = leave_one_out(evaluation.fits, settings, report)
        clock.lap("leave_one_out")
        files = write_fits(evaluation.fits, folder)
        tables = tables_of(evaluation, settings, loos, files)
        for name, table in tables.items():
            table.to_parquet(folder / f"{name}.parquet", index=False)
        clock.lap("write")
        if settings.plots:
            from bayesscale.runs.gallery import draw_plots

            draw_plots(evaluation.fits, tables, curves.key_names, folder / "plots", limit=settings.plots, report=report)
            clock.lap("plots")
        about = description(curves, settings, evaluation, tables, clock.laps)
        about |= {"likelihood": chosen.name, "inputs": dict(inputs or {}), "arguments": dict(arguments or {})}
        (folder / "run.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "README.txt").write_text(contents(about, plots=bool(settings.plots)), encoding="utf-8")
    return Outcome(out, evaluation, tables, about)


class Clock:
    """Seconds each stage took."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage], self.last = round(now - self.last, 3), now


# What is in it --------------------------------------------------------------------------------------------------------


def fit_file(fit: Fit) -> str:
    """Name a fit's file by curve and law, and by a hash that tells apart what the names do not."""
    identity = f"{fit.unit.digests[0]}|{fit.law.name}|{fit.model.likelihood.name}"
    return f"fits/{slug(fit.name, fit.law.name)}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.nc"


def write_fits(fits: Sequence[Fit], folder: Path) -> FitFiles:
    """One netCDF file per fit; returns where each went."""
    (folder / "fits").mkdir()
    files = {}
    for fit in fits:
        files[fit.name, fit.law.name] = fit_file(fit)
        fit.save(folder / fit_file(fit))
    return files


def leave_one_out(fits: Sequence[Fit], settings: Settings, report: Report) -> list[Loo | None]:
    """Leave-one-out of every fit that can be read; None where its draws are not finite or it failed its gate."""
    usable = [i for i, fit in enumerate(fits) if fit.status != "fail" and np.isfinite(fit.log_likelihood).all()]
    found: list[Loo | None] = [None] * len(fits)
    if not (settings.leave_one_out and usable):
        return found
    chosen = [fits[i] for i in usable]
    results = loo(
        chosen,
        refit=settings.refit,
        sampler=settings.sampler,
        progress=lambda done, total: report("leave-one-out refits", done, total),
    )
    for i, result in zip(usable, results, strict=True):
        found[i] = result
    return found


def tables_of(
    evaluation: Evaluation, settings: Settings, loos: Sequence[Loo | None], files: FitFiles
) -> dict[str, pd.DataFrame]:
    """Every table of a run, by name."""
    curves = evaluation.curves
    statuses = status_table(curves, settings.laws, evaluation, files=files, task_key=settings.task_key)
    forecasts = forecast_table(curves, evaluation.forecasts)
    comparison = comparison_table(statuses, evaluation, settings.shares, loos)
    return {
        "summary": summary_table(curves, evaluation.fits),
        "comparison": with_weights(comparison, forecasts, curves.key_names),
        "forecasts": forecasts,
        "findings": findings_table(curves, evaluation),
    }


def description(
    curves: Curves,
    settings: Settings,
    evaluation: Evaluation,
    tables: Mapping[str, pd.DataFrame],
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """What was run, on what, and how it ended; JSON-like."""
    comparison = tables["comparison"]
    fitted = rows_where(comparison, comparison["fitted"])
    counts = count_statuses(fitted.drop_duplicates(["curve_index", "law"]))
    return {
        "format": FORMAT,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "kind": curves.kind,
        "key_names": list(curves.key_names),
        "curves": len(curves),
        "rows": int(curves.shots.size),
        "laws": [law.name for law in settings.laws],
        "shares": list(settings.shares),
        "discrepancy": settings.discrepancy,
        "counts": counts,
        "holdout_failed": len(rows_where(comparison, comparison["holdout_status"] == "fail")),
        "holdout_too_short": skipped_shares(evaluation.skipped),
        "timings": dict(timings),
        **provenance(settings.sampler, settings.seed),
    }


def contents(about: Mapping[str, Any], *, plots: bool) -> str:
    """The folder's table of contents."""
    lines = [
        f"Results of bayesscale {about['versions']['bayesscale']}, {about['finished']}.",
        f"{about['curves']} curves of kind {about['kind']} under {', '.join(about['laws'])}.",
        "",
        *(f"{name}.parquet".ljust(20) + text for name, text in TABLES.items()),
        "fits/".ljust(20) + "one netCDF file per fit, read by bayesscale.load or any reader of ArviZ data",
        *(["plots/".ljust(20) + "pictures (PNG)"] if plots else []),
        "run.json".ljust(20) + "versions, seed, settings, SHA-256 of the inputs, counts by status, seconds per stage",
        "",
        "Intervals: q05 to q95 is the 90% equal-tailed interval, q25 to q75 the 50% one; in summary.parquet of the",
        "parameter, in forecasts.parquet of a new observation of the same size as the one held out.",
        "Status: ok, warn (usable, look at the findings), fail (do not use), skipped (not fitted, reason given).",
        "",
        "bayesscale compare THIS_FOLDER            which law predicted best",
        "bayesscale predict THIS_FOLDER --at 1000  what to expect there",
        "",
    ]
    return "\n".join(lines)
