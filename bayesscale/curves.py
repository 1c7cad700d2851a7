"""Curves: performance of a model against the number of demonstrations it was shown.

One row per (curve, run, shots). Exactly one kind of observation, named by `kind` and never guessed:

* ``counts``: `successes` out of `trials` (accuracy on a test set);
* ``prob_mean``: `value` is a mean probability of the right answer, with its standard error `se` (NaN if unknown);
* ``nll_mean``: `value` is a mean negative log-likelihood in nats, with its standard error `se` (NaN if unknown).

A mean NLL and minus the log of a mean probability are different quantities; nothing here turns one into the other.
`shots` counts demonstrations already seen; any offset was added before the rows came in.

Rows are kept in canonical order (curve, shots, run) and every array is read-only, so two sets of curves made from the
same rows in any order hold the same arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesscale.finding import Finding, InputError

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["counts", "prob_mean", "nll_mean"]
COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "counts": ("successes", "trials"),
    "prob_mean": ("value", "se"),
    "nll_mean": ("value", "se"),
}


@dataclass(frozen=True, eq=False)
class Curves:
    """A set of observed curves.

    Attributes
    ----------
    kind : which observation the rows hold.
    key_names : the columns that name a curve, for example ``("model", "task")``.
    keys : one tuple of labels per curve, in the order of `key_names`; every label is text.
    curve : (obs,) index into `keys`.
    run : (obs,) index of the replicate run within its curve.
    shots : (obs,) demonstrations already seen.
    columns : (obs,) arrays named by ``COLUMNS[kind]``.
    chance : (curve,) accuracy of guessing, NaN where unknown.
    covariates : (curve,) numeric arrays by name, for example the amount of fine-tuning.
    findings : what was noticed while the rows were read.
    """

    kind: Kind
    key_names: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    curve: NDArray[np.int64]
    run: NDArray[np.int64]
    shots: NDArray[np.float64]
    columns: Mapping[str, NDArray[np.float64]]
    chance: NDArray[np.float64]
    covariates: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        _check_names(self)
        rows, curves = np.size(self.curve), len(self.keys)
        held: dict[str, Any] = {
            "key_names": tuple(self.key_names),
            "keys": tuple(tuple(key) for key in self.keys),
            "curve": _whole(self.curve, "curve", rows),
            "run": _whole(self.run, "run", rows),
            "shots": _floats(self.shots, "shots", rows),
            "columns": {name: _floats(self.columns[name], name, rows) for name in COLUMNS[self.kind]},
            "chance": _floats(self.chance, "chance", curves),
            "covariates": {name: _floats(values, name, curves) for name, values in self.covariates.items()},
            "findings": tuple(self.findings),
        }
        order = _canonical_order(held["curve"], held["shots"], held["run"], held["columns"].values())
        for name in ("curve", "run", "shots"):
            held[name] = held[name][order]
        held["columns"] = {name: values[order] for name, values in held["columns"].items()}
        arrays = [held["curve"], held["run"], held["shots"], held["chance"]]
        for array in (*arrays, *held["columns"].values(), *held["covariates"].values()):
            array.setflags(write=False)
        for name, value in held.items():
            object.__setattr__(self, name, value)
        _check_curves(self)
        _check_rows(self)

    def __len__(self) -> int:
        """The number of curves."""
        return len(self.keys)

    def __repr__(self) -> str:
        return f"<Curves: {len(self)} of kind {self.kind}, {self.curve.size} rows, by {', '.join(self.key_names)}>"

    def curve_name(self, i: int) -> str:
        """The labels of curve `i` as one short text, for example ``"llama-7b / banking77"``."""
        return " / ".join(self.keys[i]) or "the only curve"

    def column(self, name: str) -> NDArray[np.float64]:
        """The (obs,) observation column called `name`, one of ``COLUMNS[kind]``."""
        if name not in self.columns:
            raise InputError("CURVES", f"{self.kind} curves hold {', '.join(self.columns)}, not {name!r}")
        return self.columns[name]

    def subset(self, indices: ArrayLike | slice) -> Curves:
        """The curves at `indices` (numbers, a slice or a boolean mask over curves), in that order."""
        chosen = np.atleast_1d(np.arange(len(self))[indices if isinstance(indices, slice) else _as_index(indices)])
        rows = [np.arange(*self._bounds[i : i + 2].tolist()) for i in chosen]
        return self._take(np.concatenate([np.arange(0), *rows]), chosen)

    def row_mask(self, share: float) -> NDArray[np.bool_]:
        """True for the rows with `shots` at most `share` of the largest shots of their own curve."""
        if not 0 < share <= 1:
            raise InputError("CURVES", f"a share must lie in (0, 1], got {share}")
        last = self.shots[self._bounds[1:] - 1]
        # A hair of slack: 0.29 * 100 is below 29 in floating point.
        return self.shots <= share * last[self.curve] * (1 + 1e-12)

    def rows(self, mask: NDArray[np.bool_]) -> Curves:
        """The rows where `mask` is true; a curve left without rows drops out, so match curves by key, not by index."""
        kept = np.flatnonzero(mask)
        return self._take(kept, np.unique(self.curve[kept]))

    def train(self, share: float) -> Curves:
        """The rows up to `share` of each curve's largest shots: ``rows(row_mask(share))``."""
        return self.rows(self.row_mask(share))

    def held_out(self, share: float) -> Curves:
        """The rows beyond `share` of each curve's largest shots: ``rows(~row_mask(share))``."""
        return self.rows(~self.row_mask(share))

    def digest(self, i: int) -> str:
        """SHA-256 of curve `i`: identity, rows, chance and covariates, whatever the row order and neighbours."""
        identity = {
            "format": "bayesscale curve 1",
            "kind": self.kind,
            "key_names": self.key_names,
            "key": self.keys[i],
            "chance": float(self.chance[i] + 0.0).hex(),
            "covariates": {name: float(values[i] + 0.0).hex() for name, values in sorted(self.covariates.items())},
        }
        rows = slice(self._bounds[i], self._bounds[i + 1])
        arrays = [self.shots[rows], self.run[rows], *(self.columns[name][rows] for name in COLUMNS[self.kind])]
        total = hashlib.sha256(json.dumps(identity).encode())
        for array in arrays:
            total.update(_canonical_bytes(array))
        return total.hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """One row per observation: labels, run, shots, observation, chance, covariates.

        A covariate that is also a key (a numeric condition) appears once, as the key's text. A column whose name a key
        has taken gets an underscore appended.
        """
        import pandas as pd

        data: dict[str, Any] = {
            name: np.array([key[j] for key in self.keys], dtype=object)[self.curve]
            for j, name in enumerate(self.key_names)
        }
        more = {"run": self.run, "shots": self.shots, **self.columns, "chance": self.chance[self.curve]}
        more |= {name: values[self.curve] for name, values in self.covariates.items() if name not in self.key_names}
        for name, values in more.items():
            while name in data:
                name += "_"
            data[name] = values
        return pd.DataFrame(data)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
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
        strict: bool = False,
        max_bad_fraction: float = 0.05,
    ) -> Curves:
        """Curves from a data frame, through the same door as `bayesscale.ingest.table.read_curves`."""
        from bayesscale.ingest.records import records_from_frame
        from bayesscale.ingest.roles import Roles
        from bayesscale.ingest.rows import curves_from_records

        roles = Roles.of(
            curve=curve, x=x, successes=successes, trials=trials, nll=nll, prob=prob, se=se, run=run,
            condition=condition, chance=chance, shot_offset=shot_offset, covariates=covariates,
        )  # fmt: skip
        records = records_from_frame(frame, roles.needed)
        return curves_from_records(records, roles, strict=strict, max_bad_fraction=max_bad_fraction)

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """Rows of curve i are ``_bounds[i]`` up to ``_bounds[i + 1]``: rows are sorted by curve."""
        return np.searchsorted(self.curve, np.arange(len(self) + 1))

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.curve_name(i) for i in range(len(self)))

    def _take(self, rows: NDArray[np.int64], chosen: NDArray[np.int64]) -> Curves:
        """The given rows of the chosen curves; findings about other curves stay behind."""
        place = {int(old): new for new, old in enumerate(chosen)}
        names = {self.curve_name(int(i)) for i in chosen}
        return replace(
            self,
            keys=tuple(self.keys[i] for i in chosen),
            curve=np.array([place[int(old)] for old in self.curve[rows]], dtype=np.int64),
            run=self.run[rows],
            shots=self.shots[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            chance=self.chance[chosen],
            covariates={name: values[chosen] for name, values in self.covariates.items()},
            findings=tuple(f for f in self.findings if f.where in names or f.where not in self._names),
        )


def _as_index(indices: ArrayLike) -> NDArray[Any]:
    index = np.asarray(indices)
    return index.astype(np.int64) if index.size == 0 else index


def _canonical_order(
    curve: NDArray[np.int64], shots: NDArray[np.float64], run: NDArray[np.int64], columns: Iterable[NDArray[np.float64]]
) -> NDArray[np.int64]:
    """Rows by curve, shots, run; the observed values break ties, so the order never depends on the order given."""
    return np.lexsort((*reversed(list(columns)), run, shots, curve))


def _canonical_bytes(array: NDArray[Any]) -> bytes:
    """Little-endian bytes with one zero and one NaN."""
    if array.dtype.kind == "i":
        return array.astype("<i8").tobytes()
    return np.where(np.isnan(array), np.nan, array + 0.0).astype("<f8").tobytes()


def _floats(values: ArrayLike, name: str, size: int) -> NDArray[np.float64]:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("CURVES", f"{name} must hold numbers: {error}") from None
    if array.shape != (size,):
        raise InputError("CURVES", f"{name} must have shape ({size},), got {array.shape}")
    return array


def _whole(values: ArrayLike, name: str, size: int) -> NDArray[np.int64]:
    array = _floats(values, name, size)
    if not (np.isfinite(array).all() and (array == np.round(array)).all() and (array >= 0).all()):
        raise InputError("CURVES", f"{name} must hold whole numbers from 0 upwards")
    return array.astype(np.int64)


def _check_names(curves: Curves) -> None:
    if curves.kind not in COLUMNS:
        raise InputError("CURVES", f"kind must be one of {', '.join(COLUMNS)}, got {curves.kind!r}")
    if set(curves.columns) != set(COLUMNS[curves.kind]):
        needed, given = ", ".join(COLUMNS[curves.kind]), ", ".join(curves.columns) or "none"
        raise InputError("CURVES", f"{curves.kind} curves need the columns {needed}, got {given}")
    if not curves.keys:
        raise InputError("CURVES", "there are no curves: no rows are left")
    if len(set(curves.key_names)) != len(curves.key_names):
        raise InputError("CURVES", f"a key column is named twice in {', '.join(curves.key_names)}")
    for key in curves.keys:
        if len(key) != len(curves.key_names) or not all(isinstance(label, str) for label in key):
            raise InputError("CURVES", f"the key {key!r} must be one text label for each of {curves.key_names}")
    if len(set(curves.keys)) != len(curves.keys):
        raise InputError("CURVES", "two curves have the same key")


def _check_curves(curves: Curves) -> None:
    if curves.curve.size and curves.curve[-1] >= len(curves):
        raise InputError("CURVES", f"curve index {curves.curve[-1]} points beyond the {len(curves)} keys")
    empty = np.flatnonzero(np.diff(curves._bounds) == 0)
    if empty.size:
        raise InputError("CURVES", "the curve has no rows", where=curves.curve_name(int(empty[0])))
    known = curves.chance[~np.isnan(curves.chance)]
    if ((known < 0) | (known >= 1)).any():
        raise InputError("CURVES", "chance must lie in [0, 1), or be NaN where unknown")
    for name, values in curves.covariates.items():
        if not np.isfinite(values).all():
            raise InputError("CURVES", f"covariate {name} must be finite for every curve")


def _check_rows(curves: Curves) -> None:
    _refuse(curves, ~np.isfinite(curves.shots) | (curves.shots < 0), "shots must be finite and at least 0")
    if curves.kind == "counts":
        successes, trials = curves.columns["successes"], curves.columns["trials"]
        whole = (successes == np.round(successes)) & (trials == np.round(trials))
        _refuse(curves, ~np.isfinite(successes) | ~np.isfinite(trials), "successes and trials must be finite")
        _refuse(curves, ~whole, "successes and trials must be whole numbers")
        _refuse(curves, trials <= 0, "trials must be above 0")
        _refuse(curves, successes < 0, "successes must be at least 0")
        _refuse(curves, successes > trials, "successes must not exceed trials")
        return
    value, se = curves.columns["value"], curves.columns["se"]
    _refuse(curves, ~np.isfinite(value), "value must be finite")
    _refuse(curves, ~(np.isnan(se) | ((se > 0) & np.isfinite(se))), "se must be above 0, or NaN where unknown")
    if curves.kind == "prob_mean":
        _refuse(curves, (value < 0) | (value > 1), "a mean probability must lie in [0, 1]")
    else:
        _refuse(curves, value < 0, "a mean negative log-likelihood must be at least 0")


def _refuse(curves: Curves, bad: NDArray[np.bool_], rule: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        name = curves.curve_name(int(curves.curve[row]))
        values = ", ".join(f"{column}={cast(float, array[row]):g}" for column, array in curves.columns.items())
        raise InputError("CURVES", f"{rule}, got {values}", where=f"{name} shots={curves.shots[row]:g}")
