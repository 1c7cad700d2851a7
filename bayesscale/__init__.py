"""Probabilistic scaling laws for language-model evaluation logs.

The tour, in the order one meets things:

`read_curves` turns tables into `Curves`: one row per observed point, one kind of observation, every doubt noted as a
`Finding`; what cannot be used is refused with an `InputError` that says where and how to mend it. `simulate_icl`
makes such tables with a known truth.

A `Law` says what a curve does as demonstrations grow, a `Likelihood` how observations scatter around it, a
`Parameter` what is unknown and what is believed before the data. `LAWS` and `LIKELIHOODS` are the tables of those
that come with the package; a law of one's own is passed in the same way.

`fit` gives the posterior of one curve under one law as a `Fit`, `fit_many` those of many curves; a `Sampler` holds
the settings. Nothing is called converged that is not: look at `Fit.status` and `Fit.findings`. `Fit.predict` says
what to expect at other shot counts, `Fit.summary` what was learned, `Fit.save` and `load` keep it.

`fit_pooled` fits curves together: per parameter, groups share it as `complete`, `none` or `partial` says.

`evaluate` fits many laws to many curves and forecasts the shots it held out; `score_table` scores every forecast,
`compare` says which law predicted best and whether that is certain; `loo` scores interpolation.

`crossing` answers how many shots a curve needs to reach a value, `value_at` what it is worth at given shots,
`value_of_doubling` what twice as many would add, `which_moved` what a condition such as fine-tuning changed: the prior
over tasks, what is learned from an example, or the levels. `plot_curve`, `plot_laws`, `plot_parameters`,
`plot_comparison`, `plot_pit` and `plot_threshold` draw all this.

Repeated samples have a side of their own. `read_attempts` turns tables of counts, one row per model and problem, into
`Attempts`, under whatever rule the sampling stopped; `read_votes` makes `Votes` of answers that vote. `fit_rates` gives
the posterior of how success rates vary over problems under a `RateLaw`, one of `RATE_LAWS` or one's own, and
`fit_rates_pooled` that of several models together. `forecast_coverage` says how many problems k attempts solve,
`sensitivity` how far that depends on the law, `empirical_coverage` what the counts say without one, and
`evaluate_coverage` scores such forecasts on samples held out. `fit_verifier` learns how an imperfect verifier errs,
`choose_budget` how many samples are then worth drawing at given `Stakes`; `fit_votes` forecasts majority votes.
`plot_coverage`, `plot_rates`, `plot_counts`, `plot_verifier`, `plot_utility` and `plot_votes` draw these;
`simulate_attempts`, `simulate_verifier` and `simulate_votes` make such tables with a known truth.

    curves = read_curves("accuracy.csv", curve=["model", "task"], x="shots", successes="correct", trials="n")
    one = fit(curves.subset([0]))
    print(one.predict([1000]).table())

Importing this package is cheap; what a name needs is imported when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bayesscale.attempts import Attempts
    from bayesscale.comparison import compare, score_table
    from bayesscale.conditions import which_moved
    from bayesscale.curves import Curves
    from bayesscale.decisions.threshold import crossing, value_at, value_of_doubling
    from bayesscale.finding import Finding, InputError
    from bayesscale.fitting import fit, fit_many
    from bayesscale.holdout import evaluate
    from bayesscale.inference.settings import Sampler
    from bayesscale.ingest.attempts import read_attempts
    from bayesscale.ingest.table import read_curves
    from bayesscale.ingest.votes import read_votes
    from bayesscale.law import Law
    from bayesscale.laws import LAWS
    from bayesscale.leave_one_out import loo
    from bayesscale.likelihood import LIKELIHOODS, Likelihood
    from bayesscale.parameter import Parameter
    from bayesscale.plots import (
        plot_comparison,
        plot_counts,
        plot_coverage,
        plot_curve,
        plot_laws,
        plot_parameters,
        plot_pit,
        plot_rates,
        plot_threshold,
        plot_utility,
        plot_verifier,
        plot_votes,
    )
    from bayesscale.pooled import fit_pooled
    from bayesscale.pooling import complete, none, partial
    from bayesscale.rates import RATE_LAWS, RateLaw
    from bayesscale.resampling.fitting import fit_rates
    from bayesscale.resampling.forecast import forecast as forecast_coverage
    from bayesscale.resampling.forecast import sensitivity
    from bayesscale.resampling.holdout import evaluate_coverage
    from bayesscale.resampling.passk import empirical_coverage
    from bayesscale.resampling.pooled import fit_rates_pooled
    from bayesscale.resampling.verifier import Stakes
    from bayesscale.resampling.verifier_fit import choose as choose_budget
    from bayesscale.resampling.verifier_fit import fit_verifier
    from bayesscale.resampling.vote_fit import fit_votes
    from bayesscale.result import Fit, load
    from bayesscale.simulation.curves import simulate_icl
    from bayesscale.simulation.resampling import simulate_attempts, simulate_verifier, simulate_votes
    from bayesscale.votes import Votes

_HOME = {
    "Attempts": "attempts",
    "Curves": "curves",
    "Finding": "finding",
    "Fit": "result",
    "InputError": "finding",
    "LAWS": "laws",
    "LIKELIHOODS": "likelihood",
    "Law": "law",
    "Likelihood": "likelihood",
    "Parameter": "parameter",
    "RATE_LAWS": "rates",
    "RateLaw": "rates",
    "Sampler": "inference.settings",
    "Stakes": "resampling.verifier",
    "Votes": "votes",
    "choose_budget": "resampling.verifier_fit:choose",
    "compare": "comparison",
    "complete": "pooling",
    "crossing": "decisions.threshold",
    "empirical_coverage": "resampling.passk",
    "evaluate": "holdout",
    "evaluate_coverage": "resampling.holdout",
    "fit": "fitting",
    "fit_many": "fitting",
    "fit_pooled": "pooled",
    "fit_rates": "resampling.fitting",
    "fit_rates_pooled": "resampling.pooled",
    "fit_verifier": "resampling.verifier_fit",
    "fit_votes": "resampling.vote_fit",
    "forecast_coverage": "resampling.forecast:forecast",
    "load": "result",
    "loo": "leave_one_out",
    "none": "pooling",
    "partial": "pooling",
    "plot_comparison": "plots",
    "plot_counts": "plots",
    "plot_coverage": "plots",
    "plot_curve": "plots",
    "plot_laws": "plots",
    "plot_parameters": "plots",
    "plot_pit": "plots",
    "plot_rates": "plots",
    "plot_threshold": "plots",
    "plot_utility": "plots",
    "plot_verifier": "plots",
    "plot_votes": "plots",
    "read_attempts": "ingest.attempts",
    "read_curves": "ingest.table",
    "read_votes": "ingest.votes",
    "score_table": "comparison",
    "sensitivity": "resampling.forecast",
    "simulate_attempts": "simulation.resampling",
    "simulate_icl": "simulation.curves",
    "simulate_verifier": "simulation.resampling",
    "simulate_votes": "simulation.resampling",
    "value_at": "decisions.threshold",
    "value_of_doubling": "decisions.threshold",
    "which_moved": "conditions",
}
"""The module each public name lives in; what has another name there is given as module:name."""

__all__ = [
    "Attempts",
    "Curves",
    "Finding",
    "Fit",
    "InputError",
    "LAWS",
    "LIKELIHOODS",
    "Law",
    "Likelihood",
    "Parameter",
    "RATE_LAWS",
    "RateLaw",
    "Sampler",
    "Stakes",
    "Votes",
    "__version__",
    "choose_budget",
    "compare",
    "complete",
    "crossing",
    "empirical_coverage",
    "evaluate",
    "evaluate_coverage",
    "fit",
    "fit_many",
    "fit_pooled",
    "fit_rates",
    "fit_rates_pooled",
    "fit_verifier",
    "fit_votes",
    "forecast_coverage",
    "load",
    "loo",
    "none",
    "partial",
    "plot_comparison",
    "plot_counts",
    "plot_coverage",
    "plot_curve",
    "plot_laws",
    "plot_parameters",
    "plot_pit",
    "plot_rates",
    "plot_threshold",
    "plot_utility",
    "plot_verifier",
    "plot_votes",
    "read_attempts",
    "read_curves",
    "read_votes",
    "score_table",
    "sensitivity",
    "simulate_attempts",
    "simulate_icl",
    "simulate_verifier",
    "simulate_votes",
    "value_at",
    "value_of_doubling",
    "which_moved",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own_name = _HOME[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), own_name or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
