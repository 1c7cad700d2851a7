"""The ledger: what was tried, one line of JSON per event, synced as it is written.

It is a hint. What is done is decided by the store; the ledger remembers which attempts never ended, because they took their
process with them. Every line carries a checksum; a line that was torn or altered is left out and counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayesscale.batch.disk import boot, disk_errors, reached

START, DONE, FAILED, KILLED, DROPPED, FOUND = "start", "done", "failed", "killed", "dropped", "found"
"""Events: an attempt begins; ends well; ends in an error; took its process with it, seen by another; was given up by
request; and a result that was there before this ledger."""


@dataclass(frozen=True)
class Ledger:
    """Events of a store, at `path`."""

    path: Path

    def write(self, event: str, chunk: str, **more: Any) -> None:
        """Append an event."""
        entry = {"event": event, "chunk": chunk, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **more}
        entry |= {"pid": os.getpid(), "host": socket.gethostname(), "boot": boot()}
        with disk_errors(self.path):
            self.append(line(entry))

    def append(self, text: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        reached("before the ledger")
        with self.path.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # the last line was torn: it must not swallow this one
                    text = b"\n" + text
            half = len(text) // 2
            stream.write(text[:half])
            stream.flush()
            reached("in the middle of the ledger")
            stream.write(text[half:])
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> tuple[list[Mapping[str, Any]], int]:
        """Events in order, and how many lines were torn or altered."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return [], 0
        events = [event for text in lines if text and (event := entry_of(text)) is not None]
        return events, sum(bool(text) for text in lines) - len(events)

    def lost(self) -> Counter[str]:
        """Per chunk, attempts since it last ended that never did. The owner of the lock reads it, so none is under way."""
        count: Counter[str] = Counter()
        for event in self.read()[0]:
            if event["event"] == START:
                count[event["chunk"]] += 1
            elif event["event"] == DROPPED:
                count[event["chunk"]] -= 1
            else:
                count[event["chunk"]] = 0
        return count

    def rebuild(self, chunks: Iterable[str]) -> None:
        """Start again from what the store holds."""
        with disk_errors(self.path):
            self.path.unlink(missing_ok=True)
        for chunk in chunks:
            self.write(FOUND, chunk)


def checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def line(entry: Mapping[str, Any]) -> bytes:
    """An entry as a line of JSON whose last field is the checksum of the rest."""
    body = json.dumps(entry)
    return f'{body[:-1]}, "sum": "{checksum(body)}"}}\n'.encode()


def entry_of(text: bytes) -> Mapping[str, Any] | None:
    """The entry a line holds, or nothing where it was torn or altered."""
    try:
        entry = json.loads(text)
        told = entry.pop("sum")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return entry if checksum(json.dumps(entry)) == told and line(entry) == text + b"\n" else None
