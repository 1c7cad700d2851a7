"""Least squares: recovers what made the data, agrees with scipy, holds at the edges, and meets published figures."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import curve_fit

from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.laws import LAWS
from bayesscale.least_squares import bounds, coordinate_kind, fit_least_squares, mean_cells

ROOT = Path(__file__).resolve().parents[1]
ACCURACY = ROOT.parent / "shared/data/icl/bertsch2024_icl_accuracy.csv"
SHOTS = np.array([1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512.0])
UNSEEN = np.array([3, 20, 100, 400, 700.0])
TRUTH = {
    "logit_ceiling": 1.5, "logit_floor_ratio": -1.5, "logit_zero_ratio": -1.5, "logit_first_ratio": -1.2,
    "log_n50": np.log(20.0), "log_kappa": 0.2, "logit_lambda": -0.5, "log_slope": 0.2, "log_alpha": -0.4,
    "logit_rho": -2.0, "log_K": -0.7, "log_c0": np.log(0.2), "log_c1": np.log(0.8), "log_d": np.log(30.0),
    "log_f": np.log(0.4),
}  # fmt: skip
FAST = ("tempered", "power", "bounded_power", "logistic")
SINGLE = tuple(name for name, law in LAWS.items() if not law.joint)


def value(law, shots):
    theta = {p.name: jnp.asarray(TRUTH[p.name]) for p in LAWS[law].parameters}
    if law == "linear_strict":
        theta["log_K"] = jnp.log(0.05)
    return np.exp(np.asarray(LAWS[law].log_mean(jnp.asarray(shots), **theta)[0]))


def probability_curves(*series, shots=SHOTS, kind="prob_mean"):
    """One curve per series of values."""
    each = len(shots)
    return Curves(
        kind=kind,
        key_names=("task",),
        keys=tuple((f"t{i}",) for i in range(len(series))),
        curve=np.repeat(np.arange(len(series)), each),
        run=np.zeros(each * len(series), int),
        shots=np.tile(shots, len(series)),
        columns={"value": np.concatenate(series), "se": np.full(each * len(series), np.nan)},
        chance=np.full(len(series), np.nan),
    )


@pytest.mark.parametrize(
    "law", [pytest.param(law, marks=() if law in FAST else pytest.mark.slow) for law in sorted(SINGLE)]
)
def test_noiseless_curves_are_recovered(law):
    (fit,) = fit_least_squares(probability_curves(value(law, SHOTS)), law)
    assert fit.sse < 1e-10
    np.testing.assert_allclose(fit.predict(UNSEEN), value(law, UNSEEN), atol=1e-4)
    assert 0 < fit.agreeing_starts <= 1
    assert set(fit.theta) == {p.name for p in LAWS[law].parameters}


def test_a_noisy_power_law_agrees_with_scipy():
    noisy = value("power", SHOTS) + np.random.default_rng(0).normal(0, 0.02, SHOTS.size)

    def power(n, scale, exponent, floor):
        return np.exp(-scale * n**-exponent - floor)

    raw, _ = curve_fit(power, SHOTS, noisy, p0=(1.0, 0.5, 0.2), xtol=1e-14, ftol=1e-14)
    (fit,) = fit_least_squares(probability_curves(noisy), "power")
    assert fit.sse == pytest.approx(np.sum((power(SHOTS, *raw) - noisy) ** 2), rel=1e-9)
    np.testing.assert_allclose(fit.predict(UNSEEN), power(UNSEEN, *raw), atol=1e-5)


def test_negative_log_likelihoods_are_fitted_as_probabilities_and_predicted_as_themselves():
    p = value("power", SHOTS)
    (by_p,) = fit_least_squares(probability_curves(p), "power")
    (by_nll,) = fit_least_squares(probability_curves(-np.log(p), kind="nll_mean"), "power")
    np.testing.assert_allclose(by_nll.predict(UNSEEN), -np.log(by_p.predict(UNSEEN)), rtol=1e-6)
    assert by_nll.predict(7.0).shape == () and by_nll.predict([[7.0, 9.0]]).shape == (1, 2)


@pytest.mark.parametrize("law", FAST)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_constant_curve_does_not_blow_up(law, level):
    (fit,) = fit_least_squares(probability_curves(np.full(SHOTS.size, level)), law)
    assert np.isfinite(list(fit.theta.values())).all()
    np.testing.assert_allclose(fit.predict([1.0, 30.0, 500.0]), level, atol=1e-3)
    assert 0 <= fit.predict(1e6) <= 1


def test_a_curve_with_fewer_points_than_coordinates_is_fitted():
    (fit,) = fit_least_squares(probability_curves([0.3, 0.5], shots=[1.0, 10.0]), "tempered")
    assert fit.sse < 1e-10 and np.isfinite(fit.predict(UNSEEN)).all()


def test_a_fit_depends_neither_on_its_neighbours_nor_on_anything_but_the_seed():
    curves = probability_curves(*(value(law, SHOTS) for law in FAST))
    together = fit_least_squares(curves, "power")
    (alone,) = fit_least_squares(curves.subset([2]), "power")
    assert together[2].theta == alone.theta and together[2].sse == alone.sse


def test_cells_pool_the_runs_of_a_shot_count():
    curves = Curves(
        kind="counts",
        key_names=("task",),
        keys=(("a",), ("b",)),
        curve=[0, 0, 0, 1],
        run=[0, 1, 0, 0],
        shots=[1, 1, 5, 2],
        columns={"successes": [1, 3, 8, 2], "trials": [10, 10, 10, 4]},
        chance=[0.1, np.nan],
    )
    columns = mean_cells(curves)
    np.testing.assert_array_equal(columns["mask"].sum(axis=1), [2, 1])
    np.testing.assert_allclose(columns["value"][0, :2], [0.2, 0.8])
    np.testing.assert_allclose(columns["value"][1], 0.5)
    np.testing.assert_allclose(columns["first_value"], [0.2, 0.5])


@pytest.mark.parametrize("law", SINGLE)
def test_every_coordinate_is_bounded_and_of_a_known_kind(law):
    for parameter in LAWS[law].parameters:
        low, high = bounds(parameter)
        assert np.isfinite([low, high]).all() and low < TRUTH[parameter.name] < high
    assert {coordinate_kind(p) for p in LAWS["tempered"].parameters} == {"logit", "log shots", "log scale"}


def test_what_cannot_be_fitted_is_refused():
    zero_shots = probability_curves([0.2, 0.4], shots=[0.0, 4.0])
    with pytest.raises(InputError, match="LSQ-SHOTS"):
        fit_least_squares(zero_shots, "power")
    with pytest.raises(InputError, match="LSQ-JOINT"):
        fit_least_squares(zero_shots, next(law for law in LAWS.values() if law.joint))
    with pytest.raises(InputError, match="LSQ-STARTS"):
        fit_least_squares(zero_shots, "tempered", starts=0)
    with pytest.raises(InputError, match="did you mean"):
        fit_least_squares(zero_shots, "temperd")


@pytest.fixture(scope="module")
def protocol():
    path = ROOT / "benchmarks/icl_published_protocol.py"
    spec = importlib.util.spec_from_file_location("icl_published_protocol", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def accuracy(protocol):
    if not ACCURACY.exists():
        pytest.skip(f"the many-shot accuracy table is not at {ACCURACY}")
    return protocol.main_curves(str(ACCURACY))


def test_persistence_meets_its_anchors(protocol, accuracy):
    for share, anchor in zip((0.1, 0.2, 0.5), protocol.ANCHORS["persistence"], strict=False):
        assert protocol.persistence_scores(accuracy, share).mean() == pytest.approx(anchor, abs=6e-4)


def test_the_protocol_scores_the_published_number_of_curves(protocol, accuracy):
    assert [len(protocol.scored_curves(accuracy, share)) for share in protocol.SHARES] == [16, 21, 23, 23]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "tolerance"),
    [("linear", 1.5e-3), ("power", 1.5e-3), ("bounded_power", 1.5e-3), ("logistic", 1.5e-3), ("hill", 1.5e-3),
     ("log_shots", 8e-3), ("tempered", 8e-3)],
)  # fmt: skip
def test_published_anchors_are_met(protocol, accuracy, law, tolerance):
    for share, anchor in zip(protocol.SHARES, protocol.ANCHORS[law], strict=True):
        scores, _ = protocol.law_scores(accuracy, law, share)
        assert np.isnan(anchor) or scores.mean() == pytest.approx(anchor, abs=tolerance)
