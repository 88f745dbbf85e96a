"""Files that are no images."""

from __future__ import annotations

import numpy as np

from made_images.making import Made, plain_case

for label, content, phrase in (
    ("empty", b"", "the file is empty"),
    ("one-byte", b"\xff", "no image of a known format"),
    ("text", b"see the other folder\n", "no image of a known format"),
    ("web-page", b"\n<!DOCTYPE html><html>404</html>", "looks like a web page"),
    ("pdf", b"%PDF-1.7\n" + bytes(500), "looks like a PDF"),
    ("zip", b"PK\x03\x04" + bytes(500), "looks like a ZIP"),
    ("gzip", b"\x1f\x8b\x08" + bytes(500), "looks like a gzip"),
    ("drawing", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "looks like a drawing"),
    ("dicom", bytes(128) + b"DICM" + bytes(300), "looks like a DICOM"),
    ("photoshop", b"8BPS\x00\x01" + bytes(300), "looks like a Photoshop"),
    ("jpeg-2000", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(300), "looks like a JPEG 2000"),
    ("sound", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(300), "it looks like a WebP with a damaged header, or a sound or film"),
    ("film", b"\x00\x00\x00\x18ftypmp42" + bytes(300), "no image of a known format"),
    ("zeros", bytes(5000), "no image of a known format"),
    ("noise", np.random.default_rng(4).bytes(5000), "no image of a known format"),
    ("damaged-heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(300), "it looks like a HEIC"),
    ("program", b"\x7fELF\x02\x01\x01" + bytes(500), "no image of a known format"),
):
    plain_case(f"no-image-{label}", lambda data=content, said=phrase: Made(data, said=said))
