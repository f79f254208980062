"""Projects whose answers really went through the hub's files, and rankings of them."""

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from annotation.models import CandidateBatch, Membership, Project, Prompt, Submission
from annotation.selectors import shown_order
from annotation.services.assignments import assignment_next
from annotation.services.batches import candidate_batch_ingest, candidate_batch_request
from annotation.services.rankings import ranking_submit
from modelhub.ml.configs import GenerateConfig
from modelhub.ml.records import CandidateRecord, records_write
from modelhub.models import Artifact, ModelVersion, Run, RunOutput
from modelhub.services.artifacts import artifact_store
from tests.builders import make_prompt, make_version


def request_batch(
    project: Project,
    prompts: Sequence[Prompt],
    *,
    samples: int = 3,
    overlap: int = 1,
    version: ModelVersion | None = None,
    priority: int = 0,
) -> CandidateBatch:
    return candidate_batch_request(
        project=project,
        version=version or make_version(),
        prompts=prompts,
        config=GenerateConfig(samples=samples, engine="transformers"),
        purpose=CandidateBatch.Purpose.RANKING,
        overlap=overlap,
        priority=priority,
    )


def answer(prompt: Prompt, index: int, text: str = "") -> CandidateRecord:
    return CandidateRecord(
        prompt_id=prompt.uid,
        index=index,
        text=text or f"Answer {index} to {prompt.messages[-1]['content']}",
        token_count=7,
        finish_reason="stop",
        mean_logprob=-1.5,
        seed=index,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_tokens=64,
        engine="transformers",
    )


def run_succeeds(batch: CandidateBatch, answers: Sequence[CandidateRecord]) -> Artifact:
    """What the sampling program and the runner leave behind."""
    with TemporaryDirectory() as folder:
        records_write(Path(folder, "candidates.jsonl"), answers)
        artifact = artifact_store(folder=Path(folder), kind=Artifact.Kind.CANDIDATES)
    RunOutput.objects.create(run=batch.run, role="candidates", artifact=artifact)
    Run.objects.filter(pk=batch.run_id).update(status=Run.Status.SUCCEEDED, result={"result": {}})
    return artifact


def make_answered_batch(
    project: Project, prompts: int = 3, *, samples: int = 3, overlap: int = 1
) -> CandidateBatch:
    """A batch asked, answered and taken in."""
    asked = [make_prompt(project) for _ in range(prompts)]
    batch = request_batch(project, asked, samples=samples, overlap=overlap)
    run_succeeds(batch, [answer(p, i) for p in asked for i in range(samples)])
    candidate_batch_ingest(batch=batch)
    batch.refresh_from_db()
    return batch


def rank_all(membership: Membership, *, seed: int = 0) -> list[Submission]:
    """The member ranks all there is, with ties now and then; the same for the same seed."""
    draw = random.Random(seed)
    made = []
    while (assignment := assignment_next(membership=membership)) is not None:
        order = sorted(shown_order(assignment=assignment))
        draw.shuffle(order)
        tiers: list[list[str]] = [[order[0]]]
        for uid in order[1:]:
            if draw.random() < 0.25:
                tiers[-1].append(uid)
            else:
                tiers.append([uid])
        made.append(ranking_submit(assignment=assignment, tiers=tiers, active_s=1.25))
    return made
