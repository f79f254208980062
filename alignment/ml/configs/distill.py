"""Settings of distillation. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from alignment.ml.configs.sft import SftConfig
from modelhub.ml.configs import one_of, require

DIVERGENCES = ("forward_kl", "reverse_kl", "jensen_shannon")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(SftConfig):
    """Teach a student what a teacher says. Reads `base` (the student) and `teacher` (each may be an
    adapter, with `base_base`, `teacher_base`), and the text: `demonstrations`, …, or the teacher's
    own answers, `candidates` to `prompts`. Writes `model`, or `adapter`."""

    PROGRAM: ClassVar[str] = "distill"
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    lr: float = 1e-4
    # How far the student is from the teacher at each token: "forward_kl" (all that the teacher
    # finds likely), "reverse_kl" (nothing that it does not), "jensen_shannon" (between, by `beta`).
    divergence: str = one_of(DIVERGENCES, "forward_kl")
    beta: float = 0.5  # jensen_shannon's: towards 0 it is like forward_kl, towards 1 reverse_kl
    temperature: float = 1.0  # of both distributions; above 1 unlikely tokens count for more
    # The rest is on the tokens themselves; 0: on the samples alone, the teacher's logits unread.
    logits_share: float = 1.0
    # Likeliest tokens a place that are kept of a teacher asked once, before the first step; 0: it
    # is asked at every step, for all of the vocabulary.
    teacher_top_k: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()

        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        check(0 < self.beta < 1, "beta", "more than 0, less than 1")
        if self.divergence != "jensen_shannon":
            check(self.beta == 0.5, "beta", f"0.5: it does nothing to {self.divergence}")
        check(0.1 <= self.temperature <= 100, "temperature", "0.1 to 100")
        check(0 <= self.logits_share <= 1, "logits_share", "0 to 1")
        check(0 <= self.teacher_top_k <= 65536, "teacher_top_k", "0 to 65536")

    @property
    def mixture(self) -> float:
        """β of `losses.token_divergence`: 0 forward, 1 reverse, between Jensen–Shannon."""
        return {"forward_kl": 0.0, "reverse_kl": 1.0}.get(self.divergence, self.beta)
