"""Forecasts of coverage on real logs: 30, 100 and 1000 samples per problem to 10,000 attempts, and stopped sampling.

    python -m benchmarks.passk_forecast FILE [--laws beta_mixture,beta,logit_normal] [--replicates 20] [--pooled]
    python -m benchmarks.passk_forecast FILE --stopped

FILE is a table of counts: columns model, benchmark, problem, n, n_correct, params, train_tokens (Pythia checkpoints), or with
``--stopped`` model, benchmark, problem, n, n_success, cap (batches of 60 until a success). Checkpoints with at least 30 problems
of 10,000 samples and a mean success rate of 2e-4 are used. Every replicate draws 10,000 samples of each problem without
replacement, those trained on among them; the truth is the share then solved. Prints means over checkpoints and replicates.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import pandas as pd

import bayesscale as bs
from bayesscale.attempts import Attempts
from bayesscale.ingest.attempts import read_attempts
from bayesscale.resampling.fitting import fit_rates
from bayesscale.resampling.forecast import forecast
from bayesscale.resampling.holdout import (
    Split,
    long_enough,
    score_baselines,
    score_forecasts,
    score_means,
    split,
    table_of,
)
from bayesscale.resampling.passk import empirical_coverage
from bayesscale.resampling.pooled import fit_rates_pooled

TARGET = 10_000
LEAST_PROBLEMS, LEAST_RATE = 30, 2e-4


def checkpoints(path: str) -> Attempts:
    """Read the Pythia table and keep the checkpoints with enough to forecast."""
    attempts = read_attempts(
        [path], model=["model", "benchmark"], problem="problem", n="n", correct="n_correct",
        covariates=["params", "train_tokens"],
    )  # fmt: skip
    attempts = long_enough(attempts, TARGET)
    rate = [(attempts.n_correct[r] / attempts.n[r]).mean() for r in map(attempts.rows, range(len(attempts)))]
    size = [attempts.n[attempts.rows(i)].size for i in range(len(attempts))]
    return attempts.subset((np.array(rate) >= LEAST_RATE) & (np.array(size) >= LEAST_PROBLEMS))


def stacked(parts: list[Split]) -> Split:
    """Join replicates into one batch: each is a model of its own."""
    models = [len(part.train) for part in parts]
    starts = np.cumsum([0, *models[:-1]])
    first = parts[0].train
    train = replace(
        first,
        key_names=(*first.key_names, "replicate"),
        keys=tuple((*key, str(r)) for r, part in enumerate(parts) for key in part.train.keys),
        model=np.concatenate([part.train.model + start for part, start in zip(parts, starts, strict=True)]),
        problem=np.concatenate([part.train.problem for part in parts]),
        n=np.concatenate([part.train.n for part in parts]),
        n_correct=np.concatenate([part.train.n_correct for part in parts]),
        covariates={name: np.concatenate([part.train.covariates[name] for part in parts]) for name in first.covariates},
        findings=(),
    )
    return Split(train, parts[0].k, np.concatenate([part.truth for part in parts]))


def report(table: pd.DataFrame, start: float, label: str) -> None:
    print(f"{label}: {time.perf_counter() - start:.0f} s", flush=True)
    print(score_means(table).round(3).to_string(index=False), flush=True)


def print_naive(attempts: Attempts) -> None:
    """Show the naive curve, mean of 1 - (1 - c/n)^k, beside Kaplan-Meier: stopping at a success biases c/n upwards."""
    at = np.array([60, 300, 1020, 5040, 10_020])
    print("share solved within k attempts, stopped sampling: naive | Kaplan-Meier, at k =", *at)
    for i in range(len(attempts)):
        rows = attempts.rows(i)
        rate = attempts.n_correct[rows] / attempts.n[rows]
        naive = 1.0 - (1.0 - rate[:, None]) ** at
        honest = empirical_coverage(attempts.subset([i]), at).value
        print(f"  {attempts.model_name(i):20s}", *np.round(naive.mean(axis=0), 3), "|", *np.round(honest, 3))


def evaluate(train: Split, n0: int, laws: list[str], baselines: list[str], sampler: bs.Sampler) -> pd.DataFrame:
    rows = []
    for law in laws:
        fits = fit_rates(train.train, law, sampler=sampler)
        failed = sum(fit.status == "fail" for fit in fits)
        if failed:
            print(f"  {law}: {failed} of {len(fits)} fits failed the gate", flush=True)
        rows += score_forecasts([forecast(fit, train.k) for fit in fits], train, [law])
    rows += list(score_baselines(train, baselines, seed=0))
    return table_of(rows, n0)


def evaluate_pooled(parts: list[Split], n0: int, law: str) -> pd.DataFrame:
    """Fit all checkpoints of each replicate together."""
    rows = []
    for part in parts:
        pooled = fit_rates_pooled(part.train, law, covariates=("params", "train_tokens"))
        print(
            f"  pooled {law}: {pooled.status}; {pooled.summary()[['parameter', 'q05', 'q50', 'q95']].round(2).values.tolist()}"
        )
        rows += score_forecasts([forecast(fit, part.k) for fit in pooled.fits], part, [f"pooled {law}"])
    return table_of(rows, n0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--laws", default="beta_mixture,beta,logit_normal")
    parser.add_argument("--baselines", default="ols,beta_binomial_mle")
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--n0", default="30,100,1000")
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--pooled", action="store_true")
    parser.add_argument("--stopped", action="store_true")
    arguments = parser.parse_args()
    laws = [name for name in arguments.laws.split(",") if name]
    baselines = [name for name in arguments.baselines.split(",") if name]
    lanes = 40 if arguments.stopped else 512
    sampler = bs.Sampler(draws=arguments.draws, keep=arguments.draws, warmup=(60, 100, 100), lanes=lanes)
    if arguments.stopped:
        attempts = read_attempts(
            [arguments.file], model="model", problem="problem", n="n", correct="n_success", stopping="batch", batch=60,
            cap="cap",
        )  # fmt: skip
        print_naive(attempts)
        for n0 in (60, 300, 1020):
            start = time.perf_counter()
            table = evaluate(split(attempts, n0, [10_020]), n0, laws, [], sampler)
            print(
                table[["model", "predictor", "truth", "median", "covered90", "width90"]].round(3).to_string(index=False)
            )
            report(table, start, f"stopped, n0 {n0}")
        return
    attempts = checkpoints(arguments.file)
    print(f"{len(attempts)} checkpoints, {attempts.n.size} problems")
    for n0 in map(int, arguments.n0.split(",")):
        start = time.perf_counter()
        parts = [split(attempts, n0, [TARGET], seed=2 * r) for r in range(arguments.replicates)]
        table = (
            evaluate_pooled(parts, n0, laws[0])
            if arguments.pooled
            else evaluate(stacked(parts), n0, laws, baselines, sampler)
        )
        report(table, start, f"n0 {n0}")


if __name__ == "__main__":
    main()
