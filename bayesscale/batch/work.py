"""The work of a chunk: fit its curves under its law, score them, and write tables and fits. The part that needs jax.

A chunk's numbers depend on its own curves and the settings only. What needs all curves (how far siblings reach, stacking
weights, forecasts from all curves together) comes later, from what the chunks wrote.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesscale.batch.attempt import Within
from bayesscale.batch.gather import ORDER
from bayesscale.batch.plan import BASELINE, Chunk
from bayesscale.curves import Curves
from bayesscale.finding import Finding
from bayesscale.fitting import law_named, likelihood_for
from bayesscale.holdout import Evaluation, Forecast, evaluate, persistence_forecasts, pool_and_mix, with_reach
from bayesscale.inference.settings import Sampler
from bayesscale.law import Law
from bayesscale.laws import LAWS
from bayesscale.leave_one_out import Loo, loo
from bayesscale.likelihood import LIKELIHOODS
from bayesscale.precision import enable_float64
from bayesscale.result import Fit
from bayesscale.runs.folder import slug
from bayesscale.runs.settings import Settings
from bayesscale.runs.tables import (
    COLUMNS,
    FINDING,
    comparison_table,
    count_statuses,
    finding_row,
    findings_table,
    forecast_scores,
    forecast_table,
    in_form,
    status_table,
    summary_table,
    unit_names,
)

QUARANTINED = "QUARANTINED"
FORECASTS = "forecasts.npz"
"""Draws of the first law's forecasts, kept where they are to be mixed with those from all curves together."""

type Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, eq=False)
class FitWork:
    """Fits curves under the laws of a run; `likelihood` is the one chosen for all, `pooled` whether forecasts are to be mixed."""

    curves: Curves
    settings: Settings
    likelihood: str
    pooled: bool

    def __reduce__(self) -> Any:
        laws = tuple(law.name if LAWS.get(law.name) is law else law for law in self.settings.laws)
        return rebuilt, (self.curves, {**vars(self.settings), "laws": laws}, self.likelihood, self.pooled)

    def law(self, name: str) -> Law:
        return next(law for law in self.settings.laws if law.name == name)

    def run(self, chunk: Chunk, folder: Path, within: Within) -> Mapping[str, Any]:
        """Compute a chunk; writes its tables, its fits, and draws that are to be mixed."""
        enable_float64()
        curves = self.curves.subset(np.array(chunk.curves))
        if chunk.kind == BASELINE:
            likelihood = LIKELIHOODS[self.likelihood]
            forecasts = [f for share in self.settings.shares for f in persistence_forecasts(curves, likelihood, share)]
            write_tables(folder, chunk, forecast_tables(curves, forecasts), curves.key_names, {})
            return {}
        return self.fit(chunk, curves, folder, within)

    def fit(self, chunk: Chunk, curves: Curves, folder: Path, within: Within) -> Mapping[str, Any]:
        settings, law = self.settings, self.law(chunk.law)
        evaluation = evaluate(
            curves,
            [law],
            shares=settings.shares,
            likelihood=self.likelihood,
            discrepancy=settings.discrepancy,
            task_key=settings.task_key,
            sampler=keeping(settings),
            seed=settings.seed,
            progress=within,
            pool=False,
            baseline=False,
        )
        loos = leave_one_out(evaluation.fits, settings, within)
        files = {} if settings.keep == "summary" else save_fits(evaluation.fits, chunk, folder)
        statuses = status_table(curves, [law], evaluation, files=files, task_key=settings.task_key)
        tables = {
            "summary": summary_table(curves, evaluation.fits),
            "comparison": comparison_table(statuses, evaluation, settings.shares, loos),
            "forecasts": forecast_table(curves, evaluation.forecasts),
            "findings": findings_table(replace(curves, findings=()), evaluation),
        }
        write_tables(folder, chunk, tables, curves.key_names, self.places(chunk, curves))
        if self.pooled and chunk.law == settings.laws[0].name:
            save_forecasts(folder / FORECASTS, evaluation.forecasts, chunk)
        tiers = Counter(str(fit.provenance.get("tier", 0)) for fit in evaluation.fits)
        return {"counts": count_statuses(statuses), "tiers": dict(sorted(tiers.items()))}

    def give_up(self, chunk: Chunk, folder: Path, reason: str) -> Mapping[str, Any]:
        """Account for a unit that cannot be fitted: status fail, and the reason as a finding."""
        curves = self.curves.subset(np.array(chunk.curves))
        if chunk.kind == BASELINE:
            write_tables(folder, chunk, forecast_tables(curves, []), curves.key_names, {})
            return {"given_up": reason}
        law = self.law(chunk.law)
        finding = Finding(QUARANTINED, "fail", f"could not be fitted: {reason}", "fit it alone to see why")
        nothing = Evaluation(curves, (), (), ())
        rows = [
            {"curve_index": i, "curve": curves.curve_name(i), "law": law.name, "status": "fail", "reason": QUARANTINED}
            for i in range(len(curves))
        ]
        statuses = pd.DataFrame(rows).assign(fit="")
        [name] = set(unit_names(curves, law, self.settings.task_key).values())
        index = 0 if len(curves) == 1 else -1
        tables = {
            "summary": summary_table(curves, ()),
            "comparison": comparison_table(statuses, nothing, self.settings.shares, []),
            "forecasts": forecast_table(curves, ()),
            "findings": pd.DataFrame([finding_row(finding, "fit", index, name, law.name)]),
        }
        write_tables(folder, chunk, tables, curves.key_names, self.places(chunk, curves))
        return {"counts": count_statuses(statuses), "given_up": reason}

    def places(self, chunk: Chunk, curves: Curves) -> dict[str, int]:
        """Where each unit of a chunk comes in a table: the place of its first curve."""
        names = unit_names(curves, self.law(chunk.law), self.settings.task_key)
        return {names[i]: chunk.curves[i] for i in reversed(range(len(curves)))}


def rebuilt(curves: Curves, settings: Mapping[str, Any], likelihood: str, pooled: bool) -> FitWork:
    """The work as another process gets it: laws of the table by name, so that programs are compiled once."""
    laws = tuple(law_named(law) for law in settings["laws"])
    return FitWork(curves, Settings(**{**settings, "laws": laws}), likelihood, pooled)


def keeping(settings: Settings) -> Sampler:
    """The sampler, keeping as many draws as asked for."""
    sampler = settings.sampler
    return replace(sampler, keep=sampler.draws) if settings.keep == "draws" else sampler


# Files of a chunk -----------------------------------------------------------------------------------------------------


def write_tables(
    folder: Path, chunk: Chunk, tables: Tables, key_names: Sequence[str], places: Mapping[str, int]
) -> None:
    """Write every table in one form, curves by their place in the plan, and a column that orders rows across chunks."""
    index = np.array([*chunk.curves, -1])  # -1, several curves, stays -1
    for name in COLUMNS:
        table = tables.get(name, pd.DataFrame({"curve_index": pd.Series(dtype=int)}))
        frame = in_form(name, table.assign(curve_index=index[table["curve_index"].to_numpy(int)]), key_names)
        order = (
            frame["curve_index"] if name in ("comparison", "forecasts") else [places.get(n, 0) for n in frame["curve"]]
        )
        frame[ORDER] = np.asarray(order, np.int64)
        frame.to_parquet(folder / f"{name}.parquet", index=False)


def forecast_tables(curves: Curves, forecasts: Sequence[Forecast]) -> dict[str, pd.DataFrame]:
    """Tables of forecasts that come from no fit of one unit."""
    return {"comparison": forecast_scores(curves, forecasts), "forecasts": forecast_table(curves, forecasts)}


def fit_file(fit: Fit) -> str:
    """Name a fit's file by curve and law, and by a hash that tells apart what the names do not."""
    identity = f"{fit.unit.digests[0]}|{fit.law.name}|{fit.model.likelihood.name}"
    return f"{slug(fit.name, fit.law.name)}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.nc"


def save_fits(fits: Sequence[Fit], chunk: Chunk, folder: Path) -> dict[tuple[str, str], str]:
    """One netCDF file per fit, its curves by their place in the plan; returns where each will be."""
    files = {}
    for fit in fits:
        placed(fit, chunk).save(folder / fit_file(fit))
        files[fit.name, fit.law.name] = f"fits/{fit_file(fit)}"
    return files


def placed(fit: Fit, chunk: Chunk) -> Fit:
    """The fit with its curves by their place in the plan."""
    index = np.array([*chunk.curves, -1])
    members = tuple(tuple(index[list(own)].tolist()) for own in fit.unit.members)
    return replace(fit, unit=replace(fit.unit, members=members, curves=index[fit.unit.curves]))


def leave_one_out(fits: Sequence[Fit], settings: Settings, within: Within) -> list[Loo | None]:
    """Leave-one-out of every fit that can be read; None where its draws are not finite or it failed its gate."""
    usable = [i for i, fit in enumerate(fits) if fit.status != "fail" and np.isfinite(fit.log_likelihood).all()]
    found: list[Loo | None] = [None] * len(fits)
    if not (settings.leave_one_out and usable):
        return found
    results = loo(
        [fits[i] for i in usable],
        refit=settings.refit,
        sampler=settings.sampler,
        progress=lambda done, total: within("leave-one-out refits", done, total),
    )
    for i, result in zip(usable, results, strict=True):
        found[i] = result
    return found


# Draws of forecasts ---------------------------------------------------------------------------------------------------

ARRAYS = ("shots", "observed", "mean", "observation", "log_score")


def save_forecasts(path: Path, forecasts: Sequence[Forecast], chunk: Chunk) -> None:
    """Keep forecasts with their draws, curves by their place in the plan."""
    arrays: dict[str, NDArray] = {f"{i}.{name}": getattr(f, name) for i, f in enumerate(forecasts) for name in ARRAYS}
    arrays["curve"] = np.array([chunk.curves[f.curve] for f in forecasts], int)
    arrays["share"] = np.array([f.share for f in forecasts], float)
    arrays["status"] = np.array([f.status for f in forecasts], "U8")
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]


def load_forecasts(path: Path, curves: Curves, law: str) -> list[Forecast]:
    """Read forecasts kept by `save_forecasts`."""
    with np.load(path, allow_pickle=False) as data:
        heads = zip(data["curve"].tolist(), data["share"].tolist(), data["status"].tolist(), strict=True)
        return [
            Forecast(
                curve=curve,
                name=curves.curve_name(curve),
                predictor=law,
                share=share,
                status=status,
                **{name: data[f"{i}.{name}"] for name in ARRAYS},
            )
            for i, (curve, share, status) in enumerate(heads)
        ]


# All curves together --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PoolWork:
    """Forecasts from all curves together, mixed with those of the first law alone, which `folders` hold."""

    fits: FitWork
    folders: tuple[Path, ...]

    def run(self, chunk: Chunk, folder: Path, within: Within) -> Mapping[str, Any]:
        enable_float64()
        curves, settings = self.fits.curves, self.fits.settings
        law = settings.laws[0]
        likelihood = likelihood_for(curves, self.fits.likelihood, discrepancy=settings.discrepancy)
        paths = [path / FORECASTS for path in self.folders if (path / FORECASTS).exists()]
        forecasts, skipped = pool_and_mix(
            curves,
            law,
            likelihood,
            settings.shares,
            [f for path in paths for f in load_forecasts(path, curves, law.name)],
            seed=settings.seed,
            asked=bool(settings.pool),
            progress=within,
        )
        rows = [finding_row(entry.finding, "skipped", curve=entry.name, law=law.name) for entry in skipped]
        findings = pd.DataFrame(rows, columns=pd.Index(FINDING))
        tables = forecast_tables(curves, with_reach(curves, forecasts)) | {"findings": findings}
        write_tables(folder, chunk, tables, curves.key_names, {})
        return {}

    def give_up(self, chunk: Chunk, folder: Path, reason: str) -> Mapping[str, Any]:
        """Say that there are no forecasts from all curves together, and why."""
        finding = Finding(QUARANTINED, "warn", f"could not be fitted together: {reason}", "pass --no-pool")
        law = self.fits.settings.laws[0].name
        rows = [finding_row(finding, "skipped", curve="all curves together", law=law)]
        curves = self.fits.curves
        tables = forecast_tables(curves, []) | {"findings": pd.DataFrame(rows)}
        write_tables(folder, chunk, tables, curves.key_names, {})
        return {"given_up": reason}
