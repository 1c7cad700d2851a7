"""The gate every contender has to pass, computed by one function for all.

Per curve: split rank R-hat at most 1.01, bulk and tail effective sample size (5% and 95%) at least 400, each for the worst
coordinate, and fewer than 1% divergent draws. Coordinates are those of the model (logits and logs), whatever a contender
sampled in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayesscale.inference import diagnostics

RHAT, ESS, DIVERGENT = 1.01, 400.0, 0.01


class Verdict(NamedTuple):
    """(unit,) arrays: worst R-hat, smallest effective sample size, share of divergent draws, and whether all pass."""

    rhat: NDArray
    ess: NDArray
    divergent: NDArray
    passed: NDArray


def judge(u: NDArray, diverging: NDArray) -> Verdict:
    """Judge draws u (unit, chain, draw, coord) with their divergences (unit, chain, draw)."""
    parts = [_judge_one(draws, flags) for draws, flags in zip(u, diverging, strict=True)]
    return Verdict(*(np.array(column) for column in zip(*parts, strict=True)))


def _judge_one(u: NDArray, diverging: NDArray) -> tuple[float, float, float, bool]:
    draws = np.moveaxis(u, -1, 0)
    if not np.isfinite(draws).all():
        return np.nan, np.nan, np.nan, False
    measured = diagnostics.measure(draws)
    rhat, ess = float(np.max(measured.rhat)), float(np.min([measured.ess_bulk, measured.ess_tail]))
    divergent = float(np.mean(diverging))
    return rhat, ess, divergent, bool(rhat <= RHAT and ess >= ESS and divergent < DIVERGENT)
