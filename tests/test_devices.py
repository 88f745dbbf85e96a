"""The device that a command computes on is chosen without a word on the terminal, and several processes wait for one another."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHOOSE = """
from predilect.training.devices import describe_device, make_fabric
print(describe_device(make_fabric({precision!r}))["precision"])
"""
# Says how long the group of processes will wait, and goes no further.
WAIT = """
import sys
import torch

torch.distributed.init_process_group = lambda *_, timeout, **__: sys.exit(f"waits {timeout.total_seconds() / 3600:.0f} hours")

from predilect.training.devices import make_fabric
make_fabric("fp32")
"""
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "a run",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2"),
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK"), "0"),
}


@pytest.mark.parametrize(("precision", "said"), [("bf16", "bf16-mixed"), ("fp32", "32-true")])
def test_a_precision_is_chosen_in_silence(precision, said):
    # In a process of its own: Fabric hangs its messages onto standard error when it is first imported.
    done = subprocess.run([sys.executable, "-c", CHOOSE.format(precision=precision)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{said}\n", "")


def test_processes_wait_for_the_first_one_longer_than_it_may_take_to_test():
    environment = {**os.environ, **TORCHRUN, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", WAIT], capture_output=True, text=True, check=False, env=environment)
    assert done.stderr.endswith("waits 6 hours\n")
