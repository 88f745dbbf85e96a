"""What computes a bundle's answers: PyTorch, or ONNX Runtime with the model that `predilect export` made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from lightning_fabric import Fabric
from torch import Tensor

from predilect.bundle import Bundle
from predilect.errors import ServingError
from predilect.serving.onnx import MODEL_FILE, OnnxRuntime
from predilect.training.devices import make_fabric
from predilect.training.inference import Observation, observe_batch, only_looking
from predilect.vision.network import Network

__all__ = ["Runtime", "TorchRuntime", "open_runtime"]


class Runtime(Protocol):
    """A network that is ready to look at photographs."""

    def observe(self, squares: Tensor) -> Observation:
        """Look once at a batch.

        Args:
            squares: (B, 3, test_side, test_side) uint8, from `vision.transforms.central_square`.
        """


@dataclass(frozen=True, eq=False, slots=True)
class TorchRuntime:
    """The bundle's network in PyTorch.

    Attributes:
        fabric: Gives device and precision.
        network: See `training.inference.only_looking`.
    """

    fabric: Fabric
    network: Network

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Load a bundle's network onto the best device there is.

        Raises:
            BundleError: If its weights do not fit its recipe.
        """
        fabric = make_fabric(bundle.recipe.precision)
        return cls(fabric, only_looking(fabric, bundle.network()))

    def observe(self, squares: Tensor) -> Observation:
        """See `Runtime.observe`."""
        return observe_batch(self.fabric, self.network, squares)


def open_runtime(bundle: Bundle, named: str) -> Runtime:
    """The runtime that a user names.

    Args:
        bundle: What it is to answer for, over the views of its preprocessing.
        named: ``torch``; ``onnx``, with the model that lies in the bundle's folder; or ``onnx=FILE``.

    Raises:
        ServingError: If there is no such runtime, ONNX Runtime is not installed, or the exported model is missing, changed or
            another bundle's.
        BundleError: If the bundle's weights do not fit its recipe.
    """
    name, equals, file = named.partition("=")
    if named == "torch":
        return TorchRuntime.of(bundle)
    if name != "onnx" or (equals and not file):
        raise ServingError(f"there is no runtime {named!r}: allowed are torch, onnx and onnx=FILE, such as onnx=model.onnx")
    return OnnxRuntime.open(Path(file) if file else bundle.path / MODEL_FILE, bundle)
