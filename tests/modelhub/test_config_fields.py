"""A configuration class is the only description of its settings: form and schema are made of it."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from modelhub.config_fields import config_fields, config_schema, refused_setting
from modelhub.ml.configs import ConfigError


@dataclass(frozen=True, kw_only=True)
class SteepConfig:
    """Climb."""

    PROGRAM: ClassVar[str] = "steep"
    # How many, in all.
    # Nobody has climbed more than 14.
    peaks: int
    lr: float = 1e-5  # at the top
    names: tuple[str, ...] = ("K2",)
    seed: int | None = None
    others: dict[str, Any] = field(default_factory=dict)
    rope: bool = True  # of nylon


def test_names_types_defaults_and_words_are_the_classs_own():
    peaks, lr, names, seed, others, rope = config_fields(SteepConfig)
    assert (peaks.name, peaks.type, peaks.is_required) == ("peaks", int, True)
    assert peaks.about == "How many, in all. Nobody has climbed more than 14."
    assert (lr.type, lr.default, lr.about) == (float, 1e-5, "at the top")
    assert (names.type, names.is_list, names.about) == (str, True, "")
    assert (seed.type, seed.may_be_none, seed.default) == (int, True, None)
    assert (others.type, others.default) == (dict, {})
    assert rope.about == "of nylon"


@dataclass(frozen=True, kw_only=True)
class GlacierConfig(SteepConfig):
    """Climb on ice."""

    PROGRAM: ClassVar[str] = "glacier"
    crampons: int = 12  # points of each
    lr: float = 1e-6
    names: tuple[str, ...] = ("Eiger",)  # with ice on them


def test_a_classs_own_settings_stand_before_those_it_shares_whatever_these_start_from():
    fields = {one.name: one for one in config_fields(GlacierConfig)}
    assert list(fields) == ["crampons", "peaks", "lr", "names", "seed", "others", "rope"]
    assert (fields["lr"].default, fields["lr"].about) == (1e-6, "at the top")
    assert (fields["names"].default, fields["names"].about) == (("Eiger",), "with ice on them")


def test_the_schema_says_the_same_as_json():
    schema = config_schema(SteepConfig)
    assert schema["required"] == ["peaks"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["lr"] == {
        "type": "number",
        "description": "at the top",
        "default": 1e-5,
    }
    assert schema["properties"]["names"]["items"] == {"type": "string"}
    assert schema["properties"]["names"]["default"] == ["K2"]
    assert schema["properties"]["seed"]["type"] == ["integer", "null"]


def test_a_refusal_names_its_setting():
    assert refused_setting(ConfigError("sft.lr: wanted more than 0, got -1")) == (
        "lr",
        "wanted more than 0, got -1",
    )
    assert refused_setting(ConfigError("sft: unknown setting lrr")) == (
        "",
        "sft: unknown setting lrr",
    )
