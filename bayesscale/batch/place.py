"""The folder of a batch: `batch/` inside the folder of results holds the plan, the input, results of chunks and the ledger.

out/batch/plan.json   input.npz   lock   ledger.jsonl   results/ID/   shards/1-of-4/{lock,ledger.jsonl,results/}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesscale.batch.disk import disk_errors, sync_file, sync_folder, trouble, write_whole, writer
from bayesscale.batch.ledger import Ledger
from bayesscale.batch.plan import Plan, changes, plan_of, plan_text
from bayesscale.batch.store import Store, entries
from bayesscale.curves import Curves
from bayesscale.finding import Finding, InputError
from bayesscale.runs.folder import check_folder, is_run


@dataclass(frozen=True)
class Shard:
    """The chunks whose number leaves this remainder: one task of an array of `of`."""

    number: int
    of: int

    @property
    def folder(self) -> str:
        return f"{self.number}-of-{self.of}"


@dataclass(frozen=True)
class Place:
    """Where a batch is, and which shard of it this process carries out; None for all."""

    out: Path
    shard: Shard | None = None

    @property
    def batch(self) -> Path:
        return self.out / "batch"

    @property
    def plan(self) -> Path:
        return self.batch / "plan.json"

    @property
    def own(self) -> Path:
        """Where this process writes."""
        return self.batch if self.shard is None else self.batch / "shards" / self.shard.folder

    @property
    def lock(self) -> Path:
        return self.own / "lock"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.own / "ledger.jsonl")

    @property
    def store(self) -> Store:
        """Results this process writes, and those of all others it can use."""
        roots = [self.batch, *sorted(entries(self.batch / "shards"))]
        return Store(self.own / "results", tuple(root / "results" for root in roots if root != self.own))

    @property
    def started(self) -> bool:
        """Whether there is a plan."""
        return self.plan.is_file()


def check_place(place: Place, *, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that holds anything but a batch that may go on or be replaced.

    Raises
    ------
    InputError : a file, somebody's folder, or a run that may not be replaced.
    """
    ours = place.started or only_begun(place.out)
    if not ours or (not resume and not overwrite):
        check_folder(place.out, overwrite=overwrite)
    elif overwrite and not is_run(place.out) and (strange := others(place.out)):
        what = f"the folder holds {strange[0]}, which is not ours, so it will not be replaced"
        raise InputError("OUT-EXISTS", what, where=str(place.out), fix="name another with --out")


RESULTS = frozenset({"batch", "fits", "plots", "run.json", "README.txt"})


def others(out: Path) -> list[str]:
    """Names in a folder that no run writes."""
    return sorted(p.name for p in entries(out) if p.name not in RESULTS and p.suffix != ".parquet" and p.name[0] != ".")


def only_begun(out: Path) -> bool:
    """Whether a folder holds nothing but a batch that was killed before it had a plan."""
    return out.is_dir() and [path.name for path in out.iterdir()] == ["batch"] and not (out / "batch").is_file()


def make(place: Place) -> None:
    """Make the folder."""
    try:
        place.own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = trouble(error) or f"the folder cannot be made ({error.strerror or error})"
        raise InputError("OUT-UNWRITABLE", what, where=str(place.out), fix="name another with --out") from None


def clear(place: Place) -> None:
    """Take away an earlier run; the lock that is held stays."""
    with disk_errors(place.out):
        for path in place.out.iterdir():
            if path != place.batch:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in entries(place.batch):
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.startswith("lock"):
                path.unlink()


def agree(place: Place, plan: Plan) -> Plan:
    """Write the plan, or hold that the one in place is the same; returns the one in place.

    Raises
    ------
    InputError : another plan is in place; says what differs.
    """
    if not place.started:
        first(place.plan, plan_text(plan).encode())
    old = read_plan(place)
    if said := changes(old, plan):
        fix = "name another folder with --out, or start anew with --overwrite"
        what = f"this folder holds a run of another plan: {'; '.join(said[:4])}"
        raise InputError("PLAN-CHANGED", what, where=str(place.out), fix=fix)
    return old


def read_plan(place: Place) -> Plan:
    """The plan in place.

    Raises
    ------
    InputError : there is none, or it was altered.
    """
    if not place.started:
        what = "no run of bayesscale fit was begun here"
        raise InputError("RUN-MISSING", what, where=str(place.out), fix="run bayesscale fit first")
    return plan_of(place.plan.read_text(encoding="utf-8"), str(place.plan))


def first(path: Path, data: bytes) -> None:
    """Put a file in place unless another process, such as another shard, was first."""
    temporary = path.with_name(f".{path.name}.{writer()}.partial")
    with disk_errors(path):
        try:
            temporary.write_bytes(data)
            sync_file(temporary)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return
            except OSError:  # a disk without second names; shards of such a disk write equal bytes
                os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


# The input ------------------------------------------------------------------------------------------------------------


def save_input(place: Place, curves: Curves, about: Mapping[str, Any]) -> None:
    """Keep the curves, and what the caller was asked for, so that results can be merged without the tables they came from."""
    import io

    head = {
        "kind": curves.kind,
        "key_names": curves.key_names,
        "keys": curves.keys,
        "covariates": list(curves.covariates),
        "findings": [finding.as_dict() for finding in curves.findings],
        "about": about,
    }
    arrays = {"curve": curves.curve, "run": curves.run, "shots": curves.shots, "chance": curves.chance}
    arrays |= {f"column.{name}": values for name, values in curves.columns.items()}
    arrays |= {f"covariate.{name}": values for name, values in curves.covariates.items()}
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(head).encode(), np.uint8)
    np.savez_compressed(buffer, head=text, **arrays)  # pyright: ignore[reportArgumentType]
    write_whole(place.batch / "input.npz", buffer.getvalue())


def load_input(place: Place) -> tuple[Curves, dict[str, Any]]:
    """Curves and what was asked, as kept by `save_input`.

    Raises
    ------
    InputError : they cannot be read.
    """
    path = place.batch / "input.npz"
    try:
        with np.load(path, allow_pickle=False) as data:
            head = json.loads(data["head"].tobytes())
            columns = {name.partition(".")[2]: data[name] for name in data.files if name.startswith("column.")}
            curves = Curves(
                kind=head["kind"],
                key_names=tuple(head["key_names"]),
                keys=tuple(tuple(key) for key in head["keys"]),
                curve=data["curve"],
                run=data["run"],
                shots=data["shots"],
                columns=columns,
                chance=data["chance"],
                covariates={name: data[f"covariate.{name}"] for name in head["covariates"]},
                findings=tuple(Finding(**finding) for finding in head["findings"]),
            )
    except (OSError, ValueError, KeyError, EOFError) as error:
        what = f"the input kept with the run cannot be read ({type(error).__name__})"
        fix = "run the same bayesscale fit again instead of merging"
        raise InputError("RUN-DAMAGED", what, where=str(path), fix=fix) from None
    return curves, head["about"]
