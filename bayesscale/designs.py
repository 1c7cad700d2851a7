"""Designs: how the samples of a problem came to be as many as they are, and what counts may then look like.

The same rules serve the reader, which sets rows aside, and `bayesscale.attempts.Attempts`, which refuses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bayesscale.finding import InputError

Stopping = Literal["fixed", "first_success", "batch", "capped"]
DESIGNS: tuple[str, ...] = get_args(Stopping)

Mask = NDArray[np.bool_]


def check_design(stopping: str, cap: int | None, batch: int) -> None:
    """Refuse a stopping design that is unknown, or whose cap and batch do not belong to it."""
    if stopping not in DESIGNS:
        raise InputError("OPTIONS", f"stopping must be one of {', '.join(DESIGNS)}, got {stopping!r}")
    if batch < 1 or batch != int(batch) or (batch > 1 and stopping != "batch"):
        what = f"a batch of {batch} does not belong to stopping {stopping}"
        raise InputError("OPTIONS", what, fix="name the whole number of samples per batch, with stopping 'batch' only")
    if stopping == "fixed" and cap is not None:
        fix = "leave the cap out, or say how sampling stopped"
        raise InputError("OPTIONS", "under stopping fixed n was set in advance, so there is no cap", fix=fix)
    if stopping == "capped" and cap is None:
        raise InputError("OPTIONS", "stopping capped needs the cap", fix="name the most samples a problem could get")
    if cap is not None and (cap < 1 or cap != int(cap)):
        raise InputError("OPTIONS", f"the cap must be a whole number from 1 upwards, got {cap}")


def count_faults(counts: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Mask, str, str, str]]:
    """Every way in which one row's counts contradict each other: (row,) mask, count's name, what is wrong, repair.

    `counts` holds (row,) arrays by their name in `Attempts`; NaN breaks no rule.
    """
    n, correct = counts["n"], counts["n_correct"]
    yield n == 0, "n", "no samples", "delete the row: it observed nothing"
    yield correct > n, "n_correct", "more correct samples than samples", "are the two columns swapped?"
    if "n_accepted" not in counts:
        return
    accepted, both = counts["n_accepted"], counts["n_correct_accepted"]
    labelled = counts.get("n_labelled", accepted)
    partly = "labelled " if "n_labelled" in counts else ""
    yield accepted > n, "n_accepted", "more accepted samples than samples", "are the two columns swapped?"
    if partly:
        what = "more labelled samples than accepted ones"
        yield labelled > accepted, "n_labelled", what, "count the labels of accepted samples"
    what = f"more correct accepted samples than {partly}accepted ones"
    yield both > labelled, "n_correct_accepted", what, "are the two columns swapped?"
    full = labelled == accepted
    what = "more correct accepted samples than correct ones"
    yield full & (both > correct), "n_correct_accepted", what, "count the correct ones among the accepted"
    what = "more correct samples among the rejected than rejected samples"
    yield full & (correct - both > n - accepted), "n_correct", what, "is n_correct the count over all samples?"


def stopping_faults(
    stopping: str, cap: NDArray[Any] | int | None, batch: int, n: NDArray[Any], endings: NDArray[Any]
) -> Iterator[tuple[Mask, str]]:
    """Every way in which rows contradict their stopping design: (row,) mask, and what is wrong.

    `endings` counts per row what ends the sampling; `cap` may differ by row.
    """
    if cap is not None:
        yield n > cap, "more samples than the cap"
    if stopping not in ("first_success", "batch"):
        return
    unit = "the first success" if batch == 1 else f"the first batch of {batch} with a success"
    at_cap = np.zeros(n.shape, dtype=bool) if cap is None else n == cap
    yield (endings == 0) & ~at_cap, f"no success before the cap, though sampling goes on to {unit}"
    last = n - batch * ((n - 1) // batch)
    yield (last < batch) & ~at_cap, f"the samples are no multiple of the batch of {batch}"
    yield endings > last, f"more successes than the last batch holds, though sampling stops at {unit}"
