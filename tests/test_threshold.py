"""Crossings of a threshold: by hand, and against the law turned around draw by draw."""

import numpy as np
import pytest
from scipy.special import expit

from bayesscale.curves import Curves
from bayesscale.decisions.threshold import GRID_POINTS, Crossing, crossing, first_crossing, value_at, value_of_doubling
from bayesscale.finding import InputError
from bayesscale.laws import LAWS
from bayesscale.likelihood import LOG_NORMAL, QUASI_BINOMIAL
from bayesscale.model import compose
from bayesscale.result import Fit
from bayesscale.units import units_of

SHOTS = np.array([0.0, 1, 2, 5, 10, 20, 50, 100])
THRESHOLD = 0.55


def made_fit(kind):
    """A Hill law with known draws, some of whose ceilings lie below the threshold and some of whose floors above."""
    rng, size = np.random.default_rng(4), (2, 200)
    likelihood = LOG_NORMAL if kind == "nll_mean" else QUASI_BINOMIAL
    p = 0.2 + 0.6 * SHOTS / (SHOTS + 10)
    counts = {"successes": np.round(100 * p), "trials": np.full(8, 100)}
    columns = counts if kind == "counts" else {"value": -np.log(p), "se": np.full(8, 0.02)}
    curves = Curves(kind, ("task",), (("t",),), np.zeros(8), np.zeros(8), SHOTS, columns, [np.nan])
    draws = {
        "logit_ceiling": rng.normal(1.0, 0.6, size),
        "logit_zero_ratio": rng.normal(0.0, 1.0, size),
        "log_n50": rng.normal(2.5, 1.0, size),
        "log_slope": rng.normal(0.2, 0.2, size),
    }
    draws |= {p.name: np.full(size, -1.0) for p in likelihood.parameters}
    unit = units_of(curves, likelihood)
    return Fit(compose(LAWS["hill"], likelihood), unit, draws, {}, {}, {}, np.zeros((*size, unit.rows)))


@pytest.fixture(scope="module", params=["counts", "nll_mean"])
def fit(request):
    return made_fit(request.param)


@pytest.fixture(scope="module")
def found(fit):
    return crossing(fit, level(fit), kind="law")


def level(fit):
    """The threshold on the fit's own scale; an NLL falls through it where the probability rises."""
    return -np.log(THRESHOLD) if fit.model.likelihood.kind == "nll_mean" else THRESHOLD


def inverted(fit):
    """Shots where each draw's law is at the threshold, by the inverse of the Hill law; and the ceilings."""
    theta = fit.theta()
    top = expit(theta["logit_ceiling"])
    floor = top * expit(theta["logit_zero_ratio"])
    with np.errstate(invalid="ignore", divide="ignore"):
        odds = np.log((THRESHOLD - floor) / (top - THRESHOLD))
        shots = np.exp(theta["log_n50"] + odds / np.exp(theta["log_slope"]))
    return np.where(floor >= THRESHOLD, 0.0, np.where(top > THRESHOLD, shots, np.inf)), top


# By hand --------------------------------------------------------------------------------------------------------------

GRID = np.array([0.0, 1.0, 3.0, 7.0])  # equal steps of log(1 + n)


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([0.0, 0.2, 0.4, 0.8], np.sqrt(2) * 4 - 1),  # half way from 3 to 7 on the log axis
        ([0.0, 0.2, 0.6, 0.8], 3.0),  # exactly at a point
        ([0.6, 0.7, 0.8, 0.9], 0.0),  # before the first
        ([0.0, 0.1, 0.2, 0.3], np.inf),  # never
        ([0.0, 0.8, 0.1, 0.9], 2**0.75 - 1),  # the first of two
        ([0.7, 0.1, 0.1, 0.1], 0.0),
        ([0.6, 0.6, 0.6, 0.6], 0.0),
    ],
)
def test_first_crossing(values, want):
    assert first_crossing(GRID, np.array([values]), 0.6)[0] == pytest.approx(want, abs=1e-12)


def test_first_crossings_of_many_draws_are_apart():
    values = np.array([[0.0, 0.2, 0.6, 0.8], [0.0, 0.1, 0.2, 0.3], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(first_crossing(GRID, values, 0.6), [3.0, np.inf, 0.0], atol=1e-12)


# Against the inverse --------------------------------------------------------------------------------------------------


def test_crossings_are_the_inverted_law(fit, found):
    want, top = inverted(fit)
    want = np.where(want > found.horizon, np.inf, want)
    assert {0.0, np.inf} < set(want)  # the made-up draws hold every case
    np.testing.assert_array_equal(np.isinf(found.shots), np.isinf(want))
    finite = np.isfinite(want)
    error = np.log1p(found.shots[finite]) - np.log1p(want[finite])
    assert np.abs(error).max() < 0.2 * np.log1p(found.horizon) / GRID_POINTS  # interpolation inside one grid step
    assert found.horizon == 10_000 and found.observed_up_to == 100
    assert found.probability_beyond_horizon == np.isinf(want).mean()
    assert found.probability_never == pytest.approx((top < THRESHOLD).mean(), abs=0.01)
    assert found.probability_never <= found.probability_beyond_horizon


def test_mean_without_a_departure_is_the_law(fit, found):
    np.testing.assert_array_equal(crossing(fit, level(fit)).shots, found.shots)


def test_a_nearer_horizon_only_cuts(fit, found):
    near = crossing(fit, level(fit), kind="law", horizon=30.0)
    np.testing.assert_array_equal(np.isinf(near.shots), ~(found.shots <= 30.0))
    assert near.probability_never == found.probability_never


def test_quantiles_and_flags(found):
    row = found.row()
    ordered = np.sort(found.shots)
    assert (
        row["median_shots"] == ordered[200] and row["eti90_lower"] == ordered[20] and row["eti50_upper"] == ordered[300]
    )
    assert row["p_within_data"] == (found.shots <= 100).mean()
    assert not row["extrapolated"] and "extrapolation" not in str(found)
    assert np.isinf(row["eti90_upper"]) and "inf" in str(found)


@pytest.mark.parametrize(("shots", "beyond"), [((50.0, 80.0, 300.0), False), ((50.0, 200.0, np.inf), True)])
def test_a_median_beyond_the_data_is_marked(shots, beyond):
    one = Crossing("c", "hill", 0.5, np.array(shots), 10_000.0, 0.0, observed_up_to=100.0)
    assert one.row()["extrapolated"] == beyond == ("(an extrapolation)" in str(one))
    assert one.row()["p_within_data"] == pytest.approx(1 / 3 if beyond else 2 / 3)


def test_a_level_above_every_ceiling_is_never_reached(fit):
    never = crossing(fit, 0.001 if fit.model.likelihood.kind == "nll_mean" else 0.999, kind="law")
    assert never.probability_never == 1.0 and never.probability_beyond_horizon == 1.0
    assert never.row()["extrapolated"] and "probably not within" in str(never)


# Values ---------------------------------------------------------------------------------------------------------------


def test_doubling_helps_a_rising_curve(fit):
    falling = fit.model.likelihood.kind == "nll_mean"
    table = value_of_doubling(fit, [10.0, 100.0])
    change = table["mean_change"].to_numpy()
    assert (change < 0).all() if falling else (change > 0).all()
    assert (table["p_better"] == 1.0).all()
    assert list(table["doubled"]) == [20.0, 200.0] and list(table["extrapolated"]) == [False, True]
    assert list(table["horizon"]) == [0.2, 2.0]
    assert (table["eti90_lower"] <= table["eti50_lower"]).all() and (table["median"] <= table["eti90_upper"]).all()


def test_doubling_is_the_difference_of_the_means(fit):
    table = value_of_doubling(fit)
    at = value_at(fit, [100.0, 200.0])
    assert table["mean_change"][0] == pytest.approx(at["mean"][1] - at["mean"][0])
    assert list(at["extrapolated"]) == [False, True] and list(at["horizon"]) == [1.0, 2.0]


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "threshold", "options"),
    [
        ("THRESHOLD", 0.0, {}),
        ("THRESHOLD", -0.2, {}),
        ("THRESHOLD", np.nan, {}),
        ("THRESHOLD-KIND", 0.5, {"kind": "new_run"}),
        ("THRESHOLD-KIND", 0.5, {"kind": "median"}),
        ("HORIZON", 0.5, {"horizon": 1.0}),
        ("HORIZON", 0.5, {"horizon": np.nan}),
    ],
)
def test_refusals(fit, code, threshold, options):
    with pytest.raises(InputError, match=rf"^{code} "):
        crossing(fit, threshold, **options)


@pytest.mark.parametrize("threshold", [1.0, 1.5])
def test_a_probability_has_to_stay_inside(threshold):
    with pytest.raises(InputError, match="^THRESHOLD "):
        crossing(made_fit("counts"), threshold)
