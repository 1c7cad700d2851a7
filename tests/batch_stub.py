"""A batch whose fits are a stub: fast, determined by the chunk, free of jax. Run as a script it is killed again and again.

    python tests/batch_stub.py FOLDER random|points SEED KILLS

A driver that imports once forks a process per run and kills it: at a random time, or when it reaches a named point.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import bayesscale.batch.disk as disk
import bayesscale.batch.ledger as ledger_module
import bayesscale.batch.store as store_module
from bayesscale.batch.gather import ORDER, Piece, write_table
from bayesscale.batch.lock import locked
from bayesscale.batch.loop import Loop, survey
from bayesscale.batch.place import Place, agree, make
from bayesscale.batch.plan import FIT, make_plan

CURVES, SIZE = 60, 4
LAWS = ("one", "two")
POINTS = (
    "before the temporary folder",
    "in the middle of writing",
    "before the rename",
    "after the rename",
    "before the ledger",
    "in the middle of the ledger",
)


class Stub:
    """Rows that depend on a curve's digest and the law alone; `kill` and `fail` are digests that are trouble."""

    def __init__(self, plan, kill=(), fail=(), pause=0.0):
        self.plan, self.kill, self.fail, self.pause = plan, kill, fail, pause

    def rows(self, chunk):
        rows = []
        for i in chunk.curves:
            seed = int(hashlib.sha256(f"{self.plan.digests[i]}|{chunk.law}".encode()).hexdigest()[:8], 16)
            values = np.random.default_rng(seed).normal(size=3)
            rows += [
                {"curve_index": i, "law": chunk.law, "part": p, "value": v, ORDER: i} for p, v in enumerate(values)
            ]
        return pd.DataFrame(rows)

    def run(self, chunk, folder, within):
        digests = {self.plan.digests[i] for i in chunk.curves}
        if digests & set(self.kill):
            os.kill(os.getpid(), signal.SIGKILL)
        if digests & set(self.fail):
            raise ArithmeticError("this curve cannot be")
        time.sleep(self.pause)
        self.rows(chunk).to_parquet(folder / "rows.parquet", index=False)
        return {"counts": {"ok": len(chunk.units), "fail": 0}, "tiers": {"0": len(chunk.units)}}

    def give_up(self, chunk, folder, reason):
        self.rows(chunk).assign(value=np.nan).to_parquet(folder / "rows.parquet", index=False)
        return {"counts": {"fail": len(chunk.units)}, "given_up": reason}


def stub_plan(curves=CURVES, size=SIZE, order=None, **settings):
    """A plan of curves named by number, under two laws and of two widths."""
    order = list(range(curves)) if order is None else order
    digests = [hashlib.sha256(f"curve {i}".encode()).hexdigest() for i in order]
    units = [((place,), 8 if i % 3 else 12) for place, i in enumerate(order)]
    settings = {"laws": {law: law for law in LAWS}, "seed": 0} | settings
    return make_plan(settings, [f"c{i}" for i in order], digests, [(FIT, law, units) for law in LAWS], size)


def gathered(place, plan, found, out):
    """Merge the rows of all chunks into one file; returns its bytes."""
    pieces = [
        Piece(place.store.folder(key), min(c.curves), max(c.curves), LAWS.index(c.law))
        for key, c in found.entries.items()
    ]
    write_table(out, "rows", sorted(pieces, key=lambda p: (p.law, p.first, p.last)), len(plan.digests))
    return out.read_bytes()


def run_stub(folder, work=None, plan=None, schedule=None, shard=None):
    """One run to its end; returns what is there."""
    plan = plan or stub_plan()
    place = Place(Path(folder), shard)
    make(place)
    with locked(place.lock):
        place.store.sweep()
        plan = agree(place, plan)
        chunks = [c for i, c in enumerate(plan.chunks) if shard is None or i % shard.of == shard.number]
        found = survey(plan, place.store, chunks)
        good = Counter(c.law for key, c in found.entries.items() if "given_up" not in found.abouts[key])
        loop = Loop(plan, place.store, place.ledger, work or Stub(plan), lambda ended: None, good=good)
        loop.run(found.missing, **({} if schedule is None else {"schedule": schedule}))
        found = survey(plan, place.store, chunks)
        if shard is None:
            gathered(place, plan, found, place.batch / "merged.parquet")
    return place, plan, found


def forked(task):
    """Run a task in a fork; returns its process."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            task()
            code = 0
        finally:
            os._exit(code)
    return pid


def die_at(point, times):
    """Kill this process when it reaches a point for the given time."""
    left = [times]

    def reached(name):
        if name == point:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    for module in (disk, ledger_module, store_module):
        module.reached = reached


def slow_run(out, point):
    """A run slow enough to be hit, that dies at a point if one is given."""
    if point is not None:
        die_at(*point)
    run_stub(out, Stub(stub_plan(), pause=0.002))


def storm(folder, how, seed, kills):
    """Kill runs until there were so many kills, starting a new batch whenever one is finished; returns (kills, batches)."""
    rng, done, batches = random.Random(seed), 0, 1
    expected = None
    while done < kills:
        out = Path(folder) / f"batch-{batches}"
        point = (rng.choice(POINTS), rng.randint(1, 6)) if how == "points" else None
        pid = forked(partial(slow_run, out, point))
        if how == "random":
            time.sleep(rng.uniform(0.0, 0.25))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            done += 1
            continue
        assert os.WEXITSTATUS(status) == 0, "a run failed"
        merged = (out / "batch" / "merged.parquet").read_bytes()
        expected = expected or merged
        assert merged == expected, "bytes differ"
        batches += 1
    out = Path(folder) / f"batch-{batches}"
    run_stub(out)
    assert expected is None or (out / "batch" / "merged.parquet").read_bytes() == expected
    return done, batches


if __name__ == "__main__":
    began = time.perf_counter()
    killed, batches = storm(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    assert "jax" not in sys.modules
    print(killed, batches, round(time.perf_counter() - began, 1))
