"""The exceptions that Predilect raises for bad input of a user.

    PredilectError
    ├── LabelError            a taxonomy, a term or a label that cannot be used
    ├── AtlasError            a manifest, a source folder or an atlas folder
    │   └── TooManyRejectedError    an import that would lose more rows than allowed
    ├── SplitError            folds that cannot be made, or do not fit the atlas
    ├── TableError            a predictions or truth table
    ├── RecipeError           a recipe or one of its settings
    ├── RunError              a run folder, a checkpoint, a training that cannot go on
    ├── BundleError           a bundle folder that is incomplete, changed or foreign
    ├── InsightError          a network or photograph that cannot be explained or looked up
    │   └── UnexplainableError      a network whose architecture has no attention maps
    ├── ServingError          an exported model or a runtime that cannot be used
    └── DiskError             a file or folder that cannot be written

Each message is one sentence or two for the person at the terminal: the file, the row, the value found and the values allowed.
Misuse of a Python function raises `ValueError` instead. The command line turns a `PredilectError` into exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "AtlasError",
    "BundleError",
    "DiskError",
    "InsightError",
    "LabelError",
    "PredilectError",
    "RecipeError",
    "RunError",
    "ServingError",
    "SplitError",
    "TableError",
    "TooManyRejectedError",
    "UnexplainableError",
    "nearest",
]


class PredilectError(Exception):
    """Something a user gave cannot be used; the message says what, where and what would be right."""


class LabelError(PredilectError):
    """A taxonomy, a term or a label space that is inconsistent or unknown."""


class AtlasError(PredilectError):
    """A manifest, a source folder or an atlas folder that cannot be read or written."""


class TooManyRejectedError(AtlasError):
    """More rows of a source were rejected than the user allowed."""


class SplitError(PredilectError):
    """Folds that cannot be made from the groups at hand, or that belong to another atlas."""


class TableError(PredilectError):
    """A predictions or truth table that breaks its contract."""


class RecipeError(PredilectError):
    """A recipe with an unknown key or a value out of its range."""


class RunError(PredilectError):
    """A run folder or a checkpoint that is missing, changed or made for something else."""


class BundleError(PredilectError):
    """A bundle that is incomplete, changed or of another schema version."""


class InsightError(PredilectError):
    """What cannot be explained or looked up: a network without attention maps, or a package for it that is missing."""


class UnexplainableError(InsightError):
    """A network whose architecture has no attention maps; no package and no setting gives it any."""


class ServingError(PredilectError):
    """What cannot answer for a bundle: an exported model that is missing, changed or not true to it, or a package that is missing."""


class DiskError(PredilectError):
    """A file or folder that cannot be written: the disk is full, read-only or gone.

    Args:
        path: What was to be written.
        reason: Why it cannot be, and what to do.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} cannot be written: {self.reason}"


def nearest(word: str, allowed: Iterable[str], n: int = 3) -> str:
    """Say which allowed words come nearest to a misspelt one.

    Args:
        word: What the user wrote.
        allowed: What would have been right; compared without regard to case.
        n: At most so many suggestions.

    Returns:
        A clause such as ``"did you mean 'papule' or 'macule'?"``; where nothing is near, the start of the allowed list.
    """
    known = list(dict.fromkeys(allowed))
    by_lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=n, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(by_lower[item]) for item in close) + "?"
    if not known:
        return "none is allowed"
    shown = ", ".join(repr(item) for item in known[:12])
    return f"allowed: {shown}" + (f" and {len(known) - 12} more" if len(known) > 12 else "")
