"""Tables of an evaluation: what a run writes, row by row.

Every curve under every law ends in exactly one status (ok, warn, fail or skipped): `status_table` counts them.
Curves are named by their keys, one column each, and by `curve_index`, their place in the `Curves`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from bayesscale.comparison import score_table
from bayesscale.curves import Curves
from bayesscale.draws import QUANTILES, flatten
from bayesscale.finding import Finding
from bayesscale.holdout import Evaluation, Forecast
from bayesscale.law import Law
from bayesscale.leave_one_out import Loo, good_k
from bayesscale.result import Fit
from bayesscale.scoring import crps, pit
from bayesscale.units import joint_members, unit_name

STATUSES = ("ok", "warn", "fail", "skipped")
"""How a curve under a law can end, best first."""
SHARE_REASONS = ("FEW-ROWS",)
"""Reasons that concern a training share, not the fit to all rows."""

SCORES = (
    "rows", "log_score", "crps", "coverage50", "coverage90", "width90", "nrmse", "nrmse_nll",
    "crps_within", "crps_beyond", "rows_beyond",
)  # fmt: skip
"""Columns of `comparison.score_table` that a run keeps."""
QUANTILE_NAMES = tuple(f"q{round(100 * q):02d}" for q in QUANTILES)
NUMBERS = ("share", "shots", "observed", "mean", *QUANTILE_NAMES, "log_score", "crps", "pit", "reach")
"""Numbers a forecast has per held-out row."""
SUMMARY = (
    "curve",
    "law",
    "parameter",
    "mean",
    "sd",
    *QUANTILE_NAMES,
    "r_hat",
    "ess_bulk",
    "ess_tail",
    "contraction",
    "findings",
)
FINDING = ("curve_index", "scope", "curve", "law", "code", "grade", "message", "advice", "where")
LOO = ("curve_index", "law", "elpd_loo", "elpd_loo_se", "khat_max", "khat_bad", "refitted")
RESERVED = frozenset(
    (*SCORES, *NUMBERS, *SUMMARY, *FINDING, *LOO, "status", "holdout_status", "reason", "fit", "fitted", "weight")
)
"""Column names that a key of the same name gives way to."""

type FitFiles = Mapping[tuple[str, str], str]
"""Where the fit of (unit, law) was written, relative to the run's folder."""


def rows_where(frame: pd.DataFrame, mask: Any) -> pd.DataFrame:
    """The rows where `mask` holds."""
    return cast(pd.DataFrame, frame[mask])


def key_columns(key_names: Iterable[str]) -> list[str]:
    """The columns that hold the keys: their names, with an underscore appended where a table has that name already."""
    columns, used = [], set(RESERVED)
    for name in key_names:
        while name in used:
            name += "_"
        used.add(name)
        columns.append(name)
    return columns


def with_keys(frame: pd.DataFrame, curves: Curves) -> pd.DataFrame:
    """Put the key columns after `curve`; where `curve_index` is -1 (a joint fit) they are empty."""
    at = list(frame.columns).index("curve") + 1
    for place, name in enumerate(key_columns(curves.key_names)):
        labels = ["" if i < 0 else curves.keys[i][place] for i in frame["curve_index"]]
        frame.insert(at + place, name, pd.Series(labels, index=frame.index, dtype=object))
    return frame


def unit_index(fit: Fit) -> int:
    """The curve a fit is about, or -1 where it is about several."""
    members = fit.unit.members[0]
    return members[0] if len(members) == 1 else -1


def summary_table(curves: Curves, fits: Sequence[Fit]) -> pd.DataFrame:
    """One row per fit and parameter; see `Fit.summary`."""
    if not fits:
        return with_keys(pd.DataFrame({name: [] for name in (*SUMMARY, "status", "curve_index")}), curves)
    tables = [fit.summary().assign(status=fit.status, curve_index=unit_index(fit)) for fit in fits]
    return with_keys(pd.concat(tables, ignore_index=True), curves)


# Accounting -----------------------------------------------------------------------------------------------------------


def unit_names(curves: Curves, law: Law, task_key: str | None) -> dict[int, str]:
    """Name of the unit each curve belongs to under a law."""
    groups = joint_members(curves, task_key) if law.joint else tuple((i,) for i in range(len(curves)))
    return {i: unit_name(curves, members, joint=law.joint, task_key=task_key) for members in groups for i in members}


def status_table(
    curves: Curves,
    laws: Sequence[Law],
    evaluation: Evaluation,
    *,
    files: FitFiles | None = None,
    task_key: str | None = None,
) -> pd.DataFrame:
    """One row per curve × law: status, and the codes of what was found or the reason it was skipped."""
    fitted = {(i, fit.law.name): fit for fit in evaluation.fits for i in fit.unit.members[0]}
    reasons = {(s.name, s.law.name): s.finding for s in evaluation.skipped if s.finding.code not in SHARE_REASONS}
    rows = []
    for law in laws:
        names = unit_names(curves, law, task_key)
        for i in range(len(curves)):
            row = {"curve_index": i, "curve": curves.curve_name(i), "law": law.name}
            fit = fitted.get((i, law.name))
            if fit is not None:
                codes = sorted({finding.code for finding in fit.findings})
                row |= {
                    "status": fit.status,
                    "reason": " ".join(codes),
                    "fit": (files or {}).get((names[i], law.name), ""),
                }
            else:
                reason = reasons.get((names[i], law.name))
                row |= {"status": "skipped", "reason": f"{reason.code}: {reason.message}" if reason else "", "fit": ""}
            rows.append(row)
    table = pd.DataFrame(rows)
    check_accounts(table, len(curves) * len(laws))
    return table


def check_accounts(table: pd.DataFrame, expected: int) -> None:
    """Hold that no curve × law is missing, counted twice, or skipped without a reason."""
    assert len(table) == expected and not table.duplicated(["curve_index", "law"]).any(), "a curve is counted not once"
    ends = list(zip(table["status"], table["reason"], strict=True))
    assert all(status in STATUSES for status, _ in ends), "a curve has no status"
    assert all(reason for status, reason in ends if status == "skipped"), "a curve was skipped without a reason"


def count_statuses(table: pd.DataFrame) -> dict[str, int]:
    """How many rows ended in each status."""
    return {status: len(rows_where(table, table["status"] == status)) for status in STATUSES}


# Findings -------------------------------------------------------------------------------------------------------------


def finding_row(finding: Finding, scope: str, index: int = -1, curve: str = "", law: str = "") -> dict[str, Any]:
    return {"curve_index": index, "scope": scope, "curve": curve, "law": law, **finding.as_dict()}


def findings_table(curves: Curves, evaluation: Evaluation) -> pd.DataFrame:
    """One row per finding: about the data, about a fit to all rows, or the reason something was skipped."""
    rows = [finding_row(finding, "data") for finding in curves.findings]
    rows += [
        finding_row(f, "fit", unit_index(fit), fit.name, fit.law.name) for fit in evaluation.fits for f in fit.findings
    ]
    rows += [
        finding_row(skipped.finding, "skipped", curve=skipped.name, law=skipped.law.name)
        for skipped in evaluation.skipped
    ]
    return pd.DataFrame(rows, columns=pd.Index(FINDING))


# Forecasts and scores -------------------------------------------------------------------------------------------------


def forecast_table(curves: Curves, forecasts: Sequence[Forecast]) -> pd.DataFrame:
    """One row per held-out row and predictor: what was observed, the forecast's quantiles, and its scores."""
    if not forecasts:
        return with_keys(EMPTY_FORECASTS.copy(), curves)
    table = pd.concat([forecast_rows(curves, f) for f in forecasts], ignore_index=True)
    return with_keys(
        table.sort_values(["curve_index", "share", "law", "shots"], ignore_index=True, kind="stable"), curves
    )


def forecast_rows(curves: Curves, f: Forecast) -> pd.DataFrame:
    quantiles = np.quantile(f.observation, QUANTILES, axis=0)
    columns: dict[str, Any] = {
        "curve_index": f.curve,
        "curve": curves.curve_name(f.curve),
        "law": f.predictor,
        "share": f.share,
        "shots": f.shots,
        "observed": f.observed,
        "mean": f.mean.mean(axis=0),
    }
    columns |= dict(zip(QUANTILE_NAMES, quantiles, strict=True))
    columns |= {
        "log_score": f.log_score,
        "crps": crps(f.observation, f.observed),
        "pit": pit(f.observation, f.observed),
    }
    return pd.DataFrame(columns | {"reach": f.reach, "status": f.status})


EMPTY_FORECASTS = pd.DataFrame(
    {"curve_index": np.empty(0, int), "curve": pd.Series(dtype=object), "law": pd.Series(dtype=object)}
    | {name: np.empty(0) for name in NUMBERS}
    | {"status": pd.Series(dtype=object)}
)


def loo_columns(evaluation: Evaluation, loos: Sequence[Loo | None]) -> pd.DataFrame:
    """One row per curve × law that has a leave-one-out estimate; a joint fit's is divided among its curves."""
    rows = []
    for fit, loo in zip(evaluation.fits, loos, strict=True):
        if loo is None:
            continue
        owner = fit.unit.curves[0][fit.unit.columns["mask"][0] > 0]
        limit = good_k(len(flatten(fit.log_likelihood)))
        for i in fit.unit.members[0]:
            own = owner == i
            points, k_hat = loo.pointwise[own], loo.k_hat[own]
            rows.append(
                {
                    "curve_index": i,
                    "law": fit.law.name,
                    "elpd_loo": float(points.sum()),
                    "elpd_loo_se": float(np.sqrt(len(points)) * points.std()),
                    "khat_max": float(k_hat.max()),
                    "khat_bad": int((~(k_hat <= limit)).sum()),
                    "refitted": int(loo.refitted[own].sum()),
                }
            )
    return pd.DataFrame(rows, columns=pd.Index(LOO))


SCORED = ["curve_index", "law", "share", "status", *SCORES]
"""What is taken from `comparison.score_table`."""
EMPTY_SCORES = pd.DataFrame({name: pd.Series(dtype=object if name in ("law", "status") else float) for name in SCORED})


def comparison_table(
    statuses: pd.DataFrame, evaluation: Evaluation, shares: Sequence[float], loos: Sequence[Loo | None]
) -> pd.DataFrame:
    """One row per curve × law × share: status, hold-out scores, leave-one-out; then predictors that are no single fit.

    `fitted` is False for those others (persistence, mixtures, pooled forecasts): they have forecasts and no fit of their
    own. `holdout_status` is the gate's verdict on the fit to the training share, "not scored" where nothing could be.
    """
    curves = evaluation.curves
    scores = score_table(evaluation.forecasts, curves.kind) if evaluation.forecasts else EMPTY_SCORES
    scores = scores.loc[:, SCORED].rename(columns={"status": "holdout_status"})
    grid = statuses.merge(pd.DataFrame({"share": list(shares) or [np.nan]}, dtype=float), how="cross")
    rows = grid.assign(fitted=True).merge(scores, on=["curve_index", "law", "share"], how="left")
    rows = rows.merge(loo_columns(evaluation, loos), on=["curve_index", "law"], how="left")
    laws = set(statuses["law"])
    others = rows_where(scores, [law not in laws for law in scores["law"]])
    if len(others):
        rows = pd.concat([rows, other_rows(curves, others)], ignore_index=True)
    rows["holdout_status"] = [status if isinstance(status, str) else "not scored" for status in rows["holdout_status"]]
    return with_keys(rows, curves)


def other_rows(curves: Curves, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of predictors that are no single fit, as rows of the comparison."""
    names = [curves.curve_name(i) for i in scores["curve_index"]]
    return scores.assign(curve=names, status=scores["holdout_status"], reason="", fit="", fitted=False)


def forecast_scores(curves: Curves, forecasts: Sequence[Forecast]) -> pd.DataFrame:
    """The comparison of predictors that are no single fit."""
    scores = score_table(forecasts, curves.kind) if forecasts else EMPTY_SCORES
    scores = scores.loc[:, SCORED].rename(columns={"status": "holdout_status"})
    return with_keys(other_rows(curves, scores), curves)


# One form -------------------------------------------------------------------------------------------------------------

COLUMNS = {
    "summary": (*SUMMARY, "status", "curve_index"),
    "comparison": (
        "curve_index", "curve", "law", "status", "reason", "fit", "share", "fitted", "holdout_status", *SCORES, *LOO[2:]
    ),
    "forecasts": ("curve_index", "curve", "law", *NUMBERS, "status"),
    "findings": FINDING,
}  # fmt: skip
"""Columns of every table, without the keys, which follow `curve` in all but the findings."""
TEXTS = frozenset((*FINDING[1:], "parameter", "findings", "status", "reason", "fit", "holdout_status"))


def in_form(table: str, frame: pd.DataFrame, key_names: Sequence[str]) -> pd.DataFrame:
    """A table with all its columns, in order and of one type each, so that parts made apart fit together."""
    columns, keys = list(COLUMNS[table]), key_columns(key_names)
    if table != "findings":
        at = columns.index("curve") + 1
        columns[at:at] = keys
    texts = TEXTS.union(keys)
    frame = frame.reindex(columns=columns)
    types = {name: "str" if name in texts else np.float64 for name in columns}
    types |= {name: kind for name, kind in (("fitted", bool), ("curve_index", np.int64)) if name in columns}
    return frame.fillna({name: "" for name in columns if name in texts}).astype(types)
