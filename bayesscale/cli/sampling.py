"""Options that the commands about repeated samples share, and how their text becomes values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesscale.cli import options as o

if TYPE_CHECKING:
    from bayesscale.inference.settings import Sampler
    from bayesscale.runs.results import Outcome

FAILED_FITS = 4
FEW_LANES = 24

Model = Annotated[
    str, typer.Option("--model", metavar="COL,...", help="Columns that together name a model.", rich_help_panel=o.DATA)
]
Problem = Annotated[
    str, typer.Option("--problem", metavar="COL", help="Column that names the problem.", rich_help_panel=o.DATA)
]
N = Annotated[str, typer.Option("--n", metavar="COL", help="Samples drawn.", rich_help_panel=o.DATA)]
Correct = Annotated[
    str, typer.Option("--correct", metavar="COL", help="Correct samples among them.", rich_help_panel=o.DATA)
]
Stopping = Annotated[
    str,
    typer.Option(
        "--stopping",
        metavar="HOW|COL",
        help="fixed, first_success, batch or capped: what ended the sampling of a problem; or a column that says so.",
        rich_help_panel=o.DATA,
    ),
]
Cap = Annotated[
    str | None,
    typer.Option(
        "--cap", metavar="COL|N", help="The most samples a problem could get, unless fixed.", rich_help_panel=o.DATA
    ),
]
Batch = Annotated[
    int, typer.Option("--batch", min=1, help="Samples drawn at once, under batch.", rich_help_panel=o.DATA)
]
Covariates = Annotated[
    list[str] | None,
    typer.Option(
        "--covariates", metavar="COL,...", help="Numeric columns constant within a model.", rich_help_panel=o.DATA
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed.", rich_help_panel=o.SAMPLING)]
Draws = Annotated[int, typer.Option("--draws", min=20, help="Draws per chain.", rich_help_panel=o.SAMPLING)]
Chains = Annotated[int, typer.Option("--chains", min=2, help="Chains.", rich_help_panel=o.SAMPLING)]
Warmup = Annotated[str | None, typer.Option("--warmup", metavar="N,...", hidden=True)]
Lanes = Annotated[int | None, typer.Option("--lanes", min=2, hidden=True)]
Tiers = Annotated[int | None, typer.Option("--tiers", min=0, hidden=True)]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results.", rich_help_panel=o.OUTPUT)]
Plots = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw pictures.", rich_help_panel=o.OUTPUT)]
MaxPlots = Annotated[int, typer.Option("--max-plots", min=1, help="Models to draw at most.", rich_help_panel=o.OUTPUT)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier run at --out.", rich_help_panel=o.OUTPUT)
]


def exit_code(outcome: Outcome[Any]) -> int:
    """0, or 4 where a fit failed its checks."""
    return FAILED_FITS if outcome.counts["fail"] else 0


def whole(text: str) -> int:
    """A whole number as people write large ones: 10000 or 1e4."""
    value = float(text)
    if value != int(value):
        raise ValueError(text)
    return int(value)


def column_or_number(text: str | None) -> str | int | None:
    """A whole number, or else a column's name."""
    return int(text) if text is not None and text.isdecimal() else text


def given(draws: int | None, chains: int, warmup: str | None, lanes: int | None, tiers: int | None) -> dict[str, Any]:
    """The sampler's settings that were given."""
    phases = tuple(o.numbers([warmup], "--warmup", int)) if warmup else None
    named = {"draws": draws, "chains": chains, "lanes": lanes, "tiers": tiers, "warmup": phases}
    return {name: value for name, value in named.items() if value is not None}


def sampler_of(draws: int, chains: int, warmup: str | None, lanes: int | None, tiers: int | None) -> Sampler:
    """The sampler's settings, its defaults where an option was not given.

    Lanes are few, for every lane costs a gradient, empty ones among them, and tables often hold a handful of models.
    """
    from bayesscale.inference.settings import Sampler

    settings: dict[str, Any] = {"lanes": FEW_LANES} | given(draws, chains, warmup, lanes, tiers)
    return Sampler(**settings)
