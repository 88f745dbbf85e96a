"""Files, folders and patterns that a user names, as image files."""

from __future__ import annotations

from pathlib import Path

import pytest

from predilect.atlas.given import given_images
from predilect.errors import AtlasError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.PNG", "deep/c.jpeg", "deep/d.jpg", "notes.txt", "deep/e.csv", "x[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def named(found, folder) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): None if origin is None else str(origin.relative_to(folder))
        for path, origin in found.files.items()
    }


def test_of_a_folder_images_at_any_depth_count_and_the_rest_is_counted(folder):
    found = given_images([folder])
    assert named(found, folder) == dict.fromkeys(["a.jpg", "b.PNG", "deep/c.jpeg", "deep/d.jpg", "x[1].jpg"], ".")
    assert found.n_others == 2


def test_files_that_are_named_count_whatever_they_are_called_and_need_not_exist(folder):
    found = given_images([folder / "notes.txt", folder / "missing.jpg", folder / "notes.txt"])
    assert named(found, folder) == {"notes.txt": None, "missing.jpg": None}
    assert found.n_others == 0


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "x[1].jpg"]),
        ("**/*.jp*g", ["a.jpg", "deep/c.jpeg", "deep/d.jpg", "x[1].jpg"]),
        ("deep/?.jpg", ["deep/d.jpg"]),
        ("x[1].jpg", ["x[1].jpg"]),
    ],
)
def test_a_pattern_is_filled_in_unless_a_file_has_that_name(folder, pattern, expected):
    assert named(given_images([folder / pattern]), folder) == dict.fromkeys(expected)


def test_a_pattern_may_stand_for_folders(folder):
    assert named(given_images([folder / "de*"]), folder) == {"deep/c.jpeg": "deep", "deep/d.jpg": "deep"}


def test_a_file_belongs_to_where_it_was_named_first(folder):
    found = named(given_images([folder / "deep", folder]), folder)
    assert {name: origin for name, origin in found.items() if name.startswith("deep")} == {
        "deep/c.jpeg": "deep",
        "deep/d.jpg": "deep",
    }
    assert len(found) == 5


@pytest.mark.parametrize(("name", "message"), [("empty", "holds no image file"), ("*.tif", "nothing fits this pattern")])
def test_nothing_to_look_at_is_an_error(folder, name, message):
    (folder / "empty").mkdir()
    with pytest.raises(AtlasError, match=message):
        given_images([folder / Path(name)])
