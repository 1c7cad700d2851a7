"""The job behind `bayesscale votes`: votes in, a folder of forecasts of plurality voting out.

fit → forecast → tables → files → plots
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.resampling.forecast import LARGEST_K
from bayesscale.resampling.stored import save_votes
from bayesscale.resampling.vote_fit import VoteFit, fit_votes
from bayesscale.resampling.vote_forecast import ESTIMANDS, Estimand, VoteForecast
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
    with_keys,
    write_results,
)
from bayesscale.votes import Votes

if TYPE_CHECKING:
    import pandas as pd

LABEL = "votes"
MEANINGS = {
    "summary": "one row per model and quantity: mean, sd, quantiles, convergence, contraction, findings",
    "forecast": "one row per model and number of votes n: single sample, vote, gain, P(gain > 0); infinity: the limit",
    "observed": "one row per model: accuracy of single samples and of the votes cast, without a law",
    "problems": "one row per model and problem: votes, accuracy, and whether ever more votes help or hurt",
    "findings": "one row per finding: what was odd about the data or a fit, and what to try",
}
NOTES = (
    "A vote is won by the answer given most often, ties split evenly; samples without an answer never win. Its limit is",
    "the share of problems whose right answer is the most common one.",
    "",
)


@dataclass(frozen=True)
class Settings:
    """What is asked.

    Attributes
    ----------
    at : numbers of votes.
    target : of what the accuracy is forecast, one of `bayesscale.resampling.vote_forecast.ESTIMANDS`.
    plots : models to draw at most; 0 for no plots.
    """

    at: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    target: Estimand = "these"
    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 0
    plots: int = 6


def run_votes(
    votes: Votes,
    settings: Settings,
    *,
    out: Path,
    overwrite: bool = False,
    inputs: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> Outcome[VoteFit]:
    """Fit, forecast, and write everything to `out`; parameters as of `bayesscale.runs.job.run`.

    Raises
    ------
    InputError : `out` is in use, an unknown target, or numbers of votes that it cannot answer.
    """
    check_questions(votes, settings)
    with replacing(out, overwrite=overwrite) as folder:
        clock = Clock()
        found = fit_votes(votes, sampler=settings.sampler, seed=settings.seed, progress=stage(report, "fit"))
        fits = [Labelled(i, LABEL, fit) for i, fit in enumerate(found)]
        clock.lap("fit")
        forecasts = []
        for done, each in enumerate(fits):
            forecasts.append(each.fit.majority(settings.at, settings.target))
            report("forecast", done + 1, len(fits))
        tables = tables_of(votes, fits, forecasts)
        clock.lap("forecast")
        if settings.plots:
            from bayesscale.runs.pictures import draw_jobs

            draw_jobs(picture_jobs(fits, forecasts, settings, folder / "plots"), folder / "plots", report)
            clock.lap("plots")
        about = about_run(votes, settings, fits, clock)
        about |= {"inputs": dict(inputs or {}), "arguments": dict(arguments or {})}
        write_results(folder, fits, save_votes, tables, about, MEANINGS, NOTES)
    return Outcome(out, fits, tables, about)


def check_questions(votes: Votes, settings: Settings) -> None:
    """Refuse what no fit could answer."""
    if settings.target not in ESTIMANDS:
        raise InputError("VOTES-TARGET", f"--of must be one of {', '.join(ESTIMANDS)}, got {settings.target!r}")
    lowest = int(votes.n.max()) if settings.target == "continued" else 1
    for n in settings.at:
        if not lowest <= n <= LARGEST_K:
            raise InputError(
                "VOTES-SIZE", f"the numbers of votes must be at least {lowest} and at most 1e12, got {n:g}"
            )


def tables_of(
    votes: Votes, fits: Sequence[Labelled[VoteFit]], forecasts: Sequence[VoteForecast]
) -> dict[str, pd.DataFrame]:
    """Every table of a run, by name."""
    import pandas as pd

    def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
        numbered = [part.assign(model_index=i) for i, part in enumerate(parts)]
        return with_keys(pd.concat(numbered, ignore_index=True), votes.key_names, votes.keys)

    problems = [each.fit.problems() for each in fits]
    for table, each in zip(problems, fits, strict=True):
        table.insert(0, "model", each.fit.name)
    return {
        "summary": summary_table(fits, votes.key_names, votes.keys),
        "forecast": joined([forecast.table() for forecast in forecasts]),
        "observed": joined([observed_table(each.fit.votes) for each in fits]),
        "problems": joined(problems),
        "findings": findings_table(votes.findings, fits),
    }


def observed_table(votes: Votes) -> pd.DataFrame:
    """What one model's votes say without a law, as means over problems."""
    import pandas as pd

    fields = {"model": votes.model_name(0), "problems": votes.n.size, "least_n": votes.n.min(), "most_n": votes.n.max()}
    single, majority = votes.n_correct / votes.n, votes.majority
    fields |= {"single": single.mean(), "majority": majority.mean(), "gain": (majority - single).mean()}
    return pd.DataFrame([{**fields, "any_correct": (votes.n_correct > 0).mean()}])


def picture_jobs(
    fits: Sequence[Labelled[VoteFit]], forecasts: Sequence[VoteForecast], settings: Settings, folder: Path
) -> list[tuple[Path, Callable[[], Axes]]]:
    """The vote against n of up to so many models, worst fits first."""
    from bayesscale.plots.votes import plot_votes

    jobs: list[tuple[Path, Callable[[], Axes]]] = []
    for (each,) in models_to_draw(fits, settings.plots):
        path = folder / f"{each.index + 1:02d}-{slug(each.fit.name)}-votes.png"
        forecast = forecasts[each.index]
        jobs.append((path, lambda f=forecast, own=each.fit.votes: plot_votes(f, observed=own)))
    return jobs


def about_run(votes: Votes, settings: Settings, fits: Sequence[Labelled[VoteFit]], clock: Clock) -> dict[str, Any]:
    """What was run, on what, and how it ended."""
    return description(
        "votes",
        fits,
        clock,
        key_names=list(votes.key_names),
        models=len(votes),
        rows=int(votes.n.size),
        samples=int(votes.n.sum()),
        answers=list(votes.answers),
        digests={votes.model_name(i): votes.digest(i) for i in range(len(votes))},
        at=list(settings.at),
        target=settings.target,
    )
