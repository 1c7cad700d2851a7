"""The job behind `bayesscale passk`: counts of attempts in, a folder of coverage forecasts out.

    check the questions → fit every law → forecast → hold out → tables → files → plots

Every model is forecast under several laws, the first of which is the answer; the others show how much of it the law decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesscale.attempts import Attempts
from bayesscale.finding import Finding, InputError
from bayesscale.inference.settings import Sampler
from bayesscale.precision import enable_float64
from bayesscale.rates import DEFAULT_RATE_LAW, RateLaw
from bayesscale.resampling.fitting import RateFit, fit_rates, rate_law_named
from bayesscale.resampling.forecast import (
    SENSITIVITY_LAWS,
    CoverageForecast,
    Target,
    check_attempts,
    compare_tails,
    forecast,
    reliability,
    solved_by,
)
from bayesscale.resampling.holdout import evaluate_coverage, score_means
from bayesscale.resampling.limits import Limit, pass_at_infinity
from bayesscale.resampling.passk import empirical_coverage, pass_hat_k
from bayesscale.resampling.pooled import fit_rates_pooled
from bayesscale.resampling.stored import save_rates
from bayesscale.runs.folder import replacing
from bayesscale.runs.job import Clock, Report, silent
from bayesscale.runs.results import (
    Labelled,
    Outcome,
    description,
    findings_table,
    stage,
    summary_table,
    with_keys,
    write_results,
)

if TYPE_CHECKING:
    import pandas as pd

MEANINGS = {
    "summary": "one row per model, law and quantity: mean, sd, quantiles, convergence, contraction, findings",
    "forecast": "one row per model, law, target and k: pass@k and pass^k, and the estimates that need no law",
    "limit": "one row per model, estimand and prior: pass@infinity, the share of problems that any number of samples solves",
    "comparison": "one row per model, predictor and held-out k: truth, forecast, CRPS, coverage, width",
    "findings": "one row per finding: what was odd about the data, a fit or a forecast, and what to try",
    "shared": "one row per quantity that pooled models share: centres, slopes over covariates, scatter",
}
NOTES = (
    "Targets: solved = share of these problems solved within their first k attempts, past ones among them;",
    "these = mean chance that k fresh attempts solve one of these problems; population = the same for a problem of",
    "the population; new = share of as many new problems solved within k attempts. problems_open counts the problems",
    "that are unsolved and had fewer than k attempts: what solved says about them is a forecast.",
    "pass@infinity: under a zero-inflated Beta law, with several priors on the share pi0 of impossible problems, as one",
    "posterior under a wide prior reweighted; of these problems, of as many new ones, and 1 - pi0 of the population.",
    "",
)


LIMIT_LABEL = "zero_inflated_beta, wide prior"
"""Label of the fits behind pass@infinity."""


@dataclass(frozen=True)
class Settings:
    """What is fitted and asked.

    Attributes
    ----------
    laws : laws of success rates; the first gives the answer, the others show how far it depends on the law.
    at : numbers of attempts k; None for powers of ten up to about ten times the samples.
    targets : what is forecast, the first as the answer; see `bayesscale.resampling.forecast`.
    holdout : samples per problem to train on, to score forecasts of the rest; None for no hold-out.
    pool : whether the first law is also fitted to all models together, its tail following `covariates`.
    limit : whether pass@infinity is estimated too, under several priors on the share of impossible problems.
    plots : models to draw at most; 0 for no plots.
    """

    laws: tuple[RateLaw, ...] = field(default_factory=lambda: default_laws())
    at: tuple[int, ...] | None = None
    targets: tuple[Target, ...] = ("solved",)
    holdout: int | None = None
    pool: bool = False
    covariates: tuple[str, ...] = ()
    limit: bool = True
    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 0
    plots: int = 6

    def __post_init__(self) -> None:
        names = [law.name for law in self.laws]
        if not names or len(set(names)) < len(names):
            raise InputError("OPTIONS", "laws must be named once each", fix="leave the repeated --law out")


def default_laws() -> tuple[RateLaw, ...]:
    """The law of the answer, then those that differ from it in the tail."""
    names = dict.fromkeys((DEFAULT_RATE_LAW, *SENSITIVITY_LAWS))
    return tuple(rate_law_named(name) for name in names)


def run_coverage(
    attempts: Attempts,
    settings: Settings,
    *,
    out: Path,
    overwrite: bool = False,
    inputs: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> Outcome[RateFit]:
    """Fit, forecast, score, and write everything to `out`; parameters as of `bayesscale.runs.job.run`.

    Raises
    ------
    InputError : `out` is in use, or something is asked that the data or their design cannot answer.
    """
    enable_float64()
    k = questions(attempts, settings)
    held_out = None if settings.holdout is None else holdout_attempts(attempts, settings.holdout, k)
    with replacing(out, overwrite=overwrite) as folder:
        clock = Clock()
        fits, shared = fit_all(attempts, settings, report)
        limits = fit_limits(attempts, settings, report)
        every = [*fits, *(Labelled(i, LIMIT_LABEL, limit.fit) for i, limit in enumerate(limits))]
        clock.lap("fit")
        forecasts = forecast_all(fits, k, settings, report)
        tails = [finding for own in by_model(forecasts) for finding in compare_tails(own).findings]
        tails += [finding for limit in limits for finding in limit.disagreements]
        rows, refused = forecast_table(attempts, fits, forecasts, k, settings)
        tables = {
            "summary": summary_table(every, attempts.key_names, attempts.keys),
            "forecast": rows,
            "findings": findings_table(attempts.findings, every, [*tails, *refused]),
        }
        if limits:
            tables["limit"] = limit_table(attempts, limits)
        if shared is not None:
            tables["shared"] = shared
        clock.lap("forecast")
        if settings.holdout is not None and held_out is not None:
            tables["comparison"] = score(attempts, settings, held_out, report)
            clock.lap("holdout")
        if settings.plots:
            from bayesscale.runs.pictures import draw_coverage

            draw_coverage(attempts, fits, settings, folder / "plots", report=report)
            clock.lap("plots")
        about = about_run(attempts, settings, every, k, clock)
        about |= {"inputs": dict(inputs or {}), "arguments": dict(arguments or {})}
        write_results(folder, every, save_rates, tables, about, MEANINGS, NOTES)
    return Outcome(out, every, tables, about)


# What is asked --------------------------------------------------------------------------------------------------------


def questions(attempts: Attempts, settings: Settings) -> np.ndarray:
    """The k to forecast at, in order and once each; all refusals come before anything is fitted."""
    k = np.unique(check_attempts(settings.at)) if settings.at is not None else default_attempts(attempts)
    if "solved" in settings.targets:
        for i in range(len(attempts)):
            solved_by(attempts.subset([i]), k)
    if settings.pool and len(attempts) < 2:
        raise InputError("POOL-MODELS", "pooling needs at least two models", fix="leave --pool out")
    return k


def default_attempts(attempts: Attempts) -> np.ndarray:
    """Powers of ten, up to about ten times the samples a problem typically could get."""
    reach = float(np.median(attempts.n)) if attempts.stopping == "fixed" else float(attempts.cap or attempts.n.max())
    k = 10 ** np.arange(round(np.log10(reach)) + 2)
    if attempts.stopping == "capped":  # within the samples it is unknown when the successes came
        k = np.append(k[k > attempts.n.max()], attempts.n.max())
    return np.unique(k)


def holdout_attempts(attempts: Attempts, n0: int, k: np.ndarray) -> np.ndarray:
    """The k beyond n0 that held-out samples can judge: those asked for, else the last one they reach.

    Under a fixed design, problems with fewer samples than the largest k are left out; half of them must stay.
    """
    most = int(np.median(attempts.n)) if attempts.stopping == "fixed" else int(attempts.cap or attempts.n.max())
    if n0 >= most:
        raise InputError("HOLDOUT-K", f"--holdout {n0} leaves nothing to judge by: {most} samples is what there is")
    inside = k[(k > n0) & (k <= most)]
    return inside if len(inside) else np.array([most])


# Fits and forecasts ---------------------------------------------------------------------------------------------------


def fit_all(
    attempts: Attempts, settings: Settings, report: Report
) -> tuple[list[Labelled[RateFit]], pd.DataFrame | None]:
    """Fit every model under every law, then the first law to all together if asked; with what they share."""
    fits = []
    for law in settings.laws:
        found = fit_rates(
            attempts, law, sampler=settings.sampler, seed=settings.seed, progress=stage(report, f"fit {law.name}")
        )
        fits += [Labelled(i, law.name, fit) for i, fit in enumerate(found)]
    if not settings.pool:
        return fits, None
    law, progress = settings.laws[0], stage(report, f"fit {settings.laws[0].name} pooled")
    given = {"draws": settings.sampler.draws, "chains": settings.sampler.chains}
    pooled = fit_rates_pooled(
        attempts, law, covariates=settings.covariates, given=given, seed=settings.seed, progress=progress
    )
    fits += [Labelled(i, f"{law.name} pooled", fit) for i, fit in enumerate(pooled.fits)]
    return fits, pooled.summary()


def fit_limits(attempts: Attempts, settings: Settings, report: Report) -> list[Limit]:
    """Estimate pass@infinity of every model, if asked."""
    if not settings.limit:
        return []
    progress = stage(report, "fit pass@infinity")
    return pass_at_infinity(attempts, sampler=settings.sampler, seed=settings.seed, progress=progress)


type Forecasts = list[tuple[Labelled[RateFit], CoverageForecast]]


def forecast_all(fits: Sequence[Labelled[RateFit]], k: np.ndarray, settings: Settings, report: Report) -> Forecasts:
    """Forecast every fit at every k, for every target."""
    found = []
    for done, each in enumerate(fits):
        found += [(each, labelled_forecast(each, k, target, settings.seed)) for target in settings.targets]
        report("forecast", done + 1, len(fits))
    return found


def labelled_forecast(each: Labelled[RateFit], k: np.ndarray, target: Target, seed: int) -> CoverageForecast:
    """Forecast under the fit's label: a pooled fit is told apart from the law's own."""
    return replace(forecast(each.fit, k, target, seed=seed), law=each.label)


def by_model(forecasts: Forecasts) -> list[list[CoverageForecast]]:
    """Forecasts of the first target, model by model, the answer's law first."""
    models: dict[int, list[CoverageForecast]] = {}
    target = forecasts[0][1].target
    for each, found in forecasts:
        if found.target == target:
            models.setdefault(each.index, []).append(found)
    return list(models.values())


# Tables ---------------------------------------------------------------------------------------------------------------


def forecast_table(
    attempts: Attempts, fits: Sequence[Labelled[RateFit]], forecasts: Forecasts, k: np.ndarray, settings: Settings
) -> tuple[pd.DataFrame, list[Finding]]:
    """One row per model, law or estimator, target and k; and the estimates that the design refuses."""
    import pandas as pd

    parts = [
        found.table().assign(
            measure="pass@k", problems_open=open_problems(each.fit.attempts, k), model_index=each.index
        )
        for each, found in forecasts
    ]
    target = "population" if {"population", "new"} >= set(settings.targets) else "these"
    for each in fits:
        all_right = replace(reliability(each.fit, k, target, seed=settings.seed), law=each.label).table()
        parts.append(all_right.assign(measure="pass^k", model_index=each.index))
    refused = []
    for i in range(len(attempts)):
        try:
            parts += [table.assign(model_index=i) for table in empirical_tables(attempts.subset([i]), k)]
        except InputError as error:
            refused.append(replace(error.finding, grade="info", where=attempts.model_name(i)))
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    front = ["model_index", "model", "law", "measure", "estimand", "k"]
    table = table.reindex(columns=[*front, *(name for name in table.columns if name not in front)])
    return with_keys(table, attempts.key_names, attempts.keys), refused


def limit_table(attempts: Attempts, limits: Sequence[Limit]) -> pd.DataFrame:
    """One row per model, estimand and prior."""
    import pandas as pd

    tables = [limit.table().assign(model_index=i) for i, limit in enumerate(limits)]
    return with_keys(pd.concat(tables, ignore_index=True), attempts.key_names, attempts.keys)


def open_problems(attempts: Attempts, k: np.ndarray) -> np.ndarray:
    """Problems that are unsolved and had fewer than k attempts."""
    waiting = attempts.n[attempts.n_correct == 0]
    return (waiting[:, None] < k).sum(axis=0)


def empirical_tables(attempts: Attempts, k: np.ndarray) -> list[pd.DataFrame]:
    """What one model's counts say without a law at the k they reach: pass@k, and under a fixed design pass^k."""
    import pandas as pd

    fixed = attempts.stopping == "fixed"
    inside = k[k <= (attempts.n.min() if fixed else attempts.n.max())]
    if not len(inside):
        return []
    found = empirical_coverage(attempts, inside)
    head = {"model": attempts.model_name(0), "extrapolated": False, "horizon": inside / attempts.n.max()}
    table = found.table().rename(columns={"value": "mean", "method": "law"}).assign(measure="pass@k", **head)
    if not fixed:
        return [table]
    each = pass_hat_k(attempts.n, attempts.n_correct, inside)
    all_right = {"law": "unbiased", "measure": "pass^k", "estimand": "pass^k, new problems", "k": inside}
    return [table, pd.DataFrame({**head, **all_right, "mean": each.mean(axis=0)})]


def score(attempts: Attempts, settings: Settings, at: np.ndarray, report: Report) -> pd.DataFrame:
    """Held-out scores of every law and of the baselines."""
    assert settings.holdout is not None
    return evaluate_coverage(
        attempts,
        settings.holdout,
        at,
        laws=settings.laws,
        sampler=settings.sampler,
        seed=settings.seed,
        progress=stage(report, "held-out fits"),
    )


def mean_scores(comparison: pd.DataFrame) -> pd.DataFrame:
    """Means of the held-out scores over models, best CRPS first."""
    return score_means(comparison).sort_values(["k", "crps"], ignore_index=True, kind="stable")


def about_run(
    attempts: Attempts, settings: Settings, fits: Sequence[Labelled[RateFit]], k: np.ndarray, clock: Clock
) -> dict[str, Any]:
    """What was run, on what, and how it ended."""
    return description(
        "passk",
        fits,
        clock,
        key_names=list(attempts.key_names),
        models=len(attempts),
        rows=int(attempts.n.size),
        samples=int(attempts.n.sum()),
        stopping={"design": attempts.stopping, "cap": attempts.cap, "batch": attempts.batch},
        digests={attempts.model_name(i): attempts.digest(i) for i in range(len(attempts))},
        laws=[law.name for law in settings.laws],
        pooled=settings.pool,
        limit=settings.limit,
        at=k.tolist(),
        targets=list(settings.targets),
        holdout=settings.holdout,
    )
