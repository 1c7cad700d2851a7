"""Settings of the sampler, and how it reports progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

type Progress = Callable[[int, int], None]
"""Called with (finished, total)."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


ONWARD = 100
"""Trajectories a stronger tier adapts its step size for; it has its metric from the tier before."""


@dataclass(frozen=True)
class Sampler:
    """Settings of the sampler.

    Attributes
    ----------
    chains, draws : per posterior, after warm-up.
    warmup : trajectories in each phase of warm-up; the metric is updated between phases.
    target_accept : mean acceptance the step size aims at.
    max_depth : largest tree has 2^max_depth leapfrogs.
    deepest : largest `max_depth` of the stronger tiers; all of them share one compiled program.
    starts : places the mode search begins at; 0 climbs from the origin and whitens each axis alone.
    lanes : chains advanced together at most; few posteriors take a narrower deck.
    steps : leapfrogs per chunk.
    patience : a posterior is given up when it used more than this many leapfrogs per trajectory on average.
    spread : standard deviations the chains start apart.
    tiers : times that what fails is tried again: drawn from further where that is all it lacks, else anew with smaller steps;
        where there are any, stock NUTS takes the curves that fail them all.
    keep : draws per chain kept for prediction and storage; diagnostics see all.
    """

    chains: int = 4
    draws: int = 1000
    warmup: tuple[int, ...] = (60, 120, 120)
    target_accept: float = 0.9
    max_depth: int = 7
    deepest: int = 9
    starts: int = 8
    lanes: int = 128
    steps: int = 64
    patience: int = 60
    spread: float = 1.5
    tiers: int = 4
    keep: int = 250

    @classmethod
    def default(cls, *, departs: bool) -> Sampler:
        """Settings where none are given, by whether a curve may depart from its law.

        With a departure posteriors are funnels, and take time to warm up to; without one most are close to normal, and fewer
        draws after a shorter warm-up pass the gate.
        """
        return cls() if departs else cls(draws=500, warmup=(60, 60))

    def stronger(self) -> Sampler:
        """Return the settings of the next tier, which goes on where this one ended: smaller steps, deeper trees."""
        return replace(
            self,
            warmup=(ONWARD,),
            target_accept=0.5 * (1.0 + self.target_accept),
            max_depth=max(self.max_depth, min(self.max_depth + 1, self.deepest)),
        )
