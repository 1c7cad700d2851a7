"""How many samples it takes to reach a target, if any number does.

The answer is a posterior: the smallest number in every draw, infinite where the target is out of reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesscale.finding import InputError

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]

QUANTILES = {"eti90_lower": 0.05, "eti50_lower": 0.25, "median": 0.5, "eti50_upper": 0.75, "eti90_upper": 0.95}
"""Quantiles that tables show: the median, and the ends of the equal-tailed intervals of mass 0.5 and 0.9."""
ROUNDING = 1e-14  # a ceiling this close to the target equals it


@dataclass(frozen=True, eq=False)
class Reach:
    """Posterior of the smallest number of samples that reaches a target.

    Attributes
    ----------
    name, estimand : the model, and what has to reach the target.
    target : (draw,) the value to reach.
    samples : (draw,) smallest number that reaches it, infinite where none up to `horizon` does.
    horizon : largest number of samples looked at; infinite if there is no end.
    probability_never : posterior probability that no number reaches it; NaN where the limit is unknown.
    """

    name: str
    estimand: str
    target: Floats
    samples: Floats
    horizon: float
    probability_never: float

    @property
    def probability_beyond_horizon(self) -> float:
        """Posterior probability that no number up to the horizon reaches the target."""
        return float(np.isinf(self.samples).mean())

    def quantile(self, q: float) -> float:
        """Posterior quantile of the number of samples; infinite where more than 1 - q of the draws do not arrive."""
        return quantile(self.samples, q)

    def table(self) -> pd.DataFrame:
        """One row: the posterior of the number of samples and the probabilities of not arriving."""
        import pandas as pd

        row = {"model": self.name, "estimand": self.estimand, "mean_target": self.target.mean()}
        row |= {f"samples_{name}": self.quantile(q) for name, q in QUANTILES.items()}
        beyond = {"horizon": self.horizon, "p_beyond_horizon": self.probability_beyond_horizon}
        return pd.DataFrame([{**row, **beyond, "p_never": self.probability_never}])


def quantile(values: ArrayLike, q: float) -> float:
    """A sample quantile that may be infinite: no interpolation, so that infinity minus infinity never arises."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[min(int(q * len(ordered)), len(ordered) - 1)])


def samples_to_accuracy(
    acceptance: ArrayLike,
    share: ArrayLike,
    target: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    name: str = "",
    estimand: str = "accuracy over the problems drawn",
) -> Reach:
    """Samples until resampling is as accurate as `target`, for example one sample of a stronger model.

    `target` is one accuracy or its posterior draws (draw,). Accuracy grows with the number of samples up to a ceiling, so
    a target above it is never reached: `probability_never` is that of a target beyond any budget. There is no horizon.

    Raises
    ------
    InputError : draws that are not (draw, problem), a target outside [0, 1] or with another number of draws.
    """
    a, s = checked_draws(acceptance, share)
    w = checked_weights(weights, a.shape)
    goal = np.asarray(target, dtype=np.float64)
    if goal.shape not in ((), (len(a),)) or not ((goal >= 0) & (goal <= 1)).all():
        raise InputError("TARGET", f"the target must be one accuracy in [0, 1] or one for each of the {len(a)} draws")
    goal = np.broadcast_to(goal, (len(a),))
    samples = np.array([_first(*row) for row in zip(a, s, w, goal, strict=True)])
    return Reach(name, estimand, goal, samples, math.inf, float(np.isinf(samples).mean()))


def _first(a: Floats, s: Floats, w: Floats, target: float) -> float:
    """Smallest K with accuracy at least `target`, by doubling and halving; infinite if there is none."""
    if target <= 0:
        return 0.0
    weight = w * s / w.sum()
    with np.errstate(divide="ignore"):
        rate = -np.log1p(-a)
    missing = float(np.sum(weight[a > 0])) - target
    missing = 0.0 if abs(missing) < ROUNDING else missing

    def arrives(K: float) -> bool:
        # What is still open is compared with the distance to the ceiling: both stay exact when the accuracy does not.
        return float(np.sum(weight[a > 0] * np.exp(-K * rate[a > 0]))) <= missing

    if missing < 0 or (missing == 0 and not arrives(1.0)):
        return math.inf
    high = 1.0
    while not arrives(high):
        high *= 2.0
    low = np.floor(high / 2.0)
    while high - low > max(1.0, high * 2.0**-50):
        middle = np.floor(0.5 * (low + high))
        low, high = (low, middle) if arrives(middle) else (middle, high)
    return float(high)


def samples_to_reach(
    log_survival: ArrayLike,
    target: float,
    at: ArrayLike,
    *,
    log_limit: ArrayLike | None = None,
    name: str = "",
    estimand: str = "pass@k over the population",
) -> Reach:
    """Samples until pass@k is at least `target`, from posterior draws of log(1 - pass@k).

    `log_survival` is (draw, k) at the numbers of samples `at`, increasing from 1. Between two of them log(1 - pass@k) is
    taken as linear in log k, which is a power law there; the answer is rounded up to a whole number and is exact where
    `at` holds every whole number. `log_limit` (draw,) is what log(1 - pass@k) tends to, the log of the share of problems
    that are never solved; without it the probability of never reaching the target is unknown and given as NaN.

    Raises
    ------
    InputError : a target outside (0, 1), numbers of samples that are not whole and increasing, or survival that is not
        one row per draw, exceeds 1 or rises.
    """
    k, log_s = np.asarray(at, dtype=np.float64), np.asarray(log_survival, dtype=np.float64)
    if not 0 < target < 1:
        raise InputError("TARGET", f"pass@k can be asked to reach a value inside (0, 1), got {target:g}")
    if (
        k.ndim != 1
        or not k.size
        or not ((k >= 1) & (k == np.round(k)) & np.isfinite(k)).all()
        or (np.diff(k) <= 0).any()
    ):
        raise InputError("SAMPLES", "the numbers of samples must be whole, at least 1 and increasing")
    if log_s.ndim != 2 or log_s.shape[1] != k.size or not len(log_s):
        raise InputError("SURVIVAL", f"survival has shape {log_s.shape}, need (draw, {k.size})")
    if not (log_s <= 1e-9).all() or (log_s[:, 1:] > log_s[:, :-1] + 1e-9).any():
        raise InputError("SURVIVAL", "the log survival of a draw must start at or below 0 and never rise")
    log_target = math.log1p(-target)
    limit = None if log_limit is None else np.asarray(log_limit, dtype=np.float64)
    if limit is not None and (limit.shape != (len(log_s),) or not (limit <= 1e-9).all()):
        raise InputError("SURVIVAL", f"the limit must be one log survival of at most 0 for each of {len(log_s)} draws")
    # Equality is reached in the limit only, hence never.
    never = math.nan if limit is None else float((limit >= log_target).mean())
    samples = _first_whole(k, log_s, log_target)
    return Reach(name, estimand, np.full(len(log_s), target), samples, float(k[-1]), never)


def _first_whole(k: Floats, log_survival: Floats, level: float) -> Floats:
    """First whole number at which each row has fallen to a level; infinite where none does."""
    below = log_survival <= level
    place = np.argmax(below, axis=1)
    before = np.maximum(place - 1, 0)
    row = np.arange(len(below))
    high, low = log_survival[row, before], log_survival[row, place]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(place > 0, (high - level) / (high - low), 1.0)
    part = np.where(np.isfinite(part), part, 1.0)
    between = np.exp(np.log(k[before]) + part * (np.log(k[place]) - np.log(k[before])))
    # A hair of slack: the exponential of a logarithm may land just above a whole number.
    whole = np.clip(np.ceil(between * (1 - 1e-12)), np.where(place > 0, k[before] + 1, k[0]), k[place])
    return np.where(below.any(axis=1), whole, np.inf)


def checked_draws(acceptance: ArrayLike, share: ArrayLike) -> tuple[Floats, Floats]:
    """Acceptance and share as (draw, problem) arrays of probabilities."""
    a, s = np.asarray(acceptance, dtype=np.float64), np.asarray(share, dtype=np.float64)
    if a.ndim != 2 or a.shape != s.shape or not a.size:
        raise InputError("DRAWS", f"draws must be (draw, problem) alike, got {a.shape} and {s.shape}")
    if not ((a >= 0) & (a <= 1) & (s >= 0) & (s <= 1)).all():
        raise InputError("DRAWS", "acceptance and share must lie in [0, 1]")
    return a, s


def checked_weights(weights: ArrayLike | None, shape: tuple[int, ...]) -> Floats:
    """(draw, problem) weights that sum to one in every draw, so that draws count alike when they are pooled."""
    w = np.ones(shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape not in (shape, shape[1:]) or not ((w >= 0) & np.isfinite(w)).all() or not (w.sum(axis=-1) > 0).all():
        raise InputError("DRAWS", "weights must be finite, at least 0, not all 0, and one for each problem")
    return np.broadcast_to(w / w.sum(axis=-1, keepdims=True), shape)
