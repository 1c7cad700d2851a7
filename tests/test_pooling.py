"""Pooling: the hierarchy against a naive construction, its limits, and two questions with a known answer."""

from dataclasses import replace
from functools import partial as bind
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from scipy.special import expit, logit

from bayesscale.columns import typed
from bayesscale.conditions import sentence, which_moved
from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.fitting import likelihood_for
from bayesscale.ingest.table import read_curves
from bayesscale.laws import LAWS
from bayesscale.model import compose, log_density
from bayesscale.pooled import POOLED_SAMPLER, default_pooling, fit_pooled
from bayesscale.pooling import (
    PooledModel,
    complete,
    design_of,
    moves_fact,
    none,
    partial,
    per_curve,
    pooled_log_density,
    pooled_prior_draw,
    prior_shift,
)
from bayesscale.units import units_of

KEYS = (("m", "a"), ("m", "b"), ("n", "a"), ("n", "b"), ("o", "b"))
CHANCE = np.array([0.5, 0.2, 0.5, 0.2, 0.2])
AMOUNT = np.array([0.0, 250.0, 0.0, 10.0, 2500.0])
DATA = Path(__file__).parents[1] / "data" / "icl_counts" / "curves.csv"
CURVE = ("curve",)
FEW_DRAWS = replace(POOLED_SAMPLER, chains=2, draws=200, warmup=(60, 100, 100), patience=500)


def curves_of(chance=CHANCE):
    rng, shots, runs = np.random.default_rng(0), np.array([0.0, 1, 4, 16, 64]), 2
    n = np.tile(shots, runs * len(KEYS))
    run = np.tile(np.repeat(np.arange(runs), len(shots)), len(KEYS))
    columns = {"successes": rng.binomial(60, 0.5 + 0.3 * n / (n + 10)), "trials": np.full(n.size, 60)}
    curve = np.repeat(np.arange(len(KEYS)), runs * len(shots))
    return Curves("counts", ("model", "task"), KEYS, curve, run, n, columns, chance, {"amount": AMOUNT})


def pooled_of(pooling, curves=None):
    """A pooled model of the on-curve law in log shots, and its columns."""
    curves = curves_of() if curves is None else curves
    likelihood = likelihood_for(curves, None, discrepancy=True)
    columns, model = typed(units_of(curves, likelihood).columns), compose(LAWS["log_shots"], likelihood)
    return PooledModel(model, pooling, design_of(curves, pooling), len(curves)), columns


# The hierarchy --------------------------------------------------------------------------------------------------------

POOLINGS = {
    "nothing shared": {},
    "all in common": dict.fromkeys(("logit_ceiling", "logit_floor_ratio", "d0", "sigma_delta"), complete()),
    "by one key": {"log_n50": partial(("model",)), "d1": partial(CURVE)},
    "by two keys": {"log_n50": partial(("model", "task")), "logit_floor_ratio": partial(("task", "curve"))},
    "by a combination": {"log_kappa": partial(("model*task",)), "d0": complete()},
    "moved by a covariate": {
        "logit_floor_ratio": partial(("task",), covariates=("amount",)),
        "log_n50": complete(covariates=("amount",)),
        "sigma_delta": partial(CURVE),
    },
}
GROUPS = {
    "model": [0, 0, 1, 1, 2],
    "task": [0, 1, 0, 1, 1],
    "curve": [0, 1, 2, 3, 4],
    "model*task": [0, 1, 2, 3, 4],
}
PRIORS = {
    "logit_ceiling": (1.0, 1.5),
    "log_n50": (np.log(30), 1.5),
    "log_kappa": (0.0, 0.7),
    "d0": (0.5, 1.0),
    "d1": (-0.2, 0.3),
    "sigma_delta": (0.0, 1.0),  # its normal score
}


def naive(pooled, u):
    """Values of every parameter and log prior, one curve and one term after another."""
    rest, total, theta = list(u), 0.0, {}
    take = lambda: rest.pop(0)  # noqa: E731
    normal = lambda x, m, s: scipy.stats.norm.logpdf(x, m, s)  # noqa: E731
    x = np.log1p(AMOUNT) / np.log1p(AMOUNT).max()
    for parameter in pooled.model.parameters:
        name, pool = parameter.name, pooled.pooling.get(parameter.name, none())
        chance = name == "logit_floor_ratio"
        own = [(logit(c), 0.5) for c in CHANCE] if chance else [PRIORS[name]] * 5
        middle = (logit(CHANCE.mean()), 0.5) if chance else PRIORS[name]
        if pool.kind == "none":
            values = [take() for _ in range(5)]
            total += sum(normal(v, *prior) for v, prior in zip(values, own, strict=True))
        else:
            centre = take()
            total += normal(centre, *middle)
            values = [centre + prior[0] - middle[0] for prior in own]
            for _ in pool.covariates:
                slope = take()
                total += normal(slope, 0.0, 4 * parameter.spread)
                values = [v + slope * x[c] for c, v in enumerate(values)]
            for by in pool.by:
                score, z = take(), [take() for _ in range(max(GROUPS[by]) + 1)]
                total += normal(score, 0, 1) + sum(normal(one, 0, 1) for one in z)
                tau = scipy.stats.halfnorm.ppf(scipy.stats.norm.cdf(score), scale=parameter.spread)
                values = [v + tau * z[GROUPS[by][c]] for c, v in enumerate(values)]
        if name == "sigma_delta":
            values = [scipy.stats.halfnorm.ppf(scipy.stats.norm.cdf(v), scale=0.15) for v in values]
        theta[name] = values
    assert not rest
    return theta, total


@pytest.mark.parametrize("name", POOLINGS)
def test_values_and_prior_are_those_of_the_naive_construction(name):
    pooled, columns = pooled_of(POOLINGS[name])
    u = np.random.default_rng(1).normal(size=pooled.dimension)
    theta, log_prior = per_curve(pooled, jnp.asarray(u), columns)
    want, total = naive(pooled, u)
    for parameter, values in want.items():
        np.testing.assert_allclose(theta[parameter], values, rtol=1e-9, atol=1e-12, err_msg=parameter)
    assert float(log_prior) == pytest.approx(total, rel=1e-9)


def test_without_sharing_it_is_the_sum_of_the_curves_own_densities():
    pooled, columns = pooled_of({})
    u = np.random.default_rng(2).normal(size=(pooled.model.layout.dimension, pooled.curves))
    alone = jax.vmap(bind(log_density, pooled.model))(jnp.asarray(u.T), columns)
    together = pooled_log_density(pooled, jnp.asarray(u.ravel()), columns)
    assert float(together) == pytest.approx(float(alone.sum()), rel=1e-10)


def test_a_pooled_fit_comes_to_its_end():
    """Few draws, which say nothing; that all its programs run."""
    few = replace(FEW_DRAWS, draws=8, warmup=(4,), max_depth=3, tiers=0)
    found = fit_pooled(curves_of().subset([0, 1]), "log_shots", likelihood="binomial", discrepancy=False, sampler=few)
    assert len(found.fits) == 2 and all(np.isfinite(values).all() for values in found.shared.values())


def test_one_curve_in_common_is_that_curve():
    """A single curve with every parameter in common has its own posterior."""
    curves = curves_of().subset([1])
    names = [*LAWS["log_shots"].parameters, *likelihood_for(curves, None, discrepancy=True).all_parameters]
    pooled, columns = pooled_of({p.name: complete() for p in names}, curves)
    u = jnp.asarray(np.random.default_rng(3).normal(size=pooled.dimension))
    alone = log_density(pooled.model, u, {name: c[0] for name, c in columns.items()})
    assert float(pooled_log_density(pooled, u, columns)) == pytest.approx(float(alone), rel=1e-10)


def test_shift_is_what_chance_tells_curves_apart():
    pooled, columns = pooled_of({})
    parameters = {p.name: p for p in pooled.model.parameters}
    facts = {name: columns[name] for name in ("chance", "first_value")}
    shift = prior_shift(parameters["logit_floor_ratio"], facts)
    np.testing.assert_allclose(shift, logit(CHANCE) - logit(CHANCE.mean()), rtol=1e-12)
    assert (np.asarray(prior_shift(parameters["log_n50"], facts)) == 0).all()
    unknown = facts | {"chance": np.full(5, np.nan)}
    assert (np.asarray(prior_shift(parameters["logit_floor_ratio"], unknown)) == 0).all()
    some = facts | {"chance": np.array([0.5, np.nan, 0.5, np.nan, np.nan])}
    np.testing.assert_allclose(
        prior_shift(parameters["logit_floor_ratio"], some), np.where(np.isnan(some["chance"]), -1.0, 0.0), atol=1e-12
    )


def test_prior_draws_have_the_priors_moments():
    pooling = POOLINGS["by two keys"] | {"log_kappa": complete(covariates=("amount",)), "sigma_delta": complete()}
    pooled, columns = pooled_of(pooling)
    draws = 4000
    keys = jax.random.split(jax.random.key(0), draws)
    u = np.asarray(jax.jit(jax.vmap(lambda key: pooled_prior_draw(pooled, key, columns)))(keys))
    mean, sd = [], []
    for name, parameter, role, size in pooled.sites():
        own = PRIORS.get(parameter.name, (logit(CHANCE.mean()), 0.5))
        want = {"own": own, "centre": own, "slope": (0.0, 4 * parameter.spread)}.get(role, (0.0, 1.0))
        mean, sd = mean + [want[0]] * size, sd + [want[1]] * size
        assert role != "own" or parameter.name != "logit_floor_ratio", name
    mean, sd = np.array(mean), np.array(sd)
    assert u.shape == (draws, len(mean))
    assert (np.abs(u.mean(axis=0) - mean) / sd * np.sqrt(draws) < 4.5).all()
    assert (np.abs(u.std(axis=0) / sd - 1) * np.sqrt(2 * draws) < 4.5).all()
    correlation = np.corrcoef(u.T) - np.eye(len(mean))
    assert np.abs(correlation).max() * np.sqrt(draws) < 5


def test_default_shares_the_law_by_keys_that_repeat():
    curves = curves_of()
    likelihood = likelihood_for(curves, None, discrepancy=True)
    found = default_pooling(LAWS["log_shots"], likelihood, curves)
    assert found["log_n50"] == partial(("model", "task", "curve"))
    assert found["d0"] == partial(("curve",)) and found["d1"] == found["sigma_delta"] == complete()
    one_task = default_pooling(LAWS["log_shots"], likelihood, curves.subset([0, 2]))
    assert one_task["log_n50"] == partial(("curve",))


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "law", "pooling"),
    [
        ("POOL-KEY", "hill", {"log_n50": partial(("dataset",))}),
        ("POOL-KEY", "hill", {"log_n50": partial(("model*dataset",))}),
        ("POOL-COVARIATE", "hill", {"log_n50": complete(covariates=("dose",))}),
        ("POOL-PARAMETER", "hill", {"log_K": complete()}),
        ("POOL-JOINT", "row_tempered", None),
        ("LAW-UNKNOWN", "hall", None),
        ("ZERO-SHOTS", "power", None),
    ],
)
def test_what_cannot_be_pooled_is_refused(code, law, pooling):
    with pytest.raises(InputError, match=code):
        fit_pooled(curves_of(), law, pooling=pooling)


@pytest.mark.parametrize(
    ("code", "condition", "dose", "law"),
    [
        ("CONDITION", "model", (0, 1, 0, 1, 2), "tempered_strict"),
        ("CONDITION", "amount", (0, 1, 0, 1, 2), "tempered_strict"),
        ("CONDITION", "dose", (1, 1, 1, 1, 1), "tempered_strict"),
        ("CONDITION", "dose", (0, -1, 0, 1, 2), "tempered_strict"),
        ("CONDITION-LAW", "dose", (0, 1, 0, 1, 2), "tempered"),
    ],
)
def test_a_condition_has_to_be_a_numeric_key_that_varies(code, condition, dose, law):
    curves = curves_of()
    keys = tuple((*key, str(d)) for key, d in zip(KEYS, dose, strict=True))
    covariates = {"amount": AMOUNT, "dose": np.array(dose, float)}
    curves = replace(curves, key_names=("model", "task", "dose"), keys=keys, covariates=covariates)
    with pytest.raises(InputError, match=rf"^{code} "):
        which_moved(curves, condition, law=law)


@pytest.mark.parametrize("finished", [True, False])
def test_a_fit_that_did_not_finish_supports_no_sentence(finished):
    moved = ["nothing", "prior", "all"]
    difference = [-1.0, 0.0, -0.01 if finished else np.nan]
    table = pd.DataFrame({"moved": moved, "difference": difference, "se": [0.1, 0.0, 0.1]})
    table["status"] = ["ok", "ok", "ok" if finished else "fail"]
    low = -3.0 if finished else np.nan
    names = ("mean", "median", "eti90_lower", "eti90_upper")
    shifts = pd.DataFrame([{"parameter": "log K"} | {name: low + i for i, name in enumerate(names[:2])}])
    shifts[["eti90_lower", "eti90_upper"]] = low, low + 1
    said = sentence(table, shifts, "prior", "dose")
    assert ("not told apart from it: all" in said) == ("excludes zero for log K" in said) == finished
    assert ("not to be relied on: all" in said) != finished


def test_a_covariate_that_is_switched_off_moves_nothing():
    """Slope and term by curve drop out; the term of the group, and other parameters, stay as they are."""
    moved = {
        "log_n50": partial(("task", "curve"), covariates=("amount",)),
        "log_kappa": partial(CURVE, covariates=("amount",)),
    }
    pooled, columns = pooled_of(moved)
    u = jnp.asarray(np.random.default_rng(3).normal(size=pooled.dimension))
    on, _ = per_curve(pooled, u, columns)
    same, _ = per_curve(pooled, u, columns | {moves_fact("log_n50"): np.ones(len(KEYS))})
    off, density = per_curve(pooled, u, columns | {moves_fact("log_n50"): np.zeros(len(KEYS))})
    np.testing.assert_array_equal(on["log_n50"], same["log_n50"])
    np.testing.assert_array_equal(on["log_kappa"], off["log_kappa"])
    second = np.array(GROUPS["task"]) == 1
    assert np.ptp(np.asarray(off["log_n50"])[second]) == 0 < np.ptp(np.asarray(on["log_n50"])[second])
    assert density == per_curve(pooled, u, columns)[1]


# Known answers --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_common_centre_and_scatter_are_found():
    """Eight curves whose n50 scatter around 20 shots by 0.4 on the log axis."""
    rng, count, runs = np.random.default_rng(5), 8, 3
    shots = np.array([0.0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
    n = np.tile(shots, runs * count)
    run = np.tile(np.repeat(np.arange(runs), len(shots)), count)
    curve = np.repeat(np.arange(count), runs * len(shots))
    n50 = np.exp(np.log(20.0) + 0.4 * rng.normal(size=count))[curve]
    p = 0.2 + 0.6 * n / (n + n50)
    columns = {"successes": rng.binomial(200, expit(logit(p) + 0.05 * rng.normal(size=n.size))), "trials": 200 + 0 * n}
    keys = tuple((f"c{i}",) for i in range(count))
    curves = Curves("counts", ("curve_name",), keys, curve, run, n, columns, np.full(count, np.nan))
    found = fit_pooled(curves, "hill", pooling={"log_n50": partial(CURVE)}, discrepancy=False, sampler=FEW_DRAWS)
    low, high = np.quantile(found.shared["log_n50_centre"], [0.005, 0.995])
    assert low < np.log(20) < high and high - low < 2.0
    low, high = np.quantile(found.shared["log_n50_tau_curve"], [0.005, 0.995])
    assert low < 0.4 < high
    assert len(found.fits) == count and set(found.summary()["parameter"]) == set(found.shared)
    # Each curve's own posterior is about its own n50.
    truth = [n50[curve == i][0] for i in range(count)]
    draws = [np.log(fit.draws["n50"]) for fit in found.fits]
    scores = [(x.mean() - np.log(t)) / x.std() for x, t in zip(draws, truth, strict=True)]
    assert np.abs(scores).max() < 4


@pytest.mark.slow
def test_fine_tuning_moved_the_prior_and_not_what_is_learned():
    curves = read_curves(
        DATA, curve=("model", "task"), x="shots", successes="correct", trials="trials", run="run",
        condition="sft_amount", chance="chance",
    )  # fmt: skip
    curves = curves.subset([i for i, key in enumerate(curves.keys) if key[0] == "large-8b"])
    found = which_moved(curves, "sft_amount", sampler=FEW_DRAWS)
    table = found.table.set_index("moved")
    best = table["log_score"].idxmax()
    close = table["difference"]["prior"] >= -2 * table["se"]["prior"]
    assert best in ("prior", "all") or close
    assert table["log_score"]["prior"] > table["log_score"]["nothing"]
    shifts = found.shifts.set_index("parameter")
    prior, efficiency = shifts.loc["prior log-odds logit(rho)"], shifts.loc["log K"]
    assert prior["eti90_upper"] < -1 and prior["p_negative"] > 0.99  # simulated: -0.8 log(2501) = -6.3
    assert efficiency["eti90_lower"] < 0.3 and efficiency["eti90_upper"] > -0.3  # simulated: 0
