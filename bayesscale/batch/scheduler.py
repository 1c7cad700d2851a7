"""Schedulers: how chunks are carried out. Each takes chunks and yields how they ended, in any order.

`serial` is this process; `isolated` one other process at a time, so that a chunk that kills its process is told from its
neighbours; `dask` a cluster. Results go to the store from wherever they are computed; a duplicate does no harm.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from bayesscale.batch.attempt import DONE, FAILED, KILLED, Ended, Within, Work, attempt, attempt_packed, nowhere, packed
from bayesscale.batch.plan import Chunk
from bayesscale.batch.store import Store
from bayesscale.finding import InputError

type Next = Callable[[], Chunk | None]
"""Gives the next chunk, or nothing where there is none for now; more may come while chunks are under way."""


def serial(work: Work, store: Store, take: Next, within: Within = nowhere) -> Iterator[Ended]:
    """Carry out chunks here, one after another."""
    while (chunk := take()) is not None:
        yield attempt(work, store, chunk, within)


# One other process ----------------------------------------------------------------------------------------------------


def isolated(work: Work, store: Store, take: Next) -> Iterator[Ended]:
    """Carry out chunks in another process, one at a time; a new one is started when it dies."""
    data, child = packed(work, store), None
    try:
        while (chunk := take()) is not None:
            child = child or Child(data)
            ended = child.carry_out(chunk)
            if ended.kind == KILLED:
                child = None
            yield ended
    finally:
        if child is not None:
            child.stop()


class Child:
    """A process that carries out chunks it is sent, and ends when its parent does."""

    def __init__(self, data: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, data), daemon=True)
        self.process.start()
        theirs.close()

    def carry_out(self, chunk: Chunk) -> Ended:
        try:
            self.ours.send(chunk)
            return self.ours.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.process.join()
            return Ended(chunk, KILLED, message=death(self.process.exitcode), pid=self.process.pid or 0)

    def stop(self) -> None:
        self.ours.close()
        self.process.terminate()
        self.process.join()


def serve(pipe: Connection, data: bytes) -> None:
    """Carry out what comes through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and decides
    while True:
        try:
            chunk = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt_packed(data, chunk))


def death(code: int | None) -> str:
    """How a process died, in words."""
    if code is None or code >= 0:
        return f"its process ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its process was killed ({name})" + (", perhaps for memory" if name == "SIGKILL" else "")


# A cluster ------------------------------------------------------------------------------------------------------------

ONE_THREAD = {"PJRT_NPROC": "1"}
"""Workers share the cores among them: XLA, which would take all of them in each, is held to one thread (its own variable)."""
ALLOWED_DEATHS = 1
"""Workers of a local cluster that a chunk may take along and be tried again."""


@contextmanager
def dask_client(address: str | None, workers: int) -> Iterator[Any]:
    """A client of a running scheduler, or of a cluster of local processes with one thread each.

    Raises
    ------
    InputError : Dask is not installed, or no scheduler answers.
    """
    try:
        from dask.config import set as configured
        from distributed import Client, LocalCluster
    except ImportError:
        fix = "pip install 'bayesscale[dask]', or use --shard, which needs nothing"
        raise InputError("OPTIONS", "workers and schedulers need Dask, which is not installed", fix=fix) from None
    if address is None:
        with (
            configured({"distributed.scheduler.allowed-failures": ALLOWED_DEATHS}),
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                env=ONE_THREAD,
                dashboard_address=":0",
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError) as error:
        what = f"no Dask scheduler answers ({type(error).__name__})"
        raise InputError("OPTIONS", what, where=address, fix="start one, or use --workers") from None
    with closing(client):
        yield client


def dask_cluster(work: Work, store: Store, take: Next, *, address: str | None, workers: int) -> Iterator[Ended]:
    """Carry out chunks on a Dask cluster, at most two per thread under way.

    The folder must be one that every worker sees under the same path.
    """
    data = packed(work, store)
    with dask_client(address, workers) as client:
        name = hand_out(client, data)
        under_way: dict[Any, Chunk] = {}
        while True:
            room = 2 * max(1, sum(client.nthreads().values()))
            while len(under_way) < room and (chunk := take()) is not None:
                future = client.submit(attempt_handed, name, chunk, key=f"bayesscale-{chunk.id}", pure=True)
                under_way[future] = chunk
            if not under_way:
                return
            for future in finished(under_way):
                yield seen(store, outcome(future, under_way.pop(future)))


def hand_out(client: Any, data: bytes) -> str:
    """Give the work to all workers, those that come later included; returns the name they find it under."""
    from distributed import WorkerPlugin

    class Handed(WorkerPlugin):
        def __init__(self) -> None:
            self.data = data

    name = f"bayesscale-{hashlib.sha256(data).hexdigest()[:16]}"
    client.register_plugin(Handed(), name=name)
    return name


def attempt_handed(name: str, chunk: Chunk) -> Ended:
    """Carry out a chunk on a worker."""
    from distributed import get_worker

    handed: Any = get_worker().plugins[name]
    return attempt_packed(handed.data, chunk)


def finished(under_way: dict[Any, Chunk]) -> list[Any]:
    """Futures that ended; waits for the first."""
    from distributed import wait

    ended: Any = wait(list(under_way), return_when="FIRST_COMPLETED")
    return list(ended.done)


def outcome(future: Any, chunk: Chunk) -> Ended:
    """How a future's chunk ended; one that took too many workers along was killed."""
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return Ended(chunk, KILLED, message="its worker died, more than once")
    except Exception as error:  # the cluster's own trouble: lost data, a worker that cannot import us
        return Ended(chunk, FAILED, message=f"{type(error).__name__}: {error}", error=error)
    finally:
        future.release()


def seen(store: Store, ended: Ended) -> Ended:
    """The same, if its result can be seen from here."""
    if ended.kind == DONE and not any(store.places(ended.chunk.id)):
        what = "a worker wrote a result that cannot be seen from here: is the folder on a disk that all share?"
        return replace(ended, kind=FAILED, message=what, refusal=InputError("OUT-UNWRITABLE", what).finding)
    return ended
