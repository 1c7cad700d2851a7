"""Forecasts of pass@k as practitioners make them: the yardsticks a posterior is held against.

Every baseline of `COVERAGE_BASELINES` takes the samples n and successes c of each problem and answers with a
`CoverageFit`: a point forecast of pass@K at any K as the method is commonly used, and replicates of it for intervals.
Replicates come from the Bayesian bootstrap over problems (Rubin 1981), which never leaves out the only solved problem;
the per-problem posterior brings its own draws.

Where sampling stopped at a success, only the beta-binomial and the per-problem posterior can be used: their kernel
p^c (1 - p)^(n - c) does not mind the rule, while pass@k and c / n (so the scaled Beta's s) are biased.

    forecast = COVERAGE_BASELINES["ols"].fit(n, c)
    forecast.table([1_000, 10_000])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesscale.finding import Finding, InputError
from bayesscale.resampling.baselines.curves import EXP_POWER, LEVI, SATURATING, fit_curve, fit_line
from bayesscale.resampling.baselines.fitted import CoverageFit, Sample
from bayesscale.resampling.baselines.rates import fit_beta_binomial, fit_jeffreys, fit_plug_in, fit_scaled_beta
from bayesscale.resampling.passk import pass_at_k, problem_weights

type Solver = Callable[[str, Sample], CoverageFit]

GRID_POINTS = 41
FEW_SUCCESSES = 5


@dataclass(frozen=True, eq=False)
class Baseline:
    """One way to forecast pass@k.

    Attributes
    ----------
    name : identifier used in tables and on the command line.
    equation : the curve in plain text.
    reference : where it comes from.
    fit : ``fit(n, c, ks=None, *, bootstraps=200, seed=0, stopping="fixed") -> CoverageFit`` from samples n and successes
        c (problem,) and the k to fit at; raises InputError as `bayesscale.resampling.passk.pass_at_k` does.
    any_stopping : whether n may depend on the outcomes; the others refuse designs that are not "fixed".
    """

    name: str
    equation: str
    reference: str
    fit: Callable[..., CoverageFit]
    any_stopping: bool = False


def fit_grid(n: ArrayLike, points: int = GRID_POINTS) -> NDArray[np.int64]:
    """Distinct whole k, log-spaced from 1 to the smallest n (problem,): where curves are fitted by default."""
    last = float(np.asarray(n).min())
    return np.unique(np.round(np.geomspace(1.0, max(last, 1.0), points)).astype(np.int64))


def _fit(
    solve: Solver,
    name: str,
    any_stopping: bool,
    n: ArrayLike,
    c: ArrayLike,
    ks: ArrayLike | None = None,
    *,
    bootstraps: int = 200,
    seed: int = 0,
    stopping: str = "fixed",
) -> CoverageFit:
    """Prepare the data, solve, and add the doubts every baseline shares."""
    if bootstraps < 2:
        raise InputError("COVERAGE-BOOTSTRAPS", f"an interval needs at least 2 bootstraps, got {bootstraps}")
    n, c = np.atleast_1d(n), np.atleast_1d(c)
    k = np.unique(fit_grid(n) if ks is None else np.asarray(ks))
    each = pass_at_k(n, c, k, stopping="fixed" if any_stopping else stopping)
    weights = problem_weights(len(n), bootstraps, seed)
    sample = Sample(n.astype(float), c.astype(float), k.astype(float), each, weights, seed)
    fitted = solve(name, sample)
    if stopping == "fixed":
        return replace(fitted, findings=(*fitted.findings, *_doubts(sample, sample.curve[-1], k[-1])))
    last = float(n.max())
    return replace(fitted, findings=(*fitted.findings, *_doubts(sample, np.mean(c > 0), last)), largest_k=last)


def _doubts(sample: Sample, solved: float, within: float) -> list[Finding]:
    found: list[Finding] = []
    successes = sample.c.sum()
    if len(sample.n) < 2:
        message = "there is one problem, so a bootstrap over problems says nothing"
        found.append(Finding("COVERAGE-PROBLEMS", "warn", message, "do not read its interval"))
    if successes < FEW_SUCCESSES:
        message = f"there are {successes:.0f} successes in all"
        found.append(Finding("COVERAGE-FEW", "warn", message, f"draw samples until there are {FEW_SUCCESSES} or more"))
    if solved < 0.5:
        message = f"only {solved:.1%} of the problems are solved within the fitted k <= {within:.0f}"
        found.append(Finding("COVERAGE-HALF", "warn", message, "do not trust an extrapolated curve below half solved"))
    return found


def _baseline(name: str, equation: str, reference: str, solve: Solver, any_stopping: bool = False) -> Baseline:
    return Baseline(name, equation, reference, partial(_fit, solve, name, any_stopping), any_stopping)


_POWER = "exp(-A k^-b)"
_BROWN = "Brown et al. 2024 (Large Language Monkeys, arXiv 2407.21787), exponentiated power law"
_ALL = (
    _baseline("ols", f"{_POWER}, by least squares of ln(-ln pass@k) on ln k", f"{_BROWN}, fitted as a line", fit_line),
    _baseline("exp_power", f"{_POWER}, by least squares of pass@k", _BROWN, partial(fit_curve, EXP_POWER)),
    _baseline(
        "exp_power_gls",
        f"{_POWER}, by generalised least squares of pass@k",
        f"{_BROWN}, with the covariance of the dependent points",
        partial(fit_curve, EXP_POWER, dependent=True),
    ),
    _baseline("log_linear", "c0 + c1 ln k, by least squares of pass@k", "common practice", fit_line),
    _baseline(
        "saturating",
        "A (1 - B k^-b), A <= 1, by least squares of pass@k",
        "common practice",
        partial(fit_curve, SATURATING),
    ),
    _baseline(
        "levi",
        "A [1 - Gamma(a+b) Gamma(k+a) / (Gamma(a) Gamma(k+a+b))], A <= 1, by least squares of pass@k",
        "Levi 2024 (arXiv 2410.16377)",
        partial(fit_curve, LEVI),
    ),
    _baseline(
        "beta_binomial_mle",
        "1 - B(a, b+k) / B(a, b), by maximum likelihood of the counts",
        "Kazdan et al. 2025 (arXiv 2510.05197)",
        fit_beta_binomial,
        any_stopping=True,
    ),
    _baseline(
        "scaled_beta_mle",
        "1 - 2F1(-k, a; a+b; s), s the largest c/n, by maximum likelihood of the counts",
        "Schaeffer et al. 2025 (arXiv 2502.17578)",
        fit_scaled_beta,
    ),
    _baseline("plug_in", "mean_i 1 - (1 - c_i/n_i)^k", "common practice", fit_plug_in),
    _baseline(
        "per_problem_jeffreys",
        "mean_i 1 - B(c_i + 1/2, n_i - c_i + 1/2 + k) / B(c_i + 1/2, n_i - c_i + 1/2)",
        "Jeffreys's prior for each problem by itself",
        fit_jeffreys,
        any_stopping=True,
    ),
)
COVERAGE_BASELINES: Mapping[str, Baseline] = {baseline.name: baseline for baseline in _ALL}
"""Every baseline by name."""
