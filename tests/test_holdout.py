"""Leave-future-out: what is trained on, what is forecast, and that nothing is lost without a word."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from scipy.special import expit, logit, logsumexp

import bayesscale.pooled
from bayesscale.curves import Curves
from bayesscale.fitting import Skipped
from bayesscale.holdout import (
    SMALLEST_TRAINING_SET,
    evaluate,
    forecasts_of,
    mixed,
    persistence_forecasts,
    pooled_forecasts,
    training_mask,
    with_reach,
)
from bayesscale.inference.settings import Sampler
from bayesscale.laws import LAWS
from bayesscale.likelihood import BETA_BINOMIAL, LOG_NORMAL, QUASI_BINOMIAL, with_discrepancy
from bayesscale.model import compose
from bayesscale.persistence import link_cells, movement_rate
from bayesscale.pooled import Pooled
from bayesscale.result import Fit
from bayesscale.units import units_of

TINY = Sampler(chains=2, draws=80, warmup=(30, 30), tiers=0, keep=80, lanes=24, starts=4)
GRID = np.array([0.0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
KEYS = (("m", "a"), ("m", "b"), ("n", "a"), ("n", "b"))
SHARES = (0.1, 0.5)
THETA = {"logit_ceiling": 1.5, "logit_zero_ratio": -0.5, "log_n50": 2.5, "log_slope": 0.2}
NOISE = {
    "quasi_binomial": {"d0": 0.3, "d1": -0.2},
    "beta_binomial": {"log_phi": 3.0},
    "log_normal": {"log_tau": -2.5},
}


def hill(theta, shots):
    """p(n) of the Hill law by its formula; theta holds arrays that broadcast with shots."""
    top = expit(theta["logit_ceiling"])
    floor = top * expit(theta["logit_zero_ratio"])
    with np.errstate(divide="ignore"):
        risen = np.exp(theta["log_slope"]) * (np.log(shots) - theta["log_n50"])
    return floor + (top - floor) * expit(risen)


def curves_of(shots, kind="counts", runs=3, keys=KEYS, seed=0):
    """Curves at these shot counts each, near the Hill law."""
    rng = np.random.default_rng(seed)
    runs = runs if kind == "counts" else 1
    n = np.concatenate([np.tile(s, runs) for s in shots])
    curve = np.repeat(np.arange(len(shots)), [runs * len(s) for s in shots])
    run = np.concatenate([np.repeat(np.arange(runs), len(s)) for s in shots])
    p = hill(THETA, n)
    if kind == "counts":
        columns = {"successes": rng.binomial(100, p), "trials": np.full(n.size, 100)}
    else:
        columns = {"value": -np.log(p) * np.exp(0.05 * rng.normal(size=n.size)), "se": np.full(n.size, 0.02)}
    return Curves(kind, ("model", "task"), keys[: len(shots)], curve, run, n, columns, np.full(len(shots), np.nan))


def made_fit(unit, likelihood, seed=0):
    """A fit whose draws scatter around the truth, without sampling."""
    model, rng = compose(LAWS["hill"], likelihood), np.random.default_rng(seed)
    centre = THETA | NOISE[likelihood.name] | {"sigma_delta": 0.1}
    draws = {p.name: centre[p.name] + 0.1 * rng.normal(size=(2, 30)) for p in model.parameters}
    return Fit(model, unit, draws, {name: x[0] for name, x in draws.items()}, {}, {}, np.zeros((2, 30, unit.rows)))


# Training sets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.1, 0.29, 0.5, 1.0])
@pytest.mark.parametrize("joint", [False, True])
def test_every_curve_is_cut_at_a_share_of_its_own_largest_shots(share, joint):
    curves = curves_of((GRID, GRID[:7], np.array([29.0, 100.0]), GRID[3:]))
    units = units_of(curves, QUASI_BINOMIAL, joint=joint)
    keep = training_mask(units, share)
    train = curves.train(share)
    assert not keep[units.columns["mask"] == 0].any()
    for i, key in enumerate(curves.keys):
        want = np.unique(train.shots[train.curve == train.keys.index(key)]) if key in train.keys else []
        np.testing.assert_array_equal(units.columns["shots"][keep & (units.curves == i)], want)


# A small evaluation ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated():
    """Four curves: two whole, one with a lower end, one too short to forecast."""
    curves = curves_of((GRID, GRID, GRID[:9], GRID[:5]))
    return evaluate(curves, ["hill", "power"], shares=SHARES, sampler=TINY, pool=False)


def test_every_curve_law_and_share_is_accounted_for_once(evaluated):
    curves = evaluated.curves
    for law in ("hill", "power"):
        for i in range(len(curves)):
            name = curves.curve_name(i)
            fits = [f for f in evaluated.fits if (f.name, f.law.name) == (name, law)]
            forecasts = [f for f in evaluated.forecasts if (f.curve, f.predictor) == (i, law)]
            skipped = [s for s in evaluated.skipped if (s.name, s.law.name) == (name, law)]
            assert len(fits) + len(forecasts) + len(skipped) == 1 + len(SHARES)
            assert len({f.share for f in forecasts}) == len(forecasts)
            assert all(isinstance(s, Skipped) and s.finding.message for s in skipped)


def test_short_curves_are_skipped_with_the_reason(evaluated):
    short = [s for s in evaluated.skipped if s.name == "n / b" and s.law.name == "hill"]
    assert [s.finding.code for s in short] == ["FEW-ROWS"] * 2
    assert [f"share {share:g}" in s.finding.message for s, share in zip(short, SHARES, strict=True)] == [True, True]
    assert any(f.name == "n / b" for f in evaluated.fits)
    for f in evaluated.forecasts:
        train = evaluated.curves.subset([f.curve]).train(f.share)
        assert len(np.unique(train.shots)) >= SMALLEST_TRAINING_SET


def test_a_law_without_zero_shots_is_skipped(evaluated):
    power = [s for s in evaluated.skipped if s.law.name == "power"]
    assert {s.finding.code for s in power if s.name != "n / b"} == {"ZERO-SHOTS"}
    assert not any(f.law.name == "power" for f in evaluated.fits)
    assert not any(f.predictor == "power" for f in evaluated.forecasts)


def test_forecasts_are_of_exactly_the_rows_held_out(evaluated):
    predictors = {f.predictor for f in evaluated.forecasts}
    assert predictors == {"hill", "persistence"}
    for f in evaluated.forecasts:
        held = evaluated.curves.subset([f.curve]).held_out(f.share)
        shots = np.unique(held.shots)
        np.testing.assert_array_equal(f.shots, shots)
        cells = [held.column("successes")[held.shots == n].mean() / 100 for n in shots]
        np.testing.assert_allclose(f.observed, cells)
        for array in (f.mean, f.observation, f.log_score[None]):
            assert array.shape[1] == len(shots) and np.isfinite(array).all()
        assert f.name == evaluated.curves.curve_name(f.curve)


def test_reach_is_what_siblings_of_the_task_were_trained_on(evaluated):
    found = {(f.curve, f.share): f.reach for f in evaluated.forecasts}
    assert found[0, 0.5] == 100.0  # task a of the other model ends at 200
    assert found[2, 0.5] == 500.0
    assert found[1, 0.5] == 5.0  # task b of the other model ends at 10


def test_forecasts_of_a_joint_law_are_named_by_their_curve(evaluated):
    """A joint law's fit is called by what its curves share; a forecast is of one of them."""
    forecasts = [replace(f, name=evaluated.curves.keys[f.curve][0]) for f in evaluated.forecasts]
    named = with_reach(evaluated.curves, forecasts)
    assert [f.name for f in named] == [evaluated.curves.curve_name(f.curve) for f in forecasts]
    assert [f.reach for f in named] == [f.reach for f in evaluated.forecasts]


def test_persistence_says_the_last_training_value(evaluated):
    for f in (f for f in evaluated.forecasts if f.predictor == "persistence"):
        train = evaluated.curves.subset([f.curve]).train(f.share)
        last = train.column("successes")[train.shots == train.shots.max()].mean() / 100
        np.testing.assert_allclose(f.mean, last)


@pytest.mark.parametrize(("kind", "likelihood"), [("counts", QUASI_BINOMIAL), ("nll_mean", LOG_NORMAL)])
def test_persistence_scores_and_draws_are_of_one_distribution(kind, likelihood):
    curves = curves_of((GRID,), kind)
    (f,) = persistence_forecasts(curves, likelihood, 0.2, draws=40_000)
    data = link_cells(curves.train(0.2), 0)
    link, inverse, slope = (
        (np.log, np.exp, lambda v: 1 / v) if kind == "nll_mean" else (logit, expit, lambda v: 1 / (v * (1 - v)))
    )
    elapsed = np.log1p(f.shots) - np.log1p(data.shots[-1])
    sd = np.sqrt(2 * data.variance[-1] + movement_rate(data) * elapsed)
    y = units_of(curves, likelihood).columns["y"][0, len(data.shots) : len(GRID)]
    want = scipy.stats.norm.logpdf(y, data.y[-1], sd) + np.log(slope(inverse(y)))
    np.testing.assert_allclose(f.log_score, want, rtol=1e-6)
    np.testing.assert_allclose(link(f.observation).std(axis=0), sd, rtol=0.03)


# Scores ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", [QUASI_BINOMIAL, BETA_BINOMIAL, LOG_NORMAL], ids=lambda one: one.name)
def test_log_score_is_the_mean_density_over_draws(likelihood):
    """Without a discrepancy rows are independent given the draws, and scipy can say what each density is."""
    curves = curves_of((GRID,), likelihood.kind, runs=2)
    units = units_of(curves, likelihood)
    held = (units.columns["mask"] > 0) & ~training_mask(units, 0.3)
    fit = made_fit(units, likelihood)
    (f,) = forecasts_of([(fit, 0.3, held[0])], seed=0)
    rows = {name: c[0][held[0]] for name, c in units.columns.items() if c.ndim == 2}
    theta = {name: x[:, None] for name, x in fit.theta().items()}
    p = hill(theta, rows["shots"])
    if likelihood is QUASI_BINOMIAL:
        psi = np.exp(theta["d0"] + theta["d1"] * np.log((rows["shots"] + 1) / 21))
        sd, v = np.sqrt(psi / (rows["trials"] * p * (1 - p)) / rows["runs"]), expit(rows["y"])
        density = scipy.stats.norm.logpdf(rows["y"], logit(p), sd) - np.log(v * (1 - v))
    elif likelihood is BETA_BINOMIAL:
        phi = np.exp(theta["log_phi"])
        density = scipy.stats.betabinom.logpmf(rows["successes"], rows["trials"], phi * p, phi * (1 - p))
    else:
        sd = np.sqrt(np.exp(2 * theta["log_tau"]) + (rows["se"] / rows["value"]) ** 2)
        density = scipy.stats.lognorm.logpdf(rows["value"], sd, scale=-np.log(p))
    np.testing.assert_allclose(f.log_score, logsumexp(density, axis=0) - np.log(len(p)), rtol=1e-6)
    np.testing.assert_allclose(f.mean, -np.log(p) if likelihood is LOG_NORMAL else p, rtol=1e-9)


@pytest.mark.parametrize(("reach", "inside"), [(0.0, 0), (500.0, 1), (1000.0, 2)])
def test_a_mixture_is_half_of_each_within_reach(reach, inside):
    """Beyond what siblings have shown it is the first alone."""
    (a,) = persistence_forecasts(curves_of((GRID,)), QUASI_BINOMIAL, 0.3, draws=50)
    a = replace(a, mean=a.observation, reach=reach)
    b = replace(a, log_score=a.log_score - 3.0, mean=a.mean + 0.1, status="fail")
    (mix,) = mixed([a], [b], "mix")
    within = np.arange(2) < inside
    half = np.logaddexp(a.log_score, b.log_score) - np.log(2)
    np.testing.assert_allclose(mix.log_score, np.where(within, half, a.log_score))
    np.testing.assert_allclose(mix.mean.mean(axis=0), a.mean.mean(axis=0) + 0.05 * within)
    assert (mix.predictor, mix.status, len(mix.observation)) == ("mix", "fail" if inside else "ok", 100)
    assert mixed([a], [replace(b, share=0.7)], "mix") == []


def test_a_curve_that_cannot_be_pooled_does_not_stop_the_others(monkeypatch):
    """One point alone leaves nothing to train on; the other curves are pooled, under their own names."""
    keys = (("m", "a"), ("o", "a"), *KEYS[1:])
    curves = curves_of((GRID, np.array([100.0]), GRID, GRID, GRID), keys=keys)
    likelihood = with_discrepancy(QUASI_BINOMIAL)
    asked = []

    def stub(group, versions, *_, **__):
        asked.append(group.keys)
        return [
            Pooled(tuple(made_fit(v.take([i]), likelihood, i) for i in range(len(v))), {}, {}, ()) for v in versions
        ]

    monkeypatch.setattr(bayesscale.pooled, "sample_pooled", stub)
    forecasts = pooled_forecasts(curves, LAWS["hill"], likelihood, (0.3,), 0, None)
    assert asked == [(keys[0], *keys[2:])]
    assert [(f.curve, f.name) for f in forecasts] == [(i, curves.curve_name(i)) for i in (0, 2, 3, 4)]
    assert all(f.predictor == "pooled hill" and (f.shots > 300).all() for f in forecasts)
    assert pooled_forecasts(curves, LAWS["power"], likelihood, (0.3,), 0, None) == []  # every curve has zero shots
