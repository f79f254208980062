"""Documents of a corpus, sent to a project's annotators."""

from typing import Any

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from annotation import policy
from annotation.models import Membership
from annotation.services.documents import MAX_DOCUMENTS, documents_send
from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError
from modelhub.ml.corpora.rules import FAMILIES, thresholds_of
from modelhub.policy import may_use_hub
from modelhub.selectors.corpora import corpus_get
from modelhub.selectors.document_samples import EVERY_RULE
from modelhub.serializers import StrictSerializer, input_read


class DocumentsApi(APIView):
    """Makes rating tasks of a corpus's documents; none twice. For managers who may use the hub."""

    class InputSerializer(StrictSerializer):
        corpus = serializers.CharField(max_length=32, help_text="uid of the run that made it")
        near = serializers.CharField(
            default=EVERY_RULE, max_length=80, help_text="a rule, “every” or “anywhere”"
        )
        count = serializers.IntegerField(default=60, min_value=1, max_value=MAX_DOCUMENTS)
        overlap = serializers.IntegerField(
            default=None, allow_null=True, min_value=1, max_value=50, help_text="the project's"
        )
        thresholds = serializers.DictField(
            child=serializers.FloatField(allow_null=True),
            required=False,
            help_text="what is not as published; null takes a rule out",
        )

    class OutputSerializer(serializers.Serializer[Any]):
        made = serializers.IntegerField()

    @extend_schema(request=InputSerializer, responses={201: OutputSerializer})
    def post(self, request: Request, project_uid: str) -> Response:
        project = policy.project_for(request.user, project_uid, Membership.Role.MANAGER)
        if not may_use_hub(request.user):
            raise Http404("Not found.")
        given = input_read(self.InputSerializer, request)
        corpus = corpus_get(run_uid=given["corpus"])
        if corpus is None:
            raise ApplicationError("There is no such corpus.", {"field": "corpus"})
        try:
            thresholds = thresholds_of(FAMILIES, given.get("thresholds", {}))
        except ConfigError as error:
            raise ApplicationError(str(error), {"field": "thresholds"}) from error
        sent = documents_send(
            project=project,
            corpus=corpus,
            thresholds=thresholds,
            near=given["near"],
            count=given["count"],
            overlap=given["overlap"],
        )
        return Response(self.OutputSerializer(sent).data, status=201)
