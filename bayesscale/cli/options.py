"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesscale.finding import InputError

if TYPE_CHECKING:
    from bayesscale.batch.place import Shard
    from bayesscale.law import Law

EXIT_CODES = """\b
Exit codes:
  0  all good
  1  an error of ours; the traceback is kept
  2  usage: an option is wrong, or --out is in use
  3  bad input: a file cannot be used
  4  some fits failed their checks (results are written)
  5  nothing could be fitted
  130  stopped by a signal; the same command goes on"""
DATA, MODEL, SAMPLING, OUTPUT = "What the columns are", "What is fitted", "Sampling", "Output"
BATCH = "Large and shared runs"


def example(*lines: str) -> str:
    """The end of a command's help: examples, then the exit codes."""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines), "", EXIT_CODES])


Files = Annotated[list[Path], typer.Argument(help="CSV, TSV or Parquet tables that share the named columns.")]
Curve = Annotated[
    str, typer.Option("--curve", metavar="COL,...", help="Columns that together name a curve.", rich_help_panel=DATA)
]
X = Annotated[str, typer.Option("--x", metavar="COL", help="Shots.", rich_help_panel=DATA)]
Successes = Annotated[
    str | None, typer.Option("--successes", metavar="COL", help="Right answers (counts).", rich_help_panel=DATA)
]
Trials = Annotated[str | None, typer.Option("--trials", metavar="COL", help="Out of how many.", rich_help_panel=DATA)]
Nll = Annotated[
    str | None, typer.Option("--nll", metavar="COL", help="Mean NLL in nats, instead.", rich_help_panel=DATA)
]
Prob = Annotated[
    str | None,
    typer.Option("--prob", metavar="COL", help="Mean probability of the right answer, instead.", rich_help_panel=DATA),
]
Se = Annotated[
    str | None, typer.Option("--se", metavar="COL", help="Standard error of --nll or --prob.", rich_help_panel=DATA)
]
Run = Annotated[
    str | None, typer.Option("--run", metavar="COL", help="Replicate runs of a curve.", rich_help_panel=DATA)
]
Condition = Annotated[
    str | None,
    typer.Option(
        "--condition", metavar="COL", help="What was done to the model; joins the name.", rich_help_panel=DATA
    ),
]
Chance = Annotated[
    str | None,
    typer.Option(
        "--chance", metavar="COL|VALUE", help="Accuracy of guessing: a column or a number.", rich_help_panel=DATA
    ),
]
ShotOffset = Annotated[
    float, typer.Option("--shot-offset", help="Added to --x to give demonstrations already seen.", rich_help_panel=DATA)
]
Covariates = Annotated[
    list[str] | None,
    typer.Option("--covariate", metavar="COL", help="Numeric columns constant within a curve.", rich_help_panel=DATA),
]
Sep = Annotated[
    str | None,
    typer.Option("--sep", help="Separator of text files (default: comma; tab for .tsv).", rich_help_panel=DATA),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse the input at its first bad row.", rich_help_panel=DATA)]
MaxBad = Annotated[
    float,
    typer.Option("--max-bad-fraction", help="Refuse the input if more of its rows are bad.", rich_help_panel=DATA),
]


def listed(texts: Sequence[str] | None) -> list[str]:
    """The items of an option that may be repeated, or hold several separated by commas."""
    return [item.strip() for text in texts or () for item in text.split(",") if item.strip()]


def numbers[Number: (int, float)](
    texts: Sequence[str] | None, option: str, to: Callable[[str], Number]
) -> list[Number]:
    """The numbers of such an option."""
    try:
        return [to(text) for text in listed(texts)]
    except ValueError:
        kind = "numbers" if to is float else "whole numbers"
        raise InputError(
            "OPTIONS", f"{option} takes {kind} separated by commas, got {','.join(texts or ())!r}"
        ) from None


def shares_of(texts: Sequence[str] | None) -> tuple[float, ...]:
    """Training shares, ascending; `none` for no hold-out."""
    if listed(texts) == ["none"]:
        return ()
    return tuple(sorted(set(numbers(texts, "--holdout", float))))


def shard_of(text: str) -> Shard:
    """A shard as typed, I/N; I counts from 0 or from 1, as the job array does."""
    from bayesscale.batch.place import Shard

    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 0 <= int(number) <= int(of) and int(of) > 0):
        raise InputError("OPTIONS", f"--shard takes I/N with 0 <= I <= N, got {text!r}", fix="for example --shard 1/4")
    return Shard(int(number) % int(of), int(of))


def chance_of(text: str | None) -> str | float | None:
    """A number, or else a column's name."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def separator(text: str | None) -> str | None:
    """A separator as typed: a backslash and a t stand for a tab."""
    return "\t" if text == "\\t" else text


def columns_of(
    *, curve: str, x: str, successes: str | None, trials: str | None, nll: str | None, prob: str | None, se: str | None,
    run: str | None, condition: str | None, chance: str | None, shot_offset: float, covariates: Sequence[str] | None,
    sep: str | None, strict: bool, max_bad_fraction: float,
) -> dict[str, Any]:  # fmt: skip
    """Options about columns, as `read_curves` takes them."""
    return {
        "curve": listed([curve]), "x": x, "successes": successes, "trials": trials, "nll": nll, "prob": prob, "se": se,
        "run": run, "condition": condition, "chance": chance_of(chance), "shot_offset": shot_offset,
        "covariates": listed(covariates), "sep": separator(sep), "strict": strict, "max_bad_fraction": max_bad_fraction,
    }  # fmt: skip


# Laws -----------------------------------------------------------------------------------------------------------------


def laws_of(texts: Sequence[str] | None) -> list[Law]:
    """The laws named: from the table, or `file.py:name` for one of the user's own. None named: the default laws."""
    from bayesscale.fitting import law_named
    from bayesscale.laws import DEFAULT_LAWS

    return [own_law(name) if ".py:" in name else law_named(name) for name in listed(texts) or DEFAULT_LAWS]


def own_law(spec: str) -> Law:
    """Load a `Law` from a Python file, given as `file.py:name`. The file is run.

    Raises
    ------
    InputError : no such file, it does not run, or it holds no such law; or its name belongs to a law of the table.
    """
    import runpy

    from bayesscale.law import Law
    from bayesscale.laws import LAWS

    path, _, name = spec.rpartition(":")
    if not Path(path).is_file():
        raise InputError("LAW-FILE", "there is no such file", where=path, fix="give file.py:name_of_the_law")
    try:
        found = runpy.run_path(path)
    except Exception as error:
        raise InputError("LAW-FILE", f"the file does not run ({type(error).__name__}: {error})", where=path) from error
    if not isinstance(found.get(name), Law):
        known = ", ".join(key for key, value in found.items() if isinstance(value, Law)) or "none"
        raise InputError("LAW-FILE", f"{name!r} is no Law there", where=path, fix=f"the laws it defines: {known}")
    law: Law = found[name]
    if law.name in LAWS:
        raise InputError("LAW-FILE", f"the table already has a law called {law.name!r}", where=path, fix="rename yours")
    return law
