"""Questions of many at once, answered by one predictor: decoding in a few threads, the network in one of its own, answers in others.

What is slow holds up nobody: a photograph that is decoded and looked at is answered whatever waits to be decoded, one that is quickly decoded
does not wait for those that take long, and a request of many has one of them decoded at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

from predilect.atlas.decoding import UnusableImageError
from predilect.serving.answers import PhotographAnswer
from predilect.serving.batching import Batcher
from predilect.serving.lanes import Lanes, is_quick
from predilect.serving.predictor import Predictor
from predilect.serving.settings import Settings
from predilect.serving.steps import Photograph, Question, Seen
from predilect.serving.uploads import HeldBytes, Upload

__all__ = ["Service"]

_log = logging.getLogger("uvicorn.error")  # where uvicorn tells of faults, too
_ANSWERING = 2  # threads; an answer takes a few milliseconds


class Service:
    """An asynchronous context: entered in the event loop that serves, it warms up; left, it finishes what was taken in.

    Args:
        predictor: What answers.
        settings: Give the limits.

    Attributes:
        predictor: The same.
        uploads: Counts what is held in memory.
        ready: Whether a photograph has been answered.
    """

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.predictor, self.uploads, self.ready = predictor, HeldBytes(settings.max_held_bytes), False
        self._max_pixels = settings.max_pixels
        self._lanes = Lanes(settings.decoders, settings.max_slow)
        self._answering = ThreadPoolExecutor(_ANSWERING, thread_name_prefix="answers")
        self._batcher: Batcher[Photograph, Seen] = Batcher(
            predictor.observe,
            capacity=settings.capacity,
            max_batch=settings.max_batch,
            gather_seconds=settings.gather_seconds,
        )

    async def __aenter__(self) -> Self:
        self._warming = asyncio.create_task(self._warm_up())
        self._warming.add_done_callback(self._warmed)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.wait([self._warming])
        self._lanes.close()
        self._batcher.close()
        self._answering.shutdown()

    def check_room(self) -> None:
        """Make sure that there is room for a photograph, before one is received.

        Raises:
            FullError: If there is none.
        """
        self._batcher.check_room()

    async def answer(self, uploads: Sequence[Upload], question: Question) -> list[PhotographAnswer | UnusableImageError]:
        """Answer for each photograph, or say why it cannot be used.

        Args:
            uploads: The files.
            question: Asked of each of them.

        Raises:
            FullError: If there is no room for so many.
            LabelError: If the question names a class that is unknown.
            ServingError: If the bundle takes no site into account.
            InsightError: If the bundle cannot answer the question.
        """
        self.predictor.check(question)
        quick, turn = [is_quick(upload.data) for upload in uploads], asyncio.Lock()
        with self._batcher.places(len(uploads)), self._lanes.places(quick):
            # Each is waited for, whatever becomes of the others: until then its place is taken.
            asking = (self._one(upload, question, turn, quick=soon) for upload, soon in zip(uploads, quick, strict=True))
            found = await asyncio.gather(*asking, return_exceptions=True)
        answers: list[PhotographAnswer | UnusableImageError] = []
        for item in found:
            if isinstance(item, BaseException) and not isinstance(item, UnusableImageError):
                raise item
            answers.append(item)
        return answers

    async def _one(self, upload: Upload, question: Question, turn: asyncio.Lock, *, quick: bool) -> PhotographAnswer:
        async with turn:
            prepare = partial(self.predictor.prepare, upload.name, upload.data, self._max_pixels)
            photograph = await self._lanes.run(prepare, quick=quick)
        answer = await self._answered(photograph, question)
        self.ready = True
        return answer

    async def _answered(self, photograph: Photograph, question: Question) -> PhotographAnswer:
        seen = await self._batcher.ask(photograph)
        answering = asyncio.get_running_loop().run_in_executor
        return await answering(self._answering, self.predictor.answer, photograph, seen, question)

    async def _warm_up(self) -> None:
        """Answer once with everything, so that what is made only when it is first needed, such as the search, is made now."""
        await self._answered(self.predictor.blank(), self.predictor.everything())

    def _warmed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self.ready = self.ready or (not task.cancelled() and error is None)
        if error is not None:
            _log.error("the first answer, to a blank photograph, failed: the server does not get ready by itself", exc_info=error)
