"""Signs of sums of decaying exponentials, S(K) = sum_i c_i exp(-h_i K), at all whole K >= 0.

With coefficients of both signs such a sum may change sign several times, and far out it falls below any floating-point
threshold while its sign stays as definite as ever. Signs are therefore proved over ranges of K, never read off a curve:

* multiplying S by exp(mu K) keeps its sign and leaves every term monotone in K, so the smaller and the larger of a
  term's two ends bound it over a range, and their sums bound S. Ranges that this does not settle are halved;
* beyond some K the slowest-decaying terms outweigh all others together, for ever.

Only ranges next to a change of sign have to be halved down to single numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]
type Whole = NDArray[np.int64]

ROUNDING = 1e-13  # of the sum of absolute terms: what the exponentials and their sum may be off by
LARGEST_OCTAVE = 1000
RELATIVE_WIDTH = 2.0**-50  # of ranges beyond 2^53, where whole numbers are no longer apart in floating point
CHUNK = 4_000_000  # terms held at once


def sign_pattern(coefficient: Floats, rate: Floats) -> tuple[Whole, Floats, Whole]:
    """The sign of S(K) over all whole K >= 0, as ranges on which it is constant.

    `coefficient` c and `rate` h >= 0 (infinite allowed: exp(-h 0) = 1, otherwise 0) have shape (sum, term). Returns three
    arrays over ranges, sorted: the sum's index, the first K of the range, and the sign there (-1, 0, 1); a range ends
    where the next one of the same sum starts, the last one never. Neighbouring ranges may have the same sign. 0 stands
    for values that are zero to rounding.
    """
    alive = np.isfinite(rate)
    c, h = np.where(alive, coefficient, 0.0), np.where(alive, rate, 0.0)
    final = _slowest(c, h)
    octaves = _octaves(c, h, *final)
    row, low, high = _starting_ranges(octaves)
    found = [_at_zero(coefficient), (np.arange(len(c)), np.ldexp(1.0, octaves), np.sign(final[1]).astype(np.int64))]
    while row.size:
        sign, width = _sign_over(c, h, row, low, high), high - low
        settled = (sign != 0) | (width == 0) | (width < RELATIVE_WIDTH * high)
        found.append((row[settled], low[settled], sign[settled]))
        row, low, high = row[~settled], low[~settled], high[~settled]
        middle = np.floor(0.5 * (low + high))
        row, low, high = np.tile(row, 2), np.append(low, middle + 1), np.append(middle, high)
    rows, starts, signs = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((starts, rows))
    return rows[order], starts[order], signs[order]


def _at_zero(c: Floats) -> tuple[Whole, Floats, Whole]:
    total, size = c.sum(axis=-1), np.abs(c).sum(axis=-1)
    sign = np.where(np.abs(total) > ROUNDING * size, np.sign(total), 0).astype(np.int64)
    return np.arange(len(c)), np.zeros(len(c)), sign


def _slowest(c: Floats, h: Floats) -> tuple[Floats, Floats]:
    """Rate and summed coefficient of the slowest terms that do not cancel; 0 and 0 where there are none. (sum,) each.

    Terms that cancel are struck out of `c`, in place.
    """
    while True:
        rate = np.min(np.where(c != 0, h, np.inf), axis=-1)
        group = np.where((h == rate[:, None]) & (c != 0), c, 0.0)
        total, size = group.sum(axis=-1), np.abs(group).sum(axis=-1)
        cancelled = (np.abs(total) <= ROUNDING * size) & (size > 0)
        if not cancelled.any():
            return np.where(np.isfinite(rate), rate, 0.0), total
        c[(group != 0) & cancelled[:, None]] = 0.0


def _octaves(c: Floats, h: Floats, rate: Floats, total: Floats) -> Whole:
    """The power of two from which the slowest terms outweigh twice all others together; (sum,)."""
    octave = np.zeros(len(c), dtype=np.int64)
    rest = np.where(h > rate[:, None], np.abs(c), 0.0)
    left = np.flatnonzero(rest.any(axis=-1))
    while left.size and octave[left[0]] < LARGEST_OCTAVE:
        lead = (h[left] - rate[left, None]) * 2.0 ** octave[left, None]
        left = left[2.0 * np.sum(rest[left] * np.exp(-lead), axis=-1) >= np.abs(total[left])]
        octave[left] += 1
    return octave


def _starting_ranges(octaves: Whole) -> tuple[Whole, Floats, Floats]:
    """One range per octave of each sum: 1, 2 to 3, 4 to 7, and so on."""
    row = np.repeat(np.arange(len(octaves)), octaves)
    exponent = np.arange(row.size) - np.repeat(np.cumsum(octaves) - octaves, octaves)
    low = np.ldexp(1.0, exponent)
    return row, low, np.maximum(2.0 * low - 1.0, low)


def _sign_over(c: Floats, h: Floats, row: Whole, low: Floats, high: Floats) -> Whole:
    """The sign S has throughout each range; 0 where the bounds do not settle it."""
    step = max(1, CHUNK // c.shape[-1])
    parts = [slice(i, i + step) for i in range(0, row.size, step)]
    signs = [_sign_of_bounds(c[row[part]], h[row[part]], low[part, None], high[part, None]) for part in parts]
    return np.concatenate(signs)


def _sign_of_bounds(c: Floats, h: Floats, low: Floats, high: Floats) -> Whole:
    h = h - np.min(np.where(c != 0, h, np.inf), axis=-1, keepdims=True)
    h[c == 0] = 0.0
    start = c * np.exp(-h * low)
    # The tilt that lets the terms grow as much as they shrink makes the bounds tightest.
    tilt = np.sum(np.abs(start) * h, axis=-1, keepdims=True) / np.sum(np.abs(start), axis=-1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        end = start * np.exp((tilt - h) * (high - low))
        slack = ROUNDING * np.sum(np.maximum(np.abs(start), np.abs(end)), axis=-1)
        above = np.sum(np.minimum(start, end), axis=-1) > slack
        below = np.sum(np.maximum(start, end), axis=-1) < -slack
    return above.astype(np.int64) - below.astype(np.int64)
