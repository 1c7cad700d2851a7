"""False positives by attempt: how often an accepted answer is wrong, by the attempt at which it was accepted.

For logs that keep one accepted answer per problem, whether hidden tests passed it, and how many attempts it took. Attempts
may be refinements of one another, not independent samples, so nothing is assumed about how they came to be:

    wrong_gj | accepted_gj ~ Binomial(theta_gj),    theta_gj ~ Beta(m_gj k, (1 - m_gj) k),
    logit m_gj = alpha_g + beta_g log2(j),          alpha_g ~ Normal(alpha, tau_alpha), beta_g ~ Normal(beta, tau_beta),

for group g (a benchmark in one language) and attempt j. The line in log2(j) is where shares are drawn to, k how strongly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from bayesscale.decisions.reach import QUANTILES
from bayesscale.draws import Draws, Naming, named_draws
from bayesscale.finding import InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.layout import Layout
from bayesscale.logarithms import log_sigmoid
from bayesscale.model import Target
from bayesscale.parameter import Parameter
from bayesscale.precision import enable_float64, require_float64
from bayesscale.special import beta_binomial_log_kernel
from bayesscale.types import Columns, CoordArray, Scalar

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]

PARAMETERS = (
    Parameter(
        "level", "alpha", "logit of the wrong share at the first attempt, mean over groups", dist.Normal(-2, 1.5)
    ),
    Parameter("slope", "beta", "logits per doubling of the attempt, mean over groups", dist.Normal(0, 1)),
    Parameter("level_sd", "tau_alpha", "scatter of groups' levels", dist.HalfNormal(1.0)),
    Parameter("slope_sd", "tau_beta", "scatter of groups' slopes", dist.HalfNormal(0.5)),
    Parameter("log_strength", "ln k", "accepted answers that the line is worth", dist.Normal(3.0, 1.0)),
    Parameter("level_score", "z", "standardised level of each group", dist.Normal(), dims=("group",)),
    Parameter("slope_score", "z", "standardised slope of each group", dist.Normal(), dims=("group",)),
)
SAMPLER = Sampler(starts=4, lanes=24)


@dataclass(frozen=True, eq=False)
class FalsePositives:
    """Posterior of the wrong share by group and attempt.

    Attributes
    ----------
    groups : (group,) labels.
    attempt : (attempt,) 1, 2, ...
    accepted, wrong : (group, attempt) counts.
    share : (draw, group, attempt) wrong share theta.
    draws : parameters, with ``level_of`` and ``slope_of`` per group; diagnostics and findings.
    """

    groups: tuple[str, ...]
    attempt: NDArray[np.int64]
    accepted: NDArray[np.int64]
    wrong: NDArray[np.int64]
    share: Floats
    draws: Draws

    @property
    def status(self) -> str:
        """ "ok", "warn" or "fail": the worst finding about the fit."""
        return self.draws.status

    def table(self) -> pd.DataFrame:
        """One row per group and attempt: counts, raw share, posterior mean, median and equal-tailed 50% and 90% intervals."""
        import pandas as pd

        g, j = (index.ravel() for index in np.indices(self.accepted.shape))
        accepted, wrong = self.accepted.ravel(), self.wrong.ravel()
        draws = self.share.reshape(len(self.share), -1)
        bounds = np.quantile(draws, list(QUANTILES.values()), axis=0)
        raw = np.where(accepted > 0, wrong / np.maximum(accepted, 1), np.nan)
        head = {"group": [self.groups[i] for i in g], "attempt": self.attempt[j], "accepted": accepted, "wrong": wrong}
        found = dict(zip(QUANTILES, bounds, strict=True))
        return pd.DataFrame(head | {"estimand": "wrong share", "raw": raw, "mean": draws.mean(axis=0)} | found)

    def slopes(self) -> pd.DataFrame:
        """One row per group, and one for a new group: logits per doubling of the attempt, and P(the share rises)."""
        import pandas as pd

        own = self.draws.flat("slope_of")
        noise = np.random.default_rng(0).standard_normal(len(own))
        new = self.draws.flat("slope") + self.draws.flat("slope_sd") * noise
        draws = np.c_[own, new]
        bounds = np.quantile(draws, list(QUANTILES.values()), axis=0)
        head = {"group": [*self.groups, "a new group"], "estimand": "logits per doubling", "mean": draws.mean(axis=0)}
        return pd.DataFrame(head | dict(zip(QUANTILES, bounds, strict=True)) | {"p_rises": (draws > 0).mean(axis=0)})


def surely_accepted(retries: ArrayLike, group: ArrayLike) -> NDArray[np.bool_]:
    """Which rows of a log of retries surely ended by acceptance: those below the largest number of their group.

    At the largest number the budget may have run out with nothing accepted.
    """
    retries, group = np.asarray(retries), np.asarray(group)
    most = {label: retries[group == label].max() for label in np.unique(group)}
    return retries < np.array([most[label] for label in group])


def false_positive_by_attempt(
    attempt: ArrayLike,
    correct: ArrayLike,
    group: ArrayLike | None = None,
    *,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> FalsePositives:
    """Learn the share of wrong answers among those accepted at each attempt, partially pooled over groups and attempts.

    `attempt` (row,) is at which the answer was accepted, 1 for the first; `correct` (row,) whether it is right, 0 or 1; `group`
    (row,) labels, one group if not given. Only rows that surely ended by acceptance belong here: see `surely_accepted`.

    Raises
    ------
    InputError : arrays of different length or empty; attempts that are not whole and at least 1; correct other than 0 and 1.
    """
    counts = _counts(attempt, correct, group)
    groups, accepted, wrong = counts
    enable_float64()
    require_float64()
    sampler = sampler or SAMPLER
    layout = Layout(PARAMETERS, {"group": len(groups)})
    columns = {"accepted": accepted[None].astype(float), "wrong": wrong[None].astype(float)}

    def density(u: CoordArray, given: Columns) -> Scalar:
        theta, log_prior = layout.values(u, {})
        shapes = _shapes(theta, accepted.shape[1])
        return log_prior + jnp.sum(beta_binomial_log_kernel(given["wrong"], given["accepted"], *shapes))

    def values(u: CoordArray, given: Columns) -> dict[str, jax.Array]:
        theta, _ = layout.values(u, {})
        level, slope = _lines(theta)
        return theta | {"level_of": level, "slope_of": slope}

    target = Target("false positives", layout.dimension, density, layout.prior_draw)
    said = "|".join(groups).encode() + accepted.tobytes() + wrong.tobytes()
    posterior = sample_many(
        target, columns, [hashlib.sha256(said).hexdigest()], sampler=sampler, seed=seed, progress=progress
    )
    naming = Naming(values, layout.prior_draw)
    draws = named_draws(naming, posterior, columns, read_by=("level_of",), sampler=sampler, seed=seed)[0]
    share = _shares(draws, accepted, wrong, np.random.default_rng(seed))
    return FalsePositives(groups, np.arange(1, accepted.shape[1] + 1), accepted, wrong, share, draws)


def _lines(theta: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    level = theta["level"] + theta["level_sd"] * theta["level_score"]
    return level, theta["slope"] + theta["slope_sd"] * theta["slope_score"]


def _shapes(theta: dict[str, jax.Array], attempts: int) -> tuple[jax.Array, jax.Array]:
    """Beta shapes m k and (1 - m) k, (group, attempt)."""
    level, slope = _lines(theta)
    logit = level[:, None] + slope[:, None] * jnp.log2(jnp.arange(1, attempts + 1))
    low, high = log_sigmoid(logit), log_sigmoid(-logit)
    return jnp.exp(theta["log_strength"] + low), jnp.exp(theta["log_strength"] + high)


def _shares(draws: Draws, accepted: NDArray, wrong: NDArray, rng: np.random.Generator) -> Floats:
    """Each share is Beta given its line and its counts."""
    level, slope = draws.flat("level_of")[..., None], draws.flat("slope_of")[..., None]
    mean = expit(level + slope * np.log2(np.arange(1, accepted.shape[1] + 1)))
    strength = np.exp(draws.flat("log_strength"))[:, None, None]
    return rng.beta(mean * strength + wrong, (1 - mean) * strength + accepted - wrong)


def _counts(
    attempt: ArrayLike, correct: ArrayLike, group: ArrayLike | None
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Group labels, and accepted and wrong answers by (group, attempt)."""
    j, right = np.asarray(attempt), np.asarray(correct)
    label = np.zeros(j.shape, dtype="U1") if group is None else np.asarray(group).astype(str)
    if j.ndim != 1 or not j.size or right.shape != j.shape or label.shape != j.shape:
        what = f"attempt, correct and group must be equally long rows, got {j.shape}, {right.shape}, {label.shape}"
        raise InputError("BY-ATTEMPT", what)
    if not ((j >= 1) & (j == np.round(j))).all():
        raise InputError(
            "BY-ATTEMPT", "attempts must be whole numbers from 1 upwards", fix="add 1 to a count of retries"
        )
    if not np.isin(right, (0, 1)).all():
        raise InputError("BY-ATTEMPT", "correct must be 0 or 1 in every row")
    names, place = np.unique(label, return_inverse=True)
    shape = (len(names), int(j.max()))
    accepted, wrong = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    np.add.at(accepted, (place, j.astype(int) - 1), 1)
    np.add.at(wrong, (place, j.astype(int) - 1), 1 - right.astype(int))
    return tuple(names.tolist()), accepted, wrong
