"""Simulators against brute force, against direct Bayes, and against the claims of their docstrings."""

from dataclasses import replace
from itertools import product

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from bayesscale.simulation import curves, hmm  # noqa: E402
from bayesscale.simulation.curves import Truth, curve_mean, law_mean, observe_counts, observe_nll  # noqa: E402

TINY = hmm.draw_hmms(3, 3, entities=1, properties=3, vocabulary=3, noise=0.3)
RHO = np.array([0.2, 0.5, 0.3])


def enumerated(hmms, m, tokens):
    """p_m(tokens): the sum over every hidden path."""
    total = 0.0
    for path in product(range(hmms.start.size), repeat=len(tokens)):
        moves = np.prod([hmms.transition[m][a, b] for a, b in zip(path[:-1], path[1:], strict=True)])
        total += hmms.start[path[0]] * moves * np.prod([hmms.emission[h, x] for h, x in zip(path, tokens, strict=True)])
    return total


@pytest.mark.parametrize("tokens", [(), (1,), (0, 2), (2, 1, 0, 0)])
def test_forward_equals_the_sum_over_hidden_paths(tokens):
    for m in range(3):
        tables = jnp.log(TINY.start), jnp.log(TINY.transition[m]), jnp.log(TINY.emission)
        evidence, log_next = hmm.forward(*tables, jnp.array(tokens, dtype=int))
        whole = enumerated(TINY, m, tokens) if tokens else 1.0
        following = [enumerated(TINY, m, (*tokens, x)) / whole for x in range(3)]
        np.testing.assert_allclose(np.exp(evidence), whole, rtol=1e-12)
        np.testing.assert_allclose(np.exp(log_next), following, rtol=1e-12)


def test_weights_and_prediction_equal_direct_bayes():
    tokens = hmm.sample_examples(np.random.default_rng(0), TINY, 1, (6,), 3)
    predicted = hmm.exact_bayes(TINY, RHO, tokens)
    for n in range(6):
        joint = RHO.copy()
        for example in [*tokens[:n], tokens[n, :-1]]:
            joint = joint * [enumerated(TINY, m, example) for m in range(3)]
        whole = [enumerated(TINY, m, tokens[n]) / enumerated(TINY, m, tokens[n, :-1]) for m in range(3)]
        weights = joint / joint.sum()
        np.testing.assert_allclose(np.exp(predicted.log_weights[n]), weights, rtol=1e-10)
        np.testing.assert_allclose(np.exp(predicted.log_correct[n]), weights @ whole, rtol=1e-10)


def test_impossible_moves_are_no_trouble():
    sure = hmm.HMMs(np.array([1.0, 0.0]), np.array([[[0.0, 1.0], [1.0, 0.0]]]), np.array([[0.9, 0.1], [0.1, 0.9]]))
    predicted = hmm.exact_bayes(sure, [1.0], np.array([[0, 1], [1, 0]]))
    np.testing.assert_allclose(np.exp(predicted.log_correct), [0.9, 0.1], rtol=1e-12)
    assert list(predicted.hit) == [True, False]


def test_sampled_tokens_follow_the_model():
    tokens = hmm.sample_examples(np.random.default_rng(1), TINY, 2, (20_000,), 2)
    seen = np.bincount(tokens[:, 0] * 3 + tokens[:, 1], minlength=9) / len(tokens)
    expected = [enumerated(TINY, 2, pair) for pair in product(range(3), repeat=2)]
    np.testing.assert_allclose(seen, expected, atol=5 * np.sqrt(0.25 / len(tokens)))


def test_a_single_hypothesis_learns_nothing_from_shots():
    alone = hmm.draw_hmms(5, 1)
    tokens = hmm.sample_examples(np.random.default_rng(2), alone, 0, (400, 16), 3)
    predicted = hmm.exact_bayes_many(alone, [1.0], tokens)
    np.testing.assert_allclose(predicted.log_correct, predicted.log_last[..., 0], rtol=1e-12)
    early, late = np.split(np.asarray(predicted.log_correct), 2, axis=1)
    noise = np.hypot(early.std(), late.std()) / np.sqrt(early.size)
    assert abs(early.mean() - late.mean()) < 4 * noise
    truth = hmm.simulate_hmm(2, alone, [1.0], sequences=20, shots=2)[1]
    assert truth[["K", "beta"]].isna().all(axis=None)


@pytest.fixture(scope="module")
def suppressed():
    hmms = hmm.draw_hmms(1111, 3, entities=3, properties=4, contrast=0.7, temperature=0.3, noise=0.05)
    rho = np.array([1e-4, 0.5, 0.4999])
    return rho, *hmm.simulate_hmm(4, hmms, rho, sequences=600, shots=40, length=2)


def test_ends_of_the_curve_are_the_parameters(suppressed):
    _, table, truth = suppressed
    curve = table[table["task"] == "hmm0"].set_index("shots")
    row = truth.set_index("task").loc["hmm0"]
    assert curve.loc[39, "prob"] == pytest.approx(row["gamma_mean"], abs=4 * curve.loc[39, "prob_se"] + 0.01)
    assert curve.loc[39, "nll"] == pytest.approx(-np.log(row["gamma"]), abs=4 * curve.loc[39, "nll_se"] + 0.02)
    assert row["beta_mean"] * 0.8 < curve.loc[0, "prob"] < row["gamma_mean"] / 2
    assert row["rho"] == 1e-4


def test_two_token_examples_have_K_one_and_longer_ones_more(suppressed):
    *_, truth = suppressed
    np.testing.assert_allclose(truth["K"], 1.0, rtol=1e-9)
    np.testing.assert_allclose(truth["evidence_hmm1"][0], np.log(truth["P_hmm0"][0] / truth["P_hmm1"][0]), rtol=1e-9)
    longer = hmm.simulate_hmm(4, hmm.draw_hmms(1111, 3), np.full(3, 1 / 3), sequences=100, shots=20, length=4)[1]
    assert (longer["K"] > 1.5).all()


def test_at_zero_shots_the_mean_probability_is_the_prior_average():
    # two tokens: the prefix tells nothing, so the weights are rho itself
    tokens = [hmm.sample_examples(np.random.default_rng(m), TINY, m, (50, 1), 2) for m in range(3)]
    by_task = [hmm.exact_bayes_many(TINY, RHO, examples) for examples in tokens]
    mean = [np.exp(task.log_correct).mean() for task in by_task]
    np.testing.assert_allclose(mean, hmm.measure(by_task).P_mean @ RHO, rtol=1e-12)


def test_a_prior_changes_neither_tokens_nor_measured_parameters():
    hmms = hmm.draw_hmms(6, 2)
    first, second = (hmm.simulate_hmm(7, hmms, rho, sequences=20, shots=5)[1] for rho in ([0.5, 0.5], [0.01, 0.99]))
    assert first.drop(columns="rho").equals(second.drop(columns="rho"))


def test_law_is_the_posterior_weighted_average():
    rho, K, gamma, beta, n = 0.07, 0.3, 0.8, 0.25, np.arange(40.0)
    weights = rho * gamma ** (K * n), (1 - rho) * beta ** (K * n)
    average = (weights[0] * gamma + weights[1] * beta) / sum(weights)
    np.testing.assert_allclose(law_mean(n, rho=rho, K=K, gamma=gamma, beta=beta), average, rtol=1e-12)


def test_growth_tends_to_the_logarithm():
    n = np.array([0.0, 1.0, 50.0, 1e4])
    np.testing.assert_allclose(curves.growth(n, 1e-9), curves.growth(n, 0.0), rtol=1e-7)
    np.testing.assert_allclose(curves.growth(n, 1.0), n, rtol=1e-12)


def test_sft_moves_the_prior_and_leaves_K_unless_told():
    base = Truth("m", "t", rho=0.3, K=0.5)
    after = curves.under_sft(base, 250.0)
    assert curves.logit(after.rho) - curves.logit(0.3) == pytest.approx(-0.8 * np.log(251))
    assert (after.K, after.gamma, after.sft_amount) == (0.5, base.gamma, 250.0)
    efficiency = curves.under_sft(base, 250.0, w=-0.1).K
    assert efficiency == pytest.approx(0.5 * 251**-0.1)


@pytest.mark.parametrize("kind", list(curves.MEANS))
def test_every_kind_gives_tables_that_repeat(kind):
    table, truth = curves.simulate_icl(11, kind=kind, sft_amounts=(0.0, 100.0))
    again, _ = curves.simulate_icl(11, kind=kind, sft_amounts=(0.0, 100.0))
    assert table.equals(again)
    assert list(table) == ["model", "task", "sft_amount", "run", "shots", "correct", "trials"]
    assert len(truth) == 12 and len(table) == 12 * 5 * len(curves.SHOTS)
    assert table["correct"].between(0, table["trials"]).all()
    assert set(truth["kind"]) == {kind}
    nll, _ = curves.simulate_icl(11, kind=kind, observation="nll")
    assert list(nll) == ["model", "task", "sft_amount", "shots", "nll", "nll_se"]
    assert (nll[["nll", "nll_se"]] > 0).all(axis=None)


def test_misspecified_kinds_fail_the_law_in_their_own_way():
    base = Truth("m", "t", rho=0.1, K=0.5, gamma=0.9, beta=0.3)
    falls = curve_mean(replace(base, kind="collapse", chance=0.2, collapse_from=100), [50, 100, 200, 10_000])
    assert falls[0] == pytest.approx(0.9) and falls[1] == pytest.approx(0.9) and falls[2] < 0.5
    assert falls[3] == pytest.approx(0.2, abs=1e-3)
    rises = curve_mean(replace(base, kind="plateau_then_rise", rise_at=300), [40, 60, 300, 10_000])
    assert rises == pytest.approx([0.6, 0.6, 0.75, 0.9], abs=0.01)
    power = curve_mean(Truth("m", "t", kind="power", gamma=0.9, amplitude=1.5, alpha=0.4), [0, 15, 255])
    np.testing.assert_allclose(-np.log(power / 0.9), 1.5 * np.array([1.0, 16**-0.4, 256**-0.4]))


def test_a_missing_parameter_is_refused():
    with pytest.raises(ValueError, match="collapse curve"):
        curves.observe_truths(1, [Truth("m", "t", kind="collapse")])


def test_a_curve_does_not_change_when_another_is_appended():
    first, second = Truth("m", "t"), Truth("m", "t", sft_amount=9.0, rho=0.01)
    alone, _ = curves.observe_truths(5, [first])
    both, _ = curves.observe_truths(5, [first, second])
    assert both.iloc[: len(alone)].equals(alone)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_counts_have_the_right_mean_and_dispersion(p):
    rng, shots, items, runs = np.random.default_rng(8), np.array([1, 1000]), 250, 400
    correct = observe_counts(rng, np.full(2, p), shots, rng.normal(0, 2.0, items), runs=runs)
    error = correct.std(0) / items / np.sqrt(runs)
    np.testing.assert_array_less(np.abs(correct.mean(0) / items - p), 4 * error)
    over, under = correct.var(0) / (items * p * (1 - p))
    assert over > 3 and under < 1


def test_nll_noise_is_centred_and_its_error_honest():
    rng, p = np.random.default_rng(9), np.full(6, 0.4)
    nll, se = np.array([observe_nll(rng, p) for _ in range(300)]).transpose(1, 0, 2)
    z = (nll + np.log(0.4)) / se
    assert abs(z.mean()) < 0.2 and 0.85 < z.std() < 1.15
    assert np.corrcoef(nll[:, 0], nll[:, 5])[0, 1] > 0.3
