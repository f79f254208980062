"""Token sets and pretraining runs as rows: what planning a mixture reads of them."""

import hashlib
from typing import Any

from modelhub.models import Artifact, Run, RunInput, RunOutput


def make_artifact(kind: str, name: str) -> Artifact:
    sha256 = hashlib.sha256(f"{kind} {name}".encode()).hexdigest()
    return Artifact.objects.get_or_create(
        sha256=sha256,
        defaults={"kind": kind, "uri": f"artifacts/{sha256}", "manifest": {}, "size_bytes": 1},
    )[0]


def make_tokens(name: str, tokens: int, *, tokenizer: str = "shared") -> RunOutput:
    """A token set that a run has made, of so many tokens."""
    run = Run.objects.create(
        program="tokenise",
        config={},
        status=Run.Status.SUCCEEDED,
        result={"tokens": tokens, "sources": [{"source": name, "tokens": tokens}]},
    )
    made_with = make_artifact(Artifact.Kind.TOKENIZER, tokenizer)
    RunInput.objects.create(run=run, role="tokenizer", artifact=made_with)
    return RunOutput.objects.create(
        run=run, role="tokens", artifact=make_artifact(Artifact.Kind.TOKENS, run.uid)
    )


def make_rate(*, tokens_per_s: float, parameters: int, **more: Any) -> Run:
    """A pretraining run that measured itself."""
    return Run.objects.create(
        program="pretrain",
        config={},
        label="measured",
        status=Run.Status.SUCCEEDED,
        result={"tokens_per_s": tokens_per_s, "parameters": parameters, **more},
    )
