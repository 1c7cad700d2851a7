"""The fitted verifier, against quadrature, closed forms and simulated truth; false positives of real retries."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import betaln, expit

from bayesscale.attempts import Attempts
from bayesscale.finding import InputError
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Sampler
from bayesscale.pooling import none
from bayesscale.resampling import verifier
from bayesscale.resampling import verifier_law as law
from bayesscale.resampling.false_positives import false_positive_by_attempt, surely_accepted
from bayesscale.resampling.verifier import Stakes
from bayesscale.resampling.verifier_baseline import compare_verifiers, fit_verifier_dirichlet, halves
from bayesscale.resampling.verifier_baseline import log_marginal as dirichlet_marginal
from bayesscale.resampling.verifier_fit import (
    choose,
    fit_verifier,
    forecast_verifier,
    new_problems,
    populations,
    reach,
    these_problems,
)
from bayesscale.resampling.verifier_pooled import fit_verifier_pooled
from bayesscale.simulation.resampling import VerifierLaw, simulate_verifier

REFLEXION = Path(__file__).parents[1] / "../shared/data/resampling/reflexion_until_pass_logs.csv"
SMALL = Sampler(chains=2, draws=250, warmup=(40, 60, 60), starts=1, lanes=16, tiers=0)
RETRIES = Sampler(draws=300, warmup=(60, 100), starts=1, lanes=16, tiers=0)
THETA = {
    "logit_acceptance": -0.7,
    "logit_share": 1.4,
    "acceptance_scale": 1.9,
    "share_scale": 1.2,
    "logit_coupling": 1.1,
}


def attempts_of(n, accepted, labelled, right, **design) -> Attempts:
    n, accepted, labelled, right = np.broadcast_arrays(n, accepted, labelled, right)
    rows = n.size
    return Attempts(
        key_names=("model",), keys=(("m",),), model=np.zeros(rows, int), problems=tuple(f"p{i:03d}" for i in range(rows)),
        problem=np.arange(rows), n=n, n_correct=right, n_accepted=accepted, n_labelled=labelled,
        n_correct_accepted=right, **design,
    )  # fmt: skip


def read(table) -> Attempts:
    return Attempts.from_frame(
        table, model="model", problem="problem", n="n", correct="n_correct", accepted="n_accepted",
        labelled="n_labelled", correct_accepted="n_correct_accepted",
    )  # fmt: skip


@cache
def simulated():
    table, truth = simulate_verifier(
        4, models=[VerifierLaw("m", acceptance=-0.5, correlation=0.6)], problems=60, n=60, labelled=0.5
    )
    return read(table), truth


@cache
def fitted():
    return fit_verifier(simulated()[0], sampler=SMALL)[0]


def brute_force(theta, n, accepted, labelled, right):
    """The same integral on a plain grid that follows kernel and density alike."""
    aa, ss, joint = (float(v) for v in law.covariance(theta))
    x, y = np.linspace(-14, 14, 5601), np.linspace(-12, 14, 2601)
    kernel_x = accepted * np.log(expit(x)) + (n - accepted) * np.log(expit(-x))
    kernel_y = right * np.log(expit(y)) + (labelled - right) * np.log(expit(-y))
    # kernels far narrower than the grid's steps are not asked for, so that trapezoids converge
    inner = np.empty(x.size)
    sd = np.sqrt(ss - joint**2 / aa)
    density_x = stats.norm.pdf(x, theta["logit_acceptance"], np.sqrt(aa)) * np.exp(kernel_x - kernel_x.max())
    for i in np.flatnonzero(density_x > density_x.max() * 1e-14):
        mean = theta["logit_share"] + joint / aa * (x[i] - theta["logit_acceptance"])
        inner[i] = np.exp(kernel_y - kernel_y.max()) @ stats.norm.pdf(y, mean, sd)
    kept = density_x > density_x.max() * 1e-14
    total = density_x[kept] @ inner[kept] * (x[1] - x[0]) * (y[1] - y[0])
    return np.log(total) + kernel_x.max() + kernel_y.max()


TABLES = np.array(
    [(200, 0, 0, 0), (200, 200, 200, 200), (200, 37, 37, 30), (200, 37, 0, 0), (5, 2, 1, 0), (20_000, 3, 3, 3),
     (20_000, 9_000, 500, 490), (1, 1, 1, 0), (200, 150, 150, 0)]
).T  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 1e-3),
        ({"logit_coupling": -4.0, "acceptance_scale": 3.0}, 1e-3),
        ({"logit_coupling": 6.0}, 2e-3),
        ({"acceptance_scale": 0.25, "share_scale": 0.25}, 2e-3),
        ({"acceptance_scale": 0.0, "share_scale": 0.0, "logit_acceptance": -0.63}, 0.03),
    ],
)
def test_marginal_likelihood_is_that_of_brute_force(changes, tolerance):
    theta = THETA | changes
    table, weight, which = law.patterns(attempts_of(*TABLES), 0)
    columns = {name: values[0] for name, values in law.verifier_columns([(table, weight)]).items()}
    found = np.asarray(jax.jit(law.log_marginal)(theta, columns))[: len(weight)][which]
    known = np.array([brute_force(theta, *counts) for counts in TABLES.T])
    # far from the density only the exponent counts: a tolerance on the log, relative where that is large
    np.testing.assert_allclose(found, known, atol=tolerance, rtol=tolerance / 10)


def test_stopping_at_the_first_acceptance_leaves_the_kernel_as_it_is():
    fixed = attempts_of([10, 20], [1, 0], [1, 0], [1, 0])
    stopped = attempts_of([10, 20], [1, 0], [1, 0], [1, 0], stopping="first_success", cap=20)
    for one, other in zip(law.patterns(fixed, 0), law.patterns(stopped, 0), strict=True):
        np.testing.assert_array_equal(one, other)


def test_derived_means_are_those_of_the_simulator():
    own = {"acceptance": -0.7, "share": 1.4, "acceptance_sd": 2.0, "share_sd": 1.3, "correlation": 0.5}
    floor = law.LEAST_SD**2
    a, s = np.sqrt(own["acceptance_sd"] ** 2 - floor), np.sqrt(own["share_sd"] ** 2 - floor)
    r = own["correlation"] * own["acceptance_sd"] * own["share_sd"] / (a * s)
    theta = {
        "logit_acceptance": -0.7, "logit_share": 1.4, "acceptance_scale": a, "share_scale": s,
        "logit_coupling": np.log((1 + r) / (1 - r)),
    }  # fmt: skip
    found, known = law.derived(theta), VerifierLaw("m", **own)
    assert float(found["ceiling"]) == pytest.approx(known.ceiling(), abs=1e-5)
    assert float(found["single_sample"]) == pytest.approx(known.single_sample_accuracy(), abs=1e-5)
    assert float(found["correlation"]) == pytest.approx(0.5)
    assert float(found["slope"]) == pytest.approx(0.5 * 1.3 / 2.0)


def test_problems_are_drawn_from_their_exact_conditionals():
    counts = [(200, 37, 37, 30), (200, 0, 0, 0), (6, 4, 2, 1)]
    size = 4000
    theta = {name: np.full(size, value) for name, value in THETA.items()}
    a, s = these_problems(theta, attempts_of(*np.array(counts).T), np.random.default_rng(1))
    aa, ss, joint = (float(v) for v in law.covariance(THETA))
    x, y = np.meshgrid(np.linspace(-11, 9, 1201), np.linspace(-7, 9, 801), indexing="ij")
    prior = stats.multivariate_normal([THETA["logit_acceptance"], THETA["logit_share"]], [[aa, joint], [joint, ss]])
    log_prior = prior.logpdf(np.stack([x, y], -1))
    for i, (n, k, m, r) in enumerate(counts):
        log_weight = log_prior + k * np.log(expit(x)) + (n - k) * np.log(expit(-x))
        log_weight += r * np.log(expit(y)) + (m - r) * np.log(expit(-y))
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        for drawn, grid, axis in ((a[:, i], x[:, 0], 1), (s[:, i], y[0], 0)):
            cdf = np.cumsum(weight.sum(axis=axis))
            level = np.interp(np.log(drawn) - np.log1p(-drawn), grid, cdf)
            assert stats.kstest(level, "uniform").pvalue > 1e-3
        known = (weight * expit(x) * expit(y)).sum()
        assert (a[:, i] * s[:, i]).mean() == pytest.approx(known, abs=0.01)
    assert len(np.unique(a)) == a.size  # no lattice shows


def test_fit_recovers_what_made_the_counts():
    fit, (_, truth) = fitted(), simulated()
    assert fit.status != "fail", fit.findings
    table = fit.summary().set_index("parameter")
    for name, true in (("acceptance_sd", 2.0), ("share_sd", 1.5), ("correlation", 0.6), ("logit_acceptance", -0.5)):
        assert abs(table.loc[name, "mean"] - true) < 3.5 * table.loc[name, "sd"], name
    a, s = populations(fit, draws=200)
    inside = (np.quantile(s, 0.05, axis=0) <= truth["share"]) & (truth["share"] <= np.quantile(s, 0.95, axis=0))
    assert 0.78 <= inside.mean() <= 1.0
    assert np.corrcoef(a.mean(axis=0), truth["acceptance"])[0, 1] > 0.97
    again = populations(fit, draws=200)
    assert (again[0] == a).all() and (populations(fit, draws=200, seed=1)[0] != a).any()


def test_new_problems_follow_the_law_of_each_draw():
    fit = fitted()
    a, s = populations(fit, "new", draws=20, problems=200_000)
    np.testing.assert_allclose(s.mean(axis=1), _drawn(fit, "ceiling", 20), atol=0.004)
    np.testing.assert_allclose((a * s).mean(axis=1), _drawn(fit, "single_sample", 20), atol=0.004)
    with pytest.raises(InputError, match="^VERIFIER-PROBLEMS"):
        populations(fit, "these", problems=3)
    with pytest.raises(InputError, match="^VERIFIER-TARGET"):
        populations(fit, "old")  # pyright: ignore[reportArgumentType]


def _drawn(fit, name, draws):
    return fit.draws.flat(name)[np.linspace(0, fit.size - 1, draws).astype(int)]


def test_forecasts_are_the_closed_forms_over_the_populations():
    fit = fitted()
    table = forecast_verifier(fit, (1, 10), draws=100)
    a, s = populations(fit, draws=100)
    row = table[(table["quantity"] == "false_positive_share") & (table["samples"] == 10)].iloc[0]
    late = a * (1 - a) ** 9
    known = ((1 - s) * late).sum(axis=1) / late.sum(axis=1)
    assert row["mean"] == pytest.approx(known.mean()) and row["eti90_upper"] == pytest.approx(np.quantile(known, 0.95))
    top = table[(table["quantity"] == "accuracy") & np.isinf(table["samples"])].iloc[0]
    assert top["mean"] == pytest.approx(s.mean())
    choice = choose(fit, Stakes(1.0, 2.0), draws=100, cap=200)
    assert choice.p_abstain + choice.p_finite + choice.p_infinite == pytest.approx(1) and choice.expected_regret >= 0
    never = reach(fit, 0.999, draws=100)
    assert never.probability_never > 0.9
    assert verifier.accuracy(a, s, 5).mean() < top["mean"]


def test_what_the_counts_cannot_say_is_said():
    counts = {
        "none": (0, 0, 0, {"NONE-ACCEPTED", "CORRELATION-PRIOR"}),
        "few": (10, 1, 1, {"FEW-LABELLED", "CORRELATION-PRIOR"}),
        "all": (30, 30, 20, {"ALL-ACCEPTED", "CORRELATION-PRIOR"}),
        "right": (10, 10, 10, {"NONE-WRONG", "CORRELATION-PRIOR"}),
    }
    columns = ("model", "problem", "n", "n_accepted", "n_labelled", "n_correct_accepted", "n_correct")
    rows = [(name, f"p{i:02d}", 30, k, m, r, r) for name, (k, m, r, _) in counts.items() for i in range(12)]
    attempts = read(pd.DataFrame(rows, columns=columns))
    every = {"NONE-ACCEPTED", "FEW-LABELLED", "ALL-ACCEPTED", "NONE-WRONG", "CORRELATION-PRIOR"}
    shallow = replace(SMALL, draws=60, warmup=(30, 30), max_depth=3)  # degenerate counts make long trees
    for fit in fit_verifier(attempts, sampler=shallow):
        assert {finding.code for finding in fit.findings} & every == counts[fit.name][-1], fit.name
    assert "CORRELATION-PRIOR" not in {finding.code for finding in fitted().findings}


def test_attempts_without_a_verifier_are_refused():
    bare = Attempts(
        key_names=("model",), keys=(("m",),), model=np.zeros(2, int), problems=("p", "q"), problem=np.arange(2),
        n=np.array([5, 5]), n_correct=np.array([1, 2]),
    )  # fmt: skip
    with pytest.raises(InputError, match="^VERIFIER-MISSING"):
        fit_verifier(bare)


def test_dirichlet_marginal_is_its_closed_form_and_its_accuracy_is_the_published_one():
    theta = {"log_correct": 0.3, "log_wrong": -1.2, "log_rejected": 0.8}
    c, f, r = np.exp(list(theta.values()))
    counts = {"n": 20.0, "accepted": 9.0, "labelled": 7.0, "right": 5.0}
    known = betaln(c + f + 9, r + 11) - betaln(c + f, r) + betaln(c + 5, f + 2) - betaln(c, f)
    assert float(dirichlet_marginal(theta, counts)) == pytest.approx(known, rel=1e-12)  # pyright: ignore[reportArgumentType]
    # labelled in full, it is the Dirichlet-multinomial
    full = {"n": 20.0, "accepted": 9.0, "labelled": 9.0, "right": 5.0}
    draws = np.random.default_rng(0).dirichlet([c, f, r], 400_000)
    mean = (draws[:, 0] ** 5 * draws[:, 1] ** 4 * draws[:, 2] ** 11).mean()
    assert float(dirichlet_marginal(theta, full)) == pytest.approx(np.log(mean), abs=0.05)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_held_out_problems_prefer_the_law_that_made_them():
    tables = [
        simulate_verifier(
            seed, models=[VerifierLaw(f"m{seed}", correlation=0.9, acceptance_sd=3.0)], problems=120, n=60
        )
        for seed in (0, 1)
    ]
    attempts = read(pd.concat([table for table, _ in tables]))
    kept, left = halves(attempts, 0)
    assert kept.n.size == left.n.size == 120 and len(kept) == 2
    table = compare_verifiers(attempts, sampler=SMALL)
    assert (table["held_out"] == 60).all() and table["difference"].sum() > 10
    with pytest.raises(InputError, match="^HOLDOUT-PROBLEMS"):
        halves(attempts_of([3] * 9, 1, 1, 1), 0)


def test_dirichlet_fit_has_the_ceiling_of_its_counts():
    rng = np.random.default_rng(3)
    p = rng.dirichlet([1.2, 0.4, 1.0], 150)
    cells = np.array([rng.multinomial(50, each) for each in p])
    fit = fit_verifier_dirichlet(attempts_of(50, cells[:, :2].sum(1), cells[:, :2].sum(1), cells[:, 0]), sampler=SMALL)[
        0
    ]
    ceiling = fit.draws.flat("ceiling")
    assert abs(ceiling.mean() - 0.75) < 3.5 * ceiling.std()
    assert fit.accuracy([1, 10**9])[:, 1].mean() == pytest.approx(ceiling.mean(), abs=1e-3)


@pytest.mark.slow
def test_pooled_models_share_their_scales():
    models = [VerifierLaw(f"m{i}", acceptance=a) for i, a in enumerate((-2.0, 0.0, 1.0))]
    attempts = read(simulate_verifier(7, models=models, problems=25, n=30)[0])
    quick = Sampler(
        chains=2, draws=50, warmup=(40,), target_accept=0.8, max_depth=5, starts=0, spread=0.3, lanes=16, tiers=0
    )
    pooled = fit_verifier_pooled(attempts, sampler=quick)
    assert [fit.name for fit in pooled.fits] == ["m0", "m1", "m2"]
    assert "share_scale_centre" in set(pooled.summary()["parameter"])
    means = [fit.draws.flat("logit_acceptance").mean() for fit in pooled.fits]
    assert means == sorted(means)
    assert populations(pooled.fits[0], draws=20)[0].shape == (20, 25)
    with pytest.raises(InputError, match="^POOL-MODELS"):
        fit_verifier_pooled(attempts.subset([0]))
    with pytest.raises(InputError, match="^POOL-PARAMETER"):
        fit_verifier_pooled(attempts, pooling={"tail": none()})


def test_late_acceptances_are_wrong_more_often_where_they_are():
    rng = np.random.default_rng(0)
    attempt = np.repeat([1, 2, 4], 400)
    wrong = rng.random(1200) < expit(-2.0 + 1.0 * np.log2(attempt))
    found = false_positive_by_attempt(attempt, ~wrong, sampler=RETRIES)
    assert found.slopes()["p_rises"][0] > 0.97  # about .99; the groups' scatter has a heavy tail
    own = found.table().set_index("attempt")
    assert own.loc[4, "mean"] == pytest.approx(wrong[800:].mean(), abs=0.03)
    assert own.loc[3, "accepted"] == 0 and own.loc[2, "mean"] < own.loc[3, "mean"] < own.loc[4, "mean"]


@pytest.mark.parametrize(
    ("attempt", "correct", "group", "said"),
    [
        ([0, 1], [1, 1], None, "add 1"),
        ([1, 2], [1, 0.5], None, "0 or 1"),
        ([1, 2], [1], None, "equally long"),
        ([], [], None, "equally long"),
    ],
)
def test_attempts_that_cannot_be_are_refused(attempt, correct, group, said):
    with pytest.raises(InputError, match=f"^BY-ATTEMPT .*{said}"):
        false_positive_by_attempt(attempt, correct, group)


@pytest.mark.skipif(not REFLEXION.exists(), reason="the shared data are not here")
def test_real_retries_are_wrong_as_often_as_published():
    log = pd.read_csv(REFLEXION)
    group = log["benchmark"] + " " + log["language"]
    sure = surely_accepted(log["n_reflections"], group)
    found = false_positive_by_attempt(
        log["n_reflections"][sure] + 1, log["solved_hidden"][sure], group[sure], sampler=RETRIES
    )
    place = {name: i for i, name in enumerate(found.groups)}
    share = found.wrong.sum(axis=1) / found.accepted.sum(axis=1)
    published = {"MBPP py": 0.163, "MBPP rs": 0.156, "HumanEval py": 0.014}
    for name, known in published.items():
        assert share[place[name]] == pytest.approx(known, abs=6e-4)
    row = place["MBPP py"]
    later = found.wrong[row, 1:].sum() / found.accepted[row, 1:].sum()
    assert found.wrong[row, 0] / found.accepted[row, 0] == pytest.approx(0.109, abs=6e-4)
    assert later == pytest.approx(0.488, abs=6e-4)
    rises = found.slopes().set_index("group")["p_rises"]
    assert found.status != "fail" and (rises[["MBPP py", "MBPP rs", "HumanEval py"]] > 0.95).all()


@pytest.mark.slow
def test_intervals_cover_the_truth_of_simulated_benchmarks():
    rng = np.random.default_rng(11)
    tables, truths = [], []
    for i in range(120):
        theta = law.LAYOUT.values(law.LAYOUT.prior_draw(jax.random.key(i), {}), {})[0]
        theta = {name: np.array([float(value)]) for name, value in theta.items()}
        a, s = (value[0] for value in new_problems(theta, 60, rng))
        accepted = rng.binomial(100, a)
        labelled = rng.binomial(accepted, 0.5)
        counts = attempts_of(100, accepted, labelled, rng.binomial(labelled, s))
        tables.append(law.patterns(counts, 0)[:2])
        truths.append({name: float(v[0]) for name, v in theta.items()} | _scalar(theta))
    columns = law.verifier_columns(tables)
    sampler = Sampler(chains=2, draws=250, warmup=(40, 60, 60), starts=1, lanes=72, tiers=0)
    posterior = sample_many(law.TARGET, columns, [str(i) for i in range(120)], sampler=sampler)
    values = jax.jit(jax.vmap(lambda u: law.named_values(u, {})))
    names = ("logit_acceptance", "logit_share", "acceptance_scale", "share_scale", "logit_coupling", "ceiling")
    hits, ranks = dict.fromkeys(names, 0), {name: [] for name in names}
    for u, truth in zip(posterior.u, truths, strict=True):
        drawn = values(jnp.asarray(u.reshape(-1, u.shape[-1])))
        for name in names:
            rank = (np.asarray(drawn[name]) < truth[name]).mean()
            hits[name] += 0.05 <= rank <= 0.95
            ranks[name].append(rank)
    print({name: hit / 120 for name, hit in hits.items()})
    for name in names:
        assert 0.83 <= hits[name] / 120 <= 0.97, (name, hits[name])
        assert stats.kstest(ranks[name], "uniform").pvalue > 1e-3, name


def _scalar(theta):
    return {"ceiling": float(law.derived({name: value[0] for name, value in theta.items()})["ceiling"])}
