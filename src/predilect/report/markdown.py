"""Text as Markdown: names that mean nothing but themselves, and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

__all__ = ["bullets", "escaped", "table"]

_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|!&~])")
_LIST = re.compile(r"^([-+=]|\d+(?=[.)]))")


def escaped(text: str) -> str:
    """A text that Markdown shows as it is: one line, no markup, no HTML, no list or heading at its beginning."""
    line = " ".join(text.split())
    return _LIST.sub(lambda match: match[0] + "\\" if match[0].isdigit() else f"\\{match[0]}", _SIGNS.sub(r"\\\1", line))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A table.

    Args:
        header: Titles of the columns.
        rows: Cells, as Markdown; none holds a line feed.
        words: So many columns from the left hold words and are flush left, the others numbers.
    """
    rule = [":---" if column < words else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def bullets(sentences: Sequence[str]) -> str:
    """A list of sentences, in Markdown each; one that follows itself stands once."""
    return "\n".join(f"- {sentence}" for sentence, _ in groupby(sentences))
