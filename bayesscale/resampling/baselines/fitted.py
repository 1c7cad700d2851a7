"""A fitted forecast of pass@k: what every baseline answers with, and the data each of them is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesscale.finding import Finding, InputError

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]
type Curve = Callable[[Floats, Floats], Floats]
"""pass@k of coordinates (..., coordinate) at (k,): (..., k)."""


@dataclass(frozen=True, eq=False)
class CoverageFit:
    """A fitted baseline.

    Attributes
    ----------
    name : the baseline.
    parameters : fitted values by name; empty where the method has none.
    findings : what makes the fit or its forecast doubtful.
    largest_k : largest k used for the fit; forecasts beyond it are extrapolated.
    point, replicates : functions of k, giving (k,) and (draw, k) before clipping.
    """

    name: str
    parameters: Mapping[str, float]
    findings: tuple[Finding, ...]
    largest_k: float
    point: Callable[[Floats], Floats]
    replicates: Callable[[Floats], Floats]

    def predict(self, at: ArrayLike) -> Floats:
        """Point forecast of pass@k at (k,) numbers of attempts, within [0, 1]."""
        return np.clip(self.point(_attempts(at)), 0.0, 1.0)

    def draws(self, at: ArrayLike) -> Floats:
        """Replicates of the forecast, (draw, k), within [0, 1]."""
        return np.clip(self.replicates(_attempts(at)), 0.0, 1.0)

    def clipped(self, at: ArrayLike) -> NDArray[np.bool_]:
        """True where the fitted curve is no probability and `predict` clips it."""
        value = self.point(_attempts(at))
        return (value < 0) | (value > 1)

    def table(self, at: ArrayLike, *, mass: float = 0.9) -> pd.DataFrame:
        """One row per k: the point forecast, the equal-tailed interval of the replicates, and marks."""
        import pandas as pd

        low, high = np.quantile(self.draws(at), [(1 - mass) / 2, (1 + mass) / 2], axis=0)
        level, k = f"eti{round(100 * mass)}", _attempts(at)
        fields = {"baseline": self.name, "estimand": "pass@k", "k": k, "value": self.predict(at)}
        bounds = {f"{level}_lower": low, f"{level}_upper": high}
        return pd.DataFrame(fields | bounds | {"extrapolated": k > self.largest_k, "clipped": self.clipped(at)})


@dataclass(frozen=True, eq=False)
class Sample:
    """The data of one fit: counts (problem,), grid (k,), curve (k,), weights (draw, problem), replicates (draw, k)."""

    n: Floats
    c: Floats
    k: Floats
    each: Floats
    weights: Floats
    seed: int

    @property
    def curve(self) -> Floats:
        return self.each.mean(0)

    @property
    def curves(self) -> Floats:
        return self.weights @ self.each

    def at(self, kept: NDArray[np.bool_]) -> Sample:
        return replace(self, k=self.k[kept], each=self.each[:, kept])


@dataclass(frozen=True, eq=False)
class Shape:
    """A curve with its starts (start, coordinate), and its coordinates named and mapped to parameters."""

    curve: Curve
    starts: Floats
    names: tuple[str, ...]
    natural: tuple[Callable[[float], float], ...]


def constant(name: str, sample: Sample, why: str) -> CoverageFit:
    """The last point of the curve, at every k: all that can be said."""
    value = float(sample.curve[-1])
    finding = Finding("COVERAGE-CONSTANT", "warn", f"{why}, so the forecast is the constant {value:g}")
    spread = partial(_flat, sample.curves[:, -1:])
    return CoverageFit(name, {"constant": value}, (finding,), sample.k[-1], partial(_flat, np.array([value])), spread)


def _flat(value: Floats, k: Floats) -> Floats:
    return np.broadcast_to(value, (*value.shape[:-1], len(k)))


def parametric(
    name: str, sample: Sample, shape: Shape, point: Floats, replicates: Floats, findings: tuple[Finding, ...] = ()
) -> CoverageFit:
    """A curve at its fitted coordinates (coordinate,) and those of its replicates (draw, coordinate)."""
    values = {key: float(to(u)) for key, to, u in zip(shape.names, shape.natural, point, strict=True)}
    curves = partial(shape.curve, point), partial(shape.curve, replicates)
    return CoverageFit(name, values, findings, float(sample.k[-1]), *curves)


def at_bound(name: str, u: Floats, low: float, high: float) -> tuple[Finding, ...]:
    """Say so where a coordinate of the fit lies on its bound."""
    message = f"the fit of {name} ends at a bound, so its parameters are limits and no estimates"
    return (Finding("COVERAGE-BOUND", "info", message),) if ((u <= low + 1e-6) | (u >= high - 1e-6)).any() else ()


def says_nothing(sample: Sample) -> bool:
    """Whether no sample or every sample succeeded, so that no curve can be told."""
    return bool((sample.c == 0).all() or (sample.c == sample.n).all())


def too_few(sample: Sample, points: int) -> str:
    """Why nothing was fitted, when `points` of the curve were usable."""
    if says_nothing(sample):
        return "no sample succeeded" if sample.c[0] == 0 else "every sample succeeded"
    return f"{points} points of the curve lie between 0 and 1, too few to fit"


def _attempts(at: ArrayLike) -> Floats:
    k = np.atleast_1d(np.asarray(at, float))
    if k.ndim > 1 or not (np.isfinite(k).all() and (k >= 1).all()):
        raise InputError("COVERAGE-K", f"k must be one or more finite numbers from 1 upwards, got {at!r}")
    return k
