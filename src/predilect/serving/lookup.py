"""What a bundle's index says of a photograph: which are similar, and whether it is unlike all of them."""

from __future__ import annotations

import base64
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predilect.evaluation.fitted_parts import Familiarity
from predilect.insight.retrieval import EmbeddingIndex, Neighbours
from predilect.labels.tasks import LESION, SITE
from predilect.serving.answers import Neighbour, Similar
from predilect.serving.steps import Wanted

__all__ = ["LookedUp", "look_up"]


class LookedUp(NamedTuple):
    """What was found; None for what was not asked for or cannot be told.

    Attributes:
        unfamiliar: Whether there is a warning.
        unfamiliarity: Share of held-out photographs that lie nearer.
        similar: The nearest.
    """

    unfamiliar: bool | None = None
    unfamiliarity: float | None = None
    similar: Similar | None = None


def look_up(
    index: EmbeddingIndex | None,
    model: str,
    embedding: NDArray[np.float32],
    familiarity: Familiarity | None,
    wanted: Wanted | None,
) -> LookedUp:
    """Search an index, once where one search answers all.

    Args:
        index: None: there is none, and nothing is found.
        model: Identifies the network that embedded the photograph.
        embedding: (D,).
        familiarity: None: it is not known what is usual.
        wanted: Similar photographs; fewer are found where fewer pass the filters.

    Raises:
        LabelError: If the index knows no such lesion or site.
        InsightError: If no photograph passes the filters, or the index is another network's.
    """
    if index is None or (familiarity is None and wanted is None):
        return LookedUp()

    def search(k: int, allowed: NDArray[np.bool_] | None = None) -> Neighbours:
        n = len(index) if allowed is None else int(allowed.sum())
        return index.search(embedding[None], min(k, n), model=model, allowed=allowed)

    filtered = wanted is not None and (wanted.lesion is not None or wanted.site is not None)
    unfamiliar, unfamiliarity, of_all = None, None, None
    if familiarity is not None:
        k = familiarity.novelty.k
        of_all = search(k if wanted is None or filtered else max(k, wanted.k))
        far = of_all.distances[:, k - 1] / familiarity.usual
        unfamiliar = bool(familiarity.novelty.warns(far)[0])
        unfamiliarity = float(1 - familiarity.novelty.beyond_it(far)[0])
    if wanted is None:
        return LookedUp(unfamiliar, unfamiliarity)
    if of_all is None or filtered:
        of_all = search(wanted.k, index.showing(lesion=wanted.lesion, site=wanted.site) if filtered else None)
    return LookedUp(unfamiliar, unfamiliarity, _similar(index, of_all, wanted.k))


def _similar(index: EmbeddingIndex, found: Neighbours, k: int) -> Similar:
    sources = index.photos.covariates["source"] if "source" in index.photos.covariates.columns else None
    neighbours = []
    for row, distance in zip(found.positions[0, :k].tolist(), found.distances[0, :k].tolist(), strict=True):
        lesions, sites = (index.photos.present(task, row) for task in (LESION, SITE))
        neighbours.append(
            Neighbour(
                image_id=str(index.photos.image_ids[row]),
                distance=distance,
                lesions=None if lesions is None else list(lesions),
                site=sites[0] if sites else None,
                source=None if sources is None else sources[row],
                photograph=None if index.images is None else _data_url(index.images[row]),
            )
        )
    return Similar("euclidean", neighbours)


def _data_url(jpeg: memoryview) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
