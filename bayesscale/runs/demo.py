"""The demonstration: simulated curves, three of them suppressed by fine-tuning and one that collapses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bayesscale.curves import Curves
from bayesscale.decisions.threshold import crossing
from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.ingest.table import file_digests, read_curves
from bayesscale.laws import LAWS
from bayesscale.result import Fit
from bayesscale.runs.outcome import Outcome
from bayesscale.runs.settings import Settings
from bayesscale.simulation.curves import law_mean

CURVES = (
    ("small-2b", "topic", "0"),
    ("large-8b", "topic", "0"),
    ("large-8b", "topic", "250"),
    ("large-8b", "topic", "2500"),
    ("large-8b", "intent", "0"),
    ("large-8b", "intent", "2500"),
)
LAW_NAMES = ("tempered", "power", "logistic")
THRESHOLD = 0.7
PICTURED = ("large-8b", "topic")
INTRODUCTION = (
    "Two simulated models on two tasks; large-8b also after 250 and 2500 examples of a fine-tuning that suppresses the "
    "behaviour (the last part of a curve's name). Three laws see the first fifth of the shots axis and forecast the rest.\n"
)


def data_folder() -> Path:
    """Where the bundled data are: in the package when installed, at the root of a checkout.

    Raises
    ------
    InputError : neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_data", package.parent / "data"):
        if (folder / "SHA256SUMS").is_file():
            return folder
    raise InputError("DATA-MISSING", "the bundled data are not installed", where=str(package), fix="install again")


def demo_curves() -> tuple[Curves, dict[str, str]]:
    """The demonstration's curves, and the digest of their file."""
    path = data_folder() / "icl_counts" / "curves.csv"
    curves = read_curves(
        path, curve=("model", "task"), x="shots", successes="correct", trials="trials", run="run",
        condition="sft_amount", chance="chance",
    )  # fmt: skip
    return curves.subset([curves.keys.index(key) for key in CURVES]), file_digests(path)


def demo_settings(seed: int = 0) -> Settings:
    """Few laws and draws, so that it takes a minute or two."""
    sampler = Sampler(draws=400, lanes=48, tiers=2)
    laws = tuple(LAWS[name] for name in LAW_NAMES)
    return Settings(laws, shares=(0.2,), pool=False, sampler=sampler, seed=seed, refit=False, plots=4)


def true_crossing(key: tuple[str, ...], threshold: float) -> float:
    """Shots at which the curve that was simulated reaches a value; the truth beside a posterior."""
    import pandas as pd

    truth = pd.read_csv(data_folder() / "icl_counts" / "truth.csv", dtype={"sft_amount": str})
    row = truth.set_index(["model", "task", "sft_amount"]).loc[key]
    shots = np.expm1(np.linspace(0.0, np.log(1e5), 20_000))
    names = {"rho": "rho", "K": "K", "gamma": "gamma", "beta": "beta", "lambda_": "lambda"}
    p = law_mean(shots, **{name: float(row[column]) for name, column in names.items()})
    return float(shots[np.argmax(p >= threshold)]) if (p >= threshold).any() else np.inf


def best_fits(outcome: Outcome) -> list[Fit]:
    """The fits of the law that predicted best."""
    return outcome.fits([outcome.stored.best_law()])


def answers(best: Sequence[Fit]) -> list[str]:
    """How many shots bring the suppressed behaviour back."""
    fits = {fit.name: fit for fit in best}
    lines = [
        f"How many shots bring large-8b to {THRESHOLD:.0%}, before and after fine-tuning? "
        f"(law: {best[0].law.name}; median and 90% equal-tailed interval)"
    ]
    for key in (key for key in CURVES if key[0] == "large-8b" and " / ".join(key) in fits):
        fit = fits[" / ".join(key)]
        found = crossing(fit, THRESHOLD)
        low, middle, high = (found.quantile(q) for q in (0.05, 0.5, 0.95))
        caution = "; the fit failed its checks, do not rely on it" if fit.status == "fail" else ""
        answer = f"{middle:6.1f}  [{low:.1f}, {high:.1f}]  (true: {true_crossing(key, THRESHOLD):.1f}){caution}"
        lines.append(f"  {key[1]}, {key[2]:>4} fine-tuning examples".ljust(38) + answer)
    return lines


def draw_answer(fits: Sequence[Fit], path: Path) -> Path:
    """Draw a task before and after fine-tuning, one panel per amount, and the accuracy asked for."""
    from matplotlib import pyplot as plt

    from bayesscale.plots import plot_curve
    from bayesscale.plots.style import write_title

    named = {fit.name: fit for fit in fits}
    drawn = [named[name] for name in (" / ".join(key) for key in CURVES if key[:2] == PICTURED) if name in named]
    figure, axes = plt.subplots(1, len(drawn), figsize=(3.8 * len(drawn), 3.2), layout="constrained", squeeze=False)
    for place, (fit, ax) in enumerate(zip(drawn, axes[0], strict=True)):
        plot_curve(fit, ax=ax)
        _, task, amount = fit.name.split(" / ")
        failed = " (failed its checks)" if fit.status == "fail" else ""
        write_title(ax, f"{task}, {int(amount):,} fine-tuning examples{failed}", above=1)
        ax.text(1.0, THRESHOLD, f" {THRESHOLD:.0%}", va="bottom", fontsize=8, color="#4d4d4d")
        if place:
            ax.set_ylabel("")
        if place != len(drawn) // 2 and (legend := ax.get_legend()) is not None:
            legend.remove()
        ax.axhline(THRESHOLD, color="#4d4d4d", lw=0.8, ls=(0, (1, 2)), zorder=1)
        ax.set_ylim(0.0, 1.0)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
