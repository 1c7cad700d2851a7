"""Logarithms, of sums and of their complements: vectorised on a CPU, right at both ends, differentiable twice in either mode.

XLA on a CPU takes float64 logarithms one at a time; here they are taken by their bits, in operations it can vectorise, 2 to 3
times faster. Derivatives are written by hand, so that a gradient shares the value's one exponential.

Relative accuracy in float64 against 60-digit arithmetic, asserted in ``tests/test_special.py`` (eps = 2.2e-16):

=================== ============================== =========== =========== ========================
function            where                          value       1st deriv.  2nd derivative
=================== ============================== =========== =========== ========================
``log``             normal positive x              2 eps       2 eps       4 eps
``log1p``           t in [0, 1e300]                2 eps       2 eps
``log1pexp``        x in [-700, 700]               1e-15       1e-14
``log_sigmoid``     x in [-700, 700]               1e-15       1e-14       1e-14
``logaddexp``       differences in [-700, 700]     1e-15 *     1e-14       1e-14
``log1mexp``        h in [1e-300, 700]             1e-14       1e-14       1e-14, h > 1e-150
``logit_from_log``  log p in [-1e4, -1e-300]       1e-14 *     1e-14       1e-14, log p < -1e-150
=================== ============================== =========== =========== ========================

\\* absolute below size 1. Subnormal numbers count as zero.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

_LOG_2 = float(np.log(2.0))
_LOG_2_HIGH, _LOG_2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # 32 exact bits, and the rest (fdlibm)
_SQRT_HALF_BITS = int(np.sqrt(0.5).view(np.int64))
_ATANH_SERIES = tuple(2 / (2 * j + 1) for j in range(1, 11))


def log(x: ArrayLike) -> Array:
    """log x; -inf at zero and NaN below."""
    return _log(*as_floats(x))


def log1p(t: ArrayLike) -> Array:
    """log(1 + t)."""
    return _log1p(*as_floats(t))


def log1pexp(x: ArrayLike) -> Array:
    """log(1 + exp(x)): the softplus function."""
    (x,) = as_floats(x)
    return -_log_sigmoid(-x)


def log_sigmoid(x: ArrayLike) -> Array:
    """log(1 / (1 + exp(-x))): the log of a probability from its logit."""
    return _log_sigmoid(*as_floats(x))


def logaddexp(a: ArrayLike, b: ArrayLike) -> Array:
    """log(exp(a) + exp(b)); either may be -inf."""
    return _logaddexp(*jnp.broadcast_arrays(*as_floats(a, b)))


def log1mexp(h: ArrayLike) -> Array:
    """log(1 - exp(-h)) for h > 0: the log probability of an event whose log-survival is -h. Gradient 1 / expm1(h)."""
    return _log1mexp(*as_floats(h))


def logit_from_log(log_p: ArrayLike) -> Array:
    """log p - log(1 - p) from log p <= 0, accurate at both ends.

    A log_p above minus the smallest normal number, 0 included, gives the logit there (708.4 in float64, 87.3 in
    float32: the largest) with zero gradient, in place of infinity.
    """
    (log_p,) = as_floats(log_p)
    nearest = -jnp.finfo(log_p.dtype).tiny
    held = jnp.where(log_p < nearest, log_p, nearest)
    return held - _log1mexp(-held)


def as_floats(*values: ArrayLike) -> list[Array]:
    """Arrays of one floating type."""
    dtype = jnp.result_type(float, *values)
    return [jnp.asarray(value, dtype) for value in values]


def keep[T](x: T) -> T:
    """x, an array or several, computed once.

    The compiler repeats chains of cheap operations, of which a logarithm is one, in everything that uses them: what there is one
    of per lane is then worked out for every row.
    """
    return jax.lax.optimization_barrier(x)


def polynomial(coefficients: Any, x: Array) -> Array:
    """c0 + c1 x + c2 x**2 + ..., by Horner's rule."""
    total = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


@jax.custom_jvp
def _log(x: Array) -> Array:
    return _fast_on_cpu(jnp.log, lambda x: _log_by_bits(x, x - 1), x)


@_log.defjvp
def _log_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (x_dot,) = primals, tangents
    return _log(x), x_dot / x


@jax.custom_jvp
def _log1p(t: Array) -> Array:
    return _fast_on_cpu(jnp.log1p, lambda t: _log_by_bits(1 + t, t), t)


@_log1p.defjvp
def _log1p_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (t,), (t_dot,) = primals, tangents
    return _log1p(t), t_dot / (1 + t)


@jax.custom_jvp
def _log_sigmoid(x: Array) -> Array:
    return jnp.where(x > 0, 0.0, x) - _log1p(_falling(x))


@_log_sigmoid.defjvp
def _log_sigmoid_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (x_dot,) = primals, tangents
    t = _falling(x)
    return _log_sigmoid(x), x_dot * (jnp.where(x > 0, t, 1.0) / (1 + t))


@jax.custom_jvp
def _logaddexp(a: Array, b: Array) -> Array:
    gap = _gap(a, b)
    return jnp.where(gap > 0, a, b) + _log1p(_falling(gap))


@_logaddexp.defjvp
def _logaddexp_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (a_dot, b_dot) = primals, tangents
    gap = _gap(a, b)
    t = _falling(gap)
    larger, smaller = 1 / (1 + t), t / (1 + t)
    first = gap > 0
    return _logaddexp(a, b), jnp.where(first, larger, smaller) * a_dot + jnp.where(first, smaller, larger) * b_dot


@jax.custom_jvp
def _log1mexp(h: Array) -> Array:
    return _fast_on_cpu(_log1mexp_by_parts, lambda h: _log_by_bits(-jnp.expm1(-h), -jnp.exp(-h)), h)


@_log1mexp.defjvp
def _log1mexp_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (h,), (h_dot,) = primals, tangents
    return _log1mexp(h), h_dot * (jnp.exp(-h) / -jnp.expm1(-h))


def _log1mexp_by_parts(h: Array) -> Array:
    small = h < _LOG_2  # Maechler (2012): each form is used where its inner rounding is harmless
    return jnp.where(small, jnp.log(-jnp.expm1(-h)), jnp.log1p(-jnp.exp(-h)))


def _falling(x: Array) -> Array:
    """exp(-|x|), with the derivative of one side at zero, not their mean."""
    return jnp.exp(jnp.where(x > 0, -x, x))


def _gap(a: Array, b: Array) -> Array:
    """a - b, zero where both are infinite alike."""
    return jnp.where(jnp.isinf(a) & (a == b), 0.0, a - b)


def _fast_on_cpu(stock: Callable[[Array], Array], fast: Callable[[Array], Array], x: Array) -> Array:
    """Choose when compiling: on a CPU in float64 the fast form."""
    if x.dtype != jnp.float64:
        return stock(x)
    return jax.lax.platform_dependent(x, cpu=fast, default=stock)


@partial(jax.jit, inline=True)
def _log_by_bits(y: Array, y_less_1: Array) -> Array:
    """log y within 2 eps, in vectorisable operations: y = 2**k m with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh(s).

    `y_less_1` is given apart so that log1p keeps the digits of its argument when 1 + t would round them off.
    """
    bits = jax.lax.bitcast_convert_type(y, jnp.int64)
    k = (bits - _SQRT_HALF_BITS) >> 52
    m = jax.lax.bitcast_convert_type(bits - (k << 52), jnp.float64)
    f = jnp.where(k == 0, y_less_1, m - 1)
    s = f / (2 + f)
    k = k.astype(jnp.float64)
    log_y = k * _LOG_2_HIGH + (2 * s + (s**3 * polynomial(_ATANH_SERIES, s * s) + k * _LOG_2_LOW))
    # The bits of 0, inf, NaN or a negative number are no exponent.
    outside = jnp.where(y == jnp.inf, y, jnp.where(y >= 0, -jnp.inf, jnp.nan))
    return keep(jnp.where((y >= jnp.finfo(y.dtype).tiny) & (y < jnp.inf), log_y, outside))
