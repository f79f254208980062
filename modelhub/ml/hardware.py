"""What this machine can do, asked without loading torch.

`dtype: auto` is bfloat16 where the device multiplies in it and float32 elsewhere: a processor
without instructions for bfloat16 computes its products by a path of scalars, some fifty times
slower than in float32 (docs/experiments.md).
"""

import functools
import os
import subprocess
from pathlib import Path

AUTO = "auto"

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_CPU_INFO = Path("/proc/cpuinfo")
_FIRST_WITH_BFLOAT16 = (8, 0)  # NVIDIA's compute capability: Ampere
# x86's, then Arm's.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


def has_gpu() -> bool:
    """Whether the NVIDIA driver is loaded. vLLM's build for a GPU is there where it is."""
    return _NVIDIA_DRIVER.exists()


def dtype_resolve(dtype: str) -> str:
    """The dtype that "auto" stands for on this machine; any other as it is."""
    if dtype != AUTO:
        return dtype
    return "bfloat16" if bfloat16_multiplies() else "float32"


@functools.cache
def bfloat16_multiplies() -> bool:
    """Whether the device that programs take here has instructions for products in bfloat16."""
    capability = _gpu_capability()
    if capability is not None:
        return capability >= _FIRST_WITH_BFLOAT16
    # Elsewhere than on Linux nothing is known of the processor, and float32 is right everywhere.
    cpu_info = _CPU_INFO.read_text() if _CPU_INFO.exists() else ""
    return bool(processor_flags(cpu_info) & _BFLOAT16_FLAGS)


def _gpu_capability() -> tuple[int, int] | None:
    """The compute capability of the first GPU; None where no program sees one."""
    if not has_gpu() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        major, minor = told.stdout.split()[0].split(".")
        return int(major), int(minor)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def processor_flags(cpu_info: str) -> set[str]:
    """The first processor's flags, of the text that Linux keeps in /proc/cpuinfo."""
    for line in cpu_info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
