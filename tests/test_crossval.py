import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from conftest import SMALL_TAXONOMY, small_folder
from made_run import scores_of_files
from predilect.atlas.build import build_atlas
from predilect.atlas.importers import SOURCES
from predilect.atlas.splits import make_splits
from predilect.bundle import Bundle, write_bundle
from predilect.errors import BundleError, LabelError, PredilectError, RunError, SplitError
from predilect.files import seal
from predilect.labels.taxonomy import Taxonomy
from predilect.predictions import Predictions
from predilect.recipe import system
from predilect.run import Run
from predilect.training.crossval import cross_validate, refit, train_whole
from predilect.training.inference import observe_batch
from predilect.training.material import Material
from predilect.training.start import start_run

NAMES = ("resnet", "resnet-site", "mtl")


def run_all(path, atlas, splits, recipe, fabric, *, names=NAMES, seeds=(1,), resume=False, on_progress=None):
    systems = [system(name, recipe) for name in names]
    run = start_run(
        path, atlas, splits, systems, seeds=seeds, folds=range(splits.k), fabric=fabric, command="predilect crossval", resume=resume
    )
    cross_validate(run, atlas, splits, systems, fabric=fabric, on_progress=on_progress)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_atlas, small_splits, small_recipe, fabric):
    return run_all(tmp_path_factory.mktemp("runs") / "run", small_atlas, small_splits, small_recipe, fabric)


def test_every_photograph_is_predicted_once_by_the_fold_that_did_not_see_it(finished, small_atlas, small_splits):
    tables = finished.predictions()
    assert list(tables) == list(NAMES)
    assert tables["resnet"].labels.names == ("lesion",)
    assert tables["resnet-site"].labels.names == ("site",)
    assert tables["mtl"].labels == small_atlas.labels
    expected = dict(zip(small_splits.image_ids.tolist(), small_splits.folds.tolist(), strict=True))
    for table in tables.values():
        assert dict(zip(table.image_ids.tolist(), table.folds.tolist(), strict=True)) == expected
        assert set(table.seeds.tolist()) == {1}


def test_no_group_of_the_test_fold_or_of_the_slice_is_trained_on(small_atlas, small_splits, small_recipe):
    material = Material.of(small_atlas, small_splits)
    for fold in range(3):
        data = material.training_data(small_atlas.labels, fold, 0.2)
        parts = [data.train_rows, data.validation_rows, np.flatnonzero(material.folds == fold)]
        groups = [set(material.truth.groups[rows].tolist()) for rows in parts]
        assert all(groups)
        assert not groups[0] & groups[1]
        assert not groups[2] & (groups[0] | groups[1])
        assert sum(map(len, parts)) == len(small_atlas)


@pytest.mark.parametrize(
    ("held_out", "share", "known", "said"),
    [
        (0, 0.2, "none", "photographs to learn from without fold 0, none has a known label of site; label some of them"),
        (0, 0.0, "fold 0", "photographs to learn from without fold 0, none has a known label of site; label some of them"),
        (None, 0.0, "none", "36 photographs to learn from, none has a known label of site; label some of them"),
        (
            0,
            0.2,
            "learnt from",
            "photographs to watch the training without fold 0, none has a known label of site; make fewer folds or",
        ),
        (
            None,
            0.2,
            "learnt from",
            "photographs to watch the training, none has a known label of site; take another validation_share",
        ),
    ],
)
def test_a_part_of_a_training_without_any_known_label_is_refused(
    small_atlas, small_splits, monkeypatch, held_out, share, known, said
):
    material = Material.of(small_atlas, small_splits)
    data = material.training_data(small_atlas.labels, held_out, share)
    # The slice is drawn by the labels, and is to stay where it is when they go.
    sliced = np.isin(np.flatnonzero(material.folds != held_out), data.validation_rows)
    monkeypatch.setattr("predilect.training.material.training_slice", lambda *_, **__: sliced)
    keeping = {"none": [], "fold 0": np.flatnonzero(material.folds == 0), "learnt from": data.train_rows}[known]
    material.truth.values["site"][np.setdiff1d(np.arange(len(small_atlas)), keeping)] = -1
    with pytest.raises(SplitError, match=said):
        material.training_data(small_atlas.labels.restricted_to(["site"]), held_out, share)
    assert len(material.training_data(small_atlas.labels, held_out, share).train_rows) == len(data.train_rows)


def test_the_same_seed_predicts_the_same_bytes(finished, tmp_path, small_atlas, small_splits, small_recipe, fabric):
    run_all(tmp_path / "again", small_atlas, small_splits, small_recipe, fabric, names=("mtl",))
    first, again = (path / "mtl" / "seed-1" / "predictions.parquet" for path in (finished.path, tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


def test_a_stopped_run_repeats_nothing_finished(finished, tmp_path, small_atlas, small_splits, small_recipe, fabric):
    class StoppedError(Exception):
        pass

    def stop(name, _seed, fold, progress):
        if (name, fold, progress.iteration) == ("mtl", 1, 4):
            raise StoppedError

    with pytest.raises(StoppedError):
        run_all(tmp_path / "run", small_atlas, small_splits, small_recipe, fabric, names=("resnet", "mtl"), on_progress=stop)
    told = []
    run = run_all(
        tmp_path / "run", small_atlas, small_splits, small_recipe, fabric, names=("resnet", "mtl"), resume=True,
        on_progress=lambda name, seed, fold, progress: told.append((name, fold)),
    )  # fmt: skip
    assert set(told) == {("mtl", 1), ("mtl", 2)}
    for name in ("resnet", "mtl"):
        np.testing.assert_array_equal(run.predictions()[name].scores["lesion"], finished.predictions()[name].scores["lesion"])


def test_a_run_is_not_overwritten_nor_resumed_as_another(finished, small_atlas, small_splits, small_recipe, fabric, tmp_path):
    before = (finished.path / "run.json").read_bytes()
    with pytest.raises(RunError, match="already holds a run; add --resume"):
        run_all(finished.path, small_atlas, small_splits, small_recipe, fabric)
    with pytest.raises(RunError, match=r"other seeds \(\[1\], now \[1, 2\]\)"):
        run_all(finished.path, small_atlas, small_splits, small_recipe, fabric, seeds=(1, 2), resume=True)
    other = small_recipe.model_copy(update={"iterations": 13})
    with pytest.raises(RunError, match=r"other settings \(resnet\.recipe\.iterations 12, now 13\)"):
        run_all(finished.path, small_atlas, small_splits, other, fabric, resume=True)
    assert (finished.path / "run.json").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is no run"):
        run_all(tmp_path, small_atlas, small_splits, small_recipe, fabric)


def test_an_unfinished_run_has_no_report(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    (tmp_path / "run" / "mtl" / "seed-1" / "fold-1" / "result.json").unlink()
    with pytest.raises(RunError, match=r"fold-1 is not finished; go on with the run by --resume"):
        Run.open(tmp_path / "run").report()


def test_a_report_looks_at_the_runs_own_files_before_it_resamples(finished, tmp_path, monkeypatch):
    shutil.copytree(finished.path, tmp_path / "run")
    monkeypatch.setattr("predilect.run.folder.measure", lambda *_, **__: pytest.fail("it resampled first"))
    run = Run.open(tmp_path / "run")
    files = {**run.info["files"], "audit.json": "0" * 64}
    with pytest.raises(RunError, match=r"audit\.json: there is no such file; the run must be made anew"):
        replace(run, info={**run.info, "files": files}).report()


def flip(path, at=-9):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["predictions.parquet", "result.json", "log.jsonl", "checkpoint/weights.safetensors"])
def test_an_edited_file_of_a_finished_fold_is_not_reported_nor_gathered(finished, tmp_path, name):
    shutil.copytree(finished.path, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    folder = run.fold_folder("mtl", 1, 2)
    if name == "result.json":
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace('"n_train": ', '"n_train": 1'))
    else:
        flip(folder / name)
    remedy = re.escape(f"{folder / name} is not what was written (its checksum differs); remove {folder} and --resume")
    table = (folder.parent / "predictions.parquet").read_bytes()
    for use in (run.report, lambda: run.gather("mtl", 1)):
        with pytest.raises(RunError, match=remedy):
            use()
    assert (folder.parent / "predictions.parquet").read_bytes() == table


def test_a_fold_may_lose_its_weights_but_not_its_predictions(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    (run.fold_folder("mtl", 1, 0) / "checkpoint" / "weights.safetensors").unlink()
    assert len(run.predictions()["mtl"]) == 36
    (run.fold_folder("mtl", 1, 0) / "predictions.parquet").unlink()
    with pytest.raises(RunError, match=r"no such file; remove .*fold-0 and --resume"):
        run.predictions()


def test_a_truncated_result_names_the_remedy(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    result = tmp_path / "run" / "mtl" / "seed-1" / "fold-0" / "result.json"
    result.write_bytes(result.read_bytes()[:20])
    with pytest.raises(RunError, match=r"result\.json cannot be read: .*; remove .*fold-0 and --resume"):
        Run.open(tmp_path / "run").predictions()


def test_a_fold_without_its_log_is_not_reported(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    (tmp_path / "run" / "mtl" / "seed-1" / "fold-0" / "log.jsonl").unlink()
    with pytest.raises(RunError, match=r"log\.jsonl: there is no such file; remove .*fold-0 and --resume"):
        Run.open(tmp_path / "run").predictions()


@pytest.mark.parametrize("edit", ['"seconds": NaN', '"seconds": "\\ud800"'])
def test_a_result_that_no_seal_can_be_made_for_is_changed(finished, tmp_path, edit):
    shutil.copytree(finished.path, tmp_path / "run")
    result = tmp_path / "run" / "mtl" / "seed-1" / "fold-0" / "result.json"
    result.write_text(re.sub(r'"seconds": [0-9.]+', lambda _: edit, result.read_text()))
    with pytest.raises(RunError, match="is not what was written"):
        Run.open(tmp_path / "run").predictions()


def test_an_edited_fold_is_trained_again_once_it_is_removed(finished, tmp_path, small_atlas, small_splits, small_recipe, fabric):
    shutil.copytree(finished.path, tmp_path / "run")
    path = tmp_path / "run" / "mtl" / "seed-1" / "fold-0" / "predictions.parquet"
    flip(path)
    with pytest.raises(RunError, match=r"remove .*fold-0 and --resume"):
        run_all(tmp_path / "run", small_atlas, small_splits, small_recipe, fabric, resume=True)
    shutil.rmtree(path.parent)
    run = run_all(tmp_path / "run", small_atlas, small_splits, small_recipe, fabric, resume=True)
    np.testing.assert_array_equal(run.predictions()["mtl"].scores["lesion"], finished.predictions()["mtl"].scores["lesion"])


def test_an_edited_truth_is_not_scored_against(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    table = pl.read_parquet(tmp_path / "run" / "truth.parquet")
    table.with_columns(pl.col("lesion/crust").reverse()).write_parquet(tmp_path / "run" / "truth.parquet")
    with pytest.raises(RunError, match=r"truth\.parquet is not what was written"):
        Run.open(tmp_path / "run").report()


def test_the_report_of_a_run_is_written(finished):
    evaluation = finished.report()
    assert set(evaluation.systems) == set(NAMES)
    written = json.loads((finished.path / "report" / "report.json").read_text())
    assert written["systems"]["mtl"]["lesion"]["map_class"] == evaluation.systems["mtl"].lesion.map_class
    assert written["provenance"]["command"] == "predilect crossval"
    assert (finished.path / "report" / "report.html").stat().st_size > 10_000


def test_unknown_folds_and_missing_tasks_are_named(tmp_path, small_atlas, small_splits, small_recipe, fabric):
    mtl = system("mtl", small_recipe)
    with pytest.raises(SplitError, match="has no fold 7: allowed are 0, 1, 2"):
        start_run(tmp_path / "a", small_atlas, small_splits, [mtl], seeds=[1], folds=[7], fabric=fabric, command="", resume=False)
    atlas, splits = atlas_without_sites(tmp_path)
    with pytest.raises(LabelError, match="no task 'site'"):
        run_all(tmp_path / "b", atlas, splits, small_recipe, fabric, names=("resnet", "mtl"))
    assert not (tmp_path / "b").exists()


def atlas_without_sites(root):
    (root / "photographs").mkdir()
    folder = small_folder(root / "photographs", n=6)
    pl.read_csv(folder / "metadata.csv").drop("site").write_csv(folder / "metadata.csv")
    atlas = build_atlas(SOURCES["imagefolder"](folder), Taxonomy.from_toml(SMALL_TAXONOMY, "small"), root / "atlas")
    return atlas, make_splits(atlas.photos, atlas.labels.columns, folds=3, seed=0, content_hash=atlas.content_hash)


def test_a_refit_becomes_a_bundle_that_predicts(finished, tmp_path, small_atlas, small_splits, small_recipe, fabric):
    trained = refit(finished, small_atlas, small_splits, system("mtl", small_recipe), fabric=fabric)
    chosen = sorted(finished.fold_result("mtl", 1, fold)["chosen_iteration"] for fold in range(3))
    assert trained.provenance["iterations"] == chosen[1]
    assert trained.provenance["n_images"] == len(small_atlas)
    bundle = write_bundle(tmp_path / "bundle", trained)
    network = bundle.network()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in trained.network.state_dict().items())
    assert bundle.preprocessing.mean == (0.5, 0.5, 0.5)
    path = tmp_path / "p.jpg"
    path.write_bytes(bytes(small_atlas.images()[0]))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no photograph")
    results = scores_of_files(partial(observe_batch, fabric, network), bundle.preprocessing, [path, tmp_path / "broken.jpg"])
    assert results[path]["lesion"].shape == (3,)
    assert results[path]["site"].sum() == pytest.approx(1, abs=1e-5)
    assert isinstance(results[tmp_path / "broken.jpg"], str)
    with pytest.raises(PredilectError, match="already exists"):
        write_bundle(tmp_path / "bundle", trained)


def test_training_on_everything_keeps_a_slice_aside(tmp_path, small_atlas, small_splits, small_recipe, fabric):
    chosen = system("resnet", small_recipe)
    run = start_run(
        tmp_path / "run", small_atlas, small_splits, [chosen], seeds=[1], folds=[], fabric=fabric, command="", resume=False
    )
    trained = train_whole(run, small_atlas, small_splits, chosen, fabric=fabric)
    assert trained.network.labels.names == ("lesion",)
    assert 0 < trained.provenance["n_images"] < len(small_atlas)


@pytest.fixture
def bundle_path(finished, tmp_path, small_atlas, small_splits, small_recipe, fabric):
    write_bundle(tmp_path / "b", refit(finished, small_atlas, small_splits, system("mtl", small_recipe), fabric=fabric))
    return tmp_path / "b"


def test_a_changed_bundle_is_refused(bundle_path):
    model, info = bundle_path / "model.safetensors", bundle_path / "bundle.json"
    whole, text = model.read_bytes(), info.read_text()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"model\.safetensors is not what was written"):
        Bundle.open(bundle_path)
    model.write_bytes(whole)
    info.write_text(text.replace('"test_resnet"', '"resnet18"'))
    with pytest.raises(BundleError, match=r"bundle\.json is not what was written"):
        Bundle.open(bundle_path)
    for old, new, message in [
        ('"schema_version": 1', '"schema_version": 9', "has schema version 9"),
        ('"calibration"', '"calibrations"', "has no 'calibration'"),
        ('"backbone": "test_resnet"', '"backbone": 5', "is damaged"),
        ('"backbone": "test_resnet"', '"backbone": "resnet18"', None),
    ]:
        changed = json.loads(text.replace(old, new))
        del changed["sha256"]
        info.write_text(json.dumps(seal(changed)))  # by somebody who knew how
        if message is None:
            with pytest.raises(BundleError, match="does not fit the backbone"):
                Bundle.open(bundle_path).network()
        else:
            with pytest.raises(BundleError, match=message):
                Bundle.open(bundle_path)
    model.unlink()
    info.write_text(text)
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(bundle_path)
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(bundle_path.parent)


def test_predictions_hold_the_fold_and_seed(finished):
    table = Predictions.read(finished.fold_folder("mtl", 1, 0) / "predictions.parquet")
    assert set(table.folds.tolist()) == {0}
    assert set(table.seeds.tolist()) == {1}
