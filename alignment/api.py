"""The API of campaigns and rounds, for managers of their projects.

Everything is found through alignment.policy, so what is not yours is 404; an id in a body that is
not yours is refused as a field (400), in the same words as one that does not exist. What changes
something takes an Idempotency-Key: sent again, it is done once and answered alike.
"""

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.utils.crypto import get_random_string
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from alignment.models import Campaign, Round
from alignment.policy import campaign_for, round_for
from alignment.recipe import recipe_load
from alignment.selectors.overview import campaign_rounds, campaigns_of, round_overview
from alignment.selectors.rounds import campaign_policy
from alignment.services.campaigns import POLICY_ROLES, campaign_create
from alignment.services.rounds import (
    round_annotation_close,
    round_cancel,
    round_continue,
    round_decide,
    round_files_read,
    round_retry,
    round_start,
)
from alignment.tasks import advance_round
from annotation.policy import projects_managed
from modelhub.ml.configs import ConfigError
from modelhub.models import ModelVersion
from modelhub.serializers import StrictSerializer, input_read, user_of
from modelhub.services.idempotency import idempotent

MAX_REASON_CHARS = 1000
_KEY = [OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)]


class VersionSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    model = serializers.CharField(source="model.name")
    number = serializers.IntegerField()


class CampaignSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    name = serializers.CharField()
    project = serializers.CharField(source="project.uid")
    base_version = VersionSerializer()
    champion_alias = serializers.CharField()
    created_at = serializers.DateTimeField()


class CampaignDetailSerializer(CampaignSerializer):
    champion = serializers.SerializerMethodField()

    @extend_schema(responses=VersionSerializer)
    def get_champion(self, campaign: Campaign) -> Any:
        return VersionSerializer(campaign_policy(campaign=campaign)).data


class RoundSerializer(serializers.Serializer[Any]):
    uid = serializers.CharField()
    campaign = serializers.CharField(source="campaign.uid")
    number = serializers.IntegerField()
    state = serializers.ChoiceField(Round.State.choices)
    lap = serializers.IntegerField()
    failed_in = serializers.CharField()
    error = serializers.CharField()
    policy_in = VersionSerializer()
    policy_out = VersionSerializer(allow_null=True)
    reward_version = VersionSerializer(allow_null=True)
    created_at = serializers.DateTimeField()


class RoundDetailSerializer(serializers.Serializer[Any]):
    """A round with its stages; read from alignment.selectors.overview.RoundOverview."""

    class StageSerializer(serializers.Serializer[Any]):
        class RunSerializer(serializers.Serializer[Any]):
            uid = serializers.CharField(source="run.uid")
            role = serializers.CharField()
            lap = serializers.IntegerField()
            status = serializers.CharField(source="run.status")
            progress_done = serializers.IntegerField(source="run.progress_done")
            progress_total = serializers.IntegerField(source="run.progress_total")
            progress_unit = serializers.CharField(source="run.progress_unit")

        name = serializers.CharField()
        standing = serializers.CharField(help_text="done, now, failed, cancelled or todo")
        entered_at = serializers.DateTimeField(allow_null=True)
        seconds = serializers.FloatField(allow_null=True)
        runs = RunSerializer(many=True)

    class EventSerializer(serializers.Serializer[Any]):
        before = serializers.CharField()
        after = serializers.CharField()
        actor = serializers.CharField(source="actor.username", default=None, allow_null=True)
        reason = serializers.CharField()
        created_at = serializers.DateTimeField()

    class ProgressSerializer(serializers.Serializer[Any]):
        tasks = serializers.IntegerField()
        wanted = serializers.IntegerField()
        accepted = serializers.IntegerField()
        simulated = serializers.IntegerField()
        live = serializers.IntegerField()
        free = serializers.IntegerField()

    round = RoundSerializer()
    recipe = serializers.JSONField(source="round.recipe")
    stages = StageSerializer(many=True)
    events = EventSerializer(many=True)
    annotation = ProgressSerializer(source="progress")
    waits_for_person = serializers.BooleanField()
    held_out = serializers.JSONField(help_text="of the reward model; empty before there is one")
    evaluation = serializers.JSONField(source="evaluation.metrics", default=None, allow_null=True)


class ReasonSerializer(StrictSerializer):
    reason = serializers.CharField(default="", allow_blank=True, max_length=MAX_REASON_CHARS)


class CampaignsApi(APIView):
    """The campaigns of the projects the caller manages; starting one."""

    class InputSerializer(StrictSerializer):
        project = serializers.CharField(max_length=32)
        name = serializers.CharField(max_length=120)
        base_version = serializers.CharField(max_length=32)
        champion_alias = serializers.SlugField(max_length=40, default="champion")

    @extend_schema(responses=CampaignSerializer(many=True))
    def get(self, request: Request) -> Response:
        campaigns = campaigns_of(user=request.user)[:500]
        return Response(CampaignSerializer(campaigns, many=True).data)

    @extend_schema(request=InputSerializer, responses={201: CampaignSerializer}, parameters=_KEY)
    def post(self, request: Request) -> Response:
        values = input_read(self.InputSerializer, request)
        project = projects_managed(request.user).filter(uid=values["project"]).first()
        if project is None:
            raise serializers.ValidationError({"project": ["There is no such project."]})
        version = ModelVersion.objects.filter(
            uid=values["base_version"], role__in=POLICY_ROLES
        ).first()
        if version is None:
            raise serializers.ValidationError({"base_version": ["There is no such policy."]})

        def act() -> Any:
            campaign = campaign_create(
                project=project,
                name=values["name"],
                base_version=version,
                champion_alias=values["champion_alias"],
                created_by=user_of(request),
            )
            return CampaignSerializer(campaign).data

        return Response(done_once(request, {"campaign": values}, act), status=201)


class CampaignApi(APIView):
    """One campaign, with the version its next round starts from."""

    @extend_schema(responses=CampaignDetailSerializer)
    def get(self, request: Request, campaign_uid: str) -> Response:
        campaign = campaign_for(request.user, campaign_uid)
        return Response(CampaignDetailSerializer(campaign).data)


class RoundsApi(APIView):
    """A campaign's rounds; starting the next one."""

    class InputSerializer(StrictSerializer):
        recipe = serializers.DictField(
            default=dict,
            help_text="fields of alignment.recipe.Recipe that differ from its defaults",
        )

    @extend_schema(responses=RoundSerializer(many=True))
    def get(self, request: Request, campaign_uid: str) -> Response:
        campaign = campaign_for(request.user, campaign_uid)
        rounds = campaign_rounds(campaign=campaign).select_related("campaign")[:500]
        return Response(RoundSerializer(rounds, many=True).data)

    @extend_schema(request=InputSerializer, responses={201: RoundSerializer}, parameters=_KEY)
    def post(self, request: Request, campaign_uid: str) -> Response:
        campaign = campaign_for(request.user, campaign_uid)
        values = input_read(self.InputSerializer, request)
        try:
            recipe = recipe_load(values["recipe"])
        except ConfigError as error:
            raise serializers.ValidationError({"recipe": [str(error)]}) from error

        def act() -> Any:
            round = round_start(
                campaign=campaign,
                recipe=recipe,
                launch_key=get_random_string(32),
                actor=user_of(request),
            )
            advance_round.delay_on_commit(round.pk)
            return RoundSerializer(round).data

        body = {"start": campaign.uid, **values}
        return Response(done_once(request, body, act), status=201)


class RoundApi(APIView):
    """One round, with its stages and what it came to."""

    @extend_schema(responses=RoundDetailSerializer)
    def get(self, request: Request, round_uid: str) -> Response:
        round = round_for(request.user, round_uid)
        return Response(RoundDetailSerializer(round_overview(round=round)).data)


class RoundActApi(APIView):
    """Something done to a round. Subclasses name the service."""

    input_serializer: type[StrictSerializer] = ReasonSerializer

    def prepare(self, *, round: Round) -> Any:
        """What takes too long for the transaction that holds the key; `prepared` in `act`."""
        return None

    def act(
        self, *, round: Round, request: Request, values: dict[str, Any], prepared: Any
    ) -> Round:
        raise TypeError(f"{type(self).__name__} says nothing to do")

    def post(self, request: Request, round_uid: str) -> Response:
        round = round_for(request.user, round_uid)
        values = input_read(self.input_serializer, request)

        prepared = self.prepare(round=round)

        def act() -> Any:
            changed = self.act(round=round, request=request, values=values, prepared=prepared)
            advance_round.delay_on_commit(changed.pk)
            return RoundSerializer(changed).data

        body = {type(self).__name__: round.uid, **values}
        return Response(done_once(request, body, act))


@extend_schema(request=ReasonSerializer, responses=RoundSerializer, parameters=_KEY)
class RoundCancelApi(RoundActApi):
    """Gives a round up."""

    def act(
        self, *, round: Round, request: Request, values: dict[str, Any], prepared: Any
    ) -> Round:
        return round_cancel(round=round, actor=user_of(request), **values)


@extend_schema(request=ReasonSerializer, responses=RoundSerializer, parameters=_KEY)
class RoundCloseApi(RoundActApi):
    """Ends annotating with what was submitted."""

    def act(
        self, *, round: Round, request: Request, values: dict[str, Any], prepared: Any
    ) -> Round:
        return round_annotation_close(round=round, actor=user_of(request), **values)


@extend_schema(request=ReasonSerializer, responses=RoundSerializer, parameters=_KEY)
class RoundContinueApi(RoundActApi):
    """Lets a round through the human gate it waits at."""

    def prepare(self, *, round: Round) -> Any:
        return round_files_read(round=round)

    def act(
        self, *, round: Round, request: Request, values: dict[str, Any], prepared: Any
    ) -> Round:
        return round_continue(round=round, actor=user_of(request), files=prepared, **values)


class NothingSerializer(StrictSerializer):
    """An empty body."""


@extend_schema(request=NothingSerializer, responses=RoundSerializer, parameters=_KEY)
class RoundRetryApi(RoundActApi):
    """Takes a failed round up where it failed."""

    input_serializer = NothingSerializer

    def act(
        self, *, round: Round, request: Request, values: dict[str, Any], prepared: Any
    ) -> Round:
        return round_retry(round=round, actor=user_of(request))


class DecisionSerializer(ReasonSerializer):
    promote = serializers.BooleanField()


@extend_schema(request=DecisionSerializer, responses=RoundSerializer, parameters=_KEY)
class RoundDecideApi(RoundActApi):
    """Promotes the new policy, or rejects it."""

    input_serializer = DecisionSerializer

    def act(
        self, *, round: Round, request: Request, values: dict[str, Any], prepared: Any
    ) -> Round:
        return round_decide(round=round, actor=user_of(request), **values)


def done_once(request: Request, body: dict[str, Any], act: Callable[[], Any]) -> Any:
    """The reply of `act`, done once under the request's Idempotency-Key where it has one."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        with transaction.atomic():
            return act()
    return idempotent(user=user_of(request), key=key, body=body, act=act)
