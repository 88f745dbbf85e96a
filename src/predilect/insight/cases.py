"""The cases of a finished cross-validation (the paper's Figure 3): chosen, seen by their own fold's network, put beside their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image

from predilect.atlas.jpeg import encode, reduce_image
from predilect.atlas.pack import PackedImages
from predilect.errors import InsightError, UnexplainableError, nearest
from predilect.evaluation.measures import counted_classes
from predilect.evaluation.metrics import Floats, image_average_precision
from predilect.evaluation.retrieval import TOP
from predilect.insight.attention import AttentionMap, Explainer
from predilect.insight.retrieval import EmbeddingIndex, Neighbours
from predilect.labels.tasks import LESION, SITE, LabelSpace
from predilect.predictions import Predictions, Truth, check_matching
from predilect.randomness import stream
from predilect.report.attention_panel import overlaid
from predilect.report.cases_page import Case, CaseMap, CaseNeighbour, CasesPage, Section
from predilect.training.folds import TrainedFolds
from predilect.training.inference import embed, only_looking
from predilect.vision.transforms import decode

__all__ = ["CaseChoice", "make_cases"]

_QUERY_SIDE, _NEIGHBOUR_SIDE = 360, 256  # longest side of a picture on the page, in pixels
_PREDICTED = 3  # classes of each task that a case names


@dataclass(frozen=True, slots=True)
class CaseChoice:
    """Which tested photographs are shown.

    Attributes:
        ids: Those that somebody chose.
        n_random: So many drawn among all that were tested, the same ones for every system.
        n_worst: So many with the lowest score, see `make_cases`.

    Raises:
        ValueError: If a number is negative.
    """

    ids: tuple[str, ...] = ()
    n_random: int = 0
    n_worst: int = 0

    def __post_init__(self) -> None:
        if min(self.n_random, self.n_worst) < 0:
            raise ValueError(f"{self.n_random} random and {self.n_worst} worst cases: neither can be negative")


def make_cases(
    folds: TrainedFolds,
    system: str,
    seed: int,
    choice: CaseChoice,
    *,
    fabric: Fabric,
    command: str = "",
    on_progress: Callable[[int, int], None] | None = None,
) -> CasesPage:
    """Look at some tested photographs with the network of their fold, and find their nearest neighbours in the other folds.

    The worst are those with the lowest average precision over the photograph's lesions (Eq. 10, inner sum; labels that a model made
    left out), or for a system without lesions those with the lowest probability of the known site; ties by image_id.

    Cost: for each fold with a case, a forward pass over the photographs of the other folds.

    Args:
        folds: The run and its atlas.
        system: A trained system.
        seed: A training seed of the run; it also draws the random cases.
        choice: Which photographs.
        fabric: Gives device and precision.
        command: The command line, for the record.
        on_progress: Told how many of the photographs that may answer went through a network.

    Raises:
        RunError: If a fold is not finished, or a file of it is missing or changed.
        InsightError: If a chosen photograph was not tested, nothing is chosen, or captum is needed and missing.
    """
    folds.recipe(system)  # an unknown system, or seed, has no predictions
    folds.check_seed(seed)
    tested = _Tested.of(folds, system, seed)
    chosen = _chosen(folds, tested, seed, choice)
    wanted = np.unique(np.concatenate([positions for _, _, positions in chosen]))
    fold_of = folds.folds[tested.rows[wanted]]
    answering = {fold: len(folds.learnt(fold)) for fold in np.unique(fold_of).tolist()}
    for fold in answering:
        folds.run.fold_weights(system, seed, fold)  # all of them, before minutes of work on the first
    cases: dict[int, Case] = {}
    with folds.atlas.images() as images:
        for fold, before in zip(answering, accumulate(answering.values(), initial=0), strict=False):

            def tell(done: int, _total: int, before: int = before) -> None:
                if on_progress is not None:
                    on_progress(before + done, sum(answering.values()))

            seen = _Seen.of(folds, (system, seed, fold), tested, wanted[fold_of == fold], fabric=fabric, images=images, tell=tell)
            cases |= {at: seen.case(k) for k, at in enumerate(seen.positions.tolist())}
    info = folds.run.info
    return CasesPage(
        atlas=str(info["atlas"]),
        system=system,
        seed=seed,
        method=None if seen.explainer is None else seen.explainer.method,
        unexplained=seen.unexplained,
        sections=tuple(Section(title, sentence, tuple(cases[at] for at in some.tolist())) for title, sentence, some in chosen),
        machine=folds.truth.labels[LESION].machine if LESION in folds.truth.labels else frozenset(),
        notes=tuple(dict.fromkeys(note for source in folds.atlas.sources for note in source.notes)),
        sources=folds.atlas.sources,
        provenance={
            "command": command,
            "run": folds.run.path.resolve().name,
            "system": f"{system}, seed {seed}",
            "atlas": f"{info['atlas']}, content hash {info['atlas_hash']}",
        },
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Tested:
    """The T photographs that a system was tested on, and what it said of them.

    Attributes:
        rows: (T,) of the atlas.
        truth: T rows.
        predictions: T rows.
        scores: (T,) what the worst are found by; NaN where it is not defined.
        score: What that is.
    """

    rows: NDArray[np.int64]
    truth: Truth
    predictions: Predictions
    scores: Floats
    score: str

    @classmethod
    def of(cls, folds: TrainedFolds, system: str, seed: int) -> _Tested:
        rows = np.flatnonzero(np.isin(folds.folds, folds.run.info["folds"]))
        truth = folds.truth.take(rows)
        predictions = check_matching(folds.run.seed_predictions(system, seed), truth)
        if LESION in predictions.labels:
            counted = counted_classes(truth.labels[LESION])
            scores = image_average_precision(predictions.scores[LESION][:, counted], truth.values[LESION][:, counted])
            return cls(rows, truth, predictions, scores, "average precision of the lesions")
        known = truth.values[SITE] == 1
        chances = np.where(known.any(axis=1), np.where(known, predictions.scores[SITE], 0).sum(axis=1), np.nan)
        return cls(rows, truth, predictions, chances, "probability of the known site")


@dataclass(frozen=True, eq=False, slots=True)
class _Seen:
    """One fold's cases as its network sees them.

    Attributes:
        tested: All that were tested.
        positions: (n,) the cases, as rows of `tested`.
        fold: Its number.
        explainer: What makes the maps; None where the network has none.
        unexplained: Why it has none; None where it has.
        neighbours: Of n queries, positions as rows of `learnt`.
        learnt: The photographs that may answer.
        rows: Of these in the atlas.
        images: The packed photographs of the atlas.
    """

    tested: _Tested
    positions: NDArray[np.int64]
    fold: int
    explainer: Explainer | None
    unexplained: str | None
    neighbours: Neighbours
    learnt: Truth
    rows: NDArray[np.int64]
    images: PackedImages

    @classmethod
    def of(
        cls,
        folds: TrainedFolds,
        part: tuple[str, int, int],
        tested: _Tested,
        positions: NDArray[np.int64],
        *,
        fabric: Fabric,
        images: PackedImages,
        tell: Callable[[int, int], None],
    ) -> _Seen:
        network, rows = only_looking(fabric, folds.network(*part)), folds.learnt(part[2])
        explainer, unexplained = None, None
        try:
            explainer = Explainer.of(fabric, network)
        except UnexplainableError as error:
            unexplained = str(error)
        learnt, model = folds.truth.take(rows), str(folds.run.weights_checksum(*part))
        index = EmbeddingIndex(embed(fabric, network, images, rows, on_progress=tell), learnt, model)
        queries = embed(fabric, network, images, tested.rows[positions])
        assert folds.truth.groups is not None
        own = folds.truth.groups[tested.rows[positions]].tolist()
        neighbours = index.search(queries, TOP, model=model, exclude_groups=own)
        return cls(tested, positions, part[2], explainer, unexplained, neighbours, learnt, rows, images)

    def case(self, k: int) -> Case:
        """The k-th of its cases."""
        tested, at = self.tested, int(self.positions[k])
        data = self.images[int(tested.rows[at])]
        labels, score = tested.predictions.labels, float(tested.scores[at])
        lesions, sites = tested.truth.present(LESION, at), tested.truth.present(SITE, at)
        predicted = {task: _most_probable(labels, task, tested.predictions.scores[task][at]) for task in labels.names}
        return Case(
            image_id=str(tested.truth.image_ids[at]),
            fold=self.fold,
            lesions=lesions,
            site=sites[0] if sites else None,
            predicted=predicted,
            score="" if np.isnan(score) else f"{tested.score} {score:.2f}",
            maps=() if self.explainer is None else _maps(self.explainer, data, _known(tested, at)),
            neighbours=tuple(self._neighbour(k, place, at) for place in range(self.neighbours.positions.shape[1])),
            picture=reduce_image(data, _QUERY_SIDE).data,
        )

    def _neighbour(self, k: int, place: int, at: int) -> CaseNeighbour:
        row = int(self.neighbours.positions[k, place])
        sites, own_sites = self.learnt.present(SITE, row), self.tested.truth.present(SITE, at)
        shared, ruled_out = _shared_lesions(self.tested.truth, at, self.learnt, row)
        return CaseNeighbour(
            image_id=str(self.learnt.image_ids[row]),
            distance=float(self.neighbours.distances[k, place]),
            lesions=self.learnt.present(LESION, row),
            site=sites[0] if sites else None,
            match="shared" if shared else "none" if ruled_out else "unknown",
            shared=shared,
            same_site=bool(sites) and sites == own_sites,
            picture=reduce_image(self.images[int(self.rows[row])], _NEIGHBOUR_SIDE).data,
        )


def _chosen(folds: TrainedFolds, tested: _Tested, seed: int, choice: CaseChoice) -> list[tuple[str, str, NDArray[np.int64]]]:
    """Title, sentence and positions among those tested, of each section."""
    ids = tested.truth.image_ids
    n = len(ids)
    sections = []
    if choice.ids:
        place = {name: at for at, name in enumerate(ids.tolist())}
        for name in choice.ids:
            if name not in place:
                why = "it lies in a fold that was not" if name in folds.truth.image_ids else nearest(name, place)
                raise InsightError(f"{folds.run.path} tested no photograph {name!r}: {why}")
        chosen = np.array([place[name] for name in dict.fromkeys(choice.ids)])
        sections.append(("Chosen", "Named by whoever made the page.", chosen))
    if choice.n_random:
        drawn = np.sort(stream(seed, "cases").permutation(n)[: choice.n_random])
        sections.append(
            ("Random", f"{len(drawn)} of the {n:,} photographs that were tested, chosen at random (seed {seed}).", drawn)
        )
    defined = np.flatnonzero(~np.isnan(tested.scores))
    if choice.n_worst and len(defined):
        worst = defined[np.lexsort((ids[defined], tested.scores[defined]))][: choice.n_worst]
        sentence = f"{len(worst)} with the lowest {tested.score}, of {len(defined):,} that have one."
        sections.append(("Worst", sentence, worst))
    if not sections:
        raise InsightError(f"no case of {folds.run.path} is chosen: name photographs, or ask for random or worst ones")
    return sections


def _known(tested: _Tested, at: int) -> dict[str, str | None]:
    """For each head the class whose map is shown: the most probable of those that people saw there; None for the predicted one."""
    found: dict[str, str | None] = {}
    for task in tested.truth.labels.restricted_to(tested.predictions.labels.names).tasks:
        names = [name for name in tested.truth.present(task.name, at) or () if name not in task.machine]
        scores = tested.predictions.scores[task.name][at]
        found[task.name] = max(names, key=lambda name: scores[task.index(name)], default=None)
    return found


def _most_probable(labels: LabelSpace, task: str, scores: NDArray[np.float32]) -> list[tuple[str, float]]:
    order = (-scores).argsort(kind="stable")[:_PREDICTED]
    return [(labels[task].classes[k], float(scores[k])) for k in order]


def _maps(explainer: Explainer, data: memoryview, known: Mapping[str, str | None]) -> tuple[CaseMap, ...]:
    wanted = {task: None if name is None else (name,) for task, name in known.items()}
    found = explainer.photograph(data, wanted)
    return tuple(_case_map(item, data, known=known[task] is not None) for task, (item,) in found.items())


def _case_map(found: AttentionMap, data: memoryview, *, known: bool) -> CaseMap:
    image = decode(data, _QUERY_SIDE)
    scale = _QUERY_SIDE / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    photograph = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    values = found.over(width, height)
    return CaseMap(
        task=found.task,
        name=found.name,
        known=known,
        probability=found.probability,
        low=float(values.min()),
        high=float(values.max()),
        picture=encode(overlaid(photograph, values)).data,
    )


def _shared_lesions(truth: Truth, at: int, others: Truth, row: int) -> tuple[tuple[str, ...], bool]:
    """The lesions, labelled by people, that are known to be on both; and whether it is known that there is none."""
    if LESION not in truth.labels:
        return (), False
    task = truth.labels[LESION]
    shown = (truth.values[LESION][at] == 1) & counted_classes(task)
    theirs = others.values[LESION][row][shown]
    names = np.array(task.classes)[shown]
    return tuple(names[theirs == 1].tolist()), bool(shown.any()) and bool((theirs == 0).all())
