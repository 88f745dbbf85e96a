"""A bundle as an ONNX file: the same answers as PyTorch's, nothing written where they are not, and nothing else taken for it."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from made_photographs import drawn
from made_run import scores_of_files
from predilect import cli
from predilect.bundle import Bundle, write_bundle
from predilect.errors import ServingError
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Preprocessing, Recipe, system
from predilect.serving import export
from predilect.serving.export import TOLERANCE, export_onnx
from predilect.serving.onnx import OnnxRuntime, seal_model
from predilect.serving.runtime import TorchRuntime, open_runtime
from predilect.training.crossval import Refit
from predilect.vision.network import build_network

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def bundle(made_run):
    return made_run.bundle


@pytest.fixture(scope="module")
def model(bundle, tmp_path_factory):
    """The file; it is made once, for that takes seconds."""
    path = tmp_path_factory.mktemp("exports") / "model.onnx"
    assert export_onnx(bundle, path) < TOLERANCE
    return path


@pytest.fixture(scope="module")
def unsealed(model):
    return model.read_bytes()[: -len(seal_model(b""))]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Files of many shapes, some of which need turning; the last is larger than what an atlas keeps."""
    folder = tmp_path_factory.mktemp("photographs")
    files = []
    for k, (height, width, turn, ending) in enumerate(
        [(48, 61, 1, "jpg"), (97, 64, 6, "jpg"), (64, 97, 8, "jpg"), (33, 47, 3, "jpg"), (40, 40, 5, "png"), (530, 801, 6, "jpg")]
    ):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        files.append(folder / f"{k}.{ending}")
        Image.fromarray(drawn(height, width, k)).save(files[-1], exif=exif)
    return files


def scores(runtime, bundle, files):
    found = scores_of_files(runtime.observe, bundle.preprocessing, files)
    return {task: np.stack([found[file][task] for file in files]) for task in bundle.labels.names}


def test_photographs_get_the_scores_that_pytorch_gives_them(bundle, model, photographs):
    expected, found = (
        scores(runtime, bundle, photographs) for runtime in (TorchRuntime.of(bundle), OnnxRuntime.open(model, bundle))
    )
    assert np.ptp(expected["lesion"], axis=0).max() > 10 * TOLERANCE  # the photographs differ by more than the runtimes may
    for task in ("lesion", "site"):
        assert np.abs(found[task] - expected[task]).max() < TOLERANCE


def test_a_photograph_that_must_be_turned_gets_the_scores_of_the_turned_one(bundle, model, tmp_path):
    upright, exif = Image.fromarray(drawn(64, 90)), Image.Exif()
    exif[ORIENTATION] = 6  # to be turned clockwise for viewing
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    both = scores(OnnxRuntime.open(model, bundle), bundle, [tmp_path / "upright.png", tmp_path / "turned.png"])
    assert (both["lesion"][0] == both["lesion"][1]).all()


@pytest.mark.parametrize("n", [1, 3])
def test_batches_of_squares_give_all_that_pytorch_gives(bundle, model, n):
    squares = torch.from_numpy(np.stack([drawn(32, 32, seed).transpose(2, 0, 1) for seed in range(n)]))
    expected, found = TorchRuntime.of(bundle).observe(squares), OnnxRuntime.open(model, bundle).observe(squares)
    assert found.scores.keys() == expected.scores.keys() == {"lesion", "site"}
    for task, values in expected.scores.items():
        assert torch.allclose(found.scores[task], values, rtol=0, atol=1e-5)
    assert torch.allclose(found.embedding, expected.embedding, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found.feature_map, expected.feature_map, rtol=1e-4, atol=1e-4)
    assert found.feature_map.shape[:2] == (n, 96)


def test_the_graph_takes_whole_photographs(bundle, model, tmp_path):
    """A photograph in a JPEG that neither is turned nor loses detail in decoding: the file's own pixels are all there is to it."""
    Image.fromarray(drawn(45, 60)).save(tmp_path / "p.jpg")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    lesion, site = session.run(["lesion", "site"], {"photographs": np.asarray(Image.open(tmp_path / "p.jpg"))[None]})
    expected = scores(TorchRuntime.of(bundle), bundle, [tmp_path / "p.jpg"])
    assert np.abs(lesion - expected["lesion"]).max() < TOLERANCE
    assert np.abs(site - expected["site"]).max() < TOLERANCE


def test_the_program_of_the_docs_prints_what_predict_says(bundle, model, tmp_path, monkeypatch, capsys):
    Image.fromarray(drawn(45, 60)).save(tmp_path / "p.jpg")
    text = (Path(__file__).parents[1] / "docs" / "onnx.md").read_text(encoding="utf-8")
    program = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.setattr("sys.argv", ["program.py", str(model), str(tmp_path / "p.jpg")])
    exec(compile(program, "docs/onnx.md", "exec"), {})
    intended, *lines = capsys.readouterr().out.splitlines()
    assert "Not a medical device" in intended
    expected = scores(TorchRuntime.of(bundle), bundle, [tmp_path / "p.jpg"])
    best = {task: (values[0].max(), bundle.labels[task].classes[values[0].argmax()]) for task, values in expected.items()}
    for task, first in zip(("lesion", "site"), (lines[0], lines[3]), strict=True):
        _, found, probability, name = first.split("  ")
        assert (found, name) == (task, best[task][1])
        assert float(probability) == pytest.approx(best[task][0], abs=2 * TOLERANCE)


def test_ten_crops_are_averaged_as_pytorch_averages_them(bundle):
    ten = dataclasses.replace(bundle, preprocessing=bundle.preprocessing.model_copy(update={"views": "ten-crop", "crop": 24}))
    whole = torch.from_numpy(np.stack([drawn(32, 32, seed) for seed in range(2)]))
    expected = TorchRuntime.of(ten).observe(whole.permute(0, 3, 1, 2))
    with torch.no_grad():
        lesion, site, embedding, feature_map = export._Graph(ten.network())(whole)
    assert torch.allclose(lesion, expected.scores["lesion"], atol=1e-6)
    assert torch.allclose(site, expected.scores["site"], atol=1e-6)
    assert torch.allclose(embedding, expected.embedding, atol=1e-5)
    assert torch.allclose(feature_map, expected.feature_map, atol=1e-5)
    assert not torch.allclose(lesion, TorchRuntime.of(bundle).observe(whole.permute(0, 3, 1, 2)).scores["lesion"], atol=1e-4)


def test_the_file_says_what_it_is(bundle, model):
    loaded = onnx.load(model)
    onnx.checker.check_model(loaded)
    told = {entry.key: entry.value for entry in loaded.metadata_props}
    info = json.loads((bundle.path / "bundle.json").read_text())
    assert told["schema_version"] == "1"
    assert told["model"] == bundle.model
    assert told["system"] == "mtl"
    for key in ("labels", "preprocessing", "calibration", "licences"):
        assert json.loads(told[key]) == info[key]
    assert json.loads(told["sources"]) == info["provenance"]["sources"]
    assert "Not a medical device" in told["intended_use"]
    assert [(entry.domain, entry.version) for entry in loaded.opset_import] == [("", 18)]
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*loaded.graph.input, *loaded.graph.output)
    }
    assert shapes == {
        "photographs": ["batch", "height", "width", 3],
        "lesion": ["batch", 3],
        "site": ["batch", 2],
        "embedding": ["batch", 96],
        "feature_map": ["batch", 96, 1, 1],
    }


def test_the_heads_are_found_by_their_names_for_maps_of_attention(bundle, model):
    """What docs/onnx.md says: the weights of a head times the feature map, averaged over places, are its logits without bias."""
    loaded = onnx.load(model)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer}
    runtime = OnnxRuntime.open(model, bundle)
    seen = runtime.observe(torch.from_numpy(drawn(32, 32).transpose(2, 0, 1)[None]))
    weight, bias = (tensors[f"network.heads.lesion.{name}"] for name in ("weight", "bias"))
    maps = np.einsum("cd,bdhw->bchw", weight, seen.feature_map.numpy())
    probability = 1 / (1 + np.exp(-maps.mean(axis=(2, 3)) - bias))
    assert probability == pytest.approx(seen.scores["lesion"].numpy(), abs=1e-5)


def test_nothing_of_this_machine_is_in_the_file(model):
    data = model.read_bytes()
    for trace in (b"site-packages", b"forward", b".py", str(export.__file__).encode()):
        assert trace not in data


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[:999] + b"~" + data[1000:], lambda _: b""]
)
def test_a_changed_file_is_refused(bundle, model, tmp_path, change):
    path = tmp_path / "model.onnx"
    assert change(model.read_bytes()) != model.read_bytes()
    path.write_bytes(change(model.read_bytes()))
    with pytest.raises(ServingError, match=r"model\.onnx is not what predilect export wrote .*; export it with: predilect export"):
        OnnxRuntime.open(path, bundle)


def test_a_model_of_another_program_or_of_no_use_is_refused(bundle, unsealed, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(unsealed)
    with pytest.raises(ServingError, match="checksum is missing"):
        OnnxRuntime.open(path, bundle)
    later = onnx.load_model_from_string(unsealed)
    later.ir_version = 99
    path.write_bytes(seal_model(later.SerializeToString()))
    with pytest.raises(ServingError, match=r"ONNX Runtime [\d.]+ cannot run .*model\.onnx: .*99"):
        OnnxRuntime.open(path, bundle)
    path.write_bytes(seal_model(unsealed.replace(b"\x0eschema_version\x12\x011", b"\x0eschema_version\x12\x012")))
    with pytest.raises(ServingError, match="schema version '2'; this version of Predilect reads '1'"):
        OnnxRuntime.open(path, bundle)


@pytest.mark.parametrize("data", [b"", b"no model at all", bytes(1000)])
def test_what_was_sealed_and_is_no_model_is_refused(bundle, tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(seal_model(data))
    with pytest.raises(ServingError, match=r"model\.onnx"):
        OnnxRuntime.open(path, bundle)


@pytest.mark.parametrize(
    ("key", "value"), [("model", None), ("labels", None), ("labels", "{"), ("preprocessing", None), ("preprocessing", "3")]
)
def test_a_model_that_does_not_say_whose_it_is_is_refused(bundle, unsealed, tmp_path, key, value):
    path, silent = tmp_path / "model.onnx", onnx.load_model_from_string(unsealed)
    told = {item.key: item.value for item in silent.metadata_props} | {key: value}
    del silent.metadata_props[:]
    onnx.helper.set_model_props(silent, {name: item for name, item in told.items() if item is not None})
    path.write_bytes(seal_model(silent.SerializeToString()))
    with pytest.raises(ServingError, match="does not say as predilect export does whose model it is; export it with"):
        OnnxRuntime.open(path, bundle)


def test_the_model_of_another_bundle_or_for_other_views_is_refused(bundle, model):
    with pytest.raises(
        ServingError, match=r"was exported from another bundle than .*bundle; export it with: predilect export .*--out"
    ):
        OnnxRuntime.open(model, dataclasses.replace(bundle, model="0" * 64))
    ten = dataclasses.replace(bundle, preprocessing=bundle.preprocessing.model_copy(update={"views": "ten-crop"}))
    with pytest.raises(ServingError, match=r"exported with views = 'center', wanted is 'ten-crop'; .* --tta ten-crop$"):
        OnnxRuntime.open(model, ten)
    with pytest.raises(ServingError, match=r"exported with test_side = 32, wanted is 40"):
        OnnxRuntime.open(
            model, dataclasses.replace(bundle, preprocessing=bundle.preprocessing.model_copy(update={"test_side": 40}))
        )


@pytest.mark.parametrize(
    ("name", "wrong"), [("network.heads.site.bias", 0.01), ("network.heads.lesion.weight", float("nan"))], ids=["bias", "nan"]
)
def test_a_model_with_a_wrong_weight_is_not_written(bundle, unsealed, tmp_path, monkeypatch, name, wrong):
    loaded = onnx.load_model_from_string(unsealed)
    tensor = next(tensor for tensor in loaded.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += wrong
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    monkeypatch.setattr(export, "_exported", lambda *_: loaded.SerializeToString())
    with pytest.raises(
        ServingError, match=r"was not exported: the probabilities of (site|lesion) .* allowed is 1e-04; nothing was written"
    ):
        export_onnx(bundle, tmp_path / "new" / "model.onnx")
    assert not (tmp_path / "new").exists()


def test_a_wrong_feature_map_is_noticed_too(bundle, unsealed, tmp_path, monkeypatch):
    loaded = onnx.load_model_from_string(unsealed)
    node = next(node for node in loaded.graph.node if "feature_map" in node.output)
    node.output[:] = ["right" if name == "feature_map" else name for name in node.output]
    half = numpy_helper.from_array(np.float32(0.5), "half")
    loaded.graph.initializer.append(half)
    loaded.graph.node.append(onnx.helper.make_node("Mul", ["right", "half"], ["feature_map"]))
    monkeypatch.setattr(export, "_exported", lambda *_: loaded.SerializeToString())
    with pytest.raises(ServingError, match="feature maps of ONNX Runtime differ"):
        export_onnx(bundle, tmp_path / "model.onnx")


def test_another_ending_is_refused_before_any_work(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "_exported", lambda *_: pytest.fail("a graph was made"))
    assert leave("export", bundle.path, "--out", tmp_path / "keep.jpg") == 1
    shown = capsys.readouterr()
    assert shown.err == f"error --out {tmp_path / 'keep.jpg'}: the name of an exported model ends in .onnx\n"
    assert "the graph is made" not in shown.out
    assert not (tmp_path / "keep.jpg").exists()


def test_only_an_earlier_export_is_replaced(bundle, unsealed, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_exported", lambda *_: unsealed)
    (tmp_path / "notes.onnx").write_text("mine")
    for path in (tmp_path / "notes.onnx", tmp_path):
        with pytest.raises(ServingError, match="already exists and is no exported model"):
            export_onnx(bundle, path)
    assert (tmp_path / "notes.onnx").read_text() == "mine"
    (tmp_path / "model.onnx").write_bytes(seal_model(b"an earlier one"))
    export_onnx(bundle, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == seal_model(unsealed)


def test_a_network_that_is_too_large_or_cannot_be_traced_is_refused_in_one_sentence(bundle, tmp_path, monkeypatch, capfd):
    class Deciding(torch.nn.Module):
        def forward(self, photographs):
            return (photographs.float().sum(dim=(1, 2, 3)) if photographs.sum() > 0 else photographs.float(),)

    monkeypatch.setattr(export, "_Graph", lambda _: Deciding())
    with pytest.raises(ServingError, match=r"bundle was not exported: torch cannot trace the backbone test_resnet: [^\n]+$"):
        export_onnx(bundle, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(export, "_MAX_BYTES", 1000)
    with pytest.raises(ServingError, match="more than 2 GB of weights"):
        export_onnx(bundle, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(bundle, model, tmp_path, monkeypatch):
    for package, use in (
        ("onnxscript", lambda: export_onnx(bundle, tmp_path / "model.onnx")),
        ("onnxruntime", lambda: OnnxRuntime.open(model, bundle)),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ServingError, match=rf"needs the package {package}: pip install 'predilect\[onnx\]'"):
            use()


def test_a_runtime_is_chosen_by_name(bundle, model):
    assert isinstance(open_runtime(bundle, "torch"), TorchRuntime)
    assert isinstance(open_runtime(bundle, f"onnx={model}"), OnnxRuntime)
    for wrong in ("tensorrt", "onnx=", "torch=x", ""):
        with pytest.raises(ServingError, match="allowed are torch, onnx and onnx=FILE"):
            open_runtime(bundle, wrong)
    with pytest.raises(ServingError, match=r"model\.onnx cannot be read \(No such file.*predilect export \S*bundle$"):
        open_runtime(bundle, "onnx")
    with pytest.raises(ServingError, match=r"predilect export \S*bundle --out \S*elsewhere\.onnx$"):
        open_runtime(bundle, f"onnx={bundle.path / 'elsewhere.onnx'}")
    with pytest.raises(
        ServingError, match=r"is not what predilect export wrote .*; give the \.onnx file that predilect export made$"
    ):
        open_runtime(bundle, f"onnx={bundle.path / 'card.md'}")


def leave(*arguments):
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    return left.value.code


def test_the_commands_export_and_predict(bundle, unsealed, photographs, monkeypatch, capsys):
    monkeypatch.setattr(export, "_exported", lambda *_: unsealed)
    try:
        assert leave("export", bundle.path) == 0
        shown = capsys.readouterr()
        assert f"model     {bundle.path / 'model.onnx'} (2 MB)" in shown.out
        assert "allowed is 1e-04" in shown.out
        assert shown.err == ""
        Bundle.open(bundle.path)
        answers = []
        for runtime in ("torch", "onnx"):
            assert leave("predict", bundle.path, *photographs, "--format", "json", "--runtime", runtime) == 0
            answers.append(json.loads(capsys.readouterr().out)["results"])
    finally:
        (bundle.path / "model.onnx").unlink(missing_ok=True)
    for first, second, file in zip(*answers, photographs, strict=True):
        assert first["name"] == second["name"] == str(file)
        for task in ("lesions", "site"):
            mine, others = ({item["name"]: item["probability"] for item in each[task]} for each in (first, second))
            assert others == pytest.approx(mine, abs=TOLERANCE)


def test_predict_without_an_export_says_how_to_make_one(bundle, photographs, capsys):
    assert leave("predict", bundle.path, photographs[0], "--runtime", "onnx") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.endswith(f"export it with: predilect export {bundle.path}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "crop", "views"),
    [
        ("test_resnet", 32, "ten-crop"),
        ("resnet50", 64, "center"),
        ("alexnet", 96, "center"),
        ("convnext_atto", 64, "center"),
        ("efficientnet_b0", 64, "ten-crop"),
        ("test_mambaout", 32, "ten-crop"),
        ("vit_tiny_patch16_224", 224, "center"),
    ],
)
def test_backbones_of_every_kind_are_exported(tmp_path, backbone, crop, views, capfd):
    preprocessing = Preprocessing(crop=crop, jitter=(crop, crop), test_side=crop + 6, views=views)
    recipe = Recipe(name="untrained", backbone=backbone, weights="none", preprocessing=preprocessing)
    labels = LabelSpace((Task("lesion", ("papule", "crust")), Task("site", ("arm", "face", "hand"))))
    refit = Refit(system("mtl", recipe), build_network(labels, recipe, 1).eval(), {"sources": []})
    bundle = write_bundle(tmp_path / "bundle", refit)
    assert export_onnx(bundle, tmp_path / "model.onnx") < TOLERANCE
    assert capfd.readouterr() == ("", "")
    seen = OnnxRuntime.open(tmp_path / "model.onnx", bundle).observe_photographs(drawn(90, 120)[None])
    assert (seen.feature_map is None) == (backbone == "vit_tiny_patch16_224")
