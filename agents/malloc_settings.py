"""Settings of glibc's malloc: keep freed memory.

With large images, asking the system for memory at each learner step costs more time in page faults
than the arithmetic takes.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
NEVER, PAD = 2**31 - 1, 2**28


def keep_memory() -> bool:
    """Let malloc take memory in large pieces and give none back, in this process.

    Returns:
      False if the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, NEVER), mallopt(M_TOP_PAD, PAD)])
