"""Calibration: does inference recover what generated the data?

Parameters are drawn from the prior, data from the likelihood, and the posterior is asked for its intervals; over many such
draws a 90% interval must hold the truth 90% of the time, whatever the prior. Needs no files and no real data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bayesscale.draws import contraction, flatten
from bayesscale.fitting import Skipped, fit_units
from bayesscale.gate import CONTRACTION_IDENTIFIED
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.law import Law
from bayesscale.likelihood import QUASI_BINOMIAL, Likelihood, link, quasi_log_variance
from bayesscale.model import compose, derived_quantities, law_log_mean, prior_draw, sigma_of, theta_of
from bayesscale.precision import enable_float64
from bayesscale.units import Units, facts_seen

if TYPE_CHECKING:
    import pandas as pd

SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def simulate_units(
    law: Law,
    likelihood: Likelihood,
    curves: int,
    *,
    shots: Sequence[float] = SHOTS,
    trials: int = 250,
    runs: int = 8,
    seed: int = 0,
) -> tuple[Units, list[dict[str, float]]]:
    """Draw curves from prior and quasi-binomial likelihood; return the units and the true value of every scalar."""
    if likelihood.name != QUASI_BINOMIAL.name:
        raise ValueError("only the quasi-binomial likelihood is simulated here")
    enable_float64()
    model, n = compose(law, likelihood), np.asarray(shots, float)
    time = np.log1p(n)
    base = {
        "shots": n,
        "trials": np.full(len(n), float(trials)),
        "runs": np.full(len(n), float(runs)),
        "run_df": np.full(len(n), runs - 1.0),
        "step": np.diff(time, prepend=0.0),
        "first": (np.arange(len(n)) == 0).astype(float),
        "mask": np.ones(len(n)),
        "task": np.zeros(len(n)),
    }
    facts = {"chance": np.nan, "first_value": 0.5}
    rng = np.random.default_rng(seed)
    tables, truths = [], []
    for i in range(curves):
        u = prior_draw(model, jax.random.fold_in(jax.random.key(seed), i), facts)  # pyright: ignore[reportArgumentType]
        theta, _ = theta_of(model, u, facts)  # pyright: ignore[reportArgumentType]
        mean = law_log_mean(model, theta, n)  # pyright: ignore[reportArgumentType]
        sigma = sigma_of(theta)
        path = (
            np.zeros(len(n))
            if sigma is None
            else np.cumsum(rng.standard_normal(len(n)) * float(sigma) * np.sqrt(base["step"]))
        )
        variance = np.exp(quasi_log_variance(mean, base, theta))  # pyright: ignore[reportArgumentType]
        y = np.asarray(link("counts", mean)) + path + np.sqrt(variance / runs) * rng.standard_normal(len(n))
        s2 = variance * rng.chisquare(runs - 1, len(n)) / (runs - 1)
        half = (runs - 1) / 2.0
        constant = half * np.log(half) - float(jax.scipy.special.gammaln(half)) + (half - 1) * np.log(s2)
        tables.append(base | {"y": y, "value": 1 / (1 + np.exp(-y)), "run_variance": s2, "run_constant": constant})
        values = theta | dict(derived_quantities(model, theta))
        truths.append({name: float(value) for name, value in values.items()})
    columns = {name: np.stack([table[name] for table in tables]) for name in tables[0]}
    columns |= {"chance": np.full(curves, np.nan)} | facts_seen(columns, columns["mask"])
    # The prior must be the one simulated from, which looked at no first value.
    columns["first_value"] = np.full(curves, 0.5)
    names = tuple(f"simulated {seed}/{i}" for i in range(curves))
    index = np.repeat(np.arange(curves)[:, None], len(n), axis=1)
    return Units(names, names, columns, index, tuple((i,) for i in range(curves))), truths


def coverage(
    law: Law,
    likelihood: Likelihood,
    *,
    curves: int = 200,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Share of simulated curves whose equal-tailed intervals hold the truth, per parameter and reported quantity.

    Columns: `coverage50`, `coverage90` over all fits that passed the gate, `coverage90_identified` and `identified` over those
    whose data moved the quantity from its prior, `passed` and `curves`. A failed fit is counted, never dropped in silence.
    """
    import pandas as pd

    units, truths = simulate_units(law, likelihood, curves, seed=seed)
    fits = fit_units(units, law, likelihood, sampler=sampler, seed=seed, progress=progress)
    rows: list[dict[str, Any]] = []
    for fit, truth in zip(fits, truths, strict=True):
        if isinstance(fit, Skipped):
            continue
        for name, true in truth.items():
            draws = flatten(fit.draws[name])
            q05, q25, q75, q95 = np.quantile(draws, [0.05, 0.25, 0.75, 0.95])
            learned = contraction(draws, fit.prior[name]) >= CONTRACTION_IDENTIFIED
            row = {"parameter": name, "passed": fit.status != "fail", "identified": learned}
            rows.append(row | {"in50": q25 <= true <= q75, "in90": q05 <= true <= q95})
    table = pd.DataFrame(rows)
    good = table[table["passed"]]
    by = good.groupby("parameter", sort=False)
    known = good.loc[good["identified"]].groupby("parameter", sort=False)
    out = pd.DataFrame({"coverage50": by["in50"].mean(), "coverage90": by["in90"].mean()})
    out["coverage90_identified"], out["identified"] = known["in90"].mean(), known.size()
    out["passed"], out["curves"] = by.size(), curves
    return out.reset_index()
