"""Forecasts of real many-shot accuracy curves: the default and its rivals, trained on 10, 20 and 50% of the shots axis.

    python -m benchmarks.icl_forecast FILE [--laws tempered,hill] [--draws 500] [--geometry]
    python -m benchmarks.icl_forecast FILE --likelihood quasi_binomial,quasi_student --sigma-delta .12,.15,.2 [--no-pool]

FILE is the table of Bertsch et al. 2024 (arXiv 2405.00200; columns model, dataset, n_shots, run, n_correct, n_test). The five
main tasks are scored, without the model whose curves collapse. Chance levels are one over the number of labels. Prints, per
predictor and share, means over curves: NRMSE of the posterior mean curve, CRPS, coverage of the 50% and 90% equal-tailed
intervals of a new observation, width of the latter, log score, and the share of training fits that failed the gate; then how
many held-out points, on how many curves, lie outside their 90% interval.

``--likelihood`` and ``--sigma-delta`` (scale of the discrepancy's HalfNormal prior) take lists, and every combination is
fitted. ``--no-pool`` leaves the pooled fit and the mix out; with it, ``--reweight`` fits the first scale only (name the
largest first) and reaches the others by importance resampling of its draws. With ``--geometry`` all curves are fitted on all
rows instead, and the sampler's work is reported per law.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import pandas as pd

import bayesscale as bs
from bayesscale.fitting import fit_units
from bayesscale.holdout import Forecast, enough_rows, forecasts_of, training_mask
from bayesscale.laws import LAWS
from bayesscale.likelihood import LIKELIHOODS, Likelihood, with_discrepancy
from bayesscale.precision import enable_float64
from bayesscale.units import units_of

LABELS = {"banking77": 77, "clinic150": 151, "nlu": 68, "trec": 6, "trecfine": 50, "tacred-text": 42}
COLLAPSED = "mistralai+Mistral-7B-v0.1"


def read(path: str) -> bs.Curves:
    """Read the table, with chance levels."""
    columns = {"x": "n_shots", "successes": "n_correct", "trials": "n_test", "run": "run"}
    curves = bs.read_curves([path], curve=["model", "dataset"], **columns)
    return replace(curves, chance=np.array([1.0 / LABELS[key[1]] for key in curves.keys]))


def main_curves(curves: bs.Curves) -> bs.Curves:
    """Leave out the partial task and the collapsed model."""
    return curves.subset([i for i, key in enumerate(curves.keys) if key[1] != "tacred-text" and key[0] != COLLAPSED])


def forecasts(curves: bs.Curves, laws: list[str], sampler: bs.Sampler, options: argparse.Namespace) -> None:
    curves, scales, parts = main_curves(curves), options.sigma_delta, []
    for name in options.likelihood:
        if options.reweight:
            parts += reweighted(curves, laws, LIKELIHOODS[name], scales, options.shares, sampler)
            continue
        for scale in scales:
            likelihood = with_discrepancy(LIKELIHOODS[name], scale)
            found = bs.evaluate(
                curves,
                laws,
                shares=options.shares,
                likelihood=likelihood,
                full=False,
                sampler=sampler,
                pool=options.pool,
            ).forecasts
            parts.append((name, scale, found))
            for share in options.shares:
                print(bs.compare(found, curves, share=share).sentence, flush=True)
    print(scores(parts).to_string())


def scores(parts: list[tuple[str, float, tuple[Forecast, ...]]]) -> pd.DataFrame:
    """Mean scores over curves of every variant, and how often a held-out point lies outside its 90% interval."""
    tables = [bs.score_table(found).assign(likelihood=name, scale=scale) for name, scale, found in parts]
    table = pd.concat(tables)
    table["failed"] = table["status"] == "fail"
    table["missed"] = ((1.0 - table["coverage90"]) * table["rows"]).round().astype(int)
    table["curves_missed"] = table["missed"] > 0
    by = table.groupby(["law", "share", "likelihood", "scale"])
    means = by[["nrmse", "crps", "coverage50", "coverage90", "width90", "log_score", "failed"]].mean().round(4)
    means.insert(0, "curves", by.size())
    return means.join(by[["missed", "rows", "curves_missed"]].sum())


def reweighted(
    curves: bs.Curves,
    laws: list[str],
    likelihood: Likelihood,
    scales: list[float],
    shares: list[float],
    sampler: bs.Sampler,
) -> list[tuple[str, float, tuple[Forecast, ...]]]:
    """Forecasts of independent fits under every scale, from draws under the first."""
    enable_float64()
    units, likelihood = units_of(curves, likelihood), with_discrepancy(likelihood, scales[0])
    trained = []
    for share in shares:
        keep = training_mask(units, share)
        able = [i for i in range(len(units)) if enough_rows(units, i, keep[i])]
        held = (units.columns["mask"] > 0) & ~keep
        for law in laws:
            part = units.masked(keep, f"{share:g}").take(able)
            fits = fit_units(part, LAWS[law], likelihood, sampler=sampler)
            trained += [(fit, share, held[i]) for i, fit in zip(able, fits, strict=True) if isinstance(fit, bs.Fit)]
            print(f"{likelihood.name} {law} {share:g}: {len(fits)} fits", flush=True)
    again = {
        s: [(resampled(fit, s / scales[0], scales[0]), share, held) for fit, share, held in trained] for s in scales
    }
    return [(likelihood.name, s, tuple(forecasts_of(entries, 0))) for s, entries in again.items()]


def resampled(fit: bs.Fit, ratio: float, scale: float) -> bs.Fit:
    """Resample the draws of a fit as if sigma_delta ~ HalfNormal(ratio * scale), by systematic importance resampling."""
    sigma = fit.draws["sigma_delta"].ravel() / scale
    weight = np.exp(-0.5 * sigma**2 * (ratio**-2 - 1.0))
    places = (np.arange(len(sigma)) + 0.5) / len(sigma)
    chosen = np.searchsorted(np.cumsum(weight / weight.sum()), places).clip(max=len(sigma) - 1)
    return replace(
        fit,
        draws={name: x.reshape(-1, *x.shape[2:])[chosen].reshape(x.shape) for name, x in fit.draws.items()},
    )


def geometry(curves: bs.Curves, laws: list[str], sampler: bs.Sampler, options: argparse.Namespace) -> None:
    print(f"{'law':18s} fits leapfrogs/draw(median) divergent  R-hat<=1.01  failed  multimodal  seconds")
    rows = []
    for law in laws:
        start = time.perf_counter()
        fits = [fit for fit in bs.fit_many(curves, law, sampler=sampler) if isinstance(fit, bs.Fit)]
        rows += [work_of(fit) for fit in fits]
        print_work(law, rows[-len(fits) :], f"{time.perf_counter() - start:8.0f}")
        for fit in fits:
            if fit.status == "fail":
                print(f"    failed: {fit.name}:", *(str(f) for f in fit.findings if f.grade == "fail"), flush=True)
    print_work("all", rows)


def work_of(fit: bs.Fit) -> tuple[float, float, float, bool, bool]:
    """Leapfrogs per draw, share of divergent draws, largest R-hat, whether the gate failed, whether several modes."""
    modes = any(finding.code in ("BIMODAL", "MODES") for finding in fit.findings)
    steps = float(np.nanmean(fit.stats["n_steps"]))
    return steps, float(fit.stats["diverging"].mean()), worst_r_hat(fit), fit.status == "fail", modes


def print_work(law: str, rows: list[tuple[float, float, float, bool, bool]], seconds: str = "") -> None:
    steps, divergent, r_hat, failed, modes = map(np.array, zip(*rows, strict=True))
    print(
        f"{law:18s} {len(rows):4d} {np.median(steps):22.1f} {divergent.mean():10.4f} {np.mean(r_hat <= 1.01):12.3f}"
        f" {failed.sum():7d} {modes.sum():11d} {seconds}",
        flush=True,
    )


def worst_r_hat(fit: bs.Fit) -> float:
    """Largest R-hat of a fit; infinite where draws are missing."""
    values = [entry["r_hat"] for entry in fit.diagnostics.values() if not np.isnan(entry["r_hat"]).all()]
    return max((float(np.nanmax(v)) for v in values), default=np.inf)


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--laws", default="tempered")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--shares", type=numbers, default=[0.1, 0.2, 0.5])
    parser.add_argument("--likelihood", type=names, default=["quasi_binomial"], metavar="NAME,...")
    parser.add_argument("--sigma-delta", type=numbers, default=[0.15], metavar="SCALE,...")
    parser.add_argument("--no-pool", dest="pool", action="store_const", const=False, default=None)
    parser.add_argument("--reweight", action="store_true")
    parser.add_argument("--geometry", action="store_true")
    arguments = parser.parse_args()
    if arguments.reweight and arguments.pool is not False:
        parser.error("--reweight is for independent fits: add --no-pool")
    single = [name for name, law in LAWS.items() if not law.joint]
    laws = single if arguments.laws == "all" else arguments.laws.split(",")
    job = geometry if arguments.geometry else forecasts
    job(read(arguments.file), laws, bs.Sampler(draws=arguments.draws), arguments)


if __name__ == "__main__":
    main()
