"""Forecasts of real many-shot accuracy curves: the default and its rivals, trained on 10, 20 and 50% of the shots axis.

    python -m benchmarks.icl_forecast FILE [--laws tempered,hill] [--draws 500] [--geometry]

FILE is the table of Bertsch et al. 2024 (arXiv 2405.00200; columns model, dataset, n_shots, run, n_correct, n_test). The five
main tasks are scored, without the model whose curves collapse. Chance levels are one over the number of labels. Prints, per
predictor and share, means over curves: NRMSE of the posterior mean curve, CRPS, coverage of the 50% and 90% equal-tailed
intervals of a new observation, width of the latter, log score, and the share of training fits that failed the gate. With
``--geometry`` all curves are fitted on all rows instead, and the sampler's work is reported per law.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

import bayesscale as bs
from bayesscale.laws import LAWS

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


def forecasts(curves: bs.Curves, laws: list[str], sampler: bs.Sampler) -> None:
    evaluation = bs.evaluate(main_curves(curves), laws, shares=(0.1, 0.2, 0.5), full=False, sampler=sampler)
    table = bs.score_table(evaluation.forecasts)
    table["failed"] = table["status"] == "fail"
    scores = ["nrmse", "crps", "coverage50", "coverage90", "width90", "log_score", "failed"]
    means = table.groupby(["law", "share"])[scores].mean()
    means.insert(0, "curves", table.groupby(["law", "share"]).size())
    print(means.round(4).to_string())
    for share in (0.1, 0.2, 0.5):
        print(bs.compare(evaluation.forecasts, evaluation.curves, share=share).sentence)


def geometry(curves: bs.Curves, laws: list[str], sampler: bs.Sampler) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--laws", default="tempered")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--geometry", action="store_true")
    arguments = parser.parse_args()
    single = [name for name, law in LAWS.items() if not law.joint]
    laws = single if arguments.laws == "all" else arguments.laws.split(",")
    job = geometry if arguments.geometry else forecasts
    job(read(arguments.file), laws, bs.Sampler(draws=arguments.draws))


if __name__ == "__main__":
    main()
