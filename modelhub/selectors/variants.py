"""What a version was made smaller into: GGUF files, quantised versions, and what each cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelhub.models import Artifact, ModelVersion, Run

VARIANT_PROGRAMS = ("export_gguf", "quantise")
_OUTPUTS = {"export_gguf": "gguf", "quantise": "model"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of a version's smaller forms, or a run that is making one."""

    run: Run
    name: str  # "GGUF q8_0", "w4a16"
    artifact: Artifact | None = None  # none until the run has succeeded
    version: ModelVersion | None = None  # of a quantised one
    file: str = ""  # of a GGUF artifact
    share: float | None = None  # of the bytes of the version's own weights
    parent_perplexity: float | None = None
    perplexity: float | None = None
    divergence: float | None = None  # KL(version ‖ variant), nats a token
    max_logit_difference: float | None = None  # after it was read back
    max_logit_difference_allowed: float | None = None  # where so many bits have a bound
    token_ids_equal: bool = False


def version_variants(*, version: ModelVersion, limit: int = 20) -> list[Variant]:
    """The version's variants and the runs that make more, newest first. Four queries."""
    runs = Run.objects.filter(
        program__in=VARIANT_PROGRAMS, inputs__role="base", inputs__artifact=version.artifact
    )
    wanted = runs.exclude(status__in=[Run.Status.FAILED, Run.Status.CANCELLED]).distinct()
    found = wanted.prefetch_related("outputs__artifact", "versions__model").order_by("-pk")
    return [_variant(run) for run in found[:limit]]


def _variant(run: Run) -> Variant:
    is_gguf = run.program == "export_gguf"
    name = f"GGUF {run.config.get('weight_type', '')}" if is_gguf else run.config.get("scheme", "")
    if run.status != Run.Status.SUCCEEDED or run.result is None:
        return Variant(run=run, name=name)
    told = run.result
    heard = told if is_gguf else _heard(told)
    outputs = {one.role: one.artifact for one in run.outputs.all()}
    own_bytes, parent_bytes = (
        told.get("file_bytes" if is_gguf else "weights_bytes"),
        told.get("parent_weights_bytes"),
    )
    return Variant(
        run=run,
        name=name if is_gguf else str(told.get("quantisation", name)),
        artifact=outputs.get(_OUTPUTS[run.program]),
        version=next(iter(run.versions.all()), None),
        file=str(told.get("file", "")),
        share=own_bytes / parent_bytes if own_bytes and parent_bytes else None,
        parent_perplexity=heard.get("parent_perplexity"),
        perplexity=heard.get("perplexity"),
        divergence=told.get("divergence"),
        max_logit_difference=told.get("max_logit_difference"),
        max_logit_difference_allowed=told.get("max_logit_difference_allowed"),
        token_ids_equal=bool(told.get("token_ids_equal")),
    )


def _heard(told: Mapping[str, Any]) -> dict[str, float]:
    """The perplexities of a quantised version's table."""
    rows = {row["figure"]: row for row in told.get("beside_parent", ())}
    row = rows.get("perplexity")
    return {"parent_perplexity": row["parent"], "perplexity": row["own"]} if row else {}


def gguf_output(*, run_uid: str) -> Artifact | None:
    """The GGUF file that a run has made. One query."""
    outputs = Artifact.objects.filter(
        kind=Artifact.Kind.GGUF, made_by__run__uid=run_uid, made_by__role="gguf"
    )
    return outputs.first()
