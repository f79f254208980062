"""Feedback from a product in use, sent with a token of the project's."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from annotation.models import ProjectToken, Submission, Task
from annotation.services.feedback import (
    MAX_ANSWER_CHARS,
    MAX_ANSWERS,
    MAX_COMMENT_CHARS,
    MAX_MODEL_CHARS,
    ShownAnswer,
    feedback_record,
)
from annotation.services.prompts import MAX_CONTENT_CHARS, MAX_MESSAGES
from annotation.services.tokens import project_token_use
from modelhub.serializers import StrictSerializer, input_read
from modelhub.services.idempotency import idempotent


class ProjectTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`. Cookies count for nothing, so neither do forged requests."""

    def authenticate(self, request: Request) -> tuple[Any, ProjectToken] | None:
        scheme, _, secret = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        token = project_token_use(secret=secret.strip().decode("ascii", "replace"))
        if token is None:
            raise AuthenticationFailed("There is no such token, or it was revoked.")
        return token.membership.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class ProjectTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """What the API's schema says of it."""

    target_class = ProjectTokenAuthentication
    name = "projectToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}


class ProjectTokenThrottle(SimpleRateThrottle):
    """So many requests a minute for each token and web process."""

    scope = "feedback"

    def get_cache_key(self, request: Request, view: APIView) -> str | None:
        if not isinstance(request.auth, ProjectToken):
            return None
        return self.cache_format % {"scope": self.scope, "ident": request.auth.pk}


class FeedbackApi(APIView):
    """What a user of a product thought of the answers they were shown.

    Give `prompt` or `messages`; the answers in the order shown; and either `chosen`, the place from
    0 of the one preferred, or a vote with some of the answers. Sent again under the same
    Idempotency-Key it is stored once and answered alike.
    """

    authentication_classes = [ProjectTokenAuthentication]
    permission_classes = [IsAuthenticated]
    throttle_classes = [ProjectTokenThrottle]

    class InputSerializer(StrictSerializer):
        class MessageSerializer(StrictSerializer):
            role = serializers.ChoiceField(["system", "user", "assistant"])
            content = serializers.CharField(trim_whitespace=False, max_length=MAX_CONTENT_CHARS)

        class ShownAnswerSerializer(StrictSerializer):
            text = serializers.CharField(
                allow_blank=True, trim_whitespace=False, max_length=MAX_ANSWER_CHARS
            )
            version = serializers.CharField(
                default=None, allow_null=True, max_length=32, help_text="uid of a model version"
            )
            model = serializers.CharField(
                default="",
                allow_blank=True,
                max_length=MAX_MODEL_CHARS,
                help_text="what the product calls the model",
            )
            vote = serializers.ChoiceField(["up", "down"], default=None, allow_null=True)

        prompt = serializers.CharField(
            default=None, allow_null=True, trim_whitespace=False, max_length=MAX_CONTENT_CHARS
        )
        messages = MessageSerializer(many=True, default=None, allow_null=True)
        answers = serializers.ListField(
            child=ShownAnswerSerializer(), min_length=1, max_length=MAX_ANSWERS
        )
        chosen = serializers.IntegerField(
            default=None, allow_null=True, min_value=0, max_value=MAX_ANSWERS - 1
        )
        comment = serializers.CharField(
            default="", allow_blank=True, trim_whitespace=False, max_length=MAX_COMMENT_CHARS
        )

        def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
            if (attrs["prompt"] is None) == (attrs["messages"] is None):
                raise serializers.ValidationError(
                    {"messages": ["Wanted one of prompt and messages."]}
                )
            if len(attrs["messages"] or []) > MAX_MESSAGES:
                raise serializers.ValidationError(
                    {"messages": [f"At most {MAX_MESSAGES} messages."]}
                )
            return attrs

    class OutputSerializer(serializers.Serializer[Any]):
        submission = serializers.CharField(help_text="uid")
        kind = serializers.ChoiceField(Task.Kind.choices)
        status = serializers.ChoiceField(Submission.Status.choices)

    @extend_schema(
        request=InputSerializer,
        responses={201: OutputSerializer},
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)],
    )
    def post(self, request: Request) -> Response:
        token = request.auth
        if not isinstance(token, ProjectToken):
            raise AuthenticationFailed("Feedback wants a token of the project.")
        values = input_read(self.InputSerializer, request)

        def act() -> dict[str, str]:
            submission = feedback_record(
                token=token,
                messages=values["messages"] or [{"role": "user", "content": values["prompt"]}],
                answers=[
                    ShownAnswer(
                        text=answer["text"],
                        version_uid=answer["version"],
                        model=answer["model"],
                        vote=answer["vote"],
                    )
                    for answer in values["answers"]
                ],
                chosen=values["chosen"],
                comment=values["comment"],
            )
            return {
                "submission": submission.uid,
                "kind": submission.task.kind,
                "status": submission.status,
            }

        key = request.headers.get("Idempotency-Key")
        if key is None:
            return Response(act(), status=201)
        reply = idempotent(user=token.membership.user, key=key, body={"feedback": values}, act=act)
        return Response(reply, status=201)
