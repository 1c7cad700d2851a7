"""Curves: validated, canonical, selectable, and with a digest that depends on one curve's own data only."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bayesscale.curves import Curves
from bayesscale.finding import Finding, InputError

ROWS: dict[str, Any] = {
    "kind": "counts",
    "key_names": ("model", "task"),
    "keys": (("a", "x"), ("b", "x")),
    "curve": [1, 0, 0, 1, 0, 0],
    "run": [0, 0, 1, 0, 0, 0],
    "shots": [4.0, 2.0, 2.0, 1.0, 10.0, 1.0],
    "columns": {"successes": [7, 3, 4, 1, 9, 2], "trials": [10] * 6},
    "chance": [0.25, np.nan],
    "covariates": {"sft": [0.0, 1.5]},
}
VALUES = ROWS | {"kind": "prob_mean", "columns": {"value": [0.5] * 6, "se": [np.nan] * 5 + [0.1]}}


def changed(base: dict[str, Any] = ROWS, **changes: Any) -> dict[str, Any]:
    return base | changes


def counts(successes: list[float], trials: list[float] | None = None) -> dict[str, Any]:
    return changed(columns={"successes": successes, "trials": trials or [10.0] * 6})


def test_rows_are_sorted_by_curve_shots_run() -> None:
    curves = Curves(**ROWS)
    assert curves.curve.tolist() == [0, 0, 0, 0, 1, 1]
    assert curves.shots.tolist() == [1, 2, 2, 10, 1, 4]
    assert curves.run.tolist() == [0, 0, 1, 0, 0, 0]
    assert curves.column("successes").tolist() == [2, 3, 4, 9, 1, 7]


def test_size_names_and_repr() -> None:
    curves = Curves(**ROWS)
    assert len(curves) == 2
    assert curves.curve_name(1) == "b / x"
    assert repr(curves) == "<Curves: 2 of kind counts, 6 rows, by model, task>"


def test_arrays_are_read_only_and_apart_from_the_callers() -> None:
    shots = np.array(ROWS["shots"])
    curves = Curves(**changed(shots=shots))
    with pytest.raises(ValueError, match="read-only"):
        curves.shots[0] = 5
    shots[0] = 99
    assert curves.shots.max() == 10


BAD = {
    "unknown-kind": (changed(kind="accuracy"), "kind must be one of"),
    "columns-of-another-kind": (changed(kind="nll_mean"), "need the columns value, se"),
    "no-curves": (changed(keys=(), curve=[], run=[], shots=[], columns={"successes": [], "trials": []}), "no curves"),
    "key-name-twice": (changed(key_names=("model", "model")), "named twice"),
    "short-key": (changed(keys=(("a",), ("b", "x"))), "one text label for each"),
    "label-not-text": (changed(keys=((1, "x"), ("b", "x"))), "one text label for each"),
    "key-twice": (changed(keys=(("a", "x"), ("a", "x"))), "same key"),
    "shots-wrong-shape": (changed(shots=[1.0, 2.0]), r"shots must have shape \(6,\)"),
    "chance-wrong-shape": (changed(chance=[0.5]), r"chance must have shape \(2,\)"),
    "covariate-wrong-shape": (changed(covariates={"sft": [1.0]}), r"sft must have shape \(2,\)"),
    "shots-are-text": (changed(shots=["many"] * 6), "shots must hold numbers"),
    "run-fractional": (changed(run=[0.5] * 6), "run must hold whole numbers"),
    "curve-beyond-keys": (changed(curve=[0, 0, 1, 1, 2, 2]), "points beyond"),
    "curve-without-rows": (changed(curve=[0] * 6), "b / x - the curve has no rows"),
    "chance-one": (changed(chance=[1.0, 0.0]), "chance must lie in"),
    "covariate-nan": (changed(covariates={"sft": [np.nan, 0.0]}), "covariate sft must be finite"),
    "shots-negative": (changed(shots=[-1.0] * 6), "shots must be finite and at least 0"),
    "shots-nan": (changed(shots=[np.nan] * 6), "shots must be finite and at least 0"),
    "successes-nan": (counts([np.nan] * 6), "successes and trials must be finite"),
    "successes-fractional": (counts([0.5] * 6), "must be whole numbers"),
    "successes-negative": (counts([-1.0] * 6), "successes must be at least 0"),
    "successes-above-trials": (counts([11, 3, 4, 1, 9, 2]), "b / x shots=4 - successes must not exceed trials"),
    "no-trials": (counts([0.0] * 6, [0.0] * 6), "trials must be above 0"),
    "probability-above-one": (changed(VALUES, columns={"value": [1.1] * 6, "se": [0.1] * 6}), r"lie in \[0, 1\]"),
    "se-zero": (changed(VALUES, columns={"value": [0.1] * 6, "se": [0.0] * 6}), "se must be above 0"),
    "value-inf": (changed(VALUES, columns={"value": [np.inf] * 6, "se": [0.1] * 6}), "value must be finite"),
    "nll-negative": (
        changed(VALUES, kind="nll_mean", columns={"value": [-0.1] * 6, "se": [0.1] * 6}),
        "negative log-likelihood must be at least 0",
    ),
}


@pytest.mark.parametrize(("rows", "message"), BAD.values(), ids=BAD.keys())
def test_bad_curves_are_refused_in_a_sentence(rows: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Curves(**rows)


def test_unknown_column_is_refused() -> None:
    with pytest.raises(InputError, match="hold successes, trials, not 'nll'"):
        Curves(**ROWS).column("nll")


@pytest.mark.parametrize(
    "indices", [[1], np.array([False, True]), slice(1, 2), 1], ids=["list", "mask", "slice", "int"]
)
def test_subset_keeps_whole_curves(indices: Any) -> None:
    subset = Curves(**ROWS).subset(indices)
    assert subset.keys == (("b", "x"),)
    assert subset.shots.tolist() == [1, 4]
    assert subset.covariates["sft"].tolist() == [1.5]


def test_subset_follows_the_order_of_its_indices() -> None:
    curves = Curves(**ROWS)
    turned = curves.subset([1, 0])
    assert turned.keys == (("b", "x"), ("a", "x"))
    assert [turned.digest(0), turned.digest(1)] == [curves.digest(1), curves.digest(0)]


def test_subset_drops_findings_about_other_curves() -> None:
    about = [Finding("C", "warn", "odd", where=where) for where in ("a / x", "b / x", "runs.csv:3", "")]
    subset = Curves(**changed(findings=tuple(about))).subset([0])
    assert [finding.where for finding in subset.findings] == ["a / x", "runs.csv:3", ""]


def test_train_and_held_out_share_the_rows_by_each_curves_own_range() -> None:
    curves = Curves(**ROWS)
    train, held_out = curves.train(0.25), curves.held_out(0.25)
    assert curves.row_mask(0.25).tolist() == [True, True, True, False, True, False]
    assert train.shots.tolist() == [1, 2, 2, 1]
    assert held_out.shots.tolist() == [10, 4]


def test_a_curve_without_rows_left_drops_out() -> None:
    train = Curves(**ROWS).train(0.15)
    assert train.keys == (("a", "x"),)
    assert train.covariates["sft"].tolist() == [0.0]


def test_nothing_held_out_is_refused() -> None:
    with pytest.raises(InputError, match="no rows are left"):
        Curves(**ROWS).held_out(1.0)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="share must lie in"):
        Curves(**ROWS).train(share)


def test_a_share_is_not_lost_to_rounding() -> None:
    shots = np.arange(1.0, 101.0)
    columns = {"successes": np.zeros(100), "trials": np.ones(100)}
    one = changed(keys=(("a", "x"),), curve=[0] * 100, run=[0] * 100, shots=shots, columns=columns)
    curves = Curves(**one | {"chance": [0.5], "covariates": {}})
    assert [curves.train(k / 100).shots.size for k in range(1, 101)] == list(range(1, 101))


def test_digest_ignores_row_order() -> None:
    order = [3, 1, 5, 0, 2, 4]
    shuffled = {name: [ROWS[name][i] for i in order] for name in ("curve", "run", "shots")}
    columns = {name: [values[i] for i in order] for name, values in ROWS["columns"].items()}
    curves, again = Curves(**ROWS), Curves(**changed(columns=columns, **shuffled))
    assert [curves.digest(i) for i in (0, 1)] == [again.digest(i) for i in (0, 1)]


def test_digest_ignores_order_of_tied_rows() -> None:
    tied = {"curve": [0, 0, 1], "run": [0, 0, 0], "shots": [1.0, 1.0, 1.0]}
    one = Curves(**changed(columns={"successes": [1, 2, 3], "trials": [9] * 3}, **tied))
    two = Curves(**changed(columns={"successes": [2, 1, 3], "trials": [9] * 3}, **tied))
    assert one.digest(0) == two.digest(0)


def test_digest_ignores_neighbours_and_findings() -> None:
    curves = Curves(**ROWS)
    alone = replace(curves.subset([1]), findings=(Finding("C", "warn", "odd"),))
    assert alone.digest(0) == curves.digest(1)


def test_digest_ignores_the_sign_of_zero() -> None:
    zeros = [Curves(**changed(shots=[4.0, 2.0, 2.0, zero, 10.0, 1.0])) for zero in (0.0, -0.0)]
    assert zeros[0].digest(1) == zeros[1].digest(1)


OTHER_DATA = {
    "label": changed(keys=(("A", "x"), ("b", "x"))),
    "key-name": changed(key_names=("model", "dataset")),
    "shots": changed(shots=[4.0, 2.0, 2.0, 1.0, 11.0, 1.0]),
    "run": changed(run=[0, 0, 1, 0, 1, 0]),
    "successes": counts([7, 3, 4, 1, 8, 2]),
    "trials": counts([7, 3, 4, 1, 9, 2], [10, 10, 10, 10, 11, 10]),
    "chance": changed(chance=[0.5, np.nan]),
    "covariate": changed(covariates={"sft": [0.1, 1.5]}),
    "covariate-name": changed(covariates={"dpo": [0.0, 1.5]}),
}


@pytest.mark.parametrize("rows", OTHER_DATA.values(), ids=OTHER_DATA.keys())
def test_digest_changes_with_the_data(rows: dict[str, Any]) -> None:
    assert Curves(**rows).digest(0) != Curves(**ROWS).digest(0)


def test_digest_does_not_confuse_label_boundaries_or_kinds() -> None:
    joined = Curves(**changed(keys=(("a / x", ""), ("b", "x"))))
    assert joined.digest(0) != Curves(**ROWS).digest(0)
    columns = {"value": [0.5] * 6, "se": [0.1] * 6}
    kinds = [Curves(**changed(kind=kind, columns=columns)).digest(0) for kind in ("prob_mean", "nll_mean")]
    assert kinds[0] != kinds[1]


def test_digest_is_the_same_everywhere() -> None:
    """A digest stored yesterday must still name the same data; a change here needs a new format number."""
    assert Curves(**ROWS).digest(0) == "baee68f190e78e797aa275efe343b3d783477ac71bd61c427a90665b8afe825a"


def columns_of(curves: Curves) -> dict[str, Any]:
    return {"counts": {"successes": "successes", "trials": "trials"}, "prob_mean": {"prob": "value", "se": "se"}}.get(
        curves.kind, {"nll": "value", "se": "se"}
    )


@pytest.mark.parametrize("rows", [ROWS, VALUES, VALUES | {"kind": "nll_mean"}], ids=["counts", "prob", "nll"])
def test_frame_round_trip(rows: dict[str, Any]) -> None:
    curves = Curves(**rows)
    again = Curves.from_frame(
        curves.to_frame().sample(frac=1, random_state=0),
        curve=["model", "task"],
        run="run",
        chance="chance",
        covariates=["sft"],
        **columns_of(curves),
    )
    assert again.keys == curves.keys
    assert [again.digest(i) for i in (0, 1)] == [curves.digest(i) for i in (0, 1)]


def test_frame_round_trip_of_a_numeric_condition() -> None:
    keys = (("a", "0.50"), ("a", "10"))
    curves = Curves(**changed(key_names=("model", "sft"), keys=keys, covariates={"sft": [0.5, 10.0]}))
    frame = curves.to_frame()
    assert frame.columns.tolist() == ["model", "sft", "run", "shots", "successes", "trials", "chance"]
    again = Curves.from_frame(
        frame, curve=["model"], condition="sft", run="run", chance="chance", successes="successes", trials="trials"
    )
    assert [again.digest(i) for i in (0, 1)] == [curves.digest(i) for i in (0, 1)]


def test_frame_keeps_a_key_that_takes_a_column_name() -> None:
    frame = Curves(**changed(key_names=("model", "run"))).to_frame()
    assert {"run", "run_"} <= set(frame.columns)


def test_module_needs_no_data_or_plot_library() -> None:
    heavy = ("pandas", "pyarrow", "scipy", "matplotlib", "arviz")
    script = f"import sys, bayesscale.curves; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
