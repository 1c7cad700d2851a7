"""`bayesscale demo`: the bundled data, from a table to an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayesscale.cli import options as o

EPILOG = o.example("bayesscale demo", "bayesscale demo --out demo-results")


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.")] = Path("demo-results"),
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--keep", help="Replace the results of an earlier run.")
    ] = True,
) -> None:
    """Fit simulated curves, some suppressed by fine-tuning, and say how many shots bring the behaviour back."""
    from bayesscale.cli.fitting import NOTHING_FITTED, fitted
    from bayesscale.cli.printing import print_outcome
    from bayesscale.cli.screen import progress, say
    from bayesscale.runs.demo import INTRODUCTION, answers, best_fits, demo_curves, demo_settings, draw_answer
    from bayesscale.runs.job import run
    from bayesscale.runs.outcome import Outcome

    curves, inputs = demo_curves()
    say(INTRODUCTION)
    with progress() as report:
        outcome = run(
            curves, demo_settings(seed), out=out, overwrite=overwrite, inputs=inputs,
            arguments={"command": "demo"}, report=report,
        )  # fmt: skip
    assert isinstance(outcome, Outcome)  # a shard was not asked for
    print_outcome(outcome)
    if fitted(outcome):
        best = best_fits(outcome)
        say("\n" + "\n".join(answers(best)))
        picture = draw_answer(best, out / "plots" / "answer.png")
        say(f"\nPicture: {picture}. Ask more: bayesscale predict {out} --at 2000")
    raise typer.Exit(0 if fitted(outcome) else NOTHING_FITTED)
