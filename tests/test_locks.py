"""A lock is one process's or one thread's until it is given back, and ends with the process however that ends."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from made_processes import die, in_child
from predilect.errors import DiskError
from predilect.locks import claimed, hold, holding


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


def test_a_lock_of_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    path, lockf = tmp_path / "lock", fcntl.lockf

    def removed_first(descriptor, how):
        monkeypatch.setattr(fcntl, "lockf", lockf)
        path.unlink()  # as whoever held it does, between our opening and our locking
        lockf(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", removed_first)
    before = open_files()
    with holding(path) as holder:
        assert holder is None
        assert in_child(lambda: os._exit(hold(path) == os.getppid())) == 1  # others see it
    assert open_files() == before


def test_a_place_without_room_for_a_lock_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path, said in [(tmp_path / "absent" / "lock", "No such file"), (tmp_path / "file" / "lock", ".*file is not a folder")]:
        with pytest.raises(DiskError, match=f"lock cannot be written: {said}"):
            hold(path)
        with pytest.raises(DiskError, match=f"lock cannot be written: {said}"), holding(path):
            pytest.fail("there is no place")


def test_a_folder_is_claimed_once(tmp_path):
    with claimed(tmp_path) as ours, claimed(tmp_path) as again:
        assert (ours, again) == (True, False)
        assert in_child(lambda: _exit_if_claimed(tmp_path)) == 0
    assert in_child(lambda: _exit_if_claimed(tmp_path)) == 1
    with claimed(tmp_path / "absent") as ours:
        assert ours is False


def _exit_if_claimed(folder: Path) -> None:
    with claimed(folder) as ours:
        os._exit(bool(ours))


def test_where_folders_cannot_be_locked_nothing_is_said(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with claimed(tmp_path) as ours:
        assert ours is None
