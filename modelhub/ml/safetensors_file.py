"""Is this file safetensors, and nothing else? Its header has to account for every byte.

Standard library only: nothing of the file is loaded.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelhub.ml.configs import RefusedError
from modelhub.ml.records import json_strict

_DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}
_MAX_HEADER_BYTES = 32 << 20
_MAX_TENSORS = 200_000


class ModelDirectoryError(RefusedError):
    """A folder was refused as a model: which file in it ("" for the folder itself), and why."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}" if file else reason)
        self.file, self.reason = file, reason


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor in a safetensors header."""

    dtype: str  # as written: "BF16"
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


def safetensors_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of one safetensors file.

    Raises ModelDirectoryError unless the header is a sound account of the whole file: every tensor
    within it, none overlapping, no byte unaccounted for.
    """
    name, size = path.name, path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        (length,) = struct.unpack("<Q", prefix) if len(prefix) == 8 else (0,)
        # A header is a JSON object, so it starts with "{": few other files pass even this.
        if length < 2 or file.read(1) != b"{":
            raise ModelDirectoryError(name, "not a safetensors file")
        if length > _MAX_HEADER_BYTES:
            raise ModelDirectoryError(name, f"its header is said to be {length:,} bytes long")
        if 8 + length > size:
            raise ModelDirectoryError(name, "cut off inside its header")
        text = b"{" + file.read(length - 1)
    try:
        header = json_strict(text)
    except ValueError as error:
        raise ModelDirectoryError(name, f"not a safetensors file: header: {error}") from error
    if not isinstance(header, dict):
        raise ModelDirectoryError(name, "not a safetensors file: header is not an object")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(one, str) for one in notes.values()):
        raise ModelDirectoryError(name, "__metadata__ is not text by name")
    if not 0 < len(header) <= _MAX_TENSORS:
        raise ModelDirectoryError(name, f"holds {len(header):,} tensors")
    entries: dict[str, TensorEntry] = {}
    spans: list[tuple[int, int, str]] = []
    for tensor, described in header.items():
        entry, begin, end = _tensor_check(name, tensor, described)
        entries[tensor] = entry
        spans.append((begin, end, tensor))
    place = 0
    for begin, end, tensor in sorted(spans):
        if begin != place:
            what = "overlaps another tensor" if begin < place else "leaves bytes unaccounted for"
            raise ModelDirectoryError(name, f"{tensor} {what}")
        place = end
    if 8 + length + place != size:
        missing = 8 + length + place - size
        what = f"{missing:,} bytes are missing" if missing > 0 else f"{-missing:,} bytes too many"
        raise ModelDirectoryError(name, f"its tensors do not fit its size: {what}")
    return entries


def _tensor_check(file: str, tensor: str, described: Any) -> tuple[TensorEntry, int, int]:
    """One header entry: (its dtype and shape, where its bytes begin, where they end)."""
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelDirectoryError(file, f"{tensor:.80}: wanted dtype, shape and data_offsets")
    dtype, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    if dtype not in _DTYPE_BYTES:
        raise ModelDirectoryError(file, f"{tensor:.80}: dtype {dtype!r:.20} is not taken")
    if not isinstance(shape, list) or len(shape) > 8 or not all(is_count(one) for one in shape):
        raise ModelDirectoryError(file, f"{tensor:.80}: shape {shape!r:.80} is not taken")
    if 0 in shape:
        raise ModelDirectoryError(file, f"{tensor:.80}: shape {shape} holds no number")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(is_count(one) for one in offsets)
    ):
        raise ModelDirectoryError(file, f"{tensor:.80}: data_offsets {offsets!r:.80}")
    begin, end = offsets
    if end - begin != math.prod(shape) * _DTYPE_BYTES[dtype]:
        raise ModelDirectoryError(
            file, f"{tensor:.80}: {shape} of {dtype} is not {end - begin:,} bytes"
        )
    return TensorEntry(dtype=dtype, shape=tuple(shape)), begin, end


def is_count(value: Any) -> bool:
    """Whether a JSON value is a whole number that 64 bits hold, and not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
