"""A finished run, read back: its tables and its fits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bayesscale.comparison import Comparison
from bayesscale.decisions.threshold import crossing
from bayesscale.finding import InputError
from bayesscale.law import Law
from bayesscale.precision import enable_float64
from bayesscale.prediction import Kind
from bayesscale.result import Fit, load
from bayesscale.runs.folder import is_run
from bayesscale.runs.verdict import verdict

POINTS = ("curve_index", "law", "share", "log_score", "pit")
"""Columns of the forecasts that comparisons and pictures read."""


@dataclass(frozen=True)
class StoredRun:
    """The folder of a run and what its `run.json` says."""

    folder: Path
    about: Mapping[str, Any]

    @classmethod
    def at(cls, folder: Path) -> StoredRun:
        """Open the run in a folder.

        Raises
        ------
        InputError : there is none.
        """
        if not is_run(folder):
            raise InputError(
                "RUN-MISSING", "no run was written here", where=str(folder), fix="run bayesscale fit first"
            )
        return cls(folder, json.loads((folder / "run.json").read_text(encoding="utf-8")))

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One of the tables, or some of its columns."""
        path = self.folder / f"{name}.parquet"
        try:
            return pd.read_parquet(path, columns=None if columns is None else list(columns))
        except (OSError, ValueError) as error:
            raise InputError("RUN-DAMAGED", f"this table cannot be read ({error})", where=str(path)) from None

    @cached_property
    def comparison(self) -> pd.DataFrame:
        return self.table("comparison")

    @property
    def laws(self) -> list[str]:
        return self.about["laws"]

    @property
    def shares(self) -> list[float]:
        return self.about["shares"]

    def verdict(self, *, metric: str = "crps", share: float | None = None, reference: str | None = None) -> Comparison:
        """Which law predicted best; see `bayesscale.runs.verdict.verdict`."""
        points, keys = self.table("forecasts", POINTS), self.about["key_names"]
        return verdict(self.comparison, points, keys, metric=metric, share=share, reference=reference)

    def best_law(self) -> str:
        """The best predictor that was fitted, else the first law."""
        try:
            ranked = self.verdict().table["law"]
        except InputError:
            return self.laws[0]
        return next((law for law in ranked if law in self.laws), self.laws[0])

    def fits(self, laws: Sequence[str], curve: str = "", own: Mapping[str, Law] | None = None) -> list[Fit]:
        """Load the fits of these laws to the curves whose name holds `curve`; `own` are laws that are in no table."""
        enable_float64()  # as when they were fitted: the same draws then give the same predictions
        rows = self.comparison
        rows = rows[rows["law"].isin(list(laws)) & rows["curve"].str.contains(curve, case=False, regex=False)]
        files = rows.loc[rows["fit"] != "", ["fit", "law"]].drop_duplicates()
        return [load(self.folder / file, law=(own or {}).get(law)) for file, law in files.itertuples(index=False)]

    def names(self, fit: Fit) -> list[str]:
        """Names of a fit's curves; a joint fit has several."""
        known = self.comparison.drop_duplicates("curve_index").set_index("curve_index")["curve"]
        return [str(known[i]) for i in fit.unit.members[0]]

    def predictions(self, fits: Sequence[Fit], shots: Sequence[float], kind: str, *, seed: int = 0) -> pd.DataFrame:
        """One row per curve, law and shot count."""
        tables = [
            fit.predict(shots, cast(Kind, kind), task=task, seed=seed)
            .table()
            .assign(curve=name, law=fit.law.name, status=fit.status)
            for fit in fits
            for task, name in enumerate(self.names(fit))
        ]
        return pd.concat(tables, ignore_index=True)

    def crossings(
        self, fits: Sequence[Fit], threshold: float, *, kind: str = "mean", horizon: float | None = None, seed: int = 0
    ) -> pd.DataFrame:
        """One row per curve and law: the shots at which a threshold is reached."""
        rows = [
            crossing(fit, threshold, horizon=horizon, kind=cast(Kind, kind), task=task, seed=seed).row()
            | {"curve": name, "status": fit.status}
            for fit in fits
            for task, name in enumerate(self.names(fit))
        ]
        return pd.DataFrame(rows)


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet read a text as a formula."""


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table; texts that a spreadsheet would run as a formula get a leading quote."""
    safe = table.copy()
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = [f"'{text}" if str(text).startswith(FORMULA) else text for text in safe[name]]
    safe.to_csv(path, index=False)
