"""Owns the compiled parts: where they are, whether this CPU runs them, their signatures; knows no model.

`deploy/native.sh` compiles the C files of the folder `native` when an environment is made. Each part is an
acceleration: its caller has another way where it is missing.
"""

import ctypes
import platform
from functools import cache
from pathlib import Path
from typing import Any

from service.engine.cpu import cpu_flags

FOLDER = Path(__file__).parent / "native"
_ENCODER_FLAGS = frozenset({"fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"})
_ADDRESS, _NUMBER = ctypes.c_void_p, ctypes.c_int


@cache
def encoder() -> ctypes.CDLL | None:
    """native/encoder.c, for CPUs with AVX-512 VNNI."""
    if not cpu_flags() >= _ENCODER_FLAGS:
        return None
    library = _load("encoder")
    if library is not None:
        library.qa_pool.argtypes, library.qa_pool.restype = [_NUMBER], _ADDRESS
        library.qa_pack.argtypes = [_ADDRESS, _NUMBER, _NUMBER, _ADDRESS]
        library.qa_pack.restype = None
        library.qa_run.argtypes = [*[_ADDRESS] * 4, _NUMBER, _ADDRESS]
    return library


def address(buffer: memoryview | bytearray) -> Any:
    """Where a writable buffer begins, for a call's argument, which keeps the buffer alive.

    For an array's `data`: when caches are cold, its `ctypes` takes 30 us.
    """
    return ctypes.byref(ctypes.c_char.from_buffer(buffer))


def _load(name: str) -> ctypes.CDLL | None:
    file = FOLDER / f"{name}-{platform.machine()}.so"
    try:
        return ctypes.CDLL(str(file))
    except OSError:  # not there, or for another C library
        return None
