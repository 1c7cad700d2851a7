"""The command line: `bayesscale --help`.

Commands are thin: they turn options into a call of the library and its answer into text. Nothing heavy is imported
before a command runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from bayesscale.finding import InputError

UNEXPECTED, USAGE, BAD_INPUT = 1, 2, 3
USAGE_CODES = frozenset(
    {
        "OPTIONS",
        "OUT-EXISTS",
        "OUT-UNWRITABLE",
        "OUT-IN-USE",
        "PLAN-CHANGED",
        "PLAN-DAMAGED",
        "LAW-UNKNOWN",
        "LAW-FILE",
        "LIKELIHOOD-UNKNOWN",
        "LIKELIHOOD-KIND",
        "METRIC-UNKNOWN",
        "SHARE-UNKNOWN",
        "REFERENCE-UNKNOWN",
        "PREDICT-KIND",
        "PREDICT-SHOTS",
        "THRESHOLD",
        "THRESHOLD-KIND",
        "HORIZON",
        "NO_TASK_KEY",
        "PASSK-K",
        "PASSK-TARGET",
        "PASSK-ORDER",
        "HOLDOUT-K",
        "POOL-MODELS",
        "POOL-COVARIATE",
        "SIMULATE",
        "STAKES",
        "VOTES-SIZE",
        "VOTES-TARGET",
        "NEW-MODEL",
        "COMPILE-CACHE",
        "DEVICE",
    }
)
"""Codes of input errors that only another command line mends."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: with the command's code, 2 or 3 and one line, or 1 and where the traceback is."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    from bayesscale.cli.app import app

    try:
        app(args=None if arguments is None else list(arguments), prog_name="bayesscale")
    except InputError as error:
        print(f"bayesscale: {one_line(error)}", file=sys.stderr)
        sys.exit(USAGE if error.finding.code in USAGE_CODES else BAD_INPUT)
    except BrokenPipeError:
        # Whoever read our output has gone; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNEXPECTED)
    except Exception as error:
        path = write_traceback()
        print(f"bayesscale: {type(error).__name__}: {one_line(error)} - the traceback is in {path}", file=sys.stderr)
        sys.exit(UNEXPECTED)


def one_line(error: Exception, length: int = 600) -> str:
    """An error's message without line breaks and without end."""
    text = " ".join(str(error).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def write_traceback() -> str:
    """Keep the traceback of the exception being handled for a bug report; returns its file."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="bayesscale-", suffix=".log", delete=False, encoding="utf-8"
    ) as stream:
        stream.write(traceback.format_exc())
    return stream.name
