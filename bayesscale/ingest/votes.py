"""Votes: which answers were given, from CSV, TSV and Parquet files.

Wide tables have one row per model and problem and a column of votes per answer; long tables have one row per model,
problem and answer (or per sample). The caller names the columns; labels stay text. What cannot be used is set aside row by
row with file, line, column, value and a repair; rows that contradict each other refuse the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bayesscale.finding import Finding, InputError
from bayesscale.ingest.decode import read_records
from bayesscale.ingest.doubts import grouped, twin_names
from bayesscale.ingest.numbers import MAX_INTEGER
from bayesscale.ingest.records import Fault, Records, concatenate, shown
from bayesscale.ingest.rows import Checks, natural, natural_key, refuse_if_bad
from bayesscale.ingest.table import Path, listed_paths
from bayesscale.ingest.vote_roles import VoteRoles, answer_labels, refuse_option
from bayesscale.votes import Votes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
FLAGS = {"1": True, "true": True, "0": False, "false": False}


def read_votes(
    paths: Path | Sequence[Path],
    *,
    model: str | Sequence[str],
    problem: str,
    votes: Sequence[str] = (),
    target: str | None = None,
    n: str | None = None,
    none: str | None = None,
    correct: str | None = None,
    available: str | None = None,
    answer: str | None = None,
    count: str | None = None,
    is_correct: str | None = None,
    sep: str | None = None,
    strict: bool = False,
    max_bad_fraction: float = 0.05,
) -> Votes:
    """Votes from one or many tables, wide (`votes`) or long (`answer`).

    model : columns whose texts together name a model; add the run where options are shuffled between runs.
    problem : column that names the problem.
    votes : wide: columns of the votes for each answer, such as votes_a, votes_b.
    target : column naming the right answer; in wide tables by the column's name or what follows its common prefix, in
        either case, so that "B" is votes_b.
    n : wide: column of the samples drawn, checked against the votes.
    none : wide: column of the samples without an answer. Long: a text in `answer` that stands for none, as an empty cell does.
    correct : wide: column of the correct samples, checked against the votes for the right answer.
    available : column that is 0 or false for rows without votes; they are set aside under one finding.
    answer : long: column of the answer.
    count : long: column of the samples that gave it; without it a row is one sample.
    is_correct : long: column that is 1 or true for the right answer, in place of `target`.
    sep, strict, max_bad_fraction : as in `bayesscale.ingest.table.read_curves`.

    Raises
    ------
    InputError : a file, a row or an option that cannot be used; a repeated problem; rows that contradict each other.
    """
    if not 0 <= max_bad_fraction <= 1:
        raise InputError("OPTIONS", f"max_bad_fraction must lie in [0, 1], got {max_bad_fraction}")
    columns = VoteRoles(
        (model,) if isinstance(model, str) else tuple(model), problem, tuple(votes), target, n, none, correct, available,
        answer, count, is_correct,
    )  # fmt: skip
    columns.check()
    records = concatenate([read_records(path, columns.needed, sep) for path in listed_paths(paths)])
    return votes_from_records(records, columns, strict=strict, max_bad_fraction=max_bad_fraction)


def votes_from_records(
    records: Records, roles: VoteRoles, *, strict: bool = False, max_bad_fraction: float = 0.05
) -> Votes:
    """The votes that `records` hold, with findings for every row set aside and every doubtful model."""
    records, absent = _with_votes(records, roles)
    checks = Checks(records)
    for column in (*roles.key_names, roles.problem):
        empty = np.array([not cell.strip() for cell in records.cells[column]], dtype=bool)
        checks.flag(empty, "ROW-KEY", column, "missing", "every row must say its model and problem")
    columns = _wide_columns(checks, roles) if roles.votes else _long_columns(checks, roles)
    quarantine = [checks.faults[row].at(records.place(row)) for row in sorted(checks.faults)]
    refuse_if_bad(quarantine, len(records), strict, max_bad_fraction)
    kept = [row for row in range(len(records)) if row not in checks.faults]
    labels = list(zip(*(records.cells[name] for name in roles.key_names), strict=True)) or [()] * len(records)
    keys = tuple(sorted({labels[row] for row in kept}, key=natural_key))
    problems = tuple(sorted({records.cells[roles.problem][row] for row in kept}, key=natural))
    key_index, problem_index = ({label: i for i, label in enumerate(names)} for names in (keys, problems))
    points = [(key_index[labels[row]], problem_index[records.cells[roles.problem][row]]) for row in kept]
    take = _wide_rows if roles.votes else _long_rows
    votes = Votes(
        key_names=roles.key_names, keys=keys, problems=problems, **take(records, roles, kept, points, columns)
    )
    doubts = [*_lost(checks, labels, keys), *twin_names(roles.key_names, labels), *votes_doubts(votes)]
    return replace(votes, findings=tuple(grouped([*records.findings, *absent, *quarantine, *doubts])))


def votes_doubts(votes: Votes) -> Iterator[Finding]:
    """Models with one problem, one vote per problem, or all or no votes right."""
    for i in range(len(votes)):
        name, rows = votes.model_name(i), votes.rows(i)
        n, right = votes.n[rows], votes.n_correct[rows]
        if n.size == 1:
            advice = "how problems differ cannot be learned from one; the prior decides"
            yield Finding("MODEL-ONE-PROBLEM", "warn", "only one problem", advice, name)
        if n.max() == 1:
            advice = "whether samples agree cannot be learned; the prior decides what a vote gains"
            yield Finding("MODEL-ONE-VOTE", "warn", "one vote per problem", advice, name)
        if right.sum() == 0:
            yield Finding("MODEL-ALL-ZERO", "warn", "no vote is right", "is the right answer's column the one?", name)
        elif (right == n).all():
            advice = "what a vote gains where samples differ cannot be learned"
            yield Finding("MODEL-ALL-ONE", "warn", "every vote is right", advice, name)


def _with_votes(records: Records, roles: VoteRoles) -> tuple[Records, list[Finding]]:
    """The rows that hold votes, and one finding about the others."""
    if roles.available is None:
        return records, []
    cells = records.cells[roles.available]
    kept = np.array([FLAGS.get(cell.strip().lower(), True) for cell in cells], dtype=bool)
    if not kept.any():
        raise InputError(
            "VOTES-UNAVAILABLE", "no row holds votes", where=roles.available, fix="is it the right column?"
        )
    rows = np.flatnonzero(kept).tolist()
    faults = {new: records.faults[old] for new, old in enumerate(rows) if old in records.faults}
    for new, old in enumerate(rows):
        if cells[old].strip().lower() not in FLAGS:
            fault = Fault("ROW-NUMBER", "neither 0 nor 1", "1 where the row holds votes", roles.available, cells[old])
            faults.setdefault(new, fault)
    taken = {name: [column[row] for row in rows] for name, column in records.cells.items()}
    records = replace(records, cells=taken, source=records.source[rows], line=records.line[rows], faults=faults)
    if kept.all():
        return records, []
    what = f"{len(kept) - len(rows)} of {len(kept)} rows hold no votes and were set aside"
    return records, [Finding("VOTES-UNAVAILABLE", "info", what, "the rest is used", where=roles.available)]


def _counts(checks: Checks, column: str) -> Floats:
    values = checks.numbers(column)
    fractional = np.isfinite(values) & (values != np.round(values))
    checks.flag(fractional, "ROW-COUNT", column, "a fractional count", "give whole counts, not shares")
    checks.flag(values < 0, "ROW-COUNT", column, "a negative count", "mend or delete the row")
    checks.flag(values > MAX_INTEGER, "ROW-COUNT", column, "a count above 2^53", "mend or delete the row")
    return values


def _wide_columns(checks: Checks, roles: VoteRoles) -> dict[str, NDArray[Any]]:
    assert roles.target
    counts = np.stack([_counts(checks, column) for column in roles.votes], axis=1)
    none = _counts(checks, roles.none) if roles.none else np.zeros(len(counts))
    total, index = counts.sum(axis=1) + none, _target_index(checks, roles.votes, roles.target)
    checks.flag(total == 0, "ROW-COUNT", roles.votes[0], "no votes were cast", "delete the row: it observed nothing")
    if roles.n:
        fix = "mend the row" if roles.none else "name the column of samples without an answer as none, or mend the row"
        n = _counts(checks, roles.n)
        checks.flag(np.isfinite(total) & (total != n), "ROW-VOTES", roles.n, "the votes do not add up to n", fix)
    if roles.correct:
        claimed, right = _counts(checks, roles.correct), counts[np.arange(len(index)), np.maximum(index, 0)]
        what = "the votes for the right answer are not as many as the correct samples"
        fix = "is the target the letter shown in this run?"
        checks.flag((index >= 0) & (right != claimed), "ROW-CORRECT", roles.correct, what, fix)
    return {"counts": counts, "none": none, "correct": index}


def _target_index(checks: Checks, columns: Sequence[str], target: str) -> Integers:
    """Which column of votes each row's right answer is; -1, and a fault, where it is none."""
    place: dict[str, int] = {}
    for j, (column, label) in enumerate(zip(columns, answer_labels(columns), strict=True)):
        for name in {column.casefold(), label.casefold()}:
            if place.setdefault(name, j) != j:
                refuse_option(f"two columns of votes are called {shown(name)!r} but for the case", "rename one of them")
    index = np.array([place.get(cell.strip().casefold(), -1) for cell in checks.records.cells[target]], dtype=np.int64)
    fix = "it must name a column of votes, or what follows their common prefix"
    checks.flag(index < 0, "ROW-TARGET", target, "the right answer is none of the answers voted on", fix)
    return index


def _wide_rows(
    records: Records,
    roles: VoteRoles,
    kept: Sequence[int],
    points: Sequence[tuple[int, int]],
    columns: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    met: dict[tuple[int, int], int] = {}
    for row, point in zip(kept, points, strict=True):
        if met.setdefault(point, row) != row:
            _repeat(records, roles, row, met[point], "problem", roles.problem)
    model, problem = np.array(points, dtype=np.int64).reshape(-1, 2).T
    counts, none = (columns[name][list(kept)].astype(np.int64) for name in ("counts", "none"))
    return {
        "model": model, "problem": problem, "answers": answer_labels(roles.votes), "counts": counts,
        "correct": columns["correct"][list(kept)], "n_none": none, "n": counts.sum(axis=1) + none,
    }  # fmt: skip


def _long_columns(checks: Checks, roles: VoteRoles) -> dict[str, NDArray[Any]]:
    count = _counts(checks, roles.count) if roles.count else np.ones(len(checks.records))
    if roles.target:
        empty = np.array([not cell.strip() for cell in checks.records.cells[roles.target]], dtype=bool)
        checks.flag(empty, "ROW-TARGET", roles.target, "missing", "every row must say which answer is right")
        return {"count": count}
    assert roles.is_correct
    flags = [FLAGS.get(cell.strip().lower()) for cell in checks.records.cells[roles.is_correct]]
    bad = np.array([flag is None for flag in flags], dtype=bool)
    checks.flag(
        bad, "ROW-NUMBER", roles.is_correct, "neither 0 nor 1", "1 or true for the right answer, else 0 or false"
    )
    return {"count": count, "right": np.array([bool(flag) for flag in flags], dtype=bool)}


def _long_rows(
    records: Records,
    roles: VoteRoles,
    kept: Sequence[int],
    points: Sequence[tuple[int, int]],
    columns: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """Gather the rows of each (model, problem); answers are open, so each row of votes ranks its own."""
    cast: dict[tuple[int, int], dict[str, int]] = {}
    first: dict[tuple[tuple[int, int], str], int] = {}
    right: dict[tuple[int, int], str] = {}
    for row, point in zip(kept, points, strict=True):
        assert roles.answer
        text = records.cells[roles.answer][row].strip()
        text = "" if roles.none is not None and text == roles.none else text
        before = first.setdefault((point, text), row)
        if before != row and roles.count:
            _repeat(records, roles, row, before, "answer", roles.answer)
        said = cast.setdefault(point, {})
        said[text] = said.get(text, 0) + int(columns["count"][row])
        _note_right(records, roles, row, before, point, text, right, columns)
    for point, said in cast.items():
        if sum(said.values()) == 0:
            row = next(row for row, other in zip(kept, points, strict=True) if other == point)
            raise InputError("VOTES-NONE", "no votes were cast on this problem", where=records.place(row))
    return _ragged_counts(cast, right)


def _note_right(
    records: Records,
    roles: VoteRoles,
    row: int,
    before: int,
    point: tuple[int, int],
    text: str,
    right: dict[tuple[int, int], str],
    columns: Mapping[str, NDArray[Any]],
) -> None:
    """Remember the right answer of the row's problem; refuse a second one, and an answer both right and wrong."""
    if "right" in columns and columns["right"][row] != columns["right"][before]:
        what = f"the answer {shown(text)!r} is right in one row and wrong in {records.place(before)}"
        raise InputError("ANSWER-CONTRADICTED", what, where=records.place(row), fix="mend one of the two")
    if "right" in columns and not columns["right"][row]:
        return
    claimed = text if "right" in columns else records.cells[str(roles.target)][row].strip()
    if not claimed:
        raise InputError("ANSWER-CONTRADICTED", "a sample without an answer is marked right", where=records.place(row))
    if right.setdefault(point, claimed) != claimed:
        what = f"the right answer is {shown(claimed)!r} here but {shown(right[point])!r} elsewhere in this problem"
        raise InputError("ANSWER-CONTRADICTED", what, where=records.place(row), fix="spell the right answer in one way")


def _ragged_counts(cast: Mapping[tuple[int, int], Mapping[str, int]], right: Mapping[tuple[int, int], str]) -> dict:
    points = list(cast)
    width = max(1, *(len([text for text in said if text]) for said in cast.values()))
    counts, correct = np.zeros((len(points), width), dtype=np.int64), np.full(len(points), -1)
    for row, point in enumerate(points):
        texts = [text for text in cast[point] if text]
        counts[row, : len(texts)] = [cast[point][text] for text in texts]
        if right.get(point) in texts:
            correct[row] = texts.index(right[point])
    none = np.array([cast[point].get("", 0) for point in points], dtype=np.int64)
    model, problem = np.array(points, dtype=np.int64).reshape(-1, 2).T
    return {
        "model": model, "problem": problem, "counts": counts, "correct": correct,
        "n_none": none, "n": counts.sum(axis=1) + none,
    }  # fmt: skip


def _repeat(records: Records, roles: VoteRoles, row: int, before: int, unit: str, column: str) -> NoReturn:
    what = f"the model already has this {unit}, from {records.place(before)}"
    place = f"{records.place(row)} {column}={shown(records.cells[column][row])}"
    fix = "add the column that tells the two apart, such as the run, to --model, or delete one"
    raise InputError(f"REPEAT-{unit.upper()}", what, where=place, fix=fix)


def _lost(checks: Checks, labels: Sequence[tuple[str, ...]], keys: Sequence[tuple[str, ...]]) -> list[Finding]:
    named = {labels[row] for row in checks.faults if all(label.strip() for label in labels[row])}
    what = "every row of this model was set aside, so it is absent"
    lost = sorted(named - set(keys), key=natural_key)
    return [Finding("MODEL-LOST", "warn", what, "mend its rows", where=" / ".join(key)) for key in lost]
