"""Photographs of many requests, put before the network together: what waits is bounded, and who comes too late is told when to come again."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

__all__ = ["Batcher", "FullError"]

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

_MAX_RETRY_AFTER = 60
_REMEMBERED = 0.8  # of the time that a photograph took so far, when a batch has been timed


class FullError(Exception):
    """There is no room for more now.

    Attributes:
        retry_after: Whole seconds after which there may be, at least 1.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Batcher(Generic[Asked, Answered]):
    """One thread that answers in batches; to be used from one event loop.

    While a batch is answered the next one gathers. When the thread is idle, a first item waits a moment for others.

    Args:
        answer: Answers a batch, in its order; it runs in a thread of its own, always the same one.
        capacity: Items that may be taken in and not yet answered.
        max_batch: Items in a batch at most.
        gather_seconds: How long the first item waits for others.
    """

    def __init__(
        self, answer: Callable[[Sequence[Asked]], Sequence[Answered]], *, capacity: int, max_batch: int, gather_seconds: float
    ) -> None:
        self._answer = answer
        self._capacity, self._max_batch, self._gather_seconds = capacity, max_batch, gather_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._waiting: list[tuple[Asked, asyncio.Future[Answered]]] = []
        self._due = False  # whether a batch runs, or is about to
        self._taken = 0
        self._seconds_each = 0.0

    def check_room(self) -> None:
        """Make sure that there is room for an item, before work is put into taking it in.

        Raises:
            FullError: If there is none.
        """
        self._check_room(1)

    @contextmanager
    def places(self, n: int) -> Iterator[None]:
        """Take n items in, from now until they are answered.

        Raises:
            FullError: If they are more than there is room for.
        """
        self._check_room(n)
        self._taken += n
        try:
            yield
        finally:
            self._taken -= n

    async def ask(self, item: Asked) -> Answered:
        """The answer to one item, for which a place was taken. What `answer` raises is raised for each item of the batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        self._waiting.append((item, future))
        if not self._due:
            self._due = True
            loop.call_later(self._gather_seconds, self._begin)
        return await future

    def close(self) -> None:
        """Wait for the batch that runs, and end the thread; no item may wait any more."""
        self._thread.shutdown()

    def _check_room(self, n: int) -> None:
        if self._taken + n > self._capacity:
            raise FullError(max(1, min(_MAX_RETRY_AFTER, math.ceil(self._taken * self._seconds_each))))

    def _begin(self) -> None:
        asking = [(item, future) for item, future in self._waiting if not future.cancelled()]  # the others went away
        batch, self._waiting = asking[: self._max_batch], asking[self._max_batch :]
        self._due = bool(batch)
        if batch:
            running = asyncio.get_running_loop().run_in_executor(self._thread, self._answer, [item for item, _ in batch])
            running.add_done_callback(partial(self._finish, [future for _, future in batch], time.perf_counter()))

    def _finish(self, futures: list[asyncio.Future[Answered]], begun: float, done: asyncio.Future[Sequence[Answered]]) -> None:
        error = done.exception()
        each = (time.perf_counter() - begun) / len(futures)
        self._seconds_each = _REMEMBERED * self._seconds_each + (1 - _REMEMBERED) * each if self._seconds_each else each
        for k, future in enumerate(futures):
            if future.cancelled():
                continue
            if error is None:
                future.set_result(done.result()[k])
            else:
                future.set_exception(error)
        self._begin()
