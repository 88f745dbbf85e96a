"""Problem details for HTTP APIs (RFC 9457): the one form in which this server says no."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from predilect.atlas.decoding import UnknownFormatError, UnreadFileError, UnusableImageError
from predilect.serving.answers import Problem
from predilect.serving.batching import FullError

__all__ = ["MEDIA_TYPE", "ProblemError", "busy", "problem_response", "unusable"]

MEDIA_TYPE = "application/problem+json"

_PROBLEM = TypeAdapter(Problem)
_SHORT_OF_MEMORY_SECONDS = 5


class ProblemError(Exception):
    """A request that is answered by a problem.

    Args:
        status: The HTTP status.
        detail: A sentence for the person who asks; it must not repeat what a photograph holds.
        kind: What distinguishes the problem from others of its status, such as ``unknown-format``; none: the status says all.
        headers: Of the answer.
    """

    def __init__(self, status: int, detail: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.kind, self.headers = status, detail, kind, dict(headers or {})

    def problem(self, instance: str) -> Problem:
        """As it is written into an answer.

        Args:
            instance: The path that was asked.
        """
        if self.kind is None:
            return Problem("about:blank", HTTPStatus(self.status).phrase, self.status, self.detail, instance)
        return Problem(f"urn:predilect:{self.kind}", self.kind.replace("-", " ").capitalize(), self.status, self.detail, instance)


def problem_response(request: Request, error: ProblemError) -> Response:
    """A problem as the whole answer."""
    content = _PROBLEM.dump_json(error.problem(request.url.path))
    return Response(content, error.status, {"Cache-Control": "no-store", **error.headers}, MEDIA_TYPE)


def unusable(error: UnusableImageError) -> ProblemError:
    """The problem with a file that is no usable photograph, or that there is no memory for now."""
    if isinstance(error, UnreadFileError):
        headers = {"Retry-After": str(_SHORT_OF_MEMORY_SECONDS)}
        return ProblemError(503, f"The photograph cannot be read now: {error}.", kind="short-of-memory", headers=headers)
    if isinstance(error, UnknownFormatError):
        return ProblemError(415, f"The file cannot be used: {error}.", kind="unknown-format")
    return ProblemError(422, f"The photograph cannot be used: {error}.", kind="unusable-photograph")


def busy(error: FullError) -> ProblemError:
    """The problem with a request for which there is no room."""
    detail = f"There is no room for more photographs now; try again in {error.retry_after} s."
    return ProblemError(503, detail, kind="busy", headers={"Retry-After": str(error.retry_after)})
