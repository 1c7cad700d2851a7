"""Comparison of laws by what they predicted.

One row per curve, predictor and share; then paired differences against a reference, with standard errors that respect that
curves of one model, or of one task, are not independent; stacking weights; and one plain sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from bayesscale.curves import Curves, Kind
from bayesscale.finding import InputError
from bayesscale.holdout import Forecast
from bayesscale.scoring import covered, crps, nrmse, pit, width

if TYPE_CHECKING:
    import pandas as pd

METRICS = {"log_score": "higher", "crps": "lower", "nrmse": "lower"}
"""Metrics a comparison can be made on, and which way is better."""


def score_table(forecasts: Sequence[Forecast], kind: Kind = "counts") -> pd.DataFrame:
    """Score every forecast: one row per curve × predictor × share, averages over the curve's held-out rows.

    `log_score` is the mean log predictive density per row (nats, value scale), `crps` in units of the value, `coverage50` and
    `coverage90` those of equal-tailed intervals of a new observation, `width90` the mean width; `nrmse` is that of the
    posterior mean curve in the data's units and `nrmse_nll` in NLL. `crps_within` and `crps_beyond` split the rows at the
    largest shots any sibling was trained on.
    """
    import pandas as pd

    return pd.DataFrame([score_row(f, kind) for f in forecasts])


def score_row(f: Forecast, kind: Kind) -> dict[str, object]:
    point = crps(f.observation, f.observed)
    within = f.shots <= f.reach
    centre = f.mean.mean(axis=0)
    return {
        "curve": f.name,
        "curve_index": f.curve,
        "law": f.predictor,
        "share": f.share,
        "rows": len(f.shots),
        "log_score": float(f.log_score.mean()),
        "crps": float(point.mean()),
        "coverage50": float(covered(f.observation, f.observed, 0.5).mean()),
        "coverage90": float(covered(f.observation, f.observed, 0.9).mean()),
        "width90": float(width(f.observation, 0.9).mean()),
        "nrmse": nrmse(centre, f.observed),
        "nrmse_nll": nrmse_nll(centre, f.observed, kind),
        "crps_within": float(point[within].mean()) if within.any() else float("nan"),
        "crps_beyond": float(point[~within].mean()) if (~within).any() else float("nan"),
        "rows_beyond": int((~within).sum()),
        "status": f.status,
    }


def nrmse_nll(predicted: NDArray, observed: NDArray, kind: Kind) -> float:
    """NRMSE in NLL. Counts and probabilities are turned into -log of themselves, which is not a mean NLL."""
    if kind == "nll_mean":
        return nrmse(predicted, observed)
    return nrmse(-np.log(np.clip(predicted, 1e-6, 1.0)), -np.log(np.clip(observed, 1e-6, 1.0 - 1e-9)))


def pit_values(forecasts: Sequence[Forecast], *, seed: int = 0) -> NDArray:
    """PIT of every held-out row of these forecasts."""
    return np.concatenate([pit(f.observation, f.observed, seed=seed + i) for i, f in enumerate(forecasts)])


@dataclass(frozen=True, eq=False)
class Comparison:
    """Laws against a reference on one metric and share.

    `table` has one row per law: mean score, paired difference to the reference (positive: better than it), its standard
    error clustered by model and task, wins, curves, stacking weight, mean coverage. `sentence` says it in words.
    """

    table: pd.DataFrame
    sentence: str
    metric: str
    share: float
    reference: str

    def __str__(self) -> str:
        return f"{self.table.to_string(index=False)}\n{self.sentence}"


def compare(
    forecasts: Sequence[Forecast],
    curves: Curves,
    *,
    metric: str = "crps",
    share: float | None = None,
    reference: str | None = None,
) -> Comparison:
    """Compare predictors on the curves they all forecast at one share.

    `reference` defaults to the best law. Differences are paired by curve; their standard error clusters curves that share a
    model and curves that share a task (Cameron, Gelbach & Miller 2011, two-way).

    Raises
    ------
    InputError : nothing to compare, or an unknown metric, share or reference.
    """
    import pandas as pd

    if metric not in METRICS:
        raise InputError("METRIC-UNKNOWN", f"there is no metric {metric!r}", fix="one of " + ", ".join(METRICS))
    shares = sorted({f.share for f in forecasts})
    if not shares:
        raise InputError("NOTHING-TO-COMPARE", "no curve had enough rows to hold any out", fix="log more shot counts")
    share = shares[-1] if share is None else share
    table = score_table([f for f in forecasts if f.share == share], curves.kind)
    if table.empty:
        raise InputError("SHARE-UNKNOWN", f"nothing was forecast at share {share}", fix=f"one of {shares}")
    wide = table.pivot(index="curve_index", columns="law", values=metric).dropna(axis=1, how="all").dropna()
    if wide.empty:
        raise InputError("NOTHING-TO-COMPARE", "no curve was forecast by every law", fix="compare fewer laws")
    sign = 1.0 if METRICS[metric] == "higher" else -1.0
    means = sign * wide.mean()
    reference = str(means.idxmax()) if reference is None else reference
    if reference not in wide:
        raise InputError("REFERENCE-UNKNOWN", f"{reference!r} was not among the laws", fix=", ".join(wide.columns))
    clusters = clusters_of(curves, wide.index.to_numpy())
    weights = stacking_weights([f for f in forecasts if f.share == share], list(wide.columns), set(wide.index))
    rows = []
    for law in map(str, means.sort_values(ascending=False).index):
        difference = sign * (wide[law] - wide[reference]).to_numpy()
        own = table[(table["law"] == law) & table["curve_index"].isin(list(wide.index))]
        rows.append(
            {
                "law": law,
                metric: float(wide[law].to_numpy().mean()),
                "difference": float(difference.mean()),
                "se": clustered_se(difference, clusters),
                "wins": int((difference > 0).sum()),
                "n_curves": len(wide),
                "weight": weights[law],
                "coverage50": own["coverage50"].mean(),
                "coverage90": own["coverage90"].mean(),
                "width90": own["width90"].mean(),
                "nrmse": own["nrmse"].mean(),
                "failed": int((own["status"] == "fail").to_numpy().sum()),
            }
        )
    result = pd.DataFrame(rows)
    words = sentence(result, metric, share, reference, clusters)
    left_out = len(set(table["curve_index"].tolist())) - len(wide)
    if left_out:
        words += f" {left_out} of {len(wide) + left_out} curves are left out: not every law forecast them."
    return Comparison(result, words, metric, share, reference)


def clusters_of(curves: Curves, index: NDArray) -> list[NDArray]:
    """Cluster labels of curves, one array per key that repeats: two curves with the same label are not independent."""
    labels = []
    for place in range(len(curves.key_names)):
        values = np.array([curves.keys[i][place] for i in index])
        if 1 < len(set(values)) < len(values):
            labels.append(np.unique(values, return_inverse=True)[1])
    return labels


def clustered_se(difference: NDArray, clusters: Sequence[NDArray]) -> float:
    """Standard error of a mean under multi-way clustering (inclusion-exclusion over the first two ways).

    Falls back to the larger one-way variance where the combination is not positive. NaN with fewer than two curves.
    """
    n = len(difference)
    if n < 2:
        return float("nan")
    centred = difference - difference.mean()
    plain = float((centred**2).sum() / (n * (n - 1)))

    def one_way(labels: NDArray) -> float:
        groups = labels.max() + 1
        sums = np.bincount(labels, centred, groups)
        return float((sums**2).sum() / n**2 * groups / max(groups - 1, 1))

    ways = [one_way(labels) for labels in clusters[:2]]
    if not ways:
        return float(np.sqrt(plain))
    if len(ways) == 1:
        return float(np.sqrt(max(ways[0], 0.0)))
    both = np.unique(np.stack(clusters[:2]), axis=1, return_inverse=True)[1]
    total = sum(ways) - one_way(both)
    return float(np.sqrt(total if total > 0 else max(ways)))


def stacking_weights(forecasts: Sequence[Forecast], laws: Sequence[str], curves: set[int]) -> dict[str, float]:
    """Weights on the simplex that maximise the mean log score of the mixture over held-out rows (Yao et al. 2018)."""
    by_law = {
        law: {f.curve: f.log_score for f in forecasts if f.predictor == law and f.curve in curves} for law in laws
    }
    return stack(laws, np.stack([np.concatenate([by_law[law][c] for c in sorted(curves)]) for law in laws]))


def stack(laws: Sequence[str], rows: NDArray) -> dict[str, float]:
    """Stacking weights from log scores (law, row)."""
    if len(laws) == 1:
        return {laws[0]: 1.0}
    floor = np.maximum(rows, -1e3)
    scaled = np.exp(floor - floor.max(axis=0))

    def loss(weights: NDArray) -> tuple[float, NDArray]:
        mixture = weights @ scaled + 1e-300
        return -float(np.log(mixture).mean()), -(scaled / mixture).mean(axis=1)

    start = np.full(len(laws), 1.0 / len(laws))
    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones_like(w)}
    found = minimize(loss, start, jac=True, bounds=[(0.0, 1.0)] * len(laws), constraints=constraint, method="SLSQP")
    weights = np.clip(found.x, 0.0, None)
    return dict(zip(laws, (weights / weights.sum()).tolist(), strict=True))


def sentence(table: pd.DataFrame, metric: str, share: float, reference: str, clusters: Sequence[NDArray]) -> str:
    """Say who predicted best, and whether the difference to the next and to persistence is larger than its error."""
    best = table.iloc[0]
    units = {"crps": "CRPS", "log_score": "log score", "nrmse": "NRMSE"}[metric]
    words = [
        f"Trained on the first {share:.0%} of the shots axis, {best['law']} predicts best ({units} {best[metric]:.4g}"
    ]
    words.append(f" over {best['n_curves']} curves).")
    if len(table) > 1:
        second = table.iloc[1]
        gap, se = abs(best["difference"] - second["difference"]), second["se"] if reference == best["law"] else np.nan
        if np.isfinite(se):
            clear = "clearly" if gap > 2 * se else "not clearly"
            words.append(f" It is {clear} ahead of {second['law']} (difference {gap:.2g}, clustered se {se:.2g}).")
    if "persistence" in set(table["law"]):
        base = table[table["law"] == "persistence"].iloc[0]
        if best["law"] == "persistence":
            words.append(" No law beats saying that the last value stays.")
        elif base[metric] and metric != "log_score":
            words.append(f" Persistence (the last value stays) has {base[metric]:.4g}.")
    if clusters and min(labels.max() + 1 for labels in clusters) < 8:
        few = min(labels.max() + 1 for labels in clusters)
        words.append(f" Curves fall into as few as {few} clusters: read standard errors as lower bounds.")
    return "".join(words)
