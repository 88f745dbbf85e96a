"""What a bundle says of itself, once and for all requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from predilect.atlas.importers import Source
from predilect.insight.retrieval import EmbeddingIndex
from predilect.labels.tasks import LESION, SITE
from predilect.report.wording import INTENDED_USE
from predilect.serving.described import Credit, IndexedAtlas, InputSize, Labels, LesionClass, Model, SiteClass
from predilect.serving.predictor import Predictor
from predilect.serving.said import thresholds_of

__all__ = ["labels_of", "model_of"]

_TOLD = ("command", "atlas", "atlas_hash", "splits_hash", "seed", "iterations", "n_images")  # of the provenance; the machine is not


def labels_of(predictor: Predictor) -> Labels:
    """The classes of a bundle, and what can be asked of it."""
    rule, labels = predictor.fitted.rule, predictor.bundle.labels
    thresholds = thresholds_of(labels, rule)
    methods = {} if rule is None else {item.name: item.method for item in rule.calibration.lesions}
    calibrated = None if rule is None else rule.calibration.site
    machine = labels[LESION].machine if LESION in labels else frozenset()
    return Labels(
        lesions=[LesionClass(name, name in machine, limit, methods.get(name, "none")) for name, limit in thresholds.items()],
        sites=[SiteClass(name) for name in predictor.sites],
        site_calibration=None if SITE not in labels else "none" if calibrated is None else calibrated.method,
        site_conditioning=predictor.fitted.site_prior is not None,
        similar=predictor.index is not None,
        attention=predictor.explainer is not None,
        no_attention_because=predictor.unexplained,
        aim=None if rule is None or rule.thresholds is None else str(rule.thresholds.aim),
        max_miss_rate=None if rule is None or rule.sets is None else rule.sets.max_miss_rate,
    )


def model_of(predictor: Predictor) -> Model:
    """What a bundle is; no path and no name of a machine is in it."""
    bundle = predictor.bundle
    preprocessing = bundle.preprocessing
    return Model(
        system=bundle.system,
        model=bundle.model,
        backbone=bundle.recipe.backbone,
        recipe=bundle.recipe.name,
        input=InputSize(preprocessing.crop, preprocessing.test_side, preprocessing.views),
        provenance={key: bundle.provenance.get(key) for key in _TOLD},
        licences=list(bundle.licences),
        sources=_recorded(bundle.provenance.get("sources", ())),
        notes=[*bundle.provenance.get("notes", ()), *predictor.caveats()],
        index=None if predictor.index is None else _indexed(predictor.index),
        intended_use=INTENDED_USE,
        version=version("predilect"),
    )


def _indexed(index: EmbeddingIndex) -> IndexedAtlas:
    return IndexedAtlas(index.atlas, len(index), [_credit(source) for source in index.sources])


def _credit(source: Source) -> Credit:
    return Credit(source.name, source.licence, source.credit)


def _recorded(sources: Iterable[Mapping[str, Any]]) -> list[Credit]:
    return [Credit(source["name"], source["licence"], source["credit"]) for source in sources]
