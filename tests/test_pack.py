from __future__ import annotations

import io
import multiprocessing
import pickle
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageCms

from made_images import UPRIGHT
from predilect.atlas.jpeg import prepare_image
from predilect.atlas.pack import MAX_SIDE, ROWS_PER_BATCH, PackedImages, Packing, pack_images
from predilect.errors import AtlasError

GPS, ORIENTATION = 0x8825, 0x0112


def _picture(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth, in colour, and different in every corner."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, "JPEG", **options)
    return target.getvalue()


def _pixels(data: bytes | memoryview) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(np.int16)


def _prepare(tmp_path: Path, data: bytes, name: str = "a.jpg", max_side: int = MAX_SIDE):
    (tmp_path / name).write_bytes(data)
    return prepare_image(tmp_path / name, max_side)


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2) + payload


class TestPreparing:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("ending", ["jpg", "png"])
    def test_every_orientation_comes_out_upright(self, tmp_path, orientation, ending):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = tmp_path / f"a.{ending}"
        _picture().save(path, exif=exif, **({"quality": 98, "subsampling": 0} if ending == "jpg" else {}))
        prepared = prepare_image(path, MAX_SIDE)
        expected = UPRIGHT[orientation](np.asarray(_picture()).astype(np.int16))
        assert (prepared.height, prepared.width) == expected.shape[:2]
        assert np.abs(_pixels(prepared.data) - expected).mean() < 3

    @pytest.mark.parametrize("copied", [True, False])
    def test_nothing_of_the_metadata_is_left(self, tmp_path, copied):
        exif = Image.Exif()
        exif[0x010F] = "Camera of Jane Doe"
        exif.get_ifd(GPS).update({1: "N", 2: (48.0, 12.0, 30.0)})
        if not copied:
            exif[ORIENTATION] = 6
        data = _jpeg(_picture(), exif=exif, comment=b"Jane Doe, ward 7", xmp=b"<x:xmpmeta>Jane Doe</x:xmpmeta>", dpi=(300, 300))
        thumbnail = _segment(0xE0, b"JFIF\x00\x01\x02\x01\x00\x48\x00\x48\x02\x01" + b"secret")
        data = data[:2] + thumbnail + data[20:]
        assert data.count(b"Jane Doe") == 3
        assert Image.open(io.BytesIO(data)).getexif().get_ifd(GPS)
        prepared = _prepare(tmp_path, data + b"second image: Jane Doe")
        for trace in (b"Jane", b"Exif", b"secret", b"xmp", b"second"):
            assert trace not in prepared.data
        with Image.open(io.BytesIO(prepared.data)) as image:
            assert not image.getexif()
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}

    @pytest.mark.parametrize(
        "options",
        [{"quality": 60}, {"quality": 90, "subsampling": 0}, {"progressive": True}, {"keep_rgb": True}, {"restart_marker_rows": 1}],
    )
    def test_a_jpeg_that_needs_no_change_keeps_its_pixels(self, tmp_path, options):
        data = _jpeg(_picture(97, 61), comment=b"to be gone", **options)
        prepared = _prepare(tmp_path, data)
        assert np.array_equal(_pixels(prepared.data), _pixels(data))
        assert len(prepared.data) == len(data) - len(_segment(0xFE, b"to be gone"))
        assert (prepared.width, prepared.height) == (97, 61)
        assert prepared.sha256 == sha256(prepared.data).hexdigest()

    def test_segments_between_scans_are_followed_as_well(self, tmp_path):
        data = _jpeg(_picture(), progressive=True)
        second_scan = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
        comment = _segment(0xFE, b"Jane Doe \xff\xd9 \xff\xda")  # looks like the end of the image, and is not
        prepared = _prepare(tmp_path, data[:second_scan] + comment + data[second_scan:])
        assert prepared.data == data

    def test_of_a_telephones_double_image_the_first_is_taken(self, tmp_path):
        first, second = _picture(seed=1), _picture(seed=2)
        first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
        prepared = prepare_image(tmp_path / "a.jpg", MAX_SIDE)
        assert np.array_equal(_pixels(prepared.data), _pixels(_jpeg(first)))
        assert prepared.data.count(b"\xff\xd8\xff") == 1

    def test_colours_stay_when_only_adobe_tells_how_they_are_coded(self, tmp_path):
        plain = _jpeg(_picture(), keep_rgb=True)
        adobe = _segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x00" + b"and more")
        start = plain.index(b"\xff\xdb")
        # Component ids 1, 2, 3 instead of R, G, B: now the Adobe segment alone says that there is no YCbCr.
        coded = plain[:2] + adobe + plain[start:].replace(b"R\x11\x00G\x11\x00B\x11\x00", b"\x01\x11\x00\x02\x11\x00\x03\x11\x00")
        coded = coded.replace(b"\x03R\x00G\x00B\x00", b"\x03\x01\x00\x02\x00\x03\x00")
        prepared = _prepare(tmp_path, coded)
        assert np.array_equal(_pixels(prepared.data), _pixels(plain))
        assert b"Adobe" in prepared.data
        assert b"and more" not in prepared.data

    @pytest.mark.parametrize("size", [(1700, 700), (700, 1700), (2500, 2000), (513, 513)])
    @pytest.mark.parametrize("ending", ["jpg", "png"])
    def test_a_large_image_is_scaled_to_the_shorter_side(self, tmp_path, size, ending):
        path = tmp_path / f"a.{ending}"
        _picture(*size).save(path)
        prepared = prepare_image(path, 128)
        scale = 128 / min(size)
        assert (prepared.width, prepared.height) == tuple(round(side * scale) for side in size)
        expected = np.asarray(_picture(*size).resize((prepared.width, prepared.height), Image.Resampling.BOX)).astype(np.int16)
        assert np.abs(_pixels(prepared.data) - expected).mean() < 3

    def test_a_fresh_jpeg_has_full_colour_resolution(self, tmp_path):
        _picture().save(tmp_path / "a.png")
        with Image.open(io.BytesIO(prepare_image(tmp_path / "a.png", MAX_SIDE).data)) as image:
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3

    def test_transparent_parts_become_white(self, tmp_path):
        image = Image.new("RGBA", (40, 40), (200, 30, 30, 0))
        image.paste((200, 30, 30, 255), (0, 0, 20, 40))
        image.save(tmp_path / "a.png")
        pixels = _pixels(prepare_image(tmp_path / "a.png", MAX_SIDE).data)
        assert np.abs(pixels[:, 2:16] - (200, 30, 30)).max() < 6
        assert pixels[:, 24:38].min() > 249

    @pytest.mark.parametrize(
        ("mode", "ending"),
        [("L", "jpg"), ("CMYK", "jpg"), ("P", "gif"), ("1", "png"), ("LA", "png"), ("RGB", "webp"), ("RGB", "bmp")],
    )
    def test_every_kind_of_pixel_becomes_rgb(self, tmp_path, mode, ending):
        image = _picture(64, 48).convert(mode)
        image.save(tmp_path / f"a.{ending}")
        pixels = _pixels(prepare_image(tmp_path / f"a.{ending}", MAX_SIDE).data)
        assert np.abs(pixels - np.asarray(image.convert("RGB"))).mean() < (20 if mode == "1" else 6)

    def test_a_colour_profile_is_applied_and_not_kept(self, tmp_path):
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        swapped = srgb.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")  # its red is our blue
        red = Image.new("RGB", (32, 32), (255, 0, 0))
        for ending in ("jpg", "png"):
            red.save(tmp_path / f"a.{ending}", icc_profile=swapped)
            prepared = prepare_image(tmp_path / f"a.{ending}", MAX_SIDE)
            assert _pixels(prepared.data)[16, 16].tolist() == pytest.approx([0, 0, 255], abs=8)
            assert b"ICC_PROFILE" not in prepared.data

    def test_a_colour_profile_that_cannot_be_used_is_ignored(self, tmp_path):
        prepared = _prepare(tmp_path, _jpeg(Image.new("RGB", (32, 32), (255, 0, 0)), icc_profile=b"no profile" * 20))
        assert _pixels(prepared.data)[16, 16].tolist() == pytest.approx([255, 0, 0], abs=8)
        assert b"no profile" not in prepared.data

    def test_a_file_that_is_no_image_gives_a_reason(self, tmp_path):
        rough = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
        jpeg, png = _jpeg(rough), io.BytesIO()
        rough.save(png, "PNG")
        cases = {
            b"": "empty",
            b"<html>404</html>": "no image of a known format",
            jpeg[: len(jpeg) // 2]: "the image cannot be decoded: it is cut short",
            jpeg[:300]: "the image cannot be decoded: it is cut short",
            png.getvalue()[:-200]: "the image cannot be decoded: it is cut short",
            png.getvalue()[:40]: "it looks like a PNG with a damaged header",
        }
        for data, said in cases.items():
            reason = _prepare(tmp_path, data)
            assert isinstance(reason, str)
            assert said in reason
            assert "0x" not in reason  # the same from run to run
        (tmp_path / "folder.jpg").mkdir()
        assert "folder" in prepare_image(tmp_path / "folder.jpg", MAX_SIDE)
        assert "cannot be read" in prepare_image(tmp_path / "absent.jpg", MAX_SIDE)

    @pytest.mark.parametrize("seed", range(40))
    def test_a_damaged_file_never_raises(self, tmp_path, seed):
        rng = np.random.default_rng(seed)
        target = io.BytesIO()
        _picture(seed=seed).save(target, ["JPEG", "PNG", "GIF", "TIFF"][seed % 4])
        data = bytearray(target.getvalue())
        for place in rng.integers(0, len(data), 6):
            data[place] = rng.integers(256)
        result = _prepare(tmp_path, bytes(data[: rng.integers(len(data) // 2, len(data))]))
        assert result if isinstance(result, str) else _pixels(result.data).shape == (result.height, result.width, 3)


def _files(folder: Path, n: int) -> tuple[list[str], list[str]]:
    """Ids and names of n photographs that are made there."""
    names = [f"{number:04d}.{'png' if number % 3 else 'jpg'}" for number in range(n)]
    for number, name in enumerate(names):
        _picture(40 + number % 7, 30, seed=number).save(folder / name)
    return [Path(name).stem for name in names], names


def _pack(folder: Path, ids: list[str], names: list[str], out: str = "images.arrow", **options: object) -> Packing:
    return pack_images(ids, names, folder / out, root=folder, parts=folder / f"{out}-parts", **options)


def _lengths(images: PackedImages, rows: list[int]) -> list[tuple[int, str]]:
    return [(len(images[row]), sha256(images[row]).hexdigest()) for row in rows]


class TestPacking:
    def test_random_access_equals_what_was_prepared(self, tmp_path):
        n = 2 * ROWS_PER_BATCH + 5
        ids, names = _files(tmp_path, n)
        packing = _pack(tmp_path, ids, names)
        assert packing.rejected.is_empty()
        assert packing.packed["position"].to_list() == list(range(n))
        with PackedImages(tmp_path / "images.arrow") as images:
            assert len(images) == n
            assert images.image_ids.tolist() == ids
            for row in np.random.default_rng(0).permutation(n):
                expected = prepare_image(tmp_path / names[row], MAX_SIDE)
                assert images[row] == expected.data
                assert packing.packed.row(int(row))[1:] == (expected.width, expected.height, expected.sha256)

    def test_the_file_is_what_its_description_says(self, tmp_path):
        ids, names = _files(tmp_path, 3)
        _pack(tmp_path, ids, names)
        with pa.memory_map(str(tmp_path / "images.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
        assert table.schema.names == ["image_id", "image", "width", "height"]
        assert table.schema.field("image").type == pa.large_binary()
        assert table["image_id"].to_pylist() == ids
        assert [_pixels(data).shape[:2] for data in table["image"].to_pylist()] == list(
            zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True)
        )

    def test_files_that_cannot_be_used_are_left_out_with_the_reason(self, tmp_path):
        ids, names = _files(tmp_path, 5)
        (tmp_path / names[1]).write_bytes(b"damaged")
        (tmp_path / names[4]).unlink()
        seen = []
        packing = _pack(tmp_path, ids, names, on_progress=lambda done, total: seen.append((done, total)))
        assert packing.packed["position"].to_list() == [0, 2, 3]
        assert packing.rejected["position"].to_list() == [1, 4]
        assert all(packing.rejected["reason"])
        assert PackedImages(tmp_path / "images.arrow").image_ids.tolist() == ["0000", "0002", "0003"]
        assert seen == [(done, 5) for done in range(1, 6)]

    def test_the_same_files_pack_to_the_same_bytes(self, tmp_path):
        ids, names = _files(tmp_path, 9)
        for out in ("a.arrow", "b.arrow"):
            _pack(tmp_path, ids, names, out)
        assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()

    def test_of_a_packing_that_was_interrupted_what_is_done_is_kept(self, tmp_path):
        ids, names = _files(tmp_path, 30)

        def interrupt(done: int, _: int) -> None:
            if done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            _pack(tmp_path, ids, names, on_progress=interrupt)
        assert not (tmp_path / "images.arrow").exists()
        seen = []
        _pack(tmp_path, ids, names, resume=True, on_progress=lambda done, total: seen.append((done, total)))
        assert seen == [(done, 30) for done in range(3, 31)]
        _pack(tmp_path, ids, names, "undisturbed.arrow")
        assert (tmp_path / "images.arrow").read_bytes() == (tmp_path / "undisturbed.arrow").read_bytes()

    def test_misuse_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="1 image ids for 0 files"):
            _pack(tmp_path, ["a"], [])
        with pytest.raises(ValueError, match="positive"):
            _pack(tmp_path, [], [], max_side=0)


class TestReading:
    @pytest.fixture
    def packed(self, tmp_path):
        _pack(tmp_path, *_files(tmp_path, 70))
        return tmp_path / "images.arrow"

    def test_a_row_is_read_without_copying(self, packed):
        images = PackedImages(packed)
        before = pa.total_allocated_bytes()
        views = [images[row] for row in range(len(images))]
        assert pa.total_allocated_bytes() == before
        assert all(view.readonly and view.format == "B" for view in views)

    def test_rows_out_of_range_are_refused(self, packed):
        images = PackedImages(packed)
        for row in (-1, 70, np.int64(1000)):
            with pytest.raises(IndexError, match="of 70"):
                images[row]
        assert images[np.int64(69)][:2] == b"\xff\xd8"

    def test_a_view_outlives_closing(self, packed):
        images = PackedImages(packed)
        view = images[3]
        images.close()
        assert view[:2] == b"\xff\xd8"
        with pytest.raises(ValueError, match="closed"):
            images[3]
        images.close()

    def test_pickles_as_its_path(self, packed):
        images = PackedImages(packed)
        assert len(pickle.dumps(images)) < 1000
        again = pickle.loads(pickle.dumps(images))
        assert again[66] == images[66]

    def test_another_process_reads_the_same(self, packed):
        images = PackedImages(packed)
        rows = [69, 0, 33, 64]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_lengths, (images, rows)) == _lengths(images, rows)

    def test_other_files_are_refused(self, packed):
        folder = packed.parent
        (folder / "text.arrow").write_text("no arrow file")
        (folder / "cut.arrow").write_bytes(packed.read_bytes()[:-100])
        (folder / "empty.arrow").write_bytes(b"")
        with pa.OSFile(str(folder / "other.arrow"), "wb") as sink, pa.ipc.new_file(sink, pa.schema({"x": pa.int32()})) as writer:
            writer.write_batch(pa.record_batch({"x": pa.array([1], pa.int32())}))
        for name, said in {
            "text": "cannot be read",
            "cut": "cannot be read",
            "empty": "cannot be read",
            "other": "not one of",
            "no": "no such",
        }.items():
            with pytest.raises(AtlasError, match=said):
                PackedImages(folder / f"{name}.arrow")
