"""Fitting votes: how a model's samples agree, learned from all its problems, and what a vote among n of them is worth.

The law of one problem has three stages, each conjugate, so that the problem's own probabilities are integrated out:

    silent | n            ~ BetaBinomial(r k_r, (1 - r) k_r)         samples without an answer
    correct | answered    ~ BetaBinomial(m k, (1 - m) k)             the right answer among those given
    wrong votes | number  ~ DirichletMultinomial(t / W, ..., t / W)  over the W wrong answers, alike a priori

Small t means that wrong samples agree with one another, and then a vote can be wrong for ever. Letting ln t rise with the
problem's success rate was tried on 37 runs of GPQA Diamond: it raises the log likelihood by 0.6 per run and makes the
predicted gain of eight votes worse (mean error .008 v .006), so t is one number.

Given the parameters each problem's shares are drawn exactly: a Beta, a Beta and a Dirichlet with the votes added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpy.typing import NDArray

from bayesscale.draws import Draws, Naming, named_draws
from bayesscale.finding import Finding, InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.layout import Layout
from bayesscale.logarithms import log_sigmoid
from bayesscale.model import Target
from bayesscale.parameter import Parameter
from bayesscale.precision import enable_float64, require_float64
from bayesscale.resampling.plurality import plurality_limit
from bayesscale.resampling.vote_forecast import (
    ESTIMANDS,
    Estimand,
    VoteForecast,
    draw_shares,
    expected_accuracy,
    padded,
    vote,
)
from bayesscale.special import beta_binomial_log_kernel, log_gamma_ratio
from bayesscale.types import Columns, CoordArray, ObsArray, Scalar, Theta
from bayesscale.votes import Votes

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]

PARAMETERS = (
    Parameter("logit_success", "logit m", "mean success rate of samples that answer", dist.Normal(0.0, 2.0)),
    Parameter("log_concentration", "ln k", "how alike problems are in success rate", dist.Normal(0.0, 1.5)),
    Parameter("log_scatter", "ln t", "how much wrong votes scatter; small if they agree", dist.Normal(-0.5, 1.5)),
    Parameter("logit_silent", "logit r", "mean rate of samples without an answer", dist.Normal(-4.0, 2.0)),
    Parameter("log_silent_concentration", "ln k_r", "how alike problems are in that rate", dist.Normal(0.0, 1.5)),
)
"""The unknowns of one model."""
READ_BY = ("success", "between", "wrong_agreement")
OPEN_ANSWERS = 50
"""Fewest wrong answers that open problems are taken to have; with more the law hardly changes."""
LAYOUT = Layout(PARAMETERS)


def log_marginal(theta: Theta, columns: Columns) -> ObsArray:
    """Log marginal likelihood of each problem without its multinomial coefficients, (row,).

        log [B(r k_r + s, (1 - r) k_r + n - s) / B(r k_r, (1 - r) k_r)]      s = n - answered
            + log [B(m k + c, (1 - m) k + v) / B(m k, (1 - m) k)]            v = answered - c
            + sum_w [log Gamma(t/W + v_w) - log Gamma(t/W)] - [log Gamma(t + v) - log Gamma(t)]

    `columns`: n, answered, correct (row,) votes, c = correct; wrong (row, wrong) = v_w, where answers without votes may be
    left out; slots () = W.
    """
    n, answered, correct = (jnp.asarray(columns[name]) for name in ("n", "answered", "correct"))
    scatter = jnp.exp(theta["log_scatter"])
    each = jnp.sum(log_gamma_ratio(scatter / columns["slots"], columns["wrong"]), axis=-1)
    spoken = beta_binomial_log_kernel(n - answered, n, *_silent_shapes(theta))
    right = beta_binomial_log_kernel(correct, answered, *_success_shapes(theta))
    return spoken + right + each - log_gamma_ratio(scatter, answered - correct)


def log_likelihood(theta: Theta, columns: Columns) -> Scalar:
    """The sum of `log_marginal` over problems, from the counts that `tally` found: each distinct term once."""
    scatter = jnp.exp(theta["log_scatter"])
    s, n, of_n = jnp.asarray(columns["silent"])
    c, answered, of_answered = jnp.asarray(columns["right"])
    each, of_each = jnp.asarray(columns["each_wrong"])
    total, of_total = jnp.asarray(columns["all_wrong"])
    return (
        jnp.sum(of_n * beta_binomial_log_kernel(s, n, *_silent_shapes(theta)))
        + jnp.sum(of_answered * beta_binomial_log_kernel(c, answered, *_success_shapes(theta)))
        + jnp.sum(of_each * log_gamma_ratio(scatter / columns["slots"], each))
        - jnp.sum(of_total * log_gamma_ratio(scatter, total))
    )


def log_density(u: CoordArray, columns: Columns) -> Scalar:
    """Unnormalised log posterior density on the unconstrained axis, given the columns of `tally`."""
    theta, log_prior = LAYOUT.values(u, columns)
    return log_prior + log_likelihood(theta, columns)


TARGET = Target("votes", LAYOUT.dimension, log_density, LAYOUT.prior_draw)


def problem_columns(votes: Votes) -> dict[str, NDArray[Any]]:
    """Columns of `log_marginal`, (row,) of all models."""
    named = {"n": votes.n, "answered": votes.n - votes.n_none, "correct": votes.n_correct, "wrong": votes.wrong}
    return {name: values.astype(float) for name, values in named.items()} | {"slots": np.asarray(wrong_answers(votes))}


def tally(votes: Votes) -> dict[str, NDArray[Any]]:
    """Columns of `log_likelihood`, (model, count or weight, cell): distinct counts with how often they occur."""
    answered = votes.n - votes.n_none
    cells: dict[str, list[NDArray]] = {"silent": [], "right": [], "each_wrong": [], "all_wrong": []}
    for i in range(len(votes)):
        rows = votes.rows(i)
        cells["silent"].append(_distinct(votes.n_none[rows], votes.n[rows]))
        cells["right"].append(_distinct(votes.n_correct[rows], answered[rows]))
        cells["each_wrong"].append(_distinct(votes.wrong[rows].ravel()))
        cells["all_wrong"].append(_distinct((answered - votes.n_correct)[rows]))
    stacked = {name: _stacked(parts) for name, parts in cells.items()}
    return stacked | {"slots": np.full(len(votes), float(wrong_answers(votes)))}


def wrong_answers(votes: Votes) -> int:
    """W: the other options of closed answers; for open ones enough that more would hardly change the law."""
    return len(votes.answers) - 1 if votes.answers else max(OPEN_ANSWERS, 2 * votes.counts.shape[1])


def derived(theta: Theta, columns: Columns) -> dict[str, jax.Array]:
    """What the law is read by.

    success : mean success rate m of a sample that answers.
    between : share of the variance of a sample's success that lies between problems, 1 / (1 + k).
    wrong_agreement : probability that two wrong samples of a problem agree, (1 + t / W) / (1 + t).
    silent : mean rate r of samples without an answer.
    """
    scatter = jnp.exp(theta["log_scatter"])
    return {
        "success": jax.nn.sigmoid(theta["logit_success"]),
        "between": jax.nn.sigmoid(-theta["log_concentration"]),
        "wrong_agreement": (1 + scatter / columns["slots"]) / (1 + scatter),
        "silent": jax.nn.sigmoid(theta["logit_silent"]),
    }


def fit_votes(
    votes: Votes, *, sampler: Sampler | None = None, seed: int = 0, progress: Progress = silent
) -> list[VoteFit]:
    """Fit every model on its own; one `VoteFit` each, in the order of `votes`.

    progress : called with (finished, total).
    """
    enable_float64()
    require_float64()
    sampler, columns = sampler or Sampler(), tally(votes)
    digests = [votes.digest(i) for i in range(len(votes))]
    posterior = sample_many(TARGET, columns, digests, sampler=sampler, seed=seed, progress=progress)
    draws = named_draws(NAMING, posterior, columns, read_by=READ_BY, sampler=sampler, seed=seed)
    return [VoteFit(votes.subset([i]), own, wrong_answers(votes), seed) for i, own in enumerate(draws)]


@dataclass(frozen=True, eq=False)
class VoteFit:
    """The posterior of one model's votes.

    Attributes
    ----------
    votes : the data, one model.
    draws : `PARAMETERS` and what `derived` adds, with diagnostics and findings.
    slots : W, wrong answers a problem has.
    seed : seed of the fit, and of the predictions unless they are given another.
    """

    votes: Votes
    draws: Draws
    slots: int
    seed: int = 0

    @property
    def name(self) -> str:
        return self.votes.model_name(0)

    @property
    def status(self) -> str:
        """ "ok", "warn" or "fail": the worst finding about the fit."""
        return self.draws.status

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.draws.findings

    def summary(self) -> pd.DataFrame:
        """One row per parameter and derived value; see `bayesscale.draws.Draws.summary`."""
        return self.draws.summary(model=self.name)

    def log_likelihood(self) -> Floats:
        """`log_marginal` of each problem at every kept draw, (chain, draw, row)."""
        theta = {p.name: jnp.asarray(self.draws.values[p.name]) for p in PARAMETERS}
        columns = problem_columns(self.votes) | {"slots": np.asarray(self.slots)}
        return np.asarray(jax.jit(jax.vmap(jax.vmap(lambda one: log_marginal(one, columns))))(theta))

    def shares(self, *, new: bool = False, draws: int = 400, seed: int | None = None) -> Floats:
        """Vote shares of each problem, (draw, problem, 1 + W): the right answer first; the rest to 1 gave no answer.

        Of these problems given their votes, or with `new` of as many problems the model has not seen.
        """
        rng = self._rng(seed, "new" if new else "these")
        return draw_shares(self._theta(draws), self.votes, self.slots, rng, new=new)

    def majority(
        self,
        at: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
        target: Estimand = "these",
        *,
        draws: int = 400,
        seed: int | None = None,
    ) -> VoteForecast:
        """Predict the accuracy of a plurality vote among n samples, ties split evenly; `ESTIMANDS` says of what.

        Raises
        ------
        InputError : an unknown target, n that are not whole numbers from 1 upwards, or with "continued" an n below the votes
            that some problem has.
        """
        if target not in ESTIMANDS:
            raise InputError("VOTES-TARGET", f"target must be one of {', '.join(ESTIMANDS)}, got {target!r}")
        sizes = _sizes(at, int(self.votes.n.max()) if target == "continued" else 1)
        shares = self.shares(new=target == "new", draws=draws, seed=seed)
        rng = self._rng(seed, f"votes {target}")
        if target in ("these", "new"):
            majority, hit = expected_accuracy(shares, sizes, rng)
        else:
            kept = int(target == "continued")
            start = np.concatenate([self.votes.n_correct[:, None], padded(self.votes.wrong, self.slots)], axis=1)
            majority, hit = vote(shares, sizes, kept * start, kept * self.votes.n, 1, rng)
        limit = plurality_limit(shares, 0).mean(axis=1)
        return VoteForecast(self.name, target, sizes, shares[..., 0].mean(axis=1), majority, limit, hit)

    def problems(self, *, draws: int = 400, seed: int | None = None) -> pd.DataFrame:
        """One row per problem: its votes, expected single-sample accuracy, and whether ever more votes would help.

        ``mode_right`` is the probability that the right answer is the most common one, which is the accuracy of a vote
        without end; ``gain`` is that less the single-sample accuracy, and voting ``hurts`` where it is negative.
        """
        import pandas as pd

        shares = self.shares(draws=draws, seed=seed)
        single, right = shares[..., 0].mean(axis=0), plurality_limit(shares, 0).mean(axis=0)
        labels = np.array(self.votes.problems, dtype=object)[self.votes.problem]
        counts = {"n": self.votes.n, "n_correct": self.votes.n_correct, "majority": self.votes.majority}
        answers = {"single": single, "mode_right": right, "gain": right - single, "hurts": right < single}
        return pd.DataFrame({"problem": labels} | counts | answers)

    def _theta(self, draws: int) -> dict[str, Floats]:
        theta = self.draws.theta([parameter.name for parameter in PARAMETERS])
        total = len(theta["log_scatter"])
        chosen = np.linspace(0, total - 1, min(draws, total)).astype(int)
        return {name: values[chosen] for name, values in theta.items()}

    def _rng(self, seed: int | None, purpose: str) -> np.random.Generator:
        words = [self.seed if seed is None else seed, int(self.votes.digest(0), 16), *purpose.encode()]
        return np.random.default_rng(words)


def _named(u: jax.Array, columns: dict[str, jax.Array]) -> Mapping[str, jax.Array]:
    theta, _ = LAYOUT.values(u, columns)
    return theta | derived(theta, columns)


NAMING = Naming(_named, LAYOUT.prior_draw)


def _silent_shapes(theta: Theta) -> tuple[jax.Array, jax.Array]:
    return _shapes(theta["logit_silent"], theta["log_silent_concentration"])


def _success_shapes(theta: Theta) -> tuple[jax.Array, jax.Array]:
    return _shapes(theta["logit_success"], theta["log_concentration"])


def _shapes(logit_mean: jax.Array, log_concentration: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Beta shapes m k and (1 - m) k, in logs so that a mean near 1 keeps its complement."""
    low, high = log_sigmoid(logit_mean), log_sigmoid(-logit_mean)
    return jnp.exp(log_concentration + low), jnp.exp(log_concentration + high)


def _distinct(*counts: NDArray) -> NDArray:
    """Distinct columns of the stacked counts where the last is above 0, and below them how often each occurs."""
    table = np.stack(counts)[:, counts[-1] > 0]
    cells, weight = np.unique(table, axis=1, return_counts=True)
    return np.concatenate([cells, weight[None]]).astype(float)


def _stacked(parts: Sequence[NDArray]) -> NDArray:
    """Pad with empty cells of weight 0 to one width of at least 1."""
    width = max(1, *(part.shape[1] for part in parts))
    return np.stack([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])


def _sizes(at: Sequence[int], lowest: int) -> NDArray[np.int64]:
    sizes = np.atleast_1d(np.asarray(at))
    if sizes.ndim != 1 or not sizes.size or (sizes != np.round(sizes)).any() or (sizes < lowest).any():
        raise InputError("VOTES-SIZE", f"the numbers of votes must be whole and at least {lowest}, got {list(at)}")
    return sizes.astype(np.int64)
