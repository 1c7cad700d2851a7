"""Integrals of a smooth density on the logit axis against p^c (1-p)^f, by trapezoids laid out for each kernel.

With x = logit p a law with density g(x) has the moments

    E[p^c (1-p)^f] = integral of exp(c log p + f log(1-p)) g(x) dx.

The kernel can be a needle (standard deviation 1 / sqrt(n p (1-p)) in x) or, for c = 0, a cliff with everything to the left
of -log f. `kernel_cells` therefore gives every pattern (c, f) its own nodes, x = centre + scale sinh(u) with u
equidistant: dense where the kernel is, ever wider apart towards the ends of the axis. In u the integrand is analytic and
falls to nothing on both sides, where the trapezoidal rule converges exponentially (Trefethen & Weideman 2014, SIAM Rev. 56,
section 14); all weights are positive, so that no sum can cancel or turn negative, however far apart kernel and density lie.

Nodes and weights depend on the counts alone: they are computed once, on the host, and enter programs as data. Beyond
the axis, below `LOWEST` and above `HIGHEST`, the law gives its mass in closed form.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, xlog1py, xlogy

from bayesscale.logarithms import log, logaddexp
from bayesscale.rate_law import count_cells
from bayesscale.types import Columns

type Floats = NDArray[np.float64]

LOWEST, HIGHEST = -45.0, 45.0
"""Ends of the logit axis: beyond them p, or 1 - p, is below 3e-20, nothing to a kernel of 1e12 attempts."""
NODES = 192
"""Nodes per pattern: at most 0.26 logits apart around the centre of a kernel and 1 at the far end of the axis, which
resolves a Gaussian of sd 0.45 up to 20 logits away from the centre to 1e-6."""
_CUT = 700.0
"""Nats below its peak at which a kernel is cut off: a density this far out of the way may still outweigh the peak."""
_CLIFF = 12.0
"""Scale of the nodes of a one-sided kernel: wide enough for the axis, denser at the cliff, where a steep density peaks."""
_LEFT_OUT = -1e30
"""Log weight of what does not count: minus infinity has no gradient."""
_GREGORY = (95 / 288, 317 / 240, 23 / 30, 793 / 720, 157 / 160)
"""Weights of the outermost nodes, for a density that is not yet negligible at the end of the axis (Davis & Rabinowitz 1984,
section 2.9)."""


def kernel_cells(successes: ArrayLike, failures: ArrayLike) -> dict[str, np.ndarray]:
    """The columns of a density law for patterns of c successes and f failures.

    "x" (pattern, node) logits; "log_weight" (pattern, node) log of kernel times trapezoid; "log_below", "log_above"
    (pattern,) log of the kernel's value below and above the axis. Raises InputError RATE_COUNTS as `count_cells`.
    """
    counts = count_cells(successes, failures)
    c, f = counts["c"][..., None], counts["f"][..., None]
    x, log_step = _nodes(c, f)
    return {
        "x": x,
        "log_weight": log_kernel(x, c, f) + log_step,
        "log_below": np.where(counts["c"] == 0, 0.0, _LEFT_OUT),
        "log_above": np.where(counts["f"] == 0, 0.0, _LEFT_OUT),
    }


def log_integral(columns: Columns, log_density: Callable[[jax.Array], jax.Array], log_tails: tuple) -> jax.Array:
    """(pattern,) log of the integral of each kernel times a density.

    `log_density` takes logits of any shape; `log_tails` are the logs of its mass below `LOWEST` and above `HIGHEST`.
    Absolute error below 1e-8 + 1e-9 |log integral| for densities that change over 0.5 logits or more. A density that falls
    like (1-p)^d with d in the hundreds is steeper than that: up to 2e-4 of the log for kernels with c > 1e4, f < 10,
    which lie where it has nothing.
    """
    below, above = log_tails
    on_axis = logsumexp(columns["log_weight"] + log_density(jnp.asarray(columns["x"])), axis=-1)
    return logaddexp(on_axis, logaddexp(columns["log_below"] + below, columns["log_above"] + above))


def log_kernel(x: Floats, c: Floats, f: Floats) -> Floats:
    """c log p + f log(1 - p) at x = logit p."""
    return -c * np.logaddexp(0.0, -x) - f * np.logaddexp(0.0, x)


def _nodes(c: Floats, f: Floats) -> tuple[Floats, Floats]:
    """(pattern, node) logits and the log of the trapezoidal steps between them."""
    peak, scale = _peak(c, f)
    low, high = (np.arcsinh((_edge(c, f, peak, end) - peak) / scale) for end in (LOWEST, HIGHEST))
    step = (high - low) / (NODES - 1)
    u = low + step * np.arange(NODES)
    return peak + scale * np.sinh(u), np.log(scale * step * np.cosh(u)) + log_end_weights(NODES)


def log_end_weights(nodes: int) -> Floats:
    """Log weights that turn a plain sum over equidistant nodes into Gregory's rule, of sixth order."""
    at_end = np.log(_GREGORY)
    return np.r_[at_end, np.zeros(nodes - 2 * at_end.size), at_end[::-1]]


def _peak(c: Floats, f: Floats) -> tuple[Floats, Floats]:
    """Centre and scale of the nodes: peak and four standard deviations, or for a one-sided kernel where its cliff is."""
    n = c + f
    centre = np.log(np.where(c > 0, c, 1.0)) - np.log(np.where(f > 0, f, 1.0))
    width = np.sqrt(n / np.where(c * f > 0, c * f, 1.0))
    return np.clip(centre, LOWEST, HIGHEST), np.where(c * f > 0, 4 * width, _CLIFF)


def _edge(c: Floats, f: Floats, peak: Floats, end: float) -> Floats:
    """Where between the peak and this end of the axis the kernel has fallen by `_CUT`, the end itself if it has not."""
    share = c / np.where(c + f > 0, c + f, 1.0)
    at_peak = xlogy(c, share) + xlog1py(f, -share)
    kept, lost = peak.copy(), np.full_like(peak, end)
    inside = log_kernel(lost, c, f) > at_peak - _CUT
    for _ in range(50):
        middle = (kept + lost) / 2
        high = log_kernel(middle, c, f) > at_peak - _CUT
        kept, lost = np.where(high, middle, kept), np.where(high, lost, middle)
    return np.where(inside, end, lost)


# One grid for many kernels --------------------------------------------------------------------------------------------

SHARED_STEP, NEEDLE_STEP = 0.3, 1.0
"""Spacing of the shared grid in logits where kernels are wide, and in standard deviations of the kernel where they are not:
with both, a trapezoid of a Gaussian integrand is off by 3e-9 of its value or less."""
STEEPEST = 1000
"""Samples' worth of curvature allowed for beyond the counts': for a density that itself falls like (1-p)^1000."""
MOST_NODES = 1024
"""Nodes of a shared grid beyond which patterns get nodes of their own instead: n of about 50,000."""
UNDERFLOW = 1e-250
"""Sums below this may have lost terms to underflow."""


def shared_cells(successes: ArrayLike, failures: ArrayLike, width: int) -> dict[str, np.ndarray]:
    """The columns of a density law for patterns (c, f) on one grid of logits, so that the density is evaluated once for all.

    The log kernel has curvature n p (1 - p) at x whatever c is: a grid spaced by that curvature resolves every kernel of
    up to n samples, wherever its product with the density peaks. "axis", "log_step" (node,), padded to `width` with nodes
    of no weight; "kernel" (pattern, node), of peak 1; "log_peak" (pattern,) the log of that peak, "centre" its logit;
    "log_below" and "log_above" as in `kernel_cells`. `width` is at least `shared_width` of
    the largest n.
    """
    counts = count_cells(successes, failures)
    c, f = counts["c"][..., None], counts["f"][..., None]
    axis, log_step = _shared_axis(float((c + f).max()))
    spare = (0, width - axis.size)
    axis, log_step = np.pad(axis, spare, mode="edge"), np.pad(log_step, spare, constant_values=_LEFT_OUT)
    log_values = log_kernel(axis, c, f)
    peak = log_values.max(axis=-1)
    return {
        "axis": axis,
        "log_step": log_step,
        "kernel": np.exp(log_values - peak[..., None]),
        "log_peak": peak,
        "centre": _peak(counts["c"], counts["f"])[0],
        "log_below": np.where(counts["c"] == 0, 0.0, _LEFT_OUT),
        "log_above": np.where(counts["f"] == 0, 0.0, _LEFT_OUT),
    }


def log_shared_integral(columns: Columns, log_density: Callable[[jax.Array], jax.Array], log_tails: tuple) -> jax.Array:
    """(pattern,) log of the integral of each kernel times a density, with the columns of `shared_cells`.

    Accurate as `log_integral`, except where a kernel and the density lie so far apart that their product is below 1e-250 of
    the product of their peaks, where no posterior has mass: there the density at the kernel's peak stands for the integral,
    too low, so that a search for the mode still climbs.
    """
    terms = log_density(jnp.asarray(columns["axis"])) + jnp.asarray(columns["log_step"])
    top = jax.lax.stop_gradient(jnp.max(terms))
    total = jnp.asarray(columns["kernel"]) @ jnp.exp(terms - top)
    far = log_density(jnp.asarray(columns["centre"]))
    together = total > UNDERFLOW
    on_axis = columns["log_peak"] + jnp.where(together, top + log(jnp.where(together, total, 1.0)), far)
    below, above = log_tails
    return logaddexp(on_axis, logaddexp(columns["log_below"] + below, columns["log_above"] + above))


def shared_width(n: float) -> int:
    """Nodes that a shared grid needs for patterns of up to n samples, a multiple of 64 so that few shapes are compiled."""
    ends = _position(np.array([LOWEST, HIGHEST]), n + STEEPEST)
    return 64 * (1 + int(ends[1] - ends[0]) // 64)


def _shared_axis(n: float) -> tuple[Floats, Floats]:
    """(node,) logits equidistant in u(x), du/dx = `_node_density`, and the logs of their trapezoidal weights."""
    samples, nodes = n + STEEPEST, shared_width(n)
    fine = np.linspace(LOWEST, HIGHEST, 20_001)
    at_fine = _position(fine, samples)
    u = np.linspace(at_fine[0], at_fine[-1], nodes)
    x = np.interp(u, at_fine, fine)
    for _ in range(4):  # Newton, from within a hundredth of a logit
        x = np.clip(x - (_position(x, samples) - u) / _node_density(x, samples), LOWEST, HIGHEST)
    return x, np.log((u[1] - u[0]) / _node_density(x, samples)) + log_end_weights(nodes)


def _node_density(x: Floats, n: float) -> Floats:
    """Nodes per logit at x: sqrt(1 / SHARED_STEP^2 + n p (1 - p) / NEEDLE_STEP^2)."""
    return np.sqrt(SHARED_STEP**-2 + n * expit(x) * expit(-x) / NEEDLE_STEP**2)


def _position(x: Floats, n: float) -> Floats:
    """The integral u(x) of `_node_density` from 0, in closed form with y = tanh(x/2), 1 - y^2 = 4 p (1 - p)."""
    a, b = SHARED_STEP**-2, n / (4 * NEEDLE_STEP**2)
    y, rest = np.tanh(x / 2), 4 * expit(x) * expit(-x)
    t, left = np.abs(y) * np.sqrt(a / (a + b * rest)), (a + b) * rest / (a + b * rest)  # left = 1 - t^2
    wide = np.sign(y) * (np.log1p(t) - 0.5 * np.log(left))
    return 2 * np.sqrt(b) * np.arcsin(y * np.sqrt(b / (a + b))) + 2 * np.sqrt(a) * wide
