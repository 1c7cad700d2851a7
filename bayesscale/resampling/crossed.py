"""New models on old problems: success rates from a few samples, given how hard the problems were for other models.

The old models say how easy every problem is (`problem_difficulty`), the new model's few counts say where it stands:

    old     c_mi ~ BetaBinomial(n_mi; mean sigmoid(l_m + e_i), concentration k)     l_m ~ N(l, S^2),  e_i ~ N(0, T^2)
    new     c_i  ~ BetaBinomial(n_i; mean sigmoid(level + slope e_i), concentration k_new)

The Beta leaves every model some rates of its own, since models agree about problems only in part. Each model's level is
estimated beside the easinesses, not subtracted beforehand; k, S and T maximise the Laplace evidence under weak priors, not the
joint density, whose k is too large. The new model's p_i are integrated out in closed form, the error of e_i (normal, shrunk to
the mean problem where few have tried it) by Gauss-Hermite quadrature. Three numbers are plugged in, not integrated over: k, S
and T. The priors of `level` and of `k_new` are centred at what the old models say.

What it is for: the rate on each problem, also on those the new model never tried, and the accuracy over the whole benchmark,
from few problems or from an unlike selection. The gain in accuracy fades as more are tried at random: on GPQA Diamond there
was none from 20 problems; rates of single problems stay about a third nearer (`benchmarks/new_model_old_problems.py`). What it
is not for: pass@k far beyond the samples (10,000, say). Difficulty is itself censored at problems that no model solves, so
that the tail stays unknown, and pass@10,000 forecast with shared difficulties was worse than without. A model whose order of
problems is its own gains nothing either: its slope nears zero, the finding SLOPE says so, and `fit_crossed(...,
difficulty=False)`, the same fit with e_i = 0, is there to compare with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.special import betaln, expit, ndtri

from bayesscale.attempts import Attempts
from bayesscale.draws import Draws, Naming, named_draws
from bayesscale.finding import Finding, InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.layout import Layout
from bayesscale.model import Target
from bayesscale.parameter import Parameter
from bayesscale.precision import enable_float64, require_float64
from bayesscale.resampling.difficulty import Difficulty, benchmarks_of, difficulty_for
from bayesscale.special import beta_binomial_log_kernel
from bayesscale.types import Columns, CoordArray, Scalar, Theta

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]

WIDENING = 2.0
"""Prior sd of a new model's level in units of the old models' spread: it may leave their range."""
PARAMETERS = (
    Parameter(
        "level",
        "mu",
        "logit of the mean success rate on a problem of mean easiness",
        lambda facts: dist.Normal(facts["level_centre"], facts["level_scale"]),
    ),
    Parameter("slope", "s", "how much easiness for the old models counts", dist.Normal(1.0, 0.5)),
    Parameter(
        "log_concentration",
        "ln k",
        "how closely rates follow easiness",
        lambda facts: dist.Normal(facts["concentration_centre"], 0.7),
    ),
)
"""The unknowns of one new model."""
LAYOUT = Layout(PARAMETERS)
FEW_NODES, MANY_NODES = 7, 31
FEW_SAMPLES = 16
"""Samples per problem up to which few quadrature nodes do: a problem's own counts then say less than its easiness."""
SHARES = 32
"""Equally probable parts of an easiness's distribution, of which one is drawn given the counts."""


def log_likelihood(theta: Theta, columns: Columns) -> Scalar:
    """Log likelihood of a new model's counts, without binomial coefficients.

        sum_i log E[ B(k m_i + c_i, k (1 - m_i) + n_i - c_i) / B(k m_i, k (1 - m_i)) ],    m_i = sigmoid(mu + s e_i)

    The expectation is over e_i ~ Normal(easiness_i, sd_i). `columns`: c, n, easiness, sd and weight, (row,) each, a row of
    weight 0 being padding; node and log_share, (node,) points of a standard normal and their log probabilities.
    """
    c, n, easiness, sd = (jnp.asarray(columns[name])[:, None] for name in ("c", "n", "easiness", "sd"))
    eta = theta["level"] + theta["slope"] * (easiness + sd * columns["node"])
    k = jnp.exp(theta["log_concentration"])
    at = beta_binomial_log_kernel(c, n, k * jax.nn.sigmoid(eta), k * jax.nn.sigmoid(-eta))
    return jnp.sum(columns["weight"] * logsumexp(at + columns["log_share"], axis=1))


def log_density(u: CoordArray, columns: Columns) -> Scalar:
    """Unnormalised log posterior density of one new model."""
    theta, log_prior = LAYOUT.values(u, columns)
    return log_prior + log_likelihood(theta, columns)


TARGET = Target("crossed", LAYOUT.dimension, log_density, lambda key, facts: LAYOUT.prior_draw(key, facts))


def named(u: jax.Array, columns: dict[str, jax.Array]) -> Mapping[str, jax.Array]:
    """Name a flat vector."""
    theta, _ = LAYOUT.values(u, columns)
    return theta | {"concentration": jnp.exp(theta["log_concentration"])}


NAMING = Naming(named, LAYOUT.prior_draw)


def columns_of(cases: Sequence[tuple[Attempts, Difficulty]]) -> dict[str, NDArray]:
    """Lay out each new model's rows in the order of labels, padded to one width, and the facts of its priors."""
    width = max(8, 1 << (max(case.n.size for case, _ in cases) - 1).bit_length())  # few shapes are compiled
    rules = [quadrature(case) for case, _ in cases]
    most = max(len(node) for node, _ in rules)
    tables = []
    for (case, known), (node, log_share) in zip(cases, rules, strict=True):
        c, n, place = counts_by_place(case, known)
        rows = {"c": c, "n": n, "easiness": known.easiness[place], "sd": known.sd[place], "weight": np.ones(len(c))}
        facts = {
            "level_centre": known.level,
            "level_scale": WIDENING * known.level_sd,
            "concentration_centre": np.log(known.concentration),
            "node": np.pad(node, (0, most - len(node))),
            "log_share": np.pad(log_share, (0, most - len(node)), constant_values=-1e30),
        }
        padded = {name: np.pad(np.asarray(row, float), (0, width - len(c))) for name, row in rows.items()}
        tables.append(padded | {name: np.asarray(fact) for name, fact in facts.items()})
    return {name: np.stack([table[name] for table in tables]) for name in tables[0]}


def quadrature(case: Attempts) -> tuple[Floats, Floats]:
    """Return Gauss-Hermite nodes of a standard normal and their log probabilities, as many as the counts ask for."""
    node, share = hermegauss(FEW_NODES if case.n.max() <= FEW_SAMPLES else MANY_NODES)
    return node, np.log(share / share.sum())


def counts_by_place(attempts: Attempts, known: Difficulty) -> tuple[NDArray, NDArray, NDArray]:
    """Return one model's n_correct, n and the problems' places among those known, in the order of places.

    Raises
    ------
    InputError : a problem that no old model has tried.
    """
    place = places([attempts.problems[j] for j in attempts.problem], known, where=attempts.model_name(0))
    order = np.argsort(place)
    return attempts.n_correct[order], attempts.n[order], place[order]


def places(labels: Sequence[str], known: Difficulty, where: str) -> NDArray[np.int64]:
    """Return where problem labels stand among those known.

    Raises
    ------
    InputError : a label that no old model has tried, or none at all.
    """
    index = {label: i for i, label in enumerate(known.problems)}
    unseen = sorted({label for label in labels if label not in index})
    if unseen or not len(labels):
        named = ", ".join(unseen[:3]) + (", ..." if len(unseen) > 3 else "")
        what = f"no other model has tried {len(unseen)} of the problems: {named}" if unseen else "no problem is named"
        raise InputError("CROSSED-PROBLEM", what, where=where, fix="name problems of the old models, as they do")
    return np.array([index[label] for label in labels], np.int64)


def fit_crossed(
    new: Attempts,
    old: Attempts,
    *,
    difficulty: bool = True,
    benchmark: str = "benchmark",
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[CrossedFit]:
    """Fit each new model's rates on problems that old models have tried; see the module's docstring for the model.

    old : counts of the other models; one with a new model's own key does not count for that model, so that models can be
        held out one at a time by passing all as `old`. Give runs of one model one key.
    difficulty : False ignores what is known of the problems (e_i = 0), for comparison.
    benchmark : key column whose labels keep problems apart; a label means the same problem within a benchmark only.

    Raises
    ------
    InputError : the two are not named by the same columns, a problem no other model has tried, or fewer than two others.
    """
    enable_float64()
    require_float64()
    if new.key_names != old.key_names:
        what = f"new models are named by {', '.join(new.key_names)}, old ones by {', '.join(old.key_names)}"
        raise InputError("CROSSED-KEYS", what, fix="name both by the same columns")
    sampler, of = sampler or Sampler(), benchmarks_of(new, benchmark)
    held = set(old.keys)
    cases = []
    for i, key in enumerate(new.keys):
        own = key if key in held else ()  # one shared fit serves all models that are not among the old
        cases.append((new.subset([i]), difficulty_for(old, own, of[i], benchmark, difficulty=difficulty)))
    columns = columns_of(cases)
    digests = [hashlib.sha256(f"{case.digest(0)}|{known.digest}".encode()).hexdigest() for case, known in cases]
    posterior = sample_many(TARGET, columns, digests, sampler=sampler, seed=seed, progress=progress)
    read_by = ("level", "slope") if difficulty else ("level",)
    draws = named_draws(NAMING, posterior, columns, read_by=read_by, sampler=sampler, seed=seed)
    return [
        CrossedFit(case, known, own.with_findings(data_findings(case, known, own)), seed)
        for (case, known), own in zip(cases, draws, strict=True)
    ]


def data_findings(case: Attempts, known: Difficulty, draws: Draws) -> list[Finding]:
    """Say what the counts cannot tell, and whether the old models' order of problems holds for the new one."""
    findings, name = [], case.model_name(0)
    if case.n.max() == 1:
        message = "with one sample per problem how closely rates follow easiness is what the old models say"
        findings.append(Finding("ONE-SAMPLE", "info", message, "draw some problems twice", "concentration"))
    flat = float(np.mean(draws.flat("slope") <= 0))
    if known.spread > 0 and flat > 0.1:
        message = f"problems easy for the old models may not be easy for this one (probability {flat:.2f})"
        findings.append(Finding("SLOPE", "warn", message, "compare with difficulty=False", name))
    return findings


@dataclass(frozen=True, eq=False)
class CrossedFit:
    """The posterior of one new model on old problems.

    Attributes
    ----------
    attempts : its counts.
    difficulty : what the other models say of the problems.
    draws : level, slope and concentration, with diagnostics and findings.
    seed : seed of the fit, and of predictions unless they are given another.
    """

    attempts: Attempts
    difficulty: Difficulty
    draws: Draws
    seed: int = 0

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

    def summary(self) -> pd.DataFrame:
        """One row per quantity; see `bayesscale.draws.Draws.summary`."""
        return self.draws.summary(model=self.name)

    def predict(
        self, problems: Sequence[str] | None = None, target: str = "these", *, seed: int | None = None
    ) -> CrossedForecast:
        """Predict success rates on these problems (all the old ones unless named), tried by the new model or not.

        Raises
        ------
        InputError : a problem that no old model has tried, or a target other than ``these``.
        """
        if target != "these":
            raise InputError("CROSSED-TARGET", f"target {target!r} is unknown", fix="these, the only one there is")
        known = self.difficulty
        chosen = places(problems if problems is not None else known.problems, known, where=self.name)
        c, n, place = counts_by_place(self.attempts, known)
        counts = np.zeros((2, len(known.problems)), np.int64)
        counts[:, place] = c, n
        # the same draws whichever problems are asked for
        rates = self._rates(counts[0], counts[1], self.seed if seed is None else seed)[:, chosen]
        labels = tuple(known.problems[i] for i in chosen)
        return CrossedForecast(self.name, labels, counts[0, chosen], counts[1, chosen], rates)

    def _rates(self, c: NDArray, n: NDArray, seed: int) -> Floats:
        """Draw p_i, (draw, problem): the part of e_i's distribution given the counts, e_i within it, then the Beta."""
        rng = np.random.default_rng([seed, int(self.attempts.digest(0), 16), *b"crossed"])
        level, slope, k = (self.draws.flat(name)[:, None] for name in ("level", "slope", "concentration"))
        known, tried = self.difficulty, n > 0
        position = rng.random((len(level), len(n)))
        middles = known.easiness[tried, None] + known.sd[tried, None] * ndtri((np.arange(SHARES) + 0.5) / SHARES)
        a, b = shapes(level[..., None] + slope[..., None] * middles, k[..., None])
        fit = betaln(a + c[tried, None], b + (n - c)[tried, None]) - betaln(a, b)
        share = np.cumsum(np.exp(fit - fit.max(axis=-1, keepdims=True)), axis=-1)
        part = (share < rng.random((*share.shape[:-1], 1)) * share[..., -1:]).sum(axis=-1)
        position[:, tried] = (part + position[:, tried]) / SHARES
        a, b = shapes(level + slope * (known.easiness + known.sd * ndtri(position)), k)
        return rng.beta(a + c, b + (n - c))  # n - c first: b may be far below rounding of n


def shapes(eta: Floats, k: Floats) -> tuple[Floats, Floats]:
    """Return Beta shapes of logit mean eta and concentration k."""
    return k * expit(eta), k * expit(-eta)


@dataclass(frozen=True, eq=False)
class CrossedForecast:
    """Success rates of a new model on old problems.

    Attributes
    ----------
    name : the new model.
    problems : (problem,) labels.
    n_correct, n : (problem,) counts seen; n = 0 where the model never tried the problem.
    rates : (draw, problem) success rates.
    """

    name: str
    problems: tuple[str, ...]
    n_correct: NDArray[np.int64]
    n: NDArray[np.int64]
    rates: Floats

    @property
    def accuracy(self) -> Floats:
        """Draws of the mean rate over the problems, (draw,)."""
        return self.rates.mean(axis=1)

    def interval(self, mass: float = 0.9) -> tuple[float, float]:
        """Equal-tailed interval of this mass of the mean rate over the problems."""
        lower, upper = np.quantile(self.accuracy, [(1 - mass) / 2, (1 + mass) / 2])
        return float(lower), float(upper)

    def summary(self) -> pd.DataFrame:
        """One row, the accuracy over these problems: mean, 90% equal-tailed interval, and how much was tried."""
        import pandas as pd

        lower, upper = self.interval()
        head = {
            "model": self.name,
            "estimand": "these",
            "problems": len(self.problems),
            "tried": int((self.n > 0).sum()),
        }
        return pd.DataFrame([head | {"accuracy": self.accuracy.mean(), "eti90_lower": lower, "eti90_upper": upper}])

    def table(self) -> pd.DataFrame:
        """One row per problem: counts, mean rate and its 90% equal-tailed interval."""
        import pandas as pd

        lower, upper = np.quantile(self.rates, [0.05, 0.95], axis=0)
        counts = {"model": self.name, "problem": self.problems, "n": self.n, "n_correct": self.n_correct}
        return pd.DataFrame(counts | {"rate": self.rates.mean(axis=0), "eti90_lower": lower, "eti90_upper": upper})
