"""Whatever happens while a folder is replaced, one of the two stands there whole."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from predilect.errors import PredilectError
from predilect.files import replacing_folder


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
