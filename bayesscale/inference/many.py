"""Sample many small posteriors: modes, whitening, NUTS in lanes, and a stronger tier for what does not converge.

Randomness is keyed by the digest of each posterior's data and by the seed, never by position, so a result does not depend
on what else is in the batch.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesscale.inference import diagnostics
from bayesscale.inference.deck import Arrays, Deck, collect, finish_unit, next_phase, start_unit
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.inference.start import Mode, find_large_mode, find_mode
from bayesscale.model import Model, Target, target_of

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
        found = [find_large_mode(target.density, origin, unit) for unit in units]
        return jax.tree.map(lambda *arrays: np.stack([np.asarray(a) for a in arrays]), *found)
    size, parts = max(1, min(16, 1024 // (starts * target.dimension))), []
    search = mode_finder(target, starts)
    for begin in range(0, len(keys), size):
        index = np.minimum(np.arange(begin, begin + size), len(keys) - 1)
        found = search(keys[index], {name: column[index] for name, column in columns.items()})
        real = min(size, len(keys) - begin)
        parts.append(jax.tree.map(lambda a: np.asarray(a)[:real], found))  # noqa: B023
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


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
