"""Intervals cover what was simulated: 200 curves from the prior, per parameter and reported quantity."""

import pytest
from scipy.stats import binom

from bayesscale.calibration import coverage, simulate_units
from bayesscale.inference.settings import Sampler
from bayesscale.laws import LAWS
from bayesscale.likelihood import QUASI_BINOMIAL, with_discrepancy

CURVES = 200


def test_simulation_repeats_itself_and_differs_by_seed():
    first, truth = simulate_units(LAWS["tempered"], QUASI_BINOMIAL, 2)
    again, _ = simulate_units(LAWS["tempered"], QUASI_BINOMIAL, 2)
    other, _ = simulate_units(LAWS["tempered"], QUASI_BINOMIAL, 2, seed=1)
    assert (first.columns["y"] == again.columns["y"]).all()
    assert (first.columns["y"] != other.columns["y"]).all()
    assert {"rho", "K", "gamma", "beta", "log_n50"} <= set(truth[0])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("tempered", 0.9), ("tempered_strict", 0.7), ("hill", 0.9)])
def test_intervals_cover_the_truth(name, share):
    """Of the fits that pass the gate, of which there is a `share`: in the paper's own parameters many curves are ridges."""
    law = LAWS[name]
    table = coverage(law, with_discrepancy(QUASI_BINOMIAL), curves=CURVES, sampler=Sampler(draws=500))
    print(table.round(3).to_string(index=False))
    assert (table["passed"] >= share * CURVES).all()
    for row in table.itertuples():
        for mass, covered in ((0.5, row.coverage50), (0.9, row.coverage90)):
            low, high = binom.interval(0.9999, row.passed, mass)
            assert low <= covered * row.passed <= high, f"{row.parameter}: {covered:.3f} at {mass}"
