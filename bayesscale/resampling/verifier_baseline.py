"""The Dirichlet law of a verifier, a baseline: share and acceptance are independent over problems.

    (right and accepted, wrong and accepted, rejected) ~ Dirichlet(a_c, a_f, a_r)

makes the share of wrong answers the same at every attempt, see `bayesscale.resampling.verifier.dirichlet_accuracy`. Given the
law, counts are two beta-binomials. `compare_verifiers` asks which of the two laws predicts problems it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from bayesscale.attempts import Attempts
from bayesscale.draws import Draws, Naming, named_draws
from bayesscale.finding import Finding, InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.layout import Layout
from bayesscale.logarithms import logaddexp
from bayesscale.model import Target
from bayesscale.parameter import Parameter
from bayesscale.precision import enable_float64, require_float64
from bayesscale.resampling.verifier import dirichlet_accuracy
from bayesscale.resampling.verifier_fit import fit_verifier
from bayesscale.resampling.verifier_law import patterns
from bayesscale.special import beta_binomial_log_kernel
from bayesscale.types import Columns, CoordArray, ObsArray, Scalar, Theta

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]

PARAMETERS = (
    Parameter("log_correct", "ln a_c", "concentration of right accepted samples", dist.Normal(0.0, 1.5)),
    Parameter("log_wrong", "ln a_f", "concentration of wrong accepted samples", dist.Normal(-1.0, 1.5)),
    Parameter("log_rejected", "ln a_r", "concentration of rejected samples", dist.Normal(0.0, 1.5)),
)
LAYOUT = Layout(PARAMETERS)
COUNTS: tuple[str, ...] = ("n", "accepted", "labelled", "right")
SMALLEST_HALF = 5
"""Problems that each half has to have for a comparison."""


def log_marginal(theta: Theta, columns: Columns) -> ObsArray:
    """(pattern,) log marginal likelihood without binomial coefficients, as `verifier_law.log_marginal`.

    log [B(a_c+a_f+k, a_r+n-k) / B(a_c+a_f, a_r)] + log [B(a_c+r, a_f+l-r) / B(a_c, a_f)], k accepted of n, r right of l.
    """
    n, accepted, labelled, right = (jnp.asarray(columns[name]) for name in COUNTS)
    c, f, rejected = (jnp.exp(theta[p.name]) for p in PARAMETERS)
    taken = beta_binomial_log_kernel(accepted, n, c + f, rejected)
    return taken + beta_binomial_log_kernel(right, labelled, c, f)


def log_density(u: CoordArray, columns: Columns) -> Scalar:
    """Unnormalised log posterior density on the unconstrained axis."""
    theta, log_prior = LAYOUT.values(u, {})
    return log_prior + jnp.sum(columns["weight"] * log_marginal(theta, columns))


def named_values(u: CoordArray, columns: Columns) -> dict[str, jax.Array]:
    """Parameters, mean acceptance, and the ceiling a_c / (a_c + a_f)."""
    theta, _ = LAYOUT.values(u, {})
    c, f, rejected = (theta[p.name] for p in PARAMETERS)
    accepted = jax.nn.sigmoid(logaddexp(c, f) - rejected)
    return theta | {"acceptance": accepted, "ceiling": jax.nn.sigmoid(c - f)}


TARGET = Target("verifier dirichlet", LAYOUT.dimension, log_density, LAYOUT.prior_draw)
NAMING = Naming(named_values, LAYOUT.prior_draw)


@dataclass(frozen=True, eq=False)
class DirichletFit:
    """The posterior of one model under the Dirichlet law."""

    attempts: Attempts
    draws: Draws

    @property
    def name(self) -> str:
        return self.attempts.model_name(0)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.draws.findings

    @property
    def status(self) -> str:
        return self.draws.status

    def accuracy(self, samples: ArrayLike) -> Floats:
        """Mean accuracy over new problems within K samples, (draw, sample)."""
        c, f, rejected = (np.exp(self.draws.flat(p.name))[:, None] for p in PARAMETERS)
        return dirichlet_accuracy(c, f, rejected, np.atleast_1d(samples))

    def log_likelihood(self, attempts: Attempts | None = None) -> Floats:
        """Log marginal likelihood of each problem, (draw, row), of the counts fitted or of others of one model."""
        table, _, which = patterns(self.attempts if attempts is None else attempts, 0)
        columns: dict[str, Floats] = dict(zip(COUNTS, table.astype(float), strict=True))
        theta = {p.name: jnp.asarray(self.draws.flat(p.name)) for p in PARAMETERS}
        return np.asarray(jax.jit(jax.vmap(lambda one: log_marginal(one, columns)))(theta))[:, which]

    def summary(self) -> pd.DataFrame:
        """One row per quantity; see `bayesscale.draws.Draws.summary`."""
        return self.draws.summary(model=self.name)


def fit_verifier_dirichlet(
    attempts: Attempts, *, sampler: Sampler | None = None, seed: int = 0, progress: Progress = silent
) -> list[DirichletFit]:
    """Fit the Dirichlet law to every model on its own; one fit each, in order.

    Raises
    ------
    InputError : the attempts have no verifier's counts.
    """
    enable_float64()
    require_float64()
    sampler = sampler or Sampler()
    columns = dirichlet_columns([patterns(attempts, i)[:2] for i in range(len(attempts))])
    digests = [attempts.digest(i) for i in range(len(attempts))]
    posterior = sample_many(TARGET, columns, digests, sampler=sampler, seed=seed, progress=progress)
    draws = named_draws(NAMING, posterior, columns, read_by=("acceptance", "ceiling"), sampler=sampler, seed=seed)
    return [DirichletFit(attempts.subset([i]), own) for i, own in enumerate(draws)]


def dirichlet_columns(tables: Sequence[tuple[NDArray, NDArray]]) -> dict[str, Floats]:
    """Columns of `log_density` for several models' (4, pattern) counts and weights; padding has weight zero."""
    width = -(-max(len(weight) for _, weight in tables) // 32) * 32
    fills = [np.minimum(np.arange(width), len(weight) - 1) for _, weight in tables]
    counts = np.stack([table[:, fill] for (table, _), fill in zip(tables, fills, strict=True)]).astype(float)
    weights = [np.where(np.arange(width) < len(w), w[fill], 0) for (_, w), fill in zip(tables, fills, strict=True)]
    return {name: counts[:, i] for i, name in enumerate(COUNTS)} | {"weight": np.stack(weights).astype(float)}


def compare_verifiers(
    attempts: Attempts, *, sampler: Sampler | None = None, seed: int = 0, progress: Progress = silent
) -> pd.DataFrame:
    """Fit both laws to a random half of each model's problems and score the other half; one row per model.

    The score of a held-out problem is log mean over draws of p(accepted, right | n, labelled), binomial coefficients left out
    of both laws. `difference` is the sum over held-out problems of hierarchical less Dirichlet, `se` its standard error
    from the scatter over problems.

    Raises
    ------
    InputError : a model has fewer than ten problems; the attempts have no verifier's counts.
    """
    import pandas as pd

    kept, left = halves(attempts, seed)
    pairs = zip(
        fit_verifier(kept, sampler=sampler, seed=seed, progress=progress),
        fit_verifier_dirichlet(kept, sampler=sampler, seed=seed),
        strict=True,
    )
    rows = []
    for i, (own, baseline) in enumerate(pairs):
        scores = [_log_score(each.log_likelihood(left.subset([i]))) for each in (own, baseline)]
        gain = scores[0] - scores[1]
        row = {"model": own.name, "fitted": own.attempts.n.size, "held_out": gain.size}
        row |= {"score_hierarchical": scores[0].sum(), "score_dirichlet": scores[1].sum()}
        row |= {"difference": gain.sum(), "se": np.sqrt(gain.size) * gain.std(ddof=1)}
        rows.append(row | {"status_hierarchical": own.status, "status_dirichlet": baseline.status})
    return pd.DataFrame(rows)


def _log_score(log_likelihood: Floats) -> Floats:
    return logsumexp(log_likelihood, axis=0) - np.log(len(log_likelihood))


def halves(attempts: Attempts, seed: int) -> tuple[Attempts, Attempts]:
    """Split every model's problems at random into two halves; the first is the larger where their number is odd."""
    keep = np.zeros(attempts.n.size, dtype=bool)
    for i in range(len(attempts)):
        rows = np.arange(attempts.n.size)[attempts.rows(i)]
        if len(rows) < 2 * SMALLEST_HALF:
            what = f"{len(rows)} problems are too few to hold out half of them, it takes {2 * SMALLEST_HALF}"
            raise InputError("HOLDOUT-PROBLEMS", what, where=attempts.model_name(i))
        rng = np.random.default_rng([seed, int(attempts.digest(i)[:15], 16)])
        keep[rng.permutation(rows)[: -(-len(rows) // 2)]] = True
    return with_rows(attempts, keep), with_rows(attempts, ~keep)


def with_rows(attempts: Attempts, keep: NDArray[np.bool_]) -> Attempts:
    """The same models with some of their rows; every model keeps at least one."""
    used, problem = np.unique(attempts.problem[keep], return_inverse=True)
    names = ("n", "n_correct", "n_accepted", "n_labelled", "n_correct_accepted")
    counts = {name: getattr(attempts, name)[keep] for name in names}
    problems = tuple(attempts.problems[i] for i in used)
    return replace(attempts, model=attempts.model[keep], problems=problems, problem=problem, **counts)
