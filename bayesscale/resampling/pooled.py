"""Fitting the success rates of several models together: a scaling law of the tail.

Parameters of the rate law are shared as `bayesscale.pooling` says. By default the tail is: its index follows the logarithm of
model covariates (parameters, training tokens) and scatters around that line with Student-t tails, so that one atypical model
can stand apart; where the bulk of the rates lies stays each model's own affair. Pool models sampled with the same settings only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.attempts import Attempts
from bayesscale.draws import Draws, Naming, named_draws
from bayesscale.finding import InputError
from bayesscale.inference.many import Posterior, sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.pooled import POOLED_SAMPLER
from bayesscale.pooling import (
    Design,
    Pool,
    PooledModel,
    named_values,
    none,
    partial,
    per_curve,
    pooled_prior_draw,
    pooled_target,
)
from bayesscale.precision import enable_float64, require_float64
from bayesscale.rates import DEFAULT_RATE_LAW, RateLaw
from bayesscale.resampling.fitting import RateFit, rate_law_named, with_data_findings
from bayesscale.resampling.model import RateModel, columns_of, rate_model

if TYPE_CHECKING:
    import pandas as pd

RATES_POOLED_SAMPLER = replace(POOLED_SAMPLER, lanes=12, tiers=1)
"""One posterior needs no more lanes than chains and what the deck keeps free; what does not mix is run again, longer."""

TAIL_PARAMETERS = ("log_tail_index", "log_low_shape", "log_b")
"""Parameters that set a law's tail, by law: those that are pooled by default."""


@dataclass(frozen=True, eq=False)
class PooledRates:
    """Success rates of several models, fitted together: one `RateFit` per model, and what they share."""

    fits: tuple[RateFit, ...]
    shared: Draws

    @property
    def status(self) -> str:
        return self.shared.status

    def summary(self) -> pd.DataFrame:
        """One row per shared quantity: centres, scatter tau and slopes over the covariate's range."""
        return self.shared.summary(law=self.fits[0].law.name)


def design_of_models(attempts: Attempts, covariates: tuple[str, ...]) -> Design:
    """Every model its own group; covariates on the log axis, centred, in units of their range.

    Raises
    ------
    InputError : a covariate is missing, not positive, or the same for all models.
    """
    columns = {}
    for name in covariates:
        if name not in attempts.covariates:
            known = ", ".join(attempts.covariates) or "none"
            raise InputError("POOL-COVARIATE", f"there is no covariate {name!r}", fix=f"known: {known}")
        value = attempts.covariates[name]
        if not (value > 0).all() or np.ptp(value) == 0:
            raise InputError("POOL-COVARIATE", f"covariate {name!r} has to be positive and to vary over models")
        x = np.log(value)
        columns[name] = (x - x.mean()) / np.ptp(x)
    return Design({"curve": np.arange(len(attempts))}, {"curve": len(attempts)}, columns)


def default_pooling(law: RateLaw, covariates: tuple[str, ...]) -> dict[str, Pool]:
    """Pool the tail; leave the rest to each model."""
    return {
        p.name: partial(("curve",), covariates=covariates, heavy=True) if p.name in TAIL_PARAMETERS else none()
        for p in law.parameters
    }


def fit_rates_pooled(
    attempts: Attempts,
    law: str | RateLaw = DEFAULT_RATE_LAW,
    *,
    covariates: tuple[str, ...] = (),
    pooling: Mapping[str, Pool] | None = None,
    sampler: Sampler | None = None,
    given: Mapping[str, int] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> PooledRates:
    """Fit all models' success rates in one posterior.

        u_m = centre + sum_v slope_v x_v(m) + tau z_m,    z_m ~ Student-t(4),    x_v = (log v - mean) / range

    for each pooled parameter u on its unconstrained axis; a slope is the change over the covariate's whole range. Without a
    `sampler`, ours is used with the settings `given` (draws, chains).

    Raises
    ------
    InputError : fewer than two models, an unknown law, parameter or covariate.
    """
    law = rate_law_named(law)
    enable_float64()
    require_float64()
    if len(attempts) < 2:
        raise InputError("POOL-MODELS", "pooling needs at least two models", fix="use fit_rates")
    shares = default_pooling(law, covariates) | dict(pooling or {})
    unknown = set(shares) - {p.name for p in law.parameters}
    if unknown or not any(pool.kind != "none" for pool in shares.values()):
        known = ", ".join(p.name for p in law.parameters) or "none"
        what = f"no parameter is called {sorted(unknown)[0]!r}" if unknown else f"law {law.name} has nothing to pool"
        raise InputError("POOL-PARAMETER", what, fix=f"parameters: {known}")
    needed = tuple(sorted({name for pool in shares.values() for name in pool.covariates}))
    pooled = PooledModel(rate_model(law), shares, design_of_models(attempts, needed), len(attempts))
    identity = "|".join(f"{name}:{pool}" for name, pool in sorted(shares.items()))
    columns = {name: column[None] for name, column in columns_of(law, attempts).items()}
    target = pooled_target(pooled, f"rates pooled|{law.name}|{identity}")
    sampler = sampler or replace(RATES_POOLED_SAMPLER, **given or {})
    digest = hashlib.sha256("+".join(attempts.digest(i) for i in range(len(attempts))).encode()).hexdigest()
    posterior = sample_many(target, columns, [digest], sampler=sampler, seed=seed, progress=progress)
    return split_models(pooled, attempts, named(pooled, posterior, columns, sampler, seed), law)


def named(
    pooled: PooledModel[RateModel],
    posterior: Posterior,
    columns: Mapping[str, NDArray],
    sampler: Sampler,
    seed: int,
) -> Draws:
    """Name what is shared, and every model's own values as vectors over models."""
    law = pooled.model.law

    def values(u: jax.Array, facts: dict[str, jax.Array]) -> dict[str, jax.Array]:
        theta, _ = per_curve(pooled, u, facts)
        return named_values(pooled, u) | theta | dict(jax.vmap(lambda t: law.derived(**t))(theta))

    draw = lambda key, facts: pooled_prior_draw(pooled, key, facts)  # noqa: E731
    return named_draws(Naming(values, draw), posterior, columns, read_by=(), sampler=sampler, seed=seed)[0]


def split_models(pooled: PooledModel[RateModel], attempts: Attempts, draws: Draws, law: RateLaw) -> PooledRates:
    """Give each model its own draws; what concerns the whole posterior's convergence is said of each."""
    own = {name for name, v in draws.values.items() if v.ndim == 3}
    fits = []
    for i in range(len(attempts)):
        part = Draws(
            {name: draws.values[name][..., i] for name in own},
            {name: draws.prior[name][..., i] for name in own},
            draws.stats,
            {name: {key: m[i] for key, m in draws.diagnostics[name].items()} for name in own},
            draws.findings,
            dict(draws.provenance) | {"pooling": {name: str(p) for name, p in pooled.pooling.items()}},
        )
        fits.append(with_data_findings(RateFit(law, attempts.subset([i]), part)))
    rest = [name for name in draws.values if name not in own]
    pick = lambda table: {name: table[name] for name in rest}  # noqa: E731
    shared = Draws(
        pick(draws.values), pick(draws.prior), draws.stats, pick(draws.diagnostics), draws.findings, draws.provenance
    )
    return PooledRates(tuple(fits), shared)
