"""A configuration class is the only description of its settings: form and schema are made of it."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from modelhub.config_fields import config_fields, config_refusals, config_schema, refused_setting
from modelhub.ml.configs import ConfigError, choices_check, one_of, require


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

    # Weather
    wind: str = one_of(("calm", "gale"), "calm")  # at the top
    seasons: tuple[str, ...] = one_of(("spring", "autumn"), ("autumn",))
    guide: str = one_of(("Anna", ""), "", is_open=True)

    def __post_init__(self) -> None:
        choices_check(self)
        require(self.lr > 0, self.PROGRAM, "lr", self.lr, "more than 0")
        calm = self.wind == "calm" or self.rope
        require(calm, self.PROGRAM, "rope", self.rope, "true in a gale")


@dataclass(frozen=True, kw_only=True)
class WinterConfig(SteepConfig):
    """Climb in the snow."""

    wind: str = one_of(("gale",), "gale")  # there is no other
    axe: bool = True


def test_names_types_defaults_and_words_are_the_classs_own():
    peaks, lr, names, seed, others, rope, wind, seasons, guide = config_fields(SteepConfig)
    assert (peaks.name, peaks.type, peaks.is_required) == ("peaks", int, True)
    assert peaks.about == "How many, in all. Nobody has climbed more than 14."
    assert (lr.type, lr.default, lr.about) == (float, 1e-5, "at the top")
    assert (names.type, names.is_list, names.about) == (str, True, "")
    assert (seed.type, seed.may_be_none, seed.default) == (int, True, None)
    assert (others.type, others.default) == (dict, {})
    assert rope.about == "of nylon"
    assert (wind.choices, wind.about, wind.type) == (("calm", "gale"), "at the top", str)
    assert (seasons.choices, seasons.is_list) == (("spring", "autumn"), True)
    assert guide.is_open and not wind.is_open


def test_a_comment_above_a_field_that_has_its_own_is_a_heading():
    by_name = {one.name: one for one in config_fields(SteepConfig)}
    assert by_name["rope"].section == ""
    assert by_name["wind"].section == by_name["seasons"].section == "Weather"


def test_what_a_class_inherits_stays_where_it_stood():
    by_name = {one.name: one for one in config_fields(WinterConfig)}
    assert (by_name["wind"].section, by_name["wind"].about) == ("Weather", "there is no other")
    assert by_name["wind"].choices == ("gale",)
    assert by_name["axe"].section == ""


def test_a_value_that_is_not_declared_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=r"steep.wind: wanted calm or gale, got 'breeze'"):
        SteepConfig(peaks=1, wind="breeze")
    with pytest.raises(ConfigError, match=r"steep.seasons: wanted spring or autumn"):
        SteepConfig(peaks=1, seasons=("autumn", "winter"))


def test_every_refusal_is_told_and_none_twice():
    given = {"peaks": 2, "lr": -1.0, "wind": "breeze", "names": "K2", "rope": True}
    assert dict(config_refusals(SteepConfig, given)) == {
        "names": "expected a list, got 'K2'",
        "wind": "wanted calm or gale, got 'breeze'",
        "lr": "wanted more than 0, got -1.0",
    }
    assert not list(config_refusals(SteepConfig, {"peaks": 2}))
    assert list(config_refusals(SteepConfig, {"peaks": 2, "snow": 1})) == [
        ("", "steep: unknown setting snow")
    ]
    assert len(list(config_refusals(SteepConfig, {}))) == 1  # peaks is missing


@dataclass(frozen=True, kw_only=True)
class GlacierConfig(SteepConfig):
    """Climb on ice."""

    PROGRAM: ClassVar[str] = "glacier"
    crampons: int = 12  # points of each
    lr: float = 1e-6
    names: tuple[str, ...] = ("Eiger",)  # with ice on them


def test_a_classs_own_settings_stand_before_those_it_shares_whatever_these_start_from():
    fields = {one.name: one for one in config_fields(GlacierConfig)}
    assert list(fields)[:3] == ["crampons", "peaks", "lr"]
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
    assert schema["properties"]["wind"]["enum"] == ["calm", "gale"]
    assert schema["properties"]["seasons"]["items"]["enum"] == ["spring", "autumn"]


def test_the_schema_suggests_what_an_open_setting_takes_and_allows_others():
    guide = config_schema(SteepConfig)["properties"]["guide"]
    assert guide == {"type": "string", "examples": ["Anna", ""], "default": ""}
    assert SteepConfig(peaks=1, guide="Tenzing").guide == "Tenzing"


def test_a_refusal_names_its_setting():
    assert refused_setting(ConfigError("sft.lr: wanted more than 0, got -1")) == (
        "lr",
        "wanted more than 0, got -1",
    )
    assert refused_setting(ConfigError("sft: unknown setting lrr")) == (
        "",
        "sft: unknown setting lrr",
    )
