"""The regression of ceilings on accuracy, against published numbers, closed forms and simulated truth."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.resampling.ceiling import (
    CeilingData,
    _cut_normal,
    ceiling_counts,
    ceiling_data,
    fit_ceiling,
    least_squares,
    log_likelihood,
)

DATA = Path(__file__).parents[1] / "../shared/data/resampling"
SAMPLED, GREEDY = DATA / "scaling_limits_humaneval_models.csv", DATA / "evalplus_leaderboard_base_vs_plus.csv"
QUICK = Sampler(chains=4, draws=500, warmup=(60, 100, 100), starts=2, lanes=16, tiers=1)
needs_data = pytest.mark.skipif(not GREEDY.exists(), reason="the shared data are not here")


@cache
def sampled() -> CeilingData:
    table = pd.read_csv(SAMPLED)
    return ceiling_data(
        table["model"], table["pass1_plus"], table["p_correct_given_base_pass"], table["n_tasks"], samples=200
    )


@cache
def sampled_fit():
    return fit_ceiling(sampled(), sampler=QUICK)


@needs_data
def test_least_squares_is_the_published_line():
    line = least_squares(sampled())
    assert line.slope == pytest.approx(0.2183, abs=5e-5) and line.intercept == pytest.approx(0.7247, abs=5e-5)
    assert line.r_squared == pytest.approx(0.892, abs=5e-4)
    known = stats.linregress(sampled().single, sampled().ceiling)
    assert line.slope_se == pytest.approx(known.stderr)


@needs_data
@pytest.mark.parametrize(("benchmark", "r", "slope"), [("humaneval", 0.53, 0.107), ("mbpp", 0.54, 0.103)])
def test_least_squares_of_greedy_samples_is_the_published_one(benchmark, r, slope):
    table = pd.read_csv(GREEDY).dropna(subset=[f"{benchmark}_base"])
    base, plus = table[f"{benchmark}_base"] / 100, table[f"{benchmark}_plus"] / 100
    line = least_squares(ceiling_data(table["model"], plus, plus / base, 164 if benchmark == "humaneval" else 378))
    assert np.sqrt(line.r_squared) == pytest.approx(r, abs=5e-3) and line.slope == pytest.approx(slope, abs=1e-3)


@needs_data
def test_with_many_samples_the_posterior_is_near_least_squares():
    fit, line = sampled_fit(), least_squares(sampled())
    assert fit.status == "ok", fit.findings
    slope = fit.draws.flat("slope")
    assert slope.mean() == pytest.approx(line.slope, abs=0.004)
    assert slope.std() == pytest.approx(line.slope_se, rel=0.25)
    assert fit.draws.flat("explained").mean() == pytest.approx(line.r_squared, abs=0.04)
    # what the paper says of weak models and one sample of GPT-4o (.855)
    assert fit.below("Llama 3.1 8B", "GPT-4o") > 0.99 and fit.below("Llama 3.1 405B", "GPT-4o") < 0.01
    assert fit.latent().shape == (1000, 17, 2)
    # estimates from 30,000 samples are hardly moved
    np.testing.assert_allclose(fit.latent().mean(axis=0)[:, 1], sampled().ceiling, atol=0.006)
    table = fit.forecast([0.1, 0.9])
    assert (np.diff(table["median"]) > 0.1).all()
    assert ((fit.predict([0.1, 0.9]) >= [0.1, 0.9]) & (fit.predict([0.1, 0.9]) <= 1)).all()
    with pytest.raises(InputError, match="^CEILING-MODEL"):
        fit.below("GPT-5", "GPT-4o")
    with pytest.raises(InputError, match="^CEILING-AT"):
        fit.predict([1.2])


def test_errors_are_those_of_simulated_samples():
    rng = np.random.default_rng(0)
    a, c, tasks = 0.6, 0.8, 4000
    accepted = rng.binomial(tasks, a, 40_000)
    right = rng.binomial(accepted, c)
    known = np.cov(right / tasks, right / accepted)
    found = ceiling_counts(["m"] * 5, [2400] * 5, [1920] * 5, [tasks] * 5).error[0]
    np.testing.assert_allclose(found, known, rtol=0.03)
    half = ceiling_data(["m"] * 5, 0.48, 0.8, tasks, between=0.5).error[0]
    np.testing.assert_allclose(half, 0.5 * found)


def test_likelihood_is_that_of_a_bivariate_normal():
    theta = {"middle": 0.8, "slope": 0.3, "scatter": 0.02, "mean_accuracy": 0.4, "accuracy_sd": 0.2}
    data = ceiling_counts(list("abcde"), [50, 60, 70, 80, 90], [40, 50, 60, 66, 81], 100)
    seen = np.stack([data.single, data.ceiling], -1)
    found = log_likelihood(theta, {"seen": seen, "error": data.error})  # pyright: ignore[reportArgumentType]
    # drawn step by step: p, then c given p
    p = np.random.default_rng(0).normal(0.4, 0.2, 1_000_000)
    c = 0.8 + 0.3 * (p - 0.5) + np.random.default_rng(1).normal(0, 0.02, p.size)
    latent = np.cov(p, c)
    for i in range(5):
        known = stats.multivariate_normal([p.mean(), c.mean()], latent + data.error[i]).logpdf(seen[i])
        assert float(found[i]) == pytest.approx(known, abs=0.01)


def test_cut_normal_is_scipys():
    u = np.linspace(0.01, 0.99, 9)
    for mean, sd, low in ((0.8, 0.05, 0.6), (1.3, 0.01, 0.5), (0.2, 0.02, 0.9), (0.99, 0.1, 0.98)):
        found = _cut_normal(np.full(9, mean), np.full(9, sd), np.full(9, low), u)
        known = stats.truncnorm((low - mean) / sd, (1 - mean) / sd, mean, sd).ppf(u)
        assert ((found >= low) & (found <= 1)).all()
        np.testing.assert_allclose(found, known, atol=1e-6)


@pytest.mark.slow
def test_noise_of_single_samples_does_not_bend_the_line():
    """Both estimates share their right answers, which makes least squares too steep."""
    rng = np.random.default_rng(5)
    fits, lines = [], []
    for i in range(6):
        p = rng.normal(0.5, 0.1, 80).clip(0.1, 0.9)
        c = 0.8 + 0.05 * (p - 0.5) + rng.normal(0, 0.01, 80)
        accepted = rng.binomial(100, p / c)
        data = ceiling_counts([f"m{j}" for j in range(80)], accepted, rng.binomial(accepted, c), 100)
        fits.append(fit_ceiling(data, sampler=QUICK, seed=i).draws.flat("slope"))
        lines.append(least_squares(data).slope)
    means = np.array([draws.mean() for draws in fits])
    error = np.std(means) / np.sqrt(len(means))
    assert abs(means.mean() - 0.05) < 3.5 * error
    assert np.mean(lines) > 0.05 + 4 * np.std(lines) / np.sqrt(len(lines))
    covered = [np.quantile(draws, 0.05) <= 0.05 <= np.quantile(draws, 0.95) for draws in fits]
    assert np.sum(covered) >= 4


BAD = {
    "few": (lambda: ceiling_data(["a", "b"], 0.5, 0.6, 100), "CEILING-FEW"),
    "swapped": (lambda: ceiling_data(list("abcde"), 0.8, 0.6, 100), "CEILING a"),
    "percent": (lambda: ceiling_data(list("abcde"), 50, 80, 100), "CEILING a"),
    "nothing": (lambda: ceiling_counts(list("abcde"), [0, 1, 1, 1, 1], [0, 1, 1, 1, 1], 10), "CEILING - a model"),
    "between": (lambda: ceiling_data(list("abcde"), 0.5, 0.6, 100, between=1.0), "CEILING - tasks"),
}


@pytest.mark.parametrize(("call", "said"), BAD.values(), ids=BAD.keys())
def test_tables_that_cannot_be_are_refused(call, said):
    with pytest.raises(InputError, match=f"^{said}"):
        call()
