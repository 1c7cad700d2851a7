"""Writes the bundled data sets and their checksums: `python data/make.py --out data`.

Everything here is simulated, seeded and deterministic. Each data set is a function returning its tables by file name;
`DATASETS` lists them. The folders' README files describe the result and are written by hand.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import jax
import pandas as pd

from bayesscale.simulation.crossed import simulate_shared
from bayesscale.simulation.curves import Truth, observe_truths, under_sft
from bayesscale.simulation.hmm import draw_hmms, simulate_hmm
from bayesscale.simulation.resampling import (
    SuccessLaw,
    VerifierLaw,
    simulate_attempts,
    simulate_verifier,
    simulate_votes,
)

ICL_COUNTS_SEED = 20250
ICL_NLL_SEED = 20251
RESAMPLING_SEED = 20252
GRID = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SFT_AMOUNTS = (0.0, 250.0, 2500.0)
LONGEST = {("small-2b", "sentiment"): 500, ("small-2b", "intent"): 200, ("large-8b", "intent"): 500}


def icl_counts() -> dict[str, pd.DataFrame]:
    """Two models, three tasks; the large one also after fine-tuning that suppresses the behaviour."""
    small = Truth("small-2b", "", kind="tempered", K=0.20, lambda_=0.5)
    large = Truth("large-8b", "", kind="tempered", K=0.35, lambda_=0.5)
    base = [
        replace(small, task="sentiment", rho=0.25, gamma=0.88, beta=0.50, chance=1 / 2),
        replace(small, task="topic", rho=0.12, gamma=0.78, beta=0.18, chance=1 / 6, kind="collapse", collapse_from=200),
        replace(small, task="intent", rho=0.02, gamma=0.60, beta=0.04, chance=1 / 77),
        replace(large, task="sentiment", rho=0.30, gamma=0.94, beta=0.52, chance=1 / 2),
        replace(large, task="topic", rho=0.15, gamma=0.88, beta=0.20, chance=1 / 6),
        replace(large, task="intent", rho=0.03, gamma=0.82, beta=0.06, chance=1 / 77),
    ]
    tuned = [under_sft(truth, amount) for truth in base[3:] for amount in SFT_AMOUNTS[1:]]
    truths = base + tuned
    pairs = {(truth.model, truth.task) for truth in truths}
    grid = {pair: [n for n in GRID if n <= LONGEST.get(pair, GRID[-1])] for pair in pairs}
    curves, truth = observe_truths(ICL_COUNTS_SEED, truths, grid, runs=5, trials=200)
    chance = {task.task: task.chance for task in base}
    return {"curves.csv": curves.assign(chance=curves["task"].map(chance)), "truth.csv": truth}


def icl_nll() -> dict[str, pd.DataFrame]:
    """The exact Bayesian on three HMMs, with equal priors and with the first all but ruled out."""
    jax.config.update("jax_enable_x64", True)
    hmms = draw_hmms(1111, 3, entities=3, properties=4, vocabulary=12, contrast=0.7, temperature=0.3, noise=0.05)
    priors = {"equal-prior": (1 / 3, 1 / 3, 1 / 3), "suppressed-prior": (1e-8, 0.5, 0.5 - 1e-8)}
    tables = [
        simulate_hmm(ICL_NLL_SEED, hmms, rho, model=model, sequences=3000, shots=64, length=2)
        for model, rho in priors.items()
    ]
    curves, truth = (pd.concat(parts, ignore_index=True) for parts in zip(*tables, strict=True))
    return {"curves.csv": curves.assign(chance=1 / 12), "truth.csv": truth}


def resampling_counts() -> dict[str, pd.DataFrame]:
    """Two models on hard problems, with and without a verifier, and their votes; a new model on problems of eight others."""
    rates = {"small-2b": SuccessLaw(0.008, 0.25), "large-8b": SuccessLaw(0.04, 0.4)}
    judged = [
        VerifierLaw("small-2b", -0.5, 1.3, acceptance_sd=2.2, share_sd=1.8, correlation=0.7),
        VerifierLaw("large-8b", 1.0, 2.5, acceptance_sd=2.2, share_sd=1.8, correlation=0.7),
    ]
    chosen = {"small-2b": SuccessLaw(0.45, 0.8), "large-8b": SuccessLaw(0.7, 1.5)}
    attempts = simulate_attempts(RESAMPLING_SEED, models=rates, problems=120, n=200)
    verified = simulate_verifier(RESAMPLING_SEED, models=judged, problems=120, n=50)
    votes = simulate_votes(RESAMPLING_SEED, models=chosen, problems=120, n=8, none=0.02)
    shared = simulate_shared(RESAMPLING_SEED)
    named = {"attempts": attempts, "verified": verified, "votes": votes, "shared": shared}
    tables = {f"{name}.csv": table for name, (table, _) in named.items()}
    tables["attempts.csv"] = tables["attempts.csv"].drop(columns="cap")
    return tables | {f"{name}-truth.csv": truth for name, (_, truth) in named.items()}


DATASETS = {"icl_counts": icl_counts, "icl_nll": icl_nll, "resampling_counts": resampling_counts}


def write(out: Path) -> None:
    """All data sets under `out`, then the manifest of every CSV file there."""
    for name, tables in DATASETS.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        for file, table in tables().items():
            table.to_csv(out / name / file, index=False, float_format="%.6g", lineterminator="\n")
    (out / "SHA256SUMS").write_text(manifest(out), encoding="utf-8", newline="\n")


def manifest(folder: Path) -> str:
    """Lines as `sha256sum` prints and checks them, sorted by path."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.csv"))
    return "".join(f"{hashlib.sha256((folder / path).read_bytes()).hexdigest()}  {path}\n" for path in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
