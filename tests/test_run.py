"""Starting a run: what cannot work fails before anything is written, and what is recorded is nobody's private business."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from predilect.errors import RecipeError, RunError
from predilect.recipe import system
from predilect.run import Run
from predilect.training import loop
from predilect.training.crossval import cross_validate, start_run
from predilect.training.devices import make_fabric
from predilect.vision.network import assemble_network


@pytest.fixture(scope="module")
def fabric():
    return make_fabric("fp32")


@pytest.fixture
def start(small_atlas, small_splits, fabric):
    def starting(path: Path, recipe, *, name="mtl", resume=False) -> Run:
        chosen = [system(name, recipe)]
        return start_run(path, small_atlas, small_splits, chosen, seeds=[1], folds=[0], fabric=fabric, command="c", resume=resume)

    return starting


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "test_resnett"}, "did you mean 'test_resnet'"),
        ({"backbone": "vit_tiny_patch16_224"}, r"the backbone vit_tiny_patch16_224 cannot take crops of 32 pixels: .*32"),
        ({"weights": "absent.safetensors"}, "no such weights file"),
    ],
)
def test_what_cannot_work_leaves_nothing_behind(tmp_path, small_recipe, start, changes, message):
    with pytest.raises(RecipeError, match=message):
        start(tmp_path / "run", small_recipe.model_copy(update=changes))
    assert list(tmp_path.iterdir()) == []


def test_other_weights_under_the_same_name_are_not_resumed(tmp_path, small_atlas, small_recipe, start):
    weights = tmp_path / "start.safetensors"
    state = {k: v.contiguous() for k, v in assemble_network(small_atlas.labels, small_recipe).backbone.state_dict().items()}
    save_file(state, weights)
    recipe = small_recipe.model_copy(update={"weights": str(weights)})
    start(tmp_path / "run", recipe)
    start(tmp_path / "run", recipe, resume=True)
    save_file({name: value * 2 for name, value in state.items()}, weights)
    with pytest.raises(RunError, match="was started with other weights"):
        start(tmp_path / "run", recipe, resume=True)


def test_a_run_holds_no_path_of_the_machine(tmp_path, small_atlas, small_recipe, start):
    weights = tmp_path / "start.safetensors"
    save_file(
        {k: v.contiguous() for k, v in assemble_network(small_atlas.labels, small_recipe).backbone.state_dict().items()}, weights
    )
    start(tmp_path / "run", small_recipe.model_copy(update={"weights": str(weights)}))
    text = (tmp_path / "run" / "run.json").read_text()
    assert str(tmp_path) not in text
    assert str(small_atlas.path) not in text
    assert json.loads(text)["systems"]["mtl"]["recipe"]["weights"] == "start.safetensors"


def test_a_validation_that_explodes_is_named_before_anything_else(
    tmp_path, small_atlas, small_splits, small_recipe, start, fabric, monkeypatch
):
    run = start(tmp_path / "run", small_recipe)
    monkeypatch.setattr(loop, "validation_losses", lambda *_: {"lesion": float("inf"), "site": 1.0})
    with pytest.raises(RunError, match="no longer finite after 4 iterations; lower learning_rate"):
        cross_validate(run, small_atlas, small_splits, [system("mtl", small_recipe)], fabric=fabric)


def test_the_folder_is_made_whole_or_not_at_all(tmp_path, small_recipe, start, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("predilect.run.write_json", full)
    with pytest.raises(RunError, match="No space left on device"):
        start(tmp_path / "run", small_recipe)
    assert not (tmp_path / "run").exists()


def test_the_cost_counts_every_finished_fold(tmp_path, small_atlas, small_splits, small_recipe, start, fabric):
    run = start(tmp_path / "run", small_recipe)
    assert run.cost() == {"device_hours": 0.0, "images_per_second": 0.0}
    cross_validate(run, small_atlas, small_splits, [system("mtl", small_recipe)], fabric=fabric)
    result = run.fold_result("mtl", 1, 0)
    assert run.cost()["device_hours"] == pytest.approx(result["seconds"] / 3600, abs=1e-6)
    assert result["images_per_second"] > 0
