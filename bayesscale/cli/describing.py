"""`bayesscale laws` and `bayesscale check`: what there is to fit, and what would be fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bayesscale.cli import options as o

if TYPE_CHECKING:
    from bayesscale.curves import Curves
    from bayesscale.finding import Finding
    from bayesscale.law import Law

LAWS_EPILOG = o.example("bayesscale laws", "bayesscale laws tempered power")
CHECK_EPILOG = o.example(
    "bayesscale check accuracy.csv --curve model,task --x shots --successes correct --trials n --run run"
)
CURVES_SHOWN = 20


def laws(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; default all.")] = None,
) -> None:
    """List the laws: equation, parameters with their meaning, what is reported, and where the law comes from."""
    from bayesscale.cli.screen import say
    from bayesscale.fitting import law_named
    from bayesscale.laws import DEFAULT_LAWS, LAWS

    chosen = [law_named(name) for name in names] if names else list(LAWS.values())
    for law in chosen:
        say("\n".join(law_lines(law, default=law.name in DEFAULT_LAWS)))


def law_lines(law: Law, *, default: bool) -> list[str]:
    """A law as text."""
    facts = [
        law.family,
        *(["all tasks of a model together"] if law.joint else []),
        *(["fitted by default"] if default else []),
    ]
    if law.singular_at_zero:
        facts.append("not at 0 shots")
    lines = [f"{law.name} ({', '.join(facts)})", f"  {law.equation}", "  parameters"]
    lines += [f"    {p.name} ({p.symbol}): {p.meaning}" for p in law.parameters]
    lines += ["  reported beside them"] if law.derived_meaning else []
    lines += [f"    {name}: {meaning}" for name, meaning in law.derived_meaning.items()]
    return [*lines, f"  {law.reference}", ""]


def check(
    files: o.Files,
    curve: o.Curve,
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
) -> None:
    """Say what was understood of the data. Nothing is fitted."""
    from bayesscale.cli.screen import say
    from bayesscale.ingest.table import read_curves

    columns = o.columns_of(
        curve=curve, x=x, successes=successes, trials=trials, nll=nll, prob=prob, se=se, run=run, condition=condition,
        chance=chance, shot_offset=shot_offset, covariates=covariate, sep=sep, strict=strict,
        max_bad_fraction=max_bad_fraction,
    )  # fmt: skip
    curves = read_curves(files, **columns)
    say("\n".join(data_lines(curves, len(files))))
    print_curve_table(curves)
    print_doubts([*curves.findings, *falls(curves)])


def data_lines(curves: Curves, files: int) -> list[str]:
    """What kind of data, how much of it."""
    import numpy as np

    kinds = {
        "counts": "counts (successes out of trials)",
        "prob_mean": "mean probabilities",
        "nll_mean": "mean NLLs, nats",
    }
    known = int(np.isfinite(curves.chance).sum())
    lines = [
        f"{len(curves)} curves, {curves.shots.size} rows, from {files} file{'s' * (files != 1)}",
        f"observation: {kinds[curves.kind]}",
        *(f"{name}: {labels(curves, j)}" for j, name in enumerate(curves.key_names)),
        f"shots: {curves.shots.min():g} to {curves.shots.max():g}",
        f"runs of a curve: up to {int(curves.run.max()) + 1}",
        f"chance level: known for {known} of {len(curves)} curves",
    ]
    lines += [f"covariate {name}: {values.min():g} to {values.max():g}" for name, values in curves.covariates.items()]
    return [*lines, ""]


def labels(curves: Curves, place: int, shown: int = 8) -> str:
    """The labels of one key."""
    found = list(dict.fromkeys(key[place] for key in curves.keys))
    more = f", ... ({len(found)} in all)" if len(found) > shown else ""
    return ", ".join(found[:shown]) + more


def print_curve_table(curves: Curves) -> None:
    """One row per curve: its shots, runs and values."""
    import numpy as np

    from bayesscale.cli.screen import number, show

    values = (
        curves.columns["successes"] / curves.columns["trials"] if curves.kind == "counts" else curves.columns["value"]
    )
    rows = []
    for i in range(min(len(curves), CURVES_SHOWN)):
        own = curves.curve == i
        shots = np.unique(curves.shots[own])
        first, last = (values[own & (curves.shots == n)].mean() for n in (shots[0], shots[-1]))
        runs = len(np.unique(curves.run[own]))
        cells = [
            curves.curve_name(i),
            str(int(own.sum())),
            str(len(shots)),
            f"{shots[0]:g} to {shots[-1]:g}",
            str(runs),
        ]
        rows.append([*cells, f"{number(first)} to {number(last)}", number(curves.chance[i])])
    rest = f", the first {CURVES_SHOWN} of {len(curves)}" if len(curves) > CURVES_SHOWN else ""
    columns = [("curve", "left"), ("rows", "right"), ("shot counts", "right"), ("shots", "left"), ("runs", "right")]
    show(f"Curves{rest}", [*columns, ("value, first to last", "left"), ("chance", "right")], rows)


def falls(curves: Curves) -> list[Finding]:
    """Curves that fall, which no law here can follow."""
    from dataclasses import replace

    from bayesscale.fitting import likelihood_for
    from bayesscale.gate import check_drop
    from bayesscale.units import units_of

    likelihood = likelihood_for(curves, None, discrepancy=False)
    units = units_of(curves, likelihood, joint=False)
    found = []
    for i, name in enumerate(units.names):
        columns = {column: values[i] for column, values in units.columns.items()}
        found += [replace(finding, where=name) for finding in check_drop(columns, curves.kind)]
    return found


def print_doubts(findings: list[Finding]) -> None:
    from bayesscale.cli.screen import finding_lines, say

    if not findings:
        say("\nNothing odd was found.")
        return
    say("\nFound")
    say("\n".join(finding_lines(findings)))
