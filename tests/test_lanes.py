"""NUTS in lanes: that it leaves its target unchanged, agrees with other ways of integrating, and keeps units apart."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from scipy.special import gammaln

from bayesscale.inference import diagnostics
from bayesscale.inference.coordinates import shared_out
from bayesscale.inference.deck import SPARE
from bayesscale.inference.diagnostics import Verdict, judged
from bayesscale.inference.lanes import Task, build_kernel, checkpoint_range, kernel_of
from bayesscale.inference.many import Posterior, sample_many
from bayesscale.inference.settings import Sampler
from bayesscale.inference.start import LARGEST_BATCH, find_modes
from bayesscale.law import Law
from bayesscale.laws import DEFAULT_LAW, DEFAULT_LAWS, LAWS
from bayesscale.likelihood import BINOMIAL, QUASI_BINOMIAL, with_discrepancy
from bayesscale.model import compose, level_target, log_density, numpyro_model, target_of
from bayesscale.parameter import Parameter
from benchmarks.references import compare, summarise

ROOT = Path(__file__).parent.parent

# The kernel: invariance of a target -----------------------------------------------------------------------------------

LANES, TRAJECTORIES = 4000, 6
COVARIANCE = np.array([[1.0, 0.8, -0.3], [0.8, 2.0, 0.1], [-0.3, 0.1, 0.5]])
PRECISION = np.linalg.inv(COVARIANCE)


def gaussian_density(x, task):
    return -0.5 * jnp.sum(x * (jnp.asarray(PRECISION) @ x), axis=0)


def gaussian_draws(rng):
    return rng.multivariate_normal(np.zeros(3), COVARIANCE, LANES)


def gaussian_scores(x):
    """Independent standard normals, if x follows the target."""
    return np.linalg.solve(np.linalg.cholesky(COVARIANCE), x.T).T


def bent_density(x, task):
    """x0 ~ N(0, 1), x1 | x0 ~ N(x0^2 - 1, 1/4), x2 ~ logistic: bent, skewed and heavy-tailed."""
    return -0.5 * x[0] ** 2 - 2.0 * (x[1] - x[0] ** 2 + 1.0) ** 2 - x[2] - 2.0 * jnp.log1p(jnp.exp(-x[2]))


def bent_draws(rng):
    x0 = rng.normal(size=LANES)
    return np.stack([x0, x0**2 - 1 + 0.5 * rng.normal(size=LANES), rng.logistic(size=LANES)], axis=1)


def bent_scores(x):
    return np.stack(
        [x[:, 0], 2.0 * (x[:, 1] - x[:, 0] ** 2 + 1), scipy.stats.norm.ppf(scipy.stats.logistic.cdf(x[:, 2]))], axis=1
    )


TARGETS = {
    "correlated": (gaussian_density, gaussian_draws, gaussian_scores),
    "bent": (bent_density, bent_draws, bent_scores),
}


def drive(density, starts, *, step, max_depth, seed=0):
    """Run every lane for TRAJECTORIES draws at a fixed step size; returns where they end, and leapfrogs per draw."""
    lanes = len(starts)
    task = Task(
        jnp.zeros((3, lanes)),
        jnp.zeros((3, 3, lanes)),
        {},
        jnp.full(lanes, float(TRAJECTORIES)),
        jnp.zeros(lanes, bool),
        jnp.full(lanes, 0.8),
        jnp.full(lanes, max_depth, jnp.int32),
    )
    kernel = build_kernel(density, steps=TRAJECTORIES * 2**max_depth, deepest=max_depth)
    keys = np.random.default_rng(seed).integers(0, 2**32, (2, lanes), np.uint32)
    new = (keys, np.zeros(lanes, np.int32), jnp.asarray(starts.T), jnp.full(lanes, np.log(step)))
    state = kernel.fill(*new)
    state, emitted = kernel.run(state, task)
    done = np.asarray(emitted.done)
    assert (np.asarray(state.drawn) >= TRAJECTORIES).all() and (done.sum(axis=0) == TRAJECTORIES).all()
    last = done.shape[0] - 1 - np.argmax(done[::-1], axis=0)
    return np.asarray(emitted.x)[last, :, np.arange(lanes)], emitted


@pytest.mark.parametrize(("step", "max_depth"), [(0.25, 5), (0.8, 4), (0.5, 2)])
@pytest.mark.parametrize("target", TARGETS)
def test_trajectories_leave_the_target_unchanged(target, step, max_depth):
    """Lanes that start from exact draws end at exact, independent draws, whatever the step size and depth."""
    density, draw, scores = TARGETS[target]
    starts = draw(np.random.default_rng(11))
    ends, emitted = drive(density, starts, step=step, max_depth=max_depth)
    z = scores(ends)
    assert (np.abs(z.mean(axis=0)) * np.sqrt(LANES) < 4).all()
    assert (np.abs((z**2).mean(axis=0) - 1) * np.sqrt(LANES / 2) < 4.5).all()
    assert (np.abs((z.T @ z / LANES)[np.triu_indices(3, 1)]) * np.sqrt(LANES) < 4).all()
    for part in z.T:
        assert scipy.stats.kstest(part, "norm").pvalue > 1e-4
    # A kernel that stood still would leave the target unchanged as well.
    moved = np.diag(np.corrcoef(scores(starts).T, z.T)[:3, 3:])
    assert (np.abs(moved) < 0.9).all()
    done = np.asarray(emitted.done)
    leapfrogs = np.asarray(emitted.leapfrogs)[done]
    assert leapfrogs.max() <= 2**max_depth - 1 and leapfrogs.mean() > 1.5
    assert (np.asarray(emitted.saturated)[done] <= (leapfrogs == 2**max_depth - 1)).all()


def test_a_huge_step_diverges_and_stays_put():
    starts = gaussian_draws(np.random.default_rng(1))[:16]
    ends, emitted = drive(gaussian_density, starts, step=1e3, max_depth=3)
    done = np.asarray(emitted.done)
    assert np.asarray(emitted.diverged)[done].all() and (np.asarray(emitted.leapfrogs)[done] == 1).all()
    np.testing.assert_array_equal(ends, starts)


def test_checkpoints_are_those_of_a_naive_tree():
    """An odd leaf closes the balanced subtrees of sizes 2, 4, ... dividing leaf + 1; their first leaves are stored."""
    stored = {}
    for leaf in range(32):
        first, last = (int(part) for part in checkpoint_range(jnp.asarray(leaf, jnp.int32)))
        if leaf % 2 == 0:
            assert last == bin(leaf).count("1")
            stored[last] = leaf
            continue
        sizes = [2**k for k in range(1, 6) if (leaf + 1) % 2**k == 0]
        assert [stored[slot] for slot in range(first, last + 1)] == [leaf + 1 - size for size in reversed(sizes)]
    assert max(stored) < 5  # a tree of 2^5 leaves needs five slots


# The sampler: small models --------------------------------------------------------------------------------------------


def line_log_mean(n, *, level, slope):
    logits = level + slope * (jnp.log1p(n) - 2.0)
    return jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)


LINE = Law(
    name="line",
    equation="logit p = level + slope (log(1+n) - 2)",
    reference="a law of two parameters, for integration on a grid",
    parameters=(
        Parameter("level", "a", "logit at about six shots", dist.Normal(0.0, 2.0)),
        Parameter("slope", "b", "slope", dist.LogNormal(-0.5, 0.7)),
    ),
    log_mean=line_log_mean,
    derived=lambda *, level, slope: {},
    derived_meaning={},
)
FAST = Sampler(draws=400, warmup=(50, 60, 60), lanes=16, steps=64, starts=4, tiers=0)
SHOTS = np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])


def unit_columns(units, trials=30.0, law=None):
    """Counts of several units of eight rows; the first four units differ in level."""
    rng = np.random.default_rng(21)
    level, slope = np.linspace(-1.5, 1.5, units)[:, None], 0.5
    p = 1 / (1 + np.exp(-(level + slope * (np.log1p(SHOTS) - 2)))) if law is None else np.tile(law, (units, 1))
    k, n = rng.binomial(int(trials), p).astype(float), np.full((units, len(SHOTS)), trials)
    fields = {"successes": k, "trials": n, "log_choose": gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)}
    shots = np.tile(SHOTS, (units, 1))
    facts = {"chance": np.full(units, np.nan), "first_value": np.full(units, 0.3)}
    facts |= {"first_shots": np.full(units, SHOTS[0]), "last_shots": np.full(units, SHOTS[-1])}
    y = np.log((k + 0.5) / (n - k + 0.5))
    rows = {"shots": shots, "value": k / n, "mask": np.ones_like(shots), "y": y, "task": np.zeros_like(shots, int)}
    return fields | facts | rows


def names(units):
    return [f"unit {i}" for i in range(units)]


def taken(columns, index):
    return {name: column[list(index)] for name, column in columns.items()}


def same(one, other):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


@cache
def line_run():
    """Six units in four slots, so that slots are refilled."""
    columns = unit_columns(6)
    return columns, sample_many(compose(LINE, BINOMIAL), columns, names(6), sampler=FAST)


@pytest.mark.parametrize("index", [[3], [5, 0, 4, 2, 1, 3], [1, 4]], ids=["alone", "permuted", "some"])
def test_a_units_draws_do_not_depend_on_its_neighbours(index):
    columns, everything = line_run()
    got = sample_many(compose(LINE, BINOMIAL), taken(columns, index), [names(6)[i] for i in index], sampler=FAST)
    assert same(got, Posterior(*(array[index] for array in everything)))


def test_modes_do_not_depend_on_where_a_unit_lies():
    """One unit in every place of the first batch and of a second, filled-up one climbs to the same bits."""
    target, units, starts = target_of(compose(LINE, BINOMIAL)), LARGEST_BATCH // 4 + 3, 4
    columns = {name: np.repeat(column[:1], units, axis=0) for name, column in unit_columns(1).items()}
    modes = find_modes(target, np.tile(np.array([[3, 5]], np.uint32), (units, 1)), columns, starts)
    for found in modes:
        np.testing.assert_array_equal(found, np.broadcast_to(np.asarray(found)[:1], np.shape(found)))


def test_draws_do_not_depend_on_the_decks_width():
    columns, everything = line_run()
    got = sample_many(compose(LINE, BINOMIAL), columns, names(6), sampler=replace(FAST, lanes=72))
    assert same(got, everything)


def test_randomness_is_keyed_by_seed_and_identity():
    columns, everything = line_run()
    for digests, seed in ((["unit 0"], 1), (["another"], 0)):
        other = sample_many(compose(LINE, BINOMIAL), taken(columns, [0]), digests, sampler=FAST, seed=seed)
        assert not np.array_equal(other.u[0], everything.u[0])


@pytest.mark.parametrize("poison", ["NaN counts", "absurd counts"])
def test_a_poisoned_unit_spoils_no_other(poison):
    columns, everything = line_run()
    bad = {name: column.copy() for name, column in columns.items()}
    bad["successes"][2] = np.nan if poison == "NaN counts" else 1e200
    got = sample_many(compose(LINE, BINOMIAL), bad, names(6), sampler=FAST)
    clean = [0, 1, 3, 4, 5]
    assert same((a[clean] for a in got), (a[clean] for a in everything))
    passed = judged(got.u, got.diverging, got.finished).good
    expected = judged(everything.u, everything.diverging, everything.finished).good
    assert not passed[2] and (passed[clean] == expected[clean]).all() and passed.any()


def test_posteriors_are_those_of_a_grid():
    """Mean, sd and the ends of the 90% interval against two-dimensional quadrature."""
    columns, posterior = line_run()
    model = compose(LINE, BINOMIAL)
    density = jax.jit(
        jax.vmap(jax.vmap(lambda a, b, c: log_density(model, jnp.stack([a, b]), c), (None, 0, None)), (0, None, None))
    )
    for unit in range(6):
        draws = posterior.u[unit]
        centre, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
        axes = [np.linspace(c - 9 * s, c + 9 * s, 401) for c, s in zip(centre, sd, strict=True)]
        value = np.asarray(density(*axes, {name: column[unit] for name, column in columns.items()}))
        weight = np.exp(value - value.max())
        for i, axis in enumerate(axes):
            marginal = weight.sum(axis=1 - i) / weight.sum()
            mean = marginal @ axis
            spread = np.sqrt(marginal @ (axis - mean) ** 2)
            _, ess, tail = diagnostics.measure(draws[..., i])
            assert abs(draws[..., i].mean() - mean) < 4 * spread / np.sqrt(ess)
            assert draws[..., i].std() == pytest.approx(spread, rel=0.1)
            below = np.interp(np.quantile(draws[..., i], [0.05, 0.95]), axis, np.cumsum(marginal))
            assert np.abs(below - [0.05, 0.95]).max() < 4 * np.sqrt(0.05 * 0.95 / tail)


def test_statistics_are_about_the_draws():
    columns, posterior = line_run()
    model = compose(LINE, BINOMIAL)
    unit = {name: jnp.asarray(column[1]) for name, column in columns.items()}
    want = jax.jit(jax.vmap(lambda u: log_density(model, u, unit)))(posterior.u[1, 0])
    np.testing.assert_allclose(posterior.log_density[1, 0], want, rtol=1e-9)
    # Energy is minus the log density plus half a chi-square of two degrees of freedom.
    assert posterior.energy.mean(axis=(1, 2)) + posterior.log_density.mean(axis=(1, 2)) == pytest.approx(1.0, abs=0.1)
    assert posterior.finished.all() and (posterior.tier == 0).all() and posterior.diverging.mean() < 0.005
    assert (np.abs(posterior.accept.mean(axis=(1, 2)) - FAST.target_accept) < 0.08).all()


RISING = 0.25 + 0.6 / (1 + (8.0 / np.maximum(SHOTS, 1e-9)) ** 1.2)
LEVEL = np.full(len(SHOTS), 0.6)
SLOWLY = [pytest.param("tempered", truth, marks=pytest.mark.slow) for truth in (RISING, LEVEL)]


@pytest.mark.parametrize(("name", "truth"), [("logistic", RISING), ("logistic", LEVEL), *SLOWLY])
def test_agrees_with_stock_nuts(name, truth):
    """Means and sds within four Monte Carlo errors of numpyro's own NUTS, on simulated counts that rise and that do not."""
    columns, model = unit_columns(1, 300.0, truth), compose(LAWS[name], BINOMIAL)
    assert (shared_out(model, columns)[0][0] is level_target(model)) == (truth is LEVEL)
    sampler = replace(FAST, draws=4000, warmup=(60, 120, 120))
    ours = sample_many(model, columns, ["one"], sampler=sampler)
    assert judged(ours.u, ours.diverging, ours.finished).good.all()
    kernel = numpyro.infer.NUTS(numpyro_model, target_accept_prob=0.9, dense_mass=True)
    mcmc = numpyro.infer.MCMC(
        kernel, num_warmup=800, num_samples=3000, num_chains=4, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.key(9), model, {key: jnp.asarray(column[0]) for key, column in columns.items()})
    theirs = mcmc.get_samples(group_by_chain=True)
    draws = np.stack([np.asarray(theirs[name]) for name in model.layout.coordinate_names], axis=-1)
    compared = compare(summarise(ours.u), summarise(draws[None]))
    assert compared.unbiased.all(), compared


def test_curves_in_other_coordinates_share_a_batch():
    """A curve at its level and one at its ends come back in their places, as each alone, to the last bit."""
    model, parts = compose(LAWS["logistic"], BINOMIAL), [unit_columns(1, 300.0, truth) for truth in (LEVEL, RISING)]
    both = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert len(shared_out(model, both)) == 2
    together = sample_many(model, both, ["level", "rising"], sampler=FAST)
    for i, name in enumerate(("level", "rising")):
        alone = sample_many(model, parts[i], [name], sampler=FAST)
        np.testing.assert_array_equal(alone.u[0], together.u[i])


@pytest.mark.parametrize("name", [DEFAULT_LAW, *(pytest.param(n, marks=pytest.mark.slow) for n in DEFAULT_LAWS[1:])])
def test_lanes_round_alike_wherever_they_lie(name):
    """One chain of a real posterior put in every lane takes the same steps to the last bit, spare lanes aside."""
    lanes, steps = 64, 48
    law, likelihood = LAWS[name], with_discrepancy(QUASI_BINOMIAL)
    target = target_of(compose(law, likelihood))
    columns = {key: column[0] for key, column in unit_columns(1).items()}
    time = np.log1p(SHOTS + law.singular_at_zero)
    columns |= {"shots": np.expm1(time), "step": np.diff(time, prepend=0.0), "first": np.arange(len(SHOTS)) == 0}
    columns |= {
        "runs": np.full(8, 2.0),
        "run_df": np.ones(8),
        "run_variance": np.full(8, 0.05),
        "run_constant": np.zeros(8),
    }
    everywhere = lambda value: jnp.repeat(jnp.asarray(value, float)[..., None], lanes, axis=-1)  # noqa: E731
    start, size = 0.3 * np.random.default_rng(0).normal(size=target.dimension), target.dimension
    task = Task(
        centre=everywhere(np.zeros(size)),
        whiten=everywhere(0.3 * np.eye(size)),
        columns={key: everywhere(column) for key, column in columns.items()},
        wanted=everywhere(1e9),
        adapting=jnp.ones(lanes, bool),
        target_accept=everywhere(0.9),
        max_depth=jnp.full(lanes, 6, jnp.int32),
    )
    kernel = kernel_of(target, steps, 6)
    keys, salt = np.tile(np.array([[3], [5]], np.uint32), (1, lanes)), np.zeros(lanes, np.int32)
    new = (keys, salt, everywhere(start), everywhere(-0.5))
    state = kernel.fill(*new)
    _, emitted = kernel.run(state, task)
    assert np.asarray(emitted.done)[:, 0].sum() >= 2
    for field, value in emitted._asdict().items():
        used = np.asarray(value)[..., : lanes - SPARE]
        np.testing.assert_array_equal(used, np.broadcast_to(used[..., :1], used.shape), field)


def test_a_stronger_tier_takes_what_fails():
    """With hardly any warm-up and few draws the first tier fails; the result then carries a stronger one's number."""
    columns, _ = line_run()
    starved = replace(FAST, draws=80, warmup=(2, 2), tiers=4, chains=4)
    got = sample_many(compose(LINE, BINOMIAL), taken(columns, [0, 1]), ["a", "b"], sampler=starved)
    assert (got.tier >= 1).any() and (got.tier <= starved.tiers).all() and got.u.shape[2] == 80


def test_a_posterior_can_be_drawn_from_without_a_warm_up():
    columns, _ = line_run()
    got = sample_many(compose(LINE, BINOMIAL), taken(columns, [0]), ["a"], sampler=replace(FAST, warmup=()))
    assert got.finished.all() and np.isfinite(got.u).all()


def test_what_only_lacks_draws_keeps_those_it_has(monkeypatch):
    """Called short once, every unit draws as many again; what is returned is every other one of both."""
    columns, posterior = line_run()
    seen = set()

    def short_at_first(u, diverged, finished):
        first = u[:, 0, 0, 0].tolist()
        good = np.array([value in seen for value in first])
        seen.update(first)
        return Verdict(good, ~good)

    monkeypatch.setattr("bayesscale.inference.deck.judged", short_at_first)
    got = sample_many(compose(LINE, BINOMIAL), columns, names(6), sampler=replace(FAST, tiers=1))
    half = FAST.draws // 2
    assert (got.tier == 1).all() and got.finished.all()
    np.testing.assert_array_equal(got.u[:, :, :half], posterior.u[:, :, ::2])
    assert not np.isin(got.u[:, :, half:, 0], posterior.u[..., 0]).any()


def test_what_a_unit_out_of_patience_drew_has_the_density_it_says():
    """Its draws are mapped through the metric that its warm-up left it with."""
    columns = taken(unit_columns(1), [0])
    impatient = replace(FAST, patience=2, tiers=0)
    got = sample_many(compose(LINE, BINOMIAL), columns, names(1), sampler=impatient)
    drawn = np.isfinite(got.u[0]).all(axis=-1)
    assert not got.finished[0] and drawn.sum() > 20
    one = {name: column[0] for name, column in columns.items()}
    density = jax.vmap(lambda u: log_density(compose(LINE, BINOMIAL), u, one))(got.u[0][drawn])
    np.testing.assert_allclose(density, got.log_density[0][drawn], atol=1e-8)


def test_stock_nuts_takes_what_no_tier_brings_through():
    """Lanes that are given up too early leave the unit to the last tier, which draws from the same posterior."""
    columns, posterior = line_run()
    model, impatient = compose(LINE, BINOMIAL), replace(FAST, patience=2, tiers=1)
    counted = []
    got = sample_many(
        model,
        taken(columns, [0]),
        names(1),
        sampler=impatient,
        progress=lambda done, total: counted.append((done, total)),
    )
    assert got.tier.tolist() == [impatient.tiers + 1] and got.finished.all() and got.u.shape == posterior.u[:1].shape
    assert counted[-1] == (1, 1) and (1, 1) not in counted[:-1]
    one = {name: column[0] for name, column in columns.items()}
    density = jax.vmap(lambda u: log_density(model, u, one))(got.u[0].reshape(-1, 2)).reshape(got.u.shape[1:3])
    np.testing.assert_allclose(density, got.log_density[0], atol=1e-8)
    compared = compare(summarise(posterior.u[:1]), summarise(got.u))
    assert judged(got.u, got.diverging, got.finished).good.all() and compared.unbiased.all(), compared


SPREAD = """
import sys
import numpy as np
from bayesscale.inference.many import sample_many
from bayesscale.inference.settings import Sampler
from bayesscale.precision import enable_float64
from benchmarks.batch.workloads import simulate

enable_float64()
workload = simulate("power", 44, seed=3)
sampler = Sampler(draws=100, warmup=(30, 30), tiers=1, lanes=72)
found = sample_many(workload.model, workload.units.columns, workload.units.digests, sampler=sampler)
np.savez(sys.argv[1], **found._asdict())
"""


@pytest.mark.slow
def test_draws_are_the_same_on_several_devices(tmp_path):
    """Bit for bit, with lanes spread over two devices; the last units finish in a narrow deck on both."""
    found = []
    for devices in (1, 2):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        path = tmp_path / f"{devices}.npz"
        subprocess.run([sys.executable, "-c", SPREAD, path], env=os.environ | flags, cwd=ROOT, check=True)
        found.append(np.load(path))
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name], name)
