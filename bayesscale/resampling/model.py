"""A population of success rates as a posterior: rate law × counts of one model's problems.

Problems enter through their counts alone, grouped by distinct pattern (n, c) with a weight, so that a hundred million samples
cost what a hundred patterns cost. The likelihood of a pattern is E[p^c (1-p)^(n-c)], without the binomial coefficient: the
rule that ended the sampling drops out, as long as it looked at the outcomes only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesscale.attempts import Attempts
from bayesscale.layout import Layout
from bayesscale.model import Target
from bayesscale.parameter import Parameter
from bayesscale.rates import RateLaw
from bayesscale.types import Columns, CoordArray, Scalar, Theta


@dataclass(frozen=True, eq=False)
class RateModel:
    """A rate law seen through counts."""

    law: RateLaw

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.law.parameters

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.parameters)

    def log_likelihood(self, theta: Theta, columns: Columns) -> Scalar:
        """sum_patterns weight * log E[p^c (1-p)^(n-c)]."""
        return jnp.sum(columns["weight"] * self.law.log_moment(columns, theta))


@lru_cache(maxsize=64)
def rate_model(law: RateLaw) -> RateModel:
    """Return the one `RateModel` of a law, so that what is compiled for it is found again."""
    return RateModel(law)


@lru_cache(maxsize=64)
def rate_target(model: RateModel) -> Target:
    """Return the sampling target of a rate model."""

    def density(u: CoordArray, columns: Columns) -> Scalar:
        theta, log_prior = model.layout.values(u, {})
        return log_prior + model.log_likelihood(theta, columns)

    return Target(
        f"rates|{model.law.name}", model.layout.dimension, density, lambda key, _: model.layout.prior_draw(key, {})
    )


def pattern_width(patterns: int) -> int:
    """Round up to a power of two, at least 16, so that few shapes are compiled."""
    return max(16, 1 << (patterns - 1).bit_length())


def pattern_columns(law: RateLaw, patterns: Sequence[tuple[NDArray, NDArray, NDArray]]) -> Mapping[str, NDArray]:
    """Lay out (n, c, weight) patterns of several models as (model, pattern) arrays; padding has weight zero."""
    width = pattern_width(max(len(n) for n, _, _ in patterns))
    prepare, tables = cells_of(law, max(float(n.max()) for n, _, _ in patterns)), []
    for n, c, weight in patterns:
        fill = np.minimum(np.arange(width), len(n) - 1)
        cells = prepare(c[fill], (n - c)[fill])
        tables.append(cells | {"weight": np.where(np.arange(width) < len(n), weight[fill], 0).astype(float)})
    return {name: np.stack([np.asarray(table[name], float) for table in tables]) for name in tables[0]}


def cells_of(law: RateLaw, most: float) -> Callable[[NDArray, NDArray], dict[str, NDArray]]:
    """Return what prepares patterns of up to so many samples: shared columns where the law has them and they are worth it."""
    shared = law.shared
    if shared is None or (width := shared.width(most)) > shared.most:
        return law.cells
    return lambda c, f: shared.cells(c, f, width)


def columns_of(law: RateLaw, attempts: Attempts) -> Mapping[str, NDArray]:
    """Lay out every model's patterns."""
    return pattern_columns(law, [attempts.patterns(i) for i in range(len(attempts))])
