"""How the API's schema names things."""

from typing import Any

from drf_spectacular.openapi import AutoSchema


class NamedSchema(AutoSchema):
    """Names a serializer after the view it is nested in: DraftSaveApi.InputSerializer is
    DraftSaveInput. By its own name alone every view's input would be the same component."""

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        outer, _, own = type(serializer).__qualname__.rpartition(".")
        owners = [part.removesuffix("Api").removesuffix("Serializer") for part in outer.split(".")]
        return "".join(owners) + own
