from __future__ import annotations

import string
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predilect.atlas.manifest import parse_photos, read_manifest, write_manifest
from predilect.atlas.photo import MODALITIES, PHOTO_SCHEMA, SKIN_TONE_SCALES, Photo, photo_table
from predilect.errors import AtlasError


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "metadata.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_smallest_manifest_gets_every_column(tmp_path):
    photos = read_manifest(_written(tmp_path, "file_name,lesions\na/000655.png,papule\n"))
    assert photos.schema == PHOTO_SCHEMA
    row = photos.row(0, named=True)
    assert row["image_id"] == "000655"
    assert (row["lesions"], row["site"], row["source"]) == (["papule"], None, "unnamed")


def test_ids_are_strings_whatever_they_look_like(tmp_path):
    text = "file_name,image_id,lesions,patient_id,lesion_id,case_id\na.jpg,000655,x,007,1e3,0x1\nb.jpg,655,x,7,1000,1\n"
    photos = read_manifest(_written(tmp_path, text))
    assert photos.select("image_id", "patient_id", "lesion_id", "case_id").rows() == [
        ("000655", "007", "1e3", "0x1"),
        ("655", "7", "1000", "1"),
    ]


def test_a_manifest_may_name_its_ids_in_part(tmp_path):
    photos = read_manifest(_written(tmp_path, "file_name,image_id,site\nx/one.v2.jpg,,arm\ny/two,own,arm\n"))
    assert photos["image_id"].to_list() == ["one.v2", "own"]


def test_empty_is_not_annotated_and_none_is_nothing_seen(tmp_path):
    text = 'file_name,lesions,lesions_unknown,site\n1.jpg,,,\n2.jpg,none,*,\n3.jpg,"papule ;  flat wart",scar,head; neck\n4.jpg,"  ",a;b,arm\n'
    photos = read_manifest(_written(tmp_path, text))
    assert photos["lesions"].to_list() == [None, [], ["papule", "flat wart"], None]
    assert photos["lesions_unknown"].to_list() == [None, ["*"], ["scar"], ["a", "b"]]
    assert photos["site"].to_list() == [None, None, ["head", "neck"], ["arm"]]


def test_other_columns_are_carried_along_after_ours(tmp_path):
    photos = read_manifest(_written(tmp_path, "zoom,file_name,lesions,note\n07,a.jpg,x,\n"))
    assert photos.columns == [*PHOTO_SCHEMA.names(), "zoom", "note"]
    assert photos.select("zoom", "note").row(0) == ("07", None)


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_the_table(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_bytes("\ufefffile_name,lesions,sex\r\na.jpg,papule,male\r\n".encode())
    assert read_manifest(path).select("file_name", "sex").row(0) == ("a.jpg", "male")


@pytest.mark.parametrize(
    ("header", "cells", "said"),
    [
        (
            "modality",
            "clinic",
            ["row 2", "'modality'", "'clinic'", "allowed 'clinical' or 'dermoscopic'", "did you mean 'clinical'"],
        ),
        ("skin_tone,skin_tone_scale", "3,Fitzpatrick", ["row 2", "'Fitzpatrick'", "'monk'", "did you mean 'fitzpatrick'"]),
        ("skin_tone", "3", ["row 2", "'skin_tone_scale'", "needs its scale"]),
        ("skin_tone_scale", "monk", ["row 2", "'skin_tone'", "an empty cell"]),
        ("age", "about 40", ["row 2", "'age'", "'about 40'", "from 0 to 120"]),
        ("age", "1962", ["row 2", "'1962'"]),
        ("age", "-1", ["row 2", "'-1'"]),
        ("age", "nan", ["row 2", "'nan'"]),
        ("age", "inf", ["row 2", "'inf'"]),
        ("site", "none", ["row 2", "'site'", "'none'", "leave the cell empty"]),
        ("site", "*", ["row 2", "'*'", "lesions_unknown only"]),
        ("lesions_unknown", "*;scar", ["row 2", "'*;scar'", "stands alone"]),
        ("lesions_unknown", "none", ["row 2", "'none'"]),
        ("lesions_unknown", "plaque;x", ["row 2", "'lesions_unknown'", "'plaque'", "at once"]),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_place(tmp_path, header, cells, said):
    empty = "," * header.count(",")
    path = _written(tmp_path, f"file_name,lesions,{header}\na.jpg,x,{empty}\nb.jpg,plaque,{cells}\n")
    with pytest.raises(AtlasError) as refusal:
        read_manifest(path)
    for part in [str(path), *said]:
        assert part in str(refusal.value)


@pytest.mark.parametrize("cell", ["papule;none", "None", "NONE;papule", "papule;;scar", ";papule", "papule;", " ; ", "*"])
def test_a_lesion_cell_that_contradicts_itself_is_refused(tmp_path, cell):
    path = _written(tmp_path, f"file_name,lesions\na.jpg,papule\nb.jpg,{cell}\nc.jpg,{cell}\n")
    with pytest.raises(AtlasError, match=r"row 2, column 'lesions'.*1 more such rows"):
        read_manifest(path)


@pytest.mark.parametrize(
    "name", ["/etc/a.jpg", "../a.jpg", "x/../../a.jpg", "x/..", "C:/a.jpg", "c:\\a.jpg", "x\\a.jpg", "folder/", ".", "x/."]
)
def test_a_file_outside_the_folder_is_refused(tmp_path, name):
    with pytest.raises(AtlasError, match=r"row 1, column 'file_name'"):
        read_manifest(_written(tmp_path, f"file_name,lesions\n{name},x\n"))


@pytest.mark.parametrize(
    ("name", "meant"), [("./a.jpg", "a.jpg"), ("././x/a.jpg", "x/a.jpg"), ("x//y/./a.jpg", "x/y/a.jpg"), (".a.jpg", ".a.jpg")]
)
def test_a_name_as_a_listing_writes_it_is_the_same_file(tmp_path, name, meant):
    assert read_manifest(_written(tmp_path, f"file_name,lesions\n{name},x\n"))["file_name"].item() == meant
    with pytest.raises(AtlasError, match=r"rows 1 and 2: file_name"):
        read_manifest(_written(tmp_path, f"file_name,image_id,lesions\n{name},1,x\n{meant},2,x\n"))


def test_a_name_with_control_characters_is_refused(tmp_path):
    for letter in ("\x00", "\x1b", "\x7f"):
        with pytest.raises(AtlasError, match="without control characters"):
            read_manifest(_written(tmp_path, f"file_name,lesions\na{letter}.jpg,x\n"))


@pytest.mark.parametrize("name", ["a..b.jpg", "..a.jpg", "x/...jpg", "ab:c.jpg"])
def test_dots_within_a_name_are_only_dots(tmp_path, name):
    assert read_manifest(_written(tmp_path, f"file_name,lesions\n{name},x\n"))["file_name"].item() == name


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("1,a.jpg\n2,b.jpg\n3,c.jpg\n2,d.jpg\n", r"rows 2 and 4: image_id '2'"),
        (",x/a.jpg\n,b.jpg\n,y/a.png\n", r"rows 1 and 3: image_id 'a'.*without its ending"),
        ("1,a.jpg\n2,a.jpg\n", r"rows 1 and 2: file_name 'a.jpg'"),
    ],
)
def test_duplicates_are_named_with_their_rows(tmp_path, rows, said):
    table = "".join(f"{row},x\n" for row in rows.splitlines())
    with pytest.raises(AtlasError, match=said):
        read_manifest(_written(tmp_path, "image_id,file_name,lesions\n" + table))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lesions\nx\n", "no column 'file_name' among 'lesions'"),
        ("file_name,sex\na.jpg,f\n", "neither a column 'lesions' nor a column 'site'"),
        ("file_name,Lesion,site\na.jpg,x,arm\n", "column 'Lesion' must be written 'lesions'"),
        ("file_name,lesions,patient-ID\na.jpg,x,1\n", "column 'patient-ID' must be written 'patient_id'"),
        ("file_name,lesions,patient\na.jpg,x,1\n", "column 'patient' must be written 'patient_id'"),
        ("file_name,lesions,lesoins_unknown\na.jpg,x,y\n", "column 'lesoins_unknown' must be written 'lesions_unknown'"),
        ("file_name,lesions,lesions\na.jpg,x,y\n", "column 'lesions' stands there more than once"),
        ("file_name,lesions\n", "the table has no rows"),
        ("file_name,lesions\na.jpg,x,y\n", r"cannot be read as CSV: row 1 \(line 2\) has 3 cells where the header names 2 columns"),
        (
            "file_name,lesions\na.jpg,x\nb.jpg\n",
            r"cannot be read as CSV: row 2 \(line 3\) has 1 cell where the header names 2 columns",
        ),
        ("", "cannot be read as CSV"),
        ("file_name,lesions\n,x\n", "row 1, column 'file_name': found an empty cell"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path, text, said):
    with pytest.raises(AtlasError, match=said):
        read_manifest(_written(tmp_path, text))


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"file_name,lesions\n\xff\xfe.jpg,x\n")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    for name, said in [
        ("a.csv", "CSV"),
        ("a.parquet", "Parquet"),
        ("b.csv", "no such file"),
        ("b.parquet", "no such"),
        ("a.xlsx", "is a .csv or"),
    ]:
        with pytest.raises(AtlasError, match=said):
            read_manifest(tmp_path / name)


def test_parquet_may_hold_lists_numbers_and_categories(tmp_path):
    frame = pl.DataFrame(
        {
            "file_name": ["a.jpg", "b.jpg", "c.jpg"],
            "lesions": [["papule", "scar"], [], None],
            "site": [["arm"], [], ["leg", "foot"]],
            "patient_id": [7, 8, None],
            "age": [34.5, float("nan"), None],
            "sex": pl.Series(["m", "f", None], dtype=pl.Categorical),
            "weight": [1.5, None, 2.5],
        }
    )
    frame.write_parquet(tmp_path / "metadata.parquet")
    photos = read_manifest(tmp_path / "metadata.parquet")
    assert photos["lesions"].to_list() == [["papule", "scar"], [], None]
    assert photos["site"].to_list() == [["arm"], None, ["leg", "foot"]]
    assert photos["patient_id"].to_list() == ["7", "8", None]
    assert photos["age"].to_list() == [34.5, None, None]
    assert photos["sex"].to_list() == ["m", "f", None]
    assert photos["weight"].to_list() == [1.5, None, 2.5]


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("image_id", [655], "'image_id' holds Int64, it must hold strings"),
        ("patient_id", [1.0], "'patient_id' holds Float64"),
        ("age", [True], "'age' holds Boolean, it must hold numbers"),
        ("lesions", [["a;b"]], "row 1, column 'lesions': found \\['a;b'\\]"),
        ("lesions", [["a", None]], "row 1, column 'lesions'"),
        ("site", [[""]], "row 1, column 'site'"),
    ],
)
def test_parquet_of_other_types_is_refused(column, values, said):
    cells = pl.DataFrame({"file_name": ["a.jpg"], "lesions": ["x"]}).with_columns(pl.Series(column, values))
    with pytest.raises(AtlasError, match=said):
        parse_photos(cells, "m.parquet")


_words = st.text(string.ascii_letters + string.digits + " ,\"'/é漢\n*_-", min_size=1, max_size=8).map(str.strip)
_terms = _words.filter(lambda word: bool(word) and word.lower() != "none" and word != "*")
_names = (
    st.text(string.ascii_letters + string.digits + "._- é", min_size=1, max_size=6)
    .map(str.strip)
    .filter(lambda name: name.strip("."))
)
_optional = st.none() | _words.filter(bool)


@st.composite
def _photos(draw):
    files = draw(st.lists(_names, min_size=1, max_size=5, unique=True))
    rows = []
    for number, name in enumerate(files):
        seen = draw(st.none() | st.lists(_terms, max_size=3).map(tuple))
        unknown = draw(st.none() | st.just(("*",)) | st.lists(_terms, min_size=1, max_size=2).map(tuple))
        if unknown and seen and set(seen) & set(unknown):
            unknown = None
        tone = draw(_optional)
        rows.append(
            Photo(
                image_id=f"{number:04d}",
                file_name=f"f{number}/{name}",
                lesions=seen,
                lesions_unknown=unknown,
                site=draw(st.none() | st.lists(_terms, min_size=1, max_size=2).map(tuple)),
                patient_id=draw(_optional),
                modality=draw(st.none() | st.sampled_from(MODALITIES)),
                skin_tone=tone,
                skin_tone_scale=None if tone is None else draw(st.sampled_from(SKIN_TONE_SCALES)),
                age=draw(st.none() | st.floats(0, 120)),
                source=draw(_words.filter(bool)),
            )
        )
    return rows


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@settings(max_examples=40, deadline=None)
@given(photos=_photos(), carried=st.lists(_optional, min_size=5, max_size=5))
def test_what_is_written_is_what_was_read(tmp_path_factory, ending, photos, carried):
    frame = photo_table(photos).with_columns(carried=pl.Series(carried[: len(photos)], dtype=pl.String))
    path = tmp_path_factory.getbasetemp() / f"round{ending}"
    write_manifest(frame, path)
    again = read_manifest(path)
    assert again.equals(frame)
    for row in again.select(PHOTO_SCHEMA.names()).iter_rows(named=True):
        assert Photo(**row).image_id == row["image_id"]  # what we read, the row's own checks accept


def test_only_a_table_of_photographs_is_written(tmp_path):
    frame = photo_table([Photo(image_id="1", file_name="a.jpg")])
    with pytest.raises(ValueError, match="lesions"):
        write_manifest(frame.drop("lesions"), tmp_path / "m.csv")
    with pytest.raises(AtlasError, match=r"\.csv or a \.parquet"):
        write_manifest(frame, tmp_path / "m.txt")
    with pytest.raises(AtlasError, match="column 'age'"):
        write_manifest(frame.with_columns(age=pl.lit(200.0)), tmp_path / "m.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cell", "said"), [("none;papule", "'none' cannot stand with other terms"), ("None", "that nothing was seen is written 'none'")]
)
def test_that_nothing_was_seen_is_said_in_one_way(tmp_path, cell, said):
    path = _written(tmp_path, f"file_name,lesions\na.jpg,none\nb.jpg,{cell}\n")
    with pytest.raises(AtlasError) as refusal:
        read_manifest(path)
    assert str(refusal.value).endswith(f"row 2, column 'lesions': found {cell!r}, {said}")
