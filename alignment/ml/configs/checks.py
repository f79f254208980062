"""What the settings of training programs have in common. Standard library only."""

from modelhub.ml.configs import require


def positive_check(config: object, *fields: str) -> None:
    """Raise ConfigError naming the first field that is not more than 0."""
    for field in fields:
        value = getattr(config, field)
        require(value > 0, str(getattr(config, "PROGRAM", "")), field, value, "more than 0")


def dtype_check(config: object) -> None:
    """Raise ConfigError for a dtype that no program trains in."""
    value = getattr(config, "dtype", None)
    require(
        value in ("float32", "bfloat16"),
        str(getattr(config, "PROGRAM", "")),
        "dtype",
        value,
        "float32 or bfloat16",
    )
