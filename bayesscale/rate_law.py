"""Success-rate laws: how the probability of success varies over the problems of a benchmark.

A `RateLaw` is a population of per-problem success probabilities p. One function says everything about it, the log moment
of c successes and f failures, without binomial coefficient and so valid under any stopping rule that looks only at the
outcomes:

    log_moment(c, f) = log E[p^c (1-p)^f]

    marginal likelihood of a problem       exp(log_moment(c, n - c))
    pass@k                                 1 - exp(log_moment(0, k))
    pass^k, all k succeed                  exp(log_moment(k, 0))
    P(unsolved in K more | c of n)         exp(log_moment(c, n - c + K) - log_moment(c, n - c))

What the law needs to know of a set of counts is prepared once, on the host, by `cells`; the columns it returns are data
for the compiled program, one row per pattern of counts. Rows of zeros may be appended to pad them: they stay finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np
from numpy.typing import ArrayLike

from bayesscale.finding import InputError
from bayesscale.parameter import Parameter
from bayesscale.types import Columns, Theta


class Sample(Protocol):
    """Draws success probabilities; named values of theta broadcast against `shape`."""

    def __call__(self, key: jax.Array, theta: Theta, shape: tuple[int, ...]) -> jax.Array: ...


@dataclass(frozen=True)
class SharedCells:
    """Columns for all patterns of one model on something they share, such as a grid.

    Attributes
    ----------
    width : the size of what patterns of up to n samples need.
    most : the largest width worth it; above it `RateLaw.cells` serve.
    cells : the columns of counts c and f, what is shared padded to a width.
    """

    width: Callable[[float], int]
    most: int
    cells: Callable[[ArrayLike, ArrayLike, int], dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class RateLaw:
    """One law of success probabilities.

    Attributes
    ----------
    name : identifier used in tables and on the command line.
    equation : the law in plain text.
    reference : where it comes from, with the equation's place.
    parameters : the unknowns, in order; all are scalars.
    log_moment : (pattern,) log E[p^c (1-p)^f] of the patterns in the columns of `cells`, in nats.
    derived : quantities reported beside the parameters, ``derived(**theta) -> {name: value}``; among them "mean" (E p),
        "tail_index" (the b of a density ~ p^(b-1) at 0, infinite where it falls faster than any power) and "zero_mass"
        (the share of impossible problems: pass@k tends to one less it).
    derived_meaning : what each derived quantity is, by name.
    cells : the columns `log_moment` takes for counts c and f of one shape, each with the shape of c first.
    sample : success probabilities of problems drawn from the law, ``sample(key, theta, shape)``.
    shared : cheaper columns for the patterns of one model, which `log_moment` takes too; None where there are none.
    """

    name: str
    equation: str
    reference: str
    parameters: tuple[Parameter, ...]
    log_moment: Callable[[Columns, Theta], jax.Array]
    derived: Callable[..., Mapping[str, jax.Array]]
    derived_meaning: Mapping[str, str]
    cells: Callable[[ArrayLike, ArrayLike], dict[str, np.ndarray]]
    sample: Sample
    shared: SharedCells | None = None


def count_cells(successes: ArrayLike, failures: ArrayLike) -> dict[str, np.ndarray]:
    """The columns "c" and "f" of a law in closed form: counts as float64, broadcast against each other.

    Raises InputError RATE_COUNTS where a count is negative or not finite.
    """
    c, f = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(failures, np.float64))
    if not (np.isfinite(c).all() and np.isfinite(f).all() and (c >= 0).all() and (f >= 0).all()):
        raise InputError("RATE_COUNTS", "successes and failures must be finite and at least 0")
    return {"c": c.copy(), "f": f.copy()}


DERIVED_MEANING: dict[str, str] = {
    "mean": "mean success probability, pass@1",
    "tail_index": "exponent of k in the share of problems still unsolved after k attempts, as k grows",
    "zero_mass": "share of impossible problems, 1 - pass@k as k grows without bound",
}
