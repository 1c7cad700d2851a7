"""Plots: each function draws on one `ax` (a new figure's unless given) and returns it; `plot_parameters` on several.

Intervals are equal-tailed posterior intervals of 50% and 90% unless a docstring says otherwise; what lies beyond the
observed shots is set apart. Meaning is carried by luminance, dashes and markers, never by hue alone.
"""

from bayesscale.plots.comparison import plot_comparison
from bayesscale.plots.coverage import plot_coverage
from bayesscale.plots.curves import plot_curve
from bayesscale.plots.laws import plot_laws
from bayesscale.plots.newmodel import plot_new_model
from bayesscale.plots.parameters import plot_parameters
from bayesscale.plots.pit import plot_pit
from bayesscale.plots.predictive import plot_posterior_predictive, plot_prior_predictive
from bayesscale.plots.rates import plot_counts, plot_rates
from bayesscale.plots.threshold import plot_threshold
from bayesscale.plots.verifier import plot_utility, plot_verifier
from bayesscale.plots.votes import plot_votes

__all__ = [
    "plot_comparison",
    "plot_counts",
    "plot_coverage",
    "plot_curve",
    "plot_laws",
    "plot_new_model",
    "plot_parameters",
    "plot_pit",
    "plot_posterior_predictive",
    "plot_prior_predictive",
    "plot_rates",
    "plot_threshold",
    "plot_utility",
    "plot_verifier",
    "plot_votes",
]
