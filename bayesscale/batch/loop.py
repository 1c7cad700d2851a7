"""The loop: carry out a plan until every unit has a result.

What stands in the store and is right is not done again. A chunk that ends in an error is cut into its units, and so is one
that takes its process along; a unit that still does is given up, with the reason as its result. Everything else goes on.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bayesscale.batch.attempt import DONE, KILLED, UNWRITABLE, Ended, Within, Work, nowhere
from bayesscale.batch.disk import DiskError
from bayesscale.batch.ledger import DROPPED, FAILED, START, Ledger
from bayesscale.batch.ledger import KILLED as WAS_KILLED
from bayesscale.batch.plan import Chunk, Plan
from bayesscale.batch.scheduler import Next, isolated, serial
from bayesscale.batch.store import Altered, Store
from bayesscale.finding import InputError

DEATHS = 2
"""Deaths after which a chunk is tried apart from everything else, and a unit given up."""
HOPELESS = 3
"""Units of a law that may fail by an error while none succeeded; then the error is taken for one of the law or of ours."""

type Schedule = Callable[[Work, Store, Next, Within], Iterator[Ended]]
"""Carries out chunks; see `scheduler`."""
type Tell = Callable[[Ended], None]
"""Called when a chunk has a result."""


class Interrupted(KeyboardInterrupt):
    """The user, or the system, asked to stop."""


@dataclass
class Survey:
    """What a store holds of a plan."""

    entries: dict[str, Chunk] = field(default_factory=dict)
    """Chunks that have a result, cut ones as their units, by id."""
    abouts: dict[str, Any] = field(default_factory=dict)
    missing: list[Chunk] = field(default_factory=list)
    altered: list[tuple[Chunk, str]] = field(default_factory=list)


def survey(plan: Plan, store: Store, chunks: Iterable[Chunk]) -> Survey:
    """Look at every result, byte by byte; altered ones are taken away."""
    found, there = Survey(), store.ids()
    for chunk in chunks:
        if look(store, chunk, found, there):
            continue
        singles = plan.singles(chunk) if len(chunk.units) > 1 else ()
        if any(single.id in there for single in singles):  # it was cut into its units
            found.missing += [single for single in singles if not look(store, single, found, there)]
        else:
            found.missing.append(chunk)
    return found


def look(store: Store, chunk: Chunk, found: Survey, there: set[str]) -> bool:
    """Note a chunk's result, if there is one and it is right."""
    if chunk.id not in there:
        return False
    try:
        result = store.read(chunk.id)
    except Altered as reason:
        store.drop(chunk.id)
        found.altered.append((chunk, str(reason)))
        return False
    if result is None:
        return False
    found.entries[chunk.id], found.abouts[chunk.id] = chunk, result[1]
    return True


# Carrying out ---------------------------------------------------------------------------------------------------------


@dataclass
class Loop:
    """A plan being carried out: what waits, what is suspect, and what failed."""

    plan: Plan
    store: Store
    ledger: Ledger
    work: Work
    tell: Tell
    waiting: deque[Chunk] = field(default_factory=deque)
    suspect: deque[Chunk] = field(default_factory=deque)
    under_way: dict[str, Chunk] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    bad: dict[str, list[tuple[Chunk, Ended]]] = field(default_factory=dict)

    def run(self, missing: Iterable[Chunk], schedule: Schedule = serial, within: Within = nowhere) -> None:
        """Carry out everything that is missing."""
        lost = self.ledger.lost()
        for chunk in missing:
            (self.suspect if lost[chunk.id] >= DEATHS else self.waiting).append(chunk)
        try:
            with stopping():
                self.pass_through(self.waiting, lambda take: schedule(self.work, self.store, take, within))
                self.pass_through(self.suspect, lambda take: isolated(self.work, self.store, take))
                self.give_up_failed()
        except BaseException:
            self.drop()
            raise

    def pass_through(self, queue: deque[Chunk], schedule: Callable[[Next], Iterator[Ended]]) -> None:
        def take() -> Chunk | None:
            if not queue:
                return None
            chunk = queue.popleft()
            self.ledger.write(START, chunk.id, law=chunk.law, units=len(chunk.units))
            self.under_way[chunk.id] = chunk
            return chunk

        with contextlib.closing(schedule(take)) as ends:  # pyright: ignore[reportArgumentType]
            for ended in ends:
                self.settle(ended, queue)

    def settle(self, ended: Ended, queue: deque[Chunk]) -> None:
        """Note how a chunk ended, and decide what follows."""
        chunk = ended.chunk
        if ended.kind == UNWRITABLE:
            assert ended.refusal is not None
            raise DiskError(ended.refusal.message, ended.refusal.where)
        self.under_way.pop(chunk.id, None)
        if ended.kind == DONE:
            self.ledger.write(DONE, chunk.id, seconds=round(ended.seconds, 3), by=ended.pid)
            self.good[chunk.law] += 1
            self.tell(ended)
        elif ended.kind == KILLED:
            self.ledger.write(WAS_KILLED, chunk.id, reason=ended.message)
            self.after_death(ended)
        else:
            self.ledger.write(FAILED, chunk.id, reason=ended.message)
            self.after_error(ended, queue)

    def after_death(self, ended: Ended) -> None:
        """A chunk took its process along: cut it, or try its one unit again, or give that up."""
        chunk = ended.chunk
        self.deaths[chunk.id] += 1
        if len(chunk.units) > 1:
            self.suspect.extend(self.plan.singles(chunk))
        elif self.deaths[chunk.id] < DEATHS:
            self.suspect.appendleft(chunk)
        else:
            self.give_up(chunk, f"{ended.message}, twice")

    def after_error(self, ended: Ended, queue: deque[Chunk]) -> None:
        """A chunk ended in an error: cut it, or keep its one unit in mind; raise where nothing of its law works."""
        chunk = ended.chunk
        if ended.refusal is not None and not self.good:
            raise_again(ended)
        if len(chunk.units) > 1:
            queue.extendleft(reversed(self.plan.singles(chunk)))
            return
        bad = self.bad.setdefault(chunk.law, [])
        bad.append((chunk, ended))
        units = sum(len(c.units) for c in self.plan.chunks if c.law == chunk.law)
        if not self.good[chunk.law] and len(bad) >= min(HOPELESS, units):
            raise_again(ended)

    def give_up_failed(self) -> None:
        """Write down the units that ended in errors; raise where no other of their law did better."""
        for law, failed in self.bad.items():
            if not self.good[law]:
                raise_again(failed[0][1])
            for chunk, ended in failed:
                self.give_up(chunk, ended.message)

    def give_up(self, chunk: Chunk, reason: str) -> None:
        """Make the reason a unit's result."""
        about = self.store.put(chunk.id, lambda folder: self.work.give_up(chunk, folder, reason))
        self.ledger.write(DONE, chunk.id, given_up=reason)
        self.tell(Ended(chunk, DONE, about))

    def drop(self) -> None:
        """Note that what was under way was given up by request, not by its own doing."""
        with contextlib.suppress(InputError, OSError):  # the folder may be what cannot be written
            for chunk in self.under_way.values():
                self.ledger.write(DROPPED, chunk.id)


def raise_again(ended: Ended) -> None:
    """Raise what ended an attempt: the error itself where it happened here."""
    if ended.error is not None:
        raise ended.error
    if ended.refusal is not None:
        finding = ended.refusal
        raise InputError(finding.code, finding.message, where=finding.where, fix=finding.advice)
    raise RuntimeError(f"{ended.message}\n{ended.trace}")


@contextmanager
def stopping() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`; more of them are ignored while the run is put in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)
        raise Interrupted

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
