"""Drawn photographs of known site: what the image tells of lesions and site, and lesions that the site does or does not move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import expit, logit

from made_evaluation import LESIONS, MACHINE, made_evaluation
from made_evaluation import SITES as MANY_SITES
from predilect.evaluation.known_site_scores import LOSSES, KnownSite, KnownSiteSystem, Losses, SiteEffects
from predilect.evaluation.scores import Comparison
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Predictions, Truth

SITES = ("face", "hand", "leg", "trunk")


@dataclass(frozen=True)
class Drawn:
    """N photographs; `theta` (L, S) is what the site does, `news` (N, S) what is new in it, `told` (N, S) what the image tells of it."""

    truth: Truth
    lesion_scores: np.ndarray
    told: np.ndarray
    theta: np.ndarray
    news: np.ndarray


def drawn(*, n_groups=400, n_lesions=4, strength=0.0, weight=1.0, seed=0, size=(1, 3), machine=()):
    """Draw calibrated scores, a calibrated site head, and labels whose log-odds are moved by ``theta @ news``.

    Args:
        n_groups: Of `size` photographs each.
        n_lesions: From common to rare.
        strength: Standard deviation of theta over the sites; its rows have mean 0.
        weight: How much of what the site head tells is in the lesions' scores.
        seed: Of everything.
        size: Fewest and most photographs of a group.
        machine: Lesions whose labels a model made.
    """
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), random.integers(size[0], size[1] + 1, n_groups))
    n, n_sites = len(groups), len(SITES)
    told = random.dirichlet((0.4, 0.3, 0.7, 1.0), size=n)
    site = np.minimum((told.cumsum(axis=1) < random.random((n, 1))).sum(axis=1), n_sites - 1)
    one_hot = np.eye(n_sites, dtype=np.int8)[site]
    theta = random.normal(size=(n_lesions, n_sites)) * strength
    theta -= theta.mean(axis=1, keepdims=True)
    news = one_hot - weight * told - (1 - weight) * one_hot.mean(axis=0)
    z = logit(np.geomspace(0.3, 0.06, n_lesions)) + 1.3 * random.normal(size=(n, n_lesions))
    present = random.random(z.shape) < expit(z + news @ theta.T)
    names = tuple(f"lesion {k}" for k in range(n_lesions))
    space = LabelSpace((Task("lesion", names, frozenset(machine)), Task("site", SITES)))
    truth = Truth(
        np.array([f"{k:05}" for k in range(n)]),
        space,
        {"lesion": present.astype(np.int8), "site": one_hot},
        np.array([f"g{k:04}" for k in groups]),
        pl.DataFrame(),
    )
    return Drawn(truth, expit(z).astype(np.float32), told, theta, news)


def folds_of(truth, n_folds=3):
    return truth.group_indices() % n_folds


def predictions_of(found, tasks=("lesion", "site"), *, seeds=(1,), n_folds=3, noise=0.3, overconfident=1.6):
    """Out-of-fold predictions of some tasks: what was drawn, with a little noise of each seed, and too sure of itself."""
    parts = []
    for seed in seeds:
        random = np.random.default_rng(1000 + seed)
        z = overconfident * (logit(found.lesion_scores.astype(float)) + noise * random.normal(size=found.lesion_scores.shape))
        told = found.told.astype(np.float32)
        scores = {"lesion": expit(z).astype(np.float32), "site": told / told.sum(axis=1, keepdims=True)}
        parts.append(
            Predictions(
                found.truth.image_ids,
                found.truth.labels.restricted_to(tasks),
                {task: scores[task] for task in tasks},
                folds_of(found.truth, n_folds),
                np.full(len(found.truth), seed),
            )
        )
    return Predictions.concatenate(parts)


def made_known_site(n_lesions=25, n_sites=23, *, useless=(), weights=(1.0, 0.5, 0.0), gain=0.02):
    """Numbers made up for a report; the last lesion but one has no known positive, the last too few groups, two are machine-made.

    Args:
        n_lesions: Of persons.
        n_sites: At most 23.
        useless: Systems in which no fold made use of the site.
        weights: Of the site head in each fold.
        gain: Of the site in mAP-class; log-loss falls by a tenth of it.
    """
    random = np.random.default_rng(11)
    lesion = made_evaluation(n_lesions, n_sites).systems["mtl"].lesion
    losses = {name: _losses(random.uniform(0.05, 0.4)) for name in lesion.per_class}
    system = KnownSiteSystem(lesion=lesion, mean=_losses(0.2), per_class=losses)
    states = ("", " calibrated", " recalibrated")
    names = [f"{name}{state}" for name in ("resnet", "mtl") for state in (*states, "+site")]
    pairs = [
        (f"{name}+site", other)
        for name in ("resnet", "mtl")
        for other in (*(f"{name}{state}" for state in states), "prevalence+site")
    ]
    pairs += [("mtl+site", "resnet+site"), ("prevalence+site", "prevalence")]
    rows = [*LESIONS[:n_lesions], *MACHINE]
    effects = {
        name: SiteEffects(
            lesions=tuple(rows),
            sites=MANY_SITES[:n_sites],
            theta=tuple(
                tuple(row) for row in random.normal(0, np.geomspace(1, 0.02, len(rows))[:, None], (len(rows), n_sites)).tolist()
            ),
            site_system={"resnet": None, "mtl": "mtl"}[name],
            head_weights=(0.0,) * 3 if name == "resnet" else weights,
            spreads=(0.0,) * 3 if name in useless else (0.4, 0.2, 0.0),
            recalibrations=(0.0,) * 3 if name == "resnet" else (0.0, 0.3, 1.0),
        )
        for name in ("resnet", "mtl")
    }
    return KnownSite(
        n_images=21000,
        n_groups=9000,
        systems=dict.fromkeys([*names, "prevalence", "prevalence+site"], system),
        comparisons=[row for pair in pairs for row in _differences(pair, lesion.per_class, gain, random)],
        effects=effects,
        n_resamples=1000,
        n_resamples_p=10000,
        resampling_seed=0,
    )


def _losses(value):
    numbers = {"log_loss": value, "brier": value / 3}
    return Losses(
        **{f"{name}{end}": x + d for name, x in numbers.items() for end, d in (("", 0), ("_low", -0.004), ("_high", 0.004))}
    )


def _differences(pair, per_class, gain, random):
    fields = {"system_a": pair[0], "system_b": pair[1], "task": "lesion", "n_resamples_defined": 1000}
    for metric in ("map_class", "map_image", *LOSSES):
        value = -gain / 10 if metric in LOSSES else gain
        fold_mean = value / 2 if metric == "map_class" else None
        numbers = {"difference": value, "low": value - 0.001, "high": value + 0.001, "p": 0.004}
        yield Comparison(**fields, metric=metric, class_name=None, p_holm=None, fold_mean_difference=fold_mean, **numbers)
    for metric in ("ap", *LOSSES):
        for name, item in per_class.items():
            whole = item.ap is not None and item.ap_low is not None
            value = float(random.normal(0, 0.02)) * (0.1 if metric in LOSSES else 1)
            numbers = {
                "low": value - abs(value) / 2,
                "high": value + abs(value) * 1.7,
                "p": 0.01,
                "p_holm": 0.03 if value > 0 else 0.3,
            }
            yield Comparison(
                **fields,
                metric=metric,
                class_name=name,
                difference=None if item.ap is None and metric == "ap" else value,
                fold_mean_difference=None,
                **(numbers if whole else dict.fromkeys(numbers)),
            )
