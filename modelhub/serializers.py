"""What every API input shares."""

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest
from rest_framework import serializers
from rest_framework.request import Request


class StrictSerializer(serializers.Serializer[Any]):
    """An input that refuses fields it does not know: a misspelt or forbidden one is heard of."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                raise serializers.ValidationError({name: ["Unknown field."] for name in unknown})
        return super().to_internal_value(data)


class EmptySerializer(StrictSerializer):
    """A request that says all it has to say by its address."""


def input_read(serializer: type[StrictSerializer], request: Request) -> dict[str, Any]:
    """The checked body of a request. Raises ValidationError (400, by field)."""
    given = serializer(data=request.data)
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


def user_of(request: Request | HttpRequest) -> User:
    """The signed-in person. Raises TypeError where the view's permissions let nobody in."""
    if not isinstance(request.user, User):
        raise TypeError("a view for signed-in people was reached by nobody")
    return request.user
