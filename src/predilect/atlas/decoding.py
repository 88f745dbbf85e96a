"""Opening an image file that came from anywhere: what is read, up to which size, and why a file is not."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError, features

from predilect.atlas.heif import HEIF_BRANDS, DecoderUnavailableError, register_heif

__all__ = [
    "MAX_ASPECT",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "UnknownFormatError",
    "UnreadFileError",
    "UnusableImageError",
    "decoder_versions",
    "file_size",
    "one_at_a_time",
    "opened",
    "orientation",
    "read_bytes",
]

MAX_PIXELS = 2**27
"""134 megapixels: the largest cameras in use (102 and 108) are below it, and decoded it takes half a gigabyte."""

MAX_BYTES = 6 * MAX_PIXELS
"""Of a file: what `MAX_PIXELS` of three 16-bit samples take uncompressed."""

MIN_SIDE = 16
"""Pixels of the shorter side; below it is an icon, a tracking pixel or a damaged header, and no skin to be seen."""

MAX_ASPECT = 20
"""Longer side by shorter side; beyond it is a strip, of which training and testing would see next to nothing."""

_NO_MEMORY = "there is not enough memory to read it"

_HUGE_PIXELS, _HUGE_BYTES = 2**25, 2**26
_HUGE = threading.RLock()

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # an MPO, as telephones write it, is a JPEG with more behind it
_ORIENTATION, _SUBFILE, _REDUCED = 0x0112, 254, 1
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<?xml", "an XML document"),
    (b"<svg", "a drawing (SVG)"),
    (b"<", "a web page"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (b"\xff\xd8\xff", "a JPEG with a damaged header or of a rare kind"),
    (b"\x89PNG", "a PNG with a damaged header"),
    (b"GIF8", "a GIF with a damaged header"),
    (b"RIFF", "a WebP with a damaged header, or a sound or film"),
    (b"II*\x00", "a TIFF with a damaged header or of a rare kind"),
    (b"MM\x00*", "a TIFF with a damaged header or of a rare kind"),
    (b"BM", "a BMP with a damaged header or of a rare kind"),
)

# What decoders raise for files that are cut short, damaged, or made to be so.
_BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, RuntimeError, AttributeError,
    struct.error, zlib.error,
)  # fmt: skip
_MISTAKES = (TypeError, AttributeError)  # ours, if our own code raises them

# With these answers there is no such file, and reading it again would change nothing.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EILSEQ, errno.EISDIR})


class UnusableImageError(Exception):
    """A file that cannot be packed; the message is the reason, for a person to read."""


class UnknownFormatError(UnusableImageError):
    """Data that is no image, or of a format that is not read."""


class UnreadFileError(UnusableImageError):
    """A file that the system did not let us read at this moment, which says nothing about the file: it may be whole."""


class _Quiet:
    """No warnings of decoders while any thread is inside: `warnings.catch_warnings` in each would be undone in the wrong order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                self._filters.__exit__(None, None, None)


_QUIET = _Quiet()


def file_size(path: Path) -> int:
    """The size of a regular file in bytes, to be asked for before it is read.

    Raises:
        UnreadFileError: If the system does not tell it now.
        UnusableImageError: If it is missing, is empty, is beyond `MAX_BYTES`, or is no regular file (a pipe would be waited for
            without end).
    """
    with _reading():
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise UnusableImageError("it is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise UnusableImageError("it is a pipe, a socket or a device, not a file")
    if status.st_size > MAX_BYTES:
        raise UnusableImageError(
            f"the file is too large: {status.st_size / 1e6:,.0f} MB, at most {MAX_BYTES / 1e6:,.0f} MB are read"
        )
    if not status.st_size:
        raise UnusableImageError("the file is empty")
    return status.st_size


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of which `file_size` said that it may be read.

    Raises:
        UnreadFileError: If the system cannot read it now, or there is not enough memory for it.
        UnusableImageError: If it is gone.
    """
    with _reading():
        return path.read_bytes()


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = UnusableImageError if error.errno in _ABSENT else UnreadFileError
        raise kind(f"the file cannot be read: {_told(error)}") from error
    except MemoryError as error:
        raise UnreadFileError(_NO_MEMORY) from error
    except ValueError as error:  # a name that no file can have
        raise UnusableImageError(f"the file cannot be read: {error}") from error


@contextmanager
def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image whose header is as it should be; whatever the decoder says while it is open is a reason, not a crash.

    Pillow's warnings (of damaged EXIF and the like, of images that it holds to be large) are not shown meanwhile.

    Args:
        data: An image file's bytes.
        max_pixels: Width times height that is allowed, at most `MAX_PIXELS`.

    Raises:
        UnreadFileError: If memory, open files or the like did not suffice inside the block.
        UnknownFormatError: If the data is no image of a known format.
        UnusableImageError: If it is beyond the limits of this module, or turns out to be damaged inside the block.
    """
    with _QUIET:
        try:
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                _check(image, max_pixels)
                yield image
        except UnidentifiedImageError as error:
            raise UnknownFormatError(_kind(data)) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise UnusableImageError(_too_many_pixels(max_pixels)) from error
        except MemoryError as error:  # `MAX_PIXELS` bounds what a file can ask for: it is the machine that has none left
            raise UnreadFileError(_NO_MEMORY) from error
        except DecoderUnavailableError as error:
            raise UnreadFileError(f"the image cannot be decoded now: {error}") from error
        except _BROKEN as error:
            if isinstance(error, _MISTAKES) and _is_ours(error):
                raise
            if isinstance(error, OSError) and error.errno is not None:  # of the system; decoders give no number
                raise UnreadFileError(f"the image cannot be decoded now: {_told(error)}") from error
            raise UnusableImageError(f"the image cannot be decoded: {_said(error)}") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, it is not one of these or the EXIF data is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def decoder_versions() -> tuple[str, ...]:
    """What decodes, with its version: another one may give other pixels."""
    parts = ("libjpeg_turbo", "jpg", "zlib", "libtiff", "webp", "avif", "littlecms2")
    heif = version("pi-heif") if _reads_heif() else "none"
    return (f"pillow {version('pillow')}", f"pi-heif {heif}", *(f"{name} {features.version(name)}" for name in parts))


@contextmanager
def one_at_a_time(n_pixels: int, n_bytes: int = 0) -> Iterator[None]:
    """Let only one thread at a time hold a huge image, so that memory does not grow with the number of threads."""
    if n_pixels <= _HUGE_PIXELS and n_bytes <= _HUGE_BYTES:
        yield
        return
    with _HUGE:
        yield


def _check(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UnusableImageError(_too_many_pixels(max_pixels))
    if min(width, height) < MIN_SIDE:
        raise UnusableImageError(f"the image is too small: {width} x {height} pixels, the shorter side must have {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnusableImageError(
            f"the image is a strip: {width} x {height} pixels, at most {MAX_ASPECT} times as long as wide is read"
        )
    if image.mode in {"I", "F"} or image.mode.startswith("I;16S"):
        raise UnusableImageError(f"its pixels are of a kind whose scale the file does not tell: mode {image.mode} of Pillow")
    kind = image.tag_v2.get(_SUBFILE, 0) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0
    if isinstance(kind, int) and kind & _REDUCED:
        raise UnusableImageError("its first image is only a preview, as in a camera's raw file; export it as JPEG or TIFF")


@cache
def _formats() -> tuple[str, ...]:
    return (*_FORMATS, *(("AVIF",) if features.check("avif") else ()), *(("HEIC",) if _reads_heif() else ()))


@cache
def _reads_heif() -> bool:
    return register_heif()


def _kind(data: bytes) -> str:
    """Why nothing could open the data."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in HEIF_BRANDS and not _reads_heif():
        return "it is a HEIC file, which the package pi-heif reads: pip install 'predilect[heic]'"
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    found = next((name for begins, name in _OTHERS if start.startswith(begins)), "")
    if data[128:132] == b"DICM":
        found = "a DICOM file"
    elif brand in HEIF_BRANDS or brand in _AVIF_BRANDS:
        name = "a HEIC" if brand in HEIF_BRANDS else "an AVIF"  # by its first bytes, which no other format has
        return f"it looks like {name} that is cut short, has a damaged header or is of a rare kind"
    known = ", ".join(_formats())
    return f"it is no image of a known format ({known})" + (f"; it looks like {found}" if found else "")


def _too_many_pixels(max_pixels: int) -> str:
    return f"the image is too large: it has more than {max_pixels // 10**6} megapixels"


def _is_ours(error: BaseException) -> bool:
    """Whether a line of this package raised an error, rather than a decoder that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] == "predilect"


def _told(error: OSError) -> str:
    return str(error) if error.errno is None else os.strerror(error.errno)


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, EOFError) or "truncated" in text.lower() or "end of file" in text.lower():
        return "it is cut short"
    if "MAX_TEXT" in text:  # of compressed text or a profile in a PNG
        return "text or a colour profile in it unpacks to an unreasonable size"
    return text or type(error).__name__
