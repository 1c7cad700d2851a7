"""One measurement per process: `python -m benchmarks.batch.process WHAT WORKLOAD CURVES SAMPLER --cores N` prints one JSON line.

memory   fit in chunks, keep means and sds only, report the largest resident size
speed    fit enough curves to compile everything, then all; report processor and wall time
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.batch.clock import count_compilations, measured

CHUNK = 1000
ENOUGH = 96
"""Curves whose lanes fill the widest deck and end in the narrow one, so that both are compiled."""
MEMORY_UNIT = 1024 if sys.platform != "darwin" else 1
"""ru_maxrss counts KiB, on macOS bytes."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["memory", "speed"])
    parser.add_argument("workload")
    parser.add_argument("curves", type=int)
    parser.add_argument("sampler")
    parser.add_argument("--cores", default="", help="cores to use, with commas; inherited where not given")
    parser.add_argument("--offset", type=int, default=0, help="first curve")
    args = parser.parse_args()
    if args.cores:
        os.sched_setaffinity(0, [int(core) for core in args.cores.split(",")])
    print(json.dumps(answer(args)), flush=True)


def answer(args: argparse.Namespace) -> dict[str, float]:
    """Do what was asked, in this process."""
    from bayesscale.precision import enable_float64

    enable_float64()
    count_compilations()
    from benchmarks.batch import engine
    from benchmarks.batch.workloads import simulate

    sampler, name = engine.sampler_from(args.sampler), args.workload
    if args.what == "speed":
        workload = simulate(name, args.curves, first=args.offset)
        engine.fit(workload.take(range(min(ENOUGH, args.curves))), sampler)
        with measured() as spent:
            engine.fit(workload, sampler)
        return vars(spent)
    kept = []
    for start in range(0, args.curves, CHUNK):
        workload = simulate(name, min(CHUNK, args.curves - start), first=start)
        u = engine.fit(workload, sampler).u
        kept.append((u.mean(axis=(1, 2)), u.std(axis=(1, 2))))
        del u
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MEMORY_UNIT}


KEPT = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE", "BAYESSCALE_COMPILE_CACHE", "BAYESSCALE_TRACES")


def without_cache() -> dict[str, str]:
    """The environment, with nothing in it that keeps compiled programs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(KEPT)}


def start(what: str, workload: str, curves: int, sampler: str, *, cores: str = "", offset: int = 0):
    """Start such a process, without a persistent compilation cache."""
    command = [sys.executable, "-m", "benchmarks.batch.process", what, workload, str(curves), sampler]
    command += [f"--cores={cores}", "--offset", str(offset)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=without_cache())


def result(process: subprocess.Popen) -> dict[str, float]:
    """Wait for a process and read its line; a failed process raises."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the measuring process ended with status {process.returncode}")
    return json.loads(output.splitlines()[-1])


COMMAND = (
    "import os, sys; {cores} and os.sched_setaffinity(0, {cores}); from bayesscale.cli import main; sys.exit(main())"
)
OBSERVED = {"counts": ("successes", "trials"), "nll_mean": ("nll",)}


def first_results(name: str, cores: list[int]) -> dict[str, float]:
    """Wall seconds of `bayesscale --compile-cache fit` on a file of one curve: with an empty cache, then with that same one."""
    import numpy as np

    from benchmarks.batch.workloads import simulate

    workload, seconds = simulate(name, 1), {}
    model, columns = workload.model, workload.units.columns
    observed = OBSERVED[model.likelihood.kind]
    stored = [columns["value" if column == "nll" else column][0] for column in ("shots", *observed)]
    rows = np.stack([np.zeros_like(stored[0]), *stored], axis=1)[columns["mask"][0] > 0]
    rows[:, 1] = np.round(rows[:, 1])  # a table's shots are whole
    rows = rows[np.unique(rows[:, 1], return_index=True)[1]]
    with tempfile.TemporaryDirectory() as place:
        file, cache = Path(place, "curve.csv"), Path(place, "cache")
        np.savetxt(file, rows, delimiter=",", header=",".join(("curve", "shots", *observed)), comments="")
        options = ["--curve", "curve", "--x", "shots", *(p for column in observed for p in (f"--{column}", column))]
        options += ["--law", model.law.name, "--likelihood", model.likelihood.name, "--no-discrepancy", "--no-plots"]
        for label in ("empty cache", "warm cache"):
            command = [sys.executable, "-c", COMMAND.format(cores=cores), "--compile-cache", "fit", str(file), *options]
            command += ["--holdout", "none", "--no-loo", "--out", str(Path(place, label))]
            begin = time.perf_counter()
            environment = without_cache() | {"XDG_CACHE_HOME": str(cache)}
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds[label] = time.perf_counter() - begin
    return seconds


def peak_memory(workload: str, curves: int, sampler: str) -> float:
    """GiB resident at most."""
    return result(start("memory", workload, curves, sampler))["bytes"] / 2**30


def two_cores(workload: str, curves: int, sampler: str, cores: list[int]) -> dict[str, float]:
    """Wall seconds of the same curves on one core, by one process on two, and by two processes with half the curves each."""
    first, both, half = str(cores[0]), f"{cores[0]},{cores[1]}", curves // 2
    one = result(start("speed", workload, curves, sampler, cores=first))["wall"]
    two = result(start("speed", workload, curves, sampler, cores=both))["wall"]
    pair = [
        start("speed", workload, half, sampler, cores=str(core), offset=half * k) for k, core in enumerate(cores[:2])
    ]
    split = max(result(process)["wall"] for process in pair)
    return {"one core": one, "one process, two cores": two, "two processes": split}


if __name__ == "__main__":
    main()
