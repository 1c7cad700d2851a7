"""Systems whose truth is known, to test fits against and to learn the laws on.

* `curves` draws curves from a law (or from one of its failures) and observes them as counts or mean NLLs;
* `hmm` runs an exact Bayesian learner on sequences from a mixture of hidden Markov models and measures the law's
  parameters on it.

Every simulator takes an integer seed and returns two tables: what would have been logged, and what was true.
"""

from bayesscale.simulation.curves import (
    Truth,
    curve_mean,
    draw_truths,
    law_mean,
    observe_truths,
    simulate_icl,
    truth_table,
    under_sft,
)
from bayesscale.simulation.hmm import HMMs, draw_hmms, exact_bayes, sample_examples, simulate_hmm

__all__ = [
    "HMMs",
    "Truth",
    "curve_mean",
    "draw_hmms",
    "draw_truths",
    "exact_bayes",
    "law_mean",
    "observe_truths",
    "sample_examples",
    "simulate_hmm",
    "simulate_icl",
    "truth_table",
    "under_sft",
]
