"""How many heaps a process has, as glibc counts them."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNTED = """
import ctypes, os, sys, threading
from predilect.allocator import keep_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.fdopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
libc.fflush.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "kept":
    keep_memory()
together = threading.Barrier(8)
def take():
    together.wait()
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
stream = libc.fdopen(os.dup(1), b"w")
libc.malloc_info(0, stream)
libc.fflush(stream)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_threads_share_one_heap():
    heaps = {
        kept: subprocess.run(
            [sys.executable, "-c", COUNTED, kept], stdout=subprocess.PIPE, text=True, check=True, timeout=60
        ).stdout.count("<heap nr=")
        for kept in ("kept", "as it is")
    }
    assert heaps["kept"] == 1 < heaps["as it is"]
