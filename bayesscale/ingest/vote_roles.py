"""Roles of votes: which column of a table plays which part, checked before any file is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from bayesscale.finding import InputError


@dataclass(frozen=True)
class VoteRoles:
    """Which column holds what; the parts are those of `read_votes`."""

    key_names: tuple[str, ...]
    problem: str
    votes: tuple[str, ...]
    target: str | None
    n: str | None
    none: str | None
    correct: str | None
    available: str | None
    answer: str | None
    count: str | None
    is_correct: str | None

    @property
    def named(self) -> tuple[str, ...]:
        """Every column named, as often as it is named."""
        parts = (self.target, self.n, self.correct, self.available, self.answer, self.count, self.is_correct)
        none = self.none if self.votes else None
        return (*self.key_names, self.problem, *self.votes, *(part for part in (*parts, none) if part))

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column to read, once."""
        return tuple(dict.fromkeys(self.named))

    def check(self) -> None:
        """Refuse parts that do not belong together."""
        twice = [name for name in self.named if self.named.count(name) > 1]
        if twice:
            refuse_option(f"column {twice[0]!r} is named for two parts", "give each part its own column")
        if bool(self.votes) == bool(self.answer):
            fix = "votes for one column per answer, answer for one row per answer"
            refuse_option("name either the columns of votes or the column of answers", fix)
        if self.votes:
            self._check_wide()
        else:
            self._check_long()

    def _check_wide(self) -> None:
        if len(self.votes) < 2:
            refuse_option("a vote needs two or more columns of votes", "name the votes for every answer")
        if not self.target:
            refuse_option("no column names the right answer", "name it with target")
        if self.count or self.is_correct:
            refuse_option("count and is_correct belong to tables with one row per answer", "leave them out")

    def _check_long(self) -> None:
        if bool(self.target) == bool(self.is_correct):
            refuse_option("name either target or is_correct", "one of them must say which answer is right")
        if self.n or self.correct:
            refuse_option("with one row per answer n and correct follow from the rows", "leave them out")


def answer_labels(columns: Sequence[str]) -> tuple[str, ...]:
    """Names of the answers: the columns' names without the prefix they share, cut at a separator."""
    prefix = re.sub(r"[A-Za-z0-9]*$", "", os.path.commonprefix(list(columns)))
    labels = tuple(column[len(prefix) :] for column in columns)
    return labels if all(labels) else tuple(columns)


def refuse_option(what: str, fix: str) -> NoReturn:
    """Refuse an option before any row is looked at."""
    raise InputError("OPTIONS", what, fix=fix)
