"""A bundle as one ONNX file: from whole photographs to probabilities, and checked against PyTorch before it is written.

The graph takes uint8 RGB photographs (B, H, W, 3), makes the central square and its views, normalises, and gives the probabilities of
each task and the embedding, averaged over the views, and the feature map of the centre view. What is needed to understand them lies
in the file's metadata.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from predilect.atlas.jpeg import encode
from predilect.bundle import Bundle
from predilect.errors import BundleError, ServingError
from predilect.files import read_json, replacing, try_file
from predilect.recipe import Preprocessing
from predilect.report.wording import INTENDED_USE
from predilect.serving.onnx import (
    EMBEDDING,
    ENDING,
    FEATURE_MAP,
    PHOTOGRAPHS,
    SCHEMA_VERSION,
    OnnxRuntime,
    extra,
    is_sealed_model,
    seal_model,
)
from predilect.serving.square import CentralSquare
from predilect.training.inference import observe_batch
from predilect.vision.losses import probabilities
from predilect.vision.network import Network
from predilect.vision.transforms import central_square, decode, normalise, views

__all__ = ["TOLERANCE", "check_target", "export_onnx"]

TOLERANCE = 1e-4
"""The largest difference from PyTorch that an export may have: in any probability, and in embeddings and feature maps as a share of
their largest value."""

_OPSET = 18
_SQUARES = (1, 2, 5)  # batch sizes of the check
_MAX_BYTES = 2**31 - 2**24  # of the weights: a protocol buffer ends at 2 GiB
# Of bundle.json; an exported model has no index to hold distances against.
_NOT_CARRIED = frozenset({"schema_version", "files", "recipe", "provenance", "novelty", "missing", "sha256"})


def export_onnx(bundle: Bundle, out: Path, *, on_progress: Callable[[int, int], None] | None = None) -> float:
    """Write a bundle as an ONNX file, if it answers as PyTorch does; else nothing is written.

    The check shows both the same drawn photographs: squares in batches of 1, 2 and 5, and others that are to be scaled down and up.

    Args:
        bundle: What to export, over the views of its preprocessing.
        out: The file to make; it must be absent, or an earlier export, which is replaced.
        on_progress: Told how many of the parts of the work are done.

    Returns:
        The largest difference in any probability.

    Raises:
        ServingError: If a package is missing, `out` has another ending or is something else, the backbone cannot be exported, or differs by more than
            `TOLERANCE`.
        BundleError: If the weights do not fit the recipe.
        DiskError: If the file cannot be written.
    """
    check_target(out)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        extra(package)
    network = bundle.network()
    data = seal_model(_exported(bundle, network))
    difference = _check(OnnxRuntime.load(data, out), network, bundle.path, on_progress or (lambda _done, _total: None))
    with replacing(out) as temporary:
        temporary.write_bytes(data)
    return difference


def check_target(out: Path) -> None:
    """Refuse, before any work, a file to export to that has another ending, is something else or cannot be written.

    Raises:
        ServingError: If it has another ending or is there and no exported model.
        DiskError: If it cannot be written.
    """
    if out.exists() and not (out.is_file() and is_sealed_model(out.read_bytes())):
        raise ServingError(f"{out} already exists and is no exported model; choose another file or remove it")
    if out.suffix != ENDING:
        raise ServingError(f"--out {out}: the name of an exported model ends in {ENDING}")
    try_file(out)


class _Graph(nn.Module):
    """A network with all that stands before and after it, as it is exported."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.square = CentralSquare(network.preprocessing.test_side)
        self.network = network

    def forward(self, photographs: Tensor) -> tuple[Tensor, ...]:
        preprocessing = self.network.preprocessing
        assert preprocessing.mean is not None
        assert preprocessing.std is not None
        crops = views(self.square(photographs), preprocessing)  # (V, B, 3, crop, crop)
        output = self.network(normalise(crops.flatten(0, 1), preprocessing.mean, preprocessing.std))
        averaged = [
            values.unflatten(0, (len(crops), -1)).mean(dim=0)
            for values in (*probabilities(output.logits).values(), output.embedding)
        ]
        if output.feature_map is None:
            return tuple(averaged)
        return *averaged, output.feature_map.unflatten(0, (len(crops), -1))[(len(crops) - 1) // 2]


def _exported(bundle: Bundle, network: Network) -> bytes:
    """The ONNX file of a bundle's network."""
    if sum(value.nbytes for value in network.state_dict().values()) > _MAX_BYTES:
        raise ServingError(f"{bundle.path} was not exported: it has more than 2 GB of weights, and one ONNX file holds no more")
    side = network.preprocessing.test_side
    example = torch.zeros(2, side + 5, side + 9, 3, dtype=torch.uint8)
    graph = _Graph(network).eval()
    with torch.no_grad():
        n_outputs = len(graph(example))
    axes = {axis: torch.export.Dim(name, min=1) for axis, name in enumerate(("batch", "height", "width"))}
    try:
        with _without_traces():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=[PHOTOGRAPHS],
                output_names=[*network.labels.names, EMBEDDING, FEATURE_MAP][:n_outputs],
                dynamic_shapes={PHOTOGRAPHS: axes},
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ServingError(
            f"{bundle.path} was not exported: torch cannot trace the backbone {bundle.recipe.backbone}: {reason}"
        ) from error
    assert program is not None
    model = program.model
    # Beside what the exporter notes of each node lie lines of source code with the paths of this machine.
    importlib.import_module("onnx_ir.passes.common").ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version, model.graph.name = "predilect", version("predilect"), "predilect"
    model.metadata_props.update(_metadata(bundle))
    data: bytes = program.model_proto.SerializeToString()
    return data


@contextmanager
def _without_traces() -> Iterator[None]:
    """Keep back the pages of traced code that torch prints before it raises an error; what it says without one is passed on."""
    guards, said = logging.getLogger("torch.fx.experimental.symbolic_shapes"), io.StringIO()
    level = guards.level
    guards.setLevel(logging.ERROR)  # it warns of what the error then says
    try:
        with redirect_stderr(said):
            yield
        sys.stderr.write(said.getvalue())
    finally:
        guards.setLevel(level)


def _metadata(bundle: Bundle) -> dict[str, str]:
    """What a bundle says of its use, text as it is and all else as JSON."""
    info = read_json(bundle.path / "bundle.json", BundleError)
    told = {
        "schema_version": SCHEMA_VERSION,
        "model": bundle.model,
        **{key: value for key, value in info.items() if key not in _NOT_CARRIED},
        "preprocessing": bundle.preprocessing.model_dump(mode="json"),
        "sources": bundle.provenance["sources"],
        "intended_use": INTENDED_USE,
    }
    return {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in told.items()}


def _check(runtime: OnnxRuntime, network: Network, path: Path, tell: Callable[[int, int], None]) -> float:
    """Compare a runtime with a network in PyTorch on the processor in fp32; the largest difference in any probability."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    trials = [*_trials(network.preprocessing)]
    largest = 0.0
    for done, (photographs, squares) in enumerate(trials):
        tell(done, len(trials))
        found, expected = runtime.observe_photographs(photographs), observe_batch(fabric, network, squares)
        differences = {
            f"the probabilities of {task}": _apart(found.scores[task], scores) for task, scores in expected.scores.items()
        }
        largest = max(largest, *differences.values())
        differences["embeddings"] = _apart(found.embedding, expected.embedding) / float(expected.embedding.abs().max())
        if expected.feature_map is not None:
            assert found.feature_map is not None
            differences["feature maps"] = _apart(found.feature_map, expected.feature_map) / float(expected.feature_map.abs().max())
        for what, difference in differences.items():
            if not difference <= TOLERANCE:  # not a number is no agreement either
                raise ServingError(
                    f"{path} was not exported: {what} of ONNX Runtime differ from PyTorch's by {difference:.1e}, allowed is "
                    f"{TOLERANCE:.0e}; nothing was written"
                )
    tell(len(trials), len(trials))
    return largest


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


def _trials(preprocessing: Preprocessing) -> Iterator[tuple[NDArray[np.uint8], Tensor]]:
    """Drawn photographs (B, H, W, 3) with their central squares (B, 3, side, side), made in the ordinary way."""
    rng, side = np.random.default_rng(0), preprocessing.test_side
    for n in _SQUARES:
        drawn = np.stack([_drawn(rng, side, side) for _ in range(n)])
        yield drawn, torch.from_numpy(drawn).permute(0, 3, 1, 2)
    # Below twice the side the JPEG decoder leaves out nothing, so that the file's own pixels are what is resized.
    for n, shorter in ((1, side * 3 // 2), (2, side * 3 // 4)):
        files = [encode(_drawn(rng, shorter, shorter * 4 // 3)).data for _ in range(n)]
        photographs = np.stack([np.asarray(decode(data, shorter)) for data in files])
        yield photographs, torch.from_numpy(np.stack([central_square(data, preprocessing) for data in files]))


def _drawn(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Something with areas, edges and grain as a photograph has them."""
    areas = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pixels: NDArray[np.uint8] = np.clip(np.asarray(areas) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    return pixels
