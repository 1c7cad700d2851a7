"""Gathering: tables of chunks become one table, a window of curves at a time, so that memory stays flat.

Chunks hold curves in the order of the plan but cut by width and law, so every window reads few of them. Rows come out in
the order of the plan whatever the chunks, so a run that was stopped, cut or shared out writes the bytes of one that was not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ORDER = "_order"
"""Column of a chunk's tables: the place in the plan that a row belongs to."""
WINDOW = 1024
"""Curves whose rows are put in order together."""
ROW_GROUP = 50_000
"""Rows that are written together, at least."""

type Finish = Callable[[pd.DataFrame], pd.DataFrame]
"""Completes rows with what only all curves together tell."""


@dataclass(frozen=True)
class Piece:
    """The folder of a chunk's result, the places of its first and last curve, and the place of its law."""

    folder: Path
    first: int
    last: int
    law: int


def read_part(folder: Path, table: str, columns: tuple[str, ...] | None = None) -> pd.DataFrame:
    """A chunk's table, or some of its columns."""
    return pq.ParquetFile(folder / f"{table}.parquet").read(None if columns is None else list(columns)).to_pandas()


def columns_of(pieces: Sequence[Piece], table: str, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of all chunks, texts as categories, so that a hundred thousand curves fit."""
    parts = [pq.ParquetFile(p.folder / f"{table}.parquet").read(list(columns)) for p in pieces]
    whole = pa.concat_tables(parts)
    texts = [
        name for name in columns if pa.types.is_large_string(t := whole.schema.field(name).type) or t == pa.string()
    ]
    for name in texts:
        at = whole.schema.get_field_index(name)
        whole = whole.set_column(at, name, whole.column(at).dictionary_encode())
    return whole.to_pandas()


def write_table(
    path: Path, table: str, pieces: Sequence[Piece], curves: int, *, sort: Sequence[str] = (), finish: Finish | None = None,
    before: Sequence[pd.DataFrame] = (),
) -> int:  # fmt: skip
    """Merge a table of all chunks into one file: law by law, or with `sort` curve by curve; returns how many rows.

    `finish` completes the rows of a window, `before` are rows that come first.
    """
    laws = [pieces] if sort else [[p for p in pieces if p.law == law] for law in sorted({p.law for p in pieces})]
    rows = 0
    with RowGroups(path) as out:
        for frame in before:
            out.write(frame)
            rows += len(frame)
        for own in laws:
            for frame in windows(own, table, curves):
                frame = frame.sort_values([ORDER, *sort], kind="stable", ignore_index=True).drop(columns=ORDER)
                frame = finish(frame) if finish else frame
                out.write(frame)
                rows += len(frame)
    return rows


def windows(pieces: Sequence[Piece], table: str, curves: int) -> Iterator[Any]:
    """Rows of a window of curves after the other."""
    read = lru_cache(maxsize=32)(read_part)
    for begin in range(0, max(curves, 1), WINDOW):
        end = begin + WINDOW
        parts = [read(p.folder, table) for p in pieces if p.first < end and p.last >= begin]
        inside = [part.loc[(part[ORDER] >= begin) & (part[ORDER] < end)] for part in parts]
        if inside:
            yield pd.concat(inside, ignore_index=True)


class RowGroups:
    """A Parquet file that is written a row group at a time, all of one schema."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Any = None
        self.held: list[pa.Table] = []

    def __enter__(self) -> RowGroups:
        return self

    def write(self, frame: pd.DataFrame) -> None:
        schema = None if self.writer is None else self.writer.schema
        self.held.append(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, self.held[0].schema)
        if sum(part.num_rows for part in self.held) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        if self.held:
            self.writer.write_table(pa.concat_tables(self.held))
            self.held = []

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.flush()
            self.writer.close()


def link_files(pieces: Sequence[Piece], suffix: str, target: Path) -> int:
    """Give files of the chunks a second name under `target`, or copy them where the disk knows no second names."""
    target.mkdir()
    count = 0
    for piece in pieces:
        for path in sorted(piece.folder.glob(f"*{suffix}")):
            try:
                os.link(path, target / path.name)
            except OSError:
                shutil.copyfile(path, target / path.name)
            count += 1
    return count
