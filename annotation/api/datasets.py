"""Datasets: freezing a project's judgements, and taking them away."""

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import exports, policy
from annotation.layouts import LAYOUTS
from annotation.models import Membership, Split, Task
from annotation.selectors.weights import annotator_weights
from annotation.services.datasets import preference_dataset_freeze
from modelhub.serializers import StrictSerializer, input_read, user_of

MANAGER = Membership.Role.MANAGER


class DatasetSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    number = serializers.IntegerField()
    kind = serializers.CharField()
    created_at = serializers.DateTimeField()
    query = serializers.DictField()
    counts = serializers.DictField()
    sha256 = serializers.CharField(source="artifact.sha256")


class DatasetListApi(APIView):
    """A project's frozen datasets, the newest first."""

    class InputSerializer(StrictSerializer):
        kind = serializers.ChoiceField(
            Task.Kind.choices, default=Task.Kind.RANKING, help_text="of the tasks judged"
        )
        query = serializers.DictField(
            default=dict,
            help_text="batches, splits, simulated, sources, until; each may be left out",
        )
        weighted = serializers.BooleanField(
            default=False, help_text="give each row its annotator's weight, by agreement"
        )

    @extend_schema(responses=DatasetSerializer(many=True))
    def get(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, MANAGER)
        datasets = project.datasets.select_related("artifact")
        return Response(DatasetSerializer(datasets, many=True).data)

    @extend_schema(request=InputSerializer, responses={201: DatasetSerializer})
    def post(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, MANAGER)
        values = input_read(self.InputSerializer, request)
        weighted = values.pop("weighted")
        weights = annotator_weights(project=project, kind=values["kind"]) if weighted else None
        dataset = preference_dataset_freeze(
            project=project, created_by=user_of(request), weights=weights, **values
        )
        return Response(DatasetSerializer(dataset).data, status=201)


class DatasetExportApi(APIView):
    """A dataset as one file, streamed."""

    class QuerySerializer(StrictSerializer):
        layout = serializers.ChoiceField(
            list(LAYOUTS), default="", help_text="if not given, the first of the kind's"
        )
        file_format = serializers.ChoiceField(exports.FORMATS, default="jsonl")
        split = serializers.ChoiceField(Split.choices, default=None, allow_null=True)

    @extend_schema(
        responses={200: OpenApiTypes.BINARY},
        parameters=[
            OpenApiParameter("layout", str, enum=list(LAYOUTS)),
            OpenApiParameter("file_format", str, enum=list(exports.FORMATS)),
            OpenApiParameter("split", str, enum=Split.values, description="all, if not given"),
        ],
    )
    def get(
        self, request: Request, project_uid: str, dataset_uid: str
    ) -> Response | StreamingHttpResponse:
        dataset = policy.dataset_for(request.user, dataset_uid, project_uid=project_uid)
        query = self.QuerySerializer(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        return exports.dataset_export_response(
            dataset=dataset,
            layout=asked["layout"],
            format=asked["file_format"],
            split=asked["split"],
        )
