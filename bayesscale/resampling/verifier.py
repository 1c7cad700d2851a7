"""Resampling until a verifier accepts: what is returned, how often it is right, and how many samples are worth taking.

Samples are drawn one after another, independently, until the verifier accepts one or K have been drawn. On a problem a
sample is accepted with probability a = p + q (p: right and accepted, q: wrong and accepted), and an accepted answer is
right with probability s = p / a, whichever attempt it came from. More samples therefore never mend an answer to one
problem. They change which problems get answered, and everything interesting comes from problems that differ.

Arrays of acceptance `a` and share `s` have shape (..., problem): leading axes are posterior draws or models. `weights`
are those of the problems, equal if not given. `samples` is one number K or a grid of them; a grid adds a last axis.
The share of a problem that is never accepted (a = 0) does not matter, but must still be a number in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, logsumexp, xlog1py

from bayesscale.finding import InputError
from bayesscale.resampling.exponential_sums import sign_pattern

type Floats = NDArray[np.float64]

TERMS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Stakes:
    """What answers and samples are worth, in one currency; no answer is worth 0.

    Attributes
    ----------
    benefit : B, gained by a right answer.
    false_positive : C, lost by a wrong answer that the verifier accepted.
    sample : kappa, the cost of one sample.

    Raises
    ------
    InputError : one of them is negative or not finite.
    """

    benefit: float = 1.0
    false_positive: float = 1.0
    sample: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError("STAKES", f"{name} must be a finite number of at least 0, got {value!r}")


class Best(NamedTuple):
    """The best number of samples and what it is worth."""

    samples: Floats  # (...,) 0: abstain; infinite: every further sample helps, the supremum is only approached
    utility: Floats  # (...,) per problem; where `samples` is infinite, the limit


def accept_within(acceptance: ArrayLike, samples: ArrayLike) -> Floats:
    """Probability that a problem is answered within K samples, A(K) = 1 - (1 - a)^K.

    Returns (..., problem, sample), the last axis only if `samples` is a grid.
    """
    a, K = _probability(acceptance, "acceptance"), _counts(samples)
    return -np.expm1(xlog1py(K, -a.reshape(a.shape + (1,) * K.ndim)))


def expected_samples(acceptance: ArrayLike, samples: ArrayLike) -> Floats:
    """Samples drawn on a problem with a budget of K, E[min(T, K)] = A(K) / a, which is K where a = 0.

    Returns (..., problem, sample), the last axis only if `samples` is a grid.
    """
    a, K = _probability(acceptance, "acceptance"), _counts(samples)
    a = a.reshape(a.shape + (1,) * K.ndim)
    return np.where(a > 0, accept_within(acceptance, samples) / np.where(a > 0, a, 1.0), K)


def accuracy(acceptance: ArrayLike, share: ArrayLike, samples: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Probability that an answer is returned and right, mean_i s_i A_i(K); (..., sample)."""
    a, s, w = _population(acceptance, share, weights)
    return _over(samples, lambda K: np.sum(w * s * accept_within(a, K), axis=-1))


def ceiling(acceptance: ArrayLike, share: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """What `accuracy` tends to as K grows, the mean of s_i over all problems with those at a_i = 0 counted 0; (...,)."""
    a, s, w = _population(acceptance, share, weights)
    return np.sum(w * s * (a > 0), axis=-1)


def accuracy_given_answer(
    acceptance: ArrayLike, share: ArrayLike, samples: ArrayLike, weights: ArrayLike | None = None
) -> Floats:
    """Probability that a returned answer is right, sum_i s_i A_i(K) / sum_i A_i(K); (..., sample), K at least 1.

    The weights of the problems go from a_i at K = 1 to equal as K grows, so it ends below its start exactly when
    problems that accept readily also accept rightly, cov(s, a) > 0. NaN where no problem is ever answered.
    """
    a, s, w = _population(acceptance, share, weights)

    def at(K: float) -> Floats:
        answered = w * accept_within(a, K)
        return _ratio(np.sum(s * answered, axis=-1), np.sum(answered, axis=-1))

    return _over(samples, at, lowest=1)


def ceiling_given_answer(acceptance: ArrayLike, share: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """What `accuracy_given_answer` tends to, the mean of s_i over the problems with a_i > 0; (...,)."""
    a, s, w = _population(acceptance, share, weights)
    return _ratio(np.sum(w * s * (a > 0), axis=-1), np.sum(w * (a > 0), axis=-1))


def false_positive_share(
    acceptance: ArrayLike, share: ArrayLike, attempt: ArrayLike, weights: ArrayLike | None = None
) -> Floats:
    """Share of wrong answers among those accepted at attempt j; (..., attempt), j at least 1.

    sum_i (1 - s_i) a_i (1 - a_i)^(j-1) / sum_i a_i (1 - a_i)^(j-1), NaN where no problem is answered at attempt j.
    """
    a, s, w = _population(acceptance, share, weights)

    def at(j: float) -> Floats:
        with np.errstate(divide="ignore"):
            arrival = np.log(w * a) + xlog1py(j - 1, -a)
        total = np.asarray(logsumexp(arrival, axis=-1, keepdims=True))
        kept = np.exp(arrival - np.where(np.isfinite(total), total, 0.0))
        return _ratio(np.sum((1.0 - s) * kept, axis=-1), np.sum(kept, axis=-1))

    return _over(attempt, at, lowest=1)


def false_positive_share_within(
    acceptance: ArrayLike, share: ArrayLike, samples: ArrayLike, weights: ArrayLike | None = None
) -> Floats:
    """Share of wrong answers among all accepted within K samples: sum_i (1 - s_i) A_i(K) / sum_i A_i(K); (..., sample)."""
    return accuracy_given_answer(acceptance, 1.0 - _probability(share, "share"), samples, weights)


def utility(
    acceptance: ArrayLike, share: ArrayLike, samples: ArrayLike, stakes: Stakes, weights: ArrayLike | None = None
) -> Floats:
    """Expected utility per problem, U(K) = mean_i v_i E[min(T_i, K)] with v_i = B p_i - C q_i - kappa; (..., sample)."""
    a, s, w = _population(acceptance, share, weights)
    value = w * value_of_sample(a, s, stakes)
    return _over(samples, lambda K: np.sum(value * expected_samples(a, K), axis=-1))


def utility_limit(acceptance: ArrayLike, share: ArrayLike, stakes: Stakes, weights: ArrayLike | None = None) -> Floats:
    """What `utility` tends to as K grows, mean_i v_i / a_i; minus infinity if samples cost and some a_i = 0; (...,)."""
    a, s, w = _population(acceptance, share, weights)
    value = w * value_of_sample(a, s, stakes)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.sum(np.where(value == 0, 0.0, value / a), axis=-1)


def increment(
    acceptance: ArrayLike, share: ArrayLike, samples: ArrayLike, stakes: Stakes, weights: ArrayLike | None = None
) -> Floats:
    """Value of one more sample after K, U(K + 1) - U(K) = mean_i (1 - a_i)^K v_i, without a subtraction; (..., sample)."""
    a, s, w = _population(acceptance, share, weights)
    value = w * value_of_sample(a, s, stakes)
    return _over(samples, lambda K: np.sum(value * np.exp(xlog1py(K, -a)), axis=-1))


def value_of_sample(acceptance: ArrayLike, share: ArrayLike, stakes: Stakes) -> Floats:
    """Value of one sample on an open problem, v = B p - C q - kappa; exactly 0 where it is 0 to rounding; (..., problem)."""
    a, s = _probability(acceptance, "acceptance"), _probability(share, "share")
    gain, loss = stakes.benefit * s * a, stakes.false_positive * (1.0 - s) * a + stakes.sample
    value = gain - loss
    return np.where(np.abs(value) <= 4 * np.finfo(float).eps * (gain + loss), 0.0, value)


def best_samples(
    acceptance: ArrayLike,
    share: ArrayLike,
    stakes: Stakes,
    weights: ArrayLike | None = None,
    *,
    cap: float = math.inf,
) -> Best:
    """The number of samples K* in 0, 1, ..., `cap` with the greatest `utility`, the smallest if several share it.

    0 stands for abstaining. Infinity says that the supremum is approached only as K grows for ever; that a computed
    sum stops growing at some K is rounding and no optimum. The sign of every increment is settled with certainty from
    bounds over ranges of K (see `bayesscale.resampling.exponential_sums`), and the last range, which has no end, by the problems
    that are accepted most seldom. With more than two kinds of problem there may be several local optima: the best wins.

    Raises
    ------
    InputError : a probability outside [0, 1]; weights that are negative or all zero; a cap that is not 0, 1, ... or
        infinity.
    """
    if not (cap >= 0 and (math.isinf(cap) or cap == round(cap))):
        raise InputError("SAMPLES", f"the cap must be a whole number of at least 0 or infinity, got {cap!r}")
    a, s, w = _population(acceptance, share, weights)
    a, s, w = np.broadcast_arrays(a, s, w)
    flat_a, value = (x.reshape(-1, a.shape[-1]) for x in (a, w * value_of_sample(a, s, stakes)))
    with np.errstate(divide="ignore"):
        rate = -np.log1p(-flat_a)
    row, K = _candidates(*sign_pattern(value, rate), rows=len(flat_a), cap=cap)
    worth = _worth(flat_a, value, row, K)
    order = np.lexsort((K, -worth, row))
    first = order[np.unique(row[order], return_index=True)[1]]
    return Best(K[first].reshape(a.shape[:-1]), worth[first].reshape(a.shape[:-1]))


def _candidates(
    row: NDArray[np.int64], start: Floats, sign: NDArray[np.int64], *, rows: int, cap: float
) -> tuple[NDArray[np.int64], Floats]:
    """Where the utility may be greatest: 0, wherever it stops growing, and the end of the range."""
    stops = np.flatnonzero((sign[:-1] > 0) & (sign[1:] <= 0) & (row[:-1] == row[1:])) + 1
    last = np.flatnonzero(np.append(row[1:] != row[:-1], True))
    ends = row[last[sign[last] > 0]] if math.isinf(cap) else np.arange(rows)
    at = np.concatenate([np.arange(rows), row[stops], ends])
    K = np.concatenate([np.zeros(rows), start[stops], np.full(len(ends), cap)])
    return at[cap >= K], K[cap >= K]


def _worth(a: Floats, value: Floats, row: NDArray[np.int64], samples: Floats) -> Floats:
    """Utility of each candidate number of samples in its row of the population, in parts that fit in memory."""
    worth = np.zeros(len(row))
    step = max(1, TERMS_AT_ONCE // a.shape[-1])
    for part in (slice(i, i + step) for i in range(0, len(row), step)):
        at, K, v = a[row[part]], samples[part, None], value[row[part]]
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = np.where(at > 0, -np.expm1(xlog1py(K, -at)) / at, K)
            worth[part] = np.sum(np.where(v == 0, 0.0, v * drawn), axis=-1)
    return worth


def two_type(w1: float, r1: float, r2: float, soundness: float, benefit: float, false_positive: float) -> float:
    """K* for two kinds of problem and a verifier that rejects a wrong answer with probability `soundness`, no right one.

    Easy problems (prior weight w1, right with probability r1) and hard ones (r2 <= r1); v_j = r_j B - C (1 - r_j)(1 - s)
    and beta_j = s (1 - r_j). For v1 > 0 > v2 and a first sample worth taking,

        K* = 1 + floor( ln[w1 v1 / (-w2 v2)] / ln(beta2 / beta1) )

    and one fewer where that quotient is a whole number, for then the last sample is worth nothing. 0 means abstain,
    infinity that every further sample helps. The model of Stroebl, Kapoor and Narayanan (2024),
    arXiv:2411.17501.

    Raises
    ------
    InputError : a probability outside [0, 1], r2 above r1, or a negative benefit or cost.
    """
    stakes = Stakes(benefit, false_positive)
    (w1, r1, r2, soundness) = _probability([w1, r1, r2, soundness], "a two-type parameter").tolist()
    if r2 > r1:
        raise InputError("TWO-TYPE", f"hard problems must not be easier than easy ones, got r1 = {r1:g} < r2 = {r2:g}")
    r, w = np.array([r1, r2]), np.array([w1, 1.0 - w1])
    accepted = r + (1.0 - soundness) * (1.0 - r)
    v1, v2 = (w * value_of_sample(accepted, r / np.where(accepted > 0, accepted, 1.0), stakes)).tolist()
    beta1, beta2 = (soundness * (1.0 - r)).tolist()
    if v1 + v2 <= 0:
        return 0.0
    if beta2 == 0 or (v2 <= 0 and beta1 == 0):
        return 1.0
    if v2 >= 0:
        return math.inf
    return float(max(1, math.ceil(math.log(v1 / -v2) / math.log(beta2 / beta1))))


def dirichlet_accuracy(correct: ArrayLike, wrong: ArrayLike, rejected: ArrayLike, samples: ArrayLike) -> Floats:
    """Mean accuracy when (p, q, 1 - a) is Dirichlet(a_c, a_f, a_r) over problems.

    E = a_c / (a_c + a_f) [1 - B(a_c + a_f, a_r + K) / B(a_c + a_f, a_r)]. Under this law share and acceptance are
    independent, so wrong answers are as frequent at every attempt: a baseline, not a description of data. All four
    arguments broadcast. The bracket is good to 1e-9 for K to 1e6.

    Raises
    ------
    InputError : a concentration that is not positive.
    """
    c, f, r = (np.asarray(x, dtype=np.float64) for x in (correct, wrong, rejected))
    if not all((np.isfinite(x) & (x > 0)).all() for x in (c, f, r)):
        raise InputError("DIRICHLET", "the three concentrations must be positive and finite")
    K = _counts(samples)
    return c / (c + f) * -np.expm1(betaln(c + f, r + K) - betaln(c + f, r))


def roc_limit(p: ArrayLike, slope: ArrayLike) -> Floats:
    """Accuracy of ever stricter rejection, and of best-of-N for large N: p T'(0) / (p T'(0) + 1 - p).

    `p` is the accuracy of one sample, `slope` = T'(0) that of the verifier's ROC curve at the origin, infinite allowed.
    Dorner et al. (2025), arXiv:2507.12399. NaN where no limit exists: p = 1 at slope 0, p = 0 at an
    infinite slope.

    Raises
    ------
    InputError : p outside [0, 1], or a negative slope.
    """
    p, slope = _probability(p, "accuracy"), np.asarray(slope, dtype=np.float64)
    if not (slope >= 0).all():
        raise InputError("ROC", "the slope of an ROC curve must be at least 0")
    with np.errstate(divide="ignore", invalid="ignore"):
        return p / (p + (1.0 - p) / slope)


def _over(samples: ArrayLike, function: Callable[[float], Floats], lowest: int = 0) -> Floats:
    """The function at every K, as a last axis; one K at a time, so that memory stays that of the population."""
    K = _counts(samples, lowest)
    values = [np.asarray(function(k)) for k in K.ravel().tolist()]
    return np.stack(values, axis=-1).reshape(values[0].shape + K.shape)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def _population(acceptance: ArrayLike, share: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Acceptance, share, and weights that sum to one."""
    a, s = _probability(acceptance, "acceptance"), _probability(share, "share")
    shape = np.broadcast_shapes(a.shape, s.shape)
    if not shape or not shape[-1]:
        raise InputError("VERIFIER", "acceptance and share need an axis of problems with at least one problem")
    w = np.ones(shape[-1]) if weights is None else np.asarray(weights, dtype=np.float64)
    if not ((w >= 0) & np.isfinite(w)).all() or not (w.sum(axis=-1) > 0).all():
        raise InputError("VERIFIER", "weights must be finite, at least 0, and not all 0")
    if w.ndim == 0 or w.shape[-1] != shape[-1]:
        raise InputError("VERIFIER", f"weights have shape {w.shape} for {shape[-1]} problems")
    return np.broadcast_to(a, shape), np.broadcast_to(s, shape), w / w.sum(axis=-1, keepdims=True)


def _probability(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        raise InputError("VERIFIER", f"{name} must lie in [0, 1]")
    return array


def _counts(samples: ArrayLike, lowest: int = 0) -> Floats:
    K = np.asarray(samples, dtype=np.float64)
    if not K.size or not (np.isfinite(K) & (lowest <= K) & (np.round(K) == K)).all():
        raise InputError("SAMPLES", f"numbers of samples must be whole and at least {lowest}")
    return K
