"""Reading servers, and what one would take."""

import json
import os
from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext

from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.ml.hardware import AUTO, dtype_resolve
from modelhub.ml.serve import HOST
from modelhub.models import Endpoint, ModelVersion, Server

SERVES = (
    ModelVersion.Role.BASE,
    ModelVersion.Role.POLICY,
    ModelVersion.Role.ADAPTER,
    ModelVersion.Role.QUANTISED,
)

# vLLM and torch themselves, all processes of a server together: 1,463 MiB with a model of no size.
PROCESS_BYTES = 1_600 << 20
_CACHED_ANSWERS = 4  # of the longest kind; shorter ones share the room
_LEAST_CACHE_BYTES = 64 << 20


def served_name(version: ModelVersion) -> str:
    """The name that requests to a server call a version by."""
    return f"{version.model.name}@{version.number}"


def server_address(server: Server) -> str:
    """The base URL of a server's API, on its own machine."""
    return f"http://{HOST}:{server.port}/v1"


def endpoint_get(*, name: str) -> Endpoint | None:
    """An endpoint by its name; None if there is none. One query."""
    return Endpoint.objects.filter(name=name).first()


def servers_ready(*, versions: Iterable[ModelVersion]) -> list[Server]:
    """The servers of these versions that answer now, as far as is known. One query."""
    ready = Server.objects.filter(version__in=list(versions), status=Server.Status.READY)
    return [one for one in ready.filter(stop_asked_at=None) if not one.is_lost]


def servers_live() -> QuerySet[Server]:
    """Servers that are wanted or there, the earliest first, with version, model and endpoint."""
    live = Server.objects.exclude(status=Server.Status.ENDED)
    return live.select_related("version__model", "version__artifact", "endpoint").order_by("pk")


def version_server(*, version: ModelVersion) -> Server | None:
    """The version's server, or the last there was. One query."""
    return version.servers.select_related("endpoint", "requested_by").order_by("-pk").first()


def server_get(*, uid: str) -> Server | None:
    """One server with its version. One query."""
    found = Server.objects.select_related("version__model", "version__artifact", "endpoint")
    return found.filter(uid=uid).first()


def server_memory_bytes(*, version: ModelVersion, context_tokens: int) -> int:
    """Memory that serving a version is expected to take, all in all. Errors: see below."""
    cache = server_cache_bytes(version=version, context_tokens=context_tokens)
    return _weights_bytes(version) + cache + PROCESS_BYTES


def server_cache_bytes(*, version: ModelVersion, context_tokens: int) -> int:
    """Room for the keys and values of a few of the longest answers, at most a quarter of memory.

    Raises ApplicationError if the version's config.json does not say how large these are.
    """
    is_adapter = version.role == ModelVersion.Role.ADAPTER
    longest = context_tokens * _token_bytes(
        version.parent if is_adapter and version.parent else version
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(min(_CACHED_ANSWERS * longest, memory // 4), longest, _LEAST_CACHE_BYTES)


def _weights_bytes(version: ModelVersion) -> int:
    """In vLLM's dtype here; what is quantised stays as it is, an adapter lies on its base."""
    if version.role == ModelVersion.Role.QUANTISED:
        return version.artifact.size_bytes
    base = version.parent if version.role == ModelVersion.Role.ADAPTER else None
    return _number_bytes() * (version.parameters + (base.parameters if base else 0))


def _number_bytes() -> int:
    return 4 if dtype_resolve(AUTO) == "float32" else 2


def _token_bytes(version: ModelVersion) -> int:
    """Bytes of a token's keys and values, by the model's own config.json."""
    try:
        path = storage.artifact_folder(version.artifact) / "config.json"
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        layers = told.get("num_hidden_layers") or told["n_layer"]
        heads = told.get("num_attention_heads") or told["n_head"]
        head = told.get("head_dim") or (told.get("hidden_size") or told["n_embd"]) // heads
        return int(_number_bytes() * 2 * layers * (told.get("num_key_value_heads") or heads) * head)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApplicationError(
            gettext("config.json of %(version)s does not say how large its cache is.")
            % {"version": version}
        ) from error
