"""How far a batch has come: fits done and failed, their rate, the time left, and how many needed stronger settings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bayesscale.batch.plan import FIT, Chunk


@dataclass(frozen=True)
class Progress:
    """A state of a batch.

    Attributes
    ----------
    chunk : the law of the chunk that just ended or is under way, "" where results were found.
    chunks, chunks_total, done, total : chunks, and fits of a curve by a law.
    under_way : fits of the chunk under way that seem done; not in `done`.
    seconds : since the start.
    rate : fits per second; 0 where nothing is known yet.
    left : seconds that remain at this rate; None where unknown.
    failed : fits that failed their checks or could not be made.
    tiers : fits by the tier that settled them.
    ended : whether a chunk just ended.
    """

    chunk: str
    chunks: int
    chunks_total: int
    done: int
    total: int
    under_way: float
    seconds: float
    rate: float
    left: float | None
    failed: int
    tiers: Mapping[str, int]
    ended: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"under_way": round(self.under_way, 1)}


type Watch = Callable[[Progress], None]


def unwatched(progress: Progress) -> None:
    """Look away."""


@dataclass
class Meter:
    """Counts what ends and tells whoever watches."""

    watch: Watch
    chunks_total: int
    total: int
    chunks: int = 0
    done: int = 0
    failed: int = 0
    tiers: Counter[str] = field(default_factory=Counter)
    fresh: int = 0
    """Fits made since the start: those found there say nothing about the rate."""
    began: float = field(default_factory=time.monotonic)
    told: float = 0.0

    def found(self, chunk: Chunk, about: Mapping[str, Any]) -> None:
        """Count a result, found or new."""
        self.chunks += 1
        self.done += len(chunk.units) * (chunk.kind == FIT)
        self.failed += about.get("counts", {}).get("fail", 0)
        self.tiers.update(about.get("tiers", {}))

    def ended(self, chunk: Chunk, about: Mapping[str, Any]) -> None:
        """Count a new result, and tell."""
        self.found(chunk, about)
        self.fresh += len(chunk.units) * (chunk.kind == FIT)
        self.tell(chunk.law, 0.0, ended=True)

    def within(self, law: str, done: int, total: int, fits: int) -> None:
        """Tell how far the chunk under way has come, a few times a second."""
        if total and time.monotonic() - self.told > 0.2:
            self.tell(law, fits * min(1.0, done / total), ended=False)

    def tell(self, law: str, under_way: float, *, ended: bool) -> None:
        self.told = time.monotonic()
        seconds = self.told - self.began
        made = self.fresh + under_way
        rate = made / seconds if seconds > 0 else 0.0
        left = (self.total - self.done - under_way) / rate if rate > 0 else None
        self.watch(
            Progress(
                chunk=law,
                chunks=self.chunks,
                chunks_total=self.chunks_total,
                done=self.done,
                total=self.total,
                under_way=under_way,
                seconds=round(seconds, 3),
                rate=round(rate, 4),
                left=None if left is None else round(left, 1),
                failed=self.failed,
                tiers=dict(sorted(self.tiers.items())),
                ended=ended,
            )
        )
