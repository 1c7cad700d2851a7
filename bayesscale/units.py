"""Units: the arrays a batch of fits works on.

A unit is what one posterior is about: one curve, or for a joint law the curves of all tasks of one model. `units_of` turns
`Curves` into rectangular, padded arrays with a leading unit axis. Nothing here depends on which law is fitted, so the same
arrays serve every law, and a training set is the same arrays with later rows masked: no new shape, no new compilation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from bayesscale.columns import taken
from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.likelihood import Likelihood

FACTS = ("chance", "first_value", "first_shots", "last_shots")
"""Per-unit scalars a prior or the sampler's coordinates may look at."""
SMALLEST_RUN_VARIANCE = 1e-6
"""Runs whose spread on the logit scale is below this are copies of one another and say nothing about run noise."""


@dataclass(frozen=True)
class Units:
    """A batch of units as padded arrays.

    Attributes
    ----------
    names : one per unit, for people.
    digests : one per unit, the identity randomness is keyed by.
    columns : arrays (unit, row) by name, and the facts (unit,); rows are sorted by curve and shots.
    curves : (unit, row) index into the `Curves` the rows came from, -1 on padding.
    members : per unit, the indices of its curves; position is the row's `task`.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    columns: Mapping[str, NDArray]
    curves: NDArray[np.int64]
    members: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> int:
        """Padded number of rows."""
        return self.columns["mask"].shape[1]

    def take(self, index: Sequence[int] | NDArray) -> Units:
        """Return the units at these positions."""
        index = np.asarray(index, dtype=int)
        return Units(
            names=tuple(self.names[i] for i in index),
            digests=tuple(self.digests[i] for i in index),
            columns=taken(self.columns, index),
            curves=self.curves[index],
            members=tuple(self.members[i] for i in index),
        )

    def masked(self, keep: NDArray, tag: str) -> Units:
        """Return the same units seeing only the rows where `keep` is true; `tag` enters the identity."""
        mask = self.columns["mask"] * keep
        digests = tuple(f"{digest}/{tag}" for digest in self.digests)
        return replace(self, digests=digests, columns={**self.columns, "mask": mask, **facts_seen(self.columns, mask)})


def units_of(curves: Curves, likelihood: Likelihood, *, joint: bool = False, task_key: str | None = None) -> Units:
    """Lay out curves as units of padded rows for a likelihood.

    For a joint law, curves that differ only in `task_key` (default: the key called "task", or the last key) form one unit.

    Raises
    ------
    InputError : the likelihood is for another kind of observation.
    """
    if curves.kind != likelihood.kind:
        raise InputError(
            "WRONG_LIKELIHOOD",
            f"likelihood {likelihood.name!r} is for {likelihood.kind} data and these curves hold {curves.kind}",
            fix="choose a likelihood of that kind",
        )
    groups = joint_members(curves, task_key) if joint else tuple((i,) for i in range(len(curves)))
    tables = [unit_rows(curves, members, likelihood) for members in groups]
    width = padded_width(max(len(table["shots"]) for table in tables))
    columns = {name: np.stack([pad(table[name], width) for table in tables]) for name in tables[0]}
    columns["mask"] = (np.arange(width) < np.array([[len(table["shots"])] for table in tables])).astype(float)
    curve = columns.pop("curve").astype(np.int64)
    curve[columns["mask"] == 0] = -1
    columns["chance"] = np.array(
        [np.nanmean(curves.chance[list(m)]) if has_chance(curves, m) else np.nan for m in groups]
    )
    columns |= facts_seen(columns, columns["mask"])
    return Units(
        names=tuple(unit_name(curves, members, joint=joint, task_key=task_key) for members in groups),
        digests=tuple("+".join(curves.digest(i) for i in members) for members in groups),
        columns=columns,
        curves=curve,
        members=groups,
    )


def has_chance(curves: Curves, members: Sequence[int]) -> bool:
    return bool(np.isfinite(curves.chance[list(members)]).any())


def task_position(curves: Curves, task_key: str | None) -> int:
    """Index of the key that tells tasks apart."""
    if task_key is None:
        task_key = "task" if "task" in curves.key_names else curves.key_names[-1]
    if task_key not in curves.key_names:
        names = ", ".join(curves.key_names)
        raise InputError("NO_TASK_KEY", f"there is no key {task_key!r}; the keys are {names}", fix="name one of them")
    return curves.key_names.index(task_key)


def joint_members(curves: Curves, task_key: str | None) -> tuple[tuple[int, ...], ...]:
    """Group curves that share every key but the task's."""
    place = task_position(curves, task_key)
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(curves.keys):
        groups.setdefault(key[:place] + key[place + 1 :], []).append(i)
    return tuple(tuple(members) for members in groups.values())


def unit_name(curves: Curves, members: Sequence[int], *, joint: bool, task_key: str | None) -> str:
    if not joint:
        return curves.curve_name(members[0])
    place = task_position(curves, task_key)
    key = curves.keys[members[0]]
    shared = key[:place] + key[place + 1 :]
    return " / ".join(shared) or "all tasks"


def padded_width(rows: int) -> int:
    """Round up to 20, 24, 32, 48, 64, 96, 128, ...: few shapes are compiled, and little is computed on padding."""
    if rows <= 20:
        return 20
    power = 1 << (rows - 1).bit_length()
    return 3 * power // 4 if rows <= 3 * power // 4 else power


def pad(column: NDArray, width: int) -> NDArray:
    """Repeat the last row up to `width`; the mask takes the copies out again."""
    return np.concatenate([column, np.repeat(column[-1:], width - len(column), axis=0)])


def unit_rows(curves: Curves, members: Sequence[int], likelihood: Likelihood) -> dict[str, NDArray]:
    """Columns of one unit, curve after curve, each sorted by shots."""
    build = cells if likelihood.rows == "cell" else single_runs
    parts = []
    for task, i in enumerate(members):
        part = build(curves, i)
        time = np.log1p(part["shots"])
        part["step"] = np.diff(time, prepend=0.0)
        part["first"] = (np.arange(len(time)) == 0).astype(float)
        part["task"] = np.full(len(time), task)
        part["curve"] = np.full(len(time), i)
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rows_of(curves: Curves, i: int) -> NDArray[np.int64]:
    """Row numbers of a curve, by shots and then run."""
    rows = np.flatnonzero(curves.curve == i)
    return rows[np.lexsort((curves.run[rows], curves.shots[rows]))]


def empirical_logit(successes: NDArray | np.float64, trials: NDArray | np.float64) -> NDArray:
    """log((k + 1/2) / (n - k + 1/2)), finite at both ends."""
    return np.log(successes + 0.5) - np.log(trials - successes + 0.5)


def cells(curves: Curves, i: int) -> dict[str, NDArray]:
    """Counts of a curve, one row per shot count: mean logit, run variance, runs.

    Runs that all agree exactly are one run copied (greedy decoding with a fixed prompt, say): they count once and say
    nothing about run noise.
    """
    rows = rows_of(curves, i)
    shots, start = np.unique(curves.shots[rows], return_index=True)
    groups = np.split(rows, start[1:])
    k, n = curves.columns["successes"], curves.columns["trials"]
    mean_trials = np.array([n[g].mean() for g in groups])
    logits = [empirical_logit(k[g], n[g]) for g in groups]
    variance = np.array([x.var(ddof=1) if len(x) > 1 else 0.0 for x in logits])
    copied = variance < SMALLEST_RUN_VARIANCE
    size = np.array([len(g) for g in groups], float)
    runs, copies = np.where(copied, 1.0, size), np.where(copied, size, 1.0)
    df, variance = np.where(copied, 0.0, runs - 1.0), np.where(copied, 1.0, variance)
    half = np.where(df > 0, df, 2.0) / 2.0
    # The part of log density of s2 = v chi2(df) / df that no parameter moves.
    constant = np.where(df > 0, half * np.log(half) - gammaln(half) + (half - 1.0) * np.log(variance), 0.0)
    return {
        "shots": shots,
        "y": np.array([empirical_logit(k[g].sum() / c, n[g].sum() / c) for g, c in zip(groups, copies, strict=True)]),
        "value": np.array([k[g].sum() / n[g].sum() for g in groups]),
        "trials": mean_trials,
        "runs": runs,
        "run_df": df,
        "run_variance": variance,
        "run_constant": constant,
    }


def single_runs(curves: Curves, i: int) -> dict[str, NDArray]:
    """Rows of a curve as they are, one per run and shot count."""
    rows = rows_of(curves, i)
    base = {"shots": curves.shots[rows]}
    if curves.kind == "counts":
        k, n = curves.columns["successes"][rows], curves.columns["trials"][rows]
        choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
        fields = {"successes": k, "trials": n, "log_choose": choose, "y": empirical_logit(k, n), "value": k / n}
        return base | fields | {"runs": np.ones(len(rows))}
    value, se = curves.columns["value"][rows], curves.columns["se"][rows]
    se = np.where(np.isfinite(se), se, 0.0)
    if curves.kind == "nll_mean":
        value = np.maximum(value, 1e-12)
        return base | {"value": value, "se": se, "y": np.log(value), "runs": np.ones(len(rows))}
    # A mean of exactly 0 or 1 has no logit and no beta density; a millionth inside is below any standard error.
    value = np.clip(value, 1e-6, 1.0 - 1e-6)
    return base | {"value": value, "se": se, "y": np.log(value) - np.log1p(-value), "runs": np.ones(len(rows))}


def facts_seen(columns: Mapping[str, NDArray], mask: NDArray) -> dict[str, NDArray]:
    """Facts of the rows the mask shows: each unit's first value, kept inside (0, 1), and the range of its shots."""
    seen = mask > 0
    any_seen, first = seen.any(axis=1), seen.argmax(axis=1)[:, None]
    value = np.where(any_seen, np.take_along_axis(columns["value"], first, axis=1)[:, 0], 0.5)
    shots = columns["shots"]
    lowest = np.where(any_seen, np.where(seen, shots, np.inf).min(axis=1), 1.0)
    highest = np.where(any_seen, np.where(seen, shots, -np.inf).max(axis=1), 2.0)
    return {
        "first_value": np.clip(value, 1e-3, 1.0 - 1e-3),
        "first_shots": lowest,
        "last_shots": np.maximum(highest, lowest + 1.0),  # the ends of a range, where one shot count is all there is
    }
