"""The gate: checks before sampling and after, each a `Finding`.

Passing means finite *and* within the threshold: a NaN never passes. Grades: "fail" says do not use, "warn" says look,
"info" says know.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from bayesscale.curves import Kind
from bayesscale.finding import Finding
from bayesscale.inference import diagnostics
from bayesscale.model import Model, law_log_mean, prior_draw, theta_of
from bayesscale.types import Columns

RHAT_WARN, RHAT_FAIL = 1.01, 1.05
ESS_WARN, ESS_FAIL = 400.0, 100.0
DIVERGENT_WARN, DIVERGENT_FAIL = 0.001, 0.01
BFMI_WARN = 0.3
SATURATED_WARN = 0.01
CONTRACTION_IDENTIFIED = 0.3
DROP_Z = 3.0
DROP_FALSE_ALARM = 0.05


def check_model(model: Model, columns: Columns, *, draws: int = 400, seed: int = 0) -> tuple[Finding, ...]:
    """Prior predictive check: curves drawn from the prior must be finite and not pile up at 0 or 1."""
    keys = jax.random.split(jax.random.key(seed), draws)

    def curve(key: jax.Array) -> jax.Array:
        theta, _ = theta_of(model, prior_draw(model, key, columns), columns)
        return law_log_mean(model, theta, columns["shots"], columns.get("task"))[0]

    p = np.exp(np.asarray(jax.jit(jax.vmap(curve))(keys)))
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
            Finding("RHAT", grade, f"largest R-hat is {r_hat:.3f} ({name})", "draw longer; look at the chains")
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


def drop_z(y: NDArray, se: NDArray) -> tuple[float, int, int]:
    """Largest later fall of y in units of its standard error, over all ordered pairs, and the pair.

    z = max over i < j of (y_i - y_j) / sqrt(se_i^2 + se_j^2).
    """
    z = np.triu((y[:, None] - y[None, :]) / np.sqrt(se[:, None] ** 2 + se[None, :] ** 2), 1)
    i, j = np.unravel_index(np.argmax(z), z.shape)
    return float(z[i, j]), int(i), int(j)


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


def check_drop(columns: Mapping[str, NDArray], kind: Kind) -> tuple[Finding, ...]:
    """Find a fall in performance that no monotone law can follow, in one unit's columns (row,).

    Rows are single runs or cells; runs of one shot count are averaged first. For NLLs a rise is the fall.
    """
    findings = []
    seen = columns["mask"] > 0
    for task in np.unique(columns["task"][seen]):
        rows = seen & (columns["task"] == task)
        part = {name: c[rows] for name, c in columns.items() if np.shape(c) == seen.shape}
        shots, where = np.unique(part["shots"], return_inverse=True)
        if len(shots) < 2:
            continue
        count = np.bincount(where)
        y, value = (np.bincount(where, part[name]) / count for name in ("y", "value"))
        se = np.sqrt(np.bincount(where, row_standard_error(part, kind) ** 2) / count)  # runs share items: no 1/count
        z, i, j = drop_z(-y if kind == "nll_mean" else y, se)
        pairs = len(shots) * (len(shots) - 1) / 2
        if z > max(
            DROP_Z, float(ndtri(1.0 - DROP_FALSE_ALARM / pairs))
        ):  # dense curves have many pairs to be unlucky in
            message = (
                f"performance falls: {value[i]:.3g} at {shots[i]:g} shots, {value[j]:.3g} at {shots[j]:g} "
                f"({z:.1f} standard errors), and every law here is monotone"
            )
            findings.append(
                Finding("DROP", "warn", message, "do not extrapolate; look for a context limit or a bad run")
            )
    return tuple(findings)
