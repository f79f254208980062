"""What a version's page shows of its server, or of a form that asks for one."""

from typing import Any

from modelhub import storage
from modelhub.errors import ApplicationError
from modelhub.forms import ServerForm
from modelhub.models import ModelVersion
from modelhub.selectors import servers
from modelhub.selectors.uses import version_is_unread

LOG_BYTES = 8192


def serving_context(version: ModelVersion, form: ServerForm | None = None) -> dict[str, Any]:
    """What the template modelhub/_serving.html shows of a version: its server, or a form for one.

    form: as it was sent, where something was refused. Nothing for a version that writes no text.
    """
    if version.role not in servers.SERVES or version_is_unread(version):
        return {}
    server = servers.version_server(version=version)
    form = form or ServerForm(version=version)
    context: dict[str, Any] = {"server": server, "version": version, "server_form": form}
    if server is not None:
        context["server_log"] = storage.server_log_tail(server, max_bytes=LOG_BYTES)
        context["served_name"] = servers.served_name(version)
    return context | serving_needs(version, form["context_tokens"].value())


def serving_needs(version: ModelVersion, asked: Any) -> dict[str, Any]:
    """How much memory a server with so long a context takes; nothing where none can be told."""
    try:
        tokens = min(int(asked), version.context_tokens)
        size = servers.server_memory_bytes(version=version, context_tokens=tokens)
    except (ApplicationError, TypeError, ValueError):
        return {}  # no number; or its files are not there, or do not say
    return {"server_bytes": size, "server_tokens": tokens} if tokens > 0 else {}
