"""How many shots until performance crosses a threshold, and what more shots are worth.

Every answer is a posterior. A crossing may never happen: draws that stay on the wrong side up to the horizon are counted as
"not within the horizon", and those whose ceiling lies below the threshold as "never". Whatever lies beyond the largest
observed shot count is an extrapolation and is marked so, with its distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesscale.finding import InputError
from bayesscale.prediction import Kind
from bayesscale.result import Fit

if TYPE_CHECKING:
    import pandas as pd

GRID_POINTS = 200


@dataclass(frozen=True, eq=False)
class Crossing:
    """Posterior of the first shot count at which a curve crosses a threshold.

    Attributes
    ----------
    threshold : a probability, or an NLL in nats.
    shots : (draw,) first crossing, infinite where there is none up to `horizon`.
    horizon : largest shot count looked at.
    probability_never : share of draws whose law never crosses, however many shots.
    observed_up_to : largest observed shot count; crossings beyond it are extrapolated.
    """

    name: str
    law: str
    threshold: float
    shots: NDArray
    horizon: float
    probability_never: float
    observed_up_to: float

    @property
    def probability_beyond_horizon(self) -> float:
        """Posterior probability of no crossing up to the horizon."""
        return float(np.isinf(self.shots).mean())

    def quantile(self, q: float) -> float:
        """Posterior quantile of the crossing; infinite where more than 1 - q of the draws do not cross."""
        return float(np.sort(self.shots)[min(int(q * len(self.shots)), len(self.shots) - 1)])

    def row(self) -> dict[str, object]:
        """The crossing as a table row: median, 50% and 90% equal-tailed interval, probabilities, extrapolation."""
        q05, q25, q50, q75, q95 = (self.quantile(q) for q in (0.05, 0.25, 0.5, 0.75, 0.95))
        return {
            "curve": self.name,
            "law": self.law,
            "threshold": self.threshold,
            "median_shots": q50,
            "eti50_lower": q25,
            "eti50_upper": q75,
            "eti90_lower": q05,
            "eti90_upper": q95,
            "p_within_data": float((self.shots <= self.observed_up_to).mean()),
            "p_beyond_horizon": self.probability_beyond_horizon,
            "p_never": self.probability_never,
            "horizon": self.horizon,
            "observed_up_to": self.observed_up_to,
            "extrapolated": bool(q50 > self.observed_up_to),
        }

    def __str__(self) -> str:
        q05, q50, q95 = (self.quantile(q) for q in (0.05, 0.5, 0.95))
        where = " (an extrapolation)" if q50 > self.observed_up_to else ""
        middle = (
            f"at a median of {q50:.3g} shots{where}"
            if np.isfinite(q50)
            else f"probably not within {self.horizon:g} shots"
        )
        return (
            f"{self.name}: crosses {self.threshold:g} {middle}; 90% equal-tailed interval {q05:.3g} to {q95:.3g}; "
            f"never under the law with probability {self.probability_never:.2f}; observed up to {self.observed_up_to:g}."
        )


def crossing(
    fit: Fit, threshold: float, *, horizon: float | None = None, kind: Kind = "mean", task: int = 0, seed: int = 0
) -> Crossing:
    """Posterior of the first shot count at which a curve reaches a threshold.

    `kind` is the estimand: "mean" follows law and discrepancy, "law" the law alone. Accuracies and probabilities cross from
    below, NLLs from above. `horizon` defaults to 100 times the largest observed count.

    Raises
    ------
    InputError : the threshold is not a probability strictly inside (0, 1), or not a positive NLL; the horizon is not beyond
        one shot; the kind is of single observations.
    """
    falling = fit.model.likelihood.kind == "nll_mean"
    if not (threshold > 0 and (falling or threshold < 1)):
        raise InputError(
            "THRESHOLD", f"threshold {threshold:g} is no {'positive NLL' if falling else 'probability inside (0, 1)'}"
        )
    if kind not in ("mean", "law"):
        raise InputError("THRESHOLD-KIND", f"a crossing of {kind!r} is not defined", fix='use "mean" or "law"')
    horizon = 100.0 * max(fit.largest_shots, 1.0) if horizon is None else horizon
    if not horizon > 1:
        raise InputError("HORIZON", f"horizon {horizon:g} leaves nothing to look at", fix="ask for more than 1 shot")
    start = 1.0 if fit.law.singular_at_zero else 0.0
    grid = np.expm1(np.linspace(np.log1p(start), np.log1p(horizon), GRID_POINTS))
    draws = fit.predict(grid, kind, task=task, seed=seed).draws
    limit = fit.predict([1e12], "law", task=task, seed=seed).draws[:, 0]
    sign = -1.0 if falling else 1.0
    shots = first_crossing(grid, sign * draws, sign * threshold)
    never = float((sign * limit < sign * threshold).mean())
    return Crossing(fit.name, fit.law.name, threshold, shots, float(horizon), never, fit.largest_shots)


def first_crossing(grid: NDArray, values: NDArray, level: float) -> NDArray:
    """First point where each row of values reaches a level, log-linear between grid points; infinite where none does."""
    above = values >= level
    reached = above.any(axis=1)
    place = np.argmax(above, axis=1)
    before = np.maximum(place - 1, 0)
    row = np.arange(len(values))
    low, high = values[row, before], values[row, place]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(high > low, (level - low) / (high - low), 0.0)
    time = np.log1p(grid)
    shots = np.expm1(time[before] + np.clip(part, 0.0, 1.0) * (time[place] - time[before]))
    return np.where(reached, np.where(place == 0, grid[0], shots), np.inf)


def value_at(fit: Fit, at: Sequence[float], *, kind: Kind = "mean", task: int = 0) -> pd.DataFrame:
    """Expected value at target shot counts, with 50% and 90% equal-tailed intervals, extrapolation marked."""
    return fit.predict(at, kind, task=task).table()


def value_of_doubling(fit: Fit, at: Sequence[float] | None = None, *, task: int = 0, seed: int = 0) -> pd.DataFrame:
    """What twice the shots would change in the expected value, with its 50% and 90% equal-tailed intervals.

    Default: doubling the largest observed count. The two ends are drawn jointly, so their common uncertainty cancels.
    """
    import pandas as pd

    base = np.array([fit.largest_shots] if at is None else at, float)
    draws = fit.predict(np.concatenate([base, 2 * base]), "mean", task=task, seed=seed).draws
    change = draws[:, len(base) :] - draws[:, : len(base)]
    q = np.quantile(change, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    better = change < 0 if fit.model.likelihood.kind == "nll_mean" else change > 0
    fields = {"curve": fit.name, "law": fit.law.name, "shots": base, "doubled": 2 * base, "mean_change": change.mean(0)}
    bounds = dict(zip(("eti90_lower", "eti50_lower", "median", "eti50_upper", "eti90_upper"), q, strict=True))
    beyond = {
        "p_better": better.mean(0),
        "horizon": 2 * base / fit.largest_shots,
        "extrapolated": 2 * base > fit.largest_shots,
    }
    return pd.DataFrame(fields | bounds | beyond)
