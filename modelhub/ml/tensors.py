"""A hash of every tensor in a safetensors file, so that two files can be told apart by weight.

Standard library only. The format is an 8-byte length, a JSON header {name: {"dtype", "shape",
"data_offsets"}}, and the tensors' bytes: what is hashed are those bytes, as they lie in the file.
sha256 and not blake3: it has the processor's own instructions and needs no package.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

SUFFIX = ".safetensors"
_MAX_HEADER_BYTES = 100_000_000  # the format's own bound
_BLOCK_BYTES = 1 << 20


def tensors_hash(path: Path) -> dict[str, dict[str, Any]]:
    """{name: {"sha256", "dtype", "shape", "bytes"}} of a safetensors file, in the header's order.

    Empty for a file that is none: whoever loads it says so. Memory is one block's.
    """
    found: dict[str, dict[str, Any]] = {}
    with path.open("rb") as file:
        length = file.read(8)
        (size,) = struct.unpack("<Q", length) if len(length) == 8 else (_MAX_HEADER_BYTES + 1,)
        if size > _MAX_HEADER_BYTES:
            return {}
        try:
            header = json.loads(file.read(size))
            header.pop("__metadata__", None)
            for name, one in header.items():
                start, end = one["data_offsets"]
                if not 0 <= start <= end:
                    raise ValueError(f"{name} begins before the file, or ends before it begins")
                file.seek(8 + size + start)
                found[name] = {
                    "sha256": _range_sha256(file, end - start),
                    "dtype": one["dtype"],
                    "shape": one["shape"],
                    "bytes": end - start,
                }
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}
    return found


def _range_sha256(file: Any, left: int) -> str:
    digest = hashlib.sha256()
    while left > 0:
        block = file.read(min(_BLOCK_BYTES, left))
        if not block:
            raise ValueError("the file ends before its last tensor")
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def tensors_changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the tensors that are not the same in both, in the order of `before`, then new."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
