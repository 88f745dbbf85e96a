"""The state of a training in one file, so that a kill at any moment leaves either the old state whole or the new one.

safetensors keeps the tensors and, in its header, the JSON beside them: one atomic rename replaces both. Nothing is unpickled. A
checksum over both stands in the header too, since safetensors takes tensors as it finds them.
"""

from __future__ import annotations

import hashlib
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
from predilect.run import LOG_FILE, STATE_FILE

__all__ = ["Checkpoint", "load_tensors", "lost_checkpoint", "optimizer_tensors", "read_checkpoint", "write_checkpoint"]

_SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False, slots=True)
class Checkpoint:
    """Everything a training needs to go on.

    Attributes:
        identity: Hash of all that decides the training; another training refuses the checkpoint.
        progress: JSON values: iterations done, seconds spent, schedule.
        tensors: Named by part: ``model/...``, ``optimizer/<parameter>/<name>``, ``average/...`` and ``best/...`` where there are
            such, and ``running/<task>``, the losses since the last log line, where there are any.
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
    header["sha256"] = _digest(header, tensors)
    with replacing(path) as temporary:
        save_file(tensors, temporary, header)


def read_checkpoint(path: Path, identity: str | None) -> Checkpoint:
    """Read a checkpoint back.

    Args:
        path: The file.
        identity: Of the training that wants to go on from it; None where it is not known yet, and any will do.

    Raises:
        RunError: If the file is damaged, of another schema version, or belongs to another training.
    """
    remedy = _start_again(path.parent.parent)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged and cannot be resumed from ({error}); {remedy}") from error
    if header.get("schema_version") != str(_SCHEMA_VERSION):
        raise RunError(f"{path} has schema version {header.get('schema_version')}, allowed is {_SCHEMA_VERSION}")
    if header.pop("sha256", None) != _digest(header, tensors):
        raise RunError(f"{path} is damaged and cannot be resumed from (its checksum differs); {remedy}")
    if identity not in (None, header["identity"]):
        raise RunError(f"{path} belongs to a training with another recipe, seed, atlas, folds or length; {remedy}")
    return Checkpoint(header["identity"], json.loads(header["progress"]), tensors)


def lost_checkpoint(folder: Path) -> RunError:
    """What is said of a training that has begun, as its log shows, and of which no checkpoint is left: nothing of it is overwritten.

    Args:
        folder: Of the training.
    """
    return RunError(
        f"{folder / STATE_FILE}: there is no such file, though by its {LOG_FILE} the training has begun; put it back, or "
        f"{_start_again(folder)}"
    )


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


def _start_again(folder: Path) -> str:
    return f"remove {folder} to start this training again"


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the header and every tensor: name, type, shape, bytes."""
    names = sorted(tensors)
    described = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    digest = hashlib.sha256(json.dumps([sorted(header.items()), described]).encode())
    for name in names:
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
