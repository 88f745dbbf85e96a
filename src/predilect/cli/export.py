"""`predilect export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from predilect.cli.show import console, counting

__all__ = ["export_command"]


def export_command(bundle: Path, /, *, out: Path | None = None, tta: Literal["center", "ten-crop"] | None = None) -> None:
    """Write a bundle as one ONNX file that takes whole photographs, for use without Predilect and without PyTorch.

    Scaling, cropping and normalisation are part of it; labels, licences and the rest of what the bundle says of its use lie in its
    metadata. It is checked against PyTorch and not written if any probability differs by more than 0.0001. Needs
    `pip install 'predilect[onnx]'`. docs/onnx.md shows a program that uses the file.

    Example: `predilect export runs/clinic/bundle --out model.onnx`

    Args:
        bundle: The bundle folder.
        out: The file to make, in the place of an earlier export; by default BUNDLE/model.onnx, where `predict --runtime onnx` looks
            for it.
        tta: Whether it looks at the centre of a photograph or at ten crops of it; by default as the bundle does.
    """
    from predilect.bundle import Bundle
    from predilect.serving.export import TOLERANCE, check_target, export_onnx
    from predilect.serving.onnx import MODEL_FILE

    if console.quiet:  # of several processes one is enough
        return
    opened, target = Bundle.open(bundle), out or bundle / MODEL_FILE
    check_target(target)
    if tta is not None:
        opened = replace(opened, preprocessing=opened.preprocessing.model_copy(update={"views": tta}))
    console.print("export    the graph is made and compared with PyTorch; this takes a minute or less")
    with counting("comparing") as tell:
        difference = export_onnx(opened, target, on_progress=tell)
    console.print(f"checked   probabilities differ from PyTorch's by at most {difference:.0e}, allowed is {TOLERANCE:.0e}")
    console.print(f"model     {target} ({target.stat().st_size / 1e6:,.0f} MB)")
