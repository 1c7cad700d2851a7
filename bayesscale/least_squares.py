"""Least squares: every law as practitioners fit it.

    theta_hat = argmin over theta of sum_i (p(n_i; theta) - p_i)^2      (loss of Arora et al. 2024, arXiv 2410.16531)

p_i is the mean accuracy or probability at n_i shots, and exp(-NLL_i) for negative log-likelihoods. No priors, no noise
model, no intervals: this is the yardstick a posterior is held against, in the same coordinates and by the same curve.
Where several optima tie (a flat curve, fewer points than coordinates) nothing chooses between their forecasts.

Each curve is fitted from many starts by Levenberg's damped Gauss-Newton method within wide bounds: steps d solve
(J'J + mu I) d = -J'r, with the damping mu by Nielsen's rule (Madsen, Nielsen & Tingleff 2004, "Methods for non-linear
least squares problems", algorithm 3.16). One program is compiled per law and shape, and a fit does not depend on which
curves are fitted beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from numpy.typing import ArrayLike, NDArray

from bayesscale.curves import Curves, Kind
from bayesscale.finding import InputError
from bayesscale.fitting import law_named
from bayesscale.law import Law
from bayesscale.parameter import Parameter, constrain, unconstrain
from bayesscale.precision import enable_float64
from bayesscale.types import Columns, CoordArray, Scalar
from bayesscale.units import facts_seen, pad

LOGIT_BOUND = 20.0
LOG_SHOTS_BOUNDS = (-10.0, 20.0)
LOG_SCALE_BOUNDS = (math.log(1e-4), math.log(15.0))
"""Exponents, steepnesses and widths; the reference code caps its exponents at 15 too."""
WIDE = {"logit": (-4.0, 4.0), "log shots": (-1.0, 9.0), "log scale": (-2.5, 2.0)}
"""Where wide starts are drawn from, by kind of coordinate."""
AGREEMENT = 0.01
"""Starts whose sum of squares is within this share of the best one's agree with it."""
EXACT = 1e-20
"""Sums of squares below this are zero: rounding, not misfit."""
BLOCK = 16
ITERATIONS = 500
LONGEST_STEP = 3.0
SMALLEST_GAIN = 1e-12


@dataclass(frozen=True, eq=False)
class PointFit:
    """One law fitted to one curve by least squares.

    Attributes
    ----------
    name : the curve.
    law : the law.
    kind : which observation the curve holds; `predict` answers on its scale.
    theta : parameter values by name.
    sse : sum of squared errors in probability.
    agreeing_starts : share of the starts that end within 1% of `sse`; small when the problem has several optima.
    """

    name: str
    law: Law
    kind: Kind
    theta: Mapping[str, float]
    sse: float
    agreeing_starts: float

    def predict(self, shots: ArrayLike) -> NDArray[np.float64]:
        """Value of the fitted law at these shots: a probability, or an NLL in nats for NLL curves."""
        enable_float64()
        at = np.asarray(shots, float)
        flat = at.ravel()
        theta = {name: jnp.asarray(value) for name, value in self.theta.items()}
        log_p = np.asarray(_log_p(self.law)(pad(flat, _block(flat.size)), theta))[: flat.size].reshape(at.shape)
        return -log_p if self.kind == "nll_mean" else np.exp(log_p)


def fit_least_squares(curves: Curves, law: Law | str, *, starts: int = 64, seed: int = 0) -> list[PointFit]:
    """Fit a single-curve law to every curve by multi-start least squares in probability.

    The first half of the starts is drawn from the law's priors, the rest uniformly from a wide box. Runs are averaged,
    so that every shot count weighs the same.

    Raises
    ------
    InputError : an unknown or joint law, no starts, or zero shots under a law that is singular there.
    """
    law = law_named(law)
    if law.joint:
        raise InputError("LSQ-JOINT", f"law {law.name} couples curves; least squares fits one curve at a time")
    if starts < 1:
        raise InputError("LSQ-STARTS", f"there must be at least one start, got {starts}")
    enable_float64()
    columns = mean_cells(curves)
    if law.singular_at_zero and (columns["shots"][columns["mask"] > 0] == 0).any():
        raise InputError("LSQ-SHOTS", f"law {law.name} says nothing about 0 shots", fix="add a shot offset")
    solve, key = _solver(law, starts), jax.random.key(seed)
    solutions = [solve({name: values[i] for name, values in columns.items()}, key) for i in range(len(curves))]
    return [
        PointFit(
            name=curves.curve_name(i),
            law=law,
            kind=curves.kind,
            theta={name: float(value) for name, value in theta.items()},
            sse=float(sse),
            agreeing_starts=float(agreeing),
        )
        for i, (theta, sse, agreeing) in enumerate(solutions)
    ]


def mean_cells(curves: Curves) -> dict[str, NDArray[np.float64]]:
    """Mean over runs at each shot count as padded arrays (curve, cell), and the facts priors look at (curve,).

    `value` is a probability: pooled accuracy, mean probability, or exp(-mean NLL).
    """
    tables = [_cells_of(curves, i) for i in range(len(curves))]
    width = _block(max(len(table["shots"]) for table in tables))
    columns = {name: np.stack([pad(table[name], width) for table in tables]) for name in ("shots", "value")}
    columns["mask"] = np.stack([np.arange(width) < len(table["shots"]) for table in tables]).astype(float)
    return columns | {"chance": np.array(curves.chance)} | facts_seen(columns, columns["mask"])


def _block(rows: int) -> int:
    """Round up to a multiple of `BLOCK`, so that few shapes are compiled."""
    return -(-rows // BLOCK) * BLOCK


def _cells_of(curves: Curves, i: int) -> dict[str, NDArray[np.float64]]:
    rows = np.flatnonzero(curves.curve == i)
    shots, cell = np.unique(curves.shots[rows], return_inverse=True)
    top, bottom = (
        (curves.column("successes")[rows], curves.column("trials")[rows])
        if curves.kind == "counts"
        else (curves.column("value")[rows], np.ones(len(rows)))
    )
    mean = np.bincount(cell, weights=top) / np.bincount(cell, weights=bottom)
    return {"shots": shots, "value": np.exp(-mean) if curves.kind == "nll_mean" else mean}


@lru_cache(maxsize=64)
def _log_p(law: Law) -> Any:
    return jax.jit(lambda shots, theta: law.log_mean(shots, **theta)[0])


@lru_cache(maxsize=64)
def _solver(law: Law, starts: int) -> Any:
    """Compile the fit of one curve, all starts at once."""
    return jax.jit(partial(_fit_curve, law, starts))


def _fit_curve(law: Law, starts: int, columns: Columns, key: jax.Array) -> tuple[dict[str, jax.Array], Scalar, Scalar]:
    """Parameters of the best start, its sum of squares, and the share of starts that agree with it."""
    lower, upper = (jnp.array(ends) for ends in zip(*(bounds(p) for p in law.parameters), strict=True))

    def residuals(u: CoordArray) -> jax.Array:
        log_p, _ = law.log_mean(columns["shots"], **_named(law, u, columns))
        return (jnp.exp(log_p) - columns["value"]) * columns["mask"]

    first = jnp.clip(_starts(law, starts, columns, key), lower, upper)
    u, sse = jax.vmap(lambda start: levenberg(residuals, start, lower, upper))(first)
    sse = jnp.where(jnp.isfinite(sse), sse, jnp.inf)
    best = jnp.argmin(sse)
    agreeing = jnp.mean(sse <= (1.0 + AGREEMENT) * sse[best] + EXACT)
    return _named(law, u[best], columns), sse[best], agreeing


def _named(law: Law, u: CoordArray, facts: Columns) -> dict[str, jax.Array]:
    """Parameter values by name from unconstrained coordinates."""
    return {p.name: constrain(p, u[i], facts)[0] for i, p in enumerate(law.parameters)}


def _starts(law: Law, starts: int, facts: Columns, key: jax.Array) -> jax.Array:
    """(start, coord): half from the priors, half uniform over `WIDE`."""
    from_prior = (starts + 1) // 2
    columns = []
    for i, parameter in enumerate(law.parameters):
        key_prior, key_wide = jax.random.split(jax.random.fold_in(key, i))
        value = parameter.prior_given(facts).sample(key_prior, (from_prior,))
        prior = jax.vmap(lambda v, parameter=parameter: unconstrain(parameter, v, facts))(value)
        low, high = WIDE[coordinate_kind(parameter)]
        wide = jax.random.uniform(key_wide, (starts - from_prior,), minval=low, maxval=high)
        columns.append(jnp.concatenate([prior, wide]))
    return jnp.stack(columns, axis=1)


def coordinate_kind(parameter: Parameter) -> str:
    """Tell a logit, the log of a shot count, and the log of anything else apart; an unknown coordinate is a logit."""
    if parameter.unit == "log shots":
        return "log shots"
    return "log scale" if parameter.name.startswith("log_") else "logit"


def bounds(parameter: Parameter) -> tuple[float, float]:
    """Bounds of a coordinate: wide enough to reach every limit of a law in practice, tight enough not to overflow."""
    kind = coordinate_kind(parameter)
    return {"logit": (-LOGIT_BOUND, LOGIT_BOUND), "log shots": LOG_SHOTS_BOUNDS, "log scale": LOG_SCALE_BOUNDS}[kind]


class _State(NamedTuple):
    """Where a descent stands: the point, its sum of squares, J'J and J'r there, damping and its growth, the end."""

    u: CoordArray
    sse: Scalar
    hessian: jax.Array
    gradient: CoordArray
    damping: Scalar
    growth: Scalar
    iteration: Scalar
    done: jax.Array


def levenberg(residuals: Any, start: CoordArray, lower: CoordArray, upper: CoordArray) -> tuple[CoordArray, Scalar]:
    """Minimise the sum of squares of `residuals` within bounds from one start; return the point and the sum.

    A coordinate at a bound that the gradient pushes outwards is held for the step. Steps are cut to `LONGEST_STEP` per
    coordinate, because laws are flat far from the data.
    """

    def measure(u: CoordArray) -> tuple[Scalar, jax.Array, CoordArray]:
        jacobian, r = jax.jacfwd(lambda u: (residuals(u),) * 2, has_aux=True)(u)
        return jnp.sum(r * r), jacobian.T @ jacobian, jacobian.T @ r

    def advance(s: _State) -> _State:
        held = ((s.u <= lower) & (s.gradient > 0)) | ((s.u >= upper) & (s.gradient < 0))
        free = jnp.where(held, 0.0, 1.0)
        damped = s.hessian * free[:, None] * free + jnp.diag(s.damping * free + (1.0 - free))
        step = -cho_solve(cho_factor(damped), s.gradient * free)
        step *= jnp.minimum(1.0, LONGEST_STEP / (jnp.max(jnp.abs(step)) + 1e-300))
        u = jnp.clip(s.u + step, lower, upper)
        step = u - s.u
        promised = -(2.0 * s.gradient @ step + step @ s.hessian @ step)
        sse, hessian, gradient = measure(u)
        opening = s.iteration == 0
        better = opening | (sse < s.sse)
        ratio = jnp.clip((s.sse - sse) / jnp.maximum(promised, 1e-300), 0.0, 1.0)
        damping = s.damping * jnp.where(better, jnp.maximum(1.0 / 3.0, 1.0 - (2.0 * ratio - 1.0) ** 3), s.growth)
        damping = jnp.where(opening, 1e-3 * jnp.max(jnp.diag(hessian)), damping)
        stuck = (jnp.abs(promised) <= SMALLEST_GAIN * s.sse) | (damping > 1e12) | (s.sse < 1e-6 * EXACT)
        return _State(
            u=jnp.where(better, u, s.u),
            sse=jnp.where(better, sse, s.sse),
            hessian=jnp.where(better, hessian, s.hessian),
            gradient=jnp.where(better, gradient, s.gradient),
            damping=jnp.maximum(damping, 1e-18),
            growth=jnp.where(better, 2.0, 2.0 * s.growth),
            iteration=s.iteration + 1,
            done=stuck & ~opening,
        )

    # The first step is none at all: it measures the start, so that the law is compiled once and not twice.
    size, one = start.shape[0], jnp.ones(())
    first = _State(start, one, jnp.zeros((size, size)), jnp.zeros(size), one, 2.0 * one, jnp.array(0), jnp.array(False))
    last = jax.lax.while_loop(lambda s: ~s.done & (s.iteration < ITERATIONS), advance, first)
    return last.u, last.sse
