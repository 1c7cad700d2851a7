"""Simulated models on shared problems, whose difficulties they largely agree about, and new models that tried a few."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from bayesscale.finding import InputError

if TYPE_CHECKING:
    import pandas as pd


def simulate_shared(
    seed: int,
    *,
    old: int = 8,
    problems: int = 40,
    n: int = 8,
    new: int = 1,
    tried: int = 10,
    new_n: int = 2,
    concentration: float = 6.0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Simulate old models with n samples on every problem and new ones with few samples on a few: (counts, truth).

        p_mi ~ Beta(k m, k (1 - m)),   m = sigmoid(l_m + e_i),   l ~ Normal(-0.5, 1.2),   e ~ Normal(0, 1.5)

    The truth has every model's rate on every problem, also where it has no counts.

    Raises
    ------
    InputError : fewer than two old models, or more problems tried than there are.
    """
    import pandas as pd

    if old < 2 or not 1 <= tried <= problems:
        raise InputError("SIMULATE", f"needs two old models or more and 1 to {problems} problems tried")
    rng = np.random.default_rng([seed, *b"shared"])
    names = [f"old-{i + 1}" for i in range(old)] + [f"new-{i + 1}" for i in range(new)]
    labels = [f"p{i + 1:03d}" for i in range(problems)]
    easiness, level = rng.normal(0, 1.5, problems), rng.normal(-0.5, 1.2, len(names))
    mean = expit(level[:, None] + easiness)
    p = rng.beta(concentration * mean, concentration * (1 - mean))
    samples = np.full(p.shape, n)
    samples[old:] = new_n * (rng.permuted(np.tile(np.arange(problems), (new, 1)), axis=1) < tried)
    cells = {"model": np.repeat(names, problems), "problem": np.tile(labels, len(names))}
    counts = cells | {"n": samples.ravel(), "n_correct": rng.binomial(samples, p).ravel()}
    drawn = samples.ravel() > 0
    truth = pd.DataFrame(cells | {"p": p.ravel(), "easiness": np.tile(easiness, len(names))})
    return pd.DataFrame({name: np.asarray(values)[drawn] for name, values in counts.items()}), truth
