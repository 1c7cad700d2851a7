"""Decisions about the number of samples: against brute force over draws, and by hand."""

import math

import numpy as np
import pytest

from bayesscale.decisions.reach import quantile, samples_to_accuracy, samples_to_reach
from bayesscale.decisions.samples import answer, choose_samples, next_sample
from bayesscale.finding import InputError
from bayesscale.resampling.verifier import Stakes

STAKES = Stakes(1.0, 2.5, 0.001)
KS = np.arange(0, 401)


@pytest.fixture(scope="module")
def population():
    """Posterior draws in which easy problems are answered better, as in data."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 150, 25))
    level = rng.normal(1.3, 0.6, (150, 1))
    a, s = 1 / (1 + np.exp(-1.5 * z[0])), 1 / (1 + np.exp(-level - 0.8 * z[0] - 0.6 * z[1]))
    return a, s


@pytest.fixture(scope="module")
def increments(population):
    """(draw, K) what happens at each attempt."""
    a, s = population
    value = a * (s - 2.5 * (1 - s)) - 0.001
    return np.stack([(value * (1 - a) ** k).mean(1) for k in KS[:-1]], axis=1)


@pytest.fixture(scope="module")
def summed(increments):
    """(draw, K) utilities."""
    return np.hstack([np.zeros((len(increments), 1)), np.cumsum(increments, axis=1)])


@pytest.fixture(scope="module")
def choice(population):
    return choose_samples(*population, STAKES, at=KS[:200].tolist(), cap=400, name="m")


def test_posterior_of_the_best_number_equals_brute_force(choice, increments, summed):
    # a sum that has stopped growing in floating point, though every increment is positive, has its optimum at the cap
    still = [np.all(steps[at:] > 0) for steps, at in zip(increments, summed.argmax(1), strict=True)]
    np.testing.assert_array_equal(choice.best, np.where(still, 400, summed.argmax(1)))
    assert np.unique(choice.best).size > 10
    np.testing.assert_allclose(choice.best_utility, summed.max(1), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(choice.utility, summed[:, :200], rtol=1e-10, atol=1e-13)
    assert 0.05 < choice.p_abstain < 0.95 and choice.p_infinite == 0
    assert choice.p_abstain == (summed.argmax(1) == 0).mean()


def test_recommendation_maximises_the_mean_and_its_regret_is_what_is_lost(choice, summed):
    mean = summed.mean(0)
    assert choice.recommended == mean.argmax()
    np.testing.assert_allclose(choice.expected_regret, (summed.max(1) - summed[:, mean.argmax()]).mean(), rtol=1e-9)
    np.testing.assert_allclose(choice.regret, (summed.max(1)[:, None] - summed[:, :200]).mean(0), rtol=1e-9, atol=1e-13)
    assert choice.regret.min() >= choice.expected_regret - 1e-12
    assert choice.recommended_utility.mean() == pytest.approx(mean.max())


def test_the_table_names_estimand_stakes_and_intervals(choice):
    row = choice.table().iloc[0]
    assert row["model"] == "m" and row["estimand"] == "mean over the problems drawn"
    assert (row["stake_benefit"], row["stake_false_positive"], row["stake_sample"]) == (1.0, 2.5, 0.001)
    assert row["p_abstain"] + row["p_finite"] + row["p_infinite"] == pytest.approx(1)
    assert row["best_eti90_lower"] <= row["best_median"] <= row["best_eti90_upper"]
    assert row["answer"] == f"draw up to {choice.recommended:.0f}"
    assert "expected regret" in str(choice)
    curve = choice.curve()
    np.testing.assert_allclose(curve["mean_utility"], choice.utility.mean(0))
    np.testing.assert_allclose(curve["eti90_upper"], np.quantile(choice.utility, 0.95, axis=0))
    assert curve["p_better_than_abstaining"].iloc[0] == 0


def test_three_outcomes_are_kept_apart():
    """Draws that abstain, stop at two and never stop: 0, 2 and infinity, and never a mean of them."""
    a = np.array([[0.5, 0.5], [0.9, 0.05], [0.5, 0.5]])
    s = np.array([[0.1, 0.1], [1.0, 0.0], [0.9, 0.9]])
    chosen = choose_samples(a, s, Stakes(), at=[0, 1, 2])
    np.testing.assert_array_equal(chosen.best, [0, 2, np.inf])  # 0.9 * 0.1^K against 0.05 * 0.95^K
    assert (chosen.p_abstain, chosen.p_finite, chosen.p_infinite) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert chosen.table()["best_eti90_upper"].item() == np.inf


def test_endless_sampling_can_be_recommended():
    rng = np.random.default_rng(1)
    a, s = rng.uniform(0.1, 1, (50, 8)), rng.uniform(0.6, 1, (50, 8))
    chosen = choose_samples(a, s, Stakes())
    assert chosen.recommended == np.inf and chosen.p_infinite == 1
    assert chosen.expected_regret == pytest.approx(0, abs=1e-15)
    assert chosen.table()["answer"].item() == "draw until one is accepted"
    np.testing.assert_allclose(chosen.recommended_utility, (2 * s - 1).mean(1))


def test_draws_count_alike_whatever_the_size_of_their_weights(population):
    a, s = population
    weights = np.random.default_rng(2).uniform(0, 1, a.shape)
    one = choose_samples(a, s, STAKES, weights)
    other = choose_samples(a, s, STAKES, weights * np.geomspace(1e-3, 1e3, len(a))[:, None])
    assert one.recommended == other.recommended
    np.testing.assert_allclose(one.best_utility, other.best_utility)
    np.testing.assert_allclose(choose_samples(a, s, STAKES, np.ones(25)).best, choose_samples(a, s, STAKES).best)


def test_value_of_the_next_sample(population, summed):
    found = next_sample(*population, STAKES, at=[0, 3, 50], name="m")
    np.testing.assert_allclose(found.gain, np.diff(summed, axis=1)[:, [0, 3, 50]], rtol=1e-9, atol=1e-13)
    table = found.table()
    np.testing.assert_allclose(table["p_gains"], (np.diff(summed, axis=1)[:, [0, 3, 50]] > 0).mean(0))
    assert list(table["samples"]) == [0, 3, 50] and {"mean_gain", "eti90_lower", "estimand"} <= set(table)


# Reaching a stronger model --------------------------------------------------------------------------------------------


def test_samples_to_accuracy_equals_brute_force(population):
    a, s = population
    accuracy = np.stack([(s * (1 - (1 - a) ** k)).mean(1) for k in KS], axis=1)
    target = np.random.default_rng(3).normal(0.72, 0.1, len(a)).clip(0, 1)
    found = samples_to_accuracy(a, s, target)
    reached = accuracy >= target[:, None]
    want = np.where(reached.any(1), reached.argmax(1), np.inf)
    seen = np.isfinite(want)
    np.testing.assert_array_equal(found.samples[seen], want[seen])
    assert (found.samples[~seen] > KS[-1]).all()
    never = s.mean(1) < target
    assert found.probability_never == never.mean() and 0.05 < never.mean() < 0.95
    assert found.table()["p_never"].item() == never.mean()
    assert found.table()["estimand"].item() == "accuracy over the problems drawn"


def test_edges_of_reaching_an_accuracy():
    def reach(a, s, target):
        return samples_to_accuracy([a], [s], target).samples[0]

    assert reach([0.5], [0.8], 0.0) == 0
    assert reach([1.0], [0.8], 0.8) == 1  # at its ceiling at once
    assert reach([0.5], [0.8], 0.8) == np.inf  # its ceiling, approached only
    assert reach([0.5], [0.8], 0.7999) == math.ceil(math.log2(0.8 / 0.0001))
    assert reach([0.5, 0.0], [0.8, 1.0], 0.41) == np.inf  # the second problem is never answered
    far = reach([1e-12], [1.0], 0.5)
    assert far == pytest.approx(math.log(2) * 1e12, rel=1e-9)


# Reaching a pass@k ----------------------------------------------------------------------------------------------------


def test_samples_to_reach_is_exact_on_a_full_grid():
    rng = np.random.default_rng(4)
    p, k = np.exp(rng.uniform(np.log(0.001), np.log(0.3), 40)), np.arange(1, 501)
    found = samples_to_reach(k * np.log1p(-p)[:, None], 0.9, k)
    exact = np.ceil(np.log(0.1) / np.log1p(-p))
    np.testing.assert_array_equal(found.samples, np.where(exact <= 500, exact, np.inf))
    assert np.isnan(found.probability_never) and found.probability_beyond_horizon == (exact > 500).mean() > 0


def test_samples_to_reach_follows_a_power_law_between_points_and_knows_its_limit():
    k = np.unique(np.geomspace(1, 1e6, 25).round())
    floor = np.array([0.0, 0.05, 0.2])
    tail = 0.3
    survival = floor[:, None] + (1 - floor[:, None]) * k**-tail
    with np.errstate(divide="ignore"):
        found = samples_to_reach(np.log(survival), 0.9, k, log_limit=np.log(floor), name="m")
    exact = ((0.1 - floor[:2]) / (1 - floor[:2])) ** (-1 / tail)
    assert found.samples[0] == math.ceil(exact[0])  # an exact power law
    np.testing.assert_allclose(found.samples[1], exact[1], rtol=0.05)
    assert found.samples[2] == np.inf and found.probability_never == pytest.approx(1 / 3)
    row = found.table().iloc[0]
    assert row["samples_median"] == found.samples[1] and row["samples_eti90_upper"] == np.inf
    assert row["horizon"] == 1e6 and row["mean_target"] == 0.9


def test_a_target_reached_at_the_first_point_takes_that_many():
    assert samples_to_reach([[-3.0, -4.0]], 0.5, [1, 10]).samples[0] == 1
    sure = samples_to_reach([[-0.1, -np.inf, -np.inf]], 0.5, [1, 2, 10], log_limit=[-np.inf])
    assert sure.samples[0] == 2 and sure.probability_never == 0


def test_quantiles_pass_over_infinity():
    assert quantile([1, np.inf, np.inf], 0.5) == np.inf and quantile([1, 2, np.inf], 0.5) == 2
    assert answer(0) == "abstain" and answer(3) == "draw up to 3"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: choose_samples([0.5], [0.5], Stakes()),
        lambda: choose_samples([[0.5]], [[0.5, 0.5]], Stakes()),
        lambda: choose_samples([[0.5]], [[1.5]], Stakes()),
        lambda: choose_samples([[0.5]], [[0.5]], Stakes(), [[0.0]]),
        lambda: choose_samples([[0.5]], [[0.5]], Stakes(), at=[0.5]),
        lambda: choose_samples([[0.5, 0.5]], [[0.5, 0.5]], Stakes(), [1.0]),
        lambda: next_sample([[np.nan]], [[0.5]], Stakes()),
        lambda: samples_to_accuracy([[0.5]], [[0.5]], 1.5),
        lambda: samples_to_accuracy([[0.5]], [[0.5]], [0.5, 0.6]),
        lambda: samples_to_reach([[-0.1, -0.2]], 1.0, [1, 2]),
        lambda: samples_to_reach([[-0.1, -0.2]], 0.5, [2, 1]),
        lambda: samples_to_reach([[-0.1, -0.2]], 0.5, [0, 1]),
        lambda: samples_to_reach([-0.1, -0.2], 0.5, [1, 2]),
        lambda: samples_to_reach([[-0.2, -0.1]], 0.5, [1, 2]),
        lambda: samples_to_reach([[0.1, -0.1]], 0.5, [1, 2]),
        lambda: samples_to_reach([[-0.1, -0.2]], 0.5, [1, 2], log_limit=[-1.0, -2.0]),
    ],
)
def test_bad_input_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
