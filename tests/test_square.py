"""The central square that is made inside a graph, held to the one that Pillow makes outside of it, pixel by pixel."""

import io

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from made_photographs import drawn
from predilect.recipe import Preprocessing
from predilect.serving.square import CentralSquare
from predilect.vision.transforms import central_square


def outside(pixels, side):
    """By Pillow, from a file that loses nothing."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return central_square(file.getvalue(), Preprocessing(crop=16, jitter=(16, 16), test_side=side))


def inside(pixels, side):
    return CentralSquare(side)(torch.from_numpy(pixels)[None])[0].numpy()


@settings(max_examples=40)
@given(st.integers(16, 300), st.floats(1, 6), st.sampled_from([16, 33, 150, 224]))
@example(288, 384 / 288, 150)  # MILK10k's photographs: ratio 1.92, where sums of weights fall on the very middle between two levels
@example(36, 69 / 36, 150)  # the longer side becomes 287.5 pixels, or 288 if the scale is rounded twice
@example(150, 1.0, 150)
@example(16, 20.0, 224)
@example(300, 1.004, 33)
def test_a_photograph_that_is_not_tall_gives_the_very_pixels(shorter, aspect, side):
    pixels = drawn(shorter, round(shorter * aspect))
    assert (inside(pixels, side) == outside(pixels, side)).all()


def test_large_photographs_too():
    pixels = drawn(1100, 1467)
    difference = np.abs(inside(pixels, 32).astype(int) - outside(pixels, 32))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3  # sums of a hundred terms and more are not wholly exact


@settings(max_examples=20)
@given(st.integers(16, 200), st.floats(1, 6), st.sampled_from([16, 33, 150]))
def test_a_tall_one_differs_by_the_order_of_rounding_at_most(shorter, aspect, side):
    pixels = drawn(round(shorter * aspect), shorter)
    assert np.abs(inside(pixels, side).astype(int) - outside(pixels, side)).max() <= 1


def test_a_square_of_the_right_size_stays_as_it_is():
    pixels = drawn(45, 45)
    assert (inside(pixels, 45) == pixels.transpose(2, 0, 1)).all()


def test_photographs_of_a_batch_do_not_mix():
    batch = np.stack([drawn(50, 70, seed) for seed in range(3)])
    together = CentralSquare(32)(torch.from_numpy(batch)).numpy()
    assert all((found == inside(pixels, 32)).all() for found, pixels in zip(together, batch, strict=True))
