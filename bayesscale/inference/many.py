"""Sample many small posteriors: modes, whitening, NUTS in lanes, and stronger tiers for what does not converge.

Randomness is keyed by the digest of each posterior's data and by the seed, never by position, so a result does not depend
on what else is in the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.inference import diagnostics
from bayesscale.inference.deck import Arrays, Deck
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.inference.start import Mode, find_modes
from bayesscale.model import Model, Target, target_of

RHAT_PASS, ESS_PASS = 1.01, 400.0
SHARE_PASS = 0.4
"""Effective draws asked for per draw, where there are too few draws for `ESS_PASS`."""
DIVERGENT_PASS = 0.01
"""A posterior passes below this share of divergent draws."""


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


def sample_tier(
    target: Target, columns: Arrays, keys: NDArray, modes: Mode, sampler: Sampler, progress: Progress
) -> dict[str, NDArray]:
    """Run one tier over all units; results as of `Deck.results`."""
    deck, total, finished = Deck(target, columns, keys, modes, sampler), len(keys), 0
    waiting = np.arange(total)
    while finished < total:
        waiting = deck.enter(waiting)
        finished += len(deck.advance())
        progress(finished, total)
    return deck.results()


def converged(result: Mapping[str, NDArray]) -> NDArray:
    """(unit,) whether every coordinate passes R-hat and both effective sample sizes, and few draws diverge."""
    draws = np.moveaxis(result["u"], -1, 1)
    enough = min(ESS_PASS, SHARE_PASS * draws.shape[2] * draws.shape[3])
    measured = diagnostics.measure(draws)
    with np.errstate(invalid="ignore"):
        good = (measured.rhat <= RHAT_PASS) & (measured.ess_bulk >= enough) & (measured.ess_tail >= enough)
        return result["finished"] & good.all(axis=1) & (np.mean(result["diverged"], axis=(1, 2)) < DIVERGENT_PASS)


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
    total, results, tiers = len(digests), {}, np.zeros(len(digests), int)
    pending, settings = np.arange(total), sampler
    for tier in range(sampler.tiers + 1):
        settled = total - len(pending)
        report = (lambda done, _: progress(done, total)) if tier == 0 else silent
        subset = {name: column[pending] for name, column in columns.items()}
        chosen = jax.tree.map(lambda array: np.asarray(array)[pending], modes)  # noqa: B023
        batch = sample_tier(target, subset, keys[pending], chosen, settings, report)
        failed = ~converged(batch)
        for name, value in batch.items():
            kept = thinned(value, sampler.draws) if value.ndim > 1 else value
            results.setdefault(name, kept)[pending] = kept
        tiers[pending] = tier
        pending, settings = pending[failed], settings.stronger()
        progress(max(settled, total - len(pending)), total)
        if not len(pending):
            break
    return Posterior(
        u=restored(target, results["u"], columns),
        log_density=results["log_density"],
        energy=results["energy"],
        diverging=results["diverged"],
        leapfrogs=results["leapfrogs"],
        accept=results["accept"],
        saturated=results["saturated"],
        finished=results["finished"],
        distinct_modes=results["modes"],
        tier=tiers,
    )


@lru_cache(maxsize=128)
def restoring(target: Target) -> Callable[[NDArray, Arrays], jax.Array]:
    """Compile the way back to the model's own coordinates, for u (unit, draw, coord)."""
    assert target.restore is not None
    return jax.jit(jax.vmap(jax.vmap(target.restore, in_axes=(0, None))))


def restored(target: Target, u: NDArray, columns: Arrays) -> NDArray:
    """Draws (unit, chain, draw, coord) on the model's own coordinates; missing draws stay missing."""
    if target.restore is None:
        return u
    facts = {name: column for name, column in columns.items() if column.ndim == 1}
    own = np.asarray(restoring(target)(u.reshape(len(u), -1, u.shape[-1]), facts)).reshape(u.shape)
    return np.where(np.isfinite(u).all(axis=-1, keepdims=True), own, np.nan)


def thinned(values: NDArray, draws: int) -> NDArray:
    """Keep every k-th draw, so that all tiers return the same number."""
    return values[:, :, :: values.shape[2] // draws]
