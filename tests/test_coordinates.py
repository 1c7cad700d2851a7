"""A rise is told from scatter, and decides which coordinates a curve is sampled in."""

from __future__ import annotations

import numpy as np
import pytest

from bayesscale.inference.coordinates import FEWEST, shared_out, shows_rise
from bayesscale.laws import LAWS
from bayesscale.likelihood import BINOMIAL, LIKELIHOODS, with_discrepancy
from bayesscale.model import compose, level_target, own_target, target_of

RAMP = np.linspace(0.0, 1.0, 20)


def share_rising(height, curves=400):
    rng = np.random.default_rng(4)
    return np.mean([shows_rise(height * RAMP + rng.normal(0.0, 0.1, RAMP.size)) for _ in range(curves)])


def test_a_rise_is_told_from_scatter():
    """Of level curves few more rise than the one-sided 2.3% of two known standard errors; falls never do, clear rises always."""
    assert share_rising(0.0) < 0.08
    assert share_rising(-1.0) == 0.0
    assert share_rising(1.0) == 1.0


def test_curves_without_scatter():
    assert shows_rise(RAMP) and not shows_rise(np.ones(20)) and not shows_rise(-RAMP)


def test_a_few_rows_are_taken_to_rise():
    assert shows_rise(-RAMP[: FEWEST - 1])


def columns_of(values):
    """Units of four curves, padded with a row that would change the answer if it were looked at."""
    value = np.array([*(sign * RAMP for sign in (1.0, -1.0)), 0.0 * RAMP, RAMP])
    padded = np.concatenate([values * value, np.full((4, 9), -50.0 * values)], axis=1)
    return {"value": padded, "mask": np.arange(29)[None] < np.full((4, 1), 20)}


@pytest.mark.parametrize(
    ("law", "likelihood", "upward"), [("tempered", "binomial", 1.0), ("logistic", "normal_nll", -1.0)]
)
def test_units_are_shared_out_by_their_data(law, likelihood, upward):
    """An NLL rises downwards."""
    model = compose(LAWS[law], LIKELIHOODS[likelihood])
    shares = {target: units.tolist() for target, units in shared_out(model, columns_of(upward))}
    assert shares == {target_of(model): [0, 3], level_target(model): [1, 2]}
    assert len({target_of(model), level_target(model), own_target(model)}) == 3


def test_all_units_share_coordinates_where_no_others_serve():
    departing = compose(LAWS["tempered"], with_discrepancy(BINOMIAL))
    alike, none = (compose(LAWS[law], BINOMIAL) for law in ("hill", "broken_power"))
    for model in (departing, alike, none):
        assert [(target, len(units)) for target, units in shared_out(model, columns_of(1.0))] == [(target_of(model), 4)]
