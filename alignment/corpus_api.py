"""The API that cleans a corpus, held against what projects keep apart. For staff."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from alignment.services.cleanings import cleaning_request
from modelhub import tasks
from modelhub.api import HubApi
from modelhub.corpus_api import KEY, QueuedSerializer, corpus_of
from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError
from modelhub.ml.corpora.rules import FAMILIES, thresholds_of
from modelhub.serializers import StrictSerializer, input_read, user_of
from modelhub.services.idempotency import idempotent

MOST_REFERENCES = 200


def _references(help_text: str) -> serializers.ListField:
    one = serializers.CharField(max_length=200)
    return serializers.ListField(
        child=one, max_length=MOST_REFERENCES, required=False, help_text=help_text
    )


class CorpusCleanApi(HubApi):
    """Keep thresholds under a name, and queue the cleaning of a corpus by them.

    Thresholds not given are as published; null takes a rule out. What the cleaning is held against
    is named by references, as a launch has them. With an Idempotency-Key, sent twice it is queued
    once.
    """

    class InputSerializer(StrictSerializer):
        class AgainstSerializer(StrictSerializer):
            evaluation = _references(
                "evaluation sets: what shares words with them goes; run/UID/ROLE of prompts, a "
                "corpus or references"
            )
            held_out = _references(
                "held-out prompts of projects that you manage: project/UID/held_out"
            )
            known = _references("corpora already had, run/UID/corpus: what repeats them goes")
            bad_words = _references(
                "lists of bad words, run/UID/corpus: documents that hold one go"
            )

        name = serializers.SlugField(max_length=80)
        note = serializers.CharField(max_length=300, required=False, allow_blank=True)
        thresholds = serializers.DictField(
            child=serializers.FloatField(allow_null=True), required=False
        )
        against = AgainstSerializer(required=False)

    class OutputSerializer(QueuedSerializer):
        rule_set = serializers.CharField(help_text="name@number of the thresholds kept")

    @extend_schema(request=InputSerializer, responses={202: OutputSerializer}, parameters=[KEY])
    def post(self, request: Request, run_uid: str) -> Response:
        corpus = corpus_of(run_uid)
        given = input_read(self.InputSerializer, request)
        user = user_of(request)
        try:
            thresholds = thresholds_of(FAMILIES, given.get("thresholds", {}))
        except ConfigError as error:
            raise ApplicationError(str(error), {"field": "thresholds"}) from error

        def act() -> dict[str, Any]:
            run = cleaning_request(
                corpus=corpus,
                name=given["name"],
                note=given.get("note", ""),
                thresholds=thresholds,
                against=given.get("against", {}),
                requested_by=user,
            )
            return {"run": run.uid, "rule_set": run.config["rule_set"]}

        key = request.headers.get("Idempotency-Key")
        body = {"corpus": run_uid, **given}
        reply = (
            act() if key is None else idempotent(user=user, key=f"clean:{key}", body=body, act=act)
        )
        tasks.ring_queued_runs.delay_on_commit()
        return Response(reply, status=202)
