"""Laws: what a curve does as the number of demonstrations grows.

A `Law` is a value: a pure function for p(n), the table of its parameters, and where it comes from. It never samples and
its output has the shape of its input. It answers with the pair (log p, log(1 - p)), in log space, because both ends of
the unit interval matter: a logit needs the two logs, and an accuracy of 0.9999 must not become 1. The target is a
probability p(n) in (0, 1]; a negative log-likelihood is NLL(n) = -log p(n), so one law serves accuracies, mean
probabilities and mean NLLs, with separate posteriors.

Single-curve laws are called as ``log_mean(n, **theta)``. Joint laws, which couple the curves of several tasks, are called
as ``log_mean(n, task, **theta)`` with the index of the task that generated the demonstrations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax

from bayesscale.parameter import Parameter
from bayesscale.types import Columns, LogMean

Family = Literal["bayesian", "baseline"]


class Coordinates(NamedTuple):
    """A one-to-one map between a law's parameters and coordinates that say what data say.

    Data say most about the curve where they are: in values of the curve there the posterior is close to normal where in a
    law's own parameters it is a bent ridge. Both functions take vectors in the order of the law's parameters, first axis
    coordinates, further axes a batch, and the facts `first_shots` and `last_shots`.

    to_parameters(w, facts) : parameters theta, and log |det d theta / d w|.
    from_parameters(theta, facts) : the coordinates w.
    follows : whether they serve only where the curve must follow the law. A smooth departure takes the curve away from the
        law, whose values data then no longer pin; which coordinates are better there differs by law.
    """

    to_parameters: Callable[[jax.Array, Columns], tuple[jax.Array, jax.Array]]
    from_parameters: Callable[[jax.Array, Columns], jax.Array]
    follows: bool = False


@dataclass(frozen=True, eq=False)
class Law:
    """One law of in-context learning.

    Attributes
    ----------
    name : identifier used in tables and on the command line.
    equation : the law in plain text.
    reference : where it comes from, with the equation's place.
    parameters : the unknowns, in order.
    log_mean : (log p(n), log(1 - p(n))); see the module's docstring for its arguments.
    derived : quantities reported beside the parameters, ``derived(**theta) -> {name: value}``.
    derived_meaning : what each derived quantity is, by name.
    family : "bayesian" laws average over tasks; "baseline" laws are curves fitted to curves.
    joint : whether one fit takes the curves of all tasks of a model.
    singular_at_zero : whether the law says nothing about n = 0, so that a shot offset is needed there.
    rising : coordinates the sampler may use in place of the parameters for curves that show a rise, mostly at its ends; or None.
    level : the same for curves that show no rise, at their one level; or None.
    """

    name: str
    equation: str
    reference: str
    parameters: tuple[Parameter, ...]
    log_mean: Callable[..., LogMean]
    derived: Callable[..., Mapping[str, jax.Array]]
    derived_meaning: Mapping[str, str]
    family: Family = "bayesian"
    joint: bool = False
    singular_at_zero: bool = False
    rising: Coordinates | None = None
    level: Coordinates | None = None
