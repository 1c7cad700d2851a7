"""Success rates fitted to the counts: a population by maximum likelihood, or each problem by itself.

The beta-binomial keeps a and b in [1e-4, 1e7], the scaled Beta in [0.01, 100]; both are maximised in ln a and ln b. The
scaled Beta's integrals are sums over x = logit u, where p = s u: spaced closely enough for the narrowest binomial, with
the power-law mass beyond either end of the grid as one more node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import betaln, log_expit, psi

from bayesscale.resampling.baselines.fitted import (
    CoverageFit,
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

BETA_BOUNDS, SCALED_BOUNDS = (1e-4, 1e7), (0.01, 100.0)
WIDEST_STEP = 0.05
ITERATIONS = 100
ENDS = np.array([-np.inf, np.inf])
STARTS = np.log([[0.3, 20.0], [1.0, 1.0], [0.3, 0.3], [5.0, 50.0]])

type Likelihood = Callable[[Floats], tuple[Floats, Floats]]
"""Log probability of each pattern of counts at (ln a, ln b), (row, 2) -> (row, pattern), and its gradient (..., 2)."""


def beta(theta: Floats, k: Floats) -> Floats:
    """pass@k = 1 - B(a, b + k) / B(a, b), success rates Beta(a, b), from coordinates (ln a, ln b)."""
    return -np.expm1(log_beta_survival(np.exp(theta[..., :1]), np.exp(theta[..., 1:]), k))


def scaled_beta(scale: float, theta: Floats, k: Floats) -> Floats:
    """pass@k = 1 - 2F1(-k, a; a + b; s), success rates s Beta(a, b), from coordinates (ln a, ln b), by quadrature."""
    grid = np.arange(-45.0, 45.0, WIDEST_STEP)
    nodes = _Nodes.of(grid, *np.exp(np.moveaxis(theta, -1, 0))[..., None])
    failure = _log_failure(np.append(grid, ENDS), scale)
    return nodes.weight @ -np.expm1(failure[:, None] * k)


def fit_beta_binomial(name: str, sample: Sample) -> CoverageFit:
    """Maximum likelihood of (a, b) in P(c | n) = C(n, c) B(a + c, b + n - c) / B(a, b)."""
    shape = Shape(beta, STARTS, ("a", "b"), (np.exp, np.exp))
    return _maximum_likelihood(name, sample, shape, lambda n, c: partial(_beta_binomial, n, c), BETA_BOUNDS)


def fit_scaled_beta(name: str, sample: Sample) -> CoverageFit:
    """Maximum likelihood of (a, b) for success rates s Beta(a, b), with s the largest c / n of the data."""
    scale = float((sample.c / sample.n).max())
    shape = Shape(partial(scaled_beta, scale), STARTS, ("a", "b"), (np.exp, np.exp))
    fitted = _maximum_likelihood(name, sample, shape, lambda n, c: _scaled_beta_binomial(n, c, scale), SCALED_BOUNDS)
    return replace(fitted, parameters={**fitted.parameters, "s": scale})


def fit_plug_in(name: str, sample: Sample) -> CoverageFit:
    """mean_i 1 - (1 - c_i / n_i)^k, replicated over problems."""
    with np.errstate(divide="ignore"):
        log_failure = np.log1p(-sample.c / sample.n)
    equal = np.full(len(sample.n), 1 / len(sample.n))
    curves = (partial(_mean_coverage, log_failure, weights) for weights in (equal, sample.weights))
    return CoverageFit(name, {}, (), float(sample.k[-1]), *curves)


def fit_jeffreys(name: str, sample: Sample) -> CoverageFit:
    """p_i ~ Beta(c_i + 1/2, n_i - c_i + 1/2), each problem by itself: posterior mean, and draws for these problems."""
    a, b = sample.c + 0.5, sample.n - sample.c + 0.5
    rng = np.random.default_rng(sample.seed)
    with np.errstate(divide="ignore"):
        log_failure = np.log1p(-rng.beta(a, b, size=sample.weights.shape))
    replicates = partial(_mean_coverage, log_failure, np.full(len(a), 1 / len(a)))
    return CoverageFit(name, {}, (), float(sample.k[-1]), partial(_jeffreys_mean, a, b), replicates)


def _mean_coverage(log_failure: Floats, weights: Floats, k: Floats) -> Floats:
    return np.stack([(-np.expm1(at * log_failure) * weights).sum(-1) for at in k], -1)


def _jeffreys_mean(a: Floats, b: Floats, k: Floats) -> Floats:
    return -np.expm1(log_beta_survival(a[:, None], b[:, None], k)).mean(0)


def _maximum_likelihood(
    name: str,
    sample: Sample,
    shape: Shape,
    likelihood_of: Callable[[Floats, Floats], Likelihood],
    bounds: tuple[float, float],
) -> CoverageFit:
    """Fit the data and every bootstrap replicate of them, on distinct (n, c) with their weights."""
    if says_nothing(sample):
        return constant(name, sample, too_few(sample, 0))
    patterns, which = np.unique(np.column_stack([sample.n, sample.c]), axis=0, return_inverse=True)
    likelihood = likelihood_of(*patterns.T)
    member = np.eye(len(patterns))[which.ravel()]
    limits = (float(np.log(bounds[0])), float(np.log(bounds[1])))
    tries, value = _maximise(likelihood, np.tile(member.mean(0), (len(shape.starts), 1)), shape.starts, limits)
    point = tries[np.argmax(value)]
    weights = sample.weights @ member
    replicates, _ = _maximise(likelihood, weights, np.tile(point, (len(weights), 1)), limits)
    return parametric(name, sample, shape, point, replicates, at_bound(name, point, *limits))


def _maximise(likelihood: Likelihood, weights: Floats, u: Floats, limits: tuple[float, float]) -> tuple[Floats, Floats]:
    """Maximise the weighted mean log likelihood of every row of weights (row, pattern) at once, from u (row, 2).

    Newton's steps with the curvature made positive (absolute eigenvalues) and damped until they go up.
    """

    def measure(u: Floats) -> tuple[Floats, Floats]:
        value, gradient = likelihood(u)
        return (weights * value).sum(1, keepdims=True), (weights[..., None] * gradient).sum(1)

    u = np.clip(u, *limits)
    (value, gradient), damping = measure(u), np.full((len(u), 1), 1e-6)
    for _ in range(ITERATIONS):
        free = ((u > limits[0]) | (gradient > 0)) & ((u < limits[1]) | (gradient < 0))
        bend = np.stack([(measure(u - h)[1] - measure(u + h)[1]) / 2e-4 for h in 1e-4 * np.eye(2)], -1)
        bend = np.where(free[:, None] & free[:, :, None], (bend + bend.swapaxes(1, 2)) / 2, np.eye(2))
        size, axes = np.linalg.eigh(bend)
        along = (axes * (gradient * free)[..., None]).sum(1) / (np.abs(size) + damping)
        trial = np.clip(u + np.clip((axes * along[:, None]).sum(2), -2.0, 2.0), *limits)
        reached, slope = measure(trial)
        better = reached > value
        done = (np.abs(trial - u).max(1, keepdims=True) < 1e-7) | (damping > 1e6)
        u, value, gradient = (
            np.where(better, new, old) for new, old in ((trial, u), (reached, value), (slope, gradient))
        )
        damping = np.where(better, damping / 10, np.maximum(damping, 1e-4) * 10)
        if done.all():
            break
    return u, value[:, 0]


def _beta_binomial(n: Floats, c: Floats, u: Floats) -> tuple[Floats, Floats]:
    a, b = np.exp(u.T)[..., None]
    value = betaln(a + c, b + n - c) - betaln(a, b) - betaln(c + 1, n - c + 1) - np.log(n + 1)
    total = psi(a + b + n) - psi(a + b)
    by_a, by_b = psi(a + c) - psi(a) - total, psi(b + n - c) - psi(b) - total
    return value, np.stack([a * by_a, b * by_b], -1)


def _scaled_beta_binomial(n: Floats, c: Floats, scale: float) -> Likelihood:
    """The marginal likelihood of c in n at success rates s u, u ~ Beta(a, b), up to a factor per pattern."""
    grid = np.arange(-np.log(n.max()) - 20.0, 25.0, _step(n, c, scale))
    x = np.append(grid, ENDS)
    with np.errstate(invalid="ignore"):
        log_kernel = _times(c, np.log(scale) + log_expit(x)) + _times(n - c, _log_failure(x, scale))
    kernel = np.exp(log_kernel - log_kernel.max(1, keepdims=True))
    return partial(_mean_over_nodes, grid, kernel)


def _mean_over_nodes(grid: Floats, kernel: Floats, u: Floats) -> tuple[Floats, Floats]:
    a, b = np.exp(u.T)[..., None]
    nodes = _Nodes.of(grid, a, b)
    mass, total = nodes.weight @ kernel.T, psi(a + b)
    by_a = (nodes.weight * nodes.log_u) @ kernel.T / mass - psi(a) + total
    by_b = (nodes.weight * nodes.log_rest) @ kernel.T / mass - psi(b) + total
    return np.log(mass), np.stack([a * by_a, b * by_b], -1)


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Beta(a, b) on a grid of x = logit u and its two ends: weights, log u and log(1 - u), each (..., node + 2)."""

    weight: Floats
    log_u: Floats
    log_rest: Floats

    @classmethod
    def of(cls, grid: Floats, a: Floats, b: Floats) -> _Nodes:
        first, last, step = grid[0], grid[-1], grid[1] - grid[0]
        inside = a * log_expit(grid) + b * log_expit(-grid) + np.log(step)
        # Below the grid the density of x is exp(a x) and the mean of x is x0 - 1 / a; likewise above it.
        below, above = a * first - np.log(a), -b * last - np.log(b)
        log_weight = _with_ends(inside, below, above)
        log_weight[..., [0, -3]] -= np.log(2.0)
        log_u = _with_ends(log_expit(grid), first - 1 / a, 0.0)
        log_rest = _with_ends(log_expit(-grid), 0.0, -last - 1 / b)
        return cls(np.exp(log_weight - betaln(a, b)), log_u, log_rest)


def _with_ends(inside: Floats, below: Floats | float, above: Floats | float) -> Floats:
    shape = np.broadcast_shapes(inside.shape[:-1], np.shape(below)[:-1], np.shape(above)[:-1])
    parts = (
        np.broadcast_to(part, (*shape, size)) for part, size in ((inside, inside.shape[-1]), (below, 1), (above, 1))
    )
    return np.concatenate(list(parts), -1)


def _step(n: Floats, c: Floats, scale: float) -> float:
    """Node spacing: one standard deviation of the narrowest binomial kernel, where the rule errs by 5e-9."""
    u = c / (n * scale)
    information = n * scale * u * (1 - u) ** 2 / np.maximum(1 - scale * u, 1e-300)
    return float(min(WIDEST_STEP, 1 / np.sqrt(max(information.max(), 1e-300))))


def _log_failure(x: Floats, scale: float) -> Floats:
    """log(1 - s u) at x = logit u, with the digits of 1 - s u kept at either end."""
    with np.errstate(divide="ignore"):
        return np.where(x < 0, np.log1p(-scale * np.exp(log_expit(x))), _log_mix(x, scale))


def _log_mix(x: Floats, scale: float) -> Floats:
    """The same, as the log of (1 - s) u + (1 - u): no digit is lost where s u is close to 1."""
    return np.logaddexp(np.log1p(-scale) + log_expit(x), log_expit(-x))


def _times(count: Floats, log_probability: Floats) -> Floats:
    """count x log probability, (pattern, node), where no count of an impossible event is 0."""
    return np.where(count[:, None] > 0, count[:, None] * log_probability, 0.0)
