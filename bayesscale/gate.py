"""The gate: checks before sampling and after, each a `Finding`.

Passing means finite *and* within the threshold: a NaN never passes. Grades: "fail" says do not use, "warn" says look,
"info" says know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.special import logit, ndtri

from bayesscale.curves import Kind
from bayesscale.finding import Finding
from bayesscale.inference import diagnostics
from bayesscale.model import Model, law_log_mean, prior_draw, theta_of
from bayesscale.programs import Program
from bayesscale.types import Columns

RHAT_WARN, RHAT_FAIL = 1.01, 1.05
ESS_WARN, ESS_FAIL = 400.0, 100.0
DIVERGENT_WARN, DIVERGENT_FAIL = 0.001, 0.01
BFMI_WARN = 0.3
SATURATED_WARN = 0.01
CONTRACTION_IDENTIFIED = 0.3
DROP_Z = 3.0
DROP_FALSE_ALARM = 0.05
PREDICTIVE_P = 0.01


@lru_cache(maxsize=128)
def prior_curves_of(model: Model, draws: int, seed: int) -> Callable[..., jax.Array]:
    """Compile log p of curves drawn from the prior at a unit's rows, (draw, row)."""
    keys = jax.random.split(jax.random.key(seed), draws)

    def curve(key: jax.Array, columns: Columns) -> jax.Array:
        theta, _ = theta_of(model, prior_draw(model, key, columns), columns)
        return law_log_mean(model, theta, columns["shots"], columns.get("task"))[0]

    return Program(lambda columns: jax.vmap(curve, in_axes=(0, None))(keys, columns))


def check_model(model: Model, columns: Columns, *, draws: int = 400, seed: int = 0) -> tuple[Finding, ...]:
    """Prior predictive check of one unit: curves drawn from the prior must be finite and not pile up at 0 or 1."""
    p = np.exp(np.asarray(prior_curves_of(model, draws, seed)(dict(columns))))
    findings = []
    finite = np.isfinite(p).all(axis=1).mean()
    if finite < 0.99:
        findings.append(
            Finding(
                "PRIOR-NOT-FINITE",
                "fail",
                f"{1 - finite:.0%} of prior curves are not finite",
                "tighten the priors",
                model.law.name,
            )
        )
    stuck = ((p < 1e-3) | (p > 0.999)).all(axis=1).mean()
    if stuck > 0.2:
        findings.append(
            Finding(
                "PRIOR-EXTREME",
                "warn",
                f"{stuck:.0%} of prior curves lie flat at 0 or 1",
                "tighten the priors",
                model.law.name,
            )
        )
    return tuple(findings)


def check_fit(
    stats: Mapping[str, NDArray],
    measured: Mapping[str, Mapping[str, float]],
    contraction: Mapping[str, float],
    *,
    finished: bool,
    modes: int,
    finite: bool,
) -> tuple[Finding, ...]:
    """Checks on one sampled posterior: convergence, geometry, identification.

    `measured` holds ``r_hat``, ``ess_bulk`` and ``ess_tail`` per name; NaN marks a constant and is passed over only if the
    draws are finite.
    """
    if not (finished and finite):
        return (Finding("NOT-FINISHED", "fail", "sampling ran out of its budget", "allow more leapfrogs or simplify"),)
    worst = {
        key: max(
            (
                (float(np.nanmax(sign * entry[key])), name)
                for name, entry in measured.items()
                if not np.isnan(entry[key]).all()
            ),
            default=(float("nan"), "every value"),
        )
        for key, sign in (("r_hat", 1.0), ("ess_bulk", -1.0), ("ess_tail", -1.0))
    }
    findings: list[Finding] = []
    r_hat, name = worst["r_hat"]
    if not r_hat <= RHAT_WARN:
        grade = "fail" if not r_hat <= RHAT_FAIL else "warn"
        findings.append(
            Finding("RHAT", grade, f"largest R-hat is {r_hat:.4f} ({name})", "draw longer; look at the chains")
        )
    for key in ("ess_bulk", "ess_tail"):
        negative, name = worst[key]
        if not -negative >= ESS_WARN:
            grade = "fail" if not -negative >= ESS_FAIL else "warn"
            code = key.upper().replace("_", "-")
            findings.append(Finding(code, grade, f"smallest {key} is {-negative:.0f} ({name})", "draw longer"))
    if modes > 1 and not r_hat <= RHAT_FAIL:
        findings.append(
            Finding(
                "BIMODAL", "fail", f"{modes} separate modes carry mass and chains differ", "read both; do not average"
            )
        )
    elif modes > 1:
        findings.append(
            Finding("MODES", "info", f"{modes} separate modes were found and the chains moved between them")
        )
    divergent = float(np.mean(stats["diverging"]))
    if divergent > DIVERGENT_WARN:
        grade = "fail" if divergent > DIVERGENT_FAIL else "warn"
        findings.append(Finding("DIVERGENT", grade, f"{divergent:.2%} of draws diverged", "raise target_accept"))
    energy = float(np.min(diagnostics.bfmi(stats["energy"])))
    if not energy >= BFMI_WARN:
        findings.append(
            Finding("BFMI", "warn", f"energy fraction of missing information is {energy:.2f}", "reparametrise")
        )
    saturated = float(np.mean(stats["reached_max_treedepth"]))
    if saturated > SATURATED_WARN:
        findings.append(
            Finding("TREE-DEPTH", "warn", f"{saturated:.1%} of trees reached the largest depth", "draw longer")
        )
    for name, value in contraction.items():
        if not value >= CONTRACTION_IDENTIFIED:
            message = f"{name} not identified: the data move it little from its prior (contraction {value:.2f})"
            findings.append(Finding("NOT-IDENTIFIED", "info", message, "report it as prior-driven", name))
    return tuple(findings)


def drop_z(y: NDArray, se: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Largest later fall of y (..., shot) in units of its standard error (shot,), over all ordered pairs, and the pair.

    z = max over i < j of (y_i - y_j) / sqrt(se_i^2 + se_j^2).
    """
    scale = np.sqrt(se[:, None] ** 2 + se[None, :] ** 2)
    z = np.triu((y[..., :, None] - y[..., None, :]) / scale, 1)
    flat = z.reshape(*z.shape[:-2], -1)
    i, j = np.unravel_index(np.argmax(flat, axis=-1), scale.shape)
    return flat.max(axis=-1), i, j


def row_standard_error(columns: Mapping[str, NDArray], kind: Kind) -> NDArray:
    """Standard error of y on the link scale: the larger of what the runs and what the test items say.

    Runs alone are not trusted: near-deterministic runs agree with one another and still share the items' luck.
    """
    value = columns["value"]
    if kind == "nll_mean":
        return np.maximum(columns["se"], 1e-3 * value) / value
    if kind == "prob_mean":
        return np.maximum(columns["se"], 1e-3) / (value * (1 - value))
    trials = columns["trials"]
    p = np.clip(value, 0.5 / trials, 1 - 0.5 / trials)
    items = 1.0 / np.sqrt(trials * p * (1 - p))
    if "run_variance" not in columns:
        return items
    return np.maximum(items, np.sqrt(np.where(columns["run_df"] > 0, columns["run_variance"] / columns["runs"], 0.0)))


FEWEST_SCATTERED = 5
"""Points a curve's scatter can be seen from."""


def scatter_along(x: NDArray, y: NDArray) -> float:
    """Robust standard deviation of y (point,) about straight lines between the neighbours at x.

    e_i = (y_i - w y_{i-1} - (1 - w) y_{i+1}) / sqrt(1 + w^2 + (1 - w)^2), sd = median |e| / 0.6745. A curve's bends add to it.
    """
    w = (x[2:] - x[1:-1]) / (x[2:] - x[:-2])
    residual = (y[1:-1] - w * y[:-2] - (1 - w) * y[2:]) / np.sqrt(1 + w**2 + (1 - w) ** 2)
    return float(np.median(np.abs(residual)) / ndtri(0.75))


class Drop(NamedTuple):
    """The largest fall within one task's curve: how many standard errors, between which shots and values, of how many pairs."""

    z: float
    shots: tuple[float, float]
    value: tuple[float, float]
    pairs: float

    @property
    def unlikely(self) -> bool:
        """Whether noise alone would rarely show it; dense curves have many pairs to be unlucky in."""
        return self.z > max(DROP_Z, float(ndtri(1.0 - DROP_FALSE_ALARM / self.pairs)))


class Cells(NamedTuple):
    """One task's shot counts (shot,), the means over their rows as a matrix (shot, row), and standard errors of y (shot,)."""

    shots: NDArray
    averaging: NDArray
    se: NDArray


def cells_of(columns: Mapping[str, NDArray], kind: Kind) -> tuple[Cells, ...]:
    """Group one unit's rows by task and shot count; runs share items, so their errors do not average out.

    Where no standard error is known, the curve's own scatter stands in; a curve of few such points says nothing about falls.
    """
    found, seen = [], columns["mask"] > 0
    variance = row_standard_error(columns, kind) ** 2
    unknown = seen & (columns["se"] <= 0) if "se" in columns else np.zeros_like(seen)
    for task in np.unique(columns["task"][seen]):
        rows = seen & (columns["task"] == task)
        shots = np.unique(columns["shots"][rows])
        if len(shots) > 1:
            member = rows & (columns["shots"] == shots[:, None])
            averaging = member / member.sum(axis=1, keepdims=True)
            if (rows & unknown).any():
                if len(shots) < FEWEST_SCATTERED:
                    continue
                scatter = scatter_along(np.log1p(shots), averaging @ columns["y"])
                variance = np.where(rows & unknown, np.maximum(variance, scatter**2), variance)
            found.append(Cells(shots, averaging, np.sqrt(averaging @ np.where(rows, variance, 0.0))))
    return tuple(found)


def largest_drops(columns: Mapping[str, NDArray], kind: Kind) -> tuple[Drop, ...]:
    """Find each task's largest fall in one unit's columns (row,); for NLLs a rise is the fall."""
    sign = -1.0 if kind == "nll_mean" else 1.0
    drops = []
    for shots, averaging, se in cells_of(columns, kind):
        value, pairs = averaging @ columns["value"], len(shots) * (len(shots) - 1) / 2
        z, i, j = (np.asarray(part).item() for part in drop_z(sign * averaging @ columns["y"], se))
        ends = [(float(array[i]), float(array[j])) for array in (shots, value)]
        drops.append(Drop(z, ends[0], ends[1], pairs))
    return tuple(drops)


def check_drop(columns: Mapping[str, NDArray], kind: Kind) -> tuple[Finding, ...]:
    """Find a fall in performance that no monotone law can follow."""
    findings = []
    for drop in largest_drops(columns, kind):
        if drop.unlikely:
            (before, after), (first, second) = drop.value, drop.shots
            message = (
                f"performance falls: {before:.3g} at {first:g} shots, {after:.3g} at {second:g} "
                f"({drop.z:.1f} standard errors), and every law here is monotone"
            )
            findings.append(
                Finding("DROP", "warn", message, "do not extrapolate; look for a context limit or a bad run")
            )
    return tuple(findings)


def check_replicates(columns: Mapping[str, NDArray], kind: Kind, replicates: NDArray) -> tuple[Finding, ...]:
    """Posterior predictive check: compare the largest fall in the data with those in (draw, row) replicated values.

    p = P(z_rep >= z) with z the largest fall of `largest_drops`, standard errors as in the data for both.
    """
    falls = [drop.z for drop in largest_drops(columns, kind)]
    if not falls:
        return ()
    small = 0.5 / columns["trials"] if kind == "counts" else 1e-9
    # the same clip as the data's own logits have from their half counts
    y = -np.log(replicates) if kind == "nll_mean" else logit(np.clip(replicates, small, 1.0 - small))
    again = np.max([drop_z(y @ averaging.T, se)[0] for _, averaging, se in cells_of(columns, kind)], axis=0)
    p = float(np.mean(again >= max(falls)))
    if not p < PREDICTIVE_P:
        return ()
    message = (
        f"the data fall by {max(falls):.1f} standard errors somewhere and curves made by the fitted law by "
        f"{np.median(again):.1f} (posterior predictive p = {p:.3f})"
    )
    return (Finding("PREDICTIVE-DROP", "warn", message, "the law does not describe this curve; do not extrapolate"),)
