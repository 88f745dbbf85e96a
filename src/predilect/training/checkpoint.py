"""The state of a training in one file, so that a kill at any moment leaves either the old state whole or the new one.

safetensors keeps the tensors and, in its header, the JSON beside them: one atomic rename replaces both. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from predilect.errors import RunError
from predilect.files import replacing

__all__ = ["STATE_FILE", "Checkpoint", "load_tensors", "optimizer_tensors", "read_checkpoint", "write_checkpoint"]

STATE_FILE = Path("checkpoint", "state.safetensors")
"""Where a training keeps its checkpoint, within its folder."""

_SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False, slots=True)
class Checkpoint:
    """Everything a training needs to go on.

    Attributes:
        identity: Hash of all that decides the training; another training refuses the checkpoint.
        progress: JSON values: iterations done, seconds spent, schedule.
        tensors: Named by part: ``model/...``, ``optimizer/<parameter>/<name>`` and, where a best one was kept, ``best/...``.
    """

    identity: str
    progress: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, without its prefix."""
        prefix = f"{name}/"
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def optimizer_state(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The optimiser's state dictionary: its own parameter groups, these tensors.

        Args:
            fresh: The state dictionary of the newly made optimiser.
        """
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in self.part("optimizer").items():
            parameter, _, name = key.partition("/")
            state.setdefault(int(parameter), {})[name] = value
        return {"state": state, "param_groups": fresh["param_groups"]}


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        PredilectError: If the folder cannot be written to or the disk is full.
    """
    header = {
        "schema_version": str(_SCHEMA_VERSION),
        "identity": checkpoint.identity,
        "progress": json.dumps(checkpoint.progress, allow_nan=False),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, header)


def read_checkpoint(path: Path, identity: str) -> Checkpoint:
    """Read a checkpoint back.

    Args:
        path: The file.
        identity: Of the training that wants to go on from it.

    Raises:
        RunError: If the file is damaged, of another schema version, or belongs to another training.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        found, progress = header.get("identity"), json.loads(header.get("progress", "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is damaged and cannot be resumed from ({error}); remove it to start this training again") from error
    if header.get("schema_version") != str(_SCHEMA_VERSION):
        raise RunError(f"{path} has schema version {header.get('schema_version')}, allowed is {_SCHEMA_VERSION}")
    if found != identity:
        raise RunError(
            f"{path} belongs to a training with another recipe, seed, atlas or folds; resume with what it was started with, "
            f"or choose another folder"
        )
    return Checkpoint(identity, progress, tensors)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        RunError: If the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def optimizer_tensors(state: Mapping[int, Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """An optimiser's per-parameter state as named tensors."""
    for parameter, values in state.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                yield f"optimizer/{parameter}/{name}", value
            elif value is not None:
                yield f"optimizer/{parameter}/{name}", torch.tensor(value)
