"""Attempts: repeated samples from CSV, TSV and Parquet files.

`read_attempts` reads one row per model and problem, with counts; `read_trials` reads one row per sample, with its outcome,
and counts. The caller names the columns; labels stay text. What cannot be used is set aside row by row with file, line,
column, value and a repair; rows that contradict each other or their stopping design refuse the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bayesscale.attempts import Attempts
from bayesscale.designs import DESIGNS, Stopping, check_design, count_faults, stopping_faults
from bayesscale.finding import Finding, InputError
from bayesscale.ingest.attempt_roles import AttemptRoles
from bayesscale.ingest.decode import read_records
from bayesscale.ingest.doubts import attempts_doubts, grouped, twin_names
from bayesscale.ingest.numbers import MAX_INTEGER, Number, is_number, parse_number, parse_size
from bayesscale.ingest.records import Records, concatenate, shown
from bayesscale.ingest.rows import Checks, natural, natural_key, refuse_if_bad
from bayesscale.ingest.table import Path, listed_paths

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Place = Callable[[int], str]
OUTCOMES = {"true": 1.0, "false": 0.0}


def read_attempts(
    paths: Path | Sequence[Path],
    *,
    model: str | Sequence[str],
    problem: str,
    n: str,
    correct: str,
    accepted: str | None = None,
    labelled: str | None = None,
    correct_accepted: str | None = None,
    stopping: str = "fixed",
    cap: int | str | None = None,
    batch: int = 1,
    covariates: str | Sequence[str] = (),
    sep: str | None = None,
    strict: bool = False,
    max_bad_fraction: float = 0.05,
) -> Attempts:
    """Attempts from one or many tables with one row per model and problem.

    model : columns whose texts together name a model.
    problem : column that names the problem.
    n, correct : columns of the samples drawn, and of the correct ones among them.
    accepted, labelled, correct_accepted : columns of the samples a verifier accepted, of those with known truth (all of
        them by default), and of the correct ones among these.
    stopping : how the sampling of a problem ended, one of `bayesscale.designs.DESIGNS`, or a column that says so.
    cap : the most samples a problem could get, a number or a column.
    batch : samples drawn at once, under stopping ``batch``.
    covariates : numeric columns, constant within a model; K, M, B and T after a number are powers of a thousand.
    sep, strict, max_bad_fraction : as in `bayesscale.ingest.table.read_curves`.

    Raises
    ------
    InputError : a file, a row or an option that cannot be used; a repeated problem; rows that contradict the design.
    """
    roles = AttemptRoles.of(
        model=model, problem=problem, n=n, correct=correct, accepted=accepted, labelled=labelled,
        correct_accepted=correct_accepted, stopping=stopping, cap=cap, batch=batch, covariates=covariates,
    )  # fmt: skip
    return _read(paths, roles, sep, strict, max_bad_fraction)


def read_trials(
    paths: Path | Sequence[Path],
    *,
    model: str | Sequence[str],
    problem: str,
    outcome: str,
    accepted: str | None = None,
    sample: str | None = None,
    stopping: str = "fixed",
    cap: int | str | None = None,
    batch: int = 1,
    covariates: str | Sequence[str] = (),
    sep: str | None = None,
    strict: bool = False,
    max_bad_fraction: float = 0.05,
) -> Attempts:
    """Attempts from one or many tables with one row per sample.

    outcome : column that is 1 or true for a correct sample, 0 or false for a wrong one.
    accepted : column that is 1 or true for a sample the verifier accepted, 0 or false for one it rejected.
    sample : column that names a sample within its problem; a name met twice then refuses the input.

    All else is as in `read_attempts`.

    Raises
    ------
    InputError : a file, a row or an option that cannot be used; a repeated sample; counts that contradict the design.
    """
    roles = AttemptRoles.of(
        model=model, problem=problem, correct=outcome, accepted=accepted, sample=sample,
        stopping=stopping, cap=cap, batch=batch, covariates=covariates,
    )  # fmt: skip
    return _read(paths, roles, sep, strict, max_bad_fraction)


def attempts_from_records(
    records: Records, roles: AttemptRoles, *, strict: bool = False, max_bad_fraction: float = 0.05
) -> Attempts:
    """The attempts that `records` hold, with findings for every row set aside and every doubtful model."""
    checks = Checks(records)
    counts = _outcomes(checks, roles) if roles.per_sample else _counts(checks, roles)
    covariates = {name: checks.numbers(name, parse=parse_size) for name in roles.covariates}
    caps = checks.numbers(roles.cap, optional=True) if isinstance(roles.cap, str) else None
    _check_texts(checks, roles)
    labels = list(zip(*(records.cells[name] for name in roles.key_names), strict=True)) or [()] * len(records)
    _refuse_varying(records, roles, labels)
    quarantine = [checks.faults[row].at(records.place(row)) for row in sorted(checks.faults)]
    refuse_if_bad(quarantine, len(records), strict, max_bad_fraction)
    kept = np.array([row for row in range(len(records)) if row not in checks.faults], dtype=np.int64)
    keys, model = _indexed([labels[row] for row in kept], natural_key)
    problems, problem = _indexed([records.cells[roles.problem][row] for row in kept], natural)
    _refuse_repeats(records, roles, kept, model, problem)
    _, first, point = np.unique(model * len(problems) + problem, return_index=True, return_inverse=True)
    # Exact: no count is above 2^53, and a float64 adds whole numbers below that without loss.
    totals = {name: np.bincount(point, values[kept]).astype(np.int64) for name, values in counts.items()}
    design, noted = _design(records, roles, kept[first], caps, totals)
    attempts = Attempts(
        key_names=roles.key_names,
        keys=keys,
        model=model[first],
        problems=problems,
        problem=problem[first],
        **totals,
        **design,
        covariates={name: _per_model(values[kept], model) for name, values in covariates.items()},
    )
    findings = [*records.findings, *quarantine, *_lost(checks, labels, keys), *noted, *_sizes(records, roles)]
    findings += [*twin_names(roles.key_names, labels), *attempts_doubts(attempts)]
    return replace(attempts, findings=tuple(grouped(findings)))


def _read(
    paths: Path | Sequence[Path], roles: AttemptRoles, sep: str | None, strict: bool, max_bad_fraction: float
) -> Attempts:
    if not 0 <= max_bad_fraction <= 1:
        raise InputError("OPTIONS", f"max_bad_fraction must lie in [0, 1], got {max_bad_fraction}")
    records = concatenate([read_records(path, roles.needed, sep) for path in listed_paths(paths)])
    return attempts_from_records(records, roles, strict=strict, max_bad_fraction=max_bad_fraction)


def _counts(checks: Checks, roles: AttemptRoles) -> dict[str, Floats]:
    counts = {name: checks.numbers(column) for name, column in roles.counts.items()}
    for name, values in counts.items():
        column = roles.counts[name]
        fix = "give whole counts, not shares"
        checks.flag(np.isfinite(values) & (values != np.round(values)), "ROW-COUNT", column, "a fractional count", fix)
        checks.flag(values < 0, "ROW-COUNT", column, "a negative count", "mend or delete the row")
        checks.flag(values > MAX_INTEGER, "ROW-COUNT", column, "a count above 2^53", "mend or delete the row")
    for bad, name, what, fix in count_faults(counts):
        checks.flag(bad, "ROW-COUNT", roles.counts[name], what, fix)
    return counts


def _outcomes(checks: Checks, roles: AttemptRoles) -> dict[str, Floats]:
    correct = checks.numbers(roles.counts["n_correct"], parse=_parse_outcome)
    counts = {"n": np.ones(len(correct)), "n_correct": correct}
    if "n_accepted" in roles.counts:
        accepted = checks.numbers(roles.counts["n_accepted"], parse=_parse_outcome)
        counts |= {"n_accepted": accepted, "n_correct_accepted": accepted * correct}
    return counts


def _parse_outcome(text: str) -> Number:
    value = OUTCOMES.get(text.strip().lower())
    number = parse_number(text) if value is None else Number(value)
    if number.what in ("", "not a number") and number.value not in (0, 1):
        return Number(math.nan, "neither 0 nor 1", "0 or 1, false or true; counts belong in read_attempts")
    return number


def _check_texts(checks: Checks, roles: AttemptRoles) -> None:
    for column in (*roles.key_names, roles.problem, *([roles.sample] if roles.sample else [])):
        empty = np.array([not cell.strip() for cell in checks.records.cells[column]], dtype=bool)
        checks.flag(
            empty, "ROW-KEY", column, "missing", "every row must say its model and problem; write none for none"
        )


def _refuse_varying(records: Records, roles: AttemptRoles, labels: Sequence[tuple[str, ...]]) -> None:
    """Refuse a covariate that differs between rows of one model: most often it is a property of the problem."""
    for name in roles.covariates:
        cells = records.cells[name]
        sizes = {text: parse_size(text) for text in set(cells)}
        value = {text: text if size.what else size.value for text, size in sizes.items()}
        met: dict[tuple[str, ...], int] = {}
        for row, (key, text) in enumerate(zip(labels, cells, strict=True)):
            if not text.strip() or row in records.faults:
                continue
            before = met.setdefault(key, row)
            if value[text] != value[cells[before]]:
                what = f"{name} is {shown(text)} here but {shown(cells[before])} in {records.place(before)}"
                fix = f"it varies by problem: add {name} to --model, so that each of its values is a model of its own"
                raise InputError("COVARIATE-NOT-CONSTANT", what, where=records.place(row), fix=fix)


def _indexed(labels: Sequence[Any], order: Callable[[Any], Any]) -> tuple[tuple[Any, ...], Integers]:
    """The distinct labels in order, and each label's index among them."""
    distinct = tuple(sorted(set(labels), key=order))
    index = {label: i for i, label in enumerate(distinct)}
    return distinct, np.array([index[label] for label in labels], dtype=np.int64)


def _refuse_repeats(records: Records, roles: AttemptRoles, kept: Integers, model: Integers, problem: Integers) -> None:
    if roles.per_sample and roles.sample is None:
        return
    samples = [records.cells[roles.sample][row] for row in kept] if roles.sample else [""] * len(kept)
    met: dict[tuple[int, int, str], int] = {}
    for row, point in zip(kept.tolist(), zip(model.tolist(), problem.tolist(), samples, strict=True), strict=True):
        before = met.setdefault(point, row)
        if before == row:
            continue
        unit = "sample" if roles.sample else "problem"
        label = shown(records.cells[roles.sample or roles.problem][row])
        what = f"the model already has this {unit}, from {records.place(before)}"
        fix = "add the column that tells the two apart, such as the run, to --model, or delete one"
        raise InputError(f"REPEAT-{unit.upper()}", what, where=f"{records.place(row)} {unit}={label}", fix=fix)


def _design(
    records: Records, roles: AttemptRoles, rows: Integers, caps: Floats | None, totals: dict[str, Integers]
) -> tuple[dict[str, Any], list[Finding]]:
    """The one stopping design of all `rows`, checked against their counts."""

    def place(i: int) -> str:
        return records.place(int(rows[i]))

    stopping = _one_stopping(records, roles, rows)
    cap: Any = roles.cap if caps is None else caps[rows]
    noted: list[Finding] = []
    if caps is not None:
        cap = _known_caps(caps[rows], place)
    check_design(stopping, 1 if isinstance(cap, np.ndarray) else cap, roles.batch)
    endings = totals.get("n_accepted", totals["n_correct"])
    for bad, what in stopping_faults(stopping, cap, roles.batch, totals["n"], endings):
        if bad.any():
            i = int(np.argmax(bad))
            fix = "is the design or its cap another? 'capped' takes any rule, 'fixed' is for n set in advance"
            what += f", got n={totals['n'][i]} with {endings[i]}"
            raise InputError("STOPPING-CONTRADICTED", f"under stopping {stopping}: {what}", where=place(i), fix=fix)
    if isinstance(cap, np.ndarray):
        cap, noted = _one_cap(cap, stopping, endings, place)
    return {"stopping": cast(Stopping, stopping), "cap": cap, "batch": roles.batch}, noted


def _one_stopping(records: Records, roles: AttemptRoles, rows: Integers) -> str:
    if roles.stopping in DESIGNS:
        return roles.stopping
    cells = records.cells[roles.stopping]
    first = cells[rows[0]].strip().lower()
    for row in rows.tolist():
        if cells[row].strip().lower() != first:
            what = (
                f"stopping is {shown(cells[row])!r} here but {shown(cells[rows[0]])!r} in {records.place(int(rows[0]))}"
            )
            raise InputError("STOPPING-MIXED", what, where=records.place(row), fix="read each design on its own")
    return first


def _known_caps(caps: Floats, place: Place) -> Floats | None:
    unknown = np.isnan(caps)
    if unknown.all():
        return None
    if unknown.any():
        i, j = int(np.argmax(unknown)), int(np.argmin(unknown))
        what = f"the cap is missing here but {caps[j]:g} in {place(j)}"
        raise InputError("STOPPING-CAP", what, where=place(i), fix="fill it in")
    if (caps < 1).any() or (caps != np.round(caps)).any():
        i = int(np.argmax((caps < 1) | (caps != np.round(caps))))
        raise InputError(
            "STOPPING-CAP", f"the cap must be a whole number from 1 upwards, got {caps[i]:g}", where=place(i)
        )
    return caps


def _one_cap(caps: Floats, stopping: str, endings: Integers, place: Place) -> tuple[int, list[Finding]]:
    """The largest cap, which holds for all rows if no row was censored at a smaller one."""
    top = int(caps.max())
    censored = (caps < top) & (endings == 0)
    if stopping != "capped" and censored.any():
        i, j = int(np.argmax(censored)), int(np.argmax(caps))
        what = f"sampling ended without success at the cap of {caps[i]:g} here, but the cap is {top} in {place(j)}"
        raise InputError("STOPPING-CAP", what, where=place(i), fix="read each cap on its own, or use stopping 'capped'")
    if (caps == top).all():
        return top, []
    i = int(np.argmin(caps))
    what = f"the cap is {caps[i]:g} here but {top} elsewhere; {top} is taken for all rows"
    advice = "no row ended without success at a smaller cap, so nothing contradicts it"
    if stopping == "capped":
        advice = "under stopping capped it only says how large n may be"
    return top, [Finding("STOPPING-CAPS", "info", what, advice, where=place(i))]


def _per_model(values: Floats, model: Integers) -> Floats:
    return values[np.unique(model, return_index=True)[1]]


def _lost(checks: Checks, labels: Sequence[tuple[str, ...]], keys: Sequence[tuple[str, ...]]) -> list[Finding]:
    """Models of which no row survived: they are absent, and that must be said."""
    named = {labels[row] for row in checks.faults if all(label.strip() for label in labels[row])}
    what = "every row of this model was set aside, so it is absent"
    lost = sorted(named - set(keys), key=natural_key)
    return [Finding("MODEL-LOST", "warn", what, "mend its rows", where=" / ".join(key)) for key in lost]


def _sizes(records: Records, roles: AttemptRoles) -> list[Finding]:
    """Which covariates were read as sizes, because a letter after a number could have meant something else."""
    findings = []
    for name in roles.covariates:
        sizes = {text: parse_size(text) for text in set(records.cells[name]) if not is_number(text)}
        read = sorted((size.value, shown(text)) for text, size in sizes.items() if not size.what)
        if read:
            listed = ", ".join(f"{text} as {value:g}" for value, text in read[:3]) + (", ..." if len(read) > 3 else "")
            advice = "K, M, B and T after a number stand for 10^3, 10^6, 10^9 and 10^12"
            findings.append(Finding("COVARIATE-SIZES", "info", f"read {listed}", advice, where=name))
    return findings
