"""Integrals on the logit axis against mpmath, closed forms, and quadratures that know where to look."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import betaln, logsumexp

from bayesscale import quadrature
from bayesscale.finding import InputError
from bayesscale.precision import enable_float64
from bayesscale.quadrature import kernel_cells, log_integral, log_shared_integral, shared_cells, shared_width

enable_float64()

NEEDLES = [(1, 1), (3, 40), (50_000, 50_000), (1e5, 10), (7, 1e9), (5e11, 5e11)]
CLIFFS = [(0, 1), (0, 10), (0, 1e7), (0, 1e12), (1, 0), (300, 0)]


def beta_density(a: float, b: float):
    """Log density of the logit of a Beta(a, b) variable, up to its constant, with its two tails."""
    log_density = lambda x: -a * jnp.logaddexp(0.0, -x) - b * jnp.logaddexp(0.0, x)  # noqa: E731
    ends = log_density(jnp.array([quadrature.LOWEST, quadrature.HIGHEST]))
    return log_density, (ends[0] - np.log(a), ends[1] - np.log(b))


@pytest.mark.parametrize(("a", "b"), [(0.05, 3.0), (0.3, 40.0), (1.0, 1.0), (2.5, 0.2)])
def test_a_beta_density_gives_beta_functions(a, b):
    c, f = np.array(NEEDLES + CLIFFS, float).T
    got = np.asarray(log_integral(kernel_cells(c, f), *beta_density(a, b)))
    np.testing.assert_allclose(got, betaln(a + c, b + f), rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize(("c", "f"), NEEDLES[:4])
@pytest.mark.parametrize("location", [-20.0, -2.0, 3.0])
def test_a_narrow_kernel_is_resolved_wherever_the_density_lies(c, f, location):
    """Against 4e5 equidistant nodes around the peak of the product, found by bisection."""
    sd = 0.7
    log_product = lambda x: quadrature.log_kernel(x, c, f) - 0.5 * ((x - location) / sd) ** 2  # noqa: E731
    low, high = -60.0, 60.0
    for _ in range(80):
        x = (low + high) / 2
        slope = c - (c + f) / (1 + np.exp(-x)) - (x - location) / sd**2
        low, high = (x, high) if slope > 0 else (low, x)
    p = 1 / (1 + np.exp(-low))
    width = 1 / np.sqrt((c + f) * p * (1 - p) + 1 / sd**2)
    x = low + width * np.linspace(-60, 60, 400_001)
    want = logsumexp(log_product(x)) + np.log(x[1] - x[0])
    got = log_integral(kernel_cells([c], [f]), lambda x: -0.5 * ((x - location) / sd) ** 2, (-1e30, -1e30))
    assert float(got[0]) == pytest.approx(want, rel=1e-9, abs=1e-7)


def test_the_kernel_of_no_counts_is_one():
    cells = kernel_cells([0], [0])
    assert np.exp(cells["log_weight"]).sum() == pytest.approx(quadrature.HIGHEST - quadrature.LOWEST, rel=1e-10)
    assert cells["log_below"] == cells["log_above"] == 0


def test_only_kernels_without_successes_count_the_mass_below():
    cells = kernel_cells([0, 1, 0, 1], [0, 0, 1, 1])
    assert (cells["log_below"] == 0).tolist() == [True, False, True, False]
    assert (cells["log_above"] == 0).tolist() == [True, True, False, False]


def test_nodes_rise_and_stay_on_the_axis():
    c, f = np.array(NEEDLES + CLIFFS, float).T
    x = kernel_cells(c, f)["x"]
    assert x.shape == (c.size, quadrature.NODES)
    assert (np.diff(x) > 0).all()
    assert x.min() >= quadrature.LOWEST - 1e-9 and x.max() <= quadrature.HIGHEST + 1e-9


def test_the_end_weights_integrate_polynomials_of_fifth_degree():
    x = np.linspace(0, 1, 21)
    weights = 0.05 * np.exp(quadrature.log_end_weights(21))
    for power in range(6):
        assert weights @ x**power == pytest.approx(1 / (power + 1), rel=2e-8 if power > 4 else 1e-13)


@pytest.mark.parametrize(("c", "f"), [(-1, 2), (1, np.nan), (np.inf, 1)])
def test_impossible_counts_are_refused(c, f):
    with pytest.raises(InputError, match="RATE_COUNTS.*finite and at least 0"):
        kernel_cells([c], [f])


# One grid for many kernels --------------------------------------------------------------------------------------------


def patterns_up_to(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of n samples from cliff to cliff, and of fewer."""
    c = np.unique(np.r_[0, 1, min(2, n), n // 3, n // 2, n - 1, n]).astype(float)
    return np.r_[c, 0.0, 0.0], np.r_[n - c, n // 2, 0.0]


@pytest.mark.parametrize("n", [1, 30, 1000, 10_000, 40_000])
@pytest.mark.parametrize(("a", "b"), [(0.05, 3.0), (0.3, 40.0), (1.0, 1.0), (2.5, 0.2)])
def test_a_shared_grid_gives_beta_functions(n, a, b):
    c, f = patterns_up_to(n)
    cells = shared_cells(c, f, shared_width(n) + 64)  # room to spare counts for nothing
    got = np.asarray(log_shared_integral(cells, *beta_density(a, b)))
    # a kernel of 1 counts both tails: those of the test density are right to first order only
    np.testing.assert_allclose(got, betaln(a + c, b + f), rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("location", [-20.0, -6.0, 3.0])
def test_a_shared_grid_agrees_with_nodes_of_each_patterns_own(location):
    c, f = patterns_up_to(1000)
    density = lambda x: -0.5 * ((x - location) / 0.7) ** 2  # noqa: E731
    cells = shared_cells(c, f, shared_width(1000))
    got = np.asarray(log_shared_integral(cells, density, (-1e30, -1e30)))
    want = np.asarray(log_integral(kernel_cells(c, f), density, (-1e30, -1e30)))
    apart = want - cells["log_peak"] < -500  # the product underflows
    np.testing.assert_allclose(got[~apart], want[~apart], rtol=1e-9, atol=1e-7)
    # there it is low, and still rises towards where it should be
    assert np.isfinite(got).all() and (got[apart] <= want[apart] + 1e-6).all()
    assert apart.any() == (location == -20.0)
    slope = jax.grad(lambda shift: log_shared_integral(cells, lambda x: density(x - shift), (-1e30, -1e30)).sum())
    assert slope(0.0) * location < 0 or location == -6.0


def test_a_shared_grid_holds_what_its_width_promises():
    for n in (1, 100, 50_000):
        axis = shared_cells([0.0], [float(n)], shared_width(n))["axis"]
        assert axis.shape == (shared_width(n),) and (np.diff(axis) > 0).all()
        assert axis[0] == pytest.approx(quadrature.LOWEST) and axis[-1] == pytest.approx(quadrature.HIGHEST)
    assert shared_width(40_000) <= quadrature.MOST_NODES < shared_width(1e6)
