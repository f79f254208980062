"""vLLM's own server on a tiny model: what the stand-in of the other tests stands for."""

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

from modelhub import storage
from modelhub.endpoints import answer_stream
from modelhub.keeper import Keeper
from modelhub.ml.playground import main as playground
from modelhub.ml.rundir import RunDir
from modelhub.ml.serve import Served, server_command
from modelhub.models import Endpoint, Server
from modelhub.selectors.servers import PROCESS_BYTES
from modelhub.services.artifacts import artifact_store
from modelhub.services.servers import server_request, server_stop
from tests import builders
from tests.modelhub.ml.runs import run_write
from tests.modelhub.ml.test_adapter_directory import lora
from tests.modelhub.test_keeper import gone, processes_of
from tests.tiny_model import CHAT_TEMPLATE, tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.slow, pytest.mark.django_db]
START_S = 240  # a minute on a quiet machine


def memory_bytes(pid: int) -> int:
    """What a process takes for itself: of what it shares with others, its part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise AssertionError(pid)


def playground_cell(tmp_path: Path, endpoint: Endpoint) -> Any:
    """What the playground makes of the same question, asked by the server."""
    config = {
        "prompt": "hello",
        "models": ["tiny v1"],
        "strategies": [{"kind": "greedy"}],
        "max_tokens": 8,
        "servers": [endpoint.base_url],
        "served_names": [endpoint.served_model],
    }
    run = run_write(tmp_path / "run", "playground", config, model_0=tmp_path / "tiny")
    playground(RunDir(run))
    (cell,) = json.loads((run / "result.json").read_text())["result"]["cells"]
    return cell


def test_vllm_serves_a_version_and_leaves_nothing_behind(settings, tmp_path) -> None:
    settings.SERVERS_DIR = tmp_path / "servers"
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"
    eve = User.objects.create_user("eve", is_staff=True)
    version = builders.make_version("tiny")
    version.artifact = artifact_store(folder=tiny_model_write(tmp_path / "tiny"), kind="model")
    version.context_tokens, version.chat_template = 512, CHAT_TEMPLATE
    version.save()
    keeper = Keeper(host="here")
    server = server_request(version=version, context_tokens=512, requested_by=eve)
    try:
        deadline = time.monotonic() + START_S
        while server.status != Server.Status.READY:
            assert time.monotonic() < deadline and server.is_live, server.error
            keeper.look()
            time.sleep(0.2)
            server.refresh_from_db()
        print(f"ready in {(server.ready_at - server.started_at).total_seconds():.0f} s")
        (endpoint,) = Endpoint.objects.all()
        asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
        words = answer_stream(endpoint=endpoint, temperature=0.0, **asked)
        body = {**asked, "model": "tiny@1", "temperature": 0.0}
        body |= {"logprobs": True, "top_logprobs": 3}
        reply = httpx.post(f"{endpoint.base_url}/chat/completions", json=body, timeout=60)
        (choice,) = reply.json()["choices"]
        assert "".join(words) == choice["message"]["content"]  # greedy, twice
        assert all(len(one["top_logprobs"]) == 3 for one in choice["logprobs"]["content"])
        cell = playground_cell(tmp_path, endpoint)
        # Half a character at the end is shown here, and left out there.
        said = choice["message"]["content"]
        assert cell["text"].rstrip("\ufffd") == said.rstrip("\ufffd")
        assert 1 <= len(cell["tokens"]) <= 8 and cell["finish_reason"]
        for token in cell["tokens"]:
            # Greedy: the token written is the likeliest of those beside it.
            assert token["p"] == max(p for _, p, _ in token["others"]) <= 1
        taken = sum(memory_bytes(pid) for pid in processes_of(server))
        print(f"{taken >> 20} MiB")
        assert PROCESS_BYTES / 2 < taken < server.memory_bytes
        server_stop(server=server, actor=eve)
        while server.is_live:
            keeper.look()
            time.sleep(0.2)
            server.refresh_from_db()
        assert server.error == ""
        assert gone(server)
        assert not Endpoint.objects.exists()
    finally:
        keeper.end_all()
        print(storage.server_log_tail(server, max_bytes=3000))


def test_every_argument_is_one_that_vllm_knows(tmp_path) -> None:
    """Of an adapter too, whose arguments the model above has not."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    adapter = lora(tmp_path / "adapter")
    served = Served(
        name="tiny@2",
        model=str(adapter),
        sha256="",
        base=str(tmp_path / "base"),
        port=8000,
        context_tokens=512,
        cache_bytes=1 << 26,
    )
    given = make_arg_parser(FlexibleArgumentParser()).parse_args(server_command(served)[3:])
    assert given.model == str(tmp_path / "base")
    assert given.enable_lora and given.max_lora_rank == 8
    (module,) = given.lora_modules
    assert (module.name, module.path) == ("tiny@2", str(adapter))
