"""Pooling: how the curves of a set share what they have in common.

Per parameter, one of three words: *complete* (one value for all), *none* (each curve alone), *partial* (values scatter
around a centre, by groups). On the unconstrained axis, and non-centred,

    u_c = centre + shift_c + sum_by tau_by * z_by[group_by(c)] + sum_v slope_v * x_v(c),

with z ~ Normal(0, 1) or Student-t(4), tau ~ HalfNormal(spread), slope ~ Normal(0, 4 spread), centre ~ the parameter's own
prior. A fact `moves_<parameter>` of a curve, where there is one, multiplies what a covariate does to the parameter: its slopes
and the term by curve beside them. It lets one program serve hypotheses that differ in which parameters a covariate moves.
`shift_c` is what the prior itself knows of a curve (its chance level). `by` names key columns ("model", "task", or
"model*task" for their combinations), or "curve" for a term of its own; `x_v` are covariates in units of their largest value,
log(1 + v) by default (an amount of fine-tuning, say).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import ndtr, ndtri
from numpy.typing import NDArray

from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.model import Target
from bayesscale.parameter import Parameter, constrain, unconstrain
from bayesscale.types import Array, Columns, CoordArray, Scalar, Theta

SLOPE_SPREADS = 4.0
"""Prior sd of a covariate's effect at its largest value, in units of `spread`: a condition may move a parameter much further
than sibling curves differ in it."""


@dataclass(frozen=True)
class Pool:
    """How one parameter is shared; build it with `complete`, `none` or `partial`."""

    kind: Literal["complete", "none", "partial"]
    by: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    heavy: bool = False

    @property
    def scatter(self) -> dist.Distribution:
        """Distribution of a group's standardised deviation z."""
        return dist.StudentT(4.0) if self.heavy else dist.Normal()


def complete(*, covariates: Sequence[str] = ()) -> Pool:
    """One value for all curves, moved by covariates if any are named."""
    return Pool("complete", (), tuple(covariates))


def none() -> Pool:
    """Each curve alone, under the parameter's prior."""
    return Pool("none")


def partial(by: Sequence[str] = ("curve",), *, covariates: Sequence[str] = (), heavy: bool = False) -> Pool:
    """Values scatter around a centre, with one term per named key column ("curve": a term of its own).

    `heavy` scatters with Student-t(4) tails, so that one atypical group can stand apart without widening all others.
    """
    return Pool("partial", tuple(by), tuple(covariates), heavy)


@dataclass(frozen=True)
class Design:
    """Group indices (curve,) and sizes per `by`, and covariates (curve,) per name."""

    groups: Mapping[str, NDArray[np.int64]]
    sizes: Mapping[str, int]
    covariates: Mapping[str, NDArray[np.float64]]


def design_of(curves: Curves, pooling: Mapping[str, Pool]) -> Design:
    """Look up the groups and covariates a pooling needs.

    Raises
    ------
    InputError : a named key or covariate is not in the data.
    """
    wanted = sorted({name for pool in pooling.values() for name in pool.by})
    groups, sizes = {}, {}
    for name in wanted:
        parts = name.split("*")
        if name == "curve":
            index = np.arange(len(curves))
        elif all(part in curves.key_names for part in parts):
            places = [curves.key_names.index(part) for part in parts]
            labels = ["\0".join(key[place] for place in places) for key in curves.keys]
            index = np.unique(labels, return_inverse=True)[1]
        else:
            known = ", ".join((*curves.key_names, "curve"))
            raise InputError("POOL-KEY", f"cannot pool by {name!r}", fix=f"name one of {known}, or several joined by *")
        groups[name], sizes[name] = index, int(index.max()) + 1
    covariates = {}
    for name in sorted({name for pool in pooling.values() for name in pool.covariates}):
        if name not in curves.covariates:
            known = ", ".join(curves.covariates) or "none"
            raise InputError("POOL-COVARIATE", f"there is no covariate {name!r}", fix=f"known: {known}")
        x = np.log1p(np.asarray(curves.covariates[name], float))
        covariates[name] = x / max(float(np.abs(x).max()), 1e-12)
    return Design(groups, sizes, covariates)


class Poolable(Protocol):
    """What can be pooled: parameters, and the log likelihood of one unit given its own values."""

    @property
    def parameters(self) -> tuple[Parameter, ...]: ...

    def log_likelihood(self, theta: Theta, columns: Columns, /) -> Scalar: ...


@dataclass(frozen=True, eq=False)
class PooledModel[M: Poolable]:
    """A model of several units at once: each under `model`, parameters shared as `pooling` says."""

    model: M
    pooling: Mapping[str, Pool]
    design: Design
    curves: int

    def sites(self) -> list[tuple[str, Parameter, str, int]]:
        """Unconstrained blocks in order: (name, parameter, role, size)."""
        out = []
        for parameter in self.model.parameters:
            pool = self.pooling.get(parameter.name, none())
            if pool.kind == "none":
                out.append((parameter.name, parameter, "own", self.curves))
                continue
            out.append((f"{parameter.name}_centre", parameter, "centre", 1))
            out += [(f"{parameter.name}_slope_{v}", parameter, "slope", 1) for v in pool.covariates]
            for by in pool.by if pool.kind == "partial" else ():
                out.append((f"{parameter.name}_tau_{by}", parameter, "tau", 1))
                out.append((f"{parameter.name}_z_{by}", parameter, "z", self.design.sizes[by]))
        return out

    def blocks(self, u: CoordArray) -> dict[str, jax.Array]:
        """Split a flat vector by site name."""
        out, start = {}, 0
        for name, _, _, size in self.sites():
            out[name] = u[start : start + size]
            start += size
        return out

    @property
    def dimension(self) -> int:
        return sum(size for *_, size in self.sites())


def moves_fact(parameter: str) -> str:
    """Name of the fact that says whether a parameter's covariates act on a curve (1) or not (0)."""
    return f"moves_{parameter}"


def half_normal(u: jax.Array, scale: float) -> jax.Array:
    """A HalfNormal(scale) value from its normal score."""
    return -scale * ndtri(0.5 * ndtr(-u))


def mean_facts(facts: Columns) -> dict[str, jax.Array]:
    """Facts of an average curve; chance counts only where it is known."""
    return {name: jnp.nanmean(values, axis=0) for name, values in facts.items()}


def facts_of(columns: Columns) -> dict[str, Array]:
    """The per-curve scalars among (curve, ...) columns."""
    return {name: c for name, c in columns.items() if jnp.ndim(c) == 1}


def per_curve(pooled: PooledModel, u: CoordArray, columns: Columns) -> tuple[dict[str, jax.Array], Scalar]:
    """Values of every parameter for every curve, (curve,), and the log prior density of u."""
    blocks, facts = pooled.blocks(u), facts_of(columns)
    theta, log_prior = {}, jnp.zeros(())
    for parameter in pooled.model.parameters:
        pool, name = pooled.pooling.get(parameter.name, none()), parameter.name
        if pool.kind == "none":
            theta[name], density = jax.vmap(lambda v, f, p=parameter: constrain(p, v, f))(blocks[name], facts)
            log_prior += jnp.sum(density)
            continue
        centre = blocks[f"{name}_centre"][0]
        log_prior += constrain(parameter, centre, mean_facts(facts))[1]
        v, moves = centre + prior_shift(parameter, facts), facts.get(moves_fact(name), jnp.ones(()))
        for covariate in pool.covariates:
            slope = blocks[f"{name}_slope_{covariate}"][0]
            log_prior += dist.Normal(0.0, SLOPE_SPREADS * parameter.spread).log_prob(slope)
            v += moves * slope * jnp.asarray(pooled.design.covariates[covariate])
        for by in pool.by:
            tau, z = blocks[f"{name}_tau_{by}"][0], blocks[f"{name}_z_{by}"]
            log_prior += dist.Normal().log_prob(tau) + jnp.sum(pool.scatter.log_prob(z))
            term = half_normal(tau, parameter.spread) * z[jnp.asarray(pooled.design.groups[by])]
            v += moves * term if by == "curve" and pool.covariates else term
        theta[name] = jax.vmap(lambda w, f, p=parameter: constrain(p, w, f)[0])(
            jnp.broadcast_to(v, (pooled.curves,)), facts
        )
    return theta, log_prior


def prior_shift(parameter: Parameter, facts: Columns) -> jax.Array:
    """What the prior knows of each curve, relative to the average curve; zero for priors that look at no facts."""
    if isinstance(parameter.prior, dist.Distribution):
        return jnp.zeros(())
    own, average = parameter.prior_given(facts), parameter.prior_given(mean_facts(facts))
    assert isinstance(own, dist.Normal)
    assert isinstance(average, dist.Normal)
    return own.loc - average.loc  # pyright: ignore[reportOperatorIssue, reportReturnType]


def pooled_log_density(pooled: PooledModel, u: CoordArray, columns: Columns) -> Scalar:
    """Unnormalised log posterior density; columns are (curve, row) and facts (curve,)."""
    theta, log_prior = per_curve(pooled, u, columns)
    return log_prior + jnp.sum(jax.vmap(pooled.model.log_likelihood)(theta, dict(columns)))


def pooled_prior_draw(pooled: PooledModel, key: jax.Array, columns: Columns) -> CoordArray:
    """Draw the flat vector from the prior."""
    facts, pieces = facts_of(columns), []
    for i, (_, parameter, role, size) in enumerate(pooled.sites()):
        own = jax.random.fold_in(key, i)
        if role == "own":
            values = jax.vmap(lambda k, f, p=parameter: unconstrain(p, p.prior_given(f).sample(k), f))(
                jax.random.split(own, size), facts
            )
        elif role == "centre":
            average = mean_facts(facts)
            values = unconstrain(parameter, parameter.prior_given(average).sample(own), average)[None]
        elif role == "z":
            values = pooled.pooling[parameter.name].scatter.sample(own, (size,))
        else:
            values = (SLOPE_SPREADS * parameter.spread if role == "slope" else 1.0) * jax.random.normal(own, (size,))
        pieces.append(values)
    return jnp.concatenate(pieces)


def pooled_target(pooled: PooledModel, name: str) -> Target:
    """Return the sampling target of a pooled model."""

    def density(u: CoordArray, columns: Columns) -> Scalar:
        return pooled_log_density(pooled, u, columns)

    def draw(key: jax.Array, columns: Columns) -> CoordArray:
        return pooled_prior_draw(pooled, key, columns)

    return Target(name, pooled.dimension, density, draw)


def named_values(pooled: PooledModel, u: CoordArray) -> dict[str, jax.Array]:
    """Centres on the unconstrained axis, group scales tau and covariate slopes, by site name."""
    blocks = pooled.blocks(u)
    out = {}
    for name, parameter, role, _ in pooled.sites():
        if role in ("centre", "slope"):
            out[name] = blocks[name][0]
        elif role == "tau":
            out[name] = half_normal(blocks[name][0], parameter.spread)
    return out
