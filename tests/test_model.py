"""One density, stated twice: the flat one the sampler uses and the numpyro program. And the maps between the axes."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.stats
from scipy.special import expit

from bayesscale.curves import Curves
from bayesscale.laws import LAWS
from bayesscale.likelihood import BETA, BETA_BINOMIAL_SHOTS, LOG_NORMAL, QUASI_BINOMIAL, with_discrepancy
from bayesscale.model import compose, law_log_mean, log_density, numpyro_model, prior_draw, replicate_scatter, theta_of
from bayesscale.parameter import LogitBeta, Parameter, constrain, unconstrain
from bayesscale.units import units_of

MODELS = {
    "counts of one curve, with a discrepancy": ("tempered", with_discrepancy(QUASI_BINOMIAL), 1),
    "probabilities of one curve": ("hill", BETA, 1),
    "NLLs of two tasks, with a discrepancy": ("row_tempered", with_discrepancy(LOG_NORMAL), 2),
    "counts of one curve, run by run": ("tempered_strict", BETA_BINOMIAL_SHOTS, 1),
}
each_model = pytest.mark.parametrize("name", MODELS, scope="module")


@cache
def built(name):
    """A model and one unit's columns."""
    law, likelihood, tasks = MODELS[name]
    shots = np.array([0.0, 1.0, 2.0, 8.0, 32.0])
    rng = np.random.default_rng(3)
    p = 0.3 + 0.5 * shots / (shots + 5.0)
    frames = []
    for task in range(tasks):
        for run in range(2 if likelihood.kind == "counts" else 1):
            frame = pd.DataFrame({"model": "m", "task": f"t{task}", "run": run, "shots": shots, "chance": 0.25})
            frame["successes"], frame["trials"] = rng.binomial(40, p), 40
            frame["prob"], frame["se"] = np.clip(p + 0.02 * rng.normal(size=5), 0.01, 0.99), 0.02
            frame["nll"] = -np.log(p) * np.exp(0.05 * rng.normal(size=5))
            frames.append(frame)
    roles = {"counts": {"successes": "successes", "trials": "trials", "run": "run"}}
    roles |= {"prob_mean": {"prob": "prob", "se": "se"}, "nll_mean": {"nll": "nll", "se": "se"}}
    curves = Curves.from_frame(pd.concat(frames), curve=["model", "task"], chance="chance", **roles[likelihood.kind])
    units = units_of(curves, likelihood, joint=tasks > 1)
    assert len(units) == 1
    whole = {"task": int}
    return compose(LAWS[law], likelihood, tasks), {n: jnp.asarray(c[0], whole.get(n)) for n, c in units.columns.items()}


@cache
def prior_points(name, count=5):
    model, columns = built(name)
    return jax.jit(jax.vmap(lambda key: prior_draw(model, key, columns)))(jax.random.split(jax.random.key(4), count))


@each_model
def test_flat_density_is_the_numpyro_programs(name):
    """log p(u) = log p(theta(u)) + log |d theta / d u|, with the constrained joint density taken from numpyro."""
    model, columns = built(name)

    def stated(u):
        joint, _ = numpyro.infer.util.log_density(numpyro_model, (model, columns), {}, theta_of(model, u, columns)[0])
        flat = lambda v: jnp.concatenate([jnp.ravel(x) for x in theta_of(model, v, columns)[0].values()])  # noqa: E731
        return joint + jnp.linalg.slogdet(jax.jacfwd(flat)(u))[1]

    got, want = jax.jit(jax.vmap(lambda u: (log_density(model, u, columns), stated(u))))(prior_points(name))
    assert np.isfinite(got).all() and np.ptp(got) > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-8)


def test_flat_density_is_numpyros_potential():
    """Where every parameter lives on the real line the two unconstrained densities are the same function."""
    name = "probabilities of one curve"
    model, columns = built(name)

    def potential(u):
        theta, _ = theta_of(model, u, columns)
        return numpyro.infer.util.potential_energy(numpyro_model, (model, columns), {}, theta)

    got = jax.vmap(lambda u: log_density(model, u, columns))(prior_points(name))
    np.testing.assert_allclose(got, -jax.jit(jax.vmap(potential))(prior_points(name)), rtol=1e-10)


@each_model
def test_names_and_places_of_coordinates(name):
    model, columns = built(name)
    assert len(model.layout.coordinate_names) == len(set(model.layout.coordinate_names)) == model.layout.dimension
    theta, _ = theta_of(model, jnp.arange(float(model.layout.dimension)), columns)
    for parameter in model.parameters:
        place, shape = model.layout.slices[parameter.name]
        assert theta[parameter.name].shape == shape == parameter.shape(model.layout.sizes)
        if shape:
            want = [f"{parameter.name}[{','.join(map(str, index))}]" for index in np.ndindex(shape)]
            assert list(model.layout.coordinate_names[place]) == want
            np.testing.assert_array_equal(
                jnp.ravel(theta[parameter.name]), jnp.arange(float(model.layout.dimension))[place]
            )
        else:
            assert model.layout.coordinate_names[place] == (parameter.name,)


def test_coordinates_of_a_matrix_are_named_by_row_and_column():
    model = compose(LAWS["original_linear"], LOG_NORMAL, 2)
    assert model.layout.coordinate_names[-5:] == tuple(f"logit_ratio[{i},{j}]" for i in (0, 1) for j in (0, 1)) + (
        "log_tau",
    )
    assert compose(LAWS["original_linear"], LOG_NORMAL, 2) is model


def test_prior_draws_come_from_the_prior():
    model, columns = built("counts of one curve, with a discrepancy")
    keys = jax.random.split(jax.random.key(7), 2000)
    values = jax.jit(jax.vmap(lambda key: theta_of(model, prior_draw(model, key, columns), columns)[0]))(keys)
    for parameter in model.parameters:
        prior = parameter.prior_given(columns)
        levels = level(prior, values[parameter.name])
        for part in np.asarray(levels).reshape(2000, -1).T:
            assert scipy.stats.kstest(part, "uniform").pvalue > 1e-4, parameter.name


def level(prior, value):
    if isinstance(prior, LogitBeta):
        return scipy.stats.beta.cdf(expit(value), prior.a, prior.b)
    return prior.cdf(value)


PRIORS = {
    "normal": dist.Normal(0.3, 2.0),
    "half-normal": dist.HalfNormal(0.2),
    "log-normal": dist.LogNormal(0.0, 1.0),
    "beta": dist.Beta(2.0, 5.0),
    "logit beta": LogitBeta(2.0, 2.0),
    "a function of facts": lambda facts: dist.Normal(facts["chance"], 1.0),
}


@pytest.mark.parametrize("prior", PRIORS)
def test_axes_map_to_each_other(prior):
    parameter, facts = Parameter("x", "x", "any", PRIORS[prior]), {"chance": jnp.asarray(0.25)}
    u = jnp.linspace(-6.0, 6.0, 25)
    value, _ = constrain(parameter, u, facts)
    # A half-normal scale near zero has an absolute error of the scale's rounding; nothing depends on it there.
    np.testing.assert_allclose(unconstrain(parameter, value, facts), u, atol=1e-7)
    assert bool(jnp.all(parameter.prior_given(facts).support(value)))


@pytest.mark.parametrize("prior", PRIORS)
def test_prior_density_has_its_jacobian(prior):
    parameter, facts = Parameter("x", "x", "any", PRIORS[prior]), {"chance": jnp.asarray(0.25)}
    for u in (-3.0, -0.2, 1.7):
        value, density = constrain(parameter, jnp.asarray(u), facts)
        slope = jax.grad(lambda v: constrain(parameter, v, facts)[0])(u)
        want = parameter.prior_given(facts).log_prob(value) + jnp.log(jnp.abs(slope))
        assert float(density) == pytest.approx(float(want), rel=1e-9)


def test_half_normal_scales_are_normal_scores():
    parameter, u = Parameter("s", "s", "a scale", dist.HalfNormal(0.2)), jnp.array([-5.0, 0.0, 8.0, 30.0])
    value, density = constrain(parameter, u, {})
    # The upper tail keeps its digits where Phi(u) itself is 1.
    want = scipy.stats.halfnorm.isf(scipy.stats.norm.sf(u), scale=0.2)
    np.testing.assert_allclose(value, want, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(density, scipy.stats.norm.logpdf(u))  # axes beyond the parameter's own are a batch


def test_half_normal_scales_have_slopes_far_out():
    parameter = Parameter("s", "s", "a scale", dist.HalfNormal(0.2))
    slopes = jax.vmap(jax.grad(lambda v: constrain(parameter, v, {})[0]))(jnp.array([-30.0, -8.0, 0.0, 8.0, 30.0]))
    assert np.isfinite(slopes).all() and (slopes >= 0).all()


@pytest.mark.parametrize(("a", "b"), [(2.0, 2.0), (0.5, 3.0), (8.0, 1.0)])
def test_logit_beta_is_a_beta_on_the_logit_axis(a, b):
    law = LogitBeta(a, b)
    x = np.linspace(-60.0, 30.0, 20_001)
    density = np.exp(law.log_prob(x))
    assert np.trapezoid(density, x) == pytest.approx(1.0, abs=3e-6)  # jax's betaln is good to about a millionth
    p = expit(x[(x > -20) & (x < 15)])
    want = scipy.stats.beta.logpdf(p, a, b) + np.log(p) + np.log1p(-p)
    np.testing.assert_allclose(law.log_prob(x[(x > -20) & (x < 15)]), want, rtol=1e-6, atol=3e-6)
    draws = expit(np.asarray(law.sample(jax.random.key(1), (20_000,))))
    assert scipy.stats.kstest(draws, scipy.stats.beta(a, b).cdf).pvalue > 1e-4
    assert law.sample(jax.random.key(1), (3, 2)).shape == (3, 2)


def test_logit_beta_is_finite_at_both_ends():
    slopes = jax.vmap(jax.value_and_grad(partial(LogitBeta.log_prob, LogitBeta(2.0, 2.0))))(
        jnp.array([-800.0, 0.0, 800.0])
    )
    assert all(np.isfinite(part).all() for part in slopes)


@each_model
def test_replicates_scatter_about_the_law(name):
    """Those that are normal on the link scale have the law as their median, the others as their mean."""
    model, columns = built(name)
    theta, _ = theta_of(model, jnp.zeros(model.layout.dimension), columns)
    law = np.exp(np.asarray(law_log_mean(model, theta, columns["shots"], columns["task"])[0]))
    scatter = jax.jit(replicate_scatter, static_argnums=0)(model, theta, columns)
    repeated = [np.broadcast_to(part, (4000, len(law))) for part in scatter]
    again = model.likelihood.draw(np.random.default_rng(0), columns, *repeated)
    target = -np.log(law) if model.likelihood.kind == "nll_mean" else law
    if model.likelihood.gaussian:
        assert np.abs((again < target).mean(axis=0) - 0.5).max() < 0.04
    else:
        assert np.abs((again.mean(axis=0) - target) / (again.std(axis=0) / np.sqrt(4000))).max() < 4
