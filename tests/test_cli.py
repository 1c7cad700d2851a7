"""The command line: exit codes, what is written, and what is said."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import bayesscale.cli

HEAVY = ("jax", "numpyro", "numpy", "pandas", "matplotlib", "scipy", "arviz", "pyarrow")
COLUMNS = ["--curve", "model,task", "--successes", "correct", "--trials", "trials", "--run", "run"]
TINY = ["--draws", "200", "--chains", "2", "--warmup", "40,40,60", "--lanes", "16", "--tiers", "0", "--no-pool"]
OWN_LAW = """
from dataclasses import replace
from bayesscale.laws.power import POWER
MINE = replace(POWER, name="mine")
NOT_A_LAW = 3
TAKEN = POWER
"""


def cli(*arguments):
    """Run the command line in this process; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        bayesscale.cli.main([str(argument) for argument in arguments])
    return ended.value.code or 0


def python(code):
    """Run code in a fresh interpreter; returns its stdout."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


@pytest.fixture(autouse=True)
def plain_output(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture
def table(tmp_path):
    """Two curves that start at one shot."""
    path = tmp_path / "curves.csv"
    assert cli("simulate", "icl", "--out", path, "--models", 2, "--tasks", 1, "--shots", "1,2,5,10,20,50,100") == 0
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """One finished run that all tests, in all workers, look at."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, code = root / "shared-run", root / "shared-run-code"
    try:
        (root / "shared-run-lock").mkdir()
    except FileExistsError:
        for _ in range(600):
            if code.exists():
                break
            time.sleep(0.5)
    else:
        (root / "own.py").write_text(OWN_LAW)
        cli(
            "simulate",
            "icl",
            "--out",
            root / "shared.csv",
            "--tasks",
            2,
            "--shots",
            "1,2,5,10,20,50,100,200",
            "--runs",
            3,
        )
        laws = ["--law", "power", "--law", f"{root / 'own.py'}:MINE"]
        options = ["--out", folder, "--holdout", "0.25,0.5", "--max-plots", 1, "--seed", 4, *TINY]
        code.write_text(str(cli("fit", root / "shared.csv", *COLUMNS, *laws, *options)))
    return folder, int(code.read_text()), root / "own.py"


# Help -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [[], ["fit"], ["merge"], ["check"], ["compare"], ["predict"], ["laws"], ["demo"], ["simulate", "icl"]]
)
def test_every_help_has_an_example_and_the_exit_codes(command, capsys):
    assert cli(*command, "--help") == 0
    text = capsys.readouterr().out
    assert "Example:" in text and "Exit codes:" in text
    assert " ".join(["bayesscale", *command]) in text.split("Example:")[1]


@pytest.mark.parametrize("command", [[], ["fit"], ["predict"], ["simulate", "icl"]])
def test_help_imports_nothing_heavy(command):
    code = f"""
import sys
from bayesscale.cli import main
try:
    main({[*command, "--help"]!r})
except SystemExit:
    print("loaded", sorted(set(sys.modules) & set({HEAVY!r})))
"""
    assert python(code).splitlines()[-1] == "loaded []"


def test_version(capsys):
    assert cli("--version") == 0
    assert capsys.readouterr().out.strip() == f"bayesscale {bayesscale.__version__}"


# What cannot be done --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nosuch"], 2, "nosuch"),
        (["fit"], 2, "Missing"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--law", "powr"], 2, "did you mean power"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--law", "nowhere.py:LAW"], 2, "no such file"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--likelihood", "beta"], 2, "beta is for prob_mean"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--holdout", "1.5"], 2, "between 0 and 1"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--holdout", "half"], 2, "--holdout takes numbers"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--nll", "nll"], 2, "several kinds of observation"),
        (["fit", "{table}", *COLUMNS, "--out", "{table}"], 2, "this is a file"),
        (["fit", "nowhere.csv", *COLUMNS, "--out", "{out}"], 3, "nowhere.csv"),
        (["fit", "{table}", *COLUMNS, "--x", "depth", "--out", "{out}"], 3, "depth"),
        (["check", "{empty}", *COLUMNS], 3, "empty.csv"),
        (["check", "{table}", "--curve", "model,task", "--successes", "correct", "--trials", "trials"], 3, "--run"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--shard", "5/4"], 2, "--shard takes I/N"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--shard", "1/4", "--workers", "2"], 2, "exclude one another"),
        (["fit", "{table}", *COLUMNS, "--out", "{out}", "--keep", "everything"], 2, "one of thinned, draws, summary"),
        (["merge", "{out}"], 3, "no run of bayesscale fit was begun here"),
        (["compare", "{empty}"], 3, "no run was written here"),
        (["predict", "{out}", "--at", "10"], 3, "no run was written here"),
        (["predict", "{out}"], 2, "give --at or --threshold"),
        (["laws", "powr"], 2, "did you mean power"),
        (["simulate", "icl", "--out", "{table}"], 2, "the file exists"),
        (["simulate", "icl", "--out", "{out}.xlsx"], 2, ".csv or .parquet"),
        (["simulate", "icl", "--out", "{out}.csv", "--kind", "magic"], 2, "plateau_then_rise"),
    ],
)
def test_refusals_are_one_line_with_a_code(arguments, code, said, table, tmp_path, capfd):
    (tmp_path / "empty.csv").touch()
    places = {"table": table, "out": tmp_path / "out", "empty": tmp_path / "empty.csv"}
    capfd.readouterr()
    assert cli(*(argument.format(**places) for argument in arguments)) == code
    out, err = capfd.readouterr()
    assert said in err and "Traceback" not in out + err
    if err.startswith("bayesscale: "):
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "said"), [("NOT_A_LAW", "MINE"), ("NOWHERE", "MINE"), ("TAKEN", "already has a law")])
def test_a_law_file_without_the_law_is_refused(name, said, table, tmp_path, capfd):
    (tmp_path / "own.py").write_text(OWN_LAW)
    assert cli("fit", table, *COLUMNS, "--out", tmp_path / "out", "--law", f"{tmp_path / 'own.py'}:{name}") == 2
    assert said in capfd.readouterr().err


def test_a_folder_in_use_is_refused_before_anything_is_fitted(table, tmp_path, capfd):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    assert cli("fit", table, *COLUMNS, "--out", tmp_path / "out") == 2
    assert "not empty" in capfd.readouterr().err
    assert cli("fit", table, *COLUMNS, "--out", tmp_path / "out", "--overwrite") == 2
    assert "holds no run" in capfd.readouterr().err
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_an_error_of_ours_is_one_line_and_a_kept_traceback(table, tmp_path, capfd, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("something\nbroke")

    monkeypatch.setattr("bayesscale.batch.work.evaluate", broken)
    capfd.readouterr()
    assert cli("fit", table, *COLUMNS, "--law", "power", "--out", tmp_path / "out") == 1
    err = capfd.readouterr().err
    assert err.startswith("bayesscale: RuntimeError: something broke - the traceback is in ") and err.count("\n") == 1
    log = Path(err.strip().rsplit(" ", 1)[1])
    assert "in broken" in log.read_text()
    log.unlink()
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_nothing_fitted_is_exit_5_and_still_accounted_for(tmp_path, capfd):
    path, out = tmp_path / "zero.csv", tmp_path / "out"
    cli("simulate", "icl", "--out", path, "--models", 1, "--tasks", 1)
    assert cli("fit", path, *COLUMNS, "--law", "power", "--out", out, "--no-pool") == 5
    assert "1 curves x 1 laws = 1 fits: 0 ok, 0 warn, 0 fail, 1 skipped" in capfd.readouterr().out
    row = pd.read_parquet(out / "comparison.parquet").query("fitted").iloc[0]
    assert row["status"] == "skipped" and row["reason"].startswith("ZERO-SHOTS: ")
    assert len(pd.read_parquet(out / "summary.parquet")) == 0


# What is written ------------------------------------------------------------------------------------------------------


def test_the_exit_code_follows_the_counts(finished):
    folder, code, _ = finished
    about = json.loads((folder / "run.json").read_text())
    assert sum(about["counts"].values()) == 4 * 2 and about["counts"]["skipped"] == 0
    assert code == (4 if about["counts"]["fail"] or about["holdout_failed"] else 0)


def test_run_json_says_what_was_done(finished):
    folder, _, _ = finished
    about = json.loads((folder / "run.json").read_text())
    assert about["laws"] == ["power", "mine"] and about["shares"] == [0.25, 0.5] and about["seed"] == 4
    assert {"python", "bayesscale", "jax", "numpyro"} <= set(about["versions"])
    assert [len(digest) for digest in about["inputs"].values()] == [64]
    assert about["sampler"]["draws"] == 200 and about["arguments"]["curve"] == ["model", "task"]
    assert {"fit", "write", "plots"} == set(about["timings"])


def test_every_file_is_there_and_nothing_else(finished):
    folder, _, _ = finished
    tables = {f"{name}.parquet" for name in ("summary", "comparison", "forecasts", "findings")}
    assert {path.name for path in folder.iterdir()} == tables | {"batch", "fits", "plots", "run.json", "README.txt"}
    assert len(list((folder / "fits").iterdir())) == 8
    names = {path.name for path in (folder / "plots").iterdir()}
    assert "comparison.png" in names and "pit-power.png" in names and any(name.endswith("-laws.png") for name in names)
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".shared-run")]


def test_tables_have_a_row_for_everything(finished):
    folder, _, _ = finished
    comparison = pd.read_parquet(folder / "comparison.parquet")
    fitted = comparison.query("fitted")
    assert len(fitted) == 4 * 2 * 2 and not fitted.duplicated(["curve_index", "law", "share"]).any()
    scores = ["log_score", "crps", "coverage50", "coverage90", "width90", "nrmse", "nrmse_nll"]
    assert fitted[scores].notna().all().all()
    assert {"model", "task", "elpd_loo", "elpd_loo_se", "khat_max", "refitted", "weight", "status"} <= set(fitted)
    assert set(comparison.query("not fitted")["law"]) == {"persistence"}
    weights = comparison.drop_duplicates(["law", "share"]).groupby("share")["weight"].sum()
    assert weights.to_numpy() == pytest.approx([1.0, 1.0])
    usable = fitted[fitted["status"] != "fail"]
    assert usable["elpd_loo"].notna().all()
    summary = pd.read_parquet(folder / "summary.parquet")
    assert {"mean", "sd", "q05", "q25", "q50", "q75", "q95", "r_hat", "ess_bulk", "ess_tail", "contraction"} <= set(
        summary
    )
    assert len(summary.drop_duplicates(["curve", "law"])) == 8 and {"alpha", "E"} <= set(summary["parameter"])


def test_stored_scores_are_those_of_the_stored_points(finished):
    folder, _, _ = finished
    points = pd.read_parquet(folder / "forecasts.parquet")
    scores = pd.read_parquet(folder / "comparison.parquet").set_index(["curve_index", "law", "share"])
    for key, own in points.groupby(["curve_index", "law", "share"]):
        row = scores.loc[key]
        assert row["rows"] == len(own)
        assert row["crps"] == pytest.approx(own["crps"].mean())
        assert row["log_score"] == pytest.approx(own["log_score"].mean())
        inside = (own["q05"] <= own["observed"]) & (own["observed"] <= own["q95"])
        assert row["coverage90"] == pytest.approx(inside.mean())


def test_fits_load_again(finished):
    folder, _, _ = finished
    rows = pd.read_parquet(folder / "comparison.parquet").query("fitted and law == 'power'").drop_duplicates("fit")
    for row in rows.to_dict("records"):
        fit = bayesscale.load(folder / row["fit"])
        assert fit.name == row["curve"] and fit.law.name == "power" and fit.status == row["status"]


# Asking a finished run ------------------------------------------------------------------------------------------------


def test_compare_reads_scores_without_fitting(finished, capsys):
    folder, _, _ = finished
    assert cli("compare", folder) == 0
    text = capsys.readouterr().out
    assert text.count("predicts best") == 2 and "persistence" in text and "mine" in text
    assert cli("compare", folder, "--metric", "log_score", "--share", 0.5, "--reference", "power") == 0
    text = capsys.readouterr().out
    assert "log score: higher is better" in text and text.count("predicts best") == 1


@pytest.mark.parametrize(("options", "said"), [(["--metric", "bleu"], "crps"), (["--share", "0.3"], "0.25, 0.5")])
def test_compare_refuses_what_was_not_scored(options, said, finished, capfd):
    assert cli("compare", finished[0], *options) == 2
    assert said in capfd.readouterr().err


def test_predict_reads_the_posteriors(finished, tmp_path, capsys):
    folder, _, _ = finished
    path = tmp_path / "out.csv"
    assert cli("predict", folder, "--at", "10,2000", "--law", "power", "--csv", path) == 0
    assert "90% equal-tailed" in capsys.readouterr().out
    table = pd.read_csv(path)
    assert len(table) == 4 * 2 and table["extrapolated"].tolist() == [False, True] * 4
    assert (table["eti90_lower"] <= table["median"]).all() and (table["median"] <= table["eti90_upper"]).all()


def test_predictions_are_the_same_in_another_process(finished, tmp_path):
    options = ["predict", str(finished[0]), "--at", "3,500", "--law", "power", "--csv"]
    assert cli(*options, tmp_path / "here.csv") == 0
    python(f"from bayesscale.cli import main; main({[*options, str(tmp_path / 'there.csv')]!r})")
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


def test_predict_finds_crossings(finished, capsys):
    assert cli("predict", finished[0], "--threshold", 0.3, "--law", "power", "--curve", "model-1") == 0
    text = capsys.readouterr().out
    assert "Shots to reach 0.3" in text and text.count("model-1 / ") == 2 and "model-2" not in text


def test_a_law_of_ones_own_is_passed_again(finished, capfd):
    folder, _, own = finished
    assert cli("predict", folder, "--at", "10", "--law", f"{own}:MINE") == 0
    assert "mine" in capfd.readouterr().out
    assert cli("predict", folder, "--at", "10", "--law", "mine") == 3
    assert "pass law" in capfd.readouterr().err
    assert cli("predict", folder, "--at", "10", "--law", "linear") == 2
    assert "not fitted in this run" in capfd.readouterr().err
    assert cli("predict", folder, "--at", "10", "--law", "power", "--curve", "gpt") == 3


# The other commands ---------------------------------------------------------------------------------------------------


def test_laws_lists_every_law(capsys):
    from bayesscale.laws import LAWS

    assert cli("laws") == 0
    text = capsys.readouterr().out
    for law in LAWS.values():
        assert f"\n{law.name} (" in f"\n{text}" and law.equation[:40] in text
    assert cli("laws", "power") == 0
    assert "tempered" not in capsys.readouterr().out


def test_check_counts_and_finds_falls(capsys):
    data = Path(__file__).parent.parent / "data" / "icl_counts" / "curves.csv"
    assert cli("check", data, *COLUMNS, "--condition", "sft_amount", "--chance", "chance") == 0
    text = capsys.readouterr().out
    assert "12 curves, 570 rows" in text and "chance level: known for 12 of 12" in text
    falls = [line for line in text.splitlines() if "DROP" in line]
    assert len(falls) == 1 and "small-2b / topic / 0" in falls[0]


def test_check_says_when_nothing_is_odd(table, capsys):
    assert cli("check", table, *COLUMNS) == 0
    assert "Nothing odd was found." in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_simulate_repeats_itself(suffix, tmp_path, capsys):
    options = ["--seed", 5, "--kind", "collapse", "--sft", "0,100", "--models", 1, "--tasks", 1]
    for name in ("a", "b"):
        assert cli("simulate", "icl", "--out", tmp_path / f"{name}{suffix}", *options) == 0
    for part in ("", "-truth"):
        first, second = (tmp_path / f"{name}{part}{suffix}" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    assert cli("simulate", "icl", "--out", tmp_path / f"c{suffix}", *options[2:], "--seed", 6) == 0
    assert (tmp_path / f"c{suffix}").read_bytes() != first.read_bytes()


def test_simulate_nll(tmp_path, capsys):
    assert cli("simulate", "icl", "--out", tmp_path / "nll.csv", "--observation", "nll") == 0
    assert "--nll nll --se nll_se" in capsys.readouterr().out
    assert cli("check", tmp_path / "nll.csv", "--curve", "model,task", "--nll", "nll", "--se", "nll_se") == 0
    assert "mean NLLs" in capsys.readouterr().out


@pytest.mark.slow
def test_demo_recovers_the_truth(tmp_path, capsys):
    assert cli("demo", "--out", tmp_path / "demo") == 0
    text = capsys.readouterr().out
    assert "WARN DROP" in text and text.count("(true: ") == 5
    assert (tmp_path / "demo" / "plots" / "answer.png").stat().st_size > 10_000
