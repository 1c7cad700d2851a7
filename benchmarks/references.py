"""Do the lanes agree with an independent reference? Moments of many curves, compared parameter by parameter.

Needs jax, numpyro, numpy and scipy only, so that it runs on an accelerator's machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayesscale.inference import diagnostics

ERRORS, SHARE_OF_SD = 4.0, 0.05


class Summary(NamedTuple):
    """Posterior moments (unit, coord) with their Monte Carlo standard errors, zero for a quadrature; and which to use."""

    mean: NDArray
    sd: NDArray
    mean_error: NDArray
    sd_error: NDArray
    usable: NDArray


class Agreement(NamedTuple):
    """(unit, coord) differences: of means in Monte Carlo errors and in sds, of sds relative and in errors.

    `within` (unit,) says whether all of a curve's means are within 4 errors and 5% of the sd, and its sds within 5%;
    `unbiased` (unit,) whether means and sds are within 4 errors, which holds for few draws as well as for many.
    """

    mean_z: NDArray
    mean_share: NDArray
    sd_ratio: NDArray
    sd_z: NDArray
    within: NDArray
    unbiased: NDArray


def summarise(u: NDArray) -> Summary:
    """Moments of draws u (unit, chain, draw, coord); a curve is usable if R-hat is at most 1.01 everywhere."""
    draws = np.moveaxis(u, -1, 1)
    mean, sd = draws.mean(axis=(-2, -1)), draws.std(axis=(-2, -1))
    square = (draws - mean[..., None, None]) ** 2
    ess_mean, ess_square = diagnostics.effective_size(draws), diagnostics.effective_size(square)
    # The delta method: Var(sd) = Var(mean of squares) / (4 sd^2), for any kurtosis.
    sd_error = square.std(axis=(-2, -1)) / np.sqrt(ess_square) / (2.0 * sd)
    usable = (np.stack([diagnostics.measure(unit).rhat for unit in draws]) <= 1.01).all(axis=1)
    return Summary(mean, sd, sd / np.sqrt(ess_mean), sd_error, usable)


def compare(ours: Summary, reference: Summary) -> Agreement:
    """Compare moments curve by curve, the Monte Carlo errors of both sides added in quadrature."""
    shift = np.abs(ours.mean - reference.mean)
    mean_z = shift / np.hypot(ours.mean_error, reference.mean_error)
    stretch = np.abs(ours.sd / reference.sd - 1.0)
    sd_z = np.abs(ours.sd - reference.sd) / np.hypot(ours.sd_error, reference.sd_error)
    mean_share = shift / reference.sd
    within = (mean_z <= ERRORS) & (mean_share <= SHARE_OF_SD) & (stretch <= SHARE_OF_SD)
    unbiased = (mean_z <= ERRORS) & (sd_z <= ERRORS)
    return Agreement(mean_z, mean_share, stretch, sd_z, within.all(axis=1), unbiased.all(axis=1))


def lines(agreement: Agreement, usable: NDArray, names: Sequence[str], say: Callable[[str], None] = print) -> None:
    """Print shares and the worst of each difference, over curves whose reference and draws are usable."""
    if not usable.any():
        say(f"  none of {len(usable)} curves can be compared")
        return
    chosen = Agreement(*(part[usable] for part in agreement))
    say(
        f"  {int(usable.sum())} of {len(usable)} curves compared; within the three bounds {chosen.within.mean():.1%}, "
        f"means and sds within {ERRORS:g} errors {chosen.unbiased.mean():.1%}"
    )
    worst, coord = np.unravel_index(
        np.argmax(np.where(usable[:, None], agreement.mean_z, -np.inf)), agreement.mean_z.shape
    )
    say(f"  furthest apart: curve {worst}, {names[coord]}, by {agreement.mean_z[worst, coord]:.1f} errors of the mean")
    bounds = (("mean, errors", chosen.mean_z, ERRORS), ("mean, share of sd", chosen.mean_share, SHARE_OF_SD))
    for label, values, bound in (
        *bounds,
        ("sd, relative", chosen.sd_ratio, SHARE_OF_SD),
        ("sd, errors", chosen.sd_z, ERRORS),
    ):
        q = np.quantile(values, [0.5, 0.99, 1.0])
        inside = np.mean((values <= bound).all(axis=1))
        say(
            f"  {label:18s} <= {bound:<5g} {inside:7.1%} of curves; median {q[0]:.3f}, 99% {q[1]:.3f}, largest {q[2]:.3f}"
        )
    # Independent normal errors have mean squares of one, whatever their size: bias shows here first.
    squares = (chosen.mean_z**2).mean(axis=0)
    say(
        "  mean square of the errors by parameter: "
        + ", ".join(f"{n} {s:.2f}" for n, s in zip(names, squares, strict=True))
    )
