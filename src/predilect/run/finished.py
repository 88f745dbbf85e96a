"""One training that has ended: its last file, which names the others with their checksums, and what is refused of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from predilect.errors import RunError
from predilect.files import checksum, is_sealed, read_json, seal, write_json

__all__ = [
    "LOG_FILE",
    "PREDICTIONS_FILE",
    "REFIT_FOLDER",
    "RESULT_FILE",
    "STATE_FILE",
    "WEIGHTS_FILE",
    "WHOLE_FOLDER",
    "check_files",
    "finish",
    "read_result",
    "weights_path",
]

# What lies in the folder of one training.
LOG_FILE = Path("log.jsonl")
STATE_FILE = Path("checkpoint", "state.safetensors")
WEIGHTS_FILE = Path("checkpoint", "weights.safetensors")
PREDICTIONS_FILE = Path("predictions.parquet")
RESULT_FILE = Path("result.json")

REFIT_FOLDER = "refit"
"""Beside the folds of a seed: its training on all groups, as long as they took."""
WHOLE_FOLDER = "all"
"""In the place of folds: a training on all groups but the validation slice."""


def finish(folder: Path, result: Mapping[str, Any]) -> None:
    """Say how a training ended, with the checksums of its files; its checkpoint is of no more use."""
    names = [name for name in (PREDICTIONS_FILE, LOG_FILE, WEIGHTS_FILE) if (folder / name).is_file()]
    files = {str(name): checksum(folder / name) for name in names}
    write_json(folder / RESULT_FILE, seal({**result, "files": files}))
    (folder / STATE_FILE).unlink(missing_ok=True)


def read_result(folder: Path) -> dict[str, Any] | None:
    """How a training ended, or None while it has not.

    Raises:
        RunError: If the file that says so is damaged, or was changed.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return None
    result = read_json(path, RunError, _train_again(folder))
    if not is_sealed(result):
        raise _changed(path, folder)
    return result


def weights_path(folder: Path) -> Path:
    """The file of the weights that a finished training ended with.

    Raises:
        RunError: If it is not finished, or its weights were removed or changed.
    """
    result = read_result(folder)
    if result is None:
        raise _unfinished(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise RunError(f"{path}: there is no such file; {_train_again(folder)}")
    if checksum(path) != result["files"].get(str(WEIGHTS_FILE)):
        raise _changed(path, folder)
    return path


def check_files(folder: Path) -> None:
    """Make sure that all files of a finished training are as they were written; its weights may have been removed.

    Raises:
        RunError: If it is not finished, or a file is missing or was changed.
    """
    result = read_result(folder)
    if result is None:
        raise _unfinished(folder)
    for name, digest in result["files"].items():
        if (folder / name).is_file():
            if checksum(folder / name) != digest:
                raise _changed(folder / name, folder)
        elif Path(name) != WEIGHTS_FILE:
            raise RunError(f"{folder / name}: there is no such file; {_train_again(folder)}")


def _unfinished(folder: Path) -> RunError:
    return RunError(f"{folder} is not finished; go on with the run by --resume")


def _changed(path: Path, folder: Path) -> RunError:
    return RunError(f"{path} is not what was written (its checksum differs); {_train_again(folder)}")


def _train_again(folder: Path) -> str:
    return f"remove {folder} and --resume to train it again"
