"""Fitting an imperfect verifier: how acceptance and rightness vary over a model's problems, and what resampling is then worth.

The law is that of `bayesscale.resampling.verifier_law`. Predictions go through `populations`: posterior draws of every
problem's acceptance a_i and share s_i, which the closed forms of `bayesscale.resampling.verifier` and the decisions of
`bayesscale.decisions` take as they are. Two populations are kept apart:

* ``these``: the problems of the log, each drawn from its own posterior given its counts;
* ``new``: problems of the same kind that were never tried.

Problems share nothing across models here: a problem that is hard to verify for one model may be so for all, and where
several models met the same problems their posteriors are to that extent not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from bayesscale.attempts import Attempts
from bayesscale.decisions.reach import QUANTILES, Reach, samples_to_accuracy
from bayesscale.decisions.samples import SampleChoice, choose_samples
from bayesscale.draws import Draws, contraction, named_draws
from bayesscale.finding import Finding, InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.precision import enable_float64, require_float64
from bayesscale.resampling import verifier
from bayesscale.resampling.verifier_law import (
    LEAST_SD,
    NAMING,
    PARAMETERS,
    TARGET,
    Cells,
    cells_of,
    log_marginal,
    node_probabilities,
    patterns,
    verifier_columns,
)

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]

Population = Literal["these", "new"]
ESTIMANDS = {
    "these": "mean over these problems, given their counts",
    "new": "mean over new problems of the same population",
}
VERIFIER_SAMPLER = Sampler(draws=250, warmup=(40, 60, 60), starts=2, lanes=24)
"""Few lanes, for a gradient is a product of matrices and costs the same in every lane, empty ones among them; few draws, for
they are nearly independent."""
READ_BY = ("acceptance", "ceiling", "acceptance_sd", "share_sd")
FEW_LABELLED = 20
"""Labelled accepted samples below which the ceiling is what the prior says it is."""
LEARNED = 0.3
"""Contraction of the coupling below which it is mostly prior."""
AT = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
QUANTITIES = ("accuracy", "accuracy_given_answer", "false_positive_share", "false_positive_share_within")
_INSIDE = np.linspace(-9.0, 9.0, 145)


@dataclass(frozen=True, eq=False)
class VerifierFit:
    """The posterior of one model's acceptance and shares.

    Attributes
    ----------
    attempts : the counts, of one model.
    draws : the parameters and what `bayesscale.resampling.verifier_law.derived` adds, with diagnostics and findings.
    """

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
        """ "ok", "warn" or "fail": the worst finding about the fit."""
        return self.draws.status

    @property
    def size(self) -> int:
        """Number of posterior draws kept."""
        return len(self.draws.flat("logit_share"))

    def theta(self, draws: int | None = None) -> dict[str, Floats]:
        """Parameter draws, (draw,), spread evenly over those kept."""
        chosen = np.linspace(0, self.size - 1, min(draws or self.size, self.size)).astype(int)
        return {p.name: self.draws.flat(p.name)[chosen] for p in PARAMETERS}

    def log_likelihood(self, attempts: Attempts | None = None) -> Floats:
        """Log marginal likelihood of each problem, (draw, row), of the counts fitted or of others of one model.

        Without binomial coefficients; see `bayesscale.resampling.verifier_law.log_marginal`.
        """
        table, weight, which = patterns(self.attempts if attempts is None else attempts, 0)
        columns = {name: values[0] for name, values in verifier_columns([(table, weight)]).items()}
        found = jax.jit(lambda theta: jax.lax.map(lambda one: log_marginal(one, columns), theta))(self.theta())
        return np.asarray(found)[:, which]

    def summary(self) -> pd.DataFrame:
        """One row per quantity: mean, sd, equal-tailed quantiles, diagnostics, contraction, findings."""
        return self.draws.summary(model=self.name)


def fit_verifier(
    attempts: Attempts,
    *,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[VerifierFit]:
    """Fit every model's acceptance and share of right answers, each model on its own; one fit each, in order.

        (logit a_i, logit s_i) ~ Normal(m, S),  accepted | n ~ a^acc (1-a)^(n-acc),  right | labelled ~ s^right (1-s)^wrong

    Both latents are integrated out. Valid under every stopping design, and where only some accepted samples are labelled.
    Priors: m_a ~ Normal(0, 2.5), m_s ~ Normal(1.5, 1.5), scales half-normal of 3 and 2 logits, correlation density 1 - r^2
    (LKJ(2)). `progress` is called with (finished, total).

    Raises
    ------
    InputError : the attempts have no verifier's counts.
    """
    enable_float64()
    require_float64()
    sampler = sampler or VERIFIER_SAMPLER
    columns = verifier_columns([patterns(attempts, i)[:2] for i in range(len(attempts))])
    digests = [attempts.digest(i) for i in range(len(attempts))]
    posterior = sample_many(TARGET, columns, digests, sampler=sampler, seed=seed, progress=progress)
    draws = named_draws(NAMING, posterior, columns, read_by=READ_BY, sampler=sampler, seed=seed)
    return [with_data_findings(VerifierFit(attempts.subset([i]), own)) for i, own in enumerate(draws)]


def with_data_findings(fit: VerifierFit) -> VerifierFit:
    """Add what the counts can and cannot say."""
    one = fit.attempts
    assert one.n_accepted is not None and one.n_labelled is not None and one.n_correct_accepted is not None
    n, accepted = int(one.n.sum()), int(one.n_accepted.sum())
    labelled, right = int(one.n_labelled.sum()), int(one.n_correct_accepted.sum())
    found: list[Finding] = []

    def note(code: str, message: str, advice: str) -> None:
        found.append(Finding(code, "warn", message, advice, fit.name))

    if accepted == 0:
        note("NONE-ACCEPTED", f"none of {n} samples was accepted: the ceiling is the prior's", "draw more samples")
    elif labelled < FEW_LABELLED:
        message = f"only {labelled} accepted samples are labelled: the ceiling is mostly the prior's"
        note("FEW-LABELLED", message, "label more of the accepted samples")
    if accepted == n:
        note("ALL-ACCEPTED", "every sample was accepted: the verifier selects nothing", "is it the right column?")
    if FEW_LABELLED <= labelled == right:
        message = f"all {labelled} labelled accepted samples are right: how few are wrong is the prior's guess"
        note("NONE-WRONG", message, "read the ceiling as a lower bound, or label more")
    learned = contraction(fit.draws.flat("logit_coupling"), fit.draws.prior["logit_coupling"])
    if not learned >= LEARNED:
        message = f"the counts hardly tell how acceptance and rightness go together (contraction {learned:.2f})"
        note("CORRELATION-PRIOR", message, "the best number of samples depends on it; add problems or labels")
    return VerifierFit(one, fit.draws.with_findings(found))


def populations(
    fit: VerifierFit,
    target: Population = "these",
    *,
    draws: int = 400,
    problems: int | None = None,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Draw acceptance and share of every problem, two (draw, problem) arrays.

    ``these`` draws each problem from its exact conditional given its counts and the parameters: first the pair of nodes, then
    the noise around each. ``new`` draws `problems` new ones (as many as the log has unless given); a mean over them
    contains the luck of so many problems, which goes away as `problems` grows.

    Raises
    ------
    InputError : an unknown target, or a number of problems that is below 1 or given for ``these``.
    """
    if target not in get_args(Population):
        raise InputError("VERIFIER-TARGET", f"target {target!r} is unknown", fix="one of " + ", ".join(ESTIMANDS))
    if problems is not None and (target == "these" or problems < 1):
        raise InputError("VERIFIER-PROBLEMS", "a number of problems, at least 1, belongs to target 'new' only")
    theta = fit.theta(draws)
    words = [seed, int(fit.attempts.digest(0)[:15], 16), *target.encode()]
    rng = np.random.default_rng(words)
    if target == "new":
        return new_problems(theta, problems or fit.attempts.n.size, rng)
    return these_problems(theta, fit.attempts, rng)


def new_problems(theta: dict[str, Floats], problems: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw pairs from the bivariate normal law, (draw, problem)."""
    z = rng.standard_normal((4, len(theta["logit_share"]), problems))
    a, s = theta["acceptance_scale"][:, None], theta["share_scale"][:, None]
    r = np.tanh(0.5 * theta["logit_coupling"])[:, None]
    x = theta["logit_acceptance"][:, None] + a * z[0] + LEAST_SD * z[2]
    y = theta["logit_share"][:, None] + s * (r * z[0] + np.sqrt(1 - r**2) * z[1]) + LEAST_SD * z[3]
    return expit(x), expit(y)


def these_problems(theta: dict[str, Floats], attempts: Attempts, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw each problem's pair given its counts, (draw, problem)."""
    enable_float64()
    table, _, which = patterns(attempts, 0)
    acceptance, share = cells_of(table)
    lattice = jax.jit(node_probabilities)
    shape = (len(theta["logit_share"]), which.size)
    nodes = np.empty((2, *shape), dtype=np.int64)
    for i in range(shape[0]):
        law = np.asarray(lattice({name: values[i] for name, values in theta.items()}))
        by_share = (acceptance.weight @ law) * share.weight
        nodes[1, i] = _categorical(by_share[which], rng)
        nodes[0, i] = _categorical(acceptance.weight[which] * law.T[nodes[1, i]], rng)
    pattern = np.broadcast_to(which, shape)
    return expit(_around(acceptance, pattern, nodes[0], rng)), expit(_around(share, pattern, nodes[1], rng))


def _categorical(weight: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """One index per row, with probability proportional to the row's weights."""
    total = np.cumsum(weight, axis=1)
    level = rng.random(len(weight)) * total[:, -1]
    return np.minimum((total <= level[:, None]).sum(axis=1), weight.shape[1] - 1)


def _around(cells: Cells, pattern: NDArray, node: NDArray, rng: np.random.Generator) -> Floats:
    """Draw from kernel times noise by inverting its distribution function on a fine grid, one draw at a time."""
    out = np.empty(pattern.shape)
    for i, (p, j) in enumerate(zip(pattern, node, strict=True)):
        x = cells.peak[p, j][:, None] + cells.width[p, j][:, None] * _INSIDE
        log_density = cells.log_product(x, p, j)
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        mass = np.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), axis=1)
        level = rng.random(len(p)) * mass[:, -1]
        cell = np.minimum((mass <= level[:, None]).sum(axis=1), mass.shape[1] - 1)
        row = np.arange(len(p))
        before = np.where(cell > 0, mass[row, np.maximum(cell - 1, 0)], 0.0)
        part = (level - before) / (mass[row, cell] - before)
        out[i] = x[row, cell] + part * (x[row, cell + 1] - x[row, cell])
    return out


def forecast_verifier(
    fit: VerifierFit,
    at: Sequence[int] = AT,
    target: Population = "these",
    *,
    draws: int = 400,
    problems: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabulate what resampling until acceptance gives, one row per quantity and number of samples K.

    `quantity` is one of `QUANTITIES`: accuracy (a right answer is returned within K), accuracy_given_answer,
    false_positive_share (wrong among those accepted exactly at attempt K) and false_positive_share_within (among those accepted
    by then). A row at infinity gives the ceilings. Intervals are equal-tailed, of mass .5 and .9.

    Raises
    ------
    InputError : numbers of samples that are not whole and at least 1; as `populations`.
    """
    import pandas as pd

    a, s = populations(fit, target, draws=draws, problems=problems, seed=seed)
    grid = np.asarray(at)
    limits = {"accuracy": verifier.ceiling(a, s), "accuracy_given_answer": verifier.ceiling_given_answer(a, s)}
    head = {"model": fit.name, "estimand": ESTIMANDS[target]}
    tables = []
    for quantity in QUANTITIES:
        values = getattr(verifier, quantity)(a, s, grid)
        samples = grid.astype(float)
        if quantity in limits:
            values, samples = np.c_[values, limits[quantity]], np.append(samples, np.inf)
        tables.append(pd.DataFrame({**head, "quantity": quantity, "samples": samples, **_intervals(values)}))
    return pd.concat(tables, ignore_index=True)


def _intervals(values: Floats) -> dict[str, Floats]:
    """Mean, median and equal-tailed intervals over draws, (column,)."""
    bounds = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {"mean": values.mean(axis=0), **dict(zip(QUANTILES, bounds, strict=True))}


def choose(
    fit: VerifierFit,
    stakes: verifier.Stakes,
    target: Population = "these",
    *,
    cap: float = np.inf,
    draws: int = 400,
    problems: int | None = None,
    seed: int = 0,
) -> SampleChoice:
    """Posterior of the best number of samples K*, and the number to choose; see `bayesscale.decisions.samples`."""
    a, s = populations(fit, target, draws=draws, problems=problems, seed=seed)
    return choose_samples(a, s, stakes, cap=cap, name=fit.name, estimand=ESTIMANDS[target])


def reach(
    fit: VerifierFit,
    accuracy: ArrayLike,
    target: Population = "these",
    *,
    draws: int = 400,
    problems: int | None = None,
    seed: int = 0,
) -> Reach:
    """Posterior of the samples until resampling is as accurate as `accuracy`, for example one sample of a stronger model."""
    a, s = populations(fit, target, draws=draws, problems=problems, seed=seed)
    return samples_to_accuracy(a, s, accuracy, name=fit.name, estimand=f"accuracy, {ESTIMANDS[target]}")
