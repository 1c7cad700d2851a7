"""What is compiled ahead is what is needed; a rehearsal that fails is no failure."""

from __future__ import annotations

import logging

import jax
import numpy as np
import pandas as pd
import pytest

from bayesscale.curves import Curves
from bayesscale.fitting import fit_many
from bayesscale.inference import ahead
from bayesscale.inference.settings import Sampler

SAMPLER = Sampler(chains=2, draws=41, warmup=(11,), lanes=24, steps=16, starts=2, tiers=0)
"""Like no other test's, so that nothing has been compiled before."""
IN_TURN = {"screen", "climb_all", "refill_lanes"}
"""Programs that are compiled where they are called: the first ones, and one of no size."""


@pytest.fixture
def two_processors(monkeypatch):
    monkeypatch.setattr(ahead, "processors", lambda: 2)


def test_a_fit_finds_its_programs_compiled(two_processors, caplog):
    shots = np.arange(1.0, 12.0)
    nll = 0.3 + shots**-0.5 * np.exp(0.02 * np.random.default_rng(0).normal(size=len(shots)))
    curves = Curves.from_frame(pd.DataFrame({"task": "a", "shots": shots, "nll": nll}), curve=["task"], nll="nll")
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        fit_many(curves, "power", discrepancy=False, sampler=SAMPLER)
    done = [r.message for r in caplog.records if "Finished XLA compilation" in r.message]
    assert {line.split("(")[1].split(")")[0] for line in done} == IN_TURN  # of this thread; the setting is its own


def test_a_rehearsal_runs_once_and_keeps_its_errors(two_processors):
    calls = []

    def step():
        calls.append(np.float64(0) / np.float64(0))
        raise ValueError

    for _ in range(2):
        ahead.rehearse("a key of this test", step)()
    assert len(calls) == 1


def test_with_one_processor_nothing_is_rehearsed(monkeypatch):
    monkeypatch.setattr(ahead, "processors", lambda: 1)
    ahead.rehearse("another key of this test", pytest.fail)()
