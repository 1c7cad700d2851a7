"""Convergence diagnostics against ArviZ, and the gate on broken and on good fits."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.signal import lfilter

from bayesscale.draws import measure, worst
from bayesscale.gate import check_drop, check_fit, check_replicates, drop_z
from bayesscale.inference import diagnostics

CHAINS, DRAWS = 4, 500


def autoregressive(rng, phi, shape=(CHAINS, DRAWS)):
    """Stationary AR(1) chains of unit variance."""
    noise = rng.normal(size=shape)
    noise[..., 0] /= np.sqrt(1 - phi**2)
    return np.sqrt(1 - phi**2) * lfilter([1.0], [1.0, -phi], noise, axis=-1)


def cases():
    rng = np.random.default_rng(17)
    stuck = autoregressive(rng, 0.3)
    stuck[1] = 2.5
    shifted = autoregressive(rng, 0.2) + np.array([0.0, 0.0, 0.0, 2.0])[:, None]
    wide = autoregressive(rng, 0.2) * np.array([1.0, 1.0, 1.0, 6.0])[:, None]
    return {
        "independent": autoregressive(rng, 0.0),
        "mild": autoregressive(rng, 0.5),
        "strong": autoregressive(rng, 0.95),
        "antithetic": autoregressive(rng, -0.5),
        "heavy tails": rng.standard_t(1.5, size=(CHAINS, DRAWS)),
        "one chain stuck": stuck,
        "one chain shifted": shifted,
        "one chain wide": wide,
        "odd length": autoregressive(rng, 0.4, (CHAINS, 333)),
        "two chains": autoregressive(rng, 0.4, (2, 400)),
        "many ties": np.round(autoregressive(rng, 0.4)),
    }


CASES = cases()
SERIES = list(CASES)


@pytest.mark.parametrize("name", SERIES)
def test_rhat_is_arvizs(name):
    assert diagnostics.measure(CASES[name]).rhat == pytest.approx(float(array_stats.rhat(CASES[name])), rel=1e-9)


@pytest.mark.parametrize("name", SERIES)
def test_effective_sizes_are_arvizs(name):
    """Up to how Geyer's sequence is closed at its last pair."""
    draws = CASES[name]
    _, bulk, tail = diagnostics.measure(draws)
    assert bulk == pytest.approx(float(array_stats.ess(draws, method="bulk")), rel=0.03)
    assert tail == pytest.approx(float(array_stats.ess(draws, method="tail", prob=(0.05, 0.95))), rel=0.03)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_effective_size_is_right_for_a_known_chain(phi):
    """An AR(1) chain has ess = n (1 - phi) / (1 + phi)."""
    draws = autoregressive(np.random.default_rng(2), phi, (4, 20_000))
    assert diagnostics.effective_size(draws) == pytest.approx(80_000 * (1 - phi) / (1 + phi), rel=0.1)


def test_energy_fraction_is_arvizs():
    energy = autoregressive(np.random.default_rng(5), 0.6)
    np.testing.assert_allclose(diagnostics.bfmi(energy), array_stats.bfmi(energy), rtol=1e-12)


def test_a_batch_is_measured_as_its_parts():
    batch = np.stack([CASES[name] for name in SERIES if CASES[name].shape == (CHAINS, DRAWS)])
    parts = [diagnostics.measure(part) for part in batch]
    np.testing.assert_allclose(diagnostics.measure(batch), np.transpose(parts), rtol=1e-12)
    np.testing.assert_allclose(diagnostics.bfmi(batch), [diagnostics.bfmi(part) for part in batch], rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_never_measured(bad):
    draws = CASES["independent"].copy()
    draws[2, 17] = bad
    assert np.isnan(diagnostics.measure(draws)).all()


def test_constant_draws_have_no_diagnostics():
    draws = np.full((CHAINS, DRAWS), 3.0)
    measured = diagnostics.measure(draws)
    assert np.isnan(measured.rhat) and np.isnan(measured.ess_bulk)


# The gate -------------------------------------------------------------------------------------------------------------


def verdict(draws, *, diverging=0.0, energy=None, saturated=0.0, finished=True, modes=1, contraction=None):
    """Grade of a fit whose only value has these draws (chain, draw), as `Fit.status` would say it; and the codes."""
    rng = np.random.default_rng(3)
    share = np.arange(draws.size).reshape(draws.shape) / draws.size
    stats = {
        "diverging": share < diverging,
        "energy": rng.normal(size=draws.shape) if energy is None else energy,
        "reached_max_treedepth": share < saturated,
    }
    entry = {key: worst(key, value[0]) for key, value in measure(draws[None]).items()}
    finite = bool(np.isfinite(draws).all())
    found = check_fit(stats, {"x": entry}, contraction or {}, finished=finished, modes=modes, finite=finite)
    grades = {finding.grade for finding in found}
    return "fail" if "fail" in grades else "warn" if "warn" in grades else "ok", {finding.code for finding in found}


def good(seed, phi=0.2):
    return autoregressive(np.random.default_rng(seed), phi, (CHAINS, 1000))


def broken(kind):
    draws = good(1)
    if kind == "NaN":
        draws[0, 3] = np.nan
    elif kind == "infinite":
        draws[3, -1] = np.inf
    elif kind == "NaN tail":
        draws[2, 900:] = np.nan
    elif kind == "all NaN":
        draws[:] = np.nan
    elif kind == "stuck chain":
        draws[1] = 0.7
    elif kind == "stuck half-way":
        draws[1, 500:] = draws[1, 500]
    elif kind == "all chains stuck apart":
        draws[:] = np.arange(4.0)[:, None]
    elif kind == "all constant":
        draws[:] = 1.0
    elif kind == "shifted chain":
        draws[0] += 1.5
    elif kind == "wide chain":
        draws[0] *= 5
    elif kind == "drift":
        draws += np.linspace(0, 3, 1000)
    elif kind == "two modes":
        draws += np.array([0.0, 0.0, 8.0, 8.0])[:, None]
    elif kind == "slow":
        draws = good(1, 0.995)
    elif kind == "few draws":
        draws = draws[:, :20]
    elif kind == "one chain":
        draws = draws[:1, :300]
    return draws


DRAWS_BROKEN = (
    "NaN", "infinite", "NaN tail", "all NaN", "stuck chain", "stuck half-way", "all chains stuck apart", "all constant",
    "shifted chain", "wide chain", "drift", "two modes", "slow", "few draws", "one chain",
)  # fmt: skip


@pytest.mark.parametrize("kind", DRAWS_BROKEN)
def test_broken_draws_never_pass(kind):
    assert verdict(broken(kind))[0] != "ok"


STATS_BROKEN = {
    "some divergences": ({"diverging": 0.005}, "warn", "DIVERGENT"),
    "many divergences": ({"diverging": 0.05}, "fail", "DIVERGENT"),
    "all diverging": ({"diverging": 1.1}, "fail", "DIVERGENT"),
    "slow energy": ({"energy": good(4, 0.97)}, "warn", "BFMI"),
    "constant energy": ({"energy": np.ones((CHAINS, 1000))}, "warn", "BFMI"),
    "NaN energy": ({"energy": np.full((CHAINS, 1000), np.nan)}, "warn", "BFMI"),
    "one NaN energy": ({"energy": np.where(np.arange(1000) == 5, np.nan, good(4))}, "warn", "BFMI"),
    "saturated trees": ({"saturated": 0.2}, "warn", "TREE-DEPTH"),
    "unfinished": ({"finished": False}, "fail", "NOT-FINISHED"),
}


@pytest.mark.parametrize("kind", STATS_BROKEN)
def test_broken_statistics_never_pass(kind):
    change, grade, code = STATS_BROKEN[kind]
    got, codes = verdict(good(1), **change)
    assert got == grade and code in codes


@pytest.mark.parametrize("seed", range(30))
def test_good_fits_pass(seed):
    assert verdict(good(seed)) == ("ok", set())


def test_modes_are_a_failure_only_where_chains_differ():
    assert verdict(broken("two modes"), modes=2)[1] >= {"BIMODAL", "RHAT"}
    assert verdict(good(1), modes=2) == ("ok", {"MODES"})


@pytest.mark.parametrize("value", [0.1, np.nan])
def test_what_the_data_did_not_teach_is_said_and_no_failure(value):
    assert verdict(good(1), contraction={"K": value, "gamma": 0.9}) == ("ok", {"NOT-IDENTIFIED"})


def test_a_constant_beside_good_draws_is_passed_over():
    """A fixed exponent is reported as a derived quantity and has no diagnostics."""
    draws = np.stack([good(1), np.ones((CHAINS, 1000))])[None].transpose(0, 2, 3, 1)
    entry = {key: worst(key, value[0]) for key, value in measure(draws).items()}
    stats = {
        "diverging": np.zeros((CHAINS, 1000)),
        "energy": good(2),
        "reached_max_treedepth": np.zeros((CHAINS, 1000)),
    }
    constant = {"r_hat": np.nan, "ess_bulk": np.nan, "ess_tail": np.nan}
    assert check_fit(stats, {"x": entry, "lambda": constant}, {}, finished=True, modes=1, finite=True) == ()


# A fall in performance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "se", "want"),
    [
        ([0.0, 1.0, 2.0], [0.1, 0.1, 0.1], 0.0),
        ([0.0, 1.0, 0.5], [0.3, 0.3, 0.4], 1.0),
        ([3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0], 3.0 / np.sqrt(2)),
        ([1.0], [0.1], 0.0),
    ],
)
def test_largest_fall(y, se, want):
    assert drop_z(np.array(y), np.array(se))[0] == pytest.approx(want)


def unit_of(values, kind, *, hide=(), task=None):
    """One unit's columns, a row per shot count."""
    value = np.asarray(values, float)
    mask = np.ones(len(value))
    mask[list(hide)] = 0
    y = np.log(value) if kind == "nll_mean" else np.log(value) - np.log1p(-value)
    shots = 2.0 ** np.arange(len(value)) if task is None else np.tile(2.0 ** np.arange(len(value) // 2), 2)
    spread = {"trials": np.full(len(value), 200.0)} if kind == "counts" else {"se": np.full(len(value), 0.02)}
    columns = {"value": value, "y": y, "mask": mask, "shots": shots, "chance": np.asarray(0.25)}
    return columns | spread | {"task": np.zeros(len(value)) if task is None else np.asarray(task)}


RISING = [0.3, 0.4, 0.55, 0.7, 0.72, 0.71]
COLLAPSING = [0.3, 0.5, 0.7, 0.72, 0.4, 0.1]


@pytest.mark.parametrize("kind", ["counts", "prob_mean", "nll_mean"])
def test_only_a_collapse_is_called_one(kind):
    turned = (lambda p: -np.log(p)) if kind == "nll_mean" else np.asarray
    assert check_drop(unit_of(turned(RISING), kind), kind) == ()
    (finding,) = check_drop(unit_of(turned(COLLAPSING), kind), kind)
    assert (finding.code, finding.grade) == ("DROP", "warn")
    assert ("2 shots" if kind == "nll_mean" else "8 shots") in finding.message and "at 32 " in finding.message


def test_without_standard_errors_a_curves_own_scatter_tells_what_is_a_fall():
    """Simulated NLLs with 5% scatter around a power law: few are called falls, though no standard error is known."""
    rng, shots = np.random.default_rng(3), 2.0 ** np.arange(11)
    called = 0
    for _ in range(200):
        nll = (0.2 + 0.8 * shots**-0.5) * np.exp(0.05 * rng.normal(size=11))
        columns = unit_of(nll, "nll_mean") | {"shots": shots, "se": np.zeros(11)}
        called += len(check_drop(columns, "nll_mean"))
    assert called <= 10
    collapsing = unit_of(np.r_[nll[:8], 3 * nll[8:]], "nll_mean") | {"shots": shots, "se": np.zeros(11)}
    assert [finding.code for finding in check_drop(collapsing, "nll_mean")] == ["DROP"]


def test_rounded_values_on_a_plateau_are_no_fall():
    """Most neighbours lie on one line there, and leave no scatter to be seen."""
    plateau = [2.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.001]
    assert check_drop(unit_of(plateau, "nll_mean") | {"se": np.zeros(10)}, "nll_mean") == ()


def test_a_few_points_without_standard_errors_say_nothing_about_falls():
    columns = unit_of([1.0, 0.5, 2.0, 2.1], "nll_mean") | {"se": np.zeros(4)}
    assert check_drop(columns, "nll_mean") == ()


def test_hidden_rows_are_not_looked_at():
    assert check_drop(unit_of(COLLAPSING, "counts", hide=(4, 5)), "counts") == ()


def test_tasks_are_looked_at_one_by_one():
    """A second task that starts lower is no fall of the first."""
    tasks = np.repeat([0, 1], 6)
    assert check_drop(unit_of(RISING + RISING, "counts", task=tasks), "counts") == ()
    assert len(check_drop(unit_of(RISING + COLLAPSING, "counts", task=tasks), "counts")) == 1


def test_runs_that_agree_do_not_hide_the_items_luck():
    """Two runs of twenty items at one shot count: a fall of two items is no collapse, however well the runs agree."""
    columns = unit_of([0.5, 0.5, 0.4, 0.4], "counts") | {
        "trials": np.full(4, 20.0),
        "shots": np.array([1.0, 1.0, 2.0, 2.0]),
    }
    assert check_drop(columns, "counts") == ()


@pytest.mark.parametrize("kind", ["counts", "nll_mean"])
def test_a_collapse_is_more_than_a_monotone_law_replicates(kind):
    """Replicates are noise about a rising curve: they fall as far as a rising curve's data and never as far as a collapse."""
    rng = np.random.default_rng(3)
    p = rng.binomial(200, RISING, size=(400, len(RISING))) / 200
    again = -np.log(p) if kind == "nll_mean" else p
    turned = (lambda p: -np.log(p)) if kind == "nll_mean" else np.asarray
    assert check_replicates(unit_of(turned(RISING), kind), kind, again) == ()
    (finding,) = check_replicates(unit_of(turned(COLLAPSING), kind), kind, again)
    assert (finding.code, finding.grade) == ("PREDICTIVE-DROP", "warn")
