"""Leave-future-out: train on the first part of the shots axis, score the rest.

A share x trains on rows with shots <= x times the curve's own largest shot count. Forecasts of all laws, shares and curves
of one model go through the sampler together, as the same arrays under different masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesscale.columns import taken
from bayesscale.curves import Curves, Kind
from bayesscale.finding import Finding, InputError
from bayesscale.fitting import Skipped, fit_units, law_named, likelihood_for, unfit_reason
from bayesscale.inference.settings import Progress, Sampler, silent
from bayesscale.law import Law
from bayesscale.likelihood import Likelihood, log_link_jacobian
from bayesscale.persistence import link_cells, link_paths, movement_rate
from bayesscale.precision import enable_float64
from bayesscale.prediction import predict_rows
from bayesscale.result import Fit, with_findings
from bayesscale.scoring import log_mean_exp
from bayesscale.units import Units, units_of

SMALLEST_TRAINING_SET = 5
"""Shot counts a curve must show before a forecast from it is scored."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a predictor said about the held-out rows of one curve.

    Attributes
    ----------
    curve : index into the `Curves` evaluated.
    name : the curve's name.
    predictor : a law's name, "persistence", or a mix.
    share : share of the shots axis trained on.
    shots, observed : (point,) of the held-out rows.
    mean, observation : (draw, point) expected value, and a new observation of the same size, on the value scale.
    log_score : (point,) log predictive density of each row on the value scale.
    reach : largest shots any other curve of the same task showed in training; beyond it pooling has seen nothing either.
    status : the gate's verdict on the training fit.
    """

    curve: int
    name: str
    predictor: str
    share: float
    shots: NDArray
    observed: NDArray
    mean: NDArray
    observation: NDArray
    log_score: NDArray
    status: str
    reach: float = float("nan")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Fits to all data, and forecasts from parts of it.

    `fits` has one entry per unit and law; `forecasts` one per curve, law and share that could be scored; `skipped` says what
    was not fitted, and why.
    """

    curves: Curves
    fits: tuple[Fit, ...]
    forecasts: tuple[Forecast, ...]
    skipped: tuple[Skipped, ...]


def training_mask(units: Units, share: float) -> NDArray:
    """(unit, row) whether a row is trained on: shots within `share` of its own curve's largest."""
    shots, mask = units.columns["shots"], units.columns["mask"] > 0
    keep = np.zeros(mask.shape, bool)
    for i in range(len(units)):
        for curve in set(units.curves[i][mask[i]]):
            own = mask[i] & (units.curves[i] == curve)
            keep[i] |= own & (shots[i] <= share * shots[i][own].max() * (1 + 1e-12))
    return keep


def joined(parts: Sequence[Units]) -> Units:
    """Put batches of units after one another."""
    return Units(
        names=tuple(name for part in parts for name in part.names),
        digests=tuple(digest for part in parts for digest in part.digests),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        curves=np.concatenate([part.curves for part in parts]),
        members=tuple(members for part in parts for members in part.members),
    )


def evaluate(
    curves: Curves,
    laws: Sequence[str | Law],
    *,
    shares: Sequence[float] = (0.5,),
    likelihood: str | Likelihood | None = None,
    discrepancy: bool = True,
    task_key: str | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    full: bool = True,
    pool: bool | None = None,
    baseline: bool = True,
) -> Evaluation:
    """Fit every law to every curve, on all rows and on each training share, and forecast the rows held out.

    `progress` is called with (law, finished, total). The persistence baseline is among the forecasts with `baseline`. With `pool`
    (default: where the first law is of one curve and at least `FEWEST_SIBLINGS` curves share a key) the first law is also
    fitted to all curves together, and "mix", the mix of its independent and pooled forecasts, is the default forecast.
    """
    enable_float64()
    chosen = likelihood_for(curves, likelihood, discrepancy=discrepancy)
    fits: list[Fit] = []
    forecasts: list[Forecast] = []
    for share in shares if baseline else ():
        forecasts += persistence_forecasts(curves, chosen, share)
    skipped: list[Skipped] = []
    for law in (law_named(law) for law in laws):
        report: Progress = (
            silent if progress is None else (lambda done, total, law=law: progress(law.name, done, total))
        )
        units = units_of(curves, chosen, joint=law.joint, task_key=task_key)
        everything = units.columns["mask"] > 0
        parts, kept = [units] if full else [], [(None, everything)] * len(units) if full else []
        for share in shares:
            keep = training_mask(units, share)
            enough = np.array([enough_rows(units, i, keep[i]) for i in range(len(units))])
            reason = Finding(
                "FEW-ROWS",
                "info",
                f"fewer than {SMALLEST_TRAINING_SET} shot counts, or none held out, at share {share:g}",
            )
            skipped += [Skipped(units.names[i], law, reason) for i in np.flatnonzero(~enough)]
            if enough.any():
                parts.append(units.masked(keep, f"{share:g}").take(np.flatnonzero(enough)))
                kept += [(share, everything[i] & ~keep[i]) for i in np.flatnonzero(enough)]
        if not parts:
            continue
        results = fit_units(joined(parts), law, chosen, sampler=sampler, seed=seed, progress=report)
        trained = []
        for result, (share, held) in zip(results, kept, strict=True):
            if isinstance(result, Skipped):
                skipped.append(result)
            elif share is None:
                fits.append(result)
            else:
                trained.append((result, share, held))
        forecasts += forecasts_of(trained, seed)
    first = law_named(laws[0])
    if shares and (has_siblings(curves) and not first.joint if pool is None else pool):
        alone = [f for f in forecasts if f.predictor == first.name]
        more, left_out = pool_and_mix(
            curves, first, chosen, shares, alone, seed=seed, asked=bool(pool), progress=progress
        )
        forecasts, skipped = forecasts + more, skipped + left_out
    return Evaluation(curves, tuple(fits), tuple(with_reach(curves, forecasts)), tuple(skipped))


def pool_and_mix(
    curves: Curves,
    law: Law,
    likelihood: Likelihood,
    shares: Sequence[float],
    alone: Sequence[Forecast],
    *,
    seed: int,
    asked: bool,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[list[Forecast], list[Skipped]]:
    """Forecast from all curves together, and mix that with the forecasts of each alone.

    Raises
    ------
    InputError : they cannot be pooled, and that was `asked` for; else the reason is among what was skipped.
    """
    try:
        together = pooled_forecasts(curves, law, likelihood, shares, seed, progress)
    except InputError as error:
        if asked:  # the user has to know; by default: go on without, and say so
            raise
        return [], [Skipped("all curves together", law, replace(error.finding, grade="info"))]
    return together + mixed(with_reach(curves, alone), together, "mix"), []


FEWEST_SIBLINGS = 4
"""Curves it takes before fitting them together is worth its time."""


def has_siblings(curves: Curves) -> bool:
    """Whether there are enough curves, and some key other than the curve's own repeats among them."""
    repeats = any(len({key[p] for key in curves.keys}) < len(curves) for p in range(len(curves.key_names)))
    return len(curves) >= FEWEST_SIBLINGS and repeats


def pooled_forecasts(
    curves: Curves,
    law: Law,
    likelihood: Likelihood,
    shares: Sequence[float],
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> list[Forecast]:
    """Forecast from all curves fitted together, one pooled fit per share."""
    from bayesscale.pooled import sample_pooled

    units = units_of(curves, likelihood)
    predictor = f"pooled {law.name}"
    report: Progress = silent if progress is None else (lambda done, total: progress(predictor, done, total))
    masks = {share: training_mask(units, share) for share in shares}
    versions = [units.masked(keep, f"{share:g}") for share, keep in masks.items()]
    # A curve the law cannot take, or with nothing to train on, must not keep the others from being pooled.
    able = [i for i in range(len(units)) if all(unfit_reason(version, i, law) is None for version in versions)]
    if len(able) < FEWEST_SIBLINGS:
        return []
    group, versions, trained = curves.subset(able), [version.take(able) for version in versions], []
    for (share, keep), result in zip(
        masks.items(), sample_pooled(group, versions, law, likelihood, seed=seed, progress=report), strict=True
    ):
        held = (units.columns["mask"] > 0) & ~keep
        # The joint posterior's verdict is each curve's: a curve may look settled while what it shares is not.
        fits = {i: with_findings(fit, result.findings) for i, fit in zip(able, result.fits, strict=True)}
        trained += [(fit, share, held[i]) for i, fit in fits.items() if enough_rows(units, i, keep[i])]
    return [replace(f, predictor=predictor) for f in forecasts_of(trained, seed)]


def enough_rows(units: Units, i: int, keep: NDArray) -> bool:
    """Whether every curve of a unit shows enough shot counts, and some row is held out."""
    mask = units.columns["mask"][i] > 0
    shown = [len(np.unique(units.columns["shots"][i][keep & (units.curves[i] == c)])) for c in units.members[i]]
    return min(shown) >= SMALLEST_TRAINING_SET and bool((mask & ~keep).any())


def forecasts_of(trained: Sequence[tuple[Fit, float, NDArray]], seed: int) -> list[Forecast]:
    """Forecast the held-out rows of fits that saw the rest."""
    out: list[Forecast] = []
    for model in {fit.model for fit, _, _ in trained}:
        batch = [entry for entry in trained if entry[0].model is model]
        theta = {name: np.stack([fit.theta()[name] for fit, _, _ in batch]) for name in batch[0][0].theta()}
        columns = {
            name: np.concatenate([fit.unit.columns[name] for fit, _, _ in batch]) for name in batch[0][0].unit.columns
        }
        _, mean, observation, score = predict_rows(model, theta, columns, seed)
        for i, (fit, share, held) in enumerate(batch):
            for curve in sorted(set(fit.unit.curves[0][held])):
                rows = held & (fit.unit.curves[0] == curve)
                out.append(forecast(fit, share, int(curve), rows, mean[i], observation[i], score[i]))
    return out


def persistence_forecasts(curves: Curves, likelihood: Likelihood, share: float, *, draws: int = 1000) -> list[Forecast]:
    """Forecast every curve that can be scored by its last training value (see `persistence`)."""
    units = units_of(curves, likelihood)
    keep = training_mask(units, share)
    out = []
    for i in range(len(units)):
        if not enough_rows(units, i, keep[i]):
            continue
        held = (units.columns["mask"][i] > 0) & ~keep[i]
        shots, observed, y = (units.columns[name][i][held] for name in ("shots", "value", "y"))
        data = link_cells(curves.subset([i]).train(share), 0)
        rng = np.random.default_rng([int(units.digests[i][:15], 16), round(1e6 * share)])
        elapsed = np.log1p(shots) - np.log1p(data.shots[-1])
        path, noise = link_paths(data, shots, draws, rng), np.sqrt(data.variance[-1])
        variance = 2.0 * data.variance[-1] + movement_rate(data) * elapsed
        log_score = -0.5 * ((y - data.y[-1]) ** 2 / variance + np.log(2 * np.pi * variance))
        value = value_of(curves.kind, y)
        out.append(
            Forecast(
                curve=i,
                name=units.names[i],
                predictor="persistence",
                share=share,
                shots=shots,
                observed=observed,
                mean=np.full((1, len(shots)), data.value[-1]),
                observation=value_of(curves.kind, path + noise * rng.standard_normal(path.shape)),
                log_score=log_score + np.asarray(log_link_jacobian(curves.kind, value)),
                status="ok",
            )
        )
    return out


def forecast(
    fit: Fit, share: float, curve: int, rows: NDArray, mean: NDArray, observation: NDArray, score: NDArray
) -> Forecast:
    """Cut one curve's held-out rows out of a unit's predictions."""
    kind: Kind = fit.model.likelihood.kind
    columns = taken(fit.unit.columns, 0)
    observed, y = columns["value"][rows], columns["y"][rows]
    # Likelihoods that are densities of the link's value are turned into densities of the value itself.
    jacobian = np.asarray(log_link_jacobian(kind, value_of(kind, y))) if fit.model.likelihood.on_link_scale else 0.0
    return Forecast(
        curve=curve,
        name=fit.name,
        predictor=fit.law.name,
        share=share,
        shots=columns["shots"][rows],
        observed=observed,
        mean=mean[:, rows],
        observation=observation[:, rows],
        log_score=log_mean_exp(score[:, rows]) + jacobian,
        status=fit.status,
    )


def value_of(kind: Kind, y: NDArray) -> NDArray:
    """The value a row's link y stands for; for counts of 0 or all it stays inside (0, 1)."""
    return np.exp(y) if kind == "nll_mean" else 1.0 / (1.0 + np.exp(-y))


def with_reach(curves: Curves, forecasts: Sequence[Forecast]) -> list[Forecast]:
    """Note, per forecast, the largest shots its siblings (same task, other model) were trained on."""
    reach = {share: sibling_reach(curves, share) for share in {f.share for f in forecasts}}
    # A joint law's fit is named by its unit.
    return [replace(f, reach=float(reach[f.share][f.curve]), name=curves.curve_name(f.curve)) for f in forecasts]


def sibling_reach(curves: Curves, share: float) -> NDArray:
    """(curve,) largest shots that any other curve of the same task was trained on; 0 where there is none."""
    named = [p for p, name in enumerate(curves.key_names) if name not in curves.covariates] or [0]
    task = curves.key_names.index("task") if "task" in curves.key_names else named[-1]
    trained = np.zeros(len(curves))
    seen = curves.row_mask(share)
    np.maximum.at(trained, curves.curve[seen], curves.shots[seen])
    labels = np.unique([key[task] for key in curves.keys], return_inverse=True)[1]
    order = np.lexsort((trained, labels))
    last = np.append(np.flatnonzero(np.diff(labels[order])), len(curves) - 1)
    first, second = np.zeros(labels.max() + 1), np.zeros(labels.max() + 1)
    first[labels[order[last]]] = trained[order[last]]
    several = last[(last > 0) & (labels[order[last - 1]] == labels[order[last]])]
    second[labels[order[several]]] = trained[order[several - 1]]
    largest = np.zeros(len(curves), bool)
    largest[order[last]] = True
    return np.where(largest, second[labels], first[labels])


def mixed(first: Sequence[Forecast], second: Sequence[Forecast], predictor: str) -> list[Forecast]:
    """Mix independent and pooled forecasts of the same curves: equally within the siblings' reach, independent beyond it.

    Pooling helps because siblings have shown later shots. Beyond the last of those it has seen no more than the curve
    itself, is only surer, and measurably too sure.
    """
    partner = {(f.curve, f.share): f for f in second}
    out = []
    for a in first:
        b = partner.get((a.curve, a.share))
        if b is None or len(a.shots) != len(b.shots):
            continue
        within = a.shots <= a.reach
        n = min(len(a.mean), len(b.mean))
        with np.errstate(invalid="ignore"):  # an unfinished fit forecasts NaN, and its status says so
            both = np.logaddexp(a.log_score, b.log_score) - np.log(2.0)
        statuses = (a.status, b.status) if within.any() else (a.status,)
        out.append(
            replace(
                a,
                predictor=predictor,
                mean=np.concatenate([a.mean[:n], np.where(within, b.mean[:n], a.mean[:n])]),
                observation=np.concatenate([a.observation[:n], np.where(within, b.observation[:n], a.observation[:n])]),
                log_score=np.where(within, both, a.log_score),
                status=max(statuses, key=("ok", "warn", "fail").index),
            )
        )
    return out
