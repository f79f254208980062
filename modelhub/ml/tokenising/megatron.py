"""A token set as Megatron-LM reads one: NAME.bin and NAME.idx.

The index, little-endian: b"MMIDIDX\\0\\0", version 1 (uint64), the code of the type (uint8), the
numbers of sequences and of document borders (uint64 each), the length of each sequence (int32),
the byte each begins at (int64), and the borders, counted in sequences (int64). A document is one
sequence here, as Megatron's own preprocessing makes it.
"""

import shutil
import struct
from pathlib import Path

import numpy as np

from modelhub.ml.configs import RefusedError
from modelhub.ml.tokenising.writer import beside

_MAGIC = b"MMIDIDX\x00\x00"
_CODES = {2: 8, 4: 4}  # uint16; int32, which holds every vocabulary there is


def megatron_write(path: Path) -> None:
    """Write NAME.bin and NAME.idx beside NAME.ds.

    Raises RefusedError for a document whose length Megatron's int32 cannot hold.
    """
    ends = np.fromfile(beside(path, "index"), dtype="<u8").astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    if len(lengths) and int(lengths.max()) > np.iinfo(np.int32).max:
        raise RefusedError(f"{path.name}: document {int(lengths.argmax())} is longer than an int32")
    token_bytes = path.stat().st_size // int(ends[-1]) if len(ends) and ends[-1] else 2
    shutil.copyfile(path, path.with_suffix(".bin"))
    with path.with_suffix(".idx").open("wb") as file:
        file.write(_MAGIC)
        file.write(struct.pack("<QB", 1, _CODES[token_bytes]))
        file.write(struct.pack("<QQ", len(lengths), len(lengths) + 1))
        lengths.astype("<i4").tofile(file)
        ((ends - lengths) * token_bytes).astype("<i8").tofile(file)
        np.arange(len(lengths) + 1, dtype="<i8").tofile(file)
