"""Eight processes at one queue at once. What each saw goes into a history, which is then checked.

    python -m tests.annotation.storm REPORT.json

The database is the one of RONDO_DATABASE_URL (or SQLite in RONDO_DATA_DIR), empty before.
This process never opens a connection before it forks: connections do not survive that.
"""

import itertools
import json
import multiprocessing
import random
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import django

django.setup()

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.utils import timezone
from rest_framework.test import APIClient

from annotation.models import (
    Assignment,
    Candidate,
    CandidateBatch,
    Membership,
    Project,
    Ranking,
    Submission,
    SubmissionRevision,
    Task,
)
from annotation.services.assignments import assignment_next
from annotation.services.batches import candidate_batch_ingest
from annotation.services.prompts import prompts_import
from annotation.services.rankings import ranking_submit
from modelhub.services.idempotency import idempotent
from tests import builders
from tests.annotation import judged, naive_queue
from tests.builders import (
    make_member,
    make_project,
    make_prompt,
    make_ranking_task,
    make_user,
)

PROCESSES = 8
FORK = multiprocessing.get_context("fork")
Worker = Callable[[int, Any], list[dict[str, Any]]]
CLAIM_ROUNDS, CHURN_TASKS, CHURN_OVERLAP, CHURN_LEASE_S = 200, 60, 2, 0.15
LATE_ROUNDS, TAB_ROUNDS, KEY_ROUNDS, KEY_CALLS = 20, 10, 5, 20


def forked(work: Callable[[], Any]) -> Any:
    """Do something with the database in a process of its own; returns what it returned."""
    results = FORK.SimpleQueue()

    def child() -> None:
        # The builders count to name things; each process would begin at the same number.
        builders._counter = itertools.count(time.time_ns())
        results.put(attempt(work))

    process = FORK.Process(target=child)
    process.start()
    done, value = results.get()
    process.join()
    if not done:
        raise RuntimeError(value)
    return value


def attempt(work: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, work()
    except BaseException:
        return False, traceback.format_exc()
    finally:
        connections.close_all()


def storm(worker: Worker) -> list[dict[str, Any]]:
    """Let eight processes run `worker(number, barrier)`; returns their history together."""
    barrier, results = FORK.Barrier(PROCESSES, timeout=60), FORK.SimpleQueue()

    def child(number: int) -> None:
        done, value = attempt(lambda: worker(number, barrier))
        if not done:
            barrier.abort()
        results.put((done, value))

    processes = [FORK.Process(target=child, args=(number,)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    history, failures = [], []
    for _ in processes:
        done, value = results.get()
        (history.extend if done else failures.append)(value)
    for process in processes:
        process.join()
    if failures:
        raise RuntimeError("\n".join(failures))
    return history


def people(project: Project, kind: str) -> list[Membership]:
    return [make_member(project, f"{kind}-{number}") for number in range(PROCESSES)]


def ranked(task_id: int, order: int = 1) -> list[list[str]]:
    uids = Candidate.objects.filter(in_tasks__task=task_id).order_by("uid")
    return [[uid] for uid in uids.values_list("uid", flat=True)][::order]


# One free slot, eight at the barrier (D01)


def claim_prepare() -> None:
    users = [make_user(f"claim-{number}") for number in range(PROCESSES)]
    for number in range(CLAIM_ROUNDS):
        project = make_project(f"claim {number:03d}")
        Membership.objects.bulk_create(Membership(project=project, user=user) for user in users)
        # No candidate is needed to be handed out.
        Task.objects.create(
            project=project, kind="ranking", prompt=make_prompt(project), overlap=1, slots_free=1
        )


def claim_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    mine = list(
        Membership.objects.filter(user__username=f"claim-{number}").order_by("project__name")
    )
    history = []
    for round_number, membership in enumerate(mine):
        barrier.wait()
        got = assignment_next(membership=membership)
        history.append({"round": round_number, "got": got.pk if got else None})
    return history


def claim_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    winners = Counter(entry["round"] for entry in history if entry["got"])
    tasks = Task.objects.filter(project__name__startswith="claim ")
    return {
        "rounds": len({entry["round"] for entry in history}),
        "answers": len(history),
        "rounds_without_one_winner": sum(winners[n] != 1 for n in range(CLAIM_ROUNDS)),
        "assignments": Assignment.objects.filter(task__in=tasks).count(),
        "slots_free": sum(tasks.values_list("slots_free", flat=True)),
    }


# Overlap two, leases that run out, annotators who are late (D02); and the naive queue


def churn_prepare(kind: str) -> None:
    project = make_project(kind, overlap=CHURN_OVERLAP)
    people(project, kind)
    for _ in range(CHURN_TASKS):
        make_ranking_task(project, texts=("a", "b"))


def churn_worker(kind: str, take: Callable[..., Any], submit: Callable[..., Any]) -> Worker:
    def work(number: int, barrier: Any) -> list[dict[str, Any]]:
        settings.ASSIGNMENT_LEASE_S = CHURN_LEASE_S
        draw = random.Random(number)
        membership = Membership.objects.get(user__username=f"{kind}-{number}")
        history: list[dict[str, Any]] = []
        barrier.wait()
        deadline, idle = time.monotonic() + 20, 0
        while idle < 8 and time.monotonic() < deadline:
            assignment = take(membership=membership)
            if assignment is None:
                idle += 1
                time.sleep(CHURN_LEASE_S / 2)
                continue
            idle = 0
            # One in five thinks for longer than the lease.
            time.sleep(draw.choice([0.005, 0.01, 0.02, 0.04, 0.2]))
            submission = submit(
                assignment=assignment,
                tiers=ranked(assignment.task_id),
                rationale=f"{number} of {assignment.task_id}",
            )
            history.append(
                {"task": assignment.task_id, "user": number, "status": submission.status}
            )
        return history

    return work


def churn_check(kind: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    project = Project.objects.get(name=kind)
    accepted: dict[int, set[int]] = defaultdict(set)
    for entry in history:
        if entry["status"] == "accepted":
            accepted[entry["task"]].add(entry["user"])
    stored = set(
        Submission.objects.filter(task__project=project).values_list("rationale", flat=True)
    )
    unreconciled = 0
    for task in project.tasks.all():
        live = task.assignments.filter(state="live").count()
        kept = task.submissions.filter(status="accepted").count()
        unreconciled += task.slots_free + live + kept != task.overlap
    return {
        "acknowledged": len(history),
        "lost": sum(f"{one['user']} of {one['task']}" not in stored for one in history),
        "twice": len(history) - len({(one["task"], one["user"]) for one in history}),
        "exceeded": sum(len(users) > CHURN_OVERLAP for users in accepted.values()),
        "filled": sum(len(users) == CHURN_OVERLAP for users in accepted.values()),
        "surplus": sum(one["status"] == "surplus" for one in history),
        "unreconciled": unreconciled,
    }


# Everybody loads one task ahead of the one they do, in a random order


def ahead_prepare() -> None:
    churn_prepare("ahead")
    Project.objects.filter(name="ahead").update(queue_order=Project.Order.RANDOM)


def ahead_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    membership = Membership.objects.get(user__username=f"ahead-{number}")
    history: list[dict[str, Any]] = []
    barrier.wait()
    deadline, current = time.monotonic() + 20, assignment_next(membership=membership)
    while current is not None and time.monotonic() < deadline:
        following = assignment_next(membership=membership, after=current.uid)
        held = membership.assignments.filter(state="live").count()
        sent = ranking_submit(
            assignment=current,
            tiers=ranked(current.task_id),
            rationale=f"{number} of {current.task_id}",
        )
        history.append(
            {"task": current.task_id, "user": number, "status": sent.status, "held": held}
        )
        current = following or assignment_next(membership=membership)
    return history


def ahead_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    return churn_check("ahead", history) | {"held_at_most": max(one["held"] for one in history)}


# A lease has run out: its holder submits while another is given the task (D03)


def late_prepare() -> None:
    for pair in range(PROCESSES // 2):
        project = make_project(f"late {pair}")
        slow, _quick = make_member(project, f"slow-{pair}"), make_member(project, f"quick-{pair}")
        for _ in range(LATE_ROUNDS):
            task = make_ranking_task(project, texts=("a", "b"), overlap=1)
            Task.objects.filter(pk=task.pk).update(slots_free=0)
            Assignment.objects.create(
                task=task,
                annotator=slow,
                lease_until=timezone.now() - timedelta(seconds=1),
                shuffle_seed=1,
            )


def late_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    pair, is_slow = number // 2, number % 2 == 0
    project = Project.objects.get(name=f"late {pair}")
    slow = Membership.objects.get(user__username=f"slow-{pair}")
    quick = Membership.objects.get(user__username=f"quick-{pair}")
    held = list(Assignment.objects.filter(annotator=slow).order_by("task_id"))
    history = []
    for mine in held:
        barrier.wait()
        # The others of the project are not on offer: this round is about one task.
        if is_slow:
            sent = ranking_submit(
                assignment=mine, tiers=ranked(mine.task_id), rationale=f"slow {mine.task_id}"
            )
        else:
            got = assignment_next(membership=quick)
            if got is None:
                continue
            sent = ranking_submit(
                assignment=got, tiers=ranked(got.task_id), rationale=f"quick {got.task_id}"
            )
        history.append({"project": project.pk, "told": sent.rationale, "status": sent.status})
    return history


def late_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    tasks = Task.objects.filter(project__name__startswith="late ")
    stored = set(Submission.objects.filter(task__in=tasks).values_list("rationale", flat=True))
    slow = [entry for entry in history if entry["told"].startswith("slow")]
    return {
        "slow": len(slow),
        "quick": len(history) - len(slow),
        "surplus": sum(entry["status"] == "surplus" for entry in history),
        "discarded": sum(entry["told"] not in stored for entry in history),
        "exceeded": sum(task.submissions.filter(status="accepted").count() > 1 for task in tasks),
    }


# One person, eight tabs, eight opinions (D04)


def tabs_prepare() -> None:
    project = make_project("tabs")
    member = make_member(project, "tabs")
    for _ in range(TAB_ROUNDS):
        task = make_ranking_task(project, texts=("a", "b"))
        Task.objects.filter(pk=task.pk).update(slots_free=0)
        Assignment.objects.create(
            task=task,
            annotator=member,
            lease_until=timezone.now() + timedelta(hours=1),
            shuffle_seed=1,
        )


def tabs_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    """Over the API, where submitting asks for the next task in the same transaction.

    Half of the tabs ask for a task just before: the two ways through the locks at once.
    """
    client = APIClient(HTTP_HOST="localhost")
    client.force_authenticate(User.objects.get(username="tabs"))
    following = f"/api/v1/projects/{Project.objects.get(name='tabs').uid}/next/"
    history = []
    for mine in Assignment.objects.filter(annotator__user__username="tabs").order_by("pk"):
        tiers = ranked(mine.task_id, order=1 if number % 2 else -1)
        barrier.wait()
        if number % 2:
            assert client.post(following, {}, format="json").status_code in (200, 204)
        body = {"tiers": tiers, "rationale": f"tab {number}"}
        reply = client.post(f"/api/v1/assignments/{mine.uid}/submit/", body, format="json")
        assert reply.status_code == 200, reply.content
        history.append({"task": mine.task_id, "submission": reply.json()["submission"]["uid"]})
    return history


def tabs_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    tasks = Task.objects.filter(project__name="tabs")
    told = Counter()
    for submission in Submission.objects.filter(task__in=tasks):
        told[submission.rationale, submission.task_id] += 1
    for revision in SubmissionRevision.objects.filter(submission__task__in=tasks):
        told[revision.payload["rationale"], revision.submission.task_id] += 1
    return {
        "sent": len(history),
        "submissions": Submission.objects.filter(task__in=tasks).count(),
        "answers_that_differ": len({(one["task"], one["submission"]) for one in history})
        - tasks.count(),
        "opinions_kept": len(told),
        "kept_twice": sum(count > 1 for count in told.values()),
    }


# One Idempotency-Key, twenty requests (D05)


def keys_prepare() -> None:
    project = make_project("keys")
    member = make_member(project, "keys")
    for _ in range(KEY_ROUNDS):
        task = make_ranking_task(project, texts=("a", "b"))
        Task.objects.filter(pk=task.pk).update(slots_free=0)
        Assignment.objects.create(
            task=task,
            annotator=member,
            lease_until=timezone.now() + timedelta(hours=1),
            shuffle_seed=1,
        )


def keys_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    history = []
    for mine in Assignment.objects.filter(annotator__user__username="keys").order_by("pk"):
        tiers = ranked(mine.task_id)

        def act(mine: Assignment = mine, tiers: list[list[str]] = tiers) -> dict[str, Any]:
            sent = ranking_submit(assignment=mine, tiers=tiers)
            return {"uid": sent.uid, "by": number}

        calls = [n for n in range(KEY_CALLS) if n % PROCESSES == number]
        barrier.wait()
        for _ in calls:
            reply = idempotent(
                user=mine.annotator.user, key=f"key {mine.pk}", body={"tiers": tiers}, act=act
            )
            history.append({"task": mine.task_id, "reply": json.dumps(reply, sort_keys=True)})
    return history


def keys_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    replies = defaultdict(list)
    for entry in history:
        replies[entry["task"]].append(entry["reply"])
    rankings = Ranking.objects.filter(submission__task__project__name="keys")
    return {
        "requests": len(history),
        "requests_a_key": sorted({len(one) for one in replies.values()}),
        "keys_with_two_replies": sum(len(set(one)) > 1 for one in replies.values()),
        "rows": rankings.count(),
        "revisions": SubmissionRevision.objects.filter(
            submission__task__project__name="keys"
        ).count(),
    }


# Everybody takes the same answers and the same file in


def intake_prepare() -> None:
    project = make_project("intake")
    asked = [make_prompt(project) for _ in range(30)]
    batch = judged.request_batch(project, asked, samples=3)
    judged.run_succeeds(batch, [judged.answer(p, i) for p in asked for i in range(3)])


def intake_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    batch = CandidateBatch.objects.get(project__name="intake")
    project = batch.project
    lines = [json.dumps({"prompt": f"Shared {n}?"}).encode() for n in range(600)]
    barrier.wait()
    candidates = candidate_batch_ingest(batch=batch)
    barrier.wait()
    counts = prompts_import(project=project, lines=lines, name="same.jsonl")
    return [{"candidates": candidates, "prompts": counts.new}]


def intake_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    project = Project.objects.get(name="intake")
    return {
        "candidates_told": sorted(entry["candidates"] for entry in history),
        "candidates": Candidate.objects.filter(prompt__project=project).count(),
        "tasks": project.tasks.count(),
        "prompts_told": sorted(entry["prompts"] for entry in history),
        "prompts": project.prompts.count(),
    }


SCENARIOS: dict[str, tuple[Callable[[], None], Worker, Callable[..., dict[str, Any]]]] = {
    "claim": (claim_prepare, claim_worker, claim_check),
    "churn": (
        lambda: churn_prepare("churn"),
        churn_worker("churn", assignment_next, ranking_submit),
        lambda history: churn_check("churn", history),
    ),
    "naive": (
        lambda: churn_prepare("naive"),
        churn_worker("naive", naive_queue.assignment_next, naive_queue.ranking_submit),
        lambda history: churn_check("naive", history),
    ),
    "ahead": (ahead_prepare, ahead_worker, ahead_check),
    "late": (late_prepare, late_worker, late_check),
    "tabs": (tabs_prepare, tabs_worker, tabs_check),
    "keys": (keys_prepare, keys_worker, keys_check),
    "intake": (intake_prepare, intake_worker, intake_check),
}


def main(report: Path, names: list[str]) -> None:
    forked(lambda: call_command("migrate", verbosity=0))
    found = {}
    for name in names or SCENARIOS:
        prepare, worker, check = SCENARIOS[name]
        forked(prepare)
        started = time.monotonic()
        try:
            history = storm(worker)
        except RuntimeError as error:
            found[name] = {"error": str(error)}
            continue
        seconds = round(time.monotonic() - started, 2)
        found[name] = forked(lambda check=check, history=history: check(history))
        found[name]["seconds"] = seconds
        print(name, found[name], flush=True)
    report.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
