"""Leave-one-out by Pareto-smoothed importance sampling, with exact refits where the smoothing fails.

Interpolation only: neighbours on a curve give a left-out row away, so this ranks laws by how they fill gaps, not by how
they extrapolate. Rows that share a discrepancy are left out correctly, from log p(y_i | theta, y_-i).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesscale.draws import flatten
from bayesscale.finding import InputError
from bayesscale.fitting import Skipped, fit_units, sampler_for
from bayesscale.holdout import joined
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.prediction import predict_rows
from bayesscale.result import Fit
from bayesscale.scoring import log_mean_exp


@dataclass(frozen=True, eq=False)
class Loo:
    """Expected log pointwise predictive density of one fit.

    `elpd` and `se` sum over rows; `pointwise` (row,); `k_hat` (row,) are Pareto shapes before any refit; `refitted` (row,)
    says which rows were scored by refitting without them.
    """

    name: str
    law: str
    elpd: float
    se: float
    pointwise: NDArray
    k_hat: NDArray
    refitted: NDArray


FEWEST_DRAWS = 25


def good_k(draws: int) -> float:
    """Largest Pareto shape at which the estimate from this many draws is trusted: min(1 - 1/log10(S), 0.7)."""
    return min(1.0 - 1.0 / np.log10(draws), 0.7)


def importance_elpd(log_likelihood: NDArray) -> tuple[NDArray, NDArray]:
    """PSIS estimate of log p(y_i | y_-i) and the Pareto shape, (row,), from (draw, row) log densities.

    Raises
    ------
    InputError : fewer than 25 draws, too few to fit a tail to.
    """
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    if len(log_likelihood) < FEWEST_DRAWS:
        what = f"leave-one-out needs {FEWEST_DRAWS} draws and there are {len(log_likelihood)}"
        raise InputError("LOO-DRAWS", what, fix="keep more draws")
    varies = np.ptp(log_likelihood, axis=0) > 0
    if not varies.all():  # a row every draw says the same about needs no weights
        value, k_hat = log_likelihood[0].copy(), np.full(len(varies), -np.inf)
        if varies.any():
            value[varies], k_hat[varies] = importance_elpd(log_likelihood[:, varies])
        return value, k_hat
    # psislw takes log likelihoods and turns their sign itself.
    log_weights, k_hat = array_stats.psislw(log_likelihood.T, axis=-1)
    log_weights = np.asarray(log_weights) - np.logaddexp.reduce(log_weights, axis=-1, keepdims=True)
    return np.logaddexp.reduce(log_weights + log_likelihood.T, axis=-1), np.asarray(k_hat)


def loo(
    fits: Sequence[Fit], *, refit: bool = True, sampler: Sampler | None = None, progress: Progress = silent
) -> list[Loo]:
    """Leave-one-out of several fits; rows whose Pareto shape is too large are refitted exactly, all fits in one batch."""
    results, bad = [], []
    for place, fit in enumerate(fits):
        seen = fit.unit.columns["mask"][0] > 0
        rows = flatten(fit.log_likelihood)[:, seen]
        pointwise, k_hat = importance_elpd(rows)
        failed = ~(k_hat <= good_k(len(rows)))
        results.append([pointwise, k_hat, np.zeros(len(k_hat), bool)])
        bad += [(place, int(i), int(np.flatnonzero(seen)[i])) for i in np.flatnonzero(failed)]
    if refit and bad:
        for (place, i, _), value in zip(bad, exact_scores(fits, bad, sampler, progress), strict=True):
            if np.isfinite(value):
                results[place][0][i], results[place][2][i] = value, True
    return [
        Loo(fit.name, fit.law.name, float(p.sum()), float(np.sqrt(len(p)) * p.std()), p, k, r)
        for fit, (p, k, r) in zip(fits, results, strict=True)
    ]


def quick(sampler: Sampler) -> Sampler:
    """Settings for a refit that answers one number per row: half the draws, no stronger tiers."""
    return replace(sampler, draws=max(FEWEST_REFIT_DRAWS, sampler.draws // 2), warmup=sampler.warmup[-2:], tiers=0)


FEWEST_REFIT_DRAWS = 200


def exact_scores(
    fits: Sequence[Fit], bad: Sequence[tuple[int, int, int]], sampler: Sampler | None, progress: Progress
) -> list[float]:
    """log p(y_i | y_-i) of single rows, each from a refit without the row; NaN where that did not converge."""
    scores = np.full(len(bad), np.nan)
    for model in {fits[place].model for place, _, _ in bad}:
        mine = [n for n, (place, _, _) in enumerate(bad) if fits[place].model is model]
        parts = []
        for n in mine:
            place, _, row = bad[n]
            unit = fits[place].unit
            keep = (np.arange(unit.rows) != row)[None, :]
            parts.append(unit.masked(keep, f"without {row}"))
        settings = quick(sampler or sampler_for(model.likelihood))
        refits = fit_units(joined(parts), model.law, model.likelihood, sampler=settings, progress=progress)
        for n, result in zip(mine, refits, strict=True):
            if isinstance(result, Skipped) or result.status == "fail":
                continue
            theta = {name: values[None] for name, values in result.theta().items()}
            score = predict_rows(model, theta, result.unit.columns, 0)[3]
            scores[n] = float(log_mean_exp(score[0])[bad[n][2]])
    return scores.tolist()
