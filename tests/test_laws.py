"""The contract every law keeps, and that what a law reports is what its curve does."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax, logit

from bayesscale.laws import DEFAULT_LAW, DEFAULT_LAWS, LAWS
from bayesscale.laws.single import FORMS

DRAWS, TASKS = 128, 3
SHOTS = np.r_[0.0, np.logspace(0, 6, 25)]
SIZES = {"task": TASKS, "rival": TASKS, "hypothesis": TASKS + 1}
FACTS = {"chance": jnp.asarray(0.25), "first_value": jnp.asarray(0.3)}

# Module scope runs the tests of one law after another, so that parallel workers seldom compile the same law.
each_law = pytest.mark.parametrize("name", LAWS, scope="module")
SINGULAR = ("power", "broken_power")
"""Laws with an infinite NLL at zero shots, whatever their parameters."""
NOT_MONOTONE: tuple[str, ...] = ()
"""Laws that may fall with more shots. There are none: for a mixture dp/dn = K g'(n) Cov_w(log P, P) >= 0."""


def shots_for(law):
    return SHOTS[1:] if law.singular_at_zero else SHOTS


def rows_for(law):
    """Arguments before theta: shots, and for a joint law every task at every shot count."""
    if not law.joint:
        return (shots_for(law),)
    return np.tile(SHOTS, TASKS), np.repeat(np.arange(TASKS), len(SHOTS))


@cache
def prior_thetas(name, draws=DRAWS):
    keys = jax.random.split(jax.random.key(1), len(LAWS[name].parameters))
    return {
        p.name: p.prior_given(FACTS).sample(key, (draws, *p.shape(SIZES)))
        for p, key in zip(LAWS[name].parameters, keys, strict=True)
    }


@cache
def evaluated(name):
    """(log p, log(1-p)) at every prior draw and row, their Jacobians, and derived quantities: compiled once."""
    law = LAWS[name]

    def one_row(theta, *row):
        pair = law.log_mean(*(jnp.asarray(x)[None] for x in row), **theta)
        return jnp.concatenate(pair), jnp.concatenate(pair)

    by_row = jax.vmap(jax.jacfwd(one_row, has_aux=True), in_axes=(None, *(0 for _ in rows_for(law))))

    def one_draw(theta):
        return *by_row(theta, *rows_for(law)), dict(law.derived(**theta))

    slopes, values, derived = jax.tree.map(np.asarray, jax.jit(jax.vmap(one_draw))(prior_thetas(name)))
    return values[..., 0], values[..., 1], slopes, derived


def derived_of(name):
    return evaluated(name)[3]


def test_the_table_names_its_laws():
    assert all(name == law.name for name, law in LAWS.items())
    assert DEFAULT_LAW in DEFAULT_LAWS and set(DEFAULT_LAWS) <= set(LAWS)
    assert {name for name, law in LAWS.items() if law.singular_at_zero} == set(SINGULAR)


@each_law
def test_a_law_says_what_it_is(name):
    law = LAWS[name]
    assert law.equation and law.reference
    assert law.family in ("bayesian", "baseline")
    names = [p.name for p in law.parameters]
    assert len(set(names)) == len(names)
    assert all(p.name.isidentifier() and p.symbol and p.meaning and p.spread > 0 for p in law.parameters)
    assert {dim for p in law.parameters for dim in p.dims} <= set(SIZES)
    assert law.joint == any(p.dims for p in law.parameters)


@each_law
def test_values_and_gradients_are_finite(name):
    log_p, log_q, slopes, _ = evaluated(name)
    assert np.isfinite(log_p).all() and np.isfinite(log_q).all()
    for parameter, slope in slopes.items():
        assert np.isfinite(slope).all(), parameter


@each_law
def test_the_two_logs_are_of_one_probability(name):
    log_p, log_q, *_ = evaluated(name)
    assert (log_p <= 0).all() and (log_q <= 0).all()
    assert np.abs(np.exp(log_p) + np.exp(log_q) - 1.0).max() < 1e-12


@each_law
def test_mapping_changes_nothing_and_the_shape_is_the_inputs(name):
    law, (log_p, log_q, *_) = LAWS[name], evaluated(name)
    theta = {key: value[0] for key, value in prior_thetas(name).items()}
    pair = jax.jit(law.log_mean)(*rows_for(law), **theta)
    for got, want in zip(pair, (log_p[0], log_q[0]), strict=True):
        assert got.shape == rows_for(law)[0].shape
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


@each_law
def test_more_shots_never_hurt(name):
    log_p, log_q = (part.reshape(DRAWS, -1, len(shots_for(LAWS[name]))) for part in evaluated(name)[:2])
    # Rounding of a curve that has levelled off is allowed for.
    rises = min(np.diff(log_p).min(), (-np.diff(log_q)).min()) > -1e-12 * (1 + np.abs(log_q).max())
    assert rises == (name not in NOT_MONOTONE)


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_laws_are_singular_at_zero(name):
    law = LAWS[name]
    theta = {p.name: np.zeros(()) for p in law.parameters}
    n = np.array([1e-2, 1e-4, 1e-8, 1e-16])
    nll = -np.asarray(law.log_mean(n, **theta)[0])
    assert (np.diff(nll) > 0).all() and nll[-1] > 30
    # The stand-in at exactly zero stays finite, so that a padded row cannot poison a gradient.
    assert np.isfinite(law.log_mean(np.zeros(1), **theta)[0]).all()


@each_law
def test_prior_curves_do_not_pile_up_at_the_ends(name):
    log_p, log_q, *_ = evaluated(name)
    shown = rows_for(LAWS[name])[0] <= 1000
    p = np.exp(log_p[:, shown])
    assert ((p < 1e-3).all(axis=1) | (p > 0.999).all(axis=1)).mean() < 0.05


@each_law
def test_derived_quantities_are_named_and_finite(name):
    law, derived = LAWS[name], derived_of(name)
    # Laws of one module share a table of meanings and may report a part of it (a matrix P in place of beta, say).
    assert derived and set(derived) <= set(law.derived_meaning)
    assert not set(derived) & {p.name for p in law.parameters}
    for quantity, value in derived.items():
        assert value.shape[0] == DRAWS
        # Half-saturation may lie beyond any number of shots; an infinite NLL scale overflows in the same way.
        assert not np.isnan(value).any(), quantity
        assert np.isfinite(value).all() or quantity == "n50", quantity


# What a law reports, put into the published equation, gives the law's curve -------------------------------------------


# What a law reports, put into its published equation, gives the law's curve ------------------------------------------


def g(n, lam):
    """Evidence after n shots, ((1+n)^lambda - 1) / lambda."""
    return np.log1p(n) if lam == 0 else np.expm1(lam * np.log1p(n)) / lam


def scoring(n, q):
    """The row-tied identity, for scalars or for one entry per task."""
    z = logit(q["rho"]) + q["K"] * np.log(q["gamma"] / q["beta"]) * g(n, q["lambda"])
    return q["beta"] + (q["gamma"] - q["beta"]) * expit(z)


def hill(n, q):
    with np.errstate(divide="ignore"):
        return q["floor"] + (q["gamma"] - q["floor"]) * expit(q["s"] * np.log(n / q["n50"]))


def broken_power(n, q):
    bend = np.exp(-(q["c1"] - q["c0"]) * q["f"] * np.logaddexp(0, np.log(n / q["d"]) / q["f"]))
    return np.exp(-q["E"] - np.exp(q["log_A"]) * n ** -q["c0"] * bend)


EQUATIONS = {
    "power": lambda n, q: np.exp(-np.exp(q["C"]) * n ** -q["alpha"] - q["E"]),
    "bounded_power": lambda n, q: np.exp(-np.exp(q["C"]) * (1 + n / q["n_c"]) ** -q["alpha"] - q["E"]),
    "logistic": lambda n, q: np.exp(-np.exp(q["L"]) / (1 + (n / q["n50"]) ** q["s"]) - q["E"]),
    "hill": hill,
    "rectified": lambda n, q: np.exp(
        -((np.exp(q["log_B"]) / (np.exp(q["log_D_l"]) + n ** q["s"]) + q["E"]) ** q["alpha"])
    ),
    "broken_power": broken_power,
} | {f"{form}{tie}": scoring for form in FORMS for tie in ("", "_strict")}


def keeps_digits(q):
    """Whether the derived quantities determine the curve to ten digits.

    logit(rho) and log(gamma/beta) do not where rho is near 0 or 1 and beta near gamma; n_c = n50 / (2^(1/alpha) - 1)
    underflows for the smallest exponents; and log 0 is taken as log 1e-30, which a slope below 0.4 brings in sight.
    """
    scoring_law = "rho" not in q or (1e-9 < q["rho"] < 1 - 1e-4 and q["beta"] < 0.99 * q["gamma"])
    return scoring_law and q.get("n_c", 1.0) > 1e-100 and q.get("s", 1.0) > 0.4


@pytest.mark.parametrize("name", EQUATIONS, scope="module")
def test_single_laws_follow_their_published_equation(name):
    log_p, n, derived = evaluated(name)[0], shots_for(LAWS[name]), derived_of(name)
    kept = [draw for draw in range(DRAWS) if keeps_digits({key: value[draw] for key, value in derived.items()})]
    assert len(kept) > DRAWS // 4
    for draw in kept:
        want = EQUATIONS[name](n, {key: value[draw] for key, value in derived.items()})
        np.testing.assert_allclose(np.exp(log_p[draw]), want, rtol=1e-10, atol=1e-10)


def test_every_law_is_held_to_an_equation():
    joint = {f"{kind}_{form}" for kind in ("row_free", *TABLES) for form in FORMS}
    assert set(LAWS) == set(EQUATIONS) | joint


@pytest.mark.parametrize("name", [f"{form}{tie}" for form in FORMS for tie in ("", "_strict")], scope="module")
def test_bayesian_laws_report_their_start_and_middle(name):
    q, log_p = derived_of(name), evaluated(name)[0]
    np.testing.assert_allclose(np.exp(log_p[:, 0]), q["p0"], rtol=1e-12)
    middle = (q["n50"] > 1e-3) & (q["n50"] < 1e6) & (q["beta"] < 0.99 * q["gamma"])
    half = jax.jit(jax.vmap(lambda n, theta: LAWS[name].log_mean(n, **theta)[0]))(q["n50"], prior_thetas(name))
    assert middle.sum() > DRAWS // 4
    np.testing.assert_allclose(np.exp(half)[middle], (0.5 * (q["gamma"] + q["beta"]))[middle], rtol=1e-9)


# Joint laws against sums written out ----------------------------------------------------------------------------------


def row_table(theta):
    """P tied by generating task, (task, hypothesis)."""
    gamma = expit(theta["logit_gamma"])
    table = np.repeat((gamma * expit(theta["logit_ratio"]))[:, None], TASKS + 1, axis=1)
    np.fill_diagonal(table, gamma)
    return table


def column_table(theta):
    """P tied by hypothesis; the lumped one has no level as the truth."""
    gamma = expit(theta["logit_gamma"])
    table = np.repeat((np.append(gamma, 1.0) * expit(theta["logit_ratio"]))[None], TASKS, axis=0)
    np.fill_diagonal(table, gamma)
    return table


def original_table(theta):
    """P with free rivals: row m of the coordinates lists the hypotheses other than m, in order."""
    gamma, ratio = expit(theta["logit_gamma"]), expit(theta["logit_ratio"])
    return np.array([np.insert(gamma[m] * ratio[m], m, gamma[m]) for m in range(TASKS)])


TABLES = {"row": row_table, "column": column_table, "original": original_table}


def mixture(n, table, log_prior, k, lam):
    """p_m(n) = sum_j w_mj P[m, j], w_mj proportional to rho_j P[m, j]^(K g(n)); (task, shots)."""
    log_weight = log_prior + k * g(n, lam)[:, None] * np.log(table)[:, None, :]
    return np.einsum("mnh,mh->mn", np.exp(log_softmax(log_weight, axis=-1)), table)


def joint_draws(name):
    """Each prior draw of a joint law: parameters, log prior over hypotheses, K, lambda and curves (task, shots)."""
    form = name.split("_", 2 if "free" in name else 1)[-1]
    curves = np.exp(evaluated(name)[0]).reshape(DRAWS, TASKS, len(SHOTS))
    for draw in range(DRAWS):
        theta = {key: np.asarray(value[draw]) for key, value in prior_thetas(name).items()}
        lam = expit(theta["logit_lambda"]) if FORMS[form] is None else FORMS[form]
        yield theta, log_softmax(np.append(theta["prior_logits"], 0.0)), np.exp(theta["log_K"]), lam, curves[draw]


@pytest.mark.parametrize("name", [f"{kind}_{form}" for form in FORMS for kind in TABLES], scope="module")
def test_joint_laws_are_the_general_mixture(name):
    few = SHOTS <= 1e3
    for theta, log_prior, k, lam, got in joint_draws(name):
        want = mixture(SHOTS, TABLES[name.split("_")[0]](theta), log_prior, k, lam)
        np.testing.assert_allclose(got[:, few], want[:, few], rtol=1e-12, atol=1e-12)
        # Evidence of a million shots is a number near 1e6, whose last digits weigh hypotheses of nearly equal level.
        np.testing.assert_allclose(got, want, rtol=1e-8)


@pytest.mark.parametrize("name", [f"row_free_{form}" for form in FORMS], scope="module")
def test_the_free_row_law_scales_each_slope(name):
    for theta, log_prior, k, lam, got in joint_draws(name):
        gamma, rho = expit(theta["logit_gamma"]), np.exp(log_prior[:-1])
        slope = k * np.exp(np.exp(theta["log_tau"]) * theta["slope_z"])
        q = {"rho": rho, "K": slope, "gamma": gamma, "beta": gamma * expit(theta["logit_ratio"]), "lambda": lam}
        np.testing.assert_allclose(got, scoring(SHOTS[:, None], q).T, rtol=1e-8)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.joint], scope="module")
def test_joint_laws_report_a_simplex_and_levels(name):
    q, kind = derived_of(name), name.split("_")[0]
    for draw, (theta, log_prior, k, lam, _) in enumerate(joint_draws(name)):
        np.testing.assert_allclose(q["rho"][draw], np.exp(log_prior), rtol=1e-12)
        np.testing.assert_allclose([q["K"][draw], q["lambda"][draw]], [k, lam], rtol=1e-12)
        table = TABLES[kind](theta)
        np.testing.assert_allclose(q["gamma"][draw], np.diag(table), rtol=1e-12)
        if kind == "original":
            np.testing.assert_allclose(q["P"][draw], table, rtol=1e-12)
        else:
            want = table[:, -1] if kind == "row" else np.r_[table[1, 0], table[0, 1:]]
            np.testing.assert_allclose(q["beta"][draw], want, rtol=1e-12)


def test_two_logs_keep_their_digits_at_both_ends():
    """An accuracy of 1 - 1e-12 and one of 1e-12 both have a logit."""
    n = np.array([1e-12, 1e12])
    theta = {"logit_ceiling": 40.0, "logit_zero_ratio": -40.0, "log_n50": 0.0, "log_slope": 0.0}
    log_p, log_q = LAWS["hill"].log_mean(n, **{key: jnp.asarray(value) for key, value in theta.items()})
    np.testing.assert_allclose([log_p[0], log_q[1]], np.log(1e-12), rtol=1e-6)


COORDINATES = [
    (name, kind) for name, law in LAWS.items() for kind in ("rising", "level") if getattr(law, kind) is not None
]


@pytest.mark.parametrize(("name", "kind"), COORDINATES, scope="module")
@pytest.mark.parametrize("first", [0.0, 2.0])
def test_coordinates_are_a_change_of_variables(name, kind, first):
    """There and back again, with the determinant of automatic differentiation, over prior draws and ranges of shots."""
    law, facts = LAWS[name], {"first_shots": jnp.asarray(first), "last_shots": jnp.asarray(700.0)}
    coordinates = getattr(law, kind)
    if law.singular_at_zero and first == 0:
        pytest.skip(f"{name} is infinite at no shots, and is not fitted there")
    theta = jnp.stack([prior_thetas(name)[p.name] for p in law.parameters])
    w = coordinates.from_parameters(theta, facts)
    back, log_determinant = coordinates.to_parameters(w, facts)
    np.testing.assert_allclose(back, theta, rtol=1e-6, atol=1e-6)
    jacobian = jax.vmap(jax.jacfwd(lambda w: coordinates.to_parameters(w, facts)[0]), in_axes=1)(w)
    np.testing.assert_allclose(log_determinant, jnp.linalg.slogdet(jacobian)[1], rtol=1e-6, atol=1e-6)
