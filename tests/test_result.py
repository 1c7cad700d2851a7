"""A fit as a value: kept and read back, summarised, and asked for predictions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import expit

from bayesscale.curves import Curves
from bayesscale.draws import QUANTILES, contraction, summary_table
from bayesscale.finding import Finding, InputError
from bayesscale.fitting import fit
from bayesscale.inference.settings import Sampler
from bayesscale.likelihood import LIKELIHOODS, QUASI_BINOMIAL, with_discrepancy
from bayesscale.result import likelihood_of, load, with_findings

TINY = Sampler(chains=2, draws=80, warmup=(30, 30), tiers=0, keep=80, lanes=24, starts=4)
SHOTS = np.array([0.0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
AT = [0.0, 3.0, 1000.0, 3.0, 1e4, 1e5]
KINDS = ("law", "mean", "new_observation", "new_run")


@pytest.fixture(scope="module")
def one():
    """One curve of three runs under the Hill law, with a discrepancy."""
    rng, runs = np.random.default_rng(6), 3
    n, run = np.tile(SHOTS, runs), np.repeat(np.arange(runs), len(SHOTS))
    p = 0.3 + 0.5 * n / (n + 15)
    noisy = expit(np.log(p / (1 - p)) + 0.25 * rng.normal(size=(runs, 1)).repeat(len(SHOTS), 1).ravel())
    columns = {"successes": rng.binomial(100, noisy), "trials": np.full(n.size, 100)}
    curves = Curves("counts", ("model", "task"), (("m é", "t"),), np.zeros(n.size), run, n, columns, [np.nan])
    return with_findings(fit(curves, "hill", sampler=TINY), [Finding("DOUBT", "warn", "é", "look", "n50")])


@pytest.fixture(scope="module")
def predicted(one):
    return {kind: one.predict(AT, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def saved(one, tmp_path_factory):
    return one.save(tmp_path_factory.mktemp("fits") / "one.nc")


# Kept -----------------------------------------------------------------------------------------------------------------


def test_a_fit_read_back_is_the_fit(one, saved):
    back = load(saved)
    pd.testing.assert_frame_equal(back.summary(), one.summary(), check_exact=True)
    assert (back.name, back.status, back.findings) == (one.name, one.status, one.findings)
    assert back.model is one.model and back.provenance == one.provenance
    assert back.unit.digests == one.unit.digests and back.unit.members == one.unit.members
    assert set(back.unit.columns) == set(one.unit.columns)
    for name, column in one.unit.columns.items():
        np.testing.assert_array_equal(back.unit.columns[name], column, err_msg=name)
    for group in ("draws", "prior", "stats"):
        for name, values in getattr(one, group).items():
            np.testing.assert_array_equal(getattr(back, group)[name], values, err_msg=name)
    seen = one.unit.columns["mask"][0] > 0
    np.testing.assert_array_equal(back.log_likelihood[..., seen], one.log_likelihood[..., seen])


def test_a_fit_read_back_predicts_to_the_bit(saved, predicted):
    back = load(saved)
    for kind, want in predicted.items():
        np.testing.assert_array_equal(back.predict(AT, kind).draws, want.draws)


def test_saving_again_replaces_and_leaves_nothing_beside(one, saved):
    one.save(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["one.nc"]
    assert load(saved).name == "m é / t"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95, 0.999])
def test_a_truncated_file_is_refused(saved, tmp_path, share):
    whole, path = saved.read_bytes(), tmp_path / "cut.nc"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="FIT-UNREADABLE"):
        load(path)


def test_what_is_no_fit_is_refused(tmp_path):
    (tmp_path / "text.nc").write_text("curve,law\n", encoding="utf-8")
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    for name in ("text.nc", "other.nc"):
        with pytest.raises(InputError, match="FIT-UNREADABLE"):
            load(tmp_path / name)
    with pytest.raises(InputError, match="FIT-MISSING"):
        load(tmp_path / "none.nc")


@pytest.mark.parametrize("group", ["posterior", "prior", "log_likelihood", "constant_data", "sample_stats"])
def test_a_file_that_lacks_a_part_is_refused(one, tmp_path, group):
    tree = one.tree.copy()
    del tree[group]
    tree.to_netcdf(tmp_path / "part.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="FIT-UNREADABLE"):
        load(tmp_path / "part.nc")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf closing what it never opened
def test_damaged_bytes_are_refused_or_do_no_harm(saved, tmp_path):
    """Single bytes overwritten all over the file: refused as input, or read; never another kind of error."""
    whole, path, rng = saved.read_bytes(), tmp_path / "damaged.nc", np.random.default_rng(0)
    refused = 0
    for place in (*range(0, 200, 8), *rng.integers(0, len(whole), 40)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load(path)
        except InputError:
            refused += 1
    assert refused > 5


def test_a_law_outside_the_table_has_to_be_passed(one, tmp_path):
    own = replace(one.law, name="my_law")
    path = replace(one, model=replace(one.model, law=own)).save(tmp_path / "own.nc")
    with pytest.raises(InputError, match="FIT-LAW"):
        load(path)
    assert load(path, law=own).law is own


def test_a_likelihood_outside_the_table_has_to_be_passed(one, saved, tmp_path):
    own = replace(one.model.likelihood, name="my_likelihood")
    path = replace(one, model=replace(one.model, likelihood=own)).save(tmp_path / "own.nc")
    with pytest.raises(InputError, match="FIT-LIKELIHOOD"):
        load(path)
    again = load(path, likelihood=own)
    assert again.model.likelihood.name == "my_likelihood"
    np.testing.assert_array_equal(again.predict([3.0]).draws, load(saved).predict([3.0]).draws)


def test_likelihoods_are_told_apart_by_more_than_their_name():
    """Equal ones are one object, so that what was compiled is found again; one with other priors is itself."""
    assert likelihood_of(with_discrepancy(QUASI_BINOMIAL)) is likelihood_of(with_discrepancy(QUASI_BINOMIAL))
    assert len({id(likelihood_of(one)) for one in LIKELIHOODS.values()}) == len(LIKELIHOODS)
    tight = replace(QUASI_BINOMIAL, parameters=tuple(replace(p, spread=0.1) for p in QUASI_BINOMIAL.parameters))
    assert likelihood_of(tight) is tight and likelihood_of(QUASI_BINOMIAL) is not tight


def test_tree_holds_the_groups_arviz_looks_for(one):
    tree = one.tree
    groups = {"posterior", "prior", "sample_stats", "log_likelihood", "observed_data", "constant_data"}
    assert groups <= set(tree.children)
    assert tree["posterior"]["n50"].dims == ("chain", "draw") and tree["posterior"]["n50"].shape == (2, 80)
    assert tree["log_likelihood"]["value"].shape == (2, 80, len(SHOTS))
    np.testing.assert_array_equal(tree["observed_data"]["value"], one.unit.columns["value"][0, : len(SHOTS)])
    assert {"diverging", "energy", "lp"} <= set(tree["sample_stats"].data_vars)


# Summary --------------------------------------------------------------------------------------------------------------


def test_summary_has_a_row_per_scalar_with_its_quantiles(one):
    table = one.summary()
    assert list(table["parameter"]) == list(one.draws)
    assert list(table.columns) == [
        "curve", "law", "parameter", "mean", "sd", "q05", "q25", "q50", "q75", "q95",
        "r_hat", "ess_bulk", "ess_tail", "contraction", "findings",
    ]  # fmt: skip
    row = table.set_index("parameter").loc["n50"]
    draws = one.draws["n50"].ravel()
    assert row["mean"] == draws.mean() and row["sd"] == draws.std(ddof=1)
    np.testing.assert_array_equal(row[["q05", "q25", "q50", "q75", "q95"]], np.quantile(draws, QUANTILES))
    assert "DOUBT" in row["findings"] and "NOT-IDENTIFIED" not in row["findings"]
    assert (table["contraction"] <= 1).all()


@pytest.mark.parametrize(
    ("grades", "status"), [((), "ok"), (("info",), "ok"), (("warn", "info"), "warn"), (("warn", "fail"), "fail")]
)
def test_status_is_the_worst_finding(one, grades, status):
    assert replace(one, findings=tuple(Finding("X", grade, "") for grade in grades)).status == status


@pytest.mark.parametrize(
    "scale", [lambda x: x, np.exp, lambda x: -(x**3), expit], ids=["as is", "exp", "-cube", "expit"]
)
def test_contraction_does_not_depend_on_the_scale(scale):
    rng = np.random.default_rng(0)
    prior, posterior = rng.normal(size=4000), 0.5 + 0.3 * rng.normal(size=2000)
    assert contraction(scale(prior), scale(prior)) == pytest.approx(0.0, abs=0.01)
    assert contraction(scale(posterior), scale(prior)) == pytest.approx(1 - 0.3**2, abs=0.02)
    assert contraction(scale(1e-3 * posterior), scale(prior)) > 0.999


def test_contraction_is_not_a_number_where_there_is_none():
    draws = np.random.default_rng(1).normal(size=100)
    for posterior, prior in ((draws, np.ones(50)), (np.append(draws, np.nan), draws), (draws, np.full(9, np.nan))):
        assert np.isnan(contraction(posterior, prior))


# Predictions ----------------------------------------------------------------------------------------------------------


def test_points_come_back_in_the_order_asked_for(one, predicted):
    for kind, prediction in predicted.items():
        assert prediction.draws.shape == (160, len(AT)) and prediction.kind == kind
        assert ((prediction.draws > 0) & (prediction.draws < 1)).all()
        np.testing.assert_array_equal(prediction.shots, AT)
        np.testing.assert_allclose(prediction.horizon, np.array(AT) / 1000)
    np.testing.assert_array_equal(predicted["law"].draws[:, 1], predicted["law"].draws[:, 3])
    np.testing.assert_allclose(predicted["mean"].draws[:, 1], predicted["mean"].draws[:, 3], atol=1e-4)  # one path
    assert (predicted["new_run"].draws[:, 1] != predicted["new_run"].draws[:, 3]).all()  # two measurements
    centre = np.median(predicted["mean"].draws, axis=0)
    assert centre[0] < centre[1] < centre[2]


def test_law_is_the_laws_own_formula(one, predicted):
    theta = {name: x[:, None] for name, x in one.theta().items()}
    top = expit(theta["logit_ceiling"])
    floor = top * expit(theta["logit_zero_ratio"])
    with np.errstate(divide="ignore"):
        want = floor + (top - floor) * expit(np.exp(theta["log_slope"]) * (np.log(AT) - theta["log_n50"]))
    np.testing.assert_allclose(predicted["law"].draws, want, rtol=1e-8)


def test_what_is_less_certain_is_wider(predicted):
    """A curve leaves its law as a path from zero shots on; a measurement adds noise, and more of it with fewer runs."""
    spread = {kind: np.diff(p.interval(0.9), axis=0)[0] for kind, p in predicted.items()}
    np.testing.assert_allclose(predicted["mean"].draws[:, 0], predicted["law"].draws[:, 0], atol=1e-5)
    # Where there are data they say more about law and departure together than about the law alone; far beyond, less so.
    share = spread["mean"] / spread["law"]
    assert share[2] < 0.9 and share[2] < share[4] < share[5]
    assert (spread["new_observation"] > 0.9 * spread["mean"]).all()
    assert (spread["new_run"] > spread["new_observation"]).all()
    assert spread["mean"][5] > spread["mean"][2]


def test_the_same_seed_gives_the_same_draws(one, predicted):
    np.testing.assert_array_equal(one.predict(AT, "mean").draws, predicted["mean"].draws)
    assert (one.predict(AT, "mean", seed=1).draws != predicted["mean"].draws).any()


def test_prediction_as_a_table(predicted):
    table = predicted["mean"].table()
    assert list(table.columns) == [
        "curve", "estimand", "shots", "mean", "eti90_lower", "eti50_lower", "median", "eti50_upper", "eti90_upper",
        "horizon", "extrapolated",
    ]  # fmt: skip
    assert list(table["extrapolated"]) == [False, False, False, False, True, True]
    np.testing.assert_allclose(table[["eti90_lower", "eti90_upper"]].T, predicted["mean"].interval(0.9))


def test_a_task_that_is_not_there_is_refused(one):
    with pytest.raises(InputError, match="PREDICT-TASK"):
        one.predict([1.0], task=1)


@pytest.mark.parametrize(
    ("code", "at", "kind"),
    [
        ("PREDICT-KIND", [1.0], "median"),
        ("PREDICT-SHOTS", [-1.0], "mean"),
        ("PREDICT-SHOTS", [np.nan], "mean"),
        ("PREDICT-SHOTS", [np.inf, 1.0], "law"),
    ],
)
def test_refused_predictions(one, code, at, kind):
    with pytest.raises(InputError, match=code):
        one.predict(at, kind)


def test_a_constant_is_summarised_even_if_it_is_infinite():
    values, prior = {"tail_index": np.full((2, 50), np.inf)}, {"tail_index": np.full(10, np.inf)}
    nothing = {"tail_index": {key: np.array(np.nan) for key in ("r_hat", "ess_bulk", "ess_tail")}}
    (row,) = summary_table(values, prior, nothing, ()).to_dict("records")
    assert row["q05"] == row["mean"] == np.inf and row["sd"] == 0
