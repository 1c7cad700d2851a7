"""Draws: one posterior by name, with what the checks found.

Sampling ends with flat vectors; people and plots want named values. `named_draws` maps the one to the other for every unit of
a batch, measures convergence on all draws, and keeps a thinned set.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from bayesscale.finding import Finding
from bayesscale.gate import check_fit
from bayesscale.inference import diagnostics
from bayesscale.inference.many import Posterior
from bayesscale.inference.settings import Sampler
from bayesscale.programs import Program

if TYPE_CHECKING:
    import pandas as pd

PRIOR_DRAWS = 1000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

type Values = Callable[[jax.Array, dict[str, jax.Array]], Mapping[str, jax.Array]]
"""Named values of a flat vector, given the unit's columns."""
type PriorDraw = Callable[[jax.Array, dict[str, jax.Array]], jax.Array]
"""A flat vector drawn from the prior, given a key and the unit's columns."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Named draws of one posterior.

    Attributes
    ----------
    values : (chain, draw, ...) by name.
    prior : the same names drawn from the prior, (draw, ...).
    stats : sampler statistics by name, (chain, draw).
    diagnostics : per name, ``r_hat``, ``ess_bulk`` and ``ess_tail`` of the value's shape, from all draws taken.
    findings : what the gate found.
    provenance : how it was made; JSON-like.
    """

    values: Mapping[str, NDArray]
    prior: Mapping[str, NDArray]
    stats: Mapping[str, NDArray]
    diagnostics: Mapping[str, Mapping[str, NDArray]]
    findings: tuple[Finding, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """ "ok", "warn" or "fail": the worst finding."""
        return status_of(self.findings)

    def flat(self, name: str) -> NDArray:
        """Draws of one value with chains joined, (draw, ...)."""
        return flatten(self.values[name])

    def theta(self, names: Sequence[str]) -> dict[str, NDArray]:
        """Several values with chains joined."""
        return {name: self.flat(name) for name in names}

    def with_findings(self, findings: Sequence[Finding]) -> Draws:
        return replace(self, findings=(*self.findings, *findings))

    def summary(self, **head: Any) -> pd.DataFrame:
        """One row per scalar: mean, sd, equal-tailed quantiles, R-hat, effective sample sizes, contraction, findings.

        The 5% and 95% quantiles bound the 90% equal-tailed interval, the 25% and 75% quantiles the 50% one. Contraction is
        1 - var of the posterior in units of the prior's normal scores: 0 learned nothing, 1 learned everything.
        """
        return summary_table(self.values, self.prior, self.diagnostics, self.findings, **head)


def summary_table(
    values: Mapping[str, NDArray],
    prior: Mapping[str, NDArray],
    diagnostics: Mapping[str, Mapping[str, NDArray]],
    findings: Sequence[Finding],
    **head: Any,
) -> pd.DataFrame:
    """Tabulate named draws, one row per scalar; `head` fills the leading columns."""
    import pandas as pd

    rows = []
    for name, draws in values.items():
        for index in np.ndindex(draws.shape[2:]):
            scalar = draws[(slice(None), slice(None), *index)].ravel()
            label = name if not index else f"{name}[{','.join(map(str, index))}]"
            settled = bool((scalar == scalar[0]).all())  # a constant may be infinite: a tail that no power describes
            quantiles = np.full(len(QUANTILES), scalar[0]) if settled else np.quantile(scalar, QUANTILES)
            row: dict[str, Any] = head | {"parameter": label}
            row |= {"mean": scalar[0] if settled else scalar.mean(), "sd": 0.0 if settled else scalar.std(ddof=1)}
            row |= {f"q{round(100 * q):02d}": value for q, value in zip(QUANTILES, quantiles, strict=True)}
            row |= {key: float(measured[index]) for key, measured in diagnostics[name].items()}
            row["contraction"] = contraction(scalar, prior[name][(slice(None), *index)])
            row["findings"] = " ".join(sorted(f.code for f in findings if f.where == label))
            rows.append(row)
    return pd.DataFrame(rows)


def status_of(findings: Sequence[Finding]) -> str:
    """ "ok", "warn" or "fail": the worst grade."""
    grades = {finding.grade for finding in findings}
    return "fail" if "fail" in grades else "warn" if "warn" in grades else "ok"


class Naming(NamedTuple):
    """How a posterior's flat vectors are named: values of u, and draws of u from the prior. Compiled once per pair."""

    values: Values
    prior_draw: PriorDraw


@lru_cache(maxsize=128)
def naming_maps(naming: Naming) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Compile, for (unit, ...) batches: u to values, and values drawn from the prior."""
    over_draws = jax.vmap(naming.values, in_axes=(0, None))
    prior = lambda key, columns: naming.values(naming.prior_draw(key, columns), columns)  # noqa: E731
    over_keys = jax.vmap(prior, in_axes=(0, None))
    return (
        Program(jax.vmap(jax.vmap(over_draws, in_axes=(0, None)))),
        Program(jax.vmap(over_keys, in_axes=(None, 0))),
    )


BLOCK = 16
"""Units whose draws go through a compiled map together."""


def in_blocks(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply a compiled map over the leading axis of all arrays, `BLOCK` at a time, the last block filled up by repeating.

    One program is compiled, and what a unit gets does not depend on how many others there are.
    """
    count, parts = len(jax.tree.leaves(trees)[0]), []
    for begin in range(0, count, BLOCK):
        index = np.minimum(np.arange(begin, begin + BLOCK), count - 1)
        found = function(*jax.tree.map(lambda a: a[index], trees))  # noqa: B023
        parts.append(jax.tree.map(lambda a: np.asarray(a)[: count - begin], found))  # noqa: B023
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def named_draws(
    naming: Naming,
    posterior: Posterior,
    columns: Mapping[str, NDArray],
    *,
    read_by: Sequence[str],
    sampler: Sampler,
    seed: int,
) -> list[Draws]:
    """Turn a batch of raw draws into `Draws`, one per unit.

    `read_by` names the values whose prior-to-posterior contraction is judged: what the law is read by.
    """
    to_values, to_prior = naming_maps(naming)
    all_values = in_blocks(to_values, posterior.u, dict(columns))
    keys = jax.random.split(jax.random.key(seed + 1), PRIOR_DRAWS)
    prior = in_blocks(partial(to_prior, keys), dict(columns))
    measured = {name: measure(v) for name, v in all_values.items()}
    every = max(1, posterior.u.shape[2] // sampler.keep)
    return [
        unit_draws(
            {name: v[i] for name, v in all_values.items()},
            {name: v[i] for name, v in prior.items()},
            {name: {key: m[i] for key, m in entry.items()} for name, entry in measured.items()},
            posterior,
            i,
            read_by=read_by,
            every=every,
            about=provenance(sampler, seed) | {"tier": int(posterior.tier[i])},
        )
        for i in range(len(posterior.u))
    ]


def unit_draws(
    values: Mapping[str, NDArray],
    prior: Mapping[str, NDArray],
    measured: Mapping[str, Mapping[str, NDArray]],
    posterior: Posterior,
    i: int,
    *,
    read_by: Sequence[str],
    every: int,
    about: Mapping[str, Any],
) -> Draws:
    """Judge one unit and keep every so many of its draws."""
    stats = stats_of(posterior, i)
    finite = all(np.isfinite(v).all() for name, v in values.items() if not np.isinf(v).all())
    kept = {name: v[:, ::every] for name, v in values.items()}
    findings = check_fit(
        stats,
        {name: {key: worst(key, m) for key, m in entry.items()} for name, entry in measured.items()},
        learned(kept, prior, read_by) if finite else {},
        finished=bool(posterior.finished[i]),
        modes=int(posterior.distinct_modes[i]),
        finite=finite,
    )
    return Draws(kept, prior, stats, measured, findings, about)


def stats_of(posterior: Posterior, i: int) -> dict[str, NDArray]:
    """Sampler statistics of one unit, by the names ArviZ gives them."""
    return {
        "diverging": posterior.diverging[i] > 0,
        "energy": posterior.energy[i],
        "n_steps": posterior.leapfrogs[i],
        "acceptance_rate": posterior.accept[i],
        "reached_max_treedepth": posterior.saturated[i] > 0,
        "lp": posterior.log_density[i],
    }


def measure(values: NDArray) -> dict[str, NDArray]:
    """Convergence diagnostics of (unit, chain, draw, ...) values, each (unit, ...)."""
    draws = np.moveaxis(values, (1, 2), (-2, -1))
    with np.errstate(invalid="ignore"):
        constant = ~(np.ptp(draws, axis=(-2, -1)) > 0) & (draws[..., :1, :1] == draws).all(axis=(-2, -1))
    # constants, infinite ones among them, have no diagnostics
    varying = np.where(constant[..., None, None], 0.0, draws)
    found = dict(zip(("r_hat", "ess_bulk", "ess_tail"), diagnostics.measure(varying), strict=True))
    return {name: np.where(constant, np.nan, value) for name, value in found.items()}


def worst(key: str, values: NDArray) -> float:
    """The worst of a diagnostic over a value's elements; NaN where all are constant."""
    if np.isnan(values).all():
        return float("nan")
    return float(np.nanmax(values) if key == "r_hat" else np.nanmin(values))


def learned(values: Mapping[str, NDArray], prior: Mapping[str, NDArray], names: Sequence[str]) -> dict[str, float]:
    """Prior-to-posterior contraction per scalar of the named values."""
    out = {}
    for name in (n for n in names if n in values):
        for index in np.ndindex(values[name].shape[2:]):
            label = name if not index else f"{name}[{','.join(map(str, index))}]"
            before = prior[name][(slice(None), *index)]
            if not (before == before[0]).all():  # a constant has nothing to learn
                out[label] = contraction(flatten(values[name])[(slice(None), *index)], before)
    return out


def flatten(values: NDArray) -> NDArray:
    """Join the chain and draw axes."""
    return values.reshape(-1, *values.shape[2:])


def contraction(posterior: NDArray, prior: NDArray) -> float:
    """1 - variance of the posterior draws' normal scores under the prior; the same for every monotone scale."""
    from scipy.special import ndtri

    prior = np.sort(prior[np.isfinite(prior)])
    if not len(prior) or np.ptp(prior) == 0 or not np.isfinite(posterior).all():
        return float("nan")
    # Midpoints of ties, then linear between prior draws, so that resolution does not end at the prior's sample size.
    level = np.interp(posterior, prior, (np.arange(len(prior)) + 0.5) / len(prior))
    return float(1.0 - np.var(ndtri(level)))


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    found = {"python": platform.python_version()}
    for package in ("bayesscale", "jax", "jaxlib", "numpyro", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def provenance(sampler: Sampler, seed: int) -> dict[str, Any]:
    """How a fit was made."""
    device = jax.devices()[0]
    return {
        "versions": versions(),
        "seed": seed,
        "sampler": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(sampler).items()},
        "device": f"{device.platform}:{device.device_kind}",
        "float64": bool(jax.config.jax_enable_x64),
    }
