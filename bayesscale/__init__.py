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
    from bayesscale.comparison import compare, score_table
    from bayesscale.conditions import which_moved
    from bayesscale.curves import Curves
    from bayesscale.decisions.threshold import crossing, value_at, value_of_doubling
    from bayesscale.finding import Finding, InputError
    from bayesscale.fitting import fit, fit_many
    from bayesscale.holdout import evaluate
    from bayesscale.inference.settings import Sampler
    from bayesscale.ingest.table import read_curves
    from bayesscale.law import Law
    from bayesscale.laws import LAWS
    from bayesscale.leave_one_out import loo
    from bayesscale.likelihood import LIKELIHOODS, Likelihood
    from bayesscale.parameter import Parameter
    from bayesscale.plots import plot_comparison, plot_curve, plot_laws, plot_parameters, plot_pit, plot_threshold
    from bayesscale.pooled import fit_pooled
    from bayesscale.pooling import complete, none, partial
    from bayesscale.result import Fit, load
    from bayesscale.simulation.curves import simulate_icl

_HOME = {
    "Curves": "curves",
    "Finding": "finding",
    "Fit": "result",
    "InputError": "finding",
    "LAWS": "laws",
    "LIKELIHOODS": "likelihood",
    "Law": "law",
    "Likelihood": "likelihood",
    "Parameter": "parameter",
    "Sampler": "inference.settings",
    "compare": "comparison",
    "crossing": "decisions.threshold",
    "evaluate": "holdout",
    "which_moved": "conditions",
    "fit_pooled": "pooled",
    "complete": "pooling",
    "none": "pooling",
    "partial": "pooling",
    "fit": "fitting",
    "fit_many": "fitting",
    "load": "result",
    "loo": "leave_one_out",
    "plot_comparison": "plots",
    "plot_curve": "plots",
    "plot_laws": "plots",
    "plot_parameters": "plots",
    "plot_pit": "plots",
    "plot_threshold": "plots",
    "read_curves": "ingest.table",
    "score_table": "comparison",
    "simulate_icl": "simulation.curves",
    "value_at": "decisions.threshold",
    "value_of_doubling": "decisions.threshold",
}
"""The module each public name lives in."""

__all__ = [
    "LAWS",
    "LIKELIHOODS",
    "Curves",
    "Finding",
    "Fit",
    "InputError",
    "Law",
    "Likelihood",
    "Parameter",
    "Sampler",
    "__version__",
    "compare",
    "crossing",
    "complete",
    "evaluate",
    "fit",
    "fit_many",
    "fit_pooled",
    "load",
    "loo",
    "none",
    "partial",
    "plot_comparison",
    "plot_curve",
    "plot_laws",
    "plot_parameters",
    "plot_pit",
    "plot_threshold",
    "read_curves",
    "score_table",
    "simulate_icl",
    "value_at",
    "value_of_doubling",
    "which_moved",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
