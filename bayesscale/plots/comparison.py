"""Comparison of laws by how well they predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bayesscale.comparison import Comparison
from bayesscale.finding import InputError
from bayesscale.plots.style import DATA, MEDIAN, NOTE, new_axes, quiet_frame, text_size, verbatim, write_title

if TYPE_CHECKING:
    import pandas as pd

LABEL = {"crps": "CRPS", "log_score": "log score (nats)", "nrmse": "NRMSE"}
NEEDED = ("law", "difference", "se", "n_curves", "reference", "metric")
NORMAL_95 = 1.96


def plot_comparison(table: Comparison | pd.DataFrame, *, metric: str = "crps", ax: Axes | None = None) -> Axes:
    """Draw how much better or worse than the reference law each law predicted, averaged over curves, best at the top.

    Differences are paired by curve and positive where the law is better than the reference, whichever way the metric goes.
    Thick bars are one standard error either way (68%), thin bars 1.96 (95%), both on the normal approximation; standard
    errors are the table's own. The hollow square is the reference, whose difference is 0 by definition;
    any other law without a bar has no standard error, and says so. The number of curves stands in the title, or in
    brackets where it differs between laws.

    Parameters
    ----------
    table : what `compare` returned, or a table with columns law, difference (positive is better), se, n_curves, reference
        and metric, one row per law and metric.
    metric : which rows to draw; a `Comparison` holds one metric, and that is drawn.
    ax : axes to draw on; by default a new figure.
    """
    trained = ""
    if isinstance(table, Comparison):
        trained = f", trained on {table.share:.0%}"
        metric, table = table.metric, table.table.assign(metric=table.metric, reference=table.reference)
    rows = comparison_rows(table, metric)
    reference = str(rows["reference"][0])
    ax = new_axes(ax, (5.2, 1.1 + 0.3 * len(rows["law"])))
    difference, se, own = rows["difference"].astype(float), rows["se"].astype(float), rows["law"] == reference
    place, se = np.arange(len(own))[::-1], np.where(own, np.nan, se)
    ax.axvline(0.0, color=NOTE, lw=1.0, ls=(0, (4, 2)), zorder=1, gid="zero")
    for times, width in ((NORMAL_95, 1.2), (1.0, 4.0)):
        ax.hlines(place, difference - times * se, difference + times * se, color=MEDIAN, lw=width, zorder=2)
    ax.plot(difference[~own], place[~own], "o", ms=6, mfc=MEDIAN, mec="white", zorder=3)
    ax.plot(difference[own], place[own], "s", ms=6, mfc="white", mec=DATA, zorder=3)
    counts = rows["n_curves"].astype(int)
    same = len(set(counts.tolist())) == 1
    notes = [row_note(*row, same) for row in zip(counts.tolist(), difference, se, own, strict=True)]
    ax.set_yticks(place, [verbatim(str(law)) + note for law, note in zip(rows["law"], notes, strict=True)])
    ax.set_ylim(-0.6, len(own) - 0.4)
    label_comparison(ax, metric)
    write_title(ax, f"Difference from {reference} over {f'{counts[0]:,}' if same else '(number of)'} curves{trained}")
    return ax


def row_note(count: int, difference: float, se: float, own: bool, same: bool) -> str:
    """Say beside a law what its mark cannot: a number of curves of its own, or that a score or an error is missing."""
    missing = [] if own or np.isfinite(se) else ["no se" if np.isfinite(difference) else "not scored"]
    parts = [*([] if same else [f"{count:,}"]), *missing]
    return f" ({', '.join(parts)})" if parts else ""


def comparison_rows(table: pd.DataFrame, metric: str) -> dict[str, NDArray]:
    """Return the columns of one metric, best law first.

    Raises
    ------
    InputError : a column is missing, the metric has no rows, or its rows name several references.
    """
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise InputError("PLOT-TABLE", f"there is no column {', '.join(missing)}", fix="pass what compare returned")
    columns = {name: np.asarray(table[name]) for name in NEEDED}
    chosen = columns["metric"] == metric
    if not chosen.any():
        known = ", ".join(sorted(set(map(str, columns["metric"])))) or "none"
        raise InputError("PLOT-TABLE", f"there are no rows of metric {metric!r}", fix=f"the metrics are {known}")
    if len(set(columns["reference"][chosen])) != 1:
        raise InputError("PLOT-TABLE", f"{metric} is compared with several references", fix="keep one reference")
    rows = {name: values[chosen] for name, values in columns.items()}
    order = np.argsort(-rows["difference"].astype(float), kind="stable")
    return {name: values[order] for name, values in rows.items()}


def label_comparison(ax: Axes, metric: str) -> None:
    """Say what the differences are and which way is better."""
    label = f"{LABEL.get(metric, verbatim(metric))} gain (right is better)\nbars: 1 and 1.96 standard errors"
    ax.set_xlabel(label, fontsize=text_size(ax, 9.0))
    ax.margins(x=0.06)
    ax.locator_params(axis="x", nbins=5)
    quiet_frame(ax)
