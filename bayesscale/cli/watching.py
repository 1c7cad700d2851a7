"""How `fit` says how far it has come: a bar on a terminal, a line per chunk in a pipe, lines of JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bayesscale.cli.screen import console, progress

if TYPE_CHECKING:
    from bayesscale.batch.progress import Progress

type Watch = Callable[[Progress], None]
type Report = Callable[[str, int, int], None]


def warn(text: str) -> None:
    """Say a sentence on stderr."""
    print(f"bayesscale: {text}", file=sys.stderr, flush=True)


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds; a dash where unknown."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def details(state: Progress) -> str:
    """Rate, time left, failures, and how many fits needed stronger settings."""
    parts = [f"{state.rate:.3g} fits/s", f"{duration(state.left)} left"]
    parts += [f"{state.failed} failed"] if state.failed else []
    stronger = {tier: count for tier, count in state.tiers.items() if tier != "0"}
    parts += [f"{count} in tier {tier}" for tier, count in stronger.items()]
    return ", ".join(parts)


def chunk_line(state: Progress) -> str:
    """A chunk that ended, as a line."""
    what = state.chunk or "found"
    return f"{what}: chunk {state.chunks}/{state.chunks_total}, {state.done}/{state.total} fits, {details(state)}"


def json_line(state: Progress) -> str:
    return json.dumps({"event": "chunk", **state.as_dict()})


@contextmanager
def watching(*, as_json: bool) -> Iterator[tuple[Watch, Report]]:
    """What to call with the progress of fits, and with that of the stages that follow."""
    if as_json:
        yield (lambda state: print(json_line(state), flush=True) if state.ended else None), silent
    elif not sys.stderr.isatty():
        with progress() as report:
            yield (lambda state: print(chunk_line(state), file=sys.stderr, flush=True) if state.ended else None), report
    else:
        with bar() as watch, progress() as report:
            yield watch, report


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def bar() -> Iterator[Watch]:
    """A bar over all fits; it goes when the fits are done, and leaves a line."""
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[details]}", markup=False),
    )
    display = bars.Progress(*columns, console=console(stderr=True))
    state: dict[str, Any] = {}

    def watch(now: Progress) -> None:
        if not state:
            display.start()
            state["task"] = display.add_task("fits", total=now.total, details="")
        done = min(int(now.done + now.under_way), now.total)
        display.update(state["task"], description=now.chunk or "fits", completed=done, details=details(now))
        if now.chunks == now.chunks_total:
            display.stop()

    try:
        yield watch
    finally:
        display.stop()
