"""The golden run, its report and its bundle read back as what stands here. Only the tests of the bundle need torch, and import it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from polars.testing import assert_frame_equal

from made_golden import (
    COMMAND,
    FOLDS,
    GOLDEN,
    GROUPS,
    IDS,
    LABELS,
    LESIONS,
    NOTES,
    PREDICTED,
    RANDOM,
    RECIPE,
    SITES,
    SOURCES,
    VERSIONED,
    leaves,
    read_json,
    sealed,
)
from predilect.atlas.folder import Atlas
from predilect.errors import BundleError
from predilect.evaluation.insight import Insight
from predilect.recipe import Recipe
from predilect.report.report import ReportDocument
from predilect.run import Run
from predilect.run.insight import TABLES, read_fold

# --- the run and its report --------------------------------------------------------------------------------------------------


def test_the_run_opens():
    run, atlas = Run.open(GOLDEN / "run"), Atlas.open(GOLDEN / "atlas")
    assert list(run.info) == [
        "command", "atlas", "systems", "weights", "precision", "seeds", "folds", "atlas_hash", "splits_hash", "notes", "sources",
        "versions", "machine", "plan", "files", "resumed",
    ]  # fmt: skip
    assert run.info["plan"] == {"ensembles": [], "pairs": None, "beside_paper": False, "notes": []}
    assert (run.info["command"], run.info["atlas"], run.info["seeds"], run.info["folds"]) == (COMMAND, "atlas", [1], [0, 1])
    assert run.info["systems"] == {"mtl": {"tasks": ["lesion", "site"], "recipe": RECIPE}}
    assert (run.info["weights"], run.info["precision"]) == ({}, "32-true")
    assert run.info["atlas_hash"] == atlas.content_hash
    rows = json.dumps([list(row) for row in zip(IDS, GROUPS, FOLDS, strict=True)])
    assert run.info["splits_hash"] == hashlib.sha256(rows.encode()).hexdigest()
    assert run.info["notes"] == [RANDOM, *NOTES]
    assert run.info["sources"] == SOURCES
    assert tuple(run.info["versions"]) == VERSIONED
    assert run.info["machine"] == {"device": "a processor", "devices": 1, "threads": 1, "precision": "32-true"}
    assert run.info["files"] == {"truth.parquet": hashlib.sha256((run.path / "truth.parquet").read_bytes()).hexdigest()}
    assert run.info["resumed"] == []


def test_the_folds_of_the_run_read():
    run = Run.open(GOLDEN / "run")
    same = {"chosen_iteration": 3, "iterations": 3, "drops": [2, 3], "images_per_second": 6.0, "seconds": 2.25, "devices": 1}
    counts = ({"n_train": 3, "n_validation": 1, "n_test": 3}, {"n_train": 2, "n_validation": 1, "n_test": 4})
    for fold, (count, loss) in enumerate(zip(counts, (0.8003566861152649, 4.115236401557922), strict=True)):
        result = run.fold_result("mtl", 1, fold)
        files, digest = result.pop("files"), result.pop("sha256")
        assert result == {**same, **count, "validation_loss": loss}
        assert list(files) == ["predictions.parquet", "log.jsonl", "checkpoint/weights.safetensors"]
        for name in ("predictions.parquet", "log.jsonl"):
            assert files[name] == hashlib.sha256((run.fold_folder("mtl", 1, fold) / name).read_bytes()).hexdigest()
        assert digest == sealed({**result, "files": files})
    spent = {"trainings": 2, "device_hours": 4.5 / 3600, "images_per_second": 6.0}
    assert run.cost() == {**spent, "by_system": {"mtl": spent}}
    assert run.curves().rows() == [
        ("mtl", 1, 0, 1, 2.4666709899902344, 0.7199990749359131, 0.002),
        ("mtl", 1, 0, 2, 2.8669039607048035, 0.7693192958831787, 0.002),
        ("mtl", 1, 0, 3, 2.4684762954711914, 0.8003566861152649, 0.0002),
        ("mtl", 1, 1, 1, 3.1601215600967407, 3.8944506645202637, 0.002),
        ("mtl", 1, 1, 2, 2.6645612716674805, 4.005248546600342, 0.002),
        ("mtl", 1, 1, 3, 1.9215627908706665, 4.115236401557922, 0.0002),
    ]
    lines = (run.fold_folder("mtl", 1, 0) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "iteration": 1,
        "loss": 2.4666709899902344,
        "losses": {"lesion": 1.444880723953247, "site": 1.0217902660369873},
        "validation_loss": 0.7199990749359131,
        "validation_losses": {"lesion": 0.7199990749359131, "site": 0.0},
        "learning_rate": 0.002,
        "images_per_second": 8.0,
    }


def test_the_truth_of_the_run_reads():
    truth = Run.open(GOLDEN / "run").truth()
    assert truth.image_ids.tolist() == IDS
    assert truth.groups.tolist() == GROUPS
    assert truth.labels == LABELS
    assert truth.values["lesion"].tolist() == LESIONS
    assert truth.values["site"].tolist() == SITES
    assert truth.covariates.columns == ["skin_tone", "skin_tone_scale", "age", "sex", "source"]
    assert truth.covariates["age"].to_list() == [54.0, 54.0, 31.0, None, 67.0, 45.0, None]


def test_the_predictions_of_the_run_read(tmp_path):
    run = Run.open(GOLDEN / "run")
    seed = run.predictions()["mtl"]
    assert seed.image_ids.tolist() == PREDICTED
    assert seed.labels.columns == LABELS.columns
    assert seed.folds.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert seed.seeds.tolist() == [1] * 7
    assert seed.scores["lesion"].dtype == np.float32
    lesion = [
        [0.51861, 0.45640, 0.46005, 0.48235],
        [0.51780, 0.45641, 0.46272, 0.48362],
        [0.49489, 0.44183, 0.49217, 0.48626],
        [0.47214, 0.47220, 0.58094, 0.43665],
        [0.48802, 0.47454, 0.56555, 0.42883],
        [0.48596, 0.47710, 0.56183, 0.43404],
        [0.46726, 0.47174, 0.58987, 0.42828],
    ]
    site = [
        [0.31786, 0.30664, 0.37550],
        [0.31346, 0.31407, 0.37247],
        [0.33031, 0.31552, 0.35417],
        [0.27083, 0.46485, 0.26433],
        [0.26606, 0.47378, 0.26016],
        [0.28821, 0.46326, 0.24854],
        [0.28278, 0.46492, 0.25230],
    ]
    assert np.abs(seed.scores["lesion"] - lesion).max() < 1e-5
    assert np.abs(seed.scores["site"] - site).max() < 1e-5
    copied = shutil.copytree(GOLDEN / "run", tmp_path / "run")
    (copied / "mtl" / "seed-1" / "predictions.parquet").unlink()
    again = Run.open(copied)
    again.gather("mtl", 1)
    assert_frame_equal(again.predictions()["mtl"].to_frame(), seed.to_frame())


def test_the_run_gives_the_golden_report_again(tmp_path):
    copied = shutil.copytree(GOLDEN / "run", tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    Run.open(copied).report()
    assert (copied / "report" / "report.html").is_file()
    written, golden = (leaves(read_json(path / "report" / "report.json")) for path in (copied, GOLDEN / "run"))
    numbers = {where for where, leaf in golden.items() if isinstance(leaf, float)}
    assert {where: written[where] for where in numbers} == pytest.approx({where: golden[where] for where in numbers}, rel=1e-12)
    assert written == golden | {where: written[where] for where in numbers}


def test_the_report_keeps_its_schema_and_its_numbers():
    path = GOLDEN / "run" / "report" / "report.json"
    text = path.read_text(encoding="utf-8")
    schema = json.loads(files("predilect.report").joinpath("schemas/report.schema.json").read_text(encoding="utf-8"))
    document = json.loads(text)
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    assert "known_site" not in document  # for which two folds are too few
    assert ReportDocument.model_validate_json(text).model_dump(mode="json") == {**document, "known_site": None}
    calibration = document["calibration"]
    assert (calibration["n_images"], calibration["n_groups"], calibration["n_folds"]) == (7, 6, 2)
    assert {item["method"] for item in calibration["systems"]["mtl"]["lesions"].values()} == {"none"}
    assert (calibration["systems"]["mtl"]["decisions"], calibration["systems"]["mtl"]["sets"]) == ({}, None)
    assert document["title"] == "mtl on atlas"
    run = Run.open(GOLDEN / "run")
    told = {key: value for key, value in run.info.items() if key not in ("files", "plan", "resumed")}
    assert document["provenance"] == {**told, **run.cost()}
    assert document["notes"][:3] == [RANDOM, *NOTES]
    assert document["truth"] == {
        "n_images": 7, "n_groups": 6, "grouped": True, "n_lesion_known": 6, "n_site_known": 5, "machine_made": ["scale"],
        "machine_made_counted": False,
    }  # fmt: skip
    lesion, site = document["systems"]["mtl"]["lesion"], document["systems"]["mtl"]["site"]
    # By hand from the scores above: the only erosion comes last and the only excoriation fourth of the five known, the papules
    # third, fifth and sixth of six. The machine-made scale counts nowhere.
    aps = {"erosion/ulcer": 1 / 5, "excoriation": 1 / 4, "papule": (1 / 3 + 2 / 5 + 3 / 6) / 3}
    assert {name: scores["ap"] for name, scores in lesion["per_class"].items() if name in aps} == pytest.approx(aps)
    assert lesion["per_class"]["scale"] == {
        "ap": 0.25, "ap_low": None, "ap_high": None, "n_positive": 1, "n_positive_groups": 1, "n_known": 4, "machine_made": True,
    }  # fmt: skip
    assert lesion["map_class"] == pytest.approx(sum(aps.values()) / 3)
    assert lesion["map_class_low"] is None
    # Of five known sites one is given first, a hand out of two.
    assert (site["top1"], site["top3"], site["balanced_accuracy"]) == pytest.approx((1 / 5, 1, 1 / 6))
    assert document["comparisons"] == []
    assert document["predilection"]["ratio"] == [[None] * 3, [0, 1, 0], [0, 1, 0], [None] * 3]
    assert document["predilection"]["lift"] == [[None] * 3, [0, 2, 0], [0, 2, 0], [None] * 3]
    assert (document["folds"]["n_images"], document["folds"]["n_groups"]) == ([3, 4], [2, 4])
    assert (document["n_resamples"], document["n_resamples_p"], document["resampling_seed"]) == (1000, 10000, 0)


# --- its insight ------------------------------------------------------------------------------------------------------------


def test_what_the_networks_show_reads():
    insight = Insight.read(GOLDEN / "run" / "insight" / "insight.json")
    weights = {str(fold): Run.open(GOLDEN / "run").weights_checksum("mtl", 1, fold) for fold in (0, 1)}
    assert insight.command == "predilect explain run atlas --sample 2"
    assert insight.weights == {"mtl": {"1": weights}}
    # Two folds look at seven photographs in ten views; of two photographs, the map's own pass with the same views, three orders of either
    # head in twenty steps, and a random network.
    assert insight.cost["mtl"].images == 2 * 7 * 10 + 2 * (11 + 2 * 3 * 20 + 10)
    mtl = insight.attention.systems["mtl"]
    assert mtl.overlap_by_chance == 1
    assert (mtl.method, mtl.cells, insight.attention.sample, insight.attention.seeds) == ("cam", (1, 1), 2, (1,))
    assert mtl.heads["site"].perturbation.shares == tuple(k / 10 for k in range(11))
    # A map of one cell has no relief: nothing can be said of its coincidence with another.
    assert [(item.lesion, item.correlation.value) for item in mtl.coincidence.lesions] == [
        (name, None) for name in LABELS["lesion"].classes
    ]
    assert insight.retrieval.n_queries == 7
    document = read_json(GOLDEN / "run" / "report" / "report.json")
    assert document["attention"] == insight.attention.model_dump(mode="json")
    assert document["retrieval"] == insight.retrieval.model_dump(mode="json")


def test_the_tables_of_a_fold_read():
    folder = GOLDEN / "run" / "insight" / "mtl" / "seed-1" / "fold-0"
    settings = {
        "weights": Run.open(GOLDEN / "run").weights_checksum("mtl", 1, 0),
        "sample": 2,
        "steps": 10,
        "random_weights": "random network",
    }
    found = read_fold(folder, settings)
    assert found.images == 422 - 7 * 10  # both drawn photographs lie in this fold
    assert (found.method, found.cells, found.unexplained) == ("cam", (1, 1), None)
    assert {name: table.schema for name, table in found.tables.items()} == TABLES
    assert found.tables["queries"]["image_id"].to_list() == PREDICTED[:3]
    assert found.tables["coincidence"].select("image_id", "lesion").rows() == [
        ("0001", "excoriation"), ("0001", "papule"), ("0002", "papule"),
    ]  # fmt: skip
    assert read_fold(folder, {**settings, "sample": 3}) is None


# --- the bundle --------------------------------------------------------------------------------------------------------------


def test_the_bundle_without_its_weights_is_refused():
    from predilect.bundle import Bundle

    with pytest.raises(BundleError, match=r"model\.safetensors is missing"):
        Bundle.open(GOLDEN / "bundle")


def test_the_bundle_opens_once_it_has_weights(tmp_path):
    from safetensors.torch import save_file

    from predilect.bundle import Bundle
    from predilect.vision.network import assemble_network

    info = read_json(GOLDEN / "bundle" / "bundle.json")
    assert list(info) == [
        "schema_version", "files", "system", "labels", "preprocessing", "recipe", "calibration", "site_prior", "novelty", "missing",
        "provenance", "licences", "sha256",
    ]  # fmt: skip
    assert list(info["files"]) == ["model.safetensors", "card.md"]
    assert re.fullmatch("[0-9a-f]{64}", info["files"]["model.safetensors"])
    shutil.copy(GOLDEN / "bundle" / "card.md", tmp_path)
    model = tmp_path / "model.safetensors"
    weights = assemble_network(LABELS, Recipe.open(str(GOLDEN / "recipe.toml"))).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, model)
    assert info.pop("sha256") == sealed(info)
    info["files"][model.name] = hashlib.sha256(model.read_bytes()).hexdigest()
    info["sha256"] = sealed(info)
    (tmp_path / "bundle.json").write_text(json.dumps(info), encoding="utf-8")
    bundle = Bundle.open(tmp_path)
    assert bundle.system == "mtl"
    assert bundle.labels == LABELS
    assert bundle.recipe.model_dump(mode="json") == RECIPE
    filled = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    assert bundle.preprocessing.model_dump(mode="json") == {**RECIPE["preprocessing"], **filled}
    assert bundle.licences == ("CC0-1.0",)
    of_run = ("command", "atlas", "atlas_hash", "splits_hash", "sources", "notes", "versions", "machine")
    made_by = "predilect bundle run atlas --system mtl --out bundle --index --photographs"
    trained = {"seed": 1, "iterations": 3, "rate_drops": [2], "n_images": 7, "made_by": made_by}
    files = {f"seed-1/fold-{fold}": GOLDEN / "run" / "mtl" / "seed-1" / f"fold-{fold}" / "predictions.parquet" for fold in (0, 1)}
    fitted_on = {part: hashlib.sha256(file.read_bytes()).hexdigest() for part, file in files.items()}
    assert bundle.provenance == {**{key: Run.open(GOLDEN / "run").info[key] for key in of_run}, **trained, "fitted_on": fitted_on}
    assert bundle.network().labels == LABELS
    rule = bundle.fitted.rule
    groups = [(item.n_positive_groups, item.n_negative_groups, item.curve) for item in rule.calibration.lesions]
    assert groups == [(1, 3, None), (1, 4, None), (2, 3, None), (1, 3, None)]
    assert (str(rule.thresholds.aim), rule.sets.max_miss_rate, rule.sets.excluded) == ("f1", 0.1, ("scale",))
    assert (bundle.fitted.site_prior.spread, bundle.fitted.familiarity) == (0, None)
    assert list(bundle.fitted.missing) == ["novelty"]
    card = (GOLDEN / "bundle" / "card.md").read_text(encoding="utf-8")
    assert hashlib.sha256(card.encode("utf-8")).hexdigest() == info["files"]["card.md"]
    assert "| papule | 0.411 |  | 3 | 2 | 0.500 |" in card
