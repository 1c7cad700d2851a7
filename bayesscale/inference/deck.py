"""The deck: posteriors in lanes, between chunks.

A `Unit` is one posterior on its way: started over-dispersed around every mode, adapted in phases, then drawn from. The `Deck`
holds the units that are being advanced; after each chunk the host collects what was drawn, pools step sizes and metrics over
a unit's chains, and hands freed lanes to the next unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesscale.inference.lanes import Kernel, Lane, Task, choose, kernel_of
from bayesscale.inference.settings import Sampler
from bayesscale.inference.start import Mode
from bayesscale.model import Target

type Arrays = Mapping[str, NDArray]


@dataclass
class Unit:
    """A posterior on its way through the sampler."""

    index: int
    key: NDArray
    centre: NDArray
    whiten: NDArray
    x: NDArray  # (chain, coord) current positions
    log_step: float
    modes: int
    phase: int = 0
    chunks: int = 0
    kept: list[list[dict[str, NDArray]]] = field(default_factory=list)  # per chain, what each chunk finished


def spread_out(whiten: NDArray, x: NDArray) -> NDArray:
    """W x along the last axis, W a matrix or its diagonal."""
    return x * whiten if whiten.ndim == 1 else x @ whiten.T


def pull_back(whiten: NDArray, offset: NDArray) -> NDArray:
    """Solve W x = offset along the last axis."""
    return offset / whiten if whiten.ndim == 1 else np.linalg.solve(whiten, offset[..., None])[..., 0]


def separate_modes(modes: Mode, i: int) -> list[int]:
    """Starts that reached distinct maxima with mass, best first.

    A maximum counts when it lies more than three whitened units from the better ones and its Laplace mass is within a
    factor e^-5 of the best one's.
    """
    values, maps, places = (np.asarray(array[i]) for array in (modes.log_density, modes.whiten, modes.u))
    if len(values) == 1:
        return [0]
    mass = values + np.linalg.slogdet(maps)[1]
    order = np.argsort(np.where(np.isfinite(values), -values, np.inf))
    chosen = [int(order[0])]
    for j in order[1:]:
        if not np.isfinite(values[j]) or mass[j] < mass[chosen[0]] - 5.0:
            continue
        distance = [np.linalg.norm(pull_back(maps[c], places[j] - places[c])) for c in chosen]
        if min(distance) > 3.0:
            chosen.append(int(j))
    return chosen


def start_unit(index: int, key: NDArray, modes: Mode, sampler: Sampler) -> Unit:
    """Place the chains over-dispersed around every mode found."""
    chosen = separate_modes(modes, index)
    best = chosen[0]
    places = np.asarray(modes.u[index])
    centre, whiten = places[best], np.asarray(modes.whiten[index, best])
    generator = np.random.default_rng(key.astype(np.uint32))
    noise = sampler.spread * generator.standard_t(4, size=(sampler.chains, len(centre)))
    offsets = [pull_back(whiten, places[chosen[c % len(chosen)]] - centre) for c in range(sampler.chains)]
    x = np.stack(offsets) + np.clip(noise, -4.0, 4.0)
    return Unit(
        index, key, centre, whiten, x, np.log(0.8 * len(centre) ** -0.25), len(chosen), kept=blank(sampler.chains)
    )


def blank(chains: int) -> list[list[dict[str, NDArray]]]:
    return [[] for _ in range(chains)]


SPARE = 8
"""Lanes at the end that stay empty. Compiled loops may treat their last few elements apart from the rest and round them
otherwise; a unit in those lanes would get other draws than in any other place."""


class Deck:
    """The lanes and what lies in them. Host arrays are (…, lane), mutated between chunks only."""

    def __init__(self, target: Target, units: Arrays, sampler: Sampler) -> None:
        self.columns, self.sampler = units, sampler
        self.kernel: Kernel = kernel_of(target, sampler.steps, sampler.max_depth)
        self.slots: list[Unit | None] = [None] * max(1, (sampler.lanes - SPARE) // sampler.chains)
        lanes, p = -(-len(self.slots) * sampler.chains // SPARE) * SPARE + SPARE, target.dimension
        self.key = np.zeros((2, lanes), np.uint32)
        self.x, self.log_step = np.zeros((p, lanes)), np.zeros(lanes)
        self.task = Task(
            centre=np.zeros((p, lanes)),  # pyright: ignore[reportArgumentType]
            whiten=np.repeat((np.ones(p) if sampler.starts == 0 else np.eye(p))[..., None], lanes, axis=-1),  # pyright: ignore[reportArgumentType]
            columns={name: np.repeat(np.moveaxis(c[:1], 0, -1), lanes, axis=-1) for name, c in units.items()},  # pyright: ignore[reportArgumentType]
            wanted=np.zeros(lanes),  # pyright: ignore[reportArgumentType]
            adapting=np.zeros(lanes, bool),  # pyright: ignore[reportArgumentType]
            target_accept=np.full(lanes, sampler.target_accept),  # pyright: ignore[reportArgumentType]
        )
        self.lanes: Lane | None = None
        self.changed = np.zeros(lanes, bool)

    def place(self, slot: int, unit: Unit) -> None:
        """Put a unit, in its current phase, into a slot."""
        chains = self.sampler.chains
        lanes = np.arange(slot * chains, (slot + 1) * chains)
        phases = (*self.sampler.warmup, self.sampler.draws)
        self.slots[slot] = unit
        task: Any = self.task
        task.centre[:, lanes] = unit.centre[:, None]
        task.whiten[..., lanes] = unit.whiten[..., None]
        for name, column in self.columns.items():
            task.columns[name][..., lanes] = column[unit.index][..., None]
        task.wanted[lanes], task.adapting[lanes] = phases[unit.phase], unit.phase < len(self.sampler.warmup)
        salt = unit.phase + 16 * self.sampler.draws
        for chain, lane in enumerate(lanes):
            self.key[:, lane] = np.random.default_rng([*unit.key, salt, chain]).integers(0, 2**32, 2, np.uint32)
        self.x[:, lanes], self.log_step[lanes] = unit.x.T, unit.log_step
        self.changed[lanes] = True

    def clear(self, slot: int) -> None:
        chains = self.sampler.chains
        self.slots[slot] = None
        np.asarray(self.task.wanted)[slot * chains : (slot + 1) * chains] = 0

    def run(self) -> tuple[Any, NDArray, NDArray]:
        """Advance one chunk; return what was emitted, and the lanes' draw counts and averaged log step sizes."""
        # Numpy copies: jax may read a host array after the call returns, and these are written to between chunks.
        task = jax.tree.map(np.copy, self.task)
        if self.changed.any():
            keys = jax.random.wrap_key_data(jnp.asarray(self.key.T.copy()))
            fresh = self.kernel.fill(keys, self.x.copy(), self.log_step.copy(), task)
            self.lanes = fresh if self.lanes is None else choose_lanes(self.changed.copy(), fresh, self.lanes)
            self.changed[:] = False
        self.lanes, emitted = self.kernel.run(self.lanes, task)
        return jax.tree.map(np.asarray, emitted), np.asarray(self.lanes.drawn), np.asarray(self.lanes.log_step_mean)


@jax.jit
def choose_lanes(changed: jax.Array, new: Lane, old: Lane) -> Lane:
    """Replace the lanes that changed; typed keys go through their data."""
    data = choose(changed[:, None], jax.random.key_data(new.key), jax.random.key_data(old.key))
    blank_key = jnp.zeros(())
    merged = choose(changed, new._replace(key=blank_key), old._replace(key=blank_key))
    return merged._replace(key=jax.random.wrap_key_data(data))


FIELDS = ("x", "log_density", "energy", "diverged", "leapfrogs", "accept", "saturated")


def collect(unit: Unit, lanes: NDArray, emitted: Any) -> None:
    """Take the finished draws of a unit's lanes out of a chunk."""
    for chain, lane in enumerate(lanes):
        steps = np.flatnonzero(emitted.done[:, lane])
        if len(steps):
            unit.kept[chain].append({name: getattr(emitted, name)[steps, ..., lane] for name in FIELDS})


def phase_draws(unit: Unit, chain: int, name: str) -> NDArray:
    parts = unit.kept[chain]
    return np.concatenate([part[name] for part in parts])


def next_phase(unit: Unit, log_step_mean: NDArray, *, last: bool) -> None:
    """Pool step sizes over chains; unless warm-up is over, whiten once more by the draws' covariance."""
    x = np.stack([phase_draws(unit, chain, "x")[-1] for chain in range(len(unit.kept))])
    unit.log_step, unit.x = float(np.mean(log_step_mean)), x
    if not last:
        recent = np.concatenate([(d := phase_draws(unit, c, "x"))[len(d) // 2 :] for c in range(len(unit.kept))])
        n, p = recent.shape
        if unit.whiten.ndim == 1:
            root = np.sqrt((n * recent.var(axis=0) + 10.0) / (n + 10.0))
            unit.whiten = unit.whiten * root
        else:
            root = np.linalg.cholesky((n * np.cov(recent.T).reshape(p, p) + 10.0 * np.eye(p)) / (n + 10.0))
            unit.whiten = unit.whiten @ root
        unit.x = pull_back(root, x)
        unit.log_step = float(np.log(0.8 * p**-0.25))
    unit.kept = blank(len(unit.kept))
    unit.phase += 1


def finish_unit(unit: Unit, sampler: Sampler) -> dict[str, NDArray]:
    """Stack a unit's draws, NaN where the budget ran out."""
    out: dict[str, NDArray] = {}
    for name in FIELDS:
        shape = (sampler.chains, sampler.draws) + ((len(unit.centre),) if name == "x" else ())
        array = np.full(shape, np.nan)
        for chain in range(sampler.chains):
            if unit.phase == len(sampler.warmup) and unit.kept[chain]:
                drawn = phase_draws(unit, chain, name)[: sampler.draws]
                array[chain, : len(drawn)] = drawn
        out[name] = array
    out["u"] = unit.centre + spread_out(unit.whiten, out.pop("x"))
    return out
