"""Launching by the API: which methods there are, with their settings as JSON Schema, and a run."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from alignment.launch_forms import launch_body
from alignment.methods import METHODS, Method
from alignment.services.launches import Launch, run_launch
from modelhub import tasks
from modelhub.api import HubApi
from modelhub.config_fields import config_schema
from modelhub.serializers import StrictSerializer, input_read, user_of
from modelhub.services.idempotency import idempotent
from modelhub.services.runs import LAUNCHERS, MAX_PROCESSES, STRATEGIES


class MethodListApi(HubApi):
    """The methods: what each reads and makes, its presets, and its settings as JSON Schema."""

    class OutputSerializer(serializers.Serializer[Any]):
        class MethodInputSerializer(serializers.Serializer[Any]):
            role = serializers.CharField()
            title = serializers.CharField()
            versions = serializers.ListField(child=serializers.CharField())
            kinds = serializers.ListField(child=serializers.CharField())
            of_project = serializers.ListField(
                child=serializers.CharField(),
                help_text="rows of a project, named as project/UID/ROWS",
            )
            is_required = serializers.BooleanField()
            is_many = serializers.BooleanField()

        class PresetSerializer(serializers.Serializer[Any]):
            name = serializers.CharField()
            title = serializers.CharField()
            settings = serializers.JSONField()

        name = serializers.CharField()
        title = serializers.CharField()
        about = serializers.CharField()
        docs = serializers.CharField()
        inputs = MethodInputSerializer(many=True)
        registers = serializers.CharField(help_text="the role of the version it makes, or empty")
        takes_processes = serializers.BooleanField()
        presets = PresetSerializer(many=True)
        schema = serializers.SerializerMethodField()

        @extend_schema(responses=serializers.JSONField())
        def get_schema(self, method: Method) -> dict[str, Any]:
            return config_schema(method.config)

    @extend_schema(responses=OutputSerializer(many=True))
    def get(self, request: Request) -> Response:
        found = self.OutputSerializer(list(METHODS.values()), many=True)
        return Response({"results": found.data})


@extend_schema_field(
    {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)
class ReferencesField(serializers.Field[Any, Any, Any, Any]):
    """A reference, or a list of them: "version/UID", "model@3", "dataset/UID", "run/UID/ROLE",
    "project/UID/ROWS"."""

    def to_internal_value(self, data: Any) -> Any:
        listed = data if isinstance(data, list) else [data]
        if not all(isinstance(one, str) and len(one) <= 200 for one in listed) or len(listed) > 200:
            raise serializers.ValidationError("A reference such as version/UID, or a list of them.")
        return data


class RunLaunchApi(HubApi):
    """Launch a run of a method. With an Idempotency-Key, sent twice it is queued once."""

    class InputSerializer(StrictSerializer):
        method = serializers.CharField(max_length=40)
        settings = serializers.DictField(required=False)
        inputs = serializers.DictField(child=ReferencesField(), required=False)
        model_name = serializers.CharField(max_length=80, required=False, allow_blank=True)
        label = serializers.CharField(  # type: ignore[assignment]
            max_length=200, required=False, allow_blank=True
        )
        launcher = serializers.ChoiceField(choices=LAUNCHERS, required=False)
        processes = serializers.IntegerField(min_value=1, max_value=MAX_PROCESSES, required=False)
        strategy = serializers.ChoiceField(choices=STRATEGIES, required=False)
        elsewhere = serializers.BooleanField(required=False)

    class OutputSerializer(serializers.Serializer[Any]):
        run = serializers.CharField(help_text="the uid of the queued run")

    @extend_schema(
        request=InputSerializer,
        responses={202: OutputSerializer},
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)],
    )
    def post(self, request: Request) -> Response:
        given = input_read(self.InputSerializer, request)
        launch = Launch(**{"settings": {}, "inputs": {}, **given})
        user = user_of(request)

        def act() -> dict[str, str]:
            return {"run": run_launch(launch=launch, requested_by=user).uid}

        key = request.headers.get("Idempotency-Key")
        if key is None:
            reply = act()
        else:
            body = launch_body(launch)
            reply = idempotent(user=user, key=f"launch:{key}", body=body, act=act)
        tasks.ring_queued_runs.delay_on_commit()
        return Response(reply, status=202)
