"""Convergence diagnostics for a whole batch, on the host.

Rank-normalised split R-hat and bulk and tail effective sample size (Vehtari et al. 2021, Bayesian Analysis 16(2)), with the
tail quantiles pinned at 5% and 95%, and the energy fraction of missing information. Arrays are (..., chain, draw); leading
axes are a batch. Agreement with ArviZ is tested. NaN in, NaN out: a caller passes a value only if it is finite *and* within
its threshold.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri

type Draws = NDArray[np.float64]
"""(..., chain, draw)"""


def split_chains(draws: Draws) -> Draws:
    """Cut every chain in two halves, dropping a middle draw if odd."""
    half = draws.shape[-1] // 2
    return np.concatenate([draws[..., :half], draws[..., -half:]], axis=-2)


@lru_cache(maxsize=16)
def score_table(size: int) -> NDArray[np.float64]:
    """Normal scores of ranks 1, 1 1/2, 2, ... up to `size`."""
    return ndtri((np.arange(2.0, 2 * size + 1) / 2 - 0.375) / (size + 0.25))


class Sorted(NamedTuple):
    """Draws of all chains of a batch (row, chain * draw): as they are, and in ascending order with where each came from."""

    flat: Draws
    ascending: Draws
    order: NDArray[np.intp]


def sort_draws(draws: Draws) -> Sorted:
    """Pool the chains and sort."""
    flat = draws.reshape(-1, draws.shape[-2] * draws.shape[-1])
    order = np.argsort(flat, axis=-1)
    return Sorted(flat, np.take_along_axis(flat, order, axis=-1), order)


def normal_scores(sorted_draws: Sorted) -> Draws:
    """(row, chain * draw) normal scores of ranks; ties share their mean rank."""
    flat, ascending, order = sorted_draws
    scores, size = np.empty_like(flat), flat.shape[-1]
    # A chain that stays where it is draws the same again, so that few rows are without ties.
    place, edge = np.arange(size), np.ones((len(flat), 1), bool)
    differ = ascending[:, 1:] != ascending[:, :-1]
    first = np.maximum.accumulate(np.where(np.hstack([edge, differ]), place, 0), axis=-1)
    last = np.minimum.accumulate(np.where(np.hstack([differ, edge]), place, size)[:, ::-1], axis=-1)[:, ::-1]
    np.put_along_axis(scores, order, score_table(size)[first + last], axis=-1)
    scores[~np.isfinite(ascending[:, [0, -1]]).all(axis=-1)] = np.nan
    return scores


def rank_normalise(draws: Draws) -> Draws:
    """Replace draws by normal scores of their pooled ranks."""
    return normal_scores(sort_draws(draws)).reshape(draws.shape)


def quantile(ascending: Draws, probability: float) -> Draws:
    """(row, 1) quantiles of sorted draws, interpolated linearly."""
    place = probability * (ascending.shape[-1] - 1)
    low = int(place)
    part = place - low
    below, above = ascending[:, low, None], ascending[:, min(low + 1, ascending.shape[-1] - 1), None]
    return below + part * (above - below)


def plain_rhat(draws: Draws) -> NDArray[np.float64]:
    """sqrt of pooled over within-chain variance."""
    n = draws.shape[-1]
    between = draws.mean(-1).var(-1, ddof=1)
    within = draws.var(-1, ddof=1).mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between + (n - 1) / n * within) / within)


def autocovariance(draws: Draws, lags: int | None = None) -> Draws:
    """Biased autocovariance at so many lags, term by term; or at every lag, by FFT."""
    n, centred = draws.shape[-1], draws - draws.mean(-1, keepdims=True)
    if lags is not None:
        products = [np.einsum("...i,...i->...", centred[..., : n - k], centred[..., k:]) for k in range(lags)]
        return np.stack(products, axis=-1) / n
    size = next_fast_len(2 * n - 1, real=True)
    spectrum: Any = rfft(centred, size, axis=-1)
    products: Any = irfft(spectrum.real**2 + spectrum.imag**2, size, axis=-1)
    return products[..., :n] / n


FEW_LAGS = 16
"""Lags looked at first: where correlations have died out by then, as they mostly have, the others are not needed."""


def effective_size(draws: Draws) -> NDArray[np.float64]:
    """Effective sample size of the mean by Geyer's initial monotone sequence over pooled chains."""
    *batch, chains, n = draws.shape
    flat = draws.reshape(-1, chains, n)
    if n <= FEW_LAGS:
        return geyer_size(flat, autocovariance(flat))[0].reshape(batch)
    size, ended = geyer_size(flat, autocovariance(flat, FEW_LAGS))
    on = np.flatnonzero(~ended & np.isfinite(size))
    if len(on):
        size[on] = geyer_size(flat[on], autocovariance(flat[on]))[0]
    return size.reshape(batch)


def geyer_size(draws: Draws, covariance: Draws) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Effective sample size from autocovariances (row, chain, lag), and whether their positive pairs ended within the lags."""
    chains, n = draws.shape[1:]
    within = covariance[..., 0].mean(-1) * n / (n - 1)
    plus = within * (n - 1) / n + (draws.mean(-1).var(-1, ddof=1) if chains > 1 else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1.0 - (within[:, None] - covariance.mean(-2) * n / (n - 1)) / plus[:, None]
    rho[:, 0] = 1.0
    pairs = rho[:, : rho.shape[-1] // 2 * 2].reshape(len(rho), -1, 2).sum(-1)
    usable = np.logical_and.accumulate(pairs > 0, axis=-1)
    monotone = np.minimum.accumulate(np.where(usable, pairs, 0.0), axis=-1)
    total = chains * n
    tau = np.maximum(-1.0 + 2.0 * monotone.sum(-1), 1.0 / np.log10(total))
    return np.where(np.isfinite(plus) & (plus > 0), total / tau, np.nan), ~usable[:, -1]


class Measured(NamedTuple):
    """Of the draws' leading axes: rank-normalised split R-hat, the larger of the bulk's and the folded draws'; effective sample
    sizes of the rank-normalised draws, and the smaller one of the 5% and 95% quantile indicators."""

    rhat: NDArray[np.float64]
    ess_bulk: NDArray[np.float64]
    ess_tail: NDArray[np.float64]


MEASURED_AT_ONCE = 1 << 21
"""Draws worked on together, so that what is sorted and transformed stays in the cache."""


def measure(draws: Draws) -> Measured:
    """Measure everything at once; ranks are taken once."""
    *batch, chains, n = draws.shape
    flat = draws.reshape(-1, chains, n)
    rows = max(1, MEASURED_AT_ONCE // max(1, chains * n))
    parts = [measure_block(flat[begin : begin + rows]) for begin in range(0, len(flat), rows)]
    return Measured(*(np.concatenate(part).reshape(batch) for part in zip(*parts, strict=True)))


def measure_block(draws: Draws) -> Measured:
    """Measure (row, chain, draw); what is sorted once serves ranks, quantiles and the median."""
    split = split_chains(draws)
    pooled = sort_draws(split)
    scores = normal_scores(pooled).reshape(split.shape)
    with np.errstate(invalid="ignore"):  # infinite draws
        middle, *tails = (quantile(pooled.ascending, probability) for probability in (0.5, 0.05, 0.95))
        folded = np.abs(pooled.flat - middle).reshape(split.shape)
    low, high = ((pooled.flat <= cut).astype(float).reshape(split.shape) for cut in tails)
    bulk, *sizes = effective_size(np.stack([scores, low, high]))
    tail = np.where(np.isfinite(pooled.ascending[:, [0, -1]]).all(axis=-1), np.minimum(*sizes), np.nan)
    return Measured(np.maximum(plain_rhat(scores), plain_rhat(rank_normalise(folded))), bulk, tail)


def bfmi(energy: Draws) -> NDArray[np.float64]:
    """Energy Bayesian fraction of missing information, per chain."""
    change = np.diff(energy, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (change**2).sum(-1) / ((energy - energy.mean(-1, keepdims=True)) ** 2).sum(-1)


RHAT_PASS, ESS_PASS = 1.01, 400.0
SHARE_PASS = 0.4
"""Effective draws asked for per draw, where there are too few draws for `ESS_PASS`."""
DIVERGENT_PASS = 0.01
"""A posterior passes below this share of divergent draws. The gate warns from a tenth of it on: to draw anew until that is met
too takes a third longer (beta-binomial law), and the departure's funnels mostly lie between the two."""


RHAT_NEAR, ESS_NEAR = 1.1, 0.1
"""Within this R-hat, and with this share of the effective draws asked for, chains agree and are only too short."""


class Verdict(NamedTuple):
    """(unit,) whether a posterior converged; and if not, whether as many draws again may be all that it lacks."""

    good: NDArray[np.bool_]
    short: NDArray[np.bool_]


def judged(u: NDArray, diverged: NDArray, finished: NDArray) -> Verdict:
    """Judge posteriors: every coordinate has to pass R-hat and both effective sample sizes, and few draws may diverge.

    Draws u are (unit, chain, draw, coord), `diverged` (unit, chain, draw), `finished` (unit,).
    """
    draws = np.moveaxis(u, -1, 1)
    enough = min(ESS_PASS, SHARE_PASS * draws.shape[2] * draws.shape[3])
    measured = measure(draws)
    size = np.minimum(measured.ess_bulk, measured.ess_tail)
    sound = finished & (np.mean(diverged, axis=(1, 2)) < DIVERGENT_PASS)
    with np.errstate(invalid="ignore"):
        good = (measured.rhat <= RHAT_PASS) & (size >= enough)
        near = (measured.rhat <= RHAT_NEAR) & (size >= ESS_NEAR * enough)
    return Verdict(sound & good.all(axis=1), sound & ~good.all(axis=1) & near.all(axis=1))
