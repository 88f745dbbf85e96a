"""Systems conditioned on the site, by the nesting rule, and what to hold them against: a table of predictions for each.

Given the systems of a run, each of those that predict lesions appears four times, on the photographs whose site is known:

    mtl                as the network gave it
    mtl calibrated     without the site
    mtl recalibrated   what `mtl+site` does with the site withheld: theta = 0, and a and b fitted as there
    mtl+site           the same, conditioned on the site

The site prior may calibrate once more on these photographs, by its a and b. Both of the last two do, under the same penalty; so what
lies between them is what the site gave. In folds where a and b are left at 0 and 1 `mtl recalibrated` is `mtl calibrated`.

Beside them stand two that never saw a photograph: ``prevalence``, the share of each lesion, and ``prevalence+site``, its share at the
site. What is said of fold f is fitted on the other folds: the calibration that is applied to f, and the site prior, on scores of the
other folds that were calibrated without f and without their own fold. So three folds are needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from predilect.errors import TableError
from predilect.evaluation.calibration_fit import CrossFits
from predilect.evaluation.metrics import Floats
from predilect.evaluation.nesting import MatchedSeeds, common_folds
from predilect.evaluation.site_prior import SitePrior
from predilect.evaluation.site_prior_fit import fit_site_prior, given_sites
from predilect.labels.tasks import LESION, SITE, LabelSpace
from predilect.predictions import Predictions, Truth

__all__ = ["BASELINES", "STATES", "ConditionedSystem", "KnownSiteTables", "condition_on_site", "site_prior_on_all"]

BASELINES = ("prevalence", "prevalence+site")
"""Without a photograph: the share of each lesion, and its share at the site."""

STATES = ("", " calibrated", " recalibrated", "+site")
"""What stands behind a system's name, in the order of `ConditionedSystem`."""

_FOLDS_NEEDED = 3

_Material = tuple[LabelSpace, dict[str, NDArray[np.float32]], dict[str, NDArray[np.int8]], NDArray[np.int64]]


@dataclass(frozen=True, eq=False, slots=True)
class ConditionedSystem:
    """One system on photographs of known site.

    Attributes:
        plain: Lesion scores as the network gave them.
        calibrated: Calibrated.
        recalibrated: Calibrated, and once more by a and b of a site prior whose theta is 0; they are fitted to the same photographs
            under the same penalty as those of `priors`.
        conditioned: Calibrated, then conditioned on the site.
        site_system: Whose site head told what the image shows; None where the shares of the sites stood in for one.
        priors: By fold, what conditioned it.
    """

    plain: Predictions
    calibrated: Predictions
    recalibrated: Predictions
    conditioned: Predictions
    site_system: str | None
    priors: Mapping[int, SitePrior]


@dataclass(frozen=True, eq=False, slots=True)
class KnownSiteTables:
    """Photographs of known site, and what is said of their lesions with and without it.

    Attributes:
        truth: N photographs whose site a person named.
        systems: Those of the run that predict lesions.
        baselines: The two of `BASELINES`.
    """

    truth: Truth
    systems: Mapping[str, ConditionedSystem]
    baselines: Mapping[str, Predictions]


def condition_on_site(
    truth: Truth, systems: Mapping[str, Predictions], *, on_progress: Callable[[int, int], None] | None = None
) -> KnownSiteTables | None:
    """Condition every system of a run that predicts lesions on the site, out of fold.

    What the image told of the site is taken from the system itself; if it predicts none, from the one named as it is with
    ``-site`` behind, if that has the same seeds, as `resnet-site` beside `resnet`; else from the shares of the sites.

    Args:
        truth: What is known of N photographs.
        systems: Out-of-fold predictions of the same photographs, of one or several seeds.
        on_progress: Told how many site priors are fitted, and how many there will be: one for each system and fold.

    Returns:
        None where there is nothing to say: the truth lacks a task, no system predicts lesions out of fold, or photographs of known
        site lie in fewer than three folds. A system whose table names no folds is left out.

    Raises:
        TableError: If a table does not match the truth, folds differ between tables, a group lies in two folds, or a system has a
            name that is given here to another.
    """
    if not {LESION, SITE} <= set(truth.labels.names):
        return None
    fits = {name: CrossFits(MatchedSeeds.of(table, truth)) for name, table in systems.items()}
    folds = common_folds([table for each in fits.values() for table in each.matched.tables.values()], truth.group_indices())
    known = np.flatnonzero(given_sites(truth.labels[SITE], truth.values[SITE]) >= 0)
    of_lesions = [name for name, each in fits.items() if LESION in each.matched.tasks and each.matched.folds is not None]
    if folds is None or len(np.unique(folds[known])) < _FOLDS_NEEDED or not of_lesions:
        return None
    _check_names(of_lesions, systems)
    done, expected = itertools.count(), len(of_lesions) * len(np.unique(folds[known]))

    def tell() -> None:
        n = next(done)
        if on_progress is not None:
            on_progress(n, expected)

    tell()
    return KnownSiteTables(
        truth=truth.take(known),
        systems={name: _conditioned(name, fits, known, tell) for name in of_lesions},
        baselines=_baselines(truth.take(known), folds[known]),
    )


def site_prior_on_all(predictions: Predictions, truth: Truth) -> SitePrior:
    """The site prior for a bundle: fitted on the out-of-fold predictions of all photographs, calibrated by the nesting rule.

    Args:
        predictions: Of one system, any number of seeds, with at least two folds. If it predicts no site, the shares of the sites
            stand in for what the image tells.
        truth: Of the same photographs, with both tasks.

    Raises:
        TableError: If there are fewer than two folds, the predictions do not match the truth, or a group lies in two folds.
        ValueError: If a task is missing or no photograph has a known site.
    """
    fits = CrossFits(MatchedSeeds.of(predictions, truth))
    fits.matched.fold_numbers(at_least=2)
    if LESION not in fits.matched.tasks or SITE not in truth.labels:
        raise ValueError(f"a site prior needs predicted lesions and known sites, found {', '.join(fits.matched.tasks)}")
    return fit_site_prior(*_material(fits, fits if SITE in fits.matched.tasks else None, fits.matched.rows()))


def _conditioned(name: str, fits: Mapping[str, CrossFits], known: NDArray[np.int64], tell: Callable[[], None]) -> ConditionedSystem:
    own = fits[name]
    matched = own.matched
    site_system = next((other for other in (name, f"{name}-site") if other in fits and _tells_site(fits[other], own)), None)
    told = None if site_system is None else fits[site_system]
    calibrated = own.out_of_fold(known)
    sites = None if told is None else told.out_of_fold(known)
    given = given_sites(matched.truth.labels[SITE], matched.truth.values[SITE])[known]
    recalibrated, conditioned = ({seed: scores[LESION].copy() for seed, scores in calibrated.items()} for _ in range(2))
    assert matched.folds is not None
    folds = matched.folds[known]
    numbers = np.unique(folds).tolist()
    priors = {}
    with ThreadPoolExecutor() as pool:  # numpy and scipy let other threads run while they count
        fitted = pool.map(lambda f: _with_and_without(_material(own, told, known[folds != f], [f])), numbers)
        for fold, pair in zip(numbers, fitted, strict=True):
            priors[fold] = pair[0]
            for prior, by_seed in zip(pair, (conditioned, recalibrated), strict=True):
                here = folds == fold
                for seed, scores in by_seed.items():
                    scores[here] = prior.apply(scores[here], None if sites is None else sites[seed][SITE][here], given[here])
            tell()

    def table(scores: Mapping[int, NDArray[np.float32]], what: str) -> Predictions:
        labels = matched.truth.labels.restricted_to([LESION])
        parts = [
            replace(part.take(known), labels=labels, scores={LESION: scores[seed]}, origin=f"{part.origin}, {what}")
            for seed, part in matched.tables.items()
        ]
        return Predictions.concatenate(parts)

    return ConditionedSystem(
        plain=table({seed: part.scores[LESION][known] for seed, part in matched.tables.items()}, "its lesions"),
        calibrated=table({seed: scores[LESION] for seed, scores in calibrated.items()}, "calibrated"),
        recalibrated=table(recalibrated, "calibrated once more"),
        conditioned=table(conditioned, "conditioned on the site"),
        site_system=site_system,
        priors=priors,
    )


def _tells_site(other: CrossFits, own: CrossFits) -> bool:
    return (
        SITE in other.matched.tasks and other.matched.folds is not None and own.matched.tables.keys() <= other.matched.tables.keys()
    )


def _with_and_without(material: _Material) -> tuple[SitePrior, SitePrior]:
    """A site prior, and the same with the site withheld: theta = 0, and the penalty of a and b that was chosen for the first."""
    prior = fit_site_prior(*material)
    return prior, fit_site_prior(*material, spreads=(0.0,), recalibrations=(prior.recalibration,))


def _material(own: CrossFits, told: CrossFits | None, rows: NDArray[np.int64], left_out: Collection[int] = ()) -> _Material:
    """What a site prior is fitted to: some rows of folds that are not left out, all seeds pooled, as calibrations are."""
    _, values, groups = own.matched.pooled(rows)
    truth = own.matched.truth
    lesions = own.nested(rows, left_out)
    scores = {LESION: np.concatenate([lesions[seed][LESION] for seed in own.matched.tables])}
    if told is not None:
        sites = told.nested(rows, left_out)
        scores[SITE] = np.concatenate([sites[seed][SITE] for seed in own.matched.tables])
    sites_known = np.tile(truth.values[SITE][rows], (len(own.matched.tables), 1))
    return truth.labels, scores, {LESION: values[LESION], SITE: sites_known}, groups


def _baselines(truth: Truth, folds: NDArray[np.int64]) -> dict[str, Predictions]:
    """The share of each lesion among the other folds, and the same conditioned on the site as a system is."""
    labels, groups = truth.values[LESION], truth.group_indices()
    given = given_sites(truth.labels[SITE], truth.values[SITE])
    shares: Floats = np.empty(labels.shape)
    at_site = np.empty(labels.shape, dtype=np.float32)
    for fold in np.unique(folds):
        others, here = folds != fold, folds == fold
        # Half a photograph that shows the lesion and half a one that does not: no share is 0 or 1.
        share = ((labels[others] == 1).sum(axis=0) + 0.5) / ((labels[others] >= 0).sum(axis=0) + 1)
        shares[here] = share
        values = {task: known[others] for task, known in truth.values.items()}
        # No other constant fits these photographs better, so a and b give nothing here that the site does not.
        prior = fit_site_prior(truth.labels, {LESION: np.broadcast_to(share, labels[others].shape)}, values, groups[others])
        at_site[here] = prior.apply(shares[here], None, given[here])
    return {
        name: Predictions(truth.image_ids, truth.labels.restricted_to([LESION]), {LESION: scores}, folds, origin=name)
        for name, scores in zip(BASELINES, (shares.astype(np.float32), at_site), strict=True)
    }


def _check_names(of_lesions: Sequence[str], systems: Mapping[str, Predictions]) -> None:
    taken = [*BASELINES, *(f"{name}{end}" for name in of_lesions for end in STATES[1:])]
    for name in systems:
        if name in taken:
            raise TableError(
                f"{systems[name].origin}: the name {name!r} is given to what is made of other systems; give it another"
            )
