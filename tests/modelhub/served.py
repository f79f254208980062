"""Versions that the stand-in for vLLM can serve, and waiting for what a keeper makes of them."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from modelhub.keeper import Keeper
from modelhub.models import ModelVersion, Server
from modelhub.services.artifacts import artifact_store
from tests import builders

STAND_IN = "tests.modelhub.stand_in_server"


def make_served(folder: Path, name: str = "smol", *, state: str = "") -> ModelVersion:
    """A version with a real folder. `state`: "slow", "broken" or "lingering", see the stand-in."""
    folder.mkdir(parents=True)
    config = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_size": 64,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "name.txt").write_text(name)
    if state:
        (folder / state).touch()
    version = builders.make_version(name)
    version.artifact = artifact_store(folder=folder, kind="model")
    version.chat_template = "{{ messages }}"
    version.save()
    return version


def looked(keeper: Keeper, server: Server, until: Callable[[Server], bool]) -> Server:
    """Let the keeper look until the server is as it should be, for a minute at most."""
    deadline = time.monotonic() + 60
    while True:
        keeper.look()
        server.refresh_from_db()
        if until(server):
            return server
        assert time.monotonic() < deadline, (server.status, server.error)
        time.sleep(0.05)
