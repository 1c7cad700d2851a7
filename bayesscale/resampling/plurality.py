"""Plurality: how often the answer with the most votes is the right one.

A problem has vote shares: the probability that one sample gives each answer. Shares may sum to less than 1; the rest is
the probability of a sample without an answer, which is a vote drawn but can never win. Ties for the most votes are split
evenly, and with no answer at all nobody wins.

The exact laws rest on one identity: multinomial counts are independent Poisson counts given their sum, and a subset drawn
without replacement is independent binomial counts given theirs. For independent counts the event "answer 0 got k votes and
every other fewer" factorises, the sum is fixed by convolving, and a tie with t others, worth 1 / (1 + t), is the integral
of u^t over (0, 1), which a Gauss rule does exactly. Nothing is subtracted, so small probabilities keep their digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, gammaln, xlog1py, xlogy

from bayesscale.finding import InputError

type Floats = NDArray[np.float64]
type Integers = NDArray[np.int64]

LARGEST_EXACT = 4 * 10**6
"""Largest answers x n^2 of the exact law."""
BLOCK = 2**16
"""Elements of one array worked on at once: what a cache holds."""


def plurality_accuracy(shares: ArrayLike, correct: ArrayLike, n: int, *, weights: ArrayLike | None = None) -> Floats:
    """Probability that the right answer wins a vote among n independent samples, ties split evenly; (...,).

        P = sum_k P(N_c = k, every other N_y < k) + ties,   (N_y) ~ Multinomial(n, shares)

    Exact to a few parts in 1e13. With weights the winner has the largest w_y N_y: a vote weighted by a score whose mean given the
    answer is w_y, in the limit where the score hardly varies within an answer.

    Parameters
    ----------
    shares : (..., answer) probability of each answer, summing to at most 1.
    correct : (...,) index of the right answer; -1 where it is none of them, which never wins.
    n : samples voting.
    weights : (..., answer) positive weight of each answer's votes; all 1 by default.

    Raises
    ------
    InputError : shares that are no probabilities, an index beyond them, n < 1, weights not above 0, or n too large for the
        exact law (then see `simulated_plurality`).
    """
    shares, correct = _checked(shares, correct)
    answers, n = shares.shape[-1], _count(n)
    if answers * n**2 > LARGEST_EXACT:
        what = f"the exact law of {n} votes over {answers} answers takes too long"
        raise InputError("VOTING-SIZE", what, fix="use simulated_plurality, which says its error")
    m = np.arange(n + 1)[:, None]
    rate, silent = n * _first(shares, correct), n * _silent(shares)
    total = math.exp(n * math.log(n) - n - math.lgamma(n + 1))

    def win(block: slice) -> Floats:
        rates = np.concatenate([rate[block], silent[block, None]], axis=1).T[:, None]
        counts = np.exp(xlogy(m, rates) - rates - gammaln(m + 1))
        return _win(counts, None if weight is None else weight[block].T) / total

    weight = None if weights is None else _first(_weights(weights, shares), correct)
    won = _in_blocks(win, len(rate), n + 1)
    return np.where(correct >= 0, np.clip(won, 0.0, 1.0).reshape(correct.shape), 0.0)


def subset_plurality(counts: ArrayLike, correct: ArrayLike, m: int, *, n_none: ArrayLike = 0) -> Floats:
    """Probability that the right answer wins among m of the votes cast, drawn without replacement; (...,).

    Its mean over problems is the unbiased estimate of majority accuracy at m <= n: what a vote of m samples would have
    given on average, had one looked at every subset.

    Parameters
    ----------
    counts : (..., answer) votes for each answer.
    correct : (...,) index of the right answer, -1 where it got no vote.
    m : size of the subset, at most the votes cast on every problem.
    n_none : (...,) samples that gave no answer.

    Raises
    ------
    InputError : counts that are not whole, an index beyond them, or m larger than the votes of some problem.
    """
    votes = np.asarray(counts, dtype=np.float64)
    none = np.broadcast_to(np.asarray(n_none, dtype=np.float64), votes.shape[:-1])
    n = votes.sum(axis=-1) + none
    if (votes < 0).any() or (none < 0).any() or (votes != np.round(votes)).any() or (none != np.round(none)).any():
        raise InputError("VOTING-COUNTS", "votes must be whole numbers from 0 upwards")
    size = _count(m)
    if (n < size).any():
        raise InputError(
            "VOTING-SIZE", f"a subset of {size} votes is larger than the {n.min():g} votes of some problem"
        )
    index = _index(correct, votes)
    cells = np.concatenate([_first(votes, index), none.reshape(-1, 1)], axis=1)
    total, rate, taken = n.reshape(-1), size / n.reshape(-1), np.arange(size + 1)[:, None]

    def win(block: slice) -> Floats:
        probabilities = _binomial(taken, cells[block].T[:, None], rate[block])
        return _win(probabilities, None) / _binomial(size, total[block], rate[block])

    won = _in_blocks(win, len(cells), size + 1)
    return np.where(index >= 0, np.clip(won, 0.0, 1.0).reshape(index.shape), 0.0)


def simulated_plurality(
    shares: ArrayLike,
    correct: ArrayLike,
    n: int,
    *,
    weights: ArrayLike | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """`plurality_accuracy` by Monte Carlo, for any n: the mean over `draws` votes and its standard error; both (...,)."""
    shares, correct = _checked(shares, correct)
    weight = np.ones_like(shares) if weights is None else _weights(weights, shares)
    rng, n = np.random.default_rng(seed), _count(n)
    cells = np.concatenate([shares, _silent(shares).reshape(*correct.shape, 1)], axis=-1)
    total, squares = np.zeros(correct.shape), np.zeros(correct.shape)
    for _ in range(draws):
        won = plurality_score(rng.multinomial(n, cells)[..., :-1] * weight, correct)
        total, squares = total + won, squares + won**2
    mean = total / draws
    return mean, np.sqrt(np.maximum(squares / draws - mean**2, 0.0) / max(draws - 1, 1))


def plurality_limit(shares: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None) -> Floats:
    """Accuracy of a vote among ever more samples, 1 where the right answer maximises share x weight; (...,).

    Modes in exact balance split it evenly.            (Wu et al. 2024, arXiv 2408.00724, for weighted votes)
    """
    shares, correct = _checked(shares, correct)
    return plurality_score(shares if weights is None else shares * _weights(weights, shares), correct)


def plurality_score(votes: ArrayLike, correct: ArrayLike) -> Floats:
    """What one vote scores, 1 / (number of answers level with the right one at the top), else 0; (...,).

    `votes` (..., answer) are counts, weighted counts or shares; 0 where nobody gave an answer or `correct` is -1.
    """
    votes = np.asarray(votes)
    index = _index(correct, votes)
    top = votes.max(axis=-1, keepdims=True)
    leads = (votes == top) & (top > 0)
    won = np.take_along_axis(leads, np.maximum(index, 0)[..., None], axis=-1)[..., 0]
    return np.where(won & (index >= 0), 1.0 / np.maximum(leads.sum(axis=-1), 1), 0.0)


def binary_majority(p: ArrayLike, n: ArrayLike) -> Floats:
    """Majority accuracy with two answers: I_p((n + 1) / 2, (n + 1) / 2) for odd n, I_p(n / 2, n / 2) for even n.

    An even number of voters with ties split does exactly as well as one voter fewer.
    """
    half = (np.asarray(n, dtype=np.int64) + 1) // 2
    if (half < 1).any():
        raise InputError("VOTING-SIZE", "a vote needs at least one sample")
    return np.asarray(betainc(half, half, np.asarray(p, dtype=np.float64)))


def two_type_accuracy(n: ArrayLike, easy: float, p_easy: float, p_hard: float) -> Floats:
    """Majority accuracy over two types of problem: easy I_{p_easy} + (1 - easy) I_{p_hard}; shape of `n`.

    `easy` is the share of problems that one sample gets right with probability `p_easy`; the others have `p_hard`. It may
    rise and then fall.                                                       (Chen et al. 2024, arXiv 2403.02419)
    """
    return easy * binary_majority(p_easy, n) + (1 - easy) * binary_majority(p_hard, n)


def two_type_turning_point(easy: float, p_easy: float, p_hard: float) -> float:
    """Number of samples at which `two_type_accuracy` turns, as a real number; NaN where it never does.

        K* = 2 ln[easy (2 p_easy - 1) / ((1 - easy) (1 - 2 p_hard))] / ln[p_hard (1 - p_hard) / (p_easy (1 - p_easy))]

    With p_easy + p_hard > 1 it is where accuracy is best, otherwise where it is worst. In odd numbers the turn is at
    2 ceil(K* / 2) - 1 exactly.                                               (Chen et al. 2024, arXiv 2403.02419)

    Raises
    ------
    InputError : unless 0 < easy < 1 and 0 < p_hard < 1/2 < p_easy < 1.
    """
    if not (0 < easy < 1 and 0 < p_hard < 0.5 < p_easy < 1):
        raise InputError("VOTING-TYPES", "a vote turns only with easy in (0, 1) and 0 < p_hard < 1/2 < p_easy < 1")
    gain = math.log(easy * (2 * p_easy - 1) / ((1 - easy) * (1 - 2 * p_hard)))
    rate = math.log(p_hard * (1 - p_hard) / (p_easy * (1 - p_easy)))
    return 2 * gain / rate if rate != 0 and gain / rate > 0 else math.nan


def two_type_best(easy: float, p_easy: float, p_hard: float, largest: int = 1001) -> int:
    """The odd number of samples up to `largest` with the best `two_type_accuracy`, by looking at all."""
    n = np.arange(1, largest + 1, 2)
    return int(n[np.argmax(two_type_accuracy(n, easy, p_easy, p_hard))])


def _win(counts: Floats, weights: Floats | None) -> Floats:
    """P(answer 0 wins and the counts sum to n), ties split; `counts` (answer + 1, n + 1, cell), the last without answer.

    For each k of the leader the others are convolved, cut where they have more votes than k or than are left.
    """
    answers, n = counts.shape[0] - 1, counts.shape[1] - 1
    won = np.zeros(counts.shape[2])
    for u, width in zip(*_unit_rule(answers), strict=True):
        for k in range(1, n + 1):
            left = n - k
            sums = counts[answers, : left + 1]
            for j in range(1, answers):
                sums = _convolve(
                    sums, _behind(counts[j, : left + 1], k, u, None if weights is None else weights[[0, j]])
                )
            won += width * counts[0, k] * sums[left]
    return won


def _behind(count: Floats, k: int, u: float, weights: Floats | None) -> Floats:
    """Probabilities of the counts with fewer (weighted) votes than k of the leader, and those level with it times u."""
    if weights is None:
        part = count[: k + 1].copy()
        part[k:] *= u
        return part
    own, lead = weights[1] * np.arange(len(count))[:, None], weights[0] * k
    return count * np.where(own < lead, 1.0, np.where(own == lead, u, 0.0))


def _convolve(a: Floats, b: Floats) -> Floats:
    """Coefficients of the product of two polynomials, (power, cell), up to the degree of the first."""
    product = a * b[0]
    for m in range(1, len(b)):
        product[m:] += a[: len(a) - m] * b[m]
    return product


def _unit_rule(answers: int) -> tuple[Floats, Floats]:
    """Gauss-Legendre rule on (0, 1), exact up to the degree `answers` - 1 that ties can reach."""
    nodes, widths = np.polynomial.legendre.leggauss((answers + 1) // 2)
    return (nodes + 1) / 2, widths / 2


def _in_blocks(win: Callable[[slice], Floats], cells: int, each: int) -> Floats:
    step = max(1, BLOCK // each)
    return np.concatenate([np.zeros(0), *(win(slice(i, i + step)) for i in range(0, cells, step))])


def _binomial(k: ArrayLike, n: Floats, p: Floats) -> Floats:
    k = np.asarray(k, dtype=np.float64)
    rest = np.maximum(n - k, 0.0)
    log = gammaln(n + 1) - gammaln(k + 1) - gammaln(rest + 1) + xlogy(k, p) + xlog1py(rest, -p)
    return np.where(k <= n, np.exp(log), 0.0)


def _first(values: NDArray, correct: Integers) -> NDArray:
    """Flatten to (cell, answer) with the right answer moved to the front."""
    order = np.argsort(np.arange(values.shape[-1]) != correct[..., None], axis=-1, kind="stable")
    return np.take_along_axis(values, order, axis=-1).reshape(-1, values.shape[-1])


def _silent(shares: Floats) -> Floats:
    return np.maximum(1.0 - shares.sum(axis=-1), 0.0).reshape(-1)


def _checked(shares: ArrayLike, correct: ArrayLike) -> tuple[Floats, Integers]:
    values = np.atleast_1d(np.asarray(shares, dtype=np.float64))
    if not ((values >= 0).all() and (values.sum(axis=-1) <= 1 + 1e-9).all()):
        raise InputError("VOTING-SHARES", "vote shares must be at least 0 and sum to at most 1")
    return values, _index(correct, values)


def _index(correct: ArrayLike, values: NDArray) -> Integers:
    index = np.broadcast_to(np.asarray(correct, dtype=np.int64), values.shape[:-1])
    if (index < -1).any() or (index >= values.shape[-1]).any():
        raise InputError("VOTING-ANSWER", f"the right answer's index must lie in -1..{values.shape[-1] - 1}")
    return index


def _count(n: int) -> int:
    if n < 1 or n != int(n):
        raise InputError("VOTING-SIZE", f"the number of votes must be a whole number from 1 upwards, got {n}")
    return int(n)


def _weights(weights: ArrayLike, shares: Floats) -> Floats:
    values = np.broadcast_to(np.asarray(weights, dtype=np.float64), shares.shape)
    if not ((values > 0) & np.isfinite(values)).all():
        raise InputError("VOTING-WEIGHTS", "the weights of votes must be finite and above 0")
    return values
