"""Log-gamma ratios of `bayesscale.special` against JAX's gammaln and betaln: ``python -m benchmarks.log_gamma``.

One process on one core, float64. Each figure is the best of many calls over 16,384 random elements, in nanoseconds per
element, of the value and its gradient with respect to the real arguments (a, or a and b; counts are data). The
contenders of a group take turns call by call, so that a busy machine slows them alike.
"""

import os
import time
from collections.abc import Callable

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before JAX starts its threads

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import betaln, gammaln

from bayesscale.precision import enable_float64
from bayesscale.special import beta_binomial_log_kernel, log_gamma_ratio

ELEMENTS = 1 << 14
ROUNDS = 150


def stock_ratio(a: Array, n: Array) -> Array:
    return gammaln(a + n) - gammaln(a)


def stock_gammaln(a: Array, b: Array, k: Array, n: Array) -> Array:
    return stock_ratio(a, k) + stock_ratio(b, n - k) - stock_ratio(a + b, n)


def stock_betaln(a: Array, b: Array, k: Array, n: Array) -> Array:
    return betaln(a + k, b + n - k) - betaln(a, b)


def joined(a: Array, b: Array, k: Array, n: Array) -> Array:
    return beta_binomial_log_kernel(k, n, a, b)


def random_columns() -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(0)
    a, b = 10 ** rng.uniform(-2, 4, (2, ELEMENTS))
    n = np.floor(10 ** rng.uniform(0, 4, ELEMENTS))
    k = np.floor((n + 1) * rng.random(ELEMENTS))
    return jnp.array(a), jnp.array(b), jnp.array(k), jnp.array(n)


def value_and_gradient(function: Callable[..., Array], varied: int) -> Callable:
    return jax.jit(jax.value_and_grad(lambda *columns: function(*columns).sum(), tuple(range(varied))))


def nanoseconds(contenders: dict[str, Callable], columns: tuple[Array, ...]) -> dict[str, float]:
    """Best time per element of each contender, turn and turn about."""
    best = dict.fromkeys(contenders, np.inf)
    for call in contenders.values():
        jax.block_until_ready(call(*columns))
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            start = time.perf_counter()
            jax.block_until_ready(call(*columns))
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: seconds / ELEMENTS * 1e9 for name, seconds in best.items()}


def report(title: str, times: dict[str, float]) -> None:
    *_, ours = times.values()  # ours is named last
    print(title)
    for name, time_ns in times.items():
        print(f"  {name:<28}{time_ns:8.1f} ns/element{time_ns / ours:7.1f} x")


def main() -> None:
    enable_float64()
    a, b, k, n = random_columns()
    ratio = {"gammaln difference": stock_ratio, "log_gamma_ratio": log_gamma_ratio}
    kernel = {"betaln difference": stock_betaln, "six gammaln": stock_gammaln, "beta_binomial_log_kernel": joined}
    compiled = {name: value_and_gradient(function, 1) for name, function in ratio.items()}
    report("log Gamma(a + n) - log Gamma(a), value and gradient in a", nanoseconds(compiled, (a, n)))
    compiled = {name: value_and_gradient(function, 2) for name, function in kernel.items()}
    report("beta-binomial kernel, value and gradient in a and b", nanoseconds(compiled, (a, b, k, n)))


if __name__ == "__main__":
    main()
