"""A bundle opened once, with all that answers for it: network, calibration, known sites, index, and a sense for what is unfamiliar.

A photograph passes three steps: `prepare` decodes it, `observe` puts it before the network with others, `answer` makes of that what
was asked for. Each is a function of what it is given, so that they may run in different threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from predilect.atlas.decoding import MAX_PIXELS
from predilect.atlas.jpeg import PreparedImage, prepare_bytes, prepare_image
from predilect.atlas.pack import MAX_SIDE
from predilect.atlas.quality import is_uniform
from predilect.bundle import Bundle
from predilect.errors import InsightError, LabelError, ServingError, nearest
from predilect.evaluation.fitted_parts import FittedParts
from predilect.insight.attention import Explainer
from predilect.insight.bundle_index import INDEX_FOLDER, open_index
from predilect.insight.retrieval import EmbeddingIndex
from predilect.labels.tasks import LESION, SITE, Task
from predilect.serving.answers import Attention, CaseAnswer, GivenSiteAnswer, PhotographAnswer
from predilect.serving.lookup import look_up
from predilect.serving.maps import attention_of
from predilect.serving.runtime import Runtime, TorchRuntime, open_runtime
from predilect.serving.said import combined, say
from predilect.serving.steps import Photograph, Question, Scores, Seen, Wanted
from predilect.training.devices import make_fabric
from predilect.vision.transforms import central_square

__all__ = ["Predictor", "Views"]

Views = Literal["center", "ten-crop"]
"""What the network looks at of a photograph."""


@dataclass(frozen=True, eq=False, slots=True)
class Predictor:
    """See the module.

    Attributes:
        bundle: What is answered for.
        runtime: Its network.
        fitted: What is made use of, of what was fitted for the bundle.
        index: See `insight.bundle_index`; None where the bundle holds none.
        explainer: What attention maps need; None where there are none.
        unexplained: Why there are none; None where there are.
        fitted_for: The views that all was fitted for, where photographs are looked at otherwise; None: as here.

    Raises:
        ValueError: If what was fitted is of other classes, or lacks what it needs.
    """

    bundle: Bundle
    runtime: Runtime
    fitted: FittedParts = field(default_factory=FittedParts)
    index: EmbeddingIndex | None = None
    explainer: Explainer | None = None
    unexplained: str | None = "no maps were asked for"
    fitted_for: Views | None = None

    def __post_init__(self) -> None:
        self.fitted.check_labels(self.bundle.labels)
        familiarity = self.fitted.familiarity
        if familiarity is not None and (self.index is None or len(self.index) < familiarity.novelty.k):
            raise ValueError("familiarity needs an index of the photographs that were learnt from")

    @classmethod
    def open(cls, bundle: Bundle, *, runtime: str = "torch", views: Views | None = None, attention: bool = True) -> Self:
        """Load all that a bundle holds.

        Args:
            bundle: The bundle.
            runtime: See `serving.runtime.open_runtime`.
            views: What is looked at of a photograph; None: what its calibration and its index were made with.
            attention: Whether there are to be attention maps, which take a moment to make ready.

        Raises:
            ServingError: If the runtime cannot be had.
            BundleError: If the weights do not fit.
            InsightError: If the bundle's index is damaged or another network's.
        """
        index = open_index(bundle) if (bundle.path / INDEX_FOLDER).exists() else None
        fitted = _usable(bundle, index, views)
        fitted_for = bundle.preprocessing.views if views not in (None, bundle.preprocessing.views) else None
        if views is not None:
            bundle = replace(bundle, preprocessing=bundle.preprocessing.model_copy(update={"views": views}))
        ready = open_runtime(bundle, runtime)
        if not attention:
            return cls(bundle, ready, fitted, index, fitted_for=fitted_for)
        explainer, unexplained = None, None
        try:
            if isinstance(ready, TorchRuntime):
                explainer = Explainer.of(ready.fabric, ready.network)
            else:  # an exported model keeps its heads' weights to itself
                explainer = Explainer.of(make_fabric(bundle.recipe.precision), bundle.network())
        except InsightError as error:  # its architecture has none, or a package is missing
            unexplained = str(error)
        return cls(bundle, ready, fitted, index, explainer, unexplained, fitted_for)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that may be given, or else those that are predicted."""
        if self.fitted.site_prior is not None:
            return self.fitted.site_prior.sites
        return self.bundle.labels[SITE].classes if SITE in self.bundle.labels else ()

    def caveats(self) -> list[str]:
        """What is not said and why, and what was fitted for another look at photographs: a sentence each."""
        caveats = self.fitted.caveats()
        if self.fitted_for is not None and self.fitted.rule is not None:
            views = self.bundle.preprocessing.views
            caveats.append(f"Calibration and thresholds were fitted for the views {self.fitted_for}, not for {views}.")
        return caveats

    def check(self, question: Question) -> None:
        """Make sure that a question can be answered.

        Raises:
            LabelError: If it names a class that is unknown.
            ServingError: If the bundle takes no site into account.
            InsightError: If the bundle has no index or no maps, or no photograph of the index passes the filters.
        """
        if self.fitted.site_prior is None and (question.site is not None or question.every_site):
            raise ServingError("this bundle does not take a given site into account: it was made without a site prior")
        if question.site is not None and question.site not in self.sites:
            raise LabelError(f"unknown site {question.site!r}: {nearest(question.site, self.sites)}")
        if question.maps is not None:
            if self.explainer is None:
                raise InsightError(f"there are no attention maps: {self.unexplained}")
            for task, names in question.maps.items():
                for name in names or ():
                    self.bundle.labels[task].index(name)
        if question.similar is not None:
            if self.index is None:
                raise InsightError("this bundle holds no index to look for similar photographs in")
            self.index.showing(lesion=question.similar.lesion, site=question.similar.site)

    def prepare(self, name: str, data: bytes, max_pixels: int = MAX_PIXELS) -> Photograph:
        """Make of an upload what the network looks at, with the very pixels that an atlas would hold.

        Args:
            name: Of the file, for the answer.
            data: An image file of any kind that an atlas takes.
            max_pixels: Width times height that is allowed.

        Raises:
            UnusableImageError: If it cannot be used; `UnknownFormatError` if it is no image, `UnreadFileError` if memory is short.
        """
        return self._looked_at(name, prepare_bytes(data, MAX_SIDE, max_pixels))

    def prepare_file(self, path: Path) -> Photograph | str:
        """The same of an image file, or why it cannot be used."""
        packed = prepare_image(path, MAX_SIDE)
        return packed if isinstance(packed, str) else self._looked_at(str(path), packed)

    def blank(self) -> Photograph:
        """A black square, to warm up with."""
        side = self.bundle.preprocessing.test_side
        return Photograph("", torch.zeros(3, side, side, dtype=torch.uint8), side, side, uniform=True)

    def everything(self) -> Question:
        """All at once that can be asked of any photograph."""
        return Question(
            maps=None if self.explainer is None else {LESION: None, SITE: None},
            similar=None if self.index is None else Wanted(k=1),
            every_site=self.fitted.site_prior is not None,
        )

    def observe(self, photographs: Sequence[Photograph]) -> list[Seen]:
        """Look once at some photographs together."""
        seen = self.runtime.observe(torch.stack([item.square for item in photographs]))
        scores = {task: values.cpu().numpy() for task, values in seen.scores.items()}
        embedding = seen.embedding.cpu().numpy()
        feature_map = None if self.explainer is None or seen.feature_map is None else seen.feature_map.cpu()
        return [
            Seen(
                {task: values[k] for task, values in scores.items()}, embedding[k], None if feature_map is None else feature_map[k]
            )
            for k in range(len(photographs))
        ]

    def answer(self, photograph: Photograph, seen: Seen, question: Question) -> PhotographAnswer:
        """Say what was asked for.

        Args:
            photograph: What was looked at.
            seen: What the network made of it.
            question: One that passes `check`.
        """
        labels, rule = self.bundle.labels, self.fitted.rule
        scores = {task: values[None] for task, values in seen.scores.items()}
        plain = scores if rule is None else rule.calibration.apply(scores)
        conditioned = plain if question.site is None else self._conditioned(plain, question.site)
        said = say(labels, rule, scores, conditioned, None if question.site is None else plain)
        by_site = [
            GivenSiteAnswer(site, given.lesions, given.set, given.unsure)
            for site in (self.sites if question.every_site else ())
            for given in [say(labels, rule, scores, self._conditioned(plain, site), None)]
        ]
        found = look_up(self.index, self.bundle.model, seen.embedding, self.fitted.familiarity, question.similar)
        return PhotographAnswer(
            name=photograph.name,
            width=photograph.width,
            height=photograph.height,
            lesions=said.lesions,
            site=said.site,
            given_site=question.site,
            lesions_without_site=said.lesions_without_site,
            set=said.set,
            unsure=said.unsure,
            unfamiliar=found.unfamiliar,
            unfamiliarity=found.unfamiliarity,
            uniform=photograph.uniform,
            attention=self._attention(photograph, seen, question, plain),
            similar=found.similar,
            by_site=by_site if question.every_site else None,
        )

    def answer_case(self, name: str, answers: Sequence[PhotographAnswer]) -> CaseAnswer:
        """Say of several photographs together what was said of each; see `evaluation.case`.

        Args:
            name: Of the case.
            answers: To one question, at least one.
        """
        return combined(self.bundle.labels, self.fitted.rule, name, answers)

    def _looked_at(self, name: str, packed: PreparedImage) -> Photograph:
        square = central_square(packed.data, self.bundle.preprocessing)
        return Photograph(name, torch.from_numpy(square), packed.width, packed.height, is_uniform(square))

    def _conditioned(self, plain: Scores, site: str) -> Scores:
        """Calibrated probabilities, (1, C) by task, with a given site taken into account."""
        prior = self.fitted.site_prior
        assert prior is not None
        return {**plain, LESION: prior.apply(plain[LESION], plain.get(SITE), np.array([prior.sites.index(site)]))}

    def _attention(self, photograph: Photograph, seen: Seen, question: Question, probabilities: Scores) -> Attention | None:
        if question.maps is None:
            return None
        assert self.explainer is not None
        assert seen.feature_map is not None
        of_photograph = {task: values[0] for task, values in probabilities.items()}
        wanted = {
            task: _foremost(self.bundle.labels[task], of_photograph[task]) if names is None else tuple(names)
            for task, names in question.maps.items()
            if task in of_photograph
        }
        return attention_of(self.explainer, photograph, seen.feature_map, of_photograph, wanted)


def _usable(bundle: Bundle, index: EmbeddingIndex | None, views: Views | None) -> FittedParts:
    """What was fitted for a bundle, without what has nothing to rest on here."""
    fitted = bundle.fitted
    if fitted.familiarity is None:
        return fitted
    reason = None
    if index is None:
        reason = "the bundle holds no index of the photographs that it learnt from"
    elif index.atlas_hash != bundle.provenance.get("atlas_hash"):
        reason = f"the index is of the atlas {index.atlas}, from which this network has not learnt, or not as it is now"
    elif views not in (None, bundle.preprocessing.views):
        reason = f"usual distances are those of the views {bundle.preprocessing.views}"
    if reason is None:
        return fitted
    return replace(fitted, familiarity=None, missing={**fitted.missing, "novelty": reason})


def _foremost(task: Task, probabilities: NDArray[Any]) -> tuple[str, ...]:
    return (task.classes[int(probabilities.argmax())],)
