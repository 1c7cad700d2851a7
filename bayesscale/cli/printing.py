"""What `fit`, `compare` and `demo` say about a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayesscale.cli.screen import fixed, number, say, show
from bayesscale.comparison import METRICS, Comparison
from bayesscale.finding import InputError
from bayesscale.runs.stored import POINTS
from bayesscale.runs.tables import STATUSES, count_statuses, rows_where
from bayesscale.runs.verdict import verdict

if TYPE_CHECKING:
    from bayesscale.runs.outcome import Outcome

CURVES_SHOWN, FINDINGS_SHOWN = 20, 12
HEADLINE = ("DROP",)
"""Codes shown before all others."""
GRADES = ("fail", "warn", "info")
METRIC_NAMES = {"crps": "CRPS", "log_score": "log score", "nrmse": "NRMSE"}


def print_outcome(outcome: Outcome) -> None:
    """Say how a run ended: verdict, laws, curves, findings, and where everything is."""
    comparison, about = outcome.table("comparison"), outcome.about
    print_verdicts(comparison, outcome.table("forecasts", POINTS), about["key_names"], about["shares"])
    print_laws(comparison)
    print_curves(comparison)
    print_findings(outcome.table("findings"))
    print_counts(about)
    say(f"Results are in {outcome.folder} (its README.txt says what each file is).")


def print_verdicts(
    scores: pd.DataFrame, points: pd.DataFrame, key_names: Sequence[str], shares: Sequence[float], metric: str = "crps"
) -> None:
    """The comparison at each share, or why there is none."""
    if not shares:
        say("Nothing was held out, so laws are not compared by prediction.\n")
    for share in shares:
        try:
            print_comparison(verdict(scores, points, key_names, share=share, metric=metric), scores)
        except InputError as error:
            say(f"Trained on the first {share:.0%}: no comparison, {error.finding.message}.\n")


def left_out(found: Comparison, scores: pd.DataFrame) -> str:
    """Say how many curves the comparison leaves out: those that some law did not forecast."""
    all_curves, compared = scores["curve_index"].nunique(), int(found.table["n_curves"].iloc[0])
    if compared == all_curves:
        return ""
    return f"{all_curves - compared} of {all_curves} curves are left out: too short, or without a forecast by some law."


def print_comparison(found: Comparison, scores: pd.DataFrame) -> None:
    """One comparison: the sentence, then a row per law. `scores` holds every curve, compared or not."""
    say(" ".join(part for part in (found.sentence, left_out(found, scores)) if part))
    name, better = METRIC_NAMES[found.metric], METRICS[found.metric]
    title = (
        f"Held-out rows, trained on the first {found.share:.0%}; {name}: {better} is better; "
        f"difference to {found.reference}: above 0 is better; intervals equal-tailed, of a new observation"
    )
    columns = [("law", "left"), (name, "right"), ("difference", "right"), ("se", "right"), ("curves", "right")]
    columns += [
        ("in 50%", "right"),
        ("in 90%", "right"),
        ("90% width", "right"),
        ("NRMSE", "right"),
        ("stacking", "right"),
    ]
    show(title, columns, [comparison_cells(row, found.metric) for row in found.table.to_dict("records")])
    say()


def comparison_cells(row: Mapping[Any, Any], metric: str) -> list[str]:
    cells = [row["law"], number(row[metric]), number(row["difference"], 2), number(row["se"], 2), str(row["n_curves"])]
    cells += [fixed(row["coverage50"]), fixed(row["coverage90"]), number(row["width90"])]
    return [*cells, number(row["nrmse"]), fixed(row["weight"])]


def print_laws(comparison: pd.DataFrame) -> None:
    """Per law: how its fits to all rows ended, and its leave-one-out."""
    fitted = rows_where(comparison, comparison["fitted"]).drop_duplicates(["curve_index", "law"])
    rows = []
    for own in groups(fitted, "law"):
        law, counts = own["law"].iloc[0], count_statuses(own)
        known = own["elpd_loo"].dropna()
        elpd = number(known.sum(), 4) if len(known) else "-"
        rows.append(
            [str(law), *(str(counts[s]) for s in STATUSES), elpd, str(len(known)), fixed(own["khat_max"].max())]
        )
    columns = [("law", "left"), *((status, "right") for status in STATUSES)]
    columns += [("elpd_loo", "right"), ("curves", "right"), ("largest k-hat", "right")]
    show(
        "Fits to all rows, by status; leave-one-out summed over curves (interpolation, not forecasting)", columns, rows
    )
    say()


def print_curves(comparison: pd.DataFrame) -> None:
    """Per curve: statuses, the law that forecast it best, and what was found; the worst first."""
    fitted = rows_where(comparison, comparison["fitted"])
    index = gravest_first(fitted)
    columns = [("curve", "left"), ("fits", "left"), ("best forecast", "left"), ("found", "left")]
    shown = [curve_cells(rows_where(fitted, fitted["curve_index"] == i)) for i in index[:CURVES_SHOWN]]
    rest = f"; the {len(shown)} with the gravest findings of {len(index)}" if len(index) > len(shown) else ""
    show(f"Curves{rest}", columns, shown)
    say()


def gravest_first(fitted: pd.DataFrame) -> list[int]:
    """Curves by how many fits failed, whether they fall, and how many fits warn."""
    once = fitted.drop_duplicates(["curve_index", "law"])
    falls = pd.Series(False, index=once.index)
    for code in HEADLINE:
        falls |= (once["status"] != "skipped") & (" " + once["reason"] + " ").str.contains(f" {code} ", regex=False)
    marks = {"fail": once["status"] == "fail", "falls": falls, "warn": once["status"] == "warn"}
    ranks = (
        pd.DataFrame(marks).groupby(once["curve_index"], sort=False).agg({"fail": "sum", "falls": "max", "warn": "sum"})
    )
    return ranks.sort_values(["fail", "falls", "warn"], ascending=False, kind="stable").index.tolist()


def curve_cells(own: pd.DataFrame) -> list[str]:
    """A curve's cells."""
    once = own.drop_duplicates("law")
    counts = count_statuses(once)
    reasons = rows_where(once, once["status"] != "skipped")["reason"]
    codes = sorted({code for reason in reasons for code in reason.split()})
    scored = rows_where(own, (own["share"] == own["share"].max()) & own["crps"].notna()).sort_values("crps")
    best = "-" if scored.empty else str(scored["law"].iloc[0])
    statuses = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return [str(once["curve"].iloc[0]), statuses, best, " ".join(code for code in codes) or "-"]


def groups(table: pd.DataFrame, *columns: str) -> list[pd.DataFrame]:
    """A table cut by columns, in the order their values first appear."""
    return [own for _, own in table.groupby(list(columns), sort=False)]


def print_findings(findings: pd.DataFrame) -> None:
    """Findings by code, falls first, then by grade; one line each."""
    if findings.empty:
        return
    kinds = [(own["code"].iloc[0], own["grade"].iloc[0], own) for own in groups(findings, "code", "grade")]
    kinds.sort(key=lambda kind: (kind[0] not in HEADLINE, GRADES.index(kind[1]), -len(kind[2])))
    say("Findings")
    for code, grade, own in kinds[:FINDINGS_SHOWN]:
        first = own.iloc[0]
        about = first["curve"] or first["where"]
        label = "SKIPPED" if first["scope"] == "skipped" else grade.upper()
        say(f"  {label} {code} ({places(own)}). {about}: {first['message']}.{advice(first['advice'])}")
    if len(kinds) > FINDINGS_SHOWN:
        say(f"  ... and {len(kinds) - FINDINGS_SHOWN} more kinds, in findings.parquet")
    say()


def advice(text: str) -> str:
    return f" {text[0].upper()}{text[1:]}." if text else ""


def places(own: pd.DataFrame) -> str:
    """How often a finding was made, in words."""
    curves, laws = own["curve"].nunique(), own.loc[own["law"] != "", "law"].nunique()
    if not laws:
        return f"{len(own)} in the data"
    return f"{curves} curve{'s' * (curves != 1)}, {laws} law{'s' * (laws != 1)}"


def print_counts(about: Mapping[str, Any]) -> None:
    """The account: every curve × law in one status."""
    counts, laws = about["counts"], len(about["laws"])
    parts = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    words = [f"{about['curves']} curves x {laws} laws = {sum(counts.values())} fits: {parts}."]
    if about.get("quarantined"):
        words.append(f"{about['quarantined']} could not be computed and were given up (findings.parquet says why).")
    if about["holdout_failed"]:
        words.append(f"Of the forecasts, {about['holdout_failed']} rest on a fit that failed its checks.")
    if about["holdout_too_short"]:
        words.append(f"Hold-outs with too few shot counts to train on or to score: {about['holdout_too_short']}.")
    say(" ".join(words))
