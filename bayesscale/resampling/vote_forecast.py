"""Forecasts of votes: each problem's shares drawn from their posterior, and what a plurality among n samples then scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from bayesscale.resampling.plurality import plurality_accuracy, plurality_score
from bayesscale.votes import Votes

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]
Estimand = Literal["these", "realised", "continued", "new"]
ESTIMANDS: Mapping[str, str] = {
    "these": "expected accuracy of n fresh votes on these problems",
    "realised": "accuracy of one set of n fresh votes on these problems",
    "continued": "accuracy on these problems after the votes cast so far and as many more as make n",
    "new": "expected accuracy of n votes on as many new problems",
}
"""What `VoteFit.majority` can predict. All but "new" are about the problems fitted."""
EXACT = 4096
"""Largest answers x n^2 for which an expected accuracy is computed exactly; beyond it is simulated."""
REPEATS = 64
"""Sets of votes per draw behind a simulated expected accuracy: with n as large it adds no visible noise."""


@dataclass(frozen=True, eq=False)
class VoteForecast:
    """Predicted accuracy of a plurality vote.

    Attributes
    ----------
    model : name of the model.
    target : one of `ESTIMANDS`.
    at : (n,) numbers of votes.
    single : (draw,) expected accuracy of a single sample.
    majority : (draw, n) accuracy of the vote.
    limit : (draw,) accuracy of a vote among ever more samples.
    any_correct : (draw, n) share of problems on which at least one vote is right.
    """

    model: str
    target: Estimand
    at: NDArray[np.int64]
    single: Floats
    majority: Floats
    limit: Floats
    any_correct: Floats

    @property
    def gain(self) -> Floats:
        """(draw, n) accuracy of the vote less that of a single sample."""
        return self.majority - self.single[:, None]

    def table(self, *, mass: float = 0.9) -> pd.DataFrame:
        """One row per n, the last for n without end: single, majority and gain with equal-tailed intervals, P(gain > 0)."""
        import pandas as pd

        level = f"eti{round(100 * mass)}"
        majority = np.concatenate([self.majority, self.limit[:, None]], axis=1)
        values = {"majority": majority, "gain": majority - self.single[:, None]}
        fields: dict[str, Any] = {"model": self.model, "estimand": ESTIMANDS[self.target]}
        fields |= {"n": np.append(self.at.astype(float), np.inf), "single": self.single.mean()}
        for name, draws in values.items():
            low, high = np.quantile(draws, [(1 - mass) / 2, (1 + mass) / 2], axis=0)
            fields |= {name: draws.mean(axis=0), f"{name}_{level}_lower": low, f"{name}_{level}_upper": high}
        fields["p_gain"] = (values["gain"] > 0).mean(axis=0)
        fields["any_correct"] = np.append(self.any_correct.mean(axis=0), 1.0)
        return pd.DataFrame(fields)


def draw_shares(
    theta: Mapping[str, Floats], votes: Votes, slots: int, rng: np.random.Generator, *, new: bool = False
) -> Floats:
    """Draw each problem's vote shares given the parameters (draw,) and, unless `new`, its votes: (draw, row, 1 + slots)."""
    seen = 0 if new else 1
    silent = _shapes(theta["logit_silent"], theta["log_silent_concentration"])
    success = _shapes(theta["logit_success"], theta["log_concentration"])
    answered = votes.n - votes.n_none
    quiet = _dirichlet(rng, [silent[0] + seen * votes.n_none, silent[1] + seen * answered])
    right = _dirichlet(rng, [success[0] + seen * votes.n_correct, success[1] + seen * (answered - votes.n_correct)])
    each = np.exp(theta["log_scatter"])[:, None, None] / slots + seen * padded(votes.wrong, slots)
    wrong = _dirichlet(rng, np.moveaxis(np.broadcast_to(each, (*quiet.shape[:2], slots)), -1, 0))
    among = np.concatenate([right[..., :1], right[..., 1:] * wrong], axis=-1)
    return quiet[..., 1:] * among


def vote(
    shares: Floats, at: Sequence[int] | NDArray, start: NDArray, spent: NDArray, repeats: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Accuracy of the vote, and share of problems with a right vote, at each n of `at`; both (draw, n).

    Votes are added to `start` (problem, answer), which cost `spent` (problem,) samples, so that the votes at a larger n
    contain those at a smaller one; means over `repeats` such series.
    """
    cells = np.concatenate([shares, np.maximum(1.0 - shares.sum(axis=-1, keepdims=True), 0.0)], axis=-1)
    cells /= cells.sum(axis=-1, keepdims=True)
    scores, hits = np.zeros((2, len(shares), len(at)))
    for _ in range(repeats):
        counts, used = np.broadcast_to(start, shares.shape), spent
        for j in np.argsort(at):
            counts = counts + rng.multinomial(at[j] - used, cells)[..., :-1]
            used = np.full_like(used, at[j])
            scores[:, j] += plurality_score(counts, 0).mean(axis=1) / repeats
            hits[:, j] += (counts[..., 0] > 0).mean(axis=1) / repeats
    return scores, hits


def expected_accuracy(shares: Floats, at: NDArray[np.int64], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Expected accuracy of a vote among n samples, and share of problems with a right vote, at each n; both (draw, n)."""
    answers = shares.shape[-1]
    scores, right = np.zeros((len(shares), len(at))), shares[..., 0]
    exact = answers * at**2 <= EXACT
    scores[:, at == 1] = right.mean(axis=1, keepdims=True)
    for j in np.flatnonzero(exact & (at > 1)):
        scores[:, j] = plurality_accuracy(shares, 0, int(at[j])).mean(axis=1)
    if not exact.all():
        nothing = np.zeros(shares.shape[1:], dtype=np.int64)
        scores[:, ~exact] = vote(shares, at[~exact], nothing, nothing[:, 0], REPEATS, rng)[0]
    missed = np.exp(at * np.log1p(-np.minimum(right, 1 - 1e-16))[..., None])
    return scores, 1.0 - missed.mean(axis=1)


def _shapes(logit_mean: Floats, log_concentration: Floats) -> tuple[Floats, Floats]:
    """Beta shapes m k and (1 - m) k, (draw, 1), in logs so that a mean near 1 keeps its complement."""
    low, high = log_expit(logit_mean), log_expit(-logit_mean)
    return np.exp(log_concentration + low)[:, None], np.exp(log_concentration + high)[:, None]


def _dirichlet(rng: np.random.Generator, shapes: Sequence[Floats] | Floats) -> Floats:
    """Draw shares on a last axis from `shapes` on the first; in logs, where the smallest shapes underflow."""
    a = np.stack(np.broadcast_arrays(*shapes), axis=-1)
    log = np.log(rng.standard_gamma(a + 1.0)) + np.log(rng.uniform(np.finfo(float).tiny, 1.0, a.shape)) / a
    scaled = np.exp(log - log.max(axis=-1, keepdims=True))
    return scaled / scaled.sum(axis=-1, keepdims=True)


def padded(wrong: NDArray, slots: int) -> NDArray:
    """Wrong votes in exactly `slots` columns; columns beyond those hold no votes."""
    return np.pad(wrong[:, :slots], ((0, 0), (0, max(0, slots - wrong.shape[1]))))
