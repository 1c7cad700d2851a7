"""Batches of real fits, tiny ones: kills, shards and workers change no number."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

TABLES = ("summary", "comparison", "forecasts", "findings")
COLUMNS = ["--curve", "model,task", "--successes", "correct", "--trials", "trials", "--run", "run"]
TINY = ["--law", "power", "--draws", "40", "--chains", "2", "--warmup", "20,20", "--lanes", "8", "--tiers", "0"]
MORE = ["--no-pool", "--no-loo", "--no-plots", "--chunk", "1", "--holdout", "none"]


def command(*arguments):
    return [sys.executable, "-c", "from bayesscale.cli import main; main()", *map(str, arguments)]


def fit(table, out, *more):
    return command("fit", table, *COLUMNS, *TINY, *MORE, "--out", out, *more)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "curves.csv"
    options = ["--models", 3, "--tasks", 2, "--shots", "1,2,5,10,20", "--runs", 2]
    subprocess.run(command("simulate", "icl", "--out", path, *options), check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def quiet(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("quiet") / "out"
    assert subprocess.run(fit(table, out), capture_output=True).returncode in (0, 4)
    return out


def same(one, other):
    for name in TABLES:
        assert (one / f"{name}.parquet").read_bytes() == (other / f"{name}.parquet").read_bytes()
    files = sorted(path.name for path in (one / "fits").iterdir())
    assert files == sorted(path.name for path in (other / "fits").iterdir()) and len(files) == 6
    assert all((one / "fits" / f).read_bytes() == (other / "fits" / f).read_bytes() for f in files)


def test_twenty_kills_change_no_byte(table, quiet, tmp_path):
    rng, kills, batch = random.Random(0), 0, 0
    while kills < 20:
        out = tmp_path / f"out-{batch}"
        process = subprocess.Popen(fit(table, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = time.monotonic()
        while process.poll() is None and not (out / "batch" / "plan.json").exists():
            time.sleep(0.05)
        try:
            process.wait(rng.uniform(0.0, max(8.0, time.monotonic() - begun)))
            same(quiet, out)
            batch += 1
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert subprocess.run(fit(table, out), capture_output=True).returncode in (0, 4)
    same(quiet, out)


def test_shards_and_workers_give_the_same_bytes(table, quiet, tmp_path):
    for shard in ("2/2", "1/2"):
        assert subprocess.run(fit(table, tmp_path / "shards", "--shard", shard), capture_output=True).returncode == 0
    done = subprocess.run(command("merge", tmp_path / "shards", "--no-plots"), capture_output=True, text=True)
    assert done.returncode in (0, 4), done.stderr
    same(quiet, tmp_path / "shards")
    pytest.importorskip("distributed", reason="Dask is not installed")
    assert subprocess.run(fit(table, tmp_path / "dask", "--workers", "2"), capture_output=True).returncode in (0, 4)
    same(quiet, tmp_path / "dask")


def test_rows_do_not_depend_on_order_or_company(table, quiet, tmp_path):
    rows = pd.read_csv(table)
    few = rows[rows["model"] != "model-2"].iloc[::-1]
    few.to_csv(tmp_path / "few.csv", index=False)
    subprocess.run(fit(tmp_path / "few.csv", tmp_path / "out"), capture_output=True)
    whole = pd.read_parquet(quiet / "summary.parquet").set_index(["curve", "parameter"])
    part = pd.read_parquet(tmp_path / "out" / "summary.parquet").set_index(["curve", "parameter"])
    numbers = ["mean", "sd", "q05", "q50", "q95", "r_hat", "ess_bulk"]
    assert len(part) == len(whole) * 2 // 3
    pd.testing.assert_frame_equal(part[numbers], whole.loc[part.index, numbers], check_exact=True)


def test_an_interrupted_run_says_how_to_go_on(table, tmp_path):
    process = subprocess.Popen(fit(table, tmp_path / "out"), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(Path(tmp_path).glob("out/batch/results/[0-9a-f]*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 130, err
    assert "of 6 chunks are done and kept in" in err and "Go on with the same command" in err and "Traceback" not in err
    assert not list(Path(tmp_path).glob("out/batch/results/.*")) and not os.path.exists(tmp_path / "out" / "run.json")
