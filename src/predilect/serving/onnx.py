"""An exported model in ONNX Runtime, and what tells that the file is as it was written and whose it is.

The file's last bytes are an entry of its metadata, `sha256`: the checksum of all bytes before them. Protocol buffers allow a
message to be added to by appending to it, so that the file stays an ordinary ONNX model, and nothing of it needs to be read to
check it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predilect.bundle import Bundle
from predilect.errors import ServingError
from predilect.training.inference import Observation

__all__ = [
    "EMBEDDING",
    "ENDING",
    "FEATURE_MAP",
    "MODEL_FILE",
    "PHOTOGRAPHS",
    "SCHEMA_VERSION",
    "OnnxRuntime",
    "extra",
    "is_sealed_model",
    "seal_model",
]

MODEL_FILE = "model.onnx"
"""Where a bundle keeps its exported model."""

ENDING = ".onnx"
"""Of the name of an exported model."""

SCHEMA_VERSION = "1"
"""Of the metadata, and of names and shapes."""

PHOTOGRAPHS, EMBEDDING, FEATURE_MAP = "photographs", "embedding", "feature_map"
"""The input, and the outputs beside those that are named after the tasks."""

# As protocol buffers write it: field 14 of the model, 74 bytes, of them a key of 6 bytes and a value of 64.
_SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"
_SEAL_LENGTH = len(_SEAL) + 64


@dataclass(frozen=True, eq=False, slots=True)
class OnnxRuntime:
    """An exported model in ONNX Runtime, on the processor.

    Attributes:
        session: An ``onnxruntime.InferenceSession``.
    """

    session: Any

    @classmethod
    def open(cls, path: Path, bundle: Bundle) -> Self:
        """Load a bundle's exported model.

        Args:
            path: The file.
            bundle: Whose model it must be, over the same views.

        Raises:
            ServingError: If ONNX Runtime is not installed, or the file is missing, is not as it was written, was exported from
                another bundle or for another preprocessing.
        """
        elsewhere = "" if path == bundle.path / MODEL_FILE else f" --out {path}"
        again = f"export it with: predilect export {bundle.path}{elsewhere}"
        if path.suffix != ENDING:  # who mistook a photograph for a model is not to have it overwritten
            again = f"give the {ENDING} file that predilect export made"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ServingError(f"{path} cannot be read ({error.strerror}); {again}") from error
        if not is_sealed_model(data):
            raise ServingError(f"{path} is not what predilect export wrote (its checksum is missing or differs); {again}")
        loaded = cls.load(data, path)
        told = loaded.session.get_modelmeta().custom_metadata_map
        if told.get("schema_version") != SCHEMA_VERSION:
            found = told.get("schema_version")
            raise ServingError(f"{path} has schema version {found!r}; this version of Predilect reads {SCHEMA_VERSION!r}; {again}")
        try:
            model, labels, preprocessing = told["model"], json.loads(told["labels"]), dict(json.loads(told["preprocessing"]))
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise ServingError(f"{path} does not say as predilect export does whose model it is; {again}") from error
        if model != bundle.model or labels != bundle.labels.to_json():
            raise ServingError(f"{path} was exported from another bundle than {bundle.path}; {again}")
        wanted = bundle.preprocessing.model_dump(mode="json")
        if preprocessing != wanted:
            key = next(key for key in {**wanted, **preprocessing} if preprocessing.get(key) != wanted.get(key))
            also = f" --tta {wanted[key]}" if key == "views" else ""
            raise ServingError(
                f"{path} was exported with {key} = {preprocessing.get(key)!r}, wanted is {wanted.get(key)!r}; {again}{also}"
            )
        return loaded

    @classmethod
    def load(cls, data: bytes, path: Path) -> Self:
        """Make a model ready to run, whosever it is.

        Args:
            data: The ONNX model.
            path: Where it lies or is to lie, for messages.

        Raises:
            ServingError: If ONNX Runtime is not installed or cannot run the model.
        """
        runtime = extra("onnxruntime")
        runtime.disable_telemetry_events()
        kinds = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")  # which have no common class of their own
        try:
            return cls(runtime.InferenceSession(data, providers=["CPUExecutionProvider"]))
        except (kinds.Fail, kinds.InvalidArgument, kinds.InvalidGraph, kinds.InvalidProtobuf, kinds.NotImplemented) as error:
            raise ServingError(f"ONNX Runtime {version('onnxruntime')} cannot run {path}: {error}") from error

    def observe(self, squares: Tensor) -> Observation:
        """Look once at a batch.

        Args:
            squares: (B, 3, test_side, test_side) uint8, from `vision.transforms.central_square`.
        """
        return self.observe_photographs(np.ascontiguousarray(squares.cpu().permute(0, 2, 3, 1).numpy()))

    def observe_photographs(self, photographs: NDArray[np.uint8]) -> Observation:
        """Look once at a batch of whole photographs, as a program without Predilect does.

        Args:
            photographs: (B, H, W, 3) uint8, upright, RGB, all of one size.
        """
        names = [output.name for output in self.session.get_outputs()]
        found = dict(zip(names, map(torch.from_numpy, self.session.run(names, {PHOTOGRAPHS: photographs})), strict=True))
        embedding, feature_map = found.pop(EMBEDDING), found.pop(FEATURE_MAP, None)
        return Observation(found, embedding, feature_map)


def seal_model(data: bytes) -> bytes:
    """An ONNX model with the checksum of its bytes added to its metadata."""
    return data + _SEAL + hashlib.sha256(data).hexdigest().encode()


def is_sealed_model(data: bytes) -> bool:
    """Whether a file is as `seal_model` made it."""
    return seal_model(data[:-_SEAL_LENGTH]) == data


def extra(package: str) -> Any:
    """A package of the extra `onnx`.

    Raises:
        ServingError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ServingError(f"ONNX needs the package {package}: pip install 'predilect[onnx]'") from error
