"""Plain functions that put rows in the database for a test, as few as it needs."""

import hashlib
import itertools

from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from annotation.models import (
    Candidate,
    CandidateBatch,
    Membership,
    Project,
    Prompt,
    Split,
    Task,
    TaskCandidate,
)
from annotation.splits import content_hash, group_hash, split_of
from modelhub.models import Artifact, Model, ModelVersion, Run

_counter = itertools.count(1)


def make_user(name: str, *, is_staff: bool = False, is_superuser: bool = False) -> User:
    return User.objects.create_user(
        username=name, password="a-long-passphrase", is_staff=is_staff, is_superuser=is_superuser
    )


def make_project(name: str = "Project", *, overlap: int = 1) -> Project:
    return Project.objects.create(name=name, overlap=overlap)


def make_member(
    project: Project, name: str, role: str = Membership.Role.ANNOTATOR, *, simulated: bool = False
) -> Membership:
    user = User.objects.filter(username=name).first() or make_user(name)
    source = Membership.Source.SIMULATED if simulated else Membership.Source.PERSON
    return Membership.objects.create(project=project, user=user, role=role, source=source)


def make_artifact(kind: str = Artifact.Kind.MODEL) -> Artifact:
    """A row without a folder: for tests that never open it."""
    digest = hashlib.sha256(f"artifact {next(_counter)}".encode()).hexdigest()
    return Artifact.objects.create(
        sha256=digest, kind=kind, uri=f"artifacts/{digest}", manifest={"files": {}}, size_bytes=0
    )


def make_version(name: str = "policy", *, role: str = ModelVersion.Role.POLICY) -> ModelVersion:
    model, _ = Model.objects.get_or_create(name=name)
    return ModelVersion.objects.create(
        model=model,
        number=model.versions.count() + 1,
        role=role,
        artifact=make_artifact(),
        architecture="LlamaForCausalLM",
        parameters=1000,
        dtype="bfloat16",
        context_tokens=2048,
    )


def make_prompt(project: Project, text: str = "", *, split: str = Split.TRAIN) -> Prompt:
    """A prompt on the side asked for; without a text, one whose own hash puts it there."""
    messages = [{"role": "user", "content": text or _question_on(split)}]
    return Prompt.objects.create(
        project=project,
        messages=messages,
        content_hash=content_hash(messages),
        group_hash=group_hash(messages),
        split=split,
    )


def _question_on(split: str) -> str:
    """The next question that an import would put on this side as well."""
    for number in _counter:
        text = f"Question {number}?"
        group = group_hash([{"role": "user", "content": text}])
        if split_of(group, settings.PROMPT_SPLIT_SHARES) == split:
            return text
    raise AssertionError("the counter has no end")


def make_batch(
    project: Project,
    *,
    purpose: str = CandidateBatch.Purpose.RANKING,
    version: ModelVersion | None = None,
    overlap: int | None = None,
) -> CandidateBatch:
    """A batch whose run has ended and whose candidates are in."""
    run = Run.objects.create(
        program="generate", config={}, status=Run.Status.SUCCEEDED, result={"result": {}}
    )
    return CandidateBatch.objects.create(
        project=project,
        purpose=purpose,
        version=version or make_version(),
        run=run,
        overlap=project.overlap if overlap is None else overlap,
        ingested_at=timezone.now(),
    )


def make_task(
    project: Project,
    kind: str,
    texts: tuple[str, ...] = ("Paris.", "It is Paris."),
    *,
    prompt: Prompt | None = None,
    batch: CandidateBatch | None = None,
    overlap: int | None = None,
    priority: int = 0,
) -> Task:
    """A task of a kind over new candidates with these texts, in this sampled order."""
    prompt = prompt or make_prompt(project)
    batch = batch or make_batch(project)
    wanted = project.overlap if overlap is None else overlap
    task = Task.objects.create(
        project=project,
        kind=kind,
        prompt=prompt,
        batch=batch,
        overlap=wanted,
        slots_free=wanted,
        priority=priority,
    )
    for index, text in enumerate(texts):
        candidate = Candidate.objects.create(
            prompt=prompt,
            batch=batch,
            index=index,
            text=text,
            version=batch.version,
            finish_reason="stop",
            token_count=len(text.split()),
        )
        TaskCandidate.objects.create(task=task, candidate=candidate, position=index)
    return task


def make_ranking_task(
    project: Project,
    texts: tuple[str, ...] = ("Paris.", "It is Paris.", "Lyon."),
    *,
    prompt: Prompt | None = None,
    batch: CandidateBatch | None = None,
    overlap: int | None = None,
    priority: int = 0,
) -> Task:
    """A ranking task over new candidates with these texts, in this sampled order."""
    return make_task(
        project,
        Task.Kind.RANKING,
        texts,
        prompt=prompt,
        batch=batch,
        overlap=overlap,
        priority=priority,
    )
