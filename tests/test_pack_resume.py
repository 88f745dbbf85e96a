"""An import that is killed at any moment and gone on with ends with the same bytes and repeats little."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from made_images import jpeg, picture, saved
from predilect.atlas import pack, parts
from predilect.atlas.build import build_atlas, packing_path, rejected_path
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import imagefolder
from predilect.cli import main
from predilect.errors import AtlasError, PredilectError, TooManyRejectedError
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


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Photographs of several kinds, three of them broken."""
    root = tmp_path_factory.mktemp("source")
    kinds = [
        jpeg(),
        saved(picture(1), "PNG"),
        jpeg(picture(2, (700, 600))),
        saved(picture(3).quantize(16), "GIF"),
        jpeg(quality=60),
    ]
    rows = []
    for k in range(N):
        path = root / f"{k % 7}" / f"{k:04}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"broken" if k in {20, 77, 140} else kinds[k % len(kinds)])
        rows.append({"file_name": f"{k % 7}/{k:04}.jpg", "lesions": ("papule", "crust", "none")[k % 3], "site": "arm"})
    pl.DataFrame(rows).write_csv(root / "metadata.csv")
    return root


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", ROWS)


def build(source: Path, out: Path, **options) -> Atlas:
    return build_atlas(imagefolder.read(source), Taxonomy.preset("as-is"), out, **{"max_rejected": 3} | options)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory) -> Atlas:
    return build(source, tmp_path_factory.mktemp("undisturbed") / "atlas")  # in parts of another size, which must not matter


@pytest.fixture
def prepared(monkeypatch) -> list[str]:
    """Names of the files that are prepared from now on."""
    names: list[str] = []
    prepare = pack.prepare_image_for_good

    def note(path: Path, max_side: int):
        names.append(path.name)
        return prepare(path, max_side)

    monkeypatch.setattr(pack, "prepare_image_for_good", note)
    return names


def stop_after(count: int):
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


def test_killed_before_changes_of_files_again_and_again(source, undisturbed, tmp_path):
    rng = np.random.default_rng(0)
    out, codes = tmp_path / "atlas", []
    while not out.exists():
        with life(source, out, dies_before=int(rng.integers(2, 7)) if len(codes) < 4 else 10**9) as process:
            process.stdout.read()
        codes.append(process.returncode)
    assert codes == [-signal.SIGKILL] * 4 + [0]
    assert_same(out, undisturbed)


@pytest.mark.parametrize("step", [1, 5])  # before the images take their place in the atlas, before the atlas takes its own
def test_killed_when_all_is_packed(source, undisturbed, tmp_path, prepared, step):
    out = tmp_path / "atlas"
    changes_of_packing = 2 * (1 + -(-N // ROWS))  # a renaming and a removal for the description and for each part
    with life(source, out, dies_before=changes_of_packing + step) as process:
        process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    build(source, out, resume=True)
    assert prepared == []
    assert_same(out, undisturbed)


def test_killed_from_outside_at_random_moments(source, undisturbed, tmp_path):
    out, done = tmp_path / "atlas", []
    for count in (30, 75, 120):
        with life(source, out, pause=0.003) as process:
            told = [int(next(process.stdout))]
            while told[-1] < count:
                told.append(int(next(process.stdout)))
            process.kill()
        done.append(told[0])
    assert done[0] == 1
    assert done[1] >= 30 // ROWS * ROWS - 1
    assert done[2] >= 75 // ROWS * ROWS - 1
    build(source, out, resume=True)
    assert_same(out, undisturbed)


def test_nothing_finished_is_repeated(source, undisturbed, tmp_path, prepared):
    out = tmp_path / "atlas"
    interrupted(source, out)
    prepared.clear()
    told = []
    build(source, out, resume=True, on_progress=lambda done, total: told.append((done, total)))
    assert len(prepared) == N - 64
    assert told[0] == (64, N)
    assert told[-1] == (N, N)
    assert_same(out, undisturbed)


def test_what_was_stopped_is_not_lost_by_a_plain_import(source, tmp_path):
    out = tmp_path / "atlas"
    folder = interrupted(source, out)
    with pytest.raises(AtlasError, match=r"\.atlas-packing holds what is finished of this very import.*--resume"):
        build(source, out)
    assert len(list(folder.glob("part-*.arrow"))) == 4
    assert build(source, out, resume=True).counts.photos == N - 3


def test_files_that_changed_meanwhile_are_packed_again(source, tmp_path, prepared):
    copy = shutil.copytree(source, tmp_path / "copy")
    out = tmp_path / "atlas"
    interrupted(copy, out)
    (copy / "6" / "0020.jpg").write_bytes(jpeg(picture(8)))  # in the second part, broken before
    prepared.clear()
    atlas = build(copy, out, resume=True)
    assert len(prepared) == N - 64 + ROWS
    assert atlas.counts.rejected == 2
    assert atlas.photos["sha256"].to_list() == build(copy, tmp_path / "anew").photos["sha256"].to_list()


@pytest.mark.parametrize("moved", [True, False])
def test_files_replaced_by_ones_of_the_same_size_and_time_are_packed_again(source, tmp_path, prepared, moved):
    copy = shutil.copytree(source, tmp_path / "copy")
    out = tmp_path / "atlas"
    interrupted(copy, out)
    path = copy / "4" / "0025.jpg"  # in the second part
    before, other = path.stat(), jpeg(picture(8), quality=50)
    new = tmp_path / "new.jpg" if moved else path
    new.write_bytes(other + bytes(before.st_size - len(other)))
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    prepared.clear()
    atlas = build(copy, out, resume=True)
    assert len(prepared) == N - 64 + ROWS
    assert atlas.photos["sha256"].to_list() == build(copy, tmp_path / "anew").photos["sha256"].to_list()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), MemoryError()])
def test_a_file_that_cannot_be_read_for_a_moment_is_not_rejected(source, undisturbed, tmp_path, monkeypatch, error):
    out, read = tmp_path / "atlas", Path.read_bytes

    def fail(self):
        if self.name == "0040.jpg":
            raise error
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(AtlasError, match=r"0040\.jpg: .*(Input/output error|Permission denied|not enough memory).*--resume"):
        build(source, out)
    assert len(list(packing_path(out).glob("part-*.arrow"))) == 2
    monkeypatch.undo()
    monkeypatch.setattr(parts, "ROWS_PER_PART", ROWS)
    build(source, out, resume=True)
    assert_same(out, undisturbed)


def test_another_import_is_not_gone_on_with(source, tmp_path, undisturbed):
    out = tmp_path / "atlas"
    folder = interrupted(source, out)
    copy = less_by_a_row(source, tmp_path / "copy")
    with pytest.raises(AtlasError, match="holds part of another import"):
        build(copy, out, resume=True)
    assert len(list(folder.glob("part-*.arrow"))) == 4
    assert build(copy, out).counts.photos == N - 4
    assert not folder.exists()


def test_a_part_that_was_damaged_is_made_again(source, undisturbed, tmp_path, prepared):
    out = tmp_path / "atlas"
    folder = interrupted(source, out)
    (folder / "part-000001.arrow").write_bytes(b"ARROW1 and nothing more")
    (folder / "part-000002.arrow").unlink()
    prepared.clear()
    build(source, out, resume=True)
    assert len(prepared) == N - 64 + 2 * ROWS
    assert_same(out, undisturbed)


@pytest.mark.parametrize("where", [0.1, 0.6])
def test_a_byte_that_changed_in_a_part_is_noticed(source, undisturbed, tmp_path, prepared, where):
    out = tmp_path / "atlas"
    path = interrupted(source, out) / "part-000001.arrow"
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    prepared.clear()
    build(source, out, resume=True)
    assert len(prepared) == N - 64 + ROWS
    assert_same(out, undisturbed)


def test_too_many_rejected_loses_no_packing(source, undisturbed, tmp_path, prepared):
    out = tmp_path / "atlas"
    with pytest.raises(TooManyRejectedError, match=r"3 of 150 rows.*--max-rejected 3 --resume goes on") as refusal:
        build(source, out, max_rejected=2)
    assert "3 x it is no image" in str(refusal.value)
    assert f"is kept in {packing_path(out)}" in str(refusal.value)
    assert pl.read_csv(rejected_path(out)).height == 3
    assert not out.exists()
    prepared.clear()
    build(source, out, resume=True)
    assert prepared == []
    assert_same(out, undisturbed)


def test_resume_without_anything_to_resume_starts(source, undisturbed, tmp_path):
    build(source, tmp_path / "atlas", resume=True)
    assert_same(tmp_path / "atlas", undisturbed)


def test_two_imports_into_one_folder_do_not_meet(source, undisturbed, tmp_path):
    out = tmp_path / "atlas"
    with life(source, out, pause=0.1) as process:
        next(process.stdout)
        with pytest.raises(AtlasError, match=f"is being written by another import \\(process {process.pid}\\)"):
            build(source, out, resume=True)
        process.kill()
    build(source, out, resume=True)
    assert_same(out, undisturbed)


def less_by_a_row(source: Path, folder: Path) -> Path:
    copy = shutil.copytree(source, folder)
    table = (copy / "metadata.csv").read_text().splitlines()
    (copy / "metadata.csv").write_text("\n".join(table[:-1]) + "\n")
    return copy


def test_an_import_that_is_refused_changes_nothing_of_the_other(source, tmp_path):
    out, other = tmp_path / "atlas", less_by_a_row(source, tmp_path / "other")
    with life(source, out, pause=0.1) as process:
        next(process.stdout)
        before = (packing_path(out) / "packing.json").read_bytes()
        with pytest.raises(AtlasError, match="is being written by another import"):
            build(other, out)
        assert (packing_path(out) / "packing.json").read_bytes() == before
        process.kill()


@pytest.mark.parametrize("step", [8])  # when the atlas is in its place, among the removals of the parts
def test_killed_while_it_cleaned_up(source, undisturbed, tmp_path, prepared, step):
    out = tmp_path / "atlas"
    changes_of_packing = 2 * (1 + -(-N // ROWS))
    with life(source, out, dies_before=changes_of_packing + step) as process:
        process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    assert out.exists()
    assert packing_path(out).exists()
    with pytest.raises(PredilectError, match="already exists"):
        build(source, out)
    build(source, out, resume=True)
    assert prepared == []
    assert_same(out, undisturbed)


def test_what_is_left_beside_another_atlas_stays(source, tmp_path):
    out = tmp_path / "atlas"
    folder = interrupted(source, out)
    build(less_by_a_row(source, tmp_path / "other"), tmp_path / "b").path.rename(out)
    with pytest.raises(PredilectError, match="already exists"):
        build(source, out, resume=True)
    assert len(list(folder.glob("part-*.arrow"))) == 4


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_an_import_leaves_no_file_open(source, tmp_path):
    def locks() -> list[str]:
        found = (path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
        return [str(path) for path in found if "lock" in path.name]

    before = locks()
    build(source, tmp_path / "atlas")
    pack.pack_images(["a"], [source / "0" / "0000.jpg"], tmp_path / "images.arrow")
    with pytest.raises(TooManyRejectedError):
        build(source, tmp_path / "b", max_rejected=0)
    assert locks() == before


def test_a_place_that_cannot_be_written_is_told(source, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PredilectError, match="cannot be written"):
        build(source, tmp_path / "file" / "atlas")


class TestCommand:
    def run(self, capsys, *arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return int(leaving.value.code or 0), " ".join((shown.out + shown.err).split())

    def test_stopping_says_how_to_go_on_and_going_on_works(self, source, undisturbed, tmp_path, capsys, monkeypatch):
        out = tmp_path / "atlas"
        command = ("import", "imagefolder", source, "--out", out, "--max-rejected", "3")
        put_together = pack._put_together

        def stop(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(pack, "_put_together", stop)
        code, said = self.run(capsys, *command)
        assert code == 130
        assert "--resume" in said
        monkeypatch.setattr(pack, "_put_together", put_together)
        code, said = self.run(capsys, *command)
        assert code == 1
        assert "add --resume" in said
        code, said = self.run(capsys, *command, "--resume")
        assert code == 0
        assert "147 photographs; 3 rows rejected" in said
        assert_same(out, undisturbed)

    def test_what_was_replaced_or_missing_is_told(self, source, tmp_path, capsys):
        out = tmp_path / "atlas"
        _, said = self.run(capsys, "import", "imagefolder", source, "--out", out, "--max-rejected", "3", "--resume")
        assert "nothing to resume" in said
        interrupted(source, tmp_path / "b")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.jpg").write_bytes(jpeg())
        (tmp_path / "other" / "metadata.csv").write_text("file_name,lesions\na.jpg,papule\n")
        code, said = self.run(capsys, "import", "imagefolder", tmp_path / "other", "--out", tmp_path / "b")
        assert code == 0
        assert "replaced what was left of another import" in said

    def test_that_it_was_finished_is_told(self, source, undisturbed, tmp_path, capsys):
        out = tmp_path / "atlas"
        folder = interrupted(source, out)
        kept = shutil.copytree(folder, tmp_path / "kept")
        build(source, out, resume=True)
        kept.rename(folder)  # as a kill between the last renaming and the removal leaves it
        code, said = self.run(capsys, "import", "imagefolder", source, "--out", out, "--max-rejected", "3", "--resume")
        assert code == 0
        assert "the import was finished" in said
        assert_same(out, undisturbed)
