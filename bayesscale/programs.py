"""Programs: functions compiled by jax, whose traces can be kept on disk from one command to the next.

Before jax compiles a function it traces and lowers it, in Python. For the density of a law with its gradient that takes
longer than all the rest of a small fit whose compiled programs are at hand. Where a folder is named by the environment variable
``BAYESSCALE_TRACES``, what was traced is kept there (`jax.export`), and a later process neither traces nor lowers it. Results
do not depend on it, to the last bit.

A trace is found again by everything that it came from: the function (see `bayesscale.identity`), the shapes and types of its
arguments, the sources of this package, the versions of the libraries, and the settings of jax. Over several devices nothing
is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import jax

from bayesscale.identity import identity

VARIABLE = "BAYESSCALE_TRACES"
LIBRARIES = ("jax", "jaxlib", "numpyro", "numpy")
_LOG = logging.getLogger(__name__)
_telling = Lock()
_storable: dict[type, bool] = {}
"""Named tuples that traces may take and return, and whether jax has been told of them."""


def storable[T: type](kind: T) -> T:
    """Class decorator for a NamedTuple: a trace that takes or returns it can be kept."""
    _storable[kind] = False
    return kind


class Program:
    """A function of arrays, compiled once per shape of its arguments; what it is given in `donate` it may overwrite."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        donate: tuple[int, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.function = function
        self.settings: dict[str, Any] = {"donate_argnums": donate, "compiler_options": options and dict(options)}
        self.jitted = jax.jit(function, **self.settings)
        self.kept: dict[Any, Callable[..., Any]] = {}

    @cached_property
    def identity(self) -> str | None:
        """What the function is, where that can be told."""
        return identity(self.function)

    def __call__(self, *arguments: Any) -> Any:
        folder = os.environ.get(VARIABLE)
        if not folder or jax.device_count() > 1 or self.identity is None:
            return self.jitted(*arguments)
        leaves, tree = jax.tree.flatten(arguments)
        shapes = (tree, *((kind.shape, str(kind.dtype), kind.weak_type) for kind in map(jax.typeof, leaves)))
        if shapes not in self.kept:
            self.kept[shapes] = self.found(Path(folder), repr(shapes), arguments)
        return self.kept[shapes](*arguments)

    def found(self, folder: Path, shapes: str, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """Take the trace for these arguments from the folder; where there is none, trace, and keep it there."""
        from jax import export

        with _telling:  # another thread may compile ahead
            for kind in [kind for kind, told in _storable.items() if not told]:
                name = f"{kind.__module__}.{kind.__qualname__}"
                export.register_namedtuple_serialization(kind, serialized_name=name)
                _storable[kind] = True
        name = hashlib.sha256(repr((circumstances(), self.identity, shapes)).encode()).hexdigest()
        stored = read(folder / name)
        if stored is None:
            trace = export.export(self.jitted)(*arguments)
            write(folder / name, bytes(trace.serialize()))
        else:
            trace = export.deserialize(bytearray(stored))
        return jax.jit(trace.call, **self.settings)


def circumstances() -> tuple[Any, ...]:
    """What traces depend on beside their function and its arguments."""
    settings = sorted(
        (name, value) for name, value in os.environ.items() if name.startswith("JAX_") and "CACHE" not in name
    )
    return sources(), jax.default_backend(), bool(jax.config.read("jax_enable_x64")), *settings


@lru_cache(maxsize=1)
def sources() -> str:
    """Digest of this package's sources and of the versions of the libraries that its functions are made with."""
    digest = hashlib.sha256(repr([version(library) for library in LIBRARIES]).encode())
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read(path: Path) -> bytes | None:
    """What was kept under this name; nothing where it is missing or not what was written."""
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return body if digest == hashlib.sha256(body).hexdigest().encode() else None


def write(path: Path, body: bytes) -> None:
    """Keep it, whole or not at all; a folder that takes nothing more is said, and costs time only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        _LOG.warning("a trace cannot be kept in %s: %s", path.parent, error.strerror)
