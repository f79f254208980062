"""How the C library gives memory back to the system: not between two steps of a training run."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc takes no more
_NEVER = 2**31 - 1


def memory_keep() -> bool:
    """Keep freed memory in the process, for the next step. Returns whether that was possible.

    A step frees its activations, glibc returns their pages, and the next step faults every one of
    them in again, zeroed: thousands of faults a step on the CPU. The process holds its peak until
    it ends, which a program that does one run and exits can. Only glibc has the switch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _NEVER)
    )
