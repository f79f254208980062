"""How the C library gives memory back to the system: not between two steps of a training run."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_NEVER = 2**31 - 1


def memory_keep() -> bool:
    """Keep freed memory in the process, for the next step. Returns whether that was possible.

    A step frees its activations, glibc returns their pages, and the next step faults every one of
    them in again, zeroed: thousands of faults a step on the CPU. The process holds its peak until
    it ends, which a program that does one run and exits can. No block is mapped by itself, however
    large: those of 32 MB and more, a pass's logits, would be in spite of any threshold. Only glibc
    has the switches.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
