"""JPEG files that are rejected."""

from __future__ import annotations

import struct

from made_images.making import CUT, ROUGH, Made, case, jpeg, oriented, plain_case, scan_starts

for label, chosen in {
    "": {},
    "-420": {"subsampling": 2},
    "-grey": {"grey": True},
    "-cmyk": {"cmyk": True},
    "-progressive": {"progressive": True},
    "-restarts": {"restart_marker_blocks": 7},
    "-turned": {"exif": oriented(6)},
    "-large": {"large": True},
    "-large-progressive": {"large": True, "progressive": True},
}.items():

    def _whole(options: dict[str, object]) -> bytes:
        options = dict(options)
        image = ROUGH.resize((1280, 960)) if options.pop("large", False) else ROUGH
        image = image.convert("L") if options.pop("grey", False) else image
        return jpeg(image.convert("CMYK") if options.pop("cmyk", False) else image, **options)

    def _cut(options: dict[str, object] = chosen) -> Made:
        data = _whole(options)
        return Made(data[: len(data) // 2], said=CUT)

    def _cut_and_closed(options: dict[str, object] = chosen) -> Made:
        data = _whole(options)
        return Made(data[: len(data) * 3 // 5].rstrip(b"\xff") + b"\xff\xd9", said=CUT)

    plain_case(f"jpeg-cut{label}", _cut)
    plain_case(f"jpeg-cut-and-closed{label}", _cut_and_closed)


@case("jpeg-cut-and-closed-at-a-restart")
def _() -> Made:
    data = jpeg(ROUGH, restart_marker_blocks=5)
    return Made(data[: data.index(b"\xff\xd3", len(data) // 2)] + b"\xff\xd9", said=CUT)


@case("jpeg-progressive-without-last-scan")
def _() -> Made:
    data = jpeg(progressive=True)
    return Made(data[: scan_starts(data)[-1]] + b"\xff\xd9", said=CUT)


@case("jpeg-progressive-with-half-of-last-scan")
def _() -> Made:
    data = jpeg(ROUGH, progressive=True)
    return Made(data[: (scan_starts(data)[-1] + len(data)) // 2] + b"\xff\xd9", said=CUT)


@case("jpeg-only-a-header")
def _() -> Made:
    data = jpeg()
    return Made(data[: scan_starts(data)[0]], said="the image cannot be decoded: cannot load this image")


@case("jpeg-first-bytes")
def _() -> Made:
    return Made(jpeg()[:100], said=CUT)


def _resized(width: int, height: int) -> bytes:
    data = jpeg()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


for label, (columns, lines), phrase in (
    ("200-megapixels", (16_320, 12_240), "more than 134 megapixels"),
    ("150-megapixels", (15_000, 10_000), "more than 134 megapixels"),
    ("4000-megapixels", (65_500, 65_500), "more than 134 megapixels"),
    ("of-one-line", (10_000, 1), "too small"),
    ("without-lines", (100, 0), "it looks like a JPEG with a damaged header"),
    ("strip", (6_000, 16), "strip"),
):
    plain_case(f"jpeg-{label}", lambda size=(columns, lines), said=phrase: Made(_resized(*size), said=said))


@case("jpeg-of-12-bits")
def _() -> Made:
    data = jpeg()
    at = data.index(b"\xff\xc0") + 4
    return Made(data[:at] + b"\x0c" + data[at + 1 :], said="a JPEG with a damaged header or of a rare kind")
