"""The table of success-rate laws.

`RATE_LAWS` maps a name to a `RateLaw`. Adding a law is one module and one line here; every contract test then applies.
"""

from __future__ import annotations

from bayesscale.rate_law import RateLaw
from bayesscale.rates import beta, kumaraswamy, logit_normal, mixture, scaled_beta, spliced, three_slope

RATE_LAWS: dict[str, RateLaw] = {
    law.name: law
    for law in (
        mixture.BETA_MIXTURE,
        beta.BETA,
        beta.ZERO_INFLATED_BETA,
        scaled_beta.SCALED_BETA,
        kumaraswamy.KUMARASWAMY,
        three_slope.THREE_SLOPE,
        spliced.SPLICED,
        logit_normal.LOGIT_NORMAL,
        beta.JEFFREYS,
    )
}

DEFAULT_RATE_LAW = "beta_mixture"

__all__ = ["DEFAULT_RATE_LAW", "RATE_LAWS", "RateLaw"]
