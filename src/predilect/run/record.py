"""``run.json``: what a run was asked for and on what, and under what it was resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from predilect.errors import RunError
from predilect.files import is_sealed, read_json, seal, write_json

__all__ = ["RECORD_FILE", "changes", "check_same", "notes", "read_record", "resumption", "write_record"]

SCHEMA_VERSION = 1
RECORD_FILE = "run.json"

# What must be the same for a run to be resumed; anything else (command line, versions, device) may differ.
_IDENTITY = ("systems", "weights", "precision", "seeds", "folds", "atlas_hash", "splits_hash")
_IN_WORDS = {
    "atlas_hash": "labels or photographs (the atlas is another one, or has changed since)",
    "splits_hash": "folds (the atlas has been split anew since, or is another one)",
}
_NEEDED = ("systems", "seeds", "folds", "plan", "files", "resumed", "sha256")  # `sha256`: the seal


def write_record(folder: Path, info: Mapping[str, Any]) -> None:
    """Write ``run.json`` into a run folder, sealed.

    Raises:
        DiskError: If it cannot be written.
    """
    write_json(folder / RECORD_FILE, seal({"schema_version": SCHEMA_VERSION, **info}))


def read_record(folder: Path) -> dict[str, Any]:
    """What the ``run.json`` of a run folder holds, but its schema version and its seal.

    Raises:
        RunError: If there is none, or it is of another schema version, lacks a key, or is not what was written.
    """
    path = folder / RECORD_FILE
    if not folder.exists():
        raise RunError(f"there is no folder {folder}")
    if not path.is_file():
        raise RunError(f"{folder} is not a run: it holds no {RECORD_FILE}")
    info = read_json(path, RunError)
    version = info.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RunError(f"{path} has schema version {version!r}, allowed is {SCHEMA_VERSION}")
    for key in _NEEDED:
        if key not in info:
            raise RunError(f"{path} has no {key!r}: another version of Predilect wrote it; the run must be made anew")
    if not is_sealed(info):
        raise RunError(f"{path} is not what was written (its checksum differs); the run must be made anew")
    return {key: value for key, value in info.items() if key not in ("schema_version", "sha256")}


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Make sure that a run is gone on with as it was begun.

    Args:
        folder: The run folder, for the message.
        before: What its ``run.json`` holds.
        now: What is asked for.

    Raises:
        RunError: If something that decides its results is different.
    """
    for key in _IDENTITY:
        if before.get(key) != now[key]:
            same_systems = key == "systems" and before[key].keys() == now[key].keys()
            named = "settings" if same_systems else key
            raise RunError(
                f"{folder} was started with other {_IN_WORDS.get(key) or f'{named} ({_difference(before.get(key), now[key])})'}; "
                f"resume with what it was started with, or choose another folder"
            )


def resumption(info: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of ``resumed`` for a run that goes on now.

    Args:
        info: Holds the ``versions`` and the ``machine`` of now.
    """
    return {"time": datetime.now(UTC).isoformat(timespec="seconds"), "versions": info["versions"], "machine": info["machine"]}


def changes(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Under which other versions, or on which other machine, a run was resumed.

    Returns:
        For each time something was different from the start, ``time`` and, by its name, what it was then.
    """
    start, found = _started_with(info), []
    for entry in info["resumed"]:
        then = {**entry["versions"], **entry["machine"]}
        differing = {name: value for name, value in then.items() if start.get(name) != value}
        if differing:
            found.append({"time": entry["time"], **differing})
    return found


def notes(info: Mapping[str, Any]) -> list[str]:
    """What a reader must know: the sentences of the sources, and under what else the run was resumed."""
    start, sentences = _started_with(info), []
    for change in changes(info):
        told = [f"{name} {value} instead of {start.get(name)}" for name, value in change.items() if name != "time"]
        sentences.append(
            f"This run was resumed with {', '.join(told)}: what was trained from then on may differ in its last digits from a "
            f"run that was never stopped."
        )
    return [*info["notes"], *dict.fromkeys(sentences)]


def _started_with(info: Mapping[str, Any]) -> dict[str, Any]:
    return {**info["versions"], **info["machine"]}


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first place where two JSON values differ, such as ``mtl.recipe.iterations 500, now 600``."""
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        key = next(key for key in before if before[key] != now[key])
        return _difference(before[key], now[key], f"{where}.{key}".lstrip("."))
    texts = [", ".join(value) if isinstance(value, dict) else json.dumps(value) for value in (before, now)]
    return f"{where} {texts[0]}, now {texts[1]}".lstrip()
