"""Reviews of submissions, and decisions of tasks on which people disagreed; for reviewers."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy
from annotation.models import Review
from annotation.services.adjudications import adjudication_submit
from annotation.services.reviews import MAX_REASON_CHARS, review_submit
from modelhub.serializers import StrictSerializer, input_read


class ReviewSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    reviewer = serializers.CharField(source="reviewer.uid")
    verdict = serializers.ChoiceField(Review.Verdict.choices)
    reason = serializers.CharField()
    created_at = serializers.DateTimeField()


class ReviewListApi(APIView):
    """The reviews of a submission, the newest first; a POST adds one. Never of one's own work."""

    class InputSerializer(StrictSerializer):
        verdict = serializers.ChoiceField(Review.Verdict.choices)
        reason = serializers.CharField(default="", allow_blank=True, max_length=MAX_REASON_CHARS)

    class OutputSerializer(serializers.Serializer[Any]):
        review = ReviewSerializer()
        status = serializers.CharField(help_text="what the submission is now")

    @extend_schema(responses=ReviewSerializer(many=True))
    def get(self, request: Request, project_uid: str, submission_uid: str) -> Response:
        submission = policy.submission_for(request.user, project_uid, submission_uid)
        reviews = submission.reviews.select_related("reviewer")
        return Response(ReviewSerializer(reviews, many=True).data)

    @extend_schema(request=InputSerializer, responses={201: OutputSerializer})
    def post(self, request: Request, project_uid: str, submission_uid: str) -> Response:
        submission = policy.submission_for(request.user, project_uid, submission_uid)
        reviewer = policy.reviewer_for(request.user, project_uid)
        values = input_read(self.InputSerializer, request)
        review = review_submit(submission=submission, reviewer=reviewer, **values)
        reply = {"review": review, "status": submission.status}
        return Response(self.OutputSerializer(reply).data, status=201)


class AdjudicationApi(APIView):
    """Says which submission of a task stands."""

    class InputSerializer(StrictSerializer):
        submission = serializers.CharField(max_length=64)
        reason = serializers.CharField(default="", allow_blank=True, max_length=MAX_REASON_CHARS)

    class OutputSerializer(serializers.Serializer[Any]):
        uid = serializers.CharField()
        task = serializers.CharField(source="task.uid")
        submission = serializers.CharField(source="submission.uid")
        reviewer = serializers.CharField(source="reviewer.uid")
        reason = serializers.CharField()

    @extend_schema(request=InputSerializer, responses=OutputSerializer)
    def post(self, request: Request, project_uid: str, task_uid: str) -> Response:
        task = policy.task_for(request.user, project_uid, task_uid)
        reviewer = policy.reviewer_for(request.user, project_uid)
        values = input_read(self.InputSerializer, request)
        adjudication = adjudication_submit(
            task=task,
            reviewer=reviewer,
            submission=get_object_or_404(task.submissions, uid=values["submission"]),
            reason=values["reason"],
        )
        return Response(self.OutputSerializer(adjudication).data)
