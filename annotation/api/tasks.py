"""Tasks: how a project asks for each kind, and making them."""

from typing import Any

from django.utils.translation import gettext
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy
from annotation.models import CandidateBatch, Membership, Project, Prompt, Split, Task
from annotation.services.task_forms import task_form_save
from annotation.services.tasks import MAX_PRIORITY, tasks_create
from annotation.task_forms import FORMS, form_of
from modelhub.errors import ApplicationError
from modelhub.serializers import StrictSerializer, input_read

MANAGER = Membership.Role.MANAGER


class TaskFormSerializer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(Task.Kind.choices)
    settings = serializers.DictField(help_text="all of them, those not set at their defaults")


class TaskFormListApi(APIView):
    """How the project asks for each kind of task; a PUT sets one kind's."""

    class InputSerializer(StrictSerializer):
        kind = serializers.ChoiceField(Task.Kind.choices)
        settings = serializers.DictField()

    @extend_schema(responses=TaskFormSerializer(many=True))
    def get(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, MANAGER)
        return Response(
            [{"kind": kind, "settings": form_of(project, kind).as_json()} for kind in FORMS]
        )

    @extend_schema(request=InputSerializer, responses=TaskFormSerializer)
    def put(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, MANAGER)
        values = input_read(self.InputSerializer, request)
        row = task_form_save(project=project, **values)
        return Response({"kind": row.kind, "settings": row.settings})


class TasksCreateApi(APIView):
    """Makes tasks of a kind, of a batch's answers or of the project's prompts; none twice."""

    class InputSerializer(StrictSerializer):
        kind = serializers.ChoiceField(Task.Kind.choices)
        batch = serializers.CharField(
            default=None, allow_null=True, max_length=32, help_text="uid; none takes the prompts"
        )
        splits = serializers.ListField(
            child=serializers.ChoiceField(Split.choices), default=None, allow_null=True
        )
        overlap = serializers.IntegerField(
            default=None, allow_null=True, min_value=1, max_value=50, help_text="the project's"
        )
        priority = serializers.IntegerField(
            default=0, min_value=-MAX_PRIORITY, max_value=MAX_PRIORITY
        )

    class OutputSerializer(serializers.Serializer[Any]):
        made = serializers.IntegerField()
        existing = serializers.IntegerField(help_text="prompts that had such a task")
        too_few = serializers.IntegerField(help_text="prompts with too few different answers")

    @extend_schema(request=InputSerializer, responses={201: OutputSerializer})
    def post(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, MANAGER)
        values = input_read(self.InputSerializer, request)
        splits = values.pop("splits")
        prompts = None
        if splits is not None:
            prompts = Prompt.objects.filter(split__in=splits).exclude(
                source__in=Prompt.NEVER_SAMPLED
            )
        values["batch"] = _batch_of(project, values["batch"])
        made = tasks_create(project=project, prompts=prompts, **values)
        return Response(self.OutputSerializer(made).data, status=201)


def _batch_of(project: Project, uid: str | None) -> CandidateBatch | None:
    if uid is None:
        return None
    batch = CandidateBatch.objects.filter(project=project, uid=uid).first()
    if batch is None:
        raise ApplicationError(
            gettext("There is no batch %(uid)s in this project.") % {"uid": uid}, {"field": "batch"}
        )
    return batch
