"""What a function is, in words that hold from one process to the next.

A trace kept on disk is found again by the function it is of. A function of this package, or of a library it is built on, is
its name; a closure is where it was written and what it closes over; a law, a likelihood or a prior is what it is made of. What
the user wrote has no identity here, because its source is not known: it is traced anew each time.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType, FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

KNOWN = ("bayesscale", "jax", "jaxlib", "numpyro", "numpy", "builtins", "functools", "math", "operator")
"""Packages whose names stand for their code; whoever keeps something under an identity tells their versions apart."""


class NoIdentityError(Exception):
    """Something in a value is not of the packages known, or of no kind that can be told in words."""


def identity(function: Callable[..., Any]) -> str | None:
    """A digest that is the same for the same function in every process, or None where there can be none."""
    try:
        return hashlib.sha256(repr(described(function)).encode()).hexdigest()
    except (NoIdentityError, RecursionError):
        return None


def described(value: Any) -> Any:
    """A value as nested tuples of plain things, with nothing in them that changes from process to process."""
    if value is None or value is ... or isinstance(value, bool | int | float | str | bytes):
        return value
    if type(value) is object:
        return "sentinel"  # stands for a value left out; which one, its place in the code says
    if isinstance(value, frozenset):
        return "frozenset", *sorted(repr(described(item)) for item in value)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return "key", str(value.dtype), described(jax.random.key_data(value))
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return "array", str(array.dtype), array.shape, array.tobytes()
    if isinstance(value, Mapping):
        return known(type(value)), *((described(key), described(item)) for key, item in value.items())
    if isinstance(value, tuple | list):
        return known(type(value)), *map(described, value)
    if isinstance(value, partial):
        return "partial", described(value.func), described(value.args), described(value.keywords)
    if isinstance(value, Distribution):
        held = sorted({*value.gather_pytree_data_fields(), *value.gather_pytree_aux_fields()})
        return known(type(value)), *((name, described(getattr(value, name, None))) for name in held)
    if is_dataclass(value) and not isinstance(value, type):
        return known(type(value)), *(described(getattr(value, field.name)) for field in fields(value))
    if named(value):
        return known(value)
    if isinstance(value, FunctionType):
        return closure(value)
    raise NoIdentityError(type(value).__qualname__)


def named(value: Any) -> bool:
    """Whether a value is what its module has under its name."""
    found: Any = sys.modules.get(getattr(value, "__module__", None) or "")
    for part in getattr(value, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is value


def known(value: Any) -> tuple[str, str]:
    """Module and name of a class or function of a known package.

    Raises
    ------
    NoIdentityError : it is somebody else's.
    """
    if value.__module__.partition(".")[0] not in KNOWN:
        raise NoIdentityError(f"{value.__module__}.{value.__qualname__}")
    return value.__module__, value.__qualname__


def closure(function: FunctionType) -> tuple[Any, ...]:
    """Where a function without a name of its own was written, what it does there, and what it closes over."""
    held = tuple(cell.cell_contents for cell in function.__closure__ or ())
    presets = (function.__defaults__, function.__kwdefaults__)
    return *known(function), written(function.__code__), described(held), described(presets)


def written(code: CodeType) -> tuple[Any, ...]:
    """What a piece of code does: two lambdas on one line differ in nothing else."""
    constants = (written(part) if isinstance(part, CodeType) else described(part) for part in code.co_consts)
    return code.co_firstlineno, code.co_code, code.co_names, *constants
