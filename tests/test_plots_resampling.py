"""Plots about repeated samples show what they say they show, on posteriors made by hand: nothing is fitted here."""

from __future__ import annotations

from itertools import permutations

import matplotlib as mpl

mpl.use("Agg")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from scipy.special import expit, logit  # noqa: E402
from scipy.stats import beta  # noqa: E402

from bayesscale.attempts import Attempts  # noqa: E402
from bayesscale.decisions.samples import choose_samples  # noqa: E402
from bayesscale.draws import Draws  # noqa: E402
from bayesscale.finding import Finding, InputError  # noqa: E402
from bayesscale.plots import plot_counts, plot_coverage, plot_rates, plot_utility, plot_votes  # noqa: E402
from bayesscale.plots.coverage import attempt_grid  # noqa: E402
from bayesscale.plots.rates import Bins, count_bins, short  # noqa: E402
from bayesscale.plots.verifier import bar_sides, observed_accuracy  # noqa: E402
from bayesscale.rates import RATE_LAWS  # noqa: E402
from bayesscale.resampling.fitting import RateFit  # noqa: E402
from bayesscale.resampling.forecast import CoverageForecast, forecast  # noqa: E402
from bayesscale.resampling.passk import empirical_coverage  # noqa: E402
from bayesscale.resampling.verifier import Stakes  # noqa: E402
from bayesscale.resampling.vote_forecast import VoteForecast  # noqa: E402

NAME = "$\\frac{a_b$ / été_θ→β$"
MEAN, TAIL = 0.05, 0.6


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def attempts_of(n, c, **more) -> Attempts:
    rows = np.size(c)
    return Attempts(
        key_names=("model",),
        keys=((NAME,),),
        model=np.zeros(rows, int),
        problems=tuple(f"p{i:03d}" for i in range(rows)),
        problem=np.arange(rows),
        n=np.broadcast_to(n, rows),
        n_correct=np.asarray(c),
        **more,
    )


def rate_fit(attempts: Attempts, findings=()) -> RateFit:
    """Draws of a Beta law close to mean .05 and tail index .6."""
    rng = np.random.default_rng(3)
    names = [p.name for p in RATE_LAWS["beta"].parameters]
    assert names == ["logit_mean", "log_tail_index"]
    centre = {"logit_mean": logit(MEAN), "log_tail_index": np.log(TAIL)}
    values = {name: centre[name] + 0.01 * rng.standard_normal((2, 100)) for name in names}
    return RateFit(RATE_LAWS["beta"], attempts, Draws(values, {}, {}, {}, tuple(findings)))


@pytest.fixture(scope="module")
def fit() -> RateFit:
    rng = np.random.default_rng(1)
    p = rng.beta(TAIL, TAIL * (1 - MEAN) / MEAN, 80)
    return rate_fit(attempts_of(100, rng.binomial(100, p)))


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def marked(ax, gid):
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def line(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


def drawn(ax):
    """Draw the figure, so that bad markup would raise, and return the axes."""
    ax.get_figure().canvas.draw()
    return ax


# Coverage -------------------------------------------------------------------------------------------------------------


def test_coverage_shows_the_forecast_other_laws_and_the_estimate(fit):
    k = attempt_grid(5000)
    own, other = forecast(fit, k), forecast(fit, k, seed=1)
    observed = empirical_coverage(fit.attempts, k[k <= 100])
    other = CoverageForecast("x", "rival_law", "solved", k, other.draws * 0.9, other.horizon, 1, 80, 1)
    with pytest.raises(InputError, match="several models"):
        plot_coverage([own, other])
    other = CoverageForecast(own.name, "rival_law", "solved", k, other.draws, other.horizon, 1, 80, 1)
    ax = drawn(plot_coverage([own, other], empirical=observed))
    median = line(ax, "beta, median")
    inside = k <= 100
    assert median.get_xdata() == pytest.approx(k[inside])
    assert median.get_ydata() == pytest.approx(np.median(own.draws, axis=0)[inside])
    assert line(ax, "rival_law").get_ydata() == pytest.approx(np.median(other.draws, axis=0))
    (boundary,) = [artist for artist in marked(ax, "boundary") if hasattr(artist, "get_xdata")]
    assert boundary.get_xdata()[0] == pytest.approx(100)
    assert marked(ax, "boundary-label")[0].get_text() == "sampled up to 100 attempts"
    assert {"unbiased pass@k, 90% CI", "50% interval", "90% interval"} <= set(labels(ax))
    assert ax.get_xscale() == "log" and ax.get_ylim()[1] > 0.9


def test_coverage_marks_where_some_problems_are_no_longer_sampled():
    counts = attempts_of(np.repeat([40, 400], 30), np.r_[np.zeros(15), np.ones(45)].astype(int))
    ax = drawn(plot_coverage(forecast(rate_fit(counts), attempt_grid(4000)), open_from=40))
    assert marked(ax, "partly") and "up to 40 at least" in marked(ax, "boundary-label")[0].get_text()


def test_attempts_are_whole_and_rise():
    k = attempt_grid(1e6)
    assert k[0] == 1 and k[-1] == 10**6 and (np.diff(k) > 0).all()


# Rates and counts -----------------------------------------------------------------------------------------------------


def test_the_population_is_that_of_the_law(fit):
    ax = drawn(plot_rates(fit))
    median = line(ax, "posterior median")
    width = np.log(10) / 2
    edges = np.append(median.get_xdata() - width / 2, median.get_xdata()[-1] + width / 2)
    expected = np.diff(beta.cdf(expit(edges), TAIL, TAIL * (1 - MEAN) / MEAN))
    assert median.get_ydata() == pytest.approx(expected, abs=0.006)
    (floor,) = [artist for artist in marked(ax, "boundary") if hasattr(artist, "get_xdata")]
    assert expit(floor.get_xdata()[0]) == pytest.approx(1 / 101)
    unsolved = (fit.attempts.n_correct == 0).mean()
    assert any(patch.get_height() == pytest.approx(unsolved) for patch in ax.patches if hasattr(patch, "get_height"))


def test_a_failed_fit_says_so(fit):
    failed = rate_fit(fit.attempts, [Finding("RHAT", "fail", "too large")])
    assert "FAILED: RHAT" in drawn(plot_rates(failed)).get_title(loc="left")


def test_counts_put_every_problem_into_one_bin(fit):
    ax = drawn(plot_counts(fit))
    seen = np.concatenate([line.get_ydata() for line in ax.lines if str(line.get_label()).startswith("observed")])
    assert seen.sum() == 80
    expected = np.concatenate([segment[:, 1].mean(keepdims=True) for segment in ax.collections[0].get_segments()])
    assert expected.sum() == pytest.approx(80, abs=5)
    assert [text.get_text() for text in ax.get_xticklabels()][:4] == ["0", "1", "2", "4"]


def test_bins_cover_the_range_without_gaps(fit):
    bins = count_bins(fit)
    assert (bins.first[1:] == bins.last[:-1] + 1).all() and bins.first[0] == 0 and bins.last[-1] == 100
    stopped = attempts_of([20, 40, 100], [1, 2, 0], stopping="batch", batch=20, cap=100)
    found = count_bins(rate_fit(stopped))
    assert found.first.tolist() == [1, 21, 61, 101] and found.last.tolist()[-1] == 101
    assert Bins(np.array([0, 1, 5]), np.array([0, 4, 9]), "").tally(np.array([0, 0, 4, 5, 9])).tolist() == [2, 1, 2]
    assert [short(x) for x in (7, 1024, 45_000, 3_000_000)] == ["7", "1k", "45k", "3M"]


def test_stopped_designs_count_attempts_and_capped_ones_are_refused():
    rng = np.random.default_rng(2)
    n = rng.choice([20, 40, 100], 40)
    counts = attempts_of(n, (n < 100).astype(int), stopping="batch", batch=20, cap=100)
    ax = drawn(plot_counts(rate_fit(counts)))
    assert ax.get_xticklabels()[-1].get_text() == "never" and "attempts until solved" in ax.get_xlabel()
    capped = attempts_of(n, (n < 100).astype(int), stopping="capped", cap=100)
    with pytest.raises(InputError, match="cannot be predicted"):
        plot_counts(rate_fit(capped))


# Verifier and votes ---------------------------------------------------------------------------------------------------


def test_accuracy_of_the_log_is_that_of_every_order_of_its_samples():
    outcomes = [("right", "wrong", "no", "no"), ("wrong", "wrong", "no", "right"), ("no",) * 4]

    def returned(order, k):
        return next((kind == "right" for kind in order[:k] if kind != "no"), False)

    accepted = [sum(kind != "no" for kind in each) for each in outcomes]
    right = [each.count("right") for each in outcomes]
    counts = attempts_of(4, right, n_accepted=np.array(accepted), n_correct_accepted=np.array(right))
    found = observed_accuracy(counts, np.arange(1, 10))
    assert found is not None and found[0].tolist() == [1, 2, 3, 4]
    for k, value in zip(*found, strict=True):
        brute = np.mean([np.mean([returned(order, k) for order in permutations(each)]) for each in outcomes])
        assert value == pytest.approx(brute)


def test_accuracy_of_the_log_needs_every_label():
    some = attempts_of(4, [1, 2], n_accepted=np.array([2, 3]), n_labelled=np.array([1, 3]),
                       n_correct_accepted=np.array([1, 2]))  # fmt: skip
    assert observed_accuracy(some, np.arange(1, 5)) is None


def test_utility_shows_the_choice_and_where_the_best_lies():
    rng = np.random.default_rng(0)
    a = expit(rng.normal(0, 2, (60, 50)))
    s = expit(1.3 + 0.7 * logit(a) + rng.normal(0, 0.5, (60, 50)))
    choice = choose_samples(a, s, Stakes(1, 2, 0.01), name=NAME)
    ax = drawn(plot_utility(choice))
    assert line(ax, "posterior mean").get_ydata()[0] == 0.0
    (recommended,) = marked(ax, "recommended")
    assert recommended.get_xdata()[0] == choice.recommended
    heights = np.array([bar.get_height() for bar in marked(ax, "best")])
    assert heights.sum() / heights.max() == pytest.approx(1 / (heights / heights.sum()).max())
    assert heights[-1] / heights.sum() == pytest.approx(np.mean(choice.best > ax.get_lines()[0].get_xdata()[-1]))
    assert heights[0] / heights.sum() == pytest.approx(choice.p_abstain)
    assert min(ax.get_yticks()) >= choice.utility[:, choice.at <= 100].min() - 0.1


def test_bars_touch_and_hold_their_numbers():
    at = np.array([0.0, 1, 2, 3, 10])
    left, right = bar_sides(at)
    assert (left < right).all() and ((left <= at) & (at <= right)).all()
    assert left[2:] == pytest.approx(right[1:-1])


def test_votes_show_the_vote_one_sample_and_the_limit():
    rng = np.random.default_rng(0)
    single = 0.5 + 0.01 * rng.standard_normal(200)
    majority = single[:, None] + np.array([0.0, 0.05, 0.08])
    made = VoteForecast(NAME, "these", np.array([1, 8, 32]), single, majority, single + 0.1, majority + 0.1)
    ax = drawn(plot_votes(made))
    assert line(ax, "vote, median").get_ydata() == pytest.approx(np.median(majority, axis=0))
    (horizontal,) = marked(ax, "single")
    assert horizontal.get_ydata()[0] == pytest.approx(np.median(single))
    (ceiling,) = marked(ax, "ceiling")
    assert ceiling.get_ydata()[0] == pytest.approx(np.median(single) + 0.1)
    assert "limit of voting +10.0" in ax.get_title(loc="left")
