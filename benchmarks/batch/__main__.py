"""The batch engine against its peers, on one pinned core, in one run: `python -m benchmarks.batch`.

    python -m benchmarks.batch                                   everything, 1000 curves
    python -m benchmarks.batch --only engine,peers --workloads power --curves 200 --peer-curves 8
    python -m benchmarks.batch --power "draws=500 target_accept=.8"
    python -m benchmarks.batch --only peers --peers "numpyro hand-jitted,nutpie low-rank edge"

Sections (`--only`): engine, peers, poison, first, memory, scaling, cores. Times are processor time of this process unless
marked as wall time. Peers are optional (`pip install -e '.[bench]'`); what is absent is said and skipped.

Workloads: see `benchmarks.batch.workloads`. Gate, the same function for all: split rank R-hat <= 1.01, bulk and tail ESS >=
400 for the worst coordinate, fewer than 1% divergent draws; no contender is charged for it. The engine's time includes its
own diagnostics and all stronger tiers; compilation happens in a first run and is reported apart. A peer samples one curve
after the other; what fails is rerun with twice the warm-up and draws, up to `--reruns` times; its time leaves out compilation
unless it compiles for every curve. Curves a peer is not given are extrapolated from those it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.batch.clock import available, count_compilations, pin

ALLOWED = available()
CORES = pin(1)
"""Before anything below imports jax."""

import numpy as np

from bayesscale.inference.settings import Sampler
from bayesscale.precision import enable_float64
from benchmarks.batch import engine, process
from benchmarks.batch.engine import Timed
from benchmarks.batch.peers import Length, Score, time_peer
from benchmarks.batch.roster import PEERS
from benchmarks.batch.tables import circumstances, number, spread, table
from benchmarks.batch.workloads import SPECIFICATIONS, Workload, is_poisoned, simulate

SECTIONS = ("engine", "peers", "poison", "first", "memory", "scaling", "cores")
SLOW_PEER_CURVES = 3


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def names(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--only", type=names, default=list(SECTIONS), help="sections, with commas")
    parser.add_argument("--workloads", type=names, default=list(SPECIFICATIONS), help="icl, power, mixed")
    parser.add_argument("--curves", type=int, default=1000, help="curves per workload for the engine")
    parser.add_argument("--repeats", type=int, default=3, help="warm repeats of the engine")
    parser.add_argument(
        "--peer-curves", type=int, default=17, help="curves per peer; those that compile each time get 3"
    )
    parser.add_argument("--peers", type=names, default=list(PEERS), help="peers, with commas")
    parser.add_argument("--peer-length", default="300,400", help="warm-up and draws per chain of a peer")
    parser.add_argument("--reruns", type=int, default=2, help="reruns of a peer's failed curves")
    parser.add_argument("--scales", default="10,100,1000,10000", help="numbers of curves for `scaling`")
    parser.add_argument("--memory-curves", default="1000,10000")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulated curves")
    for name in SPECIFICATIONS:
        parser.add_argument(
            f"--{name}", default="", help=f'changes to the sampler for {name}: "draws=500 warmup=60,60"'
        )
    return parser.parse_args(argv)


def say(text: str = "") -> None:
    print(text, flush=True)


def settings(args: argparse.Namespace, name: str) -> Sampler:
    return engine.sampler_from(getattr(args, name))


def engine_section(args: argparse.Namespace) -> dict[str, Timed]:
    """Time to the gate per workload."""
    timed = {}
    for name in args.workloads:
        timed[name] = engine.time_engine(
            simulate(name, args.curves, seed=args.seed), settings(args, name), args.repeats
        )
        say(f"  {name}: {settings(args, name)}")
    say(f"\n## Engine, {args.curves} curves, {args.repeats} warm repeats (min / median / max)\n")
    header = ["workload", "ms per curve, CPU", "ms per curve, wall", "s per 1000 curves, CPU", "unresolved", "by tier"]
    rows = []
    for name, run in timed.items():
        tiers = " ".join(str(int(n)) for n in np.bincount(run.tiers.astype(int)))
        cpu = run.per_curve("cpu")
        failed = f"{np.mean(~run.verdict.passed):.2%}"
        rows.append([name, spread(cpu), spread(run.per_curve("wall")), number(np.median(cpu)), failed, tiers])
    say(table(header, rows))
    say()
    header = ["workload", "first run, s wall", "compilations", "s compiling", "min ESS p1 / p5 / median"]
    header += ["gradients per effective draw: executed", "useful"]
    rows = []
    for name, run in timed.items():
        executed, useful = engine.gradients_per_effective_draw(run)
        low = " / ".join(f"{q:.0f}" for q in np.nanpercentile(run.verdict.ess, [1, 5, 50]))
        first = [number(run.first.wall), str(run.first.compiles), number(run.first.compile_seconds)]
        rows.append([name, *first, low, number(executed), number(useful)])
    say(table(header, rows))
    again = sum(spent.compiles for run in timed.values() for spent in run.repeats)
    say(f"\nCompilations in warm repeats: {again}. Executed gradients count lanes that idle, not the mode search.")
    return timed


def peers_section(args: argparse.Namespace, timed: dict[str, Timed]) -> None:
    """Every peer on the first curves of every workload."""
    length = Length(*map(int, args.peer_length.split(",")))
    for name in args.workloads:
        workload = simulate(name, args.peer_curves, seed=args.seed)
        scores = [score for peer in args.peers if (score := one_peer(args, peer, workload, length))]
        ours = np.median(timed[name].per_curve("cpu")) if name in timed else np.nan
        say(
            f"\n## Peers on {name}: 4 chains x ({length.warmup} + {length.draws}), engine {number(ours)} ms per curve\n"
        )
        header = ["peer", "curves", "set-up, s", "ms per curve, CPU", "median", "wall", "pass"]
        header += [
            f"ms with up to {args.reruns} reruns",
            "unresolved",
            "times the engine",
            "gradients per effective draw",
        ]
        say(table(header, [score_row(score, ours) for score in scores]))


def one_peer(args: argparse.Namespace, name: str, workload: Workload, length: Length) -> Score | None:
    """Run one peer, or say why not; a peer that breaks does not end the run."""
    peer = PEERS[name]
    if workload.name not in peer.workloads:
        return None
    if missing := peer.missing():
        say(f"  {name}: skipped, {' and '.join(missing)} not installed")
        return None
    few = min(SLOW_PEER_CURVES, len(workload)) if peer.compiles_every_time else len(workload)
    try:
        score = time_peer(peer, workload.take(range(few)), length, args.reruns)
    except Exception as error:  # other people's code: whatever it raises, the rest is still worth measuring
        say(f"  {name}: failed on {workload.name}: {type(error).__name__}: {error}")
        return None
    say(f"  {name}: {number(np.mean([spent.cpu for spent in score.raw]) * 1e3)} ms per curve on {workload.name}")
    return score


def score_row(score: Score, ours: float) -> list[str]:
    raw = np.array([spent.cpu for spent in score.raw]) * 1e3
    wall = np.mean([spent.wall for spent in score.raw]) * 1e3
    everything = (raw.sum() + 1e3 * sum(spent.cpu for spent in score.reruns)) / score.curves
    effective = sum(score.effective)
    passed = f"{sum(score.passed_raw)}/{score.curves}"
    unresolved = f"{score.curves - sum(score.passed_all)}/{score.curves}"
    ratio = f"{number(raw.mean() / ours)} raw, {number(everything / ours)} with reruns"
    gradients = f"{number(score.executed / effective)} / {number(score.useful / effective)}" if effective else "n/a"
    times = [number(raw.mean()), number(float(np.median(raw))), number(float(wall))]
    setup = number(score.setup.wall)
    return [score.name, str(score.curves), setup, *times, passed, number(everything), unresolved, ratio, gradients]


def poison_section(args: argparse.Namespace) -> None:
    """The mixed bag with its poisoned curves and without them."""
    bag, sampler = simulate("mixed", max(args.curves, 255), seed=args.seed), settings(args, "mixed")
    poisoned = is_poisoned(bag)
    runs = {
        "with": engine.time_engine(bag, sampler, args.repeats),
        "without": engine.time_engine(bag.take(np.flatnonzero(~poisoned)), sampler, args.repeats),
    }
    seconds = {label: np.array([spent.cpu for spent in run.repeats]) for label, run in runs.items()}
    slower = np.median(seconds["with"]) / np.median(seconds["without"]) - 1.0
    unresolved = int((~runs["with"].verdict.passed[poisoned]).sum())
    say(f"\n## Poison: {poisoned.sum()} of {len(bag)} curves of mixed\n")
    say(table(["", "s CPU, min / median / max"], [[label, spread(values)] for label, values in seconds.items()]))
    say(f"\nWith them the batch takes {slower:+.1%}; {unresolved} of {poisoned.sum()} poisoned curves stay unresolved.")


def first_section(args: argparse.Namespace) -> None:
    say(f"\n## First result: wall seconds of `bayesscale fit` on a file of one curve, {len(ALLOWED) or 'all'} cores\n")
    rows = []
    for name in args.workloads:
        seconds = process.first_results(name, ALLOWED)
        rows.append([name, *(number(value) for value in seconds.values())])
    say(table(["workload", "empty compilation cache", "warm cache"], rows))


def memory_section(args: argparse.Namespace) -> None:
    sizes = list(map(int, args.memory_curves.split(",")))
    say(f"\n## Peak memory, GiB resident, in chunks of {process.CHUNK}, means and sds kept\n")
    name = args.workloads[-1] if "power" not in args.workloads else "power"
    rows = [[name, *(number(process.peak_memory(name, size, getattr(args, name))) for size in sizes)]]
    say(table(["workload", *(f"{size} curves" for size in sizes)], rows))


def scaling_section(args: argparse.Namespace) -> None:
    """Cost per curve over the size of the batch, one core."""
    rows = []
    for name in [name for name in args.workloads if name != "mixed"]:
        for size in map(int, args.scales.split(",")):
            run = engine.time_engine(simulate(name, size, seed=args.seed), settings(args, name), 1)
            compiled = sum(spent.compiles for spent in [run.first, *run.repeats])
            ms = run.per_curve("cpu")[0], run.per_curve("wall")[0]
            rows.append(
                [name, str(size), number(ms[0]), number(ms[1]), f"{np.mean(~run.verdict.passed):.2%}", str(compiled)]
            )
    say("\n## Scaling over curves, one core, second of two runs\n")
    say(table(["workload", "curves", "ms per curve, CPU", "wall", "unresolved", "compilations in both"], rows))


def cores_section(args: argparse.Namespace) -> None:
    """One core against two, in processes of their own that are given back the cores this one let go."""
    if len(ALLOWED) < 2:
        say("\nCores: skipped, fewer than two cores to pin to")
        return
    rows = []
    for name in [name for name in args.workloads if name != "mixed"]:
        wall = process.two_cores(name, args.curves, getattr(args, name), ALLOWED)
        one = wall["one core"]
        rows.append([name, number(one), *(f"{number(s)} ({one / s:.2f}x)" for s in list(wall.values())[1:])])
    say(f"\n## Cores: wall seconds for {args.curves} curves (speed-up)\n")
    say(table(["workload", "one core", "one process, two cores", "two processes, half the curves each"], rows))


def main() -> None:
    args = arguments()
    unknown = [
        *set(args.only) - set(SECTIONS),
        *set(args.workloads) - set(SPECIFICATIONS),
        *set(args.peers) - set(PEERS),
    ]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; see --help")
    enable_float64()
    count_compilations()
    say(circumstances(CORES))
    timed = engine_section(args) if "engine" in args.only else {}
    if "peers" in args.only:
        peers_section(args, timed)
    for name, section in {
        "poison": poison_section,
        "first": first_section,
        "memory": memory_section,
        "scaling": scaling_section,
        "cores": cores_section,
    }.items():
        if name in args.only:
            section(args)
    say("\n" + circumstances(CORES))


if __name__ == "__main__":
    main()
