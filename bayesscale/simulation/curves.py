"""Simulated in-context-learning curves whose law, parameters and noise are known.

A `Truth` is one curve: which form it follows and with which parameters. Its mean after n demonstrations is, for the
two Bayesian kinds,

    p(n) = beta + (gamma - beta) sigmoid( logit(rho) + K log(gamma / beta) g(n) )
    g(n) = ((1 + n)^lambda - 1) / lambda

with rho the prior weight of the right task, K the evidence taken from one example (1 for an exact Bayesian that learns
from the scored token only), gamma and beta the probability of the right answer when the task is recognised and when it
is not. lambda = 1 is linear in n; lambda = 0 stands for log(1 + n). The other kinds break that law on purpose:

* ``power``: -log p(n) = -log gamma + A (1 + n)^-alpha, a power law of the NLL; rho and K do not exist (NaN);
* ``collapse``: the law up to `collapse_from` shots, then (p - chance) shrinks by (collapse_from / n)^2;
* ``plateau_then_rise``: the law up to a plateau half way to gamma, then a second sigmoid in log n around `rise_at`.

Counts imitate an evaluation that is run several times on the same items. The items' own difficulties make runs agree
more than a binomial would; the choice of demonstrations, which matters less as they become many, makes them agree less.
The default sizes of the two effects follow published many-shot accuracies: run variance over binomial variance about 8
at one shot, 1.3 at 100, 0.8 at 1000, for half-right tasks and 250 items. Means are exact over the items drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["bayes", "tempered", "power", "collapse", "plateau_then_rise"]
Floats = NDArray[np.float64]
SHOTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
PLATEAU = 0.5  # where the first rise of plateau_then_rise ends, as a share of the way from beta to gamma
RISE_STEEPNESS = 3.0  # of its second rise, per unit of log n
COLLAPSE_EXPONENT = 2.0


@dataclass(frozen=True)
class Truth:
    """One curve as it was generated; NaN where a parameter has no meaning for the `kind`."""

    model: str
    task: str
    sft_amount: float = 0.0
    kind: Kind = "bayes"
    rho: float = 0.1
    K: float = 1.0
    gamma: float = 0.9
    beta: float = 0.3
    lambda_: float = 1.0
    chance: float = math.nan
    alpha: float = math.nan
    amplitude: float = math.nan
    collapse_from: float = math.nan
    rise_at: float = math.nan


def sigmoid(z: ArrayLike) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(z, dtype=np.float64)))


def logit(p: ArrayLike) -> Floats:
    p = np.asarray(p, dtype=np.float64)
    return np.log(p) - np.log1p(-p)


def growth(shots: ArrayLike, lambda_: float) -> Floats:
    """Effective number of examples, g(n) = ((1 + n)^lambda - 1) / lambda, with its limit log(1 + n) at lambda = 0."""
    log_n = np.log1p(np.asarray(shots, dtype=np.float64))
    return log_n if lambda_ == 0.0 else np.expm1(lambda_ * log_n) / lambda_


def law_mean(shots: ArrayLike, *, rho: float, K: float, gamma: float, beta: float, lambda_: float = 1.0) -> Floats:
    """p(n) of the Bayesian law with one lumped alternative (the equation at the top of this module)."""
    log_odds = logit(rho) + K * np.log(gamma / beta) * growth(shots, lambda_)
    return beta + (gamma - beta) * sigmoid(log_odds)


def curve_mean(truth: Truth, shots: ArrayLike) -> Floats:
    """Probability of the right answer after each number of shots, for any kind."""
    p = MEANS[truth.kind](truth, np.asarray(shots, dtype=np.float64))
    if not np.all((p >= 0.0) & (p <= 1.0)):
        raise ValueError(f"{truth.kind} curve without a probability: a parameter is missing or out of range in {truth}")
    return p


def _bayes(truth: Truth, shots: Floats) -> Floats:
    return law_mean(shots, rho=truth.rho, K=truth.K, gamma=truth.gamma, beta=truth.beta, lambda_=truth.lambda_)


def _power(truth: Truth, shots: Floats) -> Floats:
    return truth.gamma * np.exp(-truth.amplitude * (1.0 + shots) ** -truth.alpha)


def _collapse(truth: Truth, shots: Floats) -> Floats:
    kept = np.maximum(shots / truth.collapse_from, 1.0) ** -COLLAPSE_EXPONENT
    return truth.chance + (_bayes(truth, shots) - truth.chance) * kept


def _plateau_then_rise(truth: Truth, shots: Floats) -> Floats:
    first = _bayes(truth, shots)
    late = sigmoid(RISE_STEEPNESS * (np.log1p(shots) - np.log1p(truth.rise_at)))
    return truth.beta + (first - truth.beta) * (PLATEAU + (1.0 - PLATEAU) * late)


MEANS = {
    "bayes": _bayes,
    "tempered": _bayes,
    "power": _power,
    "collapse": _collapse,
    "plateau_then_rise": _plateau_then_rise,
}


def under_sft(truth: Truth, amount: float, *, delta: float = -0.8, w: float = 0.0) -> Truth:
    """The same curve after fine-tuning: logit(rho) += delta log(1 + amount), K *= exp(w log(1 + amount)).

    A negative `delta` suppresses the behaviour without unlearning it: more shots bring it back. A power law has
    neither rho nor K; there `delta` moves the intercept (the amplitude A falls by delta, in nats) and `w` the exponent.
    """
    dose = math.log1p(amount)
    if truth.kind == "power":
        amplitude = max(truth.amplitude - delta * dose, 0.0)
        return replace(truth, sft_amount=amount, amplitude=amplitude, alpha=truth.alpha * math.exp(w * dose))
    rho = float(sigmoid(logit(truth.rho) + delta * dose))
    return replace(truth, sft_amount=amount, rho=rho, K=truth.K * math.exp(w * dose))


def draw_truths(
    rng: np.random.Generator,
    models: Sequence[str],
    tasks: Sequence[str],
    sft_amounts: Sequence[float] = (0.0,),
    *,
    kind: Kind = "bayes",
    lambda_: float | None = None,
    delta: float = -0.8,
    w: float = 0.0,
) -> list[Truth]:
    """Curves with parameters drawn around model and task effects, one per (model, task, sft_amount).

    `lambda_` defaults to 0.5 for ``tempered`` and to 1 for every other kind.
    """
    if lambda_ is None:
        lambda_ = 0.5 if kind == "tempered" else 1.0
    log_K = dict(zip(models, rng.normal(-2.0, 0.5, len(models)), strict=True))
    skill = dict(zip(models, rng.normal(0.0, 0.3, len(models)), strict=True))
    prior = dict(zip(tasks, rng.normal(-2.0, 1.0, len(tasks)), strict=True))
    ceiling = dict(zip(tasks, rng.normal(1.5, 0.7, len(tasks)), strict=True))
    ratio = dict(zip(tasks, sigmoid(rng.normal(-1.0, 0.5, len(tasks))), strict=True))

    def draw(model: str, task: str) -> Truth:
        gamma = float(sigmoid(ceiling[task] + skill[model]))
        beta = gamma * float(ratio[task])
        late = float(10.0 ** rng.uniform(1.5, 2.5))
        alpha = float(rng.uniform(0.3, 1.0))
        truth = Truth(model, task, kind=kind, gamma=gamma, beta=beta, lambda_=lambda_)
        if kind == "power":
            amplitude = math.log(gamma / beta)
            return replace(truth, rho=math.nan, K=math.nan, lambda_=math.nan, alpha=alpha, amplitude=amplitude)
        truth = replace(truth, rho=float(sigmoid(prior[task] + rng.normal(0.0, 0.3))), K=math.exp(log_K[model]))
        if kind == "collapse":
            return replace(truth, chance=0.5 * beta, collapse_from=late)
        return replace(truth, rise_at=late) if kind == "plateau_then_rise" else truth

    base = [draw(model, task) for model in models for task in tasks]
    return [under_sft(truth, amount, delta=delta, w=w) for truth in base for amount in sft_amounts]


def observe_counts(
    rng: np.random.Generator,
    p: ArrayLike,
    shots: ArrayLike,
    difficulty: ArrayLike,
    *,
    runs: int = 5,
    run_sd: float = 0.8,
    run_decay: float = 0.3,
) -> NDArray[np.int64]:
    """Correct answers per (run, shots) when every run answers the same items, of the given difficulty in logits.

    Item i in run r is right with probability sigmoid(a(n) - difficulty_i + run_sd (1 + n)^-run_decay z_r), where
    z_r ~ N(0, 1) is kept along the run because its demonstrations are nested. a(n) is solved so that the mean over
    these items and over z_r is exactly p(n).
    """
    spread = run_sd * (1.0 + np.asarray(shots, dtype=np.float64)) ** -run_decay
    difficulty = np.asarray(difficulty, dtype=np.float64)
    level = _level(np.asarray(p, dtype=np.float64), difficulty, spread)
    run = spread * rng.standard_normal((runs, 1))
    right = sigmoid((level + run)[..., None] - difficulty)
    return (rng.random(right.shape) < right).sum(-1)


def _level(p: Floats, difficulty: Floats, spread: Floats, nodes: int = 16) -> Floats:
    """The a(n) of `observe_counts`, by bisection; Gauss-Hermite nodes stand for z_r."""
    z, weight = np.polynomial.hermite_e.hermegauss(nodes)
    offset = spread[:, None, None] * z[:, None] - difficulty
    low, high = np.full_like(p, -40.0), np.full_like(p, 40.0)
    for _ in range(45):
        middle = 0.5 * (low + high)
        reached = np.tensordot(sigmoid(middle[:, None, None] + offset).mean(-1), weight / weight.sum(), 1)
        low, high = np.where(reached < p, middle, low), np.where(reached < p, high, middle)
    return 0.5 * (low + high)


def observe_nll(
    rng: np.random.Generator, p: ArrayLike, *, sequences: int = 200, shape: float = 2.0
) -> tuple[Floats, Floats]:
    """Mean NLL and its standard error over sequences, around -log p(n).

    One sequence's NLL is -log p(n) times the mean of two Gamma(shape) variables of mean one, one kept along the
    sequence and one fresh at every n: errors are skewed and correlated along the curve, as they are when the same
    sequences serve every n.
    """
    expected = -np.log(np.asarray(p, dtype=np.float64))
    kept = rng.gamma(shape, 1.0 / shape, (sequences, 1))
    fresh = rng.gamma(shape, 1.0 / shape, (sequences, expected.size))
    nll = expected * 0.5 * (kept + fresh)
    return nll.mean(0), nll.std(0, ddof=1) / math.sqrt(sequences)


def counts_table(truth: Truth, shots: Sequence[int], correct: NDArray[np.int64], trials: int) -> pd.DataFrame:
    """Tidy rows of one curve: model, task, sft_amount, run, shots, correct, trials."""
    import pandas as pd

    runs, points = correct.shape
    return pd.DataFrame(
        {
            "model": truth.model,
            "task": truth.task,
            "sft_amount": truth.sft_amount,
            "run": np.repeat(np.arange(runs), points),
            "shots": np.tile(np.asarray(shots), runs),
            "correct": correct.ravel(),
            "trials": trials,
        }
    )


def nll_table(truth: Truth, shots: Sequence[int], nll: Floats, nll_se: Floats) -> pd.DataFrame:
    """Tidy rows of one curve: model, task, sft_amount, shots, nll, nll_se."""
    import pandas as pd

    key = {"model": truth.model, "task": truth.task, "sft_amount": truth.sft_amount}
    return pd.DataFrame({**key, "shots": np.asarray(shots), "nll": nll, "nll_se": nll_se})


def truth_table(truths: Sequence[Truth]) -> pd.DataFrame:
    """One row per curve; the exponent's column is called `lambda`."""
    import pandas as pd

    return pd.DataFrame([asdict(truth) for truth in truths]).rename(columns={"lambda_": "lambda"})


def observe_truths(
    seed: int,
    truths: Sequence[Truth],
    shots: Sequence[int] | Mapping[tuple[str, str], Sequence[int]] = SHOTS,
    *,
    observation: Literal["counts", "nll"] = "counts",
    runs: int = 5,
    trials: int = 200,
    item_sd: float = 2.0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Noisy data for given curves, as (table, truth).

    `shots` may be one grid for all or one per (model, task). Every curve has a generator of its own, so a curve does
    not change when another is appended after it. The items of a task (``counts``) are the same for all models and
    conditions; `trials` is their number, and the number of sequences for ``nll``.
    """
    import pandas as pd

    tasks = list(dict.fromkeys(truth.task for truth in truths))
    items = {task: np.random.default_rng([seed, 0, i]).normal(0.0, item_sd, trials) for i, task in enumerate(tasks)}
    tables = []
    for i, truth in enumerate(truths):
        rng = np.random.default_rng([seed, 1, i])
        grid = shots[truth.model, truth.task] if isinstance(shots, Mapping) else shots
        p = curve_mean(truth, grid)
        if observation == "counts":
            correct = observe_counts(rng, p, grid, items[truth.task], runs=runs)
            tables.append(counts_table(truth, grid, correct, trials))
        else:
            tables.append(nll_table(truth, grid, *observe_nll(rng, p, sequences=trials)))
    return pd.concat(tables, ignore_index=True), truth_table(truths)


def simulate_icl(
    seed: int,
    *,
    models: Sequence[str] = ("small", "large"),
    tasks: Sequence[str] = ("a", "b", "c"),
    sft_amounts: Sequence[float] = (0.0,),
    shots: Sequence[int] = SHOTS,
    kind: Kind = "bayes",
    lambda_: float | None = None,
    delta: float = -0.8,
    w: float = 0.0,
    observation: Literal["counts", "nll"] = "counts",
    runs: int = 5,
    trials: int = 200,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw curves and observe them: `draw_truths`, then `observe_truths`. Returns (table, truth).

    The defaults of `delta` and `w` are a fine-tuning that suppresses (the prior falls) and leaves K alone.
    """
    rng = np.random.default_rng([seed, 2])
    truths = draw_truths(rng, models, tasks, sft_amounts, kind=kind, lambda_=lambda_, delta=delta, w=w)
    return observe_truths(seed, truths, shots, observation=observation, runs=runs, trials=trials)
