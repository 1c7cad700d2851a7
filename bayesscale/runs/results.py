"""What the jobs about repeated samples share: an account of fits, their tables, and the folder they go into.

A fit of any kind will do that has `name`, `status`, `findings`, `draws` and `summary()`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bayesscale.finding import Finding, InputError
from bayesscale.inference.settings import Progress
from bayesscale.runs.folder import RESAMPLING_FORMAT, slug
from bayesscale.runs.job import Clock, Report

if TYPE_CHECKING:
    import pandas as pd

STATUSES = ("ok", "warn", "fail")
FINDING = ("model", "law", "scope", "code", "grade", "where", "message", "advice")


class Fitted(Protocol):
    """A fit that a run can account for."""

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...
    def summary(self) -> pd.DataFrame: ...


@dataclass(frozen=True, eq=False)
class Labelled[F: Fitted]:
    """A fit, the number of its model and the label of what was fitted, such as the law's name."""

    index: int
    label: str
    fit: F

    @property
    def file(self) -> str:
        """Where the fit goes, relative to the run's folder; a hash tells apart what readable names do not."""
        identity = f"{self.index}|{self.fit.name}|{self.label}"
        return f"fits/{slug(self.fit.name, self.label)}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.nc"


@dataclass(frozen=True, eq=False)
class Outcome[F: Fitted]:
    """What a run found, and where it is."""

    folder: Path
    fits: Sequence[Labelled[F]]
    tables: Mapping[str, pd.DataFrame]
    about: Mapping[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        return self.about["counts"]


# Tables ---------------------------------------------------------------------------------------------------------------


def key_columns(key_names: Sequence[str], keys: Sequence[Sequence[str]], taken: Sequence[str]) -> dict[str, list[str]]:
    """Labels of each model by column, where several columns name it; a taken name gets an underscore appended."""
    columns: dict[str, list[str]] = {}
    for place, name in enumerate(key_names if len(key_names) > 1 else ()):
        while name in (*taken, *columns):
            name += "_"
        columns[name] = [key[place] for key in keys]
    return columns


def with_keys(table: pd.DataFrame, key_names: Sequence[str], keys: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Put the key columns after `model`, looked up by the model's number in `model_index`."""
    at = list(table.columns).index("model") + 1
    for place, (name, labels) in enumerate(key_columns(key_names, keys, list(table.columns)).items()):
        table.insert(at + place, name, [labels[i] for i in table["model_index"]])
    return table


def summary_table(
    fits: Sequence[Labelled[Any]], key_names: Sequence[str], keys: Sequence[Sequence[str]]
) -> pd.DataFrame:
    """One row per fit and quantity: mean, sd, quantiles, diagnostics, contraction, status, and the fit's file."""
    import numpy as np
    import pandas as pd

    with np.errstate(invalid="ignore"):  # a tail index may be infinite in all draws: it then has no sd
        tables = [
            each.fit.summary().assign(law=each.label, status=each.fit.status, fit=each.file, model_index=each.index)
            for each in fits
        ]
    return with_keys(pd.concat(tables, ignore_index=True), key_names, keys)


def findings_table(
    about_data: Sequence[Finding], fits: Sequence[Labelled[Any]], others: Sequence[Finding] = ()
) -> pd.DataFrame:
    """One row per finding: about the data, about a fit, or about an answer."""
    import pandas as pd

    rows = [{"model": f.where, "law": "", "scope": "data", **f.as_dict()} for f in about_data]
    rows += [
        {"model": each.fit.name, "law": each.label, "scope": "fit", **f.as_dict()}
        for each in fits
        for f in each.fit.findings
    ]
    rows += [{"model": f.where, "law": "", "scope": "answer", **f.as_dict()} for f in others]
    return pd.DataFrame(rows, columns=pd.Index(FINDING))


def count_statuses(fits: Sequence[Labelled[Any]]) -> dict[str, int]:
    """How many fits ended in each status."""
    ends = [each.fit.status for each in fits]
    return {status: ends.count(status) for status in STATUSES}


def models_to_draw[F: Fitted](fits: Sequence[Labelled[F]], limit: int) -> list[list[Labelled[F]]]:
    """Fits by model, those whose first fit ended worst first, then in the order given."""
    groups: dict[int, list[Labelled[F]]] = {}
    for each in fits:
        groups.setdefault(each.index, []).append(each)
    ranked = sorted(groups.values(), key=lambda group: STATUSES[::-1].index(group[0].fit.status))
    return ranked[:limit]


def stage(report: Report, name: str) -> Progress:
    """Report the progress of one stage."""
    return lambda done, total: report(name, done, total)


# The folder -----------------------------------------------------------------------------------------------------------


def write_results[F: Fitted](
    folder: Path,
    fits: Sequence[Labelled[F]],
    save: Callable[[F, Path], Path],
    tables: Mapping[str, pd.DataFrame],
    about: Mapping[str, Any],
    meanings: Mapping[str, str],
    notes: Sequence[str],
) -> None:
    """Write fits, tables, `run.json` and a table of contents; `meanings` says what each table holds."""
    (folder / "fits").mkdir()
    for each in fits:
        save(each.fit, folder / each.file)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / "run.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        f"Results of bayesscale {about['versions']['bayesscale']} {about['command']}, {about['finished']}.",
        "",
        *(f"{name}.parquet".ljust(20) + meanings[name] for name in tables),
        "fits/".ljust(20) + "one netCDF file per fit, read by any reader of ArviZ data",
        *(["plots/".ljust(20) + "pictures (PNG)"] if (folder / "plots").exists() else []),
        "run.json".ljust(20) + "versions, seed, settings, SHA-256 of the inputs, counts by status, seconds per stage",
        "",
        *notes,
        "Intervals: eti90_lower to eti90_upper (or q05 to q95) is the 90% equal-tailed posterior interval, eti50 (or",
        "q25 to q75) the 50% one; ci90 is a 90% confidence interval of an estimate without any law.",
        "Status: ok, warn (usable, look at the findings), fail (do not use).",
        "",
    ]
    (folder / "README.txt").write_text("\n".join(lines), encoding="utf-8")


def description(command: str, fits: Sequence[Labelled[Any]], clock: Clock, **more: Any) -> dict[str, Any]:
    """What was run, on what, and how it ended; JSON-like."""
    if not fits:
        raise InputError("RUN-EMPTY", "there is no model to fit", fix="check the table and the options")
    return {
        "format": RESAMPLING_FORMAT,
        "command": command,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **more,
        "counts": count_statuses(fits),
        "timings": dict(clock.laps),
        **fits[0].fit.draws.provenance,
    }
