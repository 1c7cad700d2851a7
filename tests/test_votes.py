"""Votes: plurality against enumeration, the vote's law against quadrature and simulation, forecasts against real votes."""

from __future__ import annotations

import itertools
from functools import cache
from math import comb, factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import logsumexp

from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.resampling.plurality import (
    binary_majority,
    plurality_accuracy,
    plurality_limit,
    plurality_score,
    simulated_plurality,
    subset_plurality,
    two_type_accuracy,
    two_type_best,
    two_type_turning_point,
)
from bayesscale.resampling.vote_fit import (
    PARAMETERS,
    TARGET,
    fit_votes,
    log_likelihood,
    log_marginal,
    problem_columns,
    tally,
    wrong_answers,
)
from bayesscale.resampling.vote_forecast import draw_shares, expected_accuracy, vote
from bayesscale.votes import Votes, split_votes

SMALL = Sampler(chains=4, draws=600, warmup=(60, 100, 100), starts=2, lanes=24, tiers=0, keep=250)
THETA = {
    "logit_success": 0.4,
    "log_concentration": 0.3,
    "log_scatter": -0.2,
    "logit_silent": -2.0,
    "log_silent_concentration": 0.5,
}


def enumerated(shares, n, weights):
    """Plurality of answer 0 by going through every way to cast n votes."""
    cells, total = (*shares, 1 - sum(shares)), 0.0
    for cast in itertools.product(range(n + 1), repeat=len(shares)):
        if sum(cast) <= n:
            counts = (*cast, n - sum(cast))
            chance = factorial(n) * np.prod([p**k / factorial(k) for p, k in zip(cells, counts, strict=True)])
            score = [w * k for w, k in zip(weights, cast, strict=True)]
            total += chance * (score[0] == max(score) > 0) / score.count(max(score))
    return total


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 0.5, 1)])
def test_plurality_is_the_sum_over_all_ways_to_vote(n, weights):
    shares = np.random.default_rng(n).dirichlet(np.ones(5), size=3)[:, :4]
    known = [enumerated(row, n, weights) for row in shares]
    np.testing.assert_allclose(plurality_accuracy(shares, 0, n, weights=weights), known, rtol=1e-12)
    moved = np.roll(shares, 2, axis=1), np.roll(weights, 2)
    np.testing.assert_allclose(plurality_accuracy(moved[0], 2, n, weights=moved[1]), known, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 101])
def test_two_answers_follow_the_incomplete_beta_function(n):
    p = np.array([0.0, 1e-6, 0.3, 0.5, 0.9, 1.0])
    value = plurality_accuracy(np.stack([p, 1 - p], axis=1), 0, n)
    np.testing.assert_allclose(value, binary_majority(p, n), rtol=1e-11)
    majority = stats.binom.sf(n / 2, n, p) + 0.5 * (n % 2 == 0) * stats.binom.pmf(n // 2, n, p)
    np.testing.assert_allclose(value, majority, rtol=1e-10)


def test_simulation_agrees_with_the_exact_law_and_says_its_error():
    shares, weights = np.array([[0.3, 0.3, 0.2], [0.1, 0.5, 0.4]]), np.array([2.0, 1.0, 1.0])
    for weight in (None, weights):
        value, error = simulated_plurality(shares, [0, 2], 9, weights=weight, draws=4000, seed=1)
        exact = plurality_accuracy(shares, [0, 2], 9, weights=weight)
        assert (np.abs(value - exact) < 4 * error).all() and (error < 0.01).all()


def test_the_limit_is_the_mode_with_ties_split():
    shares = [[0.5, 0.3, 0.2], [0.3, 0.5, 0.2], [0.4, 0.4, 0.2], [0.0, 0.0, 0.0]]
    np.testing.assert_array_equal(plurality_limit(shares, 0), [1, 0, 0.5, 0])
    np.testing.assert_array_equal(plurality_limit(shares, 0, weights=[2, 1, 1]), [1, 1, 1, 0])
    assert plurality_accuracy(shares, 0, 301)[:3] == pytest.approx([1, 0, 0.5], abs=1e-2)
    heavy = plurality_accuracy([0.35, 0.45, 0.2], 0, 301, weights=[2, 1, 1])
    assert heavy == pytest.approx(1.0, abs=1e-2)


def test_nobody_wins_without_an_answer_or_when_the_right_one_is_missing():
    assert plurality_accuracy([0.0, 0.0], 0, 3) == 0
    assert plurality_accuracy([0.5, 0.5], -1, 3) == 0
    assert plurality_accuracy([0.2, 0.0], 0, 2) == pytest.approx(1 - 0.8**2)
    assert plurality_score([[2, 2, 0], [0, 0, 0]], [1, 0]).tolist() == [0.5, 0.0]


def test_subsets_are_averaged_as_if_all_were_looked_at():
    counts, none, m = np.array([3, 2, 1]), 2, 4
    cast = [0] * 3 + [1] * 2 + [2] + [3] * 2
    scores = [plurality_score(np.bincount(chosen, minlength=4)[:3], 0) for chosen in itertools.combinations(cast, m)]
    assert len(scores) == comb(8, 4)
    assert subset_plurality(counts, 0, m, n_none=none) == pytest.approx(np.mean(scores), rel=1e-12)
    rows = np.array([[3, 3, 0], [1, 4, 1]])
    np.testing.assert_allclose(subset_plurality(rows, 0, 6), plurality_score(rows, 0), rtol=1e-12)
    np.testing.assert_allclose(subset_plurality(rows, 0, 1), [1 / 2, 1 / 6], rtol=1e-12)


def test_subset_plurality_is_unbiased():
    rng, shares = np.random.default_rng(0), np.array([0.4, 0.35, 0.2])
    counts = rng.multinomial(10, np.append(shares, 0.05), size=4000)
    value = subset_plurality(counts[:, :3], 0, 5, n_none=counts[:, 3])
    assert abs(value.mean() - plurality_accuracy(shares, 0, 5)) < 4 * value.std() / np.sqrt(len(value))


def test_two_types_turn_where_the_formula_says():
    assert two_type_turning_point(0.5, 0.8, 0.35) == pytest.approx(3.94, abs=5e-3)
    assert two_type_best(0.5, 0.8, 0.35) == 3
    rng = np.random.default_rng(2)
    for easy, high, low in rng.uniform([0.2, 0.6, 0.2], [0.8, 0.9, 0.45], size=(50, 3)):
        turn = two_type_turning_point(easy, high, low)
        if high + low > 1 and 0 < turn < 300:
            assert two_type_best(easy, high, low) == 2 * int(np.ceil(turn / 2)) - 1
    assert np.isnan(two_type_turning_point(0.1, 0.8, 0.35))
    assert two_type_accuracy([1, 3], 0.5, 0.8, 0.35) == pytest.approx([0.575, 0.5 * 0.896 + 0.5 * 0.28175])


BAD = {
    "shares": (lambda: plurality_accuracy([0.7, 0.6], 0, 3), "sum to at most 1"),
    "index": (lambda: plurality_accuracy([0.7, 0.3], 2, 3), "right answer's index"),
    "n": (lambda: plurality_accuracy([0.7, 0.3], 0, 0), "from 1 upwards"),
    "size": (lambda: plurality_accuracy([0.7, 0.3], 0, 10**4), "use simulated_plurality"),
    "weights": (lambda: plurality_accuracy([0.7, 0.3], 0, 3, weights=[0, 1]), "above 0"),
    "subset": (lambda: subset_plurality([3, 1], 0, 5), "larger than the 4 votes"),
    "fraction": (lambda: subset_plurality([1.5, 1], 0, 2), "whole numbers"),
    "types": (lambda: two_type_turning_point(0.5, 0.4, 0.3), "0 < p_hard < 1/2 < p_easy < 1"),
    "majority": (lambda: binary_majority(0.5, 0), "at least one sample"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_voted_on_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# The value.


def made(counts, correct=0, none=0, answers=("a", "b", "c"), keys=(("m",),), model=None, problem=None):
    counts = np.asarray(counts)
    rows = len(counts)
    none = np.broadcast_to(none, rows)
    problem = np.arange(rows) if problem is None else np.asarray(problem)
    return Votes(
        key_names=("model",), keys=keys, model=np.zeros(rows, int) if model is None else np.asarray(model),
        problems=tuple(f"p{i}" for i in range(max(problem) + 1)), problem=problem, counts=counts,
        correct=np.broadcast_to(correct, rows), n=counts.sum(axis=1) + none, n_none=none, answers=answers,
    )  # fmt: skip


def test_rows_are_put_in_canonical_order_and_kept_read_only():
    votes = made([[1, 0, 0], [2, 0, 1], [0, 3, 0]], keys=(("x",), ("y",)), model=[1, 0, 0], problem=[0, 1, 0])
    assert votes.counts.tolist() == [[0, 3, 0], [2, 0, 1], [1, 0, 0]] and votes.rows(1) == slice(2, 3)
    with pytest.raises(ValueError, match="read-only"):
        votes.counts[0, 0] = 9
    one = votes.subset([1])
    assert one.keys == (("y",),) and one.problems == ("p0",) and one.digest(0) == votes.digest(1)
    assert votes.digest(0) != votes.digest(1)
    assert votes.select(votes.n > 2).keys == (("x",),)


def test_open_answers_are_ranked_within_their_row():
    votes = made([[0, 1, 4], [2, 2, 0], [1, 0, 0]], correct=[1, 1, 2], answers=())
    assert votes.counts.tolist() == [[4, 1], [2, 2], [1, 0]] and votes.correct.tolist() == [1, 0, -1]
    assert votes.wrong.tolist() == [[4, 0], [2, 0], [1, 0]] and votes.n_correct.tolist() == [1, 2, 0]
    assert made([[4, 1, 0]], correct=1, answers=()).digest(0) == votes.select([True, False, False]).digest(0)


def test_votes_derive_what_they_show():
    votes = made([[2, 2, 1], [0, 1, 0]], correct=[1, 0], none=[0, 3])
    assert votes.wrong.tolist() == [[2, 1], [1, 0]] and votes.majority.tolist() == [0.5, 0.0]
    frame = votes.to_frame()
    assert frame["votes_b"].tolist() == [2, 1] and frame["n_none"].tolist() == [0, 3]


INVALID = {
    "no rows": (lambda: made(np.zeros((0, 3), int), problem=[0][:0] or np.zeros(1, int)), "shape"),
    "repeat": (lambda: made([[1, 0, 0], [1, 0, 0]], problem=[0, 0]), "two rows have this model and problem"),
    "nothing": (lambda: made([[0, 0, 0]]), "no votes were cast"),
    "beyond": (lambda: made([[1, 0, 0]], correct=3), "one of the 3 columns"),
    "missing": (lambda: made([[1, 0, 0]], correct=-1), "one of the 3 columns"),
    "one answer": (lambda: made([[1]], answers=("a",)), "two or more distinct answers"),
    "twin keys": (lambda: made([[1, 0, 0]], keys=(("m",), ("m",))), "two models have the same key"),
    "split": (lambda: split_votes(made([[4, 0, 0]]), 4, 0), "nothing is left to predict"),
}


@pytest.mark.parametrize(("call", "message"), INVALID.values(), ids=INVALID.keys())
def test_votes_that_contradict_themselves_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_split_keeps_every_vote_and_draws_without_replacement():
    votes = made(np.tile([5, 2, 1], (3000, 1)), none=2)
    drawn, rest = split_votes(votes, 4, 7)
    assert (drawn.n == 4).all() and (drawn.counts + rest.counts == votes.counts).all()
    assert (drawn.n_none + rest.n_none == 2).all() and (drawn.correct == votes.correct).all()
    hits = np.bincount(drawn.counts[:, 0], minlength=5)[:5]
    expected = 3000 * stats.hypergeom.pmf(np.arange(5), 10, 5, 4)
    assert stats.chisquare(hits, expected).pvalue > 1e-4
    again = split_votes(votes, 4, 7)[0]
    assert (again.counts == drawn.counts).all() and (split_votes(votes, 4, 8)[0].counts != drawn.counts).any()
    short, left = split_votes(made([[3, 0, 0], [5, 1, 0]]), 4, 0)
    assert short.n.tolist() == [3, 4] and left.problems == ("p1",)


# The law.


@jax.jit
def marginal(columns):
    return log_marginal(THETA, columns)


def log_multinomial(counts):
    return np.log(factorial(sum(counts)) / np.prod([factorial(k) for k in counts]))


def test_marginal_likelihood_is_an_integral_over_rates_and_sums_to_one():
    k, m = np.exp(THETA["log_concentration"]), 1 / (1 + np.exp(-THETA["logit_success"]))
    kr, r = np.exp(THETA["log_silent_concentration"]), 1 / (1 + np.exp(-THETA["logit_silent"]))
    alpha = np.exp(THETA["log_scatter"]) / 2
    votes = made([[3, 2, 1], [0, 2, 0]], none=[1, 0])
    for row, value in enumerate(np.asarray(marginal(problem_columns(votes)))):
        c, (v, w), s = votes.counts[row, 0], votes.wrong[row], votes.n_none[row]

        def mean(law, x, y):
            return quad(lambda p: p**x * (1 - p) ** y * law.pdf(p), 0, 1, epsabs=1e-13, limit=300)[0]

        known = mean(stats.beta(m * k, (1 - m) * k), c, v + w) * mean(stats.beta(r * kr, (1 - r) * kr), s, c + v + w)
        known *= mean(stats.beta(alpha, alpha), v, w)
        assert value == pytest.approx(np.log(known), abs=1e-6)
    every = [cells for cells in itertools.product(range(5), repeat=4) if sum(cells) == 4]
    whole = made([cells[:3] for cells in every], none=[cells[3] for cells in every])
    terms = np.asarray(marginal(problem_columns(whole)))
    order = [every.index((*row, none)) for row, none in zip(whole.counts.tolist(), whole.n_none.tolist(), strict=True)]
    assert logsumexp(terms + [log_multinomial(every[i]) for i in order]) == pytest.approx(0.0, abs=1e-9)


@cache
def simulated(problems=150, n=8, slots=3, seed=3):
    """Votes of two models that follow the law exactly, with different truths."""
    rng = np.random.default_rng(seed)
    truths = [THETA, THETA | {"logit_success": 1.5, "log_scatter": 1.0, "log_concentration": -0.7}]
    rows = []
    for truth in truths:
        theta = {name: np.array([value]) for name, value in truth.items()}
        blank = made(np.tile([1, 0, 0, 0], (problems, 1)), answers=("a", "b", "c", "d"))
        shares = draw_shares(theta, blank, slots, rng, new=True)[0]
        rows.append(rng.multinomial(n, np.append(shares, 1 - shares.sum(axis=1, keepdims=True), axis=1)))
    cast = np.concatenate(rows)
    votes = made(
        cast[:, :4], none=cast[:, 4], answers=("a", "b", "c", "d"), keys=(("x",), ("y",)),
        model=np.repeat([0, 1], problems), problem=np.tile(np.arange(problems), 2),
    )  # fmt: skip
    return votes, truths


@cache
def fitted():
    return fit_votes(simulated()[0], sampler=SMALL, seed=1)


def test_tallied_likelihood_is_the_sum_over_problems():
    votes, _ = simulated()
    columns = tally(votes)
    for i in range(2):
        one = {name: values[i] for name, values in columns.items()}
        known = float(jnp.sum(marginal(problem_columns(votes.subset([i])))))
        assert float(jax.jit(log_likelihood)(THETA, one)) == pytest.approx(known, rel=1e-12)


def test_density_has_a_finite_gradient_over_the_prior():
    votes, _ = simulated()
    columns = {name: jnp.asarray(values[0]) for name, values in tally(votes).items()}
    draws = jax.vmap(lambda key: TARGET.prior_draw(key, columns))(jax.random.split(jax.random.key(0), 100))
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda u: TARGET.density(u, columns))))(draws)
    assert np.isfinite(value).all() and np.isfinite(slope).all()


def test_drawn_shares_have_the_moments_of_their_conjugate_laws():
    votes = made([[3, 1, 0], [0, 0, 4]], none=[2, 0])
    theta = {name: np.full(20_000, value) for name, value in THETA.items()}
    shares = draw_shares(theta, votes, 2, np.random.default_rng(0))
    k, m = np.exp(THETA["log_concentration"]), 1 / (1 + np.exp(-THETA["logit_success"]))
    kr, r = np.exp(THETA["log_silent_concentration"]), 1 / (1 + np.exp(-THETA["logit_silent"]))
    alpha = np.exp(THETA["log_scatter"]) / 2
    right = (np.array([3, 0]) + m * k) / (4 + k)
    spoken = 1 - (np.array([2, 0]) + r * kr) / (np.array([6, 4]) + kr)
    first = (np.array([1, 4]) + alpha) / (np.array([1, 4]) + 2 * alpha)
    known = np.stack([right, (1 - right) * first, (1 - right) * (1 - first)], axis=1) * spoken[:, None]
    np.testing.assert_allclose(shares.mean(axis=0), known, atol=0.006)
    tiny = draw_shares({**theta, "log_scatter": np.full(20_000, -9.0)}, votes, 2, np.random.default_rng(0), new=True)
    assert np.isfinite(tiny).all()
    agree = (tiny[..., 1:].max(axis=-1) / tiny[..., 1:].sum(axis=-1).clip(1e-300)) > 0.99
    assert agree.mean() > 0.99


def test_expected_accuracy_is_exact_for_few_votes_and_simulated_beyond():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(5), size=(2, 150))[..., :4]
    at = np.array([1, 4, 40])
    scores, hits = expected_accuracy(shares, at, rng)
    exact = np.stack([plurality_accuracy(shares, 0, n).mean(axis=1) for n in at], axis=1)
    np.testing.assert_allclose(scores[:, :2], exact[:, :2], rtol=1e-12)
    np.testing.assert_allclose(scores[:, 2], exact[:, 2], atol=0.01)
    np.testing.assert_allclose(hits, (1 - (1 - shares[..., :1]) ** at).mean(axis=1), rtol=1e-12)


def test_votes_continue_from_those_cast():
    shares = np.array([[[0.0, 1.0]]])
    start, spent = np.array([[3, 0]]), np.array([3])
    scores, hits = vote(np.tile(shares, (5, 1, 1)), [4, 7, 6], start, spent, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(scores, np.tile([1.0, 0.0, 0.5], (5, 1)))
    assert (hits == 1).all()


def test_the_posterior_covers_the_truth_that_made_the_votes():
    _, truths = simulated()
    for fit, truth in zip(fitted(), truths, strict=True):
        assert fit.status == "ok", fit.findings
        for name in ("logit_success", "log_concentration", "log_scatter", "logit_silent"):
            draws = fit.draws.flat(name)
            assert abs(draws.mean() - truth[name]) < 3.5 * draws.std(), name
        assert fit.log_likelihood().shape == (4, 300, 150)
    assert {p.name for p in PARAMETERS} <= set(fitted()[0].summary()["parameter"])


def test_forecasts_hold_their_identities():
    fit = fitted()[0]
    these = fit.majority((1, 2, 8, 32))
    table = these.table()
    assert (these.gain[:, 0] == 0).all() and table["n"].tolist() == [1, 2, 8, 32, np.inf]
    assert (np.diff(these.any_correct, axis=1) > 0).all()
    right, silent = fit.shares()[..., 0], 1 - fit.shares().sum(axis=-1)
    np.testing.assert_allclose(these.majority[:, 1], (right * (1 + silent)).mean(axis=1), rtol=1e-9)
    realised, new = fit.majority((8,), "realised"), fit.majority((8,), "new")
    assert realised.majority[:, 0].mean() == pytest.approx(these.majority[:, 2].mean(), abs=0.004)
    assert these.majority[:, 2].std() < realised.majority.std() < new.majority.std()
    observed = fit.votes.majority.mean()
    kept = fit.majority((8, 9), "continued").majority
    np.testing.assert_allclose(kept[:, 0], observed, rtol=1e-12)
    assert abs(kept[:, 1].mean() - observed) < 0.02
    assert (fit.majority((8,)).majority == fit.majority((8,)).majority).all()
    with pytest.raises(InputError, match="at least 8"):
        fit.majority((4,), "continued")
    with pytest.raises(InputError, match="target must be one of"):
        fit.majority((8,), "old")


def test_problems_say_where_voting_hurts():
    fit = fitted()[0]
    table = fit.problems()
    assert len(table) == 150 and (table["hurts"] == (table["gain"] < 0)).all()
    lost = table[(table["n_correct"] >= 1) & (table["majority"] == 0)]
    won = table[table["n_correct"] == 8]
    assert lost["hurts"].mean() > 0.7 and (won["mode_right"] > 0.95).all()


def test_open_answers_have_as_many_wrong_ones_as_it_takes():
    rng = np.random.default_rng(5)
    counts = np.stack([rng.multinomial(6, rng.dirichlet([1.5, 0.3, 0.3, 0.3, 0.3])) for _ in range(40)])
    votes = made(counts, answers=())
    assert (slots := wrong_answers(votes)) == 50
    theta = {name: np.full(20, value) for name, value in THETA.items()}
    shares = draw_shares(theta, votes, slots, rng)
    assert shares.shape == (20, 40, 51) and (shares >= 0).all() and (shares.sum(axis=-1) <= 1 + 1e-12).all()
    closed = made(np.pad(counts, ((0, 0), (0, 46))), answers=tuple(map(str, range(51))))
    np.testing.assert_allclose(marginal(problem_columns(votes)), marginal(problem_columns(closed)), rtol=1e-12)
