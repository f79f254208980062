"""Self-Instruct: the prompts to start from, and what becomes of those that a model has written."""

import tempfile
from pathlib import Path

from django.utils.translation import gettext

from alignment.records import PROPOSALS_NAME, ProposalRecord
from annotation.models import Project, Prompt, Split
from annotation.services.proposals import proposals_add
from modelhub.errors import ApplicationError
from modelhub.ml.records import PromptRecord, records_read, records_write
from modelhub.models import Artifact, Run
from modelhub.services.artifacts import artifact_store
from modelhub.storage import artifact_folder

PROMPTS_NAME = "prompts.jsonl"


def seeds_store(*, project: Project) -> Artifact:
    """Write down a project's prompts to train on, for a model to write more of their kind; of
    held-out ones nothing may come into training. What people are asked of documents is no question
    to be multiplied. Raises ApplicationError if there is none."""
    prompts = Prompt.objects.filter(project=project, split=Split.TRAIN).order_by("pk")
    prompts = prompts.exclude(source=Prompt.OF_CORPUS)
    with tempfile.TemporaryDirectory() as folder:
        records = (
            PromptRecord(prompt_id=one.uid, messages=one.messages) for one in prompts.iterator()
        )
        if not records_write(Path(folder, PROMPTS_NAME), records):
            raise ApplicationError(
                gettext("%(project)s has no prompt to train on.") % {"project": project},
                {"field": "inputs.seeds"},
            )
        return artifact_store(folder=Path(folder), kind=Artifact.Kind.PROMPTS)


def self_instruct_finish(*, run: Run) -> None:
    """Let people decide on what a finished run has written, within the transaction that marks it
    succeeded. The project is that of the seeds; a run of other seeds proposes to nobody."""
    seeds = artifact_folder(run.inputs.select_related("artifact").get(role="seeds").artifact)
    first = next(records_read(seeds / PROMPTS_NAME, PromptRecord))
    project = Project.objects.filter(prompts__uid=first.prompt_id).first()
    if project is None:
        return
    output = run.outputs.select_related("artifact").get(role="proposals")
    records = records_read(artifact_folder(output.artifact) / PROPOSALS_NAME, ProposalRecord)
    proposals_add(project=project, run=run, texts=[one.text for one in records])
