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
from scipy.stats import rankdata

type Draws = NDArray[np.float64]
"""(..., chain, draw)"""


def split_chains(draws: Draws) -> Draws:
    """Cut every chain in two halves, dropping a middle draw if odd."""
    half = draws.shape[-1] // 2
    return np.concatenate([draws[..., :half], draws[..., -half:]], axis=-2)


@lru_cache(maxsize=16)
def score_table(size: int) -> NDArray[np.float64]:
    """Normal scores of ranks 1 to `size`."""
    return ndtri((np.arange(1, size + 1) - 0.375) / (size + 0.25))


def rank_normalise(draws: Draws) -> Draws:
    """Replace draws by normal scores of their pooled ranks; ties share their mean rank."""
    *batch, chains, n = draws.shape
    flat = draws.reshape(-1, chains * n)
    order = np.argsort(flat, axis=-1)
    scores = np.empty_like(flat)
    np.put_along_axis(scores, order, np.broadcast_to(score_table(chains * n), flat.shape), axis=-1)
    tied = np.flatnonzero((np.diff(np.take_along_axis(flat, order, axis=-1), axis=-1) == 0).any(axis=-1))
    if len(tied):
        ranks = rankdata(flat[tied], axis=-1, method="average")
        scores[tied] = ndtri((ranks - 0.375) / (chains * n + 0.25))
    scores[~np.isfinite(flat).all(axis=-1)] = np.nan
    return scores.reshape(*batch, chains, n)


def plain_rhat(draws: Draws) -> NDArray[np.float64]:
    """sqrt of pooled over within-chain variance."""
    n = draws.shape[-1]
    between = draws.mean(-1).var(-1, ddof=1)
    within = draws.var(-1, ddof=1).mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between + (n - 1) / n * within) / within)


def rhat(draws: Draws) -> NDArray[np.float64]:
    """Rank-normalised split R-hat: the larger of the bulk's and the folded draws'."""
    split = split_chains(draws)
    folded = np.abs(split - np.median(split, axis=(-2, -1), keepdims=True))
    return np.maximum(plain_rhat(rank_normalise(split)), plain_rhat(rank_normalise(folded)))


def autocovariance(draws: Draws) -> Draws:
    """Biased autocovariance at every lag, by FFT."""
    n = draws.shape[-1]
    size = next_fast_len(2 * n - 1, real=True)
    spectrum: Any = rfft(draws - draws.mean(-1, keepdims=True), size, axis=-1)
    products: Any = irfft(spectrum.real**2 + spectrum.imag**2, size, axis=-1)
    return products[..., :n] / n


def effective_size(draws: Draws) -> NDArray[np.float64]:
    """Effective sample size of the mean by Geyer's initial monotone sequence over pooled chains."""
    *batch, chains, n = draws.shape
    covariance = autocovariance(draws)
    within = covariance[..., 0].mean(-1) * n / (n - 1)
    plus = within * (n - 1) / n + (draws.mean(-1).var(-1, ddof=1) if chains > 1 else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1.0 - (within[..., None] - covariance.mean(-2) * n / (n - 1)) / plus[..., None]
    rho[..., 0] = 1.0
    pairs = rho[..., : n // 2 * 2].reshape(*batch, n // 2, 2).sum(-1)
    usable = np.logical_and.accumulate(pairs > 0, axis=-1)
    monotone = np.minimum.accumulate(np.where(usable, pairs, 0.0), axis=-1)
    tau = -1.0 + 2.0 * monotone.sum(-1)
    total = chains * n
    tau = np.maximum(tau, 1.0 / np.log10(total))
    return np.where(np.isfinite(plus) & (plus > 0), total / tau, np.nan)


def ess_bulk(draws: Draws) -> NDArray[np.float64]:
    """Effective sample size of the rank-normalised split draws."""
    return effective_size(rank_normalise(split_chains(draws)))


def ess_tail(draws: Draws) -> NDArray[np.float64]:
    """Smaller effective sample size of the 5% and 95% quantile indicators."""
    split = split_chains(draws)
    sizes = []
    for probability in (0.05, 0.95):
        cut = np.quantile(split, probability, axis=(-2, -1), keepdims=True)
        sizes.append(effective_size((split <= cut).astype(float)))
    return np.where(np.isfinite(split).all(axis=(-2, -1)), np.minimum(*sizes), np.nan)


class Measured(NamedTuple):
    """R-hat and effective sample sizes, of the draws' leading axes."""

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
    split = split_chains(draws)
    scores = rank_normalise(split)
    folded = np.abs(split - np.median(split, axis=(-2, -1), keepdims=True))
    worst_rhat = np.maximum(plain_rhat(scores), plain_rhat(rank_normalise(folded)))
    return Measured(worst_rhat, effective_size(scores), ess_tail(draws))


def bfmi(energy: Draws) -> NDArray[np.float64]:
    """Energy Bayesian fraction of missing information, per chain."""
    change = np.diff(energy, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (change**2).sum(-1) / ((energy - energy.mean(-1, keepdims=True)) ** 2).sum(-1)


RHAT_PASS, ESS_PASS = 1.01, 400.0
SHARE_PASS = 0.4
"""Effective draws asked for per draw, where there are too few draws for `ESS_PASS`."""
DIVERGENT_PASS = 0.01
"""A posterior passes below this share of divergent draws."""


def converged(u: NDArray, diverged: NDArray, finished: NDArray) -> NDArray:
    """(unit,) whether every coordinate passes R-hat and both effective sample sizes, and few draws diverge.

    Draws u are (unit, chain, draw, coord), `diverged` (unit, chain, draw), `finished` (unit,).
    """
    draws = np.moveaxis(u, -1, 1)
    enough = min(ESS_PASS, SHARE_PASS * draws.shape[2] * draws.shape[3])
    measured = measure(draws)
    with np.errstate(invalid="ignore"):
        good = (measured.rhat <= RHAT_PASS) & (measured.ess_bulk >= enough) & (measured.ess_tail >= enough)
        return finished & good.all(axis=1) & (np.mean(diverged, axis=(1, 2)) < DIVERGENT_PASS)
