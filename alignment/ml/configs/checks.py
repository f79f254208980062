"""What the settings of training programs have in common. Standard library only."""

from modelhub.ml.configs import require

# Kinds of AdamW: torch's own, and bitsandbytes' with moments of 8 bits, in paged memory, or both.
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")
DTYPES = ("float32", "bfloat16", "auto")  # that programs compute in
# Names of alignment.ml.checkers.CHECKERS; nothing: a reward model tells.
CHECKERS = ("", "exact", "gsm8k")
OWN_ENGINES = ("auto", "vllm", "transformers")  # that read a model; no endpoint is asked


def positive_check(config: object, *fields: str) -> None:
    """Raise ConfigError naming the first field that is not more than 0."""
    for field in fields:
        value = getattr(config, field)
        require(value > 0, str(getattr(config, "PROGRAM", "")), field, value, "more than 0")
