"""Programs compiled once and kept between commands.

Compiling takes most of a first, small fit. jax can keep compiled programs on disk; what is read from there is run, so the
folder has to be the user's own and nobody else's to write to.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bayesscale.finding import InputError

VARIABLE = "BAYESSCALE_COMPILE_CACHE"


def cache_folder() -> Path:
    """The user's folder for compiled programs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bayesscale" / "programs"


def keep_programs() -> None:
    """Have jax, which has not been imported yet, keep and reuse compiled programs; workers inherit it.

    Raises
    ------
    InputError : the folder cannot be made, or others may write to it.
    """
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise InputError(
            "COMPILE-CACHE", f"cannot be made: {error.strerror}", where=str(folder), fix="leave --compile-cache out"
        ) from None
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        what = "belongs to somebody else or others may write to it, and what it holds is run"
        raise InputError(
            "COMPILE-CACHE", what, where=str(folder), fix=f"chmod 700 {folder}, or leave --compile-cache out"
        )
    # What compiles within a second is kept too: there are many such programs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    os.environ.setdefault("BAYESSCALE_TRACES", str(folder / "traces"))
