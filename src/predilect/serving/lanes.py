"""Who is decoded next: photographs that are quickly decoded never wait for those that may take long, and these are few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from predilect.atlas.jpeg_stream import pixels_gone_over
from predilect.atlas.png_stream import is_png, pixels_in_header
from predilect.serving.batching import FullError

__all__ = ["Lanes", "is_quick"]

Done = TypeVar("Done")

_QUICK = 2**25  # pixels that are gone over: a fifth of a second or less
_PNG_PIXEL = 8  # a pixel of a PNG costs as much as so many of a JPEG
_MAX_BYTES = 2**24  # cameras write fewer for so many pixels; more may hide work that pixels do not tell
_RETRY_AFTER = 5


def is_quick(data: bytes) -> bool:
    """Whether a file is soon decoded, as far as can be told at once: a JPEG as cameras make them, or a PNG of a few megapixels.

    Of other formats it is not known: they hide their size, or let a small file ask for much work.

    Args:
        data: Any file's bytes.
    """
    if len(data) > _MAX_BYTES:
        return False
    if is_png(data):
        n_pixels = pixels_in_header(data)
        return n_pixels is not None and _PNG_PIXEL * n_pixels <= _QUICK
    n_pixels = pixels_gone_over(data)
    return n_pixels is not None and n_pixels <= _QUICK


class Lanes:
    """Threads that decode, of which one is kept free of files that may take long; to be used from one event loop.

    Args:
        n_threads: How many; a single one does everything in turn.
        max_slow: So many files that may take long may be taken in and not yet answered.
    """

    def __init__(self, n_threads: int, max_slow: int) -> None:
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="photographs")
        self._slowly = asyncio.Semaphore(max(1, n_threads - 1))
        self._max_slow, self._n_slow = max_slow, 0

    @contextmanager
    def places(self, quick: Sequence[bool]) -> Iterator[None]:
        """Take files in, from now until they are answered.

        Args:
            quick: Of each, what `is_quick` says.

        Raises:
            FullError: If there is no room for those that may take long.
        """
        n = len(quick) - sum(quick)
        if n and self._n_slow + n > self._max_slow:
            raise FullError(_RETRY_AFTER)
        self._n_slow += n
        try:
            yield
        finally:
            self._n_slow -= n

    async def run(self, work: Callable[[], Done], *, quick: bool) -> Done:
        """Have a file decoded, when it is its turn.

        Args:
            work: Decodes it.
            quick: What `is_quick` says of it.
        """
        async with nullcontext() if quick else self._slowly:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Wait for what runs, and end the threads."""
        self._pool.shutdown()
