"""What did fine-tuning move? The bundled simulated curves of one model, whose truth is known.

    python -m benchmarks.icl_which_moved [--model large-8b] [--draws 500] [--seed 0]

The simulation lowers the prior log-odds with log(1 + sft_amount) and leaves K, gamma and beta alone. Prints the choices of what
may move, compared by their forecasts; the posterior of each shift between no fine-tuning and the most of it, medians with 50%
and 90% equal-tailed intervals, beside the shift simulated; and the sentence a user reads.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import logit

import bayesscale as bs
from bayesscale.conditions import SHIFTS
from bayesscale.pooled import POOLED_SAMPLER
from bayesscale.runs.demo import data_folder
from benchmarks.progress import progress_lines

DATA = data_folder() / "icl_counts"


def true_shifts(model: str) -> pd.Series:
    """Mean over tasks of each simulated shift, as `which_moved` names the parameters; tasks that collapse are left out."""
    truth = pd.read_csv(DATA / "truth.csv")
    truth = truth[(truth["model"] == model) & (truth["kind"] == "tempered")]
    values = pd.DataFrame(
        {
            SHIFTS["logit_rho"]: logit(truth["rho"]),
            SHIFTS["log_K"]: np.log(truth["K"]),
            SHIFTS["logit_ceiling"]: logit(truth["gamma"]),
            SHIFTS["logit_floor_ratio"]: logit(truth["beta"] / truth["gamma"]),
        }
    ).set_index([truth["task"], truth["sft_amount"]])
    last = truth["sft_amount"].max()
    return (values.xs(last, level="sft_amount") - values.xs(0, level="sft_amount")).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="large-8b")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    curves = bs.read_curves(
        DATA / "curves.csv", curve=["model", "task"], condition="sft_amount", x="shots", successes="correct",
        trials="trials", run="run",
    )  # fmt: skip
    own = curves.subset([i for i, key in enumerate(curves.keys) if key[0] == arguments.model])
    start, progress = time.perf_counter(), progress_lines(arguments.model, every=60.0)
    sampler = replace(POOLED_SAMPLER, draws=arguments.draws, keep=arguments.draws)
    moved = bs.which_moved(own, "sft_amount", sampler=sampler, seed=arguments.seed, progress=progress)
    print(f"{len(own)} curves of {arguments.model}, {time.perf_counter() - start:.0f} s")
    print(moved)
    print("simulated shifts")
    print(true_shifts(arguments.model).round(3).to_string())


if __name__ == "__main__":
    main()
