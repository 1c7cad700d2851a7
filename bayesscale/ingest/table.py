"""Tables: learning curves from CSV, TSV and Parquet files.

`read_curves` is the door. The caller names the columns; the content of each file, not its name, decides the format.
Everything is read as text first, so that the ids ``001``, ``NA`` and ``1e5`` stay what they are; only an empty cell is
missing. What cannot be used is set aside row by row with file, line, column, value and a repair, or refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.ingest.decode import read_records
from bayesscale.ingest.records import concatenate
from bayesscale.ingest.roles import Roles
from bayesscale.ingest.rows import curves_from_records

Path = str | os.PathLike[str]


def read_curves(
    paths: Path | Sequence[Path],
    *,
    curve: Sequence[str],
    x: str = "shots",
    successes: str | None = None,
    trials: str | None = None,
    nll: str | None = None,
    prob: str | None = None,
    se: str | None = None,
    run: str | None = None,
    condition: str | None = None,
    chance: str | float | None = None,
    shot_offset: float = 0.0,
    covariates: Sequence[str] = (),
    sep: str | None = None,
    strict: bool = False,
    max_bad_fraction: float = 0.05,
) -> Curves:
    """Curves from one or many tables that share the named columns.

    curve : columns whose texts together name a curve.
    x : demonstrations; `shot_offset` is added to make them demonstrations already seen.
    successes, trials | prob, se | nll, se : the observation, exactly one kind; an empty `se` is unknown.
    run : replicate runs of one curve; without it each curve has one row per shots.
    condition : joins the key, and is a covariate too if all its values are numbers.
    chance : accuracy of guessing, a column or one number.
    covariates : numeric columns, constant within a curve.
    sep : the separator of text files; a comma by default, a tab for ``.tsv``.
    strict : refuse the input at the first row that would be set aside.
    max_bad_fraction : refuse the input if more than this share of its rows would be set aside.
    """
    if not 0 <= max_bad_fraction <= 1:
        raise InputError("OPTIONS", f"max_bad_fraction must lie in [0, 1], got {max_bad_fraction}")
    roles = Roles.of(
        curve=curve, x=x, successes=successes, trials=trials, nll=nll, prob=prob, se=se, run=run,
        condition=condition, chance=chance, shot_offset=shot_offset, covariates=covariates,
    )  # fmt: skip
    records = concatenate([read_records(path, roles.needed, sep) for path in listed_paths(paths)])
    return curves_from_records(records, roles, strict=strict, max_bad_fraction=max_bad_fraction)


def file_digests(paths: Path | Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file's bytes, by path: what a result was made from."""
    digests = {}
    for path in listed_paths(paths):
        try:
            with open(path, "rb") as stream:
                digests[os.fspath(path)] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError("FILE-MISSING", error.strerror or str(error), where=os.fspath(path)) from None
    return digests


def listed_paths(paths: Path | Sequence[Path]) -> list[Path]:
    """One path or many as a list of at least one."""
    listed: list[Path] = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not listed:
        raise InputError("OPTIONS", "no files named", fix="give at least one path")
    return listed
