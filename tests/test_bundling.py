"""A bundle made of a finished cross-validation: what is fitted on what, what lies in the folder, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from made_commands import leave
from made_serving import fitted_parts, photograph
from predilect.bundle import Bundle, write_bundle
from predilect.bundling import make_bundle
from predilect.errors import BundleError, InsightError, PredilectError
from predilect.evaluation.decisions import Aim
from predilect.evaluation.fitted_parts import fit_parts
from predilect.files import checksum, seal
from predilect.insight.bundle_index import open_index
from predilect.insight.familiarity import familiarity_of, novelty_of_folds
from predilect.recipe import system
from predilect.serving.predictor import Predictor
from predilect.training import crossval
from predilect.training.crossval import refit
from predilect.training.folds import TrainedFolds
from predilect.training.inference import embed

AIM = Aim("sensitivity", 0.8)


@pytest.fixture(scope="module")
def folds(made_run):
    return TrainedFolds.of(made_run.run, made_run.atlas, made_run.splits)


@pytest.fixture(scope="module")
def refitted(made_run, folds, fabric):
    return refit(made_run.run, made_run.atlas, made_run.splits, system("mtl", folds.recipe("mtl")), fabric=fabric)


@pytest.fixture(scope="module")
def told() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def bundle(folds, refitted, fabric, tmp_path_factory, told):
    out = tmp_path_factory.mktemp("bundles") / "b"
    return make_bundle(
        out, folds, refitted, fabric=fabric, command="predilect bundle it", aim=AIM, max_miss_rate=0.25, index=True,
        photographs=True, on_progress=lambda *steps: told.append(steps),
    )  # fmt: skip


@pytest.fixture
def copied(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "b")
    return tmp_path / "b"


def test_everything_is_fitted_on_what_the_folds_said(bundle, made_run, folds, refitted, fabric):
    run = made_run.run
    expected = fit_parts(run.system_predictions("mtl"), run.truth(), aim=AIM, max_miss_rate=0.25)
    assert bundle.fitted.rule == expected.rule
    assert bundle.fitted.site_prior == expected.site_prior
    embeddings = embed(fabric, refitted.network, folds.atlas.images(), np.arange(len(folds.atlas)))
    assert bundle.fitted.familiarity == familiarity_of(novelty_of_folds(folds, "mtl", fabric=fabric), embeddings, folds.truth)
    assert bundle.fitted.caveats() == []
    assert bundle.provenance["made_by"] == "predilect bundle it"
    assert bundle.provenance["n_images"] == len(made_run.atlas)


def test_its_index_is_that_of_the_network_and_makes_familiarity_work(bundle, made_run, refitted, fabric):
    index = open_index(bundle)
    embeddings = embed(fabric, refitted.network, made_run.atlas.images(), np.arange(len(made_run.atlas)))
    np.testing.assert_array_equal(index.embeddings, embeddings)
    assert index.atlas_hash == made_run.atlas.content_hash
    assert len(index.images) == len(made_run.atlas)
    assert Predictor.open(bundle).fitted.familiarity == bundle.fitted.familiarity


def test_the_work_is_told_as_it_goes(bundle, told):
    works = list(dict.fromkeys(what for what, _, _ in told))
    assert works[:3] == ["fitting", "looking, fold by fold", "looking at all"]
    assert {"measuring calibrations", "learning what sites do", "making small photographs"} <= set(works)
    for work in works:
        assert [steps for steps in told if steps[0] == work][-1][1:] == (max(total for what, _, total in told if what == work),) * 2


def test_for_the_card_no_more_is_resampled_than_its_intervals_need(told):
    totals = {what: total for what, _, total in told}
    assert totals["resampling"] == totals["resampling, the site being known"] == 1_000


def test_no_file_tells_of_patients_or_folders(bundle, made_run):
    patients = {str(name) for name in made_run.atlas.photos["patient_id"].to_list()}
    for name in ("bundle.json", "card.md", "index/index.json"):
        text = (bundle.path / name).read_text(encoding="utf-8")
        assert not [patient for patient in patients if patient in text]
        assert str(made_run.atlas.path.parent) not in text


def test_a_system_of_sites_alone_has_what_it_can_have(made_run, folds, fabric, tmp_path, capsys):
    trained = refit(
        made_run.run, made_run.atlas, made_run.splits, system("resnet-site", folds.recipe("resnet-site")), fabric=fabric
    )
    bundle = make_bundle(tmp_path / "b", folds, trained, fabric=fabric, command="")
    assert bundle.fitted.rule.thresholds is None
    assert bundle.fitted.missing == {"site_prior": "the system predicts no lesions"}
    card = (bundle.path / "card.md").read_text(encoding="utf-8")
    assert "most probable site" in card
    assert "### Decisions" not in card
    (tmp_path / "p.jpg").write_bytes(photograph())
    assert leave("predict", bundle.path, tmp_path / "p.jpg", "--case", "--format", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    for each in (*answer["results"], *answer["cases"]):
        assert (each["lesions"], each["set"], each["unsure"]) == ([], None, None)
        assert sum(place["probability"] for place in each["site"]) == pytest.approx(1, abs=1e-5)
    assert any("no index of the photographs" in note for note in answer["notes"])


def test_a_bundle_is_there_whole_or_not_at_all(folds, refitted, fabric, tmp_path, monkeypatch):
    def fails(*_args, **_options):
        raise InsightError("no room for an index")

    monkeypatch.setattr("predilect.bundling.keep_index", fails)
    with pytest.raises(InsightError, match="no room"):
        make_bundle(tmp_path / "b", folds, refitted, fabric=fabric, command="", index=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_trained_already_is_not_trained_again(made_run, folds, refitted, fabric, monkeypatch):
    def trains(*_args, **_options):
        raise AssertionError("trained again")

    monkeypatch.setattr(crossval, "fit", trains)
    again = refit(made_run.run, made_run.atlas, made_run.splits, refitted.system, fabric=fabric)
    assert again.provenance == refitted.provenance
    weights = refitted.network.state_dict()
    assert all((value == weights[name]).all() for name, value in again.network.state_dict().items())
    assert not again.network.training


# --- what is refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "card.md"])
def test_a_file_that_is_missing_or_changed_is_refused(copied, name):
    file = copied / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-2] + b"x" + whole[-1:])
    with pytest.raises(BundleError, match=f"{name} is not what was written"):
        Bundle.open(copied)
    file.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=f"{name} is not what was written"):
        Bundle.open(copied)
    file.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(copied)


def spoilt(folder, change):
    """Change bundle.json as somebody who knows how to seal it."""
    path = folder / "bundle.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    del info["sha256"]
    change(info)
    path.write_text(json.dumps(seal(info)), encoding="utf-8")


def test_a_threshold_that_was_moved_is_noticed(copied):
    path = copied / "bundle.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["calibration"]["sets"]["threshold"] = 0.5
    path.write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(BundleError, match=r"bundle\.json is not what was written"):
        Bundle.open(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.pop("site_prior"), "has no 'site_prior': another version of Predilect wrote it"),
        (lambda info: info.pop("missing"), "has no 'missing'"),
        (lambda info: info["files"].update(extra="0"), "must name two files"),
        (lambda info: info["files"].pop("card.md"), "must name two files"),
        (lambda info: info["calibration"]["sets"].update(max_miss_rate=2), r"damaged: calibration: .*max_miss_rate"),
        (lambda info: info["novelty"].update(usual=0), "damaged: novelty: .*usual"),
        (lambda info: info.update(calibration=None), "damaged: missing must say why calibration is null"),
        (lambda info: info["site_prior"].update(sites=["a", "b"]), "damaged: "),
        (lambda info: info["labels"]["lesion"]["classes"].reverse(), "damaged: "),
        (lambda info: info.update(labels=[]), r"damaged: labels: Input should be an object"),
        (lambda info: info.update(labels={"lesion": "papule"}), r"damaged: labels\.lesion: "),
        (lambda info: info["labels"]["lesion"].update(classes=[1, 2]), r"damaged: labels\.lesion\.classes\.0: "),
        (lambda info: info.update(system=3), "damaged: system: Input should be a valid string"),
        (lambda info: info.update(provenance=None), "damaged: provenance: "),
        (
            lambda info: info["provenance"].update(sources=[{"name": "clinic"}]),
            r"damaged: provenance\.sources\.0\.licence: Field req",
        ),
        (lambda info: info["provenance"].update(notes="none"), r"damaged: provenance\.notes: "),
        (lambda info: info["provenance"].update(seed="1"), r"damaged: provenance\.seed: "),
        (lambda info: info.update(licences=None), "damaged: licences: "),
        (lambda info: info.update(licences="CC0"), "damaged: licences: "),
        (lambda info: info.update(recipe=[]), "damaged: "),
        (lambda info: info["preprocessing"].update(crop=0), "damaged: crop: Input should be greater"),
        (lambda info: info.update(preprocessing=None), "damaged: the preprocessing: Input should be"),
    ],
)
def test_what_was_fitted_is_read_strictly(copied, change, message):
    spoilt(copied, change)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 1, "labels": ' + "[" * 100_000 + "]" * 100_000 + "}", "lie too deep in each other"),
        ('{"schema_version": ' + "1" * 5_000 + "}", "cannot be read"),
        ('{"schema_version": 1, "labels": [' + "]" * 90, "cannot be read"),
        ("[]", "must hold a JSON object, found list"),
    ],
)
def test_what_is_no_description_at_all_is_refused_in_a_sentence(copied, text, message):
    (copied / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", range(100, 1_100, 50))
def test_a_description_is_refused_however_deep_it_lies(copied, depth):
    """Between what can be read and what can be written again is no depth at which the checksum fails."""
    (copied / "bundle.json").write_text('{"schema_version": 1, "a": ' + "[" * depth + "]" * depth + "}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"checksum differs|too deep"):
        Bundle.open(copied)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet18.nosuch", "there is no 'resnet18.nosuch' in timm: did you mean"),
        ("hf-hub:timm/resnet18", "there is no backbone 'hf-hub:timm/resnet18'"),
        ("local-dir:/tmp", "there is no backbone 'local-dir:/tmp'"),
        ("resnet18", "does not fit the backbone resnet18"),
    ],
)
def test_a_network_that_cannot_be_had_is_an_error_of_the_bundle(copied, backbone, message):
    spoilt(copied, lambda info: info["recipe"].update(backbone=backbone))
    with pytest.raises(BundleError, match=message):
        Bundle.open(copied).network()


def test_weights_that_are_none_are_an_error_of_the_bundle(copied):
    (copied / "model.safetensors").write_bytes(b"x" * 20)
    spoilt(copied, lambda info: info["files"].update({"model.safetensors": checksum(copied / "model.safetensors")}))
    with pytest.raises(BundleError, match=r"model\.safetensors cannot be read"):
        Bundle.open(copied).network()


def test_what_was_fitted_for_other_classes_is_not_written(refitted, tmp_path):
    labels = refitted.network.labels
    others = fitted_parts(labels["lesion"].classes[::-1], labels["site"].classes, 1.0)
    with pytest.raises(ValueError, match="the calibration is of the lesion classes"):
        write_bundle(tmp_path / "b", refitted, others)
    assert not (tmp_path / "b").exists()


def test_a_folder_that_is_there_is_not_replaced(bundle, folds, refitted, fabric):
    before = checksum(bundle.path / "bundle.json")
    with pytest.raises(PredilectError, match="already exists"):
        make_bundle(bundle.path, folds, refitted, fabric=fabric, command="")
    assert checksum(bundle.path / "bundle.json") == before
