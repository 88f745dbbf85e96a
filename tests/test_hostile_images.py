"""Every file of the corpus ends as it should; whatever else is in a file, nothing raises and what is packed can be read."""

from __future__ import annotations

import errno
import io
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_images import CASES, MARK, ROUGH, after_start, jpeg, jpeg_of_passes, picture, saved, segment
from made_images.pngs import chunk
from predilect.atlas import decoding
from predilect.atlas import jpeg as preparing
from predilect.atlas.decoding import MAX_BYTES, UnreadFileError, UnusableImageError
from predilect.atlas.jpeg import PreparedImage, prepare_bytes, prepare_image, prepare_image_for_good
from predilect.atlas.jpeg_stream import holds_more_than_the_picture
from predilect.atlas.pack import MAX_SIDE

SEEN = {"Jane", "Doe", "1960-04-01", "Exif", "ICC_PROFILE", "Photoshop", "xmpmeta", "8BIM"}


def prepared(folder: Path, data: bytes) -> PreparedImage | str:
    path = folder / "a.jpg"
    path.write_bytes(data)
    return prepare_image(path, MAX_SIDE)


def decoded(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        assert image.mode == "RGB"
        assert set(image.info) <= {
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
            "adobe",
            "adobe_transform",
            "progressive",
            "progression",
        }
        assert not image.getexif()
        return np.asarray(image).astype(int)


def test_the_corpus_is_large_enough():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_each_file_ends_as_it_should(tmp_path, name):
    if name.startswith("heic"):
        pytest.importorskip("pi_heif")
    made = CASES[name]()
    result = prepared(tmp_path, made.data)
    if made.said is not None:
        assert isinstance(result, str), "packed, though it is broken"
        assert made.said in result
        assert "0x" not in result  # the same from run to run
        assert "\n" not in result
        return
    assert isinstance(result, PreparedImage), result
    pixels = decoded(result.data)
    assert pixels.shape == (result.height, result.width, 3)
    assert not [trace for trace in SEEN if trace.encode() in result.data]
    if made.copied is not None:
        assert np.array_equal(pixels, decoded(made.copied))
        assert len(result.data) <= len(made.copied)
        assert result.data[-40:] == made.copied[-40:]  # coded data, not coded anew
    else:
        assert pixels.shape == made.pixels.shape
        assert np.abs(pixels - made.pixels).mean() < made.tolerance


def test_the_mark_is_planted_in_every_container():
    planted = {name for name, make in CASES.items() if MARK in make().data}
    assert {name.partition("-")[0] for name in planted} >= {"jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heic"}


class TestWhatLiesInPlaceOfAFile:
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.jpg")
        found = []
        thread = threading.Thread(target=lambda: found.append(prepare_image(tmp_path / "a.jpg", MAX_SIDE)), daemon=True)
        thread.start()
        thread.join(20)
        assert found == ["it is a pipe, a socket or a device, not a file"]

    def test_sockets_devices_folders_and_links_to_nowhere(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s.jpg")
            assert "a socket" in prepare_image(Path("s.jpg"), MAX_SIDE)
        assert "a device" in prepare_image(Path("/dev/zero"), MAX_SIDE)
        assert prepare_image(tmp_path, MAX_SIDE) == "it is a folder, not a file"
        (tmp_path / "l.jpg").symlink_to("nowhere")
        assert prepare_image(tmp_path / "l.jpg", MAX_SIDE) == "the file cannot be read: No such file or directory"
        assert "cannot be read" in prepare_image(tmp_path / "a\0b.jpg", MAX_SIDE)
        assert "cannot be read" in prepare_image(tmp_path / ("a" * 300), MAX_SIDE)

    def test_a_file_that_may_not_be_read(self, tmp_path, monkeypatch):
        (tmp_path / "a.jpg").write_bytes(jpeg())

        def refuse(self):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
        assert prepare_image(tmp_path / "a.jpg", MAX_SIDE) == "the file cannot be read: Permission denied"

    def test_a_file_larger_than_any_image_is_not_read(self, tmp_path):
        with (tmp_path / "a.jpg").open("wb") as file:
            file.truncate(MAX_BYTES + 1)
        assert "the file is too large" in prepare_image(tmp_path / "a.jpg", MAX_SIDE)


def raising(error: BaseException):
    def fail(*_: object) -> None:
        raise error

    return fail


class TestWhatMayPass:
    """What the system refuses now is no reason to leave a photograph out for good."""

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (OSError(errno.EIO, "x"), "the file cannot be read: Input/output error"),
            (OSError(errno.EMFILE, "x"), "the file cannot be read: Too many open files"),
            (PermissionError(errno.EACCES, "x"), "the file cannot be read: Permission denied"),
            (MemoryError(), "there is not enough memory to read it"),
        ],
    )
    @pytest.mark.parametrize("call", ["stat", "read_bytes"])
    def test_reading(self, tmp_path, monkeypatch, error, said, call):
        (tmp_path / "a.jpg").write_bytes(jpeg())
        monkeypatch.setattr(Path, call, raising(error))
        with pytest.raises(UnreadFileError, match=said):
            prepare_image_for_good(tmp_path / "a.jpg", MAX_SIDE)
        assert prepare_image(tmp_path / "a.jpg", MAX_SIDE) == said  # who keeps nothing is told as ever

    @pytest.mark.parametrize("error", [OSError(errno.EMFILE, "x"), MemoryError()])
    def test_decoding(self, tmp_path, monkeypatch, error):
        (tmp_path / "a.png").write_bytes(saved(picture(), "PNG"))
        monkeypatch.setattr(preparing, "flattened", raising(error))
        with pytest.raises(UnreadFileError, match=r"not enough memory|cannot be decoded now: Too many open files"):
            prepare_image_for_good(tmp_path / "a.png", MAX_SIDE)

    def test_what_will_not_pass_is_a_reason(self, tmp_path):
        assert "No such file" in prepare_image_for_good(tmp_path / "a.jpg", MAX_SIDE)

    def test_a_mistake_of_ours_is_no_reason_but_one_of_a_decoder_is(self, tmp_path, monkeypatch):
        (tmp_path / "a.png").write_bytes(saved(picture(), "PNG"))
        monkeypatch.setattr(preparing, "flattened", raising(TypeError("as a decoder may")))
        assert prepare_image(tmp_path / "a.png", MAX_SIDE) == "the image cannot be decoded: as a decoder may"
        monkeypatch.undo()
        monkeypatch.setattr(preparing, "in_srgb", lambda image, profile: None)
        with pytest.raises(AttributeError):
            prepare_image(tmp_path / "a.png", MAX_SIDE)


def test_of_huge_files_one_at_a_time_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_HUGE_BYTES", 10)
    read, inside, most = Path.read_bytes, [], []

    def watched(self):
        inside.append(self)
        most.append(len(inside))
        time.sleep(0.02)
        try:
            return read(self)
        finally:
            inside.pop()

    monkeypatch.setattr(Path, "read_bytes", watched)
    (tmp_path / "a.jpg").write_bytes(jpeg())
    threads = [threading.Thread(target=prepare_image, args=(tmp_path / "a.jpg", MAX_SIDE)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def rounds(work):
    """How often Python calls something while it does some work, which a file must not be able to multiply."""
    n = 0

    def count(*_: object) -> None:
        nonlocal n
        n += 1

    sys.setprofile(count)
    try:
        found = work()
    finally:
        sys.setprofile(None)
    return n, found


@pytest.mark.parametrize("stuffing", [b"\xff\x00", b"\xff\xd0", segment(0xFE, b"")], ids=["zeros", "restarts", "comments"])
def test_what_is_stuffed_into_a_jpeg_behind_its_picture_costs_next_to_nothing(stuffing):
    data = jpeg()
    n, found = rounds(lambda: prepare_bytes(data[:-2] + stuffing * 100_000 + data[-2:], 512))
    assert n < 50_000
    assert (found.width, found.height) == picture().size


@pytest.mark.parametrize("n", [100, 100_000])
@pytest.mark.parametrize("kind", [b"IDAT", b"prVt"])
@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_png_of_a_hundred_thousand_chunks_is_refused_before_they_are_gone_over(n, kind, where):
    data = saved(picture(), "PNG")
    at = data.index(b"IDAT" if where == "before" else b"IEND") - 4
    made = data[:at] + chunk(kind, b"") * n + data[at:]
    if n == 100:
        assert prepare_bytes(made, 512).width == picture().width
    else:
        with pytest.raises(UnusableImageError, match="more chunks"):
            prepare_bytes(made, 512)


def test_a_png_with_a_thousand_profiles_is_refused():
    data, profile = saved(picture(), "PNG"), chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**19)))
    with pytest.raises(UnusableImageError, match="more chunks"):
        prepare_bytes(data[:33] + profile * 1001 + data[33:], 512)


def test_a_large_png_may_be_of_small_chunks(tmp_path):
    """As libraries of old wrote it, 8,192 bytes in each; here a quarter of that."""
    data = saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (2400, 3200, 3), dtype=np.uint8)), "PNG", compress_level=0
    )
    pixels, at = b"", 8
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        pixels += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    cut = b"".join(chunk(b"IDAT", pixels[k : k + 2048]) for k in range(0, len(pixels), 2048))
    assert isinstance(prepared(tmp_path, data[:33] + cut + chunk(b"IEND", b"")), PreparedImage)


def test_a_restart_interval_that_no_scan_uses_is_more_than_the_picture():
    once, twice = (after_start(jpeg(), segment(0xDD, b"JD") * n) for n in (1, 2))
    assert not holds_more_than_the_picture(once)
    assert holds_more_than_the_picture(twice)


@pytest.mark.parametrize(("size", "allowed"), [((72, 52), 200), ((1024, 1024), 96), ((2048, 2048), 24), ((4096, 2048), 24)])
def test_so_many_passes_as_encoders_write_are_allowed_at_any_size_and_more_of_small_images(tmp_path, size, allowed):
    assert isinstance(prepared(tmp_path, jpeg_of_passes(allowed, size)), PreparedImage)
    assert f"coded in more than {allowed} passes" in prepared(tmp_path, jpeg_of_passes(allowed + 1, size))


class TestHeic:
    def test_without_its_package_the_reason_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pi_heif", None)
        for cached in (decoding._reads_heif, decoding._formats):
            cached.cache_clear()
        try:
            assert "pip install 'predilect[heic]'" in prepared(tmp_path, CASES["heic"]().data)
        finally:
            for cached in (decoding._reads_heif, decoding._formats):
                cached.cache_clear()


PEAKS = """
import sys
from pathlib import Path
from predilect.atlas.jpeg import prepare_image
from predilect.atlas.pack import MAX_SIDE
for name in sys.argv[1:]:
    prepare_image(Path(name), MAX_SIDE)
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to tell the peak of a process's memory")
def test_a_bomb_takes_little_memory(tmp_path):
    """In a process of its own, by the pages it held at most: decoders ask the system for memory, and Python does not see it."""
    bombs = [
        name for name in CASES if name.endswith(("bomb", "200-megapixels", "4000-megapixels", "huge-screen")) or name == "tiff-huge"
    ]
    assert len(bombs) >= 8
    # A small image first, so that what is loaded once is there, and at the end one that does need its hundred megabytes.
    files = [tmp_path / name for name in ("jpeg-cmyk", *bombs, "png-100-megapixels")]
    for file in files:
        file.write_bytes(CASES[file.name]().data)
    child = subprocess.run([sys.executable, "-c", PEAKS, *map(str, files)], capture_output=True, text=True, check=True)
    peaks = [int(kilobytes) / 1000 for kilobytes in child.stdout.split()]
    grown = dict(zip([*bombs, "what needs it"], np.diff(peaks), strict=True))
    assert grown.pop("what needs it") > 70
    assert max(grown.values()) < 12, grown


def test_warnings_of_decoders_are_not_shown_and_ours_stay_as_they_were(tmp_path):
    damaged = CASES["jpeg-damaged-exif"]().data
    (tmp_path / "b.jpg").write_bytes(damaged)
    before = warnings.filters[:]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=prepare_image, args=(tmp_path / "b.jpg", MAX_SIDE)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warnings.warn("mine", stacklevel=1)
    assert [str(item.message) for item in shown] == ["mine"]
    assert warnings.filters == before


SOUND = {
    "jpeg": jpeg(),
    "jpeg-progressive": jpeg(progressive=True, subsampling=2),
    "jpeg-restarts": jpeg(restart_marker_blocks=3, icc_profile=b"x" * 200),
    "jpeg-cmyk": jpeg(picture().convert("CMYK")),
    "png": saved(picture(), "PNG"),
    "png-palette": saved(picture().quantize(32), "PNG"),
    "gif": saved(picture().quantize(32), "GIF"),
    "bmp": saved(picture(), "BMP"),
    "tiff": saved(picture(), "TIFF"),
    "tiff-lzw": saved(picture(), "TIFF", compression="tiff_lzw"),
    "tiff-jpeg": saved(picture(), "TIFF", compression="jpeg"),
    "webp": saved(picture(), "WEBP"),
    "webp-animated": saved(picture(1), "WEBP", save_all=True, append_images=[picture(2)]),
    "avif": saved(picture(), "AVIF"),
    "heic": CASES["heic"]().data,
    "heic-turned": CASES["heic-turned"]().data,  # with an EXIF item, of which the decoder can die
    "heic-profile": CASES["heic-profile-that-swaps-colours"]().data,
}


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_never_raises(tmp_path, kind, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(SOUND[kind])
    reach = len(data) if seed % 2 else min(len(data), 400)  # headers are where decoders stumble
    for place in rng.integers(0, reach, rng.integers(1, 8)):
        data[place] = rng.choice([0, 255, rng.integers(256)])
    if seed % 3 == 0:
        del data[rng.integers(len(data)) :]
    result = prepared(tmp_path, bytes(data))
    if isinstance(result, str):
        assert result
    else:
        assert decoded(result.data).shape == (result.height, result.width, 3)


@pytest.mark.parametrize("options", [{}, {"subsampling": 2}, {"progressive": True}, {"restart_marker_blocks": 7}, {"quality": 30}])
def test_wherever_a_jpeg_is_cut_it_is_noticed(tmp_path, options):
    whole = jpeg(ROUGH, **options)
    start = whole.index(b"\xff\xda") + 20
    assert isinstance(prepared(tmp_path, whole), PreparedImage)
    for place in np.random.default_rng(1).integers(start, len(whole) - 12, 12):
        for end in (b"", b"\xff\xd9"):
            assert "cut short" in prepared(tmp_path, whole[:place].rstrip(b"\xff") + end)
