"""The API of corpora: brought in, read document by document. For staff, as all the hub."""

from dataclasses import asdict
from typing import Any

from django.http import Http404
from django.utils.translation import gettext
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub import tasks
from modelhub.api import HubApi, NewestFirst
from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError
from modelhub.ml.corpora.configs import FORMATS, SPLITS, ImportCorpusConfig
from modelhub.models import RunOutput
from modelhub.selectors import corpora as selectors
from modelhub.serializers import StrictSerializer, input_read, user_of
from modelhub.services.corpora import corpus_import_request
from modelhub.services.idempotency import idempotent

KEY = OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)
MAX_CHARACTERS = 100_000


class QueuedSerializer(serializers.Serializer[Any]):
    run = serializers.CharField(help_text="the uid of the queued run, which is the corpus's too")


class CorpusSerializer(serializers.Serializer[Any]):
    """A corpus as lists give it. Its uid is that of the run that made it."""

    uid = serializers.CharField(source="run.uid")
    label = serializers.CharField(source="run.label")  # type: ignore[assignment]
    program = serializers.CharField(source="run.program", help_text="import_corpus, clean_corpus")
    sha256 = serializers.CharField(source="artifact.sha256")
    size_bytes = serializers.IntegerField(source="artifact.size_bytes")
    documents = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField(source="run.created_at")

    def get_documents(self, corpus: RunOutput) -> int | None:
        count = (corpus.run.result or {}).get("documents")
        return count if isinstance(count, int) else None


class CorpusListApi(HubApi):
    """Corpora, newest first; posted to, the import of another is queued."""

    class QuerySerializer(StrictSerializer):
        cursor = serializers.CharField(max_length=200, required=False)
        page_size = serializers.IntegerField(min_value=1, max_value=200, required=False)

    class InputSerializer(StrictSerializer):
        locations = serializers.ListField(
            child=serializers.CharField(max_length=1000), min_length=1, max_length=1000
        )
        source = serializers.CharField(max_length=80)  # type: ignore[assignment]
        format = serializers.ChoiceField(choices=FORMATS, required=False)
        split = serializers.ChoiceField(choices=SPLITS, required=False)
        pattern = serializers.CharField(max_length=200, required=False, allow_blank=True)
        text_field = serializers.CharField(max_length=80, required=False)
        id_field = serializers.CharField(max_length=80, required=False)
        licence = serializers.CharField(max_length=80, required=False, allow_blank=True)
        language = serializers.CharField(max_length=8, required=False, allow_blank=True)
        is_word_list = serializers.BooleanField(
            required=False, help_text="words or phrases, one a line: offered as bad words alone"
        )

    @extend_schema(parameters=[QuerySerializer], responses=CorpusSerializer(many=True))
    def get(self, request: Request) -> Response:
        given = self.QuerySerializer(data=request.query_params.dict())
        given.is_valid(raise_exception=True)
        pages = NewestFirst()
        page = pages.paginate_queryset(selectors.corpora_list(), request, view=self)
        return pages.get_paginated_response(CorpusSerializer(page, many=True).data)

    @extend_schema(request=InputSerializer, responses={202: QueuedSerializer}, parameters=[KEY])
    def post(self, request: Request) -> Response:
        """Queue an import. With an Idempotency-Key, sent twice it is queued once."""
        given = input_read(self.InputSerializer, request)
        try:
            config = ImportCorpusConfig(**given | {"locations": tuple(given["locations"])})
        except ConfigError as error:
            raise ApplicationError(str(error)) from error
        user = user_of(request)

        def act() -> dict[str, str]:
            return {"run": corpus_import_request(config=config, requested_by=user).uid}

        key = request.headers.get("Idempotency-Key")
        body = {**asdict(config), "locations": list(config.locations)}
        reply = (
            act() if key is None else idempotent(user=user, key=f"corpus:{key}", body=body, act=act)
        )
        tasks.ring_queued_runs.delay_on_commit()
        return Response(reply, status=202)


class CorpusDetailApi(HubApi):
    """One corpus, with how it was made, what was counted, and the signals measured of it."""

    class OutputSerializer(CorpusSerializer):
        config = serializers.JSONField(source="run.config")
        result = serializers.JSONField(source="run.result", allow_null=True)
        signals = serializers.SerializerMethodField()

        def get_signals(self, corpus: RunOutput) -> list[str]:
            return selectors.signal_names(corpus=corpus.artifact)

    @extend_schema(responses=OutputSerializer)
    def get(self, request: Request, run_uid: str) -> Response:
        return Response(self.OutputSerializer(corpus_of(run_uid)).data)


class CorpusDocumentsApi(HubApi):
    """A corpus's documents in their order, searched and filtered, from a cursor on.

    One request looks at a part of a large corpus: where that held too little, `is_limited` is true
    and `next` goes on behind it.
    """

    class InputSerializer(StrictSerializer):
        cursor = serializers.IntegerField(min_value=0, max_value=10**11, required=False)
        page_size = serializers.IntegerField(min_value=1, max_value=200, required=False)
        characters = serializers.IntegerField(
            min_value=1,
            max_value=MAX_CHARACTERS,
            default=selectors.SHOWN_CHARACTERS,
            help_text="of a text, at most",
        )
        text = serializers.CharField(max_length=200, required=False, help_text="a part of it")
        language = serializers.CharField(max_length=8, required=False)
        signal = serializers.CharField(max_length=60, required=False)
        least = serializers.FloatField(required=False, help_text="of the signal")
        most = serializers.FloatField(required=False, help_text="of the signal")

    class OutputSerializer(serializers.Serializer[Any]):
        class DocumentSerializer(serializers.Serializer[selectors.FoundDocument]):
            place = serializers.IntegerField(help_text="in the corpus, from 0")
            id = serializers.CharField(source="document.id")
            source = serializers.CharField(source="document.source")  # type: ignore[assignment]
            language = serializers.CharField(source="document.language")
            licence = serializers.CharField(source="document.licence")
            text = serializers.SerializerMethodField()
            is_cut = serializers.SerializerMethodField()
            signals = serializers.JSONField()

            def get_text(self, found: selectors.FoundDocument) -> str:
                return found.document.text[: self.context["characters"]]

            def get_is_cut(self, found: selectors.FoundDocument) -> bool:
                return bool(len(found.document.text) > self.context["characters"])

        count = serializers.IntegerField(help_text="documents of the corpus")
        next = serializers.IntegerField(
            source="following", allow_null=True, help_text="the cursor to go on from"
        )
        is_limited = serializers.BooleanField()
        results = DocumentSerializer(source="found", many=True)

    @extend_schema(parameters=[InputSerializer], responses=OutputSerializer)
    def get(self, request: Request, run_uid: str) -> Response:
        corpus = corpus_of(run_uid)
        given = self.InputSerializer(data=request.query_params.dict())
        given.is_valid(raise_exception=True)
        asked = given.validated_data
        signal = asked.get("signal", "")
        if signal and signal not in selectors.signal_names(corpus=corpus.artifact):
            raise ApplicationError(
                gettext("There is no signal %(signal)s.") % {"signal": f"{signal!r}"},
                {"field": "signal"},
            )
        page = selectors.documents_find(
            corpus=corpus.artifact,
            wanted=selectors.DocumentFilter(
                text=asked.get("text", ""),
                language=asked.get("language", ""),
                signal=signal,
                least=asked.get("least"),
                most=asked.get("most"),
            ),
            start=asked.get("cursor", 0),
            limit=asked.get("page_size", 25),
        )
        context = {"characters": asked["characters"]}
        return Response(self.OutputSerializer(page, context=context).data)


def corpus_of(run_uid: str) -> RunOutput:
    corpus = selectors.corpus_get(run_uid=run_uid)
    if corpus is None:
        raise Http404("Not found.")
    return corpus
