"""Writing that survives: to the disk before the name, and the name before anything that relies on it.

A disk that is full, gone or forbidden is no error of a curve: it stops the run in one sentence, and the run can be resumed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from bayesscale.finding import InputError

TROUBLES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk does not answer (input/output error)",
}
"""Errors of the disk, in words."""


class DiskError(InputError):
    """The folder cannot be written; what is finished is kept, and the same command resumes."""

    def __init__(self, what: str, where: str) -> None:
        fix = "mend that and run the same command again; all that was finished is kept"
        super().__init__("OUT-UNWRITABLE", what, where=where, fix=fix)


def trouble(error: OSError) -> str | None:
    """The disk's trouble in words, or nothing where the error is another one."""
    return TROUBLES.get(error.errno or 0)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn trouble with the disk into a `DiskError`."""
    try:
        yield
    except OSError as error:
        if (what := trouble(error)) is None:
            raise
        raise DiskError(what, str(where)) from None


def reached(point: str) -> None:
    """A place where a kill would hurt most; tests stop the process here."""


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in place whole or not at all."""
    temporary = path.with_name(f".{path.name}.{writer()}.partial")
    with disk_errors(path):
        try:
            temporary.write_bytes(data)
            sync_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Who writes -----------------------------------------------------------------------------------------------------------


def writer() -> str:
    """Host and process, as part of a temporary name."""
    return f"{socket.gethostname()}.{os.getpid()}"


@lru_cache(maxsize=1)
def boot() -> str:
    """What tells one start of this machine from the next; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def born(pid: int) -> str:
    """When a process of this machine began, in its own units: a number used again is another process. Empty if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
