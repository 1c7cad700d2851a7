"""Fitting curves together: one posterior over all of them, shared as `pooling` says.

The result holds one `Fit` per curve, with draws from the joint posterior, so that everything that works for independent fits
works for pooled ones; and the draws of what is shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial as bind
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import taken, typed
from bayesscale.curves import Curves
from bayesscale.draws import PRIOR_DRAWS, QUANTILES, learned, measure, provenance, stats_of, status_of, worst
from bayesscale.finding import Finding, InputError
from bayesscale.fitting import law_named, likelihood_for, read_by, row_map, unfit_reason
from bayesscale.gate import check_drop, check_fit
from bayesscale.inference.many import Posterior, sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.law import Law
from bayesscale.laws import DEFAULT_LAW
from bayesscale.likelihood import Likelihood
from bayesscale.model import Model, compose, derived_quantities
from bayesscale.pooling import (
    Pool,
    PooledModel,
    complete,
    design_of,
    named_values,
    partial,
    per_curve,
    pooled_prior_draw,
    pooled_target,
)
from bayesscale.precision import enable_float64, require_float64
from bayesscale.result import Fit
from bayesscale.units import Units, units_of

if TYPE_CHECKING:
    import pandas as pd

POOLED_SAMPLER = Sampler(
    draws=500,
    warmup=(100, 150, 200),
    target_accept=0.85,
    max_depth=8,
    starts=0,
    spread=0.5,
    lanes=24,
    tiers=0,
    patience=256,
)
"""Settings for one large posterior: no Newton search, since each step would need a Hessian of hundreds of coordinates."""


@dataclass(frozen=True, eq=False)
class Pooled:
    """Curves fitted together.

    `fits` has one entry per curve; `shared` the draws (chain, draw) of centres (unconstrained axis), group scales tau and
    covariate slopes; `diagnostics` their convergence; `findings` what the gate found about the joint posterior.
    """

    fits: tuple[Fit, ...]
    shared: Mapping[str, NDArray]
    diagnostics: Mapping[str, Mapping[str, NDArray]]
    findings: tuple[Finding, ...]

    @property
    def status(self) -> str:
        return status_of(self.findings)

    def summary(self) -> pd.DataFrame:
        """One row per shared quantity: mean, sd, equal-tailed quantiles, R-hat and effective sample sizes."""
        import pandas as pd

        rows = []
        for name, draws in self.shared.items():
            q = np.quantile(draws, QUANTILES)
            row: dict[str, Any] = {"parameter": name, "mean": draws.mean(), "sd": draws.std(ddof=1)}
            row |= {f"q{round(100 * p):02d}": value for p, value in zip(QUANTILES, q, strict=True)}
            rows.append(row | {key: float(value) for key, value in self.diagnostics[name].items()})
        return pd.DataFrame(rows)


def default_pooling(law: Law, likelihood: Likelihood, curves: Curves) -> dict[str, Pool]:
    """Law parameters partial by every key that repeats and by curve; the noise level by curve; the rest in common."""
    repeating = [
        name
        for place, name in enumerate(curves.key_names)
        if 1 < len({key[place] for key in curves.keys}) < len(curves)
    ]
    pooling = {parameter.name: partial((*repeating, "curve")) for parameter in law.parameters}
    for parameter in likelihood.all_parameters:
        pooling[parameter.name] = partial(("curve",)) if parameter.name in ("d0", "log_phi") else complete()
    return pooling


def fit_pooled(
    curves: Curves,
    law: str | Law = DEFAULT_LAW,
    *,
    pooling: Mapping[str, Pool] | None = None,
    likelihood: str | Likelihood | None = None,
    discrepancy: bool = True,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Pooled:
    """Fit all curves together under one single-curve law.

    `pooling` maps parameter names to `complete()`, `none()` or `partial(by, covariates)`; what it does not name keeps its
    default.

    Raises
    ------
    InputError : a joint law, an unknown parameter, key or covariate, or a curve the law cannot be fitted to.
    """
    law = law_named(law)
    enable_float64()
    require_float64()
    chosen = likelihood_for(curves, likelihood, discrepancy=discrepancy)
    return sample_pooled(
        curves, [units_of(curves, chosen)], law, chosen, pooling=pooling, sampler=sampler, seed=seed, progress=progress
    )[0]


def sample_pooled(
    curves: Curves,
    versions: Sequence[Units],
    law: Law,
    likelihood: Likelihood,
    *,
    pooling: Mapping[str, Pool] | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Pooled]:
    """Fit several versions of the same curves (the same rows under different masks), each on its own, in one batch."""
    if law.joint:
        raise InputError("POOL-JOINT", f"law {law.name} already couples tasks", fix="pool a single-curve law")
    for units in versions:
        for i in range(len(units)):
            reason = unfit_reason(units, i, law)
            if reason is not None:
                raise InputError(reason.code, reason.message, where=units.names[i], fix=reason.advice)
    sampler = sampler or POOLED_SAMPLER
    shares = default_pooling(law, likelihood, curves) | dict(pooling or {})
    model = compose(law, likelihood)
    unknown = set(shares) - {parameter.name for parameter in model.parameters}
    if unknown:
        known = ", ".join(parameter.name for parameter in model.parameters)
        raise InputError("POOL-PARAMETER", f"no parameter is called {sorted(unknown)[0]!r}", fix=f"one of {known}")
    pooled = PooledModel(model, shares, design_of(curves, shares), len(curves))
    identity = "|".join(f"{name}:{pool}" for name, pool in sorted(shares.items()))
    target = pooled_target(pooled, f"pooled|{law.name}|{likelihood.name}|{identity}")
    columns = {name: np.stack([units.columns[name] for units in versions]) for name in versions[0].columns}
    digests = [hashlib.sha256("+".join(units.digests).encode()).hexdigest() for units in versions]
    posterior = sample_many(target, columns, digests, sampler=sampler, seed=seed, progress=progress)
    return [work_up(pooled, units, posterior, v, sampler, seed) for v, units in enumerate(versions)]


def work_up(
    pooled: PooledModel[Model], units: Units, posterior: Posterior, v: int, sampler: Sampler, seed: int
) -> Pooled:
    """Turn one version's raw draws into a `Pooled`."""
    model = pooled.model
    # Of jax: closed over as numpy's, they would stop derivatives of one's own that are mapped over curves.
    columns = jax.tree.map(jnp.asarray, typed(units.columns))

    def values(u: jax.Array) -> dict[str, jax.Array]:
        theta, _ = per_curve(pooled, u, columns)
        return theta | dict(jax.vmap(bind(derived_quantities, model))(theta))

    u = posterior.u[v]
    to_values = jax.jit(jax.vmap(jax.vmap(values)))
    every = max(1, u.shape[1] // sampler.keep)
    all_values = {name: np.moveaxis(np.asarray(x), -1, 0) for name, x in to_values(u).items()}
    kept = {name: x[:, :, ::every] for name, x in all_values.items()}
    prior_u = jax.vmap(lambda k: pooled_prior_draw(pooled, k, columns))(
        jax.random.split(jax.random.key(seed + 1), PRIOR_DRAWS)
    )
    prior = {name: np.moveaxis(np.asarray(x), -1, 0) for name, x in jax.vmap(values)(prior_u).items()}
    shared = {name: np.asarray(x) for name, x in jax.jit(jax.vmap(jax.vmap(bind(named_values, pooled))))(u).items()}
    measured = {name: {key: m[0] for key, m in measure(x[None]).items()} for name, x in shared.items()}
    by_curve = {name: measure(x) for name, x in all_values.items()}
    rows = np.asarray(row_map(model)({p.name: kept[p.name] for p in model.parameters}, columns))
    stats = stats_of(posterior, v)
    finite = bool(
        np.isfinite(u).all()
        and np.isfinite(
            rows[units.columns["mask"].astype(bool)[:, None, None, :].repeat(rows.shape[1], 1).repeat(rows.shape[2], 2)]
        ).all()
    )
    checks = bind(check_fit, stats, finished=bool(posterior.finished[v]), modes=1, finite=finite)
    judged = measured or by_curve  # where nothing is shared, the curves' own values are all there is
    findings = checks({name: {key: worst(key, m) for key, m in entry.items()} for name, entry in judged.items()}, {})
    fits = []
    for i in range(len(units)):
        own = {name: {key: m[i] for key, m in entry.items()} for name, entry in by_curve.items()}
        own_kept, own_prior = {n: x[i] for n, x in kept.items()}, {n: x[i] for n, x in prior.items()}
        about = checks(
            {name: {key: worst(key, m) for key, m in entry.items()} for name, entry in own.items()},
            learned(own_kept, own_prior, read_by(model.law)) if finite else {},
        )
        fits.append(
            Fit(
                model=model,
                unit=units.take([i]),
                draws=own_kept,
                prior=own_prior,
                stats=stats,
                diagnostics=own,
                log_likelihood=rows[i],
                findings=about + check_drop(taken(units.columns, i), model.likelihood.kind),
                provenance=provenance(sampler, seed)
                | {"pooling": {name: str(p) for name, p in pooled.pooling.items()}},
            )
        )
    return Pooled(tuple(fits), shared, measured, findings)
