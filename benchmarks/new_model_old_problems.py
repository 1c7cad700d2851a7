"""A new model on old problems: its accuracy over a whole benchmark, predicted from one sample on each of a few problems.

    python -m benchmarks.new_model_old_problems FILE [--tried 5 10 20] [--seeds 1] [--draws 500] [--models N]

FILE has columns model, problem, n and n_correct; rows of one model and problem (its runs) are added up. Each model in turn is
the new one and the rest are old. It is given one of its samples on each of m problems drawn at random, and what is predicted
is its score: the mean over problems of n_correct / n. That score contains the luck of the samples not yet seen, so the
predictions do too: the rest of each problem's samples is drawn from its binomial.

    difficulty   fit_crossed
    level only   fit_crossed(difficulty=False): the same Beta law and design, no difficulties
    plain mean   share correct among the m; interval and CRPS from a Beta(c + 1/2, m - c + 1/2)

Prints, over models and seeds, mean absolute error of the mean (for the plain mean: of the share itself), mean error, CRPS,
coverage and width of the 90% equal-tailed interval; the same for models that score up to .1, up to .9 and above; the paired
difference in CRPS to the plain mean with its standard error over models; and, over problems not tried, the mean absolute and
the root mean squared error of the predicted rates, where the plain mean predicts itself everywhere. Set OMP_NUM_THREADS=1
where other work shares the processors.

Measured with seed 0, every model held out once; mean absolute error of the score for difficulty / level only / plain mean, and
coverage of the 90% interval with difficulties:

    OTIS Mock AIME, 81 models, 45 problems     m = 5  .067 .084 .094, .94     10  .049 .061 .064, .90     20  .036 .042 .043, .91
    GPQA Diamond, 45 models, 198 problems      m = 5  .096 .117 .150, .93     10  .092 .097 .109, .80     20  .057 .054 .058, .91

Difficulties gain little where m is large or, on OTIS, where a model solves almost nothing. One problem's rate, not tried,
is predicted with a mean absolute error of .100 .087 .073 (OTIS) and .201 .194 .175 (GPQA), against .18 .17 .17 and .28 .27 .26.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import pandas as pd

from bayesscale.attempts import Attempts
from bayesscale.inference.settings import Sampler
from bayesscale.precision import enable_float64
from bayesscale.resampling.crossed import CrossedFit, fit_crossed
from bayesscale.scoring import covered, crps, width

BINS = {"below .1": (-1.0, 0.1), ".1 to .9": (0.1, 0.9), "above .9": (0.9, 2.0)}


def read(path: str) -> Attempts:
    """Read a table, the runs of a model added up."""
    table = pd.read_csv(path, dtype={"model": str, "problem": str})
    table = table.groupby(["model", "problem"], as_index=False)[["n", "n_correct"]].sum()
    return Attempts.from_frame(table, model="model", problem="problem", n="n", correct="n_correct")


def few(attempts: Attempts, m: int, seed: int) -> Attempts:
    """One sample on each of m of every model's problems, both drawn at random without replacement."""
    rows, correct = [], []
    for i in range(len(attempts)):
        rng = np.random.default_rng([seed, m, int(attempts.digest(i), 16)])
        own = np.arange(attempts.n.size)[attempts.rows(i)]
        chosen = rng.choice(own, m, replace=False)
        c = attempts.n_correct[chosen]
        rows.append(chosen)
        correct.append(rng.hypergeometric(c, attempts.n[chosen] - c, 1))
    rows, correct = np.concatenate(rows), np.concatenate(correct)
    used, problem = np.unique(attempts.problem[rows], return_inverse=True)
    return replace(
        attempts,
        model=np.repeat(np.arange(len(attempts)), m),
        problems=tuple(attempts.problems[j] for j in used),
        problem=problem,
        n=np.ones(len(rows), np.int64),
        n_correct=correct,
    )


def realised(rates: np.ndarray, n: np.ndarray, seen: np.ndarray, correct: np.ndarray, seed: int) -> np.ndarray:
    """Draws of the score: what was seen, and the rest of each problem's n samples at its rate; (draw,)."""
    rest = np.random.default_rng(seed).binomial(n - seen, rates)
    return ((correct + rest) / n).mean(axis=1)


def predictions(fit: CrossedFit, whole: Attempts, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws of the score, rates expected and counted on the problems not tried."""
    labels = [whole.problems[j] for j in whole.problem]
    forecast = fit.predict(labels)
    draws = realised(forecast.rates, whole.n, forecast.n, forecast.n_correct, seed)
    fresh = forecast.n == 0
    return draws, forecast.rates.mean(axis=0)[fresh], (whole.n_correct / whole.n)[fresh]


def plain(case: Attempts, whole: Attempts, seed: int) -> np.ndarray:
    """Draws of the score when all problems share one rate of which nothing is known beforehand; (draw,)."""
    rng, c, m = np.random.default_rng(seed), case.n_correct.sum(), len(case.n)
    rates = rng.beta(c + 0.5, m - c + 0.5, (1000, 1))
    labels = {case.problems[j]: k for j, k in zip(case.problem, case.n_correct, strict=True)}
    of = [whole.problems[j] for j in whole.problem]
    seen = np.array([label in labels for label in of], int)
    return realised(rates, whole.n, seen, np.array([labels.get(label, 0) for label in of]), seed)


def scores(draws: np.ndarray, point: float, truth: float) -> dict[str, float]:
    at = np.asarray(truth)
    return {
        "truth": truth,
        "mae": abs(point - truth),
        "error": point - truth,
        "crps": float(crps(draws, at)),
        "covered90": float(covered(draws, at, 0.9)),
        "width90": float(width(draws, 0.9)),
    }


def trial(attempts: Attempts, m: int, seed: int, sampler: Sampler, models: int | None) -> list[dict[str, object]]:
    """Hold every model out at one m and seed; one row per model and predictor."""
    new = few(attempts, m, seed).subset(slice(models))
    wholes = [attempts.subset([i]) for i in range(len(new))]
    truths = [(whole.n_correct / whole.n).mean() for whole in wholes]
    rows = []
    for name, difficulty in (("difficulty", True), ("level only", False)):
        begin = time.perf_counter()
        fits = fit_crossed(new, attempts, difficulty=difficulty, sampler=sampler, seed=seed)
        failed = sum(fit.status == "fail" for fit in fits)
        print(
            f"m {m} seed {seed} {name}: {len(fits)} fits, {failed} failed, {time.perf_counter() - begin:.0f} s",
            flush=True,
        )
        for fit, whole, truth in zip(fits, wholes, truths, strict=True):
            draws, expected, counted = predictions(fit, whole, seed)
            row = {"predictor": name, "model": fit.name, "m": m, "seed": seed, "slope": fit.draws.flat("slope").mean()}
            rows.append(row | scores(draws, draws.mean(), truth) | misses(expected, counted))
    for i, (whole, truth) in enumerate(zip(wholes, truths, strict=True)):
        case = new.subset([i])
        share, tried = case.n_correct.mean(), {case.problems[j] for j in case.problem}
        fresh = np.array([whole.problems[j] not in tried for j in whole.problem])
        row = {"predictor": "plain mean", "model": case.model_name(0), "m": m, "seed": seed}
        counted = (whole.n_correct / whole.n)[fresh]
        rows.append(row | scores(plain(case, whole, seed), share, truth) | misses(share, counted))
    return rows


def misses(expected: np.ndarray | float, counted: np.ndarray) -> dict[str, float]:
    """Errors of the predicted rates of one model's problems not tried."""
    return {
        "problem_mae": np.abs(expected - counted).mean(),
        "problem_rmse": np.sqrt(np.mean((expected - counted) ** 2)),
    }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over models and seeds."""
    names = ["mae", "error", "crps", "covered90", "width90", "problem_mae", "problem_rmse"]
    return table.groupby(["m", "predictor"], sort=False)[names].mean().round(4)


def paired(table: pd.DataFrame) -> pd.DataFrame:
    """CRPS less that of the plain mean, with its standard error over models, and the share of models it is better for."""
    wide = table.pivot_table(index=["m", "model"], columns="predictor", values="crps")
    gaps = wide.drop(columns="plain mean").sub(wide["plain mean"], axis=0)
    by = gaps.groupby("m")
    parts = {"mean": by.mean(), "se": by.sem(), "better": gaps.lt(0).groupby("m").mean()}
    return pd.concat(parts, axis=1).round(4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--tried", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--models", type=int, default=None)
    options = parser.parse_args()
    enable_float64()
    attempts = read(options.file)
    sampler = Sampler(draws=options.draws, warmup=(60, 100, 100))
    rows = [
        row
        for seed in range(options.seeds)
        for m in options.tried
        for row in trial(attempts, m, seed, sampler, options.models)
    ]
    table = pd.DataFrame(rows)
    print(summary(table).to_string())
    for label, (low, high) in BINS.items():
        part = table[(table["truth"] > low) & (table["truth"] <= high)]
        print(f"\nscore {label}: {part['model'].nunique()} models\n{summary(part).to_string() if len(part) else ''}")
    print(f"\nCRPS less that of the plain mean\n{paired(table).to_string()}")


if __name__ == "__main__":
    main()
