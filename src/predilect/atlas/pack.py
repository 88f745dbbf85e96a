"""The packed images of an atlas: one memory-mapped Arrow file with a JPEG per photograph.

The file is an Arrow IPC file without compression, with the columns `image_id` (string), `image` (large_binary, a JPEG as
`predilect.atlas.jpeg` makes it), `width` and `height` (int32), in record batches of `ROWS_PER_BATCH` rows, the last one shorter.
A row is read without copying it, and processes that read the same file share its pages.
"""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsIndex

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from predilect.atlas.decoding import UnreadFileError
from predilect.atlas.jpeg import PreparedImage, prepare_image_for_good
from predilect.atlas.parts import Parts, open_parts
from predilect.errors import AtlasError
from predilect.files import replacing

__all__ = ["MAX_SIDE", "ROWS_PER_BATCH", "PackedImages", "Packing", "pack_images", "write_packed"]

MAX_SIDE = 512
"""The largest shorter side, in pixels, that an image is packed with."""

ROWS_PER_BATCH = 64

_VERSION_KEY, _SCHEMA_VERSION = "predilect.schema_version", "1"
_SCHEMA = pa.schema(
    {"image_id": pa.string(), "image": pa.large_binary(), "width": pa.int32(), "height": pa.int32()},
    metadata={_VERSION_KEY: _SCHEMA_VERSION},
)
_PACKED = pl.Schema({"position": pl.Int64(), "width": pl.Int32(), "height": pl.Int32(), "sha256": pl.String()})
_REJECTED = pl.Schema({"position": pl.Int64(), "reason": pl.String()})
_WAITING_PER_WORKER = 4


@dataclass(frozen=True, eq=False, slots=True)
class Packing:
    """What became of the N files given to `pack_images`.

    Attributes:
        packed: One row for each image in the file, in its order: `position` (0..N-1), `width`, `height`, `sha256` (of the packed
            JPEG, in hexadecimal).
        rejected: One row for each file that could not be used: `position`, `reason`.
    """

    packed: pl.DataFrame
    rejected: pl.DataFrame


def pack_images(
    image_ids: Sequence[str],
    names: Sequence[str],
    out: Path,
    *,
    root: Path,
    parts: Path,
    max_side: int = MAX_SIDE,
    resume: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Packing:
    """Pack image files into one Arrow file; a file that cannot be used is left out, with the reason.

    Files are decoded by a thread per processor core (decoding does not hold Python's lock); no more than a few images per core
    and one part are in memory. What is done is kept in parts, also when the packing is stopped or fails, so that it can be gone
    on with; the result is the same, byte for byte, however often that was. See `predilect.atlas.parts` for what the caller owes
    them.

    Args:
        image_ids: N unique ids, in the order in which the images are to be packed.
        names: N paths of files, relative to `root`.
        out: The file to write, atomically.
        root: The folder of the files.
        parts: A folder for the parts; they stay in it.
        max_side: A shorter side above it is scaled down to it.
        resume: Whether to go on with parts that are there; they are not made again.
        on_progress: Called with (files done, N) after each file, and first for those that were done before.

    Raises:
        AtlasError: If the system cannot read a file now, which is no reason to leave it out for good; if there are parts of this
            packing and `resume` is False, or of another one and it is True.
        ValueError: If the lengths differ or `max_side` is not positive.
        PredilectError: If a part or `out` cannot be written.
    """
    kept = open_parts(parts, image_ids, names, root=root, max_side=max_side, resume=resume)
    before = [kept.done(part) for part in range(kept.count)]
    unfinished = [part for part in range(kept.count) if before[part] < len(kept.files(part))]
    done, total = sum(before), len(names)
    if done and on_progress is not None:
        on_progress(done, total)
    files = (root / names[position] for part in unfinished for position in kept.files(part)[before[part] :])
    with closing(_prepared(files, max_side)) as coming:
        for part in unfinished:
            results = kept.results(part) if before[part] else []
            try:
                for result in islice(coming, len(kept.files(part)) - before[part]):
                    results.append(result)
                    done += 1
                    if on_progress is not None:
                        on_progress(done, total)
            finally:
                if results:
                    kept.write(part, results)
    return _put_together(kept, out)


def write_packed(image_ids: Sequence[str], images: Iterable[PreparedImage], out: Path) -> None:
    """Write JPEGs that are ready into one file that `PackedImages` reads; a batch of them is in memory at a time.

    Args:
        image_ids: (N,) unique ids.
        images: N of them, in the same order.
        out: The file to write, atomically.

    Raises:
        ValueError: If the lengths differ.
        PredilectError: If `out` cannot be written.
    """
    coming = zip(image_ids, images, strict=True)
    with replacing(out) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        while rows := [(name, image.data, image.width, image.height) for name, image in islice(coming, ROWS_PER_BATCH)]:
            columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))


class PackedImages:
    """The images of an atlas by row, read from a memory-mapped file.

    Pickles as its path, so that each worker process maps the same file.

    Args:
        path: An ``images.arrow``.

    Raises:
        AtlasError: If the file is missing, damaged, of another kind or of another schema version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pa.memory_map(str(path))
            reader = pa.ipc.open_file(self._file)
            self._batches: list[Any] = [reader.get_batch(k) for k in range(reader.num_record_batches)]
            for batch in self._batches:
                batch.validate(full=True)  # where an image begins and ends: a damaged place would end the process, not raise
        except FileNotFoundError:
            raise AtlasError(f"{path}: there is no such file") from None
        except (pa.ArrowException, OSError) as error:
            raise AtlasError(f"{path} cannot be read as packed images: {error}") from error
        sizes = [batch.num_rows for batch in self._batches]
        if not reader.schema.equals(_SCHEMA) or any(size != ROWS_PER_BATCH for size in sizes[:-1]):
            raise AtlasError(f"{path} is an Arrow file, but not one of packed images")
        version = (reader.schema.metadata or {}).get(_VERSION_KEY.encode(), b"none").decode()  # not compared by `equals`
        if version != _SCHEMA_VERSION:
            raise AtlasError(f"{path}: found schema version {version} in the file's metadata, allowed is {_SCHEMA_VERSION}")
        self._length: int = sum(sizes)
        self._images = [batch.column("image") for batch in self._batches]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: SupportsIndex) -> memoryview:
        """The JPEG of a row, as a read-only view of the mapped file.

        Raises:
            IndexError: If `row` is not within 0..N-1.
            ValueError: If the images were closed.
        """
        number = operator.index(row)
        if not 0 <= number < self._length:
            raise IndexError(f"row {number} of {self._length} packed images")
        if not self._images:
            raise ValueError(f"{self._path}: the packed images are closed")
        batch, within = divmod(number, ROWS_PER_BATCH)
        return memoryview(self._images[batch][within].as_buffer()).cast("B").toreadonly()

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """(N,) the id of each row."""
        return np.array([name for batch in self._batches for name in batch.column("image_id").to_pylist()], dtype=np.str_)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self._path,)

    def close(self) -> None:
        """Give the file back; views handed out before stay valid until they are dropped."""
        self._batches, self._images = [], []
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _prepare(path: Path, max_side: int) -> PreparedImage | str:
    try:
        return prepare_image_for_good(path, max_side)
    except UnreadFileError as error:
        raise AtlasError(
            f"{path}: {error}; this may pass, so the photograph is not rejected, and the import stops here: when the file can be read "
            "again, add --resume to go on"
        ) from error


def _prepared(paths: Iterable[Path], max_side: int) -> Generator[PreparedImage | str]:
    """The prepared images in the order of the paths, a few of them ahead of the reader."""
    prepare = partial(_prepare, max_side=max_side)
    workers = min(os.cpu_count() or 1, 16)
    coming: deque[Future[PreparedImage | str]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
    try:
        for path in paths:
            coming.append(pool.submit(prepare, path))
            if len(coming) > _WAITING_PER_WORKER * workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted import does not wait for what nobody will read


def _put_together(parts: Parts, out: Path) -> Packing:
    """Write the images of all parts into one file."""
    packed, rejected = [_PACKED.to_frame()], [_REJECTED.to_frame()]
    waiting = _SCHEMA.empty_table()  # fewer than a batch
    with replacing(out) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for part in range(parts.count):
            batch, positions = parts.read(part), parts.files(part)
            rows = pl.DataFrame(pl.from_arrow(batch.drop_columns("image"))).with_columns(
                position=pl.Series(positions, dtype=pl.Int64)
            )
            packed.append(rows.filter(pl.col("reason").is_null()).select(_PACKED.names()))
            rejected.append(rows.filter(pl.col("reason").is_not_null()).select(_REJECTED.names()))
            ids = pa.array([parts.image_ids[position] for position in positions], pa.string())
            table = pa.table([ids, *(batch.column(name) for name in _SCHEMA.names[1:])], schema=_SCHEMA)
            waiting = pa.concat_tables([waiting, table.filter(table["image"].is_valid())])
            ready = waiting.num_rows - waiting.num_rows % ROWS_PER_BATCH
            _write_batches(writer, waiting.slice(0, ready))
            waiting = waiting.slice(ready)
        _write_batches(writer, waiting)
    return Packing(pl.concat(packed), pl.concat(rejected))


def _write_batches(writer: Any, table: Any) -> None:
    for start in range(0, table.num_rows, ROWS_PER_BATCH):
        rows = table.slice(start, ROWS_PER_BATCH)
        # Made anew: a slice is written with padding that tells where it was cut, and the parts must leave no trace.
        columns = [pa.array(column.to_pylist(), column.type) for column in rows.columns]
        writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
