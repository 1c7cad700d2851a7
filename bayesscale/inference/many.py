"""Sample many small posteriors: modes, whitening, NUTS in lanes, and a stronger tier for what does not converge.

Randomness is keyed by the digest of each posterior's data and by the seed, never by position, so a result does not depend
on what else is in the batch.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesscale.inference import diagnostics
from bayesscale.inference.lanes import Kernel, Lane, Task, choose, kernel_of
from bayesscale.inference.start import Mode, find_large_mode, find_mode
from bayesscale.model import Model, Target, target_of

type Progress = Callable[[int, int], None]
"""Called with (finished, total)."""
type Arrays = Mapping[str, NDArray]


@dataclass(frozen=True)
class Sampler:
    """Settings of the sampler.

    Attributes
    ----------
    chains, draws : per posterior, after warm-up.
    warmup : trajectories in each phase of warm-up; the metric is updated between phases.
    target_accept : mean acceptance the step size aims at.
    max_depth : largest tree has 2^max_depth leapfrogs.
    starts : places the mode search begins at; 0 climbs from the origin and whitens each axis alone.
    lanes : chains advanced together; part of a result's identity, since rounding depends on it.
    steps : leapfrogs per chunk.
    patience : a posterior is given up when it used more than this many leapfrogs per trajectory on average.
    spread : standard deviations the chains start apart.
    tiers : stronger tiers tried on what fails.
    keep : draws per chain kept for prediction and storage; diagnostics see all.
    """

    chains: int = 4
    draws: int = 1000
    warmup: tuple[int, ...] = (60, 120, 120)
    target_accept: float = 0.9
    max_depth: int = 7
    starts: int = 8
    lanes: int = 128
    steps: int = 128
    patience: int = 100
    spread: float = 1.5
    tiers: int = 1
    keep: int = 250

    def stronger(self) -> Sampler:
        """Return the settings of the next tier: longer, smaller steps, deeper trees."""
        return replace(
            self,
            draws=2 * self.draws,
            warmup=(*(2 * n for n in self.warmup), 400),
            target_accept=0.5 * (1.0 + self.target_accept),
            max_depth=self.max_depth + 2,
            patience=2 * self.patience,
        )


RHAT_PASS, ESS_PASS = 1.01, 400.0


class Posterior(NamedTuple):
    """Draws of a batch, (unit, chain, draw[, coord]).

    `distinct_modes` counts separate maxima that carry mass; `finished` is False where the step budget ran out, and the
    missing draws are NaN.
    """

    u: NDArray
    log_density: NDArray
    energy: NDArray
    diverging: NDArray
    leapfrogs: NDArray
    accept: NDArray
    saturated: NDArray
    finished: NDArray
    distinct_modes: NDArray
    tier: NDArray


def unit_key(digest: str, seed: int) -> NDArray[np.uint32]:
    """Fold all 256 bits of a digest into the seed's key."""
    words = np.frombuffer(hashlib.sha256(digest.encode()).digest(), np.uint32)
    key = jax.random.key(seed)
    for word in words:
        key = jax.random.fold_in(key, word)
    return np.asarray(jax.random.key_data(key))


@lru_cache(maxsize=128)
def mode_finder(target: Target, starts: int) -> Callable[[NDArray, Arrays], Mode]:
    """Compile the mode search of a model: (unit, key) and columns to (unit, start) modes."""

    def search(key_data: jax.Array, columns: dict[str, jax.Array]) -> Mode:
        key = jax.random.wrap_key_data(key_data)
        draws = jax.vmap(lambda k: target.prior_draw(k, columns))(jax.random.split(key, starts))
        # Half of the starts are pulled towards the prior's middle, where most posteriors are reached in a few steps.
        pull = jnp.where(jnp.arange(starts) % 2 == 0, 0.3, 1.0)[:, None]
        centre = jnp.mean(draws, axis=0)
        return jax.vmap(partial(find_mode, target.density, columns=columns))(centre + pull * (draws - centre))

    return jax.jit(jax.vmap(search))


def find_modes(target: Target, keys: NDArray, columns: Arrays, starts: int) -> Mode:
    """Search modes in batches of one fixed size; with no starts, climb once from the origin (large posteriors)."""
    if starts == 0:
        origin = np.zeros(target.dimension)
        units = [{name: column[i] for name, column in columns.items()} for i in range(len(keys))]
        found = [find_large_mode(target.density, origin, unit) for unit in units]  # pyright: ignore[reportArgumentType]
        return jax.tree.map(lambda *arrays: np.stack([np.asarray(a) for a in arrays]), *found)
    size, parts = max(1, min(16, 1024 // (starts * target.dimension))), []
    search = mode_finder(target, starts)
    for begin in range(0, len(keys), size):
        index = np.minimum(np.arange(begin, begin + size), len(keys) - 1)
        found = search(keys[index], {name: column[index] for name, column in columns.items()})
        real = min(size, len(keys) - begin)
        parts.append(jax.tree.map(lambda a: np.asarray(a)[:real], found))  # noqa: B023
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


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
    values, maps = modes.log_density[i], modes.whiten[i]
    if len(values) == 1:
        return [0]
    mass = values + np.linalg.slogdet(maps)[1]
    order = np.argsort(np.where(np.isfinite(values), -values, np.inf))
    chosen = [int(order[0])]
    for j in order[1:]:
        if not np.isfinite(values[j]) or mass[j] < mass[chosen[0]] - 5.0:
            continue
        distance = [np.linalg.norm(pull_back(maps[c], modes.u[i, j] - modes.u[i, c])) for c in chosen]
        if min(distance) > 3.0:
            chosen.append(int(j))
    return chosen


def start_unit(index: int, key: NDArray, modes: Mode, sampler: Sampler) -> Unit:
    """Place the chains over-dispersed around every mode found."""
    chosen = separate_modes(modes, index)
    best = chosen[0]
    centre, whiten = modes.u[index, best], modes.whiten[index, best]
    generator = np.random.default_rng(key.astype(np.uint32))
    noise = sampler.spread * generator.standard_t(4, size=(sampler.chains, len(centre)))
    offsets = [pull_back(whiten, modes.u[index, chosen[c % len(chosen)]] - centre) for c in range(sampler.chains)]
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


def sample_tier(
    target: Target, columns: Arrays, keys: NDArray, modes: Mode, sampler: Sampler, progress: Progress
) -> list[dict[str, Any]]:
    """Run one tier over all units."""
    total, chains = len(keys), sampler.chains
    waiting = deque(range(total))
    results: list[dict[str, Any]] = [{} for _ in range(total)]
    deck = Deck(target, columns, sampler)
    trajectories = sum(sampler.warmup) + sampler.draws
    limit = max(4, -(-sampler.patience * trajectories // sampler.steps))
    finished = 0
    while finished < total:
        for slot, held in enumerate(deck.slots):
            if held is None and waiting:
                i = waiting.popleft()
                deck.place(slot, start_unit(i, keys[i], modes, sampler))
        emitted, drawn, log_step_mean = deck.run()
        for slot, unit in enumerate(deck.slots):
            if unit is None:
                continue
            lanes = np.arange(slot * chains, (slot + 1) * chains)
            collect(unit, lanes, emitted)
            unit.chunks += 1
            done = bool((drawn[lanes] >= np.asarray(deck.task.wanted)[lanes]).all())
            if done and unit.phase < len(sampler.warmup):
                next_phase(unit, log_step_mean[lanes], last=unit.phase == len(sampler.warmup) - 1)
                deck.place(slot, unit)
            elif done or unit.chunks >= limit:
                results[unit.index] = finish_unit(unit, sampler) | {"finished": done, "modes": unit.modes}
                deck.clear(slot)
                finished += 1
                progress(finished, total)
    return results


def converged(result: Mapping[str, Any]) -> bool:
    """Whether every coordinate passes R-hat and both effective sample sizes."""
    draws = np.moveaxis(result["u"], -1, 0)
    if not (result["finished"] and np.isfinite(draws).all()):
        return False
    enough = min(ESS_PASS, 0.1 * draws.shape[1] * draws.shape[2])
    return bool(
        (diagnostics.rhat(draws) <= RHAT_PASS).all()
        and (diagnostics.ess_bulk(draws) >= enough).all()
        and (diagnostics.ess_tail(draws) >= enough).all()
        and np.mean(result["diverged"]) < 0.01
    )


def silent(done: int, total: int) -> None:
    """Report nothing."""


def sample_many(
    model: Model | Target,
    columns: Arrays,
    digests: Sequence[str],
    *,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Posterior:
    """Sample the posterior of every unit with NUTS.

    `columns` are (unit, row) arrays and (unit,) facts as laid out by `units_of`. Units that do not converge are run again by
    longer and more careful tiers; what still fails comes back as it is, and the gate says so.
    """
    sampler = sampler or Sampler()
    target = target_of(model) if isinstance(model, Model) else model
    keys = np.stack([unit_key(f"{digest}|{target.name}", seed) for digest in digests])
    columns = {name: np.asarray(column, float if name != "task" else int) for name, column in columns.items()}
    modes = find_modes(target, keys, columns, sampler.starts)
    results: list[dict[str, Any]] = [{} for _ in digests]
    pending, settings, tier = np.arange(len(digests)), sampler, 0
    while len(pending) and tier <= sampler.tiers:
        settled = len(digests) - len(pending)
        report = (lambda done, _: progress(done, len(digests))) if tier == 0 else silent
        subset = {name: column[pending] for name, column in columns.items()}
        chosen = Mode(*(array[pending] for array in modes))
        batch = [thin(r, sampler.draws) for r in sample_tier(target, subset, keys[pending], chosen, settings, report)]
        for i, result in zip(pending, batch, strict=True):
            results[i] = result | {"tier": tier}
        failed = np.array([not converged(result) for result in batch], bool)
        pending, settings, tier = pending[failed], settings.stronger(), tier + 1
        progress(max(settled, len(digests) - len(pending)), len(digests))
    return stack_results(results)


def thin(result: Mapping[str, Any], draws: int) -> dict[str, Any]:
    """Keep every k-th draw so that every unit returns the same number."""
    every = result["u"].shape[1] // draws
    return {name: value[:, ::every] if isinstance(value, np.ndarray) else value for name, value in result.items()}


def stack_results(results: Sequence[Mapping[str, Any]]) -> Posterior:
    def stack(name: str) -> NDArray:
        return np.stack([np.asarray(result[name]) for result in results])

    return Posterior(
        u=stack("u"),
        log_density=stack("log_density"),
        energy=stack("energy"),
        diverging=stack("diverged"),
        leapfrogs=stack("leapfrogs"),
        accept=stack("accept"),
        saturated=stack("saturated"),
        finished=stack("finished"),
        distinct_modes=stack("modes"),
        tier=stack("tier"),
    )
