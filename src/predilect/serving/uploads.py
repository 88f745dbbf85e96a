"""A form with files, read from the stream of a request into bounded memory: nothing of it ever comes near a disk or a log.

Starlette's own reader puts files above 1 MB into temporary files; this one uses the same parser, and keeps the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from predilect.serving.batching import FullError
from predilect.serving.problems import ProblemError
from predilect.serving.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = ["Form", "HeldBytes", "Pace", "Upload", "read_form"]

_MAX_FIELDS, _MAX_FIELD_BYTES, _MAX_HEADER_BYTES = 256, 1024, 4096
_MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form.

    Attributes:
        name: As it was sent; empty where none was.
        data: Its bytes.
    """

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """A form that was received.

    Attributes:
        files: By field, in the order sent.
        fields: Other values by field, in the order sent.
    """

    files: Mapping[str, tuple[Upload, ...]]
    fields: Mapping[str, tuple[str, ...]]


class HeldBytes:
    """Counts the bytes of all uploads in memory, and lets no more come in than are allowed.

    Args:
        allowed: Bytes.
    """

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[_Share]:
        """What one request holds, until it is answered."""
        share = _Share(self)
        try:
            yield share
        finally:
            self.held -= share.held

    def add(self, n: int) -> None:
        """Count n bytes more.

        Raises:
            FullError: If there is no room for them; they are not counted then.
        """
        if self.held + n > self._allowed:
            raise FullError(retry_after=1)
        self.held += n


@dataclass(slots=True)
class _Share:
    whole: HeldBytes
    held: int = 0

    def add(self, n: int) -> None:
        self.whole.add(n)
        self.held += n


class Pace:
    """Says until when the rest of a request is waited for, so that nobody holds memory by sending slowly.

    Who sends evenly has `whole` seconds. A request that holds n bytes must go on with at least n / `whole` bytes a second: each byte
    earns the time that it may take at that rate, waiting spends it, and no more than `stall` seconds are ever kept. One that sends much at
    once and then nothing, or next to nothing, is so given up soon; one that sent nothing yet holds nothing.

    Args:
        begun: When it began, in seconds of any clock.
        whole: Seconds that the whole may take.
        stall: Seconds that it may stop.

    Attributes:
        end: When it is given up in any case.
        until: When it is given up if no more comes before.
    """

    def __init__(self, begun: float, whole: float, stall: float) -> None:
        self.end = self.until = begun + whole
        self._whole, self._stall, self._n_bytes = whole, stall, 0

    def came(self, n: int, now: float) -> None:
        """So many bytes more, at least 1, came in now."""
        self._n_bytes += n
        earned = self._whole * n / self._n_bytes
        self.until = min(self.end, now + min(self._stall, max(0.0, self.until - now) + earned))


async def read_form(request: Request, settings: Settings, share: _Share) -> Form:
    """Receive the form of a request.

    Args:
        request: Whose body has not been read.
        settings: Give the limits.
        share: Of the memory for uploads.

    Raises:
        ProblemError: 415 if the request holds no form, 413 if it is too large or has too many parts, 408 if it takes too long or
            stops, 400 if it is malformed.
        FullError: If too many uploads are in memory now.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ProblemError(415, "The body must be a form with files, multipart/form-data with its boundary.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_request_bytes:
        raise _too_large(settings)
    parts, clock = _Parts(settings), asyncio.get_running_loop().time
    pace = Pace(clock(), settings.receive_seconds, settings.stall_seconds)
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        async with asyncio.timeout_at(pace.end) as limit:
            n_bytes = 0
            async for chunk in request.stream():
                n_bytes += len(chunk)
                if chunk:  # the last one is empty
                    pace.came(len(chunk), clock())
                    limit.reschedule(pace.until)
                if n_bytes > settings.max_request_bytes:
                    raise _too_large(settings)
                share.add(len(chunk))
                parser.write(chunk)
    except FormParserError as error:
        raise ProblemError(400, "The form is malformed.", kind="malformed-form") from error
    except TimeoutError as error:
        if pace.until < pace.end:
            raise ProblemError(408, f"The request all but stopped for {settings.stall_seconds:g} s.") from error
        raise ProblemError(408, f"The request took longer than {settings.receive_seconds:g} s to come in.") from error
    if not parts.ended:
        raise ProblemError(400, "The form is cut short: its end is missing.", kind="malformed-form")
    return parts.form()


def _too_large(settings: Settings) -> ProblemError:
    return ProblemError(413, f"The request is larger than {settings.max_request_bytes // _MEGABYTE} MB.", kind="too-large")


class _Parts:
    """What a parser tells of the parts of a form, put together again."""

    def __init__(self, settings: Settings) -> None:
        self.ended = False
        self._settings = settings
        self._files: dict[str, list[Upload]] = {}
        self._fields: dict[str, list[str]] = {}
        self._header, self._value = b"", b""
        self._disposition: dict[bytes, bytes] = {}
        self._data = bytearray()
        self._n_files, self._n_fields = 0, 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def form(self) -> Form:
        return Form(
            {name: tuple(uploads) for name, uploads in self._files.items()},
            {name: tuple(values) for name, values in self._fields.items()},
        )

    def _begin(self) -> None:
        self._disposition, self._data = {}, bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._check_header(end - start)
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._check_header(end - start)
        self._value += data[start:end]

    def _check_header(self, more: int) -> None:
        """Older parsers put no limit to it, and each piece is copied with those before."""
        if len(self._header) + len(self._value) + more > _MAX_HEADER_BYTES:
            detail = f"A header of a part of the form is longer than {_MAX_HEADER_BYTES} bytes."
            raise ProblemError(400, detail, kind="malformed-form")

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = parse_options_header(self._value)[1]
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        if b"name" not in self._disposition:
            raise ProblemError(400, "A part of the form has no name.", kind="malformed-form")
        if self._is_file:
            self._n_files += 1
            if self._n_files > self._settings.max_files:
                raise ProblemError(
                    413, f"At most {self._settings.max_files} photographs may be sent at once.", kind="too-many-files"
                )
        else:
            self._n_fields += 1
            if self._n_fields > _MAX_FIELDS:
                raise ProblemError(413, f"The form has more than {_MAX_FIELDS} values.", kind="too-large")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        allowed = self._settings.max_file_bytes if self._is_file else _MAX_FIELD_BYTES
        if len(self._data) + end - start > allowed:
            what = (
                f"A photograph is larger than {allowed / _MEGABYTE:g} MB"
                if self._is_file
                else f"A value is longer than {allowed} bytes"
            )
            raise ProblemError(413, f"{what}.", kind="too-large")
        self._data += data[start:end]

    def _part_end(self) -> None:
        name = _text(self._disposition[b"name"])
        if self._is_file:
            self._files.setdefault(name, []).append(Upload(_text(self._disposition[b"filename"]), bytes(self._data)))
        else:
            self._fields.setdefault(name, []).append(_text(self._data))
        self._data = bytearray()

    def _end(self) -> None:
        self.ended = True

    @property
    def _is_file(self) -> bool:
        return b"filename" in self._disposition


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", errors="replace")
