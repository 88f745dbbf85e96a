"""An import that is killed at any moment and gone on with ends with the same bytes and repeats little."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from made_images import jpeg, picture
from made_import import ROWS, N, assert_same, build, interrupted, life, stop_after, write_source
from predilect.atlas import pack, parts
from predilect.atlas.build import packing_path, rejected_path
from predilect.atlas.folder import Atlas
from predilect.errors import AtlasError, PredilectError, TooManyRejectedError

CHANGES_OF_PACKING = 3 * (1 + -(-N // ROWS))  # a renaming and two removals for the description and for each part


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", ROWS)


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


def test_killed_before_changes_of_files_again_and_again(source, undisturbed, tmp_path):
    rng = np.random.default_rng(0)
    out, codes = tmp_path / "atlas", []
    while not out.exists():
        with life(source, out, dies_before=int(rng.integers(2, 7)) if len(codes) < 4 else 10**9) as process:
            process.stdout.read()
        codes.append(process.returncode)
    assert codes == [-signal.SIGKILL] * 4 + [0]
    assert_same(out, undisturbed)


@pytest.mark.parametrize("step", [1, 7])  # before the images take their place in the atlas, before the atlas takes its own
def test_killed_when_all_is_packed(source, undisturbed, tmp_path, prepared, step):
    out = tmp_path / "atlas"
    with life(source, out, dies_before=CHANGES_OF_PACKING + step) as process:
        process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    build(source, out, resume=True)
    assert prepared == []
    assert_same(out, undisturbed)


def test_killed_from_outside_at_random_moments(source, undisturbed, tmp_path):
    rng = np.random.default_rng(7)
    out, told = tmp_path / "atlas", [0]
    for _ in range(4):
        with life(source, out, pause=0.003) as process:
            first = int(next(process.stdout))
            time.sleep(rng.uniform(0, 0.15))
            process.kill()
            rest = [int(line) for line in process.stdout]
        # A part that was told of as full may not have been written yet.
        assert first >= (told[-1] - 1) // ROWS * ROWS
        told = [first, *rest]
        assert told == list(range(first, first + len(told)))
    build(source, out, resume=True)
    assert_same(out, undisturbed)


def test_nothing_done_is_repeated(source, undisturbed, tmp_path, prepared):
    out = tmp_path / "atlas"
    interrupted(source, out, 70)
    prepared.clear()
    told = []
    build(source, out, resume=True, on_progress=lambda done, total: told.append((done, total)))
    assert len(prepared) == N - 70
    assert told == [(done, N) for done in range(70, N + 1)]
    assert_same(out, undisturbed)


@pytest.mark.parametrize("counts", [(5,), (1, 2, 9), (15, 16, 17, 40)])
def test_of_a_part_that_is_stopped_what_is_done_is_kept(source, undisturbed, tmp_path, prepared, counts):
    out = tmp_path / "atlas"
    for before, count in zip((0, *counts), counts, strict=False):
        prepared.clear()
        with pytest.raises(KeyboardInterrupt):
            build(source, out, resume=True, on_progress=stop_after(count))
        assert f"{before - 1:04}.jpg" not in prepared
        assert f"{before:04}.jpg" in prepared
    prepared.clear()
    build(source, out, resume=True)
    assert len(prepared) == N - counts[-1]
    assert_same(out, undisturbed)


def test_stopped_at_the_first_photograph_nothing_is_left(source, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pack, "prepare_image_for_good", stop)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "atlas")
    assert list(tmp_path.iterdir()) == []


def test_what_was_stopped_is_not_lost_by_a_plain_import(source, tmp_path):
    out = tmp_path / "atlas"
    folder = interrupted(source, out)
    with pytest.raises(AtlasError, match=r"\.atlas-packing holds what is done of this very import.*--resume"):
        build(source, out)
    assert len(list(folder.glob("part-*.arrow"))) == 5
    assert build(source, out, resume=True).counts.photos == N - 3


def test_files_that_changed_meanwhile_are_packed_again(source, tmp_path, prepared):
    copy = shutil.copytree(source, tmp_path / "copy")
    out = tmp_path / "atlas"
    interrupted(copy, out)
    (copy / "6" / "0020.jpg").write_bytes(jpeg(picture(8)))  # in the second part, broken before
    prepared.clear()
    atlas = build(copy, out, resume=True)
    assert len(prepared) == N - 70 + ROWS
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
    assert len(prepared) == N - 70 + ROWS
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
    assert len(list(packing_path(out).glob("part-*.arrow"))) == 3  # the last one with eight rows
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
    assert len(list(folder.glob("part-*.arrow"))) == 5
    assert build(copy, out).counts.photos == N - 4
    assert not folder.exists()


def test_a_part_that_was_damaged_is_made_again(source, undisturbed, tmp_path, prepared):
    out = tmp_path / "atlas"
    folder = interrupted(source, out)
    (folder / "part-000001.arrow").write_bytes(b"ARROW1 and nothing more")
    (folder / "part-000002.arrow").unlink()
    prepared.clear()
    build(source, out, resume=True)
    assert len(prepared) == N - 70 + 2 * ROWS
    assert_same(out, undisturbed)


@pytest.mark.parametrize(("part", "again"), [(1, ROWS), (4, 6)])  # a full one, and the one that was stopped
@pytest.mark.parametrize("where", [0.1, 0.6])
def test_a_byte_that_changed_in_a_part_is_noticed(source, undisturbed, tmp_path, prepared, where, part, again):
    out = tmp_path / "atlas"
    path = interrupted(source, out) / f"part-{part:06}.arrow"
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    prepared.clear()
    build(source, out, resume=True)
    assert len(prepared) == N - 70 + again
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


@pytest.mark.parametrize("step", [10])  # when the atlas is in its place, among the removals of the parts
def test_killed_while_it_cleaned_up(source, undisturbed, tmp_path, prepared, step):
    out = tmp_path / "atlas"
    with life(source, out, dies_before=CHANGES_OF_PACKING + step) as process:
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
    assert len(list(folder.glob("part-*.arrow"))) == 5


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_an_import_leaves_no_file_open(source, tmp_path):
    def locks() -> list[str]:
        found = (path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
        return [str(path) for path in found if "lock" in path.name]

    before = locks()
    build(source, tmp_path / "atlas")
    pack.pack_images(["a"], ["0/0000.jpg"], tmp_path / "images.arrow", root=source, parts=tmp_path / "parts")
    with pytest.raises(TooManyRejectedError):
        build(source, tmp_path / "b", max_rejected=0)
    assert locks() == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
@pytest.mark.parametrize("ending", ["well", "stopped", "with a file that a library has left"])
def test_what_a_network_file_system_keeps_until_it_is_closed_is_gone_too(source, tmp_path, monkeypatch, ending):
    """NFS gives an open file that is removed another name until it is closed, and the folder cannot go before."""
    unlink, close = os.unlink, os.close

    def open_path(descriptor: int) -> Path:
        return Path(f"/proc/self/fd/{descriptor}").readlink()

    def keep(name, *, dir_fd=None):
        path = Path(name) if dir_fd is None else open_path(dir_fd) / name
        if path.name == "lock":
            path.rename(path.with_name(".nfs0001"))
        else:
            unlink(name, dir_fd=dir_fd)

    def forget(descriptor):
        path = open_path(descriptor)
        close(descriptor)
        if path.name.startswith(".nfs"):
            unlink(path)

    monkeypatch.setattr(os, "unlink", keep)
    monkeypatch.setattr(os, "close", forget)
    out = tmp_path / "atlas"
    if ending == "stopped":
        monkeypatch.setattr(pack, "prepare_image_for_good", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(source, out)
        assert list(tmp_path.iterdir()) == []
        return
    if ending != "well":
        packing_path(out).mkdir()
        (packing_path(out) / ".writing-abc").mkdir()
        (packing_path(out) / ".writing-abc" / "part-000000.arrow").write_bytes(b"half")
    build(source, out)
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_kill_left_half_written_beside_the_parts_goes_with_the_next(source, tmp_path):
    out = tmp_path / "atlas"
    folder = interrupted(source, out)
    (folder / ".writing-abc").mkdir()
    (folder / ".writing-abc" / "part-000004.arrow").write_bytes(b"half")
    with pytest.raises(KeyboardInterrupt):
        build(source, out, resume=True, on_progress=stop_after(100))
    assert not [*folder.glob(".writing-*")]


def test_a_place_that_cannot_be_written_is_told(source, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PredilectError, match="cannot be written"):
        build(source, tmp_path / "file" / "atlas")
