"""`bayesscale fit`: tables in, a folder of checked and compared posteriors out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bayesscale.cli import options as o
from bayesscale.cli.sampling import given

if TYPE_CHECKING:
    from bayesscale.batch.execution import Execution, Shared
    from bayesscale.batch.loop import Interrupted
    from bayesscale.batch.place import Place
    from bayesscale.curves import Curves
    from bayesscale.runs.outcome import Outcome
    from bayesscale.runs.settings import Settings

FAILED_FITS, NOTHING_FITTED, INTERRUPTED = 4, 5, 130
PLAN_SHOWN = 40
EPILOG = o.example(
    "bayesscale fit accuracy.csv --curve model,task --run run --chance 0.25 \\",
    "    --x shots --successes correct --trials n --holdout 0.5 --out results",
    "bayesscale fit nll.parquet --curve model,task --x shots \\",
    "    --nll nll --se nll_se --law tempered --law mylaws.py:my_law --out results",
)


MERGE_EPILOG = o.example("bayesscale merge results")


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
            help="Forecast from all curves together too (default: where curves have siblings and are at most 64).",
            rich_help_panel=o.MODEL,
        ),
    ] = None,
    loo: Annotated[
        bool, typer.Option("--loo/--no-loo", help="Estimate leave-one-out.", rich_help_panel=o.MODEL)
    ] = True,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed.", rich_help_panel=o.SAMPLING)] = 0,
    draws: Annotated[
        int | None,
        typer.Option(
            "--draws",
            min=20,
            help="Draws per chain: 1000, or 500 with --no-discrepancy, unless given.",
            rich_help_panel=o.SAMPLING,
        ),
    ] = None,
    chains: Annotated[int, typer.Option("--chains", min=2, help="Chains.", rich_help_panel=o.SAMPLING)] = 4,
    warmup: Annotated[str | None, typer.Option("--warmup", metavar="N,...", hidden=True)] = None,
    lanes: Annotated[int | None, typer.Option("--lanes", min=2, hidden=True)] = None,
    tiers: Annotated[int | None, typer.Option("--tiers", min=0, hidden=True)] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw pictures.", rich_help_panel=o.OUTPUT)] = True,
    max_plots: Annotated[
        int, typer.Option("--max-plots", min=1, help="Curves to draw at most.", rich_help_panel=o.OUTPUT)
    ] = 12,
    keep: Annotated[
        str,
        typer.Option(
            "--keep", help="thinned draws of every fit, all draws, or summary alone.", rich_help_panel=o.OUTPUT
        ),
    ] = "thinned",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where --out holds a run.", rich_help_panel=o.OUTPUT)
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume", help="Go on with a run of the same plan at --out.", rich_help_panel=o.OUTPUT
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan; fit nothing.", rich_help_panel=o.BATCH)
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=0, metavar="N", help="Local processes (Dask).", rich_help_panel=o.BATCH)
    ] = 0,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler.", rich_help_panel=o.BATCH),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Only this part of the work, for job arrays; then bayesscale merge.",
            rich_help_panel=o.BATCH,
        ),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            min=1,
            metavar="N",
            help="Curves fitted and stored together; default: an eighth of them, 128 to 512.",
            rich_help_panel=o.BATCH,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Progress and outcome as lines of JSON on stdout.", rich_help_panel=o.BATCH)
    ] = False,
) -> None:
    """Fit laws to every curve, score them on shots they did not see, and write posteriors, tables and plots.

    A run that is stopped keeps what it has; the same command goes on from there.
    """
    from bayesscale.batch.loop import Interrupted
    from bayesscale.batch.place import Place, check_place
    from bayesscale.cli.watching import warn, watching
    from bayesscale.ingest.table import file_digests, read_curves

    execution = execution_of(workers, scheduler, shard)
    place = Place(out, execution.shard)
    if not dry_run:
        check_place(place, overwrite=overwrite, resume=resume)
    shares = o.shares_of(holdout) if holdout else (0.5,)
    columns = o.columns_of(
        curve=curve, x=x, successes=successes, trials=trials, nll=nll, prob=prob, se=se, run=run, condition=condition,
        chance=chance, shot_offset=shot_offset, covariates=covariate, sep=sep, strict=strict,
        max_bad_fraction=max_bad_fraction,
    )  # fmt: skip
    curves = read_curves(files, **columns)
    from bayesscale.inference.settings import Sampler
    from bayesscale.runs.job import run as run_all
    from bayesscale.runs.settings import Settings

    settings = Settings(
        laws=tuple(o.laws_of(law)),
        shares=shares,
        likelihood=likelihood,
        discrepancy=discrepancy,
        task_key=task_key,
        pool=pool,
        sampler=replace(Sampler.default(departs=discrepancy), **given(draws, chains, warmup, lanes, tiers)),
        seed=seed,
        leave_one_out=loo,
        keep=keep,  # pyright: ignore[reportArgumentType]
        chunk=chunk,
        plots=max_plots if plots else 0,
    )
    if dry_run:
        print_plan(curves, settings, place)
        return
    asked = {"files": [str(path) for path in files], **columns, "law": o.listed(law)}
    try:
        with watching(as_json=as_json) as (watch, report):
            outcome = run_all(
                curves,
                settings,
                out=out,
                overwrite=overwrite,
                resume=resume,
                execution=execution,
                inputs=file_digests(files),
                arguments=asked,
                watch=watch,
                report=report,
                warn=warn,
            )
    except Interrupted as stopped:
        say_stopped(stopped, out, overwrite=overwrite)
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(say_end(outcome, as_json=as_json))


def execution_of(workers: int, scheduler: str | None, shard: str | None) -> Execution:
    """Where the work is carried out; one way at a time."""
    from bayesscale.batch.execution import Execution
    from bayesscale.finding import InputError

    if (workers > 0) + (scheduler is not None) + (shard is not None) > 1:
        raise InputError("OPTIONS", "--workers, --scheduler and --shard exclude one another")
    return Execution(workers, scheduler, None if shard is None else o.shard_of(shard))


def print_plan(curves: Curves, settings: Settings, place: Place) -> None:
    """Say what would be fitted, and whether it goes on with what is there."""
    from bayesscale.batch.place import read_plan
    from bayesscale.batch.plan import changes
    from bayesscale.cli.screen import say, show
    from bayesscale.runs.planning import chosen_likelihood, plan_run

    plan = plan_run(curves, settings, chosen_likelihood(curves, settings))
    rows = [
        [str(i), c.kind, c.law, str(len(c.units)), str(len(c.curves)), str(c.width or "-"), c.id[:12]]
        for i, c in enumerate(plan.chunks[:PLAN_SHOWN])
    ]
    columns = [("chunk", "right"), ("kind", "left"), ("law", "left"), ("units", "right"), ("curves", "right")]
    title = f"Plan: {len(curves)} curves x {len(settings.laws)} laws = {plan.fits} fits in {len(plan.chunks)} chunks"
    show(title, [*columns, ("rows", "right"), ("id", "left")], rows)
    if len(plan.chunks) > PLAN_SHOWN:
        say(f"... and {len(plan.chunks) - PLAN_SHOWN} more chunks")
    if place.started:
        said = changes(read_plan(place), plan)
        say(
            f"{place.out} holds a run of "
            + (f"another plan: {'; '.join(said)}" if said else "this plan: it would go on.")
        )
    say("Nothing was fitted.")


def say_stopped(stopped: Interrupted, out: Path, *, overwrite: bool) -> None:
    """Say what was kept and how to go on."""
    import sys

    done, total = (stopped.args + (0, 0))[:2]
    how = "the same command without --overwrite" if overwrite else "the same command"
    print(
        f"bayesscale: stopped; {done} of {total} chunks are done and kept in {out}. Go on with {how}.", file=sys.stderr
    )


def say_end(outcome: Outcome | Shared, *, as_json: bool) -> int:
    """Say how a run or a shard ended; returns the exit code."""
    import json

    from bayesscale.batch.execution import Shared
    from bayesscale.cli.printing import print_outcome
    from bayesscale.cli.screen import say

    if isinstance(outcome, Shared):
        if as_json:
            ends = {"event": "shard", "shard": outcome.shard.folder, "done": outcome.done, "missing": outcome.missing}
            print(json.dumps(ends))
        else:
            rest = f"{outcome.missing} chunks are still missing" if outcome.missing else "no chunk is missing"
            say(f"Shard {outcome.shard.folder}: its {outcome.done} chunks are done. In the whole run {rest}.")
            say(f"When all shards are done: bayesscale merge {outcome.folder}")
        return 0
    if as_json:
        print(json.dumps({"event": "finished", "folder": str(outcome.folder), **outcome.about}))
    else:
        print_outcome(outcome)
    return exit_code(outcome)


def merge(
    folder: Annotated[Path, typer.Argument(help="The --out of bayesscale fit --shard.")],
    law: Annotated[
        list[str] | None, typer.Option("--law", metavar="FILE:NAME", help="Laws of one's own that were fitted.")
    ] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw pictures.")] = True,
    max_plots: Annotated[int, typer.Option("--max-plots", min=1, help="Curves to draw at most.")] = 12,
) -> None:
    """Merge the results of shards into the tables, fits and plots of one run."""
    from bayesscale.cli.screen import progress
    from bayesscale.runs.job import merge as merge_all

    own = tuple(o.own_law(name) for name in o.listed(law))
    with progress() as report:
        outcome = merge_all(folder, plots=max_plots if plots else 0, laws=own, report=report)
    raise typer.Exit(say_end(outcome, as_json=False))


def fitted(outcome: Outcome) -> bool:
    """Whether anything was fitted, well or not."""
    return any(outcome.counts[status] for status in ("ok", "warn", "fail"))


def exit_code(outcome: Outcome) -> int:
    """0, or 4 where a fit failed its checks, or 5 where nothing was fitted."""
    if not fitted(outcome):
        return NOTHING_FITTED
    return FAILED_FITS if outcome.counts["fail"] or outcome.holdout_failed else 0
