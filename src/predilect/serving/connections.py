"""The server that an application runs in, and its connections: whoever does not take an answer is given up."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from predilect.serving.settings import Settings

__all__ = ["make_server"]

_KEEP_ALIVE = 75
_LEAST_TAKEN = 2**16  # bytes of an answer, or what is left of it


def make_server(app: ASGIApp, settings: Settings) -> uvicorn.Server:
    """A server that logs no request, answers what it took in when it is told to stop, and then ends.

    Args:
        app: What it serves.
        settings: Say how long it waits for those who do not read, and for its own end.
    """
    config = uvicorn.Config(
        app,
        http=_connection(settings.send_seconds),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=settings.finish_seconds,
    )
    return uvicorn.Server(config)


def _connection(send_seconds: float) -> type[H11Protocol]:
    class Connection(H11Protocol):
        """Looks from time to time whether what was written is taken; uvicorn would wait for ever, and a closed transport does.

        Time begins anew with each answer, and where the one who reads keeps up.
        """

        _watch: asyncio.TimerHandle | None = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._wait()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._wait()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop()

        def _wait(self) -> None:
            self._stop()
            left = self.transport.get_write_buffer_size()
            if left:
                self._watch = self.loop.call_later(send_seconds, self._look, left)

        def _stop(self) -> None:
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

        def _look(self, before: int) -> None:
            if before - self.transport.get_write_buffer_size() < min(before, _LEAST_TAKEN):
                self.transport.abort()
            else:
                self._wait()

    return Connection
