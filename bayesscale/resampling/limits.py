"""pass@infinity: how many problems any number of samples would solve, and how far the prior decides it.

Under a zero-inflated Beta law a share pi0 of problems is impossible and pass@k tends to 1 - pi0. Finite samples see impossible
problems and very hard ones alike, so the answer is given under several priors on pi0 side by side. All come from one posterior
under a wide prior, reweighted. Three estimands, per posterior draw theta:

* ``these``: the share of *these* problems that some number of samples solves. Solved ones are possible; an unsolved one, 0 of
  n, is with probability 1 - pi0 / E[(1-p)^n], drawn as a coin;
* ``population``: 1 - pi0;
* ``new``: the share of as many *new* problems that is possible, Binomial(M, 1 - pi0) / M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpyro.distributions as dist
from numpy.typing import NDArray
from scipy.special import expit, log_expit
from scipy.stats import norm

from bayesscale.attempts import Attempts
from bayesscale.finding import Finding
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.rates import RATE_LAWS, RateLaw
from bayesscale.resampling.fitting import RateFit, fit_rates

if TYPE_CHECKING:
    import pandas as pd


class ZeroPrior(NamedTuple):
    """logit(pi0) ~ Normal(centre, sd)."""

    centre: float
    sd: float

    def __str__(self) -> str:
        return f"Normal({self.centre:g}, {self.sd:g})"


ZERO_PRIORS = (ZeroPrior(-3.0, 1.2), ZeroPrior(-3.0, 0.6), ZeroPrior(-1.5, 1.2), ZeroPrior(-2.0, 2.0))
"""The default prior of the zero-inflated law, a firmer one, one that expects more impossible problems, a vague one."""
WIDE = ZeroPrior(-2.2, 2.4)
DISAGREEMENT = 0.1
"""Difference of medians over priors from which the answer is called prior-driven."""


@dataclass(frozen=True, eq=False)
class Limit:
    """pass@infinity of one model under several priors.

    Attributes
    ----------
    fit : the posterior under the wide prior.
    priors : the priors compared.
    draws : (draw,) by estimand, under the wide prior.
    weights : (prior, draw), they turn the draws into those under each of `priors`.
    disagreements : findings that the priors decide the answer.
    """

    fit: RateFit
    priors: tuple[ZeroPrior, ...]
    draws: Mapping[str, NDArray[np.float64]]
    weights: NDArray[np.float64]
    disagreements: tuple[Finding, ...]

    @property
    def name(self) -> str:
        return self.fit.name

    @property
    def findings(self) -> tuple[Finding, ...]:
        return (*self.fit.findings, *self.disagreements)

    def table(self) -> pd.DataFrame:
        """One row per estimand and prior: what it expects, posterior mean, median, 90% equal-tailed interval, effective draws."""
        import pandas as pd

        rows = [
            {
                "model": self.name,
                "estimand": estimand,
                "prior_logit_zero_mass": str(prior),
                **prior_columns(prior),
                **posterior_columns(draws, weight),
                "status": self.fit.status,
            }
            for estimand, draws in self.draws.items()
            for prior, weight in zip(self.priors, self.weights, strict=True)
        ]
        return pd.DataFrame(rows)


def prior_columns(prior: ZeroPrior) -> dict[str, float]:
    """Median and 90% equal-tailed interval of 1 - pi0 under a prior."""
    low, middle, high = 1 - expit(norm.ppf([0.95, 0.5, 0.05], prior.centre, prior.sd))
    return {"prior_median": middle, "prior_eti90_lower": low, "prior_eti90_upper": high}


def posterior_columns(draws: NDArray, weight: NDArray) -> dict[str, float]:
    """Mean, median, 90% equal-tailed interval and effective number of weighted draws."""
    low, middle, high = weighted_quantile(draws, weight, (0.05, 0.5, 0.95))
    effective = 1.0 / float(np.sum(weight**2))
    found = {"mean": float(weight @ draws), "median": middle, "eti90_lower": low, "eti90_upper": high}
    return found | {"effective_draws": effective}


def weighted_quantile(values: NDArray, weight: NDArray, at: Sequence[float]) -> NDArray:
    """Quantiles of weighted draws, by the inverse of their distribution function."""
    order = np.argsort(values)
    level = np.cumsum(weight[order])
    return values[order][np.minimum(np.searchsorted(level, np.asarray(at) * level[-1]), len(values) - 1)]


@lru_cache(maxsize=1)
def wide_law() -> RateLaw:
    """The zero-inflated Beta law with the wide prior on its zero mass."""
    law = RATE_LAWS["zero_inflated_beta"]
    wider = tuple(replace(p, prior=dist.Normal(*WIDE)) if p.name == "logit_zero_mass" else p for p in law.parameters)
    return replace(law, parameters=wider)


def pass_at_infinity(
    attempts: Attempts,
    *,
    priors: Sequence[ZeroPrior] = ZERO_PRIORS,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Limit]:
    """Estimate lim pass@k for every model, of these, of new and of all problems, under each prior on pi0.

    A model whose medians differ by more than .1 over the priors gets the finding "LIMIT-PRIOR-DRIVEN".
    """
    fits = fit_rates(attempts, wide_law(), sampler=sampler, seed=seed, progress=progress)
    return [limit_of(fit, tuple(priors), seed) for fit in fits]


def limit_of(fit: RateFit, priors: tuple[ZeroPrior, ...], seed: int) -> Limit:
    """Turn a fit under the wide prior into answers under each prior."""
    logit_zero = fit.draws.flat("logit_zero_mass")
    log_weight = np.stack([norm.logpdf(logit_zero, *p) - norm.logpdf(logit_zero, *WIDE) for p in priors])
    weights = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    draws = limit_draws(fit, logit_zero, seed)
    found = [finding for name in draws for finding in disagreement(fit.name, name, draws[name], weights)]
    return Limit(fit, priors, draws, weights, tuple(found))


def limit_draws(fit: RateFit, logit_zero: NDArray, seed: int) -> dict[str, NDArray[np.float64]]:
    """Draw the share of possible problems by estimand, (draw,)."""
    rng = np.random.default_rng([seed, int(fit.attempts.digest(0), 16), *b"limit"])
    n, c = fit.attempts.n, fit.attempts.n_correct
    waiting, times = np.unique(n[c == 0], return_counts=True)
    solved, possible = float((c > 0).sum()), np.zeros(len(logit_zero))
    if len(waiting):
        unsolved = fit.log_moments(np.zeros_like(waiting), waiting)
        chance = -np.expm1(np.minimum(log_expit(logit_zero)[:, None] - unsolved, 0.0))
        possible = rng.binomial(times, chance).sum(axis=1)
    share = expit(-logit_zero)
    return {
        "these": (solved + possible) / n.size,
        "new": rng.binomial(n.size, share) / n.size,
        "population": share,
    }


def disagreement(name: str, estimand: str, draws: NDArray, weights: NDArray) -> list[Finding]:
    """Say that the priors decide the answer, for these problems or for the population, where they do."""
    medians = [weighted_quantile(draws, weight, [0.5])[0] for weight in weights]
    if estimand == "new" or max(medians) - min(medians) <= DISAGREEMENT:
        return []
    whose = "of these problems" if estimand == "these" else "of the population"
    message = (
        f"pass@infinity {whose} is prior-driven: medians from {min(medians):.2f} to {max(medians):.2f} over priors"
    )
    return [Finding("LIMIT-PRIOR-DRIVEN", "warn", message, "report it under several priors", name)]
