"""Questions: what annotators asked, and the reviewers' answers."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy
from annotation.models import Membership
from annotation.selectors.questions import questions_of
from annotation.services.questions import MAX_QUESTION_CHARS, question_answer
from modelhub.serializers import StrictSerializer, input_read


class QuestionSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    assignment = serializers.CharField(source="assignment.uid")
    asked_by = serializers.CharField(source="assignment.annotator.user.username")
    created_at = serializers.DateTimeField()
    text = serializers.CharField()
    answer = serializers.CharField()
    answered_at = serializers.DateTimeField(allow_null=True)


class QuestionListApi(APIView):
    """A project's questions, those that wait first; for its reviewers."""

    @extend_schema(responses=QuestionSerializer(many=True))
    def get(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, Membership.Role.REVIEWER)
        return Response(QuestionSerializer(questions_of(project=project), many=True).data)


class QuestionAnswerApi(APIView):
    """Answers a question: its annotator is told, and gets the task next."""

    class InputSerializer(StrictSerializer):
        text = serializers.CharField(max_length=MAX_QUESTION_CHARS)

    @extend_schema(request=InputSerializer, responses=QuestionSerializer)
    def post(self, request: Request, question_uid: str) -> Response:
        question, reviewer = policy.question_for(request.user, question_uid)
        values = input_read(self.InputSerializer, request)
        question = question_answer(question=question, reviewer=reviewer, **values)
        return Response(QuestionSerializer(question).data)
