"""Sample many small posteriors: modes, whitening, NUTS in lanes, and stronger tiers for what does not converge.

Randomness is keyed by the digest of each posterior's data and by the seed, never by position, so a result does not depend
on what else is in the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import Arrays, taken, typed
from bayesscale.inference.ahead import rehearse
from bayesscale.inference.coordinates import Shares, shared_out
from bayesscale.inference.deck import Deck, deck_width
from bayesscale.inference.diagnostics import judged
from bayesscale.inference.funnel import Funnel, as_columns, bent, fit_funnel, knots_of, straight_modes, straight_target
from bayesscale.inference.placement import Start, start_around
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.inference.start import Mode, climb_pinned, find_modes
from bayesscale.inference.stock_nuts import LARGEST, Chains, last_tier, saturated
from bayesscale.model import Model, Target, own_target
from bayesscale.programs import Program


class Posterior(NamedTuple):
    """Draws of a batch, (unit, chain, draw[, coord]); `u` is on the model's own axis, `log_density` is of the sampler's.

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
    """Hash a digest and the seed to the two words of a key."""
    return np.frombuffer(hashlib.sha256(f"{seed}|{digest}".encode()).digest()[:8], np.uint32)


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

    `columns` are (unit, row) arrays and (unit,) facts as laid out by `units_of`. Units that do not converge draw on, or
    start over with smaller steps; after that curves go through stock NUTS, one at a time. What still fails comes back as it is,
    and the gate says so.
    """
    sampler, total = sampler or Sampler(), len(digests)
    columns = typed(columns)
    shares = shared_out(model, columns)
    compiled = rehearse_decks(shares, columns, sampler)
    keys = np.stack([unit_key(f"{digest}|{shares[0][0].name}", seed) for digest in digests])
    small = sampler.tiers > 0 and shares[0][0].dimension <= LARGEST
    last = own_target(model) if isinstance(model, Model) and small else None
    settled, failed, parts = 0, np.zeros(total, bool), []
    for (target, units), wait in zip(shares, compiled, strict=True):

        def so_far(done: int, lost: int, before: int = settled) -> None:
            progress(before + done - lost * (last is not None), total)

        part, failed[units] = sample_in_lanes(target, taken(columns, units), keys[units], sampler, wait, so_far)
        parts.append(part)
        settled += len(units) - int(failed[units].sum()) * (last is not None)
    posterior = joined(parts, shares)
    if last is not None:
        for done, i in enumerate(np.flatnonzero(failed).tolist(), settled + 1):
            chains = last_tier(last, taken(columns, i), keys[i], sampler.chains, sampler.draws)
            take_over(posterior, i, chains, tier=sampler.tiers + 1)
            progress(done, total)
    return posterior


def joined(parts: Sequence[Posterior], shares: Shares) -> Posterior:
    """Put units that were sampled in different coordinates back in their places."""
    if len(parts) == 1:
        return parts[0]
    place = np.argsort(np.concatenate([units for _, units in shares]))
    return Posterior(*(np.concatenate(arrays)[place] for arrays in zip(*parts, strict=True)))


def sample_in_lanes(
    target: Target,
    columns: Arrays,
    keys: NDArray,
    sampler: Sampler,
    compiled: Callable[[], object],
    progress: Callable[[int, int], None],
) -> tuple[Posterior, NDArray[np.bool_]]:
    """Sample units in one kind of coordinates, all tiers but the last; and which of them failed (unit,).

    `compiled` waits for what the deck needs; `progress` is called with how many were settled, and how many of those failed.
    """
    modes = find_modes(target, keys, columns, sampler.starts)
    funnel, sampled, data = None, target, columns
    if has_funnel(target, sampler):
        assert target.pivot is not None
        funnel = find_funnel(target, columns, modes, sampler.starts)
        modes, sampled = straight_modes(funnel, target.pivot, modes), straight_target(target)
        data = {**columns, **as_columns(funnel)}
    start, distinct = start_around(modes, keys, sampler)
    compiled()

    def own(units: NDArray, u: NDArray) -> NDArray:
        if funnel is not None:
            assert target.pivot is not None
            part = Funnel(*(array[units] for array in funnel))
            u = bent(part, target.pivot, u.reshape(len(u), -1, u.shape[-1])).reshape(u.shape)
        return restored(target, u, taken(columns, units))

    deck = Deck(sampled, data, keys, start, sampler, own)
    while not deck.done:
        deck.advance()
        progress(deck.settled, int(deck.failed.sum()))
    found = deck.results
    posterior = Posterior(
        u=found["u"],
        log_density=found["log_density"],
        energy=found["energy"],
        diverging=found["diverged"],
        leapfrogs=found["leapfrogs"],
        accept=found["accept"],
        saturated=found["saturated"],
        finished=found["finished"],
        distinct_modes=distinct,
        tier=deck.tier,
    )
    return posterior, deck.failed


def take_over(posterior: Posterior, i: int, chains: Chains, *, tier: int) -> None:
    """Put stock NUTS' draws in place of unit i's if they converged, or if the lanes had not come to an end with it."""
    converged = judged(chains.u[None], chains.diverging[None], np.array([True])).good[0]
    if converged or not posterior.finished[i]:
        found = {**chains._asdict(), "saturated": saturated(chains), "finished": True, "tier": tier}
        for name in ("u", "log_density", "energy", "diverging", "leapfrogs", "accept", "saturated", "finished", "tier"):
            getattr(posterior, name)[i] = found[name]


def rehearse_decks(shares: Shares, columns: Arrays, sampler: Sampler) -> list[Callable[[], object]]:
    """Compile what the decks need, while modes are searched; what is returned waits for each."""
    return [rehearse_deck(target, taken(columns, units), sampler) for target, units in shares]


def rehearse_deck(target: Target, columns: Arrays, sampler: Sampler) -> Callable[[], object]:
    """Compile what one deck needs."""
    straightened, p, chains = has_funnel(target, sampler), target.dimension, sampler.chains
    some = taken(columns, slice(sampler.lanes))
    units = len(next(iter(some.values())))

    def step() -> None:
        flat, square = np.zeros((units, p)), np.zeros((units, p, p))
        data = some | (as_columns(Funnel(flat, square, flat, flat)) if straightened else {})
        start = Start(flat, flat if sampler.starts == 0 else square, np.zeros((units, chains, p)), np.zeros(units))
        sampled = straight_target(target) if straightened else target
        deck = Deck(sampled, data, np.zeros((units, 2), np.uint32), start, replace(sampler, draws=1), lambda _, u: u)
        deck.enter()
        deck.run()
        one = taken(some, slice(1))
        restored(target, np.random.default_rng(0).normal(size=(1, chains, sampler.draws, p)), one)

    shapes = tuple((name, column.shape[1:]) for name, column in some.items())
    return rehearse((target, shapes, deck_width(units * chains, sampler.lanes), sampler), step)


FEWEST_KNOTS = 4
"""Knots a funnel can be seen with; with fewer starts than that it is not looked for."""


def has_funnel(target: Target, sampler: Sampler) -> bool:
    """Whether a funnel is looked for, and straightened."""
    return target.pivot is not None and sampler.starts >= FEWEST_KNOTS


def find_funnel(target: Target, columns: Arrays, modes: Mode, count: int) -> Funnel:
    """Fit every unit's funnel; as many knots as starts, so that one compiled program climbs to both."""
    assert target.pivot is not None
    best = np.asarray(modes.u)[np.arange(len(modes.u)), np.argmax(modes.log_density, axis=1)]
    knots = knots_of(count)
    return fit_funnel(target.pivot, knots, climb_pinned(target, columns, best, knots))


@lru_cache(maxsize=128)
def restoring(target: Target) -> Callable[[NDArray, Arrays], jax.Array]:
    """Compile the way back to the model's own coordinates, for u (draw, coord) of one unit."""
    assert target.restore is not None
    return Program(jax.vmap(target.restore, in_axes=(0, None)))


def restored(target: Target, u: NDArray, columns: Arrays) -> NDArray:
    """Draws (unit, chain, draw, coord) on the model's own coordinates; missing draws stay missing."""
    if target.restore is None:
        return u
    back = restoring(target)
    facts = [{name: column[i] for name, column in columns.items() if column.ndim == 1} for i in range(len(u))]
    own = [np.asarray(back(one.reshape(-1, u.shape[-1]), fact)) for one, fact in zip(u, facts, strict=True)]
    return np.where(np.isfinite(u).all(axis=-1, keepdims=True), np.reshape(own, u.shape), np.nan)
