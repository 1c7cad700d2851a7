"""The folder a run writes: whole or not at all.

Results go into a hidden folder beside the one asked for, which is renamed at the end. A folder that holds anything
but an earlier run is never replaced.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bayesscale.finding import InputError

FORMAT = "bayesscale run 1"
"""What `run.json` says it is."""
RESAMPLING_FORMAT = "bayesscale resampling 1"
"""What it says in a run about repeated samples: pass@k, a verifier, votes."""


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a place that holds anything, unless it is an earlier run and may be replaced.

    Raises
    ------
    InputError : a file, somebody's folder, or a run that may not be replaced.
    """
    if out.exists() and not out.is_dir():
        raise InputError("OUT-EXISTS", "this is a file", where=str(out), fix="name a new folder with --out")
    if out.exists() and out.samefile(Path.cwd()):
        raise InputError(
            "OUT-EXISTS", "this is the working directory", where=str(out), fix="name a new folder with --out"
        )
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        fix = "name another with --out, or replace it with --overwrite"
        raise InputError("OUT-EXISTS", "the folder is not empty", where=str(out), fix=fix)
    if not is_run(out, FORMAT, RESAMPLING_FORMAT):
        what = "the folder is not empty and holds no run of bayesscale, so it will not be replaced"
        raise InputError("OUT-EXISTS", what, where=str(out), fix="name another with --out")


def is_run(folder: Path, *formats: str) -> bool:
    """Whether a folder holds a run of one of these formats; by default of `bayesscale fit`."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["format"] in (formats or (FORMAT,))
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def replacing(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A hidden folder that takes the place of `out` when the block ends well, and is gone when it does not."""
    check_folder(out, overwrite=overwrite)
    target = out.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    except OSError as error:
        what = f"the folder cannot be made ({error.strerror or error})"
        raise InputError("OUT-UNWRITABLE", what, where=str(out), fix="name another with --out") from None
    try:
        yield temporary
        check_folder(out, overwrite=overwrite)
        swap(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def swap(new: Path, target: Path) -> None:
    """Put a folder in the place of another; the old one is removed only when the new one stands."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def slug(*parts: str, length: int = 60) -> str:
    """A file name for people: ASCII letters, digits and dashes."""
    plain = unicodedata.normalize("NFKD", "-".join(parts)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:length].strip("-") or "fit"
