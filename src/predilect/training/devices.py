"""Which device computes, and in what precision."""

from __future__ import annotations

import logging
import os
import platform
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

__all__ = ["computes_bf16", "describe_device", "make_fabric"]

# The first process alone tests folds and writes, which may take long, while the others wait for it, by default for 30 minutes. Where a
# process dies torchrun ends the others; where a device hangs, all wait as long as this.
_WAITING = timedelta(hours=6)


def make_fabric(precision: Literal["auto", "bf16", "fp32"]) -> Fabric:
    """A launched Fabric on the best device there is; on several under torchrun.

    Args:
        precision: Of the backbone; ``auto`` is bf16 where the device has instructions for it, else fp32.
    """
    on_gpu = torch.cuda.is_available()
    bf16 = precision == "bf16" or (precision == "auto" and computes_bf16())
    many = torch.distributed.is_torchelastic_launched()
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if many else 1
    # Fabric greets with its precision on standard error, amid what a command says itself; run.json has it.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator="cuda" if on_gpu else "cpu",
        devices=local,
        num_nodes=int(os.environ["WORLD_SIZE"]) // local if many else 1,
        strategy=DDPStrategy(timeout=_WAITING) if many else "auto",
        precision="bf16-mixed" if bf16 else "32-true",
    )
    # The same seed must give the same weights on the same device.
    torch.backends.cudnn.deterministic = True
    fabric.launch()
    return fabric


def describe_device(fabric: Fabric) -> dict[str, str | int]:
    """What a report says of the machine: device, threads or devices, precision."""
    name = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else _processor()
    return {
        "device": name,
        "devices": fabric.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(fabric.strategy.precision.precision),
    }


def computes_bf16() -> bool:
    """Whether the best device has instructions for bf16; one without them only emulates it, slower than fp32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 - torch offers no public question


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
