"""The workloads: simulated curves with a fixed seed, truths around typical values.

    icl     5-parameter beta-binomial Bayesian law (`linear`), 20 points, 200 trials each, no departure
    power   4-parameter log-normal power law, 30 points from 1 to 1000 shots, scatter about 3%
    mixed   as icl, a quarter each: ordinary, saturated at the first point, no early points (the floor is not identified),
            only early points (nor is the ceiling); and one poisoned curve in 255 (in turn: points of two curves
            interleaved, a fall, all but no concentration)

Every curve has a generator of its own, so that curve i is the same in a batch of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from bayesscale.curves import Curves
from bayesscale.laws import LAWS
from bayesscale.likelihood import LIKELIHOODS
from bayesscale.model import Model, compose
from bayesscale.units import Units, units_of

type Rows = tuple[NDArray, NDArray]
"""Shots and observations (successes or values) of one curve."""

TRIALS = 200
ICL_SHOTS = np.unique(np.round(np.geomspace(1, 500, 26)))[:20]
POWER_SHOTS = np.geomspace(1, 1000, 30)
POISON_EVERY = 255


@dataclass(frozen=True)
class Workload:
    """Curves of one kind and the model they are fitted with."""

    name: str
    model: Model
    units: Units

    def __len__(self) -> int:
        return len(self.units)

    def take(self, index: NDArray | range) -> Workload:
        return Workload(self.name, self.model, self.units.take(np.asarray(index)))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def icl_mean(rng: Generator, shots: NDArray, n50: float | None = None) -> NDArray:
    """p(n) of a random ordinary curve, with the shots at half of its rise given or drawn."""
    ceiling = sigmoid(rng.normal(1.5, 1.0))
    floor = ceiling * sigmoid(rng.normal(-1.5, 1.0))
    n50 = np.exp(rng.normal(np.log(30.0), 1.0)) if n50 is None else n50
    steepness = np.exp(rng.normal(0.0, 0.5))
    return floor + (ceiling - floor) * sigmoid(steepness * (shots / n50 - 1.0))


def observe(rng: Generator, p: NDArray, log_phi: float | None = None) -> NDArray:
    phi = np.exp(rng.normal(4.5, 0.7) if log_phi is None else log_phi)
    return rng.binomial(TRIALS, rng.beta(phi * p + 1e-9, phi * (1.0 - p) + 1e-9)).astype(float)


def icl_curve(rng: Generator, i: int) -> Rows:
    return ICL_SHOTS, observe(rng, icl_mean(rng, ICL_SHOTS))


def power_curve(rng: Generator, i: int) -> Rows:
    floor, excess = np.exp(rng.normal(-1.5, 0.5)), np.exp(rng.normal(0.0, 0.5))
    alpha, tau = np.exp(rng.normal(np.log(0.4), 0.4)), np.exp(rng.normal(np.log(0.03), 0.3))
    nll = floor + excess * POWER_SHOTS**-alpha
    return POWER_SHOTS, nll * np.exp(tau * rng.normal(size=nll.size))


def poisoned_curve(rng: Generator, i: int) -> Rows:
    p, kind = icl_mean(rng, ICL_SHOTS), i // POISON_EVERY % 3
    if kind == 0:
        p = np.where(np.arange(p.size) % 2 == 0, p, 1.0 - p)
    elif kind == 1:
        p = p[::-1]
    return ICL_SHOTS, observe(rng, p, log_phi=-0.7 if kind == 2 else None)


def mixed_curve(rng: Generator, i: int) -> Rows:
    if i % POISON_EVERY == POISON_EVERY - 1:
        return poisoned_curve(rng, i)
    shots, n50 = ICL_SHOTS, None
    match i % 4:
        case 1:
            n50 = 0.05
        case 2:
            shots, n50 = np.unique(np.round(np.geomspace(20, 1000, 20))), float(np.exp(rng.normal(np.log(5.0), 0.5)))
        case 3:
            n50 = 2.0 * ICL_SHOTS[-1]
    return shots, observe(rng, icl_mean(rng, shots, n50))


SPECIFICATIONS: dict[str, tuple[str, str, Callable[[Generator, int], Rows]]] = {
    "icl": ("linear", "beta_binomial", icl_curve),
    "power": ("power", "log_normal", power_curve),
    "mixed": ("linear", "beta_binomial", mixed_curve),
}


def is_poisoned(workload: Workload) -> NDArray[np.bool_]:
    """(unit,) which curves of `mixed` are poisoned."""
    poisoned = np.arange(len(workload)) % POISON_EVERY == POISON_EVERY - 1
    return poisoned & (workload.name == "mixed")


def simulate(name: str, curves: int, *, seed: int = 0, first: int = 0) -> Workload:
    """Simulate curves `first` to `first + curves` of a workload."""
    law, likelihood, draw = SPECIFICATIONS[name]
    model = compose(LAWS[law], LIKELIHOODS[likelihood])
    rows = [draw(np.random.default_rng([seed, i]), i) for i in range(first, first + curves)]
    sizes = [shots.size for shots, _ in rows]
    shots, seen = (np.concatenate(column) for column in zip(*rows, strict=True))
    if model.likelihood.kind == "counts":
        columns = {"successes": seen, "trials": np.full(seen.size, float(TRIALS))}
    else:
        columns = {"value": seen, "se": np.full(seen.size, np.nan)}
    table = Curves(
        kind=model.likelihood.kind,
        key_names=("curve",),
        keys=tuple((f"{name} {i}",) for i in range(first, first + curves)),
        curve=np.repeat(np.arange(curves), sizes),
        run=np.zeros(seen.size, np.int64),
        shots=shots,
        columns=columns,
        chance=np.full(curves, np.nan),
    )
    return Workload(name, model, units_of(table, model.likelihood))
