"""Fitting the verifier of several models together: how problems vary is learned from all models, where it lies from each.

Each parameter of `bayesscale.resampling.verifier_law` is shared as `bayesscale.pooling` says. By default the mean acceptance is
each model's own; the mean share, the two scales and the coupling scatter over models with Student-t tails. Problems have no
effect of their own that models share: the posterior treats the same problem in two models as two, so what is said of
differences between models is, if anything, too uncertain, and what is said of their common centre too certain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.attempts import Attempts
from bayesscale.draws import Draws, Naming, named_draws
from bayesscale.finding import InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.pooled import POOLED_SAMPLER
from bayesscale.pooling import (
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
from bayesscale.resampling.pooled import design_of_models
from bayesscale.resampling.verifier_fit import VerifierFit, with_data_findings
from bayesscale.resampling.verifier_law import (
    MODEL,
    PARAMETERS,
    VerifierModel,
    derived,
    patterns,
    verifier_columns,
)
from bayesscale.types import Columns, CoordArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class PooledVerifier:
    """Verifiers fitted together: one `VerifierFit` per model, and what they share."""

    fits: tuple[VerifierFit, ...]
    shared: Draws

    @property
    def status(self) -> str:
        """ "ok", "warn" or "fail": the worst finding about the joint posterior."""
        return self.shared.status

    def summary(self) -> pd.DataFrame:
        """One row per shared quantity: centres on the unconstrained axis, scatter tau and covariates' slopes."""
        return self.shared.summary()


def default_pooling(covariates: tuple[str, ...] = ()) -> dict[str, Pool]:
    """Mean acceptance is each model's own, the rest scatters around common centres with heavy tails."""
    shared = partial(("curve",), covariates=covariates, heavy=True)
    return {p.name: none() if p.name == "logit_acceptance" else shared for p in PARAMETERS}


def fit_verifier_pooled(
    attempts: Attempts,
    *,
    covariates: tuple[str, ...] = (),
    pooling: Mapping[str, Pool] | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> PooledVerifier:
    """Fit all models' verifiers in one posterior.

        u_m = centre + sum_v slope_v x_v(m) + tau z_m,    z_m ~ Student-t(4),    x_v = (log v - mean) / range

    for each pooled parameter u on its unconstrained axis.

    Raises
    ------
    InputError : fewer than two models, no verifier's counts, an unknown parameter or covariate.
    """
    enable_float64()
    require_float64()
    if len(attempts) < 2:
        raise InputError("POOL-MODELS", "pooling needs at least two models", fix="use fit_verifier")
    shares = default_pooling(covariates) | dict(pooling or {})
    unknown = set(shares) - {p.name for p in PARAMETERS}
    if unknown:
        known = ", ".join(p.name for p in PARAMETERS)
        raise InputError("POOL-PARAMETER", f"no parameter is called {min(unknown)!r}", fix=f"parameters: {known}")
    needed = tuple(sorted({name for pool in shares.values() for name in pool.covariates}))
    pooled = PooledModel(MODEL, shares, design_of_models(attempts, needed), len(attempts))
    laid_out = verifier_columns([patterns(attempts, i)[:2] for i in range(len(attempts))])
    columns = {name: column[None] for name, column in laid_out.items()}
    digest = hashlib.sha256("+".join(attempts.digest(i) for i in range(len(attempts))).encode()).hexdigest()
    identity = "|".join(f"{name}:{pool}" for name, pool in sorted(shares.items()))
    target = pooled_target(pooled, f"verifier pooled|{identity}")
    sampler = sampler or POOLED_SAMPLER
    posterior = sample_many(target, columns, [digest], sampler=sampler, seed=seed, progress=progress)
    draws = named_draws(naming_of(pooled), posterior, columns, read_by=(), sampler=sampler, seed=seed)[0]
    return split_models(attempts, draws)


def naming_of(pooled: PooledModel[VerifierModel]) -> Naming:
    """Name what is shared, and every model's own values as vectors over models."""

    def values(u: CoordArray, columns: Columns) -> dict[str, jax.Array]:
        theta, _ = per_curve(pooled, u, columns)
        return named_values(pooled, u) | theta | dict(jax.vmap(derived)(theta))

    def draw(key: jax.Array, columns: Columns) -> CoordArray:
        return pooled_prior_draw(pooled, key, columns)

    return Naming(values, draw)


def split_models(attempts: Attempts, draws: Draws) -> PooledVerifier:
    """Give each model its own draws; what concerns the whole posterior's convergence is said of each."""
    own = [name for name, values in draws.values.items() if values.ndim == 3]
    fits = []
    for i in range(len(attempts)):
        measured = {name: {key: m[i] for key, m in draws.diagnostics[name].items()} for name in own}
        part = Draws(
            _of_model(draws.values, own, i), _of_model(draws.prior, own, i), draws.stats, measured, draws.findings
        )
        fits.append(with_data_findings(VerifierFit(attempts.subset([i]), part)))
    rest = [name for name in draws.values if name not in own]
    values, prior = ({name: table[name] for name in rest} for table in (draws.values, draws.prior))
    measured = {name: draws.diagnostics[name] for name in rest}
    return PooledVerifier(tuple(fits), Draws(values, prior, draws.stats, measured, draws.findings, draws.provenance))


def _of_model(table: Mapping[str, NDArray[np.float64]], names: list[str], i: int) -> dict[str, NDArray[np.float64]]:
    return {name: table[name][..., i] for name in names}
