"""`bayesscale compare` and `bayesscale predict`: questions to a finished run, without fitting again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bayesscale.cli import options as o

if TYPE_CHECKING:
    import pandas as pd

    from bayesscale.result import Fit
    from bayesscale.runs.stored import StoredRun

COMPARE_EPILOG = o.example("bayesscale compare results", "bayesscale compare results --metric log_score --share 0.1")
PREDICT_EPILOG = o.example(
    "bayesscale predict results --at 100,1000",
    "bayesscale predict results --at 1000 --kind new_observation --law all",
    "bayesscale predict results --threshold 0.8 --curve llama",
)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A folder written by `bayesscale fit`.")]
ROWS_SHOWN = 40


def compare(
    folder: Folder,
    metric: Annotated[str, typer.Option("--metric", help="crps, log_score or nrmse.")] = "crps",
    share: Annotated[float | None, typer.Option("--share", help="Training share; default every one.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", metavar="LAW", help="Compare with this law.")] = None,
) -> None:
    """Say which law predicted the held-out shots best, from the scores of a finished run."""
    from bayesscale.cli.printing import print_comparison
    from bayesscale.runs.stored import StoredRun

    run = StoredRun.at(folder)
    for each in run.shares if share is None else [share]:
        print_comparison(run.verdict(metric=metric, share=each, reference=reference), run.comparison)
    if not run.shares and share is None:
        run.verdict(metric=metric)  # raises, and says why there is nothing to compare


def predict(
    folder: Folder,
    at: Annotated[list[str] | None, typer.Option("--at", metavar="SHOTS,...", help="Predict at these shots.")] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="mean, law (without its discrepancy), new_observation or new_run.")
    ] = "mean",
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Ask how many shots it takes to reach this value.")
    ] = None,
    horizon: Annotated[
        float | None,
        typer.Option("--horizon", help="Largest shots to look for the threshold at. (default: 100 x the data)"),
    ] = None,
    law: Annotated[
        list[str] | None,
        typer.Option("--law", metavar="NAME", help="Laws, file.py:name, or all. (default: the best predictor)"),
    ] = None,
    curve: Annotated[str, typer.Option("--curve", metavar="TEXT", help="Only curves whose name holds this.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the rows to a CSV file too.")] = None,
) -> None:
    """Predict from the stored posteriors: values at shot counts, or the shots at which a value is reached."""
    from bayesscale.finding import InputError
    from bayesscale.runs.stored import StoredRun

    shots = o.numbers(at, "--at", float)
    if not shots and threshold is None:
        raise InputError("OPTIONS", "nothing was asked", fix="give --at or --threshold")
    run = StoredRun.at(folder)
    fits = chosen_fits(run, law, curve)
    if shots:
        print_predictions(run, fits, shots, kind, seed, csv)
    if threshold is not None:
        print_crossings(run, fits, threshold, kind, horizon, seed, csv if not shots else None)


def chosen_fits(run: StoredRun, law: list[str] | None, curve: str) -> list[Fit]:
    """The fits asked for; those whose law is the user's own need it passed again.

    Raises
    ------
    InputError : there is none.
    """
    from bayesscale.cli.screen import say
    from bayesscale.finding import InputError

    named = o.listed(law)
    own = {found.name: found for found in (o.own_law(name) for name in named if ".py:" in name)}
    names = (
        run.laws if named == ["all"] else [*own, *(name for name in named if ".py:" not in name)] or [run.best_law()]
    )
    unknown = [name for name in names if name not in run.laws]
    if unknown:
        raise InputError(
            "LAW-UNKNOWN", f"{unknown[0]!r} was not fitted in this run", fix="one of " + ", ".join(run.laws)
        )
    if not named:
        say(f"Law: {names[0]}, the best predictor that was fitted (others with --law).")
    fits = run.fits(names, curve, own)
    if not fits:
        what = (
            f"no fit of {', '.join(names)} for a curve named like {curve!r}"
            if curve
            else "no fit of " + ", ".join(names)
        )
        if run.about.get("keep") == "summary":
            what = "this run kept summaries only, so there are no posteriors to predict from"
        raise InputError("NO-FITS", what, where=str(run.folder), fix="bayesscale compare says what was fitted")
    return fits


def print_predictions(
    run: StoredRun, fits: list[Fit], shots: list[float], kind: str, seed: int, csv: Path | None
) -> None:
    """A row per curve, law and shot count."""
    from bayesscale.cli.screen import number, say, show

    table = run.predictions(fits, shots, kind, seed=seed)
    unit = "NLL in nats" if run.about["kind"] == "nll_mean" else "probability"
    columns = [("curve", "left"), ("law", "left"), ("shots", "right"), ("median", "right"), ("90% interval", "left")]
    rows = [
        [
            row["curve"],
            row["law"],
            f"{row['shots']:g}",
            number(row["median"]),
            interval(row),
            beyond(row),
            row["status"],
        ]
        for row in table.head(ROWS_SHOWN).to_dict("records")
    ]
    show(f"{kind}, {unit}; 90% equal-tailed intervals", [*columns, ("beyond the data", "left"), ("fit", "left")], rows)
    say(rest(table, csv))


def interval(row: dict) -> str:
    from bayesscale.cli.screen import number

    return f"{number(row['eti90_lower'])} to {number(row['eti90_upper'])}"


def beyond(row: dict) -> str:
    """Whether a row extrapolates, and how far."""
    return f"yes, {row['horizon']:.3g} x the largest" if row["extrapolated"] else "no"


def print_crossings(
    run: StoredRun, fits: list[Fit], threshold: float, kind: str, horizon: float | None, seed: int, csv: Path | None
) -> None:
    """A row per curve and law: shots at which the threshold is reached."""
    from bayesscale.cli.screen import fixed, number, say, show

    table = run.crossings(fits, threshold, kind=kind, horizon=horizon, seed=seed)
    columns = [("curve", "left"), ("law", "left"), ("median shots", "right"), ("90% interval", "left")]
    columns += [("P(not within)", "right"), ("P(never)", "right"), ("observed to", "right"), ("extrapolated", "left")]
    rows = [
        [
            row["curve"], row["law"], number(row["median_shots"]), interval(row), fixed(row["p_beyond_horizon"]),
            fixed(row["p_never"]), number(row["observed_up_to"]), "yes" if row["extrapolated"] else "no",
        ]
        for row in table.head(ROWS_SHOWN).to_dict("records")
    ]  # fmt: skip
    title = f"Shots to reach {threshold:g} ({kind}); 90% equal-tailed intervals; 'not within' the horizon looked at"
    show(title, columns, rows)
    say(rest(table, csv))


def rest(table: pd.DataFrame, csv: Path | None) -> str:
    """Write a table if asked; say where it is, or that rows were left out."""
    from bayesscale.runs.stored import write_csv

    if csv is not None:
        write_csv(table, csv)
        return f"{len(table)} rows are in {csv}."
    return f"... and {len(table) - ROWS_SHOWN} more rows (--csv FILE for all)" if len(table) > ROWS_SHOWN else ""
