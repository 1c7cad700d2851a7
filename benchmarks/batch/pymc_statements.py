"""The workloads' models as PyMC models: same priors, same coordinates, data in `pm.Data` so that one compilation serves all.

`check` holds each against the log density of `bayesscale` at random points: they may differ by a constant. If the laws'
coordinates or priors change, it fails, and the statements here have to follow.

"edge" coordinates of the power law, in which the posterior is nearly normal: with E the floor, F the excess at the first shot
and G that at the last shot N, all in nats,

    log_last = log(E + G),   log_fall = log log((E + F) / (E + G)),   logit_share = log(E / G),   log_tau;

the density is that of the model's own coordinates times |d own / d edge|.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray

from bayesscale.columns import taken
from bayesscale.model import own_target
from benchmarks.batch.workloads import Workload


class Statement(NamedTuple):
    """A PyMC model, its free variables in order, the names of its data, and the map of draws to the model's coordinates."""

    model: pm.Model
    names: tuple[str, ...]
    data: tuple[str, ...]
    to_own: Callable[[NDArray, dict[str, NDArray]], NDArray]


def normal_priors(workload: Workload) -> dict[str, tuple[float, float]]:
    """Location and scale of every parameter's prior (all are normal here), for an unknown chance level."""
    facts = {"chance": np.nan, "first_value": 0.5}
    priors = {p.name: p.prior_given(facts) for p in workload.model.parameters}  # pyright: ignore[reportArgumentType]
    return {name: (float(prior.loc), float(prior.scale)) for name, prior in priors.items()}  # pyright: ignore[reportAttributeAccessIssue]


def real_rows(workload: Workload, i: int) -> dict[str, NDArray]:
    """The columns of curve i without padding."""
    columns = taken(workload.units.columns, i)
    kept = columns["mask"] > 0
    return {name: column[kept] for name, column in columns.items() if np.ndim(column)}


def state_icl(workload: Workload) -> Statement:
    """The `linear` law with beta-binomial counts, in the model's own coordinates."""
    rows = real_rows(workload, 0)
    with pm.Model() as model:
        shots, trials = pm.Data("shots", rows["shots"]), pm.Data("trials", rows["trials"])
        seen = pm.Data("successes", rows["successes"])
        u = {name: pm.Normal(name, loc, scale) for name, (loc, scale) in normal_priors(workload).items()}
        n50 = pt.exp(u["log_n50"])
        rise = pt.sigmoid(pt.exp(u["log_kappa"]) * (shots - n50) / n50)
        ratio = pt.sigmoid(u["logit_floor_ratio"])
        p = pt.sigmoid(u["logit_ceiling"]) * (ratio + (1.0 - ratio) * rise)
        phi = pt.exp(u["log_phi"])
        pm.BetaBinomial("seen", alpha=phi * p + 1e-12, beta=phi * (1.0 - p) + 1e-12, n=trials, observed=seen)
    return Statement(model, tuple(u), ("shots", "trials", "successes"), lambda draws, rows: draws)


def state_power(workload: Workload) -> Statement:
    """The power law with log-normal scatter, in the model's own coordinates."""
    rows = real_rows(workload, 0)
    with pm.Model() as model:
        shots, y = pm.Data("shots", rows["shots"]), pm.Data("y", rows["y"])
        u = {name: pm.Normal(name, loc, scale) for name, (loc, scale) in normal_priors(workload).items()}
        floor, excess = pt.softplus(-u["logit_ceiling"]), pt.softplus(-u["logit_first_ratio"])
        nll = floor + excess * pt.exp(-pt.exp(u["log_alpha"]) * pt.log(shots))
        pm.Normal("seen", pt.log(nll), pt.exp(u["log_tau"]), observed=y)
    return Statement(model, tuple(u), ("shots", "y"), lambda draws, rows: draws)


def own_from_edge(edge: tuple, log_end: Any, xp: Any) -> tuple[tuple, Any]:
    """(own coordinates, log |d own / d edge|) of the power law, with `xp` numpy or pytensor."""
    log_last, log_fall, logit_share, log_tau = edge
    # log of floor and last excess, through the softplus so that neither share rounds to zero
    log_floor = log_last - xp.log1p(xp.exp(-logit_share))
    log_rest = log_last - xp.log1p(xp.exp(logit_share))
    first = xp.exp(log_last + xp.exp(log_fall))
    floor = xp.exp(log_floor)
    excess = first - floor
    alpha = (xp.log(excess) - log_rest) / log_end
    own = (-xp.log(xp.expm1(floor)), -xp.log(xp.expm1(excess)), xp.log(alpha), log_tau)
    missing = xp.log(-xp.expm1(-floor)) + xp.log(-xp.expm1(-excess))
    log_jacobian = log_floor + xp.log(first) + log_fall - missing - xp.log(alpha) - xp.log(log_end)
    return own, log_jacobian


def state_power_edge(workload: Workload) -> Statement:
    """The power law in edge coordinates; the prior is that of the model's own coordinates, carried over."""
    rows = real_rows(workload, 0)
    names = ("log_last", "log_fall", "logit_share", "log_tau")
    with pm.Model() as model:
        shots, y = pm.Data("shots", rows["shots"]), pm.Data("y", rows["y"])
        edge = tuple(pm.Flat(name, initval=0.0 if name != "log_tau" else -3.0) for name in names)
        own, log_jacobian = own_from_edge(edge, pt.log(shots[-1]), pt)
        prior = sum(
            pm.logp(pm.Normal.dist(loc, scale), value)
            for (loc, scale), value in zip(normal_priors(workload).values(), own, strict=True)
        )
        pm.Potential("prior", prior + log_jacobian)
        floor, excess = pt.softplus(-own[0]), pt.softplus(-own[1])
        nll = floor + excess * pt.exp(-pt.exp(own[2]) * pt.log(shots))
        pm.Normal("seen", pt.log(nll), pt.exp(edge[3]), observed=y)

    def to_own(draws: NDArray, rows: dict[str, NDArray]) -> NDArray:
        return np.stack(own_from_edge(tuple(np.moveaxis(draws, -1, 0)), np.log(rows["shots"][-1]), np)[0], axis=-1)

    return Statement(model, names, ("shots", "y"), to_own)


STATEMENTS: dict[tuple[str, str], Callable[[Workload], Statement]] = {
    ("icl", "own"): state_icl,
    ("mixed", "own"): state_icl,
    ("power", "own"): state_power,
    ("power", "edge"): state_power_edge,
}


def set_curve(workload: Workload, statement: Statement, i: int) -> dict[str, NDArray]:
    """The data of curve i under the names the statement gives them."""
    rows = real_rows(workload, i)
    return {name: np.asarray(rows[name], float) for name in statement.data}


def log_determinant(edge: NDArray, rows: dict[str, NDArray]) -> float:
    """log |d own / d edge| by automatic differentiation."""
    end = jnp.log(rows["shots"][-1])
    jacobian = jax.jacfwd(lambda v: jnp.stack(own_from_edge(tuple(v), end, jnp)[0]))(jnp.asarray(edge))
    return float(jnp.linalg.slogdet(jacobian)[1])


def check(workload: Workload, statement: Statement, points: int = 8, tolerance: float = 1e-6) -> float:
    """Largest deviation from a constant difference to the density of `bayesscale`, over random points of curve 0.

    Raises ValueError beyond the tolerance: the two would not be the same posterior.
    """
    rng, target = np.random.default_rng(0), own_target(workload.model)
    columns, rows = taken(workload.units.columns, 0), real_rows(workload, 0)
    log_density, differences = statement.model.compile_logp(), []
    centre = [0.0 if name != "log_tau" else -3.0 for name in statement.names]
    for _ in range(points):
        free = np.array(centre) + 0.5 * rng.normal(size=len(centre))
        own = statement.to_own(free, rows)
        beyond = 0.0
        if "log_last" in statement.names:
            beyond = log_determinant(free, rows)
        theirs = float(log_density(dict(zip(statement.names, free, strict=True))))
        differences.append(theirs - beyond - float(target.density(jnp.asarray(own), columns)))
    spread = float(np.ptp(differences))
    if not spread < tolerance:
        raise ValueError(
            f"the PyMC statement of {workload.name!r} differs from the model's density by {spread:.2g} nats"
        )
    return spread
