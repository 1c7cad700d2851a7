"""The plan of `bayesscale fit`: which curves go into which chunk, and what their results depend on."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bayesscale.batch.plan import BASELINE, FIT, POOL, Plan, Unit, make_plan
from bayesscale.curves import Curves
from bayesscale.draws import versions
from bayesscale.finding import InputError
from bayesscale.fitting import likelihood_for
from bayesscale.holdout import has_siblings
from bayesscale.inference.settings import Sampler
from bayesscale.law import Law
from bayesscale.laws import LAWS
from bayesscale.likelihood import Likelihood
from bayesscale.runs.settings import MOST_POOLED, Settings
from bayesscale.units import joint_members, padded_width


def chosen_likelihood(curves: Curves, settings: Settings) -> Likelihood:
    """The likelihood of all chunks: as named, or the default for all the curves.

    Raises
    ------
    InputError : it is for another kind of observation.
    """
    chosen = likelihood_for(curves, settings.likelihood, discrepancy=settings.discrepancy)
    if chosen.kind != curves.kind:
        what = f"likelihood {chosen.name} is for {chosen.kind}, and the data are {curves.kind}"
        raise InputError("LIKELIHOOD-KIND", what, fix="leave --likelihood out for the default")
    return chosen


def plan_run(curves: Curves, settings: Settings, likelihood: Likelihood) -> Plan:
    """What will be fitted; nothing is computed."""
    names = [curves.curve_name(i) for i in range(len(curves))]
    digests = [curves.digest(i) for i in range(len(curves))]
    widths = rows_of_curves(curves, likelihood)
    work: list[tuple[str, str, list[tuple[Unit, int]]]] = []
    for law in settings.laws:
        units = joint_members(curves, settings.task_key) if law.joint else tuple((i,) for i in range(len(curves)))
        work.append((FIT, law.name, [(u, padded_width(int(sum(widths[i] for i in u)))) for u in units]))
    if settings.shares:
        work.append((BASELINE, "persistence", [((i,), 0) for i in range(len(curves))]))
    if pooled(curves, settings):
        work.append((POOL, "all curves together", [(tuple(range(len(curves))), 0)]))
    size = settings.chunk or chunk_size(len(curves))
    return make_plan(plan_settings(curves, settings, likelihood), names, digests, work, size)


SMALLEST_CHUNK, LARGEST_CHUNK = 128, 512


def chunk_size(curves: int) -> int:
    """Units per chunk, where none is asked for: an eighth of the curves within these bounds.

    The slowest posteriors of a chunk end alone in lanes that are all but empty, the less often the larger chunks are; but what
    a kill costs, and memory, grow with them.
    """
    return min(max(curves // 8, SMALLEST_CHUNK), LARGEST_CHUNK)


def rows_of_curves(curves: Curves, likelihood: Likelihood) -> list[int]:
    """How many rows each curve has as the likelihood sees it: shot counts, or runs at shot counts."""
    new = [True] * len(curves.curve)
    if likelihood.rows == "cell":
        same = (curves.curve[1:] == curves.curve[:-1]) & (curves.shots[1:] == curves.shots[:-1])
        new[1:] = (~same).tolist()
    counts = Counter(i for i, counted in zip(curves.curve.tolist(), new, strict=True) if counted)
    return [counts[i] for i in range(len(curves))]


def pooled(curves: Curves, settings: Settings) -> bool:
    """Whether all curves are fitted together too."""
    if not settings.shares or settings.pool is not None:
        return bool(settings.shares and settings.pool)
    return len(curves) <= MOST_POOLED and has_siblings(curves) and not settings.laws[0].joint


def plan_settings(curves: Curves, settings: Settings, likelihood: Likelihood) -> dict[str, Any]:
    """Everything but the data that results depend on."""
    names = ("shares", "discrepancy", "task_key", "seed", "leave_one_out", "refit", "keep")
    return {
        "laws": {law.name: law_identity(law) for law in settings.laws},
        "kind": curves.kind,
        "key_names": curves.key_names,
        **{name: getattr(settings, name) for name in names},
        "likelihood": likelihood.name,
        "pool": pooled(curves, settings),
        "sampler": asdict(settings.sampler),
        "versions": {name: version for name, version in versions().items() if name != "python"},
    }


def law_identity(law: Law) -> str:
    """What tells a law from another of its name: for one of the user's own, its source too."""
    if LAWS.get(law.name) is law:
        return law.name
    try:
        source = inspect.getsource(inspect.getmodule(law.log_mean) or law.log_mean)
    except (OSError, TypeError):
        source = ""
    names = [parameter.name for parameter in law.parameters]
    return hashlib.sha256(f"{law.equation}|{names}|{source}".encode()).hexdigest()


def settings_of(plan: Plan, laws: tuple[Law, ...], plots: int) -> Settings:
    """The settings a plan was made from."""
    kept = plan.settings
    names = ("discrepancy", "task_key", "seed", "leave_one_out", "refit", "keep", "likelihood")
    options = {name: kept[name] for name in names}
    return Settings(laws, tuple(kept["shares"]), pool=None, sampler=sampler_of(kept["sampler"]), plots=plots, **options)


def sampler_of(kept: Mapping[str, Any]) -> Sampler:
    """The sampler's settings as a plan keeps them."""
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()
    }
    return Sampler(**settings)
