"""How easy problems are, learned from the counts of many models: beta-binomial crossed effects by a Laplace fit.

    c_mi | p_mi ~ p_mi^c_mi (1 - p_mi)^(n_mi - c_mi)           model m, problem i; missing cells have n_mi = 0
    p_mi ~ Beta(k sigmoid(l_m + e_i), k sigmoid(-l_m - e_i))
    l_m ~ N(l, S^2),  l ~ N(0, 5^2),  e_i ~ N(0, T^2)

Given (k, S, T) the mode over all l and e is found by Newton's method; the curvature there gives the normal posterior. The
three maximise the Laplace evidence with l and e integrated out, times weak log-normal priors: the joint mode would let l and e
explain noise and put k too high. What is returned of e is centred, so that an error common to all problems, which a new
model's level takes up anyway, does not count as an error of each.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import betaln, digamma, expit, polygamma

from bayesscale.attempts import Attempts
from bayesscale.finding import InputError

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]
type Factor = tuple[Any, Any]

HYPER_CENTRE = np.log([3.0, 1.5, 1.5])
HYPER_SD = np.array([1.2, 0.75, 0.75])
"""Prior of (ln k, ln S, ln T)."""
CENTRE_VARIANCE = 25.0
NO_SPREAD = 1e-3
"""T of problems that are taken as alike: nothing on the logit axis, and still a proper precision."""
STEPS = 200
SETTLED = 1e-9
"""Nats a Newton step may still promise at the mode: above the rounding of a sum over many cells."""


@dataclass(frozen=True, eq=False)
class Difficulty:
    """How easy each problem of a benchmark is, on the logit axis; the negative of its difficulty.

    Attributes
    ----------
    problems : (problem,) labels, sorted.
    easiness : (problem,) posterior means of e_i less their mean over problems; higher is easier.
    sd : (problem,) their posterior standard deviations.
    level, level_sd : mean and spread S of the models' levels, on a problem of mean easiness.
    spread : T, how much problems differ; 0 where they were taken as alike.
    concentration : k, how closely models' rates follow level and easiness.
    models : how many models were learned from.
    """

    problems: tuple[str, ...]
    easiness: Floats
    sd: Floats
    level: float
    level_sd: float
    spread: float
    concentration: float
    models: int

    @property
    def digest(self) -> str:
        """SHA-256 of what a new model is told."""
        numbers = [self.easiness, self.sd, [self.level, self.level_sd, self.concentration]]
        total = hashlib.sha256("\n".join(self.problems).encode())
        total.update(np.concatenate(numbers).astype("<f8").tobytes())
        return total.hexdigest()

    def table(self) -> pd.DataFrame:
        """One row per problem, easiest first."""
        import pandas as pd

        table = pd.DataFrame({"problem": self.problems, "easiness": self.easiness, "sd": self.sd})
        return table.sort_values("easiness", ascending=False, ignore_index=True)


def problem_difficulty(attempts: Attempts, *, difficulty: bool = True, benchmark: str = "benchmark") -> Difficulty:
    """Learn how easy each problem is from the counts of several models; the module's docstring has the model.

    With `difficulty` False every problem is taken as equally easy, and only levels and concentration are learned.

    Raises
    ------
    InputError : fewer than two models; several benchmarks (labels of the key column `benchmark`), whose problems may share
        labels and mean different things.
    """
    found = sorted(set(benchmarks_of(attempts, benchmark)))
    if len(found) > 1:
        what = f"difficulties belong to one benchmark, and here are {', '.join(found)}"
        raise InputError("CROSSED-BENCHMARK", what, fix="take the models of one benchmark with Attempts.subset")
    if len(attempts) < 2:
        raise InputError("CROSSED-OLD", f"difficulty needs the counts of two old models or more, got {len(attempts)}")
    return laplace_difficulty(*counts_table(attempts), shared=difficulty)


def benchmarks_of(attempts: Attempts, column: str) -> list[str]:
    """Return each model's benchmark; all the same where no key column has that name."""
    if column not in attempts.key_names:
        return [""] * len(attempts)
    place = attempts.key_names.index(column)
    return [key[place] for key in attempts.keys]


@lru_cache(maxsize=512)
def difficulty_for(old: Attempts, key: tuple[str, ...], name: str, benchmark: str, *, difficulty: bool) -> Difficulty:
    """Return the difficulties of a benchmark from all old models but the one with this key."""
    of = benchmarks_of(old, benchmark)
    others = [i for i in range(len(old)) if of[i] == name and old.keys[i] != key]
    if len(others) < 2:
        what = f"difficulty needs the counts of two other models or more, got {len(others)}"
        raise InputError("CROSSED-OLD", what, where=" / ".join(key))
    return problem_difficulty(old.subset(others), difficulty=difficulty, benchmark=benchmark)


def counts_table(attempts: Attempts) -> tuple[tuple[str, ...], Floats, Floats]:
    """Lay counts out as labels and (model, problem) successes and failures, both in sorted order."""
    labels = sorted(attempts.problems)
    column = np.array([labels.index(label) for label in attempts.problems])[attempts.problem]
    rank = np.empty(len(attempts), int)
    rank[sorted(range(len(attempts)), key=lambda i: attempts.keys[i])] = np.arange(len(attempts))
    c, f = np.zeros((2, len(attempts), len(labels)))
    c[rank[attempts.model], column] = attempts.n_correct
    f[rank[attempts.model], column] = attempts.n - attempts.n_correct
    return tuple(labels), c, f


class Surface(NamedTuple):
    """Log likelihood of all cells, its derivative in each cell's logit mean, and minus its second derivative."""

    value: float
    gradient: Floats
    curvature: Floats


def surface(eta: Floats, c: Floats, f: Floats, k: float) -> Surface:
    """Evaluate the beta-binomial log likelihood at logit means eta; cells without samples contribute nothing.

    log B(a + c, b + f) - log B(a, b),    a = k sigmoid(eta),  b = k sigmoid(-eta)
    """
    p, q = expit(eta), expit(-eta)
    a, b, w = k * p, k * q, k * p * q
    value = np.sum(betaln(a + c, b + f) - betaln(a, b))
    first = digamma(a + c) - digamma(a) - digamma(b + f) + digamma(b)
    second = polygamma(1, a + c) - polygamma(1, a) + polygamma(1, b + f) - polygamma(1, b)
    return Surface(float(value), w * first, -(w**2 * second + w * (q - p) * first))


class Laplace(NamedTuple):
    """Mode over (levels, easinesses), its inverse curvature's factor, and the log evidence of the hyperparameters."""

    mode: Floats
    factor: Factor
    log_evidence: float


def prior_precision(models: int, problems: int, level_sd: float, spread: float) -> tuple[Floats, float]:
    """Return the precision matrix of (levels, easinesses), the levels' common mean integrated out, and its log determinant."""
    variance, total = level_sd**2, level_sd**2 + CENTRE_VARIANCE * models
    precision = np.diag(np.repeat([1 / variance, 1 / spread**2], [models, problems]))
    precision[:models, :models] -= CENTRE_VARIANCE / (variance * total)
    log_det = -(models - 1) * np.log(variance) - np.log(total) - 2 * problems * np.log(spread)
    return precision, float(log_det)


def hessian(curvature: Floats, precision: Floats) -> Floats:
    """Return minus the second derivative of the log posterior in (levels, easinesses)."""
    models = len(curvature)
    out = precision.copy()
    out[:models, models:] += curvature
    out[models:, :models] += curvature.T
    out[np.diag_indices_from(out)] += np.concatenate([curvature.sum(axis=1), curvature.sum(axis=0)])
    return out


def factor_of(curvature: Floats, precision: Floats) -> Factor:
    """Factor the curvature; far from the mode, where a cell's may be negative, leave such cells out."""
    try:
        return cho_factor(hessian(curvature, precision))
    except LinAlgError:
        return cho_factor(hessian(np.maximum(curvature, 0.0), precision))


def laplace(c: Floats, f: Floats, hyper: Floats, start: Floats) -> Laplace:
    """Climb to the mode given (ln k, ln S, ln T) and integrate the normal approximation there.

    Raises
    ------
    InputError : no mode within the steps allowed.
    """
    k, level_sd, spread = np.exp(hyper)
    models, problems = c.shape
    precision, log_det = prior_precision(models, problems, level_sd, spread)

    def at(x: Floats) -> tuple[float, Surface]:
        found = surface(x[:models, None] + x[models:], c, f, k)
        return found.value - 0.5 * float(x @ precision @ x), found

    x, (height, found) = start, at(start)
    for _ in range(STEPS):
        slope = np.concatenate([found.gradient.sum(axis=1), found.gradient.sum(axis=0)]) - precision @ x
        factor = factor_of(found.curvature, precision)
        step = cho_solve(factor, slope)
        if slope @ step < SETTLED:
            evidence = height + 0.5 * log_det - np.log(np.diag(factor[0])).sum()
            return Laplace(x, factor, float(evidence))
        size = 1.0
        while (attempt := at(x + size * step))[0] < height - SETTLED and size > 1e-10:
            size /= 2
        x, (height, found) = x + size * step, attempt
    raise InputError("CROSSED-FIT", f"the levels and easinesses did not settle within {STEPS} steps")


def laplace_difficulty(labels: tuple[str, ...], c: Floats, f: Floats, *, shared: bool = True) -> Difficulty:
    """Learn easinesses from (model, problem) successes and failures; with `shared` False problems are taken as alike.

    Raises
    ------
    InputError : no mode within the steps allowed.
    """
    models, problems = c.shape
    free = 3 if shared else 2
    x = np.zeros(models + problems)

    def whole(hyper: Floats) -> Floats:
        return np.concatenate([hyper, [np.log(NO_SPREAD)][: 3 - free]])

    def loss(hyper: Floats) -> float:
        # per cell, so that the optimiser's first step, which has the gradient's length, is a moderate one
        nonlocal x
        found = laplace(c, f, whole(hyper), x)
        x = found.mode  # the next hyperparameters are near, and so is their mode
        penalty = 0.5 * float(np.sum(((hyper - HYPER_CENTRE[:free]) / HYPER_SD[:free]) ** 2))
        return (penalty - found.log_evidence) / np.count_nonzero(c + f)

    bounds = [(m - 4 * s, m + 4 * s) for m, s in zip(HYPER_CENTRE[:free], HYPER_SD[:free], strict=True)]
    best = minimize(loss, HYPER_CENTRE[:free], method="L-BFGS-B", bounds=bounds, options={"eps": 1e-3, "ftol": 1e-9})
    found = laplace(c, f, whole(best.x), x)
    k, level_sd, spread = np.exp(whole(best.x))
    level, easiness = found.mode[:models], found.mode[models:]
    about = {"level_sd": float(level_sd), "concentration": float(k), "models": models}
    if not shared:
        nothing = np.zeros(problems)
        return Difficulty(labels, nothing, nothing, level=float(level.mean()), spread=0.0, **about)
    sd = np.sqrt(np.diag(centred_covariance(found, models)))
    middle = float(easiness.mean())
    level = float(level.mean()) + middle
    return Difficulty(labels, easiness - middle, sd, level=level, spread=float(spread), **about)


def centred_covariance(found: Laplace, models: int) -> Floats:
    """Return the posterior covariance of the easinesses less their mean over problems, (problem, problem)."""
    covariance = cho_solve(found.factor, np.eye(len(found.mode)))[models:, models:]
    covariance = covariance - covariance.mean(axis=0)
    return covariance - covariance.mean(axis=1, keepdims=True)
