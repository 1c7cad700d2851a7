"""Plots show what they say they show: where things are drawn, what is marked, and that no name breaks them."""

import subprocess
import sys
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from bayesscale.comparison import Comparison  # noqa: E402
from bayesscale.curves import Curves  # noqa: E402
from bayesscale.decisions.threshold import crossing  # noqa: E402
from bayesscale.finding import Finding, InputError  # noqa: E402
from bayesscale.fitting import fit, likelihood_for  # noqa: E402
from bayesscale.inference.settings import Sampler  # noqa: E402
from bayesscale.laws import LAWS  # noqa: E402
from bayesscale.likelihood import with_discrepancy  # noqa: E402
from bayesscale.model import compose  # noqa: E402
from bayesscale.plots import (  # noqa: E402
    plot_comparison,
    plot_curve,
    plot_laws,
    plot_parameters,
    plot_pit,
    plot_posterior_predictive,
    plot_prior_predictive,
    plot_threshold,
)
from bayesscale.plots.parameters import logit_ticks, marginals_of, scale_of  # noqa: E402
from bayesscale.plots.pit import simultaneous_band  # noqa: E402
from bayesscale.plots.points import average_runs, observed_points  # noqa: E402
from bayesscale.plots.predictive import predictive_scores, prior_curves  # noqa: E402
from bayesscale.plots.style import log_ticks, shot_grid, verbatim  # noqa: E402
from bayesscale.result import Fit  # noqa: E402
from bayesscale.units import units_of  # noqa: E402

SHOTS = np.array([0.0, 1, 2, 5, 10, 20, 50, 100])
NAME = "$\\frac{a_b$ / été_θ→β$"
TINY = Sampler(chains=2, draws=60, warmup=(20, 20), tiers=0, keep=60, lanes=8)
LATER = (np.array([200.0, 200.0, 400.0]), np.array([0.70, 0.74, 0.78]))


@pytest.fixture(scope="module")
def counts_fit():
    shots, run = np.repeat(SHOTS, 3), np.tile(np.arange(3), len(SHOTS))
    p = 0.2 + 0.6 * shots / (shots + 15)
    successes = np.random.default_rng(1).binomial(200, p)
    columns = {"successes": successes, "trials": np.full(shots.size, 200)}
    curves = Curves("counts", ("model",), ((NAME,),), np.zeros(shots.size), run, shots, columns, np.array([np.nan]))
    return fit(curves, "hill", discrepancy=False, sampler=TINY)


@pytest.fixture(scope="module")
def nll_fit():
    shots = SHOTS[1:]  # seven rows, so that one row of padding must stay undrawn
    value = 0.4 + 2.0 / (1 + shots / 10)
    columns = {"value": value, "se": np.full(value.size, 0.05)}
    zeros = np.zeros(value.size)
    curves = Curves("nll_mean", ("model",), (("_m",),), zeros, zeros, shots, columns, np.array([np.nan]))
    likelihood = likelihood_for(curves, None, discrepancy=False)
    model, unit = compose(LAWS["logistic"], likelihood), units_of(curves, likelihood)
    centre = {"logit_ceiling": 0.7, "logit_zero_ratio": -1.9, "log_n50": 2.3, "log_slope": 0.0}
    rng = np.random.default_rng(2)
    draws = {p.name: centre.get(p.name, 0.1) + 0.05 * rng.uniform(size=(2, 60)) for p in model.parameters}
    return Fit(model, unit, draws, prior={}, stats={}, diagnostics={}, log_likelihood=np.zeros((2, 60, len(shots))))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def marked(ax, gid):
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def band(ax, label):
    (found,) = [collection for collection in ax.collections if collection.get_label() == label]
    return found.get_paths()[0].vertices


def line(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


def drawn(ax):
    """Draw the figure, so that bad markup would raise, and return the axes."""
    ax.get_figure().canvas.draw()
    return ax


def test_importing_the_library_does_not_import_matplotlib():
    code = "import sys, bayesscale; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_curve_has_bands_median_points_and_boundary(counts_fit):
    ax = drawn(plot_curve(counts_fit, held_out=LATER))
    assert isinstance(ax, Axes)
    wide, narrow = band(ax, "90% interval"), band(ax, "50% interval")
    assert np.ptp(wide[:, 1]) > np.ptp(narrow[:, 1])
    assert wide[:, 0].min() == 0 and wide[:, 0].max() == pytest.approx(400 * 1.15)
    (boundary,) = [artist for artist in marked(ax, "boundary") if hasattr(artist, "get_xdata")]
    assert boundary.get_xdata()[0] == 100
    assert marked(ax, "boundary-label")[0].get_text() == "fitted up to 100 shots"
    assert ax.get_xscale() == "symlog" and ax.get_xlim()[0] < 0 < 400 < ax.get_xlim()[1]
    assert {"fitted ± sd of runs", "held out ± sd of runs", "posterior median"} <= set(labels(ax))
    assert ax.get_ylabel() == "expected accuracy"


def test_curve_draws_quantiles_of_its_prediction_and_dashes_beyond_the_data(counts_fit):
    at = np.array([1.0, 10.0, 100.0, 200.0])
    ax = plot_curve(counts_fit, kind="law", at=at)
    median = line(ax, "posterior median")
    beyond = [ln for ln in ax.lines if ln.get_linestyle() == "--" and ln.get_color() == median.get_color()]
    expected = np.median(counts_fit.predict(at, "law").draws, axis=0)
    np.testing.assert_allclose(median.get_ydata(), expected[:3])
    np.testing.assert_allclose(beyond[0].get_ydata(), expected[2:])
    lower, upper = counts_fit.predict(at, "law").interval(0.9)
    assert band(ax, "90% interval")[:, 1].max() == pytest.approx(upper.max())
    assert band(ax, "90% interval")[:, 1].min() == pytest.approx(lower.min())


def test_the_law_alone_is_drawn_where_the_curve_may_leave_it(counts_fit, nll_fit):
    assert "law alone" not in labels(plot_curve(counts_fit))
    model = compose(nll_fit.law, with_discrepancy(nll_fit.model.likelihood))
    leaving = replace(nll_fit, model=model, draws={**nll_fit.draws, "sigma_delta": np.full((2, 60), 0.5)})
    ax = drawn(plot_curve(leaving))
    law = line(ax, "law alone")
    np.testing.assert_allclose(law.get_ydata(), np.median(leaving.predict(law.get_xdata(), "law").draws, axis=0))
    assert "law alone" not in labels(plot_curve(leaving, kind="law"))


def test_held_out_points_are_hollow_averages_of_their_runs(counts_fit):
    ax = plot_curve(counts_fit, held_out=LATER)
    held, fitted = ax.containers[1][0], ax.containers[0][0]
    np.testing.assert_allclose(held.get_xdata(), [200, 400])
    np.testing.assert_allclose(held.get_ydata(), [0.72, 0.78])
    assert held.get_markerfacecolor() == "white" and fitted.get_markerfacecolor() == "black"
    points = observed_points(counts_fit)
    np.testing.assert_allclose(fitted.get_ydata(), points.value)
    assert (points.lower < points.value).all() and (points.value < points.upper).all()


def test_horizon_sets_the_end_of_the_axis(counts_fit):
    assert plot_curve(counts_fit, horizon=8).get_xlim()[1] == pytest.approx(800)
    assert plot_curve(counts_fit).get_xlim()[1] == pytest.approx(400)


@pytest.mark.parametrize("kind", ["mean", "new_observation", "new_run"])
def test_nll_curves_keep_their_own_scale(nll_fit, kind):
    ax = drawn(plot_curve(nll_fit, kind=kind))
    assert ax.get_ylim()[1] > 1.5 and "NLL" in ax.get_ylabel()
    assert ax.get_xscale() == "log" and 0 < ax.get_xlim()[0] < 1
    assert "fitted ± se" in labels(ax)
    assert line(ax, "posterior median").get_ydata()[0] > line(ax, "posterior median").get_ydata()[-1]


def test_names_are_drawn_verbatim(counts_fit):
    assert verbatim("a$b_c$\nd") == r"a\$b_c\$ d" and verbatim("_x").strip() == "_x"
    ax = plot_curve(replace(counts_fit, findings=()))
    assert ax.get_title(loc="left").replace("\n", " ") == f"{NAME}, hill".replace("$", r"\$")


def test_a_failed_fit_says_so_in_the_title_and_the_legend(counts_fit):
    failed = replace(counts_fit, findings=(Finding("RHAT", "fail", "chains differ"),))
    passed = replace(counts_fit, findings=())
    assert "FAILED: RHAT" in plot_curve(failed).get_title(loc="left").replace("\n", " ")
    assert "FAILED" not in plot_curve(passed).get_title(loc="left")
    assert [text for text in labels(plot_laws([failed, passed])) if "hill" in text] == ["hill (failed)", "hill"]


def test_the_callers_axes_are_used_and_no_figure_is_made(counts_fit):
    for layout in (None, "constrained"):
        figure, ax = plt.subplots(figsize=(3, 2.4), layout=layout)
        before = plt.get_fignums()
        assert plot_curve(counts_fit, ax=ax) is ax
        assert plt.get_fignums() == before
        figure.canvas.draw()
        box = ax.get_legend().get_window_extent()
        assert box.x0 > 0 and box.x1 < figure.bbox.width and box.y0 > 0


def test_legend_lies_below_the_axis_label(counts_fit):
    ax = drawn(plot_curve(counts_fit))
    assert ax.get_legend().get_window_extent().y1 <= ax.xaxis.label.get_window_extent().y0 + 1


def test_laws_differ_by_dashes_and_markers_not_by_hue_alone(counts_fit):
    ax = drawn(plot_laws([counts_fit] * 3, held_out=LATER))
    medians = [ln for ln in ax.lines if ln.get_label() in ("hill", "hill (failed)")]
    assert len({str(ln._unscaled_dash_pattern) for ln in medians}) == 3
    assert len({ln.get_marker() for ln in medians}) == 3
    edges = [ln for ln in ax.lines if ln.get_linewidth() == 0.7]
    assert len(edges) == 6
    assert (edges[0].get_ydata() < medians[0].get_ydata()).all()
    assert (edges[1].get_ydata() > medians[0].get_ydata()).all()


def test_laws_of_different_curves_are_refused(counts_fit, nll_fit):
    with pytest.raises(InputError, match="PLOT-CURVES"):
        plot_laws([counts_fit, nll_fit])
    with pytest.raises(InputError, match="PLOT-CURVES"):
        plot_laws([])


def test_parameters_show_prior_posterior_interval_and_contraction(counts_fit):
    panels = plot_parameters(counts_fit)
    assert len(panels) == len(counts_fit.law.derived_meaning)
    table = counts_fit.summary().set_index("parameter")
    for name, panel in zip(counts_fit.law.derived_meaning, panels, strict=True):
        drawn(panel)
        row = table.loc[name]
        caption = panel.get_title(loc="right").replace("\n", " ")
        assert f"contraction {row.contraction:.2f}" in caption
        assert ("not identified" in caption) == (row.contraction < 0.3)
        np.testing.assert_allclose(marked(panel, "interval-0.9")[0].get_xdata(), [row.q05, row.q95])
        np.testing.assert_allclose(marked(panel, "interval-0.5")[0].get_xdata(), [row.q25, row.q75])
        low, high = panel.get_xlim()
        assert low <= row.q05 and row.q95 <= high
        assert line(panel, "prior").get_linestyle() == "--"


def test_an_axis_of_probabilities_has_ticks_enough_to_read_it_by():
    assert logit_ticks(1e-7, 0.3) == [1e-6, 1e-4, 1e-3, 0.01, 0.1]
    assert logit_ticks(0.002, 0.07) == [0.002, 0.005, 0.01, 0.02, 0.05]


def test_an_unidentified_parameter_is_hatched(counts_fit):
    prior = counts_fit.prior["gamma"]
    same = replace(counts_fit, draws={**counts_fit.draws, "gamma": prior[:120].reshape(2, 60)})
    (panel,) = plot_parameters(same, ["gamma"])
    assert panel.collections[0].get_hatch() and "not identified" in panel.get_title(loc="right").replace("\n", " ")
    (panel,) = plot_parameters(counts_fit, ["floor"])
    assert panel.collections[0].get_hatch() is None


def test_parameters_choose_their_scale_and_refuse_what_is_not_there(counts_fit):
    scale = {name: scale_of(marginals_of(counts_fit, name)[0])[0] for name in ("gamma", "n50", "log_n50")}
    assert scale == {"gamma": "linear", "n50": "log", "log_n50": "linear"}
    with pytest.raises(InputError, match="PLOT-NAMES"):
        plot_parameters(counts_fit, ["K"])
    constant = replace(counts_fit, draws={**counts_fit.draws, "s": np.ones((2, 60))})
    with pytest.raises(InputError, match="constant"):
        plot_parameters(constant, ["s"])
    assert len(plot_parameters(constant)) == 3
    with pytest.raises(InputError, match="PLOT-AXES"):
        plot_parameters(counts_fit, ax=[plt.subplots()[1]])


def comparison_table(**more):
    table = pd.DataFrame(
        {
            "law": ["b_$x$", "ref", "_worst", "best"],
            "difference": [-0.01, 0.0, -0.03, 0.02],
            "se": [0.004, np.nan, 0.01, 0.005],
            "n_curves": 12,
            "reference": "ref",
            "metric": "crps",
        }
    )
    return table.assign(**more)


def test_comparison_puts_the_best_on_top_with_bars_of_its_standard_error():
    ax = drawn(plot_comparison(comparison_table()))
    names = [text.get_text().strip() for text in sorted(ax.get_yticklabels(), key=lambda text: -text.get_position()[1])]
    assert names == ["best", "ref", r"b_\$x\$", "_worst"]
    thin, thick = (collection.get_segments()[0] for collection in ax.collections)
    np.testing.assert_allclose(thin, [[0.02 - 1.96 * 0.005, 3], [0.02 + 1.96 * 0.005, 3]])
    np.testing.assert_allclose(thick, [[0.015, 3], [0.025, 3]])
    assert marked(ax, "zero")[0].get_xdata() == [0.0, 0.0]
    assert "gain (right is better)" in ax.get_xlabel() and "over 12 curves" in ax.get_title(loc="left")


@pytest.mark.parametrize("metric", ["crps", "log_score"])
def test_comparison_draws_what_compare_returns_with_its_sign(metric):
    score = {"good": 0.1, "bad": 0.3} if metric == "crps" else {"good": 2.0, "bad": 1.0}
    table = comparison_table().drop(columns=["metric", "reference"]).iloc[:2]
    table = table.assign(law=["bad", "good"], difference=[-0.2, 0.0], **{metric: [score["bad"], score["good"]]})
    ax = plot_comparison(Comparison(table, "", metric, 0.5, "good"))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["good", "bad"]  # the first is at the top
    assert ax.get_yticks().tolist() == [1, 0] and "from good" in ax.get_title(loc="left")


def test_comparison_names_what_is_missing():
    ax = plot_comparison(comparison_table(se=np.nan, n_curves=[1, 2, 1, 1]))
    assert [text.get_text() for text in ax.get_yticklabels()][:2] == ["best (1, no se)", "ref (2)"]
    with pytest.raises(InputError, match="the metrics are crps"):
        plot_comparison(comparison_table(), metric="nrmse")
    with pytest.raises(InputError, match="no column se"):
        plot_comparison(comparison_table().drop(columns="se"))
    with pytest.raises(InputError, match="several references"):
        plot_comparison(comparison_table(reference=["a", "b", "a", "a"]))


@pytest.mark.parametrize("count", [30, 500])
def test_pit_band_is_simultaneous(count):
    z, lower, upper = simultaneous_band(count, 0.95)
    values = np.sort(np.random.default_rng(7).uniform(size=(600, count)), axis=1)
    share = np.stack([np.searchsorted(row, z[1:-1], side="right") for row in values]) / count
    inside = ((share >= lower[1:-1]) & (share <= upper[1:-1])).all(axis=1).mean()
    assert 0.92 < inside <= 0.995


def test_pit_says_whether_the_line_leaves_the_band():
    rng = np.random.default_rng(0)
    ax = drawn(plot_pit(rng.uniform(size=100)))
    assert "stays within" in ax.get_title(loc="left") and ax.get_xlim() == (0.0, 1.0)
    assert ax.lines[1].get_ydata()[-1] == 0.0
    assert "leaves" in plot_pit(rng.beta(0.3, 0.3, size=100)).get_title(loc="left")
    with pytest.raises(InputError, match="PLOT-PIT"):
        plot_pit([0.5, np.nan])


def test_threshold_reads_as_a_distribution_with_a_gap():
    draws = np.concatenate([np.geomspace(10, 5000, 75), np.full(25, np.inf)])
    ax = drawn(plot_threshold(draws, largest_shots=100, horizon=10, label="$0.5_x"))
    assert ax.get_xlim()[1] == 1000
    reached = np.mean(draws <= 1000)
    np.testing.assert_allclose(marked(ax, "gap")[0].get_ydata(), [reached, 1.0])
    assert marked(ax, "never")[0].get_text() == f"{1 - reached:.0%} not by\n1,000 shots"
    within, beyond = (ln for ln in ax.lines if ln.get_drawstyle() == "steps-post")
    assert within.get_linestyle() == "-" and beyond.get_linestyle() == "--"
    assert within.get_xdata()[-1] == beyond.get_xdata()[0] == 100
    assert within.get_ydata()[-1] == np.mean(draws <= 100)
    assert beyond.get_ydata()[-1] == reached
    assert "to beyond 1,000" in ax.get_title(loc="left").replace("\n", " ")
    quartiles = np.quantile(draws, [0.25, 0.75], method="inverted_cdf")
    np.testing.assert_allclose(marked(ax, "interval-0.5")[0].get_xdata(), np.minimum(quartiles, 1000))


def test_threshold_takes_a_crossing(counts_fit):
    found = crossing(counts_fit, 0.5, horizon=1000)
    ax = drawn(plot_threshold(found))
    assert ax.get_xlim()[1] == 1000 and "to cross 0.5" in ax.get_title(loc="left")
    assert marked(ax, "boundary-label")[0].get_text() == "observed up to 100 shots"
    middle = [ln for ln in ax.lines if ln.get_marker() == "o"]
    assert middle[0].get_xdata()[0] == pytest.approx(np.median(found.shots), rel=0.02)


def test_threshold_at_its_limits():
    ax = drawn(plot_threshold(np.full(10, np.inf), largest_shots=50))
    assert "beyond 500 with more than 95%" in ax.get_title(loc="left").replace("\n", " ")
    ax = drawn(plot_threshold(np.zeros(10), never=100))
    assert ax.get_xscale() == "symlog" and marked(ax, "never")[0].get_text().startswith("0% not by")
    ax = plot_threshold(np.array([5.0, 90.0, 100.0, 300.0]), never=100)
    assert marked(ax, "gap")[0].get_ydata()[0] == 0.5
    with pytest.raises(InputError, match="PLOT-THRESHOLD"):
        plot_threshold([1.0, np.nan])


@pytest.mark.parametrize(("law", "kind"), [("tempered", "counts"), ("power", "nll_mean"), ("joint", "counts")])
def test_prior_predictive_bands_hold_their_share_of_curves(law, kind):
    law = next(law for law in LAWS.values() if law.joint) if law == "joint" else LAWS[law]
    ax = drawn(plot_prior_predictive(law, kind=kind, facts={"chance": 0.25}, draws=100))
    assert len(line_heights(ax)) == 25
    assert (ax.get_xlim()[0] <= 0) != law.singular_at_zero
    assert ax.get_ylim()[0] == 0 and (kind == "nll_mean" or ax.get_ylim()[1] == 1)
    assert ("NLL" in ax.get_ylabel()) == (kind == "nll_mean")


def line_heights(ax):
    return [ln.get_ydata() for ln in ax.lines if ln.get_linewidth() == 0.6]


def test_prior_curves_follow_the_facts(counts_fit):
    model = replace(counts_fit.model, law=LAWS["tempered"])
    facts = {"first_value": 0.5}
    low, high = (prior_curves(model, SHOTS, facts | {"chance": chance}, 200, 0) for chance in (0.02, 0.5))
    assert np.median(low[:, 0]) < np.median(high[:, 0]) - 0.1
    assert low.shape == (200, len(SHOTS)) and ((low > 0) & (low < 1)).all()


def test_posterior_predictive_scores_are_normal_scores_of_ranks(counts_fit):
    points = observed_points(counts_fit)
    draws = counts_fit.predict(points.shots, "new_observation").draws
    centre = np.median(draws, axis=0)
    np.testing.assert_allclose(predictive_scores(counts_fit, points.shots, centre, 0, 0), 0.0, atol=0.05)
    far = predictive_scores(counts_fit, points.shots, np.ones(len(centre)), 0, 0)
    assert (far > 2).all() and (far <= 4).all()


def test_posterior_predictive_counts_what_lies_outside(counts_fit):
    wrong = (np.array([200.0, 400.0]), np.array([0.01, 0.02]))
    ax = drawn(plot_posterior_predictive(counts_fit, held_out=wrong))
    assert "held out: 2 of 2 outside 90%" in labels(ax)
    (crosses,) = [ln for ln in ax.lines if ln.get_marker() == "X"]
    np.testing.assert_allclose(crosses.get_xdata(), wrong[0])
    assert (crosses.get_ydata() < -1.64).all()
    assert any(text.startswith("fitted: ") for text in labels(ax)) and marked(ax, "boundary")


def test_posterior_predictive_of_nll(nll_fit):
    ax = drawn(plot_posterior_predictive(nll_fit))
    assert not marked(ax, "boundary") and ax.get_xscale() == "log"
    assert sum(len(ln.get_xdata()) for ln in ax.lines if ln.get_marker() in "ox") == len(SHOTS) - 1


def test_points_are_checked_at_the_door():
    for bad in (([1.0], [0.5, 0.6]), ([], []), ([1.0], [np.nan])):
        with pytest.raises(InputError, match="PLOT-POINTS"):
            average_runs(*bad)


@pytest.mark.parametrize(("low", "high"), [(1, 30), (1, 200), (1, 2000), (3, 9), (100, 120), (1e-7, 1e5), (0.5, 1e12)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 9 and (ticks >= low * 0.999).all() and (ticks <= high * 1.001).all()
    lead = ticks / 10 ** np.floor(np.log10(ticks) + 1e-9)
    assert all(float(f"{x:.3g}") == pytest.approx(x) for x in lead)


@pytest.mark.parametrize(("low", "boundary", "high"), [(0, 100, 400), (1, 50, 50), (0, 0, 4), (5, 5, 20)])
def test_grid_holds_its_ends_and_the_boundary(low, boundary, high):
    grid = shot_grid(low, boundary, high)
    assert len(grid) == 80 and (np.diff(grid) >= 0).all()
    assert grid[0] == pytest.approx(low, abs=1e-12) and grid[-1] == pytest.approx(high)
    assert np.isclose(grid, boundary).any() and grid.min() >= low
