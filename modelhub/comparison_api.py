"""Versions side by side, for staff; to everyone else it does not exist."""

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from modelhub.api import HubApi, ModelVersionSerializer
from modelhub.models import ModelVersion
from modelhub.selectors.comparison_rows import Cell, ComparedRow
from modelhub.selectors.evaluations_compare import people_verdicts
from modelhub.selectors.versions_compare import MOST_COMPARED, versions_compare, versions_get
from modelhub.serializers import StrictSerializer, user_of


class RowSerializer(serializers.Serializer[Any]):
    """One thing of every version, in the versions' order."""

    class CellSerializer(serializers.Serializer[Any]):
        text = serializers.CharField()
        value = serializers.FloatField(allow_null=True)
        low = serializers.FloatField(allow_null=True)
        high = serializers.FloatField(allow_null=True)
        is_best = serializers.BooleanField()

    name = serializers.CharField()
    differs = serializers.BooleanField()
    note = serializers.CharField(help_text="why none is called the best, or how sure that is")
    cells = CellSerializer(many=True)


class VersionCompareApi(HubApi):
    """Two to four versions side by side, as the page has them."""

    class InputSerializer(StrictSerializer):
        version = serializers.ListField(
            child=serializers.CharField(max_length=32),
            min_length=2,
            max_length=MOST_COMPARED,
            help_text="uids, in the order wanted: ?version=…&version=…",
        )
        only = serializers.ChoiceField(choices=["differences"], required=False)

    class OutputSerializer(serializers.Serializer[Any]):
        class DuelSerializer(serializers.Serializer[Any]):
            run = serializers.CharField()
            before = serializers.CharField()
            after = serializers.CharField()
            figures = serializers.DictField(child=serializers.CharField())

        class VerdictSerializer(serializers.Serializer[Any]):
            before = serializers.CharField()
            after = serializers.CharField()
            wins = serializers.IntegerField()
            ties = serializers.IntegerField()
            losses = serializers.IntegerField()
            prompts = serializers.IntegerField()
            is_cut = serializers.BooleanField(help_text="the newest judgements alone are counted")
            share = serializers.FloatField(help_text="of prompts won, a tie as half")
            low = serializers.FloatField(allow_null=True)
            high = serializers.FloatField(allow_null=True)

        versions = ModelVersionSerializer(many=True)
        facts = RowSerializer(many=True)
        origins = RowSerializer(many=True)
        settings = RowSerializer(many=True)
        figures = RowSerializer(many=True)
        duels = DuelSerializer(many=True)
        people = VerdictSerializer(
            many=True, help_text="rankings and pairs of people in projects you review"
        )
        common_ancestor = serializers.CharField(allow_null=True, help_text="its uid")
        ways = serializers.ListField(
            child=serializers.ListField(child=serializers.CharField()),
            help_text="uids from the common ancestor to each version",
        )

    @extend_schema(parameters=[InputSerializer], responses=OutputSerializer)
    def get(self, request: Request) -> Response:
        query = request.query_params
        given = self.InputSerializer(data={**query.dict(), "version": query.getlist("version")})
        given.is_valid(raise_exception=True)
        uids = list(dict.fromkeys(given.validated_data["version"]))
        versions = versions_get(uids=uids)
        if len(versions) < len(uids):
            known = {one.uid for one in versions}
            unknown = ", ".join(uid for uid in uids if uid not in known)
            raise NotFound(gettext("There is no version %(uid)s.") % {"uid": unknown})
        if len(versions) < 2:
            raise serializers.ValidationError({"version": ["Name two versions or more."]})
        found = versions_compare(versions=versions)
        differences_alone = given.validated_data.get("only") == "differences"

        def told(rows: Sequence[ComparedRow]) -> list[dict[str, Any]]:
            return [_row(row) for row in rows if row.differs or not differences_alone]

        return Response(
            {
                "versions": [ModelVersionSerializer(one).data for one in versions],
                "facts": told(found.facts),
                "origins": told(found.origins),
                "settings": told([*found.settings, *found.settings_of_one]),
                "figures": told([*found.figures, *found.figures_besides]),
                "duels": [
                    {
                        "run": duel.run.uid,
                        "before": duel.before.uid,
                        "after": duel.after.uid,
                        "figures": dict(duel.figures),
                    }
                    for duel in found.duels
                ],
                "people": [
                    {
                        "before": one.before.uid,
                        "after": one.after.uid,
                        "wins": one.wins,
                        "ties": one.ties,
                        "losses": one.losses,
                        "prompts": one.prompts,
                        "is_cut": one.is_cut,
                        "share": one.share.value,
                        "low": one.share.low,
                        "high": one.share.high,
                    }
                    for one in people_verdicts(versions=versions, user=user_of(request))
                ],
                "common_ancestor": _uid(found.ancestry.common),
                "ways": [[one.uid for one in way] for way in found.ancestry.ways],
            }
        )


def _row(row: ComparedRow) -> dict[str, Any]:
    cells = [_cell(cell) for cell in row.cells]
    return {"name": row.name, "differs": row.differs, "note": row.note, "cells": cells}


def _cell(cell: Cell) -> dict[str, Any]:
    figure = cell.figure
    return {
        "text": cell.said,
        "value": figure.value if figure else None,
        "low": figure.low if figure else None,
        "high": figure.high if figure else None,
        "is_best": cell.is_best,
    }


def _uid(version: ModelVersion | None) -> str | None:
    return version.uid if version is not None else None
