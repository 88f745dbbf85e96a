"""An import of photographs of several kinds that can be stopped, killed and gone on with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from made_images import jpeg, picture, saved
from predilect.atlas.build import build_atlas, packing_path
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import imagefolder
from predilect.labels.taxonomy import Taxonomy

N, ROWS = 150, 16
FILES = ("images.arrow", "photos.parquet", "atlas.json", "rejected.csv", "refinement.csv", "taxonomy.toml")

# One life of an import: it may kill itself before a given rename or removal, and tells each photograph that is done.
LIFE = f"""
import os, signal, sys, time
from pathlib import Path
from predilect.atlas import parts
from predilect.atlas.build import build_atlas
from predilect.atlas.importers import imagefolder
from predilect.labels.taxonomy import Taxonomy
parts.ROWS_PER_PART = {ROWS}
source, out, left, pause = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
def hear(event, arguments):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
def tell(done, total):
    print(done, flush=True)
    time.sleep(pause)
imported = imagefolder.read(source)
sys.addaudithook(hear)
build_atlas(imported, Taxonomy.preset("as-is"), out, max_rejected=3, resume=True, on_progress=tell)
"""


def life(source: Path, out: Path, dies_before: int = 10**9, pause: float = 0.0) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", LIFE, str(source), str(out), str(dies_before), str(pause)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def write_source(root: Path, n: int = N) -> Path:
    """Photographs of several kinds, three of them broken, in a folder with their manifest."""
    kinds = [
        jpeg(),
        saved(picture(1), "PNG"),
        jpeg(picture(2, (700, 600))),
        saved(picture(3).quantize(16), "GIF"),
        jpeg(quality=60),
    ]
    rows = []
    for k in range(n):
        path = root / f"{k % 7}" / f"{k:04}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"broken" if k in {20, 77, 140} else kinds[k % len(kinds)])
        rows.append({"file_name": f"{k % 7}/{k:04}.jpg", "lesions": ("papule", "crust", "none")[k % 3], "site": "arm"})
    pl.DataFrame(rows).write_csv(root / "metadata.csv")
    return root


def build(source: Path, out: Path, **options: object) -> Atlas:
    return build_atlas(imagefolder.read(source), Taxonomy.preset("as-is"), out, **{"max_rejected": 3} | options)


def stop_after(count: int) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if done == count:
            raise KeyboardInterrupt

    return tell


def interrupted(source: Path, out: Path, count: int = 70) -> Path:
    with pytest.raises(KeyboardInterrupt):
        build(source, out, on_progress=stop_after(count))
    return packing_path(out)


def assert_same(out: Path, expected: Atlas) -> None:
    for name in FILES:
        assert (out / name).read_bytes() == (expected.path / name).read_bytes(), name
    assert [path.name for path in out.parent.iterdir()] == [out.name]
