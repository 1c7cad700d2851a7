"""Likelihoods: how an observation scatters around the law.

Each works on a link scale: eta = logit p for accuracies and probabilities, eta = log NLL for negative log-likelihoods. A
smooth departure delta from the law lives on that scale too (see `discrepancy`), so a likelihood is asked for

* ``log_prob(eta, mean, columns, theta)``: log density of each row at eta = link(p) + delta; `mean` is the law alone, from
  which noise variances are taken;
* ``site(mean, columns, theta)``: (y, v), a Gaussian for eta that stands in for the row. When `gaussian` it *is* the row;
* ``extra(mean, columns, theta)``: the part of the log density that does not see delta (the spread between runs);
* ``scatter(eta, mean, columns, theta)``: the numbers that new observations are drawn with, a centre and an sd mostly;
* ``draw(rng, columns, *scatter)``: new observations on the value scale. On the host: NumPy draws betas and binomials many
  times faster than JAX on a CPU, and nothing is compiled.

Rows are either `cell` (all runs of one curve at one shot count) or `run` (one run). A likelihood returns log densities and
draws, it never calls numpyro.sample.

Quasi-binomial. With N trials per run, R runs, y the logit of the mean accuracy and s2 the run variance on the logit scale,

    s2 ~ v chi2(R-1) / (R-1),    y ~ Normal(logit p + delta, v / R),    v = psi(n) / (N p (1-p)),
    log psi(n) = d0 + d1 log((n + 1) / 21).

psi is the dispersion relative to a binomial. Real run variance falls with shots and ends below binomial, because every run
answers the same items; a beta-binomial cannot follow it there.

Heavy tails. `heavy_tailed` turns a likelihood that is Gaussian on the link scale into a Student-t with the same centre and
its standard deviation as scale, so that single bad points weigh little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.nn import sigmoid
from numpy.typing import NDArray
from scipy.special import expit

from bayesscale.curves import Kind
from bayesscale.logarithms import log, log1p, log_sigmoid
from bayesscale.parameter import Parameter
from bayesscale.special import beta_binomial_log_kernel
from bayesscale.types import Columns, LogMean, ObsArray, Scalar, Theta

Rows = Literal["cell", "run"]


@dataclass(frozen=True, eq=False)
class Likelihood:
    """One observation model; see the module's docstring for the functions."""

    name: str
    kind: Kind
    rows: Rows
    meaning: str
    parameters: tuple[Parameter, ...]
    log_prob: Callable[[ObsArray, LogMean, Columns, Theta], ObsArray]
    site: Callable[[LogMean, Columns, Theta], tuple[ObsArray, ObsArray]]
    scatter: Callable[[ObsArray, LogMean, Columns, Theta], tuple[ObsArray, ...]]
    draw: Callable[..., NDArray]
    extra: Callable[[LogMean, Columns, Theta], ObsArray] = lambda mean, columns, theta: jnp.zeros_like(mean[0])
    gaussian: bool = False
    df: float | None = None
    """Degrees of freedom where the row is Student-t around its site, with the site's variance as squared scale."""
    discrepancy: Parameter | None = None

    @property
    def on_link_scale(self) -> bool:
        """Whether `log_prob` is a density of the link's value y, rather than of the value or the count."""
        return self.gaussian or self.df is not None

    @property
    def all_parameters(self) -> tuple[Parameter, ...]:
        return self.parameters + ((self.discrepancy,) if self.discrepancy else ())


def link(kind: Kind, mean: LogMean) -> ObsArray:
    """Map a law's value to the link scale: logit p, or log NLL = log(-log p) for mean NLLs."""
    log_p, log_q = mean
    return log(jnp.maximum(-log_p, 1e-300)) if kind == "nll_mean" else log_p - log_q


def inverse_link(kind: Kind, eta: ObsArray) -> ObsArray:
    """Map the link scale to the value scale: a probability, or an NLL in nats."""
    return jnp.exp(eta) if kind == "nll_mean" else sigmoid(eta)


def log_link_jacobian(kind: Kind, value: ObsArray) -> ObsArray:
    """log |d link / d value|, to turn a density on the link scale into one on the value scale."""
    return -log(value) if kind == "nll_mean" else -log(value) - log1p(-value)


LARGEST_LOG_VARIANCE = 600.0
"""Log of the largest variance of a logit that is told apart; beyond it p is 0 or 1 to the last digit."""


def binomial_variance(mean: LogMean, trials: ObsArray | float) -> ObsArray:
    """Delta-method variance of the logit of a proportion, 1 / (N p (1-p)), kept finite at both ends."""
    return jnp.exp(jnp.minimum(-mean[0] - mean[1], LARGEST_LOG_VARIANCE)) / trials


def normal_log_prob(y: ObsArray, centre: ObsArray, variance: ObsArray) -> ObsArray:
    """log Normal(y; centre, variance)."""
    return -0.5 * ((y - centre) ** 2 / variance + log(2.0 * math.pi * variance))


STUDENT_DF = 4.0


def heavy_tailed(likelihood: Likelihood, name: str, meaning: str, df: float = STUDENT_DF) -> Likelihood:
    """Give the rows of a Gaussian likelihood Student-t tails: y ~ eta + sqrt(v) t(df), with the site's y and v."""

    def log_prob(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
        y, v = likelihood.site(mean, columns, theta)
        return dist.StudentT(df, eta, jnp.sqrt(v)).log_prob(y)

    def draw(rng: np.random.Generator, columns: Columns, eta: NDArray, sd: NDArray) -> NDArray:
        y = eta + sd * rng.standard_t(df, np.shape(eta))
        return np.exp(y) if likelihood.kind == "nll_mean" else expit(y)

    return replace(likelihood, name=name, meaning=meaning, log_prob=log_prob, draw=draw, gaussian=False, df=df)


# Discrepancy ----------------------------------------------------------------------------------------------------------

SIGMA_DELTA = Parameter(
    "sigma_delta",
    "σ_δ",
    "sd of the curve's smooth departure from the law per square-root e-fold of 1+n",
    dist.HalfNormal(0.15),
    spread=0.5,
)


def with_discrepancy(likelihood: Likelihood, scale: float = 0.15) -> Likelihood:
    """Add a Brownian departure delta from the law in log(1+n), zero at n = 0, with sd sigma_delta ~ HalfNormal(scale)."""
    return replace(likelihood, discrepancy=replace(SIGMA_DELTA, prior=dist.HalfNormal(scale)))


def without_discrepancy(likelihood: Likelihood) -> Likelihood:
    """Take the departure away: the law is then exact up to noise."""
    return replace(likelihood, discrepancy=None)


# Counts ---------------------------------------------------------------------------------------------------------------

PSI_REFERENCE_SHOTS = 20.0


def log_shots_ratio(columns: Columns) -> ObsArray:
    """log((n+1)/21): zero at the reference of 20 shots, finite at none."""
    return log1p(columns["shots"]) - math.log1p(PSI_REFERENCE_SHOTS)


def quasi_log_variance(mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    """log of the variance of one run's logit accuracy, psi(n) / (N p (1-p)), kept finite at both ends."""
    log_psi = theta["d0"] + theta["d1"] * log_shots_ratio(columns)
    return log_psi + jnp.minimum(-mean[0] - mean[1], LARGEST_LOG_VARIANCE) - log(columns["trials"])


def quasi_site(mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ObsArray]:
    return columns["y"], jnp.exp(quasi_log_variance(mean, columns, theta)) / columns["runs"]


def quasi_log_prob(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    y, variance = quasi_site(mean, columns, theta)
    return normal_log_prob(y, eta, variance)


def quasi_extra(mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    """log density of the run variance, s2 ~ v chi2(df) / df; nothing where the runs say nothing (df = 0)."""
    df, s2 = columns["run_df"], columns["run_variance"]
    log_v = quasi_log_variance(mean, columns, theta)
    return columns["run_constant"] - 0.5 * df * (log_v + s2 * jnp.exp(-log_v))


def quasi_scatter(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ...]:
    return eta, jnp.sqrt(quasi_site(mean, columns, theta)[1])


def draw_logit_normal(rng: np.random.Generator, columns: Columns, eta: NDArray, sd: NDArray) -> NDArray:
    return expit(draw_normal(rng, columns, eta, sd))


D0 = Parameter("d0", "d₀", "log dispersion against binomial at 20 shots", dist.Normal(0.5, 1.0), spread=0.5)
D1 = Parameter("d1", "d₁", "change of log dispersion per e-fold of shots", dist.Normal(-0.2, 0.3), spread=0.1)

QUASI_BINOMIAL = Likelihood(
    name="quasi_binomial",
    kind="counts",
    rows="cell",
    meaning="mean and run variance of counts, dispersion psi(n) may fall below binomial",
    parameters=(D0, D1),
    log_prob=quasi_log_prob,
    site=quasi_site,
    scatter=quasi_scatter,
    draw=draw_logit_normal,
    extra=quasi_extra,
    gaussian=True,
)


QUASI_STUDENT = heavy_tailed(
    QUASI_BINOMIAL,
    "quasi_student",
    f"as quasi_binomial, the mean Student-t with {STUDENT_DF:g} degrees of freedom: single bad points weigh little",
)


def binomial_log_prob(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    k, n = columns["successes"], columns["trials"]
    return columns["log_choose"] + k * log_sigmoid(eta) + (n - k) * log_sigmoid(-eta)


def binomial_site(mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ObsArray]:
    return columns["y"], binomial_variance(mean, columns["trials"])


def binomial_scatter(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ...]:
    return (sigmoid(eta),)


def draw_share(rng: np.random.Generator, columns: Columns, p: NDArray) -> NDArray:
    trials, known = np.rint(np.asarray(columns["trials"])), np.isfinite(p)
    return np.where(known, rng.binomial(trials.astype(np.int64), np.where(known, p, 0.5)) / trials, np.nan)


BINOMIAL = Likelihood(
    name="binomial",
    kind="counts",
    rows="run",
    meaning="independent trials",
    parameters=(),
    log_prob=binomial_log_prob,
    site=binomial_site,
    scatter=binomial_scatter,
    draw=draw_share,
)


def concentration(columns: Columns, theta: Theta) -> ObsArray:
    """phi = a + b, constant or a power of shots."""
    slope = theta.get("log_phi_slope", 0.0)
    return jnp.exp(jnp.clip(theta["log_phi"] + slope * log_shots_ratio(columns), -20.0, 16.0))


def beta_binomial_scatter(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ...]:
    phi = concentration(columns, theta)
    return phi * sigmoid(eta) + 1e-12, phi * sigmoid(-eta) + 1e-12


def beta_binomial_rows(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    a, b = beta_binomial_scatter(eta, mean, columns, theta)
    return columns["log_choose"] + beta_binomial_log_kernel(columns["successes"], columns["trials"], a, b)


def beta_binomial_site(mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ObsArray]:
    phi, n = concentration(columns, theta), columns["trials"]
    return columns["y"], binomial_variance(mean, n) * (1.0 + (n - 1.0) / (1.0 + phi))


def draw_beta(rng: np.random.Generator, columns: Columns, a: NDArray, b: NDArray) -> NDArray:
    known = np.isfinite(a) & np.isfinite(b)
    return np.where(known, rng.beta(np.where(known, a, 1.0), np.where(known, b, 1.0)), np.nan)


def draw_beta_binomial(rng: np.random.Generator, columns: Columns, a: NDArray, b: NDArray) -> NDArray:
    return draw_share(rng, columns, draw_beta(rng, columns, a, b))


LOG_PHI = Parameter(
    "log_phi", "log φ", "log concentration a+b between runs (at 20 shots)", dist.Normal(4.0, 1.5), spread=0.5
)
PHI_SLOPE = Parameter("log_phi_slope", "φ'", "change of log φ per e-fold of shots", dist.Normal(0.2, 0.3), spread=0.1)

BETA_BINOMIAL = Likelihood(
    name="beta_binomial",
    kind="counts",
    rows="run",
    meaning="runs scatter with one concentration phi",
    parameters=(LOG_PHI,),
    log_prob=beta_binomial_rows,
    site=beta_binomial_site,
    scatter=beta_binomial_scatter,
    draw=draw_beta_binomial,
)
BETA_BINOMIAL_SHOTS = replace(
    BETA_BINOMIAL,
    name="beta_binomial_shots",
    meaning="runs scatter with a concentration phi that changes with shots",
    parameters=(LOG_PHI, PHI_SLOPE),
)


# Mean probabilities ---------------------------------------------------------------------------------------------------

LOG_TAU = Parameter("log_tau", "log τ", "log of the scatter beyond the known standard error", dist.Normal(-4.0, 1.5))


def tau_squared(theta: Theta) -> Scalar:
    return jnp.exp(2.0 * theta["log_tau"])


def beta_scatter(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ...]:
    """Beta(a, b) with mean p and variance se^2 + tau^2 p (1-p), kept below p (1-p)."""
    p, q = sigmoid(eta), sigmoid(-eta)
    share = jnp.minimum(columns["se"] ** 2 / (p * q + 1e-300) + tau_squared(theta), 0.999)
    phi = 1.0 / share - 1.0
    return phi * p + 1e-12, phi * q + 1e-12


def beta_log_prob(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    a, b = beta_scatter(eta, mean, columns, theta)
    value = columns["value"]
    return (a - 1.0) * log(value) + (b - 1.0) * log1p(-value) - jax.scipy.special.betaln(a, b)


def probability_site(mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ObsArray]:
    inverse_pq = binomial_variance(mean, 1.0)
    return columns["y"], columns["se"] ** 2 * inverse_pq**2 + tau_squared(theta) * inverse_pq


BETA = Likelihood(
    name="beta",
    kind="prob_mean",
    rows="run",
    meaning="mean probability with known standard error and free over-dispersion",
    parameters=(LOG_TAU,),
    log_prob=beta_log_prob,
    site=probability_site,
    scatter=beta_scatter,
    draw=draw_beta,
)


def normal_probability_log_prob(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    return normal_log_prob(columns["value"], sigmoid(eta), columns["se"] ** 2 + tau_squared(theta))


def normal_probability_site(mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ObsArray]:
    inverse_pq = binomial_variance(mean, 1.0)
    return columns["y"], (columns["se"] ** 2 + tau_squared(theta)) * inverse_pq**2


def normal_probability_scatter(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ...]:
    return sigmoid(eta), jnp.sqrt(columns["se"] ** 2 + tau_squared(theta))


def draw_normal(rng: np.random.Generator, columns: Columns, centre: NDArray, sd: NDArray) -> NDArray:
    return centre + sd * rng.standard_normal(np.shape(centre))


NORMAL = Likelihood(
    name="normal",
    kind="prob_mean",
    rows="run",
    meaning="mean probability, normal with known standard error plus a common scatter",
    parameters=(LOG_TAU,),
    log_prob=normal_probability_log_prob,
    site=normal_probability_site,
    scatter=normal_probability_scatter,
    draw=draw_normal,
)


# Mean NLL -------------------------------------------------------------------------------------------------------------


def log_nll_variance(columns: Columns, theta: Theta) -> ObsArray:
    """Variance of log NLL: tau^2 plus the known standard error by the delta method, (se / NLL)^2."""
    return tau_squared(theta) + (columns["se"] / columns["value"]) ** 2


def log_nll_site(mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ObsArray]:
    return columns["y"], log_nll_variance(columns, theta)


def log_normal_log_prob(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    return normal_log_prob(columns["y"], eta, log_nll_variance(columns, theta))


def log_normal_scatter(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ...]:
    return eta, jnp.sqrt(log_nll_variance(columns, theta))


def draw_log_normal(rng: np.random.Generator, columns: Columns, eta: NDArray, sd: NDArray) -> NDArray:
    return np.exp(draw_normal(rng, columns, eta, sd))


LOG_NORMAL = Likelihood(
    name="log_normal",
    kind="nll_mean",
    rows="run",
    meaning="log NLL is normal, variance tau^2 + (se/NLL)^2",
    parameters=(LOG_TAU,),
    log_prob=log_normal_log_prob,
    site=log_nll_site,
    scatter=log_normal_scatter,
    draw=draw_log_normal,
    gaussian=True,
)

STUDENT_T = heavy_tailed(
    LOG_NORMAL,
    "student_t",
    f"log NLL is Student-t with {STUDENT_DF:g} degrees of freedom: single bad points weigh little",
)


def normal_nll_log_prob(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> ObsArray:
    return normal_log_prob(columns["value"], jnp.exp(eta), columns["se"] ** 2 + tau_squared(theta))


def normal_nll_site(mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ObsArray]:
    return columns["y"], (columns["se"] ** 2 + tau_squared(theta)) / columns["value"] ** 2


def normal_nll_scatter(eta: ObsArray, mean: LogMean, columns: Columns, theta: Theta) -> tuple[ObsArray, ...]:
    return jnp.exp(eta), jnp.sqrt(columns["se"] ** 2 + tau_squared(theta))


NORMAL_NLL = Likelihood(
    name="normal_nll",
    kind="nll_mean",
    rows="run",
    meaning="NLL, normal with known standard error plus a common scatter",
    parameters=(LOG_TAU,),
    log_prob=normal_nll_log_prob,
    site=normal_nll_site,
    scatter=normal_nll_scatter,
    draw=draw_normal,
)

LIKELIHOODS: Mapping[str, Likelihood] = {
    likelihood.name: likelihood
    for likelihood in (
        QUASI_BINOMIAL,
        QUASI_STUDENT,
        BETA_BINOMIAL,
        BETA_BINOMIAL_SHOTS,
        BINOMIAL,
        BETA,
        NORMAL,
        LOG_NORMAL,
        STUDENT_T,
        NORMAL_NLL,
    )
}


def default_likelihood(kind: Kind, *, replicated: bool) -> Likelihood:
    """Return the likelihood used when none is named; `replicated` says whether any point was measured in several runs."""
    if kind == "counts":
        return QUASI_BINOMIAL if replicated else BETA_BINOMIAL_SHOTS
    return {"prob_mean": BETA, "nll_mean": LOG_NORMAL}[kind]
