"""The table of laws.

`LAWS` maps a name to a `Law`. Adding a law is one module and one line here; every contract test then applies to it.
"""

from __future__ import annotations

from bayesscale.law import Law
from bayesscale.laws import broken, joint, logistic, power, rectified, single

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        *single.ON_CURVE,
        *single.STRICT,
        *joint.JOINT,
        power.POWER,
        power.BOUNDED_POWER,
        logistic.LOGISTIC,
        logistic.HILL,
        rectified.RECTIFIED,
        broken.BROKEN_POWER,
    )
}

DEFAULT_LAW = "tempered"
DEFAULT_LAWS = ("tempered", "log_shots", "linear", "power", "bounded_power", "logistic", "rectified", "broken_power")
"""What a comparison holds unless the user names laws: the default, its two fixed forms, and the baselines."""
