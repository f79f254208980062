"""How fast this machine multiplies, so that a run's speed can be told as a share of it (MFU).

A data sheet's peak is of another machine, or of this one without its neighbours. The rate is
measured in the run, on the device, with the threads and in the dtype it trains with.
"""

import time
from collections.abc import Callable

import torch

_SIZE = 1024
_LEAST_S = 0.3


def matmul_rate(
    device: torch.device,
    dtype: torch.dtype,
    *,
    size: int = _SIZE,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Floating-point operations a second of square products: the best of several tries.

    clock: what seconds are counted by; `time.process_time` on a machine that others use too.
    """
    size = size if device.type == "cpu" else 8 * size
    # An own generator: the run's must not depend on whether its speed was measured.
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    best = 0.0
    started = time.perf_counter()
    while time.perf_counter() - started < _LEAST_S or best == 0.0:
        _wait(device)
        begun = clock()
        torch.mm(a, b)
        _wait(device)
        best = max(best, 2 * size**3 / max(1e-9, clock() - begun))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
