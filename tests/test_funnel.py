"""Straightened funnels: the map, its Jacobian, and draws from a posterior of known shape."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bayesscale.inference import diagnostics
from bayesscale.inference.funnel import (
    PARTS,
    Funnel,
    as_columns,
    bent,
    fit_funnel,
    knots_of,
    straight,
    straight_modes,
    straight_target,
)
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Sampler
from bayesscale.inference.start import Climbed, Mode
from bayesscale.model import Target
from bayesscale.precision import enable_float64

PIVOT = 1


@pytest.fixture(scope="module", autouse=True)
def _double() -> None:
    enable_float64()


def funnel_of(units: int = 2, size: int = 4) -> Funnel:
    rng = np.random.default_rng(3)
    rest = np.delete(np.arange(size), PIVOT)
    basis = np.zeros((units, size, size))
    basis[:, rest[:, None], rest] = np.eye(size - 1) + 0.3 * rng.normal(size=(units, size - 1, size - 1))
    basis[:, PIVOT, PIVOT] = 0.7
    slope, drift = 0.8 * rng.normal(size=(2, units, size))
    slope[:, PIVOT] = drift[:, PIVOT] = 0.0
    return Funnel(rng.normal(size=(units, size)), basis, slope, drift)


def quadratic(u, columns):
    """A density that broadcasts over lanes."""
    return -0.5 * jnp.sum(u**2, axis=0) - 0.1 * u[0] * u[1]


def unit_map(funnel: Funnel, unit: int):
    one = Funnel(*(part[unit : unit + 1] for part in funnel))
    return lambda w: bent(one, PIVOT, w[None, None])[0, 0]


def test_straight_is_the_inverse_of_bent():
    w = 1.5 * np.random.default_rng(0).normal(size=(2, 50, 4))
    np.testing.assert_allclose(straight(funnel_of(), PIVOT, bent(funnel_of(), PIVOT, w)), w, atol=1e-10)


def numerical_jacobian(function, w, h=1e-6):
    return np.stack([(function(w + h * e) - function(w - h * e)) / (2 * h) for e in np.eye(len(w))], axis=-1)


def test_the_straight_density_carries_the_jacobian():
    """Up to a constant per unit, log density(w) = log density(u(w)) + log |du/dw|."""
    funnel, target = (
        funnel_of(),
        Target("quadratic", 4, quadratic, lambda key, _: jax.random.normal(key, (4,)), True, pivot=PIVOT),
    )
    columns = {name: np.moveaxis(part, 0, -1) for name, part in as_columns(funnel).items()}
    assert set(columns) == set(PARTS)
    shift = []
    for w in np.random.default_rng(1).normal(size=(5, 4)):
        got = straight_target(target).density(np.tile(w[:, None], (1, 2)), columns)
        for unit in range(2):
            jacobian = numerical_jacobian(unit_map(funnel, unit), w)
            u = unit_map(funnel, unit)(w)
            shift.append(float(got[unit] - quadratic(u[:, None], {})[0] - np.linalg.slogdet(jacobian)[1]))
    shift = np.reshape(shift, (5, 2))
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-6)


def test_modes_are_carried_over_to_first_order():
    funnel = funnel_of()
    u = np.random.default_rng(2).normal(size=(2, 3, 4))
    modes = straight_modes(funnel, PIVOT, Mode(u, np.zeros((2, 3)), np.broadcast_to(np.eye(4), (2, 3, 4, 4))))
    for unit in range(2):
        for start in range(3):
            jacobian = numerical_jacobian(unit_map(funnel, unit), modes.u[unit, start])
            np.testing.assert_allclose(modes.whiten[unit, start], np.linalg.inv(jacobian), atol=1e-6)
            np.testing.assert_allclose(modes.log_density[unit, start], np.linalg.slogdet(jacobian)[1], atol=1e-6)


def test_a_log_linear_funnel_is_fitted_exactly_between_its_knots():
    """Where widths are exp(b t) and means d t, whitening at both chosen knots leaves the identity."""
    knots, b, d = knots_of(8), np.array([0.5, 0.0, -0.2]), np.array([0.3, 0.0, 1.0])
    u = np.stack([d * t + np.array([0, 1.0, 0]) * t for t in knots])[None]
    width = np.exp(np.stack([b * t for t in knots]))
    curvature = np.zeros((1, 8, 3, 3))
    curvature[0, :, np.arange(3), np.arange(3)] = (1 / width**2).T
    value = -0.5 * knots[None] ** 2 - np.log(width[:, [0, 2]]).sum(axis=1)
    funnel = fit_funnel(PIVOT, knots, Climbed(u, value, curvature, np.ones((1, 8), bool)))  # pyright: ignore[reportArgumentType]
    spread = funnel.basis[0, PIVOT, PIVOT]
    assert 0.7 < spread < 1.1
    for t in (knots[2], knots[5]):
        w = np.zeros((1, 1, 3))
        w[..., PIVOT] = (t - funnel.centre[0, PIVOT]) / spread
        jacobian = numerical_jacobian(unit_map(funnel, 0), w[0, 0])
        rest = [0, 2]
        widths = np.sqrt(np.diag(jacobian[np.ix_(rest, rest)] @ jacobian[np.ix_(rest, rest)].T))
        np.testing.assert_allclose(widths, np.exp(b[rest] * t), rtol=0.25)
        np.testing.assert_allclose(bent(funnel, PIVOT, w)[0, 0, rest], d[rest] * t, atol=0.25)


def widening(t, xp=np):
    """Log width of the others given t: an e-fold and a half narrower in the neck, as much wider in the mouth."""
    return 1.5 * xp.tanh(t / 1.2)


def neck_and_mouth(u, columns):
    """t ~ Normal(0, 1) at the pivot; the others Normal(t, exp(widening(t))) given t."""
    t, rest = u[PIVOT], u[jnp.array([0, 2, 3])]
    width = widening(t, jnp)
    log_rest = jnp.sum(-0.5 * ((rest - t) * jnp.exp(-width)) ** 2 - width, axis=0)
    return -0.5 * t**2 + log_rest + 0.0 * jnp.sum(columns["shots"], axis=0)


def scores_of(u):
    """Independent standard normals of exact draws."""
    t = u[:, PIVOT]
    return np.stack([t, *((u[:, i] - t) * np.exp(-widening(t)) for i in (0, 2, 3))], axis=1)


def efficiency(posterior) -> float:
    """Effective draws per leapfrog, of the worst coordinate."""
    ess = diagnostics.measure(np.moveaxis(posterior.u, -1, 1)).ess_bulk.min(axis=1)
    return float(ess.sum() / posterior.leapfrogs.sum())


def test_a_funnel_is_sampled_as_it_is_and_faster():
    """Draws have the right distribution in the neck and the mouth, and cost less than without the pivot."""
    target = Target("funnel", 4, neck_and_mouth, lambda key, _: jax.random.normal(key, (4,)), True, pivot=PIVOT)
    sampler = Sampler(draws=500, tiers=0, steps=32)
    columns = {"shots": np.zeros((4, 20))}
    posterior = sample_many(target, columns, list("abcd"), sampler=sampler)
    plain = sample_many(replace(target, name="plain", pivot=None), columns, list("abcd"), sampler=sampler)
    assert efficiency(posterior) > 3 * efficiency(plain)
    z = scores_of(posterior.u.reshape(-1, 4))[::8]
    assert (np.abs(z.mean(axis=0)) * np.sqrt(len(z)) < 4).all()
    for part in z.T:
        assert scipy.stats.kstest(part, "norm").pvalue > 1e-3
