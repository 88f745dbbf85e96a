"""The atlas: a folder of packed photographs with raw terms, refined labels and the log of how the one became the other.

atlas.json         what it is: schema version, content hash, classes, sources, counts, and checksums of the files below
photos.parquet     one row per photograph, row i belonging to packed image i
taxonomy.toml      the taxonomy that made the labels
refinement.csv     what each raw term became
images.arrow       the packed images
rejected.csv       rows of the source that are not in the atlas, and why
splits.parquet     the folds, once they are made
audit.json         the audit, once it is made
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from predilect.atlas.importers.imported import Source
from predilect.atlas.pack import PackedImages
from predilect.errors import AtlasError, LabelError
from predilect.files import checksum, read_json, write_json
from predilect.labels.tasks import LabelSpace
from predilect.labels.taxonomy import Taxonomy
from predilect.predictions import COVARIATES, Truth

__all__ = [
    "IMAGES",
    "PACKED_COLUMNS",
    "PHOTOS",
    "REFINEMENT",
    "REFINEMENT_FLAG",
    "REJECTED",
    "TAXONOMY",
    "Atlas",
    "Counts",
    "content_hash",
    "describe",
]

PHOTOS = "photos.parquet"
TAXONOMY = "taxonomy.toml"
REFINEMENT = "refinement.csv"
REJECTED = "rejected.csv"
IMAGES = "images.arrow"
PACKED_COLUMNS = ("width", "height", "sha256")
REFINEMENT_FLAG = "refinement_flag"

_DESCRIPTION = "atlas.json"
_CHECKED = (PHOTOS, TAXONOMY, REFINEMENT, REJECTED)
_TOLD_EVERY = 256


class Counts(BaseModel):
    """How many rows and files the import met.

    Attributes:
        photos: Photographs in the atlas.
        rejected: Rows left out for a reason in ``rejected.csv``.
        excluded: Rows left out on purpose.
        unlisted: Images in the source's folder that no row names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    rejected: int
    excluded: int
    unlisted: int


class _Description(BaseModel):
    """What ``atlas.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    content_hash: str
    taxonomy: str
    labels: dict[str, dict[str, list[str]]]
    sources: tuple[Source, ...]
    counts: Counts
    sha256: dict[str, str]
    images_size: int


@dataclass(frozen=True, eq=False, slots=True)
class Atlas:
    """Photographs with labels, ready to be split and learnt from.

    Attributes:
        path: Its folder.
        photos: N rows, row i belonging to packed image i: the columns of `predilect.atlas.photo.PHOTO_SCHEMA` (raw terms as lists),
            columns that were carried along, `PACKED_COLUMNS`, a column ``<task>/<class>`` for each class (Int8: 1, 0 or null),
            `REFINEMENT_FLAG`.
        labels: The classes of each task.
        taxonomy: What made the labels from the raw terms.
        sources: Where the photographs come from.
        counts: What the import met.
        content_hash: See `content_hash`; whatever was made from the atlas names it.
    """

    path: Path
    photos: pl.DataFrame
    labels: LabelSpace
    taxonomy: Taxonomy
    sources: tuple[Source, ...]
    counts: Counts
    content_hash: str

    def __len__(self) -> int:
        return self.photos.height

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an atlas.

        Args:
            path: Its folder.

        Raises:
            AtlasError: If it is no atlas, of another schema version, or a file in it is missing or was changed.
        """
        if not path.is_dir():
            raise AtlasError(f"{path}: there is no such atlas folder")
        description = _read_description(path / _DESCRIPTION)
        for name in _CHECKED:
            if _checksum(path / name) != description.sha256.get(name):
                raise AtlasError(f"{path / name} was changed since the atlas was made; import or refine it again")
        images = path / IMAGES
        if not images.is_file() or images.stat().st_size != description.images_size:
            raise AtlasError(f"{images} is missing or was changed since the atlas was made; import it again")
        try:
            photos = pl.read_parquet(path / PHOTOS)
            labels = LabelSpace.from_json(description.labels)
            taxonomy = Taxonomy.read(path / TAXONOMY)
        except (pl.exceptions.PolarsError, LabelError, KeyError) as error:
            raise AtlasError(f"{path} is not a whole atlas: {error}") from error
        if photos.height != description.counts.photos or set(labels.columns) - set(photos.columns):
            raise AtlasError(f"{path / PHOTOS} does not hold the photographs and classes that {_DESCRIPTION} names")
        return cls(path, photos, labels, taxonomy, description.sources, description.counts, description.content_hash)

    def images(self) -> PackedImages:
        """Map the packed images; row i is photograph i.

        Raises:
            AtlasError: If they cannot be read or are not those of the photographs.
        """
        images = PackedImages(self.path / IMAGES)
        if images.image_ids.tolist() != self.photos["image_id"].to_list():
            images.close()
            raise AtlasError(f"{self.path / IMAGES} does not hold the images of {PHOTOS}; import the atlas again")
        return images

    def check_images(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Compare each packed image with the SHA-256 that was recorded when it was packed; cost: ``images.arrow`` is read once.

        Args:
            on_progress: Called with (images compared, N) now and then.

        Raises:
            AtlasError: If one is damaged, or they cannot be read at all.
        """
        damaged = []
        with self.images() as images:
            for row, recorded in enumerate(self.photos["sha256"]):
                if hashlib.sha256(images[row]).hexdigest() != recorded:
                    damaged.append(row)
                if on_progress is not None and ((row + 1) % _TOLD_EVERY == 0 or row + 1 == len(self)):
                    on_progress(row + 1, len(self))
        if damaged:
            name, file = self.photos.select("image_id", "file_name").row(damaged[0])
            more = len(damaged) - 1
            others = f", and so {'is' if more == 1 else 'are'} {more:,} more" if more else ""
            raise AtlasError(
                f"{self.path / IMAGES}: the packed image of {name!r} (row {damaged[0] + 1}, made from {file}) is not what was packed: its "
                f"SHA-256 is not that in {PHOTOS}{others}; restore the file from a copy, or import the atlas again"
            )

    def truth(self, groups: NDArray[np.str_] | None) -> Truth:
        """The labels as the table that an evaluation reads.

        Args:
            groups: (N,) the group of each photograph, such as `Splits.groups`; None counts each as its own.

        Raises:
            ValueError: If the number of groups is not that of the photographs.
        """
        return Truth(
            image_ids=np.array(self.photos["image_id"].to_list(), dtype=np.str_),
            labels=self.labels,
            values={task.name: _cells(self.photos, task.columns) for task in self.labels.tasks},
            groups=groups,
            covariates=self.photos.select(COVARIATES),
            origin=str(self.path),
            notes=tuple(dict.fromkeys(note for source in self.sources for note in source.notes)),
        )

    def raw(self) -> pl.DataFrame:
        """The photographs as they were before refinement: `photos` without labels and flag."""
        return self.photos.drop(*self.labels.columns, REFINEMENT_FLAG)


def content_hash(photos: pl.DataFrame, labels: LabelSpace) -> str:
    """What identifies the content of an atlas: its photographs in their order, their pixels and their labels.

    It is the SHA-256, in hexadecimal, of these bytes one after another: the label space as JSON (`LabelSpace.to_json`, keys in
    their order, no blanks, UTF-8) and a line feed; for each row the image id, a tab, the packed JPEG's SHA-256 and a line feed;
    the (N, C) labels as int8 row by row, the columns in the order of the label space, an unknown cell as -1.

    Args:
        photos: N rows with `image_id`, `sha256` and the label columns.
        labels: The classes.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(labels.to_json(), separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
    rows = photos.select(pl.format("{}\t{}\n", "image_id", "sha256")).to_series()
    digest.update("".join(rows).encode())
    digest.update(np.ascontiguousarray(_cells(photos, labels.columns)).tobytes())
    return digest.hexdigest()


def describe(
    folder: Path, photos: pl.DataFrame, labels: LabelSpace, *, taxonomy: str, sources: Sequence[Source], counts: Counts
) -> None:
    """Write ``atlas.json``, the last file of an atlas to be written, with the checksums of the others.

    Args:
        folder: The atlas, with all its other files.
        photos: What ``photos.parquet`` there holds.
        labels: The classes.
        taxonomy: Name of what made the labels.
        sources: Where the photographs come from.
        counts: What the import met.
    """
    listed = [asdict(source) | {"assessed": None if source.assessed is None else sorted(source.assessed)} for source in sources]
    description: Mapping[str, Any] = {
        "schema_version": 1,
        "content_hash": content_hash(photos, labels),
        "taxonomy": taxonomy,
        "labels": labels.to_json(),
        "sources": listed,
        "counts": counts.model_dump(),
        "sha256": {name: _checksum(folder / name) for name in _CHECKED},
        "images_size": (folder / IMAGES).stat().st_size,
    }
    write_json(folder / _DESCRIPTION, description)


def _read_description(path: Path) -> _Description:
    value = read_json(path, AtlasError)
    if value.get("schema_version") != 1:
        raise AtlasError(f"{path}: found schema_version {value.get('schema_version')!r}, this version of Predilect reads 1")
    try:
        return _Description.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise AtlasError(f"{path}: {where}: {problem['msg']}, found {problem['input']!r}") from error


def _checksum(path: Path) -> str:
    try:
        return checksum(path)
    except OSError as error:
        raise AtlasError(f"{path} cannot be read: {error.strerror or error}") from error


def _cells(photos: pl.DataFrame, columns: tuple[str, ...]) -> NDArray[np.int8]:
    """(N, C) int8: 1 present, 0 absent, -1 unknown."""
    return photos.select(pl.col(columns).cast(pl.Int8).fill_null(-1)).to_numpy()
