"""The hub's API, for staff; to everyone else it does not exist."""

from dataclasses import asdict
from typing import Any

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from modelhub import tasks
from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError, ImportModelConfig
from modelhub.models import ModelVersion, Run
from modelhub.policy import may_use_hub
from modelhub.selectors import runs as run_selectors
from modelhub.selectors import versions as version_selectors
from modelhub.serializers import EmptySerializer, StrictSerializer, input_read, user_of
from modelhub.services.continuing import run_continue
from modelhub.services.idempotency import idempotent
from modelhub.services.imports import model_import_request
from modelhub.services.runs import run_cancel, run_retry


class HubPermission(IsAuthenticated):
    """Staff. A signed-in person who is not gets 404, whatever they ask for."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not super().has_permission(request, view):
            return False
        if not may_use_hub(request.user):
            raise Http404("Not found.")
        return True


class HubApi(APIView):
    permission_classes = [HubPermission]


class NewestFirst(CursorPagination):
    ordering = "-id"
    page_size = 50
    max_page_size = 200
    page_size_query_param = "page_size"


class RunSerializer(serializers.Serializer[Any]):
    """A run as lists give it."""

    uid = serializers.CharField()
    program = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    status = serializers.CharField()
    queue = serializers.CharField()
    attempt = serializers.IntegerField(source="fence")
    attempts_left = serializers.IntegerField()
    is_stopping = serializers.SerializerMethodField()
    progress_done = serializers.IntegerField()
    progress_total = serializers.IntegerField()
    progress_unit = serializers.CharField()
    requested_by = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)

    def get_is_stopping(self, run: Run) -> bool:
        return run.cancel_requested_at is not None and not run.is_ended

    def get_requested_by(self, run: Run) -> str | None:
        return run.requested_by.get_username() if run.requested_by else None


class RunFileSerializer(serializers.Serializer[Any]):
    """An artifact that a run read or made."""

    role = serializers.CharField()
    kind = serializers.CharField(source="artifact.kind")
    sha256 = serializers.CharField(source="artifact.sha256")
    size_bytes = serializers.IntegerField(source="artifact.size_bytes")


class ModelVersionSerializer(serializers.Serializer[ModelVersion]):
    """A version as lists give it."""

    uid = serializers.CharField()
    model = serializers.CharField(source="model.name")
    number = serializers.IntegerField()
    role = serializers.CharField()
    sha256 = serializers.CharField(source="artifact.sha256")
    architecture = serializers.CharField()
    parameters = serializers.IntegerField()
    dtype = serializers.CharField()
    context_tokens = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class RunListApi(HubApi):
    """Runs, newest first."""

    class InputSerializer(StrictSerializer):
        status = serializers.ChoiceField(choices=Run.Status.choices, required=False)
        program = serializers.CharField(max_length=40, required=False)
        cursor = serializers.CharField(max_length=200, required=False)
        page_size = serializers.IntegerField(min_value=1, max_value=200, required=False)

    @extend_schema(parameters=[InputSerializer], responses=RunSerializer(many=True))
    def get(self, request: Request) -> Response:
        given = self.InputSerializer(data=request.query_params.dict())
        given.is_valid(raise_exception=True)
        asked = given.validated_data
        found = run_selectors.runs_list(
            status=asked.get("status", ""), program=asked.get("program", "")
        )
        pages = NewestFirst()
        page = pages.paginate_queryset(found, request, view=self)
        return pages.get_paginated_response(RunSerializer(page, many=True).data)


class RunDetailApi(HubApi):
    """One run with its configuration, inputs, outputs, result and error."""

    class OutputSerializer(RunSerializer):
        config = serializers.JSONField()
        result = serializers.JSONField(allow_null=True)
        error = serializers.CharField()
        inputs = RunFileSerializer(many=True)
        outputs = RunFileSerializer(many=True)

    @extend_schema(responses=OutputSerializer)
    def get(self, request: Request, run_uid: str) -> Response:
        return Response(run_reply(run_of(run_uid)))


class RunMetricsApi(HubApi):
    """A run's curves, each of at most 400 points."""

    class OutputSerializer(serializers.Serializer[Any]):
        is_ended = serializers.BooleanField()
        series = serializers.JSONField(
            help_text='{name: {"steps", "values", "lows", "highs"}}, lists of the same length'
        )

    @extend_schema(responses=OutputSerializer)
    def get(self, request: Request, run_uid: str) -> Response:
        run = run_of(run_uid)
        series = run_selectors.run_series(run=run)
        return Response({"is_ended": run.is_ended, "series": series})


class RunCancelApi(HubApi):
    """Ask a run to stop."""

    @extend_schema(request=EmptySerializer, responses=RunDetailApi.OutputSerializer)
    def post(self, request: Request, run_uid: str) -> Response:
        run = run_of(run_uid)
        input_read(EmptySerializer, request)
        run = run_cancel(run=run, actor=user_of(request))
        if run.is_ended:
            tasks.run_ended_ring()
        return Response(run_reply(run))


class RunRetryApi(HubApi):
    """Queue a failed or cancelled run again."""

    @extend_schema(request=EmptySerializer, responses=RunDetailApi.OutputSerializer)
    def post(self, request: Request, run_uid: str) -> Response:
        run = run_of(run_uid)
        input_read(EmptySerializer, request)
        run = run_retry(run=run, actor=user_of(request))
        tasks.ring_queued_runs.delay_on_commit()
        return Response(run_reply(run))


class RunContinueApi(HubApi):
    """Go on from a checkpoint of a pretraining run that has stopped, with other settings."""

    class InputSerializer(StrictSerializer):
        from_step = serializers.IntegerField(min_value=0, required=False)
        steps = serializers.IntegerField(min_value=1, required=False)
        shares = serializers.ListField(
            child=serializers.FloatField(min_value=0), max_length=1000, required=False
        )
        shares_step = serializers.IntegerField(min_value=1, required=False)
        skip_samples = serializers.ListField(
            child=serializers.RegexField(r"^[0-9]{1,15}-[0-9]{1,15}$"),
            max_length=1000,
            required=False,
            help_text='ranges of sample numbers, as a spike is told: "80-91"',
        )

    @extend_schema(request=InputSerializer, responses={202: RunDetailApi.OutputSerializer})
    def post(self, request: Request, run_uid: str) -> Response:
        asked = input_read(self.InputSerializer, request)
        run, user = run_of(run_uid), user_of(request)

        def act() -> str:
            return run_continue(run=run, requested_by=user, **asked).uid

        key = request.headers.get("Idempotency-Key")
        if key is None:
            made = act()
        else:
            body = [run_uid, repr(sorted(asked.items()))]  # shares may be no numbers still
            made = idempotent(user=user, key=f"continue:{key}", body=body, act=act)
        tasks.ring_queued_runs.delay_on_commit()
        return Response(run_reply(run_of(made)), status=202)


class ModelListApi(HubApi):
    """Models by name, with their versions and aliases."""

    class OutputSerializer(serializers.Serializer[Any]):
        class AliasSerializer(serializers.Serializer[Any]):
            name = serializers.CharField()
            number = serializers.IntegerField(source="version.number")

        uid = serializers.CharField()
        name = serializers.CharField()
        description = serializers.CharField()
        versions = ModelVersionSerializer(many=True)
        aliases = AliasSerializer(many=True)

    @extend_schema(responses=OutputSerializer(many=True))
    def get(self, request: Request) -> Response:
        models = version_selectors.models_list()
        return Response({"results": self.OutputSerializer(models, many=True).data})


class VersionDetailApi(HubApi):
    """One version, with what it is, what it came from, and what was measured."""

    class OutputSerializer(ModelVersionSerializer):
        chat_template = serializers.CharField()
        card = serializers.CharField()
        facts = serializers.JSONField()
        parent = serializers.SerializerMethodField()  # type: ignore[assignment]
        run = serializers.SerializerMethodField()

        def get_parent(self, version: ModelVersion) -> str | None:
            return version.parent.uid if version.parent else None

        def get_run(self, version: ModelVersion) -> str | None:
            return version.run.uid if version.run else None

    @extend_schema(responses=OutputSerializer)
    def get(self, request: Request, version_uid: str) -> Response:
        version = version_selectors.version_get(uid=version_uid)
        if version is None:
            raise Http404("Not found.")
        return Response(self.OutputSerializer(version).data)


class ModelImportApi(HubApi):
    """Queue the import of a model. With an Idempotency-Key, sent twice it is queued once."""

    class InputSerializer(StrictSerializer):
        source = serializers.ChoiceField(  # type: ignore[assignment]
            choices=["directory", "gguf", "hub"]
        )
        location = serializers.CharField(max_length=400)
        revision = serializers.CharField(max_length=100, required=False, allow_blank=True)
        model = serializers.SlugField(max_length=80)
        role = serializers.ChoiceField(choices=["base", "policy", "reward"], required=False)
        card = serializers.CharField(max_length=20_000, required=False, allow_blank=True)

    class OutputSerializer(serializers.Serializer[Any]):
        run = serializers.CharField(help_text="the uid of the queued run")

    @extend_schema(request=InputSerializer, responses={202: OutputSerializer})
    def post(self, request: Request) -> Response:
        try:
            config = ImportModelConfig(**input_read(self.InputSerializer, request))
        except ConfigError as error:
            raise ApplicationError(str(error)) from error
        user = user_of(request)

        def act() -> dict[str, str]:
            return {"run": model_import_request(config=config, requested_by=user).uid}

        key = request.headers.get("Idempotency-Key")
        if key is None:
            reply = act()
        else:
            reply = idempotent(user=user, key=f"import:{key}", body=asdict(config), act=act)
        tasks.ring_queued_runs.delay_on_commit()
        return Response(reply, status=202)


def run_of(uid: str) -> Run:
    run = run_selectors.run_get(uid=uid)
    if run is None:
        raise Http404("Not found.")
    return run


def run_reply(run: Run) -> dict[str, Any]:
    return {
        **RunSerializer(run).data,
        "config": run.config,
        "result": run.result,
        "error": run.error,
        "inputs": RunFileSerializer(run_selectors.run_inputs(run=run), many=True).data,
        "outputs": RunFileSerializer(run_selectors.run_outputs(run=run), many=True).data,
    }
