"""What the samples say about pass@k by themselves: no law, no prior.

pass@k is the share of problems with at least one success in k attempts, pass^k the share where all k succeed. With n
samples per problem set in advance both have unbiased estimators for k <= n. Where sampling stopped at a success n is
itself an outcome and those estimators are biased upwards: the Kaplan-Meier curve of the first success takes their place,
with problems as subjects and unsolved problems censored at their last attempt.

Everything rests on one ratio of Beta functions, `log_beta_survival`, written so that no digit is lost whether a success
is one in a million or certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from bayesscale.finding import InputError

if TYPE_CHECKING:
    import pandas as pd

    from bayesscale.attempts import Attempts

type Floats = NDArray[np.float64]
Resampling = Literal["bayesian", "ordinary"]

LARGEST_K = 10**12
LARGEST_COUNT = 2**53
_SHIFT = 8
_STIRLING = (-1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
"""log Gamma(z) = (z - 1/2) log z - z + const + 1 / (12 z) + these / z^3, z^5, ...; used at z >= 8 (Abramowitz & Stegun
6.1.41)."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """An estimated pass@k curve.

    Attributes
    ----------
    method : "unbiased" or "kaplan-meier".
    at : (k,) numbers of attempts.
    value : (k,) estimated share of problems solved within k attempts.
    se : (k,) standard error over problems, as for new problems from the same population.
    low, high : (k,) equal-tailed confidence limits at level `mass`.
    at_risk : (k,) problems still being sampled at attempt k.
    mass : level of the interval.
    """

    method: Literal["unbiased", "kaplan-meier"]
    at: NDArray[np.int64]
    value: Floats
    se: Floats
    low: Floats
    high: Floats
    at_risk: NDArray[np.int64]
    mass: float

    def table(self) -> pd.DataFrame:
        """One row per k: estimand, method, estimate, standard error and the confidence interval at `mass`."""
        import pandas as pd

        level = f"ci{round(100 * self.mass)}"
        bounds = {f"{level}_lower": self.low, f"{level}_upper": self.high}
        fields = {"estimand": "pass@k, new problems", "method": self.method, "k": self.at, "value": self.value}
        return pd.DataFrame(fields | {"se": self.se} | bounds | {"at_risk": self.at_risk})


def pass_at_k(n: ArrayLike, c: ArrayLike, k: ArrayLike, *, stopping: str = "fixed") -> Floats:
    """Unbiased estimate of each problem's chance of at least one success in k attempts.

        1 - C(n - c, k) / C(n, k)                               (Chen et al. 2021, arXiv 2107.03374, eq. 1)

    `n` and `c` hold samples and successes per problem, `k` the numbers of attempts; the answer has shape
    ``n.shape + k.shape``. Its mean over problems estimates pass@k without bias when every n was set in advance.

    Raises
    ------
    InputError : numbers that are not whole, c > n, k < 1, k > 1e12, k > n for some problem, or a stopping design in
        which n depends on the outcomes.
    """
    n, c, k = _checked(n, c, k, stopping)
    return -np.expm1(_log_subset_ratio(n, c, k))


def pass_hat_k(n: ArrayLike, c: ArrayLike, k: ArrayLike, *, stopping: str = "fixed") -> Floats:
    """Unbiased estimate of each problem's chance that all of k attempts succeed.

        pass^k = C(c, k) / C(n, k)                                   (Yao et al. 2024, arXiv 2406.12045, tau-bench)

    Shapes, conditions and errors are those of `pass_at_k`.
    """
    n, c, k = _checked(n, c, k, stopping)
    return np.exp(_log_subset_ratio(n, n - c, k))


def log_beta_survival(a: ArrayLike, b: ArrayLike, k: ArrayLike) -> Floats:
    """Log of the chance that k attempts all fail when the success probability is Beta(a, b).

        log E[(1 - p)^k] = log B(a, b + k) - log B(a, b) = log [Gamma(a + b) Gamma(b + k) / (Gamma(b) Gamma(a + b + k))]

    For a >= 0, b > 0 and real k >= 0, broadcast together. The relative error is a few parts in 1e15, also where the
    chance of a success is tiny: the four log-gammas are merged so that every term carries the factor a k.
    """
    a, b, k = (np.asarray(value, float) for value in (a, b, k))
    base, top = b + _SHIFT, a + b + k + _SHIFT
    joined = np.log1p((a / top) * (k / base))
    total = (base - 0.5) * joined + k * _log_share(base + k, a, top) + a * _log_share(base + a, k, top)
    total -= (a / (base + a)) * (k / (base + k)) * (1 / base + 1 / top) / 12
    total += _stirling_rest(base + a) + _stirling_rest(base + k) - _stirling_rest(top) - _stirling_rest(base)
    excess = np.zeros_like(total)
    for i in range(_SHIFT):
        factor = (a / (a + b + k + i)) * (k / (b + i))
        excess += factor + excess * factor
    return np.where((a == 0) | (k == 0), 0.0, total - np.log1p(excess))


def kaplan_meier(n: ArrayLike, c: ArrayLike, at: ArrayLike, *, batch: int = 1, mass: float = 0.9) -> Coverage:
    """Share of problems solved by attempt k when each problem is sampled until it is solved or a limit is reached.

        S(k) = prod over blocks ending by k of (1 - d / r);  pass@k = 1 - S(k)      (Kaplan & Meier 1958)
        var S = S^2 sum d / (r (r - d))                                             (Greenwood 1926)

    `n` are the attempts made on each problem, `c` the successes among them (0: censored at n), `at` the k asked for.
    A block is one attempt, or `batch` attempts made together: d problems succeed in it out of r that reach it. Only the
    number m of successes in a problem's last batch is known, not their places. Attempts of a batch are exchangeable, so
    inside a batch the first success falls within j attempts with probability 1 - C(batch - m, j) / C(batch, j), and d is
    replaced by the sum of these. Limits are log(-log S) limits (Kalbfleisch & Prentice 2002, eq. 1.13); where no problem
    or every problem is solved they are exact binomial ones for the problems followed up to k.

    Raises
    ------
    InputError : counts that contradict the design, or k beyond the last attempt while problems are unsolved.
    """
    n, c, at = _checked_counts(n, c, at)
    _check_design(n, c, batch)
    last = int(n.max())
    if (c[n == last] == 0).any() and (at > last).any():
        what = f"k = {at.max():.0f} is beyond the last attempt {last} on problems still unsolved there"
        raise InputError("PASSK-RANGE", what, fix="ask for a smaller k, or fit a law to extrapolate")
    survival, hazard, risk = (
        np.array(part) for part in zip(*(_survival(n, c, batch, k) for k in at.ravel()), strict=True)
    )
    se = survival * np.sqrt(hazard)
    low, high = _log_log_limits(survival, se, ((c > 0) | (n >= at.reshape(-1, 1))).sum(1), mass)
    return Coverage("kaplan-meier", at.ravel().astype(np.int64), 1 - survival, se, low, high, risk.astype(int), mass)


def empirical_coverage(attempts: Attempts, at: ArrayLike, *, mass: float = 0.9) -> Coverage:
    """The pass@k curve of one model without any law, by the estimator its stopping design allows.

    Fixed designs get the mean of `pass_at_k` with its standard error over problems, all others `kaplan_meier`.
    A "capped" design counts as stopped at its first success.

    Raises
    ------
    InputError : attempts of several models, k that the samples cannot answer, or sampling that a wrong answer could end.
    """
    if len(attempts) != 1:
        what = f"one model at a time, got {len(attempts)}"
        raise InputError("PASSK-MODELS", what, fix="choose one with attempts.subset([i])")
    n, c = attempts.n, attempts.n_correct
    if attempts.stopping != "fixed":
        _check_ending(attempts)
        return kaplan_meier(n, c, at, batch=attempts.batch if attempts.stopping == "batch" else 1, mass=mass)
    at = np.asarray(at).ravel()
    each = pass_at_k(n, c, at)
    value, problems = each.mean(0), len(each)
    se = each.std(0, ddof=1) / np.sqrt(problems) if problems > 1 else np.full(len(at), np.nan)
    low, high = _log_log_limits(1 - value, se, np.full(len(at), problems), mass)
    return Coverage("unbiased", at.astype(np.int64), value, se, low, high, np.full(len(at), problems), mass)


def bootstrap_pass_at_k(
    n: ArrayLike, c: ArrayLike, at: ArrayLike, *, draws: int = 1000, seed: int = 0, kind: Resampling = "bayesian"
) -> Floats:
    """Bootstrap over problems of the mean unbiased pass@k: (draw, k), so that its covariance over k can be had.

    Problems are resampled with everything sampled on them, so the draws carry the noise of finite problems and of
    finite samples; see `problem_weights` for the kinds and `pass_at_k` for the errors.
    """
    each = pass_at_k(np.atleast_1d(n), np.atleast_1d(c), np.atleast_1d(at))
    return problem_weights(len(each), draws, seed, kind) @ each


def problem_weights(problems: int, draws: int, seed: int, kind: Resampling = "bayesian") -> Floats:
    """Bootstrap weights of problems, (draw, problem), each row summing to 1.

    "bayesian" draws them from a flat Dirichlet (Rubin 1981), "ordinary" counts resampled problems (Efron 1979).

    Raises
    ------
    InputError : an unknown kind.
    """
    rng = np.random.default_rng(seed)
    if kind == "bayesian":
        return rng.dirichlet(np.ones(problems), size=draws)
    if kind == "ordinary":
        return rng.multinomial(problems, np.full(problems, 1 / problems), size=draws) / problems
    raise InputError("PASSK-BOOTSTRAP", f"bootstrap {kind!r} is unknown", fix="one of bayesian, ordinary")


def _log_subset_ratio(n: Floats, c: Floats, k: Floats) -> Floats:
    """log C(n - c, k) / C(n, k): k samples drawn from n, of which c succeeded, all fail. Shape n.shape + k.shape."""
    n, c = (value.reshape(value.shape + (1,) * k.ndim) for value in (n, c))
    spare = n - c - k
    return np.where(spare < 0, -np.inf, log_beta_survival(c, np.maximum(spare, 0) + 1, k))


def _stirling_rest(z: Floats) -> Floats:
    """Stirling's series of log Gamma(z) from its term in 1/z^3 on."""
    inverse = 1 / z
    total = np.zeros_like(inverse)
    for term in reversed(_STIRLING):
        total = total * inverse**2 + term
    return total * inverse**3


def _log_share(part: Floats, rest: Floats, whole: Floats) -> Floats:
    """log(part / whole) where whole = part + rest; by whichever of the two parts is the smaller."""
    small = np.minimum(rest / whole, 0.5)
    return np.where(rest < part, np.log1p(-small), np.log(part / whole))


def _checked(n: ArrayLike, c: ArrayLike, k: ArrayLike, stopping: str) -> tuple[Floats, Floats, Floats]:
    if stopping != "fixed":
        what = f"the pass@k formula holds for a number of samples set in advance, not for stopping {stopping!r}"
        raise InputError("PASSK-STOPPING", what, fix="use the Kaplan-Meier curve of the first success: kaplan_meier")
    n, c, k = _checked_counts(n, c, k)
    if k.size and n.size and k.max() > n.min():
        first = int(np.argmin(n))
        what = f"k = {k.max():.0f} attempts cannot be judged from n = {n.min():.0f} samples"
        raise InputError("PASSK-RANGE", what, where=f"problem {first}", fix="ask for a smaller k, or fit a law")
    return n, c, k


def _checked_counts(n: ArrayLike, c: ArrayLike, k: ArrayLike) -> tuple[Floats, Floats, Floats]:
    n, c = _whole(n, "n", 1, LARGEST_COUNT), _whole(c, "c", 0, LARGEST_COUNT)
    k = _whole(k, "k", 1, LARGEST_K)
    if n.shape != c.shape:
        raise InputError("PASSK-COUNTS", f"n and c must have one shape, got {n.shape} and {c.shape}")
    if (c > n).any():
        i = int(np.argmax((c > n).ravel()))
        what = f"{c.ravel()[i]:.0f} successes in {n.ravel()[i]:.0f} samples"
        raise InputError("PASSK-COUNTS", what, where=f"problem {i}")
    return n, c, k


def _whole(values: ArrayLike, name: str, least: int, most: int) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "iuf" or not array.size:
        raise InputError("PASSK-COUNTS", f"{name} must hold whole numbers, got {values!r}")
    bad = ~((array >= least) & (array <= most) & (array == np.round(array)))
    if bad.any():
        got = array.ravel()[int(np.argmax(bad.ravel()))]
        raise InputError("PASSK-COUNTS", f"{name} must be a whole number from {least} to {most}, got {got}")
    return array.astype(float)


def _check_ending(attempts: Attempts) -> None:
    accepted = attempts.n_accepted
    if accepted is not None and (accepted != attempts.n_correct).any():
        what = "accepted wrong answers ended the sampling of some problems, so their first success was never seen"
        raise InputError("PASSK-VERIFIER", what, fix="use kaplan_meier(n, n_accepted, at) for the share accepted")


def _check_design(n: Floats, c: Floats, batch: int) -> None:
    if batch < 1 or batch != round(batch):
        raise InputError("PASSK-BATCH", f"a batch holds a whole number of attempts from 1 upwards, got {batch}")
    ragged = (n % batch != 0) & (n != n.max())
    if ragged.any():
        i = int(np.argmax(ragged))
        raise InputError("PASSK-BATCH", f"{n[i]:.0f} attempts are not whole batches of {batch}", where=f"problem {i}")
    more = c > n - _start(n, batch)
    if more.any():
        i = int(np.argmax(more))
        what = f"{c[i]:.0f} successes do not fit in the last batch of {batch}, so sampling went on after a success"
        raise InputError("PASSK-BATCH", what, where=f"problem {i}", fix="give the true batch size or a fixed design")


def _start(n: Floats, batch: int) -> Floats:
    """Attempts made before the last batch began."""
    return (np.ceil(n / batch) - 1) * batch


def _survival(n: Floats, c: Floats, batch: int, k: float) -> tuple[float, float, int]:
    """S(k), Greenwood's sum up to k, and the problems that reach attempt k."""
    begun = _start(n, batch)
    solved = (c > 0) & (begun < k)
    block, which = np.unique(begun[solved], return_inverse=True)
    within = np.minimum(k, n[solved]) - begun[solved]
    # Each solved problem has its own batch, so k is judged against it alone.
    size = n[solved] - begun[solved]
    share = [float(pass_at_k(s, m, j)) for s, m, j in zip(size, c[solved], within, strict=True)]
    d = np.bincount(which, weights=share, minlength=len(block))
    r = (n[:, None] > block).sum(0)
    survival = float(np.prod(1 - d / r))
    hazard = float((d / (r * (r - d))).sum()) if survival > 0 else 0.0
    return survival, hazard, int((n >= k).sum())


def _log_log_limits(survival: Floats, se: Floats, problems: NDArray[Any], mass: float) -> tuple[Floats, Floats]:
    """Limits of 1 - S from a normal log(-log S); exact binomial ones at S = 0 or 1; (0, 1) with no standard error."""
    tail = (1 - mass) / 2
    with np.errstate(all="ignore"):
        spread = np.exp(-ndtri(tail) * se / np.abs(survival * np.log(survival)))
        low, high = 1 - survival ** (1 / spread), 1 - survival**spread
    edge = tail ** (1 / problems)
    low = np.where(survival <= 0, edge, np.where(survival >= 1, 0.0, low))
    high = np.where(survival <= 0, 1.0, np.where(survival >= 1, 1 - edge, high))
    return np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 1.0)
