"""How many samples to draw before the wrong answers that a verifier accepts eat the gains.

Every answer is a posterior: one number per draw of the population. Three outcomes of "the best number of samples" are
kept apart and never averaged: abstain (0), a finite number, and infinity, where every further sample helps. The optimum
is often very flat, so a recommended number always comes with the utility that is expected to be lost by choosing it.

Intervals are equal-tailed; a column such as `eti90_lower` names kind and mass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesscale.decisions.reach import QUANTILES, checked_draws, checked_weights, quantile
from bayesscale.resampling.verifier import Stakes, best_samples, increment, utility, utility_limit

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]

AT = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 300, 500, 1000, 3000, 10_000)


@dataclass(frozen=True, eq=False)
class SampleChoice:
    """Posterior of the best number of samples, and the number to choose before knowing the truth.

    Attributes
    ----------
    name, estimand : the model, and which population of problems `utility` is a mean over.
    stakes : benefit, cost of a false positive, cost of a sample.
    at : (sample,) numbers of samples that `utility` was computed at.
    utility : (draw, sample) expected utility per problem.
    best : (draw,) K*, 0 for abstaining, infinite where every further sample helps.
    best_utility : (draw,) utility at K*, the limit where K* is infinite.
    recommended : the number of samples with the greatest posterior mean utility, coded like `best`.
    recommended_utility : (draw,) utility there.
    cap : largest number of samples considered.
    """

    name: str
    estimand: str
    stakes: Stakes
    at: Floats
    utility: Floats
    best: Floats
    best_utility: Floats
    recommended: float
    recommended_utility: Floats
    cap: float

    @property
    def p_abstain(self) -> float:
        """Posterior probability that no sample is worth drawing, K* = 0."""
        return float((self.best == 0).mean())

    @property
    def p_infinite(self) -> float:
        """Posterior probability that every further sample helps."""
        return float(np.isinf(self.best).mean())

    @property
    def p_finite(self) -> float:
        """Posterior probability that K* is a number from 1 upwards."""
        return float((np.isfinite(self.best) & (self.best > 0)).mean())

    @property
    def expected_regret(self) -> float:
        """Utility expected to be lost by choosing `recommended`, E[max_K U(K) - U(recommended)]."""
        return float((self.best_utility - self.recommended_utility).mean())

    @property
    def regret(self) -> Floats:
        """(sample,) Utility expected to be lost by choosing each of `at`, E[max_K U(K) - U(at)]."""
        return (self.best_utility[:, None] - self.utility).mean(axis=0)

    def table(self) -> pd.DataFrame:
        """One row: the recommendation, its regret and utility, and the posterior of K*.

        `best_*` are quantiles of K* with abstaining as 0 and "every further sample helps" as infinity.
        """
        import pandas as pd

        row: dict[str, Any] = {
            **self._labels(),
            "cap": self.cap,
            "recommended": self.recommended,
            "answer": answer(self.recommended),
            "mean_utility": self.recommended_utility.mean(),
            "expected_regret": self.expected_regret,
            "p_abstain": self.p_abstain,
            "p_finite": self.p_finite,
            "p_infinite": self.p_infinite,
        }
        row |= {f"best_{name}": quantile(self.best, q) for name, q in QUANTILES.items()}
        return pd.DataFrame([row])

    def curve(self) -> pd.DataFrame:
        """One row per number of samples in `at`: posterior of the utility there, and the regret of choosing it."""
        import pandas as pd

        beats = (self.utility > 0).mean(axis=0)
        columns = {"samples": self.at, **_summary(self.utility, "utility"), "p_better_than_abstaining": beats}
        return pd.DataFrame({**self._labels(), **columns, "expected_regret": self.regret})

    def __str__(self) -> str:
        whose = f"{self.name}: " if self.name else ""
        return (
            f"{whose}{answer(self.recommended)}, at an expected regret of {self.expected_regret:.3g} per problem; "
            f"abstaining is best with probability {self.p_abstain:.2f}, some number of samples with {self.p_finite:.2f}, "
            f"ever more samples with {self.p_infinite:.2f} ({self.estimand})."
        )

    def _labels(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "estimand": self.estimand,
            **{f"stake_{k}": v for k, v in vars(self.stakes).items()},
        }


@dataclass(frozen=True, eq=False)
class NextSample:
    """Posterior of what one more sample is worth, U(K + 1) - U(K), per problem."""

    name: str
    estimand: str
    at: Floats  # (sample,) samples drawn so far
    gain: Floats  # (draw, sample)

    def table(self) -> pd.DataFrame:
        """One row per number of samples drawn so far: the gain, and the probability that it is above 0."""
        import pandas as pd

        fields = {"model": self.name, "estimand": self.estimand, "samples": self.at, **_summary(self.gain, "gain")}
        return pd.DataFrame({**fields, "p_gains": (self.gain > 0).mean(axis=0)})


def answer(samples: float) -> str:
    """A number of samples in words: abstain, draw up to so many, or draw until one is accepted."""
    if samples == 0:
        return "abstain"
    return "draw until one is accepted" if math.isinf(samples) else f"draw up to {samples:.15g}"


def choose_samples(
    acceptance: ArrayLike,
    share: ArrayLike,
    stakes: Stakes,
    weights: ArrayLike | None = None,
    *,
    at: Sequence[float] = AT,
    cap: float = math.inf,
    name: str = "",
    estimand: str = "mean over the problems drawn",
) -> SampleChoice:
    """Decide on the number of samples when an imperfect verifier picks the answer.

    `acceptance` and `share` are posterior draws of a population, (draw, problem); see `bayesscale.resampling.verifier` for
    them, for the utility and for `weights`. K* is found for every draw. The recommended number maximises the posterior mean
    of the utility; it is exact, not limited to the grid `at`, because a mean over draws is again the utility of a population.

    Raises
    ------
    InputError : draws that are not (draw, problem), values outside [0, 1], or a grid that is not of whole numbers.
    """
    a, s = checked_draws(acceptance, share)
    w = checked_weights(weights, a.shape)
    grid = np.asarray(at, dtype=np.float64)
    best, best_utility = best_samples(a, s, stakes, w, cap=cap)
    pooled = best_samples(a.ravel(), s.ravel(), stakes, w.ravel(), cap=cap)
    recommended = float(pooled.samples)
    at_recommended = (
        utility_limit(a, s, stakes, w) if math.isinf(recommended) else utility(a, s, recommended, stakes, w)
    )
    return SampleChoice(
        name=name,
        estimand=estimand,
        stakes=stakes,
        at=grid,
        utility=utility(a, s, grid, stakes, w),
        best=best,
        best_utility=best_utility,
        recommended=recommended,
        recommended_utility=at_recommended,
        cap=cap,
    )


def next_sample(
    acceptance: ArrayLike,
    share: ArrayLike,
    stakes: Stakes,
    weights: ArrayLike | None = None,
    *,
    at: Sequence[float] = AT,
    name: str = "",
    estimand: str = "mean over the problems drawn",
) -> NextSample:
    """What one more sample is worth after each number in `at`; arguments and errors as in `choose_samples`."""
    a, s = checked_draws(acceptance, share)
    grid = np.asarray(at, dtype=np.float64)
    return NextSample(name, estimand, grid, increment(a, s, grid, stakes, weights))


def _summary(draws: Floats, of: str) -> dict[str, Floats]:
    """Mean and equal-tailed 50% and 90% intervals over draws, at every point."""
    bounds = np.quantile(draws, list(QUANTILES.values()), axis=0)
    return {f"mean_{of}": draws.mean(axis=0), **dict(zip(QUANTILES, bounds, strict=True))}
