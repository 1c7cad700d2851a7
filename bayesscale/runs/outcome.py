"""What a finished run found, and where it is. Tables and fits are read when asked for: there may be many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesscale.law import Law
from bayesscale.runs.stored import StoredRun

if TYPE_CHECKING:
    import pandas as pd

    from bayesscale.result import Fit


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run.

    `about` is its `run.json`; its `counts` are of curves × laws by status, its `holdout_failed` forecasts that rest on a failed
    fit. `laws` are those that were fitted.
    """

    folder: Path
    about: Mapping[str, Any]
    laws: tuple[Law, ...]

    @property
    def counts(self) -> dict[str, int]:
        return self.about["counts"]

    @property
    def holdout_failed(self) -> int:
        return self.about["holdout_failed"]

    @cached_property
    def stored(self) -> StoredRun:
        return StoredRun(self.folder, self.about)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A table, or some of its columns."""
        return self.stored.table(name, columns)

    def fits(self, laws: Sequence[str], curve: str = "") -> list[Fit]:
        """The fits of these laws to the curves whose name holds `curve`."""
        return self.stored.fits(laws, curve, {law.name: law for law in self.laws})
