"""The contract every success-rate law keeps, against integrals, samples and constants found elsewhere."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.stats
from scipy.integrate import quad
from scipy.special import expit, gammaln, logsumexp

from bayesscale.finding import InputError
from bayesscale.precision import enable_float64
from bayesscale.rates import DEFAULT_RATE_LAW, RATE_LAWS

enable_float64()

DRAWS = 200
PAIRS = [(0, 0), (0, 1), (0, 10), (0, 1e3), (0, 1e7), (1, 0), (1, 1), (1, 10), (1, 1e4), (2, 9), (30, 970), (1e3, 1e3)]
PAIRS += [(1e5, 1e5), (2, 0), (0, 2), (2, 10), (1, 11), (31, 970), (30, 971), (50_000, 0), (1e4, 0), (1e4, 1)]
C, F = np.array(PAIRS, float).T
TAILED = [name for name in RATE_LAWS if name != "logit_normal"]
DENSITIES = ("kumaraswamy", "three_slope", "spliced", "logit_normal")

# Module scope runs the tests of one law after another, so that parallel workers seldom compile the same law.
each_law = pytest.mark.parametrize("name", RATE_LAWS, scope="module")


@cache
def prior_thetas(name, draws=DRAWS):
    parameters = RATE_LAWS[name].parameters
    keys = jax.random.split(jax.random.key(1), max(len(parameters), 1))
    return {p.name: p.prior_given({}).sample(key, (draws,)) for p, key in zip(parameters, keys, strict=False)}


def theta_of(name, draw):
    return {key: value[draw] for key, value in prior_thetas(name).items()}


@cache
def evaluated(name):
    """(draw, pattern) log moments of PAIRS, their Jacobian, and derived quantities: compiled once."""
    law, cells = RATE_LAWS[name], RATE_LAWS[name].cells(C, F)

    def twice(theta):
        value = law.log_moment(cells, theta)
        return value, value

    def one_draw(theta):
        slopes, value = jax.jacfwd(twice, has_aux=True)(theta)
        return value, slopes, dict(law.derived(**theta))

    if not law.parameters:
        value = np.asarray(law.log_moment(cells, {}))
        return np.tile(value, (DRAWS, 1)), {}, {key: np.full(DRAWS, x) for key, x in law.derived().items()}
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one_draw))(prior_thetas(name)))


@cache
def compiled(name):
    return jax.jit(RATE_LAWS[name].log_moment)


def log_moments(name, theta, c, f):
    """(pattern,) log moments, padded to the length of PAIRS so that a law is compiled once."""
    c, f = np.broadcast_arrays(np.asarray(c, float), np.asarray(f, float))
    more = np.zeros(len(PAIRS) - c.size)
    cells = RATE_LAWS[name].cells(np.r_[c, more], np.r_[f, more])
    return np.asarray(compiled(name)(cells, {key: jnp.asarray(value) for key, value in theta.items()}))[: c.size]


def column(name, c, f):
    return evaluated(name)[0][:, PAIRS.index((c, f))]


def test_the_table_names_its_laws():
    assert all(name == law.name for name, law in RATE_LAWS.items())
    assert DEFAULT_RATE_LAW == "beta_mixture" and DEFAULT_RATE_LAW in RATE_LAWS
    assert {"beta", "zero_inflated_beta", "scaled_beta", "jeffreys", *DENSITIES} <= set(RATE_LAWS)


@each_law
def test_a_law_says_what_it_is(name):
    law = RATE_LAWS[name]
    assert law.equation and law.reference
    names = [p.name for p in law.parameters]
    assert len(set(names)) == len(names)
    assert all(p.name.isidentifier() and p.symbol and p.meaning and p.spread > 0 and not p.dims for p in law.parameters)
    derived = evaluated(name)[2]
    assert {"mean", "tail_index", "zero_mass"} <= set(derived) == set(law.derived_meaning)


@each_law
def test_values_and_gradients_are_finite(name):
    value, slopes, derived = evaluated(name)
    assert np.isfinite(value).all()
    for parameter, slope in slopes.items():
        assert np.isfinite(slope).all(), parameter
    assert np.isfinite(derived["mean"]).all() and (derived["tail_index"] > 0).all()


@each_law
def test_moments_are_probabilities_that_fall_with_every_outcome(name):
    value = evaluated(name)[0]
    assert (value <= 1e-15).all()
    assert (np.abs(column(name, 0, 0)) < 1e-15).all()
    slack = 1e-9
    for chain in (
        [(0, 0), (0, 1), (0, 10), (0, 1e3), (0, 1e7)],
        [(1, 0), (1, 1), (1, 10), (1, 1e4)],
        [(0, 10), (1, 10)],
    ):
        falls = np.diff([column(name, *pair) for pair in chain], axis=0)
        assert (falls < slack).all()


@each_law
def test_one_more_attempt_either_fails_or_succeeds(name):
    """E[p^c q^f] = E[p^(c+1) q^f] + E[p^c q^(f+1)]; three rows with nodes of their own must agree."""
    for c, f in [(0, 0), (1, 0), (0, 1), (1, 10), (30, 970), (1e4, 0)]:
        parts = [pair for pair in ((c + 1, f), (c, f + 1)) if pair in PAIRS]
        if len(parts) == 2:
            whole = np.logaddexp(*(column(name, *pair) for pair in parts))
            np.testing.assert_allclose(whole, column(name, c, f), rtol=1e-7, atol=1e-6)


@each_law
def test_compiling_changes_nothing_and_padding_stays_finite(name):
    law, theta = RATE_LAWS[name], theta_of(name, 3)
    cells = law.cells(C, F)
    padded = {key: np.concatenate([x, np.zeros_like(x[:2])]) for key, x in cells.items()}
    value, slopes = jax.jit(jax.value_and_grad(lambda t, x: law.log_moment(x, t).sum()))(theta, padded)
    assert np.isfinite(value) and all(np.isfinite(x) for x in slopes.values())
    np.testing.assert_allclose(compiled(name)(cells, theta), evaluated(name)[0][3], rtol=1e-11, atol=1e-13)


@each_law
def test_cells_keep_the_shape_of_the_counts(name):
    law, theta = RATE_LAWS[name], theta_of(name, 0)
    got = law.log_moment(law.cells(np.zeros((3, 1)), np.array([1.0, 5.0])), theta)
    assert got.shape == (3, 2)
    np.testing.assert_allclose(got[1], log_moments(name, theta, [0, 0], [1, 5]), rtol=1e-11, atol=1e-14)
    with pytest.raises(InputError, match="RATE_COUNTS"):
        law.cells([-1], [2])


@each_law
def test_the_mean_is_the_first_moment(name):
    mean = evaluated(name)[2]["mean"]
    np.testing.assert_allclose(np.log(mean), column(name, 1, 0), rtol=1e-7, atol=1e-7)


@each_law
def test_samples_have_the_moments(name):
    """200,000 draws from the law itself; five standard errors of the Monte-Carlo mean."""
    law = RATE_LAWS[name]
    for draw in range(3):
        p = np.asarray(law.sample(jax.random.key(draw), theta_of(name, draw), (200_000,)), float)
        assert ((p >= 0) & (p <= 1)).all()
        for c, f in [(1, 0), (0, 1), (0, 10), (0, 1e3), (2, 9)]:
            values = p**c * (1 - p) ** f
            want = float(np.exp(log_moments(name, theta_of(name, draw), [c], [f])[0]))
            assert abs(values.mean() - want) < 5 * values.std() / np.sqrt(p.size) + 1e-6 * want


# What the densities of x = logit p are, written again with numpy.


def kumaraswamy(x, log_tail_index, log_scale):
    a = np.exp(log_tail_index)
    b, log_p = np.exp(-a * log_scale), -np.logaddexp(0, -x)
    return np.log(a * b) + a * log_p + (b - 1) * np.log(-np.expm1(a * log_p)) - np.logaddexp(0, x)


def three_slope(x, log_tail_index, location, log_upper_slope):
    b, d, u = np.exp(log_tail_index), np.exp(log_upper_slope), x - location + log_tail_index - log_upper_slope
    return b * u - (b + d) * np.logaddexp(0, u) + gammaln(b + d) - gammaln(b) - gammaln(d)


def spliced(x, log_tail_index, log_shape, log_upper_shape, log_threshold):
    b, a, upper = np.exp([log_tail_index, log_shape, log_upper_shape])
    log_p = -np.logaddexp(0, -x)
    corner = (a - b) / 4 * np.logaddexp(0, 4 * (log_threshold - log_p))
    return a * log_p - upper * np.logaddexp(0, x) + corner


def logit_normal(x, location, log_scale):
    return scipy.stats.norm.logpdf(x, location, np.exp(log_scale))


def by_brute_force(log_density, c, f):
    """log of the integral over 100,001 logits in (-500, 200) and as many around the kernel's peak."""
    x = np.linspace(-500.0, 200.0, 100_001)
    if c > 0 and f > 0:
        x = np.union1d(x, np.log(c / f) + np.sqrt((c + f) / (c * f)) * np.linspace(-60, 60, 20_001))
    step = np.gradient(x)
    step[[0, -1]] *= 0.5
    return logsumexp(log_density(x) - c * np.logaddexp(0, -x) - f * np.logaddexp(0, x), b=step)


@pytest.mark.parametrize("name", DENSITIES, scope="module")
def test_densities_agree_with_brute_force(name):
    some = [(0, 1), (0, 10), (0, 1e3), (0, 1e7), (1, 0), (1, 1), (1, 1e4), (30, 970), (1e3, 1e3), (1e5, 1e5)]
    for draw in range(0, 100, 10):
        theta = {key: float(value) for key, value in theta_of(name, draw).items()}
        density = lambda x, theta=theta: globals()[name](x, **theta)  # noqa: E731
        total = by_brute_force(density, 0, 0) if name == "spliced" else 0.0
        for c, f in some:
            want = by_brute_force(density, c, f) - total
            assert column(name, c, f)[draw] == pytest.approx(want, rel=1e-6, abs=1e-6), (theta, c, f)


@pytest.mark.parametrize("name", ["kumaraswamy", "three_slope", "logit_normal"], scope="module")
def test_densities_are_normalised(name):
    for draw in range(4):
        theta = {key: float(value) for key, value in theta_of(name, draw).items()}
        assert abs(by_brute_force(lambda x, theta=theta: globals()[name](x, **theta), 0, 0)) < 2e-3


def test_the_spliced_corner_differs_little_from_the_sharp_one():
    b, a, upper, log_t = 0.2, 0.8, 20.0, -6.0
    sharp = lambda x: np.where(x < log_t, b, a) * (-np.logaddexp(0, -x) - log_t) - upper * np.logaddexp(0, x)  # noqa: E731
    theta = dict(
        zip((p.name for p in RATE_LAWS["spliced"].parameters), np.r_[np.log([b, a, upper]), log_t], strict=True)
    )
    c, f = np.array([0, 0, 0, 1, 3]), np.array([10, 1e3, 1e6, 1e3, 100])
    want = np.array([by_brute_force(sharp, *pair) for pair in zip(c, f, strict=True)]) - by_brute_force(sharp, 0, 0)
    np.testing.assert_allclose(log_moments("spliced", theta, c, f), want, atol=0.03)


def test_beta_is_the_beta_binomial():
    c = np.array([0, 1, 7, 50])
    coefficient = gammaln(51) - gammaln(c + 1) - gammaln(51 - c)
    for draw in range(20):
        theta = {key: float(value) for key, value in theta_of("beta", draw).items()}
        a = np.exp(theta["log_tail_index"])
        want = scipy.stats.betabinom.logpmf(c, 50, a, a * np.exp(-theta["logit_mean"]))
        np.testing.assert_allclose(log_moments("beta", theta, c, 50 - c) + coefficient, want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["beta", "beta_mixture", "zero_inflated_beta"])
def test_closed_forms_keep_nine_digits_a_trillion_attempts_out(name):
    """Against mpmath at 60 digits, with a tail index of .01 among the parameters."""
    law, value = RATE_LAWS[name], {"logit_mean": -6.0, "log_tail_index": np.log(0.01), "logit_zero_mass": -3.0}
    value |= {"log_shape": -0.3, "log_gap": 1.0, "log_low_shape": np.log(0.01), "logit_low_weight": 0.5}
    theta = {p.name: value[p.name] for p in law.parameters}
    c, f = np.array([0, 0, 0, 0, 1, 2e4]), np.array([1, 1e4, 1e7, 1e12, 1e12, 1e7])
    with mp.workdps(60):
        e = lambda x: mp.e ** mp.mpf(float(x))  # noqa: E731

        def beta(logit_mean, log_a, c, f):
            a, b = e(log_a), e(log_a) * mp.e ** -mp.mpf(logit_mean)
            return mp.beta(a + mp.mpf(c), b + mp.mpf(f)) / mp.beta(a, b)

        def moment(c, f):
            if name == "beta_mixture":
                w, low = 1 / (1 + e(-theta["logit_low_weight"])), theta["logit_mean"] - e(theta["log_gap"])
                body = beta(theta["logit_mean"], theta["log_shape"], c, f)
                return w * beta(low, theta["log_low_shape"], c, f) + (1 - w) * body
            zero = 1 / (1 + e(-theta["logit_zero_mass"])) if name == "zero_inflated_beta" else mp.mpf(0)
            return zero * (c == 0) + (1 - zero) * beta(theta["logit_mean"], theta["log_tail_index"], c, f)

        want = [float(mp.log(moment(*pair))) for pair in zip(c, f, strict=True)]
    np.testing.assert_allclose(log_moments(name, theta, c, f), want, rtol=1e-11)


def test_the_scaled_beta_is_a_hypergeometric_function():
    """s^c B(a + c, b) / B(a, b) 2F1(-f, a + c; a + b + c; s), and an integral where that series is hopeless."""
    c, f = np.array([0, 0, 0, 1, 1, 3, 20, 100]), np.array([1, 10, 1000, 0, 1, 100, 200, 0])
    for draw in range(10):
        theta = {key: float(value) for key, value in theta_of("scaled_beta", draw).items()}
        a, b, s = np.exp(theta["log_tail_index"]), np.exp(theta["log_upper_shape"]), expit(theta["logit_ceiling"])
        with mp.workdps(40):
            ratio = [mp.beta(a + i, b) / mp.beta(a, b) * mp.mpf(s) ** int(i) for i in c]
            want = [float(mp.log(r * mp.hyp2f1(-int(j), a + int(i), a + b + int(i), s)))
                    for r, i, j in zip(ratio, c, f, strict=True)]  # fmt: skip
        np.testing.assert_allclose(log_moments("scaled_beta", theta, c, f), want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("c", "f"), [(0, 1e5), (3, 1e7), (500, 500), (5e4, 5e4), (90_000, 10_000)])
def test_the_scaled_beta_resolves_narrow_kernels(c, f):
    """Against adaptive quadrature in t = logit(p / s), told where the peak is."""
    for a, b, s in [(0.3, 2.0, 0.6), (0.3, 0.4, 0.05), (1.2, 6.0, 0.99)]:
        log_f = lambda t, a=a, b=b, s=s: (  # noqa: E731
            -(a + c) * np.logaddexp(0, -t) - b * np.logaddexp(0, t) + f * np.log1p(-s * expit(t))
        )
        grid = np.linspace(-60, 60, 2_000_001)
        peak = grid[np.argmax(log_f(grid))]
        top, width = log_f(peak), min(1.0, 30 / np.sqrt(c + 1))
        edges = [peak - 200, peak - 20, *(peak + width * np.linspace(-4, 4, 9)), peak + 20, peak + 200]
        parts = [quad(lambda t, g=log_f, top=top: np.exp(g(t) - top), *pair, limit=200)[0]
                 for pair in zip(sorted(edges)[:-1], sorted(edges)[1:], strict=True)]  # fmt: skip
        want = np.log(sum(parts)) + top + c * np.log(s) - float(mp.log(mp.beta(a, b)))
        theta = {"log_tail_index": np.log(a), "log_upper_shape": np.log(b), "logit_ceiling": np.log(s / (1 - s))}
        assert float(log_moments("scaled_beta", theta, [c], [f])[0]) == pytest.approx(want, rel=1e-7, abs=1e-6)


@pytest.mark.parametrize("name", TAILED)
def test_survival_falls_with_the_tail_index(name):
    """d ln E[(1 - p)^k] / d ln k -> -b, past any impossible problems."""
    law, k = RATE_LAWS[name], np.array([1e11, 1e12])
    typical = {p.name: float(np.asarray(p.prior_given({}).mean)) for p in law.parameters}
    survival = np.exp(log_moments(name, typical, np.zeros(k.size), k))
    derived = law.derived(**{key: jnp.asarray(value) for key, value in typical.items()})
    slope = np.diff(np.log(survival - float(derived["zero_mass"]))) / np.diff(np.log(k))
    assert float(slope[0]) == pytest.approx(-float(derived["tail_index"]), rel=5e-3 if name == "beta_mixture" else 1e-3)


@pytest.mark.parametrize(
    ("name", "theta"),
    [
        ("beta", {"logit_mean": -5.0, "log_tail_index": np.log(0.3)}),
        ("scaled_beta", {"log_tail_index": np.log(0.3), "log_upper_shape": np.log(2), "logit_ceiling": -3.0}),
        ("kumaraswamy", {"log_tail_index": np.log(0.3), "log_scale": -4.0}),
    ],
)
def test_the_constant_of_the_power_law(name, theta):
    """Gamma(a + b) / Gamma(b) (s k)^-a for Beta on (0, s); b Gamma(1 + a) k^-a for Kumaraswamy."""
    a, k = 0.3, 1e12
    if name == "kumaraswamy":
        want = 1.2 + gammaln(1.3) - a * np.log(k)
    else:
        b, s = (a * np.exp(5.0), 1.0) if name == "beta" else (2.0, expit(-3.0))
        want = gammaln(a + b) - gammaln(b) - a * np.log(s * k)
    assert float(log_moments(name, theta, [0], [k])[0]) == pytest.approx(want, abs=2e-3)


def test_the_logit_normal_tail_is_faster_than_every_power():
    theta = {"location": -6.0, "log_scale": 1.0}
    k = 10.0 ** np.arange(2, 13)
    exponents = -np.diff(log_moments("logit_normal", theta, np.zeros(k.size), k)) / np.log(10)
    assert (np.diff(exponents) > 0).all() and exponents[-1] > 2
    assert (
        float(RATE_LAWS["logit_normal"].derived(location=jnp.asarray(-6.0), log_scale=jnp.asarray(1.0))["tail_index"])
        == np.inf
    )


def test_zero_mass_is_the_plateau():
    theta = {"logit_mean": -3.0, "log_tail_index": 1.0, "logit_zero_mass": -2.0}
    assert float(np.exp(log_moments("zero_inflated_beta", theta, [0], [1e12])[0])) == pytest.approx(
        expit(-2.0), rel=1e-9
    )
