"""Majority votes on real multiple-choice answers: what eight votes will score, predicted from four of them.

    python -m benchmarks.votes_gpqa FILE [--n0 4] [--seeds 3] [--draws 500] [--models 40]

FILE is the table of votes on GPQA Diamond by Epoch AI (columns model, run, problem, n, n_correct, target, votes_a to votes_d,
votes_none, votes_available). Every problem is cut to eight votes, n0 of them are drawn without replacement and fitted, and
the score of the vote is predicted in two ways:

    continued  the n0 votes are kept and the rest drawn from their predictive distribution; the truth is the score of all eight
    held out   a vote among the 8 - n0 fresh votes alone; the truth is the score of those held out

Both predictions contain the luck of the votes not yet seen, because the truth does. Prints per forecast, over models and
seeds, the mean and mean absolute error, CRPS, coverage of the 50% and 90% equal-tailed intervals and their width, beside two
baselines without a law: the score of the n0 votes itself, and resampling each problem's own n0 votes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

import bayesscale as bs
from bayesscale.ingest.votes import read_votes
from bayesscale.resampling.vote_fit import VoteFit, fit_votes
from bayesscale.resampling.vote_forecast import vote
from bayesscale.scoring import crps
from bayesscale.votes import Votes, split_votes

LETTERS = tuple(f"votes_{letter}" for letter in "abcd")
VOTES = 8


def read(path: str) -> Votes:
    """Read the table; every run is a model of its own, since the letters are shuffled between runs."""
    columns = {
        "target": "target",
        "n": "n",
        "none": "votes_none",
        "correct": "n_correct",
        "available": "votes_available",
    }
    return read_votes(path, model=["model", "run"], problem="problem", votes=LETTERS, **columns)


def cut(votes: Votes, n: int) -> Votes:
    """n of the votes, drawn at random, on every problem that has as many."""
    votes = votes.select(votes.n >= n)
    return split_votes(votes, n, 0)[0] if votes.n.max() > n else votes


def resampled(votes: Votes, n: int, draws: int, *, keep: bool) -> np.ndarray:
    """Baseline: (draw,) scores where each problem's own shares are taken as the truth."""
    counts = np.concatenate([votes.n_correct[:, None], votes.wrong], axis=1)
    shares = np.broadcast_to(counts / votes.n[:, None], (draws, *counts.shape))
    start, spent = (counts, votes.n) if keep else (0 * counts, 0 * votes.n)
    return vote(shares, [n], start, spent, 1, np.random.default_rng(0))[0][:, 0]


def scored(fit: VoteFit, rest: Votes, whole: Votes, seed: int) -> list[dict[str, object]]:
    """One row per forecast of one model."""
    left, before = int(rest.n.max()), fit.votes.majority.mean()
    truths = {"continued": whole.majority.mean(), "held out": rest.majority.mean()}
    forecasts = {
        ("continued", "law"): fit.majority([VOTES], "continued", draws=1000).majority[:, 0],
        ("held out", "law"): fit.majority([left], "realised", draws=1000).majority[:, 0],
        ("continued", "own shares"): resampled(fit.votes, VOTES, 1000, keep=True),
        ("held out", "own shares"): resampled(fit.votes, left, 1000, keep=False),
        ("continued", "no change"): np.array([before]),
        ("held out", "no change"): np.array([before]),
    }
    head = {"model": fit.name, "seed": seed, "status": fit.status, "single": (whole.n_correct / whole.n).mean()}
    return [
        head | {"target": target, "forecast": name} | _scores(draws, truths[target])
        for (target, name), draws in forecasts.items()
    ]


def _scores(draws: np.ndarray, truth: float) -> dict[str, float]:
    row = {
        "truth": truth,
        "mean": draws.mean(),
        "error": draws.mean() - truth,
        "crps": float(crps(draws, np.asarray(truth))),
    }
    for mass in (0.5, 0.9):
        low, high = np.quantile(draws, [(1 - mass) / 2, (1 + mass) / 2])
        row |= {f"cover{round(100 * mass)}": float(low <= truth <= high), f"width{round(100 * mass)}": high - low}
    return row


def trials(votes: Votes, n0: int, seeds: int, sampler: bs.Sampler) -> pd.DataFrame:
    """Cut, fit and score every model at every seed."""
    rows, whole = [], cut(votes, VOTES)
    for seed in range(seeds):
        seen, rest = split_votes(whole, n0, seed)
        start = time.perf_counter()
        fits = fit_votes(seen, sampler=sampler, seed=seed)
        print(f"seed {seed}: {len(fits)} fits in {time.perf_counter() - start:.0f} s", flush=True)
        for i, fit in enumerate(fits):
            rows += scored(fit, rest.subset([i]), whole.subset([i]), seed)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over models and seeds."""
    table = table.assign(mae=table["error"].abs(), failed=table["status"] == "fail")
    columns = ["truth", "mean", "error", "mae", "crps", "cover50", "cover90", "width90", "failed"]
    means = table.groupby(["target", "forecast"])[columns].mean()
    means.insert(0, "forecasts", table.groupby(["target", "forecast"]).size())
    return means.round(4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--n0", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--models", type=int, default=None)
    options = parser.parse_args()
    votes = read(options.file)
    votes = votes.subset(slice(options.models))
    sampler = bs.Sampler(draws=options.draws)
    table = trials(votes, options.n0, options.seeds, sampler)
    print(summary(table).to_string())
    gain = table[(table["target"] == "continued") & (table["forecast"] == "law")]
    print(f"mean gain over a single sample: {(gain['truth'] - gain['single']).mean():.4f}")


if __name__ == "__main__":
    main()
