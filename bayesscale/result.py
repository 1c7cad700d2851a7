"""Fit: what came out of fitting one unit, with everything needed to use it later.

A `Fit` is a value. It holds the draws by name, the data it saw, and what the gate found; it predicts without the table it
came from. A fit that failed its gate is still a `Fit`: its `status` and `findings` say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import taken
from bayesscale.draws import flatten, status_of, summary_table
from bayesscale.finding import Finding, InputError
from bayesscale.law import Law
from bayesscale.laws import LAWS
from bayesscale.likelihood import LIKELIHOODS, Likelihood, with_discrepancy
from bayesscale.model import Model, compose
from bayesscale.netcdf import write_groups
from bayesscale.prediction import Kind, Prediction, predict
from bayesscale.units import Units

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Fit:
    """The posterior of one unit under one model.

    Attributes
    ----------
    model : law and likelihood.
    unit : the data, a `Units` of length one.
    draws : values by name, (chain, draw, ...): parameters, then the law's derived quantities.
    prior : the same names drawn from the prior, (draw, ...).
    stats : sampler statistics by name, (chain, draw).
    diagnostics : per name, arrays ``r_hat``, ``ess_bulk``, ``ess_tail`` of the value's shape, from all draws taken.
    log_likelihood : (chain, draw, obs), log p(y_i | theta, y_-i) of each row.
    findings : what the checks before and after sampling found.
    provenance : how it was made; JSON-like.
    """

    model: Model
    unit: Units
    draws: Mapping[str, NDArray]
    prior: Mapping[str, NDArray]
    stats: Mapping[str, NDArray]
    diagnostics: Mapping[str, Mapping[str, NDArray]]
    log_likelihood: NDArray
    findings: tuple[Finding, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The curve's name, or for a joint law what its curves share."""
        return self.unit.names[0]

    @property
    def law(self) -> Law:
        return self.model.law

    @property
    def status(self) -> str:
        """ "ok", "warn" or "fail": the worst finding about the fit."""
        return status_of(self.findings)

    @property
    def largest_shots(self) -> float:
        """Shots beyond which a prediction extrapolates."""
        columns = self.unit.columns
        return float(columns["shots"][0][columns["mask"][0] > 0].max())

    def theta(self) -> dict[str, NDArray]:
        """Parameter values with chains and draws in one leading axis."""
        names = [parameter.name for parameter in self.model.parameters]
        return {name: flatten(self.draws[name]) for name in names}

    def predict(
        self, at: Sequence[float] | NDArray, kind: Kind = "mean", *, task: int = 0, seed: int = 0
    ) -> Prediction:
        """Predict at these shot counts; see `bayesscale.prediction.predict`."""
        return predict(self.model, self.theta(), self.unit, at, kind, task=task, seed=seed)

    def summary(self) -> pd.DataFrame:
        """One row per scalar: mean, sd, equal-tailed quantiles, R-hat, effective sample sizes, contraction, findings.

        The 5% and 95% quantiles bound the 90% equal-tailed interval, the 25% and 75% quantiles the 50% one. Contraction is
        1 - var of the posterior in units of the prior's normal scores: 0 learned nothing, 1 learned everything.
        """
        head = {"curve": self.name, "law": self.law.name}
        return summary_table(self.draws, self.prior, self.diagnostics, self.findings, **head)

    @cached_property
    def tree(self) -> xr.DataTree:
        """The fit as an ArviZ DataTree: posterior, prior, sample_stats, log_likelihood, observed_data, constant_data."""
        import xarray as xr

        groups = self.groups()
        datasets = {
            name: xr.Dataset(
                variables,  # pyright: ignore[reportArgumentType]
                coords={
                    dim: np.arange(n) for dims, v in variables.values() for dim, n in zip(dims, v.shape, strict=True)
                },
            )
            for name, variables in groups.items()
        }
        tree = xr.DataTree.from_dict(datasets)
        tree.attrs["bayesscale"] = json.dumps(self.description())
        return tree

    def groups(self) -> dict[str, dict[str, tuple[tuple[str, ...], NDArray]]]:
        """Dimension names and values of every variable, by ArviZ group."""
        columns = taken(self.unit.columns, 0)
        rows = columns["mask"].shape[0]
        row_columns = {name: column for name, column in columns.items() if np.shape(column) == (rows,)}
        seen = columns["mask"] > 0
        return {
            "posterior": {name: (sample_dims(name, v), v) for name, v in self.draws.items()},
            "prior": {name: (sample_dims(name, v[None]), v[None]) for name, v in self.prior.items()},
            "sample_stats": {name: (sample_dims(name, v), v) for name, v in self.stats.items()},
            "log_likelihood": {"value": (("chain", "draw", "obs"), self.log_likelihood[..., seen])},
            "observed_data": {"value": (("obs",), row_columns["value"][seen])},
            "constant_data": {name: (("row",), column) for name, column in row_columns.items() if name != "value"}
            | {"curve": (("row",), self.unit.curves[0])},
        }

    def description(self) -> dict[str, Any]:
        """What the arrays do not hold, JSON-like."""
        columns = taken(self.unit.columns, 0)
        discrepancy = self.model.likelihood.discrepancy
        return {
            "format": FORMAT,
            "law": self.law.name,
            "likelihood": self.model.likelihood.name,
            "discrepancy_scale": None if discrepancy is None else float(np.asarray(discrepancy.prior.scale)),  # pyright: ignore
            "tasks": self.model.tasks,
            "name": self.name,
            "digest": self.unit.digests[0],
            "members": list(self.unit.members[0]),
            "value": columns["value"].tolist(),
            "facts": {name: none_if_nan(value) for name, value in columns.items() if np.ndim(value) == 0},
            "diagnostics": {
                name: {key: np.asarray(value).tolist() for key, value in entry.items()}
                for name, entry in self.diagnostics.items()
            },
            "findings": [finding.as_dict() for finding in self.findings],
            "provenance": dict(self.provenance),
        }

    def save(self, path: str | Path) -> Path:
        """Write the fit to one netCDF file, whole or not at all."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.partial")
        write_groups(temporary, self.groups(), {"bayesscale": json.dumps(self.description())})
        temporary.replace(path)
        return path


def sample_dims(name: str, values: NDArray) -> tuple[str, ...]:
    """Names of the axes of draws: chain, draw, then the value's own."""
    return ("chain", "draw", *(f"{name}_dim_{axis}" for axis in range(values.ndim - 2)))


def none_if_nan(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def load(path: str | Path, *, law: Law | None = None, likelihood: Likelihood | None = None) -> Fit:
    """Read a fit written by `Fit.save`; a law or likelihood that is not in the table has to be passed.

    Raises
    ------
    InputError : the file is missing, not one of ours, or needs a law or likelihood that is not in the table.
    """
    import xarray as xr

    path = Path(path)
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            return stored_fit(opened.load(), law, likelihood, str(path))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError("FIT-MISSING", "there is no such file", where=str(path), fix="check the path") from None
    except Exception as error:  # a damaged file surfaces as nearly any error of the layers that read it
        raise InputError(
            "FIT-UNREADABLE", f"this is no saved fit ({error})", where=str(path), fix="fit again"
        ) from None


def stored_fit(tree: xr.DataTree, law: Law | None, likelihood: Likelihood | None, where: str) -> Fit:
    """Rebuild a fit from its DataTree."""
    about = json.loads(tree.attrs["bayesscale"])
    if law is None and about["law"] not in LAWS:
        raise InputError("FIT-LAW", f"law {about['law']!r} is not in the table", where=where, fix="pass law=...")
    if likelihood is None and about["likelihood"] not in LIKELIHOODS:
        what = f"likelihood {about['likelihood']!r} is not in the table"
        raise InputError("FIT-LIKELIHOOD", what, where=where, fix="pass likelihood=...")
    likelihood = likelihood or LIKELIHOODS[about["likelihood"]]
    if about["discrepancy_scale"] is not None:
        likelihood = with_discrepancy(likelihood, about["discrepancy_scale"])
    constant = {name: array.values for name, array in tree["constant_data"].dataset.data_vars.items()}
    curves = constant.pop("curve").astype(np.int64)
    facts = {name: np.nan if value is None else value for name, value in about["facts"].items()}
    columns = {str(name): column[None] for name, column in constant.items()} | {"value": np.array([about["value"]])}
    columns |= {name: np.array([value]) for name, value in facts.items()}
    unit = Units((about["name"],), (about["digest"],), columns, curves[None], (tuple(about["members"]),))

    def group(name: str) -> dict[str, NDArray]:
        return {str(key): array.values for key, array in tree[name].dataset.data_vars.items()}

    seen, rows = columns["mask"][0] > 0, columns["mask"].shape[1]
    log_likelihood = group("log_likelihood")["value"]
    padded = np.zeros((*log_likelihood.shape[:2], rows))
    padded[..., seen] = log_likelihood
    return Fit(
        model=compose(law or LAWS[about["law"]], likelihood_of(likelihood), about["tasks"]),
        unit=unit,
        draws=group("posterior"),
        prior={name: values[0] for name, values in group("prior").items()},
        stats=group("sample_stats"),
        diagnostics={n: {k: np.asarray(v) for k, v in entry.items()} for n, entry in about["diagnostics"].items()},
        log_likelihood=padded,
        findings=tuple(Finding(**finding) for finding in about["findings"]),
        provenance=about["provenance"],
    )


_LIKELIHOODS: dict[tuple[Any, ...], Any] = {}


def likelihood_of(likelihood: Any) -> Any:
    """Return one object per likelihood and discrepancy scale, so that compiled programs are shared between loads.

    A likelihood of one's own may carry the name of another: its priors and functions tell it apart.
    """
    scale = None if likelihood.discrepancy is None else float(np.asarray(likelihood.discrepancy.prior.scale))
    own = (
        likelihood.parameters,
        likelihood.log_prob,
        likelihood.site,
        likelihood.extra,
        likelihood.scatter,
        likelihood.draw,
    )
    return _LIKELIHOODS.setdefault((likelihood.name, scale, *own), likelihood)


def with_findings(fit: Fit, findings: Sequence[Finding]) -> Fit:
    """Return the fit with more findings."""
    return replace(fit, findings=(*fit.findings, *findings))
