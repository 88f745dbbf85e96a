"""Sharpness and light: what stands out is told from ordinary photographs, whatever their size."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from made_close_ups import brightened, encoded, skin
from predilect.atlas.quality import is_uniform, measure_quality
from predilect.atlas.synthetic import paint, sample_photos
from predilect.atlas.tallies import quality_of, spread


def test_blur_darkness_and_glare_are_told_from_ordinary_photographs():
    images = [skin(seed) for seed in range(40)]
    images[3] = Image.fromarray(gaussian_filter(np.asarray(images[3]), (4, 4, 0)))
    images[4] = brightened(images[4], 0.1)
    images[5] = brightened(images[5], 1.6)
    images[6] = images[6].resize((160, 120))
    files = [encoded(image) for image in images]
    measured = measure_quality(files)
    assert measured["sharpness"].null_count() == 1
    assert measured["sharpness"][6] is None
    names = pl.Series([f"i{k:02}" for k in range(40)])
    found = quality_of(names, measured)
    assert {name for name, _ in found.blurred} <= {"i03", "i04"}
    assert "i03" in {name for name, _ in found.blurred}
    assert found.dark == ("i04",)
    assert found.overexposed == ("i05",)
    assert found.sharpness.n == 39


def test_sharpness_does_not_depend_on_how_large_a_photograph_was_packed():
    large = skin(2, 448, 597)
    small = large.resize((round(597 / 2), 224), Image.Resampling.BOX)
    found = measure_quality([encoded(large, quality=98, subsampling=0), encoded(small, quality=98, subsampling=0)])["sharpness"]
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_the_darkest_drawn_skin_is_not_called_dark():
    darkest = [drawing for drawing in sample_photos(200, 1) if drawing.sitter.tone == 10][:4]
    assert len(darkest) == 4
    measured = measure_quality([encoded(paint(drawing, 96)) for drawing in darkest])
    assert quality_of(pl.Series(["a", "b", "c", "d"]), measured).dark == ()


def reddened() -> Image.Image:
    """Erythema over half of some skin, of the same luminance."""
    image = of_one_colour((200, 150, 130), 0)
    image.paste((225, 135, 130), (0, 0, 112, 224))
    return image


def of_one_colour(colour: tuple[int, int, int], noise: float) -> Image.Image:
    grain = np.random.default_rng(0).normal(0, noise, (224, 224, 1))
    return Image.fromarray((np.array(colour) + grain).clip(0, 255).round().astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "uniform", "listed"),
    [
        (of_one_colour((0, 0, 0), 0), True, True),
        (of_one_colour((255, 255, 255), 0), True, True),
        (of_one_colour((200, 150, 130), 3), True, True),
        (of_one_colour((200, 150, 130), 9), False, False),
        (skin(0, 224, 224), False, False),
        (reddened(), False, True),
    ],
    ids=["black", "white", "skin without a mark", "grain", "a spot", "a red area as bright as the skin"],
)
def test_one_photograph_is_uniform_where_an_audit_lists_it_and_no_colour_varies(image, uniform, listed):
    assert is_uniform(np.asarray(image).transpose(2, 0, 1)) is uniform
    found = quality_of(pl.Series(["a"]), measure_quality([encoded(image, quality=98, subsampling=0)]))
    assert (found.uniform == ("a",)) is listed


def test_a_spread_of_nothing_is_null():
    assert spread(pl.Series([None, None], dtype=pl.Float64)).model_dump() == {
        "n": 0, "minimum": None, "p05": None, "median": None, "p95": None, "maximum": None, "mean": None,
    }  # fmt: skip
    assert spread(pl.Series([1, 2, 9])).median == 2
