"""Ceiling against accuracy, over models: how P(right | accepted) goes with the accuracy of a single sample.

From tables that have one row per model and no problems. Both columns are estimates, and from the same samples: p, the
accuracy of one sample, and c, the share right among accepted ones. Least squares takes p as known, which flattens the slope,
and its R^2 counts the noise of c as scatter between models. With the errors of both in the model,

    (p^, c^) ~ Normal((p, c), E),    c | p ~ Normal(gamma + beta (p - 1/2), tau^2),    p ~ Normal(mu, sigma^2),

p and c can be integrated out and the five parameters learned (Fuller 1987, Measurement Error Models, section 2.2; Kelly 2007,
ApJ 665, 1489, for the Bayesian form). With T tasks, n samples of each and a share b of a sample's variance lying between
tasks, the errors of sampling these very tasks again are

    E_pp = v p (1-p),  E_cc = v c (1-c) p_a^-1,  E_pc = v c (1-c),    v = (1 - b) / (n T),    p_a = p / c accepted;

E_pc is that of p^ = p_a^ c^ from one set of samples. All models met the same tasks: what is easy about those moves all models
alike, so it is no scatter between them and has no place in E, but neither does a posterior know what other tasks would show.
b = 0 is plain binomial noise, an upper bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtri

from bayesscale.decisions.reach import QUANTILES
from bayesscale.draws import Draws, Naming, named_draws
from bayesscale.finding import Finding, InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.layout import Layout
from bayesscale.model import Target
from bayesscale.parameter import Parameter
from bayesscale.precision import enable_float64, require_float64
from bayesscale.types import Columns, CoordArray, ObsArray, Scalar, Theta

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]

PARAMETERS = (
    Parameter("middle", "gamma", "ceiling at a single-sample accuracy of 1/2", dist.Normal(0.8, 0.2)),
    Parameter("slope", "beta", "rise of the ceiling per unit of accuracy", dist.Normal(0.0, 0.5)),
    Parameter("scatter", "tau", "sd of ceilings around the line", dist.HalfNormal(0.1)),
    Parameter("mean_accuracy", "mu", "mean single-sample accuracy of models", dist.Normal(0.5, 0.3)),
    Parameter("accuracy_sd", "sigma", "sd of single-sample accuracy over models", dist.HalfNormal(0.5)),
)
LAYOUT = Layout(PARAMETERS)
FEWEST = 5
"""Models that a regression with five unknowns takes at least."""
SAMPLER = Sampler(starts=4, lanes=40)


@dataclass(frozen=True, eq=False)
class CeilingData:
    """Estimates of models' single-sample accuracy and ceiling, with the covariance of their errors.

    Attributes
    ----------
    models : (model,) labels.
    single, ceiling : (model,) p^ and c^, probabilities.
    error : (model, 2, 2) covariance E of the errors of (p^, c^).
    """

    models: tuple[str, ...]
    single: Floats
    ceiling: Floats
    error: Floats


@dataclass(frozen=True)
class LeastSquares:
    """Ordinary least squares of the ceiling on single-sample accuracy."""

    slope: float
    intercept: float
    r_squared: float
    slope_se: float


@dataclass(frozen=True, eq=False)
class CeilingFit:
    """Posterior of the regression; `draws` has the parameters, ``intercept`` and ``explained``."""

    data: CeilingData
    draws: Draws

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.draws.findings

    @property
    def status(self) -> str:
        """ "ok", "warn" or "fail": the worst finding about the fit."""
        return self.draws.status

    def summary(self) -> pd.DataFrame:
        """One row per quantity; see `bayesscale.draws.Draws.summary`."""
        return self.draws.summary()

    def latent(self, *, seed: int = 0) -> Floats:
        """Draws of every model's own (p, c), (draw, model, 2): normal given the parameters and the two estimates."""
        mean, cov = _structure({p.name: self.draws.flat(p.name)[:, None] for p in PARAMETERS}, np)
        total = cov + self.data.error
        gain = cov @ np.linalg.inv(total)
        seen = np.stack([self.data.single, self.data.ceiling], axis=-1)
        centre = mean + (gain @ (seen - mean)[..., None])[..., 0]
        left = cov - gain @ cov
        values, vectors = np.linalg.eigh(0.5 * (left + np.swapaxes(left, -1, -2)))
        z = np.random.default_rng([seed, 1]).standard_normal(centre.shape)
        return centre + (vectors @ (np.sqrt(np.maximum(values, 0.0)) * z)[..., None])[..., 0]

    def predict(self, single: ArrayLike, *, seed: int = 0) -> Floats:
        """Draws of a new model's ceiling at true single-sample accuracies (point,), (draw, point).

        The normal law of the regression, cut to p <= c <= 1: accepted answers are right at least as often as all samples.

        Raises
        ------
        InputError : an accuracy outside (0, 1).
        """
        p = np.atleast_1d(np.asarray(single, dtype=float))
        if not ((p > 0) & (p < 1)).all():
            raise InputError("CEILING-AT", f"single-sample accuracies must lie inside (0, 1), got {single!r}")
        theta = {name: self.draws.flat(name)[:, None] for name in ("middle", "slope", "scatter")}
        line = theta["middle"] + theta["slope"] * (p - 0.5)
        u = np.random.default_rng([seed, 2]).random(line.shape)
        return _cut_normal(line, theta["scatter"], p, u)

    def forecast(self, single: ArrayLike, *, seed: int = 0) -> pd.DataFrame:
        """One row per single-sample accuracy: a new model's ceiling, median and equal-tailed 50% and 90% intervals."""
        import pandas as pd

        draws = self.predict(single, seed=seed)
        bounds = np.quantile(draws, list(QUANTILES.values()), axis=0)
        head = {"single": np.atleast_1d(single), "estimand": "ceiling of a new model", "mean": draws.mean(axis=0)}
        return pd.DataFrame(head | dict(zip(QUANTILES, bounds, strict=True)))

    def below(self, weak: str | int, strong: str | int, *, seed: int = 0) -> float:
        """Probability that the ceiling of model `weak` is below the accuracy of one sample of model `strong`.

        Where it is, no number of samples of the weak model is as good as one of the strong.

        Raises
        ------
        InputError : no such model.
        """
        latent = self.latent(seed=seed)
        i, j = self._place(weak), self._place(strong)
        return float((latent[:, i, 1] < latent[:, j, 0]).mean())

    def _place(self, model: str | int) -> int:
        if isinstance(model, str) and self.data.models.count(model) == 1:
            return self.data.models.index(model)
        if isinstance(model, int) and 0 <= model < len(self.data.models):
            return model
        raise InputError(
            "CEILING-MODEL", f"there is no one model {model!r}", fix="name a row of the table, or number it"
        )


def _cut_normal(mean: Floats, sd: Floats, low: Floats, u: Floats) -> Floats:
    """Quantile u of a normal cut to [low, 1], from the end where the cut leaves digits."""
    flip = low > mean  # the whole range lies in the upper tail: turn it over
    a, b = (low - mean) / sd, (1.0 - mean) / sd
    a, b = np.where(flip, -b, a), np.where(flip, -a, b)
    log_low, log_high = log_ndtr(a), log_ndtr(b)
    u = np.where(flip, 1 - u, u)
    level = np.exp(log_high) * (u + (1 - u) * np.exp(log_low - log_high))
    z = np.clip(ndtri(level), a, b)
    return mean + sd * np.where(flip, -z, z)


def ceiling_data(
    models: Sequence[str],
    single: ArrayLike,
    ceiling: ArrayLike,
    tasks: ArrayLike,
    *,
    samples: ArrayLike = 1,
    between: float = 0.0,
) -> CeilingData:
    """Estimates with the errors that T `tasks`, `samples` of each and a share `between` of the variance leave.

    The errors are taken at estimates drawn towards 1/2 by one task, so that a ceiling of 1 from few samples is not
    thought exact.

    Raises
    ------
    InputError : fewer than five models, estimates outside [0, 1], a ceiling below the accuracy, no accuracy at all.
    """
    labels = tuple(str(m) for m in models)
    p, c, tasks, samples = (
        np.broadcast_to(np.asarray(x, dtype=float), (len(labels),)) for x in (single, ceiling, tasks, samples)
    )
    if len(labels) < FEWEST:
        raise InputError("CEILING-FEW", f"{len(labels)} models are too few for a regression, it takes {FEWEST}")
    if not (tasks >= 1).all() or not (samples >= 1).all() or not 0 <= between < 1:
        raise InputError("CEILING", "tasks and samples must be at least 1 and `between` in [0, 1)")
    bad = ~((p > 0) & (p <= c) & (c <= 1))
    if bad.any():
        i = int(np.argmax(bad))
        what = f"need 0 < accuracy <= ceiling <= 1, got accuracy {p[i]:g} and ceiling {c[i]:g}"
        raise InputError("CEILING", what, where=labels[i], fix="are the two columns swapped, or in percent?")
    total = tasks * samples
    accepted = np.minimum(p / c, 1.0)
    soft_p = (total * p + 1) / (total + 2)
    soft_c = (total * p + 1) / (total * accepted + 2)
    v = (1 - between) / total
    pp, pc = v * soft_p * (1 - soft_p), v * soft_c * (1 - soft_c)
    error = np.stack([np.stack([pp, pc], -1), np.stack([pc, pc / accepted], -1)], -2)
    return CeilingData(labels, p.copy(), c.copy(), error)


def ceiling_counts(
    models: Sequence[str], accepted: ArrayLike, correct: ArrayLike, tasks: ArrayLike, *, between: float = 0.0
) -> CeilingData:
    """Data of one sample per task: `accepted` of `tasks` by the verifier, `correct` among those.

    Raises
    ------
    InputError : as `ceiling_data`; nothing accepted.
    """
    a, c, t = (np.asarray(x, dtype=float) for x in (accepted, correct, tasks))
    if not (a > 0).all():
        raise InputError("CEILING", "a model has no accepted sample and so no ceiling", fix="leave it out")
    return ceiling_data(models, c / t, c / a, t, between=between)


def least_squares(data: CeilingData) -> LeastSquares:
    """Regress the estimated ceilings on the estimated accuracies as if these were exact."""
    x, y = data.single - data.single.mean(), data.ceiling - data.ceiling.mean()
    slope = float(x @ y / (x @ x))
    rest = float(((y - slope * x) ** 2).sum())
    se = float(np.sqrt(rest / (len(x) - 2) / (x @ x)))
    intercept = float(data.ceiling.mean() - slope * data.single.mean())
    return LeastSquares(slope, intercept, 1.0 - rest / float(y @ y), se)


def _structure(theta: Mapping[str, Any], of: Any = jnp) -> tuple[Any, Any]:
    """Mean (..., 2) and covariance (..., 2, 2) of a model's true (p, c)."""
    mu, variance, beta = theta["mean_accuracy"], theta["accuracy_sd"] ** 2, theta["slope"]
    mean = of.stack([mu, theta["middle"] + beta * (mu - 0.5)], -1)
    joint, own = beta * variance, beta**2 * variance + theta["scatter"] ** 2
    return mean, of.stack([of.stack([variance, joint], -1), of.stack([joint, own], -1)], -2)


def log_likelihood(theta: Theta, columns: Columns) -> ObsArray:
    """(model,) log density of (p^, c^) with the true values integrated out; columns seen (model, 2), error (model, 2, 2)."""
    mean, cov = _structure(theta)
    total = cov + columns["error"]
    off = jnp.asarray(columns["seen"]) - mean
    pp, cc, pc = total[..., 0, 0], total[..., 1, 1], total[..., 0, 1]
    determinant = pp * cc - pc**2
    square = (cc * off[..., 0] ** 2 - 2 * pc * off[..., 0] * off[..., 1] + pp * off[..., 1] ** 2) / determinant
    return -0.5 * (square + jnp.log(determinant)) - jnp.log(2 * jnp.pi)


def log_density(u: CoordArray, columns: Columns) -> Scalar:
    """Unnormalised log posterior density on the unconstrained axis."""
    theta, log_prior = LAYOUT.values(u, {})
    return log_prior + jnp.sum(log_likelihood(theta, columns))


def named_values(u: CoordArray, columns: Columns) -> dict[str, jax.Array]:
    """Parameters; the line's value at p = 0; and the share of the ceilings' variance that p explains.

    explained = beta^2 sigma^2 / (beta^2 sigma^2 + tau^2), the R^2 of true values.
    """
    theta, _ = LAYOUT.values(u, {})
    along = (theta["slope"] * theta["accuracy_sd"]) ** 2
    intercept = theta["middle"] - 0.5 * theta["slope"]
    return theta | {"intercept": intercept, "explained": along / (along + theta["scatter"] ** 2)}


TARGET = Target("ceiling", LAYOUT.dimension, log_density, LAYOUT.prior_draw)
NAMING = Naming(named_values, LAYOUT.prior_draw)


def fit_ceiling(
    data: CeilingData, *, sampler: Sampler | None = None, seed: int = 0, progress: Progress = silent
) -> CeilingFit:
    """Learn the line with errors in both variables; see the module's docstring for the law and its priors in `PARAMETERS`."""
    enable_float64()
    require_float64()
    sampler = sampler or SAMPLER
    columns = {"seen": np.stack([data.single, data.ceiling], -1)[None], "error": data.error[None]}
    said = "|".join(data.models).encode() + columns["seen"].tobytes() + data.error.tobytes()
    digest = hashlib.sha256(said).hexdigest()
    posterior = sample_many(TARGET, columns, [digest], sampler=sampler, seed=seed, progress=progress)
    draws = named_draws(NAMING, posterior, columns, read_by=("slope",), sampler=sampler, seed=seed)[0]
    return CeilingFit(data, draws)
