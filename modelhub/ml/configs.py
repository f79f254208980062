"""Configurations of the hub's programs: frozen dataclasses that check themselves.

Standard library only: the web side imports this module to build and check forms.
"""

import dataclasses
import errno
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar


class ProgramConfig(Protocol):
    """What every configuration has: the name of the program that reads it, and dataclass fields."""

    PROGRAM: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


ConfigT = TypeVar("ConfigT", bound=ProgramConfig)


# Exit statuses of a program, beside 0 and 1: another attempt at the same run would end the same.
EXIT_REFUSED = 2
EXIT_OUT_OF_MEMORY = 3
EXIT_DISK_FULL = 5

# In a field's metadata: the values it takes, and whether it takes others.
CHOICES, OPEN = "choices", "open"
# In a field's metadata: the setting of the site that stands in it in every run of the site.
SITE = "site"
ENGINES = ("auto", "vllm", "transformers", "openai")
DTYPES = ("bfloat16", "float16", "float32")
SAMPLING_DTYPES = ("auto", *DTYPES)


def is_disk_full(error: BaseException) -> bool:
    """Whether no room or no quota is left: an OSError, or of safetensors a text that says so."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error)


class RefusedError(ValueError):
    """What a program was given cannot be used; the message says what and why.

    A program ended by this exits with EXIT_REFUSED, and its run is not tried again.
    """


class ConfigError(RefusedError):
    """A configuration was refused; the message names the field and the value."""


def config_load(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Build `cls` from parsed JSON.

    Raises ConfigError naming each unknown field, or the first whose type does not fit.
    Lists become tuples; whole numbers are accepted where a float is asked for, booleans nowhere
    but for bool. Where the class has PRESETS, `preset` names the one whose values are taken for
    what is not given.
    """
    presets: Mapping[str, Mapping[str, Any]] = getattr(cls, "PRESETS", {})
    if presets and "preset" in values:
        name = values["preset"]
        if name not in presets:
            known = ", ".join(presets)
            raise ConfigError(f"{cls.PROGRAM}: there is no preset {name!r}; there are {known}")
        own = {field: value for field, value in values.items() if field != "preset"}
        return config_load(cls, {**presets[name], **own})
    names = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ConfigError(f"{cls.PROGRAM}: unknown setting {', '.join(unknown)}")
    hints = typing.get_type_hints(cls)
    checked = {
        name: _value_check(f"{cls.PROGRAM}.{name}", value, hints[name])
        for name, value in values.items()
    }
    try:
        return cls(**checked)
    except TypeError as error:
        raise ConfigError(f"{cls.PROGRAM}: {error}") from error


def config_dump(config: ProgramConfig) -> dict[str, Any]:
    """The configuration as JSON values; `config_load` of it is the identity."""
    values = dataclasses.asdict(typing.cast(Any, config))
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _value_check(where: str, value: Any, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        (hint,) = [option for option in options if option is not type(None)]
        return _value_check(where, value, hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        (item, _) = typing.get_args(hint)
        return tuple(_value_check(where, one, item) for one in value)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{where}: expected an object, got {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def one_of(options: Iterable[Any], default: Any, *, is_open: bool = False) -> Any:
    """A field of a configuration that takes one of a few values, or where it is a tuple some of
    them: a form and the API's schema offer them, and `choices_check` refuses others.

    is_open: others are the program's to refuse, which knows them when it runs.
    """
    metadata = {CHOICES: tuple(options), OPEN: is_open}
    return dataclasses.field(default=default, metadata=metadata)


def of_site(setting: str, default: Any) -> Any:
    """A field of a configuration that nobody chooses: a run of the site has the site's `setting`
    in it. `default` is for runs made by hand."""
    return dataclasses.field(default=default, metadata={SITE: setting})


def choices_check(config: Any) -> None:
    """Raise ConfigError naming the first field that has none of the values it declares."""
    for field in dataclasses.fields(config):
        options = field.metadata.get(CHOICES)
        if options is None or field.metadata[OPEN]:
            continue
        value = getattr(config, field.name)
        asked = value if isinstance(value, tuple) else (value,)
        *some, last = (str(one) if one != "" else "nothing" for one in options)
        wanted = f"{', '.join(some)} or {last}" if some else last
        require(set(asked) <= set(options), config.PROGRAM, field.name, value, wanted)


def require(condition: bool, program: str, field: str, value: Any, wanted: str) -> None:
    """Raise ConfigError unless `condition` holds: "reward.lr: wanted a positive number, got -1"."""
    if not condition:
        raise ConfigError(f"{program}.{field}: wanted {wanted}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class ImportModelConfig:
    """Bring a model into the hub. Reads no input; writes output `model`."""

    PROGRAM: ClassVar[str] = "import_model"
    source: str = one_of(("directory", "gguf", "hub"), dataclasses.MISSING)
    location: (
        str  # a folder, a .gguf file, or a hub id such as "HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    revision: str = ""  # of a hub id; empty takes the default branch
    model: str  # name of the hub model the version is registered under
    role: str = one_of(("base", "policy", "reward"), "base")
    card: str = ""

    def __post_init__(self) -> None:
        choices_check(self)
        require(bool(self.location), self.PROGRAM, "location", self.location, "a place")


@dataclass(frozen=True, kw_only=True)
class ExportGgufConfig:
    """Write a policy as one GGUF file. Reads `base`; writes output `gguf` (model-F16.gguf)."""

    PROGRAM: ClassVar[str] = "export_gguf"
    # f16 and f32 are floating point; q8_0 and q4_0 have 8 or 4 bits, and one scale for 32 weights.
    weight_type: str = one_of(("f16", "f32", "q8_0", "q4_0"), "f16")
    name: str = "rondo"  # that programs show for the file

    def __post_init__(self) -> None:
        is_k = "_k" in self.weight_type.lower()
        wanted = "no K-quant: llama.cpp's llama-quantize makes it of an f16 file"
        require(not is_k, self.PROGRAM, "weight_type", self.weight_type, wanted)
        choices_check(self)
        require(bool(self.name.strip()), self.PROGRAM, "name", self.name, "a name")


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Sample answers. Reads inputs `prompts` (prompts.jsonl) and, unless an endpoint is asked,
    `model`; writes output `candidates` (candidates.jsonl)."""

    PROGRAM: ClassVar[str] = "generate"
    # auto takes vllm where it is installed; openai asks the endpoint named below.
    engine: str = one_of(ENGINES, "auto")
    samples: int = 4  # answers per prompt
    temperatures: tuple[float, ...] = (1.0,)  # a ladder: sample i takes temperatures[i % length]
    top_p: float = 1.0
    top_k: int = 0  # 0 keeps the whole vocabulary
    max_tokens: int = 256  # of an answer
    max_context_tokens: int = 2048  # prompt + answer; a longer prompt is an error that names it
    seed: int = 0  # a sample's own seed is made from this, the prompt's id and the sample's index
    # Put in front of the first question, and in no record: the answers are learnt without it
    # (alignment.ml.context_distillation).
    pre_prompt: str = ""
    chunk_samples: int = 128  # answers written, and kept after a kill, together
    # auto: bfloat16 where the device multiplies in it, float32 elsewhere.
    dtype: str = one_of(SAMPLING_DTYPES, "auto")
    endpoint_url: str = ""  # with engine "openai": base URL ending in /v1
    endpoint_model: str = ""
    endpoint_key_variable: str = ""  # name of the environment variable that holds the key

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        choices_check(self)
        check(1 <= self.samples <= 1024, "samples", "1 to 1024")
        check(
            bool(self.temperatures) and all(0 <= t <= 5 for t in self.temperatures),
            "temperatures",
            "one or more numbers from 0 to 5",
        )
        check(0 < self.top_p <= 1, "top_p", "more than 0, at most 1")
        check(self.top_k >= 0, "top_k", "0 or more")
        check(self.max_tokens >= 1, "max_tokens", "1 or more")
        check(
            self.max_context_tokens > self.max_tokens, "max_context_tokens", "more than max_tokens"
        )
        check(self.chunk_samples >= 1, "chunk_samples", "1 or more")
        if self.engine == "openai":
            check(
                self.endpoint_url.startswith(("http://", "https://")),
                "endpoint_url",
                "an http(s) base URL",
            )
            check(bool(self.endpoint_model), "endpoint_model", "the served model's name")
