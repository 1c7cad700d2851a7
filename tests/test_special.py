"""The accuracy that `bayesscale.special` and `bayesscale.logarithms` state, against mpmath at 60 digits and scipy.stats."""

import itertools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.stats

from bayesscale import logarithms, precision, special

EPS = np.finfo(float).eps
mp.mp.dps = 60


def log_uniform(rng: np.random.Generator, low: float, high: float, size: int) -> np.ndarray:
    return 10.0 ** rng.uniform(np.log10(low), np.log10(high), size)


def exact(function: Callable, *columns: np.ndarray) -> list:
    return [function(*(mp.mpf(float(x)) for x in row)) for row in zip(*columns, strict=True)]


def worst(got: Iterable, want: Iterable, floor: float | np.ndarray = 0.0) -> float:
    """Largest error relative to the true value, or to `floor` where the true value is smaller."""
    got = np.asarray(got)
    assert np.all(np.isfinite(got))
    rows = zip(got, want, np.broadcast_to(floor, got.shape), strict=True)
    return max(0.0 if g == w else float(abs(float(g) - w) / max(abs(w), f)) for g, w, f in rows)


def derivatives(function: Callable, *columns: np.ndarray):
    """Gradient (per argument) and Hessian (per pair) at every point."""
    arguments = tuple(range(len(columns)))
    gradient = jax.jit(jax.vmap(jax.grad(function, arguments)))
    hessian = jax.jit(jax.vmap(jax.hessian(function, arguments)))
    return gradient(*columns), hessian(*columns)


@pytest.fixture(scope="module")
def ratio_points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    corners = itertools.product([1e-3, 1e-2, 0.5, 1.0, 1.4616, 2.0, 7.9, 1e3, 1e7], [0, 1, 2, 3, 40, 1e-6, 0.5, 1e6])
    a, n = np.array(list(corners)).T
    a = np.r_[a, log_uniform(rng, 1e-3, 1e7, 300)]
    n = np.r_[n, rng.integers(0, 30, 150), log_uniform(rng, 1e-6, 1e6, 150)]
    return a, n


def test_log_gamma_ratio_value(ratio_points):
    a, n = ratio_points
    want = exact(lambda a, n: mp.loggamma(a + n) - mp.loggamma(a), a, n)
    got = special.log_gamma_ratio(a, n)
    assert worst(got, want, floor=1.0) < 1e-14
    assert worst(got, want, floor=np.minimum(n, 1.0)) < 1e-14  # small n: relative to n, as the value is n digamma(a)
    assert np.all(np.asarray(got)[n == 0] == 0)


def test_log_gamma_ratio_derivatives(ratio_points):
    a, n = ratio_points
    (by_a, by_n), ((by_aa, by_an), (by_na, by_nn)) = derivatives(special.log_gamma_ratio, a, n)
    assert worst(by_a, exact(lambda a, n: mp.psi(0, a + n) - mp.psi(0, a), a, n)) < 1e-14
    assert worst(by_n, exact(lambda a, n: mp.psi(0, a + n), a, n), floor=1.0) < 1e-14
    assert worst(by_aa, exact(lambda a, n: mp.psi(1, a + n) - mp.psi(1, a), a, n)) < 1e-14
    for mixed in (by_na, by_nn):
        assert worst(mixed, exact(lambda a, n: mp.psi(1, a + n), a, n)) < 1e-14
    assert worst(by_an, exact(lambda a, n: mp.psi(1, a + n), a, n)) < 1e-11


def test_log_gamma_ratio_keeps_its_digits_at_the_extremes():
    assert float(special.log_gamma_ratio(1e7, 1)) == pytest.approx(np.log(1e7), rel=4 * EPS)
    assert float(special.log_gamma_ratio(1e-3, 1)) == pytest.approx(np.log(1e-3), rel=4 * EPS)
    a, n = np.array(list(itertools.product([1e-150, 1e-20, 1e20, 1e75], [0.0, 1.0, 1e6]))).T
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(special.log_gamma_ratio)))(a, n)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient))


def test_log_gamma_ratio_differentiates_inside_a_loop():
    """Forward and reverse mode, integer counts, under jit, vmap and a while loop."""

    def total(a):
        return jax.lax.fori_loop(0, 3, lambda i, s: s + special.log_gamma_ratio(a, i), 0.0)

    a = jnp.array([0.3, 4.0, 1e5])
    want = 1 / a + 1 / a + 1 / (a + 1)
    assert np.allclose(jax.jit(jax.vmap(jax.grad(total)))(a), want, rtol=1e-14)
    assert np.allclose(jax.jit(jax.vmap(jax.jacfwd(total)))(a), want, rtol=1e-14)


def test_log_gamma_ratio_broadcasts():
    def total(a, n):
        ratio = special.log_gamma_ratio(a, n)
        assert ratio.shape == (2, 4)
        return ratio.sum()

    by_a, by_n = jax.eval_shape(jax.grad(total, (0, 1)), jnp.ones((2, 1)), jnp.ones(4))
    assert (by_a.shape, by_n.shape) == ((2, 1), (4,))


def test_log_binomial_coefficient():
    rng = np.random.default_rng(2)
    n = np.floor(log_uniform(rng, 1, 1e6, 200))
    k = np.floor((n + 1) * rng.uniform(0, 1, 200))
    k[:40], k[40:80] = np.minimum(3, n[:40]), n[40:80]
    want = exact(lambda n, k: mp.log(mp.binomial(n, k)), n, k)
    assert worst(special.log_binomial_coefficient(n, k), want, floor=1.0) < 1e-14
    assert np.all(special.log_binomial_coefficient(n[40:80], k[40:80]) == 0)


@pytest.fixture(scope="module")
def beta_binomial_points() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    corners = np.array(list(itertools.product([1e-3, 1.0, 1e7], [1e-3, 1.0, 1e7], [1, 50, 1e6], [0.0, 0.5, 1.0]))).T
    a = np.r_[corners[0], log_uniform(rng, 1e-3, 1e7, 150)]
    b = np.r_[corners[1], log_uniform(rng, 1e-3, 1e7, 150)]
    n = np.r_[corners[2], np.floor(log_uniform(rng, 1, 1e6, 150))]
    k = np.floor(n * np.r_[corners[3], rng.uniform(0, 1, 150)])
    return k, n, a, b


def exact_beta_binomial(k, n, a, b):
    def beta(x, y):
        return mp.loggamma(x) + mp.loggamma(y) - mp.loggamma(x + y)

    return mp.log(mp.binomial(n, k)) + beta(a + k, b + n - k) - beta(a, b)


def test_beta_binomial_value(beta_binomial_points):
    k, n, a, b = beta_binomial_points
    got = np.asarray(special.beta_binomial_log_prob(k, n, a, b))
    want = np.array([float(x) for x in exact(exact_beta_binomial, k, n, a, b)])
    allowed = 1e-13 + 8 * EPS * (n + np.abs(want))
    assert np.all(np.abs(got - want) <= allowed)


def test_beta_binomial_gradient(beta_binomial_points):
    k, n, a, b = beta_binomial_points
    by_a, by_b = jax.jit(jax.vmap(jax.grad(special.beta_binomial_log_prob, (2, 3))))(k, n, a, b)

    def slope(x, x_top, s, s_top):
        return mp.psi(0, x_top) - mp.psi(0, x) - mp.psi(0, s_top) + mp.psi(0, s)

    want_a = exact(lambda k, n, a, b: slope(a, a + k, a + b, a + b + n), k, n, a, b)
    want_b = exact(lambda k, n, a, b: slope(b, b + n - k, a + b, a + b + n), k, n, a, b)
    # The two differences cancel near the maximum: the error is measured against the larger of them.
    scale = np.asarray(special._digamma_difference(a + b, n))
    for got, want in ((by_a, want_a), (by_b, want_b)):
        want = np.array([float(x) for x in want])
        assert np.all(np.abs(got - want) <= 1e-14 * (np.abs(want) + scale))


def test_beta_binomial_matches_scipy():
    rng = np.random.default_rng(4)
    n = rng.integers(1, 200, 500)
    k = rng.integers(0, n + 1)
    a, b = log_uniform(rng, 0.1, 50, 500), log_uniform(rng, 0.1, 50, 500)
    want = scipy.stats.betabinom.logpmf(k, n, a, b)
    assert np.allclose(special.beta_binomial_log_prob(k, n, a, b), want, rtol=1e-11, atol=1e-10)


def test_beta_binomial_kernel_is_the_sum_of_its_ratios():
    rng = np.random.default_rng(5)
    k, n = rng.uniform(0, 9, 20), rng.uniform(9, 20, 20)
    a, b = log_uniform(rng, 0.1, 50, 20), log_uniform(rng, 0.1, 50, 20)

    def separate(k, n, a, b):
        ratio = special.log_gamma_ratio
        return ratio(a, k) + ratio(b, n - k) - ratio(a + b, n)

    joint = special.beta_binomial_log_kernel
    assert np.allclose(joint(k, n, a, b), separate(k, n, a, b), rtol=1e-12)
    slopes = [lambda f: jax.grad(f, (0, 1, 2, 3)), lambda f: jax.hessian(f, (2, 3))]
    for slope in slopes:
        one, other = (jax.jit(jax.vmap(slope(f)))(k, n, a, b) for f in (joint, separate))
        assert all(jax.tree.leaves(jax.tree.map(lambda x, y: np.allclose(x, y, rtol=1e-10, atol=1e-12), one, other)))


def test_beta_binomial_sums_to_one():
    k = np.arange(51)
    for a, b in ((1e-3, 1e-3), (0.3, 7.0), (1e7, 2e6)):
        assert float(jax.nn.logsumexp(special.beta_binomial_log_prob(k, 50, a, b))) == pytest.approx(0, abs=2e-14)


def test_beta_log_moment_is_accurate_relative_to_itself():
    """Also where it is 1e-8 (one failure, a mean of 1e-8) and where the counts are 1e12."""
    rng = np.random.default_rng(7)
    a, b = log_uniform(rng, 1e-2, 1e3, 300), log_uniform(rng, 1e-2, 1e7, 300)
    few = np.where(rng.random(300) < 0.4, 0, np.floor(log_uniform(rng, 1, 1e7, 300)))
    many = np.where(rng.random(300) < 0.1, 0, np.floor(log_uniform(rng, 1, 1e12, 300)))
    c, f = np.where(rng.random(300) < 0.3, (many, few), (few, many))
    want = exact(lambda c, f, a, b: mp.log(mp.beta(a + c, b + f) / mp.beta(a, b)) if c + f else mp.mpf(0), c, f, a, b)
    assert worst(special.beta_log_moment(c, f, a, b), want) < 1e-14


def test_beta_log_moment_derivatives_are_those_of_its_value():
    """To 1e-14 of the larger of the two digamma differences each is made of."""
    c, f = np.array([0.0, 0, 3, 40, 1e5]), np.array([10.0, 1e9, 0, 2, 1e5])
    a, b = np.array([0.05, 0.3, 2, 0.1, 0.5]), np.array([4e3, 50, 0.2, 9, 0.5])

    def step(x, n):
        return mp.psi(0, x + n) - mp.psi(0, x)

    by_a = exact(lambda c, f, a, b: step(a, c) - step(a + b, c + f), c, f, a, b)
    by_b = exact(lambda c, f, a, b: step(b, f) - step(a + b, c + f), c, f, a, b)
    sizes = [[float(max(step(x, m), step(x + y, m + n))) for x, y, m, n in zip(*rows, strict=True)]
             for rows in ((a, b, c, f), (b, a, f, c))]  # fmt: skip
    gradient, _ = derivatives(special.beta_log_moment, c, f, a, b)
    assert worst(gradient[2], by_a, floor=np.array(sizes[0])) < 1e-14
    assert worst(gradient[3], by_b, floor=np.array(sizes[1])) < 1e-14
    assert worst(gradient[0], exact(lambda c, f, a, b: mp.psi(0, a + c) - mp.psi(0, a + b + c + f), c, f, a, b)) < 1e-13


def test_log1pexp():
    x = np.r_[np.linspace(-700, 700, 201), np.linspace(-3, 3, 61)]
    assert worst(logarithms.log1pexp(x), exact(lambda x: mp.log1p(mp.exp(x)), x)) < 1e-15
    slope = jax.vmap(jax.grad(logarithms.log1pexp))(x)
    assert worst(slope, exact(lambda x: 1 / (1 + mp.exp(-x)), x)) < 1e-14


def test_log_sigmoid():
    x = np.r_[np.linspace(-700, 700, 201), np.linspace(-3, 3, 61)]
    (by_x,), ((by_xx,),) = derivatives(logarithms.log_sigmoid, x)
    assert worst(logarithms.log_sigmoid(x), exact(lambda x: -mp.log1p(mp.exp(-x)), x)) < 1e-15
    assert worst(by_x, exact(lambda x: 1 / (1 + mp.exp(x)), x)) < 1e-14
    assert worst(by_xx, exact(lambda x: -mp.exp(x) / (1 + mp.exp(x)) ** 2, x)) < 1e-14


def test_logaddexp():
    gap = np.r_[np.linspace(-700, 700, 101), np.linspace(-3, 3, 61)]
    a = np.linspace(-5, 5, gap.size)
    b = a - gap
    (by_a, by_b), ((by_aa, by_ab), (_, by_bb)) = derivatives(logarithms.logaddexp, a, b)
    value = exact(lambda a, b: mp.log(mp.exp(a) + mp.exp(b)), a, b)
    assert worst(logarithms.logaddexp(a, b), value, floor=1.0) < 1e-15
    gap = a - b  # as rounded
    share = exact(lambda x: 1 / (1 + mp.exp(-x)), gap)
    curvature = exact(lambda x: mp.exp(x) / (1 + mp.exp(x)) ** 2, gap)
    assert worst(by_a, share) < 1e-14 and worst(by_b, exact(lambda x: 1 / (1 + mp.exp(x)), gap)) < 1e-14
    for second, sign in ((by_aa, 1.0), (by_bb, 1.0), (by_ab, -1.0)):
        assert worst(sign * second, curvature) < 1e-14


@pytest.mark.parametrize(("a", "b", "sum_"), [(-np.inf, 1.0, 1.0), (1.0, -np.inf, 1.0), (-np.inf, -np.inf, -np.inf)])
def test_logaddexp_of_nothing(a, b, sum_):
    assert float(logarithms.logaddexp(a, b)) == sum_
    assert np.isfinite(jax.grad(logarithms.logaddexp, (0, 1))(a, b)).all()


def test_log_beta():
    rng = np.random.default_rng(8)
    a, b = log_uniform(rng, 1e-3, 1e7, 300), log_uniform(rng, 1e-3, 1e7, 300)
    want = exact(lambda a, b: mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b), a, b)
    assert worst(special.log_beta(a, b), want, floor=1.0) < 1e-14


def test_log1mexp():
    h = np.r_[10.0 ** np.arange(-300, 2.9, 2.7), 0.5, np.log(2), 0.7, 36.0, 40.0, 745.0, 1e4]
    value = exact(lambda h: mp.log(-mp.expm1(-h)) if h < 1 else mp.log1p(-mp.exp(-h)), h)
    slope = exact(lambda h: 1 / mp.expm1(h), h)
    (by_h,), ((by_hh,),) = derivatives(logarithms.log1mexp, h)
    normal = h < 700  # beyond, the true value is below the smallest normal number
    assert worst(logarithms.log1mexp(h)[normal], np.array(value)[normal]) < 1e-14
    assert worst(by_h[normal], np.array(slope)[normal]) < 1e-14
    assert worst(by_h, slope, floor=1e-300) < 1e-14
    curved = (h > 1e-150) & normal
    assert worst(by_hh[curved], [-mp.exp(x) / mp.expm1(x) ** 2 for x in map(mp.mpf, h[curved])]) < 1e-14


def test_logit_from_log():
    log_p = -np.r_[10.0 ** np.arange(-300, 4.1, 2.7), 0.5, np.log(2), 0.7, 36.0, 745.0, 1e4]
    value = exact(lambda x: x - mp.log(-mp.expm1(x)), log_p)
    slope = exact(lambda x: -1 / mp.expm1(x), log_p)
    (by_x,), ((by_xx,),) = derivatives(logarithms.logit_from_log, log_p)
    assert worst(logarithms.logit_from_log(log_p), value, floor=1.0) < 1e-14
    assert worst(by_x, slope) < 1e-14
    curved = (log_p < -1e-150) & (log_p > -700)
    assert worst(by_xx[curved], [mp.exp(x) / mp.expm1(x) ** 2 for x in map(mp.mpf, log_p[curved])]) < 1e-14


@pytest.mark.parametrize("log_p", [0.0, -0.0, -1e-310])
def test_logit_from_log_at_certainty(log_p):
    value, slope = jax.value_and_grad(logarithms.logit_from_log)(log_p)
    assert 700 < value < 710
    assert slope == 0


@pytest.fixture(scope="module")
def box_cox_points() -> tuple[np.ndarray, np.ndarray]:
    n = [0.0, 1e-6, 0.3, 1.0, 17.0, 1e3, 1e7]
    lam = [-5.0, -1.0, -0.3, -1e-3, -1e-9, -1e-300, 0.0, 1e-300, 1e-9, 1e-4, 0.02, 0.3, 0.72, 1.0, 2.0, 5.0]
    n, lam = np.array(list(itertools.product(n, lam))).T
    return n, lam


def exact_box_cox(n, lam):
    return mp.log1p(n) if lam == 0 else mp.expm1(lam * mp.log1p(n)) / lam


def exact_box_cox_by_lam(n, lam, order):
    """L**(order + 1) times the order-th derivative of expm1(z) / z, the integral of t**order e**(z t) over [0, 1]."""
    log_n = mp.log1p(n)
    return log_n ** (order + 1) * mp.hyp1f1(order + 1, order + 2, lam * log_n) / (order + 1)


def test_box_cox_value(box_cox_points):
    n, lam = box_cox_points
    assert worst(special.box_cox(n, lam), exact(exact_box_cox, n, lam)) < 1e-13


def test_box_cox_derivatives(box_cox_points):
    n, lam = box_cox_points
    (by_n, by_lam), ((by_nn, by_nl), (by_ln, by_ll)) = derivatives(special.box_cox, n, lam)
    power = exact(lambda n, lam: (1 + n) ** (lam - 1), n, lam)
    assert worst(by_n, power) < 1e-13
    assert worst(by_nn, exact(lambda n, lam: (lam - 1) * (1 + n) ** (lam - 2), n, lam)) < 1e-13
    assert worst(by_lam, exact(lambda n, lam: exact_box_cox_by_lam(n, lam, 1), n, lam)) < 1e-13
    assert worst(by_ll, exact(lambda n, lam: exact_box_cox_by_lam(n, lam, 2), n, lam)) < 1e-13
    mixed = exact(lambda n, lam: mp.log1p(n) * (1 + n) ** (lam - 1), n, lam)
    assert worst(by_nl, mixed) < 1e-13
    assert worst(by_ln, mixed) < 1e-13


def test_integer_arguments_are_taken_as_floats():
    ratio, effective = special.log_gamma_ratio(2, 3), special.box_cox(3, 1)
    assert (ratio.dtype, effective.dtype) == (jnp.float64, jnp.float64)
    assert float(ratio) == pytest.approx(np.log(24))
    assert float(effective) == pytest.approx(3)


def test_fast_logarithms():
    x = np.r_[log_uniform(np.random.default_rng(6), 1e-300, 1e300, 300), np.sqrt([0.5, 2.0]), 1 - EPS, 1 + EPS, 1.0]
    assert worst(logarithms.log(x), exact(mp.log, x)) < 2 * EPS
    t = np.r_[log_uniform(np.random.default_rng(7), 1e-300, 1e300, 300), EPS, 1e-8, 0.41, 0.42, 0.0]
    assert worst(logarithms.log1p(t), exact(mp.log1p, t)) < 2 * EPS
    np.testing.assert_array_equal(
        logarithms.log(np.array([0.0, -1.0, np.inf, np.nan])), [-np.inf, np.nan, np.inf, np.nan]
    )
    (by_x,), ((by_xx,),) = derivatives(logarithms.log, x[:300])
    far = (x[:300] > 1e-150) & (x[:300] < 1e150)
    assert worst(by_x, exact(lambda x: 1 / x, x[:300])) < 2 * EPS
    assert worst(by_xx[far], exact(lambda x: -1 / x**2, x[:300][far])) < 4 * EPS
    assert not np.any(np.isfinite(special.log_gamma_ratio(np.array([0.0, np.nan, 1.0]), np.array([2.0, 2.0, np.inf]))))


def test_float32_is_refused_unless_asked_for(monkeypatch):
    with jax.enable_x64(False):
        with pytest.raises(RuntimeError, match="enable_float64"):
            precision.require_float64()
        monkeypatch.setenv("BAYESSCALE_FLOAT64", "0")
        with pytest.warns(UserWarning, match="float32"):
            precision.require_float64()
    precision.require_float64()


def test_float64_is_announced_once(monkeypatch, caplog):
    calls = []
    monkeypatch.setattr(precision.jax.config, "update", lambda *change: calls.append(change))
    precision.enable_float64()  # on already
    assert calls == []
    with jax.enable_x64(False), caplog.at_level("INFO"):
        precision.enable_float64()
        monkeypatch.setenv("BAYESSCALE_FLOAT64", "0")
        precision.enable_float64()
    assert calls == [("jax_enable_x64", True)]
    assert len(caplog.records) == 1
