"""Two processes that share each batch must train as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

# Run by one process, or by each of several under torchrun: trains and keeps the weights with which it ended.
SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from predilect.atlas.folder import Atlas
from predilect.recipe import Recipe
from predilect.training.data import TrainingData
from predilect.training.devices import make_fabric
from predilect.training.loop import fit
from predilect.vision.network import build_network

atlas, recipe, out = Atlas.open(Path(sys.argv[1])), Recipe.open(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
fabric = make_fabric(recipe.precision)
assert fabric.world_size == int(sys.argv[4])
truth = atlas.truth(None)
data = TrainingData(
    images=atlas.images(),
    labels={task: torch.from_numpy(values.copy()) for task, values in truth.values.items()},
    train_rows=np.arange(24),
    validation_rows=np.arange(24, 36),
)
network = build_network(atlas.labels, recipe, 1)
fit(fabric, network, data, recipe, seed=1, folder=out, identity="i")
weights = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
save_file(weights, out / f"rank-{fabric.global_rank}.safetensors")
"""


def train(command, atlas, recipe, out, processes):
    (out.parent / "script.py").write_text(SCRIPT)
    out.mkdir()
    done = subprocess.run(
        [sys.executable, *command, out.parent / "script.py", atlas, recipe, out, str(processes)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def written(recipe, path: Path) -> Path:
    """The recipe as TOML: all that differs from what a recipe has by itself."""
    values = recipe.model_dump(mode="json", exclude_defaults=True)
    tables = {key: values.pop(key) for key in list(values) if isinstance(values[key], dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_two_processes_train_as_one_does(small_atlas, small_recipe, tmp_path):
    # Running statistics would be those of half a batch; frozen, only the order of sums differs.
    changes = {
        "batchnorm": "frozen",
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "iterations": 3,
        "validate_every": 1,
        "average_decay": 0.5,
    }
    recipe = written(small_recipe.model_copy(update={**changes, "accumulate": 2, "keep": "last"}), tmp_path / "recipe.toml")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = train([], small_atlas.path, recipe, tmp_path / "one", 1)
    shared = train(torchrun, small_atlas.path, recipe, tmp_path / "two", 2)
    assert [line["iteration"] for line in shared] == [1, 2, 3]
    for one, two in zip(alone, shared, strict=True):
        for kind in ("losses", "validation_losses"):
            assert two[kind] == pytest.approx(one[kind], rel=1e-5)
        assert (two["loss"], two["validation_loss"]) == pytest.approx((one["loss"], one["validation_loss"]), rel=1e-5)
    (single,) = (load_file(path) for path in sorted((tmp_path / "one").glob("rank-*")))
    first, second = (load_file(path) for path in sorted((tmp_path / "two").glob("rank-*")))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    for name, value in single.items():
        np.testing.assert_allclose(first[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
