"""Projects: their people and their prompts."""

from typing import IO, Any

from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy, selectors
from annotation.models import Membership
from annotation.services.projects import (
    membership_remove,
    membership_role_change,
    person_add,
)
from annotation.services.prompts import prompts_import
from modelhub.serializers import StrictSerializer, input_read, user_of

MANAGER = Membership.Role.MANAGER


class ProjectListApi(APIView):
    """The caller's projects, by name."""

    class OutputSerializer(serializers.Serializer[Any]):
        uid = serializers.CharField(source="project.uid")
        name = serializers.CharField(source="project.name")
        description = serializers.CharField(source="project.description")
        role = serializers.ChoiceField(Membership.Role.choices)

    @extend_schema(responses=OutputSerializer(many=True))
    def get(self, request: Request) -> Response:
        memberships = selectors.memberships_of(user=user_of(request))
        return Response(self.OutputSerializer(memberships, many=True).data)


class MemberSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField(help_text="the pseudonym that exports carry")
    username = serializers.CharField(source="user.username")
    role = serializers.ChoiceField(Membership.Role.choices)
    source = serializers.CharField()  # type: ignore[assignment]  # a field of this name
    is_simulated = serializers.BooleanField()


class MemberListApi(APIView):
    """The people of a project, for its managers."""

    class InputSerializer(StrictSerializer):
        username = serializers.CharField(max_length=150)
        role = serializers.ChoiceField(Membership.Role.choices)

    class OutputSerializer(serializers.Serializer[Any]):
        member = MemberSerializer()
        sign_in_path = serializers.CharField(
            help_text="signs a new person in, once; empty for somebody who has an account"
        )

    @extend_schema(responses=MemberSerializer(many=True))
    def get(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, MANAGER)
        members = selectors.members(project=project)
        return Response(MemberSerializer(members, many=True).data)

    @extend_schema(request=InputSerializer, responses={201: OutputSerializer})
    def post(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, MANAGER)
        values = input_read(self.InputSerializer, request)
        user, token = person_add(project=project, actor=user_of(request), **values)
        member = selectors.members(project=project).get(user=user)
        path = reverse("sign_in_link", args=[token]) if token else ""
        reply = {"member": MemberSerializer(member).data, "sign_in_path": path}
        return Response(reply, status=201)


class MemberDetailApi(APIView):
    """One member: another role, or out of the project."""

    class InputSerializer(StrictSerializer):
        role = serializers.ChoiceField(Membership.Role.choices)

    @extend_schema(request=InputSerializer, responses=MemberSerializer)
    def patch(self, request: Request, project_uid: str, membership_uid: str) -> Response:
        membership = policy.member_for(request.user, project_uid, membership_uid)
        values = input_read(self.InputSerializer, request)
        changed = membership_role_change(membership=membership, **values)
        return Response(MemberSerializer(changed).data)

    @extend_schema(request=None, responses={204: None})
    def delete(self, request: Request, project_uid: str, membership_uid: str) -> Response:
        membership_remove(membership=policy.member_for(request.user, project_uid, membership_uid))
        return Response(status=204)


class JsonLinesParser(BaseParser):
    """{"lines": the body as it is}: a file, read line by line by the service."""

    media_type = "application/x-ndjson"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None
    ) -> dict[str, IO[Any]]:
        return {"lines": stream}


class PromptsImportApi(APIView):
    """Prompts as JSON Lines, with answers to judge if wanted: all of them come in, or none."""

    parser_classes = [JsonLinesParser]

    class QuerySerializer(StrictSerializer):
        name = serializers.CharField(default="the request's body", max_length=200)

    class OutputSerializer(serializers.Serializer[Any]):
        new = serializers.IntegerField()
        existing = serializers.IntegerField()
        answers = serializers.IntegerField(help_text="new ones")

    @extend_schema(
        request={"application/x-ndjson": str},
        responses=OutputSerializer,
        parameters=[OpenApiParameter("name", str, description="what errors call the file")],
    )
    def post(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, MANAGER)
        query = self.QuerySerializer(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        body = request.data
        # A body of no bytes is not parsed.
        lines = body["lines"] if isinstance(body, dict) and "lines" in body else ()
        counts = prompts_import(project=project, lines=lines, **query.validated_data)
        return Response(self.OutputSerializer(counts).data)
