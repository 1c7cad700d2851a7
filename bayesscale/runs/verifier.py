"""The job behind `bayesscale verifier`: judged samples in, a folder of answers about resampling until acceptance out.

check the questions → fit → forecast → decide → tables → files → plots
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from bayesscale.attempts import Attempts
from bayesscale.decisions.samples import SampleChoice
from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.resampling.forecast import check_attempts
from bayesscale.resampling.stored import save_verifier
from bayesscale.resampling.verifier import Stakes
from bayesscale.resampling.verifier_fit import (
    AT,
    VERIFIER_SAMPLER,
    Population,
    VerifierFit,
    choose,
    fit_verifier,
    forecast_verifier,
    reach,
)
from bayesscale.resampling.verifier_law import patterns
from bayesscale.runs.folder import replacing, slug
from bayesscale.runs.job import Clock, Report, silent
from bayesscale.runs.results import (
    Labelled,
    Outcome,
    description,
    findings_table,
    models_to_draw,
    stage,
    summary_table,
    write_results,
)

if TYPE_CHECKING:
    import pandas as pd

LABEL = "verifier"
MEANINGS = {
    "summary": "one row per model and quantity: mean, sd, quantiles, convergence, contraction, findings",
    "forecast": "one row per model, population, quantity and number of samples K; infinity for the ceilings",
    "decision": "one row per model and population: the K to choose, its expected regret, the posterior of K*",
    "utility": "one row per model, population and K: posterior of the utility, regret of choosing K",
    "reach": "one row per model and stronger accuracy: samples needed, probability of never reaching it",
    "findings": "one row per finding: what was odd about the data or a fit, and what to try",
}
NOTES = (
    "Samples are drawn until the verifier accepts one or K are drawn. Accuracy: a right answer is returned. K* is the K of",
    "greatest expected utility: 0 is to abstain, infinity that every further sample helps. Expected regret is the",
    "utility per problem expected to be lost by choosing K before knowing the truth.",
    "",
)


@dataclass(frozen=True)
class Settings:
    """What is asked.

    Attributes
    ----------
    stakes : benefit of a right answer, cost of a wrong one and of a sample.
    stronger : accuracies to reach, for example of one sample of a stronger model.
    at : numbers of samples to forecast at.
    populations : "these" problems, or "new" ones; the first is drawn and printed.
    cap : the most samples considered for K*.
    plots : models to draw at most; 0 for no plots.
    """

    stakes: Stakes = field(default_factory=Stakes)
    stronger: tuple[float, ...] = ()
    at: tuple[int, ...] = AT
    populations: tuple[Population, ...] = ("these", "new")
    cap: float = np.inf
    sampler: Sampler = VERIFIER_SAMPLER
    seed: int = 0
    plots: int = 6

    def __post_init__(self) -> None:
        if not all(0 <= value <= 1 for value in self.stronger):
            raise InputError("OPTIONS", "an accuracy to reach must lie between 0 and 1", fix="mend --stronger")
        check_attempts(self.at)


def run_verifier(
    attempts: Attempts,
    settings: Settings,
    *,
    out: Path,
    overwrite: bool = False,
    inputs: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> Outcome[VerifierFit]:
    """Fit, forecast, decide, and write everything to `out`; parameters as of `bayesscale.runs.job.run`.

    Raises
    ------
    InputError : `out` is in use, or the attempts have no verifier's counts.
    """
    patterns(attempts, 0)  # refuses attempts without a verifier
    with replacing(out, overwrite=overwrite) as folder:
        clock = Clock()
        found = fit_verifier(attempts, sampler=settings.sampler, seed=settings.seed, progress=stage(report, "fit"))
        fits = [Labelled(i, LABEL, fit) for i, fit in enumerate(found)]
        clock.lap("fit")
        tables = tables_of(attempts, fits, settings, report)
        clock.lap("forecast")
        if settings.plots:
            from bayesscale.runs.pictures import draw_jobs

            draw_jobs(picture_jobs(fits, settings, folder / "plots"), folder / "plots", report)
            clock.lap("plots")
        about = about_run(attempts, settings, fits, clock)
        about |= {"inputs": dict(inputs or {}), "arguments": dict(arguments or {})}
        write_results(folder, fits, save_verifier, tables, about, MEANINGS, NOTES)
    return Outcome(out, fits, tables, about)


def tables_of(
    attempts: Attempts, fits: Sequence[Labelled[VerifierFit]], settings: Settings, report: Report
) -> dict[str, pd.DataFrame]:
    """Every table of a run, by name."""
    parts: dict[str, list[pd.DataFrame]] = {"forecast": [], "decision": [], "utility": [], "reach": []}
    for done, each in enumerate(fits):
        for population in settings.populations:
            head = {"model_index": each.index, "population": population}
            choice = choice_of(each.fit, settings, population)
            parts["decision"].append(choice.table().assign(**head))
            parts["utility"].append(choice.curve().assign(**head))
            table = forecast_verifier(each.fit, settings.at, population, seed=settings.seed)
            parts["forecast"].append(table.assign(**head))
            for accuracy in settings.stronger:
                found = reach(each.fit, accuracy, population, seed=settings.seed)
                parts["reach"].append(found.table().assign(**head))
        report("forecast", done + 1, len(fits))
    tables = {"summary": summary_table(fits, attempts.key_names, attempts.keys)}
    tables |= {name: joined(found, attempts) for name, found in parts.items() if found}
    return tables | {"findings": findings_table(attempts.findings, fits)}


def joined(parts: Sequence[pd.DataFrame], attempts: Attempts) -> pd.DataFrame:
    """Tables under each other, with the key columns."""
    import pandas as pd

    from bayesscale.runs.results import with_keys

    return with_keys(pd.concat(parts, ignore_index=True), attempts.key_names, attempts.keys)


def choice_of(fit: VerifierFit, settings: Settings, population: Population) -> SampleChoice:
    """The number of samples to choose under the settings' stakes."""
    return choose(fit, settings.stakes, population, cap=settings.cap, seed=settings.seed)


def picture_jobs(
    fits: Sequence[Labelled[VerifierFit]], settings: Settings, folder: Path
) -> list[tuple[Path, Callable[[], Axes]]]:
    """Accuracy and utility of up to so many models, worst fits first."""
    from bayesscale.plots.verifier import plot_utility

    jobs: list[tuple[Path, Callable[[], Axes]]] = []
    population = settings.populations[0]
    for (each,) in models_to_draw(fits, settings.plots):
        stem, fit = f"{each.index + 1:02d}-{slug(each.fit.name)}", each.fit
        jobs.append((folder / f"{stem}-accuracy.png", lambda fit=fit: accuracy_picture(fit, settings)))
        jobs.append(
            (folder / f"{stem}-utility.png", lambda fit=fit: plot_utility(choice_of(fit, settings, population)))
        )
    return jobs


def accuracy_picture(fit: VerifierFit, settings: Settings) -> Axes:
    """One model's accuracy over the first population asked for."""
    from bayesscale.plots.verifier import plot_verifier

    return plot_verifier(fit, population=settings.populations[0], stronger=settings.stronger, seed=settings.seed)


def about_run(
    attempts: Attempts, settings: Settings, fits: Sequence[Labelled[VerifierFit]], clock: Clock
) -> dict[str, Any]:
    """What was run, on what, and how it ended."""
    return description(
        "verifier",
        fits,
        clock,
        key_names=list(attempts.key_names),
        models=len(attempts),
        rows=int(attempts.n.size),
        samples=int(attempts.n.sum()),
        stopping={"design": attempts.stopping, "cap": attempts.cap, "batch": attempts.batch},
        digests={attempts.model_name(i): attempts.digest(i) for i in range(len(attempts))},
        stakes=vars(settings.stakes),
        stronger=list(settings.stronger),
        at=list(settings.at),
        populations=list(settings.populations),
        cap=None if np.isinf(settings.cap) else settings.cap,
    )
