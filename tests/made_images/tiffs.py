"""TIFF files."""

from __future__ import annotations

import struct

import numpy as np
from PIL import ImageCms, TiffImagePlugin

from made_images.making import CUT, MARK, ORIENTATION, ROUGH, UPRIGHT, Made, array, case, picture, plain_case, saved


def tiff(samples: np.ndarray, *, order: str = "<", photometric: int, **tags: int) -> bytes:
    """(H, W, C) samples as one uncompressed strip; further tags as t<number>=<long>."""
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    height, width, n = samples.shape
    entries = {
        256: width, 257: height, 258: samples.itemsize * 8, 259: 1, 262: photometric, 273: 8, 277: n, 278: height, 279: len(data),
    } | {int(tag[1:]): value for tag, value in tags.items()}  # fmt: skip
    table, more = struct.pack(f"{order}H", len(entries)), b""
    at = 8 + len(data) + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        if tag == 258 and n > 1:
            table += struct.pack(f"{order}HHLL", tag, 3, n, at + len(more))
            more += struct.pack(f"{order}{n}H", *([value] * n))
        elif tag in {258, 259, 262, 277, 274}:
            table += struct.pack(f"{order}HHLHH", tag, 3, 1, value, 0)
        else:
            table += struct.pack(f"{order}HHLL", tag, 4, 1, value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HL", 42, 8 + len(data))
    return head + data + table + struct.pack(f"{order}L", 0) + more


def _grey16() -> np.ndarray:
    return np.asarray(picture().convert("L")).astype(np.uint16)[:, :, None] * 257


for label, byte_order in {"little": "<", "big": ">"}.items():
    plain_case(
        f"tiff-16-bit-grey-{label}-endian",
        lambda order=byte_order: Made(tiff(_grey16(), order=order, photometric=1), pixels=array(picture().convert("L"))),
    )
    plain_case(
        f"tiff-16-bit-colours-{label}-endian",
        lambda order=byte_order: Made(
            tiff(np.asarray(picture()).astype(np.uint16) * 257, order=order, photometric=2), pixels=array(picture())
        ),
    )


@case("tiff-16-bit-grey-of-12")
def _() -> Made:
    return Made(tiff(_grey16() >> 4, photometric=1), said="a scale that the file does not tell")


for label, kind in {"grey": "L", "palette": "P", "bilevel": "1", "cmyk": "CMYK", "colours-alpha": "RGBA", "ycbcr": "YCbCr"}.items():
    plain_case(
        f"tiff-{label}",
        lambda mode=kind: Made(
            saved(picture().convert(mode), "TIFF"), pixels=array(picture().convert(mode)), tolerance=20 if mode == "1" else 4
        ),
    )

for label in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
    plain_case(
        f"tiff-compressed-{label}",
        lambda name=label: Made(
            saved(picture(), "TIFF", compression=name, **({"quality": 95} if name == "jpeg" else {})), pixels=array(picture())
        ),
    )


@case("tiff-of-two-pages-turned")
def _() -> Made:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[ORIENTATION] = 5
    tags[270] = MARK.decode()
    data = saved(picture(1), "TIFF", save_all=True, append_images=[picture(2)], tiffinfo=tags)
    return Made(data, pixels=UPRIGHT[5](array(picture(1))))


@case("tiff-lab")
def _() -> Made:
    lab = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(picture(), ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    return Made(saved(image, "TIFF"), pixels=array(picture()), tolerance=12)


@case("tiff-float")
def _() -> Made:
    return Made(saved(picture().convert("F"), "TIFF"), said="mode F")


@case("tiff-32-bit")
def _() -> Made:
    return Made(saved(picture().convert("I"), "TIFF"), said="mode I")


@case("tiff-preview-first")
def _() -> Made:
    return Made(tiff(np.asarray(picture()), photometric=2, t254=1), said="preview")


@case("tiff-huge")
def _() -> Made:
    return Made(tiff(np.asarray(picture()), photometric=2, t256=2**31 - 1, t257=2**31 - 1), said="more than 134 megapixels")


@case("tiff-absurd-tag")
def _() -> Made:
    data = tiff(np.asarray(picture()), photometric=2, t700=8)
    at = data.index(struct.pack("<HHL", 700, 4, 1))
    return Made(data[:at] + struct.pack("<HHL", 700, 1, 2**32 - 1) + data[at + 8 :], pixels=array(picture()))


@case("tiff-absurd-strips")
def _() -> Made:
    data = tiff(np.asarray(picture()), photometric=2)
    at = data.index(struct.pack("<HHL", 273, 4, 1))
    return Made(data[:at] + struct.pack("<HHL", 273, 4, 2**31) + data[at + 8 :], said="it looks like a TIFF with a damaged header")


@case("tiff-table-in-a-circle")
def _() -> Made:
    data = tiff(np.asarray(picture()), photometric=2)
    start = struct.unpack_from("<L", data, 4)[0]
    n = struct.unpack_from("<H", data, start)[0]
    at = start + 2 + 12 * n
    return Made(data[:at] + struct.pack("<L", start) + data[at + 4 :], pixels=array(picture()))


@case("tiff-cut")
def _() -> Made:
    whole = tiff(np.asarray(ROUGH), photometric=2)
    start = struct.unpack_from("<L", whole, 4)[0]
    table = whole[start:]
    half = whole[8:start][:10_000]
    moved = table.replace(struct.pack("<HHLL", 273, 4, 1, 8), struct.pack("<HHLL", 273, 4, 1, 8 + len(table)))
    moved = moved.replace(
        struct.pack("<HHLL", 258, 3, 3, start + len(table) - 6), struct.pack("<HHLL", 258, 3, 3, 8 + len(table) - 6)
    )
    return Made(whole[:4] + struct.pack("<L", 8) + moved + half, said=CUT)
