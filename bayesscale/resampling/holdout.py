"""Held-out coverage: forecast from part of each problem's samples what the rest then showed.

Of the samples of every problem `n0` are drawn without replacement (or, under stopped designs, the sampling is cut at a budget of
n0), laws and baselines are fitted to those, and their forecasts of the share solved within k attempts are scored against what
the larger sample shows. Scores are per model and k: absolute error of the median, CRPS, and coverage and width of the 50% and
90% equal-tailed intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesscale.attempts import Attempts, stop_at, thin
from bayesscale.finding import InputError
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.rates import RateLaw
from bayesscale.resampling.baselines import COVERAGE_BASELINES
from bayesscale.resampling.fitting import fit_rates, rate_law_named
from bayesscale.resampling.forecast import CoverageForecast, check_attempts, forecast, solved_by
from bayesscale.scoring import covered, crps, width

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Split:
    """Counts to train on, and what is to be forecast: shares (model, k) solved within `k` attempts."""

    train: Attempts
    k: NDArray[np.int64]
    truth: NDArray[np.float64]


def split(attempts: Attempts, n0: int, at: Sequence[int] | NDArray, *, seed: int = 0) -> Split:
    """Keep n0 samples of each problem; the truth at k is the share solved within k attempts of the full counts.

    Problems with fewer samples than the largest k are left out (under stopped designs all stay: their ending is known).

    Raises
    ------
    InputError : n0 is not below every k, no problem has that many samples, or the design cannot be cut.
    """
    k = check_attempts(at)
    if n0 >= k.min():
        raise InputError("HOLDOUT-K", f"k has to exceed the {n0} samples trained on, got {k.min()}")
    if attempts.stopping == "fixed":
        attempts = thin(long_enough(attempts, int(k.max())), int(k.max()), seed)
        train = thin(attempts, n0, seed + 1)
    else:
        if attempts.cap is None or k.max() > attempts.cap:
            raise InputError("HOLDOUT-K", f"sampling was stopped by {attempts.cap}, before {k.max()} attempts")
        train = stop_at(attempts, n0)
    by = solved_by(attempts, k)
    truth = np.stack([by[attempts.rows(i)].mean(axis=0) for i in range(len(attempts))])
    return Split(train, k, truth)


def long_enough(attempts: Attempts, most: int) -> Attempts:
    """Keep the problems with at least `most` samples, and the models that have some."""
    keep = attempts.n >= most
    models = np.unique(attempts.model[keep])
    if not len(models):
        raise InputError("HOLDOUT-K", f"no problem has {most} samples (the most is {attempts.n.max()})")
    place = np.zeros(len(attempts), int)
    place[models] = np.arange(len(models))
    used, problem = np.unique(attempts.problem[keep], return_inverse=True)
    verifier = ("n_accepted", "n_labelled", "n_correct_accepted")
    given = {name: getattr(attempts, name) for name in verifier}
    return replace(
        attempts,
        keys=tuple(attempts.keys[i] for i in models),
        model=place[attempts.model[keep]],
        problems=tuple(attempts.problems[i] for i in used),
        problem=problem,
        n=attempts.n[keep],
        n_correct=attempts.n_correct[keep],
        covariates={name: values[models] for name, values in attempts.covariates.items()},
        **{name: None if values is None else values[keep] for name, values in given.items()},
    )


def evaluate_coverage(
    attempts: Attempts,
    n0: int,
    at: Sequence[int] | NDArray,
    *,
    laws: Sequence[str | RateLaw] = ("beta_mixture", "beta", "logit_normal"),
    baselines: Sequence[str] = ("ols", "beta_binomial_mle"),
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Score forecasts from n0 samples per problem of the share solved within each k; one row per model, predictor and k.

    Baselines are given bootstrap intervals over problems; under stopped designs they have no unbiased pass@k and are left out.
    """
    parts = split(attempts, n0, at, seed=seed)
    forecasts = [
        forecast(fit, parts.k, "solved", seed=seed)
        for law in laws
        for fit in fit_rates(parts.train, law, sampler=sampler, seed=seed, progress=progress)
    ]
    rows = score_forecasts(forecasts, parts, [rate_law_named(law).name for law in laws])
    if attempts.stopping == "fixed":
        rows += list(score_baselines(parts, baselines, seed))
    return table_of(rows, n0)


def score_forecasts(forecasts: Sequence[CoverageForecast], parts: Split, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Score forecasts listed predictor by predictor, each over the models in order."""
    rows, models = [], len(parts.train)
    for place, label in enumerate(labels):
        for i, each in enumerate(forecasts[place * models : (place + 1) * models]):
            rows += scores(each.name, label, parts.k, each.draws, np.median(each.draws, axis=0), parts.truth[i])
    return rows


def score_baselines(parts: Split, baselines: Sequence[str], seed: int) -> Iterable[dict[str, Any]]:
    """Score the baselines: their own point, and bootstrap draws for intervals and CRPS."""
    train = parts.train
    for name in baselines:
        for i in range(len(train)):
            rows = train.rows(i)
            fit = COVERAGE_BASELINES[name].fit(train.n[rows], train.n_correct[rows], seed=seed)
            draws, point = fit.draws(parts.k), fit.predict(parts.k)
            yield from scores(train.model_name(i), name, parts.k, draws, point, parts.truth[i])


def scores(
    model: str, predictor: str, k: NDArray, draws: NDArray, point: NDArray, truth: NDArray
) -> list[dict[str, Any]]:
    """One row per k."""
    columns = {
        "k": k,
        "truth": truth,
        "median": point,
        "error": point - truth,
        "crps": crps(draws, truth),
        "covered50": covered(draws, truth, 0.5),
        "covered90": covered(draws, truth, 0.9),
        "width90": width(draws, 0.9),
    }
    head = {"model": model, "predictor": predictor}
    return [head | {name: column[j].item() for name, column in columns.items()} for j in range(len(k))]


def table_of(rows: Sequence[dict[str, Any]], n0: int) -> pd.DataFrame:
    """Tabulate scores, with what they are about."""
    import pandas as pd

    table = pd.DataFrame(list(rows))
    table.insert(2, "n0", n0)
    return table.assign(estimand="share of these problems solved within k attempts", interval="equal-tailed")


def score_means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over models (and replicates): MAE, mean error, CRPS, coverage and width, by predictor, n0 and k."""
    names = ["mae", "error", "crps", "covered50", "covered90", "width90"]
    scored = table.assign(mae=table["error"].abs(), forecasts=1)
    grouped = scored.groupby(["predictor", "n0", "k"], sort=False)
    means = grouped.agg({"forecasts": "sum"} | dict.fromkeys(names, "mean"))
    return means.reset_index()
