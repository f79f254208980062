"""Settings of quantisation. Standard library only."""

from dataclasses import dataclass
from typing import ClassVar

from alignment.ml.configs.checks import positive_check
from alignment.ml.configs.splits import SplitSettings
from modelhub.ml.configs import choices_check, one_of, require
from modelhub.ml.quantisation import GROUP_SIZES, SCHEMES


@dataclass(frozen=True, kw_only=True)
class QuantiseConfig(SplitSettings):
    """Quantise a policy for serving. Reads `base`, `demonstrations` to hear both models on and, if
    given, `rankings` to test their judgement by, and `evaluation_prompts` with `references` as
    questions to answer; writes `model`."""

    PROGRAM: ClassVar[str] = "quantise"
    # w4a16: weights of 4 bits. w8a8: weights and what they meet, of 8 bits.
    scheme: str = one_of(SCHEMES, "w4a16")
    group_size: int = one_of(GROUP_SIZES, 32)  # weights with one scale in w4a16
    max_tokens: int = 1024  # prompt + answer; longer ones are left out and counted
    budget_tokens: int = 4096  # of one packed row; memory, not the result, depends on it
    evaluate_at_most: int = 200  # conversations heard, and questions asked, the first by id
    options: int = 4  # answers to a question, one of them right, to choose the likeliest from
    bootstrap_samples: int = 2000
    seed: int = 0  # of the intervals; the weights depend on none

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        choices_check(self)
        self.split_check(self.PROGRAM)
        if self.scheme == "w8a8":
            check(self.group_size == 32, "group_size", "32: w8a8 has a scale a row, whatever it is")
        check(2 <= self.options <= 16, "options", "2 to 16")
        positive_check(self, "max_tokens", "budget_tokens", "evaluate_at_most", "bootstrap_samples")
