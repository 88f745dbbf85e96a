"""One network of a cross-validation, and what it shows of itself on the photographs that it did not learn from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from predilect.atlas.pack import PackedImages
from predilect.errors import UnexplainableError
from predilect.evaluation.metrics import Floats
from predilect.evaluation.retrieval import ranked, score_queries
from predilect.insight.attention import Explainer, head_maps
from predilect.insight.faithfulness import BASELINES, correlation, overlap, photograph_curves, random_network, rank_similarity
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth
from predilect.randomness import stream, stream_seed
from predilect.recipe import Recipe
from predilect.run.insight import TABLES, FoldInsight, query_frame
from predilect.training.folds import TrainedFolds
from predilect.training.inference import Observation, embed, observe, only_looking
from predilect.vision.network import Network

__all__ = ["STEPS", "Fold", "Part", "explain_fold", "n_inputs"]

STEPS = 10
"""Into so many equal parts the pixels are divided in deletion and insertion."""

Part = tuple[str, int, int]
"""System, seed, fold."""


@dataclass(frozen=True, eq=False, slots=True)
class Fold:
    """One network and the photographs of its fold.

    Attributes:
        fabric: Gives device and precision.
        network: On that device, in evaluation.
        recipe: Its recipe.
        seed: Of its training.
        explainer: What makes its maps; None where it has none.
        unexplained: Why it has none; None where it has.
        images: The packed photographs.
        truth: What is known of them.
        tested: (T,) rows that it was tested on.
        learnt: (M,) all others.
        sampled: (n,) rows among those tested that are drawn for the checks, ascending.
    """

    fabric: Fabric
    network: Network
    recipe: Recipe
    seed: int
    explainer: Explainer | None
    unexplained: str | None
    images: PackedImages
    truth: Truth
    tested: NDArray[np.int64]
    learnt: NDArray[np.int64]
    sampled: NDArray[np.int64]

    @classmethod
    def of(cls, folds: TrainedFolds, part: Part, fabric: Fabric, images: PackedImages, sampled: NDArray[np.int64]) -> Self:
        """Load a network.

        Args:
            folds: The run and its atlas.
            part: Which network.
            fabric: Gives device and precision.
            images: The photographs of the atlas.
            sampled: Rows drawn for the checks, over all folds.

        Raises:
            RunError: If the network is not there, or its weights are missing or changed.
            InsightError: If captum is needed and missing.
        """
        system, seed, fold = part
        network = only_looking(fabric, folds.network(*part))
        tested = folds.tested(fold)
        explainer, unexplained = None, None
        try:
            explainer = Explainer.of(fabric, network)
        except UnexplainableError as error:
            unexplained = str(error)
        return cls(
            fabric=fabric,
            network=network,
            recipe=folds.recipe(system),
            seed=seed,
            explainer=explainer,
            unexplained=unexplained,
            images=images,
            truth=folds.truth,
            tested=tested,
            learnt=folds.learnt(fold),
            sampled=sampled[np.isin(sampled, tested)],
        )

    @property
    def n_views(self) -> int:
        """How many inputs the recipe makes of a photograph."""
        return self.recipe.preprocessing.n_views


def n_inputs(n_views: int, n_photographs: int, n_sampled: int, n_heads: int) -> int:
    """How many inputs go through a network: each photograph in each view, and what the checks show it and a random one.

    A sampled photograph goes through once more for its whole map, and through the random network.

    Args:
        n_views: Of the recipe.
        n_photographs: Of the atlas.
        n_sampled: Photographs of the fold that are drawn for the checks; 0 for a network without maps.
        n_heads: Tasks of the network.
    """
    return n_views * (n_photographs + 2 * n_sampled) + n_sampled * (1 + n_heads * (1 + len(BASELINES)) * 2 * STEPS)


def explain_fold(fold: Fold, tell: Callable[[int], None]) -> FoldInsight:
    """Find all that is to be found.

    Args:
        fold: The network and its photographs.
        tell: Told how many more inputs went through a network.

    Raises:
        InsightError: If an embedding is not finite.
    """
    begun = time.perf_counter()
    look = _look(fold, tell)
    answering = embed(fold.fabric, fold.network, fold.images, fold.learnt, on_progress=_steps(tell, fold.n_views))
    order = ranked(look.embeddings, answering, fold.truth.image_ids[fold.learnt])
    tables = {
        "queries": query_frame(score_queries(fold.truth, fold.tested, fold.learnt, order), fold.truth),
        "coincidence": look.coincidence,
        "curves": _curves(fold, look, tell),
        "randomisation": _randomisation(fold, look, tell),
    }
    n_sampled = 0 if fold.explainer is None else len(fold.sampled)
    n_photographs = len(fold.tested) + len(fold.learnt)
    return FoldInsight(
        tables=tables,
        method=None if fold.explainer is None else fold.explainer.method,
        cells=look.cells,
        unexplained=fold.unexplained,
        images=n_inputs(fold.n_views, n_photographs, n_sampled, len(fold.network.labels.names)),
        seconds=round(time.perf_counter() - begun, 2),
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Look:
    """What a network's one look at the tested photographs gave.

    Attributes:
        embeddings: (T, D).
        coincidence: The table of that name.
        cells: Rows and columns of the maps.
        predicted: ``{task: (n,)}`` the most probable class of each sampled photograph.
        maps: ``{task: (n, h, w)}`` of that class.
    """

    embeddings: NDArray[np.float32]
    coincidence: pl.DataFrame
    cells: tuple[int, int] | None
    predicted: dict[str, NDArray[np.int64]]
    maps: dict[str, NDArray[np.float32]]


def _steps(tell: Callable[[int], None], n_views: int) -> Callable[[int, int], None]:
    """What tells how many photographs are done, as what is told how many more inputs."""
    before = 0

    def step(done: int, _total: int) -> None:
        nonlocal before
        tell(n_views * (done - before))
        before = done

    return step


def _look(fold: Fold, tell: Callable[[int], None]) -> _Look:
    """The tested photographs, each once: embeddings for all, maps where there are any."""
    embeddings, coincidence = [], [_empty("coincidence")]
    predicted: dict[str, list[NDArray[np.int64]]] = {task: [] for task in fold.network.labels.names}
    maps: dict[str, list[NDArray[np.float32]]] = {task: [] for task in fold.network.labels.names}
    cells = None
    for seen, rows in observe(fold.fabric, fold.network, fold.images, fold.tested):
        embeddings.append(seen.embedding.cpu().numpy())
        if fold.explainer is not None and seen.feature_map is not None:
            cells = (seen.feature_map.shape[2], seen.feature_map.shape[3])
            coincidence.append(_coincidence(fold.network, seen, rows, fold.truth))
            drawn = np.isin(rows, fold.sampled)
            if drawn.any():
                best = {task: scores.argmax(dim=1)[drawn] for task, scores in seen.scores.items()}
                for task, found in _maps(fold.network, seen.feature_map[drawn], best).items():
                    predicted[task].append(best[task].cpu().numpy())
                    maps[task].append(found)
        tell(fold.n_views * len(rows))
    return _Look(
        np.concatenate(embeddings),
        pl.concat(coincidence),
        cells,
        {task: np.concatenate(parts) for task, parts in predicted.items() if parts},
        {task: np.concatenate(parts) for task, parts in maps.items() if parts},
    )


def _curves(fold: Fold, look: _Look, tell: Callable[[int], None]) -> pl.DataFrame:
    """Deletion and insertion of the sampled photographs, in the order of the maps of their predicted classes."""
    records: list[dict[str, Any]] = []
    for k, row in enumerate(fold.sampled.tolist()):
        if fold.explainer is None:
            break
        data = fold.images[row]
        wanted = {task: (_name(fold, task, classes[k]),) for task, classes in look.predicted.items()}
        found_maps = fold.explainer.photograph(data, wanted)
        tell(fold.n_views + 1)
        for task, (found,) in found_maps.items():
            by_kind = photograph_curves(fold.explainer, data, found, STEPS, stream_seed(0, "random map", row))
            records += [
                {
                    "image_id": str(fold.truth.image_ids[row]),
                    "task": task,
                    "class": found.name,
                    "map": kind,
                    "deletion": curves.deletion.tolist(),
                    "insertion": curves.insertion.tolist(),
                }
                for kind, curves in by_kind.items()
            ]
            tell(len(by_kind) * 2 * STEPS)
    return pl.DataFrame(records, schema=TABLES["curves"])


def _randomisation(fold: Fold, look: _Look, tell: Callable[[int], None]) -> pl.DataFrame:
    """The maps of the sampled photographs against those of random weights, and against those of each other."""
    if not look.maps:
        return _empty("randomisation")
    untrained = only_looking(fold.fabric, random_network(fold.network, fold.recipe, fold.seed))
    others: dict[str, list[NDArray[np.float32]]] = {task: [] for task in look.maps}
    done = 0
    for seen, rows in observe(fold.fabric, untrained, fold.images, fold.sampled):
        assert seen.feature_map is not None
        wanted = {
            task: torch.from_numpy(classes[done : done + len(rows)]).to(fold.fabric.device)
            for task, classes in look.predicted.items()
        }
        for task, found in _maps(untrained, seen.feature_map, wanted).items():
            others[task].append(found)
        done += len(rows)
        tell(fold.n_views * len(rows))
    partner = _strangers(fold.truth.group_indices()[fold.sampled])
    return pl.concat(
        pl.DataFrame(
            {
                "image_id": fold.truth.image_ids[fold.sampled].tolist(),
                "task": [task] * len(maps),
                "class": [_name(fold, task, k) for k in look.predicted[task]],
                "rank_correlation": _nullable(rank_similarity(maps, np.concatenate(others[task]))),
                "unrelated": _nullable(np.where(partner == np.arange(len(maps)), np.nan, rank_similarity(maps, maps[partner]))),
            },
            schema=TABLES["randomisation"],
        )
        for task, maps in look.maps.items()
    )


def _strangers(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of n photographs one of another group, since two of one patient may show the same place; itself where there is none.

    The photographs are put in a random order, and each takes the nearest before it, round the end, whose group is another.

    Args:
        groups: (n,).

    Returns:
        (n,) positions.
    """
    order = stream(0, "unrelated photographs").permutation(len(groups)).tolist()
    partner = np.arange(len(groups))
    for place, own in enumerate(order):
        before = (order[place - back] for back in range(1, len(order)))
        partner[own] = next((other for other in before if groups[other] != groups[own]), own)
    return partner


def _name(fold: Fold, task: str, k: int) -> str:
    return fold.network.labels[task].classes[int(k)]


def _maps(network: Network, feature_map: Tensor, classes: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """``{task: (B, h, w)}`` the map of one class of each image, ``{task: (B,) int64}``."""
    found = head_maps(network, feature_map, {task: wanted[:, None] for task, wanted in classes.items()})
    return {task: maps[:, 0].cpu().numpy() for task, maps in found.items()}


def _coincidence(network: Network, seen: Observation, rows: NDArray[np.int64], truth: Truth) -> pl.DataFrame:
    """The map of each lesion that a photograph is known to show against that of its site: the true one, else the predicted one."""
    if not {LESION, SITE} <= set(network.labels.names):
        return _empty("coincidence")
    shown = truth.values[LESION][rows] == 1  # (B, C)
    some = np.flatnonzero(shown.any(axis=1))
    if not len(some):
        return _empty("coincidence")
    shown, site = shown[some], truth.values[SITE][rows[some]]
    predicted = seen.scores[SITE].argmax(dim=1).cpu().numpy()[some]
    of_site = np.where((site == 1).any(axis=1), site.argmax(axis=1), predicted)
    # Photographs show different numbers of lesions: as many columns as the most, those shown first.
    lesions = np.argsort(~shown, axis=1, kind="stable")[:, : shown.sum(axis=1).max()]
    assert seen.feature_map is not None
    device = seen.feature_map.device
    wanted = {LESION: torch.from_numpy(lesions).to(device), SITE: torch.from_numpy(of_site[:, None]).to(device)}
    maps = {task: found.cpu().numpy() for task, found in head_maps(network, seen.feature_map[some], wanted).items()}
    there = np.take_along_axis(shown, lesions, axis=1)
    of_lesion, of_place = maps[LESION], np.broadcast_to(maps[SITE], maps[LESION].shape)
    image, _ = np.nonzero(there)
    return pl.DataFrame(
        {
            "image_id": truth.image_ids[rows[some][image]].tolist(),
            "lesion": [network.labels[LESION].classes[k] for k in lesions[there]],
            "correlation": _nullable(correlation(of_lesion, of_place)[there]),
            "overlap": _nullable(overlap(of_lesion, of_place)[there]),
        },
        schema=TABLES["coincidence"],
    )


def _nullable(values: Floats) -> pl.Series:
    return pl.Series(values).fill_nan(None)


def _empty(name: str) -> pl.DataFrame:
    return pl.DataFrame(schema=TABLES[name])
