"""What a text will look like: the same rendering that every reader sees."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy
from modelhub.rendering import MAX_MARKDOWN_CHARS, markdown_render
from modelhub.serializers import StrictSerializer, input_read

MAX_PREVIEW_CHARS = 5 * MAX_MARKDOWN_CHARS


class PreviewApi(APIView):
    """Renders a Markdown text, stores nothing."""

    class InputSerializer(StrictSerializer):
        text = serializers.CharField(
            allow_blank=True, trim_whitespace=False, max_length=MAX_PREVIEW_CHARS
        )

    class OutputSerializer(serializers.Serializer[Any]):
        html = serializers.CharField(help_text="rendered and safe")

    @extend_schema(request=InputSerializer, responses=OutputSerializer)
    def post(self, request: Request, project_uid: str) -> Response:
        policy.membership_for(request.user, project_uid)
        values = input_read(self.InputSerializer, request)
        return Response({"html": markdown_render(values["text"])})
