"""What a check found: coded, graded, and saying what to do.

A `Finding` is data, not a log line: a batch can act on its `code`, a person reads its `message` and `advice`.
`InputError` is the same thing raised at the door, where nothing can be fitted until the input is mended.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Grade = Literal["info", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One failed or doubtful check."""

    code: str
    grade: Grade
    message: str
    advice: str = ""
    where: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f" ({self.advice})" if self.advice else ""
        return f"{self.grade.upper()} {self.code} {place}{self.message}{remedy}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class InputError(ValueError):
    """Input that cannot be used, said as `CODE place - what is wrong - how to repair`."""

    def __init__(self, code: str, what: str, *, where: str = "", fix: str = "") -> None:
        self.finding = Finding(code=code, grade="fail", message=what, advice=fix, where=where)
        super().__init__(" - ".join(part for part in (f"{code} {where}".strip(), what, fix) if part))
