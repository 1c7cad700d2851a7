"""`bayesscale passk`: counts of attempts in, forecasts of coverage out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from bayesscale.cli import options as o
from bayesscale.cli import sampling as q

if TYPE_CHECKING:
    from bayesscale.rates import RateLaw
    from bayesscale.resampling.forecast import Target

EPILOG = o.example(
    "bayesscale passk data/resampling_counts/attempts.csv --model model --problem problem \\",
    "    --n n --correct n_correct --at 1,10,100,1000,10000 --out passk-results",
    "bayesscale passk jailbreaks.csv --model model --problem prompt --n n --correct n_success \\",
    "    --stopping batch --batch 60 --cap cap --holdout 300 --out passk-results",
)


def passk(
    files: o.Files,
    model: q.Model,
    problem: q.Problem,
    n: q.N,
    correct: q.Correct,
    out: q.Out,
    stopping: q.Stopping = "fixed",
    cap: q.Cap = None,
    batch: q.Batch = 1,
    covariates: q.Covariates = None,
    sep: o.Sep = None,
    strict: o.Strict = False,
    max_bad_fraction: o.MaxBad = 0.05,
    law: Annotated[
        list[str] | None,
        typer.Option(
            "--law",
            metavar="NAME",
            help="A law of success rates, the first for the answer; repeatable. "
            "(default: beta_mixture, and beta and logit_normal to compare)",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="K,...",
            help="Numbers of attempts. (default: powers of ten, to about 10 x the samples)",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="NAME",
            help="solved (default): share of these problems solved in k attempts, past ones included; these: by k fresh "
            "attempts; population: of the population; new: share of as many new problems. Repeatable.",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    holdout: Annotated[
        int | None,
        typer.Option(
            "--holdout",
            metavar="N0",
            min=1,
            help="Also train on N0 samples per problem and score forecasts of the rest.",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    pool: Annotated[
        bool,
        typer.Option(
            "--pool",
            help="Also fit all models together, their tails following --covariates. For one sampling setting only.",
            rich_help_panel=o.MODEL,
        ),
    ] = False,
    limit: Annotated[
        bool,
        typer.Option(
            "--limit/--no-limit",
            help="Estimate pass@infinity, the share of problems that any number of samples solves, under several priors.",
            rich_help_panel=o.MODEL,
        ),
    ] = True,
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
    """Forecast how many problems are solved in k attempts, far beyond the samples too, and how sure that is."""
    from bayesscale.cli.coverage import print_coverage
    from bayesscale.cli.screen import progress
    from bayesscale.ingest.attempts import read_attempts
    from bayesscale.ingest.table import file_digests
    from bayesscale.runs.coverage import Settings, run_coverage
    from bayesscale.runs.folder import check_folder

    check_folder(out, overwrite=overwrite)
    laws, names = rate_laws_of(law), tuple(o.listed(covariates))
    settings = Settings(
        **({"laws": laws} if laws else {}),
        at=tuple(o.numbers(at, "--at", q.whole)) or None,
        targets=targets_of(target),
        holdout=holdout,
        pool=pool,
        covariates=names,
        limit=limit,
        sampler=q.sampler_of(draws, chains, warmup, lanes, tiers),
        seed=seed,
        plots=max_plots if plots else 0,
    )
    columns: dict[str, Any] = {
        "model": o.listed([model]), "problem": problem, "n": n, "correct": correct, "stopping": stopping,
        "cap": q.column_or_number(cap), "batch": batch, "covariates": list(names), "sep": o.separator(sep),
        "strict": strict, "max_bad_fraction": max_bad_fraction,
    }  # fmt: skip
    attempts = read_attempts(files, **columns)
    asked = {"files": [str(path) for path in files], **columns, "law": o.listed(law)}
    with progress() as report:
        outcome = run_coverage(
            attempts, settings, out=out, overwrite=overwrite, inputs=file_digests(files), arguments=asked, report=report
        )
    print_coverage(outcome)
    raise typer.Exit(q.exit_code(outcome))


def rate_laws_of(texts: Sequence[str] | None) -> tuple[RateLaw, ...]:
    """The laws of success rates named; none named, none returned."""
    from bayesscale.resampling.fitting import rate_law_named

    return tuple(rate_law_named(name) for name in o.listed(texts))


def targets_of(texts: Sequence[str] | None) -> tuple[Target, ...]:
    """The targets named, once each; by default `solved`."""
    from bayesscale.finding import InputError
    from bayesscale.resampling.forecast import Target

    named = tuple(dict.fromkeys(o.listed(texts))) or ("solved",)
    for name in named:
        if name not in get_args(Target):
            known = ", ".join(get_args(Target))
            raise InputError("PASSK-TARGET", f"--target {name!r} is unknown", fix=f"one of {known}")
    return cast("tuple[Target, ...]", named)
