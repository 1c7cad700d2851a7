"""pass@infinity: how many problems no number of samples would solve, and how far the prior decides it.

Under a zero-inflated Beta law a share pi0 of problems is impossible and pass@k tends to 1 - pi0. Finite samples see impossible
problems and very hard ones alike, so the answer is given under several priors on pi0 side by side. All come from one posterior
under a wide prior, reweighted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpyro.distributions as dist
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from bayesscale.attempts import Attempts
from bayesscale.finding import Finding
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.rates import RATE_LAWS, RateLaw
from bayesscale.resampling.fitting import fit_rates

if TYPE_CHECKING:
    import pandas as pd


class ZeroPrior(NamedTuple):
    """logit(pi0) ~ Normal(centre, sd)."""

    centre: float
    sd: float


ZERO_PRIORS = (ZeroPrior(-3.0, 1.2), ZeroPrior(-3.0, 0.6), ZeroPrior(-1.5, 1.2), ZeroPrior(-2.0, 2.0))
"""The default prior of the zero-inflated law, a firmer one, one that expects more impossible problems, a vague one."""
WIDE = ZeroPrior(-2.2, 2.4)


@dataclass(frozen=True, eq=False)
class Limit:
    """pass@infinity of one model under several priors.

    `draws` are (draw,) of 1 - pi0 under the wide prior, `weights` (prior, draw) turn them into those under each of `priors`.
    """

    name: str
    priors: tuple[ZeroPrior, ...]
    draws: NDArray[np.float64]
    weights: NDArray[np.float64]
    findings: tuple[Finding, ...]

    def table(self) -> pd.DataFrame:
        """One row per prior: what it expects, the posterior mean, median and 90% equal-tailed interval, effective draws."""
        import pandas as pd

        rows = []
        for prior, weight in zip(self.priors, self.weights, strict=True):
            low, middle, high = weighted_quantile(self.draws, weight, (0.05, 0.5, 0.95))
            before = 1 - expit(norm.ppf([0.95, 0.5, 0.05], prior.centre, prior.sd))
            rows.append(
                {
                    "model": self.name,
                    "estimand": "pass@infinity of the population",
                    "prior_logit_zero_mass": f"Normal({prior.centre:g}, {prior.sd:g})",
                    "prior_eti90_lower": before[0],
                    "prior_median": before[1],
                    "prior_eti90_upper": before[2],
                    "mean": float(weight @ self.draws),
                    "median": middle,
                    "eti90_lower": low,
                    "eti90_upper": high,
                    "effective_draws": 1.0 / float(np.sum(weight**2)),
                }
            )
        return pd.DataFrame(rows)


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
    """Estimate lim pass@k = 1 - pi0 for every model, under each prior on pi0.

    A model whose medians differ by more than .1 over the priors gets the finding "LIMIT-PRIOR-DRIVEN".
    """
    limits = []
    for fit in fit_rates(attempts, wide_law(), sampler=sampler, seed=seed, progress=progress):
        logit_zero = fit.draws.flat("logit_zero_mass")
        weights = np.stack([norm.pdf(logit_zero, *p) / norm.pdf(logit_zero, *WIDE) for p in priors])
        weights /= weights.sum(axis=1, keepdims=True)
        draws = 1.0 - expit(logit_zero)
        medians = [weighted_quantile(draws, weight, [0.5])[0] for weight in weights]
        findings = fit.findings
        if max(medians) - min(medians) > 0.1:
            message = (
                f"pass@infinity is prior-driven: medians from {min(medians):.2f} to {max(medians):.2f} over priors"
            )
            findings += (Finding("LIMIT-PRIOR-DRIVEN", "warn", message, "report it under several priors", fit.name),)
        limits.append(Limit(fit.name, tuple(priors), draws, weights, findings))
    return limits
