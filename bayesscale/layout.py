"""Layout: named parameters as one flat vector on the unconstrained axis, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from bayesscale.parameter import Parameter, constrain, from_scores, unconstrain
from bayesscale.types import Columns, CoordArray, Scalar


@dataclass(frozen=True, eq=False)
class Layout:
    """Parameters in order, and the sizes of the dimensions they name."""

    parameters: tuple[Parameter, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def slices(self) -> Mapping[str, tuple[slice, tuple[int, ...]]]:
        """Where each parameter lies in the flat vector, and its shape."""
        places, start = {}, 0
        for parameter in self.parameters:
            shape = parameter.shape(self.sizes)
            size = int(np.prod(shape, dtype=int))
            places[parameter.name] = (slice(start, start + size), shape)
            start += size
        return places

    @cached_property
    def dimension(self) -> int:
        """Number of unconstrained coordinates."""
        return max((place.stop for place, _ in self.slices.values()), default=0)

    @cached_property
    def coordinate_names(self) -> tuple[str, ...]:
        """One name per coordinate: ``log_n50``, ``logit_ratio[1,0]``."""
        names: list[str] = []
        for name, (_, shape) in self.slices.items():
            names += [name] if not shape else [f"{name}[{','.join(map(str, i))}]" for i in np.ndindex(shape)]
        return tuple(names)

    def values(self, u: CoordArray, facts: Columns) -> tuple[dict[str, jax.Array], Scalar]:
        """Split a flat vector into named values; return them with the log prior density on the unconstrained axis.

        Axes of `u` beyond the first are a batch.
        """
        theta, log_prior = {}, jnp.zeros(())
        for parameter in self.parameters:
            place, shape = self.slices[parameter.name]
            theta[parameter.name], density = constrain(parameter, u[place].reshape(shape + u.shape[1:]), facts)
            log_prior += density
        return theta, log_prior

    def prior_draw(self, key: jax.Array, facts: Columns) -> CoordArray:
        """Draw a flat vector from the prior, on the unconstrained axis."""
        # One draw of normal scores for all that can use them: every further call of the generator is compiled anew.
        scores, pieces = jax.random.normal(jax.random.fold_in(key, len(self.parameters)), (self.dimension,)), []
        for i, parameter in enumerate(self.parameters):
            place, shape = self.slices[parameter.name]
            drawn = from_scores(parameter, scores[place].reshape(shape), facts)
            if drawn is None:
                value = parameter.prior_given(facts).sample(jax.random.fold_in(key, i), shape)
                drawn = unconstrain(parameter, value, facts)
            pieces.append(jnp.ravel(drawn))
        return jnp.concatenate(pieces)
