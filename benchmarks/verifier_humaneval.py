"""Imperfect verifiers on HumanEval: ceilings over models, and how many samples are worth drawing.

    python -m benchmarks.verifier_humaneval MODELS OPTIMA LEADERBOARD [--part ceiling|samples] [--models N] [--problems 150]

MODELS is the table of 17 models sampled 200 times (columns model, n_tasks, pass1_plus, p_correct_given_base_pass), OPTIMA the
published best K (model, cost_per_false_positive, max_reward, optimal_k, k_max), both by Stroebl, Kapoor and Narayanan (2024),
arXiv:2411.17501; LEADERBOARD the EvalPlus table of greedy samples (model, n_humaneval_base, n_humaneval_plus, n_mbpp_base,
n_mbpp_plus).

The first part regresses the ceiling on single-sample accuracy: least squares beside errors in variables, with plain binomial
errors and with half of a sample's variance lying between tasks. The second needs counts per problem, which are not
public: it simulates a benchmark with the published accuracy and ceiling of every model, whose spreads and correlation are
chosen (see the options), fits the models few at a time, those with published optima first, and prints as it goes: for each cost
of a false positive (benefit 1, cap 200) the posterior of the best K, what to choose, the regret expected, the probabilities of
"abstain", "a finite optimum" and "no finite optimum" without a cap, the true best K of the simulated problems, the loss that the
choice has under their truth, and the published optimum. At the end the pattern over models: how many optima are finite, at the
cap or abstentions at each cost, chosen, true and published.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import pandas as pd

from bayesscale.attempts import Attempts
from bayesscale.resampling.ceiling import CeilingData, ceiling_counts, ceiling_data, fit_ceiling, least_squares
from bayesscale.resampling.verifier import Stakes, best_samples, utility
from bayesscale.resampling.verifier_fit import VERIFIER_SAMPLER, VerifierFit, choose, fit_verifier
from bayesscale.simulation.resampling import calibrated, simulate_verifier

COSTS = (0, 1, 2, 4, 8)
CAP = 200
NEAR_CAP = 0.95
"""Share of the cap from which an optimum counts as none: the published curves stop at the cap and are flat before it."""


def ceiling_rows(models: pd.DataFrame, leaderboard: pd.DataFrame) -> pd.DataFrame:
    """One row per table and assumption about errors."""
    mbpp = leaderboard.dropna(subset=["n_mbpp_base"])
    sets = {"17 models, 200 samples": sampled(models)}
    for between in (0.0, 0.5):
        said = f"greedy, {between:g} between tasks"
        for name, table, tasks in (("humaneval", leaderboard, 164), ("mbpp", mbpp, 378)):
            counts = table[f"n_{name}_base"], table[f"n_{name}_plus"]
            sets[f"{name} {said}"] = ceiling_counts(list(table["model"]), *counts, tasks, between=between)
    return pd.DataFrame([regression_row(name, data) for name, data in sets.items()])


def sampled(models: pd.DataFrame) -> CeilingData:
    columns = (models[name] for name in ("pass1_plus", "p_correct_given_base_pass", "n_tasks"))
    return ceiling_data(list(models["model"]), *columns, samples=200)


def regression_row(name: str, data: CeilingData) -> dict[str, object]:
    """Least squares and the posterior of one table."""
    line, fit = least_squares(data), fit_ceiling(data)
    row: dict[str, object] = {"table": name, "models": len(data.models), "ols_slope": line.slope}
    row |= {"ols_intercept": line.intercept, "ols_r2": line.r_squared}
    for quantity in ("slope", "intercept", "scatter", "explained"):
        low, middle, high = np.quantile(fit.draws.flat(quantity), [0.05, 0.5, 0.95])
        row[quantity] = f"{middle:.3f} [{low:.3f}, {high:.3f}]"
    return row | {"status": fit.status}


def simulated(models: pd.DataFrame, options: argparse.Namespace) -> tuple[Attempts, pd.DataFrame]:
    """Counts per problem with the published accuracies, and the truth."""
    spread = {"acceptance_sd": options.acceptance_sd, "share_sd": options.share_sd}
    laws = calibrated(models, correlation=options.correlation, **spread)
    table, truth = simulate_verifier(options.seed, models=laws, problems=options.problems, n=options.n)
    columns = {"n": "n", "correct": "n_correct", "accepted": "n_accepted", "labelled": "n_labelled"}
    attempts = Attempts.from_frame(
        table, model="model", problem="problem", correct_accepted="n_correct_accepted", **columns
    )
    return attempts, truth


def choice_row(fit: VerifierFit, cost: float, truth: pd.DataFrame, optima: pd.DataFrame) -> dict[str, object]:
    """The posterior of K* at one cost, beside the truth simulated and the number published."""
    stakes = Stakes(1.0, float(cost))
    choice, free = choose(fit, stakes, cap=CAP), choose(fit, stakes, draws=200)
    a, s = truth["acceptance"].to_numpy(), truth["share"].to_numpy()
    best = best_samples(a, s, stakes, cap=CAP)
    loss = float(best.utility - utility(a, s, choice.recommended, stakes))
    known = optima[(optima["model"] == fit.name) & (optima["cost_per_false_positive"] == cost)]
    low, high = np.quantile(choice.best, [0.05, 0.95], method="nearest")
    return {
        "model": fit.name,
        "cost": cost,
        "choose": choice.recommended,
        "eti90": f"{low:g}..{high:g}",
        "utility": choice.recommended_utility.mean(),
        "regret": choice.expected_regret,
        "p_abstain": free.p_abstain,
        "p_finite": free.p_finite,
        "p_no_finite": free.p_infinite,
        "true_best": float(best.samples),
        "true_loss": loss,
        "inside": low <= best.samples <= high,
        "published": known["optimal_k"].iloc[0] if len(known) else np.nan,
        "published_reward": known["max_reward"].iloc[0] if len(known) else np.nan,
        "status": fit.status,
    }


def in_order(models: pd.DataFrame, optima: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """The models with published optima first, then the others; at most so many."""
    known = models["model"].isin(set(optima["model"]))
    return pd.concat([models[known], models[~known]], ignore_index=True).head(most or len(models))


def kind(samples: float) -> str:
    """What an optimum under the cap amounts to."""
    if np.isnan(samples):
        return "unknown"
    return "abstain" if samples == 0 else "at the cap" if samples >= NEAR_CAP * CAP else "finite"


def pattern(table: pd.DataFrame) -> pd.DataFrame:
    """Counts of models by cost and kind of optimum: chosen, true and published; and how often chosen and published agree."""
    named = {name: table[name].map(kind) for name in ("choose", "true_best", "published")}
    parts = {
        name: pd.crosstab(table["cost"], kinds).reindex(columns=["abstain", "finite", "at the cap"], fill_value=0)
        for name, kinds in named.items()
    }
    known = named["published"] != "unknown"
    agree = (named["choose"] == named["published"])[known].groupby(table["cost"]).agg(["sum", "size"])
    return pd.concat(parts, axis=1).assign(agree=agree["sum"].astype(str) + " of " + agree["size"].astype(str))


def print_samples(models: pd.DataFrame, optima: pd.DataFrame, options: argparse.Namespace) -> None:
    """Fit the simulated benchmark a few models at a time and print the best K by cost."""
    attempts, truth = simulated(in_order(models, optima, options.models), options)
    names = list(dict.fromkeys(truth["model"]))
    place = [next(i for i in range(len(attempts)) if attempts.model_name(i) == name) for name in names]
    sampler = replace(VERIFIER_SAMPLER, draws=options.draws, keep=min(options.draws, VERIFIER_SAMPLER.keep))
    tables, start = [], time.perf_counter()
    for begin in range(0, len(place), options.batch):
        fits = fit_verifier(attempts.subset(place[begin : begin + options.batch]), sampler=sampler, seed=options.seed)
        rows = [choice_row(fit, cost, truth[truth["model"] == fit.name], optima) for fit in fits for cost in COSTS]
        tables.append(pd.DataFrame(rows))
        print(f"\n{begin + len(fits)} of {len(place)} models, {time.perf_counter() - start:.0f} s", flush=True)
        print(tables[-1].to_string(**WIDE), flush=True)
    table = pd.concat(tables, ignore_index=True)
    columns = ["regret", "true_loss", "inside", "p_abstain", "p_finite", "p_no_finite"]
    print("\nmeans by cost\n" + table.groupby("cost")[columns].mean().round(4).to_string())
    print("\nmodels by kind of optimum\n" + pattern(table).to_string())


WIDE = {"index": False, "float_format": "{:.4g}".format}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("models_file", "optima", "leaderboard"):
        parser.add_argument(name, metavar=name.removesuffix("_file").upper())
    parser.add_argument("--part", choices=["ceiling", "samples"], help="only this part")
    parser.add_argument("--models", type=int, help="so many models in the second part")
    parser.add_argument("--batch", type=int, default=3, help="models fitted at once")
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--problems", type=int, default=150)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--acceptance-sd", type=float, default=2.0)
    parser.add_argument("--share-sd", type=float, default=1.5)
    parser.add_argument("--correlation", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    models, optima = pd.read_csv(options.models_file), pd.read_csv(options.optima)
    if options.part != "samples":
        print(ceiling_rows(models, pd.read_csv(options.leaderboard)).to_string(**WIDE), flush=True)
    if options.part != "ceiling":
        print_samples(models, optima, options)


if __name__ == "__main__":
    main()
