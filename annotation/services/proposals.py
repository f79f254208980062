"""Prompts that a model proposes: kept until a person accepts or rejects each."""

import json
from collections.abc import Sequence

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.models import Project, Prompt, Proposal
from annotation.services.prompts import MAX_SOURCE_CHARS, PromptLine, prompts_import
from modelhub.errors import ConflictError
from modelhub.ml.records import RecordError
from modelhub.models import Run

State = Proposal.State


@transaction.atomic
def proposals_add(*, project: Project, run: Run, texts: Sequence[str]) -> int:
    """Keep what a run proposes; returns how many wait. Nothing is proposed that is a prompt of the
    project already, was proposed before, or could be no prompt."""
    found: dict[str, str] = {}
    for number, text in enumerate(texts, start=1):
        try:
            row = PromptLine("the proposals", number).row({"prompt": text}, "")
        except RecordError:
            continue
        found.setdefault(row["content_hash"], text)
    known = set(
        Prompt.objects.filter(project=project, content_hash__in=found).values_list(
            "content_hash", flat=True
        )
    ) | set(
        Proposal.objects.filter(project=project, content_hash__in=found).values_list(
            "content_hash", flat=True
        )
    )
    fresh = [
        Proposal(project=project, run=run, text=text, content_hash=key)
        for key, text in found.items()
        if key not in known
    ]
    return len(Proposal.objects.bulk_create(fresh))


@transaction.atomic
def proposal_decide(*, proposal: Proposal, accept: bool, decided_by: User) -> Proposal:
    """Make a proposal a prompt of its project, or reject it; the same again changes nothing.

    Raises ConflictError if it was decided the other way.
    """
    proposal = (
        Proposal.objects.select_for_update(no_key=True, of=("self",))
        .select_related("project", "run")
        .get(pk=proposal.pk)
    )
    state = State.ACCEPTED if accept else State.REJECTED
    if proposal.state == state:
        return proposal
    if proposal.state != State.WAITING:
        raise ConflictError(gettext("Somebody has decided this proposal the other way."))
    if accept:
        line = json.dumps({"prompt": proposal.text}, ensure_ascii=False).encode()
        prompts_import(
            project=proposal.project,
            lines=[line],
            name="the proposal",
            source=f"Self-Instruct: run {proposal.run.uid}"[:MAX_SOURCE_CHARS],
        )
    proposal.state, proposal.decided_by, proposal.decided_at = state, decided_by, timezone.now()
    proposal.save(update_fields=["state", "decided_by", "decided_at"])
    return proposal
