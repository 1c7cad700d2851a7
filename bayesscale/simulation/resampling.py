"""Simulated repeated sampling: attempts at problems, an imperfect verifier, and votes, whose truth is known.

Three systems, each as (table, truth): what would be logged, one row per (model, problem), and what was true of it.

* `simulate_attempts`: success rates from a `SuccessLaw`, observed under one of four stopping designs;
* `simulate_verifier`: acceptance a and share of right answers s, jointly logit-normal over problems;
* `simulate_votes`: vote shares over answers, Dirichlet over the wrong ones.

Every model has a generator of its own, so a model does not change when another is appended after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from bayesscale.finding import InputError
from bayesscale.simulation.curves import sigmoid

if TYPE_CHECKING:
    import pandas as pd

type Floats = NDArray[np.float64]
type Whole = NDArray[np.int64]

Stopping = Literal["fixed", "first_success", "batch", "capped"]
NODES = 64
BRACKET = 30.0  # logits; no mean that a simulation can tell from 0 or 1 lies beyond


@dataclass(frozen=True)
class SuccessLaw:
    """A distribution of success rates p over problems.

    With Beta(m, a) the Beta law of mean m and tail index a, whose second shape is a (1 - m) / m:

        p ~ zero * (point mass at 0) + (1 - zero) [ (1 - low) Beta(mean, tail) + low Beta(low_mean, low_tail) ]

    Plain Beta: `zero` = `low` = 0. Zero-inflated Beta: `zero` > 0. Beta mixture: `low` > 0.

    Raises
    ------
    InputError : a mean outside (0, 1), a tail index that is not positive, or a share outside [0, 1].
    """

    mean: float = 0.1
    tail: float = 0.3
    zero: float = 0.0
    low: float = 0.0
    low_mean: float = 0.01
    low_tail: float = 0.3

    def __post_init__(self) -> None:
        inside = 0 < self.mean < 1 and 0 < self.low_mean < 1
        if not (inside and self.tail > 0 and self.low_tail > 0 and 0 <= self.zero <= 1 and 0 <= self.low <= 1):
            raise InputError("SIMULATE", f"no distribution of success rates: {self}")

    def draw(self, rng: np.random.Generator, size: int) -> Floats:
        """Success rates of `size` problems."""
        body = rng.beta(self.tail, self.tail * (1 - self.mean) / self.mean, size)
        bottom = rng.beta(self.low_tail, self.low_tail * (1 - self.low_mean) / self.low_mean, size)
        p = np.where(rng.random(size) < self.low, bottom, body)
        return np.where(rng.random(size) < self.zero, 0.0, p)


@dataclass(frozen=True)
class VerifierLaw:
    """How acceptance a and share s vary over the problems of one model: (logit a, logit s) bivariate normal.

    Attributes
    ----------
    acceptance, share : means of logit a and logit s.
    acceptance_sd, share_sd, correlation : their standard deviations and correlation.
    missed : probability that a rejected sample is right; 0 for a verifier without false negatives.
    """

    model: str
    acceptance: float = 0.0
    share: float = 1.5
    acceptance_sd: float = 2.0
    share_sd: float = 1.5
    correlation: float = 0.5
    missed: float = 0.0

    def __post_init__(self) -> None:
        spread = self.acceptance_sd >= 0 and self.share_sd >= 0
        if not (spread and -1 <= self.correlation <= 1 and 0 <= self.missed <= 1):
            raise InputError("SIMULATE", f"no distribution of acceptance and share: {self}")

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Floats, Floats]:
        """Acceptance and share of `size` problems."""
        z = rng.standard_normal((2, size))
        return self._at(z[0], z[1])

    def single_sample_accuracy(self) -> float:
        """E[a s], the accuracy of one accepted-or-dropped sample over new problems, by Gauss-Hermite quadrature."""
        x, y, weight = _normal_grid()
        a, s = self._at(x, y)
        return float(np.sum(weight * a * s))

    def ceiling(self) -> float:
        """E[s], the accuracy of resampling without end over new problems."""
        x, y, weight = _normal_grid()
        return float(np.sum(weight * self._at(x, y)[1]))

    def _at(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        other = self.correlation * x + math.sqrt(1 - self.correlation**2) * y
        return sigmoid(self.acceptance + self.acceptance_sd * x), sigmoid(self.share + self.share_sd * other)


def simulate_attempts(
    seed: int,
    *,
    models: Mapping[str, SuccessLaw] | Sequence[str] = ("small", "large"),
    problems: int = 100,
    n: int = 100,
    stopping: Stopping = "fixed",
    batch: int = 1,
    enough: int = 3,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attempts at problems. The table has model, problem, n, n_correct and cap; the truth the rate p and its law.

    `models` gives each model its law, the default one if only named. `n` is the number of samples per problem under
    ``fixed`` and the cap under every other design, each of which stops early: ``first_success`` at the first success,
    ``batch`` after the first batch of `batch` samples that holds one, ``capped`` at the success number `enough`.

    Raises
    ------
    InputError : n, problems, batch or enough below 1, a cap that is not a multiple of the batch, an unknown design.
    """
    import pandas as pd

    _check_design(problems, n, stopping, batch, enough)
    laws = _laws(models, SuccessLaw())
    tables, truths = [], []
    for i, (name, law) in enumerate(laws.items()):
        rng = np.random.default_rng([seed, i])
        p = law.draw(rng, problems)
        drawn, correct = observe_attempts(rng, p, n, stopping, batch=batch, enough=enough)
        key = {"model": name, "problem": _names(problems)}
        tables.append(pd.DataFrame({**key, "n": drawn, "n_correct": correct, "cap": n}))
        truths.append(pd.DataFrame({**key, "p": p, **vars(law)}))
    return pd.concat(tables, ignore_index=True), pd.concat(truths, ignore_index=True)


def observe_attempts(
    rng: np.random.Generator, p: Floats, n: int, stopping: Stopping = "fixed", *, batch: int = 1, enough: int = 3
) -> tuple[Whole, Whole]:
    """Samples drawn and successes among them, per problem; designs as in `simulate_attempts`."""
    if stopping == "fixed":
        return np.full(p.size, n), rng.binomial(n, p)
    times = _success_times(rng, p, enough if stopping == "capped" else 1)
    if stopping == "batch":
        end = np.minimum(np.ceil(times[:, 0] / batch) * batch, n)
        found = times[:, 0] <= n
        later = rng.binomial(np.where(found, end - times[:, 0].clip(max=n), 0).astype(np.int64), p)
        return end.astype(np.int64), (found + later).astype(np.int64)
    return np.minimum(times[:, -1], n).astype(np.int64), (times <= n).sum(axis=1)


def simulate_verifier(
    seed: int,
    *,
    models: Sequence[VerifierLaw | str] = ("small", "large"),
    problems: int = 150,
    n: int = 200,
    labelled: float = 1.0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Samples judged by an imperfect verifier; see `VerifierLaw` for the law and `calibrated` for realistic ones.

    The table has model, problem, n, n_correct (right samples, whatever the verifier said), n_accepted, n_labelled (the
    accepted samples whose truth is known, each with probability `labelled`) and n_correct_accepted (right ones among
    these). The truth has acceptance, share, p = a s (right and accepted), q = a (1 - s) (wrong and accepted), and the law.

    Raises
    ------
    InputError : problems or n below 1, `labelled` outside [0, 1].
    """
    import pandas as pd

    if not (problems >= 1 and n >= 1 and 0 <= labelled <= 1):
        raise InputError("SIMULATE", f"cannot draw {n} samples of {problems} problems with a share {labelled} labelled")
    laws = [VerifierLaw(model) if isinstance(model, str) else model for model in models]
    _refuse_repeats([law.model for law in laws])
    tables, truths = [], []
    for i, law in enumerate(laws):
        rng = np.random.default_rng([seed, i])
        a, s = law.draw(rng, problems)
        accepted = rng.binomial(n, a)
        right = rng.binomial(accepted, s)
        known = rng.binomial(accepted, labelled)
        counts = {
            "n": n,
            "n_correct": right + rng.binomial(n - accepted, law.missed),
            "n_accepted": accepted,
            "n_labelled": known,
            "n_correct_accepted": rng.hypergeometric(right, accepted - right, known),
        }
        key = {"model": law.model, "problem": _names(problems)}
        tables.append(pd.DataFrame({**key, **counts}))
        rates = {"acceptance": a, "share": s, "p": a * s, "q": a * (1 - s)}
        law_columns = {f"law_{name}": value for name, value in vars(law).items() if name != "model"}
        truths.append(pd.DataFrame({**key, **rates, **law_columns}))
    return pd.concat(tables, ignore_index=True), pd.concat(truths, ignore_index=True)


def calibrated(
    published: pd.DataFrame, *, acceptance_sd: float = 2.0, share_sd: float = 1.5, correlation: float = 0.5
) -> list[VerifierLaw]:
    """Laws whose single-sample accuracy and ceiling over new problems are those of published models.

    `published` has the columns model, pass1_plus (accuracy of one sample, E[a s]) and p_correct_given_base_pass (accuracy
    given that the verifier accepts, averaged over problems, E[s]). The two means are solved for; spread and correlation
    are not in such a table and must be chosen. Accuracies of this kind are in Stroebl, Kapoor and Narayanan (2024),
    arXiv:2411.17501.

    Raises
    ------
    InputError : a model with an accuracy that no mean reaches, or outside (0, 1).
    """
    rows = published[["model", "pass1_plus", "p_correct_given_base_pass"]].itertuples(index=False)
    spread = {"acceptance_sd": acceptance_sd, "share_sd": share_sd, "correlation": correlation}
    return [_solved(str(model), float(single), float(ceiling), spread) for model, single, ceiling in rows]


def _solved(model: str, single: float, ceiling: float, spread: dict[str, float]) -> VerifierLaw:
    def law(acceptance: float, share: float) -> VerifierLaw:
        return VerifierLaw(model, acceptance, share, **spread)

    try:
        share = _root(lambda mean: law(0.0, mean).ceiling() - ceiling)
        return law(_root(lambda mean: law(mean, share).single_sample_accuracy() - single), share)
    except ValueError:
        what = f"an accuracy of {single:g} with one sample and of {ceiling:g} without end is beyond this law"
        raise InputError("CALIBRATE", what, where=model, fix="both must lie in (0, 1), the second above") from None


def simulate_votes(
    seed: int,
    *,
    models: Mapping[str, SuccessLaw] | Sequence[str] = ("small", "large"),
    problems: int = 100,
    n: int = 16,
    answers: int = 4,
    concentration: float = 0.5,
    none: float = 0.0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Votes of `n` samples over `answers` answers, `answers` at most 26 and at least 2.

    p is drawn from the model's `SuccessLaw` (mean 0.6 and tail index 1 if only named), the rest is shared among the wrong
    answers by a symmetric Dirichlet law of this `concentration` per answer, and a sample gives no answer with probability
    `none`, whatever the problem. The table has model, problem, n, n_correct, target (the right answer's letter), a column
    votes_x for every letter, and votes_none; the truth has p, the share of each letter among answers, and the law.

    Raises
    ------
    InputError : sizes out of range, a concentration that is not positive, or `none` outside [0, 1].
    """
    import pandas as pd

    if not (problems >= 1 and n >= 1 and 2 <= answers <= 26 and concentration > 0 and 0 <= none <= 1):
        raise InputError("SIMULATE", f"cannot draw {n} votes over {answers} answers on {problems} problems")
    laws = _laws(models, SuccessLaw(mean=0.6, tail=1.0))
    letters = list(ascii_lowercase[:answers])
    target = np.random.default_rng([seed, 0]).integers(answers, size=problems)  # the same problems for every model
    tables, truths = [], []
    for i, (name, law) in enumerate(laws.items()):
        rng = np.random.default_rng([seed, 1, i])
        p = law.draw(rng, problems)
        shares = _vote_shares(rng, p, target, answers, concentration)
        counts = rng.multinomial(n, np.column_stack([(1 - none) * shares, np.full(problems, none)]))
        key: dict[str, Any] = {"model": name, "problem": _names(problems)}
        letter = np.array(letters)[target]
        votes = {f"votes_{x}": counts[:, j] for j, x in enumerate([*letters, "none"])}
        correct = counts[np.arange(problems), target]
        tables.append(pd.DataFrame({**key, "n": n, "n_correct": correct, "target": letter, **votes}))
        true = {f"share_{x}": shares[:, j] for j, x in enumerate(letters)}
        extra = {"concentration": concentration, "none": none}
        truths.append(pd.DataFrame({**key, "target": letter, "p": p, **true, **vars(law), **extra}))
    return pd.concat(tables, ignore_index=True), pd.concat(truths, ignore_index=True)


def _laws(models: Mapping[str, SuccessLaw] | Sequence[str], default: SuccessLaw) -> dict[str, SuccessLaw]:
    _refuse_repeats(models)
    return dict(models) if isinstance(models, Mapping) else dict.fromkeys(models, default)


def _refuse_repeats(names: Iterable[str]) -> None:
    held = list(names)
    if not held or len(set(held)) < len(held):
        raise InputError("SIMULATE", f"models need names that differ, got {held}")


def _vote_shares(rng: np.random.Generator, p: Floats, target: Whole, answers: int, concentration: float) -> Floats:
    """(problem, answer) shares: p for the target, the rest Dirichlet over the others."""
    wrong = rng.dirichlet(np.full(answers - 1, concentration), p.size) * (1 - p)[:, None]
    shares = np.empty((p.size, answers))
    is_target = np.arange(answers) == target[:, None]
    shares[is_target] = p
    shares[~is_target] = wrong.ravel()
    return shares


def _success_times(rng: np.random.Generator, p: Floats, successes: int) -> Floats:
    """(problem, success) attempt number of each of the first successes, infinite where p = 0.

    By inversion of the geometric distribution function, for numpy's own draws overflow where p is tiny.
    """
    with np.errstate(divide="ignore"):
        gaps = np.log(rng.uniform(np.finfo(float).tiny, 1.0, (p.size, successes))) / np.log1p(-p)[:, None]
    return np.cumsum(np.maximum(np.ceil(gaps), 1.0), axis=1)


def _check_design(problems: int, n: int, stopping: str, batch: int, enough: int) -> None:
    if stopping not in ("fixed", "first_success", "batch", "capped"):
        raise InputError("SIMULATE", f"unknown stopping design {stopping!r}")
    if min(problems, n, batch, enough) < 1:
        raise InputError("SIMULATE", "problems, n, batch and enough must be at least 1")
    if stopping == "batch" and n % batch:
        raise InputError("SIMULATE", f"the cap {n} must be a multiple of the batch {batch}")


def _names(problems: int) -> list[str]:
    """Numbered from 0, padded so that text order is the order of the numbers."""
    width = len(str(problems - 1))
    return [f"p{i:0{width}d}" for i in range(problems)]


def _normal_grid() -> tuple[Floats, Floats, Floats]:
    """Nodes and weights for the mean over two independent standard normals."""
    nodes, weight = np.polynomial.hermite_e.hermegauss(NODES)
    weight = weight / weight.sum()
    return nodes[:, None], nodes[None, :], weight[:, None] * weight[None, :]


def _root(function: Any) -> float:
    return float(brentq(function, -BRACKET, BRACKET, xtol=1e-12))  # pyright: ignore[reportArgumentType]
