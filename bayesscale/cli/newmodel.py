"""`bayesscale newmodel`: a new model on problems that other models have tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesscale.cli import options as o
from bayesscale.cli import sampling as q

if TYPE_CHECKING:
    from bayesscale.resampling.crossed import CrossedFit
    from bayesscale.runs.results import Outcome

EPILOG = o.example(
    "bayesscale newmodel data/resampling_counts/shared.csv --model model --problem problem \\",
    "    --n n --correct n_correct --new new-1 --out newmodel-results",
)


def newmodel(
    files: o.Files,
    model: q.Model,
    problem: q.Problem,
    n: q.N,
    correct: q.Correct,
    new: Annotated[
        list[str],
        typer.Option(
            "--new",
            metavar="NAME",
            help="The new model; labels of several --model columns joined by ' / '. Repeatable; all others are old.",
            rich_help_panel=o.MODEL,
        ),
    ],
    out: q.Out,
    stopping: q.Stopping = "fixed",
    cap: q.Cap = None,
    batch: q.Batch = 1,
    sep: o.Sep = None,
    strict: o.Strict = False,
    max_bad_fraction: o.MaxBad = 0.05,
    benchmark: Annotated[
        str,
        typer.Option(
            "--benchmark",
            metavar="COL",
            help="The one of the --model columns within which a label names one problem.",
            rich_help_panel=o.DATA,
        ),
    ] = "benchmark",
    seed: q.Seed = 0,
    draws: q.Draws = 1000,
    chains: q.Chains = 4,
    warmup: q.Warmup = None,
    lanes: q.Lanes = None,
    tiers: q.Tiers = None,
    plots: q.Plots = True,
    max_plots: q.MaxPlots = 6,
    overwrite: q.Overwrite = False,
) -> None:
    """Predict a new model on all problems of other models from a few samples on some of them."""
    from bayesscale.cli.screen import progress
    from bayesscale.ingest.attempts import read_attempts
    from bayesscale.ingest.table import file_digests
    from bayesscale.runs.folder import check_folder
    from bayesscale.runs.newmodel import Settings, run_newmodel

    check_folder(out, overwrite=overwrite)
    settings = Settings(
        new=tuple(new),
        benchmark=benchmark,
        sampler=q.sampler_of(draws, chains, warmup, lanes, tiers),
        seed=seed,
        plots=max_plots if plots else 0,
    )
    columns: dict[str, Any] = {
        "model": o.listed([model]), "problem": problem, "n": n, "correct": correct, "stopping": stopping,
        "cap": q.column_or_number(cap), "batch": batch, "sep": o.separator(sep), "strict": strict,
        "max_bad_fraction": max_bad_fraction,
    }  # fmt: skip
    attempts = read_attempts(files, **columns)
    asked = {"files": [str(path) for path in files], **columns, "new": list(new), "benchmark": benchmark}
    with progress() as report:
        outcome = run_newmodel(
            attempts, settings, out=out, overwrite=overwrite, inputs=file_digests(files), arguments=asked, report=report
        )
    print_newmodel(outcome)
    raise typer.Exit(q.exit_code(outcome))


def print_newmodel(outcome: Outcome[CrossedFit]) -> None:
    """Say how a run ended: accuracy with and without difficulties, findings, the folder."""
    from bayesscale.cli.coverage import print_end, print_findings
    from bayesscale.cli.screen import fixed, say, show

    rows = []
    for row in outcome.tables["accuracy"].to_dict("records"):
        seen = f"{row['samples']} samples on {row['tried']} of {row['problems']}"
        interval = f"{fixed(row['eti90_lower'], 3)} to {fixed(row['eti90_upper'], 3)}"
        cells = [row["model"], seen, fixed(row["share_correct"], 3), row["fit"], fixed(row["accuracy"], 3), interval]
        rows.append([*cells, row["status"]])
    columns = [("model", "left"), ("seen", "left"), ("correct", "right"), ("predicted from", "left")]
    columns += [("accuracy", "right"), ("90% interval", "left"), ("fit", "left")]
    old = len(outcome.about["old"])
    show(f"Accuracy on all problems that the {old} old models tried; mean, 90% equal-tailed interval", columns, rows)
    say(
        "level only: the same fit without what the old models say of each problem. Rates by problem: problems.parquet.\n"
    )
    print_findings(outcome.tables["findings"])
    print_end(outcome)
