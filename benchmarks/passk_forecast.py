"""Forecasts of coverage on real logs: 30, 100 and 1000 samples per problem to 10,000 attempts, and stopped sampling.

    python -m benchmarks.passk_forecast FILE [--checkpoints N] [--n0 30,100,1000] [--replicates 20] [--laws all] [--baselines all]
    python -m benchmarks.passk_forecast FILE --pooled [--checkpoints N]
    python -m benchmarks.passk_forecast FILE --stopped

FILE is a table of counts: columns model, benchmark, problem, n, n_correct, params, train_tokens (Pythia checkpoints), or with
``--stopped`` model, benchmark, problem, n, n_success, cap (batches of 60 until a success). Checkpoints with at least 30 problems
of 10,000 samples and a mean success rate of 2e-4 are used, or N of them evenly spaced in the order of their mean success rate,
the lowest and the highest among them. Every replicate draws 10,000 samples of each problem without replacement, those trained on
among them; the truth is the share then solved. All replicates of all checkpoints are fitted in one call per law and n0.

Prints means over checkpoints and replicates as each law ends. With ``--results FILE.csv`` the scores of each law are also
appended there when it ends, and what the file already holds is not run again: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import bayesscale as bs
from bayesscale.attempts import Attempts
from bayesscale.ingest.attempts import read_attempts
from bayesscale.rates import RATE_LAWS
from bayesscale.resampling.baselines import COVERAGE_BASELINES
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
from benchmarks.progress import progress_lines

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


def spaced(attempts: Attempts, wanted: int | None) -> Attempts:
    """So many checkpoints, evenly spaced in the order of their mean success rate; ties go by name."""
    if wanted is None or wanted >= len(attempts):
        return attempts
    rate = [(attempts.n_correct[r] / attempts.n[r]).mean() for r in map(attempts.rows, range(len(attempts)))]
    order = sorted(range(len(attempts)), key=lambda i: (rate[i], attempts.model_name(i)))
    chosen = np.unique(np.linspace(0, len(order) - 1, wanted).round().astype(int))
    return attempts.subset(sorted(order[i] for i in chosen))


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


def law_rows(train: Split, law: str, sampler: bs.Sampler, n0: int) -> list[dict]:
    """Scores of one law, every checkpoint and replicate a unit of one call of the sampler."""
    fits = fit_rates(train.train, law, sampler=sampler, progress=progress_lines(f"n0 {n0} {law}"))
    failed = sum(fit.status == "fail" for fit in fits)
    print(f"  {law}: {failed} of {len(fits)} fits failed the gate", flush=True)
    rows = score_forecasts([forecast(fit, train.k) for fit in fits], train, [law])
    return [row | {"status": fit.status} for row, fit in zip(rows, fits, strict=True)]  # one k: one row per fit


def baseline_rows(train: Split, name: str) -> list[dict]:
    return [row | {"status": "ok"} for row in score_baselines(train, [name], seed=0)]


def pooled_rows(parts: list[Split], law: str, draws: int) -> list[dict]:
    """Scores of one law with its tail pooled over the checkpoints of a replicate, replicate by replicate."""
    rows = []
    for r, part in enumerate(parts):
        pooled = fit_rates_pooled(part.train, law, covariates=("params", "train_tokens"), given={"draws": draws})
        shared = pooled.summary()[["parameter", "q05", "q50", "q95"]].round(2).values.tolist()
        print(f"  pooled {law}, replicate {r + 1} of {len(parts)}: {pooled.status}; {shared}", flush=True)
        found = score_forecasts([forecast(fit, part.k) for fit in pooled.fits], part, [f"pooled {law}"])
        rows += [row | {"model": f"{row['model']} / {r}", "status": pooled.status} for row in found]
    return rows


class Ledger:
    """Scores so far: of this run, and of earlier ones where a file keeps them."""

    def __init__(self, path: str | None, run: str) -> None:
        self.path, self.run = None if path is None else Path(path), run
        self.table = pd.read_csv(self.path) if self.path and self.path.exists() else pd.DataFrame()

    def find(self, predictor: str, n0: int) -> pd.DataFrame:
        if self.table.empty:
            return self.table
        own = (self.table["predictor"] == predictor) & (self.table["n0"] == n0) & (self.table["run"] == self.run)
        return self.table[own]

    def add(self, rows: list[dict], n0: int) -> pd.DataFrame:
        found = table_of(rows, n0).assign(run=self.run)
        self.table = pd.concat([self.table, found], ignore_index=True)
        if self.path is not None:
            found.to_csv(self.path, mode="a", header=not self.path.exists(), index=False)
        return found


def score_all(n0: int, ledger: Ledger, jobs: dict[str, Callable[[], list[dict]]]) -> None:
    """Score each predictor that the ledger lacks, and print it."""
    for predictor, job in jobs.items():
        start, found = time.perf_counter(), ledger.find(predictor, n0)
        if found.empty:
            found = ledger.add(job(), n0)
        failed = (found["status"] == "fail").mean()
        report(found, start, f"n0 {n0} {predictor}, {failed:.1%} of the fits failed the gate")
        good = found[found["status"] != "fail"]
        if 0 < len(good) < len(found):
            print("without those\n" + score_means(good).round(3).to_string(index=False), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--laws", default="beta_mixture,beta,logit_normal", help="names, or all")
    parser.add_argument("--baselines", default="ols,beta_binomial_mle", help="names, or all")
    parser.add_argument("--checkpoints", type=int, help="so many, evenly spaced by mean success rate; default all")
    parser.add_argument("--replicates", type=int, default=20)
    parser.add_argument("--n0", default="30,100,1000")
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--lanes", type=int, default=512)
    parser.add_argument("--results", help="CSV file of scores, added to")
    parser.add_argument("--pooled", action="store_true")
    parser.add_argument("--stopped", action="store_true")
    arguments = parser.parse_args()
    laws = named(arguments.laws, [name for name in RATE_LAWS if name != "jeffreys"])
    baselines = named(arguments.baselines, list(COVERAGE_BASELINES))
    lanes = min(arguments.lanes, 40) if arguments.stopped else arguments.lanes
    draws = arguments.draws
    sampler = bs.Sampler(draws=draws, keep=draws, warmup=(60, 100, 100), lanes=lanes)
    if arguments.stopped:
        attempts = read_attempts(
            [arguments.file], model="model", problem="problem", n="n", correct="n_success", stopping="batch", batch=60,
            cap="cap",
        )  # fmt: skip
        print_naive(attempts)
        ledger = Ledger(arguments.results, "stopped")
        for n0 in (60, 300, 1020):
            train = split(attempts, n0, [10_020])
            score_all(n0, ledger, {law: partial(law_rows, train, law, sampler, n0) for law in laws})
        return
    attempts = spaced(checkpoints(arguments.file), arguments.checkpoints)
    print(f"{len(attempts)} checkpoints, {attempts.n.size} problems, {arguments.replicates} replicates", flush=True)
    print("  " + ", ".join(attempts.model_name(i) for i in range(len(attempts))), flush=True)
    ledger = Ledger(arguments.results, f"{len(attempts)} checkpoints, {arguments.replicates} replicates")
    for n0 in map(int, arguments.n0.split(",")):
        parts = [split(attempts, n0, [TARGET], seed=2 * r) for r in range(arguments.replicates)]
        if arguments.pooled:
            jobs = {f"pooled {law}": partial(pooled_rows, parts, law, draws) for law in laws}
        else:
            train = stacked(parts)
            jobs = {name: partial(baseline_rows, train, name) for name in baselines}
            jobs |= {law: partial(law_rows, train, law, sampler, n0) for law in laws}
        score_all(n0, ledger, jobs)


def named(text: str, every: list[str]) -> list[str]:
    """The names listed, or all."""
    return every if text == "all" else [name for name in text.split(",") if name]


if __name__ == "__main__":
    main()
