"""The store, the ledger and the lock: what is altered is found, what is torn is left out, one process at a time."""

import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from batch_stub import Stub, run_stub, stub_plan

from bayesscale.batch import disk, lock
from bayesscale.batch.disk import DiskError
from bayesscale.batch.ledger import DONE, DROPPED, START, Ledger
from bayesscale.batch.lock import locked
from bayesscale.batch.loop import survey
from bayesscale.batch.place import Place, Shard
from bayesscale.batch.store import Altered, Store, verified
from bayesscale.finding import InputError

ID = "ab" * 32


def write(folder):
    (folder / "table.bin").write_bytes(bytes(range(200)))
    (folder / "draws.bin").write_bytes(b"draws" * 20)
    return {"counts": {"ok": 1}}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    store.put(ID, write)
    return store


def test_what_is_put_is_read(store):
    folder, about = store.read(ID)
    assert about == {"counts": {"ok": 1}} and (folder / "table.bin").read_bytes() == bytes(range(200))
    assert store.ids() == {ID} and store.read("cd" * 32) is None
    assert [path.name for path in store.root.iterdir()] == [ID]


@pytest.mark.parametrize("name", ["table.bin", "draws.bin", "manifest.json"])
def test_every_prefix_and_every_flipped_bit_is_found(name, store):
    path = store.root / ID / name
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(Altered):
            verified(store.root / ID, ID)
    for bit in np.random.default_rng(0).choice(8 * len(whole), 500, replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data)
        with pytest.raises(Altered):
            verified(store.root / ID, ID)
    path.write_bytes(whole)
    assert verified(store.root / ID, ID) == {"counts": {"ok": 1}}


def test_a_file_too_many_or_too_few_and_a_result_of_another_chunk_are_found(store):
    (store.root / ID / "more").touch()
    with pytest.raises(Altered, match="missing or was added"):
        store.read(ID)
    (store.root / ID / "more").unlink()
    (store.root / ID / "draws.bin").unlink()
    with pytest.raises(Altered, match="missing or was added"):
        store.read(ID)
    store.put(ID, write)
    (store.root / ID).rename(store.root / ("cd" * 32))
    with pytest.raises(Altered, match="another chunk"):
        store.read("cd" * 32)


def test_a_result_put_twice_is_there_once_and_an_altered_one_is_replaced(store):
    store.put(ID, write)
    (store.root / ID / "table.bin").write_bytes(b"")
    store.put(ID, write)
    assert verified(store.root / ID, ID) and [path.name for path in store.root.iterdir()] == [ID]


def test_an_altered_result_is_reported_and_computed_again(tmp_path):
    place, plan, found = run_stub(tmp_path)
    merged = (place.batch / "merged.parquet").read_bytes()
    chunk = plan.chunks[3]
    path = place.store.folder(chunk.id) / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    again = survey(plan, place.store, plan.chunks)
    assert [c.id for c, _ in again.altered] == [chunk.id] == [c.id for c in again.missing]
    assert "rows.parquet was changed" in again.altered[0][1]
    run_stub(tmp_path)
    assert (place.batch / "merged.parquet").read_bytes() == merged


# Trouble with the disk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["open", "fsync", "rename", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_trouble_with_the_disk_is_one_sentence_and_the_run_goes_on_later(point, code, tmp_path, monkeypatch):
    plan = stub_plan(curves=12, size=1)
    calls = [0]

    def failing(real):
        def call(*args, **options):
            calls[0] += 1
            if calls[0] > 6:
                raise OSError(code, os.strerror(code))
            return real(*args, **options)

        return call

    place = Place(tmp_path)
    with monkeypatch.context() as patched:
        if point == "open":
            patched.setattr(Stub, "run", failing(Stub.run))
        elif point == "fsync":
            patched.setattr("bayesscale.batch.disk.os.fsync", failing(os.fsync))
        elif point == "rename":
            patched.setattr("bayesscale.batch.store.os.rename", failing(os.rename))
        else:
            patched.setattr("bayesscale.batch.store.Path.mkdir", failing(type(tmp_path).mkdir))
        with pytest.raises(DiskError) as stopped:
            run_stub(tmp_path, plan=plan)
    assert disk.TROUBLES[code] in str(stopped.value) and "run the same command again" in str(stopped.value)
    _, _, found = run_stub(tmp_path, plan=plan)
    assert len(found.entries) == len(plan.chunks) and not found.missing
    assert not any("given_up" in about for about in found.abouts.values())
    fresh = tmp_path / "fresh"
    run_stub(fresh, plan=plan)
    assert (fresh / "batch" / "merged.parquet").read_bytes() == (place.batch / "merged.parquet").read_bytes()


def test_other_errors_of_the_system_are_not_the_disks(tmp_path):
    with pytest.raises(ConnectionError), disk.disk_errors(tmp_path):
        raise ConnectionError(errno.ECONNRESET, "gone")


# The ledger -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for event, chunk in ((START, "a"), (DONE, "a"), (START, "b"), (START, "c"), (DROPPED, "c"), (START, "b")):
        ledger.write(event, chunk)
    return ledger


def test_attempts_that_never_ended_are_counted(ledger):
    assert {chunk: n for chunk, n in ledger.lost().items() if n} == {"b": 2}
    assert all({"pid", "host", "boot", "time"} <= set(event) for event in ledger.read()[0])


def test_every_torn_end_is_left_out_and_does_not_swallow_the_next_line(ledger):
    whole = ledger.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    start = len(whole) - len(lines[-1])
    for length in range(start + 1, len(whole) - 1):
        ledger.path.write_bytes(whole[:length])
        assert ledger.read() == ([json_of(line) for line in lines[:-1]], 1)
        ledger.write(DONE, "b")
        events, damaged = ledger.read()
        assert damaged == 1 and len(events) == len(lines) and events[-1]["event"] == DONE


def json_of(line):
    entry = json.loads(line)
    entry.pop("sum")
    return entry


def test_every_flipped_bit_of_the_ledger_is_found(ledger):
    whole = ledger.path.read_bytes()
    events = ledger.read()[0]
    for bit in np.random.default_rng(1).choice(8 * len(whole), 600, replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << (bit % 8)
        ledger.path.write_bytes(data)
        found, damaged = ledger.read()
        assert damaged >= 1 and all(event in events for event in found)


def test_a_lost_ledger_is_rebuilt_and_decides_nothing(tmp_path):
    place, plan, _ = run_stub(tmp_path)
    place.ledger.path.unlink()
    assert survey(plan, place.store, plan.chunks).missing == []
    place.ledger.rebuild(chunk.id for chunk in plan.chunks)
    assert {event["chunk"] for event in place.ledger.read()[0]} == {chunk.id for chunk in plan.chunks}


# The lock -------------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from bayesscale.batch.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_never_write_one_folder_and_a_dead_ones_lock_is_taken_over(tmp_path):
    path = tmp_path / "batch" / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid} on") as refused, locked(path):
            pass
        assert refused.value.finding.code == "OUT-IN-USE"
    finally:
        holder.kill()
        holder.wait()
    assert path.exists()
    with locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "age", "alive"),
    [
        ({}, 0, True),
        ({"born": "1"}, 0, False),
        ({"boot": "another"}, 0, False),
        ({"host": "elsewhere"}, 0, True),
        ({"host": "elsewhere"}, 1000, False),
    ],
)
def test_whether_an_owner_lives(change, age, alive, tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        owner = json.loads(path.read_text())
    path.write_text(json.dumps(owner | change))
    os.utime(path, (time.time() - age, time.time() - age))
    if alive:
        with pytest.raises(InputError, match="is writing here"), locked(path):
            pass
    else:
        with locked(path):
            pass


def test_a_lock_cut_short_is_a_dead_ones(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 1')
    with locked(tmp_path / "lock"):
        pass


def test_a_heart_that_beats_touches_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with locked(tmp_path / "lock"):
        os.utime(tmp_path / "lock", (1.0, 1.0))
        for _ in range(200):
            time.sleep(0.02)
            if (tmp_path / "lock").stat().st_mtime > 2.0:
                break
        assert (tmp_path / "lock").stat().st_mtime > 2.0


def test_shards_have_locks_of_their_own(tmp_path):
    first, second = Place(tmp_path, Shard(0, 2)), Place(tmp_path, Shard(1, 2))
    with locked(first.lock), locked(second.lock):
        pass


def test_what_the_dead_left_half_written_is_swept_and_the_livings_is_not(store):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    ).stdout
    host = disk.writer().rpartition(".")[0]
    for pid in (dead.strip(), str(os.getpid())):
        (store.root / f".{ID[:16]}.{host}.{pid}.partial").mkdir()
    store.sweep()
    assert {path.name for path in store.root.iterdir()} == {ID, f".{ID[:16]}.{host}.{os.getpid()}.partial"}
