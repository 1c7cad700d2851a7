"""The job behind `bayesscale newmodel`: counts of many models in, a new model's rates on all their problems out.

fit with and without difficulties → predict → tables → files → plots
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes

from bayesscale.attempts import Attempts
from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.resampling.crossed import CrossedFit, CrossedForecast, fit_crossed
from bayesscale.resampling.stored import save_crossed
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

if TYPE_CHECKING:
    import pandas as pd

LABELS = {"difficulty": True, "level only": False}
"""Fits of each new model: with what the old models say of each problem, and without."""
MEANINGS = {
    "summary": "one row per new model, fit and quantity: level, slope, concentration; convergence, contraction, findings",
    "accuracy": "one row per new model and fit: accuracy over all problems of the old models, and what was tried",
    "problems": "one row per new model and problem: counts, success rate, the problem's easiness to the old models",
    "findings": "one row per finding: what was odd about the data or a fit, and what to try",
}
NOTES = (
    "Accuracy is the mean success rate over all problems that the old models tried, those new to the model among them.",
    "difficulty: old models say how easy each problem is; level only: the same fit without that, to compare with.",
    "Not for pass@k far beyond the samples: difficulty is censored where no model solves a problem.",
    "",
)


@dataclass(frozen=True)
class Settings:
    """What is asked.

    Attributes
    ----------
    new : names of the new models (their labels, joined by " / "); all others are old.
    benchmark : key column whose labels keep problems apart.
    plots : models to draw at most; 0 for no plots.
    """

    new: tuple[str, ...]
    benchmark: str = "benchmark"
    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 0
    plots: int = 6


def run_newmodel(
    attempts: Attempts,
    settings: Settings,
    *,
    out: Path,
    overwrite: bool = False,
    inputs: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> Outcome[CrossedFit]:
    """Fit, predict, and write everything to `out`; parameters as of `bayesscale.runs.job.run`.

    Raises
    ------
    InputError : `out` is in use, an unknown model, fewer than two old ones, or a problem none of them has tried.
    """
    if settings.benchmark not in ("benchmark", *attempts.key_names):
        what = f"--benchmark {settings.benchmark!r} is none of the columns that name a model"
        raise InputError("NEW-MODEL", what, fix=f"these are {', '.join(attempts.key_names)}")
    new, old = divided(attempts, settings.new)
    with replacing(out, overwrite=overwrite) as folder:
        clock = Clock()
        fits = fit_all(new, old, settings, report)
        clock.lap("fit")
        forecasts = {(each.index, each.label): each.fit.predict() for each in fits}
        tables = tables_of(attempts, new, fits, forecasts)
        clock.lap("forecast")
        if settings.plots:
            from bayesscale.runs.pictures import draw_jobs

            draw_jobs(picture_jobs(fits, forecasts, settings, folder / "plots"), folder / "plots", report)
            clock.lap("plots")
        about = about_run(new, old, settings, fits, clock)
        about |= {"inputs": dict(inputs or {}), "arguments": dict(arguments or {})}
        write_results(folder, fits, save_crossed, tables, about, MEANINGS, NOTES)
    return Outcome(out, fits, tables, about)


def divided(attempts: Attempts, names: Sequence[str]) -> tuple[Attempts, Attempts]:
    """The new models and the old ones.

    Raises
    ------
    InputError : a name that is no model's; says which are nearest.
    """
    known = {attempts.model_name(i): i for i in range(len(attempts))}
    for name in names:
        if name not in known:
            from difflib import get_close_matches

            near = ", ".join(get_close_matches(name, known)) or ", ".join(list(known)[:5])
            raise InputError("NEW-MODEL", f"there is no model {name!r}", fix=f"did you mean {near}?")
    chosen = [known[name] for name in dict.fromkeys(names)]
    rest = [i for i in range(len(attempts)) if i not in chosen]
    if not chosen or len(rest) < 2:
        what = f"needs a new model and two old ones or more, got {len(chosen)} and {len(rest)}"
        raise InputError("NEW-MODEL", what, fix="name fewer models with --new, or add tables of old ones")
    return attempts.subset(chosen), attempts.subset(rest)


def fit_all(new: Attempts, old: Attempts, settings: Settings, report: Report) -> list[Labelled[CrossedFit]]:
    """Fit every new model with and without what the old ones say of the problems."""
    fits = []
    for label, difficulty in LABELS.items():
        found = fit_crossed(
            new, old, difficulty=difficulty, benchmark=settings.benchmark, sampler=settings.sampler,
            seed=settings.seed, progress=stage(report, f"fit, {label}"),
        )  # fmt: skip
        fits += [Labelled(i, label, fit) for i, fit in enumerate(found)]
    return fits


type Forecasts = Mapping[tuple[int, str], CrossedForecast]


def tables_of(
    attempts: Attempts, new: Attempts, fits: Sequence[Labelled[CrossedFit]], forecasts: Forecasts
) -> dict[str, pd.DataFrame]:
    """Every table of a run, by name."""
    import pandas as pd

    def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return with_keys(pd.concat(parts, ignore_index=True), new.key_names, new.keys)

    accuracy, problems = [], []
    for each in fits:
        found = forecasts[each.index, each.label]
        tried = {"samples": int(found.n.sum()), "share_correct": found.n_correct.sum() / found.n.sum()}
        about = {"old_models": each.fit.difficulty.models, "status": each.fit.status, "model_index": each.index}
        accuracy.append(found.summary().assign(fit=each.label, **tried, **about))
        if LABELS[each.label]:
            known = each.fit.difficulty
            told = {"easiness": known.easiness, "easiness_sd": known.sd, "model_index": each.index}
            problems.append(found.table().assign(**told))
    return {
        "summary": summary_table(fits, new.key_names, new.keys),
        "accuracy": joined(accuracy),
        "problems": joined(problems),
        "findings": findings_table(attempts.findings, fits),
    }


def picture_jobs(
    fits: Sequence[Labelled[CrossedFit]], forecasts: Forecasts, settings: Settings, folder: Path
) -> list[tuple[Path, Callable[[], Axes]]]:
    """The rates of up to so many new models, worst fits first."""
    from bayesscale.plots.newmodel import plot_new_model

    jobs: list[tuple[Path, Callable[[], Axes]]] = []
    for group in models_to_draw(fits, settings.plots):
        each = group[0]
        path = folder / f"{each.index + 1:02d}-{slug(each.fit.name)}-problems.png"
        jobs.append((path, lambda f=forecasts[each.index, each.label]: plot_new_model(f)))
    return jobs


def about_run(
    new: Attempts, old: Attempts, settings: Settings, fits: Sequence[Labelled[CrossedFit]], clock: Clock
) -> dict[str, Any]:
    """What was run, on what, and how it ended."""
    return description(
        "newmodel",
        fits,
        clock,
        key_names=list(new.key_names),
        new=[new.model_name(i) for i in range(len(new))],
        old=[old.model_name(i) for i in range(len(old))],
        problems=len(old.problems),
        samples={"new": int(new.n.sum()), "old": int(old.n.sum())},
        digests={part.model_name(i): part.digest(i) for part in (new, old) for i in range(len(part))},
        benchmark=settings.benchmark,
    )
