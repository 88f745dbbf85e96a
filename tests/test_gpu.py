"""A training on a CUDA device: it learns, a killed one ends as one that was not, and its network says there what it says on a processor.

Some of CUDA's kernels add in no fixed order, so trainings are held to a tolerance and not to the bit.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from made_training import ALL, log_lines, train, training_data
from predilect.training import loop
from predilect.training.devices import make_fabric
from predilect.training.inference import predict

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),  # the loaders of a device are processes
]


class KilledError(Exception):
    pass


def kill(progress):
    if progress.iteration >= 5:
        raise KilledError


# In bf16 a number has 8 binary digits, in the convolutions' TF32 it has 11.
@pytest.mark.parametrize(("precision", "tolerance"), [("auto", 0.05), ("fp32", 0.01)])
def test_a_training_on_a_device(small_atlas, small_recipe, tmp_path, monkeypatch, precision, tolerance):
    device, processor = make_fabric(precision), Fabric(accelerator="cpu", devices=1, precision="32-true")
    assert device.device.type == "cuda"
    data = training_data(small_atlas)
    rows = np.arange(len(small_atlas))

    whole, fitted = train(device, small_atlas, small_recipe, tmp_path / "whole", data=data)
    scores = predict(device, whole, data.images, rows)
    losses = [line["loss"] for line in log_lines(tmp_path / "whole")]
    assert losses[-1] < losses[0]

    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    with pytest.raises(KilledError):
        train(device, small_atlas, small_recipe, tmp_path / "parts", data=data, on_progress=kill)
    resumed, again = train(device, small_atlas, small_recipe, tmp_path / "parts", data=data)
    assert again.iterations == fitted.iterations
    assert [line["loss"] for line in log_lines(tmp_path / "parts")] == pytest.approx(losses, abs=tolerance)

    same = {
        "resumed": predict(device, resumed, data.images, rows),
        "on a processor": predict(processor, deepcopy(whole).cpu(), data.images, rows),
    }
    for task in ALL:
        assert scores[task].dtype == np.float32
        assert ((scores[task] >= 0) & (scores[task] <= 1)).all()
        for what, others in same.items():
            np.testing.assert_allclose(scores[task], others[task], rtol=0, atol=tolerance, err_msg=f"{task}, {what}")
    np.testing.assert_allclose(scores["site"].sum(axis=1), 1, atol=1e-5)
