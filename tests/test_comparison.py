"""Comparison of forecasts: its errors, weights and words."""

import numpy as np
import pytest

from bayesscale.comparison import clustered_se, clusters_of, compare, pit_values, score_table, stacking_weights
from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.holdout import Forecast
from bayesscale.scoring import crps

SHOTS = np.array([50.0, 100.0, 200.0])


def curves_of(models=3, tasks=4):
    """One point per curve: only the keys matter here."""
    keys = tuple((f"m{i}", f"t{j}") for i in range(models) for j in range(tasks))
    n = len(keys)
    columns = {"successes": np.full(n, 5.0), "trials": np.full(n, 10.0)}
    return Curves("counts", ("model", "task"), keys, np.arange(n), np.zeros(n), np.ones(n), columns, np.full(n, np.nan))


def forecast(curve, predictor, *, off=0.0, share=0.5, log_score=0.0, spread=0.05, status="ok"):
    """A forecast whose centre lies `off` beside what was observed."""
    rng = np.random.default_rng([curve, round(1000 * off) + 10_000])
    observed = np.array([0.5, 0.6, 0.7])
    mean = np.repeat((observed + off)[None], 100, axis=0)
    draws = mean + spread * rng.standard_normal((400, 3))[:100]
    score = np.zeros(3) + log_score
    return Forecast(curve, f"c{curve}", predictor, share, SHOTS, observed, mean, draws, score, status, 100.0)


def ladder(curves, **offs):
    """Forecasts of every curve by each predictor, its centre off by a little more or less from curve to curve."""
    return [forecast(i, law, off=off * (1 + 0.1 * (i % 5))) for law, off in offs.items() for i in range(len(curves))]


# Standard errors ------------------------------------------------------------------------------------------------------


def test_without_clusters_it_is_the_plain_standard_error():
    x = np.random.default_rng(0).normal(size=12)
    want = x.std(ddof=1) / np.sqrt(12)
    assert clustered_se(x, ()) == pytest.approx(want)
    assert clustered_se(x, [np.arange(12)]) == pytest.approx(want)  # every curve its own cluster
    assert np.isnan(clustered_se(x[:1], ()))


def test_one_way_is_the_error_of_cluster_sums():
    x, labels = np.random.default_rng(1).normal(size=10), np.repeat(np.arange(5), 2)
    sums = x.reshape(5, 2).sum(axis=1) - 2 * x.mean()
    assert clustered_se(x, [labels]) == pytest.approx(np.sqrt((sums**2).sum() / 100 * 5 / 4))


@pytest.mark.parametrize(("by_model", "by_task"), [(1.0, 1.0), (2.0, 0.0), (0.0, 1.5)])
def test_two_ways_recover_the_error_of_shared_effects(by_model, by_task):
    """x_ij = a_i + b_j + e_ij: the variance of the mean is that of the shared effects; the plain error misses it."""
    rng, size, times = np.random.default_rng(2), 20, 1500
    x = by_model * rng.normal(size=(times, size, 1)) + by_task * rng.normal(size=(times, 1, size))
    x = (x + rng.normal(size=(times, size, size))).reshape(times, -1)
    ways = [np.repeat(np.arange(size), size), np.tile(np.arange(size), size)]
    actual = x.mean(axis=1).std()
    two, plain = (np.sqrt(np.mean([clustered_se(row, labels) ** 2 for row in x])) for labels in (ways, ()))
    assert two == pytest.approx(actual, rel=0.08)
    assert plain < 0.5 * actual


def test_only_keys_that_repeat_make_clusters():
    labels = clusters_of(curves_of(2, 3), np.arange(6))
    np.testing.assert_array_equal(labels, [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]])
    assert len(clusters_of(curves_of(1, 4), np.arange(4))) == 0
    np.testing.assert_array_equal(clusters_of(curves_of(2, 3), np.array([0, 3, 4])), [[0, 1, 1], [0, 0, 1]])


# Weights --------------------------------------------------------------------------------------------------------------


def test_stacking_gives_the_better_law_the_weight():
    forecasts = [forecast(i, law, log_score=s) for i in range(4) for law, s in (("good", 0.0), ("bad", -1.0))]
    weights = stacking_weights(forecasts, ["good", "bad"], set(range(4)))
    assert weights["good"] > 0.95 and sum(weights.values()) == pytest.approx(1)


def test_stacking_of_identical_forecasts_is_on_the_simplex():
    forecasts = [forecast(i, law) for i in range(4) for law in "abc"]
    weights = stacking_weights(forecasts, list("abc"), set(range(4)))
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= 0


def test_stacking_mixes_laws_that_complement_each_other():
    """Each law is right on half of the rows: by symmetry the weights are equal, and better than either alone."""
    scores = {"a": (0.0, -3.0), "b": (-3.0, 0.0)}
    forecasts = [forecast(i, law, log_score=scores[law][i % 2]) for i in range(6) for law in scores]
    weights = stacking_weights(forecasts, ["a", "b"], set(range(6)))
    assert weights["a"] == pytest.approx(0.5, abs=0.01)


def test_stacking_survives_scores_far_down():
    forecasts = [forecast(i, law, log_score=s) for i in range(3) for law, s in (("a", -5000.0), ("b", -2.0))]
    forecasts += [forecast(3, "a", log_score=-2.0), forecast(3, "b", log_score=-np.inf)]
    weights = stacking_weights(forecasts, ["a", "b"], set(range(4)))
    assert weights["b"] == pytest.approx(0.75, abs=0.02)


# Table and sentence ---------------------------------------------------------------------------------------------------


def test_scores_are_averages_over_the_curves_rows():
    f = forecast(0, "law", off=0.03, log_score=1.5)
    row = score_table([f]).iloc[0]
    points = crps(f.observation, f.observed)
    assert row["crps"] == pytest.approx(points.mean()) and row["log_score"] == 1.5 and row["rows"] == 3
    assert row["crps_within"] == pytest.approx(points[:2].mean()) and row["crps_beyond"] == pytest.approx(points[2])
    assert row["rows_beyond"] == 1
    assert row["nrmse"] == pytest.approx(0.03 / 0.6)
    assert pit_values([f, f]).shape == (6,)


@pytest.mark.parametrize("metric", ["crps", "nrmse"])
def test_best_comes_first_and_differences_are_paired(metric):
    curves = curves_of()
    found = compare(ladder(curves, middle=0.1, best=0.01, worst=0.3), curves, metric=metric)
    assert list(found.table["law"]) == ["best", "middle", "worst"] and found.reference == "best"
    wide = score_table(ladder(curves, middle=0.1, best=0.01, worst=0.3)).pivot(
        index="curve_index", columns="law", values=metric
    )
    difference = (wide["best"] - wide["middle"]).to_numpy()
    row = found.table.set_index("law").loc["middle"]
    assert row["difference"] == pytest.approx(difference.mean()) and row["difference"] < 0
    assert row["se"] == pytest.approx(clustered_se(difference, clusters_of(curves, np.arange(len(curves)))))
    assert row["wins"] == 0 and row["n_curves"] == len(curves)
    assert "best predicts best" in found.sentence and "clearly ahead of middle" in found.sentence


def test_a_higher_log_score_is_better():
    curves = curves_of()
    forecasts = [forecast(i, law, log_score=s) for i in range(12) for law, s in (("low", -2.0), ("high", 1.0))]
    found = compare(forecasts, curves, metric="log_score")
    assert found.reference == "high" and found.table["difference"].iloc[1] == pytest.approx(-3.0)


def test_the_reference_can_be_named():
    curves = curves_of()
    found = compare(ladder(curves, a=0.01, b=0.2), curves, reference="b")
    table = found.table.set_index("law")
    assert table.loc["a", "difference"] > 0 and table.loc["a", "wins"] == 12 and table.loc["b", "difference"] == 0


def test_persistence_at_the_top_is_said():
    curves = curves_of()
    assert "No law beats" in compare(ladder(curves, hill=0.2, persistence=0.01), curves).sentence
    other = compare(ladder(curves, hill=0.01, persistence=0.2), curves).sentence
    assert "No law beats" not in other and "Persistence (the last value stays) has" in other


def test_a_small_difference_is_not_called_clear():
    curves, rng = curves_of(), np.random.default_rng(3)
    near = [forecast(i, law, off=0.1 + 0.05 * rng.normal()) for law in ("a", "b") for i in range(12)]
    assert "not clearly ahead" in compare(near, curves).sentence
    assert "lower bounds" in compare(near, curves).sentence


def test_only_curves_every_law_forecast_are_compared():
    curves = curves_of()
    forecasts = [f for f in ladder(curves, a=0.01, b=0.2) if f.predictor == "a" or f.curve < 5]
    forecasts += [forecast(0, "a", share=0.2), forecast(0, "b", share=0.2)]
    assert (compare(forecasts, curves).table["n_curves"] == 5).all()
    assert (compare(forecasts, curves, share=0.2).table["n_curves"] == 1).all()


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("METRIC-UNKNOWN", {"metric": "mse"}),
        ("SHARE-UNKNOWN", {"share": 0.1}),
        ("REFERENCE-UNKNOWN", {"reference": "hall"}),
    ],
)
def test_what_cannot_be_compared_is_refused(code, options):
    curves = curves_of()
    with pytest.raises(InputError, match=code):
        compare(ladder(curves, hill=0.1, power=0.2), curves, **options)


@pytest.mark.parametrize("forecasts", [[], [forecast(0, "a"), forecast(1, "b")]])
def test_nothing_in_common_is_refused(forecasts):
    with pytest.raises(InputError, match="NOTHING-TO-COMPARE"):
        compare(forecasts, curves_of())
