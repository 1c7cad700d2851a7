"""The engine on whatever device is at hand: is it right there, and how fast? `python -m benchmarks.accelerator`.

    python -m benchmarks.accelerator [--device auto|cpu|gpu|tpu] [--workload power] [--curves 256] [--widths 512,2048,8192]

Needs jax, numpyro, numpy and scipy, and this repository on the path; nothing else is imported. Correctness: means and sds
of `--curves` curves, fitted on the device, against stock numpyro NUTS run one curve at a time on the CPU in the same process
(`--reference-curves` of them; 0 skips it). Speed: curves per second, wall time, at several lane widths (chains advanced
together), each timed on its second run; the first compiles. A width needs more curves than it holds to be busy:
`--speed-curves` is per 1024 lanes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import jax
import numpy as np

from bayesscale.columns import taken
from bayesscale.inference import stock_nuts
from bayesscale.model import own_target
from bayesscale.precision import enable_float64
from benchmarks import references
from benchmarks.batch import engine
from benchmarks.batch.gate import judge
from benchmarks.batch.tables import number, table
from benchmarks.batch.workloads import SPECIFICATIONS, Workload, simulate

AGREE = 0.98
PLATFORMS = {"gpu": "cuda,cpu", "tpu": "tpu,cpu", "cpu": "cpu"}


def choose_device(name: str) -> jax.Device:
    """Select the platform, the CPU staying available for the reference; ends with a sentence where there is none."""
    if name != "auto":
        jax.config.update("jax_platforms", PLATFORMS[name])
    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        sys.exit(f"there is no {name} device here: {error}")
    if name not in ("auto", device.platform):
        sys.exit(f"asked for {name}, jax offers {device.platform}")
    return device


def check_correctness(workload: Workload, args: argparse.Namespace) -> bool:
    """Compare the device's moments with stock NUTS on the CPU; true if 98% of the curves agree up to Monte Carlo error."""
    posterior = engine.fit(workload, engine.sampler_from(args.sampler))
    ours = references.summarise(posterior.u)
    few = workload.take(range(min(args.reference_curves, len(workload))))
    with jax.default_device(jax.devices("cpu")[0]):
        sampler = stock_nuts.build_nuts(
            own_target(workload.model), warmup=1000, draws=args.reference_draws, accept=0.9, dense=True
        )
        chains = [stock_nuts.sample_one(sampler, taken(few.units.columns, i), i) for i in range(len(few))]
    reference = references.summarise(np.stack([chain.u for chain in chains]))
    ours = references.Summary(*(part[: len(few)] for part in ours))
    usable = ours.usable & reference.usable
    agreement = references.compare(ours, reference)
    names = workload.model.layout.coordinate_names
    references.lines(agreement, usable, names, lambda text: print(text, flush=True))
    return bool(usable.any() and agreement.unbiased[usable].mean() >= AGREE)


def measure_speed(args: argparse.Namespace) -> None:
    rows = []
    for width in map(int, args.widths.split(",")):
        curves = max(args.speed_curves * width // 1024, 8)
        workload = simulate(args.workload, curves, seed=args.seed)
        sampler = replace(engine.sampler_from(args.speed_sampler), lanes=width)
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            posterior = engine.fit(workload, sampler)
            seconds.append(time.perf_counter() - begin)
        passed = judge(posterior.u, posterior.diverging).passed.mean()
        rate = curves / seconds[1]
        rows.append([str(width), str(curves), number(seconds[0]), number(seconds[1]), number(rate), f"{passed:.1%}"])
        print(f"  {width} lanes: {number(rate)} curves per second", flush=True)
    print(
        table(["lanes", "curves", "first run, s", "second run, s", "curves per second", "pass the gate"], rows),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", choices=["auto", "cpu", "gpu", "tpu"], default="auto")
    parser.add_argument("--workload", choices=list(SPECIFICATIONS), default="power")
    parser.add_argument("--curves", type=int, default=256, help="curves fitted for correctness")
    parser.add_argument("--reference-curves", type=int, default=256, help="of them, compared with NUTS on the CPU")
    parser.add_argument("--reference-draws", type=int, default=4000)
    parser.add_argument("--widths", default="128,512,2048,8192")
    parser.add_argument("--speed-curves", type=int, default=1024, help="curves timed per 1024 lanes")
    parser.add_argument("--sampler", default="draws=4000", help="changes to the sampler for correctness")
    parser.add_argument("--speed-sampler", default="", help="changes to the sampler for speed")
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    device = choose_device(args.device)
    enable_float64()
    print(
        f"{device.device_kind} ({device.platform}), jax {jax.__version__}, numpy {np.__version__}, {args.workload}",
        flush=True,
    )
    right = True
    if args.reference_curves:
        print(
            f"correctness, {args.curves} curves on the device, {args.reference_curves} against NUTS on the CPU",
            flush=True,
        )
        right = check_correctness(simulate(args.workload, args.curves, seed=args.seed), args)
        print("  " + ("agrees" if right else "DOES NOT AGREE"), flush=True)
    if args.widths:
        print("speed", flush=True)
        measure_speed(args)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
