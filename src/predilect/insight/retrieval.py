"""Which photographs of an atlas are nearest to a query, by the embeddings of one network (the paper's Figure 3).

An index is a folder that is written and replaced as a whole: index.json (schema version, model, atlas, sources with licence and
credit, checksums), embeddings.safetensors, photos.parquet, and images.arrow where it holds the photographs, too. Nothing in it is a
search structure: what faiss needs is made from the embeddings after they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from predilect.atlas.importers import Source
from predilect.atlas.jpeg import PreparedImage
from predilect.atlas.pack import PackedImages, write_packed
from predilect.errors import InsightError
from predilect.files import checksum, is_sealed, read_json, replacing, replacing_folder, seal, write_json
from predilect.insight.nearest import Cells, Exclusion, Metric, Space, lengths, make_cells
from predilect.labels.tasks import LESION, SITE
from predilect.predictions import Truth

__all__ = ["EmbeddingIndex", "Neighbours"]

_SCHEMA_VERSION = 1
_INDEX, _EMBEDDINGS, _PHOTOS, _IMAGES = "index.json", "embeddings.safetensors", "photos.parquet", "images.arrow"
_TENSOR = "embeddings"
_METRICS: tuple[str, ...] = get_args(Metric)
_REMEDY = "make the index again"


@dataclass(frozen=True, eq=False, slots=True)
class Neighbours:
    """The nearest photographs of each query, nearest first.

    Attributes:
        image_ids: (Q, k).
        distances: (Q, k) float64, at least 0 and never falling along a row.
        positions: (Q, k) rows of the index, none twice for one query.

    Raises:
        ValueError: If shapes differ, or a row breaks these rules.
    """

    image_ids: NDArray[np.str_]
    distances: NDArray[np.float64]
    positions: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = {self.image_ids.shape, self.distances.shape, self.positions.shape}
        if len(shapes) > 1 or self.positions.ndim != 2:
            raise ValueError(f"ids, distances and positions must have one shape (Q, k), found {sorted(shapes)}")
        if not np.isfinite(self.distances).all() or (self.distances < 0).any() or (np.diff(self.distances, axis=1) < 0).any():
            raise ValueError("distances must be finite, at least 0, and must not fall along a row")
        ordered = np.sort(self.positions, axis=1)
        if (ordered < 0).any() or (np.diff(ordered, axis=1) == 0).any():
            raise ValueError("positions must be at least 0, and none may stand twice in a row")

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, eq=False)
class EmbeddingIndex:
    """The embeddings of an atlas by one network, with what is known of each photograph.

    Attributes:
        embeddings: (N, D) float32, finite; here they cannot be written to.
        photos: N rows in the same order: ids, groups (None: each photograph its own) and labels.
        model: Identifies the network that made the embeddings, such as the checksum of its weights.
        cells: What an approximate search looks into; None: search is exact.
        atlas: Name of the atlas that the photographs belong to.
        atlas_hash: Its content hash, which tells whether these are the photographs that a network learnt from.
        sources: Where they come from, with licence and credit, which whoever shows one of them must name.
        images: Small versions of them, row i belonging to photograph i; None where the index holds none.

    Raises:
        InsightError: If an embedding is not finite, or has no width.
        ValueError: If shapes or types disagree.
    """

    embeddings: NDArray[np.float32]
    photos: Truth
    model: str
    cells: Cells | None = None
    atlas: str = ""
    atlas_hash: str = ""
    sources: tuple[Source, ...] = ()
    images: PackedImages | None = None

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or self.embeddings.dtype != np.float32 or len(self.embeddings) != len(self.photos):
            raise ValueError(
                f"{len(self.photos)} photographs need as many float32 embeddings, found {self.embeddings.dtype} {self.embeddings.shape}"
            )
        if not self.embeddings.shape[1]:
            raise InsightError("the embeddings of the index have no width")
        broken = ~np.isfinite(lengths(self.embeddings))
        if broken.any():
            first = str(self.photos.image_ids[broken][0])
            raise InsightError(f"the embedding of image_id {first!r} is not finite ({int(broken.sum())} of {len(self)} are not)")
        view = np.ascontiguousarray(self.embeddings).view()
        view.setflags(write=False)
        object.__setattr__(self, "embeddings", view)

    def __len__(self) -> int:
        return len(self.embeddings)

    def showing(self, *, lesion: str | None = None, site: str | None = None) -> NDArray[np.bool_]:
        """(N,) which photographs are known to show a lesion, or a site, or both.

        Raises:
            LabelError: If the index knows no such lesion or site.
            InsightError: If there is no such photograph.
        """
        wanted = [(task, name) for task, name in ((LESION, lesion), (SITE, site)) if name is not None]
        masks = [self.photos.values[task][:, self.photos.labels[task].index(name)] == 1 for task, name in wanted]
        both = np.ones(len(self), dtype=np.bool_)
        for mask in masks:
            both &= mask
        if not both.any():
            named = " and ".join(f"{task} {name!r}" for task, name in wanted)
            there = ", ".join(f"{int(mask.sum())} with {task} {name!r}" for mask, (task, name) in zip(masks, wanted, strict=True))
            raise InsightError(f"no photograph of the index is known to show {named}; of {len(self)} there are {there}")
        return both

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        model: str,
        metric: Metric = "euclidean",
        allowed: NDArray[np.bool_] | None = None,
        exclude_groups: Sequence[str | None] | None = None,
    ) -> Neighbours:
        """The k photographs nearest to each query.

        Exact, unless the index has `cells` for the metric: the answer is that of a search in float64, ties by image_id, however
        many embeddings are equal (see `predilect.insight.nearest.Space.nearest`, also for the cost). With cells, distances and ties
        are exact among the candidates found, and a share of the nearest is missed, `Cells.recall`.

        Args:
            queries: (Q, D), at least one.
            k: From 1 to the number of photographs that may answer.
            model: Identifies the network that embedded the queries.
            metric: ``"euclidean"`` (the paper's), or ``"cosine"``: 1 minus the cosine of the angle.
            allowed: (N,) which photographs may answer, such as those `showing` a site; None: all.
            exclude_groups: Q names of groups whose photographs do not answer; None, as a whole or for a query: all do.

        Raises:
            InsightError: If the model is another one, the queries' width is, an embedding is not finite or of length 0 under
                cosine, no photograph is allowed, or fewer than k may answer.
            ValueError: If shapes disagree or the metric is unknown.
        """
        self._check_queries(queries, model, metric)
        rows = self._allowed(allowed)
        exclusion = self._exclusion(exclude_groups, len(queries))
        left = len(rows) - exclusion.counts(rows)
        if k < 1:
            raise InsightError(f"k is {k}, it must be at least 1")
        if k > left.min():
            passing = "" if allowed is None else f", {len(rows)} of them pass the filter"
            own = "" if left.min() == len(rows) else f", {int(len(rows) - left.min())} of these are of the query's own group"
            raise InsightError(
                f"k is {k}, but only {int(left.min())} can answer: the index holds {len(self)} photographs{passing}{own}"
            )
        cells = self.cells if self.cells is not None and self.cells.metric == metric else None
        asked = np.ascontiguousarray(queries)
        distances, positions = self._space(metric).nearest(asked, k, rows, exclusion, cells)
        return Neighbours(self.photos.image_ids[positions], distances, positions)

    def approximated(self, *, metric: Metric = "euclidean", recall: float = 0.97, seed: int = 0) -> Self:
        """The same index, which looks for candidates among the nearest cells only, for a program that answers many queries.

        Making the cells costs many exact searches; `benchmarks/bench_retrieval.py` prints how many.

        Args:
            metric: Searches by another one stay exact.
            recall: Wanted share of the exact 5 nearest; `cells.recall` says what was measured (see `make_cells`).
            seed: Of what is random in making them.

        Raises:
            ValueError: If there are fewer than 2,000 photographs.
        """
        return replace(self, cells=make_cells(self._space(metric), self._group_codes[1], recall=recall, seed=seed))

    def save(self, path: Path, images: Iterable[PreparedImage] | None = None) -> None:
        """Write the index as a folder, all of it or nothing; cells are not kept, and of the covariates only `source`, for credits.

        Args:
            path: Absent, empty, or an index, which is replaced.
            images: N small versions of the photographs, to be kept with it; None: it holds no photographs.

        Raises:
            InsightError: If something else is there.
            DiskError: If it cannot be written.
        """
        if path.exists() and not (path.is_dir() and ((path / _INDEX).is_file() or not any(path.iterdir()))):
            raise InsightError(f"{path} is there already and is not an index; choose another folder or remove it")
        covariates = self.photos.covariates
        origin = covariates.select("source") if "source" in covariates.columns else pl.DataFrame()
        with replacing_folder(path, replace=True) as folder:
            with replacing(folder / _EMBEDDINGS) as temporary:
                save_file({_TENSOR: np.ascontiguousarray(self.embeddings)}, temporary)
            replace(self.photos, covariates=origin).write(folder / _PHOTOS)
            if images is not None:
                write_packed(self.photos.image_ids.tolist(), images, folder / _IMAGES)
            info = {
                "schema_version": _SCHEMA_VERSION,
                "model": self.model,
                "atlas": self.atlas,
                "atlas_hash": self.atlas_hash,
                "sources": [
                    {name: value for name, value in asdict(source).items() if name != "assessed"} for source in self.sources
                ],
                "files": {name: checksum(folder / name) for name in (_EMBEDDINGS, _PHOTOS, _IMAGES) if (folder / name).is_file()},
            }
            write_json(folder / _INDEX, seal(info))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an index and check every file of it.

        Raises:
            InsightError: If it is no index, is of another schema version, empty, or a file is missing, changed or damaged.
            TableError: If the table of photographs breaks its contract.
            AtlasError: If its photographs cannot be read.
        """
        info = read_json(path / _INDEX, InsightError, _REMEDY)
        if info.get("schema_version") != _SCHEMA_VERSION:
            found = info.get("schema_version")
            raise InsightError(f"{path / _INDEX} has schema version {found!r}, allowed is {_SCHEMA_VERSION}; {_REMEDY}")
        sources = _sources(info.get("sources"))
        if not is_sealed(info) or not _is_complete(info) or sources is None:
            raise InsightError(f"{path / _INDEX} is not what was written; {_REMEDY}")
        for name, written in info["files"].items():
            if not (path / name).is_file():
                raise InsightError(f"{path / name}: there is no such file; {_REMEDY}")
            if checksum(path / name) != written:
                raise InsightError(f"{path / name} is not what was written (its checksum differs); {_REMEDY}")
        try:
            with safe_open(path / _EMBEDDINGS, framework="np") as file:
                embeddings = file.get_tensor(_TENSOR)
        except (SafetensorError, OSError) as error:
            raise InsightError(f"{path / _EMBEDDINGS} cannot be read: {error}; {_REMEDY}") from error
        if not len(embeddings):
            raise InsightError(f"{path}: the index is empty; {_REMEDY} from an atlas with photographs")
        photos = Truth.read(path / _PHOTOS)
        if embeddings.ndim != 2 or embeddings.dtype != np.float32 or len(embeddings) != len(photos):
            found = f"{embeddings.dtype} {embeddings.shape} for {len(photos)} photographs"
            raise InsightError(f"{path / _EMBEDDINGS} must hold float32 (N, D), found {found}; {_REMEDY}")
        images = PackedImages(path / _IMAGES) if _IMAGES in info["files"] else None
        if images is not None and not np.array_equal(images.image_ids, photos.image_ids):
            raise InsightError(f"{path / _IMAGES} does not hold the photographs of {_PHOTOS}; {_REMEDY}")
        return cls(
            embeddings, photos, info["model"], atlas=info["atlas"], atlas_hash=info["atlas_hash"], sources=sources, images=images
        )

    def _check_queries(self, queries: NDArray[np.float32], model: str, metric: Metric) -> None:
        if metric not in _METRICS:
            raise ValueError(f"the metric is {' or '.join(map(repr, _METRICS))}, found {metric!r}")
        if queries.ndim != 2 or not len(queries) or queries.dtype != np.float32:
            raise ValueError(f"queries are float32 (Q, D) with at least one row, found {queries.dtype} {queries.shape}")
        if model != self.model:
            raise InsightError(
                f"the index was made by the model {self.model!r} and the query's embedding by {model!r}; "
                f"make the index again with the model that is asked"
            )
        width = self.embeddings.shape[1]
        if queries.shape[1] != width:
            raise InsightError(f"the query's embedding has {queries.shape[1]} numbers, those of the index have {width}")
        length = lengths(queries)
        for row in np.flatnonzero(~np.isfinite(length) | ((length == 0) & (metric == "cosine")))[:1]:
            wrong = "has length 0, and no angle to any other" if length[row] == 0 else "is not finite"
            raise InsightError(f"the embedding of query {row + 1} {wrong}")

    def _space(self, metric: Metric) -> Space:
        return self._cosine if metric == "cosine" else self._euclidean

    @cached_property
    def _euclidean(self) -> Space:
        return Space.of(self.embeddings, self._id_order, "euclidean")

    @cached_property
    def _cosine(self) -> Space:
        zero = ~self.embeddings.any(axis=1)
        if zero.any():
            first = str(self.photos.image_ids[zero][0])
            raise InsightError(
                f"the embedding of image_id {first!r} has length 0, and no angle to any other; search by 'euclidean'"
            )
        return Space.of(self.embeddings, self._id_order, "cosine")

    @cached_property
    def _id_order(self) -> NDArray[np.int64]:
        return np.argsort(np.argsort(self.photos.image_ids, kind="stable"))

    @cached_property
    def _group_codes(self) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        names, codes = np.unique(self.photos.image_ids if self.photos.groups is None else self.photos.groups, return_inverse=True)
        return names, codes.astype(np.int64)

    def _allowed(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        if allowed is None:
            return np.arange(len(self))
        if allowed.shape != (len(self),) or allowed.dtype != np.bool_:
            raise ValueError(f"the filter is a mask of {len(self)} photographs, found {allowed.dtype} {allowed.shape}")
        if not allowed.any():
            raise InsightError(f"the filter leaves none of the {len(self)} photographs of the index")
        return np.flatnonzero(allowed)

    def _exclusion(self, groups: Sequence[str | None] | None, n_queries: int) -> Exclusion:
        names, codes = self._group_codes
        if groups is None:
            return Exclusion(codes, np.full(n_queries, -1))
        if len(groups) != n_queries:
            raise ValueError(f"{len(groups)} groups for {n_queries} queries")
        number = {name: code for code, name in enumerate(names.tolist())}
        return Exclusion(codes, np.array([-1 if name is None else number.get(str(name), -1) for name in groups]))


def _is_complete(info: Mapping[str, Any]) -> bool:
    """Whether an index.json says whose embeddings these are, and names the files."""
    files = info.get("files")
    return (
        all(isinstance(info.get(key), str) for key in ("model", "atlas", "atlas_hash"))
        and isinstance(files, dict)
        and set(files) - {_IMAGES} == {_EMBEDDINGS, _PHOTOS}
    )


def _sources(told: object) -> tuple[Source, ...] | None:
    """The sources as an index.json tells of them; None if it does not tell enough."""
    if not isinstance(told, list):
        return None
    try:
        return tuple(Source(**{**source, "notes": tuple(source["notes"])}) for source in told)
    except (KeyError, TypeError):
        return None
