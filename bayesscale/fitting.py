"""Fitting: `fit` for one curve (or one joint set), `fit_many` for as many as there are.

Both take `Curves` and return `Fit` values. Every law goes through the same machinery; one program is compiled per law and
shape, and the data are its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import taken, typed
from bayesscale.curves import Curves
from bayesscale.draws import Naming, in_blocks, named_draws
from bayesscale.finding import Finding, InputError
from bayesscale.gate import check_drop, check_model, check_replicates
from bayesscale.inference.ahead import rehearse
from bayesscale.inference.coordinates import shared_out
from bayesscale.inference.many import Posterior, rehearse_decks, sample_many, unit_key
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.law import Law
from bayesscale.laws import DEFAULT_LAW, LAWS
from bayesscale.likelihood import LIKELIHOODS, Likelihood, default_likelihood, with_discrepancy, without_discrepancy
from bayesscale.model import (
    Model,
    compose,
    derived_quantities,
    left_out_log_likelihood,
    prior_draw,
    replicate_scatter,
    theta_of,
)
from bayesscale.precision import enable_float64, require_float64
from bayesscale.programs import Program
from bayesscale.result import Fit, likelihood_of
from bayesscale.units import Units, units_of

REPLICATES = 400
BLOCK = 64
"""Units whose draws are worked up together; bounds memory."""


@dataclass(frozen=True)
class Skipped:
    """A unit a law could not be fitted to, and why; it takes the place of a `Fit`."""

    name: str
    law: Law
    finding: Finding
    status: str = "skipped"


def law_named(law: str | Law) -> Law:
    """Look a law up by name.

    Raises
    ------
    InputError : no such law; names the nearest.
    """
    if isinstance(law, Law):
        return law
    if law not in LAWS:
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(law, LAWS)) or ", ".join(LAWS)
        raise InputError(
            "LAW-UNKNOWN", f"there is no law {law!r}", fix=f"did you mean {near}? (`bayesscale laws` lists them)"
        )
    return LAWS[law]


def likelihood_for(curves: Curves, likelihood: str | Likelihood | None, *, discrepancy: bool) -> Likelihood:
    """Choose the likelihood: as named, or the default for this kind of observation; with a discrepancy unless refused."""
    if likelihood is None:
        likelihood = default_likelihood(curves.kind, replicated=bool(curves.run.max(initial=0) > 0))
    if isinstance(likelihood, str):
        if likelihood not in LIKELIHOODS:
            raise InputError(
                "LIKELIHOOD-UNKNOWN", f"there is no likelihood {likelihood!r}", fix="one of " + ", ".join(LIKELIHOODS)
            )
        likelihood = LIKELIHOODS[likelihood]
    if discrepancy and likelihood.discrepancy is None:
        likelihood = with_discrepancy(likelihood)
    return likelihood_of(likelihood if discrepancy else without_discrepancy(likelihood))


def sampler_for(likelihood: Likelihood) -> Sampler:
    """The sampler's settings where none are given."""
    return Sampler.default(departs=likelihood.discrepancy is not None)


def fit(curves: Curves, law: str | Law = DEFAULT_LAW, **options: Any) -> Fit:
    """Fit one curve, or for a joint law the curves of one model. Options are those of `fit_many`.

    Raises
    ------
    InputError : there is more than one unit to fit, or the law cannot be fitted to it.
    """
    fits = fit_many(curves, law, **options)
    if len(fits) != 1:
        raise InputError(
            "FIT-ONE", f"fit takes one unit and there are {len(fits)}", fix="use fit_many, or curves.subset([i])"
        )
    if isinstance(fits[0], Skipped):
        raise InputError(fits[0].finding.code, fits[0].finding.message, where=fits[0].name, fix=fits[0].finding.advice)
    return fits[0]


def fit_many(
    curves: Curves,
    law: str | Law = DEFAULT_LAW,
    *,
    likelihood: str | Likelihood | None = None,
    discrepancy: bool = True,
    task_key: str | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Fit | Skipped]:
    """Fit every curve independently under one law (for a joint law, every set of task curves).

    Parameters
    ----------
    likelihood : a name or value; default by kind of observation.
    discrepancy : whether the curve may leave the law smoothly (Brownian in log(1+n), integrated out). Without it, intervals
        of forecasts are too narrow.
    task_key : which key tells tasks apart, for joint laws.
    sampler : its settings; by default `Sampler.default`.
    progress : called with (finished, total).
    """
    law = law_named(law)
    enable_float64()
    require_float64()
    chosen = likelihood_for(curves, likelihood, discrepancy=discrepancy)
    units = units_of(curves, chosen, joint=law.joint, task_key=task_key)
    return fit_units(units, law, chosen, sampler=sampler, seed=seed, progress=progress)


def fit_units(
    units: Units,
    law: Law,
    likelihood: Likelihood,
    *,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Fit | Skipped]:
    """Fit laid-out units; those the law cannot take come back as `Skipped`, in place."""
    sampler = sampler or sampler_for(likelihood)
    reasons = [unfit_reason(units, i, law) for i in range(len(units))]
    results: list[Fit | Skipped | None] = [
        None if r is None else Skipped(units.names[i], law, r) for i, r in enumerate(reasons)
    ]
    todo = [i for i, reason in enumerate(reasons) if reason is None]
    for tasks in sorted({len(units.members[i]) for i in todo}):
        same = [i for i in todo if len(units.members[i]) == tasks]
        model = compose(law, likelihood, tasks)
        subset = units.take(same)
        rehearse_decks(shared_out(model, subset.columns), typed(subset.columns), sampler)  # what is needed first
        compiled = rehearse_work_up(model, subset.take([0]), sampler)
        posterior = sample_many(model, subset.columns, subset.digests, sampler=sampler, seed=seed, progress=progress)
        compiled()
        for begin in range(0, len(same), BLOCK):
            place = slice(begin, begin + BLOCK)
            block = work_up(model, subset.take(np.arange(len(same))[place]), cut(posterior, place), sampler, seed)
            for i, result in zip(same[place], block, strict=True):
                results[i] = result
    return [result for result in results if result is not None]


def unfit_reason(units: Units, i: int, law: Law) -> Finding | None:
    """Say why a law cannot be fitted to a unit, or nothing."""
    seen = units.columns["mask"][i] > 0
    if not seen.any():
        return Finding("NO-ROWS", "fail", "no row is left to train on", "train on more of the axis", units.names[i])
    if law.singular_at_zero and (units.columns["shots"][i][seen] <= 0).any():
        return Finding(
            "ZERO-SHOTS",
            "fail",
            f"law {law.name} is infinite at 0 shots",
            "pass a shot offset of 1, or leave the law out",
            units.names[i],
        )
    return None


def cut(posterior: Posterior, place: slice) -> Posterior:
    return Posterior(*(array[place] for array in posterior))


@lru_cache(maxsize=128)
def naming_of(model: Model) -> Naming:
    """Name a model's flat vectors: parameters, then what the law derives from them."""

    def values(u: jax.Array, columns: dict[str, jax.Array]) -> dict[str, jax.Array]:
        theta, _ = theta_of(model, u, columns)
        return theta | dict(derived_quantities(model, theta))

    return Naming(values, partial(prior_draw, model))


@lru_cache(maxsize=128)
def row_map(model: Model) -> Callable[..., Any]:
    """Compile the log likelihood of each row given the others, for theta (unit, chain, draw, ...)."""
    over_draws = jax.vmap(partial(left_out_log_likelihood, model), in_axes=(0, None))
    return Program(jax.vmap(jax.vmap(over_draws, in_axes=(0, None))))


def work_up(model: Model, units: Units, posterior: Posterior, sampler: Sampler, seed: int) -> list[Fit | Skipped]:
    """Turn a block of raw draws into `Fit` values: named values, diagnostics, log likelihoods, findings."""
    columns = typed(units.columns)
    named = named_draws(naming_of(model), posterior, columns, read_by=read_by(model.law), sampler=sampler, seed=seed)
    theta = {p.name: np.stack([draws.values[p.name] for draws in named]) for p in model.parameters}
    rows = in_blocks(row_map(model), theta, columns)
    again = replicates(model, theta, columns, units.digests, seed)
    fits: list[Fit | Skipped] = []
    for i, draws in enumerate(named):
        unit = units.take([i])
        unit_columns = taken(units.columns, i)
        findings = check_model(model, unit_columns) + draws.findings + check_drop(unit_columns, model.likelihood.kind)
        if not np.isfinite(rows[i][..., unit_columns["mask"] > 0]).all():
            findings += (Finding("NOT-FINITE", "fail", "a draw gives the data no probability", "look at the rows"),)
        else:
            findings += check_replicates(unit_columns, model.likelihood.kind, again[i])
        fits.append(
            Fit(
                model=model,
                unit=unit,
                draws=draws.values,
                prior=draws.prior,
                stats=draws.stats,
                diagnostics=draws.diagnostics,
                log_likelihood=rows[i],
                findings=findings,
                provenance=draws.provenance,
            )
        )
    return fits


def rehearse_work_up(model: Model, unit: Units, sampler: Sampler) -> Callable[[], object]:
    """Compile what draws are worked up with, while they are taken."""
    size = (1, sampler.chains, sampler.draws)

    def step() -> None:
        rng = np.random.default_rng(0)
        u, stat, unit_fact = rng.normal(size=(*size, model.layout.dimension)), rng.normal(size=size), np.ones(1, int)
        stats = (stat, stat, stat, stat, stat, stat)
        work_up(model, unit, Posterior(u, *stats, unit_fact > 0, unit_fact, 0 * unit_fact), sampler, 0)

    return rehearse((model, unit.columns["mask"].shape, size, sampler.keep), step)


@lru_cache(maxsize=128)
def replicate_map(model: Model) -> Callable[..., Any]:
    """Compile what replicated observations are drawn with, for theta (unit, draw, ...)."""
    over_draws = jax.vmap(partial(replicate_scatter, model), in_axes=(0, None))
    return Program(jax.vmap(over_draws))


def replicates(
    model: Model, theta: Mapping[str, NDArray], columns: Mapping[str, NDArray], digests: Sequence[str], seed: int
) -> NDArray:
    """Draw (unit, draw, row) replicated observations, keyed by each unit's own data."""
    joined = {name: v.reshape(v.shape[0], -1, *v.shape[3:]) for name, v in theta.items()}
    available = next(iter(joined.values())).shape[1]
    chosen = np.linspace(0, available - 1, min(REPLICATES, available)).astype(int)
    scatter = in_blocks(replicate_map(model), {name: v[:, chosen] for name, v in joined.items()}, dict(columns))
    drawn = []
    for i, digest in enumerate(digests):
        rng, facts = np.random.default_rng(unit_key(digest, seed + 2)), taken(columns, i)
        drawn.append(model.likelihood.draw(rng, facts, *(part[i] for part in scatter)))
    return np.stack(drawn)


PAPER = ("rho", "K", "gamma", "beta")
"""Quantities a Bayesian law is read by; a finding says when the data do not determine one."""


def read_by(law: Law) -> tuple[str, ...]:
    """Names of the values a law is read by."""
    return PAPER if law.family == "bayesian" else tuple(law.derived_meaning)
