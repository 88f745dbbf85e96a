"""JPEG files that are copied: their coded pixels come back bit for bit."""

from __future__ import annotations

import io
import struct

from PIL import ImageCms

from made_images.making import (
    MARK,
    ORIENTATION,
    Made,
    after_start,
    case,
    exif,
    jpeg,
    oriented,
    picture,
    plain_case,
    saved,
    scan_starts,
    segment,
    srgb,
    srgb_in_other_words,
)

for label, chosen in {
    "plain": {},
    "quality-50": {"quality": 50},
    "420": {"subsampling": 2},
    "422": {"subsampling": 1},
    "progressive": {"progressive": True},
    "progressive-420": {"progressive": True, "subsampling": 2},
    "rgb": {"keep_rgb": True},
    "restarts": {"restart_marker_blocks": 3},
    "restart-rows": {"restart_marker_rows": 1, "subsampling": 2},
    "optimized": {"optimize": True},
}.items():

    def _copied_case(options: dict[str, object] = chosen) -> Made:
        data = jpeg(**options)
        return Made(data, copied=data)

    plain_case(f"jpeg-{label}", _copied_case)


@case("jpeg-metadata-of-every-kind")
def _() -> Made:
    bare = jpeg()
    data = jpeg(exif=exif(), comment=MARK, xmp=b"<x:xmpmeta>" + MARK + b"</x:xmpmeta>")
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + len(MARK).to_bytes(4) + MARK
    thumbnail = b"JFXX\x00\x10" + jpeg(picture(9, (32, 24)), comment=MARK)
    kinds = [
        segment(0xE0, thumbnail),
        segment(0xED, iptc),
        *(segment(marker, MARK) for marker in (*range(0xE1, 0xF0), 0xFE) if marker != 0xEE),
    ]
    return Made(after_start(data, *kinds) + b"after the end: " + MARK, copied=bare)


@case("jpeg-comment-before-second-scan")
def _() -> Made:
    data = jpeg(progressive=True)
    at = scan_starts(data)[1]
    comment = segment(0xFE, MARK + b" \xff\xd9 \xff\xda")  # looks like the end of the image, and is not
    return Made(data[:at] + comment + data[at:], copied=data)


@case("jpeg-fill-bytes-before-markers")
def _() -> Made:
    data = jpeg()
    return Made(data.replace(b"\xff\xdb", b"\xff\xff\xff\xff\xdb"), copied=data)


@case("jpeg-second-image-behind")
def _() -> Made:
    return Made(jpeg() + jpeg(picture(2), comment=MARK), copied=jpeg())


@case("jpeg-mpo")
def _() -> Made:
    target = io.BytesIO()
    picture(1).save(target, "MPO", save_all=True, append_images=[picture(2)])
    return Made(target.getvalue(), copied=saved(picture(1), "JPEG"))


for number in (0, 9, 65535):

    def _odd_orientation(value: int = number) -> Made:
        return Made(jpeg(exif=oriented(value)), copied=jpeg())

    plain_case(f"jpeg-orientation-{number}", _odd_orientation)


@case("jpeg-damaged-exif")
def _() -> Made:
    return Made(after_start(jpeg(), segment(0xE1, b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff" + MARK)), copied=jpeg())


@case("jpeg-exif-of-another-type")
def _() -> Made:
    entry = struct.pack(">HHHHLL", 1, ORIENTATION, 2, 0, 4, 0x41424300)  # orientation as text
    return Made(
        after_start(jpeg(), segment(0xE1, b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + entry + b"\x00\x00\x00\x00")), copied=jpeg()
    )


@case("jpeg-srgb-profile")
def _() -> Made:
    return Made(jpeg(icc_profile=srgb()), copied=jpeg())


@case("jpeg-srgb-profile-in-other-words")
def _() -> Made:
    assert srgb_in_other_words() != srgb()
    return Made(jpeg(icc_profile=srgb_in_other_words()), copied=jpeg())


@case("jpeg-damaged-profile")
def _() -> Made:
    return Made(jpeg(icc_profile=b"no profile " + MARK), copied=jpeg())


@case("jpeg-profile-of-a-space-without-a-name")
def _() -> Made:
    return Made(jpeg(icc_profile=srgb()[:16] + b"\x80" + srgb()[17:]), copied=jpeg())


@case("jpeg-profile-of-another-space")
def _() -> Made:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return Made(jpeg(icc_profile=lab), copied=jpeg())
