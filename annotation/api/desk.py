"""What a person sets on the annotator's page: their keys, and which guidelines they have read."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy
from annotation.selectors.key_bindings import key_bindings_of
from annotation.services.key_bindings import key_bindings_change
from annotation.services.projects import guideline_read
from modelhub.serializers import StrictSerializer, input_read, user_of


class KeysApi(APIView):
    """The caller's keys on the annotator's page, in every project and on every device."""

    class InputSerializer(StrictSerializer):
        keys = serializers.DictField(
            child=serializers.CharField(max_length=20, trim_whitespace=False),
            help_text="those to have by action; the others are as the page comes",
        )

    class OutputSerializer(serializers.Serializer[Any]):
        keys = serializers.DictField(child=serializers.CharField(), help_text="every action's key")

    @extend_schema(responses=OutputSerializer)
    def get(self, request: Request) -> Response:
        return Response({"keys": key_bindings_of(user=user_of(request))})

    @extend_schema(request=InputSerializer, responses=OutputSerializer)
    def put(self, request: Request) -> Response:
        values = input_read(self.InputSerializer, request)
        return Response({"keys": key_bindings_change(user=user_of(request), **values)})


class GuidelinesReadApi(APIView):
    """Says that the caller has opened a version of a project's guidelines."""

    class InputSerializer(StrictSerializer):
        number = serializers.IntegerField(min_value=1, max_value=2**31 - 1)

    class OutputSerializer(serializers.Serializer[Any]):
        read = serializers.IntegerField(help_text="the newest version the caller has opened")

    @extend_schema(request=InputSerializer, responses=OutputSerializer)
    def post(self, request: Request, project_uid: str) -> Response:
        membership = policy.membership_for(request.user, project_uid)
        values = input_read(self.InputSerializer, request)
        return Response({"read": guideline_read(membership=membership, **values)})
