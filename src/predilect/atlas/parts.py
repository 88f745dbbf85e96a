"""A packing in parts, each kept when it is finished, so that one that was stopped loses little.

The parts lie in a folder of their own beside the atlas that is to be. ``packing.json`` says which packing they belong to;
``part-<k>.arrow`` holds what became of the files k * `ROWS_PER_PART` onwards: an Arrow IPC file with the columns of `_SCHEMA`, one row
per file, and in its metadata the fingerprint of these files (names, sizes, times), so that a file that was changed meanwhile is
packed anew.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from predilect.atlas.decoding import decoder_versions
from predilect.atlas.jpeg import JPEG_QUALITY, PREPARATION, PreparedImage
from predilect.errors import AtlasError
from predilect.files import hold, read_json, replacing, write_json

__all__ = ["ROWS_PER_PART", "Parts", "has_parts", "packing_parts"]

ROWS_PER_PART = 256

_IDENTITY, _LOCK = "packing.json", "lock"
_FINGERPRINT = b"predilect.files"
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
        paths: N files.
        max_side: What the images are scaled to.
        fingerprints: Of the files of each part, as they were before any was read.
    """

    folder: Path
    image_ids: Sequence[str]
    paths: Sequence[Path]
    max_side: int
    fingerprints: tuple[bytes, ...]

    @property
    def count(self) -> int:
        """How many parts the packing has."""
        return len(self.fingerprints)

    def files(self, part: int) -> range:
        """Positions of the files of a part."""
        return range(part * ROWS_PER_PART, min((part + 1) * ROWS_PER_PART, len(self.paths)))

    def is_finished(self, part: int) -> bool:
        """Whether a part was finished before and its files are what they were."""
        path = self._path(part)
        if not path.is_file():
            return False
        try:
            with pa.memory_map(str(path)) as source:
                metadata = pa.ipc.open_file(source).schema.metadata or {}
        except (pa.ArrowException, OSError):
            return False
        return bool(metadata.get(_FINGERPRINT) == self.fingerprints[part])

    def write(self, part: int, results: Sequence[PreparedImage | str]) -> None:
        """Keep what became of the files of a part.

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
        schema = _SCHEMA.with_metadata({_FINGERPRINT: self.fingerprints[part]})
        with (
            replacing(self._path(part)) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            writer.write_batch(pa.record_batch(columns, schema=schema))

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

    def is_worth_keeping(self) -> bool:
        """Whether a full part is finished; to pack less again takes no time."""
        return any(self._path(part).is_file() for part in range(len(self.paths) // ROWS_PER_PART))


@contextmanager
def packing_parts(
    folder: Path, image_ids: Sequence[str], paths: Sequence[Path], *, names: Sequence[str], max_side: int, resume: bool
) -> Iterator[Parts]:
    """Give the parts of a packing; when the block fails, the folder is removed unless a full part is finished.

    It is for the caller to remove the folder when the packing has come to its place. Parts of another packing that was stopped are
    removed, unless `resume` asks to go on with them.

    Args:
        folder: Where the parts lie.
        image_ids: N unique ids.
        paths: N files.
        names: N names for them that do not depend on where they lie.
        max_side: What the images are scaled to.
        resume: Whether to go on with the parts that are there; where there are none, the packing starts from the beginning.

    Raises:
        AtlasError: If parts of this very packing are there and `resume` is False, or of another one and `resume` is True; if another
            process is at work on them.
        PredilectError: If the folder cannot be written.
        ValueError: If the lengths differ or `max_side` is not positive.
    """
    if not len(image_ids) == len(paths) == len(names):
        raise ValueError(f"{len(image_ids)} image ids and {len(names)} names for {len(paths)} files")
    if max_side < 1:
        raise ValueError(f"max_side must be positive, not {max_side}")
    _settle(folder, _identity(image_ids, names, max_side), resume=resume)
    starts = range(0, len(paths), ROWS_PER_PART)
    fingerprints = tuple(_fingerprint(paths[at : at + ROWS_PER_PART], names[at : at + ROWS_PER_PART]) for at in starts)
    parts = Parts(folder, image_ids, paths, max_side, fingerprints)
    try:
        yield parts
    except BaseException:
        if not parts.is_worth_keeping():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def has_parts(folder: Path) -> bool:
    """Whether a packing was stopped that had finished a part."""
    return any(folder.glob("part-*.arrow"))


def _fingerprint(paths: Sequence[Path], names: Sequence[str]) -> bytes:
    digest = hashlib.sha256()
    for path, name in zip(paths, names, strict=True):
        try:
            status = path.stat()
            state = f"{status.st_size}\t{status.st_mtime_ns}"
        except (OSError, ValueError):
            state = "missing"
        digest.update(f"{name}\t{state}\n".encode())
    return digest.hexdigest().encode()


def _settle(folder: Path, identity: str, *, resume: bool) -> None:
    """Make the folder that of this packing, or say why it cannot be."""
    description = folder / _IDENTITY
    occupied = has_parts(folder)
    if not occupied:
        write_json(description, {"schema_version": 1, "identity": identity})
    holder = hold(folder / _LOCK)
    if holder is not None:
        raise AtlasError(f"{folder} is being written by another import (process {holder}); wait for it, or choose another folder")
    if not occupied:
        return
    same = _is_of(description, identity)
    if same and not resume:
        raise AtlasError(
            f"{folder} holds what is finished of this very import, which was stopped: add --resume to go on, or remove it"
        )
    if not same and resume:
        raise AtlasError(
            f"{folder} holds part of another import (of other rows, or with other versions of Predilect or Pillow), which cannot be "
            "resumed; without --resume it is replaced"
        )
    if not same:
        for part in folder.glob("part-*.arrow"):
            part.unlink()
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
