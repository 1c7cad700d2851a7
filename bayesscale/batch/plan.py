"""The plan of a batch: which curves are fitted under which law, in chunks, and everything the results depend on.

A chunk holds up to so many units (curves, or the curves of one joint fit) of one padded width under one law. Its id is a
SHA-256 of the digests of its curves, the law, the settings, the versions that compute it, and the format of results: a result
kept under an id can be used wherever that id turns up again. A stored plan is the authority on the order of curves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bayesscale.finding import InputError

FORMAT = "bayesscale plan 1"
RESULTS = 1
"""Format of a chunk's result; it enters every chunk's id."""
FIT, BASELINE, POOL = "fit", "baseline", "pool"
"""Kinds of chunks: fits of a law; forecasts that need no fit; all curves together, after the fits of the first law."""

type Unit = tuple[int, ...]
"""Places of a unit's curves in the plan."""


@dataclass(frozen=True)
class Chunk:
    """Units that are computed and kept together; `width` is their padded number of rows."""

    id: str
    kind: str
    law: str
    width: int
    units: tuple[Unit, ...]

    @property
    def curves(self) -> tuple[int, ...]:
        """Places of its curves in the plan, unit after unit."""
        return tuple(i for unit in self.units for i in unit)


@dataclass(frozen=True)
class Plan:
    """What will be computed.

    Attributes
    ----------
    settings : everything but the data that results depend on; JSON-like. `laws` maps names to what tells laws apart.
    names, digests : of every curve, in order.
    chunks : the work, in order.
    """

    settings: Mapping[str, Any]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    chunks: tuple[Chunk, ...]

    @property
    def fits(self) -> int:
        """How many fits of a unit by a law there are."""
        return sum(len(chunk.units) for chunk in self.chunks if chunk.kind == FIT)

    def singles(self, chunk: Chunk) -> tuple[Chunk, ...]:
        """The chunk cut into one chunk per unit."""
        return tuple(self.chunk(chunk.kind, chunk.law, chunk.width, [unit]) for unit in chunk.units)

    def chunk(self, kind: str, law: str, width: int, units: Sequence[Unit]) -> Chunk:
        """Name a chunk by what its result depends on."""
        members = [[self.digests[i] for i in unit] for unit in units]
        return Chunk(chunk_id(self.settings, kind, law, members), kind, law, width, tuple(map(tuple, units)))


def chunk_id(settings: Mapping[str, Any], kind: str, law: str, members: Sequence[Sequence[str]]) -> str:
    """SHA-256 over members, law, settings and the format of results; other laws of the plan do not enter."""
    known = {name: value for name, value in settings.items() if name != "laws"}
    identity = [RESULTS, kind, law, settings["laws"].get(law), known, members]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def make_plan(
    settings: Mapping[str, Any],
    names: Sequence[str],
    digests: Sequence[str],
    work: Iterable[tuple[str, str, Sequence[tuple[Unit, int]]]],
    size: int,
) -> Plan:
    """Cut the work into chunks of at most `size` units.

    `work` yields (kind, law, units with their padded widths). Within a law, units of one width and one number of curves go
    into chunks together, in the order given.
    """
    settings = json.loads(json.dumps(settings))  # as it will be read back
    plan = Plan(settings, tuple(names), tuple(digests), ())
    chunks: list[Chunk] = []
    for kind, law, units in work:
        groups: dict[tuple[int, int], list[Unit]] = {}
        for unit, width in units:
            groups.setdefault((width, len(unit)), []).append(unit)
        own = [
            plan.chunk(kind, law, width, group[begin : begin + size])
            for (width, _), group in groups.items()
            for begin in range(0, len(group), size)
        ]
        chunks += sorted(own, key=lambda chunk: chunk.units[0])
    return Plan(settings, plan.names, plan.digests, tuple(chunks))


# On disk --------------------------------------------------------------------------------------------------------------


def plan_text(plan: Plan) -> str:
    """The plan as JSON."""
    chunks = [[c.id, c.kind, c.law, c.width, [list(unit) for unit in c.units]] for c in plan.chunks]
    data = {"format": FORMAT, "settings": plan.settings, "curves": list(zip(plan.names, plan.digests, strict=True))}
    return json.dumps(data | {"chunks": chunks}, ensure_ascii=False)


def plan_of(text: str, where: str) -> Plan:
    """Read a plan, and hold that every chunk's id is that of what it says.

    Raises
    ------
    InputError : it is no plan, or was altered.
    """
    try:
        data = json.loads(text)
        assert data["format"] == FORMAT
        names, digests = zip(*data["curves"], strict=True)
        plan = Plan(data["settings"], names, digests, ())
        chunks = tuple(plan.chunk(kind, law, width, units) for _, kind, law, width, units in data["chunks"])
        assert [chunk.id for chunk in chunks] == [entry[0] for entry in data["chunks"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError):
        what = "the plan in this folder cannot be read, or was altered"
        raise InputError("PLAN-DAMAGED", what, where=where, fix="start anew with --overwrite") from None
    return Plan(plan.settings, names, digests, chunks)


# Change ---------------------------------------------------------------------------------------------------------------


def changes(old: Plan, new: Plan) -> list[str]:
    """What makes the new plan another than the old one, in words; nothing where both compute the same."""
    said = [f"laws: {', '.join(old.settings['laws'])} -> {', '.join(new.settings['laws'])}"] * (
        list(old.settings["laws"]) != list(new.settings["laws"])
    )
    for name, identity in new.settings["laws"].items():
        if identity != old.settings["laws"].get(name, identity):
            said.append(f"the law {name} was edited")
    said += setting_changes(old.settings, new.settings)
    return said + curve_changes(old, new)


def setting_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ; those inside a setting one by one."""
    said = []
    for name in [*old, *(name for name in new if name not in old)]:
        before, after = old.get(name), new.get(name)
        if before == after or (not prefix and name == "laws"):
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            said += setting_changes(before, after, f"{name} ")
        else:
            said.append(f"{prefix}{name}: {shown(before)} -> {shown(after)}")
    return said


def shown(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else "none" if value is None else str(value)


def curve_changes(old: Plan, new: Plan) -> list[str]:
    """Curves that are new, gone, or hold other data."""
    before, after = dict(zip(old.names, old.digests, strict=True)), dict(zip(new.names, new.digests, strict=True))
    kinds = {
        ("is new", "are new"): [name for name in after if name not in before],
        ("is gone", "are gone"): [name for name in before if name not in after],
        ("holds other data", "hold other data"): [n for n in after if n in before and before[n] != after[n]],
    }
    return [counted(names, *words) for words, names in kinds.items() if names]


def counted(names: Sequence[str], one: str, many: str) -> str:
    return f"{names[0]} {one}" if len(names) == 1 else f"{len(names)} curves ({names[0]}, ...) {many}"


def order_in(old: Plan, new: Plan) -> list[int]:
    """Where each curve of the old plan is in the new one, which has the same curves."""
    place = {digest: i for i, digest in enumerate(new.digests)}
    return [place[digest] for digest in old.digests]
