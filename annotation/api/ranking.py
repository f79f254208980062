"""Annotating: what the ranking page and other clients call."""

from typing import Any

from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy
from annotation.models import Assignment, Submission
from annotation.selectors import rank_payload
from annotation.services.assignments import (
    MAX_REASON_CHARS,
    MAX_SEQUENCE,
    assignment_next,
    assignment_renew,
    assignment_skip,
    draft_save,
)
from annotation.services.rankings import (
    MAX_ACTIVE_S,
    MAX_RATIONALE_CHARS,
    ranking_kept,
    ranking_submit,
)
from modelhub.serializers import StrictSerializer, input_read, user_of
from modelhub.services.idempotency import idempotent

MAX_TIERS = 1000
SURPLUS_NOTICE = "Enough people had judged this task when yours came. It is kept, beside theirs."
REVISION_NOTICE = (
    "You had sent another ranking of this task before. Both are kept; that one counts."
)


class AssignmentSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    state = serializers.ChoiceField(Assignment.State.choices)
    lease_until = serializers.DateTimeField()
    draft = serializers.DictField(allow_null=True)
    draft_sequence = serializers.IntegerField()


class TaskSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    kind = serializers.CharField()


class MessageSerializer(serializers.Serializer[Any]):
    role = serializers.CharField()
    html = serializers.CharField(help_text="rendered and safe")


class PromptSerializer(serializers.Serializer[Any]):
    messages = MessageSerializer(many=True)


class CandidateSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    letter = serializers.CharField(help_text="what it is called on this page")
    html = serializers.CharField(help_text="rendered and safe")
    words = serializers.IntegerField()


class GuidelineSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    html = serializers.CharField(help_text="rendered and safe")


class ProgressSerializer(serializers.Serializer[Any]):
    submitted = serializers.IntegerField()
    submitted_today = serializers.IntegerField()
    open = serializers.IntegerField(help_text="counted up to 200")


class RankSerializer(serializers.Serializer[Any]):
    """An assignment, with all that the ranking page shows of it."""

    assignment = AssignmentSerializer()
    task = TaskSerializer()
    prompt = PromptSerializer()
    candidates = CandidateSerializer(many=True, help_text="in the order to show them")
    guideline = GuidelineSerializer(allow_null=True)
    progress = ProgressSerializer()


class AssignmentNextApi(APIView):
    """The task the caller should do now."""

    @extend_schema(request=None, responses={200: RankSerializer, 204: None})
    def post(self, request: Request, project_uid: str) -> Response:
        membership = policy.membership_for(request.user, project_uid)
        assignment = assignment_next(membership=membership)
        if assignment is None:
            return Response(status=204)
        return Response(rank_payload(assignment=assignment))


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


class AssignmentSkipApi(APIView):
    """Gives a task back, and answers with the next one."""

    class InputSerializer(StrictSerializer):
        reason = serializers.CharField(max_length=MAX_REASON_CHARS)

    class OutputSerializer(serializers.Serializer[Any]):
        state = serializers.ChoiceField(Assignment.State.choices)
        next = RankSerializer(allow_null=True)

    @extend_schema(request=InputSerializer, responses=OutputSerializer)
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        values = input_read(self.InputSerializer, request)
        with transaction.atomic():
            skipped = assignment_skip(assignment=assignment, **values)
            following = assignment_next(membership=assignment.annotator)
        return Response(
            {"state": skipped.state, "next": following and rank_payload(assignment=following)}
        )


class RankingSubmitApi(APIView):
    """Stores a ranking, and answers with the next task in the same reply.

    Sent again under the same Idempotency-Key it is stored once and answered alike. What is kept of
    a reply names the next assignment; its page is built anew while the caller still holds it.
    """

    class InputSerializer(StrictSerializer):
        tiers = serializers.ListField(
            child=serializers.ListField(
                child=serializers.CharField(max_length=32), min_length=1, max_length=MAX_TIERS
            ),
            min_length=1,
            max_length=MAX_TIERS,
        )
        unacceptable = serializers.ListField(
            child=serializers.CharField(max_length=32), default=list, max_length=MAX_TIERS
        )
        rationale = serializers.CharField(
            default="", allow_blank=True, trim_whitespace=False, max_length=MAX_RATIONALE_CHARS
        )
        active_s = serializers.FloatField(default=0.0, min_value=0, max_value=MAX_ACTIVE_S)

    class OutputSerializer(serializers.Serializer[Any]):
        class SubmissionSerializer(serializers.Serializer[Any]):
            uid = serializers.CharField()
            status = serializers.ChoiceField(Submission.Status.choices)
            notice = serializers.CharField(help_text="what the annotator should know, or empty")

        submission = SubmissionSerializer()
        next = RankSerializer(allow_null=True)

    @extend_schema(
        request=InputSerializer,
        responses=OutputSerializer,
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)],
    )
    def post(self, request: Request, assignment_uid: str) -> Response:
        assignment = policy.assignment_for(request.user, assignment_uid)
        values = input_read(self.InputSerializer, request)

        def act() -> dict[str, Any]:
            submission = ranking_submit(assignment=assignment, **values)
            following = assignment_next(membership=assignment.annotator)
            return {
                "submission": {
                    "uid": submission.uid,
                    "status": submission.status,
                    "notice": _notice(submission, values),
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
        return Response({**reply, "next": _next_payload(assignment, reply["next"])})


def _notice(submission: Submission, values: dict[str, Any]) -> str:
    content = {name: values[name] for name in ("tiers", "unacceptable", "rationale")}
    if not ranking_kept(submission=submission, **content):
        return REVISION_NOTICE
    return SURPLUS_NOTICE if submission.status == Submission.Status.SURPLUS else ""


def _next_payload(assignment: Assignment, uid: str | None) -> dict[str, Any] | None:
    """The page of the assignment a reply named, unless it has been dealt with since."""
    following = (
        Assignment.objects.filter(
            uid=uid, annotator=assignment.annotator_id, state=Assignment.State.LIVE
        )
        .select_related("task__prompt", "annotator", "guideline")
        .first()
    )
    return rank_payload(assignment=following) if following else None
