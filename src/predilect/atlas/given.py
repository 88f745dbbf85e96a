"""The image files that a user names: files, folders of them, and patterns that no shell has filled in."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from predilect.atlas.importers.find_images import IMAGE_SUFFIXES, walk_files
from predilect.errors import AtlasError

__all__ = ["GivenImages", "given_images"]


@dataclass(frozen=True, eq=False, slots=True)
class GivenImages:
    """What was named.

    Attributes:
        files: Each file once, in order, with the folder that was named, or None for a file that was named itself. Files need not exist.
        n_others: How many other things lie in the folders.
    """

    files: Mapping[Path, Path | None]
    n_others: int


def given_images(paths: Sequence[Path]) -> GivenImages:
    """Find the image files.

    Args:
        paths: Files, folders, and patterns with ``*``, ``?`` or ``[...]``, where ``**`` stands for folders at any depth. Of a folder those files count,
            at any depth, that end like images; links in it do not. What is there under a name with such signs is no pattern.

    Raises:
        AtlasError: If a folder cannot be read or holds no image, or a pattern fits nothing.
    """
    files: dict[Path, Path | None] = {}
    n_others = 0
    for path in (item for named in paths for item in _filled_in(named)):
        if not path.is_dir():
            files.setdefault(path, None)
            continue
        walked = walk_files(path)
        images = [name for name in walked.files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise AtlasError(f"{path} holds no image file; known endings are {', '.join(sorted(IMAGE_SUFFIXES))}")
        for name in images:
            files.setdefault(path / name, path)
        n_others += len(walked.files) + len(walked.odd) + walked.n_nameless - len(images)
    return GivenImages(files, n_others)


def _filled_in(path: Path) -> list[Path]:
    if not glob.has_magic(str(path)) or path.exists():
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if not found:
        raise AtlasError(f"{path}: nothing fits this pattern")
    return found
