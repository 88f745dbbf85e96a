"""Splits: which photograph is tested in which fold, so that no person, lesion or near-duplicate is on both sides.

`splits.parquet` holds one row per photograph (`image_id`, `group`, `fold`) and, in its metadata, the hash of the atlas it was
made for and the seed. Fold -1 is the tuning slice, on which recipes are chosen and nothing is ever tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predilect.atlas.groups import clusters_joining, connected_groups, stratified_folds
from predilect.errors import SplitError, nearest
from predilect.files import replacing
from predilect.tables import string_column, whole_number_column

__all__ = ["TUNING", "Splits", "label_table", "make_splits", "training_slice"]

TUNING = -1
"""Number of the fold that is used for choosing recipes and never tested."""

_SCHEMA_VERSION = "1"
_VERSION_KEY = "predilect.schema_version"
_HASH_KEY = "predilect.content_hash"
_SEED_KEY = "predilect.seed"
_JOINED_KEY = "predilect.clusters_joined"
_CROWDED_KEY = "predilect.crowded"


@dataclass(frozen=True, eq=False, slots=True)
class Splits:
    """The folds of an atlas.

    Attributes:
        image_ids: (N,) unique strings.
        groups: (N,) names; photographs of one group are not independent and share a fold.
        folds: (N,) 0..k-1 for testing, -1 for the tuning slice.
        content_hash: Hash of the atlas that the folds belong to.
        seed: What the splitter was given.
        origin: Where the splits come from, for messages.
        clusters_joined: How many clusters of near-duplicates join photographs that no id joins; None where none were looked for.
        crowded: How many photographs have too many look-alikes for all of these to be compared, so that near-duplicates of them may
            lie in several folds; see `predilect.atlas.examine.Copies`.

    Raises:
        SplitError: If a photograph is listed twice, a group is in two folds, a fold is empty, or there are fewer than two.
        ValueError: If lengths disagree.
    """

    image_ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    folds: NDArray[np.int64]
    content_hash: str
    seed: int
    origin: str = "splits"
    clusters_joined: int | None = None
    crowded: int = 0

    def __post_init__(self) -> None:
        n = len(self.image_ids)
        if self.groups.shape != (n,) or self.folds.shape != (n,):
            raise ValueError(f"{n} image ids, but groups of shape {self.groups.shape} and folds of shape {self.folds.shape}")
        numbers = np.unique(self.folds).tolist()
        if numbers and numbers[0] < TUNING:
            raise SplitError(f"{self.origin}: found fold {numbers[0]}; folds are numbered from 0, and -1 is the tuning slice")
        tested = [number for number in numbers if number != TUNING]
        if len(tested) < 2:
            raise SplitError(f"{self.origin}: found {len(tested)} fold(s) to test on; cross-validation needs at least 2")
        absent = sorted(set(range(tested[-1])) - set(tested))
        if absent:
            raise SplitError(f"{self.origin}: fold {absent[0]} holds no photograph, though there is a fold {tested[-1]}")
        frame = self.to_frame()
        repeated = frame["image_id"].is_duplicated()
        if repeated.any():
            raise SplitError(f"{self.origin}: image_id {frame['image_id'].filter(repeated)[0]!r} stands in more than one row")
        spread = frame.filter(pl.col("fold").n_unique().over("group") > 1)
        if spread.height:
            name = spread["group"][0]
            where = " and ".join(str(fold) for fold in spread.filter(pl.col("group") == name)["fold"].unique().sort())
            raise SplitError(f"{self.origin}: group {name!r} is in folds {where}; the photographs of a group stay in one fold")

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def k(self) -> int:
        """Number of folds to test on, the tuning slice not counted."""
        return int(self.folds.max()) + 1

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``splits.parquet``.

        Raises:
            SplitError: If the file is missing, damaged, of another schema version, or breaks the contract.
        """
        if not path.is_file():
            raise SplitError(f"{path}: there is no such file")
        try:
            frame, metadata = pl.read_parquet(path), pl.read_parquet_metadata(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = (str(error).splitlines() or ["it is empty or damaged"])[0]
            raise SplitError(f"{path}: the splits cannot be read: {reason}") from error
        version = metadata.get(_VERSION_KEY)
        if version != _SCHEMA_VERSION:
            found = "none" if version is None else repr(version)
            raise SplitError(f"{path}: found schema version {found} in the file's metadata, allowed is {_SCHEMA_VERSION!r}")
        content_hash, seed = metadata.get(_HASH_KEY, ""), metadata.get(_SEED_KEY, "")
        if not content_hash or not seed.isdecimal():
            raise SplitError(f"{path}: the file's metadata must hold {_HASH_KEY!r} and {_SEED_KEY!r}, a whole number")
        joined, crowded = metadata.get(_JOINED_KEY), metadata.get(_CROWDED_KEY, "0")
        for key, value in ((_JOINED_KEY, joined), (_CROWDED_KEY, crowded)):
            if value is not None and not value.isdecimal():
                raise SplitError(f"{path}: the file's metadata hold {key!r} {value!r}, it must be a whole number")
        if "fold" in frame.columns and not frame["fold"].dtype.is_integer():
            raise SplitError(f"{path}: column 'fold' holds {frame['fold'].dtype}, it must hold whole numbers")
        return cls(
            image_ids=string_column(frame, "image_id", path, SplitError),
            groups=string_column(frame, "group", path, SplitError),
            folds=whole_number_column(frame, "fold", path, SplitError),
            content_hash=content_hash,
            seed=int(seed),
            origin=str(path),
            clusters_joined=None if joined is None else int(joined),
            crowded=int(crowded),
        )

    def to_frame(self) -> pl.DataFrame:
        """The table as it is written: `image_id`, `group`, `fold`."""
        return pl.DataFrame(
            {
                "image_id": pl.Series(self.image_ids.tolist(), dtype=pl.String),
                "group": pl.Series(self.groups.tolist(), dtype=pl.String),
                "fold": pl.Series(self.folds, dtype=pl.Int64),
            }
        )

    def write(self, path: Path) -> None:
        """Write the table as Parquet, atomically; all else goes into its metadata."""
        metadata = {_VERSION_KEY: _SCHEMA_VERSION, _HASH_KEY: self.content_hash, _SEED_KEY: str(self.seed)}
        if self.clusters_joined is not None:
            metadata[_JOINED_KEY] = str(self.clusters_joined)
        if self.crowded:
            metadata[_CROWDED_KEY] = str(self.crowded)
        with replacing(path) as temporary:
            self.to_frame().write_parquet(temporary, metadata=metadata)

    def check_for(self, image_ids: NDArray[np.str_], content_hash: str) -> Splits:
        """Make sure that the splits belong to an atlas, and bring them into its order.

        Args:
            image_ids: (N,) of the atlas, unique.
            content_hash: The atlas's.

        Returns:
            The splits with row i belonging to `image_ids[i]`.

        Raises:
            SplitError: If they were made for an atlas of other content, or the photographs differ.
        """
        if content_hash != self.content_hash:
            raise SplitError(
                f"{self.origin} was made for another atlas or for an earlier state of this one (its hash is {self.content_hash[:12]!r}, "
                f"the atlas's {content_hash[:12]!r}); split the atlas again"
            )
        return self.in_order_of(image_ids)

    def in_order_of(self, image_ids: NDArray[np.str_]) -> Splits:
        """The splits with row i belonging to `image_ids[i]`, (N,) and unique.

        Raises:
            SplitError: If a photograph is here and not there, or the other way round.
        """
        if np.array_equal(image_ids, self.image_ids):
            return self
        wanted = pl.DataFrame({"image_id": pl.Series(image_ids.tolist(), dtype=pl.String)})
        mine = self.to_frame().with_row_index("row")
        found = wanted.join(mine, on="image_id", how="left", maintain_order="left")
        without = found.filter(pl.col("row").is_null())
        if without.height:
            raise SplitError(
                f"{self.origin} has no fold for image_id {without['image_id'][0]!r} ({without.height} such photographs)"
            )
        surplus = mine.join(wanted, on="image_id", how="anti")
        if surplus.height:
            raise SplitError(
                f"{self.origin} lists image_id {surplus['image_id'][0]!r}, which the atlas lacks ({surplus.height} such rows)"
            )
        rows = found["row"].to_numpy()
        return replace(self, image_ids=image_ids, groups=self.groups[rows], folds=self.folds[rows])


def make_splits(
    photos: pl.DataFrame,
    label_columns: Sequence[str],
    *,
    folds: int = 5,
    tuning: float = 0.0,
    seed: int = 0,
    near_duplicates: pl.DataFrame | None = None,
    crowded: int = 0,
    content_hash: str,
) -> Splits:
    """Split an atlas into folds that no group crosses and that resemble each other in every label.

    See `connected_groups` for what a group is and `stratified_folds` for what is balanced, and at what cost.

    Args:
        photos: The atlas's N rows: the columns of `PHOTO_SCHEMA` and the label columns, holding 1, 0 or null.
        label_columns: ``lesion/<name>`` and ``site/<name>``, all of which are balanced together.
        folds: Number of equal folds, at least 2.
        tuning: Share of the photographs for fold -1, in [0, 1).
        seed: Decides between equal groups; not negative.
        near_duplicates: Rows of `image_id` and `cluster`, as `predilect.atlas.examine.copies_of` finds them; None: not looked for.
        crowded: For how many photographs that search was not complete.
        content_hash: The atlas's.

    Returns:
        The splits in the order of `photos`.

    Raises:
        SplitError: If there are too few groups, a near-duplicate is not in the atlas, or a setting is out of its range.
        ValueError: If a label column is not in the table.
    """
    if folds < 2:
        raise SplitError(f"found {folds} fold(s), allowed are 2 or more")
    if not 0 <= tuning < 1:
        raise SplitError(f"found a tuning share of {tuning:g}, allowed is from 0 to below 1")
    if seed < 0:
        raise SplitError(f"found seed {seed}, allowed are whole numbers from 0")
    groups = connected_groups(photos, near_duplicates)
    first = TUNING if tuning else 0
    proportions = [tuning] * -first + [(1 - tuning) / folds] * folds
    labels = label_table(photos, label_columns).fill_null(-1).to_numpy()  # (N, L)
    return Splits(
        image_ids=np.array(photos["image_id"].to_list(), dtype=np.str_),
        groups=groups,
        folds=stratified_folds(labels, groups, proportions, seed, note=" (the tuning slice is one)" if tuning else "") + first,
        content_hash=content_hash,
        seed=seed,
        clusters_joined=None if near_duplicates is None else clusters_joining(photos, near_duplicates),
        crowded=crowded,
    )


def training_slice(
    labels: NDArray[np.int8], groups: NDArray[np.str_], *, fraction: float = 0.1, seed: int = 0
) -> NDArray[np.bool_]:
    """Choose the training photographs on which early stopping and the learning-rate plateau look.

    A function of its arguments only: called with the training rows of a fold, it gives the same slice to every system and
    every training seed. Made by `stratified_folds`, so a class with at least ``1 / fraction`` positive groups is seen in it.

    Args:
        labels: (M, L) of the training photographs: 1, 0, and -1 for unknown.
        groups: (M,) their groups.
        fraction: Share of the training photographs in the slice, in (0, 1).
        seed: That of the splits; not negative.

    Returns:
        (M,) True where a photograph is looked at and not trained on.

    Raises:
        SplitError: If there is but one group.
        ValueError: If shapes disagree or the fraction is out of its range.
    """
    parts = stratified_folds(labels, groups, (fraction, 1 - fraction), seed)
    return np.equal(parts, 0)


def label_table(photos: pl.DataFrame, label_columns: Sequence[str]) -> pl.DataFrame:
    """The label columns of an atlas's table alone, as 1, 0 and null.

    Args:
        photos: N rows.
        label_columns: ``lesion/<name>`` and ``site/<name>``.

    Raises:
        ValueError: If one is not in the table.
    """
    for column in label_columns:
        if column not in photos.columns:
            raise ValueError(f"the table has no label column {column!r}: {nearest(column, photos.columns)}")
    return photos.select(pl.col(label_columns).cast(pl.Int8))
