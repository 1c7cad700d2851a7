"""Stock numpyro NUTS, one posterior at a time: the last tier for what lanes do not bring through.

It shares nothing with the lanes but the density, and takes that in the model's own coordinates: what is a ridge at the ends of
a curve need not be one there. Jitted by hand with the data as arguments, so that one compiled program serves every curve of a
model. Also an independent reference for the lanes' draws, and in benchmarks what a patient user of numpyro would write. Needs
jax and numpyro only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from numpyro.infer import NUTS

from bayesscale.model import Target


class Chains(NamedTuple):
    """Draws of one posterior, (chain, draw[, coord]), and the leapfrogs of warm-up (chain, trajectory)."""

    u: NDArray
    log_density: NDArray
    energy: NDArray
    diverging: NDArray
    leapfrogs: NDArray
    accept: NDArray
    warmup_leapfrogs: NDArray


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
) -> Callable[[jax.Array, Mapping[str, NDArray]], Chains]:
    """Return the jitted sampler: (key, columns of one curve) to the draws of all chains, started from the prior."""

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
            at = -state.potential_energy, state.energy, state.diverging, state.num_steps, state.accept_prob
            return state, (state.z, *at)

        state, early = jax.lax.scan(warm, state, None, length=warmup)
        return Chains(*jax.lax.scan(draw, state, None, length=draws)[1], early)

    def all_chains(key, columns):  # noqa: ANN001, ANN202
        key_start, key_chain = jax.random.split(key)
        starts = jax.vmap(lambda k: target.prior_draw(k, columns))(jax.random.split(key_start, chains))
        return jax.vmap(one_chain, in_axes=(0, 0, None))(jax.random.split(key_chain, chains), starts, columns)

    return jax.jit(all_chains)


def sample_one(sampler: Callable[..., Chains], columns: Mapping[str, NDArray], seed: int | jax.Array) -> Chains:
    """Sample one curve; the result lies on the host."""
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    return Chains(*(np.asarray(part) for part in sampler(key, columns)))


WARMUP, ACCEPT, DEPTH, LONGER = 1000, 0.95, 8, 2
"""The last tier is patient: it is for few, and draws so many times what is returned."""
LARGEST = 32
"""Coordinates up to which its dense metric is warmed up in that many trajectories."""


def last_tier(target: Target, columns: Mapping[str, NDArray], key: NDArray, chains: int, draws: int) -> Chains:
    """Sample one posterior patiently and return thinned draws; `key` holds the two words of the unit's key."""
    more = draws * LONGER
    sampler = build_nuts(target, warmup=WARMUP, draws=more, chains=chains, accept=ACCEPT, dense=True, depth=DEPTH)
    found = sample_one(sampler, columns, jax.random.wrap_key_data(jnp.asarray(key, jnp.uint32)))
    thinned = Chains(*(part[:, ::LONGER] for part in found))
    return thinned._replace(warmup_leapfrogs=found.warmup_leapfrogs)


def saturated(chains: Chains) -> NDArray:
    """Which trees reached the largest depth."""
    return chains.leapfrogs >= 2**DEPTH - 1
