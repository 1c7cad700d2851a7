"""Units: what is padding stays out, what is one curve's stays its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesscale.curves import Curves
from bayesscale.finding import InputError
from bayesscale.laws import LAWS
from bayesscale.likelihood import (
    BETA,
    BETA_BINOMIAL,
    BINOMIAL,
    LOG_NORMAL,
    NORMAL,
    QUASI_BINOMIAL,
    STUDENT_T,
    with_discrepancy,
)
from bayesscale.model import compose, log_density, prior_draw
from bayesscale.units import padded_width, units_of

KEYS = (("m", "a"), ("m", "b"), ("n", "a"))
LENGTHS = (7, 3, 23)
COUNTS = (QUASI_BINOMIAL, BETA_BINOMIAL)
each_likelihood = pytest.mark.parametrize(
    "likelihood", [*COUNTS, BETA, NORMAL, LOG_NORMAL, STUDENT_T], ids=lambda one: one.name
)


def curves_of(kind="counts", lengths=LENGTHS, keys=KEYS, runs=1, seed=0):
    """Curves of given numbers of shot counts."""
    rng = np.random.default_rng(seed)
    shots = np.concatenate([np.tile(2.0 ** np.arange(n) - 1, runs) for n in lengths])
    curve = np.repeat(np.arange(len(lengths)), [n * runs for n in lengths])
    run = np.concatenate([np.repeat(np.arange(runs), n) for n in lengths])
    if kind == "counts":
        columns = {"successes": rng.binomial(50, 0.6, shots.size), "trials": np.full(shots.size, 50.0)}
    else:
        columns = {"value": rng.uniform(0.2, 0.8, shots.size), "se": np.full(shots.size, 0.05)}
    return Curves(kind, ("model", "task"), keys, curve, run, shots, columns, np.full(len(keys), np.nan))


def columns_of(units, i):
    return {name: jnp.asarray(c[i], int if name == "task" else None) for name, c in units.columns.items()}


@each_likelihood
def test_mask_counts_the_rows(likelihood):
    units = units_of(curves_of(likelihood.kind), likelihood)
    assert units.rows == padded_width(max(LENGTHS))
    np.testing.assert_array_equal(units.columns["mask"].sum(axis=1), LENGTHS)
    np.testing.assert_array_equal((units.curves >= 0).sum(axis=1), LENGTHS)
    for i, n in enumerate(LENGTHS):
        np.testing.assert_array_equal(units.columns["shots"][i, :n], 2.0 ** np.arange(n) - 1)
        assert (units.curves[i, :n] == i).all() and (units.columns["mask"][i, :n] == 1).all()


@pytest.mark.parametrize(
    ("rows", "width"), [(1, 20), (20, 20), (21, 24), (25, 32), (33, 48), (49, 64), (65, 96), (97, 128)]
)
def test_padding_is_to_few_widths(rows, width):
    assert padded_width(rows) == width


@pytest.mark.parametrize("likelihood", [*map(with_discrepancy, COUNTS), with_discrepancy(STUDENT_T), BINOMIAL])
def test_padding_never_changes_the_density(likelihood):
    curves = curves_of(likelihood.kind)
    model = compose(LAWS["hill"], likelihood)
    together = units_of(curves, likelihood)
    for i in range(2):
        alone = units_of(curves.subset([i]), likelihood)
        assert alone.rows < together.rows
        assert alone.digests[0] == together.digests[i]
        u = prior_draw(model, jax.random.key(i), columns_of(alone, 0))
        got, want = (log_density(model, u, columns_of(units, at)) for units, at in ((together, i), (alone, 0)))
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("successes", [0, 17, 50])
def test_copied_runs_count_once(successes):
    """Greedy decoding gives every run the same counts; a curve with copies is the curve without."""
    columns = {"successes": np.full(3, successes), "trials": np.full(3, 50)}
    rows = (np.zeros(3), np.array([0.0, 1, 5]))
    once = Curves("counts", ("task",), (("t",),), rows[0], np.zeros(3), rows[1], columns, [np.nan])
    copied = Curves(
        "counts", ("task",), (("t",),), np.tile(rows[0], 4), np.repeat(np.arange(4), 3), np.tile(rows[1], 4),
        {name: np.tile(c, 4) for name, c in columns.items()}, [np.nan],
    )  # fmt: skip
    one, four = units_of(once, QUASI_BINOMIAL), units_of(copied, QUASI_BINOMIAL)
    for name, column in one.columns.items():
        np.testing.assert_allclose(four.columns[name], column, rtol=1e-12, err_msg=name)


def test_differing_runs_are_pooled_into_cells():
    curves = curves_of(runs=4)
    units = units_of(curves, QUASI_BINOMIAL)
    assert units.columns["runs"][0, 2] == 4 and units.columns["run_df"][0, 2] == 3
    k = curves.column("successes")[(curves.curve == 0) & (curves.shots == 3)]
    logits = np.log((k + 0.5) / (50 - k + 0.5))
    assert units.columns["run_variance"][0, 2] == pytest.approx(logits.var(ddof=1))
    assert units.columns["value"][0, 2] == pytest.approx(k.mean() / 50)
    np.testing.assert_array_equal(units_of(curves, BETA_BINOMIAL).columns["mask"].sum(axis=1), 4 * np.array(LENGTHS))


@pytest.mark.parametrize("likelihood", COUNTS, ids=lambda one: one.name)
def test_step_and_first_restart_with_every_curve(likelihood):
    units = units_of(curves_of(runs=2), likelihood, joint=True)
    for i in range(len(units)):
        seen = units.columns["mask"][i] > 0
        shots, first, curve = units.columns["shots"][i][seen], units.columns["first"][i][seen], units.curves[i][seen]
        np.testing.assert_array_equal(first, np.diff(curve, prepend=-1) != 0)
        for member in units.members[i]:
            own = curve == member
            np.testing.assert_allclose(np.cumsum(units.columns["step"][i][seen][own]), np.log1p(shots[own]))


def test_joint_units_group_what_differs_only_in_task():
    curves = curves_of()
    units = units_of(curves, QUASI_BINOMIAL, joint=True)
    assert units.names == ("m", "n") and units.members == ((0, 1), (2,))
    np.testing.assert_array_equal(units.columns["mask"].sum(axis=1), [10, LENGTHS[2]])
    np.testing.assert_array_equal(units.curves[0][:10], [0] * 7 + [1] * 3)
    np.testing.assert_array_equal(units.columns["task"][0][:10], [0] * 7 + [1] * 3)
    other = units_of(curves, QUASI_BINOMIAL, joint=True, task_key="model")
    assert other.names == ("a", "b") and other.members == ((0, 2), (1,))


def test_take_keeps_names_rows_and_facts_together():
    units = units_of(curves_of(), QUASI_BINOMIAL)
    taken = units.take([2, 0])
    assert taken.names == ("n / a", "m / a") and taken.digests == (units.digests[2], units.digests[0])
    for name, column in units.columns.items():
        np.testing.assert_array_equal(taken.columns[name], column[[2, 0]])


def test_masking_changes_who_a_unit_is_and_what_it_sees():
    units = units_of(curves_of(), QUASI_BINOMIAL)
    keep = units.columns["shots"] >= 1
    masked = units.masked(keep, "later")
    assert not set(masked.digests) & set(units.digests)
    np.testing.assert_array_equal(masked.columns["mask"].sum(axis=1), np.array(LENGTHS) - 1)
    np.testing.assert_array_equal(masked.columns["first_value"], units.columns["value"][:, 1])
    np.testing.assert_array_equal(units.columns["first_value"], units.columns["value"][:, 0])
    assert masked.masked(~keep, "none").columns["mask"].sum() == 0


@pytest.mark.parametrize("kind", ["counts", "prob_mean", "nll_mean"])
@each_likelihood
def test_a_likelihood_takes_its_own_kind_only(kind, likelihood):
    curves = curves_of(kind)
    if kind == likelihood.kind:
        assert len(units_of(curves, likelihood)) == 3
    else:
        with pytest.raises(InputError, match=r"WRONG.LIKELIHOOD"):
            units_of(curves, likelihood)


def test_an_unknown_task_key_is_refused():
    with pytest.raises(InputError, match="model, task"):
        units_of(curves_of(), QUASI_BINOMIAL, joint=True, task_key="dataset")
