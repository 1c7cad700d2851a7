"""Settings of `bayesscale fit`: what is fitted, how, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from bayesscale.finding import InputError
from bayesscale.inference.settings import Sampler
from bayesscale.law import Law

Keep = Literal["thinned", "draws", "summary"]
MOST_POOLED = 64
"""Curves up to which all are fitted together too unless asked otherwise: one posterior over all of them grows with them."""


@dataclass(frozen=True)
class Settings:
    """What is fitted, and how.

    Attributes
    ----------
    laws : the laws, each under a name of its own.
    shares : shares of the shots axis to train on; none for no hold-out.
    likelihood, discrepancy, task_key : as in `fit_many`.
    pool : whether the first law also forecasts from all curves together; None: where curves have siblings and are at most
        `MOST_POOLED`.
    leave_one_out, refit : whether to estimate leave-one-out, and whether to refit exactly where that estimate fails.
    keep : "thinned" draws of every fit, all "draws", or the "summary" alone, without files of fits.
    chunk : units fitted and stored together; a kill costs what is under way of one. None: see `chunk_size`.
    plots : curves to draw at most; 0 for no plots.
    """

    laws: tuple[Law, ...]
    shares: tuple[float, ...] = (0.5,)
    likelihood: str | None = None
    discrepancy: bool = True
    task_key: str | None = None
    pool: bool | None = None
    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 0
    leave_one_out: bool = True
    refit: bool = True
    keep: Keep = "thinned"
    chunk: int | None = None
    plots: int = 12

    def __post_init__(self) -> None:
        names = [law.name for law in self.laws]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            what = f"two laws are called {twice[0]}" if twice else "there is no law to fit"
            raise InputError("OPTIONS", what, fix="give each law a name of its own")
        for share in self.shares:
            if not 0 < share < 1:
                raise InputError("OPTIONS", f"a training share must lie between 0 and 1, got {share:g}")
        if self.keep not in get_args(Keep):
            raise InputError("OPTIONS", f"--keep {self.keep!r} is unknown", fix="one of " + ", ".join(get_args(Keep)))
