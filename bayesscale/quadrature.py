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
from scipy.special import xlog1py, xlogy

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
    return jnp.logaddexp(on_axis, jnp.logaddexp(columns["log_below"] + below, columns["log_above"] + above))


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
