"""A bundle opened once, with all that answers for it: network, calibration, known sites, index, and a sense for what is unfamiliar.

A photograph passes three steps: `prepare` decodes it, `observe` puts it before the network with others, `answer` makes of that what
was asked for. Each is a function of what it is given, so that they may run in different threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from predilect.atlas.decoding import MAX_PIXELS
from predilect.atlas.jpeg import prepare_bytes
from predilect.atlas.pack import MAX_SIDE
from predilect.bundle import Bundle
from predilect.errors import InsightError, LabelError, ServingError, nearest
from predilect.evaluation.answers import AnswerRule, Answers
from predilect.insight.attention import Explainer
from predilect.insight.bundle_index import INDEX_FOLDER, open_index
from predilect.insight.retrieval import EmbeddingIndex
from predilect.labels.tasks import LESION, SITE, Task
from predilect.serving.answers import Attention, LesionAnswer, PhotographAnswer, SiteAnswer
from predilect.serving.lookup import look_up
from predilect.serving.maps import attention_of
from predilect.serving.runtime import Runtime, TorchRuntime, open_runtime
from predilect.serving.steps import FittedParts, Photograph, Question, Scores, Seen
from predilect.training.devices import make_fabric
from predilect.vision.transforms import central_square

__all__ = ["Predictor"]


@dataclass(frozen=True, eq=False, slots=True)
class Predictor:
    """See the module.

    Attributes:
        bundle: What is answered for.
        runtime: Its network.
        fitted: See `FittedParts`.
        index: See `insight.bundle_index`; None where the bundle holds none.
        explainer: What attention maps need; None where there are none.
        unexplained: Why there are none; None where there are.

    Raises:
        ValueError: If what was fitted is of other classes, or lacks what it needs.
    """

    bundle: Bundle
    runtime: Runtime
    fitted: FittedParts = field(default_factory=FittedParts)
    index: EmbeddingIndex | None = None
    explainer: Explainer | None = None
    unexplained: str | None = "no maps were asked for"

    def __post_init__(self) -> None:
        rule, prior, familiarity = self.fitted.rule, self.fitted.site_prior, self.fitted.familiarity
        if rule is not None:
            rule.check_labels(self.bundle.labels)
        if prior is not None:
            prior.check_labels(self.bundle.labels)
            if rule is None:
                raise ValueError("a site prior is fitted on calibrated probabilities, and needs their rule")
        if familiarity is not None and (self.index is None or len(self.index) < familiarity.novelty.k or familiarity.usual <= 0):
            raise ValueError("familiarity needs a usual distance above 0, and an index of the photographs that were learnt from")

    @classmethod
    def open(cls, bundle: Bundle, *, runtime: str = "torch", fitted: FittedParts | None = None) -> Self:
        """Load all that a bundle holds.

        Args:
            bundle: The bundle.
            runtime: See `serving.runtime.open_runtime`.
            fitted: What was fitted for it; None: nothing.

        Raises:
            ServingError: If the runtime cannot be had.
            BundleError: If the weights do not fit.
            InsightError: If the bundle's index is damaged or another network's.
        """
        ready = open_runtime(bundle, runtime)
        index = open_index(bundle) if (bundle.path / INDEX_FOLDER).exists() else None
        explainer, unexplained = None, None
        try:
            if isinstance(ready, TorchRuntime):
                explainer = Explainer.of(ready.fabric, ready.network)
            else:  # an exported model keeps its heads' weights to itself
                explainer = Explainer.of(make_fabric(bundle.recipe.precision), bundle.network())
        except InsightError as error:  # its architecture has none, or a package is missing
            unexplained = str(error)
        return cls(bundle, ready, fitted or FittedParts(), index, explainer, unexplained)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that may be given, or else those that are predicted."""
        if self.fitted.site_prior is not None:
            return self.fitted.site_prior.sites
        return self.bundle.labels[SITE].classes if SITE in self.bundle.labels else ()

    def check(self, question: Question) -> None:
        """Make sure that a question can be answered.

        Raises:
            LabelError: If it names a class that is unknown.
            ServingError: If the bundle takes no site into account.
            InsightError: If the bundle has no index or no maps, or no photograph of the index passes the filters.
        """
        if question.site is not None:
            if self.fitted.site_prior is None:
                raise ServingError("this bundle does not take a given site into account: it was made without a site prior")
            if question.site not in self.sites:
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
        packed = prepare_bytes(data, MAX_SIDE, max_pixels)
        return Photograph(
            name, torch.from_numpy(central_square(packed.data, self.bundle.preprocessing)), packed.width, packed.height
        )

    def blank(self) -> Photograph:
        """A black square, to warm up with."""
        side = self.bundle.preprocessing.test_side
        return Photograph("", torch.zeros(3, side, side, dtype=torch.uint8), side, side)

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
        rule, prior = self.fitted.rule, self.fitted.site_prior
        scores = {task: values[None] for task, values in seen.scores.items()}
        plain = dict(scores) if rule is None else rule.calibration.apply(scores)
        conditioned = dict(plain)
        if question.site is not None:
            assert prior is not None
            conditioned[LESION] = prior.apply(plain[LESION], plain.get(SITE), np.array([prior.sites.index(question.site)]))
        answers = _answers(rule, conditioned)
        lesions = self._lesions(seen, answers)
        possible = None if answers.possible is None else dict(zip(self._classes(LESION), answers.possible[0].tolist(), strict=True))
        found = look_up(self.index, self.bundle.model, seen.embedding, self.fitted.familiarity, question.similar)
        return PhotographAnswer(
            name=photograph.name,
            width=photograph.width,
            height=photograph.height,
            lesions=lesions,
            site=self._sites(plain),
            given_site=question.site,
            lesions_without_site=None if question.site is None else self._lesions(seen, _answers(rule, plain)),
            set=None if possible is None else [item.name for item in lesions if possible[item.name]],
            unsure=None if answers.unsure is None else bool(answers.unsure[0]),
            unfamiliar=found.unfamiliar,
            unfamiliarity=found.unfamiliarity,
            attention=self._attention(photograph, seen, question, plain),
            similar=found.similar,
        )

    def _classes(self, task: str) -> tuple[str, ...]:
        return self.bundle.labels[task].classes if task in self.bundle.labels else ()

    def _lesions(self, seen: Seen, answers: Answers) -> list[LesionAnswer]:
        names = self._classes(LESION)
        if not names:
            return []
        thresholds = self.thresholds()
        decided = [-1] * len(names) if answers.decided is None else answers.decided[0].tolist()
        probabilities = answers.probabilities[LESION][0]
        return [
            LesionAnswer(
                name=names[k],
                probability=float(probabilities[k]),
                score=float(seen.scores[LESION][k]),
                decision=None if decided[k] < 0 else decided[k] == 1,
                threshold=thresholds[names[k]],
            )
            for k in (-probabilities).argsort(kind="stable").tolist()
        ]

    def thresholds(self) -> dict[str, float | None]:
        """By lesion, from which probability it counts as present; None where nothing is decided."""
        rule = self.fitted.rule
        if rule is None or rule.thresholds is None:
            return dict.fromkeys(self._classes(LESION))
        return {item.name: item.threshold for item in rule.thresholds.lesions}

    def _sites(self, probabilities: Scores) -> list[SiteAnswer]:
        if SITE not in probabilities:
            return []
        names, values = self._classes(SITE), probabilities[SITE][0]
        return [SiteAnswer(names[k], min(1.0, float(values[k]))) for k in (-values).argsort(kind="stable").tolist()]

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


def _answers(rule: AnswerRule | None, probabilities: dict[str, NDArray[np.float32]]) -> Answers:
    return Answers(probabilities, None, None, None) if rule is None else rule.answer(probabilities)


def _foremost(task: Task, probabilities: NDArray[Any]) -> tuple[str, ...]:
    return (task.classes[int(probabilities.argmax())],)
