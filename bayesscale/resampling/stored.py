"""Fits of repeated samples on disk: one netCDF file each, read back without the table they came from.

The file is an ArviZ DataTree: posterior, prior, sample_stats, and the counts as constant_data. What arrays do not hold
(labels, design, diagnostics, findings, provenance) is JSON in the attribute ``bayesscale``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesscale.attempts import COUNTS, VERIFIER_COUNTS, Attempts
from bayesscale.draws import Draws
from bayesscale.finding import Finding, InputError
from bayesscale.rates import RATE_LAWS, RateLaw

if TYPE_CHECKING:
    import xarray as xr

    from bayesscale.resampling.crossed import CrossedFit
    from bayesscale.resampling.fitting import RateFit
    from bayesscale.resampling.verifier_fit import VerifierFit
    from bayesscale.resampling.vote_fit import VoteFit

FORMAT = 1
AXES = ("row", "answer")
"""Names of the axes of counts."""


def save_draws(draws: Draws, counts: Mapping[str, NDArray], about: Mapping[str, Any], path: str | Path) -> Path:
    """Write draws and the counts they come from to one netCDF file, whole or not at all; `about` has to be JSON-like."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    draws_tree(draws, counts, about).to_netcdf(temporary, engine="h5netcdf")
    temporary.replace(path)
    return path


def draws_tree(draws: Draws, counts: Mapping[str, NDArray], about: Mapping[str, Any]) -> xr.DataTree:
    """Arrange draws and counts as an ArviZ DataTree."""
    import arviz as az

    groups = {
        "posterior": dict(draws.values),
        "prior": {name: values[None] for name, values in draws.prior.items()},
        "sample_stats": dict(draws.stats),
        "constant_data": dict(counts),
    }
    dims = {name: list(AXES[: np.ndim(values)]) for name, values in counts.items()}
    tree = az.from_dict({name: group for name, group in groups.items() if group}, dims=dims, attrs={})
    measured = {
        name: {key: np.asarray(value).tolist() for key, value in entry.items()}
        for name, entry in draws.diagnostics.items()
    }
    said = {"findings": [finding.as_dict() for finding in draws.findings], "provenance": dict(draws.provenance)}
    tree.attrs["bayesscale"] = json.dumps({"format": FORMAT, **about, "diagnostics": measured, **said})
    return tree


def read_draws(path: str | Path, kind: str) -> tuple[Draws, dict[str, NDArray], dict[str, Any]]:
    """Read what `save_draws` wrote: draws, counts, and what was said about them.

    Raises
    ------
    InputError : the file is missing or damaged, or holds a fit of another kind.
    """
    import xarray as xr

    path = Path(path)
    if not path.is_file():
        raise InputError("FIT-MISSING", "there is no such file", where=str(path), fix="check the path")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
        about = json.loads(tree.attrs["bayesscale"])
        found = about.get("kind", "curve"), {name: arrays_of(tree, name) for name in tree.children}
    except Exception as error:  # a damaged file surfaces as nearly any error of the layers that read it
        raise InputError(
            "FIT-UNREADABLE", f"this is no saved fit ({error})", where=str(path), fix="fit again"
        ) from None
    if found[0] != kind:
        raise InputError("FIT-KIND", f"this is a fit of kind {found[0]!r}, not {kind!r}", where=str(path))
    return stored_draws(found[1], about), found[1]["constant_data"], about


def arrays_of(tree: xr.DataTree, group: str) -> dict[str, NDArray]:
    return {str(key): array.values for key, array in tree[group].dataset.data_vars.items()}


def stored_draws(groups: Mapping[str, Mapping[str, NDArray]], about: Mapping[str, Any]) -> Draws:
    measured = {
        name: {key: np.asarray(v, float) for key, v in entry.items()} for name, entry in about["diagnostics"].items()
    }
    return Draws(
        values=groups["posterior"],
        prior={name: values[0] for name, values in groups["prior"].items()},
        stats=groups.get("sample_stats", {}),
        diagnostics=measured,
        findings=tuple(Finding(**finding) for finding in about["findings"]),
        provenance=about["provenance"],
    )


# Success rates --------------------------------------------------------------------------------------------------------


def save_rates(fit: RateFit, path: str | Path) -> Path:
    """Write one model's success rates, with the counts they were learned from, to one netCDF file."""
    counts, about = attempts_parts(fit.attempts)
    return save_draws(fit.draws, counts, {"kind": "rates", "law": fit.law.name, **about}, path)


def load_rates(path: str | Path, *, law: RateLaw | None = None) -> RateFit:
    """Read a fit written by `RateFit.save`; a law that is not in the table has to be passed.

    Raises
    ------
    InputError : the file is missing, not one of ours, or needs a law that is not in the table.
    """
    from bayesscale.resampling.fitting import RateFit

    draws, counts, about = read_draws(path, "rates")
    if law is None and about["law"] not in RATE_LAWS:
        raise InputError("FIT-LAW", f"law {about['law']!r} is not in the table", where=str(path), fix="pass law=...")
    return RateFit(law or RATE_LAWS[about["law"]], attempts_from_parts(counts, about), draws)


def attempts_parts(attempts: Attempts) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Take one model's attempts apart: counts by name, and everything that is no array of counts."""
    named = {name: getattr(attempts, name) for name in (*COUNTS, *VERIFIER_COUNTS)}
    about = {
        "name": attempts.model_name(0),
        "digest": attempts.digest(0),
        "key_names": list(attempts.key_names),
        "key": list(attempts.keys[0]),
        "problems": [attempts.problems[i] for i in attempts.problem],
        "design": {"stopping": attempts.stopping, "cap": attempts.cap, "batch": attempts.batch},
        "covariates": {name: float(values[0]) for name, values in attempts.covariates.items()},
    }
    return {name: values for name, values in named.items() if values is not None}, about


def attempts_from_parts(counts: Mapping[str, NDArray], about: Mapping[str, Any]) -> Attempts:
    """Put attempts together again; see `attempts_parts`."""
    rows = len(about["problems"])
    given: dict[str, Any] = {**about["design"], **counts}
    return Attempts(
        key_names=tuple(about["key_names"]),
        keys=(tuple(about["key"]),),
        model=np.zeros(rows, np.int64),
        problems=tuple(about["problems"]),
        problem=np.arange(rows),
        covariates={name: np.array([value]) for name, value in about["covariates"].items()},
        **given,
    )


# Verifiers and votes --------------------------------------------------------------------------------------------------


def save_verifier(fit: VerifierFit, path: str | Path) -> Path:
    """Write one model's acceptance and shares, with the counts they were learned from, to one netCDF file."""
    counts, about = attempts_parts(fit.attempts)
    return save_draws(fit.draws, counts, {"kind": "verifier", **about}, path)


def load_verifier(path: str | Path) -> VerifierFit:
    """Read a fit written by `save_verifier`; errors as in `read_draws`."""
    from bayesscale.resampling.verifier_fit import VerifierFit

    draws, counts, about = read_draws(path, "verifier")
    return VerifierFit(attempts_from_parts(counts, about), draws)


EASINESS = ("easiness", "sd")
"""Arrays over the problems of the old models, which are not those of the new one's counts: kept as JSON, digit by digit."""


def save_crossed(fit: CrossedFit, path: str | Path) -> Path:
    """Write one new model's fit, its counts and what it was told of the problems to one netCDF file."""
    counts, about = attempts_parts(fit.attempts)
    told = vars(fit.difficulty) | {name: getattr(fit.difficulty, name).tolist() for name in EASINESS}
    about |= {"kind": "crossed", "seed": fit.seed, "difficulty": told}
    return save_draws(fit.draws, counts, about, path)


def load_crossed(path: str | Path) -> CrossedFit:
    """Read a fit written by `save_crossed`; errors as in `read_draws`."""
    from bayesscale.resampling.crossed import CrossedFit
    from bayesscale.resampling.difficulty import Difficulty

    draws, counts, about = read_draws(path, "crossed")
    told: dict[str, Any] = about["difficulty"] | {"problems": tuple(about["difficulty"]["problems"])}
    told |= {name: np.asarray(told[name], float) for name in EASINESS}
    return CrossedFit(attempts_from_parts(counts, about), Difficulty(**told), draws, about["seed"])


VOTE_COUNTS = ("counts", "correct", "n", "n_none")


def save_votes(fit: VoteFit, path: str | Path) -> Path:
    """Write one model's law of votes, with the votes it was learned from, to one netCDF file."""
    votes = fit.votes
    about = {
        "kind": "votes",
        "name": votes.model_name(0),
        "digest": votes.digest(0),
        "key_names": list(votes.key_names),
        "key": list(votes.keys[0]),
        "problems": [votes.problems[i] for i in votes.problem],
        "answers": list(votes.answers),
        "slots": fit.slots,
        "seed": fit.seed,
    }
    return save_draws(fit.draws, {name: getattr(votes, name) for name in VOTE_COUNTS}, about, path)


def load_votes(path: str | Path) -> VoteFit:
    """Read a fit written by `save_votes`; errors as in `read_draws`."""
    from bayesscale.resampling.vote_fit import VoteFit
    from bayesscale.votes import Votes

    draws, counts, about = read_draws(path, "votes")
    rows, given = len(about["problems"]), dict[str, Any](counts)
    votes = Votes(
        key_names=tuple(about["key_names"]),
        keys=(tuple(about["key"]),),
        model=np.zeros(rows, np.int64),
        problems=tuple(about["problems"]),
        problem=np.arange(rows),
        answers=tuple(about["answers"]),
        **given,
    )
    return VoteFit(votes, draws, about["slots"], about["seed"])
