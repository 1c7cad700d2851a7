"""`bayesscale verifier` and `votes`: repeated samples in, forecasts and decisions out."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from bayesscale.cli import options as o
from bayesscale.cli import sampling as q

VERIFIER_EPILOG = o.example(
    "bayesscale verifier data/resampling_counts/verified.csv --model model --problem problem \\",
    "    --n n --correct n_correct --accepted n_accepted --correct-accepted n_correct_accepted \\",
    "    --benefit 1 --cost 2 --sample-cost 0.01 --stronger 0.8 --out verifier-results",
)
VOTES_EPILOG = o.example(
    "bayesscale votes data/resampling_counts/votes.csv --model model --problem problem \\",
    "    --votes votes_a,votes_b,votes_c,votes_d --none votes_none --n n --target target \\",
    "    --at 1,2,4,8,16,32 --out votes-results",
)


def verifier(
    files: o.Files,
    model: q.Model,
    problem: q.Problem,
    n: q.N,
    correct: q.Correct,
    accepted: Annotated[
        str, typer.Option("--accepted", metavar="COL", help="Samples the verifier accepted.", rich_help_panel=o.DATA)
    ],
    correct_accepted: Annotated[
        str,
        typer.Option("--correct-accepted", metavar="COL", help="Correct ones among these.", rich_help_panel=o.DATA),
    ],
    out: q.Out,
    labelled: Annotated[
        str | None,
        typer.Option(
            "--labelled",
            metavar="COL",
            help="Accepted samples whose truth is known. (default: all)",
            rich_help_panel=o.DATA,
        ),
    ] = None,
    stopping: q.Stopping = "fixed",
    cap: q.Cap = None,
    batch: q.Batch = 1,
    covariates: q.Covariates = None,
    sep: o.Sep = None,
    strict: o.Strict = False,
    max_bad_fraction: o.MaxBad = 0.05,
    benefit: Annotated[
        float, typer.Option("--benefit", help="Gained by a right answer.", rich_help_panel=o.MODEL)
    ] = 1.0,
    cost: Annotated[
        float, typer.Option("--cost", help="Lost by a wrong answer that was accepted.", rich_help_panel=o.MODEL)
    ] = 1.0,
    sample_cost: Annotated[
        float, typer.Option("--sample-cost", help="Cost of one sample.", rich_help_panel=o.MODEL)
    ] = 0.0,
    stronger: Annotated[
        list[str] | None,
        typer.Option(
            "--stronger",
            metavar="ACC,...",
            help="Accuracies to reach, such as one sample of a stronger model.",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="K,...",
            help="Numbers of samples to forecast at. (default: 1 to 1000)",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    max_samples: Annotated[
        int | None,
        typer.Option(
            "--max-samples", min=1, help="The most samples considered. (default: any)", rich_help_panel=o.MODEL
        ),
    ] = None,
    seed: q.Seed = 0,
    draws: Annotated[int, typer.Option("--draws", min=20, help="Draws per chain.", rich_help_panel=o.SAMPLING)] = 500,
    chains: q.Chains = 4,
    warmup: q.Warmup = None,
    lanes: q.Lanes = None,
    tiers: q.Tiers = None,
    plots: q.Plots = True,
    max_plots: q.MaxPlots = 6,
    overwrite: q.Overwrite = False,
) -> None:
    """Say how accurate resampling until a verifier accepts can get, and how many samples are worth drawing."""
    from dataclasses import replace
    from math import inf

    from bayesscale.cli.samples import print_verifier
    from bayesscale.cli.screen import progress
    from bayesscale.ingest.attempts import read_attempts
    from bayesscale.ingest.table import file_digests
    from bayesscale.resampling.verifier import Stakes
    from bayesscale.resampling.verifier_fit import AT, VERIFIER_SAMPLER
    from bayesscale.runs.folder import check_folder
    from bayesscale.runs.verifier import Settings, run_verifier

    check_folder(out, overwrite=overwrite)
    settings = Settings(
        stakes=Stakes(benefit, cost, sample_cost),
        stronger=tuple(o.numbers(stronger, "--stronger", float)),
        at=tuple(sorted(set(o.numbers(at, "--at", q.whole)))) or AT,
        cap=inf if max_samples is None else max_samples,
        sampler=replace(VERIFIER_SAMPLER, **q.given(draws, chains, warmup, lanes, tiers)),
        seed=seed,
        plots=max_plots if plots else 0,
    )
    columns: dict[str, Any] = {
        "model": o.listed([model]), "problem": problem, "n": n, "correct": correct, "accepted": accepted,
        "labelled": labelled, "correct_accepted": correct_accepted, "stopping": stopping, "cap": q.column_or_number(cap),
        "batch": batch, "covariates": o.listed(covariates), "sep": o.separator(sep), "strict": strict,
        "max_bad_fraction": max_bad_fraction,
    }  # fmt: skip
    attempts = read_attempts(files, **columns)
    asked = {"files": [str(path) for path in files], **columns}
    with progress() as report:
        outcome = run_verifier(
            attempts, settings, out=out, overwrite=overwrite, inputs=file_digests(files), arguments=asked, report=report
        )
    print_verifier(outcome)
    raise typer.Exit(q.exit_code(outcome))


def votes(
    files: o.Files,
    model: q.Model,
    problem: q.Problem,
    columns: Annotated[
        str,
        typer.Option(
            "--votes", metavar="COL,...", help="Columns of the votes for each answer.", rich_help_panel=o.DATA
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="COL",
            help="Names the right answer: a column of votes, or what follows their common prefix.",
            rich_help_panel=o.DATA,
        ),
    ],
    out: q.Out,
    n: Annotated[
        str | None, typer.Option("--n", metavar="COL", help="Samples drawn, to check.", rich_help_panel=o.DATA)
    ] = None,
    none: Annotated[
        str | None, typer.Option("--none", metavar="COL", help="Samples without an answer.", rich_help_panel=o.DATA)
    ] = None,
    correct: Annotated[
        str | None, typer.Option("--correct", metavar="COL", help="Correct samples, to check.", rich_help_panel=o.DATA)
    ] = None,
    available: Annotated[
        str | None,
        typer.Option("--available", metavar="COL", help="0 or false for rows without votes.", rich_help_panel=o.DATA),
    ] = None,
    sep: o.Sep = None,
    strict: o.Strict = False,
    max_bad_fraction: o.MaxBad = 0.05,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at", metavar="N,...", help="Numbers of votes. (default: 1,2,4,8,16,32,64)", rich_help_panel=o.MODEL
        ),
    ] = None,
    of: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="NAME",
            help="these: n fresh votes on these problems, expected; realised: one set of them; continued: past votes "
            "and more; new: on new problems.",
            rich_help_panel=o.MODEL,
        ),
    ] = "these",
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
    """Forecast the accuracy of the most frequent answer among n samples, and whether voting pays."""
    from bayesscale.cli.samples import print_votes
    from bayesscale.cli.screen import progress
    from bayesscale.ingest.table import file_digests
    from bayesscale.ingest.votes import read_votes
    from bayesscale.runs.folder import check_folder
    from bayesscale.runs.votes import Settings, run_votes

    check_folder(out, overwrite=overwrite)
    sizes = tuple(sorted(set(o.numbers(at, "--at", q.whole))))
    settings = Settings(
        **({"at": sizes} if sizes else {}),
        target=cast(Any, of),
        sampler=q.sampler_of(draws, chains, warmup, lanes, tiers),
        seed=seed,
        plots=max_plots if plots else 0,
    )
    named: dict[str, Any] = {
        "model": o.listed([model]), "problem": problem, "votes": o.listed([columns]), "target": target, "n": n,
        "none": none, "correct": correct, "available": available, "sep": o.separator(sep), "strict": strict,
        "max_bad_fraction": max_bad_fraction,
    }  # fmt: skip
    found = read_votes(files, **named)
    asked = {"files": [str(path) for path in files], **named}
    with progress() as report:
        outcome = run_votes(
            found, settings, out=out, overwrite=overwrite, inputs=file_digests(files), arguments=asked, report=report
        )
    print_votes(outcome)
    raise typer.Exit(q.exit_code(outcome))
