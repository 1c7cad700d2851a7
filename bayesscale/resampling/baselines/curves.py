"""Curves fitted to the pass@k curve by least squares, as practitioners do it.

The points of a pass@k curve share their samples, so they are dependent: only the fit with their covariance knows that.
Non-linear fits keep logarithms and logits within +-15. All replicates are fitted at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bayesscale.finding import Finding
from bayesscale.resampling.baselines.fitted import (
    CoverageFit,
    Curve,
    Floats,
    Sample,
    Shape,
    at_bound,
    constant,
    parametric,
    says_nothing,
    too_few,
)
from bayesscale.resampling.passk import log_beta_survival

COORDINATE_BOUND = 15.0
GLS_FLOOR = 1e-2
"""Eigenvalues of the correlation matrix of the points are raised to this share of the largest one.

The points are nearly collinear, and the less this is the more the fit hangs on the smallest k, where exp(-A k^-b) is no
pass@k curve: far forecasts fall with it.
"""
ITERATIONS = 100


def exp_power(theta: Floats, k: Floats) -> Floats:
    """pass@k = exp(-A k^-b) from coordinates (ln A, b)."""
    return np.exp(-np.exp(theta[..., :1] - theta[..., 1:] * np.log(k)))


def log_linear(theta: Floats, k: Floats) -> Floats:
    """pass@k = c0 + c1 ln k from coordinates (c0, c1)."""
    return theta[..., :1] + theta[..., 1:] * np.log(k)


def saturating(theta: Floats, k: Floats) -> Floats:
    """pass@k = A (1 - B k^-b) from coordinates (logit A, logit B, ln b)."""
    ceiling, gap, b = expit(theta[..., :1]), expit(theta[..., 1:2]), np.exp(theta[..., 2:])
    return ceiling * (1 - gap * np.exp(-b * np.log(k)))


def levi(theta: Floats, k: Floats) -> Floats:
    """pass@k = A [1 - Gamma(a+b) Gamma(k+a) / (Gamma(a) Gamma(k+a+b))] from coordinates (logit A, ln a, ln b)."""
    return expit(theta[..., :1]) * -np.expm1(log_beta_survival(np.exp(theta[..., 2:]), np.exp(theta[..., 1:2]), k))


def _crossed(*columns: tuple[float, ...]) -> Floats:
    """Every combination of the given values: (start, coordinate)."""
    return np.stack(np.meshgrid(*columns), -1).reshape(-1, len(columns))


_CEILINGS, _EXPONENTS = (-1.0, 3.0), tuple(np.log([0.1, 0.3, 1.0]))
EXP_POWER = Shape(exp_power, np.empty((0, 2)), ("A", "b"), (np.exp, float))
LOG_LINEAR = Shape(log_linear, np.empty((0, 2)), ("c0", "c1"), (float, float))
SATURATING = Shape(saturating, _crossed(_CEILINGS, (1.0, 5.0), _EXPONENTS), ("A", "B", "b"), (expit, expit, np.exp))
LEVI = Shape(levi, _crossed(_CEILINGS, (1.0, 5.0), _EXPONENTS), ("A", "a", "b"), (expit, np.exp, np.exp))


def fit_line(name: str, sample: Sample) -> CoverageFit:
    """Ordinary least squares on ln k: of ln(-ln pass@k) for the power law, of pass@k for the log-linear curve."""
    power = name == "ols"
    usable = (sample.curve > 0) & (sample.curve < 1) if power else np.full(len(sample.k), True)
    kept = sample.at(usable)
    if len(kept.k) < 2 or says_nothing(sample):
        return constant(name, sample, too_few(sample, len(kept.k)))
    point, replicates = _straight(kept, power)
    if power:
        return parametric(name, sample, EXP_POWER, point, replicates, _dropped(usable) + _feasible(point))
    return parametric(name, sample, LOG_LINEAR, point, replicates, _crossing(point))


def _straight(sample: Sample, power: bool) -> tuple[Floats, Floats]:
    """Intercept and slope on ln k, (2,) and (draw, 2): as (ln A, b) of the power law where `power`, else (c0, c1)."""
    inverse = np.linalg.pinv(np.column_stack([np.ones(len(sample.k)), np.log(sample.k)])).T
    if not power:
        return sample.curve @ inverse, sample.curves @ inverse
    inverse = inverse * [1.0, -1.0]
    return np.log(-np.log(sample.curve)) @ inverse, np.log(-np.log(sample.curves)) @ inverse


def fit_curve(shape: Shape, name: str, sample: Sample, *, dependent: bool = False) -> CoverageFit:
    """Least squares of a curve on pass@k from many starts; with the covariance of the points where `dependent`."""
    usable = (sample.curve > 0) & (sample.curve < 1)
    kept = sample.at(usable) if dependent else sample
    if usable.sum() < len(shape.names) or says_nothing(sample):
        return constant(name, sample, too_few(sample, int(usable.sum())))
    power = shape is EXP_POWER
    starts = _straight(sample.at(usable), True)[0][None] if power else shape.starts
    root = _whitener(kept.each) if dependent else np.eye(len(kept.k))
    fitted, cost = _least_squares(shape.curve, kept.k, np.tile(kept.curve, (len(starts), 1)), starts, root)
    point = fitted[np.argmin(cost)]
    replicates, _ = _least_squares(shape.curve, kept.k, kept.curves, np.tile(point, (len(kept.weights), 1)), root)
    bounds = (-COORDINATE_BOUND, COORDINATE_BOUND)
    doubts = _feasible(point) if power else at_bound(name, point, *bounds)
    findings = (*(_dropped(usable) if dependent else ()), *doubts)
    return parametric(name, sample, shape, point, replicates, findings)


def _whitener(each: Floats) -> Floats:
    """R (k, k) with R R' the inverse covariance of the mean curve over problems, up to a factor.

    The Bayesian bootstrap's covariance is the covariance over problems divided by their number plus one, without noise.
    """
    covariance = np.atleast_2d(np.cov(each.T, bias=True))
    scale = np.sqrt(np.diag(covariance))
    if not scale.all():
        return np.eye(len(scale))
    size, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    return (vectors / np.sqrt(np.maximum(size, GLS_FLOOR * size[-1]))) / scale[:, None]


def _least_squares(curve: Curve, k: Floats, y: Floats, theta: Floats, root: Floats) -> tuple[Floats, Floats]:
    """Minimise |(curve(theta, k) - y) root|^2 for every row of y (row, k) at once by damped Gauss-Newton steps."""

    def residual(theta: Floats) -> Floats:
        return (curve(theta, k) - y) @ root

    theta = np.clip(theta, -COORDINATE_BOUND, COORDINATE_BOUND)
    r, damping, steps = residual(theta), np.full((len(y), 1), 1e-2), 1e-5 * np.eye(theta.shape[1])
    for _ in range(ITERATIONS):
        jacobian = np.stack([(residual(theta + h) - residual(theta - h)) / 2e-5 for h in steps], -1)
        hessian, gradient = jacobian.swapaxes(1, 2) @ jacobian, (r[:, None] @ jacobian)[:, 0]
        diagonal = np.einsum("dii->di", hessian)
        diagonal += damping * diagonal + 1e-14 * (1 + diagonal.max(1, keepdims=True))
        trial = theta - np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -2.0, 2.0)
        trial = np.clip(trial, -COORDINATE_BOUND, COORDINATE_BOUND)
        moved = residual(trial)
        gain = 1 - (moved**2).sum(1, keepdims=True) / np.maximum((r**2).sum(1, keepdims=True), 1e-300)
        better = gain > 0
        theta, r = np.where(better, trial, theta), np.where(better, moved, r)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-9, 1e9)
        if ((better & (gain < 1e-10)) | (damping > 1e5)).all():
            break
    return theta, (r**2).sum(1)


def _dropped(usable: NDArray[np.bool_]) -> tuple[Finding, ...]:
    lost = int((~usable).sum())
    message = f"{lost} of {len(usable)} points have pass@k of exactly 0 or 1 and were dropped"
    return (
        (Finding("COVERAGE-POINTS", "warn", message, "fit a law to the counts, which needs no drop"),) if lost else ()
    )


def _feasible(point: Floats) -> tuple[Finding, ...]:
    """Say where exp(-A k^-b) can be a pass@k curve: d ln pass / d ln k = A b k^-b must not exceed 1."""
    log_a, b = point
    if b <= 0:
        message = f"the fitted curve does not rise with k (b = {b:.3g}), which no pass@k curve can do"
        return (Finding("COVERAGE-FEASIBLE", "warn", message, "do not extrapolate it"),)
    first = (log_a + np.log(b)) / b
    if first <= 0:
        return ()
    message = f"no success rates give this curve below k = {np.exp(min(first, 700.0)):.3g}, where A b k^-b > 1"
    return (Finding("COVERAGE-FEASIBLE", "warn", message, "its exponent is then no tail index"),)


def _crossing(point: Floats) -> tuple[Finding, ...]:
    c0, c1 = point
    if c1 <= 0:
        return ()
    where = np.exp(min((1 - c0) / c1, 700.0))
    message = f"the straight line crosses 1 at k = {where:.3g} and is clipped beyond"
    return (Finding("COVERAGE-CROSSES-ONE", "warn", message, "do not extrapolate it"),)
