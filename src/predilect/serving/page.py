"""The web page: a few files of the package, held in memory, so that no path of a request ever meets the disk."""

from __future__ import annotations

import mimetypes
from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["page_routes"]

_KNOWN = {".js": "text/javascript", ".svg": "image/svg+xml"}  # systems name these differently, or not at all


def page_routes() -> list[Route]:
    """A route for each file of `static`, and ``/`` for its `index.html`."""
    routes = []
    for file in sorted(files("predilect.serving").joinpath("static").iterdir(), key=lambda item: item.name):
        if file.is_file():
            held = _StaticFile(file.name, file.read_bytes())
            routes += [Route(path, held.answer) for path in (f"/{file.name}", *(["/"] if file.name == "index.html" else []))]
    return routes


class _StaticFile:
    """Answers with one file; a browser asks each time whether it is still the same."""

    def __init__(self, name: str, content: bytes) -> None:
        ending = name[name.rfind(".") :]
        self._content = content
        self._type = _KNOWN.get(ending) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._headers = {"ETag": f'"{sha256(content).hexdigest()[:32]}"', "Cache-Control": "no-cache"}

    async def answer(self, request: Request) -> Response:
        if request.headers.get("if-none-match") == self._headers["ETag"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers, media_type=self._type)
