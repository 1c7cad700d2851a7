# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From counts to a decision
#
# A model was sampled 200 times on each of 120 hard problems. How many would it solve in 10,000 attempts, and how sure is
# that? And when nobody but an imperfect verifier says which sample is right: how many samples are worth drawing?
#
# All data are simulated, so the truth is known and stands beside every answer.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import bayesscale as bs
from bayesscale.plots.coverage import attempt_grid
from bayesscale.resampling.forecast import compare_tails
from bayesscale.simulation.resampling import SuccessLaw, VerifierLaw

# Set BAYESSCALE_QUICK=1 to run through with few draws.
QUICK = os.environ.get("BAYESSCALE_QUICK") == "1"
SAMPLER = (
    bs.Sampler(chains=2, draws=60, warmup=(30, 30), tiers=0, keep=60, starts=4, lanes=8)
    if QUICK
    else bs.Sampler(draws=500)
)

# %% [markdown]
# ## Counts
#
# One row per model and problem: samples drawn, and the correct ones among them. The rule that ended the sampling must be
# said (`stopping`), because under most rules c / n is biased; here n was fixed.

# %%
table, truth = bs.simulate_attempts(1, models={"model": SuccessLaw(mean=0.01, tail=0.3)}, problems=120, n=200)
attempts = bs.Attempts.from_frame(table, model="model", problem="problem", n="n", correct="n_correct")
print(f"{(attempts.n_correct > 0).sum()} of {attempts.n.size} problems solved, {attempts.n_correct.sum()} successes")

# %% [markdown]
# ## The population of success rates
#
# What is learned is how success rates vary over problems. Each problem fails exponentially; how many problems are still
# unsolved after k attempts is decided by the low tail of the population, about which the samples say least. The law of the
# fit is a mixture of two Beta laws, a body and a tail.

# %%
laws = ("beta_mixture", "beta") if QUICK else ("beta_mixture", "beta", "logit_normal")
fits = [bs.fit_rates(attempts, law, sampler=SAMPLER)[0] for law in laws]
fit = fits[0]
print(fit.status, *fit.findings, sep="\n")
columns = ["parameter", "mean", "q05", "q95", "r_hat", "contraction", "findings"]
print(fit.summary()[columns].round(3).to_string(index=False))

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
bs.plot_rates(fit, ax=axes[0])
bs.plot_counts(fit, ax=axes[1])

# %% [markdown]
# ## Coverage far beyond the samples
#
# The target is the share of *these* problems solved within their first k attempts: solved ones stay solved, each of the others
# is a coin. Laws that fit the counts alike differ in their tails, so the forecast is shown under several; where they disagree by
# more than the interval, the extrapolation is driven by the prior, and a finding says so.

# %%
at = [200, 1000, 10_000, 100_000]
strip = compare_tails([bs.forecast_coverage(each, at) for each in fits])
shown = strip.table()[["law", "k", "median", "eti90_lower", "eti90_upper", "horizon"]]
true = {k: np.mean(1 - np.where(attempts.n_correct > 0, 0, (1 - truth["p"]) ** (k - 200))) for k in at}
print(shown.assign(truth=shown["k"].map(true)).round(3).to_string(index=False))
print(*strip.findings, sep="\n")

# %%
k = attempt_grid(100_000)
observed = bs.empirical_coverage(attempts, k[k <= 200])
ax = bs.plot_coverage([bs.forecast_coverage(each, k) for each in fits], empirical=observed)

# %% [markdown]
# Was that any good? Keep 50 samples of each problem, forecast what all 200 show, and score it, beside the curve most people
# would fit: a straight line through ln(-ln pass@k) against ln k. Trust it only where more than half is solved.

# %%
if not QUICK:
    scores = bs.evaluate_coverage(attempts, 50, [100, 200], laws=["beta_mixture"], baselines=["ols"], sampler=SAMPLER)
    print(scores[["predictor", "k", "truth", "median", "crps", "covered90", "width90"]].round(3).to_string(index=False))

# %% [markdown]
# ## A verifier picks the answer
#
# Now nobody knows which sample is right. A verifier, say some unit tests, accepts or rejects each; the first accepted sample is
# returned. On a problem with acceptance a and a share s of right answers among accepted ones, more samples do not mend the
# answer, they only make an answer more likely. If problems that accept late accept wrongly more often, there is a ceiling that no
# number of samples breaks.

# %%
law = VerifierLaw("weak model", -0.5, 1.3, acceptance_sd=2.2, share_sd=1.8, correlation=0.7)
judged, answers = bs.simulate_verifier(1, models=[law], problems=120, n=50)
checked = bs.Attempts.from_frame(
    judged, model="model", problem="problem", n="n", correct="n_correct", accepted="n_accepted",
    correct_accepted="n_correct_accepted",
)  # fmt: skip
verified = bs.fit_verifier(checked, sampler=SAMPLER)[0]
table = (
    verified.summary().set_index("parameter").loc[["single_sample", "ceiling", "correlation"], ["q05", "q50", "q95"]]
)
expected = {"single_sample": law.single_sample_accuracy(), "ceiling": law.ceiling(), "correlation": law.correlation}
print(table.assign(truth=pd.Series(expected)).round(3))
ax = bs.plot_verifier(verified, stronger=[0.85])

# %% [markdown]
# ## How many samples are worth drawing?
#
# A right answer is worth 1, a wrong one costs 2, a sample 0.01. The best number K* is a posterior; the number to choose is the
# one of greatest expected utility, and its expected regret says what is lost by not knowing better. The optimum is flat: K* may
# be uncertain while the regret is small.

# %%
stakes = bs.Stakes(benefit=1, false_positive=2, sample=0.01)
choice = bs.choose_budget(verified, stakes)
print(choice)
ax = bs.plot_utility(choice)

# %% [markdown]
# The truth, for these problems:

# %%
from bayesscale.resampling.verifier import best_samples, utility

a, s = answers["acceptance"].to_numpy(), answers["share"].to_numpy()
best = best_samples(a, s, stakes)
regret = best.utility - utility(a, s, choice.recommended, stakes)
print(f"best number of samples {best.samples:g}, utility {best.utility:.3f}; regret of the choice {regret:.4f}")

# %% [markdown]
# Dear mistakes change the answer: at a cost of 4 per wrong answer it may be best not to answer at all.

# %%
for cost in (0.5, 1, 2, 4):
    print(f"cost {cost}: {bs.choose_budget(verified, bs.Stakes(1, cost, 0.01))}")
