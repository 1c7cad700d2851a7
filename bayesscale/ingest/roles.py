"""Roles: which column of a table plays which part, checked before any file is opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from bayesscale.curves import Kind
from bayesscale.finding import InputError


@dataclass(frozen=True)
class Roles:
    """Which column holds what.

    Attributes
    ----------
    kind : the observation kind that the columns imply.
    key_names : columns whose texts together name a curve; a condition column comes last.
    x : demonstrations; `shot_offset` is added to turn them into demonstrations already seen.
    observed : the observation's column, by its name in `Curves.columns`; `se` may be missing.
    run : replicate runs of one curve.
    condition : the key column that is also a covariate if all its values are numbers.
    chance : column of the accuracy of guessing, or one number for all curves.
    covariates : numeric columns, constant within a curve.
    """

    kind: Kind
    key_names: tuple[str, ...]
    x: str
    observed: dict[str, str]
    run: str | None
    condition: str | None
    chance: str | float | None
    shot_offset: float
    covariates: tuple[str, ...]

    @classmethod
    def of(
        cls,
        *,
        curve: Sequence[str],
        x: str,
        successes: str | None,
        trials: str | None,
        nll: str | None,
        prob: str | None,
        se: str | None,
        run: str | None,
        condition: str | None,
        chance: str | float | None,
        shot_offset: float,
        covariates: Sequence[str],
    ) -> Roles:
        """The roles that the caller's column names describe."""
        kind, observed = _observation(successes, trials, nll, prob, se)
        keys = [*((curve,) if isinstance(curve, str) else curve)]
        if condition is not None and condition not in keys:
            keys.append(condition)
        extra = (covariates,) if isinstance(covariates, str) else tuple(dict.fromkeys(covariates))
        roles = cls(kind, tuple(keys), x, observed, run, condition, chance, float(shot_offset), extra)
        roles._check()
        return roles

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column to read, once."""
        optional = [name for name in (self.run, self.chance) if isinstance(name, str)]
        return tuple(dict.fromkeys([*self.key_names, self.x, *self.observed.values(), *optional, *self.covariates]))

    def _check(self) -> None:
        # A covariate may repeat another role: a numeric key is a sensible covariate.
        parts = [*self.key_names, self.x, *self.observed.values(), *([self.run] if self.run else [])]
        twice = [name for name in parts if parts.count(name) > 1]
        if twice:
            _refuse(f"column {twice[0]!r} is named for two parts", "give each part its own column")
        if isinstance(self.chance, int | float) and not 0 <= self.chance < 1:
            _refuse(f"chance must lie in [0, 1), got {self.chance:g}", "for four equal choices it is 0.25")
        if not math.isfinite(self.shot_offset):
            _refuse(f"the shot offset must be finite, got {self.shot_offset}", "use 0 or -1")


def _observation(
    successes: str | None, trials: str | None, nll: str | None, prob: str | None, se: str | None
) -> tuple[Kind, dict[str, str]]:
    given = [name for name in (successes or trials, nll, prob) if name]
    if len(given) != 1:
        choices = "--successes with --trials, or --prob, or --nll"
        _refuse(f"{'several kinds' if given else 'no kind'} of observation named", f"name exactly one: {choices}")
    if successes or trials:
        if not (successes and trials):
            _refuse("successes and trials belong together", "name both columns: --successes and --trials")
        if se:
            _refuse("counts carry their own uncertainty", "leave out --se")
        return "counts", {"successes": successes, "trials": trials}
    kind: Kind = "prob_mean" if prob else "nll_mean"
    return kind, {"value": given[0]} | ({"se": se} if se else {})


def _refuse(what: str, fix: str) -> NoReturn:
    raise InputError("OPTIONS", what, fix=fix)
