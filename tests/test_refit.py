"""A system trained once more on all groups: what is done again when its weights are gone or its folds have chosen otherwise, and what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from made_commands import leave, one_line
from predilect.files import seal
from predilect.run import Run
from predilect.run.record import read_record, write_record
from predilect.training import crossval

pytestmark = pytest.mark.usefixtures("without_figures")

WEIGHTS, STATE = "checkpoint/weights.safetensors", "checkpoint/state.safetensors"


class KilledError(Exception):
    pass


def killed(*_: object) -> NoReturn:
    raise KilledError


def remove_weights(run: Path) -> None:
    (run / "mtl" / "seed-1" / "refit" / WEIGHTS).unlink()


def choose_otherwise(run: Path) -> None:
    """The folds' results as if their weights of the second iteration had been kept."""
    for path in (run / "mtl" / "seed-1").glob("fold-*/result.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        del result["sha256"]
        path.write_text(json.dumps(seal({**result, "chosen_iteration": 2})), encoding="utf-8")


REASONS = {remove_weights: 3, choose_otherwise: 2}  # and after how many iterations the refit then ends


@pytest.fixture
def run(place, tmp_path) -> Path:
    shutil.copytree(place.run, tmp_path / "run")
    return tmp_path / "run"


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def resumed(place, run: Path) -> tuple[object, ...]:
    return (
        "crossval",
        place.atlas,
        "--systems",
        "resnet,mtl",
        "--recipe",
        place.recipe,
        "--out",
        run,
        "--resume",
        "--refit",
        "mtl",
    )


def bundled(place, run: Path) -> tuple[object, ...]:
    return ("bundle", run, place.atlas, "--out", run.parent / "b")


@pytest.mark.parametrize("spoil", REASONS)
@pytest.mark.parametrize("command", [resumed, bundled])
def test_a_refit_that_no_longer_serves_is_trained_again(place, run, command, spoil):
    folder, bundle = run / "mtl" / "seed-1" / "refit", run / "bundle"
    before = (folder / WEIGHTS).read_bytes()
    model = (bundle / "model.safetensors").read_bytes()
    shutil.rmtree(bundle)
    spoil(run)
    assert leave(*command(place, run)) == 0
    made = bundle if command is resumed else run.parent / "b"
    provenance = json.loads((made / "bundle.json").read_text(encoding="utf-8"))["provenance"]
    assert (
        provenance["iterations"] == json.loads((folder / "result.json").read_text(encoding="utf-8"))["iterations"] == REASONS[spoil]
    )
    assert ((folder / WEIGHTS).read_bytes() == before) == (spoil is remove_weights)
    assert ((made / "model.safetensors").read_bytes() == model) == (spoil is remove_weights)
    assert not (folder / STATE).exists()


def test_a_bundle_of_folds_that_were_trained_again_is_not_passed_off_as_theirs(place, run, capsys):
    fold, bundle = run / "mtl" / "seed-1" / "fold-0", run / "bundle"
    shutil.rmtree(fold)
    assert leave(*resumed(place, run)) == 0  # the same training gives the same predictions
    kept = files_of(bundle)
    shutil.rmtree(fold)
    predict = crossval.predict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossval, "predict", lambda *a, **k: {task: scores[::-1] for task, scores in predict(*a, **k).items()})
        capsys.readouterr()
        assert leave(*resumed(place, run)) == 1
    shown = capsys.readouterr()
    assert "report    " in shown.out
    assert one_line(shown.err) == (
        f"error {bundle} was fitted on other predictions of mtl than {run} holds now; remove it, and give the same command again "
        "to make it anew\n"
    )
    assert files_of(bundle) == kept
    shutil.rmtree(bundle)
    assert leave(*resumed(place, run)) == 0
    assert files_of(bundle) != kept


@pytest.mark.parametrize("after", range(4))
def test_a_kill_while_an_old_refit_is_removed_leaves_one_that_is_trained_again(place, run, monkeypatch, after):
    folder = run / "mtl" / "seed-1" / "refit"
    remove_weights(run)
    unlink, removed = Path.unlink, []

    def kill(path: Path, *, missing_ok: bool = False) -> None:
        if path.is_relative_to(folder):
            if len(removed) == after:
                raise KilledError
            removed.append(path)
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        with pytest.raises(KilledError):
            leave(*bundled(place, run))
    assert Run.open(run).without_checkpoint() == []  # else no run would be gone on with
    assert leave(*bundled(place, run)) == 0
    assert (folder / WEIGHTS).read_bytes() == (place.run / "mtl" / "seed-1" / "refit" / WEIGHTS).read_bytes()


def test_a_refit_stopped_half_way_whose_length_has_changed_names_the_remedy(place, run, capsys, monkeypatch):
    folder = run / "mtl" / "seed-1" / "refit"
    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr("predilect.training.crossval.finish", killed)
        with pytest.raises(KilledError):
            leave(*bundled(place, run))
    assert (folder / STATE).is_file()
    choose_otherwise(run)
    before = files_of(folder)
    capsys.readouterr()
    assert leave(*bundled(place, run)) == 1
    told = one_line(capsys.readouterr().err)
    assert f"another recipe, seed, atlas, folds or length; remove {folder} to start this training again" in told
    assert files_of(folder) == before
    shutil.rmtree(folder)
    assert leave(*bundled(place, run)) == 0


def test_starting_weights_are_asked_for_where_those_of_the_refit_are_gone(place, run, capsys):
    info = read_record(run)
    systems = {**info["systems"]}
    systems["mtl"]["recipe"]["weights"] = "w.safetensors"
    write_record(run, {**info, "systems": systems, "weights": {"mtl": "0" * 64}})
    remove_weights(run)
    before = files_of(run)
    assert leave(*bundled(place, run)) == 1
    assert "give it by --weights test_resnet=w.safetensors" in one_line(capsys.readouterr().err)
    assert files_of(run) == before
