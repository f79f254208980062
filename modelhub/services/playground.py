"""Trials of the playground are runs like any other: queued here, worked off by a worker."""

from collections.abc import Sequence
from dataclasses import replace

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext

from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError
from modelhub.ml.trials import PlaygroundConfig
from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors.playground import WRITES
from modelhub.selectors.servers import served_name, server_address, servers_ready
from modelhub.selectors.uses import version_use_check
from modelhub.selectors.versions import version_inputs
from modelhub.services.runs import run_create


@transaction.atomic
def playground_trial_request(
    *,
    config: PlaygroundConfig,
    versions: Sequence[ModelVersion],
    requested_by: User | None,
    by_servers: bool = False,
) -> Run:
    """Queue a trial of these versions, which `config.models` names in their order.

    by_servers: those that are served now are asked by their servers. Raises ApplicationError for a
    version that writes no text, an adapter without its base, and a way to decode that servers have
    not.
    """
    if by_servers:
        ready = {one.version_id: one for one in servers_ready(versions=versions)}
        servers = [ready.get(version.pk) for version in versions]
        try:
            config = replace(
                config,
                servers=tuple(server_address(one) if one else "" for one in servers),
                served_names=tuple(served_name(version) for version in versions),
            )
        except ConfigError as error:
            raise ApplicationError(str(error)) from error
    inputs: dict[str, Artifact] = {}
    for place, version in enumerate(versions):
        if version.role not in WRITES:
            raise ApplicationError(
                gettext("%(version)s is a %(role)s model: it writes no text.")
                % {"version": version, "role": version.get_role_display()},
                {"field": "versions"},
            )
        version_use_check(version=version, program=config.PROGRAM, field="versions")
        inputs |= version_inputs(version=version, role=f"model_{place}")
    return run_create(
        program=config.PROGRAM,
        config=config,
        inputs=inputs,
        label=" ".join(config.prompt.split())[:120],
        requested_by=requested_by,
    )
