"""Decoders of HEIC files that misbehave at a time that a test chooses, in the place of the real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from predilect.atlas import heif

# The real program as a module, whose functions can be replaced before it is started.
_REAL = f"""
import os, signal, struct, sys, time
sys.path.append({str(heif._PROGRAM.parent)!r})
import heif_decoder as real
"""

# It dies of a file that ends so; whatever pi-heif makes of the one that crashes it today, a later one may make something else of it.
DEADLY = b"deadly"
CRASHING = f"""
opened = real._opened
def crash(data):
    if data.endswith({DEADLY!r}):
        os.kill(os.getpid(), signal.SIGSEGV)
    return opened(data)
real._opened = crash
real._main()
"""


@contextmanager
def decoding_by(folder: Path, code: str) -> Iterator[heif._Decoders]:
    """Decode HEIC files by a program that has the real one as the module ``real``, in new processes."""
    program = folder / "decoder.py"
    program.write_text(_REAL + dedent(code))
    decoders = heif._Decoders()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heif, "_PROGRAM", program)
        patch.setattr(heif, "_DECODERS", decoders)
        try:
            yield decoders
        finally:
            decoders.close()
