"""One writer per folder: a lock file that says who holds it and that its owner still lives.

The file is made with O_EXCL and touched every few seconds. A lock whose owner is dead (its process is gone, the machine was
started again, or another machine's owner has not touched it for minutes) is taken over, by one taker at a time.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayesscale.batch.disk import alive, boot, born, disk_errors, write_whole
from bayesscale.finding import InputError

BEAT = 10.0
"""Seconds between two touches."""
SILENCE = 180.0
"""Seconds without a touch after which another machine's owner is taken for dead."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock while the block runs.

    Raises
    ------
    InputError : another process holds it.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = take(path)
    stop = threading.Event()
    heart = threading.Thread(target=beat, args=(path, stop), daemon=True)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()
        if owner_of(path) == mine:
            path.unlink(missing_ok=True)


def take(path: Path) -> Mapping[str, Any]:
    """Make the lock, or take over a dead owner's."""
    mine = {"pid": os.getpid(), "born": born(os.getpid()), "host": socket.gethostname(), "boot": boot()}
    text = json.dumps(mine).encode()
    with guarded(path.with_name(f"{path.name}.guard")):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            refuse_living(path)
            write_whole(path, text)
        else:
            with os.fdopen(handle, "wb") as stream:
                stream.write(text)
    return mine


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Let one process at a time look at the lock and decide; the system lets go when a process dies."""
    if os.name != "posix":
        yield
        return
    import fcntl

    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def owner_of(path: Path) -> Mapping[str, Any]:
    """Who holds the lock; empty where it was not written to its end, which only a dead owner leaves behind."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def refuse_living(path: Path) -> None:
    """Refuse to go on beside a living owner."""
    owner = owner_of(path)
    if not owner or not is_alive(owner, path):
        return
    what = f"another bayesscale (process {owner['pid']} on {owner['host']}) is writing here"
    raise InputError("OUT-IN-USE", what, where=str(path.parent.parent), fix="wait until it ends, or stop it")


def is_alive(owner: Mapping[str, Any], path: Path) -> bool:
    """Whether the owner of a lock is alive, as far as one can know."""
    if owner["host"] != socket.gethostname():
        return silence(path) < SILENCE
    if owner["boot"] != boot():
        return False
    return alive(owner["pid"]) and (not owner["born"] or born(owner["pid"]) == owner["born"])


def silence(path: Path) -> float:
    """Seconds since the lock was touched, by the clock of the disk it is on."""
    probe = path.with_name(f"{path.name}.probe.{os.getpid()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def beat(path: Path, stop: threading.Event) -> None:
    """Touch the lock until told to stop."""
    while not stop.wait(BEAT):
        try:
            os.utime(path)
        except OSError:
            time.sleep(0)  # the disk's trouble is told by the next result written
