import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import max_pool2d
from torchvision.transforms import CenterCrop, Compose, Resize, TenCrop
from torchvision.transforms.functional import pil_to_tensor

from predilect.randomness import stream
from predilect.recipe import Preprocessing, Recipe
from predilect.vision.transforms import central_square, decode, normalise, train_crop, views

SMALL = Preprocessing(crop=32, jitter=(40, 64), test_side=40)


def jpeg(width, height, *, quality=95):
    """A smooth picture whose red grows to the right and whose green grows downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, np.full_like(x, 40)], axis=2).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=quality, subsampling=0)
    return target.getvalue()


def test_a_training_crop_is_a_function_of_its_random_stream():
    data = jpeg(90, 70)
    first = train_crop(data, SMALL, stream(1, "augmentation", 0, 5))
    again = train_crop(data, SMALL, stream(1, "augmentation", 0, 5))
    other = train_crop(data, SMALL, stream(1, "augmentation", 1, 5))
    assert first.shape == (3, 32, 32)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_jitter_is_uniform_and_crops_lie_anywhere_within():
    """On a ramp the slope tells the scale and the mean tells the place."""
    data = jpeg(200, 200)
    sides, lefts, mirrored = [], [], 0
    for k in range(600):
        crop = train_crop(data, SMALL, stream(3, "augmentation", 0, k)).astype(float)
        slope = np.polyfit(np.arange(32), crop[0].mean(axis=0), 1)[0]
        mirrored += slope < 0
        side = 255 / abs(slope)
        sides.append(side)
        lefts.append((crop[0].mean() / 255 * side - 16) / (side - 32))
    assert mirrored / 600 == pytest.approx(0.5, abs=0.07)
    assert np.quantile(sides, [0.02, 0.25, 0.5, 0.75, 0.98]) == pytest.approx([40.5, 46, 52, 58, 63.5], abs=1.7)
    assert min(lefts) < 0.08
    assert max(lefts) > 0.92
    assert np.mean(lefts) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("size", [(90, 70), (64, 300), (40, 40), (33, 500), (600, 500)])
def test_the_central_square_is_that_of_the_resized_photograph(size):
    data = jpeg(*size)
    image = decode(data, 10_000)  # never at reduced scale
    scale = 40 / min(size)
    whole = image.resize((max(40, round(size[0] * scale)), max(40, round(size[1] * scale))), Image.Resampling.BILINEAR)
    left, top = (whole.width - 40) // 2, (whole.height - 40) // 2
    expected = np.asarray(whole.crop((left, top, left + 40, top + 40))).transpose(2, 0, 1).astype(int)
    found = central_square(data, SMALL).astype(int)
    assert found.shape == (3, 40, 40)
    # Reduced decoding of the largest one blurs by a grey level or two; a shift by a pixel would be 6.
    assert np.abs(found - expected).max() <= 3


def test_ten_crops_are_torchvisions():
    preprocessing = SMALL.model_copy(update={"views": "ten-crop"})
    images = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8)
    found = views(images, preprocessing)
    expected = torch.stack(TenCrop(32)(images))
    assert found.shape == (10, 3, 3, 32, 32)
    assert torch.equal(found, expected)


def photograph(width, height):
    """Large shades and some texture, as skin has them, in a JPEG of usual quality."""
    rng = np.random.default_rng(width)
    shades, texture = (
        Image.fromarray(rng.integers(0, 256, size=size, dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        for size in [(12, 16, 3), (height // 8, width // 8)]
    )
    pixels = 60 + 0.6 * np.asarray(shades).astype(float) + 0.2 * (np.asarray(texture).astype(float) - 128)[..., None]
    target = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=92)
    return target.getvalue()


def crops_both_ways(data):
    """(10, 3, 224, 224) of paper-mtl from a file: ours, and those of torchvision's own steps."""
    preprocessing = Recipe.open("paper-mtl").preprocessing
    ours = views(torch.from_numpy(central_square(data, preprocessing))[None], preprocessing)[:, 0]
    steps = Compose([Resize(256), CenterCrop(256), TenCrop(224)])
    theirs = torch.stack([pil_to_tensor(crop) for crop in steps(Image.open(io.BytesIO(data)).convert("RGB"))])
    assert ours.shape == theirs.shape == (10, 3, 224, 224)
    return ours.float(), theirs.float()


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        # The shorter side is 256 already: nothing is resampled.
        ((340, 256), 0),
        ((256, 401), 0),
        ((256, 256), 0),
        # Scaling and cropping are one resampling instead of two steps.
        ((400, 300), 1),
        ((300, 400), 1),
        ((640, 480), 1),
        # At half the size or less the JPEG decoder does part of the scaling.
        ((680, 512), 5),
        ((1024, 768), 5),
    ],
)
def test_the_ten_crops_of_a_photograph_are_those_of_torchvisions_steps(size, levels):
    ours, theirs = crops_both_ways(photograph(*size))
    assert theirs.std() > 25
    assert (ours - theirs).abs().max() <= levels


@pytest.mark.parametrize("size", [(343, 256), (511, 600), (200, 260)])
def test_where_lengths_round_otherwise_the_crops_lie_within_a_pixel_of_torchvisions(size):
    """We round the longer side and halve downwards; torchvision cuts the side and rounds half a pixel to the even one."""
    ours, theirs = crops_both_ways(photograph(*size))
    most, least = max_pool2d(theirs, 3, stride=1, padding=1), -max_pool2d(-theirs, 3, stride=1, padding=1)
    inner = (..., slice(1, -1), slice(1, -1))  # what lies beyond the edge is not in their crop
    assert (ours - theirs).abs().max() > 5
    assert ((ours <= most + 2) & (ours >= least - 2))[inner].all()


def test_the_center_view_is_the_central_crop():
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    assert torch.equal(views(images, SMALL)[0], images[:, :, 4:36, 4:36])


def test_normalising_is_that_of_torchvision():
    from torchvision.transforms.functional import normalize

    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = normalise(images, mean, std)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, normalize(images / 255, mean, std), rtol=1e-5, atol=1e-5)


def test_reduced_decoding_keeps_enough_detail():
    assert min(decode(jpeg(640, 512), 100).size) >= 100
    assert decode(jpeg(640, 512), 100).size != (640, 512)
    assert decode(jpeg(64, 80), 100).size == (64, 80)


def test_turning_and_mirroring_reach_every_symmetry_of_the_square_equally():
    whole = Preprocessing(crop=32, jitter=(32, 32), test_side=32, turn=True)
    data = jpeg(32, 32)
    upright = train_crop(data, whole.model_copy(update={"turn": False, "flip": False}), stream(1, "augmentation", 0, 0))
    wanted = [np.rot90(image, k, axes=(1, 2)) for image in (upright, upright[:, :, ::-1]) for k in range(4)]
    counts = np.zeros(8)
    for k in range(800):
        crop = train_crop(data, whole, stream(2, "augmentation", 0, k))
        (match,) = [number for number, image in enumerate(wanted) if np.array_equal(image, crop)]
        counts[match] += 1
    assert counts.min() > 60
    assert counts.max() < 140


def test_light_changes_all_channels_alike_and_within_its_range():
    lit = Preprocessing(crop=32, jitter=(32, 32), test_side=32, flip=False, light=0.2)
    grey = io.BytesIO()
    Image.new("RGB", (32, 32), (120, 120, 120)).save(grey, "JPEG", quality=95)
    levels = []
    for k in range(300):
        crop = train_crop(grey.getvalue(), lit, stream(4, "augmentation", 0, k))
        assert np.array_equal(crop[0], crop[1])
        assert np.array_equal(crop[0], crop[2])
        levels.append(crop[0, 0, 0] / 120)
    assert 0.79 < min(levels) < 0.83
    assert 1.17 < max(levels) < 1.21
    assert np.mean(levels) == pytest.approx(1, abs=0.03)
    # On a ramp the contrast shows: spread over brightness.
    ramp = jpeg(32, 32)
    plain = train_crop(ramp, lit.model_copy(update={"light": 0.0}), stream(5, "augmentation", 0, 0)).astype(float)
    spreads = []
    for k in range(100):
        crop = train_crop(ramp, lit, stream(5, "augmentation", 0, k)).astype(float)
        assert crop[2].std() < 2  # blue is flat, and stays so
        spreads.append((crop[0].std() / crop[0].mean()) / (plain[0].std() / plain[0].mean()))
    assert min(spreads) < 0.95
    assert max(spreads) > 1.05
