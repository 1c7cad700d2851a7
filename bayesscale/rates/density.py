"""Laws known by the density of x = logit p: how they become a `RateLaw`.

A `Density` gives the log density of x up to a constant, the logs of the mass below and above the axis of
`bayesscale.quadrature` on the same scale, and the log of the total mass: `law_of_density` integrates it against any counts.

The counts of a model are integrated on one grid for all of its patterns, so that the density costs a few hundred evaluations and
the rest is a product of a matrix and a vector; counts of any size, as forecasts need them, on nodes of each pattern's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bayesscale.parameter import Parameter
from bayesscale.quadrature import (
    MOST_NODES,
    kernel_cells,
    log_integral,
    log_shared_integral,
    shared_cells,
    shared_width,
)
from bayesscale.rate_law import DERIVED_MEANING, RateLaw, Sample, SharedCells
from bayesscale.types import Columns, Theta


@dataclass(frozen=True, eq=False)
class Density:
    """A density of x = logit p at given parameters.

    Attributes
    ----------
    log_density : log density at logits of any shape, up to a constant.
    log_tails : logs of the mass below `quadrature.LOWEST` and above `quadrature.HIGHEST`, on the same scale.
    log_total : log of the whole mass, on the same scale.
    """

    log_density: Callable[[jax.Array], jax.Array]
    log_tails: tuple[jax.Array, jax.Array]
    log_total: jax.Array


def law_of_density(
    density: Callable[[Theta], Density],
    tail_index: Callable[[Theta], jax.Array],
    *,
    name: str,
    equation: str,
    reference: str,
    parameters: tuple[Parameter, ...],
    sample: Sample,
) -> RateLaw:
    """Return the law of a density of the logit; its moments are as accurate as `quadrature.log_integral` says."""

    one_success = kernel_cells([1.0], [0.0])

    def log_moment(columns: Columns, theta: Theta) -> jax.Array:
        at = density(theta)
        integral = log_shared_integral if "kernel" in columns else log_integral
        value = integral(columns, at.log_density, at.log_tails) - at.log_total
        # A kernel of 1 is the only one that counts both tails: its integral is 1 by definition.
        whole = (columns["log_below"] == 0) & (columns["log_above"] == 0)
        return jnp.where(whole, 0.0, value)

    def derived(**theta: jax.Array) -> Mapping[str, jax.Array]:
        mean = jnp.exp(log_moment(one_success, theta)[0])
        return {"mean": mean, "tail_index": tail_index(theta), "zero_mass": jnp.zeros_like(mean)}

    return RateLaw(
        name=name,
        equation=equation,
        reference=reference,
        parameters=parameters,
        log_moment=log_moment,
        derived=derived,
        derived_meaning=DERIVED_MEANING,
        cells=kernel_cells,
        sample=sample,
        shared=SharedCells(shared_width, MOST_NODES, shared_cells),
    )
