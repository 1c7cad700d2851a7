"""The batch engine on a workload: time to the gate with everything included, and the gradients it took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bayesscale.inference.many import Posterior, sample_many
from bayesscale.inference.settings import Sampler
from benchmarks.batch.clock import Spent, measured
from benchmarks.batch.gate import Verdict, judge
from benchmarks.batch.workloads import Workload


@dataclass
class Timed:
    """One workload through the engine: the first run, which compiles, and warm repeats of the same work."""

    curves: int
    first: Spent
    repeats: list[Spent]
    verdict: Verdict
    tiers: np.ndarray
    useful: float
    executed: float | None
    worst: list[str] = field(default_factory=list)

    def per_curve(self, clock: str) -> np.ndarray:
        """(repeat,) ms per curve by "cpu" or "wall" time."""
        return np.array([getattr(spent, clock) for spent in self.repeats]) / self.curves * 1e3


def sampler_from(text: str) -> Sampler:
    """Read "draws=400 warmup=60,60 target_accept=.8" as changes to the default settings."""
    changes: dict[str, Any] = {}
    for part in text.split():
        name, _, value = part.partition("=")
        held = getattr(Sampler(), name)
        changes[name] = tuple(map(int, value.split(","))) if isinstance(held, tuple) else type(held)(value)
    return replace(Sampler(), **changes)


def fit(workload: Workload, sampler: Sampler, seed: int = 0) -> Posterior:
    """Run the engine once."""
    units = workload.units
    return sample_many(workload.model, units.columns, units.digests, sampler=sampler, seed=seed)


def time_engine(workload: Workload, sampler: Sampler, repeats: int) -> Timed:
    """Fit once to compile whatever the workload needs, then `repeats` times.

    The engine judges every curve itself before it lets it go, within the time taken; the verdict here is the contest's.
    """
    runs, executed, posterior, verdict = [], None, None, None
    for number in range(repeats + 1):
        with counted_gradients() as count, measured() as spent:
            posterior = fit(workload, sampler)
        verdict = judge(posterior.u, posterior.diverging)
        runs.append(spent)
        executed = count[0] if count else None
        del number
    assert posterior is not None and verdict is not None
    return Timed(
        curves=len(workload),
        first=runs[0],
        repeats=runs[1:] or runs,
        verdict=verdict,
        tiers=np.asarray(posterior.tier),
        useful=float(np.nansum(posterior.leapfrogs)),
        executed=executed,
    )


def gradients_per_effective_draw(timed: Timed) -> tuple[float | None, float]:
    """(executed, useful) gradients over the sum of smallest effective sample sizes.

    Executed are all lane-steps, warm-up, idle lanes and stronger tiers included, the mode search not; useful are the
    leapfrogs of the draws returned.
    """
    effective = float(np.nansum(timed.verdict.ess))
    return (None if timed.executed is None else timed.executed / effective), timed.useful / effective


@contextmanager
def counted_gradients() -> Iterator[list[int]]:
    """Count lane-steps while the block runs: a list with one number, or empty where the engine has no such seam."""
    from bayesscale.inference import deck

    run = getattr(getattr(deck, "Deck", None), "run", None)
    if run is None:
        yield []
        return
    count = [0]

    def counting(self):  # noqa: ANN001, ANN202
        answer = run(self)
        done = getattr(answer[0], "done", None)
        count[0] += 0 if done is None else int(np.size(done))
        return answer

    deck.Deck.run = counting  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield count
    finally:
        deck.Deck.run = run  # pyright: ignore[reportAttributeAccessIssue]
