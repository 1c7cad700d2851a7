"""Decode: the bytes of a CSV, TSV or Parquet file become `Records`, or the file is refused.

The content decides the format, not the name. Line numbers are physical lines, so that a record after a quoted newline
is still found by an editor. Nothing is decompressed, no encoding is guessed, and every size has a cap.
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np

from bayesscale.finding import Finding, InputError
from bayesscale.ingest.records import Fault, Records, demand_columns, one_source

MAX_TEXT_BYTES = 2 * 2**30
MAX_LINE = 2**20
MAX_COLUMNS = 10_000
MAX_ROWS = 50_000_000
SEPARATORS = {";": "';'", "\t": "a tab", "|": "'|'", ",": "','"}
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip (an .xlsx workbook is one too)",
    b"PK\x05\x06": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
}
BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def read_records(path: str | os.PathLike[str], needed: Sequence[str], sep: str | None = None) -> Records:
    """The `needed` columns of one file as text; `sep` defaults to a comma, or a tab for a ``.tsv`` file."""
    name = os.fspath(path)
    head = _head(name)
    if head.startswith(b"PAR1"):
        from bayesscale.ingest.parquet import read_parquet

        return read_parquet(name, needed, max_rows=MAX_ROWS)
    _refuse_other_content(name, head)
    return read_csv(name, needed, sep or ("\t" if Path(name).suffix.lower() in (".tsv", ".tab") else ","))


def read_csv(path: str, needed: Sequence[str], sep: str = ",") -> Records:
    """The `needed` columns of a delimited text file in UTF-8."""
    if len(sep) != 1 or sep in '"\r\n':
        raise InputError("OPTIONS", f"the separator must be one character, got {sep!r}", fix="for example --sep ';'")
    newlines: list[str] = []
    rows = _rows(path, sep, newlines)
    header_line, header = next(rows, (0, []))
    if not header_line:
        raise InputError("FILE-EMPTY", "the file holds no header", where=path, fix="give a table with named columns")
    header = [name.strip() for name in header]
    _check_header(path, header, header_line, needed, sep)
    records = _collect(path, rows, header, needed)
    return replace(records, findings=tuple(_newline_doubt(path, newlines)))


def _collect(path: str, rows: Iterator[tuple[int, list[str]]], header: list[str], needed: Sequence[str]) -> Records:
    """Project the rows on the needed columns; a row that is ragged or holds a NUL byte becomes a fault."""
    width, positions = len(header), [header.index(name) for name in needed]
    cells: list[list[str]] = [[] for _ in needed]
    lines: list[int] = []
    faults: dict[int, Fault] = {}
    ragged = 0
    seen: dict[str, str] = {}  # one object per distinct text: a column of labels then costs a pointer per row
    for line, record in rows:
        row = len(lines)
        if row >= MAX_ROWS:
            raise InputError("FILE-LIMIT", f"more than {MAX_ROWS:,} rows", where=path, fix="split the file")
        lines.append(line)
        if len(record) != width:
            ragged += 1
            faults[row] = _ragged(width, len(record))
            record = [""] * width
        elif "\0" in "".join(record):
            column = next(name for name, cell in zip(header, record, strict=True) if "\0" in cell)
            value = record[header.index(column)]
            faults[row] = Fault("ROW-NUL", "a NUL byte in the cell", "remove it; was the file damaged?", column, value)
        for texts, position in zip(cells, positions, strict=True):
            texts.append(seen.setdefault(record[position], record[position]))
    if not lines:
        raise InputError("FILE-NO-ROWS", "no data rows", where=path, fix="the file holds a header only")
    if ragged == len(lines):
        first = faults[0]
        raise InputError("FILE-FIELDS", f"{first.what}, and no row fits", where=f"{path}:{lines[0]}", fix=first.fix)
    return one_source(dict(zip(needed, cells, strict=True)), f"{path}:", np.array(lines, np.int64), faults)


def _ragged(expected: int, found: int) -> Fault:
    fix = "fill the row up" if found < expected else "quote texts that hold the separator; write 0.5, not 0,5"
    return Fault("ROW-FIELDS", f"the header has {expected} fields, the row {found}", fix)


def _rows(path: str, sep: str, newlines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """(first physical line, fields) of each record that is not blank; fills `newlines` with the styles met."""
    start = 1
    with open(path, encoding="utf-8-sig", newline=None) as stream:
        reader = csv.reader(_lines(stream, path), delimiter=sep, strict=True)
        try:
            for record in reader:
                if record and not (len(record) == 1 and not record[0].strip()):
                    yield start, record
                start = reader.line_num + 1
        except csv.Error as error:
            raise _quoting(path, start, reader.line_num, str(error)) from None
        except UnicodeDecodeError:
            raise _encoding(path) from None
        met = stream.newlines or ()
        newlines.extend((met,) if isinstance(met, str) else met)


def _lines(stream: TextIO, path: str) -> Iterator[str]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            what = f"the line is longer than {MAX_LINE:,} characters"
            raise InputError("FILE-LIMIT", what, where=f"{path}:{number}", fix="is this a table with one row per line?")
        yield line


def _quoting(path: str, start: int, end: int, error: str) -> InputError:
    if "field larger" in error:
        what = f"{error}: a quote opened in the record that starts here may never close (read up to line {end})"
        return InputError("FILE-QUOTE", what, where=f"{path}:{start}", fix="close the quote, or shorten the field")
    what = f"a quote in the record that starts here is not closed properly ({error}; read up to line {end})"
    return InputError("FILE-QUOTE", what, where=f"{path}:{start}", fix='close the quote; inside a text write ""')


def _encoding(path: str) -> InputError:
    """Which line is not UTF-8: found again in the bytes, because text is decoded ahead of the record being read."""
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                what = f"not UTF-8 (byte 0x{byte:02X} at {error.start}); Latin-1 or Windows-1252?"
                fix = "save as UTF-8, or: iconv -f WINDOWS-1252 -t UTF-8"
                return InputError("FILE-ENCODING", what, where=f"{path}:{number}", fix=fix)
    return InputError("FILE-ENCODING", "not UTF-8", where=path, fix="save as UTF-8")


def _check_header(path: str, header: list[str], line: int, needed: Sequence[str], sep: str) -> None:
    place = f"{path}:{line}"
    if len(header) > MAX_COLUMNS:
        what = f"{len(header):,} columns, more than {MAX_COLUMNS:,}"
        raise InputError("FILE-LIMIT", what, where=place, fix="keep one row per observation")
    if len(header) == 1 and header[0] not in needed:
        for other, spelled in SEPARATORS.items():
            if other != sep and other in header[0]:
                what = f"one column only; the header looks separated by {spelled}"
                fix = "name it .tsv, or pass a tab to --sep" if other == "\t" else f"use --sep {spelled}"
                raise InputError("FILE-SEPARATOR", what, where=place, fix=fix)
    demand_columns(header, needed, place)


def _newline_doubt(path: str, newlines: list[str]) -> list[Finding]:
    if len(newlines) < 2 and newlines != ["\r"]:
        return []
    names = {"\r": "CR", "\n": "LF", "\r\n": "CRLF"}
    styles = " and ".join(sorted(names[newline] for newline in newlines))
    return [
        Finding("FILE-NEWLINES", "warn", f"line ends are {styles}", "check the row count; save with LF", where=path)
    ]


def _head(path: str, size: int = 4096) -> bytes:
    """The first bytes of a regular, non-empty file."""
    if "\0" in path:
        raise InputError("FILE-MISSING", "the path holds a NUL byte", where=repr(path))
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise InputError("FILE-MISSING", "is a directory", where=path, fix="name a file in it")
        if not stat.S_ISREG(mode):
            raise InputError("FILE-MISSING", "is not a regular file", where=path, fix="save the stream to a file")
        with open(path, "rb") as stream:
            head = stream.read(size)
    except OSError as error:
        raise InputError("FILE-MISSING", error.strerror or str(error), where=path, fix="check the path") from None
    if not head:
        raise InputError("FILE-EMPTY", "empty file", where=path, fix="was the log written?")
    return head


def _refuse_other_content(path: str, head: bytes) -> None:
    for magic, encoding in BYTE_ORDER_MARKS.items():
        if head.startswith(magic):
            raise InputError("FILE-ENCODING", f"the encoding is {encoding}", where=path, fix="save as UTF-8")
    # Text in UTF-16 without a mark: every other byte of ASCII is NUL. A damaged cell has only a few.
    if head.count(0) > len(head) // 4:
        raise InputError("FILE-ENCODING", "UTF-16 without a mark, or binary", where=path, fix="save as UTF-8 text")
    for magic, content in COMPRESSED.items():
        if head.startswith(magic):
            raise InputError("FILE-COMPRESSED", f"compressed, content is {content}", where=path, fix="unpack it first")
    if Path(path).suffix.lower() in (".parquet", ".pq"):
        raise InputError("FILE-PARQUET", "named as Parquet, but the content is not", where=path, fix="check the copy")
    size = os.path.getsize(path)
    if size > MAX_TEXT_BYTES:
        what = f"{size:,} bytes, more than {MAX_TEXT_BYTES:,}"
        raise InputError("FILE-LIMIT", what, where=path, fix="split it, or convert it to Parquet")
