"""The index of a bundle: an atlas embedded by its network, kept inside it, and asked which cases a new photograph resembles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from predilect.atlas.folder import Atlas
from predilect.atlas.jpeg import PreparedImage, prepare_image, reduce_image
from predilect.atlas.pack import MAX_SIDE, PackedImages
from predilect.bundle import Bundle
from predilect.errors import InsightError
from predilect.evaluation.calibration import Calibration
from predilect.insight.nearest import MIN_VECTORS, Metric
from predilect.insight.retrieval import EmbeddingIndex, Neighbours
from predilect.labels.tasks import LESION, LabelSpace
from predilect.recipe import Preprocessing
from predilect.training.inference import Observation, embed, only_looking
from predilect.vision.transforms import central_square

__all__ = [
    "INDEX_FOLDER",
    "SHOWN_SIDE",
    "SimilarCases",
    "approximated",
    "foremost",
    "index_atlas",
    "keep_index",
    "open_index",
    "similar_cases",
]

INDEX_FOLDER = "index"
"""Where a bundle keeps its index."""

SHOWN_SIDE = 256
"""Longest side, in pixels, of the photographs that an index may hold."""


@dataclass(frozen=True, eq=False, slots=True)
class SimilarCases:
    """What a network says of a photograph, and the photographs of an index that it finds alike.

    Attributes:
        probabilities: ``{task: (C,) float32}``, of the photograph.
        neighbours: Of one query.
    """

    probabilities: Mapping[str, NDArray[np.float32]]
    neighbours: Neighbours


def index_atlas(
    fabric: Fabric,
    bundle: Bundle,
    atlas: Atlas,
    *,
    photographs: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> EmbeddingIndex:
    """Embed an atlas and keep the result in the bundle, in the place of an index that is there.

    Args:
        fabric: Gives device and precision.
        bundle: Its network embeds.
        atlas: The photographs; its classes need not be the bundle's.
        photographs: Whether the index holds small versions of them, too, longest side `SHOWN_SIDE`.
        on_progress: Told how much is done: a step for embedding each photograph, and one for its small version.

    Returns:
        The index as it was written.

    Raises:
        AtlasError: If a packed image is damaged, or they cannot be read.
        BundleError: If the weights do not fit.
        InsightError: If an embedding is not finite, or something else lies in the index's place.
        DiskError: If it cannot be written.
    """
    n = len(atlas)
    steps = 2 * n if photographs else n

    def tell(done: int) -> None:
        if on_progress is not None:
            on_progress(done, steps)

    atlas.check_images()
    with atlas.images() as images:
        embeddings = embed(
            fabric, only_looking(fabric, bundle.network()), images, np.arange(n), on_progress=lambda done, _: tell(done)
        )
    return keep_index(bundle, atlas, embeddings, photographs=photographs, on_progress=lambda done, _: tell(n + done))


def keep_index(
    bundle: Bundle,
    atlas: Atlas,
    embeddings: NDArray[np.float32],
    *,
    photographs: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> EmbeddingIndex:
    """Keep an atlas that is embedded already in the bundle, in the place of an index that is there.

    The index holds ids, labels and the sources' licence and credit, no patients, ages or file names, and no groups, which would
    tell what belongs to one person.

    Args:
        bundle: Its network made the embeddings.
        atlas: N photographs.
        embeddings: (N, D) of them, in their order.
        photographs: Whether the index holds small versions of them, too, longest side `SHOWN_SIDE`.
        on_progress: Told how many small versions of N are made.

    Returns:
        The index as it was written.

    Raises:
        AtlasError: If the packed images cannot be read.
        InsightError: If an embedding is not finite, or something else lies in the index's place.
        DiskError: If it cannot be written.
    """
    path, n = bundle.path / INDEX_FOLDER, len(atlas)

    def reduced(images: PackedImages) -> Iterator[PreparedImage]:
        for row in range(n):
            yield reduce_image(images[row], SHOWN_SIDE)
            if on_progress is not None:
                on_progress(row + 1, n)

    index = EmbeddingIndex(
        embeddings,
        atlas.truth(None),
        bundle.model,
        atlas=atlas.path.resolve().name,
        atlas_hash=atlas.content_hash,
        sources=atlas.sources,
    )
    with atlas.images() as images:
        index.save(path, reduced(images) if photographs else None)
    return EmbeddingIndex.load(path)


def open_index(bundle: Bundle) -> EmbeddingIndex:
    """The index of a bundle.

    Raises:
        InsightError: If the bundle has none, another network made it, or it is empty or damaged.
    """
    path = bundle.path / INDEX_FOLDER
    if not path.exists():
        raise InsightError(f"{bundle.path} holds no index to look in; make one with: predilect index {bundle.path} ATLAS")
    index = EmbeddingIndex.load(path)
    if index.model != bundle.model:
        raise InsightError(
            f"{path} was made by another network (its id is {index.model[:12]!r}, that of {bundle.path} {bundle.model[:12]!r}); "
            f"make it again with: predilect index {bundle.path} ATLAS"
        )
    return index


def approximated(index: EmbeddingIndex, metric: Metric) -> EmbeddingIndex:
    """The index with an approximate search, for a process that answers many queries (see `EmbeddingIndex.approximated`).

    Raises:
        InsightError: If the index is too small for one.
    """
    if len(index) < MIN_VECTORS:
        raise InsightError(f"an approximate search needs at least {MIN_VECTORS:,} photographs, the index holds {len(index):,}")
    return index.approximated(metric=metric)


def similar_cases(
    look: Callable[[Tensor], Observation],
    preprocessing: Preprocessing,
    index: EmbeddingIndex,
    image: Path,
    k: int,
    *,
    model: str,
    metric: Metric = "euclidean",
    lesion: str | None = None,
    site: str | None = None,
    calibration: Calibration | None = None,
) -> SimilarCases:
    """The k photographs of an index that are nearest to an image file.

    Args:
        look: Looks at (1, 3, test_side, test_side) uint8 squares, such as `observe_batch` with a network.
        preprocessing: Gives `test_side`.
        index: See `open_index`.
        image: An image file of any kind.
        k: From 1 to the number of photographs of the index; where filters leave fewer, all of those answer.
        model: Identifies the network that looks, such as `Bundle.model`.
        metric: See `EmbeddingIndex.search`.
        lesion: Only photographs that are known to show it answer.
        site: Only photographs that are known to show it answer.
        calibration: What makes probabilities of the network's scores; None: the scores stand.

    Raises:
        InsightError: If the image cannot be read, the index is another network's, no photograph passes the filters, or without filters the index holds fewer than k.
        LabelError: If the index knows no such lesion or site.
    """
    allowed = None if lesion is None and site is None else index.showing(lesion=lesion, site=site)
    n = k if allowed is None else min(k, int(allowed.sum()))
    prepared = prepare_image(image, MAX_SIDE)
    if isinstance(prepared, str):
        raise InsightError(f"{image}: {prepared}")
    seen = look(torch.from_numpy(central_square(prepared.data, preprocessing))[None])
    neighbours = index.search(seen.embedding.cpu().numpy(), n, model=model, metric=metric, allowed=allowed)
    scores = {task: values.cpu().numpy() for task, values in seen.scores.items()}  # (1, C)
    probabilities = scores if calibration is None else calibration.apply(scores)
    return SimilarCases({task: values[0] for task, values in probabilities.items()}, neighbours)


def foremost(labels: LabelSpace, probabilities: Mapping[str, NDArray[np.float32]]) -> dict[str, tuple[str, ...]]:
    """What a network takes a photograph for.

    Args:
        labels: Its tasks and classes.
        probabilities: ``{task: (C,)}``.

    Returns:
        For each task names, the most probable first: the lesions from 0.5 on, or the most probable one if there is none; one site.
    """
    found = {}
    for task in labels.tasks:
        order = (-probabilities[task.name]).argsort(kind="stable")
        n = max(1, int((probabilities[task.name] >= 0.5).sum())) if task.name == LESION else 1
        found[task.name] = tuple(task.classes[k] for k in order[:n])
    return found
