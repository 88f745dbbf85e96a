"""Whatever happens while a file or a folder is replaced, one of the two stands there whole; locks and checksums."""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from predilect import files
from predilect.errors import DiskError, PredilectError
from predilect.files import hold, holding, is_sealed, remove_leftovers, replacing, replacing_folder, seal, write_text


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
    monkeypatch.setattr(files, "_exchanged_at_once", lambda *_: False)  # as on a system that cannot
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
    for _ in range(200):
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


def in_child(work) -> int:
    """How a child process that does some work ends."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


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
    monkeypatch.setattr(files, "_exchanged_at_once", lambda *_: False)
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


def test_a_written_file_may_be_read_by_whom_the_system_says(tmp_path):
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "text", "a")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o640


def test_a_lock_is_held_against_other_processes_until_its_own_ends(tmp_path):
    path = tmp_path / ".lock"
    ready, answered = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"y" if hold(path) is None else b"n")
        os.read(answered[0], 1)
        die()
    assert os.read(ready[0], 1) == b"y"
    assert hold(path) == child
    os.write(answered[1], b"!")
    os.waitpid(child, 0)
    assert hold(path) is None
    assert hold(path) is None  # ours already
    assert in_child(lambda: os._exit(hold(path) == os.getppid())) == 1
    for descriptor in (*ready, *answered):
        os.close(descriptor)


def open_files() -> int:
    return len([*Path("/dev/fd").iterdir()])


def test_a_lock_for_a_block_keeps_others_out_and_is_given_back(tmp_path):
    path = tmp_path / "lock"
    before = open_files()
    with holding(path) as holder:
        assert holder is None
        assert in_child(lambda: os._exit(hold(path) == os.getppid())) == 1
        with holding(path) as again:  # as another thread of this process would find it
            assert again == os.getpid()
        assert hold(path) == os.getpid()
        assert in_child(lambda: os._exit(hold(path) == os.getppid())) == 1  # asking has not given it back
    assert in_child(lambda: os._exit(hold(path) is None)) == 1
    assert open_files() == before


def test_of_many_threads_one_has_the_lock(tmp_path):
    at_work, most, got = [], [], []

    def work():
        for _ in range(50):
            with holding(tmp_path / "lock") as holder:
                if holder is None:
                    at_work.append(1)
                    most.append(len(at_work))
                    got.append(1)
                    at_work.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got
    assert max(most) == 1


def test_what_is_held_for_good_stays_held_and_costs_one_open_file(tmp_path):
    path = tmp_path / "lock"
    before = open_files()
    for _ in range(5):
        assert hold(path) is None
        with holding(path) as holder:
            assert holder is None
        assert in_child(lambda: os._exit(hold(path) == os.getppid())) == 1
    assert open_files() == before + 1


def test_a_seal_holds_for_the_content_and_not_for_its_form():
    sealed = seal({"b": [1, 2.5, None], "a": {"é": "x"}})
    assert is_sealed(sealed)
    assert is_sealed(dict(reversed(sealed.items())))
    assert not is_sealed({**sealed, "b": [1, 2.5, 0]})
    assert not is_sealed({**sealed, "c": 1})
    assert not is_sealed({key: value for key, value in sealed.items() if key != "sha256"})
