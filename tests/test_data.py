"""The bundled data: intact, reproducible, and as its README files say."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("make_data", DATA / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    out = tmp_path_factory.mktemp("data")
    make.write(out)
    return out


def test_manifest_covers_and_matches_every_csv():
    lines = (DATA / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {path: digest for digest, path in (line.split("  ") for line in lines)}
    assert set(listed) == {path.relative_to(DATA).as_posix() for path in DATA.rglob("*.csv")}
    for path, digest in listed.items():
        assert hashlib.sha256((DATA / path).read_bytes()).hexdigest() == digest, path


@pytest.mark.parametrize("file", ["curves.csv", "truth.csv"])
def test_counts_are_reproduced_to_the_byte(regenerated, file):
    assert (regenerated / "icl_counts" / file).read_bytes() == (DATA / "icl_counts" / file).read_bytes()


@pytest.mark.parametrize("table", ["attempts", "verified", "votes"])
def test_samples_are_reproduced_to_the_byte_and_have_one_truth_each(regenerated, table):
    for file in (f"{table}.csv", f"{table}-truth.csv"):
        made = (regenerated / "resampling_counts" / file).read_bytes()
        assert made == (DATA / "resampling_counts" / file).read_bytes()
    rows, truth = (pd.read_csv(DATA / "resampling_counts" / f"{name}.csv") for name in (table, f"{table}-truth"))
    assert len(rows) == len(truth) == 240 and not rows.isna().any(axis=None)
    assert (rows[["model", "problem"]] == truth[["model", "problem"]]).all(axis=None)


def test_shared_problems_are_reproduced_to_the_byte_and_known_to_all_but_the_new_model(regenerated):
    for file in ("shared.csv", "shared-truth.csv"):
        assert (regenerated / "resampling_counts" / file).read_bytes() == (
            DATA / "resampling_counts" / file
        ).read_bytes()
    rows = pd.read_csv(DATA / "resampling_counts" / "shared.csv").groupby("model")["n"].agg(["size", "max"])
    assert rows.loc["new-1"].tolist() == [10, 2]
    assert (rows.drop("new-1") == [40, 8]).all(axis=None) and len(rows) == 9


def test_truths_of_the_samples_are_those_the_readme_gives():
    text = (DATA / "resampling_counts" / "README.md").read_text(encoding="utf-8")
    truth = pd.read_csv(DATA / "resampling_counts" / "attempts-truth.csv")
    solved = (1 - (1 - truth["p"]) ** 10_000).groupby(truth["model"]).mean()
    assert f"{solved['small-2b']:.3f} for it and {solved['large-8b']:.3f} for `large-8b`" in text
    judged = pd.read_csv(DATA / "resampling_counts" / "verified-truth.csv")
    best = {}
    for model, own in judged.groupby("model"):
        worth = [
            np.mean((own.p - 2 * own.q - 0.01) * (1 - (1 - own.acceptance) ** k) / own.acceptance) for k in range(60)
        ]
        best[model] = int(np.argmax(worth))
    assert f"it is {best['small-2b']} for `small-2b` and {best['large-8b']} for `large-8b`" in text


@pytest.mark.parametrize("file", ["curves.csv", "truth.csv"])
def test_nll_is_reproduced_to_rounding(regenerated, file):
    # the forward algorithm runs in JAX, whose last digits may differ between versions and devices
    new, old = (pd.read_csv(folder / "icl_nll" / file) for folder in (regenerated, DATA))
    numbers = old.select_dtypes("number").columns
    pd.testing.assert_frame_equal(new.drop(columns=numbers), old.drop(columns=numbers))
    np.testing.assert_allclose(new[numbers], old[numbers], rtol=1e-5)


@pytest.mark.parametrize(("name", "curves", "rows"), [("icl_counts", 12, 570), ("icl_nll", 6, 384)])
def test_one_truth_per_curve_and_rows_as_documented(name, curves, rows):
    table, truth = (pd.read_csv(DATA / name / file) for file in ("curves.csv", "truth.csv"))
    key = [column for column in ("model", "task", "sft_amount") if column in table]
    assert set(table[key].itertuples(index=False, name=None)) == set(truth[key].itertuples(index=False, name=None))
    assert (len(truth), len(table)) == (curves, rows)
    assert not table.isna().any(axis=None)
    assert f"{rows} in `curves.csv`" in (DATA / name / "README.md").read_text(encoding="utf-8")


def test_suppressed_behaviour_comes_back_with_shots():
    table = pd.read_csv(DATA / "icl_counts" / "curves.csv").query("model == 'large-8b' and task == 'topic'")
    accuracy = table.groupby(["sft_amount", "shots"])["correct"].sum() / 1000
    assert accuracy[2500, 10] < 0.25 < 0.6 < accuracy[0, 10]
    assert accuracy[2500, 500] > 0.8
