"""Array aliases whose names say which dimensions an array carries.

The words are those used throughout: a *curve* has *obs* rows, a posterior has *chain* × *draw* draws, a batch has
*unit* independent problems, and a model has *coord* unconstrained coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

type Array = jax.Array | np.ndarray
"""Traced by jax or on the host: what is computed with `jnp` takes either."""
type Scalar = jax.Array
"""A zero-dimensional array."""
type ObsArray = Array
"""(obs,) one value per observed point."""
type CoordArray = jax.Array
"""(coord,) one value per unconstrained coordinate."""
type LogMean = tuple[jax.Array, jax.Array]
"""(log p, log(1 - p)), so that neither end of the unit interval is rounded away."""
type Theta = Mapping[str, jax.Array]
"""Parameter values by name."""
type Columns = Mapping[str, Array]
"""(obs,) columns and () facts of one curve, by name."""
