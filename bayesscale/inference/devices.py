"""Lanes over the devices of this process: every device takes an equal part of the lane axis, the last of each array.

Lanes never see each other, so a program over all of them splits without communication. One device is the ordinary case and
costs nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


@lru_cache(maxsize=1)
def mesh() -> Mesh:
    """The devices jax computes on by default, in a row."""
    return Mesh(np.array(jax.local_devices()), ("lane",))


def count_devices() -> int:
    """Number of devices the lanes are spread over."""
    return mesh().size


def over_devices(tree: Any) -> Any:
    """Spread arrays (..., lane) over the devices; with one device they stay as they are."""
    if count_devices() == 1:
        return tree
    return jax.tree.map(lambda a: jax.device_put(a, spread(np.ndim(a))), tree)


@lru_cache(maxsize=8)
def spread(axes: int) -> NamedSharding:
    """Split the last of so many axes."""
    return NamedSharding(mesh(), PartitionSpec(*(None,) * (axes - 1), "lane"))
