"""New models on old problems, against simulated truth, brute-force quadrature and scipy's beta-binomial."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import cho_solve
from scipy.special import betaln, expit, gammaln, logit, logsumexp
from scipy.stats import betabinom, multivariate_normal, norm, spearmanr

from bayesscale.attempts import Attempts
from bayesscale.draws import Draws
from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.resampling.crossed import WIDENING, CrossedFit, columns_of, fit_crossed, log_likelihood
from bayesscale.resampling.difficulty import Difficulty, laplace, problem_difficulty, surface
from bayesscale.resampling.stored import load_crossed, save_crossed

SAMPLER = Sampler(chains=2, draws=250, keep=250, warmup=(40, 50, 50), starts=2, lanes=8, tiers=0)
OTIS = Path(__file__).parents[1] / "../shared/data/resampling/epoch_otis_mock_aime.csv"


def attempts_of(n, c, *, first: int = 0, problems=None, benchmark: str | None = None) -> Attempts:
    """Counts as a (model, problem) table; n = 0 leaves a cell out."""
    n, c = np.broadcast_arrays(np.asarray(n), np.asarray(c))
    model, problem = np.nonzero(n)
    tail = () if benchmark is None else (benchmark,)
    return Attempts(
        key_names=("model",) if benchmark is None else ("model", "benchmark"),
        keys=tuple((f"m{first + i:03d}", *tail) for i in range(len(n))),
        model=model,
        problems=tuple(problems or (f"p{i:03d}" for i in range(n.shape[1]))),
        problem=problem,
        n=n[n > 0],
        n_correct=c[n > 0],
    )


@cache
def world():
    """Eighty old models and 16 new ones on 60 problems: (old, new with full counts, easiness, rates of the new)."""
    rng = np.random.default_rng(3)
    easiness, k = rng.normal(0, 1.5, 60), 6.0
    mean = expit(rng.normal(-0.5, 1.5, 96)[:, None] + easiness)
    p = rng.beta(k * mean, k * (1 - mean))
    old = attempts_of(np.full((80, 60), 8), rng.binomial(8, p[:80]))
    return old, p[80:], easiness


@cache
def learned() -> Difficulty:
    return problem_difficulty(world()[0])


@cache
def fits(difficulty: bool):
    """One sample on each of 8 of the 30 easiest problems, per new model."""
    old, p, easiness = world()
    rng = np.random.default_rng(4)
    n = np.zeros(p.shape, int)
    for row in n:
        row[rng.choice(np.argsort(easiness)[30:], 8, replace=False)] = 1
    new = attempts_of(n, rng.binomial(n, p), first=80)
    return fit_crossed(new, old, difficulty=difficulty, sampler=SAMPLER)


def test_surface_is_scipys_beta_binomial_and_its_derivatives():
    eta, k = np.array([[-3.0, 0.2, 5.0]]), 2.5
    c, f = np.array([[2.0, 3.0, 0.0]]), np.array([[6.0, 5.0, 0.0]])
    at = lambda x: betabinom.logpmf(c, c + f, k * expit(x), k * expit(-x))  # noqa: E731
    found, h = surface(eta, c, f, k), 1e-4
    constant = at(eta).sum() - found.value
    assert constant == pytest.approx(at(eta + 0.3).sum() - surface(eta + 0.3, c, f, k).value, abs=1e-10)
    np.testing.assert_allclose(found.gradient, (at(eta + h) - at(eta - h)) / (2 * h), atol=1e-6)
    np.testing.assert_allclose(found.curvature, -(at(eta + h) - 2 * at(eta) + at(eta - h)) / h**2, atol=1e-5)
    assert found.gradient[0, 2] == 0 == found.curvature[0, 2]  # a cell without samples says nothing


def test_laplace_evidence_and_mean_are_those_of_quadrature():
    # two models, one problem: three unknowns, summed on a grid; the counts are many, so that the likelihood is nearly normal
    c, f = np.array([[210.0], [135.0]]), np.array([[390.0], [465.0]])
    k, level_sd, spread = 400.0, 0.8, 0.6
    found = laplace(c, f, np.log([k, level_sd, spread]), np.zeros(3))
    grids = np.meshgrid(*(np.linspace(-3.2, 2.2, 91) for _ in range(3)), indexing="ij")
    step = grids[0][1, 0, 0] - grids[0][0, 0, 0]
    levels, e = np.stack(grids[:2], axis=-1), grids[2]
    log = multivariate_normal.logpdf(levels, cov=level_sd**2 * np.eye(2) + 25.0) + norm.logpdf(e, 0, spread)
    for i in range(2):
        a, b = k * expit(grids[i] + e), k * expit(-grids[i] - e)
        log += betaln(a + c[i], b + f[i]) - betaln(a, b)
    assert found.log_evidence == pytest.approx(logsumexp(log) + 3 * np.log(step), abs=0.01)
    weight = np.exp(log - logsumexp(log))
    np.testing.assert_allclose(found.mode, [(weight * grid).sum() for grid in grids], atol=0.02)
    covariance = cho_solve(found.factor, np.eye(3))
    assert np.sqrt(covariance[2, 2]) == pytest.approx(np.sqrt((weight * (e - found.mode[2]) ** 2).sum()), rel=0.03)


def test_difficulty_recovers_simulated_truth():
    _, _, easiness = world()
    found, truth = learned(), easiness - easiness.mean()
    assert np.corrcoef(found.easiness, truth)[0, 1] > 0.98
    z = (found.easiness - truth) / found.sd
    assert 0.75 < np.sqrt(np.mean(z**2)) < 1.25  # the stated errors are the errors made
    assert found.concentration == pytest.approx(6.0, rel=0.2)
    assert found.spread == pytest.approx(easiness.std(), rel=0.15)
    assert found.level_sd == pytest.approx(1.5, rel=0.25)
    assert abs(found.easiness.mean()) < 1e-12


def test_few_models_say_little_and_missing_cells_are_no_failures():
    old, _, _ = world()
    two = problem_difficulty(old.subset([0, 1]))
    assert (two.sd > learned().sd).all()
    assert two.easiness.std() < learned().easiness.std()  # shrunk to the mean problem
    counts = old.to_frame()
    n = np.full((80, 60), 8)
    n[40:, 7] = 0  # the second half never tried this problem
    c = counts["n_correct"].to_numpy().reshape(80, 60)
    part = problem_difficulty(attempts_of(n, np.minimum(c, n)))
    assert part.sd[7] > 1.2 * learned().sd[7]
    assert abs(part.easiness[7] - learned().easiness[7]) < 3 * part.sd[7]


def tiny():
    """Two old models' worth of difficulty and a new model with counts on three of four problems."""
    old = attempts_of(np.full((6, 4), 10), np.array([[9, 6, 3, 1], [8, 6, 2, 0], [10, 9, 7, 3]] * 2))
    return attempts_of([[3, 16, 5, 0]], [[3, 9, 0, 0]], first=90), old


@pytest.fixture(scope="module")
def tiny_fit():
    new, old = tiny()
    return fit_crossed(new, old, sampler=replace(SAMPLER, draws=1000, keep=1000))[0]


@pytest.mark.parametrize(("n", "c"), [(1, 0), (16, 11), (10_000, 1), (10_000, 4_000)])
def test_likelihood_integrates_easiness_whatever_the_counts(n, c):
    _, old = tiny()
    known = replace(problem_difficulty(old), sd=np.full(4, 0.8))
    columns = {
        name: column[0] for name, column in columns_of([(attempts_of([[n, 0, 0, 0]], [[c, 0, 0, 0]]), known)]).items()
    }
    theta = {"level": -0.5, "slope": 1.2, "log_concentration": 1.6}
    z = np.linspace(-9, 9, 2001)
    eta, k = -0.5 + 1.2 * (known.easiness[0] + 0.8 * z), np.exp(1.6)
    a, b = k * expit(eta), k * expit(-eta)
    at = gammaln(a + c) - gammaln(a) + gammaln(b + n - c) - gammaln(b) - gammaln(k + n) + gammaln(k)
    want = logsumexp(at, b=norm.pdf(z) / norm.pdf(z).sum())
    assert float(log_likelihood(theta, columns)) == pytest.approx(want, abs=3e-3)


def tiny_posterior(known: Difficulty):
    """Grid over (level, slope, ln k), its weights, by brute force; easiness integrated by the trapezoidal rule."""
    grids = np.linspace(-7, 7, 41), np.linspace(-1, 3, 25), np.linspace(-2.5, 6, 25)
    level, slope, log_k = (g[..., None] for g in np.meshgrid(*grids, indexing="ij"))
    k, z = np.exp(log_k), np.linspace(-4.5, 4.5, 25)
    log = norm.logpdf(level, known.level, WIDENING * known.level_sd) + norm.logpdf(slope, 1.0, 0.5)
    log = (log + norm.logpdf(log_k, np.log(known.concentration), 0.7))[..., 0]
    for i, (n, c) in enumerate(((3, 3), (16, 9), (5, 0))):
        m = expit(level + slope * (known.easiness[i] + known.sd[i] * z))
        log += logsumexp(betabinom.logpmf(c, n, k * m, k * (1 - m)) + norm.logpdf(z), axis=-1)
    return level[..., 0], slope[..., 0], log_k[..., 0], np.exp(log - logsumexp(log))


def test_posterior_and_prediction_are_those_of_quadrature(tiny_fit):
    known = tiny_fit.difficulty
    level, slope, log_k, weight = tiny_posterior(known)
    for name, grid in (("level", level), ("slope", slope), ("log_concentration", log_k)):
        middle = (weight * grid).sum()
        sd = np.sqrt((weight * (grid - middle) ** 2).sum())
        error = 4 * sd / np.sqrt(tiny_fit.draws.diagnostics[name]["ess_bulk"])
        assert tiny_fit.draws.flat(name).mean() == pytest.approx(middle, abs=error)
        assert tiny_fit.draws.flat(name).std() == pytest.approx(sd, rel=0.1)
    forecast = tiny_fit.predict()
    z = np.linspace(-4.5, 4.5, 25)
    never = np.zeros(len(z))
    tried = np.zeros(len(z))
    for j, each in enumerate(z):
        never[j] = (weight * expit(level + slope * (known.easiness[3] + known.sd[3] * each))).sum()
        m, k = expit(level + slope * (known.easiness[1] + known.sd[1] * each)), np.exp(log_k)
        here = weight * betabinom.pmf(9, 16, k * m, k * (1 - m)) / tiny_marginal(level, slope, log_k, known)
        tried[j] = (here * (k * m + 9) / (k + 16)).sum()
    share = norm.pdf(z) / norm.pdf(z).sum()
    rates = forecast.rates.mean(axis=0)
    assert rates[3] == pytest.approx(share @ never, abs=0.015)  # never tried: the Beta's mean
    assert rates[1] == pytest.approx(share @ tried, abs=0.006)  # tried: its own counts updated
    assert forecast.n.tolist() == [3, 16, 5, 0]


def tiny_marginal(level, slope, log_k, known):
    """Likelihood of the second problem's count, its easiness integrated out."""
    z, k = np.linspace(-4.5, 4.5, 25), np.exp(log_k)
    parts = [expit(level + slope * (known.easiness[1] + known.sd[1] * each)) for each in z]
    each = np.array([betabinom.pmf(9, 16, k * m, k * (1 - m)) for m in parts])
    return np.tensordot(norm.pdf(z) / norm.pdf(z).sum(), each, axes=1)


def test_easy_problems_tried_first_mislead_only_without_difficulties():
    _, p, _ = world()
    truth, errors, inside = p.mean(axis=1), {}, {}
    for difficulty in (True, False):
        forecasts = [fit.predict() for fit in fits(difficulty)]
        errors[difficulty] = np.abs([f.accuracy.mean() for f in forecasts] - truth).mean()
        bounds = np.array([f.interval() for f in forecasts])
        inside[difficulty] = ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean()
    share = np.array([fit.attempts.n_correct.mean() for fit in fits(True)])
    assert errors[True] < 0.7 * errors[False]
    assert errors[True] < 0.7 * np.abs(share - truth).mean()
    assert inside[True] >= 0.7  # of 16, at a nominal .9: fewer than 12 has probability .02


def test_rates_of_single_problems_never_tried():
    _, p, _ = world()
    hits, errors = [], {True: [], False: []}
    for difficulty in (True, False):
        for fit, rates in zip(fits(difficulty), p, strict=True):
            forecast = fit.predict()
            fresh = forecast.n == 0
            table = forecast.table()[fresh]
            errors[difficulty].append(np.abs(table["rate"] - rates[fresh]).mean())
            if difficulty:
                hits += list((table["eti90_lower"] <= rates[fresh]) & (rates[fresh] <= table["eti90_upper"]))
    # the slope and concentration of these models sit at the middle of their priors, so a little above .9 is expected
    assert 0.86 < np.mean(hits) < 0.97
    assert np.mean(errors[True]) < 0.8 * np.mean(errors[False])


def test_order_of_models_and_problems_changes_nothing():
    new, old = tiny()
    turned = lambda a: replace(  # noqa: E731
        a,
        keys=a.keys[::-1],
        model=len(a) - 1 - a.model,
        problems=a.problems[::-1],
        problem=len(a.problems) - 1 - a.problem,
    )
    one = fit_crossed(new, old, sampler=SAMPLER)[0].predict(["p003", "p001"])
    other = fit_crossed(turned(new), turned(old), sampler=SAMPLER)[0].predict(["p003", "p001"])
    np.testing.assert_array_equal(one.rates, other.rates)
    assert one.problems == ("p003", "p001")


def test_a_model_among_the_old_ones_does_not_count_for_itself():
    new, old = tiny()
    own = attempts_of([[16, 16, 16, 16]], [[0, 1, 15, 16]])
    held = fit_crossed(own, old, sampler=SAMPLER)[0]
    assert held.difficulty.models == 5
    alone = problem_difficulty(old.subset([1, 2, 3, 4, 5]))
    np.testing.assert_array_equal(held.difficulty.easiness, alone.easiness)
    # its own order of problems is the reverse of the others': the slope says so
    assert "SLOPE" in {finding.code for finding in held.findings}
    assert held.draws.flat("slope").mean() < 0.3


def joined(one: Attempts, two: Attempts) -> Attempts:
    frames = pd.concat([one.to_frame(), two.to_frame()])
    return Attempts.from_frame(frames, model=["model", "benchmark"], problem="problem", n="n", correct="n_correct")


def test_benchmarks_are_kept_apart_when_labels_clash():
    n, easy = np.full((4, 3), 10), np.array([[9, 5, 1], [8, 4, 0], [10, 6, 3], [9, 6, 2]])
    a = attempts_of(n, easy, benchmark="A")
    b = attempts_of(n, easy[:, ::-1], benchmark="B")
    old = joined(a, b)
    news = [attempts_of([[16, 16, 0]], [[12, 8, 0]], first=50, benchmark=name) for name in "AB"]
    for fit, alone in zip(fit_crossed(joined(*news), old, sampler=SAMPLER), (a, b), strict=True):
        want = problem_difficulty(alone)
        np.testing.assert_allclose(fit.difficulty.easiness, want.easiness, atol=1e-12)
        assert np.sign(fit.difficulty.easiness[0]) == (1 if alone is a else -1)
    with pytest.raises(InputError, match="CROSSED-BENCHMARK"):
        problem_difficulty(old)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda new, old: (replace(new, problems=("x", *new.problems[1:])), old), "CROSSED-PROBLEM"),
        (lambda new, old: (new, old.subset([0])), "CROSSED-OLD"),
        (lambda new, old: (replace(new, key_names=("checkpoint",)), old), "CROSSED-KEYS"),
    ],
)
def test_what_cannot_be_predicted_is_refused(change, code):
    with pytest.raises(InputError, match=code):
        fit_crossed(*change(*tiny()), sampler=SAMPLER)


def test_prediction_refuses_problems_and_targets_it_does_not_know(tiny_fit):
    with pytest.raises(InputError, match="CROSSED-PROBLEM m090 - no other model has tried 1 of the problems: q"):
        tiny_fit.predict(["p000", "q"])
    with pytest.raises(InputError, match="CROSSED-TARGET"):
        tiny_fit.predict(target="population")
    row = tiny_fit.predict().summary().iloc[0]
    assert row["eti90_lower"] < row["accuracy"] < row["eti90_upper"]
    assert (row["problems"], row["tried"]) == (4, 3)


@pytest.mark.skipif(not OTIS.exists(), reason="real counts are not part of the repository")
def test_real_problems_are_ordered_as_their_mean_scores():
    table = pd.read_csv(OTIS).groupby(["model", "problem"], as_index=False)[["n", "n_correct"]].sum()
    found = problem_difficulty(Attempts.from_frame(table, model="model", problem="problem", n="n", correct="n_correct"))
    rate = table.assign(rate=table["n_correct"] / table["n"]).groupby("problem")["rate"].mean()
    assert spearmanr(rate[list(found.problems)], found.easiness).statistic > 0.98
    # regression to the mean on the logit axis would shrink the spread; adding up logits of means understates it
    assert found.spread > logit(rate.clip(0.01, 0.99)).std()
    assert found.models == 81


def test_a_saved_fit_predicts_to_the_last_digit(tmp_path):
    """The problems of the old models are more than those tried; nothing is fitted here."""
    rng = np.random.default_rng(0)
    tried = attempts_of(np.array([[2, 2, 2]]), np.array([[0, 1, 2]]), problems=("p001", "p003", "p004"))
    labels = tuple(f"p{i:03d}" for i in range(8))
    known = Difficulty(labels, rng.normal(size=8), np.full(8, 0.3), -0.5, 1.2, 1.5, 6.0, 5)
    values = {name: m + 0.1 * rng.normal(size=(2, 50)) for name, m in (("level", 0.0), ("slope", 1.0))}
    values["concentration"] = np.exp(1.5 + 0.1 * rng.normal(size=(2, 50)))
    measured = {name: dict.fromkeys(("r_hat", "ess_bulk", "ess_tail"), np.array(1.0)) for name in values}
    fit = CrossedFit(tried, known, Draws(values, {name: v.ravel() for name, v in values.items()}, {}, measured), 3)
    again = load_crossed(save_crossed(fit, tmp_path / "fit.nc"))
    np.testing.assert_array_equal(again.predict().rates, fit.predict().rates)
    assert again.difficulty.digest == known.digest and again.attempts.digest(0) == tried.digest(0)
