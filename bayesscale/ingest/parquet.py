"""Parquet: the needed columns as text, exactly; caps are checked in the metadata before any data is read.

Only plain columns are converted (text, numbers, booleans, decimals, dates and dictionaries of these). Lists, structs,
raw bytes and extension types are refused by name: nothing stored in a file is ever executed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from bayesscale.finding import InputError
from bayesscale.ingest.records import Records, demand_columns, one_source

MAX_BYTES = 8 * 2**30
FAILURES = (pa.ArrowException, OSError, ValueError)
PLAIN = (
    kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_integer, kinds.is_floating,
    kinds.is_boolean, kinds.is_decimal, kinds.is_date, kinds.is_timestamp, kinds.is_null,
)  # fmt: skip


def read_parquet(path: str, needed: Sequence[str], *, max_rows: int) -> Records:
    """The `needed` columns of a Parquet file as text, with row numbers counted from 1."""
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file, path, needed)
            _check_size(file.metadata, path, needed, max_rows)
            texts = [name for name in needed if kinds.is_string(file.schema_arrow.field(name).type)]
        # Text stays dictionary-encoded: one long text repeated a million times is then held once.
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            table = file.read(columns=list(needed))
        cells = {name: _as_text(table.column(name)) for name in needed}
    except InputError:
        raise
    except FAILURES as error:
        what = f"damaged or incomplete Parquet file: {str(error).partition(chr(10))[0]}"
        raise InputError("FILE-PARQUET", what, where=path, fix="copy or write the file again") from None
    return one_source(cells, f"{path}:row ", np.arange(1, table.num_rows + 1))


def _check_columns(file: pq.ParquetFile, path: str, needed: Sequence[str]) -> None:
    schema = file.schema_arrow
    demand_columns(schema.names, needed, path)
    for name in needed:
        _refuse_type(path, name, schema.field(name).type)


def _refuse_type(path: str, name: str, kind: Any) -> None:
    plain = kind.value_type if kinds.is_dictionary(kind) else kind
    if isinstance(plain, pa.BaseExtensionType) or not any(is_kind(plain) for is_kind in PLAIN):
        what = f"column {name!r} has type {kind}, which is not a plain value"
        raise InputError("FILE-TYPE", what, where=path, fix="write it as text or numbers")


def _check_size(metadata: pq.FileMetaData, path: str, needed: Sequence[str], max_rows: int) -> None:
    if metadata.num_rows == 0:
        raise InputError("FILE-NO-ROWS", "no data rows", where=path)
    if metadata.num_rows > max_rows:
        what = f"{metadata.num_rows:,} rows, more than {max_rows:,}"
        raise InputError("FILE-LIMIT", what, where=path, fix="split the file")
    chunks = (
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in needed)
    if size > MAX_BYTES:
        raise InputError("FILE-LIMIT", f"{size:,} bytes unpacked, more than {MAX_BYTES:,}", where=path, fix="split it")


def _as_text(column: Any) -> list[str]:
    """A column's values as text; null becomes empty text."""
    if kinds.is_float16(column.type):
        column = column.cast(pa.float32())
    if kinds.is_null(column.type):
        return [""] * len(column)
    texts: list[str] = []
    for chunk in column.chunks:
        coded = chunk if kinds.is_dictionary(chunk.type) else chunk.dictionary_encode()
        words = [word or "" for word in coded.dictionary.cast(pa.string()).to_pylist()]
        words.append("")  # a null index becomes -1
        texts.extend(words[code] for code in coded.indices.fill_null(-1).cast(pa.int64()).to_pylist())
    return texts
