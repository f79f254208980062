"""A round's way from planned to its decision, with every run and ranking going through services."""

import pytest

from alignment.models import Campaign, Evaluation, Round, StageEvent
from alignment.recipe import Recipe, recipe_dump
from alignment.services import rounds
from alignment.services.rounds import (
    round_advance,
    round_annotation_close,
    round_cancel,
    round_continue,
    round_decide,
    round_retry,
    round_start,
)
from annotation.models import Candidate, CandidateBatch, Membership, Prompt, Split, Submission, Task
from annotation.services.assignments import assignment_next
from annotation.services.tasks import TasksMade
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.records import PromptRecord, RecordError, records_read
from modelhub.models import Alias, Run
from modelhub.services import runs
from modelhub.storage import artifact_folder
from tests.alignment import hands

State = Round.State
STAGES_WALKED = [
    "planned",
    "sampling",
    "annotating",
    "freezing",
    "reward",
    "improving",
    "evaluating",
    "deciding",
]


def recipe_with(**values: object) -> Recipe:
    return Recipe(**{**recipe_dump(hands.SMALL), **values})


def test_a_round_in_which_all_goes_well_is_promoted(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="promoted")
    walked = list(StageEvent.objects.filter(round=round).values_list("before", "after"))
    assert walked == list(zip(STAGES_WALKED, [*STAGES_WALKED[1:], "promoted"], strict=True))
    assert round.policy_in == campaign.base_version
    assert round.policy_out is not None and round.reward_version is not None
    assert round.policy_out.model == campaign.policy_model and round.policy_out.number == 2
    assert round.policy_out.parent == campaign.base_version
    assert round.policy_out.run is not None and round.policy_out.run.program == "sft"
    assert round.reward_version.role == "reward"
    assert round.reward_version.parent == campaign.base_version
    alias = Alias.objects.get(model=campaign.policy_model, name="champion")
    assert alias.version == round.policy_out
    assert Evaluation.objects.get(round=round).metrics["reward_difference"]["low"] == 0.1
    roles = list(round.round_runs.order_by("id").values_list("stage", "role"))
    assert roles == [
        ("sampling", "candidates"),
        ("reward", "reward"),
        ("improving", "candidates"),
        ("improving", "rejection"),
        ("improving", "sft"),
        ("evaluating", "candidates_before"),
        ("evaluating", "candidates_after"),
        ("evaluating", "evaluation"),
    ]


def test_the_next_round_starts_from_the_promoted_version_and_pools_the_earlier_bests(
    campaign: Campaign, people: list[Membership]
) -> None:
    first = hands.round_walk(hands.make_round(campaign), people, until="promoted")
    second = hands.make_round(campaign, key="another")
    assert second.policy_in == first.policy_out and second.number == 2
    hands.round_walk(second, people, until="evaluating")
    rejection = second.round_runs.get(role="rejection").run
    kept = first.round_runs.get(role="rejection").run.outputs.get(role="demonstrations")
    assert rejection.inputs.get(role="pool_1").artifact == kept.artifact
    seeds = {run.config["seed"] for run in Run.objects.filter(program="generate")}
    assert len(seeds) == 6  # one of each round and purpose; before and after share theirs
    # Rankings are cumulative: the second snapshot holds the first one's too.
    assert first.dataset is not None and second.dataset is not None
    assert second.dataset.counts["used"] == 2 * first.dataset.counts["used"]


def test_improving_takes_train_prompts_and_evaluating_held_out_ones(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="promoted")

    def splits(role: str, stage: str) -> set[str]:
        run = round.round_runs.get(role=role, stage=stage).run
        path = artifact_folder(run.inputs.get(role="prompts").artifact) / "prompts.jsonl"
        uids = [record.prompt_id for record in records_read(path, PromptRecord)]
        return set(Prompt.objects.filter(uid__in=uids).values_list("split", flat=True))

    assert splits("candidates", "sampling") == {Split.TRAIN, Split.HELD_OUT}
    assert splits("candidates", "improving") == {Split.TRAIN}
    assert splits("candidates_before", "evaluating") == {Split.HELD_OUT}
    assert splits("candidates_after", "evaluating") == {Split.HELD_OUT}


@pytest.mark.parametrize(
    ("improving", "roles"),
    [("ppo", ["ppo"]), ("rejection+ppo", ["candidates", "rejection", "sft", "ppo"])],
)
def test_a_recipe_may_improve_by_ppo_alone_or_from_where_rejection_sampling_ended(
    campaign: Campaign, people: list[Membership], improving: str, roles: list[str]
) -> None:
    recipe = recipe_with(improving=improving, ppo={"kl_coef": 0.01})
    round = hands.round_walk(hands.make_round(campaign, recipe), people, until="promoted")
    started = round.round_runs.filter(stage="improving").order_by("id")
    assert list(started.values_list("role", flat=True)) == roles
    ppo = started.get(role="ppo").run
    assert ppo.config["kl_coef"] == 0.01 and ppo.config["max_tokens"] == hands.SMALL.max_tokens
    given = {one.role: one.artifact for one in ppo.inputs.select_related("artifact")}
    assert given.keys() == {"base", "reward", "prompts"}
    assert round.reward_version is not None and given["reward"] == round.reward_version.artifact
    if improving == "ppo":
        assert given["base"] == round.policy_in.artifact
    else:
        tuned = started.get(role="sft").run
        assert given["base"] == tuned.outputs.get(role="model").artifact
    path = artifact_folder(given["prompts"]) / "prompts.jsonl"
    uids = [record.prompt_id for record in records_read(path, PromptRecord)]
    assert set(Prompt.objects.filter(uid__in=uids).values_list("split", flat=True)) == {Split.TRAIN}
    assert round.policy_out is not None and round.policy_out.run == ppo


def test_advancing_again_and_again_starts_nothing_twice(campaign: Campaign) -> None:
    round = hands.make_round(campaign)
    assert round_advance(round=round)
    for _ in range(3):
        assert not round_advance(round=round)
    assert round.state == State.SAMPLING
    assert Run.objects.filter(program="generate").count() == 1


def test_a_policy_that_is_not_better_for_certain_is_rejected_and_the_champion_stays(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="evaluating")
    round_advance(round=round)
    hands.runs_succeed(round)
    round_advance(round=round)
    (evaluation,) = hands.queued(round)
    hands.run_succeed(evaluation, reward_difference={"mean": 0.2, "low": -0.1, "high": 0.5})
    round_advance(round=round)
    assert round.state == State.REJECTED
    assert Alias.objects.get(name="champion").version == campaign.base_version
    assert "not above 0" in round.events.last().reason


def test_a_policy_beyond_the_kl_limit_is_rejected(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.make_round(campaign, recipe_with(kl_limit=2.0))
    hands.round_walk(round, people, until="rejected")
    assert "strayed 2.5 nats" in round.events.last().reason


def test_a_reward_model_without_judgement_asks_for_labels_instead_of_going_on(
    campaign: Campaign, people: list[Membership]
) -> None:
    recipe = recipe_with(reward_accuracy_floor=0.6)
    round = hands.round_walk(hands.make_round(campaign, recipe), people, until="reward")
    round_advance(round=round)
    first_dataset = round.dataset
    (training,) = hands.queued(round)
    hands.run_succeed(training, held_out={**hands.HELD_OUT, "accuracy": 0.55})
    round_advance(round=round)
    assert round.state == State.ANNOTATING and round.lap == 2
    assert round.batch is None and round.reward_version is None
    assert "55.0%" in round.events.last().reason
    # Fresh answers are written for people to rank, and a second reward model learns from all.
    hands.round_walk(round, people, until="improving")
    assert round.round_runs.filter(role="reward").count() == 2
    assert first_dataset is not None and round.dataset is not None
    assert round.dataset.counts["used"] == 2 * first_dataset.counts["used"]
    assert round.reward_version is not None
    assert round.reward_version.number == 2  # the one without judgement stays in the hub
    batches = CandidateBatch.objects.filter(purpose="ranking")
    assert len({batch.run.config["seed"] for batch in batches}) == 2


def test_rankings_in_which_all_is_tied_ask_for_labels_before_any_training(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="annotating")
    hands.tasks_rank(round, people, tied=True)
    round_advance(round=round)
    assert round.state == State.ANNOTATING and round.lap == 2
    assert "prefers one answer to another" in round.events.last().reason
    assert not Run.objects.filter(program="reward").exists()


def test_answers_that_are_all_alike_fail_the_round_with_what_to_do(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    (sampling,) = hands.queued(round)
    hands.run_succeed(sampling)
    Candidate.objects.all().delete()
    none = TasksMade(made=0, existing=0, too_few=2)
    monkeypatch.setattr("annotation.services.batches.tasks_create", lambda **_: none)
    round_advance(round=round)
    assert round.state == State.FAILED and round.failed_in == State.SAMPLING
    assert "higher temperatures" in round.error


def test_a_failed_run_fails_the_round_and_retry_takes_it_up_there(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="improving")
    round_advance(round=round)
    hands.runs_succeed(round)
    round_advance(round=round)
    (rejection,) = hands.queued(round)
    hands.run_fail(rejection, "no space left")
    round_advance(round=round)
    assert round.state == State.FAILED and round.failed_in == State.IMPROVING
    assert "no space left" in round.error
    round = round_retry(round=round, actor=None)
    assert round.state == State.IMPROVING and round.error == ""
    assert hands.queued(round) == [rejection]
    hands.round_walk(round, people, until="promoted")
    assert round.round_runs.filter(role="rejection").count() == 1


def test_a_run_cancelled_in_the_hub_fails_the_round(campaign: Campaign) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    runs.run_cancel(run=hands.queued(round)[0], actor=None)
    round_advance(round=round)
    assert round.state == State.FAILED and "was cancelled" in round.error


def test_a_failed_round_cannot_be_retried_beside_an_open_one(campaign: Campaign) -> None:
    first = hands.make_round(campaign)
    round_advance(round=first)
    hands.run_fail(hands.queued(first)[0])
    round_advance(round=first)
    second = hands.make_round(campaign, key="another")
    with pytest.raises(ConflictError, match="Round 2 is open"):
        round_retry(round=first, actor=None)
    first.refresh_from_db()
    assert first.state == State.FAILED
    round_cancel(round=second, actor=None)
    assert round_retry(round=first, actor=None).state == State.SAMPLING


def test_a_new_round_takes_peoples_time_from_the_failed_one_before_it(
    campaign: Campaign, people: list[Membership]
) -> None:
    first = hands.round_walk(hands.make_round(campaign), people, until="annotating")
    Round.objects.filter(pk=first.pk).update(state=State.FAILED, failed_in=State.ANNOTATING)
    assert assignment_next(membership=people[0]) is not None
    hands.make_round(campaign, key="another")
    assert assignment_next(membership=people[0]) is None
    assert not Task.objects.filter(closed_at=None).exists()


def test_cancelling_stops_runs_closes_tasks_and_keeps_rankings(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="annotating")
    assignment = assignment_next(membership=people[0])
    assert assignment is not None
    round = round_cancel(round=round, actor=people[0].user, reason="wrong prompts")
    assert round.state == State.CANCELLED
    assert not Task.objects.filter(closed_at=None).exists()
    event = round.events.last()
    assert event.actor == people[0].user and event.reason == "wrong prompts"
    assert round_cancel(round=round, actor=None).events.count() == round.events.count()
    with pytest.raises(ConflictError):
        round_retry(round=round, actor=None)


def test_cancelling_stops_a_queued_run(campaign: Campaign) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    round_cancel(round=round, actor=None)
    assert round.round_runs.get().run.status == Run.Status.CANCELLED


def test_tasks_of_a_batch_that_came_in_after_cancelling_are_closed(campaign: Campaign) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    (sampling,) = hands.queued(round)
    hands.run_succeed(sampling)
    round_cancel(round=round, actor=None)
    round_advance(round=round)  # the answers come in late
    round_advance(round=round)
    assert Task.objects.count() == 5
    assert not Task.objects.filter(closed_at=None).exists()


def test_annotating_is_closed_early_by_a_person_with_enough_rankings_only(
    campaign: Campaign, people: list[Membership]
) -> None:
    round = hands.round_walk(hands.make_round(campaign), people, until="annotating")
    with pytest.raises(ApplicationError, match="0 rankings were accepted"):
        round_annotation_close(round=round, actor=None)
    hands.tasks_rank(round, people[:1])
    Submission.objects.filter(pk=Submission.objects.first().pk).update(status="rejected")
    round = round_annotation_close(round=round, actor=people[0].user, reason="enough")
    assert round.state == State.FREEZING
    assert round.events.last().reason == "closed with 4 rankings: enough"
    with pytest.raises(ConflictError):
        round_annotation_close(round=round, actor=None)
    hands.round_walk(round, people, until="promoted")
    assert not Task.objects.filter(closed_at=None).exists()


def test_a_human_gate_holds_each_stage_until_somebody_lets_it_go_on(
    campaign: Campaign, people: list[Membership]
) -> None:
    gates = ("planned", "sampling", "freezing", "reward", "improving", "evaluating", "deciding")
    round = hands.make_round(campaign, recipe_with(human_gates=gates))
    for stage in STAGES_WALKED:
        assert round.state == stage
        for _ in range(4):
            round_advance(round=round)
            hands.runs_succeed(round)
        if stage == "annotating":
            hands.tasks_rank(round, people)
            round_advance(round=round)
        elif stage != "deciding":
            assert round.state == stage  # its work is done, and it waits
            round = round_continue(round=round, actor=people[0].user)
            assert round.events.last().actor == people[0].user
    with pytest.raises(ApplicationError, match="Promote or reject"):
        round_continue(round=round, actor=None)
    round = round_decide(round=round, promote=False, actor=people[0].user, reason="too terse")
    assert round.state == State.REJECTED
    assert Alias.objects.get(name="champion").version == campaign.base_version
    assert round_decide(round=round, promote=False, actor=None).state == State.REJECTED
    with pytest.raises(ConflictError):
        round_decide(round=round, promote=True, actor=None)


def test_no_gate_is_passed_before_the_work_is_done(campaign: Campaign) -> None:
    round = hands.make_round(campaign, recipe_with(human_gates=("sampling",)))
    round_advance(round=round)
    with pytest.raises(ApplicationError, match="not done its work"):
        round_continue(round=round, actor=None)
    hands.run_fail(hands.queued(round)[0])
    with pytest.raises(ApplicationError, match="failed"):
        round_continue(round=round, actor=None)


@pytest.mark.parametrize("damage", ["changed", "gone", "unreadable"])
def test_answers_that_cannot_be_taken_in_fail_the_round_once(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    round = hands.make_round(campaign)
    round_advance(round=round)
    hands.runs_succeed(round)
    run = round.round_runs.get().run
    path = artifact_folder(run.outputs.get(role="candidates").artifact) / "candidates.jsonl"
    path.parent.chmod(0o755)
    path.chmod(0o644)
    if damage == "changed":
        path.write_text(path.read_text() + "{}\n")
    elif damage == "gone":
        path.unlink()
    else:

        def refuse(*, batch: CandidateBatch) -> int:
            raise RecordError("candidates.jsonl", 3, "text", "it is no text")

        monkeypatch.setattr(rounds, "candidate_batch_ingest", refuse)
    walked = []
    for _ in range(3):
        # One look: `round_advance` would look as long as something moves.
        walked.append(rounds._step(round.pk))
    assert walked == [True, False, False]
    assert round_advance(round=round) is False
    assert round.state == State.FAILED and "candidates.jsonl" in round.error
    events = list(round.events.values_list("before", "after"))
    assert events == [("planned", "sampling"), ("sampling", "failed")]


def test_the_reward_model_is_tested_on_the_rounds_own_answers(
    campaign: Campaign, people: list[Membership]
) -> None:
    first = hands.round_walk(hands.make_round(campaign), people, until="promoted")
    second = hands.round_walk(hands.make_round(campaign, key="2"), people, until="improving")
    for round in (first, second):
        assert round.batch is not None
        run = round.round_runs.get(role="reward").run
        assert run.config["held_out_batches"] == [round.batch.uid]


def test_the_same_launch_key_gives_the_same_round(campaign: Campaign) -> None:
    first = hands.make_round(campaign, key="once")
    assert hands.make_round(campaign, key="once") == first
    round_cancel(round=first, actor=None)
    assert hands.make_round(campaign, key="once") == first
    assert campaign.rounds.count() == 1


def test_a_campaign_has_one_open_round(campaign: Campaign) -> None:
    hands.make_round(campaign)
    with pytest.raises(ConflictError, match="still planned"):
        hands.make_round(campaign, key="another")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"prompt_tags": ("poems",)}, "prompt_tags"),
        ({"minimum_rankings": 6}, "minimum_rankings"),
    ],
)
def test_a_recipe_that_does_not_fit_the_prompts_starts_nothing(
    campaign: Campaign, values: dict[str, object], field: str
) -> None:
    with pytest.raises(ApplicationError) as refused:
        round_start(campaign=campaign, recipe=recipe_with(**values), launch_key="key", actor=None)
    assert refused.value.extra["field"] == field
    assert not campaign.rounds.exists()


def test_a_round_may_make_an_adapter_which_is_sampled_and_compared_on_its_base(
    campaign: Campaign, people: list[Membership]
) -> None:
    recipe = recipe_with(
        sft={"adapter": "lora", "publish": "adapter"},
        reward={"adapter": "lora", "publish": "adapter"},
    )
    round = hands.round_walk(hands.make_round(campaign, recipe=recipe), people, until="promoted")
    adapter = round.policy_out
    assert adapter is not None and adapter.role == "adapter"
    assert adapter.parent == campaign.base_version

    def inputs(role: str) -> dict[str, str]:
        run = round.round_runs.get(role=role).run
        return dict(run.inputs.values_list("role", "artifact__sha256"))

    base = campaign.base_version.artifact.sha256
    compared, asked = inputs("evaluation"), inputs("candidates_after")
    assert (compared["after"], compared["after_base"]) == (adapter.artifact.sha256, base)
    assert compared["before"] == base and "before_base" not in compared
    assert (asked["model"], asked["model_base"]) == (adapter.artifact.sha256, base)
    judge = round.reward_version
    assert judge is not None and (judge.role, judge.artifact.kind) == ("reward", "adapter")
    for role in ("rejection", "evaluation"):
        assert (inputs(role)["reward"], inputs(role)["reward_base"]) == (
            judge.artifact.sha256,
            base,
        )
    with pytest.raises(ApplicationError, match=r"is an adapter: merge it .* point champion at"):
        hands.make_round(campaign, key="another")
