"""A CSV table is read whole or refused with the row; against Python's own reader of CSV."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predilect.errors import TableError
from predilect.tables import read_csv


def written(tmp_path, text: str):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n3\n", r"row 2 \(line 3\) has 1 cell where the header names 2 columns: '3'"),
        ("a,b\n1,2,3\n", r"row 1 \(line 2\) has 3 cells where the header names 2 columns: '1,2,3'"),
        ("a,b\n1,2\n\n\n3,4,\n", r"row 2 \(line 5\) has 3 cells"),
        ('a,b\n"x\ny",2\n1\n', r"row 2 \(line 4\) has 1 cell "),
        ("a,b\n  \n", r"row 1 \(line 2\) has 1 cell "),
        ('a,b\n1,2\n"x,2\n3,4\n', r"row 2 \(line 4\) has 1 cell .*'x,2 3,4 '"),
        (f"a,b\n{'x' * 200}\n", r"'x{60}\.\.\.'"),
        ("a;b\n1;2, 3\n", "the table is separated by semicolons; save it with commas$"),
        ("a;b\n1;2\n", "the table is separated by semicolons; save it with commas$"),
        ("a\tb\n1\t2\n", "the table is separated by tabs; save it with commas$"),
        ("a,b,a\n1,2,3\n", "column 'a' stands there more than once"),
        ("", "it is empty"),
        ("\n\n", "it is empty"),
    ],
)
def test_what_is_uneven_is_refused_with_its_row_and_line(tmp_path, text, said):
    with pytest.raises(TableError, match=said) as refusal:
        read_csv(written(tmp_path, text), TableError)
    assert str(refusal.value).startswith(str(tmp_path / "table.csv"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"a,b\n\xff,2\n", "a,b\nx,y\n".encode("utf-16"), b"\xe4,b\n1,2\n"])
def test_another_encoding_is_refused(tmp_path, data):
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    with pytest.raises(TableError, match="not UTF-8 text; save it as UTF-8"):
        read_csv(path, TableError)
    with pytest.raises(TableError, match="no such file"):
        read_csv(tmp_path / "absent.csv", TableError)


def test_everything_is_text_and_empty_is_null(tmp_path):
    frame = read_csv(written(tmp_path, '\ufeffa,b\r\n007,\r\n"",NA\r\n\r\n5" x,"say ""no"""\r\n'), TableError)
    assert frame.rows() == [("007", None), (None, "NA"), ('5" x', 'say "no"')]


CELLS = st.text(st.sampled_from('ab1 ,;"\nä'), max_size=5)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6))
def test_it_reads_what_python_writes(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("x", "y", "z"), *rows])
    expected = [tuple(cell or None for cell in row) for row in rows]
    assert read_csv(path, TableError).rows() == expected
