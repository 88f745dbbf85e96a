"""The device that a command computes on is chosen without a word on the terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHOOSE = """
from predilect.training.devices import describe_device, make_fabric
print(describe_device(make_fabric({precision!r}))["precision"])
"""


@pytest.mark.parametrize(("precision", "said"), [("bf16", "bf16-mixed"), ("fp32", "32-true")])
def test_a_precision_is_chosen_in_silence(precision, said):
    # In a process of its own: Fabric hangs its messages onto standard error when it is first imported.
    done = subprocess.run([sys.executable, "-c", CHOOSE.format(precision=precision)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{said}\n", "")
