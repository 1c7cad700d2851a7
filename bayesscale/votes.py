"""Votes: which answers each model gave to each problem when it was sampled again and again.

One row per (model, problem). `counts` says how many samples gave each answer, `n_none` how many gave none; both make up
`n`. Samples without an answer count as votes drawn but can never win.

Answers are either closed, a list of options common to all problems (`answers` names the columns, as in multiple choice),
or open (`answers` is empty): then each row's columns are its own answers, by falling count, and mean nothing across rows.
Options may be shuffled between models, so a column never stands for the same answer in two models.

Rows are kept in canonical order (model, problem) and every array is read-only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesscale.finding import Finding, InputError
from bayesscale.resampling.plurality import plurality_score

if TYPE_CHECKING:
    import pandas as pd

Integers = NDArray[np.int64]
LARGEST_COUNT = 10**9
"""Votes of one problem; numpy draws without replacement below it."""


@dataclass(frozen=True, eq=False)
class Votes:
    """Answers to many problems by one or more models.

    Attributes
    ----------
    key_names : the columns that name a model, for example ``("model", "run")``.
    keys : one tuple of labels per model, in the order of `key_names`; every label is text.
    model : (row,) index into `keys`.
    problems : distinct problem labels.
    problem : (row,) index into `problems`.
    counts : (row, answer) samples that gave each answer.
    correct : (row,) column of the right answer; -1 where answers are open and no sample gave it.
    n : (row,) samples drawn.
    n_none : (row,) samples that gave no answer.
    answers : names of the columns of `counts`; empty where answers are open.
    findings : what was noticed while the rows were read.
    """

    key_names: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    model: Integers
    problems: tuple[str, ...]
    problem: Integers
    counts: Integers
    correct: Integers
    n: Integers
    n_none: Integers
    answers: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        held: dict[str, Any] = {
            "key_names": tuple(self.key_names),
            "keys": tuple(tuple(key) for key in self.keys),
            "problems": tuple(self.problems),
            "answers": tuple(self.answers),
            "findings": tuple(self.findings),
        }
        _check_names(held["key_names"], held["keys"], held["problems"])
        rows, width = np.size(self.model), len(held["answers"]) or np.shape(self.counts)[-1]
        arrays = {name: _whole(getattr(self, name), name, (rows,)) for name in ("model", "problem", "n", "n_none")}
        arrays["counts"] = _whole(self.counts, "counts", (rows, width))
        arrays["correct"] = _whole(self.correct, "correct", (rows,), lowest=-1)
        _check_answers(held["answers"], arrays["correct"], width)
        if not held["answers"]:
            arrays["counts"], arrays["correct"] = _ranked(arrays["counts"], arrays["correct"])
        order = np.lexsort((arrays["problem"], arrays["model"]))
        for name, values in arrays.items():
            held[name] = values[order]
            held[name].setflags(write=False)
        for name, value in held.items():
            object.__setattr__(self, name, value)
        _check_rows(self)

    def __len__(self) -> int:
        """The number of models."""
        return len(self.keys)

    def __repr__(self) -> str:
        kind = f"{len(self.answers)} answers" if self.answers else "open answers"
        return f"<Votes: {len(self)} models, {self.n.size} rows, {kind}, by {', '.join(self.key_names)}>"

    @property
    def n_correct(self) -> Integers:
        """(row,) votes for the right answer."""
        return np.where(self.correct >= 0, self.counts[np.arange(self.n.size), np.maximum(self.correct, 0)], 0)

    @property
    def wrong(self) -> Integers:
        """(row, wrong) votes for each wrong answer, most votes first; one column fewer for closed answers."""
        right = np.arange(self.counts.shape[1]) == self.correct[:, None]
        falling = -np.sort(-np.where(right, -1, self.counts), axis=1)
        return falling[:, :-1] if self.answers else np.maximum(falling, 0)

    @property
    def majority(self) -> NDArray[np.float64]:
        """(row,) score of the vote cast: 1 where the right answer leads, 1 / (number level with it) at a tie, else 0."""
        return plurality_score(self.counts, self.correct)

    def model_name(self, i: int) -> str:
        """The labels of model `i` as one short text."""
        return " / ".join(self.keys[i]) or "the only model"

    def rows(self, i: int) -> slice:
        """The rows of model `i`."""
        first, end = self._bounds[range(len(self))[i] :][:2].tolist()
        return slice(first, end)

    def subset(self, indices: ArrayLike | slice) -> Votes:
        """The models at `indices` (numbers, a slice or a boolean mask over models), in that order."""
        index = indices if isinstance(indices, slice) else np.asarray(indices)
        if isinstance(index, np.ndarray) and index.size == 0:
            index = index.astype(np.int64)
        chosen = np.atleast_1d(np.arange(len(self))[index])
        parts = [np.arange(self.n.size)[self.rows(i)] for i in chosen.tolist()]
        return self._take(np.concatenate([np.arange(0), *parts]), chosen)

    def select(self, mask: ArrayLike) -> Votes:
        """The rows where `mask` (row,) is true; a model left without rows drops out, so match models by key."""
        rows = np.flatnonzero(np.asarray(mask, dtype=bool))
        return self._take(rows, np.unique(self.model[rows]))

    def digest(self, i: int) -> str:
        """SHA-256 of model `i`: identity, problems, answers and counts, whatever its neighbours."""
        rows = self.rows(i)
        labels = [self.problems[j] for j in self.problem[rows]]
        order = sorted(range(len(labels)), key=labels.__getitem__)
        identity = {
            "format": "bayesscale votes 1",
            "key_names": self.key_names,
            "key": self.keys[i],
            "answers": self.answers,
            "problems": [labels[j] for j in order],
        }
        total = hashlib.sha256(json.dumps(identity).encode())
        counts = self.counts[rows][order]
        if not self.answers:  # columns that only a neighbour fills are no part of this model
            counts = counts[:, : max(1, int((counts > 0).any(axis=0).sum()))]
        for values in (counts, self.correct[rows][order], self.n[rows][order], self.n_none[rows][order]):
            total.update(values.astype("<i8").tobytes())
        return total.hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """One row per (model, problem): labels, problem, n, n_correct, n_none, the votes and the vote's score.

        A column whose name a key has taken gets an underscore appended.
        """
        import pandas as pd

        names = self.answers or tuple(f"rank_{j + 1}" for j in range(self.counts.shape[1]))
        data: dict[str, Any] = {
            name: np.array([key[j] for key in self.keys], dtype=object)[self.model]
            for j, name in enumerate(self.key_names)
        }
        more = {"problem": np.array(self.problems, dtype=object)[self.problem], "n": self.n}
        more |= {"n_correct": self.n_correct, "n_none": self.n_none, "majority": self.majority}
        for name, values in (more | {f"votes_{name}": self.counts[:, j] for j, name in enumerate(names)}).items():
            while name in data:
                name += "_"
            data[name] = values
        return pd.DataFrame(data)

    @cached_property
    def _bounds(self) -> Integers:
        return np.searchsorted(self.model, np.arange(len(self) + 1))

    def _take(self, rows: Integers, chosen: Integers, **replaced: Integers) -> Votes:
        """The given rows, all of chosen models and in their order; findings about other models stay behind."""
        used, problem = np.unique(self.problem[rows], return_inverse=True)
        place = {int(old): new for new, old in enumerate(chosen)}
        names = {self.model_name(i) for i in chosen.tolist()}
        others = {self.model_name(i) for i in range(len(self))} - names
        arrays = {name: getattr(self, name)[rows] for name in ("counts", "correct", "n", "n_none")}
        return replace(
            self,
            keys=tuple(self.keys[i] for i in chosen),
            model=np.array([place[int(old)] for old in self.model[rows]], dtype=np.int64),
            problems=tuple(self.problems[i] for i in used),
            problem=problem,
            findings=tuple(finding for finding in self.findings if finding.where not in others),
            **(arrays | replaced),
        )


def split_votes(votes: Votes, n0: int, seed: int) -> tuple[Votes, Votes]:
    """`n0` of each problem's votes drawn without replacement, and the rest of them.

    A problem with n <= n0 keeps all its votes in the first part and is absent from the second. What is drawn for a model
    depends on the seed and that model's data only.

    Raises
    ------
    InputError : n0 < 1, a problem with 10^9 votes or more, or no problem with more than n0 votes.
    """
    if n0 < 1 or n0 != int(n0):
        raise InputError("VOTES-SPLIT", f"n0 must be a whole number from 1 upwards, got {n0}")
    if votes.n.max() >= LARGEST_COUNT:
        raise InputError("VOTES-SPLIT", f"a problem has {votes.n.max()} votes, 10^9 or more", fix="leave it out")
    if votes.n.max() <= n0:
        raise InputError("VOTES-SPLIT", f"no problem has more than {n0} votes, so nothing is left to predict")
    cells = np.concatenate([votes.counts, votes.n_none[:, None]], axis=1)
    drawn = cells.copy()
    for i in range(len(votes)):
        rng = np.random.default_rng([seed, int(votes.digest(i), 16)])
        for row in range(*votes.rows(i).indices(votes.n.size)):
            if votes.n[row] > n0:
                drawn[row] = rng.multivariate_hypergeometric(cells[row], n0)
    left = np.flatnonzero(votes.n > n0)
    return _recounted(votes, np.arange(votes.n.size), drawn), _recounted(votes, left, cells - drawn)


def _recounted(votes: Votes, rows: Integers, cells: Integers) -> Votes:
    counts = {"counts": cells[rows, :-1], "n_none": cells[rows, -1], "n": cells[rows].sum(axis=1)}
    return votes._take(rows, np.unique(votes.model[rows]), **counts)


def _ranked(counts: Integers, correct: Integers) -> tuple[Integers, Integers]:
    """Each row's answers by falling count, the right one first among equals, in as few columns as needed."""
    right = np.arange(counts.shape[1]) == correct[:, None]
    order = np.lexsort((~right, -counts), axis=1)
    ranked = np.take_along_axis(counts, order, axis=1)
    place = np.argmax(np.take_along_axis(right, order, axis=1), axis=1)
    voted = (right & (counts > 0)).any(axis=1)
    width = max(1, int((ranked > 0).any(axis=0).sum()))
    return ranked[:, :width], np.where(voted, place, -1)


def _whole(values: ArrayLike, name: str, shape: tuple[int, ...], lowest: int = 0) -> Integers:
    array = np.array(values)
    if array.shape != shape:
        raise InputError("VOTES", f"{name} must have shape {shape}, got {array.shape}")
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and bool((array == np.round(array)).all()))
    if not whole or (array < lowest).any() or (array > 2**53).any():
        raise InputError("VOTES", f"{name} must hold whole numbers from {lowest} to 2^53")
    return array.astype(np.int64)


def _check_names(key_names: Sequence[str], keys: Sequence[tuple[str, ...]], problems: Sequence[str]) -> None:
    if not keys:
        raise InputError("VOTES", "there are no models: no rows are left")
    if len(set(key_names)) != len(key_names):
        raise InputError("VOTES", f"a key column is named twice in {', '.join(key_names)}")
    for key in keys:
        if len(key) != len(key_names) or not all(isinstance(label, str) for label in key):
            raise InputError("VOTES", f"the key {key!r} must be one text label for each of {tuple(key_names)}")
    if len(set(keys)) != len(keys):
        raise InputError("VOTES", "two models have the same key")
    if len(set(problems)) != len(problems) or not all(isinstance(label, str) for label in problems):
        raise InputError("VOTES", "problems must be distinct text labels")


def _check_answers(answers: Sequence[str], correct: Integers, width: int) -> None:
    if len(set(answers)) != len(answers) or len(answers) == 1:
        raise InputError("VOTES", f"a vote needs two or more distinct answers, got {', '.join(answers)}")
    if correct.size and (correct.max() >= width or (answers and correct.min() < 0)):
        raise InputError("VOTES", f"the right answer must be one of the {width} columns of votes")


def _check_rows(votes: Votes) -> None:
    for name, labels in (("model", votes.keys), ("problem", votes.problems)):
        if votes.n.size and getattr(votes, name).max() >= len(labels):
            raise InputError("VOTES", f"a {name} index points beyond the {len(labels)} labels")
    empty = np.flatnonzero(np.diff(votes._bounds) == 0)
    if empty.size:
        raise InputError("VOTES", "the model has no rows", where=votes.model_name(int(empty[0])))
    same = (np.diff(votes.model) == 0) & (np.diff(votes.problem) == 0)
    _refuse(votes, np.append(same, False), "two rows have this model and problem")
    _refuse(votes, votes.n == 0, "no votes were cast")
    _refuse(votes, votes.counts.sum(axis=1) + votes.n_none != votes.n, "the votes do not add up to n")


def _refuse(votes: Votes, bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        where = f"{votes.model_name(int(votes.model[row]))} problem={votes.problems[votes.problem[row]]}"
        cast = ", ".join(str(count) for count in votes.counts[row])
        raise InputError(
            "VOTES", f"{what}, got {cast} and {votes.n_none[row]} without answer, n={votes.n[row]}", where=where
        )
