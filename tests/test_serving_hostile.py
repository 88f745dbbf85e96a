"""Two hundred uploads that are no usable photographs: each gets a problem of its own making, and the next photograph is answered."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from made_decoders import CRASHING, DEADLY, decoding_by
from made_images import CASES, after_start, jpeg, jpeg_of_passes, picture, saved, segment
from made_images.making import oriented, srgb
from made_serving import PROBLEM, photograph, serving, upload
from predilect.serving.predictor import Predictor

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")


@pytest.fixture(scope="module")
def client(made_run):
    with serving(Predictor.open(made_run.bundle)) as client:
        yield client


def rejected():
    """Those of the corpus that an atlas rejects; HEIC files among them are refused without the extra, too, for another reason."""
    for name, make in CASES.items():
        if make().said is not None:
            yield name, make().data


def truncated():
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    for kind in FORMATS:
        whole = saved(noise, kind)
        for share in (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
            yield f"{kind}-cut-{share}", whole[: int(share * len(whole))]


def bombs():
    def chunk(name, data):
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    for side in (12_000, 30_000, 65_000, 2**31 - 1):
        header = side.to_bytes(4) + side.to_bytes(4) + bytes((8, 2, 0, 0, 0))
        pixels = zlib.compress(bytes(10_000_000), 9)
        yield f"png-of-{side}", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    gif = saved(picture(), "GIF")
    yield "gif-of-65535", gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    bmp = saved(picture(), "BMP")
    yield "bmp-of-100000", bmp[:18] + (100_000).to_bytes(4, "little") * 2 + bmp[26:]
    yield "jpeg-of-too-many-passes", jpeg_of_passes(300)
    yield "jpeg-of-too-many-passes-for-its-size", jpeg_of_passes(60, (2400, 2400))


def polyglots():
    """A photograph behind, or inside of, something else."""
    image = jpeg()
    for name, start in {
        "zip": b"PK\x03\x04", "pdf": b"%PDF-1.7\n", "html": b"<!DOCTYPE html><script>", "elf": b"\x7fELF\x02", "shell": b"#!/bin/sh\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'>", "xml": b"<?xml version='1.0'?>", "php": b"<?php", "json": b'{"image": "',
        "mp4": b"\x00\x00\x00\x18ftypmp42", "tar": bytes(512), "newline": b"\n", "byte": b"\x00", "bom": b"\xef\xbb\xbf", "mz": b"MZ\x90",
    }.items():  # fmt: skip
        yield f"{name}-before-a-jpeg", start + image
        yield f"{name}-before-a-png", start + saved(picture(), "PNG")


def damaged():
    """Names of a format, and nothing of it behind."""
    noise = np.random.default_rng(2)
    for k, start in enumerate(
        (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x10\x00\x00\x00WEBP", b"BM", b"II*\x00", b"MM\x00*")
    ):
        for n in (0, 1, 16, 300, 5000):
            yield f"start-{k}-then-{n}-of-noise", start + noise.bytes(n)
    for n in (1, 2, 3, 7, 100, 100_000):
        yield f"noise-{n}", noise.bytes(n)
        yield f"zeros-{n}", bytes(n)
        yield f"ones-{n}", b"\xff" * n


def sizes():
    for width, height in ((1, 1), (15, 15), (15, 400), (400, 15), (16, 321), (321, 16), (1, 5000)):
        yield f"png-{width}x{height}", saved(Image.new("RGB", (width, height)), "PNG")
        yield f"jpeg-{width}x{height}", jpeg(Image.new("RGB", (width, height)))


def odd_metadata():
    """Profiles and EXIF that are wrong in themselves, in files whose picture is missing."""
    body = jpeg()
    head = body[: body.index(b"\xff\xda")]
    for name, planted in {
        "profile": segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + srgb()[:60]),
        "profile-of-many": segment(0xE2, b"ICC_PROFILE\x00\x09\x01" + srgb()),
        "exif-of-zeros": segment(0xE1, b"Exif\x00\x00" + bytes(500)),
        "exif-in-a-circle": segment(
            0xE1, b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x69\x87\x04\x00\x01\x00\x00\x00\x08\x00\x00\x00"
        ),
    }.items():
        yield f"jpeg-{name}-and-no-picture", after_start(head, planted)


UPLOADS = dict(item for source in (rejected, truncated, bombs, polyglots, damaged, sizes, odd_metadata) for item in source())


def test_there_are_two_hundred():
    assert len(UPLOADS) >= 200


def test_each_gets_a_problem_and_the_next_photograph_an_answer(client):
    expected = client.post("/v1/predict", files=upload(photograph())).json()["results"]
    wrong = []
    for name, data in UPLOADS.items():
        answer = client.post("/v1/predict", files=upload(data))
        if not (400 <= answer.status_code < 500 and answer.headers["content-type"] == PROBLEM and answer.json()["detail"]):
            wrong.append((name, answer.status_code))
        if client.post("/v1/predict", files=upload(photograph())).json()["results"] != expected:
            wrong.append((name, "afterwards"))
    assert wrong == []


@pytest.mark.parametrize("kind", ["image/png", "text/html", "application/octet-stream", ""])
def test_a_photograph_is_told_by_its_content(client, kind):
    answer = client.post("/v1/predict", files=[("files", ("page.html", photograph(), kind))])
    assert answer.status_code == 200


def test_odd_metadata_around_a_whole_picture_harms_nobody(client):
    bad = after_start(jpeg(), segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + srgb()[:60]), segment(0xE1, b"Exif\x00\x00" + bytes(500)))
    turned = io.BytesIO()
    picture().save(turned, "JPEG", exif=oriented(77))
    answer = client.post("/v1/predict", files=upload(bad, turned.getvalue()))
    assert [(row["width"], row["height"]) for row in answer.json()["results"]] == [(72, 52)] * 2


@pytest.mark.parametrize("name", ["jpeg-of-too-many-passes", "jpeg-of-too-many-passes-for-its-size"])
def test_a_file_with_many_passes_is_refused_before_they_are_made(client, name):
    answer = client.post("/v1/predict", files=upload(UPLOADS[name]))
    assert "passes" in answer.json()["detail"]


def test_a_photograph_that_crashes_its_decoder_gets_a_problem_and_the_server_lives(client, tmp_path):
    pytest.importorskip("pi_heif")
    good = CASES["heic"]().data
    with decoding_by(tmp_path, CRASHING):
        expected = client.post("/v1/predict", files=upload(good))
        assert expected.status_code == 200
        for _ in range(2):
            answer = client.post("/v1/predict", files=upload(good + DEADLY))
            assert answer.status_code == 422
            assert answer.json()["detail"] == "The photograph cannot be used: the image cannot be decoded: its decoder crashed."
            mixed = client.post("/v1/predict", files=upload(good + DEADLY, good)).json()["results"]
            assert "error" in mixed[0]
            assert mixed[1] == expected.json()["results"][0] | {"name": mixed[1]["name"]}
