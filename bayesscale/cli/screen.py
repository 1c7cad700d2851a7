"""What the commands print: tables, and how far the work has come.

Results go to stdout, progress and complaints to stderr. Names out of the user's data are printed as they are, never
read as markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

    from bayesscale.finding import Finding

PIPE_WIDTH = 140
"""Columns a table may take where there is no terminal to ask."""
EVERY = 10.0
"""Seconds between two plain lines of progress, at least."""


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr, wide where it is no terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False
    )


def say(text: str = "") -> None:
    """Print sentences on stdout: broken to a terminal's width, whole lines in a pipe."""
    console().print(Text(text), soft_wrap=not sys.stdout.isatty())


def show(title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; each column is (name, justification)."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(Text(name), justify=justify, overflow="fold")  # pyright: ignore[reportArgumentType]
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(Text(title, style="bold"), soft_wrap=not sys.stdout.isatty())
    console().print(table)


def number(value: Any, digits: int = 3) -> str:
    """A number for people; a dash where there is none."""
    if value is None or value != value:
        return "-"
    return f"{value:.{digits}g}"


def fixed(value: Any, decimals: int = 2) -> str:
    """A number with so many decimals; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{decimals}f}"


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    return [f"  {finding}" for finding in findings]


# Progress -------------------------------------------------------------------------------------------------------------


class Plain:
    """Progress as lines: one when a stage ends, and one now and then while it lasts. Stages follow one another."""

    def __init__(self) -> None:
        self.stage, self.done = "", 0
        self.began = self.printed = self.seen = time.perf_counter()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if stage != self.stage:
            self.stage, self.done, self.began = stage, 0, self.seen
        if done > self.done and (done >= total or now - self.printed >= EVERY):
            print(f"{stage} {done}/{total} {now - self.began:.1f} s", file=sys.stderr, flush=True)
            self.printed = now
        self.done, self.seen = max(done, self.done), now


@contextmanager
def progress() -> Iterator[Any]:
    """A callable (stage, finished, total): bars on a terminal, plain lines in a pipe."""
    if not sys.stderr.isatty():
        yield Plain()
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=console(stderr=True)) as display:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = display.add_task(stage, total=total)
            display.update(tasks[stage], total=total, completed=max(done, int(display.tasks[tasks[stage]].completed)))

        yield advance


def shorten(frame: pd.DataFrame, rows: int) -> tuple[pd.DataFrame, str]:
    """The first rows of a table, and a remark on the rest."""
    rest = len(frame) - rows
    return frame.head(rows), f"... and {rest} more" if rest > 0 else ""
