"""Keep freed memory: large images cost more time in page faults than in arithmetic where every
learner step asks the system anew.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
NEVER, PAD = 2**31 - 1, 2**28


def keep_memory() -> bool:
    """Tell glibc's malloc to take memory in large pieces and give none back, for this process.
    False where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, NEVER), mallopt(M_TOP_PAD, PAD)])
