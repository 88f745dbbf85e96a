"""The command line from end to end on a small folder: what it prints, where, with which exit code, and what it repeats."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import SMALL_TAXONOMY
from made_commands import Place, leave, one_line
from predilect.evaluation.fitted_parts import PARTS
from predilect.predictions import Predictions
from predilect.training.checkpoint import Checkpoint, write_checkpoint

pytestmark = pytest.mark.usefixtures("without_figures")


def again(place: Place, *more: object) -> int:
    return leave(
        "crossval", place.atlas, "--systems", "resnet,mtl", "--recipe", place.recipe, "--out", place.run, "--resume", *more
    )


@pytest.fixture
def untrained(monkeypatch) -> None:
    """Any training fails the test."""

    def trained(*_: object, **__: object) -> None:
        pytest.fail("something was trained again")

    monkeypatch.setattr("predilect.training.crossval.fit", trained)


def test_import_split_and_crossval_print_their_tables_and_where_things_lie(place):
    assert "lesion/macule" in place.shown
    assert "36 photographs; 0 rows rejected" in place.shown
    assert f"folds     {place.atlas / 'splits.parquet'}" in place.shown
    assert re.search(
        r"^training 1 of 5: resnet seed 1 fold 0\ntraining 1 of 5 done in \d+.*; about \d+.* to go\n", place.shown, re.MULTILINE
    )
    assert re.search(r"^training 5 of 5: mtl seed 1 all groups\ntraining 5 of 5 done in \d+[^;]*\n", place.shown, re.MULTILINE)
    assert f"report    {place.run / 'report' / 'report.html'}" in place.shown
    assert f"bundle    {place.run / 'bundle'}" in place.shown
    assert {"report/report.html", "report/figures/lesions.svg", "bundle/model.safetensors"} <= place.written


def test_no_record_holds_the_folders_of_the_user(place):
    recorded = json.loads((place.run / "run.json").read_text(encoding="utf-8"))["command"]
    assert recorded == "predilect crossval atlas --systems resnet,mtl --recipe tiny.toml --out=run --refit mtl"
    for file in [place.run / "run.json", place.run / "bundle" / "bundle.json", *(place.run / "report").rglob("*.*")]:
        assert str(place.root).encode() not in file.read_bytes(), file


def test_crossval_puts_ensembles_beside_their_systems(place, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ("crossval", place.atlas, "--systems", "resnet,mtl,ensemble,ensemble-mean", "--recipe", place.recipe, "--out", run)
    assert leave(*arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in ("resnet", "mtl", "ensemble", "ensemble-mean"))
    report = json.loads((run / "report" / "report.json").read_text(encoding="utf-8"))
    assert list(report["systems"]) == ["resnet", "mtl", "ensemble", "ensemble-mean"]
    assert [name for name, scores in report["systems"].items() if scores["site"] is not None] == ["mtl"]
    pairs = {(item["system_a"], item["system_b"]) for item in report["comparisons"] if item["task"] == "lesion"}
    assert len(pairs) == 6  # each with every one before it
    tables = [Predictions.read(run / name / "seed-1" / "predictions.parquet") for name in report["systems"]]
    assert all(table.image_ids.tolist() == tables[0].image_ids.tolist() for table in tables)
    lesions = [table.scores["lesion"] for table in tables]
    np.testing.assert_array_equal(lesions[2], np.maximum(lesions[0], lesions[1]))
    np.testing.assert_allclose(lesions[3], (lesions[0] + lesions[1]) / 2, rtol=1e-6)


@pytest.mark.usefixtures("untrained")
def test_crossval_repeats_nothing_that_is_finished(place, capsys):
    assert again(place, "--refit", "mtl") == 0
    assert f"bundle    {place.run / 'bundle'}" in capsys.readouterr().out


@pytest.mark.usefixtures("untrained")
def test_crossval_does_not_pass_off_another_systems_bundle(place, capsys):
    assert again(place, "--refit", "resnet") == 1
    shown = capsys.readouterr()
    assert "holds mtl, not resnet" in one_line(shown.err)
    assert "bundle    " not in shown.out


def test_report_is_written_anew(place, capsys):
    page = place.run / "report" / "report.html"
    page.unlink()
    assert leave("report", place.run) == 0
    assert page.is_file()
    assert "mtl" in capsys.readouterr().out


def test_train_on_everything_makes_a_bundle_once(place, capsys, monkeypatch):
    out = place.root / "whole"
    arguments = ("train", place.atlas, "--recipe", place.recipe, "--out", out, "--system", "resnet")
    assert leave(*arguments) == 0
    assert f"bundle    {out / 'bundle'}" in capsys.readouterr().out
    assert leave(*arguments) == 1
    assert "--resume" in one_line(capsys.readouterr().err)
    monkeypatch.setattr("predilect.training.crossval.fit", lambda *_, **__: pytest.fail("it was trained again"))
    assert leave(*arguments, "--resume") == 0
    assert f"bundle    {out / 'bundle'}" in capsys.readouterr().out
    reasons = json.loads((out / "bundle" / "bundle.json").read_text(encoding="utf-8"))["missing"]
    assert reasons == dict.fromkeys(PARTS, "the system was trained without holding out a fold")
    assert leave("report", out) == 1
    assert "nothing was tested" in one_line(capsys.readouterr().err)


def test_train_against_one_fold_reports_it(place, capsys):
    out = place.root / "fold"
    assert leave("train", place.atlas, "--recipe", place.recipe, "--out", out, "--fold", 1, "--set", "iterations=2") == 0
    assert f"report    {out / 'report' / 'report.html'}" in capsys.readouterr().out
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["folds"] == [1]
    assert json.loads((out / "mtl" / "seed-1" / "fold-1" / "result.json").read_text(encoding="utf-8"))["iterations"] == 2


def test_crossval_splits_an_atlas_that_is_not_and_keeps_the_folds_of_one_that_is(place, tmp_path, capsys, monkeypatch):
    atlas = tmp_path / "unsplit"
    shutil.copytree(place.atlas, atlas, ignore=shutil.ignore_patterns("splits.parquet"))
    monkeypatch.setattr("predilect.cli.train.compare", lambda *_, **__: None)
    arguments = ("crossval", atlas, "--systems", "mtl", "--recipe", place.recipe, "--out", tmp_path / "run")
    assert leave(*arguments, "--folds", 0) == 2
    assert not (atlas / "splits.parquet").exists()
    assert leave(*arguments, "--folds", 3) == 0
    assert set(pl.read_parquet(atlas / "splits.parquet")["fold"]) == {0, 1, 2}
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "predilect.training.devices", None)  # torch takes seconds to load, and is not needed to refuse
    assert leave(*arguments, "--folds", 4) == 1
    assert "is split into 3" in one_line(capsys.readouterr().err)


def test_refine_shows_the_path_as_it_was_typed(place, tmp_path, capsys, monkeypatch):
    shutil.copytree(place.atlas, tmp_path / "clinic")
    monkeypatch.chdir(tmp_path)
    assert leave("refine", "clinic", "--taxonomy", "as-is") == 0
    assert "atlas     clinic\n" in capsys.readouterr().out


def test_refine_changes_the_labels_and_asks_for_new_folds(place, tmp_path, capsys):
    atlas, taxonomy = tmp_path / "atlas", tmp_path / "other.toml"
    shutil.copytree(place.atlas, atlas)
    taxonomy.write_text(SMALL_TAXONOMY.replace("drop_below = 1", "drop_below = 13"), encoding="utf-8")
    assert leave("refine", atlas, "--taxonomy", taxonomy) == 0
    assert "site/arm" in capsys.readouterr().out
    assert leave("crossval", atlas, "--systems", "mtl", "--recipe", place.recipe, "--out", tmp_path / "run") == 1
    assert "split" in one_line(capsys.readouterr().err)


def test_the_first_lines_of_a_reproduction_hold_no_folder(place, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr("predilect.cli.reproduce.run_folds", lambda *_, plan, **__: plans.append(plan))
    weights = tmp_path / "dr-x" / "w.safetensors"
    assert leave("reproduce", place.atlas, "--out", tmp_path / "new", "--systems", "mtl", "--set", f"weights={weights}") == 0
    assert "with weights=w.safetensors in every recipe" in plans[0].notes[0]
    assert "dr-x" not in "".join(plans[0].notes)


def test_resuming_what_was_never_started_starts_it_and_says_so(place, tmp_path, capsys):
    given = ("train", place.atlas, "--recipe", place.recipe, "--out", tmp_path / "run", "--system", "resnet")
    assert leave(*given, "--resume") == 0
    shown = capsys.readouterr().out
    assert f"resume    {tmp_path / 'run'} holds no run yet: nothing to resume, it starts from the beginning\n" in shown
    assert f"bundle    {tmp_path / 'run' / 'bundle'}" in shown
    assert leave(*given, "--resume") == 0
    assert "nothing to resume" not in capsys.readouterr().out


def test_a_lost_checkpoint_is_told_of_and_nothing_is_overwritten(place, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(place.run, run)
    folder = run / "mtl" / "seed-1" / "fold-1"
    (folder / "result.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert again(replace(place, run=run), "--refit", "mtl") == 1
    told = one_line(capsys.readouterr().err)
    assert f"{folder / 'checkpoint' / 'state.safetensors'}: there is no such file" in told
    assert f"remove {folder} to start this training again" in told
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == before
    shutil.rmtree(folder)
    assert again(replace(place, run=run), "--refit", "mtl") == 0
    assert (folder / "predictions.parquet").read_bytes() == before[folder / "predictions.parquet"]


def edited(folder: Path) -> None:
    (folder / "checkpoint" / "state.safetensors").write_bytes((folder / "checkpoint" / "weights.safetensors").read_bytes()[:-1])


def foreign(folder: Path) -> None:
    write_checkpoint(folder / "checkpoint" / "state.safetensors", Checkpoint("of another training", {}, {}))


@pytest.mark.parametrize("spoil", [edited, foreign])
@pytest.mark.parametrize("name", ["fold-1", "refit"])
def test_a_checkpoint_that_cannot_be_used_is_told_of_and_nothing_is_overwritten(place, tmp_path, capsys, name, spoil):
    run = tmp_path / "run"
    shutil.copytree(place.run, run)
    folder = run / "mtl" / "seed-1" / name
    (folder / "result.json").unlink()
    (folder / "log.jsonl").unlink()  # as after a kill between the first checkpoint and the log
    spoil(folder)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    for _ in range(2):
        assert again(replace(place, run=run), "--refit", "mtl") == 1
        assert f"remove {folder} to start this training again" in one_line(capsys.readouterr().err)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == before
