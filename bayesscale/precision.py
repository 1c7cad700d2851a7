"""The one place that touches JAX's float64 switch.

Importing bayesscale changes no global JAX setting. float64 is on by default: the first fit turns it on, by
`enable_float64`, and says so once in the log. Counts, log-gamma differences and sums over 1e5 trials need it; float32
loses 0.04 nats there, which a sampler feels. Set the environment variable ``BAYESSCALE_FLOAT64=0`` to keep your own
setting; a float32 fit then runs with a warning in place of the error of `require_float64`.
"""

import logging
import os
import warnings

import jax

_LOG = logging.getLogger(__name__)
_VARIABLE = "BAYESSCALE_FLOAT64"


def enable_float64() -> None:
    """Turn float64 on for this process, unless it is on or the user asked to keep their own setting."""
    if _is_float64() or _user_decides():
        return
    jax.config.update("jax_enable_x64", True)
    _LOG.info("bayesscale turned on JAX's float64 for this process; set %s=0 to keep your own setting.", _VARIABLE)


def require_float64() -> None:
    """Refuse to go on in float32; only warn if the user asked to keep their own setting."""
    if _is_float64():
        return
    if not _user_decides():
        raise RuntimeError(
            "JAX is in float32, too coarse here: call bayesscale.precision.enable_float64() before making arrays."
        )
    warnings.warn(f"{_VARIABLE}=0 keeps JAX in float32: log densities of large counts lose digits.", stacklevel=2)


def _is_float64() -> bool:
    return bool(jax.config.read("jax_enable_x64"))


def _user_decides() -> bool:
    return os.environ.get(_VARIABLE, "").strip() == "0"
