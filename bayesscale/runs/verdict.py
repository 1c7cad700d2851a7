"""The verdict of a run, from its tables: what `bayesscale.comparison.compare` says, without the forecasts' draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesscale.comparison import METRICS, Comparison, clustered_se, clusters_of, sentence, stack
from bayesscale.finding import InputError
from bayesscale.runs.tables import key_columns, rows_where

AVERAGED = ("coverage50", "coverage90", "width90", "nrmse")
"""Scores a comparison averages over curves beside its metric."""


def pick_share(scores: pd.DataFrame, share: float | None) -> float:
    """The share asked for, or the largest one."""
    shares = sorted(scores["share"].dropna().unique().tolist())
    if not shares:
        raise InputError("NOTHING-TO-COMPARE", "no curve had enough rows to hold any out", fix="log more shot counts")
    if share is not None and not any(np.isclose(share, s) for s in shares):
        raise InputError("SHARE-UNKNOWN", f"nothing was forecast at share {share:g}", fix=f"one of {shares}")
    return shares[-1] if share is None else min(shares, key=lambda s: abs(s - share))


def verdict(
    scores: pd.DataFrame,
    points: pd.DataFrame,
    key_names: Sequence[str],
    *,
    metric: str = "crps",
    share: float | None = None,
    reference: str | None = None,
) -> Comparison:
    """Compare laws on the curves they all forecast at one share.

    `scores` has a row per curve × law × share (comparison.parquet), `points` one per held-out row (forecasts.parquet).

    Raises
    ------
    InputError : nothing to compare, or an unknown metric, share or reference.
    """
    if metric not in METRICS:
        raise InputError("METRIC-UNKNOWN", f"there is no metric {metric!r}", fix="one of " + ", ".join(METRICS))
    scores = rows_where(scores, scores[metric].notna() & scores["share"].notna())
    share = pick_share(scores, share)
    table = rows_where(scores, scores["share"] == share)
    wide = forecast_by_all(table, metric)
    sign = 1.0 if METRICS[metric] == "higher" else -1.0
    means = (sign * wide.mean()).sort_values(ascending=False)
    reference = str(means.index[0]) if reference is None else reference
    if reference not in wide:
        raise InputError("REFERENCE-UNKNOWN", f"{reference!r} was not among the laws", fix=", ".join(wide.columns))
    clusters = clusters_of(cast(Any, keys_of(table, key_names)), wide.index.to_numpy())
    weights = stacked(points, share, list(wide.columns), wide.index.to_numpy())
    rows = []
    for law in map(str, means.index):
        difference = sign * (wide[law].to_numpy() - wide[reference].to_numpy())
        own = rows_where(table, (table["law"] == law) & table["curve_index"].isin(list(wide.index)))
        row: dict[str, Any] = {"law": law, metric: float(wide[law].to_numpy().mean()), "difference": difference.mean()}
        row |= {"se": clustered_se(difference, clusters), "wins": int((difference > 0).sum()), "n_curves": len(wide)}
        row |= {"weight": weights[law]} | {name: own[name].to_numpy().mean() for name in AVERAGED}
        rows.append(row | {"failed": len(rows_where(own, own["holdout_status"] == "fail"))})
    result = pd.DataFrame(rows)
    return Comparison(result, sentence(result, metric, share, reference, clusters), metric, share, reference)


def keys_of(table: pd.DataFrame, key_names: Sequence[str]) -> SimpleNamespace:
    """The labels of every curve, as `Curves` has them."""
    first = table.drop_duplicates("curve_index").set_index("curve_index")
    labels = first.loc[:, key_columns(key_names)].to_numpy().tolist()
    keys = {i: tuple(row) for i, row in zip(first.index.tolist(), labels, strict=True)}
    return SimpleNamespace(key_names=tuple(key_names), keys=keys)


def forecast_by_all(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric at one share, curves × laws: the curves that every law forecast.

    Raises
    ------
    InputError : there is no such curve.
    """
    wide = table.pivot(index="curve_index", columns="law", values=metric).dropna(axis=1, how="all").dropna()
    if wide.empty:
        raise InputError("NOTHING-TO-COMPARE", "no curve was forecast by every law", fix="compare fewer laws")
    return wide


def stacked(points: pd.DataFrame, share: float, laws: Sequence[str], curves: NDArray) -> dict[str, float]:
    """Stacking weights of laws over the held-out rows of some curves."""
    own = rows_where(points, (points["share"] == share) & points["curve_index"].isin(curves.tolist()))
    own = own.sort_values("curve_index", kind="stable")
    return stack(laws, np.stack([own.loc[own["law"] == law, "log_score"].to_numpy() for law in laws]))


def share_weights(scores: pd.DataFrame, points: pd.DataFrame) -> dict[tuple[float, str], float]:
    """Stacking weights by share and law, over the curves that every law forecast there; empty where there are none."""
    weights: dict[tuple[float, str], float] = {}
    scores = rows_where(scores, scores["crps"].notna() & scores["share"].notna())
    for share in sorted(scores["share"].unique().tolist()):
        try:
            wide = forecast_by_all(rows_where(scores, scores["share"] == share), "crps")
        except InputError:
            continue
        found = stacked(points, share, list(wide.columns), wide.index.to_numpy())
        weights |= {(share, law): weight for law, weight in found.items()}
    return weights


def with_weights(scores: pd.DataFrame, weights: Mapping[tuple[float, str], float]) -> pd.DataFrame:
    """Add each law's stacking weight at each share; NaN where there was nothing to stack."""
    pairs = zip(scores["share"], scores["law"], strict=True)
    return scores.assign(weight=[weights.get(pair, np.nan) for pair in pairs])
