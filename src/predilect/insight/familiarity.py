"""How far photographs usually lie from those that a network learnt from: what a bundle's warning of strange ones is held against.

Each fold's network embeds the photographs that it was fitted on and those that it was tested on. A distance is that to the k-th nearest
of the first, none of which is of the photograph's own group, in multiples of the median one among them (`evaluation.novelty`). One
seed is enough: the bundle's network has one, too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from predilect.evaluation.fitted_parts import Familiarity
from predilect.evaluation.metrics import Floats
from predilect.evaluation.novelty import NEAREST, Novelty, fit_novelty, relative_distances
from predilect.insight.retrieval import EmbeddingIndex
from predilect.predictions import Truth
from predilect.randomness import stream
from predilect.run import WEIGHTS_FILE
from predilect.training.folds import TrainedFolds
from predilect.training.inference import embed, only_looking

__all__ = ["familiarity_of", "novelty_of_folds"]

_SAMPLED = 2_000  # training photographs: their median distance is then known to about a hundredth of it


def novelty_of_folds(
    folds: TrainedFolds, system: str, *, fabric: Fabric, on_progress: Callable[[int, int], None] | None = None
) -> Novelty | str:
    """Learn from the folds of a run what distances are usual, with the run's first seed.

    Cost for each fold: a forward pass over the photographs of the atlas but for the slice that watched the training, and an exact
    search for those tested and for up to 2,000 of the others.

    Args:
        folds: The run and its atlas.
        system: Name of a trained system.
        fabric: Gives device and precision.
        on_progress: Told how many photographs were embedded, and how many there are, over all folds.

    Returns:
        What was learnt, or why nothing can be: a clause.

    Raises:
        RunError: If there is no such system, or weights were changed.
        InsightError: If an embedding is not finite.
    """
    seed, numbers = folds.run.info["seeds"][0], folds.run.info["folds"]
    lost = [str(fold) for fold in numbers if not (folds.run.fold_folder(system, seed, fold) / WEIGHTS_FILE).is_file()]
    if lost:
        return f"the weights of fold {', '.join(lost)} are no longer in the run"
    rows = {fold: (folds.fitted_on(system, fold), folds.tested(fold)) for fold in numbers}
    if any(_n_strangers(folds.truth, fitted_on) < NEAREST for fitted_on, _ in rows.values()):
        return f"the folds have too few groups for a photograph to have {NEAREST} neighbours of other ones"
    total, done = sum(len(part) for parts in rows.values() for part in parts), 0
    distances, groups = [], []
    group_of = folds.truth.group_indices()
    with folds.atlas.images() as images:
        for fold, (fitted_on, tested) in rows.items():
            network = only_looking(fabric, folds.network(system, seed, fold))
            embedded = []
            for part in (fitted_on, tested):
                embedded.append(embed(fabric, network, images, part, on_progress=partial(_tell, on_progress, done, total)))
                done += len(part)
            learnt = EmbeddingIndex(embedded[0], folds.truth.take(fitted_on), "of the fold")
            usual = _among(learnt)
            if np.median(usual) <= 0:
                return f"the network of fold {fold} sees no difference between photographs"
            distances.append(relative_distances(_search(learnt, embedded[1]), usual))
            groups.append(group_of[tested])
    return fit_novelty(np.concatenate(distances), np.concatenate(groups))


def familiarity_of(novelty: Novelty, embeddings: NDArray[np.float32], truth: Truth) -> Familiarity | str:
    """What distances are usual, for a network that learnt from a whole atlas.

    Args:
        novelty: Of its folds.
        embeddings: (N, D) of the atlas by this network.
        truth: N photographs with their groups, in the same order.

    Returns:
        That, or why there is no scale: a clause.

    Raises:
        InsightError: If an embedding is not finite.
    """
    usual = float(np.median(_among(EmbeddingIndex(embeddings, truth, "of all"))))
    return Familiarity(novelty, usual) if usual > 0 else "the network sees no difference between photographs"


def _among(learnt: EmbeddingIndex) -> Floats:
    """(n,) of up to 2,000 photographs of an index the distance to the k-th nearest of other groups."""
    chosen = stream(0, "usual distances").permutation(len(learnt))[:_SAMPLED]
    assert learnt.photos.groups is not None
    return _search(learnt, learnt.embeddings[chosen], learnt.photos.groups[chosen])


def _search(learnt: EmbeddingIndex, embeddings: NDArray[np.float32], own: NDArray[np.str_] | None = None) -> Floats:
    excluded = None if own is None else own.tolist()
    found = learnt.search(embeddings, NEAREST, model=learnt.model, exclude_groups=excluded)
    return np.asarray(found.distances[:, NEAREST - 1])


def _n_strangers(truth: Truth, rows: NDArray[np.int64]) -> int:
    """How many photographs are of other groups than the largest, at least."""
    return len(rows) - int(np.bincount(truth.group_indices()[rows]).max())


def _tell(on_progress: Callable[[int, int], None] | None, before: int, total: int, done: int, _of_part: int) -> None:
    if on_progress is not None:
        on_progress(before + done, total)
