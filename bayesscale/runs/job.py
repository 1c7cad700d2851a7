"""The job behind `bayesscale fit`: curves in, a folder of results out.

    check the folder → plan → chunks of fits, each kept as it ends → merge into tables → plots

A run that is stopped keeps every chunk that ended, and the same call goes on from there. What the folder holds is listed in
the `README.txt` inside it.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bayesscale.batch.attempt import Ended, Work
from bayesscale.batch.disk import DiskError
from bayesscale.batch.execution import Execution, Shared
from bayesscale.batch.lock import locked
from bayesscale.batch.loop import Interrupted, Loop, Survey, survey
from bayesscale.batch.place import Place, agree, check_place, clear, load_input, make, read_plan, save_input
from bayesscale.batch.plan import FIT, POOL, Chunk, Plan, order_in
from bayesscale.batch.progress import Meter, Watch, unwatched
from bayesscale.batch.scheduler import serial
from bayesscale.batch.work import FitWork, PoolWork
from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.law import Law
from bayesscale.laws import LAWS
from bayesscale.precision import enable_float64
from bayesscale.runs.merging import Merge, merge_results
from bayesscale.runs.outcome import Outcome
from bayesscale.runs.planning import chosen_likelihood, plan_run, settings_of
from bayesscale.runs.settings import Settings

type Report = Callable[[str, int, int], None]
"""Called with (stage, finished, total)."""


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


class Clock:
    """Seconds each stage took."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage], self.last = round(now - self.last, 3), now


def run(
    curves: Curves,
    settings: Settings,
    *,
    out: Path,
    overwrite: bool = False,
    resume: bool = True,
    execution: Execution | None = None,
    inputs: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    report: Report = silent,
    watch: Watch = unwatched,
    warn: Callable[[str], None] = lambda text: None,
) -> Outcome | Shared:
    """Fit, score, and write everything to `out`, going on with an earlier run of the same plan.

    Parameters
    ----------
    overwrite : start anew where there is an earlier run.
    resume : whether an earlier run may go on; otherwise a folder in use is refused.
    inputs : SHA-256 of the files the curves came from, by path.
    arguments : what the caller was asked for, to be kept with the results.
    watch : called with the progress of fits; `report` with that of what follows.
    warn : called with sentences about results that had to be computed again.

    Raises
    ------
    InputError : `out` is in use or holds another plan, or an option does not fit the data.
    Interrupted : the process was asked to stop; all chunks that ended are kept.
    """
    enable_float64()
    execution = execution or Execution()
    chosen = chosen_likelihood(curves, settings)
    plan = plan_run(curves, settings, chosen)
    place = Place(out, execution.shard)
    check_place(place, overwrite=overwrite, resume=resume)
    with opened(place):
        if overwrite:
            clear(place)
        kept = agree(place, plan)
        curves = curves.subset(order_in(kept, plan))
        save_input(place, curves, {"inputs": dict(inputs or {}), "arguments": dict(arguments or {})})
        work = FitWork(curves, settings, chosen.name, bool(kept.settings["pool"]))
        clock = Clock()
        found = carry_out(place, kept, work, execution, watch, warn)
        clock.lap("fit")
        if execution.shard is not None:
            rest = survey(kept, place.store, (c for c in kept.chunks if c.kind != POOL))
            return Shared(out, execution.shard, len(found.entries), len(rest.missing))
        found = carry_out_pool(place, kept, work, found, report, clock)
        merge = Merge(kept, curves, tuple(settings.laws), settings.plots, dict(inputs or {}), dict(arguments or {}))
        return merge_results(place, merge, found, report, clock.laps)


def merge(out: Path, *, plots: int = 12, report: Report = silent, laws: tuple[Law, ...] = ()) -> Outcome:
    """Merge what shards, or a run that was stopped after its last chunk, left behind.

    Raises
    ------
    InputError : there is no run, chunks are missing, or it has a law that is in no table and not among `laws`.
    """
    enable_float64()
    place = Place(out)
    plan = read_plan(place)
    curves, about = load_input(place)
    known = LAWS | {law.name: law for law in laws}
    if unknown := [name for name in plan.settings["laws"] if name not in known]:
        what = f"law {unknown[0]!r} is not in the table"
        raise InputError("LAW-UNKNOWN", what, fix="run the same bayesscale fit again: it merges too")
    settings = settings_of(plan, tuple(known[name] for name in plan.settings["laws"]), plots)
    work = FitWork(curves, settings, plan.settings["likelihood"], bool(plan.settings["pool"]))
    with opened(place):
        clock = Clock()
        found = survey(plan, place.store, (c for c in plan.chunks if c.kind != POOL))
        if found.missing:
            total = len(found.missing) + len(found.entries)
            what = f"{len(found.missing)} of {total} chunks have no result yet"
            raise InputError(
                "RUN-INCOMPLETE", what, where=str(out), fix="run the shards that are missing, or bayesscale fit"
            )
        found = carry_out_pool(place, plan, work, found, report, clock)
        inputs, arguments = about["inputs"], about["arguments"]
        return merge_results(
            place, Merge(plan, curves, settings.laws, plots, inputs, arguments), found, report, clock.laps
        )


@contextmanager
def opened(place: Place) -> Any:
    """Hold the folder while the block runs; one that is new and stays empty is taken away again."""
    new = not place.out.exists() or not any(place.out.iterdir())
    make(place)
    try:
        with locked(place.lock):
            place.store.sweep()
            yield
    except (DiskError, Interrupted):
        raise
    except Exception:
        if new and not place.store.ids():
            shutil.rmtree(place.out, ignore_errors=True)
        raise


# Work -----------------------------------------------------------------------------------------------------------------


def carry_out(
    place: Place, plan: Plan, work: FitWork, execution: Execution, watch: Watch, warn: Callable[[str], None]
) -> Survey:
    """Carry out every chunk of fits that has no result, or this shard's part of them."""
    chunks = [chunk for chunk in plan.chunks if chunk.kind != POOL]
    if (shard := execution.shard) is not None:
        chunks = [chunk for i, chunk in enumerate(chunks) if i % shard.of == shard.number]
    found = look_over(place, plan, chunks, warn)
    total = sum(len(chunk.units) for chunk in chunks if chunk.kind == FIT)
    meter = Meter(watch, len(found.entries) + len(found.missing), total)
    for key, chunk in found.entries.items():
        meter.found(chunk, found.abouts[key])
    if found.entries and found.missing:
        meter.tell("", 0.0, ended=True)
    loop = new_loop(place, plan, work, found)

    def tell(ended: Ended) -> None:
        note(found, ended)
        meter.ended(ended.chunk, ended.about)

    loop.tell = tell

    def within(law: str, done: int, total: int) -> None:
        fits = next((len(c.units) for c in loop.under_way.values() if c.law == law and c.kind == FIT), 0)
        meter.within(law, done, total, fits)

    try:
        loop.run(found.missing, execution.schedule, within)
    except Interrupted:
        raise Interrupted(meter.chunks, meter.chunks_total) from None
    return found


def note(found: Survey, ended: Ended) -> None:
    """Remember a new result; it was read back when it was written."""
    found.entries[ended.chunk.id], found.abouts[ended.chunk.id] = ended.chunk, ended.about


def look_over(place: Place, plan: Plan, chunks: list[Chunk], warn: Callable[[str], None]) -> Survey:
    """What is there already; says which results were altered, and mends the ledger."""
    found = survey(plan, place.store, chunks)
    for chunk, reason in found.altered:
        where = plan.names[chunk.curves[0]] + (" and others" if len(chunk.units) > 1 else "")
        warn(f"The result of chunk {chunk.id[:12]} ({chunk.law}: {where}) was altered ({reason}): computed again.")
    events, damaged = place.ledger.read()
    if damaged > 1 or (found.entries and not events):
        warn("The ledger was missing or altered, and is written again from the results.")
        place.ledger.rebuild(found.entries)
    return found


def new_loop(place: Place, plan: Plan, work: Work, found: Survey) -> Loop:
    good = Counter(c.law for key, c in found.entries.items() if "given_up" not in found.abouts[key])
    return Loop(plan, place.store, place.ledger, work, lambda ended: None, good=good)


def carry_out_pool(place: Place, plan: Plan, fits: FitWork, found: Survey, report: Report, clock: Clock) -> Survey:
    """Carry out the chunk of all curves together, if there is one, from the forecasts that chunks of fits kept."""
    chunks = [chunk for chunk in plan.chunks if chunk.kind == POOL]
    if not chunks:
        return found
    first = fits.settings.laws[0].name
    folders = tuple(place.store.folder(key) for key, chunk in found.entries.items() if chunk.law == first)
    there = survey(plan, place.store, chunks)
    loop = new_loop(place, plan, PoolWork(fits, folders), there)
    loop.tell = partial(note, there)
    loop.run(there.missing, serial, report)
    clock.lap("pool")
    return Survey(found.entries | there.entries, found.abouts | there.abouts)
