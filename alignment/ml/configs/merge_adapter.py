"""Settings of merging an adapter. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from modelhub.ml.configs import require


@dataclass(frozen=True, kw_only=True)
class MergeAdapterConfig:
    """Merge a LoRA adapter into its base. Reads inputs `adapter` and `adapter_base`; writes output
    `model`."""

    PROGRAM: ClassVar[str] = "merge_adapter"
    dtype: str = "bfloat16"  # of the published weights
    seed: int = 0  # of the rounding to it

    def __post_init__(self) -> None:
        wanted = ("bfloat16", "float16", "float32")
        require(self.dtype in wanted, self.PROGRAM, "dtype", self.dtype, " or ".join(wanted))
