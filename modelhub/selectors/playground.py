"""Reading the playground: what may be tried, what was tried, and a trial's answers so far."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from modelhub import storage
from modelhub.ml.configs import ConfigError, config_load
from modelhub.ml.trials import TRIAL_NAME, PlaygroundConfig
from modelhub.models import ModelVersion, Run
from modelhub.selectors.uses import MUTE

WRITES = (ModelVersion.Role.BASE, ModelVersion.Role.POLICY, ModelVersion.Role.ADAPTER)
# A token is drawn the warmer the less the model expected it: at or above these, level 0, 1, …
_LEVELS = (0.9, 0.6, 0.3, 0.1, 0.03)


@dataclass(frozen=True, kw_only=True)
class TokenShown:
    """One token as the page shows it."""

    text: str  # "" for a part of a character that a later token ends
    p: float
    q: float
    others: Sequence[Sequence[Any]]  # (text, p, q), likeliest first
    is_over: bool  # an ending token, or behind a stop word
    level: int  # 0: expected … 5: a surprise

    @property
    def label(self) -> str:
        """A name for what cannot be seen: spaces and line ends as signs; "" for a word."""
        if self.text.strip():
            return ""
        return self.text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣")


@dataclass(frozen=True, kw_only=True)
class CellShown:
    """One model's answer in one strategy; without tokens where it is not begun."""

    uid: str
    model: str
    strategy: str
    text: str = ""
    tokens: Sequence[TokenShown] = ()
    finish_reason: str = ""
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    perplexity: float | None = None  # of the answer, in the model's own distribution
    distinct_2: float | None = None  # share of pairs of neighbouring tokens that are unlike others

    @property
    def token_count(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class GroupShown:
    """Cells side by side: a strategy's in every model, or the only model's in every strategy."""

    name: str
    cells: Sequence[CellShown]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial as far as it is."""

    run: Run
    config: PlaygroundConfig
    groups: Sequence[GroupShown]
    laid: Sequence[tuple[str, Mapping[str, Any]]]  # (model, what it was given and how long it took)
    done: int
    total: int


def versions_that_write() -> QuerySet[ModelVersion]:
    """Versions that can be tried, the newest registered first, with model and aliases."""
    writers = ModelVersion.objects.filter(role__in=WRITES).exclude(architecture__in=MUTE)
    found = writers.select_related("model", "parent")
    return found.prefetch_related("aliases").order_by("-pk")


def version_writes(version: ModelVersion) -> bool:
    """Whether a version can be tried. No query."""
    return version.role in WRITES and version.architecture not in MUTE


def trials_list() -> QuerySet[Run]:
    """The trials, newest first, with who asked for them. One query when read."""
    found = Run.objects.filter(program=PlaygroundConfig.PROGRAM).defer("result")
    return found.select_related("requested_by").order_by("-pk")


def trial_config(run: Run) -> PlaygroundConfig | None:
    """The settings of a trial; None for another program's run, or settings of another time."""
    if run.program != PlaygroundConfig.PROGRAM:
        return None
    try:
        return config_load(PlaygroundConfig, run.config)
    except ConfigError:
        return None


def trial_versions(*, run: Run) -> list[ModelVersion]:
    """The versions a trial asked, in their order, as far as they are still known. Three queries."""
    asked = {
        int(given.role.removeprefix("model_")): given.artifact_id
        for given in run.inputs.all()
        if given.role.removeprefix("model_").isdecimal()
    }
    known = {
        (version.artifact_id, str(version)): version
        for version in versions_that_write().filter(artifact__in=asked.values())
    }
    named = [(asked.get(place), name) for place, name in enumerate(run.config["models"])]
    return [known[one] for one in named if one in known]


def trial_read(*, run: Run, config: PlaygroundConfig) -> Trial:
    """The trial as its result has it; before that as its directory on this machine has it."""
    told = run.result if run.result is not None else storage.run_told(run, TRIAL_NAME)
    told = told if isinstance(told, dict) else {}
    names = [one.words for one in config.decodings]
    written = {(one["model"], one["strategy"]): one for one in told.get("cells", ())}
    cells = {
        (place, number): _cell(place, number, model, name, written.get((place, number)))
        for place, model in enumerate(config.models)
        for number, name in enumerate(names)
    }
    if len(config.models) == 1:
        groups = [GroupShown(name=config.models[0], cells=list(cells.values()))]
    else:
        groups = [
            GroupShown(name=name, cells=[cells[p, n] for p in range(len(config.models))])
            for n, name in enumerate(names)
        ]
    models = told.get("models") or [{}] * len(config.models)
    return Trial(
        run=run,
        config=config,
        groups=groups,
        laid=[(name, facts) for name, facts in zip(config.models, models, strict=False) if facts],
        done=sum(bool(one.finish_reason) for one in cells.values()),
        total=len(cells),
    )


def _cell(
    place: int, number: int, model: str, strategy: str, written: Mapping[str, Any] | None
) -> CellShown:
    uid = f"{place}-{number}"
    if written is None or not written["tokens"]:
        return CellShown(uid=uid, model=model, strategy=strategy)
    tokens = [
        TokenShown(**one, level=sum(one["p"] < least for least in _LEVELS))
        for one in written["tokens"]
    ]
    # A probability that rounds to nothing is not the end of the logarithm.
    nats = math.fsum(-math.log(max(one.p, 1e-30)) for one in tokens) / len(tokens)
    ids = [one.text for one in tokens if not one.is_over]
    pairs = list(itertools.pairwise(ids))
    return CellShown(
        uid=uid,
        model=model,
        strategy=strategy,
        text=written["text"],
        tokens=tokens,
        finish_reason=written["finish_reason"],
        first_token_s=written["first_token_s"],
        tokens_per_s=written["tokens_per_s"],
        perplexity=math.exp(min(nats, 700.0)),
        distinct_2=len(set(pairs)) / len(pairs) if pairs else None,
    )
