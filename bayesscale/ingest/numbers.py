"""Numbers: one text is one number, or the reason why it is not.

Stricter than `float`: ASCII digits with a decimal point, no separators, no NaN, no infinity, no integer that a float64
would silently round.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
NOT_FINITE = {"nan": "NaN", "inf": "infinite", "infinity": "infinite"}
MAX_INTEGER = 2**53
SUFFIXES = {"K": 3, "M": 6, "B": 9, "T": 12}
"""Powers of ten that sizes are logged with: 1.4B parameters are 1.4e9."""


@dataclass(frozen=True)
class Number:
    """A parsed text: its value, or NaN with what is wrong and how to repair it."""

    value: float
    what: str = ""
    fix: str = ""


def parse_number(text: str) -> Number:
    """The number that `text` spells."""
    text = text.strip()
    if not NUMBER.fullmatch(text):
        return _not_a_number(text)
    value = float(text)
    if math.isinf(value):
        return Number(math.nan, "too large for a float64", "is the exponent right?")
    if INTEGER.fullmatch(text) and abs(int(text)) > MAX_INTEGER:
        return Number(math.nan, "an integer above 2^53 would lose digits", "use a larger unit, or write it as 1e16")
    return Number(value)


def parse_size(text: str) -> Number:
    """The number that `text` spells, where K, M, B or T after it stand for 10^3, 10^6, 10^9 and 10^12."""
    text = text.strip()
    power = SUFFIXES.get(text[-1:].upper())
    if power is None or not NUMBER.fullmatch(text[:-1].rstrip()) or "e" in text.lower():
        return parse_number(text)
    return parse_number(f"{text[:-1].rstrip()}e{power}")


def is_number(text: str) -> bool:
    """Whether `text` spells a number."""
    return not parse_number(text).what


def _not_a_number(text: str) -> Number:
    if not text:
        return Number(math.nan, "missing", "fill it in, or delete the row")
    if what := NOT_FINITE.get(text.lstrip("+-").lower()):
        return Number(math.nan, what, "delete the row, or find out why it was logged")
    if text.endswith("%") and NUMBER.fullmatch(text[:-1].strip()):
        return Number(math.nan, "a percentage", f"use {float(text[:-1]) / 100:g}")
    if "," in text and NUMBER.fullmatch(text.replace(",", ".", 1)):
        return Number(math.nan, "a comma in a number", f"a decimal comma? use {text.replace(',', '.', 1)}")
    return Number(math.nan, "not a number", "digits with a decimal point, such as 0.5")
