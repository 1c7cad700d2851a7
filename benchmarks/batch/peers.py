"""Peers in JAX, and the loop that measures any peer: one curve after the other on the same core, reruns included.

A peer is a function from a workload to a `Fit`, which samples curve i at a level; level 0 draws what was asked, every further
level doubles warm-up and draws, as a user would do with a curve that failed. Draws come back in the model's coordinates.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import taken
from bayesscale.inference import stock_nuts
from bayesscale.model import numpyro_model, target_of
from benchmarks.batch.clock import Spent, measured
from benchmarks.batch.gate import judge
from benchmarks.batch.workloads import Workload

CHAINS = 4


@dataclass(frozen=True)
class Length:
    """Warm-up and draws per chain at level 0."""

    warmup: int = 300
    draws: int = 400

    def at(self, level: int) -> tuple[int, int]:
        return self.warmup << level, self.draws << level


class Sampled(NamedTuple):
    """u (chain, draw, coord) in the model's coordinates, diverging (chain, draw), gradients (chain, step)."""

    u: NDArray
    diverging: NDArray
    gradients: NDArray


type Fit = Callable[[int, int, int], Sampled]
"""(curve, level, seed)"""


@dataclass(frozen=True)
class Peer:
    """One contender: what it needs, how it is prepared, and whether every fit compiles anew (then there is no warm-up).

    `lockstep` peers advance all chains to the end of the longest trajectory, so they execute more than they use.
    """

    name: str
    needs: tuple[str, ...]
    prepare: Callable[[Workload, Length], Fit]
    compiles_every_time: bool = False
    lockstep: bool = False
    workloads: tuple[str, ...] = ("icl", "power", "mixed")

    def missing(self) -> list[str]:
        return [module for module in self.needs if importlib.util.find_spec(module) is None]


@dataclass
class Score:
    """What a peer did on the first curves of a workload."""

    name: str
    curves: int
    setup: Spent
    raw: list[Spent] = field(default_factory=list)
    reruns: list[Spent] = field(default_factory=list)
    passed_raw: list[bool] = field(default_factory=list)
    passed_all: list[bool] = field(default_factory=list)
    effective: list[float] = field(default_factory=list)
    executed: float = 0.0
    useful: float = 0.0


def time_peer(peer: Peer, workload: Workload, length: Length, levels: int) -> Score:
    """Fit every curve of the workload; rerun what fails the gate, up to `levels` more times.

    Compilation, of each level when it is first needed, is set-up. The gate is computed outside the clock.
    """
    with measured() as setup:
        fit = peer.prepare(workload, length)
    score, ready = Score(peer.name, len(workload), setup), set()
    for i in range(len(workload)):
        for level in range(levels + 1):
            if level not in ready and not peer.compiles_every_time:
                with measured() as compiling:
                    fit(0, level, 10_000 + level)
                setup.cpu, setup.wall = setup.cpu + compiling.cpu, setup.wall + compiling.wall
                ready.add(level)
            with measured() as spent:
                sampled = fit(i, level, 1000 * level + i)
            verdict = judge(sampled.u[None], sampled.diverging[None])
            passed = bool(verdict.passed[0])
            (score.raw if level == 0 else score.reruns).append(spent)
            if level == 0:
                score.passed_raw.append(passed)
                score.effective.append(float(np.nan_to_num(verdict.ess[0])))
                score.useful += float(sampled.gradients.sum())
                longest = sampled.gradients.max(axis=0).sum() * len(sampled.gradients)
                score.executed += float(longest if peer.lockstep else sampled.gradients.sum())
            if passed:
                break
        score.passed_all.append(passed)
    return score


def numpyro_loop(workload: Workload, length: Length) -> Fit:
    """`MCMC(NUTS(model)).run` anew for every curve: what the tutorials show."""
    from numpyro.infer import MCMC, NUTS

    model = partial(numpyro_model, workload.model)
    names = [parameter.name for parameter in workload.model.parameters]

    def fit(i: int, level: int, seed: int) -> Sampled:
        warmup, draws = length.at(level)
        mcmc = MCMC(
            NUTS(model), num_warmup=warmup, num_samples=draws, num_chains=CHAINS, chain_method="sequential",
            progress_bar=False,
        )  # fmt: skip
        columns = {name: jnp.asarray(column) for name, column in taken(workload.units.columns, i).items()}
        mcmc.run(jax.random.key(seed), columns, extra_fields=("num_steps", "diverging"))
        values, extra = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)
        u = np.stack([np.asarray(values[name]) for name in names], axis=-1)
        return Sampled(u, np.asarray(extra["diverging"]), np.asarray(extra["num_steps"]))

    return fit


def numpyro_jitted(workload: Workload, length: Length) -> Fit:
    """The same kernel jitted once with the data as arguments, four chains in lock-step."""
    target = target_of(workload.model)

    def fit(i: int, level: int, seed: int) -> Sampled:
        warmup, draws = length.at(level)
        sampler = stock_nuts.build_nuts(target, warmup=warmup, draws=draws, chains=CHAINS)
        found = stock_nuts.sample_one(sampler, taken(workload.units.columns, i), seed)
        return Sampled(found.u, found.diverging, np.concatenate([found.warmup_leapfrogs, found.leapfrogs], axis=1))

    return fit


def blackjax_jitted(workload: Workload, length: Length) -> Fit:
    """Window adaptation and NUTS, jitted once with the data as arguments, four chains in lock-step."""
    import blackjax

    target = target_of(workload.model)

    @lru_cache
    def build(warmup: int, draws: int) -> Callable:
        def one_chain(key, start, columns):  # noqa: ANN001, ANN202
            def density(u):  # noqa: ANN001, ANN202
                return target.density(u, columns)

            key_warm, key_draw = jax.random.split(key)
            adaptation = blackjax.window_adaptation(blackjax.nuts, density, target_acceptance_rate=0.8)
            (state, tuned), warm = adaptation.run(key_warm, start, num_steps=warmup)
            kernel = blackjax.nuts(density, **tuned)

            def draw(state, key):  # noqa: ANN001, ANN202
                state, info = kernel.step(key, state)
                return state, (state.position, info.is_divergent, info.num_integration_steps)

            _, (u, diverging, late) = jax.lax.scan(draw, state, jax.random.split(key_draw, draws))
            return u, diverging, jnp.concatenate([warm.info.num_integration_steps, late])

        def all_chains(key, columns):  # noqa: ANN001, ANN202
            key_start, key_chain = jax.random.split(key)
            starts = jax.vmap(lambda k: target.prior_draw(k, columns))(jax.random.split(key_start, CHAINS))
            return jax.vmap(one_chain, in_axes=(0, 0, None))(jax.random.split(key_chain, CHAINS), starts, columns)

        return jax.jit(all_chains)

    def fit(i: int, level: int, seed: int) -> Sampled:
        chains = build(*length.at(level))(jax.random.key(seed), taken(workload.units.columns, i))
        return Sampled(*(np.asarray(part) for part in chains))

    return fit
