"""Forecasts of 10,000 attempts on simulated populations: do the default priors hold away from the files they were chosen on?

    python -m benchmarks.passk_simulated [--populations NAME,...] [--n0 30,100] [--replicates 8] [--laws NAME,...]

The priors of the default law were narrowed after looking at two real logs, so those cannot confirm it. These populations were
written down before any law was fitted to them, and none of them is the default law:

    heavy_tail       Beta, mean .02, tail index .12
    light_tail       Beta, mean .05, tail index .8
    two_bumps        half the problems near .2 (Beta(8, 32)), half near 2e-4 (logit-normal, sd .8)
    zero_mass        30% impossible, the rest Beta, mean .03, tail index .5
    log_normal       log p ~ Normal(-5.5, 2.2), cut at 1
    hard             Beta, mean 5e-4, tail index .3: few successes at n0 = 30

Every replicate draws the problems' rates, n0 samples of each, and whether it is solved within 10,000 attempts, those n0 among
them. The forecast is of the share of these problems solved. All populations and replicates are fitted in one call per law
and n0. Prints, per population, law and n0, means over replicates: MAE and mean error of the median, CRPS, coverage of the 50%
and 90% equal-tailed intervals and the width of the latter; then means over populations. With 8 replicates coverage moves in
steps of .125.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit

import bayesscale as bs
from bayesscale.attempts import Attempts
from bayesscale.resampling.fitting import fit_rates
from bayesscale.resampling.forecast import forecast
from bayesscale.resampling.holdout import Split, score_baselines, score_forecasts, table_of

TARGET = 10_000

type Rates = Callable[[np.random.Generator, int], np.ndarray]


def beta(mean: float, tail: float) -> Rates:
    return lambda rng, size: rng.beta(tail, tail * (1 - mean) / mean, size)


def two_bumps(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.where(rng.random(size) < 0.5, rng.beta(8, 32, size), expit(rng.normal(np.log(2e-4), 0.8, size)))


def zero_mass(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.where(rng.random(size) < 0.3, 0.0, beta(0.03, 0.5)(rng, size))


POPULATIONS: dict[str, Rates] = {
    "heavy_tail": beta(0.02, 0.12),
    "light_tail": beta(0.05, 0.8),
    "two_bumps": two_bumps,
    "zero_mass": zero_mass,
    "log_normal": lambda rng, size: np.minimum(np.exp(rng.normal(-5.5, 2.2, size)), 1.0),
    "hard": beta(5e-4, 0.3),
}
"""Success rates by population."""


def simulated(names: list[str], n0: int, options: argparse.Namespace) -> Split:
    """Counts of n0 samples per problem of every population and replicate, and the shares solved within 10,000."""
    keys = [(name, str(r)) for name in names for r in range(options.replicates)]
    size, correct, truth = options.problems, [], []
    for name, r in keys:
        rng = np.random.default_rng([options.seed, int(r), *name.encode()])
        p = POPULATIONS[name](rng, size)
        c = rng.binomial(n0, p)
        later = rng.random(size) < -np.expm1((TARGET - n0) * np.log1p(-np.minimum(p, 1 - 1e-12)))
        correct.append(c)
        truth.append([((c > 0) | later).mean()])
    attempts = Attempts(
        key_names=("population", "replicate"),
        keys=tuple(keys),
        model=np.repeat(np.arange(len(keys)), size),
        problems=tuple(f"p{i:04d}" for i in range(size)),
        problem=np.tile(np.arange(size), len(keys)),
        n=np.full(size * len(keys), n0),
        n_correct=np.concatenate(correct),
    )
    return Split(attempts, np.array([TARGET]), np.array(truth))


def evaluate(parts: Split, law: str, n0: int, sampler: bs.Sampler) -> pd.DataFrame:
    """Scores of one law, and what the gate says of its fits."""
    start = time.perf_counter()
    fits = fit_rates(parts.train, law, sampler=sampler)
    rows = score_forecasts([forecast(fit, parts.k) for fit in fits], parts, [law])
    failed = sum(fit.status == "fail" for fit in fits)
    seconds = time.perf_counter() - start
    print(f"n0 {n0} {law}: {len(fits)} fits, {failed} failed the gate, {seconds:.0f} s", flush=True)
    return table_of(rows, n0)


def means(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    names = ["mae", "error", "crps", "covered50", "covered90", "width90", "truth"]
    scored = table.assign(mae=table["error"].abs(), forecasts=1)
    return scored.groupby(by, sort=False).agg({"forecasts": "sum"} | dict.fromkeys(names, "mean")).round(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--populations", default=",".join(POPULATIONS))
    parser.add_argument("--laws", default="beta_mixture,beta,logit_normal")
    parser.add_argument("--baselines", default="ols")
    parser.add_argument("--n0", default="30,100")
    parser.add_argument("--replicates", type=int, default=8)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--draws", type=int, default=250)
    parser.add_argument("--lanes", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names, laws, baselines = (
        [name for name in text.split(",") if name] for text in (options.populations, options.laws, options.baselines)
    )
    sampler = bs.Sampler(draws=options.draws, keep=options.draws, warmup=(60, 100, 100), lanes=options.lanes)
    tables = []
    for n0 in map(int, options.n0.split(",")):
        parts = simulated(names, n0, options)
        found = [evaluate(parts, law, n0, sampler) for law in laws]
        found.append(table_of(list(score_baselines(parts, baselines, seed=0)), n0))
        table = pd.concat(found, ignore_index=True)
        table["population"] = table["model"].str.split(" / ").str[0]
        print(means(table, ["population", "predictor"]).to_string(), flush=True)
        tables.append(table)
    print("\nover populations\n" + means(pd.concat(tables), ["n0", "predictor"]).to_string())


if __name__ == "__main__":
    main()
