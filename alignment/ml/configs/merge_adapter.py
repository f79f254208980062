"""Settings of merging an adapter. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from modelhub.ml.configs import DTYPES, choices_check, one_of


@dataclass(frozen=True, kw_only=True)
class MergeAdapterConfig:
    """Merge a LoRA adapter into its base. Reads inputs `adapter` and `adapter_base`; writes output
    `model`."""

    PROGRAM: ClassVar[str] = "merge_adapter"
    dtype: str = one_of(DTYPES, "bfloat16")  # of the published weights
    seed: int = 0  # of the rounding to it

    def __post_init__(self) -> None:
        choices_check(self)
