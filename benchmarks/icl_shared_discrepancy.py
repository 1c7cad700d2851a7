"""Does a departure from the law that curves of one task share make forecasts better?

    python -m benchmarks.icl_shared_discrepancy FILE [--shares .1,.2,.5] [--draws 300] [--own-only]

An experiment on the table of `benchmarks.icl_forecast`, scored as there. Curves of one task depart from their laws along one
common Brownian path beside a path of each curve's own, in t = log(1+n):

    y_ci = logit p_c(n_i) + s(t_i) + d_c(t_i) + noise,   Cov = sigma_s^2 min(t, t') + [same curve] sigma_d^2 min(t, t') + v_i,

law and noise parameters free per curve, sigma_s and sigma_d ~ HalfNormal(.15) free per task. The paths are integrated out
exactly by a dense Cholesky factor over all training rows of the task, and a curve is forecast given the training rows of all
its siblings. ``--own-only`` fixes sigma_s at zero: the independent model in the same code, as a control.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid
from jax.scipy.linalg import cho_solve, solve_triangular
from numpy.typing import NDArray

import bayesscale as bs
from bayesscale.comparison import score_table
from bayesscale.holdout import Forecast, enough_rows, training_mask, with_reach
from bayesscale.inference.many import sample_many
from bayesscale.laws import LAWS
from bayesscale.likelihood import QUASI_BINOMIAL, SIGMA_DELTA, link, log_link_jacobian, normal_log_prob
from bayesscale.model import Model, Target, compose, law_log_mean, prior_draw
from bayesscale.parameter import constrain, unconstrain
from bayesscale.pooled import POOLED_SAMPLER
from bayesscale.precision import enable_float64
from bayesscale.scoring import log_mean_exp
from bayesscale.types import Array, Columns, CoordArray, Scalar
from bayesscale.units import Units, units_of
from benchmarks.icl_forecast import main_curves, numbers, read, scores

ROW_FIELDS = ("shots", "y", "trials", "runs", "run_df", "run_variance", "run_constant", "mask")
FACTS = ("chance", "first_value")


@dataclass(frozen=True, eq=False)
class Shared:
    """A single-curve model seen by `curves` siblings with a common departure, or without one."""

    model: Model
    curves: int
    common: bool = True

    @property
    def dimension(self) -> int:
        return self.curves * self.model.layout.dimension + 1 + self.common


def split(shared: Shared, u: CoordArray) -> tuple[Array, Array, Array, Scalar]:
    """Per-curve coordinates, sigma_d, sigma_s, and the log prior density of the two scales."""
    own = u[: shared.curves * shared.model.layout.dimension].reshape(shared.curves, -1)
    scales = u[own.size :]
    values, density = jax.vmap(lambda v: constrain(SIGMA_DELTA, v, {}))(scales)
    return own, values[0], values[1] if shared.common else jnp.zeros(()), jnp.sum(density)


def rows(model: Model, own: Array, columns: Columns) -> tuple[Array, Array, Array, Array, Scalar]:
    """Of every curve: eta, residual and noise variance at its rows, what the runs' spread says, and the log prior."""

    def one(u: CoordArray, facts: Columns) -> tuple[Array, Array, Array, Array, Scalar]:
        theta, log_prior = model.layout.values(u, facts)
        mean = law_log_mean(model, theta, facts["shots"])
        y, v = model.likelihood.site(mean, facts, theta)
        eta = link("counts", mean)
        return eta, y - eta, v, jnp.sum(facts["mask"] * model.likelihood.extra(mean, facts, theta)), log_prior

    eta, residual, v, extra, log_prior = jax.vmap(one)(own, dict(columns))
    return eta, residual, v, jnp.sum(extra), jnp.sum(log_prior)


def path_covariance(columns: Columns, sigma_d: Scalar, sigma_s: Scalar) -> Array:
    """Covariance (row, row) of the departures of all curves' rows, laid end to end."""
    t = jnp.log1p(columns["shots"])
    curve = jnp.broadcast_to(jnp.arange(t.shape[0])[:, None], t.shape).ravel()
    both = jnp.minimum(t.ravel()[:, None], t.ravel())
    return (sigma_s**2 + sigma_d**2 * (curve[:, None] == curve)) * both


def factor(columns: Columns, v: Array, path: Array) -> Array:
    """Cholesky factor of the covariance of what the mask shows; hidden rows are replaced by independent unit ones."""
    seen = columns["mask"].ravel()
    return jnp.linalg.cholesky(path * seen[:, None] * seen + jnp.diag(jnp.where(seen > 0, v.ravel(), 1.0)))


def log_density(shared: Shared, u: CoordArray, columns: Columns) -> Scalar:
    own, sigma_d, sigma_s, log_prior = split(shared, u)
    _, residual, v, extra, own_prior = rows(shared.model, own, columns)
    lower = factor(columns, v, path_covariance(columns, sigma_d, sigma_s))
    white = solve_triangular(lower, columns["mask"].ravel() * residual.ravel(), lower=True)
    log_normal = -0.5 * jnp.sum(white**2) - jnp.sum(jnp.log(jnp.diag(lower)))
    log_normal -= 0.5 * jnp.log(2.0 * jnp.pi) * jnp.sum(columns["mask"])
    return log_prior + own_prior + extra + log_normal


def draw_prior(shared: Shared, key: jax.Array, columns: Columns) -> CoordArray:
    key_own, key_scale = jax.random.split(key)
    facts = {name: columns[name] for name in FACTS}
    own = jax.vmap(partial(prior_draw, shared.model))(jax.random.split(key_own, shared.curves), facts)
    scales = SIGMA_DELTA.prior_given({}).sample(key_scale, (1 + shared.common,))
    return jnp.concatenate([own.ravel(), jax.vmap(lambda s: unconstrain(SIGMA_DELTA, s, {}))(scales)])


def predict(shared: Shared, u: CoordArray, columns: Columns, key: jax.Array) -> tuple[Array, Array, Array]:
    """Expected value, a new observation and the log density on the link scale, of every row given those shown."""
    own, sigma_d, sigma_s, _ = split(shared, u)
    eta, residual, v, *_ = rows(shared.model, own, columns)
    path, seen = path_covariance(columns, sigma_d, sigma_s), columns["mask"].ravel()
    lower = factor(columns, v, path)
    centre = path @ (seen * cho_solve((lower, True), seen * residual.ravel()))
    left = solve_triangular(lower, seen[:, None] * path, lower=True)
    spread = path - left.T @ left
    values, vectors = jnp.linalg.eigh(spread)
    key_path, key_noise = jax.random.split(key)
    delta = centre + vectors @ (jnp.sqrt(jnp.maximum(values, 0.0)) * jax.random.normal(key_path, centre.shape))
    noise = jnp.sqrt(v) * jax.random.normal(key_noise, v.shape)
    score = normal_log_prob(residual.ravel(), centre, jnp.diag(spread) + v.ravel()).reshape(eta.shape)
    at = eta + delta.reshape(eta.shape)
    return sigmoid(at), sigmoid(at + noise), score


def siblings(curves: bs.Curves) -> list[list[int]]:
    tasks = [key[curves.key_names.index("dataset")] for key in curves.keys]
    return [[i for i, task in enumerate(tasks) if task == name] for name in sorted(set(tasks))]


def gathered(units: Units, groups: list[list[int]], mask: NDArray) -> dict[str, NDArray]:
    """Columns (task, curve, row) and facts (task, curve); tasks with fewer curves repeat the last one, unseen."""
    most = max(map(len, groups))
    index = np.array([group + group[-1:] * (most - len(group)) for group in groups])
    real = np.array([[place < len(group) for place in range(most)] for group in groups])
    columns = {name: np.asarray(units.columns[name], float)[index] for name in (*ROW_FIELDS, *FACTS)}
    return columns | {"mask": mask[index] * real[..., None]}


def forecast_share(curves: bs.Curves, share: float, common: bool, draws: int, keep: int) -> list[Forecast]:
    units, groups = units_of(curves, QUASI_BINOMIAL), siblings(curves)
    shown = training_mask(units, share)
    masked = units.masked(shown, f"{share:g}")
    columns = gathered(masked, groups, masked.columns["mask"])
    shared = Shared(compose(LAWS["tempered"], QUASI_BINOMIAL), columns["mask"].shape[1], common)
    name = "shared tempered" if common else "own tempered"
    target = Target(name, shared.dimension, partial(log_density, shared), partial(draw_prior, shared))
    longest = int(columns["mask"].sum(-1).max())  # rows are sorted by shots: the first ones are those trained on
    training = {key: c[..., :longest] if c.ndim == 3 else c for key, c in columns.items()}
    sampler = replace(POOLED_SAMPLER, draws=draws)
    digests = ["+".join(masked.digests[i] for i in group) for group in groups]
    posterior = sample_many(target, training, digests, sampler=sampler)
    print(
        f"{name} {share:g}: {posterior.leapfrogs.mean():.0f} leapfrogs per draw,", *map(worst, posterior.u), flush=True
    )
    told = jax.jit(jax.vmap(partial(predict, shared), in_axes=(0, None, 0)))
    out = []
    for t, group in enumerate(groups):
        u = posterior.u[t].reshape(-1, shared.dimension)
        u = u[np.linspace(0, len(u) - 1, min(keep, len(u))).astype(int)]
        mean, observation, score = told(
            u, {k: c[t] for k, c in columns.items()}, jax.random.split(jax.random.key(t), len(u))
        )
        status = "ok" if posterior.finished[t] and worst(posterior.u[t]) <= 1.05 else "fail"
        for place, i in enumerate(group):
            held = (units.columns["mask"][i] > 0) & ~shown[i]
            if enough_rows(units, i, shown[i]):
                made = (np.asarray(x)[:, place][:, held] for x in (mean, observation, score))
                out.append(forecast_of(curves, units, i, share, name, held, status, *made))
    return out


def worst(u: NDArray) -> float:
    """Largest split R-hat over coordinates of draws (chain, draw, coord)."""
    from bayesscale.inference.diagnostics import measure

    return round(float(np.max(measure(np.moveaxis(u, -1, 0)).rhat)), 3)


def forecast_of(
    curves: bs.Curves,
    units: Units,
    i: int,
    share: float,
    predictor: str,
    held: NDArray,
    status: str,
    mean: NDArray,
    observation: NDArray,
    score: NDArray,
) -> Forecast:
    y = units.columns["y"][i][held]
    jacobian = np.asarray(log_link_jacobian("counts", 1.0 / (1.0 + np.exp(-y))))
    return Forecast(
        curve=i,
        name=curves.curve_name(i),
        predictor=predictor,
        share=share,
        shots=units.columns["shots"][i][held],
        observed=units.columns["value"][i][held],
        mean=mean,
        observation=observation,
        log_score=log_mean_exp(score) + jacobian,
        status=status,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--shares", type=numbers, default=[0.1, 0.2, 0.5])
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--keep", type=int, default=1000, help="draws a forecast is made from")
    parser.add_argument("--own-only", action="store_true")
    arguments = parser.parse_args()
    enable_float64()
    curves = main_curves(read(arguments.file))
    for share in arguments.shares:
        found = forecast_share(curves, share, not arguments.own_only, arguments.draws, arguments.keep)
        found = with_reach(curves, found)
        print(scores([("quasi_binomial", 0.15, tuple(found))]).to_string())
        reach = score_table(found).groupby(["law", "share"])[["crps_within", "crps_beyond"]].mean()
        print(reach.round(4).to_string(), flush=True)


if __name__ == "__main__":
    main()
