"""Persistence: the last value stays, and the spread around it is the random walk the module states."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.persistence import TYPICAL_RATE, link_cells, movement_rate, persist

SHOTS = np.array([1.0, 5, 10, 50, 100])
ACCURACY = np.array([0.2, 0.4, 0.5, 0.6, 0.64])


def counts(*series, runs=1, trials=100):
    """One curve per series of accuracies, every run the same."""
    size = len(SHOTS) * runs
    return Curves(
        kind="counts",
        key_names=("task",),
        keys=tuple((f"t{i}",) for i in range(len(series))),
        curve=np.repeat(np.arange(len(series)), size),
        run=np.tile(np.repeat(np.arange(runs), len(SHOTS)), len(series)),
        shots=np.tile(SHOTS, runs * len(series)),
        columns={
            "successes": np.concatenate([np.tile(np.round(trials * np.asarray(p)), runs) for p in series]),
            "trials": np.full(size * len(series), float(trials)),
        },
        chance=np.full(len(series), np.nan),
    )


def measured(values, kind, shots=SHOTS, se=np.nan):
    size = len(values)
    return Curves(
        kind=kind,
        key_names=("task",),
        keys=(("t",),),
        curve=np.zeros(size, int),
        run=np.zeros(size, int),
        shots=shots,
        columns={"value": values, "se": np.broadcast_to(se, size)},
        chance=np.array([np.nan]),
    )


@pytest.mark.parametrize(
    ("train", "last", "link"),
    [
        (counts(ACCURACY), 0.64, logit),
        (measured(ACCURACY, "prob_mean", se=0.02), 0.64, logit),
        (measured(-np.log(ACCURACY), "nll_mean", se=0.05), -np.log(0.64), np.log),
    ],
    ids=["counts", "prob_mean", "nll_mean"],
)
def test_the_last_value_stays_and_the_spread_grows_with_log_shots(train, last, link):
    at = np.array([100.0, 200, 2000])
    (forecast,) = persist(train, at, draws=40_000)
    data = link_cells(train, 0)
    np.testing.assert_allclose(forecast.point, last)
    y = link(forecast.draws)
    assert forecast.draws.shape == (40_000, 3)
    variance = data.variance[-1] + movement_rate(data) * (np.log1p(at) - np.log1p(100.0))
    np.testing.assert_allclose(y.var(axis=0), variance, rtol=0.04)
    np.testing.assert_allclose(y.mean(axis=0), data.y[-1], atol=5 * np.sqrt(variance[-1] / 40_000))
    assert np.corrcoef(y[:, 1], y[:, 2])[0, 1] == pytest.approx(np.sqrt(variance[1] / variance[2]), abs=0.02)


def test_a_curves_draws_are_its_own_and_follow_the_seed():
    train = counts(ACCURACY, ACCURACY / 2)
    first, second = persist(train, [200.0], draws=5)
    (alone,) = persist(train.subset([1]), [200.0], draws=5)
    np.testing.assert_array_equal(second.draws, alone.draws)
    assert not np.array_equal(first.draws, second.draws)
    assert not np.array_equal(second.draws, persist(train, [200.0], draws=5, seed=1)[1].draws)


def test_the_order_of_the_points_does_not_matter():
    (up,) = persist(counts(ACCURACY), [150.0, 300.0], draws=4)
    (down,) = persist(counts(ACCURACY), [300.0, 150.0], draws=4)
    np.testing.assert_array_equal(up.draws, down.draws[:, ::-1])


def test_the_rate_of_a_random_walk_is_found():
    shots = np.expm1(np.arange(1, 400) * 0.6 / 10)
    walk = np.cumsum(np.random.default_rng(0).normal(0, 0.05 * np.sqrt(0.06), shots.size))
    train = measured(expit(walk), "prob_mean", shots=shots)
    np.testing.assert_allclose(movement_rate(link_cells(train, 0)), 0.05**2, rtol=1.0)


def test_noise_of_a_dense_curve_is_not_movement():
    shots = np.arange(1.0, 300)
    noisy = expit(np.random.default_rng(1).normal(0, 0.1, shots.size))
    assert movement_rate(link_cells(measured(noisy, "prob_mean", shots=shots), 0)) < TYPICAL_RATE


def test_few_cells_are_shrunk_to_a_typical_rate():
    one = measured([0.5], "prob_mean", shots=[1.0])
    assert movement_rate(link_cells(one, 0)) == TYPICAL_RATE
    flat = movement_rate(link_cells(measured(np.full(5, 0.5), "prob_mean"), 0))
    assert flat == pytest.approx(TYPICAL_RATE / 5)
    (forecast,) = persist(measured(np.full(5, 0.5), "prob_mean"), [1e4], draws=2000)
    assert 0.02 < forecast.draws.std() < 0.2


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_certain_curves_stay_finite(level):
    for train in (counts(np.full(5, level)), measured(np.full(5, level), "prob_mean")):
        (forecast,) = persist(train, [1000.0])
        assert np.isfinite(forecast.draws).all()
        np.testing.assert_array_equal(forecast.point, level)


def test_standard_errors_are_those_of_items_or_of_runs():
    shared_items = link_cells(counts(ACCURACY, runs=3), 0)
    np.testing.assert_allclose(shared_items.variance, 1 / (100 * ACCURACY * (1 - ACCURACY)), rtol=0.05)
    given = link_cells(measured([0.5, 2.0], "nll_mean", shots=[1.0, 2.0], se=[0.1, np.nan]), 0)
    np.testing.assert_allclose(given.variance, [0.04, 0.0])


def test_points_before_the_end_of_training_are_refused():
    with pytest.raises(InputError, match="PERSIST-SHOTS"):
        persist(counts(ACCURACY), [50.0])
