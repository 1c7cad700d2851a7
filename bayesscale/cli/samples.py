"""What `bayesscale verifier` and `bayesscale votes` say about a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayesscale.cli.coverage import MODELS_SHOWN, print_end, print_findings, quantiles, rest
from bayesscale.cli.screen import fixed, number, say, show
from bayesscale.resampling.vote_forecast import ESTIMANDS
from bayesscale.runs.results import Outcome
from bayesscale.runs.tables import rows_where

if TYPE_CHECKING:
    from bayesscale.resampling.verifier_fit import VerifierFit
    from bayesscale.resampling.vote_fit import VoteFit

ROWS_SHOWN = 40


# Verifier -------------------------------------------------------------------------------------------------------------


def print_verifier(outcome: Outcome[VerifierFit]) -> None:
    """Say how a run ended: the decision, accuracy, what it takes to reach others, findings, the folder."""
    tables = outcome.tables
    print_decisions(tables["decision"], outcome.about["stakes"])
    print_accuracy(outcome)
    if "reach" in tables:
        print_reach(tables["reach"])
    print_findings(tables["findings"])
    print_end(outcome)


def print_decisions(decisions: pd.DataFrame, stakes: Mapping[str, float]) -> None:
    """A row per model and population: what to do, what it costs not to know better, and where K* may lie."""
    rows = [
        [row["model"], row["population"], row["answer"], number(row["mean_utility"]), number(row["expected_regret"], 2),
         *(fixed(row[name]) for name in ("p_abstain", "p_finite", "p_infinite")), best(row)]
        for row in decisions.head(ROWS_SHOWN).to_dict("records")
    ]  # fmt: skip
    columns = [("model", "left"), ("problems", "left"), ("decision", "left"), ("utility", "right"), ("regret", "right")]
    columns += [("P(abstain)", "right"), ("P(finite)", "right"), ("P(no end)", "right"), ("K*, 90% interval", "left")]
    worth = f"right answer +{stakes['benefit']:g}, wrong -{stakes['false_positive']:g}, sample -{stakes['sample']:g}"
    show(f"How many samples K to draw at most ({worth}); utility and expected regret per problem", columns, rows)
    say("The optimum is often flat: K* may be uncertain where choosing among its values costs little (regret).\n")


def best(row: Mapping[Any, Any]) -> str:
    """The median of K* and its 90% interval."""
    return "{} ({} to {})".format(*(written(row[f"best_{name}"]) for name in ("median", "eti90_lower", "eti90_upper")))


def written(samples: float, infinite: str = "no end") -> str:
    """A number of samples, of which infinity is one."""
    return infinite if np.isinf(samples) else f"{samples:g}"


def print_accuracy(outcome: Outcome[VerifierFit]) -> None:
    """A row per model: one sample, several, and the ceilings."""
    table = outcome.tables["forecast"]
    population = outcome.about["populations"][0]
    own = rows_where(table, table["population"] == population)
    at = outcome.about["at"]
    shown = list(dict.fromkeys([at[0], *(k for k in (10, 100) if k in at), at[-1]]))
    rows = []
    for _, part in list(own.groupby("model_index", sort=False))[:MODELS_SHOWN]:
        right = rows_where(part, part["quantity"] == "accuracy").set_index("samples")
        given = rows_where(part, part["quantity"] == "accuracy_given_answer").set_index("samples")
        cells = [interval(right.loc[k]) for k in (*map(float, shown), np.inf)]
        ends = (fixed(given.loc[float(at[0]), "median"]), fixed(given.loc[np.inf, "median"]))
        rows.append([str(part["model"].iloc[0]), *cells, " to ".join(ends)])
    columns = [("model", "left"), *((f"K = {k:,}", "left") for k in shown), ("ceiling", "left")]
    what = {"these": "these problems", "new": "new problems"}[population]
    title = f"Accuracy of resampling over {what}; median and 90% equal-tailed interval{rest(outcome.fits)}"
    show(title, [*columns, (f"given an answer, K = {at[0]} to no end", "left")], rows)
    say()


def interval(row: Any, decimals: int = 3) -> str:
    """A median with its 90% interval."""
    ends = (fixed(row[name], decimals) for name in ("median", "eti90_lower", "eti90_upper"))
    return "{} ({} to {})".format(*ends)


def print_reach(reach: pd.DataFrame) -> None:
    """A row per model, population and accuracy to reach."""
    rows = [
        [row["model"], row["population"], number(row["mean_target"]), written(row["samples_median"], "never"),
         " to ".join(written(row[f"samples_eti90_{end}"], "never") for end in ("lower", "upper")), fixed(row["p_never"])]
        for row in reach.head(ROWS_SHOWN).to_dict("records")
    ]  # fmt: skip
    columns = [("model", "left"), ("problems", "left"), ("accuracy", "right"), ("samples, median", "right")]
    show(
        "Samples to be as accurate as the stronger model's one sample; 90% equal-tailed intervals",
        [*columns, ("90% interval", "left"), ("P(never)", "right")],
        rows,
    )
    say()


# Votes ----------------------------------------------------------------------------------------------------------------


def print_votes(outcome: Outcome[VoteFit]) -> None:
    """Say how a run ended: the vote against n, what the law learned, findings, the folder."""
    print_vote_forecasts(outcome)
    print_agreement(outcome)
    print_findings(outcome.tables["findings"])
    print_end(outcome)


def print_vote_forecasts(outcome: Outcome[VoteFit]) -> None:
    """A row per model: observed votes, then the forecast at a few n and without end."""
    forecast, observed = outcome.tables["forecast"], outcome.tables["observed"]
    sizes = outcome.about["at"]
    shown = [*map(float, dict.fromkeys([sizes[len(sizes) // 2], sizes[-1]])), np.inf]
    rows = []
    for i, part in list(forecast.groupby("model_index", sort=False))[:MODELS_SHOWN]:
        own, seen = part.set_index("n"), rows_where(observed, observed["model_index"] == i).iloc[0]
        cells = [str(part["model"].iloc[0]), str(seen["most_n"]), f"{seen['single']:.3f}, {seen['majority']:.3f}"]
        last = own.loc[np.inf]
        gain = f"{last['gain']:+.3f} ({last['gain_eti90_lower']:.3f} to {last['gain_eti90_upper']:.3f})"
        rows.append([*cells, *(mean_interval(own.loc[n]) for n in shown), gain, fixed(last["p_gain"])])
    columns = [("model", "left"), ("votes", "right"), ("seen: one, vote", "left")]
    columns += [(f"n = {n:,.0f}" if np.isfinite(n) else "no end", "left") for n in shown]
    columns += [("gain over one, no end", "left"), ("P(gain > 0)", "right")]
    what = ESTIMANDS[outcome.about["target"]]
    show(f"Vote: {what}; means and 90% equal-tailed intervals{rest(outcome.fits)}", columns, rows)
    say()


def mean_interval(row: Any) -> str:
    """The expected accuracy of a vote with its 90% interval."""
    return f"{fixed(row['majority'])} ({fixed(row['majority_eti90_lower'])} to {fixed(row['majority_eti90_upper'])})"


def print_agreement(outcome: Outcome[VoteFit]) -> None:
    """A row per model: success rate, how problems differ, how wrong votes agree, and where voting hurts."""
    problems = outcome.tables["problems"]
    rows = []
    for each in outcome.fits[:MODELS_SHOWN]:
        table = each.fit.summary().set_index("parameter")
        own = rows_where(problems, problems["model_index"] == each.index)
        names = ("success", "between", "wrong_agreement")
        rows.append(
            [each.fit.name, *(quantiles(table, name) for name in names), f"{own['hurts'].sum()}", str(len(own))]
        )
    columns = [("model", "left"), ("success rate", "left"), ("between problems", "left")]
    columns += [("wrong votes agree", "left"), ("voting hurts on", "right"), ("of", "right")]
    show(f"What the votes show; median and 90% equal-tailed interval{rest(outcome.fits)}", columns, rows)
    say("Between problems: share of the variance of a sample's success. Wrong votes agree: chance that two of them do.")
    say()
