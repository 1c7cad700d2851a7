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
# # How many shots bring it back?
#
# A model was fine-tuned until it stopped doing a task. In-context examples bring the behaviour back; the question is how
# many it takes, and what the fine-tuning changed: the model's prior over tasks, or what it can learn from an example?
#
# The table holds accuracies against shots for two models, three tasks and three amounts of fine-tuning. It is simulated, so
# the truth is known and shown at the end.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import bayesscale as bs

# Set BAYESSCALE_QUICK=1 to run through with few draws.
QUICK = os.environ.get("BAYESSCALE_QUICK") == "1"
SAMPLER = (
    bs.Sampler(chains=2, draws=60, warmup=(30, 30), tiers=0, keep=60, starts=4) if QUICK else bs.Sampler(draws=500)
)
DATA = Path(bs.__file__).parent.parent / "data" / "icl_counts"

# %% [markdown]
# ## From a table to curves
#
# `curve` names the columns that identify a curve, `condition` the amount of fine-tuning. What was understood of the data is
# in the findings.

# %%
curves = bs.read_curves(
    DATA / "curves.csv",
    curve=["model", "task"],
    condition="sft_amount",
    x="shots",
    successes="correct",
    trials="trials",
    run="run",
)
print(f"{len(curves)} curves, keys {curves.key_names}")
print(*curves.findings, sep="\n")

# %% [markdown]
# ## One posterior per curve
#
# The default law is the tempered Bayesian law. Its parameters are the paper's: the prior rho of the task, the learning
# efficiency K, and the levels gamma and beta. The gate says which fits to trust, and the findings say what the data do not
# determine.

# %%
tuned = [i for i, key in enumerate(curves.keys) if key[0] == "large-8b" and key[1] == "topic"]
topic = curves.subset(tuned)
fits = bs.fit_many(topic, "tempered", sampler=SAMPLER)
for fit in fits:
    print(f"{fit.name}: {fit.status}")
columns = ["curve", "parameter", "mean", "q05", "q95", "r_hat", "contraction", "findings"]
table = pd.concat([fit.summary() for fit in fits])
print(table[table["parameter"].isin(["rho", "K", "gamma", "beta"])][columns].round(3).to_string(index=False))

# %%
fig, axes = plt.subplots(1, len(fits), figsize=(4.2 * len(fits), 3.6), layout="constrained")
for fit, ax in zip(fits, np.atleast_1d(axes), strict=True):
    bs.plot_curve(fit, ax=ax)

# %% [markdown]
# ## How many shots bring it back?
#
# The posterior of the first shot count at which expected accuracy reaches 0.6. It says when a crossing lies beyond the data,
# and how probable it is that it never comes.

# %%
crossings = [bs.crossing(fit, 0.6) for fit in fits]
print(pd.DataFrame([c.row() for c in crossings]).round(3).to_string(index=False))
print(*crossings, sep="\n")

# %% [markdown]
# ## Do we know early?
#
# Train on the first half of the shots axis, and score what comes after. Persistence, "the last value stays", stands beside
# every law.

# %%
evaluation = bs.evaluate(topic, ["tempered", "power"], shares=(0.5,), sampler=SAMPLER)
print(bs.compare(evaluation.forecasts, topic))

# %% [markdown]
# ## What did fine-tuning move?
#
# All conditions of the model together: either nothing, the prior, the efficiency, the levels, or all of them may depend on
# log(1 + sft_amount). The choices are compared by how well they predict the fine-tuned curves' later shots.

# %%
if not QUICK:
    large = curves.subset([i for i, key in enumerate(curves.keys) if key[0] == "large-8b"])
    moved = bs.which_moved(large, "sft_amount")
    print(moved)

# %% [markdown]
# ## The truth
#
# The simulation lowered the prior log-odds with fine-tuning and left K alone.

# %%
truth = pd.read_csv(DATA / "truth.csv")
print(truth[(truth["model"] == "large-8b") & (truth["task"] == "topic")].to_string(index=False))
