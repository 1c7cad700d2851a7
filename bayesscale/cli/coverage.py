"""What `bayesscale passk` says about a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayesscale.cli.printing import GRADES, advice
from bayesscale.cli.screen import fixed, number, say, show
from bayesscale.runs.coverage import mean_scores
from bayesscale.runs.results import STATUSES, Outcome
from bayesscale.runs.tables import rows_where

if TYPE_CHECKING:
    from bayesscale.resampling.fitting import RateFit

MODELS_SHOWN, FINDINGS_SHOWN, ROWS_SHOWN = 12, 12, 40
ESTIMANDS = {
    "solved": "Share of these problems solved within their first k attempts, past ones included",
    "these": "Mean chance that k fresh attempts solve one of these problems",
    "population": "Mean chance that k attempts solve a problem of the population",
    "new": "Share of as many new problems solved within k attempts",
}
EMPIRICAL = ("unbiased", "kaplan-meier")


def print_coverage(outcome: Outcome[RateFit]) -> None:
    """Say how a run ended: forecasts with what other laws say, the rates, held-out scores, findings, the folder."""
    about, tables = outcome.about, outcome.tables
    print_models(outcome)
    for target in about["targets"]:
        print_forecasts(tables["forecast"], target, about["laws"][0])
    if "limit" in tables:
        print_limits(tables["limit"])
    if "comparison" in tables:
        print_scores(tables["comparison"], about["holdout"])
    print_findings(tables["findings"])
    print_end(outcome)


def print_models(outcome: Outcome[RateFit]) -> None:
    """A row per model: what was seen, and what the first law makes of it."""
    law = outcome.about["laws"][0]
    chosen = [each for each in outcome.fits if each.label == law]
    rows = []
    for each in chosen[:MODELS_SHOWN]:
        n, c = each.fit.attempts.n, each.fit.attempts.n_correct
        table = each.fit.summary().set_index("parameter")
        sampled = number(n.min(), 6) if n.min() == n.max() else f"{number(n.min(), 6)} to {number(n.max(), 6)}"
        cells = [each.fit.name, str(n.size), sampled, f"{(c > 0).sum()}", str(c.sum())]
        rows.append([*cells, *(quantiles(table, name) for name in ("mean", "tail_index")), each.fit.status])
    columns = [("model", "left"), ("problems", "right"), ("samples each", "right"), ("solved", "right")]
    columns += [("successes", "right"), ("pass@1", "left"), ("tail index", "left"), ("fit", "left")]
    show(f"Success rates under {law}; median and 90% equal-tailed interval{rest(chosen)}", columns, rows)
    say()


def quantiles(table: pd.DataFrame, name: str) -> str:
    """The median and 90% interval of one quantity."""
    if name not in table.index:
        return "-"
    row = table.loc[name]
    return f"{number(row['q50'])} ({number(row['q05'])} to {number(row['q95'])})"


def rest(items: Sequence[Any]) -> str:
    """Say that only the first models are shown, where it is so."""
    return f"; the first {MODELS_SHOWN} of {len(items)} models" if len(items) > MODELS_SHOWN else ""


def print_forecasts(forecasts: pd.DataFrame, target: str, law: str) -> None:
    """A row per model and k: the forecast, what the other laws say, and what the samples show without a law."""
    rates = rows_where(forecasts, forecasts["measure"] == "pass@k")
    own = rows_where(rates, (rates["estimand"] == target) & (rates["law"] == law))
    every = rows_where(rates, rates["estimand"] == target)
    others = [name for name in dict.fromkeys(every["law"]) if name != law]
    observed = rows_where(rates, rates["law"].isin(EMPIRICAL)).set_index(["model_index", "k"])
    medians = every.set_index(["law", "model_index", "k"])["median"]
    rows = []
    for row in own.head(ROWS_SHOWN).to_dict("records"):
        where = (row["model_index"], row["k"])
        interval = f"{fixed(row['eti90_lower'], 3)} to {fixed(row['eti90_upper'], 3)}"
        cells = [row["model"], f"{row['k']:,}", estimate(observed, where), fixed(row["median"], 3), interval]
        rows.append([*cells, *(fixed(medians.get((other, *where)), 3) for other in others), beyond(row)])
    columns = [("model", "left"), ("k", "right"), ("without a law", "left"), (law, "right"), ("90% interval", "left")]
    columns += [*((other, "right") for other in others), ("forecast for", "left")]
    title = f"{ESTIMANDS[target]}; medians, 90% equal-tailed posterior intervals"
    show(f"{title}; 'x n': beyond the most samples of any problem", columns, rows)
    if len(own) > len(rows):
        say(f"... and {len(own) - len(rows)} more rows, in forecast.parquet")
    say()


def estimate(observed: pd.DataFrame, where: tuple[int, int]) -> str:
    """The unbiased or Kaplan-Meier estimate with its 90% confidence interval; a dash beyond the samples."""
    if where not in observed.index:
        return "-"
    row = observed.loc[where]
    return f"{fixed(row['mean'], 3)} ({fixed(row['ci90_lower'], 3)} to {fixed(row['ci90_upper'], 3)})"


def beyond(row: Mapping[Any, Any]) -> str:
    """For how many problems a row is a forecast, and how far it lies beyond all samples."""
    far = f", {row['horizon']:.3g} x n" if row["extrapolated"] else ""
    if row["estimand"] == "solved":
        return f"{int(row['problems_open'])} problems{far}"
    return f"all{far}"


LIMITS = {"these": "these problems", "new": "as many new problems"}


def print_limits(limits: pd.DataFrame) -> None:
    """A row per model and estimand: pass@infinity under each prior."""
    priors = list(dict.fromkeys(limits["prior_logit_zero_mass"]))
    cells: dict[tuple[int, str], list[str]] = {}
    for row in limits.to_dict("records"):
        if row["estimand"] in LIMITS:
            where = row["model_index"], row["estimand"]
            cells.setdefault(where, [row["model"], LIMITS[row["estimand"]], row["status"]]).append(limit_cell(row))
    rows = [[model, words, *found, status] for model, words, status, *found in list(cells.values())[: 2 * MODELS_SHOWN]]
    columns = [("model", "left"), ("share of", "left"), *((prior, "left") for prior in priors), ("fit", "left")]
    models = len(set(limits["model_index"]))
    more = f"; the first {MODELS_SHOWN} of {models} models" if models > MODELS_SHOWN else ""
    title = (
        "pass@infinity: the share of problems that any number of samples solves, by prior of logit(share impossible)"
    )
    show(f"{title}; zero-inflated Beta, medians and 90% equal-tailed intervals{more}", columns, rows)
    say()


def limit_cell(row: Mapping[Any, Any]) -> str:
    return f"{fixed(row['median'], 2)} ({fixed(row['eti90_lower'], 2)} to {fixed(row['eti90_upper'], 2)})"


def print_scores(comparison: pd.DataFrame, n0: int) -> None:
    """Held-out scores: a row per k and predictor."""
    table = mean_scores(comparison)
    columns = [("k", "right"), ("predictor", "left"), ("CRPS", "right"), ("mean abs. error", "right")]
    columns += [("mean error", "right"), ("in 50%", "right"), ("in 90%", "right"), ("90% width", "right")]
    columns += [("models", "right")]
    rows = [
        [f"{row['k']:,}", row["predictor"], *(number(row[name]) for name in ("crps", "mae", "error")),
         *(fixed(row[name]) for name in ("covered50", "covered90")), number(row["width90"]), str(row["forecasts"])]
        for row in table.to_dict("records")
    ]  # fmt: skip
    title = f"Held out: trained on {n0} samples per problem, share solved within k forecast; equal-tailed intervals"
    show(title, columns, rows)
    say("Each row averages over models; few models tell little about which predictor is best.\n")


def print_findings(findings: pd.DataFrame) -> None:
    """Findings by code and grade, the gravest first; one line each."""
    if findings.empty:
        return
    kinds = [own for _, own in findings.groupby(["code", "grade"], sort=False)]
    kinds.sort(key=lambda own: (GRADES.index(own["grade"].iloc[0]), -len(own)))
    say("Findings")
    for own in kinds[:FINDINGS_SHOWN]:
        first = own.iloc[0]
        place = ", ".join(part for part in (first["model"], first["law"]) if part)
        often = f" ({len(own)} times)" if len(own) > 1 else ""
        message = f"{place}: {first['message']}.{advice(first['advice'])}".removeprefix(": ")
        say(f"  {first['grade'].upper()} {first['code']}{often}. {message}")
    if len(kinds) > FINDINGS_SHOWN:
        say(f"  ... and {len(kinds) - FINDINGS_SHOWN} more kinds, in findings.parquet")
    say()


def print_end(outcome: Outcome[Any]) -> None:
    """The account: every fit in one status, and where the results are."""
    counts = outcome.counts
    parts = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    say(f"{sum(counts.values())} fits: {parts}.")
    say(f"Results are in {outcome.folder} (its README.txt says what each file is).")
