"""Doubts: what is odd about curves or attempts that could be read. Each is a warning; nothing is changed or dropped."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bayesscale.attempts import Attempts
from bayesscale.curves import Curves
from bayesscale.finding import Finding

MIN_SHOTS = 4
UNIT_JUMP = 1e6
ORDERED_SHOTS, ORDERED, ORDERED_CHANGE = 6, -0.9, 0.05
"""A curve of at least so many shot counts gets worse throughout when performance and shots have a rank correlation below
this and the ends differ by more than this share of the larger."""
SHOWN_PER_CODE = 20


def curve_doubts(curves: Curves) -> Iterator[Finding]:
    """Curves with too few points to fit, without any change, on a boundary, the wrong way up, or with a jump in shots."""
    starts = np.searchsorted(curves.curve, np.arange(len(curves)))
    few, low, high = _distinct_shots(curves, starts), *_range(curves, starts)
    jump = _largest_jump(curves, starts)
    for i in range(len(curves)):
        name = curves.curve_name(i)
        if few[i] == 1:
            yield _warn(
                "CURVE-ONE-SHOTS", "all rows have the same shots", "a curve needs several; the prior decides", name
            )
        elif few[i] < MIN_SHOTS:
            what = f"only {few[i]} different shots"
            yield _warn("CURVE-FEW-SHOTS", what, "expect a fit dominated by the prior", name)
        if low[i] == high[i] and few[i] > 1:
            yield _unchanging(curves, float(low[i]), name)
        rows = slice(starts[i], starts[i + 1] if i + 1 < len(starts) else None)
        if few[i] >= ORDERED_SHOTS and (ends := _worsening(curves, rows)):
            what = f"performance gets worse with shots throughout: {ends}"
            advice = "is it a loss given as an accuracy, or the reverse? If not, no law here describes it"
            yield _warn("CURVE-DIRECTION", what, advice, name)
        if jump[i] >= UNIT_JUMP:
            what = f"shots jump by a factor {jump[i]:.0e} between neighbours"
            yield _warn("CURVE-UNIT-JUMP", what, "are two units mixed?", name)


def attempts_doubts(attempts: Attempts) -> Iterator[Finding]:
    """Models with one problem, one sample per problem, all or no samples correct, or n that looks stopped early."""
    for i in range(len(attempts)):
        name, (n, correct, problems) = attempts.model_name(i), attempts.patterns(i)
        if problems.sum() == 1:
            advice = "how problems differ cannot be learned from one; the prior decides"
            yield _warn("MODEL-ONE-PROBLEM", "only one problem", advice, name)
        if n.max() == 1:
            yield _warn("MODEL-ONE-SAMPLE", "one sample per problem", "only the mean success rate can be learned", name)
        if correct.sum() == 0:
            advice = "the rates are near 0, but neither their mean nor their tail can be learned; the prior decides"
            yield _warn("MODEL-ALL-ZERO", "no sample is correct", advice, name)
        elif (correct == n).all():
            advice = "how rates spread below 1, and so pass@k, cannot be learned; the prior decides"
            yield _warn("MODEL-ALL-ONE", "every sample is correct", advice, name)
        if attempts.stopping == "fixed" and _looks_stopped(n, correct, problems):
            what = "every unsolved problem has the largest n, and most solved ones have fewer samples"
            advice = "if sampling stopped at a success, say so with --stopping: pass@k is biased otherwise"
            yield _warn("MODEL-LOOKS-STOPPED", what, advice, name)


def dependent_points(column: str) -> Iterator[Finding]:
    """A column of values that its name says are pass@k: those of several k come from the same attempts."""
    if re.search(r"pass[\W_]*(@|at[\W_])", column, re.IGNORECASE):
        what = "values of pass@k at several k come from the same attempts, and are taken for independent points here"
        yield _warn("PASS-AT-K", what, "give the counts per problem to `bayesscale passk` instead", column)


def twin_names(key_names: Sequence[str], labels: Iterable[tuple[str, ...]]) -> Iterator[Finding]:
    """Labels of one key column that differ only in case, outer spaces or Unicode normal form."""
    distinct = set(labels)
    for j, column in enumerate(key_names):
        folded: dict[str, set[str]] = defaultdict(set)
        for label in {key[j] for key in distinct}:
            folded[unicodedata.normalize("NFC", label).strip().casefold()].add(label)
        for twins in sorted(sorted(group) for group in folded.values() if len(group) > 1):
            what = "labels differ only in case, outer spaces or Unicode form: " + ", ".join(map(ascii, twins))
            yield _warn("TWIN-NAMES", what, "they are kept apart; if they are one, spell them alike", column)


def grouped(findings: Sequence[Finding], shown: int = SHOWN_PER_CODE) -> list[Finding]:
    """The first `shown` findings of each code, then one that counts the rest."""
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    result: list[Finding] = []
    for code, group in by_code.items():
        result.extend(group[:shown])
        if len(group) > shown:
            result.append(Finding(code, group[0].grade, f"and {len(group) - shown} more", group[0].advice))
    return result


def _warn(code: str, what: str, advice: str, where: str) -> Finding:
    return Finding(code, "warn", what, advice, where=where)


def _looks_stopped(n: NDArray[np.int64], correct: NDArray[np.int64], problems: NDArray[np.int64]) -> bool:
    unsolved, shorter = correct == 0, n < n.max()
    if problems[unsolved].sum() < 2 or (unsolved & shorter).any():
        return False
    return bool(2 * problems[~unsolved & shorter].sum() > problems[~unsolved].sum() > 1)


def _unchanging(curves: Curves, value: float, name: str) -> Finding:
    if curves.kind != "nll_mean" and value in (0.0, 1.0):
        edge, code = ("0", "CURVE-ALL-ZERO") if value == 0 else ("1", "CURVE-ALL-ONE")
        return _warn(code, f"every value is {edge}", "on the boundary, the rate cannot be identified", name)
    return _warn("CURVE-FLAT", f"every value is {value:g}", "a law's rate cannot be identified without change", name)


def _worsening(curves: Curves, rows: slice) -> str:
    """Describe a curve, the rows given, whose performance gets worse with shots throughout; else nothing."""
    columns = {name: column[rows] for name, column in curves.columns.items()}
    value = columns["successes"] / columns["trials"] if curves.kind == "counts" else columns["value"]
    shots, place = np.unique(curves.shots[rows], return_inverse=True)
    value = np.bincount(place, value) / np.bincount(place)
    better = -value if curves.kind == "nll_mean" else value
    if better[-1] >= better[0] - ORDERED_CHANGE * np.abs(value[[0, -1]]).max():
        return ""
    rank = np.unique(better, return_inverse=True)[1]
    if np.corrcoef(np.arange(len(shots)), rank)[0, 1] > ORDERED:
        return ""
    return f"{value[0]:.3g} at {shots[0]:g} shots and {value[-1]:.3g} at {shots[-1]:g}"


def _distinct_shots(curves: Curves, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    fresh = np.ones(curves.shots.size, dtype=np.int64)
    fresh[1:] = curves.shots[1:] != curves.shots[:-1]
    fresh[starts] = 1
    return np.add.reduceat(fresh, starts)


def _range(curves: Curves, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    columns = curves.columns
    values = columns["successes"] / columns["trials"] if curves.kind == "counts" else columns["value"]
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _largest_jump(curves: Curves, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The largest ratio of neighbouring positive shots in each curve; a step up from 0 is no jump."""
    ratio = np.ones(curves.shots.size)
    before, after = curves.shots[:-1], curves.shots[1:]
    np.divide(after, before, out=ratio[1:], where=before > 0)
    ratio[starts] = 1.0
    return np.maximum.reduceat(ratio, starts)
