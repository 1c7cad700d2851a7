"""Cost of one gradient of a rate law's log posterior, advanced in lanes as the sampler does.

    python -m benchmarks.rate_gradients [--laws NAME,...] [--lanes 40] [--patterns 16 64 128] [--repeats 30]

Simulates a model whose problems show so many distinct counts of up to 10,000 samples and prints, per law, microseconds per lane
of value and gradient: the median over repeats of one compiled call over all lanes. Laws known by a density are timed twice, with
the nodes of each pattern its own (as forecasts need them) and on one grid for all patterns (as they are fitted).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from bayesscale.precision import enable_float64
from bayesscale.rates import RATE_LAWS
from bayesscale.resampling.model import pattern_columns, rate_model, rate_target


def counts(patterns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """So many distinct (n, c) of 2000 hard problems with 1000 to 10,000 samples each, with weights."""
    rng = np.random.default_rng(seed)
    n = rng.choice([1000, 5000, 10_000], 2000)
    c = rng.binomial(n, rng.beta(0.3, 6.0, n.size))
    distinct, weight = np.unique(np.stack([n, c]), axis=1, return_counts=True)
    chosen = np.sort(rng.choice(distinct.shape[1], patterns, replace=False))
    return distinct[0, chosen], distinct[1, chosen], weight[chosen]


def microseconds(name: str, patterns: int, options: argparse.Namespace, *, shared: bool) -> float:
    """Median time of value and gradient, per lane."""
    law, lanes = RATE_LAWS[name], options.lanes
    law = law if shared else replace(law, shared=None)
    target = rate_target(rate_model(law))
    columns = {
        key: jnp.asarray(np.repeat(v, lanes, axis=0)) for key, v in pattern_columns(law, [counts(patterns)]).items()
    }
    keys = jax.random.split(jax.random.key(1), lanes)
    u = 0.5 * jax.vmap(lambda key: target.prior_draw(key, {}))(keys)
    step = jax.jit(jax.vmap(jax.value_and_grad(target.density)))
    jax.block_until_ready(step(u, columns))
    taken = []
    for _ in range(options.repeats):
        begin = time.perf_counter()
        jax.block_until_ready(step(u, columns))
        taken.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(taken)) / lanes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", default="beta,beta_mixture,logit_normal,three_slope,kumaraswamy,spliced")
    parser.add_argument("--lanes", type=int, default=40)
    parser.add_argument("--patterns", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    enable_float64()
    rows = []
    for name in options.laws.split(","):
        for shared in (False, True) if RATE_LAWS[name].shared else (False,):
            row = {"law": name, "nodes": ("shared" if shared else "own") if RATE_LAWS[name].shared else "-"}
            row |= {f"{p} patterns": microseconds(name, p, options, shared=shared) for p in options.patterns}
            rows.append(row)
            print(row, flush=True)
    print("microseconds per gradient\n" + pd.DataFrame(rows).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
