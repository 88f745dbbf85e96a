"""Odd, damaged and hostile image files, each made by code, with what must become of it.

`CASES` names them; a case is copied (its coded pixels bit for bit), encoded (pixels near the expected ones) or rejected (with a
phrase of the reason). `MARK` is planted as metadata wherever a container has room for some, and must be gone from what is packed.
"""

# Each module puts its cases into the table, in this order.
from made_images import copied_jpegs, encoded_jpegs, refused_jpegs, pngs, other_formats, tiffs, no_images  # noqa: I001
from made_images.making import CASES, MARK, ROUGH, UPRIGHT, Made, after_start, jpeg, jpeg_of_passes, picture, saved, segment

__all__ = [
    "CASES", "MARK", "ROUGH", "UPRIGHT", "Made", "after_start", "copied_jpegs", "encoded_jpegs", "jpeg", "jpeg_of_passes", "no_images",
    "other_formats", "picture", "pngs", "refused_jpegs", "saved", "segment", "tiffs",
]  # fmt: skip
