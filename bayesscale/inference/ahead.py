"""Compile ahead: what is needed soon is compiled beside what is being done.

A first fit compiles one program after another, and the compiler needs little of Python. A *rehearsal* calls a step that comes
later with arguments of the right shapes, in another thread; the step itself then finds its programs compiled. Results do not
depend on it. With one processor there is nothing to gain, and nothing is rehearsed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np

_rehearsed: dict[Hashable, Future[None]] = {}


@lru_cache(maxsize=1)
def processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def stage() -> ThreadPoolExecutor:
    """One thread, so that no two rehearsals build the same program."""
    return ThreadPoolExecutor(1, thread_name_prefix="compile ahead")


def rehearse(key: Hashable, step: Callable[[], object]) -> Callable[[], object]:
    """Let `step` run in another thread, once per key; what is returned waits for it. Errors are left to the step itself."""
    if processors() == 1:
        return lambda: None

    def quietly() -> None:
        with np.errstate(all="ignore"):  # the arguments are made up
            step()

    if key not in _rehearsed:
        _rehearsed[key] = stage().submit(quietly)
    return _rehearsed[key].exception
