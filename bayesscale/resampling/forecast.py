"""Forecasts of coverage: pass@k and its kin at any k, also far beyond the samples drawn, from a fitted population.

What is forecast is named by its target. With theta a posterior draw and S_i(k) = E[(1-p_i)^k | c_i, n_i, theta]:

* ``solved``: the share of *these* problems solved within their first k attempts, those already drawn among them. Solved
  problems stay solved; each unsolved one is solved later with probability 1 - S(k) / S(n), drawn as a coin. The target to use
  for "what will this benchmark show if sampling goes on".
* ``these``: the mean over *these* problems of 1 - (1-p_i)^k, the chance that k fresh attempts solve them;
* ``population``: 1 - E[(1-p)^k] over the population the problems came from;
* ``new``: the share of as many *new* problems of that population solved within k attempts.

They differ little at first and much once most problems are solved: the coins are what keeps intervals of ``solved`` honest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from bayesscale.attempts import Attempts
from bayesscale.finding import Finding, InputError
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.resampling.fitting import RateFit, fit_rates

if TYPE_CHECKING:
    import pandas as pd

Target = Literal["solved", "these", "population", "new"]
LARGEST_K = 1e12
SENSITIVITY_LAWS = ("beta", "beta_mixture", "logit_normal")
"""Laws that fit the same counts about equally well and differ in their tails."""
FORECAST_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class CoverageForecast:
    """Draws of a coverage curve.

    Attributes
    ----------
    name, law : the model and the rate law.
    target : the estimand, see the module's docstring.
    k : (k,) attempts.
    draws : (draw, k), shares of problems.
    horizon : (k,) attempts over the most samples any problem had; above 1 the forecast extrapolates.
    solved, problems, successes : how much was seen: problems solved, problems, correct samples.
    """

    name: str
    law: str
    target: Target
    k: NDArray[np.int64]
    draws: NDArray[np.float64]
    horizon: NDArray[np.float64]
    solved: int
    problems: int
    successes: int

    def interval(self, mass: float = 0.9) -> tuple[NDArray, NDArray]:
        """Equal-tailed interval of this mass at every k."""
        lower, upper = np.quantile(self.draws, [(1 - mass) / 2, (1 + mass) / 2], axis=0)
        return lower, upper

    def table(self) -> pd.DataFrame:
        """One row per k: mean, median, the 50% and 90% equal-tailed intervals, and how far k lies beyond the data."""
        import pandas as pd

        q = np.quantile(self.draws, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        fields = {"model": self.name, "law": self.law, "estimand": self.target, "k": self.k}
        fields |= {"mean": self.draws.mean(axis=0)}
        fields |= dict(zip(("eti90_lower", "eti50_lower", "median", "eti50_upper", "eti90_upper"), q, strict=True))
        seen = {"share_solved": self.solved / self.problems, "successes": self.successes}
        return pd.DataFrame(fields | {"horizon": self.horizon, "extrapolated": self.horizon > 1.0} | seen)


def check_attempts(at: ArrayLike) -> NDArray[np.int64]:
    """Return numbers of attempts as whole numbers.

    Raises
    ------
    InputError : an entry is not a whole number from 1 to 10^12.
    """
    k = np.atleast_1d(np.asarray(at, float))
    bad = ~(np.isfinite(k) & (k >= 1) & (k <= LARGEST_K) & (k == np.round(k)))
    if bad.any():
        raise InputError("PASSK-K", f"k must be a whole number from 1 to 1e12, got {k[bad][0]:g}")
    return k.astype(np.int64)


def forecast(fit: RateFit, at: ArrayLike, target: Target = "solved", *, seed: int = 0) -> CoverageForecast:
    """Forecast the share of problems solved at each number of attempts; see the module's docstring for the targets.

    Raises
    ------
    InputError : a k out of range, an unknown target, or ``solved`` at a k that an adaptive design leaves unknown.
    """
    k = check_attempts(at)
    if target not in get_args(Target):
        raise InputError("PASSK-TARGET", f"target {target!r} is unknown", fix="one of " + ", ".join(get_args(Target)))
    rng = np.random.default_rng([seed, int(fit.attempts.digest(0)[:15], 16)])
    draw = {"solved": solved_share, "these": fresh_share, "population": population_share, "new": new_share}[target]
    n, c = fit.attempts.n, fit.attempts.n_correct
    return CoverageForecast(
        name=fit.name,
        law=fit.law.name,
        target=target,
        k=k,
        draws=draw(fit, k, rng),
        horizon=k / n.max(),
        solved=int((c > 0).sum()),
        problems=len(n),
        successes=int(c.sum()),
    )


def thinning(fit: RateFit) -> int:
    """Stride that leaves about as many draws as a forecast needs."""
    return max(1, fit.size // FORECAST_DRAWS)


def population_share(fit: RateFit, k: NDArray[np.int64], rng: np.random.Generator) -> NDArray:
    return -np.expm1(fit.log_moments(np.zeros_like(k), k, every=thinning(fit)))


def new_share(fit: RateFit, k: NDArray[np.int64], rng: np.random.Generator) -> NDArray:
    """One sample of new problems per draw: a problem is solved at the k where its own uniform is reached."""
    pass_at = population_share(fit, k, rng)
    problems = fit.attempts.n.size
    luck = rng.random((len(pass_at), problems))
    return (luck[:, :, None] < pass_at[:, None, :]).mean(axis=1)


def fresh_share(fit: RateFit, k: NDArray[np.int64], rng: np.random.Generator) -> NDArray:
    """Mean over problems of 1 - (1-p_i)^k, its spread given theta matched to its exact variance over problems.

    One normal deviate per draw serves all k: the curves are smooth in k, as the quantity is.
    """
    n, c, weight = fit.attempts.patterns(0)
    every, total = thinning(fit), weight.sum()
    start = fit.log_moments(c, n - c, every=every)[:, :, None]
    failures = (n - c)[:, None]
    once = np.exp(fit.log_moments(c[:, None], failures + k, every=every) - start)
    twice = np.exp(fit.log_moments(c[:, None], failures + 2 * k, every=every) - start)
    mean = 1.0 - np.einsum("p,dpk->dk", weight, once) / total
    variance = np.einsum("p,dpk->dk", weight, np.maximum(twice - once**2, 0.0)) / total**2
    return np.clip(mean + np.sqrt(variance) * rng.standard_normal((len(mean), 1)), 0.0, 1.0)


def solved_share(fit: RateFit, k: NDArray[np.int64], rng: np.random.Generator) -> NDArray:
    """Share of these problems solved within k attempts, past ones included: one coin per problem and draw."""
    n, c = fit.attempts.n, fit.attempts.n_correct
    past = solved_by(fit.attempts, k)
    unsolved = c == 0
    waiting, where = np.unique(n[unsolved], return_inverse=True)
    every = thinning(fit)
    draws = len(range(0, fit.size, every))
    luck = rng.random((draws, n.size))
    share = (luck[:, ~unsolved, None] < past[~unsolved]).sum(axis=1)
    if len(waiting):
        nothing = np.zeros_like(waiting)
        later = np.maximum(k, waiting[:, None])  # before its last sample an unsolved problem is unsolved
        start = fit.log_moments(nothing, waiting, every=every)[:, :, None]
        still = fit.log_moments(nothing[:, None], later, every=every) - start
        chance = np.where(later == waiting[:, None], 0.0, -np.expm1(still))
        share = share + (luck[:, unsolved, None] < chance[:, where]).sum(axis=1)
    return share / n.size


def solved_by(attempts: Attempts, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chance that a problem's first success came within its first k attempts, (problem, k), given its counts.

    Under ``fixed`` the order of samples says nothing: 1 - C(n-c, k) / C(n, k). Under ``first_success`` and ``batch`` the
    successes are among the last batch.

    Raises
    ------
    InputError : the design is ``capped`` and some k lies within the samples: when the successes came is unknown.
    """
    n, c = attempts.n[:, None], attempts.n_correct[:, None]
    if attempts.stopping == "capped" and (k < n.max()).any():
        raise InputError(
            "PASSK-ORDER",
            f"under stopping capped it is unknown which of the first {k.min()} attempts succeeded",
            fix=f"ask for k of {n.max()} or more",
        )
    if attempts.stopping in ("first_success", "batch"):
        block = np.minimum(attempts.batch, n)
        k, n = np.clip(k - (n - block), 0, None), block
    inside = np.minimum(k, n)
    left = n - c - inside
    log_none = gammaln(n - c + 1) - gammaln(np.maximum(left, 0) + 1) - gammaln(n + 1) + gammaln(n - inside + 1)
    return np.where(c == 0, 0.0, np.where(left < 0, 1.0, -np.expm1(log_none)))


def reliability(fit: RateFit, at: ArrayLike, target: Target = "these", *, seed: int = 0) -> CoverageForecast:
    """Forecast pass^k, the chance that k attempts at a problem all succeed: E[p^k], over these problems or the population.

    Raises
    ------
    InputError : a k out of range, or a target other than ``these`` and ``population``.
    """
    k = check_attempts(at)
    every = thinning(fit)
    if target == "population":
        draws = np.exp(fit.log_moments(k, np.zeros_like(k), every=every))
    elif target == "these":
        n, c, weight = fit.attempts.patterns(0)
        failures = (n - c)[:, None]
        start = fit.log_moments(c, n - c, every=every)[:, :, None]
        once = np.exp(fit.log_moments(c[:, None] + k, failures, every=every) - start)
        twice = np.exp(fit.log_moments(c[:, None] + 2 * k, failures, every=every) - start)
        rng = np.random.default_rng([seed, int(fit.attempts.digest(0)[:15], 16)])
        spread = np.sqrt(np.einsum("p,dpk->dk", weight, np.maximum(twice - once**2, 0.0))) / weight.sum()
        mean = np.einsum("p,dpk->dk", weight, once) / weight.sum()
        draws = np.clip(mean + spread * rng.standard_normal((len(once), 1)), 0.0, 1.0)
    else:
        raise InputError("PASSK-TARGET", f"pass^k is defined for these and population, not {target!r}")
    n, c = fit.attempts.n, fit.attempts.n_correct
    seen = (int((c > 0).sum()), len(n), int(c.sum()))
    return CoverageForecast(fit.name, fit.law.name, target, k, draws, k / n.max(), *seen)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The same forecast under several laws, and whether they agree.

    `forecasts` holds one per law, the fit's own first; `findings` has "PRIOR-DRIVEN" where the laws' medians spread by more
    than the width of the own 90% interval, or where fewer than five successes were seen.
    """

    forecasts: tuple[CoverageForecast, ...]
    findings: tuple[Finding, ...]

    def table(self) -> pd.DataFrame:
        """All forecasts under each other."""
        import pandas as pd

        return pd.concat([forecast.table() for forecast in self.forecasts], ignore_index=True)


def sensitivity(
    fit: RateFit,
    at: ArrayLike,
    target: Target = "solved",
    *,
    laws: Sequence[str] = SENSITIVITY_LAWS,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Sensitivity:
    """Repeat a forecast under other laws: neither evidence nor leave-one-out decides the tail, so all are shown."""
    others = [
        fit_rates(fit.attempts, law, sampler=sampler, seed=seed, progress=progress)[0]
        for law in laws
        if law != fit.law.name
    ]
    return compare_tails([forecast(each, at, target, seed=seed) for each in (fit, *others)])


def compare_tails(forecasts: Sequence[CoverageForecast]) -> Sensitivity:
    """Judge whether forecasts of one curve under several laws agree; the first is the one that is used."""
    own = forecasts[0]
    middles = np.array([np.median(f.draws, axis=0) for f in forecasts])
    spread = middles.max(axis=0) - middles.min(axis=0)
    lower, upper = own.interval(0.9)
    findings = []
    worst = int(np.argmax(spread - (upper - lower)))
    if spread[worst] > upper[worst] - lower[worst]:
        each = ", ".join(f"{f.law} {m:.2f}" for f, m in zip(forecasts, middles[:, worst], strict=True))
        message = f"extrapolation is prior-driven: at k = {own.k[worst]} the laws say {each}"
        findings.append(Finding("PRIOR-DRIVEN", "warn", message, "report all laws; draw more samples", own.name))
    elif own.successes < 5 and (own.horizon > 1).any():
        message = f"extrapolation is prior-driven: only {own.successes} successes were seen"
        findings.append(Finding("PRIOR-DRIVEN", "warn", message, "draw more samples", own.name))
    return Sensitivity(tuple(forecasts), tuple(findings))
