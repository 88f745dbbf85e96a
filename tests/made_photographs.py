"""Photographs drawn at random, with what real ones have: areas, edges and grain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def drawn(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3): grain on areas, so that both rounding and the weights of single pixels show."""
    rng = np.random.default_rng(seed)
    areas = np.asarray(Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height)))
    return np.clip(areas.astype(int) + rng.integers(-60, 60, (height, width, 3)), 0, 255).astype(np.uint8)
