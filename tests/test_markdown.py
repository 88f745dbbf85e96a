"""Text as Markdown."""

from __future__ import annotations

import pytest

from predilect.report.markdown import escaped, table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words, and 0.5", "plain words, and 0.5"),
        ("erosion/ulcer", "erosion/ulcer"),
        ("a_b*c`d", r"a\_b\*c\`d"),
        ("<script>[x](y)</script>", r"\<script\>\[x\](y)\</script\>"),
        ("two | cells\nand lines", r"two \| cells and lines"),
        ("# no heading", r"\# no heading"),
        ("- no list", r"\- no list"),
        ("1. no list", r"1\. no list"),
        ("2.5 mm", r"2\.5 mm"),
    ],
)
def test_signs_mean_themselves(text, expected):
    assert escaped(text) == expected


def test_a_table_has_words_left_and_numbers_right():
    assert table(["lesion", "AP"], [["papule", "0.5"]]) == "| lesion | AP |\n| :--- | ---: |\n| papule | 0.5 |"
