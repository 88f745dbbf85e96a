"""A packing in parts, so that one that was stopped loses little: each is kept when it is finished, and what there is of one that is stopped.

The parts lie in a folder of their own beside the atlas that is to be. ``packing.json`` says which packing they belong to;
``part-<k>.arrow`` holds what became of the files k * `ROWS_PER_PART` onwards: an Arrow IPC file with the columns of `_SCHEMA`, one
row per file, fewer where the part was stopped, and in its metadata the fingerprint of the part's files (names, sizes, times, places
on the disk), so that a file that was changed meanwhile is packed anew, and a checksum of the rows, so that a part that was damaged
meanwhile is.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from predilect.atlas.decoding import decoder_versions
from predilect.atlas.jpeg import JPEG_QUALITY, PREPARATION, PreparedImage
from predilect.disk import telling
from predilect.errors import AtlasError
from predilect.files import read_json, replacing, write_json
from predilect.locks import holding

__all__ = ["ROWS_PER_PART", "Parts", "has_parts", "held", "open_parts", "remove_parts"]

ROWS_PER_PART = 256

_IDENTITY, _LOCK = "packing.json", "lock"
_FINGERPRINT, _CHECKSUM = b"predilect.files", b"predilect.rows"
_SCHEMA = pa.schema(
    {
        "image": pa.large_binary(),  # null where the file was rejected
        "width": pa.int32(),
        "height": pa.int32(),
        "sha256": pa.string(),
        "reason": pa.string(),  # null where it was not
    }
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the packing of N files.

    Attributes:
        folder: Where they lie.
        image_ids: N unique ids.
        root: The folder of the files.
        names: N paths of files, relative to `root`.
        max_side: What the images are scaled to.
        fingerprints: Of the files of each part, as they were before any was read.
    """

    folder: Path
    image_ids: Sequence[str]
    root: Path
    names: Sequence[str]
    max_side: int
    fingerprints: tuple[bytes, ...]

    @property
    def count(self) -> int:
        """How many parts the packing has."""
        return len(self.fingerprints)

    def files(self, part: int) -> range:
        """Positions of the files of a part."""
        return range(part * ROWS_PER_PART, min((part + 1) * ROWS_PER_PART, len(self.names)))

    def done(self, part: int) -> int:
        """Of how many of its files, from the first, a part holds what became of them; 0 where they, or the part, were changed since."""
        path = self._path(part)
        if not path.is_file():
            return 0
        try:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                metadata = reader.schema.metadata or {}
                if not reader.schema.equals(_SCHEMA) or metadata.get(_FINGERPRINT) != self.fingerprints[part]:
                    return 0
                if reader.num_record_batches != 1:  # a changed footer: each part is written as one
                    return 0
                batch = reader.get_batch(0)
                batch.validate(full=True)
                whole = batch.num_rows <= len(self.files(part)) and metadata.get(_CHECKSUM) == _checksum(batch)
                return int(batch.num_rows) if whole else 0
        except (pa.ArrowException, OSError):
            return 0

    def results(self, part: int) -> list[PreparedImage | str]:
        """What became of the files of a part that are done, in memory.

        Raises:
            AtlasError: If the part was removed or damaged meanwhile.
        """
        columns = [column.to_pylist() for column in self.read(part).columns]
        return [PreparedImage(*row) if reason is None else reason for *row, reason in zip(*columns, strict=True)]

    def write(self, part: int, results: Sequence[PreparedImage | str]) -> None:
        """Keep what became of the files of a part, or of so many of them as there are results.

        Raises:
            PredilectError: If it cannot be written.
        """
        rows = [
            (None, None, None, None, result)
            if isinstance(result, str)
            else (result.data, result.width, result.height, result.sha256, None)
            for result in results
        ]
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)]
        batch = pa.record_batch(columns, schema=_SCHEMA)
        schema = _SCHEMA.with_metadata({_FINGERPRINT: self.fingerprints[part], _CHECKSUM: _checksum(batch)})
        with (
            replacing(self._path(part)) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))

    def read(self, part: int) -> Any:
        """The record batch of a part, its images in the mapped file.

        Raises:
            AtlasError: If the part was removed or damaged meanwhile.
        """
        path = self._path(part)
        try:
            return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        except (pa.ArrowException, OSError) as error:
            raise AtlasError(f"{path} cannot be read: {error}") from error

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:06}.arrow"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from the folder of parts; in the end it stays only if there are parts in it.

    Raises:
        AtlasError: If another process is at work on them.
        DiskError: If the folder cannot be written.
    """
    with telling(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with holding(folder / _LOCK) as holder:
            if holder is not None:
                raise AtlasError(
                    f"{folder} is being written by another import (process {holder}); wait for it, or choose another folder"
                )
            try:
                yield
            finally:
                if not has_parts(folder):
                    shutil.rmtree(folder, ignore_errors=True)
    finally:
        with suppress(OSError):  # there are parts, or another import has come
            folder.rmdir()  # NFS keeps what is removed while it is open, such as the lock was until here, and its folder with it


def open_parts(folder: Path, image_ids: Sequence[str], names: Sequence[str], *, root: Path, max_side: int, resume: bool) -> Parts:
    """Give the parts of a packing.

    It is for the caller to keep others from the folder (see `held`), and to remove the parts when the packing has come to its
    place. Parts of another packing that was stopped are removed, unless `resume` asks to go on with them.

    Args:
        folder: Where the parts lie.
        image_ids: N unique ids.
        names: N paths of files, relative to `root`.
        root: The folder of the files; it may be another one when the packing is gone on with.
        max_side: What the images are scaled to.
        resume: Whether to go on with the parts that are there; where there are none, the packing starts from the beginning.

    Raises:
        AtlasError: If parts of this very packing are there and `resume` is False, or of another one and `resume` is True.
        PredilectError: If the folder cannot be written.
        ValueError: If the lengths differ or `max_side` is not positive.
    """
    if len(image_ids) != len(names):
        raise ValueError(f"{len(image_ids)} image ids for {len(names)} files")
    if max_side < 1:
        raise ValueError(f"max_side must be positive, not {max_side}")
    _settle(folder, _identity(image_ids, names, max_side), resume=resume)
    starts = range(0, len(names), ROWS_PER_PART)
    return Parts(
        folder, image_ids, root, names, max_side, tuple(_fingerprint(root, names[at : at + ROWS_PER_PART]) for at in starts)
    )


def has_parts(folder: Path) -> bool:
    """Whether a packing was stopped that had done anything."""
    return any(folder.glob("part-*.arrow"))


def remove_parts(folder: Path) -> None:
    """Remove the parts of a packing."""
    for part in folder.glob("part-*.arrow"):
        part.unlink()


def _fingerprint(root: Path, names: Sequence[str]) -> bytes:
    digest = hashlib.sha256()
    for name in names:
        try:
            status = (root / name).stat()
            # Size and mtime stay when a file is replaced by an archive's or by `cp -p`; the time of the change of its entry cannot
            # be set, and its number on the disk tells a file that was moved to its place. A copy of the folder is thus packed anew.
            state = f"{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}\t{status.st_ino}"
        except (OSError, ValueError):
            state = "missing"
        digest.update(f"{name}\t{state}\n".encode())
    return digest.hexdigest().encode()


def _checksum(batch: Any) -> bytes:
    digest = hashlib.sha256()
    for image, row in zip(batch.column("image"), batch.drop_columns("image").to_pylist(), strict=True):
        digest.update(f"{list(row.values())}\n".encode())
        if image.is_valid:
            digest.update(image.as_buffer())
    return digest.hexdigest().encode()


def _settle(folder: Path, identity: str, *, resume: bool) -> None:
    """Make the folder that of this packing, or say why it cannot be."""
    description, occupied = folder / _IDENTITY, has_parts(folder)
    same = occupied and _is_of(description, identity)
    if same and not resume:
        raise AtlasError(f"{folder} holds what is done of this very import, which was stopped: add --resume to go on, or remove it")
    if occupied and not same and resume:
        raise AtlasError(
            f"{folder} holds part of another import (of other rows, or with other versions of Predilect or Pillow), which cannot be "
            "resumed; without --resume it is replaced"
        )
    if not same:
        remove_parts(folder)
        write_json(description, {"schema_version": 1, "identity": identity})


def _is_of(description: Path, identity: str) -> bool:
    try:
        found = read_json(description, AtlasError)
    except AtlasError:
        return False
    return found == {"schema_version": 1, "identity": identity}


def _identity(image_ids: Sequence[str], names: Sequence[str], max_side: int) -> str:
    """What decides the result beside the files' contents: ids and names in their order, the settings, and what decodes."""
    head = [f"preparation {PREPARATION}", f"quality {JPEG_QUALITY}", f"max_side {max_side}", *decoder_versions()]
    digest = hashlib.sha256("\n".join(head).encode())
    for image_id, name in zip(image_ids, names, strict=True):
        digest.update(f"\n{image_id}\t{name}".encode())
    return digest.hexdigest()
