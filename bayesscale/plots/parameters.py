"""Parameters: what the data taught, as prior against posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import gaussian_kde

from bayesscale.draws import contraction, flatten
from bayesscale.finding import InputError
from bayesscale.fitting import PAPER
from bayesscale.gate import CONTRACTION_IDENTIFIED
from bayesscale.plots.curves import curve_title
from bayesscale.plots.style import (
    HALF,
    MEDIAN,
    MOST,
    PRIOR,
    TAIL,
    break_lines,
    figure_of,
    inches_across,
    log_ticks,
    quiet_frame,
    text_size,
    verbatim,
    write_legend,
)
from bayesscale.result import Fit

SYMBOL = {"rho": "ρ", "gamma": "γ", "beta": "β", "lambda": "λ", "n50": "n₅₀", "p0": "p₀", "alpha": "α"}
LOGIT_TICKS = (1e-8, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-6)
LOGIT_TICKS_BETWEEN = (2e-3, 5e-3, 0.02, 0.05, 0.2, 0.3, 0.7, 0.8, 0.95, 0.98, 0.995, 0.998)
"""Added where an axis would have fewer than three of the others."""
UNIDENTIFIED: dict[str, Any] = {"fc": MOST, "ec": MEDIAN, "hatch": "////"}
DECADES = 8.0
"""A prior is drawn at most this many decades beyond the posterior."""

type Scale = tuple[str, Callable[[Any], Any], Callable[[Any], Any]]
"""Name, and the maps from values to the axis as drawn and back."""
LINEAR: Scale = ("linear", lambda x: x, lambda t: t)
LOG: Scale = ("log", np.log10, lambda t: 10.0**t)
LOGIT: Scale = ("logit", logit, expit)


@dataclass(frozen=True, eq=False)
class Marginal:
    """One scalar: its finite draws from the posterior and the prior, and what it is."""

    name: str
    symbol: str
    meaning: str
    posterior: NDArray
    prior: NDArray

    @property
    def contraction(self) -> float:
        return contraction(self.posterior, self.prior)

    @property
    def identified(self) -> bool:
        return bool(self.contraction >= CONTRACTION_IDENTIFIED)

    @property
    def caption(self) -> str:
        """Median, 90% equal-tailed interval, contraction, and whether the data determine it."""
        middle, low, high = np.quantile(self.posterior, [0.5, *TAIL[0.9]])
        text = f"{middle:.3g} [{low:.3g}, {high:.3g}], contraction {self.contraction:.2f}"
        return text if self.identified else f"{text}: not identified"


def plot_parameters(fit: Fit, names: Sequence[str] | None = None, *, ax: Sequence[Axes] | None = None) -> NDArray:
    """Draw the prior against the posterior of each parameter, one small panel with its own scale per parameter.

    The dashed outline is the prior, the filled shape the posterior, each a density per unit of the axis as drawn
    (linear, log or logit) and scaled to its own peak. The bar beneath gives the posterior median with 50% and 90%
    equal-tailed intervals. Contraction is that of `Fit.summary`: 0 learned nothing, 1 everything; below 0.3 the shape
    is hatched and the parameter called not identified.

    Parameters
    ----------
    fit : the posterior.
    names : which to draw; by default the paper's rho, K, gamma and beta where the law has them, else all it derives.
    ax : as many axes as there are panels; by default a new figure.

    Returns
    -------
    array of Axes, one per scalar. This is the one plot that needs several axes, because its quantities share no scale.
    """
    marginals = [marginal for name in names or default_names(fit) for marginal in marginals_of(fit, name)]
    if not marginals:
        raise InputError("PLOT-NAMES", "no parameter of this fit varies", where=fit.name, fix="name one that does")
    panels = panels_for(len(marginals), ax)
    for panel, marginal in zip(panels, marginals, strict=True):
        draw_marginal(panel, marginal)
    if ax is None:
        title = break_lines(curve_title(fit), figure_of(panels[0]).bbox.width / figure_of(panels[0]).dpi, 10)
        figure_of(panels[0]).suptitle(title, x=0.02, ha="left", fontsize=10)
        write_legend(panels[-1], columns=2, handles=legend_handles(any(not m.identified for m in marginals)))
    return panels


def default_names(fit: Fit) -> tuple[str, ...]:
    """The paper's quantities where the law has all of them, else what the law derives; constants are left out."""
    derived = tuple(fit.law.derived_meaning)
    names = PAPER if set(PAPER) <= set(derived) else derived
    return tuple(name for name in names if np.ptp(fit.draws[name]) > 0)


def marginals_of(fit: Fit, name: str) -> list[Marginal]:
    """Return the scalars of one name.

    Raises
    ------
    InputError : the fit holds nothing of that name, or its draws are constant or not finite.
    """
    if name not in fit.draws:
        known = ", ".join(fit.draws)
        raise InputError("PLOT-NAMES", f"there is no parameter {name!r}", where=fit.name, fix=f"one of {known}")
    own = {parameter.name: parameter for parameter in fit.model.parameters}
    symbol = own[name].symbol if name in own else SYMBOL.get(name, name)
    meaning = own[name].meaning if name in own else fit.law.derived_meaning.get(name, "")
    posterior, prior, found = flatten(fit.draws[name]), fit.prior[name], []
    for index in np.ndindex(posterior.shape[1:]):
        mark = f"[{','.join(map(str, index))}]" if index else ""
        values, before = posterior[(slice(None), *index)], prior[(slice(None), *index)]
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            what = f"the draws of {name}{mark} are constant or not finite"
            raise InputError("PLOT-NAMES", what, where=fit.name, fix="leave it out")
        found.append(Marginal(name + mark, symbol + mark, meaning, values, before[np.isfinite(before)]))
    return found


def panels_for(count: int, given: Sequence[Axes] | None) -> NDArray:
    """Return as many axes as there are scalars: the caller's, or a new figure's, one under the other."""
    if given is None:
        size = (4.6, 0.5 + 0.95 * count)
        return plt.subplots(count, 1, figsize=size, layout="constrained", squeeze=False)[1][:, 0]
    panels = np.asarray(given, dtype=object).ravel()
    if len(panels) != count:
        raise InputError("PLOT-AXES", f"{count} scalars need {count} axes, got {len(panels)}", fix="pass that many")
    return panels


def scale_of(marginal: Marginal) -> Scale:
    """Choose the axis: logit for probabilities near 0 or 1, log for what is positive and spans decades, else linear."""
    both = np.concatenate([marginal.posterior, marginal.prior])
    low, high = np.quantile(both, TAIL[0.9])
    if both.min() > 0 and both.max() < 1:
        return LOGIT if low < 0.01 or high > 0.99 else LINEAR
    return LOG if both.min() > 0 and high > 20 * low else LINEAR


def draw_marginal(ax: Axes, marginal: Marginal) -> None:
    """Draw one panel."""
    name, forward, back = scale_of(marginal)
    posterior, prior = forward(marginal.posterior), forward(marginal.prior)
    posterior, prior = posterior[np.isfinite(posterior)], prior[np.isfinite(prior)]
    ends = np.concatenate([np.quantile(posterior, [0.002, 0.998]), np.quantile(prior, [0.02, 0.98])])
    reach = DECADES if name == "log" else np.inf
    low, high = max(ends.min(), ends[0] - reach), min(ends.max(), ends[1] + reach)
    t = np.linspace(low, high, 300)
    before, after = (density / density.max() for density in (gaussian_kde(prior)(t), gaussian_kde(posterior)(t)))
    look: dict[str, Any] = {"fc": HALF} if marginal.identified else UNIDENTIFIED
    ax.fill_between(back(t), after, **look, lw=0.0, label="posterior")
    ax.plot(back(t), after, color=MEDIAN, lw=1.0)
    ax.plot(back(t), before, color=PRIOR, lw=1.3, ls=(0, (4, 2)), label="prior")
    draw_interval(ax, marginal.posterior, -0.16)
    ax.set_xscale(name)
    ax.set_xlim(float(back(low)), float(back(high)))
    label_panel(ax, name, marginal)


def draw_interval(ax: Axes, values: NDArray, y: float) -> None:
    """Draw a median with 50% (thick) and 90% (thin) equal-tailed intervals as a horizontal bar at `y`."""
    for mass, width in ((0.9, 1.2), (0.5, 4.0)):
        ends = np.quantile(values, TAIL[mass])
        ax.plot(ends, [y, y], color=MEDIAN, lw=width, solid_capstyle="butt", gid=f"interval-{mass}")
    ax.plot(np.median(values), y, "o", ms=5, mfc="white", mec=MEDIAN, mew=1.3, zorder=3)


def label_panel(ax: Axes, scale: str, marginal: Marginal) -> None:
    """Write the ticks, symbol, caption and meaning of a panel."""
    low, high = ax.get_xlim()
    if scale == "linear":
        ax.xaxis.set_major_locator(MaxNLocator(4))
    else:
        ticks = log_ticks(low, high).tolist() if scale == "log" else logit_ticks(low, high)
        ax.xaxis.set_major_locator(FixedLocator(ticks[:: 1 + len(ticks) // 8]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.8g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(-0.34, 1.08)
    ax.set_yticks([])
    quiet_frame(ax)
    ax.spines["left"].set_visible(False)
    ax.set_ylabel(verbatim(marginal.symbol), rotation=0, ha="right", va="center", fontsize=11)
    size = text_size(ax, 7.5)
    ax.set_title(break_lines(marginal.caption, inches_across(ax), size), loc="right", fontsize=size, pad=2)
    ax.set_xlabel(verbatim(marginal.meaning), fontsize=7.5, labelpad=1, color="#4d4d4d")


def logit_ticks(low: float, high: float) -> list[float]:
    """Round probabilities from `low` to `high`, finer ones where few of the coarse lie there."""
    coarse = [t for t in LOGIT_TICKS if low <= t <= high]
    return coarse if len(coarse) > 2 else sorted(coarse + [t for t in LOGIT_TICKS_BETWEEN if low <= t <= high])


def legend_handles(unidentified: bool) -> list[Line2D | Patch]:
    hatched = [Patch(**UNIDENTIFIED, lw=0.0, label="not identified")]
    return [
        Line2D([], [], color=PRIOR, lw=1.3, ls=(0, (4, 2)), label="prior"),
        Patch(fc=HALF, ec=MEDIAN, label="posterior"),
        Line2D([], [], color=MEDIAN, lw=3, marker="o", mfc="white", ms=5, label="median, 50% and 90% intervals"),
        *(hatched if unidentified else []),
    ]
