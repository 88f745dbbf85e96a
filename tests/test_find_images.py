"""Which file belongs to each row of a table, and what is said where none does or one would belong to two."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from made_sources import write_image
from predilect.atlas.importers import find_images
from predilect.atlas.importers.find_images import match_images
from predilect.errors import AtlasError


def match(root: Path, *names: str):
    matches = match_images(pl.Series(names), root, "table.csv")
    return matches.files["file_name"].to_list(), matches.files["reason"].to_list(), matches.n_unlisted


def test_the_named_file_comes_before_others_that_would_fit(tmp_path):
    write_image(tmp_path / "a.png", 1)
    write_image(tmp_path / "a.jpg", 2)
    write_image(tmp_path / "deep" / "a.jpg", 3)
    assert match(tmp_path, "a.png") == (["a.png"], [None], 2)


def test_a_named_folder_is_kept_to(tmp_path):
    write_image(tmp_path / "left" / "1.jpg", 1)
    write_image(tmp_path / "right" / "1.jpg", 2)
    files, reasons, unlisted = match(tmp_path, "right/1.png", "middle/1.png")
    assert files == ["right/1.jpg", None]
    assert "no image" in reasons[1]
    assert unlisted == 1


@pytest.mark.parametrize(
    ("files", "names", "said"),
    [
        (["a.tif"], ["a.jpg", "a.png"], r"row 1 \('a\.jpg'\) and row 2 \('a\.png'\) mean one file, 'a\.tif'"),
        (["a.png"], ["a.jpg", "a.png"], r"row 1 \('a\.jpg'\) and row 2 \('a\.png'\) mean one file, 'a\.png'.* or add 'a\.jpg'"),
        (["x/1.jpg"], ["1.jpg", "x/1.jpg"], r"row 1 \('1\.jpg'\) and row 2 \('x/1\.jpg'\) mean one file, 'x/1\.jpg'"),
        (["x/1.jpg"], ["1.jpg", "x/1.png"], r"row 1 \('1\.jpg'\) and row 2 \('x/1\.png'\) mean one file, 'x/1\.jpg'"),
        (["A.jpg"], ["A.jpg", "a.jpg"], r"row 1 \('A\.jpg'\) and row 2 \('a\.jpg'\) mean one file, 'A\.jpg'"),
        (["X/A.JPG"], ["x/a.jpg", "X/a.png"], r"row 1 \('x/a\.jpg'\) and row 2 \('X/a\.png'\) mean one file, 'X/A\.JPG'"),
        (
            ["A.jpg"],
            ["a.jpg", "a.png", "b.jpg", "A.tif"],
            r"row 1 \('a\.jpg'\) and row 2 .* and row 4 \('A\.tif'\) mean one file",
        ),
        (["e\u0301.jpg"], ["\u00e9.jpg", "e\u0301.jpg"], r"row 1 .* and row 2 .* mean one file"),
        (["a.tif"], [f"a.{k}" for k in range(5)], r"row 1 .* and row 3 \('a\.2'\) and 2 more mean one file"),
        (
            ["a.tif", "b.tif"],
            ["a.1", "b.1", "b.2", "a.2"],
            r"row 1 .* and row 4 .* mean one file, 'a\.tif'.*\(1 more such file",
        ),
    ],
)
def test_one_file_in_two_rows_is_an_error(tmp_path, files, names, said):
    for seed, name in enumerate(files):
        write_image(tmp_path / name, seed)
    with pytest.raises(AtlasError, match=f"table.csv: {said}") as refusal:
        match(tmp_path, *names)
    assert "; each photograph has one row, so remove the others" in str(refusal.value)


def test_what_two_rows_may_mean_is_not_one_file(tmp_path):
    for seed, name in enumerate(["left/1.jpg", "right/1.jpg", "a.png", "A.png"]):
        write_image(tmp_path / name, seed)
    files, reasons, _ = match(tmp_path, "left/1.jpg", "right/1.jpg", "1.jpg", "a.jpg", "A.jpg", "left/2.jpg")
    assert files == ["left/1.jpg", "right/1.jpg", None, "a.png", "A.png", None]
    assert reasons[2] == reasons[5] == "there is no image of that name in the folder"


def test_the_order_of_the_names_stays(tmp_path):
    names = [f"{number}.jpg" for number in (5, 3, 9, 1)]
    for seed, name in enumerate(names[:3]):
        write_image(tmp_path / "sub" / name, seed)
    files, _, _ = match(tmp_path, *names)
    assert files == ["sub/5.jpg", "sub/3.jpg", "sub/9.jpg", None]


def test_a_link_is_followed_where_a_row_names_it_and_it_stays_inside(tmp_path):
    write_image(tmp_path / "data" / "a.jpg", 1)
    write_image(tmp_path / ".store" / "b.jpg", 2)
    (tmp_path / "data" / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "first").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "b.jpg").symlink_to(tmp_path / ".store" / "b.jpg")
    assert match(tmp_path, "first/a.jpg", "b.jpg") == (["first/a.jpg", "b.jpg"], [None, None], 0)
    assert match(tmp_path, "data/round/data/a.jpg") == (["data/round/data/a.jpg"], [None], 0)
    assert match(tmp_path, "a.jpg")[0] == ["data/a.jpg"]


def test_a_link_that_leaves_the_folder_is_refused(tmp_path):
    root = tmp_path / "root"
    write_image(tmp_path / "elsewhere" / "b.jpg", 2)
    write_image(root / "a.jpg", 1)
    (root / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "c.jpg").symlink_to("../elsewhere/b.jpg")
    files, reasons, unlisted = match(root, "linked/b.jpg", "c.jpg", "b.jpg", "a.jpg")
    assert files == [None, None, None, "a.jpg"]
    assert ["leaves the folder through a link" in reason for reason in reasons[:3]] == [True, True, False]
    assert unlisted == 0
    (tmp_path / "alias").symlink_to(root, target_is_directory=True)
    assert match(tmp_path / "alias", "a.jpg")[0] == ["a.jpg"]


def test_what_is_no_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "to_folder.jpg").symlink_to("folder.jpg")
    files, reasons, _ = match(tmp_path, "pipe.jpg", "dangling.jpg", "circle.jpg", "to_folder.jpg", "folder.jpg")
    assert files == [None] * 5
    for reason, said in zip(reasons, ("pipe", "not there", "not there", "folder", "no image of that name"), strict=True):
        assert said in reason


def test_two_paths_of_one_file_are_an_error(tmp_path):
    write_image(tmp_path / "x" / "a.jpg", 1)
    (tmp_path / "link.jpg").symlink_to("x/a.jpg")
    (tmp_path / "y").symlink_to("x", target_is_directory=True)
    with pytest.raises(AtlasError, match=r"row 1 \('x/a.jpg'\) and row 3 \('link.jpg'\) mean one file, 'x/a.jpg'") as refusal:
        match(tmp_path, "x/a.jpg", "other.jpg", "link.jpg")
    assert "is not there" not in str(refusal.value)
    with pytest.raises(AtlasError, match=r"row 1 \('y/a.jpg'\) and row 2 \('link.jpg'\)"):
        match(tmp_path, "y/a.jpg", "link.jpg")
    with pytest.raises(AtlasError, match=r"row 1 \('a.jpg'\) and row 2 \('link.jpg'\)"):
        match(tmp_path, "a.jpg", "link.jpg")
    os.link(tmp_path / "x" / "a.jpg", tmp_path / "hard.jpg")
    with pytest.raises(AtlasError, match=r"row 1 \('x/a.jpg'\) and row 2 \('hard.jpg'\) mean one file, 'x/a.jpg'"):
        match(tmp_path, "x/a.jpg", "hard.jpg")
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "x" / "a.jpg").read_bytes())  # another file, for an audit to find
    assert match(tmp_path, "x/a.jpg", "copy.jpg")[0] == ["x/a.jpg", "copy.jpg"]


def test_equal_numbers_on_two_disks_are_two_files(tmp_path, monkeypatch):
    for seed, name in enumerate(["a.jpg", "b.jpg"]):
        write_image(tmp_path / name, seed)
    monkeypatch.setattr(find_images, "walk_files", lambda _: find_images.Walked(["a.jpg", "b.jpg"], [7, 7], [], 0))
    assert match(tmp_path, "a.jpg", "b.jpg")[0] == ["a.jpg", "b.jpg"]


def test_a_link_that_leaves_the_folder_means_no_file_of_another_row(tmp_path):
    write_image(tmp_path / "root" / "x" / "c.jpg", 1)
    (tmp_path / "root" / "c.jpg").symlink_to("/dev/null")
    files, reasons, _ = match(tmp_path / "root", "c.jpg", "x/c.jpg")
    assert files == [None, "x/c.jpg"]
    assert "leaves the folder" in reasons[0]


def test_a_name_in_other_capitals_is_hinted_at_and_not_taken(tmp_path):
    write_image(tmp_path / "x" / "IMG_1.JPG", 1)
    missing = "there is no image of that name in the folder"
    for name in ("img_1.jpg", "x/img_1.jpg", "x/Img_1.tif"):
        assert match(tmp_path, name) == ([None], [f"{missing}; x/IMG_1.JPG differs in capital and small letters"], 1)
    assert match(tmp_path, "y/img_1.jpg") == ([None], [missing], 1)


def test_letters_that_an_archive_took_apart_are_found(tmp_path):
    apart, together = "e\u0301te\u0301.jpg", "\u00e9t\u00e9.jpg"
    write_image(tmp_path / "x" / apart, 1)
    assert match(tmp_path, together)[0] == [f"x/{apart}"]
    assert match(tmp_path, f"x/{together}")[0] == [f"x/{apart}"]
    write_image(tmp_path / "x" / together, 2)
    assert match(tmp_path, f"x/{together}", f"x/{apart}")[0] == [f"x/{together}", f"x/{apart}"]


def test_a_name_that_is_not_text_harms_nobody(tmp_path):
    write_image(tmp_path / "a.jpg", 1)
    (tmp_path / "b\udcff.jpg").write_bytes(b"?")
    assert match(tmp_path, "a.jpg") == (["a.jpg"], [None], 1)
