"""Small tables on the terminal, and what a reader needs to know about the run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import ArrayLike

PACKAGES = ("jax", "jaxlib", "numpyro", "numpy", "scipy", "blackjax", "nutpie", "pymc", "pytensor", "numba")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded."""
    widths = [max(len(row[j]) for row in [header, *rows]) for j in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in [header, *rows]
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits, without an exponent where it can be avoided."""
    if value is None or not np.isfinite(value):
        return "n/a"
    return f"{value:.{max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))}f}" if value else "0"


def spread(values: ArrayLike) -> str:
    """min / median / max."""
    values = np.asarray(values, float)
    return " / ".join(number(v) for v in (values.min(), np.median(values), values.max()))


def circumstances(cores: Sequence[int]) -> str:
    """Date, machine, load and versions."""
    have = []
    for name in PACKAGES:
        try:
            have.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    load = " ".join(f"{x:.1f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    processor = processor_name()
    where = f"core {', '.join(map(str, cores))}" if cores else "not pinned"
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {processor}, {os.cpu_count()} cores, {where}; load average {load}\n"
        f"Python {platform.python_version()}, {', '.join(have)}"
    )


def processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()
