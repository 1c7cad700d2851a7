"""Records: a table as text, before anything in it is believed.

Every cell is text exactly as the file had it; empty text is the only missing value. Each row knows its file and the
physical line on which it starts, so that whatever is wrong can be pointed at.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesscale.finding import Finding, InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Fault:
    """Why one row cannot be used: which column, what it held, what is wrong with it, how to repair it."""

    code: str
    what: str
    fix: str
    column: str = ""
    value: str = ""

    def at(self, place: str) -> Finding:
        cell = f" {self.column}={shown(self.value)}" if self.column else ""
        return Finding(self.code, "warn", self.what, self.fix, where=place + cell)


@dataclass(frozen=True)
class Records:
    """The needed columns of one or more tables.

    Attributes
    ----------
    cells : (row,) texts by column name.
    sources : what to write before a row's number, one per file, for example ``"runs.csv:"``.
    source : (row,) index into `sources`.
    line : (row,) physical line (or row) number in its file.
    faults : rows already known to be broken, by row index.
    findings : what was noticed about the files as a whole.
    """

    cells: Mapping[str, list[str]]
    sources: tuple[str, ...]
    source: NDArray[np.int64]
    line: NDArray[np.int64]
    faults: Mapping[int, Fault]
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.line)

    def place(self, row: int) -> str:
        """Where `row` came from, for example ``"runs.csv:17"``."""
        return f"{self.sources[self.source[row]]}{self.line[row]}"


def one_source(
    cells: Mapping[str, list[str]],
    source: str,
    line: NDArray[np.int64],
    faults: Mapping[int, Fault] | None = None,
    findings: Iterable[Finding] = (),
) -> Records:
    """Records that all come from `source`."""
    return Records(cells, (source,), np.zeros(len(line), np.int64), line, faults or {}, tuple(findings))


def concatenate(parts: Sequence[Records]) -> Records:
    """The rows of all `parts`, which share their columns, in order."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    first_source = np.cumsum([0, *(len(part.sources) for part in parts)])
    return Records(
        cells={name: [cell for part in parts for cell in part.cells[name]] for name in parts[0].cells},
        sources=tuple(source for part in parts for source in part.sources),
        source=np.concatenate([part.source + first for part, first in zip(parts, first_source, strict=False)]),
        line=np.concatenate([part.line for part in parts]),
        faults={
            int(start) + row: fault
            for part, start in zip(parts, starts, strict=False)
            for row, fault in part.faults.items()
        },
        findings=tuple(finding for part in parts for finding in part.findings),
    )


def shown(text: str, limit: int = 40) -> str:
    """`text` safe and short enough for one line of a message."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= limit else text[: limit - 3] + "..."


def demand_columns(found: Sequence[str], needed: Sequence[str], where: str) -> None:
    """Refuse a table with duplicate column names or without a needed column."""
    twice = sorted(name for name, count in Counter(found).items() if name and count > 1)
    if twice:
        raise InputError(
            "FILE-COLUMN-TWICE", f"column {shown(twice[0])!r} appears more than once", where=where,
            fix="rename or delete one of them",
        )  # fmt: skip
    missing = [name for name in needed if name not in found]
    if missing:
        near = {name: difflib.get_close_matches(name, found, n=2, cutoff=0.5) for name in missing}
        hints = [f"{name!r} may be {' or '.join(map(repr, close))}" for name, close in near.items() if close]
        listed = ", ".join(shown(name) for name in found[:40]) + (" ..." if len(found) > 40 else "")
        raise InputError(
            "FILE-COLUMN-MISSING", f"no column {', '.join(map(repr, missing))}; found: {listed}", where=where,
            fix="; ".join(hints) or "name a column that is there",
        )  # fmt: skip


def records_from_frame(frame: pd.DataFrame, needed: Sequence[str]) -> Records:
    """The `needed` columns of a data frame as text; a missing value becomes empty text."""
    demand_columns([str(name) for name in frame.columns], needed, "frame")
    if frame.empty:
        raise InputError("FILE-NO-ROWS", "no data rows", where="frame")
    by_name = {str(name): position for position, name in enumerate(frame.columns)}
    cells = {name: _column_text(frame.iloc[:, by_name[name]]) for name in needed}
    return one_source(cells, "frame:iloc ", np.arange(len(frame)))


def _column_text(column: pd.Series) -> list[str]:
    missing = column.isna().to_numpy()
    return ["" if gone else _cell_text(value) for gone, value in zip(missing, column.array, strict=True)]


def _cell_text(value: Any) -> str:
    # A whole float is written as a whole number: pandas turns the run ids 1, 2, missing into 1.0, 2.0, NaN.
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)
