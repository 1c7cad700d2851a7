"""Columns of a batch: (unit, row) arrays and (unit,) facts by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Arrays = Mapping[str, NDArray]


def typed(columns: Arrays) -> dict[str, NDArray]:
    """Columns as the programs take them: floats, but for the index of a row's task."""
    return {name: np.asarray(column, float if name != "task" else int) for name, column in columns.items()}


def taken(columns: Arrays, units: Any) -> dict[str, NDArray]:
    """The columns of these units; of one unit, without the axis, where `units` is a number."""
    return {name: column[units] for name, column in columns.items()}
