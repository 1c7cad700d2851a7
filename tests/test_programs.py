"""Traces kept on disk: found again in another process, never mistaken for another's, never needed."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayesscale import programs
from bayesscale.identity import identity
from bayesscale.inference.funnel import straight_target
from bayesscale.inference.lanes import Lanes, fillers, kernel_of
from bayesscale.inference.many import restoring, sample_many
from bayesscale.inference.settings import Sampler
from bayesscale.inference.start import climber, screener
from bayesscale.laws import LAWS
from bayesscale.likelihood import BETA_BINOMIAL, LIKELIHOODS, with_discrepancy
from bayesscale.model import compose, level_target, log_density, target_of
from bayesscale.programs import Program
from bayesscale.rates import RATE_LAWS
from bayesscale.resampling.model import rate_model, rate_target
from benchmarks.batch.workloads import simulate


def models():
    """Every law under every likelihood, with a departure and without one."""
    both = [*LIKELIHOODS.values(), *map(with_discrepancy, LIKELIHOODS.values())]
    return [compose(law, likelihood, 2 if law.joint else 1) for law in LAWS.values() for likelihood in both]


def identities():
    """By what is sampled: law, likelihood, departure and coordinates."""
    targets = {target for model in models() for target in (target_of(model), level_target(model))}
    targets |= {straight_target(target) for target in targets if target.pivot is not None}
    targets |= {rate_target(rate_model(law)) for law in RATE_LAWS.values()}
    return [(t.name, t.pivot, t.dimension, identity(kernel_of(t, 64, 9).run.function)) for t in targets]


def test_every_program_of_every_model_has_an_identity_of_its_own():
    found = [who for *_, who in identities()]
    assert None not in found and len(set(found)) == len(found)


def test_identities_are_the_same_in_another_process():
    program = "import conftest; from test_programs import identities; print(sorted(map(repr, identities())))"
    environment = os.environ | {"PYTHONPATH": os.path.dirname(__file__), "PYTHONHASHSEED": "12345"}
    there = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(sorted(map(repr, identities())))


def test_a_changed_prior_or_setting_is_another_program():
    law = LAWS["power"]
    model = compose(law, BETA_BINOMIAL)
    first, *rest = law.parameters
    wider = compose(replace(law, parameters=(replace(first, prior=dist.Normal(0.0, 9.0)), *rest)), BETA_BINOMIAL)
    wide = compose(law, with_discrepancy(BETA_BINOMIAL, 0.3))
    narrow = compose(law, with_discrepancy(BETA_BINOMIAL, 0.2))
    found = [identity(partial(log_density, one)) for one in (model, wider, wide, narrow)]
    found += [identity(kernel_of(target_of(model), steps, 9).run.function) for steps in (32, 64)]
    assert None not in found and len(set(found)) == len(found)


def test_what_the_user_wrote_has_no_identity_and_is_traced():
    mine = replace(LAWS["power"], log_mean=lambda shots, **theta: (jnp.log(0.3) + 0 * shots, jnp.log(0.7) + 0 * shots))
    assert identity(partial(log_density, compose(mine, BETA_BINOMIAL))) is None
    assert identity(lambda x: x + 1) is None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(programs.VARIABLE, str(tmp_path))
    return tmp_path


def doubled() -> Program:
    return Program(jax.vmap(partial(jnp.dot, np.arange(3.0))))


def test_a_kept_trace_is_not_traced_again(folder, monkeypatch):
    x = np.random.default_rng(0).normal(size=(4, 3))
    first = doubled()(x)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr("jax.export.export", None)
    np.testing.assert_array_equal(doubled()(x), first)
    with pytest.raises(TypeError):
        doubled()(x[:2])  # other shapes are another trace
    monkeypatch.setattr(programs, "sources", lambda: "changed")
    with pytest.raises(TypeError):
        doubled()(x)


def test_a_damaged_trace_is_made_anew(folder):
    x = np.ones((2, 3))
    doubled()(x)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"", whole.replace(b"\n", b"\n ", 1)):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(doubled()(x), [3.0, 3.0])
        assert programs.read(path) is not None


def test_a_folder_that_takes_nothing_costs_time_only(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(programs.VARIABLE, str(tmp_path / "file"))
    np.testing.assert_array_equal(doubled()(np.ones((2, 3))), [3.0, 3.0])
    assert "cannot be kept" in caplog.text


def test_named_tuples_come_back_as_what_they_were(folder):
    arguments = np.zeros((2, 8), np.uint32), np.zeros(8, np.int32), np.ones((3, 8)), np.zeros(8)
    made = []
    for _ in range(2):
        fillers.cache_clear()
        made.append(fillers(4)[0](*arguments))
    assert len(list(folder.iterdir())) == 1 and isinstance(made[1], Lanes)
    jax.tree.map(np.testing.assert_array_equal, *made)


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    np.testing.assert_array_equal(doubled()(np.ones((2, 3))), [3.0, 3.0])
    assert "No space left" in caplog.text and not list(folder.iterdir())


@pytest.mark.slow
def test_draws_are_the_same_to_the_last_bit(folder, monkeypatch):
    """With the trace kept for the first time, read back, and without one."""
    two = simulate("power", 2)
    sampler = Sampler(draws=20, warmup=(20,), tiers=0)
    drawn = []
    for keeping in (str(folder), str(folder), ""):
        monkeypatch.setenv(programs.VARIABLE, keeping)
        for compiled in (kernel_of, fillers, climber, screener, restoring):
            compiled.cache_clear()
        drawn.append(sample_many(two.model, two.units.columns, two.units.digests, sampler=sampler))
    assert len(list(folder.iterdir())) >= 4
    for other in drawn[1:]:
        jax.tree.map(np.testing.assert_array_equal, drawn[0], other)
