"""Fitting success-rate laws: `fit_rates`, one posterior per model.

Every law goes through the same sampler; one program is compiled per law and shape, and the counts are its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.attempts import Attempts
from bayesscale.draws import Draws, Naming, named_draws, provenance
from bayesscale.finding import Finding, InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.precision import enable_float64, require_float64
from bayesscale.rates import DEFAULT_RATE_LAW, RATE_LAWS, RateLaw
from bayesscale.resampling.model import RateModel, columns_of, rate_model, rate_target

if TYPE_CHECKING:
    import pandas as pd

FEW_SUCCESSES = 5
"""Successes below which the tail of the population is what the prior says it is."""
ZERO_MASS_SAMPLES = 1000
"""Samples per problem below which a mass of impossible problems cannot be told from a heavy tail."""


@dataclass(frozen=True, eq=False)
class RateFit:
    """The posterior of one model's success rates.

    Attributes
    ----------
    law : the population's law.
    attempts : the counts, of one model.
    draws : parameters and derived quantities by name, with diagnostics and findings.
    """

    law: RateLaw
    attempts: Attempts
    draws: Draws

    @property
    def name(self) -> str:
        return self.attempts.model_name(0)

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.draws.findings

    @property
    def status(self) -> str:
        """ "ok", "warn" or "fail": the worst finding about the fit."""
        return self.draws.status

    @property
    def size(self) -> int:
        """Number of posterior draws kept."""
        return int(np.prod(next(iter(self.draws.values.values())).shape[:2]))

    def log_moments(self, c: NDArray, f: NDArray, *, every: int = 1) -> NDArray:
        """log E[p^c (1-p)^f] under each draw, (draw, *cells), for integer arrays of one shape."""
        c, f = np.broadcast_arrays(c, f)
        theta = {p.name: self.draws.flat(p.name)[::every] for p in self.law.parameters}
        flat = moments(self.law, theta, c.ravel(), f.ravel(), draws=len(range(0, self.size, every)))
        return flat.reshape(len(flat), *c.shape)

    def summary(self) -> pd.DataFrame:
        """One row per quantity: mean, sd, equal-tailed quantiles, diagnostics, contraction, findings."""
        return self.draws.summary(model=self.name, law=self.law.name)

    def save(self, path: str | Path) -> Path:
        """Write the fit to one netCDF file, whole or not at all; `bayesscale.resampling.stored.load_rates` reads it."""
        from bayesscale.resampling.stored import save_rates

        return save_rates(self, path)


BLOCK = 256
"""Cells are evaluated in blocks of this many, so that few shapes are compiled."""


@lru_cache(maxsize=64)
def moment_map(law: RateLaw) -> Any:
    """Compile log moments over draws."""
    return jax.jit(jax.vmap(lambda theta, columns: law.log_moment(columns, theta), in_axes=(0, None)))


def moments(law: RateLaw, theta: Mapping[str, NDArray], c: NDArray, f: NDArray, *, draws: int) -> NDArray:
    """log E[p^c (1-p)^f] at (cell,) counts for parameter draws (draw,); (draw, cell)."""
    enable_float64()
    parts = []
    for begin in range(0, len(c), BLOCK):
        index = np.minimum(np.arange(begin, begin + BLOCK), len(c) - 1)
        cells = {name: np.asarray(x, float) for name, x in law.cells(c[index], f[index]).items()}
        found = np.asarray(moment_map(law)(dict(theta), cells) if theta else law.log_moment(cells, {})[None])
        parts.append(np.broadcast_to(found, (draws, BLOCK))[:, : min(BLOCK, len(c) - begin)])
    return np.concatenate(parts, axis=1)


def rate_law_named(law: str | RateLaw) -> RateLaw:
    """Look a rate law up by name.

    Raises
    ------
    InputError : no such law; names the nearest.
    """
    if isinstance(law, RateLaw):
        return law
    if law not in RATE_LAWS:
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(law, RATE_LAWS)) or ", ".join(RATE_LAWS)
        raise InputError("LAW-UNKNOWN", f"there is no rate law {law!r}", fix=f"did you mean {near}?")
    return RATE_LAWS[law]


def fit_rates(
    attempts: Attempts,
    law: str | RateLaw = DEFAULT_RATE_LAW,
    *,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[RateFit]:
    """Fit every model's success rates under one law, each model on its own.

        c_i | p_i ~ p_i^c_i (1 - p_i)^(n_i - c_i),    p_i ~ law(theta),    theta ~ prior

    The p_i are integrated out. Valid under every stopping design. `progress` is called with (finished, total).

    Raises
    ------
    InputError : no such law.
    """
    law = rate_law_named(law)
    enable_float64()
    require_float64()
    sampler = sampler or Sampler()
    if not law.parameters:
        return [fixed_fit(law, attempts.subset([i]), sampler, seed) for i in range(len(attempts))]
    model, columns = rate_model(law), columns_of(law, attempts)
    digests = [attempts.digest(i) for i in range(len(attempts))]
    posterior = sample_many(rate_target(model), columns, digests, sampler=sampler, seed=seed, progress=progress)

    draws = named_draws(
        naming_of(model), posterior, columns, read_by=tuple(law.derived_meaning), sampler=sampler, seed=seed
    )
    return [with_data_findings(RateFit(law, attempts.subset([i]), d)) for i, d in enumerate(draws)]


@lru_cache(maxsize=64)
def naming_of(model: RateModel) -> Naming:
    """Name a rate model's flat vectors: parameters, then what the law derives from them."""

    def values(u: jax.Array, facts: dict[str, jax.Array]) -> dict[str, jax.Array]:
        theta, _ = model.layout.values(u, {})
        return theta | dict(model.law.derived(**theta))

    return Naming(values, lambda key, facts: model.layout.prior_draw(key, {}))


def fixed_fit(law: RateLaw, attempts: Attempts, sampler: Sampler, seed: int) -> RateFit:
    """Wrap a law that has nothing to fit: one value per chain and kept draw, so that it forecasts like the others."""
    shape = (sampler.chains, sampler.keep)
    values = {name: np.broadcast_to(np.asarray(v, float), shape).copy() for name, v in law.derived().items()}
    nothing = {name: {key: np.array(np.nan) for key in ("r_hat", "ess_bulk", "ess_tail")} for name in values}
    prior = {name: v.ravel() for name, v in values.items()}
    return RateFit(law, attempts, Draws(values, prior, {}, nothing, (), provenance(sampler, seed)))


def with_data_findings(fit: RateFit) -> RateFit:
    """Add what the counts can and cannot say."""
    n, c = fit.attempts.n, fit.attempts.n_correct
    findings = []
    if c.sum() < FEW_SUCCESSES:
        message = f"only {c.sum()} successes were seen: the tail, and any extrapolation, is what the prior says"
        findings.append(Finding("FEW-SUCCESSES", "warn", message, "draw more samples", fit.name))
    zero = fit.draws.values.get("zero_mass")
    if zero is not None and (zero > 0).any() and n.max() < ZERO_MASS_SAMPLES:
        message = f"with at most {n.max()} samples per problem, impossible problems look like a heavy tail"
        findings.append(
            Finding("ZERO-MASS", "info", message, "read zero_mass and tail_index together as one doubt", "zero_mass")
        )
    return RateFit(fit.law, fit.attempts, fit.draws.with_findings(findings))
