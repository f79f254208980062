"""Settings of adapters, shared by every method that trains a model. Standard library only."""

from dataclasses import dataclass

from modelhub.ml.configs import one_of, require

ADAPTERS = ("", "lora", "qlora", "prefix", "p_tuning")
PUBLISHED = ("merged", "adapter")
_RANK = 16


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """What is trained beside a model that stays as it is; "" trains every weight.

    lora      low-rank changes of every linear layer (Hu et al. 2021, arXiv:2106.09685)
    qlora     the same on a base of 4-bit weights (Dettmers et al. 2023, arXiv:2305.14314); CUDA
    prefix    keys and values in front of every layer (Li and Liang 2021, arXiv:2101.00190)
    p_tuning  embeddings in front of the prompt, made by a small network (Liu et al. 2021,
              arXiv:2103.10385)
    """

    # lora and qlora change the layers by matrices of a low rank, qlora over a base of 4 bits;
    # prefix and p_tuning learn tokens in front. Nothing: every weight is trained.
    adapter: str = one_of(ADAPTERS, "")
    lora_rank: int = _RANK  # of the change to a layer: more learns more, and weighs more
    lora_alpha: float = 32.0  # the change is scaled by alpha / rank
    lora_dropout: float = 0.0
    virtual_tokens: int = 20  # of prefix and p_tuning; they take their place in the context
    encoder_width: int = 256  # of p_tuning's network
    # What is published: the model with its adapter merged, or the adapter, a version of its own.
    publish: str = one_of(PUBLISHED, "merged")

    @property
    def own_tokens(self) -> int:
        """Tokens of the context that the adapter takes."""
        return self.virtual_tokens if self.adapter in ("prefix", "p_tuning") else 0

    @property
    def output(self) -> str:
        """Role of the run's output that is the trained model."""
        return "adapter" if self.publish == "adapter" else "model"

    def undropped_check(self, program: str) -> None:
        """Raise ConfigError for a dropout that the method would switch off."""
        wanted = "0: answers are compared under one and the same model"
        require(self.lora_dropout == 0, program, "lora_dropout", self.lora_dropout, wanted)

    def adapter_check(self, program: str) -> None:
        """Raise ConfigError naming the first field that does not fit."""

        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, program, field, getattr(self, field), wanted)

        check(1 <= self.lora_rank <= 512, "lora_rank", "1 to 512")
        check(self.lora_alpha > 0, "lora_alpha", "more than 0")
        check(0 <= self.lora_dropout < 1, "lora_dropout", "0 to less than 1")
        check(1 <= self.virtual_tokens <= 1024, "virtual_tokens", "1 to 1024")
        check(1 <= self.encoder_width <= 16384, "encoder_width", "1 to 16384")
        if self.adapter in ("prefix", "p_tuning"):
            check(self.publish == "adapter", "publish", f"adapter: {self.adapter} cannot be merged")
        if not self.adapter:
            check(self.publish == "merged", "publish", "merged: no adapter is trained")
            # A rank given alone would be read as asking for LoRA, and every weight be trained.
            check(self.lora_rank == _RANK, "lora_rank", f"{_RANK}, or adapter lora beside it")
