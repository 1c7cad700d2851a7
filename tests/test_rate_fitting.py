"""Fitted success rates and their forecasts, against quadrature, enumeration and simulated truth."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from scipy.special import betaln, logsumexp
from scipy.stats import binom, hypergeom, norm

from bayesscale.attempts import Attempts
from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.rates import RATE_LAWS
from bayesscale.resampling.fitting import fit_rates
from bayesscale.resampling.forecast import compare_tails, forecast, reliability, solved_by
from bayesscale.resampling.holdout import evaluate_coverage, score_means, split
from bayesscale.resampling.limits import ZERO_PRIORS, limit_of, pass_at_infinity, weighted_quantile, wide_law
from bayesscale.resampling.pooled import fit_rates_pooled

SAMPLER = Sampler(draws=500, keep=500, warmup=(60, 100, 100), lanes=40, tiers=1)


def attempts_of(n, c, models=1, **design) -> Attempts:
    """Problems in order, repeated for each model."""
    n, c = np.broadcast_arrays(np.asarray(n), np.asarray(c))
    size = n.size // models
    return Attempts(
        key_names=("model",),
        keys=tuple((f"m{i}",) for i in range(models)),
        model=np.repeat(np.arange(models), size),
        problems=tuple(f"p{i:04d}" for i in range(size)),
        problem=np.tile(np.arange(size), models),
        n=n.ravel(),
        n_correct=c.ravel(),
        **design,
    )


@cache
def counts() -> Attempts:
    """Sixty problems with 40 samples each, rates from Beta(.4, 6)."""
    rng = np.random.default_rng(1)
    return attempts_of(np.full(60, 40), rng.binomial(40, rng.beta(0.4, 6.0, 60)))


@cache
def beta_fit():
    return fit_rates(counts(), "beta", sampler=SAMPLER)[0]


def beta_posterior():
    """Weights (mean, tail) of the Beta law's posterior on a fine grid, by brute force."""
    mean, tail = np.meshgrid(np.linspace(-6, 1, 400), np.linspace(-4, 2, 400), indexing="ij")
    a, b = np.exp(tail), np.exp(tail - mean)
    log_weight = norm.logpdf(mean, -5.0, 2.5) + norm.logpdf(tail, np.log(0.3), 0.6)
    for n, c, weight in zip(*counts().patterns(0), strict=True):
        log_weight = log_weight + weight * (betaln(a + c, b + n - c) - betaln(a, b))
    return mean, tail, np.exp(log_weight - logsumexp(log_weight))


def test_beta_posterior_is_that_of_quadrature():
    fit, (mean, tail, weight) = beta_fit(), beta_posterior()
    assert fit.status != "fail"
    for name, grid in (("logit_mean", mean), ("log_tail_index", tail)):
        draws = fit.draws.flat(name)
        middle = (weight * grid).sum()
        sd = np.sqrt((weight * (grid - middle) ** 2).sum())
        error = 4 * sd / np.sqrt(fit.draws.diagnostics[name]["ess_bulk"])
        assert draws.mean() == pytest.approx(middle, abs=error)
        assert draws.std() == pytest.approx(sd, rel=0.1)


def test_population_forecast_is_that_of_quadrature():
    mean, tail, weight = beta_posterior()
    a, b = np.exp(tail), np.exp(tail - mean)
    k = np.array([1, 10, 1000, 10**6])
    want = [(weight * -np.expm1(betaln(a, b + each) - betaln(a, b))).sum() for each in k]
    got = forecast(beta_fit(), k, "population").draws
    np.testing.assert_allclose(got.mean(axis=0), want, atol=4 * got.std(axis=0).max() / np.sqrt(1000))


def test_solved_forecast_counts_what_is_solved_and_tosses_for_the_rest():
    fit, k = beta_fit(), np.array([20, 40, 41, 5000])
    got = forecast(fit, k, "solved")
    n, c = fit.attempts.n, fit.attempts.n_correct
    # within the samples only their order is unknown: the mean is the unbiased estimator
    inside = 1.0 - hypergeom.pmf(0, 40, c, 20)
    assert got.draws[:, 0].mean() == pytest.approx(inside.mean(), abs=0.01)
    assert (got.draws[:, 1] == (c > 0).mean()).all()
    # beyond them each unsolved problem is one coin with the Beta's own chance, theta by theta
    a = np.exp(fit.draws.flat("log_tail_index"))
    b = a * np.exp(-fit.draws.flat("logit_mean"))
    chance = -np.expm1(betaln(a, b + 5000) - betaln(a, b + 40))
    unsolved = int((c == 0).sum())
    mean = ((c > 0).sum() + unsolved * chance.mean()) / n.size
    sd = np.sqrt(unsolved * (chance * (1 - chance)).mean() + unsolved**2 * chance.var()) / n.size
    assert got.draws[:, 3].mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(1000))
    assert got.draws[:, 3].std() == pytest.approx(sd, rel=0.15)
    assert (np.diff(got.draws, axis=1) >= 0).all()
    assert got.table()["extrapolated"].tolist() == [False, False, True, True]


def test_fresh_attempts_follow_each_problems_own_posterior():
    fit, k = beta_fit(), np.array([1, 8])
    got = forecast(fit, k, "these").draws
    a = np.exp(fit.draws.flat("log_tail_index"))
    b = a * np.exp(-fit.draws.flat("logit_mean"))
    rng = np.random.default_rng(2)
    n, c = fit.attempts.n[:, None], fit.attempts.n_correct[:, None]
    p = rng.beta(a + c, b + n - c)
    want = 1 - (1 - p[..., None]) ** k
    np.testing.assert_allclose(got.mean(axis=0), want.mean(axis=(0, 1)), atol=0.004)
    np.testing.assert_allclose(got.std(axis=0), want.mean(axis=0).std(axis=0), rtol=0.12)
    every = reliability(fit, k, "these").draws
    np.testing.assert_allclose(every.mean(axis=0), (p[..., None] ** k).mean(axis=(0, 1)), atol=0.004)


def test_new_problems_scatter_like_problems():
    fit = beta_fit()
    pass_at, new = (forecast(fit, [10], target).draws[:, 0] for target in ("population", "new"))
    sd = np.sqrt(pass_at.var() + (pass_at * (1 - pass_at)).mean() / counts().n.size)
    assert new.mean() == pytest.approx(pass_at.mean(), abs=0.01)
    assert new.std() == pytest.approx(sd, rel=0.12)


@pytest.mark.parametrize(
    ("n", "c", "design", "k", "want"),
    [
        (10, 3, {}, 4, 1 - hypergeom.pmf(0, 10, 3, 4)),
        (10, 0, {}, 99, 0.0),
        (10, 3, {}, 8, 1.0),
        (7, 1, {"stopping": "first_success", "cap": 20}, 6, 0.0),
        (7, 1, {"stopping": "first_success", "cap": 20}, 7, 1.0),
        (180, 2, {"stopping": "batch", "batch": 60, "cap": 600}, 120, 0.0),
        (180, 2, {"stopping": "batch", "batch": 60, "cap": 600}, 150, 1 - hypergeom.pmf(0, 60, 2, 30)),
        (180, 2, {"stopping": "batch", "batch": 60, "cap": 600}, 500, 1.0),
    ],
)
def test_when_the_first_success_came(n, c, design, k, want):
    assert solved_by(attempts_of([n], [c], **design), np.array([k]))[0, 0] == pytest.approx(want)


def test_an_unknown_order_is_refused():
    capped = attempts_of([10, 20], [3, 0], stopping="capped", cap=20)
    with pytest.raises(InputError, match=r"^PASSK-ORDER .* ask for k of 20 or more"):
        solved_by(capped, np.array([10]))


@pytest.mark.parametrize(("k", "said"), [(0, "got 0"), (-3, "got -3"), (2.5, "got 2.5"), (1e13, "got 1e[+]13")])
def test_numbers_of_attempts_out_of_range_are_refused(k, said):
    with pytest.raises(InputError, match=rf"^PASSK-K .*{said}"):
        forecast(beta_fit(), [k])


def test_a_law_without_parameters_forecasts_too():
    fit = fit_rates(counts(), "jeffreys", sampler=SAMPLER)[0]
    got = forecast(fit, [1, 80], "these").draws
    n, c = counts().n, counts().n_correct
    assert got[:, 0].mean() == pytest.approx(((c + 0.5) / (n + 1)).mean(), abs=0.002)


def test_posterior_ignores_company_and_order():
    rng = np.random.default_rng(5)
    other = attempts_of(np.full(120, 40), np.concatenate([counts().n_correct, rng.binomial(40, 0.2, 60)]), models=2)
    first = replace(other, keys=(("m0",), ("m1",)))
    np.testing.assert_array_equal(
        fit_rates(first, "beta", sampler=SAMPLER)[0].draws.flat("logit_mean"), beta_fit().draws.flat("logit_mean")
    )


def test_disagreeing_tails_are_called_prior_driven():
    own = forecast(beta_fit(), [100, 10_000])
    same, far = replace(own, law="b"), replace(own, law="c", draws=0.3 * own.draws)
    assert compare_tails([own, same]).findings == ()
    (finding,) = compare_tails([own, far]).findings
    assert finding.code == "PRIOR-DRIVEN" and "c 0." in finding.message
    (few,) = compare_tails([replace(own, successes=3), same]).findings
    assert few.code == "PRIOR-DRIVEN" and "only 3 successes" in few.message


def test_heldout_scores_are_those_of_the_rest_of_the_samples():
    rng = np.random.default_rng(3)
    full = attempts_of(np.full(80, 400), rng.binomial(400, rng.beta(0.5, 20, 80)))
    parts = split(full, 40, [400], seed=4)
    assert (parts.train.n == 40).all() and (parts.train.n_correct <= full.n_correct).all()
    assert parts.truth[0, 0] == (full.n_correct > 0).mean()
    table = evaluate_coverage(full, 40, [100, 400], laws=("beta",), baselines=("ols",), sampler=SAMPLER, seed=4)
    assert set(table["predictor"]) == {"beta", "ols"} and len(table) == 4
    np.testing.assert_allclose(table["error"], table["median"] - table["truth"])
    assert set(score_means(table)["forecasts"]) == {1}
    with pytest.raises(InputError, match=r"^HOLDOUT-K"):
        split(full, 40, [30])


def test_stopped_sampling_is_cut_at_a_budget():
    n = np.array([60, 120, 600, 600])
    stopped = attempts_of(n, [1, 2, 0, 1], stopping="batch", batch=60, cap=600)
    parts = split(stopped, 120, [600])
    np.testing.assert_array_equal(parts.train.n_correct, [1, 2, 0, 0])
    assert parts.truth[0, 0] == 0.75


def test_stopping_does_not_bias_the_posterior():
    """Sampling until the first success gives c/n far above the truth and a posterior about it."""
    rng = np.random.default_rng(8)
    p, cap = rng.beta(0.8, 8.0, 400), 200
    n = np.minimum(rng.geometric(p), cap)
    c = (rng.random(400) < -np.expm1(cap * np.log1p(-p))).astype(int)
    c[n < cap] = 1
    c[n == cap] = 0
    fit = fit_rates(attempts_of(n, c, stopping="first_success", cap=cap), "beta", sampler=SAMPLER)[0]
    mean = fit.draws.flat("mean")
    low, high = np.quantile(mean, [0.001, 0.999])
    assert low < 0.8 / 8.8 < high < (c / n).mean()


def test_pooling_two_models_needs_something_to_pool():
    with pytest.raises(InputError, match=r"^POOL-MODELS"):
        fit_rates_pooled(counts(), "beta")
    two = attempts_of(np.full(20, 10), np.tile([0, 1], 10), models=2, covariates={"params": np.array([1e9, 1e9])})
    with pytest.raises(InputError, match=r"^POOL-COVARIATE .*to vary"):
        fit_rates_pooled(two, "beta", covariates=("params",))
    with pytest.raises(InputError, match=r"^POOL-COVARIATE - there is no"):
        fit_rates_pooled(two, "beta", covariates=("tokens",))
    with pytest.raises(InputError, match=r"^POOL-PARAMETER - law jeffreys has nothing"):
        fit_rates_pooled(two, "jeffreys")


# Known answers --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pooling_finds_the_slope_of_the_tail():
    """Tail indices rise by .9 in ln over the range of the covariate, with a little scatter."""
    rng = np.random.default_rng(11)
    models, problems = 12, 120
    x = np.linspace(0, 1, models)
    tail = np.exp(np.log(0.3) + 0.9 * (x - 0.5) + 0.1 * rng.standard_normal(models))
    p = rng.beta(tail[:, None], tail[:, None] * np.exp(3.0), (models, problems))
    attempts = attempts_of(
        np.full(models * problems, 1000),
        rng.binomial(1000, p).ravel(),
        models=models,
        covariates={"params": np.exp(x * 5)},
    )
    pooled = fit_rates_pooled(attempts, "beta", covariates=("params",))
    assert pooled.status != "fail"
    low, high = np.quantile(pooled.shared.flat("log_tail_index_slope_params"), [0.005, 0.995])
    assert low < 0.9 < high and high - low < 1.2
    assert len(pooled.fits) == models
    alone = fit_rates(attempts, "beta", sampler=SAMPLER)
    spread = [np.mean([f.draws.flat("log_tail_index").std() for f in fits]) for fits in (alone, pooled.fits)]
    assert spread[1] < spread[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RATE_LAWS if name != "jeffreys"])
def test_intervals_cover_truths_drawn_from_the_prior(name):
    """Simulated benchmarks, parameters from the prior: 90% intervals hold 85 to 95% of them, up to Monte Carlo error."""
    law, models, problems, n = RATE_LAWS[name], 200, 100, 200
    keys = jax.random.split(jax.random.key(17), models)
    fits, truths = [], []
    rng, counted = np.random.default_rng(6), []
    for key in keys:
        theta = {p.name: p.prior_given({}).sample(jax.random.fold_in(key, i)) for i, p in enumerate(law.parameters)}
        rates = np.asarray(law.sample(jax.random.fold_in(key, 99), theta, (problems,)))
        counted.append(rng.binomial(n, np.clip(rates, 0, 1)))
        truths.append({name: float(value) for name, value in theta.items()})
    attempts = attempts_of(np.full(models * problems, n), np.concatenate(counted), models=models)
    sampler = Sampler(draws=250, keep=250, warmup=(60, 100, 100), lanes=512, tiers=1)
    fits = fit_rates(attempts, law, sampler=sampler)
    passed = [i for i, fit in enumerate(fits) if fit.status != "fail"]
    print(f"\n{name}: {len(passed)} of {models} pass")
    assert len(passed) >= 0.95 * models
    for parameter in law.parameters:
        inside = [
            np.quantile(fits[i].draws.flat(parameter.name), 0.05)
            <= truths[i][parameter.name]
            <= np.quantile(fits[i].draws.flat(parameter.name), 0.95)
            for i in range(models)
        ]
        print(f"  {parameter.name}: {np.mean(inside):.3f}")
        low, high = binom.ppf([0.0005, 0.9995], models, 0.9) / models
        assert low <= np.mean(inside) <= high


# pass@infinity --------------------------------------------------------------------------------------------------------


def test_weighted_quantiles_are_those_of_repeated_values():
    rng = np.random.default_rng(0)
    values, times = rng.normal(size=50), rng.integers(1, 9, 50)
    want = np.quantile(np.repeat(values, times), [0.05, 0.5, 0.95], method="inverted_cdf")
    np.testing.assert_array_equal(weighted_quantile(values, times / times.sum(), [0.05, 0.5, 0.95]), want)


def test_the_limit_follows_the_prior_where_the_data_are_silent_and_the_data_where_they_speak():
    """A third of the problems impossible: hidden at 20 samples of hard problems, plain at 5000 of easy ones."""
    rng, problems = np.random.default_rng(4), 150
    possible = rng.random(problems) > 1 / 3
    silent = rng.binomial(20, np.where(possible, rng.beta(0.3, 30, problems), 0))
    plain = rng.binomial(5000, np.where(possible, rng.beta(0.7, 7, problems), 0))
    n = np.concatenate([np.full(problems, 20), np.full(problems, 5000)])
    limits = pass_at_infinity(attempts_of(n, np.concatenate([silent, plain]), models=2), sampler=SAMPLER)
    tables = [limit.table().set_index("estimand") for limit in limits]
    assert all(set(table.index) == {"these", "new", "population"} for table in tables)
    hidden, seen = (table.loc["population"] for table in tables)
    assert np.ptp(hidden["median"]) > 2 * np.ptp(seen["median"])
    width = lambda table: table["eti90_upper"].iloc[-1] - table["eti90_lower"].iloc[-1]  # noqa: E731
    assert width(hidden) > 1.5 * width(seen)  # under the vague prior
    assert ((seen["eti90_lower"] < possible.mean()) & (possible.mean() < seen["eti90_upper"])).all()
    assert (seen["effective_draws"] > 100).all()
    # of these problems the solved ones are possible for certain; as many new ones scatter like problems
    of = {name: tables[1].loc[name] for name in ("these", "new")}
    solved = (plain > 0).mean()
    assert (of["these"]["eti90_lower"] >= solved).all()
    assert ((of["these"]["eti90_lower"] <= possible.mean()) & (possible.mean() <= of["these"]["eti90_upper"])).all()
    assert width(of["new"]) > width(seen) > width(of["these"])


def test_the_share_of_possible_problems_is_counted_with_coins():
    """Where the unsolved have had few samples, each is possible with its chance under theta."""
    fit = fit_rates(counts(), wide_law(), sampler=SAMPLER)[0]
    limit = limit_of(fit, ZERO_PRIORS, seed=0)
    zero = fit.draws.flat("zero_mass")
    a = np.exp(fit.draws.flat("log_tail_index"))
    b = a * np.exp(-fit.draws.flat("logit_mean"))
    hard = (1 - zero) * np.exp(betaln(a, b + 40) - betaln(a, b))
    solved, problems = (counts().n_correct > 0).sum(), counts().n.size
    want = (solved + (problems - solved) * hard / (zero + hard)) / problems
    assert limit.draws["these"].mean() == pytest.approx(want.mean(), abs=0.01)
    np.testing.assert_allclose(limit.draws["population"], 1 - zero)


def test_pooled_settings_given_are_obeyed():
    rng = np.random.default_rng(9)
    two = attempts_of(np.full(60, 50), rng.binomial(50, rng.beta(0.4, 4.0, 60)), models=3)
    small = {"draws": 30, "chains": 2, "warmup": (20, 20), "tiers": 0, "keep": 30}
    pooled = fit_rates_pooled(two, "beta", given=small)
    assert pooled.shared.flat("log_tail_index_centre").shape == (60,)
    assert pooled.fits[0].draws.provenance["sampler"]["draws"] == 30
