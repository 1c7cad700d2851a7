"""Progress of long benchmarks, a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable


def progress_lines(label: str, every: float = 30.0) -> Callable[[int, int], None]:
    """Print how far a call has come, at most every so many seconds."""
    last = time.perf_counter()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.perf_counter() - last > every:
            print(f"  {label}: {done} of {total}", flush=True)
            last = time.perf_counter()

    return report
