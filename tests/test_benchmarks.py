"""What the benchmarks rest on: their data, their gate, their references. Speed is not tested here."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density as numpyro_log_density

from bayesscale.columns import taken
from bayesscale.inference.settings import Sampler
from bayesscale.model import Target, log_density, numpyro_model
from benchmarks import references
from benchmarks.batch.engine import sampler_from
from benchmarks.batch.gate import judge
from benchmarks.batch.tables import number
from benchmarks.batch.workloads import POISON_EVERY, SPECIFICATIONS, is_poisoned, simulate
from benchmarks.grid import grid_moments

IMPORT_WITHOUT_TABLES = """
import importlib.abc, sys

ABSENT = {"arviz", "arviz_stats", "arviz_base", "pandas", "pyarrow", "matplotlib", "xarray", "typer", "rich", "blackjax", "pymc"}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from benchmarks import accelerator
print(len(accelerator.simulate("power", 3)))
"""


@pytest.mark.parametrize(("name", "points", "dimension"), [("icl", 20, 5), ("power", 30, 4), ("mixed", 20, 5)])
def test_workloads_have_the_sizes_they_are_named_by(name, points, dimension):
    workload = simulate(name, 8)
    assert workload.model.layout.dimension == dimension
    assert (workload.units.columns["mask"].sum(axis=1) == points).all()
    assert all(np.isfinite(column).all() for key, column in workload.units.columns.items() if key != "chance")


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_a_curve_is_the_same_in_a_batch_of_any_size(name):
    assert simulate(name, 12).units.digests[9:] == simulate(name, 3, first=9).units.digests
    assert simulate(name, 12).units.digests[9:] != simulate(name, 3, first=9, seed=1).units.digests


def test_one_curve_in_255_is_poisoned():
    poisoned = is_poisoned(simulate("mixed", 2 * POISON_EVERY + 1))
    assert np.flatnonzero(poisoned).tolist() == [POISON_EVERY - 1, 2 * POISON_EVERY - 1]
    assert not is_poisoned(simulate("icl", POISON_EVERY)).any()


@pytest.mark.parametrize("name", ["icl", "power"])
def test_numpyro_is_given_the_same_posterior(name):
    workload = simulate(name, 1)
    columns = {key: jnp.asarray(column) for key, column in taken(workload.units.columns, 0).items()}
    rng, differences = np.random.default_rng(3), []
    for _ in range(4):
        u = rng.normal(size=workload.model.layout.dimension)
        theta = dict(zip(workload.model.layout.coordinate_names, u, strict=True))
        theirs, _ = numpyro_log_density(numpyro_model, (workload.model, columns), {}, theta)
        differences.append(float(theirs) - float(log_density(workload.model, jnp.asarray(u), columns)))
    assert np.ptp(differences) < 1e-8


@pytest.mark.parametrize(("name", "coordinates"), [("icl", "own"), ("power", "own"), ("power", "edge")])
def test_pymc_is_given_the_same_posterior(name, coordinates):
    pytest.importorskip("pymc", reason="pymc is an optional peer, in the extra called bench")
    from benchmarks.batch import pymc_statements

    workload = simulate(name, 1)
    assert pymc_statements.check(workload, pymc_statements.STATEMENTS[name, coordinates](workload)) < 1e-6


def test_the_gate_wants_mixed_finite_chains_without_divergences():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 500, 2))
    apart, broken, calm = good + np.array([0.0, 0.0, 0.0, 3.0])[:, None, None], good.copy(), np.zeros((4, 500))
    broken[0, 0, 0] = np.nan
    sticky = np.repeat(rng.normal(size=(4, 25, 2)), 20, axis=1)
    wild = calm.copy()
    wild[0, :30] = 1
    u, flags = np.stack([good, apart, broken, sticky, good]), np.stack([calm, calm, calm, calm, wild])
    assert judge(u, flags).passed.tolist() == [True, False, False, False, False]


def test_a_grid_integrates_a_skewed_density():
    """exp(a u - e^u) is the log of a Gamma(a) variable; a linear map makes the coordinates depend."""
    mix = np.array([[1.0, 0.4], [0.0, 1.0]])
    shapes = jnp.array([3.0, 8.0])

    def density(u, columns):
        v = jnp.linalg.solve(mix, u)
        return jnp.sum(columns["shapes"] * v - jnp.exp(v))

    target = Target("gammas", 2, density, lambda key, columns: jnp.zeros(2))
    draws = jnp.log(jax.random.gamma(jax.random.key(0), shapes, (2000, 2)))
    moments = grid_moments(target, {"shapes": np.asarray(shapes)}, np.asarray(draws) @ mix.T, nodes=61, reach=9.0)
    mean = np.array([0.9227843350984671, 2.0156414779556097])  # digamma(3), digamma(8)
    variance = np.array([0.3949340668482264, 0.1331370146940314])  # trigamma(3), trigamma(8)
    np.testing.assert_allclose(moments.mean, mix @ mean, atol=1e-5)
    np.testing.assert_allclose(moments.sd**2, mix**2 @ variance, rtol=1e-4)
    assert moments.on_faces < 1e-6 and moments.coarsening < 1e-3


def test_agreement_finds_a_shifted_mean_and_a_stretched_sd():
    rng = np.random.default_rng(5)
    reference = references.summarise(rng.normal(size=(4, 4, 5000, 2)))
    u = rng.normal(size=(4, 4, 5000, 2))
    u[1, ..., 0] += 0.2
    u[2, ..., 1] *= 1.2
    ours = references.summarise(u)
    agreement = references.compare(ours, reference)
    assert ours.usable.all()
    assert agreement.within.tolist() == agreement.unbiased.tolist() == [True, False, False, True]


def test_the_accelerators_command_needs_no_tables_or_plots():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT_TABLES], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3"]


def test_settings_are_read_from_text():
    assert sampler_from("") == Sampler()
    assert sampler_from("draws=500 warmup=60,70 target_accept=.7") == Sampler(
        draws=500, warmup=(60, 70), target_accept=0.7
    )


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (12.34, "12.3"), (0.01234, "0.0123"), (0.0, "0"), (np.nan, "n/a")]
)
def test_numbers_keep_three_digits(value, text):
    assert number(value) == text
