"""The round's state machine under anything that may happen to it, in any order.

Launches, twins of launches, advances, advances killed at any statement, runs that succeed, fail or
are cancelled, rankings, closing, deciding, cancelling and retrying: whatever the order, only legal
arrows are walked, no run is started twice, and every round can still be brought to an end.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from alignment.models import Round, RoundRun, StageEvent
from alignment.recipe import Recipe
from alignment.services.rounds import (
    round_advance,
    round_annotation_close,
    round_cancel,
    round_continue,
    round_decide,
    round_retry,
    round_start,
)
from annotation.models import Task
from modelhub.errors import ApplicationError, ConflictError
from modelhub.models import Alias, ModelVersion, Run
from modelhub.services import runs
from tests import builders
from tests.alignment import hands

# Written down here a second time, on purpose.
FORWARD = {
    ("planned", "sampling"),
    ("sampling", "annotating"),
    ("annotating", "freezing"),
    ("freezing", "reward"),
    ("freezing", "annotating"),
    ("reward", "improving"),
    ("reward", "annotating"),
    ("improving", "evaluating"),
    ("evaluating", "deciding"),
    ("deciding", "promoted"),
    ("deciding", "rejected"),
}
WORKING = {before for before, _ in FORWARD}
LEGAL = (
    FORWARD
    | {(state, "failed") for state in WORKING}
    | {("failed", state) for state in WORKING}
    | {(state, "cancelled") for state in WORKING | {"failed"}}
)
OPEN = WORKING


class Killed(BaseException):
    """The process is gone."""


def killed_at(statement: int) -> Callable[..., Any]:
    """A wrapper of queries that dies at one of them; what was not committed is rolled back."""
    seen = 0

    def wrapper(execute: Callable[..., Any], *query: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == statement:
            raise Killed
        return execute(*query)

    return wrapper


class RoundMachine(RuleBasedStateMachine):
    """One campaign; `self.round` is its newest round."""

    gates: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        project = builders.make_project("Machine")
        self.people = [builders.make_member(project, f"person-{i}") for i in range(2)]
        self.campaign = hands.make_campaign(project, train=2, held_out=2)
        self.keys = 0

    def teardown(self) -> None:
        try:
            self.brought_to_its_end()
        finally:
            transaction.set_rollback(True)
            self.transaction.__exit__(None, None, None)

    @initialize(
        gates=st.sets(st.sampled_from(sorted(WORKING)), max_size=2),
        until=st.sampled_from([*sorted(WORKING), "promoted"]),
    )
    def launch_first(self, gates: set[str], until: str) -> None:
        self.recipe = Recipe(
            engine="transformers",
            samples=2,
            improving_samples=1,
            evaluation_samples=1,
            minimum_rankings=2,
            human_gates=tuple(sorted(gates)),
        )
        self.round = self.start(key="0")
        self.walk(until)

    def walk(self, until: str) -> None:
        """All goes well, and nobody hesitates, until the round is there or has ended."""
        for _ in range(60):
            self.round.refresh_from_db()
            if self.round.state == until or self.round.is_ended:
                return
            moved = round_advance(round=self.round)
            moved = bool(hands.runs_succeed(self.round)) or moved
            moved = bool(hands.tasks_rank(self.round, self.people)) or moved
            self.round.refresh_from_db()
            if moved or self.round.is_ended:
                continue
            if self.round.state == "annotating":
                round_annotation_close(round=self.round, actor=None)
            elif self.round.state == "deciding":
                round_decide(round=self.round, promote=True, actor=None)
            else:
                round_continue(round=self.round, actor=None)
        raise AssertionError(f"stuck in {self.round.state}")

    def start(self, key: str) -> Round:
        return round_start(campaign=self.campaign, recipe=self.recipe, launch_key=key, actor=None)

    def attempt(self, act: Callable[[], Any]) -> Any:
        """Do it, or be refused; a refusal changes nothing."""
        before = self.everything()
        try:
            with transaction.atomic():
                return act()
        except ApplicationError:
            assert self.everything() == before
            return None
        finally:
            self.round.refresh_from_db()

    def everything(self) -> Any:
        return (
            list(Round.objects.order_by("pk").values_list("pk", "state", "lap", "failed_in")),
            StageEvent.objects.count(),
            list(Run.objects.order_by("pk").values_list("pk", "status")),
            list(Task.objects.order_by("pk").values_list("pk", "closed_at")),
        )

    # What people do

    @rule()
    def launch_again(self) -> None:
        self.keys += 1
        key = str(self.keys)
        started = self.attempt(lambda: self.start(key))
        if started is not None:
            assert self.start(key) == started  # a double click
            self.round = started

    @rule()
    def launch_twin(self) -> None:
        twin = self.start(str(self.keys)) if self.keys_used() else None
        assert twin is None or twin.launch_key == str(self.keys)

    def keys_used(self) -> bool:
        return self.campaign.rounds.filter(launch_key=str(self.keys)).exists()

    @rule(tied=st.booleans(), people=st.integers(1, 2))
    def rank(self, tied: bool, people: int) -> None:
        hands.tasks_rank(self.round, self.people[:people], tied=tied)

    @rule()
    def close(self) -> None:
        self.attempt(lambda: round_annotation_close(round=self.round, actor=None))

    @rule()
    def go_on(self) -> None:
        self.attempt(lambda: round_continue(round=self.round, actor=None))

    @rule(promote=st.booleans())
    def decide(self, promote: bool) -> None:
        self.attempt(lambda: round_decide(round=self.round, promote=promote, actor=None))

    @rule(really=st.sampled_from([True, False, False]))
    def cancel(self, really: bool) -> None:
        if really:
            self.attempt(lambda: round_cancel(round=self.round, actor=None))

    @rule()
    def retry(self) -> None:
        self.attempt(lambda: round_retry(round=self.round, actor=None))

    # What machines do

    @rule()
    def advance(self) -> None:
        round_advance(round=self.round)

    @rule(statement=st.integers(1, 60), until=st.sampled_from(sorted(WORKING)))
    def advance_killed(self, statement: int, until: str) -> None:
        self.walk(until)
        hands.runs_succeed(self.round)
        before = Run.objects.count()
        try:
            with connection.execute_wrapper(killed_at(statement)):
                round_advance(round=Round.objects.get(pk=self.round.pk))
        except Killed:
            assert Run.objects.count() - before == RoundRun.objects.count() - before
        self.round.refresh_from_db()

    @rule(until=st.sampled_from([*sorted(WORKING), "promoted"]))
    def all_goes_well_until(self, until: str) -> None:
        self.walk(until)

    @rule()
    def everything_is_tied(self) -> None:
        self.walk("annotating")
        hands.tasks_rank(self.round, self.people, tied=True)

    @rule()
    def the_reward_model_has_lost_its_judgement(self) -> None:
        self.walk("reward")
        for run in hands.queued(self.round):
            hands.run_succeed(run, held_out={**hands.HELD_OUT, "accuracy": 0.4})

    @rule()
    def the_new_policy_is_not_better(self) -> None:
        self.walk("evaluating")
        for _ in range(2):
            for run in hands.queued(self.round):
                hands.run_succeed(run, reward_difference={"mean": 0, "low": -1, "high": 1})
            round_advance(round=self.round)

    @rule(which=st.integers(0, 3))
    def run_succeeds(self, which: int) -> None:
        run = self.pick(which)
        if run is not None:
            hands.run_succeed(run)

    @rule(which=st.integers(0, 3), until=st.sampled_from(sorted(WORKING)))
    def run_fails(self, which: int, until: str) -> None:
        self.walk(until)
        run = self.pick(which)
        if run is not None:
            hands.run_fail(run)

    @rule(which=st.integers(0, 3))
    def run_cancelled_in_the_hub(self, which: int) -> None:
        run = self.pick(which)
        if run is not None:
            runs.run_cancel(run=run, actor=None)

    def pick(self, which: int) -> Run | None:
        waiting = hands.queued(self.round)
        return waiting[which % len(waiting)] if waiting else None

    # What always holds

    @invariant()
    def only_legal_arrows_are_walked_and_each_from_where_the_last_one_led(self) -> None:
        for round in Round.objects.all():
            state = "planned"
            for before, after in round.events.values_list("before", "after"):
                assert before == state
                assert (before, after) in LEGAL, f"{before} → {after}"
                state = after
            assert round.state == state

    @invariant()
    def every_run_is_recorded_once_in_its_role(self) -> None:
        assert Run.objects.count() == RoundRun.objects.count()
        roles = list(RoundRun.objects.values_list("round", "lap", "stage", "role"))
        assert len(set(roles)) == len(roles)

    @invariant()
    def one_round_is_open_at_most(self) -> None:
        assert Round.objects.filter(state__in=OPEN).count() <= 1

    @invariant()
    def no_run_waits_for_a_cancelled_round(self) -> None:
        waiting = Run.objects.filter(status=Run.Status.QUEUED)
        assert not waiting.filter(round_run__round__state="cancelled").exists()

    @invariant()
    def the_champion_is_what_was_promoted_last(self) -> None:
        promoted = StageEvent.objects.filter(after="promoted").order_by("pk").last()
        champion = Alias.objects.get(model=self.campaign.policy_model).version
        expected = promoted.round.policy_out if promoted else self.campaign.base_version
        assert champion == expected

    @invariant()
    def a_version_is_registered_once_for_its_run(self) -> None:
        made = list(ModelVersion.objects.exclude(run=None).values_list("run", flat=True))
        assert len(set(made)) == len(made)

    def brought_to_its_end(self) -> None:
        """Whatever has happened, the round can be walked to an end: nothing is stuck."""
        self.walk("promoted")
        if self.round.state == "failed":
            try:
                with transaction.atomic():
                    round_retry(round=self.round, actor=None)
            except ConflictError:  # another round is open
                return
            self.walk("promoted")
        history = list(self.round.events.values_list("after", "reason"))
        assert self.round.state in ("promoted", "rejected", "cancelled"), history
        round_advance(round=self.round)
        assert not Task.objects.filter(batch__run__round_run__round=self.round, closed_at=None)


@pytest.mark.slow
@pytest.mark.django_db
def test_whatever_happens_in_whatever_order_the_round_stays_sound() -> None:
    run_state_machine_as_test(
        RoundMachine,
        settings=settings(
            max_examples=int(os.environ.get("RONDO_MACHINE_EXAMPLES", "15")),
            stateful_step_count=25,
            phases=[Phase.generate],  # shrinking would take minutes
            deadline=None,
            derandomize=True,
            database=None,
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.django_db
def test_advances_killed_at_every_statement_come_to_the_same_round() -> None:
    project = builders.make_project("Killed")
    people = [builders.make_member(project, "person")]
    round = hands.make_round(hands.make_campaign(project, train=2, held_out=2))
    kills = 0
    for _ in range(30):
        statement = 1
        while advance_dies(round, statement):
            kills += 1
            statement += 1
        round.refresh_from_db()
        if round.is_ended:
            break
        hands.runs_succeed(round)
        hands.tasks_rank(round, people)
    assert round.state == "promoted"
    assert kills > 150
    assert Run.objects.count() == RoundRun.objects.count() == 8
    walked = list(round.events.values_list("before", "after"))
    assert len(walked) == 8 and set(walked) <= FORWARD
    assert round.dataset is not None and round.dataset.number == 1
    assert ModelVersion.objects.count() == 3


def advance_dies(round: Round, statement: int) -> bool:
    try:
        with connection.execute_wrapper(killed_at(statement)):
            round_advance(round=Round.objects.get(pk=round.pk))
    except Killed:
        return True
    return False
