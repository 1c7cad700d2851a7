"""Attempts: how often each model solved each problem when it was sampled again and again.

One row per (model, problem): `n` samples were drawn, `n_correct` of them are correct. Where a verifier judged the samples
too, `n_accepted` were accepted, `n_labelled` of those have a known truth and `n_correct_accepted` of these are correct.

`stopping` says when the sampling of a problem ended. An ending is a sample that the verifier accepted where there is one,
else a correct sample:

* ``fixed``: n was set in advance;
* ``first_success``: at the first ending, or at `cap`;
* ``batch``: after the first batch of `batch` samples that holds an ending, or at `cap`;
* ``capped``: some rule that looked at the results, at `cap` at the latest.

Under the last three c/n is biased upwards, and a problem with no ending is censored. The binomial kernel p^c (1-p)^(n-c)
is the same under all four.

Rows are kept in canonical order (model, problem) and every array is read-only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesscale.designs import Stopping, check_design, count_faults, stopping_faults
from bayesscale.finding import Finding, InputError

if TYPE_CHECKING:
    import pandas as pd

COUNTS = ("n", "n_correct")
VERIFIER_COUNTS = ("n_accepted", "n_labelled", "n_correct_accepted")
MAX_THINNED = 10**9

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Attempts:
    """Repeated samples of many problems by one or more models.

    Attributes
    ----------
    key_names : the columns that name a model, for example ``("model", "benchmark")``.
    keys : one tuple of labels per model, in the order of `key_names`; every label is text.
    model : (row,) index into `keys`.
    problems : distinct problem labels; one label is one problem, whichever model met it.
    problem : (row,) index into `problems`.
    n, n_correct : (row,) samples drawn, and the correct ones among them.
    n_accepted : (row,) samples the verifier accepted, None without a verifier.
    n_labelled : (row,) accepted samples whose truth is known; `n_accepted` unless given.
    n_correct_accepted : (row,) correct samples among the labelled accepted ones.
    stopping : the design, see the module's docstring.
    cap : the most samples a problem could get; None under ``fixed``, or where there was no limit.
    batch : samples drawn at once; 1 unless `stopping` is ``batch``.
    covariates : (model,) numeric arrays by name, for example the number of parameters.
    findings : what was noticed while the rows were read.
    """

    key_names: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    model: Integers
    problems: tuple[str, ...]
    problem: Integers
    n: Integers
    n_correct: Integers
    n_accepted: Integers | None = None
    n_labelled: Integers | None = None
    n_correct_accepted: Integers | None = None
    stopping: Stopping = "fixed"
    cap: int | None = None
    batch: int = 1
    covariates: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        held: dict[str, Any] = {
            "key_names": tuple(self.key_names),
            "keys": tuple(tuple(key) for key in self.keys),
            "problems": tuple(self.problems),
            "findings": tuple(self.findings),
        }
        _check_names(held["key_names"], held["keys"], held["problems"])
        check_design(self.stopping, self.cap, self.batch)
        if self.n_labelled is None:
            object.__setattr__(self, "n_labelled", self.n_accepted)
        _check_verifier(self)
        arrays = {name: getattr(self, name) for name in ("model", "problem", *COUNTS, *VERIFIER_COUNTS)}
        rows = np.size(self.model)
        arrays = {name: _whole(values, name, rows) for name, values in arrays.items() if values is not None}
        order = np.lexsort((arrays["problem"], arrays["model"]))
        held |= {name: values[order] for name, values in arrays.items()}
        held["covariates"] = {name: _finite(values, name, len(self.keys)) for name, values in self.covariates.items()}
        for array in (*(held[name] for name in arrays), *held["covariates"].values()):
            array.setflags(write=False)
        for name, value in held.items():
            object.__setattr__(self, name, value)
        _check_rows(self)

    def __len__(self) -> int:
        """The number of models."""
        return len(self.keys)

    def __repr__(self) -> str:
        by = ", ".join(self.key_names)
        return f"<Attempts: {len(self)} models, {self.n.size} rows, stopping {self.stopping}, by {by}>"

    def model_name(self, i: int) -> str:
        """The labels of model `i` as one short text, for example ``"llama-8b / MATH"``."""
        return " / ".join(self.keys[i]) or "the only model"

    def rows(self, i: int) -> slice:
        """The rows of model `i`."""
        first, end = self._bounds[range(len(self))[i] :][:2].tolist()
        return slice(first, end)

    def patterns(self, i: int) -> tuple[Integers, Integers, Integers]:
        """The distinct (n, n_correct) of model `i`, and how many of its problems have each: three (pattern,) arrays."""
        pairs = np.stack([self.n[self.rows(i)], self.n_correct[self.rows(i)]])
        distinct, weight = np.unique(pairs, axis=1, return_counts=True)
        return distinct[0], distinct[1], weight.astype(np.int64)

    def subset(self, indices: ArrayLike | slice) -> Attempts:
        """The models at `indices` (numbers, a slice or a boolean mask over models), in that order."""
        index = indices if isinstance(indices, slice) else np.asarray(indices)
        if isinstance(index, np.ndarray) and index.size == 0:
            index = index.astype(np.int64)
        chosen = np.atleast_1d(np.arange(len(self))[index])
        parts = [np.arange(self.n.size)[self.rows(i)] for i in chosen.tolist()]
        rows = np.concatenate([np.arange(0), *parts])
        used, problem = np.unique(self.problem[rows], return_inverse=True)
        names = {self.model_name(i) for i in chosen.tolist()}
        others = {self.model_name(i) for i in range(len(self))} - names
        return replace(
            self,
            keys=tuple(self.keys[i] for i in chosen),
            model=np.repeat(np.arange(len(chosen)), [len(part) for part in parts]),
            problems=tuple(self.problems[i] for i in used),
            problem=problem,
            covariates={name: values[chosen] for name, values in self.covariates.items()},
            findings=tuple(finding for finding in self.findings if finding.where not in others),
            **{name: values[rows] for name, values in _counts(self).items()},
        )

    def digest(self, i: int) -> str:
        """SHA-256 of model `i`: identity, design, problems, counts and covariates, whatever its neighbours."""
        rows = self.rows(i)
        labels = [self.problems[j] for j in self.problem[rows]]
        order = sorted(range(len(labels)), key=labels.__getitem__)
        identity = {
            "format": "bayesscale attempts 1",
            "key_names": self.key_names,
            "key": self.keys[i],
            "stopping": [self.stopping, self.cap, self.batch],
            "covariates": {name: float(values[i] + 0.0).hex() for name, values in sorted(self.covariates.items())},
            "problems": [labels[j] for j in order],
            "counts": list(_counts(self)),
        }
        total = hashlib.sha256(json.dumps(identity).encode())
        for values in _counts(self).values():
            total.update(values[rows][order].astype("<i8").tobytes())
        return total.hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """One row per (model, problem): labels, problem, counts and covariates.

        A column whose name a key has taken gets an underscore appended.
        """
        import pandas as pd

        data: dict[str, Any] = {
            name: np.array([key[j] for key in self.keys], dtype=object)[self.model]
            for j, name in enumerate(self.key_names)
        }
        more: dict[str, Any] = {"problem": np.array(self.problems, dtype=object)[self.problem], **_counts(self)}
        for name, values in (more | {name: values[self.model] for name, values in self.covariates.items()}).items():
            while name in data:
                name += "_"
            data[name] = values
        return pd.DataFrame(data)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
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
        strict: bool = False,
        max_bad_fraction: float = 0.05,
    ) -> Attempts:
        """Attempts from a data frame, through the same door as `bayesscale.ingest.attempts.read_attempts`."""
        from bayesscale.ingest.attempt_roles import AttemptRoles
        from bayesscale.ingest.attempts import attempts_from_records
        from bayesscale.ingest.records import records_from_frame

        roles = AttemptRoles.of(
            model=model, problem=problem, n=n, correct=correct, accepted=accepted, labelled=labelled,
            correct_accepted=correct_accepted, stopping=stopping, cap=cap, batch=batch, covariates=covariates,
        )  # fmt: skip
        records = records_from_frame(frame, roles.needed)
        return attempts_from_records(records, roles, strict=strict, max_bad_fraction=max_bad_fraction)

    @cached_property
    def _bounds(self) -> Integers:
        return np.searchsorted(self.model, np.arange(len(self) + 1))


def thin(attempts: Attempts, n0: int, seed: int) -> Attempts:
    """What `n0` of each problem's samples, drawn without replacement, would have shown.

    The counts of a problem with n > n0 are multivariate hypergeometric; one with n <= n0 keeps all. What is drawn for a
    model depends on the seed and that model's data only.

    Raises
    ------
    InputError : under a design other than ``fixed``, whose samples cannot be exchanged; with unlabelled accepted samples,
        whose truth is unknown; or above 10^9 samples of one problem.
    """
    _check_thinning(attempts, n0, seed)
    thinned = {name: values.copy() for name, values in _counts(attempts).items()}
    for i in range(len(attempts)):
        rows = np.arange(attempts.n.size)[attempts.rows(i)]
        rows = rows[attempts.n[rows] > n0]
        rng = np.random.default_rng([seed, int(attempts.digest(i), 16)])
        for name, values in _draw_without_replacement(attempts, rows, n0, rng).items():
            thinned[name][rows] = values
    return replace(attempts, **thinned)


def stop_at(attempts: Attempts, budget: int) -> Attempts:
    """What would be known had each problem's sampling stopped after `budget` samples.

    Under ``first_success`` and ``batch`` nothing ended the sampling before a problem's last batch, so a problem with
    n > budget becomes n = budget with no correct and no accepted sample, and the cap becomes min(cap, budget).

    Raises
    ------
    InputError : under another design, for a budget that is no multiple of the batch, or where correct samples that were
        rejected may lie on either side of the budget.
    """
    if attempts.stopping not in ("first_success", "batch"):
        what = f"stopping is {attempts.stopping}, so it is unknown when the successes came"
        raise InputError("BUDGET", what, fix="thin(attempts, n0, seed) suits a fixed design")
    if budget < 1 or budget % attempts.batch or budget != int(budget):
        what = f"the budget must be a positive whole multiple of the batch of {attempts.batch}, got {budget}"
        raise InputError("BUDGET", what)
    cut = attempts.n > budget
    if attempts.n_correct_accepted is not None and (cut & (attempts.n_correct > attempts.n_correct_accepted)).any():
        what = "correct samples that the verifier rejected may have come before or after the budget"
        raise InputError("BUDGET", what, fix="leave the verifier's columns out, or set the budget at the cap")
    shortened = {name: np.where(cut, 0, values) for name, values in _counts(attempts).items()}
    shortened["n"] = np.minimum(attempts.n, budget)
    cap = budget if attempts.cap is None else min(attempts.cap, budget)
    return replace(attempts, cap=cap, **shortened)


def _counts(attempts: Attempts) -> dict[str, Integers]:
    named = {name: getattr(attempts, name) for name in (*COUNTS, *VERIFIER_COUNTS)}
    return {name: values for name, values in named.items() if values is not None}


def _check_thinning(attempts: Attempts, n0: int, seed: int) -> None:
    if n0 < 1 or n0 != int(n0) or seed < 0:
        raise InputError(
            "THIN", f"n0 must be a whole number from 1 upwards and the seed not negative, got {n0}, {seed}"
        )
    if attempts.stopping != "fixed":
        what = f"under stopping {attempts.stopping} the order of the samples matters, so none may be drawn out of it"
        raise InputError("THIN", what, fix="stop_at(attempts, budget) shortens a stopped design")
    if attempts.n_labelled is not None and (attempts.n_labelled != attempts.n_accepted).any():
        raise InputError(
            "THIN", "the truth of some accepted samples is unknown", fix="leave the verifier's columns out"
        )
    if attempts.n.max() >= MAX_THINNED:
        raise InputError("THIN", f"a problem has {attempts.n.max()} samples, 10^9 or more", fix="leave it out")


def _draw_without_replacement(
    attempts: Attempts, rows: Integers, n0: int, rng: np.random.Generator
) -> dict[str, Integers]:
    """Counts among `n0` of the samples of each row: cells are drawn one after the other from what is left."""
    correct = attempts.n_correct[rows]
    cells = {"n_correct": correct}
    if attempts.n_accepted is not None and attempts.n_correct_accepted is not None:
        both, accepted = attempts.n_correct_accepted[rows], attempts.n_accepted[rows]
        cells = {"both": both, "wrong_accepted": accepted - both, "correct_rejected": correct - both}
    left, wanted, drawn = attempts.n[rows].copy(), np.full(rows.size, n0), {}
    for name, cell in cells.items():
        drawn[name] = rng.hypergeometric(cell, left - cell, wanted)
        left, wanted = left - cell, wanted - drawn[name]
    counts = {"n": np.full(rows.size, n0, dtype=np.int64)}
    if attempts.n_accepted is None:
        return counts | drawn
    accepted = drawn["both"] + drawn["wrong_accepted"]
    counts["n_correct"] = drawn["both"] + drawn["correct_rejected"]
    return counts | {"n_accepted": accepted, "n_labelled": accepted, "n_correct_accepted": drawn["both"]}


def _whole(values: ArrayLike, name: str, size: int) -> Integers:
    array = np.array(values)
    if array.shape != (size,):
        raise InputError("ATTEMPTS", f"{name} must have shape ({size},), got {array.shape}")
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and bool((array == np.round(array)).all()))
    if not whole or (array < 0).any() or (array > 2**53).any():
        raise InputError("ATTEMPTS", f"{name} must hold whole numbers from 0 to 2^53")
    return array.astype(np.int64)


def _finite(values: ArrayLike, name: str, size: int) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise InputError("ATTEMPTS", f"covariate {name} must hold one finite number for each of {size} models")
    return array


def _check_names(key_names: Sequence[str], keys: Sequence[tuple[str, ...]], problems: Sequence[str]) -> None:
    if not keys:
        raise InputError("ATTEMPTS", "there are no models: no rows are left")
    if len(set(key_names)) != len(key_names):
        raise InputError("ATTEMPTS", f"a key column is named twice in {', '.join(key_names)}")
    for key in keys:
        if len(key) != len(key_names) or not all(isinstance(label, str) for label in key):
            raise InputError("ATTEMPTS", f"the key {key!r} must be one text label for each of {tuple(key_names)}")
    if len(set(keys)) != len(keys):
        raise InputError("ATTEMPTS", "two models have the same key")
    if len(set(problems)) != len(problems) or not all(isinstance(label, str) for label in problems):
        raise InputError("ATTEMPTS", "problems must be distinct text labels")


def _check_verifier(attempts: Attempts) -> None:
    given = [getattr(attempts, name) is not None for name in VERIFIER_COUNTS]
    if any(given) and not all(given):
        raise InputError("ATTEMPTS", "a verifier needs both n_accepted and n_correct_accepted")


def _check_rows(attempts: Attempts) -> None:
    for name, labels in (("model", attempts.keys), ("problem", attempts.problems)):
        if attempts.n.size and getattr(attempts, name).max() >= len(labels):
            raise InputError("ATTEMPTS", f"a {name} index points beyond the {len(labels)} labels")
    empty = np.flatnonzero(np.diff(attempts._bounds) == 0)
    if empty.size:
        raise InputError("ATTEMPTS", "the model has no rows", where=attempts.model_name(int(empty[0])))
    same = (np.diff(attempts.model) == 0) & (np.diff(attempts.problem) == 0)
    _refuse(attempts, np.append(same, False), "two rows have this model and problem")
    for bad, _, what, _ in count_faults(_counts(attempts)):
        _refuse(attempts, bad, what)
    endings = attempts.n_correct if attempts.n_accepted is None else attempts.n_accepted
    for bad, what in stopping_faults(attempts.stopping, attempts.cap, attempts.batch, attempts.n, endings):
        _refuse(attempts, bad, what)


def _refuse(attempts: Attempts, bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        where = f"{attempts.model_name(int(attempts.model[row]))} problem={attempts.problems[attempts.problem[row]]}"
        values = ", ".join(f"{name}={array[row]}" for name, array in _counts(attempts).items())
        raise InputError("ATTEMPTS", f"{what}, got {values}", where=where)
