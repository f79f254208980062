"""What the settings of training programs have in common. Standard library only."""

from modelhub.ml.configs import require

# Kinds of AdamW: torch's own, and bitsandbytes' with moments of 8 bits, in paged memory, or both.
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")


def positive_check(config: object, *fields: str) -> None:
    """Raise ConfigError naming the first field that is not more than 0."""
    for field in fields:
        value = getattr(config, field)
        require(value > 0, str(getattr(config, "PROGRAM", "")), field, value, "more than 0")


def dtype_check(config: object) -> None:
    """Raise ConfigError for a dtype that no program trains in."""
    value = getattr(config, "dtype", None)
    require(
        value in ("float32", "bfloat16", "auto"),
        str(getattr(config, "PROGRAM", "")),
        "dtype",
        value,
        "float32, bfloat16 or auto",
    )


def optimizer_name_check(config: object) -> None:
    """Raise ConfigError for an optimizer that no program knows."""
    value = getattr(config, "optimizer", None)
    program = str(getattr(config, "PROGRAM", ""))
    require(value in OPTIMIZERS, program, "optimizer", value, " or ".join(OPTIMIZERS))
