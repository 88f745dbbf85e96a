"""Ending a training between two of its steps when the user or the cluster asks for it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["held_signals"]

_TOLD = "stopping: the state is saved after this step; a second signal stops at once, without saving\n"


@contextmanager
def held_signals(*, hold: bool = True) -> Iterator[Callable[[], bool]]:
    """Hold back the first SIGINT (Ctrl-C) or SIGTERM until the block ends, and deliver it then; a second one acts at once.

    A step may be followed by a long validation: one line on stderr says at once that the signal has come.

    What a signal does is left to whoever decided it before. One that is ignored stays ignored. Python lets only the main thread
    take signals; in any other nothing is held.

    Args:
        hold: Whether to; otherwise signals act as ever.

    Yields:
        Whether a signal is waiting, so that the block should end.
    """
    waiting: list[int] = []
    before = {}
    if hold and threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def wait(number: int, _: FrameType | None) -> None:
        waiting.append(number)
        give_back()
        # Past Python's own stream, whose write this may have interrupted; after a bar or an echoed ^C on a line of its own.
        with suppress(OSError):
            os.write(2, ("\n" + _TOLD if os.isatty(2) else _TOLD).encode())

    for number in before:
        signal.signal(number, wait)
    try:
        yield lambda: bool(waiting)
    finally:
        give_back()
    if waiting:
        signal.raise_signal(waiting[0])
