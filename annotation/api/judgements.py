"""What the body of a submission is, by the kind of its task."""

from typing import Any

from rest_framework import serializers

from annotation.models import Task
from annotation.services.submissions import MAX_ACTIVE_S, MAX_RATIONALE_CHARS
from annotation.services.writings import MAX_TEXT_CHARS
from modelhub.serializers import StrictSerializer

MAX_TIERS = 1000
MAX_TURNS = 100
MAX_FLAGS = 100


def _uid(**options: Any) -> serializers.CharField:
    return serializers.CharField(max_length=32, **options)


def _writing(**options: Any) -> serializers.CharField:
    return serializers.CharField(trim_whitespace=False, max_length=MAX_TEXT_CHARS, **options)


class WholeNumberField(serializers.IntegerField):
    """A JSON whole number; "3", 3.0 and true are none."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return int(super().to_internal_value(data))


class JudgementSerializer(StrictSerializer):
    """What every judgement comes with."""

    rationale = serializers.CharField(
        default="", allow_blank=True, trim_whitespace=False, max_length=MAX_RATIONALE_CHARS
    )
    active_s = serializers.FloatField(default=0.0, min_value=0, max_value=MAX_ACTIVE_S)
    first_move_s = serializers.FloatField(
        default=None,
        allow_null=True,
        min_value=0,
        max_value=MAX_ACTIVE_S,
        help_text="seconds of attention before the first move",
    )


class RankingSerializer(JudgementSerializer):
    class RewriteSerializer(StrictSerializer):
        original = _uid()
        text = _writing()

    tiers = serializers.ListField(
        child=serializers.ListField(child=_uid(), min_length=1, max_length=MAX_TIERS),
        min_length=1,
        max_length=MAX_TIERS,
        help_text="uids, best first; several in one list are a tie",
    )
    unacceptable = serializers.ListField(child=_uid(), default=list, max_length=MAX_TIERS)
    rewrite = RewriteSerializer(
        default=None, allow_null=True, help_text="a better version of one of them, where written"
    )


class PairSerializer(JudgementSerializer):
    better = _uid(allow_null=True, help_text="null is a tie")
    degree = WholeNumberField(min_value=0, max_value=4, help_text="0 a tie, 4 significantly better")
    unsafe = serializers.ListField(child=_uid(), default=list, max_length=2)


class RatingSerializer(JudgementSerializer):
    class OneSerializer(StrictSerializer):
        overall = WholeNumberField(min_value=1, max_value=7)
        flags = serializers.ListField(
            child=serializers.CharField(max_length=40), default=list, max_length=MAX_FLAGS
        )

    ratings = serializers.DictField(child=OneSerializer(), help_text="by the answer's uid")


class EditSerializer(JudgementSerializer):
    original = _uid()
    text = _writing()


class DemonstrationSerializer(JudgementSerializer):
    class TurnSerializer(StrictSerializer):
        user = _writing()
        text = _writing()

    text = _writing()
    started_from = _uid(default=None, allow_null=True)
    turns = serializers.ListField(
        child=TurnSerializer(), default=list, max_length=MAX_TURNS, help_text="what follows"
    )


class DialogueSerializer(JudgementSerializer):
    class TurnSerializer(StrictSerializer):
        user = _writing()
        candidates = serializers.ListField(child=_uid(), min_length=2, max_length=2)
        chosen = _uid()
        degree = WholeNumberField(min_value=1, max_value=4)

    turns = serializers.ListField(child=TurnSerializer(), min_length=1, max_length=MAX_TURNS)


JUDGEMENTS: dict[str, type[JudgementSerializer]] = {
    Task.Kind.DEMONSTRATION.value: DemonstrationSerializer,
    Task.Kind.RANKING.value: RankingSerializer,
    Task.Kind.PAIR.value: PairSerializer,
    Task.Kind.RATING.value: RatingSerializer,
    Task.Kind.EDIT.value: EditSerializer,
    Task.Kind.DIALOGUE.value: DialogueSerializer,
}
