"""Starting a run: what cannot work fails before anything is written, and what is recorded is nobody's private business."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from safetensors.torch import save_file

from predilect.atlas.audit import Audit
from predilect.cli.train import run_folds
from predilect.errors import PredilectError, RecipeError, RunError, SplitError
from predilect.files import write_json
from predilect.locks import hold
from predilect.recipe import system
from predilect.run import ReportPlan, Run
from predilect.run import folder as run_folder
from predilect.run.progress import spent
from predilect.training import trainer
from predilect.training.checkpoint import Checkpoint, write_checkpoint
from predilect.training.crossval import cross_validate
from predilect.training.identity import refit_schedule, whole_identity
from predilect.training.material import Material
from predilect.training.start import _versions, start_run
from predilect.vision.network import assemble_network


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


def test_a_fold_from_which_a_system_cannot_learn_is_refused_before_any_training(
    tmp_path, small_atlas, small_splits, small_recipe, fabric, monkeypatch
):
    material = Material.of(small_atlas, small_splits)
    material.truth.values["site"][material.folds != 2] = -1  # so the first two folds could be trained and tested
    monkeypatch.setattr("predilect.training.start.Material.of", lambda *_: material)
    recipe = small_recipe.model_copy(update={"validation_share": 0.0})
    systems = [system(name, recipe) for name in ("resnet", "mtl", "resnet-site")]
    with pytest.raises(SplitError, match="to learn from without fold 2, none has a known label of site; label some of them"):
        start_run(
            tmp_path / "run",
            small_atlas,
            small_splits,
            systems,
            seeds=[1],
            folds=range(3),
            fabric=fabric,
            command="c",
            resume=False,
        )
    assert list(tmp_path.iterdir()) == []


def test_the_folder_that_a_command_runs_in_is_refused_before_any_work(tmp_path, small_atlas, small_recipe, start, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = r"^\. cannot be replaced while the command runs in it; give the command from another folder"
    with pytest.raises(PredilectError, match=said):
        start(Path(), small_recipe)
    monkeypatch.setattr("predilect.training.devices.make_fabric", lambda _: pytest.fail("this is work"))
    with pytest.raises(PredilectError, match=said):
        run_folds(small_atlas, [system("mtl", small_recipe)], Path(), seeds=[1], n_folds=2, plan=ReportPlan(), resume=False)
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
    monkeypatch.setattr(trainer, "validation_losses", lambda *_: {"lesion": float("inf"), "site": 1.0})
    with pytest.raises(RunError, match="no longer finite after 4 iterations; lower learning_rate"):
        cross_validate(run, small_atlas, small_splits, [system("mtl", small_recipe)], fabric=fabric)


def test_two_processes_cannot_work_on_one_run(tmp_path, small_recipe, start):
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        (tmp_path / "run").mkdir()
        os.write(ready[1], b"y" if hold(tmp_path / "run" / ".lock") is None else b"n")
        os.read(done[0], 1)
        os._exit(0)
    assert os.read(ready[0], 1) == b"y"
    (tmp_path / "run" / ".lock").rename(tmp_path / "lock")
    run = start(tmp_path / "run", small_recipe)
    before = (run.path / "run.json").read_bytes()
    (tmp_path / "lock").rename(tmp_path / "run" / ".lock")  # as if the child had come first
    with pytest.raises(RunError, match=rf"another process \({child}\) is at work on this run; wait until it ends"):
        start(tmp_path / "run", small_recipe, resume=True)
    assert (run.path / "run.json").read_bytes() == before
    os.write(done[1], b"!")
    os.waitpid(child, 0)
    start(tmp_path / "run", small_recipe, resume=True)
    for descriptor in (*ready, *done):
        os.close(descriptor)


def test_a_report_is_not_written_while_another_process_is_at_work(tmp_path, small_recipe, start):
    start(tmp_path / "run", small_recipe)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"y" if hold(tmp_path / "copy" / ".lock") is None else b"n")
        os.read(done[0], 1)
        os._exit(0)
    assert os.read(ready[0], 1) == b"y"
    with pytest.raises(RunError, match=rf"another process \({child}\) is at work on this run"):
        Run.open(tmp_path / "copy").report()
    os.write(done[1], b"!")
    os.waitpid(child, 0)
    with pytest.raises(RunError, match="is not finished"):
        Run.open(tmp_path / "copy").report()
    for descriptor in (*ready, *done):
        os.close(descriptor)


def test_no_entry_of_a_resumption_is_lost(tmp_path, small_recipe, start, monkeypatch):
    start(tmp_path / "run", small_recipe)
    held = run_folder._hold

    def hold_late(path):  # another process resumed the run, and ended, before this one got the lock
        now = Run.open(path)
        now.resumed({"plan": now.info["plan"], "versions": {"torch": "98.0"}, "machine": {}})
        held(path)

    monkeypatch.setattr(run_folder, "_hold", hold_late)
    run = start(tmp_path / "run", small_recipe, resume=True)
    assert len(run.info["resumed"]) == 2
    assert run.info["resumed"][0]["versions"] == {"torch": "98.0"}


@pytest.mark.parametrize("key", ["systems", "folds", "files", "resumed", "sha256"])
def test_a_run_of_another_version_is_one_sentence(tmp_path, small_recipe, start, key):
    path = start(tmp_path / "run", small_recipe).path / "run.json"
    info = json.loads(path.read_text())
    del info[key]
    write_json(path, info)
    sentence = f"run.json has no '{key}': another version of Predilect wrote it; the run must be made anew"
    for use in (lambda: Run.open(path.parent), lambda: start(path.parent, small_recipe, resume=True)):
        with pytest.raises(RunError, match=sentence):
            use()


def test_what_a_run_was_asked_for_cannot_be_edited_unnoticed(tmp_path, small_recipe, start):
    path = start(tmp_path / "run", small_recipe).path / "run.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info))  # another layout is no other content
    assert Run.open(path.parent).info["seeds"] == [1]
    for edited in ({"seeds": [1, 2]}, {"splits_hash": "0" * 64}, {"atlas": "another"}):
        write_json(path, {**info, **edited})
        with pytest.raises(RunError, match=r"run\.json is not what was written"):
            Run.open(path.parent)
        with pytest.raises(RunError, match=r"run\.json is not what was written"):
            start(path.parent, small_recipe, resume=True)


def test_an_edited_audit_is_not_reported(tmp_path):
    audit = Audit.read(Path(__file__).parent / "golden" / "atlas" / "audit.json")
    run = Run.start(tmp_path / "run", {"systems": {}, "seeds": [], "folds": [], "plan": {}}, None, resume=False, audit=audit)
    assert run.audit() == audit
    audit.model_copy(update={"n_photographs": audit.n_photographs + 1}).write(run.path / "audit.json")
    with pytest.raises(RunError, match=r"audit\.json is not what was written"):
        run.audit()


def test_each_resumption_is_recorded_and_another_torch_is_told_of(
    tmp_path, small_atlas, small_splits, small_recipe, start, fabric, monkeypatch
):
    run = start(tmp_path / "run", small_recipe)
    assert run.info["resumed"] == []
    run = start(tmp_path / "run", small_recipe, resume=True)
    assert run.changes() == []
    assert run.notes() == run.info["notes"]
    versions = _versions()
    monkeypatch.setattr("predilect.training.start._versions", lambda: {**versions, "torch": "99.0"})
    run = start(tmp_path / "run", small_recipe, resume=True)
    assert len(run.info["resumed"]) == 2
    assert datetime.fromisoformat(run.info["resumed"][1]["time"]).tzinfo is not None
    assert run.info["resumed"][1]["machine"] == run.info["machine"]
    assert run.info["versions"] == versions
    (change,) = run.changes()
    assert change == {"time": run.info["resumed"][1]["time"], "torch": "99.0"}
    (note,) = set(run.notes()) - set(run.info["notes"])
    assert (
        f"resumed with torch 99.0 instead of {versions['torch']}: what was trained from then on may differ in its last digits"
        in note
    )
    monkeypatch.setattr("predilect.report.report.draw_all", lambda *_: [])
    cross_validate(run, small_atlas, small_splits, [system("mtl", small_recipe)], fabric=fabric)
    run.report()
    report = json.loads((run.path / "report" / "report.json").read_text())
    assert note in report["notes"]
    assert report["provenance"]["resumed"] == [change]


def test_what_a_kill_leaves_is_removed_when_the_run_is_resumed(tmp_path, small_atlas, small_splits, small_recipe, start, fabric):
    run = start(tmp_path / "run", small_recipe)
    cross_validate(run, small_atlas, small_splits, [system("mtl", small_recipe)], fabric=fabric)
    folder = run.fold_folder("mtl", 1, 0)
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    (folder / "checkpoint" / ".writing-abc").mkdir()
    (folder / "checkpoint" / ".writing-abc" / "state.safetensors").write_text("half")
    (folder / "checkpoint" / "state.safetensors").write_text("of a training that has ended")
    unfinished = run.seed_folder("mtl", 1) / "refit"
    (unfinished / "checkpoint").mkdir(parents=True)
    (unfinished / "log.jsonl").touch()
    identity = whole_identity(run.info, system("mtl", small_recipe), "refit", refit_schedule(run, "mtl"))
    write_checkpoint(unfinished / "checkpoint" / "state.safetensors", Checkpoint(identity, {}, {}))  # of one that goes on
    start(tmp_path / "run", small_recipe, resume=True)
    left = sorted(path for path in run.path.rglob("*") if path.is_file() and not path.is_relative_to(unfinished))
    assert left == files
    assert (unfinished / "checkpoint" / "state.safetensors").is_file()


def test_a_lost_checkpoint_is_told_of(tmp_path, small_recipe, start):
    run = start(tmp_path / "run", small_recipe)
    folder = run.fold_folder("mtl", 1, 0)
    folder.mkdir(parents=True)
    assert run.without_checkpoint() == []
    (folder / "log.jsonl").touch()
    assert run.without_checkpoint() == [folder]
    (folder / "result.json").touch()
    assert run.without_checkpoint() == []


def test_another_atlas_and_other_folds_are_not_resumed(tmp_path, small_atlas, small_splits, small_recipe, start, fabric):
    start(tmp_path / "run", small_recipe)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    others = [
        (replace(small_atlas, content_hash="0" * 64), replace(small_splits, content_hash="0" * 64), "the atlas is another one, or has changed"),
        (small_atlas, replace(small_splits, folds=(small_splits.folds + 1) % 3), "was started with other folds"),
    ]  # fmt: skip
    chosen = [system("mtl", small_recipe)]
    for atlas, splits, message in others:
        with pytest.raises(RunError, match=message):
            start_run(tmp_path / "run", atlas, splits, chosen, seeds=[1], folds=[0], fabric=fabric, command="c", resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_the_folder_is_made_whole_or_not_at_all(tmp_path, small_recipe, start, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("predilect.run.record.write_json", full)
    with pytest.raises(RunError, match="No space left on device"):
        start(tmp_path / "run", small_recipe)
    assert not (tmp_path / "run").exists()


def test_the_cost_counts_every_finished_fold(tmp_path, small_atlas, small_splits, small_recipe, start, fabric):
    run = start(tmp_path / "run", small_recipe)
    assert run.cost() == {"trainings": 0, "device_hours": 0.0, "images_per_second": 0.0, "by_system": {}}
    cross_validate(run, small_atlas, small_splits, [system("mtl", small_recipe)], fabric=fabric)
    result = run.fold_result("mtl", 1, 0)
    cost = run.cost()
    assert cost["device_hours"] == pytest.approx(result["seconds"] / 3600, abs=1e-6)
    assert cost["images_per_second"] == pytest.approx(result["images_per_second"], abs=0.01)
    assert cost["images_per_second"] > 0
    assert cost["by_system"] == {"mtl": {key: cost[key] for key in ("trainings", "device_hours", "images_per_second")}}


def test_the_speed_of_several_systems_is_photographs_by_seconds():
    slow, fast = ({"iterations": 100, "images_per_second": speed, "seconds": 50.0, "devices": 2} for speed in (2.0, 8.0))
    told = spent([(slow, 1), (fast, 4)])  # 100 photographs in 50 s, 400 in 50 s
    assert told == {"trainings": 2, "device_hours": round(200 / 3600, 6), "images_per_second": 5.0}


def test_a_folder_that_is_not_there_is_told_from_one_that_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"^there is no folder \S*absent$"):
        Run.open(tmp_path / "absent")
    with pytest.raises(RunError, match="is not a run: it holds no run"):
        Run.open(tmp_path)
