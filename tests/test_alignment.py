"""Detail that is laid over detail tells copies from photographs that only look alike, whatever frame lies over both."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from made_close_ups import FRAMES, brightened, cropped, encoded, framed, skin
from predilect.atlas.alignment import halved, resemblance_at_half, resemblance_in_full
from predilect.atlas.fingerprints import SIDE, thumbnails


def resemblance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What counts of a pair: the smaller of the two figures."""
    half, pose = resemblance_at_half(halved(first), halved(second))
    return np.minimum(half, resemblance_in_full(first, second, pose))


def test_resemblance_is_1_of_equal_pictures_and_near_0_of_others_that_look_alike_from_afar():
    pictures = thumbnails([encoded(skin(seed)) for seed in range(16)], np.arange(16))
    assert resemblance(pictures, pictures) == pytest.approx(np.ones(16), abs=1e-6)
    pairs = np.array(list(combinations(range(16), 2)))
    flat = pictures.reshape(16, -1).astype(float)
    assert np.median(np.corrcoef(flat)[tuple(pairs.T)]) > 0.6  # from afar
    assert resemblance(pictures[pairs[:, 0]], pictures[pairs[:, 1]]).max() < 0.3


def test_resemblance_undoes_a_crop_and_a_change_of_light():
    files = [encoded(skin(seed)) for seed in range(8)]
    changed = [encoded(brightened(cropped(skin(seed), 0.07, seed / 8, 1 - seed / 8), 0.85)) for seed in range(8)]
    rows = np.arange(8)
    found = resemblance(thumbnails(files, rows), thumbnails(changed, rows))
    assert found.min() > 0.6
    assert resemblance(thumbnails(changed, rows), thumbnails(files, rows)) == pytest.approx(found, abs=0.15)


def test_a_picture_without_detail_resembles_nothing():
    plain = np.full((1, SIDE, SIDE), 128, dtype=np.uint8)
    assert resemblance(plain, plain) == 0
    assert resemblance(plain, thumbnails([encoded(skin(0))], np.arange(1))) == 0


def test_a_copy_passes_at_half_resolution_and_in_full():
    files = [encoded(skin(4)), encoded(cropped(skin(4), 0.05))]
    pictures = thumbnails(files, np.arange(2))
    first, second = pictures[:1], pictures[1:]
    half, pose = resemblance_at_half(halved(first), halved(second))
    full = resemblance_in_full(first, second, pose)
    assert min(half, full) > 0.6
    scale_y, shift_y, scale_x, shift_x = pose[0]  # 5 % are cut off, from the left 0.7 of it and from the top 0.2
    assert [scale_y, scale_x] == pytest.approx([1 / 0.95] * 2, abs=0.01)
    assert [shift_y, shift_x] == pytest.approx([0.6 * 0.05 / 0.95, -0.4 * 0.05 / 0.95], abs=0.01)


@pytest.mark.parametrize("name", FRAMES)
def test_different_photographs_in_one_frame_are_not_joined(name):
    pictures = thumbnails([encoded(framed(name, seed)) for seed in range(16)], np.arange(16))
    pairs = np.array(list(combinations(range(16), 2)))
    assert resemblance(pictures[pairs[:, 0]], pictures[pairs[:, 1]]).max() < 0.3


def test_something_printed_in_one_corner_does_not_make_copies():
    printed = (np.random.default_rng(1).uniform(0, 1, (90, 90)) > 0.5).repeat(3, 0).repeat(3, 1)[:90, :90]
    images = [np.asarray(skin(seed, 288, 288)).copy() for seed in range(8)]
    for image in images:
        image[20:110, 190:280] = 60 + 150 * gaussian_filter(printed.astype(float), 1)[..., None]
    pictures = thumbnails([encoded(Image.fromarray(image)) for image in images], np.arange(8))
    pairs = np.array(list(combinations(range(8), 2)))
    assert resemblance(pictures[pairs[:, 0]], pictures[pairs[:, 1]]).max() < 0.3
