"""The engine's means and sds against independent references: `python -m benchmarks.agreement`.

    python -m benchmarks.agreement [--curves 200] [--workloads icl,power] [--icl "draws=4000"] [--reference grid|nuts]

Four-parameter posteriors are integrated on a grid in the model's own coordinates (see `benchmarks.grid`). Where its checks fail
(mass on the faces above 1e-4, or moments that move by more than 2% of an sd when every other node is left out), a heavy tail
mostly, the grid is laid in the coordinates at the ends of the curve, which tame it. Where that fails too, and for more
parameters, the reference is stock numpyro NUTS in the model's own coordinates, one curve at a time, dense metric, 4 long chains.
Bounds per curve, over all parameters: means within 4 Monte Carlo errors (both sides' together) and within 5% of the sd; sds
within 5%. Both sides need enough draws for the second and third: an sd from 1000 effective draws is off by 2% on average.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping

from benchmarks.batch.clock import pin

CORES = pin(1)

import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import taken
from bayesscale.inference import stock_nuts
from bayesscale.model import Model, own_target, target_of
from bayesscale.precision import enable_float64
from benchmarks import references
from benchmarks.batch import engine
from benchmarks.batch.workloads import Workload, simulate
from benchmarks.grid import Moments, grid_moments
from benchmarks.references import Summary

LARGEST_GRID = 4
FACES, COARSENING = 1e-4, 0.02


def nuts_reference(workload: Workload, index: NDArray, warmup: int, draws: int) -> Summary:
    """Moments by stock NUTS of the curves at `index`."""
    sampler = stock_nuts.build_nuts(own_target(workload.model), warmup=warmup, draws=draws, accept=0.9, dense=True)
    columns = workload.units.columns
    chains = [stock_nuts.sample_one(sampler, taken(columns, i), int(i)) for i in index]
    return references.summarise(np.stack([chain.u for chain in chains]))


def moments_by_grid(model: Model, columns: Mapping[str, NDArray], u: NDArray, nodes: int) -> Moments | None:
    """Moments of one curve by quadrature, in whatever coordinates the checks hold; `u` says only where the grid lies."""
    draws = u.reshape(-1, u.shape[-1])
    found = grid_moments(own_target(model), columns, draws, nodes=nodes)
    if (target := target_of(model)) is not own_target(model) and not trusted(found):
        rising, count = model.law.rising, len(model.law.parameters)
        assert rising is not None
        at_ends = np.asarray(rising.from_parameters(draws.T[:count], columns)).T
        # What is left has long tails even so: a wider box, its nodes as close.
        wider = nodes + 2 * (nodes // 7)
        found = grid_moments(target, columns, np.hstack([at_ends, draws[:, count:]]), nodes=wider, reach=9.0)
    return found if trusted(found) else None


def trusted(moments: Moments) -> bool:
    return moments.on_faces < FACES and moments.coarsening < COARSENING


def reference_of(workload: Workload, u: NDArray, args: argparse.Namespace) -> tuple[Summary, int]:
    """The reference of every curve, and how many were integrated on a grid; `u` says only where the grid lies."""
    curves, dimension = len(workload), u.shape[-1]
    mean, sd = np.zeros((curves, dimension)), np.ones((curves, dimension))
    errors, usable, left = np.zeros((2, curves, dimension)), np.ones(curves, bool), list(range(curves))
    if dimension <= LARGEST_GRID and args.reference != "nuts":
        left = []
        for i in range(curves):
            moments = moments_by_grid(workload.model, taken(workload.units.columns, i), u[i], args.nodes)
            if moments is None:
                left.append(i)
            else:
                mean[i], sd[i] = moments.mean, moments.sd
    on_grid = curves - len(left)
    if left:
        index = np.array(left)
        found = nuts_reference(workload, index, args.reference_warmup, args.reference_draws)
        mean[index], sd[index], usable[index] = found.mean, found.sd, found.usable
        errors[0, index], errors[1, index] = found.mean_error, found.sd_error
    return Summary(mean, sd, errors[0], errors[1], usable), on_grid


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--curves", type=int, default=200)
    parser.add_argument("--workloads", type=lambda text: text.split(","), default=["icl", "power"])
    parser.add_argument("--reference", choices=["grid", "nuts"], default="grid", help="grid where it can be")
    parser.add_argument("--nodes", type=int, default=29, help="nodes per axis of the grid, odd")
    parser.add_argument("--reference-draws", type=int, default=5000)
    parser.add_argument("--reference-warmup", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("icl", "power", "mixed"):
        parser.add_argument(f"--{name}", default="draws=4000", help="changes to the engine's sampler")
    args = parser.parse_args()
    enable_float64()
    for name in args.workloads:
        workload = simulate(name, args.curves, seed=args.seed)
        begin = time.perf_counter()
        posterior = engine.fit(workload, engine.sampler_from(getattr(args, name)))
        ours = references.summarise(posterior.u)
        middle = time.perf_counter()
        reference, on_grid = reference_of(workload, posterior.u, args)
        seconds = f"engine {middle - begin:.0f} s, reference {time.perf_counter() - middle:.0f} s, with compilation"
        print(f"\n{name}: {args.curves} curves, {on_grid} references by quadrature, the others by NUTS ({seconds})")
        names = workload.model.layout.coordinate_names
        references.lines(references.compare(ours, reference), ours.usable & reference.usable, names)
        lost = int((~ours.usable).sum()), int((~reference.usable).sum())
        print(f"  left out: {lost[0]} curves with R-hat > 1.01 in the engine, {lost[1]} in the reference", flush=True)


if __name__ == "__main__":
    main()
