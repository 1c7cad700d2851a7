"""Roles of attempts: which column of a table plays which part, checked before any file is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from bayesscale.designs import DESIGNS, check_design
from bayesscale.finding import InputError


@dataclass(frozen=True)
class AttemptRoles:
    """Which column holds what.

    Attributes
    ----------
    key_names : columns whose texts together name a model.
    problem : names the problem.
    counts : column of each count, by its name in `Attempts`; of each sample's outcome where `per_sample`.
    per_sample : whether a row is one sample.
    sample : names the sample within its problem, so that repeated rows are noticed.
    stopping : a design, or the column that holds one.
    cap : the most samples a problem could get, a number or a column.
    batch : samples drawn at once.
    covariates : numeric columns, constant within a model.
    """

    key_names: tuple[str, ...]
    problem: str
    counts: dict[str, str]
    per_sample: bool
    sample: str | None
    stopping: str
    cap: int | str | None
    batch: int
    covariates: tuple[str, ...]

    @classmethod
    def of(
        cls,
        *,
        model: str | Sequence[str],
        problem: str,
        n: str | None = None,
        correct: str,
        accepted: str | None = None,
        labelled: str | None = None,
        correct_accepted: str | None = None,
        sample: str | None = None,
        stopping: str = "fixed",
        cap: int | str | None = None,
        batch: int = 1,
        covariates: str | Sequence[str] = (),
    ) -> AttemptRoles:
        """The roles that the caller's column names describe; without `n` a row is one sample."""
        if n is not None and ((accepted is None) != (correct_accepted is None) or (labelled and not accepted)):
            fix = "if the verifier rejects no correct sample, the correct accepted ones are the correct ones"
            _refuse("a verifier needs both accepted and correct_accepted", fix)
        named = {"n": n, "n_correct": correct, "n_accepted": accepted, "n_labelled": labelled}
        named["n_correct_accepted"] = correct_accepted
        keys = (model,) if isinstance(model, str) else tuple(model)
        extra = (covariates,) if isinstance(covariates, str) else tuple(dict.fromkeys(covariates))
        counts = {name: column for name, column in named.items() if column}
        roles = cls(keys, problem, counts, n is None, sample, stopping, cap, batch, extra)
        roles._check()
        return roles

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column to read, once."""
        design = [self.stopping] if self.stopping not in DESIGNS else []
        optional = [
            *design,
            *([self.cap] if isinstance(self.cap, str) else []),
            *([self.sample] if self.sample else []),
        ]
        return tuple(dict.fromkeys([*self.key_names, self.problem, *self.counts.values(), *optional, *self.covariates]))

    def _check(self) -> None:
        # Verifier counts may share a column: where no correct sample is rejected, two of them are the same number.
        shared = [self.counts[name] for name in ("n", "n_correct") if name in self.counts]
        parts = [*self.key_names, self.problem, *shared, *([self.sample] if self.sample else [])]
        twice = [name for name in parts if parts.count(name) > 1]
        if twice:
            _refuse(f"column {twice[0]!r} is named for two parts", "give each part its own column")
        if self.stopping in DESIGNS:
            check_design(self.stopping, 1 if isinstance(self.cap, str) else self.cap, self.batch)


def _refuse(what: str, fix: str) -> NoReturn:
    raise InputError("OPTIONS", what, fix=fix)
