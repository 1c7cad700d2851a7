"""Which parameter did a condition move?

Fine-tuning that suppresses a behaviour may have moved the prior over tasks (rho), the learning efficiency (K) or what the
model says once it knows the task (gamma, beta). Each answer is a choice of pooling: curves that differ only in the condition
share every parameter, and the covariate log(1 + v) may move some of them. The choices

    nothing · prior (logit rho) · efficiency (log K) · levels (gamma, beta) · all

are fitted to the same data, in one batch, and compared by how they predict the conditioned curves' later shots, and by
PSIS-LOO; the fit in which everything may move gives the posterior of each shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesscale.comparison import clustered_se
from bayesscale.curves import Curves
from bayesscale.draws import flatten
from bayesscale.finding import InputError
from bayesscale.fitting import law_named, likelihood_for
from bayesscale.holdout import forecasts_of, training_mask
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.law import Law
from bayesscale.leave_one_out import importance_elpd
from bayesscale.likelihood import Likelihood
from bayesscale.pooled import Pooled, sample_pooled
from bayesscale.pooling import Pool, complete, moves_fact, partial
from bayesscale.precision import enable_float64, require_float64
from bayesscale.units import Units, units_of

if TYPE_CHECKING:
    import pandas as pd

MOVES: Mapping[str, tuple[str, ...]] = {
    "nothing": (),
    "prior": ("logit_rho",),
    "efficiency": ("log_K",),
    "levels": ("logit_ceiling", "logit_floor_ratio"),
    "all": ("logit_rho", "log_K", "logit_ceiling", "logit_floor_ratio"),
}


@dataclass(frozen=True, eq=False)
class Moved:
    """What a condition moved.

    `table` has one row per choice: mean log score per held-out row of the conditioned curves (nats, higher is better), its
    difference to the best with the standard error over curves, elpd_loo over all rows with the largest Pareto shape, and the
    gate's verdict. `shifts` has the posterior of each parameter's shift between no condition and its largest value, from the
    choice "all". `sentence` says it in words.
    """

    table: pd.DataFrame
    shifts: pd.DataFrame
    sentence: str
    fits: Mapping[str, Pooled]

    def __str__(self) -> str:
        return f"{self.table.to_string(index=False)}\n{self.shifts.to_string(index=False)}\n{self.sentence}"


def which_moved(
    curves: Curves,
    condition: str,
    *,
    law: str | Law = "tempered_strict",
    share: float = 0.5,
    likelihood: str | Likelihood | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Moved:
    """Compare which parameters a numeric condition moved.

    `condition` names a key column that is also a covariate; curves equal in every other key form a group. `law` is a strict
    law, whose parameters are the paper's. A `share` of each curve's shots axis is trained on for the predictive score.

    Raises
    ------
    InputError : the condition is not a numeric key, never varies, or the law lacks the paper's parameters; or no choice was
        sampled within its budget.
    """
    import pandas as pd

    law = law_named(law)
    check_condition(curves, condition, law)
    enable_float64()
    require_float64()
    chosen = likelihood_for(curves, likelihood, discrepancy=True)
    units = units_of(curves, chosen)
    keep = training_mask(units, share)
    moved_curves = np.flatnonzero(curves.covariates[condition] > 0)
    pooling = pooling_for(curves, condition, law, chosen)
    versions = [moving(part, choice) for choice in MOVES for part in (units, units.masked(keep, f"{share:g}"))]
    pooled = sample_pooled(
        curves, versions, law, chosen, pooling=pooling, sampler=sampler, seed=seed, progress=progress
    )
    fits, scores, rows, held = {}, {}, [], (units.columns["mask"] > 0) & ~keep
    for choice, whole, part in zip(MOVES, pooled[::2], pooled[1::2], strict=True):
        forecasts = forecasts_of([(part.fits[i], share, held[i]) for i in moved_curves if held[i].any()], seed)
        scores[choice] = np.array([f.log_score.mean() for f in forecasts])
        pointwise, k_hat = elpd(whole)
        fits[choice] = whole
        status = "fail" if "fail" in (whole.status, part.status) else whole.status
        rows.append(
            {
                "moved": choice,
                "log_score": scores[choice].mean(),
                "elpd_loo": pointwise.sum(),
                "k_hat_max": k_hat.max(),
                "status": status,
            }
        )
    table = pd.DataFrame(rows)
    if not np.isfinite(table["log_score"]).any():
        raise InputError(
            "CONDITION-FIT", "no choice was sampled within its budget", fix="pass a sampler with more patience"
        )
    score, passed = table["log_score"].to_numpy(float), (table["status"] != "fail").to_numpy()
    eligible = np.isfinite(score) & passed if (np.isfinite(score) & passed).any() else np.isfinite(score)
    best = str(table["moved"].iloc[int(np.argmax(np.where(eligible, score, -np.inf)))])
    table["difference"] = [float((scores[c] - scores[best]).mean()) for c in table["moved"]]
    table["se"] = [clustered_se(scores[c] - scores[best], ()) for c in table["moved"]]
    shifts = shift_table(fits["all"], condition)
    return Moved(table, shifts, sentence(table, shifts, best, condition), fits)


def check_condition(curves: Curves, condition: str, law: Law) -> None:
    if condition not in curves.key_names or condition not in curves.covariates:
        known = ", ".join(set(curves.key_names) & set(curves.covariates)) or "none"
        raise InputError("CONDITION", f"{condition!r} is no numeric condition of these curves", fix=f"known: {known}")
    values = curves.covariates[condition]
    if np.ptp(values) == 0 or values.min() < 0:
        raise InputError(
            "CONDITION", f"{condition!r} has to vary and not be negative", fix="include curves without it (value 0)"
        )
    missing = set(MOVES["all"]) - {parameter.name for parameter in law.parameters}
    if missing:
        raise InputError(
            "CONDITION-LAW",
            f"law {law.name} has no {sorted(missing)[0]}",
            fix="use a strict law, such as tempered_strict",
        )


def moving(units: Units, choice: str) -> Units:
    """The same units under one choice: the others' shifts are switched off, so that one program serves all choices."""
    switches = {moves_fact(name): np.full(len(units), float(name in MOVES[choice])) for name in MOVES["all"]}
    return replace(
        units,
        digests=tuple(f"{digest}/{choice}" for digest in units.digests),
        columns={**units.columns, **switches},
    )


def pooling_for(curves: Curves, condition: str, law: Law, likelihood: Likelihood) -> dict[str, Pool]:
    """Every law parameter scatters over groups (all keys but the condition); those of `MOVES` are moved by the condition.

    A term by curve on top of a moved parameter lets single conditions leave the covariate's line.
    """
    moved = MOVES["all"]
    group = "*".join(name for name in curves.key_names if name != condition) or "curve"
    pooling = {
        parameter.name: partial(
            (group, "curve") if parameter.name in moved and group != "curve" else (group,),
            covariates=(condition,) if parameter.name in moved else (),
        )
        for parameter in law.parameters
    }
    pooling |= {"logit_lambda": complete()} if any(p.name == "logit_lambda" for p in law.parameters) else {}
    return pooling | {parameter.name: complete() for parameter in likelihood.all_parameters}


def elpd(pooled: Pooled) -> tuple[NDArray, NDArray]:
    """Pointwise elpd and Pareto shapes over all rows of all curves."""
    rows = [flatten(fit.log_likelihood)[:, fit.unit.columns["mask"][0] > 0] for fit in pooled.fits]
    return importance_elpd(np.concatenate(rows, axis=1))


SHIFTS = {
    "logit_rho": "prior log-odds logit(rho)",
    "log_K": "log K",
    "logit_ceiling": "logit gamma",
    "logit_floor_ratio": "logit(beta/gamma)",
}


def shift_table(pooled: Pooled, condition: str) -> pd.DataFrame:
    """Posterior of each parameter's shift from no condition to its largest value, with equal-tailed intervals."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for name, meaning in SHIFTS.items():
        draws = pooled.shared[f"{name}_slope_{condition}"].ravel()
        q = np.quantile(draws, [0.05, 0.25, 0.5, 0.75, 0.95])
        row = {"parameter": meaning, "mean": draws.mean(), "sd": draws.std(ddof=1)}
        row |= dict(zip(("eti90_lower", "eti50_lower", "median", "eti50_upper", "eti90_upper"), q, strict=True))
        rows.append(row | {"p_negative": float((draws < 0).mean())})
    return pd.DataFrame(rows)


def sentence(table: pd.DataFrame, shifts: pd.DataFrame, best: str, condition: str) -> str:
    """Say which choice predicts best, whether others are ruled out, and which shifts exclude zero.

    Only fits that passed their checks are compared, unless none did; the failed ones are named.
    """
    close = [
        row["moved"]
        for row in table.to_dict("records")
        if row["moved"] != best
        and row["status"] != "fail"
        and np.isfinite(row["difference"])
        and not row["difference"] < -2 * row["se"]
    ]
    failed = list(table.loc[table["status"] == "fail", "moved"])
    words = [f"Letting {condition} move {best} predicts the conditioned curves' later shots best"]
    words.append(
        f"; not told apart from it: {', '.join(close)}." if close else ", clearly ahead of every other choice."
    )
    if failed:
        words.append(f" Fits that failed their checks and are not to be relied on: {', '.join(failed)}.")
    if "all" in failed or not np.isfinite(shifts["mean"]).all():
        return "".join(words)
    clear = shifts[(shifts["eti90_lower"] > 0) | (shifts["eti90_upper"] < 0)]
    if len(clear):
        parts = [
            f"{r['parameter']} by {r['median']:.2g} ({r['eti90_lower']:.2g} to {r['eti90_upper']:.2g})"
            for _, r in clear.iterrows()
        ]
        words.append(
            f" With all free, the 90% equal-tailed interval of the shift excludes zero for {'; '.join(parts)}."
        )
    else:
        words.append(" With all free, no single shift excludes zero.")
    return "".join(words)
