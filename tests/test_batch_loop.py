"""The loop over a stub: kills, poison, interruption, shards, clusters. What comes out is what one quiet run gives."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from batch_stub import Stub, run_stub, stub_plan

from bayesscale.batch.loop import Interrupted
from bayesscale.batch.place import Shard
from bayesscale.batch.scheduler import dask_cluster, isolated
from bayesscale.finding import InputError

STUB = Path(__file__).parent / "batch_stub.py"


def merged(folder):
    return (Path(folder) / "batch" / "merged.parquet").read_bytes()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The bytes of a run nothing happened to."""
    folder = tmp_path_factory.mktemp("quiet")
    run_stub(folder)
    return merged(folder)


@pytest.mark.parametrize("how", ["random", "points"])
def test_a_hundred_kills_lose_nothing_double_nothing_and_change_no_byte(how, tmp_path, quiet):
    command = [sys.executable, "-W", "ignore", str(STUB), str(tmp_path), how, "7", "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) == 100
    batches = [path for path in tmp_path.iterdir() if (path / "batch" / "merged.parquet").exists()]
    assert batches and all(merged(path) == quiet for path in batches)


def test_rows_do_not_depend_on_order_or_company(tmp_path, quiet):
    rows = pd.read_parquet(run_stub(tmp_path / "whole")[0].batch / "merged.parquet")
    whole = dict(zip(zip(rows["curve_index"], rows["law"], rows["part"], strict=True), rows["value"], strict=True))
    order = [5, 44, 0, 13, 29, 30]
    place, plan, _ = run_stub(tmp_path / "few", plan=stub_plan(order=order, curves=len(order), size=3))
    for row in pd.read_parquet(place.batch / "merged.parquet").itertuples(index=False):
        assert row.value == whole[order[row.curve_index], row.law, row.part]


def test_rows_come_in_the_order_of_laws_and_curves(tmp_path):
    rows = pd.read_parquet(run_stub(tmp_path)[0].batch / "merged.parquet")
    assert rows.groupby("law", sort=False)["curve_index"].apply(lambda own: own.is_monotonic_increasing).all()
    assert list(dict.fromkeys(rows["law"])) == ["one", "two"] and len(rows) == 2 * 60 * 3


def test_windows_do_not_show(tmp_path, quiet, monkeypatch):
    monkeypatch.setattr("bayesscale.batch.gather.WINDOW", 7)
    run_stub(tmp_path)
    assert merged(tmp_path) == quiet


# Trouble with a curve -------------------------------------------------------------------------------------------------


def given_up(found):
    return {found.entries[key].curves: about["given_up"] for key, about in found.abouts.items() if "given_up" in about}


def test_a_curve_that_kills_its_process_is_found_alone_and_the_rest_goes_on(tmp_path, quiet):
    plan = stub_plan()
    work = Stub(plan, kill=[plan.digests[10]])
    place, _, found = run_stub(
        tmp_path, work, plan, schedule=lambda work, store, take, within: isolated(work, store, take)
    )
    assert set(given_up(found)) == {(10,)} and len(given_up(found)) == 1
    assert "SIGKILL" in given_up(found)[10,] and "twice" in given_up(found)[10,]
    rows = pd.read_parquet(place.batch / "merged.parquet")
    good = rows["curve_index"] != 10
    assert rows.loc[~good, "value"].isna().all() and rows.loc[good, "value"].notna().all() and len(rows) == 360


def test_a_chunk_under_way_at_two_deaths_is_tried_apart(tmp_path, quiet):
    """The process of the run itself dies, as for lack of memory: the run after the second death survives the poison."""
    code = f"""
import sys; sys.path.insert(0, {str(STUB.parent)!r})
from batch_stub import Stub, run_stub, stub_plan
if __name__ == "__main__":
    plan = stub_plan()
    run_stub({str(tmp_path)!r}, Stub(plan, kill=[plan.digests[10]]), plan)
"""
    script = tmp_path / "again.py"
    script.write_text(code)
    ends = [subprocess.run([sys.executable, str(script)], timeout=120).returncode for _ in range(5)]
    assert ends == [-9, -9, -9, -9, 0]  # two deaths under each of two laws
    rows = pd.read_parquet(tmp_path / "batch" / "merged.parquet")
    assert set(rows.loc[rows["value"].isna(), "curve_index"]) == {10} and len(rows) == 360


def test_a_curve_that_ends_in_an_error_is_listed_and_the_rest_goes_on(tmp_path):
    plan = stub_plan()
    _, _, found = run_stub(tmp_path, Stub(plan, fail=[plan.digests[3], plan.digests[20]]), plan)
    assert set(given_up(found)) == {(3,), (20,)}
    assert all("ArithmeticError: this curve cannot be" in reason for reason in given_up(found).values())


def test_a_law_that_fails_everywhere_is_an_error_not_a_thousand_failed_curves(tmp_path):
    plan = stub_plan()
    with pytest.raises(ArithmeticError, match="this curve cannot be"):
        run_stub(tmp_path, Stub(plan, fail=plan.digests), plan)


def test_given_up_curves_are_not_tried_again(tmp_path):
    plan = stub_plan()
    run_stub(tmp_path, Stub(plan, fail=[plan.digests[3]]), plan)
    before = merged(tmp_path)
    _, _, found = run_stub(tmp_path, Stub(plan), plan)
    assert set(given_up(found)) == {(3,)} and merged(tmp_path) == before


# Stopping -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_done_and_blames_nothing(number, tmp_path, quiet):
    plan, count = stub_plan(), [0]

    class Stopping(Stub):
        def run(self, chunk, folder, within):
            count[0] += 1
            if count[0] == 6:
                os.kill(os.getpid(), number)
                time.sleep(5)
            return super().run(chunk, folder, within)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted):
        run_stub(tmp_path, Stopping(plan), plan)
    assert signal.getsignal(number) == before
    place, _, found = run_stub(tmp_path, plan=plan)
    events = place.ledger.read()[0]
    assert [event["event"] for event in events[:12]] == ["start", "done"] * 5 + ["start", "dropped"]
    assert not +place.ledger.lost() and merged(tmp_path) == quiet
    assert not list(place.store.root.glob(".*"))


# Many processes -------------------------------------------------------------------------------------------------------


def test_shards_merged_are_the_whole_run_bit_for_bit(tmp_path, quiet):
    for number in (2, 0, 1):
        _, _, found = run_stub(tmp_path, shard=Shard(number, 3))
        assert not found.missing
    assert not (tmp_path / "batch" / "results").exists()
    place, plan, found = run_stub(tmp_path)
    assert merged(tmp_path) == quiet and not place.store.root.exists()  # nothing was left to do


def test_a_missing_shard_is_made_up_for(tmp_path, quiet):
    run_stub(tmp_path, shard=Shard(1, 3))
    run_stub(tmp_path)
    assert merged(tmp_path) == quiet


@pytest.fixture
def dask_workers():
    return pytest.importorskip("distributed", reason="Dask is not installed")


def on_dask(workers, address=None):
    return lambda work, store, take, within: dask_cluster(work, store, take, address=address, workers=workers)


def test_a_killed_worker_costs_its_chunk_only(dask_workers, tmp_path, quiet):
    plan = stub_plan()
    killed = []
    schedule = partial(killing_one, killed=killed)
    place, _, found = run_stub(tmp_path, Stub(plan, pause=0.02), plan, schedule=schedule)
    assert len(killed) == 1 and merged(tmp_path) == quiet and not given_up(found)
    done = [event["chunk"] for event in place.ledger.read()[0] if event["event"] == "done"]
    assert len(done) == len(set(done)) == len(plan.chunks)


def killing_one(work, store, take, within, *, killed):
    """A cluster of two workers, one of which is killed when a few chunks are done."""
    for count, ended in enumerate(dask_cluster(work, store, take, address=None, workers=2)):
        if count == 4:
            killed.append(ended.pid)
            os.kill(ended.pid, signal.SIGKILL)
        yield ended


def test_poison_on_a_cluster_is_found_and_the_rest_goes_on(dask_workers, tmp_path):
    plan = stub_plan(curves=16, size=4)
    work = Stub(plan, kill=[plan.digests[4]])
    _, _, found = run_stub(tmp_path, work, plan, schedule=on_dask(2))
    assert set(given_up(found)) == {(4,)} and not found.missing


def test_a_running_scheduler_is_joined(dask_workers, tmp_path, quiet):
    with dask_workers.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        run_stub(tmp_path, schedule=on_dask(0, cluster.scheduler_address))
    assert merged(tmp_path) == quiet


def test_without_dask_one_plain_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="need Dask, which is not installed"):
        run_stub(tmp_path, schedule=on_dask(2))
