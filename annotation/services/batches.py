"""Candidates: asking a version to answer prompts, taking its answers in, making tasks of them."""

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from annotation.models import (
    Candidate,
    CandidateBatch,
    Project,
    Prompt,
    Task,
)
from annotation.services.tasks import tasks_create
from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.ml.configs import GenerateConfig, config_load
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.records import (
    CandidateRecord,
    PromptRecord,
    RecordError,
    chunked,
    records_read,
    records_write,
)
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors.uses import version_use_check
from modelhub.selectors.versions import version_inputs
from modelhub.services.artifacts import artifact_store
from modelhub.services.runs import run_create

logger = logging.getLogger(__name__)

PROMPTS_NAME = "prompts.jsonl"
CANDIDATES_NAME = "candidates.jsonl"
_ROWS_AT_A_TIME = 500


def candidate_batch_request(
    *,
    project: Project,
    version: ModelVersion,
    prompts: Iterable[Prompt],
    config: GenerateConfig,
    purpose: str,
    overlap: int = 0,
    priority: int = 0,
    requested_by: User | None = None,
) -> CandidateBatch:
    """Queue a run in which `version` answers the prompts, and the batch its answers will come into.

    With an overlap above 0 each prompt becomes a ranking task for so many people when the answers
    are in. The prompts' file is stored first; run and batch are made in one transaction.
    Raises ApplicationError without prompts, or for one of another project.
    """
    if purpose not in CandidateBatch.Purpose.values:
        raise ApplicationError(
            gettext("There is no purpose %(purpose)s.") % {"purpose": f"{purpose!r}"},
            {"field": "purpose"},
        )
    if not 0 <= overlap <= 50:
        raise ApplicationError(
            gettext("overlap is 0 to 50 people; got %(overlap)s.") % {"overlap": overlap},
            {"field": "overlap"},
        )
    asked = {prompt.uid: prompt for prompt in prompts}
    if not asked:
        raise ApplicationError(gettext("There are no prompts to answer."), {"field": "prompts"})
    for prompt in asked.values():
        if prompt.project_id != project.pk:
            raise ApplicationError(
                gettext("Prompt %(uid)s is not of this project.") % {"uid": prompt.uid},
                {"field": "prompts"},
            )
    inputs = {"prompts": prompts_store(prompts=asked.values())}
    if config.engine != "openai":
        version_use_check(version=version, program=GenerateConfig.PROGRAM)
        inputs |= version_inputs(version=version, role="model")
    with transaction.atomic():
        run = run_create(
            program=GenerateConfig.PROGRAM,
            config=config,
            inputs=inputs,
            label=f"{version} answers {len(asked)} prompts of {project}",
            requested_by=requested_by,
        )
        return CandidateBatch.objects.create(
            project=project,
            purpose=purpose,
            version=version,
            run=run,
            overlap=overlap,
            priority=priority,
        )


def prompts_store(*, prompts: Iterable[Prompt]) -> Artifact:
    """The prompts as programs read them: a file in the order of their uids, each once."""
    messages = {prompt.uid: prompt.messages for prompt in prompts}
    with tempfile.TemporaryDirectory() as folder:
        records_write(
            Path(folder, PROMPTS_NAME),
            (PromptRecord(prompt_id=uid, messages=messages[uid]) for uid in sorted(messages)),
        )
        return artifact_store(folder=Path(folder), kind=Artifact.Kind.PROMPTS)


def candidate_batch_ingest(*, batch: CandidateBatch) -> int:
    """Take the answers of a batch's finished run in; returns how many candidates were made.

    Everything is verified first: the files' hashes, and that each prompt has exactly its samples.
    Then candidates and tasks appear in one transaction, once: 0 if another call was first.
    Identical answers to a prompt appear in its task once, and a prompt with fewer than two
    different answers has no task (selectors.batch_progress says how many).
    Raises ApplicationError if the run has not succeeded or its answers are not what was asked.
    """
    batch = CandidateBatch.objects.select_related("run", "project").get(pk=batch.pk)
    if batch.ingested_at is not None:
        return 0
    if batch.run.status != Run.Status.SUCCEEDED:
        raise ApplicationError(
            gettext("The run of %(batch)s is %(status)s: it has no answers yet.")
            % {"batch": batch, "status": batch.run.status}
        )
    samples = config_load(GenerateConfig, batch.run.config).samples
    try:
        asked = {
            record.prompt_id
            for record in records_read(_artifact_file(batch, "prompts"), PromptRecord)
        }
        answers = _artifact_file(batch, "candidates")
        _answers_check(answers, asked, samples)
    except (RecordError, IntegrityError) as error:
        raise ApplicationError(
            gettext("The answers of %(batch)s were refused: %(error)s")
            % {"batch": batch, "error": error}
        ) from error

    with transaction.atomic():
        first = CandidateBatch.objects.filter(pk=batch.pk, ingested_at=None)
        if not first.update(ingested_at=timezone.now()):
            return 0
        count = _candidates_create(batch, answers)
        if batch.overlap:
            tasks = tasks_create(
                project=batch.project,
                kind=Task.Kind.RANKING,
                batch=batch,
                overlap=batch.overlap,
                priority=batch.priority,
            )
            logger.info("%s: %d candidates, %d of %d tasks", batch, count, tasks.made, len(asked))
    return count


def batch_tasks_close(*, batch: CandidateBatch) -> int:
    """Hand a batch's tasks out no more; returns how many were open. What comes later is surplus."""
    with transaction.atomic():
        CandidateBatch.objects.select_for_update(no_key=True).get(pk=batch.pk)
        return Task.objects.filter(batch=batch, closed_at=None).update(closed_at=timezone.now())


def _artifact_file(batch: CandidateBatch, role: str) -> Path:
    """The file of an artifact the run read or made, verified. Raises IntegrityError."""
    if role == "candidates":
        artifact = Artifact.objects.filter(made_by__run=batch.run, made_by__role=role).first()
        name = CANDIDATES_NAME
    else:
        artifact = Artifact.objects.filter(read_by__run=batch.run, read_by__role=role).first()
        name = PROMPTS_NAME
    if artifact is None:
        raise IntegrityError(f"the run has no artifact {role}")
    storage.artifact_verify(artifact)
    path = storage.artifact_folder(artifact) / name
    if not path.is_file():
        raise IntegrityError(f"artifact {artifact.sha256[:12]} holds no {name}")
    return path


def _answers_check(path: Path, asked: set[str], samples: int) -> None:
    """Each prompt asked has answers 0 … samples-1, each once, and no other prompt has any."""
    seen: dict[str, set[int]] = {uid: set() for uid in asked}
    for number, record in enumerate(records_read(path, CandidateRecord), start=1):
        found = seen.get(record.prompt_id)
        if found is None:
            raise RecordError(path.name, number, "prompt_id", "a prompt that was not asked")
        if not 0 <= record.index < samples or record.index in found:
            raise RecordError(
                path.name, number, "index", f"{record.index} is beyond {samples} samples, or twice"
            )
        found.add(record.index)
    for uid, found in seen.items():
        if len(found) != samples:
            raise IntegrityError(f"prompt {uid} has {len(found)} of {samples} answers")


def _candidates_create(batch: CandidateBatch, answers: Path) -> int:
    count = 0
    for records in chunked(records_read(answers, CandidateRecord), _ROWS_AT_A_TIME):
        prompts = dict(
            Prompt.objects.filter(
                project=batch.project_id, uid__in={record.prompt_id for record in records}
            ).values_list("uid", "pk")
        )
        Candidate.objects.bulk_create(
            Candidate(
                prompt_id=prompts[record.prompt_id],
                batch=batch,
                index=record.index,
                # PostgreSQL's text holds no NUL, and a model may write one.
                text=record.text.replace("\x00", "\ufffd"),
                version_id=batch.version_id,
                decoding={
                    "engine": record.engine,
                    "seed": record.seed,
                    "temperature": record.temperature,
                    "top_p": record.top_p,
                    "top_k": record.top_k,
                    "max_tokens": record.max_tokens,
                },
                token_count=record.token_count,
                finish_reason=record.finish_reason,
                mean_logprob=record.mean_logprob,
            )
            for record in records
        )
        count += len(records)
    return count
