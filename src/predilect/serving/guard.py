"""Who may ask, and what a browser may do with an answer: the outermost layer of the server."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from predilect.serving.problems import ProblemError, problem_response
from predilect.serving.settings import Settings

__all__ = ["SECURITY_HEADERS", "Guard"]

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer."""

_PROTECTED = "/v1/"
_OTHER_PAGES = frozenset(
    {"cross-site", "same-site"}
)  # what browsers write into Sec-Fetch-Site; a site is a name with all its ports


class Guard:
    """Lets through requests that name an allowed host and, below ``/v1``, come from no other page and bring the token along.

    All this before a byte of their body is read. A page elsewhere could not read the answer, but have a browser ask all the same.

    The page and what says whether the server is well are open: they hold nothing that a token protects.

    Args:
        app: What is guarded.
        settings: Give `token`, `hosts` and `any_address`.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._hosts, self._any_address = app, settings.hosts, settings.any_address
        self._token = None if settings.token is None else settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in (*SECURITY_HEADERS.items(), ("Cache-Control", "no-store")):
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        answer = self._app if refusal is None else problem_response(Request(scope), refusal)
        await answer(scope, receive, secured)

    def _refusal(self, path: str, headers: Headers) -> ProblemError | None:
        if not self._is_known(_host_name(headers.get("host", ""))):
            named = ", ".join([*sorted(self._hosts or ()), *(["any address in numbers"] if self._any_address else [])])
            return ProblemError(421, f"This server answers under these names only: {named}.")
        if not path.startswith(_PROTECTED):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = self._token is not None and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)
        # Another page does not know the token; behind a proxy that changes the Host header, the own page's origin is not the host.
        if headers.get("sec-fetch-site") in _OTHER_PAGES or (not right and _is_of_another_origin(headers)):
            return ProblemError(403, "No page but this server's own may ask it.")
        if right or self._token is None:
            return None
        told = "The token is not the right one" if given else "A token is needed"
        return ProblemError(401, f"{told}: send Authorization: Bearer TOKEN.", headers={"WWW-Authenticate": "Bearer"})

    def _is_known(self, name: str) -> bool:
        return self._hosts is None or name in self._hosts or (self._any_address and _is_address(name))


def _is_of_another_origin(headers: Headers) -> bool:
    """By the origin that a browser names where it does not say how that is related, as to an address without TLS."""
    origin = headers.get("origin")
    if "sec-fetch-site" in headers or origin is None:
        return False
    return origin.partition("://")[2].lower() != headers.get("host", "").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """Of a Host header, without its port: ``[::1]:8000`` is ``[::1]``."""
    end = host.find("]") + 1 if host.startswith("[") else host.find(":")
    return (host[:end] if end > 0 else host).lower()
