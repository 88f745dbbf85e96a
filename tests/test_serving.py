"""What the API answers, endpoint by endpoint, against what the same network says when it is asked directly."""

import base64
import dataclasses
import io
import threading

import numpy as np
import pytest
from PIL import Image

from made_run import scores_of_files
from made_serving import PATIENCE, await_ready, blank, checked_problem, made_bundle, photograph, serving, upload
from predilect.insight.attention import head_maps
from predilect.insight.bundle_index import open_index
from predilect.serving.answers import PhotographAnswer
from predilect.serving.predictor import Predictor
from predilect.training.inference import observe_batch

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def predictor(made_run, tmp_path_factory):
    return Predictor.open(made_bundle(made_run, tmp_path_factory.mktemp("bundles") / "bundle"))


@pytest.fixture(scope="module")
def client(predictor):
    with serving(predictor) as client:
        yield client


@pytest.fixture(scope="module")
def bare(made_run):
    """The same network without anything fitted, and without an index."""
    with serving(Predictor.open(made_run.bundle)) as client:
        yield client


def scores_of(bundle, data, tmp_path):
    (tmp_path / "p.jpg").write_bytes(data)
    runtime = Predictor.open(bundle).runtime
    return scores_of_files(runtime.observe, bundle.preprocessing, [tmp_path / "p.jpg"])[tmp_path / "p.jpg"]


class TestPredict:
    def test_scores_are_those_of_predict_and_sorted(self, bare, made_run, tmp_path):
        (row,) = bare.post("/v1/predict", files=upload(photograph())).json()["results"]
        expected, labels = scores_of(made_run.bundle, photograph(), tmp_path), made_run.bundle.labels
        assert {item["name"]: item["score"] for item in row["lesions"]} == pytest.approx(
            dict(zip(labels["lesion"].classes, expected["lesion"].tolist(), strict=True)), abs=1e-6
        )
        assert {item["name"]: item["probability"] for item in row["site"]} == pytest.approx(
            dict(zip(labels["site"].classes, expected["site"].tolist(), strict=True)), abs=1e-6
        )
        for task in ("lesions", "site"):
            probabilities = [item["probability"] for item in row[task]]
            assert probabilities == sorted(probabilities, reverse=True)

    def test_without_anything_fitted_nothing_is_claimed(self, bare):
        (row,) = bare.post("/v1/predict", files=upload(photograph())).json()["results"]
        assert all(item["probability"] == item["score"] for item in row["lesions"])
        assert {item["decision"] for item in row["lesions"]} == {item["threshold"] for item in row["lesions"]} == {None}
        nothing = (
            "given_site", "lesions_without_site", "set", "unsure", "unfamiliar", "unfamiliarity", "attention", "similar", "by_site",
        )  # fmt: skip
        assert {key: row[key] for key in nothing} == dict.fromkeys(nothing)

    def test_calibrated_probabilities_decide_and_make_the_set(self, client, predictor):
        (row,) = client.post("/v1/predict", files=upload(photograph())).json()["results"]
        known, *others = predictor.bundle.labels["lesion"].classes
        found = {item["name"]: item for item in row["lesions"]}
        s = found[known]["score"]
        assert found[known]["probability"] == pytest.approx(1 / (1 + np.exp(-0.5) * ((1 - s) / s) ** 0.8), abs=1e-5)
        assert found[known]["threshold"] == 0.25
        assert found[known]["decision"] is (found[known]["probability"] >= 0.25)
        assert all(found[name]["probability"] == pytest.approx(found[name]["score"]) for name in others)
        assert all(found[name]["decision"] is None for name in others)
        assert row["set"] == [item["name"] for item in row["lesions"] if item["probability"] >= 0.3]
        assert row["unsure"] is (bool(row["set"]) and not found[known]["decision"])

    def test_a_given_site_changes_the_lesions_and_tells_what_they_were(self, client, predictor):
        known, site = predictor.bundle.labels["lesion"].classes[0], predictor.sites[0]
        (plain,) = client.post("/v1/predict", files=upload(photograph())).json()["results"]
        (given,) = client.post("/v1/predict", files=upload(photograph()), data={"site": site}).json()["results"]
        assert given["given_site"] == site
        assert given["lesions_without_site"] == plain["lesions"]
        assert given["site"] == plain["site"]
        before, after = ({item["name"]: item for item in row["lesions"]} for row in (plain, given))
        assert after[known]["probability"] > before[known]["probability"]
        assert all(after[name]["probability"] == before[name]["probability"] for name in after if name != known)
        assert after[known]["score"] == before[known]["score"]

    def test_what_each_site_would_change_can_be_had_at_once(self, client, predictor):
        (once,) = client.post("/v1/predict", files=upload(photograph()), data={"with": "sites"}).json()["results"]
        assert [item["given_site"] for item in once["by_site"]] == list(predictor.sites)
        for item in once["by_site"]:
            (again,) = client.post("/v1/predict", files=upload(photograph()), data={"site": item["given_site"]}).json()["results"]
            assert item == {key: again[key] for key in ("given_site", "lesions", "set", "unsure")}
        assert len({str(item["lesions"]) for item in once["by_site"]}) > 1

    def test_a_bundle_without_a_site_prior_says_so_when_it_is_asked_for_all_sites(self, bare):
        problem = checked_problem(bare.post("/v1/predict", files=upload(photograph()), data={"with": "sites"}), 422)
        assert "does not take a given site into account" in problem["detail"]

    def test_a_site_that_is_unknown_or_cannot_be_used(self, client, bare, predictor):
        near = predictor.sites[0] + "s"
        problem = checked_problem(client.post("/v1/predict", files=upload(photograph()), data={"site": near}), 422)
        assert f"did you mean {predictor.sites[0]!r}" in problem["detail"]
        problem = checked_problem(bare.post("/v1/predict", files=upload(photograph()), data={"site": near}), 422)
        assert "does not take a given site into account" in problem["detail"]

    def test_an_empty_site_is_none(self, bare):
        assert bare.post("/v1/predict", files=upload(photograph()), data={"site": ""}).status_code == 200

    def test_several_photographs_keep_their_order_and_a_bad_one_harms_no_other(self, client):
        answer = client.post("/v1/predict", files=upload(photograph(1), b"no image", photograph(2)))
        assert answer.status_code == 200
        first, second, third = answer.json()["results"]
        assert [row["name"] for row in (first, second, third)] == ["1.jpg", "2.jpg", "3.jpg"]
        assert second.keys() == {"name", "error"}
        assert second["error"]["status"] == 415
        assert second["error"]["instance"] == "/v1/predict#2"
        for number, row in ((1, first), (2, third)):
            (alone,) = client.post("/v1/predict", files=upload(photograph(number))).json()["results"]
            assert [item["name"] for item in row["lesions"]] == [item["name"] for item in alone["lesions"]]
            assert [item["score"] for item in row["lesions"]] == pytest.approx(
                [item["score"] for item in alone["lesions"]], abs=1e-6
            )

    def test_a_photograph_of_one_colour_is_told_of(self, client):
        rows = client.post("/v1/predict", files=upload(blank(0), blank(255), photograph())).json()["results"]
        assert [row["uniform"] for row in rows] == [True, True, False]

    def test_a_photograph_that_must_be_turned_is(self, client):
        upright = Image.open(io.BytesIO(photograph(3, (64, 40), "PNG")))
        exif, target = Image.Exif(), io.BytesIO()
        exif[ORIENTATION] = 6
        upright.transpose(Image.Transpose.ROTATE_90).save(target, "PNG", exif=exif)
        straight, turned = client.post("/v1/predict", files=upload(photograph(3, (64, 40), "PNG"), target.getvalue())).json()[
            "results"
        ]
        assert (turned["width"], turned["height"]) == (64, 40)
        assert turned["lesions"] == straight["lesions"]

    def test_names_are_given_back_as_sent(self, client):
        files = [("files", ("naïve <b>.jpg", photograph()))]
        assert client.post("/v1/predict", files=files).json()["results"][0]["name"] == "naïve <b>.jpg"

    @pytest.mark.parametrize(
        "fields",
        [
            {"sight": "arm"},
            {"with": "attentoin"},
            {"k": "0", "with": "similar"},
            {"k": "x", "with": "similar"},
            {"k": "5"},
            {"site": ["arm", "face"]},
        ],
    )
    def test_wrong_fields_are_named(self, client, fields):
        problem = checked_problem(client.post("/v1/predict", files=upload(photograph()), data=fields), 422)
        assert problem["type"] == "urn:predilect:wrong-field"
        assert next(iter(fields)) in problem["detail"]

    def test_photographs_in_another_field(self, client):
        assert "'files'" in checked_problem(client.post("/v1/predict", files=upload(photograph(), field="file")), 422)["detail"]


class TestAttention:
    def test_the_maps_of_predict_are_those_of_its_own_look(self, client, predictor):
        data = photograph(4, (96, 48))
        (row,) = client.post("/v1/predict", files=upload(data), data={"with": "attention"}).json()["results"]
        looked = predictor.prepare("p", data)
        network, fabric = predictor.runtime.network, predictor.runtime.fabric
        seen = observe_batch(fabric, network, looked.square[None])
        assert [item["task"] for item in row["attention"]["maps"]] == ["lesion", "site"]
        for item in row["attention"]["maps"]:
            k = network.labels[item["task"]].index(item["name"])
            logit_part = float(network.heads[item["task"]].weight[k].detach() @ seen.embedding[0])
            assert np.mean(item["cells"]) == pytest.approx(logit_part, abs=1e-3)
        assert row["attention"]["maps"][0]["name"] == row["lesions"][0]["name"]
        assert row["attention"]["maps"][1]["name"] == row["site"][0]["name"]

    def test_cells_lie_where_the_network_saw(self, client, predictor):
        """A photograph twice as wide as high: the central square, of which the network's input is all, is its middle half."""
        answer = client.post("/v1/attention", files=upload(photograph(4, (96, 48)), field="file")).json()
        assert (answer["width"], answer["height"]) == (96, 48)
        assert answer["seen"] == pytest.approx({"left": 0.25, "top": 0.0, "right": 0.75, "bottom": 1.0}, abs=0.02)
        item = answer["maps"][0]
        rows, columns = np.array(item["rows"]), np.array(item["columns"])
        assert np.array(item["cells"]).shape == (len(rows), len(columns))
        assert np.allclose((columns - 0.25) * 2, rows, atol=0.02)
        assert (np.diff(rows) > 0).all()

    def test_classes_may_be_named(self, client, predictor):
        lesions = predictor.bundle.labels["lesion"].classes
        answer = client.post(
            "/v1/attention", files=upload(photograph(), field="file"), data={"task": "lesion", "name": list(lesions)}
        ).json()
        assert [item["name"] for item in answer["maps"]] == list(lesions)
        assert answer["method"] == "cam"
        network = predictor.runtime.network
        seen = observe_batch(predictor.runtime.fabric, network, predictor.prepare("p", photograph()).square[None])
        import torch

        maps = head_maps(network, seen.feature_map, {"lesion": torch.arange(len(lesions))[None]})["lesion"][0]
        assert np.allclose([item["cells"] for item in answer["maps"]], maps.numpy(), atol=1e-4)

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"task": "lesion", "name": "unheard of"}, "unknown lesion"),
            ({"task": "colour"}, "task"),
            ({"name": "macule"}, "task"),
        ],
    )
    def test_wrong_classes(self, client, fields, told):
        assert (
            told
            in checked_problem(client.post("/v1/attention", files=upload(photograph(), field="file"), data=fields), 422)["detail"]
        )

    def test_more_than_one_photograph(self, client):
        answer = client.post("/v1/attention", files=upload(photograph(), photograph(1), field="file"))
        assert "found 2" in checked_problem(answer, 422)["detail"]


class TestSimilar:
    def test_neighbours_are_those_of_the_index(self, client, predictor):
        answer = client.post("/v1/similar", files=upload(photograph(5), field="file"), data={"k": "7"}).json()
        index = open_index(predictor.bundle)
        (seen,) = predictor.observe([predictor.prepare("p", photograph(5))])
        expected = index.search(seen.embedding[None], 7, model=predictor.bundle.model)
        assert [item["image_id"] for item in answer["neighbours"]] == expected.image_ids[0].tolist()
        assert [item["distance"] for item in answer["neighbours"]] == pytest.approx(expected.distances[0].tolist(), rel=1e-4)
        assert answer["metric"] == "euclidean"

    def test_labels_and_photographs_come_along(self, client, predictor, made_run):
        answer = client.post("/v1/similar", files=upload(photograph(5), field="file"), data={"k": "20"}).json()
        truth = made_run.atlas.truth(None)
        for item in answer["neighbours"]:
            row = truth.image_ids.tolist().index(item["image_id"])
            assert item["lesions"] == (None if truth.present("lesion", row) is None else list(truth.present("lesion", row)))
            assert item["site"] == (truth.present("site", row) or (None,))[0]
            kind, _, coded = item["photograph"].partition(",")
            assert kind == "data:image/jpeg;base64"
            assert Image.open(io.BytesIO(base64.b64decode(coded))).size == (48, 40)

    def test_filters_are_kept_and_fewer_are_found_where_fewer_pass(self, client, predictor):
        lesion, site = predictor.bundle.labels["lesion"].classes[1], predictor.sites[1]
        fields = {"k": "20", "lesion": lesion, "site": site}
        found = client.post("/v1/similar", files=upload(photograph(), field="file"), data=fields).json()["neighbours"]
        assert 0 < len(found) < 20
        assert all(lesion in item["lesions"] and item["site"] == site for item in found)

    def test_a_bundle_without_index(self, bare):
        assert "no index" in checked_problem(bare.post("/v1/similar", files=upload(photograph(), field="file")), 422)["detail"]

    def test_predict_gives_them_beside_and_says_how_unfamiliar(self, client, predictor):
        (row,) = client.post("/v1/predict", files=upload(photograph(5)), data={"with": "similar", "k": "3"}).json()["results"]
        alone = client.post("/v1/similar", files=upload(photograph(5), field="file"), data={"k": "3"}).json()
        assert row["similar"] == alone
        third = alone["neighbours"][2]["distance"] / predictor.fitted.familiarity.usual
        assert third > 1
        assert row["unfamiliarity"] == pytest.approx(1 - next(share for d, share in [(4, 0.01), (2, 0.5), (0, 1.0)] if third >= d))
        assert row["unfamiliar"] is (third > 4)


def test_it_is_ready_when_one_answer_has_been_made_with_all_that_the_bundle_can_tell(predictor, monkeypatch):
    begun, go, answers, answer = threading.Event(), threading.Event(), [], Predictor.answer

    def held(self, *arguments):
        begun.set()
        assert go.wait(PATIENCE)
        answers.append(answer(self, *arguments))
        return answers[-1]

    monkeypatch.setattr(Predictor, "answer", held)
    with serving(predictor) as client:
        try:
            assert begun.wait(PATIENCE)
            checked_problem(client.get("/readyz"), 503)
        finally:
            go.set()
        await_ready("", client.get)
    (first,) = answers
    assert {item.task for item in first.attention.maps} == {"lesion", "site"}
    assert first.similar.neighbours
    assert {item.given_site for item in first.by_site} == set(predictor.sites)


class TestWhatTheBundleSays:
    def test_labels(self, client, bare, predictor):
        known, *others = predictor.bundle.labels["lesion"].classes
        answer = client.get("/v1/labels").json()
        assert answer["lesions"][0] == {"name": known, "machine_made": False, "threshold": 0.25, "calibration": "platt"}
        assert [item["name"] for item in answer["lesions"][1:]] == others
        assert {item["calibration"] for item in answer["lesions"][1:]} == {"none"}
        assert [item["name"] for item in answer["sites"]] == list(predictor.sites)
        assert (answer["site_conditioning"], answer["similar"], answer["attention"]) == (True, True, True)
        assert (answer["aim"], answer["max_miss_rate"]) == ("f1", 0.1)
        assert answer["site_calibration"] == "temperature"
        answer = bare.get("/v1/labels").json()
        assert answer["site_calibration"] == "none"
        assert (answer["site_conditioning"], answer["similar"], answer["attention"]) == (False, False, True)

    def test_model(self, client, predictor):
        answer = client.get("/v1/model").json()
        assert answer["model"] == predictor.bundle.model
        assert (answer["system"], answer["backbone"], answer["recipe"]) == ("mtl", "test_resnet", "small")
        assert answer["index"]["n_photographs"] == len(predictor.index)
        assert "Not a medical device" in answer["intended_use"]
        assert str(predictor.bundle.path.parent) not in client.get("/v1/model").text

    def test_health_and_readiness(self, client):
        assert client.get("/healthz").json() == {"status": "ok"}
        client.post("/v1/predict", files=upload(photograph()))
        assert client.get("/readyz").json() == {"status": "ok"}

    def test_other_paths_and_methods(self, client):
        checked_problem(client.get("/v1/nothing"), 404)
        answer = client.get("/v1/predict")
        checked_problem(answer, 405)
        assert answer.headers["allow"] == "POST"

    def test_every_documented_field_of_an_answer_is_described(self, client):
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        for field in dataclasses.fields(PhotographAnswer):
            assert schemas["PhotographAnswer"]["properties"][field.name]["description"]

    def test_no_documentation_page_that_loads_from_elsewhere(self, client):
        for path in ("/docs", "/redoc"):
            checked_problem(client.get(path), 404)


@pytest.mark.slow
def test_an_exported_model_answers_the_same(predictor, tmp_path):
    export = pytest.importorskip("predilect.serving.export")
    pytest.importorskip("onnxruntime")
    export.export_onnx(predictor.bundle, tmp_path / "model.onnx")
    with serving(Predictor.open(predictor.bundle, runtime=f"onnx={tmp_path / 'model.onnx'}")) as exported:
        (found,) = exported.post("/v1/predict", files=upload(photograph()), data={"with": "attention"}).json()["results"]
    with serving(dataclasses.replace(predictor, fitted=type(predictor.fitted)())) as client:
        (expected,) = client.post("/v1/predict", files=upload(photograph()), data={"with": "attention"}).json()["results"]
    assert [item["name"] for item in found["lesions"]] == [item["name"] for item in expected["lesions"]]
    assert [item["score"] for item in found["lesions"]] == pytest.approx([item["score"] for item in expected["lesions"]], abs=1e-4)
    for one, other in zip(found["attention"]["maps"], expected["attention"]["maps"], strict=True):
        assert np.allclose(one["cells"], other["cells"], atol=1e-3)


def test_what_does_not_fit_the_bundle_is_refused(predictor):
    fitted = predictor.fitted
    with pytest.raises(ValueError, match="needs their rule"):
        dataclasses.replace(predictor, fitted=dataclasses.replace(fitted, rule=None))
    with pytest.raises(ValueError, match="familiarity needs"):
        dataclasses.replace(predictor, index=None)
