"""Two projects with one of everything in each: what the walkers of every URL need."""

from dataclasses import dataclass

from django.contrib.auth.models import User

from alignment.models import Campaign, Round, RoundRun, StageEvent
from alignment.recipe import Recipe, recipe_dump
from annotation.models import (
    Assignment,
    Candidate,
    Membership,
    PreferenceDataset,
    Project,
    ProjectToken,
    Prompt,
    Question,
    Submission,
    Task,
)
from annotation.services.assignments import assignment_next
from annotation.services.datasets import preference_dataset_freeze
from annotation.services.projects import guideline_publish
from annotation.services.rankings import ranking_submit
from annotation.services.tokens import project_token_create
from modelhub.models import ModelVersion, Run, Server
from tests import builders


@dataclass
class Side:
    """One project and one of each thing in it."""

    project: Project
    manager: Membership
    annotator: Membership
    prompt: Prompt
    task: Task
    candidate: Candidate
    assignment: Assignment
    submission: Submission
    question: Question
    dataset: PreferenceDataset
    campaign: Campaign
    round: Round
    version: ModelVersion
    run: Run
    trial: Run
    token: ProjectToken
    server: Server

    def uids(self) -> dict[str, str]:
        """URL parameter → the uid of this side's object."""
        return {
            "project_uid": self.project.uid,
            "membership_uid": self.annotator.uid,
            "prompt_uid": self.prompt.uid,
            "task_uid": self.task.uid,
            "candidate_uid": self.candidate.uid,
            "assignment_uid": self.assignment.uid,
            "submission_uid": self.submission.uid,
            "question_uid": self.question.uid,
            "dataset_uid": self.dataset.uid,
            "campaign_uid": self.campaign.uid,
            "round_uid": self.round.uid,
            "version_uid": self.version.uid,
            "model_uid": self.version.model.uid,
            "model_name": self.version.model.name,
            "name": self.version.model.name,
            "run_uid": self.run.uid,
            "trial_uid": self.trial.uid,
            "number": str(self.version.number),
            "sha256": self.version.artifact.sha256,
            "token_uid": self.token.uid,
            "server_uid": self.server.uid,
            "mixture_uid": "e" * 32,  # no side has a mixture
            "kind": "ranking",
            "method": "sft",
            "page": "launching",
            "image": "images/round.png",
        }


def candidate_uids(task: Task) -> list[str]:
    return list(task.task_candidates.values_list("candidate__uid", flat=True))


def make_side(name: str, annotator: str, manager: str) -> Side:
    project = builders.make_project(name)
    manager_member = builders.make_member(project, manager, Membership.Role.MANAGER)
    annotator_member = builders.make_member(project, annotator)
    guideline_publish(project=project, text="Be kind.", author=manager_member.user)
    task = builders.make_ranking_task(project)
    builders.make_ranking_task(project)
    assignment = assignment_next(membership=annotator_member)
    assert assignment is not None
    version = builders.make_version(f"{name.lower()}-policy")
    reward = builders.make_version(f"{name.lower()}-reward", role=ModelVersion.Role.REWARD)
    judged = assignment_next(membership=manager_member)
    assert judged is not None
    submission = ranking_submit(
        assignment=judged, tiers=[[uid] for uid in candidate_uids(judged.task)]
    )
    dataset = preference_dataset_freeze(project=project, created_by=manager_member.user)
    campaign = Campaign.objects.create(
        project=project,
        name=f"{name} campaign",
        base_version=version,
        policy_model=version.model,
        reward_model=reward.model,
    )
    round = Round.objects.create(
        campaign=campaign,
        number=1,
        recipe=recipe_dump(Recipe()),
        launch_key=f"{name} key",
        policy_in=version,
        state=Round.State.ANNOTATING,
        batch=task.batch,
    )
    StageEvent.objects.create(round=round, before="planned", after="sampling")
    run = Run.objects.create(
        program="generate", config={}, status=Run.Status.FAILED, error="it broke"
    )
    RoundRun.objects.create(round=round, lap=1, stage="sampling", role="candidates", run=run)
    return Side(
        project=project,
        manager=manager_member,
        annotator=annotator_member,
        prompt=task.prompt,
        task=task,
        candidate=Candidate.objects.filter(prompt=task.prompt).first(),
        assignment=assignment,
        submission=submission,
        question=Question.objects.create(assignment=assignment, text=f"{name}, why?"),
        dataset=dataset,
        campaign=campaign,
        round=round,
        version=version,
        run=run,
        trial=Run.objects.create(
            program="playground",
            config={"prompt": "Why?", "models": ["policy v1"], "strategies": [{"kind": "greedy"}]},
        ),
        token=project_token_create(project=project, name=f"{name} product")[0],
        server=Server.objects.create(
            version=version, context_tokens=64, cache_bytes=1 << 26, memory_bytes=1 << 30
        ),
    )


@dataclass
class World:
    """Project A's people, a manager of B who is outside A, and staff who are in neither."""

    a: Side
    b: Side
    people: dict[str, User | None]


def make_world() -> World:
    a = make_side("Alpha", annotator="alice", manager="dana")
    b = make_side("Beta", annotator="bella", manager="charlie")
    reviewer = builders.make_member(a.project, "bob", Membership.Role.REVIEWER)
    return World(
        a=a,
        b=b,
        people={
            "anonymous": None,
            "annotator": a.annotator.user,
            "reviewer": reviewer.user,
            "manager": a.manager.user,
            "outsider": b.manager.user,
            "staff": builders.make_user("eve", is_staff=True),
        },
    )
