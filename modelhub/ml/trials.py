"""What a trial of the playground is: one prompt, how it is laid out, and the ways to decode.

Standard library only: the web side builds its form from this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from modelhub.ml.configs import ConfigError, config_load, require

TRIAL_NAME = "trial.json"  # in the run's folder: what is there so far, written as it goes
MOST_MODELS = 4
MOST_STRATEGIES = 12
MOST_TOKENS = 512
LAYOUTS = ("chat", "plain", "few_shot")


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way to choose tokens. Its knobs are applied in this order: repetition penalty,
    temperature, top-k, top-p, min-p."""

    PROGRAM: ClassVar[str] = "playground.strategy"
    kind: str  # "greedy", "sample", "beam" or "contrastive"
    repetition_penalty: float = 1.0  # Keskar et al. 2019 (arXiv:1909.05858), section 4.1
    temperature: float = 1.0
    top_k: int = 0  # 0 keeps the whole vocabulary; of "contrastive": the candidates of a step
    top_p: float = 1.0  # Holtzman et al. 2020 (arXiv:1904.09751)
    min_p: float = 0.0  # of the likeliest token's probability; Nguyen et al. 2024 (2407.01082)
    beams: int = 4  # of "beam"
    length_penalty: float = 1.0  # of "beam": a beam's score is divided by its length to this power
    alpha: float = 0.6  # of "contrastive": weight of the likeness to what is written already

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        kinds = ("greedy", "sample", "beam", "contrastive")
        check(self.kind in kinds, "kind", ", ".join(kinds))
        check(0.5 <= self.repetition_penalty <= 5, "repetition_penalty", "0.5 to 5")
        check(0 < self.temperature <= 5, "temperature", "more than 0, at most 5")
        check(0 <= self.top_k <= 1000, "top_k", "0 to 1000")
        check(0 < self.top_p <= 1, "top_p", "more than 0, at most 1")
        check(0 <= self.min_p < 1, "min_p", "0 or more, less than 1")
        check(2 <= self.beams <= 16, "beams", "2 to 16")
        check(-2 <= self.length_penalty <= 4, "length_penalty", "-2 to 4")
        check(0 <= self.alpha <= 1, "alpha", "0 to 1")
        if self.kind == "contrastive":
            check(2 <= self.top_k <= 16, "top_k", "2 to 16 candidates")

    @property
    def words(self) -> str:
        """The strategy in the field's terms: "top-p 0.9, T 0.7"."""
        if self.kind == "beam":
            power = "" if self.length_penalty == 1 else f", length penalty {self.length_penalty:g}"
            return f"beam {self.beams}{power}"
        if self.kind == "contrastive":
            return f"contrastive k {self.top_k}, α {self.alpha:g}"
        knobs = []
        if self.kind == "sample":
            knobs += [f"top-k {self.top_k}"] if self.top_k else []
            knobs += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
            knobs += [f"min-p {self.min_p:g}"] if self.min_p else []
            knobs += [f"T {self.temperature:g}"]
        if self.repetition_penalty != 1:
            knobs += [f"repetition penalty {self.repetition_penalty:g}"]
        return ", ".join(["greedy", *knobs] if self.kind == "greedy" else knobs)


@dataclass(frozen=True)
class FewShot:
    """Words that make a base model, which only continues texts, answer like an assistant.

    `{prompt}` is where the question goes. The answer ends where one of `stops` begins.
    """

    text: str
    stops: tuple[str, ...]


# A talk between a person and an assistant, as the prompt of Askell et al. 2021 (arXiv:2112.00861)
# is one: the examples show length, tone and honesty, the stop words keep the model to one turn.
FEW_SHOT: dict[str, FewShot] = {
    "assistant": FewShot(
        "What follows are talks between a person and an assistant. The assistant is helpful, "
        "honest and brief, and says so when it does not know.\n\n"
        "Human: Which planet is the largest?\n\n"
        "Assistant: Jupiter. More than 1,300 Earths would fit into it.\n\n"
        "Human: My bread does not rise. What could be wrong?\n\n"
        "Assistant: Most often the yeast is too old or the water was too hot. Stir a little yeast "
        "into warm water with sugar: if it does not foam in ten minutes, buy fresh yeast.\n\n"
        "Human: {prompt}\n\nAssistant:",
        ("\n\nHuman:", "\nHuman:"),
    ),
    "questions": FewShot(
        "Q: What is the capital of Portugal?\nA: Lisbon\n\n"
        "Q: How many legs has a spider?\nA: Eight\n\n"
        "Q: Who wrote Hamlet?\nA: William Shakespeare\n\n"
        "Q: {prompt}\nA:",
        ("\n",),
    ),
    "助手": FewShot(
        "以下是人与助手的对话。助手乐于帮忙, 诚实, 说话简明, 不知道的就说不知道。\n\n"
        "人: 最大的行星是哪一颗?\n\n助手: 木星。它的体积是地球的一千三百多倍。\n\n"
        "人: 面团发不起来, 是怎么回事?\n\n"
        "助手: 多半是酵母放久了, 或者水太烫。先用温水加一点糖化开酵母, 十分钟不起泡就换新的。\n\n"
        "人: {prompt}\n\n助手:",
        ("\n\n人:", "\n人:"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class PlaygroundConfig:
    """One prompt, answered by several models in several ways. Reads inputs `model_0`, `model_1`, …
    (an adapter's base as `model_0_base`); its result holds every answer token by token."""

    PROGRAM: ClassVar[str] = "playground"
    prompt: str
    layout: str = "chat"  # "chat": by the chat template, "plain": as it is, "few_shot"
    system: str = ""  # of "chat": the system message; empty sends none
    few_shot: str = "assistant"  # of "few_shot": the words around the prompt
    models: tuple[str, ...]  # what the inputs are called on the page
    strategies: tuple[dict[str, Any], ...]  # see Strategy
    # Of a model that vLLM serves: its server's base URL and the name it is called by there; empty
    # texts, or none at all, for models that are loaded here.
    servers: tuple[str, ...] = ()
    served_names: tuple[str, ...] = ()
    max_tokens: int = 64  # of an answer
    alternatives: int = 5  # likeliest tokens kept beside each one written
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, wanted: str) -> None:
            require(ok, self.PROGRAM, field, getattr(self, field), wanted)

        check(bool(self.prompt.strip()), "prompt", "some text")
        check(self.layout in LAYOUTS, "layout", ", ".join(LAYOUTS))
        check(self.few_shot in FEW_SHOT, "few_shot", ", ".join(FEW_SHOT))
        check(1 <= len(self.models) <= MOST_MODELS, "models", f"1 to {MOST_MODELS}")
        most = MOST_STRATEGIES
        check(1 <= len(self.strategies) <= most, "strategies", f"1 to {most}")
        check(1 <= self.max_tokens <= MOST_TOKENS, "max_tokens", f"1 to {MOST_TOKENS}")
        check(1 <= self.alternatives <= 20, "alternatives", "1 to 20")
        check(0 <= self.seed < 2**31, "seed", "0 to 2147483647")
        dtypes = ("float32", "bfloat16", "float16")
        check(self.dtype in dtypes, "dtype", ", ".join(dtypes))
        for field in ("servers", "served_names"):
            named = len(getattr(self, field))
            check(named in (0, len(self.models)), field, "one for each model, or none")
        both = len(self.servers) == len(self.served_names)
        check(both, "served_names", "the model's name at each server, and none without servers")
        kinds = {one.kind for one in self.decodings}
        drawn = not any(self.servers) or kinds <= {"greedy", "sample"}
        check(drawn, "strategies", "greedy or sample: a server searches in no other way")

    @property
    def decodings(self) -> tuple[Strategy, ...]:
        """The strategies. Raises ConfigError naming the knob that is out of its range."""
        return tuple(_strategy_load(one) for one in self.strategies)

    @property
    def stops(self) -> tuple[str, ...]:
        """Words at which an answer ends, beside the model's own ending tokens."""
        return FEW_SHOT[self.few_shot].stops if self.layout == "few_shot" else ()


def _strategy_load(values: Mapping[str, Any]) -> Strategy:
    try:
        return config_load(Strategy, values)
    except TypeError as error:  # a name that is no text
        raise ConfigError(f"playground.strategies: {error}") from error
