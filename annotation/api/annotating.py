"""Annotating: what the annotator's page and other clients call."""

import json
from collections.abc import Iterator
from typing import Any

from django.db import transaction
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import serializers
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy
from annotation.api.judgements import JUDGEMENTS
from annotation.identity import IdentityMasker
from annotation.models import Assignment, Submission
from annotation.selectors import assignment_payload, turn_payload
from annotation.selectors.qualification import qualification_notice
from annotation.services.assignments import (
    MAX_REASON_CHARS,
    MAX_SEQUENCE,
    assignment_next,
    assignment_renew,
    draft_save,
    membership_lock,
)
from annotation.services.dialogues import Delta, dialogue_answers
from annotation.services.kinds import judgement_submit
from annotation.services.qualification import qualification_settle
from annotation.services.questions import MAX_QUESTION_CHARS, question_ask
from annotation.services.reports import MAX_REPORT_CHARS, report_submit, task_skip
from annotation.services.submissions import Settled, submission_undo
from annotation.services.writings import MAX_TEXT_CHARS
from modelhub.endpoints import EndpointFailedError
from modelhub.serializers import EmptySerializer, StrictSerializer, input_read, user_of
from modelhub.services.idempotency import idempotent

SURPLUS_NOTICE = "Enough people had judged this task when yours came. It is kept, beside theirs."
REVISION_NOTICE = (
    "You had sent another judgement of this task before. Both are kept; that one counts."
)


class AssignmentSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    state = serializers.ChoiceField(Assignment.State.choices)
    lease_until = serializers.DateTimeField()
    draft = serializers.DictField(allow_null=True)
    draft_sequence = serializers.IntegerField()
    active_s = serializers.FloatField()


class TaskSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    kind = serializers.CharField()
    is_sensitive = serializers.BooleanField(help_text="cover its text until somebody asks for it")


class MessageSerializer(serializers.Serializer[Any]):
    role = serializers.CharField()
    text = serializers.CharField()
    html = serializers.CharField(help_text="rendered and safe")


class PromptSerializer(serializers.Serializer[Any]):
    messages = MessageSerializer(many=True)


class AnswerSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    text = serializers.CharField()
    html = serializers.CharField(help_text="rendered and safe")
    words = serializers.IntegerField()
    tokens = serializers.IntegerField(allow_null=True)


class CandidateSerializer(AnswerSerializer):
    letter = serializers.CharField(help_text="what it is called on this page")


class TurnSerializer(serializers.Serializer[Any]):
    user = serializers.CharField()
    candidates = AnswerSerializer(many=True, help_text="two, in the order to show them")


class GuidelineSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    html = serializers.CharField(help_text="rendered and safe")
    read = serializers.IntegerField(help_text="the newest version the caller has opened, or 0")


class ProgressSerializer(serializers.Serializer[Any]):
    submitted_today = serializers.IntegerField()
    open = serializers.IntegerField(help_text="counted up to 200")


class SentBackSerializer(serializers.Serializer[Any]):
    by = serializers.CharField(help_text="the reviewer's user name")
    reason = serializers.CharField()


class AnsweredSerializer(serializers.Serializer[Any]):
    text = serializers.CharField(help_text="what the caller asked")
    answer = serializers.CharField()


class WorkSerializer(serializers.Serializer[Any]):
    """An assignment, with all that the annotator's page shows of it."""

    assignment = AssignmentSerializer()
    task = TaskSerializer()
    form = serializers.DictField(help_text="how the project asks for this kind of task")
    prompt = PromptSerializer()
    candidates = CandidateSerializer(many=True, help_text="in the order to show them")
    answers = TurnSerializer(many=True, required=False, help_text="of a dialogue, so far")
    rated = serializers.DictField(
        child=serializers.IntegerField(),
        required=False,
        help_text="what the caller rated these answers before, by uid",
    )
    guideline = GuidelineSerializer(allow_null=True)
    progress = ProgressSerializer()
    notifications = serializers.IntegerField(help_text="not read yet")
    question = AnsweredSerializer(allow_null=True, help_text="the newest that was answered")
    sent_back = SentBackSerializer(
        allow_null=True, help_text="what a reviewer said of the judgement, until it is sent again"
    )


class AssignmentNextApi(APIView):
    """The task the caller should do now, or after the one they are doing."""

    class InputSerializer(StrictSerializer):
        after = serializers.CharField(
            default="", allow_blank=True, max_length=32, help_text="uid of an assignment"
        )

    @extend_schema(request=InputSerializer, responses={200: WorkSerializer, 204: None})
    def post(self, request: Request, project_uid: str) -> Response:
        membership = policy.membership_for(request.user, project_uid)
        values = input_read(self.InputSerializer, request)
        assignment = assignment_next(membership=membership, **values)
        if assignment is None:
            return Response(status=204)
        return Response(assignment_payload(assignment=assignment))


class DraftSaveApi(APIView):
    """Keeps an unfinished judgement. The highest sequence wins."""

    class InputSerializer(StrictSerializer):
        draft = serializers.DictField()
        sequence = serializers.IntegerField(min_value=1, max_value=MAX_SEQUENCE)

    class OutputSerializer(serializers.Serializer[Any]):
        saved = serializers.BooleanField()
        sequence = serializers.IntegerField(help_text="the newest there is")
        state = serializers.ChoiceField(Assignment.State.choices)
        lease_until = serializers.DateTimeField()
        notice = serializers.CharField()

    @extend_schema(request=InputSerializer, responses=OutputSerializer)
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        values = input_read(self.InputSerializer, request)
        receipt = draft_save(assignment=assignment, **values)
        return Response(self.OutputSerializer(receipt).data)


class AssignmentRenewApi(APIView):
    """Extends the reservation of a task."""

    class OutputSerializer(serializers.Serializer[Any]):
        state = serializers.ChoiceField(Assignment.State.choices)
        lease_until = serializers.DateTimeField()

    @extend_schema(request=None, responses=OutputSerializer)
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        assignment = assignment_renew(assignment=assignment)
        return Response(self.OutputSerializer(assignment).data)


class StateSerializer(serializers.Serializer[Any]):
    state = serializers.ChoiceField(Assignment.State.choices)
    next = WorkSerializer(allow_null=True)


class AssignmentSkipApi(APIView):
    """Gives a task back, and answers with the next one."""

    class InputSerializer(StrictSerializer):
        reason = serializers.CharField(max_length=MAX_REASON_CHARS)

    @extend_schema(request=InputSerializer, responses=StateSerializer)
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        values = input_read(self.InputSerializer, request)
        with transaction.atomic():
            standing = membership_lock(membership=assignment.annotator)
            skipped = task_skip(assignment=assignment, **values)
            following = assignment_next(membership=assignment.annotator, standing=standing)
        return Response({"state": skipped.state, "next": _payload_or_none(following)})


class QuestionAskApi(APIView):
    """Asks the reviewers about a task, which waits for them; answers with the next one."""

    class InputSerializer(StrictSerializer):
        text = serializers.CharField(max_length=MAX_QUESTION_CHARS)

    @extend_schema(request=InputSerializer, responses=StateSerializer)
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        values = input_read(self.InputSerializer, request)
        with transaction.atomic():
            standing = membership_lock(membership=assignment.annotator)
            question = question_ask(assignment=assignment, **values)
            following = assignment_next(membership=assignment.annotator, standing=standing)
        return Response({"state": question.assignment.state, "next": _payload_or_none(following)})


class ReportApi(APIView):
    """Says that something is wrong with a task, which stays with the caller."""

    class InputSerializer(StrictSerializer):
        text = serializers.CharField(max_length=MAX_REPORT_CHARS)

    class OutputSerializer(serializers.Serializer[Any]):
        uid = serializers.CharField()

    @extend_schema(request=InputSerializer, responses=OutputSerializer)
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        values = input_read(self.InputSerializer, request)
        report = report_submit(assignment=assignment, **values)
        return Response({"uid": report.uid})


class UndoApi(APIView):
    """Takes a submission back, within ten seconds of it; answers with its task."""

    @extend_schema(request=None, responses=WorkSerializer)
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        input_read(EmptySerializer, request)
        submission_undo(assignment=assignment)
        assignment.refresh_from_db()
        return Response(assignment_payload(assignment=assignment))


class SubmitApi(APIView):
    """Stores a judgement, and answers with the next task in the same reply.

    What a judgement is depends on the kind of the task. Sent again under the same Idempotency-Key
    it is stored once and answered alike. What is kept of a reply names the next assignment; its
    page is built anew while the caller still holds it.
    """

    class OutputSerializer(serializers.Serializer[Any]):
        class SubmissionSerializer(serializers.Serializer[Any]):
            uid = serializers.CharField()
            status = serializers.ChoiceField(Submission.Status.choices)
            notice = serializers.CharField(help_text="what the annotator should know, or empty")

        submission = SubmissionSerializer()
        next = WorkSerializer(allow_null=True)

    @extend_schema(
        request=PolymorphicProxySerializer(
            component_name="Judgement",
            serializers=list(JUDGEMENTS.values()),
            resource_type_field_name=None,
        ),
        responses=OutputSerializer,
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)],
    )
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        values = input_read(JUDGEMENTS[assignment.task.kind], request)
        claimed: list[Assignment] = []  # by this request, and not by the one that it repeats

        def act() -> dict[str, Any]:
            judgement = dict(values)
            told = {name: judgement.pop(name) for name in ("rationale", "active_s", "first_move_s")}
            standing = membership_lock(membership=assignment.annotator)
            settled = judgement_submit(assignment=assignment, judgement=judgement, **told)
            if assignment.task.is_qualification:
                qualification_settle(membership=assignment.annotator)
            following = assignment_next(membership=assignment.annotator, standing=standing)
            claimed[:] = [following] if following else []
            return {
                "submission": {
                    "uid": settled.submission.uid,
                    "status": settled.submission.status,
                    "notice": _notice(settled),
                },
                "next": following.uid if following else None,
            }

        key = request.headers.get("Idempotency-Key")
        if key is None:
            with transaction.atomic():
                reply = act()
        else:
            reply = idempotent(
                user=user_of(request),
                key=key,
                body={"submit": assignment.uid, **values},
                act=act,
            )
        if claimed and claimed[0].uid == reply["next"]:
            return Response({**reply, "next": assignment_payload(assignment=claimed[0])})
        return Response({**reply, "next": _next_payload(assignment, reply["next"])})


class RefusedInJson(DefaultContentNegotiation):
    """Lets a caller ask for server-sent events, and refuses in JSON all the same."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[Any, str]:
        return renderers[0], renderers[0].media_type


class AnswersApi(APIView):
    """Two live answers to what was written in a dialogue, as server-sent events.

    `delta` events are {"candidate": 0 or 1, "text"}; then one `turn` event is the turn as it was
    kept, with the uids to submit; or one `failed` event says {"message"}. Asked again for the same
    message, the turn comes at once.
    """

    content_negotiation_class = RefusedInJson

    class InputSerializer(StrictSerializer):
        user = serializers.CharField(trim_whitespace=False, max_length=MAX_TEXT_CHARS)
        turns = serializers.IntegerField(min_value=0, help_text="how many there have been")
        after = serializers.CharField(
            default=None,
            allow_null=True,
            max_length=32,
            help_text="uid of the answer chosen last; if not given, the one that the draft names",
        )

    @extend_schema(
        request=InputSerializer, responses={(200, "text/event-stream"): OpenApiTypes.STR}
    )
    def post(self, request: Request, assignment_uid: str) -> StreamingHttpResponse:
        assignment = policy.assignment_for(request.user, assignment_uid)
        values = input_read(self.InputSerializer, request)
        turn = values["turns"]
        events = dialogue_answers(
            assignment=assignment,
            user=values["user"],
            after=values["after"] or _chosen_last(assignment.draft, turn),
            turn=turn,
        )
        response = StreamingHttpResponse(_events(events), content_type="text/event-stream")
        response["Cache-Control"] = "no-store"
        response["X-Accel-Buffering"] = "no"  # nginx would hold the parts back
        return response


def _events(events: Iterator[Any]) -> Iterator[bytes]:
    maskers = IdentityMasker(), IdentityMasker()
    try:
        for event in events:
            if isinstance(event, Delta):
                if text := maskers[event.candidate].feed(event.text):
                    yield _event("delta", {"candidate": event.candidate, "text": text})
            else:
                yield _event("turn", turn_payload(event))
    except EndpointFailedError as error:
        yield _event("failed", {"message": f"No answer came: {error}."})


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _chosen_last(draft: Any, turn: int) -> str | None:
    """The answer that a draft's last turn chose, or None."""
    turns = draft.get("turns") if isinstance(draft, dict) else None
    if not isinstance(turns, list) or not 0 < turn <= len(turns):
        return None
    last = turns[turn - 1]
    chosen = last.get("chosen") if isinstance(last, dict) else None
    return chosen if isinstance(chosen, str) else None


def _notice(settled: Settled) -> str:
    if not settled.stands:
        return REVISION_NOTICE
    if learnt := qualification_notice(submission=settled.submission):
        return learnt
    return SURPLUS_NOTICE if settled.submission.status == Submission.Status.SURPLUS else ""


def _payload_or_none(assignment: Assignment | None) -> dict[str, Any] | None:
    return assignment_payload(assignment=assignment) if assignment else None


def _next_payload(assignment: Assignment, uid: str | None) -> dict[str, Any] | None:
    """The page of the assignment a reply named, unless it has been dealt with since."""
    following = (
        Assignment.objects.filter(
            uid=uid, annotator=assignment.annotator_id, state=Assignment.State.LIVE
        )
        .select_related("task__prompt", "annotator__project", "guideline")
        .first()
    )
    return _payload_or_none(following)
