"""The store: results of chunks, each a folder that is there whole or not at all.

    write into a hidden folder → sync → read back → rename → sync the parent

A manifest in each folder holds the chunk's id, the SHA-256 of every file, and one of itself. A result counts only if all of
them match; anything else is put away and computed again. Several processes may write the same chunk: the bytes are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesscale.batch.disk import alive, disk_errors, file_hash, reached, sync_file, sync_folder, writer

MANIFEST = "manifest.json"

type Write = Callable[[Path], Mapping[str, Any]]
"""Writes the files of a result into a folder, and says what it wants remembered; JSON-like."""


class Altered(Exception):
    """A result that is not what was written."""


@dataclass(frozen=True)
class Store:
    """Results under `root`, where this process writes, and under `others`, which it reads too."""

    root: Path
    others: tuple[Path, ...] = ()

    def ids(self) -> set[str]:
        """Ids of results that are there, right or not."""
        return {path.name for root in (self.root, *self.others) for path in entries(root) if path.name[0] != "."}

    def places(self, chunk: str) -> Iterator[Path]:
        """Folders that claim to hold a chunk's result."""
        return (root / chunk for root in (self.root, *self.others) if (root / chunk).is_dir())

    def read(self, chunk: str) -> tuple[Path, Mapping[str, Any]] | None:
        """The folder of a result and what it says of itself, or nothing where there is none.

        Raises
        ------
        Altered : there is one, and no copy of it is what was written.
        """
        reason = None
        for path in self.places(chunk):
            try:
                return path, verified(path, chunk)
            except Altered as error:
                reason = error
        if reason is not None:
            raise reason
        return None

    def folder(self, chunk: str) -> Path:
        """The first folder that claims to hold a chunk's result."""
        return next(self.places(chunk))

    def put(self, chunk: str, write: Write) -> Mapping[str, Any]:
        """Write a result; returns what `write` said.

        Raises
        ------
        DiskError : the disk is full, gone or forbidden.
        Altered : the disk gives back other bytes than were written.
        """
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            reached("before the temporary folder")
            temporary = self.root / f".{chunk[:16]}.{writer()}.partial"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                about = write(temporary)
                reached("in the middle of writing")
                seal(temporary, chunk, about)
                verified(temporary, chunk)
                reached("before the rename")
                self.place(temporary, chunk)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        return about

    def place(self, temporary: Path, chunk: str) -> None:
        """Give a finished folder its name; one that stands there already stays if it is right."""
        target = self.root / chunk
        if target.exists():
            try:
                verified(target, chunk)
                shutil.rmtree(temporary)
                return
            except Altered:
                self.drop(chunk)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.exists():
                raise
            shutil.rmtree(temporary)  # another process was faster with the same result
        reached("after the rename")
        sync_folder(self.root)

    def drop(self, chunk: str) -> None:
        """Take a result away."""
        for path in self.places(chunk):
            aside = path.with_name(f".{path.name[:16]}.{writer()}.altered.partial")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed processes of this machine left half written."""
        host, _, _ = writer().rpartition(".")
        for path in entries(self.root):
            parts = path.name.removesuffix(".partial").removesuffix(".altered").split(".", 2)
            if not path.name.endswith(".partial") or len(parts) < 3:
                continue
            owner, _, pid = parts[2].rpartition(".")
            if owner == host and pid.isdigit() and not alive(int(pid)):
                shutil.rmtree(path, ignore_errors=True)


def entries(root: Path) -> list[Path]:
    return list(root.iterdir()) if root.is_dir() else []


def seal(folder: Path, chunk: str, about: Mapping[str, Any]) -> None:
    """Write the manifest of a folder and bring everything to the disk."""
    files = {}
    for path in sorted(folder.iterdir()):
        sync_file(path)
        files[path.name] = [file_hash(path), path.stat().st_size]
    body = json.dumps({"chunk": chunk, "files": files, "about": about}, sort_keys=True)
    (folder / MANIFEST).write_text(f"{body}\n{digest(body)}\n", encoding="utf-8")
    sync_file(folder / MANIFEST)
    sync_folder(folder)


def verified(folder: Path, chunk: str) -> Mapping[str, Any]:
    """What a result says of itself, if every byte is what was written.

    Raises
    ------
    Altered : a file is missing, added, cut or changed, or it is the result of another chunk.
    """
    try:
        body, told, end = (folder / MANIFEST).read_bytes().split(b"\n")
        if end or hashlib.sha256(body).hexdigest().encode() != told:
            raise Altered("its manifest was changed")
        data = json.loads(body)
    except (OSError, ValueError) as error:
        raise Altered(f"its manifest cannot be read ({type(error).__name__})") from None
    if data["chunk"] != chunk:
        raise Altered("it belongs to another chunk")
    if {path.name for path in folder.iterdir()} != {MANIFEST, *data["files"]}:
        raise Altered("a file is missing or was added")
    for name, (told, size) in data["files"].items():
        if (folder / name).stat().st_size != size or file_hash(folder / name) != told:
            raise Altered(f"{name} was changed")
    return data["about"]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
