"""The job behind `fit`: its folder, its accounts, and a verdict that is the library's."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import bayesscale
from bayesscale.cli.fitting import exit_code
from bayesscale.cli.printing import print_findings, print_verdicts
from bayesscale.cli.screen import Plain
from bayesscale.comparison import compare, score_table
from bayesscale.curves import Curves
from bayesscale.finding import Finding, InputError
from bayesscale.fitting import Skipped
from bayesscale.holdout import Evaluation, Forecast
from bayesscale.laws import LAWS
from bayesscale.runs.demo import CURVES, THRESHOLD, demo_curves, true_crossing
from bayesscale.runs.folder import FORMAT, check_folder, replacing, slug
from bayesscale.runs.job import Settings
from bayesscale.runs.planning import chunk_size
from bayesscale.runs.stored import StoredRun, write_csv
from bayesscale.runs.tables import (
    comparison_table,
    findings_table,
    forecast_table,
    key_columns,
    status_table,
    summary_table,
)
from bayesscale.runs.verdict import share_weights, verdict, with_weights


@pytest.fixture
def curves():
    """Two models on three tasks; four shot counts each."""
    keys = tuple((model, task) for model in ("a", "b") for task in ("x", "y", "z"))
    index = np.repeat(np.arange(6), 4)
    shots = np.tile([1.0, 10.0, 100.0, 1000.0], 6)
    columns = {"successes": np.full(24, 5.0), "trials": np.full(24, 10.0)}
    return Curves("counts", ("model", "task"), keys, index, np.zeros(24, int), shots, columns, np.full(6, np.nan))


def forecasts_of(curves, laws=("power", "linear", "persistence"), shares=(0.1, 0.5)):
    """Made-up forecasts, some laws better than others."""
    rng = np.random.default_rng(0)
    out = []
    for share in shares:
        for number, law in enumerate(laws):
            for i in range(len(curves)):
                observed = rng.uniform(0.3, 0.7, 3)
                draws = observed + 0.1 * (number + 1) * rng.standard_normal((200, 3)) + 0.05 * rng.standard_normal(3)
                score = rng.normal(1.0 - number, 0.5, 3)
                shots = np.array([10.0, 100.0, 1000.0])
                out.append(Forecast(i, curves.curve_name(i), law, share, shots, observed, draws, draws, score, "ok"))
    return tuple(out)


def skipping_everything(curves, laws):
    reason = Finding("ZERO-SHOTS", "fail", "law is infinite at 0 shots")
    skipped = tuple(Skipped(curves.curve_name(i), law, reason) for law in laws for i in range(len(curves)))
    return Evaluation(curves, (), (), skipped)


# Names ----------------------------------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, bayesscale; print(sorted(set(sys.modules) & {'jax', 'numpy', 'pandas', 'matplotlib', 'scipy'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert len(set(bayesscale.__all__)) == len(bayesscale.__all__) and dir(bayesscale) == sorted(bayesscale.__all__)
    for name in bayesscale.__all__:
        assert getattr(bayesscale, name) is not None
        assert name in bayesscale.__doc__ or name == "__version__"
    with pytest.raises(AttributeError, match="nosuch"):
        bayesscale.nosuch  # noqa: B018


# The folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("curves", "units"), [(3, 128), (2000, 250), (10_000, 512)])
def test_chunks_grow_with_the_curves(curves, units):
    assert chunk_size(curves) == units


def test_a_folder_appears_whole(tmp_path):
    with replacing(tmp_path / "new" / "out", overwrite=False) as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "new" / "out").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert (tmp_path / "new" / "out" / "a.txt").read_text() == "a"


def stop_half_way(folder):
    (folder / "half").touch()
    raise KeyboardInterrupt


def test_a_run_that_stops_leaves_the_old_one(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"format": FORMAT}))
    with pytest.raises(KeyboardInterrupt), replacing(out, overwrite=True) as folder:
        stop_half_way(folder)
    assert [path.name for path in out.iterdir()] == ["run.json"] and [path.name for path in tmp_path.iterdir()] == [
        "out"
    ]
    with replacing(out, overwrite=True) as folder:
        (folder / "new").touch()
    assert [path.name for path in out.iterdir()] == ["new"] and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_not_ours_is_never_replaced(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not empty"):
            check_folder(tmp_path, overwrite=overwrite)
    with pytest.raises(InputError, match="this is a file"):
        check_folder(tmp_path / "notes.txt", overwrite=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="working directory"):
        check_folder(tmp_path, overwrite=True)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"), replacing(tmp_path / "file" / "out", overwrite=False):
        pass


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("Llama 3/8B", "power"), "llama-3-8b-power"),
        (("../../etc",), "etc"),
        (("日本",), "fit"),
        (("Ü" * 100,), "u" * 60),
    ],
)
def test_slugs_are_plain(parts, expected):
    assert slug(*parts) == expected


# Tables ---------------------------------------------------------------------------------------------------------------


def test_every_curve_and_law_is_counted_once(curves):
    laws = (LAWS["power"], LAWS["linear"])
    table = status_table(curves, laws, skipping_everything(curves, laws))
    assert (
        len(table) == 12
        and set(table["status"]) == {"skipped"}
        and set(table["reason"].str.split(":").str[0]) == {"ZERO-SHOTS"}
    )


def test_a_curve_nobody_accounts_for_is_an_error(curves):
    laws = (LAWS["power"], LAWS["linear"])
    lost = skipping_everything(curves, laws[:1])
    with pytest.raises(AssertionError, match="without a reason"):
        status_table(curves, laws, lost)


def test_a_share_that_is_too_short_does_not_explain_a_missing_fit(curves):
    laws = (LAWS["power"],)
    reason = Finding("FEW-ROWS", "info", "fewer than 5 shot counts")
    lost = Evaluation(curves, (), (), tuple(Skipped(curves.curve_name(i), laws[0], reason) for i in range(6)))
    with pytest.raises(AssertionError, match="without a reason"):
        status_table(curves, laws, lost)


def test_tables_of_nothing_keep_their_columns(curves):
    laws = (LAWS["power"],)
    nothing = skipping_everything(curves, laws)
    comparison = comparison_table(status_table(curves, laws, nothing), nothing, (0.5,), [])
    assert (
        len(comparison) == 6 and set(comparison["holdout_status"]) == {"not scored"} and comparison["crps"].isna().all()
    )
    assert {"model", "task", "mean", "q05"} <= set(summary_table(curves, ()))
    assert {"model", "task", "pit"} <= set(forecast_table(curves, ()))
    assert len(findings_table(curves, nothing)) == 6
    weights = share_weights(comparison, forecast_table(curves, ()))
    assert weights == {} and "weight" in with_weights(comparison, weights)


def test_keys_give_way_to_our_columns():
    assert key_columns(("model", "law", "law_", "status")) == ["model", "law_", "law__", "status_"]


# The verdict ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["crps", "log_score", "nrmse"])
@pytest.mark.parametrize("share", [None, 0.1])
def test_the_verdict_is_that_of_compare(metric, share, curves):
    forecasts = forecasts_of(curves)
    laws = (LAWS["power"], LAWS["linear"])
    nothing = skipping_everything(curves, laws)
    evaluation = Evaluation(curves, (), forecasts, nothing.skipped)
    scores = comparison_table(status_table(curves, laws, evaluation), evaluation, (0.1, 0.5), [])
    ours = verdict(scores, forecast_table(curves, forecasts), curves.key_names, metric=metric, share=share)
    theirs = compare(forecasts, curves, metric=metric, share=share)
    assert ours.sentence == theirs.sentence and ours.reference == theirs.reference
    pd.testing.assert_frame_equal(ours.table, theirs.table, check_dtype=False, rtol=1e-6, atol=1e-8)


def test_the_comparison_holds_every_score_once(curves):
    forecasts = forecasts_of(curves)
    laws = (LAWS["power"], LAWS["linear"])
    evaluation = Evaluation(curves, (), forecasts, skipping_everything(curves, laws).skipped)
    table = comparison_table(status_table(curves, laws, evaluation), evaluation, (0.1, 0.5), [])
    assert len(table) == 6 * 3 * 2 and table["crps"].notna().all()
    expected = score_table(forecasts).set_index(["curve_index", "law", "share"])["crps"]
    found = table.set_index(["curve_index", "law", "share"])["crps"]
    assert found.sort_index().to_numpy() == pytest.approx(expected.sort_index().to_numpy())


@pytest.mark.parametrize(
    ("options", "said"),
    [({"metric": "bleu"}, "no metric"), ({"share": 0.3}, "share 0.3"), ({"reference": "hill"}, "not among the laws")],
)
def test_the_verdict_refuses_what_is_not_there(options, said, curves):
    evaluation = Evaluation(curves, (), forecasts_of(curves, ("power",)), ())
    scores = comparison_table(
        status_table(curves, (LAWS["power"],), skipping_everything(curves, (LAWS["power"],))),
        evaluation,
        (0.1, 0.5),
        [],
    )
    with pytest.raises(InputError, match=said):
        verdict(scores, forecast_table(curves, evaluation.forecasts), curves.key_names, **options)


# Small things ---------------------------------------------------------------------------------------------------------


def test_settings_are_checked():
    with pytest.raises(InputError, match="two laws are called power"):
        Settings((LAWS["power"], LAWS["power"]))
    with pytest.raises(InputError, match="between 0 and 1"):
        Settings((LAWS["power"],), shares=(0.5, 1.0))
    with pytest.raises(InputError, match="no law"):
        Settings(())


@pytest.mark.parametrize(("fits", "fail", "holdout", "code"), [(3, 0, 0, 0), (3, 1, 0, 4), (3, 0, 2, 4), (0, 0, 0, 5)])
def test_exit_codes(fits, fail, holdout, code):
    counts = {"ok": fits - fail, "warn": 0, "fail": fail, "skipped": 3 - fits}
    outcome = SimpleNamespace(counts=counts, holdout_failed=holdout)
    assert exit_code(outcome) == code  # pyright: ignore[reportArgumentType]


def test_curves_left_out_of_a_comparison_are_counted(curves, capsys):
    laws = (LAWS["power"],)
    forecasts = [f for f in forecasts_of(curves) if f.curve != 2 or f.predictor != "power"]
    evaluation = Evaluation(curves, (), tuple(forecasts), skipping_everything(curves, laws).skipped)
    scores = comparison_table(status_table(curves, laws, evaluation), evaluation, (0.1, 0.5), [])
    print_verdicts(scores, forecast_table(curves, forecasts), curves.key_names, (0.5,))
    assert "over 5 curves" in (text := capsys.readouterr().out) and "1 of 6 curves are left out" in text


def test_falls_come_first_and_names_are_no_markup(capsys):
    rows = [("NOT-IDENTIFIED", "info", 3), ("RHAT", "fail", 2), ("DROP", "warn", 1)]
    findings = [
        {"curve_index": i, "scope": "fit", "curve": f"[bold]m{i}", "law": "power", "code": code, "grade": grade,
         "message": "said", "advice": "look", "where": ""}
        for code, grade, count in rows for i in range(count)
    ]  # fmt: skip
    print_findings(pd.DataFrame(findings))
    text = capsys.readouterr().out
    assert text.index("DROP") < text.index("RHAT") < text.index("NOT-IDENTIFIED")
    assert "(3 curves, 1 law)" in text and "[bold]m0: said. Look." in text


def test_plain_progress_says_the_end_of_each_stage(capsys):
    report = Plain()
    for stage in ("power", "linear"):
        for done in (1, 2, 3, 2, 3):
            report(stage, done, 3)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in lines] == [["power", "3/3"], ["linear", "3/3"]]


def test_a_damaged_run_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": FORMAT, "laws": [], "shares": [], "key_names": []}))
    with pytest.raises(InputError, match="cannot be read"):
        StoredRun.at(tmp_path).verdict()


def test_csv_texts_are_no_formulas(tmp_path):
    write_csv(pd.DataFrame({"curve": ["=1+1", "plain"], "change": [-1.5, 2.0]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "curve,change\n'=1+1,-1.5\nplain,2.0\n"


def test_the_demonstration_has_its_curves_and_their_truth():
    curves, digests = demo_curves()
    assert curves.keys == CURVES and len(digests) == 1 and np.isfinite(curves.chance).all()
    crossings = [true_crossing(key, THRESHOLD) for key in CURVES if key[0] == "large-8b" and key[1] == "topic"]
    assert crossings == sorted(crossings) and crossings[0] < 20 < 80 < crossings[-1] < 200
