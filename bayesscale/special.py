"""Gamma functions and powers the laws share: branch-free, vectorised, right under jit, vmap, grad, hessian and in loops.

Each value, and each first derivative written by hand, is arranged so that every difference carries its small factor
explicitly and nothing cancels; plain differentiation of the first derivative is then accurate as well, in either mode.

Accuracy in float64 against 60-digit arithmetic, asserted in ``tests/test_special.py`` (eps = 2.2e-16):

============================ ======================================= =========== =========== ==========================
function                     where                                   value       1st deriv.  2nd derivative
============================ ======================================= =========== =========== ==========================
``log_gamma_ratio``          a in [1e-3, 1e7], n = 0 or [1e-6, 1e6]  1e-14       1e-14       1e-14 (d2/dn da: 1e-11)
``log_binomial_coefficient`` n to 1e6, every k                       1e-14
``beta_binomial_log_prob``   a, b in [1e-3, 1e7], n to 1e6           see below   see below
``beta_log_moment``          a, b in [1e-2, 1e7], counts to 1e12     1e-14       see below
``log_beta``                 a, b in [1e-3, 1e7]                     1e-14
``box_cox``                  n in [0, 1e7], lambda in [-5, 5]        1e-13       1e-13       1e-13
============================ ======================================= =========== =========== ==========================

Errors are relative; where the true value passes through zero they are absolute below size 1. A beta-binomial log
probability is a small sum of terms as large as n: its error is below 1e-13 + 8 eps (n + its size), that of its
gradient below 1e-14 of the larger of the two digamma differences it is made of. `beta_log_moment` is the same kernel
with a relative error in place of one that grows with n; its gradient is that of the beta-binomial.
In float32 the formulas hold to float32 rounding only, which at 1e5 trials is 0.04 nats: see ``bayesscale.precision``.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import factorial
from operator import add

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.scipy.special import digamma, gammaln
from jax.typing import ArrayLike

from bayesscale.logarithms import as_floats, keep, log, log1p, polynomial

# Stirling's series, in powers of 1/x**2: log Gamma(x) after a factor 1/x, and -digamma(x) after a factor 1/x**2.
# Used at x >= 8 only, where the first term left out is below 1e-15 (Abramowitz & Stegun 6.1.41, 6.3.18).
_LOG_GAMMA_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_DIGAMMA_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
_SHIFT = 8

type Tangent = Array | SymbolicZero


def log_gamma_ratio(a: ArrayLike, n: ArrayLike) -> Array:
    """log Gamma(a + n) - log Gamma(a): the log of the rising factorial a (a + 1) ... (a + n - 1).

    For a > 0 and real n >= 0. Exactly 0 at n = 0. Neither a >> n nor tiny a loses digits.
    Finite, with its gradient, for a in [1e-150, 1e75].
    """
    a, n = as_floats(a, n)
    return _log_gamma_ratio(a, n)


def log_beta(a: ArrayLike, b: ArrayLike) -> Array:
    """log B(a, b) for positive a and b; `jax.scipy.special.betaln` is off by up to 1e-6."""
    a, b = as_floats(a, b)
    smaller = jnp.minimum(a, b)  # so that neither term outgrows the value
    return gammaln(smaller) - log_gamma_ratio(jnp.maximum(a, b), smaller)


def log_binomial_coefficient(n: ArrayLike, k: ArrayLike) -> Array:
    """log C(n, k) for 0 <= k <= n."""
    n, k = as_floats(n, k)
    fewer = jnp.minimum(k, n - k)  # C(n, k) = C(n, n - k), and the smaller one has the smaller terms to subtract
    return log_gamma_ratio(n - fewer + 1, fewer) - log_gamma_ratio(1.0, fewer)


def beta_binomial_log_prob(successes: ArrayLike, trials: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """Log probability of `successes` in `trials` when the success probability is Beta(a, b)."""
    coefficient = log_binomial_coefficient(trials, successes)
    return coefficient + beta_binomial_log_kernel(successes, trials, a, b)


def beta_binomial_log_kernel(successes: ArrayLike, trials: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """The part of `beta_binomial_log_prob` that depends on a and b: log B(a + k, b + n - k) - log B(a, b).

    Equal to `log_gamma_ratio(a, k) + log_gamma_ratio(b, n - k) - log_gamma_ratio(a + b, n)`, with the logarithms of
    the three ratios joined. That needs six logarithms in place of nine (they are nearly the whole cost), and keeps
    the logs of concentrations from cancelling: the error grows as eps n, not as eps n log(a + b + n).
    """
    k, n, a, b = as_floats(successes, trials, a, b)
    a, b = keep(a), keep(b)
    return _beta_binomial_log_kernel(k, n, a, b)


def beta_log_moment(successes: ArrayLike, failures: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """log E[p^c (1-p)^f] of c successes and f failures for p ~ Beta(a, b): log B(a + c, b + f) - log B(a, b).

    The quantity of `beta_binomial_log_kernel`, made for extrapolation: its error is relative to the value itself,
    whether c is 0 and f is 1e12 or the two are 1e5 each. It costs half as much again.
    """
    c, f, a, b = as_floats(successes, failures, a, b)
    return _beta_log_moment(c, f, a, b)


def box_cox(n: ArrayLike, lam: ArrayLike) -> Array:
    """g(n) = ((1 + n)**lam - 1) / lam for n > -1 and any real lam; log(1 + n) at lam = 0, smoothly.

    The effective number of examples of a tempered law: lam = 1 counts every one, lam = 0 counts on a log scale, and
    lam < 0 saturates at -1 / lam.
    """
    n, lam = as_floats(n, lam)
    return _box_cox(n, lam)


@jax.custom_jvp
def _box_cox(n: Array, lam: Array) -> Array:
    log_n = log1p(n)
    z = lam * log_n
    small = jnp.abs(z) < 1e-8
    return jnp.where(small, log_n * (1 + z / 2), jnp.expm1(z) / jnp.where(small, 1.0, lam))


@_box_cox.defjvp
def _box_cox_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    n, lam = primals
    n_dot, lam_dot = tangents
    log_n = log1p(n)
    # dg/dn = (1 + n)**(lam - 1); differentiating expm1(z) / lam term by term would lose it for large negative z.
    by_n = jnp.exp((lam - 1) * log_n)
    value = _box_cox(n, lam)
    return value, by_n * n_dot + _box_cox_by_lam(log_n, lam, value) * lam_dot


# (z e^z - expm1(z)) / z**2 = sum of z**j (j + 1) / (j + 2)!; enough terms for its second derivative at |z| < 1/2.
_SLOPE_SERIES = tuple((j + 1) / factorial(j + 2) for j in range(18))


def _box_cox_by_lam(log_n: Array, lam: Array, value: Array) -> Array:
    """dg/dlam = (log(1 + n) (1 + n)**lam - g) / lam, by series where that difference cancels."""
    z = lam * log_n
    small = jnp.abs(z) < 0.5
    series = log_n**2 * polynomial(_SLOPE_SERIES, jnp.where(small, z, 0.0))
    return jnp.where(small, series, (log_n * jnp.exp(z) - value) / jnp.where(small, 1.0, lam))


@jax.custom_jvp
def _log_gamma_ratio(a: Array, n: Array) -> Array:
    top, stirling, excess = _shifted_ratio(a, n)
    return stirling + n * (log(top) - 1) - log1p(excess)


@partial(_log_gamma_ratio.defjvp, symbolic_zeros=True)
def _log_gamma_ratio_jvp(primals: tuple[Array, ...], tangents: tuple[Tangent, ...]) -> tuple[Array, Array]:
    a, n = primals
    a_dot, n_dot = tangents
    value = _log_gamma_ratio(a, n)
    return value, _directional(
        value,
        (a_dot, lambda: _digamma_difference(a, n)),
        (n_dot, lambda: digamma(a + n)),
    )


@jax.custom_jvp
def _beta_binomial_log_kernel(k: Array, n: Array, a: Array, b: Array) -> Array:
    top_a, stirling_a, excess_a = _shifted_ratio(a, k)
    top_b, stirling_b, excess_b = _shifted_ratio(b, n - k)
    top, stirling, excess = _shifted_ratio(a + b, n)
    shift = (1 + excess_a) * (1 + excess_b) / (1 + excess)
    powers = k * log(top_a / top) + (n - k) * log(top_b / top)
    return stirling_a + stirling_b - stirling + powers - log(shift)


@partial(_beta_binomial_log_kernel.defjvp, symbolic_zeros=True)
def _beta_binomial_log_kernel_jvp(primals: tuple[Array, ...], tangents: tuple[Tangent, ...]) -> tuple[Array, Array]:
    k, n, a, b = primals
    k_dot, n_dot, a_dot, b_dot = tangents
    value = _beta_binomial_log_kernel(k, n, a, b)
    return value, _directional(
        value,
        (k_dot, lambda: digamma(a + k) - digamma(b + n - k)),
        (n_dot, lambda: digamma(b + n - k) - digamma(a + b + n)),
        (a_dot, lambda: _digamma_difference(a, k) - _digamma_difference(a + b, n)),
        (b_dot, lambda: _digamma_difference(b, n - k) - _digamma_difference(a + b, n)),
    )


@jax.custom_jvp
def _beta_log_moment(c: Array, f: Array, a: Array, b: Array) -> Array:
    swap = c > f  # both sums below have the fewer of the two counts as a factor: no term outgrows the value
    c, f, a, b = (jnp.where(swap, x, y) for x, y in ((f, c), (c, f), (b, a), (a, b)))
    top_a, stirling_a, excess_a = _shifted_ratio(a, c)
    top, stirling, excess = _shifted_ratio(a + b + f, c)
    given_failures = stirling_a - stirling + c * log(top_a / top) - log((1 + excess_a) / (1 + excess))
    value = given_failures - _log_gamma_second_difference(b, f, a)
    return jnp.where(f == 0, 0.0, value)  # what the compiler fuses may leave 1e-20 of nothing


@partial(_beta_log_moment.defjvp, symbolic_zeros=True)
def _beta_log_moment_jvp(primals: tuple[Array, ...], tangents: tuple[Tangent, ...]) -> tuple[Array, Array]:
    c, f, a, b = primals
    c_dot, f_dot, a_dot, b_dot = tangents
    value = _beta_log_moment(c, f, a, b)
    both = partial(_digamma_difference, a + b, c + f)
    return value, _directional(
        value,
        (c_dot, lambda: digamma(a + c) - digamma(a + b + c + f)),
        (f_dot, lambda: digamma(b + f) - digamma(a + b + c + f)),
        (a_dot, lambda: _digamma_difference(a, c) - both()),
        (b_dot, lambda: _digamma_difference(b, f) - both()),
    )


def _log_gamma_second_difference(x: Array, f: Array, a: Array) -> Array:
    """log Gamma(x + f + a) - log Gamma(x + f) - log Gamma(x + a) + log Gamma(x), with a relative error.

    Stirling's formula at X = x + 8 and Y = X + f. For f << X its two logarithms differ by a factor a f, written out;
    for f >> X nothing cancels in them as they stand.
    """
    low = x + _SHIFT
    high = low + f
    near = f < low
    log_high = log1p(jnp.where(near, -a * (f / high) / (low + a), a / high))
    main = (high - 0.5) * log_high + jnp.where(near, f, 0.5 - low) * log1p(a / low) + a * log1p(f / (low + a))
    unshift = log1p(_shift_excess(x + f, a)) - log1p(_shift_excess(x, a))
    return main + _stirling_series(high, a) - _stirling_series(low, a) - unshift


def _stirling_series(base: Array, n: Array) -> Array:
    """The series of log Gamma at base + n less that at base, for base >= 8: every term carries a factor n."""
    p, q = 1 / base, 1 / (base + n)
    at_top, slope = _polynomial_and_slope(_LOG_GAMMA_SERIES, q * q, p * p)
    return -n * p * q * (at_top + p * (p + q) * slope)  # q f(q^2) - p f(p^2), with q - p = -n p q


def _directional(value: Array, *slopes: tuple[Tangent, Callable[[], Array]]) -> Array:
    """Sum of tangent x slope, evaluating no slope whose tangent is known to be zero (counts are seldom varied)."""
    terms = [dot * slope() for dot, slope in slopes if not isinstance(dot, SymbolicZero)]
    return reduce(add, terms, jnp.zeros_like(value))


def _digamma_difference(a: Array, n: Array) -> Array:
    """digamma(a + n) - digamma(a), with an explicit factor n in every term but log1p(n / A)."""
    base = a + _SHIFT
    p, q = 1 / base, 1 / (base + n)
    _, slope = _polynomial_and_slope((0.0, *_DIGAMMA_SERIES), q * q, p * p)
    u, v = a * (a + 7), (a + n) * (a + n + 7)
    w = 2 * u + 49 + n * (2 * a + 7)
    # 1/(x + i) + 1/(x + 7 - i) = (2 x + 7) / (x (x + 7) + c), at x = a less the same at x = a + n, over n.
    unshift = sum((w - 2 * c) / ((u + c) * (v + c)) for c in (0, 6, 10, 12))
    return log1p(n * p) + n * (p * q * (0.5 + (p + q) * slope) + unshift)


def _shifted_ratio(a: Array, n: Array) -> tuple[Array, Array, Array]:
    """The three parts of log Gamma(a + n) - log Gamma(a), by Stirling's formula at A = a + 8 and B = A + n.

    Returns B, S and t with log_gamma_ratio = S + n (log B - 1) - log(1 + t), where S = (A - 1/2) log(B / A) plus the
    difference of the two series, and 1 + t = prod_{i<8} (a + n + i) / (a + i) undoes the shift.
    Every difference is factored by hand so that it carries an explicit factor n: nothing cancels when a >> n.
    """
    base = a + _SHIFT
    top = base + n
    # The logarithm is written as in `_digamma_difference`, so that value and gradient share it.
    stirling = (base - 0.5) * log1p(n * (1 / base)) + _stirling_series(base, n)
    return top, stirling, _shift_excess(a, n)


def _shift_excess(a: Array, n: Array) -> Array:
    """prod_{i<8} (a + n + i) / (a + i) - 1, every term positive.

    With u = a (a + 7), the factors pair off as (a + i) (a + 7 - i) = u + 0, 6, 10, 12; a step from a to a + n adds the
    same d to each. Two pairs to a quotient: half the divisions, and no overflow before a = 1e100.
    """
    u = a * (a + 7)
    d = n * (2 * a + n + 7)
    outer = d * (2 * u + 12 + d) / (u * (u + 12))
    inner = d * (2 * u + 16 + d) / ((u + 6) * (u + 10))
    return outer + inner + outer * inner


def _polynomial_and_slope(coefficients: Sequence[float], x: Array, y: Array) -> tuple[Array, Array]:
    """f(x) and (f(x) - f(y)) / (x - y), the latter without a subtraction (Horner's rule, once more)."""
    value = jnp.full_like(x, coefficients[-1])
    slope = jnp.zeros_like(x)
    for c in reversed(coefficients[:-1]):
        slope = slope * y + value
        value = value * x + c
    return value, slope
