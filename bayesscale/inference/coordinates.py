"""Which coordinates a curve is sampled in: at its ends, mostly, where its data show a rise, at its level where they show none.

Looked up in the data of each curve alone, so that what else is in the batch does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bayesscale.model import Model, Target, level_target, target_of

CLEAR = 2.0
"""Standard errors a rise is seen from: of simulated curves with less, most are sampled better at their level."""
FEWEST = 4
"""Rows the scatter of a curve can be told from."""
NORMAL_MEDIAN = 0.6745
"""Median absolute value of a standard normal."""


def shows_rise(values: NDArray) -> bool:
    """Whether the last quarter of the values lies clearly above the first.

    The scatter is that of second differences, y_(i-1) - 2 y_i + y_(i+1), which a smooth curve hardly has any of; their standard
    deviation is sqrt(6) times that of a value.
    """
    if len(values) < FEWEST:
        return True
    quarter = len(values) // 4
    scatter = np.median(np.abs(values[:-2] - 2.0 * values[1:-1] + values[2:])) / NORMAL_MEDIAN / np.sqrt(6.0)
    rise = values[-quarter:].mean() - values[:quarter].mean()
    return bool(rise > CLEAR * scatter * np.sqrt(2.0 / quarter))


type Shares = Sequence[tuple[Target, NDArray[np.intp]]]
"""Targets in use, and the units (unit,) sampled in each."""


def shared_out(model: Model | Target, columns: Mapping[str, NDArray]) -> Shares:
    """Share units out among targets."""
    count = len(next(iter(columns.values())))
    if isinstance(model, Target):
        return [(model, np.arange(count))]
    rising_target, flat_target = target_of(model), level_target(model)
    if flat_target is rising_target:
        return [(rising_target, np.arange(count))]
    upward = -1.0 if model.likelihood.kind == "nll_mean" else 1.0
    rising = np.array(
        [shows_rise(upward * value[mask > 0]) for value, mask in zip(columns["value"], columns["mask"], strict=True)]
    )
    shares = ((rising_target, np.flatnonzero(rising)), (flat_target, np.flatnonzero(~rising)))
    return [(target, units) for target, units in shares if len(units)]
