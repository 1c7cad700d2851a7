"""The commands about repeated samples: exit codes, what is written, and what is said."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesscale.cli
from bayesscale.cli.sampling import whole
from bayesscale.resampling.forecast import forecast
from bayesscale.resampling.stored import load_crossed, load_rates, load_verifier, load_votes
from bayesscale.resampling.verifier import Stakes
from bayesscale.resampling.verifier_fit import choose

DATA = Path(__file__).parent.parent / "data" / "resampling_counts"
TINY = ["--draws", "200", "--chains", "2", "--warmup", "40,60", "--lanes", "8", "--tiers", "0"]
ROLES = ["--model", "model", "--problem", "problem", "--n", "n"]
PASSK = ["passk", DATA / "attempts.csv", *ROLES, "--correct", "n_correct"]
VERIFIER = ["verifier", DATA / "verified.csv", *ROLES, "--correct", "n_correct", "--accepted", "n_accepted",
            "--correct-accepted", "n_correct_accepted"]  # fmt: skip
VOTES = ["votes", DATA / "votes.csv", *ROLES, "--votes", "votes_a,votes_b,votes_c,votes_d", "--none", "votes_none",
         "--target", "target"]  # fmt: skip
NEW = ["newmodel", DATA / "shared.csv", *ROLES, "--correct", "n_correct"]


def cli(*arguments):
    """Run the command line in this process; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        bayesscale.cli.main([str(argument) for argument in arguments])
    return ended.value.code or 0


@pytest.fixture(autouse=True)
def plain_output(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Run a command once for all tests, in all workers: returns its folder and exit code."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def run(name, *arguments):
        folder, code = root / f"{name}-run", root / f"{name}-code"
        try:
            (root / f"{name}-lock").mkdir()
        except FileExistsError:
            deadline = time.monotonic() + 300
            while not code.exists() and time.monotonic() < deadline:
                time.sleep(0.5)
        else:
            (root / f"{name}-part").write_text(str(cli(*arguments, *TINY, "--out", folder, "--max-plots", 1)))
            (root / f"{name}-part").rename(code)
        return folder, int(code.read_text())

    return run


@pytest.fixture(scope="session")
def passk(finished):
    laws = ["--law", "beta", "--law", "jeffreys"]
    return finished("passk", *PASSK, *laws, "--at", "1,100,1e4", "--target", "solved,population", "--holdout", "50")


@pytest.fixture(scope="session")
def verifier(finished):
    stakes = ["--benefit", 1, "--cost", 2, "--sample-cost", 0.01, "--stronger", 0.8]
    return finished("verifier", *VERIFIER, *stakes)


@pytest.fixture(scope="session")
def newmodel(finished):
    return finished("newmodel", *NEW, "--new", "new-1")


@pytest.fixture(scope="session")
def votes(finished):
    return finished("votes", *VOTES, "--at", "1,8,32")


# Help and refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["passk"],
        ["verifier"],
        ["votes"],
        ["newmodel"],
        ["simulate", "resampling"],
        ["simulate", "verifier"],
        ["simulate", "votes"],
    ],
)
def test_every_help_has_an_example_and_the_exit_codes(command, capsys):
    assert cli(*command, "--help") == 0
    text = capsys.readouterr().out
    assert "Exit codes:" in text and " ".join(["bayesscale", *command]) in text.split("Example:")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["passk"], 2, "Missing"),
        ([*PASSK, "--out", "{out}", "--law", "betta"], 2, "did you mean beta"),
        ([*PASSK, "--out", "{out}", "--law", "beta", "--law", "beta"], 2, "once each"),
        ([*PASSK, "--out", "{out}", "--at", "0"], 2, "from 1 to 1e12"),
        ([*PASSK, "--out", "{out}", "--at", "1.5"], 2, "--at takes whole numbers"),
        ([*PASSK, "--out", "{out}", "--target", "all"], 2, "solved, these"),
        ([*PASSK, "--out", "{out}", "--holdout", "200"], 2, "leaves nothing to judge by"),
        ([*PASSK, "--out", "{out}", "--stopping", "sometimes"], 3, "sometimes"),
        ([*PASSK, "--out", "{out}", "--stopping", "capped", "--cap", "200", "--at", "10"], 2, "unknown which"),
        ([*PASSK, "--out", "{out}", "--covariates", "params"], 3, "params"),
        ([*PASSK, "--out", "{data}"], 2, "not empty"),
        (["passk", "nowhere.csv", *ROLES, "--correct", "n_correct", "--out", "{out}"], 3, "nowhere.csv"),
        ([*PASSK, "--out", "{out}", "--at", "1e13"], 2, "from 1 to 1e12"),
        ([*VERIFIER, "--out", "{out}", "--at", "1e13"], 2, "from 1 to 1e12"),
        ([*VOTES, "--out", "{out}", "--at", "1e13"], 2, "at most 1e12"),
        ([*VERIFIER, "--out", "{out}", "--cost", "-1"], 2, "at least 0"),
        ([*VERIFIER, "--out", "{out}", "--stronger", "80"], 2, "between 0 and 1"),
        ([*VOTES, "--out", "{out}", "--of", "all"], 2, "these, realised"),
        ([*VOTES, "--out", "{out}", "--of", "continued", "--at", "4"], 2, "at least 8"),
        ([*NEW, "--out", "{out}"], 2, "Missing"),
        ([*NEW, "--out", "{out}", "--new", "new-2"], 2, "did you mean new-1"),
        ([*NEW, "--out", "{out}", "--new", "new-1", "--benchmark", "suite"], 2, "name a model"),
        (["newmodel", *PASSK[1:], "--new", "small-2b", "--out", "{out}"], 2, "two old ones"),
        (["simulate", "resampling", "--out", "{out}.csv", "--stopping", "never"], 2, "first_success"),
        (["simulate", "votes", "--out", "{out}.csv", "--none", "2"], 2, "cannot draw"),
    ],
)
def test_refusals_are_one_line_with_a_code(arguments, code, said, tmp_path, capfd):
    places = {"out": str(tmp_path / "out"), "data": str(DATA)}
    assert cli(*(str(argument).format(**places) for argument in arguments)) == code
    out, err = capfd.readouterr()
    assert said in err and "Traceback" not in out + err
    if err.startswith("bayesscale: "):
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_pooling_one_model_is_refused(tmp_path, capfd):
    table = tmp_path / "one.csv"
    pd.read_csv(DATA / "attempts.csv").query("model == 'small-2b'").to_csv(table, index=False)
    assert cli("passk", table, *PASSK[2:], "--pool", "--out", tmp_path / "out") == 2
    assert "at least two models" in capfd.readouterr().err


def test_whole_numbers_may_be_written_in_powers():
    assert [whole(text) for text in ("1", "1e4", "10000.0")] == [1, 10_000, 10_000]
    with pytest.raises(ValueError, match=r"1\.5"):
        whole("1.5")


# Coverage -------------------------------------------------------------------------------------------------------------


def test_passk_writes_every_file_and_nothing_else(passk):
    folder, _ = passk
    tables = {f"{name}.parquet" for name in ("summary", "forecast", "limit", "comparison", "findings")}
    assert {path.name for path in folder.iterdir()} == tables | {"fits", "plots", "run.json", "README.txt"}
    assert len(list((folder / "fits").iterdir())) == 6
    names = sorted(path.name.rsplit("-", 1)[1] for path in (folder / "plots").iterdir())
    assert names == ["counts.png", "coverage.png", "rates.png"]


def test_run_json_accounts_for_every_fit(passk):
    folder, code = passk
    about = json.loads((folder / "run.json").read_text())
    assert sum(about["counts"].values()) == 6 and code == (4 if about["counts"]["fail"] else 0)
    assert about["laws"] == ["beta", "jeffreys"] and about["at"] == [1, 100, 10_000] and about["holdout"] == 50
    assert about["samples"] == 48_000 and [len(digest) for digest in about["inputs"].values()] == [64]
    assert {"python", "bayesscale", "jax"} <= set(about["versions"])


def test_forecasts_are_those_of_the_stored_fits(passk):
    folder, _ = passk
    table = pd.read_parquet(folder / "forecast.parquet")
    rows = pd.read_parquet(folder / "summary.parquet").drop_duplicates("fit").query("law in ('beta', 'jeffreys')")
    assert len(rows) == 4
    for row in rows.to_dict("records"):
        fit = load_rates(folder / row["fit"])
        assert fit.name == row["model"] and fit.law.name == row["law"] and fit.status == row["status"]
        own = table.query(
            "model == @fit.name and law == @fit.law.name and measure == 'pass@k' and estimand == 'solved'"
        )
        again = forecast(fit, own["k"]).table()
        for name in ("median", "eti90_lower", "eti90_upper"):
            assert own[name].to_numpy() == pytest.approx(again[name].to_numpy())


def test_estimates_without_a_law_are_the_counts(passk):
    counts = pd.read_csv(DATA / "attempts.csv").query("model == 'large-8b'")
    table = pd.read_parquet(passk[0] / "forecast.parquet").query("model == 'large-8b' and law == 'unbiased'")
    one = table.query("k == 1")
    rate = (counts["n_correct"] / 200).mean()
    assert one["mean"].to_numpy() == pytest.approx(rate)  # pass@1 and pass^1
    assert sorted(one["measure"]) == ["pass@k", "pass^k"]
    assert table["k"].max() == 100  # beyond 200 samples there is no estimate
    many = table.query("k == 100 and measure == 'pass@k'").iloc[0]
    assert many["ci90_lower"] < many["mean"] < many["ci90_upper"]


def test_the_forecast_of_the_true_law_holds_the_truth(passk):
    table = pd.read_parquet(passk[0] / "forecast.parquet").query(
        "law == 'beta' and k == 10_000 and measure == 'pass@k'"
    )
    counts = pd.read_csv(DATA / "attempts.csv").merge(pd.read_csv(DATA / "attempts-truth.csv"))
    counts["solved"] = np.where(counts["n_correct"] > 0, 1.0, 1 - (1 - counts["p"]) ** (10_000 - 200))
    truth = counts.groupby("model")["solved"].mean()
    for row in table.query("estimand == 'solved'").to_dict("records"):
        assert row["eti90_lower"] <= truth[row["model"]] <= row["eti90_upper"]
        unsolved = (counts.query("model == @row['model']")["n_correct"] == 0).sum()
        assert row["problems_open"] == unsolved and row["horizon"] == 50


def test_the_limit_is_given_under_every_prior_for_these_problems_and_for_new_ones(passk):
    table = pd.read_parquet(passk[0] / "limit.parquet")
    assert set(table["estimand"]) == {"these", "new", "population"} and len(table) == 2 * 3 * 4
    assert table["prior_logit_zero_mass"].nunique() == 4
    counts = pd.read_csv(DATA / "attempts.csv")
    solved = (counts["n_correct"] > 0).groupby(counts["model"]).mean()
    these = table.query("estimand == 'these'")
    assert (these["eti90_lower"].to_numpy() >= solved[these["model"]].to_numpy()).all()
    assert (table["eti90_lower"] <= table["median"]).all() and (table["eti90_upper"] <= 1).all()


def test_held_out_scores_name_laws_and_baselines(passk):
    table = pd.read_parquet(passk[0] / "comparison.parquet")
    assert set(table["predictor"]) == {"beta", "jeffreys", "ols", "beta_binomial_mle"}
    assert set(table["k"]) == {100} and set(table["n0"]) == {50}


def test_a_run_about_samples_is_replaced_only_when_asked_and_is_no_run_of_fit(passk, capfd):
    folder, _ = passk
    assert cli(*PASSK, "--out", folder) == 2
    assert "--overwrite" in capfd.readouterr().err
    assert cli("compare", folder) == 3
    assert "no run was written here" in capfd.readouterr().err


def test_stopped_designs_get_kaplan_meier(tmp_path, capsys):
    path, out = tmp_path / "stopped.csv", tmp_path / "out"
    options = ["--stopping", "batch", "--batch", 20]
    assert cli("simulate", "resampling", "--out", path, "--models", 1, "--n", 400, *options) == 0
    assert "--stopping batch --cap cap --batch 20" in capsys.readouterr().out
    run = ["passk", path, *PASSK[2:], *options, "--cap", "cap", "--law", "jeffreys", "--no-limit", *TINY, "--out", out]
    assert cli(*run) == 0
    text = capsys.readouterr().out
    assert "without a law" in text and "past ones included" in text and "1 fits: 1 ok" in text
    table = pd.read_parquet(out / "forecast.parquet")
    counts = pd.read_csv(path)
    last = table.query("law == 'kaplan-meier'").iloc[-1]
    assert last["k"] == 100
    # every problem is followed to the cap or its success, so at whole batches the curve is a plain share
    assert last["mean"] == pytest.approx(((counts["n_correct"] > 0) & (counts["n"] <= 100)).mean())


# New models -----------------------------------------------------------------------------------------------------------


def test_a_new_model_is_predicted_on_every_problem_of_the_old(newmodel):
    folder, code = newmodel
    tables = {f"{name}.parquet" for name in ("summary", "accuracy", "problems", "findings")}
    assert {path.name for path in folder.iterdir()} == tables | {"fits", "plots", "run.json", "README.txt"}
    about = json.loads((folder / "run.json").read_text())
    assert about["new"] == ["new-1"] and len(about["old"]) == 8 and code == (4 if about["counts"]["fail"] else 0)
    accuracy = pd.read_parquet(folder / "accuracy.parquet").set_index("fit")
    assert list(accuracy.index) == ["difficulty", "level only"]
    assert (accuracy["tried"] == 10).all() and (accuracy["problems"] == 40).all() and (accuracy["samples"] == 20).all()
    truth = pd.read_csv(DATA / "shared-truth.csv").query("model == 'new-1'").set_index("problem")
    assert (accuracy["eti90_lower"] < truth["p"].mean()).all() and (truth["p"].mean() < accuracy["eti90_upper"]).all()
    problems = pd.read_parquet(folder / "problems.parquet").set_index("problem")
    assert len(problems) == 40 and (problems["n"] > 0).sum() == 10
    assert np.corrcoef(problems["easiness"], truth["easiness"][problems.index])[0, 1] > 0.8
    assert np.corrcoef(problems["rate"], truth["p"][problems.index])[0, 1] > 0.4


def test_a_stored_new_model_predicts_the_same(newmodel):
    folder, _ = newmodel
    accuracy = pd.read_parquet(folder / "accuracy.parquet").set_index("fit")["accuracy"]
    for row in pd.read_parquet(folder / "summary.parquet").drop_duplicates("fit").to_dict("records"):
        assert load_crossed(folder / row["fit"]).predict().accuracy.mean() == pytest.approx(accuracy[row["law"]])


def test_problems_that_no_old_model_tried_are_named(tmp_path, capfd):
    table = tmp_path / "shared.csv"
    odd = pd.DataFrame({"model": ["new-1"], "problem": ["unheard-of"], "n": [2], "n_correct": [1]})
    pd.concat([pd.read_csv(DATA / "shared.csv"), odd]).to_csv(table, index=False)
    assert cli("newmodel", table, *NEW[2:], "--new", "new-1", "--out", tmp_path / "out") == 3
    err = capfd.readouterr().err
    assert "unheard-of" in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


# Verifier and votes ---------------------------------------------------------------------------------------------------


def test_verifier_writes_the_decision_of_the_stored_fit(verifier):
    folder, code = verifier
    assert code == (4 if json.loads((folder / "run.json").read_text())["counts"]["fail"] else 0)
    decisions = pd.read_parquet(folder / "decision.parquet").query("population == 'these'")
    files = pd.read_parquet(folder / "summary.parquet").drop_duplicates("fit").set_index("model")["fit"]
    for row in decisions.to_dict("records"):
        fit = load_verifier(folder / files[row["model"]])
        again = choose(fit, Stakes(1, 2, 0.01))
        assert again.recommended == row["recommended"]
        assert again.expected_regret == pytest.approx(row["expected_regret"])
    # the README of the data says what is best: 4 and 26
    interval = decisions.set_index("model")[["best_eti90_lower", "best_eti90_upper"]]
    assert interval.loc["small-2b"].iloc[0] <= 4 <= interval.loc["small-2b"].iloc[1]
    assert interval.loc["large-8b"].iloc[0] <= 26 <= interval.loc["large-8b"].iloc[1]


def test_verifier_says_whether_a_stronger_model_is_reached(verifier):
    table = pd.read_parquet(verifier[0] / "reach.parquet").query("population == 'these'").set_index("model")
    # the true ceilings are 0.86 and 0.73
    assert table.loc["large-8b", "p_never"] < 0.01 and table.loc["small-2b", "p_never"] > 0.99
    names = {path.name for path in verifier[0].iterdir()}
    assert {"utility.parquet", "forecast.parquet", "plots", "fits"} <= names


def test_votes_are_forecast_at_every_n_and_without_end(votes):
    folder, _ = votes
    table = pd.read_parquet(folder / "forecast.parquet").query("model == 'large-8b'")
    assert table["n"].tolist() == [1, 8, 32, np.inf]
    assert table["majority"].to_numpy()[0] == pytest.approx(table["single"].to_numpy()[0], abs=1e-9)
    counts = pd.read_csv(DATA / "votes.csv").query("model == 'large-8b'")
    observed = pd.read_parquet(folder / "observed.parquet").query("model == 'large-8b'").iloc[0]
    assert observed["single"] == pytest.approx((counts["n_correct"] / 8).mean())
    at8 = table.query("n == 8").iloc[0]
    assert at8["majority_eti90_lower"] - 0.03 < observed["majority"] < at8["majority_eti90_upper"] + 0.03
    truth = pd.read_csv(DATA / "votes-truth.csv").query("model == 'large-8b'")
    mode = truth[[f"share_{x}" for x in "abcd"]].to_numpy().argmax(axis=1)
    limit = np.mean(np.array(list("abcd"))[mode] == truth["target"])
    last = table.iloc[-1]
    assert last["majority_eti90_lower"] - 0.02 <= limit <= last["majority_eti90_upper"] + 0.02


def test_stored_votes_load_again(votes):
    folder, _ = votes
    files = pd.read_parquet(folder / "summary.parquet").drop_duplicates("fit")
    digests = json.loads((folder / "run.json").read_text())["digests"]
    table = pd.read_parquet(folder / "forecast.parquet").query("n == 32").set_index("model")["majority"]
    for row in files.to_dict("records"):
        fit = load_votes(folder / row["fit"])
        assert fit.votes.digest(0) == digests[row["model"]]
        assert fit.majority((1, 8, 32)).majority[:, 2].mean() == pytest.approx(table[row["model"]])


def test_a_fit_of_another_kind_is_refused(votes):
    from bayesscale.finding import InputError

    file = pd.read_parquet(votes[0] / "summary.parquet")["fit"].iloc[0]
    with pytest.raises(InputError, match="'votes', not 'rates'"):
        load_rates(votes[0] / file)
    with pytest.raises(InputError, match="FIT-MISSING"):
        load_rates(votes[0] / "nothing.nc")


@pytest.mark.parametrize("kind", ["resampling", "verifier", "votes"])
def test_simulate_repeats_itself(kind, tmp_path):
    for name in ("a", "b"):
        assert cli("simulate", kind, "--out", tmp_path / f"{name}.csv", "--seed", 5) == 0
    for part in ("", "-truth"):
        first, second = (tmp_path / f"{name}{part}.csv" for name in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
