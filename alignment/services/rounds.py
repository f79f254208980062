"""Rounds: the arrows between their states.

planned → sampling → annotating → freezing → reward → improving → evaluating → deciding → promoted |
rejected; freezing or reward → annotating when more labels are needed (nothing to learn from, or a
reward model that has lost its judgement); failed from every stage, and back by retry; cancelled
from anywhere. Each arrow is one conditional update, so of any number
of simultaneous walkers one walks it, and each is recorded with who, when and why.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils.translation import gettext, ngettext

from alignment.models import Campaign, Round, RoundRun, StageEvent
from alignment.recipe import Recipe, recipe_dump
from alignment.selectors.rounds import (
    campaign_policy,
    round_annotation_progress,
    round_batches_to_ingest,
    round_open,
    round_ranking_batches,
)
from alignment.services.campaigns import POLICY_ROLES
from alignment.services.planning import prompts_check, session_end_check
from alignment.services.stages import STAGE_WORK, Arrow, Frozen, Stage, StageError, rankings_freeze
from annotation.models import Task
from annotation.services.batches import batch_tasks_close, candidate_batch_ingest
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.configs import RefusedError
from modelhub.models import ModelVersion, Run
from modelhub.services.runs import run_cancel, run_retry
from modelhub.services.versions import alias_move

State = Round.State
_LAUNCH_KEY_CHARS = 64
# From these nothing leads on.
_FINAL = (State.PROMOTED, State.REJECTED, State.CANCELLED)
# What reading a round's files or its stage's rows may find, as a reason to show a person.
_REFUSALS = (ApplicationError, StageError, RefusedError, OSError)


@transaction.atomic
def round_start(
    *, campaign: Campaign, recipe: Recipe, launch_key: str, actor: User | None
) -> Round:
    """Plan the campaign's next round, from its champion.

    The same `launch_key` (a form carries one) gives the same round, however often it is sent.
    Raises ConflictError while another round is open, ApplicationError if the recipe does not fit
    the project's prompts or the policy.
    """
    if not 1 <= len(launch_key) <= _LAUNCH_KEY_CHARS or not launch_key.isprintable():
        raise ApplicationError(
            gettext("A launch key has 1 to 64 characters."), {"field": "launch_key"}
        )
    # Held until the end: of two who start a round at once, one waits for the other.
    campaign = Campaign.objects.select_for_update().get(pk=campaign.pk)
    started = campaign.rounds.filter(launch_key=launch_key).first()
    if started is not None:
        return started
    open_round = round_open(campaign=campaign)
    if open_round is not None:
        raise ConflictError(
            gettext("Round %(number)s is still %(state)s. A campaign has one open round at a time.")
            % {"number": open_round.number, "state": open_round.get_state_display()},
            {"round": open_round.uid},
        )
    policy_in = campaign_policy(campaign=campaign)
    if policy_in.role == ModelVersion.Role.ADAPTER:
        # A reward model starts from the policy, and has no base of its own beside it.
        raise ApplicationError(
            gettext(
                "The champion, %(policy_in)s, is an adapter: merge it (program merge_adapter), and"
                " point %(alias)s at the merged version."
            )
            % {"policy_in": policy_in, "alias": campaign.champion_alias}
        )
    if policy_in.role not in POLICY_ROLES:
        raise ApplicationError(
            gettext("The champion, %(policy_in)s, is a %(role)s model, not a policy.")
            % {"policy_in": policy_in, "role": policy_in.role}
        )
    prompts_check(campaign=campaign, recipe=recipe)
    session_end_check(policy_in=policy_in, recipe=recipe)
    for failed in campaign.rounds.filter(state=State.FAILED):
        _tasks_close(failed)  # it is given up: people's time goes to the new round
    newest = campaign.rounds.order_by("-number").first()
    return Round.objects.create(
        campaign=campaign,
        number=newest.number + 1 if newest else 1,
        recipe=recipe_dump(recipe),
        launch_key=launch_key,
        policy_in=policy_in,
        started_by=actor,
    )


def round_advance(*, round: Round) -> bool:
    """Walk the round as far as its ended runs and finished tasks let it. Returns whether it moved.

    Anyone may call it at any time, any number at once. A run that has failed, and anything a
    person can answer, fails the round with the reason.
    """
    moved = False
    while _step(round.pk):
        moved = True
    round.refresh_from_db()
    return moved


def _step(round_id: int) -> bool:
    """One look at the round, and at most one arrow. Returns whether anything was written."""
    seen = Round.objects.get(pk=round_id)
    try:
        files = _files_read(seen)
        with transaction.atomic():
            round = _locked(round_id)
            seen.state, seen.lap = round.state, round.lap
            if round.is_ended:
                return _leftovers_close(round)
            stage = Stage(round, files.frozen)
            arrow = STAGE_WORK[round.state](stage)
            if arrow is None or round.state in stage.recipe.human_gates:
                return stage.changed
            return _follow(round, arrow, actor=None)
    except _REFUSALS as error:
        if seen.is_ended:  # its files may stay unreadable: that is said once
            return False
        with transaction.atomic():
            return _walk(
                seen,
                to=State.FAILED,
                reason=str(error),
                failed_in=seen.state,
                error=str(error),
            )


@dataclass(frozen=True, kw_only=True)
class Files:
    """A round whose answers are taken in, with its snapshot where it is being frozen."""

    frozen: Frozen | None


def round_files_read(*, round: Round) -> Files:
    """What must not happen while a row is held: answers come in, rankings are frozen.

    Doing it again changes nothing. Raises ApplicationError if the files are not what they were.
    """
    try:
        return _files_read(round)
    except ApplicationError:
        raise
    except _REFUSALS as error:
        raise ApplicationError(str(error)) from error


def _files_read(round: Round) -> Files:
    for batch in round_batches_to_ingest(round=round):
        candidate_batch_ingest(batch=batch)
    is_freezing = round.state == State.FREEZING
    return Files(frozen=rankings_freeze(round=round) if is_freezing else None)


def round_continue(
    *,
    round: Round,
    actor: User | None,
    reason: str = "",
    files: Files | None = None,
) -> Round:
    """Let a round whose stage has done its work through the human gate it waits at.

    `files`: what `round_files_read` gave to a caller who is in a transaction by now.
    Raises ApplicationError if there is no such gate, or something is still to be done.
    """
    try:
        if files is None:
            files = round_files_read(round=Round.objects.get(pk=round.pk))
        with transaction.atomic():
            round = _locked(round.pk)
            if round.state == State.DECIDING:
                raise ApplicationError(
                    gettext("Promote or reject: the round waits for a decision.")
                )
            if round.is_ended or round.state not in round.recipe["human_gates"]:
                raise ConflictError(
                    gettext("The round does not wait for anybody."), {"state": round.state}
                )
            stage = Stage(round, files.frozen)
            arrow = STAGE_WORK[round.state](stage)
            if arrow is None:
                raise ApplicationError(gettext("The stage has not done its work yet."))
            _follow(round, arrow, actor=actor, reason=reason)
            return round
    except StageError as error:
        raise ApplicationError(str(error)) from error


@transaction.atomic
def round_annotation_close(*, round: Round, actor: User | None, reason: str = "") -> Round:
    """End annotating, finished or not: what was submitted is frozen, no more tasks are given out.

    Raises ConflictError if the round is not being annotated, ApplicationError while it has fewer
    rankings than its recipe asks for.
    """
    round = _locked(round.pk)
    if round.state != State.ANNOTATING:
        raise ConflictError(
            gettext("The round is %(state)s, not annotating.")
            % {"state": round.get_state_display()},
            {"state": round.state},
        )
    accepted = round_annotation_progress(round=round).accepted
    minimum = round.recipe["minimum_rankings"]
    if round.batch_id is None:
        raise ApplicationError(gettext("New candidates are still being written for this round."))
    if accepted < minimum:
        raise ApplicationError(
            ngettext(
                "%(accepted)s ranking was accepted; the recipe asks for at least %(minimum)s.",
                "%(accepted)s rankings were accepted; the recipe asks for at least %(minimum)s.",
                accepted,
            )
            % {"accepted": accepted, "minimum": minimum},
            {"accepted": accepted, "minimum": minimum},
        )
    _follow(
        round,
        Arrow(to=State.FREEZING, reason=f"closed with {accepted} rankings"),
        actor=actor,
        reason=reason,
    )
    return round


@transaction.atomic
def round_decide(*, round: Round, promote: bool, actor: User | None, reason: str = "") -> Round:
    """Promote the new policy, moving the champion alias to it, or reject it.

    Deciding again the same way changes nothing. Raises ConflictError if the round is elsewhere.
    """
    round = _locked(round.pk)
    to = State.PROMOTED if promote else State.REJECTED
    if round.state == to:
        return round
    if round.state != State.DECIDING:
        raise ConflictError(
            gettext("The round is %(state)s, not deciding.") % {"state": round.get_state_display()},
            {"state": round.state},
        )
    _follow(round, Arrow(to=to), actor=actor, reason=reason)
    return round


@transaction.atomic
def round_cancel(*, round: Round, actor: User | None, reason: str = "") -> Round:
    """Give a round up: its live runs are cancelled and its tasks no longer handed out.

    Cancelling twice is one cancellation. Raises ConflictError once it is promoted or rejected.
    """
    round = _locked(round.pk)
    if round.state == State.CANCELLED:
        return round
    if round.state in _FINAL:
        raise ConflictError(
            gettext("The round is %(state)s already.") % {"state": round.state},
            {"state": round.state},
        )
    for run in Run.objects.filter(round_run__round=round).exclude(status__in=Run.ENDED):
        # It may have ended since it was read: then there is nothing to stop.
        with suppress(ConflictError):
            run_cancel(run=run, actor=actor)
    _leftovers_close(round)
    _walk(round, to=State.CANCELLED, actor=actor, reason=reason)
    return round


@transaction.atomic
def round_retry(*, round: Round, actor: User | None) -> Round:
    """Take a failed round up in the stage it failed in, its failed runs queued again.

    Raises ConflictError if it has not failed, or another round of the campaign is open.
    """
    round = _locked(round.pk)
    if round.state != State.FAILED:
        raise ConflictError(
            gettext("The round is %(state)s, not failed.") % {"state": round.get_state_display()},
            {"state": round.state},
        )
    open_round = round_open(campaign=round.campaign)
    if open_round is not None:
        raise ConflictError(
            gettext("Round %(number)s is open. A campaign has one open round at a time.")
            % {"number": open_round.number},
            {"round": open_round.uid},
        )
    ended_badly = RoundRun.objects.filter(
        round=round,
        lap=round.lap,
        stage=round.failed_in,
        run__status__in=(Run.Status.FAILED, Run.Status.CANCELLED),
    )
    for record in ended_badly.select_related("run"):
        run_retry(run=record.run, actor=actor)
    try:
        with transaction.atomic():
            _walk(
                round,
                to=State(round.failed_in),
                actor=actor,
                reason="retried",
                failed_in="",
                error="",
            )
    except IntegrityError as error:  # a round was started in the meantime
        raise ConflictError(gettext("Another round of the campaign is open.")) from error
    return round


def round_run_cancel(*, link: RoundRun, actor: User | None) -> Round:
    """Stop one run of a round. The round then fails in its stage, and can be retried there.

    Raises ConflictError if the run has succeeded or failed.
    """
    run_cancel(run=link.run, actor=actor)
    return link.round


@transaction.atomic
def round_run_retry(*, link: RoundRun, actor: User | None) -> Round:
    """Queue a failed or cancelled run again; a round that failed by it goes on in its stage.

    Raises ConflictError for a run of another stage or lap than the one the round stands in, and as
    `round_retry` does.
    """
    round = _locked(link.round_id)
    if (link.lap, link.stage) != (round.lap, round.failed_in or round.state):
        raise ConflictError(gettext("The round has gone on from the stage of this run."))
    if round.state == State.FAILED:
        return round_retry(round=round, actor=actor)
    run_retry(run=link.run, actor=actor)
    return round


def _locked(round_id: int) -> Round:
    """The row, held to the end of the transaction, with what it points to.

    Two statements: PostgreSQL gives one that waited for the lock the row's new values beside the
    rows that its old values had joined.
    """
    Round.objects.select_for_update().get(pk=round_id)
    return Round.objects.select_related(
        "campaign__project",
        "campaign__policy_model",
        "campaign__reward_model",
        "policy_in__artifact",
        "policy_out__artifact",
        "reward_version__artifact",
        "dataset__artifact",
        "started_by",
    ).get(pk=round_id)


def _follow(round: Round, arrow: Arrow, *, actor: User | None, reason: str = "") -> bool:
    """Walk an arrow with what belongs to it: the next lap, or the champion's move."""
    changes: dict[str, Any] = {}
    if arrow.to == State.ANNOTATING and round.state in (State.FREEZING, State.REWARD):
        # Of the lap that is over its runs, and through them its versions, stay recorded.
        changes = {"lap": round.lap + 1, "batch": None, "dataset": None, "reward_version": None}
    why = ": ".join(part for part in (arrow.reason, reason) if part)
    if not _walk(round, to=arrow.to, actor=actor, reason=why, **changes):
        return False
    if arrow.to == State.PROMOTED:
        assert round.policy_out is not None  # noqa: S101 - improving is walked before
        alias_move(
            model=round.campaign.policy_model,
            name=round.campaign.champion_alias,
            version=round.policy_out,
            actor=actor,
            reason=f"{round} promoted it" + (f": {why}" if why else ""),
        )
    return True


def _walk(
    round: Round, *, to: Round.State, actor: User | None = None, reason: str = "", **changes: Any
) -> bool:
    """The conditional update every arrow is. False: somebody else has walked the round on."""
    before = round.state
    walked = (
        Round.objects.filter(pk=round.pk, state=before, lap=round.lap)
        .exclude(state__in=(*_FINAL, to))
        .update(state=to, **changes)
    )
    if not walked:
        return False
    StageEvent.objects.create(round=round, before=before, after=to, actor=actor, reason=reason)
    for name, value in {"state": to, **changes}.items():
        setattr(round, name, value)
    return True


def _leftovers_close(round: Round) -> bool:
    """Hand out no more tasks of a round that has ended; a failed one may yet be retried."""
    if round.state == State.FAILED:
        return False
    return _tasks_close(round)


def _tasks_close(round: Round) -> bool:
    """Hand out no more tasks of the round. Returns whether any was open."""
    closed = False
    for batch in round_ranking_batches(round=round):
        if Task.objects.filter(batch=batch, closed_at__isnull=True).exists():
            batch_tasks_close(batch=batch)
            closed = True
    return closed
