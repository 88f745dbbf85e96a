"""HEIC files, decoded in processes of their own, since one changed byte in such a file can crash its decoder.

Processes are started when the first files come, as many as threads ask at once, and go on to the next file. One that dies is replaced; a
file is blamed for it only if it was the first one that the process was given. They end with their input, so also when this process is killed.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageFile

from predilect.atlas.heif_decoder import ANSWER, CUT_SHORT, PIXEL_BYTES, READY, REASON_BYTES, REQUEST, SEEN, TOO_LARGE, UNKNOWN

if TYPE_CHECKING:
    from PIL._imaging import PixelAccess

__all__ = ["HEIF_BRANDS", "DecoderUnavailableError", "register_heif"]

HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
"""Bytes 8 to 11 of a file that begins with a box of the type ``ftyp``."""

_PROGRAM = Path(__file__).with_name("heif_decoder.py")
_SECONDS_TO_START, _SECONDS_TO_END = 60, 5
# On the clock, for the pixels that the file's own header tells. Of processor time a decoder has less, so that a busy machine ends
# none: this is for one that waits for itself.
_SECONDS, _SECONDS_PER_MEGAPIXEL = 30, 1
_PADDING = 4096  # bytes that a line of pixels may have more than it needs
_CRASHED = "its decoder crashed"


class DecoderUnavailableError(Exception):
    """No decoder answers at this moment, which says nothing about the file; the message is why."""


class _DiedError(Exception):
    """A decoder did not survive a file, or not in time; the message is the reason."""


def register_heif() -> bool:
    """Let Pillow open HEIC files where it is asked for the format ``HEIC``; False where the package that decodes them is not installed.

    Such an image has the mode, the size, the pixels and the colour profile that pi-heif's own plugin for Pillow gives it, but no EXIF: how it is
    turned is said by the container, and has been applied. Beside what Pillow raises for damaged files, opening and loading it raise
    `DecoderUnavailableError`, and `RuntimeError` with the reason if the decoder dies or takes more time or memory than a photograph can need.
    """
    if find_spec("pi_heif") is None:
        return False
    # Not by `Image.register_open`: whoever else opens HEIC files with Pillow in this process should do so by means of his own.
    Image.OPEN[_HeifImage.format] = _HeifImage, lambda start: start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS
    return True


class _HeifImage(ImageFile.ImageFile):
    format = "HEIC"

    def _open(self) -> None:
        assert self.fp is not None
        self._coded = self.fp.read()
        seen = _asked(self._coded)
        self._mode, self._size = seen.mode, seen.size
        if seen.profile:
            self.info["icc_profile"] = seen.profile

    def load(self) -> PixelAccess | None:
        if self._coded:
            seen = _asked(self._coded, self.width * self.height)
            if (seen.mode, seen.size) != (self.mode, self.size) or not seen.pixels:
                raise RuntimeError("it is not of the size that its header tells")
            self.load_prepare()
            self.frombytes(seen.pixels, "raw", (self.mode, seen.stride))
            self._coded = b""
        return super().load()


@dataclass(frozen=True, slots=True)
class _Answer:
    kind: int
    mode: str
    size: tuple[int, int]
    stride: int
    profile: bytes  # the reason, where there is no picture
    pixels: bytes

    @property
    def reason(self) -> str:
        return self.profile.decode(errors="replace")


def _asked(data: bytes, max_pixels: int = 0) -> _Answer:
    """What a decoder sees in a file; with the pixels, if there are at most so many."""
    try:
        answer = _DECODERS.ask(data, max_pixels)
    except _DiedError as error:
        raise RuntimeError(str(error)) from error
    if answer.kind == SEEN:
        return answer
    if answer.kind == TOO_LARGE:
        raise RuntimeError("it asks for more memory than a photograph of its size can need")
    kinds = {UNKNOWN: SyntaxError, CUT_SHORT: EOFError}  # the first tells Pillow that it is no such file
    raise kinds.get(answer.kind, RuntimeError)(answer.reason)


class _Decoder:
    """One process that decodes."""

    def __init__(self) -> None:
        self._is_ready = self._expired = False
        self._process = subprocess.Popen(  # noqa: S603 (a program of ours)
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("PREDILECT_")},  # a server's token
            start_new_session=True,  # Ctrl-C on the terminal is answered by this process alone
        )

    def ask(self, data: bytes, max_pixels: int) -> _Answer:
        """Give it a file.

        Raises:
            _DiedError: If it did not survive it.
            DecoderUnavailableError: If it does not start, or was ended by somebody else.
        """
        assert self._process.stdin is not None
        if not self._is_ready:
            self._await_start()
        with self._within(_SECONDS + _SECONDS_PER_MEGAPIXEL * max_pixels / 1e6):
            with suppress(OSError):  # it is gone, and there will be no answer either
                self._process.stdin.write(REQUEST.pack(max_pixels, len(data)))
                self._process.stdin.write(data)
                self._process.stdin.flush()
            return self._read(max(len(data), REASON_BYTES), max_pixels)

    def _await_start(self) -> None:
        try:
            with self._within(_SECONDS_TO_START):
                answer = self._read(REASON_BYTES, 0)
        except _DiedError as error:
            raise DecoderUnavailableError("the decoder of HEIC files does not start") from error
        if answer.kind != READY:
            raise DecoderUnavailableError(f"the decoder of HEIC files does not start: {answer.reason}")
        self._is_ready = True

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._close()

    def disown(self) -> None:
        """Let go of it in a forked process: it is the decoder of the one that started it."""
        self._process.returncode = 0
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not sent will not be
                pipe.close()

    def _read(self, max_profile: int, max_pixels: int) -> _Answer:
        """The next answer, of which no more is believed than can be true: a file may have made anything of the process."""
        kind, mode, width, height, stride, n_profile, n_bytes = ANSWER.unpack(self._bytes(ANSWER.size))
        mode = mode.rstrip(b"\0").decode(errors="replace")
        line = width * PIXEL_BYTES.get(mode, 0)
        fits = not n_bytes or (width * height <= max_pixels and line <= stride <= line + _PADDING and n_bytes == stride * height)
        if not fits or n_profile > max_profile or (kind == SEEN and not line):
            raise _DiedError(_CRASHED)
        return _Answer(kind, mode, (width, height), stride, self._bytes(n_profile), self._bytes(n_bytes))

    def _bytes(self, n: int) -> bytes:
        assert self._process.stdout is not None
        read = self._process.stdout.read(n)
        if len(read) == n:
            return read
        ended_by = self._ended_by()
        if self._expired or ended_by == "SIGXCPU":
            raise _DiedError("it keeps its decoder busy for longer than a photograph of its size can")
        if ended_by in {"SIGKILL", "SIGTERM"}:
            raise DecoderUnavailableError("its decoder was ended by the system, as happens where memory is short")
        raise _DiedError(_CRASHED)

    def _ended_by(self) -> str:
        """The signal that ended it; empty where there was none."""
        with suppress(subprocess.TimeoutExpired, ValueError):
            return signal.Signals(-self._process.wait(_SECONDS_TO_END)).name
        return ""

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """End the process if the block takes longer; whoever waits for its answer is told by the end of its output."""
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as error:
            raise DecoderUnavailableError("the system allows no more threads") from error
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # it may just be at it

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()


class _Decoders:
    """Decoders that wait for files, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []

    def ask(self, data: bytes, max_pixels: int) -> _Answer:
        """Give a file to a decoder, if need be to a new one.

        Raises:
            _DiedError: If a new decoder did not survive it.
            DecoderUnavailableError: If there is none.
        """
        with self._lock:
            used = self._idle.pop() if self._idle else None
        if used is not None:
            with suppress(_DiedError, DecoderUnavailableError):  # an earlier file may have brought it about
                return self._ask(used, data, max_pixels)
        return self._ask(_Decoder(), data, max_pixels)

    def _ask(self, decoder: _Decoder, data: bytes, max_pixels: int) -> _Answer:
        try:
            answer = decoder.ask(data, max_pixels)
        except BaseException:  # also where Ctrl-C came: its answer may be on its way
            decoder.end()
            raise
        if decoder.is_alive():
            with self._lock:
                self._idle.append(decoder)
        else:
            decoder.end()
        return answer

    def close(self) -> None:
        """End those that wait."""
        while self._idle:
            self._idle.pop().end()

    def disown(self) -> None:
        """Begin anew in a forked process, which must not talk with the decoders of its parent."""
        self._lock = threading.Lock()
        while self._idle:
            self._idle.pop().disown()


_DECODERS = _Decoders()
atexit.register(_DECODERS.close)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_DECODERS.disown)
