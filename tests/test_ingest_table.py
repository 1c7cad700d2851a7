"""The data door: every bad input is refused, set aside or remarked on, with a code and a place, and never altered."""

from __future__ import annotations

import decimal
import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bayesscale.cli
from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.ingest import decode, parquet
from bayesscale.ingest.table import file_digests, read_curves
from bayesscale.runs.stored import write_csv

COUNTS: dict[str, Any] = {"curve": ["model"], "successes": "ok", "trials": "n"}
PROB: dict[str, Any] = {"curve": ["model"], "prob": "p"}
NLL: dict[str, Any] = {"curve": ["model"], "nll": "nll"}
HEADER = "model,shots,ok,n"
GOOD = [f"m,{shots},{shots},40" for shots in range(24)]
ICL = Path(__file__).parents[1] / "../shared/data/icl/bertsch2024_icl_accuracy.csv"


def text(*rows: str, header: str = HEADER, good: list[str] = GOOD) -> str:
    """A table whose bad `rows` start on line 26, after 24 good ones."""
    return "\n".join([header, *good, *rows]) + "\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def to_file(content: str | bytes, name: str = "t.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return to_file


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., str]:
    def to_file(columns: dict[str, Any], name: str = "t.parquet") -> str:
        pq.write_table(pa.table(columns), tmp_path / name)
        return str(tmp_path / name)

    return to_file


def codes(curves: Curves) -> list[str]:
    return [finding.code for finding in curves.findings]


# Files that are refused: row of the table of bad inputs, content, code, and what the message says.
def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("t.csv", content)
    return buffer.getvalue()


REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    "02-empty": (b"", "FILE-EMPTY", "t.csv - empty file"),
    "02-blank-lines-only": ("\n\n  \n", "FILE-EMPTY", "no header"),
    "03-header-only": (HEADER + "\n", "FILE-NO-ROWS", "no data rows"),
    "04-missing-column": (
        text(header="model,shots,okay,n"),
        "FILE-COLUMN-MISSING",
        "no column 'ok'; found: model, shots, okay, n - 'ok' may be 'okay'",
    ),
    "05-duplicate-column": (text(header="model,shots,ok,ok"), "FILE-COLUMN-TWICE", "'ok' appears more than once"),
    "06-extra-field-in-every-row": (
        text(good=[row + ",9" for row in GOOD]),
        "FILE-FIELDS",
        "t.csv:2 - the header has 4 fields, the row 5",
    ),
    "07-every-row-short": (text(good=["m,1,2", "m,2,3"]), "FILE-FIELDS", "the header has 4 fields, the row 3"),
    "08-semicolon": (text().replace(",", ";"), "FILE-SEPARATOR", "separated by ';' - use --sep ';'"),
    "08-tab": (text().replace(",", "\t"), "FILE-SEPARATOR", "separated by a tab"),
    "09-decimal-comma-unquoted": (text(good=["m,0,5,1,4"]), "FILE-FIELDS", "write 0.5, not 0,5"),
    "13-utf16-mark": (text().encode("utf-16"), "FILE-ENCODING", "the encoding is UTF-16"),
    "13-utf32-mark": (text().encode("utf-32"), "FILE-ENCODING", "the encoding is UTF-32"),
    "13-utf16-no-mark": (text().encode("utf-16-le"), "FILE-ENCODING", "UTF-16 without a mark"),
    "13-latin1": (text("é,1,2,3").encode("latin-1"), "FILE-ENCODING", "t.csv:26 - not UTF-8 (byte 0xE9 at 0); Latin-1"),
    "17-unclosed-quote": (text('"m,30,1,40', *GOOD), "FILE-QUOTE", "t.csv:26 - a quote in the record that starts here"),
    "17-unclosed-quote-then-another": (text('"m,30,1,40', '"x",31,1,40'), "FILE-QUOTE", "t.csv:26"),
    "17-huge-field": (text('"' + "x\n" * 100_000), "FILE-QUOTE", "t.csv:26 - field larger than field limit"),
    "18-huge-line": (text("m" * (2**20 + 1)), "FILE-LIMIT", "t.csv:26 - the line is longer than 1,048,576"),
    "18-many-columns": (",".join(map(str, range(10_001))), "FILE-LIMIT", "10,001 columns, more than 10,000"),
    "21-gzip": (gzip.compress(text().encode()), "FILE-COMPRESSED", "compressed, content is gzip"),
    "21-zip": (zipped(text().encode()), "FILE-COMPRESSED", "compressed, content is zip"),
    "38-truncated-parquet": (b"PAR1" + b"\x00" * 100, "FILE-PARQUET", "damaged or incomplete Parquet file"),
    "58-nothing-usable": (text(good=["m,x,1,2"]), "TOO-MANY-BAD-ROWS", "1 of 1 rows cannot be used (1 ROW-NUMBER)"),
}


@pytest.mark.parametrize(("content", "code", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_file(write: Callable[..., str], content: str | bytes, code: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_curves(write(content), **COUNTS)
    assert caught.value.finding.code == code
    assert message in str(caught.value)


def test_01_missing_file_and_directory(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.csv", "No such file"), (tmp_path, "is a directory"), ("a\0b", "NUL byte")):
        with pytest.raises(InputError, match=f"FILE-MISSING .* - .*{reason}"):
            read_curves(path, **COUNTS)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_01_no_permission(write: Callable[..., str]) -> None:
    path = write(text())
    os.chmod(path, 0)
    with pytest.raises(InputError, match="Permission denied"):
        read_curves(path, **COUNTS)


def test_01_pipe_is_refused_before_it_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_curves(tmp_path / "pipe", **COUNTS)


@pytest.mark.parametrize(
    ("module", "limit", "value"), [(decode, "MAX_TEXT_BYTES", 100), (decode, "MAX_ROWS", 10)], ids=["bytes", "rows"]
)
def test_18_size_caps(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch, module: Any, limit: str, value: int
) -> None:
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(InputError, match=f"FILE-LIMIT .*more than {value}"):
        read_curves(write(text()), **COUNTS)


# Rows that are set aside: options, header, bad row, code, and what the finding says. All stand on line 26.
PROB_ROWS = [f"m,{shots},0.{shots + 10},0.01" for shots in range(24)]
QUARANTINED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "07-short-row": (COUNTS, "m,30", "ROW-FIELDS", "t.csv:26: the header has 4 fields, the row 2 (fill the row up)"),
    "06-long-row": (COUNTS, "m,30,1,40,9", "ROW-FIELDS", "the row 5"),
    "09-decimal-comma": (PROB, 'm,30,"0,5",', "ROW-NUMBER", "p=0,5: a comma in a number (a decimal comma? use 0.5)"),
    "10-percent": (PROB, "m,30,50%,", "ROW-NUMBER", "p=50%: a percentage (use 0.5)"),
    "15-nul-in-number": (COUNTS, "m,30,1\0,40", "ROW-NUL", r"ok=1\x00: a NUL byte"),
    "15-nul-in-id": (COUNTS, "m\0,30,1,40", "ROW-NUL", r"model=m\x00"),
    "20-integer-above-2-53": (COUNTS, f"m,30,1,{2**53 + 1}", "ROW-NUMBER", "n=9007199254740993: an integer above 2^53"),
    "42-empty-key": (COUNTS, ",30,1,40", "ROW-KEY", "model=: missing"),
    "53-more-successes-than-trials": (COUNTS, "m,30,41,40", "ROW-COUNT", "ok=41: more successes than trials"),
    "53-negative-count": (COUNTS, "m,30,-1,40", "ROW-COUNT", "ok=-1: a negative count"),
    "53-negative-trials": (COUNTS, "m,30,0,-40", "ROW-COUNT", "n=-40: a negative count"),
    "53-fractional-count": (COUNTS, "m,30,0.5,40", "ROW-COUNT", "ok=0.5: a fractional count"),
    "54-no-trials": (COUNTS, "m,30,0,0", "ROW-COUNT", "n=0: no trials"),
    "54-missing-trials": (COUNTS, "m,30,0,", "ROW-NUMBER", "n=: missing"),
    "55-percent-scale": (PROB, "m,30,55.0,", "ROW-PROBABILITY", "p=55.0: a probability above 1 (percent?"),
    "55-negative-probability": (PROB, "m,30,-0.1,", "ROW-PROBABILITY", "outside [0, 1]"),
    "55-far-outside": (PROB, "m,30,101,", "ROW-PROBABILITY", "outside [0, 1]"),
    "57-negative-shots": (COUNTS, "m,-1,1,40", "ROW-SHOTS", "shots=-1: negative"),
    "57-fractional-shots": (COUNTS, "m,1.5,1,40", "ROW-SHOTS", "not a whole number"),
    "58-nan": (PROB, "m,30,NaN,", "ROW-NUMBER", "p=NaN: NaN"),
    "58-infinite-y": (PROB, "m,30,inf,", "ROW-NUMBER", "p=inf: infinite"),
    "58-nan-shots": (COUNTS, "m,nan,1,40", "ROW-NUMBER", "shots=nan: NaN"),
    "58-empty-shots": (COUNTS, "m,,1,40", "ROW-NUMBER", "shots=: missing"),
    "58-infinite-shots": (COUNTS, "m,-inf,1,40", "ROW-NUMBER", "shots=-inf: infinite"),
    "58-empty-y": (PROB, "m,30,,", "ROW-NUMBER", "p=: missing"),
    "58-word": (COUNTS, "m,many,1,40", "ROW-NUMBER", "shots=many: not a number"),
    "58-python-only-number": (COUNTS, "m,3_0,1,40", "ROW-NUMBER", "not a number"),
    "59-overflow": (COUNTS, "m,1e400,1,40", "ROW-NUMBER", "too large for a float64"),
    "nll-negative": (NLL, "m,30,-0.5,", "ROW-NLL", "nll=-0.5: a negative negative log-likelihood (a log-likelihood?"),
    "se-zero": (PROB | {"se": "se"}, "m,30,0.5,0", "ROW-SE", "se=0: a standard error must be above 0"),
}


def table_for(options: dict[str, Any], row: str) -> str:
    if "successes" in options:
        return text(row)
    return text(row, header=f"model,shots,{options.get('prob') or options['nll']},se", good=PROB_ROWS)


@pytest.mark.parametrize(("options", "row", "code", "said"), QUARANTINED.values(), ids=QUARANTINED.keys())
def test_quarantined_row(write: Callable[..., str], options: dict[str, Any], row: str, code: str, said: str) -> None:
    path = write(table_for(options, row))
    curves = read_curves(path, **options)
    assert curves.shots.tolist() == list(range(24))
    (finding,) = (finding for finding in curves.findings if finding.code.startswith("ROW"))
    assert (finding.code, finding.grade) == (code, "warn")
    assert f"{path}:26" in finding.where
    assert said in str(finding)
    assert finding.advice


@pytest.mark.parametrize(("options", "row", "code", "said"), QUARANTINED.values(), ids=QUARANTINED.keys())
def test_strict_refuses_what_would_be_set_aside(
    write: Callable[..., str], options: dict[str, Any], row: str, code: str, said: str
) -> None:
    with pytest.raises(InputError, match=rf"^{code} .*t.csv:26"):
        read_curves(write(table_for(options, row)), strict=True, **options)


def test_strict_names_the_first_bad_row(write: Callable[..., str]) -> None:
    with pytest.raises(InputError, match=r"t.csv:26 n=0 - no trials - delete the row"):
        read_curves(write(text("m,30,0,0", "m,many,0,1")), strict=True, **COUNTS)


def test_too_many_bad_rows_refuse_the_input(write: Callable[..., str]) -> None:
    path = write(text("m,30,1,0", "m,31,41,40", "m,x,1,2"))
    with pytest.raises(InputError, match=r"TOO-MANY-BAD-ROWS .*:26 n=0 - 3 of 27 rows .*2 ROW-COUNT, 1 ROW-NUMBER"):
        read_curves(path, **COUNTS)
    assert read_curves(path, max_bad_fraction=0.2, **COUNTS).shots.size == 24


def test_findings_of_one_code_are_summed_up_after_twenty(write: Callable[..., str]) -> None:
    path = write(text(*["m,x,1,2"] * 25))
    findings = read_curves(path, max_bad_fraction=0.9, **COUNTS).findings
    assert len(findings) == 21
    assert findings[-1].message == "and 5 more"


def test_a_quoted_newline_counts_as_a_physical_line(write: Callable[..., str]) -> None:
    path = write(text('"two\nlines",1,2,40', "m,x,1,2"))
    curves = read_curves(path, **COUNTS)
    assert curves.keys == (("m",), ("two\nlines",))
    assert curves.findings[0].where == f"{path}:28 shots=x"


def test_a_curve_that_loses_all_its_rows_is_named(write: Callable[..., str]) -> None:
    findings = read_curves(write(text("gone,1,x,2")), **COUNTS).findings
    assert [(f.code, f.where) for f in findings if f.code == "CURVE-LOST"] == [("CURVE-LOST", "gone")]


@pytest.mark.parametrize("chance", ["1.0", "-0.1"])
def test_quarantined_chance(write: Callable[..., str], chance: str) -> None:
    path = write(text(f"m,30,1,40,{chance}", header=HEADER + ",c", good=[row + ",0.25" for row in GOOD]))
    curves = read_curves(path, chance="c", **COUNTS)
    assert codes(curves) == ["ROW-CHANCE"]
    assert curves.chance.tolist() == [0.25]


# As a user sees it: one sentence and an exit code, no traceback, and nothing written.
def command(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        bayesscale.cli.main(list(arguments))
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


def columns_of(options: dict[str, Any]) -> list[str]:
    return [part for name, value in options.items() for part in (f"--{name}", "".join(value))]


@pytest.mark.parametrize("verb", ["check", "fit"])
@pytest.mark.parametrize(("content", "code", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_commands_refuse_a_file_in_one_line(
    write: Callable[..., str],
    capfd: pytest.CaptureFixture[str],
    verb: str,
    content: str | bytes,
    code: str,
    message: str,
) -> None:
    path = write(content)
    more = ["--out", path + ".out"] if verb == "fit" else []
    status, out, err = command(capfd, verb, path, *columns_of(COUNTS), *more)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert err.startswith(f"bayesscale: {code} {path}")
    assert message in err
    assert not Path(path + ".out").exists()


@pytest.mark.parametrize(("options", "row", "code", "said"), QUARANTINED.values(), ids=QUARANTINED.keys())
def test_check_shows_the_row_and_strict_refuses_it(
    write: Callable[..., str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    row: str,
    code: str,
    said: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    path = write(table_for(options, row))
    status, out, err = command(capfd, "check", path, *columns_of(options))
    assert (status, err) == (0, "")
    assert code in out
    assert f"{path}:26" in out
    status, out, err = command(capfd, "fit", path, *columns_of(options), "--strict", "--out", path + ".out")
    assert (status, err.count("\n")) == (3, 1)
    assert err.startswith(f"bayesscale: {code} {path}:26")
    assert not Path(path + ".out").exists()


def test_19_formulas_are_escaped_on_export(tmp_path: Path) -> None:
    write_csv(
        pd.DataFrame({"model": ["=cmd|' /C calc'!A0", "-1+2", "m"], "shots": [-1.0, 2.0, 3.0]}), tmp_path / "t.csv"
    )
    assert pd.read_csv(tmp_path / "t.csv")["model"].tolist() == ["'=cmd|' /C calc'!A0", "'-1+2", "m"]
    assert pd.read_csv(tmp_path / "t.csv")["shots"].tolist() == [-1.0, 2.0, 3.0]


# What is accepted as it is.
def test_11_12_19_66_ids_stay_text(write: Callable[..., str]) -> None:
    ids = ["001", "1", "1e5", "NA", "null", "None", "nan", "TRUE", "=cmd|' /C calc'!A0", "../../x", "CON", "😀" * 300]
    rows = [f"{label},{shots},{shots},9" for label in ids for shots in range(5)]
    curves = read_curves(write(text(good=rows)), **COUNTS)
    assert {key[0] for key in curves.keys} == set(ids)
    assert not curves.findings


def test_14_byte_order_mark_is_accepted(write: Callable[..., str]) -> None:
    assert len(read_curves(write(b"\xef\xbb\xbf" + text().encode()), **COUNTS)) == 1


@pytest.mark.parametrize("newline", ["\r", "mixed"])
def test_16_odd_newlines_are_accepted_with_a_warning(write: Callable[..., str], newline: str) -> None:
    content = text().replace("\n", "\r\n", 3) if newline == "mixed" else text().replace("\n", newline)
    curves = read_curves(write(content), **COUNTS)
    assert codes(curves) == ["FILE-NEWLINES"]
    assert curves.shots.size == 24


def test_16_crlf_is_no_oddity(write: Callable[..., str]) -> None:
    assert not read_curves(write(text().replace("\n", "\r\n")), **COUNTS).findings


def test_59_large_and_exponent_numbers_are_accepted(write: Callable[..., str]) -> None:
    rows = [f"m,{shots},1,2" for shots in (10**13, "2e13", "+3E13", "40000000000000.0")]
    assert read_curves(write(text(good=rows)), **COUNTS).shots[0] == 1e13


def test_unsorted_shots_and_blank_lines_are_fine(write: Callable[..., str]) -> None:
    curves = read_curves(write(text("", "   ", good=GOOD[::-1])), **COUNTS)
    assert curves.shots.tolist() == list(range(24))
    assert not curves.findings


def test_separator_and_header_spaces(write: Callable[..., str]) -> None:
    reference = read_curves(write(text()), **COUNTS).digest(0)
    tabs = text().replace(",", "\t")
    assert read_curves(write(tabs, "t.tsv"), **COUNTS).digest(0) == reference
    assert read_curves(write(tabs), sep="\t", **COUNTS).digest(0) == reference
    assert read_curves(write(text(header="model, shots, ok , n")), **COUNTS).digest(0) == reference


# Curves that are kept with a doubt.
DOUBTS: dict[str, tuple[list[str], str, str]] = {
    "60-few-shots": (["d,1,1,9", "d,2,2,9", "d,3,3,9"], "CURVE-FEW-SHOTS", "only 3 different shots"),
    "61-one-point": (["d,1,1,9"], "CURVE-ONE-SHOTS", "all rows have the same shots"),
    "61-all-zero": ([f"d,{i},0,9" for i in range(5)], "CURVE-ALL-ZERO", "every value is 0"),
    "61-all-one": ([f"d,{i},9,9" for i in range(5)], "CURVE-ALL-ONE", "every value is 1"),
    "61-flat": ([f"d,{i},{i + 1},{2 * i + 2}" for i in range(5)], "CURVE-FLAT", "every value is 0.5"),
    "64-accuracy-that-is-a-loss": (
        [f"d,{i},{20 - i},40" for i in range(8)],
        "CURVE-DIRECTION",
        "worse with shots throughout: 0.5 at 0 shots and 0.325 at 7",
    ),
    "65-unit-mix": ([f"d,{i},{i % 3},9" for i in (0, 1, 2, 3, 5_000_000)], "CURVE-UNIT-JUMP", "factor 2e+06"),
}


@pytest.mark.parametrize(("rows", "code", "said"), DOUBTS.values(), ids=DOUBTS.keys())
def test_doubtful_curve_is_kept(write: Callable[..., str], rows: list[str], code: str, said: str) -> None:
    curves = read_curves(write(text(*rows)), **COUNTS)
    assert curves.keys == (("d",), ("m",))
    assert [(f.code, f.where, f.grade) for f in curves.findings] == [(code, "d", "warn")]
    assert said in curves.findings[0].message


def test_64_loss_that_is_an_accuracy_is_doubted_and_noise_is_not(write: Callable[..., str]) -> None:
    rising, falling = ([f"m,{i},{0.2 + step * i / 20}," for i in range(8)] for step in (1, -0.1))
    flat = [f"m,{i},{0.5 + 0.01 * (-1) ** i}," for i in range(8)]
    header = "model,shots,nll,se"
    assert codes(read_curves(write(text(header=header, good=rising)), **NLL)) == ["CURVE-DIRECTION"]
    for rows in (falling, flat):
        assert not read_curves(write(text(header=header, good=rows)), **NLL).findings


@pytest.mark.parametrize("name", ["pass@k", "pass_at_k", "math.pass@8"])
def test_63_values_of_pass_at_k_are_not_independent_points(write: Callable[..., str], name: str) -> None:
    rows = [f"m,{2**i},{0.1 + 0.05 * i}" for i in range(6)]
    path = write(text(header=f"model,k,{name}", good=rows))
    (finding,) = read_curves(path, curve=["model"], x="k", prob=name).findings
    assert (finding.code, finding.where, finding.grade) == ("PASS-AT-K", name, "warn")
    assert "bayesscale passk" in finding.advice


@pytest.mark.parametrize("twin", ["GPT-é", "gpt-e\u0301", "gpt-é "], ids=["case", "normal-form", "space"])
def test_66_twin_names_are_kept_apart_with_a_warning(write: Callable[..., str], twin: str) -> None:
    rows = [f"{label},{i},{i},9" for label in ("gpt-é", twin) for i in range(5)]
    curves = read_curves(write(text(good=rows)), **COUNTS)
    assert len(curves) == 2
    assert [(f.code, f.where) for f in curves.findings] == [("TWIN-NAMES", "model")]


# Rows that contradict or repeat each other.
def test_62_repeats_without_a_run_column_are_refused(write: Callable[..., str]) -> None:
    path = write(text("m,3,3,40"))
    message = f"REPEAT-WITHOUT-RUN {path}:26 shots=3 - the curve already has this point, from {path}:5 - name the rep"
    with pytest.raises(InputError) as caught:
        read_curves(path, **COUNTS)
    assert message in str(caught.value)
    assert "--run (or add it to --curve)" in str(caught.value)


def test_62_conflict_within_a_run_is_refused(write: Callable[..., str]) -> None:
    path = write(text("m,3,4,40,a", header=HEADER + ",run", good=[row + ",a" for row in GOOD]))
    with pytest.raises(InputError, match=r"REPEAT-CONFLICT .*t.csv:26 .*as .*t.csv:5, with another value"):
        read_curves(path, run="run", **COUNTS)


def test_62_identical_repeat_within_a_run_is_dropped(write: Callable[..., str]) -> None:
    path = write(text("m,3.0,3,40,a", "m,3,3,40,a", header=HEADER + ",run", good=[row + ",a" for row in GOOD]))
    curves = read_curves(path, run="run", **COUNTS)
    assert codes(curves) == ["REPEAT-DROPPED", "REPEAT-DROPPED"]
    assert curves.shots.size == 24


def test_runs_are_counted_within_each_curve_in_natural_order(write: Callable[..., str]) -> None:
    rows = [f"{model},{shots},1,2,{run}" for model, run in (("a", "10"), ("a", "2"), ("b", "x")) for shots in range(4)]
    curves = read_curves(write(text(header=HEADER + ",run", good=rows)), run="run", **COUNTS)
    assert curves.run.tolist() == [0, 1] * 4 + [0] * 4
    assert read_curves(write(text(header=HEADER + ",run", good=rows[::-1])), run="run", **COUNTS).digest(
        0
    ) == curves.digest(0)


@pytest.mark.parametrize("option", ["chance", "covariate"])
def test_a_curve_has_one_chance_and_one_covariate(write: Callable[..., str], option: str) -> None:
    path = write(text("m,30,1,40,0.5", header=HEADER + ",c", good=[row + ",0.25" for row in GOOD]))
    more: dict[str, Any] = {"chance": "c"} if option == "chance" else {"covariates": ["c"]}
    with pytest.raises(InputError, match=r"CURVE-NOT-CONSTANT .*:26 - .* is 0.5 here but 0.25 in .*:2 "):
        read_curves(path, **more, **COUNTS)


# What the options mean.
def test_shot_offset_moves_shots_and_may_make_them_negative(write: Callable[..., str]) -> None:
    curves = read_curves(write(text()), shot_offset=-1, **COUNTS)
    assert curves.shots.tolist() == list(range(23))
    assert "negative after the offset -1" in curves.findings[0].message


def test_numeric_condition_joins_the_key_and_the_covariates(write: Callable[..., str]) -> None:
    rows = [f"m,{shots},{shots},9,{sft}" for sft in ("10", "2.50") for shots in range(5)]
    curves = read_curves(write(text(header=HEADER + ",sft", good=rows)), condition="sft", **COUNTS)
    assert curves.key_names == ("model", "sft")
    assert curves.keys == (("m", "2.50"), ("m", "10"))
    assert curves.covariates["sft"].tolist() == [2.5, 10.0]


def test_worded_condition_joins_the_key_only(write: Callable[..., str]) -> None:
    rows = [f"m,{shots},{shots},9,{name}" for name in ("10", "base") for shots in range(5)]
    curves = read_curves(write(text(header=HEADER + ",c", good=rows)), condition="c", **COUNTS)
    assert curves.keys == (("m", "10"), ("m", "base"))
    assert not curves.covariates


def test_chance_as_a_number_or_a_column_with_gaps(write: Callable[..., str]) -> None:
    assert read_curves(write(text()), chance=0.25, **COUNTS).chance.tolist() == [0.25]
    rows = [f"m,{i},{i},9,{'0.5' if i == 2 else ''}" for i in range(5)] + [f"k,{i},{i},9," for i in range(5)]
    curves = read_curves(write(text(header=HEADER + ",c", good=rows)), chance="c", **COUNTS)
    np.testing.assert_array_equal(curves.chance, [np.nan, 0.5])


def test_unknown_standard_error_is_nan(write: Callable[..., str]) -> None:
    path = write(text("m,30,0.5,", header="model,shots,p,se", good=PROB_ROWS))
    curves = read_curves(path, **PROB, se="se")
    assert np.isnan(curves.column("se")[-1])
    assert not curves.findings


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no-kind": ({"curve": ["model"]}, "no kind of observation named - name exactly one"),
    "two-kinds": (COUNTS | {"nll": "nll"}, "several kinds of observation named"),
    "successes-alone": ({"curve": ["model"], "successes": "ok"}, "belong together"),
    "se-of-counts": (COUNTS | {"se": "se"}, "leave out --se"),
    "column-for-two-parts": (COUNTS | {"run": "model"}, "column 'model' is named for two parts"),
    "chance-one": (COUNTS | {"chance": 1}, r"chance must lie in \[0, 1\), got 1"),
    "offset-nan": (COUNTS | {"shot_offset": float("nan")}, "shot offset must be finite"),
    "separator": (COUNTS | {"sep": ",,"}, "separator must be one character"),
    "bad-fraction": (COUNTS | {"max_bad_fraction": 5}, "max_bad_fraction must lie in"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_refused_options(write: Callable[..., str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"OPTIONS - .*{message}"):
        read_curves(write(text()), **options)


def test_many_files_are_joined_and_each_must_have_the_columns(write: Callable[..., str]) -> None:
    one, two = write(text()), write(text("m,30,1,0").replace("m,", "k,"), "two.csv")
    curves = read_curves([one, two], **COUNTS)
    assert curves.keys == (("k",), ("m",))
    assert curves.findings[0].where == f"{two}:26 n=0"
    with pytest.raises(InputError, match=r"FILE-COLUMN-MISSING .*three.csv:1"):
        read_curves([one, write(text(header="model,shots,ok,total"), "three.csv")], **COUNTS)
    with pytest.raises(InputError, match="no files named"):
        read_curves([], **COUNTS)


def test_file_digests(write: Callable[..., str]) -> None:
    path = write(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digests(path) == {path: expected}
    with pytest.raises(InputError, match="FILE-MISSING"):
        file_digests([path, path + "x"])


# Parquet.
SHOTS = list(range(24))
PARQUET: dict[str, Any] = {"model": ["m"] * 24, "shots": SHOTS, "ok": SHOTS, "n": [40] * 24}


def test_parquet_reads_like_the_same_csv(write: Callable[..., str], write_parquet: Callable[..., str]) -> None:
    csv_digest = read_curves(write(text()), **COUNTS).digest(0)
    assert read_curves(write_parquet(PARQUET), **COUNTS).digest(0) == csv_digest
    assert read_curves(write_parquet(PARQUET, "disguised.csv"), **COUNTS).digest(0) == csv_digest


SAFE = {
    "39-dictionary": ({"model": pa.array(["m"] * 24).dictionary_encode()}, "m"),
    "39-decimal": ({"n": pa.array([decimal.Decimal("40.00")] * 24)}, "m"),
    "39-float32": ({"ok": pa.array(SHOTS, pa.float32())}, "m"),
    "39-large-text": ({"model": pa.array(["m"] * 24, pa.large_string())}, "m"),
    "39-timestamp-key": ({"model": pa.array([0] * 24, pa.timestamp("s"))}, "1970-01-01 00:00:00.000"),
    "11-integer-key-exactly": ({"model": pa.array([2**63] * 24, pa.uint64())}, "9223372036854775808"),
    "11-padded-text-key": ({"model": pa.array(["007"] * 24)}, "007"),
}


@pytest.mark.parametrize(("columns", "label"), SAFE.values(), ids=SAFE.keys())
def test_parquet_types_converted(write_parquet: Callable[..., str], columns: dict[str, Any], label: str) -> None:
    curves = read_curves(write_parquet(PARQUET | columns), **COUNTS)
    assert curves.keys == ((label,),)
    assert curves.column("trials").tolist() == [40] * 24
    assert not curves.findings


UNSAFE = {
    "39-list": (pa.array([[1]] * 24), r"column 'ok' has type list<.*int64>"),
    "39-struct": (pa.array([{"a": 1}] * 24), "type struct<"),
    "40-pickled-bytes": (pa.array([b"\x80\x04N."] * 24), "type binary"),
    "40-extension": (pa.array([b"0123456789abcdef"] * 24, pa.uuid()), "type extension<"),
}


@pytest.mark.parametrize(("column", "message"), UNSAFE.values(), ids=UNSAFE.keys())
def test_parquet_types_refused(write_parquet: Callable[..., str], column: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"FILE-TYPE .*{message}"):
        read_curves(write_parquet(PARQUET | {"ok": column}), **COUNTS)


def test_39_nested_columns_that_are_not_needed_do_no_harm(write_parquet: Callable[..., str]) -> None:
    assert len(read_curves(write_parquet(PARQUET | {"log": [[1]] * 24}), **COUNTS)) == 1


def test_38_parquet_cut_short_or_misnamed(write: Callable[..., str], write_parquet: Callable[..., str]) -> None:
    whole = Path(write_parquet(PARQUET)).read_bytes()
    with pytest.raises(InputError, match=r"FILE-PARQUET .*damaged"):
        read_curves(write(whole[:-20], "cut.parquet"), **COUNTS)
    middle = len(whole) // 4
    with pytest.raises(InputError, match=r"FILE-PARQUET .*damaged"):
        read_curves(write(whole[:4] + b"\xff" * middle + whole[4 + middle :], "hole.parquet"), **COUNTS)
    with pytest.raises(InputError, match="named as Parquet"):
        read_curves(write(text(), "text.parquet"), **COUNTS)


@pytest.mark.parametrize(("module", "limit"), [(decode, "MAX_ROWS"), (parquet, "MAX_BYTES")], ids=["rows", "bytes"])
def test_41_parquet_caps_come_from_the_metadata(
    write_parquet: Callable[..., str], monkeypatch: pytest.MonkeyPatch, module: Any, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 20)
    with pytest.raises(InputError, match=r"FILE-LIMIT .*more than 20"):
        read_curves(write_parquet(PARQUET), **COUNTS)


def test_42_parquet_null_key_is_quarantined(write_parquet: Callable[..., str]) -> None:
    path = write_parquet(PARQUET | {"model": ["m"] * 23 + [None]})
    (finding,) = read_curves(path, **COUNTS).findings
    assert (finding.code, finding.where) == ("ROW-KEY", f"{path}:row 24 model=")


def test_03_parquet_without_rows_and_04_without_the_column(write_parquet: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="FILE-NO-ROWS"):
        read_curves(write_parquet({name: pa.array([], pa.string()) for name in PARQUET}), **COUNTS)
    with pytest.raises(InputError, match="no column 'okay'; found: model, shots, ok, n - 'okay' may be 'ok'"):
        read_curves(write_parquet(PARQUET), curve=["model"], successes="okay", trials="n")


def test_parquet_column_of_nulls_is_missing(write_parquet: Callable[..., str]) -> None:
    curves = read_curves(write_parquet(PARQUET | {"c": pa.nulls(24)}), chance="c", **COUNTS)
    assert np.isnan(curves.chance).all()


# Frames go through the same door.
def test_frame_types_and_missing_values(write: Callable[..., str]) -> None:
    frame = pd.DataFrame(PARQUET)
    frame["model"] = frame["model"].astype("category")
    frame["ok"] = frame["ok"].astype("Int64")
    frame["run"] = np.where(frame.index == 5, np.nan, 1.0)
    curves = Curves.from_frame(frame, run="run", **COUNTS)
    assert [(f.code, f.where) for f in curves.findings] == [("ROW-KEY", "frame:iloc 5 run=")]
    whole = Curves.from_frame(frame.assign(run=1), run="run", **COUNTS)
    assert whole.digest(0) == read_curves(write(text()), **COUNTS).digest(0)


def test_frame_without_rows_or_columns_is_refused() -> None:
    with pytest.raises(InputError, match="FILE-NO-ROWS frame"):
        Curves.from_frame(pd.DataFrame(PARQUET).head(0), **COUNTS)
    with pytest.raises(InputError, match="no column 'n'"):
        Curves.from_frame(pd.DataFrame(PARQUET).drop(columns="n"), **COUNTS)


@pytest.mark.skipif(not ICL.exists(), reason="the shared ICL data set is not beside this checkout")
def test_published_icl_accuracies_read_whole() -> None:
    curves = read_curves(
        ICL, curve=["model", "dataset"], x="n_shots", successes="n_correct", trials="n_test", run="run", strict=True
    )
    assert len(curves) == 32
    assert curves.shots.size == 3920
    assert {finding.code for finding in curves.findings} == {"CURVE-FEW-SHOTS", "CURVE-ONE-SHOTS"}
    assert set(curves.column("trials")) == {250.0}
