"""Attention of photographs as files: which files count, what they are called, and what is in what is written."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from predilect.atlas.jpeg import prepare_image
from predilect.errors import AtlasError, InsightError
from predilect.insight.attention import Explainer
from predilect.insight.panels import find_photographs, write_attention
from predilect.labels.tasks import LabelSpace, Task
from predilect.recipe import Preprocessing, Recipe
from predilect.training.devices import make_fabric
from predilect.vision.network import build_network

BOTH = LabelSpace((Task("lesion", ("crust", "macule", "scale")), Task("site", ("arm", "face"))))
WANTED = {"lesion": None, "site": None}


@pytest.fixture(scope="module")
def explainer():
    preprocessing = Preprocessing(crop=64, jitter=(72, 80), test_side=72)
    network = build_network(BOTH, Recipe(name="r", backbone="test_resnet", weights="none", preprocessing=preprocessing), 1)
    network.backbone.init_weights(zero_init_last=False)
    return Explainer.of(make_fabric("fp32"), network)


@pytest.fixture(autouse=True)
def _small_panels(monkeypatch):
    """Drawing is not what is tested here."""
    monkeypatch.setattr("predilect.report.style.PNG_DPI", 40)


def photograph(path, width=90, height=70, **options):
    coarse = np.random.default_rng(3).integers(0, 256, size=(6, 7, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, **options)
    return path


# --- which files


def test_files_and_folders_at_any_depth_each_once(tmp_path):
    one, two = photograph(tmp_path / "in" / "a.jpg"), photograph(tmp_path / "in" / "deep" / "b.PNG")
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / "link.jpg").symlink_to(one)
    (tmp_path / "in" / ".hidden.jpg").write_bytes(b"")
    files, n_others = find_photographs([one, tmp_path / "in", one], tmp_path / "out")
    assert files == {"a": one, "b": two}
    assert n_others == 2


def test_equal_names_are_numbered_and_never_meet(tmp_path):
    paths = [tmp_path / name for name in ("x/1.jpg", "y/1.jpg", "1-2.png", "z/1.PNG", "A.jpg", "a.jpg")]
    files, n_others = find_photographs(paths, tmp_path / "out")
    assert files == dict(zip(["1", "1-2", "1-2-2", "1-3", "A", "a-2"], paths, strict=True))
    assert n_others == 0


@pytest.mark.parametrize("out", [".", "in", "in/deep/new"])
def test_panels_are_not_put_among_the_photographs(tmp_path, out):
    photograph(tmp_path / "in" / "a.jpg")
    with pytest.raises(InsightError, match="would be taken for photographs next time"):
        find_photographs([tmp_path / "in"] if out != "." else [tmp_path], tmp_path / out)


def test_a_panel_replaces_no_photograph(tmp_path):
    paths = [photograph(tmp_path / "a.jpg"), photograph(tmp_path / "a.attention.png")]
    with pytest.raises(InsightError, match=r"the panel of .*a\.jpg would replace the photograph .*a\.attention\.png"):
        find_photographs(paths, tmp_path)
    assert len(find_photographs(paths, tmp_path / "out")[0]) == 2


@pytest.mark.parametrize("out", [".", "", "deep/.."])
def test_a_panel_replaces_no_photograph_however_the_folder_is_spelled(tmp_path, monkeypatch, out):
    paths = [photograph(tmp_path / "a.jpg"), photograph(tmp_path / "a.attention.png")]
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    for given in (paths, [paths[0], Path("a.attention.png")]):
        with pytest.raises(InsightError, match=r"would replace the photograph .*a\.attention\.png"):
            find_photographs(given, Path(out))
    assert len(find_photographs(paths, Path("out"))[0]) == 2


def test_a_panel_replaces_no_photograph_in_a_folder_with_another_name(tmp_path):
    paths = [photograph(tmp_path / "in" / "a.jpg"), photograph(tmp_path / "in" / "a.attention.png")]
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(InsightError, match="would replace the photograph"):
        find_photographs(paths, tmp_path / "link")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    with pytest.raises(AtlasError, match=r"in holds no image file; known endings are \.avif"):
        find_photographs([tmp_path / "in"], tmp_path / "out")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("predilect.atlas.importers.find_images.os.scandir", refuse)
    (tmp_path / "in").mkdir()
    with pytest.raises(AtlasError, match="Permission denied"):
        find_photographs([tmp_path / "in"], tmp_path / "out")


# --- what is written


def chunks(png):
    """Kinds of the chunks of a PNG."""
    kinds, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kinds.append(png[at + 4 : at + 8].decode())
        assert zlib.crc32(png[at + 4 : at + 8 + length]) == struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0]
        at += 12 + length
    return kinds


def test_the_raw_map_lies_over_the_photograph_as_an_atlas_would_pack_it(explainer, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    path = photograph(tmp_path / "in" / "a.jpg", 1200, 800, exif=exif)
    found = write_attention(explainer, {"a": path}, tmp_path / "out", {"lesion": "scale", "site": None})["a"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.attention.png", "a.lesion.npy", "a.site.npy"}
    packed = prepare_image(path, 512)
    assert (packed.width, packed.height) == (512, 768)
    expected = explainer.photograph(packed.data, {"lesion": ("scale",), "site": None})
    assert [item.name for item in found] == ["scale", expected["site"][0].name]
    for task, (item,) in expected.items():
        values = np.load(tmp_path / "out" / f"a.{task}.npy", allow_pickle=False)
        assert values.dtype == np.float32
        assert values.shape == (768, 512)
        np.testing.assert_allclose(values, item.over(512, 768), atol=1e-6)


def test_nothing_of_the_files_own_metadata_is_in_the_panel(explainer, tmp_path):
    exif = Image.Exif()
    exif[0x010E], exif[0x8825] = "Anna Example", {1: "N", 2: (52.0, 31.0, 12.0)}
    path = photograph(tmp_path / "anna.jpg", exif=exif, comment=b"Anna Example")
    write_attention(explainer, {"1": path}, tmp_path / "out", WANTED)
    png = (tmp_path / "out" / "1.attention.png").read_bytes()
    assert set(chunks(png)) <= {"IHDR", "pHYs", "IDAT", "IEND"}
    assert b"nna" not in png.replace(b"IDAT", b"")[:200]
    assert Image.open(io.BytesIO(png)).info.keys() <= {"dpi"}


def test_a_broken_photograph_is_told_and_the_others_go_on(explainer, tmp_path):
    good, told = photograph(tmp_path / "good.png"), []
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    files = {"broken": tmp_path / "broken.jpg", "missing": tmp_path / "missing.jpg", "good": good}
    found = write_attention(explainer, files, tmp_path / "out", WANTED, on_progress=lambda *at: told.append(at))
    assert isinstance(found["broken"], str)
    assert isinstance(found["missing"], str)
    assert [item.task for item in found["good"]] == ["lesion", "site"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"good.attention.png", "good.lesion.npy", "good.site.npy"}


def test_a_second_look_replaces_the_first(explainer, tmp_path):
    path = photograph(tmp_path / "a.png")
    arrays = []
    for name in ("crust", "macule"):
        write_attention(explainer, {"a": path}, tmp_path / "out", {"lesion": name})
        arrays.append(np.load(tmp_path / "out" / "a.lesion.npy"))
    assert not np.allclose(*arrays)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.attention.png", "a.lesion.npy"}
