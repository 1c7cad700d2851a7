"""The inference layer needs jax and numpyro only: an accelerator machine may have nothing else."""

import subprocess
import sys

FIT_WITHOUT_TABLES = """
import importlib.abc, sys

ABSENT = {"arviz", "arviz_stats", "arviz_base", "pandas", "pyarrow", "matplotlib", "xarray", "typer", "rich"}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import bayesscale as bs
from bayesscale import holdout, pooled
from bayesscale.calibration import simulate_units
from bayesscale.fitting import fit_units
from bayesscale.likelihood import QUASI_BINOMIAL
units, _ = simulate_units(bs.LAWS["power"], QUASI_BINOMIAL, 2)
sampler = bs.Sampler(chains=2, draws=20, warmup=(10, 10), tiers=0, keep=20, lanes=16, starts=2)
fits = fit_units(units, bs.LAWS["power"], QUASI_BINOMIAL, sampler=sampler)
print(len(fits), fits[0].predict([10.0, 1e4]).draws.shape)
"""


def test_inference_runs_with_jax_and_numpyro_alone():
    done = subprocess.run(
        [sys.executable, "-c", FIT_WITHOUT_TABLES], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "(40,", "2)"]
