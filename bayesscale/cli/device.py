"""Which device the work runs on: jax's own choice, or a platform named by the user."""

from __future__ import annotations

import os
from enum import StrEnum

from bayesscale.finding import InputError


class Device(StrEnum):
    """Where to compute; `auto` takes an accelerator where there is one."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    tpu = "tpu"


PLATFORMS = {Device.cpu: "cpu", Device.gpu: "cuda,cpu", Device.tpu: "tpu,cpu"}


def use_device(device: Device) -> None:
    """Have jax, which has not been imported yet, compute on this platform; workers inherit it.

    Raises
    ------
    InputError : there is no such device here.
    """
    if device is Device.auto:
        return
    os.environ["JAX_PLATFORMS"] = PLATFORMS[device]
    if device is Device.cpu:  # there always is one, and asking takes a second
        return
    import jax

    try:
        found = jax.devices()[0].platform
    except RuntimeError:
        found = "none"
    if found != device:
        what = f"jax finds no {device} here"
        fix = "install jax's package for it, or leave --device out"
        raise InputError("DEVICE", what, where="--device", fix=fix)
