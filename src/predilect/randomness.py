"""Named random streams: every random decision is a function of the seed, the stream's name and indices, of nothing else.

So adding a head, a worker or a crash changes no other stream, and the same seed gives the same run.
"""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["stream", "stream_seed"]


def stream(seed: int, name: str, *indices: int) -> np.random.Generator:
    """A generator that belongs to (seed, name, indices) alone.

    Args:
        seed: The run's seed, not negative.
        name: The stream, such as ``"order"`` or ``"augmentation"``.
        indices: Further coordinates, such as epoch and row; not negative.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, name, indices)))


def stream_seed(seed: int, name: str, *indices: int) -> int:
    """A 63-bit seed that belongs to (seed, name, indices), for libraries with generators of their own."""
    return int(_sequence(seed, name, indices).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, name: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, zlib.crc32(name.encode()), *indices))
