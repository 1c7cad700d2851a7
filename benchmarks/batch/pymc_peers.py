"""PyMC and nutpie as peers. nutpie is compiled once by numba; each curve is swapped in with `with_data`."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.batch.peers import CHAINS, Fit, Length, Sampled
from benchmarks.batch.workloads import Workload


def prepare_statement(workload: Workload, coordinates: str) -> tuple[Any, Any]:
    """The checked statement of a workload, and the module it is from (imported late: pymc is optional)."""
    from benchmarks.batch import pymc_statements

    statement = pymc_statements.STATEMENTS[workload.name, coordinates](workload)
    pymc_statements.check(workload, statement)
    return statement, pymc_statements


def from_arrow(raw: Any, statement: Any, rows: dict[str, NDArray], warmup: int) -> Sampled:
    """Draws of a raw nutpie trace. Its conversion to a data tree would cost more than the sampling."""
    draws, stats = raw.get_arrow_trace()
    free = np.stack([[chain.column(name).to_numpy() for name in statement.names] for chain in draws])
    diverging, steps = (
        np.stack([chain.column(name).to_numpy() for chain in stats]) for name in ("diverging", "n_steps")
    )
    return Sampled(statement.to_own(np.moveaxis(free, 1, 2)[:, warmup:], rows), diverging[:, warmup:], steps)


def from_tree(tree: Any, statement: Any, rows: dict[str, NDArray]) -> Sampled:
    """Draws of PyMC's data tree; it keeps no warm-up, so gradients are those of the draws alone."""
    free = np.stack([np.asarray(tree.posterior[name]) for name in statement.names], axis=-1)
    stats = tree.sample_stats
    return Sampled(statement.to_own(free, rows), np.asarray(stats["diverging"]), np.asarray(stats["n_steps"]))


def nutpie(workload: Workload, length: Length, *, coordinates: str, low_rank: bool) -> Fit:
    """nutpie with a diagonal or a low-rank metric."""
    import nutpie as library

    statement, module = prepare_statement(workload, coordinates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = library.compile_pymc_model(statement.model)

    def fit(i: int, level: int, seed: int) -> Sampled:
        warmup, draws = length.at(level)
        trace = library.sample(
            compiled.with_data(**module.set_curve(workload, statement, i)),
            tune=warmup, draws=draws, chains=CHAINS, cores=1, seed=seed, progress_bar=False,
            adaptation="low_rank" if low_rank else "diag", return_raw_trace=True,
        )  # fmt: skip
        return from_arrow(trace, statement, module.real_rows(workload, i), warmup)

    return fit


def pymc(workload: Workload, length: Length, *, coordinates: str) -> Fit:
    """`pm.sample` with its defaults, data swapped by `set_data`."""
    import pymc as library

    statement, module = prepare_statement(workload, coordinates)
    logging.getLogger("pymc").setLevel(logging.ERROR)

    def fit(i: int, level: int, seed: int) -> Sampled:
        warmup, draws = length.at(level)
        with statement.model, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library.set_data(module.set_curve(workload, statement, i))
            trace = library.sample(
                tune=warmup, draws=draws, chains=CHAINS, cores=1, random_seed=seed, progressbar=False,
                compute_convergence_checks=False, nuts_sampler="pymc",
            )  # fmt: skip
        return from_tree(trace, statement, module.real_rows(workload, i))

    return fit


nutpie_diagonal = partial(nutpie, coordinates="own", low_rank=False)
nutpie_low_rank = partial(nutpie, coordinates="own", low_rank=True)
nutpie_diagonal_edge = partial(nutpie, coordinates="edge", low_rank=False)
nutpie_low_rank_edge = partial(nutpie, coordinates="edge", low_rank=True)
pymc_default = partial(pymc, coordinates="own")
