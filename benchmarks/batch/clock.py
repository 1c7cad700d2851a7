"""Processor and wall time, compilations, and the core a process may use. Imports nothing that starts threads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


def available() -> list[int]:
    """The cores this process may use, or [] where it cannot know."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(cores: int) -> list[int]:
    """Restrict this process to its first `cores` cores; call before importing jax. Returns them, or [] where it cannot."""
    chosen = available()[:cores]
    if chosen:
        os.sched_setaffinity(0, chosen)
    return chosen


@dataclass
class Spent:
    """Seconds of processor and wall time, and what XLA compiled meanwhile (with the wall seconds that took)."""

    cpu: float = 0.0
    wall: float = 0.0
    compiles: int = 0
    compile_seconds: float = 0.0


_COMPILED: list[float] = []


def _hear(event: str, seconds: float, **_: object) -> None:
    if event == COMPILE_EVENT:
        _COMPILED.append(seconds)


def count_compilations() -> None:
    """Listen to XLA's compilations from now on; calling it again changes nothing."""
    import jax

    if not getattr(count_compilations, "on", False):
        jax.monitoring.register_event_duration_secs_listener(_hear)
        count_compilations.on = True  # pyright: ignore[reportFunctionMemberAccess]


@contextmanager
def measured() -> Iterator[Spent]:
    """Fill a `Spent` when the block ends. What runs inside must have finished by then (results on the host)."""
    spent, heard = Spent(), len(_COMPILED)
    cpu, wall = time.process_time(), time.perf_counter()
    yield spent
    spent.cpu, spent.wall = time.process_time() - cpu, time.perf_counter() - wall
    spent.compiles, spent.compile_seconds = len(_COMPILED) - heard, sum(_COMPILED[heard:])
