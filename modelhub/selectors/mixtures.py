"""Planning mixtures: what a pretraining run would read of each token set, by its own arithmetic.

The program's functions are called, not copied: blocks kept for validation, shares rounded to slots
and epoch caps are those of the run (modelhub/ml/pretraining/data.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from django.utils.translation import gettext

from modelhub.charts import StackPart, stacks_draw
from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.planner import chinchilla_ratio
from modelhub.models import Artifact, MixtureSource, Run, RunInput, RunOutput, SavedMixture

BY = ("hand", "size", "temperature", "llama")
SETS_OFFERED = 100  # newest first
RATES_OFFERED = 20
# More readings teach next to nothing new: Muennighoff et al. 2023 (arXiv:2305.16264), section 5.
REPEATS_WORTHWHILE = 4.0


@dataclass(frozen=True, kw_only=True)
class TokenSet:
    """A token set as a mixture can read it."""

    output: RunOutput
    name: str
    tokens: int
    tokenizer: int | None  # key of the artifact it was made with

    @property
    def uid(self) -> str:
        return self.output.run.uid


@dataclass(frozen=True, kw_only=True)
class BlendAsk:
    """The shares that hold from a step on, and how they are chosen."""

    first_step: int = 0
    by: str = "size"
    temperature: float = 2.0
    weights: Mapping[str, float] = field(default_factory=dict)  # token set's uid → weight, by hand


@dataclass(frozen=True, kw_only=True)
class MixtureAsk:
    """A mixture as it is being planned; token sets go by the uid of the run that made them."""

    sets: tuple[str, ...] = ()
    caps: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)  # what each stands for in LLaMA's table
    blends: tuple[BlendAsk, ...] = (BlendAsk(),)
    tokens: int = 10_000_000
    block_tokens: int = 256
    blocks_per_step: int = 16
    rate_of: str = ""  # uid of the pretraining run whose speed and size are taken

    @property
    def steps(self) -> int:
        return self.tokens // (self.block_tokens * self.blocks_per_step)


@dataclass(frozen=True, kw_only=True)
class PlannedSource:
    """What the run reads of one token set."""

    set: TokenSet
    place: int
    train_tokens: int  # without its validation blocks
    read_tokens: int
    share: float
    epochs: float
    cap: float  # epochs; 0: none
    width: float  # of its bar, to the largest of all, 0 to 100
    own_width: float  # of its own tokens on the same scale

    @property
    def is_repeated(self) -> bool:
        return self.epochs > 1

    @property
    def is_worn(self) -> bool:
        return self.epochs > REPEATS_WORTHWHILE


@dataclass(frozen=True, kw_only=True)
class PlannedBlend:
    """A stretch of the run with one blend: the shares asked for, and as they are sampled."""

    ask: BlendAsk
    steps: int
    asked: tuple[float, ...]
    sampled: tuple[float, ...]
    weights: tuple[float, ...]  # in percent, as a form shows them


@dataclass(frozen=True, kw_only=True)
class MeasuredRate:
    """How fast a run trained, and how large its model is."""

    run: Run
    tokens_per_s: float
    parameters: int


@dataclass(frozen=True, kw_only=True)
class MixturePlan:
    """The answer."""

    ask: MixtureAsk
    sources: list[PlannedSource]
    blends: list[PlannedBlend]
    stacks: list[StackPart]
    steps: int
    tokens: int
    rate: MeasuredRate | None

    @property
    def seconds(self) -> float | None:
        return self.tokens / self.rate.tokens_per_s if self.rate else None

    @property
    def tokens_per_parameter(self) -> float | None:
        return chinchilla_ratio(self.tokens, self.rate.parameters) if self.rate else None

    @property
    def repeated(self) -> list[PlannedSource]:
        return [source for source in self.sources if source.is_repeated]

    @property
    def worn(self) -> list[PlannedSource]:
        return [source for source in self.sources if source.is_worn]


@dataclass
class _Sized:
    """As much of a token set as planning needs: its size. Nothing of it is read."""

    tokens: int

    def block(self, number: int, block_tokens: int) -> Any:
        raise TypeError("a plan reads no tokens")

    def block_documents(self, number: int, block_tokens: int) -> Sequence[Any]:
        raise TypeError("a plan reads no tokens")


def token_sets_list(*, uids: Sequence[str] = ()) -> list[TokenSet]:
    """Token sets, newest first: those named, and as many others as are offered. Two queries."""
    outputs = RunOutput.objects.filter(
        artifact__kind=Artifact.Kind.TOKENS, role="tokens", run__status=Run.Status.SUCCEEDED
    )
    made_with = RunInput.objects.filter(role="tokenizer")
    newest = outputs.order_by("-pk").values("pk")[:SETS_OFFERED]
    found = (
        outputs.filter(Q(pk__in=list(newest.values_list("pk", flat=True))) | Q(run__uid__in=uids))
        .select_related("run", "artifact")
        .prefetch_related(Prefetch("run__inputs", made_with, to_attr="made_with"))
        .order_by("-pk")
    )
    sets = []
    for output in found:
        result = output.run.result or {}
        parts = result.get("sources") or [{}]
        tokenizers = output.run.made_with  # type: ignore[attr-defined]  # the prefetch above
        sets.append(
            TokenSet(
                output=output,
                name=str(parts[0].get("source") or output.run.label or output.run.uid[:8]),
                tokens=int(result.get("tokens", 0)),
                tokenizer=tokenizers[0].artifact_id if tokenizers else None,
            )
        )
    return sets


def rates_list() -> list[MeasuredRate]:
    """The newest pretraining runs that measured themselves. One query."""
    runs = Run.objects.filter(program=PretrainConfig.PROGRAM, status=Run.Status.SUCCEEDED)
    found = []
    for run in runs.order_by("-pk")[:RATES_OFFERED]:
        result = run.result or {}
        rate, parameters = result.get("tokens_per_s"), result.get("parameters")
        if rate and parameters:
            found.append(
                MeasuredRate(run=run, tokens_per_s=float(rate), parameters=int(parameters))
            )
    return found


def mixture_plan(
    *, ask: MixtureAsk, sets: Sequence[TokenSet], rates: Sequence[MeasuredRate] = ()
) -> MixturePlan:
    """What a run with this mixture would read. No query.

    Raises ApplicationError, in words for the page, for a mixture that the run would refuse.
    """
    known = {one.uid: one for one in sets}
    chosen = [known[uid] for uid in ask.sets if uid in known]
    if not chosen:
        raise ApplicationError(gettext("Choose a token set."))
    if len({one.tokenizer for one in chosen}) > 1:
        raise ApplicationError(
            gettext("The token sets were made with different tokenizers: a model reads one’s.")
        )
    if not ask.steps:
        raise ApplicationError(
            gettext("%(tokens)s tokens are less than one step of %(step)s.")
            % {"tokens": ask.tokens, "step": ask.block_tokens * ask.blocks_per_step}
        )
    steps = [blend.first_step for blend in ask.blends]
    if (
        steps[0] != 0
        or any(not 0 < step < ask.steps for step in steps[1:])
        or len(set(steps)) < len(steps)
    ):
        raise ApplicationError(
            gettext("The blend changes at steps of the run, 1 to %(last)s, each one’s own.")
            % {"last": ask.steps - 1}
        )
    try:
        return _plan(ask, chosen, {str(one.run.uid): one for one in rates})
    except (ConfigError, RefusedError) as error:
        raise ApplicationError(str(error)) from error


def _plan(
    ask: MixtureAsk, chosen: Sequence[TokenSet], rates: Mapping[str, MeasuredRate]
) -> MixturePlan:
    # NumPy is loaded by who plans a mixture, not by every web process as it starts.
    from modelhub.ml.pretraining.data import accounts, mixture_make, source_make

    sizing = PretrainConfig(block_tokens=ask.block_tokens)
    sized = [source_make(one.name, _Sized(one.tokens), sizing, is_replay=False) for one in chosen]
    # Two sets of one corpus may bear one name; the sampler wants each its own.
    named = [
        source_make(f"{at}", _Sized(one.tokens), sizing, is_replay=False)
        for at, one in enumerate(chosen)
    ]
    blocks = [float(one.train_blocks) for one in sized]
    # Rounded, so that what a form shows of them is all of them.
    asked = [
        tuple(round(share, 6) for share in blend_shares(blend, ask, chosen, blocks))
        for blend in ask.blends
    ]
    config = PretrainConfig(
        block_tokens=ask.block_tokens,
        blocks_per_step=ask.blocks_per_step,
        steps=ask.steps,
        shares=asked[0],
        epoch_caps=tuple(ask.caps.get(one.uid, 0.0) for one in chosen),
        later_shares={
            str(blend.first_step): list(shares)
            for blend, shares in zip(ask.blends[1:], asked[1:], strict=True)
        },
    )
    mixture = mixture_make(named, config)
    told = accounts(mixture, named, config)
    ends = [*(blend.first_step for blend in ask.blends[1:]), ask.steps]
    blends = [
        PlannedBlend(
            ask=blend,
            steps=end - blend.first_step,
            asked=shares,
            sampled=mixture.shares(at),
            weights=tuple(100 * share for share in shares),
        )
        for at, (blend, shares, end) in enumerate(zip(ask.blends, asked, ends, strict=True))
    ]
    longest = max(
        max(one["tokens"], source.train_blocks * ask.block_tokens)
        for one, source in zip(told, sized, strict=True)
    )
    return MixturePlan(
        ask=ask,
        sources=[
            PlannedSource(
                set=one,
                place=place,
                train_tokens=source.train_blocks * ask.block_tokens,
                read_tokens=account["tokens"],
                share=account["share"],
                epochs=account["epochs"],
                cap=ask.caps.get(one.uid, 0.0),
                width=round(100 * account["tokens"] / longest, 2),
                own_width=round(100 * source.train_blocks * ask.block_tokens / longest, 2),
            )
            for place, (one, source, account) in enumerate(zip(chosen, sized, told, strict=True))
        ],
        blends=blends,
        stacks=stacks_draw([(float(one.steps), one.sampled) for one in blends]),
        steps=ask.steps,
        tokens=ask.steps * ask.block_tokens * ask.blocks_per_step,
        rate=rates.get(ask.rate_of),
    )


def blend_shares(
    blend: BlendAsk, ask: MixtureAsk, chosen: Sequence[TokenSet], sizes: Sequence[float]
) -> tuple[float, ...]:
    """A blend's shares in the order of the token sets, added up to 1; sizes in blocks.

    Raises MixtureError for weights that are all 0 and for sets of which none has a kind.
    """
    from modelhub.ml.mixture import LLAMA_SHARES, MixtureError, shares_by_kind, shares_temper

    if blend.by == "llama":
        return shares_by_kind([ask.kinds.get(one.uid, "") for one in chosen], sizes, LLAMA_SHARES)
    if blend.by == "hand":
        weights = [blend.weights.get(one.uid, 0.0) for one in chosen]
        if not sum(weights) > 0:
            raise MixtureError(gettext("Give a token set a weight above 0."))
        return tuple(weight / sum(weights) for weight in weights)
    return shares_temper(sizes, blend.temperature if blend.by == "temperature" else 1.0)


def mixtures_list() -> QuerySet[SavedMixture]:
    """Saved mixtures, by name, the newest number first. One query."""
    return SavedMixture.objects.select_related("author").order_by("name", "-number")


def mixture_get(*, uid: str) -> SavedMixture | None:
    """A saved mixture with its token sets. Two queries."""
    sources = MixtureSource.objects.select_related("output__run", "output__artifact")
    found = SavedMixture.objects.select_related("author").prefetch_related(
        Prefetch("sources", sources)
    )
    return found.filter(uid=uid).first()


def mixture_ask(*, mixture: SavedMixture) -> MixtureAsk:
    """A saved mixture as something to plan further from."""
    sources = list(mixture.sources.all())
    return MixtureAsk(
        sets=tuple(one.output.run.uid for one in sources),
        caps={one.output.run.uid: one.epoch_cap for one in sources},
        kinds={one.output.run.uid: one.kind for one in sources},
        blends=tuple(
            BlendAsk(
                first_step=blend["first_step"],
                by=blend["by"],
                temperature=blend["temperature"],
                weights={
                    one.output.run.uid: round(100 * share, 4)
                    for one, share in zip(sources, blend["shares"], strict=True)
                },
            )
            for blend in mixture.blends
        ),
        tokens=mixture.tokens,
        block_tokens=mixture.block_tokens,
        blocks_per_step=mixture.blocks_per_step,
    )


def mixture_settings(*, mixture: SavedMixture) -> dict[str, Any]:
    """The settings of a pretraining run that reads the mixture as it was planned."""
    first, *later = mixture.blends
    usual = PretrainConfig.warmup_steps
    caps = [one.epoch_cap for one in mixture.sources.all()]
    return {
        "mixture": str(mixture),
        "block_tokens": mixture.block_tokens,
        "blocks_per_step": mixture.blocks_per_step,
        "steps": mixture.steps,
        # A warm-up as long as the run would never reach its rate: a tenth, as short runs have.
        "warmup_steps": usual if usual * 2 <= mixture.steps else mixture.steps // 10,
        "shares": first["shares"],
        "epoch_caps": caps if any(caps) else [],
        "later_shares": {str(blend["first_step"]): blend["shares"] for blend in later},
    }


def mixture_tokenizer(*, mixture: SavedMixture) -> str:
    """The tokenizer that its token sets are made with, as a launch names it; empty where they have
    none in common or nobody knows. Two queries."""
    runs = mixture.sources.values("output__run")
    made_with = RunInput.objects.filter(run__in=runs, role="tokenizer")
    found = set(made_with.values_list("artifact", flat=True))
    if len(found) != 1:
        return ""
    artifact = Artifact.objects.prefetch_related("made_by__run", "versions").get(pk=found.pop())
    for version in artifact.versions.all():
        return f"version/{version.uid}"
    for made in artifact.made_by.all():
        return f"run/{made.run.uid}/{made.role}"
    return ""


def mixture_runs(*, mixture: SavedMixture) -> QuerySet[Run]:
    """The runs that were launched with it, newest first. One query."""
    return Run.objects.filter(
        program=PretrainConfig.PROGRAM, config__mixture=str(mixture)
    ).order_by("-pk")


@dataclass(frozen=True, kw_only=True)
class SetRow:
    """A token set as the planner offers it: chosen or not, with what the plan says of it."""

    set: TokenSet
    is_chosen: bool
    cap: float
    kind: str
    planned: PlannedSource | None


def set_rows(
    *, ask: MixtureAsk, sets: Sequence[TokenSet], plan: MixturePlan | None
) -> list[SetRow]:
    """The chosen token sets in their order, then the others. No query."""
    planned = {one.set.uid: one for one in plan.sources} if plan else {}
    place = {uid: at for at, uid in enumerate(ask.sets)}
    ordered = sorted(sets, key=lambda one: place.get(one.uid, len(place)))
    return [
        SetRow(
            set=one,
            is_chosen=one.uid in place,
            cap=ask.caps.get(one.uid, 0.0),
            kind=ask.kinds.get(one.uid, ""),
            planned=planned.get(one.uid),
        )
        for one in ordered
    ]


@dataclass(frozen=True, kw_only=True)
class BlendRow:
    """A blend as the planner's form shows it: its settings, and each token set's weight."""

    ask: BlendAsk
    weights: list[tuple[int, TokenSet, float, float | None]]  # place, set, weight, share sampled


def blend_rows(
    *, ask: MixtureAsk, sets: Sequence[TokenSet], plan: MixturePlan | None
) -> list[BlendRow]:
    """The blends of the form. No query."""
    known = {one.uid: one for one in sets}
    chosen = [known[uid] for uid in ask.sets if uid in known]
    rows = []
    for at, blend in enumerate(ask.blends):
        planned = plan.blends[at] if plan else None
        rows.append(
            BlendRow(
                ask=blend,
                weights=[
                    (
                        place,
                        one,
                        # What was chosen otherwise is where choosing by hand begins.
                        round(planned.weights[place], 4)
                        if planned and blend.by != "hand"
                        else blend.weights.get(one.uid, 1.0),
                        planned.sampled[place] if planned else None,
                    )
                    for place, one in enumerate(chosen)
                ],
            )
        )
    return rows


def kinds_list() -> list[tuple[str, float]]:
    """LLaMA's kinds of text, with their shares."""
    from modelhub.ml.mixture import LLAMA_SHARES

    return list(LLAMA_SHARES.items())
