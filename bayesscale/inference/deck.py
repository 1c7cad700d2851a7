"""The deck: posteriors in lanes, between chunks.

A *unit* is one posterior on its way: started over-dispersed around every mode, adapted in phases, then drawn from. The `Deck`
holds the units that are being advanced, a slot of `chains` lanes each; after each chunk the host collects what was drawn,
pools step sizes and metrics over a unit's chains, and hands freed slots to the next units. Everything is done for all slots
at once: a loop in Python over a thousand units costs more than sampling them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.inference.lanes import Kernel, Lanes, Task, kernel_of
from bayesscale.inference.settings import Sampler
from bayesscale.inference.start import Mode
from bayesscale.model import Target

type Arrays = Mapping[str, NDArray]

SPARE = 8
"""Lanes at the end that stay empty. Compiled loops may treat their last few elements apart from the rest and round them
otherwise; a unit in those lanes would get other draws than in any other place."""
SEPARATE, NEGLIGIBLE = 3.0, 5.0
"""Maxima are distinct beyond this many whitened units, and count within this many nats of the best one's Laplace mass."""
SHRINKAGE = 10.0
"""Draws that the identity counts for when the metric is updated."""
FIELDS = ("log_density", "energy", "diverged", "leapfrogs", "accept", "saturated")


NARROW = 40
"""Lanes of a deck for few chains. Draws are the same to the last bit in both (tested)."""


def deck_width(chains: int, widest: int) -> int:
    """Lanes for this many chains: few would leave most of a wide deck empty, and more than two widths compile more often."""
    return min(NARROW, widest) if chains <= NARROW - SPARE else widest


def spread_out(whiten: NDArray, x: NDArray) -> NDArray:
    """W x for x (unit, chain, ..., coord), W (unit, coord, coord) or its diagonal (unit, coord)."""
    if whiten.ndim == 2:
        return x * whiten.reshape(len(whiten), *(1,) * (x.ndim - 2), -1)
    return np.einsum("uij,u...j->u...i", whiten, x)


def pull_back(whiten: NDArray, offset: NDArray) -> NDArray:
    """Solve W x = offset for offset (unit, chain, coord)."""
    if whiten.ndim == 2:
        return offset / whiten[:, None]
    return np.swapaxes(np.linalg.solve(whiten, np.swapaxes(offset, 1, 2)), 1, 2)


def first_log_step(size: int) -> float:
    """A step size that suits a standard normal of this many coordinates."""
    return float(np.log(0.8 * size**-0.25))


def separate_modes(modes: Mode) -> tuple[NDArray, NDArray]:
    """Which starts reached distinct maxima with mass: (unit, start) order of the starts, best first, and whether each counts.

    A maximum counts when it lies more than `SEPARATE` whitened units from the better ones that count and its Laplace mass is
    within a factor exp(-`NEGLIGIBLE`) of the best one's.
    """
    values, places, maps = (np.asarray(array) for array in (modes.log_density, modes.u, modes.whiten))
    units, starts = values.shape
    order = np.argsort(np.where(np.isfinite(values), -values, np.inf), axis=1, kind="stable")
    counts = np.zeros((units, starts), bool)
    counts[:, 0] = True
    if starts == 1:
        return order, counts
    rows = np.arange(units)[:, None]
    value, place, whiten = values[rows, order], places[rows, order], maps[rows, order]
    mass = value + np.linalg.slogdet(whiten)[1]
    for j in range(1, starts):
        near = np.zeros(units, bool)
        for c in range(j):
            distance = np.linalg.norm(pull_back(whiten[:, c], (place[:, j] - place[:, c])[:, None])[:, 0], axis=1)
            near |= counts[:, c] & ~(distance > SEPARATE)
        counts[:, j] = ~near & np.isfinite(value[:, j]) & (mass[:, j] >= mass[:, 0] - NEGLIGIBLE)
    return order, counts


def first_positions(modes: Mode, keys: NDArray, sampler: Sampler) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Place every unit's chains over-dispersed around all its modes.

    Returns centre (unit, coord), whitening map, positions (unit, chain, coord) and the number of modes (unit,).
    """
    order, counts = separate_modes(modes)
    units, index = np.arange(len(order)), order[:, 0]
    places = np.asarray(modes.u)
    centre, whiten = places[units, index], np.asarray(modes.whiten)[units, index].copy()
    number = counts.sum(axis=1)
    # Chain c starts at the c-th mode that counts, in turn.
    ranked = np.argsort(~counts, axis=1, kind="stable")
    turn = np.arange(sampler.chains)[None] % number[:, None]
    start = np.take_along_axis(order, np.take_along_axis(ranked, turn, axis=1), axis=1)
    offset = pull_back(whiten, places[units[:, None], start] - centre[:, None])
    shape = (sampler.chains, centre.shape[1])
    noise = np.stack([np.random.default_rng(key.astype(np.uint32)).standard_t(4, size=shape) for key in keys])
    return centre, whiten, offset + np.clip(sampler.spread * noise, -4.0, 4.0), number


def updated_metric(whiten: NDArray, recent: NDArray) -> tuple[NDArray, NDArray]:
    """Whiten once more by the covariance of recent draws (unit, draw, coord), shrunk to the identity; the maps and the change."""
    n, p = recent.shape[1:]
    if whiten.ndim == 2:
        root = np.sqrt((n * recent.var(axis=1) + SHRINKAGE) / (n + SHRINKAGE))
        return whiten * root, root
    centred = recent - recent.mean(axis=1, keepdims=True)
    covariance = np.swapaxes(centred, 1, 2) @ centred / (n - 1)
    covariance[~np.isfinite(covariance).all(axis=(1, 2))] = np.eye(p)
    # By eigenvalues, floored: a posterior gone astray has a covariance that rounding leaves without a Cholesky factor.
    values, vectors = np.linalg.eigh((n * covariance + SHRINKAGE * np.eye(p)) / (n + SHRINKAGE))
    root = vectors * np.sqrt(np.maximum(values, 1e-12 * values[:, -1:]))[:, None, :]
    return whiten @ root, root


class Deck:
    """The lanes and what lies in them. Host arrays are (..., lane), mutated between chunks only."""

    def __init__(self, target: Target, columns: Arrays, keys: NDArray, modes: Mode, sampler: Sampler) -> None:
        self.columns, self.keys, self.sampler = columns, keys, sampler
        self.kernel: Kernel = kernel_of(target, sampler.steps, max(sampler.max_depth, sampler.deepest))
        units, p, chains = len(keys), target.dimension, sampler.chains
        self.phases = np.array([*sampler.warmup, sampler.draws])
        self.limit = max(4, -(-sampler.patience * int(self.phases.sum()) // sampler.steps))

        self.centre, self.whiten, self.x, self.modes = first_positions(modes, keys, sampler)
        self.log_step = np.full(units, first_log_step(p))
        self.draws = np.full((units, chains, sampler.draws, p), np.nan)
        self.stats = {name: np.full((units, chains, sampler.draws), np.nan) for name in FIELDS}
        self.finished = np.zeros(units, bool)

        slots = max(1, (deck_width(units * chains, sampler.lanes) - SPARE) // chains)
        lanes = -(-slots * chains // SPARE) * SPARE + SPARE
        self.unit, self.phase, self.chunks = np.full(slots, -1), np.zeros(slots, int), np.zeros(slots, int)
        self.recent = np.zeros((slots, chains, max(sampler.warmup, default=1), p))
        self.lane_key, self.salt = np.zeros((2, lanes), np.uint32), np.zeros(lanes, np.int32)
        self.lane_x, self.lane_log_step = np.zeros((p, lanes)), np.zeros(lanes)
        shape = (p,) if self.whiten.ndim == 2 else (p, p)
        self.task = {
            "centre": np.zeros((p, lanes)),
            "whiten": np.zeros((*shape, lanes)) + (np.eye(p) if len(shape) == 2 else np.ones(p))[..., None],
            "wanted": np.zeros(lanes),
            "adapting": np.zeros(lanes, bool),
            "target_accept": np.full(lanes, sampler.target_accept),
            "max_depth": np.full(lanes, sampler.max_depth, np.int32),
        }
        self.rows = {name: np.repeat(np.moveaxis(c[:1], 0, -1), lanes, axis=-1) for name, c in columns.items()}
        self.lanes: Lanes | None = None
        self.changed = np.zeros(lanes, bool)

    def lanes_of(self, slots: NDArray) -> NDArray:
        """Lanes of these slots, (slot, chain)."""
        return slots[:, None] * self.sampler.chains + np.arange(self.sampler.chains)

    def place(self, slots: NDArray, units: NDArray, phase: NDArray) -> None:
        """Put units, at their current positions and in these phases, into slots."""
        chains, lanes = self.sampler.chains, self.lanes_of(slots).ravel()
        owner = np.repeat(units, chains)
        self.unit[slots], self.phase[slots] = units, phase
        self.task["centre"][:, lanes] = self.centre[owner].T
        self.task["whiten"][..., lanes] = np.moveaxis(self.whiten[owner], 0, -1)
        for name, column in self.columns.items():
            self.rows[name][..., lanes] = np.moveaxis(column[owner], 0, -1)
        self.task["wanted"][lanes] = np.repeat(self.phases[phase], chains)
        self.task["adapting"][lanes] = np.repeat(phase < len(self.phases) - 1, chains)
        # A stronger tier asks for other numbers of draws, which salts its randomness too.
        self.salt[lanes] = np.repeat((16 * self.sampler.draws + phase) * chains, chains) + np.tile(
            np.arange(chains), len(units)
        )
        self.lane_key[:, lanes] = self.keys[owner].T
        self.lane_x[:, lanes] = self.x[units].reshape(len(lanes), -1).T
        self.lane_log_step[lanes] = np.repeat(self.log_step[units], chains)
        self.changed[lanes] = True

    def enter(self, waiting: NDArray) -> NDArray:
        """Fill empty slots with waiting units; those that still wait are returned."""
        free = np.flatnonzero(self.unit < 0)[: len(waiting)]
        entering = waiting[: len(free)]
        if len(free):
            self.chunks[free] = 0
            self.place(free, entering, np.zeros(len(free), int))
        return waiting[len(free) :]

    def run(self) -> tuple[Any, NDArray, NDArray, NDArray]:
        """Advance one chunk: what was emitted, draws per lane before and after, and averaged log step sizes."""
        # Copies: jax may read a host array after the call returns, and these are written to between chunks.
        task = Task(**jax.tree.map(np.copy, self.task), columns=jax.tree.map(np.copy, self.rows))  # pyright: ignore[reportArgumentType]
        if self.changed.any():
            new = (self.lane_key.copy(), self.salt.copy(), self.lane_x.copy(), self.lane_log_step.copy(), task)
            lanes = self.kernel.blank(*new) if self.lanes is None else self.lanes
            self.lanes = self.kernel.refill(lanes, self.changed.copy(), *new)
            self.changed[:] = False
        lanes = self.lanes
        assert lanes is not None  # the first units have just been placed
        before = np.array(lanes.drawn)
        self.lanes, emitted = self.kernel.run(lanes, task)
        return (
            jax.tree.map(np.asarray, emitted),
            before,
            np.array(self.lanes.drawn),
            np.asarray(self.lanes.log_step_mean),
        )

    def collect(self, emitted: Any, before: NDArray) -> None:
        """Take finished draws out of a chunk."""
        place = before + np.cumsum(emitted.done, axis=0) - 1
        step, lane = np.nonzero(emitted.done)
        draw, (slot, chain) = place[step, lane].astype(int), np.divmod(lane, self.sampler.chains)
        final = self.phase[slot] == len(self.phases) - 1
        early = ~final
        self.recent[slot[early], chain[early], draw[early]] = emitted.x[step[early], :, lane[early]]
        to = (self.unit[slot[final]], chain[final], draw[final])
        self.draws[to] = emitted.x[step[final], :, lane[final]]
        for name in FIELDS:
            self.stats[name][to] = getattr(emitted, name)[step[final], lane[final]]

    def next_phase(self, slots: NDArray, log_step_mean: NDArray) -> None:
        """Pool step sizes over chains; unless warm-up is over, whiten once more by the covariance of the draws."""
        phases = self.phase[slots].copy()
        for phase in np.unique(phases):
            group = slots[phases == phase]
            units, wanted = self.unit[group], self.phases[phase]
            self.log_step[units] = log_step_mean[self.lanes_of(group)].mean(axis=1)
            self.x[units] = self.recent[group][:, :, wanted - 1]
            if phase < len(self.phases) - 2:
                recent = self.recent[group][:, :, wanted // 2 : wanted]
                pooled = recent.reshape(len(group), -1, recent.shape[-1])
                self.whiten[units], root = updated_metric(self.whiten[units], pooled)
                self.x[units] = pull_back(root, self.x[units])
                self.log_step[units] = first_log_step(recent.shape[-1])
            self.place(group, units, np.full(len(group), phase + 1))

    def advance(self) -> NDArray:
        """Run a chunk and move units on; returns those that left the deck."""
        emitted, before, drawn, log_step_mean = self.run()
        self.collect(emitted, before)
        held = self.unit >= 0
        self.chunks[held] += 1
        lanes = self.lanes_of(np.arange(len(self.unit)))
        done = held & (drawn[lanes] >= self.task["wanted"][lanes]).all(axis=1)
        last = self.phase == len(self.phases) - 1
        leaving = np.flatnonzero((done & last) | (held & ~done & (self.chunks >= self.limit)))
        self.finished[self.unit[leaving]] = done[leaving]
        moving = np.flatnonzero(done & ~last)
        if len(moving):
            self.next_phase(moving, log_step_mean)
        units = self.unit[leaving]
        self.unit[leaving] = -1
        self.task["wanted"][self.lanes_of(leaving).ravel()] = 0
        return units

    def results(self) -> dict[str, NDArray]:
        """Draws on the model's own axis and statistics, (unit, chain, draw[, coord]); NaN where the budget ran out."""
        u = self.centre[:, None, None] + spread_out(self.whiten, self.draws)
        return {"u": u, **self.stats, "finished": self.finished, "modes": self.modes}
