"""What `predilect import` and `predilect refine` say and show at a terminal, and where they refuse to write."""

from __future__ import annotations

import errno
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import SMALL_TAXONOMY
from made_images import jpeg, picture
from made_import import ROWS, assert_same, build, interrupted, write_source
from made_processes import mounted
from predilect.atlas import pack, parts
from predilect.atlas.build import packing_path
from predilect.atlas.folder import Atlas
from predilect.cli import main

SLOWLY = """
import os, sys, time
os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first process of a session that opens a terminal is controlled by it
from predilect.atlas import pack
from predilect.cli import main
prepare = pack.prepare_image_for_good
def slowly(path, max_side):
    time.sleep(0.03)
    return prepare(path, max_side)
pack.prepare_image_for_good = slowly
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory) -> Atlas:
    return build(source, tmp_path_factory.mktemp("undisturbed") / "atlas")


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """Sixty photographs, one of them broken."""
    return write_source(tmp_path_factory.mktemp("few"), 60)


def run(capsys, *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return int(leaving.value.code or 0), " ".join((shown.out + shown.err).split())


class Terminal:
    """A command at a terminal of its own, 100 letters wide."""

    def __init__(self, *arguments: object) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOWLY, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, pattern: str | None) -> None:
        """Read what is shown until it holds a pattern, or to its end."""
        while pattern is None or not re.search(pattern, self.shown):
            try:
                more = os.read(self.master, 4096)
            except OSError as error:
                assert error.errno == errno.EIO  # noqa: PT017 - how Linux says that the other side is closed
                more = b""
            if not more:
                assert pattern is None, self.shown
                return
            self.shown += more.decode()

    def press(self, key: bytes) -> None:
        os.write(self.master, key)


@contextmanager
def at_terminal(*arguments: object) -> Iterator[Terminal]:
    terminal = Terminal(*arguments)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


class TestTerminal:
    def test_a_bar_shows_how_many_photographs_are_packed(self, few, tmp_path):
        with at_terminal("import", "imagefolder", few, "--out", tmp_path / "atlas", "--max-rejected", 1) as terminal:
            terminal.wait_for(None)
            assert terminal.process.wait() == 0
        counts = [int(count) for count in re.findall(r"packing .*?(\d+)/60", terminal.shown)]
        assert counts == sorted(counts)
        assert len(set(counts)) > 3
        assert counts[-1] == 60
        assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in terminal.shown
        assert "59 photographs; 1 row rejected" in terminal.shown

    def test_ctrl_c_before_the_first_part_is_full_keeps_what_is_done(self, few, tmp_path):
        assert parts.ROWS_PER_PART > 60
        command = ("import", "imagefolder", few, "--out", tmp_path / "atlas", "--max-rejected", 1)
        with at_terminal(*command) as terminal:
            terminal.wait_for(r"packing .*?([1-9]\d*)/60")
            terminal.press(b"\x03")
            terminal.wait_for(None)
            assert terminal.process.wait() == 130
        assert re.search(r"stopped; go on with: predilect import .* --resume", terminal.shown)
        (part,) = packing_path(tmp_path / "atlas").glob("part-*.arrow")
        with at_terminal(*command, "--resume") as terminal:
            terminal.wait_for(r"/60")
            first = int(re.search(r"packing .*?(\d+)/60", terminal.shown)[1])
            terminal.wait_for(None)
            assert terminal.process.wait() == 0
        assert first > 0
        assert not part.exists()
        assert "nothing to resume" not in terminal.shown


class TestResuming:
    @pytest.fixture(autouse=True)
    def small_parts(self, monkeypatch):
        monkeypatch.setattr(parts, "ROWS_PER_PART", ROWS)

    def test_stopping_says_how_to_go_on_and_going_on_works(self, source, undisturbed, tmp_path, capsys, monkeypatch):
        out = tmp_path / "atlas"
        command = ("import", "imagefolder", source, "--out", out, "--max-rejected", "3")
        put_together = pack._put_together

        def stop(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(pack, "_put_together", stop)
        code, said = run(capsys, *command)
        assert code == 130
        assert "--resume" in said
        monkeypatch.setattr(pack, "_put_together", put_together)
        code, said = run(capsys, *command)
        assert code == 1
        assert "add --resume" in said
        code, said = run(capsys, *command, "--resume")
        assert code == 0
        assert "147 photographs; 3 rows rejected" in said
        assert_same(out, undisturbed)

    def test_what_was_replaced_or_missing_is_told(self, source, tmp_path, capsys):
        out = tmp_path / "atlas"
        _, said = run(capsys, "import", "imagefolder", source, "--out", out, "--max-rejected", "3", "--resume")
        assert "nothing to resume" in said
        interrupted(source, tmp_path / "b")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.jpg").write_bytes(jpeg())
        (tmp_path / "other" / "metadata.csv").write_text("file_name,lesions\na.jpg,papule\n")
        code, said = run(capsys, "import", "imagefolder", tmp_path / "other", "--out", tmp_path / "b")
        assert code == 0
        assert "replaced what was left of another import" in said

    def test_that_it_was_finished_is_told(self, source, undisturbed, tmp_path, capsys):
        out = tmp_path / "atlas"
        folder = interrupted(source, out)
        kept = shutil.copytree(folder, tmp_path / "kept")
        build(source, out, resume=True)
        kept.rename(folder)  # as a kill between the last renaming and the removal leaves it
        code, said = run(capsys, "import", "imagefolder", source, "--out", out, "--max-rejected", "3", "--resume")
        assert code == 0
        assert "the import was finished" in said
        assert_same(out, undisturbed)


def test_what_is_on_too_few_photographs_is_named(tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "atlas"
    source.mkdir()
    lesions, sites = ["papule"] * 12 + ["crust", "crust", "mother's mark"], ["arm"] * 11 + ["face"] * 4
    for k in range(15):
        (source / f"{k}.jpg").write_bytes(jpeg(picture(k)))
    rows = [f"{k}.jpg,{lesion},{site}" for k, (lesion, site) in enumerate(zip(lesions, sites, strict=True))]
    (source / "metadata.csv").write_text("\n".join(["file_name,lesions,site", *rows]))
    few_needed = tmp_path / "few.toml"
    few_needed.write_text(SMALL_TAXONOMY.replace("drop_below = 1", "drop_below = 10"))
    code, said = run(capsys, "import", "imagefolder", source, "--out", out, "--taxonomy", few_needed)
    assert code == 0
    told = f"fewer than 10 photographs; {out / 'refinement.csv'} tells each term's way"
    assert f"dropped lesions crust (2), mother's mark (1); site face (4): {told} " in said
    few_needed.write_text(SMALL_TAXONOMY)
    assert "dropped" not in run(capsys, "refine", out, "--taxonomy", few_needed)[1]
    few_needed.write_text(SMALL_TAXONOMY.replace("drop_below = 1", "drop_below = 2"))
    assert "dropped lesion mother's mark (1): fewer than 2 photographs; " in run(capsys, "refine", out, "--taxonomy", few_needed)[1]


class TestPlaces:
    """Where no folder can be replaced, nothing is done first."""

    @pytest.fixture(autouse=True)
    def nothing_is_packed(self, monkeypatch):
        monkeypatch.setattr(pack, "prepare_image_for_good", lambda *_: pytest.fail("a photograph was packed"))

    def test_an_import_into_the_folder_that_it_runs_in(self, source, tmp_path, capsys, monkeypatch):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        for out in (".", tmp_path / "here"):
            code, said = run(capsys, "import", "imagefolder", source, "--out", out, "--max-rejected", 3)
            assert code == 1
            assert said == (
                f"error {out} cannot be replaced while the command runs in it; give the command from another folder, or choose another place"
            )
        assert [path.name for path in tmp_path.iterdir()] == ["here"]

    def test_an_import_to_where_a_disk_is_mounted(self, source, tmp_path, capsys):
        place = tmp_path / "disk"
        place.mkdir()
        if not mounted(place, "-t", "tmpfs", "tmpfs"):
            pytest.skip("needs the right to mount a file system")
        try:
            code, said = run(capsys, "import", "imagefolder", source, "--out", place, "--max-rejected", 3)
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        assert (code, said) == (
            1,
            f"error {place} cannot be replaced, since a disk is mounted there; choose a folder inside it",
        )
        assert [path.name for path in tmp_path.iterdir()] == ["disk"]

    def test_a_refinement_of_the_folder_that_it_runs_in(self, undisturbed, tmp_path, capsys, monkeypatch):
        atlas = shutil.copytree(undisturbed.path, tmp_path / "atlas")
        monkeypatch.chdir(atlas)
        before = {path.name: path.read_bytes() for path in atlas.iterdir()}
        code, said = run(capsys, "refine", ".", "--taxonomy", "as-is")
        assert code == 1
        assert "cannot be replaced while the command runs in it" in said
        assert {path.name: path.read_bytes() for path in atlas.iterdir()} == before
