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
