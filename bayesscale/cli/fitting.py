"""`bayesscale fit`: tables in, a folder of checked and compared posteriors out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesscale.cli import options as o

if TYPE_CHECKING:
    from bayesscale.runs.job import Outcome

FAILED_FITS, NOTHING_FITTED = 4, 5
EPILOG = o.example(
    "bayesscale fit accuracy.csv --curve model,task --run run --chance 0.25 \\",
    "    --x shots --successes correct --trials n --holdout 0.5 --out results",
    "bayesscale fit nll.parquet --curve model,task --x shots \\",
    "    --nll nll --se nll_se --law tempered --law mylaws.py:my_law --out results",
)


def fit(
    files: o.Files,
    curve: o.Curve,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the results.", rich_help_panel=o.OUTPUT)
    ],
    x: o.X = "shots",
    successes: o.Successes = None,
    trials: o.Trials = None,
    nll: o.Nll = None,
    prob: o.Prob = None,
    se: o.Se = None,
    run: o.Run = None,
    condition: o.Condition = None,
    chance: o.Chance = None,
    shot_offset: o.ShotOffset = 0.0,
    covariate: o.Covariates = None,
    sep: o.Sep = None,
    strict: o.Strict = False,
    max_bad_fraction: o.MaxBad = 0.05,
    law: Annotated[
        list[str] | None,
        typer.Option("--law", metavar="NAME", help="A law, or file.py:name; repeatable.", rich_help_panel=o.MODEL),
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option("--likelihood", metavar="NAME", help="Instead of the default.", rich_help_panel=o.MODEL),
    ] = None,
    discrepancy: Annotated[
        bool,
        typer.Option(
            "--discrepancy/--no-discrepancy", help="Let curves leave the law smoothly.", rich_help_panel=o.MODEL
        ),
    ] = True,
    holdout: Annotated[
        list[str] | None,
        typer.Option(
            "--holdout",
            metavar="SHARE",
            help="Share of the shots axis to train on; the rest is scored. Repeatable; or none. (default: 0.5)",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    task_key: Annotated[
        str | None,
        typer.Option("--task-key", metavar="COL", help="Which of --curve tells tasks apart.", rich_help_panel=o.MODEL),
    ] = None,
    pool: Annotated[
        bool | None,
        typer.Option(
            "--pool/--no-pool",
            help="Forecast from all curves together too (default: where curves have siblings).",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    loo: Annotated[
        bool, typer.Option("--loo/--no-loo", help="Estimate leave-one-out.", rich_help_panel=o.MODEL)
    ] = True,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed.", rich_help_panel=o.SAMPLING)] = 0,
    draws: Annotated[int, typer.Option("--draws", min=20, help="Draws per chain.", rich_help_panel=o.SAMPLING)] = 1000,
    chains: Annotated[int, typer.Option("--chains", min=2, help="Chains.", rich_help_panel=o.SAMPLING)] = 4,
    warmup: Annotated[str | None, typer.Option("--warmup", metavar="N,...", hidden=True)] = None,
    lanes: Annotated[int | None, typer.Option("--lanes", min=2, hidden=True)] = None,
    tiers: Annotated[int | None, typer.Option("--tiers", min=0, hidden=True)] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw pictures.", rich_help_panel=o.OUTPUT)] = True,
    max_plots: Annotated[
        int, typer.Option("--max-plots", min=1, help="Curves to draw at most.", rich_help_panel=o.OUTPUT)
    ] = 12,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run at --out.", rich_help_panel=o.OUTPUT)
    ] = False,
) -> None:
    """Fit laws to every curve, score them on shots they did not see, and write posteriors, tables and plots."""
    from bayesscale.cli.printing import print_outcome
    from bayesscale.cli.screen import progress
    from bayesscale.ingest.table import file_digests, read_curves
    from bayesscale.runs.folder import check_folder
    from bayesscale.runs.job import Settings
    from bayesscale.runs.job import run as run_all

    check_folder(out, overwrite=overwrite)
    shares = o.shares_of(holdout) if holdout else (0.5,)
    columns = o.columns_of(
        curve=curve, x=x, successes=successes, trials=trials, nll=nll, prob=prob, se=se, run=run, condition=condition,
        chance=chance, shot_offset=shot_offset, covariates=covariate, sep=sep, strict=strict,
        max_bad_fraction=max_bad_fraction,
    )  # fmt: skip
    curves = read_curves(files, **columns)
    settings = Settings(
        laws=tuple(o.laws_of(law)),
        shares=shares,
        likelihood=likelihood,
        discrepancy=discrepancy,
        task_key=task_key,
        pool=pool,
        sampler=sampler_of(draws, chains, warmup, lanes, tiers),
        seed=seed,
        leave_one_out=loo,
        plots=max_plots if plots else 0,
    )
    asked = {"files": [str(path) for path in files], **columns, "law": o.listed(law)}
    with progress() as report:
        outcome = run_all(
            curves,
            settings,
            out=out,
            overwrite=overwrite,
            inputs=file_digests(files),
            arguments=asked,
            report=report,
        )
    print_outcome(outcome)
    raise typer.Exit(exit_code(outcome))


def sampler_of(draws: int, chains: int, warmup: str | None, lanes: int | None, tiers: int | None) -> Any:
    """The sampler's settings, its defaults where an option was not given."""
    from bayesscale.inference.settings import Sampler

    given = {"lanes": lanes, "tiers": tiers, "warmup": tuple(o.numbers([warmup], "--warmup", int)) if warmup else None}
    return Sampler(draws=draws, chains=chains, **{name: value for name, value in given.items() if value is not None})


def exit_code(outcome: Outcome) -> int:
    """0, or 4 where a fit failed its checks, or 5 where nothing was fitted."""
    if not outcome.evaluation.fits:
        return NOTHING_FITTED
    return FAILED_FITS if outcome.counts["fail"] or outcome.holdout_failed else 0
