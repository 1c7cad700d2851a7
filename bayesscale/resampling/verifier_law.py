"""The law of an imperfect verifier over problems, and its likelihood: (logit a, logit s) bivariate normal.

On problem i a sample is accepted with probability a_i, and an accepted sample is right with probability s_i:

    (logit a_i, logit s_i) ~ Normal(m, S),    S = [[v_a, r w], [r w, v_s]] + 0.25^2 I,    w = sqrt(v_a v_s),
    accepted | n ~ a^accepted (1-a)^(n-accepted),    right | labelled ~ s^right (1-s)^(labelled-right).

Problems differ by 0.25 logits at least, whatever else is learned. Written as a regression, logit s = d0 + d1 logit a + e with
d1 = S_as / S_aa: accepted answers of problems that accept seldom are wrong more often where d1 > 0.

Both latents are integrated out exactly enough by one identity. A normal variable of variance S_aa is a variable of variance
S_aa - t^2 plus independent noise of variance t^2; the former is put on a lattice of step h, whose error is 2 exp(-2 pi^2 v / h^2)
with v = t^2 (1 - t^2 / S_aa), and the noise is joined with the counts' kernel once, on the host:

    L_i = sum_jk W^a_ij D_jk W^s_ik,    W^a_ij = integral of a^c (1-a)^(n-c) Normal(logit a; x_j, t^2),

so that needles of 10^6 samples and problems without any label go through the same product of matrices. All weights are
positive. With t^2 = 0.25^2 / 2 and h = 0.25 the error is below 1.5% where nothing but the least spread is left and below
0.1% from standard deviations of 0.35 on. The lattice ends at +-12 for acceptance and at -9 and 12 for the share; the law is
that of a normal cut there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpy.typing import NDArray
from scipy.special import expit

from bayesscale.attempts import Attempts
from bayesscale.draws import Naming
from bayesscale.finding import InputError
from bayesscale.layout import Layout
from bayesscale.model import Target
from bayesscale.parameter import LogitBeta, Parameter
from bayesscale.types import Columns, CoordArray, ObsArray, Scalar, Theta

type Floats = NDArray[np.float64]

LEAST_SD = 0.25
"""Standard deviation by which logits of problems differ at least."""
NOISE = LEAST_SD / np.sqrt(2.0)
"""t, the part of the spread that is joined with the kernels."""
STEP = 0.25
ACCEPTANCE_NODES: Floats = np.arange(-12.0, 12.0 + STEP / 2, STEP)
SHARE_NODES: Floats = np.arange(-9.0, 12.0 + STEP / 2, STEP)

PARAMETERS = (
    Parameter("logit_acceptance", "m_a", "mean logit of acceptance over problems", dist.Normal(0.0, 2.5)),
    Parameter("logit_share", "m_s", "mean logit of the share right among accepted", dist.Normal(1.5, 1.5)),
    Parameter("acceptance_scale", "sqrt v_a", "how much logit acceptance varies", dist.HalfNormal(3.0)),
    Parameter("share_scale", "sqrt v_s", "how much the logit of the share varies", dist.HalfNormal(2.0)),
    Parameter(
        "logit_coupling", "logit((r+1)/2)", "how the two vary together; r has density 1 - r^2", LogitBeta(2.0, 2.0)
    ),
)
"""The unknowns of one model. Half-normal scales of 3 and 2 logits allow benchmarks that are solved always or never."""
LAYOUT = Layout(PARAMETERS)

_POINTS = np.linspace(-9.0, 9.0, 73)
"""Nodes of the inner integrals, in standard deviations around the peak of kernel times noise."""
_SCORES = np.linspace(-6.0, 6.0, 33)
"""Normal scores over which means of a logistic function are summed, by trapezoids: right to 1e-6 for a sd of 5 logits."""
_SCORE_WEIGHTS = np.exp(-0.5 * _SCORES**2) / np.exp(-0.5 * _SCORES**2).sum()
_SMALLEST = 1e-290
"""Added to a pattern's likelihood, so that a law absurdly far from the counts has a finite log density."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Kernel of each pattern times the noise around each node.

    Attributes
    ----------
    weight : (pattern, node) its integral, the largest of a pattern set to 1.
    log_scale : (pattern,) log of what the weights were divided by.
    peak, width : (pattern, node) mode of the product and its Laplace standard deviation, in logits.
    successes, failures, nodes : what they belong to.
    """

    weight: Floats
    log_scale: Floats
    peak: Floats
    width: Floats
    successes: Floats
    failures: Floats
    nodes: Floats

    def log_product(self, x: Floats, pattern: NDArray, node: NDArray) -> Floats:
        """Log of kernel times noise at logits x (..., point), one pattern and node for each leading index."""
        c, f = self.successes[pattern][..., None], self.failures[pattern][..., None]
        return _log_product(x, c, f, self.nodes[node][..., None])


def node_cells(successes: NDArray, failures: NDArray, nodes: Floats) -> Cells:
    """Integrate p^c (1-p)^f Normal(logit p; x_j, t^2) for each pattern and node, on the host.

    The product is log-concave: its peak is found by Newton's method and the trapezoidal rule laid around it.
    """
    c, f = np.asarray(successes, float), np.asarray(failures, float)
    peak, width = _peaks(c[:, None], f[:, None], nodes)
    log_weight = np.empty(peak.shape)
    for i in range(len(c)):  # one pattern at a time keeps memory small
        x = peak[i, :, None] + width[i, :, None] * _POINTS
        log_weight[i] = _log_sum(_log_product(x, c[i], f[i], nodes[:, None])) + np.log(width[i])
    log_weight += np.log(_POINTS[1] - _POINTS[0]) - np.log(NOISE * np.sqrt(2 * np.pi))
    top = log_weight.max(axis=1)
    return Cells(np.exp(log_weight - top[:, None]), top, peak, width, c, f, nodes)


def _log_product(x: Floats, c: Floats, f: Floats, node: Floats) -> Floats:
    return -c * np.logaddexp(0.0, -x) - f * np.logaddexp(0.0, x) - 0.5 * ((x - node) / NOISE) ** 2


def _log_sum(values: Floats) -> Floats:
    top = values.max(axis=-1)
    return top + np.log(np.exp(values - top[..., None]).sum(axis=-1))


def _peaks(c: Floats, f: Floats, nodes: Floats) -> tuple[Floats, Floats]:
    """Where kernel times noise peaks, and the standard deviation of its curvature there, (pattern, node)."""
    n, precision = c + f, NOISE**-2
    low = np.broadcast_to(nodes - f / precision, (len(c), len(nodes))).copy()
    high = np.broadcast_to(nodes + c / precision, low.shape).copy()
    x = np.clip(np.broadcast_to(nodes, low.shape), low, high)
    for _ in range(80):
        slope = c - n * expit(x) - precision * (x - nodes)
        low, high = np.where(slope > 0, x, low), np.where(slope > 0, high, x)
        step = x + slope / (n * expit(x) * expit(-x) + precision)
        inside = (step > low) & (step < high)
        x = np.where(inside, step, 0.5 * (low + high))
    return x, (n * expit(x) * expit(-x) + precision) ** -0.5


def patterns(attempts: Attempts, i: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct (n, accepted, labelled, right) of model i: (4, pattern), weights (pattern,), and (row,) which each row has.

    Raises
    ------
    InputError : no verifier judged the samples.
    """
    if attempts.n_accepted is None or attempts.n_labelled is None or attempts.n_correct_accepted is None:
        fix = "name the columns of accepted samples and of correct ones among them"
        raise InputError("VERIFIER-MISSING", "the attempts have no verifier's counts", fix=fix)
    rows = attempts.rows(i)
    held = (attempts.n, attempts.n_accepted, attempts.n_labelled, attempts.n_correct_accepted)
    table, which, weight = np.unique(
        np.stack([values[rows] for values in held]), axis=1, return_inverse=True, return_counts=True
    )
    return table, weight.astype(np.int64), which.reshape(-1)


def cells_of(table: NDArray[np.int64]) -> tuple[Cells, Cells]:
    """Cells of acceptance and of the share for (4, pattern) counts."""
    n, accepted, labelled, right = table
    acceptance = node_cells(accepted, n - accepted, ACCEPTANCE_NODES)
    return acceptance, node_cells(right, labelled - right, SHARE_NODES)


def verifier_columns(tables: Sequence[tuple[NDArray, NDArray]]) -> dict[str, Floats]:
    """Columns of `log_marginal` for several models' (4, pattern) counts and weights; padding has weight zero."""
    width = -(-max(len(weight) for _, weight in tables) // 32) * 32
    laid_out = []
    for table, weight in tables:
        fill = np.minimum(np.arange(width), len(weight) - 1)
        acceptance, share = cells_of(table)
        laid_out.append(
            {
                "acceptance_weight": acceptance.weight[fill],
                "share_weight": share.weight[fill],
                "log_scale": (acceptance.log_scale + share.log_scale)[fill],
                "weight": np.where(np.arange(width) < len(weight), weight[fill], 0).astype(float),
            }
        )
    return {name: np.stack([each[name] for each in laid_out]) for name in laid_out[0]}


def covariance(theta: Theta) -> tuple[jax.Array, jax.Array, jax.Array]:
    """S_aa, S_ss and S_as, the covariance of (logit a, logit s)."""
    a, s = theta["acceptance_scale"], theta["share_scale"]
    return a**2 + LEAST_SD**2, s**2 + LEAST_SD**2, coupling(theta) * a * s


def coupling(theta: Theta) -> jax.Array:
    """r = 2 sigmoid(u) - 1."""
    return jnp.tanh(0.5 * theta["logit_coupling"])


def node_probabilities(theta: Theta) -> jax.Array:
    """D, (acceptance node, share node): the law on the lattice, without the noise."""
    aa, ss, joint = covariance(theta)
    aa, ss = aa - NOISE**2, ss - NOISE**2
    determinant = aa * ss - joint**2
    x = (jnp.asarray(ACCEPTANCE_NODES) - theta["logit_acceptance"])[:, None]
    y = (jnp.asarray(SHARE_NODES) - theta["logit_share"])[None, :]
    # Written as marginal and conditional: a conditional variance never cancels.
    conditional = determinant / aa
    log_density = -0.5 * x**2 / aa - 0.5 * (y - joint / aa * x) ** 2 / conditional
    weight = jnp.exp(log_density - jax.lax.stop_gradient(jnp.max(log_density)))
    return weight / jnp.sum(weight)


def log_marginal(theta: Theta, columns: Columns) -> ObsArray:
    """(pattern,) log of E[a^accepted (1-a)^(n-accepted) s^right (1-s)^(labelled-right)], without binomial coefficients.

    The rule that ended the sampling drops out, as long as it looked at the outcomes only.
    """
    inner = jnp.asarray(columns["acceptance_weight"]) @ node_probabilities(theta)
    return jnp.log(jnp.sum(inner * columns["share_weight"], axis=-1) + _SMALLEST) + columns["log_scale"]


def derived(theta: Theta) -> dict[str, jax.Array]:
    """What the law is read by.

    acceptance : mean of a over new problems.
    single_sample : mean of a s, the accuracy of one sample that is returned if accepted.
    ceiling : mean of s, the accuracy of resampling without end.
    acceptance_sd, share_sd, correlation : of logit a and logit s, the least spread included.
    slope : d1, logits of share per logit of acceptance.
    """
    aa, ss, joint = covariance(theta)
    z, weight = jnp.asarray(_SCORES), jnp.asarray(_SCORE_WEIGHTS)
    x = theta["logit_acceptance"] + jnp.sqrt(aa) * z
    y = theta["logit_share"] + (joint / jnp.sqrt(aa) * z)[:, None] + jnp.sqrt(ss - joint**2 / aa) * z
    accepted, right = jax.nn.sigmoid(x), jnp.sum(weight * jax.nn.sigmoid(y), axis=-1)
    return {
        "acceptance": jnp.sum(weight * accepted),
        "single_sample": jnp.sum(weight * accepted * right),
        "ceiling": jnp.sum(weight * right),
        "acceptance_sd": jnp.sqrt(aa),
        "share_sd": jnp.sqrt(ss),
        "correlation": joint / jnp.sqrt(aa * ss),
        "slope": joint / aa,
    }


@dataclass(frozen=True)
class VerifierModel:
    """The law seen through counts, for one model of the log."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return PARAMETERS

    def log_likelihood(self, theta: Theta, columns: Columns) -> Scalar:
        """sum_patterns weight * log marginal likelihood."""
        return jnp.sum(columns["weight"] * log_marginal(theta, columns))


MODEL = VerifierModel()


def log_density(u: CoordArray, columns: Columns) -> Scalar:
    """Unnormalised log posterior density on the unconstrained axis."""
    theta, log_prior = LAYOUT.values(u, {})
    return log_prior + MODEL.log_likelihood(theta, columns)


def prior_draw(key: jax.Array, columns: Columns) -> CoordArray:
    """Draw a flat vector from the prior."""
    return LAYOUT.prior_draw(key, {})


TARGET = Target("verifier", LAYOUT.dimension, log_density, prior_draw)


def named_values(u: CoordArray, columns: Columns) -> dict[str, jax.Array]:
    """Parameters and derived quantities of a flat vector."""
    theta, _ = LAYOUT.values(u, {})
    return theta | derived(theta)


NAMING = Naming(named_values, prior_draw)
