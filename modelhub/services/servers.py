"""The life of a server: waiting → starting → ready → ended, each arrow one conditional update.

People ask for a server and ask it to stop; the keeper of a machine does the rest.
"""

from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext

from modelhub import storage
from modelhub.errors import ApplicationError, ConflictError
from modelhub.models import Endpoint, Model, ModelVersion, Server
from modelhub.selectors.servers import (
    SERVES,
    served_name,
    server_address,
    server_cache_bytes,
    server_memory_bytes,
    servers_live,
)
from modelhub.selectors.uses import version_use_check
from modelhub.services.history import act_record

_NAME_CHARS = 60
_LOST_LEASES = 5  # after one it has ended by itself, if its machine goes on at all


@transaction.atomic
def server_request(*, version: ModelVersion, context_tokens: int, requested_by: User) -> Server:
    """Ask for a version to be served, by the next machine that runs programs.

    Raises ApplicationError for a version that writes no text, an adapter without its base, or a
    longer context than the version has, and ConflictError if it is served already.
    """
    # Under the model's lock, as a collection of garbage is: a version is served or removed.
    Model.objects.select_for_update().get(pk=version.model_id)
    if version.role not in SERVES:
        raise ApplicationError(
            gettext("%(version)s is a %(role)s model: it writes no text.")
            % {"version": version, "role": version.get_role_display()}
        )
    version_use_check(version=version, program="serve")
    if version.role == ModelVersion.Role.ADAPTER and version.parent is None:
        raise ApplicationError(
            gettext("%(version)s is an adapter, and no version is its base.") % {"version": version}
        )
    if not 1 <= context_tokens <= version.context_tokens:
        raise ApplicationError(
            gettext("%(asked)s tokens: the version's context is 1 to %(most)s.")
            % {"asked": context_tokens, "most": version.context_tokens},
            {"field": "context_tokens"},
        )
    if version.servers.exclude(status=Server.Status.ENDED).exists():
        raise ConflictError(gettext("%(version)s is served already.") % {"version": version})
    server = Server.objects.create(
        version=version,
        context_tokens=context_tokens,
        cache_bytes=server_cache_bytes(version=version, context_tokens=context_tokens),
        memory_bytes=server_memory_bytes(version=version, context_tokens=context_tokens),
        requested_by=requested_by,
    )
    act_record(actor=requested_by, subject=version, text="server asked for")
    return server


def server_stop(*, server: Server, actor: User | None) -> None:
    """Ask a server to end. One that waits, or whose machine is gone, ends here and now.

    Raises ConflictError if it has ended already.
    """
    asked = Server.objects.exclude(status=Server.Status.ENDED).filter(pk=server.pk)
    if not asked.update(stop_asked_at=timezone.now()):
        raise ConflictError(gettext("The server has ended already."))
    act_record(actor=actor, subject=server.version, text="server asked to stop")
    server.refresh_from_db()
    if server.status == Server.Status.WAITING:
        server_end(server=server, error="")
    elif server.is_lost:
        server_end(server=server, error=gettext("Its machine has not been heard of."))


def server_claim(*, server: Server, host: str) -> bool:
    """Take a waiting server for a machine. Of any number of keepers one gets it."""
    now = timezone.now()
    return (
        Server.objects.filter(
            pk=server.pk, status=Server.Status.WAITING, stop_asked_at__isnull=True
        ).update(status=Server.Status.STARTING, host=host, started_at=now, seen_at=now)
        == 1
    )


def server_started(*, server: Server, process: str, port: int) -> bool:
    """Keep which process it is. False: it was ended meanwhile."""
    starting = Server.objects.filter(pk=server.pk, status=Server.Status.STARTING)
    return starting.update(process=process, port=port) == 1


def server_seen(*, server: Server) -> None:
    """Say that the server is looked after."""
    Server.objects.filter(pk=server.pk).update(seen_at=timezone.now())


@transaction.atomic
def server_ready(*, server: Server) -> bool:
    """It answers: it becomes an endpoint, if what it serves is talked to by a chat template.

    False: it was ended meanwhile.
    """
    starting = Server.objects.select_for_update().filter(
        pk=server.pk, status=Server.Status.STARTING
    )
    found = starting.select_related("version__model").first()
    if found is None:
        return False
    if found.version.chat_template:
        found.endpoint = Endpoint.objects.create(
            name=_endpoint_name(found),
            base_url=server_address(found),
            served_model=served_name(found.version),
            version=found.version,
        )
    found.status, found.ready_at = Server.Status.READY, timezone.now()
    found.save(update_fields=["endpoint", "status", "ready_at"])
    return True


@transaction.atomic
def server_end(*, server: Server, error: str) -> None:
    """It is no more, and no endpoint either: its port may be another's tomorrow."""
    live = Server.objects.select_for_update().filter(pk=server.pk)
    found = live.exclude(status=Server.Status.ENDED).first()
    if found is None:
        return
    endpoint, found.endpoint = found.endpoint, None
    found.status, found.ended_at, found.error = Server.Status.ENDED, timezone.now(), error
    found.save(update_fields=["endpoint", "status", "ended_at", "error"])
    if endpoint is not None:
        endpoint.delete()


def servers_lost_end() -> int:
    """End those whose machine has long been silent, their endpoints too. Returns how many."""
    lost = [one for one in servers_live() if one.is_silent(leases=_LOST_LEASES)]
    for server in lost:
        server_end(server=server, error=gettext("Its machine has not been heard of."))
    return len(lost)


def servers_forget(*, older_than: timedelta = timedelta(days=30)) -> int:
    """Remove what servers that ended so long ago have left. Returns how many."""
    removed = 0
    before = timezone.now() - older_than
    for server in Server.objects.filter(status=Server.Status.ENDED, ended_at__lt=before):
        folder = storage.server_folder(server)
        if folder.is_dir():
            storage.folder_remove(folder)
        server.delete()
        removed += 1
    return removed


def _endpoint_name(server: Server) -> str:
    """ "served-smol-v3"; where a person has taken that name, with a part of the server's uid."""
    version = server.version
    name = f"served-{version.model.name[:_NAME_CHARS]}-v{version.number}"
    taken = Endpoint.objects.filter(name=name).exists()
    return f"{name}-{server.uid[:6]}" if taken else name
