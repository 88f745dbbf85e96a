"""The command line on a small folder: how it is called, and a place in which it has walked the whole path once."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import SMALL_TAXONOMY, small_folder
from predilect.cli import main

RECIPE = """
name = "tiny"
backbone = "test_resnet"
weights = "none"
batch_size = 8
iterations = 3
optimizer = "adamw"
learning_rate = 0.003
schedule = "cosine"
validate_every = 3
precision = "fp32"

[preprocessing]
crop = 32
jitter = [32, 36]
test_side = 32
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


@dataclass(frozen=True)
class Place:
    """A folder with photographs, an atlas in two folds, a recipe and a finished cross-validation with its bundle.

    Attributes:
        root: The folder, with the others in it.
        photographs: As a user has them.
        taxonomy: A file.
        recipe: A file.
        atlas: Of the photographs.
        run: The cross-validation; tests may resume it and write its report again.
        shown: What the commands printed.
        written: The files of the run as the commands left them.
    """

    root: Path
    photographs: Path
    taxonomy: Path
    recipe: Path
    atlas: Path
    run: Path
    shown: str
    written: frozenset[str]


def leave(*arguments: object) -> int:
    """Run a command in this process, and tell the exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def one_line(text: str) -> str:
    """The text, which must be one line and no traceback."""
    assert "Traceback" not in text
    assert text.count("\n") == 1
    return text


def made_place(root: Path) -> Place:
    """Import, split, cross-validate, report and refit by commands, under a folder that is empty yet."""
    (root / "photographs").mkdir()
    photographs = small_folder(root / "photographs")
    taxonomy, recipe, atlas, run = root / "small.toml", root / "tiny.toml", root / "atlas", root / "run"
    taxonomy.write_text(SMALL_TAXONOMY, encoding="utf-8")
    recipe.write_text(RECIPE, encoding="utf-8")
    shown = io.StringIO()
    with redirect_stdout(shown):
        assert leave("import", "imagefolder", photographs, "--out", atlas, "--taxonomy", taxonomy) == 0
        assert leave("split", atlas, "--folds", 2) == 0
        arguments = ("crossval", atlas, "--systems", "resnet,mtl", "--recipe", recipe, f"--out={run}", "--refit", "mtl")
        assert leave(*arguments) == 0
    written = frozenset(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    return Place(root, photographs, taxonomy, recipe, atlas, run, shown.getvalue(), written)
