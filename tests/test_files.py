"""Whatever happens while a file or a folder is replaced, one of the two stands there whole; leftovers, places and checksums."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from made_processes import die, in_child, mounted
from predilect import exchange, files
from predilect.errors import DiskError, PredilectError
from predilect.files import (
    check_place,
    is_sealed,
    remove_leftovers,
    replacing,
    replacing_folder,
    seal,
    share_files,
    try_file,
    write_text,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "atlas").mkdir()
    (tmp_path / "atlas" / "text").write_text("old")
    return tmp_path / "atlas"


def replace(folder):
    with replacing_folder(folder, replace=True) as temporary:
        (temporary / "text").write_text("new")


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(folder):
    replace(folder)
    assert (folder / "text").read_text() == "new"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_is_replaced_only_on_request_unless_it_is_empty(folder):
    with pytest.raises(PredilectError, match="already exists"), replacing_folder(folder):
        pytest.fail("nothing may be made for a folder that stays")
    (folder / "text").unlink()
    with replacing_folder(folder) as temporary:
        (temporary / "more").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["more"]


def test_a_block_that_fails_changes_nothing(folder):
    with pytest.raises(ZeroDivisionError), replacing_folder(folder, replace=True) as temporary:
        (temporary / "text").write_text(str(1 / 0))
    assert (folder / "text").read_text() == "old"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(errno.ENOSPC, "No space left on device"), PredilectError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_rename_that_fails_leaves_the_old_folder_where_it_was(folder, monkeypatch, failing, error, told):
    rename, calls = Path.replace, []

    def fail(path, target):
        calls.append(path)
        if len(calls) == failing:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    monkeypatch.setattr(exchange, "_exchanged_at_once", lambda *_: False)  # as on a system that cannot
    with pytest.raises(told):
        replace(folder)
    assert len(calls) == {1: 1, 2: 3}[failing]
    assert (folder / "text").read_text() == "old"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_link_stays_and_what_it_leads_to_is_replaced(folder):
    link = folder.with_name("link")
    link.symlink_to(folder, target_is_directory=True)
    replace(link)
    assert link.is_symlink()
    assert (folder / "text").read_text() == "new"


def test_while_a_folder_is_replaced_it_is_there_at_every_moment(folder):
    missing, done = [], threading.Event()

    def watch():
        while not done.is_set():
            try:
                (folder / "text").stat()
            except FileNotFoundError:
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(50):
        replace(folder)
    done.set()
    watcher.join()
    assert not missing


def test_a_folder_that_somebody_filled_meanwhile_is_not_replaced(tmp_path):
    def filled_meanwhile():
        with replacing_folder(tmp_path / "run") as temporary:
            (temporary / "run.json").write_text("ours")
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "run.json").write_text("theirs")

    with pytest.raises(DiskError, match="not empty"):
        filled_meanwhile()
    assert (tmp_path / "run" / "run.json").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_a_killed_process_was_writing_is_removed_when_its_folder_is_written_again(folder):
    def killed():
        with replacing_folder(folder, replace=True) as temporary:
            (temporary / "text").write_text("half")
            die()

    assert in_child(killed) == -signal.SIGKILL
    (leftover,) = (path for path in folder.parent.iterdir() if path != folder)
    assert leftover.name.startswith(".writing-")
    assert (folder / "text").read_text() == "old"
    with replacing_folder(folder.with_name("other")):
        assert leftover.exists()  # another's is not touched
    replace(folder)
    assert not leftover.exists()


def test_what_a_living_process_is_writing_is_left_alone(folder):
    with replacing_folder(folder, replace=True) as temporary:
        (temporary / "text").write_text("slow")
        replace(folder)
        assert temporary.exists()
        assert (folder / "text").read_text() == "new"
    assert (folder / "text").read_text() == "slow"


def test_the_only_whole_folder_is_kept_though_it_lies_aside(folder, monkeypatch):
    monkeypatch.setattr(exchange, "_exchanged_at_once", lambda *_: False)
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: rename(path, target) and die())
    assert in_child(lambda: replace(folder)) == -signal.SIGKILL
    monkeypatch.setattr(Path, "replace", rename)
    assert not folder.exists()
    with replacing_folder(folder) as temporary:
        (temporary / "text").write_text("newer")
    kept = {path.read_text() for path in folder.parent.glob(".writing-*/*/text")}
    assert kept == {"old", "new"}


def test_leftovers_are_removed_at_any_depth_and_nothing_else(tmp_path):
    (tmp_path / "mtl" / ".writing-abc").mkdir(parents=True)
    (tmp_path / "mtl" / ".writing-abc" / "state.safetensors").write_text("half")
    (tmp_path / "mtl" / ".hidden").write_text("mine")
    remove_leftovers(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["mtl", "mtl/.hidden"]


def test_what_this_process_or_another_is_writing_is_no_leftover(tmp_path):
    ready, done = os.pipe(), os.pipe()

    def writing():
        with replacing(tmp_path / "theirs") as temporary:
            os.write(ready[1], b"!")
            os.read(done[0], 1)
            temporary.write_text("theirs")

    child = os.fork()
    if child == 0:
        writing()
        os._exit(0)
    os.read(ready[0], 1)
    with replacing(tmp_path / "ours") as temporary:
        remove_leftovers(tmp_path)
        temporary.write_text("ours")
    os.write(done[1], b"!")
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]
    for descriptor in (*ready, *done):
        os.close(descriptor)


def test_a_folder_that_is_tidied_away_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    make, made = files.tempfile.mkdtemp, []

    def tidied(**options):
        made.append(make(**options))
        if len(made) == 1:
            remove_leftovers(tmp_path)
        return made[-1]

    monkeypatch.setattr(files.tempfile, "mkdtemp", tidied)
    write_text(tmp_path / "text", "a")
    assert len(made) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_kill_after_the_renaming_leaves_nothing_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: die())  # the folder is in its place by then

    def killed():
        with replacing_folder(tmp_path / "run") as temporary:
            (temporary / "run.json").write_text("{}")

    assert in_child(killed) == -signal.SIGKILL
    monkeypatch.undo()
    assert len([*tmp_path.glob(".writing-*")]) == 1
    remove_leftovers(tmp_path / "run")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["run", "run/run.json"]


def test_what_a_killed_process_was_writing_is_removed_when_anything_is_written_beside_it(tmp_path):
    def killed(name):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text("half")
            die()

    def making_a_folder():
        with replacing_folder(tmp_path / "other") as temporary:
            (temporary / "text").write_text("half")
            die()

    for work in (lambda: killed("audit.json"), lambda: killed("splits.parquet"), making_a_folder):
        assert in_child(work) == -signal.SIGKILL
        assert len([*tmp_path.glob(".writing-*")]) == 1  # what the one before has left is gone
    write_text(tmp_path / "text", "a")
    (left,) = tmp_path.glob(".writing-*")
    assert (left / "other" / "text").exists()  # of a folder it may be the only copy: the next who makes that folder decides
    with replacing_folder(tmp_path / "other"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "text"]


def test_what_is_being_written_is_not_removed_by_whoever_writes_beside_it(tmp_path):
    ready, done = os.pipe(), os.pipe()

    def writing():
        with replacing(tmp_path / "theirs") as temporary:
            os.write(ready[1], b"!")
            os.read(done[0], 1)
            temporary.write_text("theirs")

    child = os.fork()
    if child == 0:
        writing()
        os._exit(0)
    os.read(ready[0], 1)
    with replacing(tmp_path / "ours") as temporary:
        write_text(tmp_path / "more", "more")
        temporary.write_text("ours")
    os.write(done[1], b"!")
    assert os.waitpid(child, 0)[1] == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"ours": "ours", "theirs": "theirs", "more": "more"}
    for descriptor in (*ready, *done):
        os.close(descriptor)


def test_all_of_a_folder_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    synced, known = set(), []
    fsync, rename = os.fsync, Path.replace

    def note(descriptor):
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def moved(path, target):
        known.append(set(synced))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", moved)
    with replacing_folder(tmp_path / "atlas") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "photos.parquet").write_text("plainly written")
        (temporary / "text").write_text("plainly written")
        (temporary / "link").symlink_to("nowhere")
        os.mkfifo(temporary / "pipe")
    (at_that_moment,) = known
    made = [tmp_path / "atlas" / name for name in (".", "deep", "deep/photos.parquet", "text")]
    assert {path.stat().st_ino for path in made} <= at_that_moment


class TestPlaces:
    def test_the_folder_that_the_command_runs_in_is_refused_before_any_work(self, folder, monkeypatch):
        (folder / "deep").mkdir()
        said = "cannot be replaced while the command runs in it; give the command from another folder, or choose another place"
        for inside, path in [(folder, Path()), (folder / "deep", Path("..")), (folder / "deep", folder)]:
            monkeypatch.chdir(inside)
            with pytest.raises(PredilectError, match=said), replacing_folder(path, replace=True):
                pytest.fail("there is no place")
        monkeypatch.chdir(folder.parent)
        (folder.parent / "empty").mkdir()
        check_place(folder)
        monkeypatch.chdir(folder.parent / "empty")
        with pytest.raises(PredilectError, match=said), replacing_folder(Path()):
            pytest.fail("there is no place")
        assert sorted(path.name for path in folder.parent.iterdir()) == ["atlas", "empty"]

    @pytest.mark.parametrize("kind", ["disk", "bind"])
    def test_where_a_disk_is_mounted_is_refused_before_any_work(self, tmp_path, kind):
        place = tmp_path / "a \\ b"
        place.mkdir()
        if not mounted(place, *(["-t", "tmpfs", "tmpfs"] if kind == "disk" else ["--bind", str(place)])):
            pytest.skip("needs the right to mount a file system")
        try:
            for replace_it in (True, False):
                with (
                    pytest.raises(PredilectError, match="since a disk is mounted there; choose a folder inside it"),
                    replacing_folder(place, replace=replace_it),
                ):
                    pytest.fail("there is no place")
            with replacing_folder(place / "inside") as temporary:
                (temporary / "text").write_text("a")
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)

    def test_a_system_that_lists_no_mounts_is_believed(self, folder, monkeypatch):
        def absent(path):
            raise FileNotFoundError(2, "No such file or directory", str(path))

        monkeypatch.setattr(Path, "read_bytes", absent)
        check_place(folder)


class TestSharing:
    @pytest.fixture
    def source(self, folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "more").write_text("more")
        (folder / "link").symlink_to("text")
        (folder / ".writing-abc").mkdir()
        (folder / ".writing-abc" / "half").write_text("half")
        (folder / "left out").write_text("a")
        return folder

    @pytest.mark.parametrize("linking", [True, False])
    def test_all_but_what_is_named_or_half_written_is_shared(self, source, monkeypatch, linking):
        def refuse(*_, **__):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        if not linking:
            monkeypatch.setattr(os, "link", refuse)
        other = source.with_name("other")
        other.mkdir()
        source.chmod(0o700)
        share_files(source, other, but=["left out"])
        assert sorted(str(path.relative_to(other)) for path in other.rglob("*")) == ["deep", "deep/more", "link", "text"]
        assert (other / "link").readlink() == Path("text")
        assert (other / "deep" / "more").read_text() == "more"
        assert ((other / "text").stat().st_ino == (source / "text").stat().st_ino) is linking
        assert stat.S_IMODE(other.stat().st_mode) == 0o700

    def test_a_full_disk_is_one_sentence(self, source, monkeypatch):
        def full(item, target, **_):
            raise OSError(errno.ENOSPC, "No space left on device", str(item), None, str(target))

        monkeypatch.setattr(os, "link", full)
        monkeypatch.setattr(shutil, "copy2", full)
        with pytest.raises(DiskError) as raised, replacing_folder(source, replace=True) as temporary:
            share_files(source, temporary)
        assert str(raised.value) == (
            f"{source} cannot be written: No space left on device; make room and give the command again, with --resume where it takes that"
        )


@pytest.mark.parametrize("write", [replacing, replacing_folder])
def test_an_error_of_another_file_is_not_blamed_on_the_one_that_is_written(tmp_path, write):
    other = tmp_path / "other" / "table.csv"
    with pytest.raises(FileNotFoundError) as raised, write(tmp_path / "run"):
        other.open()
    assert raised.value.filename == str(other)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for target in ("run", "link"):
        with pytest.raises(DiskError, match=f"{target} cannot be written: No such file"), write(tmp_path / target) as temporary:
            (temporary.parent / "absent" / "part").open("w")


def test_what_a_library_leaves_beside_the_file_is_removed_too(tmp_path):
    with replacing(tmp_path / "table.csv") as temporary:
        temporary.with_name(".tmp123").write_text("half")
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "table.csv") as temporary:
        temporary.with_name(".tmp123").write_text(str(1 / 0))
    assert (tmp_path / "table.csv").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_writing_in_threads_leaves_the_umask_alone(tmp_path, monkeypatch):
    changed = []
    monkeypatch.setattr(os, "umask", changed.append)  # one thread's change is every thread's, if only for a moment
    threads = [threading.Thread(target=write_text, args=(tmp_path / str(k), "a")) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 8
    assert changed == []


def test_a_written_file_may_be_read_by_whom_the_system_says(tmp_path):
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "text", "a")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o640


def test_a_seal_holds_for_the_content_and_not_for_its_form():
    sealed = seal({"b": [1, 2.5, None], "a": {"é": "x"}})
    assert is_sealed(sealed)
    assert is_sealed(dict(reversed(sealed.items())))
    assert not is_sealed({**sealed, "b": [1, 2.5, 0]})
    assert not is_sealed({**sealed, "c": 1})
    assert not is_sealed({key: value for key, value in sealed.items() if key != "sha256"})


def test_trying_a_file_leaves_everything_as_it_was(tmp_path):
    try_file(tmp_path / "some.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "some.json").write_text("old")
    os.utime(tmp_path / "some.json", (1, 1))
    try_file(tmp_path / "some.json")
    assert (tmp_path / "some.json").read_text() == "old"
    assert (tmp_path / "some.json").stat().st_mtime == 1
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_trying_a_file_leaves_no_folder_behind(tmp_path, monkeypatch, ends):
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "old").mkdir()
    if ends == "badly":
        monkeypatch.setattr(Path, "write_bytes", full)
    with nullcontext() if ends == "well" else pytest.raises(DiskError):
        try_file(tmp_path / "old" / "a" / "b" / "some.json")
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_a_private_file_stays_private(tmp_path):
    write_text(tmp_path / "text", "old")
    (tmp_path / "text").chmod(0o600)
    write_text(tmp_path / "text", "new")
    assert (tmp_path / "text").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o600
