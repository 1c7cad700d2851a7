"""What the plots share: ink that survives greyscale, the shots axis, and text that cannot be mistaken for markup."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from bayesscale.curves import Kind
from bayesscale.finding import InputError

DATA = "black"
MEDIAN, HALF, MOST = "#123a63", "#86a9cc", "#cddcea"
"""The posterior's median, 50% band and 90% band: one hue, three luminances."""
PRIOR, NOTE, BEYOND = "#7a7a7a", "#4d4d4d", "#f3f3f0"
"""The prior's outline, remarks and reference lines, and the ground where nothing was observed."""
DASHES: Sequence[tuple[str, str | tuple[int, tuple[float, ...]], str]] = (
    ("#000000", "-", "s"),
    ("#c0562b", (0, (5, 2)), "^"),
    ("#2a6fb0", (0, (1, 1.2)), "D"),
    ("#1d6b45", (0, (6, 1.5, 1, 1.5)), "v"),
    ("#8a5fb5", (0, (9, 3)), "P"),
    ("#a98600", (0, (3, 1, 1, 1, 1, 1)), "X"),
    ("#62696e", (0, (2, 2)), "<"),
    ("#d0679c", (0, (8, 2, 2, 2)), ">"),
)
"""Colour, dashes and marker per law; any one of the three tells two neighbours apart."""
VALUE_LABEL: dict[Kind, str] = {"counts": "accuracy", "prob_mean": "mean probability", "nll_mean": "mean NLL (nats)"}
TAIL = {0.5: (0.25, 0.75), 0.9: (0.05, 0.95)}
"""Levels that bound the equal-tailed interval of each mass."""


def new_axes(ax: Axes | None, size: tuple[float, float] = (5.2, 3.6)) -> Axes:
    """Return the axes to draw on: the caller's, or those of a new figure."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def verbatim(text: str) -> str:
    """Make a name safe to draw: no mathtext, no line breaks, and no leading underscore, which legends drop."""
    text = " ".join(text.split()).replace("$", r"\$")
    return f"\u2009{text}" if text.startswith("_") else text


def figure_of(ax: Axes) -> Figure | SubFigure:
    figure = ax.get_figure()
    if figure is None:
        raise InputError("PLOT-AXES", "these axes belong to no figure", fix="pass axes of a figure, or none")
    return figure


def break_lines(text: str, inches: float, points: float) -> str:
    """Break a text of this font size to a width, at most three lines."""
    width = max(16, int(inches * 72 / (0.57 * points)))
    return "\n".join(textwrap.wrap(verbatim(text), width, max_lines=3, placeholder=" …"))


def inches_across(ax: Axes) -> float:
    """Width of the axes."""
    figure = figure_of(ax)
    return figure.bbox.width / figure.dpi * ax.get_position().width


def text_size(ax: Axes, points: float) -> float:
    """Size of text that stays in proportion on axes narrower than three inches."""
    return points * min(1.0, max(0.8, inches_across(ax) / 3.0))


def write_title(ax: Axes, text: str, *, above: int = 0) -> None:
    """Write the title at the left, broken to the axes' width, leaving room for `above` lines of notes under it."""
    size = text_size(ax, 10.0)
    ax.set_title(break_lines(text, inches_across(ax), size), loc="left", fontsize=size, pad=5 + 11 * above)


def write_legend(ax: Axes, *, columns: int = 3, handles: Sequence | None = None) -> None:
    """Put the legend under the x label where a layout engine makes room for it, else where the axes have some."""
    drawn = list(handles) if handles is not None else ax.get_legend_handles_labels()[0]
    labels = [str(handle.get_label()) for handle in drawn]
    figure = figure_of(ax)
    if figure.get_figure(root=True).get_layout_engine() is None:
        ax.legend(drawn, labels, loc="best", fontsize=7, framealpha=0.8)
        return
    size = text_size(ax, 8.0)
    fitting = int(1.25 * inches_across(ax) * 72 // (0.55 * size * (max(map(len, labels)) + 6)))
    under = ax.transAxes + ScaledTranslation(0.0, -31 / 72, figure.dpi_scale_trans)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "bbox_transform": under, "borderaxespad": 0.0}
    tight = {"frameon": False, "columnspacing": 1.2, "handlelength": 1.8, "handletextpad": 0.5, "labelspacing": 0.35}
    ax.legend(drawn, labels, ncols=max(1, min(columns, fitting)), fontsize=size, **tight, **place)


def quiet_frame(ax: Axes) -> None:
    """Take away the spines that carry no scale."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=8)


# Shots ----------------------------------------------------------------------------------------------------------------


def log_ticks(low: float, high: float) -> NDArray:
    """From two to nine round numbers from `low` to `high`, both positive; powers of ten alone where there are many."""
    span = np.log10(high / low)
    if span < 0.8:
        ticks = MaxNLocator(4).tick_values(low, high)
        return np.asarray([tick for tick in ticks if low <= tick <= high])
    leads = (1.0, 2.0, 5.0) if span < 1.6 else (1.0, 3.0) if span < 2.6 else (1.0,)
    powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    kept = powers[powers % max(1, round(span / 6)) == 0]
    ticks = (10.0 ** kept[:, None] * np.array(leads)).ravel()
    return ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]


class ShotTicks(Locator):
    """Ticks of a log axis of shots, and 0 where the axis reaches it."""

    def __call__(self) -> Sequence[float]:
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        if vmin > 0:
            return log_ticks(vmin, vmax).tolist()
        return [0.0, *log_ticks(1.0, max(vmax, 1.0)).tolist()]


def write_shots(shots: float, _: int = 0) -> str:
    """Write a shot count as people do: 0.5, 20, 10,000."""
    return f"{shots:,.0f}" if shots >= 1000 else f"{shots:.3g}"


def log_shots_axis(ax: Axes, low: float, high: float, label: str = "shots") -> None:
    """Make x a log axis of shots from `low` to `high`; where `low` is 0 it is linear up to 1."""
    if low <= 0:
        ax.set_xscale("symlog", linthresh=1.0, linscale=0.5)
        ax.set_xlim(-0.12, high)
    else:
        ax.set_xscale("log")
        ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(ShotTicks())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(write_shots))
    ax.set_xlabel(label, fontsize=9)


def shot_grid(low: float, boundary: float, high: float, points: int = 80) -> NDArray:
    """Shots evenly spaced in log(1+n) from `low` to `high`, of which one is `boundary`."""
    left = points if high <= boundary else points * 5 // 8
    grid = np.expm1(np.linspace(np.log1p(low), np.log1p(boundary), left))
    if high > boundary:
        right = np.expm1(np.linspace(np.log1p(boundary), np.log1p(high), points - left + 1))
        grid = np.concatenate([grid[:-1], right])
    # Rounding must not push an end outside the range that was asked for.
    return np.clip(grid, low, max(high, boundary))


def mark_boundary(ax: Axes, boundary: float, word: str = "fitted up to", unit: str = "shots") -> None:
    """Mark where the data end by a line, a label above the axes, and darker ground beyond."""
    low, high = ax.get_xlim()
    if boundary < high:
        ax.axvspan(boundary, high, color=BEYOND, zorder=0, lw=0)
    ax.axvline(boundary, color=NOTE, lw=1.0, ls=(0, (4, 2)), zorder=1.5, gid="boundary")
    scale = ax.xaxis.get_transform().transform
    place, left, right = (float(scale(np.array([x]))[0]) for x in (boundary, low, high))
    side = "right" if place - left > 0.5 * (right - left) else "left"
    text = f"{word} {write_shots(boundary)} {unit}"
    across = ax.get_xaxis_transform()
    ax.text(boundary, 1.01, text, transform=across, ha=side, va="bottom", fontsize=8, color=NOTE, gid="boundary-label")
