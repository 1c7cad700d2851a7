"""Stock numpyro NUTS, jitted by hand with the data as arguments: one compiled program for every curve of a model.

Used as an independent reference for draws, and in `benchmarks.batch` as what a patient user of numpyro would write. Needs jax
and numpyro only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from numpyro.infer import NUTS

from bayesscale.model import Target


class Chains(NamedTuple):
    """Draws of one curve: u (chain, draw, coord), diverging (chain, draw), leapfrogs (chain, warm-up + draw)."""

    u: NDArray
    diverging: NDArray
    leapfrogs: NDArray


@lru_cache(maxsize=32)
def build_nuts(
    target: Target,
    *,
    warmup: int,
    draws: int,
    chains: int = 4,
    accept: float = 0.8,
    dense: bool = False,
    depth: int = 10,
) -> Callable[[jax.Array, Mapping[str, NDArray]], tuple]:
    """Return the jitted sampler: (key, columns of one curve) to draws, divergences and leapfrogs of all chains."""

    def one_chain(key, start, columns):  # noqa: ANN001, ANN202
        kernel = NUTS(
            potential_fn=lambda u: -target.density(u, columns),
            dense_mass=dense,
            target_accept_prob=accept,
            max_tree_depth=depth,
        )
        state = kernel.init(key, warmup, start, (), {})

        def warm(state, _):  # noqa: ANN001, ANN202
            state = kernel.sample(state, (), {})
            return state, state.num_steps

        def draw(state, _):  # noqa: ANN001, ANN202
            state = kernel.sample(state, (), {})
            return state, (state.z, state.diverging, state.num_steps)

        state, early = jax.lax.scan(warm, state, None, length=warmup)
        _, (u, diverging, late) = jax.lax.scan(draw, state, None, length=draws)
        return u, diverging, jax.numpy.concatenate([early, late])

    def all_chains(key, columns):  # noqa: ANN001, ANN202
        key_start, key_chain = jax.random.split(key)
        starts = jax.vmap(lambda k: target.prior_draw(k, columns))(jax.random.split(key_start, chains))
        return jax.vmap(one_chain, in_axes=(0, 0, None))(jax.random.split(key_chain, chains), starts, columns)

    return jax.jit(all_chains)


def sample_one(sampler: Callable, columns: Mapping[str, NDArray], seed: int) -> Chains:
    """Sample one curve; the result lies on the host."""
    return Chains(*(np.asarray(part) for part in sampler(jax.random.key(seed), columns)))


def columns_at(columns: Mapping[str, NDArray], i: int) -> dict[str, NDArray]:
    """The columns and facts of unit `i`."""
    return {name: column[i] for name, column in columns.items()}
