"""The deck: posteriors in lanes, between chunks.

A *unit* is one posterior on its way: started over-dispersed around every mode, adapted in phases, drawn from, and judged. One
that does not converge stays in the deck: it draws on, or starts over with smaller steps. The `Deck` holds the units that are
being advanced, a slot of `chains` lanes each; after each chunk the host collects what was drawn, pools step sizes and metrics
over a unit's chains, and hands freed slots to the next units. Everything is done for all slots at once: a loop in Python over a
thousand units costs more than sampling them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import Arrays
from bayesscale.inference.devices import count_devices, over_devices
from bayesscale.inference.diagnostics import judged
from bayesscale.inference.lanes import Kernel, Lanes, Task, kernel_of
from bayesscale.inference.placement import Start, first_log_step, pull_back, spread_out, updated_metric
from bayesscale.inference.settings import Sampler
from bayesscale.model import Target

type Own = Callable[[NDArray, NDArray], NDArray]
"""Takes draws u (unit, chain, draw, coord) of units (unit,) to the model's own coordinates."""

SPARE = 8
"""Lanes at the end that stay empty. Compiled loops may treat their last few elements apart from the rest and round them
otherwise; a unit in those lanes would get other draws than in any other place."""
FIELDS = ("log_density", "energy", "diverged", "leapfrogs", "accept", "saturated")
NARROW = 40
"""Lanes of a deck for few chains. Draws are the same to the last bit in both (tested)."""
TOGETHER = 16
"""Units judged together: one by one, judging takes as long as a chunk."""


def deck_width(chains: int, widest: int) -> int:
    """Lanes for this many chains: few would leave most of a wide deck empty, and more than two widths compile more often."""
    return min(NARROW, widest) if chains <= NARROW - SPARE else widest


class Drawn(NamedTuple):
    """What units left the deck with: their metric and step size, x (unit, chain, draw, coord), statistics (unit, chain, draw),
    and whether all was drawn."""

    units: NDArray
    whiten: NDArray
    log_step: NDArray
    x: NDArray
    stats: dict[str, NDArray]
    finished: NDArray


class Deck:
    """The lanes and what lies in them. Host arrays are (..., lane), mutated between chunks only."""

    def __init__(
        self, target: Target, columns: Arrays, keys: NDArray, start: Start, sampler: Sampler, own: Own
    ) -> None:
        self.columns, self.keys, self.sampler, self.own = columns, keys, sampler, own
        self.kernel: Kernel = kernel_of(target, sampler.steps, max(sampler.max_depth, sampler.deepest))
        self.tiers = [sampler]
        for _ in range(sampler.tiers):
            self.tiers.append(self.tiers[-1].stronger())
        units, p, chains = len(keys), target.dimension, sampler.chains
        self.start = Start(*(part.copy() for part in start))
        self.tier, self.waiting = np.zeros(units, int), np.arange(units)
        self.unjudged: list[Drawn] = []
        # Draws a unit is to have, and those of them from earlier tiers: how many, and x and statistics by unit.
        self.total, self.carried = np.full(units, sampler.draws), np.zeros(units, int)
        self.kept: dict[int, tuple[NDArray, dict[str, NDArray]]] = {}
        self.settled, self.failed = 0, np.zeros(units, bool)
        self.results = {"u": np.full((units, chains, sampler.draws, p), np.nan), "finished": np.zeros(units, bool)}
        self.results |= {name: np.full((units, chains, sampler.draws), np.nan) for name in FIELDS}

        devices = count_devices()
        self.lay_out(deck_width(-(-units * chains // devices), sampler.lanes))
        lanes, slots = devices * self.width, min(units, devices * self.slots_per_device)
        self.unit, self.phase, self.chunks = np.full(slots, -1), np.zeros(slots, int), np.zeros(slots, int)
        # Where units stand: the metric and the step size of this phase.
        self.whiten, self.x, self.log_step = (part[np.zeros(slots, int)].copy() for part in start[1:])
        longest = max((*sampler.warmup, sampler.draws))
        self.drawn_x = np.zeros((slots, chains, longest, p))
        self.drawn = {name: np.zeros((slots, chains, longest)) for name in FIELDS}
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
        self.handed: Task | None = None  # what the lanes work on, as last handed to the device

    @property
    def done(self) -> bool:
        """Whether every unit has been settled."""
        return self.settled == len(self.tier)

    def lay_out(self, width: int) -> None:
        """Fix the lanes and slots of each device; every device keeps spare lanes at its end."""
        chains = self.sampler.chains
        self.width = -(-max(chains, width - SPARE) // SPARE) * SPARE + SPARE
        self.slots_per_device = (self.width - SPARE) // chains

    def lanes_of(self, slots: NDArray) -> NDArray:
        """Lanes of these slots, (slot, chain)."""
        device, slot = np.divmod(slots, self.slots_per_device)
        return (device * self.width + slot * self.sampler.chains)[:, None] + np.arange(self.sampler.chains)

    def slots_of(self, lanes: NDArray) -> tuple[NDArray, NDArray]:
        """Slot and chain of lanes that are in use."""
        device, lane = np.divmod(lanes, self.width)
        slot, chain = np.divmod(lane, self.sampler.chains)
        return device * self.slots_per_device + slot, chain

    def settings(self, slots: NDArray, values: Any) -> NDArray:
        """One value per slot, by the tier of its unit."""
        return np.array([values(tier) for tier in self.tiers])[self.tier[self.unit[slots]]]

    def place(self, slots: NDArray) -> None:
        """Hand the slots' units, at their positions and in their phases, to the lanes."""
        chains, lanes = self.sampler.chains, self.lanes_of(slots).ravel()
        units, phase = self.unit[slots], self.phase[slots]
        owner = np.repeat(units, chains)
        self.task["centre"][:, lanes] = self.start.centre[owner].T
        self.task["whiten"][..., lanes] = np.moveaxis(np.repeat(self.whiten[slots], chains, axis=0), 0, -1)
        for name, column in self.columns.items():
            self.rows[name][..., lanes] = np.moveaxis(column[owner], 0, -1)
        wanted = self.wanted(slots)
        self.task["wanted"][lanes] = np.repeat(wanted, chains)
        self.task["adapting"][lanes] = np.repeat(~self.last_phase(slots), chains)
        self.task["target_accept"][lanes] = np.repeat(self.settings(slots, lambda s: s.target_accept), chains)
        self.task["max_depth"][lanes] = np.repeat(self.settings(slots, lambda s: s.max_depth), chains)
        salt = (16 * self.tier[units] + phase) * chains
        self.salt[lanes] = np.repeat(salt, chains) + np.tile(np.arange(chains), len(units))
        self.lane_key[:, lanes] = self.keys[owner].T
        self.lane_x[:, lanes] = self.x[slots].reshape(len(lanes), -1).T
        self.lane_log_step[lanes] = np.repeat(self.log_step[slots], chains)
        self.changed[lanes], self.handed = True, None
        self.reserve(int(wanted.max()))

    def wanted(self, slots: NDArray) -> NDArray:
        """Trajectories each slot's phase takes."""
        units = self.unit[slots]
        longest = max(len(tier.warmup) for tier in self.tiers) + 1
        table = np.array([(*tier.warmup, *(0,) * (longest - len(tier.warmup))) for tier in self.tiers])
        draws = self.total[units] - self.carried[units]
        return np.where(self.last_phase(slots), draws, table[self.tier[units], self.phase[slots]])

    def last_phase(self, slots: NDArray) -> NDArray:
        """Whether slots are past their warm-up."""
        return self.phase[slots] == self.settings(slots, lambda s: len(s.warmup))

    def patience(self, slots: NDArray) -> NDArray:
        """Chunks after which each slot's unit is given up."""
        trajectories = self.settings(slots, lambda s: sum(s.warmup)) + self.total[self.unit[slots]]
        return np.maximum(4, -(-self.sampler.patience * trajectories // self.sampler.steps))

    def reserve(self, draws: int) -> None:
        """Make room for so many draws."""
        more = draws - self.drawn_x.shape[2]
        if more > 0:
            self.drawn_x = np.pad(self.drawn_x, ((0, 0), (0, 0), (0, more), (0, 0)))
            self.drawn = {name: np.pad(values, ((0, 0), (0, 0), (0, more))) for name, values in self.drawn.items()}

    def enter(self) -> None:
        """Fill empty slots with waiting units."""
        free = np.flatnonzero(self.unit < 0)[: len(self.waiting)]
        if len(free):
            units, self.waiting = self.waiting[: len(free)], self.waiting[len(free) :]
            self.unit[free], self.chunks[free] = units, 0
            # What brings draws along is past its warm-up.
            self.phase[free] = np.where(self.carried[units] > 0, self.settings(free, lambda s: len(s.warmup)), 0)
            self.whiten[free], self.x[free], self.log_step[free] = (part[units] for part in self.start[1:])
            self.place(free)

    def run(self) -> tuple[Any, NDArray, NDArray, NDArray]:
        """Advance one chunk: what was emitted, draws per lane before and after, and averaged log step sizes."""
        # Copies: jax may read a host array after the call returns, and these are written to between chunks.
        if self.handed is None:
            columns = jax.tree.map(np.copy, self.rows)
            self.handed = over_devices(Task(**jax.tree.map(np.copy, self.task), columns=columns))  # pyright: ignore[reportArgumentType]
        if self.changed.any():
            new = over_devices(tuple(map(np.copy, (self.lane_key, self.salt, self.lane_x, self.lane_log_step))))
            kernel, old = self.kernel, self.lanes
            self.lanes = (
                kernel.fill(*new) if old is None else kernel.refill(old, over_devices(self.changed.copy()), *new)
            )
            self.changed[:] = False
        lanes = self.lanes
        assert lanes is not None  # the first units have just been placed
        before = np.array(lanes.drawn)
        self.lanes, emitted = self.kernel.run(lanes, self.handed)
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
        slot, chain = self.slots_of(lane)
        to = (slot, chain, place[step, lane].astype(int))
        self.drawn_x[to] = emitted.x[step, :, lane]
        for name in FIELDS:
            self.drawn[name][to] = getattr(emitted, name)[step, lane]

    def next_phase(self, slots: NDArray, log_step_mean: NDArray) -> None:
        """Pool step sizes over chains; unless warm-up is over, whiten once more by the covariance of the draws."""
        self.log_step[slots] = log_step_mean[self.lanes_of(slots)].mean(axis=1)
        wanted, again = self.wanted(slots), self.phase[slots] < self.settings(slots, lambda s: len(s.warmup) - 1)
        for number in np.unique(wanted):
            group = slots[wanted == number]
            self.x[group] = self.drawn_x[group, :, number - 1]
            group = slots[(wanted == number) & again]
            if len(group):
                recent = self.drawn_x[group, :, number // 2 : number]
                pooled = recent.reshape(len(group), -1, recent.shape[-1])
                self.whiten[group], root = updated_metric(self.whiten[group], pooled)
                self.x[group] = pull_back(root, self.x[group])
                self.log_step[group] = first_log_step(recent.shape[-1])
        self.phase[slots] += 1
        self.place(slots)

    def narrow(self) -> None:
        """Move the last few units to a narrow deck."""
        held = np.flatnonzero(self.unit >= 0)
        if self.lanes is None or len(self.waiting) or self.width <= NARROW:
            return
        slots = count_devices() * ((NARROW - SPARE) // self.sampler.chains)
        if len(held) > slots:
            return
        kept = np.concatenate([held, np.flatnonzero(self.unit < 0)[: slots - len(held)]])
        old = self.lanes_of(kept).ravel()
        self.lay_out(NARROW)
        # Lanes in no slot come from the last one, which is spare.
        lanes = np.full(count_devices() * self.width, len(self.salt) - 1)
        lanes[self.lanes_of(np.arange(len(kept))).ravel()] = old
        self.lanes, self.handed = over_devices(jax.tree.map(lambda a: np.asarray(a)[..., lanes], self.lanes)), None
        self.task, self.rows = ({name: a[..., lanes] for name, a in host.items()} for host in (self.task, self.rows))
        for name in ("lane_key", "salt", "lane_x", "lane_log_step", "changed"):
            setattr(self, name, getattr(self, name)[..., lanes])
        for name in ("unit", "phase", "chunks", "whiten", "x", "log_step", "drawn_x"):
            setattr(self, name, getattr(self, name)[kept])
        self.drawn = {name: values[kept] for name, values in self.drawn.items()}

    def advance(self) -> None:
        """Run a chunk and move units on."""
        self.enter()
        self.narrow()
        emitted, before, drawn, log_step_mean = self.run()
        self.collect(emitted, before)
        held = np.flatnonzero(self.unit >= 0)
        self.chunks[held] += 1
        lanes = self.lanes_of(held)
        done, last = (drawn[lanes] >= self.task["wanted"][lanes]).all(axis=1), self.last_phase(held)
        leaving = (done & last) | (~done & (self.chunks[held] >= self.patience(held)))
        if (done & ~last).any():
            self.next_phase(held[done & ~last], log_step_mean)
        if leaving.any():
            self.leave(held[leaving], done[leaving], drawn)
        left = sum(len(part.units) for part in self.unjudged)
        if left >= TOGETHER or (left and not len(self.waiting)):
            self.judge()

    def leave(self, slots: NDArray, done: NDArray, drawn: NDArray) -> None:
        """Take units out of their slots."""
        units = self.unit[slots]
        total, carried = self.total[units], self.carried[units]
        for all_draws, before in sorted(set(zip(total.tolist(), carried.tolist(), strict=True))):
            together = (total == all_draws) & (carried == before)
            group, finished, number = slots[together], done[together], all_draws - before
            missing = ~finished[:, None, None] & (np.arange(number) >= drawn[self.lanes_of(group)][..., None])
            # A unit out of patience may not have come to its last phase.
            missing |= ~self.last_phase(group)[:, None, None]
            self.reserve(number)
            x = np.where(missing[..., None], np.nan, self.drawn_x[group, :, :number])
            stats = {name: np.where(missing, np.nan, values[group, :, :number]) for name, values in self.drawn.items()}
            if before:
                earlier = [self.kept.pop(unit) for unit in self.unit[group]]
                x = np.concatenate([[part for part, _ in earlier], x], axis=2)
                for name, values in stats.items():
                    stats[name] = np.concatenate([[part[name] for _, part in earlier], values], axis=2)
            self.unjudged.append(Drawn(self.unit[group], self.whiten[group], self.log_step[group], x, stats, finished))
        self.unit[slots] = -1
        self.task["wanted"][self.lanes_of(slots).ravel()], self.handed = 0, None

    def judge(self) -> None:
        """Record what left; units that have not converged wait for the next tier."""
        for number in {part.x.shape[2] for part in self.unjudged}:
            parts = [part for part in self.unjudged if part.x.shape[2] == number]
            drawn = jax.tree.map(lambda *pieces: np.concatenate(pieces), *parts)
            units, stats, finished = drawn.units, drawn.stats, drawn.finished
            u = self.start.centre[units, None, None] + spread_out(drawn.whiten, drawn.x)
            every = number // self.sampler.draws
            for name, values in stats.items():
                self.results[name][units] = values[:, :, ::every]
            self.results["u"][units], self.results["finished"][units] = self.own(units, u[:, :, ::every]), finished
            # Judged by the draws that are returned, thinned to the same number for all units.
            verdict = judged(self.results["u"][units], self.results["diverged"][units], finished)
            again = ~verdict.good & (self.tier[units] + 1 < len(self.tiers))
            self.failed[units] = ~verdict.good & ~again
            self.tier[units[again]] += 1
            # Ahead of new units: the longest work begun last would be done alone, in a deck all but empty.
            self.waiting = np.concatenate([units[again], self.waiting])
            self.draw_on(jax.tree.map(lambda part: part[again & verdict.short], drawn))  # noqa: B023
            self.start_over(jax.tree.map(lambda part: part[again & ~verdict.short], drawn))  # noqa: B023
            self.settled += int((~again).sum())
        self.unjudged = []

    def draw_on(self, drawn: Drawn) -> None:
        """Let units that only lack draws draw as many again, with their metric and step size."""
        units = drawn.units
        self.total[units] = 2 * drawn.x.shape[2]
        self.start.whiten[units], self.start.log_step[units] = drawn.whiten, drawn.log_step
        self.start.x[units], self.carried[units] = drawn.x[:, :, -1], drawn.x.shape[2]
        for i, unit in enumerate(units):
            self.kept[unit] = drawn.x[i], {name: values[i] for name, values in drawn.stats.items()}

    def start_over(self, drawn: Drawn) -> None:
        """Draw units anew, with smaller steps, from where their chains ended, whitened by the covariance of all draws.

        About each chain's own mean, so that one that has gone elsewhere does not blow up the metric. What did not finish starts
        from where it started. As few draws as in the beginning: with smaller steps they may do.
        """
        self.carried[drawn.units], self.total[drawn.units] = 0, self.sampler.draws
        units, whiten, x = (part[drawn.finished] for part in (drawn.units, drawn.whiten, drawn.x))
        if len(units):
            self.start.log_step[units] = first_log_step(x.shape[-1])
            centred = (x - x.mean(axis=2, keepdims=True)).reshape(len(units), -1, x.shape[-1])
            self.start.whiten[units], root = updated_metric(whiten, centred)
            self.start.x[units] = pull_back(root, x[:, :, -1])
