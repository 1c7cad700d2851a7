"""Merging: what chunks wrote becomes the tables, fits, pictures and descriptions of a run.

What only all curves together tell is added here, from compact scores: how far the siblings of a curve reach, scores within and
beyond that, stacking weights. The files appear in the folder when all are written, `run.json` last.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesscale.batch.disk import disk_errors, reached, sync_file, sync_folder
from bayesscale.batch.gather import Piece, columns_of, link_files, write_table
from bayesscale.batch.loop import Survey
from bayesscale.batch.place import Place
from bayesscale.batch.plan import Plan
from bayesscale.batch.work import QUARANTINED
from bayesscale.curves import Curves
from bayesscale.draws import provenance
from bayesscale.holdout import sibling_reach
from bayesscale.law import Law
from bayesscale.result import Fit, load
from bayesscale.runs.folder import FORMAT
from bayesscale.runs.outcome import Outcome
from bayesscale.runs.planning import sampler_of
from bayesscale.runs.stored import POINTS
from bayesscale.runs.tables import (
    COLUMNS,
    SHARE_REASONS,
    check_accounts,
    count_statuses,
    finding_row,
    in_form,
    rows_where,
)
from bayesscale.runs.verdict import share_weights, with_weights

KEY = ["curve_index", "law", "share"]
WORST_FIRST = ("fail", "warn", "ok")
TABLES = {
    "summary": "one row per curve, law and parameter: mean, sd, quantiles, convergence, contraction, findings",
    "comparison": "one row per curve, law and training share: status, scores of the held-out rows, leave-one-out",
    "forecasts": "one row per held-out row and law: what was observed, the forecast's quantiles, its scores",
    "findings": "one row per finding: what was odd about the data or a fit, how grave, what to try",
}
assert set(TABLES) == set(COLUMNS)

type Report = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Merge:
    """What is merged: a plan, its curves and laws, curves to draw at most, and what the caller was asked for."""

    plan: Plan
    curves: Curves
    laws: tuple[Law, ...]
    plots: int
    inputs: Mapping[str, str]
    arguments: Mapping[str, Any]


def merge_results(place: Place, merge: Merge, found: Survey, report: Report, laps: dict[str, float]) -> Outcome:
    """Write everything a run writes, from the results of its chunks."""
    began = time.perf_counter()
    pieces = pieces_of(place, merge.plan, found)
    folder = place.batch / ".merging.partial"
    with disk_errors(place.out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        scores = columns_of(pieces, "comparison", ["status", "reason", "fitted", "holdout_status", "crps", "fit", *KEY])
        check_accounts(first_share(scores), len(merge.curves) * len(merge.laws))
        write_tables(folder, merge, pieces, scores)
        if merge.plan.settings["keep"] != "summary":
            link_files(pieces, ".nc", folder / "fits")
        laps["write"] = round(time.perf_counter() - began, 3)
        if merge.plots:
            draw(folder, merge, scores, report)
            laps["plots"] = round(time.perf_counter() - began - laps["write"], 3)
        about = description(merge, scores, folder, laps)
        (folder / "run.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "README.txt").write_text(contents(about, folder), encoding="utf-8")
        put_in_place(folder, place.out)
    return Outcome(place.out, about, merge.laws)


def pieces_of(place: Place, plan: Plan, found: Survey) -> list[Piece]:
    """Where the results of all chunks are, laws in the order of the plan."""
    laws = list(dict.fromkeys((chunk.kind, chunk.law) for chunk in plan.chunks))
    pieces = [
        Piece(place.store.folder(key), min(chunk.curves), max(chunk.curves), laws.index((chunk.kind, chunk.law)))
        for key, chunk in found.entries.items()
    ]
    return sorted(pieces, key=lambda piece: (piece.law, piece.first, piece.last))


def first_share(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per curve × law that was fitted."""
    fitted = rows_where(scores, scores["fitted"])
    return rows_where(fitted, (fitted["share"] == fitted["share"].min()) | fitted["share"].isna())


# Tables ---------------------------------------------------------------------------------------------------------------


def write_tables(folder: Path, merge: Merge, pieces: Sequence[Piece], scores: pd.DataFrame) -> None:
    """Write every table, with what only all curves together tell."""
    points = columns_of(pieces, "forecasts", [*KEY, "shots", "crps", "log_score"])
    reach = {share: sibling_reach(merge.curves, share) for share in merge.plan.settings["shares"]}
    weights, split = share_weights(scores, points), split_scores(points, reach)
    count, keys = len(merge.curves), merge.curves.key_names

    def compared(frame: pd.DataFrame) -> pd.DataFrame:
        own = split.reindex(pd.MultiIndex.from_arrays([frame[name] for name in KEY]))
        frame[list(split.columns)] = own.to_numpy()
        return with_weights(frame, weights)

    def forecast(frame: pd.DataFrame) -> pd.DataFrame:
        for share, largest in reach.items():
            own = (frame["share"] == share).to_numpy()
            frame.loc[own, "reach"] = largest[frame["curve_index"].to_numpy()[own]]
        return frame

    data = [finding_row(finding, "data") for finding in merge.curves.findings]
    about_data = in_form("findings", pd.DataFrame(data, columns=pd.Index(COLUMNS["findings"])), keys)
    write_table(folder / "summary.parquet", "summary", pieces, count)
    write_table(folder / "comparison.parquet", "comparison", pieces, count, finish=compared)
    write_table(
        folder / "forecasts.parquet", "forecasts", pieces, count, sort=("share", "law", "shots"), finish=forecast
    )
    write_table(folder / "findings.parquet", "findings", pieces, count, before=[about_data])


def split_scores(points: pd.DataFrame, reach: Mapping[float, np.ndarray]) -> pd.DataFrame:
    """CRPS within and beyond the siblings' reach by curve, law and share, and the rows beyond."""
    within = np.zeros(len(points), bool)
    for share, largest in reach.items():
        own = (points["share"] == share).to_numpy()
        within[own] = points["shots"].to_numpy()[own] <= largest[points["curve_index"].to_numpy()[own]]
    parts = points[KEY].assign(
        law=points["law"].astype(str),
        crps_within=np.where(within, points["crps"], np.nan),
        crps_beyond=np.where(within, np.nan, points["crps"]),
        rows_beyond=(~within).astype(float),
    )
    kinds = {"crps_within": "mean", "crps_beyond": "mean", "rows_beyond": "sum"}
    return parts.groupby(KEY, sort=False).agg(kinds)


# Pictures -------------------------------------------------------------------------------------------------------------


def draw(folder: Path, merge: Merge, scores: pd.DataFrame, report: Report) -> None:
    """Draw the comparison, calibration, and the curves with the gravest findings, from stored fits."""
    from bayesscale.runs.gallery import draw_plots

    comparison = pd.read_parquet(folder / "comparison.parquet")
    forecasts = pd.read_parquet(folder / "forecasts.parquet", columns=list(POINTS))
    fits = fits_to_draw(folder, merge, scores)
    tables = {"comparison": comparison, "forecasts": forecasts}
    draw_plots(fits, tables, merge.curves.key_names, folder / "plots", limit=merge.plots, report=report)


def fits_to_draw(folder: Path, merge: Merge, scores: pd.DataFrame) -> list[Fit]:
    """Load the fits of the units that ended worst, as many units as are to be drawn."""
    once = first_share(scores)
    once = rows_where(once, (once["fit"] != "").to_numpy())
    laws = {law.name: law for law in merge.laws}
    files: dict[str, tuple[str, list[int], int]] = {}
    for file, law, curve, status in zip(
        *(once[name].tolist() for name in ("fit", "law", "curve_index", "status")), strict=True
    ):
        files.setdefault(file, (law, [], WORST_FIRST.index(status)))[1].append(curve)
    units: dict[tuple[int, ...], int] = {}
    for _, curves, rank in files.values():
        units[tuple(curves)] = min(rank, units.get(tuple(curves), rank))
    chosen = set(sorted(units, key=lambda unit: units[unit])[: merge.plots])
    return [load(folder / file, law=laws[law]) for file, (law, curves, _) in files.items() if tuple(curves) in chosen]


# Descriptions ---------------------------------------------------------------------------------------------------------


def description(merge: Merge, scores: pd.DataFrame, folder: Path, laps: Mapping[str, float]) -> dict[str, Any]:
    """What was run, on what, and how it ended; JSON-like."""
    settings, curves = merge.plan.settings, merge.curves
    codes = pd.read_parquet(folder / "findings.parquet", columns=["code", "scope"])
    sampler = sampler_of(settings["sampler"])
    once = first_share(scores)
    failed = rows_where(scores, scores["fitted"] & (scores["holdout_status"] == "fail"))
    short = rows_where(codes, codes["code"].isin(SHARE_REASONS) & (codes["scope"] == "skipped"))
    return {
        "format": FORMAT,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "kind": curves.kind,
        "key_names": list(curves.key_names),
        "curves": len(curves),
        "rows": int(curves.shots.size),
        "laws": [law.name for law in merge.laws],
        "shares": list(settings["shares"]),
        "discrepancy": settings["discrepancy"],
        "keep": settings["keep"],
        "counts": count_statuses(once),
        "holdout_failed": len(failed),
        "holdout_too_short": len(short),
        "quarantined": len(rows_where(once, once["reason"] == QUARANTINED)),
        "timings": dict(laps),
        **provenance(sampler, settings["seed"]),
        "likelihood": settings["likelihood"],
        "inputs": dict(merge.inputs),
        "arguments": dict(merge.arguments),
    }


def contents(about: Mapping[str, Any], folder: Path) -> str:
    """The folder's table of contents."""
    fits = "fits/".ljust(20) + "one netCDF file per fit, read by bayesscale.load or any reader of ArviZ data"
    lines = [
        f"Results of bayesscale {about['versions']['bayesscale']}, {about['finished']}.",
        f"{about['curves']} curves of kind {about['kind']} under {', '.join(about['laws'])}.",
        "",
        *(f"{name}.parquet".ljust(20) + text for name, text in TABLES.items()),
        *([fits] if (folder / "fits").exists() else []),
        *(["plots/".ljust(20) + "pictures (PNG)"] if (folder / "plots").exists() else []),
        "run.json".ljust(20) + "versions, seed, settings, SHA-256 of the inputs, counts by status, seconds per stage",
        "batch/".ljust(20)
        + "the plan, and the result of every chunk: what the same command goes on from. All of the above",
        "".ljust(20) + "is made from it; delete it when the run needs no repair",
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


def put_in_place(new: Path, out: Path) -> None:
    """Move finished files into the folder; `run.json`, which says that all are there, goes first and comes last."""
    (out / "run.json").unlink(missing_ok=True)
    for name in ("fits", "plots"):
        shutil.rmtree(out / name, ignore_errors=True)
    for path in sorted(new.iterdir(), key=lambda path: path.name == "run.json"):
        if path.is_file():
            sync_file(path)
        reached(f"before {path.name} is in place")
        path.rename(out / path.name)
    sync_folder(out)
    new.rmdir()
