"""The composer: law × likelihood (× pooling) gives a log density and a numpyro model.

A `Model` is fitted to one *unit*: one curve for a single-curve law, all task curves of one model for a joint law. Its flat
log density takes the unconstrained vector u and the unit's columns; batches map it over units with the data as arguments,
so that one compiled program serves every unit of the same shape. `numpyro_model` states the same density as a numpyro
program (a test holds the two together).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import jax
import jax.numpy as jnp
import numpyro

from bayesscale.discrepancy import filter_rows, left_out_log_prob, sample_path
from bayesscale.law import Coordinates, Law
from bayesscale.layout import Layout
from bayesscale.likelihood import Likelihood, inverse_link, link
from bayesscale.logarithms import keep
from bayesscale.parameter import Parameter
from bayesscale.types import Columns, CoordArray, LogMean, ObsArray, Scalar, Theta


@dataclass(frozen=True, eq=False)
class Model:
    """A law seen through a likelihood, with the number of tasks a joint law couples."""

    law: Law
    likelihood: Likelihood
    tasks: int = 1

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.law.parameters + self.likelihood.all_parameters

    @cached_property
    def layout(self) -> Layout:
        """Where the parameters lie in a flat vector; a joint law has one lumped hypothesis beyond its tasks."""
        return Layout(self.parameters, {"task": self.tasks, "rival": self.tasks, "hypothesis": self.tasks + 1})

    def log_likelihood(self, theta: Theta, columns: Columns) -> Scalar:
        """Log likelihood of the unit; for single-curve laws, axes beyond the rows are a batch."""
        return jnp.sum(row_log_likelihood(self, theta, columns), axis=0)


@lru_cache(maxsize=256)
def compose(law: Law, likelihood: Likelihood, tasks: int = 1) -> Model:
    """Return the one `Model` of these values, so that what is compiled for it is found again."""
    return Model(law, likelihood, tasks)


def theta_of(model: Model, u: CoordArray, facts: Columns) -> tuple[dict[str, jax.Array], Scalar]:
    """Split a flat vector into named values and return them with the log prior density on the unconstrained axis."""
    return model.layout.values(u, facts)


def law_log_mean(model: Model, theta: Theta, shots: ObsArray, task: ObsArray | None = None) -> LogMean:
    """(log p, log(1-p)) of the model's law at these parameter values."""
    values = {parameter.name: theta[parameter.name] for parameter in model.law.parameters}
    return model.law.log_mean(shots, task, **values) if model.law.joint else model.law.log_mean(shots, **values)


def derived_quantities(model: Model, theta: Theta) -> Mapping[str, jax.Array]:
    """What the law reports beside its parameters."""
    return model.law.derived(**{parameter.name: theta[parameter.name] for parameter in model.law.parameters})


def sigma_of(theta: Theta) -> Scalar | None:
    """Scale of the discrepancy, or None where the likelihood has none."""
    return theta.get("sigma_delta")


def row_log_likelihood(model: Model, theta: Theta, columns: Columns) -> ObsArray:
    """Sequential log likelihood of each row: log p(y_i | theta, y_<i), zero on padding."""
    mean = law_log_mean(model, theta, columns["shots"], columns.get("task"))
    extra = model.likelihood.extra(mean, columns, theta)
    sigma = sigma_of(theta)
    if sigma is None:
        eta = keep(link(model.likelihood.kind, mean))
        rows = model.likelihood.log_prob(eta, mean, columns, theta)
    else:
        rows = filter_rows(model.likelihood, mean, columns, theta, sigma).log_evidence
    return jnp.where(columns["mask"] > 0, rows + extra, 0.0)


def left_out_log_likelihood(model: Model, theta: Theta, columns: Columns) -> ObsArray:
    """log p(y_i | theta, y_-i): the row's own density, unless rows share a discrepancy.

    Rows hidden by the mask are scored too, given those it shows: that is their predictive density. What the spread between
    runs says is left out, so that the number is about the observed mean alone.
    """
    mean = law_log_mean(model, theta, columns["shots"], columns.get("task"))
    sigma = sigma_of(theta)
    if sigma is None:
        return model.likelihood.log_prob(link(model.likelihood.kind, mean), mean, columns, theta)
    return left_out_log_prob(model.likelihood, mean, columns, theta, sigma)


def posterior_rows(
    model: Model, theta: Theta, columns: Columns, key: jax.Array
) -> tuple[ObsArray, ObsArray, tuple[ObsArray, ...], ObsArray]:
    """What one draw of the parameters says at every row, given the rows the mask shows.

    Returns the law's value, the expected value (law and discrepancy, sampled along the curve), both on the value scale, what
    new observations are drawn with, and the log density of the row given the others; all (obs,).
    """
    kind = model.likelihood.kind
    mean = law_log_mean(model, theta, columns["shots"], columns.get("task"))
    eta, sigma = link(kind, mean), sigma_of(theta)
    if sigma is None:
        path = jnp.zeros_like(eta)
    else:
        path = sample_path(key, filter_rows(model.likelihood, mean, columns, theta, sigma), columns, sigma)
    scatter = model.likelihood.scatter(eta + path, mean, columns, theta)
    score = left_out_log_likelihood(model, theta, columns)
    return inverse_link(kind, eta), inverse_link(kind, eta + path), scatter, score


def replicate_scatter(model: Model, theta: Theta, columns: Columns) -> tuple[ObsArray, ...]:
    """What every row is observed anew with under the law alone, (obs,) each.

    The departure is left out: a Brownian path can follow any collapse, and the question is whether the law does.
    """
    mean = law_log_mean(model, theta, columns["shots"], columns.get("task"))
    return model.likelihood.scatter(link(model.likelihood.kind, mean), mean, columns, theta)


def log_density(model: Model, u: CoordArray, columns: Columns) -> Scalar:
    """Unnormalised log posterior density on the unconstrained axis."""
    theta, log_prior = theta_of(model, u, columns)
    return log_prior + model.log_likelihood(keep(theta), columns)


@dataclass(frozen=True, eq=False)
class Target:
    """What a sampler needs to know: a log density of (u, columns), a draw from the prior, how many coordinates, a name.

    Where `broadcasts`, the density takes u (coord, lane) and columns (..., lane) as they are and answers (lane,). Coordinates
    need not be the model's own: `restore` takes them there. `pivot` is the coordinate, standard normal under the prior, on which
    the others' widths depend.
    """

    name: str
    dimension: int
    density: Callable[[CoordArray, Columns], Scalar]
    prior_draw: Callable[[jax.Array, Columns], CoordArray]
    broadcasts: bool = False
    restore: Callable[[CoordArray, Columns], CoordArray] | None = None
    pivot: int | None = None


@lru_cache(maxsize=256)
def target_of(model: Model) -> Target:
    """Return the sampling target of a model, for curves that show a rise."""
    return target_in(model, model.law.rising)


@lru_cache(maxsize=256)
def level_target(model: Model) -> Target:
    """Return the sampling target of a model for curves that show no rise, where that is another and serves."""
    law = model.law
    same = law.level is None or law.level is law.rising or departs(model)
    return target_of(model) if same else target_in(model, law.level)


def departs(model: Model) -> bool:
    """Whether curves may depart from the law."""
    return model.likelihood.discrepancy is not None


def target_in(model: Model, coordinates: Coordinates | None) -> Target:
    """Return the target in these coordinates; in the model's own where there are none, or a departure keeps them from serving."""
    if coordinates is None or (coordinates.follows and departs(model)):
        return own_target(model)
    return moved_target(model, coordinates)


def name_of(model: Model) -> str:
    """Name a target; draws are keyed by it."""
    return f"{model.law.name}|{model.likelihood.name}|{model.tasks}"


def pivot_of(model: Model) -> int | None:
    """Where the scale of the discrepancy lies in a flat vector; a joint law is sampled as it is."""
    discrepancy = model.likelihood.discrepancy
    return None if discrepancy is None or model.law.joint else model.layout.slices[discrepancy.name][0].start


@lru_cache(maxsize=256)
def own_target(model: Model) -> Target:
    """Return the target in the model's own coordinates."""
    density, draw = partial(log_density, model), partial(prior_draw, model)
    return Target(name_of(model), model.layout.dimension, density, draw, not model.law.joint, pivot=pivot_of(model))


def moved_target(model: Model, coordinates: Coordinates) -> Target:
    """Return the target in coordinates of the law; its parameters come first in the flat vector."""
    count = len(model.law.parameters)

    def restored(w: CoordArray, columns: Columns) -> tuple[CoordArray, Scalar]:
        theta, log_determinant = coordinates.to_parameters(w[:count], columns)
        return jnp.concatenate([theta, w[count:]]), log_determinant

    def density(w: CoordArray, columns: Columns) -> Scalar:
        u, log_determinant = restored(w, columns)
        return log_density(model, u, columns) + log_determinant

    def draw(key: jax.Array, columns: Columns) -> CoordArray:
        u = prior_draw(model, key, columns)
        return jnp.concatenate([coordinates.from_parameters(u[:count], columns), u[count:]])

    def restore(w: CoordArray, columns: Columns) -> CoordArray:
        return restored(w, columns)[0]

    return Target(name_of(model), model.layout.dimension, density, draw, True, restore, pivot_of(model))


def numpyro_model(model: Model, columns: Columns) -> None:
    """State the posterior as a numpyro program."""
    theta = {}
    for parameter in model.parameters:
        prior = parameter.prior_given(columns).expand(parameter.shape(model.layout.sizes))
        theta[parameter.name] = numpyro.sample(parameter.name, prior.to_event(len(prior.batch_shape)))
    numpyro.factor("log_likelihood", jnp.sum(row_log_likelihood(model, theta, columns)))


def prior_draw(model: Model, key: jax.Array, facts: Columns) -> CoordArray:
    """Draw a flat vector from the prior, on the unconstrained axis."""
    return model.layout.prior_draw(key, facts)
