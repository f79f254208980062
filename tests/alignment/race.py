"""Eight processes at the same rounds at once: launching them twice, and walking them together.

    python -m tests.alignment.race REPORT.json

The database is the one of RONDO_DATABASE_URL (or SQLite in RONDO_DATA_DIR), empty before.
"""

import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.annotation.storm import forked, storm  # sets Django up, opens no connection

# isort: split
from django.core.management import call_command
from django.db import IntegrityError, connection

from alignment.models import Campaign, Round, RoundRun, StageEvent
from alignment.services import rounds as services
from alignment.services.campaigns import campaign_create
from alignment.services.rounds import round_advance, round_decide, round_start
from annotation.models import Membership, Project, Split
from modelhub.errors import ConflictError
from modelhub.models import ModelVersion, Run
from tests import builders
from tests.alignment import hands

LAUNCHES = 20
WALKS = 3


def campaigns_prepare() -> None:
    """One project and base; a campaign, with an alias of its own, for each launch and walk."""
    project = builders.make_project("Race")
    builders.make_member(project, "ranker", Membership.Role.MANAGER)
    for split, count in ((Split.TRAIN, 3), (Split.HELD_OUT, 2)):
        for _ in range(count):
            builders.make_prompt(project, split=split)
    base = hands.make_base()
    for kind, count in (("same", LAUNCHES), ("other", LAUNCHES), ("walk", WALKS)):
        for number in range(count):
            campaign_create(
                project=project,
                name=f"{kind} {number:02d}",
                base_version=base,
                champion_alias=f"{kind}-{number}",
            )


def campaigns(kind: str) -> list[Campaign]:
    return list(Campaign.objects.filter(name__startswith=f"{kind} ").order_by("name"))


def launch_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    """A double click by eight hands, then eight managers with a form each."""
    history = []
    for kind in ("same", "other"):
        for campaign in campaigns(kind):
            key = "form" if kind == "same" else f"form of {number}"
            barrier.wait()
            try:
                uid = hands.make_round(campaign, key=key).uid
            except ConflictError:
                uid = ""
            history.append({"kind": kind, "campaign": campaign.name, "round": uid})
    return history


def launch_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for entry in history:
        answers[entry["kind"], entry["campaign"]][entry["round"]] += 1
    same = [counted for (kind, _), counted in answers.items() if kind == "same"]
    other = [counted for (kind, _), counted in answers.items() if kind == "other"]
    return {
        "answers": len(history),
        "rounds": Round.objects.count(),
        "same_form_given_one_round": sum(len(c) == 1 and "" not in c for c in same),
        "one_manager_of_eight_won": sum(len(c) == 2 and c[""] == 7 for c in other),
    }


def walk_prepare() -> None:
    for campaign in campaigns("walk"):
        round_start(campaign=campaign, recipe=hands.SMALL, launch_key="walk", actor=None)


def walk_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    """All advance the same rounds at once; between, one does the runs and the rankings."""
    rounds = list(Round.objects.filter(campaign__name__startswith="walk "))
    ranker = Membership.objects.get(user__username="ranker")
    for _ in range(12):
        barrier.wait()
        for round in rounds:
            round_advance(round=round)
        barrier.wait()
        if number == 0:
            for round in rounds:
                hands.runs_succeed(round)
                hands.tasks_rank(round, [ranker])
    return [{"walker": number}]


def walk_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    rounds = Round.objects.filter(campaign__name__startswith="walk ")
    events = StageEvent.objects.filter(round__in=rounds)
    return {
        "walkers": len(history),
        "promoted": rounds.filter(state="promoted").count(),
        "arrows": events.count(),
        "different_arrows": events.values("round", "before", "after").distinct().count(),
        "runs": Run.objects.filter(round_run__round__in=rounds).count(),
        "runs_of_no_round": Run.objects.filter(round_run=None).count(),
        "roles": RoundRun.objects.filter(round__in=rounds).count(),
        "versions_made": ModelVersion.objects.exclude(run=None).count(),
    }


def decide_prepare() -> None:
    project = Project.objects.get()
    Round.objects.filter(campaign__name__startswith="same ").update(state="cancelled")
    for campaign in campaigns("same"):
        version = builders.make_version(campaign.policy_model.name)
        Round.objects.create(
            campaign=campaign,
            number=2,
            state="deciding",
            recipe={},
            launch_key="decide",
            policy_in=campaign.base_version,
            policy_out=version,
        )
    assert project.campaigns.exists()


def decide_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    """Four promote while four reject."""
    history = []
    for round in Round.objects.filter(state="deciding").order_by("pk"):
        barrier.wait()
        try:
            round_decide(round=round, promote=number % 2 == 0, actor=None)
            history.append({"round": round.uid, "promote": number % 2 == 0})
        except ConflictError:
            history.append({"round": round.uid, "promote": None})
    return history


def decide_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    heard: dict[str, set[Any]] = defaultdict(set)
    for entry in history:
        heard[entry["round"]].add(entry["promote"])
    rounds = Round.objects.filter(uid__in=heard)
    champions = sum(
        round.campaign.policy_model.aliases.get(name=round.campaign.champion_alias).version
        == (round.policy_out if round.state == "promoted" else round.policy_in)
        for round in rounds
    )
    return {
        "rounds": rounds.count(),
        "told_both": sum({True, False} <= said for said in heard.values()),
        "events": StageEvent.objects.filter(round__in=rounds).count(),
        "champions_right": champions,
    }


# The guard's mutant: no row is held, and an arrow asks for nothing


def naive_prepare() -> None:
    Round.objects.exclude(state__in=Round.ENDED).update(state="cancelled")
    for campaign in campaigns("walk"):
        round_start(campaign=campaign, recipe=hands.SMALL, launch_key="naive", actor=None)


def naive_worker(number: int, barrier: Any) -> list[dict[str, Any]]:
    def unlocked(round_id: int) -> Round:
        return Round.objects.select_related("campaign__project", "policy_in").get(pk=round_id)

    def walk(round: Round, *, to: str, **changes: Any) -> bool:
        given = {name: changes.pop(name, default) for name, default in _SAID}
        StageEvent.objects.create(round=round, before=round.state, after=to, **given)
        Round.objects.filter(pk=round.pk).update(state=to, **changes)
        return True

    services._locked, services._walk = unlocked, walk
    refused = 0
    for round in Round.objects.filter(launch_key="naive"):
        barrier.wait()
        try:
            round_advance(round=round)
        except IntegrityError:
            refused += 1
    return [{"refused": refused}]


def naive_check(history: list[dict[str, Any]]) -> dict[str, Any]:
    events = StageEvent.objects.filter(round__launch_key="naive")
    return {
        "refused_by_the_database": sum(entry["refused"] for entry in history),
        "arrows_walked_twice": events.count()
        - events.values("round", "before", "after").distinct().count(),
    }


_SAID = (("actor", None), ("reason", ""))
SCENARIOS = {
    "launch": (campaigns_prepare, launch_worker, launch_check),
    "walk": (walk_prepare, walk_worker, walk_check),
    "decide": (decide_prepare, decide_worker, decide_check),
    "naive": (naive_prepare, naive_worker, naive_check),
}


def main(report: Path) -> None:
    forked(lambda: call_command("migrate", verbosity=0))
    found: dict[str, Any] = {"database": connection.vendor}
    for name, (prepare, worker, check) in SCENARIOS.items():
        forked(prepare)
        started = time.monotonic()
        history = storm(worker)
        seconds = round(time.monotonic() - started, 2)
        found[name] = forked(lambda check=check, history=history: check(history))
        found[name]["seconds"] = seconds
        print(name, found[name], flush=True)
    report.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
