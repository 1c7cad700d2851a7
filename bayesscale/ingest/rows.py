"""Rows: from records, which are text, to `Curves`, which are believed.

Each row is checked for what its columns must hold. A row that fails is quarantined: dropped, with a finding that says
where it is, what is wrong and how to repair it. Too many such rows, or rows that contradict each other, refuse the
input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bayesscale.curves import Curves
from bayesscale.finding import Finding, InputError
from bayesscale.ingest.doubts import curve_doubts, dependent_points, grouped, twin_names
from bayesscale.ingest.numbers import Number, is_number, parse_number
from bayesscale.ingest.records import Fault, Records
from bayesscale.ingest.roles import Roles

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


def curves_from_records(
    records: Records, roles: Roles, *, strict: bool = False, max_bad_fraction: float = 0.05
) -> Curves:
    """The curves that `records` hold, with findings for every row set aside and every doubtful curve."""
    checks = Checks(records)
    numbers = _read_numbers(checks, roles)
    _check_texts(checks, roles)
    quarantine = [checks.faults[row].at(records.place(row)) for row in sorted(checks.faults)]
    refuse_if_bad(quarantine, len(records), strict, max_bad_fraction)
    kept = np.array([row for row in range(len(records)) if row not in checks.faults], dtype=np.int64)
    labels = _labels(records, roles)
    keys = tuple(sorted({labels[row] for row in kept}, key=natural_key))
    index = {key: i for i, key in enumerate(keys)}
    curve = np.array([index[labels[row]] for row in kept], dtype=np.int64)
    run = _run_index(curve, [records.cells[roles.run][row] for row in kept] if roles.run else None)
    values = {name: array[kept] for name, array in numbers.items()}
    unique, dropped = _drop_repeats(records, roles, kept, curve, run, values)
    lost = _lost_curves(checks, labels, index, roles)
    curves = Curves(
        kind=roles.kind,
        key_names=roles.key_names,
        keys=keys,
        curve=curve[unique],
        run=run[unique],
        shots=values["shots"][unique],
        columns={name: values[name][unique] for name in ("successes", "trials", "value", "se") if name in values},
        chance=_per_curve(records, kept, curve, values["chance"], len(keys), "chance"),
        covariates=_covariates(records, roles, kept, curve, values, keys),
    )
    named = dependent_points(roles.observed["value"]) if "value" in roles.observed else ()
    doubts = [*named, *twin_names(roles.key_names, labels), *curve_doubts(curves)]
    findings = [*records.findings, *quarantine, *dropped, *lost, *doubts]
    return replace(curves, findings=tuple(grouped(findings)))


class Checks:
    """The first fault of each row, gathered while the columns are read."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.faults: dict[int, Fault] = dict(records.faults)

    def flag(self, bad: Mask, code: str, column: str, what: str, fix: str) -> None:
        for row in np.flatnonzero(bad).tolist():
            self.faults.setdefault(row, Fault(code, what, fix, column, self.records.cells[column][row]))

    def numbers(self, column: str, *, optional: bool = False, parse: Callable[[str], Number] = parse_number) -> Floats:
        """The column as numbers; where `optional`, a missing cell or a NaN is an unknown value and no fault."""
        cells = self.records.cells[column]
        parsed = {text: parse(text) for text in set(cells)}
        unknown = ("missing", "NaN") if optional else ()
        for what in {number.what for number in parsed.values()} - {"", *unknown}:
            for row, text in enumerate(cells):
                number = parsed[text]
                if number.what == what:
                    self.faults.setdefault(row, Fault("ROW-NUMBER", what, number.fix, column, text))
        return np.array([parsed[text].value for text in cells], dtype=np.float64)


def _read_numbers(checks: Checks, roles: Roles) -> dict[str, Floats]:
    """Every numeric column by its part: shots, the observation, chance, covariates (as ``"covariate:name"``)."""
    rows = len(checks.records)
    values = {"shots": _shots(checks, roles), **_observation(checks, roles)}
    if isinstance(roles.chance, str):
        values["chance"] = _chance(checks, roles.chance)
    else:
        values["chance"] = np.full(rows, np.nan if roles.chance is None else roles.chance)
    return values | {f"covariate:{name}": checks.numbers(name) for name in roles.covariates}


def _shots(checks: Checks, roles: Roles) -> Floats:
    raw = checks.numbers(roles.x)
    checks.flag(np.isfinite(raw) & (raw != np.round(raw)), "ROW-SHOTS", roles.x, "not a whole number", "count shots")
    shots = raw + roles.shot_offset
    offset = f" after the offset {roles.shot_offset:+g}" if roles.shot_offset else ""
    fix = "shots count demonstrations already seen: use another --shot-offset, or mend the row"
    checks.flag(shots < 0, "ROW-SHOTS", roles.x, f"negative{offset}", fix)
    return shots


def _observation(checks: Checks, roles: Roles) -> dict[str, Floats]:
    if roles.kind == "counts":
        return _counts(checks, roles.observed["successes"], roles.observed["trials"])
    column = roles.observed["value"]
    value = checks.numbers(column)
    if roles.kind == "prob_mean":
        fix = "percent? divide by 100"
        checks.flag((value > 1) & (value <= 100), "ROW-PROBABILITY", column, "a probability above 1", fix)
        checks.flag((value < 0) | (value > 100), "ROW-PROBABILITY", column, "outside [0, 1]", "is it a probability?")
    else:
        fix = "a log-likelihood? give its negative"
        checks.flag(value < 0, "ROW-NLL", column, "a negative negative log-likelihood", fix)
    if "se" not in roles.observed:
        return {"value": value, "se": np.full_like(value, np.nan)}
    se = checks.numbers(roles.observed["se"], optional=True)
    checks.flag(
        se <= 0, "ROW-SE", roles.observed["se"], "a standard error must be above 0", "leave it empty if unknown"
    )
    return {"value": value, "se": se}


def _counts(checks: Checks, successes: str, trials: str) -> dict[str, Floats]:
    n, total = checks.numbers(successes), checks.numbers(trials)
    for column, values in ((successes, n), (trials, total)):
        fractional = np.isfinite(values) & (values != np.round(values))
        fix = "give whole counts; a mean probability belongs in --prob"
        checks.flag(fractional, "ROW-COUNT", column, "a fractional count", fix)
        checks.flag(values < 0, "ROW-COUNT", column, "a negative count", "mend or delete the row")
    checks.flag(total == 0, "ROW-COUNT", trials, "no trials", "delete the row: it observed nothing")
    checks.flag(n > total, "ROW-COUNT", successes, "more successes than trials", "are the two columns swapped?")
    return {"successes": n, "trials": total}


def _chance(checks: Checks, column: str) -> Floats:
    chance = checks.numbers(column, optional=True)
    fix = "the accuracy of guessing, such as 0.25; leave it empty if unknown"
    checks.flag((chance < 0) | (chance >= 1), "ROW-CHANCE", column, "outside [0, 1)", fix)
    return chance


def _check_texts(checks: Checks, roles: Roles) -> None:
    for column in (*roles.key_names, *([roles.run] if roles.run else [])):
        empty = np.array([not cell.strip() for cell in checks.records.cells[column]], dtype=bool)
        checks.flag(empty, "ROW-KEY", column, "missing", "every row must say which curve and run it belongs to")


def refuse_if_bad(quarantine: Sequence[Finding], rows: int, strict: bool, max_bad_fraction: float) -> None:
    """Refuse the input at the first bad row if `strict`, or if too large a share of its rows is bad."""
    if not quarantine:
        return
    first = quarantine[0]
    if strict:
        raise InputError(first.code, first.message, where=first.where, fix=first.advice)
    if len(quarantine) > max_bad_fraction * rows or len(quarantine) == rows:
        counts = ", ".join(f"{count} {code}" for code, count in Counter(f.code for f in quarantine).most_common())
        what = f"{len(quarantine)} of {rows} rows cannot be used ({counts}); the first: {first.message}"
        fix = first.advice + f" (up to {max_bad_fraction:.0%} would be set aside: --max-bad-fraction)"
        raise InputError("TOO-MANY-BAD-ROWS", what, where=first.where, fix=fix)


def _labels(records: Records, roles: Roles) -> list[tuple[str, ...]]:
    if not roles.key_names:
        return [()] * len(records)
    return list(zip(*(records.cells[name] for name in roles.key_names), strict=True))


def natural(label: str) -> tuple[int, float, str]:
    """Sort key: numbers by value before texts by letter, so that run 10 comes after run 2."""
    number = parse_number(label)
    return (1, 0.0, label) if number.what else (0, number.value, label)


def natural_key(key: tuple[str, ...]) -> tuple[tuple[int, float, str], ...]:
    """Sort key of several labels, the first one leading."""
    return tuple(map(natural, key))


def _run_index(curve: Integers, labels: Sequence[str] | None) -> Integers:
    """Each row's run as 0, 1, ... within its curve, in the natural order of the run labels."""
    if labels is None:
        return np.zeros(len(curve), dtype=np.int64)
    rank = {label: i for i, label in enumerate(sorted(set(labels), key=natural))}
    pairs, inverse = np.unique(curve * len(rank) + np.array([rank[label] for label in labels]), return_inverse=True)
    owner = pairs // len(rank)
    return (np.arange(len(pairs)) - np.searchsorted(owner, owner))[inverse]


def _drop_repeats(
    records: Records, roles: Roles, kept: Integers, curve: Integers, run: Integers, values: dict[str, Floats]
) -> tuple[Integers, list[Finding]]:
    """Positions in `kept` of the first row of each (curve, run, shots), and a finding for each identical repeat."""
    order = np.lexsort((kept, run, values["shots"], curve))
    point = np.stack([curve, run, values["shots"]])[:, order]
    repeat = np.concatenate([[False], (point[:, 1:] == point[:, :-1]).all(axis=0)])
    observed = np.stack([values[name] for name in ("successes", "trials", "value", "se") if name in values])[:, order]
    findings = []
    for i in np.flatnonzero(repeat).tolist():
        here, before = int(kept[order[i]]), int(kept[order[i - 1]])
        place = f"{records.place(here)} {roles.x}={records.cells[roles.x][here]}"
        if roles.run is None:
            what = f"the curve already has this point, from {records.place(before)}"
            fix = "name the replicate column with --run (or add it to --curve)"
            raise InputError("REPEAT-WITHOUT-RUN", what, where=place, fix=fix)
        if not np.array_equal(observed[:, i], observed[:, i - 1], equal_nan=True):
            what = f"the same curve, run and shots as {records.place(before)}, with another value"
            fix = "delete one, or name the column that tells them apart in --curve or --run"
            raise InputError("REPEAT-CONFLICT", what, where=place, fix=fix)
        what = f"repeats {records.place(before)} exactly, so it was dropped"
        findings.append(Finding("REPEAT-DROPPED", "warn", what, "was the log written twice?", where=place))
    return np.sort(order[~repeat]), findings


def _per_curve(records: Records, kept: Integers, curve: Integers, values: Floats, curves: int, column: str) -> Floats:
    """The one value each curve has; unknown values give way to known ones, two known ones refuse the input."""
    known = np.flatnonzero(~np.isnan(values))
    found = np.full(curves, np.nan)
    first = np.full(curves, -1)
    found[curve[known][::-1]], first[curve[known][::-1]] = values[known][::-1], known[::-1]
    differs = known[values[known] != found[curve[known]]]
    if differs.size:
        here, before = int(kept[differs[0]]), int(kept[first[curve[differs[0]]]])
        what = f"{column} is {values[differs[0]]:g} here but {found[curve[differs[0]]]:g} in {records.place(before)}"
        fix = "it must be constant within a curve: add the column that separates them to --curve"
        raise InputError("CURVE-NOT-CONSTANT", what, where=records.place(here), fix=fix)
    return found


def _covariates(
    records: Records,
    roles: Roles,
    kept: Integers,
    curve: Integers,
    values: dict[str, Floats],
    keys: Sequence[tuple[str, ...]],
) -> dict[str, Floats]:
    found = {
        name: _per_curve(records, kept, curve, values[f"covariate:{name}"], len(keys), name)
        for name in roles.covariates
    }
    if roles.condition is not None:
        labels = [key[roles.key_names.index(roles.condition)] for key in keys]
        if all(map(is_number, labels)):
            found[roles.condition] = np.array([parse_number(label).value for label in labels])
    return found


def _lost_curves(
    checks: Checks, labels: Sequence[tuple[str, ...]], index: dict[tuple[str, ...], int], roles: Roles
) -> list[Finding]:
    """Curves of which no row survived: they are absent, and that must be said."""
    named = {labels[row] for row in checks.faults if all(label.strip() for label in labels[row])}
    lost = sorted(named - index.keys(), key=natural_key)
    what = "every row of this curve was set aside, so it is absent"
    return [Finding("CURVE-LOST", "warn", what, "mend its rows", where=" / ".join(key)) for key in lost]
