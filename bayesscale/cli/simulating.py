"""`bayesscale simulate`: data whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from bayesscale.cli import options as o

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(help="Simulate data whose truth is known.", no_args_is_help=True, epilog=o.EXIT_CODES)
EPILOG = o.example(
    "bayesscale simulate icl --out curves.csv",
    "bayesscale simulate icl --kind collapse --sft 0,1000 --out curves.parquet",
)


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
    truth_file = out.with_name(f"{out.stem}-truth{out.suffix}")
    for path in (out, truth_file):
        check_file(path, overwrite=overwrite)
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
