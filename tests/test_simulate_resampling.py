"""Simulated resampling: moments against closed forms and quadrature, stopping rules against their own definition."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import betaln, expit
from scipy.stats import beta, norm

from bayesscale.finding import InputError
from bayesscale.resampling.verifier import Stakes, accuracy, best_samples, ceiling
from bayesscale.simulation.resampling import (
    SuccessLaw,
    VerifierLaw,
    calibrated,
    observe_attempts,
    simulate_attempts,
    simulate_verifier,
    simulate_votes,
)

PUBLISHED = Path(__file__).parents[1] / "../shared/data/resampling/scaling_limits_humaneval_models.csv"
OPTIMA = PUBLISHED.with_name("scaling_limits_humaneval_optimal_k.csv")
MIXTURE = SuccessLaw(mean=0.4, tail=2.0, zero=0.1, low=0.3, low_mean=0.01, low_tail=0.5)


def beta_moment(mean, tail, k):
    """E[(1 - p)^k] of a Beta law."""
    b = tail * (1 - mean) / mean
    return np.exp(betaln(tail, b + k) - betaln(tail, b))


def survival(law, k):
    body = (1 - law.low) * beta_moment(law.mean, law.tail, k) + law.low * beta_moment(law.low_mean, law.low_tail, k)
    return law.zero + (1 - law.zero) * body


@pytest.mark.parametrize(
    "law", [SuccessLaw(0.02, 0.1), SuccessLaw(0.3, 0.8, zero=0.2), MIXTURE], ids=["beta", "zero", "mix"]
)
@pytest.mark.parametrize("k", [1, 30, 10_000])
def test_success_rates_have_the_moments_of_their_law(law, k):
    failure = np.exp(k * np.log1p(-law.draw(np.random.default_rng(0), 100_000).clip(max=1 - 1e-16)))
    assert abs(failure.mean() - survival(law, k)) < 4 * failure.std() / np.sqrt(len(failure)) + 1e-12


def test_table_and_truth_belong_together():
    table, truth = simulate_attempts(1, models={"a": SuccessLaw(), "b": MIXTURE}, problems=30, n=50)
    key = ["model", "problem"]
    assert table[key].equals(truth[key]) and len(table.drop_duplicates(key)) == 60
    assert (table["n"] == 50).all() and table["n_correct"].between(0, 50).all()
    assert set(truth.loc[truth["model"] == "b", "low_mean"]) == {0.01}
    z = (table["n_correct"] - 50 * truth["p"]) / np.sqrt(50 * truth["p"] * (1 - truth["p"]) + 1e-9)
    assert abs((z[truth["p"].between(0.02, 0.98)] ** 2).mean() - 1) < 0.9


@pytest.mark.parametrize("simulate", [simulate_attempts, simulate_verifier, simulate_votes])
def test_a_model_stays_the_same_when_another_is_appended(simulate):
    for one, more in zip(simulate(3, models=["a"]), simulate(3, models=["a", "b"]), strict=True):
        pd.testing.assert_frame_equal(one, more[more["model"] == "a"].reset_index(drop=True))
    assert not simulate(3)[0].equals(simulate(4)[0])


# Stopping -------------------------------------------------------------------------------------------------------------


def one_by_one(rng, p, n, stopping, batch, enough):
    """The design as a loop over samples."""
    drawn = correct = 0
    while drawn < n:
        drawn += 1
        correct += rng.random() < p
        stop = {"first_success": correct >= 1, "capped": correct >= enough}
        if stopping == "batch" and drawn % batch == 0 and correct:
            break
        if stop.get(stopping, False):
            break
    return drawn, correct


@pytest.mark.parametrize("stopping", ["fixed", "first_success", "batch", "capped"])
@pytest.mark.parametrize("p", [0.02, 0.3])
def test_designs_have_the_joint_law_of_drawing_one_by_one(stopping, p):
    rng, size, n = np.random.default_rng(5), 4000, 24
    fast = np.array(observe_attempts(rng, np.full(size, p), n, stopping, batch=6, enough=2)).T
    slow = np.array([one_by_one(rng, p, n, stopping, 6, 2) for _ in range(size)])
    counts = []
    for pairs in (fast, slow):
        codes = pairs[:, 0] * 100 + pairs[:, 1]
        counts.append(codes)
    for code in np.union1d(*counts):
        a, b = ((codes == code).sum() for codes in counts)
        assert abs(a - b) <= 5 * np.sqrt(a + b)


def test_designs_keep_their_rules():
    batch, _ = simulate_attempts(6, problems=500, n=600, stopping="batch", batch=60)
    assert (batch["n"] % 60 == 0).all() and (batch.query("n_correct == 0")["n"] == 600).all()
    assert batch["n_correct"].max() > 1  # several successes may fall in the last batch
    first, _ = simulate_attempts(6, problems=500, n=600, stopping="first_success")
    assert set(first["n_correct"]) == {0, 1} and (first.query("n_correct == 0")["n"] == 600).all()
    capped, _ = simulate_attempts(6, problems=500, n=600, stopping="capped", enough=4)
    assert capped["n_correct"].max() == 4 and (capped.query("n_correct < 4")["n"] == 600).all()


def test_rates_of_zero_one_and_next_to_nothing_are_drawn():
    drawn, correct = observe_attempts(np.random.default_rng(7), np.array([0.0, 1.0, 1e-300]), 100, "first_success")
    assert drawn.tolist() == [100, 1, 100] and correct.tolist() == [0, 1, 0]


# Verifier -------------------------------------------------------------------------------------------------------------


def test_counts_nest_and_have_the_rates_of_the_truth():
    law = VerifierLaw("m", missed=0.1)
    table, truth = simulate_verifier(8, models=[law], problems=4000, n=100, labelled=0.4)
    assert (table["n_correct_accepted"] <= table["n_labelled"]).all() and (
        table["n_labelled"] <= table["n_accepted"]
    ).all()
    assert (table["n_accepted"] <= table["n"]).all() and (table["n_correct"] >= table["n_correct_accepted"]).all()
    np.testing.assert_allclose(truth["p"] + truth["q"], truth["acceptance"])
    total = table.sum(numeric_only=True)
    assert total["n_labelled"] / total["n_accepted"] == pytest.approx(0.4, abs=0.01)
    assert total["n_correct_accepted"] / total["n_labelled"] == pytest.approx(
        truth["p"].sum() / truth["acceptance"].sum(), abs=0.01
    )
    missed = (1 - truth["acceptance"]).sum() * 0.1
    assert total["n_correct"] / 100 == pytest.approx(truth["p"].sum() + missed, rel=0.01)
    perfect, _ = simulate_verifier(8, models=["m"], problems=200)
    assert (perfect["n_correct"] == perfect["n_correct_accepted"]).all() and perfect["n_labelled"].equals(
        perfect["n_accepted"]
    )


def test_logits_have_the_spread_and_correlation_asked_for():
    law = VerifierLaw("m", -0.5, 1.0, 1.2, 0.8, 0.6)
    _, truth = simulate_verifier(9, models=[law], problems=20_000)
    x, y = (np.log(truth[c] / (1 - truth[c])) for c in ("acceptance", "share"))
    np.testing.assert_allclose([x.mean(), y.mean(), x.std(), y.std()], [-0.5, 1.0, 1.2, 0.8], atol=0.03)
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(0.6, abs=0.02)


def test_means_of_the_law_equal_adaptive_quadrature():
    law = VerifierLaw("m", -0.5, 1.0, 2.0, 1.5, 0.6)
    density = norm(0, 1).pdf
    mean_share = quad(lambda x: density(x) * expit(1.0 + 1.5 * x), -12, 12)[0]
    rest = 1.5 * 0.8
    given = lambda x: quad(lambda y: density(y) * expit(1.0 + 0.9 * x + rest * y), -10, 10, epsrel=1e-8)[0]  # noqa: E731
    both = quad(lambda x: density(x) * expit(-0.5 + 2 * x) * given(x), -10, 10, epsrel=1e-8)[0]
    assert law.ceiling() == pytest.approx(mean_share, abs=1e-7)
    assert law.single_sample_accuracy() == pytest.approx(both, abs=1e-7)


def test_calibrated_laws_have_the_published_accuracies():
    """Single-sample accuracy and ceiling of GPT-4o, Llama 3.1 8B and Vicuna 7B on HumanEval+ (arXiv:2411.17501)."""
    published = pd.DataFrame(
        {
            "model": ["GPT-4o", "Llama 3.1 8B", "Vicuna 7B"],
            "pass1_plus": [0.855, 0.550, 0.092],
            "p_correct_given_base_pass": [0.929, 0.825, 0.752],
        }
    )
    check_calibration(published)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the shared resampling data are not beside this checkout")
def test_every_published_model_can_be_calibrated():
    check_calibration(pd.read_csv(PUBLISHED))


@pytest.mark.skipif(not OPTIMA.exists(), reason="the shared resampling data are not beside this checkout")
def test_calibrated_models_earn_about_what_was_measured():
    """Largest reward within 200 samples at benefit 1, by cost of a false positive: nothing was fitted to these."""
    laws = {law.model: law for law in calibrated(pd.read_csv(PUBLISHED))}
    measured = pd.read_csv(OPTIMA).query("model in @laws and optimal_k > 0")
    assert len(measured) >= 25
    for row in measured.itertuples():
        a, s = laws[row.model].draw(np.random.default_rng(13), 20_000)
        best = best_samples(a, s, Stakes(1.0, row.cost_per_false_positive), cap=200)
        # at cost 8 rewards hang on the few problems that are hardly ever answered wrongly
        assert best.utility == pytest.approx(row.max_reward, abs=0.15 if row.cost_per_false_positive == 8 else 0.075)


def test_a_wide_spread_can_be_calibrated():
    published = pd.DataFrame({"model": ["m"], "pass1_plus": [0.855], "p_correct_given_base_pass": [0.929]})
    (law,) = calibrated(published, acceptance_sd=3.0, share_sd=3.0)
    a, s = law.draw(np.random.default_rng(14), 200_000)
    assert (a * s).mean() == pytest.approx(0.855, abs=0.003) and s.mean() == pytest.approx(0.929, abs=0.003)


def check_calibration(published):
    laws = calibrated(published, correlation=0.4)
    _, truth = simulate_verifier(10, models=laws, problems=40_000, n=1)
    for law, row in zip(laws, published.itertuples(), strict=True):
        a, s = (truth.loc[truth["model"] == row.model, column] for column in ("acceptance", "share"))
        assert law.model == row.model and (law.correlation, law.acceptance_sd) == (0.4, 2.0)
        assert accuracy(a, s, 1) == pytest.approx(row.pass1_plus, abs=0.01)
        assert ceiling(a, s) == pytest.approx(row.p_correct_given_base_pass, abs=0.01)


# Votes ----------------------------------------------------------------------------------------------------------------


def test_votes_add_up_and_follow_their_shares():
    table, truth = simulate_votes(11, models={"m": SuccessLaw(0.5, 2.0)}, problems=3000, n=20, answers=5, none=0.1)
    votes, letters = [f"votes_{x}" for x in "abcde"], list("abcde")
    assert (table[votes].sum(axis=1) + table["votes_none"] == 20).all()
    assert all(table["n_correct"] == [row[f"votes_{row['target']}"] for _, row in table.iterrows()])
    shares = truth[[f"share_{x}" for x in letters]].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    target = np.array([letters.index(x) for x in truth["target"]])
    np.testing.assert_allclose(shares[np.arange(3000), target], truth["p"])
    assert table["votes_none"].mean() == pytest.approx(2.0, abs=0.1)
    expected = 20 * 0.9 * shares
    z = (table[votes] - expected) / np.sqrt(expected * (1 - 0.9 * shares) + 1e-9)
    assert abs(float((z.to_numpy()[expected > 1] ** 2).mean()) - 1) < 0.05
    assert beta(2.0, 2.0).std() == pytest.approx(truth["p"].std(), abs=0.01)
    wrong = shares[np.arange(5) != target[:, None]].reshape(-1, 4) / (1 - truth["p"].to_numpy())[:, None]
    assert wrong.var(axis=0) == pytest.approx(0.25 * 0.75 / (4 * 0.5 + 1), rel=0.1)  # of a symmetric Dirichlet(1/2)


def test_models_vote_on_the_same_problems():
    table, _ = simulate_votes(12, models=["a", "b"])
    by_model = [table.loc[table["model"] == name, "target"].tolist() for name in "ab"]
    assert by_model[0] == by_model[1] and len(set(by_model[0])) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: SuccessLaw(mean=0.0),
        lambda: SuccessLaw(tail=-1.0),
        lambda: SuccessLaw(zero=1.1),
        lambda: VerifierLaw("m", correlation=1.5),
        lambda: VerifierLaw("m", share_sd=-1.0),
        lambda: simulate_attempts(0, n=0),
        lambda: simulate_attempts(0, models=["a", "a"]),
        lambda: simulate_attempts(0, n=100, stopping="batch", batch=60),
        lambda: simulate_attempts(0, stopping="whenever"),
        lambda: simulate_verifier(0, labelled=1.5),
        lambda: simulate_verifier(0, models=["a", VerifierLaw("a")]),
        lambda: simulate_votes(0, answers=1),
        lambda: simulate_votes(0, models=[]),
        lambda: calibrated(pd.DataFrame({"model": ["m"], "pass1_plus": [0.9], "p_correct_given_base_pass": [0.8]})),
    ],
)
def test_bad_input_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
