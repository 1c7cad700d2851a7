"""Prediction: what a posterior says about shots that were, or were not, observed.

Four estimands, never mixed up:

* ``law``: the law's own curve, without the departure the data show from it;
* ``mean``: the expected value, law and departure together;
* ``new_observation``: what would be measured next with as many runs and trials as the data typically had;
* ``new_run``: the same for a single run.

A prediction beyond the largest observed shot count is an extrapolation and says by how much (`horizon`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import taken, typed
from bayesscale.finding import InputError
from bayesscale.model import Model, posterior_rows
from bayesscale.precision import enable_float64
from bayesscale.programs import Program
from bayesscale.units import Units, pad, padded_width

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["law", "mean", "new_observation", "new_run"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Draws of a predicted quantity.

    Attributes
    ----------
    kind : the estimand.
    shots : (point,).
    draws : (draw, point), a probability or an NLL in nats.
    horizon : (point,), shots over the largest observed count; above 1 the point is an extrapolation.
    name : the curve.
    """

    kind: Kind
    shots: NDArray
    draws: NDArray
    horizon: NDArray
    name: str

    def interval(self, mass: float = 0.9) -> tuple[NDArray, NDArray]:
        """Equal-tailed interval of this mass at every point."""
        lower, upper = np.quantile(self.draws, [(1 - mass) / 2, (1 + mass) / 2], axis=0)
        return lower, upper

    def table(self) -> pd.DataFrame:
        """One row per point: mean, median and the 50% and 90% equal-tailed intervals."""
        import pandas as pd

        q = np.quantile(self.draws, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        fields = {"curve": self.name, "estimand": self.kind, "shots": self.shots, "mean": self.draws.mean(0)}
        bounds = dict(zip(("eti90_lower", "eti50_lower", "median", "eti50_upper", "eti90_upper"), q, strict=True))
        beyond = {"horizon": self.horizon, "extrapolated": self.horizon > 1.0}
        return pd.DataFrame(fields | bounds | beyond)


PREDICTION = 0x9E3779B9
"""Tells the random numbers of predictions from all others of a seed."""


@lru_cache(maxsize=128)
def row_predictor(model: Model) -> Any:
    """Compile `posterior_rows` over draws of one unit: theta (draw, ...), columns (row,) and facts, keys (draw,)."""
    return Program(jax.vmap(partial(posterior_rows, model), in_axes=(0, None, 0)))


def predict_rows(
    model: Model, theta: Mapping[str, NDArray], columns: Mapping[str, NDArray], seed: int
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Law, expected value, new observation and log score at every row of a batch of units, (unit, draw, row).

    Unit by unit, with the same random numbers: one program is compiled, and no unit's prediction depends on the others.
    """
    units, draws = next(iter(theta.values())).shape[:2]
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), PREDICTION), draws)
    columns = typed(columns)
    found = []
    for i in range(units):
        facts = {n: c[i] for n, c in columns.items()}
        said = row_predictor(model)({n: v[i] for n, v in theta.items()}, facts, keys)
        law, mean, scatter, score = jax.tree.map(np.asarray, said)
        observation = model.likelihood.draw(np.random.default_rng([seed, PREDICTION]), facts, *scatter)
        found.append((law, mean, observation, score))
    law, mean, observation, score = (np.stack(parts) for parts in zip(*found, strict=True))
    return law, mean, observation, score


def predict(
    model: Model,
    theta: Mapping[str, NDArray],
    unit: Units,
    at: Sequence[float] | NDArray,
    kind: Kind = "mean",
    *,
    task: int = 0,
    seed: int = 0,
) -> Prediction:
    """Predict a unit at shot counts `at`, from parameter draws (draw, ...).

    Raises
    ------
    InputError : an unknown kind or task, negative shots, or zero shots under a law that is singular there.
    """
    enable_float64()  # a fit read in a fresh process predicts as it did in the one that made it
    shots = np.atleast_1d(np.asarray(at, float))
    if kind not in get_args(Kind):
        raise InputError("PREDICT-KIND", f"kind {kind!r} is unknown", fix="one of " + ", ".join(get_args(Kind)))
    if not (np.isfinite(shots).all() and (shots >= 0).all()):
        raise InputError("PREDICT-SHOTS", f"shots must be finite and not negative, got {shots.min():g}")
    if model.law.singular_at_zero and (shots == 0).any():
        raise InputError("PREDICT-SHOTS", f"law {model.law.name} says nothing about 0 shots", fix="ask for 1 or more")
    if task not in range(model.tasks):
        raise InputError("PREDICT-TASK", f"task {task} is unknown", fix=f"a whole number below {model.tasks}")
    columns, place = with_queries(unit, shots, task, single_run=kind == "new_run")
    batch = {name: values[None] for name, values in theta.items()}
    law, mean, observation, _ = predict_rows(model, batch, columns, seed)
    values = {"law": law, "mean": mean}.get(kind, observation)[0][:, place]
    seen = unit.columns["mask"][0] > 0
    largest = unit.columns["shots"][0][seen].max()
    return Prediction(kind, shots, values, shots / max(largest, 1.0), unit.names[0])


def with_queries(
    unit: Units, shots: NDArray, task: int, *, single_run: bool
) -> tuple[dict[str, NDArray], NDArray[np.int64]]:
    """Weave unobserved rows at these shots into a unit's rows; return its columns and where the new rows are."""
    columns = taken(unit.columns, 0)
    seen = columns["mask"] > 0
    typical = {name: c[seen] for name, c in columns.items() if np.shape(c) == seen.shape}
    count = len(shots)
    extra = {name: np.full(count, np.median(values)) for name, values in typical.items()}
    extra |= {"shots": shots, "mask": np.zeros(count), "task": np.full(count, task)}
    if single_run and "runs" in extra:
        extra["runs"] = np.ones(count)
    joined = {name: np.concatenate([typical[name], extra[name]]) for name in typical}
    # The last query is repeated up to a padded width, so that few shapes are compiled.
    rows = int(seen.sum()) + count
    joined = {name: pad(values, padded_width(rows)) for name, values in joined.items()}
    order = np.lexsort((joined["mask"] == 0, joined["shots"], joined["task"]))
    joined = {name: values[order] for name, values in joined.items()}
    time = np.log1p(joined["shots"])
    joined["first"] = np.concatenate([[1.0], (np.diff(joined["task"]) != 0).astype(float)])
    joined["step"] = np.where(joined["first"] > 0, time, np.diff(time, prepend=0.0))
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    facts = {name: np.asarray(c)[None] for name, c in columns.items() if np.ndim(c) == 0}
    return {name: values[None] for name, values in joined.items()} | facts, place[rows - count : rows]
