"""One attempt at a chunk, in whatever process it runs: the result goes to the store, how it ended comes back as a value."""

from __future__ import annotations

import os
import pickle
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from bayesscale.batch.disk import DiskError
from bayesscale.batch.plan import Chunk
from bayesscale.batch.store import Store
from bayesscale.finding import Finding, InputError

DONE, FAILED, KILLED, UNWRITABLE = "done", "failed", "killed", "unwritable"
"""How an attempt can end; FAILED is by an error, KILLED took its process with it."""

type Within = Callable[[str, int, int], None]
"""Called with (stage, finished, total) inside a chunk."""


class Work(Protocol):
    """What computes chunks. It is sent to other processes, so it must pickle."""

    def run(self, chunk: Chunk, folder: Path, within: Within) -> Mapping[str, Any]:
        """Compute a chunk and write its files; returns what a manifest should remember: counts by status, tiers."""
        ...

    def give_up(self, chunk: Chunk, folder: Path, reason: str) -> Mapping[str, Any]:
        """Write the files of a unit that cannot be computed."""
        ...


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, and what the manifest says or what went wrong."""

    chunk: Chunk
    kind: str
    about: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    trace: str = ""
    refusal: Finding | None = None
    seconds: float = 0.0
    pid: int = 0
    error: BaseException | None = None
    """The error itself, where it happened in this process."""


def nowhere(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def attempt(work: Work, store: Store, chunk: Chunk, within: Within = nowhere) -> Ended:
    """Compute a chunk and store its result."""
    began = time.perf_counter()
    try:
        about = store.put(chunk.id, lambda folder: work.run(chunk, folder, within))
        ended = Ended(chunk, DONE, about)
    except DiskError as error:
        ended = Ended(chunk, UNWRITABLE, message=error.finding.message, refusal=error.finding)
    except InputError as error:
        ended = Ended(chunk, FAILED, message=str(error), refusal=error.finding, error=error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        ended = Ended(chunk, FAILED, message=message, trace=traceback.format_exc(), error=error)
    return Ended(**{**vars(ended), "seconds": time.perf_counter() - began, "pid": os.getpid()})


# To another process and back ------------------------------------------------------------------------------------------


def packed(work: Work, store: Store) -> bytes:
    """Work and store as bytes for another process of this user.

    Raises
    ------
    InputError : a law cannot be sent.
    """
    try:
        return dumps((work, store))
    except Exception as error:
        what = f"the work cannot be sent to another process ({type(error).__name__}: {error})"
        raise InputError("OPTIONS", what, fix="define the law in a file and name it with --law FILE.py:NAME") from None


def dumps(value: Any) -> bytes:
    """Pickle a value, functions of one's own file included where cloudpickle is there."""
    try:
        from cloudpickle import dumps as by_value
    except ImportError:
        return pickle.dumps(value)
    return by_value(value)


@lru_cache(maxsize=4)
def unpacked(data: bytes) -> tuple[Work, Store]:
    """The same work for the same bytes, so that a process compiles its programs once."""
    return pickle.loads(data)


def attempt_packed(data: bytes, chunk: Chunk) -> Ended:
    """Compute a chunk in a process that was sent the work; what comes back holds no exception."""
    ended = attempt(*unpacked(data), chunk)
    return Ended(**{**vars(ended), "error": None})
