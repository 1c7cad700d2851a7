"""`bayesscale simulate`: data whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from bayesscale.cli import options as o

if TYPE_CHECKING:
    import pandas as pd

    from bayesscale.simulation.resampling import Stopping

app = typer.Typer(help="Simulate data whose truth is known.", no_args_is_help=True, epilog=o.EXIT_CODES)
EPILOG = o.example(
    "bayesscale simulate icl --out curves.csv",
    "bayesscale simulate icl --kind collapse --sft 0,1000 --out curves.parquet",
)

RESAMPLING_EPILOG = o.example(
    "bayesscale simulate resampling --out attempts.csv",
    "bayesscale simulate resampling --stopping batch --batch 20 --n 2000 --out stopped.csv",
)
VERIFIER_EPILOG = o.example("bayesscale simulate verifier --labelled 0.5 --out verified.csv")
VOTES_EPILOG = o.example("bayesscale simulate votes --answers 5 --none 0.02 --out votes.parquet")
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Table to write, .csv or .parquet.")]
Seed = Annotated[int, typer.Option("--seed", min=0)]
Models = Annotated[int, typer.Option("--models", min=1, help="How many models, each better than the one before.")]
Problems = Annotated[int, typer.Option("--problems", min=1, help="How many problems.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the files if they exist.")]


@app.callback()
def options() -> None:
    """Simulate data whose truth is known."""


@app.command("icl", epilog=EPILOG)
def icl(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Table to write, .csv or .parquet.")],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    kind: Annotated[
        str, typer.Option("--kind", help="bayes, tempered, power, collapse or plateau_then_rise.")
    ] = "bayes",
    observation: Annotated[str, typer.Option("--observation", help="counts or nll.")] = "counts",
    models: Annotated[int, typer.Option("--models", min=1, help="How many models.")] = 2,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="How many tasks.")] = 3,
    sft: Annotated[str, typer.Option("--sft", metavar="N,...", help="Amounts of suppressing fine-tuning.")] = "0",
    shots: Annotated[
        str | None, typer.Option("--shots", metavar="N,...", help="Shot counts. (default: 0 to 1000)")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Replicate runs of each curve.")] = 5,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Items (nll: sequences).")] = 200,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files if they exist.")] = False,
) -> None:
    """In-context-learning curves. The truth goes beside FILE, with `-truth` in its name."""
    from bayesscale.cli.screen import say
    from bayesscale.finding import InputError
    from bayesscale.simulation.curves import SHOTS, Kind, simulate_icl

    for value, known, option in ((kind, get_args(Kind), "--kind"), (observation, ("counts", "nll"), "--observation")):
        if value not in known:
            raise InputError("OPTIONS", f"{option} {value!r} is unknown", fix="one of " + ", ".join(known))
    truth_file = check_files(out, overwrite=overwrite)
    grid = o.numbers([shots], "--shots", int) if shots else list(SHOTS)
    curves, truth = simulate_icl(
        seed,
        models=[f"model-{i + 1}" for i in range(models)],
        tasks=[f"task-{i + 1}" for i in range(tasks)],
        sft_amounts=o.numbers([sft], "--sft", float),
        shots=grid,
        kind=kind,  # pyright: ignore[reportArgumentType]
        observation=observation,  # pyright: ignore[reportArgumentType]
        runs=runs,
        trials=trials,
    )
    write(curves, out)
    write(truth, truth_file)
    columns = "--nll nll --se nll_se" if observation == "nll" else "--successes correct --trials trials --run run"
    say(f"{len(truth)} curves, {len(curves)} rows in {out}; the truth is in {truth_file}. Next:")
    say(f"  bayesscale fit {out} --curve model,task --condition sft_amount --x shots {columns} --out results")


@app.command("resampling", epilog=RESAMPLING_EPILOG)
def resampling(
    out: Out,
    seed: Seed = 0,
    models: Models = 2,
    problems: Problems = 100,
    n: Annotated[int, typer.Option("--n", min=1, help="Samples per problem; the cap unless fixed.")] = 100,
    mean: Annotated[float, typer.Option("--mean", help="Mean success rate of the first model.")] = 0.01,
    tail: Annotated[float, typer.Option("--tail", help="Tail index: smaller for more very hard problems.")] = 0.3,
    stopping: Annotated[str, typer.Option("--stopping", help="fixed, first_success, batch or capped.")] = "fixed",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples drawn at once, under batch.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Counts of correct samples, success rates from Beta laws. The truth goes beside FILE, with `-truth` in its name."""
    from bayesscale.simulation.resampling import SuccessLaw, simulate_attempts

    truth_file = check_files(out, overwrite=overwrite)
    laws = {f"model-{i + 1}": SuccessLaw(better(mean, i), tail) for i in range(models)}
    table, truth = simulate_attempts(
        seed, models=laws, problems=problems, n=n, stopping=known_design(stopping), batch=batch
    )
    table = table.drop(columns="cap") if stopping == "fixed" else table
    write(table, out)
    write(truth, truth_file)
    design = "" if stopping == "fixed" else f" --stopping {stopping} --cap cap"
    design += f" --batch {batch}" if stopping == "batch" else ""
    say_next(table, out, truth_file, f"passk {out} {ROLES} --n n --correct n_correct{design}")


@app.command("verifier", epilog=VERIFIER_EPILOG)
def verifier(
    out: Out,
    seed: Seed = 0,
    models: Models = 2,
    problems: Problems = 150,
    n: Annotated[int, typer.Option("--n", min=1, help="Samples per problem.")] = 200,
    labelled: Annotated[
        float, typer.Option("--labelled", help="Share of accepted samples whose truth is known.")
    ] = 1.0,
    overwrite: Overwrite = False,
) -> None:
    """Samples judged by an imperfect verifier. The truth goes beside FILE, with `-truth` in its name."""
    from bayesscale.simulation.resampling import VerifierLaw, simulate_verifier

    truth_file = check_files(out, overwrite=overwrite)
    laws = [VerifierLaw(f"model-{i + 1}", acceptance=float(i), share=1.5 + 0.7 * i) for i in range(models)]
    table, truth = simulate_verifier(seed, models=laws, problems=problems, n=n, labelled=labelled)
    write(table, out)
    write(truth, truth_file)
    roles = (
        "--n n --correct n_correct --accepted n_accepted --labelled n_labelled --correct-accepted n_correct_accepted"
    )
    say_next(table, out, truth_file, f"verifier {out} {ROLES} {roles} --cost 2")


@app.command("votes", epilog=VOTES_EPILOG)
def votes(
    out: Out,
    seed: Seed = 0,
    models: Models = 2,
    problems: Problems = 100,
    n: Annotated[int, typer.Option("--n", min=1, help="Votes per problem.")] = 16,
    answers: Annotated[int, typer.Option("--answers", min=2, max=26, help="Options of a problem.")] = 4,
    none: Annotated[float, typer.Option("--none", help="Share of samples without an answer.")] = 0.0,
    overwrite: Overwrite = False,
) -> None:
    """Votes over the options of multiple choice. The truth goes beside FILE, with `-truth` in its name."""
    from bayesscale.simulation.resampling import SuccessLaw, simulate_votes

    truth_file = check_files(out, overwrite=overwrite)
    laws = {f"model-{i + 1}": SuccessLaw(better(0.5, i), 1.0) for i in range(models)}
    table, truth = simulate_votes(seed, models=laws, problems=problems, n=n, answers=answers, none=none)
    write(table, out)
    write(truth, truth_file)
    columns = ",".join(f"votes_{chr(ord('a') + i)}" for i in range(answers))
    say_next(table, out, truth_file, f"votes {out} {ROLES} --votes {columns} --none votes_none --target target")


ROLES = "--model model --problem problem"


def better(rate: float, steps: int) -> float:
    """A success rate with its odds tripled so many times."""
    odds = rate / (1 - rate) * 3.0**steps
    return odds / (1 + odds)


def known_design(stopping: str) -> Stopping:
    """The stopping design of this name."""
    from bayesscale.finding import InputError
    from bayesscale.simulation.resampling import Stopping

    if stopping not in get_args(Stopping):
        known = ", ".join(get_args(Stopping))
        raise InputError("OPTIONS", f"--stopping {stopping!r} is unknown", fix=f"one of {known}")
    return cast("Stopping", stopping)


def say_next(table: pd.DataFrame, out: Path, truth: Path, command: str) -> None:
    """Say what was written, and the command that fits it."""
    from bayesscale.cli.screen import say

    say(f"{table['model'].nunique()} models, {len(table)} rows in {out}; the truth is in {truth}. Next:")
    say(f"  bayesscale {command} --out results")


def check_files(out: Path, *, overwrite: bool) -> Path:
    """Refuse a table's file or that of its truth; returns the latter."""
    truth = out.with_name(f"{out.stem}-truth{out.suffix}")
    for path in (out, truth):
        check_file(path, overwrite=overwrite)
    return truth


def check_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a file name that is taken, or whose format is not one of ours."""
    from bayesscale.finding import InputError

    if path.suffix not in (".csv", ".parquet"):
        raise InputError(
            "OPTIONS", f"the format {path.suffix!r} is unknown", where=str(path), fix="end in .csv or .parquet"
        )
    if path.exists() and not overwrite:
        raise InputError("OUT-EXISTS", "the file exists", where=str(path), fix="name another, or pass --overwrite")


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table in the format of its name; the same table gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
