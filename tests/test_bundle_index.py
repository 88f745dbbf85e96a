"""The index of a bundle: what it holds, what it does not, and how a photograph is looked up in it."""

import io
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from made_golden import GOLDEN, IDS, LABELS, LESIONS, SITES, read_json
from made_run import pixels, scores_of_files
from predilect.atlas.folder import Atlas
from predilect.atlas.importers import Source
from predilect.atlas.jpeg import encode, reduce_image
from predilect.atlas.pack import PackedImages, write_packed
from predilect.bundle import Bundle
from predilect.errors import InsightError, LabelError
from predilect.files import checksum, seal
from predilect.insight.bundle_index import approximated, foremost, index_atlas, open_index, similar_cases
from predilect.insight.retrieval import EmbeddingIndex
from predilect.labels.tasks import LabelSpace, Task
from predilect.predictions import Truth
from predilect.training.devices import make_fabric
from predilect.training.inference import observe_batch


@pytest.fixture(scope="module")
def fabric():
    return make_fabric("fp32")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, made_run, fabric):
    """A copy of the bundle with an index, photographs in it."""
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    shutil.copytree(made_run.bundle.path, path)
    bundle, told = Bundle.open(path), []
    index_atlas(fabric, bundle, made_run.atlas, photographs=True, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (72, 72)
    assert told == sorted(told)
    return bundle


@pytest.fixture(scope="module")
def look(fabric, indexed):
    return partial(observe_batch, fabric, indexed.network())


@pytest.fixture
def loose(tmp_path, indexed):
    """A bundle with an index, to be spoilt."""
    shutil.copytree(indexed.path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


# --- what it holds


def test_the_index_holds_every_photograph_with_its_labels_and_credits(indexed, made_run):
    index, atlas = open_index(indexed), made_run.atlas
    assert index.photos.image_ids.tolist() == atlas.photos["image_id"].to_list()
    assert index.photos.labels == atlas.labels
    truth = atlas.truth(None)
    assert all((index.photos.values[task] == truth.values[task]).all() for task in truth.labels.names)
    assert index.model == checksum(indexed.path / "model.safetensors")
    assert index.atlas == "small"
    assert index.sources == tuple(replace(source, assessed=None) for source in atlas.sources)
    assert index.embeddings.shape == (36, 96)


def test_an_embedding_is_what_the_heads_see(indexed, made_run, look):
    """The heads' weights applied to the stored embedding give the probabilities of the photograph."""
    index, network = open_index(indexed), indexed.network()
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    logits = index.embeddings @ weights["heads.lesion.weight"].T + weights["heads.lesion.bias"]
    images = made_run.atlas.images()
    for row in (0, 17, 35):
        path = indexed.path.parent / f"{row}.jpg"
        path.write_bytes(images[row])
        scores = scores_of_files(look, network.preprocessing, [path])[path]
        assert 1 / (1 + np.exp(-logits[row])) == pytest.approx(scores["lesion"], abs=1e-5)


def test_no_patient_no_group_and_no_file_name_enter_the_bundle(indexed, made_run):
    index = indexed.path / "index"
    assert {file.name for file in index.iterdir()} == {"index.json", "embeddings.safetensors", "photos.parquet", "images.arrow"}
    assert set(pl.read_parquet(index / "photos.parquet").columns) == {"image_id", "source", *made_run.atlas.labels.columns}
    for file in index.iterdir():
        data = file.read_bytes()
        assert b"patient" not in data
        assert b".png" not in data


def test_small_versions_are_those_of_the_photographs(indexed, made_run):
    kept, images = open_index(indexed).images, made_run.atlas.images()
    for row in (0, 20, 29):
        own, alike = (np.abs(pixels(kept[row]).astype(int) - pixels(images[other])).mean() for other in (row, row + 6))
        assert own < 0.8 * alike  # encoded once more; the other one is of the same lesion and site


def test_photographs_are_kept_only_if_asked_for_and_replaced_as_a_whole(loose, made_run, fabric):
    assert (loose.path / "index" / "images.arrow").is_file()
    index = index_atlas(fabric, loose, made_run.atlas)
    assert index.images is None
    assert open_index(loose).images is None
    assert not (loose.path / "index" / "images.arrow").exists()
    assert Bundle.open(loose.path).model == loose.model  # the bundle is still whole


def noise(width, height):
    coarse = np.random.default_rng(0).integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("size", "reduced"), [((800, 600), (256, 192)), ((300, 1200), (64, 256)), ((120, 90), (120, 90))])
def test_a_reduced_photograph_is_a_small_version_of_it(size, reduced):
    whole = Image.fromarray(noise(*size))
    target = io.BytesIO()
    whole.save(target, "JPEG", quality=95, exif=Image.Exif(), comment=b"of Anna")
    image = reduce_image(target.getvalue(), 256)
    assert (image.width, image.height) == reduced
    assert b"Anna" not in image.data
    shown = Image.open(io.BytesIO(image.data))
    assert shown.size == reduced
    expected = np.asarray(whole.resize(reduced, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(shown).astype(int) - expected).mean() < 4


def test_ready_jpegs_are_packed_in_batches_and_read_back(tmp_path):
    images = [encode(np.full((20, 16 + k, 3), k, np.uint8)) for k in range(130)]
    ids = [f"p{k}" for k in range(130)]
    write_packed(ids, iter(images), tmp_path / "images.arrow")
    with PackedImages(tmp_path / "images.arrow") as packed:
        assert packed.image_ids.tolist() == ids
        assert [bytes(packed[k]) for k in range(130)] == [image.data for image in images]
    with pytest.raises(ValueError, match="shorter"):
        write_packed(ids[:5], images[:4], tmp_path / "other.arrow")
    assert not (tmp_path / "other.arrow").exists()


def test_the_golden_index_reads_as_it_says():
    index = EmbeddingIndex.load(GOLDEN / "bundle" / "index")
    assert index.photos.image_ids.tolist() == IDS
    assert index.photos.labels == LABELS
    assert [values.tolist() for values in index.photos.values.values()] == [LESIONS, SITES]
    assert index.photos.groups is None
    assert index.model == read_json(GOLDEN / "bundle" / "bundle.json")["files"]["model.safetensors"]
    assert index.atlas == "atlas"
    assert [(source.name, source.licence, source.credit) for source in index.sources] == [
        (name, "CC0-1.0", "drawn by Predilect") for name in ("archive", "clinic A")
    ]
    assert index.embeddings.shape == (7, 96)
    assert np.linalg.norm(index.embeddings[0] - index.embeddings[1]) < np.linalg.norm(index.embeddings[0] - index.embeddings[2])
    with PackedImages(GOLDEN / "atlas" / "images.arrow") as images:
        for row in range(7):
            assert np.abs(pixels(index.images[row]).astype(int) - pixels(images[row])).mean() < 8


# --- looking up


def write_row(atlas: Atlas, row: int, folder) -> object:
    path = folder / "query.jpg"
    path.write_bytes(atlas.images()[row])
    return path


def test_a_photograph_of_the_atlas_finds_itself_first(indexed, made_run, look, tmp_path):
    index = open_index(indexed)
    found = similar_cases(look, indexed.preprocessing, index, write_row(made_run.atlas, 4, tmp_path), 5, model=indexed.model)
    assert found.neighbours.positions[0, 0] == 4
    assert found.neighbours.distances[0, 0] == pytest.approx(0, abs=1e-4)
    apart = np.linalg.norm(index.embeddings.astype(float) - index.embeddings[4], axis=1)
    assert found.neighbours.distances[0] == pytest.approx(np.sort(apart)[:5], abs=1e-4)


def test_only_cases_that_pass_the_filters_answer(indexed, made_run, look, tmp_path):
    index, image = open_index(indexed), write_row(made_run.atlas, 4, tmp_path)
    how = {"lesion": "crust", "site": "face", "metric": "cosine"}
    found = similar_cases(look, indexed.preprocessing, index, image, 3, model=indexed.model, **how)
    for row in found.neighbours.positions[0]:
        assert "crust" in index.photos.present("lesion", row)
        assert index.photos.present("site", row) == ("face",)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"k": 99}, InsightError, "k is 99, but only 36 can answer: the index holds 36 photographs"),
        ({"lesion": "crusts"}, LabelError, "unknown lesion 'crusts': did you mean 'crust'"),
        ({"site": "fase"}, LabelError, "unknown site 'fase': did you mean 'face'"),
        ({"model": "other"}, InsightError, "was made by the model"),
    ],
)
def test_what_cannot_be_answered_is_told(indexed, made_run, look, tmp_path, how, error, message):
    image = write_row(made_run.atlas, 4, tmp_path)
    with pytest.raises(error, match=message):
        similar_cases(look, indexed.preprocessing, open_index(indexed), image, **{"k": 5, "model": indexed.model, **how})


def test_an_unreadable_photograph_is_named(indexed, look, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for name in ("broken.jpg", "missing.jpg"):
        with pytest.raises(InsightError, match=name):
            similar_cases(look, indexed.preprocessing, open_index(indexed), tmp_path / name, 1, model=indexed.model)


def test_a_bundle_without_an_index_says_how_to_make_one(made_run):
    with pytest.raises(InsightError, match=r"holds no index to look in; make one with: predilect index .*bundle ATLAS"):
        open_index(made_run.bundle)


def test_an_index_of_another_network_is_refused(loose):
    info = json.loads((loose.path / "index" / "index.json").read_text())
    del info["sha256"]
    (loose.path / "index" / "index.json").write_text(json.dumps(seal({**info, "model": "0" * 64})))
    with pytest.raises(InsightError, match=r"made by another network \(its id is '000000000000', .* make it again with"):
        open_index(loose)


def test_an_empty_index_is_refused(loose):
    folder = loose.path / "index"
    save_file({"embeddings": load_file(folder / "embeddings.safetensors")["embeddings"][:0]}, folder / "embeddings.safetensors")
    info = json.loads((folder / "index.json").read_text())
    del info["sha256"]
    info["files"]["embeddings.safetensors"] = checksum(folder / "embeddings.safetensors")
    (folder / "index.json").write_text(json.dumps(seal(info)))
    with pytest.raises(InsightError, match="the index is empty"):
        open_index(loose)


@pytest.mark.parametrize("name", ["index.json", "embeddings.safetensors", "photos.parquet", "images.arrow"])
def test_a_missing_or_changed_file_is_refused(loose, name):
    file = loose.path / "index" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InsightError, match=f"{name}.*make the index again"):
        open_index(loose)
    file.unlink()
    with pytest.raises(InsightError, match=f"{name}: there is no such file"):
        open_index(loose)


def test_photographs_of_other_cases_are_refused(loose):
    folder = loose.path / "index"
    write_packed([f"x{k}" for k in range(36)], [encode(np.zeros((16, 16, 3), np.uint8))] * 36, folder / "images.arrow")
    info = json.loads((folder / "index.json").read_text())
    del info["sha256"]
    info["files"]["images.arrow"] = checksum(folder / "images.arrow")
    (folder / "index.json").write_text(json.dumps(seal(info)))
    with pytest.raises(InsightError, match=r"does not hold the photographs of photos\.parquet"):
        open_index(loose)


def test_an_approximate_search_needs_photographs(indexed):
    with pytest.raises(InsightError, match="at least 2,000 photographs, the index holds 36"):
        approximated(open_index(indexed), "euclidean")


def test_an_approximate_search_finds_the_same_among_many(indexed):
    small = open_index(indexed)
    many = np.random.default_rng(0).integers(0, 36, 2000)
    ids, values = np.array([f"p{k}" for k in range(2000)]), {task: rows[many] for task, rows in small.photos.values.items()}
    photos = Truth(ids, small.photos.labels, values, None, pl.DataFrame())
    jitter = np.random.default_rng(1).normal(0, 0.01, (2000, 96)).astype(np.float32)
    index = EmbeddingIndex(small.embeddings[many] + jitter, photos, small.model)
    made = approximated(index, "euclidean")
    assert made.cells.recall >= 0.9
    asked = index.embeddings[:20].copy()
    exact, found = (one.search(asked, 1, model=small.model).image_ids for one in (index, made))
    assert (exact == found).mean() > 0.9


# --- what a photograph is taken for


@pytest.mark.parametrize(
    ("lesions", "expected"),
    [([0.2, 0.9, 0.6], ("b", "c")), ([0.2, 0.4, 0.3], ("b",)), ([0.5, 0.5, 0.1], ("a", "b")), ([0.0, 0.0, 0.0], ("a",))],
)
def test_lesions_from_one_half_on_or_the_most_probable_one(lesions, expected):
    labels = LabelSpace((Task("lesion", ("a", "b", "c")), Task("site", ("x", "y"))))
    scores = {"lesion": np.array(lesions, np.float32), "site": np.array([0.3, 0.7], np.float32)}
    found = foremost(labels, scores)
    assert found["lesion"] == expected
    assert found["site"] == ("y",)
    assert foremost(labels.restricted_to(["site"]), {"site": scores["site"]}) == {"site": ("y",)}


def test_sources_come_back_with_their_notes(tmp_path, indexed):
    index = replace(
        open_index(indexed),
        sources=(
            Source(name="s", title="S", licence="CC-BY-4.0", credit="by T", notes=("One.", "Two."), assessed=frozenset({"a"})),
        ),
    )
    index.save(tmp_path / "index")
    assert EmbeddingIndex.load(tmp_path / "index").sources == (replace(index.sources[0], assessed=None),)
